//! charm4py tests/futures: waiting for several, futures of many values, and futures that another coroutine waits for.

mod iwait {
    //! charm4py tests/futures/iwait.py: who waits for several futures gets each when it is ready, whatever their order in
    //! the list. There they become ready by the clock; here each is sent when the one before has come.

    use ::futures::stream::{FuturesUnordered, StreamExt};
    use chare::prelude::*;

    struct Test;

    #[chare]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        fn work(&self, cx: &Cx<Self>, to: Promise<usize>) -> Result<()> {
            Ok(to.send(cx.index())?)
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn each_comes_when_it_is_ready(rt: Runtime) -> Result<()> {
        let group = rt.group::<Test>().create(()).send();
        let count = rt.num_pes().min(4);
        let (promises, values): (Vec<_>, Vec<_>) = (0..count).map(|_| rt.promise()).unzip();
        let mut ready: FuturesUnordered<_> = values.into_iter().rev().collect();
        for (i, promise) in promises.into_iter().enumerate() {
            group.on(i).work(promise).send();
            assert_eq!(ready.next().await.ok_or("too few")??, i);
        }
        assert!(ready.next().await.is_none());
        Ok(())
    }
}

mod multi_futures {
    //! charm4py tests/futures/multi_futures.py: a future of many values brings exactly those that were sent.

    use chare::prelude::*;

    struct Test;

    #[chare(index = usize)]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        fn give(&self, cx: &Cx<Self>, to: Promise<usize>) -> Result<()> {
            Ok(to.send(cx.index())?)
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn all_values_come(rt: Runtime) -> Result<()> {
        let count = (rt.num_pes() * 4).min(64);
        let (to, values) = rt.promises(count);
        rt.array::<Test>(count).create(()).send().give(to).send();
        let mut values = values.await?;
        values.sort_unstable();
        assert_eq!(values, (0..count).collect::<Vec<_>>());
        Ok(())
    }
}

mod test_different_coroutines {
    //! charm4py tests/futures/test_different_coroutines.py: a future that one coroutine made is awaited by another one of its
    //! chare and fulfilled by a third, in either order.

    use chare::prelude::*;

    const VALUE: u32 = 42;

    struct Test {
        promise: Promise<u32>,
        value: Option<chare::PromiseFuture<u32>>,
        done: Promise<u32>,
    }

    #[chare]
    impl Test {
        async fn new(cx: &Cx<Self>, done: Promise<u32>) -> Self {
            let (promise, value) = cx.promise();
            Test { promise, value: Some(value), done }
        }

        #[entry]
        async fn send_future(this: This<Self>) -> Result<()> {
            Ok(this.with(|test| test.promise.clone()).send(VALUE)?)
        }

        #[entry]
        async fn wait_future(this: This<Self>) -> Result<()> {
            let value = this.with(|test| test.value.take()).ok_or("nobody else takes it")?.await?;
            assert_eq!(value, VALUE);
            Ok(this.with(|test| test.done.clone()).send(value)?)
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn in_either_order(rt: Runtime) -> Result<()> {
        let pe = 1 % rt.num_pes();
        let (done, value) = rt.promise();
        let test = rt.single::<Test>().on_pe(pe).create(done).send();
        test.send_future().await?;
        test.wait_future().send();
        assert_eq!(value.await?, VALUE);

        let (done, value) = rt.promise();
        let test = rt.single::<Test>().on_pe(pe).create(done).send();
        test.wait_future().send();
        test.send_future().send();
        assert_eq!(value.await?, VALUE);
        Ok(())
    }
}

mod test_futures {
    //! charm4py tests/futures/test_futures.py: three reductions to the same entry of one element, which passes each result
    //! on to the future that it is for.

    use chare::prelude::*;

    struct Test {
        promises: Option<[Promise<usize>; 3]>,
    }

    #[chare(index = usize)]
    impl Test {
        fn new() -> Self {
            Test { promises: None }
        }

        #[entry]
        fn statistics(&mut self, cx: &Cx<Self>, promises: [Promise<usize>; 3]) {
            if cx.index() == 0 {
                self.promises = Some(promises);
            }
            let to = || cx.array().at(0).callback(Test::COLLECT);
            cx.contribute(cx.index(), reduce::Sum, to());
            cx.contribute(cx.index(), reduce::Min, to());
            cx.contribute(cx.index(), reduce::Max, to());
        }

        #[entry]
        fn collect(&self, cx: &Cx<Self>, result: usize) -> Result<()> {
            assert_eq!(cx.index(), 0);
            let [sum, min, max] =
                self.promises.as_ref().ok_or("a result came before all have contributed")?;
            let last = cx.array().shape() - 1;
            let to = if result == 0 {
                min
            } else if result == last {
                max
            } else {
                sum
            };
            Ok(to.send(result)?)
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn results_are_passed_on(rt: Runtime) -> Result<()> {
        let count = rt.num_pes() * 4;
        let ((sum, sum_is), (min, min_is), (max, max_is)) = (rt.promise(), rt.promise(), rt.promise());
        rt.array::<Test>(count).create(()).send().statistics([sum, min, max]).send();
        assert_eq!((sum_is.await?, min_is.await?, max_is.await?), (count * (count - 1) / 2, 0, count - 1));
        Ok(())
    }
}
