//! The command line of a bench: the same for all, so that one command can run them all.

use std::fmt;

/// What a bench says when it is asked for help.
pub const USAGE: &str = "\
usage: cargo bench -p chare-benches [--bench NAME] -- [options]
  --pes N       PEs, that is threads, of each process [default: 2, of several processes 1]
  --ranks N     Processes, started by `mpirun`; for benches that say so, built with `--features mpi` [default: 1]
  --case TEXT   Only cases whose name contains TEXT; may be given several times
  --json        One JSON object per line instead of a table
  --smoke       Tiny inputs, to see that a bench still runs; its figures mean nothing";

/// How to run a bench.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pes: Option<usize>,
    ranks: Option<usize>,
    json: bool,
    smoke: bool,
    cases: Vec<String>,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// Nothing: help was asked for.
    Help,
    /// This.
    Wrong(String),
}

/// Brings the value of an option, or says that there is none.
pub type OptionValue<'a> = dyn FnMut() -> Result<String, OptionsError> + 'a;

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionsError::Help => f.write_str(USAGE),
            OptionsError::Wrong(what) => write!(f, "error: {what}\n{USAGE}"),
        }
    }
}

impl std::error::Error for OptionsError {}

impl Options {
    /// The options of a run that only shows that a bench works: tiny inputs, few batches.
    pub fn smoke() -> Options {
        Options { pes: None, ranks: None, json: false, smoke: true, cases: Vec::new() }
    }

    /// Reads a command line, without the program's name. `--bench`, which cargo adds, says nothing.
    ///
    /// # Errors
    /// If an option is unknown or its value is missing or unusable, and if help is asked for.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Options, OptionsError> {
        Options::parse_with(args, |_, _| Ok(false))
    }

    /// As [`Options::parse`], for a bench that has options of its own. Of one that is not common to all benches `own` is
    /// given the name and what brings its value; it says whether it knows it.
    ///
    /// # Errors
    /// As [`Options::parse`], and those of `own`.
    pub fn parse_with(
        args: impl IntoIterator<Item = String>,
        mut own: impl FnMut(&str, &mut OptionValue<'_>) -> Result<bool, OptionsError>,
    ) -> Result<Options, OptionsError> {
        let mut options = Options { smoke: false, ..Options::smoke() };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let mut value = || {
                let value = inline.clone().or_else(|| args.next());
                value.ok_or_else(|| OptionsError::Wrong(format!("{name} needs a value")))
            };
            match name {
                "--pes" => options.pes = Some(parse_pes(&value()?)?),
                "--ranks" => options.ranks = Some(parse_ranks(&value()?)?),
                "--case" => options.cases.push(value()?),
                "--json" => options.json = true,
                "--smoke" => options.smoke = true,
                "--bench" => {}
                "--help" | "-h" => return Err(OptionsError::Help),
                _ if own(name, &mut value)? => {}
                _ => return Err(OptionsError::Wrong(format!("there is no option {arg}"))),
            }
        }
        Ok(options)
    }

    /// The number of PEs of a process.
    pub fn pes(&self) -> usize {
        self.pes.unwrap_or(if self.ranks() > 1 { 1 } else { 2 })
    }

    /// The number of processes.
    pub fn ranks(&self) -> usize {
        self.ranks.unwrap_or(1)
    }

    /// The same on so many processes, unless their number is said.
    pub(crate) fn or_on(mut self, ranks: usize) -> Options {
        self.ranks = self.ranks.or(Some(ranks));
        self
    }

    /// Whether rows are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether only to show that the bench works.
    pub fn is_smoke(&self) -> bool {
        self.smoke
    }

    /// Whether the case with this name is asked for.
    pub fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| case.contains(wanted.as_str()))
    }

    /// `count`, or `tiny` in a smoke run.
    pub fn count(&self, count: u64, tiny: u64) -> u64 {
        if self.smoke { tiny } else { count }
    }
}

fn parse_pes(value: &str) -> Result<usize, OptionsError> {
    match value.parse() {
        Ok(pes) if (1..=4096).contains(&pes) => Ok(pes),
        _ => Err(OptionsError::Wrong(format!("--pes {value}: give the number of PEs, from 1 to 4096"))),
    }
}

fn parse_ranks(value: &str) -> Result<usize, OptionsError> {
    match value.parse() {
        Ok(ranks) if (1..=1024).contains(&ranks) => Ok(ranks),
        _ => {
            Err(OptionsError::Wrong(format!("--ranks {value}: give the number of processes, from 1 to 1024")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionsError> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_command_line_is_understood() {
        let options = parse("--bench --pes 3 --case same --json --case=void").expect("a good line");
        assert_eq!((options.pes(), options.is_json(), options.is_smoke()), (3, true, false));
        assert!(
            options.wants("u64_same_pe") && options.wants("void_cross_pe") && !options.wants("kib_cross_pe")
        );
        assert_eq!((options.count(10, 1), Options::smoke().count(10, 1)), (10, 1));
        assert!(parse("").expect("an empty line").wants("anything"));
        let several = parse("--ranks 4").expect("a good line");
        assert_eq!((several.ranks(), several.pes(), parse("").map(|alone| alone.pes())), (4, 1, Ok(2)));
        assert_eq!((several.or_on(2).ranks(), Options::smoke().or_on(2).ranks()), (4, 2));
    }

    #[test]
    fn a_bench_may_have_options_of_its_own() {
        let mut steps = None;
        let line = "-steps 7 --json --deep";
        let mut own = |name: &str, value: &mut OptionValue<'_>| match name {
            "-steps" => value().map(|value| steps = Some(value)).and(Ok(true)),
            _ => Ok(name == "--deep"),
        };
        let options = Options::parse_with(line.split(' ').map(str::to_owned), &mut own).expect("a good line");
        assert!(options.is_json());
        for wrong in ["--steps 7", "-steps"] {
            let line = wrong.split(' ').map(str::to_owned);
            assert!(Options::parse_with(line, &mut own).is_err(), "{wrong}");
        }
        assert_eq!(steps.as_deref(), Some("7"));
    }

    #[test]
    fn a_bad_command_line_is_refused() {
        for line in ["--pes", "--pes 0", "--pes x", "--ranks 0", "--fast"] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.starts_with("error: ") && error.ends_with(USAGE), "{error}");
        }
        assert_eq!(parse("--json --help"), Err(OptionsError::Help));
    }
}
