//! A hundred million messages of all kinds, while chares move, come and go: the memory of the process must not grow.
//!
//! | case | unit |
//! |---|---|
//! | `message` | nanoseconds a message, all kinds together; one batch for each tenth of the run |
//! | `growth` | bytes of resident memory at the end beyond those after the third tenth; ends the bench if there are many |
//!
//! Every message is one of a chain that hops between the elements of an array at random: most carry 8 bytes, some carry a
//! vector, some are awaited by a coroutine, some go through a channel, and some make their element move. Between two tenths
//! elements of a sparse array are inserted and destroyed, and there are broadcasts and reductions.

use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, Summary, run};

const RELAYS: usize = 64;
const CHAINS: u64 = 256;
const TENTHS: u64 = 10;
/// What allocators and the system may keep back.
const MAX_GROWTH_BYTES: u64 = 4 << 20;

/// A number that looks random, from another one.
fn scramble(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
}

struct Relay {
    received: u64,
}

#[chare(index = usize)]
impl Relay {
    fn new() -> Self {
        Relay { received: 0 }
    }

    /// Passes a chain on, in one way or another.
    fn pass(&mut self, cx: &Cx<Self>, chain: u64, hops: u64) {
        self.received += 1;
        let Some(left) = hops.checked_sub(1) else { return };
        let chain = scramble(chain.wrapping_add(hops));
        let next = cx.array().at(chain as usize % RELAYS);
        match (chain >> 32) % 4096 {
            0 => cx.this().migrate((chain >> 48) as usize % cx.num_pes()).send(),
            1..64 => return next.hop_with(chain, left, vec![chain; 32]).send(),
            64..128 => return cx.this().ask(next, chain, left).send(),
            _ => {}
        }
        next.hop(chain, left).send();
    }

    #[entry]
    fn hop(&mut self, cx: &Cx<Self>, chain: u64, hops: u64) {
        self.pass(cx, chain, hops);
    }

    #[entry]
    fn hop_with(&mut self, cx: &Cx<Self>, chain: u64, hops: u64, load: Vec<u64>) {
        assert_eq!(load, [chain; 32]);
        self.pass(cx, chain, hops);
    }

    /// Asks another element, and gets a value of it through a channel, before it passes the chain on.
    #[entry]
    async fn ask(this: This<Self>, other: Element<Self>, chain: u64, hops: u64) -> Result<()> {
        let tell = other.tell(this.index()).future();
        let channel = this.channel::<u64, _>(&other, 0);
        assert_eq!(channel.recv().await?, 7);
        tell.await?;
        this.with(|s| s.pass(&this, chain, hops));
        Ok(())
    }

    #[entry]
    fn tell(&self, cx: &Cx<Self>, to: usize) -> Result<()> {
        Ok(cx.channel::<u64, _>(&cx.array().at(to), 0).send(7)?)
    }

    #[entry]
    fn add_up(&mut self, cx: &Cx<Self>, total: Callback<u64>) {
        cx.contribute(std::mem::take(&mut self.received), reduce::Sum, total);
    }
}

struct Guest;

#[chare(index = usize)]
impl Guest {
    fn new() -> Self {
        Guest
    }

    #[entry]
    fn count(&self, cx: &Cx<Self>, total: Callback<u64>) {
        cx.contribute(1, reduce::Sum, total);
    }
}

/// Lets guests come and go; returns how many there were.
async fn entertain(rt: &Runtime, guests: SparseArray<Guest>, round: u64) -> Result<u64> {
    // Each index once.
    let all = round as usize * 1000..(round as usize + 1) * 1000;
    for guest in all.clone() {
        guests.insert(guest, ()).on_pe((guest + round as usize) % rt.num_pes()).send();
    }
    guests.done_inserting().await?;
    let (to, total) = rt.promise();
    guests.count(to.into()).send();
    let total = total.await?;
    for guest in all {
        guests.at(guest).destroy().send();
    }
    rt.quiescence().await?;
    Ok(total)
}

/// Bytes of memory that the process has; `None` where the system does not tell.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

async fn soak(rt: Runtime, messages: u64) -> Result<(Vec<Duration>, Vec<u64>)> {
    let relays = rt.array::<Relay>(RELAYS).create(()).await?;
    let guests = rt.array_sparse::<Guest>().create_empty();
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for tenth in 0..TENTHS {
        let start = Instant::now();
        let hops = messages / TENTHS / CHAINS;
        for chain in 0..CHAINS {
            relays.at(chain as usize % RELAYS).hop(scramble(tenth << 32 | chain), hops).send();
        }
        rt.quiescence().await?;
        times.push(start.elapsed());
        let (to, received) = rt.promise();
        relays.add_up(to.into()).send();
        assert_eq!(received.await?, CHAINS * (hops + 1), "each message has arrived once");
        assert_eq!(entertain(&rt, guests, tenth).await?, 1000);
        memory.extend(resident_bytes());
    }
    Ok((times, memory))
}

fn main() {
    let bench = Bench::from_args("soak");
    let options = bench.options();
    let messages = options.count(100_000_000, 100_000);
    if !options.wants("message") && !options.wants("growth") {
        return;
    }
    let (times, memory) = run(options.pes(), move |rt| soak(rt, messages));
    let mut sampler = Sampler::new(options).without_warm_up();
    for time in times {
        sampler.take_ns(time, messages / TENTHS);
    }
    bench.report("message", Amount::Count(messages), "ns", sampler.summary());
    if let [_, _, warm, .., last] = memory[..] {
        let growth = last.saturating_sub(warm);
        bench.report("growth", Amount::Count(messages), "bytes", Summary::exact(growth as f64));
        assert!(growth <= MAX_GROWTH_BYTES, "memory grows: {memory:?} bytes after each tenth");
    }
}
