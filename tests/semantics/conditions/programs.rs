//! Whole programs that rely on conditions: stencils whose neighbours run ahead, and workers that take one thing at a time.

use chare::prelude::*;

/// A part of a ring of numbers. Each step a number becomes the sum of itself and its neighbours, modulo a prime.
struct Block {
    /// 0 before it has begun.
    step: u32,
    values: Vec<u64>,
    left: Option<u64>,
    right: Option<u64>,
}

const PRIME: u64 = 1_000_003;

fn stepped(values: &[u64], left: u64, right: u64) -> Vec<u64> {
    let at = |index: usize| match index {
        0 => left,
        _ => values.get(index - 1).copied().unwrap_or(right),
    };
    (1..=values.len()).map(|index| (at(index - 1) + at(index) + at(index + 1)) % PRIME).collect()
}

#[chare(index = usize)]
impl Block {
    fn new(cx: &Cx<Self>, len: usize) -> Self {
        let values = (0..len).map(|place| (cx.index() * len + place) as u64).collect();
        Block { step: 0, values, left: None, right: None }
    }

    /// Sends its ends to the neighbours. Those that it is ahead of keep them.
    #[entry]
    fn start(&mut self, cx: &Cx<Self>, steps: u32) {
        self.step = 1;
        self.exchange(cx, steps);
    }

    #[entry(when = |block: &Self, step: &u32, _: &u32, _: &bool, _: &u64| block.step == *step)]
    fn ghost(&mut self, cx: &Cx<Self>, step: u32, steps: u32, from_left: bool, value: u64) {
        assert_eq!(self.step, step);
        let side = if from_left { &mut self.left } else { &mut self.right };
        assert!(side.replace(value).is_none(), "one value a step from each neighbour");
        self.advance(cx, steps);
    }

    /// The same by a tag.
    #[entry(when(self.step == step))]
    fn tagged_ghost(&mut self, cx: &Cx<Self>, step: u32, steps: u32, from_left: bool, value: u64) {
        self.ghost(cx, step, steps, from_left, value);
    }

    #[entry]
    fn values(&self) -> (Vec<u64>, u32) {
        (self.values.clone(), self.step)
    }
}

impl Block {
    fn exchange(&self, cx: &Cx<Self>, steps: u32) {
        if self.step > steps {
            return;
        }
        let count = cx.array().shape();
        let (left, right) = ((cx.index() + count - 1) % count, (cx.index() + 1) % count);
        let (first, last) = (self.values[0], *self.values.last().expect("blocks are not empty"));
        cx.array().at(left).tagged_ghost(self.step, steps, false, first).send();
        cx.array().at(right).ghost(self.step, steps, true, last).send();
    }

    fn advance(&mut self, cx: &Cx<Self>, steps: u32) {
        let (Some(left), Some(right)) = (self.left, self.right) else { return };
        (self.left, self.right) = (None, None);
        self.values = stepped(&self.values, left, right);
        self.step += 1;
        self.exchange(cx, steps);
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_stencil_whose_neighbours_run_ahead(rt: Runtime) -> Result<()> {
    const STEPS: u32 = 60;
    let (blocks, len) = (4 * rt.num_pes() + 1, 5);
    let ring = rt.array::<Block>(blocks).create(len).await?;
    // One after another: the first ones send their ghosts long before the last one has begun.
    for index in 0..blocks {
        ring.at(index).start(STEPS).send();
        rt.quiescence().await?;
    }
    let mut expected: Vec<u64> = (0..(blocks * len) as u64).collect();
    for _ in 0..STEPS {
        let (first, last) = (expected[0], *expected.last().expect("there are numbers"));
        expected = stepped(&expected, last, first);
    }
    let ends = ring.values().gather().await?;
    assert!(ends.iter().all(|(_, step)| *step == STEPS + 1));
    assert_eq!(ends.into_iter().flat_map(|(values, _)| values).collect::<Vec<_>>(), expected);
    Ok(())
}

const SENT_BY_EACH: u32 = 20;

/// Member 0 hears the others one after another, however they send.
struct Roll {
    current: usize,
    heard: u32,
    log: Vec<usize>,
}

#[chare]
impl Roll {
    fn new() -> Self {
        Roll { current: 1, heard: 0, log: Vec::new() }
    }

    #[entry(when(self.current == id))]
    fn hear(&mut self, cx: &Cx<Self>, id: usize, text: String) {
        assert!(cx.my_pe().index() == 0 && self.current == id && text == "hi");
        self.log.push(id);
        self.heard += 1;
        if self.heard == SENT_BY_EACH {
            self.heard = 0;
            self.current += 1;
        }
    }

    #[entry]
    fn call_out(&mut self, cx: &Cx<Self>, left: u32) {
        if cx.my_pe().index() > 0 && left > 0 {
            cx.group().expect("a group").on(0_usize).hear(cx.my_pe().index(), "hi".to_owned()).send();
            cx.this().call_out(left - 1).send();
        }
    }

    #[entry]
    fn log(&self) -> Vec<usize> {
        self.log.clone()
    }
}

#[chare::test(pes = [3, 4, 8])]
async fn one_hears_the_others_in_turn(rt: Runtime) -> Result<()> {
    let roll = rt.group::<Roll>().create(()).await?;
    roll.call_out(SENT_BY_EACH).await?;
    rt.quiescence().await?;
    let expected: Vec<_> =
        (1..rt.num_pes()).flat_map(|pe| std::iter::repeat_n(pe, SENT_BY_EACH as usize)).collect();
    assert_eq!(roll.on(0_usize).log().await?, expected);
    Ok(())
}

const WORK: u64 = 3 * 7 * 11;
const REPEATS: u64 = 10;
const TASKS_EACH: usize = 40;
const ROUNDS: usize = 10;

/// Does one thing at a time, each in three messages.
struct Worker {
    is_ready: bool,
    controller: Element<Controller>,
}

#[chare(index = usize)]
impl Worker {
    fn new(controller: Element<Controller>) -> Self {
        Worker { is_ready: true, controller }
    }

    #[entry(when = |worker: &Self| worker.is_ready)]
    fn start_work(&mut self, cx: &Cx<Self>, work: u64) {
        assert!(self.is_ready);
        self.is_ready = false;
        cx.this().work(work).send();
    }

    #[entry]
    fn work(&mut self, cx: &Cx<Self>, work: u64) {
        assert!(!self.is_ready);
        cx.this().finish_work((0..REPEATS).map(|_| work).sum()).send();
    }

    #[entry]
    fn finish_work(&mut self, result: u64) {
        assert!(!self.is_ready);
        assert_eq!(result, WORK * REPEATS);
        self.is_ready = true;
        self.controller.task_done().send();
    }
}

struct Controller {
    workers: Option<Array<Worker>>,
    done: usize,
    round: usize,
    finished: Option<Promise<usize>>,
}

#[chare]
impl Controller {
    fn new() -> Self {
        Controller { workers: None, done: 0, round: 0, finished: None }
    }

    #[entry]
    fn start(&mut self, workers: Array<Worker>, finished: Promise<usize>) {
        (self.workers, self.finished) = (Some(workers), Some(finished));
        self.send_work();
    }

    #[entry]
    fn task_done(&mut self) -> Result<()> {
        self.done += 1;
        let workers = self.workers.as_ref().map_or(0, |workers| workers.shape());
        if self.done == (self.round + 1) * workers * TASKS_EACH {
            self.round += 1;
            if self.round < ROUNDS {
                self.send_work();
            } else if let Some(finished) = self.finished.take() {
                finished.send(self.done)?;
            }
        }
        Ok(())
    }
}

impl Controller {
    fn send_work(&self) {
        let Some(workers) = &self.workers else { return };
        for worker in 0..workers.shape() {
            for _ in 0..TASKS_EACH {
                workers.at(worker).start_work(WORK).send();
            }
        }
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn workers_take_one_task_at_a_time(rt: Runtime) -> Result<()> {
    let controller = rt.single::<Controller>().create(()).await?;
    let count = 8 * rt.num_pes();
    let workers = rt.array::<Worker>(count).create(controller).await?;
    let (finished, all) = rt.promise();
    controller.start(workers, finished).await?;
    assert_eq!(all.await?, count * TASKS_EACH * ROUNDS);
    Ok(())
}

const ITERATIONS: u64 = 30;

/// Each asks all others for a value of each iteration. Their coroutines wait while they answer, so several answer at once,
/// all of the same iteration.
struct Asker {
    iteration: u64,
    answered: usize,
    base: Group<Base>,
}

#[chare(index = usize)]
impl Asker {
    fn new(base: Group<Base>) -> Self {
        Asker { iteration: 0, answered: 0, base }
    }

    #[entry]
    async fn ask_all(this: This<Self>, homes: Vec<PeId>) -> Result<()> {
        for iteration in 0..ITERATIONS {
            for (index, home) in homes.iter().enumerate() {
                let value = this.array().at(index).value(iteration).await?;
                assert_eq!(value, 53 * index as u64 * (73 + home.index() as u64) * iteration);
            }
        }
        Ok(())
    }

    #[entry(when(self.iteration == iteration))]
    async fn value(this: This<Self>, iteration: u64) -> Result<u64> {
        let base = this.with(|asker| asker.base);
        let base = base.on(this.my_pe()).value().await?;
        let count = this.array().shape();
        Ok(this.with(|asker| {
            assert_eq!(asker.iteration, iteration);
            let value = 53 * base * this.index() as u64 * asker.iteration;
            asker.answered += 1;
            if asker.answered == count {
                (asker.answered, asker.iteration) = (0, asker.iteration + 1);
            }
            value
        }))
    }

    #[entry]
    fn home(&self, cx: &Cx<Self>) -> PeId {
        cx.my_pe()
    }
}

struct Base;

#[chare]
impl Base {
    fn new() -> Self {
        Base
    }

    #[entry]
    fn value(&self, cx: &Cx<Self>) -> u64 {
        73 + cx.my_pe().index() as u64
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn coroutines_of_one_iteration_answer_together(rt: Runtime) -> Result<()> {
    let base = rt.group::<Base>().create(()).await?;
    let askers = rt.array::<Asker>(8 * rt.num_pes()).create(base).await?;
    let homes = askers.home().gather().await?;
    askers.ask_all(homes).await?;
    Ok(())
}
