//! Programs under `mpirun`: the same results on any number of processes, and one end for all of them.

mod launcher;

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

/// How soon after a process is lost, or has panicked, all have ended, and the launcher with them.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Launchers may return a moment before the processes have gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Held by the job that runs. Processes of MPI never sleep, and several jobs at a time on few cores would keep each other from theirs for seconds.
static JOB: Mutex<()> = Mutex::new(());

fn mpirun(processes: usize, pes: usize, args: &[&str]) -> Output {
    mpirun_with(&[], processes, pes, args)
}

fn mpirun_with(options: &[&str], processes: usize, pes: usize, args: &[&str]) -> Output {
    let mut command = launcher::mpirun();
    command.args(options).arg("-n").arg(processes.to_string()).arg(env!("CARGO_BIN_EXE_across"));
    command.args(["--pes", &pes.to_string(), "--device", "host"]).args(args);
    run(command)
}

/// Runs a job. If something goes wrong there, as its program says, all of its processes have to end in time, and none is left behind.
fn run(mut command: Command) -> Output {
    let _alone = JOB.lock().unwrap_or_else(PoisonError::into_inner);
    let output = command.output().expect("mpirun is there");
    let ended = SystemTime::now();
    let (said, errors) = texts(&output);
    if let Some(at) = told(&said, "it goes wrong at ") {
        let at: u64 = at.strip_suffix(" ms").and_then(|at| at.parse().ok()).expect("a number of ms");
        let took = ended.duration_since(SystemTime::UNIX_EPOCH + Duration::from_millis(at));
        assert!(took.expect("it ends later") < ENDS_WITHIN, "{errors}");
    }
    let processes = told(&said, "processes ").map(|all| all.trim_matches(['[', ']']).split(", "));
    processes.into_iter().flatten().for_each(|number| assert_gone(number, &errors));
    output
}

/// What a program tells on a line that begins so.
fn told<'a>(said: &'a str, begin: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(begin))
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_process_that_cannot_start_ends_all_and_is_named() {
    let mut command = launcher::mpirun();
    command.env("CUDA_VISIBLE_DEVICES", "");
    for (rank, device) in ["host", "cuda", "host"].into_iter().enumerate() {
        command.args(if rank > 0 { &[":"][..] } else { &[] });
        command.args(["-n", "1", env!("CARGO_BIN_EXE_across"), "--pes", "1", "--device", device]);
    }
    let output = run(command);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{out}\n{err}");
    assert!(err.contains("rank 1 does not start: ") && err.contains("CUDA"), "{err}");
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
        // `main` waits in another process then.
        let waits = "rank 2 has ended the run with an error; what was waited for in this process:\n";
        if args == ["panic"] {
            assert_went_wrong(&said);
        }
        let (tells, wanted) = (errors.contains(waits), args == ["error"]);
        assert!(tells == wanted && (!wanted || errors.contains(" waits for ")), "{args:?}: {errors}");
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
fn the_profile_is_that_of_all_processes() {
    let output = mpirun(2, 2, &["--profile"]);
    let (said, errors) = texts(&output);
    assert!(output.status.success(), "{said}{errors}");
    assert_eq!(errors.matches("profile (").count(), 1, "{errors}");
    let at = |text: &str| errors.find(text).unwrap_or_else(|| panic!("{text}: {errors}"));
    let pes: Vec<usize> = (0..4).map(|pe| at(&format!("PE {pe}: "))).collect();
    assert!(pes.is_sorted() && pes[3] < at("all PEs:"), "{errors}");
    // Twelve strips conduct once each, wherever they are: the last table has the sum.
    let all = &errors[at("all PEs:")..];
    let line = all.lines().find(|line| line.contains("Strip.conduct ")).unwrap_or_else(|| panic!("{errors}"));
    assert_eq!(line.split_whitespace().nth(1), Some("12"), "{errors}");
    assert!(at("\nhost:0: ") < at("\nrank 1's host:0: "), "{errors}");
}

#[test]
fn processes_that_differ_do_not_start() {
    let mut command = launcher::mpirun();
    let program = env!("CARGO_BIN_EXE_across");
    command.args(["-n", "1", program, "--pes", "1", ":", "-n", "1", program, "--pes", "2"]);
    let output = run(command);
    let (said, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{said}{errors}");
    assert!(errors.contains("--pes 1") && errors.contains("--pes 2"), "{errors}");
}

/// What the processes that are left say of rank 2, which is lost, and of what they waited for.
fn lost(output: &Output, how: &str) {
    let (said, errors) = texts(output);
    let times = errors.matches("error: rank 2 is lost: ").count();
    assert!(times == 2 && errors.contains(how), "told {times} times: {said}{errors}");
    let waits = "what was waited for in this process:\non PE 0:";
    assert!(errors.contains(waits) && errors.contains("the outcome of Member["), "{errors}");
    assert_went_wrong(&said);
}

/// That it has gone wrong has been told, and who was there: so `run` has seen to it that all have ended in time.
fn assert_went_wrong(said: &str) {
    for begin in ["it goes wrong at ", "processes ["] {
        assert!(told(said, begin).is_some(), "{said}");
    }
}

/// Waits until a process is there no more, a dead one that nobody has asked for aside.
fn assert_gone(number: &str, errors: &str) {
    let stat = format!("/proc/{number}/stat");
    let begin = Instant::now();
    while fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(across)") && !stat.contains(") Z")) {
        assert!(begin.elapsed() < GONE_WITHIN, "process {number} is still there: {errors}");
        thread::yield_now();
    }
}

#[test]
fn a_process_that_is_stopped_is_lost() {
    let output = mpirun(3, 1, &["--heartbeat", "1", "stop"]);
    assert!(!output.status.success(), "{output:?}");
    lost(&output, "has heard nothing of it for 1.");
}

#[test]
fn a_process_that_is_killed_is_lost() {
    let recovers = launcher::recovers();
    if !recovers.is_empty() {
        lost(&mpirun_with(recovers, 3, 2, &["kill"]), "its connection to rank ");
    }
    // By itself mpirun ends the others at once. That of OpenMPI says which one was killed.
    let output = mpirun(3, 1, &["kill"]);
    let (said, errors) = texts(&output);
    let is_told = errors.contains("rank 2") || recovers.is_empty();
    assert!(!output.status.success() && is_told, "{said}{errors}");
    assert_went_wrong(&said);
}

#[test]
fn a_process_that_computes_is_not_lost() {
    let output = mpirun(2, 1, &["--heartbeat", "3", "compute", "5"]);
    let (said, errors) = texts(&output);
    assert!(output.status.success(), "{said}{errors}");
}

#[test]
fn a_process_that_computes_ends_too_when_another_is_lost() {
    // Two PEs each, so that one sends what is sent while the other computes.
    let recovers = launcher::recovers();
    let output = mpirun_with(recovers, 3, 2, &["compute-and-kill"]);
    let (said, errors) = texts(&output);
    let stuck = "this process is aborted, since one of its threads is still busy";
    let has_waited = errors.matches("error: rank 2 is lost: ").count() == 2 && errors.contains(stuck);
    // A launcher that has ended the others has left them no time for words.
    let is_ended = recovers.is_empty() && !output.status.success();
    assert!(has_waited || is_ended, "{said}{errors}");
    assert_went_wrong(&said);
}

#[test]
fn a_process_that_computes_ends_too_when_another_panics() {
    let output = mpirun(3, 2, &["compute-and-panic"]);
    let (said, errors) = texts(&output);
    assert!(!output.status.success(), "{said}{errors}");
    let stuck = "error: rank 2 has ended the run with exit code 1; this process is aborted, since one of its threads is still busy";
    // It has said so before the launcher ends it, since another one is aborted.
    let why = "Member[5].panic panicked";
    assert!(errors.contains(stuck) && errors.contains(why), "{said}{errors}");
    assert_went_wrong(&said);
}

#[test]
fn a_process_says_once_why_it_waits_for_others() {
    let why = "Member[5].panic panicked";
    let (_, errors) = texts(&mpirun(3, 2, &["compute-and-panic", "4"]));
    let waits = "this process waits for others to end the run, too";
    assert!(errors.matches(why).count() == 1 && errors.contains(waits), "{errors}");
    // It says so before another one is aborted, though it is busy itself for almost as long.
    let (_, errors) = texts(&mpirun(3, 2, &["compute-and-panic", "1000000", "4"]));
    assert!(errors.matches(why).count() == 1 && errors.contains(waits), "{errors}");
}

#[test]
fn a_process_that_computes_ends_too_when_a_good_end_turns_bad() {
    let output = mpirun(3, 2, &["compute-and-panic-at-end"]);
    let (said, errors) = texts(&output);
    let why = "a destructor at the end of the run: panic at ";
    let stuck = "error: rank 2 has ended the run with exit code 1; this process is aborted, since one of its threads is still busy";
    assert!(!output.status.success() && errors.contains(why) && errors.contains(stuck), "{said}{errors}");
    assert_went_wrong(&said);
}

/// Has a program run with a pipe as standard error that is full, and that nobody reads.
const UNREAD: &str = r#"
    folder=$(mktemp -d) && mkfifo "$folder/pipe" && exec 3<>"$folder/pipe" && rm -r "$folder"
    dd if=/dev/zero of=/dev/fd/3 bs=4096 count=100000 oflag=nonblock 2>/dev/null
    exec "$0" "$@" 2>&3 3>&-
"#;

#[test]
fn a_process_whose_words_nobody_reads_ends_all_the_same() {
    for (unread, ending, told) in [
        (
            2,
            "panic-unawaited",
            "rank 2 has ended the run with an error; what was waited for in this process:",
        ),
        (0, "compute-and-panic", "Member[5].panic panicked"),
    ] {
        let mut command = launcher::mpirun();
        for rank in 0..3 {
            command.args(if rank > 0 { &[":"][..] } else { &[] }).args(["-n", "1"]);
            command.args(if rank == unread { &["bash", "-c", UNREAD][..] } else { &[] });
            command.args([env!("CARGO_BIN_EXE_across"), "--pes", "2", "--device", "host", ending]);
        }
        let output = run(command);
        let (said, errors) = texts(&output);
        assert!(!output.status.success() && errors.contains(told), "{said}{errors}");
        assert_went_wrong(&said);
    }
}

#[test]
fn processes_of_which_some_do_not_watch_say_so_once() {
    let mut command = launcher::mpirun();
    let program = [env!("CARGO_BIN_EXE_across"), "--pes", "1", "--device", "host"];
    command.args(["-n", "1"]).args(program).args([":", "-n", "1"]).args(program).args(["--heartbeat", "0"]);
    let output = run(command);
    let (said, errors) = texts(&output);
    assert!(output.status.success(), "{said}{errors}");
    let warning = "warning: the processes do not watch each other, since rank 1 does not: it was told not to, or could not listen";
    assert_eq!(errors.matches(warning).count(), 1, "{errors}");
}
