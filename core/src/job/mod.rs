//! The processes of a run: what one of them knows of the others, how messages get to them, and how all of them end together.
//!
//! A run has one process, or several that a transport joins; then each has as many PEs, numbered over the job: those of rank `r` are
//! `r * n .. (r + 1) * n`. A message for a PE of another process is encoded by the PE that sends it and queued; whichever PE holds the
//! driver at the moment moves what is queued, decodes what has come and puts it into the inboxes of this process. So no thread is added,
//! and what a PE sends to another is taken there in the order in which it was sent, across processes too.
//!
//! What is for all PEs goes over a tree of the processes, once to each ([`spread`]).
//!
//! Besides messages there are *notes*, which are no messages to PEs and are not counted as such: the end of the run and what
//! quiescence needs ([`quiet`]). Invariant: the first reason for which any process ends the run is known to all in the end, and a
//! run that has gone wrong anywhere has gone wrong everywhere.

mod coming;
mod findings;
#[cfg(all(test, not(loom)))]
mod hostile;
mod lending;
mod note;
mod packed;
pub(crate) mod paths;
mod pipeline;
mod quiet;
mod spread;
mod staged;
mod straight;
mod taking;
#[cfg(all(test, not(loom)))]
mod tests;
mod words;

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use chare_device::Rest;
use chare_transport::{
    Alarm, Driver, Error, Facts, Frame, Herald, Identity, Nap, Outbox, Process, Progress, Queued, Rank,
    Refusal, SendError, abort_after, say_within,
};

use rustc_hash::FxHashMap;

use crate::binding::BoundDevices;
use crate::hang::Findings;
use crate::ids::PeId;
use crate::launch::{WORDS_WITHIN, say};
use crate::message::Msg;
use crate::options::Options;
use crate::process::{Shared, lock};
use crate::profile::Profile;
use crate::report::Reason;
use crate::runtime::StartError;
use crate::scheduler::pe::Pe;
use crate::scheduler::waker;
use crate::table::{CodeTable, SameId};
use crate::wire::{Beside, MOST_BUFFERS};
use coming::Coming;
use lending::Lent;
pub(crate) use note::Ending;
use note::{Note, Round};
use paths::Paths;
pub(crate) use quiet::{Standing, Standings};
pub(crate) use spread::{Others, children, parent};
pub(crate) use staged::Staged;
pub(crate) use taking::{Address, take_in};
pub(crate) use words::Words;

/// What stands before a note, where a message has the number of its PE in its process.
const NOTE: u32 = u32::MAX;
/// What stands before a message for all PEs of the process.
const SPREAD: u32 = u32::MAX - 1;
/// What stands before a message of which some device memory is not beside it: which, what there is in its place, and the message follow.
const INSTEAD: u32 = u32::MAX - 2;
/// What stands before a piece of device memory, which its message follows.
const PIECE: u32 = u32::MAX - 3;
/// What stands before a message of which the last buffer has several in it: which, and the message follow.
const PACKED: u32 = u32::MAX - 4;
/// How long the PE that would drive naps where nothing tells it of arrivals.
const NAP: Duration = Duration::from_micros(50);
/// What a busy PE sends goes at the end of a method, unless its last look at the network has ended within as long as it took, which is taken
/// for so long at least and at most.
const LOOKS_APART_NS: RangeInclusive<u64> = 3_000..=30_000;
/// How often another one looks whether that PE has become busy with something long.
const WATCH: Duration = Duration::from_millis(1);

/// What all processes of a job must have in common to run together: the program, and how many PEs each has.
pub(crate) fn identity(options: &Options) -> Result<Identity, SameId> {
    Ok(Identity::new(CodeTable::of_program()?.hash(), build(options)))
}

/// As `identity`, of processes that each run many programs, one after the other: this is one of them.
#[cfg(feature = "mpi")]
pub(crate) fn identity_of(program: &str, options: &Options) -> Result<Identity, SameId> {
    Ok(Identity::new(CodeTable::of_program()?.hash(), format!("{program}, {}", build(options))))
}

fn build(options: &Options) -> String {
    let program = std::env::current_exe().and_then(std::fs::metadata).map_or(0, |file| file.len());
    let version = env!("CARGO_PKG_VERSION");
    format!("chare {version}, a program of {program} bytes, --pes {}", options.pes())
}

/// What other processes have told of the run when it has ended.
#[derive(Default)]
struct Reports {
    /// From whom, and of which round.
    findings: FxHashMap<(Rank, Round), Findings>,
    hangs: Vec<(Rank, String)>,
    profiles: Vec<(Rank, Profile)>,
}

/// One process of a run that has several.
pub(crate) struct Job {
    outbox: Outbox,
    /// Whoever holds it makes progress. Gone when all have closed: what else is left of the run may live on.
    driver: Mutex<Option<Driver>>,
    /// Any PE may hold it, and not only the first one, on the thread that has made it.
    moves: bool,
    /// What arrives wakes a PE that sleeps.
    pub(crate) is_woken: bool,
    /// The reason that ends the run came from another process, or has been told to the others.
    has_told_end: AtomicBool,
    /// Tells others that are busy, and do not poll, that the run has ended badly.
    herald: Herald,
    /// Why it has ended badly.
    pub(crate) words: Arc<Words>,
    pub(crate) standings: Standings,
    /// What other processes have told of the run, at rank 0.
    reports: Mutex<Reports>,
    paths: Paths,
    lent: Lent,
    coming: Coming,
    /// The number of the next share that goes in pieces.
    next_share: AtomicU64,
}

impl Job {
    /// None if the job has this process only, which then runs as it would without a job.
    ///
    /// # Errors
    /// If device memory cannot take the path that is asked for; the same in all processes.
    pub(crate) fn new(
        process: Process,
        devices: &BoundDevices,
        options: &Options,
    ) -> Result<Option<Self>, StartError> {
        let Process { outbox, mut driver } = process;
        if outbox.facts().size() == 1 {
            leave(driver);
            return Ok(None);
        }
        let paths = match Paths::find(&outbox, &mut driver, Some(devices), options) {
            Ok(paths) => paths,
            Err(error) => {
                leave(driver);
                return Err(error);
            }
        };
        let (size, moves) = (outbox.facts().size(), outbox.facts().thread_level().lets_drivers_move());
        Ok(Some(Job {
            outbox,
            moves,
            is_woken: driver.is_woken(),
            herald: driver.herald(),
            driver: Mutex::new(Some(driver)),
            has_told_end: AtomicBool::new(false),
            words: Arc::default(),
            standings: Standings::new(size),
            reports: Mutex::default(),
            paths,
            lent: Lent::default(),
            coming: Coming::default(),
            next_share: AtomicU64::new(0),
        }))
    }

    pub(crate) fn facts(&self) -> &Facts {
        self.outbox.facts()
    }

    pub(crate) fn rank(&self) -> Rank {
        self.facts().rank()
    }

    fn next_share(&self) -> u64 {
        // Relaxed: only the number counts.
        self.next_share.fetch_add(1, Ordering::Relaxed)
    }

    /// All processes but this one.
    fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let own = self.rank();
        (0..self.facts().size()).map(|rank| Rank(rank as u32)).filter(move |rank| *rank != own)
    }

    /// Sends a note. After the end nobody needs it.
    fn tell(&self, to: Rank, note: &Note) {
        let _ = self.outbox.send(to, Frame::new(&note.to_bytes()));
    }

    /// Lets the other processes end too, unless they know.
    pub(crate) fn tell_end(&self, reason: &Arc<Reason>) {
        // Also if others have told of an end: what they know of may be a good one.
        self.tell_of_error(reason);
        if !self.has_told_end.swap(true, Ordering::SeqCst) {
            self.tell_others(&Note::End(Ending::of(reason)));
        }
    }

    /// Tells of an error in this process those that do not poll, be it that the others have been told of a good end before.
    pub(crate) fn tell_of_error(&self, reason: &Arc<Reason>) {
        if !reason.is_error_here() {
            return;
        }
        self.words.say_in_time(reason);
        // Who hangs is idle, and polls. An exit waits for what runs, as in one process.
        if let Ending::Failed(code) = Ending::of(reason) {
            self.herald.tell_end(code);
        }
    }

    fn tell_others(&self, note: &Note) {
        let bytes = note.to_bytes();
        self.others().for_each(|rank| drop(self.outbox.send(rank, Frame::new(&bytes))));
    }

    fn lock_driver(&self) -> MutexGuard<'_, Option<Driver>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver, unless another PE has it, or only another one may have it.
    fn try_driver(&self, pe: &Pe) -> Option<MutexGuard<'_, Option<Driver>>> {
        if !self.moves && pe.id() != pe.shared().first_pe() {
            return None;
        }
        match self.driver.try_lock() {
            Ok(driver) => Some(driver),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Moves what there is to move, unless another PE is doing that. True if something was. What has come for `pe` itself goes into its
    /// run queue if it `takes` messages, that is if it is active, and else into its inbox.
    pub(crate) fn poll(&self, pe: &Pe, takes: bool) -> bool {
        pe.crossing.has_sent.set(false);
        let Some(mut driver) = self.try_driver(pe) else { return false };
        let shared = pe.shared();
        let Some(driver) = driver.as_mut() else { return false };
        // What has been put into the inbox before comes before what the network has brought by now. Asked once that is here: what comes
        // into the inbox later is none that it follows.
        let skips_inbox = Cell::new(None);
        let to_queue = |to: PeId| {
            if to != pe.id() {
                return false;
            }
            let skips = skips_inbox.get().unwrap_or_else(|| takes && pe.mail_is_empty());
            skips_inbox.set(Some(skips));
            skips
        };
        let polled = driver.poll(&mut |from, frame| take_in(pe, from, frame, to_queue));
        if pe.crossing.look_ns.get() > 0 {
            pe.note_look(pe.crossing.look_ns.get());
        }
        match polled {
            Ok(progress) => progress == Progress::Busy,
            Err(error) => {
                shared.stop(reason_of(&error));
                true
            }
        }
    }

    /// Queues a frame; false if nothing is sent any more.
    ///
    /// A method that sends much need not end before what it has sent is under way: what fills a batch, is large, or comes behind more than is
    /// to be queued, has all flushed that has credit. That takes nothing and waits for nothing, neither for credit nor for the driver, so
    /// nothing waits for it in a circle. While there is no credit each such frame costs a look in vain, and is queued all the same.
    #[inline(always)]
    fn queue(&self, pe: &Pe, to: Rank, frame: Frame<'_>) -> bool {
        match self.outbox.send(to, frame) {
            Ok(Queued::Room) => true,
            Ok(Queued::Full | Queued::Pressed) => {
                self.flush(pe);
                true
            }
            Err(error) => {
                end_by_refusal(pe, &error);
                false
            }
        }
    }

    /// Sends what is queued and may go, unless another PE has the driver: that one will.
    #[cold]
    fn flush(&self, pe: &Pe) {
        if let Some(mut driver) = self.try_driver(pe)
            && let Some(Err(error)) = driver.as_mut().map(Driver::flush)
        {
            pe.shared().stop(reason_of(&error));
        }
    }

    /// How long an idle PE may sleep. The first one is woken by senders; the others look now and then whether it is busy with
    /// something long, and nobody drives.
    pub(crate) fn before_park(&self, pe: &Pe) -> Rest {
        if pe.id() != pe.shared().first_pe() {
            return Rest::AtMost(WATCH);
        }
        match self.driver.try_lock() {
            Ok(mut driver) => match driver.as_mut().map_or(Nap::UntilWoken, Driver::announce_nap) {
                Nap::Stay => Rest::LookFirst,
                Nap::Briefly => Rest::AtMost(NAP),
                // Another PE that looks takes the nap back, and may then be busy with something long.
                Nap::UntilWoken if pe.shared().own_pe_count() > 1 => Rest::AtMost(WATCH),
                Nap::UntilWoken => Rest::Unlimited,
            },
            Err(_) => Rest::AtMost(NAP),
        }
    }

    /// The PEs of this process do no more than end.
    pub(crate) fn begin_end(&self) {
        self.herald.begin_end();
    }

    /// Ends the process's part in the job, when its PEs have ended: what was sent is delivered, to nobody, and the others are awaited. What it has
    /// to report goes to rank 0, which has that of all then. Returns whether all others have ended theirs, too.
    pub(crate) fn close(&self, shared: &Shared, hang: &mut String, profile: &mut Option<Profile>) -> bool {
        if self.rank() != Rank(0) {
            if let Some(Reason::Hang) = shared.lock_reason().as_deref() {
                self.tell(Rank(0), &Note::Hang(hang.clone()));
            }
            if let Some(profile) = profile.take() {
                self.tell(Rank(0), &Note::Profile(profile));
            }
        }
        // What has gone wrong here since the others were told how the run ends. What has elsewhere they hear from there.
        let reason = shared.lock_reason().clone();
        if let Some(reason) = reason.filter(|reason| reason.code() != 0 && !reason.is_elsewhere()) {
            self.has_told_end.store(true, Ordering::SeqCst);
            self.tell_others(&Note::End(Ending::of(&reason)));
        }
        let mut place = self.lock_driver();
        let Some(driver) = place.as_mut() else { return true };
        driver.close();
        let have_all_closed = loop {
            let polled = driver.poll(&mut |from, frame| {
                if let Some(note) = Note::read(frame.header) {
                    self.heed_at_end(shared, from, note);
                }
            });
            match polled {
                Ok(Progress::Closed) => break true,
                Ok(Progress::Busy) => {}
                Ok(Progress::Idle) => thread::yield_now(),
                Err(error) => {
                    shared.spoil(reason_of(&error));
                    break false;
                }
            }
        };
        *place = None;
        self.lent.clear();
        self.coming.clear();
        let Reports { mut hangs, mut profiles, .. } = std::mem::take(&mut *lock(&self.reports));
        hangs.sort_by_key(|(rank, _)| *rank);
        hangs.into_iter().for_each(|(_, text)| hang.push_str(&text));
        profiles.sort_by_key(|(rank, _)| *rank);
        if let Some(profile) = profile {
            profiles.into_iter().for_each(|(rank, other)| profile.add(rank, other));
        }
        have_all_closed
    }

    fn heed_at_end(&self, shared: &Shared, from: Rank, note: Note) {
        match note {
            Note::End(ending) => shared.spoil(Reason::Elsewhere { rank: from, ending }),
            // Rank 0 hears them from all, and the others from rank 0.
            Note::Findings(round, findings) if self.rank() == Rank(0) || from == Rank(0) => {
                lock(&self.reports).findings.insert((from, round), findings);
            }
            Note::Findings(..) => {}
            Note::Hang(text) => lock(&self.reports).hangs.push((from, text)),
            Note::Profile(profile) => lock(&self.reports).profiles.push((from, profile)),
            Note::Idle(_) | Note::Ask(_) | Note::Confirm(_) | Note::Returned(_) | Note::Taken(_) => {}
        }
    }

    fn heed(&self, shared: &Shared, from: Rank, note: Note) {
        match note {
            Note::End(ending) => {
                self.has_told_end.store(true, Ordering::SeqCst);
                let reason = match ending {
                    Ending::Hang => Reason::Hang,
                    ending => Reason::Elsewhere { rank: from, ending },
                };
                // Where this process has begun to end well by itself, it has not ended well after all.
                if shared.is_stopping() { shared.spoil(reason) } else { shared.stop(reason) }
            }
            // Of a hang rank 0 has told before. What has been done may come before the news of the end, from another process than that.
            Note::Findings(..) | Note::Hang(_) if !shared.is_stopping() => return,
            Note::Findings(..) | Note::Hang(_) | Note::Profile(_) => self.heed_at_end(shared, from, note),
            Note::Idle(standing) => self.standings.note(from, standing),
            Note::Ask(round) => self.standings.asked(round),
            Note::Confirm(round) => self.standings.confirmed(from, round),
            Note::Returned(id) => return self.lent.take_back(from, id),
            // It is for a PE.
            Note::Taken(_) => return,
        }
        shared.wake(shared.first_pe());
    }
}

/// The processes of a job on the host of this one.
pub(crate) fn ranks_here(facts: &Facts) -> usize {
    facts.host_of(facts.rank()).map_or(1, |host| host.ranks.len())
}

/// Has the other processes of a job end that this one cannot begin.
pub(crate) fn decline(process: Process, why: &StartError) {
    if process.outbox.facts().size() == 1 {
        leave(process.driver);
    } else {
        paths::decline(process.driver, &why.to_string());
    }
}

/// Ends the part of a process that has nothing to say, with all others that have not.
pub(crate) fn leave(mut driver: Driver) {
    driver.close();
    while let Ok(Progress::Busy | Progress::Idle) = driver.poll(&mut |_, _| {}) {
        thread::yield_now();
    }
}

/// Has the first PE woken when there is something to drive while it naps, and the run ended when a process is lost.
pub(crate) fn let_driver_tell(shared: &Arc<Shared>) {
    let Some(job) = shared.job() else { return };
    if let Some(driver) = job.lock_driver().as_mut() {
        let weak = Arc::downgrade(shared);
        let upgraded = move || weak.upgrade().into_iter();
        let (of_alarm, for_devices) = (upgraded.clone(), upgraded.clone());
        driver.set_wake_hook(move || upgraded().for_each(|shared| shared.wake(shared.first_pe())));
        driver.set_device_memory(move |_, header, len| {
            for_devices().next().and_then(|shared| match coming::is_piece(header) {
                true => coming::make_room(&shared, len),
                false => straight::make_room(&shared, header, len),
            })
        });
        driver.on_alarm(move |alarm| of_alarm().for_each(|shared| heed_alarm(&shared, &alarm)));
    }
}

/// Does what is to be done when the thread that watches the other processes has told something.
fn heed_alarm(shared: &Shared, alarm: &Alarm) {
    let text = alarm.to_string();
    match alarm {
        Alarm::Lost(error) => shared.stop(reason_of(error)),
        // Nothing milder is sure to end a process whose threads may wait inside of MPI for the one that is lost.
        Alarm::Stuck(_) => {
            let words = shared.job().map(|job| job.words.clone());
            abort_after(WORDS_WITHIN, move || {
                words.iter().for_each(|words| words.say());
                say(&text);
            });
        }
        Alarm::Unwatched { .. } => {
            say_within(WORDS_WITHIN, move || say(&text));
        }
    }
}

/// A frame was refused. If that is because nothing is sent any more, whoever has ended the run has told why.
pub(crate) fn end_by_refusal(pe: &Pe, error: &SendError<'_>) {
    if error.refusal != Refusal::Closed {
        pe.shared().stop(Reason::Aborted(error.to_string()));
    }
}

fn reason_of(error: &Error) -> Reason {
    match error {
        Error::Lost { .. } | Error::Missed { .. } => Reason::Lost(error.to_string()),
        _ => Reason::Processes(error.to_string()),
    }
}

impl Pe {
    /// Whether what was sent to other processes, or is to be told, should be under way before anything else is done: not long after the last
    /// time it waits, since messages that leave together cost less. The clock is read only by who has sent and has more to do.
    pub(crate) fn is_to_flush(&self) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let now = self.now_ns();
        let is_due = now >= self.crossing.next_look_ns.get();
        if is_due {
            self.crossing.look_ns.set(now);
            self.crossing.next_look_ns.set(now + LOOKS_APART_NS.start());
        }
        is_due
    }

    /// A busy PE has looked at the network, and works for about as long before it looks again.
    #[cold]
    fn note_look(&self, began_ns: u64) {
        self.crossing.look_ns.set(0);
        let now = self.now_ns();
        let apart = (now - began_ns).clamp(*LOOKS_APART_NS.start(), *LOOKS_APART_NS.end());
        self.crossing.next_look_ns.set(now + apart);
    }

    /// Sends a message to a PE of another process; false if it cannot go there, which whoever waits for its outcome has been told.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_across(&self, to: PeId, msg: Msg) -> bool {
        let shared = self.shared();
        if to.index() >= self.pe_count() {
            shared.stop(Reason::Internal(format!("a message for {to:?}, of {}", self.pe_count())));
            return false;
        }
        if !msg.can_leave() {
            // Wakers are words of one memory, in which simulated processes are, too.
            if shared.job().is_none() && (waker::is_signal(&msg) || staged::is_bell(&msg)) {
                self.send_by_pointer(to, msg);
                return true;
            }
            let text = format!("{} cannot go to another process yet", msg.name());
            msg.lose(self, crate::error::CallError::Refused(text.into()));
            return false;
        }
        let (rank, number) = shared.place_of(to);
        let mut encoder = self.crossing.take_encoder();
        encoder.put_u32(number);
        let is_encoded = self.encode(|| msg.leave(&mut encoder)).is_ok();
        let mut is_sent = false;
        if is_encoded {
            if self.crossing.staged.lets_pass(rank, &encoder) {
                let beside = std::mem::take(&mut encoder.buffers);
                is_sent = self.send_frame(rank, &encoder.bytes, beside);
            } else {
                self.stage(rank, Some(to), &mut encoder);
                is_sent = true;
            }
        }
        self.crossing.put_encoder(encoder);
        is_sent
    }

    /// Sends what was encoded, beside which there is no device memory; false if nothing is sent any more.
    #[inline(always)]
    fn send_frame(&self, rank: Rank, header: &[u8], beside: Vec<Beside>) -> bool {
        let mut frame = Frame::new(header);
        if !beside.is_empty() {
            frame.buffers = beside.into_iter().filter_map(Beside::into_host).collect();
        }
        if frame.buffers.len() > MOST_BUFFERS
            && let Some(header) = packed::pack(&mut frame, MOST_BUFFERS)
        {
            return self.send_frame_of(rank, Frame { header: &header, buffers: frame.buffers });
        }
        self.send_frame_of(rank, frame)
    }

    #[inline(always)]
    fn send_frame_of(&self, rank: Rank, frame: Frame<'_>) -> bool {
        let Some(job) = self.shared().job() else {
            return self.send_simulated(rank, frame);
        };
        let is_queued = job.queue(self, rank, frame);
        if is_queued {
            self.crossing.has_sent.set(true);
        }
        is_queued
    }
}
