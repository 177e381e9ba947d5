//! charm4py tests/callbacks: callbacks handed from chare to chare, and called by the clock.

#[expect(clippy::module_inception, reason = "the program has the name of its folder")]
mod callbacks {
    //! charm4py tests/callbacks/callbacks.py: the result of a reduction, or of a coroutine that waited for one, goes to
    //! whatever callback came along: an entry of one element, of all elements, a future.

    use chare::prelude::*;

    fn sum_of_indexes(pes: usize) -> usize {
        pes * (pes - 1) / 2
    }

    struct Controller;

    #[chare(index = usize)]
    impl Controller {
        fn new() -> Self {
            Controller
        }

        #[entry]
        async fn start(this: This<Self>, workers: Group<Worker>, callback: Callback<usize>) -> Result<()> {
            let (to, sum) = this.promise();
            workers.work(to.into()).send();
            Ok(callback.deliver(sum.await?)?)
        }
    }

    struct Worker;

    #[chare]
    impl Worker {
        fn new() -> Self {
            Worker
        }

        #[entry]
        fn work(&self, cx: &Cx<Self>, callback: Callback<usize>) {
            cx.contribute(cx.index(), reduce::Sum, callback);
        }
    }

    struct Receiver {
        main: Element<Main>,
    }

    #[chare(index = usize)]
    impl Receiver {
        fn new(main: Element<Main>) -> Self {
            Receiver { main }
        }

        #[entry]
        fn result(&self, cx: &Cx<Self>, sum: usize) {
            assert_eq!(sum, sum_of_indexes(cx.num_pes()));
            self.main.work_done(cx.index()).send();
        }

        #[entry]
        fn result_to_all(&self, cx: &Cx<Self>, sum: usize) {
            assert_eq!(sum, sum_of_indexes(cx.num_pes()));
            cx.contribute(100, reduce::Sum, self.main.callback(Main::WORK_DONE));
        }
    }

    struct Main {
        done: Option<usize>,
    }

    #[chare]
    impl Main {
        fn new() -> Self {
            Main { done: None }
        }

        #[entry]
        fn work_done(&mut self, by: usize) {
            assert_eq!(self.done.replace(by), None);
        }

        #[entry]
        async fn run(this: This<Self>) -> Result<()> {
            let rt: &Runtime = &this;
            let pes = rt.num_pes();
            let workers = rt.group::<Worker>().create(()).send();
            let controllers = rt.array::<Controller>(4).create(()).send();
            let receivers = rt.array::<Receiver>(pes.max(3)).create(this.this()).send();
            let done = async |expected| {
                this.wait_until(|main| main.done.is_some()).await;
                assert_eq!(this.with(|main| main.done.take()), Some(expected));
            };
            workers.work(receivers.at(1).callback(Receiver::RESULT)).send();
            done(1).await;
            controllers.at(1).start(workers, receivers.at(2).callback(Receiver::RESULT)).send();
            done(2).await;
            controllers.at(2).start(workers, receivers.callback(Receiver::RESULT_TO_ALL)).send();
            done(100 * pes.max(3)).await;
            let (to, sum) = this.promise();
            controllers.at(3).start(workers, to.into()).send();
            assert_eq!(sum.await?, sum_of_indexes(pes));
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn results_go_where_the_callback_says(rt: Runtime) -> Result<()> {
        Ok(rt.single::<Main>().create(()).send().run().await?)
    }
}

mod schedule_cb {
    //! charm4py tests/callbacks/schedule_cb.py: timers call entries, each of which sets the next one's; none fires early, and
    //! each is told which element has set it.

    use std::time::{Duration, SystemTime};

    use crate::until_exit;
    use chare::prelude::*;

    const COUNT: usize = 4;
    const DELAY: Duration = Duration::from_millis(3);

    /// By no clock of the runtime, unless time is virtual; that of all processes.
    fn now(rt: &Runtime) -> Duration {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than that");
        crate::real_or_simulated(since_1970, rt.elapsed())
    }

    struct Test {
        started: Duration,
    }

    #[chare(index = usize)]
    impl Test {
        fn new(started: Duration) -> Self {
            Test { started }
        }

        #[entry]
        fn start(&self, cx: &Cx<Self>) {
            cx.sleep(DELAY).to(cx.callback(Test::FIRST));
        }

        #[entry]
        fn first(&self, cx: &Cx<Self>) {
            cx.this().next(None).send();
        }

        #[entry]
        async fn next(this: This<Self>, from_element: Option<usize>) {
            let index = this.index();
            assert_eq!(from_element, index.checked_sub(1));
            let elapsed = now(&this) - this.with(|test| test.started);
            assert!(elapsed >= DELAY * (index as u32 + 1), "element {index} was called early");
            let Some(next) = this.element(index + 1) else { return this.exit(0) };
            this.sleep(DELAY).await;
            next.next(Some(index)).send();
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn timers_call_entries(rt: Runtime) -> Result<()> {
        rt.array::<Test>(COUNT).create(now(&rt)).send().at(0).start().send();
        until_exit(&rt).await
    }
}
