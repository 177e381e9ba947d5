//! tokio: coroutines await its sockets, timers, files, channels and tasks. Who does is neither hanging nor quiescent;
//! what the program leaves behind does not keep a run from its end.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use chare::prelude::*;
use chare::{HANG_EXIT_CODE, Handle, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::{PES, run};

/// Long enough that a wrong report of a hang, or a wrong quiescence, would come before.
const A_WHILE: Duration = Duration::from_millis(20);

/// Talks to the outside.
#[derive(Default)]
struct Talker {
    heard: u64,
}

#[chare(index = usize)]
impl Talker {
    fn new() -> Self {
        Talker::default()
    }

    /// Answers numbers from `count` connections by their doubles.
    #[entry]
    async fn double(&mut self, address: Promise<SocketAddr>, count: usize) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        address.send(listener.local_addr()?)?;
        for _ in 0..count {
            let (mut stream, _) = listener.accept().await?;
            let number = stream.read_u64().await?;
            self.heard += number;
            stream.write_u64(2 * number).await?;
        }
        Ok(())
    }

    #[entry]
    async fn ask(this: This<Self>, address: SocketAddr) -> Result<u64> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_u64(this.index() as u64).await?;
        Ok(stream.read_u64().await?)
    }

    /// Hears one number from a connection.
    #[entry]
    async fn hear(this: This<Self>, address: SocketAddr) -> Result<()> {
        let mut stream = TcpStream::connect(address).await?;
        let number = stream.read_u64().await?;
        this.with(|talker| talker.heard += number);
        Ok(())
    }

    #[entry]
    async fn nap(this: This<Self>) {
        tokio::time::sleep(A_WHILE).await;
        this.with(|talker| talker.heard += 1);
    }

    #[entry]
    fn heard(&self) -> u64 {
        self.heard
    }

    /// Starts a task from a method that is no coroutine.
    #[entry]
    fn start_task(&self, cx: &Cx<Self>) -> JoinHandle<usize> {
        let index = cx.index();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            2 * index
        })
    }

    /// Sends numbers to a task and back, `count` of them, with many more under way than the channels hold.
    #[entry]
    async fn converse(&mut self, count: u64) -> Result<u64> {
        let (to_task, mut from_us) = mpsc::channel(4);
        let (to_us, mut from_task) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(number) = from_us.recv().await {
                if to_us.send(number).await.is_err() {
                    break;
                }
            }
        });
        let mut sum = 0;
        for number in 0..count {
            to_task.send(number).await?;
            sum += from_task.recv().await.ok_or("the task has ended")?;
        }
        Ok(sum)
    }

    #[entry]
    async fn store_and_load(&self, cx: &Cx<Self>, folder: String) -> Result<String> {
        let path = format!("{folder}/talker-{}-{}.txt", cx.num_pes(), cx.index());
        tokio::fs::write(&path, format!("from {}", cx.index())).await?;
        let text = tokio::fs::read_to_string(&path).await?;
        tokio::fs::remove_file(&path).await?;
        Ok(text)
    }

    #[entry]
    async fn compute_elsewhere(this: This<Self>) -> Result<(usize, bool)> {
        let (index, pe_thread) = (this.index(), thread::current().id());
        Ok(spawn_blocking(move || (3 * index, thread::current().id() != pe_thread)).await?)
    }

    #[entry]
    async fn let_a_task_panic(&self) -> std::result::Result<(), JoinError> {
        tokio::spawn(async { panic!("the task gave way") }).await
    }
}

const TALKERS: usize = 16;

async fn talkers(rt: &Runtime) -> Result<Array<Talker>> {
    Ok(rt.array::<Talker>(TALKERS).create(()).await?)
}

/// All talkers but one ask that one over sockets.
async fn ask_all(rt: &Runtime) -> Result<()> {
    let talkers = talkers(rt).await?;
    let (address, bound) = rt.promise();
    let doubling = talkers.at(0).double(address, TALKERS - 1).future();
    let address = bound.await?;
    let asking: Vec<_> = (1..TALKERS).map(|index| talkers.at(index).ask(address).future()).collect();
    for (index, answer) in (1..).zip(asking) {
        assert_eq!(answer.await?, 2 * index);
    }
    doubling.await?;
    assert_eq!(talkers.at(0).heard().await?, 120);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn chares_talk_over_sockets(rt: Runtime) -> Result<()> {
    ask_all(&rt).await
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn sleeping_with_tokio_is_neither_a_hang_nor_quiescence(rt: Runtime) -> Result<()> {
    let talkers = talkers(&rt).await?;
    talkers.nap().send();
    rt.quiescence().await?;
    assert_eq!(talkers.heard().gather().await?, [1; TALKERS]);
    tokio::time::sleep(A_WHILE).await;
    talkers.at(15).nap().await?;
    assert_eq!(talkers.at(15).heard().await?, 2);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn quiescence_waits_for_who_waits_for_a_socket(rt: Runtime) -> Result<()> {
    let talkers = talkers(&rt).await?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let speaker = thread::spawn(move || {
        for number in 1..=2_u64 {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            thread::sleep(A_WHILE);
            std::io::Write::write_all(&mut stream, &number.to_be_bytes()).expect("it listens");
        }
    });
    for (index, sum) in [(15, 1), (0, 3)] {
        talkers.at(index).hear(address).send();
        rt.quiescence().await?;
        assert_eq!(talkers.heard().gather().await?.iter().sum::<u64>(), sum);
    }
    assert!(speaker.join().is_ok());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn files_are_written_and_read(rt: Runtime) -> Result<()> {
    let texts = talkers(&rt).await?.store_and_load(env!("CARGO_TARGET_TMPDIR").to_owned()).gather().await?;
    assert_eq!(texts, (0..TALKERS).map(|index| format!("from {index}")).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn signals_are_awaited(_: Runtime) -> Result<()> {
    let mut signals = unix::signal(SignalKind::user_defined1())?;
    let kill = Command::new("kill").args(["-USR1", &std::process::id().to_string()]).status()?;
    assert!(kill.success());
    assert!(signals.recv().await.is_some());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn blocking_calls_run_elsewhere(rt: Runtime) -> Result<()> {
    let values = talkers(&rt).await?.compute_elsewhere().gather().await?;
    assert_eq!(values, (0..TALKERS).map(|index| (3 * index, true)).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio", one_process = "a task stays in its process")]
async fn a_task_is_started_by_one_and_awaited_by_another(rt: Runtime) -> Result<()> {
    let talkers = talkers(&rt).await?;
    for index in 0..TALKERS {
        let task = talkers.at(index).start_task().await?;
        assert_eq!(task.await?, 2 * index);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn tasks_run_on_one_thread_that_is_no_pe(rt: Runtime) -> Result<()> {
    let name = || thread::current().name().map(str::to_owned);
    for _ in 0..rt.num_pes() {
        assert_eq!(tokio::spawn(async move { name() }).await?.as_deref(), Some("tokio"));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn channels_of_tasks_wake_coroutines(rt: Runtime) -> Result<()> {
    let sums = talkers(&rt).await?.converse(100).gather().await?;
    assert_eq!(sums, [4950; TALKERS]);
    let (to_us, from_task) = oneshot::channel();
    tokio::spawn(async move { to_us.send(7) });
    assert_eq!(from_task.await?, 7);
    let (to_us, from_task) = oneshot::channel::<()>();
    tokio::spawn(async move { drop(to_us) });
    from_task.await.expect_err("the task has dropped its end");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn a_panic_in_a_task_is_an_error_of_who_awaits_it(rt: Runtime) -> Result<()> {
    let error = tokio::spawn(async { panic!("the task gave way") }).await;
    assert!(error.is_err_and(|error| error.is_panic()));
    let error = talkers(&rt).await?.at(15).let_a_task_panic().await.expect_err("it awaits that task");
    let CallError::Failed(failed) = &error else { panic!("{error} is not the error of the method") };
    assert!(failed.to_string().contains("Talker[15].let_a_task_panic"), "{failed}");
    Ok(())
}

/// Does something as the runtime's, on a thread of tokio.
fn entered<T>(handle: &Handle, work: impl FnOnce() -> T) -> T {
    let _entered = handle.enter();
    work()
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it waits for tokio")]
async fn a_task_with_a_handle_sends_and_fulfils(rt: Runtime) -> Result<()> {
    let talkers = talkers(&rt).await?;
    let ((promise, value), (reply, answer), handle) = (rt.promise(), rt.promise(), rt.handle());
    let task = tokio::spawn(async move {
        entered(&handle, || talkers.at(15).nap().send());
        tokio::time::sleep(A_WHILE).await;
        entered(&handle, || talkers.at(15).heard().to(reply));
        entered(&handle, || promise.send(8))
    });
    assert_eq!(value.await?, 8);
    assert!(answer.await? <= 1);
    task.await??;
    rt.quiescence().await?;
    assert_eq!(talkers.at(15).heard().await?, 1);
    Ok(())
}

#[test]
fn a_task_that_nobody_awaits_does_not_hide_a_hang() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            tokio::spawn(std::future::pending::<()>());
            let (_promise, value) = rt.promise::<()>();
            value.await
        });
        assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
    }
}

#[test]
fn a_run_ends_whatever_tasks_do_and_drops_them() {
    for pes in PES {
        let held = Arc::new(());
        let by_tasks = [held.clone(), held.clone()];
        let report = run(pes, async move |rt: Runtime| {
            let (begun, mut all_began) = mpsc::channel::<()>(1);
            let [busy, idle] = by_tasks;
            let begins = begun.clone();
            tokio::spawn(async move {
                let (_busy, _) = (busy, drop(begins));
                loop {
                    tokio::task::yield_now().await;
                }
            });
            tokio::spawn(async move {
                let (_idle, _) = (idle, drop(begun));
                tokio::time::sleep(Duration::MAX).await;
            });
            assert!(all_began.recv().await.is_none());
            talkers(&rt).await?.at(15).nap().send();
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        assert_eq!(Arc::strong_count(&held), 1, "a task outlives its run");
    }
}

/// The end waits a moment for what blocks, then leaves it behind. All at once, to wait only once.
#[test]
fn a_run_ends_although_a_call_still_blocks() {
    let runs = PES.into_iter().flat_map(|pes| [false, true].map(|in_a_task| (pes, in_a_task)));
    let runs = runs.map(|(pes, in_a_task)| {
        thread::spawn(move || {
            let (go_on, blocked) = std_mpsc::channel::<()>();
            let (begins, begun) = oneshot::channel();
            let (answer, answered) = std_mpsc::channel();
            let report = run(pes, async move |_| {
                let block = move || {
                    begins.send(()).expect("main waits for it");
                    blocked.recv().expect("the run has ended before");
                    answer.send(()).expect("the test waits for it");
                };
                if in_a_task {
                    tokio::spawn(async move { block() });
                } else {
                    spawn_blocking(block);
                }
                begun.await
            });
            assert!(report.is_success(), "{report}");
            go_on.send(()).expect("it still blocks");
            answered.recv().expect("it goes on by itself");
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.join().expect("each run ends");
    }
}

/// Looks, when it is dropped, whether tokio is there.
struct LastLook(Arc<AtomicBool>);

impl Drop for LastLook {
    fn drop(&mut self) {
        self.0.store(runtime::Handle::try_current().is_ok(), Ordering::SeqCst);
    }
}

#[test]
fn destructors_at_the_end_of_a_run_still_have_tokio() {
    for pes in PES {
        let seen = Arc::new(AtomicBool::new(false));
        let look = LastLook(seen.clone());
        let report = run(pes, async |rt: Runtime| {
            let _look = look;
            rt.exit(0);
            let (_stream, _) = TcpListener::bind("127.0.0.1:0").await?.accept().await?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        assert!(seen.load(Ordering::SeqCst));
    }
}

#[test]
fn every_run_has_its_own() {
    for pes in PES {
        let (out, task) = std_mpsc::channel();
        let report = run(pes, async move |rt: Runtime| {
            out.send(tokio::spawn(std::future::pending::<()>()))?;
            ask_all(&rt).await
        });
        assert!(report.is_success(), "{report}");
        let task = task.recv().expect("main has sent it");
        let report = run(pes, async move |rt: Runtime| {
            assert!(task.await.is_err_and(|error| error.is_cancelled()), "it has ended with its run");
            ask_all(&rt).await
        });
        assert!(report.is_success(), "{report}");
    }
}

/// A whole run, with many more operations of tokio's on each PE than a task of tokio's does in one go.
fn run_that_converses(pes: usize) {
    let report = run(pes, async |rt: Runtime| {
        assert_eq!(talkers(&rt).await?.converse(1000).gather().await?, [499_500; TALKERS]);
        let name = tokio::spawn(async { thread::current().name().map(str::to_owned) }).await?;
        assert_eq!(name.as_deref(), Some("tokio"), "the run's own tokio is nearest");
        ask_all(&rt).await
    });
    assert!(report.is_success(), "{report}");
}

#[test]
fn a_run_may_be_inside_a_tokio_runtime_of_the_program() {
    let one_thread = || runtime::Builder::new_current_thread().enable_all().build();
    let threads = || runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    for pes in PES {
        for tokio in [one_thread(), threads()] {
            let tokio = tokio.expect("there are files and threads enough");
            tokio.block_on(async { run_that_converses(pes) });
            tokio.block_on(async move {
                tokio::spawn(async move { run_that_converses(pes) }).await.expect("it does not panic");
                spawn_blocking(move || run_that_converses(pes)).await.expect("it does not panic");
                assert_eq!(tokio::spawn(async { 5 }).await.expect("the program's own goes on"), 5);
            });
        }
    }
}

/// Set in the process in which there are too few files.
const TOO_FEW_FILES: &str = "CHARE_TEST_TOO_FEW_FILES";

#[test]
fn a_run_that_cannot_have_tokio_says_what_to_do() {
    if std::env::var_os(TOO_FEW_FILES).is_some() {
        let error = chare::Runtime::run(Options::default().with_pes(2), async |_| ());
        let error = error.expect_err("tokio needs more files than there may be");
        assert!(matches!(error, chare::StartError::Tokio { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("cannot start tokio: ") && text.contains("ulimit -n"), "{text}");
        return;
    }
    let this_test = "outside::a_run_that_cannot_have_tokio_says_what_to_do";
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 4 && exec \"$0\" --exact \"$1\" --test-threads=1"])
        .arg(std::env::current_exe().expect("a test is a program"))
        .arg(this_test)
        .env(TOO_FEW_FILES, "yes")
        .output()
        .expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
