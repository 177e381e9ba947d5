//! Promises: one value or many, any number of writing ends anywhere, errors when a value cannot come or has come.

use std::cell::Cell;

use chare::prelude::*;
use chare::{Fulfilled, Full, PromiseFuture, SharedFuture};

/// Fulfils, keeps or loses promises on its PE.
struct Keeper {
    kept: Vec<Promise<u64>>,
}

#[chare]
impl Keeper {
    fn new() -> Self {
        Keeper { kept: Vec::new() }
    }

    #[entry]
    fn fulfil(&self, cx: &Cx<Self>, promise: Promise<u64>) -> Result<(), Fulfilled<u64>> {
        promise.send(cx.my_pe().index() as u64)
    }

    /// Does not care whether another was faster.
    #[entry]
    fn race(&self, cx: &Cx<Self>, promise: Promise<u64>) {
        let _ = promise.send(cx.my_pe().index() as u64);
    }

    #[entry]
    fn keep(&mut self, promise: Promise<u64>) {
        self.kept.push(promise);
    }

    #[entry]
    fn lose_all(&mut self) {
        self.kept.clear();
    }

    #[entry]
    fn fulfil_all(&mut self, value: u64) -> Result<(), Fulfilled<u64>> {
        self.kept.drain(..).try_for_each(|promise| promise.send(value))
    }

    #[entry]
    fn fail(&self, promise: Promise<u64>) {
        promise.fail(CallError::BrokenPromise);
    }

    /// Awaits the reading end of another chare.
    #[entry]
    async fn read(&self, value: PromiseFuture<u64>) -> Result<u64> {
        Ok(value.await?)
    }

    /// Gives out the writing end and waits.
    #[entry]
    async fn ask(this: This<Self>, out: Promise<Promise<u64>>) -> Result<u64> {
        let (promise, value) = this.promise();
        out.send(promise)?;
        Ok(value.await?)
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_is_fulfilled_from_any_pe(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    for pe in rt.pes() {
        let (promise, value) = rt.promise();
        keepers.on(pe).fulfil(promise).send();
        assert_eq!(value.await?, pe.index() as u64);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_value_waits_for_its_reader(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, value) = rt.promise();
    keepers.on(rt.num_pes() - 1).fulfil(promise).await?;
    rt.quiescence().await?;
    assert_eq!(value.await?, rt.num_pes() as u64 - 1);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_of_many_collects_them_all(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let pes = rt.num_pes();
    let (promise, values) = rt.promises(3 * pes);
    for _ in 0..3 {
        keepers.fulfil(promise.clone()).send();
    }
    let mut values: Vec<u64> = values.await?;
    values.sort_unstable();
    assert_eq!(values, (0..3 * pes as u64).map(|i| i / 3).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn many_values_come_in_the_order_of_arrival(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, values) = rt.promises(rt.num_pes());
    let backwards: Vec<u64> = (0..rt.num_pes() as u64).rev().collect();
    for pe in &backwards {
        keepers.on(*pe as usize).fulfil(promise.clone()).await?;
        rt.quiescence().await?;
    }
    assert_eq!(values.await?, backwards);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn one_value_too_many_is_given_back_to_a_sender_who_can_know(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let last = keepers.on(rt.num_pes() - 1);
    let (promise, value) = rt.promise();
    last.fulfil(promise.clone()).await?;
    let error = promise.send(77).expect_err("it has its value");
    assert_eq!((error.expected, error.into_value()), (1, 77));
    let again = last.fulfil(promise).await;
    if super::is_spread(&rt) {
        again.expect("another process does not know of the first value");
    } else {
        let error = again.expect_err("it has its value");
        assert!(error.downcast_ref::<Fulfilled<u64>>().is_some(), "{error}");
    }
    assert_eq!(value.await?, rt.num_pes() as u64 - 1);

    let (promise, values) = rt.promises(2);
    (0..2).try_for_each(|value| promise.send(value))?;
    assert_eq!(promise.send(2).expect_err("it has its values").into_value(), 2);
    assert_eq!(values.await?, [0, 1]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn who_comes_second_to_a_promise_may_ignore_it(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, value) = rt.promise();
    keepers.race(promise).await?;
    assert!(value.await? < rt.num_pes() as u64);
    rt.quiescence().await?;
    for pe in rt.pes() {
        let (promise, value) = rt.promise();
        keepers.race(promise.clone()).send();
        keepers.on(pe).fail(promise).send();
        rt.quiescence().await?;
        match value.await {
            Ok(winner) => assert!(winner < rt.num_pes() as u64),
            Err(error) => assert!(matches!(error, CallError::BrokenPromise), "{error}"),
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_value_that_comes_second_gives_up_the_promises_in_it(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (out, first) = rt.promise::<Promise<u64>>();
    let asking: Vec<_> = rt.pes().map(|pe| keepers.on(pe).ask(out.clone()).future()).collect();
    first.await?.send(7)?;
    let mut answered = 0;
    for asked in asking {
        if let Ok(value) = asked.await {
            assert_eq!(value, 7);
            answered += 1;
        }
    }
    assert_eq!(answered, 1);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_breaks_with_its_last_clone(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, value) = rt.promise();
    let (many, values) = rt.promises(2);
    many.send(1)?;
    for promise in [promise, many] {
        keepers.keep(promise.clone()).await?;
        keepers.keep(promise).await?;
    }
    keepers.lose_all().await?;
    assert!(matches!(value.await, Err(CallError::BrokenPromise)));
    assert!(matches!(values.await, Err(CallError::BrokenPromise)));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_lives_as_long_as_one_clone(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    for survivor in [0, rt.num_pes() - 1] {
        let (promise, value) = rt.promise();
        keepers.keep(promise).await?;
        for pe in (0..rt.num_pes()).filter(|&pe| pe != survivor) {
            keepers.on(pe).lose_all().await?;
        }
        rt.quiescence().await?;
        keepers.on(survivor).fulfil_all(5).await?;
        assert_eq!(value.await?, 5);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_breaks_when_its_message_cannot_be_delivered(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, value) = rt.promise();
    let error = keepers.on(rt.num_pes()).keep(promise).await.unwrap_err();
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    assert!(matches!(value.await, Err(CallError::BrokenPromise)));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_can_be_failed(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, value) = rt.promise();
    keepers.on(rt.num_pes() - 1).fail(promise.clone()).await?;
    assert!(promise.send(1).is_err());
    assert!(matches!(value.await, Err(CallError::BrokenPromise)));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn clones_are_equal_and_promises_are_not(rt: Runtime) -> Result<()> {
    let ((a, _), (b, _)) = (rt.promise::<u64>(), rt.promise::<u64>());
    assert!(a == a.clone() && a != b);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_reader_that_is_gone_does_not_matter(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, value) = rt.promise();
    drop(value);
    keepers.on(rt.num_pes() - 1).fulfil(promise).await?;
    rt.quiescence().await?;
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "a reading end stays in its process")]
async fn the_reading_end_may_go_elsewhere(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    for pe in rt.pes() {
        let (promise, value) = rt.promise();
        let read = keepers.on(pe).read(value).future();
        promise.send(9)?;
        assert_eq!(read.await?, 9);
        let (promise, value) = rt.promise::<u64>();
        let read = keepers.on(pe).read(value).future();
        drop(promise);
        assert!(read.await.unwrap_err().to_string().contains("broken promise"));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "a reading end stays in its process")]
async fn a_reading_end_elsewhere_waits_like_any_other(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let (promise, value) = rt.promise();
    let read = keepers.on(rt.num_pes() - 1).read(value).future();
    rt.quiescence().await?;
    promise.send(9)?;
    assert_eq!(read.await?, 9);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_hundred_thousand_promises_are_open_at_once(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let values: Vec<_> = (0..100_000)
        .map(|number| {
            let (promise, value) = rt.promise();
            keepers.on(number % rt.num_pes()).keep(promise).send();
            value
        })
        .collect();
    rt.quiescence().await?;
    keepers.fulfil_all(1).await?;
    let mut sum = 0;
    for value in values {
        sum += value.await?;
    }
    assert_eq!(sum, 100_000);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn promises_travel_in_promises(rt: Runtime) -> Result<()> {
    let keepers = rt.group::<Keeper>().create(()).await?;
    let asking: Vec<_> = rt
        .pes()
        .map(|pe| {
            let (out, promise) = rt.promise::<Promise<u64>>();
            (keepers.on(pe).ask(out).future(), promise)
        })
        .collect();
    for (number, (asked, promise)) in (0..).zip(asking) {
        promise.await?.send(number)?;
        assert_eq!(asked.await?, number);
    }
    Ok(())
}

struct Reader {
    value: Option<SharedFuture<String>>,
}

#[chare(index = usize)]
impl Reader {
    fn new() -> Self {
        Reader { value: None }
    }

    #[entry]
    fn keep(&mut self, value: SharedFuture<String>) {
        self.value = Some(value);
    }

    /// Awaits it twice, by itself and by a clone.
    #[entry]
    async fn read(this: This<Self>) -> Result<String> {
        let value = this.with(|s| s.value.clone()).ok_or("it was not sent")?;
        let mut again = value.clone();
        let first = value.await?;
        assert_eq!((&mut again).await?, first);
        assert!(again.is_ready());
        Ok((&mut again).await?)
    }
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "a reading end stays in its process")]
async fn a_promise_may_have_many_readers_anywhere(rt: Runtime) -> Result<()> {
    let readers = rt.array::<Reader>(9).create(()).await?;
    let (to, value) = rt.promise::<String>();
    let value = value.shared();
    assert!(!value.is_ready());
    readers.keep(value.clone()).await?;
    // Two coroutines of each chare wait for the same.
    let early = [readers.read().gather(), readers.read().gather()];
    rt.quiescence().await?;
    readers.at(0).migrate(rt.num_pes() - 1).await?;
    to.send("news".to_owned())?;
    for early in early {
        assert_eq!(early.await?, vec!["news"; 9]);
    }
    assert_eq!(readers.read().gather().await?, vec!["news"; 9], "and late ones get it too");
    assert_eq!(value.await?, "news");
    Ok(())
}

#[chare::test(pes = [1, 2], one_process = "a reading end stays in its process")]
async fn all_readers_learn_that_a_promise_is_broken(rt: Runtime) -> Result<()> {
    let readers = rt.array::<Reader>(3).create(()).await?;
    let (to, value) = rt.promise::<String>();
    let value = value.shared();
    readers.keep(value.clone()).await?;
    let reading: Vec<_> = (0..3).map(|i| readers.at(i).read().future()).collect();
    rt.quiescence().await?;
    drop(to);
    for reading in reading {
        let error = reading.await.expect_err("it is broken").to_string();
        assert!(error.contains("broken promise"), "{error}");
    }
    assert!(matches!(value.await, Err(CallError::BrokenPromise)));
    Ok(())
}

#[test]
fn readers_that_wait_for_ever_are_in_the_hang_report() {
    for pes in [1, 2] {
        let report = super::run_in_one_process(pes, async |rt: Runtime| {
            let readers = rt.array::<Reader>(1).create(()).await?;
            let (to, value) = rt.promise::<String>();
            let value = value.shared();
            readers.keep(value.clone()).await?;
            readers.at(0).read().send();
            value.await?;
            drop(to);
            Ok::<(), chare::BoxError>(())
        });
        let text = report.to_string();
        assert_eq!(report.code(), chare::HANG_EXIT_CODE, "{text}");
        assert!(
            text.contains("Reader[0].read")
                && text.contains("main (the program's main:0) waits for a promise"),
            "{text}"
        );
    }
}

/// Sends values that may go to another thread, but not be looked at by several.
struct Mover;

#[chare(index = usize)]
impl Mover {
    fn new() -> Self {
        Mover
    }

    #[entry]
    fn promise_twice(&self, promise: Promise<Cell<u32>>) -> Result<()> {
        promise.send(Cell::new(1))?;
        promise.send(Cell::new(2))?;
        Ok(())
    }

    #[entry]
    fn fill_a_channel(&self, cx: &Cx<Self>) -> Result<()> {
        let channel = cx.channel(&cx.array().at(7), 0);
        loop {
            channel.send(Cell::new(1_u32))?;
        }
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn values_of_any_kind_are_sent_with_a_question_mark(rt: Runtime) -> Result<()> {
    let movers = rt.array::<Mover>(8).create(()).await?;
    let (promise, value) = rt.promise();
    let error = movers.at(0).promise_twice(promise).await.expect_err("it takes one");
    let given_back = error.downcast_ref::<Fulfilled<Cell<u32>>>().expect("it is the method's error");
    assert_eq!((value.await?.get(), given_back.expected), (1, 1));
    let error = movers.at(0).fill_a_channel().await.expect_err("nobody receives");
    assert!(error.downcast_ref::<Full<Cell<u32>>>().is_some_and(|full| full.queued > 0), "{error}");
    Ok(())
}
