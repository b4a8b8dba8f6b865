//! A unix socket on disk: made closed, taken over from the dead only, gone when it is dropped.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The place of a listening socket; removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
}

/// What a socket is for, in the words of messages.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// Such as `the WireGuard control socket`.
    pub what: &'static str,
    /// The option that chooses another folder.
    pub option: &'static str,
    /// What to do where another program serves it.
    pub taken: &'static str,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// The directory cannot be made.
    #[error("cannot make {path} for {}: {source}; run as root or choose {}", purpose.what, purpose.option)]
    Directory {
        /// The directory.
        path: PathBuf,
        /// For what.
        purpose: Purpose,
        /// The system's answer.
        source: io::Error,
    },
    /// Another program answers on it.
    #[error("{path} is served by a running program: stop it, or {}", purpose.taken)]
    Taken {
        /// The socket.
        path: PathBuf,
        /// For what.
        purpose: Purpose,
    },
    /// Something else is in its place.
    #[error("{path} is not a socket: move it away, or choose {}", purpose.option)]
    NotSocket {
        /// The path.
        path: PathBuf,
        /// For what.
        purpose: Purpose,
    },
    /// It cannot be bound.
    #[error("cannot bind {path}: {source}; run as root or choose {}", purpose.option)]
    Bind {
        /// The socket.
        path: PathBuf,
        /// For what.
        purpose: Purpose,
        /// The system's answer.
        source: io::Error,
    },
}

impl SocketFile {
    /// Listens on `dir`/`name`, with `mode` and, where one is given, `group`.
    ///
    /// # Errors
    /// See [`SocketFileError`].
    pub fn bind(
        dir: &Path,
        name: &str,
        mode: u32,
        group: Option<u32>,
        purpose: Purpose,
    ) -> Result<(Self, UnixListener), SocketFileError> {
        let path = dir.join(name);
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(|source| SocketFileError::Directory {
                path: dir.to_owned(),
                purpose,
                source,
            })?;
        remove_stale(&path, purpose)?;
        let bind = |source| SocketFileError::Bind {
            path: path.clone(),
            purpose,
            source,
        };
        // The mask covers the moment between making the socket and setting its mode.
        let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let listener = UnixListener::bind(&path);
        nix::sys::stat::umask(mask);
        let listener = listener.map_err(bind)?;
        let file = Self { path: path.clone() };
        if let Some(group) = group {
            std::os::unix::fs::chown(&path, None, Some(group)).map_err(bind)?;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(bind)?;
        Ok((file, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// A socket that nobody answers on is what a killed gateway left behind.
fn remove_stale(path: &Path, purpose: Purpose) -> Result<(), SocketFileError> {
    let path = path.to_owned();
    match std::fs::symlink_metadata(&path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(SocketFileError::NotSocket { path, purpose }),
        // What else is wrong with the path, binding says.
        Err(_) => return Ok(()),
    }
    match std::os::unix::net::UnixStream::connect(&path) {
        Ok(_) => Err(SocketFileError::Taken { path, purpose }),
        Err(_) => std::fs::remove_file(&path).map_err(|source| SocketFileError::Bind {
            path,
            purpose,
            source,
        }),
    }
}
