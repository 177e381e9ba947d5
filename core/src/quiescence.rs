//! Quiescence: nothing runs, nothing is queued, in flight or on a device. `QUIESCENCE.md` beside this file argues why
//! the detection is right.
//!
//! Every PE that becomes idle publishes its counts of messages posted and taken, and an epoch that is odd while it is
//! idle. PE 0, when idle itself, reads all of them twice; if no epoch changed in between and the sums agree, there was
//! a moment at which the program was quiescent, and it still is, since only outside events could end that. The protocol
//! is [`Board`], which knows no PE, so that the model checker drives it (`quiescence/loom_tests.rs`).

#[cfg(all(test, loom))]
mod loom_tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use crossbeam_utils::CachePadded;
use rustc_hash::FxHashMap;

use serde::{Deserialize, Serialize};

use crate::callback::{self, Callback};
use crate::current;
use crate::device_work;
use crate::error::CallError;
use crate::ids::{ChareId, PeId};
use crate::job::Standing;
use crate::message::{Msg, Name, Payload};
use crate::pending::Pending;
use crate::reply::{CellRef, Reply, send_answer};
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::scheduler::sync::{AtomicU64, AtomicUsize, Ordering, in_total_order};
use crate::waiting::What;
use crate::wire::{Codec, Kind, Leaves};

/// What one PE publishes.
#[derive(Default)]
pub(crate) struct Published {
    /// Odd while the PE is idle; the other values are those of the last time it became idle.
    epoch: AtomicU64,
    posted: AtomicU64,
    taken: AtomicU64,
    timers: AtomicUsize,
    external: AtomicUsize,
}

/// What a PE counts between its announcements, without atomics.
#[derive(Clone, Copy, Default)]
struct Counts {
    posted: u64,
    taken: u64,
    timers: usize,
    external: usize,
}

/// Whether the others are idle as well.
#[must_use]
#[derive(PartialEq, Eq, Debug)]
enum Announced {
    /// Somebody is active, and will announce itself later than this.
    NotLast,
    /// All are idle now: PE 0 must judge.
    Last,
}

/// What all PEs publish.
pub(crate) struct Board {
    pes: Box<[CachePadded<Published>]>,
    /// Messages posted by threads that are no PEs; counted before they are pushed.
    foreign_posted: CachePadded<AtomicU64>,
    /// Written whenever a PE falls idle: not where all PEs read where the inboxes are.
    idle_count: CachePadded<AtomicUsize>,
}

impl Board {
    pub(crate) fn new(pe_count: usize) -> Self {
        Board {
            pes: (0..pe_count).map(|_| CachePadded::default()).collect(),
            foreign_posted: CachePadded::default(),
            idle_count: CachePadded::default(),
        }
    }

    pub(crate) fn count_foreign(&self) {
        self.foreign_posted.fetch_add(1, Ordering::SeqCst);
        in_total_order();
    }

    /// Whether a thread that is no PE has posted something.
    pub(crate) fn has_foreign_posted(&self) -> bool {
        self.foreign_posted.load(Ordering::SeqCst) > 0
    }

    /// Publishes that a PE is idle, and its counts.
    fn enter_idle(&self, pe: usize, counts: Counts) -> Announced {
        let mine = &self.pes[pe];
        mine.posted.store(counts.posted, Ordering::SeqCst);
        mine.taken.store(counts.taken, Ordering::SeqCst);
        mine.timers.store(counts.timers, Ordering::SeqCst);
        mine.external.store(counts.external, Ordering::SeqCst);
        // Pairs with the load in `read`: who sees this epoch sees the counts.
        mine.epoch.fetch_add(1, Ordering::SeqCst);
        // After the epoch, so that the last of all finds every epoch odd.
        let idle_count = self.idle_count.fetch_add(1, Ordering::SeqCst) + 1;
        if idle_count == self.pes.len() { Announced::Last } else { Announced::NotLast }
    }

    /// Publishes that a PE is active; called before it posts anything.
    fn leave_idle(&self, pe: usize) {
        self.idle_count.fetch_sub(1, Ordering::SeqCst);
        self.pes[pe].epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Looks whether the program is quiescent; called by PE 0 while it is idle. What is not on the board is asked for
    /// in the order that the argument needs: outsiders before the first reading, devices between the two.
    fn look(&self, has_outsiders: impl FnOnce() -> bool, device_works: impl FnOnce() -> bool) -> Found {
        let has_outsiders = has_outsiders();
        let Some(first) = self.read() else { return Found::Busy };
        if first.posted != first.taken {
            return Found::Busy;
        }
        if device_works() {
            return Found::DeviceBusy;
        }
        // The moment of the verdict: what was counted before it in `count_foreign` is seen below.
        in_total_order();
        // A device's completion posts its wake-up before it stops being pending, so the second reading sees that.
        if self.read().as_ref() != Some(&first) || first.external > 0 {
            return Found::Busy;
        }
        Found::Quiescent { timers: first.timers, has_outsiders }
    }

    /// What this process says of itself to the others of its job; `None` if a PE is active.
    pub(crate) fn reading(&self) -> Option<Standing> {
        let reading = self.read()?;
        in_total_order();
        Some(Standing {
            epoch: reading.epochs.iter().sum(),
            posted: reading.posted,
            taken: reading.taken,
            timers: reading.timers as u64,
            external: reading.external as u64,
            ..Standing::default()
        })
    }

    /// One reading of all PEs; `None` if one is active.
    fn read(&self) -> Option<Reading> {
        let mut reading = Reading { taken: 0, posted: 0, timers: 0, external: 0, epochs: Vec::new() };
        for published in &self.pes {
            let epoch = published.epoch.load(Ordering::SeqCst);
            if epoch % 2 == 0 {
                return None;
            }
            reading.epochs.push(epoch);
            reading.posted += published.posted.load(Ordering::SeqCst);
            reading.taken += published.taken.load(Ordering::SeqCst);
            reading.timers += published.timers.load(Ordering::SeqCst);
            reading.external += published.external.load(Ordering::SeqCst);
        }
        reading.posted += self.foreign_posted.load(Ordering::SeqCst);
        Some(reading)
    }
}

#[derive(PartialEq)]
struct Reading {
    epochs: Vec<u64>,
    posted: u64,
    taken: u64,
    timers: usize,
    external: usize,
}

/// What the board says.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Something runs, is under way, or waits on something outside.
    Busy,
    /// Only a device works.
    DeviceBusy,
    /// Nothing can begin but by a timer or an outsider.
    Quiescent { timers: usize, has_outsiders: bool },
}

/// What PE 0 found, and did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// This PE does not judge.
    NotMine,
    /// Something runs or is under way.
    Busy,
    /// Only a device works; look again soon.
    DeviceBusy,
    /// Quiescent, and somebody has been told.
    Answered,
    /// Quiescent; something outside will wake it.
    Quiescent,
}

/// Publishes that this PE has nothing to do. The last one to do so wakes PE 0, which judges.
pub(crate) fn announce_idle(pe: &Pe) {
    let counts = Counts {
        posted: pe.traffic.posted.get(),
        taken: pe.traffic.taken.get(),
        timers: pe.timers.pending_count(),
        external: pe.tasks.external_count(),
    };
    let shared = pe.shared();
    let announced = shared.board().enter_idle(shared.own_number(pe.id()), counts);
    if announced == Announced::Last && pe.id() != shared.first_pe() {
        shared.wake(shared.first_pe());
    }
}

/// Publishes that this PE has something to do, before it does it.
pub(crate) fn announce_active(pe: &Pe) {
    pe.shared().board().leave_idle(pe.shared().own_number(pe.id()));
}

/// Looks whether the program is quiescent, and acts if it is: those who await quiescence are answered; if there is
/// nobody and nothing else can wake a coroutine, the program hangs and is ended with a report. Called by PE 0 when it
/// has announced that it is idle.
pub(crate) fn judge(pe: &Pe) -> Verdict {
    let shared = pe.shared();
    let found = match shared.job() {
        None => shared.board().look(|| shared.has_outsiders(), || shared.devices().pending() > 0),
        Some(job) => job.look(shared),
    };
    let (timers, has_outsiders) = match found {
        Found::Busy => return Verdict::Busy,
        Found::DeviceBusy => return Verdict::DeviceBusy,
        Found::Quiescent { timers, has_outsiders } => (timers, has_outsiders),
    };
    // A completion that is kept may still be awaited.
    if let Some(reason) = device_work::unawaited(shared.devices().take_dropped_faults()) {
        shared.stop(reason);
        return Verdict::Answered;
    }
    let waiters = pe.quiescence_waiters.borrow_mut().take();
    if waiters.is_empty() {
        if timers > 0 || has_outsiders {
            return Verdict::Quiescent;
        }
        // It may also be what the others wait for in vain.
        let reason = device_work::unawaited(shared.devices().take_unreported_faults());
        shared.stop(reason.unwrap_or(Reason::Hang));
    }
    for cell in waiters.into_values() {
        send_answer(pe, cell, 0, Ok(()), Codec::<()>::by_serde);
    }
    Verdict::Answered
}

/// Waits for quiescence; made by [`crate::Runtime::quiescence`].
#[must_use = "futures do nothing unless polled"]
pub struct Quiescence {
    asked: Option<Asked>,
    at: &'static Location<'static>,
}

struct Asked {
    cell: CellRef,
    pending: Pending<()>,
    is_over: bool,
}

impl Quiescence {
    pub(crate) fn new(at: &'static Location<'static>) -> Self {
        Quiescence { asked: None, at }
    }
}

impl Quiescence {
    /// `callback` gets `()` when the program is quiescent; asked for now. Returns at once.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn to(mut self, callback: impl Into<Callback<()>>) {
        self.ask();
        callback::deliver_later(self, callback.into());
    }

    fn ask(&mut self) -> &mut Asked {
        let at = self.at;
        self.asked.get_or_insert_with(|| {
            current::on_pe("awaiting quiescence", |pe| {
                let cell = CellRef::new(pe, pe.cells.open(Codec::<()>::by_serde()));
                pe.post(PeId::new(0), Msg::for_pe(AwaitQuiescence(cell)));
                Asked { cell, pending: Pending::new(cell, What::Quiescence, at), is_over: false }
            })
        })
    }
}

impl Future for Quiescence {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let asked = self.ask();
        let polled = asked.pending.poll(context);
        asked.is_over = polled.is_ready();
        polled
    }
}

impl Drop for Quiescence {
    fn drop(&mut self) {
        // By way of the PE that has asked, so that it comes after the question.
        if let Some(Asked { cell, is_over: false, .. }) = self.asked {
            cell.post(Msg::for_pe(Withdraw(cell)));
        }
    }
}

/// Those who await quiescence, at PE 0, in the order in which they asked.
#[derive(Default)]
pub(crate) struct Waiters {
    by_number: BTreeMap<u64, CellRef>,
    numbers: FxHashMap<CellRef, u64>,
    asked: u64,
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    fn add(&mut self, cell: CellRef) {
        self.asked += 1;
        self.by_number.insert(self.asked, cell);
        self.numbers.insert(cell, self.asked);
    }

    fn remove(&mut self, cell: CellRef) {
        if let Some(number) = self.numbers.remove(&cell) {
            self.by_number.remove(&number);
        }
    }

    fn take(&mut self) -> BTreeMap<u64, CellRef> {
        self.numbers.clear();
        std::mem::take(&mut self.by_number)
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct AwaitQuiescence(CellRef);

impl Payload for AwaitQuiescence {
    const NAME: Name = Name::Runtime("a request for quiescence");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::AwaitQuiescence);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.quiescence_waiters.borrow_mut().add(self.0);
    }
}

/// A wait for quiescence that was given up, on its way to PE 0 by the PE that has asked.
#[derive(Serialize, Deserialize)]
pub(crate) struct Withdraw(CellRef);

impl Payload for Withdraw {
    const NAME: Name = Name::Runtime("a request for quiescence given up");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Withdraw);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if pe.id().index() == 0 {
            pe.quiescence_waiters.borrow_mut().remove(self.0);
        } else {
            pe.post(PeId::new(0), Msg::for_pe(self));
        }
    }
}
