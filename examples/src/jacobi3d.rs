//! All of the program `jacobi3d` that needs no runtime: its options, its checked inputs, its results.
//!
//! A [`Job`] exists only when every file has been read, every place for a result has been checked, and the blocks fit:
//! after that the run itself cannot fail for a reason the user could have been told at once.

use std::fmt;
use std::path::PathBuf;

use clap::{Parser, value_parser};
use serde::Serialize;

use crate::Error;
use crate::cli::{self, RUNTIME_OPTIONS, parse_blocks, parse_extents, parse_tolerance};
use crate::decomposition::Decomposition;
use crate::field::{Extents, Field, Precision};
use crate::output::Output;
use crate::picture::Picture;

const DEFAULT_GRID: Extents = [128; 3];

/// Heat in a box: each step, every cell inside becomes the mean of its six neighbours
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(name = "jacobi3d", version, after_help = RUNTIME_OPTIONS)]
pub struct Options {
    /// Start from this 3-D field of float32 or float64 [default: a box on a hot plate]
    #[arg(long, value_name = "FIELD.npy", conflicts_with_all = ["grid", "precision"])]
    pub input: Option<PathBuf>,

    /// Extents of the box on a hot plate [default: 128]
    #[arg(long, value_name = "N[,N,N]", value_parser = parse_extents)]
    pub grid: Option<Extents>,

    /// Precision of the box on a hot plate [default: f64; f32 with --device wgpu]
    #[arg(long, value_name = "f32|f64", hide_possible_values = true)]
    pub precision: Option<Precision>,

    /// Blocks along each axis [default: four for each PE, nearly cubic]
    #[arg(long, value_name = "BX,BY,BZ", value_parser = parse_blocks)]
    pub blocks: Option<[usize; 3]>,

    /// Steps to compute
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..))]
    pub steps: u32,

    /// Stop after the first step that changes no cell by more than this
    #[arg(long, value_name = "CHANGE", value_parser = parse_tolerance)]
    pub tolerance: Option<f64>,

    /// Write the resulting field here
    #[arg(long, value_name = "FIELD.npy")]
    pub output: Option<PathBuf>,

    /// Draw the middle plane of the first axis here
    #[arg(long, value_name = "PLANE.png")]
    pub image: Option<PathBuf>,

    /// Print the summary as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// A run whose inputs and outputs have been checked.
#[derive(Debug)]
pub struct Job {
    /// The field to start from.
    pub field: Field,
    /// The blocks to compute it in.
    pub decomposition: Decomposition,
    /// The number of steps, at least 1, that are computed at most.
    pub steps: u32,
    /// The residual at which the run ends early.
    pub tolerance: Option<f64>,
    /// The places where its results go.
    pub results: Results,
}

/// The checked places of a run's results.
#[derive(Debug)]
pub struct Results {
    output: Option<Output>,
    image: Option<Output>,
    json: bool,
}

impl Job {
    /// Checks the options and reads or makes the field, for a run on so many PEs altogether.
    ///
    /// # Errors
    /// Any error but [`Error::Write`]: of the places for the results, of the input file, of the blocks.
    pub fn prepare(options: &Options, pe_count: usize) -> Result<Job, Error> {
        let output = options.output.as_ref().map(Output::at).transpose()?;
        let image = options.image.as_ref().map(Output::at).transpose()?;
        if let (Some(output), Some(image)) = (&output, &image)
            && output.is_same_place(image)
        {
            let path = output.path();
            return Err(Error::Usage(format!("--output and --image both name {path:?}; name two files")));
        }
        let field = match &options.input {
            Some(path) => Field::read(path)?,
            None => Field::hot_plate(
                options.grid.unwrap_or(DEFAULT_GRID),
                options.precision.unwrap_or(Precision::F64),
            )?,
        };
        let decomposition = match options.blocks {
            Some(blocks) => Decomposition::new(field.extents(), blocks)?,
            None => Decomposition::automatic(field.extents(), pe_count)?,
        };
        let Options { steps, tolerance, json, .. } = *options;
        Ok(Job { field, decomposition, steps, tolerance, results: Results { output, image, json } })
    }
}

impl Results {
    /// Writes the resulting field and its picture where they were asked for, then prints the summary on standard
    /// output.
    ///
    /// # Errors
    /// [`Error::Write`] if a file cannot be written; nothing of it is left behind, and no summary is printed. A closed
    /// pipe on standard output is no error.
    pub fn deliver(&self, field: &Field, summary: &Summary) -> Result<(), Error> {
        if let Some(output) = &self.output {
            field.write(output)?;
        }
        if let Some(image) = &self.image {
            let picture = summary.picture(field);
            image.write(|writer| picture.write_png(writer))?;
        }
        let line = if self.json { summary.to_json() } else { summary.to_string() };
        cli::print(&format!("{line}\n"))
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The time of the steps alone, without reading, writing and starting.
    pub seconds: f64,
    /// The steps computed.
    pub steps: u32,
    /// The largest change of a cell in the last step.
    pub residual: f64,
    /// The interior cells computed each second.
    pub cells_per_second: f64,
    /// The PEs that took part.
    pub pes: usize,
    /// The device that they used.
    pub device: String,
}

impl Summary {
    /// The summary of a run over a field that was cut in this way.
    pub fn new(
        decomposition: &Decomposition,
        seconds: f64,
        steps: u32,
        residual: f64,
        pes: usize,
        device: impl Into<String>,
    ) -> Summary {
        let computed = decomposition.interior_cell_count() as f64 * f64::from(steps);
        let device = device.into();
        Summary { seconds, steps, residual, cells_per_second: computed / seconds, pes, device }
    }

    /// One line of JSON; a number that is not finite is `null`.
    #[expect(clippy::missing_panics_doc, reason = "five numbers and a string always encode")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("five numbers and a string always encode")
    }

    /// The middle plane of the resulting field.
    pub fn picture(&self, field: &Field) -> Picture {
        let (middle, plane) = field.middle_slice();
        let caption = format!("u[{middle}, :, :] at step {}, residual {:.2e}", self.steps, self.residual);
        Picture::heat_map(plane.view(), ["y", "z"], &caption)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { seconds, steps, residual, cells_per_second, pes, device } = self;
        let million = cells_per_second / 1e6;
        write!(
            formatter,
            "{steps} steps in {seconds:.3} s, {million:.1} million cells/s; residual {residual:.3e}; {pes} PE(s), {device}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::Invocation;

    fn options(line: &str) -> Options {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match cli::parse(&arguments).expect("a correct line") {
            Invocation::Run(options) => options,
            Invocation::Print(text) => panic!("nothing was to be printed: {text}"),
        }
    }

    fn refusal(line: &str) -> String {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let refused = match cli::parse::<Options>(&arguments) {
            Ok(Invocation::Run(options)) => Job::prepare(&options, 2).expect_err("it cannot run"),
            Ok(Invocation::Print(text)) => panic!("nothing was to be printed: {text}"),
            Err(mistake) => mistake,
        };
        assert_eq!(refused.exit_code(), 2);
        let said = refused.to_string();
        assert!(!said.contains('\n'), "{said}");
        said
    }

    #[test]
    fn the_defaults_are_a_hot_plate_in_four_blocks_for_each_pe() {
        let chosen = options("jacobi3d");
        assert_eq!((chosen.steps, chosen.tolerance, chosen.json), (200, None, false));
        let job = Job::prepare(&chosen, 2).expect("the defaults run");
        assert_eq!((job.field.extents(), job.field.precision()), (DEFAULT_GRID, Precision::F64));
        assert_eq!(job.decomposition.block_count(), 8);
    }

    #[test]
    fn help_lists_the_runtime_options_too() {
        let help = cli::parse::<Options>(&["jacobi3d".into(), "--help".into()]);
        let Ok(Invocation::Print(help)) = help else { panic!("help was asked for") };
        let listed =
            ["--input", "--grid", "--blocks", "--steps", "--tolerance", "--output", "--image", "--json"];
        for option in listed.into_iter().chain(["Runtime options:", "--pes", "--device", "--quiet"]) {
            assert!(help.contains(option), "{option} is missing in:\n{help}");
        }
        assert!(help.lines().all(|line| line.len() <= 110), "{help}");
    }

    #[test]
    fn what_cannot_run_is_refused_before_it_starts() {
        let cases = [
            ("jacobi3d --input a.npy --grid 8", "'--input <FIELD.npy>' cannot be used with '--grid"),
            ("jacobi3d --input none.npy", "cannot read \"none.npy\""),
            ("jacobi3d --grid 2", "at least 3"),
            ("jacobi3d --grid 8 --blocks 7,1,1", "7 blocks along axis 0, where the interior has 6 cell(s)"),
            ("jacobi3d --steps 0", "'0' for '--steps <N>'"),
            ("jacobi3d --tolerance nan", "'nan' for '--tolerance <CHANGE>'"),
            ("jacobi3d --output none/a.npy", "there is no folder \"none\""),
            ("jacobi3d --image none/a.png", "there is no folder \"none\""),
            ("jacobi3d --output same --image same", "both name \"same\""),
            ("jacobi3d --output same.npy --image ./same.npy", "both name \"same.npy\""),
            ("jacobi3d --step 5", "did you mean --steps? --help lists the options"),
            ("jacobi3d --bogus", "'--bogus' found; --help lists the options"),
            ("jacobi3d field.npy", "unexpected argument 'field.npy'"),
        ];
        for (line, expected) in cases {
            let said = refusal(line);
            assert!(said.contains(expected), "{line}: {said}");
        }
    }

    #[test]
    fn the_results_are_delivered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chosen = Options {
            output: Some(folder.path().join("o.npy")),
            image: Some(folder.path().join("o.png")),
            ..options("jacobi3d --grid 6,5,7 --precision f32")
        };
        let job = Job::prepare(&chosen, 1).expect("it can run");
        let summary = Summary::new(&job.decomposition, 0.5, 10, 0.25, 1, "host");
        job.results.deliver(&job.field, &summary).expect("delivered");
        let written = Field::read(&folder.path().join("o.npy")).expect("a field");
        assert_eq!(written, job.field);
        assert!(fs::read(folder.path().join("o.png")).expect("there").starts_with(b"\x89PNG\r\n\x1a\n"));
    }

    #[test]
    fn the_summary_is_one_line_of_json_or_of_prose() {
        let cut = Decomposition::new([7, 6, 12], [1; 3]).expect("they fit");
        let summary = Summary::new(&cut, 0.5, 10, 0.25, 3, "host");
        assert_eq!(summary.cells_per_second, 4000.0);
        assert_eq!(
            summary.to_json(),
            r#"{"seconds":0.5,"steps":10,"residual":0.25,"cells_per_second":4000.0,"pes":3,"device":"host"}"#
        );
        assert_eq!(
            summary.to_string(),
            "10 steps in 0.500 s, 0.0 million cells/s; residual 2.500e-1; 3 PE(s), host"
        );
    }
}
