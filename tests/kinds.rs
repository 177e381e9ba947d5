//! Chares on devices of every kind: how memory gets from one device to another, what becomes of device work when its chare moves or dies,
//! and what each fault looks like to who wrote the program. On virtual devices of the host; on CUDA with a stand-in for its driver, each case in a process of its own; in builds with the
//! feature, on adapters of wgpu.
//!
//! | fault | host | cuda | wgpu |
//! |---|---|---|---|
//! | a kernel fails | a fault of its own | ends its device, and fails all who wait there | cannot (an index is cut off) |
//! | a kernel does not compile | cannot | error of the launch, with line and caret | fault, with line and caret |
//! | out of memory | says which chares hold how much | the same | the same |
//! | a device is lost | cannot | fails all who wait there | in `device/src/wgpu/tests.rs` |

#![cfg(target_os = "linux")]

#[path = "../device/tests/stand_in/apart.rs"]
mod apart;
#[path = "../device/tests/stand_in/kernels.rs"]
mod kernels;

use chare::device::{Copies, DeviceError, DeviceSlice, DeviceVec, Fault, In, InOut, Kernel, Launch, Out};
use chare::prelude::*;
use chare::{ExitReport, Options};
use cuda_stand_in::StandIn;

use apart::apart;
use kernels::register;

const ADD: Kernel<(InOut<u32>, u32)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [u32], u32)| {
        buffer.iter_mut().for_each(|x| *x += value);
    })
    .with_ptx("kernel add")
    .with_wgsl(
        "struct Arguments { grid: vec3<u32>, present: u32, @align(16) value: u32 }
        @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
        @group(0) @binding(1) var<uniform> arguments: Arguments;
        @compute @workgroup_size(64) fn add(@builtin(global_invocation_id) at: vec3<u32>) {
            if at.x < arrayLength(&buffer) { buffer[at.x] += arguments.value; }
        }",
    );
const COPY: Kernel<(In<u32>, Out<u32>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u32], &mut [u32])| to.copy_from_slice(from))
        .with_ptx("kernel copy")
        .with_wgsl(
            "@group(0) @binding(0) var<storage, read> source: array<u32>;
            @group(0) @binding(1) var<storage, read_write> out: array<u32>;
            @compute @workgroup_size(64) fn copy(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arrayLength(&out) { out[at.x] = source[at.x]; }
            }",
        );
const ASTRAY: Kernel<(InOut<u32>,)> =
    Kernel::new("astray", |_: &Launch, (buffer,): (&mut [u32],)| buffer[0] = buffer[buffer.len()])
        .with_ptx("kernel astray");
/// Wrong in each language but Rust.
const WRONG: Kernel<(InOut<u32>,)> = Kernel::new("wrong", |_: &Launch, _: (&mut [u32],)| ())
    .with_cuda("KERNEL wrong(InOut<u32> values, Grid grid) {\n    values[0] = sum;\n}")
    .with_wgsl(
        "@group(0) @binding(0) var<storage, read_write> values: array<u32>;\n@compute @workgroup_size(1) fn wrong() {\n    values[0] = sum;\n}",
    );

/// Owns a buffer on the device of its PE.
struct Owner {
    values: DeviceVec<u32>,
    taken: DeviceVec<u32>,
    held: Vec<DeviceVec<u8>>,
}

#[chare(index = usize)]
impl Owner {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        let dev = cx.device();
        Ok(Owner { values: dev.alloc(64)?, taken: dev.alloc(64)?, held: Vec::new() })
    }

    /// Each round adds to what the other has had before. What was copied meanwhile.
    #[entry]
    async fn swap(&mut self, cx: &Cx<Self>, with: Element<Owner>, rounds: usize) -> Result<Copies> {
        let (dev, channel) = (cx.device(), cx.channel::<DeviceSlice<u32>, _>(&with, 0));
        for _ in 0..rounds {
            dev.launch(&ADD, 64, (&mut self.values, 1 + cx.index() as u32))?;
            channel.send(self.values.share())?;
            dev.launch(&COPY, 64, (&channel.recv().await?, &mut self.taken))?.await?;
            std::mem::swap(&mut self.values, &mut self.taken);
        }
        Ok(dev.device().copies())
    }

    /// Adds 1 and says what is there.
    #[entry]
    async fn work(&mut self, cx: &Cx<Self>) -> Result<u32> {
        let dev = cx.device();
        dev.launch(&ADD, 64, (&mut self.values, 1))?;
        Ok(dev.download(&self.values)?.await?[0])
    }

    /// As `swap`, where what is received is copied into a buffer that is there. The bytes on its device.
    #[entry]
    async fn take_in(&mut self, cx: &Cx<Self>, from: Element<Owner>, rounds: usize) -> Result<u64> {
        let (dev, channel) = (cx.device(), cx.channel::<DeviceSlice<u32>, _>(&from, 0));
        for _ in 0..rounds {
            dev.launch(&ADD, 64, (&mut self.values, 1))?;
            channel.send(self.values.share())?;
            dev.copy_into(&channel.recv().await?, &mut self.taken)?.await?;
        }
        Ok(dev.device().used_bytes())
    }

    /// Adds 1 a round, and moves to the other PE while that is under way; what was shared meanwhile goes to `with`. What is
    /// there in the end, where, and what was copied by way of the host.
    #[entry]
    async fn wander(
        &mut self,
        cx: &Cx<Self>,
        with: Element<Owner>,
        rounds: usize,
    ) -> Result<(u32, usize, u64)> {
        let (dev, channel) = (cx.device(), cx.channel::<DeviceSlice<u32>, _>(&with, 1));
        for _ in 0..rounds {
            for _ in 0..20 {
                dev.launch(&ADD, 64, (&mut self.values, 1))?;
            }
            channel.send(self.values.share())?;
            cx.this().migrate(1 - cx.my_pe().index()).await?;
        }
        let ordinal = dev.device().ordinal();
        let from_host = dev.device().copies().from_host;
        Ok((dev.download(&self.values)?.await?[0], ordinal, from_host))
    }

    /// What came from a chare that wanders.
    #[entry]
    async fn follow(&mut self, cx: &Cx<Self>, from: Element<Owner>, rounds: usize) -> Result<Vec<u32>> {
        let (dev, channel) = (cx.device(), cx.channel::<DeviceSlice<u32>, _>(&from, 1));
        let mut seen = Vec::new();
        for _ in 0..rounds {
            dev.launch(&COPY, 64, (&channel.recv().await?, &mut self.taken))?;
            seen.push(dev.download(&self.taken)?.await?[63]);
        }
        Ok(seen)
    }

    /// Launches much, sends what comes of it, goes to the other PE if it is to, and is destroyed.
    #[entry]
    async fn work_and_end(this: This<Self>, to: Element<Owner>, moves: bool) -> Result<()> {
        let (dev, channel) = (this.device(), this.channel::<DeviceSlice<u32>, _>(&to, 1));
        let share = this.with(|owner| {
            for _ in 0..50 {
                drop(dev.launch(&ADD, 64, (&mut owner.values, 1))?);
            }
            Ok::<_, DeviceError>(owner.values.share())
        })?;
        channel.send(share)?;
        if moves {
            this.this().migrate(1 - this.my_pe().index()).await?;
        }
        this.with(|owner| {
            drop(dev.launch(&ADD, 64, (&mut owner.values, 1))?);
            drop(dev.launch(&COPY, 64, (&owner.values, &mut owner.taken))?);
            Ok::<_, DeviceError>(())
        })?;
        this.this().destroy().send();
        Ok(())
    }

    /// The bytes in use on its device, when what has been launched there has ended.
    #[entry]
    fn used_bytes(&self, cx: &Cx<Self>) -> u64 {
        cx.device().device().used_bytes()
    }

    #[entry]
    async fn stray(&mut self, cx: &Cx<Self>) -> Result<()> {
        Ok(cx.device().launch(&ASTRAY, 64, (&mut self.taken,))?.await?)
    }

    #[entry]
    fn stray_unawaited(&mut self, cx: &Cx<Self>) -> Result<()> {
        drop(cx.device().launch(&ASTRAY, 64, (&mut self.taken,))?);
        Ok(())
    }

    #[entry]
    async fn miscompile(&mut self, cx: &Cx<Self>) -> Result<()> {
        Ok(cx.device().launch(&WRONG, 64, (&mut self.taken,))?.await?)
    }

    #[entry]
    fn take(&mut self, cx: &Cx<Self>, kib: usize) -> Result<()> {
        self.held.push(cx.device().alloc(kib << 10)?);
        Ok(())
    }

    #[entry]
    async fn drop_all(&mut self, cx: &Cx<Self>) -> Result<()> {
        // Memory is back when what was done with it has ended.
        cx.device().fence()?.await?;
        self.held.clear();
        Ok(())
    }
}

/// Runs a program on two PEs, each with a device of its own if there are two.
fn run<Fut>(device: &str, main: impl FnOnce(Runtime) -> Fut) -> ExitReport
where
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let options = Options::default().with_pes(2).with_device(device.parse().expect("a device"));
    Runtime::run(options, main).expect("there is such a device")
}

/// Runs a program that ends well on virtual devices of each kind.
fn on_host<Fut>(options: &str, main: impl Fn(Runtime) -> Fut)
where
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    for mode in ["inline", "workers=2", "polled"] {
        let report = run(&format!("host:2{options}:{mode}"), &main);
        assert!(report.is_success(), "{mode}: {report}");
    }
}

/// Runs a program that ends well on two devices of CUDA's stand-in. `name` is that of the test.
fn on_cuda<Fut>(name: &str, options: &str, main: impl FnOnce(Runtime) -> Fut)
where
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    apart(name, &[("STAND_IN_DEVICES", "2")], || {
        register_all();
        let report = run(&format!("cuda{options}"), main);
        assert!(report.is_success(), "{report}");
    });
}

/// Tells the stand-in what the kernels do.
fn register_all() {
    register(&ADD);
    register(&COPY);
    register(&ASTRAY);
}

/// Runs a program that ends well on two devices of one adapter, if there is one; with `:apart` as if they were of two.
#[cfg(feature = "wgpu")]
fn on_wgpu<Fut>(options: &str, main: impl FnOnce(Runtime) -> Fut)
where
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let spec = format!("wgpu:0x2{options}");
    match chare::device::Devices::open(&spec.parse().expect("a device"), chare::device::HostMode::Inline) {
        Ok(devices) => drop(devices),
        Err(error) => {
            let required = std::env::var("REQUIRE_DEVICE").is_ok_and(|kinds| kinds.contains("wgpu"));
            assert!(!required, "REQUIRE_DEVICE wants wgpu, and there is {error}");
            return eprintln!("skipped: {error}");
        }
    }
    let report = run(&spec, main);
    assert!(report.is_success(), "{report}");
}

/// What a call has failed with, by its text and its device error.
fn device_error<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> (String, DeviceError) {
    let error = outcome.expect_err("it fails");
    let inner = error.downcast_ref::<DeviceError>();
    (error.to_string(), inner.unwrap_or_else(|| panic!("no error of a device: {error}")).clone())
}

fn fault_of<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> Fault {
    match device_error(outcome) {
        (_, DeviceError::Fault(fault)) => fault,
        (text, _) => panic!("a fault was expected: {text}"),
    }
}

async fn exchange(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(2).create(()).await?;
    let swap = |index: usize| owners.at(index).swap(owners.at(1 - index), 9).future();
    for copies in [swap(0), swap(1)] {
        let Copies { from_host, to_host, from_peers, staged, .. } = copies.await?;
        assert_eq!((from_host, to_host, from_peers, staged), (0, 0, 9, 0));
    }
    // Both values have visited both, in turns, and end with the other after an odd number of rounds.
    assert_eq!((owners.at(0).work().await?, owners.at(1).work().await?), (15, 14));
    Ok(())
}

#[test]
fn memory_goes_between_chares_past_the_host() {
    on_host("", exchange);
}

#[test]
fn memory_goes_between_chares_past_the_host_on_cuda() {
    on_cuda("memory_goes_between_chares_past_the_host_on_cuda", "", exchange);
}

#[cfg(feature = "wgpu")]
#[test]
fn memory_goes_between_chares_past_the_host_on_wgpu() {
    on_wgpu("", exchange);
}

async fn exchange_in_place(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(2).create(()).await?;
    let take = |index: usize| owners.at(index).take_in(owners.at(1 - index), 9).future();
    for bytes in [take(0), take(1)] {
        assert!(bytes.await? <= 3 * 256, "a buffer more than there is, while its share lives elsewhere");
    }
    assert_eq!((owners.at(0).work().await?, owners.at(1).work().await?), (10, 10));
    Ok(())
}

#[test]
fn what_is_received_goes_into_a_buffer_that_is_there() {
    on_host("", exchange_in_place);
}

#[test]
fn what_is_received_goes_into_a_buffer_that_is_there_on_cuda() {
    on_cuda("what_is_received_goes_into_a_buffer_that_is_there_on_cuda", "", exchange_in_place);
}

#[cfg(feature = "wgpu")]
#[test]
fn what_is_received_goes_into_a_buffer_that_is_there_on_wgpu() {
    on_wgpu("", exchange_in_place);
}

async fn wander(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(2).create(()).await?;
    let rounds = 9;
    let followed = owners.at(1).follow(owners.at(0), rounds).future();
    let (last, ordinal, from_host) = owners.at(0).wander(owners.at(1), rounds).await?;
    assert_eq!((last, ordinal, from_host), (180, 1, 0));
    assert_eq!(followed.await?, (1..=9).map(|round| 20 * round).collect::<Vec<u32>>());
    // The buffer comes over when it is written next; one that was never used elsewhere stays where it was.
    for (value, bytes) in [(181, 3 * 256), (182, 3 * 256)] {
        assert_eq!(owners.at(0).work().await?, value);
        rt.quiescence().await?;
        assert_eq!(owners.at(1).used_bytes().await?, bytes);
    }
    Ok(())
}

#[test]
fn a_chare_moves_to_another_device_while_it_works() {
    on_host("", wander);
}

#[test]
fn a_chare_moves_to_another_device_while_it_works_on_cuda() {
    on_cuda("a_chare_moves_to_another_device_while_it_works_on_cuda", "", wander);
}

#[cfg(feature = "wgpu")]
#[test]
fn a_chare_moves_to_another_device_while_it_works_on_wgpu() {
    on_wgpu("", wander);
    on_wgpu(":apart", wander);
}

async fn end_while_working(rt: Runtime) -> Result<()> {
    let heirs = rt.array::<Owner>(2).create(()).await?;
    for moves in [false, true] {
        let owners = rt.array::<Owner>(2).create(()).await?;
        for index in 0..2 {
            let seen = heirs.at(index).follow(owners.at(index), 1).future();
            owners.at(index).work_and_end(heirs.at(index), moves).await?;
            assert_eq!(seen.await?, [50]);
        }
        rt.quiescence().await?;
        // What the dead have had is free again, and nobody else minds.
        assert_eq!(heirs.used_bytes().gather().await?, [2 * 256; 2]);
    }
    assert_eq!(heirs.work().gather().await?, [1, 1]);
    Ok(())
}

#[test]
fn a_chare_dies_while_its_device_works() {
    on_host("", end_while_working);
}

#[test]
fn a_chare_dies_while_its_device_works_on_cuda() {
    on_cuda("a_chare_dies_while_its_device_works_on_cuda", "", end_while_working);
}

#[cfg(feature = "wgpu")]
#[test]
fn a_chare_dies_while_its_device_works_on_wgpu() {
    on_wgpu("", end_while_working);
    on_wgpu(":apart", end_while_working);
}

#[test]
fn a_kernel_that_fails_fails_its_chare() {
    on_host("", async |rt: Runtime| {
        let owners = rt.array::<Owner>(4).create(()).await?;
        let fault = fault_of(owners.at(1).stray().await);
        assert_eq!((fault.kernel, &*fault.device, &*fault.owner), ("astray", "host:0", "Owner[1]"));
        assert!(fault.message.contains("the len is 64 but the index is 64"), "{fault}");
        assert!(fault.location.is_some_and(|place| place.contains("kinds.rs:")));
        // Nobody else minds, nor does the chare itself.
        assert_eq!(owners.work().gather().await?, [1; 4]);
        Ok(())
    });
}

#[test]
fn a_kernel_that_fails_on_cuda_ends_its_device_and_no_other() {
    on_cuda("a_kernel_that_fails_on_cuda_ends_its_device_and_no_other", "", async |rt: Runtime| {
        let owners = rt.array::<Owner>(4).create(()).await?;
        assert_eq!(owners.work().gather().await?, [1; 4]);
        let fault = fault_of(owners.at(1).stray().await);
        assert_eq!(
            fault.to_string(),
            "kernel `astray` of Owner[1] failed on cuda:0: CUDA_ERROR_ASSERT (device-side assert triggered); the device cannot be used again \
             by this process"
        );
        // A sticky error is everybody's who uses this context: each is told of the kernel that did it.
        for index in [0, 1] {
            assert_eq!(fault_of(owners.at(index).work().await), fault, "Owner[{index}]");
        }
        let (text, error) = device_error(owners.at(0).take(1).await);
        assert!(matches!(error, DeviceError::Lost { .. }) && text.contains("kernel `astray`"), "{text}");
        // Who is on the other device goes on, and gets no memory from this one.
        assert_eq!((owners.at(2).work().await?, owners.at(3).work().await?), (2, 2));
        Ok(())
    });
}

#[test]
fn a_fault_that_nobody_awaited_on_cuda_ends_the_program() {
    apart("a_fault_that_nobody_awaited_on_cuda_ends_the_program", &[], || {
        register_all();
        let report = run("cuda", async |rt: Runtime| {
            let owners = rt.array::<Owner>(2).create(()).await?;
            // What is in flight beside it could be what has failed, as far as the driver says.
            owners.work().gather().await?;
            owners.at(1).stray_unawaited().await?;
            rt.quiescence().await?;
            panic!("the program goes on");
            #[allow(unreachable_code)]
            Ok(())
        });
        let text = report.to_string();
        assert_eq!(report.code(), 1, "{text}");
        assert!(text.contains("kernel `astray` of Owner[1] failed on cuda:1: CUDA_ERROR_ASSERT"), "{text}");
        assert!(text.contains("nobody awaited it"), "{text}");
    });
}

/// Fills a device of 64 KiB, of which the buffers of two chares take 1 KiB.
async fn fill_up(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(4).create(()).await?;
    owners.at(0).take(8).await?;
    owners.at(1).take(40).await?;
    let (text, error) = device_error(owners.at(0).take(16).await);
    let DeviceError::OutOfMemory(full) = error else { panic!("{text}") };
    assert_eq!((full.requested_bytes, full.used_bytes, full.capacity_bytes), (16 << 10, 49 << 10, 64 << 10));
    let holders = full.owners.iter().map(|(owner, bytes)| (&**owner, *bytes)).collect::<Vec<_>>();
    assert_eq!(holders, [("Owner[1]", (40 << 10) + 512), ("Owner[0]", (8 << 10) + 512)]);
    let wanted = "is out of memory: Owner[0] asked for 16384 bytes, 50176 of 65536 are in use; held by Owner[1]: 41472, Owner[0]: 8704;";
    assert!(text.contains(wanted), "{text}");
    // Nothing has changed, another device has its own, and what is given back is there again.
    assert_eq!(owners.at(0).work().await?, 1);
    owners.at(3).take(40).await?;
    owners.at(1).drop_all().await?;
    owners.at(0).take(16).await?;
    Ok(())
}

#[test]
fn out_of_memory_names_the_chares_that_hold_it() {
    on_host(":mem=64KiB", fill_up);
}

#[test]
fn out_of_memory_names_the_chares_that_hold_it_on_cuda() {
    on_cuda("out_of_memory_names_the_chares_that_hold_it_on_cuda", ":mem=64KiB", fill_up);
}

#[cfg(feature = "wgpu")]
#[test]
fn out_of_memory_names_the_chares_that_hold_it_on_wgpu() {
    on_wgpu(":mem=64KiB", fill_up);
}

#[test]
fn a_lost_device_fails_its_waiters_on_cuda() {
    on_cuda("a_lost_device_fails_its_waiters_on_cuda", "", async |rt: Runtime| {
        let owners = rt.array::<Owner>(4).create(()).await?;
        assert_eq!(owners.work().gather().await?, [1; 4]);
        let stand_in = StandIn::loaded().expect("the library on the path is the stand-in");
        stand_in.fail_device(1, 999);
        let fault = fault_of(owners.at(2).work().await);
        assert!(&*fault.device == "cuda:1" && fault.message.contains("CUDA_ERROR_UNKNOWN"), "{fault}");
        assert_eq!(fault_of(owners.at(3).work().await), fault);
        let (text, error) = device_error(owners.at(3).take(1).await);
        assert!(matches!(error, DeviceError::Lost { .. }) && text.contains("cuda:1"), "{text}");
        assert_eq!((owners.at(0).work().await?, owners.at(1).work().await?), (2, 2));
        // Who wants memory of the lost device learns why it gets none, and who is there gets none from elsewhere.
        let swap = |index: usize| owners.at(index).swap(owners.at(2 - index), 1).future();
        let (near, far) = (swap(0), swap(2));
        assert_eq!(fault_of(near.await), fault);
        let (text, error) = device_error(far.await);
        assert!(matches!(error, DeviceError::Lost { .. } | DeviceError::Fault(_)), "{text}");
        assert!(text.contains("CUDA_ERROR_UNKNOWN"), "{text}");
        Ok(())
    });
}

#[test]
fn a_kernel_that_does_not_compile_is_shown_on_cuda() {
    on_cuda("a_kernel_that_does_not_compile_is_shown_on_cuda", "", async |rt: Runtime| {
        let owners = rt.array::<Owner>(1).create(()).await?;
        let (text, error) = device_error(owners.at(0).miscompile().await);
        assert!(matches!(error, DeviceError::Kernel { .. }), "{text}");
        let has_nvrtc = !text.contains("there is no NVRTC");
        assert!(has_nvrtc || std::env::var_os("REQUIRE_NVRTC").is_none(), "{text}");
        if has_nvrtc {
            assert!(text.contains("kernel `wrong` does not compile for sm_90:"), "{text}");
            assert!(text.contains("wrong.cu(2): error: identifier \"sum\" is undefined"), "{text}");
            assert!(text.contains("values[0] = sum;\n") && text.contains('^'), "{text}");
        }
        // Nothing was enqueued.
        assert_eq!(owners.at(0).work().await?, 1);
        Ok(())
    });
}

#[cfg(feature = "wgpu")]
#[test]
fn a_kernel_that_does_not_compile_is_shown_on_wgpu() {
    on_wgpu("", async |rt: Runtime| {
        let owners = rt.array::<Owner>(1).create(()).await?;
        let fault = fault_of(owners.at(0).miscompile().await);
        assert_eq!((fault.kernel, &*fault.owner), ("wrong", "Owner[0]"));
        assert!(fault.message.contains(":3:") && fault.message.contains("values[0] = sum;"), "{fault}");
        assert!(fault.message.contains('^'), "{fault}");
        assert_eq!(owners.at(0).work().await?, 1);
        Ok(())
    });
}
