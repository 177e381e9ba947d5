//! Elements of a sparse array that are inserted, by main and by each other, destroyed and inserted again, while they move,
//! are called, hear broadcasts and contribute to reductions.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::reduction::{Gather, Sum};

/// Keys that main inserts, destroys and inserts again.
const TRANSIENT: std::ops::Range<usize> = 0..3;
/// Keys that main inserts once; more are inserted by elements, from `FIRST_CHILD` on.
const PERENNIAL: std::ops::Range<usize> = 3..6;
const FIRST_CHILD: usize = 10;
const STEPS: usize = 40;
/// What some constructors fail with.
const DOOMED: &str = "doomed";

#[derive(Default)]
struct Log {
    everyone: Option<Everyone>,
    lives: Vec<Life>,
    /// How often each call has arrived.
    calls: Vec<u32>,
    broadcasts: usize,
    /// Keys that main has inserted and not destroyed, as far as it knows.
    present: BTreeSet<usize>,
    sent_by_main: Vec<usize>,
    /// Elements that were inserted by elements.
    children: usize,
    /// What each reduction that has ended has counted.
    results: Vec<Vec<(usize, u64)>>,
}

/// An element, from its insertion to its destruction.
#[derive(Default)]
struct Life {
    key: usize,
    /// Its constructor may fail: main awaits the insertion.
    may_fail: bool,
    has_failed: bool,
    is_built: bool,
    is_over: bool,
    heard: Vec<usize>,
    /// Broadcasts that its inserter has sent since it inserted it.
    must_hear: Vec<usize>,
    /// Broadcasts that its inserter had sent before.
    must_not_hear: Vec<usize>,
    /// Who inserted it; nobody if main did.
    parent: Option<usize>,
    /// Contributions of its parent when it was inserted.
    parent_given: u64,
    given: u64,
    /// Broadcasts that it has sent since it moved last, and where: what it sends from several PEs to the root has no order.
    sent: Vec<(PeId, usize)>,
}

#[derive(Clone, Copy)]
struct Everyone {
    twigs: SparseArray<Twig>,
    echo: Group<Echo>,
    sink: Element<Sink>,
}

impl World<Log> {
    fn everyone(&self) -> Everyone {
        self.log().everyone.expect("it is noted before anybody is called")
    }

    fn call(&self) -> usize {
        let calls = &mut self.log().calls;
        calls.push(0);
        calls.len() - 1
    }

    /// A broadcast by an element, or by main.
    fn broadcast(&self, rt: &Runtime, sender: Option<usize>) -> usize {
        let log = &mut *self.log();
        let number = log.broadcasts;
        log.broadcasts += 1;
        log.lives
            .iter_mut()
            .filter(|life| life.parent == sender)
            .for_each(|life| life.must_hear.push(number));
        match sender {
            Some(sender) => log.lives[sender].sent.push((rt.my_pe(), number)),
            None => log.sent_by_main.push(number),
        }
        number
    }

    /// An insertion by an element, or by main.
    fn life(&self, rt: &Runtime, key: usize, parent: Option<usize>) -> usize {
        let log = &mut *self.log();
        let (parent_given, must_not_hear) = match parent {
            Some(parent) => {
                let Life { given, sent, .. } = &log.lives[parent];
                let from_here = sent.iter().filter(|(pe, _)| *pe == rt.my_pe()).map(|(_, number)| *number);
                (*given, from_here.collect())
            }
            None => (0, log.sent_by_main.clone()),
        };
        log.lives.push(Life { key, parent, parent_given, must_not_hear, ..Life::default() });
        log.lives.len() - 1
    }

    fn insert(&self, rt: &Runtime, key: usize, parent: Option<usize>) -> crate::Insertion<Twig> {
        let insertion = self.everyone().twigs.insert(key, (self.clone(), self.life(rt, key, parent)));
        if self.once_in(2) { insertion.on_pe(self.below(rt.num_pes())) } else { insertion }
    }

    /// Main has awaited an insertion.
    fn inserted(&self, life: usize, outcome: Result<Element<Twig>, CallError>) -> Result<()> {
        let log = &mut *self.log();
        match outcome {
            Err(error) if is_absence(&error) => {
                assert!(log.lives[life].has_failed);
                log.present.remove(&log.lives[life].key);
                Ok(())
            }
            outcome => Ok(outcome.map(|_| ())?),
        }
    }

    /// An element does something of its own accord.
    fn act(&self, cx: &Cx<Twig>, life: usize) {
        if !self.has_whim() {
            return;
        }
        let Everyone { twigs, .. } = self.everyone();
        let is_perennial = !TRANSIENT.contains(&cx.index());
        match self.below(8) {
            0 | 1 => twigs.hear(self.broadcast(cx, Some(life))).send(),
            2 if is_perennial => {
                let child = FIRST_CHILD + self.log().children;
                self.log().children += 1;
                let child = self.insert(cx, child, Some(life)).send();
                if self.once_in(2) {
                    child.take(self.call()).send();
                }
                if self.once_in(2) {
                    cx.this().migrate(self.below(cx.num_pes())).send();
                }
            }
            3 => give(self, cx, life),
            _ if is_perennial => cx.this().migrate(self.below(cx.num_pes())).send(),
            _ => {}
        }
    }
}

fn give(world: &World<Log>, cx: &Cx<Twig>, life: usize) {
    let given = world.log().lives[life].given;
    world.log().lives[life].given += 1;
    cx.contribute((1, (life, given)), (Sum, Gather), world.everyone().sink.callback(Sink::RESULT));
}

struct Echo;

#[chare]
impl Echo {
    fn new() -> Self {
        Echo
    }

    #[entry]
    fn back(&self) {}

    /// Calls an element from here; true if it is there.
    #[entry]
    async fn relay(_this: This<Self>, twig: Element<Twig>, call: usize) -> Result<bool> {
        match twig.take(call).await {
            Ok(()) => Ok(true),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the array, whose root is here.
    #[entry]
    fn plant(&self, cx: &Cx<Self>) -> SparseArray<Twig> {
        cx.array_sparse::<Twig>().create_empty()
    }
}

/// Takes the results.
struct Sink(World<Log>);

#[chare]
impl Sink {
    fn new(world: World<Log>) -> Self {
        Sink(world)
    }

    #[entry]
    fn result(&mut self, result: (usize, Vec<(usize, u64)>)) {
        let (count, lives) = result;
        assert_eq!(count, lives.len());
        self.0.log().results.push(lives);
    }
}

struct Twig {
    world: World<Log>,
    life: usize,
}

impl Drop for Twig {
    fn drop(&mut self) {
        self.world.log().lives[self.life].is_over = true;
    }
}

#[chare(index = usize)]
impl Twig {
    async fn new(cx: &Cx<Self>, world: World<Log>, life: usize) -> Result<Self> {
        if world.once_in(3) {
            let echo = world.everyone().echo;
            echo.on(world.below(cx.num_pes())).back().await?;
        }
        if world.once_in(4) {
            give(&world, cx, life);
        }
        if world.log().lives[life].may_fail && world.once_in(2) {
            let its = &mut world.log().lives[life];
            (its.has_failed, its.is_over) = (true, true);
            return Err(DOOMED.into());
        }
        let log = &mut *world.log();
        let is_alive = |other: &Life| other.key == cx.index() && other.is_built && !other.is_over;
        assert!(!log.lives.iter().any(is_alive), "an element is there once");
        log.lives[life].is_built = true;
        Ok(Twig { world: world.clone(), life })
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.world.log().lives[self.life].sent.clear();
        if self.world.has_whim() {
            give(&self.world, cx, self.life);
        }
        self.world.act(cx, self.life);
    }

    #[entry]
    fn take(&mut self, cx: &Cx<Self>, call: usize) {
        self.world.log().calls[call] += 1;
        self.world.act(cx, self.life);
    }

    #[entry]
    fn hear(&mut self, cx: &Cx<Self>, broadcast: usize) {
        self.world.log().lives[self.life].heard.push(broadcast);
        self.world.act(cx, self.life);
    }

    #[entry]
    async fn hear_alone(&mut self, cx: &Cx<Self>, broadcast: usize) -> Result<()> {
        self.world.log().lives[self.life].heard.push(broadcast);
        self.world.everyone().echo.on(self.world.below(cx.num_pes())).back().await?;
        self.world.act(cx, self.life);
        Ok(())
    }

    /// Contributes, so that all that have begun can end.
    #[entry]
    fn give(&mut self, cx: &Cx<Self>) {
        give(&self.world, cx, self.life);
    }
}

struct Main {
    rt: Runtime,
    world: World<Log>,
    twigs: SparseArray<Twig>,
    laters: Vec<Later>,
    /// Calls that may wait until all insertions are done.
    calls: Vec<Later>,
}

impl Main {
    async fn step(&mut self) -> Result<()> {
        let Main { rt, world, twigs, .. } = self;
        let key = world.below(PERENNIAL.end);
        let is_present = world.log().present.contains(&key);
        match world.below(12) {
            0..3 if !is_present => {
                let insertion = world.insert(rt, key, None);
                world.log().present.insert(key);
                if world.once_in(2) {
                    insertion.send();
                } else {
                    let life = world.log().lives.len() - 1;
                    world.log().lives[life].may_fail = TRANSIENT.contains(&key);
                    let its = world.clone();
                    let mut insertion = Box::pin(insertion);
                    // Polled once, so it is sent before what comes next.
                    let first = std::future::poll_fn(|context| {
                        std::task::Poll::Ready(insertion.as_mut().poll(context))
                    });
                    match first.await {
                        std::task::Poll::Ready(inserted) => its.inserted(life, inserted)?,
                        std::task::Poll::Pending => {
                            self.laters.push(Box::pin(async move { its.inserted(life, insertion.await) }));
                        }
                    }
                }
            }
            0 if is_present && TRANSIENT.contains(&key) => {
                // It may be under construction, and fail; then main learns it from the insertion.
                match twigs.at(key).destroy().await {
                    Err(error) if is_absence(&error) => {}
                    destroyed => {
                        destroyed?;
                        world.log().present.remove(&key);
                    }
                }
            }
            1 | 2 => await_any(world, &mut self.laters).await?,
            3 => twigs.hear(world.broadcast(rt, None)).send(),
            4 => twigs.hear_alone(world.broadcast(rt, None)).send(),
            5 => self.laters.push(listened(world, twigs.hear(world.broadcast(rt, None)).future())),
            6 => twigs.give().send(),
            7 | 8 if is_present => {
                let moved = twigs.at(key).migrate(world.below(rt.num_pes())).future();
                let may_fail = TRANSIENT.contains(&key);
                self.laters.push(Box::pin(async move { tolerated(moved.await, may_fail) }));
            }
            _ => {
                let (call, may_fail) = (world.call(), !is_present || TRANSIENT.contains(&key));
                let world = world.clone();
                // Another PE may not know of the insertion yet.
                let (by, may_fail) = match world.below(2) {
                    0 => (0, may_fail),
                    _ => (world.below(rt.num_pes()), true),
                };
                let taken = world.everyone().echo.on(by).relay(twigs.at(key), call).future();
                self.calls.push(Box::pin(async move {
                    let is_taken = taken.await?;
                    assert_eq!(world.log().calls[call], u32::from(is_taken), "call {call}");
                    assert!(is_taken || may_fail, "call {call}");
                    Ok(())
                }));
            }
        }
        Ok(())
    }
}

/// Fails, unless the element may have been destroyed or never inserted.
fn tolerated(outcome: Result<(), CallError>, may_fail: bool) -> Result<()> {
    match outcome {
        Err(error) if may_fail && is_absence(&error) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Whether an error says that there is no such element, or that its constructor has failed.
fn is_absence(error: &CallError) -> bool {
    match error {
        CallError::NoElement(_) => true,
        error => error.to_string().ends_with(DOOMED),
    }
}

/// The end of an awaited broadcast.
fn listened(world: &World<Log>, heard: crate::CallFuture<()>) -> Later {
    let world = world.clone();
    let number = world.log().broadcasts - 1;
    Box::pin(async move {
        heard.await?;
        for life in &world.log().lives {
            let has_to = life.must_hear.contains(&number) && !life.is_over;
            assert!(!has_to || life.heard.contains(&number), "an awaited broadcast has reached all");
        }
        Ok(())
    })
}

async fn main(rt: Runtime, world: World<Log>) -> Result<()> {
    let echo = rt.group::<Echo>().create(()).send();
    let sink = rt.single::<Sink>().create(world.clone()).send();
    let twigs = echo.on(world.below(rt.num_pes())).plant().await?;
    world.log().everyone = Some(Everyone { twigs, echo, sink });
    let (laters, calls) = (Vec::new(), Vec::new());
    let mut main = Main { rt, world, twigs, laters, calls };
    let sealed_after = main.world.below(STEPS);
    for step in 0..STEPS {
        main.step().await?;
        if step == sealed_after {
            drop(twigs.done_inserting());
        }
    }
    twigs.done_inserting().await?;
    for later in main.laters.into_iter().chain(main.calls) {
        later.await?;
    }
    // As often as reductions may have begun.
    loop {
        main.rt.quiescence().await?;
        if has_one_that_waits_for_nothing(&main.world.log()) {
            break;
        }
        twigs.give().await?;
    }
    verify(&main.world.log());
    Ok(())
}

/// Whether all reductions have ended that some living element has contributed to: then nobody waits for an element that
/// will not come.
fn has_one_that_waits_for_nothing(log: &Log) -> bool {
    let ended = |life: usize| log.results.iter().flatten().filter(|(of, _)| *of == life).count() as u64;
    let mut living = log.lives.iter().enumerate().filter(|(_, life)| life.is_built && !life.is_over);
    let all_given = log.lives.iter().all(|life| life.given < 200);
    assert!(all_given, "reductions wait for elements that do not take part");
    living.clone().count() == 0 || living.any(|(number, life)| life.given > 0 && ended(number) == life.given)
}

fn verify(log: &Log) {
    for (number, life) in log.lives.iter().enumerate() {
        assert!(life.is_built || life.has_failed, "main and the elements insert what is not there");
        let heard: BTreeSet<_> = life.heard.iter().collect();
        assert_eq!(heard.len(), life.heard.len(), "a broadcast is heard once: {:?}", life.heard);
        for must_not in &life.must_not_hear {
            assert!(!heard.contains(must_not), "life {number} heard {must_not}, which was sent before it");
        }
        for must in life.must_hear.iter().filter(|_| !life.is_over) {
            assert!(heard.contains(must), "life {number} did not hear {must}, which was sent after it");
        }
        for other in &log.lives {
            let common = |from: &Life, to: &Life| -> Vec<usize> {
                from.heard.iter().filter(|number| to.heard.contains(number)).copied().collect()
            };
            assert_eq!(common(life, other), common(other, life), "they are heard in one order");
        }
    }
    let mut counted = BTreeSet::new();
    for result in &log.results {
        for contribution in result {
            assert!(counted.insert(*contribution), "a contribution is counted once");
        }
        let given: BTreeMap<_, _> = result.iter().copied().collect();
        assert_eq!(given.len(), result.len(), "an element contributes once to a reduction");
        for (child, parent) in given.keys().filter_map(|life| Some((*life, log.lives[*life].parent?))) {
            if let Some(parent_given) = given.get(&parent) {
                let expected = given[&child] + log.lives[child].parent_given;
                assert_eq!(*parent_given, expected, "a child begins where its parent is");
            }
        }
    }
}

#[test]
fn sparse_arrays_keep_their_promises() {
    check(Order::Inbox, 500, 60, main);
}

#[test]
fn sparse_arrays_keep_their_promises_between_pairs() {
    check(Order::Pair, 500, 60, main);
}

#[test]
fn shuttle_finds_no_order_that_breaks_a_sparse_array() {
    check_shuttled(150, 60, main);
}
