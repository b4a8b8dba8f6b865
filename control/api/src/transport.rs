//! How a client reaches a gateway: by its socket on this machine, or by TCP with TLS and a token.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{ClientError, PATIENCE};

/// Where a gateway is.
#[derive(Clone, Debug)]
pub enum Transport {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port with TLS.
    Tls(Arc<TlsTarget>),
}

/// A gateway elsewhere: who it has to be, and what proves to it who asks.
pub struct TlsTarget {
    /// As the operator wrote it, `https://host:port`.
    url: String,
    /// Host and port.
    authority: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    token: String,
}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not `https://host:port`.
    #[error("`{0}` is no address of an API: write https://gateway.example.net:9587")]
    Url(String),
    /// No such name can stand in a certificate.
    #[error("`{0}` is neither a host name nor an address")]
    Name(String),
    /// The file of certificates is none.
    #[error("{}: {reason}: name a file with certificates in PEM", .path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The token is none.
    #[error("the token is empty, or holds what no header may hold")]
    Token,
}

impl TlsTarget {
    /// The gateway at `url`, whose certificate has to be signed by one of those in the file `roots`, or be one of them.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn new(url: &str, roots: &Path, token: &str) -> Result<Self, TargetError> {
        let authority = url
            .strip_prefix("https://")
            .map(|it| it.trim_end_matches('/'));
        let parts = authority.and_then(|it| it.rsplit_once(':'));
        let (Some(authority), Some((host, port))) = (authority, parts) else {
            return Err(TargetError::Url(url.to_owned()));
        };
        if port.parse::<u16>().is_err() || authority.contains('/') {
            return Err(TargetError::Url(url.to_owned()));
        }
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| TargetError::Name(host))?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|it| it.is_ascii_graphic()) {
            return Err(TargetError::Token);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(root_store(roots)?)
            .with_no_client_auth();
        Ok(Self {
            url: url.to_owned(),
            authority: authority.to_owned(),
            name,
            config: Arc::new(config),
            token: token.to_owned(),
        })
    }
}

fn root_store(path: &Path) -> Result<RootCertStore, TargetError> {
    let faulty = |reason: String| TargetError::Roots {
        path: path.to_owned(),
        reason,
    };
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path);
    let certificates = certificates.map_err(|error| faulty(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| faulty(error.to_string()))?;
        let added = store.add(certificate);
        added.map_err(|error| faulty(error.to_string()))?;
    }
    match store.is_empty() {
        true => Err(faulty("it holds no certificate".to_owned())),
        false => Ok(store),
    }
}

// The token is nobody's business.
impl fmt::Debug for TlsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TlsTarget");
        shown.field("url", &self.url).finish_non_exhaustive()
    }
}

impl Transport {
    /// What to call it.
    pub fn place(&self) -> PathBuf {
        match self {
            Self::Unix(path) => path.clone(),
            Self::Tls(target) => PathBuf::from(&target.url),
        }
    }

    /// The lines that a request's head has for it.
    pub fn headers(&self) -> String {
        match self {
            Self::Unix(_) => "Host: patronus\r\n".to_owned(),
            Self::Tls(target) => format!(
                "Host: {}\r\nAuthorization: Bearer {}\r\n",
                target.authority, target.token
            ),
        }
    }

    /// A connection, on which reads and writes are patient but not for ever.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn open(&self) -> Result<Stream, ClientError> {
        match self {
            Self::Unix(path) => open_unix(path),
            Self::Tls(target) => open_tls(target, self.place()),
        }
    }
}

fn open_unix(path: &Path) -> Result<Stream, ClientError> {
    let path = path.to_owned();
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(reason) if reason.kind() == io::ErrorKind::PermissionDenied => {
            return Err(ClientError::Forbidden { path, reason });
        }
        Err(reason) => return Err(ClientError::Unreachable { path, reason }),
    };
    let stream = Stream::Unix(stream);
    let patient = stream.set_patience(PATIENCE);
    patient.map_err(|reason| ClientError::Broken { path, reason })?;
    Ok(stream)
}

fn open_tls(target: &TlsTarget, path: PathBuf) -> Result<Stream, ClientError> {
    let connected = (|| {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for addr in target.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&addr, CONNECT_PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    })();
    let mut stream = connected.map_err(|reason| ClientError::Unreachable {
        path: path.clone(),
        reason,
    })?;
    let broken = |reason: io::Error| match reason.kind() {
        io::ErrorKind::InvalidData => ClientError::Untrusted {
            path: path.clone(),
            reason,
        },
        _ => ClientError::Broken {
            path: path.clone(),
            reason,
        },
    };
    let patience = Some(PATIENCE);
    let patient = stream.set_read_timeout(patience);
    let patient = patient.and_then(|()| stream.set_write_timeout(patience));
    patient.map_err(broken)?;
    let _ = stream.set_nodelay(true);
    let session = ClientConnection::new(target.config.clone(), target.name.clone());
    let mut session = session.map_err(|error| broken(io::Error::other(error)))?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(broken)?;
    }
    Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
}

/// An open connection.
#[derive(Debug)]
pub enum Stream {
    /// On this machine.
    Unix(UnixStream),
    /// By TCP.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// How long one read or write may take.
    ///
    /// # Errors
    /// What the system answers.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience);
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(patience)?;
                stream.set_write_timeout(patience)
            }
            Self::Tls(stream) => {
                stream.sock.set_read_timeout(patience)?;
                stream.sock.set_write_timeout(patience)
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buf),
            Self::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
