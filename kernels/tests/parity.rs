//! Every kernel on every device there is: on random inputs it writes what its Rust source writes where it is simply called.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::path::Path;

use chare_device::{Devices, HostMode};
use chare_kernels::{Case, cases};

/// The devices to compare.
const SPECS: &[&str] = &[
    "host:workers=2",
    "host:2@1,2:inline",
    "host:polled",
    #[cfg(feature = "wgpu")]
    "wgpu:0x2",
];

const SEEDS: u64 = 40;

fn open(spec: &str) -> Devices {
    Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap()
}

fn compare(case: &Case, reference: &Devices, devices: &Devices) {
    for seed in 0..SEEDS {
        let expected = case.run(&reference.get(0).account("reference"), seed).unwrap();
        for device in devices.iter() {
            let found = case.run(&device.account("parity"), seed).unwrap();
            let difference = case.difference(&expected, &found);
            assert!(
                difference.is_none(),
                "{} on {}, seed {seed}: {difference:?}",
                case.kernel(),
                device.name()
            );
        }
    }
}

#[test]
fn devices_agree() {
    let reference = open("host:inline");
    for spec in SPECS {
        let devices = match Devices::open(&spec.parse().unwrap(), HostMode::Inline) {
            Ok(devices) => devices,
            Err(error) => {
                let required = std::env::var("REQUIRE_DEVICE").is_ok_and(|kinds| kinds.contains("wgpu"));
                assert!(spec.starts_with("wgpu") && !required, "{spec}: {error}");
                eprintln!("{spec} is skipped: {error}");
                continue;
            }
        };
        for case in cases() {
            if case.is_written_in(devices.get(0).language()) {
                compare(&case, &reference, &devices);
            }
        }
    }
}

#[test]
fn inputs_differ_and_differences_are_seen() {
    let devices = open("host:inline");
    let account = devices.get(0).account("seeds");
    for case in cases() {
        let outcomes: Vec<_> = (0..20).map(|seed| case.run(&account, seed).unwrap()).collect();
        let all_alike = outcomes.iter().all(|outcome| case.difference(&outcomes[0], outcome).is_none());
        assert!(!all_alike, "{}", case.kernel());
    }
}

#[test]
fn every_kernel_has_a_case() {
    let cases = cases();
    let mut found = 0;
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cu") {
                let source = std::fs::read_to_string(&path).unwrap();
                for name in source.split("KERNEL ").skip(1).map(|rest| rest.split('(').next().unwrap()) {
                    assert!(cases.iter().any(|case| case.kernel() == name), "{name} of {}", path.display());
                    found += 1;
                }
            }
        }
    }
    assert_eq!(found, cases.len(), "every case has a kernel in CUDA C");
}
