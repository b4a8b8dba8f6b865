//! Targets for the formats of discovery. All keys are fixed, so that inputs with good signatures stay good.

use std::time::Duration;

use patronus_discovery::{
    Certificate, Delegation, DiscoveryKey, Issuing, JoinToken, Keyring, Message, MessageKind,
    Nonce, Revocations, RootKey, RootPublicKey, SiteKey, Trust, TrustedCertificate, WallTime,
};

use super::assert_is_fit_to_print;

const NOW: WallTime = WallTime(1_798_761_600_000);

/// A datagram as the network brings it; then the same bytes as kind and body, sealed.
pub fn discovery_datagram(data: &[u8]) {
    let keyring = Keyring::new(DiscoveryKey::from_bytes(&[5; 32]));
    let mut datagram = data.to_vec();
    match keyring.open(&mut datagram) {
        Ok(opened) => drop(Message::decode(&opened)),
        Err(_) => assert_eq!(datagram, data, "a refused datagram is left as it was"),
    }
    let Some((&code, body)) = data.split_first() else {
        return;
    };
    let Some(kind) = MessageKind::from_code(code) else {
        return;
    };
    if !kind.body_len().contains(&body.len()) {
        return;
    }
    let mut sealed = keyring.sealing().seal(kind, body, &mut Fixed);
    let opened = keyring.open(&mut sealed).expect("what we sealed opens");
    assert_eq!((opened.kind, opened.body), (kind, body));
}

/// A kind and a body: what is read has one encoding, and whatever its signatures are worth, nothing panics.
pub fn discovery_message(data: &[u8]) {
    let Some((&code, body)) = data.split_first() else {
        return;
    };
    let Some(kind) = MessageKind::from_code(code) else {
        return;
    };
    let Ok(message) = Message::decode_body(kind, body) else {
        return;
    };
    assert_eq!(message.kind(), kind);
    assert!(
        message.to_body() == body,
        "a second encoding of {message:?}"
    );
    verify(message);
}

fn verify(message: Message) {
    let mut trust = trust();
    let certificate = trusted(&mut trust);
    let site = certificate.site_id();
    match message {
        Message::Announce(signed) => {
            let endpoints = &signed.claims().endpoints;
            assert!(endpoints.as_slice().iter().all(|end| end.fault().is_none()));
            let _ = signed.verify(&certificate);
        }
        Message::ChallengeResponse(signed) => drop(signed.verify(&certificate)),
        Message::Connect(signed) => drop(signed.verify(&certificate)),
        Message::Goodbye(signed) => drop(signed.verify(&certificate)),
        Message::CertificateAnswer(claimed) => drop(claimed.verify(&mut trust)),
        Message::RevocationPart(part) => {
            let mut known = Revocations::new(trust.network());
            if let Ok(part) = part.verify(&mut trust) {
                known.add(part);
                assert_ne!(known.state(), 0);
                assert!(known.answer(&known.query()).is_none());
            }
        }
        Message::RevocationQuery(query) => {
            assert!(Revocations::new(trust.network()).answer(&query).is_none());
        }
        Message::Relayed(relayed) => {
            let next = relayed.next_hop();
            assert_eq!(next.is_none(), relayed.hops_left() == 0);
            verify(relayed.into_message());
        }
        Message::JoinRequest(request) => {
            let _ = request.check_signature();
        }
        Message::JoinAnswer(answer) => {
            let _ = answer.verify(&mut trust, site, Nonce::from_bytes([0x77; 16]));
        }
        Message::CertificateQuery(_)
        | Message::Challenge(_)
        | Message::Probe(_)
        | Message::Observed(_) => {}
    }
}

/// A certificate: one encoding, and the root can sign what it says.
pub fn discovery_certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::decode(data) else {
        return;
    };
    assert_eq!(certificate.as_bytes(), data);
    assert_eq!(
        Certificate::from_text(&certificate.to_text()).as_ref(),
        Ok(&certificate)
    );
    certificate
        .claims()
        .validity
        .standing(NOW, Duration::from_secs(3600));
    let claims = certificate.claims().clone();
    let _ = certificate.verify(&mut trust());
    if let Ok(again) = Certificate::issue(claims.clone(), Issuing::Root(&root())) {
        let again = again
            .verify(&mut trust())
            .expect("what the root signs verifies");
        assert_eq!(again.content(), &claims);
    }
}

/// Text that should hold a token, a key or a certificate: what is read writes the same, errors show none of it.
pub fn discovery_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let compact: String = text
        .chars()
        .filter(|char| !char.is_ascii_whitespace())
        .collect();
    let same = |written: &str| assert!(written == compact, "{written} was read from {compact}");
    match JoinToken::from_text(&text, WallTime(0)) {
        Ok(token) => same(&token.to_text().expect("a token that was read fits")),
        Err(error) => assert_is_fit_to_print(&error.to_string()),
    }
    match SiteKey::from_text(&text) {
        Ok(key) => same(&key.to_text()),
        Err(error) => assert_is_fit_to_print(&error.to_string()),
    }
    match RootPublicKey::from_text(&text) {
        Ok(key) => same(&key.to_text()),
        Err(error) => assert_is_fit_to_print(&error.to_string()),
    }
    match DiscoveryKey::from_text(&text) {
        Ok(key) => same(&key.to_text()),
        Err(error) => assert_is_fit_to_print(&error.to_string()),
    }
    match Delegation::from_text(&text) {
        Ok(delegation) => same(&delegation.to_text()),
        Err(error) => assert_is_fit_to_print(&error.to_string()),
    }
    match Certificate::from_text(&text) {
        Ok(certificate) => same(&certificate.to_text()),
        Err(error) => assert_is_fit_to_print(&error.to_string()),
    }
}

fn root() -> RootKey {
    RootKey::from_bytes(&[1; 32])
}

fn trust() -> Trust {
    Trust::new(root().public_key())
}

/// The certificate of the site whose messages are in the corpus.
fn trusted(trust: &mut Trust) -> TrustedCertificate {
    let certificate = Certificate::from_text(CERTIFICATE).expect("the certificate of the vectors");
    certificate.verify(trust).expect("the root of the vectors")
}

const CERTIFICATE: &str = "\
    patronus-certificate-1:ZAEB2MpSGn7ZJjRkotlpWZrDMO1JKMYo0cLG6ukDOJBZlWEpWSc6XGP5NjbBRhSshzfRKgAAA\
    AAAAAAAUH-qogEAAABYmPKiAQAAAghiZXJsaW4tMQZiZXJsaW4CBArIAAEG_QACAAAAAAAAAAAAAAAAAQIQBAoBAAAwBiABD\
    bgAAQAAAAAAAAAAAAACEGV4YW1wbGUub3JnL3RpZXIBMQZyZWdpb24CZXUBAYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D\
    1uPybOUBwAAAAAAAAAA5I_LoAEAAADEh9GkAQAAAwap_BVcTUQ4P04pFtlCAKNmoaoZ1bESggEfBxFgV-gWfRAtVKRhqf3LS\
    t-QcOqsjChpVCYPXJntrweHPpvyxXADloccsSFb36Q2dZZg54_rKwhPtGAEXpQcUNkUbFXQN6SgqLfijQRLoIpLcVNcDO3qR\
    4EGTOx-NPghtieriMSXDGDu5mg";

/// Nonces need not be random where nobody listens.
struct Fixed;

impl rand_core::RngCore for Fixed {
    fn next_u32(&mut self) -> u32 {
        7
    }

    fn next_u64(&mut self) -> u64 {
        7
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.fill(7);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl rand_core::CryptoRng for Fixed {}
