//! Reductions, statistics by them, and the detection of completion.

pub(super) mod reduction {
    //! Charm++ tests/charm++/megatest/reduction: two reductions each of two arrays and a group, all in flight at once.

    use chare::prelude::*;

    const COUNT: usize = 5;

    macro_rules! tests {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name;

            #[$chare]
            impl $name {
                fn new() -> Self {
                    $name
                }

                #[entry]
                fn start(&self, cx: &Cx<Self>, first: Promise<[usize; 2]>, second: Promise<[usize; 2]>) {
                    cx.contribute([1, 0], reduce::Sum, first);
                    cx.contribute([1, 2], reduce::Sum, second);
                }
            }
        )* };
    }

    tests! {
        Member: #[chare];
        Cell: #[chare(index = usize)];
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (one, other) = (rt.array::<Cell>(COUNT).create(()).send(), rt.array::<Cell>(COUNT).create(()).send());
        let group = rt.group::<Member>().create(()).send();
        let promises: [_; 6] = std::array::from_fn(|_| rt.promise());
        let to = |number: usize| promises[number].0.clone();
        one.start(to(0), to(1)).send();
        group.start(to(2), to(3)).send();
        other.start(to(4), to(5)).send();
        for (number, (_, sum)) in promises.into_iter().enumerate() {
            let members = if number / 2 == 1 { rt.num_pes() } else { COUNT };
            assert_eq!(sum.await?, [members, number % 2 * 2 * members]);
        }
        Ok(())
    }
}

pub(super) mod statistics {
    //! Charm++ tests/charm++/megatest/statistics: mean, standard deviation and extremes of ten thousand numbers between 0 and
    //! 1 that look random; here drawn by the elements of an array and put together by a reduction.

    use crate::Random;
    use chare::prelude::*;
    use reduce::{Statistics, Summary};

    struct Sampler;

    #[chare(index = usize)]
    impl Sampler {
        fn new() -> Self {
            Sampler
        }

        #[entry]
        fn sample(&self, cx: &Cx<Self>, count: usize, to: Promise<Summary>) {
            let mut random = Random(cx.index() as u64);
            let mut summary = Summary::of(random.below(1 << 20) as f64 / f64::from(1 << 20));
            (1..count).for_each(|_| summary.push(random.below(1 << 20) as f64 / f64::from(1 << 20)));
            cx.contribute(summary, Statistics, to);
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (to, summary) = rt.promise();
        rt.array::<Sampler>(20).create(()).send().sample(500, to).send();
        let summary = summary.await?;
        assert_eq!(summary.count(), 10_000);
        assert!((0.4..0.6).contains(&summary.mean()), "{summary:?}");
        assert!((0.2..0.4).contains(&summary.standard_deviation()), "{summary:?}");
        assert!((0.0..0.1).contains(&summary.min()) && (0.9..1.0).contains(&summary.max()), "{summary:?}");
        Ok(())
    }
}

pub(super) mod completion_test {
    //! Charm++ tests/charm++/megatest/completion_test: the completion of one module is detected while others go on: without
    //! producers, with one that produces nothing, with one whose produce is consumed, and with an array that consumes in
    //! other places than it produces in. The detector is a group of the program's.

    use chare::prelude::*;

    /// Counts on each PE; complete when all producers are done and as much is consumed as produced.
    #[derive(Default)]
    struct Detector {
        produced: i64,
        consumed: i64,
        producers_done: i64,
    }

    #[chare]
    impl Detector {
        fn new() -> Self {
            Detector::default()
        }

        #[entry]
        fn produce(&mut self, count: i64) {
            self.produced += count;
        }

        /// The last that a producer produces: in one step, since messages have no order.
        #[entry]
        fn produce_last(&mut self, count: i64) {
            self.produced += count;
            self.producers_done += 1;
        }

        #[entry]
        fn consume(&mut self, count: i64) {
            self.consumed += count;
        }

        /// Looks in rounds: two equal ones with nothing outstanding mean that nothing moves any more.
        #[entry]
        async fn detect(this: This<Self>, producers: i64) -> Result<()> {
            let mut before = None;
            loop {
                let counts = this.with(|state| [state.produced, state.consumed, state.producers_done]);
                let sums = this.allreduce(counts, reduce::Sum).await?;
                let [produced, consumed, done] = sums;
                if before == Some(sums) && done == producers && produced == consumed {
                    break;
                }
                before = Some(sums);
            }
            this.with(|state| *state = Detector::default());
            Ok(())
        }
    }

    struct Producer;

    #[chare(index = usize)]
    impl Producer {
        fn new(cx: &Cx<Self>, detector: Group<Detector>) -> Self {
            let count = cx.array().shape();
            detector.on(cx.my_pe()).produce_last(cx.index() as i64 + 1).send();
            detector.on(cx.index() % cx.num_pes()).consume((count - cx.index()) as i64).send();
            Producer
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let detector = rt.group::<Detector>().create(()).send();
        let own = detector.on(rt.my_pe());
        detector.detect(0).await?;

        let completed = detector.detect(1).future();
        own.produce_last(0).send();
        completed.await?;

        own.produce(1).await?;
        let completed = detector.detect(1).future();
        own.produce_last(0).send();
        own.consume(1).send();
        completed.await?;

        rt.array::<Producer>(10).create(detector).send();
        Ok(detector.detect(10).await?)
    }
}
