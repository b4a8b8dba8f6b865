//! The front door for handshake messages: who we are, the MACs, and the answer to a flood.
//!
//! One gate is shared by all workers. It checks `mac1`, and under load `mac2`, before anybody spends a
//! Diffie-Hellman on a message (whitepaper, section 5.3). boringtun's limiter counts and bakes the cookies.

use std::net::IpAddr;
use std::time::Instant;

use blake2::{Blake2s256, Digest};
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;

use patronus_aead::Backend;

use crate::clock::{Label, Labels, WallClock};
use crate::keys::{KEY_LEN, PrivateKey, PublicKey};
use crate::message::{COOKIE_LEN, INITIATION_LEN, has_low_order_ephemeral};
use crate::noise::mac;

/// Bytes of one MAC, and of both, at the end of a handshake message.
const MAC_LEN: usize = 16;
const MACS_LEN: usize = 2 * MAC_LEN;

/// Our own key pair, ready for handshakes, the labels that they carry, and the gate that belongs to it.
pub struct Identity {
    pub(crate) secret: x25519::StaticSecret,
    pub(crate) public: x25519::PublicKey,
    labels: Labels,
    backend: Backend,
    gate: Gate,
    private_key: PrivateKey,
}

impl Identity {
    /// Derives the public key; the gate asks for cookies above `handshakes_per_s` messages a second. `clock` dates
    /// our initiations: a peer refuses those that are not later than the last one it took, also across a restart.
    pub fn new(private_key: PrivateKey, handshakes_per_s: u64, clock: WallClock) -> Self {
        let secret = x25519::StaticSecret::from(*private_key.as_bytes());
        let public = x25519::PublicKey::from(&secret);
        Self {
            labels: Labels::new(clock),
            backend: Backend::best(),
            gate: Gate {
                limiter: RateLimiter::new(&public, handshakes_per_s),
                mac1_key: Blake2s256::new()
                    .chain_update(b"mac1----")
                    .chain_update(public.as_bytes())
                    .finalize()
                    .into(),
            },
            secret,
            public,
            private_key,
        }
    }

    /// Chooses the code that seals and opens packets; where this processor cannot run it, the best one does.
    #[must_use]
    pub fn with_backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// The code that seals and opens packets.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Our name on the wire.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.public.to_bytes())
    }

    /// Our private key.
    pub fn private_key(&self) -> &PrivateKey {
        &self.private_key
    }

    /// The clock that dates our initiations.
    pub fn clock(&self) -> WallClock {
        self.labels.clock()
    }

    /// The date of the next initiation: later than every one before.
    pub fn label(&self, now: Instant) -> Label {
        self.labels.next(now)
    }

    /// The door that handshake messages come through.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Who an initiation says it is from. Only the holder of the static key can complete it, but anybody who
    /// knows our public key can claim a name: nothing may be decided against the named peer yet.
    pub fn claimed_initiator(&self, initiation: &[u8]) -> Option<PublicKey> {
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(initiation) else {
            return None;
        };
        let half = parse_handshake_anon(&self.secret, &self.public, &initiation).ok()?;
        Some(PublicKey::from_bytes(half.peer_static_public))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?})", self.public_key())
    }
}

/// Checks MACs and counts handshake messages per second.
pub struct Gate {
    limiter: RateLimiter,
    /// `HASH(LABEL_MAC1 || public key)`
    mac1_key: [u8; KEY_LEN],
}

/// What the gate says of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The sender knows our public key and, under load, owns its address.
    Pass,
    /// `mac1` is wrong: not meant for us.
    BadMac,
    /// The ephemeral key is a low-order point.
    LowOrder,
    /// We are under load: answer with the cookie reply of this many bytes.
    Cookie(usize),
}

impl Gate {
    /// Judges an initiation or response from `source`; a cookie reply is written to `out`.
    ///
    /// `out` must hold at least 64 bytes.
    pub fn admit(&self, source: IpAddr, message: &[u8], out: &mut [u8]) -> Admission {
        debug_assert!(out.len() >= COOKIE_LEN);
        if has_low_order_ephemeral(message) {
            return Admission::LowOrder;
        }
        match self.limiter.verify_packet(Some(source), message, out) {
            Ok(_) => Admission::Pass,
            Err(TunnResult::WriteToNetwork(cookie)) => Admission::Cookie(cookie.len()),
            Err(_) => Admission::BadMac,
        }
    }

    /// Whether the first MAC of an initiation says that it is for us; counts nothing.
    pub fn is_addressed(&self, initiation: &[u8]) -> bool {
        let Some((message, macs)) = initiation.split_at_checked(INITIATION_LEN - MACS_LEN) else {
            return false;
        };
        // The key is derived from our public key, so there is no secret that the time of this could tell.
        macs.len() == MACS_LEN && mac(&self.mac1_key, message) == macs[..MAC_LEN]
    }

    /// Starts the next second of counting; call about once a second, from any worker.
    pub fn next_second(&self) {
        self.limiter.reset_count();
    }
}
