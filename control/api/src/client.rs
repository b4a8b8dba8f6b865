//! A blocking client. It speaks HTTP/1.0, so that an answer ends where the connection does.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::paths::{
    EventsQuery, EventsResponse, OrderedResponse, PathCommandRequest, PathView, PathsResponse,
    PingRequest, PingResponse,
};
use crate::prefilter::{PrefilterCommandRequest, PrefilterResponse};
use crate::stream::{self, Body};
use crate::transport::{Stream, TlsTarget, Transport};
use crate::types::{
    ApiError, DiffRequest, DiffResponse, ExplainRequest, ExplainResponse, FlowsQuery,
    FlowsResponse, PolicyResponse, StatusResponse,
};

/// A gateway's API on a socket, or by TCP. Every request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
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
    /// It does not prove to be who it should be.
    #[error(
        "{path} is not trusted: {reason}: is --ca its certificate, is its name in there, is the clock right?"
    )]
    Untrusted {
        /// The address.
        path: PathBuf,
        /// What is wrong.
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
    /// The program's exit code for it: 5 where the daemon cannot be reached, 4 where it wants another token, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. }
            | Self::Forbidden { .. }
            | Self::Untrusted { .. }
            | Self::Broken { .. } => 5,
            Self::Refused(error) if error.field.as_deref() == Some(TOKEN_FIELD) => 4,
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
            transport: Transport::Unix(path.to_owned()),
        };
        client.open().map(|_| client)
    }

    /// A client of the gateway that `target` names; finds out that it is there and who it should be.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Untrusted`].
    pub fn connect_tls(target: TlsTarget) -> Result<Self, ClientError> {
        let client = Self {
            transport: Transport::Tls(Arc::new(target)),
        };
        client.open().map(|_| client)
    }

    /// Where the gateway's socket is; `None` where it is asked by TCP.
    pub fn socket(&self) -> Option<&Path> {
        match &self.transport {
            Transport::Unix(path) => Some(path),
            Transport::Tls(_) => None,
        }
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
        let sort = query.sort.map(|sort| format!("sort={}", sort.name()));
        let skip = query.skip.map(|skip| format!("skip={skip}"));
        let terms = limit.into_iter().chain(filter).chain(sort).chain(skip);
        let terms: Vec<String> = terms.collect();
        self.get(&format!("/v1/flows?{}", terms.join("&")))
    }

    /// The live flows whose verdict other manifests would change.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn diff(&self, request: &DiffRequest) -> Result<DiffResponse, ClientError> {
        self.post("/v1/policy/diff", request)
    }

    /// The paths to one peer, or to all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn paths(&self, peer: Option<&str>) -> Result<PathsResponse, ClientError> {
        let query = peer.map_or(String::new(), |peer| {
            format!("?peer={}", percent_encoded(peer))
        });
        self.get(&format!("/v1/paths{query}"))
            .map_err(|error| self.known(error))
    }

    /// One path, by number or name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn path(&self, peer: &str, path: &str) -> Result<PathView, ClientError> {
        self.get(&target(&[peer, path]))
            .map_err(|error| self.known(error))
    }

    /// Orders something of a peer's paths.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn path_command(
        &self,
        peer: &str,
        request: &PathCommandRequest,
    ) -> Result<OrderedResponse, ClientError> {
        self.post(&target(&[peer, "command"]), request)
            .map_err(|error| self.known(error))
    }

    /// Round trips on a path.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ping(
        &self,
        peer: &str,
        path: &str,
        request: &PingRequest,
    ) -> Result<PingResponse, ClientError> {
        self.post(&target(&[peer, path, "ping"]), request)
            .map_err(|error| self.known(error))
    }

    /// Has a path's bandwidth measured; the figure stands in [`PathView`] a moment later.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn measure_bandwidth(
        &self,
        peer: &str,
        path: &str,
    ) -> Result<OrderedResponse, ClientError> {
        self.post(&target(&[peer, path, "bandwidth"]), &())
            .map_err(|error| self.known(error))
    }

    /// What happened.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn events(&self, query: &EventsQuery) -> Result<EventsResponse, ClientError> {
        let number = |name: &str, value: Option<u64>| value.map(|it| format!("{name}={it}"));
        let text = |name: &str, value: &Option<String>| {
            value
                .as_ref()
                .map(|it| format!("{name}={}", percent_encoded(it)))
        };
        let terms = [
            number("since", query.since),
            text("peer", &query.peer),
            text("kind", &query.kind),
            number("max_age_s", query.max_age_s),
            number("wait_s", query.wait_s),
        ];
        let terms: Vec<String> = terms.into_iter().flatten().collect();
        self.get(&format!("/v1/events?{}", terms.join("&")))
            .map_err(|error| self.known(error))
    }

    /// What is thrown away in the kernel, and where.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn prefilter(&self) -> Result<PrefilterResponse, ClientError> {
        self.get("/v1/prefilter").map_err(|error| self.known(error))
    }

    /// Attaches or detaches the pre-filter.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn prefilter_command(
        &self,
        request: &PrefilterCommandRequest,
    ) -> Result<OrderedResponse, ClientError> {
        self.post("/v1/prefilter/command", request)
            .map_err(|error| self.known(error))
    }

    /// Records the paths of a peer into `out`, one JSON object a line; how many bytes that were.
    ///
    /// # Errors
    /// See [`ClientError`]; also what `out` answers, as [`ClientError::Broken`].
    pub fn trace(&self, peer: &str, seconds: u32, out: &mut dyn Write) -> Result<u64, ClientError> {
        let patience = PATIENCE + Duration::from_secs(seconds.into());
        let target = format!("{}?seconds={seconds}", target(&[peer, "trace"]));
        let mut reader = self.stream(&target, patience)?;
        stream::copy_chunks(&mut reader, out).map_err(|reason| self.broken(reason))
    }

    /// The body of an answer that comes piece by piece; each read may take `patience`.
    pub(crate) fn stream(
        &self,
        target: &str,
        patience: Duration,
    ) -> Result<BufReader<Stream>, ClientError> {
        let mut stream = self.open()?;
        let broken = |reason| self.broken(reason);
        stream.set_patience(patience).map_err(broken)?;
        // By HTTP/1.1 an answer says where it ends: one that was cut cannot pass for a whole one.
        let headers = self.transport.headers();
        let head = format!("GET {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(broken)?;
        stream.flush().map_err(broken)?;
        let mut reader = BufReader::new(stream);
        let Some((status, body)) = stream::read_head(&mut reader).map_err(broken)? else {
            return Err(self.foreign("not HTTP".to_owned()));
        };
        match (status, body) {
            (200, Body::Chunked) => Ok(reader),
            (200, Body::Whole) => Err(self.foreign("a stream in one piece".to_owned())),
            (_, Body::Chunked) => Err(self.foreign(format!("status {status} in pieces"))),
            (_, Body::Whole) => {
                let mut answer = Vec::new();
                let all = reader.take(ERROR_LEN_MAX).read_to_end(&mut answer);
                all.map_err(broken)?;
                let error = serde_json::from_slice(&answer);
                let error = error.map_err(|error| self.foreign(error.to_string()))?;
                Err(self.known(ClientError::Refused(error)))
            }
        }
    }

    /// A daemon that knows none of these requests is an old one; ours names the field that is wrong.
    pub(crate) fn known(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Refused(error)
                if error.field.is_none() && error.error == UNKNOWN_TARGET =>
            {
                self.foreign("the running daemon is too old to know this request".to_owned())
            }
            other => other,
        }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let headers = self.transport.headers();
        self.ask(&format!("GET {target} HTTP/1.0\r\n{headers}\r\n"), &[])
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(request);
        let body = body.map_err(|error| self.foreign(error.to_string()))?;
        let head = format!(
            "POST {target} HTTP/1.0\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.transport.headers(),
            body.len()
        );
        self.ask(&head, &body)
    }

    fn ask<T: DeserializeOwned>(&self, head: &str, body: &[u8]) -> Result<T, ClientError> {
        let answer = self.exchange(head, body)?;
        self.read_answer(&answer)
    }

    /// The body of an answer that is plain text.
    pub(crate) fn text(&self, target: &str) -> Result<String, ClientError> {
        let headers = self.transport.headers();
        let head = format!("GET {target} HTTP/1.0\r\n{headers}\r\n");
        let answer = self.exchange(&head, &[])?;
        match split_answer(&answer) {
            Some((200, body)) => String::from_utf8(body.to_vec())
                .map_err(|_| self.foreign("text that is not UTF-8".to_owned())),
            _ => Err(match self.read_answer::<()>(&answer) {
                Err(error) => self.known(error),
                Ok(()) => self.foreign("no text".to_owned()),
            }),
        }
    }

    fn exchange(&self, head: &str, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let mut stream = self.open()?;
        // A daemon that refuses a long body answers in the middle of it: what it says counts, not the broken pipe.
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .and_then(|()| stream.flush());
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
        Ok(answer)
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

    fn open(&self) -> Result<Stream, ClientError> {
        self.transport.open()
    }

    pub(crate) fn broken(&self, reason: io::Error) -> ClientError {
        ClientError::Broken {
            path: self.transport.place(),
            reason,
        }
    }

    pub(crate) fn foreign(&self, what: String) -> ClientError {
        ClientError::Foreign {
            path: self.transport.place(),
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

/// A request about paths; the parts may hold anything.
fn target(parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| percent_encoded(part));
    format!("/v1/paths/{}", parts.collect::<Vec<_>>().join("/"))
}

/// For a value in a query, or a part of a path (RFC 3986, section 2.1).
pub(crate) fn percent_encoded(text: &str) -> String {
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
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// The longest answer: 100,000 flows are some 25 MiB.
const ANSWER_LEN_MAX: u64 = 256 << 20;
/// The longest refusal.
const ERROR_LEN_MAX: u64 = 1 << 20;
/// What a daemon says to a request that it does not know.
const UNKNOWN_TARGET: &str = "no such path";
/// The field of a refusal that a token decides.
const TOKEN_FIELD: &str = "token";

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
        let transport = Transport::Unix(path);
        let heard = Client { transport }.status();
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
    fn a_daemon_that_knows_no_paths_is_called_old_and_one_that_misses_a_path_is_not() {
        let client = Client {
            transport: Transport::Unix(PathBuf::from("/x")),
        };
        let refused = |error: &str, field: Option<&str>| {
            client.known(ClientError::Refused(ApiError {
                error: error.to_owned(),
                field: field.map(str::to_owned),
                fix: "f".to_owned(),
            }))
        };
        let old = refused("no such path", None).to_string();
        assert_eq!(
            old,
            "/x does not speak this program's API (the running daemon is too old to know this request): run the \
             version of the daemon"
        );
        let missing = refused("no such path", Some("path"));
        assert!(matches!(missing, ClientError::Refused(_)));
    }

    #[test]
    fn parts_of_a_target_may_hold_slashes_and_angles() {
        assert_eq!(
            target(&["b/c", "wan1>198.51.100.2", "ping"]),
            "/v1/paths/b%2Fc/wan1%3E198.51.100.2/ping"
        );
    }

    #[test]
    fn a_filter_survives_the_query() {
        assert_eq!(
            percent_encoded("dst=10.0.0.0/8 peer=é"),
            "dst%3D10.0.0.0%2F8%20peer%3D%C3%A9"
        );
    }
}
