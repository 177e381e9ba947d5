//! Priorities: of what waits on a PE, expedited calls go first, then those of lower priority, equal ones in order of
//! arrival; a call without a priority is in the middle. An entry may say what its calls have, and broadcasts go by it too.

use std::thread;

use chare::Priority;
use chare::prelude::*;

/// Notes what it hears.
#[derive(Default)]
struct Listener {
    heard: Vec<i64>,
}

#[chare]
impl Listener {
    fn new() -> Self {
        Listener::default()
    }

    #[entry]
    fn hear(&mut self, number: i64) -> i64 {
        self.heard.push(number);
        number
    }

    /// Urgent unless the call says something else.
    #[entry(expedited)]
    fn hear_at_once(&mut self, number: i64) -> i64 {
        self.hear(number)
    }

    #[entry(priority = 2 * URGENT)]
    fn hear_soon(&mut self, number: i64) {
        self.heard.push(number);
    }

    #[entry(priority = 5)]
    fn hear_late(&mut self, number: i64) {
        self.heard.push(number);
    }

    #[entry]
    fn take_heard(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.heard)
    }

    /// Sends to a listener of its own PE, all in one step.
    #[entry]
    fn send_all(&self, to: Element<Listener>, ranks: Vec<Option<i64>>) {
        for rank in ranks {
            send(to, rank);
        }
    }

    #[entry]
    async fn own_it(&mut self, cx: &Cx<Self>, begun: Promise<Promise<()>>) -> Result<()> {
        let (release, released) = cx.promise();
        begun.send(release)?;
        Ok(released.await?)
    }
}

/// Keeps its PE busy: what is not expedited has no turn as long as it goes on.
#[derive(Default)]
struct Treadmill {
    goes_on: bool,
}

#[chare]
impl Treadmill {
    fn new() -> Self {
        Treadmill::default()
    }

    #[entry(expedited)]
    fn begin(&mut self, cx: &Cx<Self>) {
        self.goes_on = true;
        cx.this().step().send();
    }

    #[entry(expedited)]
    fn step(&self, cx: &Cx<Self>) {
        if self.goes_on {
            cx.this().step().send();
        }
    }

    #[entry(expedited)]
    fn nothing(&self) {}

    #[entry(expedited)]
    fn end(&mut self) {
        self.goes_on = false;
    }
}

const URGENT: i64 = -2;

/// The number of an expedited call.
const EXPEDITED: i64 = i64::MIN;

fn send(to: Element<Listener>, rank: Option<i64>) {
    match rank {
        None => to.hear(0).send(),
        Some(EXPEDITED) => to.hear(EXPEDITED).expedited().send(),
        Some(rank) => to.hear(rank).priority(rank).send(),
    }
}

const RANKS: [Option<i64>; 12] = [
    Some(3),
    None,
    Some(-1),
    Some(i64::MAX),
    Some(0),
    Some(-7),
    Some(EXPEDITED),
    None,
    Some(3),
    Some(EXPEDITED),
    Some(-7),
    Some(2),
];
const ORDER: [i64; 12] = [EXPEDITED, EXPEDITED, -7, -7, -1, 0, 0, 0, 2, 3, 3, i64::MAX];

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_waits_on_a_pe_goes_by_priority(rt: Runtime) -> Result<()> {
    for pe in rt.pes() {
        let here = rt.single::<Listener>().on_pe(pe).create(()).await?;
        let there = rt.single::<Listener>().on_pe(pe).create(()).await?;
        here.send_all(there, RANKS.to_vec()).await?;
        rt.quiescence().await?;
        assert_eq!(there.take_heard().await?, ORDER);
    }
    Ok(())
}

/// Between processes what a method has sent goes in one batch, all of which is taken in before any of it runs; inside of one the first
/// may run before the others are sent.
#[chare::test(pes = [2], unsimulated = "there each message comes by itself")]
async fn what_comes_from_another_process_goes_by_priority(rt: Runtime) -> Result<()> {
    let here = rt.single::<Listener>().on_pe(0).create(()).await?;
    let there = rt.single::<Listener>().on_pe(1).create(()).await?;
    here.send_all(there, RANKS.to_vec()).await?;
    rt.quiescence().await?;
    let mut heard = there.take_heard().await?;
    if !super::is_spread(&rt) {
        heard.sort_unstable();
    }
    assert_eq!(heard, ORDER);
    Ok(())
}

/// Lets `fill` send while a PE, which is not this one, is busy.
async fn while_busy(rt: &Runtime, pe: impl chare::IntoPe, fill: impl FnOnce()) -> Result<()> {
    let all = rt.group::<Treadmill>().create(()).await?;
    let one = all.on(pe);
    one.begin().await?;
    fill();
    // Calls go straight to the process of that PE, in which the first of these comes after them. Those of a thread go by way of a PE of this
    // process, which has sent them when the first is answered: the second comes after them. What is for all goes by way of others, and so
    // does the end.
    one.nothing().await?;
    one.nothing().await?;
    all.end().send();
    rt.quiescence().await?;
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn what_comes_from_another_pe_too(rt: Runtime) -> Result<()> {
    for pe in rt.pes().filter(|&pe| pe != rt.my_pe()) {
        let listener = rt.single::<Listener>().on_pe(pe).create(()).await?;
        while_busy(&rt, pe, || RANKS.into_iter().for_each(|rank| send(listener, rank))).await?;
        assert_eq!(listener.take_heard().await?, ORDER);
    }
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "another thread takes part")]
async fn what_comes_from_a_thread_too(rt: Runtime) -> Result<()> {
    let listener = rt.single::<Listener>().on_pe(rt.num_pes() - 1).create(()).await?;
    let handle = rt.handle();
    let fill = move || {
        let sender = thread::spawn(move || {
            let _entered = handle.enter();
            RANKS.into_iter().for_each(|rank| send(listener, rank));
        });
        sender.join().expect("nothing panics there");
    };
    while_busy(&rt, rt.num_pes() - 1, fill).await?;
    assert_eq!(listener.take_heard().await?, ORDER);
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn strings_of_bits_order_a_search_tree(rt: Runtime) -> Result<()> {
    let listener = rt.single::<Listener>().on_pe(rt.num_pes() - 1).create(()).await?;
    let root = Priority::bits([true]);
    let (left, right) = (root.extended(0, 1), root.extended(1, 1));
    let nodes = [(5, right.extended(2, 2)), (4, right.clone()), (1, left.clone()), (2, left.extended(0, 2))];
    let nodes = nodes.into_iter().chain([(3, left.extended(3, 2)), (0, root), (-1, (-1).into())]);
    let fill = || nodes.for_each(|(number, priority)| listener.hear(number).priority(priority).send());
    while_busy(&rt, rt.num_pes() - 1, fill).await?;
    assert_eq!(listener.take_heard().await?, [-1, 0, 1, 2, 3, 4, 5]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn calls_with_a_priority_bring_their_value(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).await?;
    for pe in rt.pes() {
        assert_eq!(group.on(pe).hear(4).priority(-9).await?, 4);
        assert_eq!(group.on(pe).hear(5).expedited().future().await?, 5);
        let (promise, value) = rt.promise();
        group.on(pe).hear(6).priority(9).to(promise);
        assert_eq!(value.await?, 6);
    }
    let error = group.on(rt.num_pes()).hear(1).priority(1).await.expect_err("there is no such PE");
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_call_that_comes_before_its_chare_waits_for_it(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).send();
    let heard: Vec<_> = rt.pes().map(|pe| group.on(pe).hear(1).expedited().future()).collect();
    for outcome in heard {
        assert_eq!(outcome.await?, 1);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_an_exclusive_coroutine_holds_back_goes_in_order_of_arrival(rt: Runtime) -> Result<()> {
    let listener = rt.single::<Listener>().on_pe(rt.num_pes() - 1).create(()).await?;
    let (begun, release) = rt.promise();
    listener.own_it(begun).send();
    let release = release.await?;
    for number in [3, -3, 0] {
        listener.hear(number).priority(number).send();
        rt.quiescence().await?;
    }
    release.send(())?;
    rt.quiescence().await?;
    assert_eq!(listener.take_heard().await?, [3, -3, 0]);
    Ok(())
}

/// What a member of a fresh group on another PE hears of what is sent while it is busy.
async fn heard_by_a_member(
    rt: &Runtime,
    fill: impl FnOnce(chare::Group<Listener>, Element<Listener>),
) -> Result<Vec<i64>> {
    let group = rt.group::<Listener>().create(()).await?;
    let last = rt.num_pes() - 1;
    let member = group.on(last);
    while_busy(rt, last, || fill(group, member)).await?;
    Ok(member.take_heard().await?)
}

#[chare::test(pes = [2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn an_entry_says_how_urgent_its_calls_are(rt: Runtime) -> Result<()> {
    let order = heard_by_a_member(&rt, |_, member| {
        member.hear_late(5).send();
        member.hear(0).send();
        member.hear_soon(-4).send();
        member.hear_at_once(-100).send();
        member.hear(-3).priority(-3).send();
    });
    assert_eq!(order.await?, [-100, -4, -3, 0, 5]);
    let overridden = heard_by_a_member(&rt, |_, member| {
        member.hear(1).send();
        member.hear_at_once(2).priority(0).send();
        member.hear_at_once(3).priority(7).send();
        member.hear_late(4).expedited().send();
        member.hear_soon(5).priority(6).send();
    });
    assert_eq!(overridden.await?, [4, 1, 2, 5, 3]);
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn callbacks_are_as_urgent_as_their_entry(rt: Runtime) -> Result<()> {
    let order = heard_by_a_member(&rt, |group, member| {
        member.hear(1).send();
        let late: chare::Callback<i64> = member.callback(Listener::HEAR_LATE);
        let at_once: chare::Callback<i64> = member.callback(Listener::HEAR_AT_ONCE);
        let all: chare::Callback<i64> = group.callback(Listener::HEAR_SOON);
        late.deliver(2).expect("an entry takes any number");
        at_once.deliver(3).expect("an entry takes any number");
        all.deliver(4).expect("an entry takes any number");
    });
    assert_eq!(order.await?, [3, 4, 1, 2]);
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn a_broadcast_goes_by_its_priority(rt: Runtime) -> Result<()> {
    let urgent = heard_by_a_member(&rt, |group, member| {
        member.hear(1).send();
        group.hear(2).priority(-1).send();
        member.hear(3).send();
    });
    assert_eq!(urgent.await?, [2, 1, 3]);
    let expedited = heard_by_a_member(&rt, |group, member| {
        member.hear(1).priority(-5).send();
        group.hear(2).expedited().send();
    });
    assert_eq!(expedited.await?, [2, 1]);
    let late = heard_by_a_member(&rt, |group, member| {
        group.hear(1).priority(1).send();
        member.hear(2).send();
    });
    assert_eq!(late.await?, [2, 1]);
    let of_its_entry = heard_by_a_member(&rt, |group, member| {
        member.hear(1).send();
        group.hear_at_once(2).send();
    });
    assert_eq!(of_its_entry.await?, [2, 1]);
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn a_broadcast_never_overtakes_an_earlier_one_of_its_collection(rt: Runtime) -> Result<()> {
    let expedited = heard_by_a_member(&rt, |group, member| {
        member.hear(0).send();
        group.hear(1).send();
        group.hear(2).expedited().send();
    });
    assert_eq!(expedited.await?, [0, 1, 2]);
    let behind_a_late_one = heard_by_a_member(&rt, |group, member| {
        group.hear(1).priority(9).send();
        member.hear(0).send();
        group.hear(2).expedited().send();
        member.hear(0).send();
    });
    assert_eq!(behind_a_late_one.await?, [0, 0, 1, 2]);
    Ok(())
}

#[chare::test(pes = [2, 4, 8], unsimulated = "another thread takes part")]
async fn a_broadcast_from_a_thread_goes_by_its_priority_too(rt: Runtime) -> Result<()> {
    let handle = rt.handle();
    let order = heard_by_a_member(&rt, move |group, member| {
        let sender = thread::spawn(move || {
            let _entered = handle.enter();
            member.hear(1).send();
            group.hear(2).expedited().send();
        });
        sender.join().expect("nothing panics there");
    });
    // The broadcast takes a step more, by way of the PE that numbers it.
    let order = order.await?;
    assert!([[1, 2], [2, 1]].contains(&[order[0], order[1]]) && order.len() == 2, "{order:?}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn broadcasts_with_a_priority_bring_their_values(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).await?;
    let all = vec![3; rt.num_pes()];
    assert_eq!(group.hear(3).priority(4).gather().await?, all);
    assert_eq!(group.hear(3).expedited().gather().await?, all);
    assert_eq!(group.hear_at_once(3).priority(-1).gather().await?, all);
    group.hear(5).priority(-2).await?;
    group.hear(6).expedited().future().await?;
    for member in rt.pes().map(|pe| group.on(pe)) {
        assert_eq!(member.take_heard().await?, [3, 3, 3, 5, 6]);
    }
    Ok(())
}
