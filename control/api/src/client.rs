//! A blocking client. It speaks HTTP/1.0, so that an answer ends where the connection does.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{
    ApiError, DiffRequest, DiffResponse, ExplainRequest, ExplainResponse, FlowsQuery,
    FlowsResponse, PolicyResponse, StatusResponse,
};

/// A gateway's API at a path. Every request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("daemon unreachable at {path}: {reason}: start it with `patronus run`")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        reason: io::Error,
    },
    /// This user may not ask.
    #[error("daemon unreachable at {path}: {reason}: run as root, or join the group `patronus`")]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        reason: io::Error,
    },
    /// The connection broke, or took too long.
    #[error("daemon at {path} gave no answer: {reason}: is it overloaded or just ending?")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        reason: io::Error,
    },
    /// The daemon refuses the request.
    #[error("{}: {}", .0.error, .0.fix)]
    Refused(ApiError),
    /// What came back is no answer of this API.
    #[error("{path} does not speak this program's API ({what}): run the version of the daemon")]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What is strange about it.
        what: String,
    },
}

impl ClientError {
    /// The program's exit code for it: 5 where the daemon cannot be reached, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Forbidden { .. } | Self::Broken { .. } => 5,
            Self::Refused(_) | Self::Foreign { .. } => 1,
        }
    }
}

impl Client {
    /// A client of the gateway whose socket is at `path`; finds out that somebody listens there.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Forbidden`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let client = Self {
            path: path.to_owned(),
        };
        client.open().map(|_| client)
    }

    /// What the gateway is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<StatusResponse, ClientError> {
        self.get("/v1/status")
    }

    /// The policy in force.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn policy(&self) -> Result<PolicyResponse, ClientError> {
        self.get("/v1/policy")
    }

    /// Why a connection may pass or not.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn explain(&self, request: &ExplainRequest) -> Result<ExplainResponse, ClientError> {
        self.post("/v1/policy/explain", request)
    }

    /// The flows there are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn flows(&self, query: &FlowsQuery) -> Result<FlowsResponse, ClientError> {
        let limit = query.limit.map(|limit| format!("limit={limit}"));
        let filter = query.filter.as_ref();
        let filter = filter.map(|filter| format!("filter={}", percent_encoded(filter)));
        let terms: Vec<String> = limit.into_iter().chain(filter).collect();
        self.get(&format!("/v1/flows?{}", terms.join("&")))
    }

    /// The live flows whose verdict other manifests would change.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn diff(&self, request: &DiffRequest) -> Result<DiffResponse, ClientError> {
        self.post("/v1/policy/diff", request)
    }

    fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.ask(
            &format!("GET {target} HTTP/1.0\r\nHost: patronus\r\n\r\n"),
            &[],
        )
    }

    fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(request);
        let body = body.map_err(|error| self.foreign(error.to_string()))?;
        let head = format!(
            "POST {target} HTTP/1.0\r\nHost: patronus\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.ask(&head, &body)
    }

    fn ask<T: DeserializeOwned>(&self, head: &str, body: &[u8]) -> Result<T, ClientError> {
        let mut stream = self.open()?;
        // A daemon that refuses a long body answers in the middle of it: what it says counts, not the broken pipe.
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let heard = (&mut stream)
            .take(ANSWER_LEN_MAX + 1)
            .read_to_end(&mut answer);
        if answer.is_empty() {
            let source = sent.and(heard).err();
            let source = source.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
            return Err(self.broken(source));
        }
        if let Err(source) = heard
            && source.kind() != io::ErrorKind::ConnectionReset
        {
            return Err(self.broken(source));
        }
        if answer.len() as u64 > ANSWER_LEN_MAX {
            return Err(self.foreign("the answer is too long".to_owned()));
        }
        self.read_answer(&answer)
    }

    fn read_answer<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        let Some((status, body)) = split_answer(answer) else {
            return Err(self.foreign("not HTTP".to_owned()));
        };
        let not_json = |error: serde_json::Error| {
            self.foreign(format!("status {status}, {error} in the body"))
        };
        match status {
            200 => serde_json::from_slice(body).map_err(not_json),
            _ => Err(ClientError::Refused(
                serde_json::from_slice(body).map_err(not_json)?,
            )),
        }
    }

    fn open(&self) -> Result<UnixStream, ClientError> {
        let path = self.path.clone();
        let stream = UnixStream::connect(&path).map_err(|reason| match reason.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { path, reason },
            _ => ClientError::Unreachable { path, reason },
        })?;
        let patience = Some(PATIENCE);
        stream
            .set_read_timeout(patience)
            .and_then(|()| stream.set_write_timeout(patience))
            .map_err(|reason| self.broken(reason))?;
        Ok(stream)
    }

    fn broken(&self, reason: io::Error) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            reason,
        }
    }

    fn foreign(&self, what: String) -> ClientError {
        ClientError::Foreign {
            path: self.path.clone(),
            what,
        }
    }
}

/// The status and the body of an answer.
fn split_answer(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    version
        .starts_with("HTTP/1.")
        .then_some((status, &answer[end + 4..]))
}

/// For a value in a query (RFC 3986, section 2.1).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// How long one read or write may take; longer than the daemon gives itself.
const PATIENCE: Duration = Duration::from_secs(40);
/// The longest answer: 100,000 flows are some 25 MiB.
const ANSWER_LEN_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A daemon that gives one answer to every request, and what the client makes of it.
    fn against(answer: &'static [u8]) -> Result<StatusResponse, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = [0; 1024];
            let len = stream.read(&mut heard).unwrap();
            assert!(heard[..len].starts_with(b"GET /v1/status HTTP/1.0\r\n"));
            stream.write_all(answer).unwrap();
        });
        let heard = Client { path }.status();
        daemon.join().unwrap();
        heard
    }

    #[test]
    fn an_absent_daemon_is_named_with_what_starts_it_and_exits_with_five() {
        let error = Client::connect(Path::new("/nowhere/patronus.sock")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "daemon unreachable at /nowhere/patronus.sock: No such file or directory (os error 2): start it with \
             `patronus run`"
        );
        assert_eq!(error.exit_code(), 5);
    }

    #[test]
    fn a_refusal_says_what_the_daemon_says() {
        let answer = b"HTTP/1.0 404 Not Found\r\nx: y\r\n\r\n{\"error\":\"no\",\"field\":null,\"fix\":\"try yes\"}";
        let error = against(answer).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.exit_code()),
            ("no: try yes", 1)
        );
    }

    #[test]
    fn another_program_on_the_socket_is_no_daemon() {
        for answer in [
            b"SSH-2.0-x\r\n\r\n".as_slice(),
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 200 OK\r\n\r\n[1]",
        ] {
            assert!(matches!(against(answer), Err(ClientError::Foreign { .. })));
        }
        assert!(matches!(against(b""), Err(ClientError::Broken { .. })));
    }

    #[test]
    fn a_filter_survives_the_query() {
        assert_eq!(
            percent_encoded("dst=10.0.0.0/8 peer=é"),
            "dst%3D10.0.0.0%2F8%20peer%3D%C3%A9"
        );
    }
}
