//! The promises of the programming model, one file per subject, each at 1, 2, 4 and 8 PEs.
//!
//! Where a test needs to know that a message has arrived, it awaits quiescence: then everything that was sent has.

mod arguments;
mod arrays;
mod binding;
mod bound;
mod broadcasts;
mod callbacks;
mod calls;
mod channel_ends;
mod channel_lives;
mod channels;
mod conditions;
mod constructors;
mod destructors;
mod devices;
mod drops;
mod dynamic;
mod entries;
mod errors;
mod exit;
mod external;
mod groups;
mod hang;
mod hosts;
mod initial;
mod inline;
mod lifetimes;
mod local;
mod memory;
mod migration;
mod misuse;
mod other_runs;
mod outside;
mod panics;
mod plain;
mod priorities;
mod profile;
mod promises;
mod proxies;
mod quiescence;
mod reducers;
mod reductions;
mod reentrancy;
mod remote;
mod replays;
mod reports;
mod restarts;
mod rooted;
mod seeds;
mod simulation;
mod singles;
mod threads;
mod timers;
mod unread;
mod user_code;
mod waiting;

use chare::{ExitReport, MainOutput, Options, Runtime};

/// The PE counts that every promise is tested at.
const PES: [usize; 4] = [1, 2, 4, 8];

/// Runs a program whose end is what is tested, spread over processes as the tests are.
fn run<F, Fut, R>(pes: usize, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    run_with(Options::default().with_pes(pes), main)
}

fn run_with<F, Fut, R>(options: Options, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    chare::__private::run(options, main).expect("its devices are there")
}

/// As [`run`], in one process: of what does not leave it, or is told of by statics.
fn run_in_one_process<F, Fut, R>(pes: usize, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    Runtime::run(Options::default().with_pes(pes), main).expect("the host device is always there")
}

/// Whether PE 0 and the last PE are in different processes.
fn is_spread(rt: &Runtime) -> bool {
    rt.num_processes() > 1
}
