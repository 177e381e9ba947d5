//! Creating chares: builders for arrays, groups and singletons, and the creation that can be awaited.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::broadcast;
use crate::callback::{self, Callback};
use crate::caught::blame_caller;
use crate::chare::{Chare, ChareInfo};
use crate::collection::{CollectionInfo, Create, CreateSingle};
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::index::Index;
use crate::message::Msg;
use crate::pending::{Pending, pending_future};
use crate::proxy::{Array, Element, Group, all_pes};
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::waiting::What;

/// An array that is to be created.
#[must_use = "nothing is created until `create(..)` is sent or awaited"]
pub struct ArrayBuilder<C: Chare> {
    shape: C::Index,
}

impl<C: Chare> ArrayBuilder<C> {
    pub(crate) fn new(shape: C::Index) -> Self {
        ArrayBuilder { shape }
    }

    /// The creation of all elements, each with a clone of `init`, the arguments of `new`.
    ///
    /// # Panics
    /// If the shape has no elements, or more than 64 bits count; on a thread that is not a PE.
    #[track_caller]
    pub fn create(self, init: C::Init) -> Creation<Array<C>>
    where
        C::Init: Clone,
    {
        let shape = self.shape;
        let count = shape.element_count();
        assert!(
            count.is_some_and(|count| count > 0),
            "an array of shape {shape:?} cannot be created: it needs 1 to 2^64-1 elements"
        );
        Creation::new(C::INFO, Location::caller(), move |pe, awaited| {
            let (id, cell) = create_everywhere::<C>(pe, shape, false, init, awaited)?;
            Ok((Array::new(pe.run(), id, shape), cell))
        })
    }
}

/// A group that is to be created.
#[must_use = "nothing is created until `create(..)` is sent or awaited"]
pub struct GroupBuilder<C: Chare>(std::marker::PhantomData<fn() -> C>);

impl<C: Chare<Index = usize>> GroupBuilder<C> {
    pub(crate) fn new() -> Self {
        GroupBuilder(std::marker::PhantomData)
    }

    /// The creation of all members, each with a clone of `init`, the arguments of `new`.
    #[track_caller]
    pub fn create(self, init: C::Init) -> Creation<Group<C>>
    where
        C::Init: Clone,
    {
        Creation::new(C::INFO, Location::caller(), move |pe, awaited| {
            let (id, cell) = create_everywhere::<C>(pe, pe.pe_count(), true, init, awaited)?;
            Ok((Group::new(pe.run(), id), cell))
        })
    }
}

/// A single chare that is to be created.
#[must_use = "nothing is created until `create(..)` is sent or awaited"]
pub struct SingleBuilder<C: Chare> {
    pe: Option<PeId>,
    chare: std::marker::PhantomData<fn() -> C>,
}

impl<C: Chare<Index = usize>> SingleBuilder<C> {
    pub(crate) fn new() -> Self {
        SingleBuilder { pe: None, chare: std::marker::PhantomData }
    }

    /// Places the chare on this PE; otherwise the runtime chooses.
    pub fn on_pe(mut self, pe: impl Into<usize>) -> Self {
        self.pe = Some(PeId::new(pe.into()));
        self
    }

    /// The creation of the chare; `init` are the arguments of `new`.
    ///
    /// # Panics
    /// If the PE does not exist; when it is sent or first polled on a thread that is not a PE.
    #[track_caller]
    pub fn create(self, init: C::Init) -> Creation<Element<C>> {
        let wanted = self.pe;
        Creation::new(C::INFO, Location::caller(), move |pe, awaited| {
            let number = pe.next_creation();
            let home =
                wanted.unwrap_or_else(|| PeId::new((pe.id().index() + number as usize) % pe.pe_count()));
            if home.index() >= pe.pe_count() {
                return Err(format!("there is no {home:?}: this run has {} PEs", pe.pe_count()));
            }
            let id = ChareId::single(home, pe.id(), number);
            let cell = awaited.then(|| CellRef::new(pe, pe.cells.open()));
            pe.post(home, Msg::new(id, cell.map_or(Reply::none(), Reply::to), CreateSingle::<C>(init)));
            Ok((Element::new(pe.run(), id, 0), cell))
        })
    }
}

/// Makes a collection known on all PEs, where its elements are then constructed. Fails, and says why, if it does not fit
/// in memory.
fn create_everywhere<C: Chare>(
    pe: &Pe,
    shape: C::Index,
    is_group: bool,
    init: C::Init,
    awaited: bool,
) -> Result<(CollectionId, Option<CellRef>), String>
where
    C::Init: Clone,
{
    let finish = |_: broadcast::Outcomes<()>, error: Option<CallError>| error.map_or(Ok(()), Err);
    let root = awaited.then(|| broadcast::open_root::<(), ()>(pe, finish));
    let id = CollectionId::new(pe.id(), pe.next_creation());
    let info = Arc::new(CollectionInfo::new::<C>(id, shape, is_group, pe.pe_count()));
    // Clones first, the own part next: if either panics, no other PE has heard of the collection.
    let others: Vec<_> = all_pes(pe.pe_count()).filter(|&to| to != pe.id()).collect();
    let creations: Vec<_> =
        others.iter().map(|_| Create::<C> { info: info.clone(), init: init.clone(), root }).collect();
    Create::<C> { info, init, root }.begin(pe)?;
    for (to, creation) in others.into_iter().zip(creations) {
        pe.post(to, Msg::for_pe(creation));
    }
    Ok((id, root))
}

/// What a creation makes on its PE: the proxy, and the cell that awaits it. The error is a mistake of the caller's.
type Launched<P> = Result<(P, Option<CellRef>), String>;
type Launch<P> = Box<dyn FnOnce(&Pe, bool) -> Launched<P> + Send>;

/// A creation that has not been sent yet. Awaiting it waits until all constructors have run and brings the proxy;
/// `.send()` brings the proxy at once. Messages sent before a constructor has run are kept for its chare.
#[must_use = "nothing is created until this is sent or awaited"]
pub struct Creation<P> {
    state: CreationState<P>,
    chare: &'static ChareInfo,
    at: &'static Location<'static>,
}

enum CreationState<P> {
    Unsent(Launch<P>),
    Sent(P, Pending<()>),
    Ended,
}

impl<P> Unpin for Creation<P> {}

impl<P: Copy> Creation<P> {
    fn new(
        chare: &'static ChareInfo,
        at: &'static Location<'static>,
        launch: impl FnOnce(&Pe, bool) -> Launched<P> + Send + 'static,
    ) -> Self {
        Creation { state: CreationState::Unsent(Box::new(launch)), chare, at }
    }

    /// Creates, and brings the proxy at once. An error in a constructor ends the job with a report.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn send(self) -> P {
        match self.state {
            CreationState::Unsent(launch) => {
                blame_caller(current::on_pe("creating chares", |pe| launch(pe, false))).0
            }
            CreationState::Sent(proxy, _) => proxy,
            CreationState::Ended => panic!("the creation has brought its proxy already"),
        }
    }

    /// Creates now: the proxy at once, and a future that waits until all constructors have run.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn start(mut self) -> (P, Created) {
        match self.sent() {
            CreationState::Sent(proxy, created) => (proxy, Created(created)),
            _ => panic!("the creation has brought its proxy already"),
        }
    }

    /// What has become of it; sends it if it was not sent yet.
    #[track_caller]
    fn sent(&mut self) -> CreationState<P> {
        match std::mem::replace(&mut self.state, CreationState::Ended) {
            CreationState::Unsent(launch) => {
                let (proxy, cell) = blame_caller(current::on_pe("creating chares", |pe| launch(pe, true)));
                let cell = cell.expect("an awaited creation has a cell");
                CreationState::Sent(proxy, Pending::new(cell, What::Creation { chare: self.chare }, self.at))
            }
            state => state,
        }
    }
}

/// The end of a creation; made by [`Creation::start`].
#[must_use = "futures do nothing unless polled"]
pub struct Created(Pending<()>);

impl Created {
    /// `callback` gets `()` when all constructors have run. Returns at once.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn to(self, callback: impl Into<Callback<()>>) {
        callback::deliver_later(self, callback.into());
    }
}

pending_future!(Created, Result<(), CallError>);

impl<P: Copy> Future for Creation<P> {
    type Output = Result<P, CallError>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state = self.sent();
        match &mut self.state {
            CreationState::Sent(proxy, pending) => {
                let proxy = *proxy;
                pending.poll(context).map_ok(|()| proxy)
            }
            _ => panic!("a creation was polled after it was ready"),
        }
    }
}
