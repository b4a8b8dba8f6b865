//! What is written is read, has one encoding, and changed bytes never verify.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::sync::LazyLock;

use common::*;
use patronus_discovery::envelope::DATAGRAM_LEN_MAX;
use patronus_discovery::*;
use proptest::prelude::*;

static MESSAGES: LazyLock<Vec<(&str, Message)>> = LazyLock::new(messages);
static CERTIFICATE: LazyLock<TrustedCertificate> = LazyLock::new(trusted);

#[test]
fn every_message_is_read_as_it_was_written_and_fits() {
    let keyring = Keyring::new(discovery_key());
    for (name, message) in MESSAGES.iter() {
        let mut datagram = message.seal(keyring.sealing(), &mut Dice(1));
        assert!(
            datagram.len() <= DATAGRAM_LEN_MAX,
            "{name}: {}",
            datagram.len()
        );
        let opened = keyring.open(&mut datagram).unwrap();
        assert_eq!(opened.kind, message.kind(), "{name}");
        assert_eq!(Message::decode(&opened).as_ref(), Ok(message), "{name}");
    }
}

#[test]
fn every_kind_has_its_code_and_a_message_here() {
    let seen: Vec<MessageKind> = MESSAGES.iter().map(|(_, message)| message.kind()).collect();
    for kind in MessageKind::ALL {
        assert_eq!(MessageKind::from_code(kind.code()), Some(kind));
        assert!(seen.contains(&kind), "{kind:?}");
    }
    assert_eq!(MessageKind::from_code(0), None);
    assert_eq!(MessageKind::from_code(15), None);
}

#[test]
fn an_answer_is_never_larger_than_its_question() {
    let question = |kind: MessageKind| *kind.body_len().start();
    let answer = |kind: MessageKind| *kind.body_len().end();
    for (asked, answered) in [
        (
            MessageKind::CertificateQuery,
            MessageKind::CertificateAnswer,
        ),
        (MessageKind::Challenge, MessageKind::ChallengeResponse),
        (MessageKind::Probe, MessageKind::Observed),
        (MessageKind::RevocationQuery, MessageKind::RevocationPart),
        (MessageKind::JoinRequest, MessageKind::JoinAnswer),
        // What an unknown or new site's announcement may cause.
        (MessageKind::Announce, MessageKind::Challenge),
    ] {
        assert!(
            question(asked) >= answer(answered),
            "{asked:?} {answered:?}"
        );
    }
}

#[test]
fn every_truncation_and_every_extension_of_every_body_is_refused() {
    for (name, message) in MESSAGES.iter() {
        let body = message.to_body();
        for cut in 0..body.len() {
            assert!(
                Message::decode_body(message.kind(), &body[..cut]).is_err(),
                "{name} cut to {cut}"
            );
        }
        let longer = [&body[..], &[0]].concat();
        assert!(
            Message::decode_body(message.kind(), &longer).is_err(),
            "{name}"
        );
    }
}

/// Whether anything that was signed verifies, and says what it said.
fn verifies(message: &Message) -> bool {
    let certificate = &*CERTIFICATE;
    match message.clone() {
        Message::Announce(signed) => signed.verify(certificate).is_ok(),
        Message::ChallengeResponse(signed) => signed.verify(certificate).is_ok(),
        Message::Connect(signed) => signed.verify(certificate).is_ok(),
        Message::Goodbye(signed) => signed.verify(certificate).is_ok(),
        Message::CertificateAnswer(claimed) => claimed.verify(&mut trust()).is_ok(),
        Message::RevocationPart(part) => part.verify(&mut trust()).is_ok(),
        Message::Relayed(relayed) => verifies(relayed.message()),
        Message::JoinRequest(request) => request.check_signature().is_ok(),
        Message::JoinAnswer(answer) => answer.verify(&mut trust(), site().id(), nonce()).is_ok(),
        Message::CertificateQuery(_)
        | Message::Challenge(_)
        | Message::Probe(_)
        | Message::Observed(_)
        | Message::RevocationQuery(_) => false,
    }
}

fn is_signed(kind: MessageKind) -> bool {
    !matches!(
        kind,
        MessageKind::CertificateQuery
            | MessageKind::Challenge
            | MessageKind::Probe
            | MessageKind::Observed
            | MessageKind::RevocationQuery
    )
}

#[test]
fn what_is_unchanged_verifies() {
    for (name, message) in MESSAGES.iter() {
        assert_eq!(verifies(message), is_signed(message.kind()), "{name}");
    }
}

/// Bytes of a relayed message that the relay may write: addressee, hops, tag.
const RELAYS_OWN: usize = 25;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_changed_body_never_verifies(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let (name, message) = which.get(&MESSAGES);
        let mut body = message.to_body();
        let at = at.index(body.len());
        body[at] ^= flip;
        let is_relays_own = message.kind() == MessageKind::Relayed && at < RELAYS_OWN;
        if let Ok(changed) = Message::decode_body(message.kind(), &body) {
            prop_assert_eq!(&changed.to_body(), &body, "{} has two encodings", name);
            prop_assert!(is_relays_own || !verifies(&changed), "{} changed at {}", name, at);
        }
    }

    #[test]
    fn a_changed_datagram_never_opens_and_stays_as_it_was(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let keyring = Keyring::new(discovery_key());
        let (_, message) = which.get(&MESSAGES);
        let mut datagram = message.seal(keyring.sealing(), &mut Dice(1));
        let at = at.index(datagram.len());
        datagram[at] ^= flip;
        let before = datagram.clone();
        prop_assert!(keyring.open(&mut datagram).is_err());
        prop_assert_eq!(datagram, before);
    }

    #[test]
    fn any_body_is_harmless_and_what_is_read_has_one_encoding(
        kind in prop::sample::select(&MessageKind::ALL[..]),
        mut body in prop::collection::vec(any::<u8>(), 0..1200),
        fits in any::<bool>(),
        is_sparse in any::<bool>(),
    ) {
        if is_sparse {
            let kept = body.len() / 8;
            body[kept..].fill(0);
        }
        if fits {
            body.resize(body.len().clamp(*kind.body_len().start(), *kind.body_len().end()), 0);
        }
        if let Ok(message) = Message::decode_body(kind, &body) {
            prop_assert_eq!(message.to_body(), body);
            verifies(&message);
        }
    }

    #[test]
    fn any_datagram_is_harmless(mut datagram in prop::collection::vec(any::<u8>(), 0..1300)) {
        prop_assert!(Keyring::new(discovery_key()).open(&mut datagram).is_err());
    }

    #[test]
    fn any_certificate_is_read_as_it_was_issued(content in arbitrary::content()) {
        let Ok(issued) = Certificate::issue(content.clone(), Issuing::Root(&root())) else {
            return Ok(());
        };
        let read = Certificate::decode(issued.as_bytes());
        prop_assert_eq!(read.as_ref(), Ok(&issued));
        prop_assert_eq!(&Certificate::from_text(&issued.to_text()), &Ok(issued.clone()));
        let trusted = issued.verify(&mut trust()).unwrap();
        prop_assert_eq!(trusted.content(), &content);
    }

    #[test]
    fn any_announcement_is_read_as_it_was_signed(announcement in arbitrary::announcement()) {
        let signed = Signed::sign(announcement.clone(), &site());
        let message = Message::Announce(signed);
        let read = Message::decode_body(MessageKind::Announce, &message.to_body());
        prop_assert_eq!(read.as_ref(), Ok(&message));
        let Ok(Message::Announce(read)) = read else { unreachable!() };
        prop_assert_eq!(read.claims(), &announcement);
        let datagram = message.seal(&discovery_key(), &mut Dice(1));
        prop_assert!(datagram.len() <= DATAGRAM_LEN_MAX);
    }

    #[test]
    fn any_request_is_read_as_it_was_made(subject in arbitrary::subject()) {
        let token = (token_id(), &token_secret());
        let made = JoinRequest::with_token(&site(), network(), token, subject, nonce(), NOW);
        let Ok(made) = made else { return Ok(()) };
        let message = Message::JoinRequest(made.clone());
        let read = Message::decode_body(MessageKind::JoinRequest, &message.to_body());
        prop_assert_eq!(read, Ok(message));
        prop_assert_eq!(made.check_proof(&token_secret()), Ok(()));
        prop_assert_eq!(made.check_signature(), Ok(()));
    }
}
