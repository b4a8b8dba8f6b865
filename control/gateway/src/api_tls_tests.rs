//! The API by TCP, asked by its client and by those who should get nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use super::*;
use patronus_api::{Client, ClientError, ConfigCommand, ConfigCommandRequest, TlsTarget};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const READ_TOKEN: &str = "a-token-that-may-only-look";

/// A gateway's API by TCP, without a gateway.
struct Remote {
    dir: tempfile::TempDir,
    addr: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn testdata(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tls");
    std::fs::read(dir.join(name)).unwrap()
}

fn write(dir: &Path, name: &str, bytes: &[u8], mode: u32) {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with everything, and settings that name it.
fn folder(certificate: &str) -> (tempfile::TempDir, ApiListen) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "cert", &testdata(certificate), 0o644);
    write(dir.path(), "key", &testdata("gateway.key"), 0o600);
    write(dir.path(), "token", TOKEN.as_bytes(), 0o600);
    write(
        dir.path(),
        "look",
        format!("{READ_TOKEN}\n").as_bytes(),
        0o600,
    );
    let settings = ApiListen {
        addr: "127.0.0.1:0".parse().unwrap(),
        tls_cert: "cert".into(),
        tls_key: "key".into(),
        token_file: Some("token".into()),
        read_token_file: Some("look".into()),
    };
    (dir, settings)
}

impl Remote {
    fn new(certificate: &str) -> Self {
        Self::living(certificate, CONNECTION_LIFE)
    }

    fn living(certificate: &str, life: Duration) -> Self {
        let (dir, settings) = folder(certificate);
        write(dir.path(), "roots", &testdata(certificate), 0o644);
        let base = dir.path().to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let state = super::super::tests::state(&[]);
                let listener = TcpListener::bind(settings.addr).await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let tokens = Arc::new(Tokens::read(&settings, &base).unwrap());
                let config = server_config(&settings, &base).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                let served = tokio::spawn(serve(listener, acceptor, tokens, state, life));
                let _ = stopped.await;
                served.abort();
            });
            runtime.shutdown_background();
        });
        Self {
            dir,
            addr: is_ready.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn target(&self, host: &str, roots: &str, token: &str) -> TlsTarget {
        let url = format!("https://{host}:{}", self.addr.port());
        write(self.dir.path(), "trusted", &testdata(roots), 0o644);
        TlsTarget::new(&url, &self.dir.path().join("trusted"), token).unwrap()
    }

    fn client(&self, token: &str) -> Result<Client, ClientError> {
        Client::connect_tls(self.target("127.0.0.1", "gateway.crt", token))
    }

    /// Sends bytes as they are, without TLS; what comes back until the end.
    fn plain(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn order() -> ConfigCommandRequest {
    ConfigCommandRequest {
        command: ConfigCommand::Confirm,
        text: None,
        source: None,
        number: None,
        confirm_s: None,
        dry_run: true,
    }
}

#[test]
fn the_right_token_gets_what_the_socket_gives() {
    let remote = Remote::new("gateway.crt");
    let client = remote.client(TOKEN).unwrap();
    assert_eq!(client.status().unwrap().site, "hq");
    let mut watch = client.watch(&patronus_api::WatchQuery {
        count: Some(1),
        ..Default::default()
    });
    assert!(watch.as_mut().unwrap().next_snapshot().unwrap().is_some());
    let missing = client.config_text("99").unwrap_err().to_string();
    assert!(missing.starts_with("no entry 99"), "{missing}");
}

#[test]
fn a_token_that_may_look_may_not_change_anything() {
    let remote = Remote::new("gateway.crt");
    let client = remote.client(READ_TOKEN).unwrap();
    assert_eq!(client.status().unwrap().site, "hq");
    let refused = client.config_command(&order()).unwrap_err().to_string();
    assert!(refused.contains("may only look"), "{refused}");
    let request = patronus_api::MeterStagesRequest { seconds: 1 };
    let refused = client.meter_stages(request.seconds).unwrap_err();
    assert!(refused.to_string().contains("may only look"), "{refused}");
}

#[test]
fn no_token_and_a_wrong_one_learn_nothing() {
    let remote = Remote::new("gateway.crt");
    for token in [
        "0123456789abcdef0123456789abcdeF",
        "x",
        &TOKEN[..31],
        READ_TOKEN.trim_end_matches('k'),
    ] {
        let client = remote.client(token).unwrap();
        for refused in [
            client.status().unwrap_err(),
            client.config_text("nowhere").unwrap_err(),
            client.config_command(&order()).unwrap_err(),
        ] {
            assert_eq!(refused.exit_code(), 4, "{refused}");
            assert!(refused.to_string().contains("token"), "{refused}");
        }
    }
    let tokens = {
        let (dir, settings) = folder("gateway.crt");
        Tokens::read(&settings, dir.path()).unwrap()
    };
    let ask = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        tokens.check(&Method::GET, "/v1/status", &headers).is_ok()
    };
    assert!(ask(&[&format!("Bearer {TOKEN}")]));
    assert!(!ask(&[]));
    assert!(!ask(&[TOKEN]));
    assert!(!ask(&[&format!("Basic {TOKEN}")]));
    assert!(!ask(&["Bearer "]));
    let twice = format!("Bearer {TOKEN}");
    assert!(!ask(&[&twice, &twice]));
}

#[test]
fn plain_http_at_the_port_gets_no_http_back() {
    let remote = Remote::new("gateway.crt");
    let answer = remote.plain(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(!text.contains("HTTP") && !text.contains("hq"), "{text:?}");
    assert!(remote.plain(&[0; 70_000]).len() < 100);
    // Others are served as before.
    assert!(remote.client(TOKEN).unwrap().status().is_ok());
}

#[test]
fn a_client_trusts_only_the_certificate_it_was_given_while_it_is_valid_and_by_its_name() {
    let remote = Remote::new("gateway.crt");
    let refused = |target: TlsTarget| match Client::connect_tls(target) {
        Err(error @ ClientError::Untrusted { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    refused(remote.target("127.0.0.1", "other.crt", TOKEN));
    refused(remote.target("localhost", "gateway.crt", TOKEN));
    let expired = Remote::new("expired.crt");
    let said = refused(expired.target("127.0.0.1", "expired.crt", TOKEN));
    assert!(said.contains("xpired"), "{said}");
}

#[test]
fn a_client_that_begins_and_does_not_go_on_is_cut() {
    let remote = Remote::living("gateway.crt", Duration::from_millis(500));
    // No TLS at all, then TLS and no request: both end by themselves, the second by the life of its connection.
    assert!(remote.plain(&[]).is_empty());
    let target = remote.target("127.0.0.1", "gateway.crt", TOKEN);
    let mut idle = patronus_api::Transport::Tls(Arc::new(target))
        .open()
        .unwrap();
    let mut sink = Vec::new();
    let _ = idle.read_to_end(&mut sink);
    assert!(sink.is_empty());
    assert!(remote.client(TOKEN).unwrap().status().is_ok());
}

#[test]
fn bodies_have_the_same_bounds_as_on_the_socket() {
    let remote = Remote::new("gateway.crt");
    let target = remote.target("127.0.0.1", "gateway.crt", TOKEN);
    let transport = patronus_api::Transport::Tls(Arc::new(target));
    let mut stream = transport.open().unwrap();
    let length = patronus_api::REQUEST_LEN_MAX + 1;
    let head = format!(
        "POST /v1/policy/diff HTTP/1.0\r\n{}Content-Length: {length}\r\n\r\n",
        transport.headers()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.0 413"), "{answer}");
}

#[test]
fn without_certificate_key_or_a_good_token_nobody_listens() {
    let opened = |break_it: fn(&Path, &mut ApiListen)| {
        let (dir, mut settings) = folder("gateway.crt");
        break_it(dir.path(), &mut settings);
        let config = server_config(&settings, dir.path());
        let tokens = Tokens::read(&settings, dir.path());
        match (config, tokens) {
            (Err(error), _) | (_, Err(error)) => error.to_string(),
            (Ok(_), Ok(_)) => "it listens".to_owned(),
        }
    };
    assert_eq!(opened(|_, _| {}), "it listens");
    assert!(opened(|dir, _| write(dir, "cert", b"x", 0o644)).contains("tls_cert"));
    assert!(opened(|dir, _| std::fs::remove_file(dir.join("cert")).unwrap()).contains("tls_cert"));
    assert!(opened(|dir, _| write(dir, "key", b"x", 0o600)).contains("tls_key"));
    let key = opened(|dir, _| write(dir, "key", &testdata("gateway.key"), 0o640));
    assert!(key.contains("open to other users"), "{key}");
    assert!(
        !opened(|dir, _| write(dir, "cert", &testdata("other.crt"), 0o644)).contains("listens")
    );
    assert!(opened(|dir, _| write(dir, "token", b"short", 0o600)).contains("token"));
    assert!(opened(|dir, _| write(dir, "token", TOKEN.as_bytes(), 0o644)).contains("open to"));
    assert!(opened(|dir, _| write(dir, "look", TOKEN.as_bytes(), 0o600)).contains("same token"));
    assert!(
        opened(|dir, _| std::fs::remove_file(dir.join("look")).unwrap())
            .contains("read_token_file")
    );
}
