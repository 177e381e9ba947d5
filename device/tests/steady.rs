//! A steady program needs none of the host's memory: once it has done every kind of operation, doing them again allocates
//! nothing, on any backend.

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "stand_in/apart.rs"]
mod apart;
mod counting;
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "stand_in/kernels.rs"]
mod register;

use chare_device::{
    Account, DeviceVec, Devices, Graph, HostMode, HostVec, In, InOut, Launch, Out, Zeroed, kernel,
};

use counting::{allocations_of_all_threads, allocations_of_this_thread};

const LEN: usize = 100;
const STEPS: u64 = 400;

/// Where threads take part, more may be in flight at once than ever before, and two of them may let go of a buffer at once: so not
/// quite none, but far from one in a step.
const FEW: u64 = STEPS / 10;

kernel! {
    const DOUBLE: fn double(values: InOut<f64>, factor: f64) {
        rust: |_: &Launch, (values, factor): (&mut [f64], f64)| values.iter_mut().for_each(|value| *value *= factor),
        ptx: "kernel double",
    }
}

kernel! {
    const ADD: fn add(a: In<f64>, b: In<f64>, sum: Out<f64>) {
        rust: |_: &Launch, (a, b, sum): (&[f64], &[f64], &mut [f64])| {
            for (sum, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
                *sum = a + b;
            }
        },
        ptx: "kernel add",
    }
}

/// The parameters of the program's graph.
type Half = (In<f64>, InOut<f64>, Zeroed<f64>, f64);

/// A program of two owners, each with a buffer, and a third one that goes from device to device.
struct Program {
    accounts: [Account; 3],
    mover: Account,
    roving: DeviceVec<f64>,
    values: DeviceVec<f64>,
    sum: DeviceVec<f64>,
    host: Option<HostVec<f64>>,
    graph: Graph<Half>,
    /// Of the graph, two of which swap their parts: other memory each time would be other graphs to the driver.
    kept: [DeviceVec<f64>; 3],
}

impl Program {
    fn new(devices: &Devices) -> Self {
        let [first, second] = ["first", "second"].map(|label| devices.get(0).account(label));
        let (values, sum) = (first.alloc(LEN).expect("memory"), second.alloc(LEN).expect("memory"));
        let host = Some(first.host_vec(LEN).expect("memory"));
        let urgent = first.urgent();
        let graph = first.record::<Half>("half", |recording, (from, mut to, mut zeros, factor)| {
            recording.copy(&from, &mut to)?;
            recording.launch(&DOUBLE, LEN as u32, (&mut to, &factor))?;
            recording.launch(&ADD, LEN as u32, (&from, &to, &mut zeros))
        });
        let graph = graph.expect("the kernels are there");
        let kept = [(); 3].map(|()| first.alloc(LEN).expect("memory"));
        let mover = devices.get(0).account("mover");
        let roving = mover.alloc(LEN).expect("memory");
        Program { accounts: [first, second, urgent], mover, roving, values, sum, host, graph, kept }
    }

    /// Every kind of operation, on streams that wait for each other.
    fn step(&mut self, devices: &Devices) {
        let [first, second, urgent] = &self.accounts;
        let mut host = self.host.take().expect("it comes back in every step");
        host.fill(1.0);
        let host = first.write(&mut self.values, host).expect("accepted").wait().expect("no fault");
        // One that is shared is copied before it is written, by an account that others wait for.
        let share = self.values.share();
        drop(urgent.launch(&DOUBLE, LEN as u32, (&mut self.values, 2.0)).expect("accepted"));
        let sent = second.launch(&ADD, LEN as u32, (&share, &self.values, &mut self.sum)).expect("accepted");
        let copy = second.copy(&self.sum).expect("accepted");
        // Its buffer comes over, and what is shared is copied there.
        let next = (self.mover.device().ordinal() + 1) % devices.len();
        self.mover.move_to(devices.get(next)).expect("there is room");
        drop(self.mover.launch(&DOUBLE, LEN as u32, (&mut self.roving, 2.0)).expect("accepted"));
        let moved =
            self.mover.launch(&ADD, LEN as u32, (&share, &share, &mut self.roving)).expect("accepted");
        drop(share);
        let mut scratch = first.alloc::<f64>(LEN).expect("memory");
        let pair = (&copy, &self.values, &mut scratch);
        drop(first.launch(&ADD, LEN as u32, pair).expect("accepted"));
        sent.wait().expect("no fault");
        moved.wait().expect("no fault");
        let host = first.read(&scratch, host).expect("accepted").wait().expect("no fault");
        assert!(host.iter().all(|&value| value == 5.0), "{host:?}");
        let [from, to, zeros] = &mut self.kept;
        let replayed = self.graph.replay((&*from, &mut *to, zeros, 0.5));
        std::mem::swap(from, to);
        drop(replayed.expect("accepted"));
        second.fence().expect("accepted").wait().expect("no fault");
        drop(scratch);
        self.host = Some(host);
    }
}

/// How often `allocations` were counted in steps after many others.
fn allocations_of_steady_steps(spec: &str, allocations: impl Fn() -> u64) -> u64 {
    let devices = Devices::open(&spec.parse().expect("a specification"), HostMode::Inline).expect("devices");
    let mut program = Program::new(&devices);
    (0..STEPS).for_each(|_| program.step(&devices));
    let before = allocations();
    (0..STEPS).for_each(|_| program.step(&devices));
    allocations() - before
}

/// One test, since the allocations of another one's thread would count too.
#[test]
fn a_steady_step_allocates_nothing() {
    for spec in ["host:inline", "host:polled", "host:2:inline", "host:2:polled"] {
        assert_eq!(allocations_of_steady_steps(spec, allocations_of_all_threads), 0, "{spec}");
    }
    for spec in ["host:workers=1", "host:workers=3", "host:2:workers=3"] {
        let count = allocations_of_steady_steps(spec, allocations_of_all_threads);
        assert!(count < FEW, "{spec}: {count}");
    }
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    apart::apart(
        "a_steady_step_allocates_nothing",
        &[("STAND_IN_DELAY_US", "0"), ("STAND_IN_DEVICES", "2")],
        || {
            register::register(&DOUBLE);
            register::register(&ADD);
            // Kernels run on threads of the stand-in's, with memory of the tests'.
            for spec in ["cuda:0", "cuda:0,1"] {
                let count = allocations_of_steady_steps(spec, allocations_of_this_thread);
                assert!(count < FEW, "{spec}: {count}");
            }
        },
    );
}
