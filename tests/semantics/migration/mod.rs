//! Migration: a chare moves between PEs with all that belongs to it, at any time, and nobody who deals with it can tell.
//! In `storms`, everything is under way while everything moves.

mod across;
mod letters;
mod order;
mod restarted;
mod storms;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use chare::device::{DeviceVec, InOut, Kernel, Launch};
use chare::prelude::*;
use chare::{BoxError, CallError, Options, PeId};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};

use super::{PES, run};

/// The PEs of a PE's process: where a chare can go with its coroutines.
fn pes_around(pe: PeId, rt: &Runtime) -> Vec<usize> {
    rt.pes().filter(|other| rt.process_of(*other) == rt.process_of(pe)).map(PeId::index).collect()
}

/// The PE after this one, in its process.
fn next(pe: PeId, rt: &Runtime) -> usize {
    let around = pes_around(pe, rt);
    around[(pe.index() - around[0] + 1) % around.len()]
}

#[derive(Serialize, Deserialize)]

struct Nomad {
    constructed: u32,
    moved: Vec<usize>,
    notes: Vec<u32>,
}

#[chare(index = usize)]
impl Nomad {
    fn new() -> Self {
        Nomad { constructed: 1, moved: Vec::new(), notes: Vec::new() }
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.moved.push(cx.my_pe().index());
    }

    #[entry]
    fn note(&mut self, note: u32) {
        self.notes.push(note);
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> usize {
        cx.my_pe().index()
    }

    #[entry]
    fn history(&self) -> (u32, Vec<usize>, Vec<u32>) {
        (self.constructed, self.moved.clone(), self.notes.clone())
    }

    #[entry]
    fn who(&self, cx: &Cx<Self>) -> (usize, Option<usize>) {
        (cx.index(), cx.element(cx.index() + 1).map(|next| next.index()))
    }

    #[entry]
    fn pin(&self, cx: &Cx<Self>, is_migratable: bool) {
        cx.set_migratable(is_migratable);
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked");
    }

    /// Goes round all PEs of its process by itself.
    #[entry]
    async fn tour(&mut self, cx: &Cx<Self>) -> Result<Vec<usize>> {
        let mut seen = Vec::new();
        for _ in pes_around(cx.my_pe(), cx) {
            seen.push(cx.my_pe().index());
            cx.this().migrate(next(cx.my_pe(), cx)).await?;
        }
        Ok(seen)
    }

    #[entry]
    async fn tour_with_others(this: This<Self>) -> Result<Vec<usize>> {
        let mut seen = Vec::new();
        for _ in pes_around(this.my_pe(), &this) {
            seen.push(this.my_pe().index());
            this.this().migrate(next(this.my_pe(), &this)).await?;
        }
        Ok(seen)
    }

    #[entry]
    async fn own_then_panic(&mut self, cx: &Cx<Self>, begin: Promise<Promise<()>>) -> Result<()> {
        let (to, end) = cx.promise();
        begin.send(to)?;
        end.await?;
        panic!("as asked");
    }

    /// Waits for a note, and says where it woke.
    #[entry]
    async fn await_note(this: This<Self>, note: u32) -> usize {
        this.wait_until(|s| s.notes.contains(&note)).await;
        this.my_pe().index()
    }

    #[entry]
    async fn await_value(&mut self, cx: &Cx<Self>, value: Promise<Promise<u32>>) -> Result<(usize, u32)> {
        let (to, from) = cx.promise();
        value.send(to)?;
        let value = from.await?;
        Ok((cx.my_pe().index(), value))
    }
}

/// An element that is placed on the last PE, and the first PE of the process of that.
async fn one_with_coroutines(rt: &Runtime) -> Result<(Element<Nomad>, usize)> {
    let nomads = rt.array::<Nomad>(8).create(()).await?;
    let last = PeId::new(rt.num_pes() - 1);
    Ok((nomads.at(7), pes_around(last, rt)[0]))
}

/// An element that is placed on PE 0, and the last PE.
async fn one(rt: &Runtime) -> Result<(Element<Nomad>, usize)> {
    let nomads = rt.array::<Nomad>(8).create(()).await?;
    Ok((nomads.at(0), rt.num_pes() - 1))
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_chare_moves_with_its_state_and_its_hook_runs_first(rt: Runtime) -> Result<()> {
    let (nomad, last) = one(&rt).await?;
    assert_eq!(nomad.place().await?, 0);
    nomad.note(1).await?;
    nomad.migrate(last).await?;
    assert_eq!(nomad.place().await?, last);
    nomad.note(2).await?;
    let moved = if last == 0 { vec![] } else { vec![last] };
    assert_eq!(nomad.history().await?, (1, moved, vec![1, 2]));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn elements_keep_their_indexes_wherever_they_go(rt: Runtime) -> Result<()> {
    let nomads = rt.array::<Nomad>(20).create(()).await?;
    for round in 1..4 {
        let moves: FuturesUnordered<_> =
            (0..20).map(|i| nomads.at(i).migrate((i * round) % rt.num_pes()).future()).collect();
        moves.map(|moved| moved.expect("nothing keeps them")).collect::<Vec<_>>().await;
        for i in 0..20 {
            assert_eq!(nomads.at(i).place().await?, (i * round) % rt.num_pes());
            assert_eq!(nomads.at(i).who().await?, (i, (i < 19).then_some(i + 1)));
        }
        assert_eq!(
            nomads.place().gather().await?,
            (0..20).map(|i| (i * round) % rt.num_pes()).collect::<Vec<_>>()
        );
    }
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn what_is_sent_before_and_after_a_move_arrives(rt: Runtime) -> Result<()> {
    let (nomad, last) = one(&rt).await?;
    for note in 0..100 {
        nomad.note(note).send();
        if note % 10 == 0 {
            nomad.migrate(if note % 20 == 0 { last } else { 0 }).send();
        }
    }
    rt.quiescence().await?;
    let (constructed, moved, mut notes) = nomad.history().await?;
    notes.sort_unstable();
    assert_eq!((constructed, moved.len(), notes), (1, 10, (0..100).collect()));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_coroutine_moves_its_own_chare(rt: Runtime) -> Result<()> {
    let (nomad, _) = one_with_coroutines(&rt).await?;
    // It begins on the last of them.
    let mut all = pes_around(PeId::new(rt.num_pes() - 1), &rt);
    all.rotate_right(1);
    assert_eq!(nomad.tour().await?, all);
    assert_eq!(nomad.tour_with_others().await?, all);
    assert_eq!(nomad.history().await?.1.len(), if all.len() == 1 { 0 } else { 2 * all.len() });
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_coroutine_that_waits_goes_on_where_its_chare_is(rt: Runtime) -> Result<()> {
    let (nomad, to) = one_with_coroutines(&rt).await?;
    let waiting: Vec<_> = (10..15).map(|note| nomad.await_note(note).future()).collect();
    rt.quiescence().await?;
    nomad.migrate(to).await?;
    rt.quiescence().await?;
    (10..15).for_each(|note| nomad.note(note).send());
    for woken in waiting {
        assert_eq!(woken.await?, to);
    }
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_promise_made_before_a_move_is_kept_after_it(rt: Runtime) -> Result<()> {
    let (nomad, place) = one_with_coroutines(&rt).await?;
    let (to, promise) = rt.promise();
    let value = nomad.await_value(to).future();
    let promise = promise.await?;
    rt.quiescence().await?;
    // The exclusive coroutine owns the chare: the move does not wait for it, but the hook does.
    nomad.migrate(place).send();
    rt.quiescence().await?;
    promise.send(7)?;
    assert_eq!(value.await?, (place, 7));
    let moved = if place == rt.num_pes() - 1 { vec![] } else { vec![place] };
    assert_eq!(nomad.history().await?.1, moved);
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_panic_that_is_awaited_ends_no_run_because_the_chare_has_moved(rt: Runtime) -> Result<()> {
    let (nomad, to_pe) = one_with_coroutines(&rt).await?;
    let (to, begun) = rt.promise();
    let owner = nomad.own_then_panic(to).future();
    let end = begun.await?;
    nomad.migrate(to_pe).await?;
    end.send(())?;
    assert!(matches!(owner.await, Err(CallError::Panicked(_))));
    rt.quiescence().await?;
    Ok(())
}

#[chare::test(pes = [1, 4])]
async fn who_may_not_move_says_why(rt: Runtime) -> Result<()> {
    let (nomad, last) = one(&rt).await?;
    let error = nomad.migrate(99).await.expect_err("there is none").to_string();
    assert_eq!(error, format!("Nomad[0] cannot move: there is no PE 99: this run has {} PEs", last + 1));
    nomad.pin(false).await?;
    let error = nomad.migrate(last).await.expect_err("pinned").to_string();
    assert_eq!(error, "Nomad[0] cannot move: it has called `set_migratable(false)`");
    nomad.pin(true).await?;
    nomad.migrate(last).await?;
    assert_eq!(nomad.place().await?, last);
    assert!(matches!(nomad.panic().await, Err(CallError::Panicked(_))));
    assert!(matches!(nomad.migrate(0).await, Err(CallError::Poisoned(_))));
    let group = rt.group::<Member>().create(()).await?;
    let error = group.on(0).migrate(last).await.expect_err("it stays").to_string();
    assert_eq!(error, "Member[0] cannot move: members of a group stay on their PEs");
    let nomads = rt.array::<Nomad>(3).create(()).await?;
    assert!(matches!(nomads.at(3).migrate(0).await, Err(CallError::NoElement(_))));
    Ok(())
}

#[test]
fn a_move_that_nobody_awaits_ends_the_run_if_it_fails() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let (nomad, _) = one(&rt).await?;
            nomad.migrate(99).send();
            rt.quiescence().await?;
            Ok::<(), BoxError>(())
        });
        assert!(report.to_string().contains("cannot move: there is no PE 99"), "{report}");
    }
}

#[derive(Serialize, Deserialize)]

struct Member {
    arrived: usize,
}

#[chare]
impl Member {
    fn new() -> Self {
        Member { arrived: 0 }
    }

    fn migrated(&mut self) {
        self.arrived += 1;
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> (usize, usize) {
        (cx.my_pe().index(), self.arrived)
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn singletons_move_too(rt: Runtime) -> Result<()> {
    for home in rt.pes() {
        let single = rt.single::<Member>().on_pe(home).create(()).await?;
        for to in rt.pes().chain(rt.pes()) {
            single.migrate(to).await?;
            assert_eq!(single.place().await?.0, to.index());
        }
        let elsewhere = if rt.num_pes() == 1 { 0 } else { 2 * rt.num_pes() - usize::from(home.index() == 0) };
        assert_eq!(single.place().await?.1, elsewhere);
    }
    Ok(())
}

const ADD: Kernel<(InOut<f64>, f64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [f64], f64)| {
        buffer.iter_mut().for_each(|x| *x += value)
    });

struct Field {
    values: DeviceVec<f64>,
}

#[chare(index = usize)]
impl Field {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Field { values: cx.device().upload(vec![0.0; 1000])? })
    }

    /// Launches, and moves while the kernel is under way.
    #[entry]
    async fn step(&mut self, cx: &Cx<Self>, steps: usize) -> Result<Vec<f64>> {
        for _ in 0..steps {
            let done = cx.device().launch(&ADD, 1000, (&mut self.values, 1.0))?;
            cx.this().migrate(next(cx.my_pe(), cx)).send();
            done.await?;
        }
        Ok(cx.device().download(&self.values)?.await?)
    }
}

#[test]
fn device_buffers_go_along_while_kernels_run() {
    for pes in PES {
        for device in ["host:inline", "host:workers=2", "host:2@1,3:workers=2"] {
            let options = Options::default().with_pes(pes).with_device(device.parse().expect("a device"));
            let report = crate::run_with(options, async |rt: Runtime| {
                let fields = rt.array::<Field>(6).create(()).await?;
                for values in fields.step(20).gather().await? {
                    assert_eq!(values, [20.0; 1000]);
                }
                Ok::<(), BoxError>(())
            });
            assert!(report.is_success(), "{device} at {pes} PEs: {report}");
        }
    }
}

struct Talker {
    is_counted: bool,
}

/// Talkers that are counted and live: those of one test, whose processes are all inside of this one.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

impl Drop for Talker {
    fn drop(&mut self) {
        if self.is_counted {
            ALIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[chare(index = usize)]
impl Talker {
    fn new(is_counted: bool) -> Self {
        if is_counted {
            ALIVE.fetch_add(1, Ordering::Relaxed);
        }
        Talker { is_counted }
    }

    /// Moves on and on.
    #[entry]
    async fn wander(this: This<Self>) -> Result<()> {
        loop {
            this.this().migrate(next(this.my_pe(), &this)).await?;
        }
    }

    /// Sends numbers to a peer and moves between them.
    #[entry]
    async fn talk(&mut self, cx: &Cx<Self>, to: usize, count: u64, moves_every: u64) -> Result<()> {
        let channel = cx.channel::<u64, _>(&cx.array().at(to), 1);
        for number in 0..count {
            channel.reserve().await.send(number);
            if number % moves_every == 0 {
                cx.this().migrate(next(cx.my_pe(), cx)).await?;
            }
        }
        Ok(())
    }

    #[entry]
    async fn listen(this: This<Self>, from: usize, count: u64, moves_every: u64) -> Result<u64> {
        let channel = this.channel::<u64, _>(&this.array().at(from), 1);
        for number in 0..count {
            assert_eq!(channel.recv().await?, number);
            if number % moves_every == 1 {
                this.this().migrate(next(this.my_pe(), &this)).send();
            }
        }
        Ok(count)
    }

    /// Waits for many things at once, and moves meanwhile.
    #[entry]
    async fn wait_for_all(this: This<Self>, from: usize) -> Result<u64> {
        let channel = this.channel::<u64, _>(&this.array().at(from), 2);
        let (to, value) = this.promise::<u64>();
        let mut all = FuturesUnordered::new();
        let mine = &this;
        all.push(Box::pin(async { channel.recv().await.map_err(BoxError::from) }) as Waits<'_>);
        all.push(Box::pin(async { value.await.map_err(BoxError::from) }));
        all.push(Box::pin(async {
            mine.sleep(Duration::from_millis(1)).await;
            Ok(100)
        }));
        all.push(Box::pin(async { Ok(mine.array().at(from).add(1000).await?) }));
        this.this().migrate(next(this.my_pe(), &this)).await?;
        this.array().at(from).tell(this.index(), 1).send();
        to.send(10)?;
        let mut sum = 0;
        while let Some(value) = all.next().await {
            sum += value?;
            this.this().migrate(next(this.my_pe(), &this)).await?;
        }
        Ok(sum)
    }

    #[entry]
    fn tell(&self, cx: &Cx<Self>, to: usize, value: u64) -> Result<()> {
        cx.channel::<u64, _>(&cx.array().at(to), 2).send(value)?;
        Ok(())
    }

    #[entry]
    async fn add(this: This<Self>, value: u64) -> u64 {
        this.sleep(Duration::from_millis(2)).await;
        value
    }

    #[entry]
    async fn wait_for_ever(this: This<Self>, from: usize) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(from), 9);
        let mut all = FuturesUnordered::new();
        all.push(channel.recv());
        while all.next().await.is_some() {}
        Ok(())
    }
}

type Waits<'a> = std::pin::Pin<Box<dyn Future<Output = Result<u64>> + Send + 'a>>;

/// Two that talk to each other.
fn talkers(rt: &Runtime) -> chare::Creation<Array<Talker>> {
    rt.array::<Talker>(2).create(false)
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn channels_keep_their_order_while_both_ends_move(rt: Runtime) -> Result<()> {
    let talkers = talkers(&rt).await?;
    for (sender_moves, receiver_moves) in [(7, 1_000_000), (1_000_000, 7), (5, 7), (1, 1)] {
        let listening = talkers.at(1).listen(0, 3000, receiver_moves).future();
        talkers.at(0).talk(1, 3000, sender_moves).await?;
        assert_eq!(listening.await?, 3000);
        // The next pair of numbers begins at 0 again, in the same channel: none is left over.
        rt.quiescence().await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn combinators_go_along(rt: Runtime) -> Result<()> {
    let talkers = talkers(&rt).await?;
    for _ in 0..20 {
        assert_eq!(talkers.at(0).wait_for_all(1).await?, 1111);
    }
    Ok(())
}

#[test]
fn a_coroutine_that_has_moved_can_still_be_known_to_hang() {
    for pes in [2, 4] {
        let (tell, told) = mpsc::channel();
        let report = run(pes, async move |rt: Runtime| {
            let talkers = rt.array::<Talker>(8).create(false).await?;
            let place = pes_around(PeId::new(rt.num_pes() - 1), &rt)[0];
            tell.send(place)?;
            talkers.at(7).wait_for_ever(0).send();
            rt.quiescence().await?;
            talkers.at(7).migrate(place).await?;
            rt.quiescence().await?;
            talkers.at(7).wait_for_ever(0).await?;
            Ok::<(), BoxError>(())
        });
        let text = report.to_string();
        assert_eq!(report.code(), chare::HANG_EXIT_CODE, "{text}");
        let place = told.recv().expect("main has told");
        let there = text.split(&format!("on PE {place}:\n")).nth(1).expect("it is told of").lines();
        let waits = there.take_while(|line| line.starts_with("  ")).filter(|line| {
            line.contains("Talker[7].wait_for_ever") && line.contains("a value from Talker[0] in channel 9")
        });
        assert_eq!(waits.count(), 2, "{text}");
    }
}

#[test]
fn a_run_may_end_while_everything_is_on_its_way() {
    for pes in PES {
        for _ in 0..20 {
            let report = run(pes, async move |rt: Runtime| {
                let talkers = rt.array::<Talker>(30).create(true).await?;
                talkers.wander().send();
                for i in 0..30 {
                    talkers.at(i).wait_for_ever((i + 1) % 30).send();
                }
                rt.sleep(Duration::from_micros(500)).await;
                Ok::<(), BoxError>(())
            });
            assert!(report.is_success(), "{report}");
            assert_eq!(ALIVE.load(Ordering::Relaxed), 0, "each is dropped once");
        }
    }
}
