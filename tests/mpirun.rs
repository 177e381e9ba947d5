//! Programs under `mpirun`: the same results on any number of processes, and one end for all of them.

use std::process::{Command, Output};

/// No program here takes so long, however busy the machine is.
const LIMIT_S: &str = "300";

fn mpirun(processes: usize, pes: usize, args: &[&str]) -> Output {
    let mut command = Command::new("mpirun");
    // More processes than cores; and as root, in a container.
    command.args(["--oversubscribe", "--allow-run-as-root", "--timeout", LIMIT_S, "-n"]);
    command.arg(processes.to_string()).arg(env!("CARGO_BIN_EXE_across"));
    command.args(["--pes", &pes.to_string(), "--device", "host"]).args(args);
    command.output().expect("mpirun is there")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn results_do_not_depend_on_the_processes() {
    let alone = Command::new(env!("CARGO_BIN_EXE_across")).args(["--pes", "2"]).output().expect("it starts");
    let (expected, errors) = texts(&alone);
    assert!(alone.status.success() && expected.starts_with("heat "), "{expected}{errors}");
    for (processes, pes) in [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2)] {
        let output = mpirun(processes, pes, &[]);
        let (said, errors) = texts(&output);
        assert!(output.status.success(), "{processes} processes of {pes} PEs: {said}{errors}");
        assert_eq!(said, expected, "{processes} processes of {pes} PEs");
    }
}

#[test]
fn all_processes_end_alike_and_one_says_why() {
    for (args, code, reason) in [
        (&["panic"][..], 1, "Member[2].panic panicked"),
        (&["error"], 1, "Member[2].fail failed: PE 2 has no such thing"),
        (&["hang"], 3, "the program hangs"),
        (&["exit", "7"], 7, ""),
    ] {
        let output = mpirun(3, 1, args);
        let (said, errors) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}{errors}");
        assert!(errors.contains(reason), "{args:?}: {errors}");
        let times = errors.matches("error: ").count();
        assert!(times <= 1, "{args:?}: told {times} times: {errors}");
    }
}

#[test]
fn a_hang_is_told_of_every_process() {
    let (_, errors) = texts(&mpirun(3, 1, &["hang"]));
    for line in ["on PE 0:", "on PE 2:", "Member[2].wait_for_ever"] {
        assert!(errors.contains(line), "{line}: {errors}");
    }
}

#[test]
fn processes_that_differ_do_not_start() {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--allow-run-as-root", "--timeout", LIMIT_S]);
    let program = env!("CARGO_BIN_EXE_across");
    command.args(["-n", "1", program, "--pes", "1", ":", "-n", "1", program, "--pes", "2"]);
    let output = command.output().expect("mpirun is there");
    let (said, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{said}{errors}");
    assert!(errors.contains("--pes 1") && errors.contains("--pes 2"), "{errors}");
}
