//! The options that describe graphs, by the names that Task Bench gives them.

use std::str::FromStr;

use super::{Graph, Kernel, Pattern};
use crate::{OptionValue, OptionsError};

/// What the bench says of them when it is asked for help.
pub const TASKBENCH_USAGE: &str = "
options of taskbench; without -type, -width or -steps it runs a table of graphs
  -type PATTERN   trivial, no_comm, stencil_1d, stencil_1d_periodic, dom, tree, fft, all_to_all, nearest, spread,
                  random_nearest
  -steps N        Steps [default: 4]
  -width N        Points [default: 4]
  -radix N        Dependencies of nearest, spread and random_nearest [default: 3]
  -period N       After how many steps those of spread and random_nearest repeat [default: 3]
  -fraction X     The part of the nearest points that random_nearest draws [default: 0.25]
  -kernel KERNEL  empty, compute_bound, load_imbalance or busy_wait [default: empty]
  -iter N         Iterations of the kernel [default: 0]
  -imbalance X    By how much load_imbalance varies them [default: 0]
  -output N       Bytes of an output, a multiple of 16 [default: 16]
  -scratch N      Bytes of memory that each point keeps [default: 0]
  -and            Begins another graph, which runs together with those before
  --metg          Varies -iter of compute_bound: the granularity of tasks at half of the peak rate";

/// What the command line of the bench asks for.
#[derive(Clone, Debug, Default)]
pub struct Args {
    graphs: Vec<Graph>,
    /// Whether the smallest worthwhile granularity is looked for.
    pub metg: bool,
    imbalance: f64,
}

impl Args {
    /// Takes an option; says whether it is one of these.
    ///
    /// # Errors
    /// If its value is missing or unusable.
    pub fn take(&mut self, name: &str, value: &mut OptionValue<'_>) -> Result<bool, OptionsError> {
        if name == "--metg" {
            self.metg = true;
            return Ok(true);
        }
        if name == "-and" {
            self.last();
            let index = self.graphs.len();
            self.graphs.push(Graph { index, ..Graph::default() });
            self.imbalance = 0.0;
            return Ok(true);
        }
        let known = ["-type", "-steps", "-width", "-radix", "-period", "-fraction", "-kernel", "-iter"];
        if !known.contains(&name) && !["-imbalance", "-output", "-scratch"].contains(&name) {
            return Ok(false);
        }
        let value = value()?;
        let imbalance = self.imbalance;
        let graph = self.last();
        match name {
            "-type" => graph.pattern = choose(name, &value, &Pattern::ALL)?,
            "-steps" => graph.steps = number(name, &value)?,
            "-width" => graph.width = number(name, &value)?,
            "-radix" => graph.radix = number(name, &value)?,
            "-period" => graph.period = number(name, &value)?,
            "-fraction" => graph.fraction = part(name, &value)?,
            "-iter" => graph.iterations = number(name, &value)?,
            "-output" => graph.output_bytes = number(name, &value)?,
            "-scratch" => graph.scratch_bytes = number(name, &value)?,
            "-kernel" => {
                let kernels = [
                    ("empty", Kernel::Empty),
                    ("compute_bound", Kernel::ComputeBound),
                    ("load_imbalance", Kernel::LoadImbalance(imbalance)),
                    ("busy_wait", Kernel::BusyWait),
                ];
                graph.kernel = choose(name, &value, &kernels)?;
            }
            // The kernel may be named before or after.
            _ => {
                let imbalance = part(name, &value)?;
                if let Kernel::LoadImbalance(part) = &mut graph.kernel {
                    *part = imbalance;
                }
                self.imbalance = imbalance;
            }
        }
        Ok(true)
    }

    /// The graphs that were described; none if there was no option of a graph.
    ///
    /// # Errors
    /// If one of them cannot be run.
    pub fn graphs(&self) -> Result<&[Graph], OptionsError> {
        self.graphs.iter().try_for_each(Graph::check).map_err(OptionsError::Wrong)?;
        Ok(&self.graphs)
    }

    fn last(&mut self) -> &mut Graph {
        if self.graphs.is_empty() {
            self.graphs.push(Graph::default());
        }
        self.graphs.last_mut().expect("there is one")
    }
}

fn choose<T: Copy>(name: &str, value: &str, all: &[(&str, T)]) -> Result<T, OptionsError> {
    let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let chosen = all.iter().find(|(name, _)| *name == value);
    chosen
        .map(|(_, chosen)| *chosen)
        .ok_or_else(|| OptionsError::Wrong(format!("{name} {value}: give one of {}", names())))
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, OptionsError> {
    value.parse().map_err(|_| OptionsError::Wrong(format!("{name} {value}: give a whole number")))
}

fn part(name: &str, value: &str) -> Result<f64, OptionsError> {
    let part = value.parse().ok().filter(|part: &f64| (0.0..=2.0).contains(part));
    part.ok_or_else(|| OptionsError::Wrong(format!("{name} {value}: give a number from 0 to 2")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn parse(line: &str) -> Result<Args, OptionsError> {
        let mut args = Args::default();
        let words = line.split_whitespace().map(str::to_owned);
        Options::parse_with(words, |name, value| args.take(name, value))?;
        args.graphs()?;
        Ok(args)
    }

    #[test]
    fn graphs_are_described_as_in_the_original() {
        let line = "--json -steps 100 -type nearest -radix 5 -width=8 -kernel compute_bound -iter 64 --metg \
                    -and -type random_nearest -fraction 0.5 -period 7 -output 32 -scratch 64 \
                    -kernel load_imbalance -imbalance 0.2";
        let args = parse(line).expect("a good line");
        let (steps, width, iterations) = (100, 8, 64);
        let first = Graph {
            pattern: Pattern::Nearest,
            radix: 5,
            kernel: Kernel::ComputeBound,
            ..Graph { steps, width, iterations, ..Graph::default() }
        };
        let (fraction, output_bytes, scratch_bytes) = (0.5, 32, 64);
        let second = Graph {
            index: 1,
            pattern: Pattern::RandomNearest,
            period: 7,
            kernel: Kernel::LoadImbalance(0.2),
            ..Graph { fraction, output_bytes, scratch_bytes, ..Graph::default() }
        };
        assert_eq!((args.graphs().expect("good graphs"), args.metg), (&[first, second][..], true));
        let earlier = parse("-imbalance 0.5 -kernel load_imbalance").expect("the order says nothing");
        assert_eq!(earlier.graphs[0].kernel, Kernel::LoadImbalance(0.5));
        assert!(parse("").expect("an empty line").graphs.is_empty());
        assert_eq!(parse("-and").expect("two graphs").graphs.len(), 2);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for line in [
            "-type star",
            "-steps",
            "-steps x",
            "-fraction 3",
            "-output 8",
            "-type spread -width 8 -radix 5 -period 3",
            "-kernel memory_bound",
            "-samples 3",
        ] {
            assert!(matches!(parse(line), Err(OptionsError::Wrong(_))), "{line}");
        }
    }
}
