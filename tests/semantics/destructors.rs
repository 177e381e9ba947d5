//! Destructors that misbehave: they panic, or use the runtime when there is none left to serve them. They are told as
//! the user's, and keep nobody from the end of the run.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use chare::prelude::*;
use chare::{ExitReport, Handle};

use super::{PES, run};

#[track_caller]
fn ended_by_the_user(report: &ExitReport, words: &[&str]) {
    let text = report.to_string();
    assert_eq!(report.code(), 1, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(!text.contains("please report") && !text.contains("main.main"), "{text}");
}

/// Panics when it is dropped, this many times over, each time with the next as the payload.
struct Chain(u32);

impl Drop for Chain {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Chain(self.0 - 1));
        }
    }
}

fn throw(links: u32) {
    std::panic::panic_any(Chain(links));
}

/// A value whose destructor panics with a [`Chain`].
#[derive(serde::Serialize, serde::Deserialize)]
struct Fuse(u32);

impl Drop for Fuse {
    fn drop(&mut self) {
        std::panic::panic_any(Chain(self.0));
    }
}

struct Thrower;

#[chare(index = usize, keep_after_panic)]
impl Thrower {
    fn new() -> Self {
        Thrower
    }

    #[entry]
    fn plain(&mut self, links: u32) {
        throw(links);
    }

    #[entry]
    async fn exclusive(&mut self, links: u32) {
        throw(links);
    }

    #[entry]
    async fn interleaving(this: This<Self>, links: u32) {
        this.with(|_| throw(links));
    }

    #[entry]
    fn make(&self, links: u32) -> Fuse {
        Fuse(links)
    }

    #[entry]
    async fn reduce(&self, cx: &Cx<Self>, links: u32) -> Result<u64> {
        Ok(cx.allreduce(links, Throwing).await?)
    }
}

#[derive(Clone, Copy)]
struct Throwing;

impl chare::reduction::Reducer<u32> for Throwing {
    type Partial = u64;
    type Output = u64;
    fn start(&self, links: u32, _: u64) -> u64 {
        throw(links);
        0
    }
    fn add(&self, _: &mut u64, _: u32, _: u64) {}
    fn merge(&self, _: &mut u64, _: u64) {}
    fn finish(&self, partial: u64) -> u64 {
        partial
    }
}

struct Unmade;

#[chare(index = usize)]
impl Unmade {
    fn new(links: u32) -> Result<Self> {
        if links < u32::MAX {
            throw(links);
        }
        Ok(Unmade)
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_payload_that_panics_when_dropped_reaches_who_waits(rt: Runtime) -> Result<()> {
    let throwers = rt.array::<Thrower>(8).create(()).await?;
    for links in 0..3 {
        for index in [0, 7] {
            let thrower = throwers.at(index);
            for outcome in [
                thrower.plain(links).await,
                thrower.exclusive(links).await,
                thrower.interleaving(links).await,
            ] {
                let text = outcome.expect_err("it panics").to_string();
                assert!(text.contains("destructors.rs") && text.contains("no text"), "{text}");
            }
        }
        let error = throwers.reduce(links).await.expect_err("the reducer panics");
        assert!(error.to_string().contains("or its reducer panicked at"), "{error}");
        let error = rt.array::<Unmade>(8).create(links).await.expect_err("the constructors panic");
        assert!(matches!(error, CallError::Panicked(_)), "{error}");
    }
    Ok(())
}

#[test]
fn a_payload_that_panics_when_dropped_hangs_nobody() {
    for pes in PES {
        for links in 0..3 {
            let report = run(pes, async move |rt: Runtime| {
                let throwers = rt.array::<Thrower>(8).create(()).await?;
                throwers.at(7).make(links).send();
                rt.sleep(Duration::MAX).await;
                Result::<()>::Ok(())
            });
            ended_by_the_user(&report, &["outside of any method", "destructors.rs"]);
            let report = run(pes, async move |rt: Runtime| {
                rt.quiescence().await?;
                throw(links);
                Result::<()>::Ok(())
            });
            assert_eq!(report.code(), 1, "{report}");
        }
    }
}

/// Elements that do not agree on the reducer: one gathers fuses, the others count.
struct Discord;

#[chare(index = usize)]
impl Discord {
    fn new() -> Self {
        Discord
    }

    #[entry]
    fn give(&self, cx: &Cx<Self>, fuses: Callback<Vec<Fuse>>, count: Callback<u64>) {
        if cx.index() == 0 {
            cx.contribute(Fuse(0), reduce::Gather, fuses);
        } else {
            cx.contribute(1, reduce::Sum, count);
        }
    }
}

#[test]
fn a_contribution_that_panics_when_dropped_ends_the_run_and_hangs_nobody() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let (fuses, _) = rt.promise();
            let (count, counted) = rt.promise();
            let elements = rt.array::<Discord>(16).create(()).await?;
            elements.give(fuses.into(), count.into()).send();
            counted.await?;
            Result::<()>::Ok(())
        });
        let text = report.to_string();
        assert_eq!(report.code(), 1, "{text}");
        assert!(!text.contains("please report") && !text.contains("hangs"), "{text}");
    }
}

/// A result that cannot be cloned.
#[derive(serde::Serialize, serde::Deserialize)]
struct Unique;

impl Clone for Unique {
    fn clone(&self) -> Self {
        panic!("there is one only");
    }
}

#[derive(Clone, Copy)]
struct MakeUnique;

impl chare::reduction::Reducer<()> for MakeUnique {
    type Partial = ();
    type Output = Unique;
    fn start(&self, (): (), _: u64) {}
    fn merge(&self, (): &mut (), (): ()) {}
    fn finish(&self, (): ()) -> Unique {
        Unique
    }
}

struct Sharer;

#[chare(index = usize, keep_after_panic)]
impl Sharer {
    fn new() -> Self {
        Sharer
    }

    #[entry]
    async fn share(this: This<Self>) -> Result<()> {
        this.allreduce((), MakeUnique).await?;
        Ok(())
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_result_whose_clone_panics_is_an_error_of_all_who_wait(rt: Runtime) -> Result<()> {
    let sharers = rt.array::<Sharer>(8).create(()).await?;
    for _ in 0..2 {
        let outcomes = sharers.share().gather_results().await?;
        assert_eq!(outcomes.len(), 8);
        for outcome in outcomes {
            let text = outcome.expect_err("nobody gets a clone").to_string();
            assert!(text.contains("there is one only"), "{text}");
        }
    }
    Ok(())
}

/// Does something with the runtime when it is dropped.
struct Last<F: FnOnce(&Runtime)>(Runtime, Option<F>);

impl<F: FnOnce(&Runtime)> Drop for Last<F> {
    fn drop(&mut self) {
        if let Some(last) = self.1.take() {
            last(&self.0);
        }
    }
}

type LastWish = Box<dyn FnOnce(&Runtime) + Send>;

/// A chare, or an argument, with a last wish.
struct Wisher {
    _wish: Last<LastWish>,
}

#[chare(index = usize)]
impl Wisher {
    fn new(cx: &Cx<Self>, wishes: bool) -> Self {
        let wish: LastWish = if wishes { Box::new(create_and_broadcast) } else { Box::new(|_| ()) };
        Wisher { _wish: Last((**cx).clone(), Some(wish)) }
    }

    #[entry]
    fn hello(&self) {}
}

fn create_and_broadcast(rt: &Runtime) {
    let more = rt.array::<Wisher>(8).create(false).send();
    more.hello().send();
    more.at(3).hello().send();
    drop(more.hello().gather());
    rt.group::<Keeper>().create(()).send().park().send();
    rt.single::<Keeper>().create(()).send().park().send();
}

#[test]
fn a_destructor_at_the_end_may_create_and_broadcast() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            rt.array::<Wisher>(8).create(true).await?.hello().await?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
    }
}

struct Contributor(Cx<Contributor>);

#[chare(index = usize)]
impl Contributor {
    fn new(cx: &Cx<Self>) -> Self {
        Contributor(cx.clone())
    }

    #[entry]
    async fn count(&mut self, cx: &Cx<Self>) -> Result<u32> {
        Ok(cx.allreduce(1_u32, reduce::Sum).await?)
    }
}

impl Drop for Contributor {
    fn drop(&mut self) {
        self.0.contribute(1_u32, reduce::Sum, Callback::ignore());
        drop(self.0.allreduce(1_u32, reduce::Sum));
    }
}

#[test]
fn a_destructor_at_the_end_may_contribute() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let all = rt.array::<Contributor>(8).create(()).await?;
            assert_eq!(all.count().gather().await?, [8; 8]);
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
    }
}

/// Panics when it is dropped.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

struct Keeper;

#[chare]
impl Keeper {
    fn new() -> Self {
        Keeper
    }

    #[entry]
    fn take(&mut self, bomb: Bomb) {
        std::mem::forget(bomb);
    }

    /// Sends them from here: who sends one elsewhere has dropped it then.
    #[entry]
    fn send_bombs(&self, to: Element<Keeper>) {
        (0..3).for_each(|_| to.take(Bomb).send());
    }

    #[entry]
    fn take_wish(&mut self, wish: LastWishes) {
        drop(wish);
    }

    /// Keeps the chare to itself.
    #[entry]
    async fn own(&mut self, cx: &Cx<Self>) {
        cx.sleep(Duration::MAX).await;
    }

    #[entry]
    fn open(&self, cx: &Cx<Self>, peer: Element<Keeper>) {
        let channel: Channel<Bomb> = cx.channel(&peer, 1);
        for _ in 0..3 {
            assert!(channel.send(Bomb).is_ok());
        }
    }

    #[entry]
    async fn park(this: This<Self>) {
        this.wait_until(|_| false).await;
    }

    #[entry]
    async fn park_with_a_bomb(this: This<Self>) {
        let _bomb = Bomb;
        this.wait_until(|_| false).await;
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Waits on a thread of its own for a promise that is never kept, and tells what came of it.
fn wait_outside(rt: &Runtime) -> mpsc::Receiver<String> {
    let (promise, value) = rt.promise::<u32>();
    std::mem::forget(promise);
    let (tell, told) = mpsc::channel();
    let handle: Handle = rt.handle();
    std::thread::spawn(move || {
        let _entered = handle.enter();
        let outcome = block_on(value);
        let _ = tell.send(format!("{outcome:?}"));
    });
    told
}

/// What is left behind on all PEs for the end of the run.
async fn leave_bombs(rt: &Runtime, held: bool) -> Result<()> {
    for pe in rt.pes() {
        let keeper = rt.single::<Keeper>().on_pe(pe).create(()).await?;
        let other = rt.single::<Keeper>().on_pe(pe).create(()).await?;
        keeper.open(other).await?;
        keeper.park_with_a_bomb().send();
        if held {
            keeper.own().send();
            rt.quiescence().await?;
        }
        if rt.process_of(pe) == rt.process_of(rt.my_pe()) {
            (0..3).for_each(|_| keeper.take(Bomb).send());
        } else {
            other.send_bombs(keeper).await?;
        }
        for _ in 0..3 {
            let (bomb, unread) = rt.promise::<Bomb>();
            assert!(bomb.send(Bomb).is_ok());
            std::mem::forget((bomb, unread));
        }
    }
    Ok(())
}

#[test]
fn many_destructors_that_panic_at_the_end_are_told_and_keep_nobody() {
    for pes in PES {
        for held in [false, true] {
            let (tell, told) = mpsc::channel();
            let report = run(pes, async move |rt: Runtime| {
                tell.send(wait_outside(&rt)).expect("the test receives it");
                leave_bombs(&rt, held).await?;
                rt.exit(0);
                Result::<()>::Ok(())
            });
            ended_by_the_user(&report, &["a destructor at the end of the run", "a bomb", "destructors.rs"]);
            let outside = told.recv().expect("sent before the end");
            let outcome =
                outside.recv_timeout(Duration::from_secs(30)).expect("the thread learns of the end");
            assert!(outcome.contains("Ended"), "{outcome}");
        }
    }
}

#[test]
fn the_locals_of_a_parked_coroutine_that_panic_are_told() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let keeper = rt.single::<Keeper>().on_pe(pes - 1).create(()).await?;
            keeper.park_with_a_bomb().send();
            Result::<()>::Ok(rt.quiescence().await?)
        });
        ended_by_the_user(&report, &["a destructor at the end of the run", "a bomb"]);
    }
}

/// A future whose destructor panics after it was ready.
struct LateBomb;

impl Future for LateBomb {
    type Output = Result<()>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for LateBomb {
    fn drop(&mut self) {
        panic!("too late");
    }
}

#[test]
fn a_coroutine_that_panics_when_it_is_dropped_has_panicked() {
    for pes in PES {
        let report = run(pes, |_| LateBomb);
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("too late"), "{report}");
    }
}

#[test]
fn what_destructors_at_the_end_hand_to_callbacks_is_dropped() {
    static LIVE: AtomicI64 = AtomicI64::new(0);
    struct Counted(Callback<()>);
    impl Drop for Counted {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    for pes in PES {
        let (tell, told) = mpsc::channel();
        let report = run(pes, async move |rt: Runtime| {
            let (promise, value) = rt.promise::<()>();
            let handle = rt.handle();
            std::thread::spawn(move || {
                let _entered = handle.enter();
                let _ = tell.send(format!("{:?}", block_on(value)));
            });
            LIVE.fetch_add(1, Ordering::SeqCst);
            let counted = Counted(promise.into());
            let _last = Last(
                rt.clone(),
                Some(move |rt: &Runtime| {
                    rt.sleep(Duration::from_secs(1)).to(counted.0.clone());
                    drop(counted);
                }),
            );
            rt.exit(0);
            std::future::pending::<()>().await;
        });
        assert!(report.is_success(), "{report}");
        let outcome = told.recv_timeout(Duration::from_secs(30)).expect("the thread learns of the end");
        assert!(outcome.contains("Ended") || outcome.contains("BrokenPromise"), "{outcome}");
        assert_eq!(LIVE.load(Ordering::SeqCst), 0);
    }
}

/// Sends itself again when it is dropped, this many times.
struct LastWishes(Element<Keeper>, Arc<AtomicI64>);

impl Drop for LastWishes {
    fn drop(&mut self) {
        if self.1.fetch_sub(1, Ordering::SeqCst) > 0 {
            self.0.take_wish(LastWishes(self.0, self.1.clone())).send();
        }
    }
}

#[test]
fn destructors_that_send_on_and_on_come_to_an_end() {
    for (wishes, ends_well) in [(3, true), (i64::MAX, false)] {
        let report = run(1, async move |rt: Runtime| {
            let keeper = rt.single::<Keeper>().create(()).await?;
            rt.exit(0);
            keeper.take_wish(LastWishes(keeper, Arc::new(AtomicI64::new(wishes)))).send();
            Result::<()>::Ok(())
        });
        assert_eq!(report.is_success(), ends_well, "{report}");
    }
}

/// Misuses the runtime when it is dropped, in this way.
struct Misuser(usize, Cx<Guest>);

const MISUSES: [fn(&Cx<Guest>); 9] = [
    |cx| cx.contribute(1_u32, reduce::Sum, Callback::ignore()),
    |cx| drop(cx.device()),
    |cx| drop(cx.handle().enter()),
    |cx| {
        let _: Channel<u8> = cx.channel(&cx.this(), 1);
    },
    |cx| drop(cx.promises::<u8>(0)),
    |cx| {
        cx.single::<Keeper>().on_pe(77_usize).create(()).send();
    },
    |_| {
        PeId::new(usize::MAX);
    },
    |cx| drop(cx.allreduce(1_u32, reduce::Sum)),
    |cx| drop(chare::Options::default().with_pes(cx.num_pes() - cx.num_pes())),
];

impl Drop for Misuser {
    fn drop(&mut self) {
        MISUSES[self.0](&self.1);
    }
}

struct Guest;

#[chare]
impl Guest {
    fn new() -> Self {
        Guest
    }

    #[entry]
    fn make(&self, cx: &Cx<Self>, which: usize) -> Misuser {
        Misuser(which, cx.clone())
    }
}

#[test]
fn a_destructor_that_misuses_the_runtime_is_the_users() {
    for pes in PES {
        for which in 0..MISUSES.len() {
            let report = run(pes, async move |rt: Runtime| {
                let guests = rt.group::<Guest>().create(()).await?;
                guests.on(pes - 1).make(which).send();
                rt.sleep(Duration::MAX).await;
                Result::<()>::Ok(())
            });
            ended_by_the_user(&report, &["outside of any method", "destructors.rs"]);
        }
    }
}
