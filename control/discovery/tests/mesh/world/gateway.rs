//! Gateways: who tries which handshakes, keeps which sessions, passes what on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use patronus_discovery::machine::{Arrival, Door, PORT, Peer, Reachability, SessionPath};
use patronus_discovery::{SiteId, WireGuardKey};

use super::{
    DEAD_AFTER, HANDSHAKE_EVERY, KEEPALIVE, Payload, Session, Trying, Tunnelled, WIREGUARD, World,
    lan_ip, lan_net,
};

impl World {
    pub(super) fn tick_gateway(&mut self, at: usize) {
        let now = self.now;
        let peers: BTreeMap<SiteId, _> = {
            let machine = self.nodes[at].machine.as_ref().unwrap();
            machine.peers().map(|peer| (peer.site, peer)).collect()
        };
        let node = &mut self.nodes[at];
        node.sessions.retain(|id, _| peers.contains_key(id));
        node.trying.retain(|id, _| peers.contains_key(id));
        let dead: Vec<SiteId> = node
            .sessions
            .iter()
            .filter(|(_, session)| now - session.heard_at > DEAD_AFTER)
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.nodes[at].sessions.remove(&id);
            let now = self.now_of(at);
            let machine = self.nodes[at].machine.as_mut().unwrap();
            machine.handle_reachability(id, Reachability::Down, now);
        }
        for (id, peer) in peers {
            self.keep_alive(at, id);
            let is_direct = self.nodes[at]
                .sessions
                .get(&id)
                .is_some_and(|it| it.relay.is_none());
            if !is_direct {
                self.try_handshakes(at, &peer);
            }
        }
    }

    fn keep_alive(&mut self, at: usize, id: SiteId) {
        let now = self.now;
        let own = self.id(at);
        let Some(session) = self.nodes[at].sessions.get_mut(&id) else {
            return;
        };
        if now - session.said_at >= KEEPALIVE {
            session.said_at = now;
            self.send_in_session(at, id, Tunnelled::Keepalive { from: own });
        }
    }

    fn try_handshakes(&mut self, at: usize, peer: &Peer) {
        let now = self.now;
        let attempt = peer
            .attempt
            .filter(|attempt| attempt.at <= now)
            .map(|it| it.id);
        let trying = self.nodes[at].trying.entry(peer.site).or_insert(Trying {
            next_at: now,
            attempt: None,
        });
        let is_new_attempt = attempt.is_some() && attempt != trying.attempt;
        if now < trying.next_at && !is_new_attempt {
            return;
        }
        trying.attempt = attempt;
        trying.next_at = now + HANDSHAKE_EVERY;
        let machine = self.nodes[at].machine.as_ref().unwrap();
        let initiation = Tunnelled::Initiation {
            from: self.id(at),
            key: machine.own_keys().current,
            to_key: peer.keys.current(),
        };
        for endpoint in &peer.endpoints {
            self.send_to_endpoint(at, endpoint.address, initiation.clone());
        }
        let has_session = self.nodes[at].sessions.contains_key(&peer.site);
        if let Some(relay) = peer.relay.filter(|_| !has_session) {
            self.send_relayed(at, relay, peer.site, initiation);
        }
    }

    fn send_to_endpoint(&mut self, at: usize, to: SocketAddr, packet: Tunnelled) {
        let payload = Payload::WireGuard(packet);
        let lan = self.nodes[at].lans.iter().copied().find(|lan| {
            let is_v6 = self.lans[*lan].is_v6_only;
            lan_net(to.ip()) == lan_net(lan_ip(*lan, 1, is_v6))
        });
        match lan {
            Some(lan) => self.send_to_lan_address(at, lan, WIREGUARD, to, payload),
            None => self.send_on_wan(at, WIREGUARD, to, payload),
        }
    }

    fn send_relayed(&mut self, at: usize, relay: SiteId, to: SiteId, inner: Tunnelled) {
        let author = self.id(at);
        let relayed = Tunnelled::Relayed {
            from: author,
            author,
            to,
            inner: Box::new(inner),
        };
        let is_direct = self.nodes[at]
            .sessions
            .get(&relay)
            .is_some_and(|it| it.relay.is_none());
        if is_direct {
            self.send_in_session(at, relay, relayed);
        }
    }

    pub(super) fn send_in_session(&mut self, at: usize, to: SiteId, packet: Tunnelled) {
        let Some(session) = self.nodes[at].sessions.get(&to).copied() else {
            return;
        };
        match (session.relay, session.remote) {
            (Some(relay), _) => self.send_relayed(at, relay, to, packet),
            (None, Some(remote)) => self.send_to_endpoint(at, remote, packet),
            (None, None) => {}
        }
    }

    pub(super) fn handle_wireguard(
        &mut self,
        at: usize,
        source: Option<SocketAddr>,
        relay: Option<SiteId>,
        packet: Tunnelled,
    ) {
        match packet {
            Tunnelled::Initiation { from, key, to_key } => {
                self.answer_initiation(at, source, relay, (from, key, to_key));
            }
            Tunnelled::Response { from, own_key } => {
                self.establish(at, from, source, relay, own_key);
            }
            Tunnelled::Keepalive { from } => self.heard(at, from, source, relay),
            Tunnelled::Discovery { from, datagram } => {
                if !self.nodes[at].sessions.contains_key(&from) {
                    return;
                }
                self.heard(at, from, source, relay);
                let arrival = Arrival {
                    door: Door::Tunnel(from),
                    source: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1)), PORT),
                    local: IpAddr::V4(Ipv4Addr::new(100, 64, 0, 2)),
                    is_on_link: false,
                    hop_limit: Some(64),
                };
                self.hand(at, arrival, datagram);
            }
            Tunnelled::Relayed {
                from,
                author,
                to,
                inner,
            } => {
                if !self.nodes[at].sessions.contains_key(&from) {
                    return;
                }
                self.heard(at, from, source, None);
                if to == self.id(at) {
                    self.handle_wireguard(at, None, Some(from), *inner);
                } else if author == from {
                    let own = self.id(at);
                    let next = Tunnelled::Relayed {
                        from: own,
                        author,
                        to,
                        inner,
                    };
                    let is_direct = self.nodes[at]
                        .sessions
                        .get(&to)
                        .is_some_and(|it| it.relay.is_none());
                    if is_direct {
                        self.send_in_session(at, to, next);
                    }
                }
            }
        }
    }

    fn answer_initiation(
        &mut self,
        at: usize,
        source: Option<SocketAddr>,
        relay: Option<SiteId>,
        (from, key, to_key): (SiteId, WireGuardKey, WireGuardKey),
    ) {
        let machine = self.nodes[at].machine.as_ref().unwrap();
        let own = machine.own_keys();
        let is_ours = own.current == to_key
            || own.previous == Some(to_key)
            || own.next.is_some_and(|(next, _)| next == to_key);
        let knows = machine.peers().any(|peer| {
            let next = peer.keys.next().is_some_and(|(next, _)| next == key);
            peer.site == from && (peer.keys.current() == key || next)
        });
        if !is_ours || !knows {
            return;
        }
        self.establish(at, from, source, relay, to_key);
        let own_id = self.id(at);
        let response = Tunnelled::Response {
            from: own_id,
            own_key: key,
        };
        match (relay, source) {
            (Some(relay), _) => self.send_relayed(at, relay, from, response),
            (None, Some(source)) => self.send_to_endpoint(at, source, response),
            (None, None) => {}
        }
    }

    /// A direct session is never given up for a relayed one.
    fn establish(
        &mut self,
        at: usize,
        from: SiteId,
        source: Option<SocketAddr>,
        relay: Option<SiteId>,
        own_key: WireGuardKey,
    ) {
        let knows = {
            let machine = self.nodes[at].machine.as_ref().unwrap();
            machine.peers().any(|peer| peer.site == from)
        };
        if !knows {
            return;
        }
        let now = self.now;
        let before = self.nodes[at].sessions.get(&from).copied();
        if relay.is_some() && before.is_some_and(|it| it.relay.is_none()) {
            return;
        }
        let session = Session {
            remote: source,
            relay,
            own_key,
            heard_at: now,
            said_at: before.map_or(now - KEEPALIVE, |it| it.said_at),
            reported: before.and_then(|it| it.reported),
        };
        self.nodes[at].sessions.insert(from, session);
        self.report(at, from);
    }

    /// A packet of a session came: the session roams to where it came from, but never from direct to relayed.
    fn heard(
        &mut self,
        at: usize,
        from: SiteId,
        source: Option<SocketAddr>,
        relay: Option<SiteId>,
    ) {
        let now = self.now;
        let Some(session) = self.nodes[at].sessions.get_mut(&from) else {
            return;
        };
        session.heard_at = now;
        if relay.is_none() {
            session.remote = source;
            session.relay = None;
        } else if session.relay.is_some() {
            session.relay = relay;
        }
        self.report(at, from);
    }

    fn report(&mut self, at: usize, id: SiteId) {
        let Some(session) = self.nodes[at].sessions.get_mut(&id) else {
            return;
        };
        let state = (session.remote, session.relay);
        if session.reported == Some(state) {
            return;
        }
        session.reported = Some(state);
        let path = SessionPath {
            uplink: None,
            remote: session.remote,
            relay: session.relay,
            own_key: session.own_key,
        };
        let now = self.now_of(at);
        let machine = self.nodes[at].machine.as_mut().unwrap();
        machine.handle_reachability(id, Reachability::Up(path), now);
    }
}
