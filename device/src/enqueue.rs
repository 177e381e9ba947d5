//! The door for code of others that gives work to a CUDA stream: cuBLAS, cuFFT, a user's own launches.
//!
//! What goes through it is an operation like any other: it has accesses, a place in its stream, a completion. Only what it does is
//! not known here: code is called once, when the operation is given to the driver, and gives its work to the raw stream.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::Mutex;

use crate::account::Account;
use crate::args::Args;
use crate::completion::Completion;
use crate::error::DeviceError;
use crate::kernel::Language;
use crate::operation::Command;
use crate::param::{DevicePod, Params, RawBuffer};

/// What [`Account::enqueue_cuda`] is given, without its types: it is called with the driver's handle of a stream.
pub(crate) type OtherCode = Box<dyn FnOnce(*mut c_void) -> Result<(), String> + Send>;

/// The stream that code in [`Account::enqueue_cuda`] gives its work to.
#[derive(Debug)]
pub struct CudaStream<'a> {
    raw: *mut c_void,
    call: PhantomData<&'a ()>,
}

impl CudaStream<'_> {
    /// The driver's handle: a `CUstream`, which is a `cudaStream_t` too.
    pub fn as_ptr(&self) -> *mut c_void {
        self.raw
    }
}

/// A buffer of device memory, as code in [`Account::enqueue_cuda`] sees it.
pub type DevicePtr<T> = RawBuffer<T>;

impl<T: DevicePod> RawBuffer<T> {
    /// Its address on the device: a `CUdeviceptr`. The host cannot read or write there.
    pub fn as_ptr(&self) -> *mut T {
        self.block
    }

    /// The number of its elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Account {
    /// Has `code` give work to this account's CUDA stream: a library's, or CUDA of one's own. `args` are its buffers, as for a launch of a
    /// kernel with the parameters `A`, and `code` gets them as [`DevicePtr`]s (in `Option`s and arrays where the parameters are `Maybe` and
    /// `Each`). Its work comes after all that these buffers ask for, what uses them later comes after it, and the completion is its
    /// end. `name` stands in messages in the place of a kernel's. An error of the code's, or a panic, is a fault with this name, as of a
    /// kernel.
    ///
    /// It is called once, when the driver takes the operation: most often before the return, on the calling thread; if the stream is full, or
    /// what it must come after has not been given to the driver, later, on the thread that looks for what has finished. (Never, if
    /// what it reads is spoiled by then, or the devices are abandoned.) The context of the account's device is current then: the
    /// primary one, which the CUDA runtime uses too.
    ///
    /// Safe code can do no harm with what it gets. *Unsafe* code in `code` that gives work to the stream answers for this:
    ///
    /// * the work touches these buffers only, inside of their lengths, and writes only what is [`Out`](crate::Out),
    ///   [`InOut`](crate::InOut) or [`Zeroed`](crate::Zeroed); all of what is `Out`;
    /// * it is given to this stream, while the code runs. The code neither waits for it nor changes, captures or destroys the stream.
    ///
    /// The code must not use the devices of this account meanwhile: launch, allocate or await anything there. What is found of that is a panic,
    /// so a fault.
    ///
    /// ```no_run
    /// # use chare_device::{Account, DeviceError, DeviceVec, In, Out};
    /// # unsafe fn my_gemm(_: *mut f32, _: *const f32, _: usize, _: *mut std::ffi::c_void) -> i32 { 0 }
    /// # fn example(account: &Account, a: &DeviceVec<f32>, c: &mut DeviceVec<f32>) -> Result<(), DeviceError> {
    /// account.enqueue_cuda::<(In<f32>, Out<f32>)>("square", (a, c), |stream, (a, c)| {
    ///     // SAFETY: it enqueues on the stream, reads `a` and writes all of `c`, which have this length.
    ///     match unsafe { my_gemm(c.as_ptr(), a.as_ptr(), a.len(), stream.as_ptr()) } {
    ///         0 => Ok(()),
    ///         status => Err(format!("my_gemm returned {status}")),
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotCuda`] on another device, where nothing is called; else as [`launch`](Self::launch).
    pub fn enqueue_cuda<A: Params>(
        &self,
        name: &'static str,
        args: impl Args<A>,
        code: impl FnOnce(CudaStream<'_>, A::Raw) -> Result<(), String> + Send + 'static,
    ) -> Result<Completion<()>, DeviceError> {
        self.checked()?;
        if self.device().language() != Language::CudaC {
            let (device, owner) = (self.device().name().into(), self.label().into());
            return Err(DeviceError::NotCuda { device, owner, name });
        }
        self.enqueue_code(name, args, code)
    }

    fn enqueue_code<A: Params, X: Args<A>>(
        &self,
        name: &'static str,
        args: X,
        code: impl FnOnce(CudaStream<'_>, A::Raw) -> Result<(), String> + Send + 'static,
    ) -> Result<Completion<()>, DeviceError> {
        let branch = self.branch();
        let mut bound = args.bind();
        X::check(&mut bound, branch)?;
        let raw = X::commit(&mut bound);
        let code: OtherCode =
            Box::new(move |stream| code(CudaStream { raw: stream, call: PhantomData }, raw));
        let code = Mutex::new(Some(code));
        branch.enqueue::<A, X>(name, Command::Code { name, code }, &bound, raw)
    }
}
