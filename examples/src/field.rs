//! A three-dimensional field of `f32` or `f64`, and its `.npy` file.
//!
//! A [`Field`] has an interior (every extent is at least 3), holds finite numbers only, and lies in C order: the last
//! index is contiguous. Whoever computes on it need not check again.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::Path;

use ndarray::{Array2, Array3, ArrayView3, Axis, ShapeBuilder, s};

use crate::Error;
use crate::npy::{self, Element, Header, HeaderError};
use crate::output::Output;

/// The number of cells along each axis, the boundary layer included.
pub type Extents = [usize; 3];

/// What the elements of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Single precision, NumPy's `float32`.
    F32,
    /// Double precision, NumPy's `float64`.
    F64,
}

/// A field in one of the two precisions.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// Single precision.
    F32(Array3<f32>),
    /// Double precision.
    F64(Array3<f64>),
}

impl From<Array3<f32>> for Field {
    fn from(field: Array3<f32>) -> Field {
        Field::F32(field)
    }
}

impl From<Array3<f64>> for Field {
    fn from(field: Array3<f64>) -> Field {
        Field::F64(field)
    }
}

impl Field {
    /// Reads a `.npy` file of version 1, 2 or 3, in C or Fortran order and either byte order.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::NotNpy`], [`Error::Dimensions`], [`Error::ElementType`],
    /// [`Error::Length`], [`Error::NoInterior`], [`Error::Memory`] or [`Error::NotFinite`] if it is no field.
    pub fn read(path: &Path) -> Result<Field, Error> {
        let unreadable = |reason: io::Error| Error::Read { path: path.to_owned(), reason };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unreadable(io::Error::other("it is not a file")));
        }
        let mut reader = BufReader::new(file);
        let header = Header::read(&mut reader).map_err(|failure| match failure {
            HeaderError::Io(reason) => unreadable(reason),
            other => Error::NotNpy { path: path.to_owned(), reason: other.to_string() },
        })?;
        let found_bytes = metadata.len() - reader.stream_position().map_err(unreadable)?;

        let &[nx, ny, nz] = header.shape.as_slice() else {
            return Err(Error::Dimensions { path: path.to_owned(), found: header.shape.len() });
        };
        let extents = [nx, ny, nz];
        require_interior(extents, || format!("{path:?}"))?;
        let precision = match &header.descriptor {
            single if f32::is_described_by(single) => Precision::F32,
            double if f64::is_described_by(double) => Precision::F64,
            other => {
                return Err(Error::ElementType { path: path.to_owned(), found: other.clone() });
            }
        };
        let promised_bytes = size_bytes(extents, precision)
            .ok_or_else(|| Error::Memory { field: format!("{path:?}"), extents })?;
        if promised_bytes != found_bytes {
            return Err(Error::Length { path: path.to_owned(), promised_bytes, found_bytes });
        }
        match precision {
            Precision::F32 => Ok(Field::F32(read_elements(path, &mut reader, &header, extents)?)),
            Precision::F64 => Ok(Field::F64(read_elements(path, &mut reader, &header, extents)?)),
        }
    }

    /// The built-in problem: a box at 20 degrees of which one face, where the second index is 0, is put on a hot plate
    /// at 100, and the others on ice at 0. Edges belong to the hot plate.
    ///
    /// # Errors
    /// [`Error::NoInterior`] if an extent is less than 3, [`Error::Memory`] if the box does not fit in memory.
    pub fn hot_plate(extents: Extents, precision: Precision) -> Result<Field, Error> {
        let field = || "--grid".to_owned();
        require_interior(extents, field)?;
        size_bytes(extents, precision)
            .and_then(require_memory)
            .ok_or_else(|| Error::Memory { field: field(), extents })?;
        Ok(match precision {
            Precision::F32 => Field::F32(heated_box(extents, [20.0, 100.0, 0.0])),
            Precision::F64 => Field::F64(heated_box(extents, [20.0, 100.0, 0.0])),
        })
    }

    /// Writes the field as `.npy`, in C order and the machine's byte order.
    ///
    /// # Errors
    /// [`Error::Write`] if the system refuses; nothing is left behind then.
    pub fn write(&self, output: &Output) -> Result<(), Error> {
        match self {
            Field::F32(array) => write_elements(output, array),
            Field::F64(array) => write_elements(output, array),
        }
    }

    /// The extents, the boundary layer included.
    pub fn extents(&self) -> Extents {
        match self {
            Field::F32(array) => array.dim().into(),
            Field::F64(array) => array.dim().into(),
        }
    }

    /// The precision of the elements.
    pub fn precision(&self) -> Precision {
        match self {
            Field::F32(_) => Precision::F32,
            Field::F64(_) => Precision::F64,
        }
    }

    /// The plane in the middle of the first axis, and its index there.
    pub fn middle_slice(&self) -> (usize, Array2<f64>) {
        fn slice<T: Copy + Into<f64>>(array: ArrayView3<'_, T>) -> (usize, Array2<f64>) {
            let middle = array.len_of(Axis(0)) / 2;
            (middle, array.index_axis(Axis(0), middle).mapv(Into::into))
        }
        match self {
            Field::F32(array) => slice(array.view()),
            Field::F64(array) => slice(array.view()),
        }
    }
}

fn require_interior(extents: Extents, field: impl FnOnce() -> String) -> Result<(), Error> {
    if extents.iter().all(|&extent| extent >= 3) {
        return Ok(());
    }
    Err(Error::NoInterior { field: field(), extents })
}

fn size_bytes(extents: Extents, precision: Precision) -> Option<u64> {
    let element_bytes = match precision {
        Precision::F32 => size_of::<f32>(),
        Precision::F64 => size_of::<f64>(),
    };
    extents.iter().try_fold(element_bytes as u64, |bytes, &extent| bytes.checked_mul(extent as u64))
}

/// Asks for the memory and gives it back: an allocation that fails later would abort the process without a message.
fn require_memory(bytes: u64) -> Option<()> {
    Vec::<u8>::new().try_reserve_exact(usize::try_from(bytes).ok()?).ok()
}

/// A box of one temperature inside, one on the face where the second index is 0, and one on the other faces.
fn heated_box<T: Clone>(extents: Extents, [inside, plate, ice]: [T; 3]) -> Array3<T> {
    let mut array = Array3::from_elem(extents, ice);
    let [x, y, z] = extents.map(|extent| 1..extent - 1);
    array.slice_mut(s![x, y, z]).fill(inside);
    array.index_axis_mut(Axis(1), 0).fill(plate);
    array
}

fn read_elements<T: Element>(
    path: &Path,
    reader: &mut BufReader<File>,
    header: &Header,
    extents: Extents,
) -> Result<Array3<T>, Error> {
    let elements = npy::read_elements::<T>(reader, &header.descriptor, extents.iter().product());
    let elements = elements.map_err(|reason| match reason.kind() {
        io::ErrorKind::OutOfMemory => Error::Memory { field: format!("{path:?}"), extents },
        _ => Error::Read { path: path.to_owned(), reason },
    })?;
    let array = Array3::from_shape_vec(extents.set_f(header.fortran_order), elements)
        .expect("exactly the number of elements that the shape asks for was read");
    let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
    match array.indexed_iter().find(|(_, value)| !(**value).into().is_finite()) {
        None => Ok(array),
        Some((index, &value)) => {
            Err(Error::NotFinite { path: path.to_owned(), value: value.into(), index: index.into() })
        }
    }
}

fn write_elements<T: Element>(output: &Output, array: &Array3<T>) -> Result<(), Error> {
    output.write(|writer| {
        let shape = array.shape().to_vec();
        Header { descriptor: T::descriptor(), fortran_order: false, shape }.write(writer)?;
        npy::write_elements(writer, array.as_standard_layout().as_slice().expect("it is in standard layout"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use ndarray::Array;
    use tempfile::TempDir;

    use super::*;

    fn folder() -> TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn ramp(extents: Extents) -> Array3<f64> {
        Array::from_shape_fn(extents, |(i, j, k)| 100.0 * i as f64 + 10.0 * j as f64 + k as f64)
    }

    /// A version 1 file with the given header dictionary and elements, made without the library.
    fn npy(folder: &TempDir, dictionary: &str, elements: &[u8]) -> PathBuf {
        let path = folder.path().join("made.npy");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(dictionary.len() as u16 + 1).to_le_bytes());
        bytes.extend_from_slice(dictionary.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(elements);
        fs::write(&path, bytes).expect("written");
        path
    }

    fn dictionary(descriptor: &str, fortran: bool, shape: &str) -> String {
        let order = if fortran { "True" } else { "False" };
        format!("{{'descr': '{descriptor}', 'fortran_order': {order}, 'shape': {shape}, }}")
    }

    fn refusal(path: &Path) -> String {
        let line = Field::read(path).expect_err("it is no field").to_string();
        assert!(line.contains(&format!("{path:?}")) && !line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = folder();
        let output = Output::at(folder.path().join("a.npy")).expect("a good place");
        for field in [Field::F64(ramp([3, 4, 5])), Field::F32(ramp([3, 4, 5]).mapv(|x| x as f32))] {
            field.write(&output).expect("written");
            assert_eq!(Field::read(output.path()).expect("read"), field);
        }
    }

    #[test]
    fn fortran_order_and_big_endian_become_the_same_field() {
        let folder = folder();
        let (ours, mut bytes) = (ramp([3, 4, 5]), Vec::new());
        for value in ours.t().iter() {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        let path = npy(&folder, &dictionary(">f8", true, "(3, 4, 5)"), &bytes);
        let Field::F64(read) = Field::read(&path).expect("read") else { panic!("it holds f64") };
        assert_eq!(read, ours);
        assert!(read.is_standard_layout());
    }

    #[test]
    fn a_file_that_is_no_field_is_refused_with_its_reason() {
        let folder = folder();
        let elements = vec![0_u8; 3 * 4 * 5 * 8];
        let made =
            |descriptor: &str, shape: &str| npy(&folder, &dictionary(descriptor, false, shape), &elements);
        assert!(refusal(&folder.path().join("none.npy")).contains("No such file"));
        assert!(refusal(folder.path()).contains("it is not a file"));
        assert!(refusal(&made("<f8", "(12, 5)")).contains("has 2 dimension(s)"));
        assert!(refusal(&made("<f8", "(1, 3, 4, 5)")).contains("has 4 dimension(s)"));
        assert!(refusal(&made("<i8", "(3, 4, 5)")).contains("elements of type '<i8'"));
        assert!(refusal(&made("<f2", "(3, 4, 5)")).contains("elements of type '<f2'"));
        assert!(refusal(&made("<f8", "(2, 6, 5)")).contains("extents 2 x 6 x 5"));
        assert!(refusal(&made("<f8", "(3, 0, 5)")).contains("extents 3 x 0 x 5"));
        assert!(refusal(&made("<f8", "(3, 4, 6)")).contains("promises 576 bytes of elements, 480 follow"));
        assert!(refusal(&made("<f4", "(3, 4, 5)")).contains("promises 240 bytes of elements, 480 follow"));
        let huge = "(9223372036854775807, 9223372036854775807, 3)";
        assert!(refusal(&made("<f8", huge)).contains("memory does not hold"));
        assert!(refusal(&made("<f8", "(-3, 4, 5)")).contains("is not a .npy file"));
        assert!(refusal(&npy(&folder, "{'descr': ", &[])).contains("no dictionary"));
        assert!(refusal(&npy(&folder, "{'descr': '<f8'}", &[])).contains("no dictionary"));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let folder = folder();
        let path = npy(&folder, &dictionary("<f8", false, "(3, 3, 3)"), &[0; 27 * 8]);
        let whole = fs::read(&path).expect("readable");
        Field::read(&path).expect("the whole file is a field");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            let line = refusal(&path);
            assert!(line.contains("is not a .npy file") || line.contains("is damaged"), "{line}");
        }
        fs::write(&path, [b"P", &whole[..]].concat()).expect("written");
        assert!(refusal(&path).contains("does not start with"));
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let folder = folder();
        let output = Output::at(folder.path().join("hole.npy")).expect("a good place");
        let mut array = ramp([3, 4, 5]);
        array[[2, 3, 0]] = f64::NAN;
        array[[1, 2, 4]] = f64::NEG_INFINITY;
        Field::F64(array.clone()).write(&output).expect("written");
        assert!(refusal(output.path()).contains("holds -inf at index [1, 2, 4]"));
        array[[1, 2, 4]] = 0.0;
        Field::F32(array.mapv(|x| x as f32)).write(&output).expect("written");
        assert!(refusal(output.path()).contains("holds NaN at index [2, 3, 0]"));
    }

    #[test]
    fn the_box_is_hot_below_and_cold_around() {
        let Ok(Field::F64(array)) = Field::hot_plate([4, 5, 6], Precision::F64) else {
            panic!("small, valid")
        };
        for ((i, j, k), &value) in array.indexed_iter() {
            let expected = match (i, j, k) {
                (_, 0, _) => 100.0,
                (1..=2, 1..=3, 1..=4) => 20.0,
                _ => 0.0,
            };
            assert_eq!(value, expected, "at [{i}, {j}, {k}]");
        }
        assert!(matches!(Field::hot_plate([3, 2, 5], Precision::F32), Err(Error::NoInterior { .. })));
        let vast = Field::hot_plate([1 << 21, 1 << 21, 1 << 20], Precision::F32);
        assert!(matches!(vast, Err(Error::Memory { .. })));
    }

    #[test]
    fn the_middle_slice_is_the_middle_of_the_first_axis() {
        let (index, slice) = Field::F64(ramp([5, 3, 4])).middle_slice();
        assert_eq!((index, slice.dim()), (2, (3, 4)));
        assert_eq!(slice[[1, 3]], 213.0);
    }
}
