//! The pace of a virtual device: on one with slowdown `s`, work that takes the host `t` counts as finished
//! after `s * t`.

use std::time::{Duration, Instant};

/// Waits shorter than this are spun: a sleep is not that exact.
const SPIN: Duration = Duration::from_micros(100);

/// The longest that slowed work takes: later there is no `Instant` everywhere, and nobody waits for it.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Does `work` and says when it counts as finished. At native speed (1) no clock is read and the answer is
/// `None`.
pub(super) fn finish_time(slowdown: f64, work: impl FnOnce()) -> Option<Instant> {
    if slowdown <= 1.0 {
        work();
        return None;
    }
    let start = Instant::now();
    work();
    Some(slowed_end(start, start.elapsed(), slowdown))
}

fn slowed_end(start: Instant, host_time: Duration, slowdown: f64) -> Instant {
    let slowed_s = host_time.as_secs_f64() * slowdown;
    start + Duration::from_secs_f64(slowed_s.min(LONGEST.as_secs_f64()))
}

/// Waits until a time.
pub(super) fn wait_until(end: Instant) {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match left.checked_sub(SPIN) {
            Some(sleep) => std::thread::sleep(sleep),
            None => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_work_counts_as_finished_later() {
        let start = Instant::now();
        assert_eq!(slowed_end(start, Duration::from_millis(5), 3.0), start + Duration::from_millis(15));
        for slowdown in [1e300, f64::MAX, f64::INFINITY] {
            assert_eq!(slowed_end(start, Duration::from_secs(1), slowdown), start + LONGEST);
            assert_eq!(slowed_end(start, Duration::MAX, slowdown), start + LONGEST);
        }
        let mut runs = 0;
        assert_eq!(finish_time(1.0, || runs += 1), None);
        let end = finish_time(2.5, || runs += 1).unwrap();
        assert!(end >= start && runs == 2);
        wait_until(end);
        assert!(Instant::now() >= end);
    }
}
