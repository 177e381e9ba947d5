//! All that the library knows, under one lock: contexts, memory, streams, events, modules, graphs.
//!
//! A handle is a number that is never given out twice, so one that was destroyed is told from one that lives. Contexts are
//! the primary ones of the devices; there are no others.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use crate::code::Code;
use crate::engine::{self, Work};
use crate::graph::Capture;
use crate::kernel::{Kernel, Registry};
use crate::memory::Memories;
use crate::module::Entry;
use crate::settings::Settings;

/// The library's state and its threads' means to wait.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    state: Mutex<State>,
    /// Something may have become runnable.
    pub(crate) runnable: Condvar,
    /// Something has finished.
    pub(crate) finished: Condvar,
    calls: Mutex<BTreeMap<String, u64>>,
}

/// What the lock guards.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) is_initialized: bool,
    pub(crate) contexts: Vec<Context>,
    pub(crate) memories: Memories,
    /// Host memory that was allocated or registered here, by address.
    pub(crate) pinned: BTreeMap<usize, Pinned>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) events: HashMap<u64, Event>,
    pub(crate) modules: HashMap<u64, Module>,
    pub(crate) functions: HashMap<u64, Function>,
    pub(crate) graphs: HashMap<u64, Vec<Work>>,
    pub(crate) executables: HashMap<u64, Executable>,
    pub(crate) captures: HashMap<u64, Capture>,
    pub(crate) random: u64,
    next_handle: u64,
}

/// The primary context of a device.
#[derive(Default)]
pub(crate) struct Context {
    pub(crate) retain_count: usize,
    pub(crate) fault: Option<Code>,
    /// The devices whose memory kernels of this one may touch.
    pub(crate) peers: BTreeSet<usize>,
}

/// Host memory that devices may touch at any time.
pub(crate) struct Pinned {
    pub(crate) len_bytes: usize,
    pub(crate) is_registered: bool,
}

/// A queue of work.
pub(crate) struct Stream {
    pub(crate) device: usize,
    pub(crate) queue: VecDeque<Work>,
    pub(crate) running: Option<Work>,
    pub(crate) is_destroyed: bool,
    pub(crate) capture: Option<u64>,
}

impl Stream {
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_none()
    }
}

/// How far the records of one event have got.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The records that have completed, and when the last one did.
    pub(crate) completed: Mutex<(u64, Option<Instant>)>,
}

impl Progress {
    pub(crate) fn has_reached(&self, count: u64) -> bool {
        self.completed.lock().expect("nothing panics under this lock").0 >= count
    }
}

/// An event.
pub(crate) struct Event {
    pub(crate) device: usize,
    pub(crate) is_timed: bool,
    /// How often it was recorded.
    pub(crate) recorded: u64,
    pub(crate) progress: Arc<Progress>,
    /// If it was last recorded in a capture: which, in which stream, after how many of its nodes.
    pub(crate) captured: Option<(u64, u64, u64)>,
}

/// A loaded module.
pub(crate) struct Module {
    pub(crate) device: usize,
    pub(crate) entries: Vec<Entry>,
}

/// A kernel of a loaded module.
pub(crate) struct Function {
    pub(crate) device: usize,
    pub(crate) module: u64,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) max_shared_bytes: u32,
}

/// A graph that can be launched.
pub(crate) struct Executable {
    pub(crate) device: usize,
    pub(crate) nodes: Vec<Work>,
}

thread_local! {
    /// The device whose context is current on this thread.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a context's handle is: this, plus the device.
const CONTEXT_HANDLE: u64 = 0x00C0_FFEE_0000;

/// The one world of this copy of the library.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    let mut is_new = false;
    let world = WORLD.get_or_init(|| {
        is_new = true;
        let settings = Settings::from_environment();
        let state = State {
            contexts: (0..settings.device_count).map(|_| Context::default()).collect(),
            random: settings.seed,
            next_handle: 0x1000_0000,
            ..State::default()
        };
        World {
            settings,
            registry: Registry::default(),
            state: Mutex::new(state),
            runnable: Condvar::new(),
            finished: Condvar::new(),
            calls: Mutex::default(),
        }
    });
    if is_new {
        engine::start(world);
    }
    world
}

impl World {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic in a driver function ends the process")
    }

    /// Counts a call of a driver function.
    pub(crate) fn count_call(&self, name: &str) {
        let mut calls = self.calls.lock().expect("nothing panics under this lock");
        match calls.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                calls.insert(name.to_owned(), 1);
            }
        }
    }

    pub(crate) fn call_count(&self, name: &str) -> u64 {
        self.calls.lock().expect("nothing panics under this lock").get(name).copied().unwrap_or(0)
    }

    /// What no correct program does: says so, and ends the process unless it is to be reported as `code`.
    pub(crate) fn misuse(&self, code: Code, what: &str) -> Code {
        eprintln!("cuda stand-in: misuse: {what}");
        if self.settings.aborts_on_misuse {
            std::process::abort();
        }
        self.count_call("misuse");
        code
    }

    /// Waits until `is_done`.
    pub(crate) fn wait_until(&self, mut is_done: impl FnMut(&State) -> bool) {
        let mut state = self.lock();
        while !is_done(&state) {
            state = self.finished.wait(state).expect("a panic in a driver function ends the process");
        }
    }
}

pub(crate) fn set_current(device: Option<usize>) {
    CURRENT.set(device);
}

pub(crate) fn current() -> Option<usize> {
    CURRENT.get()
}

pub(crate) fn context_handle(device: usize) -> u64 {
    CONTEXT_HANDLE + 16 * device as u64
}

impl State {
    pub(crate) fn new_handle(&mut self) -> u64 {
        self.next_handle += 16;
        self.next_handle
    }

    /// A number below `bound`, from the seed.
    pub(crate) fn draw(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    pub(crate) fn check_device(&self, device: i32) -> Result<usize, Code> {
        if !self.is_initialized {
            return Err(Code::NOT_INITIALIZED);
        }
        usize::try_from(device).ok().filter(|&index| index < self.contexts.len()).ok_or(Code::INVALID_DEVICE)
    }

    /// The device of a context's handle.
    pub(crate) fn device_of_context(&self, handle: u64) -> Result<usize, Code> {
        let retained =
            |&device: &usize| context_handle(device) == handle && self.contexts[device].retain_count > 0;
        (0..self.contexts.len())
            .find(retained)
            .ok_or_else(|| world().misuse(Code::INVALID_CONTEXT, "a context that is not retained"))
    }

    /// Fails if the device's context is poisoned.
    pub(crate) fn check_healthy(&self, device: usize) -> Result<(), Code> {
        self.contexts[device].fault.map_or(Ok(()), Err)
    }

    /// The device whose context is current and healthy.
    pub(crate) fn current(&self) -> Result<usize, Code> {
        let device =
            current().ok_or_else(|| world().misuse(Code::INVALID_CONTEXT, "no context is current"))?;
        self.check_healthy(device)?;
        Ok(device)
    }

    /// A stream of the context that is current.
    pub(crate) fn stream(&mut self, handle: u64) -> Result<&mut Stream, Code> {
        let device = self.current()?;
        let stream = self.streams.get_mut(&handle).filter(|stream| !stream.is_destroyed);
        let stream = stream.ok_or_else(|| {
            let what = if handle == 0 {
                "the null stream, which is not implemented"
            } else {
                "a stream that is not there"
            };
            world().misuse(Code::INVALID_HANDLE, what)
        })?;
        if stream.device != device {
            let what =
                format!("a stream of device {} while the context of {device} is current", stream.device);
            return Err(world().misuse(Code::INVALID_HANDLE, &what));
        }
        Ok(stream)
    }

    pub(crate) fn event(&mut self, handle: u64) -> Result<&mut Event, Code> {
        let fault = match self.events.get(&handle) {
            None => return Err(world().misuse(Code::INVALID_HANDLE, "an event that is not there")),
            Some(event) => self.contexts[event.device].fault,
        };
        fault.map_or_else(|| Ok(self.events.get_mut(&handle).expect("it was just there")), Err)
    }

    /// Everything queued or running, of all streams.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Work> {
        self.streams.values().flat_map(|stream| stream.running.iter().chain(&stream.queue))
    }

    /// Whether `len` bytes at a host address are pinned.
    pub(crate) fn is_pinned(&self, address: usize, len_bytes: usize) -> bool {
        let found = self.pinned.range(..=address).next_back();
        found.is_some_and(|(start, pinned)| address + len_bytes <= start + pinned.len_bytes)
    }

    /// Poisons a context: what is queued is dropped.
    pub(crate) fn poison(&mut self, device: usize, code: Code) {
        self.contexts[device].fault.get_or_insert(code);
        for stream in self.streams.values_mut().filter(|stream| stream.device == device) {
            stream.queue.clear();
        }
    }
}
