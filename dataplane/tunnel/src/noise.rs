//! The WireGuard handshake: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` with its MACs (whitepaper, sections 5.4.2 to
//! 5.4.4 and 5.4.7; the Noise Protocol Framework, revision 34).
//!
//! Makes and takes the three handshake messages and yields the two transport keys. Knows nothing of timers,
//! sessions or the flood limit: [`crate::peer`] decides when, [`crate::gate`] whether. boringtun is the oracle in
//! the tests.

use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::SimpleHmac;
use patronus_aead::Backend;
use rand_core::OsRng;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use x25519_dalek::{PublicKey as Point, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::clock::Label;
use crate::gate::Identity;
use crate::keys::{KEY_LEN, PresharedKey, PublicKey};
use crate::message::{COOKIE_LEN, INITIATION_LEN, RESPONSE_LEN};

/// How long a cookie makes `mac2`: `COOKIE_SECRET_MAX_AGE` of the kernel.
const COOKIE_AGE_MAX: Duration = Duration::from_secs(120);

type Hash = [u8; 32];
type ShortMac = [u8; 16];

/// What the two of us know before any handshake, and the latest one that we began.
pub(crate) struct Handshake {
    secret: StaticSecret,
    public: Hash,
    remote: Point,
    /// Static with static: computed once.
    static_shared: Secret,
    preshared_key: Secret,
    mac1_key: Hash,
    cookie_key: Hash,
    begun: Option<Begun>,
    /// The label of the last initiation that we took.
    last_label: Label,
    cookie: Option<(ShortMac, Instant)>,
    last_mac1: Option<ShortMac>,
    /// For the sessions that come of it.
    backend: Backend,
}

/// An initiation of ours that may still be answered.
struct Begun {
    ephemeral: StaticSecret,
    chain: Secret,
    hash: Hash,
    local_index: u32,
}

/// The keys of one session.
pub(crate) struct TransportKeys {
    pub(crate) send: Secret,
    pub(crate) recv: Secret,
    /// The index under which the other side knows the session.
    pub(crate) remote_index: u32,
    /// The index under which we do.
    pub(crate) local_index: u32,
}

/// Why a handshake message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// It does not authenticate, or answers nothing of ours.
    Message,
    /// Its label is not later than the last one's.
    Replayed,
}

/// 32 bytes that are wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret(pub(crate) Hash);

impl Handshake {
    pub(crate) fn new(
        identity: &Identity,
        remote: &PublicKey,
        preshared_key: Option<&PresharedKey>,
    ) -> Self {
        let remote = Point::from(*remote.as_bytes());
        // A peer whose static key is a low-order point shares a secret with everybody; its handshakes fail below,
        // where the result is looked at.
        let static_shared = Secret(identity.secret.diffie_hellman(&remote).to_bytes());
        Self {
            secret: identity.secret.clone(),
            public: identity.public.to_bytes(),
            static_shared,
            preshared_key: Secret(preshared_key.map_or([0; KEY_LEN], |key| *key.as_bytes())),
            mac1_key: hash(&[LABEL_MAC1, remote.as_bytes()]),
            cookie_key: hash(&[LABEL_COOKIE, remote.as_bytes()]),
            remote,
            begun: None,
            last_label: [0; 12],
            cookie: None,
            last_mac1: None,
            backend: identity.backend(),
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// Writes an initiation; an older one can no longer be answered.
    pub(crate) fn initiate(
        &mut self,
        local_index: u32,
        label: Label,
        now: Instant,
        out: &mut [u8],
    ) {
        let out = &mut out[..INITIATION_LEN];
        let ephemeral = StaticSecret::random_from_rng(OsRng);
        let public = Point::from(&ephemeral).to_bytes();
        let mut state = Symmetric::new(self.remote.as_bytes());
        out[..4].copy_from_slice(&1u32.to_le_bytes());
        out[4..8].copy_from_slice(&local_index.to_le_bytes());
        out[8..40].copy_from_slice(&public);
        state.mix_hash(&public);
        state.mix_key(&public);
        let key = state.mix_shared(&ephemeral.diffie_hellman(&self.remote).to_bytes());
        state.seal(&key, &self.public, &mut out[40..88]);
        let key = state.mix_shared(&self.static_shared.0);
        state.seal(&key, &label, &mut out[88..116]);
        self.put_macs(out, now);
        self.begun = Some(Begun {
            ephemeral,
            chain: state.chain.clone(),
            hash: state.hash,
            local_index,
        });
    }

    /// Takes an initiation and writes the response.
    pub(crate) fn respond(
        &mut self,
        initiation: &[u8],
        local_index: u32,
        now: Instant,
        out: &mut [u8],
    ) -> Result<TransportKeys, Invalid> {
        let initiation: &[u8; INITIATION_LEN] =
            initiation.try_into().map_err(|_| Invalid::Message)?;
        let remote_index = word(initiation, 4);
        let remote_ephemeral = point(&initiation[8..40]);
        let mut state = Symmetric::new(&self.public);
        state.mix_hash(remote_ephemeral.as_bytes());
        state.mix_key(remote_ephemeral.as_bytes());
        let shared = self.secret.diffie_hellman(&remote_ephemeral);
        if !shared.was_contributory() || self.static_shared.0 == [0; 32] {
            return Err(Invalid::Message);
        }
        let key = state.mix_shared(shared.as_bytes());
        let claimed: Hash = state.open(&key, &initiation[40..88])?;
        if claimed != self.remote.to_bytes() {
            return Err(Invalid::Message);
        }
        let key = state.mix_shared(&self.static_shared.0);
        let label: Label = state.open(&key, &initiation[88..116])?;
        if label <= self.last_label {
            return Err(Invalid::Replayed);
        }
        self.last_label = label;

        let out = &mut out[..RESPONSE_LEN];
        let ephemeral = StaticSecret::random_from_rng(OsRng);
        let public = Point::from(&ephemeral).to_bytes();
        out[..4].copy_from_slice(&2u32.to_le_bytes());
        out[4..8].copy_from_slice(&local_index.to_le_bytes());
        out[8..12].copy_from_slice(&remote_index.to_le_bytes());
        out[12..44].copy_from_slice(&public);
        state.mix_hash(&public);
        state.mix_key(&public);
        state.mix_key(ephemeral.diffie_hellman(&remote_ephemeral).as_bytes());
        state.mix_key(ephemeral.diffie_hellman(&self.remote).as_bytes());
        let key = state.mix_preshared(&self.preshared_key);
        state.seal(&key, &[], &mut out[44..60]);
        self.put_macs(out, now);
        let (recv, send) = state.split();
        Ok(TransportKeys {
            send,
            recv,
            remote_index,
            local_index,
        })
    }

    /// Takes the answer to the latest initiation.
    pub(crate) fn finish(&mut self, response: &[u8]) -> Result<TransportKeys, Invalid> {
        let response: &[u8; RESPONSE_LEN] = response.try_into().map_err(|_| Invalid::Message)?;
        let begun = self.begun.as_ref().ok_or(Invalid::Message)?;
        if word(response, 8) != begun.local_index {
            return Err(Invalid::Message);
        }
        let remote_ephemeral = point(&response[12..44]);
        let mut state = Symmetric {
            chain: begun.chain.clone(),
            hash: begun.hash,
        };
        state.mix_hash(remote_ephemeral.as_bytes());
        state.mix_key(remote_ephemeral.as_bytes());
        let shared = begun.ephemeral.diffie_hellman(&remote_ephemeral);
        if !shared.was_contributory() || self.static_shared.0 == [0; 32] {
            return Err(Invalid::Message);
        }
        state.mix_key(shared.as_bytes());
        state.mix_key(self.secret.diffie_hellman(&remote_ephemeral).as_bytes());
        let key = state.mix_preshared(&self.preshared_key);
        state.open::<0>(&key, &response[44..60])?;
        let (send, recv) = state.split();
        let keys = TransportKeys {
            send,
            recv,
            remote_index: word(response, 4),
            local_index: begun.local_index,
        };
        self.begun = None;
        Ok(keys)
    }

    /// Takes a cookie for the last handshake message that we sent.
    pub(crate) fn take_cookie(&mut self, reply: &[u8], now: Instant) -> Result<(), Invalid> {
        let reply: &[u8; COOKIE_LEN] = reply.try_into().map_err(|_| Invalid::Message)?;
        let mac1 = self.last_mac1.ok_or(Invalid::Message)?;
        let payload = Payload {
            msg: &reply[32..],
            aad: &mac1,
        };
        let cookie = XChaCha20Poly1305::new(&self.cookie_key.into())
            .decrypt(XNonce::from_slice(&reply[8..32]), payload)
            .map_err(|_| Invalid::Message)?;
        let cookie = cookie.try_into().map_err(|_| Invalid::Message)?;
        self.cookie = Some((cookie, now));
        // One cookie per message: a second one is a replay.
        self.last_mac1 = None;
        Ok(())
    }

    /// Forgets the initiation that waits for its answer, with its keys.
    pub(crate) fn forget(&mut self) {
        self.begun = None;
    }

    /// Writes `mac1`, and `mac2` where we hold a fresh cookie, over the last 32 bytes.
    fn put_macs(&mut self, message: &mut [u8], now: Instant) {
        let at = message.len() - 32;
        let mac1 = mac(&self.mac1_key, &message[..at]);
        message[at..at + 16].copy_from_slice(&mac1);
        self.last_mac1 = Some(mac1);
        let fresh = self
            .cookie
            .filter(|(_, since)| now.saturating_duration_since(*since) < COOKIE_AGE_MAX);
        let mac2 = fresh.map_or([0; 16], |(cookie, _)| mac(&cookie, &message[..at + 16]));
        message[at + 16..].copy_from_slice(&mac2);
    }
}

/// Noise's symmetric state: the chaining key and the hash of everything said so far.
struct Symmetric {
    chain: Secret,
    hash: Hash,
}

impl Symmetric {
    /// The state before the first message to the owner of `responder`.
    fn new(responder: &Hash) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let identified = hash(&[&chain, IDENTIFIER]);
        Self {
            chain: Secret(chain),
            hash: hash(&[&identified, responder]),
        }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_key(&mut self, input: &Hash) {
        let [chain] = derive(&self.chain, input);
        self.chain = chain;
    }

    /// Mixes a shared secret in and gives the key for what is said next.
    fn mix_shared(&mut self, shared: &Hash) -> Secret {
        let [chain, key] = derive(&self.chain, shared);
        self.chain = chain;
        key
    }

    fn mix_preshared(&mut self, preshared_key: &Secret) -> Secret {
        let [chain, tau, key] = derive(&self.chain, &preshared_key.0);
        self.chain = chain;
        self.mix_hash(&tau.0);
        key
    }

    /// Seals `plain` with counter 0 into all of `out`, and mixes the result in.
    fn seal(&mut self, key: &Secret, plain: &[u8], out: &mut [u8]) {
        debug_assert_eq!(out.len(), plain.len() + 16);
        let (text, tag) = out.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        let sealed = aead(key).seal_in_place_separate_tag(nonce(), Aad::from(&self.hash), text);
        // ring refuses only what is longer than 2^38 bytes.
        tag.copy_from_slice(sealed.expect("a few bytes can be sealed").as_ref());
        self.hash = hash(&[&self.hash, out]);
    }

    /// Opens exactly `N` bytes and mixes the sealed ones in.
    fn open<const N: usize>(&mut self, key: &Secret, sealed: &[u8]) -> Result<[u8; N], Invalid> {
        let mut copy = [0; 48];
        let copy = copy.get_mut(..sealed.len()).ok_or(Invalid::Message)?;
        copy.copy_from_slice(sealed);
        let plain = aead(key)
            .open_in_place(nonce(), Aad::from(&self.hash), copy)
            .map_err(|_| Invalid::Message)?;
        let plain = <[u8; N]>::try_from(&*plain).map_err(|_| Invalid::Message)?;
        self.hash = hash(&[&self.hash, sealed]);
        Ok(plain)
    }

    /// The initiator's sending key, then the responder's.
    fn split(&self) -> (Secret, Secret) {
        let [first, second] = derive(&self.chain, &[]);
        (first, second)
    }
}

fn aead(key: &Secret) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key.0).expect("a key has 32 bytes");
    LessSafeKey::new(key)
}

/// Every key of a handshake seals one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2s256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The keyed hash that makes both MACs.
pub(crate) fn mac(key: &[u8], message: &[u8]) -> ShortMac {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key)
        .expect("16 and 32 bytes are BLAKE2s keys");
    Mac::update(&mut mac, message);
    mac.finalize().into_bytes().into()
}

fn hmac(key: &Hash, parts: &[&[u8]]) -> Hash {
    let mut hmac = <SimpleHmac<Blake2s256> as KeyInit>::new_from_slice(key)
        .expect("HMAC takes a key of any length");
    for part in parts {
        Mac::update(&mut hmac, part);
    }
    hmac.finalize().into_bytes().into()
}

/// `HKDF` of the whitepaper, section 5.4: `N` keys from a chaining key and an input.
fn derive<const N: usize>(chain: &Secret, input: &[u8]) -> [Secret; N] {
    let extracted = Secret(hmac(&chain.0, &[input]));
    let mut previous: Option<Secret> = None;
    std::array::from_fn(|at| {
        let number = [at as u8 + 1];
        let key = match &previous {
            None => hmac(&extracted.0, &[&number]),
            Some(last) => hmac(&extracted.0, &[&last.0, &number]),
        };
        previous = Some(Secret(key));
        Secret(key)
    })
}

fn word(message: &[u8], at: usize) -> u32 {
    let bytes = message.get(at..at + 4).and_then(|it| it.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

fn point(bytes: &[u8]) -> Point {
    Point::from(<Hash>::try_from(bytes).unwrap_or_default())
}

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
