//! What a case gives for each parameter, and what becomes of it: memory of an account, an argument, a part of the outcome.

use super::{Outcome, Random, Sample};
use crate::account::Account;
use crate::args::Arg;
use crate::buffer::DeviceVec;
use crate::error::DeviceError;
use crate::kernel::Kernel;
use crate::launch::Grid;
use crate::param::{Buffers, DevicePod, Each, In, InOut, Maybe, Out, Param, Params, Scalar, Zeroed};

/// What a case gives for the parameter `P`. Not for implementing elsewhere.
///
/// | parameter | given |
/// |---|---|
/// | `In<T>`, `Out<T>`, `InOut<T>`, `Zeroed<T>` | a length (`usize`), for random elements; or the elements (`Vec<T>`) |
/// | `Maybe<P>` | `Option` of what is given for `P` |
/// | `Each<P, N>` | `[_; N]` of what is given for `P` |
/// | a [`Scalar`] | itself |
pub trait Given<P: Param> {
    /// What is kept during the launch.
    #[doc(hidden)]
    type Held;

    #[doc(hidden)]
    type Arg<'h>: Arg<P>;

    #[doc(hidden)]
    fn hold(self, account: &Account, random: &mut Random) -> Result<Self::Held, DeviceError>;

    #[doc(hidden)]
    fn arg(held: &mut Self::Held) -> Self::Arg<'_>;

    /// Adds what was written.
    #[doc(hidden)]
    fn note(held: &Self::Held, account: &Account, outcome: Outcome) -> Result<Outcome, DeviceError>;
}

impl<S: Scalar> Given<S> for S {
    type Held = S;
    type Arg<'h> = S;

    fn hold(self, _: &Account, _: &mut Random) -> Result<S, DeviceError> {
        Ok(self)
    }

    fn arg(held: &mut S) -> S {
        *held
    }

    fn note(_: &S, _: &Account, outcome: Outcome) -> Result<Outcome, DeviceError> {
        Ok(outcome)
    }
}

macro_rules! buffer {
    ($Buffer:ident, $Arg:ty, |$held:ident, $account:ident, $outcome:ident| $note:expr) => {
        impl<T: DevicePod + Sample, C: Contents<T>> Given<$Buffer<T>> for C {
            type Held = DeviceVec<T>;
            type Arg<'h> = $Arg;

            fn hold(self, account: &Account, random: &mut Random) -> Result<DeviceVec<T>, DeviceError> {
                account.upload(self.elements(random))
            }

            fn arg(held: &mut DeviceVec<T>) -> Self::Arg<'_> {
                held
            }

            fn note(
                $held: &DeviceVec<T>,
                $account: &Account,
                $outcome: Outcome,
            ) -> Result<Outcome, DeviceError> {
                $note
            }
        }
    };
}
buffer!(In, &'h DeviceVec<T>, |_held, _account, outcome| Ok(outcome));
buffer!(Out, &'h mut DeviceVec<T>, |held, account, outcome| outcome.add(account, held));
buffer!(InOut, &'h mut DeviceVec<T>, |held, account, outcome| outcome.add(account, held));
buffer!(Zeroed, &'h mut DeviceVec<T>, |held, account, outcome| outcome.add(account, held));

/// What a buffer begins with. Of one that is overwritten too: nothing of it may be left.
#[doc(hidden)]
pub trait Contents<T> {
    #[doc(hidden)]
    fn elements(self, random: &mut Random) -> Vec<T>;
}

impl<T: Sample> Contents<T> for usize {
    fn elements(self, random: &mut Random) -> Vec<T> {
        random.values(self)
    }
}

impl<T> Contents<T> for Vec<T> {
    fn elements(self, _: &mut Random) -> Vec<T> {
        self
    }
}

impl<P: Buffers, G: Given<P>> Given<Maybe<P>> for Option<G> {
    type Held = Option<G::Held>;
    type Arg<'h> = Option<G::Arg<'h>>;

    fn hold(self, account: &Account, random: &mut Random) -> Result<Self::Held, DeviceError> {
        self.map(|given| given.hold(account, random)).transpose()
    }

    fn arg(held: &mut Self::Held) -> Self::Arg<'_> {
        held.as_mut().map(G::arg)
    }

    fn note(held: &Self::Held, account: &Account, outcome: Outcome) -> Result<Outcome, DeviceError> {
        match held {
            Some(held) => G::note(held, account, outcome),
            None => Ok(outcome),
        }
    }
}

impl<P: Buffers, G: Given<P>, const N: usize> Given<Each<P, N>> for [G; N] {
    type Held = [G::Held; N];
    type Arg<'h> = [G::Arg<'h>; N];

    fn hold(self, account: &Account, random: &mut Random) -> Result<Self::Held, DeviceError> {
        let held: Result<Vec<_>, _> = self.into_iter().map(|given| given.hold(account, random)).collect();
        Ok(held?.try_into().unwrap_or_else(|_| unreachable!("as many are held as were given")))
    }

    fn arg(held: &mut Self::Held) -> Self::Arg<'_> {
        held.each_mut().map(G::arg)
    }

    fn note(held: &Self::Held, account: &Account, outcome: Outcome) -> Result<Outcome, DeviceError> {
        held.iter().try_fold(outcome, |outcome, held| G::note(held, account, outcome))
    }
}

/// What a case gives for the parameters `A`: a tuple of as many [`Given`]s. Not for implementing elsewhere.
#[diagnostic::on_unimplemented(
    message = "this is not what a case can give for a kernel with the parameters `{A}`",
    label = "one value per parameter, in a tuple",
    note = "for a buffer its length as a `usize`, or its elements as a `Vec`; for a scalar a value of exactly its type"
)]
pub trait GivenAll<A: Params> {
    /// Launches a kernel on it, waits, and returns what it has written.
    #[doc(hidden)]
    fn launch(
        self,
        kernel: &Kernel<A>,
        grid: Grid,
        account: &Account,
        random: &mut Random,
    ) -> Result<Outcome, DeviceError>;
}

/// Parameters whose arguments can follow from one size: buffers of numbers, and scalars that are numbers. Not for implementing elsewhere.
pub trait FromSize: Params {
    /// What is given.
    #[doc(hidden)]
    type Given: GivenAll<Self>
    where
        Self: Sized;

    #[doc(hidden)]
    fn from_size(len: usize, random: &mut Random) -> Self::Given
    where
        Self: Sized;
}

/// As [`FromSize`], of one parameter.
#[diagnostic::on_unimplemented(
    message = "what to give for the parameter `{Self}` does not follow from a size",
    note = "implement `Sample` for the type, or say what to give: `Case::of`"
)]
pub trait OneFromSize: Param + Sized {
    /// What is given.
    #[doc(hidden)]
    type Given: Given<Self>;

    #[doc(hidden)]
    fn one_from_size(len: usize, random: &mut Random) -> Self::Given;
}

impl<S: Scalar + Sample> OneFromSize for S {
    type Given = S;

    fn one_from_size(_: usize, random: &mut Random) -> S {
        random.value()
    }
}

macro_rules! from_size {
    ($($Buffer:ident)*) => { $(
        impl<T: DevicePod + Sample> OneFromSize for $Buffer<T> {
            type Given = usize;

            fn one_from_size(len: usize, _: &mut Random) -> usize {
                len
            }
        }
    )* };
}
from_size!(In Out InOut Zeroed);

impl<P: Buffers + OneFromSize> OneFromSize for Maybe<P> {
    type Given = Option<P::Given>;

    fn one_from_size(len: usize, random: &mut Random) -> Self::Given {
        (random.below(2) == 1).then(|| P::one_from_size(len, random))
    }
}

impl<P: Buffers + OneFromSize, const N: usize> OneFromSize for Each<P, N> {
    type Given = [P::Given; N];

    fn one_from_size(len: usize, random: &mut Random) -> Self::Given {
        std::array::from_fn(|_| P::one_from_size(len, random))
    }
}

macro_rules! tuple {
    ($($P:ident $G:ident)+) => {
        impl<$($P: Param, $G: Given<$P>),+> GivenAll<($($P,)+)> for ($($G,)+) {
            #[allow(non_snake_case)]
            fn launch(
                self,
                kernel: &Kernel<($($P,)+)>,
                grid: Grid,
                account: &Account,
                random: &mut Random,
            ) -> Result<Outcome, DeviceError> {
                let ($($G,)+) = self;
                $(let mut $G = $G.hold(account, random)?;)+
                account.launch(kernel, grid, ($($G::arg(&mut $G),)+))?;
                let outcome = Outcome::default();
                $(let outcome = $G::note(&$G, account, outcome)?;)+
                Ok(outcome)
            }
        }

        impl<$($P: OneFromSize),+> FromSize for ($($P,)+) {
            type Given = ($($P::Given,)+);

            fn from_size(len: usize, random: &mut Random) -> Self::Given {
                ($($P::one_from_size(len, random),)+)
            }
        }
    };
}

macro_rules! tuples {
    ([$($done:tt)*]) => {};
    ([$($done:tt)*] $P:ident $G:ident $($rest:tt)*) => {
        tuple!($($done)* $P $G);
        tuples!([$($done)* $P $G] $($rest)*);
    };
}
tuples!([] A GA B GB C GC D GD E GE F GF G GG H GH I GI J GJ K GK L GL M GM N GN O GO P GP);
