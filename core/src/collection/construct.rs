//! Construction: how a collection comes to be on a PE, and how one chare is made and put in its place.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;

use crate::bound;
use crate::broadcast;
use crate::caught::PanicPayload;
use crate::cell::ChareRef;
use crate::chares::{Chare, Cx};
use crate::collection::{Collection, CollectionInfo, Job, Place, Progress};
use crate::entry::{self, EntryOf, Failure};
use crate::error::CallError;
use crate::ids::ChareId;
use crate::index::DenseIndex;
use crate::job::Others;
use crate::message::{Msg, Name, Payload};
use crate::reduction;
use crate::reply::{CellRef, Reply};
use crate::report::Reason;
use crate::scheduler::pe::{Pe, Unborn};
use crate::scheduler::task::{self, Mode};
use crate::wire::{Codec, Decoder, Encoder, Kind, Leaves, Packed, Parcel, Stays, Unsent, WireError};

/// Elements that one step of a creation constructs; few in tests.
const BATCH: usize = if cfg!(test) { 2 } else { 1024 };

const A_COLLECTION: Name = Name::Runtime("the creation of a collection");
const A_SINGLETON: Name = Name::Runtime("the creation of a singleton");

/// The creation of a collection on one PE.
pub(crate) struct Create<C: Chare> {
    pub(crate) info: Arc<CollectionInfo>,
    pub(crate) init: C::Init,
    /// The cell that waits for all constructors.
    pub(crate) root: Option<CellRef>,
}

impl<C: Chare> Create<C>
where
    C::Init: Clone,
{
    /// Makes the collection known on this PE, and begins to construct its elements. Fails, and says why, if it does not
    /// fit in memory, or its map says nonsense.
    pub(crate) fn begin(self, pe: &Pe) -> Result<(), String> {
        if pe.shared().is_stopping() {
            return Ok(());
        }
        let collection = Collection::new(self.info, pe.id())?;
        collection.populate::<C>(pe)?;
        let collection = pe.directory.insert(collection);
        bound::tie(pe, collection);
        let job = ConstructAll::<C> {
            init: self.init,
            root: self.root,
            place_count: collection.place_count(),
            tracker: None,
            next: None,
        };
        collection.add_job(pe, Box::new(job));
        reduction::tell_standing(pe, collection);
        pe.release_for_collection(collection.id());
        Ok(())
    }
}

impl<C: Chare> Create<C> {
    /// The message for these PEs. An error if it cannot go there: then nothing has been done yet.
    pub(crate) fn for_others(self, pe: &Pe, others: Others) -> Result<Msg, Stays>
    where
        C::Init: Clone,
    {
        let encode = |Create { info, init, root }: Self, to: &mut Encoder| {
            to.put_code(C::code(), C::INFO.name)?;
            to.put_own(&root);
            info.leave::<C::Index>(to)?;
            C::encode_init(init, to)
        };
        let parcel = match others {
            Others::Near(_) => Parcel::Here(self),
            Others::Far(pes) => Parcel::encoded(pe, pes, self, encode)?,
        };
        Ok(match parcel {
            Parcel::Here(create) => Msg::for_pe(create),
            Parcel::Encoded(packed) => Msg::for_pe(CreateElsewhere::<false>(packed)),
        })
    }

    /// Of a sparse array.
    pub(crate) fn decode_sparse(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let root = from.take()?;
        let info = Arc::new(CollectionInfo::decode_sparse::<C>(from)?);
        Ok(Create { info, init: C::decode_init(from)?, root })
    }

    /// Of any collection.
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError>
    where
        C::Index: DenseIndex,
    {
        let root = from.take()?;
        let info = Arc::new(CollectionInfo::decode::<C>(from)?);
        Ok(Create { info, init: C::decode_init(from)?, root })
    }
}

impl<C: Chare> Payload for Create<C>
where
    C::Init: Clone,
{
    const NAME: Name = A_COLLECTION;
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if let Some(leader) = self.info.leader()
            && pe.collection(leader).is_none()
        {
            return pe.hold_for_collection(leader, Msg::for_pe(self));
        }
        if let Err(text) = self.begin(pe) {
            pe.shared().stop(Reason::Aborted(text));
        }
    }
}

/// A creation on a PE of another process, or on all of those of others.
struct CreateElsewhere<const IS_SINGLE: bool>(Packed);

impl<const IS_SINGLE: bool> Payload for CreateElsewhere<IS_SINGLE> {
    const NAME: Name = if IS_SINGLE { A_SINGLETON } else { A_COLLECTION };
    const LEAVES: Leaves<Self> = Leaves::As(
        if IS_SINGLE { Kind::CreateSingle } else { Kind::Create },
        |CreateElsewhere(packed), to| {
            packed.leave(to);
            Ok(())
        },
    );
    fn run(self, _: ChareId, _: Reply, _: &Pe) {
        unreachable!("it is for PEs of other processes")
    }
}

/// The creation of a sparse array without elements on one PE.
pub(crate) struct Start {
    pub(crate) info: Arc<CollectionInfo>,
}

impl Start {
    /// Makes the array known on this PE.
    pub(crate) fn begin(self, pe: &Pe) {
        if pe.shared().is_stopping() {
            return;
        }
        let collection = Collection::new(self.info, pe.id()).expect("nothing fits in memory");
        let collection = pe.directory.insert(collection);
        reduction::tell_standing(pe, collection);
        pe.release_for_collection(collection.id());
    }
}

impl Start {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        Ok(self.info.leave_by_itself(to)?)
    }

    pub(crate) fn decode<C: Chare>(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Start { info: Arc::new(CollectionInfo::decode_sparse::<C>(from)?) })
    }
}

impl Payload for Start {
    const NAME: Name = Name::Runtime("the creation of a collection");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Start, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.begin(pe);
    }
}

struct ConstructAll<C: Chare> {
    init: C::Init,
    root: Option<CellRef>,
    /// Places that there were when the collection was made; guests come behind them.
    place_count: usize,
    tracker: Option<CellRef>,
    next: Option<usize>,
}

impl<C: Chare> Job for ConstructAll<C>
where
    C::Init: Clone,
{
    fn step(&mut self, pe: &Pe, collection: &Collection) -> Progress {
        let start = match self.next {
            Some(start) => start,
            None => {
                let count = self.place_count as u64;
                self.tracker = self
                    .root
                    .and_then(|root| broadcast::open_tracker::<()>(pe, count, root, false, Codec::by_serde));
                0
            }
        };
        let end = self.place_count.min(start + BATCH);
        let constructed = Cell::new(0);
        for place in start..end {
            let Place::Unborn(element) = collection.at(place) else { continue };
            let id = ChareId { collection: collection.id(), element };
            let tell = Tell::Tracker(self.tracker, &constructed);
            match entry::guarded(pe, id, EntryOf::<C>::NEW, || self.init.clone()) {
                Ok(init) => match collection.leader_elsewhere(pe, element) {
                    None => {
                        pe.note_call(EntryOf::<C>::NEW);
                        C::construct(Construct { id, init, tell });
                    }
                    Some(leader) => bound::send_after::<C>(pe, collection, leader, init, tell.into_reply()),
                },
                Err(error) => pe.unmake(id, None, error, tell.into_reply()),
            }
        }
        pe.note_runtime();
        if let Some(tracker) = self.tracker
            && constructed.get() > 0
        {
            pe.cells.settle(pe, tracker.key, constructed.get());
        }
        self.next = Some(end);
        if end < self.place_count {
            return Progress::More;
        }
        collection.end_of_creation(pe);
        Progress::Done
    }

    /// An element that leaves has been constructed.
    fn hurry(&mut self, _: &Pe, _: ChareRef) {}
}

/// The creation of a singleton, at its home.
pub(crate) struct CreateSingle<C: Chare>(pub(crate) C::Init);

impl<C: Chare> CreateSingle<C> {
    /// The message for the home of the singleton. An error if it cannot go there.
    pub(crate) fn for_home(self, pe: &Pe, id: ChareId, reply: Reply) -> Result<Msg, (Stays, Reply)> {
        let encode = |CreateSingle(init): Self, to: &mut Encoder| {
            to.put_code(C::code(), C::INFO.name)?;
            C::encode_init(init, to)
        };
        match Parcel::new(pe, pe.home_of(id), self, encode) {
            Ok(Parcel::Here(create)) => Ok(Msg::new(id, reply, create)),
            Ok(Parcel::Encoded(packed)) => Ok(Msg::new(id, reply, CreateElsewhere::<true>(packed))),
            Err(why) => Err((why, reply)),
        }
    }
}

impl<C: Chare> Payload for CreateSingle<C> {
    const NAME: Name = A_SINGLETON;
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        pe.note_call(EntryOf::<C>::NEW);
        C::construct(Construct::new(to, self.0, reply));
        pe.singles_made.note_come(to);
    }
}

/// One construction, about to run on its PE.
pub struct Construct<'a, C: Chare> {
    id: ChareId,
    init: C::Init,
    tell: Tell<'a>,
}

/// Who is told that a chare has been constructed.
enum Tell<'a> {
    Reply(Reply),
    /// The tracker of a creation, if it is awaited; good constructions that are over at once are only counted.
    Tracker(Option<CellRef>, &'a Cell<u64>),
}

impl Tell<'_> {
    fn into_reply(self) -> Reply {
        match self {
            Tell::Reply(reply) => reply,
            Tell::Tracker(tracker, _) => tracker.map_or(Reply::none(), Reply::to),
        }
    }
}

impl<C: Chare> Construct<'static, C> {
    /// The construction of one chare, whose outcome goes to `reply`.
    pub(crate) fn new(id: ChareId, init: C::Init, reply: Reply) -> Self {
        Construct { id, init, tell: Tell::Reply(reply) }
    }
}

impl<C: Chare> Construct<'_, C> {
    /// Runs a plain constructor.
    #[inline]
    pub fn plain(self, new: impl FnOnce(&Cx<C>, C::Init) -> Result<C, Failure>) {
        let Construct { id, init, tell } = self;
        crate::current::on_pe("a constructor", |pe| {
            let outcome = catch_unwind(AssertUnwindSafe(|| pe.construct(id, || new(&Cx::new(id), init))));
            match (place(pe, id, outcome), tell) {
                (Ok(()), Tell::Tracker(_, constructed)) => constructed.set(constructed.get() + 1),
                (Ok(()), tell) => tell.into_reply().answer(pe, id, Ok(())),
                (Err((unborn, error)), tell) => pe.unmake(id, unborn, error, tell.into_reply()),
            }
        });
    }

    /// Runs a constructor that is a coroutine; messages for the chare wait until it has ended.
    pub fn coroutine<Fut>(self, new: impl FnOnce(Cx<C>, C::Init) -> Fut)
    where
        Fut: Future<Output = Result<C, Failure>> + Send + 'static,
    {
        let Construct { id, init, tell } = self;
        let reply = tell.into_reply();
        crate::current::on_pe("a constructor", |pe| {
            let future = constructing(id, new(Cx::new(id), init));
            let is_single = id.collection.single_home().is_some();
            if is_single {
                pe.singles_made.begin(id);
            }
            let done = move |pe: &Pe, outcome| {
                if is_single {
                    pe.singles_made.end(id);
                }
                match place::<C>(pe, id, outcome) {
                    Ok(()) => reply.answer(pe, id, Ok(())),
                    Err((unborn, error)) => pe.unmake(id, unborn, error, reply),
                }
            };
            task::start(pe, None, EntryOf::<C>::NEW, Mode::Interleaving, future, done);
        });
    }
}

/// Tells the PE at each poll whose constructor is running.
async fn constructing<F: Future>(id: ChareId, constructor: F) -> F::Output {
    let mut constructor = pin!(constructor);
    poll_fn(|context| {
        crate::current::on_pe("a constructor", |pe| pe.construct(id, || constructor.as_mut().poll(context)))
    })
    .await
}

/// Puts a constructed chare in its place, where messages find it. The error comes with what the constructor has made besides.
#[inline]
fn place<C: Chare>(
    pe: &Pe,
    id: ChareId,
    outcome: Result<Result<C, Failure>, PanicPayload>,
) -> Result<(), (Option<Unborn>, CallError)> {
    let unborn = pe.take_unborn(id);
    match outcome {
        Ok(Ok(value)) => {
            let chare = ChareRef::new(id, value);
            if let Some(unborn) = unborn {
                chare.adopt(unborn);
            }
            match pe.collection(id.collection) {
                Some(collection) => collection.place(pe, chare),
                None => pe.place_single(chare),
            }
            Ok(())
        }
        Ok(Err(failure)) => Err((unborn, entry::failed(pe, id, EntryOf::<C>::NEW, failure))),
        Err(panic) => Err((unborn, CallError::Panicked(entry::panicked(pe, id, EntryOf::<C>::NEW, panic)))),
    }
}
