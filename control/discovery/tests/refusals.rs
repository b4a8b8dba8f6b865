//! What is refused, and how it is named.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::time::Duration;

use common::*;
use patronus_discovery::certificate::{Content, IssueError};
use patronus_discovery::join::{AnswerError, RequestError};
use patronus_discovery::token::{Excess, TokenTooLarge};
use patronus_discovery::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_certificate_stands_by_the_clock_as_its_validity_says() {
    let validity = days(93, 107);
    let (start, end) = (validity.not_before(), validity.not_after());
    let standing = |now| validity.standing(now, HOUR);
    assert_eq!(
        standing(start - HOUR),
        Standing::NotYetValid { starts_in: HOUR }
    );
    assert_eq!(
        standing(start),
        Standing::Valid {
            left: validity.span()
        }
    );
    assert_eq!(
        standing(end),
        Standing::Valid {
            left: Duration::ZERO
        }
    );
    assert_eq!(standing(end + HOUR), Standing::Grace { since: HOUR });
    assert_eq!(
        standing(end + 2 * HOUR),
        Standing::Expired { since: 2 * HOUR }
    );
    assert_eq!(
        validity.standing(WallTime(end.0 + 1), Duration::ZERO),
        Standing::Expired {
            since: Duration::from_millis(1)
        }
    );
    assert_eq!(
        standing(WallTime(u64::MAX)),
        Standing::Expired {
            since: WallTime(u64::MAX).since(end)
        }
    );
}

#[test]
fn a_certificate_of_another_network_is_named_before_its_signature_is_looked_at() {
    let other = Trust::new(RootKey::from_bytes(&[50; 32]).public_key());
    let refused = certificate().verify(&mut other.clone()).unwrap_err();
    let (theirs, ours) = (network(), other.network());
    assert_eq!(refused, CertificateError::OtherNetwork { theirs, ours });
}

#[test]
fn a_certificate_that_its_issuer_may_not_sign_is_neither_made_nor_believed() {
    let delegate = |validity, powers, roles| {
        Delegation::new(
            &root(),
            issuer().public_key(),
            Serial(1),
            validity,
            powers,
            roles,
        )
    };
    for (delegation, fault) in [
        (
            delegate(days(0, 100), Powers::ALL, Roles::ALL),
            CertificateError::OutsideDelegation,
        ),
        (
            delegate(days(95, 200), Powers::ALL, Roles::ALL),
            CertificateError::OutsideDelegation,
        ),
        (
            delegate(days(0, 200), Powers::REVOKE, Roles::ALL),
            CertificateError::NoPower,
        ),
        (
            delegate(days(0, 200), Powers::ALL, Roles::HUB),
            CertificateError::RoleNotGiven,
        ),
    ] {
        let made = Certificate::issue(content(), Issuing::Issuer(&issuer(), &delegation));
        assert_eq!(made.unwrap_err(), IssueError::Refused(fault));
        // Somebody with the issuer's key and a program of his own.
        let forged = forge(&delegation);
        assert_eq!(forged.verify(&mut trust()).unwrap_err(), fault);
    }
}

/// The issuer's certificate with another delegation put in, which breaks the signature as well.
fn forge(delegation: &Delegation) -> Certificate {
    let mut encoded = certificate().as_bytes().to_vec();
    let at = encoded.len() - 64 - 123;
    encoded[at..at + 123].copy_from_slice(&delegation.to_bytes());
    Certificate::decode(&encoded).unwrap()
}

#[test]
fn a_delegation_that_another_root_signed_is_refused_however_often_it_is_shown() {
    let stranger = RootKey::from_bytes(&[50; 32]);
    let delegation = Delegation::new(
        &stranger,
        issuer().public_key(),
        Serial(1),
        days(0, 200),
        Powers::ALL,
        Roles::ALL,
    );
    let by = Issuing::Issuer(&issuer(), &delegation);
    let certificate = Certificate::issue(content(), by).unwrap();
    let mut trust = trust();
    for _ in 0..3 {
        let refused = certificate.clone().verify(&mut trust).unwrap_err();
        assert_eq!(refused, CertificateError::BadDelegation);
    }
}

#[test]
fn a_known_delegation_is_no_licence_for_another_key() {
    let mut trust = trust();
    certificate().verify(&mut trust).unwrap();
    let mut encoded = certificate().as_bytes().to_vec();
    let at = encoded.len() - 64 - 123 + 1;
    let thief = IssuerKey::from_bytes(&[51; 32]).public_key();
    encoded[at..at + 32].copy_from_slice(thief.as_bytes());
    let forged = Certificate::decode(&encoded).unwrap();
    assert_eq!(
        forged.verify(&mut trust).unwrap_err(),
        CertificateError::BadDelegation
    );
}

#[test]
fn nine_issuers_are_verified_with_room_for_eight() {
    let mut trust = trust();
    for round in 0..3 {
        for seed in 60..69 {
            let key = IssuerKey::from_bytes(&[seed; 32]);
            let delegation = Delegation::new(
                &root(),
                key.public_key(),
                Serial(1),
                days(0, 200),
                Powers::ALL,
                Roles::ALL,
            );
            let by = Issuing::Issuer(&key, &delegation);
            let issued = Certificate::issue(content(), by).unwrap();
            assert!(issued.verify(&mut trust).is_ok(), "{round} {seed}");
        }
    }
}

#[test]
fn nobody_signs_for_another_network_or_with_a_key_that_is_not_delegated_to() {
    let stranger = RootKey::from_bytes(&[50; 32]);
    let refused = IssueError::Refused(CertificateError::OtherSigner);
    let made = Certificate::issue(content(), Issuing::Root(&stranger));
    assert_eq!(made.unwrap_err(), refused);
    let thief = IssuerKey::from_bytes(&[51; 32]);
    let made = Certificate::issue(content(), Issuing::Issuer(&thief, &delegation()));
    assert_eq!(made.unwrap_err(), refused);
}

#[test]
fn a_certificate_that_is_too_long_is_not_made() {
    let labels = (0..16).map(|at| (format!("{at:0>63}"), "v".repeat(63)));
    let labels = Labels::new(labels).unwrap();
    let subject = Subject {
        labels,
        ..subject()
    };
    let made = Certificate::issue(
        Content {
            subject,
            ..content()
        },
        Issuing::Root(&root()),
    );
    assert!(
        matches!(made, Err(IssueError::TooLong { len: 1025.. })),
        "{made:?}"
    );
}

#[test]
fn a_list_in_another_order_or_with_a_repetition_is_another_encoding_and_refused() {
    let encoded = root_certificate().as_bytes().to_vec();
    let prefix = [16, 4, 10, 1, 0, 0];
    let at = encoded
        .windows(6)
        .position(|bytes| bytes == prefix)
        .unwrap();
    // Two prefixes: the first of IPv4, the second of IPv6. The first one twice, with the second one's place filled.
    let mut twice = encoded.clone();
    twice.splice(at + 6..at + 6 + 18, prefix);
    let fault = Certificate::decode(&twice).unwrap_err();
    assert_eq!((fault.field, fault.fault), ("prefixes", Fault::Order));
    let mut swapped = encoded.clone();
    let second: Vec<u8> = swapped.drain(at + 6..at + 6 + 18).collect();
    swapped.splice(at..at, second);
    let fault = Certificate::decode(&swapped).unwrap_err();
    assert_eq!((fault.field, fault.fault), ("prefixes", Fault::Order));
    let mut with_host_bits = encoded;
    with_host_bits[at + 5] = 1;
    let fault = Certificate::decode(&with_host_bits).unwrap_err();
    assert_eq!((fault.field, fault.fault), ("prefixes", Fault::Prefix));
}

#[test]
fn an_announcement_is_believed_of_its_own_site_with_its_own_certificate_only() {
    let verify = |content, key: &SiteKey| Signed::sign(content, key).verify(&trusted()).map(|_| ());
    assert_eq!(verify(announcement(), &site()), Ok(()));
    assert_eq!(
        verify(announcement(), &other_site()),
        Err(VerifyError::BadSignature)
    );
    let other = |change: fn(&mut Announcement)| {
        let mut content = announcement();
        change(&mut content);
        verify(content, &site())
    };
    assert_eq!(
        other(|content| content.site = other_site().id()),
        Err(VerifyError::OtherSite)
    );
    assert_eq!(
        other(|content| content.network = NetworkId::from_bytes([0; 16])),
        Err(VerifyError::OtherNetwork)
    );
    assert_eq!(
        other(|content| content.certificate = Fingerprint::from_bytes([0; 32])),
        Err(VerifyError::OtherCertificate)
    );
}

#[test]
fn bad_endpoints_are_ignored_and_counted_and_the_others_stay() {
    let endpoint = |kind, address: &str| Endpoint {
        kind,
        address: address.parse().unwrap(),
        ..endpoints().as_slice()[0]
    };
    let uplink = |address: &str| endpoint(EndpointKind::Uplink, address);
    for (address, fault) in [
        ("0.0.0.0:51820", EndpointFault::Unspecified),
        ("0.1.2.3:51820", EndpointFault::Unspecified),
        ("[::]:51820", EndpointFault::Unspecified),
        ("127.0.0.1:51820", EndpointFault::Loopback),
        ("[::1]:51820", EndpointFault::Loopback),
        ("224.0.0.1:51820", EndpointFault::Multicast),
        ("[ff02::1]:51820", EndpointFault::Multicast),
        ("255.255.255.255:51820", EndpointFault::Multicast),
        ("240.0.0.1:51820", EndpointFault::Reserved),
        ("[::ffff:10.0.0.1]:51820", EndpointFault::Reserved),
        ("169.254.1.1:51820", EndpointFault::LinkLocal),
        ("[fe80::1]:51820", EndpointFault::LinkLocal),
        ("10.0.0.1:0", EndpointFault::Port),
    ] {
        assert_eq!(uplink(address).fault(), Some(fault), "{address}");
    }
    for good in ["10.0.0.1:1", "100.64.0.1:1", "[fd00::1]:1", "192.0.2.1:1"] {
        assert_eq!(uplink(good).fault(), None, "{good}");
    }
    assert_eq!(endpoint(EndpointKind::Lan, "[fe80::1]:51820").fault(), None);
    let small = |mtu, address: &str| Endpoint {
        mtu: Some(mtu),
        ..uplink(address)
    };
    assert_eq!(small(575, "10.0.0.1:1").fault(), Some(EndpointFault::Mtu));
    assert_eq!(small(576, "10.0.0.1:1").fault(), None);
    assert_eq!(small(1279, "[fd00::1]:1").fault(), Some(EndpointFault::Mtu));

    let own = "203.0.113.9".parse::<std::net::IpAddr>().unwrap();
    let rest = endpoints().without_own(|addr| addr == own);
    assert_eq!((rest.as_slice().len(), rest.ignored()), (3, 1));
    let many = (1..=20).map(|host| uplink(&format!("10.0.0.{host}:1")));
    let kept = Endpoints::sift(many.chain([uplink("127.0.0.1:1")]));
    assert_eq!((kept.as_slice().len(), kept.ignored()), (16, 5));
}

#[test]
fn endpoints_of_other_versions_and_oversized_lists_do_not_spoil_an_announcement() {
    let signed = Signed::sign(announcement(), &site());
    let body = signed.as_bytes();
    // Behind the fixed part: a count, then each endpoint behind its length.
    let (fixed, rest) = body.split_at(222);
    let (list, signature) = rest[1..].split_at(rest.len() - 65);
    let with = |count: u8, list: &[u8]| {
        let body = [fixed, &[count], list, signature].concat();
        match Message::decode_body(MessageKind::Announce, &body) {
            Ok(Message::Announce(signed)) => {
                let endpoints = &signed.claims().endpoints;
                Some((endpoints.as_slice().len(), endpoints.ignored()))
            }
            _ => None,
        }
    };
    let first_len = usize::from(list[0]) + 1;
    let first = &list[..first_len];
    assert_eq!(with(4, list), Some((4, 0)));
    let unknown_kind = [&[first[0], 99], &first[2..]].concat();
    assert_eq!(with(2, &[&unknown_kind, first].concat()), Some((1, 1)));
    let longer = [[60].as_slice(), &[1; 60]].concat();
    assert_eq!(with(2, &[&longer, first].concat()), Some((1, 1)));
    assert_eq!(with(2, &[&[0], first].concat()), Some((1, 1)));
    assert_eq!(with(20, &first.repeat(20)), Some((16, 4)));
    assert_eq!(
        with(21, &first.repeat(20)),
        None,
        "a count that lies is malformed"
    );
    assert_eq!(with(3, list), None, "so is one that leaves bytes behind");
}

#[test]
fn a_wireguard_key_that_is_weak_or_the_same_twice_makes_an_announcement_malformed() {
    let body = Signed::sign(announcement(), &site()).as_bytes().to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut body = body.clone();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        Message::decode_body(MessageKind::Announce, &body).map(|_| ())
    };
    let fault = |at, bytes: &[u8]| with(at, bytes).unwrap_err().fault;
    assert_eq!(fault(90, &[0; 32]), Fault::Key);
    let mut one = [0; 32];
    one[0] = 1;
    assert_eq!(fault(122, &one), Fault::Key);
    assert_eq!(
        fault(122, wireguard_key(10).as_bytes()),
        Fault::Contradiction
    );
    assert_eq!(
        fault(154, &[0; 8]),
        Fault::Contradiction,
        "a next key without its time"
    );
    assert_eq!(
        fault(122, &[0; 32]),
        Fault::Key,
        "a time without its next key"
    );
    assert_eq!(with(122, &[0; 40]), Ok(()), "neither");
}

#[test]
fn what_is_sealed_for_others_or_is_not_ours_is_told_apart() {
    let ours = Keyring::new(discovery_key());
    let body = Signed::sign(announcement(), &site()).as_bytes().to_vec();
    let seal = |key: &DiscoveryKey| key.seal(MessageKind::Announce, &body, &mut Dice(1));
    let other = DiscoveryKey::from_bytes(&[99; 32]);
    let error = |mut datagram: Vec<u8>| ours.open(&mut datagram).unwrap_err();
    assert_eq!(error(seal(&other)), OpenError::UnknownKey(other.id()));
    let both = Keyring::new(discovery_key()).with_other(other.clone());
    assert!(both.open(&mut seal(&other)).is_ok());
    assert_eq!(both.sealing().id(), discovery_key().id());

    let changed = |at: usize, value: u8| {
        let mut datagram = seal(&discovery_key());
        datagram[at] = value;
        datagram
    };
    assert_eq!(error(changed(0, 0)), HeaderError::Magic.into());
    assert_eq!(error(changed(4, 2)), HeaderError::Version(2).into());
    assert_eq!(error(changed(5, 99)), HeaderError::Kind(99).into());
    assert_eq!(error(changed(5, 12)), HeaderError::Length.into());
    // A connect can have this length: only the seal shows that it was none.
    assert_eq!(error(changed(5, 8)), OpenError::NotAuthentic);
    assert_eq!(error(vec![0; 49]), HeaderError::Length.into());
    assert_eq!(error(vec![0; 1201]), HeaderError::Length.into());
}

#[test]
fn a_request_is_refused_without_the_secret_or_with_another_key() {
    let request = join_request();
    let other = token::TokenSecret::from_bytes(&[66; 32]);
    assert_eq!(request.check_proof(&other), Err(RequestError::BadProof));
    let renewal = JoinRequest::renewal(&site(), &trusted(), subject(), nonce(), NOW).unwrap();
    assert_eq!(
        renewal.check_proof(&token_secret()),
        Err(RequestError::NoToken)
    );
    assert_eq!(renewal.check_signature(), Ok(()));
    // Somebody who saw the request puts his own key into it.
    let mut body = Message::JoinRequest(request).to_body();
    body[19..51].copy_from_slice(other_site().public_key().as_bytes());
    let Ok(Message::JoinRequest(stolen)) = Message::decode_body(MessageKind::JoinRequest, &body)
    else {
        panic!("the layout still holds");
    };
    assert_eq!(
        stolen.check_proof(&token_secret()),
        Err(RequestError::BadProof)
    );
    assert_eq!(stolen.check_signature(), Err(RequestError::BadSignature));
}

#[test]
fn an_answer_is_good_for_its_request_and_site_and_from_the_issuer_only() {
    let granted = JoinAnswer::grant(&join_request(), certificate());
    let verify =
        |answer: &JoinAnswer, site, nonce| answer.clone().verify(&mut trust(), site, nonce);
    let outcome = verify(&granted, site().id(), nonce()).unwrap();
    assert_eq!(outcome, Outcome::Granted(Box::new(trusted())));
    let other_nonce = Nonce::from_bytes([1; 16]);
    assert_eq!(
        verify(&granted, site().id(), other_nonce),
        Err(AnswerError::OtherRequest)
    );
    assert_eq!(
        verify(&granted, other_site().id(), nonce()),
        Err(AnswerError::OtherSite)
    );

    let by = |key: &IssuerKey| {
        let delegation = delegation();
        let by = Issuing::Issuer(key, &delegation);
        JoinAnswer::refuse(&join_request(), Refusal::Pending, 60, by)
    };
    let refused = Outcome::Refused {
        reason: Refusal::Pending,
        retry_after_s: 60,
    };
    assert_eq!(verify(&by(&issuer()), site().id(), nonce()), Ok(refused));
    let thief = IssuerKey::from_bytes(&[51; 32]);
    let forged = verify(&by(&thief), site().id(), nonce());
    assert_eq!(
        forged,
        Err(AnswerError::Certificate(CertificateError::BadSignature))
    );
}

#[test]
fn an_allowance_names_what_goes_beyond_it() {
    let allowance = join_token().allowance;
    assert_eq!(allowance.check(&subject()), Ok(()));
    let asked = |change: fn(&mut Subject)| {
        let mut subject = subject();
        change(&mut subject);
        allowance.check(&subject)
    };
    assert_eq!(
        asked(|asked| asked.name = "paris".parse().unwrap()),
        Err(Excess::Name)
    );
    assert_eq!(
        asked(|asked| asked.ha_group = Some("paris".parse().unwrap())),
        Err(Excess::HaGroup)
    );
    assert_eq!(asked(|asked| asked.ha_group = None), Ok(()));
    assert_eq!(asked(|asked| asked.roles = Roles::HUB), Err(Excess::Role));
    let prefixes = |text: &str| Prefixes::new([text.parse().unwrap()]).unwrap();
    for outside in ["11.0.0.0/16", "0.0.0.0/0", "8.0.0.0/7", "2001:db9::/48"] {
        let subject = Subject {
            prefixes: prefixes(outside),
            ..subject()
        };
        assert_eq!(allowance.check(&subject), Err(Excess::Prefix), "{outside}");
    }
    let labels = |key: &str, value: &str| Labels::new([(key.into(), value.into())]).unwrap();
    for (key, value) in [("region", "us"), ("other", "eu")] {
        let subject = Subject {
            labels: labels(key, value),
            ..subject()
        };
        assert_eq!(
            allowance.check(&subject),
            Err(Excess::Label),
            "{key}={value}"
        );
    }
}

#[test]
fn a_token_says_what_is_wrong_with_it() {
    let token = join_token();
    let text = token.to_text().unwrap();
    let read = |text: &str| JoinToken::from_text(text, NOW).map(|_| ());
    let error = |text: &str| read(text).unwrap_err().to_string();
    assert_eq!(read(&text), Ok(()));
    let wrapped: String = text
        .as_bytes()
        .chunks(60)
        .map(|line| format!("  {}\r\n", std::str::from_utf8(line).unwrap()))
        .collect();
    assert_eq!(read(&wrapped), Ok(()), "as a mail program wraps it");

    assert_eq!(
        JoinToken::from_text(&text, WallTime(token.expires_at.0 + 1)).map(|_| ()),
        Err(TokenError::Expired)
    );
    let prefix = "patronus-join-1:".len();
    for len in prefix..text.len() {
        let error = error(&text[..len]);
        assert!(error.starts_with("cut off"), "{len}: {error}");
    }
    for len in 0..prefix {
        let error = error(&text[..len]);
        assert!(error.starts_with("not a join token"), "{len}: {error}");
    }
    assert!(
        error(&format!("{}AAAA", *text)).contains("too many"),
        "{}",
        error(&format!("{}AAAA", *text))
    );
    assert!(error(&format!("{}A", *text)).contains("too many"));
    let bad = text.replacen(&text[40..41], "!", 1);
    let at = bad.find('!').unwrap() + 1;
    assert_eq!(
        error(&bad),
        format!("mistyped: character {at} of a join token is none of A-Z a-z 0-9 - _")
    );
    assert!(error(&discovery_key().to_text()).ends_with("this is a discovery key"));
    assert!(error(&text.replace("join-1:", "join-2:")).contains("another version"));
    // Behind the length, each character for another one.
    let digits: Vec<char> = text.chars().collect();
    for at in prefix + 3..digits.len() {
        let mut changed = digits.clone();
        changed[at] = if changed[at] == 'A' { 'B' } else { 'A' };
        let error = error(&changed.iter().collect::<String>());
        assert!(error.starts_with("mistyped: the checksum"), "{at}: {error}");
    }
    let secret = &text[200..240];
    for text in [&text[..300], &bad, &format!("{}AAAA", *text)] {
        assert!(!error(text).contains(secret), "no error shows the token");
    }
}

#[test]
fn a_token_without_seeds_or_too_large_a_one_is_not_made() {
    let mut token = join_token();
    token.seeds.clear();
    assert_eq!(token.to_text().map(|_| ()), Err(TokenTooLarge::Seeds(0)));
    token.seeds = vec![join_token().seeds[0].clone(); 9];
    assert_eq!(token.to_text().map(|_| ()), Err(TokenTooLarge::Seeds(9)));
    let labels = (0..16).map(|at| (format!("{at:0>63}"), "v".repeat(63)));
    token.seeds.truncate(8);
    token.allowance.labels = Labels::new(labels).unwrap();
    assert!(matches!(
        token.to_text(),
        Err(TokenTooLarge::Length(1025..))
    ));
}

#[test]
fn every_text_is_read_back_and_no_kind_is_taken_for_another() {
    assert_eq!(
        *RootKey::from_text(&root().to_text()).unwrap().as_bytes(),
        [1; 32]
    );
    assert_eq!(
        *IssuerKey::from_text(&issuer().to_text())
            .unwrap()
            .as_bytes(),
        [2; 32]
    );
    assert_eq!(
        *SiteKey::from_text(&site().to_text()).unwrap().as_bytes(),
        [3; 32]
    );
    let public = root().public_key();
    assert_eq!(RootPublicKey::from_text(&public.to_text()), Ok(public));
    assert_eq!(
        Delegation::from_text(&delegation().to_text()),
        Ok(delegation())
    );
    assert_eq!(
        Certificate::from_text(&certificate().to_text()),
        Ok(certificate())
    );
    let key = DiscoveryKey::from_text(&discovery_key().to_text()).unwrap();
    assert_eq!(key.as_bytes(), discovery_key().as_bytes());
    let error = RootKey::from_text(&site().to_text())
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("this is a site's key"), "{error}");
    assert!(RootPublicKey::from_text(&root().to_text()).is_err());
}

#[test]
fn nothing_prints_a_secret() {
    let all = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        root(),
        site(),
        discovery_key(),
        token_secret(),
        join_token()
    );
    for secret in [
        "1, 1, 1", "3, 3, 3", "5, 5, 5", "6, 6, 6", "0101", "0303", "0505", "0606",
    ] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}
