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
    run_with(options_of(pes), program).unwrap_or_else(|error| panic!("the runtime does not start: {error}"))
}

/// The options of a run on so many PEs.
pub(crate) fn options_of(pes: usize) -> chare::Options {
    chare::Options::default().with_pes(pes).with_device("host".parse().expect("a device"))
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
    let report = Runtime::run(options, |rt| keep(program(rt), sender))?;
    assert!(report.is_success(), "the bench failed: {report}");
    Ok(receiver.try_recv().unwrap_or_else(|_| panic!("the bench ended without its value: {report}")))
}

/// Sends the value of a program to who runs it, and waits for it until the run has ended.
pub(crate) async fn keep<T>(program: impl Future<Output = Result<T>>, to: mpsc::Sender<T>) -> Result<()> {
    drop(to.send(program.await?));
    Ok(())
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
