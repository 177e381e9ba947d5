//! Sums, smallest and largest elements, and dot products: of any length, in a fixed order.
//!
//! A launch makes one value of each [`CHUNK`] elements, with a block of 256 threads for each chunk. [`sum`], [`min`], [`max`] and [`dot`]
//! launch until one value is left: two launches up to 16 million elements, three up to 68 thousand million.
//!
//! The order of operations is the same on all devices and does not depend on how many threads they have: in a chunk, 256 *lanes* go over every 256th
//! element, and lanes are merged in halves, the upper onto the lower. So sums are equal from run to run, and bit for bit those of [`sum_slice`];
//! rounding errors grow as the logarithm of the length. In dot products devices may fuse multiplications and additions.
//!
//! | | of nothing | of a NaN |
//! |---|---|---|
//! | sum, dot | 0 | NaN |
//! | min | infinity | NaN; in WGSL unspecified |
//! | max | minus infinity | NaN; in WGSL unspecified |
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::reduce;
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("numbers");
//! let x = account.upload((1..=100_000).map(f64::from).collect())?;
//! let [sum, most] = [reduce::sum(&account, &x)?, reduce::max(&account, &x)?];
//! assert_eq!(account.download(&sum)?.wait()?, [5_000_050_000.0]);
//! assert_eq!(account.download(&most)?.wait()?, [100_000.0]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

mod chunk;

use chare_device::parity::Case;
use chare_device::{Account, DeviceError, DeviceVec, Grid, In, Kernel, Launch, Out, kernel};

use crate::{Real, Views};

pub use chunk::{CHUNK, dot_slice, max_slice, min_slice, sum_slice};

/// The parameters of a reduction: the elements, one value for each chunk of them.
pub type ReduceParams<T> = (In<T>, Out<T>);

/// The parameters of the first step of a dot product: two vectors, one value for each chunk of them.
pub type DotParams<T> = (In<T>, In<T>, Out<T>);

/// The kernels of this module for one floating-point type. The grid of each is [`blocks`](Kernel::blocks) of the number of chunks.
pub trait Reduce: Real {
    /// The sum of each chunk.
    const SUM: Kernel<ReduceParams<Self>>;
    /// The smallest element of each chunk.
    const MIN: Kernel<ReduceParams<Self>>;
    /// The largest element of each chunk.
    const MAX: Kernel<ReduceParams<Self>>;
    /// The sum of the products in each chunk.
    const DOT: Kernel<DotParams<Self>>;
}

macro_rules! kernels {
    (
        $T:ident: $SUM:ident $sum:ident, $MIN:ident $min:ident, $MAX:ident $max:ident, $DOT:ident $dot:ident
        $(; $reduce_wgsl:expr, $dot_wgsl:expr)?
    ) => {
        kernel! {
            #[doc = concat!("[`Reduce::SUM`] for `", stringify!($T), "`.")]
            pub const $SUM: fn $sum(x: In<$T>, partial: Out<$T>) {
                block: [256, 1, 1],
                rust: |_: &Launch, (x, partial): Views<'_, ReduceParams<$T>>| chunk::each(x, partial, chunk::sum),
                cuda: include_str!("reduce.cu")
                $(, wgsl: $reduce_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Reduce::MIN`] for `", stringify!($T), "`.")]
            pub const $MIN: fn $min(x: In<$T>, partial: Out<$T>) {
                block: [256, 1, 1],
                rust: |_: &Launch, (x, partial): Views<'_, ReduceParams<$T>>| chunk::each(x, partial, chunk::min),
                cuda: include_str!("reduce.cu")
                $(, wgsl: $reduce_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Reduce::MAX`] for `", stringify!($T), "`.")]
            pub const $MAX: fn $max(x: In<$T>, partial: Out<$T>) {
                block: [256, 1, 1],
                rust: |_: &Launch, (x, partial): Views<'_, ReduceParams<$T>>| chunk::each(x, partial, chunk::max),
                cuda: include_str!("reduce.cu")
                $(, wgsl: $reduce_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Reduce::DOT`] for `", stringify!($T), "`.")]
            pub const $DOT: fn $dot(x: In<$T>, y: In<$T>, partial: Out<$T>) {
                block: [256, 1, 1],
                rust: |_: &Launch, (x, y, partial): Views<'_, DotParams<$T>>| chunk::each_dot(x, y, partial),
                cuda: include_str!("reduce.cu")
                $(, wgsl: $dot_wgsl)?
            }
        }

        impl Reduce for $T {
            const SUM: Kernel<ReduceParams<$T>> = $SUM;
            const MIN: Kernel<ReduceParams<$T>> = $MIN;
            const MAX: Kernel<ReduceParams<$T>> = $MAX;
            const DOT: Kernel<DotParams<$T>> = $DOT;
        }
    };
}
kernels!(
    f32: SUM_F32 sum_f32, MIN_F32 min_f32, MAX_F32 max_f32, DOT_F32 dot_f32;
    include_str!("reduce.wgsl"), include_str!("dot.wgsl")
);
kernels!(f64: SUM_F64 sum_f64, MIN_F64 min_f64, MAX_F64 max_f64, DOT_F64 dot_f64);

/// The sum of all elements, in a buffer of one. Enqueued when this returns.
///
/// # Errors
///
/// Those of [`Account::launch`] and [`Account::alloc`].
pub fn sum<T: Reduce>(account: &Account, x: &DeviceVec<T>) -> Result<DeviceVec<T>, DeviceError> {
    reduce(account, &T::SUM, x)
}

/// The smallest element, in a buffer of one. Enqueued when this returns.
///
/// # Errors
///
/// As for [`sum`].
pub fn min<T: Reduce>(account: &Account, x: &DeviceVec<T>) -> Result<DeviceVec<T>, DeviceError> {
    reduce(account, &T::MIN, x)
}

/// The largest element, in a buffer of one. Enqueued when this returns.
///
/// # Errors
///
/// As for [`sum`].
pub fn max<T: Reduce>(account: &Account, x: &DeviceVec<T>) -> Result<DeviceVec<T>, DeviceError> {
    reduce(account, &T::MAX, x)
}

/// The sum of the products of the elements of two vectors, in a buffer of one. Enqueued when this returns.
///
/// # Errors
///
/// As for [`sum`].
///
/// # Panics
///
/// If the vectors are not of one length.
pub fn dot<T: Reduce>(
    account: &Account,
    x: &DeviceVec<T>,
    y: &DeviceVec<T>,
) -> Result<DeviceVec<T>, DeviceError> {
    assert_eq!(x.len(), y.len(), "x and y: vectors of one length");
    let mut partial = account.alloc::<T>(chunks(x.len()))?;
    account.launch(&T::DOT, T::DOT.blocks(blocks(&partial)), (x, y, &mut partial))?;
    finish(account, &T::SUM, partial)
}

/// One launch, and then as many as it takes.
fn reduce<T: Reduce>(
    account: &Account,
    kernel: &Kernel<ReduceParams<T>>,
    x: &DeviceVec<T>,
) -> Result<DeviceVec<T>, DeviceError> {
    let mut partial = account.alloc::<T>(chunks(x.len()))?;
    account.launch(kernel, kernel.blocks(blocks(&partial)), (x, &mut partial))?;
    finish(account, kernel, partial)
}

fn finish<T: Reduce>(
    account: &Account,
    kernel: &Kernel<ReduceParams<T>>,
    partial: DeviceVec<T>,
) -> Result<DeviceVec<T>, DeviceError> {
    if partial.len() == 1 { Ok(partial) } else { reduce(account, kernel, &partial) }
}

/// How many values a launch leaves: of nothing there is one too.
fn chunks(len: usize) -> usize {
    len.div_ceil(CHUNK).max(1)
}

fn blocks<T: Real>(partial: &DeviceVec<T>) -> Grid {
    Grid::from(u32::try_from(partial.len()).expect("device memory holds no more chunks"))
}

/// The kernels for both types.
pub(crate) fn cases() -> Vec<Case> {
    fn reduction<T: Reduce>(kernel: &Kernel<ReduceParams<T>>) -> Case {
        let launched = *kernel;
        Case::of(kernel, move |random| {
            let len = random.within(&(0..4 * CHUNK));
            (launched.blocks(chunks(len) as u32), (len, chunks(len)))
        })
    }
    fn dots<T: Reduce>(tolerance: f64) -> Case {
        let case = Case::of(&T::DOT, |random| {
            let len = random.within(&(0..4 * CHUNK));
            (T::DOT.blocks(chunks(len) as u32), (len, len, chunks(len)))
        });
        case.within_absolute(tolerance)
    }
    vec![
        reduction(&SUM_F32),
        reduction(&MIN_F32),
        reduction(&MAX_F32),
        dots::<f32>(1e-4),
        reduction(&SUM_F64),
        reduction(&MIN_F64),
        reduction(&MAX_F64),
        dots::<f64>(1e-13),
    ]
}
