//! Compiling all kernels of a program ahead, for machines that have GPUs and no compiler.

use std::path::Path;
use std::str::FromStr;

use crate::error::DeviceError;

/// The compute capability of NVIDIA GPUs, as major and minor: `9.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(pub u32, pub u32);

/// A text is no compute capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no compute capability, such as `9.0`")]
pub struct CapabilityError(String);

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let parts =
            text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        parts.map(|(major, minor)| Capability(major, minor)).ok_or_else(|| CapabilityError(text.to_owned()))
    }
}

/// Compiles the CUDA C sources of all kernels that this program declares, those of its libraries included, for GPUs of one
/// capability, and keeps them in a folder. On a machine without NVRTC, with `CHARE_KERNELS` naming that folder, they are
/// found there. Needs NVRTC and no GPU. Says how many there are.
///
/// # Errors
///
/// [`DeviceError::Kernel`] if there is no NVRTC, it refuses a source (with line and caret), or the folder cannot be written;
/// [`SpecError::NotBuilt`](crate::SpecError::NotBuilt) in a build without the feature `cuda`.
#[cfg(feature = "cuda")]
pub fn ship_kernels(folder: &Path, Capability(major, minor): Capability) -> Result<usize, DeviceError> {
    let mut kernels: Vec<_> =
        crate::kernel::declared::KERNELS.iter().filter_map(|kernel| kernel.cuda()).collect();
    kernels.sort_unstable();
    kernels.dedup();
    let shipped = crate::cuda::ship_all(folder, &kernels, (major, minor));
    shipped.map_err(|error| DeviceError::Kernel { message: error.to_string().into() })?;
    Ok(kernels.len())
}

/// Refused: this build has no CUDA.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn ship_kernels(_folder: &Path, _capability: Capability) -> Result<usize, DeviceError> {
    Err(crate::spec::SpecError::NotBuilt { backend: "cuda" }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_two_numbers() {
        assert_eq!("9.0".parse(), Ok(Capability(9, 0)));
        for wrong in ["9", "9.", "sm_90", "9.0.1", ""] {
            let error = wrong.parse::<Capability>().unwrap_err().to_string();
            assert_eq!(error, format!("`{wrong}` is no compute capability, such as `9.0`"));
        }
    }
}
