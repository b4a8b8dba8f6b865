//! `[api]`: who may look from where.

use std::net::SocketAddr;

use crate::check::{parsed, path};
use crate::diagnostic::{Report, quote};
use crate::model::{ApiListen, ApiSettings};
use crate::raw::RawApi;

/// The settings. An API by TCP without certificate, key and token is a fault, and so are those without it.
pub(crate) fn check_api(raw: RawApi, report: &mut Report) -> ApiSettings {
    let line = raw.line;
    let listen_line = raw.listen.as_ref().map(|it| it.line);
    let is_broken = |key: &str| raw.broken.contains(&key);
    let addr = raw.listen.and_then(|text| {
        let addr = text.value.parse::<SocketAddr>();
        let addr = addr.ok().filter(|it| it.port() != 0);
        if addr.is_none() {
            let text = quote(&text.value);
            report.at(
                line,
                format!(
                    "[api] listen: `{text}` is no address with a port: write \"192.0.2.1:9587\", or \"[::]:9587\" for \
                     every address of this machine"
                ),
            );
        }
        addr
    });
    let tls_cert = path(raw.tls_cert, "[api] tls_cert", report);
    let tls_key = path(raw.tls_key, "[api] tls_key", report);
    let token_file = path(raw.token_file, "[api] token_file", report);
    let read_token_file = path(raw.read_token_file, "[api] read_token_file", report);
    if let Some(at) = listen_line {
        for (key, is_there, example) in [
            ("tls_cert", tls_cert.is_some(), "api.crt"),
            ("tls_key", tls_key.is_some(), "api.key"),
            (
                "token_file",
                token_file.is_some() || read_token_file.is_some(),
                "api.token",
            ),
        ] {
            if !is_there && !is_broken(key) {
                report.at(
                    at,
                    format!(
                        "[api] listen: {key} is missing, and nobody is served by TCP without: add {key} = \
                         \"/etc/patronus/{example}\""
                    ),
                );
            }
        }
    } else if !is_broken("listen") {
        let useless = [
            ("tls_cert", &tls_cert),
            ("tls_key", &tls_key),
            ("token_file", &token_file),
            ("read_token_file", &read_token_file),
        ];
        for (key, file) in useless {
            if let Some(file) = file {
                report.at(
                    file.line,
                    format!("[api] {key}: means nothing without listen: add listen = \"192.0.2.1:9587\", or remove it"),
                );
            }
        }
    }
    let listen = match (addr, tls_cert, tls_key) {
        (Some(addr), Some(tls_cert), Some(tls_key)) => Some(ApiListen {
            addr,
            tls_cert: tls_cert.value,
            tls_key: tls_key.value,
            token_file: token_file.map(|it| it.value),
            read_token_file: read_token_file.map(|it| it.value),
        }),
        _ => None,
    };
    ApiSettings {
        metrics_listen: parsed(raw.metrics_listen, "[api] metrics_listen", report),
        listen,
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Config;

    fn faults(api: &str) -> String {
        let text = format!("[site]\nname = \"hq\"\nprivate_key_file = \"k\"\n[api]\n{api}");
        match Config::parse(&text, "t") {
            Ok(_) => String::new(),
            Err(errors) => errors.to_string(),
        }
    }

    const TLS: &str = "tls_cert = \"c\"\ntls_key = \"k\"\n";

    #[test]
    fn an_api_by_tcp_needs_certificate_key_and_a_token() {
        let listen = "listen = \"0.0.0.0:9587\"\n";
        for token in ["token_file = \"t\"\n", "read_token_file = \"t\"\n"] {
            assert_eq!(faults(&format!("{listen}{TLS}{token}")), "");
        }
        assert!(faults(&format!("{listen}{TLS}")).contains("token_file is missing"));
        let bare = faults(&format!("{listen}token_file = \"t\"\n"));
        assert!(
            bare.contains("tls_cert is missing") && bare.contains("tls_key is missing"),
            "{bare}"
        );
        assert!(faults(TLS).contains("means nothing without listen"));
        for addr in ["9587", "gateway:9587", "0.0.0.0:0", ":9587"] {
            let listen = format!("listen = \"{addr}\"\n{TLS}token_file = \"t\"\n");
            assert!(faults(&listen).contains("no address with a port"), "{addr}");
        }
    }
}
