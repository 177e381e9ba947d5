//! Task Bench (SC'20) on chares: the time of a task that does nothing, and METG(50%), the smallest task, overhead included, at
//! which half of the peak rate is reached.
//!
//! A graph is an array with an element for each point, placed in blocks; there is no barrier between steps. Without options
//! of a graph the bench runs a table of them; `*_metg` varies the iterations of the compute-bound kernel. Each batch is a run
//! of the whole graph on elements that have run it before. The amount is the width of the graph.

mod point;

use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::taskbench::{Args, Granularity, Graph, Kernel, Pattern, TASKBENCH_USAGE, metg, sweep};
use chare_benches::{Amount, Bench, Options, Sampler, Summary};

use point::{Point, PointEntries};

/// The efficiency that METG is about.
const EFFICIENCY: f64 = 0.5;
/// Points of a sweep below this are of no use.
const ENOUGH: f64 = 0.4;
/// How long one point of a sweep is measured.
const SWEEP_TIME: Duration = Duration::from_millis(150);
const SWEEP_BATCHES: usize = 8;

/// The arrays of graphs that run together.
struct Team {
    graphs: Vec<(Graph, Array<Point>)>,
    tasks: u64,
}

impl Team {
    async fn new(rt: &Runtime, graphs: &[Graph]) -> Result<Team> {
        let mut team = Team { graphs: Vec::new(), tasks: graphs.iter().map(Graph::task_count).sum() };
        for graph in graphs {
            team.graphs.push((*graph, rt.array::<Point>(graph.width).create(*graph).await?));
        }
        Ok(team)
    }

    /// Runs all graphs once; `iterations` takes the place of their own.
    async fn run(&self, rt: &Runtime, iterations: Option<u64>) -> Result<Duration> {
        for (graph, points) in &self.graphs {
            points.prepare(iterations.unwrap_or(graph.iterations)).await?;
        }
        let (mut finished, mut executed) = (Vec::new(), 0);
        let start = Instant::now();
        for (_, points) in &self.graphs {
            let (promise, tasks) = rt.promise();
            points.begin(promise.into()).send();
            finished.push(tasks);
        }
        for tasks in finished {
            executed += tasks.await?;
        }
        let elapsed = start.elapsed();
        assert_eq!(executed, self.tasks, "each task is executed once");
        Ok(elapsed)
    }
}

/// Nanoseconds of the wall clock for each task.
async fn measure(rt: Runtime, graphs: Vec<Graph>, mut sampler: Sampler) -> Result<Sampler> {
    let team = Team::new(&rt, &graphs).await?;
    while sampler.wants_more() {
        sampler.take_ns(team.run(&rt, None).await?, team.tasks);
    }
    Ok(sampler)
}

/// METG of the best batches, and of the median ones, in nanoseconds; `None` where half of the peak was not met.
async fn measure_metg(rt: Runtime, graphs: Vec<Graph>, options: Options) -> Result<Option<Summary>> {
    let team = Team::new(&rt, &graphs).await?;
    let cores = rt.num_pes() as f64;
    let (mut best, mut median) = (Vec::new(), Vec::new());
    for iterations in sweep().map(|iterations| options.count(iterations, iterations / 64)) {
        let with_iterations = |graph: &Graph| Graph { iterations, ..*graph }.flops();
        let flops = graphs.iter().map(with_iterations).sum::<u64>() as f64 / team.tasks as f64;
        let mut sampler = Sampler::new(&options).with_batches(SWEEP_BATCHES).with_time(SWEEP_TIME);
        while sampler.wants_more() {
            sampler.take_ns(team.run(&rt, Some(iterations)).await?, team.tasks);
        }
        let summary = sampler.summary();
        best.push(Granularity { iterations, task_ns: summary.best * cores, flops });
        median.push(Granularity { iterations, task_ns: summary.median * cores, flops });
        if best[best.len() - 1].rate() < ENOUGH * peak(&best) {
            break;
        }
    }
    let metg = |measured: &[Granularity]| metg(measured, peak(&best), EFFICIENCY);
    let (batches, found) = (best.len(), metg(&best).zip(metg(&median)));
    Ok(found.map(|(best, median)| Summary { best, median, batches }))
}

/// The highest rate of all.
fn peak(measured: &[Granularity]) -> f64 {
    measured.iter().map(|at| at.rate()).fold(0.0, f64::max)
}

/// The graphs that are run if none is described: those that there are figures of other systems for.
fn table(is_smoke: bool) -> Vec<Graph> {
    let steps = if is_smoke { 20 } else { 1000 };
    let graph = |width: usize, pattern: Pattern| {
        let (radix, period) = match (pattern, width) {
            (Pattern::Nearest, _) => (5, 3),
            (Pattern::Spread, 2) => (2, 1),
            (Pattern::Spread, _) => (5, 2),
            (Pattern::RandomNearest, _) => (5, 3),
            _ => (3, 3),
        };
        Graph { steps, width, pattern, radix, period, ..Graph::default() }
    };
    let narrow = [Pattern::Stencil1d, Pattern::NoComm, Pattern::AllToAll];
    let wide = Pattern::ALL.iter().map(|(_, pattern)| graph(8, *pattern));
    wide.chain(narrow.iter().map(|pattern| graph(2, *pattern))).collect()
}

fn report(bench: &Bench, graphs: &[Graph], case: &str, with_metg: bool) {
    let (options, width) =
        (bench.options(), Amount::Count(graphs.iter().map(|graph| graph.width as u64).sum()));
    if options.wants(case) {
        let (graphs, sampler) = (graphs.to_vec(), Sampler::new(options));
        if let Some(sampler) = bench.run(move |rt| measure(rt, graphs, sampler)) {
            bench.report(case, width, "ns", sampler.summary());
        }
    }
    let case = format!("{case}_metg");
    if with_metg && options.wants(&case) {
        let graphs: Vec<_> =
            graphs.iter().map(|graph| Graph { kernel: Kernel::ComputeBound, ..*graph }).collect();
        let options = options.clone();
        match bench.run(move |rt| measure_metg(rt, graphs, options)) {
            None => {}
            Some(Some(summary)) => bench.report(case, width, "ns", summary),
            Some(None) => {
                eprintln!("taskbench: {case}: half of the peak rate was not met, from above and from below")
            }
        }
    }
}

fn main() {
    let mut args = Args::default();
    let bench = Bench::on_processes("taskbench", 1, TASKBENCH_USAGE, |name, value| args.take(name, value));
    let graphs = args.graphs().unwrap_or_else(|error| {
        eprintln!("{error}{TASKBENCH_USAGE}");
        std::process::exit(2)
    });
    if graphs.is_empty() {
        for graph in table(bench.options().is_smoke()) {
            report(&bench, &[graph], graph.pattern.name(), true);
        }
    } else {
        let names: Vec<_> = graphs.iter().map(|graph| graph.pattern.name()).collect();
        report(&bench, graphs, &names.join("+"), args.metg);
    }
}
