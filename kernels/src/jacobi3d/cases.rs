//! The kernels of this module on random blocks.

use chare_device::DeviceVec;

use super::{Jacobi3d, faces_len, padded_len};
use crate::case::{Case, Outcome, Random};
use crate::{Face, Real};

/// The kernels for both types.
pub(crate) fn cases() -> Vec<Case> {
    [of_type::<f32>(1e-6), of_type::<f64>(1e-15)].into_iter().flatten().collect()
}

/// Small blocks of all proportions, and larger ones than a workgroup.
fn dims(random: &mut Random) -> [u32; 3] {
    let limits = if random.below(4) == 0 { [20, 20, 80] } else { [5, 5, 9] };
    limits.map(|limit| 1 + random.below(limit))
}

fn of_type<T: Jacobi3d + Real>(tolerance: f64) -> [Case; 5] {
    [
        Case::new(&T::STEP, tolerance, |account, random| {
            let dims = dims(random);
            let u = account.upload(random.reals::<T>(padded_len(dims)))?;
            let mut unew = account.upload(random.reals::<T>(padded_len(dims)))?;
            // What is there before must not matter.
            let mut residual = account.upload(vec![T::from_f64(1e6)])?;
            account.launch(&T::STEP, dims, (&u, &mut unew, &mut residual, dims))?;
            Outcome::default().add(account, &unew)?.add(account, &residual)
        }),
        Case::new(&T::PACK_FACE, 0.0, |account, random| {
            let (dims, face) = (dims(random), Face::ALL[random.below(6) as usize]);
            let u = account.upload(random.reals::<T>(padded_len(dims)))?;
            let mut cells = account.alloc::<T>(face.len(dims))?;
            account.launch(&T::PACK_FACE, face.extents(dims), (&u, &mut cells, dims, face))?;
            Outcome::default().add(account, &cells)
        }),
        Case::new(&T::UNPACK_FACE, 0.0, |account, random| {
            let (dims, face) = (dims(random), Face::ALL[random.below(6) as usize]);
            let cells = account.upload(random.reals::<T>(face.len(dims)))?;
            let mut u = account.upload(random.reals::<T>(padded_len(dims)))?;
            account.launch(&T::UNPACK_FACE, face.extents(dims), (&cells, &mut u, dims, face))?;
            Outcome::default().add(account, &u)
        }),
        Case::new(&T::PACK_FACES, 0.0, |account, random| {
            let (dims, present) = (dims(random), random.below(64));
            let u = account.upload(random.reals::<T>(padded_len(dims)))?;
            let mut faces = Vec::new();
            for face in Face::ALL {
                faces.push(account.upload(random.reals::<T>(face.len(dims)))?);
            }
            let mut given: [Option<&mut DeviceVec<T>>; 6] = [const { None }; 6];
            for (face, cells) in faces.iter_mut().enumerate() {
                given[face] = (present >> face & 1 == 1).then_some(cells);
            }
            account.launch(&T::PACK_FACES, faces_len(dims), (&u, given, dims))?;
            faces.iter().try_fold(Outcome::default(), |outcome, cells| outcome.add(account, cells))
        }),
        Case::new(&T::UNPACK_FACES, 0.0, |account, random| {
            let (dims, present) = (dims(random), random.below(64));
            let mut faces = [const { None }; 6];
            for (face, cells) in Face::ALL.into_iter().zip(&mut faces) {
                if present >> face.index() & 1 == 1 {
                    *cells = Some(account.upload(random.reals::<T>(face.len(dims)))?);
                }
            }
            let mut u = account.upload(random.reals::<T>(padded_len(dims)))?;
            let given = faces.each_ref().map(Option::as_ref);
            account.launch(&T::UNPACK_FACES, faces_len(dims), (given, &mut u, dims))?;
            Outcome::default().add(account, &u)
        }),
    ]
}
