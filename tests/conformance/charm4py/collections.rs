//! charm4py tests/collections: creation from anywhere, types of one name, and proxies that compare.

mod async_array_creation {
    //! charm4py tests/collections/async_array_creation.py: a chare on another PE than 0 creates arrays, of one and of two
    //! dimensions, and uses them. There it must ask PE 0 to do it.

    use chare::prelude::*;

    macro_rules! tests {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name {
                value: usize,
            }

            #[$chare]
            impl $name {
                fn new(value: usize) -> Self {
                    $name { value }
                }

                #[entry]
                fn work(&self, cx: &Cx<Self>, to: Promise<usize>, x: usize) {
                    cx.contribute(x + self.value, reduce::Sum, to);
                }
            }
        )* };
    }

    tests! {
        Row: #[chare(index = usize)];
        Grid: #[chare(index = (usize, usize))];
    }

    struct Controller;

    #[chare]
    impl Controller {
        fn new() -> Self {
            Controller
        }

        #[entry]
        async fn start(this: This<Self>) -> Result<()> {
            let rt: &Runtime = &this;
            let pes = rt.num_pes();
            assert_eq!(this.my_pe().index(), pes - 1);
            let row = rt.array::<Row>(pes * 3).create(0).send();
            let (to, sum) = this.promise();
            row.work(to, 5).send();
            assert_eq!(sum.await?, pes * 3 * 5);

            let grid = rt.array::<Grid>((5, 5)).create(33).await?;
            let (to, sum) = this.promise();
            grid.work(to, 6).send();
            assert_eq!(sum.await?, 25 * (6 + 33));
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn any_pe_creates_arrays(rt: Runtime) -> Result<()> {
        Ok(rt.single::<Controller>().on_pe(rt.num_pes() - 1).create(()).send().start().await?)
    }
}

mod proxies_same_name {
    //! charm4py tests/collections/proxies_same_name.py: two modules have chares of the same names; each proxy calls those of
    //! its own module, on the PE that was asked for.

    use chare::prelude::*;

    mod aux {
        use chare::prelude::*;

        pub(super) struct Hello;

        #[chare]
        impl Hello {
            fn new() -> Self {
                Hello
            }

            #[entry]
            fn check(&self, cx: &Cx<Self>) -> (u32, PeId) {
                (32_255, cx.my_pe())
            }
        }

        pub(super) struct Test;

        #[chare]
        impl Test {
            fn new(cx: &Cx<Self>, pe: usize) -> Self {
                assert_eq!(cx.my_pe().index(), pe);
                Test
            }

            #[entry]
            async fn test(&self, proxy: Group<super::Hello>, pe: usize) -> Result<()> {
                use super::HelloEntries as _;
                let (answer, at) = proxy.on(pe).check().await?;
                assert_eq!((answer, at.index()), (68_425, pe));
                Ok(())
            }
        }
    }

    struct Hello;

    #[chare]
    impl Hello {
        fn new() -> Self {
            Hello
        }

        #[entry]
        fn check(&self, cx: &Cx<Self>) -> (u32, PeId) {
            (68_425, cx.my_pe())
        }
    }

    struct Test;

    #[chare]
    impl Test {
        fn new(cx: &Cx<Self>, pe: usize) -> Self {
            assert_eq!(cx.my_pe().index(), pe);
            Test
        }

        #[entry]
        async fn test(&self, proxy: Group<aux::Hello>, pe: usize) -> Result<()> {
            use aux::HelloEntries as _;
            let (answer, at) = proxy.on(pe).check().await?;
            assert_eq!((answer, at.index()), (32_255, pe));
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn each_proxy_calls_its_own(rt: Runtime) -> Result<()> {
        let pe = |pe: usize| pe % rt.num_pes();
        let (ours, theirs) = (rt.group::<Hello>().create(()), rt.group::<aux::Hello>().create(()));
        let our_tester = rt.single::<Test>().on_pe(pe(2)).create(pe(2));
        let their_tester = rt.single::<aux::Test>().on_pe(pe(1)).create(pe(1));
        let (theirs, ours, their_tester, our_tester) =
            futures::try_join!(theirs, ours, their_tester, our_tester)?;
        our_tester.test(theirs, pe(1)).await?;
        {
            use aux::TestEntries as _;
            their_tester.test(ours, pe(3)).await?;
        }
        Ok(())
    }
}

mod proxy_eq {
    //! charm4py tests/collections/proxy_eq.py: proxies are equal if and only if they mean the same, wherever they were made;
    //! equal ones have equal hashes.

    use std::collections::HashSet;

    use chare::prelude::*;

    struct Member;

    #[chare]
    impl Member {
        fn new() -> Self {
            Member
        }

        #[entry]
        fn own_proxies(&self, cx: &Cx<Self>) -> Result<(Group<Member>, Element<Member>)> {
            Ok((cx.group().ok_or("a member of a group")?, cx.this()))
        }
    }

    struct Cell;

    #[chare(index = usize)]
    impl Cell {
        fn new() -> Self {
            Cell
        }

        #[entry]
        fn own_proxies(&self, cx: &Cx<Self>) -> (Array<Cell>, Element<Cell>) {
            (cx.array(), cx.this())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn proxies_compare_by_what_they_mean(rt: Runtime) -> Result<()> {
        let group = rt.group::<Member>().create(()).send();
        let other = rt.group::<Member>().create(()).send();
        let array = rt.array::<Cell>(rt.num_pes() * 8).create(()).send();
        let last = rt.num_pes() - 1;

        let (its_group, itself) = group.on(last).own_proxies().await?;
        assert_eq!((its_group, itself), (group, group.on(last)));
        assert_eq!(group.on(0).own_proxies().await?.0, its_group);
        assert_eq!(group.on(0).own_proxies().await?.1 == itself, last == 0);
        assert_ne!(group, other);
        assert_ne!(other.on(last).own_proxies().await?.0, its_group);
        assert_ne!(other.on(last).own_proxies().await?.1, itself);

        let (its_array, itself) = array.at(5).own_proxies().await?;
        assert_eq!((its_array, itself), (array, array.at(5)));
        assert_ne!(array.at(4), itself);

        let mut known: HashSet<Element<Cell>> = array.elements().collect();
        assert_eq!(known.len(), rt.num_pes() * 8);
        for (_, itself) in array.own_proxies().gather().await? {
            assert!(known.remove(&itself), "{itself:?} is known");
        }
        assert!(known.is_empty());
        Ok(())
    }
}

mod test {
    //! charm4py tests/collections/test.py: a group and an array of the same kind of chare reduce to one entry, each to its
    //! own result. There it is one class; here a type is of groups or of arrays, and what both do is a function.

    use crate::until_exit;
    use chare::prelude::*;

    const PER_PE: usize = 5;

    fn work<C: chare::Chare>(cx: &Cx<C>, main: Element<Main>) {
        cx.contribute(1, reduce::Sum, main.callback(Main::DONE));
    }

    struct Member;

    #[chare]
    impl Member {
        fn new() -> Self {
            Member
        }

        #[entry]
        fn work(&self, cx: &Cx<Self>, main: Element<Main>) {
            work(cx, main);
        }
    }

    struct Cell;

    #[chare(index = usize)]
    impl Cell {
        fn new() -> Self {
            Cell
        }

        #[entry]
        fn work(&self, cx: &Cx<Self>, main: Element<Main>) {
            work(cx, main);
        }
    }

    struct Main {
        counts: Vec<usize>,
    }

    #[chare]
    impl Main {
        fn new(cx: &Cx<Self>) -> Self {
            let rt: &Runtime = cx;
            rt.group::<Member>().create(()).send().work(cx.this()).send();
            rt.array::<Cell>(rt.num_pes() * PER_PE).create(()).send().work(cx.this()).send();
            Main { counts: Vec::new() }
        }

        #[entry]
        fn done(&mut self, cx: &Cx<Self>, count: usize) {
            self.counts.push(count);
            if self.counts.len() == 2 {
                self.counts.sort_unstable();
                assert_eq!(self.counts, [cx.num_pes(), cx.num_pes() * PER_PE]);
                cx.exit(0);
            }
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn collections_reduce_apart(rt: Runtime) -> Result<()> {
        rt.single::<Main>().create(()).send();
        until_exit(&rt).await
    }
}
