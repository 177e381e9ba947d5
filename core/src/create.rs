//! Creating chares: builders for arrays, groups and singletons, and the creation that can be awaited.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::bound::{self, Leader};
use crate::broadcast;
use crate::callback::{self, Callback};
use crate::caught::blame_caller;
use crate::chares::{ArrayElement, Chare, ChareInfo};
use crate::collection::{CollectionInfo, Create, CreateSingle, Initial, Kind, Start};
use crate::current;
use crate::entry::{self, EntryOf};
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, IntoPe, PeId};
use crate::index::DenseIndex;
use crate::message::{Msg, Payload};
use crate::pending::{Pending, pending_future};
use crate::placement::Placement;
use crate::proxy::{Array, Element, Group, SparseArray, all_pes};
use crate::reply::{CellRef, Reply, UNKNOWN};
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::stillborn::Uncreated;
use crate::strided::Strided;
use crate::waiting::What;
use crate::wire::{Codec, Stays};

/// A dense array that is to be created.
#[must_use = "nothing is created until `create(..)` is sent or awaited"]
pub struct ArrayBuilder<C: Chare> {
    shape: C::Index,
    map: Option<Box<dyn Placement<C::Index>>>,
    leader: Option<Leader<C::Index>>,
}

impl<C: Chare<Index: DenseIndex>> ArrayBuilder<C> {
    pub(crate) fn new(shape: C::Index) -> Self {
        ArrayBuilder { shape, map: None, leader: None }
    }

    /// Places the elements by a map, which is asked for each when the array is created; otherwise they are placed in
    /// blocks.
    pub fn map(mut self, map: impl Placement<C::Index>) -> Self {
        self.map = Some(Box::new(map));
        self
    }

    /// Binds the array to a dense one of the same shape: elements of equal index always live on the same PE, so that
    /// [`Element::local`] reaches one from the other (unless it is busy), in constructors and in `migrated`, too.
    ///
    /// Each element is constructed where the other array's element is at that moment, and they move together: to
    /// [`migrate`](Element::migrate) one moves both, and so does balancing; both have arrived before the `migrated`
    /// method of either runs. If one has called [`Cx::set_migratable`](crate::Cx::set_migratable) with `false`, neither
    /// moves. Any number of arrays may be bound to one, and others to those: all of them move together. Once this
    /// creation has been awaited, all have a place.
    ///
    /// This PE need not have heard of the other array, only have got the proxy: the creation then waits, and so does what is sent by the proxy that it
    /// has brought. If there will be no such array, it brings [`CallError::Refused`].
    ///
    /// An element that is destroyed leaves the others as they are: they go on together. An element is not constructed, and
    /// the creation brings [`CallError::Refused`], if the one that it would be bound to has been destroyed already.
    ///
    /// ```
    /// use chare::prelude::*;
    ///
    /// struct Mesh(Vec<f64>);
    ///
    /// #[chare(index = usize)]
    /// impl Mesh {
    ///     fn new() -> Self {
    ///         Mesh(vec![1.0; 8])
    ///     }
    /// }
    ///
    /// struct Solver(Array<Mesh>);
    ///
    /// #[chare(index = usize)]
    /// impl Solver {
    ///     fn new(mesh: Array<Mesh>) -> Self {
    ///         Solver(mesh)
    ///     }
    ///
    ///     #[entry]
    ///     fn total(&self, cx: &Cx<Self>) -> f64 {
    ///         self.0.at(cx.index()).local(|mesh| mesh.0.iter().sum()).expect("it is bound to it")
    ///     }
    /// }
    ///
    /// #[chare::main]
    /// async fn main(rt: Runtime) -> Result<()> {
    ///     let mesh = rt.array::<Mesh>(4).create(()).await?;
    ///     let solvers = rt.array::<Solver>(4).bound_to(&mesh).create(mesh).await?;
    ///     mesh.at(3).migrate(0).await?;
    ///     assert_eq!(solvers.at(3).total().await?, 8.0);
    ///     Ok(())
    /// }
    /// ```
    pub fn bound_to<L: Chare<Index = C::Index>>(mut self, leader: &Array<L>) -> Self {
        self.leader = Some(Leader::new(leader));
        self
    }

    /// The creation of all elements, each with a clone of `init`, the arguments of `new`.
    ///
    /// # Panics
    /// If the shape has no elements, or more than 64 bits count, or is not that of the array that it is bound to, and if it
    /// is bound and has a map; when it is sent or first polled, on a thread that is not a PE, if the map says a PE that
    /// does not exist, and if the array that it is bound to is one of another run.
    #[track_caller]
    pub fn create(self, init: C::Init) -> Creation<Array<C>>
    where
        C::Init: Clone,
    {
        let ArrayBuilder { shape, map, leader } = self;
        let Some(element_count) = shape.element_count().filter(|&count| count > 0) else {
            panic!("an array of shape {shape:?} cannot be created: it needs 1 to 2^64-1 elements")
        };
        if let Some(Leader { shape: other, .. }) = leader {
            assert!(shape == other, "an array of shape {shape:?} cannot be bound to one of shape {other:?}");
            assert!(
                map.is_none(),
                "a bound array has no map: its elements are where those are that they are bound to"
            );
        }
        Creation::new(C::INFO, Location::caller(), move |pe, awaited| {
            let (id, cell) = match leader {
                Some(leader) => bound::create::<C>(pe, &leader, init, awaited)?,
                None => {
                    let kind = match map {
                        None => Kind::Dense { element_count },
                        Some(map) => Kind::Mapped { pes: mapped(pe, shape, element_count, &*map)? },
                    };
                    let info = |id| CollectionInfo::new::<C>(id, shape, kind, pe.pe_count());
                    create_everywhere::<C>(pe, info, init, awaited)?
                }
            };
            Ok((Array::new(pe.run(), id, shape), cell))
        })
    }
}

/// The PE of each element.
fn mapped<I: DenseIndex>(
    pe: &Pe,
    shape: I,
    element_count: u64,
    map: &dyn Placement<I>,
) -> Result<Arc<[PeId]>, String> {
    let pe_count = pe.pe_count();
    let place = |element| {
        let index = I::of_number(element, shape);
        let mapped = map.pe(&index, pe_count);
        let error = || format!("[{index:?}] is mapped to PE {mapped}, and this run has {pe_count} PEs");
        if mapped < pe_count { Ok(PeId::new(mapped)) } else { Err(error()) }
    };
    (0..element_count).map(place).collect()
}

/// A sparse array that is to be created.
#[must_use = "nothing is created until `create_empty()`, or `create(..)` with elements"]
pub struct SparseBuilder<C: Chare> {
    map: Option<Box<dyn Placement<C::Index>>>,
}

impl<C: ArrayElement> SparseBuilder<C> {
    pub(crate) fn new() -> Self {
        SparseBuilder { map: None }
    }

    /// Places elements by a map, unless their insertion says a PE; otherwise they are placed by their keys. The map is asked on the PE that
    /// makes the array, and need not be known in other processes.
    pub fn map(mut self, map: impl Placement<C::Index>) -> Self {
        self.map = Some(Box::new(map));
        self
    }

    /// Lets the array have the elements of these indexes from its creation; others may be inserted later.
    ///
    /// ```
    /// use chare::prelude::*;
    /// # struct Cell;
    /// # #[chare(index = (usize, usize))]
    /// # impl Cell {
    /// #     fn new() -> Self {
    /// #         Cell
    /// #     }
    /// #     #[entry]
    /// #     fn whoami(&self, cx: &Cx<Self>) -> (usize, usize) {
    /// #         cx.index()
    /// #     }
    /// # }
    ///
    /// #[chare::main]
    /// async fn main(rt: Runtime) -> Result<()> {
    ///     let range = chare::Strided::new((0, 1), (3, 4), (2, 2));
    ///     let cells = rt.array_sparse::<Cell>().strided(range).create(()).await?;
    ///     assert_eq!(cells.whoami().gather().await?, [(0, 1), (0, 3), (2, 1), (2, 3)]);
    ///     Ok(())
    /// }
    /// ```
    pub fn strided(self, range: Strided<C::Index>) -> InitialBuilder<C>
    where
        C::Index: DenseIndex,
    {
        InitialBuilder { map: self.map, initial: Initial::strided(range) }
    }

    /// As [`SparseBuilder::strided`], with any indexes, each once and with a key of its own, in any order.
    pub fn elements(self, indexes: impl IntoIterator<Item = C::Index>) -> InitialBuilder<C> {
        let indexes = indexes.into_iter().collect();
        InitialBuilder { map: self.map, initial: Initial::listed(indexes, C::index_codec()) }
    }

    /// Creates the array without elements, at once.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn create_empty(self) -> SparseArray<C> {
        current::on_pe("creating an array", |pe| {
            let id = CollectionId::new(pe.id(), pe.next_creation());
            let info = Arc::new(CollectionInfo::new_sparse::<C>(id, self.map, None, pe.pe_count()));
            pe.post_to_others(|| Msg::for_pe(Start { info: info.clone() }));
            Start { info }.begin(pe);
            SparseArray::new(pe.run(), id)
        })
    }
}

/// A sparse array that is to be created with elements; made by [`SparseBuilder::strided`] and [`SparseBuilder::elements`].
#[must_use = "nothing is created until `create(..)` is sent or awaited"]
pub struct InitialBuilder<C: Chare> {
    map: Option<Box<dyn Placement<C::Index>>>,
    initial: Initial<C::Index>,
}

impl<C: ArrayElement> InitialBuilder<C> {
    /// The creation of the array and of these elements, each with a clone of `init`, the arguments of `new`. There is no message
    /// for each: every PE goes through all indexes and constructs those that are placed on it.
    ///
    /// As after [`SparseArray::done_inserting`], reductions can end and calls of absent elements are refused. Later
    /// insertions are possible.
    ///
    /// # Panics
    /// When it is sent or first polled: on a thread that is not a PE, if two indexes have one key or one has none, if the
    /// elements do not fit in memory, and if the map panics or says a PE that does not exist.
    #[track_caller]
    pub fn create(self, init: C::Init) -> Creation<SparseArray<C>>
    where
        C::Init: Clone,
    {
        let InitialBuilder { map, mut initial } = self;
        Creation::new(C::INFO, Location::caller(), move |pe, awaited| {
            initial.check(pe.pe_count())?;
            if let Some(map) = &map {
                initial.place(pe, C::INFO.name, &**map)?;
            }
            let info = |id| CollectionInfo::new_sparse::<C>(id, map, Some(initial), pe.pe_count());
            let (id, cell) = create_everywhere::<C>(pe, info, init, awaited)?;
            Ok((SparseArray::new(pe.run(), id), cell))
        })
    }
}

/// A group that is to be created.
#[must_use = "nothing is created until `create(..)` is sent or awaited"]
pub struct GroupBuilder<C: Chare> {
    /// All, unless it says which.
    pes: Option<Vec<usize>>,
    chare: std::marker::PhantomData<fn() -> C>,
}

impl<C: Chare<Index = usize>> GroupBuilder<C> {
    pub(crate) fn new() -> Self {
        GroupBuilder { pes: None, chare: std::marker::PhantomData }
    }

    /// Limits the group to these PEs, in any order. Calls of a member on another PE bring `CallError::NoElement`.
    pub fn on_pes<P: IntoPe>(mut self, pes: impl IntoIterator<Item = P>) -> Self {
        self.pes = Some(pes.into_iter().map(IntoPe::into_pe_number).collect());
        self
    }

    /// The creation of all members, each with a clone of `init`, the arguments of `new`.
    ///
    /// # Panics
    /// When it is sent or first polled, on a thread that is not a PE, if it is limited to no PEs, or to one that does
    /// not exist.
    #[track_caller]
    pub fn create(self, init: C::Init) -> Creation<Group<C>>
    where
        C::Init: Clone,
    {
        let wanted = self.pes;
        Creation::new(C::INFO, Location::caller(), move |pe, awaited| {
            let pes = members(wanted, pe.pe_count())?;
            let pe_count = pe.pe_count();
            let info = |id| CollectionInfo::new::<C>(id, pe_count, Kind::Group { pes }, pe_count);
            let (id, cell) = create_everywhere::<C>(pe, info, init, awaited)?;
            Ok((Group::new(pe.run(), id), cell))
        })
    }
}

/// The PEs of a group, in order.
fn members(wanted: Option<Vec<usize>>, pe_count: usize) -> Result<Arc<[PeId]>, String> {
    let Some(mut wanted) = wanted else { return Ok(all_pes(pe_count).collect()) };
    wanted.sort_unstable();
    wanted.dedup();
    match wanted.last() {
        None => Err("a group on no PEs cannot be created: give `on_pes` at least one".to_owned()),
        Some(last) if *last >= pe_count => Err(format!("there is no PE {last}: this run has {pe_count} PEs")),
        Some(_) => Ok(wanted.into_iter().map(PeId::new).collect()),
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
    pub fn on_pe(mut self, pe: impl IntoPe) -> Self {
        self.pe = Some(PeId::new(pe.into_pe_number()));
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
            let next = || PeId::new((pe.id().index() + pe.next_creation() as usize) % pe.pe_count());
            let home = wanted.unwrap_or_else(next);
            if home.index() >= pe.pe_count() {
                return Err(format!("there is no {home:?}: this run has {} PEs", pe.pe_count()));
            }
            let id = pe.next_single(home);
            let cell = awaited.then(|| CellRef::new(pe, pe.cells.open(Codec::<()>::by_serde())));
            let reply = cell.map_or(Reply::none(), Reply::to);
            match CreateSingle::<C>(init).for_home(pe, id, reply) {
                Ok(create) => pe.post(home, create),
                Err((why, reply)) => pe.post(home, Msg::new(id, reply, Uncreated(not_sent::<C>(&why)))),
            }
            Ok((Element::new(pe.run(), id, 0), cell))
        })
    }
}

/// The collection, and the cell that waits for all constructors, if its creation is awaited.
type Begun = (CollectionId, Option<CellRef>);

/// Makes a collection known on all PEs, where its elements are then constructed. Fails, and says why, if it does not fit
/// in memory or its map says nonsense.
fn create_everywhere<C: Chare>(
    pe: &Pe,
    info: impl FnOnce(CollectionId) -> CollectionInfo,
    init: C::Init,
    awaited: bool,
) -> Result<Begun, String>
where
    C::Init: Clone,
{
    let new = Everywhere::<C>::new(pe, init, awaited);
    let begun = new.begun();
    new.create(pe, info(begun.0))?;
    Ok(begun)
}

/// A collection that this PE is to create on all.
pub(crate) struct Everywhere<C: Chare> {
    id: CollectionId,
    root: Option<CellRef>,
    init: C::Init,
}

impl<C: Chare> Everywhere<C> {
    pub(crate) fn new(pe: &Pe, init: C::Init, awaited: bool) -> Self {
        let finish = |_: broadcast::Outcomes<()>, error: Option<CallError>| error.map_or(Ok(()), Err);
        let root = awaited.then(|| broadcast::open_root::<(), ()>(pe, Codec::by_serde, finish));
        Everywhere { id: CollectionId::new(pe.id(), pe.next_creation()), root, init }
    }

    pub(crate) fn begun(&self) -> Begun {
        (self.id, self.root)
    }

    /// Tells all PEs that there will be no such collection.
    pub(crate) fn give_up(self, pe: &Pe, error: CallError) {
        let Everywhere { id, root, init } = self;
        pe.guard(|| drop(init));
        let all = ChareId { collection: id, element: UNKNOWN };
        pe.post_to_others(|| Msg::new(all, Reply::none(), Uncreated(error.clone())));
        Uncreated(error).run(all, root.map_or(Reply::none(), Reply::to), pe);
    }
}

impl<C: Chare> Everywhere<C>
where
    C::Init: Clone,
{
    /// Creates it, in the method of who asks for it: if the arguments cannot be cloned, that method panics.
    pub(crate) fn create(self, pe: &Pe, info: CollectionInfo) -> Result<(), String> {
        let info = Arc::new(info);
        let creations = self.creations(pe, &info);
        self.begin(pe, info, creations)
    }

    /// Creates it later: what is a panic in [`create`](Self::create) is an error of the creation, and where that fails the run ends.
    pub(crate) fn create_later(self, pe: &Pe, info: CollectionInfo) {
        let info = Arc::new(info);
        match entry::guarded_in_all(pe, EntryOf::<C>::NEW, || self.creations(pe, &info)) {
            Ok(creations) => {
                if let Err(text) = self.begin(pe, info, creations) {
                    pe.shared().stop(Reason::Aborted(text));
                }
            }
            Err(error) => self.give_up(pe, error),
        }
    }

    /// A message for each of [`Pe::others`]. They come before the own part: if either fails, no other PE has heard of the collection.
    fn creations(&self, pe: &Pe, info: &Arc<CollectionInfo>) -> Result<Vec<Msg>, Stays> {
        let creation = |others| {
            let create = Create::<C> { info: info.clone(), init: self.init.clone(), root: self.root };
            create.for_others(pe, others)
        };
        pe.others().map(creation).collect()
    }

    fn begin(
        self,
        pe: &Pe,
        info: Arc<CollectionInfo>,
        creations: Result<Vec<Msg>, Stays>,
    ) -> Result<(), String> {
        let mut creations = match creations {
            Ok(creations) => creations.into_iter(),
            Err(why) => {
                self.give_up(pe, not_sent::<C>(&why));
                return Ok(());
            }
        };
        let Everywhere { root, init, .. } = self;
        (Create::<C> { info, init, root })
            .begin(pe)
            .inspect_err(|_| root.iter().for_each(|root| pe.cells.abandon(pe, root.key)))?;
        pe.post_to_others(|| creations.next().expect("there is one for each of the others"));
        Ok(())
    }
}

/// The error of a creation whose arguments stay in their process.
fn not_sent<C: Chare>(why: &Stays) -> CallError {
    CallError::Refused(format!("{} was not created in another process: {why}", C::INFO.name).into())
}

/// What a creation makes on its PE: the proxy, and the cell that awaits it. The error is a mistake of the caller's.
type Launched<P> = Result<(P, Option<CellRef>), String>;
type Launch<P> = Box<dyn FnOnce(&Pe, bool) -> Launched<P> + Send>;

/// A creation that has not been sent yet. Awaiting it waits until all constructors have run and brings the proxy;
/// `.send()` brings the proxy at once. Messages sent before a constructor has run are kept for its chare.
///
/// If the arguments cannot be sent to the other processes of the run, nothing is created: that is the error of the creation, and of
/// all calls by the proxy.
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

    /// Creates now; what it returns brings the proxy once all constructors have run.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn future(mut self) -> Creation<P> {
        self.state = self.sent();
        self
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
