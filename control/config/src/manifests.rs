//! Reading a folder of manifests, as bytes: what they mean is policy's business.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::diagnostic::quote;

/// One file of the folder.
#[derive(Debug)]
pub struct ManifestFile {
    /// Its name for messages: the folder as the operator wrote it, and the file.
    pub name: String,
    /// What it holds, or in words why that is unknown.
    pub contents: Result<Vec<u8>, String>,
}

/// Why a folder was not read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// There is none.
    #[error("{} does not exist: make the folder, or set [policy] directory to the right one", quote(&.0.to_string_lossy()))]
    Missing(PathBuf),
    /// The kernel refused.
    #[error("cannot read {}: {source}: make it a folder that this user may read", quote(&.path.to_string_lossy()))]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// More files than are read.
    #[error("{} holds more than {FILES_MAX} manifests: put several into one file", quote(&.0.to_string_lossy()))]
    TooMany(PathBuf),
    /// More bytes than are read.
    #[error("{} holds more than {} MiB of manifests: move away what is not policy", quote(&.0.to_string_lossy()), TOTAL_LEN_MAX >> 20)]
    TooLarge(PathBuf),
}

/// Reads every `*.yaml`, `*.yml` and `*.json` of `base`/`folder`, by name. Folders inside it and hidden files, which
/// are mostly an editor's, are left alone. A file that cannot be read is in the list with the reason.
///
/// # Errors
/// When the folder as a whole cannot be read.
pub fn read(base: &Path, folder: &Path) -> Result<Vec<ManifestFile>, ManifestsError> {
    let path = base.join(folder);
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ManifestsError::Missing(path.clone()),
        _ => ManifestsError::Unreadable {
            path: path.clone(),
            source,
        },
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if is_manifest(&name) {
            names.push(name);
        }
        if names.len() > FILES_MAX {
            return Err(ManifestsError::TooMany(path));
        }
    }
    names.sort();
    let mut files = Vec::with_capacity(names.len());
    let mut total = 0;
    for name in names {
        let file = path.join(&name);
        // A folder may be called anything.
        if file.is_dir() {
            continue;
        }
        let contents = read_file(&file);
        total += contents.as_ref().map_or(0, Vec::len);
        if total > TOTAL_LEN_MAX {
            return Err(ManifestsError::TooLarge(path));
        }
        files.push(ManifestFile {
            name: folder.join(&name).to_string_lossy().into_owned(),
            contents,
        });
    }
    Ok(files)
}

/// Reads one manifest: a regular file of at most [`FILE_LEN_MAX`] bytes, or in words why it cannot be read.
///
/// # Errors
/// The words.
pub fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    // Without O_NONBLOCK a pipe would hold the reader up until somebody writes to it.
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path);
    let unreadable = |error: io::Error| format!("cannot read: {error}: give this user read access");
    let file = file.map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("not a regular file: remove it".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > FILE_LEN_MAX {
        let limit = FILE_LEN_MAX >> 20;
        return Err(format!("larger than {limit} MiB: cut it into several"));
    }
    Ok(bytes)
}

fn is_manifest(name: &OsStr) -> bool {
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !is_hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The most files that a folder may hold.
pub const FILES_MAX: usize = 10_000;
/// The largest file, in bytes: what policy's own limit for a text is.
pub const FILE_LEN_MAX: usize = 16 << 20;
/// The most bytes of all files together.
pub const TOTAL_LEN_MAX: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_come_by_name_and_what_is_none_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("policies.d");
        std::fs::create_dir_all(folder.join("sub.yaml")).unwrap();
        std::fs::write(folder.join("sub.yaml/c.yaml"), "c").unwrap();
        for name in [
            "b.yml",
            "a.json",
            "c.yaml",
            "notes.txt",
            ".#c.yaml",
            "c.yaml~",
        ] {
            std::fs::write(folder.join(name), name).unwrap();
        }

        let files = read(base.path(), Path::new("policies.d")).unwrap();

        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(
            names,
            ["policies.d/a.json", "policies.d/b.yml", "policies.d/c.yaml"]
        );
        assert_eq!(files[0].contents.as_deref(), Ok(b"a.json".as_slice()));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why_and_the_others_are_read() {
        let base = tempfile::tempdir().unwrap();
        let pipe = base.path().join("pipe.yaml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::os::unix::fs::symlink("nowhere", base.path().join("lost.yaml")).unwrap();
        let huge = File::create(base.path().join("huge.yaml")).unwrap();
        huge.set_len(FILE_LEN_MAX as u64 + 1).unwrap();
        std::fs::write(base.path().join("ok.yaml"), "ok").unwrap();

        let files = read(base.path(), Path::new("")).unwrap();

        let said = |at: usize| files[at].contents.as_ref().unwrap_err();
        assert!(said(0).starts_with("larger than 16 MiB"), "{}", said(0));
        assert!(said(1).starts_with("cannot read: No such"), "{}", said(1));
        assert!(files[2].contents.is_ok());
        assert!(said(3).starts_with("not a regular file"), "{}", said(3));
    }

    #[test]
    fn a_folder_that_is_absent_or_too_full_is_refused_as_a_whole() {
        let base = tempfile::tempdir().unwrap();
        let absent = read(base.path(), Path::new("absent"));
        assert!(matches!(absent, Err(ManifestsError::Missing(_))));
        for number in 0..=FILES_MAX {
            File::create(base.path().join(format!("{number}.yaml"))).unwrap();
        }
        let full = read(base.path(), Path::new(""));
        assert!(matches!(full, Err(ManifestsError::TooMany(_))));
    }
}
