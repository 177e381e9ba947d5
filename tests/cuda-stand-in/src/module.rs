//! Modules: which kernels an image holds, and what PTX says about their parameters.
//!
//! Three kinds of image are read: a cubin (an ELF file, whose sections `.text.<name>` are the kernels), PTX, and a plain
//! listing with a line `kernel <name>` for each.

use crate::code::Code;

/// The newest PTX that is accepted, as a driver of CUDA 13.0 does.
const NEWEST_PTX: (u32, u32) = (9, 0);

/// A kernel of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// The sizes of its parameters, where the image says.
    pub(crate) parameter_bytes: Option<Vec<usize>>,
}

/// Where an image ends, of which only the start is known.
pub(crate) fn is_elf(start: &[u8; 4]) -> bool {
    start == b"\x7fELF"
}

/// The kernels of a text.
pub(crate) fn read_text(text: &str) -> Result<Vec<Entry>, Code> {
    if text.contains(".version") && text.contains(".target") {
        return read_ptx(text);
    }
    let mut entries = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let name = line.strip_prefix("kernel ").ok_or(Code::INVALID_IMAGE)?;
        entries.push(Entry { name: name.trim().to_owned(), parameter_bytes: None });
    }
    if entries.is_empty() { Err(Code::INVALID_IMAGE) } else { Ok(entries) }
}

fn read_ptx(text: &str) -> Result<Vec<Entry>, Code> {
    let version = text.split(".version").nth(1).and_then(|rest| rest.split_whitespace().next());
    let (major, minor) = version.and_then(|version| version.split_once('.')).ok_or(Code::INVALID_PTX)?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| Code::INVALID_PTX);
    if (number(major)?, number(minor)?) > NEWEST_PTX {
        return Err(Code::UNSUPPORTED_PTX_VERSION);
    }
    let mut entries = Vec::new();
    for piece in text.split(".entry").skip(1) {
        let end = piece.find(['(', '{']).ok_or(Code::INVALID_PTX)?;
        let name = piece[..end].trim().to_owned();
        let list = match piece[end..].strip_prefix('(') {
            None => "",
            Some(rest) => rest.split_once(')').ok_or(Code::INVALID_PTX)?.0,
        };
        let sizes = list.split(".param").skip(1).map(parameter_bytes).collect::<Option<Vec<usize>>>();
        entries.push(Entry { name, parameter_bytes: Some(sizes.ok_or(Code::INVALID_PTX)?) });
    }
    Ok(entries)
}

/// The size of one parameter, as in ` .u64 .ptr .align 1 name_param_0` or ` .align 8 .b8 name_param_0[24]`.
fn parameter_bytes(text: &str) -> Option<usize> {
    if let Some((_, rest)) = text.split_once('[') {
        return rest.split_once(']')?.0.trim().parse().ok();
    }
    let word = text.split_whitespace().find(|word| {
        let mut letters = word.chars();
        letters.next() == Some('.')
            && matches!(letters.next(), Some('u' | 's' | 'f' | 'b'))
            && letters.all(|letter| letter.is_ascii_digit())
    })?;
    word[2..].parse::<usize>().ok().map(|bits| bits / 8)
}

/// The kernels of a cubin.
pub(crate) fn read_elf(image: &[u8]) -> Result<Vec<Entry>, Code> {
    let mut entries: Vec<Entry> = Vec::new();
    let prefix = b".text.";
    for start in 0..image.len().saturating_sub(prefix.len()) {
        if !image[start..].starts_with(prefix) {
            continue;
        }
        let rest = &image[start + prefix.len()..];
        let end = rest.iter().position(|&byte| byte == 0).ok_or(Code::INVALID_IMAGE)?;
        let name = std::str::from_utf8(&rest[..end]).map_err(|_| Code::INVALID_IMAGE)?.to_owned();
        if entries.iter().all(|entry| entry.name != name) {
            entries.push(Entry { name, parameter_bytes: None });
        }
    }
    if entries.is_empty() { Err(Code::INVALID_IMAGE) } else { Ok(entries) }
}

/// The length of an ELF file of 64 bits: its section headers stand at its end, or the program headers do.
pub(crate) fn elf_bytes(header: &[u8; 64]) -> Option<usize> {
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u64::from(u16::from_le_bytes(header[at..at + 2].try_into().expect("two bytes")));
    let sections_end = word(40).checked_add(half(58) * half(60))?;
    let programs_end = word(32).checked_add(half(54) * half(56))?;
    usize::try_from(sections_end.max(programs_end)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ptx_lists_entries_and_sizes() {
        let ptx = ".version 9.0\n.target sm_90\n.visible .entry a(\n .param .u64 .ptr .align 1 a_0,\n .param .f64 a_1,\n\
                   .param .align 4 .b8 a_2[12]\n)\n{ ret; }\n.visible .entry b()\n{ ret; }";
        let entries = read_text(ptx).expect("valid");
        assert_eq!(entries[0], Entry { name: "a".to_owned(), parameter_bytes: Some(vec![8, 8, 12]) });
        assert_eq!(entries[1], Entry { name: "b".to_owned(), parameter_bytes: Some(vec![]) });
    }

    #[test]
    fn newer_ptx_and_nonsense_are_refused() {
        assert_eq!(read_text(".version 9.1\n.target sm_90\n"), Err(Code::UNSUPPORTED_PTX_VERSION));
        assert_eq!(read_text("nonsense"), Err(Code::INVALID_IMAGE));
        assert_eq!(read_text(""), Err(Code::INVALID_IMAGE));
        assert_eq!(read_text("kernel a\nkernel b\n").expect("valid").len(), 2);
    }
}
