//! A file that appears whole or not at all.
//!
//! The place is checked before a long run starts; the contents go to a temporary file in the same folder, which is
//! renamed to the final name when the last byte is on disk, and removed when anything fails.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::Error;

/// The checked place of a file to be written later.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Checks that a file can be written at `path`, by creating and removing one beside it.
    ///
    /// # Errors
    /// [`Error::OutputPlace`] if the folder does not exist or takes no new file, or if something that is not a file
    /// already stands at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Result<Output, Error> {
        let output = Output { path: path.into() };
        let folder = output.folder();
        if !folder.is_dir() {
            return Err(output.refuse(format!("there is no folder {folder:?}; create it, or name another")));
        }
        if output.path.file_name().is_none() || fs::metadata(&output.path).is_ok_and(|found| !found.is_file())
        {
            return Err(output.refuse("it is not a file; name a file".into()));
        }
        if let Err(reason) = output.create() {
            return Err(
                output.refuse(format!("folder {folder:?} takes no new file ({reason}); name another folder"))
            );
        }
        Ok(output)
    }

    /// The final place, as it was spelt.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this and another one are the same file, however the two are spelt.
    pub fn is_same_place(&self, other: &Output) -> bool {
        // Links at the place itself are replaced, not followed, so only the folders are resolved. Both were there.
        let place = |output: &Output| {
            let folder = output.folder().canonicalize().unwrap_or_else(|_| output.folder().to_owned());
            (folder, output.path.file_name().map(ToOwned::to_owned))
        };
        place(self) == place(other)
    }

    /// Writes the file: what `contents` writes is at the final place when this returns, replacing what was there.
    ///
    /// # Errors
    /// [`Error::Write`] if `contents` fails or the system refuses; what was at the place before is still there then.
    pub fn write(
        &self,
        contents: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
    ) -> Result<(), Error> {
        let attempt = || {
            let mut temporary = self.create()?;
            let mut writer = BufWriter::new(temporary.as_file_mut());
            contents(&mut writer)?;
            writer.flush()?;
            drop(writer);
            temporary.as_file().sync_all()?;
            temporary.persist(&self.path).map_err(|failure| failure.error)?;
            Ok(())
        };
        attempt().map_err(|reason| Error::Write { path: self.path.clone(), reason })
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    fn create(&self) -> io::Result<NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".part");
        #[cfg(unix)]
        {
            // A temporary file is private by default; an output is as readable as any file the user creates.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(self.folder())
    }

    fn refuse(&self, reason: String) -> Error {
        Error::OutputPlace { path: self.path.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder is ours");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_file_appears_only_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = Output::at(folder.path().join("a.txt")).expect("a good place");
        assert_eq!(names(folder.path()), Vec::<String>::new(), "the check leaves nothing behind");

        let during = output.write(|writer| {
            writer.write_all(b"whole")?;
            writer.flush()?;
            assert!(!output.path().exists());
            Ok(())
        });
        during.expect("written");
        assert_eq!(names(folder.path()), ["a.txt"]);
        assert_eq!(fs::read(output.path()).expect("readable"), b"whole");
    }

    #[test]
    fn a_failure_keeps_the_old_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = Output::at(folder.path().join("a.txt")).expect("a good place");
        fs::write(output.path(), b"old").expect("written");
        let failure = output.write(|writer| {
            writer.write_all(b"half of the n")?;
            Err(io::Error::other("the disk is full"))
        });
        let failure = failure.expect_err("the contents failed");
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.to_string().contains("the disk is full"), "{failure}");
        assert_eq!(names(folder.path()), ["a.txt"]);
        assert_eq!(fs::read(output.path()).expect("readable"), b"old");
    }

    #[test]
    fn bad_places_are_refused_before_the_run() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cases = [
            (folder.path().join("none/a.npy"), "there is no folder"),
            (folder.path().to_owned(), "it is not a file"),
            (PathBuf::from("/dev/null"), "it is not a file"),
            (PathBuf::new(), "it is not a file"),
        ];
        for (path, expected) in cases {
            let refusal = Output::at(&path).expect_err("a bad place");
            assert_eq!(refusal.exit_code(), 2);
            let line = refusal.to_string();
            assert!(line.contains(expected) && line.contains(&format!("{path:?}")), "{line}");
        }
        Output::at("in_the_current_folder.npy").expect("a bare name is in the current folder");
    }

    #[test]
    fn a_place_is_the_same_however_it_is_spelt() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).expect("created");
        let at = |path: PathBuf| Output::at(path).expect("a good place");
        let place = at(inner.join("a.npy"));
        let mut others = vec![inner.join("./a.npy"), folder.path().join("inner/../inner/a.npy")];
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&inner, &link).expect("linked");
            others.push(link.join("a.npy"));
        }
        for path in others {
            assert!(place.is_same_place(&at(path.clone())), "{path:?}");
        }
        assert!(!place.is_same_place(&at(inner.join("b.npy"))));
        assert!(!place.is_same_place(&at(folder.path().join("a.npy"))));
        assert!(at("a.npy".into()).is_same_place(&at("./a.npy".into())));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_as_readable_as_one_created_directly() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let direct = folder.path().join("direct");
        fs::write(&direct, b"").expect("written");
        let output = Output::at(folder.path().join("ours")).expect("a good place");
        output.write(|_| Ok(())).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode(output.path()), mode(&direct));
    }
}
