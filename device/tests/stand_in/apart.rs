//! Tests in processes of their own: a driver is set up once in a process, and a fault ends its use.
//!
//! A test calls [`apart`] with its own name and its body. The first time, that starts this test binary again for this one
//! test, with the stand-in as its CUDA driver; there, the body runs.

use std::process::{Command, Stdio};

/// Set in the process that runs the body.
const IS_APART: &str = "CHARE_TEST_IS_APART";

/// Runs `body` in a process that has the stand-in as its driver, with these variables.
#[track_caller]
pub(crate) fn apart(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os(IS_APART).is_some() {
        return body();
    }
    let output = child(name, variables).output().expect("the test binary can be started again");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}, in its own process: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{name} is no test of this binary\n{out}\n{err}");
}

/// The process of a test, not yet started.
pub(crate) fn child(name: &str, variables: &[(&str, &str)]) -> Command {
    let folder = cuda_stand_in::folder();
    let inherited = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().expect("a process knows its file"));
    command
        .args([name, "--exact", "--nocapture"])
        .env("LD_LIBRARY_PATH", format!("{}:{inherited}", folder.display()))
        .env(IS_APART, "1")
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
}
