//! Kernels: loaded once per device, launched over so many elements with a list of parameters.

use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, OnceLock};

use bytemuck::NoUninit;

use super::compile::Image;
use super::error::CudaError;
use super::machine::{DeviceState, Gpu};
use super::memory::Block;
use super::raw::{Answer, RawFunction, RawParameters, RawStream, Refusal};
use crate::kernel::Code as KernelCode;
use crate::launch::Grid;

/// A launch takes at most so many parameters.
const MAX_PARAMETERS: usize = 128;

/// Dynamic shared memory that every block may have; more must be asked for.
const USUAL_SHARED_BYTES: u32 = 48 << 10;

/// Threads of a warp, which a block's first axis should be a multiple of.
const WARP: u32 = 32;

/// Where a kernel's code comes from.
#[derive(Debug, Clone, Copy)]
pub enum Code<'a> {
    /// CUDA C, compiled for the device by NVRTC with these options.
    Source {
        /// The text.
        text: &'a str,
        /// Options of NVRTC's.
        options: &'a [&'a str],
    },
    /// Code that is compiled already.
    Image(&'a Image),
}

/// What tells kernels apart: the name, and all of the code.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct KernelKey {
    name: &'static str,
    options: String,
    code: Vec<u8>,
}

/// What a launch covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Threads along x, y, z: at least so many run. Nothing is launched if one is zero.
    pub threads: [u32; 3],
    /// Threads of a block; `None`: as many as fill the device best.
    pub block: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Extent {
    /// So many threads along each axis.
    pub fn new(x: u32, y: u32, z: u32) -> Extent {
        Extent { threads: [x, y, z], block: None, shared_bytes: 0 }
    }

    /// What a launch of a kernel covers.
    pub(super) fn of(code: &KernelCode, grid: Grid) -> Extent {
        let (block, shared_bytes) = (code.block, code.shared_bytes);
        Extent { block, shared_bytes, ..Extent::new(grid.x, grid.y, grid.z) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.threads.contains(&0)
    }
}

/// The arguments of a launch, in the order of the kernel's parameters. Used again for the next launch, it allocates nothing.
#[derive(Debug, Default, Clone)]
pub struct Parameters {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    is_packed: bool,
}

impl Parameters {
    /// An empty list.
    pub fn new() -> Parameters {
        Parameters::default()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        self.is_packed = false;
    }

    /// Takes all parameters as they stand in a C struct, and one more after them.
    pub fn pack<T: NoUninit>(&mut self, all: &[u8], last: T) -> &mut Self {
        self.clear();
        self.is_packed = true;
        self.bytes.extend_from_slice(all);
        self.bytes.resize(all.len().next_multiple_of(align_of::<T>()), 0);
        self.bytes.extend_from_slice(bytemuck::bytes_of(&last));
        self
    }

    /// Adds a value.
    pub fn push<T: NoUninit>(&mut self, value: T) -> &mut Self {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(bytemuck::bytes_of(&value));
        self
    }

    /// Adds the address of a block.
    pub fn push_block(&mut self, block: &Block) -> &mut Self {
        self.push(block.address())
    }
}

/// A kernel on one device.
pub struct Function {
    name: &'static str,
    device: u16,
    raw: RawFunction,
    /// Threads of a block without dynamic shared memory.
    best_block: OnceLock<u32>,
    /// The most dynamic shared memory that a block may have.
    shared_bytes: Mutex<u32>,
}

impl Gpu {
    /// Loads a kernel; the same one only once.
    ///
    /// # Errors
    ///
    /// If the code does not compile, the driver refuses it, or it has no kernel of this name.
    pub fn kernel(&self, name: &'static str, code: Code<'_>) -> Result<Arc<Function>, CudaError> {
        let state = self.state();
        state.check()?;
        let key = match code {
            Code::Source { text, options } => {
                KernelKey { name, options: options.join("\n"), code: text.as_bytes().to_vec() }
            }
            Code::Image(image) => KernelKey { name, options: String::new(), code: image.bytes().to_vec() },
        };
        let mut kernels = state.kernels.lock().expect("nothing panics under this lock");
        if let Some(function) = kernels.get(&key) {
            return Ok(function.clone());
        }
        let function = Arc::new(match code {
            Code::Source { text, options } => {
                let image = self.machine.compiler.compile(name, text, options, state.capability)?;
                load(state, name, &image)?
            }
            Code::Image(image) => load(state, name, image)?,
        });
        kernels.insert(key, function.clone());
        Ok(function)
    }
}

fn load(state: &DeviceState, name: &'static str, image: &Image) -> Result<Function, CudaError> {
    let missing = || CudaError::NoKernel { kernel: name, device: state.name.clone() };
    let symbol = CString::new(name).map_err(|_| missing())?;
    // SAFETY: an image is complete.
    let raw = unsafe { RawFunction::load(&state.context, image.bytes(), &symbol) };
    let raw = raw.map_err(|refusal| match refusal.is_without_kernel {
        true => missing(),
        false => refused(state, name, refusal),
    })?;
    let (best_block, shared_bytes) = (OnceLock::new(), Mutex::new(USUAL_SHARED_BYTES));
    Ok(Function { name, device: state.index, raw, best_block, shared_bytes })
}

/// The error for code that the driver does not take: the kernel's name, and what the driver's compiler says.
#[cold]
fn refused(state: &DeviceState, kernel: &'static str, Refusal { status, log, .. }: Refusal) -> CudaError {
    if status.is_sticky() {
        return state.explain("cuModuleLoadData", status);
    }
    let mut reason = status.to_string();
    if let Some(remedy) = status.remedy_for_code(state.capability) {
        reason = format!("{reason}; {remedy}");
    }
    if !log.is_empty() {
        reason = format!("{reason}:\n{log}");
    }
    CudaError::Load { kernel, device: state.name.clone(), reason }
}

impl Function {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Lets its blocks have so much dynamic shared memory, at least.
    pub(super) fn allow_shared(&self, gpu: &Gpu, bytes: u32) -> Result<(), CudaError> {
        let mut allowed = self.shared_bytes.lock().expect("nothing panics under this lock");
        if bytes > *allowed {
            self.raw.allow_shared(bytes).map_err(|status| {
                if status.is_sticky() {
                    return gpu.state().explain("cuFuncSetAttribute", status);
                }
                let reason =
                    format!("it wants {bytes} bytes of shared memory a block (`shared_bytes`): {status}");
                CudaError::Load { kernel: self.name, device: gpu.name().into(), reason }
            })?;
            *allowed = bytes;
        }
        Ok(())
    }

    /// Launches it on a stream of its device.
    ///
    /// # Safety
    ///
    /// The kernel takes these parameters, and what it touches lives until it is done.
    pub(super) unsafe fn launch(
        &self,
        stream: &RawStream,
        (grid, block): ([u32; 3], [u32; 3]),
        shared_bytes: u32,
        parameters: &Parameters,
    ) -> Answer<()> {
        if parameters.is_packed {
            let packed = RawParameters::Packed(&parameters.bytes);
            // SAFETY: promised by the caller; the driver only reads the parameters.
            return unsafe { stream.launch(&self.raw, grid, block, shared_bytes, packed) };
        }
        let mut addresses = [std::ptr::null_mut::<c_void>(); MAX_PARAMETERS];
        for (address, &start) in addresses.iter_mut().zip(&parameters.starts) {
            *address = parameters.bytes[start..].as_ptr().cast_mut().cast();
        }
        let addresses = &mut addresses[..parameters.starts.len()];
        // SAFETY: promised by the caller; the driver only reads the parameters.
        unsafe { stream.launch(&self.raw, grid, block, shared_bytes, RawParameters::Each(addresses)) }
    }

    /// The grid and the block of a launch.
    pub(super) fn shape(
        &self,
        state: &DeviceState,
        extent: &Extent,
        parameters: &Parameters,
    ) -> Result<([u32; 3], [u32; 3]), CudaError> {
        let refused =
            |reason: String| CudaError::Launch { kernel: self.name, device: state.name.clone(), reason };
        if self.device != state.index {
            return Err(refused("it was loaded on another device".to_owned()));
        }
        if parameters.starts.len() > MAX_PARAMETERS {
            let count = parameters.starts.len();
            return Err(refused(format!("it was given {count} parameters; {MAX_PARAMETERS} is the limit")));
        }
        let block = match extent.block {
            Some(block) => block,
            None => spread(self.best_block(state, extent.shared_bytes)?, extent.threads),
        };
        let threads = block.iter().map(|&size| u64::from(size)).product::<u64>();
        if threads == 0 || threads > u64::from(state.max_threads_of_block) {
            let most = state.max_threads_of_block;
            return Err(refused(format!("a block of {block:?} has {threads} threads; 1 to {most} can be")));
        }
        let blocks = |axis: usize| extent.threads[axis].div_ceil(block[axis]);
        Ok(([blocks(0), blocks(1), blocks(2)], block))
    }

    fn best_block(&self, state: &DeviceState, shared_bytes: u32) -> Result<u32, CudaError> {
        let ask = || {
            let best = self.raw.best_block(shared_bytes as usize);
            best.map_err(|status| state.explain("cuOccupancyMaxPotentialBlockSize", status))
        };
        if shared_bytes > 0 {
            return ask();
        }
        match self.best_block.get() {
            Some(&best) => Ok(best),
            None => ask().map(|best| *self.best_block.get_or_init(|| best)),
        }
    }
}

/// A block of at most `count` threads, of the shape of what it covers.
fn spread(count: u32, threads: [u32; 3]) -> [u32; 3] {
    match threads {
        [_, 1, 1] => [count, 1, 1],
        [_, _, 1] => [WARP.min(count), (count / WARP).max(1), 1],
        _ => [WARP.min(count), (count / (2 * WARP)).max(1), if count >= 2 * WARP { 2 } else { 1 }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_no_larger_than_they_may() {
        for count in [1, 31, 32, 33, 64, 96, 256, 768, 1024] {
            for threads in [[9, 1, 1], [9, 9, 1], [9, 9, 9]] {
                let block = spread(count, threads);
                assert!((1..=count).contains(&block.iter().product()), "{block:?} of {count}");
            }
        }
    }
}
