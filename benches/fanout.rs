//! One chare sends each element of an array a message of its own, with 8 bytes: nanoseconds a message, from the first send
//! until the last one is known to have arrived.
//!
//! Each element contributes to a reduction when its message comes, so a message costs a send, a delivery and a contribution.
//! The sender sends them all in one method, so those for its own PE wait until it has ended. No two messages go to one
//! element: with many elements each finds a chare that is in no cache.

use std::time::Instant;

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, run};

/// Gets one message.
struct Leaf {
    root: Element<Root>,
}

#[chare(index = usize)]
impl Leaf {
    fn new(root: Element<Root>) -> Self {
        Leaf { root }
    }

    #[entry]
    fn take(&mut self, cx: &Cx<Self>, number: u64) {
        cx.contribute(number, reduce::Sum, self.root.callback(Root::ALL_TAKEN));
    }
}

/// Sends the messages.
struct Root {
    began: Option<(Instant, Promise<(u64, u64)>)>,
}

#[chare]
impl Root {
    fn new() -> Self {
        Root { began: None }
    }

    /// Sends each element its number; the promise gets the nanoseconds that all took, and the sum of what they were sent.
    #[entry]
    fn fan_out(&mut self, leaves: Array<Leaf>, finished: Promise<(u64, u64)>) {
        self.began = Some((Instant::now(), finished));
        for (number, leaf) in (0_u64..).zip(leaves.elements()) {
            leaf.take(number).send();
        }
    }

    #[entry]
    fn all_taken(&mut self, sum: u64) {
        let (start, finished) = self.began.take().expect("leaves are sent to before they answer");
        finished.send((start.elapsed().as_nanos() as u64, sum)).expect("the promise takes one value");
    }
}

async fn measure(rt: Runtime, mut sampler: Sampler, elements: u64) -> Result<Sampler> {
    let root = rt.single::<Root>().on_pe(0_usize).create(()).await?;
    let leaves = rt.array::<Leaf>(elements as usize).create(root).await?;
    while sampler.wants_more() {
        let (promise, finished) = rt.promise();
        root.fan_out(leaves, promise).send();
        let (ns, sum) = finished.await?;
        sampler.take(ns as f64 / elements as f64);
        assert_eq!(sum, (0..elements).sum(), "messages were lost or changed");
    }
    Ok(sampler)
}

fn main() {
    let bench = Bench::from_args("fanout");
    let options = bench.options();
    for elements in [1000, 100_000] {
        let elements = options.count(elements, elements / 100);
        if options.wants("single_calls") {
            let sampler = Sampler::new(options);
            let sampler = run(options.pes(), move |rt| measure(rt, sampler, elements));
            bench.report("single_calls", Amount::Count(elements), "ns", sampler.summary());
        }
    }
}
