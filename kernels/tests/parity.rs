//! Every kernel on every device there is: on random inputs it writes what its Rust source writes where it is simply called.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::path::Path;

use chare_device::{DeviceSpec, Devices, HostMode, parity};
use chare_kernels::cases;

#[test]
fn devices_agree() {
    parity::check(&cases());
}

#[test]
fn inputs_differ() {
    let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline).unwrap();
    let account = devices.get(0).account("seeds");
    for case in cases() {
        let outcomes: Vec<_> = (0..20).map(|seed| case.run(&account, seed).unwrap()).collect();
        let all_alike = outcomes.iter().all(|outcome| case.difference(&outcomes[0], outcome).is_none());
        assert!(!all_alike, "{}", case.kernel());
    }
}

/// The name of the kernel that is declared after `KERNEL `.
fn name(declaration: &str) -> &str {
    let declaration = match declaration.strip_prefix("BLOCK(") {
        Some(rest) => rest.split_once(") ").unwrap().1,
        None => declaration,
    };
    declaration.split('(').next().unwrap()
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
                for name in source.split("KERNEL ").skip(1).map(name) {
                    assert!(cases.iter().any(|case| case.kernel() == name), "{name} of {}", path.display());
                    found += 1;
                }
            }
        }
    }
    assert_eq!(found, cases.len(), "every case has a kernel in CUDA C");
}
