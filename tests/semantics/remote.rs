//! Code that is sent to a chare: `apply` of closures and functions, and the table that has all of it.

use std::collections::HashSet;

use chare::prelude::*;
use chare::{CodeKind, CodeTable, ExitReport, Options};

/// What is there to be applied to.
struct Account {
    balance: i64,
}

#[chare]
impl Account {
    fn new(balance: i64) -> Self {
        Account { balance }
    }

    #[entry]
    fn balance(&self) -> i64 {
        self.balance
    }

    #[entry]
    async fn own_it(&mut self, cx: &Cx<Self>, release: Promise<Promise<()>>) -> Result<()> {
        let before = self.balance;
        let (promise, released) = cx.promise();
        release.send(promise)?;
        released.await?;
        assert_eq!(self.balance, before, "nobody else has touched it");
        Ok(())
    }

    fn withdraw(&mut self, amount: i64) -> std::result::Result<i64, Overdraft> {
        if amount > self.balance {
            return Err(Overdraft(amount - self.balance));
        }
        self.balance -= amount;
        Ok(self.balance)
    }
}

#[derive(Debug)]
struct Overdraft(i64);

impl std::fmt::Display for Overdraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is missing", self.0)
    }
}

impl std::error::Error for Overdraft {}

/// One of an array.
struct Cell(usize);

#[chare(index = usize)]
impl Cell {
    fn new(cx: &Cx<Self>) -> Self {
        Cell(cx.index())
    }
}

/// Adds and says what it is then.
#[chare::remote]
fn deposit(account: &mut Account, amount: i64) -> i64 {
    account.balance += amount;
    account.balance
}

mod elsewhere {
    use super::{Account, Cx, Overdraft};

    #[chare::remote]
    pub(super) fn transfer(
        account: &mut Account,
        cx: &Cx<Account>,
        amount: i64,
        currency: String,
    ) -> std::result::Result<String, Overdraft> {
        let rest = account.withdraw(amount)?;
        Ok(format!("{rest} {currency} on PE {}", cx.my_pe()))
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn code_runs_where_the_chare_lives(rt: Runtime) -> Result<()> {
    let accounts = rt.group::<Account>().create(10).await?;
    for pe in rt.pes() {
        let account = accounts.on(pe);
        account.apply(remote!(|a: &mut Account| a.balance += 5)).await?;
        assert_eq!(account.apply(remote!(|a: &Account| a.balance)).await?, 15);
        let own_pe = remote!(|_: &Account, cx: &Cx<Account>| cx.my_pe());
        assert_eq!(account.apply(own_pe).await?, pe);
        assert_eq!(account.balance().await?, 15);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn arguments_go_along(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(1).await?;
    let add = remote!(|a: &mut Account, amount: i64| {
        a.balance += amount;
        a.balance
    });
    assert_eq!(account.apply_with(add, 2).await?, 3);
    let mix = remote!(|a: &mut Account, by: i64, (x, y): (i64, i64), words: Vec<String>| -> String {
        a.balance = a.balance * by + x + y;
        format!("{} {}", a.balance, words.join(" "))
    });
    let words = vec!["two".to_owned(), "words".to_owned()];
    assert_eq!(account.apply_with(mix, (10, (3, 4), words)).await?, "37 two words");
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn functions_are_applied_by_name_and_called_like_others(rt: Runtime) -> Result<()> {
    let last = rt.num_pes() - 1;
    let account = rt.single::<Account>().on_pe(last).create(1).await?;
    assert_eq!(account.apply_with(remote!(deposit), 6).await?, 7);
    let transfer = remote!(elsewhere::transfer);
    assert_eq!(account.apply_with(transfer, (2, "EUR".to_owned())).await?, format!("5 EUR on PE {last}"));
    let mut own = Account { balance: 1 };
    assert_eq!(deposit(&mut own, 1), 2);
    Ok(())
}

#[chare::test(pes = [1, 2])]
async fn the_error_of_a_result_is_that_of_the_call(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(1).await?;
    // The type of each is found by another way: by the compiler, as written, of a function.
    let calls = [
        account.apply_with(remote!(|a: &mut Account, n: i64| a.withdraw(n)), 5).future(),
        account
            .apply_with(
                remote!(|a: &mut Account, n: i64| -> Result<i64> {
                    a.withdraw(n)?;
                    Ok(a.balance)
                }),
                5,
            )
            .future(),
    ];
    for call in calls {
        let error = call.await.expect_err("there is not so much");
        assert!(error.to_string().contains("4 is missing"), "{error}");
    }
    let error = account.apply_with(remote!(elsewhere::transfer), (9, "EUR".to_owned())).await;
    assert!(error.expect_err("there is not so much").to_string().contains("8 is missing"));
    let rest: i64 = account.apply(remote!(|a: &mut Account| a.withdraw(1))).await?;
    assert_eq!(rest, 0);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn on_a_collection_it_is_a_broadcast(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(13).create(()).await?;
    cells.apply_with(remote!(|cell: &mut Cell, by: usize| cell.0 *= by), 3).await?;
    let all = cells.apply(remote!(|cell: &Cell| cell.0)).gather().await?;
    assert_eq!(all, (0..13).map(|number| number * 3).collect::<Vec<_>>());
    let group = rt.group::<Account>().create(4).await?;
    group.apply_with(remote!(deposit), 1).send();
    assert_eq!(group.apply_with(remote!(deposit), 2).gather().await?, vec![7; rt.num_pes()]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn it_is_sent_in_every_way_that_calls_are(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(0).await?;
    account.apply_with(remote!(deposit), 1).expedited().send();
    assert!(account.apply_with(remote!(deposit), 2).priority(-3).future().await? >= 2);
    rt.quiescence().await?;
    let (promise, value) = rt.promise();
    account.apply_with(remote!(deposit), 4).to(promise);
    assert_eq!(value.await?, 7);
    let _never_sent = account.apply_with(remote!(deposit), 8);
    rt.quiescence().await?;
    assert_eq!(account.balance().await?, 7);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn it_waits_for_its_chare_like_a_call(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(1).send();
    assert_eq!(account.apply_with(remote!(deposit), 1).await?, 2, "kept until it is constructed");
    let (promise, release) = rt.promise();
    account.own_it(promise).send();
    let release = release.await?;
    let held = account.apply_with(remote!(deposit), 1).future();
    rt.quiescence().await?;
    release.send(())?;
    assert_eq!(held.await?, 3);
    Ok(())
}

/// What no other process can know.
#[derive(Clone)]
struct Opaque(i64);

#[chare::remote]
fn deposit_opaque(account: &mut Account, Opaque(amount): Opaque) -> Opaque {
    account.balance += amount;
    Opaque(account.balance)
}

#[chare::test(pes = [1, 2, 4])]
async fn what_it_takes_and_returns_may_be_of_any_type(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(1).await?;
    // Types that the compiler has found, of which some have defaults.
    assert_eq!(account.apply(remote!(|_: &Account| 7)).await?, 7);
    assert_eq!(account.apply(remote!(|_: &Account| Some(1.5))).await?, Some(1.5));
    let all = remote!(|a: &Account, n: usize| (0..n).map(|k| a.balance + k as i64).collect::<Vec<_>>());
    assert_eq!(account.apply_with(all, 1000).await?, (1..=1000).collect::<Vec<i64>>());
    let greeting = remote!(|_: &Account, name: String| format!("hello, {name}"));
    assert_eq!(account.apply_with(greeting, "world".to_owned()).await?, "hello, world");
    // Those that serde does not know go as far as their process.
    match account.apply_with(remote!(deposit_opaque), Opaque(4)).await {
        Ok(Opaque(balance)) => assert_eq!(balance, 5),
        Err(error) => {
            assert!(error.to_string().contains("Opaque` cannot be sent to another process"), "{error}")
        }
    }
    match account.apply(remote!(|a: &Account| Opaque(a.balance))).await {
        Ok(Opaque(balance)) => assert_eq!(balance, account.balance().await?),
        Err(error) => {
            assert!(error.to_string().contains("Opaque` cannot be sent to another process"), "{error}")
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn code_may_send_code(rt: Runtime) -> Result<()> {
    let accounts = rt.group::<Account>().create(10).await?;
    let last = accounts.on(rt.num_pes() - 1);
    let pass_on = remote!(|a: &mut Account, to: Element<Account>, told: Promise<i64>| {
        let take = remote!(|a: &mut Account, amount: i64| {
            a.balance += amount;
            a.balance
        });
        to.apply_with(take, std::mem::take(&mut a.balance)).to(told);
    });
    let (promise, told) = rt.promise();
    last.apply_with(pass_on, (accounts.on(0), promise)).await?;
    assert_eq!(told.await?, if rt.num_pes() == 1 { 10 } else { 20 });
    assert_eq!(accounts.on(0).balance().await?, if rt.num_pes() == 1 { 10 } else { 20 });
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_panic_is_told_with_its_place_and_poisons(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(1).await?;
    let line = line!() + 1;
    let fail = remote!(|a: &mut Account| -> () { panic!("{} is too little", a.balance) });
    let error = account.apply(fail).await.expect_err("it panics");
    let CallError::Panicked(panic) = &error else { panic!("{error}") };
    assert_eq!((panic.entry.chare, panic.entry.line), ("Account", line));
    assert!(panic.message.contains("1 is too little"), "{error}");
    let error = account.apply(remote!(|a: &Account| a.balance)).await.expect_err("it is poisoned");
    assert!(matches!(error, CallError::Poisoned(_)), "{error}");
    Ok(())
}

/// Runs a program that ends badly.
fn report_of<F: Future<Output = Result<()>> + Send + 'static>(
    pes: usize,
    main: impl FnOnce(Runtime) -> F + Send,
) -> ExitReport {
    crate::run_with(Options::default().with_pes(pes), main)
}

#[test]
fn an_error_that_nobody_awaits_ends_the_run() {
    for pes in [1, 2] {
        let report = report_of(pes, |rt| async move {
            let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(1).await?;
            account.apply_with(remote!(|a: &mut Account, n: i64| a.withdraw(n)), 5).send();
            rt.quiescence().await?;
            Ok(())
        });
        assert!(!report.is_success());
        assert!(report.to_string().contains("4 is missing"), "{report}");
    }
}

#[test]
fn a_hang_names_the_code_that_is_held() {
    for pes in [1, 2] {
        let line = line!() + 6;
        let report = report_of(pes, |rt| async move {
            let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(1).await?;
            let (promise, release) = rt.promise();
            account.own_it(promise).send();
            let _never = release.await?;
            let call = account.apply_with(remote!(|a: &mut Account, n: i64| a.withdraw(n)), 5).future();
            call.await?;
            Ok(())
        });
        assert_eq!(report.code(), chare::HANG_EXIT_CODE, "{report}");
        let text = report.to_string();
        assert!(
            text.contains(&format!("held: Account.apply(tests/semantics/remote.rs:{line}) for Account")),
            "{text}"
        );
    }
}

#[test]
fn the_table_has_entries_functions_and_closures() {
    let closure = remote!(|a: &mut Account, n: i64| a.withdraw(n));
    let (function, same_function) = (remote!(elsewhere::transfer), remote!(elsewhere::transfer));
    let table = CodeTable::of_program().expect("all ids differ");
    let find = |kind, name: &str| {
        let found = table.iter().filter(|code| code.kind() == kind && code.name().ends_with(name));
        found.collect::<Vec<_>>()
    };
    let entries = find(CodeKind::Entry, "::remote::Account::own_it");
    assert_eq!(entries.len(), 1);
    assert!(entries[0].file().ends_with("remote.rs") && entries[0].signature().contains("Promise"));
    let functions = find(CodeKind::Function, "::remote::elsewhere::transfer");
    assert_eq!(functions.len(), 1);
    assert_eq!(functions[0].id(), function.id());
    assert_eq!(function.id(), same_function.id());
    let here = find(CodeKind::Closure, "::remote::the_table_has_entries_functions_and_closures::remote!");
    assert_eq!(here.iter().map(|code| code.id()).collect::<Vec<_>>(), [closure.id()]);
}

#[test]
fn the_table_is_sorted_and_has_each_id_once() {
    let table = CodeTable::of_program().expect("all ids differ");
    assert!(table.iter().is_sorted_by_key(|code| code.name()));
    let ids: HashSet<_> = table.iter().map(|code| code.id()).collect();
    assert_eq!(ids.len(), table.iter().count());
    let again = CodeTable::of_program().expect("all ids differ");
    assert_eq!(again.hash(), table.hash());
}

#[chare::test(pes = [1, 2])]
async fn closures_at_one_place_are_told_apart(rt: Runtime) -> Result<()> {
    macro_rules! sum_and_product {
        ($account:ident, $n:expr) => {
            (
                $account.apply_with(remote!(|a: &mut Account, n: i64| a.balance + n), $n),
                $account.apply_with(remote!(|a: &mut Account, n: i64| a.balance * n), $n),
            )
        };
    }
    let account = rt.single::<Account>().on_pe(rt.num_pes() - 1).create(5).await?;
    let (sum, product) = sum_and_product!(account, 3);
    assert_eq!((sum.await?, product.await?), (8, 15));
    Ok(())
}

#[chare::test(pes = [1, 2])]
async fn chares_of_one_name_in_two_functions_are_told_apart(rt: Runtime) -> Result<()> {
    fn name_of_entry<const N: u32>() -> Vec<String> {
        struct Local;
        #[chare]
        impl Local {
            fn new() -> Self {
                Local
            }
            #[entry]
            fn touch(&self) {}
        }
        let table = CodeTable::of_program().expect("all ids differ");
        table.iter().map(|code| code.name().to_owned()).filter(|name| name.contains("Local::touch")).collect()
    }
    struct Local;
    #[chare]
    impl Local {
        fn new() -> Self {
            Local
        }
        #[entry]
        fn touch(&self) {}
    }
    rt.group::<Local>().create(()).await?.touch().await?;
    let names = name_of_entry::<1>();
    let here = names.iter().filter(|name| name.contains("chares_of_one_name_in_two_functions"));
    assert_eq!(here.count(), 2, "{names:?}");
    Ok(())
}
