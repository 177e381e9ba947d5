//! charm4py tests/thread_entry_methods: coroutines that wait for calls, broadcasts, reductions and conditions, also while
//! they construct.

mod future_bcast {
    //! charm4py tests/thread_entry_methods/future_bcast.py: a broadcast that is awaited is over when all elements have
    //! finished. There they take random times; here each one but the last waits for the next.

    use crate::{Counter, CounterEntries};
    use chare::prelude::*;

    macro_rules! tests {
        ($($name:ident: #[$chare:meta], |$cx:ident, $index:ident| $element:expr;)*) => { $(
            struct $name {
                may_finish: bool,
            }

            #[$chare]
            impl $name {
                fn new() -> Self {
                    $name { may_finish: false }
                }

                #[entry]
                async fn work(this: This<Self>, last: usize, finished: Element<Counter>) -> Result<()> {
                    let index = this.index();
                    if index != last {
                        this.wait_until(|test| test.may_finish).await;
                    }
                    finished.count().await?;
                    if index > 0 {
                        let ($cx, $index) = (&this, index - 1);
                        $element.finish().send();
                    }
                    Ok(())
                }

                #[entry]
                fn finish(&mut self) {
                    self.may_finish = true;
                }
            }
        )* };
    }

    tests! {
        Member: #[chare], |cx, index| cx.group().ok_or("a member of a group")?.on(index);
        Cell: #[chare(index = usize)], |cx, index| cx.array().at(index);
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn a_broadcast_is_over_when_all_have_finished(rt: Runtime) -> Result<()> {
        let count = rt.num_pes();
        let finished = rt.single::<Counter>().create(()).await?;
        rt.array::<Cell>(count).create(()).send().work(count - 1, finished).await?;
        assert_eq!(finished.counted().await?, count);
        rt.group::<Member>().create(()).send().work(count - 1, finished).await?;
        assert_eq!(finished.counted().await?, 2 * count);
        Ok(())
    }
}

mod future_reduction {
    //! charm4py tests/thread_entry_methods/future_reduction.py: a coroutine waits for reductions that constructors
    //! contribute to, by a built-in reducer and by one of the program's.

    use chare::prelude::*;

    #[derive(Clone, Copy)]
    struct MySum;

    impl reduce::Reducer<usize> for MySum {
        type Partial = usize;
        type Output = usize;
        fn start(&self, value: usize, _: u64) -> usize {
            value
        }
        fn merge(&self, into: &mut usize, other: usize) {
            *into += other;
        }
        fn finish(&self, partial: usize) -> usize {
            partial
        }
    }

    struct Test;

    #[chare]
    impl Test {
        fn new(cx: &Cx<Self>, built_in: Promise<usize>, own: Promise<usize>) -> Self {
            cx.contribute(1, reduce::Sum, built_in);
            cx.contribute(1, MySum, own);
            Test
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn constructors_contribute(rt: Runtime) -> Result<()> {
        let ((built_in, sum), (own, own_sum)) = (rt.promise(), rt.promise());
        rt.group::<Test>().create((built_in, own)).send();
        assert_eq!((sum.await?, own_sum.await?), (rt.num_pes(), rt.num_pes()));
        Ok(())
    }
}

mod test1 {
    //! charm4py tests/thread_entry_methods/test1.py: every element asks every element, itself too, whose coroutine asks the
    //! member of a group on its PE before it answers; afterwards no coroutine is left.

    use chare::prelude::*;

    fn rounds() -> usize {
        crate::real_or_simulated(30, 4)
    }

    fn most_elements() -> usize {
        crate::real_or_simulated(32, 16)
    }

    struct Test {
        members: Group<Test2>,
        running: u32,
        done: Promise<()>,
    }

    #[chare(index = usize)]
    impl Test {
        fn new(cx: &Cx<Self>, members: Group<Test2>, done: Promise<()>) -> Self {
            cx.contribute(cx.my_pe().index(), reduce::Gather, cx.array().callback(Test::START));
            Test { members, running: 0, done }
        }

        #[entry]
        async fn start(this: This<Self>, pes: Vec<usize>) -> Result<()> {
            this.with(|test| test.running += 1);
            for _ in 0..rounds() {
                for (i, pe) in pes.iter().enumerate() {
                    assert_eq!(this.array().at(i).value().await?, 53 * i * (73 + pe));
                }
            }
            this.with(|test| test.running -= 1);
            this.contribute((), reduce::Nop, this.array().callback(Test::VERIFY));
            Ok(())
        }

        #[entry]
        async fn value(this: This<Self>) -> Result<usize> {
            let members = this.with(|test| {
                test.running += 1;
                test.members
            });
            let value = members.on(this.my_pe()).value().await?;
            this.with(|test| test.running -= 1);
            Ok(53 * value * this.index())
        }

        #[entry]
        fn verify(&self, cx: &Cx<Self>) {
            assert_eq!(self.running, 0);
            cx.contribute((), reduce::Nop, &self.done);
        }
    }

    struct Test2;

    #[chare]
    impl Test2 {
        fn new() -> Self {
            Test2
        }

        #[entry]
        fn value(&self, cx: &Cx<Self>) -> usize {
            73 + cx.my_pe().index()
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn coroutines_ask_coroutines(rt: Runtime) -> Result<()> {
        let members = rt.group::<Test2>().create(()).send();
        let (done, all_done) = rt.promise();
        rt.array::<Test>((rt.num_pes() * 8).min(most_elements())).create((members, done)).send();
        Ok(all_done.await?)
    }
}

mod test1_when {
    //! charm4py tests/thread_entry_methods/test1_when.py: as `test1`, where an element answers the questions of an iteration
    //! when it is in it; its coroutines wait while they answer, so it answers all of them at once.

    use chare::prelude::*;

    fn iterations() -> usize {
        crate::real_or_simulated(30, 4)
    }

    fn most_elements() -> usize {
        crate::real_or_simulated(32, 16)
    }

    struct Test {
        members: Group<Test2>,
        iteration: usize,
        answered: usize,
        done: Promise<()>,
    }

    #[chare(index = usize)]
    impl Test {
        fn new(cx: &Cx<Self>, members: Group<Test2>, done: Promise<()>) -> Self {
            cx.contribute(cx.my_pe().index(), reduce::Gather, cx.array().callback(Test::START));
            Test { members, iteration: 0, answered: 0, done }
        }

        #[entry]
        async fn start(this: This<Self>, pes: Vec<usize>) -> Result<()> {
            for iteration in 0..iterations() {
                for (i, pe) in pes.iter().enumerate() {
                    assert_eq!(this.array().at(i).value(iteration).await?, 53 * i * (73 + pe) * iteration);
                }
            }
            this.contribute((), reduce::Nop, this.with(|test| test.done.clone()));
            Ok(())
        }

        #[entry(when(self.iteration == iteration))]
        async fn value(this: This<Self>, iteration: usize) -> Result<usize> {
            let members = this.with(|test| test.members);
            let value = members.on(this.my_pe()).value().await?;
            let count = this.array().shape();
            Ok(this.with(|test| {
                assert_eq!(test.iteration, iteration);
                test.answered += 1;
                if test.answered == count {
                    test.answered = 0;
                    test.iteration += 1;
                }
                53 * value * this.index() * iteration
            }))
        }
    }

    struct Test2;

    #[chare]
    impl Test2 {
        fn new() -> Self {
            Test2
        }

        #[entry]
        fn value(&self, cx: &Cx<Self>) -> usize {
            73 + cx.my_pe().index()
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn questions_wait_for_their_iteration(rt: Runtime) -> Result<()> {
        let members = rt.group::<Test2>().create(()).send();
        let (done, all_done) = rt.promise();
        rt.array::<Test>((rt.num_pes() * 8).min(most_elements())).create((members, done)).send();
        Ok(all_done.await?)
    }
}

mod test2 {
    //! charm4py tests/thread_entry_methods/test2.py: a coroutine that calls its own chare and waits, where the method that is
    //! called waits every other time, for another chare of its PE.

    use chare::prelude::*;

    fn rounds() -> usize {
        crate::real_or_simulated(300, 10)
    }

    struct Pes;

    #[chare]
    impl Pes {
        fn new() -> Self {
            Pes
        }

        #[entry]
        fn my_pe(&self, cx: &Cx<Self>) -> PeId {
            cx.my_pe()
        }
    }

    macro_rules! tests {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name {
                pes: Group<Pes>,
                round: usize,
                running: u32,
                done: Option<Promise<()>>,
            }

            #[$chare]
            impl $name {
                fn new(pes: Group<Pes>) -> Self {
                    $name { pes, round: 0, running: 0, done: None }
                }

                #[entry]
                async fn start(this: This<Self>, done: Promise<()>) -> Result<()> {
                    this.with(|test| test.done = Some(done));
                    for _ in 0..rounds() {
                        assert_eq!(this.this().work().await?, 3625);
                    }
                    this.this().verify().send();
                    Ok(())
                }

                #[entry]
                async fn work(this: This<Self>) -> Result<u32> {
                    this.with(|test| test.running += 1);
                    if this.with(|test| test.round % 2 == 0) {
                        let pe = this.my_pe();
                        assert_eq!(this.with(|test| test.pes).on(pe).my_pe().await?, pe);
                    }
                    this.with(|test| {
                        test.round += 1;
                        test.running -= 1;
                    });
                    Ok(3625)
                }

                #[entry]
                fn verify(&mut self, cx: &Cx<Self>) -> Result<()> {
                    assert_eq!((self.running, self.round), (0, rounds()));
                    cx.contribute((), reduce::Nop, self.done.take().ok_or("set by `start`")?);
                    Ok(())
                }
            }
        )* };
    }

    tests! {
        Member: #[chare];
        Cell: #[chare(index = usize)];
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn a_coroutine_waits_for_another_of_its_chare(rt: Runtime) -> Result<()> {
        let pes = rt.group::<Pes>().create(()).send();
        let cells = rt.array::<Cell>(rt.num_pes() * 10).create(pes).await?;
        let members = rt.group::<Member>().create(pes).await?;
        let ((done, cells_done), (members_to, members_done)) = (rt.promise(), rt.promise());
        cells.start(done).send();
        members.start(members_to).send();
        cells_done.await?;
        Ok(members_done.await?)
    }
}

mod test_main {
    //! charm4py tests/thread_entry_methods/test_main.py: the main coroutine waits for calls of one PE after another.

    use chare::prelude::*;

    struct Test;

    #[chare]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        fn square(&self, cx: &Cx<Self>) -> usize {
            cx.index().pow(2)
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn main_waits_for_calls(rt: Runtime) -> Result<()> {
        let group = rt.group::<Test>().create(()).send();
        for pe in rt.pes() {
            assert_eq!(group.on(pe).square().await?, pe.index().pow(2));
        }
        Ok(())
    }
}

mod test_wait {
    //! charm4py tests/thread_entry_methods/test_wait.py: a coroutine waits, round after round, for two conditions that other
    //! methods of its chare make true, and finds that nothing more has come.

    use chare::prelude::*;

    fn rounds() -> usize {
        crate::real_or_simulated(1000, 25)
    }

    struct Worker {
        main: Element<Main>,
    }

    #[chare(index = usize)]
    impl Worker {
        fn new(main: Element<Main>) -> Self {
            Worker { main }
        }

        #[entry]
        fn send_value(&self, cx: &Cx<Self>) {
            self.main.collect(237, cx.index() % 2).send();
        }
    }

    #[derive(Default)]
    struct Main {
        responses: [usize; 2],
        result: usize,
    }

    #[chare]
    impl Main {
        fn new() -> Self {
            Main::default()
        }

        #[entry]
        async fn run(this: This<Self>, count: usize) -> Result<()> {
            let rt: &Runtime = &this;
            let workers = rt.array::<Worker>(count).create(this.this()).send();
            for _ in 0..rounds() {
                workers.send_value().send();
                this.wait_until(move |main| main.responses[0] == count / 2).await;
                this.wait_until(move |main| main.responses[1] == count / 2).await;
                let Main { responses, result } = this.with(std::mem::take);
                assert_eq!((responses, result), ([count / 2; 2], count * 237));
            }
            Ok(())
        }

        #[entry]
        fn collect(&mut self, result: usize, tag: usize) {
            self.responses[tag] += 1;
            self.result += result;
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn conditions_become_true(rt: Runtime) -> Result<()> {
        let main = rt.single::<Main>().create(()).send();
        Ok(main.run((rt.num_pes() * 8).min(128)).await?)
    }
}

mod threaded_ctors1 {
    //! charm4py tests/thread_entry_methods/threaded_ctors1.py: constructors that are coroutines get their arguments, and the
    //! creation is over when they have ended.

    use crate::{Counter, CounterEntries};
    use chare::prelude::*;

    type Init = (u32, Element<Counter>);

    macro_rules! tests {
        ($($name:ident: #[$chare:meta], $x:literal;)*) => { $(
            struct $name;

            #[$chare]
            impl $name {
                async fn new(cx: &Cx<Self>, init: Init) -> Result<Self> {
                    let (x, constructed) = init;
                    assert_eq!(x, $x);
                    // All of them are under way at once.
                    cx.barrier().await?;
                    constructed.count().await?;
                    Ok($name)
                }
            }
        )* };
    }

    tests! {
        Member: #[chare], 33;
        Cell: #[chare(index = usize)], 50;
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn a_creation_waits_for_its_constructors(rt: Runtime) -> Result<()> {
        let constructed = rt.single::<Counter>().create(()).await?;
        let pes = rt.num_pes();
        let group = rt.group::<Member>().create((33, constructed));
        let array = rt.array::<Cell>(pes * 4).create((50, constructed));
        futures::try_join!(group, array)?;
        assert_eq!(constructed.counted().await?, pes * 5);
        Ok(())
    }
}

mod threaded_ctors2 {
    //! charm4py tests/thread_entry_methods/threaded_ctors2.py: a constructor waits for what a coroutine of another chare
    //! answers, which itself may not be constructed yet.

    use chare::prelude::*;

    struct A {
        x: u32,
    }

    #[chare]
    impl A {
        async fn new() -> Self {
            A { x: 65_824 }
        }

        #[entry]
        async fn value(&self) -> u32 {
            self.x
        }
    }

    struct B;

    #[chare(index = usize)]
    impl B {
        async fn new(cx: &Cx<Self>, group: Group<A>) -> Result<Self> {
            assert_eq!(group.on(cx.index()).value().await?, 65_824);
            Ok(B)
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn constructors_wait_for_calls(rt: Runtime) -> Result<()> {
        let group = rt.group::<A>().create(()).send();
        rt.array::<B>(rt.num_pes()).create(group).await?;
        Ok(())
    }
}
