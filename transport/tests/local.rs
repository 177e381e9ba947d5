//! Jobs inside of this process: the scenarios on several numbers of processes, each on a thread; and how they start and end.

mod scenarios;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use chare_transport::{
    ConnectError, Error, Frame, Identity, Limits, Nap, Process, Progress, Rank, Refusal, local,
};

fn connect(size: usize, limits: &Limits) -> Vec<Process> {
    local::connect(&vec![Identity::new(1, "test"); size], limits).expect("equal processes")
}

fn run_all(size: usize) {
    for (name, limits, scenario) in scenarios::all() {
        println!("{name}");
        thread::scope(|scope| {
            for process in connect(size, &limits) {
                scope.spawn(move || scenario(process));
            }
        });
    }
}

#[test]
fn scenarios_on_1_process() {
    run_all(1);
}

#[test]
fn scenarios_on_2_processes() {
    run_all(2);
}

#[test]
fn scenarios_on_3_processes() {
    run_all(3);
}

#[test]
fn scenarios_on_8_processes() {
    run_all(8);
}

#[test]
fn one_thread_may_drive_all() {
    let mut processes = connect(3, &Limits::default());
    for process in &processes {
        for to in 0..3 {
            let frame = Frame::new(b"x").with_buffer(vec![0_u64; 10_000]);
            assert!(process.outbox.send(Rank(to), frame).is_ok());
        }
    }
    processes.iter_mut().for_each(|process| process.driver.close());
    let (mut came, mut closed) = (0, 0);
    while closed < 3 {
        let polled = processes.iter_mut().map(|process| process.driver.poll(&mut |_, _| came += 1));
        closed = polled.filter(|progress| *progress == Ok(Progress::Closed)).count();
    }
    assert_eq!(came, 9);
}

#[test]
fn facts_are_those_of_the_job() {
    let named = |host: &str| Identity::new(1, "test").on_host(host);
    let processes = local::connect(&[named("a"), named("b"), named("a")], &Limits::default()).expect("a job");
    let facts = processes[2].outbox.facts();
    assert_eq!((facts.rank(), facts.size(), facts.local_rank(), facts.hosts().len()), (Rank(2), 3, 1, 2));
    assert_eq!(format!("{:?}", processes[2].driver), "Driver of rank 2 of 3");
}

#[test]
fn processes_that_differ_do_not_start() {
    let identities = [Identity::new(1, "test"), Identity::new(2, "test")];
    let error = local::connect(&identities, &Limits::default()).expect_err("two tables");
    let said = error.to_string();
    assert!(said.contains("0x0000000000000001") && said.contains("0x0000000000000002"), "{said}");
    let mut limits = Limits::default();
    limits.batch_bytes = 10;
    let error = local::connect(&identities[..1], &limits).expect_err("tiny batches");
    assert!(matches!(error, ConnectError::Limits(_)), "{error}");
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

#[test]
fn an_abort_reaches_all_and_stays() {
    let mut processes = connect(3, &Limits::default());
    let aborting = processes.remove(1);
    let outbox = aborting.outbox.clone();
    aborting.driver.abort("the sun has set", 3);
    for process in &mut processes {
        let expected = Error::Aborted { by: Rank(1), reason: "the sun has set".into() };
        assert_eq!(error_of(process), expected);
        assert_eq!(process.driver.poll(&mut |_, _| {}), Err(expected));
        assert_eq!(process.driver.announce_nap(), Nap::Stay);
        let refused = process.outbox.send(Rank(0), Frame::new(b"")).expect_err("the job is over");
        assert_eq!(refused.refusal, Refusal::Closed);
    }
    assert_eq!(outbox.send(Rank(0), Frame::new(b"")).expect_err("aborted").refusal, Refusal::Closed);
}

#[test]
fn a_dropped_process_is_lost() {
    let mut processes = connect(2, &Limits::default());
    let lost = processes.pop().expect("two processes");
    assert!(lost.outbox.send(Rank(0), Frame::new(b"unsent")).is_ok());
    processes[0].driver.close();
    assert_eq!(processes[0].driver.poll(&mut |_, _| {}), Ok(Progress::Busy));
    drop(lost);
    let error = error_of(&mut processes[0]);
    assert!(matches!(error, Error::Lost { rank: Rank(1), .. }), "{error}");
}

#[test]
fn a_process_that_panics_is_lost() {
    let mut processes = connect(2, &Limits::default());
    let other = processes.pop().expect("two processes");
    let thread = thread::spawn(move || {
        let _driver = other.driver;
        panic!("out of luck");
    });
    assert!(thread.join().is_err());
    let error = error_of(&mut processes[0]);
    assert!(error.to_string().contains("rank 1 is lost"), "{error}");
}

#[test]
fn frames_and_arrivals_wake_a_driver_that_naps() {
    let mut processes = connect(2, &Limits::default());
    let second = processes.pop().expect("two");
    let mut first = processes.pop().expect("two");
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = wakes.clone();
    first.driver.set_wake_hook(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert!(first.outbox.send(Rank(1), Frame::new(b"")).is_ok());
    assert_eq!(first.driver.announce_nap(), Nap::Stay, "a frame is queued");
    assert_eq!(first.driver.poll(&mut |_, _| {}), Ok(Progress::Busy));
    assert_eq!(first.driver.announce_nap(), Nap::UntilWoken);
    assert_eq!(wakes.load(Ordering::Relaxed), 0);
    for _ in 0..2 {
        assert!(first.outbox.send(Rank(1), Frame::new(b"")).is_ok());
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "the first frame wakes, and only that");
    }
    assert_eq!(first.driver.poll(&mut |_, _| {}), Ok(Progress::Busy));

    let Process { outbox, mut driver } = second;
    assert_eq!(first.driver.announce_nap(), Nap::UntilWoken);
    assert!(outbox.send(Rank(0), Frame::new(b"")).is_ok());
    assert_eq!(driver.poll(&mut |_, _| {}), Ok(Progress::Busy));
    assert_eq!(wakes.load(Ordering::Relaxed), 2, "an arrival wakes too");
    assert_eq!(driver.announce_nap(), Nap::UntilWoken);
    assert_eq!(first.driver.poll(&mut |_, _| {}), Ok(Progress::Busy));
    assert_eq!(first.driver.announce_nap(), Nap::UntilWoken);
}

#[test]
fn no_frame_is_slept_through() {
    let processes = connect(2, &Limits::default());
    thread::scope(|scope| {
        for Process { outbox, mut driver } in processes {
            scope.spawn(move || {
                // Each waits for the other's frame, asleep, so a wake that is missed leaves both asleep.
                let (me, peer) = (driver.facts().rank(), Rank(1 - driver.facts().rank().0));
                let (waker, wakes) = mpsc::channel();
                driver.set_wake_hook(move || waker.send(()).unwrap_or_default());
                let sender = thread::spawn(move || {
                    (0..2000_u32).for_each(|n| {
                        let _ = scenarios::send(&outbox, peer, Frame::new(&n.to_le_bytes()));
                        if n.is_multiple_of(16) {
                            thread::yield_now();
                        }
                    });
                });
                let mut next = 0_u32;
                while next < 2000 {
                    let polled = driver.poll(&mut |_, frame| {
                        assert_eq!(frame.header, next.to_le_bytes(), "at {me}");
                        next += 1;
                    });
                    if polled == Ok(Progress::Idle) && driver.announce_nap() == Nap::UntilWoken {
                        wakes.recv().expect("the hook lives as long as the driver");
                    }
                }
                sender.join().expect("it sends");
                scenarios::close(&mut driver);
            });
        }
    });
}
