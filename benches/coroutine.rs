//! What coroutines cost: nanoseconds to start and finish one, to suspend and resume one, and to await a call.
//!
//! | case | what is repeated |
//! |---|---|
//! | `start_finish_interleaving`, `_exclusive` | one message that starts a coroutine of that kind, which ends without suspending |
//! | `suspend_resume`, `_exclusive` | one wait of a running coroutine that wakes itself, as yielding does |
//! | `await_call_same_pe`, `_cross_pe` | a call to another chare and its awaited value, there and back |

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, run};

/// What a batch repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    StartInterleaving,
    StartExclusive,
    Suspend,
    SuspendExclusive,
    AwaitSamePe,
    AwaitCrossPe,
}

const CASES: [(&str, Case); 6] = [
    ("start_finish_interleaving", Case::StartInterleaving),
    ("start_finish_exclusive", Case::StartExclusive),
    ("suspend_resume", Case::Suspend),
    ("suspend_resume_exclusive", Case::SuspendExclusive),
    ("await_call_same_pe", Case::AwaitSamePe),
    ("await_call_cross_pe", Case::AwaitCrossPe),
];

/// Ready at the second poll; wakes its task at the first.
#[derive(Default)]
struct Yield {
    has_yielded: bool,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.has_yielded {
            return Poll::Ready(());
        }
        self.has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Runs the coroutines.
#[derive(Default)]
struct Node {
    finished: u64,
    missing: u64,
    complete: Option<Promise<u64>>,
}

#[chare(index = usize)]
impl Node {
    fn new() -> Self {
        Node::default()
    }

    /// Before a batch: how many coroutines will end, and who wants to know.
    #[entry]
    fn expect(&mut self, count: u64, complete: Promise<u64>) {
        *self = Node { finished: 0, missing: count, complete: Some(complete) };
    }

    #[entry]
    fn start_interleaving(&mut self, on: Element<Node>, count: u64) {
        (0..count).for_each(|_| on.end_interleaving().send());
    }

    #[entry]
    fn start_exclusive(&mut self, on: Element<Node>, count: u64) {
        (0..count).for_each(|_| on.end_exclusive().send());
    }

    #[entry]
    async fn end_interleaving(this: This<Self>) {
        this.with(|node| node.end(1));
    }

    #[entry]
    async fn end_exclusive(&mut self) {
        self.end(1);
    }

    #[entry]
    async fn suspend(this: This<Self>, count: u64) {
        for _ in 0..count {
            Yield::default().await;
            this.with(|node| node.finished += 1);
        }
        this.with(|node| node.end(0));
    }

    #[entry]
    async fn suspend_exclusive(&mut self, count: u64) {
        for _ in 0..count {
            Yield::default().await;
            self.finished += 1;
        }
        self.end(0);
    }

    #[entry]
    async fn ask(&mut self, of: Element<Node>, count: u64) -> Result<()> {
        for i in 0..count {
            self.finished += of.answer(i).await? - i;
        }
        self.end(0);
        Ok(())
    }

    #[entry]
    fn answer(&mut self, question: u64) -> u64 {
        question + 1
    }
}

impl Node {
    /// A coroutine that has done `count` of what is counted has ended.
    fn end(&mut self, count: u64) {
        self.finished += count;
        self.missing -= 1;
        if self.missing == 0 {
            let complete = self.complete.take().expect("a batch is expected before it comes");
            complete.send(self.finished).expect("the promise takes one number");
        }
    }
}

async fn measure(rt: Runtime, mut sampler: Sampler, case: Case, count: u64) -> Result<Sampler> {
    let nodes = rt.array::<Node>(2 * rt.num_pes()).create(()).await?;
    let (first, second) = (nodes.at(0), nodes.at(if case == Case::AwaitCrossPe { 2 } else { 1 }));
    let (ends_at, coroutines) = match case {
        Case::StartInterleaving | Case::StartExclusive => (second, count),
        _ => (first, 1),
    };
    while sampler.wants_more() {
        let (complete, finished) = rt.promise();
        ends_at.expect(coroutines, complete).await?;
        let start = Instant::now();
        match case {
            Case::StartInterleaving => first.start_interleaving(second, count).send(),
            Case::StartExclusive => first.start_exclusive(second, count).send(),
            Case::Suspend => first.suspend(count).send(),
            Case::SuspendExclusive => first.suspend_exclusive(count).send(),
            Case::AwaitSamePe | Case::AwaitCrossPe => first.ask(second, count).send(),
        }
        let finished = finished.await?;
        sampler.take_ns(start.elapsed(), count);
        assert_eq!(finished, count, "coroutines or their steps were lost");
    }
    Ok(sampler)
}

fn main() {
    let bench = Bench::from_args("coroutine");
    let options = bench.options();
    let count = options.count(10_000, 100);
    for (name, case) in CASES {
        if !options.wants(name) || case == Case::AwaitCrossPe && options.pes() < 2 {
            continue;
        }
        let sampler = Sampler::new(options);
        let sampler = run(options.pes(), move |rt| measure(rt, sampler, case, count));
        bench.report(name, Amount::Count(count), "ns", sampler.summary());
    }
}
