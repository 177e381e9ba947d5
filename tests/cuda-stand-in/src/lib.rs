//! A stand-in for `libcuda.so` that works on host memory, for tests where there is no GPU.
//!
//! It keeps what makes a GPU hard to program against, and punishes what a GPU would punish:
//!
//! * *Asynchrony.* A stream is a queue that worker threads drain, each device with its own; what different streams hold
//!   runs in any order that the events allow, after a delay drawn from a seed. An event completes when a worker has come
//!   to it.
//! * *Sticky errors.* A kernel that faults poisons the context of its device: what is queued is dropped and every later
//!   call for that context returns the same code. Other devices go on.
//! * *Limits.* Memory has a capacity, launches have limits, fresh memory holds garbage.
//! * *Memory is the device's.* Device addresses are no host addresses: the host that reads one dies, a kernel that is
//!   given a host address faults. An allocation knows who uses it.
//!
//! A kernel is a Rust closure that the test registers under the kernel's name ([`StandIn::register`]), with the layout of
//! its parameters; a module is PTX or a cubin from NVRTC, or a plain listing of names. PTX is checked against the
//! registered layout.
//!
//! What no correct program does (a stale handle, memory freed while it is used, a call that breaks a capture) is *misuse*:
//! it is printed and ends the process, or, with `STAND_IN_MISUSE=report`, is returned as the code that a driver would
//! return.
//!
//! It is NVIDIA's management library too, of which it has what tells how devices are doing.
//!
//! The library is configured by variables of the environment, read at the first call:
//!
//! | variable | meaning | if not set |
//! |---|---|---|
//! | `STAND_IN_DEVICES` | how many devices | 2 |
//! | `STAND_IN_MEMORY_MIB` | the memory of each | 256 |
//! | `STAND_IN_SEED` | what orders and delays are drawn from | 1 |
//! | `STAND_IN_DELAY_US` | the longest delay before an operation | 20 |
//! | `STAND_IN_WORKERS` | operations of one device that run at once | 2 |
//! | `STAND_IN_PEER` | whether devices reach each other's memory | 1 |
//! | `STAND_IN_DRIVER` | the version of CUDA that it says it has | 13000 |
//! | `STAND_IN_NEAR_CPU` | the one processor near device 0; near the next device is the next one | all are near all |
//! | `STAND_IN_MISUSE` | `abort` or `report` | `abort` |

#![cfg(target_os = "linux")]

mod api;
mod code;
mod door;
mod engine;
mod graph;
mod kernel;
mod memory;
mod module;
mod packed;
mod settings;
mod world;

pub use door::{Arguments, Geometry, StandIn, folder};
pub use kernel::{Fault, Parameter};
pub use packed::Field;
