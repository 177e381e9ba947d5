//! Code of the user's that the runtime runs where no method does: wakers, reducers, clones and destructors. It may use the
//! runtime, and its panics are told as such.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use chare::ExitReport;
use chare::prelude::*;
use chare::reduction::Reducer;

use super::{PES, run};

/// A combinator's waker that looks at a future of the runtime when it is dropped.
struct Nosy {
    inner: Waker,
    looks_at: Mutex<Option<chare::PromiseFuture<u32>>>,
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.inner.wake_by_ref();
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        if let Some(mut value) = self.looks_at.lock().expect("nobody panics with the lock").take() {
            let _ = std::pin::Pin::new(&mut value).poll(&mut Context::from_waker(&self.inner));
        }
    }
}

/// Polls `future` twice with wakers of its own, each of which uses the runtime when it goes; then as usual.
async fn with_nosy_wakers<F: Future + Unpin>(rt: Runtime, mut future: F) -> F::Output {
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        if polls > 2 {
            return std::pin::Pin::new(&mut future).poll(context);
        }
        context.waker().wake_by_ref();
        let (_promise, value) = rt.promise();
        let nosy = Nosy { inner: context.waker().clone(), looks_at: Mutex::new(Some(value)) };
        std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&Arc::new(nosy).into()))
    })
    .await
}

#[derive(Default)]
struct Worker {
    ready: bool,
}

#[chare(index = usize)]
impl Worker {
    fn new() -> Self {
        Worker::default()
    }

    #[entry]
    fn make_ready(&mut self) {
        self.ready = true;
    }

    #[entry]
    async fn wait_nosily(this: This<Self>, peer: Element<Worker>) -> Result<u32> {
        let rt = |this: &This<Self>| -> Runtime { (***this).clone() };
        let (promise, value) = this.promise();
        let nosy = with_nosy_wakers(rt(&this), value);
        promise.send(1_u32)?;
        let mut sum = nosy.await?;
        let to_peer: Channel<u32> = this.channel(&peer, 3);
        to_peer.send(2)?;
        sum += with_nosy_wakers(rt(&this), Box::pin(to_peer.recv())).await?;
        with_nosy_wakers(rt(&this), Box::pin(to_peer.reserve())).await.send(0);
        this.this().make_ready().send();
        with_nosy_wakers(rt(&this), Box::pin(this.wait_until(|worker| worker.ready))).await;
        sum += with_nosy_wakers(rt(&this), this.allreduce(1, reduce::Sum)).await?;
        Ok(sum)
    }

    /// Contributes by a reducer that contributes.
    #[entry]
    fn contribute_twice(&self, cx: &Cx<Self>, first: Promise<u64>, second: Promise<u64>) {
        cx.contribute((cx.clone(), second), Chained, first);
    }

    #[entry]
    async fn reduce_then_reduce(this: This<Self>) -> Result<(u64, u64)> {
        let (first, one) = this.promise();
        let (second, two) = this.promise();
        if this.index() == 0 {
            this.array().contribute_twice(first, second).send();
            return Ok((one.await?, two.await?));
        }
        drop((first, second, one, two));
        Ok((0, 0))
    }

    #[entry]
    fn take(&mut self, _bomb: Bomb) -> u32 {
        1
    }

    #[entry]
    fn make(&self) -> Bomb {
        Bomb::Clone
    }
}

/// Counts its contributions, and contributes once more for each.
#[derive(Clone, Copy)]
struct Chained;

type Link = (Cx<Worker>, Promise<u64>);

impl Reducer<Link> for Chained {
    type Partial = u64;
    type Output = u64;
    fn start(&self, (cx, second): Link, _: u64) -> u64 {
        cx.contribute(1_u64, reduce::Sum, second);
        1
    }
    fn add(&self, partial: &mut u64, (cx, second): Link, _: u64) {
        cx.contribute(1_u64, reduce::Sum, second);
        *partial += 1;
    }
    fn merge(&self, partial: &mut u64, other: u64) {
        *partial += other;
    }
    fn finish(&self, partial: u64) -> u64 {
        partial
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_waker_may_use_the_runtime_when_it_is_dropped(rt: Runtime) -> Result<()> {
    let workers = rt.array::<Worker>(8).create(()).await?;
    let waits: Vec<_> = (0..8).map(|i| workers.at(i).wait_nosily(workers.at(7 - i)).future()).collect();
    for wait in waits {
        assert_eq!(wait.await?, 1 + 2 + 8);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_reducer_may_contribute(rt: Runtime) -> Result<()> {
    for elements in [1, 2, 16] {
        let workers = rt.array::<Worker>(elements).create(()).await?;
        let both = workers.reduce_then_reduce().gather().await?;
        assert_eq!(both[0], (elements as u64, elements as u64));
    }
    Ok(())
}

/// A value whose clone or destructor panics.
#[derive(serde::Serialize, serde::Deserialize)]
enum Bomb {
    Clone,
    Drop,
}

impl Clone for Bomb {
    fn clone(&self) -> Self {
        match self {
            Bomb::Clone => panic!("cannot be cloned"),
            Bomb::Drop => Bomb::Drop,
        }
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!matches!(self, Bomb::Drop) || std::thread::panicking(), "cannot be dropped");
    }
}

/// The clone of its constructor's argument panics.
struct Never;

#[chare(index = usize)]
impl Never {
    fn new(_: Bomb) -> Self {
        Never
    }
}

#[chare::test(pes = [1])]
async fn a_clone_that_panics_is_an_error_of_its_call(rt: Runtime) -> Result<()> {
    let workers = rt.array::<Worker>(3).create(()).await?;
    let outcomes = workers.take(Bomb::Clone).gather_results().await?;
    assert!(matches!(outcomes[0], Err(CallError::Panicked(_))));
    assert!(matches!(outcomes[1], Err(CallError::Panicked(_))));
    assert!(matches!(outcomes[2], Ok(1)), "the last element gets the original");
    let error = rt.array::<Never>(3).create(Bomb::Clone).await.expect_err("a clone panics");
    assert!(error.to_string().contains("cannot be cloned"), "{error}");
    Ok(())
}

#[track_caller]
fn blamed_on_the_user(report: &ExitReport, words: &str) {
    assert_eq!(report.code(), 1, "{report}");
    assert!(report.to_string().contains(words), "{report}");
    assert!(!report.to_string().contains("please report"), "{report}");
}

/// Hands out values whose destructors panic.
struct Maker;

#[chare(index = usize)]
impl Maker {
    fn new() -> Self {
        Maker
    }

    #[entry]
    fn make(&self) -> Bomb {
        Bomb::Drop
    }
}

#[test]
fn a_destructor_that_panics_outside_of_methods_is_the_users() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let makers = rt.array::<Maker>(pes).create(()).await?;
            makers.at(pes - 1).make().send();
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        blamed_on_the_user(&report, "cannot be dropped");
        let report = run(pes, async move |rt: Runtime| {
            let makers = rt.array::<Maker>(pes).create(()).await?;
            drop(makers.at(pes - 1).make().future());
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        blamed_on_the_user(&report, "cannot be dropped");
    }
}

/// Its coroutine waits while another of its methods panics.
#[derive(Default)]
struct Fragile {
    entered: bool,
}

#[chare(index = usize)]
impl Fragile {
    fn new() -> Self {
        Fragile::default()
    }

    #[entry]
    async fn wait(this: This<Self>, key: Promise<Promise<()>>) -> Result<()> {
        this.with(|fragile| fragile.entered = true);
        let (open, opened) = this.promise();
        key.send(open)?;
        opened.await?;
        this.with(|fragile| assert!(fragile.entered));
        Ok(())
    }

    #[entry]
    async fn wait_for_its_state(this: This<Self>) {
        this.wait_until(|fragile| !fragile.entered).await;
    }

    #[entry]
    fn crash(&mut self) {
        panic!("half way");
    }
}

#[chare::test(
    pes = [1, 2, 4, 8],
    unsimulated = "plain messages are taken to come in order"
)]
async fn a_coroutine_of_a_poisoned_chare_does_not_see_its_state(rt: Runtime) -> Result<()> {
    let fragile = rt.array::<Fragile>(8).create(()).await?;
    for index in [0, 7] {
        let (key, waiting) = rt.promise();
        let waits = fragile.at(index).wait(key).future();
        let looks = fragile.at(index).wait_for_its_state().future();
        rt.quiescence().await?;
        assert!(matches!(fragile.at(index).crash().await, Err(CallError::Panicked(_))));
        waiting.await?.send(())?;
        for outcome in [waits.await, looks.await] {
            let error = outcome.expect_err("the chare is poisoned").to_string();
            assert!(error.contains("poisoned"), "{error}");
        }
    }
    Ok(())
}

/// Fails on every element, if somebody still waits or not.
struct Failing;

#[chare(index = usize)]
impl Failing {
    fn new() -> Self {
        Failing
    }

    #[entry]
    fn fail(&self) -> Result<u32> {
        Err("nobody saw this".into())
    }

    #[entry]
    async fn fail_when(this: This<Self>, told: Callback<()>) -> Result<u32> {
        told.deliver(())?;
        let (promise, value) = this.promise::<()>();
        promise.send(())?;
        value.await?;
        Err("nobody saw this".into())
    }
}

#[test]
fn the_errors_of_a_broadcast_that_nobody_awaits_any_more_end_the_run() {
    for pes in PES {
        type Start = fn(Array<Failing>) -> Box<dyn std::any::Any + Send>;
        let drops: [Start; 3] = [
            |array| Box::new(array.fail().future()),
            |array| Box::new(array.fail().gather()),
            |array| Box::new(array.fail().gather_results()),
        ];
        for (early, start) in drops.into_iter().flat_map(|start| [(true, start), (false, start)]) {
            let report = run(pes, async move |rt: Runtime| {
                let array = rt.array::<Failing>(4).create(()).await?;
                let outcome = start(array);
                if early {
                    drop(outcome);
                    rt.quiescence().await?;
                } else {
                    rt.quiescence().await?;
                    drop(outcome);
                    rt.quiescence().await?;
                }
                Result::<()>::Ok(())
            });
            blamed_on_the_user(&report, "nobody saw this");
        }
    }
}

#[test]
fn a_future_that_is_polled_once_and_dropped_leaves_its_broadcast_owing() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let array = rt.array::<Failing>(4).create(()).await?;
            let (told, all) = rt.promises(4);
            let mut call = array.fail_when(told.into());
            std::future::poll_fn(|context| {
                assert!(std::pin::Pin::new(&mut call).poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(call);
            all.await?;
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        blamed_on_the_user(&report, "nobody saw this");
    }
}

/// Sends, from its own PE, a broadcast whose arguments cannot be cloned.
struct Sender;

#[chare]
impl Sender {
    fn new() -> Self {
        Sender
    }

    #[entry]
    async fn spread(&self, workers: Array<Worker>) -> Result<()> {
        Ok(workers.take(Bomb::Clone).await?)
    }
}

#[chare::test(pes = [2, 4, 8])]
async fn a_clone_that_panics_at_the_root_is_told_to_who_awaits_the_broadcast(rt: Runtime) -> Result<()> {
    let workers = rt.array::<Worker>(8).create(()).await?;
    for pe in rt.pes().skip(1) {
        let sender = rt.single::<Sender>().on_pe(pe).create(()).await?;
        let error = sender.spread(workers).await.expect_err("a clone panics").to_string();
        assert!(error.contains("Worker[..].take panicked") && error.contains("cannot be cloned"), "{error}");
    }
    Ok(())
}

#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("it has no words");
    }
}

impl std::error::Error for Unspeakable {}

struct Speaker;

#[chare]
impl Speaker {
    fn new() -> Self {
        Speaker
    }

    #[entry]
    fn fail(&self) -> Result<()> {
        Err(Unspeakable.into())
    }
}

#[test]
fn an_error_whose_text_panics_is_told_nevertheless() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            rt.single::<Speaker>().on_pe(pes - 1).create(()).await?.fail().send();
            rt.sleep(std::time::Duration::MAX).await;
            Result::<()>::Ok(())
        });
        blamed_on_the_user(&report, "it has no words");
        blamed_on_the_user(&run(pes, async |_| Result::<()>::Err(Unspeakable.into())), "it has no words");
    }
}

/// An index that panics when it is shown, or compared with another of its key.
#[derive(Clone, Copy, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
struct Shy(u64);

impl std::hash::Hash for Shy {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Shy {
    fn eq(&self, other: &Shy) -> bool {
        assert!(self.0 == other.0, "incomparable");
        true
    }
}

impl Eq for Shy {}

impl std::fmt::Debug for Shy {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("not to be seen")
    }
}

impl chare::Index for Shy {
    fn key(&self) -> u64 {
        self.0 % 100
    }
}

struct Hidden;

#[chare(index = Shy)]
impl Hidden {
    fn new(fails: bool) -> Result<Self> {
        if fails { Err("failed".into()) } else { Ok(Hidden) }
    }

    #[entry]
    fn fail(&self) -> Result<()> {
        Err("failed".into())
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked")
    }

    /// Opens an account, which is named after its chare.
    #[entry]
    fn used_bytes(&self, cx: &Cx<Self>) -> u64 {
        cx.device().used_bytes()
    }

    #[entry]
    async fn wait(this: This<Self>) {
        this.wait_until(|_| false).await;
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn an_index_that_panics_when_it_is_shown_or_compared_spoils_no_error(rt: Runtime) -> Result<()> {
    let all = rt.array_sparse::<Hidden>().create_empty();
    for index in 0..4 {
        all.insert(Shy(index), false).on_pe(index as usize % rt.num_pes()).await?;
    }
    all.done_inserting().await?;
    let error = all.at(Shy(1)).fail().await.expect_err("it fails").to_string();
    assert_eq!(error, "Hidden[key 1].fail failed: failed");
    let error = all.at(Shy(2)).panic().await.expect_err("it panics").to_string();
    assert!(error.starts_with("Hidden[key 2].panic panicked") && error.ends_with("as asked"), "{error}");
    let error = all.insert(Shy(5), true).await.expect_err("its constructor fails").to_string();
    assert_eq!(error, "Hidden[key 5].new failed: failed");
    // What it would be refused with cannot be said.
    let error = all.insert(Shy(1), false).await.expect_err("it is there").to_string();
    assert!(error.ends_with("not to be seen"), "{error}");
    let error = all.insert(Shy(101), false).await.expect_err("its key is taken").to_string();
    assert!(error.ends_with("incomparable"), "{error}");
    assert_eq!(all.at(Shy(3)).used_bytes().await?, 0);
    let error = all.at(Shy(7)).fail().await.expect_err("absent").to_string();
    assert!(error.contains("Hidden has no element [key 7]"), "{error}");
    Ok(())
}

#[test]
fn an_index_that_panics_when_it_is_shown_does_not_spoil_the_hang_report() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let all = rt.array_sparse::<Hidden>().elements([Shy(0), Shy(1), Shy(2)]).create(false).await?;
            assert!(all.at(Shy(1)).panic().await.is_err());
            let unborn = rt.array_sparse::<Hidden>().create_empty();
            let call = unborn.at(Shy(9)).fail().future();
            all.at(Shy(2)).wait().await?;
            call.await?;
            Result::<()>::Ok(())
        });
        let text = report.to_string();
        assert_eq!(report.code(), chare::HANG_EXIT_CODE, "{text}");
        for part in ["Hidden[key 2].wait", "Hidden.fail for Hidden[key 9]", "Hidden[key 1] was poisoned"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
