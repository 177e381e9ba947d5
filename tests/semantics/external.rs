//! Waiting for what the runtime does not know: neither a hang nor quiescence, alone and beside known things, and only for
//! as long as somebody out there can still wake the coroutine.

use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use chare::prelude::*;
use chare::{ExitReport, HANG_EXIT_CODE};
use futures::future::{Either, join, join_all, pending, select};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};

use super::{PES, run, run_in_one_process};

/// Long enough that a wrong verdict would come before.
const A_WHILE: Duration = Duration::from_millis(20);

/// Something out there: a flag that is raised, or forgotten.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    raised: bool,
    waker: Option<Waker>,
}

impl Flag {
    async fn raised(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.0.lock().expect("nobody panics with the lock");
            // As careful libraries do it: a waker that would wake the same task is kept.
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            if state.raised { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn raise(&self) {
        let waker = {
            let mut state = self.0.lock().expect("nobody panics with the lock");
            state.raised = true;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Another thread raises it after a while.
    fn raise_later(&self) {
        let flag = self.clone();
        thread::spawn(move || {
            thread::sleep(A_WHILE);
            flag.raise();
        });
    }
}

struct Waiter;

#[chare]
impl Waiter {
    fn new() -> Self {
        Waiter
    }

    #[entry]
    async fn never(this: This<Self>) -> Result<()> {
        let (_promise, value) = this.promise::<()>();
        Ok(value.await?)
    }

    /// Waits for the flag beside a promise that is never fulfilled.
    #[entry]
    async fn flag_or_never(this: This<Self>) -> Result<u32> {
        let flag = Flag::default();
        flag.raise_later();
        let (_promise, value) = this.promise::<()>();
        match select(Box::pin(flag.raised()), value).await {
            Either::Left(_) => Ok(1),
            Either::Right(_) => Ok(2),
        }
    }

    /// As `flag_or_never`, on an exclusive coroutine and a call of another chare.
    #[entry]
    async fn flag_or_call(&mut self, cx: &Cx<Self>) -> Result<u32> {
        let flag = Flag::default();
        flag.raise_later();
        let group = cx.group().ok_or("a member of a group")?;
        let other = (cx.index() + 1) % cx.num_pes();
        let call = group.on(other).never();
        match select(Box::pin(flag.raised()), call).await {
            Either::Left(_) => Ok(1),
            Either::Right(_) => Ok(2),
        }
    }

    /// A set whose futures wait by wakers of its own: one is of the outside, and marked.
    #[entry]
    async fn marked_in_a_set(this: This<Self>) -> Result<u32> {
        let flag = Flag::default();
        flag.raise_later();
        let (_promise, value) = this.promise::<()>();
        let waits: [futures::future::BoxFuture<'_, u32>; 2] = [
            Box::pin(this.external(async {
                flag.raised().await;
                1
            })),
            Box::pin(async {
                let _ = value.await;
                2
            }),
        ];
        let mut set: FuturesUnordered<_> = waits.into_iter().collect();
        set.next().await.ok_or_else(|| "the set is not empty".into())
    }

    /// A set that knows nothing of the outside.
    #[entry]
    async fn known_in_a_set(this: This<Self>) {
        let (_promises, values): (Vec<_>, Vec<_>) = (0..3).map(|_| this.promise::<()>()).unzip();
        let mut set: FuturesUnordered<_> = values.into_iter().collect();
        set.next().await;
    }

    /// A set of outside things only, beside a known wait.
    #[entry]
    async fn outside_set_or_never(this: This<Self>) -> Result<u32> {
        let flags = [Flag::default(), Flag::default()];
        flags[1].raise_later();
        let (_promise, value) = this.promise::<()>();
        let mut set: FuturesUnordered<_> = flags.iter().map(|flag| Box::pin(flag.raised())).collect();
        match select(set.next(), value).await {
            Either::Left(_) => Ok(1),
            Either::Right(_) => Ok(2),
        }
    }

    /// Waits for the flag and for what is there already, then for what never comes; the flag keeps its waker.
    #[entry]
    async fn flag_or_soon_then_never(this: This<Self>, flag: Keep) -> Result<()> {
        let flag = flag.flag();
        let (promise, value) = this.promise::<()>();
        promise.send(())?;
        if let Either::Left(_) = select(Box::pin(flag.raised()), value).await {
            return Err("the flag is never raised".into());
        }
        let (_promise, value) = this.promise::<()>();
        Ok(value.await?)
    }

    /// The same, but what comes comes after a while.
    #[entry]
    async fn flag_or_later_then_never(this: This<Self>, flag: Keep) -> Result<()> {
        let flag = flag.flag();
        let soon = this.sleep(Duration::from_millis(1));
        if let Either::Left(_) = select(Box::pin(flag.raised()), soon).await {
            return Err("the flag is never raised".into());
        }
        let (_promise, value) = this.promise::<()>();
        Ok(value.await?)
    }

    /// Gives its waker to a thread that lets go of it without waking.
    #[entry]
    async fn on_a_forgetful_thread(this: This<Self>) {
        this.with(|_| ());
        let mut is_given = false;
        std::future::poll_fn(|context| {
            if !std::mem::replace(&mut is_given, true) {
                let waker = context.waker().clone();
                thread::spawn(move || {
                    thread::sleep(A_WHILE);
                    drop(waker);
                });
            }
            Poll::<()>::Pending
        })
        .await;
    }

    #[entry]
    async fn flag_or_known_set(this: This<Self>, size: usize) -> Result<u32> {
        let flag = Flag::default();
        flag.raise_later();
        let (_promises, values): (Vec<_>, Vec<_>) = (0..size).map(|_| this.promise::<()>()).unzip();
        let set = Box::pin(join_all(values));
        match select(Box::pin(flag.raised()), set).await {
            Either::Left(_) => Ok(1),
            Either::Right(_) => Ok(2),
        }
    }

    /// The same, after the outside has been heard of.
    #[entry]
    async fn flag_then_known_set(this: This<Self>, flag: Keep) -> Result<()> {
        let flag = flag.flag();
        let (_promises, values): (Vec<_>, Vec<_>) = (0..40).map(|_| this.promise::<()>()).unzip();
        let mut set = Box::pin(join_all(values));
        let soon = this.sleep(Duration::from_millis(1));
        if let Either::Left(_) = select(Box::pin(select(Box::pin(flag.raised()), &mut set)), soon).await {
            return Err("neither comes".into());
        }
        set.await;
        Ok(())
    }

    /// Looks at a reading end inside of a set, hands it on, and then waits for the outside alone.
    #[entry]
    async fn hand_on_then_flag(
        this: This<Self>,
        source: Element<Waiter>,
        next: Element<Waiter>,
    ) -> Result<()> {
        let (promise, value) = source.make().await?;
        let mut set: FuturesUnordered<_> = [value].into_iter().collect();
        assert!(futures::poll!(set.next()).is_pending());
        let value = set.into_iter().next().ok_or("it is in the set still")?;
        next.keep(value).send();
        promise.send(1)?;
        this.with(|_| ());
        let flag = Flag::default();
        flag.raise_later();
        flag.raised().await;
        Ok(())
    }

    /// As before, but what it waits for then never comes.
    #[entry]
    async fn hand_on_then_never(
        this: This<Self>,
        source: Element<Waiter>,
        next: Element<Waiter>,
    ) -> Result<()> {
        let (promise, mut value) = source.make().await?;
        assert!(futures::poll!(&mut value).is_pending());
        next.keep(value).send();
        promise.send(1)?;
        this.wait_until(|_| false).await;
        Ok(())
    }

    #[entry]
    fn make(&self, cx: &Cx<Self>) -> (Promise<u32>, chare::PromiseFuture<u32>) {
        cx.promise()
    }

    #[entry]
    async fn keep(this: This<Self>, value: chare::PromiseFuture<u32>) -> Result<u32> {
        this.with(|_| ());
        Ok(value.await?)
    }

    /// Registers with the flag now and after `polls` polls, beside a known wait.
    #[entry]
    async fn flag_after(this: This<Self>, polls: u32) -> Result<u32> {
        let flag = Flag::default();
        let (_promise, mut value) = this.promise::<()>();
        let mut raised = Box::pin(flag.raised());
        assert!(futures::poll!(&mut raised).is_pending());
        let mut polled = 0;
        std::future::poll_fn(|context| {
            polled += 1;
            context.waker().wake_by_ref();
            if polled < polls { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        flag.raise_later();
        match select(raised, &mut value).await {
            Either::Left(_) => Ok(1),
            Either::Right(_) => Ok(2),
        }
    }

    #[entry]
    async fn waker(this: This<Self>) -> Option<Waker> {
        this.with(|_| ());
        std::future::poll_fn(|context| Poll::Ready(Some(context.waker().clone()))).await
    }

    #[entry]
    async fn nothing(this: This<Self>) {
        this.with(|_| ());
    }

    #[entry]
    async fn on_a_flag(this: This<Self>, flag: Keep) {
        let flag = flag.flag();
        this.with(|_| ());
        flag.raised().await;
    }

    #[entry]
    async fn on_nothing(this: This<Self>) {
        this.with(|_| ());
        pending::<()>().await;
    }
}

/// A flag that outlives the coroutine, by its number: the test holds it. Other processes of a run are inside of this one.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Keep(usize);

static KEPT: Mutex<Vec<Weak<Mutex<State>>>> = Mutex::new(Vec::new());

impl Keep {
    fn new(flag: &Flag) -> Self {
        let mut kept = KEPT.lock().expect("nobody panics with the lock");
        kept.push(Arc::downgrade(&flag.0));
        Keep(kept.len() - 1)
    }

    fn flag(self) -> Flag {
        let kept = KEPT.lock().expect("nobody panics with the lock")[self.0].upgrade();
        Flag(kept.expect("the test holds it"))
    }
}

async fn waiters(rt: &Runtime) -> Result<Group<Waiter>> {
    Ok(rt.group::<Waiter>().create(()).await?)
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn beside_a_known_wait_it_is_not_a_hang(rt: Runtime) -> Result<()> {
    let waiters = waiters(&rt).await?;
    let ones = vec![1; rt.num_pes()];
    assert_eq!(waiters.flag_or_never().gather().await?, ones);
    assert_eq!(waiters.outside_set_or_never().gather().await?, ones);
    assert_eq!(waiters.marked_in_a_set().gather().await?, ones);
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "another thread takes part")]
async fn beside_a_call_it_is_not_a_hang(rt: Runtime) -> Result<()> {
    let waiters = waiters(&rt).await?;
    assert_eq!(waiters.on(1).flag_or_call().await?, 1);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn beside_a_known_wait_it_prevents_quiescence(rt: Runtime) -> Result<()> {
    let waiters = waiters(&rt).await?;
    for index in [0, rt.num_pes() - 1] {
        let (send, receive) = std::sync::mpsc::channel();
        let waiting = waiters.on(index).flag_or_never().future();
        let marked = waiters.on(index).marked_in_a_set().future();
        let (both, quiet) = join(
            async {
                let both = (waiting.await, marked.await);
                send.send("both").map(|()| both)
            },
            async {
                let quiet = rt.quiescence().await;
                send.send("quiescence").map(|()| quiet)
            },
        )
        .await;
        let (waiting, marked) = both?;
        assert_eq!((waiting?, marked?), (1, 1));
        quiet??;
        assert_eq!(receive.try_iter().collect::<Vec<_>>(), ["both", "quiescence"]);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn beside_a_set_of_known_waits_it_is_not_a_hang(rt: Runtime) -> Result<()> {
    let waiters = waiters(&rt).await?;
    // From 31 futures on, `join_all` hands out wakers of its own.
    for size in [1, 30, 31, 200] {
        assert_eq!(waiters.flag_or_known_set(size).gather().await?, vec![1; rt.num_pes()]);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part", one_process = "a reading end stays in its process")]
async fn a_reading_end_that_moves_on_leaves_nothing_behind(rt: Runtime) -> Result<()> {
    let waiters = waiters(&rt).await?;
    let (source, next) = (waiters.on(0), waiters.on(rt.num_pes() / 2));
    waiters.on(rt.num_pes() - 1).hand_on_then_flag(source, next).await?;
    Ok(())
}

/// Numbers of polls and lives come round in a waker's word.
#[chare::test(pes = [1, 2], unsimulated = "another thread takes part", one_process = "a waker stays in its process")]
async fn a_waker_that_looks_the_same_deceives_nobody(rt: Runtime) -> Result<()> {
    let waiters = waiters(&rt).await?;
    let last = waiters.on(rt.num_pes() - 1);
    for polls in [1022, 1023, 1024, 1025] {
        assert_eq!(last.flag_after(polls).await?, 1);
    }
    let old = last.waker().await?;
    for life in 1..4100 {
        last.nothing().await?;
        if life >= 4090 {
            let flag = Flag::default();
            let waiting = last.on_a_flag(Keep::new(&flag)).future();
            rt.sleep(Duration::from_millis(1)).await;
            drop(old.clone());
            flag.raise_later();
            waiting.await?;
        }
    }
    drop(old);
    Ok(())
}

#[test]
fn a_waker_of_another_run_deceives_nobody() {
    for pes in PES {
        let flag = Flag::default();
        let kept = flag.clone();
        let report = run(pes, async move |rt: Runtime| {
            select(Box::pin(kept.raised()), rt.sleep(Duration::from_millis(1))).await;
        });
        assert!(report.is_success(), "{report}");
        flag.raise_later();
        let report = run(pes, async move |_: Runtime| flag.raised().await);
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn a_set_beside_which_the_outside_is_no_longer_awaited_is_a_hang() {
    for pes in PES {
        let flag = Flag::default();
        let kept = Keep::new(&flag);
        let report = run(pes, async move |rt: Runtime| {
            let waiters = waiters(&rt).await?;
            Result::<()>::Ok(waiters.on(pes - 1).flag_then_known_set(kept).await?)
        });
        expect_hang(&report, &["Waiter", "flag_then_known_set", "a promise"]);
        drop(flag);
    }
}

#[test]
fn the_report_names_no_wait_that_has_moved_on() {
    for pes in PES {
        let report = run_in_one_process(pes, async move |rt: Runtime| {
            let waiters = waiters(&rt).await?;
            let (source, next) = (waiters.on(0), waiters.on(pes / 2));
            Result::<()>::Ok(waiters.on(pes - 1).hand_on_then_never(source, next).await?)
        });
        expect_hang(&report, &["Waiter", "hand_on_then_never", "a condition"]);
        assert!(!report.to_string().contains("a promise"), "{report}");
    }
}

#[track_caller]
fn expect_hang(report: &ExitReport, words: &[&str]) {
    assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
    let text = report.hang().expect("a hang has a report");
    assert!(text.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?}: {report}");
}

#[test]
fn a_set_of_known_waits_is_a_hang() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let waiters = waiters(&rt).await?;
            Result::<()>::Ok(waiters.on(pes - 1).known_in_a_set().await?)
        });
        expect_hang(&report, &["Waiter", "known_in_a_set", "a promise"]);
    }
}

#[test]
fn a_waker_that_an_earlier_wait_has_left_behind_hides_no_hang() {
    for pes in PES {
        let flags = [Flag::default(), Flag::default()];
        let kept = flags.each_ref().map(Keep::new);
        let report = run(pes, async move |rt: Runtime| {
            let waiters = waiters(&rt).await?;
            let [soon, later] = kept;
            waiters.on(pes - 1).flag_or_soon_then_never(soon).send();
            Result::<()>::Ok(waiters.on(0).flag_or_later_then_never(later).await?)
        });
        expect_hang(&report, &["Waiter", "flag_or_soon_then_never", "a promise"]);
        expect_hang(&report, &["Waiter", "flag_or_later_then_never", "a promise"]);
        assert!(
            flags.iter().all(|flag| flag.0.lock().unwrap().waker.is_some()),
            "the flags keep their wakers"
        );
    }
}

#[test]
fn when_nobody_can_wake_it_any_more_it_is_a_hang() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let waiters = waiters(&rt).await?;
            waiters.on_nothing().send();
            Result::<()>::Ok(waiters.on(pes - 1).on_a_forgetful_thread().await?)
        });
        expect_hang(&report, &["Waiter", "on_a_forgetful_thread", "no waker of it is left"]);
        expect_hang(&report, &["Waiter", "on_nothing", "no waker of it is left"]);
    }
}
