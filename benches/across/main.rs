//! What a message from process to process costs beside plain MPI, in turns in the same two processes: `cargo bench -p
//! chare-benches --features mpi --bench across`, which starts itself under `mpirun -n 2`.
//!
//! | case | what it counts |
//! |---|---|
//! | `one_way` | ns from a call to the method of a chare in the other process, which sends the payload back: half a round trip |
//! | `stream` | MB/s one way, large payloads as fast as they can be sent, from memory to memory |
//! | `send_rate` | ns a call with one `u64`, one way, as fast as they can be sent and received |
//! | `raw_*` | the same by MPI's own calls: `MPI_Send` and `MPI_Recv`, or `MPI_Isend` and `MPI_Irecv` in a window |
//! | `ratio_*` | ours over raw: of the best batches, and the median of the ratios of batches in turn |
//!
//! The payload is a `Vec<u8>`, but of 8 bytes a `u64`. What was received is what is sent back. Of other processes than two the
//! first two play, and the others idle. `--case "one_way 8 B"` is one size of one case.

mod raw;

use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::{Amount, Bench, Options, Sampler, Summary};

use raw::Game;

const WORD: usize = size_of::<u64>();

/// One of two that play; the first one counts the rounds.
#[derive(Default)]
struct Player {
    peer: Option<Element<Player>>,
    rounds: u64,
    /// Who waits for the end of the game.
    end: Option<Promise<u64>>,
    sum: u64,
    ball: Vec<u8>,
    payloads: Vec<Vec<u8>>,
}

#[chare]
impl Player {
    fn new() -> Self {
        Player::default()
    }

    #[entry]
    fn meet(&mut self, peer: Element<Player>) {
        self.peer = Some(peer);
    }

    /// The same by MPI.
    #[entry]
    fn play_raw(&mut self, game: Game) -> Duration {
        game.play()
    }

    /// Plays `rounds` rounds with a number that grows by one at each hop, and brings it.
    #[entry]
    fn serve_word(&mut self, rounds: u64, end: Promise<u64>) {
        (self.rounds, self.end) = (rounds, Some(end));
        self.peer().word(1).send();
    }

    #[entry]
    fn word(&mut self, hops: u64) {
        self.rounds = self.rounds.wrapping_sub(1);
        match self.end.take_if(|_| self.rounds == 0) {
            Some(end) => end.send(hops).expect("the promise takes one number"),
            None => self.peer().word(hops + 1).send(),
        }
    }

    /// Makes the ball of a game.
    #[entry]
    fn inflate(&mut self, bytes: usize) {
        self.ball = payload(bytes, 0);
    }

    /// Plays `rounds` rounds with the ball, and brings its length.
    #[entry]
    fn serve(&mut self, rounds: u64, end: Promise<u64>) {
        (self.rounds, self.end) = (rounds, Some(end));
        let ball = std::mem::take(&mut self.ball);
        self.peer().ball(ball).send();
    }

    #[entry]
    fn ball(&mut self, ball: Vec<u8>) {
        self.rounds = self.rounds.wrapping_sub(1);
        match self.end.take_if(|_| self.rounds == 0) {
            Some(end) => {
                end.send(ball.len() as u64).expect("the promise takes one number");
                self.ball = ball;
            }
            None => self.peer().ball(ball).send(),
        }
    }

    /// Whether the ball is as it was.
    #[entry]
    fn is_whole(&self, bytes: usize) -> bool {
        self.ball == payload(bytes, 0)
    }

    /// Makes the payloads of a stream.
    #[entry]
    fn fill(&mut self, bytes: usize, count: usize) {
        self.payloads = (0..count).map(|number| payload(bytes, number)).collect();
    }

    /// Whether they are as they were.
    #[entry]
    fn is_filled(&self, bytes: usize, count: usize) -> bool {
        self.payloads.len() == count
            && self.payloads.iter().enumerate().all(|(number, came)| *came == payload(bytes, number))
    }

    /// Before a stream: how many calls will come, and who wants to know the sum of what they bring.
    #[entry]
    fn expect(&mut self, count: u64, end: Promise<u64>) {
        (self.rounds, self.sum, self.end) = (count, 0, Some(end));
    }

    /// Sends all payloads.
    #[entry]
    fn pour(&mut self) {
        let peer = self.peer();
        std::mem::take(&mut self.payloads).into_iter().for_each(|payload| peer.take(payload).send());
    }

    /// Sends so many words.
    #[entry]
    fn flood(&mut self, count: u64) {
        let peer = self.peer();
        (0..count).for_each(|word| peer.take_word(word).send());
    }

    #[entry]
    fn take(&mut self, payload: Vec<u8>) {
        let bytes = payload.len() as u64;
        self.payloads.push(payload);
        self.came(bytes);
    }

    #[entry]
    fn take_word(&mut self, word: u64) {
        self.came(word);
    }
}

impl Player {
    fn peer(&self) -> Element<Player> {
        self.peer.expect("the players have met")
    }

    fn came(&mut self, value: u64) {
        self.sum += value;
        self.rounds -= 1;
        if self.rounds == 0 {
            let end = self.end.take().expect("a stream is expected before it comes");
            end.send(self.sum).expect("the promise takes one sum");
        }
    }
}

/// Bytes of which no two payloads have the same.
fn payload(bytes: usize, number: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at + number) as u8).collect()
}

/// The two players, and the runtime's way of a game.
struct Pair {
    rt: Runtime,
    first: Element<Player>,
    second: Element<Player>,
}

impl Pair {
    /// On the first PEs of the first two processes.
    async fn new(rt: Runtime, pes: usize) -> Result<Pair> {
        let first = rt.single::<Player>().on_pe(0_usize).create(()).await?;
        let second = rt.single::<Player>().on_pe(pes).create(()).await?;
        first.meet(second).await?;
        second.meet(first).await?;
        Ok(Pair { rt, first, second })
    }

    async fn prepare(&self, game: Game) -> Result<()> {
        match game {
            Game::OneWay { bytes, .. } => self.first.inflate(bytes).await?,
            Game::Stream { bytes, count } => self.first.fill(bytes, count).await?,
            Game::Rate { .. } => {}
        }
        Ok(())
    }

    async fn play(&self, game: Game) -> Result<Duration> {
        let (end, came) = self.rt.promise();
        match game {
            Game::OneWay { bytes, rounds } => {
                let start = Instant::now();
                if bytes == WORD {
                    self.first.serve_word(rounds, end).send();
                } else {
                    self.first.serve(rounds, end).send();
                }
                let came = came.await?;
                let time = start.elapsed();
                assert_eq!(came, if bytes == WORD { 2 * rounds } else { bytes as u64 }, "a hop was lost");
                Ok(time)
            }
            Game::Stream { bytes, count } => {
                self.second.expect(count as u64, end).await?;
                let start = Instant::now();
                self.first.pour().send();
                assert_eq!(came.await?, (bytes * count) as u64, "bytes were lost");
                let time = start.elapsed();
                // Back, so that nobody fills memory meanwhile.
                let (end, came) = self.rt.promise();
                self.first.expect(count as u64, end).await?;
                self.second.pour().await?;
                came.await?;
                Ok(time)
            }
            Game::Rate { count } => {
                self.second.expect(count, end).await?;
                let start = Instant::now();
                self.first.flood(count).send();
                assert_eq!(came.await?, (0..count).sum(), "calls were lost");
                Ok(start.elapsed())
            }
        }
    }

    /// The same by MPI.
    async fn play_raw(&self, game: Game) -> Result<Duration> {
        let other = self.second.play_raw(game).future();
        // The call has left before this process knows MPI only.
        self.rt.sleep(Duration::from_micros(100)).await;
        let time = self.first.play_raw(game).await?;
        other.await?;
        Ok(time)
    }

    async fn check(&self, game: Game) -> Result<()> {
        let is_right = match game {
            Game::OneWay { bytes: WORD, .. } | Game::Rate { .. } => true,
            Game::OneWay { bytes, .. } => self.first.is_whole(bytes).await?,
            Game::Stream { bytes, count } => self.first.is_filled(bytes, count).await?,
        };
        assert!(is_right, "payloads have changed");
        Ok(())
    }
}

/// Batches of both, in turns.
struct Turns {
    ours: Sampler,
    raw: Sampler,
    ratio: Sampler,
}

async fn measure(rt: Runtime, pes: usize, game: Game, mut turns: Turns) -> Result<Turns> {
    let pair = Pair::new(rt, pes).await?;
    pair.prepare(game).await?;
    while turns.ours.wants_more() | turns.raw.wants_more() | turns.ratio.wants_more() {
        let raw = pair.play_raw(game).await?;
        let ours = pair.play(game).await?;
        turns.ours.take_ns(ours, 1);
        turns.raw.take_ns(raw, 1);
        let ratio = ours.as_secs_f64() / raw.as_secs_f64();
        turns.ratio.take(if game.is_rate() { 1.0 / ratio } else { ratio });
    }
    pair.check(game).await?;
    Ok(turns)
}

impl Game {
    /// Whether more is better.
    fn is_rate(self) -> bool {
        matches!(self, Game::Stream { .. })
    }

    fn case(self) -> (&'static str, usize) {
        match self {
            Game::OneWay { bytes, .. } => ("one_way", bytes),
            Game::Stream { bytes, .. } => ("stream", bytes),
            Game::Rate { .. } => ("send_rate", WORD),
        }
    }

    /// What a batch of so many nanoseconds says, and its unit.
    fn figure(self, batch: Summary) -> (Summary, &'static str) {
        match self {
            Game::OneWay { rounds, .. } => (batch.per(2.0 * rounds as f64), "ns"),
            Game::Stream { bytes, count } => (batch.as_rate_of((bytes * count) as f64 * 1e3), "MB/s"),
            Game::Rate { count } => (batch.per(count as f64), "ns"),
        }
    }
}

fn games(options: &Options) -> Vec<Game> {
    let sizes = [(WORD, 1000), (1 << 10, 1000), (64 << 10, 200), (4 << 20, 8)];
    let one_way = sizes.map(|(bytes, rounds)| Game::OneWay { bytes, rounds: options.count(rounds, 4) });
    let others =
        [Game::Stream { bytes: 4 << 20, count: 16 }, Game::Rate { count: options.count(20_480, 640) }];
    one_way.into_iter().chain(others).collect()
}

fn main() {
    let bench = Bench::on_processes("across", 2, "", |_, _| Ok(false));
    let options = bench.options();
    if options.ranks() < 2 {
        eprintln!("error: --ranks 1: two processes play; give 2 or more");
        std::process::exit(2);
    }
    for game in games(options) {
        let (case, bytes) = game.case();
        if !options.wants(&format!("{case} {bytes} B")) {
            continue;
        }
        let turns =
            Turns { ours: Sampler::new(options), raw: Sampler::new(options), ratio: Sampler::new(options) };
        let pes = options.pes();
        let Some(turns) = bench.run(move |rt| measure(rt, pes, game, turns)) else { continue };
        let (ours, unit) = game.figure(turns.ours.summary());
        let (raw, _) = game.figure(turns.raw.summary());
        let ratio = Summary { best: ours.best / raw.best, ..turns.ratio.summary() };
        let amount = Amount::Bytes(bytes as u64);
        bench.report(format!("raw_{case}"), amount, unit, raw);
        bench.report(case, amount, unit, ours);
        bench.report(format!("ratio_{case}"), amount, "ratio", ratio);
    }
}
