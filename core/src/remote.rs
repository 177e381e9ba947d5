//! Functions that are sent to a chare, to run where it lives: `remote!` and `#[chare::remote]`.
//!
//! What is sent is a function pointer and its arguments, never a boxed closure: the code captures nothing, so it has an
//! id in the program's table and may cross processes. A call of it is the call of an entry, [`Apply`], of which there
//! is one type for each function; so panics, held messages and reports are those of any entry.
//!
//! *Another process* finds the function by the id: the row has code of the macro's that gives it to who asks ([`Wanted`]). The type of a closure's
//! value is known to the compiler only, and a static can name no such type; so the row holds the closure a second time, and its type is found
//! there once more. Both are the same tokens, so the value is of one type, but nothing says so to the compiler: it goes through bytes.

use std::fmt;
use std::marker::PhantomData;

use crate::broadcast::Copies;
use crate::chares::{Chare, Cx};
use crate::entry::{Delivery, Entry, EntryInfo, Failure, Flat, Invoke, flat};
use crate::guard::{ByMessage, Guard};
use crate::ids::ChareId;
use crate::message::Msg;
use crate::table::{CodeId, Row};
use crate::wire::{Codec, Decoder, Encoder, Stays, Way, WireError, reply_of_call};

/// What `remote!` makes of the user's code: the arguments are one value, a tuple where there are several, and a `Result`
/// is flat.
pub(crate) type Function<C, A, R> = fn(&mut C, &Cx<C>, A) -> Result<R, Failure>;

/// The type that stands for one remote function. Made by `remote!`.
pub trait Site: 'static {
    /// The chare that it runs on.
    type Chare: Chare;
    /// Its arguments after the chare, as one value.
    type Args: Send + 'static;
    /// The function in the table of the program.
    const ROW: Row;
    /// Its number there.
    fn code() -> CodeId;
    #[doc(hidden)]
    fn encode_args(args: Self::Args, to: &mut Encoder) -> Result<(), Stays>;
    #[doc(hidden)]
    fn decode_args(from: &mut Decoder<'_>) -> Result<Self::Args, WireError>;
}

/// The same, with how the function's value travels.
pub trait Returning<R>: Site {
    #[doc(hidden)]
    fn output() -> &'static Codec<R>;
}

/// A closure that stands at `S`, whose value travels by `W`.
pub struct Closure<S, W>(PhantomData<fn(S, W)>);

impl<S: Site, W: 'static> Site for Closure<S, W> {
    type Chare = S::Chare;
    type Args = S::Args;
    const ROW: Row = S::ROW;
    fn code() -> CodeId {
        S::code()
    }
    fn encode_args(args: S::Args, to: &mut Encoder) -> Result<(), Stays> {
        S::encode_args(args, to)
    }
    fn decode_args(from: &mut Decoder<'_>) -> Result<S::Args, WireError> {
        S::decode_args(from)
    }
}

#[diagnostic::do_not_recommend]
impl<S: Site, W: Way<R>, R: Send + 'static> Returning<R> for Closure<S, W> {
    fn output() -> &'static Codec<R> {
        Codec::by::<W>()
    }
}

/// What is asked of the code of a row.
pub enum Wanted<'a, 'b> {
    /// A call, for this chare, of what is left of its bytes.
    Call(ChareId, &'a mut Decoder<'b>, Option<Result<Msg, WireError>>),
    /// What broadcasts of it do.
    Copies(Option<&'static Copies>),
    /// It as a guard, if it is one.
    Guard(Option<Guard>),
}

impl Wanted<'_, '_> {
    /// Takes it from this function.
    pub fn take<P, R>(&mut self, remote: Remote<P, P::Chare, P::Args, R>, copies: Option<&'static Copies>)
    where
        P: Returning<R>,
        R: Send + 'static,
    {
        match self {
            Wanted::Copies(wanted) => *wanted = copies,
            Wanted::Guard(wanted) => *wanted = Guard::of_remote(remote),
            Wanted::Call(to, from, msg) => *msg = Some(remote.decode_call(*to, from)),
        }
    }
}

/// A function with `#[chare::remote]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no remote function",
    note = "write `#[chare::remote]` on it, or a closure: `remote!(|state: &mut MyChare| ..)`"
)]
pub trait RemoteFn: Site + Sized {
    /// What a call of it brings.
    type Output: Send + 'static;
    /// What to call.
    const FUNCTION: Function<Self::Chare, Self::Args, Self::Output>;
}

/// A function that can be sent to chares of type `C`, to be called there with arguments `A` for a value `R`: a small
/// value that is copied freely. `remote!` makes it; `P` stands for where.
///
/// It captures nothing, so it is the same in every process and has an [`id`](Remote::id) there. What the code needs
/// comes as arguments ([`apply_with`](crate::Target::apply_with)).
///
/// ```
/// use chare::prelude::*;
///
/// struct Account {
///     balance: i64,
/// }
///
/// #[chare]
/// impl Account {
///     fn new() -> Self {
///         Account { balance: 0 }
///     }
/// }
///
/// #[chare::remote]
/// fn withdraw(account: &mut Account, amount: i64) -> Result<i64> {
///     if account.balance < amount {
///         return Err(format!("there is no more than {}", account.balance).into());
///     }
///     account.balance -= amount;
///     Ok(account.balance)
/// }
///
/// #[chare::main]
/// async fn main(rt: Runtime) -> Result<()> {
///     let account = rt.single::<Account>().create(()).await?;
///     account.apply(remote!(|account: &mut Account| account.balance += 5)).await?;
///     let deposit = remote!(|account: &mut Account, amount: i64| {
///         account.balance += amount;
///         account.balance
///     });
///     assert_eq!(account.apply_with(deposit, 3).await?, 8);
///     assert_eq!(account.apply_with(remote!(withdraw), 1).await?, 7);
///     assert!(account.apply_with(remote!(withdraw), 100).await.is_err());
///     Ok(())
/// }
/// ```
pub struct Remote<P, C: Chare, A, R> {
    function: Function<C, A, R>,
    site: PhantomData<fn() -> P>,
}

impl<S: Site, W, C: Chare, A, R> Remote<Closure<S, W>, C, A, R> {
    /// What `remote!` makes of a closure.
    #[doc(hidden)]
    pub fn new(_: S, function: Function<C, A, R>, _: W) -> Self {
        Remote { function, site: PhantomData }
    }
}

impl<P: Site, C: Chare, A, R> Remote<P, C, A, R> {
    /// The number of the function, the same in every process that runs this program.
    pub fn id(&self) -> CodeId {
        P::code()
    }

    pub(crate) fn function(&self) -> Function<C, A, R> {
        self.function
    }

    pub(crate) fn with(self, args: A) -> (Function<C, A, R>, A) {
        (self.function, args)
    }
}

impl<P: Returning<R>, R: Send + 'static> Remote<P, P::Chare, P::Args, R> {
    /// A call that came from another process.
    fn decode_call(self, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        let args = self.with(P::decode_args(from)?);
        let reply = reply_of_call(to, from, P::output())?;
        Ok(Msg::new(to, reply, Invoke::<Apply<P, P::Chare, P::Args, R>>(args)))
    }
}

/// What `remote!` makes of a name.
#[doc(hidden)]
pub const fn named<P: RemoteFn>() -> Remote<P, P::Chare, P::Args, P::Output> {
    Remote { function: P::FUNCTION, site: PhantomData }
}

impl<P, C: Chare, A, R> Clone for Remote<P, C, A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P, C: Chare, A, R> Copy for Remote<P, C, A, R> {}

impl<P: Site, C: Chare, A, R> fmt::Debug for Remote<P, C, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({} at {})", P::ROW.full_name(), P::ROW.place())
    }
}

/// The entry that `apply` calls. Reports name it `apply(name)` after a function, `apply(file:line)` after a closure.
pub struct Apply<P, C, A, R>(PhantomData<fn(P, C, A) -> R>);

#[diagnostic::do_not_recommend]
impl<P: Returning<R, Chare = C, Args = A>, C: Chare, A: Send + 'static, R: Send + 'static> ByMessage
    for Apply<P, C, A, R>
{
}

impl<P: Returning<R, Chare = C, Args = A>, C: Chare, A: Send + 'static, R: Send + 'static> Entry
    for Apply<P, C, A, R>
{
    type Chare = C;
    type Args = (Function<C, A, R>, A);
    type Output = R;
    const INFO: &'static EntryInfo = &EntryInfo {
        chare: C::INFO.name,
        name: P::ROW.name,
        file: P::ROW.place().file,
        line: P::ROW.place().line,
    };

    #[inline]
    fn deliver(delivery: Delivery<'_, Self>) {
        delivery.plain(|state, cx, (function, args)| function(state, cx, args));
    }

    fn code() -> Option<CodeId> {
        Some(P::code())
    }

    fn encode_args((_, args): Self::Args, to: &mut Encoder) -> Result<(), Stays> {
        P::encode_args(args, to)
    }

    fn output() -> &'static Codec<R> {
        P::output()
    }
}

/// How the value of a closure arrives: [`ReturnsResult`] is found first.
pub trait ReturnsValue {
    #[doc(hidden)]
    fn returns(&self) -> AsValue {
        AsValue
    }
}

impl<T> ReturnsValue for &T {}

/// A `Result` arrives flat.
pub trait ReturnsResult {
    #[doc(hidden)]
    fn returns(&self) -> AsResult {
        AsResult
    }
}

impl<T, E> ReturnsResult for Result<T, E> {}

#[doc(hidden)]
pub struct AsValue;

impl AsValue {
    /// # Errors
    /// None.
    pub fn flat<T>(self, value: T) -> Result<T, Failure> {
        Ok(value)
    }
}

#[doc(hidden)]
pub struct AsResult;

impl AsResult {
    /// # Errors
    /// That of the result.
    pub fn flat<R: Flat>(self, result: R) -> Result<R::Value, Failure> {
        flat(result)
    }
}
