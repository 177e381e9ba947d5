//! Whole little programs, each named after the program of charm4py or Charm++ that it is the counterpart of and asserting
//! what that one asserts; and, in `traps`, what goes wrong in those systems and must not here.
//!
//! Each runs at 1, 2, 4 and 8 PEs. Where an original needs more PEs than there are, ours shares them.
//!
//! With `CHARE_SIM_SEEDS=200` each is simulated with so many seeds, but for three in `traps::devices` whose kernels wait for more than a stream,
//! and for devices that are alike there.
//!
//! Under `mpirun` they are spread over its processes, but for those that say why not: what they move, or what they hand on, stays in its process.
//! `CHARE_SIM_SEEDS=200:migrate=20` moves chares at random, too; `./test` names the programs that rely on where theirs are.

mod charm4py;
mod megatest;
mod traps;

use std::env;

use chare::PeId;
use chare::prelude::*;

/// Mostly how much a program does of what it does often. In simulated runs it is less: they are many, and what they find lies
/// in the orders that their seeds draw.
fn real_or_simulated<T>(real: T, simulated: T) -> T {
    if is_simulated() { simulated } else { real }
}

fn is_simulated() -> bool {
    ["CHARE_SIM_SEEDS", "CHARE_SEED"].iter().any(|name| env::var_os(name).is_some())
}

/// Ends `main` only with the run: for programs that a chare or a callback ends. One that nobody ends hangs, and fails.
async fn until_exit(rt: &Runtime) -> Result<()> {
    let (_kept, never) = rt.promise::<()>();
    Ok(never.await?)
}

/// Counts for chares of any process.
struct Counter {
    counted: usize,
}

#[chare]
impl Counter {
    fn new() -> Self {
        Counter { counted: 0 }
    }

    #[entry]
    fn count(&mut self) {
        self.counted += 1;
    }

    #[entry]
    fn counted(&self) -> usize {
        self.counted
    }
}

/// One of the PEs of this process: where a chare can go with its coroutines.
fn pe_here(rt: &Runtime, random: &mut Random) -> PeId {
    let own = rt.process_of(rt.my_pe());
    let here: Vec<_> = rt.pes().filter(|pe| rt.process_of(*pe) == own).collect();
    here[random.below(here.len())]
}

/// Numbers that look random and are the same in every run (`splitmix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}
