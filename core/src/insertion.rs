//! Elements that come: insertion into sparse arrays, and its end.
//!
//! An insertion goes by way of the array's root, which asks the map and numbers it among broadcasts and reductions; by the element's home, which
//! knows whether the element is there already; to the PE where it is constructed. Each may be one PE. Between two PEs messages
//! keep their order, so what its sender sends to the root afterwards comes after it.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};

use crate::asking::{Ask, Asking};
use crate::call;
use crate::chares::{ArrayElement, Chare};
use crate::collection::{Collection, Construct, Ticket};
use crate::current;
use crate::entry::{self, EntryOf};
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, IntoPe, PeId};
use crate::location;
use crate::message::{Msg, Name, Payload};
use crate::pending::{Pending, pending_future};
use crate::proxy::{Element, SparseArray};
use crate::reduction;
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::{Pe, Unborn};
use crate::waiting::What;
use crate::wire::{self, Arrives, Codec, Decoder, Encoder, Kind, Leaves, Parcel, Stays, Unsent, WireError};

/// The insertion of one element into a sparse array, not yet sent; made by [`SparseArray::insert`].
#[must_use = "nothing is inserted until this is sent or awaited"]
pub struct Insertion<C: Chare> {
    to: Element<C>,
    asking: Asking<Insert<C>>,
}

/// What is asked for.
struct Insert<C: Chare> {
    to: Element<C>,
    init: C::Init,
    pe: Option<PeId>,
}

impl<C: ArrayElement> SparseArray<C> {
    /// The insertion of an element; `init` are the arguments of `new`. From any PE (not from threads that have entered the
    /// run), at any time, in any order. Awaiting
    /// it waits until the constructor has run, and brings the proxy of the element.
    ///
    /// If the constructor fails the element is not there: calls that have waited for it bring the same error, broadcasts and
    /// reductions go on without it (but what it has contributed before stays), and the index may be inserted again.
    ///
    /// Broadcasts that this chare or program sends afterwards reach the element, those that it has sent before do not. A chare
    /// that is to move waits until its insertions are on record.
    ///
    /// If an element of the same array inserts it, it takes part in the reductions that its inserter has not contributed to
    /// yet; otherwise in those that have not ended.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the element is there already, or another one with the same [`Index::key`](crate::Index::key); otherwise what
    /// the constructor brings.
    #[track_caller]
    pub fn insert(&self, index: C::Index, init: C::Init) -> Insertion<C> {
        let to = self.at(index);
        Insertion { to, asking: Asking::new(Insert { to, init, pe: None }) }
    }

    /// Says that all elements have been inserted that this chare or program is to insert: calls of absent elements, which
    /// have been held so far, are refused with [`CallError::NoElement`] from now on, and reductions can end. To be called
    /// once all of whoever inserts have sent their insertions. Later insertions are possible.
    ///
    /// Awaiting it waits until all insertions have a place; their constructors may still run.
    ///
    /// # Panics
    /// When it is sent, on a thread that is not a PE.
    #[track_caller]
    pub fn done_inserting(&self) -> DoneInserting {
        let (run, collection) = self.ids();
        current::on_pe("DoneInserting", |pe| {
            let cell = CellRef::new(pe, pe.cells.open(Codec::<()>::by_serde()));
            let id = ChareId { collection, element: u64::MAX };
            let seal = Msg::new(id, Reply::to(cell), Seal);
            if pe.run() == run {
                to_root(pe, collection, seal);
            } else {
                seal.lose(pe, call::no_element(pe, run, collection, C::INFO.name, "[..]".to_owned()));
            }
            DoneInserting(Pending::new(cell, What::Creation { chare: C::INFO }, Location::caller()))
        })
    }
}

/// The end of inserting; made by [`SparseArray::done_inserting`]. It is noted whether this is awaited or not.
#[must_use = "await it to know that all insertions have a place, or drop it"]
pub struct DoneInserting(Pending<()>);

pending_future!(DoneInserting, Result<(), CallError>);

impl<C: Chare> Insertion<C> {
    /// Places the element on this PE; otherwise the array's map, or its key, says where.
    pub fn on_pe(mut self, pe: impl IntoPe) -> Self {
        if let Some(insert) = self.asking.ask_mut() {
            insert.pe = Some(PeId::new(pe.into_pe_number()));
        }
        self
    }

    /// Inserts now; what it returns brings the proxy once the constructor has run.
    ///
    /// # Panics
    /// On a thread that is not a PE; if the PE given does not exist.
    #[track_caller]
    pub fn future(mut self) -> Insertion<C> {
        self.asking.begin();
        self
    }

    /// Inserts, and brings the proxy at once. An error ends the job with a report.
    ///
    /// # Panics
    /// On a thread that is not a PE; if the PE given does not exist.
    #[track_caller]
    pub fn send(self) -> Element<C> {
        self.asking.send();
        self.to
    }
}

impl<C: Chare> Ask for Insert<C> {
    const WAITING: &'static str = "awaiting an insertion";

    fn what(&self) -> What {
        What::Creation { chare: C::INFO }
    }

    fn send(self, reply: Reply) -> Result<(), String> {
        let Insert { to, init, pe: wanted } = self;
        let id = to.id();
        current::on_pe("inserting an element", |pe| {
            if let Some(wanted) = wanted.filter(|wanted| wanted.index() >= pe.pe_count()) {
                return Err(format!("there is no {wanted:?}: this run has {} PEs", pe.pe_count()));
            }
            if id.element == u64::MAX {
                return Err(format!("the key of {:?} is `u64::MAX`, which is no key", to.index()));
            }
            let request = Request::<C> { index: to.index(), init, pe: wanted };
            let inserter = pe.next_contribution_to(id.collection);
            let msg = Msg::new(id, reply, Register { request, inserter });
            match call::missing(pe, &to) {
                Some(error) => msg.lose(pe, error),
                None => {
                    note_insertion(pe, id.collection.root());
                    if let Some(array) = pe.collection(id.collection).filter(|_| inserter.is_some()) {
                        reduction::go_straight(pe, array);
                    }
                    to_root(pe, id.collection, msg);
                }
            }
            Ok(())
        })
    }
}

impl<C: Chare> Unpin for Insertion<C> {}

impl<C: Chare> Future for Insertion<C> {
    type Output = Result<Element<C>, CallError>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let to = self.to;
        self.asking.poll(context).map_ok(|()| to)
    }
}

/// Sends a message to the root of a collection, in order with what else its sender sends there.
fn to_root(pe: &Pe, collection: CollectionId, msg: Msg) {
    // Broadcasts are numbered at once if they are sent there.
    if collection.root() == pe.id() { msg.run(pe) } else { pe.post(collection.root(), msg) }
}

/// Notes that the chare whose code is running inserts by way of a root.
fn note_insertion(pe: &Pe, root: PeId) {
    let Some(inserter) = pe.own().filter(|_| root != pe.id()) else { return };
    pe.own_extra(inserter, |extra| {
        extra.inserted += 1;
        extra.insertions.retain(|(to, _)| *to != root);
        extra.insertions.push((root, extra.inserted));
    });
}

/// The migration of a chare that has inserted, on its way to the root and back: what the chare sends from elsewhere must
/// not come to the root before its insertions.
pub(crate) struct Behind {
    pub(crate) migration: Msg,
    /// The chare, or one that moves with it.
    pub(crate) inserter: ChareId,
    pub(crate) from: PeId,
    /// The root, and the number of the last insertion that had been sent there.
    pub(crate) insertions: (PeId, u64),
}

impl Behind {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Behind { migration, inserter, from, insertions } = self;
        to.put_own(&(inserter, from, insertions));
        migration.leave(to)
    }
}

impl Arrives for Behind {
    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (inserter, from, insertions) = bytes.take()?;
        Ok(Behind { migration: wire::decode_message(bytes)?, inserter, from, insertions })
    }
}

impl Payload for Behind {
    const NAME: Name = Name::Runtime("a migration");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Behind, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if pe.id() != self.from {
            return pe.post(self.from, Msg::for_pe(self));
        }
        if let Some(chare) = pe.find(self.inserter) {
            chare.extra(|extra| extra.insertions.retain(|sent| *sent != self.insertions));
        }
        self.migration.run(pe);
    }
}

pub(crate) struct Request<C: Chare> {
    index: C::Index,
    init: C::Init,
    pe: Option<PeId>,
}

impl<C: Chare> Request<C> {
    fn leave(self, to: &mut Encoder) -> Result<(), Stays> {
        let Request { index, init, pe } = self;
        to.put_code(C::code(), C::INFO.name)?;
        (C::index_codec().encode)(index, to)?;
        to.put_own(&pe);
        C::encode_init(init, to)
    }

    /// On its way to a PE; the error if it cannot go there.
    fn parcel(self, pe: &Pe, to: PeId) -> Result<Parcel<Self>, CallError> {
        Parcel::new(pe, to, self, Request::leave).map_err(|why| {
            CallError::Refused(format!("an insertion was not sent to another process: {why}").into())
        })
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (index, pe) = ((C::index_codec().decode)(from)?, from.take()?);
        Ok(Request { index, init: C::decode_init(from)?, pe })
    }
}

/// An insertion on its way to the root, which admits it.
pub(crate) struct Register<C: Chare> {
    request: Request<C>,
    /// If an element of the same array inserts: the reduction that it contributes to next.
    inserter: Option<u64>,
}

impl<C: Chare> Register<C> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        self.request.leave(to)?;
        to.put_own(&self.inserter);
        Ok(())
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Register { request: Request::decode(from)?, inserter: from.take()? })
    }
}

impl<C: Chare> Payload for Register<C> {
    const NAME: Name = Name::Runtime("an insertion");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Register, Self::leave);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.collection(id.collection) else {
            return pe.hold_for_collection(id.collection, Msg::new(id, reply, self));
        };
        let Register { mut request, inserter } = self;
        let home = array.info.home(id.element);
        // Before there is a ticket, for which all that comes later would wait.
        if let Err(error) = map(pe, array, id, &mut request) {
            pe.guard(|| drop(request));
            return reply.refuse(pe, id, error);
        }
        let request = match request.parcel(pe, home) {
            Ok(request) => request,
            Err(error) => return reply.refuse(pe, id, error),
        };
        let ticket = array.membership.borrow_mut().admit(inserter, array.numbered_broadcasts());
        pe.post(home, Msg::new(id, reply, Arrange { request, ticket }));
    }
}

/// An insertion on its way to the element's home, which says where it is constructed.
pub(crate) struct Arrange<C: Chare> {
    request: Parcel<Request<C>>,
    ticket: Ticket,
}

impl<C: Chare> Arrange<C> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        self.request.leave(to);
        to.put_own(&self.ticket);
        Ok(())
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Arrange { request: Parcel::Here(Request::decode(from)?), ticket: from.take()? })
    }
}

impl<C: Chare> Payload for Arrange<C> {
    const NAME: Name = Name::Runtime("an insertion");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Arrange, Self::leave);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.collection(id.collection) else {
            return pe.hold_for_collection(id.collection, Msg::new(id, reply, self));
        };
        let Arrange { request, ticket } = self;
        let request = request.into_contents();
        let settle = |is_there| Msg::new(id, Reply::none(), Settle { ticket, is_there });
        let index = request.index;
        let placed = match place(pe, id, &request) {
            Ok(place) => request.parcel(pe, place).map(|request| (place, request)),
            Err(error) => {
                pe.guard(|| drop(request));
                Err(error)
            }
        };
        let (place, request) = match placed {
            Ok(placed) => placed,
            Err(error) => {
                pe.post(id.collection.root(), settle(false));
                return reply.refuse(pe, id, error);
            }
        };
        array.note_index(id.element, index);
        let epoch = array.begin_epoch(id.element);
        let build = Build { request, ticket, epoch };
        if place == pe.id() {
            return build.run(id, reply, pe);
        }
        pe.locations.departed(id, location::Place { pe: place, epoch });
        pe.post(place, Msg::new(id, reply, build));
        let early = array.take_unborn(id.element);
        early.into_iter().flatten().for_each(|msg| pe.post(place, msg));
    }
}

/// Asks the map of an array, which is known at its root, unless the insertion says more.
fn map<C: Chare>(
    pe: &Pe,
    array: &Collection,
    id: ChareId,
    request: &mut Request<C>,
) -> Result<(), CallError> {
    let (index, pe_count) = (request.index, pe.pe_count());
    if request.pe.is_some() {
        return Ok(());
    }
    let mapped = entry::guarded(pe, id, EntryOf::<C>::MAP, || array.info.mapped(&index))?;
    if let Some(mapped) = mapped.filter(|mapped| *mapped >= pe_count) {
        return Err(refused::<C>(pe, id, || {
            let chare = C::INFO.name;
            format!("{chare}[{index:?}] is mapped to PE {mapped}, and this run has {pe_count} PEs")
        }));
    }
    request.pe = mapped.map(PeId::new);
    Ok(())
}

/// The PE where an element is to be constructed.
fn place<C: Chare>(pe: &Pe, id: ChareId, request: &Request<C>) -> Result<PeId, CallError> {
    let array = pe.collection(id.collection).expect("the caller has looked");
    let (chare, index) = (C::INFO.name, request.index);
    if array.expects(id.element) || pe.locations.knows(id) {
        let there = array.index_of::<C::Index>(id.element).unwrap_or(index);
        return Err(refused::<C>(pe, id, || {
            if there == index {
                return format!("{chare}[{index:?}] is there already");
            }
            let key = id.element;
            format!(
                "{chare}[{index:?}] has the key {key}, and so has [{there:?}]: give them different ones (`Index::key`)"
            )
        }));
    }
    Ok(request.pe.unwrap_or(pe.id()))
}

/// The refusal of an insertion; what makes the text calls code of the user's index, whose panic is the error then.
fn refused<C: Chare>(pe: &Pe, id: ChareId, text: impl FnOnce() -> String) -> CallError {
    match entry::guarded(pe, id, EntryOf::<C>::INDEX, text) {
        Ok(text) => CallError::Refused(text.into()),
        Err(panic) => panic,
    }
}

/// An insertion on its way to the PE where the element is constructed.
pub(crate) struct Build<C: Chare> {
    request: Parcel<Request<C>>,
    ticket: Ticket,
    epoch: u64,
}

impl<C: Chare> Build<C> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        self.request.leave(to);
        to.put_own(&(self.ticket, self.epoch));
        Ok(())
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let request = Parcel::Here(Request::decode(from)?);
        let (ticket, epoch) = from.take()?;
        Ok(Build { request, ticket, epoch })
    }
}

impl<C: Chare> Payload for Build<C> {
    const NAME: Name = Name::Runtime("an insertion");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Build, Self::leave);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.collection(id.collection) else {
            return pe.hold_for_collection(id.collection, Msg::new(id, reply, self));
        };
        let Build { request, ticket, epoch } = self;
        let request = request.into_contents();
        pe.locations.forget(id);
        let (contributed, covered) = (ticket.first_reduction, ticket.first_broadcast);
        let mut unborn = Unborn { contributed, covered, ..Unborn::default() };
        (unborn.extra.first_broadcast, unborn.extra.first_epoch) = (covered, epoch);
        pe.expect_unborn(id, unborn);
        array.note_index(id.element, request.index);
        array.reserve(pe, id.element, ticket.first_reduction);
        pe.post(id.collection.root(), Msg::new(id, Reply::none(), Settle { ticket, is_there: true }));
        pe.tell_place(array.info.home(id.element), id, epoch);
        pe.note_call(EntryOf::<C>::NEW);
        C::construct(Construct::new(id, request.init, reply));
    }
}

/// News for the root: an insertion has a place, or has failed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Settle {
    ticket: Ticket,
    is_there: bool,
}

impl Payload for Settle {
    const NAME: Name = Name::Runtime("the place of an insertion");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Settle);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.named_collection(id.collection, &reply) else { return };
        array.membership.borrow_mut().settle(self.ticket);
        if !self.is_there {
            array.membership.borrow_mut().withdraw(self.ticket);
            reduction::conclude_ready(pe, array);
        }
        array.after_settling(pe);
    }
}

/// The end of inserting, on its way to the root.
#[derive(Serialize, Deserialize)]
pub(crate) struct Seal;

impl Payload for Seal {
    const NAME: Name = Name::Runtime("the end of inserting");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Seal);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.collection(id.collection) else {
            return pe.hold_for_collection(id.collection, Msg::new(id, reply, self));
        };
        let seal = move |pe: &Pe| {
            let Some(array) = pe.collection(id.collection) else { return };
            array.membership.borrow_mut().seal();
            for to in crate::proxy::all_pes(pe.pe_count()) {
                pe.post(to, Msg::for_pe(Sealed(id.collection)));
            }
            reply.answer(pe, id, Ok(()));
            reduction::conclude_ready(pe, array);
        };
        let ready = array.membership.borrow_mut().after_insertions(false, Box::new(seal));
        if let Some(seal) = ready {
            seal(pe);
        }
    }
}

/// The news, for all PEs, that an array has all of its elements.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sealed(CollectionId);

impl Payload for Sealed {
    const NAME: Name = Name::Runtime("the end of inserting");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Sealed);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        match pe.collection(self.0) {
            Some(array) => array.seal(pe),
            None => pe.hold_for_collection(self.0, Msg::for_pe(self)),
        }
    }
}
