//! The peers of a site: no key twice, no name twice, no allowed IP owned by two.

use std::collections::HashMap;
use std::ops::Deref;

use patronus_packet::Prefix;
use patronus_tunnel::{PresharedKey, PublicKey};

use crate::endpoint::{CostedEndpoint, PeerEndpoint};
use crate::model::{Keepalive, Name};
use crate::via::Via;

/// One peer, as the configuration file or the UAPI socket sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// A label for people; the UAPI socket sets none.
    pub name: Option<Name>,
    /// The peer's identity.
    pub public_key: PublicKey,
    /// Where to reach it; `None` waits for it to call.
    pub endpoint: Option<PeerEndpoint>,
    /// Cost of paths to that address.
    pub endpoint_cost: u16,
    /// Further addresses; none where there is no first one.
    pub further_endpoints: Vec<CostedEndpoint>,
    /// What it may send from and is sent to. A [`PeerSet`] masks off host bits and sorts.
    pub allowed_ips: Vec<Prefix>,
    /// How often to send an empty packet through a NAT; `None` never.
    pub keepalive: Option<Keepalive>,
    /// The secret mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Which of its prefixes are asked whether they answer.
    pub via: Vec<Via>,
}

impl Peer {
    /// A peer with a key and nothing else.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            name: None,
            public_key,
            endpoint: None,
            endpoint_cost: 0,
            further_endpoints: Vec::new(),
            allowed_ips: Vec::new(),
            keepalive: None,
            preshared_key: None,
            via: Vec::new(),
        }
    }
}

impl Peer {
    /// Every address with its cost, the first one first.
    pub fn endpoints(&self) -> impl Iterator<Item = (&PeerEndpoint, u16)> {
        let first = self.endpoint.iter();
        let further = self.further_endpoints.iter();
        first
            .map(|endpoint| (endpoint, self.endpoint_cost))
            .chain(further.map(|further| (&further.endpoint, further.cost)))
    }
}

/// Peers in the order they were added. Reads as a slice; changes only in ways that keep it sound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSet {
    peers: Vec<Peer>,
}

impl PeerSet {
    /// No peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of `peers`, set one after the other as [`set`](Self::set) does, in time that grows with
    /// their number and not its square.
    pub fn from_peers(peers: impl IntoIterator<Item = Peer>) -> Self {
        let mut set = Self { peers: Vec::new() };
        let mut positions: HashMap<PublicKey, usize> = HashMap::new();
        let mut owners: HashMap<Prefix, usize> = HashMap::new();
        let mut bearers: HashMap<Name, usize> = HashMap::new();
        for mut peer in peers {
            normalize(&mut peer);
            let at = *positions.entry(peer.public_key).or_insert(set.peers.len());
            for prefix in &peer.allowed_ips {
                let Some(owner) = owners.insert(*prefix, at).filter(|owner| *owner != at) else {
                    continue;
                };
                let lost = &mut set.peers[owner].allowed_ips;
                lost.retain(|other| other != prefix);
            }
            if let Some(name) = &peer.name
                && let Some(bearer) = bearers
                    .insert(name.clone(), at)
                    .filter(|bearer| *bearer != at)
                && set.peers[bearer].name.as_ref() == Some(name)
            {
                set.peers[bearer].name = None;
            }
            if at == set.peers.len() {
                set.peers.push(peer);
            } else {
                set.peers[at] = peer;
            }
        }
        set
    }

    /// The peer with this key.
    pub fn by_key(&self, public_key: &PublicKey) -> Option<&Peer> {
        self.peers
            .iter()
            .find(|peer| peer.public_key == *public_key)
    }

    /// Adds a peer, or puts it in the place of the one with the same key. As in the kernel, an allowed
    /// IP that another peer owned moves to this one (`wireguard/allowedips.c`); so does a name.
    pub fn set(&mut self, mut peer: Peer) {
        normalize(&mut peer);
        for other in &mut self.peers {
            if other.public_key == peer.public_key {
                continue;
            }
            other
                .allowed_ips
                .retain(|prefix| peer.allowed_ips.binary_search(prefix).is_err());
            if other.name.is_some() && other.name == peer.name {
                other.name = None;
            }
        }
        match self
            .peers
            .iter()
            .position(|other| other.public_key == peer.public_key)
        {
            Some(at) => self.peers[at] = peer,
            None => self.peers.push(peer),
        }
    }

    /// Takes the peer with this key out.
    pub fn remove(&mut self, public_key: &PublicKey) -> Option<Peer> {
        let at = self
            .peers
            .iter()
            .position(|peer| peer.public_key == *public_key)?;
        Some(self.peers.remove(at))
    }

    /// Takes every peer out (`replace_peers=true` on the UAPI socket).
    pub fn clear(&mut self) {
        self.peers.clear();
    }
}

impl Deref for PeerSet {
    type Target = [Peer];

    fn deref(&self) -> &[Peer] {
        &self.peers
    }
}

impl<'a> IntoIterator for &'a PeerSet {
    type Item = &'a Peer;
    type IntoIter = std::slice::Iter<'a, Peer>;

    fn into_iter(self) -> Self::IntoIter {
        self.peers.iter()
    }
}

impl FromIterator<Peer> for PeerSet {
    fn from_iter<I: IntoIterator<Item = Peer>>(peers: I) -> Self {
        Self::from_peers(peers)
    }
}

fn normalize(peer: &mut Peer) {
    for prefix in &mut peer.allowed_ips {
        *prefix = prefix.network();
    }
    peer.allowed_ips.sort_unstable();
    peer.allowed_ips.dedup();
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;

    use super::*;

    fn peer(key: u8, allowed_ips: &[&str]) -> Peer {
        Peer {
            allowed_ips: allowed_ips
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            ..Peer::new(PublicKey::from_bytes([key; 32]))
        }
    }

    fn shown(set: &PeerSet) -> Vec<(u8, Vec<String>)> {
        set.iter()
            .map(|peer| {
                let allowed_ips = peer.allowed_ips.iter().map(Prefix::to_string).collect();
                (peer.public_key.as_bytes()[0], allowed_ips)
            })
            .collect()
    }

    #[test]
    fn host_bits_are_masked_and_repeats_vanish() {
        let set = PeerSet::from_peers([peer(1, &["10.2.3.4/16", "10.2.0.0/16", "10.1.0.1"])]);
        assert_eq!(
            shown(&set),
            [(1, vec!["10.1.0.1/32".to_owned(), "10.2.0.0/16".to_owned()])]
        );
    }

    #[test]
    fn an_allowed_ip_moves_to_the_peer_that_was_set_last() {
        let mut set = PeerSet::new();
        set.set(peer(1, &["10.1.0.0/16", "10.9.0.0/16"]));
        set.set(peer(2, &["10.2.0.0/16"]));
        set.set(peer(2, &["10.1.0.77/16"]));
        let expected = [
            (1, vec!["10.9.0.0/16".to_owned()]),
            (2, vec!["10.1.0.0/16".to_owned()]),
        ];
        assert_eq!(shown(&set), expected);
    }

    proptest::proptest! {
        #[test]
        fn building_at_once_and_setting_one_by_one_agree(
            rows in vec((0u8..5, 0u8..4, vec(0u8..6, 0..4)), 0..12),
        ) {
            let peers: Vec<Peer> = rows
                .iter()
                .map(|(key, name, prefixes)| Peer {
                    name: (*name > 0).then(|| format!("n{name}").parse().unwrap()),
                    allowed_ips: prefixes
                        .iter()
                        .map(|third| format!("10.0.{third}.1/24").parse().unwrap())
                        .collect(),
                    ..Peer::new(PublicKey::from_bytes([*key; 32]))
                })
                .collect();
            let mut one_by_one = PeerSet::new();
            for peer in peers.clone() {
                one_by_one.set(peer);
            }
            proptest::prop_assert_eq!(PeerSet::from_peers(peers), one_by_one);
        }
    }

    #[test]
    fn a_removed_peer_is_gone_and_the_order_of_the_rest_stays() {
        let mut set = PeerSet::from_peers([peer(1, &[]), peer(2, &[]), peer(3, &[])]);
        assert!(set.remove(&PublicKey::from_bytes([2; 32])).is_some());
        assert!(set.remove(&PublicKey::from_bytes([2; 32])).is_none());
        assert!(set.by_key(&PublicKey::from_bytes([2; 32])).is_none());
        assert_eq!(shown(&set), [(1, vec![]), (3, vec![])]);
    }
}
