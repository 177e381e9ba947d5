//! Conditions of entries, `#[entry(when = ..)]`: a call is kept at its chare until its condition holds, and then runs in
//! order of arrival among all that may.

mod cost;
mod failures;
mod guards;
mod programs;

use chare::prelude::*;
use serde::{Deserialize, Serialize};

use super::is_spread;

/// Its conditions are of all kinds: on the state alone, on the state and the arguments, and tags.
#[derive(Default, Serialize, Deserialize)]
struct Gate {
    is_open: bool,
    now: Now,
    log: Vec<u32>,
}

#[derive(Default, Serialize, Deserialize)]
struct Now {
    step: u32,
}

/// What a call brings.
#[derive(Clone, Serialize, Deserialize)]
struct Visit {
    step: u32,
    who: (u32, char),
}

impl Gate {
    const LAST: u32 = 1000;
}

#[chare(index = usize)]
impl Gate {
    fn new() -> Self {
        Gate::default()
    }

    #[entry]
    fn set(&mut self, is_open: bool, step: u32) {
        self.is_open = is_open;
        self.now.step = step;
    }

    #[entry]
    fn note(&mut self, who: u32) {
        self.log.push(who);
    }

    #[entry]
    fn log(&self) -> Vec<u32> {
        self.log.clone()
    }

    #[entry(when = |gate: &Self| gate.is_open)]
    fn when_open(&mut self, who: u32) -> u32 {
        assert!(self.is_open);
        self.log.push(who);
        who
    }

    #[entry(when = |gate: &Self, first: &u32, _who: &u32| gate.now.step >= *first)]
    fn since_step(&mut self, first: u32, who: u32) -> u32 {
        assert!(self.now.step >= first);
        self.log.push(who);
        who
    }

    #[entry(when(self.now.step == step))]
    fn at_step(&mut self, step: u32, who: u32) -> u32 {
        assert_eq!(self.now.step, step);
        self.log.push(who);
        who
    }

    /// The other way round, of a field of the argument.
    #[entry(when(visit.step == self.now.step))]
    fn visit(&mut self, visit: Visit) {
        assert_eq!(self.now.step, visit.step);
        self.log.push(visit.who.0);
    }

    #[entry(when(self.now.step == mark.0))]
    fn marked(&mut self, cx: &Cx<Self>, mark: (u32, char), who: u32) {
        assert_eq!((cx.index(), self.now.step), (0, mark.0));
        self.log.push(who);
    }

    /// What the closure leaves out is inferred, `Self` is the chare, and what it says may be long.
    #[entry(when = |gate, first, second| {
        let both = first + second;
        gate.now.step == both && matches!(gate.now.step, 1..=Self::LAST)
    })]
    fn at_sum(&self, first: u32, second: u32) -> u32 {
        assert_eq!(self.now.step, first + second);
        first
    }

    #[entry(when = |gate: &Gate| gate.is_open)]
    async fn exclusively(&mut self, who: u32, closes: bool, other: Element<Gate>) -> Result<u32> {
        self.log.push(who);
        other.log().await?;
        assert!(self.is_open, "nobody can close it meanwhile");
        self.log.push(who);
        self.is_open = !closes;
        Ok(who)
    }

    #[entry(when(self.now.step == step))]
    async fn interleaving(this: This<Self>, step: u32, who: u32, other: Element<Gate>) -> Result<u32> {
        assert_eq!(this.with(|gate| gate.now.step), step);
        this.with(|gate| gate.log.push(who));
        other.log().await?;
        this.with(|gate| gate.log.push(who));
        Ok(who)
    }

    /// Opens the gate in the middle, and waits until it is told to go on.
    #[entry]
    async fn open_in_between(this: This<Self>, begun: Promise<Promise<()>>) -> Result<()> {
        this.with(|gate| gate.is_open = true);
        let (go_on, told) = this.promise();
        begun.send(go_on)?;
        told.await?;
        this.with(|gate| gate.now.step += 1);
        Ok(())
    }

    /// Keeps the chare to itself until it is told to go on.
    #[entry]
    async fn own(&mut self, cx: &Cx<Self>, begun: Promise<Promise<()>>) -> Result<()> {
        self.is_open = true;
        let (go_on, told) = cx.promise();
        begun.send(go_on)?;
        told.await?;
        self.now.step += 1;
        Ok(())
    }

    /// Lets the next in, when it is its turn.
    #[entry(when(self.now.step == turn))]
    fn take_turn(&mut self, turn: u32) {
        self.log.push(turn);
        self.now.step += 1;
    }

    #[entry]
    async fn await_step(this: This<Self>, step: u32, who: u32) {
        this.wait_until(move |gate| gate.now.step >= step).await;
        this.with(|gate| gate.log.push(who));
    }
}

/// A gate on the last PE, and another.
async fn gates(rt: &Runtime) -> Result<(Element<Gate>, Element<Gate>)> {
    let gates = rt.array::<Gate>(2 * rt.num_pes()).create(()).await?;
    Ok((gates.at(2 * rt.num_pes() - 1), gates.at(0)))
}

#[chare::test(pes = [1, 2, 4])]
async fn what_may_run_runs_at_once(rt: Runtime) -> Result<()> {
    let (gate, other) = gates(&rt).await?;
    gate.set(true, 3).await?;
    assert_eq!(gate.when_open(1).await?, 1);
    assert_eq!(gate.since_step(2, 2).await?, 2);
    assert_eq!(gate.at_step(3, 3).await?, 3);
    gate.visit(Visit { step: 3, who: (4, 'x') }).await?;
    assert_eq!(gate.at_sum(1, 2).await?, 1);
    assert_eq!(gate.interleaving(3, 5, other).await?, 5);
    assert_eq!(gate.exclusively(6, true, other).await?, 6);
    assert_eq!(gate.log().await?, [1, 2, 3, 4, 5, 5, 6, 6]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4], unsimulated = "plain messages are taken to come in order")]
async fn what_may_not_run_waits_and_others_run_meanwhile(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    let kept = [
        gate.when_open(1).future(),
        gate.since_step(5, 2).future(),
        gate.at_step(5, 3).future(),
        gate.at_sum(2, 3).future(),
    ];
    rt.quiescence().await?;
    gate.note(10).await?;
    gate.set(false, 4).await?;
    assert_eq!(gate.log().await?, [10], "nothing that is kept has run");
    gate.set(true, 5).await?;
    let mut values = Vec::new();
    for call in kept {
        values.push(call.await?);
    }
    assert_eq!(values, [1, 2, 3, 2]);
    assert_eq!(gate.log().await?, [10, 1, 2, 3]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4], unsimulated = "plain messages are taken to come in order")]
async fn a_tag_may_be_part_of_an_argument(rt: Runtime) -> Result<()> {
    let gate = rt.array::<Gate>(1).create(()).await?.at(0);
    for step in [7, 6] {
        gate.visit(Visit { step, who: (step, 'a') }).send();
        gate.marked((step, 'b'), 10 + step).send();
        rt.quiescence().await?;
    }
    gate.set(false, 6).await?;
    assert_eq!(gate.log().await?, [6, 16]);
    gate.set(false, 7).await?;
    assert_eq!(gate.log().await?, [6, 16, 7, 17]);
    Ok(())
}

/// Sends calls of all kinds one after another, each after the one before has arrived.
async fn send_in_turn(rt: &Runtime, gate: Element<Gate>) -> Result<()> {
    for who in 0..40 {
        match who % 5 {
            0 => gate.when_open(who).send(),
            1 => gate.at_step(9, who).send(),
            2 => gate.since_step(9, who).send(),
            3 => gate.visit(Visit { step: 9, who: (who, ' ') }).send(),
            _ => gate.since_step(8, who).send(),
        }
        rt.quiescence().await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn what_may_run_runs_in_order_of_arrival(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    send_in_turn(&rt, gate).await?;
    gate.set(true, 9).await?;
    rt.quiescence().await?;
    assert_eq!(gate.log().await?, Vec::from_iter(0..40));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn what_may_not_run_yet_is_passed_by(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    send_in_turn(&rt, gate).await?;
    gate.set(false, 8).await?;
    assert_eq!(gate.log().await?, Vec::from_iter((0..40).filter(|who| who % 5 == 4)));
    gate.set(true, 0).await?;
    let open = gate.log().await?.split_off(8);
    assert_eq!(open, Vec::from_iter((0..40).filter(|who| who % 5 == 0)));
    gate.set(false, 9).await?;
    let rest = gate.log().await?.split_off(16);
    assert_eq!(rest, Vec::from_iter((0..40).filter(|who| ![0, 4].contains(&(who % 5)))));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn those_with_one_tag_run_in_order_of_arrival(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    for who in 0..30 {
        gate.at_step(1 + who % 3, who).send();
        rt.quiescence().await?;
    }
    for step in [3, 1, 2] {
        gate.set(false, step).await?;
    }
    let of = |step| (0..30).filter(move |who| 1 + who % 3 == step);
    assert_eq!(gate.log().await?, Vec::from_iter(of(3).chain(of(1)).chain(of(2))));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn one_lets_the_next_run(rt: Runtime) -> Result<()> {
    const TURNS: u32 = 20_000;
    let (gate, _) = gates(&rt).await?;
    for turn in (1..TURNS).rev() {
        gate.take_turn(turn).send();
    }
    rt.quiescence().await?;
    assert_eq!(gate.log().await?, []);
    gate.take_turn(0).await?;
    rt.quiescence().await?;
    assert_eq!(gate.log().await?, Vec::from_iter(0..TURNS));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn what_arrives_while_a_chain_runs_does_not_overtake(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    for who in 0..500 {
        gate.when_open(who).send();
        rt.quiescence().await?;
    }
    gate.set(true, 0).send();
    for who in 500..1000 {
        gate.when_open(who).send();
    }
    rt.quiescence().await?;
    let log = gate.log().await?;
    assert_eq!(log.len(), 1000);
    assert_eq!(log[..500], Vec::from_iter(0..500));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn exclusive_coroutines_run_one_after_another(rt: Runtime) -> Result<()> {
    let (gate, other) = gates(&rt).await?;
    for (who, closes) in [(0, true), (1, false), (2, true), (3, true)] {
        gate.exclusively(who, closes, other).send();
        rt.quiescence().await?;
    }
    gate.when_open(4).send();
    rt.quiescence().await?;
    let mut opened = Vec::new();
    for _ in 0..4 {
        gate.set(true, 0).await?;
        rt.quiescence().await?;
        opened.push(gate.log().await?);
    }
    assert_eq!(opened[0], [0, 0], "it closes the gate behind it");
    assert_eq!(opened[1], [0, 0, 1, 1, 2, 2], "the next begins when one has ended");
    assert_eq!(opened[2], [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(opened[3], [0, 0, 1, 1, 2, 2, 3, 3, 4]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn interleaving_coroutines_begin_in_order(rt: Runtime) -> Result<()> {
    let (gate, other) = gates(&rt).await?;
    let mut ends = Vec::new();
    for who in 0..5 {
        ends.push(gate.interleaving(2, who, other).future());
        rt.quiescence().await?;
    }
    gate.set(false, 2).await?;
    for (who, end) in (0..).zip(ends) {
        assert_eq!(end.await?, who);
    }
    let log = gate.log().await?;
    assert_eq!(log[..5], [0, 1, 2, 3, 4], "each lets the next begin when it waits");
    assert_eq!(log.len(), 10);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_step_of_an_interleaving_coroutine_lets_others_run(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    let (open, step) = (gate.when_open(1).future(), gate.at_step(1, 2).future());
    rt.quiescence().await?;
    let (begun, go_on) = rt.promise();
    let opening = gate.open_in_between(begun).future();
    let go_on = go_on.await?;
    assert_eq!(open.await?, 1);
    assert_eq!(gate.log().await?, [1]);
    go_on.send(())?;
    assert_eq!(step.await?, 2);
    opening.await?;
    Ok(())
}

#[chare::test(pes = [1, 2, 4], unsimulated = "plain messages are taken to come in order")]
async fn the_end_of_an_exclusive_coroutine_lets_others_run(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    let before = gate.since_step(1, 1).future();
    rt.quiescence().await?;
    let (begun, go_on) = rt.promise();
    let owning = gate.own(begun).future();
    let go_on = go_on.await?;
    // Held while it is owned, and looked at when that ends.
    let during = [gate.when_open(2).future(), gate.at_step(2, 9).future(), gate.at_step(1, 3).future()];
    rt.quiescence().await?;
    go_on.send(())?;
    owning.await?;
    let [open, late, step] = during;
    assert_eq!((before.await?, open.await?, step.await?), (1, 2, 3));
    assert_eq!(gate.log().await?, [1, 2, 3]);
    gate.set(false, 2).await?;
    assert_eq!(late.await?, 9);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn waits_and_kept_calls_mix(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    let waits = [gate.await_step(2, 10).future(), gate.await_step(3, 11).future()];
    for turn in [2, 1] {
        gate.take_turn(turn).send();
    }
    rt.quiescence().await?;
    gate.take_turn(0).await?;
    for wait in waits {
        wait.await?;
    }
    let mut log = gate.log().await?;
    log.sort_unstable();
    assert_eq!(log, [0, 1, 2, 10, 11]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn callbacks_are_kept_too(rt: Runtime) -> Result<()> {
    let (gate, other) = gates(&rt).await?;
    // The value of one kept call goes to another entry that has a condition.
    gate.at_step(1, 5).to(other.callback(Gate::WHEN_OPEN));
    let (promise, value) = rt.promise();
    gate.at_step(1, 6).to(promise);
    rt.quiescence().await?;
    gate.set(false, 1).await?;
    assert_eq!(value.await?, 6);
    rt.quiescence().await?;
    assert_eq!(other.log().await?, []);
    other.set(true, 0).await?;
    assert_eq!(other.log().await?, [5]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn broadcasts_end_when_the_kept_ones_have_run(rt: Runtime) -> Result<()> {
    let gates = rt.array::<Gate>(37).create(()).await?;
    for index in (0..37).step_by(2) {
        gates.at(index).set(true, 0).await?;
    }
    let all = gates.when_open(4).gather();
    let mut plain = Box::pin(gates.at_step(1, 5).future());
    rt.quiescence().await?;
    assert!(futures::poll!(&mut plain).is_pending());
    for index in 0..37 {
        let expected = if index % 2 == 0 { vec![4] } else { vec![] };
        assert_eq!(gates.at(index).log().await?, expected);
    }
    gates.set(true, 0).await?;
    assert_eq!(all.await?, vec![4; 37]);
    for index in 0..36 {
        gates.at(index).set(true, 1).await?;
    }
    rt.quiescence().await?;
    assert!(futures::poll!(&mut plain).is_pending(), "one element has not run it");
    gates.at(36).set(true, 1).await?;
    plain.await?;
    assert_eq!(gates.log().gather().await?, vec![vec![4, 5]; 37]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_broadcast_is_held_by_an_owner_and_then_kept(rt: Runtime) -> Result<()> {
    let gates = rt.array::<Gate>(8).create(()).await?;
    let (begun, go_on) = rt.promise();
    let owning = gates.at(5).own(begun).future();
    let go_on = go_on.await?;
    let all = gates.at_step(2, 7).gather();
    rt.quiescence().await?;
    go_on.send(())?;
    owning.await?;
    assert_eq!(gates.at(5).log().await?, []);
    gates.set(false, 2).await?;
    assert_eq!(all.await?, vec![7; 8]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn calls_with_priorities_are_kept_in_order_of_arrival(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    for (who, priority) in [(0, 5), (1, -5), (2, 0)] {
        gate.at_step(1, who).priority(priority).send();
        rt.quiescence().await?;
    }
    gate.at_step(1, 3).expedited().send();
    rt.quiescence().await?;
    gate.set(false, 1).expedited().await?;
    assert_eq!(gate.log().await?, [0, 1, 2, 3]);
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn what_is_kept_moves_with_its_chare(rt: Runtime) -> Result<()> {
    let (gate, other) = gates(&rt).await?;
    let mut calls = Vec::new();
    for who in 0..200 {
        calls.push(match who % 4 {
            0 => gate.when_open(who).future(),
            1 => gate.at_step(9, who).future(),
            2 => gate.since_step(9, who).future(),
            _ => gate.interleaving(9, who, other).future(),
        });
        if who % 10 == 0 {
            gate.migrate(who as usize / 10 % rt.num_pes()).await?;
        }
        rt.quiescence().await?;
    }
    gate.set(true, 9).send();
    gate.migrate(0_usize).send();
    for (who, call) in (0..).zip(calls) {
        assert_eq!(call.await?, who);
    }
    let mut begun: Vec<_> = {
        let mut seen = std::collections::HashSet::new();
        gate.log().await?.into_iter().filter(|who| seen.insert(*who)).collect()
    };
    if is_spread(&rt) {
        // To another process each follows the chare in a message of its own, and calls have no order on their way.
        begun.sort_unstable();
    }
    assert_eq!(begun, Vec::from_iter(0..200));
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_broadcast_finds_the_conditions_of_chares_that_move(rt: Runtime) -> Result<()> {
    let gates = rt.array::<Gate>(16).create(()).await?;
    let all = gates.at_step(3, 1).gather();
    for index in 0..16 {
        gates.at(index).migrate((index + 1) % rt.num_pes()).send();
    }
    let more = gates.when_open(2).gather();
    rt.quiescence().await?;
    gates.set(true, 3).await?;
    assert_eq!((all.await?, more.await?), (vec![1; 16], vec![2; 16]));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_look_without_a_message_lets_kept_calls_run_after_it(rt: Runtime) -> Result<()> {
    // On the PE of `main`.
    let gate = rt.array::<Gate>(rt.num_pes()).create(()).await?.at(0);
    let calls = [gate.when_open(1).future(), gate.at_step(4, 2).future()];
    rt.quiescence().await?;
    let set = gate.local(|gate| {
        gate.is_open = true;
        gate.now.step = 4;
    });
    set?;
    assert_eq!(gate.local(|gate| gate.log.len())?, 0, "what is running ends first");
    for (who, call) in (1..).zip(calls) {
        assert_eq!(call.await?, who);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_chare_that_is_destroyed_refuses_what_it_keeps(rt: Runtime) -> Result<()> {
    let (gate, _) = gates(&rt).await?;
    let calls = [gate.when_open(1).future(), gate.since_step(4, 2).future(), gate.at_step(4, 3).future()];
    rt.quiescence().await?;
    gate.destroy().await?;
    for call in calls {
        assert!(matches!(call.await, Err(CallError::NoElement(_))));
    }
    Ok(())
}

/// Sends itself a call in its constructor, which is a coroutine.
struct Slow {
    is_ready: bool,
}

#[chare]
impl Slow {
    async fn new(cx: &Cx<Self>, other: Element<Gate>) -> Result<Self> {
        cx.this().when_ready(1).send();
        other.log().await?;
        Ok(Slow { is_ready: false })
    }

    #[entry]
    fn ready(&mut self) {
        self.is_ready = true;
    }

    #[entry(when = |slow: &Self| slow.is_ready)]
    fn when_ready(&self, value: u32) -> u32 {
        value
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn what_comes_before_the_constructor_ends_is_looked_at_after(rt: Runtime) -> Result<()> {
    let (_, other) = gates(&rt).await?;
    let slow = rt.single::<Slow>().on_pe(rt.num_pes() - 1).create(other).send();
    let value = slow.when_ready(2).future();
    slow.ready().await?;
    assert_eq!(value.await?, 2);
    Ok(())
}

/// A generic chare, whose tags can be shown or not.
struct Shelf<K> {
    wanted: Option<K>,
}

#[chare(types = [Shelf<String>])]
impl<K: std::hash::Hash + Eq + Clone + chare::Wire> Shelf<K> {
    fn new() -> Self {
        Shelf { wanted: None }
    }

    #[entry]
    fn want(&mut self, key: K) {
        self.wanted = Some(key);
    }

    #[entry(when(key == self.wanted))]
    fn put(&mut self, key: Option<K>) -> bool {
        key == self.wanted.take()
    }

    #[entry(when = |shelf: &Self, key: &K| shelf.wanted.as_ref() == Some(key))]
    fn take(&mut self, key: K) -> K {
        self.wanted = None;
        key
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn generic_chares_have_conditions(rt: Runtime) -> Result<()> {
    let shelf = rt.single::<Shelf<String>>().on_pe(rt.num_pes() - 1).create(()).await?;
    let (put, take) = (shelf.put(Some("a".to_owned())).future(), shelf.take("b".to_owned()).future());
    rt.quiescence().await?;
    shelf.want("b".to_owned()).await?;
    assert_eq!(take.await?, "b");
    shelf.want("a".to_owned()).await?;
    assert!(put.await?);
    Ok(())
}
