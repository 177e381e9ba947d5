//! Calls that have not been sent yet, and the futures of their outcomes.
//!
//! A call is sent by `.send()` (nobody waits), `.future()` (now, awaited later), `.to(callback)` or its first poll. A call
//! that is never polled was never sent. Dropping the future of a call that was sent does not stop the method; an error
//! that comes later then counts as unawaited and ends the job.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::broadcast::{self, Audience, Outcomes};
use crate::callback::{self, Callback};
use crate::chares::Chare;
use crate::current::{self, Here};
use crate::direct::{self, Direct};
use crate::entry::{Entry, Runs};
use crate::error::{CallError, NoElement};
use crate::guard::{ByMessage, Decision, Guard, Guarded, MOST_GUARDS};
use crate::ids::{ChareId, CollectionId, RunId};
use crate::message::Msg;
use crate::pending::{Pending, pending_future};
use crate::priority::{Priority, Rank};
use crate::proxy::{Element, OUTSIDE};
use crate::remote::{Remote, Site};
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::waiting::What;

/// A call of one entry method of one chare.
#[must_use = "a call does nothing until it is sent: `.send()`, `.await`, `.future()` or `.to(callback)`"]
pub struct Call<E: Entry> {
    to: Element<E::Chare>,
    state: CallState<E>,
    rank: Rank,
    at: &'static Location<'static>,
}

enum CallState<E: Entry> {
    Unsent(E::Args),
    Sent(Pending<E::Output>),
    Ended,
}

impl<E: Entry> Unpin for Call<E> {}

impl<E: Entry> Call<E> {
    #[inline]
    pub(crate) fn new(to: Element<E::Chare>, args: E::Args, at: &'static Location<'static>) -> Self {
        Call { to, state: CallState::Unsent(args), rank: E::RANK, at }
    }

    /// Gives the call a priority among the messages that wait on the PE of its chare: lower ones go first, equal ones in
    /// order of arrival; a call without one has that of its entry (`#[entry(priority = ..)]`), or 0. It orders what waits there when it arrives, and no more: what holds the
    /// chare back (an exclusive coroutine, a constructor) holds the call back too, and it then goes in order of arrival.
    pub fn priority(mut self, priority: impl Into<Priority>) -> Self {
        self.rank = Rank::At(priority.into());
        self
    }

    /// Lets the call go before all messages that wait on the PE of its chare and are not expedited, whatever their
    /// priority, and before coroutines that go on there. A chare that always has an expedited call for itself lets nothing else run.
    pub fn expedited(mut self) -> Self {
        self.rank = Rank::Expedited;
        self
    }

    /// Lets `guard` decide at the last moment, when the call would run: whether it does, waits until the chare's state has
    /// changed, or never runs, which whoever awaits it learns as [`CallError::Dropped`]. Calls that wait keep their order of
    /// arrival among all that the chare keeps; if the entry has a condition (`when`), the guard is asked once that holds.
    /// Several guards are asked in the order in which they were given; more than 64 of one call are an error of the compiler's. A guard should only look: what it changes makes
    /// nobody look again. Calls of entries with `#[entry(inline)]` or `#[entry(local)]` have none: their callers cannot wait.
    ///
    /// ```
    /// use chare::prelude::*;
    /// use chare::Decision::{Defer, Run};
    ///
    /// struct Account {
    ///     is_open: bool,
    ///     balance: i64,
    /// }
    ///
    /// #[chare]
    /// impl Account {
    ///     fn new() -> Self {
    ///         Account { is_open: false, balance: 0 }
    ///     }
    ///
    ///     #[entry]
    ///     fn open(&mut self) {
    ///         self.is_open = true;
    ///     }
    ///
    ///     #[entry]
    ///     fn deposit(&mut self, amount: i64) -> i64 {
    ///         self.balance += amount;
    ///         self.balance
    ///     }
    /// }
    ///
    /// #[chare::main]
    /// async fn main(rt: Runtime) -> Result<()> {
    ///     let account = rt.single::<Account>().create(()).await?;
    ///     let when_open = remote!(|account: &Account| if account.is_open { Run } else { Defer });
    ///     let deposit = account.deposit(5).when(when_open).future();
    ///     account.open().await?;
    ///     assert_eq!(deposit.await?, 5);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Panics
    /// If the call has been sent.
    #[track_caller]
    pub fn when<P: Site>(self, guard: Remote<P, E::Chare, (), Decision>) -> Call<Guarded<E>>
    where
        E: ByMessage,
    {
        const { assert!(E::GUARDS < MOST_GUARDS, "a call has 64 guards at most") };
        let Call { to, state, rank, at } = self;
        let CallState::Unsent(args) = state else { panic!("the call was sent before it got this guard") };
        let guard = Guard::new::<P, E::Chare>(guard.function());
        Call { to, state: CallState::Unsent((guard, args)), rank, at }
    }

    /// Sends the call; nobody waits for it. An error in the method ends the job with a report.
    // Always inline: that the call has no rank is known only where it was made.
    #[inline(always)]
    pub fn send(self) {
        // Taken apart first, so that its parts need not be in memory: arguments that are written there one by one and read
        // as a whole right after wait for the store buffer.
        let Call { to, state, rank, .. } = self;
        let CallState::Unsent(args) = state else { return };
        match rank {
            Rank::Normal if const { matches!(E::RUNS, Runs::ByMessage) } => send_plainly::<E>(&to, args),
            rank => dispatch::<E>(to, args, Reply::none(), rank),
        }
    }

    /// Sends the call now; the future brings its outcome.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn future(self) -> CallFuture<E::Output> {
        match self.state {
            CallState::Unsent(args) => CallFuture(start::<E>(self.to, args, self.rank, self.at)),
            CallState::Sent(pending) => CallFuture(pending),
            CallState::Ended => panic!("the call has brought its outcome already"),
        }
    }

    /// Runs the method now, on the stack of the caller, and returns its value: for entries with `#[entry(inline)]` or
    /// `#[entry(local)]`.
    ///
    /// ```
    /// use chare::prelude::*;
    ///
    /// struct Cache(u64);
    ///
    /// #[chare]
    /// impl Cache {
    ///     fn new() -> Self {
    ///         Cache(7)
    ///     }
    ///
    ///     #[entry(local)]
    ///     fn look_up(&self, key: u64) -> u64 {
    ///         self.0 * key
    ///     }
    /// }
    ///
    /// #[chare::main]
    /// async fn main(rt: Runtime) -> Result<()> {
    ///     let caches = rt.group::<Cache>().create(()).await?;
    ///     assert_eq!(caches.on(rt.my_pe()).look_up(6).now()?, 42);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of the method, and [`CallError::NotNow`] if it cannot run now; the arguments are dropped then.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if the call has been polled.
    #[track_caller]
    pub fn now(self) -> Result<E::Output, CallError>
    where
        E: Direct,
    {
        let CallState::Unsent(args) = self.state else { panic!("the call has been sent already") };
        current::on_pe("a call that runs at once", |pe| direct::now::<E>(pe, &self.to, args))
    }

    /// Sends the call; its value goes to `callback`.
    pub fn to(self, callback: impl Into<Callback<E::Output>>) {
        if let CallState::Unsent(args) = self.state {
            dispatch::<E>(self.to, args, Reply::to_callback(callback.into(), E::output()), self.rank);
        }
    }
}

impl<E: Entry> Future for Call<E> {
    type Output = Result<E::Output, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let CallState::Unsent(_) = self.state {
            let CallState::Unsent(args) = std::mem::replace(&mut self.state, CallState::Ended) else {
                unreachable!()
            };
            let rank = std::mem::replace(&mut self.rank, Rank::Normal);
            self.state = CallState::Sent(start::<E>(self.to, args, rank, self.at));
        }
        match &mut self.state {
            CallState::Sent(pending) => pending.poll(context),
            _ => panic!("a call was polled after it was ready"),
        }
    }
}

fn start<E: Entry>(
    to: Element<E::Chare>,
    args: E::Args,
    rank: Rank,
    at: &'static Location<'static>,
) -> Pending<E::Output> {
    let cell = current::on_pe("awaiting a call", |pe| CellRef::new(pe, pe.cells.open(E::output())));
    dispatch::<E>(to, args, Reply::to(cell), rank);
    Pending::new(cell, What::Call { entry: E::INFO, to: to.id() }, at)
}

/// Sends a call that nobody waits for and that has no rank. What is the same for all of these is written into the message
/// where it is made, and not carried there.
#[inline(always)]
fn send_plainly<E: Entry>(to: &Element<E::Chare>, args: E::Args) {
    let id = to.id();
    current::pe(|pe| match pe {
        Some(pe) if pe.plain_run() == to.run() && id.element != OUTSIDE => {
            pe.send(E::message(id, Reply::none(), args));
        }
        _ => send_elsewhere::<E>(to, args),
    });
}

#[cold]
#[inline(never)]
fn send_elsewhere<E: Entry>(to: &Element<E::Chare>, args: E::Args) {
    dispatch::<E>(*to, args, Reply::none(), Rank::Normal);
}

/// Sends a call from wherever the running code is. One to an element outside of its collection, or by a proxy of another
/// run, is refused.
#[inline(always)]
pub(crate) fn dispatch<E: Entry>(to: Element<E::Chare>, args: E::Args, reply: Reply, rank: Rank) {
    if const { !matches!(E::RUNS, Runs::ByMessage) } {
        return direct::dispatch::<E>(to, args, reply, rank);
    }
    dispatch_to_id::<E>(to.run(), to.id(), args, reply, rank, || format!("[{:?}]", to.index()));
}

/// As `dispatch`; `index` is how the user writes the element's index.
#[inline(always)]
pub(crate) fn dispatch_to_id<E: Entry>(
    run: RunId,
    id: ChareId,
    args: E::Args,
    reply: Reply,
    rank: Rank,
    index: impl Fn() -> String,
) {
    let msg = E::message(id, reply, args);
    current::here(|here| match here {
        Here::Pe(pe) if pe.plain_run() == run && id.element != OUTSIDE => {
            if let Rank::Normal = rank {
                pe.send(msg)
            } else {
                pe.send_ranked(rank, msg)
            }
        }
        here => send_from(here, run, msg, rank, E::Chare::INFO.name, &index),
    });
}

/// As `dispatch_to_id`, where something is out of the ordinary.
#[cold]
#[inline(never)]
fn send_from(
    here: Here<'_>,
    run: RunId,
    msg: Msg,
    rank: Rank,
    chare: &'static str,
    index: &dyn Fn() -> String,
) {
    let id = msg.head().to;
    match here {
        Here::Foreign(shared) if shared.run() == run && id.element != OUTSIDE => {
            shared.send_foreign(rank, msg);
        }
        Here::Pe(pe) if pe.run() == run && id.element != OUTSIDE => pe.send_counted(rank, msg),
        Here::Pe(pe) => msg.lose(pe, no_element(pe, run, id.collection, chare, index())),
        // Nobody can be told there, so this is an error that nobody awaits.
        Here::Foreign(shared) => {
            let bounds = if shared.run() == run { "its array is smaller" } else { OTHER_RUN };
            let error = NoElement { chare, element: index(), bounds: bounds.to_owned() };
            shared.unawaited_at(shared.first_pe(), CallError::NoElement(Arc::new(error)));
        }
        Here::Nowhere => nowhere(),
    }
}

/// Why there is no chare behind a proxy, if that is known here.
pub(crate) fn missing<C: Chare>(pe: &Pe, element: &Element<C>) -> Option<CallError> {
    let id = element.id();
    let is_missing = pe.collection(id.collection).is_some_and(|collection| !collection.info.has(id.element));
    let is_outside = id.element == OUTSIDE || is_missing;
    (pe.run() != element.run() || is_outside).then(|| {
        no_element(pe, element.run(), id.collection, C::INFO.name, format!("[{:?}]", element.index()))
    })
}

pub(crate) const OTHER_RUN: &str = "the proxy was made in another run; use proxies in the run that made them";

/// Why nothing is reached by a proxy that names element `element` of a collection.
#[cold]
pub(crate) fn no_element(
    pe: &Pe,
    run: RunId,
    collection: CollectionId,
    chare: &'static str,
    element: String,
) -> CallError {
    let bounds = if pe.run() == run { pe.bounds_of(collection) } else { OTHER_RUN.to_owned() };
    CallError::NoElement(Arc::new(NoElement { chare, element, bounds }))
}

#[cold]
#[track_caller]
pub(crate) fn nowhere() -> ! {
    panic!(
        "this thread has entered no runtime, so nothing can be sent from it: hold `Handle::enter()` meanwhile"
    )
}

/// The outcome of a call that has been sent.
#[must_use = "futures do nothing unless polled; use `.send()` if nobody waits"]
pub struct CallFuture<R: Send + 'static>(Pending<R>);

pending_future!(CallFuture<R>, Result<R, CallError>);

impl<R: Send + 'static> CallFuture<R> {
    /// The value goes to `callback` when it comes; an error goes where the callback's errors go: to the reader of a
    /// promise, else it ends the job. Returns at once.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn to(self, callback: impl Into<Callback<R>>) {
        callback::deliver_later(self, callback.into());
    }
}

/// A call of one entry method of every element of a collection, or of a slice of one. Its arguments are cloned for each element; give large
/// ones as [`crate::Shared`].
#[must_use = "a broadcast does nothing until it is sent: `.send()`, `.await`, `.future()` or `.gather()`"]
pub struct Broadcast<E: Entry> {
    to: Audience,
    args: Option<E::Args>,
    pending: Option<Pending<()>>,
    rank: Rank,
    at: &'static Location<'static>,
}

/// Makes a value of the outcomes of all elements, sorted by index.
type Collect<R, V> = fn(&mut dyn Iterator<Item = Result<R, CallError>>) -> Result<V, CallError>;

impl<E: Entry> Unpin for Broadcast<E> {}

impl<E: Entry> Broadcast<E> {
    pub(crate) fn new(to: Audience, args: E::Args, at: &'static Location<'static>) -> Self {
        Broadcast { to, args: Some(args), pending: None, rank: E::RANK, at }
    }
}

impl<E: Entry> Broadcast<E>
where
    E::Args: Clone,
{
    /// Gives the broadcast a priority among the messages that wait on each PE, as [`Call::priority`] does for one call.
    ///
    /// The broadcasts of one collection are applied in one order on all PEs, which they get on the PE that has created the
    /// collection. There the priority orders those that wait; from then on no broadcast overtakes an earlier one of its
    /// collection, whatever their priorities. So an urgent one goes before all else that waits, but behind an earlier
    /// broadcast of the collection that waits itself, and one that waits until there is nothing else to do holds back
    /// the later ones of its collection.
    pub fn priority(mut self, priority: impl Into<Priority>) -> Self {
        self.rank = Rank::At(priority.into());
        self
    }

    /// Lets the broadcast go before all messages that wait on each PE and are not expedited, whatever their priority; but
    /// not before an earlier broadcast of its collection.
    pub fn expedited(mut self) -> Self {
        self.rank = Rank::Expedited;
        self
    }

    /// Sends the broadcast; nobody waits for it.
    pub fn send(self) {
        if let Some(args) = self.args {
            broadcast::send::<E>(self.to, args, self.rank, None);
        }
    }

    /// Sends the broadcast now; the future waits until the method has finished on every element.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn future(mut self) -> CallFuture<()> {
        CallFuture(self.start())
    }

    /// Sends the broadcast now and gathers the values, sorted by index (of sparse arrays, by the
    /// [keys](crate::Index::key) of the indexes). The first error in this order is the outcome if there is one.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn gather(self) -> CallFuture<Vec<E::Output>> {
        self.gather_by(|values| values.collect())
    }

    /// Sends the broadcast now and gathers the outcomes, in the order of [`gather`](Broadcast::gather), errors in their places.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn gather_results(self) -> CallFuture<Vec<Result<E::Output, CallError>>> {
        self.gather_by(|outcomes| Ok(outcomes.collect()))
    }

    fn gather_by<V: Send + 'static>(self, collect: Collect<E::Output, V>) -> CallFuture<V> {
        let Broadcast { to, args, rank, at, .. } = self;
        let args = args.expect("a broadcast that was polled cannot be gathered");
        let finish = move |outcomes: Outcomes<E::Output>, _| {
            collect(&mut outcomes.into_iter().map(|(_, outcome)| outcome))
        };
        CallFuture(broadcast::start::<E, _>(to, args, rank, true, finish, at))
    }

    /// Sends the broadcast now; `callback` gets `()` when the method has finished on every element.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn to(self, callback: impl Into<Callback<()>>) {
        self.future().to(callback);
    }

    fn start(&mut self) -> Pending<()> {
        let args = self.args.take().expect("a broadcast is started once");
        let rank = std::mem::replace(&mut self.rank, Rank::Normal);
        let finish = |_, error: Option<CallError>| error.map_or(Ok(()), Err);
        broadcast::start::<E, _>(self.to, args, rank, false, finish, self.at)
    }
}

impl<E: Entry> Future for Broadcast<E>
where
    E::Args: Clone,
{
    type Output = Result<(), CallError>;

    /// Ready once the method has finished (coroutines included) on every element; with the first error, if any.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pending.is_none() {
            self.pending = Some(self.start());
        }
        let pending = self.pending.as_mut().expect("set above");
        pending.poll(context)
    }
}
