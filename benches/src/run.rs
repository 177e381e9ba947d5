//! Running a program on the runtime and getting a value out of it.

use std::future::Future;
use std::sync::mpsc;

use chare::{Result, Runtime};

/// Runs `program` on a runtime of `pes` PEs that lives as long as it, and returns its value. On the host, so that figures of
/// machines with and without GPUs compare, and kernels give the very values of plain loops.
///
/// # Panics
/// If the runtime cannot start, or if the program ends in any way but with a value: a bench that fails has no figures.
pub fn run<T, F, Fut>(pes: usize, program: F) -> T
where
    T: Send + 'static,
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    let options = chare::Options::default().with_pes(pes).with_device("host".parse().expect("a device"));
    let report = Runtime::run(options, |rt| {
        let program = program(rt);
        async move {
            // The receiver lives until the run has ended.
            drop(sender.send(program.await?));
            Ok::<(), chare::BoxError>(())
        }
    });
    let report = report.unwrap_or_else(|error| panic!("the runtime does not start: {error}"));
    assert!(report.is_success(), "the bench failed: {report}");
    receiver.try_recv().unwrap_or_else(|_| panic!("the bench ended without its value: {report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_brings_its_value() {
        assert_eq!(run(2, |rt| async move { Ok(rt.num_pes()) }), 2);
    }

    #[test]
    #[should_panic(expected = "out of luck")]
    fn a_program_that_fails_is_not_measured() {
        run::<(), _, _>(1, |_| async { Err("out of luck".into()) });
    }
}
