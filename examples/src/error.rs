//! Everything that can go wrong outside an example program, as one type.
//!
//! Each message is one line without the word `error`, names the thing that is wrong and ends with the remedy.
//! Paths are shown quoted and escaped, so that an odd file name cannot break the line.

use std::io;
use std::path::PathBuf;

use crate::field::Extents;

/// What a user can get wrong, or what the machine refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line cannot be understood; the text says which part and what would be right.
    #[error("{0}")]
    Usage(String),

    /// A file to be read cannot be opened or read.
    #[error("cannot read {path:?}: {reason}; name an existing .npy file")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        reason: io::Error,
    },

    /// A file has no valid `.npy` header.
    #[error("{path:?} is not a .npy file: {reason}; write it with numpy.save")]
    NotNpy {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        reason: String,
    },

    /// A file holds fewer, or more, bytes than its header says.
    #[error(
        "{path:?} is damaged: its header promises {promised_bytes} bytes of elements, {found_bytes} follow; copy or save it again"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// The size of the elements that the header describes.
        promised_bytes: u64,
        /// The size of what follows the header.
        found_bytes: u64,
    },

    /// An array does not have three dimensions.
    #[error(
        "{path:?} has {found} dimension(s), a field has 3; reshape it with numpy.reshape(f, (nx, ny, nz))"
    )]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// The number of dimensions that it has.
        found: usize,
    },

    /// An array's elements are neither `f32` nor `f64`.
    #[error(
        "{path:?} holds elements of type {found}, a field holds float32 or float64; convert it with f.astype('float64')"
    )]
    ElementType {
        /// The file.
        path: PathBuf,
        /// NumPy's descriptor of the type.
        found: String,
    },

    /// A field without interior: some extent is less than 3.
    #[error("{field} has extents {} x {} x {}: without interior; every extent must be at least 3", .extents[0], .extents[1], .extents[2])]
    NoInterior {
        /// The quoted file, or the option.
        field: String,
        /// The extents.
        extents: Extents,
    },

    /// A field holds a value that no average survives.
    #[error("{path:?} holds {value} at index {index:?}; replace it first, for example with numpy.nan_to_num")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// NaN or an infinity.
        value: f64,
        /// The index of the first such element, in C order.
        index: [usize; 3],
    },

    /// The machine has not the memory that a field needs.
    #[error("{field} has {} x {} x {} cells, which this machine's memory does not hold; choose a smaller one", .extents[0], .extents[1], .extents[2])]
    Memory {
        /// The quoted file, or the option.
        field: String,
        /// The extents.
        extents: Extents,
    },

    /// There are more blocks along an axis than cells.
    #[error(
        "--blocks asks for {wanted} blocks along axis {axis}, where the interior has {cells} cell(s); ask for at most {cells}"
    )]
    Blocks {
        /// The axis, from 0.
        axis: usize,
        /// The number of blocks asked for.
        wanted: usize,
        /// The interior cells along that axis.
        cells: usize,
    },

    /// The kernels of the field's precision are not written for the devices.
    #[error(
        "{device} computes float32 only; use a field of float32 or --precision f32, or --device host for float64"
    )]
    NoKernel {
        /// The device.
        device: String,
    },

    /// The devices have not the memory for the blocks and what they exchange.
    #[error("{full}; or compute fewer cells")]
    DeviceMemory {
        /// What the devices say: who has what, and where there may be more.
        full: String,
    },

    /// The numbers of a field are so large that a step leaves the range of its precision.
    #[error(
        "the field is too large for its precision: the residual of step {step} is {residual}; divide the field by a constant first"
    )]
    Overflow {
        /// The step, from 1.
        step: u32,
        /// NaN or an infinity.
        residual: f64,
    },

    /// The place of an output takes no file; found before the run starts.
    #[error("cannot write {path:?}: {reason}")]
    OutputPlace {
        /// The output.
        path: PathBuf,
        /// What is wrong with its place, and the remedy.
        reason: String,
    },

    /// An output could not be written when the run had ended.
    #[error("cannot write {path:?}: {reason}; free space or name another place")]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system answered.
        reason: io::Error,
    },
}

impl Error {
    /// The exit code that tells a script who is to blame: 2 for what the user asked (the field, the device), which fails
    /// again until it is changed; 1 for what the machine refused afterwards.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Write { .. }) { 1 } else { 2 }
    }
}
