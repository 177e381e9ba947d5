use std::rc::Rc;

use chare::prelude::*;

struct Account(i64);

#[chare]
impl Account {
    fn new() -> Self {
        Account(0)
    }
}

#[chare::remote]
async fn coroutine(_: &mut Account) {}

#[chare::remote]
fn generic<T: Send + 'static>(_: &mut Account, _: T) {}

#[chare::remote]
fn no_chare(_: u64) {}

#[chare::remote]
fn nothing() {}

#[chare::remote]
fn borrows(_: &mut Account, _: &str) {}

#[chare::remote(fast)]
fn options(_: &mut Account) {}

#[chare::remote]
struct NoFunction;

fn closures(account: Element<Account>) {
    account.apply(remote!(|a| a.0 += 1)).send();
    account.apply(remote!(move |a: &mut Account| a.0 += 1)).send();
    account.apply(remote!(async |a: &mut Account| a.0 += 1)).send();
    account.apply(remote!(|a: Account| a.0)).send();
    account.apply_with(remote!(|a: &mut Account, words: &str| a.0 += words.len() as i64), "x").send();
    account.apply_with(remote!(|a: &mut Account, n: i64, _: &Cx<Account>| a.0 += n), 1).send();
    account.apply(remote!(1 + 1)).send();
}

fn not_send(account: Element<Account>) {
    account.apply(remote!(|_: &mut Account| Rc::new(1))).send();
    account.apply_with(remote!(|_: &mut Account, _: Rc<i64>| ()), Rc::new(1)).send();
}

fn main() {}
