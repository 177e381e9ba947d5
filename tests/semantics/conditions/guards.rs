//! Guards, `call.when(remote!(..))`: the caller's code decides at the last moment whether a call runs, waits or never runs.

use chare::Decision::{self, Defer, Drop, Run};
use chare::HANG_EXIT_CODE;
use chare::prelude::*;
use futures::FutureExt;

use serde::{Deserialize, Serialize};

use super::super::{PES, is_spread, run};

#[derive(Default, Serialize, Deserialize)]
struct Account {
    is_open: bool,
    is_closed: bool,
    balance: i64,
    log: Vec<i64>,
}

#[chare(index = usize)]
impl Account {
    fn new() -> Self {
        Account::default()
    }

    #[entry]
    fn open(&mut self) {
        self.is_open = true;
    }

    #[entry]
    fn close(&mut self) {
        self.is_closed = true;
    }

    #[entry]
    fn deposit(&mut self, amount: i64) -> i64 {
        self.balance += amount;
        self.log.push(amount);
        self.balance
    }

    #[entry]
    fn hold(&mut self, _held: Promise<()>) {}

    #[entry(when = |account: &Self, amount: &i64| account.balance >= *amount)]
    fn withdraw(&mut self, amount: i64) -> i64 {
        assert!(self.balance >= amount);
        self.balance -= amount;
        self.log.push(-amount);
        self.balance
    }

    #[entry]
    async fn audit(this: This<Self>, other: Element<Account>) -> Result<i64> {
        let before = this.with(|account| account.balance);
        other.log().await?;
        Ok(before)
    }

    #[entry]
    fn log(&self) -> Vec<i64> {
        self.log.clone()
    }
}

#[chare::remote]
fn while_in_business(account: &Account) -> Decision {
    match account {
        Account { is_closed: true, .. } => Drop,
        Account { is_open: true, .. } => Run,
        _ => Defer,
    }
}

async fn account(rt: &Runtime) -> Result<Element<Account>> {
    Ok(rt.array::<Account>(2 * rt.num_pes()).create(()).await?.at(2 * rt.num_pes() - 1))
}

#[chare::test(pes = [1, 2, 4])]
async fn a_guard_lets_its_call_run_or_wait(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let first = account.deposit(1).when(remote!(while_in_business)).future();
    rt.quiescence().await?;
    assert_eq!(account.deposit(10).await?, 10);
    account.open().await?;
    assert_eq!(first.await?, 11);
    assert_eq!(account.deposit(100).when(remote!(while_in_business)).await?, 111);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_call_that_is_dropped_tells_who_awaits_it(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let early = account.deposit(1).when(remote!(while_in_business)).future();
    let (promise, told) = rt.promise();
    account.deposit(2).when(remote!(while_in_business)).to(promise);
    // Nobody hears of these.
    account.deposit(3).when(remote!(while_in_business)).send();
    drop(account.deposit(4).when(remote!(while_in_business)).future());
    let (held, mut released) = rt.promise();
    account.hold(held).when(remote!(while_in_business)).send();
    rt.quiescence().await?;
    assert!((&mut released).now_or_never().is_none(), "it is kept");
    account.close().await?;
    for outcome in [early.await, told.await, account.deposit(5).when(remote!(while_in_business)).await] {
        let error = outcome.expect_err("it is dropped");
        assert!(matches!(error, CallError::Dropped), "{error}");
    }
    account.deposit(6).when(remote!(|_: &Account| Drop)).send();
    assert!(released.await.is_err(), "it has gone with its call");
    assert_eq!(account.log().await?, []);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn guarded_calls_keep_the_order_of_arrival_among_all(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let positive = remote!(|account: &Account| if account.balance > 0 { Run } else { Defer });
    let open = remote!(|account: &Account| if account.is_open { Run } else { Defer });
    for number in 1..=30 {
        match number % 3 {
            0 => account.deposit(number).when(open).send(),
            1 => account.deposit(number).when(positive).priority(-number).send(),
            _ => account.withdraw(1000 + number).send(),
        }
        rt.quiescence().await?;
    }
    account.deposit(1_000_000).await?;
    rt.quiescence().await?;
    let others = (1..=30).filter(|number| number % 3 > 0);
    let expected: Vec<_> =
        others.map(|number| if number % 3 == 1 { number } else { -1000 - number }).collect();
    assert_eq!(account.log().await?[1..], expected);
    account.open().await?;
    rt.quiescence().await?;
    let rest = account.log().await?.split_off(21);
    assert_eq!(rest, Vec::from_iter((1..=30).filter(|number| number % 3 == 0)));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn the_condition_of_the_entry_holds_when_its_guard_is_asked(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let guard = remote!(|account: &Account| {
        assert!(account.balance >= 50, "asked too early");
        if account.is_open { Run } else { Defer }
    });
    let withdrawal = account.withdraw(50).when(guard).future();
    rt.quiescence().await?;
    account.deposit(30).await?;
    account.deposit(30).await?;
    rt.quiescence().await?;
    assert_eq!(account.log().await?, [30, 30]);
    account.open().await?;
    assert_eq!(withdrawal.await?, 10);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn several_guards_all_decide(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let index = remote!(|_: &Account, cx: &Cx<Account>| if cx.index() > 0 { Run } else { Drop });
    let call = account.deposit(1).when(remote!(while_in_business)).when(index).future();
    rt.quiescence().await?;
    account.open().await?;
    assert_eq!(call.await?, 1);
    let dropped = account.deposit(2).when(remote!(while_in_business)).when(remote!(|_: &Account| Drop));
    assert!(matches!(dropped.await, Err(CallError::Dropped)));
    Ok(())
}

macro_rules! four {
    ($call:expr, $guard:ident) => {
        $call.when($guard).when($guard).when($guard).when($guard)
    };
}

/// A call with as many guards as one may have.
macro_rules! all {
    ($call:expr, $g:ident) => {{
        let sixteen = four!(four!(four!(four!($call, $g), $g), $g), $g);
        let more = four!(four!(four!(four!(sixteen, $g), $g), $g), $g);
        let more = four!(four!(four!(four!(more, $g), $g), $g), $g);
        four!(four!(four!(four!(more, $g), $g), $g), $g)
    }};
}

#[chare::test(pes = [1, 2, 4])]
async fn a_call_has_64_guards_wherever_it_goes(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let in_business = remote!(while_in_business);
    let one = all!(account.deposit(1), in_business).future();
    let other = all!(account.deposit(2).priority(-1), in_business).future();
    rt.quiescence().await?;
    // They wait, and go along.
    account.migrate(0).await?;
    account.migrate(rt.num_pes() - 1).await?;
    rt.quiescence().await?;
    account.open().await?;
    let sums = (one.await?, other.await?);
    assert!([(1, 3), (3, 2)].contains(&sums), "{sums:?}");
    let drops = remote!(|_: &Account| Drop);
    assert!(matches!(all!(account.deposit(2), drops).await, Err(CallError::Dropped)));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn coroutines_have_guards_too(rt: Runtime) -> Result<()> {
    let (account, other) = (account(&rt).await?, account(&rt).await?);
    let audit = account.audit(other).when(remote!(while_in_business)).future();
    rt.quiescence().await?;
    account.deposit(7).await?;
    account.open().await?;
    assert_eq!(audit.await?, 7);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_guard_that_fails_fails_its_call(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let fails = remote!(|account: &Account| -> Result<Decision> {
        if account.is_open { Err("no such customer".into()) } else { Ok(Defer) }
    });
    let kept = account.deposit(1).when(fails).future();
    rt.quiescence().await?;
    account.open().await?;
    for outcome in [kept.await, account.deposit(2).when(fails).await] {
        let error = outcome.expect_err("its guard fails");
        assert!(matches!(error, CallError::Failed(_)), "{error}");
        assert!(error.to_string().contains("deposit failed: no such customer"), "{error}");
    }
    assert_eq!(account.deposit(3).await?, 3);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_guard_that_panics_poisons_the_chare(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let panics = remote!(|account: &Account| {
        assert!(!account.is_open, "it is open");
        Defer
    });
    let (kept, other) = (account.deposit(1).when(panics).future(), account.withdraw(1).future());
    rt.quiescence().await?;
    account.open().await?;
    let error = kept.await.expect_err("its guard panics");
    assert!(matches!(error, CallError::Panicked(_)) && error.to_string().contains("it is open"), "{error}");
    assert!(matches!(other.await, Err(CallError::Poisoned(_))));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn guards_go_along_with_the_calls_of_a_chare_that_moves(rt: Runtime) -> Result<()> {
    let account = account(&rt).await?;
    let index = remote!(|_: &Account, cx: &Cx<Account>| if cx.index() > 0 { Run } else { Drop });
    let both = account.deposit(1).when(index).when(remote!(while_in_business)).future();
    let after_its_condition = account.withdraw(2).when(remote!(while_in_business)).future();
    let dropped = account
        .deposit(3)
        .when(remote!(while_in_business))
        .when(remote!(|account: &Account| { if account.balance > 0 { Drop } else { Defer } }));
    let dropped = dropped.future();
    rt.quiescence().await?;
    for pe in rt.pes() {
        account.migrate(pe).await?;
        assert_eq!(account.log().await?, []);
    }
    account.open().await?;
    assert_eq!(both.await?, 1);
    assert!(matches!(dropped.await, Err(CallError::Dropped)));
    account.deposit(10).await?;
    assert_eq!(after_its_condition.await?, 9);
    assert_eq!(account.log().await?, [1, 10, -2]);
    Ok(())
}

/// serde does not know it.
struct Unsaid(i64);

struct Safe(i64);

#[chare]
impl Safe {
    fn new() -> Self {
        Safe(0)
    }

    #[entry]
    fn put(&mut self, amount: Unsaid) -> i64 {
        self.0 += amount.0;
        self.0
    }
}

#[chare::test(pes = [2, 4])]
async fn a_guarded_call_whose_arguments_stay_tells_who_awaits_it(rt: Runtime) -> Result<()> {
    let safe = rt.single::<Safe>().on_pe(rt.num_pes() - 1).create(()).await?;
    let put = safe.put(Unsaid(4)).when(remote!(|_: &Safe| Run)).await;
    if !is_spread(&rt) {
        assert_eq!(put?, 4);
        return Ok(());
    }
    let error = put.expect_err("it cannot go there").to_string();
    let told = "Safe.put was not sent to another process: a value of type `";
    assert!(error.contains(told) && error.contains("::Unsaid`"), "{error}");
    Ok(())
}

#[test]
fn a_guard_that_defers_for_ever_is_in_the_hang_report() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let account = account(&rt).await?;
            account.deposit(1).when(remote!(while_in_business)).await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
        let text = report.hang().expect("a hang has a report");
        let words = ["1 call of Account.deposit", "kept until its guard lets it run", "while_in_business"];
        assert!(text.lines().any(|line| words.iter().all(|word| line.contains(word))), "{report}");
    }
}
