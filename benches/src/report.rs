//! What a bench prints: rows, for a person or for a program.

use std::cell::Cell;
use std::fmt;
use std::future::Future;

use chare::Runtime;

use crate::processes::Processes;
use crate::{OptionValue, Options, OptionsError, Summary, USAGE, run};

/// How much one operation moves, or how many operations a batch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// The bytes of the payload.
    Bytes(u64),
    /// The number of messages, elements or cells.
    Count(u64),
}

/// One measured quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The bench.
    pub bench: &'static str,
    /// What was measured.
    pub case: String,
    /// How much of it.
    pub amount: Amount,
    /// The PEs of a process, or the threads of a reference.
    pub pes: usize,
    /// The processes.
    pub ranks: usize,
    /// What `best` and `median` count: `ns`, `us`, `ms`, `bytes` or `ratio`; or `MFlop/s` or `MB/s`, of which more is better.
    pub unit: &'static str,
    /// The figures.
    pub summary: Summary,
}

impl Row {
    /// The row as one line of JSON.
    pub fn to_json(&self) -> String {
        let Row { bench, case, amount, pes, ranks, unit, summary } = self;
        let (kind, amount) = match amount {
            Amount::Bytes(bytes) => ("bytes", bytes),
            Amount::Count(count) => ("count", count),
        };
        let Summary { best, median, batches } = summary;
        debug_assert!(!case.contains(['"', '\\']), "names of cases need no escapes");
        format!(
            "{{\"bench\":\"{bench}\",\"case\":\"{case}\",\"{kind}\":{amount},\"pes\":{pes},\"ranks\":{ranks},\
             \"unit\":\"{unit}\",\"best\":{best:.4},\"median\":{median:.4},\"batches\":{batches}}}"
        )
    }
}

impl fmt::Display for Row {
    /// The row as a line of the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { case, amount, pes, ranks, unit, summary: Summary { best, median, batches }, .. } = self;
        let pes = if *ranks > 1 { format!("{ranks}x{pes}") } else { pes.to_string() };
        let amount = match amount {
            Amount::Bytes(bytes) => readable_bytes(*bytes),
            Amount::Count(count) => format!("x {count}"),
        };
        write!(f, "{case:<28} {amount:>10} {pes:>4} {best:>12.3} {median:>12.3} {unit:<6} {batches:>7}")
    }
}

fn readable_bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// A bench that is running: its name, its options, and the rows it prints.
#[derive(Debug)]
pub struct Bench {
    name: &'static str,
    options: Options,
    processes: Processes,
    has_printed: Cell<bool>,
}

impl Bench {
    /// A bench with these options.
    pub fn new(name: &'static str, options: Options) -> Self {
        Bench { name, options, processes: Processes::default(), has_printed: Cell::new(false) }
    }

    /// A bench with the options of this process; ends the process if they cannot be understood.
    pub fn from_args(name: &'static str) -> Self {
        Bench::from_args_with(name, "", |_, _| Ok(false))
    }

    /// As [`Bench::from_args`], for a bench that has options of its own ([`Options::parse_with`]), which `usage` explains.
    pub fn from_args_with(
        name: &'static str,
        usage: &str,
        own: impl FnMut(&str, &mut OptionValue<'_>) -> Result<bool, OptionsError>,
    ) -> Self {
        let options = read_options(usage, own);
        if options.ranks() > 1 {
            eprintln!("error: --ranks {}: {name} runs in one process", options.ranks());
            std::process::exit(2);
        }
        Bench::new(name, options)
    }

    /// As [`Bench::from_args_with`], for a bench that measures by [`Bench::run`] only: it runs on as many processes as `--ranks` says, or
    /// else on `ranks`. It starts itself under `mpirun`, and what has done so ends here.
    pub fn on_processes(
        name: &'static str,
        ranks: usize,
        usage: &str,
        own: impl FnMut(&str, &mut OptionValue<'_>) -> Result<bool, OptionsError>,
    ) -> Self {
        let options = read_options(usage, own).or_on(ranks);
        let processes = Processes::begin(options.ranks());
        Bench { processes, ..Bench::new(name, options) }
    }

    /// Runs `program` on all PEs, as [`run()`]; of several processes the first one gets its value, and reports it.
    pub fn run<T, F, Fut>(&self, program: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(Runtime) -> Fut,
        Fut: Future<Output = chare::Result<T>> + Send + 'static,
    {
        if self.options.ranks() == 1 {
            return Some(run(self.options.pes(), program));
        }
        self.processes.run(self.options.pes(), program)
    }

    /// How it is run.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Prints a quantity measured on as many PEs as asked for.
    pub fn report(&self, case: impl Into<String>, amount: Amount, unit: &'static str, summary: Summary) {
        self.report_on(self.options.pes(), case, amount, unit, summary);
    }

    /// Prints a quantity measured on `pes` PEs or threads.
    pub fn report_on(
        &self,
        pes: usize,
        case: impl Into<String>,
        amount: Amount,
        unit: &'static str,
        summary: Summary,
    ) {
        let ranks = self.options.ranks();
        let row = Row { bench: self.name, case: case.into(), amount, pes, ranks, unit, summary };
        if self.options.is_json() {
            println!("{}", row.to_json());
            return;
        }
        if !self.has_printed.replace(true) {
            let (case, unit) = (self.name, "unit");
            println!(
                "{case:<28} {:>10} {:>4} {:>12} {:>12} {unit:<6} {:>7}",
                "amount", "PEs", "best", "median", "batches"
            );
        }
        println!("{row}");
    }
}

/// The options of this process; ends it if they cannot be understood.
fn read_options(
    usage: &str,
    own: impl FnMut(&str, &mut OptionValue<'_>) -> Result<bool, OptionsError>,
) -> Options {
    ship_kernels();
    match Options::parse_with(std::env::args().skip(1), own) {
        Ok(options) => options,
        Err(OptionsError::Help) => {
            println!("{USAGE}{usage}");
            std::process::exit(0);
        }
        Err(error) => {
            eprintln!("{error}{usage}");
            std::process::exit(2);
        }
    }
}

/// If `SHIP_KERNELS` names a folder, compiles the kernels of this bench for machines without a compiler, and ends the
/// process: what `--ship-kernels` is to programs.
fn ship_kernels() {
    let Ok(folder) = std::env::var("SHIP_KERNELS") else { return };
    let capability = std::env::var("SHIP_CAPABILITY").unwrap_or_else(|_| "9.0".to_owned());
    let shipped = capability.parse().map_err(|error: chare::device::CapabilityError| error.to_string());
    let shipped = shipped.and_then(|capability| {
        chare::device::ship_kernels(folder.as_ref(), capability).map_err(|error| error.to_string())
    });
    match shipped {
        Ok(count) => {
            println!("kernels compiled: {count}, in {folder}");
            std::process::exit(0);
        }
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_lines_for_programs_and_for_people() {
        let row = Row {
            bench: "pingpong",
            case: "cross_pe".into(),
            amount: Amount::Bytes(65536),
            pes: 2,
            ranks: 1,
            unit: "ns",
            summary: Summary { best: 1.5, median: 2.25, batches: 30 },
        };
        assert_eq!(
            row.to_json(),
            r#"{"bench":"pingpong","case":"cross_pe","bytes":65536,"pes":2,"ranks":1,"unit":"ns","best":1.5000,"median":2.2500,"batches":30}"#
        );
        let words: Vec<String> = row.to_string().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["cross_pe", "64", "KiB", "2", "1.500", "2.250", "ns", "30"]);
        let joined = Row { ranks: 4, ..row.clone() };
        assert!(joined.to_json().contains(r#""pes":2,"ranks":4,"#) && joined.to_string().contains(" 4x2 "));
        let counted = Row { amount: Amount::Count(7), ..row };
        assert!(counted.to_json().contains(r#""count":7,"#) && counted.to_string().contains("x 7"));
    }
}
