//! What a move comes after, and what comes after it.

use chare::prelude::*;
use chare::{CallError, Migrated, PeId};
use serde::{Deserialize, Serialize};

use super::pes_around;

/// More than one step of a PE brings a broadcast to.
const MANY: usize = 600;

/// Notes what it does. Its calls wait while it is closed.
#[derive(Serialize, Deserialize)]
struct Cautious {
    is_open: bool,
    log: Vec<String>,
    /// A move that it has asked for.
    #[serde(skip)]
    moving: Option<Migrated>,
}

#[chare(index = usize)]
impl Cautious {
    fn new() -> Self {
        Cautious { is_open: false, log: Vec::new(), moving: None }
    }

    fn migrated(&mut self) {
        self.log.push("migrated".to_owned());
    }

    /// The first element asks for a move of one that this broadcast has yet to reach.
    #[entry]
    fn stay(&mut self, cx: &Cx<Self>, other: usize) {
        cx.set_migratable(false);
        self.log.push("told to stay".to_owned());
        if cx.index() == 0 {
            self.moving = Some(cx.array().at(other).migrate(cx.num_pes() - 1).future());
        }
    }

    /// As `stay`; all others end badly.
    #[entry]
    fn panic_beyond(&mut self, cx: &Cx<Self>, other: usize) {
        assert!(cx.index() == 0, "as asked");
        self.moving = Some(cx.array().at(other).migrate(cx.num_pes() - 1).future());
    }

    /// Why the move that it has asked for did not take place, and whether that is since its element had panicked.
    #[entry]
    async fn why_not_moved(&mut self) -> Result<(String, bool)> {
        let error = self.moving.take().ok_or("it has asked for none")?.await.expect_err("it was told before");
        Ok((error.to_string(), matches!(error, CallError::Poisoned(_))))
    }

    #[entry(when = |s: &Self| s.is_open)]
    fn kept(&mut self) {
        self.log.push("kept".to_owned());
    }

    #[entry]
    async fn await_opening(this: This<Self>) {
        this.wait_until(|s| s.is_open).await;
        this.with(|s| s.log.push("woken".to_owned()));
    }

    #[entry]
    async fn open_at_last(&mut self, cx: &Cx<Self>, begun: Promise<Promise<()>>) -> Result<()> {
        let (to, end) = cx.promise();
        begun.send(to)?;
        end.await?;
        self.is_open = true;
        Ok(())
    }

    #[entry]
    fn log(&self) -> Vec<String> {
        self.log.clone()
    }
}

/// Elements of which the first and another of its PE do not get a broadcast in the same step.
async fn many(rt: &Runtime) -> Result<(Array<Cautious>, usize)> {
    Ok((rt.array::<Cautious>(MANY * rt.num_pes()).create(()).await?, MANY - 1))
}

#[chare::test(pes = [1, 2, 4])]
async fn who_is_told_to_stay_before_the_move_is_asked_for_stays(rt: Runtime) -> Result<()> {
    let (array, other) = many(&rt).await?;
    array.stay(other).await?;
    let (error, _) = array.at(0).why_not_moved().await?;
    assert_eq!(error, format!("Cautious[{other}] cannot move: it has called `set_migratable(false)`"));
    assert_eq!(array.at(other).log().await?, ["told to stay"]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn who_panics_before_the_move_is_asked_for_does_not_move(rt: Runtime) -> Result<()> {
    let (array, other) = many(&rt).await?;
    assert!(matches!(array.panic_beyond(other).await, Err(CallError::Panicked(_))));
    let (error, is_poisoned) = array.at(0).why_not_moved().await?;
    assert!(is_poisoned, "{error}");
    Ok(())
}

#[chare::test(pes = [2, 4, 8])]
async fn what_is_kept_runs_after_the_hook_even_if_that_had_to_wait(rt: Runtime) -> Result<()> {
    let one = rt.array::<Cautious>(8).create(()).await?.at(7);
    // It moves with its coroutines, so to a PE of its process, if that has another.
    let last = PeId::new(rt.num_pes() - 1);
    let place = pes_around(last, &rt)[0];
    let hooks = if place == last.index() { 0 } else { 2 };
    let (kept, woken) = (one.kept().future(), one.await_opening().future());
    rt.quiescence().await?;
    let (to, begun) = rt.promise();
    let opening = one.open_at_last(to).future();
    let end = begun.await?;
    let held = one.log().future();
    rt.quiescence().await?;
    one.migrate(place).await?;
    one.migrate(last).await?;
    end.send(())?;
    opening.await?;
    kept.await?;
    woken.await?;
    let log = ["migrated", "migrated", "kept", "woken"];
    assert_eq!(held.await?, log[2 - hooks..3]);
    assert_eq!(one.log().await?, log[2 - hooks..]);
    Ok(())
}
