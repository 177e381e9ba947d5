//! Chares that move.

use crate::Random;
use chare::prelude::*;
use serde::{Deserialize, Serialize};

const COUNT: usize = 16;
const ROUNDS: u64 = 40;

#[derive(Serialize, Deserialize)]
struct Mover {
    opened: bool,
    sum: u64,
}

#[chare(index = usize)]
impl Mover {
    fn new() -> Self {
        Mover { opened: false, sum: 0 }
    }

    /// Waits for a condition, a promise, a channel and a reduction, and says where it ended.
    #[entry]
    async fn wait_for_all(
        this: This<Self>,
        value: chare::PromiseFuture<u64>,
        sums: Promise<u64>,
    ) -> Result<usize> {
        this.wait_until(|mover| mover.opened).await;
        let channel = this.channel(&this.this(), 1);
        channel.send(value.await?)?;
        this.contribute(channel.recv().await?, reduce::Sum, sums);
        Ok(this.my_pe().index())
    }

    #[entry]
    fn open(&mut self) {
        self.opened = true;
    }

    /// Contributes to one reduction after another, and moves in between without waiting for either.
    #[entry]
    async fn reduce_and_move(this: This<Self>, sums: Vec<Promise<u64>>) {
        let mut random = Random(this.index() as u64);
        for (round, sum) in (0..).zip(sums) {
            this.contribute(round * this.index() as u64, reduce::Sum, sum);
            if random.below(3) == 0 {
                this.this().migrate(crate::pe_here(&this, &mut random)).send();
            }
            if random.below(2) == 0 {
                this.sleep(std::time::Duration::ZERO).await;
            }
        }
    }

    #[entry]
    fn add(&mut self, value: u64) {
        self.sum += value;
    }

    #[entry]
    fn sum(&self) -> u64 {
        self.sum
    }
}

/// charm4py: a chare with a coroutine that waits cannot be moved; it aborts.
#[chare::test(pes = [1, 2, 4, 8], one_process = "it hands on the reading end of a promise")]
async fn a_chare_moves_while_its_coroutines_wait(rt: Runtime) -> Result<()> {
    let movers = rt.array::<Mover>(COUNT).create(()).send();
    let (sums, sum) = rt.promise();
    let (promises, waits): (Vec<_>, Vec<_>) = movers
        .elements()
        .map(|mover| {
            let (promise, value) = rt.promise();
            (promise, mover.wait_for_all(value, sums.clone()).future())
        })
        .unzip();
    drop(sums);
    let move_all = async |offset: usize| -> Result<()> {
        for mover in movers.elements() {
            mover.migrate((mover.index() + offset) % rt.num_pes()).await?;
        }
        Ok(())
    };
    move_all(1).await?;
    movers.open().await?;
    rt.quiescence().await?;
    move_all(2).await?;
    for (index, promise) in promises.into_iter().enumerate() {
        promise.send(index as u64)?;
    }
    for (index, wait) in waits.into_iter().enumerate() {
        assert_eq!(wait.await?, (index + 2) % rt.num_pes());
    }
    assert_eq!(sum.await?, (COUNT * (COUNT - 1) / 2) as u64);
    Ok(())
}

/// Charm++: reductions were lost when elements moved at any time (issue 3939).
#[chare::test(pes = [1, 2, 4, 8])]
async fn no_reduction_is_lost_while_chares_move(rt: Runtime) -> Result<()> {
    let movers = rt.array::<Mover>(COUNT).create(()).send();
    let (promises, sums): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| rt.promise()).unzip();
    movers.reduce_and_move(promises).send();
    for (round, sum) in (0..).zip(sums) {
        assert_eq!(sum.await?, round * (COUNT * (COUNT - 1) / 2) as u64);
    }
    Ok(())
}

/// Charm++: messages and news of places raced with elements that moved (issue 3286).
#[chare::test(pes = [1, 2, 4, 8])]
async fn no_message_is_lost_while_chares_move(rt: Runtime) -> Result<()> {
    let movers = rt.array::<Mover>(COUNT).create(()).send();
    let mut random = Random(3286);
    for _ in 0..ROUNDS {
        for mover in movers.elements() {
            mover.add(1).send();
            if random.below(4) == 0 {
                mover.migrate(random.below(rt.num_pes())).send();
            }
        }
        movers.add(1000).send();
    }
    rt.quiescence().await?;
    assert_eq!(movers.sum().gather().await?, [ROUNDS * 1001; COUNT]);
    Ok(())
}

/// Charm++: what a broadcast reaches while elements are inserted and move is not said.
#[chare::test(pes = [1, 2, 4, 8])]
async fn a_broadcast_reaches_who_was_inserted_before_it_exactly_once(rt: Runtime) -> Result<()> {
    let movers = rt.array_sparse::<Mover>().create_empty();
    let mut random = Random(77);
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        for _ in 0..random.below(4) {
            let index = expected.len() * 1_000_003;
            expected.push(ROUNDS - round);
            if random.below(2) == 0 {
                movers.insert(index, ()).send();
            } else {
                movers.insert(index, ()).on_pe(random.below(rt.num_pes())).await?;
            }
        }
        movers.add(1).send();
        for _ in 0..expected.len().min(6) {
            let index = random.below(expected.len()) * 1_000_003;
            movers.at(index).migrate(random.below(rt.num_pes())).send();
        }
    }
    movers.done_inserting().await?;
    rt.quiescence().await?;
    assert_eq!(movers.sum().gather().await?, expected);
    Ok(())
}

/// An index that is used again is another chare: nothing of the first one reaches it.
#[chare::test(pes = [1, 2, 4, 8], one_process = "it hands on the reading end of a promise")]
async fn an_index_that_is_used_again_starts_anew(rt: Runtime) -> Result<()> {
    let movers = rt.array_sparse::<Mover>().create_empty();
    let mut random = Random(5);
    for round in 0..ROUNDS {
        let mover = movers.insert(9, ()).on_pe(random.below(rt.num_pes())).await?;
        let (promise, value) = rt.promise();
        let (sums, sum) = rt.promise();
        let wait = mover.wait_for_all(value, sums).future();
        mover.migrate(random.below(rt.num_pes())).await?;
        movers.add(round).await?;
        assert_eq!(mover.sum().await?, round);
        if random.below(2) == 0 {
            mover.open().await?;
            promise.send(round)?;
            movers.done_inserting().await?;
            wait.await?;
            assert_eq!(sum.await?, round);
            mover.destroy().await?;
        } else {
            // The orders of a seed let the end overtake a call.
            if crate::is_simulated() {
                rt.quiescence().await?;
            }
            mover.destroy().await?;
            assert!(matches!(wait.await, Err(CallError::BrokenPromise)));
            assert!(matches!(sum.await, Err(CallError::BrokenPromise)));
        }
    }
    Ok(())
}
