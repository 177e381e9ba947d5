//! The parameters a kernel can declare, and what its Rust source is given for each.
//!
//! A parameter has three faces: the *declaration* in the kernel's type ([`In<T>`], `u32`), the *argument* of
//! a launch (`&DeviceVec<T>`, `3`; see [`Arg`](crate::Arg)), and the *view* in the Rust source (`&[T]`,
//! `u32`). Between the last two stands the *raw* form, the name of a block and a length. Where a launch is a call of
//! a function it goes straight into views; an operation carries it as [`Arguments`].

use std::marker::PhantomData;

use bytemuck::{NoUninit, Pod};

use crate::arguments::{Arguments, MAX_ALIGN, Reader, Slots};
use crate::operation::AccessMode;

/// A kernel parameter: a buffer of `T` that is read. Takes `&DeviceVec<T>` or `&DeviceSlice<T>`; seen as
/// `&[T]`.
pub struct In<T>(PhantomData<fn() -> T>);

/// A kernel parameter: a buffer of `T` of which the kernel writes *every* element, without reading any first.
/// Takes `&mut DeviceVec<T>`; seen as `&mut [T]` of unspecified contents.
pub struct Out<T>(PhantomData<fn() -> T>);

/// A kernel parameter: a buffer of `T` that is read and written. Takes `&mut DeviceVec<T>`; seen as `&mut
/// [T]`.
pub struct InOut<T>(PhantomData<fn() -> T>);

/// A kernel parameter: a buffer of `T` that is full of zeros when the kernel begins, for sums and counts that many
/// threads add to. Takes `&mut DeviceVec<T>`, whose former contents are gone; seen as `&mut [T]`.
pub struct Zeroed<T>(PhantomData<fn() -> T>);

/// A kernel parameter, a buffer or a group of them, that may be absent. Takes an `Option` of the argument for `P`; seen as an `Option` of
/// its view.
pub struct Maybe<P>(PhantomData<fn() -> P>);

/// `N` kernel parameters of one kind, buffers or groups of them. Takes an array of the arguments for `P`; seen as an array of its views.
pub struct Each<P, const N: usize>(PhantomData<fn() -> P>);

/// What a buffer can be made of: any plain old data that may go between threads. Implemented for all such
/// types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the element of a device buffer",
    note = "elements are plain data: numbers, arrays of them, and `#[repr(C)]` structs that derive `bytemuck::Pod` and \
            `bytemuck::Zeroable`"
)]
pub trait DevicePod: Pod + Send + Sync {}

impl<T: Pod + Send + Sync> DevicePod for T {}

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
    note = "a buffer is `In<T>`, `Out<T>`, `InOut<T>` or `Zeroed<T>` (or `Maybe` or `Each` of these); a value is a `Scalar`"
)]
pub unsafe trait Param: 'static {
    /// What names a block, and a length, or the value itself.
    #[doc(hidden)]
    type Raw: Copy + Send + 'static;

    /// What the Rust source is given.
    type View<'v>;

    /// # Safety
    ///
    /// The blocks of `raw` are named by addresses, and for `'v` the memory is valid, not written by anybody else, and not
    /// used at all by anybody else if this parameter writes it.
    #[doc(hidden)]
    unsafe fn view<'v>(raw: Self::Raw) -> Self::View<'v>;

    /// Appends the raw form to the arguments of an operation.
    #[doc(hidden)]
    fn pack(raw: Self::Raw, arguments: &mut Arguments);

    /// Takes it out again.
    ///
    /// # Safety
    ///
    /// What comes next in `arguments` is of this parameter.
    #[doc(hidden)]
    unsafe fn unpack(arguments: &mut Reader<'_>) -> Self::Raw;

    /// Says where in the arguments it stands.
    #[doc(hidden)]
    fn describe(slots: &mut Slots);
}

/// A parameter that is a buffer or a group of them: what [`Maybe`] and [`Each`] are made of. Not for implementing
/// elsewhere.
///
/// # Safety
///
/// As [`Param`]; the blocks of `ABSENT` are null, and those of what is there are not.
#[diagnostic::on_unimplemented(
    message = "`Maybe` and `Each` are made of buffers, not of `{Self}`",
    note = "a buffer is `In<T>`, `Out<T>`, `InOut<T>` or `Zeroed<T>`; for several scalars use an array"
)]
pub unsafe trait Buffers: Param {
    #[doc(hidden)]
    const ABSENT: Self::Raw;

    /// Whether `ABSENT` is a raw form of it anyway.
    #[doc(hidden)]
    const MAY_BE_ABSENT: bool;

    #[doc(hidden)]
    fn is_absent(raw: &Self::Raw) -> bool;
}

/// The raw form of a buffer: what names its block, and its number of elements.
pub struct RawBuffer<T> {
    pub(crate) block: *mut T,
    pub(crate) len: usize,
}

impl<T: DevicePod> RawBuffer<T> {
    #[inline(always)]
    fn pack(self, arguments: &mut Arguments) {
        arguments.push_buffer(self.block.expose_provenance() as u64, self.len as u64);
    }

    /// # Safety
    ///
    /// What comes next in `arguments` is a buffer.
    #[inline(always)]
    unsafe fn unpack(arguments: &mut Reader<'_>) -> Self {
        // SAFETY: a buffer has been packed as these two words.
        let [block, len] =
            unsafe { arguments.next::<[u64; 2]>().as_ptr().cast::<[u64; 2]>().read_unaligned() };
        RawBuffer { block: std::ptr::with_exposed_provenance_mut(block as usize), len: len as usize }
    }
}

impl<T> Clone for RawBuffer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RawBuffer<T> {}

// SAFETY: it is a word; who makes a view of it answers for the use (`Param::view`). Elements may go
// between threads.
unsafe impl<T: DevicePod> Send for RawBuffer<T> {}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<S: Scalar> Param for S {
    type Raw = S;
    type View<'v> = S;

    #[inline(always)]
    unsafe fn view<'v>(raw: S) -> Self::View<'v> {
        raw
    }

    #[inline(always)]
    fn pack(raw: S, arguments: &mut Arguments) {
        const { assert!(align_of::<S>() <= MAX_ALIGN, "a kernel's scalar is aligned to at most 8 bytes") };
        arguments.push(&raw);
    }

    #[inline(always)]
    unsafe fn unpack(arguments: &mut Reader<'_>) -> S {
        // SAFETY: an `S` has been packed here, all of whose bytes are initialised.
        unsafe { arguments.next::<S>().as_ptr().cast::<S>().read_unaligned() }
    }

    fn describe(slots: &mut Slots) {
        slots.push_scalar::<S>();
    }
}

macro_rules! buffer {
    ($Buffer:ident, $mode:expr, $View:ty, |$raw:ident| $view:expr) => {
        // SAFETY: the view is made of the raw form as the caller of `view` has promised it.
        unsafe impl<T: DevicePod> Param for $Buffer<T> {
            type Raw = RawBuffer<T>;
            type View<'v> = $View;

            #[inline(always)]
            unsafe fn view<'v>($raw: RawBuffer<T>) -> $View {
                $view
            }

            #[inline(always)]
            fn pack(raw: RawBuffer<T>, arguments: &mut Arguments) {
                raw.pack(arguments);
            }

            #[inline(always)]
            unsafe fn unpack(arguments: &mut Reader<'_>) -> RawBuffer<T> {
                // SAFETY: the caller promises what this asks.
                unsafe { RawBuffer::unpack(arguments) }
            }

            fn describe(slots: &mut Slots) {
                slots.push_buffer::<T>($mode);
            }
        }

        // SAFETY: a block's name is never null.
        unsafe impl<T: DevicePod> Buffers for $Buffer<T> {
            const ABSENT: RawBuffer<T> = RawBuffer { block: std::ptr::null_mut(), len: 0 };
            const MAY_BE_ABSENT: bool = false;

            #[inline(always)]
            fn is_absent(raw: &RawBuffer<T>) -> bool {
                raw.block.is_null()
            }
        }
    };
}
buffer!(In, AccessMode::Read, &'v [T], |raw| {
    // SAFETY: valid and not written for 'v, by the caller; device memory is aligned to 256 and always
    // initialised.
    unsafe { std::slice::from_raw_parts(raw.block, raw.len) }
});
buffer!(Out, AccessMode::Overwrite, &'v mut [T], |raw| {
    // SAFETY: valid and used by nobody else for 'v, by the caller; aligned and initialised as above.
    unsafe { std::slice::from_raw_parts_mut(raw.block, raw.len) }
});
buffer!(InOut, AccessMode::Update, &'v mut [T], |raw| {
    // SAFETY: as for `Out`.
    unsafe { std::slice::from_raw_parts_mut(raw.block, raw.len) }
});
buffer!(Zeroed, AccessMode::Zeroed, &'v mut [T], |raw| {
    // SAFETY: as for `Out`; zeros are a value of plain data.
    unsafe {
        raw.block.write_bytes(0, raw.len);
        std::slice::from_raw_parts_mut(raw.block, raw.len)
    }
});

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<P: Buffers> Param for Maybe<P> {
    type Raw = Option<P::Raw>;
    type View<'v> = Option<P::View<'v>>;

    #[inline(always)]
    unsafe fn view<'v>(raw: Self::Raw) -> Self::View<'v> {
        // SAFETY: what holds for `raw` holds for what is in it.
        raw.map(|raw| unsafe { P::view(raw) })
    }

    #[inline(always)]
    fn pack(raw: Self::Raw, arguments: &mut Arguments) {
        P::pack(raw.unwrap_or(P::ABSENT), arguments);
    }

    #[inline(always)]
    unsafe fn unpack(arguments: &mut Reader<'_>) -> Self::Raw {
        // SAFETY: `pack` has left a `P` in either case.
        Some(unsafe { P::unpack(arguments) }).filter(|raw| !P::is_absent(raw))
    }

    fn describe(slots: &mut Slots) {
        const { assert!(!P::MAY_BE_ABSENT, "what `Maybe` is made of cannot be absent by itself") };
        P::describe(slots);
    }
}

// SAFETY: as `P`.
unsafe impl<P: Buffers> Buffers for Maybe<P> {
    const ABSENT: Self::Raw = None;
    const MAY_BE_ABSENT: bool = true;

    fn is_absent(raw: &Self::Raw) -> bool {
        raw.is_none()
    }
}

// SAFETY: the view is made of the raw form as the caller of `view` has promised it.
unsafe impl<P: Buffers, const N: usize> Param for Each<P, N> {
    type Raw = [P::Raw; N];
    type View<'v> = [P::View<'v>; N];

    #[inline(always)]
    unsafe fn view<'v>(raw: Self::Raw) -> Self::View<'v> {
        // SAFETY: what holds for `raw` holds for each in it.
        raw.map(|raw| unsafe { P::view(raw) })
    }

    #[inline(always)]
    fn pack(raw: Self::Raw, arguments: &mut Arguments) {
        for raw in raw {
            P::pack(raw, arguments);
        }
    }

    #[inline(always)]
    unsafe fn unpack(arguments: &mut Reader<'_>) -> Self::Raw {
        // SAFETY: `pack` has left `N` of them.
        std::array::from_fn(|_| unsafe { P::unpack(arguments) })
    }

    fn describe(slots: &mut Slots) {
        (0..N).for_each(|_| P::describe(slots));
    }
}

// SAFETY: as `P`.
unsafe impl<P: Buffers, const N: usize> Buffers for Each<P, N> {
    const ABSENT: Self::Raw = [P::ABSENT; N];
    const MAY_BE_ABSENT: bool = P::MAY_BE_ABSENT || N == 0;

    fn is_absent(raw: &Self::Raw) -> bool {
        raw.iter().all(P::is_absent)
    }
}

/// A kernel's whole parameter list: a tuple of one to sixteen [`Param`]s. Not for implementing elsewhere.
///
/// # Safety
///
/// As [`Param`], for each parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kernel's parameter list",
    note = "a parameter list is a tuple of 1 to 16 of `In<T>`, `Out<T>`, `InOut<T>`, `Zeroed<T>`, `Maybe`, `Each` and scalars"
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

    /// Appends the raw form to the arguments of an operation.
    #[doc(hidden)]
    fn pack(raw: Self::Raw, arguments: &mut Arguments);

    /// The raw form again.
    ///
    /// # Safety
    ///
    /// These are arguments of this list, from their beginning.
    #[doc(hidden)]
    unsafe fn unpack(arguments: &mut Reader<'_>) -> Self::Raw;

    /// Says where in the arguments each parameter stands.
    #[doc(hidden)]
    fn describe(slots: &mut Slots);
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

            #[inline(always)]
            fn pack(raw: Self::Raw, arguments: &mut Arguments) {
                #[allow(non_snake_case)]
                let ($($P,)+) = raw;
                $($P::pack($P, arguments);)+
            }

            #[inline(always)]
            unsafe fn unpack(arguments: &mut Reader<'_>) -> Self::Raw {
                // SAFETY: `pack` has left one after the other.
                ($(unsafe { $P::unpack(arguments) },)+)
            }

            fn describe(slots: &mut Slots) {
                $($P::describe(slots);)+
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
