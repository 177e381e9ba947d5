//! What it takes to create a million small chares: nanoseconds each until all constructors are known to have run, and bytes
//! each beside the user's own.
//!
//! | case | each batch |
//! |---|---|
//! | `array` | a runtime of its own, so that no batch finds the memory of another in the runtime's free lists |
//! | `array_fresh_process` | a process of its own, whose memory the system has to map first |
//! | `array_memory` | not timed: the bytes that are asked for; what the allocator adds to each piece is not seen |

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, Summary, run};

/// The system's allocator; counts the bytes in use while it is told to.
struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: i64) {
    if IS_COUNTING.load(Ordering::Relaxed) {
        BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

/// A chare of 8 bytes.
struct Small {
    number: u64,
}

#[chare(index = usize)]
impl Small {
    fn new(cx: &Cx<Self>) -> Self {
        Small { number: cx.index() as u64 }
    }

    #[entry]
    fn add_up(&mut self, cx: &Cx<Self>, to: Callback<u64>) {
        cx.contribute(self.number, reduce::Sum, to);
    }
}

/// Creates the array; returns how long it took and the bytes in use because of it.
async fn create(rt: Runtime, elements: u64) -> Result<(Duration, i64)> {
    let bytes = BYTES.load(Ordering::Relaxed);
    let start = Instant::now();
    let array = rt.array::<Small>(elements as usize).create(()).await?;
    let time = start.elapsed();
    let bytes = BYTES.load(Ordering::Relaxed) - bytes;
    let (promise, sum) = rt.promise();
    array.add_up(promise.into()).send();
    assert_eq!(sum.await?, (0..elements).sum(), "each element knows its index");
    Ok((time, bytes))
}

/// Set in the processes that this one starts: they create once and print the nanoseconds.
const ONCE: &str = "CHARE_BENCH_CREATE_ONCE";

/// Creates in a process of its own, run with the same options.
fn create_elsewhere() -> Duration {
    let this = std::env::current_exe().expect("a running program has a file");
    let output = Command::new(this).args(std::env::args_os().skip(1)).env(ONCE, "1").output();
    let output = output.expect("a program that runs can be run again");
    let printed = String::from_utf8_lossy(&output.stdout);
    let failed = || panic!("it failed elsewhere: {printed}{}", String::from_utf8_lossy(&output.stderr));
    Duration::from_nanos(printed.trim().parse().unwrap_or_else(|_| failed()))
}

fn main() {
    let bench = Bench::from_args("create");
    let options = bench.options();
    let elements = options.count(1_000_000, 10_000);
    let create_here = || run(options.pes(), move |rt| create(rt, elements));
    if std::env::var_os(ONCE).is_some() {
        println!("{}", create_here().0.as_nanos());
        return;
    }
    for (case, is_elsewhere) in [("array", false), ("array_fresh_process", true)] {
        if !options.wants(case) {
            continue;
        }
        let mut sampler = Sampler::new(options).with_batches(15);
        while sampler.wants_more() {
            let time = if is_elsewhere { create_elsewhere() } else { create_here().0 };
            sampler.take_ns(time, elements);
        }
        bench.report(case, Amount::Count(elements), "ns", sampler.summary());
    }
    if options.wants("array_memory") {
        IS_COUNTING.store(true, Ordering::Relaxed);
        let (_, bytes) = create_here();
        IS_COUNTING.store(false, Ordering::Relaxed);
        let each = bytes as f64 / elements as f64;
        assert!(each >= size_of::<Small>() as f64, "a chare's own state was not counted");
        let each = Summary::exact(each - size_of::<Small>() as f64);
        bench.report("array_memory", Amount::Count(elements), "bytes", each);
    }
}
