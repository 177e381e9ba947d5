//! What it takes to move chares to the next PE: nanoseconds each, from the broadcast that asks for it until all have arrived
//! and contributed to a reduction.
//!
//! | case | each batch |
//! |---|---|
//! | `plain` | chares of 64 bytes, every one moves |
//! | `coroutine` | the same, each with a coroutine that waits in an own block and goes on after the move |
//!
//! With `--ranks 2` the next PE is in the other process, to which chares go without live coroutines: then there is `plain` only.

use std::time::Instant;

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler};
use serde::{Deserialize, Serialize};

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
#[derive(Serialize, Deserialize)]
struct Nomad {
    desk: Element<Desk>,
    number: u64,
    moved: u64,
    ballast: u64,
    /// The last move was the last one.
    has_settled: bool,
}

const _: () = assert!(size_of::<Nomad>() == 64);

#[chare(index = usize)]
impl Nomad {
    fn new(cx: &Cx<Self>, desk: Element<Desk>) -> Self {
        Nomad { desk, number: cx.index() as u64, moved: 0, ballast: u64::MAX, has_settled: false }
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
    async fn follow(this: This<Self>) {
        for moved in 1.. {
            this.wait_until(|s| s.moved >= moved || s.has_settled).await;
            if this.with(|s| s.has_settled) {
                break;
            }
        }
    }

    #[entry]
    fn settle(&mut self) {
        assert_eq!(self.ballast, u64::MAX, "it has come as it left");
        self.has_settled = true;
    }
}

async fn migrate(rt: Runtime, elements: u64, has_coroutines: bool, mut sampler: Sampler) -> Result<Sampler> {
    let desk = rt.single::<Desk>().on_pe(0_usize).create(()).await?;
    let nomads = rt.array::<Nomad>(elements as usize).create(desk).await?;
    let following = has_coroutines.then(|| nomads.follow().future());
    while sampler.wants_more() {
        let (arrival, sum) = rt.promise();
        desk.expect(arrival).await?;
        rt.quiescence().await?;
        let start = Instant::now();
        nomads.leave().send();
        assert_eq!(sum.await?, (0..elements).sum(), "each has arrived once");
        sampler.take_ns(start.elapsed(), elements);
    }
    nomads.settle().await?;
    if let Some(following) = following {
        following.await?;
    }
    Ok(sampler)
}

fn main() {
    let bench = Bench::on_processes("migrate", 1, "", |_, _| Ok(false));
    let options = bench.options();
    let elements = options.count(100_000, 1_000);
    for (case, has_coroutines) in [("plain", false), ("coroutine", true)] {
        let stays = has_coroutines && options.ranks() > 1;
        if !options.wants(case) || stays || options.pes() * options.ranks() < 2 {
            continue;
        }
        let sampler = Sampler::new(options).with_batches(5);
        if let Some(sampler) = bench.run(move |rt| migrate(rt, elements, has_coroutines, sampler)) {
            bench.report(case, Amount::Count(elements), "ns", sampler.summary());
        }
    }
}
