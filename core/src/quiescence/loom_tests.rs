//! The quiescence board under the loom model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p chare --release --lib loom`.
//!
//! PEs are cut down to what the board sees of them: messages are numbers, an inbox is how many were pushed. What is
//! really unfinished is counted beside the model, in an atomic that loom does not see and that therefore orders nothing.

use std::sync::atomic::AtomicUsize as Uncontrolled;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::{Announced, Board, Counts, Found};
use crate::scheduler::sync::{AtomicU64, AtomicUsize, Ordering};

/// Thread parking: one token. loom's own passes on what the waking thread knows before the sleeper has used the token.
struct Parking {
    token: Mutex<bool>,
    given: Condvar,
}

impl Parking {
    fn new() -> Self {
        Parking { token: Mutex::new(false), given: Condvar::new() }
    }

    fn unpark(&self) {
        *self.token.lock().expect("nobody panics here") = true;
        self.given.notify_one();
    }

    fn park(&self) {
        let mut token = self.token.lock().expect("nobody panics here");
        while !std::mem::take(&mut *token) {
            token = self.given.wait(token).expect("nobody panics here");
        }
    }
}

/// What the PEs of a model share.
struct World {
    board: Board,
    /// Messages that were ever pushed into the inbox of each PE.
    pushed: Vec<AtomicU64>,
    parking: Vec<Parking>,
    outsiders: AtomicUsize,
    device_operations: AtomicUsize,
    /// Messages of PEs that are not done, and whatever else is being done, in truth.
    unfinished: Uncontrolled,
    /// Messages of foreign threads that each PE has not taken, in truth.
    foreign: Vec<Uncontrolled>,
}

impl World {
    fn new(pe_count: usize) -> Arc<World> {
        Arc::new(World {
            board: Board::new(pe_count),
            pushed: (0..pe_count).map(|_| AtomicU64::new(0)).collect(),
            parking: (0..pe_count).map(|_| Parking::new()).collect(),
            outsiders: AtomicUsize::new(0),
            device_operations: AtomicUsize::new(0),
            unfinished: Uncontrolled::new(0),
            foreign: (0..pe_count).map(|_| Uncontrolled::new(0)).collect(),
        })
    }

    fn begin(&self) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&self) {
        self.unfinished.fetch_sub(1, Ordering::Relaxed);
    }

    /// As `Inbox::push`, with an owner who always sleeps.
    fn push(&self, to: usize) {
        self.pushed[to].fetch_add(1, Ordering::Release);
        self.parking[to].unpark();
    }

    /// As `Shared::post_foreign`.
    fn post_foreign(&self, to: usize) {
        self.foreign[to].fetch_add(1, Ordering::Relaxed);
        self.board.count_foreign();
        self.push(to);
    }

    /// The verdict of PE 0, which must be right: quiescent means that nothing was going on at a moment between the
    /// two readings, and if there is no outsider, that nothing ever will. True if the program is over.
    fn judge(&self) -> bool {
        let unfinished = || self.unfinished.load(Ordering::Relaxed);
        let mut between = 0;
        let device_works = || {
            between = unfinished();
            self.device_operations.load(Ordering::SeqCst) > 0
        };
        let found = self.board.look(|| self.outsiders.load(Ordering::SeqCst) > 0, device_works);
        let Found::Quiescent { has_outsiders, .. } = found else { return false };
        assert_eq!(between, 0, "quiescent, with so many messages unfinished");
        if !has_outsiders {
            let foreign: usize = self.foreign.iter().map(|count| count.load(Ordering::Relaxed)).sum();
            assert_eq!(unfinished() + foreign, 0, "over, with so many messages unfinished");
        }
        !has_outsiders
    }
}

/// A PE, driven as `scheduler::thread` drives one.
struct ModelPe {
    world: Arc<World>,
    id: usize,
    counts: Counts,
}

impl ModelPe {
    fn new(world: &Arc<World>, id: usize) -> Self {
        ModelPe { world: world.clone(), id, counts: Counts::default() }
    }

    fn post(&mut self, to: usize) {
        self.world.begin();
        self.counts.posted += 1;
        self.world.push(to);
    }

    fn go_idle(&self) {
        if self.world.board.enter_idle(self.id, self.counts) == Announced::Last && self.id != 0 {
            self.world.parking[0].unpark();
        }
    }

    /// Takes a message, if there is one: from here on this PE is active.
    fn receive(&mut self) -> bool {
        let has_mail = self.world.pushed[self.id].load(Ordering::Acquire) > self.counts.taken;
        if has_mail {
            self.counts.taken += 1;
            let foreign = &self.world.foreign[self.id];
            if foreign.load(Ordering::Relaxed) > 0 {
                foreign.fetch_sub(1, Ordering::Relaxed);
                self.world.begin();
            }
            self.world.board.leave_idle(self.id);
        }
        has_mail
    }

    /// Waits for a message and takes it.
    fn await_message(&mut self) {
        while !self.receive() {
            self.world.parking[self.id].park();
        }
    }

    /// What PE 0 does from its becoming idle to the end of the program, if all that comes is answers.
    fn judge_to_the_end(&mut self) {
        self.go_idle();
        while !self.world.judge() {
            self.world.parking[0].park();
            if self.receive() {
                self.world.finish();
                self.go_idle();
            }
        }
    }
}

/// A PE that does what one message asks for, once, and is idle before and after.
fn spawn_idle(mut pe: ModelPe, work: impl FnOnce(&mut ModelPe) + 'static) -> thread::JoinHandle<()> {
    pe.go_idle();
    thread::spawn(move || {
        pe.await_message();
        work(&mut pe);
        pe.world.finish();
        pe.go_idle();
    })
}

/// PE 2 posts to PE 1 and becomes idle; PE 1 posts back, behind the reader that has seen it idle before.
#[test]
fn loom_a_message_in_between_is_not_missed() {
    loom::model(|| {
        let world = World::new(3);
        let judge = ModelPe::new(&world, 0);
        judge.go_idle();
        let first = spawn_idle(ModelPe::new(&world, 1), |pe| pe.post(2));
        let mut pe = ModelPe::new(&world, 2);
        let second = thread::spawn(move || {
            pe.post(1);
            pe.go_idle();
            pe.await_message();
            pe.world.finish();
            pe.go_idle();
        });
        let _ = world.judge();
        first.join().unwrap();
        second.join().unwrap();
        assert!(world.judge(), "all is over, and the judge does not say so");
    });
}

/// PE 0 asks, PE 1 answers: whoever is last to become idle, PE 0 judges after that.
#[test]
fn loom_the_last_to_become_idle_has_it_judged() {
    loom::model(|| {
        let world = World::new(2);
        let mut judge = ModelPe::new(&world, 0);
        let other = spawn_idle(ModelPe::new(&world, 1), |pe| pe.post(0));
        judge.post(1);
        judge.judge_to_the_end();
        other.join().unwrap();
    });
}

/// No message at all: only the announcement of the last PE can wake PE 0.
#[test]
fn loom_an_announcement_wakes_the_judge() {
    loom::model(|| {
        let world = World::new(3);
        let mut judge = ModelPe::new(&world, 0);
        let others = [1, 2].map(|id| {
            let pe = ModelPe::new(&world, id);
            world.begin();
            thread::spawn(move || {
                pe.world.finish();
                pe.go_idle();
            })
        });
        judge.judge_to_the_end();
        for other in others {
            other.join().unwrap();
        }
    });
}

/// A message of PE 1 must not be made up for by the foreign message that it answers.
#[test]
fn loom_a_foreign_message_is_counted_before_it_comes() {
    loom::model(|| {
        let world = World::new(2);
        world.outsiders.store(1, Ordering::SeqCst);
        let mut judge = ModelPe::new(&world, 0);
        judge.go_idle();
        let other = spawn_idle(ModelPe::new(&world, 1), |pe| pe.post(0));
        let foreign = {
            let world = world.clone();
            thread::spawn(move || world.post_foreign(1))
        };
        let _ = world.judge();
        other.join().unwrap();
        foreign.join().unwrap();
        assert!(judge.receive());
        world.finish();
        judge.go_idle();
        world.outsiders.store(0, Ordering::SeqCst);
        assert!(world.judge(), "all is over, and the judge does not say so");
    });
}

/// A thread that is no PE posts and then gives up its handle: the end is not judged before its message is done.
#[test]
fn loom_a_foreign_message_is_counted_before_its_sender_goes() {
    loom::model(|| {
        let world = World::new(2);
        world.outsiders.store(1, Ordering::SeqCst);
        let mut judge = ModelPe::new(&world, 0);
        let other = spawn_idle(ModelPe::new(&world, 1), |_| {});
        let foreign = {
            let world = world.clone();
            thread::spawn(move || {
                world.post_foreign(1);
                world.outsiders.fetch_sub(1, Ordering::SeqCst);
                world.parking[0].unpark();
            })
        };
        judge.judge_to_the_end();
        other.join().unwrap();
        foreign.join().unwrap();
    });
}

/// PE 1 starts an operation of a device and becomes idle; the operation's end wakes PE 1 by a foreign message.
#[test]
fn loom_a_device_is_not_overlooked() {
    loom::model(|| {
        let world = World::new(2);
        let judge = ModelPe::new(&world, 0);
        judge.go_idle();
        let mut pe = ModelPe::new(&world, 1);
        world.begin();
        let other = thread::spawn(move || {
            pe.world.device_operations.fetch_add(1, Ordering::SeqCst);
            let device = {
                let world = pe.world.clone();
                thread::spawn(move || {
                    world.post_foreign(1);
                    world.device_operations.fetch_sub(1, Ordering::SeqCst);
                })
            };
            pe.go_idle();
            pe.await_message();
            // The message, and what began with the operation.
            pe.world.finish();
            pe.world.finish();
            pe.go_idle();
            device.join().unwrap();
        });
        let _ = world.judge();
        other.join().unwrap();
        assert!(world.judge(), "all is over, and the judge does not say so");
    });
}
