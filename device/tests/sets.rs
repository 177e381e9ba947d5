//! Two sets of devices in one process: memory stays with its set. Nothing orders the work of one set after that of
//! another, so whoever passes memory across is told, whatever runs.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::sync::{Condvar, Mutex};

use chare_device::{Account, DeviceError, Devices, Each, HostMode, In, InOut, Kernel, Launch, Maybe, Out};

const COPY: Kernel<(In<u64>, Out<u64>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u64], &mut [u64])| to.copy_from_slice(from));
const ADD: Kernel<(InOut<u64>, u64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [u64], u64)| buffer[0] += value);
type Gather = (Each<Maybe<In<u64>>, 2>, Out<u64>);
const EACH: Kernel<Gather> =
    Kernel::new("each", |_: &Launch, ([a, b], out): ([Option<&[u64]>; 2], &mut [u64])| {
        out[0] = a.into_iter().chain(b).map(|part| part[0]).sum();
    });

const MODES: [&str; 5] =
    ["host:inline", "host:2@1,2:inline", "host:workers=1", "host:2:workers=3", "host:2:polled"];

fn open(spec: &str) -> Devices {
    Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T, DeviceError>) {
    let error = result.err().expect("memory of another set is refused");
    assert!(matches!(error, DeviceError::OtherDevices { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "a buffer of mine on host:0 was used by theirs, whose devices are others (another run's); download it with its \
         own, and upload the values here"
    );
}

/// Passes a buffer of `mine` to every call of `theirs` that takes one.
fn cross(mine: &Account, theirs: &Account, also: impl FnOnce()) {
    let mut foreign = mine.upload(vec![5u64]).unwrap();
    mine.launch(&ADD, 1, (&mut foreign, 1)).unwrap();
    let share = foreign.share();
    let mut own = theirs.upload(vec![7u64]).unwrap();
    refused(theirs.import(&share));
    refused(theirs.copy(&share));
    refused(theirs.copy(&foreign));
    refused(theirs.download(&share));
    refused(theirs.download(&foreign));
    refused(theirs.to_array(&foreign, [1]));
    refused(theirs.launch(&COPY, 1, (&share, &mut own)));
    refused(theirs.launch(&COPY, 1, (&foreign, &mut own)));
    refused(theirs.launch(&COPY, 1, (&own.share(), &mut foreign)));
    refused(theirs.launch(&ADD, 1, (&mut foreign, 1)));
    let own_share = own.share();
    refused(theirs.launch(&EACH, 1, ([Some(&own_share), Some(&share)], &mut own)));
    also();
    assert_eq!(mine.download(&share).unwrap().wait().unwrap(), [6]);
    mine.launch(&ADD, 1, (&mut foreign, 1)).unwrap();
    assert_eq!(mine.download(&foreign).unwrap().wait().unwrap(), [7]);
    // As it says.
    let brought = theirs.upload(mine.download(&foreign).unwrap().wait().unwrap()).unwrap();
    assert_eq!(theirs.download(&brought).unwrap().wait().unwrap(), [7]);
    assert_eq!(theirs.download(&own).unwrap().wait().unwrap(), [7], "nothing has been done");
}

#[test]
fn memory_of_another_set_is_refused_everywhere() {
    for (first, second) in MODES.iter().flat_map(|first| MODES.map(|second| (first, second))) {
        let (a, b) = (open(first), open(second));
        for device in b.iter() {
            cross(&a.get(0).account("mine"), &device.account("theirs"), || ());
        }
    }
}

#[test]
fn a_kernel_of_another_set_that_still_runs_is_not_read_from() {
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    const GATED: Kernel<(InOut<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| {
        drop(GATE.1.wait_while(GATE.0.lock().unwrap(), |open| !*open).unwrap());
    });
    let set = |open| {
        *GATE.0.lock().unwrap() = open;
        GATE.1.notify_all();
    };
    struct Opens<F: Fn(bool)>(F);
    impl<F: Fn(bool)> Drop for Opens<F> {
        fn drop(&mut self) {
            (self.0)(true);
        }
    }
    for second in MODES {
        let (a, b) = (open("host:workers=2"), open(second));
        // Else a failure here would wait for the kernel.
        let _opens = Opens(set);
        let (mine, theirs) = (a.get(0).account("mine"), b.get(0).account("theirs"));
        set(false);
        let mut held = mine.alloc::<u64>(1).unwrap();
        let running = mine.launch(&GATED, 1, (&mut held,)).unwrap();
        // The other set numbers its operations as this one does: those that have not finished must not be taken for
        // these.
        let mut own = theirs.alloc::<u64>(1).unwrap();
        (0..20).for_each(|_| drop(theirs.launch(&ADD, 1, (&mut own, 1)).unwrap()));
        cross(&mine, &theirs, || {
            refused(theirs.import(&held.share()));
            assert!(!running.is_ready());
            set(true);
        });
        running.wait().unwrap();
    }
}
