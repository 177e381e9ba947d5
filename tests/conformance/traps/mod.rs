//! What goes wrong in charm4py, Charm++ and HAPI, often against what their manuals say, and must not here: each test is
//! named after what a program may rely on instead, and says what the trap was.
//!
//! Some have no test here, since what they are about is not there, or is no question of what happens in a run:
//!
//! * the option `local_msg_optim`, on in charm4py's manual and off in its code: there is no such option, arguments are always
//!   owned by one receiver (`messages`);
//! * `senders`, which the code calls `num_vals`, and supported interpreters that the code refuses: names and signatures are the
//!   compiler's to check;
//! * the order in which `pool.map` takes its tasks, last first: there is no pool yet;
//! * HAPI's `hapiPoolMalloc`, whose manual speaks of device memory and whose code gives pinned host memory: these are two
//!   types, and neither goes where the other is wanted (`ui/fail/host_memory_is_no_device_memory.rs`);
//! * ids of futures that `hapiAddCudaCallback` cuts to 32 bits: completions have no ids, and what counts in 32 bits inside of the
//!   runtime is tested there just below the end of its range (`answer`, `scheduler/slots`, `channel/table`).

mod collections;
mod devices;
mod hangs;
mod messages;
mod moving;
mod waiting;
