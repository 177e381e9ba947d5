//! NumPy's `.npy` format, for elements that are floating-point numbers: versions 1 to 3, either byte order.
//!
//! A header is read under a bound and without recursion, so no file can exhaust memory or stack. It is written here
//! because the crate for it brings a parser generator, big integers and an assembler file: twenty crates and a fifth
//! of the example's build, for one line of text.

use std::io::{self, Read, Write};

use bytemuck::Pod;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
const ALIGNMENT_BYTES: usize = 64;

/// The longest header that is read; NumPy's own for a plain array has 118 bytes.
const LONGEST_HEADER_BYTES: usize = 64 * 1024;

/// The description of an array, as it stands before the elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The element type in NumPy's words, such as `'<f8'`, as it was written.
    pub(crate) descriptor: String,
    /// Whether the first index, not the last, runs fastest.
    pub(crate) fortran_order: bool,
    /// The extents.
    pub(crate) shape: Vec<usize>,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("{0}")]
    Io(io::Error),
    #[error("it does not start with the letters \\x93NUMPY")]
    Magic,
    #[error("version {0}.{1} of the format is unknown")]
    Version(u8, u8),
    #[error("it ends inside its header")]
    Cut,
    #[error("its header has {0} bytes, more than {LONGEST_HEADER_BYTES}")]
    TooLong(usize),
    #[error("its header is no dictionary of descr, fortran_order and shape")]
    Dictionary,
}

impl From<io::Error> for HeaderError {
    fn from(reason: io::Error) -> HeaderError {
        if reason.kind() == io::ErrorKind::UnexpectedEof { HeaderError::Cut } else { HeaderError::Io(reason) }
    }
}

impl Header {
    /// Reads a header and leaves `reader` at the first element.
    pub(crate) fn read(reader: &mut impl Read) -> Result<Header, HeaderError> {
        let mut start = [0; 8];
        reader.read_exact(&mut start)?;
        let [magic @ .., major, minor] = start;
        if magic != *MAGIC {
            return Err(HeaderError::Magic);
        }
        let length_bytes = match (major, minor) {
            (1, 0) => 2,
            (2 | 3, 0) => 4,
            _ => return Err(HeaderError::Version(major, minor)),
        };
        let mut length = [0; 4];
        reader.read_exact(&mut length[..length_bytes])?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST_HEADER_BYTES {
            return Err(HeaderError::TooLong(length));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text)?;
        let text = str::from_utf8(&text).map_err(|_| HeaderError::Dictionary)?;
        parse_dictionary(text).ok_or(HeaderError::Dictionary)
    }

    /// Writes the header in version 1, padded so that the elements are aligned.
    pub(crate) fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        let Header { descriptor, fortran_order, shape } = self;
        let order = if *fortran_order { "True" } else { "False" };
        let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
        let mut text = format!(
            "{{'descr': {descriptor}, 'fortran_order': {order}, 'shape': ({}), }}",
            extents.trim_end()
        );
        let prefix_bytes = MAGIC.len() + 2 + 2;
        let total_bytes = (prefix_bytes + text.len() + 1).next_multiple_of(ALIGNMENT_BYTES);
        text.extend(std::iter::repeat_n(' ', total_bytes - prefix_bytes - text.len() - 1));
        text.push('\n');
        writer.write_all(MAGIC)?;
        writer.write_all(&[1, 0])?;
        writer.write_all(&u16::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes())?;
        writer.write_all(text.as_bytes())
    }
}

/// An element type: its name in a header, and its two byte orders.
pub(crate) trait Element: Pod + Into<f64> {
    /// The kind and the size, as in `f8`.
    const KIND: &str;

    /// The number with the opposite byte order.
    fn swap_bytes(self) -> Self;

    /// The descriptor for this machine's byte order.
    fn descriptor() -> String {
        let order = if cfg!(target_endian = "big") { '>' } else { '<' };
        format!("'{order}{}'", Self::KIND)
    }

    /// Whether a descriptor means this type, in either byte order.
    fn is_described_by(descriptor: &str) -> bool {
        let plain = descriptor.trim_matches(['\'', '"']);
        plain.strip_prefix(['<', '>']) == Some(Self::KIND)
    }
}

impl Element for f32 {
    const KIND: &str = "f4";

    fn swap_bytes(self) -> f32 {
        f32::from_bits(self.to_bits().swap_bytes())
    }
}

impl Element for f64 {
    const KIND: &str = "f8";

    fn swap_bytes(self) -> f64 {
        f64::from_bits(self.to_bits().swap_bytes())
    }
}

/// Reads the elements that a header of this type describes, in the order of the file.
pub(crate) fn read_elements<T: Element>(
    reader: &mut impl Read,
    descriptor: &str,
    count: usize,
) -> io::Result<Vec<T>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
    elements.resize(count, T::zeroed());
    reader.read_exact(bytemuck::cast_slice_mut(&mut elements))?;
    if descriptor != T::descriptor() {
        elements.iter_mut().for_each(|element: &mut T| *element = element.swap_bytes());
    }
    Ok(elements)
}

/// Writes elements in this machine's byte order.
pub(crate) fn write_elements<T: Element>(writer: &mut impl Write, elements: &[T]) -> io::Result<()> {
    writer.write_all(bytemuck::cast_slice(elements))
}

/// Reads the Python dictionary of a header; the keys may come in any order.
fn parse_dictionary(text: &str) -> Option<Header> {
    let (mut descriptor, mut fortran_order, mut shape) = (None, None, None);
    let mut rest = Rest(text);
    rest.token("{")?;
    while rest.token("}").is_none() {
        let key = rest.quoted()?;
        rest.token(":")?;
        match key {
            "'descr'" | "\"descr\"" => descriptor = Some(rest.value()?.to_owned()),
            "'fortran_order'" | "\"fortran_order\"" => fortran_order = Some(rest.truth()?),
            "'shape'" | "\"shape\"" => shape = Some(rest.tuple()?),
            _ => return None,
        }
        if rest.token(",").is_none() {
            rest.token("}")?;
            break;
        }
    }
    let closed = rest.0.trim().is_empty();
    closed.then_some(Header { descriptor: descriptor?, fortran_order: fortran_order?, shape: shape? })
}

/// What of a text is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Takes a token, and the space before it.
    fn token(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// A string with its quotes.
    fn quoted(&mut self) -> Option<&'a str> {
        self.0 = self.0.trim_start();
        let quote = self.0.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
        let length = self.0[1..].find(quote)? + 2;
        Some(self.take(length))
    }

    /// A string, or anything in brackets: a type with fields is a list.
    fn value(&mut self) -> Option<&'a str> {
        self.0 = self.0.trim_start();
        if !self.0.starts_with(['[', '(']) {
            return self.quoted();
        }
        let mut depth = 0_usize;
        for (position, letter) in self.0.char_indices() {
            match letter {
                '[' | '(' => depth += 1,
                ']' | ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(self.take(position + 1));
            }
        }
        None
    }

    fn truth(&mut self) -> Option<bool> {
        match self.token("True") {
            Some(()) => Some(true),
            None => self.token("False").map(|()| false),
        }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut numbers = Vec::new();
        self.token("(")?;
        while self.token(")").is_none() {
            self.0 = self.0.trim_start();
            let digits = self.0.find(|letter: char| !letter.is_ascii_digit())?;
            numbers.push(self.take(digits).parse().ok()?);
            // Python 2 wrote long integers with a letter.
            let _ = self.token("L");
            if self.token(",").is_none() {
                self.token(")")?;
                break;
            }
        }
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(descriptor: &str, fortran_order: bool, shape: &[usize]) -> Header {
        Header { descriptor: descriptor.into(), fortran_order, shape: shape.into() }
    }

    fn with_version(version: [u8; 2], text: &str) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &version].concat();
        let length = (text.len() as u32).to_le_bytes();
        bytes.extend_from_slice(if version[0] == 1 { &length[..2] } else { &length });
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Header, String> {
        Header::read(&mut &*bytes).map_err(|failure| failure.to_string())
    }

    #[test]
    fn headers_are_read_as_numpy_writes_them() {
        let plain = "{'descr': '<f8', 'fortran_order': False, 'shape': (37, 24, 41), }            \n";
        for version in [[1, 0], [2, 0], [3, 0]] {
            assert_eq!(read(&with_version(version, plain)), Ok(header("'<f8'", false, &[37, 24, 41])));
        }
        let cases = [
            ("{'descr': '>f4', 'fortran_order': True, 'shape': (5,)}", header("'>f4'", true, &[5])),
            ("{\"shape\":(),\"descr\":\"|u1\",\"fortran_order\":False}\n", header("\"|u1\"", false, &[])),
            ("{'shape': (3L, 4L), 'fortran_order': False, 'descr': '<f8'}", header("'<f8'", false, &[3, 4])),
            (
                "{'descr': [('x', '<f8', (2,)), ('y', '<i4')], 'fortran_order': False, 'shape': (2, ), }",
                header("[('x', '<f8', (2,)), ('y', '<i4')]", false, &[2]),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(&with_version([1, 0], text)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_with_its_reason() {
        let plain = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3, 3), }";
        assert_eq!(read(b"GIF89a, or anything"), Err("it does not start with the letters \\x93NUMPY".into()));
        assert_eq!(read(&with_version([4, 0], plain)), Err("version 4.0 of the format is unknown".into()));
        let mut long = with_version([2, 0], plain);
        long[8..12].fill(0xff);
        assert_eq!(read(&long), Err("its header has 4294967295 bytes, more than 65536".into()));
        let whole = with_version([1, 0], plain);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err("it ends inside its header".into()), "{length} bytes");
        }
        let cases = [
            "",
            "{}",
            "{",
            "[]",
            "{'descr': '<f8', 'fortran_order': False}",
            "{'descr': '<f8', 'fortran_order': 0, 'shape': (3,)}",
            "{'descr': <f8, 'fortran_order': False, 'shape': (3,)}",
            "{'descr': [[[, 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'more': 1}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} trailing",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3",
        ];
        for text in cases {
            assert_eq!(parse_dictionary(text), None, "{text}");
        }
    }

    #[test]
    fn no_changed_letter_and_no_depth_of_brackets_brings_it_down() {
        let plain = "{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (3, 3, 3), }";
        for position in 0..plain.len() {
            for letter in "'\"([{}]),:L0\u{e9} ".chars() {
                let changed = format!("{}{letter}{}", &plain[..position], &plain[position + 1..]);
                if let Some(header) = parse_dictionary(&changed) {
                    assert!(header.shape.len() <= 3, "{changed}");
                }
            }
        }
        let deep = format!("{{'descr': {}", "[".repeat(LONGEST_HEADER_BYTES - 10));
        assert_eq!(parse_dictionary(&deep), None);
    }

    #[test]
    fn what_is_written_is_read_back_aligned() {
        for shape in [&[][..], &[7], &[3, 4, 5], &[1_000_000_000_000; 20]] {
            let (ours, mut bytes) = (header("'<f8'", false, shape), Vec::new());
            ours.write(&mut bytes).expect("memory takes everything");
            assert_eq!(bytes.len() % ALIGNMENT_BYTES, 0);
            assert_eq!(bytes.last(), Some(&b'\n'));
            assert_eq!(read(&bytes), Ok(ours));
        }
    }

    #[test]
    fn elements_keep_their_value_in_either_byte_order() {
        let values = [1.5_f64, -0.0, 1e300];
        let big: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        let little: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(read_elements::<f64>(&mut &*big, "'>f8'", 3).expect("enough"), values);
        assert_eq!(read_elements::<f64>(&mut &*little, "'<f8'", 3).expect("enough"), values);
        assert!(read_elements::<f64>(&mut &*little, "'<f8'", 4).is_err());
        assert!(read_elements::<f64>(&mut &*little, "'<f8'", usize::MAX).is_err());
        assert!(
            f32::is_described_by("'>f4'") && !f32::is_described_by("'<f8'") && !f32::is_described_by("'f4'")
        );
    }
}
