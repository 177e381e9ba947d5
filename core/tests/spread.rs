//! What is for all PEs crosses to each other process once: it is encoded once, and decoded once for each PE there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chare::prelude::*;
use chare_transport::{Identity, Limits, local};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// More than the tree of the processes has at its root.
const PROCESSES: usize = 6;
const PES: usize = 2;

static ENCODED: AtomicUsize = AtomicUsize::new(0);
static DECODED: AtomicUsize = AtomicUsize::new(0);

/// A value that counts its ways through the network.
#[derive(Clone)]
struct Counted(Vec<u64>);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.fetch_add(1, Ordering::SeqCst);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::SeqCst);
        Vec::deserialize(deserializer).map(Counted)
    }
}

struct Member;

#[chare]
impl Member {
    fn new() -> Self {
        Member
    }

    #[entry]
    fn add(&self, cx: &Cx<Self>, values: Counted) -> u64 {
        values.0.iter().sum::<u64>() + cx.my_pe().index() as u64
    }

    /// Large memory goes beside the message.
    #[entry]
    fn measure(&self, field: Vec<f64>) -> f64 {
        field.iter().sum()
    }
}

async fn program(rt: Runtime) -> chare::Result<()> {
    let all = PROCESSES * PES;
    assert_eq!(rt.num_pes(), all);
    let group = rt.group::<Member>().create(()).await?;
    let sums = group.add(Counted(vec![40, 60])).gather().await?;
    assert_eq!(sums, (100..100 + all as u64).collect::<Vec<_>>());
    assert_eq!(ENCODED.load(Ordering::SeqCst), 1);
    assert_eq!(DECODED.load(Ordering::SeqCst), all - PES);
    assert_eq!(group.measure(vec![0.5; 100_000]).gather().await?, vec![50_000.0; all]);
    Ok(())
}

#[test]
fn a_broadcast_is_encoded_once() {
    let identities = vec![Identity::new(0, "test"); PROCESSES];
    let processes = local::connect(&identities, &Limits::default()).expect("equal processes meet");
    let reports: Vec<_> = thread::scope(|scope| {
        let join = |process| {
            let options =
                chare::Options::default().with_pes(PES).with_device("host".parse().expect("a device"));
            scope.spawn(move || Runtime::join(process, options, program).expect("it starts"))
        };
        let runs: Vec<_> = processes.into_iter().map(join).collect();
        runs.into_iter().map(|run| run.join().expect("a run panics nowhere")).collect()
    });
    for report in reports {
        assert!(report.is_success(), "{report}");
    }
}
