//! The UAPI socket: `DIR/IFACE.sock`, where `wg` finds a userspace implementation.
//!
//! Connections read and write by themselves; the requests go one after the other to the daemon.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::socket_file::{Purpose, SocketFile, SocketFileError};
use crate::uapi::{REQUEST_MAX, Request, errno};

/// A client may think this long between two bytes.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// Connections served at once.
const CLIENTS_MAX: usize = 16;

/// A request and where its answer goes: text with its closing empty line.
pub type Call = (Request, oneshot::Sender<Zeroizing<String>>);

/// The socket on disk; gone when this is dropped.
#[derive(Debug)]
pub struct UapiSocket {
    _file: SocketFile,
    accept: tokio::task::JoinHandle<()>,
}

impl UapiSocket {
    /// Listens for `interface` in `dir` and sends what is asked to `calls`.
    ///
    /// # Errors
    /// See [`SocketFileError`].
    pub fn open(
        dir: &Path,
        interface: &str,
        calls: mpsc::Sender<Call>,
    ) -> Result<Self, SocketFileError> {
        let name = format!("{interface}.sock");
        let (file, listener) = SocketFile::bind(dir, &name, 0o600, None, PURPOSE)?;
        let accept = tokio::spawn(serve(listener, calls));
        Ok(Self {
            _file: file,
            accept,
        })
    }
}

impl Drop for UapiSocket {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

const PURPOSE: Purpose = Purpose {
    what: "the WireGuard control socket",
    option: "--uapi-dir",
    taken: "set another [site] interface",
};

async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    let served = converse(stream, calls).await;
                    if let Err(error) = served {
                        tracing::debug!(%error, "control connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Requests of one client until it leaves.
async fn converse(mut stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let mut buffer = Zeroizing::new(Vec::new());
    loop {
        let end = match read_request(&mut stream, &mut buffer).await? {
            Heard::Request(end) => end,
            Heard::Nothing => return Ok(()),
            Heard::Fragment(why) => {
                tracing::warn!(error = why, "control request refused");
                return stream
                    .write_all(errno_text(errno::INVALID).as_bytes())
                    .await;
            }
        };
        let request = Request::parse(&String::from_utf8_lossy(&buffer[..end]));
        buffer.drain(..end + 2);
        let answer = match request {
            Ok(request) => {
                let (reply, answer) = oneshot::channel();
                let asked = calls.send((request, reply)).await;
                if asked.is_err() {
                    return Ok(());
                }
                answer.await.unwrap_or_else(|_| errno_text(errno::IO))
            }
            Err(error) => {
                tracing::warn!(%error, "control request refused");
                errno_text(errno::INVALID)
            }
        };
        let written = tokio::time::timeout(CLIENT_PATIENCE, stream.write_all(answer.as_bytes()));
        written.await??;
    }
}

/// What came from a client.
enum Heard {
    /// A request that ends at this offset.
    Request(usize),
    /// The client left, or said nothing for too long.
    Nothing,
    /// A request without an end, and why nothing more is read.
    Fragment(&'static str),
}

/// Reads until the empty line that ends a request.
async fn read_request(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<Heard> {
    let mut searched = 0;
    loop {
        if let Some(at) = buffer[searched..]
            .windows(2)
            .position(|pair| pair == b"\n\n")
        {
            return Ok(Heard::Request(searched + at));
        }
        searched = buffer.len().saturating_sub(1);
        if buffer.len() > REQUEST_MAX {
            return Ok(Heard::Fragment("a request is longer than 4 MiB"));
        }
        let read = tokio::time::timeout(CLIENT_PATIENCE, stream.read_buf(buffer)).await;
        match (read, buffer.is_empty()) {
            (Ok(read), empty) => match (read?, empty) {
                (0, true) => return Ok(Heard::Nothing),
                (0, false) => {
                    return Ok(Heard::Fragment(
                        "the client left in the middle of a request",
                    ));
                }
                (_, _) => {}
            },
            (Err(_), true) => return Ok(Heard::Nothing),
            (Err(_), false) => {
                return Ok(Heard::Fragment(
                    "a client stopped in the middle of a request",
                ));
            }
        }
    }
}

/// The answer that is an error number alone.
pub fn errno_text(errno: i32) -> Zeroizing<String> {
    Zeroizing::new(format!("errno={errno}\n\n"))
}
