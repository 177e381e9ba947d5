//! Multiplies matrices with cuBLAS, through [`Account::enqueue_cuda`], and compares with plain Rust.
//!
//! Nothing of CUDA is needed to build it. Where there is no GPU, or no cuBLAS, it says so in one line and exits with 2.
//!
//! ```text
//! cargo run --release -p chare-device --example cublas
//! ```

use std::error::Error;
use std::ffi::c_void;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chare_device::{Account, Completion, DeviceError, DeviceVec, Devices, HostMode, In, Out};
use libloading::Library;

/// The library, by the names that it is installed under.
const NAMES: &[&str] =
    &["libcublas.so.13", "libcublas.so.12", "libcublas.so", "cublas64_13.dll", "cublas64_12.dll"];

/// `CUBLAS_OP_N`: a matrix as it stands.
const AS_IT_STANDS: i32 = 0;

type Handle = *mut c_void;
type Create = unsafe extern "C" fn(*mut Handle) -> i32;
type Destroy = unsafe extern "C" fn(Handle) -> i32;
type SetStream = unsafe extern "C" fn(Handle, *mut c_void) -> i32;
#[rustfmt::skip]
type Sgemm = unsafe extern "C" fn(
    Handle, i32, i32, i32, i32, i32,
    *const f32, *const f32, i32, *const f32, i32, *const f32, *mut f32, i32,
) -> i32;

/// What cuBLAS keeps for one device: null until it is made.
struct Context(Handle);

// SAFETY: cuBLAS takes its handle from any thread, one at a time.
unsafe impl Send for Context {}

/// cuBLAS, for one device.
struct Cublas {
    functions: Library,
    context: Mutex<Context>,
}

impl Cublas {
    fn load() -> Result<Arc<Self>, String> {
        // SAFETY: what the library does when it is loaded is what its maker made it for.
        let found = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
        let functions = found.ok_or(
            "no cuBLAS: none of its files was found; install the CUDA toolkit, or put them on the path",
        )?;
        Ok(Arc::new(Cublas { functions, context: Mutex::new(Context(std::ptr::null_mut())) }))
    }

    /// Calls one of its functions, which returns a status.
    fn call<F>(&self, name: &str, call: impl FnOnce(&F) -> i32) -> Result<(), String> {
        // SAFETY: each name is asked for with the type that it has in `cublas_v2.h`.
        let function =
            unsafe { self.functions.get::<F>(name.as_bytes()) }.map_err(|error| error.to_string())?;
        match call(&function) {
            0 => Ok(()),
            status => Err(format!("{name} returned {status}")),
        }
    }

    /// Enqueues `c = a * b`, of square matrices in row-major order.
    fn multiply(
        self: &Arc<Self>,
        account: &Account,
        size: usize,
        (a, b, c): (&DeviceVec<f32>, &DeviceVec<f32>, &mut DeviceVec<f32>),
    ) -> Result<Completion<()>, DeviceError> {
        let (cublas, n, [one, zero]) = (self.clone(), size as i32, [1.0_f32, 0.0]);
        account.enqueue_cuda::<(In<f32>, In<f32>, Out<f32>)>("sgemm", (a, b, c), move |stream, (a, b, c)| {
            if [a.len(), b.len(), c.len()] != [size * size; 3] {
                return Err(format!("the matrices are not {size} x {size}"));
            }
            // The context of the account's device is current here, so that is where the handle is made.
            let mut context = cublas.context.lock().map_err(|error| error.to_string())?;
            if context.0.is_null() {
                // SAFETY: the handle is written.
                cublas.call::<Create>("cublasCreate_v2", |create| unsafe { create(&mut context.0) })?;
            }
            let handle = context.0;
            // SAFETY: the handle is live, and so is the stream during the call.
            cublas.call::<SetStream>("cublasSetStream_v2", |set| unsafe { set(handle, stream.as_ptr()) })?;
            // It wants columns: the product of the transposed, in the other order, is the transposed product.
            // SAFETY: three matrices of this size; the last one is written, all of it. The two numbers are read before it returns.
            cublas.call::<Sgemm>("cublasSgemm_v2", |sgemm| unsafe {
                let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_ptr());
                sgemm(handle, AS_IT_STANDS, AS_IT_STANDS, n, n, n, &one, b, n, a, n, &zero, c, n)
            })
        })
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        let Context(handle) = *self.context.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !handle.is_null() {
            // SAFETY: it was made by `cublasCreate_v2`, and is used no more. What it says at the end helps nobody.
            let _ = self.call::<Destroy>("cublasDestroy_v2", |destroy| unsafe { destroy(handle) });
        }
    }
}

/// The same in plain Rust.
fn multiply(size: usize, a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut c = vec![0.0; size * size];
    for (c, a) in c.chunks_exact_mut(size).zip(a.chunks_exact(size)) {
        for (a, b) in a.iter().zip(b.chunks_exact(size)) {
            c.iter_mut().zip(b).for_each(|(c, b)| *c += a * b);
        }
    }
    c
}

fn run() -> Result<(), Box<dyn Error>> {
    let size = 512;
    let devices = Devices::open(&"cuda".parse()?, HostMode::Inline)?;
    let cublas = Cublas::load()?;
    let account = devices.get(0).account("gemm");
    let values =
        |seed: usize| (0..size * size).map(|i| ((i * seed) % 17) as f32 / 8.0 - 1.0).collect::<Vec<_>>();
    let (a, b) = (values(7), values(11));
    let (on_a, on_b) = (account.from_slice(&a)?, account.from_slice(&b)?);
    let mut on_c = account.alloc::<f32>([size, size])?;
    // The first one makes the handle.
    cublas.multiply(&account, size, (&on_a, &on_b, &mut on_c))?.wait()?;
    let start = Instant::now();
    cublas.multiply(&account, size, (&on_a, &on_b, &mut on_c))?.wait()?;
    let time = start.elapsed();
    let (found, expected) = (account.download(&on_c)?.wait()?, multiply(size, &a, &b));
    let error =
        found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
    let device = devices.get(0);
    println!(
        "{size} x {size} on {}: {time:?}, and differs from plain Rust by {error:e} at most",
        device.name()
    );
    if error > 1e-2 {
        return Err(format!("cuBLAS and plain Rust differ by {error:e}").into());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
