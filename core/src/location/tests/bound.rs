//! Bound arrays: followers that are created while their leaders move, elements that are destroyed or fail, calls, broadcasts
//! and reductions. Whoever of one index is there is on one PE.

use std::collections::BTreeSet;

use super::*;
use crate::NotLocal;
use crate::reduction::{Gather, Sum};

const PARTS: usize = 4;
/// Elements below this index may be destroyed; they do not send themselves what nobody awaits.
const MORTAL: usize = 2;
const MAX_ARRAYS: usize = 4;
const STEPS: usize = 40;
/// What some constructors fail with.
const DOOMED: &str = "doomed";

#[derive(Default)]
struct Log {
    everyone: Option<(Group<Echo>, Element<Sink>)>,
    /// The first leads; the others are bound to one before them.
    arrays: Vec<Array<Part>>,
    lives: Vec<[Life; PARTS]>,
    /// How often each call has arrived.
    calls: Vec<u32>,
    broadcasts: usize,
    /// What each reduction of each array has counted.
    results: Vec<Vec<Vec<(usize, u64)>>>,
}

/// An element.
#[derive(Default)]
struct Life {
    is_built: bool,
    is_over: bool,
    /// Its destruction was asked for.
    is_doomed: bool,
    heard: Vec<usize>,
    given: u64,
}

impl Life {
    fn is_there(&self) -> bool {
        self.is_built && !self.is_over
    }
}

impl World<Log> {
    fn everyone(&self) -> (Group<Echo>, Element<Sink>) {
        self.log().everyone.expect("it is noted before anybody is called")
    }

    fn array(&self) -> (usize, Array<Part>) {
        let number = self.below(self.log().arrays.len());
        (number, self.log().arrays[number])
    }

    fn call(&self) -> usize {
        let calls = &mut self.log().calls;
        calls.push(0);
        calls.len() - 1
    }

    fn broadcast(&self) -> usize {
        let log = &mut *self.log();
        log.broadcasts += 1;
        log.broadcasts - 1
    }

    /// Looks at the companions of an element whose method or constructor is running.
    fn look(&self, cx: &Cx<Part>, own: usize) {
        let arrays = self.log().arrays.clone();
        for (number, array) in arrays.iter().enumerate().filter(|(number, _)| *number != own) {
            let seen = array.at(cx.index()).local(|_| ());
            let is_there = self.log().lives[number][cx.index()].is_there();
            assert_eq!(seen == Err(NotLocal::Elsewhere), !is_there, "companions are on one PE");
        }
    }

    /// An element does something of its own accord.
    fn act(&self, cx: &Cx<Part>, own: usize) {
        self.look(cx, own);
        if !self.has_whim() {
            return;
        }
        match self.below(4) {
            0 => self.array().1.hear(self.broadcast()).send(),
            _ if cx.index() >= MORTAL => cx.this().migrate(self.below(cx.num_pes())).send(),
            _ => {}
        }
    }

    /// Tolerates that an element is not there, if it was destroyed or not constructed.
    fn tolerate<V>(&self, array: usize, index: usize, outcome: Result<V, CallError>) -> Result<Option<V>> {
        let is_absence = |error: &CallError| {
            let told = error.to_string();
            matches!(error, CallError::NoElement(_))
                || told.ends_with(DOOMED)
                || told.contains("to be bound to")
        };
        let life = &self.log().lives[array][index];
        match outcome {
            Err(error) if is_absence(&error) && (!life.is_built || life.is_doomed) => Ok(None),
            outcome => Ok(Some(outcome?)),
        }
    }
}

struct Echo;

#[chare]
impl Echo {
    fn new() -> Self {
        Echo
    }

    #[entry]
    fn back(&self) {}
}

/// Takes the results.
struct Sink(World<Log>);

#[chare]
impl Sink {
    fn new(world: World<Log>) -> Self {
        Sink(world)
    }

    #[entry]
    fn result(&mut self, result: (usize, Vec<(usize, usize, u64)>)) {
        let (count, given) = result;
        assert_eq!(count, given.len());
        let array = given[0].0;
        assert!(given.iter().all(|(of, ..)| *of == array));
        let given = given.into_iter().map(|(_, index, given)| (index, given)).collect();
        self.0.log().results[array].push(given);
    }
}

struct Part {
    world: World<Log>,
    array: usize,
    index: usize,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.world.log().lives[self.array][self.index].is_over = true;
    }
}

#[chare(index = usize)]
impl Part {
    async fn new(cx: &Cx<Self>, world: World<Log>, array: usize, slow: u64) -> Result<Self> {
        if slow >> cx.index() & 1 == 1 {
            world.everyone().0.on(world.below(cx.num_pes())).back().await?;
        }
        if world.once_in(12) {
            return Err(DOOMED.into());
        }
        world.look(cx, array);
        world.log().lives[array][cx.index()].is_built = true;
        Ok(Part { world: world.clone(), array, index: cx.index() })
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.world.act(cx, self.array);
    }

    #[entry]
    fn take(&mut self, cx: &Cx<Self>, call: usize) {
        self.world.log().calls[call] += 1;
        self.world.act(cx, self.array);
    }

    #[entry]
    fn hear(&mut self, cx: &Cx<Self>, broadcast: usize) {
        self.world.log().lives[self.array][self.index].heard.push(broadcast);
        self.world.act(cx, self.array);
    }

    #[entry]
    async fn hear_alone(&mut self, cx: &Cx<Self>, broadcast: usize) -> Result<()> {
        self.world.log().lives[self.array][self.index].heard.push(broadcast);
        self.world.everyone().0.on(self.world.below(cx.num_pes())).back().await?;
        self.world.act(cx, self.array);
        Ok(())
    }

    #[entry]
    fn give(&mut self, cx: &Cx<Self>) {
        let given = {
            let life = &mut self.world.log().lives[self.array][self.index];
            life.given += 1;
            life.given - 1
        };
        let sink = self.world.everyone().1.callback(Sink::RESULT);
        cx.contribute((1, (self.array, self.index, given)), (Sum, Gather), sink);
        self.world.act(cx, self.array);
    }
}

/// Creates an array, bound to one that there is, if there is one.
fn create(rt: &Runtime, world: &World<Log>) -> Later {
    let number = world.log().arrays.len();
    world.log().lives.push(Default::default());
    world.log().results.push(Vec::new());
    let builder = rt.array::<Part>(PARTS);
    let builder = if number == 0 { builder } else { builder.bound_to(&world.array().1) };
    let (array, created) = builder.create((world.clone(), number, world.below(1 << PARTS) as u64)).start();
    world.log().arrays.push(array);
    let world = world.clone();
    Box::pin(async move {
        let created = created.await;
        let is_whole = world.log().lives[number].iter().all(|life| life.is_built);
        assert_eq!(created.is_ok(), is_whole, "{created:?}");
        Ok(())
    })
}

/// Does something with a part, or all of them.
fn step(rt: &Runtime, world: &World<Log>, destroyed: &mut usize) -> Option<Later> {
    let (number, array) = world.array();
    let (index, its) = (world.below(PARTS), world.clone());
    match world.below(12) {
        0 if world.log().arrays.len() < MAX_ARRAYS => Some(create(rt, world)),
        0 | 1 => {
            array.give().send();
            None
        }
        2 => {
            array.hear_alone(world.broadcast()).send();
            None
        }
        3 => {
            let sent = world.broadcast();
            let heard = array.hear(sent).future();
            Some(Box::pin(async move {
                heard.await?;
                for life in &its.log().lives[number] {
                    let has_to = life.is_there() && !life.is_doomed;
                    assert!(!has_to || life.heard.contains(&sent), "an awaited broadcast has reached all");
                }
                Ok(())
            }))
        }
        4 if *destroyed < 3 && index < MORTAL => {
            *destroyed += 1;
            world.log().lives[number][index].is_doomed = true;
            let end = array.at(index).destroy();
            Some(Box::pin(async move { its.tolerate(number, index, end.await).map(drop) }))
        }
        4..8 => {
            let moved = array.at(index).migrate(world.below(rt.num_pes())).future();
            Some(Box::pin(async move { its.tolerate(number, index, moved.await).map(drop) }))
        }
        _ => {
            let call = world.call();
            let taken = array.at(index).take(call).future();
            Some(Box::pin(async move {
                let is_taken = its.tolerate(number, index, taken.await)?.is_some();
                assert_eq!(its.log().calls[call], u32::from(is_taken), "call {call}");
                Ok(())
            }))
        }
    }
}

async fn main(rt: Runtime, world: World<Log>) -> Result<()> {
    let echo = rt.group::<Echo>().create(()).send();
    let sink = rt.single::<Sink>().create(world.clone()).send();
    world.log().everyone = Some((echo, sink));
    let mut laters = vec![create(&rt, &world)];
    let mut destroyed = 0;
    for _ in 0..STEPS {
        if world.once_in(3) {
            await_any(&world, &mut laters).await?;
        } else {
            laters.extend(step(&rt, &world, &mut destroyed));
        }
    }
    while !laters.is_empty() {
        await_any(&world, &mut laters).await?;
    }
    rt.quiescence().await?;
    verify(&world.log());
    Ok(())
}

fn verify(log: &Log) {
    for (lives, results) in log.lives.iter().zip(&log.results) {
        let living: Vec<_> = lives.iter().filter(|life| life.is_there()).collect();
        for life in lives {
            let heard: BTreeSet<_> = life.heard.iter().collect();
            assert_eq!(heard.len(), life.heard.len(), "a broadcast is heard once: {:?}", life.heard);
            let all = living.first().map_or(&life.heard, |living| &living.heard);
            // One that ends may not get what had waited behind its end, and is caught up with all the same.
            let places: Vec<_> =
                life.heard.iter().map(|heard| all.iter().position(|one| one == heard)).collect();
            assert!(places.iter().all(Option::is_some) && places.is_sorted(), "they are heard in one order");
        }
        for life in &living {
            assert_eq!((&life.heard, life.given), (&living[0].heard, living[0].given), "all hear all");
            assert_eq!(results.len() as u64, life.given, "reductions end without those that are not there");
        }
        let mut counted = BTreeSet::new();
        for (index, given) in results.iter().flatten() {
            assert!(counted.insert((index, given)), "a contribution is counted once");
        }
        if !living.is_empty() {
            let given: u64 = lives.iter().map(|life| life.given).sum();
            assert_eq!(counted.len() as u64, given, "each contribution is counted");
        }
    }
}

#[test]
fn bound_arrays_keep_their_promises() {
    for order in [Order::Inbox, Order::Pair] {
        check(order, 250, 60, main);
    }
}

#[test]
fn bound_arrays_keep_their_promises_without_any_order() {
    check(Order::Chaos, 250, 60, main);
}
