//! Running sums over a buffer of any length: inclusive, or exclusive of the element itself.
//!
//! [`inclusive`] and [`exclusive`] launch three kinds of work: each chunk of [`CHUNK`] elements is scanned by a block of 256 threads that also writes
//! the chunk's total; the totals are scanned in the same way; and what stands before each chunk is added to it. Integers wrap around.
//! Sums of floating-point numbers are rounded in an order that depends on the device, and not on the run.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::scan;
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("lengths");
//! let lengths = account.upload(vec![3_u32, 1, 4, 1, 5])?;
//! let starts = scan::exclusive(&account, &lengths)?;
//! assert_eq!(account.download(&starts)?.wait()?, [0, 3, 4, 8, 9]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::{Case, Sample};
use chare_device::{
    Account, DeviceError, DevicePod, DeviceVec, Grid, In, InOut, Kernel, Launch, Out, kernel,
};

use crate::Views;

/// The elements that one block scans.
pub const CHUNK: usize = 1024;

/// The parameters of scanning chunks: the elements, their sums, the total of each chunk, and whether an element counts in its own sum (1)
/// or not (0).
pub type ChunksParams<T> = (In<T>, Out<T>, Out<T>, u32);

/// The parameters of adding to chunks: the sums, and what to add to each chunk.
pub type OffsetsParams<T> = (InOut<T>, In<T>);

/// The kernels of this module for one type of numbers. The grid of each is [`blocks`](Kernel::blocks) of the number of chunks.
pub trait Scan: DevicePod + Sample + Default {
    /// Scans each chunk by itself; see [`scan_chunks`].
    const CHUNKS: Kernel<ChunksParams<Self>>;
    /// Adds a number to all elements of each chunk; see [`add_offsets`].
    const OFFSETS: Kernel<OffsetsParams<Self>>;

    /// The sum; integers wrap around.
    #[doc(hidden)]
    fn plus(self, other: Self) -> Self;
}

macro_rules! kernels {
    ($T:ident: $CHUNKS:ident $chunks:ident, $OFFSETS:ident $offsets:ident, $plus:expr $(; $number:literal)?) => {
        kernel! {
            #[doc = concat!("[`Scan::CHUNKS`] for `", stringify!($T), "`.")]
            pub const $CHUNKS: fn $chunks(x: In<$T>, sums: Out<$T>, totals: Out<$T>, inclusive: u32) {
                block: [256, 1, 1],
                rust: |_: &Launch, (x, sums, totals, inclusive): Views<'_, ChunksParams<$T>>| {
                    scan_chunks(x, sums, totals, inclusive != 0);
                },
                cuda: include_str!("scan.cu")
                $(, wgsl: concat!($number, include_str!("chunks.wgsl")))?
            }
        }
        kernel! {
            #[doc = concat!("[`Scan::OFFSETS`] for `", stringify!($T), "`.")]
            pub const $OFFSETS: fn $offsets(sums: InOut<$T>, offsets: In<$T>) {
                block: [256, 1, 1],
                rust: |_: &Launch, (sums, offsets): Views<'_, OffsetsParams<$T>>| add_offsets(sums, offsets),
                cuda: include_str!("scan.cu")
                $(, wgsl: concat!($number, include_str!("offsets.wgsl")))?
            }
        }

        impl Scan for $T {
            const CHUNKS: Kernel<ChunksParams<$T>> = $CHUNKS;
            const OFFSETS: Kernel<OffsetsParams<$T>> = $OFFSETS;

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                $plus(self, other)
            }
        }
    };
}
kernels!(
    u32: SCAN_CHUNKS_U32 scan_chunks_u32, ADD_OFFSETS_U32 add_offsets_u32, u32::wrapping_add; "alias Number = u32; "
);
kernels!(
    f32: SCAN_CHUNKS_F32 scan_chunks_f32, ADD_OFFSETS_F32 add_offsets_f32, |a, b| a + b; "alias Number = f32; "
);
kernels!(f64: SCAN_CHUNKS_F64 scan_chunks_f64, ADD_OFFSETS_F64 add_offsets_f64, |a, b| a + b);

/// Scans each chunk by itself.
///
/// # Panics
///
/// If `sums` has not as many elements as `x`, or `totals` not one for each chunk (one, if there is no element).
pub fn scan_chunks<T: Scan>(x: &[T], sums: &mut [T], totals: &mut [T], inclusive: bool) {
    assert_eq!(sums.len(), x.len(), "sums: one for each element");
    assert_eq!(totals.len(), chunks(x.len()), "totals: one for each {CHUNK} elements");
    totals[0] = T::default();
    for ((x, sums), total) in x.chunks(CHUNK).zip(sums.chunks_mut(CHUNK)).zip(totals) {
        *total = scan_slice(x, sums, inclusive);
    }
}

/// Scans all elements of a slice, and returns their sum.
///
/// # Panics
///
/// If `sums` has not as many elements as `x`.
pub fn scan_slice<T: Scan>(x: &[T], sums: &mut [T], inclusive: bool) -> T {
    assert_eq!(sums.len(), x.len(), "sums: one for each element");
    let mut total = T::default();
    for (sum, x) in sums.iter_mut().zip(x) {
        let before = total;
        total = total.plus(*x);
        *sum = if inclusive { total } else { before };
    }
    total
}

/// Adds a number to all elements of each chunk.
///
/// # Panics
///
/// If `offsets` has not one element for each chunk.
pub fn add_offsets<T: Scan>(sums: &mut [T], offsets: &[T]) {
    assert_eq!(offsets.len(), chunks(sums.len()), "offsets: one for each {CHUNK} elements");
    for (sums, offset) in sums.chunks_mut(CHUNK).zip(offsets) {
        sums.iter_mut().for_each(|sum| *sum = sum.plus(*offset));
    }
}

/// The sum of the elements up to each one, with itself. Enqueued when this returns.
///
/// # Errors
///
/// Those of [`Account::launch`] and [`Account::alloc`].
pub fn inclusive<T: Scan>(account: &Account, x: &DeviceVec<T>) -> Result<DeviceVec<T>, DeviceError> {
    scan(account, x, true)
}

/// The sum of the elements before each one: zero for the first. Enqueued when this returns.
///
/// # Errors
///
/// As for [`inclusive`].
pub fn exclusive<T: Scan>(account: &Account, x: &DeviceVec<T>) -> Result<DeviceVec<T>, DeviceError> {
    scan(account, x, false)
}

fn scan<T: Scan>(account: &Account, x: &DeviceVec<T>, inclusive: bool) -> Result<DeviceVec<T>, DeviceError> {
    let count = chunks(x.len());
    let blocks = Grid::from(u32::try_from(count).expect("device memory holds no more chunks"));
    let (mut sums, mut totals) = (account.alloc::<T>(x.len())?, account.alloc::<T>(count)?);
    let arguments = (x, &mut sums, &mut totals, u32::from(inclusive));
    account.launch(&T::CHUNKS, T::CHUNKS.blocks(blocks), arguments)?;
    if count > 1 {
        let offsets = exclusive(account, &totals)?;
        account.launch(&T::OFFSETS, T::OFFSETS.blocks(blocks), (&mut sums, &offsets))?;
    }
    Ok(sums)
}

/// How many chunks there are: of nothing there is one too.
fn chunks(len: usize) -> usize {
    len.div_ceil(CHUNK).max(1)
}

/// The kernels for all types.
pub(crate) fn cases() -> Vec<Case> {
    fn of_type<T: Scan>(tolerance: f64) -> [Case; 2] {
        let scan = Case::of(&T::CHUNKS, |random| {
            let len = random.within(&(0..4 * CHUNK));
            (T::CHUNKS.blocks(chunks(len) as u32), (len, len, chunks(len), random.below(2)))
        });
        let add = Case::of(&T::OFFSETS, |random| {
            let len = random.within(&(0..4 * CHUNK));
            (T::OFFSETS.blocks(chunks(len) as u32), (len, chunks(len)))
        });
        [scan.within_absolute(tolerance), add]
    }
    [of_type::<u32>(0.0), of_type::<f32>(1e-4), of_type::<f64>(1e-13)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_offsets_make_a_scan() {
        let x: Vec<u32> = (0..3000).map(|n: u32| n.wrapping_mul(2_654_435_761)).collect();
        for inclusive in [false, true] {
            let (mut sums, mut totals, mut offsets) = (vec![7; 3000], [7; 3], [7; 3]);
            scan_chunks(&x, &mut sums, &mut totals, inclusive);
            scan_slice(&totals, &mut offsets, false);
            add_offsets(&mut sums, &offsets);
            let mut expected = vec![0; 3000];
            let total = scan_slice(&x, &mut expected, inclusive);
            assert_eq!((sums, total), (expected, x.iter().copied().fold(0, u32::wrapping_add)));
        }
        let mut sums = [0.0; 3];
        assert_eq!((scan_slice(&[1.0, 2.0, 4.0], &mut sums, true), sums), (7.0, [1.0, 3.0, 7.0]));
        assert_eq!((scan_slice(&[1.0, 2.0, 4.0], &mut sums, false), sums), (7.0, [0.0, 1.0, 3.0]));
    }
}
