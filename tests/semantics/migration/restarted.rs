//! Coroutines that can be started again go to other processes with their chares, from their sync points.

use chare::prelude::*;
use chare::{CallError, PeId};
use serde::{Deserialize, Serialize};

use crate::is_spread;

fn next(pe: PeId, rt: &Runtime) -> usize {
    (pe.index() + 1) % rt.num_pes()
}

#[derive(Serialize, Deserialize)]
struct Pilgrim {
    steps: [u64; 2],
    seen: Vec<usize>,
    is_owned: bool,
    looks: u64,
    sum: u64,
    seed: u64,
}

#[chare(index = usize)]
impl Pilgrim {
    fn new(cx: &Cx<Self>) -> Self {
        let seed = cx.index() as u64;
        Pilgrim { steps: [0; 2], seen: Vec::new(), is_owned: false, looks: 0, sum: 0, seed }
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.seen.push(cx.my_pe().index());
    }

    /// Owns the chare, and goes to the next PE at each step.
    #[entry(restart)]
    async fn walk(&mut self, cx: &Cx<Self>, steps: u64) -> Vec<usize> {
        self.is_owned = true;
        while self.steps[0] < steps {
            self.steps[0] += 1;
            self.looks += 1;
            cx.this().migrate(next(cx.my_pe(), cx)).send();
            cx.yield_now().await;
            cx.sync_point().await;
        }
        self.is_owned = false;
        self.seen.clone()
    }

    /// Shares the chare with another one of its kind.
    #[entry(restart)]
    async fn stroll(this: This<Self>, which: usize, steps: u64) -> u64 {
        while this.with(|s| s.steps[which]) < steps {
            this.with(|s| s.steps[which] += 1);
            this.yield_now().await;
            this.sync_point().await;
        }
        this.with(|s| s.steps[which])
    }

    #[entry(restart)]
    async fn fail(this: This<Self>) -> Result<()> {
        while this.with(|s| s.seen.is_empty()) {
            this.yield_now().await;
            this.sync_point().await;
        }
        Err("as asked".into())
    }

    /// Drops the promise when it has moved.
    #[entry(restart)]
    async fn hold(this: This<Self>, promise: Promise<u64>) {
        while this.with(|s| s.seen.is_empty()) {
            this.yield_now().await;
            this.sync_point().await;
        }
        drop(promise);
    }

    #[entry(expedited)]
    fn hurry(&mut self) {
        assert!(!self.is_owned, "an exclusive coroutine has lost its chare");
        self.looks += 1;
    }

    #[entry(when = |s: &Self| s.steps[0] > 2)]
    fn look_late(&mut self) {
        assert!(!self.is_owned, "an exclusive coroutine has lost its chare");
        self.looks += 1;
    }

    #[entry]
    fn look(&mut self) {
        assert!(!self.is_owned, "an exclusive coroutine has lost its chare");
        self.looks += 1;
    }

    #[entry]
    fn state(&self) -> (u64, [u64; 2]) {
        (self.looks, self.steps)
    }

    /// Exchanges values with its neighbours, and moves now and then.
    #[entry(restart)]
    async fn exchange(&mut self, cx: &Cx<Self>, steps: u64) -> Result<u64> {
        let (array, count) = (cx.array(), cx.array().shape());
        let left = cx.channel::<u64, _>(&array.at((cx.index() + count - 1) % count), 0);
        let right = cx.channel::<u64, _>(&array.at((cx.index() + 1) % count), 1);
        let from_left = cx.channel::<u64, _>(&array.at((cx.index() + count - 1) % count), 1);
        let from_right = cx.channel::<u64, _>(&array.at((cx.index() + 1) % count), 0);
        while self.steps[0] < steps {
            left.send(self.steps[0])?;
            right.send(self.steps[0])?;
            for channel in [&from_left, &from_right] {
                let value = channel.recv().await?;
                assert_eq!(value, self.steps[0]);
                self.sum += value;
            }
            self.steps[0] += 1;
            self.seed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(4321);
            if self.seed >> 62 == 0 {
                cx.this().migrate((self.seed >> 32) as usize % cx.num_pes()).send();
            }
            cx.sync_point().await;
        }
        Ok(self.sum)
    }
}

#[chare::test(pes = [2, 4, 8])]
async fn a_promise_that_moves_with_a_coroutine_is_broken_when_it_is_dropped(rt: Runtime) -> Result<()> {
    let pilgrims = rt.array::<Pilgrim>(rt.num_pes()).create(()).await?;
    let pilgrim = pilgrims.at(rt.num_pes() - 1);
    for to in [0, rt.num_pes() / 2] {
        let (promise, value) = rt.promise::<u64>();
        let held = pilgrim.hold(promise).future();
        pilgrim.migrate(to).await?;
        held.await?;
        let error = value.await.expect_err("nobody has fulfilled it");
        assert!(matches!(error, CallError::BrokenPromise), "{error}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_exclusive_coroutine_walks_over_all_pes(rt: Runtime) -> Result<()> {
    let pilgrim = rt.array::<Pilgrim>(8).create(()).await?.at(0);
    pilgrim.look().await?;
    let steps = 3 * rt.num_pes() as u64;
    let walk = pilgrim.walk(steps).future();
    let mut looks: Vec<_> = (0..50).map(|_| pilgrim.look().future()).collect();
    looks.extend((0..5).map(|_| pilgrim.look_late().future()));
    looks.extend((0..20).map(|_| pilgrim.hurry().future()));
    let seen = walk.await?;
    for look in looks {
        look.await?;
    }
    if rt.num_pes() == 2 && is_spread(&rt) {
        // It went at each sync point; inside of a process the hooks would wait for the end of the coroutine.
        assert_eq!(seen, (1..=steps as usize).map(|step| step % 2).collect::<Vec<_>>());
    }
    assert_eq!(pilgrim.state().await?, (steps + 76, [steps, 0]));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn several_coroutines_wait_for_each_other_and_go_on(rt: Runtime) -> Result<()> {
    let pilgrim = rt.array::<Pilgrim>(8).create(()).await?.at(0);
    let strolls = [0, 1].map(|which| pilgrim.stroll(which, 200).future());
    for to in 1..20 {
        pilgrim.migrate(to % rt.num_pes()).await?;
    }
    for stroll in strolls {
        assert_eq!(stroll.await?, 200);
    }
    assert_eq!(pilgrim.state().await?.1, [200, 200]);
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn an_error_after_the_move_goes_to_who_waits(rt: Runtime) -> Result<()> {
    let pilgrim = rt.array::<Pilgrim>(8).create(()).await?.at(0);
    let failing = pilgrim.fail().future();
    pilgrim.migrate(rt.num_pes() - 1).await?;
    assert!(matches!(failing.await, Err(CallError::Failed(_))));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_stencil_goes_on_while_its_elements_move(rt: Runtime) -> Result<()> {
    let pilgrims = rt.array::<Pilgrim>(10).create(()).await?;
    let sums = pilgrims.exchange(120).gather().await?;
    assert_eq!(sums, [2 * (0..120).sum::<u64>(); 10]);
    Ok(())
}
