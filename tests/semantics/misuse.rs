//! What safe code can do wrong, and what must come of it: an error that says so, never a crash or a hang.

use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::{Poll, Waker};

use chare::prelude::*;
use chare::{ExitReport, Options};

use crate::misuse::Cloned::{Fails, Good};

fn run<F, Fut>(pes: usize, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    crate::run_with(Options::default().with_pes(pes), main)
}

struct Text(String);

#[chare(index = usize)]
impl Text {
    fn new() -> Self {
        Text("untouched".to_owned())
    }

    #[entry]
    fn text(&self) -> String {
        self.0.clone()
    }

    #[entry]
    fn fail(&mut self) -> Result<u32> {
        Err("nobody saw this".into())
    }
}

#[test]
fn wakers_may_outlive_their_run() {
    static WAKER: Mutex<Option<Waker>> = Mutex::new(None);
    static DONE: AtomicBool = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !DONE.load(Ordering::Relaxed) {
                    let waker = WAKER.lock().unwrap().clone();
                    if let Some(waker) = waker {
                        (0..50).for_each(|_| waker.wake_by_ref());
                    }
                    std::thread::yield_now();
                }
            });
        }
        for _ in 0..200 {
            let report = run(1, |_| async {
                let mut polls = 0;
                poll_fn(|context| {
                    *WAKER.lock().unwrap() = Some(context.waker().clone());
                    context.waker().wake_by_ref();
                    polls += 1;
                    if polls > 3 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                Ok(())
            });
            assert!(report.is_success(), "{report}");
        }
        DONE.store(true, Ordering::Relaxed);
    });
}

#[test]
fn entering_twice_and_leaving_in_the_wrong_order_is_harmless() {
    for pes in [1, 2] {
        let (send, receive) = mpsc::channel();
        let other = std::thread::spawn(move || {
            run(pes, |rt| async move {
                let (promise, value) = rt.promise::<u32>();
                send.send((rt.handle(), promise))?;
                assert_eq!(value.await?, 7);
                Ok(())
            })
        });
        let (handle, promise) = receive.recv().expect("sent by the other run");
        let report = run(pes, |rt| async move {
            let mine = rt.handle();
            let (done, all_left) = rt.promise::<()>();
            let outside = std::thread::spawn(move || {
                let first = handle.enter();
                let second = mine.enter();
                drop(first);
                drop(second);
                let _again = handle.enter();
                promise.send(7).expect("the first value");
                let _mine = mine.enter();
                done.send(()).expect("the first value");
            });
            all_left.await?;
            outside.join().expect("nothing panics out there");
            Ok(())
        });
        assert!(report.is_success(), "{report}");
        assert!(other.join().expect("no panic").is_success());
    }
}

/// A destructor that panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

struct Keeper {
    bombs: Vec<Bomb>,
}

#[chare(index = usize, keep_after_panic)]
impl Keeper {
    fn new() -> Self {
        Keeper { bombs: Vec::new() }
    }

    #[entry]
    fn keep(&mut self, bomb: Vec<Bomb>) {
        self.bombs.extend(bomb);
    }

    /// Sends itself one.
    #[entry]
    fn send_one(&self, cx: &Cx<Self>) {
        cx.this().keep(vec![Bomb]).send();
    }

    #[entry]
    fn keep_one(&mut self) {
        self.bombs.push(Bomb);
    }

    #[entry]
    async fn wait_then_look(&mut self, cx: &Cx<Self>, this: Looker) -> usize {
        cx.sleep(std::time::Duration::ZERO).await;
        this.look()
    }

    #[entry]
    fn bombs(&self) -> usize {
        self.bombs.len()
    }

    #[entry]
    async fn looker(this: This<Self>) -> Looker {
        Looker(this)
    }
}

/// A context that was carried out of its coroutine.
struct Looker(This<Keeper>);

impl Looker {
    fn look(&self) -> usize {
        self.0.with(|keeper| keeper.bombs.len())
    }
}

#[test]
fn a_panic_in_a_destructor_at_the_end_is_reported_and_hangs_nobody() {
    for pes in [1, 2, 4, 8] {
        let report = run(pes, |rt| async move {
            let keepers = rt.array::<Keeper>(pes).create(()).await?;
            keepers.at(pes - 1).keep_one().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1);
        assert!(report.to_string().contains("destructor"), "{report}");
        let report = run(pes, |rt| async move {
            let keepers = rt.array::<Keeper>(pes).create(()).await?;
            keepers.at(pes - 1).send_one().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1);
        assert!(report.to_string().contains("destructor"), "{report}");
    }
}

#[test]
fn a_main_that_panics_before_its_first_await_is_reported() {
    for pes in [1, 2, 4] {
        let report = run(pes, |_| -> std::future::Ready<Result<()>> { panic!("too early") });
        assert_eq!(report.code(), 1);
        assert!(report.to_string().contains("too early"), "{report}");
    }
}

#[chare::test(pes = [1, 2], one_process = "what a coroutine borrows stays in its process")]
async fn a_borrow_that_was_refused_leaves_no_trace(rt: Runtime) -> Result<()> {
    let keepers = rt.array::<Keeper>(1).create(()).await?;
    let looker = keepers.at(0).looker().await?;
    let error = keepers.at(0).wait_then_look(looker).await.unwrap_err().to_string();
    assert!(error.contains("exclusive coroutine"), "{error}");
    assert_eq!(keepers.at(0).bombs().await?, 0);
    Ok(())
}

/// An argument whose clone panics, or not.
#[derive(serde::Serialize, serde::Deserialize)]
enum Cloned {
    Good,
    Fails,
}

impl Clone for Cloned {
    fn clone(&self) -> Self {
        match self {
            Good => Good,
            Fails => panic!("cannot be cloned"),
        }
    }
}

struct Taker(u32);

#[chare(index = usize, keep_after_panic)]
impl Taker {
    fn new() -> Self {
        Taker(0)
    }

    #[entry]
    fn take(&mut self, _argument: Cloned) -> u32 {
        self.0 += 1;
        self.0
    }

    #[entry]
    fn send_bad(&mut self, cx: &Cx<Self>) {
        cx.array().take(Fails).send();
    }
}

#[chare::test(pes = [2, 4])]
async fn a_clone_that_panics_leaves_no_hole_in_the_numbering(rt: Runtime) -> Result<()> {
    let takers = rt.array::<Taker>(8).create(()).await?;
    assert!(matches!(takers.at(0).send_bad().await, Err(CallError::Panicked(_))));
    assert_eq!(takers.take(Good).gather().await?, [1; 8]);
    Ok(())
}

#[test]
fn an_error_whose_future_was_dropped_ends_the_run_whenever_it_comes() {
    for pes in [1, 2, 4] {
        let before = run(pes, |rt| async move {
            let texts = rt.array::<Text>(pes).create(()).await?;
            drop(texts.at(pes - 1).fail().future());
            rt.quiescence().await?;
            Ok(())
        });
        let after = run(pes, |rt| async move {
            let texts = rt.array::<Text>(pes).create(()).await?;
            let outcome = texts.at(pes - 1).fail().future();
            rt.quiescence().await?;
            drop(outcome);
            rt.quiescence().await?;
            Ok(())
        });
        let outside = run(pes, |rt| async move {
            let texts = rt.array::<Text>(pes).create(()).await?;
            let outcome = texts.at(pes).text().future();
            rt.quiescence().await?;
            drop(outcome);
            rt.quiescence().await?;
            Ok(())
        });
        for (report, words) in [(before, "nobody saw"), (after, "nobody saw"), (outside, "no element")] {
            assert_eq!(report.code(), 1);
            assert!(report.to_string().contains(words), "{report}");
        }
    }
}

#[test]
fn an_array_that_fits_in_no_memory_is_refused() {
    for shape in [10_000_000_000_000, usize::MAX] {
        let report = run(2, |rt| async move {
            rt.array::<Text>(shape).create(()).await?;
            Ok(())
        });
        assert_eq!(report.code(), 1);
        assert!(report.to_string().contains("does not fit in memory"), "{report}");
    }
}

#[test]
fn a_thread_that_waits_learns_of_the_end() {
    for pes in [1, 2] {
        let (send, receive) = mpsc::channel();
        let report = run(pes, |rt| async move {
            let (promise, value) = rt.promise::<u32>();
            let handle = rt.handle();
            let waits = std::thread::spawn(move || {
                let _entered = handle.enter();
                let mut value = std::pin::pin!(value);
                let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
                loop {
                    match value.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
                        Poll::Ready(outcome) => return outcome,
                        Poll::Pending => std::thread::park(),
                    }
                }
            });
            send.send((waits, promise))?;
            Ok(())
        });
        assert!(report.is_success(), "{report}");
        let (waits, _promise) = receive.recv().expect("sent above");
        assert!(matches!(waits.join().expect("no panic"), Err(CallError::Ended)));
    }
}

/// A value whose destructor uses the chare that it waited in.
struct Meddler(Cx<Meddled>, Element<Meddled>);

impl Drop for Meddler {
    fn drop(&mut self) {
        for tag in 100..200 {
            let channel: Channel<String> = self.0.channel(&self.1, tag);
            channel.send("from a destructor".to_owned()).expect("there is credit");
        }
    }
}

struct Meddled;

#[chare(index = usize)]
impl Meddled {
    fn new() -> Self {
        Meddled
    }

    #[entry]
    fn fill(&mut self, cx: &Cx<Self>) {
        for tag in 1..4 {
            let channel = cx.channel::<chare::Local<Meddler>, _>(&cx.this(), tag);
            channel.send(chare::Local(Meddler(cx.clone(), cx.this()))).expect("there is credit");
        }
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_destructor_may_use_the_chare_that_goes(rt: Runtime) -> Result<()> {
    let meddled = rt.array::<Meddled>(8).create(()).await?;
    meddled.fill().await?;
    // What is still on its way at the end is in no chare.
    rt.quiescence().await?;
    Ok(())
}

/// A chare that uses its channel until the end.
struct Clinging(Option<Channel<String>>);

#[chare(index = usize)]
impl Clinging {
    fn new() -> Self {
        Clinging(None)
    }

    #[entry]
    fn open(&mut self, cx: &Cx<Self>) {
        let channel = self.0.insert(cx.channel(&cx.this(), 0));
        channel.send("never read".to_owned()).expect("there is credit");
    }
}

impl Drop for Clinging {
    fn drop(&mut self) {
        let channel = self.0.as_ref().expect("opened before");
        assert_eq!(channel.try_recv().expect("its own chare"), None, "what was unread went before the chare");
        channel.send("too late".to_owned()).expect("there is credit");
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_channel_works_in_the_destructor_of_its_chare(rt: Runtime) -> Result<()> {
    let clinging = rt.array::<Clinging>(8).create(()).await?;
    Ok(clinging.open().await?)
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}
