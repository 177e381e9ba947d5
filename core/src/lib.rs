//! A GPU-aware actor runtime for accelerator clusters.
//!
//! People write *chares*: objects that own data and device buffers, are called asynchronously through typed proxies,
//! and live on *PEs*, scheduling loops on threads. Their coroutine methods launch kernels and suspend until the device,
//! a message or a timer wakes them. Inside a process a call moves its arguments by pointer.
//!
//! ```
//! use chare::prelude::*;
//!
//! struct Hello {
//!     greeted: u32,
//! }
//!
//! #[chare(index = usize)]
//! impl Hello {
//!     fn new() -> Self {
//!         Hello { greeted: 0 }
//!     }
//!
//!     #[entry]
//!     fn say_hi(&mut self, cx: &Cx<Self>, from: usize) -> u32 {
//!         println!("hello {} from {from} on PE {}", cx.index(), cx.my_pe());
//!         self.greeted += 1;
//!         self.greeted
//!     }
//! }
//!
//! #[chare::main]
//! async fn main(rt: Runtime) -> Result<()> {
//!     let hellos = rt.array::<Hello>(8).create(()).await?;
//!     hellos.at(1).say_hi(0).send();
//!     let greeted = hellos.at(3).say_hi(0).await?;
//!     let all = hellos.say_hi(9).gather().await?;
//!     assert_eq!((greeted, all[3], all.len()), (1, 2, 8));
//!     Ok(())
//! }
//! ```
//!
//! # How a method interleaves: the receiver says
//!
//! | signature | kind |
//! |---|---|
//! | `fn f(&mut self, ..)` | runs to completion |
//! | `async fn f(&mut self, ..)` | *exclusive* coroutine: it owns the chare until it ends; other messages wait |
//! | `async fn f(this: This<Self>, ..)` | *interleaving* coroutine: state is touched in `this.with(..)` only; others run while it waits |
//!
//! # When a method runs: conditions
//!
//! A call of an entry with `when` is kept at its chare until its condition holds. How it is written says what a look costs:
//!
//! | condition | looked at |
//! |---|---|
//! | `#[entry(when = \|s: &Self\| s.ready)]` | once for all calls that wait for it |
//! | `#[entry(when = \|s: &Self, step: &u32\| *step <= s.step)]`, with every argument by reference | for each call that waits |
//! | `#[entry(when(self.step == step))]`, a field of the chare and an argument or a field of one | by hash: once |
//!
//! Conditions are looked at when a call arrives, and after every step that may have changed the state. Of the kept calls
//! that may run the oldest does, until none may; an exclusive coroutine that owns the chare ends first. Those that follow a chare to another
//! process count from when they come there. What is kept is not
//! in the way of quiescence, and stands in the report of a program that hangs. A panic in a condition is one of the call.
//!
//! ```
//! use chare::prelude::*;
//!
//! struct Block {
//!     step: u32,
//!     log: Vec<u32>,
//! }
//!
//! #[chare]
//! impl Block {
//!     fn new() -> Self {
//!         Block { step: 0, log: Vec::new() }
//!     }
//!
//!     #[entry(when(self.step == step))]
//!     fn ghost(&mut self, step: u32) {
//!         self.log.push(step);
//!         self.step += 1;
//!     }
//!
//!     #[entry(when = |block: &Self, steps: &u32| block.step >= *steps)]
//!     fn log(&self, steps: u32) -> Vec<u32> {
//!         self.log[..steps as usize].to_vec()
//!     }
//! }
//!
//! #[chare::main]
//! async fn main(rt: Runtime) -> Result<()> {
//!     let block = rt.single::<Block>().create(()).await?;
//!     let log = block.log(3).future();
//!     for step in [2, 1, 0] {
//!         block.ghost(step).send();
//!     }
//!     assert_eq!(log.await?, [0, 1, 2]);
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! * Messages between two chares have no order, except through a [`Channel`].
//! * A broadcast reaches every element that exists exactly once; broadcasts of one collection apply in one order.
//! * Messages to chares that are not constructed yet are kept.
//! * What is awaited is an ordinary future: the combinators of any crate work on it (`select!`, `join!`, `FuturesUnordered`),
//!   and so does [`Runtime::timeout`]. Dropping a wait loses nothing else: a value of a channel is left for the next
//!   receive, unused credit is given back, a call that was polled still runs, one that was not was never sent.
//! * An error or panic reaches whoever awaits the call; if nobody does, the run ends with a report, unless the program
//!   decides otherwise ([`Options::on_unawaited`]). A program that can
//!   never go on ends with a report of what each coroutine waits for and exit code 3.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `ndarray`: arrays of the crate `ndarray` in reductions, element by element ([`reduction::Combine`]), and in messages to other processes, where
//!   their memory travels as it lies ([`Contiguous`]).
//! * `tokio`: coroutines may await what tokio offers: sockets, timers, files, signals, channels, tasks, blocking calls.
//!   Which of these there are is said by the features of your own dependency on tokio.
//!
//!   Each run has a tokio runtime of its own, driven by one thread beside the PEs and entered by all of them. A coroutine
//!   that awaits tokio neither hangs nor is quiescent. A task that no coroutine awaits counts for neither; it reaches
//!   chares by a [`Handle`]. When the run ends, tasks are dropped where they wait, and blocking calls that have begun
//!   get a second to end before they are left behind. A run may be started inside another tokio runtime; it blocks that
//!   thread of it.
//!
#![cfg_attr(feature = "tokio", doc = "   ```")]
#![cfg_attr(not(feature = "tokio"), doc = "   ```ignore")]
//!   use chare::prelude::*;
//!
//!   #[chare::main]
//!   async fn main(_: Runtime) -> Result<()> {
//!       let sum = tokio::spawn(async { 1 + 2 }); // on the thread of tokio
//!       let lines = tokio::task::spawn_blocking(|| std::fs::read_to_string("Cargo.toml")); // on one of its pool
//!       assert_eq!(sum.await?, 3); // suspends the coroutine only
//!       assert!(lines.await??.contains("chare"));
//!       Ok(())
//!   }
//!   ```

mod answer;
mod asking;
mod binding;
mod bound;
mod broadcast;
// The macros know this crate as `::chare`. So that its own tests can use them it goes by that name there, which no module of
// it can have then.
#[cfg(all(test, not(loom)))]
extern crate self as chare;

mod call;
mod callback;
mod caught;
mod cell;
mod channel;
#[path = "chare.rs"]
mod chares;
mod collection;
mod condition;
mod cores;
mod create;
mod current;
mod destruction;
mod device_path;
mod device_work;
mod direct;
mod entry;
mod error;
mod external;
mod guard;
mod hang;
mod hosts;
mod ids;
mod index;
mod info;
mod insertion;
mod job;
mod known;
mod launch;
mod local;
mod location;
mod mailbox;
mod message;
mod migration;
mod options;
mod outside;
mod pending;
mod placement;
mod priority;
mod process;
mod profile;
mod promise;
mod proxy;
mod quiescence;
pub mod reduction;
mod remote;
mod reply;
mod report;
mod restart;
mod runtime;
mod scheduler;
mod shared;
mod shared_future;
mod sim;
mod singles;
mod sleep;
mod stillborn;
mod strided;
mod table;
mod testing;
mod timeout;
mod unawaited;
mod waiting;
mod warning;
mod wire;

pub use binding::{DeviceMap, DeviceMapError, DeviceWarning, NoSuchDevice};
pub use call::{Broadcast, Call, CallFuture};
pub use callback::Callback;
pub use channel::{Channel, Permit, Recv, Reserve};
pub use chare_device as device;
/// Makes the objects of a type chares, whose methods are called by message.
///
/// ```
/// use chare::prelude::*;
///
/// struct Hello {
///     greeted: u32,
/// }
///
/// #[chare(index = usize)]
/// impl Hello {
///     fn new(_cx: &Cx<Self>) -> Self {
///         Hello { greeted: 0 }
///     }
///
///     #[entry]
///     fn say_hi(&mut self, cx: &Cx<Self>, from: usize) -> u32 {
///         println!("hello {} from {from} on PE {}", cx.index(), cx.my_pe());
///         self.greeted += 1;
///         self.greeted
///     }
/// }
///
/// #[chare::main]
/// async fn main(rt: Runtime) -> Result<()> {
///     let hellos = rt.array::<Hello>(8).create(()).await?;
///     assert_eq!(hellos.at(3).say_hi(0).await?, 1);
///     Ok(())
/// }
/// ```
///
pub use chare_macros::chare;
pub use chare_macros::entry;
/// Makes an `async fn` the program.
///
/// ```
/// use chare::prelude::*;
///
/// #[chare::main]
/// async fn main(rt: Runtime) -> Result<()> {
///     println!("{} PEs", rt.num_pes());
///     Ok(())
/// }
/// ```
///
pub use chare_macros::main;
/// Makes a function that can be sent to a chare.
///
/// ```
/// use chare::prelude::*;
///
/// struct Counter(u64);
///
/// #[chare]
/// impl Counter {
///     fn new() -> Self {
///         Counter(0)
///     }
/// }
///
/// /// Adds `n` and says what it is then.
/// #[chare::remote]
/// fn add(counter: &mut Counter, n: u64) -> u64 {
///     counter.0 += n;
///     counter.0
/// }
///
/// #[chare::main]
/// async fn main(rt: Runtime) -> Result<()> {
///     let counters = rt.group::<Counter>().create(()).await?;
///     assert_eq!(counters.on(0).apply_with(remote!(add), 3).await?, 3);
///     Ok(())
/// }
/// ```
///
pub use chare_macros::remote;
/// Makes an `async fn` a test.
///
/// ```
/// # use chare::prelude::*;
/// # struct Probe;
/// # #[chare]
/// # impl Probe {
/// #     fn new() -> Self {
/// #         Probe
/// #     }
/// #     #[entry]
/// #     fn size(&self) -> usize {
/// #         1
/// #     }
/// # }
/// #[chare::test(pes = [1, 4])]
/// async fn a_group_has_one_member_per_pe(rt: Runtime) -> Result<()> {
///     let sizes = rt.group::<Probe>().create(()).await?.size().gather().await?;
///     assert_eq!(sizes.len(), rt.num_pes());
///     Ok(())
/// }
/// ```
///
pub use chare_macros::test;
pub use chares::{ArrayElement, Chare, ChareInfo, Cx, Standalone, This};
pub use condition::WaitUntil;
pub use create::{
    ArrayBuilder, Created, Creation, GroupBuilder, InitialBuilder, SingleBuilder, SparseBuilder,
};
pub use current::Entered;
pub use destruction::{Destroyed, Destruction};
pub use device_path::{DevicePath, DevicePathError};
pub use direct::Direct;
pub use entry::{Entry, EntryInfo, EntryPoint};
pub use error::{
    BoxError, CallError, ChannelError, Elapsed, ExitWith, Failed, Fulfilled, Full, NoElement, NotNow,
    Panicked, Result, WhyNotNow,
};
pub use external::External;
pub use guard::{ByMessage, Decision};
pub use hosts::HostId;
pub use ids::{IntoPe, PeId};
pub use index::{DenseIndex, Index};
pub use info::Info;
pub use insertion::{DoneInserting, Insertion};
pub use local::NotLocal;
pub use mailbox::MailboxWarning;
pub use migration::{Migrated, Migration};
pub use options::{OPTIONS_HELP, Options, OptionsError};
pub use placement::{OverDevices, Placement};
pub use priority::Priority;
pub use profile::{DeviceProfile, EntryProfile, Messages, PeProfile, Profile, Sent};
pub use promise::{Promise, PromiseFuture, PromisesFuture};
pub use proxy::{Array, Element, FromCallback, Group, GroupSlice, SparseArray, Target};
pub use quiescence::Quiescence;
pub use remote::{Apply, Remote};
pub use report::{ExitReport, HANG_EXIT_CODE};
pub use restart::SyncPoint;
pub use runtime::{Handle, MainOutput, Runtime, StartError};
pub use shared::Shared;
pub use shared_future::SharedFuture;
pub use sim::{Carried, Link, Network, Sim, SimError, Simulation};
pub use sleep::{Sleep, YieldNow};
pub use strided::Strided;
pub use table::{Code, CodeId, CodeKind, CodeTable, SameId};
pub use timeout::Timeout;
pub use unawaited::Unawaited;
pub use warning::Warning;
pub use wire::{Bulk, Contiguous, Local, Wire, bulk};

/// What most programs use.
pub mod prelude {
    pub use crate::reduction as reduce;
    pub use crate::{
        Array, CallError, Callback, Channel, Cx, Element, Group, PeId, Promise, Result, Runtime, Shared,
        SparseArray, Target, This, chare, entry,
    };
    pub use chare_macros::remote_code as remote;
}

/// What the macros generate against; not for users.
#[doc(hidden)]
pub mod __private {
    pub use crate::broadcast::Copies;
    pub use crate::cell::Exclusive;
    pub use crate::collection::Construct;
    pub use crate::condition::line::{ShowDebug, ShowNothing, on_call, on_state, on_tag};
    pub use crate::condition::when::When;
    pub use crate::direct::OneChare;
    pub use crate::entry::{Delivery, Failure, Flat, Runs, flat};
    pub use crate::ids::ChareId;
    pub use crate::launch::main;
    pub use crate::message::Msg;
    pub use crate::priority::Rank;
    pub use crate::remote::{
        AsResult, AsValue, RemoteFn, Returning, ReturnsResult, ReturnsValue, Site, Wanted, named,
    };
    pub use crate::reply::Reply;
    pub use crate::table::{CachedId, CodeId, Place, ROWS, Row};
    pub use crate::testing::{Simulated, Test, run, test};
    pub use crate::wire::{
        Alone, CallsOf, Codec, Decoder, Elements, Encoder, Kind, Of, Stays, WireError, ways,
    };
    pub use linkme;

    /// What encoding brings.
    pub type Encoded = Result<(), Stays>;
    /// What decoding brings.
    pub type Decoded<T> = Result<T, WireError>;

    /// Arguments and values of entries are owned, and may move to another thread.
    pub fn must_own<T: Send + 'static>() {}

    /// So are clones of those that an entry needs which is started again.
    pub fn must_clone<T: Clone>() {}
}

/// The program in the README, compiled and run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
