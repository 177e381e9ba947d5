//! The panic hook: silent about kernels, whose panics are faults, and as it was about everything else. In a process of its
//! own, since a process has one hook.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::sync::Mutex;

use chare_device::{DeviceError, Devices, HostMode, InOut, Kernel, Launch};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

const PANIC: Kernel<(InOut<u64>,)> =
    Kernel::new("panic", |_: &Launch, (buffer,): (&mut [u64],)| panic!("no more {}", buffer.len()));

/// A value that no panic should carry.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the destructor of a panic's value");
    }
}

const BOMB: Kernel<(InOut<u64>,)> =
    Kernel::new("bomb", |_: &Launch, _: (&mut [u64],)| std::panic::panic_any(Bomb));

#[test]
fn a_kernels_panic_is_a_fault_and_nothing_else() {
    std::panic::set_hook(Box::new(|info| {
        SEEN.lock().unwrap().push(info.payload_as_str().unwrap_or("?").to_owned());
    }));
    for spec in [
        "host:inline",
        "host:2@2,1:inline",
        "host:workers=1",
        "host:workers=3",
        "host:2@2,1:workers=2",
        "host:polled",
    ] {
        let devices = Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap();
        for device in devices.iter() {
            let account = device.account("silent");
            let mut buffer = account.alloc::<u64>(4).unwrap();
            for (kernel, message) in [(&PANIC, "no more 4"), (&BOMB, "no text")] {
                let mut whole = account.alloc::<u64>(4).unwrap();
                let failed = account.launch(kernel, 4, (&mut whole,)).unwrap().wait();
                let Err(DeviceError::Fault(fault)) = failed else { panic!("{failed:?}") };
                let text = fault.to_string();
                assert!(text.contains(message) && text.contains(&format!(" at {}:", file!())), "{text}");
            }
            account.launch(&PANIC, 4, (&mut buffer,)).unwrap().wait().unwrap_err();
            assert_eq!(SEEN.lock().unwrap().len(), 0, "{spec}: {:?}", SEEN.lock().unwrap());
        }
    }
    std::thread::spawn(|| panic!("a thread of its own")).join().unwrap_err();
    assert_eq!(*SEEN.lock().unwrap(), ["a thread of its own"]);
}
