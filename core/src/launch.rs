//! What the macros turn a program's `main` and its tests into: a run, whose report ends the process or the test.

use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use chare_device::Capability;

use crate::options::Options;
use crate::runtime::{MainOutput, Runtime, StartError};

/// What `#[chare::main]` calls: options from the command line, the report on standard error, its code as exit code.
#[doc(hidden)]
pub fn main<F, Fut, R>(_program: &'static str, main: F) -> ExitCode
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let options = Options::from_env().map_err(StartError::from);
    if let Ok(Some((folder, capability))) = options.as_ref().map(Options::ships_kernels) {
        return ship_kernels(folder, capability);
    }
    let report = options.and_then(|options| {
        let is_asked = options.asks_to_choose();
        Runtime::run(options, |rt| {
            say_what_was_chosen(&rt, is_asked);
            main(rt)
        })
    });
    match report {
        Ok(report) => {
            if let Some(profile) = report.profile() {
                say(&profile.to_string());
            }
            if let Some(count) = report.restarted() {
                say(&format!("coroutines started again at sync points: {count}"));
            }
            if let Some(simulation) = report.simulation() {
                say(&simulation.to_string());
            }
            let text = report.to_string();
            if !text.is_empty() {
                say(&text);
            }
            // Exit codes of processes have 8 bits; what does not fit is still not success.
            ExitCode::from(u8::try_from(report.code()).unwrap_or(u8::MAX))
        }
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Compiles the kernels of the program for machines elsewhere.
fn ship_kernels(folder: &Path, capability: Capability) -> ExitCode {
    match chare_device::ship_kernels(folder, capability) {
        Ok(count) => {
            say(&format!("kernels compiled: {count}, in {}", folder.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error: --ship-kernels: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Says which devices the program has chosen, and why, to a user who asks for that; and to one who does not, if GPUs stay
/// unused.
fn say_what_was_chosen(rt: &Runtime, is_asked: bool) {
    if !rt.is_quiet() && (is_asked || rt.passes_over_gpus()) {
        say(&format!("--device auto: {}", rt.device_reason()));
    }
}

/// Writes a line on standard error. Where nobody reads it, the exit code still tells.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
