//! Every element moves again and again, decided by a number that looks random, while broadcasts, reductions and messages
//! are under way: each arrives once.

use chare::prelude::*;
use reduce::{Gather, Max, Sum};
use serde::{Deserialize, Serialize};

/// A number that looks random, from a counter.
fn scramble(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
}

#[derive(Serialize, Deserialize)]

struct Leaf {
    broadcasts: Vec<u64>,
    received: u64,
    seed: u64,
}

#[chare(index = usize)]
impl Leaf {
    fn new(cx: &Cx<Self>) -> Self {
        Leaf { broadcasts: Vec::new(), received: 0, seed: cx.index() as u64 }
    }

    /// Moves somewhere, or not.
    fn drift(&mut self, cx: &Cx<Self>) {
        self.seed = scramble(self.seed);
        if self.seed.is_multiple_of(2) {
            cx.this().migrate((self.seed / 2) as usize % cx.num_pes()).send();
        }
    }

    #[entry]
    fn hear(&mut self, cx: &Cx<Self>, number: u64) -> u64 {
        self.broadcasts.push(number);
        self.drift(cx);
        number
    }

    /// As `hear`, with a wait in the middle.
    #[entry]
    async fn hear_slowly(this: This<Self>, number: u64) -> Result<()> {
        this.with(|s| {
            s.broadcasts.push(number);
            s.drift(&this);
        });
        this.element((this.index() + 1) % this.array().shape()).expect("inside").receive(0).await?;
        this.with(|s| s.drift(&this));
        Ok(())
    }

    #[entry]
    fn receive(&mut self, value: u64) {
        self.received += value;
    }

    #[entry]
    fn spread(&mut self, cx: &Cx<Self>, hops: u64) {
        self.received += 1;
        self.drift(cx);
        if hops > 0 {
            for turn in 0..2 {
                let to = scramble(self.seed + turn) as usize % cx.array().shape();
                cx.array().at(to).spread(hops - 1).send();
            }
        }
    }

    #[entry]
    fn add_up(&mut self, cx: &Cx<Self>, round: u64, sum: Callback<(u64, u64)>) {
        cx.contribute((cx.index() as u64 + round, round), (Sum, Max), sum);
        self.drift(cx);
    }

    #[entry]
    async fn reduce_on_and_on(this: This<Self>, rounds: u64) -> Result<()> {
        for round in 0..rounds {
            let all = this.allreduce(this.index(), Gather).await?;
            assert_eq!(all, (0..this.array().shape()).collect::<Vec<_>>(), "round {round}");
            this.with(|s| s.drift(&this));
        }
        Ok(())
    }

    #[entry]
    fn heard(&self) -> (Vec<u64>, u64) {
        (self.broadcasts.clone(), self.received)
    }
}

const LEAVES: usize = 40;

#[chare::test(pes = [1, 2, 4, 8])]
async fn broadcasts_reach_every_element_once_and_in_order(rt: Runtime) -> Result<()> {
    let leaves = rt.array::<Leaf>(LEAVES).create(()).await?;
    let mut number = 0;
    for round in 0..60 {
        match round % 3 {
            // Many at once, from everywhere.
            0 => {
                for _ in 0..10 {
                    leaves.hear(number).send();
                    number += 1;
                }
            }
            1 => {
                let values = leaves.hear(number).gather().await?;
                assert_eq!(values, [number; LEAVES]);
                number += 1;
            }
            _ => {
                leaves.hear_slowly(number).await?;
                number += 1;
            }
        }
    }
    rt.quiescence().await?;
    for (broadcasts, _) in leaves.heard().gather().await? {
        assert_eq!(broadcasts, (0..number).collect::<Vec<_>>());
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn reductions_count_every_element_once(rt: Runtime) -> Result<()> {
    let leaves = rt.array::<Leaf>(LEAVES).create(()).await?;
    let sum_of_indexes: u64 = (0..LEAVES as u64).sum();
    let mut results = Vec::new();
    for round in 0..200 {
        let (to, result) = rt.promise();
        leaves.add_up(round, to.into()).send();
        results.push(result);
        if round % 50 == 49 {
            rt.quiescence().await?;
        }
    }
    for (round, result) in (0..).zip(results) {
        assert_eq!(result.await?, (sum_of_indexes + LEAVES as u64 * round, round));
    }
    leaves.reduce_on_and_on(50).await?;
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn messages_arrive_once(rt: Runtime) -> Result<()> {
    let leaves = rt.array::<Leaf>(LEAVES).create(()).await?;
    const HOPS: u64 = 7;
    for i in 0..LEAVES {
        leaves.at(i).spread(HOPS).send();
    }
    rt.quiescence().await?;
    let received: u64 = leaves.heard().gather().await?.iter().map(|(_, received)| received).sum();
    assert_eq!(received, LEAVES as u64 * ((1 << (HOPS + 1)) - 1));
    Ok(())
}

#[chare::test(pes = [2, 4, 8])]
async fn everything_at_once(rt: Runtime) -> Result<()> {
    let leaves = rt.array::<Leaf>(LEAVES).create(()).await?;
    let (to, sums) = rt.promises::<(u64, u64)>(30);
    let reducing = leaves.reduce_on_and_on(0).future();
    for round in 0..30 {
        leaves.hear(round).send();
        leaves.add_up(round, to.clone().into()).send();
        leaves.at(scramble(round) as usize % LEAVES).spread(6).send();
    }
    reducing.await?;
    let sums = sums.await?;
    assert_eq!(sums.iter().map(|(_, round)| round).sum::<u64>(), (0..30).sum());
    rt.quiescence().await?;
    let heard = leaves.heard().gather().await?;
    assert!(heard.iter().all(|(broadcasts, _)| *broadcasts == (0..30).collect::<Vec<_>>()));
    assert_eq!(heard.iter().map(|(_, received)| received).sum::<u64>(), 30 * 127);
    Ok(())
}
