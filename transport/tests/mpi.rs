//! Jobs over MPI: this program starts itself under `mpirun`, and looks at what the processes print and how they end.
//!
//! A process that was started so runs the case that the environment names, and not the tests.

mod scenarios;

use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use chare_transport::mpi::Environment;
use chare_transport::{
    Buffer, ConnectError, DeviceBuf, Error, Frame, Heartbeat, Identity, Limits, Nap, Process, Progress, Rank,
    ThreadLevel,
};
use libtest_mimic::{Arguments, Failed, Trial};

/// Names the case that a process of a job runs.
const CASE: &str = "CHARE_TRANSPORT_CASE";
/// A file that one process of a case makes and another waits for.
const MARK: &str = "CHARE_TRANSPORT_MARK";
/// How long a process may be there after its job has failed.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// No case takes so long, however busy the machine is.
const LIMIT_S: &str = "300";

type Case = fn() -> Result<(), String>;

const CASES: &[(&str, Case)] = &[
    ("scenarios", run_scenarios),
    ("differ", differ),
    ("abort", abort),
    ("die", die),
    ("panic", panic_in_one),
    ("leave", leave),
    ("stop", stop_before_all_agree),
    ("device", device_memory),
    ("vast", vast),
    ("funneled", funneled),
];

fn main() -> ExitCode {
    if let Ok(wanted) = env::var(CASE) {
        let (_, case) = CASES.iter().find(|(name, _)| *name == wanted).expect("a case that there is");
        return match case() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::from(3)
            }
        };
    }
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(name, test);
    let mut arguments = Arguments::from_args();
    // Each test is several processes already.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial("scenarios_without_a_launcher", || scenarios_succeed(run_alone("scenarios"), 1)),
        trial("scenarios_on_2_processes", || scenarios_succeed(run(2, "scenarios"), 2)),
        trial("scenarios_on_4_processes", || scenarios_succeed(run(4, "scenarios"), 4)),
        trial("a_launcher_of_another_library_is_told", a_launcher_of_another_library_is_told),
        trial("memory_goes_by_address_to_memory_that_the_receiver_makes", || {
            scenarios_succeed(run(3, "device"), 3)
        }),
        trial("a_buffer_is_longer_than_a_message_of_mpi_can_be", || scenarios_succeed(run(2, "vast"), 2)),
        trial("ranks_that_differ_all_say_so", ranks_that_differ_all_say_so),
        trial("an_abort_ends_all_and_says_why", an_abort_ends_all_and_says_why),
        trial("no_process_outlives_one_that_is_killed", || ends_with(run(2, "die"), 2, &[])),
        trial("no_process_outlives_one_that_panics", || ends_with(run(2, "panic"), 2, &["out of luck"])),
        trial("a_process_that_leaves_is_lost", || {
            ends_with(run(2, "leave"), 2, &["rank 1 is lost: it has ended without closing"])
        }),
        trial("no_process_waits_for_one_that_is_stopped_before_they_agree", || {
            ends_with(run(2, "stop"), 2, &["error: rank 1 is lost: rank 0 has heard nothing of it for "])
        }),
        trial("only_the_thread_that_may_drives", || {
            let output = run_alone("funneled");
            check(output.status.success(), &output)?;
            check(text(&output).contains("MPI_THREAD_FUNNELED"), &output)
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

// The tests.

/// Runs a case on so many processes.
fn run(size: usize, case: &str) -> Output {
    let launcher = env::var("MPIRUN").unwrap_or_else(|_| "mpirun".into());
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", LIMIT_S, &launcher]);
    let version = Command::new(&launcher).arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("{launcher} does not run: {error}"));
    // Containers are root, and have fewer cores than a job has processes. Other launchers ask for neither.
    if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
        command.args(["--allow-run-as-root", "--oversubscribe"]);
    }
    command.arg("-n").arg(size.to_string()).arg(this_program());
    finish(command, case)
}

/// Runs a case without a launcher.
fn run_alone(case: &str) -> Output {
    finish(alone(), case)
}

fn alone() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", LIMIT_S]).arg(this_program());
    command
}

fn this_program() -> std::path::PathBuf {
    env::current_exe().expect("it runs")
}

fn finish(mut command: Command, case: &str) -> Output {
    let mark = env::temp_dir().join(format!("chare-transport-{}-{case}", process::id()));
    let output = command.env(CASE, case).env(MARK, &mark).stdin(Stdio::null()).output();
    // It is there in one case only.
    drop(fs::remove_file(mark));
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn check(holds: bool, output: &Output) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{}\n{}", output.status, text(output)).into()) }
}

fn scenarios_succeed(output: Output, size: usize) -> Result<(), Failed> {
    let said = text(&output);
    check(output.status.success(), &output)?;
    (0..size).try_for_each(|rank| check(said.contains(&format!("rank {rank} of {size} is done")), &output))
}

/// Each process is alone then, and all of them would do the whole work.
fn a_launcher_of_another_library_is_told() -> Result<(), Failed> {
    let mut command = alone();
    command.env("OMPI_COMM_WORLD_SIZE", "3");
    let output = finish(command, "scenarios");
    let said = text(&output);
    check(!output.status.success() && said.contains("3 processes were started by a launcher that"), &output)?;
    check(
        ["the MPI of this program, Open MPI v", "MPICH Version: "].iter().any(|name| said.contains(name)),
        &output,
    )
}

fn ranks_that_differ_all_say_so() -> Result<(), Failed> {
    let output = run(3, "differ");
    let said = text(&output);
    check(!output.status.success(), &output)?;
    let both = said
        .lines()
        .filter(|line| line.contains("0x000000000000000a") && line.contains("0x000000000000000b"));
    check(both.count() == 3, &output)
}

fn an_abort_ends_all_and_says_why() -> Result<(), Failed> {
    let output = run(3, "abort");
    let count = text(&output).matches("rank 1 has ended the job: the sun has set").count();
    check(count == 2, &output)?;
    ends_with(output, 3, &[])
}

/// A job that fails, says something, and leaves no process behind.
fn ends_with(output: Output, size: usize, said: &[&str]) -> Result<(), Failed> {
    check(!output.status.success() && output.status.code() != Some(124), &output)?;
    let text = text(&output);
    check(said.iter().all(|part| text.contains(part)), &output)?;
    let pids = text.lines().filter_map(|line| line.strip_prefix("process ")?.parse::<u32>().ok());
    let pids: Vec<u32> = pids.collect();
    check(pids.len() == size, &output)?;
    // Some launchers return a moment before the processes have gone; what is left of one then is no process any more.
    let runs = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z") && stat.contains("mpi"))
    };
    let begin = Instant::now();
    while pids.iter().any(runs) && begin.elapsed() < GONE_WITHIN {
        thread::yield_now();
    }
    check(!pids.iter().any(runs), &output)
}

// What the processes run.

fn start() -> Result<Environment, String> {
    println!("process {}", process::id());
    Environment::start().map_err(|error| error.to_string())
}

fn connect(environment: &Environment, limits: &Limits) -> Result<Process, ConnectError> {
    environment.connect(&Identity::new(10, "test"), limits)
}

fn join() -> Result<(Environment, Process), String> {
    let environment = start()?;
    let process = connect(&environment, &Limits::default()).map_err(|error| error.to_string())?;
    Ok((environment, process))
}

fn run_scenarios() -> Result<(), String> {
    let environment = start()?;
    let again = Environment::start().expect_err("once in a process");
    assert!(again.to_string().contains("started before"), "{again}");
    let mut last = String::new();
    for (name, limits, scenario) in scenarios::all() {
        let process = connect(&environment, &limits).map_err(|error| error.to_string())?;
        let facts = process.outbox.facts();
        last = format!("rank {} of {} is done", facts.rank().0, facts.size());
        let host = facts.host_of(facts.rank()).expect("each rank has a host");
        assert_eq!(host.ranks[facts.local_rank()], facts.rank());
        assert_eq!(host.ranks.len(), facts.size(), "{name}: all on this host");
        scenario(process);
    }
    println!("{last}");
    Ok(())
}

fn differ() -> Result<(), String> {
    let environment = start()?;
    // Any two processes of a host have different ids, but the hashes must be of two kinds.
    let rank = env::var("OMPI_COMM_WORLD_RANK").or_else(|_| env::var("PMI_RANK"));
    let hash = if rank.is_ok_and(|rank| rank == "2") { 11 } else { 10 };
    match environment.connect(&Identity::new(hash, "test"), &Limits::default()) {
        Err(error @ ConnectError::Mismatch { .. }) => {
            // Before MPI is finalised, which waits for all: the launcher ends all when one has failed.
            println!("{error}");
            Err("this rank has said so".into())
        }
        other => panic!("{other:?}"),
    }
}

/// Polls until it fails.
fn error_of(process: &mut Process) -> Error {
    loop {
        match process.driver.poll(&mut |_, _| {}) {
            Ok(Progress::Closed) => panic!("a job that has failed closes"),
            Ok(_) => thread::yield_now(),
            Err(error) => return error,
        }
    }
}

fn abort() -> Result<(), String> {
    let (_environment, mut process) = join()?;
    for to in 0..3 {
        let frame = Frame::new(b"unread").with_buffer(vec![0_u8; 1 << 20]);
        let _ = scenarios::send(&process.outbox, Rank(to), frame);
    }
    if process.outbox.facts().rank() == Rank(1) {
        process.driver.abort("the sun has set", 5);
        panic!("an abort over MPI does not return");
    }
    // Before the driver is dropped, which tells the one that aborts that this rank has said what it knows.
    println!("{}", error_of(&mut process));
    Err("this rank has said so".into())
}

fn die() -> Result<(), String> {
    let (_environment, mut process) = join()?;
    exchange(&mut process);
    if process.outbox.facts().rank() == Rank(1) {
        let killed = Command::new("kill").args(["-9", &process::id().to_string()]).status();
        panic!("it lives: {killed:?}");
    }
    Err(error_of(&mut process).to_string())
}

fn panic_in_one() -> Result<(), String> {
    let (_environment, mut process) = join()?;
    exchange(&mut process);
    assert_ne!(process.outbox.facts().rank(), Rank(1), "out of luck");
    Err(error_of(&mut process).to_string())
}

fn leave() -> Result<(), String> {
    let (_environment, mut process) = join()?;
    exchange(&mut process);
    let mark = env::var_os(MARK).expect("the test names it");
    if process.outbox.facts().rank() == Rank(1) {
        drop(process);
        // Until the other has noticed: the launcher ends all when one has gone.
        while !Path::new(&mark).exists() {
            thread::yield_now();
        }
        return Err("it is known".into());
    }
    let error = error_of(&mut process);
    fs::write(mark, "").map_err(|error| error.to_string())?;
    Err(error.to_string())
}

/// Nobody has said yet what is to be done at an alarm.
fn stop_before_all_agree() -> Result<(), String> {
    let environment = start()?;
    let heartbeat = Some(Heartbeat::new(Duration::from_secs(1)));
    let process = environment.connect_watched(&Identity::new(10, "test"), &Limits::default(), heartbeat);
    let mut process = process.map_err(|error| error.to_string())?;
    if process.outbox.facts().rank() == Rank(1) {
        let stopped = Command::new("kill").args(["-STOP", &process::id().to_string()]).status();
        panic!("it goes on: {stopped:?}");
    }
    process.driver.gather(b"here").map(drop).map_err(|error| error.to_string())
}

/// Each process has heard of each, so that all are there.
fn exchange(process: &mut Process) {
    let size = process.outbox.facts().size();
    for to in 0..size as u32 {
        let _ = scenarios::send(&process.outbox, Rank(to), Frame::new(b"here"));
    }
    let came = std::cell::Cell::new(0);
    scenarios::poll_until(&mut process.driver, |_, _| came.set(came.get() + 1), || came.get() == size);
}

/// Memory that stands for a device's.
fn at_device(mut bytes: Vec<u8>) -> DeviceBuf {
    let start = NonNull::new(bytes.as_mut_ptr()).expect("a vector's pointer is not null");
    // SAFETY: the vector is kept as the owner, with its memory where it is, and nobody else has it.
    unsafe { DeviceBuf::new(start, bytes.len(), Box::new(bytes)) }
}

fn device_memory() -> Result<(), String> {
    let (_environment, mut process) = join()?;
    let facts = process.outbox.facts().clone();
    let limits = Limits::default();
    let lengths = [1, 5000, 3 * limits.inline_bytes, 1 << 20];
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    process.driver.set_device_memory(move |_, header, len| {
        // For one there is no room, and for another one the wrong.
        let len = if header == b"longer" { len + 1 } else { len };
        count.fetch_add(1, Ordering::Relaxed);
        (header != b"refused").then(|| at_device(vec![0; len]))
    });
    let contents = |from: Rank, len: usize| vec![from.0 as u8 + len as u8; len];
    for to in 0..facts.size() as u32 {
        for header in [&b"taken"[..], b"refused", b"longer"] {
            for len in lengths {
                let mut frame = Frame::new(header).with_buffer(vec![7_u8; 10]);
                frame.buffers.push(at_device(contents(facts.rank(), len)).into());
                let _ = scenarios::send(&process.outbox, Rank(to), frame.with_buffer(vec![8_u8; 100_000]));
            }
        }
    }
    let (came, expected) = (std::cell::Cell::new(0), facts.size() * 3 * lengths.len());
    scenarios::poll_until(
        &mut process.driver,
        |from, frame| {
            let Ok([before, memory, after]) = <[Buffer; 3]>::try_from(frame.buffers) else {
                panic!("three were sent")
            };
            assert_eq!((before.len(), after.len()), (10, 100_000));
            let is_made = matches!(memory, Buffer::Device(_));
            assert_eq!(is_made, frame.header == b"taken", "{:?}", frame.header);
            let bytes = match memory {
                Buffer::Device(memory) => {
                    *memory.into_owner().downcast::<Vec<u8>>().expect("it was made here")
                }
                other => other.into_host().expect("it is one or the other").as_bytes().to_vec(),
            };
            assert_eq!(bytes, contents(from, bytes.len()));
            assert!(lengths.contains(&bytes.len()));
            came.set(came.get() + 1);
        },
        || came.get() == expected,
    );
    assert_eq!(made.load(Ordering::Relaxed), expected);
    scenarios::close(&mut process.driver);
    println!("rank {} of {} is done", facts.rank().0, facts.size());
    Ok(())
}

/// More than MPI counts: it goes in pieces, between which nothing is missing.
fn vast() -> Result<(), String> {
    const LEN: usize = (2 << 30) + 12_345;
    let environment = start()?;
    let mut limits = Limits::default();
    limits.checksums = false;
    let mut process = connect(&environment, &limits).map_err(|error| error.to_string())?;
    let facts = process.outbox.facts().clone();
    // Around the ends of the pieces, and of what a signed number of 32 bits counts.
    let places = || {
        let ends = [0, limits.chunk_bytes, 2 * limits.chunk_bytes, LEN];
        ends.into_iter().flat_map(|end| end.saturating_sub(3)..(end + 3).min(LEN))
    };
    if facts.rank() == Rank(0) {
        let mut bytes = vec![0_u8; LEN];
        places().for_each(|at| bytes[at] = (at % 251) as u8 + 1);
        let _ = scenarios::send(&process.outbox, Rank(1), Frame::new(b"vast").with_buffer(bytes));
    } else {
        let came = std::cell::Cell::new(false);
        scenarios::poll_until(
            &mut process.driver,
            |_, mut frame| {
                let bytes = frame.buffers.remove(0).into_host().expect("memory of the host").into_vec::<u8>();
                let bytes = bytes.expect("any memory is bytes");
                assert_eq!(bytes.len(), LEN);
                assert!(places().all(|at| bytes[at] == (at % 251) as u8 + 1));
                came.set(true);
            },
            || came.get(),
        );
    }
    scenarios::close(&mut process.driver);
    println!("rank {} of {} is done", facts.rank().0, facts.size());
    Ok(())
}

fn funneled() -> Result<(), String> {
    let environment = Environment::start_with(ThreadLevel::Funneled).map_err(|error| error.to_string())?;
    let mut process = connect(&environment, &Limits::default()).map_err(|error| error.to_string())?;
    assert_eq!(process.outbox.facts().thread_level(), ThreadLevel::Funneled);
    assert!(!process.outbox.facts().thread_level().lets_drivers_move());
    assert_eq!(process.driver.announce_nap(), Nap::Briefly);
    exchange(&mut process);
    let moved = thread::spawn(move || process.driver.poll(&mut |_, _| {}).map(drop));
    let error = moved.join().expect("it returns").expect_err("another thread");
    println!("{error}");
    Ok(())
}
