//! Elements that end early, or never begin: what becomes of calls, broadcasts and reductions that counted on them.

use chare::prelude::*;

/// Hears once its gate is open.
struct Gate {
    is_open: bool,
    heard: u64,
}

#[chare(index = usize)]
impl Gate {
    fn new() -> Self {
        Gate { is_open: false, heard: 0 }
    }

    #[entry]
    fn open(&mut self) {
        self.is_open = true;
    }

    #[entry(when = |s: &Self| s.is_open)]
    fn hear(&mut self, number: u64) -> u64 {
        self.heard += number;
        number
    }

    /// As `hear`, with a condition on the arguments.
    #[entry(when(self.heard == number))]
    fn hear_in_turn(&mut self, number: u64) -> u64 {
        self.heard += 1;
        number
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_broadcast_goes_on_without_elements_that_end_while_they_keep_it(rt: Runtime) -> Result<()> {
    let sparse = rt.array_sparse::<Gate>().elements(0..10).create(()).await?;
    let dense = rt.array::<Gate>(10).create(()).await?;
    // Kept by all, for one condition and another, awaited or not.
    let heard = sparse.hear(1).gather();
    let in_turn = dense.hear_in_turn(1).gather_results();
    let awaited = dense.hear(1).future();
    dense.hear(1).send();
    sparse.hear_in_turn(7).send();
    let (call, other) = (sparse.at(3).hear(5).future(), dense.at(3).hear_in_turn(5).future());
    rt.quiescence().await?;
    sparse.at(8).migrate(rt.num_pes() - 1).await?;
    for end in [3, 8] {
        sparse.at(end).destroy().await?;
        dense.at(end).destroy().await?;
    }
    for error in [call.await, other.await] {
        assert!(matches!(error, Err(CallError::NoElement(_))), "a call of an element that ends is an error");
    }
    sparse.open().await?;
    dense.open().await?;
    assert_eq!(heard.await?, [1; 8]);
    awaited.await?;
    for outcome in in_turn.await? {
        assert_eq!(outcome?, 1);
    }
    Ok(())
}
