//! The API by TCP: only with TLS, and only for those who show a token. The same routes and the same bounds as on the socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use patronus_config::ApiListen;
use patronus_config::load::{SecretError, read_pem_key, read_secret};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use super::{ApiState, CONNECTION_LIFE, HEADERS_PATIENCE, Refused, converse, router};

/// Connections by TCP that are served at once, beside those on the socket.
const TLS_CLIENTS_MAX: usize = 64;
/// A token of less can be guessed.
const TOKEN_LEN_MIN: usize = 16;

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The port is taken, or the address is not this machine's.
    #[error("[api] listen: cannot bind {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// No certificates.
    #[error("[api] tls_cert: {}: {reason}: name a file with a certificate and those that signed it, in PEM", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No key.
    #[error("[api] tls_key: {}: {reason}: name a file with the certificate's private key in PEM, mode 0600", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are no pair, or of a kind that is not supported.
    #[error("[api] tls_cert and tls_key: {0}")]
    Pair(rustls::Error),
    /// No token.
    #[error("[api] {key}: {source}: make it with `(umask 077; openssl rand -hex 32 > FILE)`")]
    Token {
        /// The key of the configuration.
        key: &'static str,
        /// Why.
        source: SecretError,
    },
    /// A token that can be guessed.
    #[error(
        "[api] {0}: the token has less than {TOKEN_LEN_MIN} visible characters, or others among them: make one with \
         `openssl rand -hex 32`"
    )]
    WeakToken(&'static str),
    /// One token for two rights.
    #[error(
        "[api] token_file and read_token_file hold the same token: whoever may look could change things"
    )]
    SameToken,
}

/// The API by TCP; gone when this is dropped.
#[derive(Debug)]
pub struct TlsServer {
    addr: SocketAddr,
    accept: tokio::task::JoinHandle<()>,
}

impl TlsServer {
    /// Listens as configured; relative paths start at `base`.
    ///
    /// # Errors
    /// See [`TlsError`]: without a certificate, its key and a token nobody listens.
    pub async fn open(
        settings: &ApiListen,
        base: &Path,
        state: Arc<ApiState>,
    ) -> Result<Self, TlsError> {
        let tokens = Arc::new(Tokens::read(settings, base)?);
        let acceptor = TlsAcceptor::from(Arc::new(server_config(settings, base)?));
        let bind = |source| TlsError::Bind {
            addr: settings.addr,
            source,
        };
        let listener = TcpListener::bind(settings.addr).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        let accept = tokio::spawn(serve(listener, acceptor, tokens, state, CONNECTION_LIFE));
        Ok(Self { addr, accept })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    tokens: Arc<Tokens>,
    state: Arc<ApiState>,
    life: Duration,
) {
    let check = move |request: Request, next: Next| {
        let tokens = tokens.clone();
        async move {
            tokens.check(request.method(), request.uri().path(), request.headers())?;
            Ok::<Response, Refused>(next.run(request).await)
        }
    };
    // Before everything else: who has no token learns nothing, not even which paths there are.
    let router = router(state.clone()).layer(axum::middleware::from_fn(check));
    let places = Arc::new(Semaphore::new(TLS_CLIENTS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let places = (place, state.traffic.begin());
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let greeted = acceptor.accept(stream);
                    match tokio::time::timeout(HEADERS_PATIENCE, greeted).await {
                        Ok(Ok(stream)) => converse(stream, (None, life), router, places).await,
                        Ok(Err(error)) => tracing::debug!(%error, "no TLS on the API's port"),
                        Err(_) => tracing::debug!("an API client took too long to begin TLS"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an API connection by TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Digests of the tokens: comparing them tells nothing about the tokens, however long it takes.
#[derive(Debug)]
struct Tokens {
    all: Option<[u8; DIGEST_LEN]>,
    read: Option<[u8; DIGEST_LEN]>,
}

impl Tokens {
    fn read(settings: &ApiListen, base: &Path) -> Result<Self, TlsError> {
        let read = |key: &'static str, path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let text = read_secret(&base.join(path));
            let text = text.map_err(|source| TlsError::Token { key, source })?;
            let token = text.trim();
            let is_visible = token.bytes().all(|it| it.is_ascii_graphic());
            match token.len() >= TOKEN_LEN_MIN && is_visible {
                true => Ok(Some(digest(token.as_bytes()))),
                false => Err(TlsError::WeakToken(key)),
            }
        };
        let tokens = Self {
            all: read("token_file", &settings.token_file)?,
            read: read("read_token_file", &settings.read_token_file)?,
        };
        match tokens.all.is_some() && tokens.all == tokens.read {
            true => Err(TlsError::SameToken),
            false => Ok(tokens),
        }
    }

    /// Whether whoever shows these headers may do that.
    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refused> {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (shown.next(), shown.next()) else {
            return Err(Refused::unauthorized("no token"));
        };
        let token = value.as_bytes();
        let token = token
            .strip_prefix(b"Bearer ")
            .or(token.strip_prefix(b"bearer "));
        let token = token.ok_or_else(|| Refused::unauthorized("no bearer token"))?;
        let token = digest(token);
        // Both in any case, so that time does not tell which one it is.
        let (may_all, may_read) = (is_same(&self.all, &token), is_same(&self.read, &token));
        match (may_all, may_read) {
            (true, _) => Ok(()),
            (false, true) if only_reads(method, path) => Ok(()),
            (false, true) => Err(Refused::forbidden()),
            (false, false) => Err(Refused::unauthorized("a wrong token")),
        }
    }
}

/// Questions that are asked by POST because they are long.
fn only_reads(method: &Method, path: &str) -> bool {
    *method == Method::GET
        || (*method == Method::POST && ["/v1/policy/explain", "/v1/policy/diff"].contains(&path))
}

fn digest(bytes: &[u8]) -> [u8; DIGEST_LEN] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or([0; DIGEST_LEN])
}

fn is_same(known: &Option<[u8; DIGEST_LEN]>, shown: &[u8; DIGEST_LEN]) -> bool {
    let Some(known) = known else { return false };
    let bytes = known.iter().zip(shown);
    bytes.fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

fn server_config(settings: &ApiListen, base: &Path) -> Result<ServerConfig, TlsError> {
    let path = base.join(&settings.tls_cert);
    let faulty = |reason: String| TlsError::Certificate {
        path: path.clone(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(&path);
    let chain = chain.and_then(|it| it.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(|error| faulty(error.to_string()))?;
    if chain.is_empty() {
        return Err(faulty("it holds no certificate".to_owned()));
    }
    let path = base.join(&settings.tls_key);
    let faulty = |reason: String| TlsError::Key {
        path: path.clone(),
        reason,
    };
    let key = read_pem_key(&path).map_err(|error| faulty(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let key = key.map_err(|error| faulty(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.map_err(TlsError::Pair)?.with_no_client_auth();
    config.with_single_cert(chain, key).map_err(TlsError::Pair)
}

const DIGEST_LEN: usize = ring::digest::SHA256_OUTPUT_LEN;

#[cfg(test)]
#[path = "../api_tls_tests.rs"]
mod tests;
