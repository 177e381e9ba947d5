//! The program with the runtime: a chare per block, whose coroutine waits for the faces of its neighbours, launches the step,
//! and sends its own new faces while they are in the cache.
//!
//! It has two sets of faces, used in turns. When the faces of an iteration have come, all neighbours have let go of the set of the
//! iteration before, so the runtime finds it unshared when it is next written, and writes it in place.

use std::mem::swap;

use chare::device::{Account, DeviceSlice, DeviceVec};
use chare::prelude::*;
use chare_kernels::Face;
use chare_kernels::jacobi3d::{Jacobi3d, faces_len};

use crate::problem::Problem;

/// The cells at the faces of a block; none where there is no neighbour.
type Faces<T> = [Option<DeviceVec<T>>; 6];

/// The way to the neighbour at the face of that number.
type Neighbour<T> = (usize, Channel<DeviceSlice<T>>);

/// A block of cells with one layer of ghosts around it.
pub(crate) struct Block<T: Jacobi3d> {
    problem: Problem,
    u: DeviceVec<T>,
    unew: DeviceVec<T>,
    faces: [Faces<T>; 2],
    change: DeviceVec<T>,
    residuals: Vec<f64>,
}

#[chare(index = (usize, usize, usize), types = [Block<f32>, Block<f64>])]
impl<T: Jacobi3d + From<f32> + Into<f64>> Block<T> {
    fn new(cx: &Cx<Self>, problem: Problem) -> Result<Self> {
        let (dev, values) = (cx.device(), problem.start_values(cx.index()));
        let mut faces = [const { [const { None }; 6] }; 2];
        for face in Face::ALL.into_iter().filter(|&face| problem.neighbour(cx.index(), face).is_some()) {
            for set in &mut faces {
                set[face.index()] = Some(dev.alloc(face.len(problem.dims()))?);
            }
        }
        let (u, unew) = (dev.from_slice(&values)?, dev.from_slice(&values)?);
        Ok(Block { problem, u, unew, faces, change: dev.alloc(1)?, residuals: Vec::new() })
    }

    /// Goes on for `steps` iterations, and takes the residual of the last one, or of each.
    #[entry]
    async fn solve(&mut self, cx: &Cx<Self>, steps: u64, takes_each: bool) -> Result<()> {
        let (dev, dims) = (cx.device(), self.problem.dims());
        let neighbours = self.neighbours(cx);
        self.send_faces(&dev, &neighbours)?;
        let mut change = dev.host_vec(1)?;
        for step in 1..=steps {
            let mut ghosts = [const { None }; 6];
            for (face, channel) in &neighbours {
                ghosts[*face] = Some(channel.recv().await?);
            }
            dev.launch(
                &T::UNPACK_FACES,
                faces_len(dims),
                (ghosts.each_ref().map(Option::as_ref), &mut self.u, dims),
            )?;
            drop(ghosts);
            dev.launch(&T::STEP, dims, (&self.u, &mut self.unew, &mut self.change, dims))?;
            swap(&mut self.u, &mut self.unew);
            if step < steps {
                self.send_faces(&dev, &neighbours)?;
            }
            if takes_each || step == steps {
                change = dev.read(&self.change, change)?.await?;
                let most: f64 = change[0].into();
                self.residuals.push(cx.allreduce(most, reduce::Max).await?);
            }
        }
        Ok(())
    }

    /// The residuals since they were last taken: the largest change of any cell in an iteration.
    #[entry]
    fn take_residuals(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.residuals)
    }
}

impl<T: Jacobi3d + From<f32> + Into<f64>> Block<T> {
    fn neighbours(&self, cx: &Cx<Self>) -> Vec<Neighbour<T>> {
        let neighbour = |face: Face| {
            let place = self.problem.neighbour(cx.index(), face)?;
            Some((face.index(), cx.channel(&cx.element(place)?, 0)))
        };
        Face::ALL.into_iter().filter_map(neighbour).collect()
    }

    /// Packs the faces into the set that was not sent last, and sends it.
    fn send_faces(&mut self, dev: &Account, neighbours: &[Neighbour<T>]) -> Result<()> {
        let dims = self.problem.dims();
        self.faces.swap(0, 1);
        let faces = self.faces[0].each_mut().map(Option::as_mut);
        dev.launch(&T::PACK_FACES, faces_len(dims), (&self.u, faces, dims))?;
        for (face, channel) in neighbours {
            let cells = self.faces[0][*face].as_ref().expect("made for every neighbour");
            channel.send(cells.share())?;
        }
        Ok(())
    }
}
