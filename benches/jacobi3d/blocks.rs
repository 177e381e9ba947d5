//! The program with the runtime: a chare per block, whose coroutine waits for the faces of its neighbours, launches the step,
//! and sends its own new faces while they are in the cache.
//!
//! It has two sets of faces, used in turns. When the reduction of an iteration is over, all neighbours have read the set of
//! that iteration, so the runtime finds it unshared when it is next written, and writes it in place.

use std::mem::swap;

use chare::device::{Account, DeviceSlice, DeviceVec};
use chare::prelude::*;
use chare_kernels::Face;
use chare_kernels::jacobi3d::{JACOBI3D_F64, PACK_FACES_F64, UNPACK_FACES_F64, faces_len};

use crate::problem::Problem;

/// The cells at the faces of a block; none where there is no neighbour.
type Faces = [Option<DeviceVec<f64>>; 6];

/// The way to the neighbour at the face of that number.
type Neighbour = (usize, Channel<DeviceSlice<f64>>);

/// A block of cells with one layer of ghosts around it.
pub(crate) struct Block {
    problem: Problem,
    u: DeviceVec<f64>,
    unew: DeviceVec<f64>,
    faces: [Faces; 2],
    change: DeviceVec<f64>,
    residuals: Vec<f64>,
}

#[chare(index = (usize, usize, usize))]
impl Block {
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

    /// Goes on for `steps` iterations.
    #[entry]
    async fn solve(&mut self, cx: &Cx<Self>, steps: u64) -> Result<()> {
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
                &UNPACK_FACES_F64,
                faces_len(dims),
                (ghosts.each_ref().map(Option::as_ref), &mut self.u, dims),
            )?;
            drop(ghosts);
            dev.launch(&JACOBI3D_F64, dims, (&self.u, &mut self.unew, &mut self.change, dims))?;
            swap(&mut self.u, &mut self.unew);
            if step < steps {
                self.send_faces(&dev, &neighbours)?;
            }
            change = dev.read(&self.change, change)?.await?;
            self.residuals.push(cx.allreduce(change[0], reduce::Max).await?);
        }
        Ok(())
    }

    /// The largest change of any cell in each iteration since they were last taken.
    #[entry]
    fn take_residuals(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.residuals)
    }
}

impl Block {
    fn neighbours(&self, cx: &Cx<Self>) -> Vec<Neighbour> {
        let neighbour = |face: Face| {
            let place = self.problem.neighbour(cx.index(), face)?;
            Some((face.index(), cx.channel(&cx.element(place)?, 0)))
        };
        Face::ALL.into_iter().filter_map(neighbour).collect()
    }

    /// Packs the faces into the set that was not sent last, and sends it.
    fn send_faces(&mut self, dev: &Account, neighbours: &[Neighbour]) -> Result<()> {
        let dims = self.problem.dims();
        self.faces.swap(0, 1);
        let faces = self.faces[0].each_mut().map(Option::as_mut);
        dev.launch(&PACK_FACES_F64, faces_len(dims), (&self.u, faces, dims))?;
        for (face, channel) in neighbours {
            let cells = self.faces[0][*face].as_ref().expect("made for every neighbour");
            channel.send(cells.share())?;
        }
        Ok(())
    }
}
