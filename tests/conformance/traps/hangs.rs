//! Programs that can never go on.

use chare::prelude::*;
use chare::{ExitReport, HANG_EXIT_CODE};

/// Two of them that wait for each other.
struct Philosopher {
    fork: Option<u32>,
}

#[chare(index = usize)]
impl Philosopher {
    fn new() -> Self {
        Philosopher { fork: Some(1) }
    }

    /// Keeps its own while it asks for the next one's.
    #[entry]
    async fn eat(&mut self, cx: &Cx<Self>) -> Result<()> {
        let mine = self.fork.take();
        let next = (cx.index() + 1) % cx.array().shape();
        cx.barrier().await?;
        let other = cx.array().at(next).lend().await?;
        assert!(mine.is_some() && other.is_some());
        Ok(())
    }

    #[entry]
    fn lend(&mut self) -> Option<u32> {
        self.fork.take()
    }

    #[entry]
    async fn wait_for_nobody(this: This<Self>) -> Result<()> {
        let channel = this.channel::<u32, _>(&this.array().at(0), 1);
        channel.recv().await?;
        Ok(())
    }
}

/// What an end by a hang says.
fn text_of_hang(report: &ExitReport) -> String {
    let text = report.to_string();
    assert_eq!(report.code(), HANG_EXIT_CODE, "{text}");
    text
}

fn all_are_named(report: &ExitReport) {
    let text = text_of_hang(report);
    for index in 0..5 {
        assert!(text.contains(&format!("Philosopher[{index}]")), "{text}");
    }
    assert!(text.contains("eat") && text.contains("lend") && text.contains("hangs.rs"), "{text}");
}

/// charm4py and Charm++: a program that waits for what never comes waits for ever; SpECTRE: a deadlock ends as a success
/// (issue 907).
#[chare::test(pes = [1, 2, 4, 8], ends = all_are_named)]
async fn a_deadlock_ends_with_a_report_of_who_waits_for_what(rt: Runtime) -> Result<()> {
    Ok(rt.array::<Philosopher>(5).create(()).await?.eat().await?)
}

fn who_waits_is_named(report: &ExitReport) {
    let text = text_of_hang(report);
    assert!(text.contains("wait_for_nobody") && text.contains("Philosopher[0]"), "{text}");
}

/// charm4py: of two ends of a channel one is never opened, and nobody is told.
#[chare::test(pes = [1, 2, 4, 8], ends = who_waits_is_named)]
async fn a_value_that_nobody_sends_is_reported(rt: Runtime) -> Result<()> {
    Ok(rt.array::<Philosopher>(2).create(()).await?.at(1).wait_for_nobody().await?)
}
