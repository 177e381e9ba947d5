//! What the tests have in common: a machine over the stand-in, kernels that it runs, numbers that go up and come back.

use std::sync::{Arc, Condvar, Mutex};

use chare_device::cuda::{
    Block, Code, Cuda, Extent, Function, Gpu, Image, InFlight, Mark, Parameters, Pinned,
};
use chare_device::cuda::{CudaError, Priority, Progress, Settings, Stream};
use cuda_stand_in::{Parameter, StandIn};

/// Small slabs, so that tests see several; no cache.
pub(crate) fn settings() -> Settings {
    Settings { slab_bytes: 1 << 20, pinned_slab_bytes: 1 << 16, cache: None, ..Settings::default() }
}

pub(crate) fn open() -> Cuda {
    Cuda::open(settings()).expect("the stand-in opens")
}

pub(crate) fn stand_in() -> StandIn {
    StandIn::loaded().expect("the library on the path is the stand-in")
}

/// A kernel that adds a number to each of a block.
pub(crate) struct Add(Arc<Function>);

impl Add {
    pub(crate) fn load(gpu: &Gpu) -> Add {
        let number = Parameter::Value { bytes: 8 };
        stand_in().register("add", &[Parameter::Address { align: 8 }, number, number], |_, arguments| {
            let (addend, count) = (arguments.value::<u64>(1), arguments.value::<u64>(2));
            for number in arguments.slice::<u64>(0, count as usize)? {
                *number = number.wrapping_add(addend);
            }
            Ok(())
        });
        Add(function(gpu, "add"))
    }

    pub(crate) fn function(&self) -> &Function {
        &self.0
    }

    pub(crate) fn parameters(block: &Block, addend: u64) -> Parameters {
        let mut parameters = Parameters::new();
        parameters.push_block(block).push(addend).push(block.len_bytes() as u64 / 8);
        parameters
    }

    pub(crate) fn launch(&self, stream: &Stream, block: &Block, addend: u64) -> Result<Mark, CudaError> {
        let extent = Extent::new(block.len_bytes() as u32 / 8, 1, 1);
        // SAFETY: these are its parameters.
        unsafe { stream.launch(&self.0, &extent, &Add::parameters(block, addend), &[block]) }
    }

    /// Launches it for more numbers than there are.
    pub(crate) fn launch_astray(&self, stream: &Stream, block: &Block) -> Result<Mark, CudaError> {
        let mut parameters = Parameters::new();
        parameters.push_block(block).push(1_u64).push(1_u64 << 40);
        // SAFETY: that it touches what it must not is the test; the stand-in tells.
        unsafe { stream.launch(&self.0, &Extent::new(1, 1, 1), &parameters, &[block]) }
    }
}

/// A kernel without parameters, from a listing.
pub(crate) fn function(gpu: &Gpu, name: &'static str) -> Arc<Function> {
    // SAFETY: the stand-in reads listings.
    let listing = unsafe { Image::from_bytes(format!("kernel {name}\n").as_bytes()) };
    gpu.kernel(name, Code::Image(&listing)).expect("a kernel")
}

pub(crate) fn launch(stream: &Stream, function: &Function) -> Result<Mark, CudaError> {
    // SAFETY: the tests' kernels of this kind have no parameters.
    unsafe { stream.launch(function, &Extent::new(1, 1, 1), &Parameters::new(), &[]) }
}

/// Kernels that wait here until a test lets them go on, or has failed. Each takes one of its device's workers meanwhile.
pub(crate) struct Gate {
    state: Arc<(Mutex<bool>, Condvar)>,
    function: Arc<Function>,
}

impl Gate {
    pub(crate) fn close(gpu: &Gpu) -> Gate {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let waiting = state.clone();
        stand_in().register("gate", &[], move |_, _| {
            let mut is_open = waiting.0.lock().expect("no test panics here");
            while !*is_open {
                is_open = waiting.1.wait(is_open).expect("no test panics here");
            }
            Ok(())
        });
        Gate { state, function: function(gpu, "gate") }
    }

    /// Nothing behind it on the stream runs before it is opened.
    pub(crate) fn hold(&self, stream: &Stream) -> Mark {
        launch(stream, &self.function).expect("a launch")
    }

    pub(crate) fn open(&self) {
        *self.state.0.lock().expect("no test panics here") = true;
        self.state.1.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

pub(crate) fn stream(gpu: &Gpu) -> Stream {
    gpu.stream(Priority::Normal)
}

/// Waits for a mark, as tests may.
pub(crate) fn wait_for(gpu: &Gpu, mark: Mark) -> Result<(), CudaError> {
    loop {
        match gpu.query(mark) {
            Progress::Ready => return Ok(()),
            Progress::Pending => std::thread::yield_now(),
            Progress::Fault(fault) => return Err(CudaError::Fault(fault)),
        }
    }
}

/// Waits for a copy.
pub(crate) fn land(mut flight: InFlight) -> Result<Pinned, CudaError> {
    loop {
        match flight.take().map_err(CudaError::Fault)? {
            Ok(pinned) => return Ok(pinned),
            Err(pending) => flight = pending,
        }
        std::thread::yield_now();
    }
}

/// A block with `len` numbers, all `value`.
pub(crate) fn block_of(cuda: &Cuda, stream: &Stream, len: usize, value: u64) -> Block {
    let block = stream.allocate(8 * len).expect("memory");
    set(cuda, stream, &block, value);
    block
}

/// Sets all numbers of a block.
pub(crate) fn set(cuda: &Cuda, stream: &Stream, block: &Block, value: u64) {
    let mut host = cuda.pinned(block.len_bytes()).expect("pinned memory");
    host.chunks_exact_mut(8).for_each(|number| number.copy_from_slice(&value.to_ne_bytes()));
    drop(stream.upload(block, 0, host).expect("an upload"));
}

/// The numbers of a block, after all that the stream was given.
pub(crate) fn numbers(cuda: &Cuda, stream: &Stream, block: &Block) -> Result<Vec<u64>, CudaError> {
    let host = land(stream.download(block, 0, cuda.pinned(block.len_bytes())?)?)?;
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    Ok(host.chunks_exact(8).map(number).collect())
}

/// Whether all numbers of a block are `value`.
pub(crate) fn holds(cuda: &Cuda, stream: &Stream, block: &Block, value: u64) -> bool {
    numbers(cuda, stream, block).expect("no fault").iter().all(|&number| number == value)
}
