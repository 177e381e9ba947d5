//! A program that uses every kind of message, and ends as it is told. `mpirun.rs` starts it on several processes.
//!
//! `across` prints what it has computed, which is the same on any number of processes; `across panic`, `across panic-unawaited`, `across error`, `across hang` and
//! `across exit 7` end in that way, each by code that runs on the last PE. In `across kill` that code sends its process the signal KILL, in `across stop`
//! the signal STOP; in `across compute 3` it computes for so many seconds. In `across compute-and-kill`
//! and `across compute-and-panic` the first PE computes for ever besides, or so many seconds, and the last but one so many: `across compute-and-panic 4 4`. In
//! `across compute-and-panic-at-end` the second PE computes for ever, and the last one panics when all have been told of a good end.

use std::hint::black_box;
use std::process::{self, Command};
use std::time::{Duration, Instant, SystemTime};

use chare::Bulk;
use chare::prelude::*;
use serde::{Deserialize, Serialize};

/// One face of a strip, with its field as plain memory beside it.
#[derive(Clone, Serialize, Deserialize)]
struct Face {
    step: u32,
    values: Bulk<f64>,
}

/// A strip of a bar that conducts heat; its neighbours are elsewhere.
struct Strip {
    cells: Vec<f64>,
}

/// The values beside a strip are the same many times, so that a face is large enough to travel by itself.
const COPIES: usize = 2000;

#[chare(index = usize)]
impl Strip {
    fn new(cx: &Cx<Self>, width: usize) -> Self {
        Strip { cells: (0..width).map(|x| ((cx.index() * width + x) as f64 * 0.01).sin()).collect() }
    }

    /// Returns the heat of the whole bar after so many steps.
    #[entry]
    async fn conduct(&mut self, cx: &Cx<Self>, steps: u32, strips: usize) -> Result<f64> {
        let at = |index| cx.array().at(index);
        let left = cx.index().checked_sub(1).map(|left| cx.channel::<Face, _>(&at(left), 0));
        let right = (cx.index() + 1 < strips).then(|| cx.channel::<Face, _>(&at(cx.index() + 1), 0));
        for step in 0..steps {
            let face = |value: f64| Face { step, values: vec![value; COPIES].into() };
            let last = self.cells.len() - 1;
            left.iter().try_for_each(|left| left.send(face(self.cells[0])))?;
            right.iter().try_for_each(|right| right.send(face(self.cells[last])))?;
            let mut beside = [self.cells[0], self.cells[last]];
            for (value, side) in beside.iter_mut().zip([&left, &right]) {
                let Some(side) = side else { continue };
                let face = side.recv().await?;
                assert_eq!((face.step, face.values.len()), (step, COPIES));
                *value = face.values[COPIES / 2];
            }
            let before = |x: usize| if x == 0 { beside[0] } else { self.cells[x - 1] };
            let after = |x: usize| if x == last { beside[1] } else { self.cells[x + 1] };
            self.cells = (0..=last).map(|x| (before(x) + self.cells[x] + after(x)) / 3.0).collect();
        }
        Ok(cx.allreduce(self.cells.iter().sum::<f64>(), reduce::Sum).await?)
    }

    /// Takes a field in bulk, and gives half of it back.
    #[entry]
    fn halve(&self, field: Vec<f64>) -> Vec<f64> {
        field.into_iter().step_by(2).collect()
    }

    #[entry]
    fn give(&self, cx: &Cx<Self>, to: Callback<(Vec<usize>, usize)>) {
        cx.contribute((cx.index(), cx.index()), (reduce::Gather, reduce::Max), to);
    }
}

/// One on each PE.
struct Member {
    heard: u64,
    panics_at_end: bool,
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.panics_at_end {
            goes_wrong();
            panic!("told to, at the end");
        }
    }
}

#[chare]
impl Member {
    fn new(start: u64) -> Self {
        Member { heard: start, panics_at_end: false }
    }

    /// Passes a token around all PEs, until it has been everywhere `rounds` times.
    #[entry]
    fn pass(&mut self, cx: &Cx<Self>, group: Group<Member>, token: u64, rounds: u32, done: Promise<u64>) {
        let (own, next) = (cx.my_pe().index(), (cx.my_pe().index() + 1) % cx.num_pes());
        self.heard += 1;
        let token = token + own as u64;
        match rounds - u32::from(next == 0) {
            0 => done.send(token).expect("it is the only one"),
            rounds => group.on(next).pass(group, token, rounds, done).send(),
        }
    }

    #[entry]
    fn heard(&self) -> u64 {
        self.heard
    }

    #[entry]
    fn fail(&self, cx: &Cx<Self>) -> Result<u64, String> {
        Err(format!("PE {} has no such thing", cx.my_pe()))
    }

    /// The system's number of the process.
    #[entry]
    fn process(&self) -> u32 {
        process::id()
    }

    #[entry]
    fn panic(&self) {
        goes_wrong();
        panic!("told to");
    }

    #[entry]
    async fn wait_for_ever(this: This<Self>) -> Result<()> {
        let (_kept, never) = this.promise::<()>();
        Ok(never.await?)
    }

    /// Sends the own process a signal.
    #[entry]
    fn signal(&self, name: String) {
        goes_wrong();
        let sent = Command::new("kill").args(["-s", &name, &process::id().to_string()]).status();
        assert!(sent.expect("there is a kill").success());
    }

    #[entry]
    fn compute(&self, seconds: u64) -> u64 {
        let begin = Instant::now();
        let mut count = 0_u64;
        while begin.elapsed() < Duration::from_secs(seconds) {
            count = black_box(count + 1);
        }
        count.min(1)
    }

    /// As `compute`, and says when it begins.
    #[entry]
    fn keep_busy(&self, began: Promise<()>, seconds: u64) {
        began.send(()).expect("it is the only one");
        self.compute(seconds);
    }

    #[entry]
    fn panic_at_end(&mut self) {
        self.panics_at_end = true;
    }

    #[entry]
    fn exit(&self, cx: &Cx<Self>, code: i32) {
        cx.exit(code);
    }
}

/// Says when something goes wrong, by the clock that other programs see too.
fn goes_wrong() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
    println!("it goes wrong at {} ms", now.as_millis());
}

/// Waits for a process that a signal keeps from answering.
async fn lose(last: &Element<Member>, signal: &str) -> Result<()> {
    last.signal(signal.into()).send();
    Ok(last.wait_for_ever().await?)
}

/// Has one compute; returns when it has begun.
async fn keep_busy(rt: &Runtime, member: &Element<Member>, seconds: u64) -> Result<()> {
    let (to, began) = rt.promise();
    member.keep_busy(to, seconds).send();
    Ok(began.await?)
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    let members = rt.group::<Member>().create(0).await?;
    let last = members.on(rt.num_pes() - 1);
    let args = rt.args();
    if args.len() > 1 {
        let mut processes = members.process().gather().await?;
        processes.dedup();
        println!("processes {processes:?}");
    }
    match args.get(1).map(String::as_str) {
        None => {}
        Some("panic") => return Ok(last.panic().await?),
        Some("panic-unawaited") => {
            last.panic().send();
            rt.sleep(Duration::MAX).await;
        }
        Some("error") => {
            last.fail().send();
            rt.sleep(Duration::MAX).await;
        }
        Some("hang") => return Ok(last.wait_for_ever().await?),
        Some("exit") => {
            last.exit(args[2].parse()?).send();
            rt.sleep(Duration::MAX).await;
        }
        Some("kill") => return lose(&last, "KILL").await,
        Some("stop") => return lose(&last, "STOP").await,
        Some("compute") => assert_eq!(last.compute(args[2].parse()?).await?, 1),
        Some("compute-and-kill") => {
            last.signal("KILL".into()).send();
            members.on(0).compute(u64::MAX).await?;
        }
        Some("compute-and-panic") => {
            let seconds = |at: usize| args.get(at).map(|seconds| seconds.parse()).transpose();
            if let Some(seconds) = seconds(3)? {
                keep_busy(&rt, &members.on(rt.num_pes() - 2), seconds).await?;
            }
            last.panic().send();
            members.on(0).compute(seconds(2)?.unwrap_or(u64::MAX)).await?;
        }
        Some("compute-and-panic-at-end") => {
            keep_busy(&rt, &members.on(1), u64::MAX).await?;
            return Ok(last.panic_at_end().await?);
        }
        Some(other) => return Err(format!("`{other}` is no way to end").into()),
    }

    let (to, token) = rt.promise();
    members.on(0).pass(members, 0, 3, to).send();
    let pes = rt.num_pes() as u64;
    assert_eq!(token.await?, 3 * pes * (pes - 1) / 2);
    assert_eq!(members.heard().gather().await?, vec![3; rt.num_pes()]);
    let error = last.fail().await.expect_err("it always fails").to_string();
    assert!(error.ends_with(&format!("PE {} has no such thing", rt.num_pes() - 1)), "{error}");

    let strips = rt.array::<Strip>(12).create(50).await?;
    let (heat, others) = {
        let all = strips.conduct(40, 12).gather().await?;
        (all[0], all)
    };
    assert!(others.iter().all(|other| *other == heat), "all have one sum");
    let field: Vec<f64> = (0..300_000).map(f64::from).collect();
    let halved = strips.at(11).halve(field).await?;
    assert_eq!((halved.len(), halved[149_999]), (150_000, 299_998.0));
    let (to, gathered) = rt.promise();
    strips.give(to.into()).send();
    assert_eq!(gathered.await?, ((0..12).collect(), 11));
    rt.quiescence().await?;
    println!("heat {heat:.9}");
    Ok(())
}
