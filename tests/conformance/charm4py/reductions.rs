//! charm4py tests/reductions: to every kind of target, with every reducer, many at once. Left out: section_reduction.py, of
//! parts of arrays chosen at run time, which there is no interface for.

mod allreduce {
    //! charm4py tests/reductions/allreduce.py: round after round, every element of two groups and two arrays at once gets
    //! the sum of its own collection.

    use chare::prelude::*;

    fn rounds() -> usize {
        crate::real_or_simulated(1000, 25)
    }

    macro_rules! tests {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name;

            #[$chare]
            impl $name {
                fn new() -> Self {
                    $name
                }

                #[entry]
                async fn run(&mut self, cx: &Cx<Self>, count: usize, done: Promise<()>) -> Result<()> {
                    for i in 137..137 + rounds() {
                        let sum = cx.allreduce(cx.index() + i, reduce::Sum).await?;
                        assert_eq!(sum, count * (count - 1) / 2 + i * count);
                    }
                    cx.contribute((), reduce::Nop, done);
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
    async fn every_element_gets_every_sum(rt: Runtime) -> Result<()> {
        let (pes, cells) = (rt.num_pes(), rt.num_pes() * 8);
        let groups = [rt.group::<Member>().create(()).await?, rt.group::<Member>().create(()).await?];
        let arrays = [rt.array::<Cell>(cells).create(()).await?, rt.array::<Cell>(cells).create(()).await?];
        let (done, all_done) = rt.promises(4);
        groups.iter().for_each(|group| group.run(pes, done.clone()).send());
        arrays.iter().for_each(|array| array.run(cells, done.clone()).send());
        all_done.await?;
        Ok(())
    }
}

/// What `array_reduction` and `group_reduction` share: the chare that counts what has come.
mod totals {
    use chare::prelude::*;

    pub(super) struct Totals {
        missing: u32,
        floats: Vec<f64>,
        whole: i64,
        done: Promise<(i64, Vec<f64>)>,
    }

    #[chare]
    impl Totals {
        fn new(expected: u32, done: Promise<(i64, Vec<f64>)>) -> Self {
            Totals { missing: expected, floats: Vec::new(), whole: 0, done }
        }

        #[entry]
        fn whole(&mut self, sum: i64) -> Result<()> {
            self.whole = sum;
            self.nothing()
        }

        #[entry]
        fn floats(&mut self, sums: Vec<f64>) -> Result<()> {
            self.floats = sums;
            self.nothing()
        }

        #[entry]
        fn nothing(&mut self) -> Result<()> {
            self.missing = self.missing.checked_sub(1).ok_or("one reduction too many")?;
            if self.missing == 0 {
                self.done.send((self.whole, std::mem::take(&mut self.floats)))?;
            }
            Ok(())
        }
    }

    pub(super) fn assert_close(values: &[f64], expected: &[f64]) {
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-3;
        assert!(values.len() == expected.len() && values.iter().zip(expected).all(close), "{values:?}");
    }
}

mod array_reduction {
    //! charm4py tests/reductions/array_reduction.py: seven reductions of one array in flight, to entries of a single chare,
    //! of one element, of all elements, of one member of a group and of all members.

    use super::totals::{Totals, TotalsEntries as _, assert_close};
    use chare::prelude::*;
    use ndarray::{Array1, array};

    const COUNT: usize = 10;

    struct Test {
        totals: Element<Totals>,
    }

    struct TestGroup {
        totals: Element<Totals>,
    }

    #[chare(index = usize)]
    impl Test {
        fn new(totals: Element<Totals>) -> Self {
            Test { totals }
        }

        #[entry]
        fn reduce(&self, cx: &Cx<Self>, group: Group<TestGroup>) {
            let own = cx.array();
            cx.contribute(42_i64, reduce::Sum, self.totals.callback(Totals::WHOLE));
            cx.contribute(
                vec![10.1, 13.4, cx.index() as f64],
                reduce::Sum,
                self.totals.callback(Totals::FLOATS),
            );
            cx.contribute((), reduce::Nop, self.totals.callback(Totals::NOTHING));
            cx.contribute(4.2, reduce::Sum, own.at(0).callback(Test::TO_ONE));
            cx.contribute(array![4.2, 8.4], reduce::Sum, own.callback(Test::TO_ALL));
            cx.contribute(4_u8, reduce::Sum, group.on(0).callback(TestGroup::TO_ONE));
            cx.contribute([0, 8, 3], reduce::Sum, group.callback(TestGroup::TO_ALL));
        }

        #[entry]
        fn to_one(&self, cx: &Cx<Self>, sum: f64) {
            assert_eq!(cx.index(), 0);
            assert_close(&[sum], &[42.0]);
            self.totals.nothing().send();
        }

        #[entry]
        fn to_all(&self, cx: &Cx<Self>, sums: Array1<f64>) {
            assert_close(&sums.to_vec(), &[42.0, 84.0]);
            cx.contribute((), reduce::Nop, self.totals.callback(Totals::NOTHING));
        }
    }

    #[chare]
    impl TestGroup {
        fn new(totals: Element<Totals>) -> Self {
            TestGroup { totals }
        }

        #[entry]
        fn to_one(&self, cx: &Cx<Self>, sum: u8) {
            assert_eq!((cx.index(), sum), (0, 40));
            self.totals.nothing().send();
        }

        #[entry]
        fn to_all(&self, cx: &Cx<Self>, sums: [i32; 3]) {
            assert_eq!(sums, [0, 80, 30]);
            cx.contribute((), reduce::Nop, self.totals.callback(Totals::NOTHING));
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn seven_kinds_of_targets(rt: Runtime) -> Result<()> {
        let (done, totals_are) = rt.promise();
        let totals = rt.single::<Totals>().create((7, done)).send();
        let group = rt.group::<TestGroup>().create(totals).send();
        rt.array::<Test>(COUNT).create(totals).send().reduce(group).send();
        let (whole, floats) = totals_are.await?;
        assert_eq!(whole, 420);
        assert_close(&floats, &[101.0, 134.0, 45.0]);
        Ok(())
    }
}

mod group_reduction {
    //! charm4py tests/reductions/group_reduction.py: the same seven kinds of targets for the reductions of a group.

    use super::totals::{Totals, TotalsEntries as _, assert_close};
    use chare::prelude::*;

    struct TestGroup {
        totals: Element<Totals>,
    }

    struct TestArray {
        totals: Element<Totals>,
    }

    #[chare]
    impl TestGroup {
        fn new(totals: Element<Totals>) -> Self {
            TestGroup { totals }
        }

        #[entry]
        fn reduce(&self, cx: &Cx<Self>, array: Array<TestArray>) -> Result<()> {
            let own = cx.group().ok_or("a member of a group")?;
            cx.contribute(42_i64, reduce::Sum, self.totals.callback(Totals::WHOLE));
            cx.contribute(
                vec![10.1, 13.4, cx.index() as f64],
                reduce::Sum,
                self.totals.callback(Totals::FLOATS),
            );
            cx.contribute((), reduce::Nop, self.totals.callback(Totals::NOTHING));
            cx.contribute([4.2, 13.1], reduce::Sum, array.at(0).callback(TestArray::TO_ONE));
            cx.contribute(-4, reduce::Sum, array.callback(TestArray::TO_ALL));
            cx.contribute([5, 7, -3, 0], reduce::Sum, own.on(0).callback(TestGroup::TO_ONE));
            cx.contribute(-4.2, reduce::Sum, own.callback(TestGroup::TO_ALL));
            Ok(())
        }

        #[entry]
        fn to_one(&self, cx: &Cx<Self>, sums: [i32; 4]) {
            assert_eq!((cx.index(), sums), (0, [5, 7, -3, 0].map(|each| each * cx.num_pes() as i32)));
            self.totals.nothing().send();
        }

        #[entry]
        fn to_all(&self, cx: &Cx<Self>, sum: f64) {
            assert_close(&[sum], &[-4.2 * cx.num_pes() as f64]);
            cx.contribute((), reduce::Nop, self.totals.callback(Totals::NOTHING));
        }
    }

    #[chare(index = usize)]
    impl TestArray {
        fn new(totals: Element<Totals>) -> Self {
            TestArray { totals }
        }

        #[entry]
        fn to_one(&self, cx: &Cx<Self>, sums: [f64; 2]) {
            assert_eq!(cx.index(), 0);
            assert_close(&sums, &[4.2, 13.1].map(|each| each * cx.num_pes() as f64));
            self.totals.nothing().send();
        }

        #[entry]
        fn to_all(&self, cx: &Cx<Self>, sum: i32) {
            assert_eq!(sum, -4 * cx.num_pes() as i32);
            cx.contribute((), reduce::Nop, self.totals.callback(Totals::NOTHING));
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn seven_kinds_of_targets(rt: Runtime) -> Result<()> {
        let (done, totals_are) = rt.promise();
        let totals = rt.single::<Totals>().create((7, done)).send();
        let array = rt.array::<TestArray>(10).create(totals).send();
        rt.group::<TestGroup>().create(totals).send().reduce(array).send();
        let (whole, floats) = totals_are.await?;
        let pes = rt.num_pes() as f64;
        assert_eq!(whole, 42 * rt.num_pes() as i64);
        assert_close(&floats, &[10.1 * pes, 13.4 * pes, pes * (pes - 1.0) / 2.0]);
        Ok(())
    }
}

mod bench_reductions {
    //! charm4py tests/reductions/bench_reductions.py: a main chare checks each sum of 20,000 values of every element, and only
    //! then asks for the next. It counts time there, over more sums.

    use chare::prelude::*;
    use ndarray::Array1;

    const PER_PE: usize = 8;

    fn iterations() -> usize {
        crate::real_or_simulated(40, 5)
    }

    fn length() -> usize {
        crate::real_or_simulated(20_000, 500)
    }

    struct Main {
        tests: Array<Test>,
        sums: usize,
        done: Promise<usize>,
    }

    #[chare]
    impl Main {
        fn new(cx: &Cx<Self>, done: Promise<usize>) -> Self {
            let rt: &Runtime = cx;
            let tests = rt.array::<Test>(rt.num_pes() * PER_PE).create(cx.this()).send();
            tests.run().send();
            Main { tests, sums: 0, done }
        }

        #[entry]
        fn collect_sum(&mut self, cx: &Cx<Self>, result: Array1<f64>) {
            let expected = (cx.num_pes() * PER_PE * (length() * (length() - 1) / 2)) as f64;
            assert_eq!(result.len(), length());
            assert!((result.sum() - expected).abs() <= 0.05, "{} for {expected}", result.sum());
            self.sums += 1;
            self.tests.run().send();
        }

        #[entry]
        fn done(&self) -> Result<()> {
            Ok(self.done.send(self.sums)?)
        }
    }

    struct Test {
        main: Element<Main>,
        values: Array1<f64>,
        reductions: usize,
    }

    #[chare(index = usize)]
    impl Test {
        fn new(main: Element<Main>) -> Self {
            Test { main, values: Array1::range(0.0, length() as f64, 1.0), reductions: 0 }
        }

        #[entry]
        fn run(&mut self, cx: &Cx<Self>) {
            if self.reductions == iterations() {
                cx.contribute((), reduce::Nop, self.main.callback(Main::DONE));
            } else {
                cx.contribute(self.values.clone(), reduce::Sum, self.main.callback(Main::COLLECT_SUM));
                self.reductions += 1;
            }
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn sums_of_many_values_follow_each_other(rt: Runtime) -> Result<()> {
        let (done, sums) = rt.promise();
        rt.single::<Main>().create(done).send();
        assert_eq!(sums.await?, iterations());
        Ok(())
    }
}

mod custom_reduction {
    //! charm4py tests/reductions/custom_reduction.py: built-in reducers of built-in values, of values of a type of the
    //! program's, and a reducer of the program's.

    use chare::prelude::*;
    use reduce::Combine;

    const COUNT: usize = 10;

    #[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
    struct MyObject(i64);

    impl Combine<reduce::Sum> for MyObject {
        fn combine(&mut self, other: MyObject) {
            self.0 += other.0;
        }
    }

    impl Combine<reduce::Product> for MyObject {
        fn combine(&mut self, other: MyObject) {
            self.0 *= other.0;
        }
    }

    /// The sum of the first, the largest second and the smallest third.
    #[derive(Clone, Copy)]
    struct MyReducer;

    impl reduce::Reducer<[usize; 3]> for MyReducer {
        type Partial = [usize; 3];
        type Output = [usize; 3];
        fn start(&self, value: [usize; 3], _: u64) -> [usize; 3] {
            value
        }
        fn merge(&self, into: &mut [usize; 3], other: [usize; 3]) {
            *into = [into[0] + other[0], into[1].max(other[1]), into[2].min(other[2])];
        }
        fn finish(&self, partial: [usize; 3]) -> [usize; 3] {
            partial
        }
    }

    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Targets {
        built_in: Promise<[usize; 2]>,
        objects: Promise<MyObject>,
        custom: Promise<[usize; 3]>,
    }

    struct Test;

    #[chare(index = usize)]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        fn reduce(&self, cx: &Cx<Self>, to: Targets) {
            let index = cx.index();
            cx.contribute([1, index], reduce::Sum, to.built_in);
            cx.contribute(MyObject(index as i64), reduce::Sum, &to.objects);
            cx.contribute(MyObject(index as i64), reduce::Product, &to.objects);
            cx.contribute([1, index, index], MyReducer, to.custom);
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn values_and_reducers_of_the_programs_own(rt: Runtime) -> Result<()> {
        let ((built_in, sums), (custom, custom_is)) = (rt.promise(), rt.promise());
        let (objects, both) = rt.promises(2);
        rt.array::<Test>(COUNT).create(()).send().reduce(Targets { built_in, objects, custom }).send();
        let sum_of_indexes = COUNT * (COUNT - 1) / 2;
        assert_eq!(sums.await?, [COUNT, sum_of_indexes]);
        let mut both: Vec<_> = both.await?.into_iter().map(|MyObject(value)| value).collect();
        both.sort_unstable();
        assert_eq!(both, [0, sum_of_indexes as i64]);
        assert_eq!(custom_is.await?, [COUNT, COUNT - 1, 0]);
        Ok(())
    }
}

mod future_reduction {
    //! charm4py tests/reductions/future_reduction.py: constructors of a group and of an array contribute arrays, whose sums
    //! come to futures of the creator.

    use chare::prelude::*;
    use ndarray::Array1;

    macro_rules! tests {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name;

            #[$chare]
            impl $name {
                fn new(cx: &Cx<Self>, to: Promise<Array1<f64>>) -> Self {
                    cx.contribute(Array1::range(0.0, 10.0, 1.0), reduce::Sum, to);
                    $name
                }
            }
        )* };
    }

    tests! {
        Member: #[chare];
        Cell: #[chare(index = usize)];
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn constructors_contribute(rt: Runtime) -> Result<()> {
        let ((to, of_group), (to_other, of_array)) = (rt.promise(), rt.promise());
        rt.group::<Member>().create(to).send();
        rt.array::<Cell>(rt.num_pes() * 4).create(to_other).send();
        let expected = Array1::range(0.0, 10.0, 1.0) * rt.num_pes() as f64;
        assert_eq!(of_group.await?, expected);
        assert_eq!(of_array.await?, expected * 4.0);
        Ok(())
    }
}

mod logical_ops {
    //! charm4py tests/reductions/logical_ops.py: logical and, or and exclusive or of single values and element by element.

    use chare::prelude::*;
    use ndarray::Array1;
    use reduce::Combine;

    const LENGTH: usize = 100;

    struct Test;

    #[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
    enum Given {
        AllFalse,
        AllTrue,
        EvenTrue,
    }

    impl Given {
        fn of(self, index: usize) -> bool {
            match self {
                Given::AllFalse => false,
                Given::AllTrue => true,
                Given::EvenTrue => index.is_multiple_of(2),
            }
        }
    }

    #[chare]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        fn values(&self, cx: &Cx<Self>, given: Given, to: [Promise<bool>; 3]) {
            contribute(cx, given.of(cx.index()), to);
        }

        #[entry]
        fn arrays(&self, cx: &Cx<Self>, given: Given, to: [Promise<Array1<bool>>; 3]) {
            contribute(cx, Array1::from_elem(LENGTH, given.of(cx.index())), to);
        }
    }

    fn contribute<T>(cx: &Cx<Test>, value: T, [and, or, xor]: [Promise<T>; 3])
    where
        T: Clone + Combine<reduce::And> + Combine<reduce::Or> + Combine<reduce::Xor>,
    {
        cx.contribute(value.clone(), reduce::And, and);
        cx.contribute(value.clone(), reduce::Or, or);
        cx.contribute(value, reduce::Xor, xor);
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn logical_reducers(rt: Runtime) -> Result<()> {
        let group = rt.group::<Test>().create(()).send();
        let pes = rt.num_pes();
        for given in [Given::AllFalse, Given::AllTrue, Given::EvenTrue] {
            let values = || (0..pes).map(|index| given.of(index));
            let expected = [
                values().all(|value| value),
                values().any(|value| value),
                values().fold(false, |a, b| a ^ b),
            ];

            let promises: [_; 3] = std::array::from_fn(|_| rt.promise());
            group.values(given, promises.each_ref().map(|(to, _)| to.clone())).send();
            for ((_, result), expected) in promises.into_iter().zip(expected) {
                assert_eq!(result.await?, expected);
            }
            let promises: [_; 3] = std::array::from_fn(|_| rt.promise());
            group.arrays(given, promises.each_ref().map(|(to, _)| to.clone())).send();
            for ((_, result), expected) in promises.into_iter().zip(expected) {
                assert_eq!(result.await?, Array1::from_elem(LENGTH, expected));
            }
        }
        Ok(())
    }
}

mod test_gather {
    //! charm4py tests/reductions/test_gather.py: gathered values come in the order of the elements, to entries and futures,
    //! of arrays and groups.

    use chare::prelude::*;

    macro_rules! tests {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name;

            #[$chare]
            impl $name {
                fn new() -> Self {
                    $name
                }

                #[entry]
                fn give(&self, cx: &Cx<Self>, single: Callback<Vec<usize>>, lists: Callback<Vec<Vec<usize>>>) {
                    cx.contribute(cx.index(), reduce::Gather, single);
                    cx.contribute(vec![cx.index(), 42], reduce::Gather, lists);
                }
            }
        )* };
    }

    tests! {
        TestGroup: #[chare];
        Test: #[chare(index = usize)];
    }

    struct Main {
        missing: u32,
        counts: [usize; 2],
        done: Promise<()>,
    }

    #[chare]
    impl Main {
        fn new(counts: [usize; 2], done: Promise<()>) -> Self {
            Main { missing: 4, counts, done }
        }

        #[entry]
        fn gathered(&mut self, values: Vec<usize>) -> Result<()> {
            assert!(self.counts.map(|count| (0..count).collect::<Vec<_>>()).contains(&values), "{values:?}");
            self.one_less()
        }

        #[entry]
        fn gathered_lists(&mut self, lists: Vec<Vec<usize>>) -> Result<()> {
            let expected =
                self.counts.map(|count| (0..count).map(|index| vec![index, 42]).collect::<Vec<_>>());
            assert!(expected.contains(&lists), "{lists:?}");
            self.one_less()
        }

        fn one_less(&mut self) -> Result<()> {
            self.missing -= 1;
            if self.missing == 0 {
                self.done.send(())?;
            }
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn gathered_values_are_in_order(rt: Runtime) -> Result<()> {
        let (done, all_done) = rt.promise();
        let main = rt.single::<Main>().create(([10, rt.num_pes()], done)).send();
        let (array, group) =
            (rt.array::<Test>(10).create(()).send(), rt.group::<TestGroup>().create(()).send());
        array.give(main.callback(Main::GATHERED), main.callback(Main::GATHERED_LISTS)).send();
        group.give(main.callback(Main::GATHERED), main.callback(Main::GATHERED_LISTS)).send();
        let (to, values) = rt.promise();
        array.give(to.into(), Callback::ignore()).send();
        assert_eq!(values.await?, (0..10).collect::<Vec<_>>());
        Ok(all_done.await?)
    }
}
