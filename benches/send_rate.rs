//! How long one chare's message takes another, when many are on their way: nanoseconds a message, sending and receiving
//! together.
//!
//! One entry sends a batch of messages to one element; the last one to arrive fulfils a promise. On one PE this is the cost
//! of sending plus that of delivering; from PE to PE the slower side of the two sets the rate.
//!
//! | case | each message |
//! |---|---|
//! | `void_*` | an entry without arguments |
//! | `u64_*` | one `u64` |
//! | `kib_*` | a `Vec<u8>` of 1 KiB, allocated and filled by the sender, read and freed by the receiver |
//! | `reference_queue` | no runtime: a boxed closure over one pointer, pushed into a `VecDeque`, popped and called |

use std::cell::Cell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, run};

const KIB: usize = 1024;

/// What a batch sends.
#[derive(Clone, Copy, Debug)]
enum Payload {
    Void,
    Word,
    Kib,
}

/// Sends and receives.
#[derive(Default)]
struct Node {
    missing: u64,
    sum: u64,
    complete: Option<Promise<u64>>,
}

#[chare(index = usize)]
impl Node {
    fn new() -> Self {
        Node::default()
    }

    /// Before a batch: how many messages will come, and who wants to know their sum.
    #[entry]
    fn expect(&mut self, count: u64, complete: Promise<u64>) {
        *self = Node { missing: count, sum: 0, complete: Some(complete) };
    }

    /// Sends a batch.
    #[entry]
    fn flood(&mut self, to: Element<Node>, payload: Payload, count: u64) {
        match payload {
            Payload::Void => (0..count).for_each(|_| to.take_void().send()),
            Payload::Word => (0..count).for_each(|i| to.take_word(i).send()),
            Payload::Kib => (0..count).for_each(|i| to.take_kib(vec![low_byte(i); KIB]).send()),
        }
    }

    #[entry]
    fn take_void(&mut self) {
        self.arrived(1);
    }

    #[entry]
    fn take_word(&mut self, word: u64) {
        self.arrived(word);
    }

    #[entry]
    fn take_kib(&mut self, bytes: Vec<u8>) {
        assert_eq!(bytes.len(), KIB);
        self.arrived((bytes[0] ^ bytes[KIB / 2] ^ bytes[KIB - 1]).into());
    }
}

impl Node {
    fn arrived(&mut self, value: u64) {
        self.sum += value;
        self.missing -= 1;
        if self.missing == 0 {
            let complete = self.complete.take().expect("a batch is expected before it comes");
            complete.send(self.sum).expect("the promise takes one sum");
        }
    }
}

/// Never zero, so that the bytes are written and not merely mapped.
fn low_byte(i: u64) -> u8 {
    i as u8 | 1
}

/// What the values of a batch add up to.
fn expected_sum(payload: Payload, count: u64) -> u64 {
    match payload {
        Payload::Void => count,
        Payload::Word => (0..count).sum(),
        Payload::Kib => (0..count).map(|i| u64::from(low_byte(i))).sum(),
    }
}

/// Batches from the first element of PE 0 to the second one there, or to the first one of PE 1.
async fn measure(
    rt: Runtime,
    mut sampler: Sampler,
    payload: Payload,
    crosses: bool,
    count: u64,
) -> Result<Sampler> {
    let nodes = rt.array::<Node>(2 * rt.num_pes()).create(()).await?;
    let (from, to) = (nodes.at(0), nodes.at(if crosses { 2 } else { 1 }));
    while sampler.wants_more() {
        let (complete, sum) = rt.promise();
        to.expect(count, complete).await?;
        let start = Instant::now();
        from.flood(to, payload, count).send();
        let sum = sum.await?;
        sampler.take_ns(start.elapsed(), count);
        assert_eq!(sum, expected_sum(payload, count), "messages were lost or changed");
    }
    Ok(sampler)
}

/// The least that a message could be: a boxed call.
fn reference(mut sampler: Sampler, count: u64) -> Sampler {
    let sum = Cell::new(0_u64);
    let mut queue: VecDeque<Box<dyn FnMut() + '_>> = VecDeque::with_capacity(count as usize);
    while sampler.wants_more() {
        sum.set(0);
        let start = Instant::now();
        for _ in 0..count {
            let sum = black_box(&sum);
            queue.push_back(Box::new(move || sum.set(sum.get() + 1)));
        }
        while let Some(mut call) = queue.pop_front() {
            call();
        }
        sampler.take_ns(start.elapsed(), count);
        assert_eq!(sum.get(), count);
    }
    sampler
}

fn main() {
    let bench = Bench::from_args("send_rate");
    let options = bench.options();
    let count = options.count(10_000, 100);
    if options.wants("reference_queue") {
        let sampler = reference(Sampler::new(options), count);
        bench.report_on(1, "reference_queue", Amount::Count(count), "ns", sampler.summary());
    }
    let payloads = [("void", Payload::Void), ("u64", Payload::Word), ("kib", Payload::Kib)];
    for (place, crosses) in [("same_pe", false), ("cross_pe", true)] {
        for (name, payload) in payloads {
            let case = format!("{name}_{place}");
            if !options.wants(&case) || crosses && options.pes() < 2 {
                continue;
            }
            let sampler = Sampler::new(options);
            let sampler = run(options.pes(), move |rt| measure(rt, sampler, payload, crosses, count));
            bench.report(case, Amount::Count(count), "ns", sampler.summary());
        }
    }
}
