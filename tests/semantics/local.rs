//! A look at a chare on the same PE: at once, or a clear no.

use chare::NotLocal;
use chare::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Counter {
    count: u64,
}

#[chare(index = usize)]
impl Counter {
    fn new() -> Self {
        Counter { count: 0 }
    }

    #[entry]
    fn count(&self) -> u64 {
        self.count
    }

    #[entry]
    fn look_at(&self, other: Element<Counter>) -> Result<u64, String> {
        other.local(|other| other.count).map_err(|error| format!("{error:?}"))
    }

    #[entry]
    async fn own(&mut self, cx: &Cx<Self>, started: Promise<Promise<()>>) -> Result<()> {
        let (to, end) = cx.promise();
        started.send(to)?;
        Ok(end.await?)
    }

    /// Looks at who calls.
    #[entry(inline)]
    fn look_back(&self, caller: Element<Counter>) -> bool {
        caller.local(|_| ()) == Err(NotLocal::Busy)
    }

    /// Says whether it may be changed in the middle of its own poll, by itself or by whom it calls.
    #[entry]
    async fn is_left_alone(this: This<Self>, other: Element<Counter>) -> Result<bool> {
        let looked_back = other.look_back(this.this()).now()?;
        let nested = other.local(|_| this.this().local(|_| ()))?;
        Ok(looked_back && nested == Err(NotLocal::Busy) && this.this().local(|_| ()) == Err(NotLocal::Busy))
    }

    #[entry]
    fn break_other(&self, other: Element<Counter>) -> Result<()> {
        Ok(other.local(|other| {
            other.count += 1;
            panic!("in the middle");
        })?)
    }

    #[entry(when = |counter: &Self| counter.count > 100)]
    fn when_high(&self) {}

    #[entry]
    fn take(&self, _: LooksWhenDropped) {}

    #[entry]
    async fn wait(this: This<Self>, count: u64) {
        this.wait_until(|s| s.count >= count).await;
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked");
    }
}

/// Survives.
struct Sturdy(u64);

#[chare(index = usize, keep_after_panic)]
impl Sturdy {
    fn new() -> Self {
        Sturdy(0)
    }

    #[entry]
    fn count(&self) -> u64 {
        self.0
    }
}

/// Looks at a chare when it is dropped, and tells what came of it.
struct LooksWhenDropped(Element<Counter>, Promise<Result<(), NotLocal>>);

impl Drop for LooksWhenDropped {
    fn drop(&mut self) {
        let looked = self.0.local(|counter| counter.count += 1);
        self.1.send(looked).expect("it is dropped once");
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_lives_here_is_touched_at_once(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    let here = counters.at(0);
    assert_eq!(
        here.local(|counter| {
            counter.count += 1;
            counter.count
        }),
        Ok(1)
    );
    assert_eq!(here.count().await?, 1);
    let far = counters.at(7);
    match rt.num_pes() {
        1 => assert_eq!(far.local(|counter| counter.count), Ok(0)),
        _ => assert_eq!(far.local(|counter| counter.count), Err(NotLocal::Elsewhere)),
    }
    far.migrate(0).await?;
    assert_eq!(
        far.local(|counter| {
            counter.count += 5;
            counter.count
        }),
        Ok(5)
    );
    assert_eq!(counters.at(8).local(|_| ()), Err(NotLocal::Elsewhere), "it does not exist");
    Ok(())
}

#[chare::test(pes = [1, 2])]
async fn what_is_busy_or_poisoned_says_so(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    let one = counters.at(0);
    assert_eq!(one.look_at(one).await.expect_err("itself").to_string(), "Counter[0].look_at failed: Busy");
    let (to, started) = rt.promise();
    let owner = one.own(to).future();
    let end = started.await?;
    assert_eq!(one.local(|_| ()), Err(NotLocal::Busy));
    end.send(())?;
    owner.await?;
    assert_eq!(one.local(|_| ()), Ok(()));
    one.panic().await.expect_err("it panics");
    assert_eq!(one.local(|_| ()), Err(NotLocal::Poisoned));
    Ok(())
}

#[chare::test(pes = [1, 2])]
async fn conditions_see_the_change(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    let waiting = counters.at(0).wait(3).future();
    rt.quiescence().await?;
    for _ in 0..3 {
        assert_eq!(counters.at(0).local(|counter| counter.count += 1), Ok(()));
    }
    waiting.await?;
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn who_is_on_the_stack_is_busy(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    counters.at(1).migrate(0).await?;
    assert!(counters.at(0).is_left_alone(counters.at(1)).await?);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_panic_is_the_callers_and_poisons_what_was_being_changed(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    let (caller, other) = (counters.at(0), counters.at(1));
    other.migrate(0).await?;
    let kept = other.when_high().future();
    let error = caller.break_other(other).await.expect_err("it panics").to_string();
    let said = |error: &str| error.contains("semantics/local.rs") && error.ends_with("in the middle");
    assert!(error.starts_with("Counter[0].break_other panicked at ") && said(&error), "{error}");
    for poisoned in [caller.count().await, other.count().await] {
        assert!(matches!(poisoned, Err(CallError::Poisoned(_))));
    }
    let error = kept.await.expect_err("it will never be high").to_string();
    assert!(error.starts_with("Counter[1] was poisoned by a panic in Counter.local at "), "{error}");
    assert!(said(&error), "{error}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_chare_that_survives_panics_survives_this_one(rt: Runtime) -> Result<()> {
    let sturdy = rt.array::<Sturdy>(8).create(()).await?.at(0);
    let changed = std::panic::catch_unwind(|| {
        sturdy.local(|sturdy| {
            sturdy.0 += 1;
            panic!("in the middle");
        })
    });
    assert!(changed.is_err());
    assert_eq!((sturdy.count().await?, sturdy.local(|sturdy| sturdy.0)), (1, Ok(1)));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn what_the_runtime_drops_does_not_look(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    counters.at(1).panic().await.expect_err("it panics");
    let (to, looked) = rt.promise();
    let lost = counters.at(1).take(LooksWhenDropped(counters.at(0), to)).await;
    assert!(matches!(lost, Err(CallError::Poisoned(_))));
    assert_eq!(looked.await?, Err(NotLocal::OutsideOfMethods));
    assert_eq!(counters.at(0).count().await?, 0);
    Ok(())
}
