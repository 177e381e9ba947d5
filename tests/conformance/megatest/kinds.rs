//! Chares that are alike: generic ones, and several types with one set of methods.

pub(super) mod templates {
    //! Charm++ tests/charm++/megatest/templates: generic single chares, groups and arrays, instantiated, add up what they
    //! are sent.

    use std::ops::AddAssign;

    use chare::Wire;

    use chare::prelude::*;

    trait Number: Clone + Default + AddAssign + PartialEq + std::fmt::Debug + From<u8> + Sync + Wire {}

    impl<N: Clone + Default + AddAssign + PartialEq + std::fmt::Debug + From<u8> + Sync + Wire> Number for N {}

    /// Sums what all PEs submit and tells the collector on PE 0.
    struct Reduction<N> {
        total: N,
        reported: usize,
        collector: Option<Callback<N>>,
    }

    #[chare(types = [Reduction<i32>, Reduction<f64>, Reduction<u8>])]
    impl<N: Number> Reduction<N> {
        fn new() -> Self {
            Reduction { total: N::default(), reported: 0, collector: None }
        }

        #[entry]
        fn submit(&self, cx: &Cx<Self>, value: N) -> Result<()> {
            cx.group().ok_or("a member of a group")?.on(0).receive(value).send();
            Ok(())
        }

        #[entry]
        fn register(&mut self, collector: Callback<N>) {
            self.collector = Some(collector);
        }

        #[entry]
        async fn receive(this: This<Self>, value: N) -> Result<()> {
            this.with(|state| {
                state.total += value;
                state.reported += 1;
            });
            let count = this.num_pes();
            if this.with(|state| state.reported == count) {
                this.wait_until(|state| state.collector.is_some()).await;
                let (collector, total) = this.with(|state| (state.collector.take(), state.total.clone()));
                collector.ok_or("it was there")?.deliver(total)?;
            }
            Ok(())
        }
    }

    struct Collector<N> {
        done: Promise<N>,
    }

    #[chare(types = [Collector<i32>, Collector<f64>, Collector<u8>])]
    impl<N: Number> Collector<N> {
        fn new(cx: &Cx<Self>, reduction: Group<Reduction<N>>, done: Promise<N>) -> Self {
            let pe = cx.my_pe();
            if pe.index() == 0 {
                reduction.on(0).register(cx.callback(Collector::<N>::COLLECT)).send();
            }
            reduction.on(pe).submit(N::from(pe.index() as u8 + 1)).send();
            Collector { done }
        }

        #[entry]
        fn collect(&self, total: N) -> Result<()> {
            Ok(self.done.send(total)?)
        }
    }

    struct Cell<N, const LENGTH: usize> {
        data: N,
    }

    #[chare(index = usize, types = [Cell<i32, 3>, Cell<f64, 3>, Cell<u8, 3>])]
    impl<N: Number, const LENGTH: usize> Cell<N, LENGTH>
    where
        [N; LENGTH]: Wire,
    {
        fn new() -> Self {
            Cell { data: N::default() }
        }

        #[entry]
        fn receive(&mut self, value: N) -> N {
            self.data += value;
            self.data.clone()
        }

        #[entry]
        fn marshalled(&mut self, values: [N; LENGTH]) -> N {
            values.into_iter().for_each(|value| self.data += value);
            self.data.clone()
        }
    }

    async fn run_with<N: Number>(rt: &Runtime) -> Result<()> {
        let pes = rt.num_pes() as u8;
        let reduction = rt.group::<Reduction<N>>().create(()).send();
        let (done, total) = rt.promise();
        for pe in rt.pes() {
            rt.single::<Collector<N>>().on_pe(pe).create((reduction, done.clone())).send();
        }
        assert_eq!(total.await?, N::from(pes * (pes + 1) / 2));

        let cells = rt.array::<Cell<N, 3>>(2).create(()).send();
        assert_eq!(cells.at(1).receive(N::from(7)).await?, N::from(7));
        assert_eq!(cells.at(0).marshalled([23, 34, 45].map(N::from)).await?, N::from(102));
        Ok(())
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        run_with::<i32>(&rt).await?;
        run_with::<f64>(&rt).await?;
        run_with::<u8>(&rt).await
    }
}

pub(super) mod inherit {
    //! Charm++ tests/charm++/megatest/inherit: single chares, groups and arrays of several types that have the same methods,
    //! some of them inherited; a call by the type's own proxy, and one by what knows only the method, runs what the type
    //! says. There the types are classes; here what they inherit is a trait, and what knows only the method is a callback.

    use chare::prelude::*;

    const PARENT: u32 = 1;
    const LEXICAL: u32 = 5;
    const VIRTUAL: u32 = 7;

    /// What the types have in common. Each method returns whose it is.
    trait Family {
        const GENERATION: u32;
        const KIND: u32;

        fn parent_of(&self) -> u32 {
            Self::KIND + 100 + PARENT
        }

        fn own(&self) -> u32 {
            Self::KIND + Self::GENERATION + VIRTUAL
        }
    }

    macro_rules! family {
        ($($name:ident: #[$chare:meta], $kind:literal, $generation:literal;)*) => { $(
            struct $name {
                coordinator: Promise<u32>,
            }

            impl Family for $name {
                const GENERATION: u32 = $generation;
                const KIND: u32 = $kind;
            }

            #[$chare]
            impl $name {
                fn new(coordinator: Promise<u32>) -> Self {
                    $name { coordinator }
                }

                #[entry]
                fn parent(&self, expected: u32) -> Result<()> {
                    assert_eq!(self.parent_of(), expected);
                    Ok(self.coordinator.send(1)?)
                }

                #[entry]
                fn lexical(&self, expected: u32) -> Result<()> {
                    assert_eq!($kind + $generation + LEXICAL, expected);
                    Ok(self.coordinator.send(1)?)
                }

                #[entry]
                fn inherited(&self, expected: u32) -> Result<()> {
                    assert_eq!(self.own(), expected);
                    Ok(self.coordinator.send(1)?)
                }
            }
        )* };
    }

    family! {
        SingleParent: #[chare], 1000, 100;
        SingleChild: #[chare], 1000, 300;
        SingleGrandchild: #[chare], 1000, 700;
        GroupParent: #[chare], 2000, 100;
        GroupChild: #[chare], 2000, 300;
        GroupGrandchild: #[chare], 2000, 700;
        ArrayParent: #[chare(index = usize)], 4000, 100;
        ArrayChild: #[chare(index = usize)], 4000, 300;
        ArrayGrandchild: #[chare(index = usize)], 4000, 700;
    }

    /// Calls each method by the proxy, and by a callback; nine types take six calls each.
    macro_rules! call_all {
        ($promise:ident, $known:ident: $($name:ident($element:expr);)*) => { $(
            let element: Element<$name> = $element;
            let (generation, kind) = ($name::GENERATION, $name::KIND);
            element.parent(kind + 100 + PARENT).send();
            element.lexical(kind + generation + LEXICAL).send();
            element.inherited(kind + generation + VIRTUAL).send();
            $known.push((element.callback($name::PARENT), kind + 100 + PARENT));
            $known.push((element.callback($name::LEXICAL), kind + generation + LEXICAL));
            $known.push((element.callback($name::INHERITED), kind + generation + VIRTUAL));
        )* };
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (promise, counted) = rt.promises(9 * 6);
        let init = || promise.clone();
        let pe = 1 % rt.num_pes();
        let mut known: Vec<(Callback<u32>, u32)> = Vec::new();
        call_all! { promise, known:
            SingleParent(rt.single().create(init()).send());
            SingleChild(rt.single().create(init()).send());
            SingleGrandchild(rt.single().create(init()).send());
            GroupParent(rt.group().create(init()).send().on(pe));
            GroupChild(rt.group().create(init()).send().on(pe));
            GroupGrandchild(rt.group().create(init()).send().on(pe));
            ArrayParent(rt.array(1).create(init()).send().at(0));
            ArrayChild(rt.array(1).create(init()).send().at(0));
            ArrayGrandchild(rt.array(1).create(init()).send().at(0));
        }
        for (callback, expected) in known {
            callback.deliver(expected)?;
        }
        assert_eq!(counted.await?.len(), 9 * 6);
        Ok(())
    }
}
