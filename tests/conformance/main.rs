//! Whole little programs, each named after the program of charm4py or Charm++ that it is the counterpart of and asserting
//! what that one asserts; and, in `traps`, what goes wrong in those systems and must not here.
//!
//! Each runs at 1, 2, 4 and 8 PEs. Where an original needs more PEs than there are, ours shares them.
//!
//! With `CHARE_SIM_SEEDS=200` each is simulated with so many seeds, but for three in `traps::devices` whose kernels wait for more than a stream.

mod charm4py;
mod megatest;
mod traps;

use std::any::type_name;
use std::sync::LazyLock;
use std::{env, thread};

use chare::prelude::*;
use chare::{Options, Sim};

/// What asks for many seeds, and for one, as `#[chare::test]` has it.
const SEEDS_VARIABLE: &str = "CHARE_SIM_SEEDS";
const SEED_VARIABLE: &str = "CHARE_SEED";

/// Mostly how much a program does of what it does often. In simulated runs it is less: they are many, and what they find lies
/// in the orders that their seeds draw.
fn real_or_simulated<T>(real: T, simulated: T) -> T {
    if is_simulated() { simulated } else { real }
}

fn is_simulated() -> bool {
    SEEDS.is_some()
}

/// The first simulated run that the environment asks for, and how many there are, of one seed after the other.
static SEEDS: LazyLock<Option<(Sim, u64)>> = LazyLock::new(|| seeds(|name| env::var(name).ok()));

fn seeds(env: impl Fn(&str) -> Option<String>) -> Option<(Sim, u64)> {
    let parsed = |name| -> Option<Sim> {
        let text = env(name)?;
        Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
    };
    if let Some(one) = parsed(SEED_VARIABLE) {
        return Some((one, 1));
    }
    let all = parsed(SEEDS_VARIABLE)?;
    assert!(all.seed() > 0, "{SEEDS_VARIABLE} is 0: give at least one seed");
    Some((all.clone().with_seed(0), all.seed()))
}

/// Does the runs of a program that `#[chare::test]` cannot run, at each number of PEs: one, or one for each of the seeds. A run that
/// panics is named, with what does it again.
fn each_run<F: Fn(Options)>(run: F) {
    for pes in [1, 2, 4, 8] {
        let options = Options::default().with_pes(pes);
        let Some((first, count)) = &*SEEDS else {
            let _named = NamedIfItPanics(format!("it failed at {pes} PE(s)"));
            run(options);
            continue;
        };
        for done in 0..*count {
            let sim = first.clone().with_seed(first.seed() + done);
            let replay = replay(&sim, type_name::<F>());
            let seed = sim.seed();
            let _named = NamedIfItPanics(format!(
                "it failed at {pes} PE(s) and seed {seed}; this runs it again: {replay}"
            ));
            run(options.clone().simulate(sim));
        }
    }
}

/// How to run a seed again of the test that has this closure.
fn replay(sim: &Sim, closure: &str) -> String {
    let test =
        closure.split("::").skip(1).take_while(|part| !part.starts_with('{')).collect::<Vec<_>>().join("::");
    format!("{SEED_VARIABLE}={sim} cargo test -p chare-tests --test conformance {test} -- --exact")
}

/// Tells a run whose panic goes past it.
struct NamedIfItPanics(String);

impl Drop for NamedIfItPanics {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
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

#[test]
fn the_environment_says_which_seeds_are_run() {
    let asked = |env: &[(&str, &str)]| {
        let value =
            |name: &str| env.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
        seeds(value).map(|(first, count)| (first.to_string(), count))
    };
    let (many, one) = ((SEEDS_VARIABLE, "200:calm"), (SEED_VARIABLE, "17:processes=2"));
    assert_eq!(asked(&[]), None);
    assert_eq!(asked(&[many]), Some(("0:calm".to_owned(), 200)));
    assert_eq!(asked(&[many, one]), Some(("17:processes=2".to_owned(), 1)));
}

#[test]
fn a_run_that_fails_is_named_with_what_runs_it_again() {
    let closure = "conformance::traps::hangs::a_deadlock::{{closure}}";
    let expected =
        "CHARE_SEED=17 cargo test -p chare-tests --test conformance traps::hangs::a_deadlock -- --exact";
    assert_eq!(replay(&Sim::new(17), closure), expected);
}
