//! The program without the runtime: a loop over blocks on each thread, and one barrier an iteration.
//!
//! Threads share their faces only, in two sets: each iteration reads the one and writes the other. The locks around them are
//! taken once an iteration and thread, and nobody waits at them: who reads a set and who writes it are a barrier apart.

use std::mem::swap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::thread;

use chare_kernels::Face;
use chare_kernels::jacobi3d::{jacobi3d_step, pack_face, unpack_face};
use crossbeam_utils::CachePadded;

use crate::problem::Problem;

/// All blocks, by the thread that works on them: the same ones as on the PE of that number.
pub(crate) struct Plain {
    dims: [u32; 3],
    teams: Vec<Vec<Block>>,
    faces: [FaceSet; 2],
}

/// The faces of all blocks, by thread.
type FaceSet = Vec<CachePadded<RwLock<Vec<Faces>>>>;

/// The cells at the faces of one block; empty where there is no neighbour.
type Faces = [Vec<f64>; 6];

struct Block {
    u: Vec<f64>,
    unew: Vec<f64>,
    /// The thread of the neighbour at each face, and its place there.
    neighbours: [Option<(usize, usize)>; 6],
}

/// What the threads of one run share besides.
struct Meeting {
    barrier: SpinBarrier,
    /// The largest change in the blocks of each thread, as bits; in turns, as the faces are.
    changes: [Vec<CachePadded<AtomicU64>>; 2],
}

impl Problem {
    /// The blocks in row-major order, as the elements of an array are numbered.
    fn indices(self) -> impl Iterator<Item = (usize, usize, usize)> {
        let (nx, ny, nz) = self.blocks();
        (0..nx).flat_map(move |x| (0..ny).flat_map(move |y| (0..nz).map(move |z| (x, y, z))))
    }

    /// The place of a block in that order.
    fn number(self, (x, y, z): (usize, usize, usize)) -> usize {
        let (_, ny, nz) = self.blocks();
        (x * ny + y) * nz + z
    }
}

impl Plain {
    pub(crate) fn new(problem: Problem, threads: usize) -> Self {
        let block_count = problem.indices().count();
        let first_of = |thread: usize| thread * block_count / threads;
        let home = |number: usize| {
            let thread = (0..threads).rfind(|&thread| first_of(thread) <= number).unwrap_or(0);
            (thread, number - first_of(thread))
        };
        let (mut teams, mut faces) = (Vec::new(), [Vec::new(), Vec::new()]);
        for thread in 0..threads {
            let own = || problem.indices().take(first_of(thread + 1)).skip(first_of(thread));
            let team = own().map(|index| {
                let values: Vec<f64> = problem.start_values(index);
                let neighbour =
                    |face| problem.neighbour(index, face).map(|place| home(problem.number(place)));
                Block { u: values.clone(), unew: values, neighbours: Face::ALL.map(neighbour) }
            });
            let team: Vec<Block> = team.collect();
            let cells = |block: &Block| {
                Face::ALL.map(|face| match block.neighbours[face.index()] {
                    Some(_) => vec![0.0; face.len(problem.dims())],
                    None => Vec::new(),
                })
            };
            for set in &mut faces {
                set.push(CachePadded::new(RwLock::new(team.iter().map(cells).collect())));
            }
            teams.push(team);
        }
        Plain { dims: problem.dims(), teams, faces }
    }

    /// Goes on for `steps` iterations; returns the largest change of each.
    pub(crate) fn solve(&mut self, steps: u64) -> Vec<f64> {
        let (dims, faces) = (self.dims, &self.faces);
        let changes = || self.teams.iter().map(|_| CachePadded::default()).collect();
        let meeting =
            &Meeting { barrier: SpinBarrier::new(self.teams.len()), changes: [changes(), changes()] };
        thread::scope(|scope| {
            let mut teams = self.teams.iter_mut().enumerate();
            let first = teams.next();
            for (thread, team) in teams {
                scope.spawn(move || meeting.work(thread, team, faces, dims, steps));
            }
            first.map(|(thread, team)| meeting.work(thread, team, faces, dims, steps)).unwrap_or_default()
        })
    }
}

impl Meeting {
    /// The loop of one thread.
    fn work(
        &self,
        thread: usize,
        team: &mut [Block],
        faces: &[FaceSet; 2],
        dims: [u32; 3],
        steps: u64,
    ) -> Vec<f64> {
        let write = |set: usize| faces[set][thread].write().unwrap_or_else(PoisonError::into_inner);
        for (block, faces) in team.iter().zip(write(0).iter_mut()) {
            block.pack(faces, dims);
        }
        self.barrier.wait();
        let mut residuals = Vec::with_capacity(steps as usize);
        let (mut now, mut next) = (0, 1);
        for step in 1..=steps {
            let ghosts: Vec<_> =
                faces[now].iter().map(|faces| faces.read().unwrap_or_else(PoisonError::into_inner)).collect();
            let mut change = 0.0_f64;
            for (block, faces) in team.iter_mut().zip(write(next).iter_mut()) {
                block.unpack(|(thread, place), face| &ghosts[thread][place][face.opposite().index()], dims);
                change = change.max(jacobi3d_step(&block.u, &mut block.unew, dims));
                swap(&mut block.u, &mut block.unew);
                if step < steps {
                    block.pack(faces, dims);
                }
            }
            drop(ghosts);
            // Relaxed: the barrier orders it.
            self.changes[now][thread].store(change.to_bits(), Ordering::Relaxed);
            self.barrier.wait();
            let changes =
                self.changes[now].iter().map(|change| f64::from_bits(change.load(Ordering::Relaxed)));
            residuals.push(changes.fold(0.0, f64::max));
            swap(&mut now, &mut next);
        }
        residuals
    }
}

impl Block {
    fn pack(&self, faces: &mut Faces, dims: [u32; 3]) {
        for (face, cells) in Face::ALL.into_iter().zip(faces) {
            if self.neighbours[face.index()].is_some() {
                pack_face(&self.u, cells, dims, face);
            }
        }
    }

    fn unpack<'a>(&mut self, cells_of: impl Fn((usize, usize), Face) -> &'a Vec<f64>, dims: [u32; 3]) {
        for face in Face::ALL {
            if let Some(neighbour) = self.neighbours[face.index()] {
                unpack_face(cells_of(neighbour, face), &mut self.u, dims, face);
            }
        }
    }
}

/// A barrier whose waiters spin.
struct SpinBarrier {
    threads: usize,
    arrived: CachePadded<AtomicUsize>,
    generation: CachePadded<AtomicUsize>,
}

impl SpinBarrier {
    fn new(threads: usize) -> Self {
        SpinBarrier { threads, arrived: CachePadded::default(), generation: CachePadded::default() }
    }

    fn wait(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        // Release, acquire: what each thread did before is seen by the last one, whose store brings it to all.
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation + 1, Ordering::Release);
        } else {
            while self.generation.load(Ordering::Acquire) == generation {
                std::hint::spin_loop();
            }
        }
    }
}
