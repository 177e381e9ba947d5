//! How long a message is on its way when nothing else is: nanoseconds one way, from the call to the method at the other
//! chare, which sends the next one back.
//!
//! | case | what goes back and forth |
//! |---|---|
//! | `same_pe`, `cross_pe` | the payload itself, moved; the same allocation all the way |
//! | `cross_pe_copied` | at each hop a copy of the payload, made by the sender |
//! | `reference_flag` | no runtime: two threads that spin, each on its own flag |
//! | `ratio_cross_pe` | `cross_pe` over the reference, both by the threads of the same two PEs, in turns |
//!
//! The payload is a `Vec<u8>`, but of 8 bytes a `u64` (except where it is copied). The flags carry nothing.
//!
//! On a virtual machine the way from core to core changes with where the cores are at the moment (13, 45 and 195 ns were
//! seen within a minute). So the reference is measured again beside each size, and `ratio_cross_pe` is the figure to compare:
//! the median of each batch over the reference's batch right after it, in both columns, since the least of such ratios
//! says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::{Amount, Bench, Options, Sampler, Summary, run};
use crossbeam_utils::CachePadded;

const WORD: u64 = size_of::<u64>() as u64;
const SIZES: [u64; 6] = [WORD, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 4 << 20];

/// One of two that play; the first one counts the rounds.
struct Player {
    peer: Option<Element<Player>>,
    rounds: u64,
    end: End,
}

/// Who waits for the ball after the last round.
enum End {
    /// Nobody: this player sends every ball back.
    Never,
    Word(Promise<u64>),
    Bytes(Promise<Vec<u8>>),
}

#[chare]
impl Player {
    fn new() -> Self {
        Player { peer: None, rounds: u64::MAX, end: End::Never }
    }

    #[entry]
    fn meet(&mut self, peer: Element<Player>) {
        self.peer = Some(peer);
    }

    /// Plays `rounds` rounds with a number that grows by one at each hop.
    #[entry]
    fn serve_word(&mut self, rounds: u64, end: Promise<u64>) {
        (self.rounds, self.end) = (rounds, End::Word(end));
        self.peer().word(1).send();
    }

    /// Plays `rounds` rounds with `ball`, which is copied at each hop if so wished.
    #[entry]
    fn serve(&mut self, rounds: u64, ball: Vec<u8>, copied: bool, end: Promise<Vec<u8>>) {
        (self.rounds, self.end) = (rounds, End::Bytes(end));
        if copied {
            self.peer().copied(ball).send();
        } else {
            self.peer().moved(ball).send();
        }
    }

    /// The reference, on this PE: leads or follows, and says how long it took.
    #[entry]
    fn spin(&mut self, flags: Arc<Flags>, rounds: u64, leads: bool) -> Duration {
        if leads { flags.lead(rounds) } else { flags.follow(rounds) }
    }

    #[entry]
    fn word(&mut self, hops: u64) {
        self.rounds -= 1;
        match &self.end {
            End::Word(end) if self.rounds == 0 => end.send(hops).expect("the promise takes one number"),
            _ => self.peer().word(hops + 1).send(),
        }
    }

    #[entry]
    fn moved(&mut self, ball: Vec<u8>) {
        self.rounds -= 1;
        match &self.end {
            End::Bytes(end) if self.rounds == 0 => end.send(ball).expect("the promise takes one ball"),
            _ => self.peer().moved(ball).send(),
        }
    }

    #[entry]
    fn copied(&mut self, ball: Vec<u8>) {
        self.rounds -= 1;
        match &self.end {
            End::Bytes(end) if self.rounds == 0 => end.send(ball).expect("the promise takes one ball"),
            _ => {
                let copy = ball.clone();
                self.peer().copied(copy).send();
            }
        }
    }
}

impl Player {
    fn peer(&self) -> Element<Player> {
        self.peer.expect("the players have met")
    }
}

/// Two flags, each written by one thread and awaited by the other.
#[derive(Default)]
struct Flags {
    ping: CachePadded<AtomicU64>,
    pong: CachePadded<AtomicU64>,
}

impl Flags {
    /// Plays all rounds; returns the time of all but the first, which waits until the other side has come.
    fn lead(&self, rounds: u64) -> Duration {
        self.ping.store(1, Ordering::Release);
        await_value(&self.pong, 1);
        let start = Instant::now();
        for round in 2..=rounds {
            self.ping.store(round, Ordering::Release);
            await_value(&self.pong, round);
        }
        start.elapsed()
    }

    /// The other side.
    fn follow(&self, rounds: u64) -> Duration {
        let start = Instant::now();
        for round in 1..=rounds {
            await_value(&self.ping, round);
            self.pong.store(round, Ordering::Release);
        }
        start.elapsed()
    }
}

fn await_value(flag: &AtomicU64, value: u64) {
    while flag.load(Ordering::Acquire) != value {
        std::hint::spin_loop();
    }
}

/// The least that a message from thread to thread could be: a flag that the other one sees, and the other one's flag.
fn reference(mut sampler: Sampler, rounds: u64) -> Sampler {
    while sampler.wants_more() {
        let flags = Flags::default();
        let time = thread::scope(|scope| {
            scope.spawn(|| flags.follow(rounds));
            flags.lead(rounds)
        });
        sampler.take_ns(time, 2 * (rounds - 1));
        assert_eq!(flags.ping.load(Ordering::Relaxed), flags.pong.load(Ordering::Relaxed));
    }
    sampler
}

/// A game.
#[derive(Clone, Copy)]
struct Game {
    /// The second player's PE; the first one is on PE 0.
    other: usize,
    bytes: u64,
    copied: bool,
    rounds: u64,
}

/// Its batches: one way, and what that is of the reference, where there is one.
struct Measured {
    one_way: Sampler,
    ratio: Option<Sampler>,
}

async fn measure(rt: Runtime, mut measured: Measured, game: Game) -> Result<Measured> {
    let Game { other, bytes, copied, rounds } = game;
    let first = rt.single::<Player>().on_pe(0).create(()).await?;
    let second = rt.single::<Player>().on_pe(other).create(()).await?;
    first.meet(second).await?;
    second.meet(first).await?;
    let mut ball: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
    let before = ball.clone();
    while measured.one_way.wants_more() | measured.ratio.as_mut().is_some_and(Sampler::wants_more) {
        let start = Instant::now();
        let time = if bytes == WORD && !copied {
            let (end, hops) = rt.promise();
            first.serve_word(rounds, end).send();
            let hops = hops.await?;
            let time = start.elapsed();
            assert_eq!(hops, 2 * rounds, "a hop was lost");
            time
        } else {
            let place = ball.as_ptr().addr();
            let (end, returned) = rt.promise();
            first.serve(rounds, ball, copied, end).send();
            ball = returned.await?;
            let time = start.elapsed();
            assert!(ball == before, "the payload has changed");
            assert!(copied || ball.as_ptr().addr() == place, "a moved payload was copied");
            time
        };
        measured.one_way.take_ns(time, 2 * rounds);
        if let Some(ratio) = &mut measured.ratio {
            let flags = Arc::new(Flags::default());
            second.spin(flags.clone(), rounds, false).send();
            let reference = first.spin(flags, rounds, true).await?;
            let one_way = time.as_secs_f64() / rounds as f64;
            ratio.take(one_way / (reference.as_secs_f64() / (rounds - 1) as f64));
        }
    }
    Ok(measured)
}

impl Game {
    /// Flags move nothing and copy nothing.
    fn has_reference(&self) -> bool {
        self.other != 0 && !self.copied
    }
}

/// Fewer rounds where each one copies much.
fn rounds_of(options: &Options, bytes: u64, copied: bool) -> u64 {
    let rounds = if copied { (4 << 20) / bytes.max(4 << 10) } else { 1000 };
    options.count(rounds.max(4), 4)
}

fn main() {
    let bench = Bench::from_args("pingpong");
    let options = bench.options();
    for (case, other, copied) in [("same_pe", 0, false), ("cross_pe", 1, false), ("cross_pe_copied", 1, true)]
    {
        if other >= options.pes() {
            continue;
        }
        for bytes in SIZES {
            let rounds = rounds_of(options, bytes, copied);
            let game = Game { other, bytes, copied, rounds };
            if game.has_reference() && options.wants("reference_flag") {
                let sampler = reference(Sampler::new(options), rounds);
                bench.report_on(2, "reference_flag", Amount::Bytes(bytes), "ns", sampler.summary());
            }
            if options.wants(case) {
                let ratio = game.has_reference().then(|| Sampler::new(options));
                let measured = Measured { one_way: Sampler::new(options), ratio };
                let measured = run(options.pes(), move |rt| measure(rt, measured, game));
                bench.report(case, Amount::Bytes(bytes), "ns", measured.one_way.summary());
                if let Some(ratio) = measured.ratio.map(Sampler::summary) {
                    let ratio = Summary { best: ratio.median, ..ratio };
                    bench.report(format!("ratio_{case}"), Amount::Bytes(bytes), "ratio", ratio);
                }
            }
        }
    }
}
