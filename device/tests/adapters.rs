//! What is so on `wgpu` devices only: errors of the compiler and of the driver's limits, and copies between devices.
//! On a machine without an adapter all of it is skipped, and says so, unless `REQUIRE_DEVICE` names `wgpu`.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::process::Command;

use chare_device::{
    Account, DeviceError, DeviceVec, Devices, Each, Fault, HostMode, In, InOut, Kernel, Launch, Maybe, Out,
    kernel,
};

kernel! {
    const ADD: fn add(buffer: InOut<u32>, value: u32) {
        rust: |_: &Launch, (buffer, value): (&mut [u32], u32)| buffer.iter_mut().for_each(|x| *x += value),
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) value: u32 }
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
            @group(0) @binding(1) var<uniform> arguments: Arguments;
            @compute @workgroup_size(64) fn add(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arguments.grid.x { buffer[at.x] += arguments.value; }
            }",
    }
}

fn open(spec: &str) -> Option<Devices> {
    match Devices::open(&spec.parse().unwrap(), HostMode::Inline) {
        Ok(devices) => Some(devices),
        Err(error) => {
            let required = std::env::var("REQUIRE_DEVICE").is_ok_and(|kinds| kinds.contains("wgpu"));
            assert!(!required, "REQUIRE_DEVICE wants wgpu, and there is {error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn values(account: &Account, buffer: &DeviceVec<u32>) -> Vec<u32> {
    account.download(buffer).unwrap().wait().unwrap()
}

/// The fault of a kernel that gets one buffer of four elements.
fn fault_of(devices: &Devices, kernel: Kernel<(InOut<u32>,)>, grid: u32) -> Fault {
    let account = devices.get(0).account("wrong");
    let mut buffer = account.alloc::<u32>(4).unwrap();
    match account.launch(&kernel, grid, (&mut buffer,)).unwrap().wait() {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

/// A kernel whose WGSL is this, and whose name is `wrong`.
const fn wrong(wgsl: &'static str) -> Kernel<(InOut<u32>,)> {
    Kernel::<(InOut<u32>,)>::new("wrong", |_: &Launch, _: (&mut [u32],)| ()).with_wgsl(wgsl)
}

#[test]
fn what_the_compiler_says_comes_with_line_and_caret() {
    let Some(devices) = open("wgpu") else { return };
    let buffer = "@group(0) @binding(0) var<storage, read_write> buffer: array<u32>;\n";
    for (rest, line, found) in [
        ("@compute @workgroup_size(1) fn wrong() { buffer[0] = 1.5; }", ":2:", "buffer[0] = 1.5;"),
        ("@compute @workgroup_size(1)\nfn wrong() { buffer[0] = 1u }", ":3:", "buffer[0] = 1u }"),
        ("\n\n@compute @workgroup_size(1) fn wrong() { neffub[0] = 1u; }", ":4:", "no definition in scope"),
    ] {
        let source: &'static str = format!("{buffer}{rest}").leak();
        for _ in 0..2 {
            let fault = fault_of(&devices, wrong(source), 4);
            let message = &*fault.message;
            assert_eq!((fault.kernel, &*fault.owner), ("wrong", "wrong"));
            assert!(message.contains(&format!("wrong.wgsl{line}")), "{message}");
            assert!(message.contains(found) && message.contains('^'), "{message}");
        }
    }
}

#[test]
fn workgroups_of_another_shape_than_declared_are_a_fault() {
    let Some(devices) = open("wgpu") else { return };
    // `kernel!` would have found it; this one's source is not looked at before it is loaded.
    let kernel = wrong(
        "@group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
         @compute @workgroup_size(32, 2) fn wrong(@builtin(local_invocation_index) at: u32) { buffer[0] = at; }",
    );
    let fault = fault_of(&devices, kernel.with_block([64, 1, 1]), 1);
    let words = "the workgroup size of its WGSL source is [32, 2, 1], and its block shape [64, 1, 1]";
    assert!(fault.kernel == "wrong" && fault.message.contains(words), "{fault}");
    let account = devices.get(0).account("right");
    let mut buffer = account.alloc::<u32>(4).unwrap();
    account.launch(&kernel.with_block([32, 2, 1]), 1, (&mut buffer,)).unwrap().wait().unwrap();
}

#[test]
fn a_kernel_that_does_not_fit_its_declaration_is_a_fault() {
    let Some(devices) = open("wgpu") else { return };
    for (source, words) in [
        // Not there, or no kernel.
        ("fn wrong() {}", "no entry point `@compute fn wrong`"),
        ("@compute @workgroup_size(1) fn other() {}", "no entry point `@compute fn wrong`"),
        // Found when the pipeline is made.
        (
            "@group(0) @binding(5) var<storage, read_write> buffer: array<u32>;
             @compute @workgroup_size(1) fn wrong() { buffer[0] = 1u; }",
            "binding",
        ),
        (
            "@group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
             @compute @workgroup_size(70000) fn wrong() { buffer[0] = 1u; }",
            "Workgroup size is out of range",
        ),
        // Found when it is launched.
        (
            "@group(0) @binding(0) var<storage, read_write> buffer: array<u32, 1000>;
             @compute @workgroup_size(1) fn wrong() { buffer[0] = 1u; }",
            "4000",
        ),
    ] {
        let fault = fault_of(&devices, wrong(source), 1);
        assert!(fault.kernel == "wrong" && fault.message.contains(words), "{words}: {fault}");
        // Others are not concerned.
        let account = devices.get(0).account("right");
        let mut buffer = account.alloc::<u32>(4).unwrap();
        account.launch(&ADD, 4, (&mut buffer, 3)).unwrap();
        assert_eq!(values(&account, &buffer), [3; 4]);
    }
    assert!(devices.take_unreported_faults().is_empty());
}

#[test]
fn limits_are_told_before_they_are_passed() {
    let Some(devices) = open("wgpu") else { return };
    let account = devices.get(0).account("large");
    let error = account.alloc::<u8>(1usize << 50).unwrap_err();
    let DeviceError::TooLarge { bytes, limit_bytes, .. } = error else { panic!("{error}") };
    assert!(bytes == 1 << 50 && (1 << 27..1 << 50).contains(&limit_bytes), "{error}");
    assert!(error.to_string().contains("cut it into several"), "{error}");
    // The first grid along one axis that takes too many workgroups of 64; one less is launched.
    let most = 65535 * 64;
    let mut buffer = account.alloc::<u32>(4).unwrap();
    account.launch(&ADD, most, (&mut buffer, 1)).unwrap().wait().unwrap();
    let error = account.launch(&ADD, u32::MAX, (&mut buffer, 1)).unwrap().wait().unwrap_err().to_string();
    assert!(error.contains("at most") && error.contains("workgroups of 64"), "{error}");
    // What no kernel can see as a whole may be there nevertheless.
    let error = account.alloc::<u32>(limit_bytes as usize / 4).and_then(|mut buffer| {
        account.launch(&ADD, 1, (&mut buffer, 1))?.wait()?;
        drop(account.download(&buffer));
        Ok(())
    });
    if let Err(error) = error {
        let text = error.to_string();
        assert!(text.contains("sees at most") || text.contains("out of memory"), "{text}");
    }
}

#[test]
fn a_kernel_with_more_buffers_than_the_device_binds_is_a_fault() {
    let Some(devices) = open("wgpu") else { return };
    type Many = (Each<Maybe<In<u32>>, 33>, Out<u32>);
    const MANY: Kernel<Many> =
        Kernel::<Many>::new("many", |_: &Launch, _: ([Option<&[u32]>; 33], &mut [u32])| ())
            .with_wgsl("@compute @workgroup_size(1) fn many() {}");
    let account = devices.get(0).account("many");
    let mut buffer = account.alloc::<u32>(1).unwrap();
    let parts: [Option<&DeviceVec<u32>>; 33] = [None; 33];
    let error = account.launch(&MANY, 1, (parts, &mut buffer)).unwrap().wait().unwrap_err().to_string();
    assert!(error.contains("34 buffers") && error.contains("at most"), "{error}");
}

kernel! {
    const SCALE: fn scale(factor: f64, from: In<f64>, to: Out<f64>, offset: u64) {
        rust: |_: &Launch, (factor, from, to, offset): (f64, &[f64], &mut [f64], u64)| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = factor * from + offset as f64);
        },
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) factor: f64, @align(16) offset: u64 }
            @group(0) @binding(0) var<storage, read> source: array<f64>;
            @group(0) @binding(1) var<storage, read_write> to: array<f64>;
            @group(0) @binding(2) var<uniform> arguments: Arguments;
            @compute @workgroup_size(64) fn scale(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arrayLength(&to) {
                    to[at.x] = arguments.factor * source[at.x] + f64(arguments.offset);
                }
            }",
    }
}

#[test]
fn numbers_of_64_bits_are_exact_or_a_fault_that_says_what_is_missing() {
    let Some(devices) = open("wgpu") else { return };
    let account = devices.get(0).account("doubles");
    let values: Vec<f64> = (0..100).map(|n| f64::from(n) / 3.0).collect();
    let (from, mut to) = (account.from_slice(&values).unwrap(), account.alloc::<f64>(100).unwrap());
    match account.launch(&SCALE, 100, (1.1, &from, &mut to, (1 << 40) + 1)).unwrap().wait() {
        Ok(()) => {
            let found = account.download(&to).unwrap().wait().unwrap();
            let expected = values.iter().map(|value| 1.1 * value + ((1u64 << 40) + 1) as f64);
            let close = |(a, b): (&f64, f64)| (a - b).abs() <= f64::EPSILON * b.abs();
            assert!(found.iter().zip(expected).all(close), "{found:?}");
        }
        Err(error) => assert!(error.to_string().contains("64"), "{error}"),
    }
}

#[test]
fn an_adapter_is_several_devices() {
    let Some(devices) = open("wgpu:0x3") else { return };
    let uuids: std::collections::HashSet<_> = devices.iter().map(|device| device.uuid()).collect();
    assert_eq!((uuids.len(), devices.get(2).name()), (3, "wgpu:2"));
    assert!(devices.iter().all(|device| device.model().is_some_and(|model| model.contains(" through "))));
    let empty = devices.get(0).account("empty").alloc::<u32>(0).unwrap();
    let other = devices.get(1).account("other");
    assert_eq!(values(&other, &other.copy(&empty).unwrap()), []);
}

#[test]
fn memory_goes_between_devices_of_an_adapter_past_the_host() {
    for (spec, is_staged) in [("wgpu:0x2", false), ("wgpu:0x2:apart", true)] {
        let Some(devices) = open(spec) else { return };
        let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
        let mut source = there.upload(vec![1_u32; 1000]).unwrap();
        let mut copies = Vec::new();
        for _ in 0..100 {
            copies.push(here.copy(&source).unwrap());
            there.launch(&ADD, 1000, (&mut source, 1)).unwrap();
        }
        let counted = devices.get(0).copies();
        assert_eq!((counted.from_host, counted.from_peers), (0, 100));
        assert_eq!(counted.staged, if is_staged { 100 } else { 0 }, "{spec}");
        for (value, copy) in (1..).zip(&copies) {
            assert_eq!(values(&here, copy), [value; 1000]);
        }
        // What each may take is its own.
        assert!(devices.get(0).used_bytes() > 50 * devices.get(1).used_bytes());
    }
}

#[test]
fn what_waits_for_an_abandoned_device_is_refused() {
    let Some(devices) = open("wgpu:0x2:apart") else { return };
    let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
    let mut source = there.alloc::<u32>(100_000).unwrap();
    let mut reads = Vec::new();
    for _ in 0..300 {
        there.launch(&ADD, 100_000, (&mut source, 1)).unwrap();
        reads.push(here.download(&here.copy(&source).unwrap()).unwrap());
    }
    devices.abandon();
    let outcomes: Vec<_> = reads.into_iter().map(|read| read.wait()).collect();
    // Those that had begun have ended well, and none after one that had not.
    let begun = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    let refused = outcomes[begun..].iter();
    assert!(refused.clone().all(|outcome| matches!(outcome, Err(DeviceError::Closed { .. }))));
    for (round, values) in (1..).zip(outcomes.into_iter().take(begun)) {
        assert_eq!(values.unwrap(), vec![round; 100_000]);
    }
    assert!(matches!(here.fence(), Err(DeviceError::Closed { .. })));
    devices.close();
    assert_eq!(devices.pending(), 0);
}

#[test]
fn uploads_and_downloads_of_all_sizes_are_exact() {
    let Some(devices) = open("wgpu") else { return };
    let account = devices.get(0).account("bytes");
    for len in [0, 1, 2, 3, 4, 5, 255, 256, 257, 1023, (1 << 20) - 1, (1 << 20) + 1, 5_000_001] {
        let bytes: Vec<u8> = (0..len).map(|n: usize| (n % 251) as u8).collect();
        let buffer = account.from_slice(&bytes).unwrap();
        let copy = account.copy(&buffer).unwrap();
        assert_eq!(account.download(&copy).unwrap().wait().unwrap(), bytes, "{len}");
    }
}

#[test]
fn an_adapter_that_is_not_there_is_told_with_those_that_are() {
    if open("wgpu").is_none() {
        return;
    }
    let spec = "wgpu:77".parse().unwrap();
    let error = Devices::open(&spec, HostMode::Inline).unwrap_err().to_string();
    assert!(error.starts_with("no wgpu adapter: none has the number 77; there are 0: "), "{error}");
}

/// Set for the process that has little memory.
const WITH_LITTLE_MEMORY: &str = "CHARE_TEST_WITH_LITTLE_MEMORY";

#[cfg(target_os = "linux")]
#[test]
fn a_driver_without_memory_is_an_error_that_says_who_has_it() {
    let Some(devices) = open("wgpu") else { return };
    if std::env::var_os(WITH_LITTLE_MEMORY).is_some() {
        let (small, large) = (devices.get(0).account("small"), devices.get(0).account("large"));
        let buffer = small.upload(vec![1u32, 2]).unwrap();
        let mut held: Vec<DeviceVec<u8>> = Vec::new();
        let error = loop {
            match large.alloc::<u8>(1usize << 30) {
                Ok(buffer) => held.push(buffer),
                Err(error) => break error,
            }
        };
        let DeviceError::OutOfMemory(details) = &error else { panic!("{error}") };
        assert_eq!(details.owners[0], ("large".into(), (held.len() as u64) << 30));
        let text = error.to_string();
        assert!(text.contains("there is no more; held by large: ") && !text.contains("mem="), "{text}");
        // The device goes on, and what is given back is there again.
        assert_eq!(values(&small, &buffer), [1, 2]);
        drop(held.pop());
        held.push(large.alloc::<u8>(1usize << 30).unwrap());
        return;
    }
    // The memory of other devices is not the process's.
    if !devices.get(0).model().is_some_and(|model| model.starts_with("llvmpipe")) {
        eprintln!("skipped: the memory of {:?} cannot be made scarce", devices.get(0));
        return;
    }
    drop(devices);
    let mut child = Command::new("sh");
    let limited =
        "ulimit -v 16000000 && exec \"$0\" --exact a_driver_without_memory_is_an_error_that_says_who_has_it";
    child.args(["-c", limited]).arg(std::env::current_exe().unwrap());
    let output = child.env(WITH_LITTLE_MEMORY, "1").env("REQUIRE_DEVICE", "wgpu").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Set for the process in which there is no driver.
const WITHOUT_DRIVERS: &str = "CHARE_TEST_WITHOUT_DRIVERS";

#[test]
fn a_machine_without_a_driver_is_told_what_to_install() {
    if std::env::var_os(WITHOUT_DRIVERS).is_some() {
        let error = Devices::open(&"wgpu".parse().unwrap(), HostMode::Inline).unwrap_err().to_string();
        assert!(error.starts_with("no wgpu adapter: install a driver for Vulkan"), "{error}");
        assert!(error.contains("mesa-vulkan-drivers") && !error.contains('\n'), "{error}");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this);
    child.args(["--exact", "a_machine_without_a_driver_is_told_what_to_install"]);
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        child.env(variable, "/nowhere/driver.json");
    }
    let output = child.env(WITHOUT_DRIVERS, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
