//! The arguments of a launch: what may be passed for which parameter, and the snapshot rule.
//!
//! An argument goes through four steps. `bind` borrows it. `check` looks whether it is on the right device;
//! for a buffer that is written while shares of it live it also reserves other memory, and what is elsewhere is copied here
//! (`branch`). No handle has changed yet, so a launch that fails here leaves every argument as it was. `commit` cannot fail: it puts the
//! reserved memory in place and returns the raw form. `visit` lists the buffers for ordering and faults. All
//! are generic over the argument, so that in the usual case (nothing shared, nothing spoiled) they melt into
//! a few loads and compares; the only step that can fail passes nothing on, so that the loads of all buffers,
//! each in a cache line of its own, are under way together.

use std::sync::Arc;

use crate::branch::Branch;
use crate::buffer::{DeviceSlice, DeviceVec};
use crate::error::DeviceError;
use crate::memory::{Memory, MemoryRef};
use crate::operation::AccessMode;
use crate::param::{
    Buffers, DevicePod, Each, In, InOut, Maybe, Out, Param, Params, RawBuffer, Scalar, Zeroed, for_each_tuple,
};

/// One buffer of a bound argument, as `visit` shows it.
#[derive(Clone, Copy)]
pub struct Used<'a> {
    pub(crate) memory: &'a MemoryRef,
    pub(crate) mode: AccessMode,
    pub(crate) copy_from: Option<&'a MemoryRef>,
}

/// What can be passed to a launch for the parameter `P`. Not for implementing elsewhere.
///
/// | parameter | argument |
/// |---|---|
/// | `In<T>` | `&DeviceVec<T>`, `&DeviceSlice<T>` |
/// | `Out<T>`, `InOut<T>`, `Zeroed<T>` | `&mut DeviceVec<T>` |
/// | `Maybe<P>` | `Option` of an argument for `P` |
/// | `Each<P, N>` | `[_; N]` of arguments for `P` |
/// | a [`Scalar`] | itself |
///
/// ```compile_fail
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", fill);
/// # fn fill(_: &Launch, (out, value): (&mut [f64], f64)) { out.fill(value) }
/// fn written_but_not_mut(account: &Account, buffer: &DeviceVec<f64>) {
///     account.launch(&FILL, 8, (buffer, 1.0)).unwrap();
/// }
/// ```
/// ```compile_fail
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", fill);
/// # fn fill(_: &Launch, (out, value): (&mut [f64], f64)) { out.fill(value) }
/// fn wrong_element(account: &Account, buffer: &mut DeviceVec<f32>) {
///     account.launch(&FILL, 8, (buffer, 1.0)).unwrap();
/// }
/// ```
/// ```compile_fail
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", fill);
/// # fn fill(_: &Launch, (out, value): (&mut [f64], f64)) { out.fill(value) }
/// fn wrong_scalar(account: &Account, buffer: &mut DeviceVec<f64>) {
///     account.launch(&FILL, 8, (buffer, 1u32)).unwrap();
/// }
/// ```
/// ```compile_fail
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", fill);
/// # fn fill(_: &Launch, (out, value): (&mut [f64], f64)) { out.fill(value) }
/// fn missing_argument(account: &Account, buffer: &mut DeviceVec<f64>) {
///     account.launch(&FILL, 8, (buffer,)).unwrap();
/// }
/// ```
/// ```compile_fail
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", fill);
/// # fn fill(_: &Launch, (out, value): (&mut [f64], f64)) { out.fill(value) }
/// fn a_share_is_read_only(account: &Account, buffer: &mut DeviceSlice<f64>) {
///     account.launch(&FILL, 8, (buffer, 1.0)).unwrap();
/// }
/// ```
/// ```compile_fail
/// # use chare_device::*;
/// const SWAP: Kernel<(Out<f64>, Out<f64>)> = Kernel::new("swap", swap);
/// # fn swap(_: &Launch, (a, b): (&mut [f64], &mut [f64])) { a.swap_with_slice(b) }
/// fn written_twice(account: &Account, buffer: &mut DeviceVec<f64>) {
///     account.launch(&SWAP, 8, (&mut *buffer, &mut *buffer)).unwrap();
/// }
/// ```
/// What is wrong in these is only what they are named for; this compiles:
/// ```
/// # use chare_device::*;
/// # const FILL: Kernel<(Out<f64>, f64)> = Kernel::new("fill", fill);
/// # fn fill(_: &Launch, (out, value): (&mut [f64], f64)) { out.fill(value) }
/// fn right(account: &Account, buffer: &mut DeviceVec<f64>) {
///     account.launch(&FILL, 8, (buffer, 1.0)).unwrap();
/// }
/// ```
///
/// # Safety
///
/// `commit` returns the raw form of what was bound and has passed `check`; for a parameter that writes, of memory that is borrowed
/// mutably for as long as it is bound and occurs once. `visit` shows every buffer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed where the kernel takes `{P}`",
    label = "wrong argument for the parameter `{P}`",
    note = "`In<T>` takes `&DeviceVec<T>` or `&DeviceSlice<T>`; `Out<T>`, `InOut<T>` and `Zeroed<T>` take `&mut DeviceVec<T>`; a scalar \
            is passed by value and has exactly the declared type"
)]
pub unsafe trait Arg<P: Param> {
    #[doc(hidden)]
    type Bound;

    #[doc(hidden)]
    fn bind(self) -> Self::Bound;

    #[doc(hidden)]
    fn check(bound: &mut Self::Bound, branch: &Arc<Branch>) -> Result<(), DeviceError>;

    #[doc(hidden)]
    fn commit(bound: &mut Self::Bound) -> P::Raw;

    #[doc(hidden)]
    fn visit<F: FnMut(Used<'_>)>(bound: &Self::Bound, each: &mut F);
}

// SAFETY: what is committed is what was bound and checked, as the parameter's type, once a launch.
unsafe impl<S: Scalar> Arg<S> for S {
    type Bound = S;

    #[inline(always)]
    fn bind(self) -> S {
        self
    }

    #[inline(always)]
    fn check(_: &mut S, _: &Arc<Branch>) -> Result<(), DeviceError> {
        Ok(())
    }

    #[inline(always)]
    fn commit(bound: &mut S) -> S {
        *bound
    }

    #[inline(always)]
    fn visit<F: FnMut(Used<'_>)>(_: &S, _: &mut F) {}
}

#[inline(always)]
fn raw<T: DevicePod>(memory: &Memory) -> RawBuffer<T> {
    RawBuffer { block: memory.block().address().as_ptr().cast(), len: memory.len_elems() }
}

/// A buffer that is read, and the copy of it that is used if it is on another device.
pub struct Read<'x> {
    memory: &'x MemoryRef,
    here: Option<MemoryRef>,
}

impl Read<'_> {
    #[inline(always)]
    fn check(&mut self, branch: &Arc<Branch>) -> Result<(), DeviceError> {
        if !branch.is_here(self.memory) {
            self.here = Some(branch.brought(self.memory)?);
        }
        Ok(())
    }

    #[inline(always)]
    fn memory(&self) -> &MemoryRef {
        self.here.as_ref().unwrap_or(self.memory)
    }
}

macro_rules! read_argument {
    ($Buffer:ident) => {
        // SAFETY: what is committed is what was bound and checked, as the parameter's type, once a launch.
        unsafe impl<'x, T: DevicePod> Arg<In<T>> for &'x $Buffer<T> {
            type Bound = Read<'x>;

            #[inline(always)]
            fn bind(self) -> Read<'x> {
                Read { memory: self.memory(), here: None }
            }

            #[inline(always)]
            fn check(bound: &mut Read<'x>, branch: &Arc<Branch>) -> Result<(), DeviceError> {
                bound.check(branch)
            }

            #[inline(always)]
            fn commit(bound: &mut Read<'x>) -> RawBuffer<T> {
                raw(bound.memory())
            }

            #[inline(always)]
            fn visit<F: FnMut(Used<'_>)>(bound: &Read<'x>, each: &mut F) {
                each(Used { memory: bound.memory(), mode: AccessMode::Read, copy_from: None });
            }
        }
    };
}
read_argument!(DeviceVec);
read_argument!(DeviceSlice);

/// A buffer that is written, and the other memory it changes to if it is shared or comes from another device.
pub struct Written<'x, T> {
    buffer: &'x mut DeviceVec<T>,
    /// From `check` to `commit`: the memory to change to. After it: the memory that was left behind.
    other: Option<MemoryRef>,
    /// Whether what was left behind is still to be copied.
    is_snapshot: bool,
}

impl<'x, T: DevicePod> Written<'x, T> {
    #[inline(always)]
    pub(crate) fn new(buffer: &'x mut DeviceVec<T>) -> Self {
        Written { buffer, other: None, is_snapshot: false }
    }

    /// Sees to it that the buffer can be overwritten.
    pub(crate) fn overwrite(mut self, branch: &Arc<Branch>) -> Result<(), DeviceError> {
        self.check(branch, false)?;
        self.commit();
        Ok(())
    }

    #[inline(always)]
    fn check(&mut self, branch: &Arc<Branch>, copies: bool) -> Result<(), DeviceError> {
        let memory = self.buffer.memory();
        if branch.is_here(memory) && memory.is_sole() { Ok(()) } else { self.prepare(branch, copies) }
    }

    #[cold]
    #[inline(never)]
    fn prepare(&mut self, branch: &Arc<Branch>, copies: bool) -> Result<(), DeviceError> {
        let memory = self.buffer.memory();
        branch.check_same_set(memory)?;
        let is_here = branch.is_here(memory);
        if is_here && memory.is_unshared() {
            // It is about to have other contents than its copies elsewhere.
            memory.forget_twins();
        } else if !is_here && copies {
            self.other = Some(branch.moved(memory)?);
        } else {
            self.other = Some(branch.reserve::<T>(memory.shape())?.0);
            self.is_snapshot = copies;
        }
        Ok(())
    }

    #[inline(always)]
    fn commit(&mut self) -> RawBuffer<T> {
        if let Some(memory) = self.other.take() {
            self.other = Some(self.buffer.replace(memory));
        }
        raw(self.buffer.memory())
    }

    /// What is copied into the buffer before it is written.
    #[inline(always)]
    fn copy_from(&self) -> Option<&MemoryRef> {
        if self.is_snapshot { self.other.as_ref() } else { None }
    }
}

macro_rules! written_argument {
    ($Param:ident, $mode:expr, $copies:expr) => {
        // SAFETY: what is committed is what was bound and checked, as the parameter's type, once a launch.
        unsafe impl<'x, T: DevicePod> Arg<$Param<T>> for &'x mut DeviceVec<T> {
            type Bound = Written<'x, T>;

            #[inline(always)]
            fn bind(self) -> Written<'x, T> {
                Written::new(self)
            }

            #[inline(always)]
            fn check(bound: &mut Written<'x, T>, branch: &Arc<Branch>) -> Result<(), DeviceError> {
                bound.check(branch, $copies)
            }

            #[inline(always)]
            fn commit(bound: &mut Written<'x, T>) -> RawBuffer<T> {
                bound.commit()
            }

            #[inline(always)]
            fn visit<F: FnMut(Used<'_>)>(bound: &Written<'x, T>, each: &mut F) {
                let copy_from = if $copies { bound.copy_from() } else { None };
                each(Used { memory: bound.buffer.memory(), mode: $mode, copy_from });
            }
        }
    };
}
written_argument!(Out, AccessMode::Overwrite, false);
written_argument!(Zeroed, AccessMode::Zeroed, false);
written_argument!(InOut, AccessMode::Update, true);

// SAFETY: what is committed is what was bound and checked, as the parameter's type, once a launch.
unsafe impl<P: Buffers, A: Arg<P>> Arg<Maybe<P>> for Option<A> {
    type Bound = Option<A::Bound>;

    #[inline(always)]
    fn bind(self) -> Self::Bound {
        self.map(A::bind)
    }

    #[inline(always)]
    fn check(bound: &mut Self::Bound, branch: &Arc<Branch>) -> Result<(), DeviceError> {
        bound.as_mut().map_or(Ok(()), |bound| A::check(bound, branch))
    }

    #[inline(always)]
    fn commit(bound: &mut Self::Bound) -> Option<P::Raw> {
        bound.as_mut().map(A::commit)
    }

    #[inline(always)]
    fn visit<F: FnMut(Used<'_>)>(bound: &Self::Bound, each: &mut F) {
        if let Some(bound) = bound {
            A::visit(bound, each);
        }
    }
}

// SAFETY: what is committed is what was bound and checked, as the parameter's type, once a launch.
unsafe impl<P: Buffers, A: Arg<P>, const N: usize> Arg<Each<P, N>> for [A; N] {
    type Bound = [A::Bound; N];

    #[inline(always)]
    fn bind(self) -> Self::Bound {
        self.map(A::bind)
    }

    #[inline(always)]
    fn check(bound: &mut Self::Bound, branch: &Arc<Branch>) -> Result<(), DeviceError> {
        bound.iter_mut().try_for_each(|bound| A::check(bound, branch))
    }

    #[inline(always)]
    fn commit(bound: &mut Self::Bound) -> [P::Raw; N] {
        bound.each_mut().map(A::commit)
    }

    #[inline(always)]
    fn visit<F: FnMut(Used<'_>)>(bound: &Self::Bound, each: &mut F) {
        for bound in bound {
            A::visit(bound, each);
        }
    }
}

/// The arguments of a launch of a kernel with the parameters `A`: a tuple of as many [`Arg`]s. Not for
/// implementing elsewhere.
///
/// # Safety
///
/// As [`Arg`], for each argument.
#[diagnostic::on_unimplemented(
    message = "these are not the arguments of a kernel with the parameters `{A}`",
    label = "one argument per parameter, in a tuple",
    note = "the kernel's parameters are `{A}`; the arguments given are `{Self}`"
)]
pub unsafe trait Args<A: Params> {
    #[doc(hidden)]
    type Bound;

    #[doc(hidden)]
    fn bind(self) -> Self::Bound;

    #[doc(hidden)]
    fn check(bound: &mut Self::Bound, branch: &Arc<Branch>) -> Result<(), DeviceError>;

    #[doc(hidden)]
    fn commit(bound: &mut Self::Bound) -> A::Raw;

    #[doc(hidden)]
    fn visit<F: FnMut(Used<'_>)>(bound: &Self::Bound, each: &mut F);
}

macro_rules! args {
    ($($P:ident)+) => { args!(@ $($P)+; $($P)+; XA XB XC XD XE XF XG XH XI XJ XK XL XM XN XO XP;); };
    (@ $Next:ident $($Left:ident)*; $($P:ident)+; $X:ident $($XLeft:ident)*; $($Xs:ident)*) => {
        args!(@ $($Left)*; $($P)+; $($XLeft)*; $($Xs)* $X);
    };
    (@ ; $($P:ident)+; $($XLeft:ident)*; $($X:ident)+) => {
        // SAFETY: as its arguments.
        unsafe impl<$($P: Param, $X: Arg<$P>),+> Args<($($P,)+)> for ($($X,)+) {
            type Bound = ($($X::Bound,)+);

            #[inline(always)]
            #[allow(non_snake_case)]
            fn bind(self) -> Self::Bound {
                let ($($X,)+) = self;
                ($($X.bind(),)+)
            }

            #[inline(always)]
            #[allow(non_snake_case)]
            fn check(bound: &mut Self::Bound, branch: &Arc<Branch>) -> Result<(), DeviceError> {
                let ($($X,)+) = bound;
                $(<$X as Arg<$P>>::check($X, branch)?;)+
                Ok(())
            }

            #[inline(always)]
            #[allow(non_snake_case)]
            fn commit(bound: &mut Self::Bound) -> ($($P::Raw,)+) {
                let ($($X,)+) = bound;
                ($(<$X as Arg<$P>>::commit($X),)+)
            }

            #[inline(always)]
            #[allow(non_snake_case)]
            fn visit<EACH: FnMut(Used<'_>)>(bound: &Self::Bound, each: &mut EACH) {
                let ($($X,)+) = bound;
                $(<$X as Arg<$P>>::visit($X, each);)+
            }
        }
    };
}

for_each_tuple!(args);
