//! Callbacks.

pub(super) mod callback {
    //! Charm++ tests/charm++/megatest/callback: callbacks of every kind, called here or sent to another PE and called there,
    //! call what they were made for and nothing else, with their parameter: an entry of a single chare, of an array element,
    //! of a group member, a future, all elements, all members; and a coroutine that waits for one answer after the other.
    //! The origin's callback to a C function has no counterpart: here code runs in chares.

    use crate::Random;
    use chare::prelude::*;

    #[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    enum Kind {
        Single,
        Cell,
        Member,
    }

    macro_rules! receivers {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name {
                coordinator: Element<Coordinator>,
            }

            #[$chare]
            impl $name {
                fn new(coordinator: Element<Coordinator>) -> Self {
                    $name { coordinator }
                }

                #[entry]
                fn accept(&self, cx: &Cx<Self>, value: usize) {
                    self.coordinator.done(Kind::$name, cx.index(), value).send();
                }

                /// Calls it from here.
                #[entry]
                fn reflect(&self, callback: Callback<usize>, value: usize) -> Result<()> {
                    Ok(callback.deliver(value)?)
                }
            }
        )* };
    }

    receivers! {
        Single: #[chare];
        Cell: #[chare(index = usize)];
        Member: #[chare];
    }

    #[derive(Default)]
    struct Coordinator {
        done: Vec<(Kind, usize, usize)>,
    }

    #[chare]
    impl Coordinator {
        fn new() -> Self {
            Coordinator::default()
        }

        #[entry]
        fn done(&mut self, kind: Kind, index: usize, value: usize) {
            self.done.push((kind, index, value));
        }

        #[entry]
        async fn run(this: This<Self>, seed: u64) -> Result<()> {
            let (rt, me): (&Runtime, _) = (&this, this.this());
            let (pes, count) = (rt.num_pes(), rt.num_pes() * 2 + 1);
            let single = rt.single::<Single>().create(me).send();
            let cells = rt.array::<Cell>(count).create(me).send();
            let members = rt.group::<Member>().create(me).send();
            let mut random = Random(seed);
            let kinds = [
                (Kind::Single, 0..1, single.callback(Single::ACCEPT)),
                (Kind::Cell, count - 1..count, cells.at(count - 1).callback(Cell::ACCEPT)),
                (Kind::Member, pes - 1..pes, members.on(pes - 1).callback(Member::ACCEPT)),
                (Kind::Cell, 0..count, cells.callback(Cell::ACCEPT)),
                (Kind::Member, 0..pes, members.callback(Member::ACCEPT)),
            ];
            for (kind, expected, callback) in kinds.into_iter().flat_map(|kind| [kind.clone(), kind]) {
                let value = random.below(1 << 30);
                if random.below(2) == 0 {
                    callback.deliver(value)?;
                } else {
                    members.on(random.below(pes)).reflect(callback, value).send();
                }
                let expected_count = expected.len();
                this.wait_until(move |state| state.done.len() >= expected_count).await;
                let mut done = this.with(|state| std::mem::take(&mut state.done));
                done.sort_unstable_by_key(|&(_, index, _)| index);
                assert_eq!(done, expected.map(|index| (kind, index, value)).collect::<Vec<_>>());
            }
            for pe in rt.pes() {
                let value = 237 + 13 * pe.index();
                let (promise, reflected) = rt.promise();
                members.on(pe).reflect(promise.into(), value).send();
                assert_eq!(reflected.await?, value);
            }
            assert!(this.with(|state| state.done.is_empty()));
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        for seed in 0..4 {
            rt.single::<Coordinator>().create(()).send().run(seed).await?;
        }
        Ok(())
    }
}
