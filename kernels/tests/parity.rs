//! Every kernel on every device there is: on random inputs it writes what its Rust source writes where it is simply called.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::path::{Path, PathBuf};

use chare_device::cuda::{Compiler, ImageKind};
use chare_device::{DeviceSpec, Devices, HostMode, parity, ship_kernels};
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

/// With `SHIP_KERNELS`, that folder gets the kernels of this binary, compiled for a machine without a compiler (`scripts/gpu-check`).
#[test]
fn every_kernel_can_be_shipped() {
    if Compiler::new(None, ImageKind::Cubin).version().is_none() {
        let required = std::env::var("REQUIRE_NVRTC").is_ok_and(|required| required == "1");
        assert!(!required, "REQUIRE_NVRTC is set and libnvrtc is not found");
        println!("skipped: there is no NVRTC");
        return;
    }
    let folder = std::env::var("SHIP_KERNELS")
        .map_or_else(|_| Path::new(env!("CARGO_TARGET_TMPDIR")).join("shipped"), PathBuf::from);
    let capability = std::env::var("SHIP_CAPABILITY").unwrap_or_else(|_| "9.0".to_owned());
    let count = ship_kernels(&folder, capability.parse().unwrap()).unwrap();
    assert_eq!(count, cases().len());
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
