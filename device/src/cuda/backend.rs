//! The `cuda` backend: the operations of accounts as work of CUDA streams.
//!
//! An operation is given to the driver when it is submitted, unless its stream is full ([`held`]), behind the marks of what it must
//! come after, and gets an event of its own. It ends when somebody looks: its mark is reached, and all that it came after has ended. So operations
//! end in an order that their accesses ask for, and only then each finds its inputs spoiled, or whole. Until then it may run
//! on spoiled inputs; their bytes are some.
//!
//! But what is known to be spoiled when an operation is submitted is not run on: neither the operation nor what depends on it is
//! given to the driver ([`Live::is_void`]). Whether it is so is asked of the operation that will have written the input last, if
//! that has not ended, and of the memory otherwise.
//!
//! One lock holds the order of all devices, from [`Operation::order`] to the driver's calls. Nothing that may lead back
//! here (memory that is dropped, wakers) happens under it.

mod held;
mod lending;
mod notify;
mod overdue;

use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use super::error::{CudaError, DeviceFault};
use super::functions::FunctionKey;
use super::kernel::{Extent, Function, Parameters};
use super::lane::{Mark, Progress};
use super::machine::{Gpu, Settings};
use super::memory::Block;
use super::open::Cuda;
use super::pinned::{self, Pinned};
use super::raw::RegisteredMemory;
use super::stream::{Priority, Stream, Timer};
use crate::backend::{Backend, Block as Name, Facts, Fresh, Opened};
use crate::caught::{Caught, catch};
use crate::enqueue::OtherCode;
use crate::error::{DeviceError, DriverMemory};
use crate::event::{Event, LiveMap, StreamKey};
use crate::fault::FaultRecord;
use crate::kernel::{Code as KernelCode, Language};
use crate::launch::Launch;
use crate::lending::Exported;
use crate::operation::{AccessMode, Command, HostRange, InFlight, Operation};
use crate::sleepers::{Pending, Rest, Sleepers};
use crate::spec::DeviceSpec;
use crate::usage::Spent;

/// Opens the GPUs with these numbers and no others, or all if there are none.
pub(crate) fn open(numbers: &[usize], spec: &DeviceSpec) -> Result<Opened, CudaError> {
    let settings = Settings::default();
    let cuda = match numbers {
        [] => Cuda::open(settings.clone())?,
        numbers => Cuda::open_only(settings.clone(), numbers)?,
    };
    let gpus: Vec<Gpu> = cuda.gpus().collect();
    let facts = |gpu: &Gpu| Facts {
        name: Arc::from(gpu.name()),
        uuid: gpu.uuid(),
        speed: 1.0,
        model: Some(gpu.product().to_owned()),
        capacity_bytes: spec.capacity_bytes().unwrap_or(u64::MAX).min(gpu.total_bytes() as u64),
        max_buffer_bytes: u64::MAX,
        language: Language::CudaC,
        is_host_memory: false,
        runs_at_once: false,
    };
    let devices = gpus.iter().map(facts).collect();
    let queue = |gpu: &Gpu, lane| Queue {
        stream: Stream { gpu: gpu.clone(), lane },
        given: VecDeque::new(),
        held: VecDeque::new(),
        timers: Vec::new(),
        notified: None,
    };
    let queues = |gpu: &Gpu| (0..2 * settings.stream_count).map(|lane| queue(gpu, lane)).collect();
    let state = State {
        next_event: 0,
        live: LiveMap::default(),
        queues: gpus.iter().map(queues).collect(),
        lost: vec![None; gpus.len()],
        parameters: Parameters::new(),
        ended: Vec::new(),
        runner: None,
        looks: 0,
        held_count: 0,
        deserted: Vec::new(),
        closed: false,
        abandoned: false,
    };
    let backend = Gpus {
        cuda,
        gpus,
        memory: Mutex::default(),
        borrowed: Mutex::default(),
        pinned: Mutex::default(),
        registered: Mutex::default(),
        functions: Mutex::default(),
        state: Mutex::new(state),
        full_at: settings.full_at as usize,
        limit: spec.time_limit(),
        pending: Pending::default(),
        sleepers: Arc::default(),
        inside: Mutex::default(),
    };
    Ok(Opened { backend: Arc::new(backend), devices })
}

/// The devices of one set.
pub(super) struct Gpus {
    cuda: Cuda,
    /// By ordinal.
    pub(super) gpus: Vec<Gpu>,
    /// What has been allocated, or borrowed, by address.
    memory: Mutex<HashMap<u64, Block>>,
    /// How often each block of another process is borrowed, by address. These are in `memory` too.
    borrowed: Mutex<HashMap<u64, usize>>,
    pinned: Mutex<HashMap<usize, Pinned>>,
    /// Memory of the program's that is pinned where it is.
    registered: Mutex<HashMap<usize, RegisteredMemory>>,
    functions: Mutex<HashMap<FunctionKey, Arc<Function>>>,
    state: Mutex<State>,
    /// From so many calls on, the driver may block whoever gives a stream more.
    full_at: usize,
    /// For the time that an operation may be the first of its stream.
    limit: Option<Duration>,
    pending: Pending,
    sleepers: Arc<Sleepers>,
    /// The thread that calls code of others with the state locked.
    inside: Mutex<Option<ThreadId>>,
}

struct State {
    next_event: u64,
    /// The operations that have not ended.
    live: LiveMap<Live>,
    /// By device and lane.
    queues: Vec<Vec<Queue>>,
    /// By device: the fault that it was lost with.
    lost: Vec<Option<Arc<FaultRecord>>>,
    /// Of the launch that is being submitted; kept for its memory, as `ended` is.
    parameters: Parameters,
    ended: Vec<Given>,
    /// The thread that ends operations.
    runner: Option<ThreadId>,
    looks: u64,
    /// Those in the `held` of all queues.
    held_count: usize,
    /// What lost devices may still use.
    #[allow(clippy::vec_box, reason = "operations move by pointer everywhere")]
    deserted: Vec<Box<Operation>>,
    closed: bool,
    abandoned: bool,
}

/// What others ask of an operation that has not ended.
#[derive(Clone, Copy)]
struct Live {
    /// Where it stands in its stream. Of one that was refused there may be nothing on the device.
    mark: Option<Mark>,
    /// It is known to fail: what it was to write will be spoiled.
    is_void: bool,
    /// The driver has not been given it.
    is_held: bool,
    /// The device, and its stream.
    lane: (u16, u16),
}

/// What a stream has been given and has not ended, oldest first.
struct Queue {
    stream: Stream,
    given: VecDeque<Given>,
    /// What comes after that, and has not been given to the driver.
    held: VecDeque<Given>,
    /// Those of launches that have ended.
    timers: Vec<Timer>,
    /// A notification has been asked for behind this one.
    notified: Option<Event>,
}

/// An operation that has been submitted.
struct Given {
    event: Event,
    mark: Option<Mark>,
    /// Why it cannot succeed.
    fault: Option<Arc<FaultRecord>>,
    /// Takes the time of a launch of which a record is kept.
    timer: Option<Timer>,
    /// When somebody has first seen it at the head of its stream, if there is a limit for that.
    since: Option<Instant>,
    fate: Fate,
    /// It ends when its mark is reached, and all that it comes `after` has ended.
    operation: Box<Operation>,
}

/// How an operation ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It has been done, or has failed.
    Done,
    /// The devices were abandoned before the driver was given it.
    Refused,
    /// The driver may still be at it.
    Deserted,
}

/// Finds those that an operation must come after on the device, but for those of its own stream.
struct Earlier<'a> {
    live: &'a LiveMap<Live>,
    lane: (u16, u16),
    events: Vec<Event>,
}

impl InFlight for Earlier<'_> {
    fn wait_for(&mut self, earlier: Event) {
        if let Some(live) = self.live.get(&earlier)
            && live.lane != self.lane
            && !self.events.contains(&earlier)
        {
            self.events.push(earlier);
        }
    }

    fn contains(&self, event: Event) -> bool {
        self.live.contains_key(&event)
    }
}

impl Gpus {
    /// # Panics
    ///
    /// In code of others that is called with this lock held.
    fn state(&self) -> MutexGuard<'_, State> {
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::WouldBlock) => {
                self.check_outside();
                self.state.lock().expect("nothing panics under this lock")
            }
            Err(TryLockError::Poisoned(_)) => panic!("nothing panics under this lock"),
        }
    }

    /// Panics in code of others that is called with the state locked.
    fn check_outside(&self) {
        let inside = *self.inside();
        assert!(
            inside != Some(std::thread::current().id()),
            "the code given to `enqueue_cuda` must not use its devices otherwise"
        );
    }

    fn inside(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, HashMap<u64, Block>> {
        self.memory.lock().expect("nothing panics under this lock")
    }

    pub(super) fn functions(&self) -> MutexGuard<'_, HashMap<FunctionKey, Arc<Function>>> {
        self.functions.lock().expect("nothing panics under this lock")
    }

    /// Gives an operation to the driver, behind these marks.
    fn give(
        &self,
        stream: &Stream,
        operation: &Operation,
        after: impl Iterator<Item = Mark>,
        parameters: &mut Parameters,
        timer: Option<&Timer>,
    ) -> Result<Mark, CudaError> {
        wait_for(stream, after)?;
        let memory = self.memory();
        let find = |name: Name| memory.get(&address_of(name)).expect("an operation keeps its memory");
        let block = |index: usize| find(operation.accesses[index].memory.block());
        for (from, to, len_bytes) in operation.snapshot_copies().filter(|(_, _, len_bytes)| *len_bytes > 0) {
            stream.copy((find(to), 0), (find(from), 0), len_bytes)?;
        }
        match &operation.command {
            Command::Launch { code, launch } => {
                for access in operation.accesses.iter().filter(|access| access.mode == AccessMode::Zeroed) {
                    zero(stream, find(access.memory.block()), access.memory.len_bytes())?;
                }
                drop(memory);
                timer.inspect(|timer| stream.note_time(timer, false));
                self.launch(stream, operation, code, launch, parameters)?;
                timer.inspect(|timer| stream.note_time(timer, true));
            }
            Command::Graph(plan) => {
                drop(memory);
                timer.inspect(|timer| stream.note_time(timer, false));
                self.replay(stream, operation, plan)?;
                timer.inspect(|timer| stream.note_time(timer, true));
            }
            Command::Code { name, code } => {
                for access in operation.accesses.iter().filter(|access| access.mode == AccessMode::Zeroed) {
                    stream.fill(find(access.memory.block()), 0)?;
                }
                drop(memory);
                let code = code.lock().expect("nothing panics under this lock").take();
                timer.inspect(|timer| stream.note_time(timer, false));
                self.call(stream, name, code.expect("an operation is given to the driver once"))?;
                timer.inspect(|timer| stream.note_time(timer, true));
            }
            Command::Copy => {
                let len_bytes = operation.accesses[0].memory.len_bytes();
                if len_bytes > 0 {
                    stream.copy((block(1), 0), (block(0), 0), len_bytes)?;
                }
            }
            Command::Zero => zero(stream, block(0), operation.accesses[0].memory.len_bytes())?,
            Command::Upload(range) | Command::Download(range) if range.bytes == 0 => {}
            Command::Upload(HostRange { address, bytes, at_bytes }) => {
                // SAFETY: it is pinned memory of this set, or was pinned by it, and valid and nobody else's until the operation has ended: when its
                // mark is reached or the device lost.
                unsafe { stream.upload_from((block(0), *at_bytes), (*address, *bytes)) }?;
            }
            Command::Download(HostRange { address, bytes, at_bytes }) => {
                // SAFETY: as above.
                unsafe { stream.download_to((block(0), *at_bytes), (*address, *bytes)) }?;
            }
            Command::Fence => {}
        }
        stream.mark()
    }

    /// Calls code of others, which gives work to the stream.
    fn call(&self, stream: &Stream, name: &'static str, code: OtherCode) -> Result<(), CudaError> {
        *self.inside() = Some(std::thread::current().id());
        // SAFETY: what is unsafe in the code answers for what it gives to the stream (`Account::enqueue_cuda`). The operation keeps
        // the memory until it has ended, so no blocks need to be noted.
        let called = unsafe { stream.enqueue(name, &[], |raw| catch(|| code(raw))) };
        *self.inside() = None;
        let failed = match called?.0 {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(said)) => said,
            Err(Caught { message, location: Some(place) }) => format!("{message}, at {place}"),
            Err(Caught { message, location: None }) => message.to_string(),
        };
        let device = Arc::from(stream.gpu().name());
        Err(CudaError::Launch { kernel: name, device, reason: failed })
    }

    fn launch(
        &self,
        stream: &Stream,
        operation: &Operation,
        code: &KernelCode,
        launch: &Launch,
        parameters: &mut Parameters,
    ) -> Result<(), CudaError> {
        let function = self.function(operation.device, code)?;
        let grid = launch.grid();
        parameters.pack(operation.arguments.bytes(), [grid.x, grid.y, grid.z]);
        let extent = Extent::of(code, grid);
        // SAFETY: these are the parameters of the kernel, as far as its declaration and its source agree. The operation keeps
        // the memory until it has ended, when its mark is reached or the device lost; so no blocks need to be noted.
        unsafe { stream.launch(&function, &extent, parameters, &[]) }.map(drop)
    }

    /// Why an operation that is being submitted, or is in flight, fails.
    #[cold]
    fn refuse(&self, state: &mut State, error: CudaError, operation: &Operation) -> Arc<FaultRecord> {
        match error {
            CudaError::Fault(fault) => self.lose(state, &fault, Some(operation)),
            other => {
                let caught = Caught { message: other.to_string().into(), location: None };
                match other {
                    // Of a graph it is one kernel that the driver refuses.
                    CudaError::Launch { kernel, .. } => operation.record_fault_of(kernel, caught),
                    _ => operation.record_fault(caught),
                }
            }
        }
    }

    /// Notes that a device is lost. The fault is that of the operation that is to blame, as far as can be told.
    #[cold]
    fn lose(
        &self,
        state: &mut State,
        fault: &DeviceFault,
        submitted: Option<&Operation>,
    ) -> Arc<FaultRecord> {
        let found = self.gpus.iter().position(|gpu| gpu.name() == &*fault.device);
        let device = found.expect("work is given to devices of the set");
        if let Some(record) = &state.lost[device] {
            return record.clone();
        }
        let gpu = &self.gpus[device];
        let is_unfinished =
            |given: &&Given| given.mark.is_none_or(|mark| matches!(gpu.query(mark), Progress::Fault(_)));
        let given = state.queues[device].iter().flat_map(|queue| &queue.given).filter(is_unfinished);
        let mut unfinished = given.map(|given| &*given.operation).chain(submitted);
        let is_suspect = |operation: &&Operation| match &operation.command {
            Command::Launch { code, .. } => fault.suspects.contains(&code.name),
            Command::Graph(plan) => fault.suspects.contains(&plan.name),
            Command::Code { name, .. } => fault.suspects.contains(name),
            _ => false,
        };
        let suspect = unfinished.clone().find(is_suspect);
        let mut message = match (suspect, fault.suspects.as_slice()) {
            (Some(_), [_]) => format!("{}; the device cannot be used again by this process", fault.status),
            _ => fault.to_string(),
        };
        let blamed = suspect.or_else(|| unfinished.next()).expect("a fault is seen by an operation");
        let kernels = match &blamed.command {
            Command::Graph(plan) => plan.kernels(),
            _ => Vec::new(),
        };
        if kernels.len() > 1 {
            message.push_str(&format!("; it is a graph, of the kernels `{}`", kernels.join("`, `")));
        }
        let caught = Caught { message: message.into(), location: None };
        let record = match *kernels {
            [kernel] => blamed.record_fault_of(kernel, caught),
            _ => blamed.record_fault(caught),
        };
        state.lost[device] = Some(record.clone());
        record
    }

    /// Takes out the operations that end now, in an order that their accesses ask for.
    fn take_ended(&self, state: &mut State, ended: &mut Vec<Given>) {
        for device in 0..self.gpus.len() {
            for lane in 0..state.queues[device].len() {
                while let Some(front) = state.queues[device][lane].given.front() {
                    if front.operation.after.iter().any(|event| state.live.contains_key(event)) {
                        break;
                    }
                    let progress = front.mark.map_or(Progress::Ready, |mark| self.gpus[device].query(mark));
                    let fault = match progress {
                        Progress::Pending => {
                            if self.watch_first(state, device, lane) {
                                self.give_up(state, device, lane, ended);
                            }
                            break;
                        }
                        Progress::Ready => source_fault(state, &front.operation),
                        Progress::Fault(fault) => Some(self.lose(state, &fault, None)),
                    };
                    let mut given =
                        state.queues[device][lane].given.pop_front().expect("it was just looked at");
                    given.fault = given.fault.or(fault);
                    if let Some(timer) = given.timer.take() {
                        if given.fault.is_none() {
                            given.operation.spent = timer.elapsed().map(Spent::measured);
                        }
                        state.queues[device][lane].timers.push(timer);
                    }
                    state.live.remove(&given.event);
                    ended.push(given);
                }
            }
        }
    }
}

/// Lets a stream wait for these marks, on the device.
fn wait_for(stream: &Stream, mut marks: impl Iterator<Item = Mark>) -> Result<(), CudaError> {
    marks.try_for_each(|mark| stream.wait(mark))
}

/// Writes zeros, of which there may be none.
fn zero(stream: &Stream, block: &Block, len_bytes: usize) -> Result<(), CudaError> {
    if len_bytes > 0 {
        stream.fill_front(block, 0, len_bytes)?;
    }
    Ok(())
}

/// The fault of the device that an operation has read from, if that is another one than its own.
fn source_fault(state: &State, operation: &Operation) -> Option<Arc<FaultRecord>> {
    match operation.command {
        Command::Copy => state.lost[operation.accesses[0].memory.device().ordinal].clone(),
        _ => None,
    }
}

pub(super) fn address_of(name: Name) -> u64 {
    name.address().as_ptr().addr() as u64
}

impl Backend for Gpus {
    fn allocate(&self, device: usize, bytes: usize) -> Option<Fresh> {
        let block = self.gpus[device].allocate_at_once(bytes).ok()??;
        let address = NonNull::new(std::ptr::without_provenance_mut(block.address() as usize))?;
        self.memory().insert(block.address(), block);
        Some(Fresh { block: Name::at(address), is_zeroed: false })
    }

    unsafe fn release(&self, _: usize, block: Name, _: usize) {
        let released = self.memory().remove(&address_of(block));
        drop(released);
    }

    fn open_stream(&self, device: usize, is_urgent: bool) -> StreamKey {
        let priority = if is_urgent { Priority::High } else { Priority::Normal };
        StreamKey(u64::from(self.gpus[device].stream(priority).lane))
    }

    fn close_stream(&self, _: StreamKey) {}

    fn allocate_pinned(&self, bytes: usize) -> Option<NonNull<u8>> {
        let mut pinned = self.cuda.pinned(bytes).ok()?;
        pinned.fill(0);
        let address = NonNull::from(&mut *pinned).cast::<u8>();
        self.pinned.lock().expect("nothing panics under this lock").insert(address.as_ptr().addr(), pinned);
        Some(address)
    }

    unsafe fn release_pinned(&self, address: NonNull<u8>, _: usize) {
        let key = address.as_ptr().addr();
        let released = self.pinned.lock().expect("nothing panics under this lock").remove(&key);
        drop(released);
    }

    fn pin(&self, address: NonNull<u8>, bytes: usize) -> Result<(), String> {
        if bytes == 0 {
            return Ok(());
        }
        // One device that is not lost is enough.
        let usable = self.gpus.iter().find(|gpu| gpu.fault().is_none()).unwrap_or(&self.gpus[0]);
        let registered = pinned::register(usable, address, bytes).map_err(|error| error.to_string())?;
        let key = address.as_ptr().addr();
        self.registered.lock().expect("nothing panics under this lock").insert(key, registered);
        Ok(())
    }

    unsafe fn unpin(&self, address: NonNull<u8>) {
        let key = address.as_ptr().addr();
        let released = self.registered.lock().expect("nothing panics under this lock").remove(&key);
        drop(released);
    }

    fn prepare(&self, device: usize, code: &KernelCode) -> Result<(), DeviceError> {
        match self.function(device, code) {
            // What is launched on a lost device fails as all that is submitted to it.
            Ok(_) | Err(CudaError::Fault(_)) => Ok(()),
            Err(error) => Err(DeviceError::Kernel { message: error.to_string().into() }),
        }
    }

    fn reaches(&self, device: usize, other: usize) -> bool {
        self.gpus[device].reaches(&self.gpus[other])
    }

    fn export(&self, _: usize, block: Name) -> Result<Exported, String> {
        self.export_block(block)
    }

    fn borrow(&self, exported: &Exported) -> Result<(usize, Name), String> {
        self.borrow_block(exported)
    }

    fn close_borrowed(&self, block: Name) {
        self.close_borrowed_block(block);
    }

    fn close_unused_borrowed(&self) {
        self.gpus.iter().for_each(Gpu::close_imports);
    }

    fn close_all_borrowed(&self) {
        self.close_all_borrowed_blocks();
    }

    fn driver_memory(&self, device: usize) -> Option<DriverMemory> {
        let gpu = &self.gpus[device];
        Some(DriverMemory {
            free_bytes: gpu.free_bytes().ok()? as u64,
            total_bytes: gpu.total_bytes() as u64,
            taken_bytes: gpu.taken_bytes() as u64,
        })
    }

    fn loss(&self, device: usize) -> Option<Arc<str>> {
        self.gpus[device].fault().map(|fault| fault.to_string().into())
    }

    fn submit(&self, mut operation: Box<Operation>) -> Result<(), DeviceError> {
        let device = operation.device;
        let mut state = self.state();
        if state.closed {
            return Err(DeviceError::Closed { device: Arc::from(self.gpus[device].name()) });
        }
        self.pending.begin();
        let event = Event(state.next_event);
        state.next_event += 1;
        let lane = operation.stream.key().0 as usize;
        let queue = &state.queues[device][lane];
        let lane_name = (self.gpus[device].index, queue.stream.lane);
        let is_spoiled = operation.reads_spoiled(|event| state.live.get(&event).map(|live| live.is_void));
        let events = std::mem::take(&mut operation.after);
        let mut earlier = Earlier { live: &state.live, lane: lane_name, events };
        operation.order(event, &mut earlier);
        operation.after = earlier.events;
        state.live.insert(event, Live { mark: None, is_void: is_spoiled, is_held: true, lane: lane_name });
        let (mark, fault, timer, since) = Default::default();
        let given = Given { event, mark, fault, timer, since, fate: Fate::Done, operation };
        state.queues[device][lane].held.push_back(given);
        state.held_count += 1;
        self.give_front(&mut state, device, lane);
        Ok(())
    }

    fn poll(&self) -> bool {
        if self.pending.count() == 0 {
            return true;
        }
        // Else another thread submits, or looks; or this one does, in a waker.
        let Ok(mut state) = self.state.try_lock() else {
            self.check_outside();
            return true;
        };
        if state.runner.is_some() {
            return true;
        }
        state.looks += 1;
        let mut ended = std::mem::take(&mut state.ended);
        self.take_ended(&mut state, &mut ended);
        if !ended.is_empty() {
            state.runner = Some(std::thread::current().id());
            drop(state);
            for Given { fault, operation, fate, .. } in ended.drain(..) {
                match (fate, fault) {
                    (Fate::Deserted, Some(fault)) => {
                        operation.desert(&fault);
                        self.keep_for_ever(operation);
                    }
                    (Fate::Refused, _) => {
                        let device = Arc::from(self.gpus[operation.device].name());
                        operation.refuse(device).publish();
                    }
                    (_, fault) => {
                        let entered = operation.enter();
                        operation.leave(fault.map_or(entered, Err)).publish();
                    }
                }
                self.pending.end();
            }
            state = self.state();
            state.runner = None;
            self.give_held(&mut state);
            self.see_to_sleepers(&mut state);
        } else if self.give_held(&mut state) {
            self.see_to_sleepers(&mut state);
        }
        state.ended = ended;
        true
    }

    fn looks(&self) -> u64 {
        self.state().looks
    }

    fn before_park(&self, sleeper: &Thread) -> Rest {
        let mut state = self.state();
        self.rest(&mut state, sleeper)
    }

    fn after_park(&self, sleeper: ThreadId) {
        self.sleepers.remove(sleeper);
    }

    fn pending(&self) -> Option<&Pending> {
        Some(&self.pending)
    }

    /// What the driver has been given has begun as far as can be told.
    fn abandon(&self) {
        let mut state = self.state();
        (state.closed, state.abandoned) = (true, true);
    }

    fn close(&self) {
        self.state().closed = true;
        // A waker may drop the devices inside of `poll`; then nobody is left to look, but whoever awaits what is left.
        while self.pending.count() > 0 && self.state().runner != Some(std::thread::current().id()) {
            self.poll();
            std::thread::yield_now();
        }
    }
}
