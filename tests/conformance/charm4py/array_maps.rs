//! charm4py tests/array_maps: maps of the program's.

mod test1 {
    //! charm4py tests/array_maps/test1.py: the elements of arrays of one to six dimensions, dense ones and one whose elements
    //! are inserted, are constructed where the map says.

    use chare::prelude::*;
    use chare::{DenseIndex, Placement};

    struct MyMap;

    fn index_to_pe(index: impl DenseIndex, pe_count: usize) -> usize {
        index.to_array().into_iter().fold(17, |hash, axis| (hash * 31 + axis) % 1009) % pe_count
    }

    impl<I: DenseIndex> Placement<I> for MyMap {
        fn pe(&self, index: &I, pe_count: usize) -> usize {
            index_to_pe(*index, pe_count)
        }
    }

    macro_rules! chares {
        ($($name:ident: $index:ty;)*) => { $(
            struct $name;

            #[chare(index = $index)]
            impl $name {
                fn new(cx: &Cx<Self>) -> Self {
                    assert_eq!(cx.my_pe().index(), index_to_pe(cx.index(), cx.num_pes()));
                    $name
                }

                #[entry]
                fn finish(&self, cx: &Cx<Self>, count: Promise<u64>) {
                    cx.contribute(1, reduce::Sum, count);
                }
            }
        )* };
    }

    type Six = (usize, usize, usize, usize, usize, usize);

    chares! {
        One: usize;
        Two: (usize, usize);
        Three: (usize, usize, usize);
        Four: (usize, usize, usize, usize);
        Five: (usize, usize, usize, usize, usize);
        Last: Six;
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn elements_are_where_the_map_says(rt: Runtime) -> Result<()> {
        let (to, counts) = rt.promises(6);
        rt.array::<One>(4).map(MyMap).create(()).await?.finish(to.clone()).send();
        rt.array::<Two>((4, 4)).map(MyMap).create(()).send().finish(to.clone()).send();
        rt.array::<Three>((4, 4, 4)).map(MyMap).create(()).await?.finish(to.clone()).send();
        rt.array::<Four>((2, 2, 2, 2)).map(MyMap).create(()).send().finish(to.clone()).send();
        rt.array::<Five>((2, 2, 2, 2, 2)).map(MyMap).create(()).send().finish(to.clone()).send();
        let last = rt.array_sparse::<Last>().map(MyMap).create_empty();
        for number in 0..64 {
            last.insert(Six::of_number(number, (2, 2, 2, 2, 2, 2)), ()).send();
        }
        last.done_inserting().await?;
        last.finish(to).send();
        let mut counts = counts.await?;
        counts.sort_unstable();
        assert_eq!(counts, [4, 16, 16, 32, 64, 64]);
        Ok(())
    }
}
