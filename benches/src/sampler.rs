//! Taking batches until there are enough of them: a warm-up that is forgotten, then at least 30 batches and one second.
//!
//! A sampler is asked whether it wants another batch, so that the loop around a batch may be plain, asynchronous, or the
//! life of a runtime.

use std::time::{Duration, Instant};

use crate::Options;

const WARM_UP: Duration = Duration::from_millis(100);
const WARM_UP_BATCHES: usize = 2;
const MEASURED: Duration = Duration::from_secs(1);
const MEASURED_BATCHES: usize = 30;
/// Enough for any median; keeps the list small where a batch takes nanoseconds.
const MOST_BATCHES: usize = 100_000;

/// The batches of one case.
#[derive(Debug)]
pub struct Sampler {
    began: Option<Instant>,
    skipped: usize,
    is_warm: bool,
    values: Vec<f64>,
    warm_up: (usize, Duration),
    wanted: (usize, Duration),
}

/// What the batches of one case said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The smallest value, or the largest of rates.
    pub best: f64,
    /// The middle value.
    pub median: f64,
    /// How many there were.
    pub batches: usize,
}

impl Sampler {
    /// A sampler without batches yet.
    pub fn new(options: &Options) -> Self {
        let (warm_up, wanted) = if options.is_smoke() {
            ((1, Duration::ZERO), (2, Duration::ZERO))
        } else {
            ((WARM_UP_BATCHES, WARM_UP), (MEASURED_BATCHES, MEASURED))
        };
        Sampler { began: None, skipped: 0, is_warm: false, values: Vec::new(), warm_up, wanted }
    }

    /// Is content with so many batches, for batches that take long.
    pub fn with_batches(mut self, batches: usize) -> Self {
        self.wanted.0 = self.wanted.0.min(batches);
        self
    }

    /// Is content with so much time, for a case that is one point of many.
    pub fn with_time(mut self, time: Duration) -> Self {
        self.wanted.1 = self.wanted.1.min(time);
        self.warm_up.1 = self.warm_up.1.min(time / 4);
        self
    }

    /// Forgets no batch, for batches that warm up themselves.
    pub fn without_warm_up(mut self) -> Self {
        self.is_warm = true;
        self
    }

    /// Whether another batch is wanted.
    pub fn wants_more(&mut self) -> bool {
        let elapsed = self.began.get_or_insert_with(Instant::now).elapsed();
        if self.is_warm {
            let (batches, time) = self.wanted;
            return self.values.len() < MOST_BATCHES && (self.values.len() < batches || elapsed < time);
        }
        let (batches, time) = self.warm_up;
        if self.skipped >= batches && elapsed >= time {
            self.is_warm = true;
            self.began = None;
        }
        true
    }

    /// Takes the value of a batch.
    pub fn take(&mut self, value: f64) {
        if self.is_warm {
            self.values.push(value);
        } else {
            self.skipped += 1;
        }
    }

    /// Takes the time of a batch of `count` operations, in nanoseconds per operation.
    pub fn take_ns(&mut self, time: Duration, count: u64) {
        self.take(time.as_nanos() as f64 / count as f64);
    }

    /// Best and median of all batches after the warm-up.
    ///
    /// # Panics
    /// If there were none.
    pub fn summary(mut self) -> Summary {
        assert!(!self.values.is_empty(), "a case was reported before it was measured");
        self.values.sort_by(f64::total_cmp);
        let batches = self.values.len();
        let median = (self.values[(batches - 1) / 2] + self.values[batches / 2]) / 2.0;
        Summary { best: self.values[0], median, batches }
    }
}

impl Summary {
    /// The same in a unit that is `factor` times as large.
    pub fn per(self, factor: f64) -> Self {
        Summary { best: self.best / factor, median: self.median / factor, ..self }
    }

    /// How much is done in a unit of time, where `work` is done in the time that was sampled. Of rates the best is the
    /// largest.
    pub fn as_rate_of(self, work: f64) -> Self {
        Summary { best: work / self.best, median: work / self.median, ..self }
    }

    /// A quantity that was not sampled but counted.
    pub fn exact(value: f64) -> Self {
        Summary { best: value, median: value, batches: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_warms_up_itself_is_not_forgotten() {
        let mut sampler = Sampler::new(&Options::smoke()).without_warm_up();
        while sampler.wants_more() {
            sampler.take(1.0);
        }
        assert_eq!(sampler.summary().batches, 2);
    }

    #[test]
    fn the_warm_up_is_forgotten_and_the_rest_is_summed_up() {
        let mut sampler = Sampler::new(&Options::smoke());
        let mut values = [1.0, 8.0, 4.0].into_iter();
        while sampler.wants_more() {
            sampler.take(values.next().expect("a smoke run takes three batches"));
        }
        assert_eq!(values.next(), None);
        let summary = sampler.summary();
        assert_eq!(summary, Summary { best: 4.0, median: 6.0, batches: 2 });
        assert_eq!(summary.as_rate_of(12.0), Summary { best: 3.0, median: 2.0, batches: 2 });
        assert_eq!(summary.per(2.0), Summary { best: 2.0, median: 3.0, batches: 2 });
    }
}
