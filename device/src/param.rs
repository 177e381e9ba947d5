//! The parameters a kernel can declare, and what its Rust source is given for each.
//!
//! A parameter has three faces: the *declaration* in the kernel's type ([`In<T>`], `u32`), the *argument* of
//! a launch (`&DeviceVec<T>`, `3`; see [`Arg`](crate::Arg)), and the *view* in the Rust source (`&[T]`,
//! `u32`). Between the last two stands the *raw* form, an address and a length, which an operation carries to
//! the thread that runs it.

use std::marker::PhantomData;

use bytemuck::{NoUninit, Pod};

/// A kernel parameter: a buffer of `T` that is read. Takes `&DeviceVec<T>` or `&DeviceSlice<T>`; seen as
/// `&[T]`.
pub struct In<T>(PhantomData<fn() -> T>);

/// A kernel parameter: a buffer of `T` of which the kernel writes *every* element, without reading any first.
/// Takes `&mut DeviceVec<T>`; seen as `&mut [T]` of unspecified contents.
pub struct Out<T>(PhantomData<fn() -> T>);

/// A kernel parameter: a buffer of `T` that is read and written. Takes `&mut DeviceVec<T>`; seen as `&mut
/// [T]`.
pub struct InOut<T>(PhantomData<fn() -> T>);

/// A kernel parameter that may be absent. Takes an `Option` of the argument for `P`; seen as an `Option` of
/// its view.
pub struct Maybe<P>(PhantomData<fn() -> P>);

/// `N` kernel parameters of one kind. Takes an array of the arguments for `P`; seen as an array of its views.
pub struct Each<P, const N: usize>(PhantomData<fn() -> P>);

/// What a buffer can be made of: any plain old data that may go between threads. Implemented for all such
/// types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the element of a device buffer",
    note = "elements are plain data: numbers, arrays of them, and `#[repr(C)]` structs that derive `bytemuck::Pod` and \
            `bytemuck::Zeroable`"
)]
pub trait Element: Pod + Send + Sync {}

impl<T: Pod + Send + Sync> Element for T {}

/// A value that is passed to kernels by value.
///
/// It must have the same layout in C, WGSL and Rust: fixed-width numbers, arrays of them, and `#[repr(C)]`
/// structs or `#[repr(u32)]` enums made of them, without padding (which is what [`NoUninit`] checks).
///
/// ```
/// #[derive(Clone, Copy, bytemuck::NoUninit)]
/// #[repr(C)]
/// struct Step {
///     dims: [u32; 3],
///     face: u32,
/// }
/// impl chare_device::Scalar for Step {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a kernel's scalar",
    note = "scalars have a fixed width: use u32 or u64 for usize, u32 for bool; for your own struct: `#[repr(C)]`, derive \
            `bytemuck::NoUninit`, then `impl Scalar for ..{{}}`"
)]
pub trait Scalar: NoUninit + Send {}

macro_rules! scalars {
    ($($number:ty)*) => { $(
        impl Scalar for $number {}
        impl Scalar for [$number; 2] {}
        impl Scalar for [$number; 3] {}
        impl Scalar for [$number; 4] {}
        impl Scalar for [$number; 6] {}
        impl Scalar for [$number; 8] {}
    )* };
}
scalars!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// One declared parameter of a kernel. Not for implementing elsewhere; implement [`Scalar`] instead.
///
/// # Safety
///
/// `view` makes a view of the raw form and of nothing else.
#[diagnostic::on_unimplemented(
    message = "a kernel cannot have a parameter of type `{Self}`",
    note = "a buffer is `In<T>`, `Out<T>` or `InOut<T>` (or `Maybe` or `Each` of these); a value is a `Scalar`"
)]
pub unsafe trait Param: 'static {
    /// What an operation carries: an address and a length, or the value itself.
    #[doc(hidden)]
    type Raw: Copy + Send + 'static;

    /// What the Rust source is given.
    type View<'v>;

    /// # Safety
    ///
    /// For `'v` the memory of `raw` is valid, not written by anybody else, and not used at all by anybody
    /// else if this parameter writes it.
    #[doc(hidden)]
    unsafe fn view<'v>(raw: Self::Raw) -> Self::View<'v>;
}

/// The raw form of a buffer.
pub struct RawBuffer<T> {
    pub(crate) address: *mut T,
    pub(crate) len: usize,
}

impl<T> Clone for RawBuffer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RawBuffer<T> {}

// SAFETY: it is an address; who makes a view of it answers for the use (`Param::view`). Elements may go
// between threads.
unsafe impl<T: Element> Send for RawBuffer<T> {}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<S: Scalar> Param for S {
    type Raw = S;
    type View<'v> = S;

    #[inline(always)]
    unsafe fn view<'v>(raw: S) -> Self::View<'v> {
        raw
    }
}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<T: Element> Param for In<T> {
    type Raw = RawBuffer<T>;
    type View<'v> = &'v [T];

    #[inline(always)]
    unsafe fn view<'v>(raw: RawBuffer<T>) -> &'v [T] {
        // SAFETY: valid and not written for 'v, by the caller; device memory is aligned to 256 and always
        // initialised.
        unsafe { std::slice::from_raw_parts(raw.address, raw.len) }
    }
}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<T: Element> Param for Out<T> {
    type Raw = RawBuffer<T>;
    type View<'v> = &'v mut [T];

    #[inline(always)]
    unsafe fn view<'v>(raw: RawBuffer<T>) -> &'v mut [T] {
        // SAFETY: valid and used by nobody else for 'v, by the caller; aligned and initialised as above.
        unsafe { std::slice::from_raw_parts_mut(raw.address, raw.len) }
    }
}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<T: Element> Param for InOut<T> {
    type Raw = RawBuffer<T>;
    type View<'v> = &'v mut [T];

    #[inline(always)]
    unsafe fn view<'v>(raw: RawBuffer<T>) -> &'v mut [T] {
        // SAFETY: as for `Out`.
        unsafe { std::slice::from_raw_parts_mut(raw.address, raw.len) }
    }
}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<P: Param> Param for Maybe<P> {
    type Raw = Option<P::Raw>;
    type View<'v> = Option<P::View<'v>>;

    #[inline(always)]
    unsafe fn view<'v>(raw: Self::Raw) -> Self::View<'v> {
        // SAFETY: what holds for `raw` holds for what is in it.
        raw.map(|raw| unsafe { P::view(raw) })
    }
}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<P: Param, const N: usize> Param for Each<P, N> {
    type Raw = [P::Raw; N];
    type View<'v> = [P::View<'v>; N];

    #[inline(always)]
    unsafe fn view<'v>(raw: Self::Raw) -> Self::View<'v> {
        // SAFETY: what holds for `raw` holds for each in it.
        raw.map(|raw| unsafe { P::view(raw) })
    }
}

/// A kernel's whole parameter list: a tuple of one to sixteen [`Param`]s. Not for implementing elsewhere.
///
/// # Safety
///
/// As [`Param`], for each parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kernel's parameter list",
    note = "a parameter list is a tuple of 1 to 16 of `In<T>`, `Out<T>`, `InOut<T>`, `Maybe`, `Each` and scalars"
)]
pub unsafe trait Params: 'static {
    #[doc(hidden)]
    type Raw: Copy + Send + 'static;

    /// The tuple of views that the Rust source is given.
    type Views<'v>;

    /// # Safety
    ///
    /// As for [`Param::view`], for each parameter.
    #[doc(hidden)]
    unsafe fn views<'v>(raw: Self::Raw) -> Self::Views<'v>;
}

macro_rules! params {
    ($($P:ident)+) => {
        // SAFETY: as its parameters.
        unsafe impl<$($P: Param),+> Params for ($($P,)+) {
            type Raw = ($($P::Raw,)+);
            type Views<'v> = ($($P::View<'v>,)+);

            #[inline(always)]
            unsafe fn views<'v>(raw: Self::Raw) -> Self::Views<'v> {
                #[allow(non_snake_case)]
                let ($($P,)+) = raw;
                // SAFETY: the caller promises for each parameter what `view` asks.
                ($(unsafe { $P::view($P) },)+)
            }
        }
    };
}

/// Calls a macro with each list of one to sixteen names.
macro_rules! for_each_tuple {
    ($then:ident) => { for_each_tuple!($then: [] A B C D E F G H I J K L M N O P); };
    ($then:ident: [$($done:tt)*]) => {};
    ($then:ident: [$($done:tt)*] $next:ident $($rest:ident)*) => {
        $then!($($done)* $next);
        for_each_tuple!($then: [$($done)* $next] $($rest)*);
    };
}
pub(crate) use for_each_tuple;

for_each_tuple!(params);
