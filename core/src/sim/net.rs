//! The virtual time of a simulated run: what happens when, and how long messages are under way.
//!
//! The PEs of a run share one [`World`] with whoever drives them. A PE adds messages to it; the driver takes what happens next.
//! `README.md` here says which orders of messages are legal; [`World::send`] is where they are kept.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::report::{Carried, Trace};
use super::rng::Rng;
use super::spec::{Sim, nanoseconds};
use crate::ids::PeId;
use crate::message::{Head, Msg, Name};
use crate::priority::Ranked;
use crate::scheduler::pe::{Clock, Mail};
use crate::scheduler::thread::ThreadMail;
use crate::scheduler::waker;

/// What random delays of a run are of the order of: one of these, so that runs differ in more than details.
const SCALES_NS: [u64; 4] = [200, 2_000, 20_000, 200_000];
/// One delay in so many is longer by [`LONG`].
const LONG_ONCE_IN: usize = 32;
const LONG: u64 = 16;
/// A PE stalls after one step in so many: one of these, 0 for never.
const STALLS: [usize; 3] = [0, 200, 20];

/// Something that will happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Event {
    /// A PE does one thing.
    Step(usize),
    /// The message in this place arrives.
    Arrival(usize),
    /// Devices are looked at.
    Device,
    /// A timer of a PE may be due.
    Timer(usize),
}

/// When, and before what else of that moment; the last number tells all events apart.
type Moment = (u64, u64, u64);

/// A message on its way.
struct Flying {
    msg: Msg,
    from: usize,
    to: usize,
}

/// What the PEs and their driver share.
pub(super) struct World {
    sim: Sim,
    pe_count: usize,
    now_ns: Cell<u64>,
    /// What the running step has been charged, by its own words.
    charged_ns: Cell<u64>,
    inner: RefCell<Inner>,
}

struct Inner {
    rng: Rng,
    scale_ns: u64,
    stall_once_in: usize,
    events: BinaryHeap<Reverse<(Moment, Event)>>,
    numbered: u64,
    /// Events that are no timers.
    pending_events: usize,
    flying: Vec<Option<Flying>>,
    free: Vec<usize>,
    /// The arrival of the last message that keeps its order, by way.
    ordered_ns: FxHashMap<(usize, usize), u64>,
    /// When the link from one process to another is free, if they are two.
    link_free_ns: FxHashMap<(usize, usize), u64>,
    carried: [Carried; 3],
    trace: Trace,
}

/// What lies between two PEs.
#[derive(Clone, Copy)]
enum Way {
    WithinProcess,
    BetweenProcesses,
    BetweenHosts,
}

/// The message that waits in one with a priority, or the message itself.
fn inner_of(msg: &Msg) -> &Msg {
    msg.payload::<Ranked>().map_or(msg, |ranked| &ranked.msg)
}

struct Named<'a>(&'a Msg);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let msg = inner_of(self.0);
        match msg.name() {
            Name::Entry(entry) => write!(f, "{}.{}", entry.chare, entry.name)?,
            Name::Runtime(name) => f.write_str(name)?,
        }
        if msg.is_for_pe() { Ok(()) } else { write!(f, " for {:?}", msg.head().to) }
    }
}

impl World {
    pub(super) fn new(sim: Sim, pe_count: usize) -> Rc<World> {
        let mut rng = Rng::new(sim.seed());
        let (scale, stalls) = (rng.below(SCALES_NS.len()), rng.below(STALLS.len()));
        let inner = Inner {
            rng,
            scale_ns: SCALES_NS[scale],
            stall_once_in: STALLS[stalls],
            events: BinaryHeap::new(),
            numbered: 0,
            pending_events: 0,
            flying: Vec::new(),
            free: Vec::new(),
            ordered_ns: FxHashMap::default(),
            link_free_ns: FxHashMap::default(),
            carried: Default::default(),
            trace: Trace::default(),
        };
        Rc::new(World { sim, pe_count, now_ns: Cell::new(0), charged_ns: Cell::new(0), inner: inner.into() })
    }

    pub(super) fn sim(&self) -> &Sim {
        &self.sim
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// The running step takes so long.
    pub(super) fn charge(&self, ns: u64) {
        self.charged_ns.set(self.charged_ns.get().saturating_add(ns));
    }

    /// The run has ended at this time.
    pub(super) fn finish(&self, at_ns: u64) {
        self.now_ns.set(at_ns);
    }

    /// What the step that has just ended was charged.
    pub(super) fn take_charge(&self) -> u64 {
        self.charged_ns.take()
    }

    /// Tells what happens, if that is asked for.
    pub(super) fn tell(&self, text: impl FnOnce() -> String) {
        if self.sim.is_traced() {
            crate::launch::say(&format!("{:>12} ns  {}", self.now_ns.get(), text()));
        }
    }

    /// A number below `count`.
    pub(super) fn below(&self, count: usize) -> usize {
        self.inner.borrow_mut().rng.below(count)
    }

    pub(super) fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Lets something happen so much later than at `base_ns`, and later still at random.
    pub(super) fn schedule(&self, base_ns: u64, event: Event) {
        let mut inner = self.inner.borrow_mut();
        let at_ns = match event {
            Event::Timer(_) => base_ns,
            Event::Step(_) => base_ns.saturating_add(inner.stall_ns(&self.sim)),
            _ => base_ns.saturating_add(inner.delay_ns(&self.sim)),
        };
        inner.add(&self.sim, at_ns, event);
    }

    /// Whether something else than a timer is to come.
    pub(super) fn is_busy(&self) -> bool {
        self.inner.borrow().pending_events > 0
    }

    /// Takes what happens next, and when. The clock stays.
    pub(super) fn next(&self) -> Option<(u64, Event)> {
        let mut inner = self.inner.borrow_mut();
        let Reverse(((at_ns, ..), event)) = inner.events.pop()?;
        inner.pending_events -= usize::from(!matches!(event, Event::Timer(_)));
        Some((at_ns, event))
    }

    /// It is now so late, and this happens.
    pub(super) fn go_on(&self, at_ns: u64, event: Event) {
        self.now_ns.set(at_ns);
        let (kind, place) = match event {
            Event::Step(pe) => (0, pe),
            Event::Arrival(place) => (1, place),
            Event::Device => (2, 0),
            Event::Timer(pe) => (3, pe),
        };
        let trace = &mut self.inner.borrow_mut().trace;
        [at_ns, kind, place as u64].into_iter().for_each(|word| trace.note(word));
    }

    /// A message of a PE sets out.
    fn send(&self, from: usize, to: usize, msg: Msg) {
        let sent_ns = self.now_ns.get().saturating_add(self.charged_ns.get());
        let innermost = inner_of(&msg);
        let bytes = size_of::<Head>() as u64 + innermost.argument_bytes();
        let (is_plain, is_signal) = (innermost.call().is_some(), waker::is_signal(innermost));
        let processes = [from, to].map(|pe| self.process_of(pe));
        self.tell(|| format!("    PE {from} sends {} to PE {to}", Named(&msg)));
        let mut inner = self.inner.borrow_mut();
        inner.note(&msg);
        let travelled_ns = self.travel(&mut inner, processes, sent_ns, bytes);
        let [here, there] = processes;
        // Inside of a process an inbox keeps the order of all that comes; between processes each pair of PEs has its own.
        // Wakers are words of one process.
        let lane = if here == there || is_signal { (to, to) } else { (from, to) };
        let earliest_ns = inner.ordered_ns.get(&lane).map_or(0, |last_ns| last_ns.saturating_add(1));
        let delay_ns = inner.delay_ns(&self.sim);
        let arrival_ns = travelled_ns.saturating_add(delay_ns).max(earliest_ns);
        if !is_plain {
            inner.ordered_ns.insert(lane, arrival_ns);
        }
        let place = inner.keep(Flying { msg, from, to });
        inner.add(&self.sim, arrival_ns, Event::Arrival(place));
    }

    /// When a message that sets out at `sent_ns` is there, if nothing holds it up but those before it.
    fn travel(&self, inner: &mut Inner, [here, there]: [usize; 2], sent_ns: u64, bytes: u64) -> u64 {
        let network = self.sim.network();
        let hosts = [here, there].map(|process| process * self.sim.hosts() / self.sim.processes());
        let (way, link) = if here == there {
            (Way::WithinProcess, network.within_process)
        } else if hosts[0] == hosts[1] {
            (Way::BetweenProcesses, network.between_processes)
        } else {
            (Way::BetweenHosts, network.between(hosts[0], hosts[1]))
        };
        let carried = &mut inner.carried[way as usize];
        carried.messages += 1;
        carried.bytes += bytes;
        let occupied_ns = link.occupied_ns(bytes);
        let gone_ns = match way {
            Way::WithinProcess => sent_ns.saturating_add(occupied_ns),
            _ => {
                let free_ns = inner.link_free_ns.entry((here, there)).or_default();
                *free_ns = sent_ns.max(*free_ns).saturating_add(occupied_ns);
                *free_ns
            }
        };
        gone_ns.saturating_add(nanoseconds(link.latency))
    }

    fn process_of(&self, pe: usize) -> usize {
        let processes = self.sim.processes().min(self.pe_count);
        pe * processes / self.pe_count
    }

    /// Takes a message that arrives, and where it goes.
    pub(super) fn land(&self, place: usize) -> (usize, Msg) {
        let mut inner = self.inner.borrow_mut();
        let Flying { msg, from, to } = inner.flying[place].take().expect("a message arrives once");
        inner.free.push(place);
        drop(inner);
        self.tell(|| format!("PE {to} gets {} from PE {from}", Named(&msg)));
        (to, msg)
    }

    /// Takes all that is on its way.
    pub(super) fn land_all(&self) -> Vec<(usize, Msg)> {
        let flying = std::mem::take(&mut self.inner.borrow_mut().flying);
        flying.into_iter().flatten().map(|Flying { msg, to, .. }| (to, msg)).collect()
    }

    /// What was carried inside of processes, between them, and between hosts.
    pub(super) fn carried(&self) -> [Carried; 3] {
        self.inner.borrow().carried
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.inner.borrow().trace.hash()
    }
}

impl Inner {
    fn add(&mut self, sim: &Sim, at_ns: u64, event: Event) {
        // Which of two things that happen at the same moment goes first is the seed's to say.
        let tie = if sim.is_calm() { 0 } else { self.rng.next() };
        self.numbered += 1;
        self.pending_events += usize::from(!matches!(event, Event::Timer(_)));
        self.events.push(Reverse(((at_ns, tie, self.numbered), event)));
    }

    fn delay_ns(&mut self, sim: &Sim) -> u64 {
        if sim.is_calm() {
            return 0;
        }
        let longer = if self.rng.once_in(LONG_ONCE_IN) { LONG } else { 1 };
        self.rng.next() % (self.scale_ns * longer)
    }

    fn stall_ns(&mut self, sim: &Sim) -> u64 {
        if sim.is_calm() {
            return 0;
        }
        let is_stalled = self.stall_once_in > 0 && self.rng.once_in(self.stall_once_in);
        let longest = if is_stalled { self.scale_ns * LONG } else { 1 + sim.overhead_ns() };
        self.rng.next() % longest
    }

    fn note(&mut self, msg: &Msg) {
        let msg = inner_of(msg);
        match msg.name() {
            Name::Entry(entry) => {
                self.trace.note_text(entry.chare);
                self.trace.note_text(entry.name);
            }
            Name::Runtime(name) => self.trace.note_text(name),
        }
        self.trace.note(msg.head().to.element);
    }

    fn keep(&mut self, flying: Flying) -> usize {
        let place = self.free.pop().unwrap_or(self.flying.len());
        if place == self.flying.len() {
            self.flying.push(Some(flying));
        } else {
            self.flying[place] = Some(flying);
        }
        place
    }
}

/// The inbox of a PE, and the way of what it sends.
pub(super) struct WorldMail {
    pub(super) inbox: ThreadMail,
    pub(super) world: Rc<World>,
}

impl Mail for WorldMail {
    fn receive(&self) -> Option<Msg> {
        self.inbox.receive()
    }

    fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    fn send(&self, to: PeId, msg: Msg) {
        self.world.send(self.inbox.pe.index(), to.index(), msg);
    }

    fn release_pinned(&self, block: NonNull<Head>) {
        self.inbox.release_pinned(block);
    }
}

/// The virtual clock.
pub(super) struct WorldClock(pub(super) Rc<World>);

impl Clock for WorldClock {
    fn now_ns(&self) -> u64 {
        self.0.now_ns.get().saturating_add(self.0.charged_ns.get())
    }

    fn charge(&self, ns: u64) {
        self.0.charge(ns);
    }
}
