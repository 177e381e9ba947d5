//! charm4py tests/sections: parts of collections.

mod constrained_groups {
    //! charm4py tests/sections/constrained_groups.py: a group on some of the PEs has members on those and no others; calls,
    //! broadcasts and reductions are of them.

    use crate::Random;
    use chare::prelude::*;

    struct Test {
        pes: Vec<usize>,
    }

    #[chare]
    impl Test {
        fn new(cx: &Cx<Self>, pes: Vec<usize>) -> Self {
            assert!(pes.contains(&cx.index()) && cx.index() == cx.my_pe().index());
            Test { pes }
        }

        #[entry]
        fn answer(&self) -> u32 {
            34_589
        }

        #[entry]
        fn place(&self, cx: &Cx<Self>) -> usize {
            assert!(self.pes.contains(&cx.my_pe().index()));
            cx.index()
        }

        #[entry]
        async fn reduce(&mut self, cx: &Cx<Self>) -> Result<()> {
            self.pes.sort_unstable();
            assert_eq!(cx.allreduce(cx.index(), reduce::Gather).await?, self.pes);
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn a_group_is_on_the_pes_that_it_is_asked_for(rt: Runtime) -> Result<()> {
        let mut pes: Vec<_> = rt.pes().map(|pe| pe.index()).collect();
        Random(3).shuffle(&mut pes);
        pes.truncate(rt.num_pes().div_ceil(2));
        let group = rt.group::<Test>().on_pes(pes.clone()).create(pes.clone()).send();
        assert_eq!(group.on(pes[0]).answer().await?, 34_589);
        assert_eq!(group.on(pes[0]).place().await?, pes[0]);
        group.reduce().await?;
        pes.sort_unstable();
        assert_eq!(group.place().gather().await?, pes);
        for other in rt.pes().filter(|pe| !pes.contains(&pe.index())) {
            group.on(other).answer().await.expect_err("it has no member there");
        }
        Ok(())
    }
}
