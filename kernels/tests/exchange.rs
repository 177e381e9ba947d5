//! The kernels as a program launches them: two blocks that exchange their faces equal one block of their
//! union.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use chare_device::{Account, DeviceSlice, DeviceVec, Devices, HostMode};
use chare_kernels::Face;
use chare_kernels::jacobi2d::{self, Edge, edges_len};
use chare_kernels::jacobi3d::{self, Jacobi3d, faces_len, padded_len, padded_shape};

struct Block {
    account: Account,
    dims: [u32; 3],
    u: DeviceVec<f64>,
    new: DeviceVec<f64>,
    residual: DeviceVec<f64>,
    faces: [DeviceVec<f64>; 6],
}

impl Block {
    fn new(account: Account, dims: [u32; 3], initial: &[f64]) -> Self {
        let array = || account.from_slice(initial).unwrap();
        let (u, new) = (array(), array());
        let residual = account.alloc::<f64>(1).unwrap();
        let faces = Face::ALL.map(|face| account.alloc::<f64>(face.len(dims)).unwrap());
        Block { u, new, residual, faces, dims, account }
    }

    fn step(&mut self) {
        let dims = self.dims;
        self.account.launch(&f64::STEP, dims, (&self.u, &mut self.new, &mut self.residual, dims)).unwrap();
        std::mem::swap(&mut self.u, &mut self.new);
    }

    fn read(&self, buffer: &DeviceVec<f64>) -> Vec<f64> {
        self.account.download(buffer).unwrap().wait().unwrap()
    }
}

/// The cells `from..from + dims[0]` along x of a larger block, with their ghosts.
fn part(whole: &[f64], dims: [u32; 3], from: usize) -> Vec<f64> {
    let [_, y, z] = padded_shape(dims);
    whole[from * y * z..from * y * z + padded_len(dims)].to_vec()
}

fn exchanged(spec: &str, all_at_once: bool) {
    let devices = Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap();
    let account = |label| devices.get(0).account(label);
    let (dims, half) = ([6, 4, 9], [3, 4, 9]);
    let initial: Vec<f64> = (0..padded_len(dims)).map(|n| f64::from((n * 7919 % 1000) as u32)).collect();
    let mut whole = Block::new(account("whole"), dims, &initial);
    let mut low = Block::new(account("low"), half, &part(&initial, half, 0));
    let mut high = Block::new(account("high"), half, &part(&initial, half, 3));
    for _ in 0..10 {
        whole.step();
        for (block, face) in [(&mut low, Face::XHigh), (&mut high, Face::XLow)] {
            let mut faces = block.faces.each_mut().map(Some);
            if all_at_once {
                for absent in Face::ALL.into_iter().filter(|absent| *absent != face) {
                    faces[absent.index()] = None;
                }
                block
                    .account
                    .launch(&jacobi3d::PACK_FACES_F64, faces_len(half), (&block.u, faces, half))
                    .unwrap();
            } else {
                let cells = faces[face.index()].take().unwrap();
                block.account.launch(&jacobi3d::PACK_FACE_F64, half, (&block.u, cells, half, face)).unwrap();
            }
        }
        let (to_high, to_low) = (low.faces[1].share(), high.faces[0].share());
        for (block, face, cells) in [(&mut low, Face::XHigh, &to_low), (&mut high, Face::XLow, &to_high)] {
            if all_at_once {
                let mut faces = [None; 6];
                faces[face.index()] = Some(cells);
                block
                    .account
                    .launch(&jacobi3d::UNPACK_FACES_F64, faces_len(half), (faces, &mut block.u, half))
                    .unwrap();
            } else {
                block
                    .account
                    .launch(&jacobi3d::UNPACK_FACE_F64, half, (cells, &mut block.u, half, face))
                    .unwrap();
            }
            block.step();
        }
        let residual = low.read(&low.residual)[0].max(high.read(&high.residual)[0]);
        assert_eq!(whole.read(&whole.residual), [residual]);
    }
    let expected = whole.read(&whole.u);
    for (block, from) in [(&low, 0), (&high, 3)] {
        let (found, expected) = (block.read(&block.u), part(&expected, half, from));
        // The ghosts between the halves are one step behind; all owned cells are equal.
        let [x_len, y_len, z_len] = padded_shape(half);
        let rows = (1..x_len - 1).flat_map(|x| (1..y_len - 1).map(move |y| (x * y_len + y) * z_len));
        for row in rows {
            let cells = row + 1..row + z_len - 1;
            assert_eq!(found[cells.clone()], expected[cells], "{}", block.account.label());
        }
    }
}

#[test]
fn one_face_at_a_time() {
    for spec in ["host:inline", "host:workers=2"] {
        exchanged(spec, false);
    }
}

#[test]
fn all_faces_at_once() {
    for spec in ["host:inline", "host:workers=2"] {
        exchanged(spec, true);
    }
}

/// A block of cells in two dimensions with its two arrays.
struct Plate {
    account: Account,
    dims: [u32; 2],
    arrays: [DeviceVec<f64>; 2],
    edge: DeviceVec<f64>,
}

impl Plate {
    /// The columns `from..from + dims[1]` of a larger plate, with their ghosts.
    fn new(account: Account, dims: [u32; 2], whole: &[f64], whole_row: usize, from: usize) -> Self {
        let rows = whole.chunks(whole_row).map(|row| &row[from..from + dims[1] as usize + 2]);
        let cells: Vec<f64> = rows.flatten().copied().collect();
        let arrays = [0, 1].map(|_| account.from_slice(&cells).unwrap());
        let edge = account.alloc(dims[0] as usize).unwrap();
        Plate { account, dims, arrays, edge }
    }

    /// Packs the cells at an edge; they are in `edge` then.
    fn pack(&mut self, edge: Edge) {
        let mut edges = [const { None }; 4];
        edges[edge.index()] = Some(&mut self.edge);
        let arguments = (&self.arrays[0], edges, self.dims);
        self.account.launch(&jacobi2d::PACK_EDGES_F64, edges_len(self.dims), arguments).unwrap();
    }

    fn unpack(&mut self, edge: Edge, cells: &DeviceSlice<f64>) {
        let mut edges = [None; 4];
        edges[edge.index()] = Some(cells);
        let arguments = (edges, &mut self.arrays[0], self.dims);
        self.account.launch(&jacobi2d::UNPACK_EDGES_F64, edges_len(self.dims), arguments).unwrap();
    }

    fn step(&mut self) -> f64 {
        let mut residual = self.account.alloc::<f64>(1).unwrap();
        let [u, new] = &mut self.arrays;
        self.account
            .launch(&jacobi2d::JACOBI2D_F64, self.dims, (&*u, new, &mut residual, self.dims))
            .unwrap();
        self.arrays.swap(0, 1);
        self.account.download(&residual).unwrap().wait().unwrap()[0]
    }

    /// The owned cells, row by row.
    fn rows(&self) -> Vec<Vec<f64>> {
        let [rows, row] = jacobi2d::padded_shape(self.dims);
        let cells = self.account.download(&self.arrays[0]).unwrap().wait().unwrap();
        let rows = cells.chunks(row).skip(1).take(rows - 2);
        rows.map(|cells| cells[1..row - 1].to_vec()).collect()
    }
}

#[test]
fn two_plates_are_one() {
    for spec in ["host:inline", "host:workers=2"] {
        let devices = Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap();
        let account = |label| devices.get(0).account(label);
        let initial: Vec<f64> = (0..8 * 14).map(|n| f64::from(n * 7919 % 1000)).collect();
        let mut whole = Plate::new(account("whole"), [6, 12], &initial, 14, 0);
        let mut low = Plate::new(account("low"), [6, 5], &initial, 14, 0);
        let mut high = Plate::new(account("high"), [6, 7], &initial, 14, 5);
        for _ in 0..10 {
            low.pack(Edge::YHigh);
            high.pack(Edge::YLow);
            let (to_high, to_low) = (low.edge.share(), high.edge.share());
            low.unpack(Edge::YHigh, &to_low);
            high.unpack(Edge::YLow, &to_high);
            assert_eq!(whole.step(), low.step().max(high.step()));
        }
        let halves = low.rows().into_iter().zip(high.rows());
        let joined: Vec<Vec<f64>> = halves.map(|(low, high)| [low, high].concat()).collect();
        assert_eq!(whole.rows(), joined);
    }
}

#[test]
fn a_buffer_of_the_wrong_size_is_a_fault_that_says_so() {
    let devices = Devices::open(&"host".parse().unwrap(), HostMode::Inline).unwrap();
    let account = devices.get(0).account("wrong");
    let (u, mut cells) = (account.alloc::<f32>(4 * 4 * 4).unwrap(), account.alloc::<f32>(3).unwrap());
    let dims = [2, 2, 2];
    let done = account.launch(&jacobi3d::PACK_FACE_F32, dims, (&u, &mut cells, dims, Face::YLow)).unwrap();
    let error = done.wait().unwrap_err().to_string();
    assert!(error.contains("pack_face_f32") && error.contains("the cells of face YLow"), "{error}");
}
