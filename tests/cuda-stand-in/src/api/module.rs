//! Modules, kernels and launches.

use std::sync::Arc;

use super::{In, Out, driver};
use crate::code::Code;
use crate::engine::Work;
use crate::kernel::{Call, Parameter, RawGeometry};
use crate::module::{self, Entry};
use crate::world::{Function, Module, world};

/// Threads of a block, in all and along each axis, and blocks along each axis.
const MAX_THREADS: u64 = 1024;
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];

/// Shared memory that a block gets without asking, and the most that it can ask for.
const SHARED_BYTES: u32 = 48 << 10;
const MAX_SHARED_BYTES: u32 = 227 << 10;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES` and others.
const MAX_THREADS_OF_KERNEL: i32 = 0;
const REGISTERS: i32 = 4;
const MAX_DYNAMIC_SHARED: i32 = 8;

/// `CU_JIT_ERROR_LOG_BUFFER` and its size.
const ERROR_LOG: i32 = 5;
const ERROR_LOG_BYTES: i32 = 6;

/// `CU_LAUNCH_PARAM_END` and others.
const END: usize = 0;
const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;

fn read_image(image: &In<u8>) -> Result<Vec<Entry>, Code> {
    let mut start = [0; 4];
    for (index, byte) in start.iter_mut().enumerate() {
        *byte = image.read(index)?;
        if *byte == 0 {
            return Err(Code::INVALID_IMAGE);
        }
    }
    if !module::is_elf(&start) {
        return module::read_text(&image.text().map_err(|_| Code::INVALID_IMAGE)?);
    }
    let header = image.read_all(64)?.try_into().expect("64 bytes were read");
    module::read_elf(&image.read_all(module::elf_bytes(&header).ok_or(Code::INVALID_IMAGE)?)?)
}

fn load(handle: Out<u64>, image: In<u8>) -> Result<(), Code> {
    let entries = read_image(&image)?;
    let mut state = world().lock();
    let device = state.current()?;
    state.check_no_capture("cuModuleLoadData")?;
    let made = state.new_handle();
    state.modules.insert(made, Module { device, entries });
    handle.put(made)
}

/// What a driver's compiler of PTX writes, about.
fn compiler_log(code: Code) -> &'static str {
    match code {
        Code::UNSUPPORTED_PTX_VERSION => {
            "ptxas application ptx input, line 1; fatal   : Unsupported .version; current version is '9.0'\n"
        }
        Code::INVALID_PTX => "ptxas application ptx input, line 3; error   : Parsing error\n",
        _ => "",
    }
}

fn check_geometry(geometry: &RawGeometry, max_shared_bytes: u32) -> Result<(), Code> {
    let RawGeometry { grid, block, shared_bytes } = *geometry;
    let fits = |size: [u32; 3], most: [u32; 3]| {
        size.iter().zip(most).all(|(&size, most)| (1..=most).contains(&size))
    };
    if !fits(grid, MAX_GRID) || !fits(block, MAX_BLOCK) || shared_bytes > max_shared_bytes {
        return Err(Code::INVALID_VALUE);
    }
    if block.iter().map(|&size| u64::from(size)).product::<u64>() > MAX_THREADS {
        return Err(Code::INVALID_VALUE);
    }
    Ok(())
}

driver! {
    fn cuModuleLoadData(handle: Out<u64>, image: In<u8>) {
        load(handle, image)
    }

    fn cuModuleLoadDataEx(handle: Out<u64>, image: In<u8>, count: u32, options: In<i32>, values: In<In<u8>>) {
        let loaded = load(handle, image);
        let text = loaded.err().map_or("", compiler_log);
        let value = |option: i32| -> Result<Option<In<u8>>, Code> {
            for index in 0..count as usize {
                if options.read(index)? == option {
                    return values.read(index).map(Some);
                }
            }
            Ok(None)
        };
        if let (Some(buffer), Some(bytes)) = (value(ERROR_LOG)?, value(ERROR_LOG_BYTES)?) {
            Out(buffer.address()).put_text(text, bytes.address().addr() as i32)?;
        }
        loaded
    }

    fn cuModuleUnload(module: u64) {
        let mut state = world().lock();
        state.functions.retain(|_, function| function.module != module);
        match state.modules.remove(&module) {
            Some(_) => Ok(()),
            None => Err(world().misuse(Code::INVALID_HANDLE, "a module unloaded that is not there")),
        }
    }

    fn cuModuleGetFunction(handle: Out<u64>, module: u64, name: In<u8>) {
        let mut state = world().lock();
        state.current()?;
        let name = name.text()?;
        let Some(Module { device, entries }) = state.modules.get(&module) else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a kernel of a module that is not there"));
        };
        let entry = entries.iter().find(|entry| entry.name == name).ok_or(Code::NOT_FOUND)?;
        let Some(kernel) = world().registry.find(&name) else {
            return Err(world().misuse(Code::NOT_FOUND, &format!("no Rust code is registered for `{name}`")));
        };
        let sizes: Vec<usize> = kernel.parameters.iter().map(|parameter| parameter.len_bytes()).collect();
        if entry.parameter_bytes.as_ref().is_some_and(|compiled| *compiled != sizes) {
            let what = format!("`{name}` has parameters of {:?} bytes, registered are {sizes:?}", entry.parameter_bytes);
            return Err(world().misuse(Code::INVALID_IMAGE, &what));
        }
        let function = Function { device: *device, module, kernel, max_shared_bytes: SHARED_BYTES };
        let made = state.new_handle();
        state.functions.insert(made, function);
        handle.put(made)
    }

    fn cuFuncGetAttribute(value: Out<i32>, attribute: i32, function: u64) {
        let state = world().lock();
        let Some(function) = state.functions.get(&function) else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a kernel that is not there"));
        };
        value.put(match attribute {
            MAX_THREADS_OF_KERNEL => MAX_THREADS as i32,
            REGISTERS => 32,
            MAX_DYNAMIC_SHARED => function.max_shared_bytes as i32,
            _ => return Err(Code::INVALID_VALUE),
        })
    }

    fn cuFuncSetAttribute(function: u64, attribute: i32, value: i32) {
        let mut state = world().lock();
        let Some(function) = state.functions.get_mut(&function) else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a kernel that is not there"));
        };
        let bytes = u32::try_from(value).ok().filter(|&bytes| bytes <= MAX_SHARED_BYTES);
        function.max_shared_bytes =
            bytes.filter(|_| attribute == MAX_DYNAMIC_SHARED).ok_or(Code::INVALID_VALUE)?;
        Ok(())
    }

    fn cuOccupancyMaxPotentialBlockSize(
        min_grid: Out<i32>,
        block: Out<i32>,
        function: u64,
        _shared_of_block: In<u8>,
        _shared_bytes: usize,
        limit: i32,
    ) {
        let state = world().lock();
        state.current()?;
        if !state.functions.contains_key(&function) {
            return Err(world().misuse(Code::INVALID_HANDLE, "a kernel that is not there"));
        }
        min_grid.put(16)?;
        block.put(if limit > 0 { limit.min(256) } else { 256 })
    }

    fn cuLaunchKernel(
        function: u64,
        grid_x: u32, grid_y: u32, grid_z: u32,
        block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32,
        stream: u64,
        parameters: In<In<u8>>,
        extra: In<In<u8>>,
    ) {
        let mut state = world().lock();
        let device = state.stream(stream)?.device;
        let Some(found) = state.functions.get(&function) else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a launch of a kernel that is not there"));
        };
        if found.device != device {
            return Err(world().misuse(Code::INVALID_HANDLE, "a launch of a kernel loaded for another device"));
        }
        let geometry =
            RawGeometry { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
        check_geometry(&geometry, found.max_shared_bytes)?;
        let kernel = found.kernel.clone();
        if extra.is_null() == (parameters.is_null() && !kernel.parameters.is_empty()) {
            return Err(Code::INVALID_VALUE);
        }
        if !extra.is_null() {
            let values = packed(&extra, &kernel.parameters)?;
            return state.submit(stream, Work::Kernel(Arc::new(Call { kernel, geometry, values })));
        }
        let mut values = Vec::with_capacity(kernel.parameters.len());
        for (index, parameter) in kernel.parameters.iter().enumerate() {
            values.push(parameters.read(index)?.read_all(parameter.len_bytes())?);
        }
        state.submit(stream, Work::Kernel(Arc::new(Call { kernel, geometry, values })))
    }
}

/// The arguments of a launch that come as one buffer. They are cut from it one after the other: where the buffer has gaps, a
/// kernel is registered with parameters that stand for them.
fn packed(extra: &In<In<u8>>, parameters: &[Parameter]) -> Result<Vec<Vec<u8>>, Code> {
    let name = |index: usize| Ok(extra.read(index)?.address().addr());
    if [name(0)?, name(2)?, name(4)?] != [BUFFER_POINTER, BUFFER_SIZE, END] {
        return Err(Code::INVALID_VALUE);
    }
    let bytes = extra.read(3)?.read_all(size_of::<usize>())?;
    let len_bytes = usize::from_ne_bytes(bytes.try_into().expect("so many were read"));
    if parameters.iter().map(|parameter| parameter.len_bytes()).sum::<usize>() != len_bytes {
        return Err(Code::INVALID_VALUE);
    }
    let buffer = extra.read(1)?.read_all(len_bytes)?;
    let mut rest = buffer.as_slice();
    let cut = |parameter: &Parameter| {
        let (value, after) = rest.split_at(parameter.len_bytes());
        rest = after;
        value.to_vec()
    };
    Ok(parameters.iter().map(cut).collect())
}
