//! Programs over the public interface, the same for every network: each is run by all processes of a job, and ends in
//! agreement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use chare_transport::{
    Buffer, Driver, Frame, HostBuf, Limits, Outbox, Process, Progress, Queued, Rank, Refusal,
};

/// A program that every process runs.
pub(crate) type Scenario = fn(Process);

/// All of them, with the limits that each wants.
pub(crate) fn all() -> Vec<(&'static str, Limits, Scenario)> {
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    vec![
        ("ring", limits(|_| {}), ring),
        ("mixed frames to all", limits(|_| {}), mixed_frames_to_all),
        (
            "mixed frames through narrow windows",
            limits(|limits| {
                (limits.batch_bytes, limits.inline_bytes, limits.buffers) = (1024, 100, 16);
                (limits.eager_window_bytes, limits.bulk_window_bytes) = (4096, 4096);
                limits.chunk_bytes = 1000;
            }),
            mixed_frames_to_all,
        ),
        (
            "large buffers in pieces",
            limits(|limits| (limits.chunk_bytes, limits.checksums) = (1 << 20, true)),
            large_buffers,
        ),
        ("many threads", limits(|_| {}), many_threads),
        ("pressure", limits(|limits| limits.queue_bytes = 200_000), pressure),
        ("one way", limits(|limits| limits.checksums = false), one_way),
        ("closing refuses", limits(|_| {}), closing_refuses),
        ("gathering", limits(|_| {}), gathering),
    ]
}

/// Sends what must be sendable.
pub(crate) fn send(outbox: &Outbox, to: Rank, frame: Frame<'_>) -> Queued {
    outbox.send(to, frame).unwrap_or_else(|error| panic!("{error}"))
}

/// Polls until a condition holds.
pub(crate) fn poll_until(
    driver: &mut Driver,
    mut sink: impl FnMut(Rank, Frame<'_>),
    mut done: impl FnMut() -> bool,
) {
    while !done() {
        if driver.poll(&mut sink).unwrap_or_else(|error| panic!("{error}")) != Progress::Busy {
            thread::yield_now();
        }
    }
}

/// Closes with all others. No frame may come any more.
pub(crate) fn close(driver: &mut Driver) {
    driver.close();
    let mut sink = |from, frame: Frame<'_>| panic!("{} bytes of {from} came late", frame.header.len());
    while driver.poll(&mut sink).unwrap_or_else(|error| panic!("{error}")) != Progress::Closed {
        thread::yield_now();
    }
    assert_eq!(driver.poll(&mut sink), Ok(Progress::Closed));
}

fn ranks(driver: &Driver) -> impl Iterator<Item = Rank> + use<> {
    (0..driver.facts().size() as u32).map(Rank)
}

/// A token that goes round and grows by one byte at each hop.
fn ring(Process { outbox, mut driver }: Process) {
    const ROUNDS: usize = 200;
    let (me, size) = (driver.facts().rank(), driver.facts().size());
    let next = Rank((me.0 + 1) % size as u32);
    if me.0 == 0 {
        let _ = send(&outbox, next, Frame::new(&[]));
    }
    // The last hop of all ends at rank 0.
    let mut turns = ROUNDS;
    let (left, done) = (AtomicUsize::new(turns), outbox.clone());
    poll_until(
        &mut driver,
        |from, frame| {
            assert_eq!(from.0, (me.0 + size as u32 - 1) % size as u32);
            let hop = if me.0 == 0 { size } else { me.index() };
            assert_eq!(frame.header.len(), (ROUNDS - turns) * size + hop - 1);
            turns -= 1;
            left.store(turns, Ordering::Relaxed);
            if me.0 != 0 || turns > 0 {
                let longer = vec![7; frame.header.len() + 1];
                let _ = send(&done, next, Frame::new(&longer));
            }
        },
        || left.load(Ordering::Relaxed) == 0,
    );
    close(&mut driver);
}

/// The n-th frame of one process for another; both know it.
fn nth(from: Rank, to: Rank, n: usize) -> (Vec<u8>, Vec<HostBuf>) {
    let mut state = (from.0 as usize * 1_000_003 + to.0 as usize * 7919 + n * 104_729) | 1;
    let mut choose = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let most = [8, 8, 8, 300, 20_000][choose(5)];
    let mut header = n.to_le_bytes().to_vec();
    header.resize(8 + choose(most), n as u8);
    let count = [0, 0, 0, 1, 2, 7][choose(6)];
    let buffers = (0..count).map(|index| {
        let len = [0, 50, 5000, 9000, 70_000, 300_000][choose(6)];
        HostBuf::copied(&vec![(n + index) as u8; len], 1 << choose(8))
    });
    let buffers = buffers.collect();
    (header, buffers)
}

/// Every process sends frames of all kinds to every process, itself as well.
fn mixed_frames_to_all(Process { outbox, mut driver }: Process) {
    const FRAMES: usize = 120;
    let (me, size) = (driver.facts().rank(), driver.facts().size());
    let mut next: HashMap<Rank, usize> = ranks(&driver).map(|rank| (rank, 0)).collect();
    let came = AtomicUsize::new(0);
    let mut sink = |from: Rank, frame: Frame<'_>| {
        let n = next[&from];
        let (header, buffers) = nth(from, me, n);
        assert_eq!(frame.header, header, "frame {n} of {from}");
        assert_eq!(frame.buffers.len(), buffers.len());
        for (came, sent) in frame.buffers.into_iter().zip(&buffers) {
            let came = came.into_host().expect("memory of the host");
            assert_eq!(came.align(), sent.align());
            assert!(came.as_bytes() == sent.as_bytes(), "a buffer of frame {n} of {from} has changed");
        }
        next.insert(from, n + 1);
        came.fetch_add(1, Ordering::Relaxed);
    };
    for n in 0..FRAMES {
        for to in ranks(&driver) {
            let (header, buffers) = nth(me, to, n);
            let buffers = buffers.into_iter().map(Buffer::from).collect();
            let _ = send(&outbox, to, Frame { header: &header, buffers });
        }
        if n % 10 == 0 {
            let _ = driver.poll(&mut sink).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    poll_until(&mut driver, &mut sink, || came.load(Ordering::Relaxed) == FRAMES * size);
    close(&mut driver);
}

/// Vectors of numbers, larger than a piece, that arrive as vectors.
fn large_buffers(Process { outbox, mut driver }: Process) {
    const NUMBERS: usize = 700_001;
    let (me, size) = (driver.facts().rank(), driver.facts().size());
    let numbers = |of: Rank| (0..NUMBERS).map(move |index| index as f64 + f64::from(of.0));
    for to in ranks(&driver) {
        let frame = Frame::new(b"numbers")
            .with_buffer(numbers(me).collect::<Vec<f64>>())
            .with_buffer(vec![me.0; 10])
            .with_buffer(vec![[me.0 as u8; 3]; 1_000_000]);
        let _ = send(&outbox, to, frame);
    }
    let came = AtomicUsize::new(0);
    poll_until(
        &mut driver,
        |from, frame| {
            let mut buffers =
                frame.buffers.into_iter().map(|buffer| buffer.into_host().expect("of the host"));
            let mut next = || buffers.next().expect("three buffers");
            assert!(next().into_vec::<f64>().expect("numbers").into_iter().eq(numbers(from)));
            assert_eq!(next().into_vec::<u32>().expect("words"), [from.0; 10]);
            let triples = next().into_vec::<[u8; 3]>().expect("triples");
            assert!(triples.len() == 1_000_000 && triples.iter().all(|triple| *triple == [from.0 as u8; 3]));
            came.fetch_add(1, Ordering::Relaxed);
        },
        || came.load(Ordering::Relaxed) == size,
    );
    close(&mut driver);
}

/// Several threads of each process send while one drives: those of one thread arrive in its order.
fn many_threads(Process { outbox, mut driver }: Process) {
    const THREADS: usize = 4;
    const FRAMES: u32 = 2000;
    let size = driver.facts().size();
    let (came, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let all: Vec<Rank> = ranks(&driver).collect();
    let mut next: HashMap<(Rank, u32), u32> = HashMap::new();
    thread::scope(|scope| {
        for thread in 0..THREADS as u32 {
            let (outbox, all, sent) = (outbox.clone(), &all, &sent);
            scope.spawn(move || {
                for n in 0..FRAMES {
                    for to in all {
                        let header = [thread.to_le_bytes(), n.to_le_bytes()].concat();
                        let mut frame = Frame::new(&header);
                        if n % 100 == 7 {
                            frame = frame.with_buffer(vec![n; 5000]);
                        }
                        let _ = send(&outbox, *to, frame);
                    }
                }
                sent.fetch_add(1, Ordering::Relaxed);
            });
        }
        let expected = THREADS * FRAMES as usize * size;
        poll_until(
            &mut driver,
            |from, frame| {
                let word =
                    |at: usize| u32::from_le_bytes(frame.header[at..at + 4].try_into().expect("four bytes"));
                let (thread, n) = (word(0), word(4));
                let expected = next.entry((from, thread)).or_default();
                assert_eq!(n, *expected, "of thread {thread} of {from}");
                *expected += 1;
                assert_eq!(frame.buffers.len(), usize::from(n % 100 == 7));
                came.fetch_add(1, Ordering::Relaxed);
            },
            || came.load(Ordering::Relaxed) == expected && sent.load(Ordering::Relaxed) == THREADS,
        );
    });
    close(&mut driver);
}

/// Sends without polling until told that it is too much; nothing is lost, and the queue empties.
fn pressure(Process { outbox, mut driver }: Process) {
    let to = Rank((driver.facts().rank().0 + 1) % driver.facts().size() as u32);
    let (mut sent, mut full) = (0, 0);
    loop {
        match send(&outbox, to, Frame::new(&[0; 1000])) {
            Queued::Room => assert_eq!(full, 0, "nothing has gone meanwhile"),
            Queued::Full => full += 1,
            Queued::Pressed => break,
        }
        sent += 1;
        assert!(outbox.queued_bytes(to) <= 200_000);
    }
    let queued = outbox.queued_bytes(to);
    assert!((100..=200).contains(&sent) && (1..sent).contains(&full) && queued > 200_000);
    driver.flush().unwrap_or_else(|error| panic!("{error}"));
    assert!(outbox.queued_bytes(to) < queued);
    let _ = send(&outbox, to, Frame::new(b"last"));
    // Those before the last, and those after it.
    let (before, after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let has_last = AtomicBool::new(false);
    let mut sink = |_: Rank, frame: Frame<'_>| {
        let count = if has_last.load(Ordering::Relaxed) { &after } else { &before };
        count.fetch_add(1, Ordering::Relaxed);
        has_last.fetch_or(frame.header == b"last", Ordering::Relaxed);
    };
    let is_over = || has_last.load(Ordering::Relaxed) && outbox.queued_bytes(to) == 0;
    poll_until(&mut driver, &mut sink, is_over);
    assert_eq!(before.load(Ordering::Relaxed), sent + 2, "all processes send as many");
    assert_eq!(send(&outbox, to, Frame::new(b"")), Queued::Room);
    poll_until(&mut driver, &mut sink, || after.load(Ordering::Relaxed) == 1);
    close(&mut driver);
}

/// Many small frames, and none back: credit must come without traffic to ride on.
fn one_way(Process { outbox, mut driver }: Process) {
    const FRAMES: u64 = 200_000;
    let (me, size) = (driver.facts().rank().0 as usize, driver.facts().size());
    let (mut next, mut sent) = (0_u64, 0);
    let sends = me == 0 && size > 1;
    while sends && sent < FRAMES {
        let pressed = send(&outbox, Rank(1), Frame::new(&sent.to_le_bytes())) == Queued::Pressed;
        sent += 1;
        if pressed || sent.is_multiple_of(1000) {
            let progress = driver.poll(&mut |from, _| panic!("a frame of {from} for rank 0"));
            assert_ne!(progress.unwrap_or_else(|error| panic!("{error}")), Progress::Closed);
        }
    }
    let expected = if me == 1 { FRAMES } else { 0 };
    let came = AtomicUsize::new(0);
    poll_until(
        &mut driver,
        |_, frame| {
            assert_eq!(frame.header, next.to_le_bytes());
            next += 1;
            came.store(next as usize, Ordering::Relaxed);
        },
        || came.load(Ordering::Relaxed) as u64 == expected,
    );
    close(&mut driver);
}

/// All know what each brings, however much that is, and what was sent before comes after.
fn gathering(Process { outbox, mut driver }: Process) {
    let own = driver.facts().rank();
    for to in ranks(&driver) {
        let _ = send(&outbox, to, Frame::new(b"before"));
    }
    for round in 0..3_u8 {
        let of = |rank: Rank| vec![round; 1000 * rank.index() * usize::from(round)];
        let gathered = driver.gather(&of(own)).expect("all are there");
        // Processes that are parts of one have none of it.
        assert!(gathered.is_none_or(|all| all == ranks(&driver).map(of).collect::<Vec<_>>()));
    }
    let (came, size) = (AtomicUsize::new(0), driver.facts().size());
    poll_until(
        &mut driver,
        |_, frame| {
            assert_eq!(frame.header, b"before");
            came.fetch_add(1, Ordering::Relaxed);
        },
        || came.load(Ordering::Relaxed) == size,
    );
    close(&mut driver);
}

/// What cannot be sent comes back, with the reason.
fn closing_refuses(Process { outbox, mut driver }: Process) {
    let limits = Limits::default();
    let size = driver.facts().size();
    let to = Rank(size as u32 - 1);
    let refused = |to, frame| {
        let error = outbox.send(to, frame).expect_err("a frame that cannot be sent");
        (error.refusal, error.frame.buffers.len())
    };
    assert_eq!(refused(Rank(size as u32), Frame::new(b"x")), (Refusal::NoSuchRank { size }, 0));
    let count = limits.buffers + 1;
    let many = Frame { header: b"", buffers: (0..count).map(|_| Vec::<u8>::new().into()).collect() };
    assert_eq!(refused(to, many), (Refusal::TooManyBuffers { count, limit: limits.buffers }, count));
    driver.close();
    let frame = Frame::new(b"late").with_buffer(vec![1_u8]);
    assert_eq!(refused(to, frame), (Refusal::Closed, 1));
    close(&mut driver);
}
