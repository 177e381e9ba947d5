//! The program `chare`, which looks at this machine as a run would: `chare info [--pes N] [--device SPEC] [--device-map MAP]
//! [--device-path PATH]`. Under `mpirun` it looks at all machines of the job.

use std::io::Write;
use std::process::ExitCode;

use chare::{Info, Options};

const USAGE: &str = "usage: chare info [--pes N] [--device SPEC] [--device-map MAP] [--device-path PATH]";

fn main() -> ExitCode {
    // Where nobody reads, the exit code still tells.
    match answer() {
        // Another process of the job speaks for this one.
        Ok(text) if text.is_empty() => ExitCode::SUCCESS,
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "error: {reason}");
            ExitCode::from(2)
        }
    }
}

fn answer() -> Result<String, String> {
    let options = Options::from_env().map_err(|error| error.to_string())?;
    match options.args().get(1..) {
        Some([command]) if command == "info" => Info::of_job(&options).map_err(|error| error.to_string()),
        Some([help]) if ["help", "--help", "-h"].contains(&&**help) => Ok(USAGE.to_owned()),
        Some([command, other, ..]) if command == "info" => {
            Err(format!("`{other}` is not understood after `info`; {USAGE}"))
        }
        Some([other, ..]) => Err(format!("there is no command `{other}`; {USAGE}")),
        _ => Err(format!("there is no command; {USAGE}")),
    }
}
