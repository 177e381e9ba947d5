//! Runtimes do not know of each other: in sequence, side by side, and one inside of another.

use std::thread;

use chare::prelude::*;

use super::{PES, run};

struct Summer;

#[chare(index = usize)]
impl Summer {
    fn new() -> Self {
        Summer
    }

    #[entry]
    async fn total(this: This<Self>, salt: u64) -> Result<u64> {
        let mut total = salt + this.index() as u64;
        for _ in 0..5 {
            total = this.allreduce(total, reduce::Sum).await? % 1_000_003;
        }
        Ok(total)
    }

    /// Runs a whole program of its own meanwhile, on the PE that it is on.
    #[entry]
    fn run_another(&self, cx: &Cx<Self>, out: Promise<u64>) -> Result<u64> {
        let pe = cx.my_pe();
        let (key, inner_total) = std::sync::mpsc::channel();
        let report = run(2, async move |rt: Runtime| {
            assert_eq!(rt.num_pes(), 2);
            key.send(program(&rt, 1).await?)?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        assert_eq!(cx.my_pe(), pe, "the outer runtime is current again");
        let total = inner_total.recv()?;
        out.send(total)?;
        Ok(total)
    }
}

/// What each of the programs does.
async fn program(rt: &Runtime, salt: u64) -> Result<u64> {
    let summers = rt.array::<Summer>(8).create(()).await?;
    let totals = summers.total(salt).gather().await?;
    assert!(totals.iter().all(|total| *total == totals[0]));
    rt.quiescence().await?;
    Ok(totals[0])
}

/// What [`program`] computes.
fn expected(salt: u64) -> u64 {
    let mut total = 8 * salt + 28;
    for _ in 1..5 {
        total = total % 1_000_003 * 8;
    }
    total % 1_000_003
}

/// Runs the program and checks what it computes.
fn check(pes: usize, salt: u64) {
    let report = run(pes, async move |rt: Runtime| {
        assert_eq!(program(&rt, salt).await?, expected(salt));
        Result::<()>::Ok(())
    });
    assert!(report.is_success(), "{report}");
}

#[test]
fn many_runtimes_run_in_sequence() {
    for salt in 0..50 {
        check(PES[salt as usize % PES.len()], salt);
    }
}

#[test]
fn runtimes_run_side_by_side() {
    thread::scope(|scope| {
        for (salt, pes) in (0..).zip(PES) {
            scope.spawn(move || (0..5).for_each(|round| check(pes, 100 * salt + round)));
        }
    });
}

#[test]
fn the_end_of_one_runtime_does_not_touch_another() {
    for pes in PES {
        thread::scope(|scope| {
            scope.spawn(move || assert_eq!(run(pes, async |rt: Runtime| rt.exit(4)).code(), 4));
            scope.spawn(move || assert_eq!(run(pes, async |rt: Runtime| rt.abort("enough")).code(), 1));
            scope.spawn(move || check(pes, 5));
        });
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_runtime_may_run_inside_of_another(rt: Runtime) -> Result<()> {
    let summers = rt.array::<Summer>(8).create(()).await?;
    for index in [0, 7] {
        let (out, total) = rt.promise();
        assert_eq!(summers.at(index).run_another(out).await?, expected(1));
        assert_eq!(total.await?, expected(1));
    }
    assert_eq!(program(&rt, 3).await?, expected(3));
    Ok(())
}
