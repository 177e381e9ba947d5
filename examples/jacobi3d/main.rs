//! Heat in a box: Jacobi's method on a 3-D field, cut into blocks that each run as a coroutine on a device.
//!
//! Each step replaces every interior cell by the mean of its six neighbours; the outer layer stays as given. A block
//! packs its faces on the device, sends them to its neighbours, waits for theirs (which suspends this block only; other
//! blocks of the PE go on), and launches the step. The largest change of a step is reduced over all blocks.
//!
//! ```text
//! cargo run --release --example jacobi3d -- --input field.npy --steps 500 --output out.npy --image plane.png
//! ```

mod cells;
mod ends;

use std::mem::swap;
use std::time::Instant;

use bytemuck::Pod;
use cells::Cells;
use chare::device::{DeviceSlice, DeviceVec, Language};
use chare::prelude::*;
use chare_examples::Error;
use chare_examples::cli::{self, Invocation};
use chare_examples::decomposition::Decomposition;
use chare_examples::field::{Field, Precision};
use chare_examples::jacobi3d::{Job, Options, Summary};
use chare_examples::progress::Progress;
use chare_kernels::Face;
use chare_kernels::jacobi3d::{Jacobi3d, faces_len, padded_shape};
use ends::{end_of, exit_with};
use ndarray::{Array3, s};
use serde::{Deserialize, Serialize};

/// What every block knows: one allocation, shared by all blocks of the process.
#[derive(Serialize, Deserialize)]
#[serde(bound = "T: Pod")]
struct Problem<T> {
    field: Cells<T>,
    decomposition: Decomposition,
    steps: u32,
    tolerance: f64,
    monitor: Element<Monitor>,
}

/// A block of cells with one layer of ghosts around it. All its arrays live on its device.
struct Block<T: Jacobi3d> {
    problem: Shared<Problem<T>>,
    /// Steps that are done. All that the next one needs is in the block, so its coroutine can be started again anywhere.
    step: u32,
    dims: [u32; 3],
    u: DeviceVec<T>,
    unew: DeviceVec<T>,
    faces: [Option<DeviceVec<T>>; 6],
    change: DeviceVec<T>,
}

#[chare(index = (usize, usize, usize), types = [Block<f32>, Block<f64>])]
impl<T: Jacobi3d + Into<f64>> Block<T> {
    fn new(cx: &Cx<Self>, problem: Shared<Problem<T>>) -> Result<Self> {
        let (x, y, z) = cx.index();
        let halo = problem.decomposition.block_with_halo(problem.field.view(), [x, y, z]);
        let (nx, ny, nz) = halo.dim();
        let dims = [nx as u32 - 2, ny as u32 - 2, nz as u32 - 2];
        let dev = cx.device();
        let (u, unew, change) = (dev.from_array(&halo)?, dev.from_array(&halo)?, dev.alloc(1)?);
        let mut faces = [const { None }; 6];
        for face in Face::ALL.into_iter().filter(|&face| neighbour(cx, face).is_some()) {
            faces[face.index()] = Some(dev.alloc(face.len(dims))?);
        }
        Ok(Block { problem, step: 0, dims, u, unew, faces, change })
    }

    /// Steps until the end; returns the number of steps and the last one's largest change anywhere.
    #[entry(restart)]
    async fn solve(&mut self, cx: &Cx<Self>) -> Result<(u32, f64)> {
        let (dev, dims) = (cx.device(), self.dims);
        let neighbours: Vec<(usize, Channel<DeviceSlice<T>>)> = Face::ALL
            .into_iter()
            .filter_map(|face| Some((face.index(), cx.channel(&neighbour(cx, face)?, 0))))
            .collect();
        let mut change = dev.host_vec(1)?;
        loop {
            let faces = self.faces.each_mut().map(Option::as_mut);
            dev.launch(&T::PACK_FACES, faces_len(dims), (&self.u, faces, dims))?;
            for (face, channel) in &neighbours {
                let cells = self.faces[*face].as_ref().expect("made for every neighbour");
                channel.send(cells.share())?;
            }
            let mut ghosts = [const { None }; 6];
            for (face, channel) in &neighbours {
                ghosts[*face] = Some(channel.recv().await?);
            }
            dev.launch(
                &T::UNPACK_FACES,
                faces_len(dims),
                (ghosts.each_ref().map(Option::as_ref), &mut self.u, dims),
            )?;
            drop(ghosts); // while they live, the neighbours' next faces would need memory of their own
            dev.launch(&T::STEP, dims, (&self.u, &mut self.unew, &mut self.change, dims))?;
            swap(&mut self.u, &mut self.unew);
            change = dev.read(&self.change, change)?.await?;
            let residual = cx.allreduce(change[0].into(), reduce::Max).await?;
            self.step += 1;
            let step = self.step;
            if !residual.is_finite() {
                return Err(Error::Overflow { step, residual }.into());
            }
            if cx.index() == (0, 0, 0) {
                self.problem.monitor.reached(step, residual).send();
            }
            if step == self.problem.steps || residual <= self.problem.tolerance {
                return Ok((step, residual));
            }
            cx.sync_point().await;
        }
    }

    /// The block's own cells.
    #[entry]
    async fn cells(&mut self, cx: &Cx<Self>) -> Result<Cells<T>> {
        let padded = cx.device().to_array(&self.u, padded_shape(self.dims))?.await?;
        let [nx, ny, nz] = self.dims.map(|extent| extent as usize);
        Ok(padded.slice(s![1..=nx, 1..=ny, 1..=nz]).to_owned().into())
    }
}

/// The block at a face of this one, unless that face is a part of the boundary.
fn neighbour<T: Jacobi3d + Into<f64>>(cx: &Cx<Block<T>>, face: Face) -> Option<Element<Block<T>>> {
    let (x, y, z) = cx.index();
    let [dx, dy, dz] = face.offset().map(|offset| offset as isize);
    cx.element((x.checked_add_signed(dx)?, y.checked_add_signed(dy)?, z.checked_add_signed(dz)?))
}

/// Shows how far the run has come; on PE 0.
struct Monitor(Option<Progress>);

#[chare]
impl Monitor {
    fn new(steps: u32, quiet: bool) -> Self {
        Monitor(Some(Progress::on_stderr(steps.into(), quiet)))
    }

    #[entry]
    fn reached(&mut self, step: u32, residual: f64) {
        if let Some(progress) = &mut self.0 {
            progress.reached(step.into(), residual);
        }
    }

    #[entry]
    fn finish(&mut self) {
        if let Some(progress) = self.0.take() {
            progress.finish();
        }
    }
}

/// Runs the problem; returns the resulting field, the steps and the last residual, and the seconds of the steps alone.
async fn run<T: Jacobi3d + Into<f64>>(rt: &Runtime, problem: Problem<T>) -> Result<(Field, (u32, f64), f64)>
where
    Field: From<Array3<T>>,
{
    let (field, decomposition, monitor) = (problem.field.clone(), problem.decomposition, problem.monitor);
    let mut field = Array3::from(field);
    let blocks = rt.array::<Block<T>>(decomposition.blocks().into());
    let blocks = blocks.create(Shared::new(problem)).await.map_err(end_of)?;
    let start = Instant::now();
    let ends = blocks.solve().gather().await.map_err(end_of)?;
    let seconds = start.elapsed().as_secs_f64();
    monitor.finish().await?;
    for (index, cells) in decomposition.indices().zip(blocks.cells().gather().await?) {
        decomposition.place(field.view_mut(), index, cells.view());
    }
    Ok((field.into(), ends[0], seconds))
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    let mut options = match cli::parse::<Options>(&rt.args()).map_err(exit_with)? {
        Invocation::Run(options) => options,
        Invocation::Print(text) => return cli::print(&text).map_err(exit_with),
    };
    if rt.device_language() == Language::Wgsl && options.input.is_none() {
        options.precision.get_or_insert(Precision::F32);
    }
    let Job { field, decomposition, steps, tolerance, results } =
        Job::prepare(&options, rt.num_pes()).map_err(exit_with)?;
    let monitor = rt.single::<Monitor>().on_pe(0).create((steps, rt.is_quiet() || options.json)).await?;
    let tolerance = tolerance.unwrap_or(-1.0);
    let (field, (steps, residual), seconds) = match field {
        Field::F32(field) => {
            run(&rt, Problem { field: field.into(), decomposition, steps, tolerance, monitor }).await?
        }
        Field::F64(_) if !f64::STEP.is_written_in(rt.device_language()) => {
            return Err(exit_with(Error::NoKernel { device: rt.device_names().join(", ") }));
        }
        Field::F64(field) => {
            run(&rt, Problem { field: field.into(), decomposition, steps, tolerance, monitor }).await?
        }
    };
    let device = rt.device_names().join(", ");
    let summary = Summary::new(&decomposition, seconds, steps, residual, rt.num_pes(), device);
    results.deliver(&field, &summary).map_err(exit_with)
}
