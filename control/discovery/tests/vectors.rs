//! Frozen encodings: what this version writes, byte by byte, and reads for ever.
//!
//! The files under `vectors/` were written once by the ignored test below and are compared ever after. Who changes a
//! format on purpose changes its version, and adds vectors.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::path::{Path, PathBuf};

use common::*;
use patronus_discovery::certificate::Content;
use patronus_discovery::*;

type Lines = Vec<(String, String)>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).unwrap())
        .collect()
}

fn line(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// Keys of 32 equal bytes, what is made of them, and their texts.
fn keys() -> Lines {
    vec![
        line("root key 01…01", &*root().to_text()),
        line("its public key", root().public_key().to_text()),
        line("its network id", root().id()),
        line("issuer key 02…02", &*issuer().to_text()),
        line("its public key", issuer().public_key().to_text()),
        line("its issuer id", issuer().id()),
        line("site key 03…03", &*site().to_text()),
        line("its public key", site().public_key().to_text()),
        line("its site id", site().id()),
        line("discovery key 05…05", &*discovery_key().to_text()),
        line("its key id", hex(discovery_key().id().as_bytes())),
        line("delegation", delegation().to_text()),
        line("certificate by the issuer", certificate().to_text()),
        line("its fingerprint", certificate().fingerprint()),
        line("certificate by the root", root_certificate().to_text()),
        line("join token", &*join_token().to_text().unwrap()),
        line(
            "label of a long uplink",
            UplinkLabel::of("provider-with-a-long-name").unwrap(),
        ),
        line("state of three parts", revocation_state()),
    ]
}

fn revocation_state() -> u64 {
    let mut known = Revocations::new(network());
    for part in revocations() {
        known.add(part.verify(&mut trust()).unwrap());
    }
    known.state()
}

/// Bodies, by message.
fn bodies() -> Lines {
    let of = |(name, message): &(&str, Message)| line(name, hex(&message.to_body()));
    messages().iter().map(of).collect()
}

/// The same, sealed under the discovery key with nonces from [`Dice`].
fn datagrams() -> Lines {
    let of = |(name, message): &(&str, Message)| {
        line(name, hex(&message.seal(&discovery_key(), &mut Dice(1))))
    };
    messages().iter().take(2).map(of).collect()
}

fn files() -> [(&'static str, Lines); 3] {
    [
        ("keys.txt", keys()),
        ("bodies.txt", bodies()),
        ("datagrams.txt", datagrams()),
    ]
}

fn read(file: &str) -> Lines {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let split = |line: &str| {
        line.split_once(" = ")
            .map(|(name, value)| (name.into(), value.into()))
    };
    text.lines().map(|line| split(line).unwrap()).collect()
}

#[test]
#[ignore = "writes the vectors; what is there stays"]
fn write_the_vectors() {
    std::fs::create_dir_all(folder()).unwrap();
    for (file, lines) in files() {
        let path = folder().join(file);
        assert!(!path.exists(), "{} is frozen", path.display());
        let text: String = lines
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        std::fs::write(path, text).unwrap();
    }
}

#[test]
#[ignore = "writes the first inputs of the fuzz targets; what is there stays"]
fn write_the_first_inputs_of_the_fuzz_targets() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpora.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name.replace(", ", "-").replace(' ', "-"));
        if !path.exists() {
            std::fs::write(path, bytes).unwrap();
        }
    };
    for (name, message) in messages() {
        let body = message.to_body();
        let kind = [message.kind().code()];
        write("discovery_message", name, &[&kind, &body[..]].concat());
        write(
            "discovery_datagram",
            name,
            &message.seal(&discovery_key(), &mut Dice(1)),
        );
    }
    for (at, (name, value)) in keys().into_iter().enumerate() {
        if value.starts_with("patronus-") {
            write(
                "discovery_text",
                &format!("{at}-{}", name.replace('…', "-")),
                value.as_bytes(),
            );
        }
    }
    let spare = |subject: Subject| Content {
        subject,
        ..content()
    };
    let named = |name: &str| Subject::named(name.parse().unwrap());
    let by_root = |content| Certificate::issue(content, Issuing::Root(&root())).unwrap();
    let many = Labels::new((0..16).map(|at| (format!("key{at:02}"), "v".repeat(8)))).unwrap();
    let prefixes = (0..32).map(|at| format!("10.{at}.0.0/16").parse().unwrap());
    let hub = Subject {
        roles: Roles::ALL,
        ..named("hub")
    };
    let labelled = Subject {
        labels: many,
        ..named("labelled")
    };
    let routed = Subject {
        prefixes: Prefixes::new(prefixes).unwrap(),
        ..named("routed")
    };
    let default = Prefixes::new(["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]).unwrap();
    let exit = Subject {
        prefixes: default,
        ..named("exit")
    };
    let other_network = Content {
        network: NetworkId::from_bytes([0; 16]),
        ..content()
    };
    write(
        "discovery_certificate",
        "by the issuer",
        certificate().as_bytes(),
    );
    write(
        "discovery_certificate",
        "by the root",
        root_certificate().as_bytes(),
    );
    for (name, subject) in [
        ("shortest", named("a")),
        ("longest name", named(&"n".repeat(63))),
        ("hub", hub),
        ("many labels", labelled),
        ("many prefixes", routed),
        ("default routes", exit),
    ] {
        write(
            "discovery_certificate",
            name,
            by_root(spare(subject)).as_bytes(),
        );
    }
    let mut foreign = by_root(content()).as_bytes().to_vec();
    foreign[1..17].copy_from_slice(other_network.network.as_bytes());
    write("discovery_certificate", "other network", &foreign);
    let mut unsigned = certificate().as_bytes().to_vec();
    let end = unsigned.len() - 64;
    unsigned[end..].fill(0);
    write("discovery_certificate", "signature of zeros", &unsigned);
    write("discovery_certificate", "empty", &[]);
}

#[test]
fn what_is_written_is_what_was_frozen() {
    for (file, lines) in files() {
        let frozen = read(file);
        assert_eq!(frozen.len(), lines.len(), "{file}");
        for (frozen, line) in frozen.iter().zip(&lines) {
            assert_eq!(frozen, line, "{file}");
        }
    }
}

#[test]
fn what_was_frozen_is_read() {
    let expected = messages();
    for ((name, value), (_, message)) in read("bodies.txt").iter().zip(&expected) {
        let read = Message::decode_body(message.kind(), &from_hex(value));
        assert_eq!(read.as_ref(), Ok(message), "{name}");
    }
    let keyring = Keyring::new(discovery_key());
    for ((name, value), (_, message)) in read("datagrams.txt").iter().zip(&expected) {
        let mut datagram = from_hex(value);
        let opened = keyring.open(&mut datagram).unwrap();
        assert_eq!(Message::decode(&opened).as_ref(), Ok(message), "{name}");
    }
}
