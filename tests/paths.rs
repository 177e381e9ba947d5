//! Device memory between processes, by each path: the same results, and memory comes back. Over MPI, and on a stand-in for CUDA's driver, whose
//! processes open each other's memory for real: this binary starts itself under `mpirun`, and is one of the programs below then.

#![cfg(target_os = "linux")]

#[path = "../device/tests/stand_in/kernels.rs"]
mod kernels;
mod launcher;
mod mixed;
mod spoiled;

use std::env;
use std::process::{ExitCode, Output, Stdio};
use std::sync::Once;

use chare::device::{Account, DeviceSlice, DeviceVec, In, InOut, Kernel, Launch, Out};
use chare::prelude::*;
use chare::{Info, Options};
use cuda_stand_in::StandIn;
use serde::{Deserialize, Serialize};

use libtest_mimic::{Arguments, Failed, Trial};

use kernels::register;

/// Set in the processes of a job: by which path device memory is to go.
const PATH: &str = "CHARE_DEVICE_PATH";

const LEN: u32 = 1000;
/// What goes by itself of what is staged, and how many of these may be out at a time.
const PIECE: usize = 512 << 10;
const WINDOW: u64 = 8;
const LONG: usize = 20 * PIECE + 1;
const ADD: Kernel<(InOut<u32>, u32)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [u32], u32)| {
        buffer.iter_mut().for_each(|x| *x += value);
    })
    .with_ptx("kernel add");
const FILL: Kernel<(Out<u32>, u32)> =
    Kernel::new("fill", |_: &Launch, (buffer, value): (&mut [u32], u32)| buffer.fill(value))
        .with_ptx("kernel fill");
const COPY: Kernel<(In<u32>, Out<u32>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u32], &mut [u32])| to.copy_from_slice(from))
        .with_ptx("kernel copy");
const ASTRAY: Kernel<(InOut<u32>,)> =
    Kernel::new("astray", |_: &Launch, (buffer,): (&mut [u32],)| buffer[0] = buffer[buffer.len()])
        .with_ptx("kernel astray");

/// Tells the stand-in what the kernels do, in each process.
fn register_all() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        register(&ADD);
        register(&FILL);
        register(&COPY);
        register(&ASTRAY);
    });
}

fn calls(name: &str) -> u64 {
    StandIn::loaded().expect("the library on the path is the stand-in").call_count(name)
}

/// What a share holds, as a kernel on the device of this account sees it.
async fn seen(dev: &Account, share: &DeviceSlice<u32>) -> Result<Vec<u32>> {
    let mut copy = dev.alloc(share.shape())?;
    dev.launch(&COPY, share.len() as u32, (share, &mut copy))?;
    Ok(dev.download(&copy)?.await?)
}

/// One on each PE.
struct Holder {
    buffer: DeviceVec<u32>,
    kept: Vec<DeviceSlice<u32>>,
}

#[chare]
impl Holder {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        register_all();
        Ok(Holder { buffer: cx.device().upload(values_of(cx.my_pe().index()))?, kept: Vec::new() })
    }

    #[entry]
    fn share(&self) -> DeviceSlice<u32> {
        self.buffer.share()
    }

    #[entry]
    async fn see(this: This<Self>, share: DeviceSlice<u32>) -> Result<Vec<u32>> {
        seen(&this.device(), &share).await
    }

    /// Reads it by the host, and in all other ways.
    #[entry]
    async fn read(this: This<Self>, share: DeviceSlice<u32>) -> Result<(Vec<u32>, Vec<usize>)> {
        let dev = this.device();
        let host = dev.read(&share, dev.host_vec(share.len())?)?.await?;
        let values = dev.download(&share)?.await?;
        assert_eq!(*host, values);
        let (copy, mut place) = (dev.copy(&share)?, dev.alloc(share.len())?);
        dev.copy_into(&share, &mut place)?;
        let import = dev.import(&share)?;
        for same in [dev.download(&copy)?, dev.download(&place)?, dev.download(&import)?] {
            assert_eq!(same.await?, values);
        }
        Ok((values, share.shape().extents().to_vec()))
    }

    /// Passes it on, as it came.
    #[entry]
    async fn relay(_this: This<Self>, share: DeviceSlice<u32>, to: Element<Holder>) -> Result<Vec<u32>> {
        Ok(to.see(share).await?)
    }

    #[entry]
    fn share_grid(&self, cx: &Cx<Self>) -> Result<DeviceSlice<u32>> {
        let mut grid = cx.device().alloc([2, 3, 4])?;
        cx.device().launch(&FILL, 24, (&mut grid, 5))?;
        Ok(grid.share())
    }

    /// Changes the buffer as soon as a share of it has been sent.
    #[entry]
    async fn send_and_overwrite(&mut self, cx: &Cx<Self>, to: Element<Holder>) -> Result<Vec<u32>> {
        let dev = cx.device();
        dev.launch(&FILL, LEN, (&mut self.buffer, 1))?;
        let call = to.see(self.buffer.share()).future();
        dev.launch(&ADD, LEN, (&mut self.buffer, 1))?;
        dev.launch(&FILL, LEN, (&mut self.buffer, 3))?;
        Ok(call.await?)
    }

    /// Takes a buffer for its own, changes it, and gives away the one that it had.
    #[entry]
    fn adopt(&mut self, cx: &Cx<Self>, mut buffer: DeviceVec<u32>) -> Result<DeviceVec<u32>> {
        cx.device().launch(&ADD, LEN, (&mut buffer, 7))?;
        Ok(std::mem::replace(&mut self.buffer, buffer))
    }

    /// Sends its buffer to be adopted while a share of it stays here: what both hold, and what came back.
    #[entry]
    async fn give_away(&mut self, cx: &Cx<Self>, to: Element<Holder>) -> Result<[Vec<u32>; 3]> {
        let dev = cx.device();
        let kept = self.buffer.share();
        let own = std::mem::replace(&mut self.buffer, dev.alloc(1)?);
        self.buffer = to.adopt(own).await?;
        dev.launch(&ADD, LEN, (&mut self.buffer, 1))?;
        let there = to.share().await?;
        let back = dev.download(&self.buffer)?.await?;
        Ok([dev.download(&kept)?.await?, seen(&dev, &there).await?, back])
    }

    /// Sends shares of buffers that are gone then.
    #[entry]
    fn send_many(&mut self, cx: &Cx<Self>, to: Element<Holder>, count: u32) -> Result<()> {
        for number in 0..count {
            let mut buffer = cx.device().alloc(LEN as usize)?;
            cx.device().launch(&FILL, LEN, (&mut buffer, number))?;
            to.take(buffer.share(), number).send();
        }
        Ok(())
    }

    /// Drops one in three unread, keeps one in three, and reads the others.
    #[entry]
    async fn take(this: This<Self>, share: DeviceSlice<u32>, number: u32) -> Result<()> {
        match number % 3 {
            0 => drop(share),
            1 => this.with(|holder| holder.kept.push(share)),
            _ => assert_eq!(seen(&this.device(), &share).await?, vec![number; LEN as usize]),
        }
        Ok(())
    }

    /// How many are kept, which are looked at and dropped.
    #[entry]
    async fn drop_kept(&mut self, cx: &Cx<Self>) -> Result<usize> {
        let kept = std::mem::take(&mut self.kept);
        for share in &kept {
            let values = seen(&cx.device(), share).await?;
            assert!(values[0] % 3 == 1 && values.iter().all(|value| *value == values[0]));
        }
        Ok(kept.len())
    }

    /// The bytes in use on all devices of this process.
    #[entry]
    async fn used_bytes(&mut self, cx: &Cx<Self>) -> Result<u64> {
        cx.device().fence()?.await?;
        Ok(cx.device().device().used_bytes())
    }

    /// How often this process has copied to the host, and opened memory of another one.
    #[entry]
    fn counts(&self, cx: &Cx<Self>) -> (u64, u64) {
        (cx.device().device().copies().to_host, calls("cuIpcOpenMemHandle_v2"))
    }

    #[entry]
    fn make(&self, cx: &Cx<Self>, len: usize, seed: usize) -> Result<DeviceSlice<u8>> {
        Ok(cx.device().upload(bytes(len, seed))?.share())
    }

    /// Whether a share is as it was made.
    #[entry]
    async fn is_whole(this: This<Self>, share: DeviceSlice<u8>, seed: usize) -> Result<bool> {
        let copy = this.device().copy(&share)?;
        Ok(this.device().download(&copy)?.await? == bytes(share.len(), seed))
    }

    /// Sends long shares, which all go at once, and waits until all have been looked at.
    #[entry]
    async fn send_long(this: This<Self>, to: Element<Holder>, count: usize) -> Result<bool> {
        let dev = this.device();
        let send = |seed| Ok(to.is_whole(dev.upload(bytes(LONG, seed))?.share(), seed).future());
        let mut are_whole = true;
        for whole in (0..count).map(send).collect::<Result<Vec<_>>>()? {
            are_whole &= whole.await?;
        }
        Ok(are_whole)
    }

    #[entry]
    fn drop_unread(&self, share: DeviceSlice<u8>) -> usize {
        share.len()
    }

    /// How often this process has asked for pinned memory.
    #[entry]
    fn pinned(&self) -> u64 {
        calls("cuMemHostAlloc")
    }

    /// Sends nothing meanwhile.
    #[entry]
    fn go_astray(&mut self, cx: &Cx<Self>) -> Result<()> {
        cx.device().launch(&ASTRAY, 1, (&mut self.buffer,))?.wait().expect_err("it goes astray");
        Ok(())
    }

    #[entry]
    async fn send_spoiled(&mut self, cx: &Cx<Self>, to: Element<Holder>) -> Result<String> {
        let dev = cx.device();
        let mut spoiled = dev.alloc(LEN as usize)?;
        dev.launch(&ASTRAY, 1, (&mut spoiled,))?.await.expect_err("it goes astray");
        Ok(to.see(spoiled.share()).await.expect_err("it is spoiled").to_string())
    }
}

/// Moves with its buffers.
#[derive(Serialize, Deserialize)]
struct Field {
    now: DeviceVec<u32>,
    next: DeviceVec<u32>,
}

#[chare(index = usize)]
impl Field {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        register_all();
        let dev = cx.device();
        Ok(Field { now: dev.upload(values_of(cx.index()))?, next: dev.alloc([10, 100])? })
    }

    #[entry]
    fn step(&mut self, cx: &Cx<Self>) -> Result<()> {
        let dev = cx.device();
        dev.launch(&COPY, LEN, (&self.now, &mut self.next))?;
        dev.launch(&ADD, LEN, (&mut self.next, 1))?;
        std::mem::swap(&mut self.now, &mut self.next);
        Ok(())
    }

    #[entry]
    async fn look(&mut self, cx: &Cx<Self>) -> Result<(usize, Vec<u32>)> {
        Ok((cx.my_pe().index(), cx.device().download(&self.now)?.await?))
    }
}

fn values_of(pe: usize) -> Vec<u32> {
    (0..LEN).map(|i| LEN * pe as u32 + i).collect()
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + (i >> 9) + seed) as u8).collect()
}

/// The path that this process is to use.
fn path() -> String {
    env::var(PATH).expect("the test says it")
}

/// Between the first PE and the last.
async fn equal_results(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let last = rt.num_pes() - 1;
    let [here, there] = [0, last].map(|pe| holders.on(pe));
    for (from, to) in [(0, last), (last, 0), (0, 0)] {
        let (share, to) = (holders.on(from).share().await?, holders.on(to));
        assert_eq!(to.see(share.clone()).await?, values_of(from));
        assert_eq!(to.read(share.clone()).await?, (values_of(from), vec![1000]));
        assert_eq!(to.relay(share.clone(), holders.on(0)).await?, values_of(from));
        assert_eq!(to.relay(share.clone(), holders.on(last)).await?, values_of(from));
        // Twice at a time, and to all.
        let both = [to.see(share.clone()).future(), to.see(share.clone()).future()];
        for one in both {
            assert_eq!(one.await?, values_of(from));
        }
        assert_eq!(holders.see(share).gather().await?, vec![values_of(from); last + 1]);
    }
    assert_eq!(here.read(there.share_grid().await?).await?, (vec![5; 24], vec![2, 3, 4]));
    let plus = |pe: usize, more: u32| values_of(pe).iter().map(|value| value + more).collect::<Vec<_>>();
    assert_eq!(here.give_away(there).await?, [plus(0, 0), plus(0, 7), plus(last, 1)]);
    for _ in 0..10 {
        assert_eq!(here.send_and_overwrite(there).await?, vec![1; LEN as usize]);
    }
    let fields = rt.array::<Field>(4).create(()).await?;
    for round in 0..4_u32 {
        let to = if round % 2 == 0 { last } else { 0 };
        let moves: Vec<_> = fields.elements().map(|field| field.migrate(to).future()).collect();
        fields.step().await?;
        for moved in moves {
            moved.await?;
        }
        for index in 0..4 {
            assert_eq!(fields.at(index).look().await?, (to, plus(index, round + 1)));
        }
    }
    Ok(())
}

async fn all_memory_comes_back(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let [here, there] = [0, 1].map(|pe| holders.on(pe));
    let before = [here.used_bytes().await?, there.used_bytes().await?];
    let (_, opened) = there.counts().await?;
    for _ in 0..2 {
        let (copied, _) = here.counts().await?;
        here.send_many(there, 1000).await?;
        rt.quiescence().await?;
        assert_eq!(there.drop_kept().await?, 333);
        let (copied_since, _) = here.counts().await?;
        match &*path() {
            "staged" => assert_eq!(copied_since - copied, 1000),
            _ => assert_eq!(copied_since, copied, "nothing goes by way of the host"),
        }
        // What tells that memory is not needed any more is no message.
        while [here.used_bytes().await?, there.used_bytes().await?] != before {
            rt.yield_now().await;
        }
    }
    let (_, opened_since) = there.counts().await?;
    // A slab is opened once, and all that was sent lies in few.
    assert!(opened_since - opened <= 3, "{opened} {opened_since}");
    assert_eq!(opened_since > 0, ["auto", "ipc"].contains(&&*path()));
    Ok(())
}

async fn faults(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let error = holders.on(0).send_spoiled(holders.on(1)).await?;
    assert!(error.contains("astray"), "{error}");
    Ok(())
}

/// What is long, between the first PE and the last.
async fn long_shares(rt: Runtime) -> Result<()> {
    let (holders, last) = (rt.group::<Holder>().create(()).await?, rt.num_pes() - 1);
    for (seed, len) in [0, 1, PIECE - 1, PIECE, PIECE + 1, LONG].into_iter().enumerate() {
        for (from, to) in [(0, last), (last, 0)] {
            let share = holders.on(from).make(len, seed).await?;
            assert!(holders.on(to).is_whole(share, seed).await?, "{len} bytes from {from} to {to}");
        }
    }
    // More than all pieces that may be out, both ways at once.
    let both =
        [(0, last), (last, 0)].map(|(from, to)| holders.on(from).send_long(holders.on(to), 4).future());
    for are_whole in both {
        assert!(are_whole.await?);
    }
    Ok(())
}

/// What goes in pieces needs the pinned memory of those that may be out, on either side, and gives it back, as all other memory. So a piece is in its place on the
/// other device before a later one has been copied from this one.
async fn pinned_memory_comes_back(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let [here, there] = [0, 1].map(|pe| holders.on(pe));
    let before = [here.used_bytes().await?, there.used_bytes().await?];
    for (len, count) in [(LONG, 1), (2 * PIECE + 1, 1000)] {
        let share = here.make(len, 1).await?;
        let pinned = [here.pinned().await?, there.pinned().await?];
        let (copied, _) = here.counts().await?;
        for begun in (0..count).step_by(50) {
            let send = |_| there.drop_unread(share.clone()).future();
            let all: Vec<_> = (begun..count.min(begun + 50)).map(send).collect();
            for dropped in all {
                assert_eq!(dropped.await?, len);
            }
        }
        let pinned_since = [here.pinned().await?, there.pinned().await?];
        for (since, before) in pinned_since.into_iter().zip(pinned) {
            assert!(since - before <= WINDOW, "{before} {since}");
        }
        let (copied_since, _) = here.counts().await?;
        assert_eq!(copied_since - copied, (len.div_ceil(PIECE) * count) as u64);
        drop(share);
        while [here.used_bytes().await?, there.used_bytes().await?] != before {
            rt.yield_now().await;
        }
    }
    Ok(())
}

/// The device is lost when some pieces have left.
async fn a_fault_between_pieces(rt: Runtime) -> Result<()> {
    let holders = rt.group::<Holder>().create(()).await?;
    let [here, there] = [0, 1].map(|pe| holders.on(pe));
    let share = here.make(64 << 20, 1).await?;
    let (used, (copied, _)) = (there.used_bytes().await?, here.counts().await?);
    let whole = there.is_whole(share, 1).future();
    // More have been begun than may be out, so some have come.
    while here.counts().await?.0 <= copied + WINDOW {
        rt.yield_now().await;
    }
    here.go_astray().await?;
    let error = whole.await.expect_err("not all of it has come").to_string();
    assert!(error.contains("astray"), "{error}");
    while there.used_bytes().await? != used {
        rt.yield_now().await;
    }
    assert!(there.send_long(there, 1).await?, "the other device is as it was");
    Ok(())
}

mod program {
    use super::*;

    /// What each process of a job runs.
    #[chare::main]
    pub(super) async fn main(rt: Runtime) -> Result<()> {
        match rt.args().get(1).map(String::as_str) {
            Some("results") => equal_results(rt).await,
            Some("memory") => all_memory_comes_back(rt).await,
            Some("faults") => faults(rt).await,
            Some("long") => long_shares(rt).await,
            Some("pinned") => pinned_memory_comes_back(rt).await,
            Some("mixed") => mixed::mixed_paths(rt).await,
            Some("astray") => a_fault_between_pieces(rt).await,
            other => Err(format!("{other:?} is no program").into()),
        }
    }
}

fn main() -> ExitCode {
    if env::var_os(PATH).is_some() {
        if env::args().nth(1).as_deref() != Some("info") {
            return program::main();
        }
        let options = Options::from_env().expect("the test gives good ones");
        print!("{}", Info::of_job(&options).expect("there are devices"));
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Processes of MPI never sleep, and each test is two of them.
    arguments.test_threads = Some(1);
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(name, test);
    let trials = vec![
        trial("all_paths_between_gpus_have_equal_results", || on_gpus("results", &["1", "2"])),
        trial("all_paths_between_devices_of_the_host_have_equal_results", || {
            on_host("results", &[["1", "host:2:inline", "0"], ["2", "host:2:workers=2", "0"]])
        }),
        trial("memory_comes_back", || on_gpus("memory", &["1", "2"])),
        trial("memory_of_the_host_comes_back", || on_host("memory", &[["1", "host:2:workers=2", "0"]])),
        // The one that fails loses its device.
        trial("a_fault_goes_with_its_memory", || on_gpus("faults", &["2"])),
        trial("long_shares_between_gpus_have_equal_results", || on_gpus("long", &["1", "2"])),
        trial("long_shares_between_devices_of_the_host_have_equal_results", || {
            // The memory of devices that are polled has no addresses for MPI.
            run("long", "staged", ["1", "host:2:polled", "0"])?;
            on_host("long", &[["2", "host:2:workers=2", "0"]])
        }),
        trial("pinned_memory_comes_back", || run("pinned", "staged", ["1", "cuda", "2"]).map(drop)),
        trial("a_fault_between_pieces_spoils_what_has_come", || {
            run("astray", "staged", ["1", "cuda", "2"]).map(drop)
        }),
        trial("one_message_goes_by_several_paths", || {
            ["auto", "staged", "ipc"]
                .iter()
                .try_for_each(|path| run("mixed", path, ["2", "cuda", "2"]).map(drop))?;
            on_host("mixed", &[["2", "host:2:inline", "0"], ["2", "host:2:workers=2", "0"]])
        }),
        trial("paths_inside_of_a_process_are_forced_or_refused", paths_inside),
        trial("what_is_chosen_is_told", what_is_chosen_is_told),
        trial("a_path_that_is_impossible_is_an_error_at_the_start", impossible_paths),
        trial("a_library_that_spoils_samples_is_not_used", spoiled::samples_are_noticed),
        trial("each_device_and_each_way_is_tried", spoiled::each_sample_counts),
        trial("samples_that_do_not_come_end_the_start", spoiled::missing_samples_end_the_start),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Starts a program in two processes, on a stand-in with so many GPUs.
fn mpirun(command: &[&str], path: &str, gpus: &str) -> Output {
    mpirun_with("2", command, path, gpus)
}

/// As `mpirun`, in so many processes.
fn mpirun_with(processes: &str, command: &[&str], path: &str, gpus: &str) -> Output {
    let inherited = env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let mut mpirun = launcher::mpirun();
    mpirun
        .args(["-n", processes])
        .args(command)
        .env("LD_LIBRARY_PATH", format!("{}:{inherited}", cuda_stand_in::folder().display()))
        .env("STAND_IN_DEVICES", gpus)
        .env(PATH, path)
        // Each process uses all, if it has PEs for them.
        .env("CHARE_DEVICE_MAP", "cyclic")
        .stdin(Stdio::null());
    mpirun.output().expect("mpirun is there")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(why().into()) }
}

/// Runs one of the programs above, which is to succeed; what it says.
fn run(program: &str, path: &str, [pes, device, gpus]: [&str; 3]) -> Result<String, Failed> {
    let this = env::current_exe()?;
    let this = this.to_str().ok_or("the path of the target folder is no text")?;
    let output = mpirun(&[this, program, "--pes", pes, "--device", device], path, gpus);
    let (said, errors) = texts(&output);
    check(output.status.success(), || {
        format!("{program} by {path} on {device} of {gpus}: {said}\n{errors}")
    })?;
    Ok(said)
}

/// On one GPU that both processes use, and on two that reach each other.
fn on_gpus(program: &str, gpus: &[&str]) -> Result<(), Failed> {
    for path in ["auto", "staged", "ipc"] {
        gpus.iter().try_for_each(|gpus| run(program, path, ["1", "cuda", gpus]).map(drop))?;
    }
    Ok(())
}

/// MPI reaches memory of devices that is the host's.
fn on_host(program: &str, devices: &[[&str; 3]]) -> Result<(), Failed> {
    for path in ["staged", "mpi"] {
        devices.iter().try_for_each(|devices| run(program, path, *devices).map(drop))?;
    }
    Ok(())
}

fn what_is_chosen_is_told() -> Result<(), Failed> {
    for (path, line) in [
        ("auto", "ipc: the other process has opened a sample of it"),
        ("ipc", "ipc: the other process has opened a sample of it"),
        ("staged", "staged: it is asked for"),
    ] {
        let said = run("info", path, ["1", "cuda", "2"])?;
        for rank in [0, 1] {
            let line = format!("rank {rank}    {line}");
            check(said.contains(&line), || format!("{path}: `{line}` is not in {said}"))?;
        }
    }
    Ok(())
}

fn impossible_paths() -> Result<(), Failed> {
    let program = env!("CARGO_BIN_EXE_across");
    let run = |by_option: &[&str], device, path| {
        texts_and_code(&mpirun(
            &[&[program, "--pes", "1", "--device", device], by_option].concat(),
            path,
            "0",
        ))
    };
    let from_to = "is impossible from rank 0 to rank 1:";
    for (by_option, device, path, why) in [
        (
            &[][..],
            "host",
            "ipc",
            "ipc WHICH it is of a kind of device that lends no memory to other processes",
        ),
        (
            &["--device-path", "ipc"],
            "host",
            "auto",
            "ipc WHICH it is of a kind of device that lends no memory",
        ),
        (&[], "host:polled", "mpi", "mpi WHICH the memory of the devices has no addresses (rank 0)"),
    ] {
        let (said, errors, code) = run(by_option, device, path);
        let line = format!("error: --device-path {}", why.replace("WHICH", from_to));
        let is_told = errors.contains(&line) && errors.contains("give `staged`, or leave it out");
        check(code == Some(2) && is_told, || format!("{said}{errors}"))?;
    }
    let (said, errors, code) = run(&[], "host", "auto");
    check(code == Some(0), || format!("{said}{errors}"))
}

/// What has several paths in one process has equal results by those that are asked for, and does not start where there are others.
fn paths_inside() -> Result<(), Failed> {
    let this = env::current_exe()?;
    let this = this.to_str().ok_or("the path of the target folder is no text")?;
    let run = |processes, path, [pes, device, reach]: [&str; 3]| {
        let reach = format!("STAND_IN_PEER={reach}");
        let command = ["env", &reach, this, "results", "--pes", pes, "--device", device];
        texts_and_code(&mpirun_with(processes, &command, path, "2"))
    };
    for (path, on) in [
        ("same", ["2", "host", "1"]),
        ("same", ["2", "cuda:1", "1"]),
        ("peer", ["2", "host:2:inline", "1"]),
        ("peer", ["2", "host:2:workers=2", "1"]),
        ("peer", ["2", "cuda", "1"]),
        ("auto", ["2", "cuda", "0"]),
    ] {
        let (said, errors, code) = run("1", path, on);
        check(code == Some(0), || format!("{path} {on:?}: {said}{errors}"))?;
    }
    let far = "the GPUs do not reach each other's memory, and the driver copies by way of its own";
    for (processes, path, on, why) in [
        ("1", "same", ["2", "host:2", "1"], "from host:0 to host:1: they are two devices"),
        ("1", "peer", ["2", "cuda", "0"], &format!("from cuda:0 to cuda:1: {far}")),
        ("2", "same", ["1", "host", "1"], "from rank 0 to rank 1: they are two processes"),
        ("2", "peer", ["1", "host", "1"], "from rank 0 to rank 1: they are two processes"),
    ] {
        let (said, errors, code) = run(processes, path, on);
        let told = format!("error: --device-path {path} is impossible {why}; give `staged`, or leave it out");
        check(code == Some(2) && errors.contains(&told), || format!("{path} {on:?}: {said}{errors}"))?;
    }
    Ok(())
}

fn texts_and_code(output: &Output) -> (String, String, Option<i32>) {
    let (said, errors) = texts(output);
    (said, errors, output.status.code())
}
