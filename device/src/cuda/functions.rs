//! Which code of a kernel a device gets, of those that the kernel has: a cubin that was made for it, else PTX, else CUDA C.

use std::sync::Arc;

use super::backend::Gpus;
use super::compile::Image;
use super::error::CudaError;
use super::kernel::{Code, Function};
use super::machine::Gpu;
use crate::kernel::Code as KernelCode;
use crate::kernel::declare::cuda_text;
use crate::ship::Capability;

/// The device, and what is compared of a kernel: where its name and its code stand, and end (both are there for ever), and the memory that
/// it wants.
pub(super) type FunctionKey = (usize, [u64; 6]);

fn key(device: usize, code: &KernelCode) -> FunctionKey {
    let text = code.ptx.or(code.cuda).unwrap_or_default();
    let (name, options, cubins) = (code.name, code.cuda_options, code.cubins);
    let starts =
        [name.as_ptr().addr(), text.as_ptr().addr(), options.as_ptr().addr(), cubins.as_ptr().addr()];
    let [name_start, text_start, options_start, cubins_start] = starts.map(|start| start as u64);
    // None of them is longer than it has bits for: they are parts of the program.
    let name_and_memory = (name.len() as u64) << 32 | u64::from(code.shared_bytes);
    let lens = (text.len() as u64) << 32 | (options.len() as u64) << 16 | cubins.len() as u64;
    (device, [name_start, text_start, options_start, cubins_start, name_and_memory, lens])
}

impl Gpus {
    /// The kernel on a device, compiled if it has not been.
    pub(super) fn function(&self, device: usize, code: &KernelCode) -> Result<Arc<Function>, CudaError> {
        let key = key(device, code);
        let found = self.functions().get(&key).cloned();
        if let Some(function) = found {
            return Ok(function);
        }
        let function = load(&self.gpus[device], code)?;
        self.functions().insert(key, function.clone());
        Ok(function)
    }
}

fn load(gpu: &Gpu, code: &KernelCode) -> Result<Arc<Function>, CudaError> {
    let image = match (cubin_for(gpu.capability(), code.cubins), code.ptx, code.cuda) {
        (Some(cubin), _, _) if !is_whole(cubin) => {
            return Err(refused(gpu, code, "the cubin that the program has for it is not whole".to_owned()));
        }
        // SAFETY: it is as long as it says.
        (Some(cubin), _, _) => unsafe { Image::from_bytes(cubin) },
        // SAFETY: it is a text, so it ends where the image puts a zero byte.
        (None, Some(ptx), _) => unsafe { Image::from_bytes(ptx.as_bytes()) },
        (None, None, Some(source)) => {
            let text = cuda_text(code.name, source);
            let function = gpu.kernel(code.name, Code::Source { text: &text, options: code.cuda_options })?;
            function.allow_shared(gpu, code.shared_bytes)?;
            return Ok(function);
        }
        (None, None, None) => return Err(refused(gpu, code, no_cubin(gpu.capability(), code.cubins))),
    };
    let function = gpu.kernel(code.name, Code::Image(&image))?;
    function.allow_shared(gpu, code.shared_bytes)?;
    Ok(function)
}

#[cold]
fn refused(gpu: &Gpu, code: &KernelCode, reason: String) -> CudaError {
    CudaError::Load { kernel: code.name, device: gpu.name().into(), reason }
}

#[cold]
fn no_cubin((major, minor): (u32, u32), cubins: &[(Capability, &[u8])]) -> String {
    let list: Vec<_> =
        cubins.iter().map(|(Capability(major, minor), _)| format!("{major}.{minor}")).collect();
    let list = list.join(", ");
    format!(
        "the device is of {major}.{minor}, and the program has code for {list} only; give the kernel PTX or CUDA C"
    )
}

/// The newest cubin that a device runs: those of its major version, up to its own minor one.
fn cubin_for((major, minor): (u32, u32), cubins: &[(Capability, &'static [u8])]) -> Option<&'static [u8]> {
    let fits = |&&(Capability(of, since), _): &&(Capability, &[u8])| of == major && since <= minor;
    cubins.iter().filter(fits).max_by_key(|(Capability(_, since), _)| *since).map(|&(_, cubin)| cubin)
}

/// Whether an ELF file of 64 bits has all that its header says: the driver is not told how long it is.
fn is_whole(cubin: &[u8]) -> bool {
    let Some(header) = cubin.first_chunk::<64>().filter(|header| header.starts_with(b"\x7fELF\x02")) else {
        return false;
    };
    let word = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("eight bytes"));
    let half = |at: usize| u64::from(u16::from_le_bytes(*header[at..].first_chunk().expect("two bytes")));
    let ends = [(word(40), half(58) * half(60)), (word(32), half(54) * half(56))];
    ends.into_iter()
        .all(|(start, bytes)| start.checked_add(bytes).is_some_and(|end| end <= cubin.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_newest_cubin_that_it_runs() {
        let cubins: &[(Capability, &'static [u8])] =
            &[(Capability(8, 0), b"8.0"), (Capability(8, 6), b"8.6"), (Capability(9, 0), b"9.0")];
        for (capability, found) in [
            ((8, 0), Some("8.0")),
            ((8, 5), Some("8.0")),
            ((8, 9), Some("8.6")),
            ((9, 0), Some("9.0")),
            ((7, 5), None),
            ((10, 0), None),
        ] {
            assert_eq!(cubin_for(capability, cubins), found.map(str::as_bytes), "{capability:?}");
        }
        let said = no_cubin((7, 5), cubins);
        assert!(
            said.starts_with("the device is of 7.5, and the program has code for 8.0, 8.6, 9.0 only"),
            "{said}"
        );
    }

    #[test]
    fn a_cubin_that_is_cut_off_is_known() {
        let mut cubin = vec![0_u8; 256];
        cubin[..5].copy_from_slice(b"\x7fELF\x02");
        // Three sections of 64 bytes behind the header.
        cubin[40] = 64;
        (cubin[58], cubin[60]) = (64, 3);
        assert!(is_whole(&cubin));
        for wrong in [&cubin[..255], &cubin[..63], b"", b".version 9.0"] {
            assert!(!is_whole(wrong));
        }
        cubin[40..48].fill(0xFF);
        assert!(!is_whole(&cubin));
    }
}
