//! The thread of a device: it records, submits, looks, and reports. The argument is in the module above.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wgpu::{CommandBuffer, MapMode, PollType, SubmissionIndex};

use super::errors::scoped;
use super::inbox::{Contents, Job, Missing, Relay, Shared};
use super::record::Recorder;
use super::staging::{Chunk, Piece};
use super::stamps::{Stamps, times};
use crate::caught::{Caught, catch};
use crate::completion::Cell;
use crate::error::DeviceError;
use crate::fault::FaultRecord;
use crate::memory::{Memory, MemoryRef};
use crate::operation::{Command, HostRange, Operation};
use crate::usage::Spent;
use crate::watchdog::overdue;

/// Jobs that are submitted together at most: an end waits for those of as many others.
pub(super) const JOBS_PER_BATCH: usize = 64;

/// Batches that the device has at most, if there is no time limit.
pub(super) const BATCHES_IN_FLIGHT: usize = 2;

/// How long the thread waits for a batch before it looks for new jobs.
pub(super) const LOOK: Duration = Duration::from_micros(250);

/// Drives one device.
pub(super) struct Driver {
    shared: Arc<Shared>,
    recorder: Recorder,
    /// Taken from the inbox, and not yet recorded.
    taken: VecDeque<Job>,
    /// What is taken is refused.
    abandoned: bool,
    /// What is being recorded.
    recorded: Batch,
    /// Submitted, oldest first.
    in_flight: VecDeque<Batch>,
    /// When the last batch had ended.
    last_end: Instant,
}

/// Jobs that go to the device together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) commands: Vec<CommandBuffer>,
    pub(super) uploads: Vec<Chunk>,
    pub(super) downloads: Vec<Chunk>,
    pub(super) uniforms: Vec<Chunk>,
    /// If it has launches that are timed, on a device with a clock.
    pub(super) stamps: Option<Stamps>,
    /// What is to be done when the device has done its part, in order.
    ends: VecDeque<End>,
    index: Option<SubmissionIndex>,
    submitted: Option<Instant>,
    progress: Arc<Progress>,
    /// Why all of it failed.
    failed: Option<String>,
}

/// How far a batch is, as callbacks of wgpu note it.
#[derive(Default)]
struct Progress {
    /// Callbacks that have not been called.
    left: AtomicUsize,
    /// What was downloaded cannot be read.
    is_unread: AtomicBool,
}

/// The end of one job.
enum End {
    /// It has been left already.
    Left(Arc<Cell>),
    Operation {
        operation: Box<Operation>,
        download: Option<Piece>,
        /// Which of the stamps of the batch are its own.
        stamp: Option<u32>,
    },
    Export {
        /// Kept until it has been read.
        memory: MemoryRef,
        relay: Arc<Relay>,
        download: Option<Piece>,
    },
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, DeviceError> {
        let recorder = Recorder::new(shared.clone());
        let recorder = recorder.map_err(|reason| DeviceError::NotFound { what: "wgpu adapter", reason })?;
        let (taken, recorded, in_flight) = Default::default();
        let last_end = Instant::now();
        Ok(Driver { shared, recorder, taken, abandoned: false, recorded, in_flight, last_end })
    }

    /// Does what is put into the inbox until it is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            match catch(|| self.step()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(caught) => self.shared.lose(&format!("wgpu panicked: {}", caught.message)),
            }
        }
    }

    /// One round. False at the end.
    fn step(&mut self) -> bool {
        // Where there is a limit nothing is submitted while a batch is looked after, since `submit` may block until it has ended.
        let most = if self.shared.time_limit.is_some() { 1 } else { BATCHES_IN_FLIGHT };
        let has_room = self.in_flight.len() < most;
        if has_room && self.taken.is_empty() && !self.take() {
            return false;
        }
        let lost = self.shared.lost();
        if let Some(why) = &lost {
            for batch in &mut self.in_flight {
                batch.fail(&is_lost(why));
            }
        }
        if has_room {
            while let Some(job) = self.taken.pop_front() {
                self.begin(job, lost.as_deref());
            }
        }
        let has_submitted = !self.recorded.ends.is_empty();
        if has_submitted {
            self.submit();
        }
        self.look(has_submitted && has_room);
        true
    }

    /// Takes the jobs that can begin. With nothing to do it sleeps; false if there will be nothing more.
    fn take(&mut self) -> bool {
        let mut inbox = self.shared.inbox();
        loop {
            self.abandoned = inbox.abandoned;
            let limit = JOBS_PER_BATCH;
            while let Some(job) = inbox.jobs.front()
                && self.taken.len() < limit
                && (job.is_ready() || inbox.abandoned)
            {
                self.taken.extend(inbox.jobs.pop_front());
            }
            if !self.taken.is_empty() || !self.in_flight.is_empty() {
                return true;
            }
            if inbox.closed && inbox.jobs.is_empty() {
                return false;
            }
            inbox = self.shared.sleep(inbox);
        }
    }

    /// Records a job, or leaves it with a fault.
    fn begin(&mut self, job: Job, lost: Option<&str>) {
        let end = match job {
            Job::Export { relay, .. } if self.abandoned => return relay.fill(Err(Missing::Abandoned)),
            Job::Export { memory, relay } => match self.begin_export(&memory, lost) {
                Ok(download) => End::Export { memory, relay, download },
                Err(missing) => {
                    drop(memory);
                    return relay.fill(Err(missing));
                }
            },
            Job::Operation(operation) | Job::Import { operation, .. } if self.abandoned => {
                self.refuse(operation)
            }
            Job::Operation(operation) => {
                let stamped = self.recorded.stamp_count();
                let begun = operation.enter().and_then(|()| self.record(&operation, None, lost));
                let stamp = (self.recorded.stamp_count() > stamped).then_some(stamped);
                finish_beginning(operation, begun, stamp)
            }
            Job::Import { operation, relay } => match relay.take() {
                Err(Missing::Abandoned) => self.refuse(operation),
                Err(Missing::Spoiled(fault)) => End::Left(operation.leave(Err(fault))),
                Err(Missing::Unread(said)) => {
                    let fault = fault(&operation, said);
                    End::Left(operation.leave(Err(fault)))
                }
                // Whether the source was worth anything has been found when it was exported.
                Ok(bytes) => {
                    let begun = self.record(&operation, Some(&bytes), lost);
                    finish_beginning(operation, begun, None)
                }
            },
        };
        self.recorded.ends.push_back(end);
    }

    fn refuse(&self, operation: Box<Operation>) -> End {
        let name = self.shared.name(operation.device);
        End::Left(operation.refuse(name))
    }

    fn begin_export(&mut self, memory: &Memory, lost: Option<&str>) -> Result<Option<Piece>, Missing> {
        if let Some(fault) = memory.poison() {
            return Err(Missing::Spoiled(fault));
        }
        if let Some(why) = lost {
            return Err(Missing::Unread(is_lost(why)));
        }
        let recorded = catch(|| self.recorder.record_export(&mut self.recorded, memory));
        recorded.unwrap_or_else(|caught| Err(caught.message.to_string())).map_err(Missing::Unread)
    }

    fn record(
        &mut self,
        operation: &Operation,
        imported: Option<&[u8]>,
        lost: Option<&str>,
    ) -> Result<Option<Piece>, Arc<FaultRecord>> {
        if let Some(why) = lost {
            return Err(fault(operation, is_lost(why)));
        }
        if matches!(operation.command, Command::Fence) {
            return Ok(None);
        }
        match catch(|| self.recorder.record(&mut self.recorded, operation, imported)) {
            Ok(recorded) => recorded.map_err(|said| self.fault_of(operation, said)),
            Err(caught) => Err(operation.record_fault(caught)),
        }
    }

    /// The fault of an operation that cannot be recorded.
    #[cold]
    fn fault_of(&mut self, operation: &Operation, said: String) -> Arc<FaultRecord> {
        let wrong = match &operation.command {
            Command::Graph(plan) => {
                catch(|| self.recorder.find_wrong(&mut self.recorded, operation, plan)).ok().flatten()
            }
            _ => None,
        };
        match wrong {
            Some(kernel) => {
                operation.record_fault_of(kernel, Caught { message: said.into(), location: None })
            }
            None => fault(operation, said),
        }
    }

    /// Hands what has been recorded to the device.
    fn submit(&mut self) {
        let Driver { shared, recorded, recorder, in_flight, .. } = self;
        // From here on it is in flight, so that it is ended whatever happens.
        in_flight.push_back(std::mem::take(recorded));
        #[cfg(test)]
        shared.note_submitted(in_flight.back().map_or(0, |batch| batch.ends.len()), in_flight.len());
        let batch = in_flight.back_mut().expect("one has been put there");
        recorder.resolve(batch);
        let commands = std::mem::take(&mut batch.commands);
        batch.submitted = Some(Instant::now());
        if commands.is_empty() {
            return;
        }
        batch.uploads.iter().for_each(|chunk| chunk.buffer.unmap());
        let submitted = scoped(&shared.device, || {
            batch.index = Some(shared.queue.submit(commands));
            let progress = &batch.progress;
            progress.left.store(1 + batch.downloads.len(), Ordering::Relaxed);
            let done = progress.clone();
            shared.queue.on_submitted_work_done(move || done.count_down(true));
            for chunk in &batch.downloads {
                let done = progress.clone();
                chunk.buffer.map_async(MapMode::Read, .., move |mapped| done.count_down(mapped.is_ok()));
            }
        });
        if let Err(said) = submitted {
            batch.fail(&said);
        }
    }

    /// Looks at the oldest batch, waits for it a little unless there is something else to do, and ends those that are done.
    fn look(&mut self, at_once: bool) {
        if let Some(Batch { index: Some(index), progress, .. }) = self.in_flight.front()
            && !progress.is_done()
        {
            let wait = PollType::Wait { submission_index: Some(index.clone()), timeout: Some(LOOK) };
            // That it takes longer is no error, and why a device is lost is told to the callback.
            let _ = self.shared.device.poll(if at_once { PollType::Poll } else { wait });
        }
        while self.in_flight.front().is_some_and(|batch| batch.progress.is_done()) {
            self.end_first();
        }
        let since = self.in_flight.front().and_then(|batch| batch.submitted);
        if let (Some(limit), Some(since)) = (self.shared.time_limit, since)
            && since.max(self.last_end).elapsed() > limit
        {
            // All that is in flight is given up in the next round.
            self.shared.lose(&overdue(limit).message);
        }
    }

    fn end_first(&mut self) {
        let share = self.in_flight.front().and_then(|batch| batch.share(self.last_end));
        let tick_ns = self.shared.tick_ns;
        let measured = self.in_flight.front().and_then(|batch| batch.times(tick_ns?)).unwrap_or_default();
        self.last_end = Instant::now();
        while let Some(batch) = self.in_flight.front_mut()
            && let Some(end) = batch.ends.pop_front()
        {
            let failed = batch.failed.clone();
            match end {
                End::Left(completion) => self.publish(&completion),
                End::Export { memory, relay, download } => {
                    let contents = batch.exported(failed, download);
                    // Who waits for the copy finds the memory free.
                    drop(memory);
                    relay.fill(contents);
                }
                End::Operation { mut operation, download, stamp } => {
                    let time = stamp.and_then(|stamp| *measured.get(stamp as usize)?);
                    operation.spent = time.map(Spent::measured).or(share).filter(|_| operation.is_timed);
                    let outcome = match failed {
                        Some(said) => Err(said),
                        None => batch.downloaded(&operation, download),
                    };
                    let outcome = outcome.map_err(|said| fault(&operation, said));
                    let completion = operation.leave(outcome);
                    self.publish(&completion);
                }
            }
        }
        let Some(batch) = self.in_flight.pop_front() else { return };
        if batch.failed.is_none() {
            self.recycle(batch);
        }
    }

    fn publish(&self, completion: &Arc<Cell>) {
        completion.publish();
        self.shared.pending.end();
    }

    /// Keeps the staging memory of a batch for later ones.
    fn recycle(&mut self, batch: Batch) {
        let Batch { uploads, downloads, uniforms, stamps, index, .. } = batch;
        if let Some(stamps) = stamps {
            self.recorder.give_back(stamps);
        }
        if index.is_some() {
            downloads.iter().for_each(|chunk| chunk.buffer.unmap());
            self.recorder.uploads.give_back(uploads);
            self.recorder.downloads.give_back(downloads);
            self.recorder.uniforms.give_back(uniforms);
            // Nothing uses them, so this maps those for uploads; it waits for nothing, as above.
            let _ = self.shared.device.poll(PollType::Poll);
        }
    }
}

/// The end of an operation that has begun, or not.
fn finish_beginning(
    operation: Box<Operation>,
    begun: Result<Option<Piece>, Arc<FaultRecord>>,
    stamp: Option<u32>,
) -> End {
    match begun {
        Ok(download) => End::Operation { operation, download, stamp },
        Err(fault) => End::Left(operation.leave(Err(fault))),
    }
}

fn is_lost(why: &str) -> String {
    format!("the device is lost: {why}")
}

#[cold]
fn fault(operation: &Operation, said: String) -> Arc<FaultRecord> {
    operation.record_fault(Caught { message: said.into(), location: None })
}

impl Progress {
    fn is_done(&self) -> bool {
        // Pairs with the release in `count_down`.
        self.left.load(Ordering::Acquire) == 0
    }

    fn count_down(&self, is_read: bool) {
        if !is_read {
            self.is_unread.store(true, Ordering::Relaxed);
        }
        self.left.fetch_sub(1, Ordering::Release);
    }
}

impl Batch {
    /// What each of its launches took, if it was the device's since its submission, or the end of the batch before it.
    fn share(&self, last_end: Instant) -> Option<Spent> {
        let is_timed = |end: &&End| matches!(end, End::Operation { operation, .. } if operation.is_timed);
        let launches = u32::try_from(self.ends.iter().filter(is_timed).count()).ok()?;
        let time = self.submitted?.max(last_end).elapsed().checked_div(launches)?;
        Some(Spent { time, is_estimated: true })
    }

    /// How many operations note when they begin and end.
    pub(super) fn stamp_count(&self) -> u32 {
        self.stamps.as_ref().map_or(0, Stamps::count)
    }

    /// What these have noted.
    fn times(&self, tick_ns: f64) -> Option<Vec<Option<Duration>>> {
        let piece = self.stamps.as_ref()?.piece().filter(|_| self.failed.is_none())?;
        self.read(piece, |stamps| times(stamps, tick_ns)).ok()
    }

    /// Gives it up; callbacks that are still called find nobody who looks.
    fn fail(&mut self, why: &str) {
        self.failed.get_or_insert_with(|| why.to_owned());
        self.progress = Arc::default();
    }

    /// Reads what has been downloaded.
    fn read<R>(&self, piece: Piece, read: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        if self.progress.is_unread.load(Ordering::Relaxed) {
            return Err("what was downloaded cannot be read".to_owned());
        }
        let outcome = catch(|| piece.read(&self.downloads, read));
        outcome.unwrap_or_else(|caught| Err(caught.message.to_string()))
    }

    fn exported(&self, failed: Option<String>, piece: Option<Piece>) -> Contents {
        let read = match (failed, piece) {
            (Some(said), _) => Err(said),
            (None, None) => Ok(Vec::new()),
            (None, Some(piece)) => self.read(piece, <[u8]>::to_vec),
        };
        read.map_err(Missing::Unread)
    }

    /// Copies what an operation has downloaded to where it wants it.
    fn downloaded(&self, operation: &Operation, piece: Option<Piece>) -> Result<(), String> {
        let (Command::Download(HostRange { address, bytes, .. }), Some(piece)) = (&operation.command, piece)
        else {
            return Ok(());
        };
        self.read(piece, |read| {
            let read = &read[..*bytes];
            // SAFETY: the range is valid until the operation has ended, and nobody else uses it; it is no memory of wgpu's.
            unsafe { address.copy_from_nonoverlapping(NonNull::from(read).cast(), *bytes) };
        })
    }
}
