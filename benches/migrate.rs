//! What it takes to move chares to the next PE: nanoseconds each, from the broadcast that asks for it until all have arrived
//! and contributed to a reduction.
//!
//! | case | each batch |
//! |---|---|
//! | `plain` | chares of 64 bytes, every one moves |
//! | `coroutine` | the same, each with a coroutine that waits in an own block and goes on after the move |

use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, run};

/// Learns that all have arrived.
struct Desk {
    expecting: Option<Promise<u64>>,
}

#[chare]
impl Desk {
    fn new() -> Self {
        Desk { expecting: None }
    }

    #[entry]
    fn expect(&mut self, arrival: Promise<u64>) {
        self.expecting = Some(arrival);
    }

    #[entry]
    fn all_arrived(&mut self, sum: u64) -> Result<()> {
        self.expecting.take().ok_or("nobody expects them")?.send(sum)?;
        Ok(())
    }
}

/// A chare of 64 bytes.
struct Nomad {
    desk: Element<Desk>,
    number: u64,
    moved: u64,
    _ballast: [u64; 2],
}

const _: () = assert!(size_of::<Nomad>() == 64);

#[chare(index = usize)]
impl Nomad {
    fn new(cx: &Cx<Self>, desk: Element<Desk>) -> Self {
        Nomad { desk, number: cx.index() as u64, moved: 0, _ballast: [0; 2] }
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.moved += 1;
        cx.contribute(self.number, reduce::Sum, self.desk.callback(Desk::ALL_ARRIVED));
    }

    #[entry]
    fn leave(&self, cx: &Cx<Self>) {
        cx.this().migrate((cx.my_pe().index() + 1) % cx.num_pes()).send();
    }

    /// Waits for each move.
    #[entry]
    async fn follow(this: This<Self>, moves: u64) {
        for moved in 1..=moves {
            this.wait_until(|s| s.moved >= moved).await;
        }
    }
}

async fn migrate(rt: Runtime, elements: u64, has_coroutines: bool, rounds: u64) -> Result<Vec<Duration>> {
    let desk = rt.single::<Desk>().on_pe(0_usize).create(()).await?;
    let nomads = rt.array::<Nomad>(elements as usize).create(desk).await?;
    let following = has_coroutines.then(|| nomads.follow(rounds).future());
    let mut times = Vec::new();
    for _ in 0..rounds {
        let (arrival, sum) = rt.promise();
        desk.expect(arrival).await?;
        rt.quiescence().await?;
        let start = Instant::now();
        nomads.leave().send();
        assert_eq!(sum.await?, (0..elements).sum(), "each has arrived once");
        times.push(start.elapsed());
    }
    if let Some(following) = following {
        following.await?;
    }
    Ok(times)
}

fn main() {
    let bench = Bench::from_args("migrate");
    let options = bench.options();
    let elements = options.count(100_000, 1_000);
    for (case, has_coroutines) in [("plain", false), ("coroutine", true)] {
        if !options.wants(case) || options.pes() < 2 {
            continue;
        }
        let mut sampler = Sampler::new(options).with_batches(5);
        while sampler.wants_more() {
            for time in run(options.pes(), move |rt| migrate(rt, elements, has_coroutines, 6)) {
                sampler.take_ns(time, elements);
            }
        }
        bench.report(case, Amount::Count(elements), "ns", sampler.summary());
    }
}
