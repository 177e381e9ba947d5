//! Elements and singletons that go: the destruction of chares.
//!
//! A destroyed chare leaves like one that moves to its home, where it is known to be gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};

use crate::asking::{self, Ask, Asking};
use crate::cell::{ChareRef, Parcel, State};
use crate::channel;
use crate::chares::Chare;
use crate::condition::when;
use crate::entry::EntryOf;
use crate::error::CallError;
use crate::ids::ChareId;
use crate::location;
use crate::message::{Msg, Name, Payload};
use crate::migration::across;
use crate::pending::{Pending, pending_future};
use crate::proxy::Element;
use crate::reduction;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::waiting::What;
use crate::wire::{Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// The destruction of a chare, not yet asked for; made by [`Element::destroy`].
#[must_use = "nothing is destroyed until this is sent: `.send()`, `.await` or `.future()`"]
pub struct Destruction<C: Chare>(Asking<End<C>>);

/// What is asked for.
struct End<C: Chare>(Element<C>);

impl<C: Chare> Ask for End<C> {
    const WAITING: &'static str = "awaiting a destruction";

    fn what(&self) -> What {
        What::Call { entry: EntryOf::<C>::DESTROY, to: self.0.id() }
    }

    fn send(self, reply: Reply) -> Result<(), String> {
        asking::send_to(&self.0, Msg::new(self.0.id(), reply, Destroy));
        Ok(())
    }
}

impl<C: Chare> Element<C> {
    /// The destruction of this chare, when the message's turn has come; if an exclusive coroutine owns it, when that has
    /// ended. Its other coroutines are dropped; whoever awaits them gets [`CallError::BrokenPromise`]. Calls that come
    /// later get [`CallError::NoElement`]. It takes part in the reductions that it has contributed to, and in no others.
    /// The index of a sparse array may be inserted again. Until [`done_inserting`](crate::SparseArray::done_inserting) the array remembers each index
    /// that was destroyed, so that calls of it are refused and not held; from then on nothing is kept of it.
    ///
    /// Awaiting it waits until the chare has been dropped.
    ///
    /// # Errors
    /// [`CallError::Refused`] for a member of a group; otherwise as a call of the chare. A poisoned chare is destroyed.
    #[track_caller]
    pub fn destroy(&self) -> Destruction<C> {
        Destruction(Asking::new(End(*self)))
    }
}

impl<C: Chare> Destruction<C> {
    /// Asks for it; nobody waits for it. An error ends the job with a report.
    pub fn send(self) {
        self.0.send();
    }

    /// Asks for it now; the future waits until the chare has been dropped.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn future(self) -> Destroyed {
        Destroyed(self.0.start())
    }
}

impl<C: Chare> Unpin for Destruction<C> {}

impl<C: Chare> Future for Destruction<C> {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

/// The end of a destruction; made by [`Destruction::future`].
#[must_use = "futures do nothing unless polled"]
pub struct Destroyed(Pending<()>);

pending_future!(Destroyed, Result<(), CallError>);

/// A request to destroy a chare.
#[derive(Serialize, Deserialize)]
pub(crate) struct Destroy;

impl Payload for Destroy {
    const NAME: Name = Name::Runtime("a destruction");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Destroy);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let chare = match pe.find(id) {
            Some(chare) if chare.state.get() != State::Exclusive => chare,
            _ => return pe.undeliverable(Msg::new(id, reply, self)),
        };
        if pe.collection(id.collection).is_some_and(|collection| collection.info.is_group()) {
            let text = format!("{} cannot be destroyed: a group keeps its members", pe.chare_name(id));
            return reply.answer(pe, id, Err(CallError::Refused(text.into())));
        }
        if let Some(collection) = pe.collection(id.collection) {
            // This may start an exclusive coroutine, which is to end first.
            collection.catch_up(pe, chare);
            pe.note_runtime();
        }
        if chare.state.get() == State::Exclusive {
            return pe.undeliverable(Msg::new(id, reply, self));
        }
        destroy(pe, chare, reply);
    }
}

fn destroy(pe: &Pe, chare: ChareRef, reply: Reply) {
    let (id, has_moved) = (chare.id, chare.has_moved());
    let epoch = chare.next_epoch();
    match pe.collection(id.collection) {
        Some(collection) => {
            collection.dismiss(pe, chare);
            leave(pe, id, chare.contributed.get());
        }
        None => pe.remove_single(id.element),
    }
    chare.note_end();
    point_home(pe, id, epoch);
    let error = pe.no_element(id, chare.info().name);
    channel::end(pe, chare, &error);
    let held = chare.extra_if_any(|extra| std::mem::take(&mut extra.held)).unwrap_or_default();
    let kept = when::take_all(pe, chare);
    let waiting = across::take_waiting(chare);
    drop(Parcel::pack(pe, chare));
    for work in held.into_iter().chain(kept.into_iter().chain(waiting).map(Work::Msg)) {
        if let Work::Msg(msg) = work {
            msg.lose(pe, error.clone());
        }
    }
    end(pe, id, Gone { epoch, has_moved, failure: None }, reply);
}

/// Ends an element whose constructor has failed on this PE, and has contributed to so many reductions. Who waits hears of it
/// from the home.
pub(crate) fn end_unmade(pe: &Pe, id: ChareId, contributed: u64, epoch: u64, error: CallError, reply: Reply) {
    leave(pe, id, contributed);
    point_home(pe, id, epoch);
    if reply.is_to_nobody() {
        pe.unawaited(error.clone());
    }
    end(pe, id, Gone { epoch, has_moved: false, failure: Some(error) }, reply);
}

/// Lets messages for a chare that ends here go to its home.
fn point_home(pe: &Pe, id: ChareId, epoch: u64) {
    let home = pe.home_of(id);
    if home != pe.id() {
        pe.locations.departed(id, location::Place { pe: home, epoch });
    }
}

/// Tells the home of a chare that has ended here, which answers and then takes another insertion.
fn end(pe: &Pe, id: ChareId, gone: Gone, reply: Reply) {
    if let Some(collection) = pe.collection(id.collection) {
        collection.forget_index(pe, id.element);
    }
    let home = pe.home_of(id);
    if home == pe.id() {
        // At once: an insertion of the same index may be queued already.
        return gone.run(id, reply, pe);
    }
    pe.post(home, Msg::new(id, reply, Gone { has_moved: true, ..gone }));
}

/// Tells the root that an element takes part in the reductions below this one only.
pub(crate) fn leave(pe: &Pe, id: ChareId, next: u64) {
    pe.post(id.collection.root(), Msg::new(id, Reply::none(), Leave { next }));
}

/// News for the root: an element takes part in reductions up to this one only.
#[derive(Serialize, Deserialize)]
pub(crate) struct Leave {
    next: u64,
}

impl Payload for Leave {
    const NAME: Name = Name::Runtime("the end of an element");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Leave);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(collection) = pe.named_collection(id.collection, &reply) else { return };
        collection.membership.borrow_mut().leave(self.next);
        reduction::conclude_ready(pe, collection);
    }
}

/// News for the home: the chare does not exist any more.
pub(crate) struct Gone {
    epoch: u64,
    /// It has not been at its home all the time: other PEs may have records of it.
    has_moved: bool,
    /// It never existed: the error of its constructor.
    failure: Option<CallError>,
}

impl Gone {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Gone { epoch, has_moved, failure } = self;
        to.put_own(&(epoch, has_moved, failure.is_some()));
        failure.iter().for_each(|error| to.put_error(error));
        Ok(())
    }
}

impl Arrives for Gone {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (epoch, has_moved, has_failed) = from.take()?;
        let failure = if has_failed { Some(from.take_error()?) } else { None };
        Ok(Gone { epoch, has_moved, failure })
    }
}

impl Payload for Gone {
    const NAME: Name = Name::Runtime("the end of a chare");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Gone, Self::leave);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let collection = pe.collection(id.collection);
        if collection.is_none() && id.collection.single_home().is_none() {
            // One of the first elements of a sparse array, which has lived elsewhere.
            return pe.hold_for_collection(id.collection, Msg::new(id, reply, self));
        }
        let Gone { epoch, has_moved, failure } = self;
        pe.locations.forget(id);
        if has_moved {
            pe.note_ending(id, epoch);
        }
        match (collection, &failure) {
            (Some(collection), Some(error)) if !collection.info.is_sparse() => pe.give_up(id, error.clone()),
            (Some(collection), _) => collection.note_destroyed(pe, id.element, epoch),
            (None, _) => {}
        }
        match failure {
            Some(error) if !reply.is_to_nobody() => reply.refuse(pe, id, error),
            failure => {
                pe.guard(|| drop(failure));
                reply.answer(pe, id, Ok(()));
            }
        }
    }
}
