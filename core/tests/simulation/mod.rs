//! Running programs on the host's device in simulated runs.

use chare::prelude::*;
use chare::{ExitReport, MainOutput, Options, Sim, Simulation};

pub(crate) fn simulate<F, Fut, R>(pes: usize, sim: Sim, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    Runtime::run(Options::default().with_pes(pes).simulate(sim), main).expect("the host device is there")
}

pub(crate) fn succeeded(report: &ExitReport) -> &Simulation {
    assert!(report.is_success(), "{report}");
    report.simulation().expect("it was simulated")
}
