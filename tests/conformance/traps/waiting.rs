//! Futures, conditions and timers.

use std::time::Duration;

use chare::prelude::*;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};

#[derive(Default)]
struct Waiter {
    open: u32,
    served: Vec<usize>,
}

#[chare]
impl Waiter {
    fn new() -> Self {
        Waiter::default()
    }

    /// Is served when the gate is open; one at a time.
    #[entry]
    async fn wait_turn(this: This<Self>, number: usize) {
        this.wait_until(|waiter| waiter.open > 0).await;
        this.with(|waiter| {
            waiter.open -= 1;
            waiter.served.push(number);
        });
    }

    #[entry(when = |waiter: &Self| waiter.open > 0)]
    fn take_turn(&mut self, number: usize) {
        self.open -= 1;
        self.served.push(number);
    }

    #[entry(when(self.open == tag))]
    fn take_turn_by_tag(&mut self, tag: u32, number: usize) {
        self.open -= tag;
        self.served.push(number);
    }

    #[entry]
    fn open(&mut self, count: u32) {
        self.open += count;
    }

    #[entry]
    fn served(&self) -> Vec<usize> {
        self.served.clone()
    }

    #[entry]
    fn fulfil_all(&self, promises: Vec<Promise<usize>>) -> Result<()> {
        for (number, promise) in promises.into_iter().enumerate() {
            promise.send(number)?;
        }
        Ok(())
    }

    /// The error, and the value in it.
    #[entry]
    fn fulfil_twice(&self, promise: Promise<u32>) -> Result<(String, u32)> {
        promise.send(1)?;
        let error = promise.send(2).expect_err("it is of one value");
        Ok((error.to_string(), error.into_value()))
    }

    #[entry]
    async fn echo(&self, number: usize) -> usize {
        number
    }

    #[entry]
    async fn share(this: This<Self>, promise: Promise<Promise<u32>>) -> Result<u32> {
        let (to, value) = this.promise();
        let value = value.map(|outcome| outcome.map_err(|error| error.to_string())).shared();
        let (one, other) = (value.clone(), value);
        promise.send(to)?;
        let (one, other) = futures::try_join!(one, other)?;
        Ok(one + other)
    }
}

/// charm4py: coroutines and messages that wait for one condition are served last in, first out.
#[chare::test(pes = [1, 2, 4, 8])]
async fn who_waits_longest_is_served_first(rt: Runtime) -> Result<()> {
    let waiter = rt.single::<Waiter>().on_pe(rt.num_pes() - 1).create(()).send();
    let mut turns = Vec::new();
    for number in 0..20 {
        turns.push(waiter.wait_turn(number).future());
        // It waits before the next one comes.
        rt.quiescence().await?;
    }
    for count in [1, 3, 1, 15] {
        waiter.open(count).await?;
    }
    for turn in turns {
        turn.await?;
    }
    assert_eq!(waiter.served().await?, (0..20).collect::<Vec<_>>());
    Ok(())
}

/// As above, for messages: those with the same tag, and those that wait for the same state.
#[chare::test(pes = [1, 2, 4, 8])]
async fn the_message_that_waits_longest_is_served_first(rt: Runtime) -> Result<()> {
    for by_tag in [false, true] {
        let waiter = rt.single::<Waiter>().on_pe(rt.num_pes() - 1).create(()).send();
        for number in 0..20 {
            if by_tag {
                waiter.take_turn_by_tag(1, number).send();
            } else {
                waiter.take_turn(number).send();
            }
            rt.quiescence().await?;
        }
        for _ in 0..20 {
            waiter.open(1).await?;
            rt.quiescence().await?;
        }
        assert_eq!(waiter.served().await?, (0..20).collect::<Vec<_>>());
    }
    Ok(())
}

/// charm4py: at most 127 timers are pending on a PE; one more raises.
#[chare::test(pes = [1, 2, 4, 8])]
async fn any_number_of_timers_is_pending(rt: Runtime) -> Result<()> {
    let count = crate::real_or_simulated(5000, 1000);
    let (to, ticks) = rt.promises(count);
    for number in 0..count as u64 {
        rt.sleep(Duration::from_micros(number % 1000)).to(&to);
    }
    assert_eq!(ticks.await?.len(), count);
    Ok(())
}

/// Charm++: ids of futures have 16 bits in callbacks; with more than 65 535 outstanding, programs hang.
#[chare::test(pes = [1, 2, 4, 8])]
async fn any_number_of_futures_is_outstanding(rt: Runtime) -> Result<()> {
    let waiter = rt.single::<Waiter>().on_pe(rt.num_pes() - 1).create(()).send();
    let count = crate::real_or_simulated(70_000, 700);
    let (promises, values): (Vec<_>, Vec<_>) = (0..count).map(|_| rt.promise()).unzip();
    waiter.fulfil_all(promises).send();
    for (number, value) in values.into_iter().enumerate().rev() {
        assert_eq!(value.await?, number);
    }
    Ok(())
}

/// charm4py: a value for a future that has its values aborts the program, wherever it is sent.
#[chare::test(pes = [1, 2, 4, 8])]
async fn a_value_too_many_is_an_error_where_it_is_sent(rt: Runtime) -> Result<()> {
    let waiter = rt.single::<Waiter>().on_pe(rt.num_pes() - 1).create(()).send();
    let (promise, value) = rt.promise();
    let (error, returned) = waiter.fulfil_twice(promise).await?;
    assert!(error.contains("fulfilled already"), "{error}");
    assert_eq!((value.await?, returned), (1, 2));
    Ok(())
}

/// charm4py: a future has one place for a waiter; the second one replaces the first, which never goes on.
#[chare::test(pes = [1, 2, 4, 8])]
async fn several_wait_for_one_value(rt: Runtime) -> Result<()> {
    let waiter = rt.single::<Waiter>().on_pe(rt.num_pes() - 1).create(()).send();
    let (to, promise) = rt.promise();
    let sum = waiter.share(to).future();
    let promise = promise.await?;
    rt.quiescence().await?;
    promise.send(21)?;
    assert_eq!(sum.await?, 42);
    Ok(())
}

/// charm4py: to suspend in the body of a loop over `iwait` crashes (issue 198).
#[chare::test(pes = [1, 2, 4, 8])]
async fn a_loop_over_what_is_ready_may_wait_inside(rt: Runtime) -> Result<()> {
    let waiters = rt.group::<Waiter>().create(()).send();
    let calls = rt.pes().cycle().take(40).enumerate().map(|(number, pe)| waiters.on(pe).echo(number));
    let mut ready: FuturesUnordered<_> = calls.collect();
    let mut sum = 0;
    while let Some(number) = ready.next().await {
        sum += waiters.on(number? % rt.num_pes()).echo(1).await?;
        rt.sleep(Duration::ZERO).await;
    }
    assert_eq!(sum, 40);
    Ok(())
}

/// charm4py: the exception of a constructor aborts the program, while the future of the creation completes.
#[chare::test(pes = [1, 2, 4, 8])]
async fn an_error_in_a_constructor_is_that_of_the_creation(rt: Runtime) -> Result<()> {
    struct Fragile;

    #[chare(index = usize)]
    impl Fragile {
        fn new(cx: &Cx<Self>, broken: usize) -> Result<Self, String> {
            if cx.index() == broken { Err(format!("element {broken} is broken")) } else { Ok(Fragile) }
        }

        #[entry]
        fn own_index(&self, cx: &Cx<Self>) -> usize {
            cx.index()
        }
    }

    let (fragile, created) = rt.array::<Fragile>(16).create(11).start();
    let error = created.await.expect_err("one of them is broken").to_string();
    assert!(error.contains("element 11 is broken"), "{error}");
    fragile.at(11).own_index().await.expect_err("there is none");
    Ok(())
}
