//! What a move comes after, and what comes after it.

use chare::prelude::*;
use chare::{CallError, Migrated};
use serde::{Deserialize, Serialize};

/// More than one step of a PE brings a broadcast to.
const MANY: usize = 600;

/// Notes what it does. Its calls wait while it is closed.
#[derive(Serialize, Deserialize)]
struct Cautious {
    is_open: bool,
    log: Vec<String>,
}

#[chare(index = usize)]
impl Cautious {
    fn new() -> Self {
        Cautious { is_open: false, log: Vec::new() }
    }

    fn migrated(&mut self) {
        self.log.push("migrated".to_owned());
    }

    /// The first element asks for a move of one that this broadcast has yet to reach.
    #[entry]
    fn stay(&mut self, cx: &Cx<Self>, other: usize, moving: Promise<Migrated>) -> Result<()> {
        cx.set_migratable(false);
        self.log.push("told to stay".to_owned());
        if cx.index() == 0 {
            let array = cx.array();
            moving.send(array.at(other).migrate(cx.num_pes() - 1).future())?;
        }
        Ok(())
    }

    /// As `stay`; all others end badly.
    #[entry]
    fn panic_beyond(&self, cx: &Cx<Self>, other: usize, moving: Promise<Migrated>) -> Result<()> {
        assert!(cx.index() == 0, "as asked");
        let array = cx.array();
        moving.send(array.at(other).migrate(cx.num_pes() - 1).future())?;
        Ok(())
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

#[chare::test(pes = [1, 2, 4], one_process = "its chares move with their coroutines")]
async fn who_is_told_to_stay_before_the_move_is_asked_for_stays(rt: Runtime) -> Result<()> {
    let (array, other) = many(&rt).await?;
    let (to, moving) = rt.promise();
    let told = array.stay(other, to).future();
    let error = moving.await?.await.expect_err("it was told before").to_string();
    assert_eq!(error, format!("Cautious[{other}] cannot move: it has called `set_migratable(false)`"));
    told.await?;
    assert_eq!(array.at(other).log().await?, ["told to stay"]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4], one_process = "its chares move with their coroutines")]
async fn who_panics_before_the_move_is_asked_for_does_not_move(rt: Runtime) -> Result<()> {
    let (array, other) = many(&rt).await?;
    let (to, moving) = rt.promise();
    let told = array.panic_beyond(other, to).future();
    assert!(matches!(moving.await?.await, Err(CallError::Poisoned(_))));
    assert!(matches!(told.await, Err(CallError::Panicked(_))));
    Ok(())
}

#[chare::test(pes = [2, 4, 8], one_process = "its chares move with their coroutines")]
async fn what_is_kept_runs_after_the_hook_even_if_that_had_to_wait(rt: Runtime) -> Result<()> {
    let one = rt.array::<Cautious>(8).create(()).await?.at(0);
    let (kept, woken) = (one.kept().future(), one.await_opening().future());
    rt.quiescence().await?;
    let (to, begun) = rt.promise();
    let opening = one.open_at_last(to).future();
    let end = begun.await?;
    let (held, moved) = (one.log().future(), one.migrate(1).future());
    moved.await?;
    one.migrate(0).await?;
    end.send(())?;
    opening.await?;
    kept.await?;
    woken.await?;
    assert_eq!(held.await?, ["migrated", "migrated", "kept"]);
    assert_eq!(one.log().await?, ["migrated", "migrated", "kept", "woken"]);
    Ok(())
}
