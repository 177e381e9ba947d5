//! Reading a command line that the runtime has already taken its own options from, and answering on standard output.
//!
//! Nothing exits here: help is a text to print, a mistake is an [`Error`] of one line.

use std::io::{self, Write};

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::Error;

/// The section of an example's help that lists what the runtime takes from the command line.
pub const RUNTIME_OPTIONS: &str = "\
Runtime options:
      --pes <N>              Scheduling threads (PEs) of this process [default: one for each core]
      --device <DEVICE>      Where kernels run: auto, host:2@1,3:mem=1GiB, cuda:0, wgpu [default: auto]
      --device-map <MAP>     Which device each PE uses: block, cyclic, or a list as 0,0,1,1 [default: block]
      --quiet                Report no progress";

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation<T> {
    /// To run, with these options.
    Run(T),
    /// To print this text (help, or the version) on standard output and to succeed.
    Print(String),
}

/// Reads the arguments, of which the first is the program's name.
///
/// # Errors
/// [`Error::Usage`] if they cannot be understood.
pub fn parse<T: Parser>(arguments: &[String]) -> Result<Invocation<T>, Error> {
    match T::try_parse_from(arguments) {
        Ok(options) => Ok(Invocation::Run(options)),
        Err(answer) if matches!(answer.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Invocation::Print(answer.render().to_string()))
        }
        Err(mistake) => Err(Error::Usage(one_line(&mistake))),
    }
}

/// Prints a text on standard output. Nothing happens if nobody reads it.
///
/// # Errors
/// [`Error::Write`] if the system refuses for any reason but a closed pipe.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(reason) if reason.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Write { path: "standard output".into(), reason })
        }
        _ => Ok(()),
    }
}

/// Reads `N` or `N,N,N`, where one number stands for three equal ones.
///
/// # Errors
/// If the text is neither, or a number is less than 3.
pub fn parse_extents(text: &str) -> Result<[usize; 3], String> {
    let extents = match text.parse::<usize>() {
        Ok(extent) => [extent; 3],
        Err(_) => three_numbers(text).ok_or("write one extent, as in 128, or three, as in 128,64,64")?,
    };
    if extents.iter().any(|&extent| extent < 3) {
        return Err("every extent must be at least 3, so that there is an interior".into());
    }
    Ok(extents)
}

/// Reads `X,Y,Z`, each at least 1.
///
/// # Errors
/// If the text is something else.
pub fn parse_blocks(text: &str) -> Result<[usize; 3], String> {
    let blocks = three_numbers(text).filter(|blocks| blocks.iter().all(|&count| count >= 1));
    blocks.ok_or_else(|| "write three counts of at least 1, as in 4,2,1".into())
}

/// Reads a number that is finite and not negative.
///
/// # Errors
/// If the text is something else.
pub fn parse_tolerance(text: &str) -> Result<f64, String> {
    let tolerance = text.parse::<f64>().ok().filter(|tolerance| tolerance.is_finite() && *tolerance >= 0.0);
    tolerance.ok_or_else(|| "write a number of at least 0, as in 1e-6".into())
}

fn three_numbers(text: &str) -> Option<[usize; 3]> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers?.try_into().ok()
}

/// The first paragraph of the parser's answer, the option that was meant if there is a likely one, and where all stand.
fn one_line(mistake: &clap::Error) -> String {
    let answer = mistake.render().to_string();
    let paragraph = answer.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    let said = paragraph.collect::<Vec<_>>().join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    match (mistake.get(ContextKind::InvalidArg), mistake.get(ContextKind::SuggestedArg)) {
        (Some(ContextValue::String(given)), Some(ContextValue::String(meant))) if is_close(given, meant) => {
            format!("{said}; did you mean {meant}? --help lists the options")
        }
        _ => format!("{said}; --help lists the options"),
    }
}

/// Whether an option is a misspelling of another, or the beginning of it. The parser's own measure finds `--blocks` in
/// `--bogus`.
fn is_close(given: &str, meant: &str) -> bool {
    let [given, meant] = [given, meant].map(|option| option.trim_start_matches('-'));
    let begins = given.len() >= 3 && meant.starts_with(given);
    begins || strsim::damerau_levenshtein(given, meant) <= meant.len().div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser, Debug, PartialEq)]
    #[command(name = "program", version)]
    struct Options {
        #[arg(long, value_parser = parse_extents)]
        grid: Option<[usize; 3]>,
        #[arg(long)]
        needed: u32,
    }

    fn parse_line(line: &str) -> Result<Invocation<Options>, Error> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn mistake(line: &str) -> String {
        let mistake = parse_line(line).expect_err("it is a mistake");
        assert_eq!(mistake.exit_code(), 2);
        let said = mistake.to_string();
        assert!(!said.contains('\n') && !said.starts_with("error"), "{said}");
        said
    }

    #[test]
    fn options_are_read() {
        let options = Options { grid: Some([8; 3]), needed: 5 };
        assert_eq!(parse_line("program --grid 8 --needed 5").expect("correct"), Invocation::Run(options));
    }

    #[test]
    fn help_and_version_are_texts() {
        let Ok(Invocation::Print(help)) = parse_line("program --help") else { panic!("help was asked for") };
        assert!(help.contains("--grid") && help.contains("--version"), "{help}");
        let Ok(Invocation::Print(version)) = parse_line("program --version") else {
            panic!("it was asked for")
        };
        assert_eq!(version.trim(), concat!("program ", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn mistakes_are_one_line_with_a_remedy() {
        assert_eq!(
            mistake("program --needed x"),
            "invalid value 'x' for '--needed <NEEDED>': invalid digit found in string; --help lists the options"
        );
        assert_eq!(
            mistake("program --need 5"),
            "unexpected argument '--need' found; did you mean --needed? --help lists the options"
        );
        assert!(mistake("program --zzz").contains("'--zzz' found; --help lists the options"));
        assert!(mistake("program").contains("not provided: --needed <NEEDED>; --help"));
        assert!(mistake("program --needed 1 --grid 8,2,8").contains("at least 3"));
    }

    #[test]
    fn only_what_is_close_is_suggested() {
        for (given, meant) in [
            ("steps", "step"),
            ("toleranse", "tolerance"),
            ("blokcs", "blocks"),
            ("out", "output"),
            ("gird", "grid"),
        ] {
            assert!(is_close(&format!("--{given}"), &format!("--{meant}")), "{given}");
        }
        for (given, meant) in
            [("bogus", "blocks"), ("in", "input"), ("frobnicate", "precision"), ("imagine", "json")]
        {
            assert!(!is_close(&format!("--{given}"), &format!("--{meant}")), "{given}");
        }
    }

    #[test]
    fn the_devices_that_help_names_are_there() {
        let line = RUNTIME_OPTIONS.lines().find(|line| line.contains("--device")).expect("it is listed");
        let (_, listed) = line.split_once("run: ").expect("a list");
        let (listed, _) = listed.split_once(" [").expect("and the default");
        let specs: Vec<_> = listed.split(", ").collect();
        assert!(specs.len() >= 3, "{specs:?}");
        for spec in specs {
            spec.parse::<chare::device::DeviceSpec>().unwrap_or_else(|error| panic!("{spec}: {error}"));
        }
    }

    #[test]
    fn triples_are_read_or_refused() {
        assert_eq!(parse_extents("128"), Ok([128; 3]));
        assert_eq!(parse_extents("37, 24,41"), Ok([37, 24, 41]));
        assert_eq!(parse_blocks("4,2,1"), Ok([4, 2, 1]));
        for text in ["", "2", "8,8", "8,8,8,8", "8,8,2", "-8", "8x8x8", "99999999999999999999"] {
            assert!(parse_extents(text).is_err(), "{text}");
        }
        for text in ["", "2", "0,1,1", "1,1", "1,1,1,1", "a,b,c"] {
            assert!(parse_blocks(text).is_err(), "{text}");
        }
        assert_eq!(parse_tolerance("1e-6"), Ok(1e-6));
        for text in ["", "-1", "NaN", "inf", "small"] {
            assert!(parse_tolerance(text).is_err(), "{text}");
        }
    }
}
