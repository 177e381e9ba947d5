//! What a task does: nothing, floating-point operations in registers, or a chain of integer operations.
//!
//! On a processor with AVX2 and FMA, found at run time, the floating-point kernel keeps 16 chains of fused operations in 16
//! registers, which is what it takes to keep its units busy; its rate is the peak that efficiencies are parts of.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use super::graph::uniform;

/// Floating-point values of a task.
const VALUES: usize = 64;

/// The work of a task.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Kernel {
    /// None.
    Empty,
    /// 64 independent chains of `a = a * a + a`.
    ComputeBound,
    /// The same, of a length that varies between the tasks by this part.
    LoadImbalance(f64),
    /// One chain of integer multiplications and divisions.
    BusyWait,
}

impl Kernel {
    /// Runs it for one task.
    #[inline]
    pub fn run(self, graph: usize, step: usize, point: usize, iterations: u64) {
        match self {
            Kernel::Empty => {}
            Kernel::ComputeBound | Kernel::LoadImbalance(_) => {
                black_box(compute_bound(self.iterations_of(graph, step, point, iterations)));
            }
            Kernel::BusyWait => {
                black_box((0..iterations).fold(113_u64, |value, _| value * 139 % 2_147_483_647));
            }
        }
    }

    /// The floating-point operations of one task.
    pub fn flops(self, graph: usize, step: usize, point: usize, iterations: u64) -> u64 {
        match self {
            Kernel::Empty | Kernel::BusyWait => 0,
            Kernel::ComputeBound | Kernel::LoadImbalance(_) => {
                2 * VALUES as u64 * self.iterations_of(graph, step, point, iterations) + VALUES as u64
            }
        }
    }

    fn iterations_of(self, graph: usize, step: usize, point: usize, iterations: u64) -> u64 {
        let Kernel::LoadImbalance(part) = self else { return iterations };
        let drawn = uniform(&[graph, step, point].map(|number| number as u64));
        ((1.0 + (drawn - 0.5) * part) * iterations as f64).round() as u64
    }
}

#[inline]
fn compute_bound(iterations: u64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the machine has AVX2 and FMA.
        return unsafe { compute_bound_fma(iterations) };
    }
    compute_bound_portable(iterations)
}

/// Values soon overflow to infinity, which is as fast as any other value.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn compute_bound_fma(iterations: u64) -> f64 {
    use std::arch::x86_64::{__m256d, _mm256_fmadd_pd};

    // Opaque memory, there and back: chains that are known to be equal would be merged, and 64 values would be taken out of
    // the registers one by one.
    let mut chains: [__m256d; VALUES / 4] = bytemuck::cast(*black_box(&STARTS));
    for _ in 0..iterations {
        chains = chains.map(|a| _mm256_fmadd_pd(a, a, a));
    }
    product(black_box(&bytemuck::cast(chains)))
}

#[cfg(target_arch = "x86_64")]
static STARTS: [[f64; 4]; VALUES / 4] = [[4.0, 3.0, 2.0, 1.0]; VALUES / 4];

fn compute_bound_portable(iterations: u64) -> f64 {
    let mut values = black_box([1.2345_f64; VALUES]);
    for _ in 0..iterations {
        values = values.map(|a| a * a + a);
    }
    product(&values)
}

/// One after the other.
#[inline(always)]
fn product(values: &[f64; VALUES]) -> f64 {
    values.iter().product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_computes_what_it_says() {
        // Few enough iterations for a finite result.
        let chain = |start: f64| (0..2).fold(start, |a, _| a * a + a);
        let expected = (0..VALUES).map(|_| chain(1.2345)).product::<f64>();
        assert!((compute_bound_portable(2) / expected - 1.0).abs() < 1e-12);
        let of_four = |start: [f64; 4]| (0..16).flat_map(|_| start.map(chain)).product::<f64>();
        let expected = if compute_bound(0) == compute_bound_portable(0) {
            expected
        } else {
            of_four([4.0, 3.0, 2.0, 1.0])
        };
        assert!((compute_bound(2) / expected - 1.0).abs() < 1e-12);
    }

    #[test]
    fn operations_are_counted_by_the_formula() {
        assert_eq!(Kernel::ComputeBound.flops(0, 0, 0, 10), 1344);
        assert_eq!(Kernel::BusyWait.flops(0, 0, 0, 10), 0);
        let uneven = |point| Kernel::LoadImbalance(1.0).flops(0, 3, point, 1000);
        let all: Vec<u64> = (0..100).map(uneven).collect();
        assert!(all.iter().all(|flops| (64 + 128 * 500..=64 + 128 * 1500).contains(flops)));
        assert!(all.iter().max() > all.iter().min());
        assert_eq!(
            Kernel::LoadImbalance(0.0).flops(0, 3, 4, 1000),
            Kernel::ComputeBound.flops(0, 3, 4, 1000)
        );
    }
}
