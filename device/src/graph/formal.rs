//! The parameters of a graph while it is recorded, and what may be passed for which parameter of a kernel in it.
//!
//! A graph has the parameters of a kernel, and is replayed with the arguments of one. Until then there are no buffers: what the steps are
//! given are [`Formal`]s, which name a parameter. They have its type, so that what a step does to a buffer is checked as it is for
//! a plain launch; and they have a lifetime that belongs to one recording, so none gets into another one.

use std::marker::PhantomData;

use super::plan::StepArguments;
use crate::arguments::Slots;
use crate::operation::AccessMode;
use crate::param::{
    Buffers, DevicePod, Each, In, InOut, Maybe, Out, Param, Params, Scalar, Zeroed, for_each_tuple,
};

/// A buffer's arguments: what names its block, and its length.
const BUFFER: (usize, usize) = (16, 8);

/// A parameter of a graph that is being recorded. Steps take it in the place of an argument: `&` of one where they read a
/// buffer or want a scalar, `&mut` of one that the graph may write where they write.
pub struct Formal<'g, P> {
    /// Where it stands in the arguments.
    offset: usize,
    /// Of a buffer: its place among the graph's buffers.
    pub(crate) buffer: usize,
    brand: Brand<'g>,
    param: PhantomData<fn() -> P>,
}

/// Of one recording, and not of any other.
pub(crate) type Brand<'g> = PhantomData<fn(&'g ()) -> &'g ()>;

/// Hands out the parameters of a graph in their order.
pub struct Formals {
    slots: std::vec::IntoIter<crate::arguments::Slot>,
    buffer_count: usize,
}

impl Formals {
    pub(crate) fn of(slots: Slots) -> Self {
        Formals { slots: slots.list.into_iter(), buffer_count: 0 }
    }

    fn next<'g, P>(&mut self) -> Formal<'g, P> {
        let slot = self.slots.next().expect("each parameter has its slot");
        let buffer = self.buffer_count;
        self.buffer_count += usize::from(slot.buffer.is_some());
        Formal { offset: slot.offset, buffer, brand: PhantomData, param: PhantomData }
    }
}

/// A [`Param`] that a graph can have: a buffer that is always there, `Each` of these, or a [`Scalar`]. Not for implementing
/// elsewhere.
///
/// # Safety
///
/// `formal` takes as many slots as the parameter describes, and gives them its type.
#[diagnostic::on_unimplemented(
    message = "a graph cannot have a parameter of type `{Self}`",
    note = "a graph's parameters are `In<T>`, `Out<T>`, `InOut<T>`, `Zeroed<T>`, `Each` of these, and scalars"
)]
pub unsafe trait FormalParam: Param {
    /// What stands for it while a graph is recorded.
    type Formal<'g>;

    #[doc(hidden)]
    fn formal<'g>(formals: &mut Formals) -> Self::Formal<'g>;
}

// SAFETY: it is one slot, of this parameter.
unsafe impl<S: Scalar> FormalParam for S {
    type Formal<'g> = Formal<'g, S>;

    fn formal<'g>(formals: &mut Formals) -> Formal<'g, S> {
        formals.next()
    }
}

/// A buffer of a graph. Not for implementing elsewhere.
///
/// # Safety
///
/// It is one buffer, of elements of this type.
pub unsafe trait BufferParam: FormalParam {
    /// What the buffer is made of.
    type DevicePod: DevicePod;
}

/// A buffer that a graph may write. Not for implementing elsewhere.
///
/// # Safety
///
/// Its argument is borrowed mutably.
pub unsafe trait WrittenParam: BufferParam {}

macro_rules! formal_buffer {
    ($($Buffer:ident)*) => { $(
        // SAFETY: it is one slot, of this parameter.
        unsafe impl<T: DevicePod> FormalParam for $Buffer<T> {
            type Formal<'g> = Formal<'g, $Buffer<T>>;

            fn formal<'g>(formals: &mut Formals) -> Formal<'g, $Buffer<T>> {
                formals.next()
            }
        }

        // SAFETY: it is a buffer of `T`.
        unsafe impl<T: DevicePod> BufferParam for $Buffer<T> {
            type DevicePod = T;
        }

        // SAFETY: what is put is a buffer of `T`, which may be read.
        unsafe impl<'g, T: DevicePod> StepArg<'g, In<T>> for &Formal<'g, $Buffer<T>> {
            fn put(self, step: &mut StepArguments) {
                step.push_from(self.offset, BUFFER.0, BUFFER.1);
                step.uses.push((self.buffer, AccessMode::Read));
            }
        }
    )* };
}

// SAFETY: they are the slots of as many parameters.
unsafe impl<P: FormalParam + Buffers, const N: usize> FormalParam for Each<P, N> {
    type Formal<'g> = [P::Formal<'g>; N];

    fn formal<'g>(formals: &mut Formals) -> Self::Formal<'g> {
        std::array::from_fn(|_| P::formal(formals))
    }
}

/// What a step of a graph can be given for the parameter `P` of its kernel. Not for implementing elsewhere.
///
/// | parameter | argument |
/// |---|---|
/// | `In<T>` | `&Formal` of any buffer of `T` |
/// | `Out<T>`, `InOut<T>`, `Zeroed<T>` | `&mut Formal` of an `Out<T>`, `InOut<T>` or `Zeroed<T>` of the graph |
/// | `Maybe<P>` | `Option` of an argument for `P` |
/// | `Each<P, N>` | `[_; N]` of arguments for `P` |
/// | a [`Scalar`] | a value, which is the same in every replay, or `&Formal` of one of the graph |
///
/// ```compile_fail,E0277
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", |_: &Launch, (out, x): (&mut [f64], f64)| out.fill(x));
/// fn what_is_read_only(account: &Account) {
///     let graph = account.record::<(In<f64>,)>("g", |recording, (x,)| recording.launch(&FILL, 8, (&x, 1.0)));
/// }
/// ```
/// ```compile_fail
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", |_: &Launch, (out, x): (&mut [f64], f64)| out.fill(x));
/// fn of_another_recording(account: &Account) {
///     let graph = account.record::<(InOut<f64>,)>("outer", |_, (mut x,)| {
///         account.record::<(InOut<f64>,)>("inner", |recording, _| recording.launch(&FILL, 8, (&mut x, 1.0)))?;
///         Ok(())
///     });
/// }
/// ```
/// What is wrong in these is only what they are named for; this compiles:
/// ```
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", |_: &Launch, (out, x): (&mut [f64], f64)| out.fill(x));
/// fn right(account: &Account) {
///     let graph = account.record::<(InOut<f64>,)>("g", |recording, (mut x,)| recording.launch(&FILL, 8, (&mut x, 1.0)));
/// }
/// ```
///
/// # Safety
///
/// `put` puts one argument of the type `P`: for a parameter that writes, of a buffer that the graph may write and that is borrowed
/// mutably, so that it occurs once; and lists every buffer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed in a graph where the kernel takes `{P}`",
    label = "wrong argument for the parameter `{P}`",
    note = "`In<T>` takes `&` of a buffer of the graph; `Out<T>`, `InOut<T>` and `Zeroed<T>` take `&mut` of one that the graph may \
            write; a scalar is a value of exactly the declared type, or `&` of a parameter of the graph"
)]
pub unsafe trait StepArg<'g, P: Param> {
    #[doc(hidden)]
    fn put(self, step: &mut StepArguments);
}

formal_buffer!(In Out InOut Zeroed);

macro_rules! step_writes {
    ($($Formal:ident: $($Param:ident $mode:expr),*;)*) => { $(
        // SAFETY: it takes `&mut`.
        unsafe impl<T: DevicePod> WrittenParam for $Formal<T> {}
        $(
            // SAFETY: what is put is a buffer of `T`, which may be written, and is borrowed mutably.
            unsafe impl<'g, T: DevicePod> StepArg<'g, $Param<T>> for &mut Formal<'g, $Formal<T>> {
                fn put(self, step: &mut StepArguments) {
                    step.push_from(self.offset, BUFFER.0, BUFFER.1);
                    step.uses.push((self.buffer, $mode));
                }
            }
        )*
    )* };
}
step_writes! {
    Out: Out AccessMode::Overwrite, InOut AccessMode::Update, Zeroed AccessMode::Zeroed;
    InOut: Out AccessMode::Overwrite, InOut AccessMode::Update, Zeroed AccessMode::Zeroed;
    Zeroed: Out AccessMode::Overwrite, InOut AccessMode::Update, Zeroed AccessMode::Zeroed;
}

// SAFETY: what is put is an `S`.
unsafe impl<'g, S: Scalar> StepArg<'g, S> for S {
    fn put(self, step: &mut StepArguments) {
        S::pack(self, step.template());
    }
}

// SAFETY: what is put is an `S`.
unsafe impl<'g, S: Scalar> StepArg<'g, S> for &Formal<'g, S> {
    fn put(self, step: &mut StepArguments) {
        step.push_from(self.offset, size_of::<S>(), align_of::<S>());
    }
}

// SAFETY: what is put is a `P`, or the absence of one.
unsafe impl<'g, P: Buffers, X: StepArg<'g, P>> StepArg<'g, Maybe<P>> for Option<X> {
    fn put(self, step: &mut StepArguments) {
        match self {
            Some(argument) => argument.put(step),
            None => P::pack(P::ABSENT, step.template()),
        }
    }
}

// SAFETY: what is put are `N` times `P`.
unsafe impl<'g, P: Buffers, X: StepArg<'g, P>, const N: usize> StepArg<'g, Each<P, N>> for [X; N] {
    fn put(self, step: &mut StepArguments) {
        self.into_iter().for_each(|argument| argument.put(step));
    }
}

/// The parameters of a graph: a tuple of one to sixteen [`FormalParam`]s. Not for implementing elsewhere.
///
/// # Safety
///
/// As [`FormalParam`], for each parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a graph's parameter list",
    note = "a parameter list is a tuple of 1 to 16 of `In<T>`, `Out<T>`, `InOut<T>`, `Zeroed<T>`, `Each` of these, and scalars"
)]
pub unsafe trait FormalParams: Params {
    /// What stands for them while a graph is recorded.
    type Formals<'g>;

    #[doc(hidden)]
    fn formals<'g>(formals: &mut Formals) -> Self::Formals<'g>;
}

/// What a step is given for the parameters `A` of its kernel: a tuple of as many [`StepArg`]s. Not for implementing elsewhere.
///
/// # Safety
///
/// As [`StepArg`], for each argument.
#[diagnostic::on_unimplemented(
    message = "these are not the arguments of a kernel with the parameters `{A}`, in a graph",
    label = "one argument per parameter, in a tuple",
    note = "the kernel's parameters are `{A}`; the arguments given are `{Self}`"
)]
pub unsafe trait StepArgs<'g, A: Params> {
    #[doc(hidden)]
    fn put(self, step: &mut StepArguments);
}

macro_rules! formals {
    ($($P:ident)+) => {
        // SAFETY: as its parameters.
        unsafe impl<$($P: FormalParam),+> FormalParams for ($($P,)+) {
            type Formals<'g> = ($($P::Formal<'g>,)+);

            fn formals<'g>(formals: &mut Formals) -> Self::Formals<'g> {
                ($($P::formal(formals),)+)
            }
        }
    };
}
for_each_tuple!(formals);

macro_rules! step_args {
    ($($P:ident)+) => { step_args!(@ $($P)+; $($P)+; XA XB XC XD XE XF XG XH XI XJ XK XL XM XN XO XP;); };
    (@ $Next:ident $($Left:ident)*; $($P:ident)+; $X:ident $($XLeft:ident)*; $($Xs:ident)*) => {
        step_args!(@ $($Left)*; $($P)+; $($XLeft)*; $($Xs)* $X);
    };
    (@ ; $($P:ident)+; $($XLeft:ident)*; $($X:ident)+) => {
        // SAFETY: as its arguments.
        unsafe impl<'g, $($P: Param, $X: StepArg<'g, $P>),+> StepArgs<'g, ($($P,)+)> for ($($X,)+) {
            #[allow(non_snake_case)]
            fn put(self, step: &mut StepArguments) {
                let ($($X,)+) = self;
                $(<$X as StepArg<'g, $P>>::put($X, step);)+
            }
        }
    };
}
for_each_tuple!(step_args);
