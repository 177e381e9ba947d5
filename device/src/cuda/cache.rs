//! Compiled kernels on disk.
//!
//! An entry is a file named by a hash of all that the compiled code depends on, and holds that text too: so a collision of
//! hashes, like a file that was cut off or changed, is only an entry that is not there. Entries appear by a rename, whole or
//! not at all, and whoever writes last wins: both have written the same.

use std::fs;
use std::path::{Path, PathBuf};

/// What an entry begins with. Changes with the format.
const MAGIC: &[u8; 16] = b"chare kernel 1\n\0";

/// Magic, three lengths.
const HEADER_BYTES: usize = 16 + 3 * 8;

/// The folder for compiled kernels of this user.
pub(super) fn default_folder() -> Option<PathBuf> {
    let folder =
        |variable: &str| std::env::var_os(variable).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join("chare").join("kernels"))
}

/// The compiled code of `key`, if it is there and sound.
pub(super) fn load(folder: &Path, key: &str) -> Option<Vec<u8>> {
    let entry = fs::read(folder.join(file_name(key))).ok()?;
    let (header, rest) = entry.split_at_checked(HEADER_BYTES)?;
    let word = |index: usize| {
        let at = 16 + 8 * index;
        u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"))
    };
    let (key_bytes, code) = rest.split_at_checked(usize::try_from(word(0)).ok()?)?;
    let is_sound = header.starts_with(MAGIC)
        && key_bytes == key.as_bytes()
        && code.len() as u64 == word(1)
        && checksum(code) == word(2);
    is_sound.then(|| code.to_vec())
}

/// Keeps compiled code. That it cannot be kept is no error: it is compiled again next time.
pub(super) fn store(folder: &Path, key: &str, code: &[u8]) {
    let mut entry = Vec::with_capacity(HEADER_BYTES + key.len() + code.len());
    entry.extend_from_slice(MAGIC);
    for word in [key.len() as u64, code.len() as u64, checksum(code)] {
        entry.extend_from_slice(&word.to_le_bytes());
    }
    entry.extend_from_slice(key.as_bytes());
    entry.extend_from_slice(code);
    let name = file_name(key);
    let thread = std::thread::current().id();
    let draft = folder.join(format!("{name}.{}.{thread:?}.part", std::process::id()));
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&draft, &entry))
        .and_then(|()| fs::rename(&draft, folder.join(name)));
    if written.is_err() {
        // There may be a part of it.
        let _ = fs::remove_file(&draft);
    }
}

/// FNV-1a, of 128 bits.
fn file_name(key: &str) -> String {
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b_u128;
    let hash = key.bytes().fold(start, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(prime));
    format!("{hash:032x}")
}

/// FNV-1a, of 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("chare-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn entries_come_back() {
        let folder = Folder::new("cache");
        assert_eq!(load(&folder.0, "key"), None);
        store(&folder.0, "key", b"code");
        assert_eq!(load(&folder.0, "key").as_deref(), Some(&b"code"[..]));
        assert_eq!(load(&folder.0, "other"), None);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no drafts are left");
    }

    #[test]
    fn spoiled_entries_are_not_there() {
        let folder = Folder::new("spoiled");
        store(&folder.0, "key", b"code");
        let file = folder.0.join(file_name("key"));
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&file, changed).unwrap();
            assert_eq!(load(&folder.0, "key"), None, "byte {at} was changed");
            fs::write(&file, &whole[..at]).unwrap();
            assert_eq!(load(&folder.0, "key"), None, "cut at {at}");
        }
        store(&folder.0, "key", b"code");
        assert_eq!(load(&folder.0, "key").as_deref(), Some(&b"code"[..]));
    }
}
