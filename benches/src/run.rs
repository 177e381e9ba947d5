//! Running a program on the runtime and getting a value out of it.

use std::future::Future;
use std::sync::mpsc;

use chare::{Result, Runtime, StartError};

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
    let options = chare::Options::default().with_pes(pes).with_device("host".parse().expect("a device"));
    run_with(options, program).unwrap_or_else(|error| panic!("the runtime does not start: {error}"))
}

/// As [`run`], on a runtime with these options.
///
/// # Errors
/// If the runtime cannot start, as on a device that is not there.
///
/// # Panics
/// If the program ends in any way but with a value.
pub fn run_with<T, F, Fut>(options: chare::Options, program: F) -> std::result::Result<T, StartError>
where
    T: Send + 'static,
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    let report = Runtime::run(options, |rt| {
        let program = program(rt);
        async move {
            // The receiver lives until the run has ended.
            drop(sender.send(program.await?));
            Ok::<(), chare::BoxError>(())
        }
    });
    let report = report?;
    assert!(report.is_success(), "the bench failed: {report}");
    Ok(receiver.try_recv().unwrap_or_else(|_| panic!("the bench ended without its value: {report}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_brings_its_value() {
        assert_eq!(run(2, |rt| async move { Ok(rt.num_pes()) }), 2);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let options = crate::Place::new("none", "cuda:63").options(1);
        let error = run_with(options, |_| async { Ok(()) }).expect_err("there are not so many GPUs");
        assert!(error.to_string().starts_with("--device cuda:63: "), "{error}");
    }

    #[test]
    #[should_panic(expected = "out of luck")]
    fn a_program_that_fails_is_not_measured() {
        run::<(), _, _>(1, |_| async { Err("out of luck".into()) });
    }
}
