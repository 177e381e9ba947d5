//! What has come is an error or a message, whatever bytes it is made of; and it takes no more memory than it brings.
//!
//! Two processes run a program that sends messages of most kinds. What they send goes by way of the test, which keeps it. Then all of it is
//! decoded as a process decodes it: cut off at each length, with bits flipped, with huge numbers in it, and with nonsense behind the kind.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::thread;

use chare_transport::{Buffer, Driver, Frame, Limits, Outbox, Process, Progress, Rank, local};
use serde::{Deserialize, Serialize};

use super::note::Note;
use super::staged::Instead;
use super::taking::{Came, read};
use super::{INSTEAD, NOTE, SPREAD, identity};

use crate::caught;
use crate::guard::Decision;
use crate::ids::{CollectionId, PeId};
use crate::options::Options;
use crate::placement::Placement;
use crate::prelude::*;
use crate::priority::Priority;
use crate::reduction::Sum;
use crate::report::{ExitReport, Reason};
use crate::runtime::{Begin, start_main};
use crate::scheduler::pe::Pe;
use crate::strided::Strided;
use crate::wire::{Encoder, Kind};

thread_local! {
    /// Bytes that this thread has allocated.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends allocates when its counter is gone already; that is not counted.
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes in memory for each that came, and for each message besides: values are wider in memory than on their way.
const BYTES_PER_BYTE: usize = 64;
const BYTES_BESIDES: usize = 8 << 10;
/// Frames of one kind, or calls of one entry, that are tried.
const FRAMES: usize = 6;
const FLIPS: usize = 400;

#[derive(Serialize, Deserialize)]
struct Node {
    name: String,
    values: Vec<u64>,
    kept: Option<Promise<u64>>,
}

#[chare(index = usize)]
impl Node {
    fn new(name: String) -> Self {
        Node { name, values: Vec::new(), kept: None }
    }

    #[entry]
    fn add(&mut self, mut values: Vec<u64>, name: String) -> Vec<u64> {
        self.name += &name;
        self.values.append(&mut values);
        self.values.clone()
    }

    #[entry]
    fn note(&self, values: Vec<(u64, [u64; 8])>, names: HashMap<String, Option<Element<Node>>>) -> usize {
        values.len() + names.len()
    }

    #[entry]
    fn keep(&mut self, promise: Promise<u64>) {
        self.kept = Some(promise);
    }

    #[entry]
    fn give(&mut self, value: u64) -> Result<()> {
        Ok(self.kept.take().expect("it was kept").send(value)?)
    }

    #[entry]
    fn fail(&self) -> Result<u64> {
        Err("as asked".into())
    }

    #[entry]
    fn reduce(&self, cx: &Cx<Self>, sum: Callback<u64>) {
        cx.contribute(self.values.len() as u64, Sum, sum);
    }

    #[entry]
    async fn talk(this: This<Self>, peer: Element<Node>) -> Result<usize> {
        let channel = this.channel::<Vec<String>, _>(&peer, 3);
        for round in 0..20 {
            channel.send(vec!["a value".to_owned(); round])?;
        }
        let mut count = 0;
        for _ in 0..20 {
            count += channel.recv().await?.len();
        }
        Ok(count)
    }

    #[entry(restart)]
    async fn wander(this: This<Self>, to: usize) -> usize {
        if this.my_pe().index() != to {
            this.this().migrate(to).send();
        }
        this.sync_point().await;
        to
    }
}

/// Has no index.
struct Local(Option<Promise<u64>>);

#[chare]
impl Local {
    fn new(name: Option<String>) -> Self {
        assert!(name.is_some(), "it is named");
        Local(None)
    }

    #[entry]
    fn keep(&mut self, promise: Promise<u64>) {
        self.0 = Some(promise);
    }

    #[entry]
    fn give(&mut self, value: u64) -> Result<()> {
        Ok(self.0.take().expect("it was kept").send(value)?)
    }

    #[entry]
    fn fail(&self) -> Result<u64> {
        Err("as asked".into())
    }

    /// Arrays whose roots are here.
    #[entry]
    fn make(&self, cx: &Cx<Self>) -> (Array<Node>, SparseArray<Node>) {
        let rt: &Runtime = cx;
        (rt.array::<Node>(4).create("another".to_owned()).send(), rt.array_sparse::<Node>().create_empty())
    }
}

/// What serde does not know.
#[derive(Clone)]
struct Unknown;

struct Never;

#[chare]
impl Never {
    fn new(_: Unknown) -> Self {
        Never
    }
}

async fn program(rt: Runtime) -> Result<()> {
    let last = rt.num_pes() - 1;
    let name = || "a node".to_owned();
    let nodes = rt.array::<Node>(4).create(name()).await?;
    for index in [0, 3] {
        nodes.at(index).migrate(last - index).await?;
    }
    let bound = rt.array::<Node>(4).bound_to(&nodes).create(name()).await?;
    bound.at(0).migrate(0).await?;
    let group = rt.group::<Local>().create(Some(name())).await?;
    let single = rt.single::<Local>().on_pe(last).create(Some(name())).await?;
    let (far, sparse_far) = single.make().await?;
    for sparse in [rt.array_sparse::<Node>().create_empty(), sparse_far] {
        for index in 0..8 {
            sparse.insert(index, name()).on_pe(index % rt.num_pes()).await?;
        }
        sparse.done_inserting().await?;
        for index in [6, 7] {
            sparse.at(index).destroy().await?;
            assert!(sparse.at(index).fail().await.is_err());
        }
    }
    let listed = rt.array_sparse::<Node>().map(Last).elements([3, 0, 70]).create(name()).await?;
    let range = rt.array_sparse::<Node>().strided(Strided::new(1, 9, 3)).create(name()).await?;
    for first in [listed, range] {
        assert_eq!(first.note(vec![], HashMap::new()).gather().await?, [0; 3]);
    }
    let named = remote!(|node: &Node| if node.name.is_empty() { Decision::Drop } else { Decision::Run });
    for node in [nodes.at(1), nodes.at(2)] {
        node.add(vec![4], name()).when(named).await?;
        node.add(vec![5; 9], name()).when(named).when(named).priority(3).await?;
    }
    for array in [nodes, bound, far] {
        for index in 0..4 {
            array.at(index).add(vec![u64::MAX; 10 * index], name()).await?;
            array.at(index).add(vec![1; 100], name()).priority(-2).await?;
            assert!(array.at(index).fail().await.is_err());
            let names = [(name(), Some(array.at(index))), ("none".to_owned(), None)];
            assert_eq!(array.at(index).note(vec![(1, [2; 8]); 3], names.into()).await?, 5);
        }
        array.add(vec![1, 2], name()).priority(Priority::bits([true, false])).await?;
        array.add(vec![3], name()).gather().await?;
        let (sum, reduced) = rt.promise();
        array.reduce(sum.into()).send();
        assert!(reduced.await? > 0);
    }
    let (promise, kept) = rt.promise();
    single.keep(promise).await?;
    single.give(7).await?;
    assert_eq!(kept.await?, 7);
    let (promise, failed) = rt.promise::<u64>();
    single.fail().to(promise);
    assert!(failed.await.is_err());
    let (promise, given) = rt.promise();
    group.keep(promise).await?;
    group.on(last).give(8).await?;
    assert_eq!(given.await?, 8);
    rt.quiescence().await?;
    let (one, other) = (nodes.at(1).talk(nodes.at(2)).future(), nodes.at(2).talk(nodes.at(1)).future());
    assert_eq!((one.await?, other.await?), (190, 190));
    assert_eq!(nodes.at(1).wander(last).await?, last);
    assert!(rt.group::<Never>().create(Unknown).await.is_err());
    Ok(())
}

/// Places all elements on the last PE.
struct Last;

impl Placement<usize> for Last {
    fn pe(&self, _: &usize, pe_count: usize) -> usize {
        pe_count - 1
    }
}

/// What must be among the messages of the program.
const SENT: &[Kind] = &[
    Kind::Call,
    Kind::Guarded,
    Kind::Create,
    Kind::CreateSingle,
    Kind::Start,
    Kind::Follow,
    Kind::Register,
    Kind::Arrange,
    Kind::Build,
    Kind::Arrive,
    Kind::Settle,
    Kind::Seal,
    Kind::Sealed,
    Kind::Destroy,
    Kind::Migrate,
    Kind::Arrived,
    Kind::Answer,
    Kind::Fulfil,
    Kind::Fail,
    Kind::Release,
    Kind::Value,
    Kind::Credit,
    Kind::Ascent,
    Kind::Number,
    Kind::Apply,
    Kind::Ranked,
    Kind::Uncreated,
];

/// What a frame is made of.
struct Kept {
    header: Vec<u8>,
    buffers: Vec<Buffer>,
}

impl Kept {
    fn new(header: &[u8], buffers: &[Buffer]) -> Self {
        let mut header = header.to_vec();
        if header.starts_with(&SPREAD.to_le_bytes()) {
            // Who decodes it here is the first process, which gets nothing that it has spread itself.
            header[4..8].copy_from_slice(&1_u32.to_le_bytes());
        }
        Kept { header, buffers: buffers.iter().filter_map(Buffer::copied).collect() }
    }

    /// The same, if some of its buffers did not come; here there are none of these.
    fn with_something_instead(&self) -> Self {
        let mut header = Encoder::default();
        header.put_u32(INSTEAD);
        header.put_own(&Vec::<(usize, Instead)>::new());
        header.bytes.extend_from_slice(&self.header);
        Kept { header: header.bytes, buffers: self.copy() }
    }

    fn copy(&self) -> Vec<Buffer> {
        self.buffers.iter().filter_map(Buffer::copied).collect()
    }

    /// Where the kind of its message stands.
    fn place_of_kind(&self) -> usize {
        if self.header.starts_with(&SPREAD.to_le_bytes()) { 8 } else { 4 }
    }

    /// The kind of its message, and the code of a call; `u8::MAX` of a note.
    fn kind(&self) -> (u8, &[u8]) {
        if self.header.starts_with(&NOTE.to_le_bytes()) {
            return (u8::MAX, &[]);
        }
        let contents = &self.header[self.place_of_kind()..];
        // Behind the kind and the chare.
        let code = if contents[0] == Kind::Call as u8 { &contents[17..25] } else { &[] };
        (contents[0] & !0x80, code)
    }
}

/// Runs `begin` as a job of two processes, and brings what they have sent each other.
fn run(options: &Options, begin: Begin<'_>) -> (ExitReport, Vec<Kept>) {
    let identities = vec![identity(options).expect("no two rows have one id"); 2];
    let join = || local::connect(&identities, &Limits::default()).expect("they are alike").into_iter();
    let (mut one, mut two) = (join(), join());
    let (first, beyond) = (one.next().expect("of two"), one.next().expect("of two"));
    let (before, second) = (two.next().expect("of two"), two.next().expect("of two"));
    thread::scope(|scope| {
        let other = scope.spawn(|| Runtime::run_joined(second, options.clone(), Box::new(|_| {})));
        let kept = scope.spawn(|| pass_on(beyond, before));
        let report = Runtime::run_joined(first, options.clone(), begin).expect("the host device is there");
        other.join().expect("a run panics nowhere").expect("the host device is there");
        (report, kept.join().expect("what is passed on is whole"))
    })
}

/// Passes frames on between two processes that each take one of these for the other, until the run ends.
fn pass_on(beyond: Process, before: Process) -> Vec<Kept> {
    let Process { outbox: to_first, driver: mut from_first } = beyond;
    let Process { outbox: to_second, driver: mut from_second } = before;
    let (mut kept, mut is_over) = (Vec::new(), false);
    let mut pass = |from: &mut Driver, outbox: &Outbox, rank| {
        from.poll(&mut |_, frame: Frame<'_>| {
            let Frame { header, buffers } = frame;
            is_over |= matches!(Note::read(header), Some(Note::End(_)));
            kept.push(Kept::new(header, &buffers));
            // After its end a process takes nothing.
            let _ = outbox.send(rank, Frame { header, buffers });
        })
        .map(|progress| (progress, is_over))
    };
    let mut is_closing = false;
    loop {
        let first = pass(&mut from_first, &to_second, Rank(1));
        let second = pass(&mut from_second, &to_first, Rank(0));
        match (first, second) {
            (Ok((Progress::Closed, _)), Ok((Progress::Closed, _))) => return kept,
            (Ok((_, _)), Ok((_, true))) if !is_closing => {
                is_closing = true;
                from_first.close();
                from_second.close();
            }
            (Ok(_), Ok(_)) => thread::yield_now(),
            (first, second) => panic!("{:?} {:?}", first.err(), second.err()),
        }
    }
}

/// The next of a sequence that looks random.
fn next(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
    (*seed >> 33) as usize
}

/// Decodes a frame as its process does, and drops what it is. The bytes that it has allocated meanwhile.
fn allocated_by(pe: &Pe, header: &[u8], buffers: &[Buffer]) -> Result<usize, String> {
    let buffers = buffers.iter().filter_map(Buffer::copied).collect();
    let before = ALLOCATED.get();
    let outcome = caught::catch(pe, || {
        let outcome = read(pe, Rank(1), Frame { header, buffers });
        let allocated = ALLOCATED.get() - before;
        drop(outcome);
        allocated
    });
    outcome.map_err(|panic| panic.to_string())
}

/// What is wrong with how a frame is decoded, if anything.
fn wrong(pe: &Pe, header: &[u8], buffers: &[Buffer]) -> Option<String> {
    let came = header.len() + buffers.iter().map(Buffer::len).sum::<usize>();
    let most = BYTES_BESIDES + BYTES_PER_BYTE * came;
    // Tables of the runtime's grow now and then, which is not for this frame: not so the second time.
    let again = |allocated| if allocated > most { allocated_by(pe, header, buffers) } else { Ok(allocated) };
    match allocated_by(pe, header, buffers).and_then(again) {
        Ok(allocated) if allocated <= most => None,
        Ok(allocated) => Some(format!("{allocated} bytes for {came}: {header:?}")),
        Err(panic) => Some(format!("{panic}: {header:?}")),
    }
}

/// All that can be done to some frames; what is wrong, and how many were messages all the same.
fn try_all(pe: &Pe, frames: &[&Kept]) -> (Vec<String>, usize) {
    let (mut wrongs, mut seed, mut whole) = (Vec::new(), 7, 0);
    for frame in frames {
        wrongs.extend(wrong(pe, &frame.header, &frame.buffers));
        whole +=
            usize::from(read(pe, Rank(1), Frame { header: &frame.header, buffers: frame.copy() }).is_ok());
        wrongs.extend(wrong(pe, &frame.header, &[]));
        wrongs.extend(
            (0..frame.header.len()).filter_map(|len| wrong(pe, &frame.header[..len], &frame.buffers)),
        );
        for place in 0..frame.header.len() {
            let mut header = frame.header.clone();
            // As postcard writes the largest number.
            header.splice(place..=place, [u8::MAX; 9].into_iter().chain([1]));
            wrongs.extend(wrong(pe, &header, &frame.buffers));
        }
        for _ in 0..FLIPS {
            let mut header = frame.header.clone();
            for _ in 0..=next(&mut seed) % 3 {
                let place = next(&mut seed) % header.len();
                header[place] ^= 1 << (next(&mut seed) % 8);
            }
            wrongs.extend(wrong(pe, &header, &frame.buffers));
        }
    }
    for kind in 0..=u8::MAX {
        for len in 0..40 {
            let mut header = vec![0, 0, 0, 0, kind];
            header.extend((0..len).map(|_| (next(&mut seed) % 256) as u8 >> (next(&mut seed) % 8)));
            wrongs.extend(wrong(pe, &header, &[]));
        }
    }
    (wrongs, whole)
}

#[test]
fn what_has_come_is_an_error_or_a_message_whatever_its_bytes_are() {
    let options = Options::default().with_pes(2);
    let (report, kept) = run(&options, Box::new(|pe| start_main(pe, program)));
    assert!(report.is_success(), "{report}");
    let mut by_kind = BTreeMap::<_, Vec<&Kept>>::new();
    for frame in &kept {
        by_kind.entry(frame.kind()).or_default().push(frame);
    }
    let kinds: BTreeSet<_> = by_kind.keys().map(|(kind, _)| *kind).collect();
    let missing: Vec<_> = SENT.iter().filter(|kind| !kinds.contains(&(**kind as u8))).collect();
    assert!(missing.is_empty(), "the program sends no {missing:?}");
    // The shortest ones of each kind, of different lengths.
    let shortest = |frames: &mut Vec<&'_ Kept>| {
        let mut lengths = BTreeSet::new();
        frames.sort_by_key(|frame| frame.header.len());
        frames.retain(|frame| lengths.insert(frame.header.len()));
        frames.truncate(FRAMES);
    };
    by_kind.values_mut().for_each(shortest);
    let frames: Vec<_> = by_kind.into_values().flatten().collect();
    let instead: Vec<_> = frames.iter().map(|frame| frame.with_something_instead()).collect();
    let mut found = None;
    // The run has ended, so nobody is told of what is dropped there.
    let (report, _) = run(
        &options,
        Box::new(|pe| {
            pe.shared().stop(Reason::Exit(0));
            let (mut wrongs, whole) = try_all(pe, &frames);
            wrongs.extend(try_all(pe, &instead.iter().collect::<Vec<_>>()).0);
            found = Some((wrongs, whole));
        }),
    );
    assert!(report.is_success(), "{report}");
    let (wrongs, whole) = found.expect("it was tried");
    assert!(wrongs.is_empty(), "{} are wrong, such as {:#?}", wrongs.len(), &wrongs[..wrongs.len().min(5)]);
    assert_eq!(whole, frames.len(), "as they came they can be read");
}

#[test]
fn a_collection_that_nobody_has_made_is_an_error() {
    let mut header = Encoder::default();
    header.put_u32(0);
    header.put_byte(Kind::AllPlaced as u8 | 0x80);
    header.put_own(&(CollectionId::new(PeId::new(2), 77), PeId::new(0)));
    let (report, _) = run(
        &Options::default().with_pes(2),
        Box::new(|pe| match read(pe, Rank(1), Frame::new(&header.bytes)) {
            // It can be read: what another process has made may not have come yet. But then nobody sends it this.
            Ok(Came::Message(_, msg)) => msg.run(pe),
            _ => pe.shared().stop(Reason::Exit(0)),
        }),
    );
    assert!(!report.is_success());
    let text = report.to_string();
    let told =
        "rank 1 has sent what cannot be read: it names collection 77 of PE 2, which PE 0 does not know";
    assert!(text.contains(told), "{text}");
}

#[test]
fn messages_are_inside_of_one_another_only_so_deep() {
    // As many as may be, and more.
    for (count, is_too_deep) in [(80, false), (81, true), (100_000, true)] {
        let mut header = Encoder::default();
        header.put_u32(0);
        for _ in 0..count {
            header.put_byte(Kind::Ranked as u8 | 0x80);
            header.put_own(&(crate::priority::Rank::Normal, false));
        }
        let mut text = None;
        let (report, _) = run(
            &Options::default().with_pes(2),
            Box::new(|pe| {
                pe.shared().stop(Reason::Exit(0));
                text = read(pe, Rank(1), Frame::new(&header.bytes)).err().map(|error| error.to_string());
            }),
        );
        assert!(report.is_success(), "{report}");
        let text = text.expect("there is no message inside of all others");
        assert_eq!(text == "too many messages inside of one another", is_too_deep, "{count}: {text}");
    }
}
