//! What the example programs share besides the runtime: reading and writing fields, drawing them, cutting
//! them into blocks, reporting progress, and reading a command line.
//!
//! Nothing here knows the runtime, so everything here is tested without one. All that a user can get wrong (an
//! option, a file, a folder) is an [`Error`], found before the first step is computed, and shown as one line that
//! names the thing and the remedy.
//!
//! ```
//! use chare_examples::{cli::{self, Invocation}, jacobi3d::{Job, Options}};
//!
//! let arguments = ["jacobi3d", "--grid", "16,8,8", "--steps", "10"].map(String::from);
//! let Invocation::Run(options) = cli::parse::<Options>(&arguments)? else { panic!("no help was asked for") };
//! let job = Job::prepare(&options, 2)?;
//! assert_eq!(job.field.extents(), [16, 8, 8]);
//! assert_eq!(job.decomposition.blocks(), [4, 2, 1]);
//! # Ok::<(), chare_examples::Error>(())
//! ```

mod canvas;
pub mod cli;
pub mod decomposition;
mod error;
pub mod field;
pub mod jacobi3d;
mod npy;
pub mod output;
pub mod picture;
pub mod progress;

pub use error::Error;
