//! Operations of several launches, as a program calls them: on every device there is, what a plain computation gives.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use chare_device::parity::Random;
use chare_device::{Account, DeviceError, DeviceVec, Devices, HostMode, Language};
use chare_kernels::reduce::{self, Reduce};
use chare_kernels::scan::{self, Scan};

const SPECS: &[&str] = &["host:inline", "host:workers=2", "host:polled", "wgpu:0", "cuda:0"];

/// Around the sizes of warps, blocks and chunks; the last takes two levels of all.
const SIZES: [usize; 12] = [0, 1, 31, 32, 33, 1000, 1024, 1025, 4096, 4097, 100_003, 4096 * 257];

/// Calls `test` on each device there is.
fn on_each(test: impl Fn(&Account, Language)) {
    for spec in SPECS {
        let devices = match Devices::open(&spec.parse().unwrap(), HostMode::Inline) {
            Ok(devices) => devices,
            Err(error) => {
                let kind = spec.split(':').next().unwrap();
                let required = std::env::var("REQUIRE_DEVICE").is_ok_and(|kinds| kinds.contains(kind));
                assert!(kind != "host" && !required, "{spec}: {error}");
                eprintln!("{spec} is skipped: {error}");
                continue;
            }
        };
        test(&devices.get(0).account("test"), devices.get(0).language());
        assert!(devices.take_unreported_faults().is_empty());
    }
}

fn value<T: chare_device::DevicePod>(account: &Account, result: Result<DeviceVec<T>, DeviceError>) -> T {
    let values = account.download(&result.unwrap()).unwrap().wait().unwrap();
    assert_eq!(values.len(), 1);
    values[0]
}

fn reductions<T: Reduce + std::fmt::Debug>(account: &Account, dot_tolerance: f64) {
    for (seed, len) in SIZES.into_iter().enumerate() {
        let mut random = Random::new(seed as u64);
        let (x, y): (Vec<T>, Vec<T>) = (random.values(len), random.values(len));
        let (on_x, on_y) = (account.from_slice(&x).unwrap(), account.from_slice(&y).unwrap());
        let of = |result| value(account, result);
        // Bit for bit: the order of operations is the same everywhere.
        assert_eq!(of(reduce::sum(account, &on_x)), reduce::sum_slice(&x), "sum of {len}");
        let least = x.iter().copied().fold(T::INFINITY, |a, b| if b < a { b } else { a });
        let most = x.iter().copied().fold(-T::INFINITY, |a, b| if b > a { b } else { a });
        assert_eq!(of(reduce::min(account, &on_x)), least, "min of {len}");
        assert_eq!(of(reduce::max(account, &on_x)), most, "max of {len}");
        let expected = reduce::dot_slice(&x, &y);
        let found = of(reduce::dot(account, &on_x, &on_y));
        let tolerance = T::from_f64(dot_tolerance * (1.0 + len as f64).sqrt());
        assert!(found - expected <= tolerance && expected - found <= tolerance, "{found:?}, {expected:?}");
    }
}

#[test]
fn reductions_of_any_length() {
    on_each(|account, language| {
        reductions::<f32>(account, 1e-6);
        if language != Language::Wgsl {
            reductions::<f64>(account, 1e-15);
        }
    });
}

/// Of numbers whose sums are exact.
fn scans<T: Scan + PartialEq + std::fmt::Debug>(account: &Account, number: impl Fn(u32) -> T) {
    for (seed, len) in SIZES.into_iter().enumerate() {
        let mut random = Random::new(seed as u64);
        let x: Vec<T> = (0..len).map(|_| number(random.below(8))).collect();
        let on = account.from_slice(&x).unwrap();
        for (found, inclusive) in
            [(scan::inclusive(account, &on), true), (scan::exclusive(account, &on), false)]
        {
            let mut expected = x.clone();
            scan::scan_slice(&x, &mut expected, inclusive);
            let found = account.download(&found.unwrap()).unwrap().wait().unwrap();
            assert!(found == expected, "{len} elements, inclusive: {inclusive}");
        }
    }
}

#[test]
fn scans_of_any_length() {
    on_each(|account, language| {
        scans::<u32>(account, |n| n.wrapping_mul(0x2468_ace1));
        scans::<f32>(account, |n| n as f32);
        if language != Language::Wgsl {
            scans::<f64>(account, f64::from);
        }
    });
}

#[test]
#[should_panic(expected = "x and y: vectors of one length")]
fn dot_products_want_equal_lengths() {
    let devices = Devices::open(&"host".parse().unwrap(), HostMode::Inline).unwrap();
    let account = devices.get(0).account("test");
    let (x, y) = (account.alloc::<f32>(3).unwrap(), account.alloc::<f32>(4).unwrap());
    let _ = reduce::dot(&account, &x, &y);
}
