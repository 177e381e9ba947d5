//! The same PEs and messages as tasks of `shuttle`, whose schedulers choose instead of a seed of ours.
//!
//! Each PE is a task, and so is each way from one PE to another, which lets its messages arrive in their order. A task does
//! one thing between two points at which another may go on instead; one with nothing to do sleeps until it has something.
//! The scheduler with priorities finds any order that takes few changes of who goes first, with a likelihood that is known
//! ("A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use shuttle::scheduler::{PctScheduler, ReplayScheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::{Config, Runner};

use super::{Case, Choice, Model, Order};
use crate::report::ExitReport;
use crate::runtime::{MainOutput, Runtime};

/// A schedule, as shuttle prints it when a program fails, to be run again alone.
const SCHEDULE_VARIABLE: &str = "CHARE_MODEL_SCHEDULE";
/// Changes of who goes first in one run.
const DEPTH: usize = 4;
/// What one task does before all others go before it: no message is on its way for ever, and those who await quiescence ask
/// again until it has come.
const PATIENCE: usize = 100;
/// Code of users runs on these stacks, and what panics in it is told there.
const STACK_BYTES: usize = 1 << 20;

/// Runs a program so many times, or by the schedule that the environment names.
pub(crate) fn explore(runs: usize, program: impl Fn(Case) + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    // The seed is drawn by the scheduler, so that a schedule is all that it takes to run a case again.
    let program =
        move || program(Case::new(shuttle::rand::Rng::r#gen(&mut shuttle::rand::thread_rng()), Order::Pair));
    match std::env::var(SCHEDULE_VARIABLE) {
        Ok(schedule) => Runner::new(ReplayScheduler::new_from_encoded(&schedule), config).run(program),
        Err(_) => Runner::new(PctScheduler::new(DEPTH, runs), config).run(program),
    };
}

/// Runs a program to its end, and says how it ended.
pub(crate) fn run<F, Fut, R>(case: Case, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let model = Model::new(case);
    model.start(main);
    let lanes = model.net.lanes.borrow().len();
    let choices = (0..case.pe_count).map(Choice::Work).chain((0..lanes).map(Choice::Arrival));
    let stage = Rc::new(Stage {
        model: RefCell::new(model),
        asleep: RefCell::default(),
        is_over: AtomicBool::new(false),
    });
    let players: Vec<_> =
        choices.map(|choice| shuttle::future::spawn_local(stage.clone().play(choice))).collect();
    shuttle::future::block_on(async {
        for player in players {
            player.await.expect("a player is not aborted");
        }
    });
    let stage = Rc::into_inner(stage).expect("its players have gone");
    stage.model.into_inner().conclude()
}

/// The run that the tasks share. It is not borrowed where another may go on.
struct Stage {
    model: RefCell<Model>,
    asleep: RefCell<Vec<(Choice, Waker)>>,
    is_over: AtomicBool,
}

impl Stage {
    /// Does whatever there is for one PE or on one way, until the run ends.
    async fn play(self: Rc<Self>, choice: Choice) {
        let mut acts = 0;
        // Reading it is where another task may go on instead.
        while !self.is_over.load(Ordering::SeqCst) {
            if self.model.borrow().is_possible(choice) {
                self.act(choice);
                acts += 1;
                if acts % PATIENCE == 0 {
                    shuttle::future::yield_now().await;
                }
            } else {
                poll_fn(|context| self.sleep(choice, context)).await;
            }
        }
    }

    fn sleep(&self, choice: Choice, context: &mut Context<'_>) -> Poll<()> {
        let model = self.model.borrow();
        if model.shared.is_stopping() || model.is_possible(choice) {
            return Poll::Ready(());
        }
        self.asleep.borrow_mut().push((choice, context.waker().clone()));
        Poll::Pending
    }

    fn act(&self, choice: Choice) {
        let mut model = self.model.borrow_mut();
        if !model.is_over() {
            model.act(choice);
            if !model.is_over() && !model.is_anything_possible() {
                model.rest();
            }
        }
        let is_over = model.is_over();
        let mut asleep = self.asleep.borrow_mut();
        let woken: Vec<_> =
            asleep.extract_if(.., |(choice, _)| is_over || model.is_possible(*choice)).collect();
        drop((model, asleep));
        if is_over {
            self.is_over.store(true, Ordering::SeqCst);
        }
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }
}
