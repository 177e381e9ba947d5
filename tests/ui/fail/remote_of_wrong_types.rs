use chare::prelude::*;

struct Account(i64);

#[chare]
impl Account {
    fn new() -> Self {
        Account(0)
    }
}

struct Other;

#[chare]
impl Other {
    fn new() -> Self {
        Other
    }
}

#[chare::remote]
fn deposit(account: &mut Account, amount: i64) {
    account.0 += amount;
}

fn plain(_: &mut Account) {}

fn wrong(account: Element<Account>, other: Element<Other>) {
    account.apply_with(remote!(deposit), "five").send();
    account.apply_with(remote!(|a: &mut Account, x: i64, y: i64| a.0 = x + y), 5).send();
    account.apply(remote!(deposit)).send();
    other.apply_with(remote!(deposit), 5).send();
    other.apply(remote!(|a: &mut Account| a.0 = 1)).send();
    account.apply(remote!(plain)).send();
}

fn generic<T: Send + 'static>(account: Element<Account>, value: T) {
    account.apply_with(remote!(|_: &mut Account, _: T| ()), value).send();
}

fn main() {}
