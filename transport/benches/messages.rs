//! What a message between processes costs, beside the same message by plain MPI: two ranks on one host, in turns.
//!
//! `cargo bench -p chare-transport --features mpi -- [--case TEXT] [--json] [--smoke] [--single]` starts itself under `mpirun -n 2`.
//!
//! | case | what it counts |
//! |---|---|
//! | `one_way` | ns from a `send` to the peer's sink, of which each sends the payload back: half a round trip |
//! | `stream` | MB/s one way, 16 buffers of 4 MiB in flight, from memory to memory |
//! | `send_rate` | ns a message of 8 bytes, one way, as fast as they can be sent and received |
//! | `raw_*` | the same by `MPI_Send` and `MPI_Recv`, or `MPI_Isend` and `MPI_Irecv` in a window |
//! | `ratio_*` | ours over raw: of the best batches, and the median of the ratios of batches in turn |
//!
//! Large payloads travel as buffers, and come back in the memory in which they came. With `--single`, MPI is started for one
//! thread, which spares it locks that plain MPI programs do not have either.

use std::cell::{Cell, RefCell};
use std::process::{Command, ExitCode};
use std::time::Instant;

use chare_transport::mpi::Environment;
use chare_transport::{
    Buffer, Driver, Frame, HostBuf, Identity, Limits, Outbox, Process, Progress, Rank, ThreadLevel,
};
use mpi::point_to_point::{Destination, Source};
use mpi::request::WaitGuard;
use mpi::topology::{Communicator, SimpleCommunicator};

/// Short ones, and many: on a busy machine some of them are left alone.
const BATCHES: usize = 200;
/// Set for the processes that `mpirun` starts.
const STARTED: &str = "CHARE_TRANSPORT_BENCH";

struct Options {
    /// Only cases whose name contains it.
    case: Option<String>,
    json: bool,
    smoke: bool,
    single: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut options = Options { case: None, json: false, smoke: false, single: false };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--case" => options.case = words.next().cloned(),
            "--json" => options.json = true,
            "--smoke" => options.smoke = true,
            "--single" => options.single = true,
            "--bench" => {}
            _ => {
                eprintln!(
                    "error: there is no option {word}; there are --case TEXT, --json, --smoke and --single"
                );
                return ExitCode::from(2);
            }
        }
    }
    if std::env::var_os(STARTED).is_none() {
        return start(&args);
    }
    run(options);
    ExitCode::SUCCESS
}

/// Starts this program as two ranks.
fn start(args: &[String]) -> ExitCode {
    let launcher = std::env::var("MPIRUN").unwrap_or_else(|_| "mpirun".into());
    let mut command = Command::new(&launcher);
    let version = Command::new(&launcher).arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("{launcher} does not run: {error}"));
    if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
        command.args(["--allow-run-as-root", "--oversubscribe"]);
    }
    let program = std::env::current_exe().expect("it runs");
    let status = command.args(["-n", "2"]).arg(program).args(args).env(STARTED, "1").status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        other => {
            eprintln!("{launcher}: {other:?}");
            ExitCode::FAILURE
        }
    }
}

/// One of the two ranks.
struct Side {
    me: Rank,
    peer: Rank,
    outbox: Outbox,
    driver: RefCell<Driver>,
    world: SimpleCommunicator,
    options: Options,
}

fn run(options: Options) {
    let level = if options.single { ThreadLevel::Single } else { ThreadLevel::Multiple };
    let environment = Environment::start_with(level).expect("MPI starts");
    let mut limits = Limits::default();
    limits.checksums = false;
    let joined = environment.connect(&Identity::new(0, "bench"), &limits);
    let Process { outbox, driver } = joined.expect("two equal processes");
    let me = outbox.facts().rank();
    let world = SimpleCommunicator::world();
    let side = Side { me, peer: Rank(1 - me.0), outbox, driver: RefCell::new(driver), world, options };
    for (bytes, rounds) in [(8, 1000), (4 << 10, 400), (64 << 10, 100), (1 << 20, 8), (4 << 20, 3)] {
        side.one_way(bytes, rounds);
    }
    side.stream(4 << 20, 16);
    side.send_rate(20_480);
    side.finish();
}

impl Side {
    /// Measures both ways in turns: each batch is timed by rank 0, and yields a value per operation.
    fn compare(&self, case: &str, bytes: usize, unit: &str, ours: &dyn Fn() -> f64, raw: &dyn Fn() -> f64) {
        if self.options.case.as_ref().is_some_and(|wanted| !format!("{case} {bytes} B").contains(wanted)) {
            return;
        }
        let (skipped, batches) = if self.options.smoke { (1, 2) } else { (5, BATCHES) };
        let (mut our_values, mut raw_values, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for batch in 0..skipped + batches {
            let (raw, ours) = (raw(), ours());
            if batch >= skipped {
                raw_values.push(raw);
                our_values.push(ours);
                ratios.push(ours / raw);
            }
        }
        if self.me.0 != 0 {
            return;
        }
        let more_is_better = unit == "MB/s";
        let (raw, ours) = (summary(raw_values, more_is_better), summary(our_values, more_is_better));
        self.report(&format!("raw_{case}"), bytes, unit, raw);
        self.report(case, bytes, unit, ours);
        let (_, median) = summary(ratios, false);
        self.report(&format!("ratio_{case}"), bytes, "ratio", (ours.0 / raw.0, median));
    }

    fn report(&self, case: &str, bytes: usize, unit: &str, (best, median): (f64, f64)) {
        let batches = if self.options.smoke { 2 } else { BATCHES };
        if self.options.json {
            println!(
                "{{\"bench\":\"transport\",\"case\":\"{case}\",\"bytes\":{bytes},\"pes\":1,\"ranks\":2,\
                 \"unit\":\"{unit}\",\"best\":{best:.4},\"median\":{median:.4},\"batches\":{batches}}}"
            );
        } else {
            println!("{case:<20} {bytes:>9} B {best:>12.3} {median:>12.3} {unit}");
        }
    }

    /// Polls until a frame has come; returns its buffers.
    fn receive(&self) -> Vec<Buffer> {
        let got = RefCell::new(None);
        let mut driver = self.driver.borrow_mut();
        while got.borrow().is_none() {
            let polled = driver.poll(&mut |_, frame| *got.borrow_mut() = Some(frame.buffers));
            assert_ne!(polled.expect("both ranks live"), Progress::Closed);
        }
        got.into_inner().expect("it has come")
    }

    fn send(&self, frame: Frame<'_>) {
        // What is in flight is bounded by the games themselves.
        let _ = self.outbox.send(self.peer, frame).expect("a frame within the limits");
    }

    fn one_way(&self, bytes: usize, rounds: u32) {
        let rounds = if self.options.smoke { 4 } else { rounds };
        let per_hop = |begin: Instant| begin.elapsed().as_nanos() as f64 / f64::from(2 * rounds);
        let has_buffer = bytes > 4 << 10;
        let memory = Cell::new(has_buffer.then(|| Buffer::Host(HostBuf::copied(&vec![1; bytes], 64))));
        let header = vec![1_u8; if has_buffer { 8 } else { bytes }];
        let ours = || {
            let begin = Instant::now();
            for round in 0..rounds {
                if self.me.0 == 1 || round > 0 {
                    memory.set(self.receive().pop());
                }
                let buffers = memory.take().into_iter().collect();
                self.send(Frame { header: &header, buffers });
            }
            if self.me.0 == 0 {
                memory.set(self.receive().pop());
            } else {
                self.flush();
            }
            per_hop(begin)
        };
        let payload = RefCell::new(vec![1_u8; bytes]);
        let raw = || {
            let begin = Instant::now();
            let peer = self.world.process_at_rank(self.peer.0 as i32);
            let mut payload = payload.borrow_mut();
            for _ in 0..rounds {
                if self.me.0 == 0 {
                    peer.send(&payload[..]);
                    peer.receive_into(&mut payload[..]);
                } else {
                    peer.receive_into(&mut payload[..]);
                    peer.send(&payload[..]);
                }
            }
            per_hop(begin)
        };
        self.compare("one_way", bytes, "ns", &ours, &raw);
    }

    /// Polls until all that was sent has been handed to the network, which then needs no more of us.
    fn flush(&self) {
        let mut driver = self.driver.borrow_mut();
        while self.outbox.queued_bytes(self.peer) > 0 {
            let _ = driver.poll(&mut |_, _| panic!("nobody sends now")).expect("both ranks live");
        }
    }

    /// Receives so many frames; returns their buffers.
    fn receive_all(&self, count: usize) -> Vec<Buffer> {
        let (came, got) = (Cell::new(0), RefCell::new(Vec::new()));
        let mut driver = self.driver.borrow_mut();
        while came.get() < count {
            let polled = driver.poll(&mut |_, frame| {
                came.set(came.get() + 1);
                got.borrow_mut().extend(frame.buffers);
            });
            assert_ne!(polled.expect("both ranks live"), Progress::Closed);
        }
        got.into_inner()
    }

    /// Sends a word, or awaits it: the end of a batch that went one way.
    fn word(&self, to: Rank) {
        if to == self.me {
            assert!(self.receive_all(1).is_empty());
        } else {
            self.send(Frame::new(b"word"));
            self.flush();
        }
    }

    fn stream(&self, bytes: usize, in_flight: usize) {
        let rate = |begin: Instant| (bytes * in_flight) as f64 / begin.elapsed().as_secs_f64() / 1e6;
        let all: Vec<Vec<u8>> = (0..in_flight).map(|index| vec![index as u8; bytes]).collect();
        let memory: RefCell<Vec<Buffer>> = RefCell::default();
        if self.me.0 == 0 {
            memory.borrow_mut().extend(all.iter().map(|bytes| HostBuf::copied(bytes, 64).into()));
        }
        // There, which is timed, and back, which is not: nobody makes or fills memory meanwhile.
        let there = |from: Rank| {
            if from == self.me {
                memory.take().into_iter().for_each(|buffer| self.send(Frame::new(b"x").with_buffer(buffer)));
                self.word(self.me);
            } else {
                *memory.borrow_mut() = self.receive_all(in_flight);
                self.word(from);
            }
        };
        let ours = || {
            let begin = Instant::now();
            there(Rank(0));
            let rate = rate(begin);
            there(Rank(1));
            rate
        };
        let all = RefCell::new(all);
        let raw = || {
            let begin = Instant::now();
            self.raw_window(all.borrow_mut().iter_mut().map(|bytes| &mut bytes[..]));
            self.raw_word(Rank(0));
            rate(begin)
        };
        self.compare("stream", bytes, "MB/s", &ours, &raw);
    }

    /// Sends all pieces, or receives them, at once.
    fn raw_window<'b>(&self, pieces: impl Iterator<Item = &'b mut [u8]>) {
        let peer = self.world.process_at_rank(self.peer.0 as i32);
        mpi::request::scope(|scope| {
            if self.me.0 == 0 {
                let send = |bytes: &'b mut [u8]| WaitGuard::from(peer.immediate_send(scope, &*bytes));
                drop(pieces.map(send).collect::<Vec<_>>());
            } else {
                let receive =
                    |bytes: &'b mut [u8]| WaitGuard::from(peer.immediate_receive_into(scope, bytes));
                drop(pieces.map(receive).collect::<Vec<_>>());
            }
        });
    }

    fn raw_word(&self, to: Rank) {
        let peer = self.world.process_at_rank(self.peer.0 as i32);
        let mut word = [0_u8; 4];
        if to == self.me {
            let _ = peer.receive_into(&mut word[..]);
        } else {
            peer.send(&word[..]);
        }
    }

    fn send_rate(&self, count: u32) {
        const IN_FLIGHT: u32 = 64;
        let count = if self.options.smoke { 640 } else { count };
        let per_message = |begin: Instant| begin.elapsed().as_nanos() as f64 / f64::from(count);
        let ours = || {
            let begin = Instant::now();
            if self.me.0 == 0 {
                for message in 0..count {
                    self.send(Frame::new(&u64::from(message).to_le_bytes()));
                    if message % IN_FLIGHT == IN_FLIGHT - 1 {
                        let polled = self.driver.borrow_mut().poll(&mut |_, _| panic!("nobody answers yet"));
                        assert_ne!(polled.expect("both ranks live"), Progress::Closed);
                    }
                }
            } else {
                self.receive_all(count as usize);
            }
            self.word(Rank(0));
            per_message(begin)
        };
        let raw = || {
            let begin = Instant::now();
            let mut words = [[0_u8; 8]; IN_FLIGHT as usize];
            for _ in 0..count / IN_FLIGHT {
                self.raw_window(words.iter_mut().map(|word| &mut word[..]));
            }
            self.raw_word(Rank(0));
            per_message(begin)
        };
        self.compare("send_rate", 8, "ns", &ours, &raw);
    }

    fn finish(&self) {
        let mut driver = self.driver.borrow_mut();
        driver.close();
        while driver.poll(&mut |_, _| panic!("nobody sends now")).expect("both ranks live")
            != Progress::Closed
        {}
    }
}

/// Best and median.
fn summary(mut values: Vec<f64>, more_is_better: bool) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let best = if more_is_better { values[values.len() - 1] } else { values[0] };
    (best, (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0)
}
