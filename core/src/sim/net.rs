//! The virtual time of a simulated run: what happens when, and how long messages are under way.
//!
//! The PEs of a run share one [`World`] with whoever drives them. A PE adds messages to it; the driver takes what happens next.
//! `README.md` here says which orders of messages are legal; [`World::send`] is where they are kept.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use chare_transport::{Buffer, Frame, Rank, SendError};
use rustc_hash::FxHashMap;

use super::report::{Carried, Trace};
use super::rng::Rng;
use super::spec::{Sim, nanoseconds};
use crate::ids::PeId;
use crate::job::Address;
use crate::message::{Head, Msg, Name};
use crate::priority::Ranked;
use crate::process::Shared;
use crate::scheduler::pe::{Clock, Mail};
use crate::scheduler::thread::ThreadMail;

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

/// Something on its way.
struct Flying {
    what: Sent,
    from: usize,
}

enum Sent {
    /// To a PE of the same process; or a signal.
    Msg(Msg, PeId),
    /// To another process.
    Frame(Bytes),
}

/// A frame on its way.
struct Bytes {
    header: Vec<u8>,
    buffers: Vec<Buffer>,
    to: Rank,
    /// Which of its PEs it is for; all if none.
    pe: Option<PeId>,
}

/// What arrives.
pub(super) enum Landed {
    /// At a PE.
    Msg(PeId, Msg),
    /// At a process, for these of its PEs.
    Frame { from: Rank, header: Vec<u8>, buffers: Vec<Buffer>, at: Rank, to: Range<usize> },
}

/// Things of one lane that keep their order arrive in the order in which they were sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    /// All that comes to a PE from its process, and all signals.
    Inbox(usize),
    /// From a PE to one of another process.
    Pair(usize, usize),
    /// What is about promises, from one process to another.
    Promises(usize, usize),
    /// What is for all PEs of a process, from the one that sends it on.
    Spread(usize, usize),
}

/// What the PEs and their driver share.
pub(super) struct World {
    sim: Sim,
    shared: Arc<Shared>,
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
    /// The arrival of the last message that keeps its order.
    ordered_ns: FxHashMap<Lane, u64>,
    /// When each cable is free.
    free_ns: FxHashMap<Cable, u64>,
    carried: [Carried; 3],
    trace: Trace,
}

/// What the bytes of messages go over one after the other, in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Cable {
    /// From one process to another of its host.
    Processes(usize, usize),
    /// From one host to another, for all of their processes.
    Hosts(usize, usize),
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
    pub(super) fn new(sim: Sim, shared: Arc<Shared>) -> Rc<World> {
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
            free_ns: FxHashMap::default(),
            carried: Default::default(),
            trace: Trace::default(),
        };
        Rc::new(World { sim, shared, now_ns: Cell::new(0), charged_ns: Cell::new(0), inner: inner.into() })
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
        let is_plain = innermost.call().is_some();
        self.tell(|| format!("    PE {from} sends {} to PE {to}", Named(&msg)));
        let mut inner = self.inner.borrow_mut();
        inner.note(&msg);
        let processes = [from, to].map(|pe| self.shared.process_of(PeId::new(pe)));
        let travelled_ns = self.travel(&mut inner, processes, sent_ns, bytes);
        let flying = Flying { what: Sent::Msg(msg, PeId::new(to)), from };
        inner.let_fly(&self.sim, flying, travelled_ns, &[Lane::Inbox(to)], !is_plain);
    }

    /// A frame of a PE sets out for another process, if a transport would take it.
    fn send_frame<'a>(&self, from: usize, to: Rank, frame: Frame<'a>) -> Result<(), SendError<'a>> {
        let bytes = match self.sim.limits().admit(&frame) {
            Ok(bytes) => bytes,
            Err(refusal) => return Err(SendError { to, refusal, frame }),
        };
        let sent_ns = self.now_ns.get().saturating_add(self.charged_ns.get());
        let Address { to: number, label } = Address::read(frame.header).expect("it was encoded here");
        let first = self.shared.pes_of_process(to).start;
        let pe = number.map(|number| PeId::new(first + number as usize));
        self.tell(|| {
            let to = pe.map_or_else(|| format!("all PEs of process {}", to.0), |pe| format!("PE {pe}"));
            format!("    PE {from} sends {label} to {to}, {bytes} bytes")
        });
        let mut inner = self.inner.borrow_mut();
        label.words().into_iter().chain([bytes]).for_each(|word| inner.trace.note(word));
        let [here, there] = [self.shared.process_of(PeId::new(from)), to.index()];
        let travelled_ns = self.travel(&mut inner, [here, there], sent_ns, bytes);
        let mut lanes = vec![pe.map_or(Lane::Spread(here, there), |pe| Lane::Pair(from, pe.index()))];
        lanes.extend(label.is_about_promises().then_some(Lane::Promises(here, there)));
        let Frame { header, buffers } = frame;
        let what = Sent::Frame(Bytes { header: header.to_vec(), buffers, to, pe });
        inner.let_fly(&self.sim, Flying { what, from }, travelled_ns, &lanes, !label.is_plain());
        Ok(())
    }

    /// When a message that sets out at `sent_ns` is there, if nothing holds it up but those before it.
    fn travel(&self, inner: &mut Inner, [here, there]: [usize; 2], sent_ns: u64, bytes: u64) -> u64 {
        let network = self.sim.network();
        let [host, other] = [here, there].map(|process| self.sim.host_of(process));
        let (way, link, cable) = if here == there {
            (Way::WithinProcess, network.within_process, None)
        } else if host == other {
            (Way::BetweenProcesses, network.between_processes, Some(Cable::Processes(here, there)))
        } else {
            (Way::BetweenHosts, network.between(host, other), Some(Cable::Hosts(host, other)))
        };
        let carried = &mut inner.carried[way as usize];
        carried.messages += 1;
        carried.bytes += bytes;
        let occupied_ns = link.occupied_ns(bytes);
        let free_ns = cable.and_then(|cable| inner.free_ns.get(&cable)).copied().unwrap_or(0);
        let gone_ns = sent_ns.max(free_ns).saturating_add(occupied_ns);
        inner.free_ns.extend(cable.map(|cable| (cable, gone_ns)));
        gone_ns.saturating_add(nanoseconds(link.latency))
    }

    /// Takes what arrives, and where it goes.
    pub(super) fn land(&self, place: usize) -> Landed {
        let mut inner = self.inner.borrow_mut();
        let Flying { what, from } = inner.flying[place].take().expect("a message arrives once");
        inner.free.push(place);
        drop(inner);
        match what {
            Sent::Msg(msg, to) => {
                self.tell(|| format!("PE {to} gets {} from PE {from}", Named(&msg)));
                Landed::Msg(to, msg)
            }
            Sent::Frame(Bytes { header, buffers, to: at, pe }) => {
                let to = pe.map_or(self.shared.pes_of_process(at), |pe| pe.index()..pe.index() + 1);
                self.tell(|| {
                    format!("process {} gets {} bytes from PE {from}, for PEs {to:?}", at.0, header.len())
                });
                let from = Rank(self.shared.process_of(PeId::new(from)) as u32);
                Landed::Frame { from, header, buffers, at, to }
            }
        }
    }

    /// Takes all that is on its way; what would go to another process is bytes that nobody reads.
    pub(super) fn land_all(&self) -> Vec<(PeId, Msg)> {
        let flying = std::mem::take(&mut self.inner.borrow_mut().flying);
        let message = |Flying { what, .. }| match what {
            Sent::Msg(msg, to) => Some((to, msg)),
            Sent::Frame(_) => None,
        };
        flying.into_iter().flatten().filter_map(message).collect()
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
    /// Lets something arrive, later by a delay than it would, and after what was sent before it in its lanes. It keeps its own place
    /// there if it `is_ordered`.
    fn let_fly(&mut self, sim: &Sim, flying: Flying, travelled_ns: u64, lanes: &[Lane], is_ordered: bool) {
        let after = |lane: &Lane| self.ordered_ns.get(lane).map_or(0, |last_ns| last_ns.saturating_add(1));
        let earliest_ns = lanes.iter().map(after).max().unwrap_or(0);
        let arrival_ns = travelled_ns.saturating_add(self.delay_ns(sim)).max(earliest_ns);
        if is_ordered {
            self.ordered_ns.extend(lanes.iter().map(|lane| (*lane, arrival_ns)));
        }
        let place = self.keep(flying);
        self.add(sim, arrival_ns, Event::Arrival(place));
    }

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

    fn send_frame<'a>(&self, to: Rank, frame: Frame<'a>) -> Result<(), SendError<'a>> {
        self.world.send_frame(self.inbox.pe.index(), to, frame)
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
