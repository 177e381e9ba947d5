//! charm4py tests/when: messages that wait until their chare is ready for them.

mod when_test {
    //! charm4py tests/when/when_test.py: one member hears the others one after the other, twenty messages of each, in
    //! whatever order they are sent.

    use chare::prelude::*;

    const EACH: u32 = 20;

    struct Test {
        current: usize,
        received: u32,
        sent: u32,
        done: Promise<()>,
    }

    #[chare]
    impl Test {
        fn new(done: Promise<()>) -> Self {
            Test { current: 1, received: 0, sent: 0, done }
        }

        #[entry(when(self.current == id))]
        fn hear(&mut self, cx: &Cx<Self>, id: usize, message: String) -> Result<()> {
            assert_eq!((cx.index(), self.current, &*message), (0, id, "hi"));
            self.received += 1;
            if self.received == EACH {
                self.received = 0;
                self.current += 1;
                if self.current == cx.num_pes() {
                    self.done.send(())?;
                }
            }
            Ok(())
        }

        /// Sends one and asks itself for the next, so that the members take turns.
        #[entry]
        fn run(&mut self, cx: &Cx<Self>) -> Result<()> {
            if cx.index() == 0 || self.sent == EACH {
                return Ok(());
            }
            cx.group().ok_or("a member of a group")?.on(0).hear(cx.index(), "hi".to_owned()).send();
            self.sent += 1;
            cx.this().run().send();
            Ok(())
        }
    }

    // With one PE there is nobody to hear.
    #[chare::test(pes = [2, 4, 8])]
    async fn one_hears_the_others_in_turn(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.group::<Test>().create(done).send().run().send();
        Ok(is_done.await?)
    }
}

mod when_test2 {
    //! charm4py tests/when/when_test2.py: workers that get forty tasks at once, round after round, begin one when they have
    //! ended the one before, which takes them several messages.

    use chare::prelude::*;

    const WORK: u64 = 3 * 7 * 11;
    const REPEATS: u64 = 10;

    fn tasks() -> usize {
        crate::real_or_simulated(40, 8)
    }

    fn rounds() -> usize {
        crate::real_or_simulated(30, 2)
    }

    struct Worker {
        ready: bool,
        controller: Element<Controller>,
    }

    #[chare(index = usize)]
    impl Worker {
        fn new(controller: Element<Controller>) -> Self {
            Worker { ready: true, controller }
        }

        #[entry(when = |worker: &Self| worker.ready)]
        fn start_work(&mut self, cx: &Cx<Self>, work: u64) {
            assert!(std::mem::take(&mut self.ready));
            cx.this().work(work).send();
        }

        #[entry]
        fn work(&mut self, cx: &Cx<Self>, work: u64) {
            assert!(!self.ready);
            cx.this().work_done(work * REPEATS).send();
        }

        #[entry]
        fn work_done(&mut self, result: u64) {
            assert_eq!((self.ready, result), (false, WORK * REPEATS));
            self.ready = true;
            self.controller.task_done().send();
        }
    }

    struct Controller {
        workers: Option<Array<Worker>>,
        completed: usize,
        round: usize,
        done: Promise<()>,
    }

    #[chare]
    impl Controller {
        fn new(done: Promise<()>) -> Self {
            Controller { workers: None, completed: 0, round: 0, done }
        }

        #[entry]
        fn start(&mut self, workers: Array<Worker>) {
            self.workers = Some(workers);
            self.send_work();
        }

        #[entry]
        fn task_done(&mut self) -> Result<()> {
            let workers = self.workers.ok_or("set by `start`")?;
            self.completed += 1;
            if self.completed == workers.shape() * tasks() {
                self.completed = 0;
                self.round += 1;
                if self.round == rounds() {
                    return Ok(self.done.send(())?);
                }
                self.send_work();
            }
            Ok(())
        }

        fn send_work(&self) {
            for worker in self.workers.iter().flat_map(|workers| workers.elements()) {
                (0..tasks()).for_each(|_| worker.start_work(WORK).send());
            }
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn workers_do_one_thing_at_a_time(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        let controller = rt.single::<Controller>().on_pe(0).create(done).send();
        let workers = rt.array::<Worker>((rt.num_pes() * 8).min(128)).create(controller).send();
        controller.start(workers).send();
        Ok(is_done.await?)
    }
}

mod perf_test {
    //! charm4py tests/when/perf_test.py: broadcasts with many different tags, in any order, are run in the order of the tags
    //! by every member; each tag comes ten times.

    use crate::Random;
    use chare::prelude::*;

    const EACH: u32 = 10;

    fn tags() -> u64 {
        crate::real_or_simulated(10_000, 40)
    }

    struct Worker {
        current: u64,
        count: u32,
        done: Promise<()>,
    }

    #[chare]
    impl Worker {
        fn new(done: Promise<()>) -> Self {
            Worker { current: 0, count: 0, done }
        }

        #[entry(when(self.current == tag))]
        fn receive(&mut self, cx: &Cx<Self>, tag: u64) {
            assert_eq!(tag, self.current);
            self.count += 1;
            if self.count == EACH {
                self.count = 0;
                self.current += 1;
                if self.current == tags() {
                    cx.contribute((), reduce::Nop, &self.done);
                }
            }
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn tags_are_served_in_their_order(rt: Runtime) -> Result<()> {
        let (done, all_done) = rt.promise();
        let group = rt.group::<Worker>().create(done).send();
        let mut tags: Vec<u64> = (0..tags()).collect();
        Random(45_782).shuffle(&mut tags);
        for tag in tags {
            (0..EACH).for_each(|_| group.receive(tag).send());
        }
        Ok(all_done.await?)
    }
}

mod stencil {
    //! charm4py tests/when/stencil.py: cells on a ring exchange with three neighbours on each side, iteration after
    //! iteration; a coroutine waits for a future that the last value of its iteration fulfils.

    use chare::prelude::*;

    const PER_PE: usize = 8;

    fn iterations() -> usize {
        crate::real_or_simulated(500, 6)
    }

    struct Cell {
        iteration: Option<usize>,
        received: usize,
        complete: Option<Promise<()>>,
    }

    #[chare(index = usize)]
    impl Cell {
        fn new() -> Self {
            Cell { iteration: None, received: 0, complete: None }
        }

        #[entry]
        async fn work(this: This<Self>) -> Result<()> {
            let count = this.array().shape();
            let neighbours: Vec<_> = (1..4)
                .flat_map(|i| [(this.index() + i) % count, (this.index() + count - i) % count])
                .map(|index| this.array().at(index))
                .collect();
            for iteration in 0..iterations() {
                let (complete, is_complete) = this.promise();
                this.with(|cell| (cell.iteration, cell.complete) = (Some(iteration), Some(complete)));
                for neighbour in &neighbours {
                    neighbour.receive(Some(iteration), vec![iteration; 10]).send();
                }
                is_complete.await?;
            }
            Ok(())
        }

        #[entry(when(self.iteration == iteration))]
        fn receive(&mut self, iteration: Option<usize>, values: Vec<usize>) -> Result<()> {
            assert_eq!((Some(values[9]), iteration), (self.iteration, self.iteration));
            self.received += 1;
            if self.received == 6 {
                self.received = 0;
                self.complete.take().ok_or("one value too many")?.send(())?;
            }
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn values_wait_for_their_iteration(rt: Runtime) -> Result<()> {
        let cells = rt.array::<Cell>(rt.num_pes() * PER_PE).create(()).await?;
        Ok(cells.work().await?)
    }
}

mod test_when_syntax {
    //! charm4py tests/when/test_when_syntax.py: conditions on a tag, on a part of an argument, on the state alone and on
    //! state and arguments are each told for what they are. There strings are parsed into objects; here each kind is seen
    //! by when its calls run.

    use chare::prelude::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        step: u32,
    }

    #[derive(Default)]
    struct Test {
        step: u32,
        x: i32,
        y: i32,
        ran: Vec<&'static str>,
    }

    #[chare]
    impl Test {
        fn new() -> Self {
            Test::default()
        }

        #[entry(when(self.step == step))]
        fn tag(&mut self, step: u32) {
            let _ = step;
            self.ran.push("tag");
        }

        #[entry(when(message.step == self.step))]
        fn part(&mut self, message: Message) {
            let _ = message;
            self.ran.push("part");
        }

        #[entry(when = |test: &Self| test.x + test.y == 3)]
        fn state(&mut self) {
            self.ran.push("state");
        }

        #[entry(when = |test: &Self, x: &i32, y: &i32| test.x == x + y)]
        fn both(&mut self, x: i32, y: i32) {
            let _ = (x, y);
            self.ran.push("both");
        }

        #[entry(when = |_: &Self, x: &i32, y: &i32| x < y)]
        fn arguments(&mut self, x: i32, y: i32) {
            let _ = (x, y);
            self.ran.push("arguments");
        }

        #[entry]
        fn set(&mut self, step: u32, x: i32, y: i32) {
            (self.step, self.x, self.y) = (step, x, y);
        }

        #[entry]
        fn take_ran(&mut self) -> Vec<String> {
            self.ran.drain(..).map(str::to_owned).collect()
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn each_kind_of_condition_holds_when_it_says(rt: Runtime) -> Result<()> {
        let test = rt.single::<Test>().on_pe(rt.num_pes() - 1).create(()).send();
        test.part(Message { step: 2 }).send();
        test.both(4, 5).send();
        test.state().send();
        test.tag(1).send();
        test.arguments(1, 2).send();
        rt.quiescence().await?;
        assert_eq!(test.take_ran().await?, ["arguments"]);
        for ((step, x, y), ran) in
            [((1, 0, 0), &["tag"][..]), ((0, 1, 2), &["state"]), ((2, 9, 0), &["part", "both"])]
        {
            test.set(step, x, y).await?;
            rt.quiescence().await?;
            let mut now = test.take_ran().await?;
            now.sort_unstable_by(|one, other| other.cmp(one));
            assert_eq!(now, ran);
        }
        Ok(())
    }
}
