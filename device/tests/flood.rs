//! Far more launches than a device takes at once, by a program that waits for none of them: they keep their order, all of them end,
//! and what waits takes a bounded amount of memory each.

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "stand_in/apart.rs"]
mod apart;
mod counting;
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "stand_in/kernels.rs"]
mod register;

use chare_device::{DeviceError, Devices, HostMode, InOut, Launch, kernel};

use counting::most_bytes_during;

const LAUNCHES: u32 = 100_000;

/// The host memory of a launch that waits: the operation, its cell, and its places in lists that have grown.
const BYTES_PER_LAUNCH: usize = 1500;

kernel! {
    /// Gives another result in any other order.
    const STEP: fn step(value: InOut<u32>, number: u32) {
        rust: |_: &Launch, (value, number): (&mut [u32], u32)| value[0] = next(value[0], number),
        ptx: "kernel step",
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) number: u32 }
            @group(0) @binding(0) var<storage, read_write> value: array<u32>;
            @group(0) @binding(1) var<uniform> arguments: Arguments;
            @compute @workgroup_size(1) fn step() { value[0] = value[0] * 31u + arguments.number; }",
    }
}

fn next(value: u32, number: u32) -> u32 {
    value.wrapping_mul(31).wrapping_add(number)
}

/// Launches without waiting, on two streams that share a buffer; returns the bytes that this took.
fn flood(devices: &Devices) -> usize {
    let (first, second) = (devices.get(0).account("first"), devices.get(0).account("second"));
    let mut value = first.alloc::<u32>(1).expect("memory");
    let most_bytes = most_bytes_during(|| {
        for number in 0..LAUNCHES {
            // Runs of some length, so that one stream is full while the other one waits for it.
            let account = if number / 1000 % 2 == 0 { &first } else { &second };
            drop(account.launch(&STEP, 1, (&mut value, number)).expect("it is taken"));
        }
        let expected = (0..LAUNCHES).fold(0, next);
        assert_eq!(first.download(&value).expect("it is taken").wait().expect("no fault"), [expected]);
    });
    // An operation counts for a moment longer than its waiter needs.
    while devices.pending() > 0 {
        devices.poll();
        std::thread::yield_now();
    }
    most_bytes
}

fn open(spec: &str) -> Result<Devices, DeviceError> {
    Devices::open(&spec.parse().expect("a specification"), HostMode::Inline)
}

#[test]
fn a_flood_of_launches_keeps_its_order_and_ends() {
    let mut specs = vec!["host:inline", "host:workers=1", "host:workers=3", "host:polled"];
    if cfg!(feature = "wgpu") {
        specs.push("wgpu");
    }
    for spec in specs {
        let devices = match open(spec) {
            Ok(devices) => devices,
            Err(error @ DeviceError::NotFound { .. }) => {
                println!("{spec} is skipped: {error}");
                continue;
            }
            Err(error) => panic!("{spec}: {error}"),
        };
        let most_bytes = flood(&devices);
        println!("{spec}: {} bytes a launch", most_bytes / LAUNCHES as usize);
        // What wgpu itself needs is not ours.
        assert!(spec == "wgpu" || most_bytes < BYTES_PER_LAUNCH * LAUNCHES as usize, "{spec}: {most_bytes}");
    }
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    apart::apart("a_flood_of_launches_keeps_its_order_and_ends", &[("STAND_IN_DELAY_US", "0")], || {
        register::register(&STEP);
        let devices = open("cuda:0").expect("the stand-in opens");
        let most_bytes = flood(&devices);
        assert!(most_bytes < BYTES_PER_LAUNCH * LAUNCHES as usize, "cuda: {most_bytes}");
        // A driver blocks whoever gives it more than it has room for.
        let stand_in = cuda_stand_in::StandIn::loaded().expect("the library on the path is the stand-in");
        assert_eq!(stand_in.call_count("full queues"), 0);
        assert!(stand_in.call_count("cuLaunchKernel") >= u64::from(LAUNCHES));
    });
}

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
fn what_the_driver_was_not_given_is_refused_when_the_devices_are_abandoned() {
    let name = "what_the_driver_was_not_given_is_refused_when_the_devices_are_abandoned";
    apart::apart(name, &[], || {
        register::register(&STEP);
        let devices = open("cuda:0").expect("the stand-in opens");
        let account = devices.get(0).account("first");
        let mut value = account.alloc::<u32>(1).expect("memory");
        let mut launch = |number| account.launch(&STEP, 1, (&mut value, number)).expect("it is taken");
        let ends: Vec<_> = (0..2000).map(&mut launch).collect();
        devices.abandon();
        devices.close();
        let ended: Vec<_> = ends.into_iter().map(|end| end.wait()).collect();
        let refused = ended.iter().position(|end| matches!(end, Err(DeviceError::Closed { .. })));
        let refused = refused.expect("not all fit into the stream");
        assert!(refused > 0 && ended[..refused].iter().all(Result::is_ok), "{refused}");
        assert!(ended[refused..].iter().all(|end| matches!(end, Err(DeviceError::Closed { .. }))));
    });
}
