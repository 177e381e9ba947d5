//! The kernels as a program launches them: two blocks that exchange their faces equal one block of their
//! union.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use chare_device::{Account, DeviceVec, Devices, HostMode};
use chare_kernels::Face;
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
