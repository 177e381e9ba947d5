//! Entries that run on the stack of their caller: `inline`, `local` and `.now()`; never a chare twice on one stack.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use chare::WhyNotNow;
use chare::prelude::*;

use super::{PES, run};

/// What happened on one PE, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn write(log: &Log, line: &str) {
    log.lock().expect("nobody panics with it").push(line.to_owned());
}

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().expect("nobody panics with it"))
}

/// What kept a call from running at once; none if it did.
fn why(outcome: Result<u64, CallError>) -> Option<WhyNotNow> {
    match outcome {
        Ok(_) => None,
        Err(CallError::NotNow(error)) => Some(error.why),
        Err(other) => panic!("{other}"),
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Node {
    value: u64,
    heard: u64,
    /// What it has seen happen.
    log: Log,
}

#[chare]
impl Node {
    fn new() -> Self {
        Node::default()
    }

    #[entry(inline)]
    fn note(&mut self, log: Log, line: String) -> u64 {
        write(&log, &line);
        self.heard += 1;
        self.heard
    }

    #[entry(local)]
    fn add(&mut self, amount: u64) -> u64 {
        self.value += amount;
        self.value
    }

    #[entry(local)]
    fn fail(&self) -> Result<u64> {
        Err("it fails".into())
    }

    #[entry(inline)]
    fn panic(&self) {
        panic!("on purpose");
    }

    /// What has happened since the last time.
    #[entry]
    fn log(&self) -> Vec<String> {
        take(&self.log)
    }

    /// Calls another node in the middle.
    #[entry]
    fn call_other(&mut self, other: Element<Node>) {
        write(&self.log, "begin");
        other.note(self.log.clone(), "inline".to_owned()).send();
        write(&self.log, "end");
    }

    /// Sends to itself in the middle.
    #[entry]
    fn call_itself(&mut self, cx: &Cx<Self>) {
        write(&self.log, "begin");
        cx.this().note(self.log.clone(), "itself".to_owned()).send();
        write(&self.log, "end");
    }

    /// `back` is whoever calls.
    #[entry(inline)]
    fn call_back(&mut self, back: Element<Node>, log: Log) {
        write(&log, "called");
        back.note(log.clone(), "back".to_owned()).send();
        write(&log, "returns");
    }

    #[entry]
    fn call_and_be_called(&mut self, cx: &Cx<Self>, other: Element<Node>) {
        write(&self.log, "begin");
        other.call_back(cx.this(), self.log.clone()).send();
        write(&self.log, "end");
    }

    /// As `call_and_be_called`, of a coroutine, which does not borrow its state.
    #[entry]
    async fn call_and_be_called_by_a_coroutine(this: This<Self>, other: Element<Node>) {
        let log = this.with(|node| node.log.clone());
        write(&log, "begin");
        other.call_back(this.this(), log.clone()).send();
        write(&log, "end");
        this.wait_until(|node| node.heard == 1).await;
        write(&log, "woken");
    }

    #[entry]
    async fn own_it(&mut self, cx: &Cx<Self>, begun: Promise<Promise<()>>) -> Result<()> {
        let (release, released) = cx.promise();
        self.value += 1;
        begun.send(release)?;
        Ok(released.await?)
    }

    #[entry]
    async fn wait_for(this: This<Self>, value: u64) -> u64 {
        this.wait_until(|node| node.value >= value).await;
        this.with(|node| node.value)
    }

    /// What keeps `.now()` from running, from this chare.
    #[entry]
    fn add_now(&self, other: Element<Node>) -> Option<String> {
        why(other.add(1).now()).map(|why| format!("{why:?}"))
    }

    #[entry]
    fn add_to_itself_now(&self, cx: &Cx<Self>) -> Option<String> {
        why(cx.this().add(1).now()).map(|why| format!("{why:?}"))
    }

    #[entry]
    async fn add_and_await(&self, cx: &Cx<Self>, other: Element<Node>) -> Result<u64> {
        let sent = other.add(1).future();
        other.add(1).await?;
        let (promise, value) = cx.promise();
        other.add(1).to(promise);
        Ok(sent.await? * 100 + value.await?)
    }

    /// Goes on after calls of all kinds that end badly.
    #[entry]
    fn survive(&mut self, other: Element<Node>) -> Result<String> {
        let failed = other.fail().now().expect_err("it fails").to_string();
        let panicked = other.panic().now().expect_err("it panics").to_string();
        let poisoned = other.add(1).now().expect_err("it is poisoned").to_string();
        self.value = 5;
        Ok([failed, panicked, poisoned].join("; "))
    }
}

/// Two nodes on one PE.
async fn two_nodes(rt: &Runtime, pe: usize) -> Result<[Element<Node>; 2]> {
    let nodes = rt.single::<Node>().on_pe(pe).create(());
    let others = rt.single::<Node>().on_pe(pe).create(());
    Ok([nodes.await?, others.await?])
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_call_on_the_same_pe_runs_on_the_stack_of_its_caller(rt: Runtime) -> Result<()> {
    for pe in 0..rt.num_pes() {
        let [one, other] = two_nodes(&rt, pe).await?;
        one.call_other(other).await?;
        assert_eq!(one.log().await?, ["begin", "inline", "end"]);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn so_it_does_out_of_main(rt: Runtime) -> Result<()> {
    let here = rt.single::<Node>().on_pe(rt.my_pe()).create(()).await?;
    let log = Log::default();
    here.note(log.clone(), "first".to_owned()).send();
    assert_eq!(take(&log), ["first"]);
    assert_eq!(here.note(log.clone(), "second".to_owned()).now()?, 2);
    let third = here.note(log.clone(), "third".to_owned()).future();
    assert_eq!(take(&log), ["second", "third"]);
    assert_eq!(third.await?, 3);
    let _never_sent = here.note(log.clone(), "never".to_owned());
    assert_eq!(here.note(log.clone(), "fourth".to_owned()).await?, 4);
    assert_eq!(take(&log), ["fourth"]);
    Ok(())
}

#[chare::test(pes = [2, 4, 8])]
async fn a_call_of_a_chare_elsewhere_is_a_message(rt: Runtime) -> Result<()> {
    let far = rt.single::<Node>().on_pe(rt.num_pes() - 1).create(()).await?;
    assert_eq!(far.note(Log::default(), "far".to_owned()).await?, 1);
    let here = rt.single::<Node>().on_pe(rt.my_pe()).create(()).await?;
    here.call_other(far).await?;
    rt.quiescence().await?;
    let mut lines = here.log().await?;
    lines.retain(|line| *line != "inline");
    assert_eq!(lines, ["begin", "end"]);
    assert_eq!(far.note(Log::default(), "again".to_owned()).await?, 3);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_chare_is_on_a_stack_once(rt: Runtime) -> Result<()> {
    let [one, other] = two_nodes(&rt, rt.num_pes() - 1).await?;
    one.call_itself().await?;
    rt.quiescence().await?;
    assert_eq!(one.log().await?, ["begin", "end", "itself"]);
    one.call_and_be_called(other).await?;
    rt.quiescence().await?;
    assert_eq!(one.log().await?, ["begin", "called", "returns", "end", "back"]);
    let [one, other] = two_nodes(&rt, rt.num_pes() - 1).await?;
    one.call_and_be_called_by_a_coroutine(other).await?;
    assert_eq!(one.log().await?, ["begin", "called", "returns", "end", "back", "woken"]);
    assert_eq!(one.add_to_itself_now().await?, Some("Running".to_owned()));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn its_value_comes_in_every_way(rt: Runtime) -> Result<()> {
    let [one, other] = two_nodes(&rt, rt.num_pes() - 1).await?;
    assert_eq!(one.add_and_await(other).await?, 103);
    assert_eq!(one.add_now(other).await?, None);
    assert_eq!(one.add_and_await(other).await?, 507);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn errors_and_panics_are_those_of_the_called(rt: Runtime) -> Result<()> {
    let [one, other] = two_nodes(&rt, rt.num_pes() - 1).await?;
    let told = one.survive(other).await?;
    for words in
        ["Node.fail failed: it fails", "Node.panic panicked at tests/semantics/inline.rs", "was poisoned"]
    {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(one.wait_for(5).await?, 5, "the caller is not poisoned");
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn what_waits_for_the_state_is_woken(rt: Runtime) -> Result<()> {
    let [one, other] = two_nodes(&rt, rt.num_pes() - 1).await?;
    let waiting = other.wait_for(2).future();
    assert_eq!(one.add_now(other).await?, None);
    assert_eq!(one.add_now(other).await?, None);
    assert_eq!(waiting.await?, 2);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn an_exclusive_coroutine_keeps_its_chare(rt: Runtime) -> Result<()> {
    let [one, other] = two_nodes(&rt, rt.num_pes() - 1).await?;
    let (begun, release) = rt.promise();
    let owner = other.own_it(begun).future();
    let release = release.await?;
    rt.quiescence().await?;
    assert_eq!(one.add_now(other).await?, Some("Owned".to_owned()));
    one.call_other(other).await?;
    assert_eq!(one.log().await?, ["begin", "end"], "it is held");
    release.send(())?;
    owner.await?;
    rt.quiescence().await?;
    assert_eq!(one.log().await?, ["inline"]);
    Ok(())
}

#[chare::test(pes = [2, 4, 8])]
async fn a_local_entry_is_called_on_its_pe_only(rt: Runtime) -> Result<()> {
    let home = rt.num_pes() - 1;
    let group = rt.group::<Node>().create(()).await?;
    assert_eq!(group.on(rt.my_pe()).add(3).now()?, 3);
    for outcome in [group.on(home).add(1).now(), group.on(home).add(1).await] {
        let error = outcome.expect_err("it lives elsewhere");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("Node[{home}].add cannot run at once: it is on PE {home}")),
            "{text}"
        );
        let why = why(Err(error)).expect("it did not run");
        assert_eq!(why, WhyNotNow::Elsewhere { here: rt.my_pe(), there: PeId::new(home) });
    }
    let error = group.on(rt.num_pes()).add(1).now().expect_err("there is no such PE");
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    Ok(())
}

#[test]
fn a_local_call_from_elsewhere_that_nobody_awaits_ends_the_run() {
    for pes in [2, 4] {
        let report = run(pes, async move |rt: Runtime| -> Result<()> {
            let group = rt.group::<Node>().create(()).await?;
            group.on(pes - 1).add(1).send();
            rt.quiescence().await?;
            Ok(())
        });
        assert!(report.to_string().contains("add cannot run at once: it is on PE"), "{report}");
        assert!(!report.is_success());
    }
}

#[test]
fn a_local_call_from_a_thread_ends_the_run() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| -> Result<()> {
            let node = rt.single::<Node>().create(()).await?;
            let handle = rt.handle();
            let sender = std::thread::spawn(move || {
                let _entered = handle.enter();
                node.add(1).send();
            });
            sender.join().expect("nothing panics there");
            rt.quiescence().await?;
            Ok(())
        });
        assert!(report.to_string().contains("on a thread that is no PE"), "{report}");
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn a_chare_that_is_not_there_yet_cannot_be_called_at_once(rt: Runtime) -> Result<()> {
    let node = rt.single::<Node>().on_pe(rt.my_pe()).create(()).send();
    let log = Log::default();
    let error = node.note(log.clone(), "early".to_owned()).now().expect_err("it is not constructed");
    assert!(error.to_string().contains("not constructed yet; await its creation"), "{error}");
    assert_eq!(node.note(log.clone(), "later".to_owned()).await?, 1, "a message waits for it");
    assert_eq!(node.add(4).await?, 4);
    Ok(())
}

thread_local! {
    /// How many links of a chain are on the stack of this PE, and how many there have been at most.
    static DEPTH: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
}

/// A link of a chain on one PE, each of which calls the next on its stack.
struct Link;

#[chare]
impl Link {
    fn new() -> Self {
        Link
    }

    #[entry(inline)]
    fn go_down(&mut self, mut rest: Vec<Element<Link>>, end: Promise<()>) -> Result<()> {
        let [depth, deepest] = DEPTH.get();
        DEPTH.set([depth + 1, deepest.max(depth + 1)]);
        match rest.pop() {
            Some(next) => next.go_down(rest, end).send(),
            None => end.send(())?,
        }
        let [depth, deepest] = DEPTH.get();
        DEPTH.set([depth - 1, deepest]);
        Ok(())
    }

    /// How deep the stack of its PE has been.
    #[entry]
    fn deepest(&self) -> usize {
        let [depth, deepest] = DEPTH.take();
        assert_eq!(depth, 0, "all have returned");
        deepest
    }

    /// How many calls fit on the stack before `.now()` is refused.
    #[entry(inline)]
    fn count_down(&mut self, mut rest: Vec<Element<Link>>) -> Result<u32> {
        let next = rest.pop().ok_or("the chain is too short")?;
        match next.count_down(rest).now() {
            Ok(below) => Ok(below + 1),
            Err(CallError::NotNow(error)) if error.why == WhyNotNow::TooDeep => Ok(1),
            Err(other) => Err(other.into()),
        }
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn a_chain_of_calls_does_not_grow_the_stack_without_end(rt: Runtime) -> Result<()> {
    let mut links = Vec::new();
    for _ in 0..1000 {
        links.push(rt.single::<Link>().on_pe(rt.num_pes() - 1).create(()).send());
    }
    let first = links.pop().expect("there are many");
    let (end, has_ended) = rt.promise();
    first.go_down(links.clone(), end).send();
    has_ended.await?;
    rt.quiescence().await?;
    let deepest = first.deepest().await?;
    assert!((32..=33).contains(&deepest), "{deepest}");
    let down = first.count_down(links).await?;
    assert!((32..=33).contains(&down), "{down}");
    Ok(())
}

/// Looks something up while it is made.
struct Asker(u64);

#[chare]
impl Asker {
    fn new(cx: &Cx<Self>, group: Group<Node>) -> Result<Self> {
        Ok(Asker(group.on(cx.my_pe()).add(7).now()?))
    }

    #[entry]
    fn answer(&self) -> u64 {
        self.0
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_constructor_calls_too(rt: Runtime) -> Result<()> {
    let nodes = rt.group::<Node>().create(()).await?;
    for asked in 1..3 {
        let askers = rt.group::<Asker>().create(nodes).await?;
        assert_eq!(askers.answer().gather().await?, vec![7 * asked; rt.num_pes()]);
    }
    Ok(())
}

/// Calls when it is dropped.
struct OnDrop(Element<Node>, Log);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.note(self.1.clone(), "dropped".to_owned()).send();
        write(&self.1, "end of drop");
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn what_the_runtime_drops_sends_messages(rt: Runtime) -> Result<()> {
    let node = rt.single::<Node>().on_pe(rt.my_pe()).create(()).await?;
    let log = Log::default();
    drop(OnDrop(node, log.clone()));
    assert_eq!(take(&log), ["dropped", "end of drop"], "this one is dropped by main");
    let (promise, value) = rt.promise();
    drop(value);
    promise.send(OnDrop(node, log.clone()))?;
    rt.quiescence().await?;
    let lines = take(&log);
    assert!(["dropped", "end of drop"].iter().all(|line| lines.iter().any(|it| it == line)), "{lines:?}");
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_chare_that_has_moved_is_called_where_it_is(rt: Runtime) -> Result<()> {
    let last = PeId::new(rt.num_pes() - 1);
    let node = rt.single::<Node>().on_pe(rt.my_pe()).create(()).await?;
    let neighbour = rt.single::<Node>().on_pe(last).create(()).await?;
    assert_eq!(node.add(1).now()?, 1);
    node.migrate(last).await?;
    assert_eq!(why(node.add(1).now()), Some(WhyNotNow::Elsewhere { here: rt.my_pe(), there: last }));
    assert_eq!(neighbour.add_now(node).await?, None);
    assert_eq!(node.note(Log::default(), "by message".to_owned()).await?, 1);
    Ok(())
}
