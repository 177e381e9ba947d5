//! charm4py tests/migration. What that does by balancing load at `AtSync` is done here by moves that the program asks for.

mod chare_migration {
    //! charm4py tests/migration/chare_migration.py: every element moves to the next PE; the hook that runs after the move
    //! finds itself there. The reduction of all ends the program.

    use crate::until_exit;
    use chare::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Migrate {
        to: usize,
    }

    #[chare(index = usize)]
    impl Migrate {
        fn new() -> Self {
            Migrate { to: 0 }
        }

        fn migrated(&mut self, cx: &Cx<Self>) {
            assert_eq!(cx.my_pe().index(), self.to);
            cx.contribute((), reduce::Nop, Callback::exit());
        }

        #[entry]
        fn start(&mut self, cx: &Cx<Self>) {
            self.to = (cx.my_pe().index() + 1) % cx.num_pes();
            if self.to == cx.my_pe().index() {
                // There is nowhere to go, and no hook runs.
                cx.contribute((), reduce::Nop, Callback::exit());
            }
            cx.this().migrate(self.to).send();
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn the_hook_runs_on_the_other_pe(rt: Runtime) -> Result<()> {
        rt.array::<Migrate>(rt.num_pes()).create(()).send().start().send();
        until_exit(&rt).await
    }
}

mod test_migrate {
    //! charm4py tests/migration/test_migrate.py: elements that work a hundred iterations and move every twentieth keep what
    //! they have, and are constructed once.

    use crate::{Counter, CounterEntries, Random};
    use chare::prelude::*;
    use ndarray::Array1;
    use serde::{Deserialize, Serialize};

    const ITERATIONS: usize = 100;

    #[derive(Serialize, Deserialize)]
    struct Test {
        iteration: usize,
        original: usize,
        data: Array1<i64>,
        moves: usize,
        done: Promise<usize>,
    }

    fn data(pe: usize) -> Array1<i64> {
        (0..100).map(|i| i * (pe as i64 + 1)).collect()
    }

    #[chare(index = usize)]
    impl Test {
        fn new(cx: &Cx<Self>, constructions: Element<Counter>, done: Promise<usize>) -> Self {
            constructions.count().send();
            let original = cx.my_pe().index();
            Test { iteration: 0, original, data: data(original), moves: 0, done }
        }

        fn migrated(&mut self, cx: &Cx<Self>) {
            self.moves += 1;
            cx.this().work().send();
        }

        #[entry]
        fn work(&mut self, cx: &Cx<Self>) {
            assert_eq!(self.data, data(self.original));
            self.iteration += 1;
            let to = Random((cx.index() * ITERATIONS + self.iteration) as u64).below(cx.num_pes());
            if self.iteration == ITERATIONS {
                cx.contribute(self.moves, reduce::Sum, &self.done);
            } else if self.iteration.is_multiple_of(20) && to != cx.my_pe().index() {
                cx.this().migrate(to).send();
            } else {
                cx.this().work().send();
            }
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn what_moves_keeps_what_it_has(rt: Runtime) -> Result<()> {
        let constructions = rt.single::<Counter>().create(()).await?;
        let (done, moves) = rt.promise();
        let array = rt.array::<Test>(rt.num_pes() * 4).create((constructions, done)).await?;
        array.work().send();
        assert_eq!(moves.await? > 0, rt.num_pes() > 1);
        rt.quiescence().await?;
        assert_eq!(constructions.counted().await?, rt.num_pes() * 4);
        Ok(())
    }
}

mod test_nonmigratables {
    //! charm4py tests/migration/test_nonmigratables.py: elements that say that they may not be moved stay where they are, and
    //! whoever asks for it is told; of the others the hook has run if and only if they are on another PE.

    use crate::Random;
    use chare::prelude::*;
    use serde::{Deserialize, Serialize};

    fn rounds() -> usize {
        crate::real_or_simulated(100, 20)
    }

    #[derive(Serialize, Deserialize)]
    struct Test {
        original: PeId,
        has_migrated: bool,
    }

    #[chare(index = usize)]
    impl Test {
        fn new(cx: &Cx<Self>) -> Self {
            cx.set_migratable(!cx.index().is_multiple_of(2));
            Test { original: cx.my_pe(), has_migrated: false }
        }

        fn migrated(&mut self, _cx: &Cx<Self>) {
            self.has_migrated = true;
        }

        #[entry]
        async fn run(this: This<Self>) -> Result<()> {
            let mut random = Random(this.index() as u64);
            for _ in 0..rounds() {
                let before = this.my_pe();
                this.with(|test| test.has_migrated = false);
                let to = crate::pe_here(&this, &mut random);
                let is_here = to == before;
                let moved = this.this().migrate(to).await;
                this.barrier().await?;
                let (original, has_migrated) = this.with(|test| (test.original, test.has_migrated));
                if this.index().is_multiple_of(2) {
                    assert_eq!(this.my_pe(), original);
                    let refused = matches!(moved, Err(CallError::Refused(_)));
                    assert!(refused || moved.is_ok() && is_here, "{moved:?}");
                } else {
                    moved?;
                }
                assert_eq!(has_migrated, this.my_pe() != before);
            }
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn who_must_stay_stays(rt: Runtime) -> Result<()> {
        Ok(rt.array::<Test>(rt.num_pes() * 8).create(()).send().run().await?)
    }
}
