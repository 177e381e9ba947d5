//! The half of a transport that all threads share: frames are queued here, in order of their `send`s.
//!
//! The invariant: a rank is marked as ready whenever its lane is not empty, but for the moment between the lane's lock and the
//! mark, in which the sender that has filled the lane is about to set it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crossbeam_utils::CachePadded;

use crate::batch::Batch;
use crate::facts::Facts;
use crate::frame::{Frame, Rank};
use crate::limits::Limits;
use crate::network::FreeBatches;
use crate::wire::{self, Plan, RECORD_BYTES, push_record};

/// Sends frames to the processes of a job; cheap to clone, and for all threads.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// What became of a frame that was sent.
#[must_use = "who is pressed should produce less"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is queued, or on its way.
    Room,
    /// It is queued, with as much before it as goes in one batch, or it is large: there is no use in waiting for more, and a thread
    /// that holds the driver may [flush](crate::Driver::flush).
    Full,
    /// It is queued too, but more is queued for that rank than [`Limits::queue_bytes`].
    Pressed,
}

/// A frame that was not queued, and why.
#[derive(Debug, thiserror::Error)]
#[error("a frame was not sent to {to}: {refusal}")]
pub struct SendError<'a> {
    /// Where it should have gone.
    pub to: Rank,
    /// Why it did not.
    pub refusal: Refusal,
    /// The frame, as it was.
    pub frame: Frame<'a>,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such rank.
    #[error("there are {size} ranks")]
    NoSuchRank {
        /// The number of ranks.
        size: usize,
    },
    /// It has more buffers than a frame may have.
    #[error("it has {count} buffers, and the limit is {limit}")]
    TooManyBuffers {
        /// How many it has.
        count: usize,
        /// [`Limits::buffers`].
        limit: usize,
    },
    /// It is larger than a frame may be.
    #[error("it has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// [`Limits::frame_bytes`].
        limit: u64,
    },
    /// The driver has begun to close, has failed, or is gone.
    #[error("this process sends no more")]
    Closed,
}

impl Outbox {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Outbox { shared }
    }

    /// What this process knows about the job.
    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    /// Queues a frame. Never waits for the network; takes the lock of one lane for the time of a copy of what travels inline.
    ///
    /// Frames to one rank arrive in the order in which their `send`s took that lock: so those of one thread do.
    ///
    /// # Errors
    /// If there is no such rank, if the frame is over a limit, and after the driver has closed; the frame comes back.
    pub fn send<'a>(&self, to: Rank, frame: Frame<'a>) -> Result<Queued, SendError<'a>> {
        // As most are: what is known of them is known when this is compiled.
        if to.index() < self.shared.lanes.len()
            && frame.buffers.is_empty()
            && frame.header.len() <= self.shared.most_inline
        {
            let (plan, bytes) = (Plan::short(frame.header), frame.header.len() as u64);
            return self.queue(to, frame, plan, bytes);
        }
        self.send_any(to, frame)
    }

    #[inline(never)]
    fn send_any<'a>(&self, to: Rank, frame: Frame<'a>) -> Result<Queued, SendError<'a>> {
        match self.shared.plan(to, &frame) {
            Ok((plan, bytes)) => self.queue(to, frame, plan, bytes),
            Err(refusal) => Err(SendError { to, refusal, frame }),
        }
    }

    /// Queues a frame of so many bytes, of which this is the plan, for a rank that there is.
    #[inline(always)]
    fn queue<'a>(&self, to: Rank, frame: Frame<'a>, plan: Plan, bytes: u64) -> Result<Queued, SendError<'a>> {
        let limits = &self.shared.limits;
        let lane = &self.shared.lanes[to.index()];

        let mut state = lane.lock();
        if state.is_closed {
            drop(state);
            return Err(SendError { to, refusal: Refusal::Closed, frame });
        }
        let was_empty = state.is_empty();
        // A frame without bytes counts too.
        let queued = bytes + RECORD_BYTES as u64;
        state.queued_bytes += queued;
        let open = state.open_for(plan, limits);
        open.cargo_mut().queued_bytes += queued;
        push_record(open, frame, plan, limits);
        let queued = lane.still_queued(&state);
        let is_full = plan.bulk_cost > 0 || !state.full.is_empty();
        drop(state);
        if was_empty {
            self.shared.mark_ready(to);
            self.shared.wake();
        }
        Ok(match queued > limits.queue_bytes {
            true => Queued::Pressed,
            false if is_full => Queued::Full,
            false => Queued::Room,
        })
    }

    /// The bytes that are queued for a rank and not handed to the network yet; 0 for a rank that is none. Takes the lock of
    /// its lane.
    pub fn queued_bytes(&self, to: Rank) -> u64 {
        self.shared.lanes.get(to.index()).map_or(0, |lane| lane.still_queued(&lane.lock()))
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbox of {} of {}", self.facts().rank(), self.facts().size())
    }
}

/// What the outboxes and the driver of a process have in common.
pub(crate) struct Shared {
    pub(crate) facts: Facts,
    pub(crate) limits: Limits,
    /// The longest header that goes inline where it is alone.
    most_inline: usize,
    lanes: Box<[CachePadded<Lane>]>,
    /// A bit for each lane that has got its first frame since the driver last took its frames.
    ready: Box<[AtomicU64]>,
    /// The driver naps, or is about to.
    is_napping: AtomicBool,
    hook: OnceLock<Arc<Hook>>,
}

/// The frames for one rank.
struct Lane {
    state: Mutex<LaneState>,
    /// Of all that was ever queued here, what the network has got. Written by the driver only.
    handed_bytes: AtomicU64,
}

#[derive(Default)]
struct LaneState {
    /// The batch that is being filled.
    open: Option<Batch>,
    /// Batches that are full, oldest first.
    full: VecDeque<Batch>,
    /// Memory for the next ones.
    spare: Vec<Batch>,
    /// Of all frames ever.
    queued_bytes: u64,
    is_closed: bool,
}

/// What wakes a driver that naps.
pub(crate) type Hook = dyn Fn() + Send + Sync;

const BITS: usize = u64::BITS as usize;

/// The ranks whose bits are set in a word of `ready`.
fn ranks(word: usize, mut bits: u64) -> impl Iterator<Item = Rank> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(Rank((word * BITS) as u32 + bit))
    })
}

/// What a lane keeps for its next batches.
const MOST_SPARE: usize = 4;

impl Lane {
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().expect("nothing panics under the lock of a lane")
    }

    fn still_queued(&self, state: &LaneState) -> u64 {
        // A figure that nothing depends on but the answer.
        state.queued_bytes - self.handed_bytes.load(Ordering::Relaxed)
    }
}

impl LaneState {
    fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// The batch that a record of this size goes into.
    #[inline(always)]
    fn open_for(&mut self, plan: Plan, limits: &Limits) -> &mut Batch {
        let fits = |open: &Batch| {
            let before = open.cargo().bulk_cost;
            let has_credit =
                plan.bulk_cost == 0 || before == 0 || before + plan.bulk_cost <= limits.bulk_window_bytes;
            open.has_room(plan.record_bytes) && has_credit
        };
        if let Some(full) = self.open.take_if(|open| !fits(open)) {
            self.full.push_back(full);
        }
        let spare = &mut self.spare;
        self.open.get_or_insert_with(|| spare.pop().unwrap_or_else(|| Batch::new(limits.batch_bytes)))
    }
}

impl Shared {
    pub(crate) fn new(facts: Facts, limits: Limits) -> Self {
        let lane = |_| CachePadded::new(Lane { state: Mutex::default(), handed_bytes: AtomicU64::new(0) });
        Shared {
            lanes: (0..facts.size()).map(lane).collect(),
            ready: (0..facts.size().div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect(),
            is_napping: AtomicBool::new(false),
            hook: OnceLock::new(),
            most_inline: wire::most_inline(&limits),
            facts,
            limits,
        }
    }

    /// What a frame needs, and how long it is, if it may be sent.
    fn plan(&self, to: Rank, frame: &Frame<'_>) -> Result<(Plan, u64), Refusal> {
        if to.index() >= self.lanes.len() {
            return Err(Refusal::NoSuchRank { size: self.lanes.len() });
        }
        let bytes = self.limits.admit(frame)?;
        Ok((Plan::of(frame, &self.limits), bytes))
    }

    /// A lane has frames.
    fn mark_ready(&self, rank: Rank) {
        let (word, bit) = (rank.index() / BITS, rank.index() % BITS);
        // Pairs with the swap in `take_ready`, and with the loads in `begin_nap`: either those see this bit, or we see the nap.
        self.ready[word].fetch_or(1 << bit, Ordering::SeqCst);
    }

    /// Wakes the driver if it naps. What it is to find must be there before: in the total order of SeqCst operations, for
    /// what is not under a lock.
    #[inline(always)]
    pub(crate) fn wake(&self) {
        if self.is_napping.load(Ordering::SeqCst)
            && self.is_napping.swap(false, Ordering::SeqCst)
            && let Some(hook) = self.hook.get()
        {
            hook();
        }
    }

    /// Sets the hook, once.
    pub(crate) fn set_hook(&self, hook: Arc<Hook>) {
        let is_first = self.hook.set(hook).is_ok();
        assert!(is_first, "a driver has one wake hook");
    }

    /// Notes that the driver is about to nap, unless a lane is ready whose frames need not wait.
    pub(crate) fn begin_nap(&self, mut waits: impl FnMut(Rank) -> bool) -> bool {
        // Pairs with the load in `wake`: after it we look once more.
        self.is_napping.store(true, Ordering::SeqCst);
        let mut words = self.ready.iter().enumerate();
        let may_nap = words.all(|(index, word)| ranks(index, word.load(Ordering::SeqCst)).all(&mut waits));
        if !may_nap {
            self.end_nap();
        }
        may_nap
    }

    pub(crate) fn end_nap(&self) {
        self.is_napping.store(false, Ordering::SeqCst);
    }

    /// Whether any lane is ready.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Calls `each` with the ranks that are ready, which then are so no longer, also those that it does not get to when it fails.
    pub(crate) fn take_ready<E>(&self, mut each: impl FnMut(Rank) -> Result<(), E>) -> Result<(), E> {
        for (index, word) in self.ready.iter().enumerate() {
            // Pairs with `mark_ready`; what this look misses the next one sees.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            ranks(index, word.swap(0, Ordering::SeqCst)).try_for_each(&mut each)?;
        }
        Ok(())
    }

    /// Takes the only batch that is queued for a rank, if it announces nothing, and leaves memory for the next one.
    pub(crate) fn take_only(&self, rank: Rank, free: &mut FreeBatches) -> Option<Batch> {
        let mut state = self.lanes[rank.index()].lock();
        let state = &mut *state;
        if !state.full.is_empty() {
            return None;
        }
        let batch = state.open.take_if(|open| open.cargo().bulk_cost == 0)?;
        if state.spare.is_empty() {
            state.spare.push(free.take());
        }
        Some(batch)
    }

    /// Moves what is queued for a rank to `queue`, and leaves memory for more. A batch that more fits into stays if it `may_wait`, and
    /// the rank is ready as before.
    pub(crate) fn drain(
        &self,
        rank: Rank,
        may_wait: bool,
        free: &mut FreeBatches,
        queue: &mut VecDeque<Batch>,
    ) {
        let mut state = self.lanes[rank.index()].lock();
        let state = &mut *state;
        let wanted = MOST_SPARE.min(state.full.len() + 1);
        if !state.full.is_empty() {
            queue.append(&mut state.full);
        }
        // Buffers wait for nothing: they travel by themselves.
        if let Some(open) = state.open.take_if(|open| !may_wait || open.cargo().bulk_cost > 0) {
            queue.push_back(open);
        }
        while state.spare.len() < wanted {
            state.spare.push(free.take());
        }
        if !state.is_empty() {
            self.mark_ready(rank);
        }
    }

    /// Refuses all further frames.
    pub(crate) fn close(&self) {
        for lane in &self.lanes {
            lane.lock().is_closed = true;
        }
    }

    /// So much of what was queued for a rank has been handed to the network; called by the driver only.
    pub(crate) fn release(&self, rank: Rank, bytes: u64) {
        let handed = &self.lanes[rank.index()].handed_bytes;
        handed.store(handed.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }
}
