//! Functions that are sent to a chare, to run where it lives: `remote!` and `#[chare::remote]`.
//!
//! What is sent is a function pointer and its arguments, never a boxed closure: the code captures nothing, so it has an
//! id in the program's table and may cross processes. A call of it is the call of an entry, [`Apply`], of which there
//! is one type for each function; so panics, held messages and reports are those of any entry.

use std::fmt;
use std::marker::PhantomData;

use crate::chares::{Chare, Cx};
use crate::entry::{Delivery, Entry, EntryInfo, Failure, Flat, flat};
use crate::guard::ByMessage;
use crate::table::{CodeId, Row};

/// What `remote!` makes of the user's code: the arguments are one value, a tuple where there are several, and a `Result`
/// is flat.
pub(crate) type Function<C, A, R> = fn(&mut C, &Cx<C>, A) -> Result<R, Failure>;

/// The type that stands for one remote function. Made by `remote!`.
pub trait Site: 'static {
    /// The function in the table of the program.
    const ROW: Row;
}

/// A function with `#[chare::remote]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no remote function",
    note = "write `#[chare::remote]` on it, or a closure: `remote!(|state: &mut MyChare| ..)`"
)]
pub trait RemoteFn: Site + Sized {
    /// The chare that it runs on.
    type Chare: Chare;
    /// Its arguments after the chare, as one value.
    type Args: Send + 'static;
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

impl<P: Site, C: Chare, A, R> Remote<P, C, A, R> {
    /// What `remote!` makes of a closure.
    #[doc(hidden)]
    pub fn new(_: P, function: Function<C, A, R>) -> Self {
        Remote { function, site: PhantomData }
    }

    /// The number of the function, the same in every process that runs this program.
    pub fn id(&self) -> CodeId {
        P::ROW.id()
    }

    pub(crate) fn with(self, args: A) -> (Function<C, A, R>, A) {
        (self.function, args)
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
impl<P: Site, C: Chare, A: Send + 'static, R: Send + 'static> ByMessage for Apply<P, C, A, R> {}

impl<P: Site, C: Chare, A: Send + 'static, R: Send + 'static> Entry for Apply<P, C, A, R> {
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
