//! One network with fixed keys, and a message of every kind in it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

pub mod arbitrary;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use patronus_discovery::announce::Capabilities;
use patronus_discovery::certificate::Content;
use patronus_discovery::endpoint::CostClass;
use patronus_discovery::message::{
    CertificateQuery, Challenge, ChallengeResponse, Connect, ConnectStep, Goodbye, Observed, Probe,
    Relayed,
};
use patronus_discovery::token::{DnsName, TokenSecret};
use patronus_discovery::*;
use rand_core::{CryptoRng, RngCore};

/// The middle of all validities here: 1 January 2027.
pub const NOW: WallTime = WallTime(1_798_761_600_000);
const DAY_MS: u64 = 86_400_000;

/// Chance for tests: the same every time (SplitMix64).
pub struct Dice(pub u64);

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Dice {}

pub fn root() -> RootKey {
    RootKey::from_bytes(&[1; 32])
}

pub fn issuer() -> IssuerKey {
    IssuerKey::from_bytes(&[2; 32])
}

pub fn site() -> SiteKey {
    SiteKey::from_bytes(&[3; 32])
}

pub fn other_site() -> SiteKey {
    SiteKey::from_bytes(&[4; 32])
}

pub fn discovery_key() -> DiscoveryKey {
    DiscoveryKey::from_bytes(&[5; 32])
}

pub fn token_secret() -> TokenSecret {
    TokenSecret::from_bytes(&[6; 32])
}

pub fn network() -> NetworkId {
    root().id()
}

pub fn trust() -> Trust {
    Trust::new(root().public_key())
}

pub fn days(from: u64, to: u64) -> Validity {
    let at = |day: u64| WallTime(NOW.0 - 100 * DAY_MS + day * DAY_MS);
    Validity::new(at(from), at(to)).unwrap()
}

/// Half a year around now.
pub fn delegation() -> Delegation {
    Delegation::new(
        &root(),
        issuer().public_key(),
        Serial(7),
        days(0, 200),
        Powers::ALL,
        Roles::RENDEZVOUS.with(Roles::RELAY),
    )
}

pub fn subject() -> Subject {
    Subject {
        name: "berlin-1".parse().unwrap(),
        ha_group: Some("berlin".parse().unwrap()),
        roles: Roles::RENDEZVOUS,
        addresses: Addresses::new([
            Ipv4Addr::new(10, 200, 0, 1).into(),
            "fd00:200::1".parse().unwrap(),
        ])
        .unwrap(),
        prefixes: Prefixes::new([
            "10.1.0.0/16".parse().unwrap(),
            "2001:db8:1::/48".parse().unwrap(),
        ])
        .unwrap(),
        labels: Labels::new([
            ("region".into(), "eu".into()),
            ("example.org/tier".into(), "1".into()),
        ])
        .unwrap(),
    }
}

/// What is certified of [`site`], for the 14 days around now.
pub fn content() -> Content {
    Content {
        network: network(),
        site_key: site().public_key(),
        serial: Serial(42),
        validity: days(93, 107),
        subject: subject(),
    }
}

pub fn certificate() -> Certificate {
    Certificate::issue(content(), Issuing::Issuer(&issuer(), &delegation())).unwrap()
}

pub fn root_certificate() -> Certificate {
    Certificate::issue(content(), Issuing::Root(&root())).unwrap()
}

pub fn trusted() -> TrustedCertificate {
    certificate().verify(&mut trust()).unwrap()
}

pub fn wireguard_key(seed: u8) -> WireGuardKey {
    let secret = x25519_dalek::StaticSecret::from([seed; 32]);
    WireGuardKey::new(x25519_dalek::PublicKey::from(&secret).to_bytes()).unwrap()
}

pub fn endpoints() -> Endpoints {
    let endpoint = |kind, address: &str, uplink: &str, mtu, cost| Endpoint {
        kind,
        uplink: uplink.parse().unwrap(),
        address: address.parse().unwrap(),
        mtu,
        cost,
    };
    Endpoints::sift([
        endpoint(
            EndpointKind::Lan,
            "192.168.1.7:51820",
            "lan",
            Some(1500),
            CostClass::Flat,
        ),
        endpoint(
            EndpointKind::Uplink,
            "203.0.113.9:51820",
            "fiber",
            Some(1492),
            CostClass::Flat,
        ),
        endpoint(
            EndpointKind::Configured,
            "198.51.100.4:4500",
            "lte",
            None,
            CostClass::Metered,
        ),
        endpoint(
            EndpointKind::Observed,
            "[2001:db8:9::2]:51820",
            "sat",
            Some(1280),
            CostClass::LastResort,
        ),
    ])
}

pub fn announcement() -> Announcement {
    Announcement {
        network: network(),
        site: site().id(),
        stamp: Stamp {
            boot_epoch: 3,
            sequence: 1000,
        },
        issued_at: NOW,
        ttl_s: 90,
        certificate: certificate().fingerprint(),
        wireguard: WireGuardKeys::new(
            wireguard_key(10),
            Some((wireguard_key(11), WallTime(NOW.0 + DAY_MS))),
        )
        .unwrap(),
        capabilities: Capabilities(5),
        protocol: ProtocolRange::OURS,
        prefixes_digest: announce::prefixes_digest(subject().prefixes.as_slice()).unwrap(),
        policy_version: 12,
        revocation_state: 0,
        endpoints: endpoints(),
    }
}

pub fn nonce() -> Nonce {
    Nonce::from_bytes([0x77; 16])
}

pub fn token_id() -> TokenId {
    TokenId::from_bytes([0x88; 16])
}

pub fn join_token() -> JoinToken {
    JoinToken {
        root: root().public_key(),
        discovery_key: discovery_key(),
        issuer: Some(issuer().id()),
        id: token_id(),
        secret: token_secret(),
        expires_at: WallTime(NOW.0 + DAY_MS),
        allowance: Allowance {
            name: Some("berlin-1".parse().unwrap()),
            ha_group: Some("berlin".parse().unwrap()),
            roles: Roles::RENDEZVOUS,
            prefixes: Prefixes::new([
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ])
            .unwrap(),
            labels: subject().labels,
        },
        seeds: vec![
            Seed {
                pin: other_site().id(),
                host: SeedHost::Address(Ipv4Addr::new(203, 0, 113, 1).into()),
                port: 51821,
            },
            Seed {
                pin: other_site().id(),
                host: SeedHost::Address(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
                port: 51821,
            },
            Seed {
                pin: other_site().id(),
                host: SeedHost::Name(DnsName::new("Seed.Example.Org").unwrap()),
                port: 443,
            },
        ],
    }
}

pub fn join_request() -> JoinRequest {
    let token = (token_id(), &token_secret());
    JoinRequest::with_token(&site(), network(), token, subject(), nonce(), NOW).unwrap()
}

/// A hundred revoked sites and an issuer: three parts.
pub fn revocations() -> Vec<RevocationPart> {
    let sites = (0..100).map(|at| SiteId::from_bytes([at * 2; 16]).into());
    let ids = sites.chain([IssuerKey::from_bytes(&[9; 32]).id().into()]);
    let list = RevocationList::new(network(), 4, NOW, ids).unwrap();
    list.sign(Issuing::Root(&root())).unwrap()
}

/// A message of every kind, with a name.
pub fn messages() -> Vec<(&'static str, Message)> {
    let (network, site_id, to) = (network(), site().id(), other_site().id());
    let announce = Message::Announce(Signed::sign(announcement(), &site()));
    let stamp = announcement().stamp;
    let relayed = Relayed::new(SiteId::EVERYONE, 2, [9; 8], announce.clone()).unwrap();
    let issuing = (issuer(), delegation());
    let issued_at = NOW;
    let refusal = JoinAnswer::refuse(
        &join_request(),
        Refusal::TokenUsed,
        0,
        Issuing::Issuer(&issuing.0, &issuing.1),
    );
    let renewal = JoinRequest::renewal(&site(), &trusted(), subject(), nonce(), NOW).unwrap();
    let query = CertificateQuery {
        network,
        site: site_id,
        fingerprint: None,
    };
    let exact = CertificateQuery {
        fingerprint: Some(certificate().fingerprint()),
        ..query
    };
    let challenge = Challenge {
        network,
        site: site_id,
        nonce: nonce(),
    };
    let response = ChallengeResponse {
        network,
        site: site_id,
        nonce: nonce(),
        stamp,
        issued_at,
    };
    let probe = Probe {
        network,
        nonce: nonce(),
    };
    let observed = |address: &str| {
        Message::Observed(Observed {
            network,
            nonce: nonce(),
            address: address.parse::<SocketAddr>().unwrap(),
        })
    };
    let connect = |step| {
        let content = Connect {
            network,
            site: site_id,
            to,
            stamp,
            issued_at,
            attempt: nonce(),
            step,
            delay_ms: 150,
            endpoints: endpoints(),
        };
        Message::Connect(Signed::sign(content, &site()))
    };
    let goodbye = Goodbye {
        network,
        site: site_id,
        stamp,
        issued_at,
    };
    let mut known = Revocations::new(network);
    let part = |at: usize| revocations().swap_remove(at);
    known.add(part(1).verify(&mut trust()).unwrap());
    vec![
        ("announce", announce),
        (
            "certificate query, newest",
            Message::CertificateQuery(query),
        ),
        ("certificate query, exact", Message::CertificateQuery(exact)),
        (
            "certificate answer",
            Message::CertificateAnswer(Box::new(certificate())),
        ),
        ("challenge", Message::Challenge(challenge)),
        (
            "challenge response",
            Message::ChallengeResponse(Signed::sign(response, &site())),
        ),
        ("probe", Message::Probe(probe)),
        ("observed, IPv4", observed("203.0.113.9:40000")),
        ("observed, IPv6", observed("[2001:db8::9]:40000")),
        ("connect, ask", connect(ConnectStep::Ask)),
        ("connect, answer", connect(ConnectStep::Answer)),
        ("revocation query", Message::RevocationQuery(known.query())),
        ("revocation part, full", Message::RevocationPart(part(0))),
        ("revocation part, last", Message::RevocationPart(part(2))),
        ("relayed", Message::Relayed(relayed)),
        ("goodbye", Message::Goodbye(Signed::sign(goodbye, &site()))),
        ("join request, token", Message::JoinRequest(join_request())),
        ("join request, renewal", Message::JoinRequest(renewal)),
        (
            "join answer, granted",
            Message::JoinAnswer(JoinAnswer::grant(&join_request(), certificate())),
        ),
        ("join answer, refused", Message::JoinAnswer(refusal)),
    ]
}
