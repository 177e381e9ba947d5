//! A kernel: a name, a parameter list, and a source for each backend that can run it.

use std::fmt;

use crate::launch::Launch;
use crate::param::Params;

/// A typed kernel. Meant to be a constant:
///
/// ```
/// use chare_device::{In, Kernel, Launch, Out};
///
/// const SCALE: Kernel<(In<f32>, Out<f32>, f32)> = Kernel::new("scale", scale);
/// fn scale(_: &Launch, (x, y, factor): (&[f32], &mut [f32], f32)) {
///     for (y, x) in y.iter_mut().zip(x) {
///         *y = factor * x;
///     }
/// }
/// ```
pub struct Kernel<A: Params> {
    name: &'static str,
    rust: RustSource<A>,
}

/// The source of a kernel for host devices.
pub(crate) type RustSource<A> = for<'l, 'v> fn(&'l Launch, <A as Params>::Views<'v>);

impl<A: Params> Kernel<A> {
    /// A kernel with a Rust source, which `host` devices run: a function, or a closure that captures nothing
    /// and has annotated arguments. `name` stands in error messages. It is `Send + Sync`, since it is called on any
    /// thread: a marker without size that is neither (the proof of being on some thread) cannot be captured.
    ///
    /// ```compile_fail,E0277
    /// # use chare_device::{Kernel, Launch, Out};
    /// #[derive(Clone, Copy)]
    /// struct OnMain(std::marker::PhantomData<*const ()>); // only made on the main thread
    /// let main = OnMain(std::marker::PhantomData);
    /// let source = move |_: &Launch, (_,): (&mut [u32],)| drop::<OnMain>(main);
    /// let kernel: Kernel<(Out<u32>,)> = Kernel::new("touch", source);
    /// ```
    ///
    /// The source sees each buffer as a slice. It may panic: that is a device fault, with the panic's
    /// message.
    // Not simply a function pointer: with one, the parameter list could not be inferred from the constant's
    // type.
    pub const fn new<F>(name: &'static str, _rust: F) -> Self
    where
        F: for<'l, 'v> Fn(&'l Launch, A::Views<'v>) + Copy + Send + Sync + 'static,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "a kernel's source is a function, or a closure that captures nothing"
            )
        };
        let rust: RustSource<A> = |launch, views| {
            // SAFETY: `F` has no bytes, and a value of it existed: `_rust`, which could be copied and has not
            // been dropped. That value is shared with whatever thread this is, as `Sync` allows.
            let source = unsafe { std::ptr::NonNull::<F>::dangling().as_ref() };
            source(launch, views);
        };
        Kernel { name, rust }
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    #[inline(always)]
    pub(crate) fn rust(&self) -> RustSource<A> {
        self.rust
    }
}

impl<A: Params> Clone for Kernel<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Params> Copy for Kernel<A> {}

impl<A: Params> fmt::Debug for Kernel<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}
