//! What `--profile` costs: nanoseconds a call of an entry that works for about ten microseconds, without and with it, in turns.
//!
//! One entry sends a batch of messages to a neighbour on its PE; the last one to arrive fulfils a promise. Each batch is a run of
//! its own, since a run is profiled or not; a first batch of each run is not measured. Batches with and without take turns, so
//! that what the machine does besides hits both.
//!
//! | case | what is measured |
//! |---|---|
//! | `entry_10us_plain`, `entry_10us_profiled` | one call, sent and received |
//! | `entry_10us_ratio` | with a profile by without: the best batches, and the median of the turns |
//! | `channel_10us_plain`, `_profiled`, `_ratio` | the same for a value of a channel, and a coroutine that works on it |

use std::hint::black_box;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, Summary};

/// How long an entry is to work.
const WORK: Duration = Duration::from_micros(10);

/// Works on what it gets.
struct Node {
    steps: u64,
    missing: u64,
    sum: u64,
    complete: Option<Promise<u64>>,
}

#[chare(index = usize)]
impl Node {
    fn new(steps: u64) -> Self {
        Node { steps, missing: 0, sum: 0, complete: None }
    }

    /// Before a batch: how many calls will come, and who wants to know their sum.
    #[entry]
    fn expect(&mut self, count: u64, complete: Promise<u64>) {
        (self.missing, self.sum, self.complete) = (count, 0, Some(complete));
    }

    #[entry]
    fn flood(&self, to: Element<Node>, count: u64) {
        (0..count).for_each(|number| to.work(number).send());
    }

    #[entry]
    fn work(&mut self, number: u64) {
        self.take(number);
    }

    #[entry]
    async fn feed(this: This<Self>, to: Element<Node>, count: u64) {
        let channel = this.channel(&to, 0);
        for number in 0..count {
            channel.reserve().await.send(number);
        }
    }

    #[entry]
    async fn eat(this: This<Self>, from: Element<Node>, count: u64) -> Result<()> {
        let channel = this.channel::<u64, _>(&from, 0);
        for _ in 0..count {
            let number = channel.recv().await?;
            this.with(|node| node.take(number));
        }
        Ok(())
    }
}

impl Node {
    fn take(&mut self, number: u64) {
        work(self.steps);
        self.sum += number;
        self.missing -= 1;
        if self.missing == 0 {
            let complete = self.complete.take().expect("a batch is expected before it comes");
            complete.send(self.sum).expect("the promise takes one sum");
        }
    }
}

/// Computes so many steps.
fn work(steps: u64) {
    let mut value = black_box(steps);
    for _ in 0..steps {
        value = value.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(7);
    }
    black_box(value);
}

/// Steps that take as long as an entry is to work.
fn steps_of_work() -> u64 {
    const STEPS: u64 = 1 << 20;
    let quickest = (0..20).map(|_| {
        let start = Instant::now();
        work(STEPS);
        start.elapsed()
    });
    let quickest = quickest.min().expect("there are twenty").max(Duration::from_nanos(1));
    (u128::from(STEPS) * WORK.as_nanos() / quickest.as_nanos()) as u64
}

/// One run; returns how long its second batch has taken.
fn batch(pes: usize, is_profiled: bool, by_channel: bool, steps: u64, count: u64) -> Duration {
    let (sender, receiver) = mpsc::channel();
    let options = chare::Options::default().with_pes(pes).with_profile(is_profiled);
    let report = Runtime::run(options, async move |rt: Runtime| {
        let nodes = rt.array::<Node>(2 * rt.num_pes()).create(steps).await?;
        let (from, to) = (nodes.at(0), nodes.at(1));
        for count in [count / 10 + 1, count] {
            let (complete, sum) = rt.promise();
            to.expect(count, complete).await?;
            let start = Instant::now();
            if by_channel {
                from.feed(to, count).send();
                to.eat(from, count).send();
            } else {
                from.flood(to, count).send();
            }
            let sum = sum.await?;
            // The receiver lives until the run has ended.
            let _ = sender.send(start.elapsed());
            assert_eq!(sum, (0..count).sum::<u64>(), "values were lost or changed");
        }
        Result::<()>::Ok(())
    });
    let report = report.unwrap_or_else(|error| panic!("the runtime does not start: {error}"));
    assert!(report.is_success() && report.profile().is_some() == is_profiled, "the bench failed: {report}");
    receiver.try_iter().last().expect("each batch sends its time")
}

fn main() {
    let bench = Bench::from_args("profile");
    let options = bench.options();
    let (count, steps) = (options.count(500, 20), steps_of_work());
    for (name, by_channel) in [("entry", false), ("channel", true)] {
        let case = |which: &str| format!("{name}_10us_{which}");
        if !["plain", "profiled", "ratio"].iter().any(|which| options.wants(&case(which))) {
            continue;
        }
        let [mut plain, mut profiled, mut ratio] = [0; 3].map(|_| Sampler::new(options));
        while plain.wants_more() && profiled.wants_more() && ratio.wants_more() {
            let [without, with] = [false, true].map(|on| batch(options.pes(), on, by_channel, steps, count));
            plain.take_ns(without, count);
            profiled.take_ns(with, count);
            ratio.take(with.as_secs_f64() / without.as_secs_f64());
        }
        let (plain, profiled) = (plain.summary(), profiled.summary());
        let ratio = Summary { best: profiled.best / plain.best, ..ratio.summary() };
        for (which, summary, unit) in
            [("plain", plain, "ns"), ("profiled", profiled, "ns"), ("ratio", ratio, "ratio")]
        {
            bench.report(case(which), Amount::Count(count), unit, summary);
        }
    }
}
