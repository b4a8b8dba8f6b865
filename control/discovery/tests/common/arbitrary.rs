//! Any value of every format.

use std::net::{IpAddr, SocketAddr};

use patronus_discovery::announce::Capabilities;
use patronus_discovery::certificate::Content;
use patronus_discovery::endpoint::CostClass;
use patronus_discovery::*;
use patronus_packet::Prefix;
use proptest::prelude::*;

pub fn name() -> impl Strategy<Value = Name> {
    prop::collection::vec(prop::sample::select(&b"abcxyz0189-"[..]), 1..=63)
        .prop_map(|text| String::from_utf8(text).unwrap().parse().unwrap())
}

fn label() -> impl Strategy<Value = (String, String)> {
    let text = |len| {
        prop::collection::vec(prop::sample::select(&b"abcXYZ019"[..]), len)
            .prop_map(|text| String::from_utf8(text).unwrap())
    };
    (text(1..=30), text(0..=30))
}

pub fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<IpAddr>(), 0_u8..=128).prop_map(|(addr, len)| {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        Prefix::new(addr, len.min(max)).unwrap().network()
    })
}

pub fn roles() -> impl Strategy<Value = Roles> {
    prop::sample::subsequence(vec![Roles::HUB, Roles::RENDEZVOUS, Roles::RELAY], 0..=3)
        .prop_map(|roles| roles.into_iter().fold(Roles::NONE, Roles::with))
}

prop_compose! {
    pub fn subject()(
        name in name(),
        ha_group in prop::option::of(name()),
        roles in roles(),
        addresses in prop::collection::vec(any::<IpAddr>(), 0..=8),
        prefixes in prop::collection::vec(prefix(), 0..=8),
        labels in prop::collection::btree_map("[a-z]{1,20}", "[a-z0-9]{0,20}", 0..=4),
        extra in prop::option::of(label()),
    ) -> Subject {
        let mut labels: std::collections::BTreeMap<String, String> = labels;
        labels.extend(extra);
        let hosts = addresses.into_iter().filter(|addr| Addresses::new([*addr]).is_ok());
        Subject {
            name,
            ha_group,
            roles,
            addresses: Addresses::new(hosts).unwrap(),
            prefixes: Prefixes::new(prefixes).unwrap(),
            labels: Labels::new(labels).unwrap(),
        }
    }
}

pub fn validity() -> impl Strategy<Value = Validity> {
    (any::<u64>(), any::<u64>()).prop_filter_map("an instant is no span", |(a, b)| {
        Validity::new(WallTime(a.min(b)), WallTime(a.max(b)))
    })
}

prop_compose! {
    pub fn content()(
        seed in any::<[u8; 32]>(),
        serial in any::<u64>(),
        validity in validity(),
        subject in subject(),
    ) -> Content {
        Content {
            network: super::network(),
            site_key: SiteKey::from_bytes(&seed).public_key(),
            serial: Serial(serial),
            validity,
            subject,
        }
    }
}

pub fn endpoint() -> impl Strategy<Value = Endpoint> {
    let kinds = [
        EndpointKind::Lan,
        EndpointKind::Uplink,
        EndpointKind::Configured,
        EndpointKind::Observed,
    ];
    let costs = [CostClass::Flat, CostClass::Metered, CostClass::LastResort];
    (
        prop::sample::select(kinds.to_vec()),
        "[!-~]{1,16}",
        any::<(IpAddr, u16)>(),
        prop::option::of(1_u16..),
        prop::sample::select(costs.to_vec()),
    )
        .prop_map(|(kind, uplink, address, mtu, cost)| Endpoint {
            kind,
            uplink: uplink.parse().unwrap(),
            address: SocketAddr::from(address),
            mtu,
            cost,
        })
}

pub fn wireguard_key() -> impl Strategy<Value = WireGuardKey> {
    any::<[u8; 32]>().prop_filter_map("no key", WireGuardKey::new)
}

prop_compose! {
    pub fn announcement()(
        numbers in any::<[u64; 6]>(),
        ttl_s in any::<u16>(),
        protocol in any::<(u16, u16)>(),
        certificate in any::<[u8; 32]>(),
        current in wireguard_key(),
        next in prop::option::of((wireguard_key(), 1_u64..)),
        prefixes_digest in any::<[u8; 32]>(),
        endpoints in prop::collection::vec(endpoint(), 0..20),
    ) -> Announcement {
        let next = next.map(|(key, from)| (key, WallTime(from)));
        Announcement {
            network: super::network(),
            site: super::site().id(),
            stamp: Stamp { boot_epoch: numbers[0], sequence: numbers[1] },
            issued_at: WallTime(numbers[2]),
            ttl_s,
            certificate: Fingerprint::from_bytes(certificate),
            wireguard: WireGuardKeys::new(current, next).unwrap_or_else(|| {
                WireGuardKeys::new(current, None).unwrap()
            }),
            capabilities: Capabilities(numbers[3]),
            protocol: ProtocolRange::new(
                protocol.0.min(protocol.1),
                protocol.0.max(protocol.1),
            ).unwrap(),
            prefixes_digest,
            policy_version: numbers[4],
            revocation_state: numbers[5],
            // As a message brings them: what is ignored is not there.
            endpoints: Endpoints::sift(Endpoints::sift(endpoints).as_slice().iter().copied()),
        }
    }
}
