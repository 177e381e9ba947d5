//! What is sent to other processes is under way as soon as that is of use.

use chare_transport::{Limits, ThreadLevel, local};

use super::*;
use crate::current;
use crate::prelude::*;
use crate::report::ExitReport;
use crate::runtime::{Runtime, start_main};
use crate::sim::Sim;
use crate::testing::{run_as_processes, run_joined, run_within_limits};
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

struct Ring {
    sum: u64,
}

#[chare]
impl Ring {
    fn new() -> Self {
        Ring { sum: 0 }
    }

    /// Goes around all PEs so often, and then tells that it has.
    #[entry]
    fn pass(&mut self, cx: &Cx<Self>, left: u64, done: Promise<()>) -> Result<()> {
        self.sum += left;
        if left == 0 {
            return Ok(done.send(())?);
        }
        let next = (cx.my_pe().index() + 1) % cx.num_pes();
        cx.group().ok_or("a member of a group")?.on(next).pass(left - 1, done).send();
        Ok(())
    }

    #[entry]
    fn sum(&self) -> u64 {
        self.sum
    }
}

/// The others of a process do not poll then, however busy the first one is.
#[test]
fn where_only_one_thread_may_poll_no_other_one_does() {
    let main = async |rt: Runtime| -> Result<()> {
        let ring = rt.group::<Ring>().create(()).await?;
        let (done, is_done) = rt.promises(6);
        (0..6).for_each(|pe| ring.on(pe).pass(1000, done.clone()).send());
        is_done.await?;
        assert_eq!(ring.sum().gather().await?.into_iter().sum::<u64>(), 6 * 1000 * 1001 / 2);
        Ok(())
    };
    for level in [ThreadLevel::Funneled, ThreadLevel::Serialized] {
        let options = Options::default().with_pes(3);
        let identities = vec![identity(&options).expect("this program has code"); 2];
        let joined = local::connect_at(level, &identities, &Limits::default()).expect("they are alike");
        let report = run_joined(joined, options, &|pe| start_main(pe, main));
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{level:?}: {report}");
    }
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

struct Refused;

#[chare]
impl Refused {
    fn new() -> Self {
        Refused
    }

    #[entry]
    fn take(&mut self, _one: Vec<u8>, _other: Vec<u8>, _third: Vec<u8>) {}
}

/// Sends three buffers of so many bytes to another process, within these limits, really and simulated.
fn refused(limits: &Limits, bytes: usize) -> [ExitReport; 2] {
    let main = async move |rt: Runtime| -> Result<()> {
        let last = rt.group::<Refused>().create(()).await?.on(1);
        last.take(vec![0; bytes], vec![0; bytes], vec![0; bytes]).await?;
        Ok(())
    };
    let options = Options::default();
    let real = run_within_limits(limits, 2, options.clone().with_pes(1), &|pe| start_main(pe, main));
    let sim = Sim::new(1).with_processes(2, 1).with_limits(limits.clone());
    let simulated = Runtime::run(options.with_pes(2).simulate(sim), main);
    [real, simulated].map(|report| report.expect("the host device is always there"))
}

#[test]
fn a_simulated_network_takes_what_a_real_one_takes_and_refuses_the_rest_in_its_words() {
    let mut buffers = Limits::default();
    buffers.buffers = 2;
    let mut bytes = Limits::default();
    bytes.frame_bytes = 3000;
    for (limits, words) in [
        (&buffers, "a frame was not sent to rank 1: it has 3 buffers, and the limit is 2"),
        (&bytes, "a frame was not sent to rank 1: it has 30"),
    ] {
        let [real, simulated] = refused(limits, 1000).map(|report| report.to_string());
        assert!(real.contains(words), "{real}");
        assert_eq!(real.lines().next(), simulated.lines().next());
        for report in refused(limits, 100).into_iter().chain(refused(&Limits::default(), 1000)) {
            assert!(report.is_success(), "{report}");
        }
    }
}
