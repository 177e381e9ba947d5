//! How a PE takes its profile: what every moment belongs to, and what is counted meanwhile.
//!
//! The clock is read where one step ends and the next begins, once for both. What is off costs nothing: a PE that is not
//! profiled steps in a loop without these hooks, and its sends take the path that they always take (`Pe::plain_run`);
//! channels compare two words that they have at hand.

use std::cell::RefCell;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{EntryProfile, Messages, PeProfile, Sent, merged};
use crate::cell::State;
use crate::entry::EntryInfo;
use crate::ids::ChareId;
use crate::message::{Msg, Name};
use crate::priority::Rank;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::scheduler::task;

/// What one PE has noted so far.
pub(crate) struct Recorder(RefCell<Notes>);

struct Notes {
    /// The runtime, idling, then entries.
    rows: Vec<EntryProfile>,
    /// By address; an entry may have several, if it is compiled into several places.
    by_address: FxHashMap<*const EntryInfo, usize>,
    /// The row that the time since `since_ns` belongs to.
    current: usize,
    since_ns: u64,
    /// The time of the current step before what it has called on its stack.
    so_far: Duration,
    /// Steps that what they have called on their stack has interrupted.
    interrupted: Vec<Interrupted>,
    began_ns: u64,
}

struct Interrupted {
    row: usize,
    so_far: Duration,
}

const RUNTIME: usize = 0;
const IDLE: usize = 1;
const ENTRIES: usize = 2;

static NO_ENTRY: EntryInfo = EntryInfo { chare: "", name: "", file: "", line: 0 };

impl Notes {
    fn row_of(&mut self, entry: &'static EntryInfo) -> usize {
        let next = self.rows.len();
        let row = *self.by_address.entry(entry).or_insert(next);
        if row == next {
            self.rows.push(EntryProfile::new(entry));
        }
        row
    }

    /// Adds the time since the last look to the current step.
    fn advance(&mut self, now_ns: u64) {
        let time = Duration::from_nanos(now_ns.saturating_sub(self.since_ns));
        self.rows[self.current].self_time += time;
        self.so_far += time;
        self.since_ns = now_ns;
    }

    /// Ends the step of the current row, and begins one of `row`.
    fn switch(&mut self, now_ns: u64, row: usize) {
        self.advance(now_ns);
        let current = &mut self.rows[self.current];
        current.longest_step = current.longest_step.max(self.so_far);
        (self.current, self.so_far) = (row, Duration::ZERO);
    }

    /// Interrupts the current step by one of `row`.
    fn interrupt(&mut self, now_ns: u64, row: usize) {
        self.advance(now_ns);
        self.interrupted.push(Interrupted { row: self.current, so_far: self.so_far });
        (self.current, self.so_far) = (row, Duration::ZERO);
    }

    /// Ends the current step, and goes on with the one that it has interrupted.
    fn go_on(&mut self, now_ns: u64) {
        let Some(Interrupted { row, so_far }) = self.interrupted.pop() else { return };
        self.switch(now_ns, row);
        self.so_far = so_far;
    }
}

impl Recorder {
    /// Begins with the runtime's own time.
    pub(crate) fn new(now_ns: u64) -> Self {
        Recorder(RefCell::new(Notes {
            rows: vec![EntryProfile::new(&NO_ENTRY); ENTRIES],
            by_address: FxHashMap::default(),
            current: RUNTIME,
            since_ns: now_ns,
            so_far: Duration::ZERO,
            interrupted: Vec::new(),
            began_ns: now_ns,
        }))
    }

    fn switch(&self, now_ns: u64, row: usize) {
        self.0.borrow_mut().switch(now_ns, row);
    }

    fn begin_call(&self, now_ns: u64, entry: &'static EntryInfo, received: Messages) {
        let notes = &mut *self.0.borrow_mut();
        let row = notes.row_of(entry);
        notes.switch(now_ns, row);
        notes.rows[row].calls += 1;
        notes.rows[row].received.add(received);
    }

    fn begin_resume(&self, now_ns: u64, entry: &'static EntryInfo) {
        let notes = &mut *self.0.borrow_mut();
        let row = notes.row_of(entry);
        notes.switch(now_ns, row);
        notes.rows[row].resumes += 1;
    }

    /// Counts something that the running step sends.
    fn count(&self, f: impl FnOnce(&mut Sent)) {
        let notes = &mut *self.0.borrow_mut();
        f(&mut notes.rows[notes.current].sent);
    }
}

impl Pe {
    /// Looks at two words that every send and every channel looks at anyway.
    #[inline(always)]
    pub(crate) fn is_profiled(&self) -> bool {
        self.plain_run() != self.run()
    }

    /// What follows is a call of `entry` that comes by no message of its own.
    #[inline]
    pub(crate) fn note_call(&self, entry: &'static EntryInfo) {
        if let Some(recorder) = &self.recorder {
            recorder.begin_call(self.now_ns(), entry, Messages::default());
        }
    }

    /// What follows is a call of `entry` on the stack of what is running.
    #[inline(always)]
    pub(crate) fn note_direct_call(&self, entry: &'static EntryInfo) {
        if self.is_profiled() {
            self.interrupt(entry);
        }
    }

    #[cold]
    #[inline(never)]
    fn interrupt(&self, entry: &'static EntryInfo) {
        let Some(recorder) = &self.recorder else { return };
        let notes = &mut *recorder.0.borrow_mut();
        let row = notes.row_of(entry);
        notes.rows[row].calls += 1;
        notes.interrupt(self.now_ns(), row);
    }

    /// Such a call has ended, and its caller goes on.
    #[inline(always)]
    pub(crate) fn note_return(&self) {
        if self.is_profiled() {
            self.go_on();
        }
    }

    #[cold]
    #[inline(never)]
    fn go_on(&self) {
        let Some(recorder) = &self.recorder else { return };
        recorder.0.borrow_mut().go_on(self.now_ns());
    }

    /// What follows is a call that was kept for its condition.
    pub(crate) fn note_kept(&self, msg: &Msg) {
        if let (Some(recorder), Name::Entry(entry)) = (&self.recorder, msg.name()) {
            recorder.begin_resume(self.now_ns(), entry);
        }
    }

    /// What follows is the runtime's own.
    #[inline]
    pub(crate) fn note_runtime(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.switch(self.now_ns(), RUNTIME);
        }
    }

    /// What follows is idling.
    pub(crate) fn note_idle(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.switch(self.now_ns(), IDLE);
        }
    }

    /// A broadcast is sent.
    pub(crate) fn note_broadcast(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.count(|sent| sent.broadcasts += 1);
        }
    }

    /// A chare contributes to a reduction.
    pub(crate) fn note_contribution(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.count(|sent| sent.contributions += 1);
        }
    }

    /// A value goes into a channel.
    #[inline(always)]
    pub(crate) fn note_value_sent<T>(&self) {
        if self.is_profiled() {
            self.count_value(size_of::<T>(), |row| &mut row.sent.values);
        }
    }

    /// A value was taken from a channel.
    #[inline(always)]
    pub(crate) fn note_value_received<T>(&self) {
        if self.is_profiled() {
            self.count_value(size_of::<T>(), |row| &mut row.received_values);
        }
    }

    #[cold]
    #[inline(never)]
    fn count_value(&self, bytes: usize, of: fn(&mut EntryProfile) -> &mut Messages) {
        let Some(recorder) = &self.recorder else { return };
        let notes = &mut *recorder.0.borrow_mut();
        of(&mut notes.rows[notes.current]).add(Messages { count: 1, bytes: bytes as u64 });
    }

    /// Notes what `work` is a step of. The caller does it next.
    pub(crate) fn note_work(&self, work: &Work) {
        match work {
            Work::Msg(msg) => self.note_msg(msg),
            Work::Resume(task) => match (&self.recorder, task::resumable(self, *task)) {
                (Some(recorder), Some(entry)) => recorder.begin_resume(self.now_ns(), entry),
                _ => self.note_runtime(),
            },
            Work::Job(_) => self.note_runtime(),
        }
    }

    /// Notes what a message is a step of. The caller takes it next.
    pub(crate) fn note_msg(&self, msg: &Msg) {
        let Some(recorder) = &self.recorder else { return };
        match msg.call() {
            Some(entry) if self.takes_calls(msg.head().to) => {
                let received = Messages { count: 1, bytes: msg.argument_bytes() };
                recorder.begin_call(self.now_ns(), entry, received);
            }
            _ => self.note_runtime(),
        }
    }

    /// Whether a call of this chare would run now; otherwise it is held, refused or sent on, and counts later if at all.
    fn takes_calls(&self, id: ChareId) -> bool {
        self.find(id).is_some_and(|chare| chare.state.get() == State::Idle)
    }

    /// Sends a call, and counts it for who sends it.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_counted(&self, rank: Rank, msg: Msg) {
        if let Some(recorder) = &self.recorder {
            let call = Messages { count: 1, bytes: msg.argument_bytes() };
            recorder.count(|sent| sent.calls.add(call));
        }
        if let Rank::Normal = rank { self.send(msg) } else { self.send_ranked(rank, msg) }
    }

    /// What was noted, now that the PE has stopped stepping.
    pub(crate) fn take_profile(&self) -> Option<PeProfile> {
        let now_ns = self.now_ns();
        let mut notes = self.recorder.as_ref()?.0.borrow_mut();
        notes.switch(now_ns, RUNTIME);
        notes.by_address.clear();
        let entries = notes.rows.split_off(ENTRIES);
        let (runtime, idle) = (&notes.rows[RUNTIME], &notes.rows[IDLE]);
        let mut sent_by_runtime = runtime.sent;
        sent_by_runtime.add(idle.sent);
        Some(PeProfile {
            pe: self.id(),
            wall: Duration::from_nanos(now_ns.saturating_sub(notes.began_ns)),
            idle: idle.self_time,
            runtime: runtime.self_time,
            sent_by_runtime,
            to_other_pes: self.traffic.posted.get(),
            from_others: self.traffic.taken.get(),
            entries: merged(&entries),
        })
    }
}
