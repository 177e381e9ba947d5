//! How the program ends when something is wrong: one line, and the exit code that tells who is to blame.

use chare::device::DeviceError;
use chare::{BoxError, CallError, ExitWith};
use chare_examples::Error;

/// The end for what the user can get wrong, or the machine refuses.
pub(crate) fn exit_with(error: Error) -> BoxError {
    ExitWith { code: error.exit_code().into(), message: error.to_string() }.into()
}

/// The end for what a block has returned: a field that overflows, a device that is too small, or whatever else.
pub(crate) fn end_of(error: CallError) -> BoxError {
    if let Some(&Error::Overflow { step, residual }) = error.downcast_ref() {
        return exit_with(Error::Overflow { step, residual });
    }
    if let Some(DeviceError::OutOfMemory(full)) = error.downcast_ref() {
        return exit_with(Error::DeviceMemory { full: full.to_string() });
    }
    error.into()
}
