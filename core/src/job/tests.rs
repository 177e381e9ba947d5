//! What is sent to other processes is under way as soon as that is of use.

use chare_transport::{Limits, local};

use super::*;
use crate::current;
use crate::prelude::*;
use crate::runtime::{Runtime, start_main};
use crate::testing::run_as_processes;
use crate::wire::Fail;

/// So much in one message leaves its sender pressed.
const BYTES: usize = 65 << 20;

struct Heavy;

#[chare]
impl Heavy {
    fn new() -> Self {
        Heavy
    }

    /// Sends to another one, and what of it is still queued before it ends.
    #[entry]
    fn give(&self, to: Element<Heavy>) -> u64 {
        to.take(vec![0; BYTES]).send();
        queued_bytes()
    }

    /// As `give`, to all other PEs.
    #[entry]
    fn spread(&self) -> u64 {
        current::on_pe("a test", |pe| {
            // Nobody knows this promise, so nobody minds.
            let error = || CallError::Refused(" ".repeat(BYTES).into());
            pe.post_to_others(|| Msg::for_pe(Fail { key: 0, error: error(), end: None }));
        });
        queued_bytes()
    }

    #[entry]
    fn take(&mut self, bytes: Vec<u8>) {
        assert_eq!(bytes.len(), BYTES);
    }
}

fn queued_bytes() -> u64 {
    current::on_pe("a test", |pe| {
        let outbox = &pe.shared().job().expect("there are two processes").outbox;
        (0..2).map(|rank| outbox.queued_bytes(Rank(rank))).sum()
    })
}

async fn main(rt: Runtime) -> Result<()> {
    let group = rt.group::<Heavy>().create(()).await?;
    assert_eq!(group.on(0).give(group.on(1)).await?, 0, "sent to one");
    rt.quiescence().await?;
    assert_eq!(group.on(0).spread().await?, 0, "sent to all");
    rt.quiescence().await?;
    Ok(())
}

#[test]
fn what_is_large_is_under_way_before_the_method_ends_that_has_sent_it() {
    let report = run_as_processes(2, Options::default().with_pes(1), &|pe| start_main(pe, main));
    let report = report.expect("the host device is always there");
    assert!(report.is_success(), "{report}");
}

#[test]
fn who_ends_by_an_error_knows_that_a_process_is_lost_besides() {
    let options = Options::default().with_pes(1);
    let identities = vec![identity(&options).expect("this program has code"); 2];
    let mut joined = local::connect(&identities, &Limits::default()).expect("they are alike");
    // It is gone before the other one looks, and the error is there before that.
    joined.truncate(1);
    let fail = |pe: &Pe| pe.shared().stop(Reason::Aborted("told to".into()));
    let report = Runtime::run_joined(joined.remove(0), options, Box::new(&fail));
    let report = report.expect("the host device is always there");
    assert_eq!(report.to_string(), "error: aborted: told to");
    assert!(!report.parting().expect("there are two").have_all_closed);
}
