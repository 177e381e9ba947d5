//! Kernels that were compiled elsewhere, for machines without a compiler: a folder of cubins, found by what they were
//! compiled from.
//!
//! An entry is one of the cache's, under a key without the compiler's version: whoever takes it has no compiler, or wants
//! what was shipped. A cubin is for one compute capability, so a folder may hold those of several.

use std::path::{Path, PathBuf};

use super::cache;
use super::compile::{Compiler, ImageKind};
use super::error::CudaError;
use crate::kernel::declare::cuda_text;

/// Where shipped kernels are looked for: the variable `CHARE_KERNELS`.
pub(super) fn folder() -> Option<PathBuf> {
    std::env::var_os("CHARE_KERNELS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The code that was shipped for a source, if there is some.
pub(super) fn find(folder: &Path, source: &str, options: &[&str], capability: (u32, u32)) -> Option<Vec<u8>> {
    cache::load(folder, &key(source, options, capability))
}

/// Keeps code for a kernel as it stands in its declaration (its name, its CUDA C, and the compiler's options for it): a cubin for a compute
/// capability.
pub fn ship(
    folder: &Path,
    (name, source, options): (&str, &str, &[&str]),
    capability: (u32, u32),
    code: &[u8],
) -> bool {
    let key = key(&cuda_text(name, source), options, capability);
    cache::store(folder, &key, code);
    cache::load(folder, &key).is_some()
}

/// Compiles kernels, and keeps them.
pub(crate) fn ship_all(
    folder: &Path,
    kernels: &[(&'static str, &'static str, &'static [&'static str])],
    capability: (u32, u32),
) -> Result<(), CudaError> {
    let compiler = Compiler::new(None, ImageKind::Cubin);
    for &(name, source, options) in kernels {
        let image = compiler.compile(name, &cuda_text(name, source), options, capability)?;
        if !image.is_cubin() {
            let reason = format!("this NVRTC compiles for no device of {}.{}", capability.0, capability.1);
            return Err(CudaError::Ship { reason });
        }
        if !ship(folder, (name, source, options), capability, image.code()) {
            return Err(CudaError::Ship { reason: format!("{} cannot be written", folder.display()) });
        }
    }
    Ok(())
}

fn key(source: &str, options: &[&str], (major, minor): (u32, u32)) -> String {
    format!("shipped\nsm_{major}{minor}\n{}\n\n{source}", options.join("\n"))
}
