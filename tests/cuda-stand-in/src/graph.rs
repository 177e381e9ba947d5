//! Captures: what streams are given while they capture becomes the nodes of a graph.
//!
//! A capture begins in one stream, its *origin*. Another stream joins it by waiting for an event recorded in it, and must
//! be joined back, by an event that the origin waits for, after its last node. Nodes keep the order of the calls, which
//! respects all dependencies.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::thread::ThreadId;

use crate::code::Code;
use crate::engine::Work;
use crate::world::{State, world};

/// What a stream of a driver has room for, about.
const QUEUE_LENGTH: usize = 1024;

/// `CU_STREAM_CAPTURE_MODE_GLOBAL`: no thread may do what could break the capture.
pub(crate) const GLOBAL: u32 = 0;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: the thread that captures may not.
pub(crate) const THREAD_LOCAL: u32 = 1;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`: everybody may.
pub(crate) const RELAXED: u32 = 2;

/// A capture in progress.
pub(crate) struct Capture {
    pub(crate) origin: u64,
    mode: u32,
    thread: ThreadId,
    pub(crate) nodes: Vec<Work>,
    /// Nodes by stream.
    counts: HashMap<u64, u64>,
    /// Streams with nodes that the origin does not come after.
    unjoined: BTreeSet<u64>,
    is_invalid: bool,
}

impl State {
    pub(crate) fn begin_capture(&mut self, stream: u64, mode: u32) -> Result<(), Code> {
        if self.stream(stream)?.capture.is_some() || mode > RELAXED {
            return Err(world().misuse(Code::STREAM_CAPTURE_UNSUPPORTED, "a stream that captures already"));
        }
        let id = self.new_handle();
        let capture = Capture {
            origin: stream,
            mode,
            thread: std::thread::current().id(),
            nodes: Vec::new(),
            counts: HashMap::new(),
            unjoined: BTreeSet::new(),
            is_invalid: false,
        };
        self.captures.insert(id, capture);
        self.stream(stream)?.capture = Some(id);
        Ok(())
    }

    pub(crate) fn end_capture(&mut self, stream: u64) -> Result<Vec<Work>, Code> {
        let Some(id) = self.stream(stream)?.capture else {
            return Err(world().misuse(Code::STREAM_CAPTURE_UNMATCHED, "a stream that does not capture"));
        };
        if self.captures[&id].origin != stream {
            return Err(world().misuse(Code::STREAM_CAPTURE_UNMATCHED, "a capture ended in another stream"));
        }
        for stream in self.streams.values_mut().filter(|stream| stream.capture == Some(id)) {
            stream.capture = None;
        }
        let capture = self.captures.remove(&id).expect("a stream captures into one that is there");
        if capture.is_invalid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        if !capture.unjoined.is_empty() {
            return Err(world().misuse(Code::STREAM_CAPTURE_UNJOINED, "a forked stream was not joined"));
        }
        Ok(capture.nodes)
    }

    /// Fails, and spoils the captures concerned, if the calling thread may not do what could break one.
    pub(crate) fn check_no_capture(&mut self, what: &str) -> Result<(), Code> {
        let thread = std::thread::current().id();
        let concerned = |capture: &&mut Capture| {
            capture.mode == GLOBAL || capture.mode == THREAD_LOCAL && capture.thread == thread
        };
        let mut is_spoiled = false;
        for capture in self.captures.values_mut().filter(concerned) {
            capture.is_invalid = true;
            is_spoiled = true;
        }
        if is_spoiled {
            return Err(world().misuse(Code::STREAM_CAPTURE_UNSUPPORTED, &format!("{what} during a capture")));
        }
        Ok(())
    }

    /// Fails, and spoils its capture, if the stream captures.
    pub(crate) fn check_not_capturing(&mut self, stream: u64, what: &str) -> Result<(), Code> {
        let Some(id) = self.stream(stream)?.capture else { return Ok(()) };
        self.captures.get_mut(&id).expect("a stream captures into one that is there").is_invalid = true;
        Err(world().misuse(Code::STREAM_CAPTURE_UNSUPPORTED, &format!("{what} of a stream that captures")))
    }

    /// Queues an operation, or makes it a node of the capture that the stream is in.
    pub(crate) fn submit(&mut self, stream: u64, work: Work) -> Result<(), Code> {
        let target = self.stream(stream)?;
        match target.capture {
            None => {
                if target.queue.len() >= QUEUE_LENGTH {
                    world().count_call("full queues");
                }
                target.queue.push_back(work);
            }
            Some(id) => {
                let capture = self.captures.get_mut(&id).expect("a stream captures into one that is there");
                capture.nodes.push(work);
                *capture.counts.entry(stream).or_default() += 1;
                if stream != capture.origin {
                    capture.unjoined.insert(stream);
                }
            }
        }
        world().runnable.notify_all();
        Ok(())
    }

    pub(crate) fn record(&mut self, event: u64, stream: u64) -> Result<(), Code> {
        let (device, capture) = (self.stream(stream)?.device, self.stream(stream)?.capture);
        let count = capture.map_or(0, |id| self.captures[&id].counts.get(&stream).copied().unwrap_or(0));
        let recorded = self.event(event)?;
        if recorded.device != device {
            return Err(
                world().misuse(Code::INVALID_HANDLE, "an event recorded in a stream of another device")
            );
        }
        recorded.captured = capture.map(|id| (id, stream, count));
        if capture.is_some() {
            return Ok(());
        }
        recorded.recorded += 1;
        let (progress, count) = (recorded.progress.clone(), recorded.recorded);
        self.submit(stream, Work::Record { progress, count })
    }

    pub(crate) fn wait(&mut self, stream: u64, event: u64) -> Result<(), Code> {
        let capture = self.stream(stream)?.capture;
        let Some(awaited) = self.events.get(&event) else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a wait for an event that is not there"));
        };
        match (awaited.captured, capture) {
            (None, None) => {
                let (progress, count, source) = (awaited.progress.clone(), awaited.recorded, awaited.device);
                if count > 0 {
                    self.submit(stream, Work::Wait { progress, count, source })?;
                }
                Ok(())
            }
            (Some((id, from, count)), capture) if capture.is_none_or(|own| own == id) => {
                let Some(joined) = self.captures.get_mut(&id) else {
                    return Err(world()
                        .misuse(Code::CAPTURED_EVENT, "a wait for an event of a capture that has ended"));
                };
                if joined.counts.get(&from).copied().unwrap_or(0) == count {
                    joined.unjoined.remove(&from);
                }
                if stream != joined.origin {
                    joined.unjoined.insert(stream);
                }
                self.stream(stream)?.capture = Some(id);
                Ok(())
            }
            _ => {
                if let Some(capture) = capture.and_then(|id| self.captures.get_mut(&id)) {
                    capture.is_invalid = true;
                }
                let what = "a wait that would make a capture depend on work outside of it";
                Err(world().misuse(Code::STREAM_CAPTURE_ISOLATION, what))
            }
        }
    }
}

/// Whether a graph's executable can be updated to other nodes: each is of the same kind, and of the same kernel.
pub(crate) fn has_same_shape(one: &[Work], other: &[Work]) -> bool {
    let same = |pair: (&Work, &Work)| match pair {
        (Work::Kernel(one), Work::Kernel(other)) => Arc::ptr_eq(&one.kernel, &other.kernel),
        (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}
