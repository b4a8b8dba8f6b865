//! Reading files: the one place of this crate that does.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::diagnostic::{ConfigErrors, LineIndex, Report, quote};
use crate::model::Config;
use crate::summary::Summary;

/// Reads a configuration file and the key files that it names. Relative paths of key files start at
/// the folder of the configuration file.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let origin = path.to_string_lossy();
    let text = read_text(path, &origin)?;
    load_text(&text, &origin, path.parent().unwrap_or(Path::new("")))
}

/// The configuration that `text` is, with the key files that it names. Their relative paths start at `folder`.
///
/// # Errors
/// All that is wrong with it, `origin` being what messages call it.
pub fn load_text(text: &str, origin: &str, folder: &Path) -> Result<Config, ConfigErrors> {
    Config::parse(text, origin)?.resolve(|file| read_secret(&folder.join(file)))
}

/// `patronus config check FILE`: loads the file and says what it sets up.
pub fn check(path: &Path) -> Result<Summary, ConfigErrors> {
    let config = load(path)?;
    Ok(Summary::new(&path.to_string_lossy(), &config))
}

/// The text of a file that a person wrote: UTF-8, at most [`TEXT_LEN_MAX`] bytes.
pub fn read_text(path: &Path, origin: &str) -> Result<String, ConfigErrors> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(TEXT_LEN_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => ": create it, or name another with --config",
            io::ErrorKind::PermissionDenied => ": run as root, or give this user read access",
            _ => "",
        };
        return Err(ConfigErrors::of_file(
            origin,
            format!("cannot read: {error}{fix}"),
        ));
    }
    if bytes.len() as u64 > TEXT_LEN_MAX {
        let message = format!(
            "larger than {} MiB: not a configuration file",
            TEXT_LEN_MAX >> 20
        );
        return Err(ConfigErrors::of_file(origin, message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid_len = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid_len]);
        let line = LineIndex::new(&before).line(valid_len);
        let mut report = Report::new(origin);
        report.at(line, "not UTF-8 text: save the file as UTF-8");
        report.into_errors()
    })
}

/// Why a key file was not read. Carries the path and never the contents.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is no such file.
    #[error("{} does not exist", quote(&.0.to_string_lossy()))]
    Missing(PathBuf),
    /// The kernel refused.
    #[error("cannot read {}: {source}: run as root, or give this user read \
    access", quote(&.path.to_string_lossy()))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is not a regular file: name the file that holds the \
    key", quote(&.0.to_string_lossy()))]
    NotRegular(PathBuf),
    /// Group or others may read or write it.
    #[error("{0} is open to other users (mode {mode:04o}): chmod 600 \
    {0}", quote(&.path.to_string_lossy()))]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than any key, or no text.
    #[error("{} does not hold a key: put the 44 characters of base64 there and nothing \
    else", quote(&.0.to_string_lossy()))]
    NotKey(PathBuf),
}

impl SecretError {
    /// The message with the verb (`genkey`, `genpsk`) that makes a missing file.
    pub(crate) fn describe(&self, verb: &str) -> String {
        match self {
            Self::Missing(path) => {
                let path = quote(&path.to_string_lossy());
                format!("{self}: make it with `(umask 077; patronus {verb} > {path})`")
            }
            Self::Unreadable { .. }
            | Self::NotRegular(_)
            | Self::Exposed { .. }
            | Self::NotKey(_) => self.to_string(),
        }
    }
}

/// The text of a key file: regular, closed to group and others, at most [`SECRET_LEN_MAX`] bytes. Type
/// and mode are asked of the open file, so that nobody can swap it in between.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    read_closed(path, SECRET_LEN_MAX)
}

/// The text of a private key in PEM, under the same conditions but its length.
///
/// # Errors
/// See [`SecretError`].
pub fn read_pem_key(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    read_closed(path, PEM_LEN_MAX)
}

fn read_closed(path: &Path, len_max: usize) -> Result<Zeroizing<String>, SecretError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SecretError::Missing(path.to_owned()),
        _ => SecretError::Unreadable {
            path: path.to_owned(),
            source,
        },
    };
    // Without O_NONBLOCK a pipe would hold the start up until somebody writes to it.
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(SecretError::NotRegular(path.to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    // Full capacity at once: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len_max + 1));
    file.take(len_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.len() <= len_max => Ok(Zeroizing::new(text.to_owned())),
        Ok(_) | Err(_) => Err(SecretError::NotKey(path.to_owned())),
    }
}

/// The largest file of text, in bytes: some 30000 peers.
pub const TEXT_LEN_MAX: u64 = 8 << 20;
/// The largest key file, in bytes: a key and some white space.
pub const SECRET_LEN_MAX: usize = 256;
/// The largest private key in PEM, in bytes.
pub const PEM_LEN_MAX: usize = 64 << 10;
