//! What a datagram costs, printed: `cargo test --release -p patronus-discovery --test cost -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]
#![allow(clippy::disallowed_methods, reason = "it measures")]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::*;
use patronus_discovery::envelope::BODY_LEN_MAX;
use patronus_discovery::*;

const BATCH: u32 = 16;
const SPAN: Duration = Duration::from_millis(300);

/// The best of many short batches, in nanoseconds: what it costs when nothing else interferes.
fn measure(what: &str, mut work: impl FnMut()) {
    let (begin, mut best) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < SPAN {
        let start = Instant::now();
        (0..BATCH).for_each(|_| work());
        best = best.min(start.elapsed());
    }
    println!("{:>10} ns  {what}", best.as_nanos() / u128::from(BATCH));
}

/// A datagram of full length whose body nobody reads.
fn full(key: &DiscoveryKey) -> Vec<u8> {
    key.seal(MessageKind::Relayed, &[7; BODY_LEN_MAX], &mut Dice(1))
}

#[test]
#[ignore = "measures; prints and asserts nothing of time"]
fn print_what_datagrams_cost() {
    let keyring = Keyring::new(discovery_key());
    let other_key = full(&DiscoveryKey::from_bytes(&[99; 32]));
    let mut datagram = other_key.clone();
    measure("another network's key, 1200 bytes", || {
        assert!(black_box(&keyring).open(black_box(&mut datagram)).is_err());
    });
    let mut datagram = full(&discovery_key());
    datagram[1199] ^= 1;
    measure("our key's id but not sealed with it, 1200 bytes", || {
        assert!(black_box(&keyring).open(black_box(&mut datagram)).is_err());
    });
    let sealed = full(&discovery_key());
    measure("copied and opened, 1200 bytes", || {
        let mut datagram = sealed.clone();
        assert!(black_box(&keyring).open(&mut datagram).is_ok());
    });
    for (name, message) in messages() {
        let sealed = message.seal(&discovery_key(), &mut Dice(1));
        let mut bad = message.to_body();
        // A signature, where there is one, that is canonical and wrong.
        if let Some(at) = bad.len().checked_sub(64) {
            bad[at..at + 32].fill(0x22);
        }
        let bad = discovery_key().seal(message.kind(), &bad, &mut Dice(1));
        measure(&format!("{name}: opened and read"), || {
            drop(read(&keyring, &sealed));
        });
        let certificate = trusted();
        let mut known = trust();
        known.check_delegation(&delegation()).unwrap();
        measure(&format!("{name}: opened, read and verified"), || {
            verify(read(&keyring, &sealed), &certificate, &mut known);
        });
        measure(&format!("{name}: the same with a bad signature"), || {
            verify(read(&keyring, &bad), &certificate, &mut known);
        });
    }
    measure("certificate whose delegation is new", || {
        assert!(certificate().verify(&mut trust()).is_ok());
    });
    measure("making that certificate, to be subtracted", || {
        black_box(certificate());
    });
    measure("signing and sealing an announcement", || {
        let signed = Message::Announce(Signed::sign(announcement(), &site()));
        black_box(signed.seal(&discovery_key(), &mut Dice(1)));
    });
}

fn read(keyring: &Keyring, sealed: &[u8]) -> Option<Message> {
    let mut datagram = sealed.to_vec();
    let opened = keyring.open(&mut datagram).unwrap();
    Message::decode(&opened).ok()
}

fn verify(message: Option<Message>, certificate: &TrustedCertificate, trust: &mut Trust) {
    let is_good = match message {
        Some(Message::Announce(signed)) => signed.verify(certificate).is_ok(),
        Some(Message::ChallengeResponse(signed)) => signed.verify(certificate).is_ok(),
        Some(Message::Connect(signed)) => signed.verify(certificate).is_ok(),
        Some(Message::Goodbye(signed)) => signed.verify(certificate).is_ok(),
        Some(Message::CertificateAnswer(claimed)) => claimed.verify(trust).is_ok(),
        Some(Message::RevocationPart(part)) => part.verify(trust).is_ok(),
        Some(Message::Relayed(relayed)) => {
            return verify(Some(relayed.into_message()), certificate, trust);
        }
        Some(Message::JoinRequest(request)) => {
            request.check_proof(&token_secret()).is_ok() | request.check_signature().is_ok()
        }
        Some(Message::JoinAnswer(answer)) => answer.verify(trust, site().id(), nonce()).is_ok(),
        Some(
            Message::CertificateQuery(_)
            | Message::Challenge(_)
            | Message::Probe(_)
            | Message::Observed(_)
            | Message::RevocationQuery(_),
        )
        | None => false,
    };
    black_box(is_good);
}
