//! METG, the minimum effective task granularity: the smallest time of a task, overhead included, at which a graph still
//! reaches a part of the peak rate.

/// One measurement of a graph.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Granularity {
    /// The iterations of the kernel.
    pub iterations: u64,
    /// The time of one task on one core, overhead and idling included: elapsed time x cores / tasks.
    pub task_ns: f64,
    /// The floating-point operations of a task, on average.
    pub flops: f64,
}

impl Granularity {
    /// Operations in a nanosecond on a core.
    pub fn rate(self) -> f64 {
        self.flops / self.task_ns
    }
}

/// The granularity at which `efficiency` of the peak rate (operations in a nanosecond on a core) is reached: between the
/// smallest task that reaches it and the one with the next fewer iterations, on a straight line. `None` if no measured task
/// reaches it, or all do.
pub fn metg(measured: &[Granularity], peak: f64, efficiency: f64) -> Option<f64> {
    let reached = |at: &Granularity| at.rate() / peak;
    let good = measured.iter().filter(|at| reached(at) >= efficiency);
    let good = good.min_by(|a, b| a.task_ns.total_cmp(&b.task_ns))?;
    let fewer = measured.iter().filter(|at| at.iterations < good.iterations);
    let below = fewer.max_by_key(|at| at.iterations)?;
    let along = (efficiency - reached(below)) / (reached(good) - reached(below));
    Some(below.task_ns + along * (good.task_ns - below.task_ns))
}

/// The iterations to try, falling: the first is enough for the peak rate, the others are a fourth apart.
pub fn sweep() -> impl Iterator<Item = u64> {
    let falling = std::iter::successors(Some(2048_u64), |last| Some(last * 4 / 5).filter(|next| *next > 0));
    [16384].into_iter().chain(falling)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime that adds 200 ns to each task, on a machine of 16 operations in a nanosecond.
    fn measure(iterations: u64) -> Granularity {
        let flops = 128.0 * iterations as f64;
        Granularity { iterations, task_ns: 200.0 + flops / 16.0, flops }
    }

    #[test]
    fn half_of_the_peak_is_reached_where_work_equals_overhead() {
        let measured: Vec<_> = sweep().map(measure).collect();
        let found = metg(&measured, 16.0, 0.5).expect("it is between two points");
        assert!((found / 400.0 - 1.0).abs() < 0.01, "{found}");
        assert!(measured[0].rate() > 0.99 * 16.0, "the first point is the peak");
        assert_eq!(metg(&measured[..5], 16.0, 0.5), None);
        assert_eq!(metg(&[measure(1)], 16.0, 0.5), None);
    }
}
