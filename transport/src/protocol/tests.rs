//! The protocol against an adversary in the place of the network: any order that a network may show, then bytes that none
//! may.

use std::collections::VecDeque;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::buffer::HostBuf;
use crate::facts::{Facts, ThreadLevel};
use crate::outbox::Outbox;

/// Small, so that a few frames meet every limit.
fn narrow(checksums: bool) -> Limits {
    Limits {
        batch_bytes: 512,
        inline_bytes: 64,
        buffers: 8,
        frame_bytes: 50_000,
        eager_window_bytes: 2048,
        bulk_window_bytes: 4096,
        queue_bytes: 10_000,
        checksums,
        ..Limits::default()
    }
}

/// What a frame says, owned.
type Said = (Vec<u8>, Vec<Vec<u8>>);

/// One process: what it sends by, and what its engine has decided.
struct Node {
    shared: std::sync::Arc<Shared>,
    outbox: Outbox,
    engine: Engine,
}

/// From one process to another, what is on its way and what must come of it.
#[derive(Default)]
struct Wire {
    batches: VecDeque<Batch>,
    buffers: VecDeque<Buffer>,
    landings: VecDeque<(u64, Landing)>,
    /// Buffers that have met their memory, in no order.
    landed: Vec<(u64, Buffer)>,
    expected: VecDeque<Said>,
}

/// A job whose network does what the choices say.
struct Job {
    limits: Limits,
    nodes: Vec<Node>,
    wires: Vec<Wire>,
    choice: u64,
}

impl Job {
    fn new(ranks: usize, limits: &Limits, seed: u64) -> Job {
        let hosts = vec![String::new(); ranks];
        let node = |rank| {
            let facts = Facts::new(Rank(rank), &hosts, ThreadLevel::Multiple);
            let shared = std::sync::Arc::new(Shared::new(facts, limits.clone()));
            Node { outbox: Outbox::new(shared.clone()), shared, engine: Engine::new(ranks, limits.clone()) }
        };
        Job {
            nodes: (0..ranks as u32).map(node).collect(),
            wires: (0..ranks * ranks).map(|_| Wire::default()).collect(),
            limits: limits.clone(),
            choice: seed | 1,
        }
    }

    /// A number below `bound`; xorshift.
    fn choose(&mut self, bound: usize) -> usize {
        self.choice ^= self.choice << 13;
        self.choice ^= self.choice >> 7;
        self.choice ^= self.choice << 17;
        (self.choice >> 11) as usize % bound
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let (len, first) = (self.choose(most + 1), self.choose(256));
        (0..len).map(|index| (first + index * 7) as u8).collect()
    }

    fn send(&mut self, wire: usize) {
        let (from, to) = (wire / self.nodes.len(), wire % self.nodes.len());
        let most_header = [20, 20, 100, 1500][self.choose(4)];
        let header = self.bytes(most_header);
        let count = [0, 0, 0, 1, 1, 3, 8][self.choose(7)];
        let buffers: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                let most = [0, 64, 65, 600, 3000, 6000][self.choose(6)];
                self.bytes(most)
            })
            .collect();
        let mut frame = Frame::new(&header);
        for (index, buffer) in buffers.iter().enumerate() {
            frame.buffers.push(HostBuf::copied(buffer, 1 << (index % 7)).into());
        }
        let sent = self.nodes[from].outbox.send(Rank(to as u32), frame);
        let queued = self.nodes[from].outbox.queued_bytes(Rank(to as u32));
        let pressed = queued > self.limits.queue_bytes;
        assert_eq!(sent.expect("within the limits") == crate::Queued::Pressed, pressed);
        self.wires[wire].expected.push_back((header, buffers));
    }

    /// Lets a process decide, and carries out what it has decided. What is not a full batch stays queued if it `may_wait`.
    fn pump(&mut self, from: usize, may_wait: bool) {
        let ranks = self.nodes.len();
        let node = &mut self.nodes[from];
        let Ok(()) = node.shared.take_ready(|to| {
            if let Some(batch) = node.engine.take(&node.shared, to, may_wait) {
                node.shared.release(to, batch.cargo().queued_bytes);
                self.wires[from * ranks + to.index()].batches.push_back(batch);
            }
            Ok::<_, Infallible>(())
        });
        node.engine.pump();
        while let Some(action) = self.nodes[from].engine.actions.pop_front() {
            match action {
                Action::Batch { to, batch } => {
                    self.nodes[from].shared.release(to, batch.cargo().queued_bytes);
                    self.wires[from * ranks + to.index()].batches.push_back(batch);
                }
                Action::Bulk { to, buffer } => {
                    self.wires[from * ranks + to.index()].buffers.push_back(buffer);
                }
                Action::Receive { from: sender, id, landing } => {
                    self.wires[sender.index() * ranks + from].landings.push_back((id, landing));
                }
            }
        }
        for wire in &mut self.wires {
            while !wire.landings.is_empty() && !wire.buffers.is_empty() {
                let (id, landing) = wire.landings.pop_front().expect("not empty");
                let memory =
                    wire.buffers.pop_front().expect("not empty").into_host().expect("all are the host's");
                wire.landed.push((id, landing.fill(memory.as_bytes()).into()));
            }
        }
    }

    /// Delivers something on a wire, if there is something.
    fn deliver(&mut self, wire: usize) -> bool {
        let to = wire % self.nodes.len();
        let from = Rank((wire / self.nodes.len()) as u32);
        let landed = self.wires[wire].landed.len();
        let event = if landed > 0 && (self.wires[wire].batches.is_empty() || self.choose(2) == 0) {
            let one = self.choose(landed);
            let (id, buffer) = self.wires[wire].landed.swap_remove(one);
            Event::Bulk { from, id, buffer }
        } else if let Some(batch) = self.wires[wire].batches.pop_front() {
            Event::Batch { from, batch }
        } else {
            return false;
        };
        let expected = &mut self.wires[wire].expected;
        let handled = self.nodes[to].engine.handle(event, &mut |sender, frame| {
            let (header, buffers) = expected.pop_front().expect("a frame came that was not sent");
            assert_eq!((sender, frame.header), (from, &header[..]));
            assert_eq!(frame.buffers.len(), buffers.len());
            for (index, (came, sent)) in frame.buffers.iter().zip(&buffers).enumerate() {
                let Buffer::Host(came) = came else { panic!("all are the host's") };
                assert_eq!((came.as_bytes(), came.align()), (&sent[..], 1 << (index % 7)));
            }
        });
        handled.expect("what was sent can be understood");
        true
    }

    /// What may be on its way at once.
    fn check_bounds(&self) {
        for wire in &self.wires {
            let eager: usize = wire
                .batches
                .iter()
                .filter(|batch| batch.has_records())
                .map(|batch| batch.bytes().len())
                .sum();
            assert!(eager as u64 <= self.limits.eager_window_bytes, "{eager} bytes of batches");
            // The buffers of one frame, its header as one of them, or as many as the window allows.
            let most = 128.max(self.limits.buffers + 1);
            assert!(wire.buffers.len() + wire.landed.len() <= most, "{} buffers", wire.buffers.len());
        }
    }

    fn run_dry(&mut self) {
        let mut is_busy = true;
        while is_busy {
            is_busy = false;
            for wire in 0..self.wires.len() {
                is_busy |= self.deliver(wire);
            }
            (0..self.nodes.len()).for_each(|from| self.pump(from, false));
            is_busy |= self.wires.iter().any(|wire| !wire.batches.is_empty() || !wire.landed.is_empty());
        }
    }

    /// Any mixture of sends, decisions and deliveries; then the end, begun by some while others still send.
    fn play(mut self, steps: usize) {
        for _ in 0..steps {
            let wire = self.choose(self.wires.len());
            match self.choose(8) {
                0 | 1 => self.send(wire),
                2 | 3 => {
                    let may_wait = self.choose(3) == 0;
                    self.pump(wire / self.nodes.len(), may_wait);
                }
                _ => {
                    self.deliver(wire);
                }
            }
            self.check_bounds();
        }
        let early = self.choose(self.nodes.len());
        (0..self.nodes.len()).for_each(|from| self.pump(from, false));
        self.nodes[early].engine.close();
        self.run_dry();
        let is_alone = self.nodes.len() == 1;
        assert_eq!(self.nodes[early].engine.is_closed(), is_alone, "one process closes without the others");
        for wire in 0..self.wires.len() {
            if wire / self.nodes.len() != early {
                self.send(wire);
            }
        }
        self.run_dry();
        let left = self.wires.iter().map(|wire| wire.expected.len()).sum::<usize>();
        assert_eq!(left, 0, "frames that did not come");
        self.nodes.iter_mut().for_each(|node| node.engine.close());
        self.run_dry();
        for (node, rank) in self.nodes.iter().zip(0..) {
            assert!(node.engine.is_closed(), "rank {rank} does not end");
            assert_eq!(node.outbox.queued_bytes(Rank(rank)), 0);
        }
        let under_way = |wire: &Wire| wire.batches.len() + wire.buffers.len() + wire.landings.len();
        assert_eq!(self.wires.iter().map(under_way).sum::<usize>(), 0, "something is left on its way");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_come_once_and_in_order(seed: u64, ranks in 1_usize..4, checksums: bool) {
        Job::new(ranks, &narrow(checksums), seed).play(400);
    }

    /// Also what is wrong with it, and what the link is like then.
    #[test]
    fn a_single_frame_is_taken_as_any_other(
        header in proptest::collection::vec(any::<u8>(), 0..80),
        spoilt in proptest::collection::vec((0_usize..60, any::<u8>()), 0..3),
        after_the_end: bool,
        frame_bytes in 20_u64..200,
    ) {
        let mut batch = Batch::new(512);
        batch.push(&(header.len() as u64).to_le_bytes());
        batch.push(&header);
        let sequence = u32::from(after_the_end);
        batch.seal(&Header { flags: 0, sequence, eager_taken: 0, bulk_taken: 0 });
        let length = batch.bytes().len();
        for (place, value) in spoilt.into_iter().filter(|(place, _)| *place < length) {
            batch.memory_mut()[place] = value;
        }
        let bytes = batch.bytes();
        let limits = Limits { frame_bytes, ..narrow(false) };
        let take = |take: &dyn Fn(&mut Engine, Batch, &mut Sink<'_>) -> Result<(), Error>| {
            let mut engine = Engine::new(2, limits.clone());
            let mut got = Vec::new();
            let mut sink = |from: Rank, frame: Frame<'_>| got.push((from, frame.header.to_vec()));
            if after_the_end {
                let mut last = Batch::new(512);
                last.seal(&Header { flags: wire::FIN, sequence: 0, eager_taken: 0, bulk_taken: 0 });
                engine.take_batch(Rank(1), last, &mut sink).expect("an end");
            }
            let mut batch = Batch::new(512);
            batch.set_len(0);
            batch.push(bytes);
            let taken = take(&mut engine, batch, &mut sink);
            let told = engine.links[1].incoming.header(0, 0, false);
            (taken, got, told, engine.has_work())
        };
        let any = take(&|engine, batch, sink| {
            engine.take_batch(Rank(1), batch, sink)?;
            engine.touch_if_due(Rank(1));
            Ok(())
        });
        prop_assert_eq!(take(&|engine, batch, sink| engine.take_arrival(Rank(1), batch, sink)), any);
    }

    #[test]
    fn what_is_no_batch_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(receive(&bytes, &narrow(false)).is_err());
    }

    #[test]
    fn a_flipped_bit_is_found(seed: u64, bit: usize) {
        let mut batch = a_batch(seed, true);
        let bit = bit % (batch.len() * 8);
        batch[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(receive(&batch, &narrow(true)).is_err());
    }

    #[test]
    fn without_checksums_what_is_spoilt_does_no_harm(
        seed: u64,
        spoilt in proptest::collection::vec((32_usize..512, any::<u8>()), 1..6),
        cut in 0_usize..100,
    ) {
        let mut batch = a_batch(seed, false);
        for (place, value) in spoilt {
            if let Some(byte) = batch.get_mut(place) {
                *byte = value;
            }
        }
        batch.truncate(batch.len() - cut.min(batch.len() - 32));
        // So that the length is right, and the records are what is looked at.
        let length = batch.len() as u32;
        batch[24..28].copy_from_slice(&length.to_le_bytes());
        let limits = narrow(false);
        if let Ok(announced) = receive(&batch, &limits) {
            prop_assert!(announced <= limits.frame_bytes.max(limits.bulk_window_bytes));
        }
    }
}

/// A valid first batch of rank 1 for rank 0.
fn a_batch(seed: u64, checksums: bool) -> Vec<u8> {
    let mut job = Job::new(2, &narrow(checksums), seed);
    for _ in 0..4 {
        job.send(2);
    }
    job.pump(1, false);
    job.wires[2].batches.pop_front().expect("there is credit for a first batch").bytes().to_vec()
}

/// Gives rank 0 of two a first message of rank 1; returns how much memory was set aside for what it announces.
fn receive(bytes: &[u8], limits: &Limits) -> Result<u64, WireError> {
    let mut engine = Engine::new(2, limits.clone());
    let mut batch = Batch::new(bytes.len());
    batch.set_len(0);
    batch.push(bytes);
    match engine.handle(Event::Batch { from: Rank(1), batch }, &mut |_, _| {}) {
        Ok(()) => {}
        Err(Error::Corrupt { rank: Rank(1), what }) => return Err(what),
        // A flag may say that the sender has gone.
        Err(Error::Aborted { by: Rank(1), .. } | Error::Lost { rank: Rank(1), .. }) => return Ok(0),
        Err(other) => panic!("{other}"),
    }
    engine.pump();
    let announced = engine.actions.iter().map(|action| match action {
        Action::Receive { landing, .. } => landing.len() as u64,
        Action::Batch { .. } | Action::Bulk { .. } => 0,
    });
    Ok(announced.sum())
}

/// A batch with one record, written by hand.
fn with_record(count: u16, flags: u16, descriptors: &[(u64, u8, u8, u8)], contents: &[u8]) -> Vec<u8> {
    let mut batch = Batch::new(4096);
    batch.push(&(contents.len() as u32).to_le_bytes());
    batch.push(&count.to_le_bytes());
    batch.push(&flags.to_le_bytes());
    for (len, align, place, kind) in descriptors {
        batch.push(&len.to_le_bytes());
        batch.push(&[0, 0, 0, 0, *align, *place, *kind, 0]);
    }
    batch.push(contents);
    batch.seal(&Header { flags: 0, sequence: 0, eager_taken: 0, bulk_taken: 0 });
    batch.bytes().to_vec()
}

#[test]
fn each_kind_of_nonsense_is_named() {
    let limits = narrow(false);
    let refused = |bytes: &[u8]| receive(bytes, &limits).expect_err("nonsense");
    assert_eq!(receive(&with_record(1, 0, &[(4000, 3, 1, 0)], b"x"), &limits), Ok(4000));

    let huge = with_record(1, 0, &[(1 << 60, 0, 1, 0)], b"");
    assert!(matches!(refused(&huge), WireError::Limit { came, .. } if came == 1 << 60));
    let many = vec![(40_000, 0, 1, 0); 2];
    assert!(matches!(refused(&with_record(2, 0, &many, b"")), WireError::Limit { came: 80_000, .. }));
    let crowd = vec![(1, 0, 1, 0); 9];
    assert!(matches!(refused(&with_record(9, 0, &crowd, b"")), WireError::Limit { came: 9, limit: 8, .. }));
    assert!(matches!(refused(&with_record(8, 0, &[], b"")), WireError::Truncated { .. }));
    assert!(matches!(refused(&with_record(1, 0, &[(50, 0, 0, 0)], b"abc")), WireError::Truncated { .. }));
    for (count, flags, descriptor) in [
        (1, 2, (4, 0, 1, 0)),
        (0, 1, (4, 0, 1, 0)),
        (1, 0, (4, 13, 1, 0)),
        (1, 0, (4, 200, 1, 0)),
        (1, 0, (4, 0, 2, 0)),
        (1, 0, (4, 0, 1, 7)),
        // Memory of devices is bulk, is there, and is no header.
        (1, 0, (4, 0, 0, 1)),
        (1, 0, (0, 0, 1, 1)),
        (1, 1, (4, 0, 1, 1)),
        (1, 1, (0, 0, 0, 0)),
    ] {
        let spoilt = with_record(count, flags, &[descriptor], b"");
        assert!(matches!(refused(&spoilt), WireError::Meaning(_)), "{descriptor:?}");
    }

    let good = with_record(0, 0, &[], b"good");
    let spoil = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        refused(&bytes)
    };
    assert_eq!(spoil(0, 0), WireError::NoBatch);
    assert_eq!(spoil(2, 99), WireError::NoBatch);
    assert_eq!(spoil(3, 128), WireError::Meaning("flags of a batch"));
    assert_eq!(spoil(4, 3), WireError::Sequence { expected: 0, came: 3 });
    assert_eq!(spoil(8, 1), WireError::Credit);
    assert_eq!(spoil(24, 1), WireError::Length { said: 1, came: 44 });
    assert_eq!(spoil(3, wire::CHECKSUM), WireError::Checksum);
    assert_eq!(refused(&good[..20]), WireError::Truncated { wanted: 32, came: 20 });
}

/// A job of two in which rank 1 has sent a large buffer to rank 0, whose memory waits for it.
fn with_buffer_under_way() -> (Job, u64) {
    let mut job = Job::new(2, &narrow(true), 1);
    let frame = Frame::new(b"h").with_buffer(vec![5_u8; 300]);
    assert!(job.nodes[1].outbox.send(Rank(0), frame).is_ok());
    job.wires[2].expected.push_back((b"h".to_vec(), vec![vec![5; 300]]));
    job.pump(1, false);
    assert!(job.deliver(2));
    job.pump(0, false);
    let (id, _) = job.wires[2].landed.pop().expect("the buffer has met its memory");
    (job, id)
}

#[test]
fn buffers_that_were_not_announced_so_are_refused() {
    let refused = |id: u64, bytes: Vec<u8>| {
        let (mut job, _) = with_buffer_under_way();
        let event = Event::Bulk { from: Rank(1), id, buffer: bytes.into() };
        job.nodes[0].engine.handle(event, &mut |_, _| panic!("this is no frame")).expect_err("a wrong buffer")
    };
    let (_, id) = with_buffer_under_way();
    let corrupt = |what| Error::Corrupt { rank: Rank(1), what };
    assert_eq!(refused(id, vec![5; 299]), corrupt(WireError::BufferLength { announced: 300, came: 299 }));
    assert_eq!(refused(id, vec![6; 300]), corrupt(WireError::Checksum));
    assert_eq!(refused(id + 1, vec![5; 300]), corrupt(WireError::Unannounced));
    let said = refused(id, vec![6; 300]).to_string();
    assert!(said.contains("rank 1") && said.contains("checksum"), "{said}");
}

#[test]
fn windows_are_kept_by_the_peer_too() {
    // The second frame does not fit beside the first, and this sender does not care.
    let mut engine = Engine::new(2, narrow(false));
    let mut give = |sequence, eager: bool| {
        let descriptors = [(3000, 0, 1, 0)];
        let record = with_record(1, 0, if eager { &[(400, 0, 0, 0)] } else { &descriptors }, &[0; 400]);
        let mut batch = Batch::new(record.len());
        batch.push(&record[wire::HEADER_BYTES..]);
        batch.seal(&Header { flags: 0, sequence, eager_taken: 0, bulk_taken: 0 });
        engine.handle(Event::Batch { from: Rank(1), batch }, &mut |_, _| {})
    };
    give(0, false).expect("the window is empty");
    let error = give(1, false).expect_err("the window is full");
    assert!(matches!(error, Error::Corrupt { what: WireError::Limit { came: 6000, .. }, .. }), "{error}");
}

#[test]
fn an_abort_is_heard_past_all_queues() {
    let mut job = Job::new(3, &narrow(true), 9);
    for _ in 0..50 {
        job.send(5);
    }
    job.pump(1, false);
    job.nodes[1].engine.abort(Rank(1), "enough");
    job.pump(1, false);
    let heard = |job: &mut Job, wire: usize| {
        loop {
            let batch = job.wires[wire].batches.pop_front().expect("an abort comes before the end");
            let event = Event::Batch { from: Rank(1), batch };
            if let Err(error) = job.nodes[wire % 3].engine.handle(event, &mut |_, _| {}) {
                return error;
            }
        }
    };
    let aborted = Error::Aborted { by: Rank(1), reason: "enough".into() };
    assert_eq!((heard(&mut job, 3), heard(&mut job, 5)), (aborted.clone(), aborted));
    job.nodes[0].engine.leave(Rank(0));
    job.pump(0, false);
    let farewell = job.wires[1].batches.pop_front().expect("a farewell");
    assert!(Engine::says_farewell(&farewell));
}

#[test]
fn nothing_comes_after_the_last() {
    let mut job = Job::new(2, &narrow(false), 3);
    job.nodes.iter_mut().for_each(|node| node.engine.close());
    job.pump(0, false);
    job.pump(1, false);
    job.run_dry();
    assert!(job.nodes[0].engine.is_closed());
    let mut batch = Batch::new(512);
    batch.seal(&Header { flags: 0, sequence: 1, eager_taken: 0, bulk_taken: 0 });
    let error = job.nodes[0].engine.handle(Event::Batch { from: Rank(1), batch }, &mut |_, _| {});
    assert!(matches!(error, Err(Error::Corrupt { what: WireError::AfterEnd, .. })), "{error:?}");
}
