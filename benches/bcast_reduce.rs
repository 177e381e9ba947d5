//! A broadcast to all elements of an array, each of which contributes to a sum: microseconds from the send to the sum.
//!
//! Every message brings the place that the sum goes to: a promise (`to_promise`), whose clones all PEs count, or an entry of
//! a singleton (`to_entry`), which then fulfils a promise. With `--ranks N` the elements are spread over so many processes.

use std::time::Instant;

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler};

/// An element that counts for one.
struct One;

#[chare(index = usize)]
impl One {
    fn new() -> Self {
        One
    }

    #[entry]
    fn count(&mut self, cx: &Cx<Self>, to: Callback<u64>) {
        cx.contribute(1_u64, reduce::Sum, to);
    }
}

/// Gets the sum and passes it on to whoever waits.
struct Collector {
    next: Option<Promise<u64>>,
}

#[chare]
impl Collector {
    fn new() -> Self {
        Collector { next: None }
    }

    #[entry]
    fn expect(&mut self, next: Promise<u64>) {
        self.next = Some(next);
    }

    #[entry]
    fn sum(&mut self, value: u64) {
        let next = self.next.take().expect("a sum is expected before it comes");
        next.send(value).expect("the promise takes one sum");
    }
}

async fn measure(rt: Runtime, mut sampler: Sampler, elements: u64, by_entry: bool) -> Result<Sampler> {
    let ones = rt.array::<One>(elements as usize).create(()).await?;
    let collector = rt.single::<Collector>().on_pe(0).create(()).await?;
    while sampler.wants_more() {
        let (promise, sum) = rt.promise();
        let to = if by_entry {
            collector.expect(promise).await?;
            collector.callback(Collector::SUM)
        } else {
            Callback::from(promise)
        };
        let start = Instant::now();
        ones.count(to).send();
        let sum = sum.await?;
        sampler.take_ns(start.elapsed(), 1);
        assert_eq!(sum, elements, "each element counts once");
    }
    Ok(sampler)
}

fn main() {
    let bench = Bench::on_processes("bcast_reduce", 1, "", |_, _| Ok(false));
    let options = bench.options();
    for elements in [1000, 100_000] {
        let elements = options.count(elements, elements / 100);
        for (case, by_entry) in [("to_promise", false), ("to_entry", true)] {
            if options.wants(case) {
                let sampler = Sampler::new(options);
                let sampler = bench.run(move |rt| measure(rt, sampler, elements, by_entry));
                if let Some(sampler) = sampler {
                    bench.report(case, Amount::Count(elements), "us", sampler.summary().per(1e3));
                }
            }
        }
    }
}
