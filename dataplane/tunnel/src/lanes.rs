//! Lanes: how two Patronus sites agree on one WireGuard session per worker (`docs/protocol/lanes.md`).
//!
//! Owns the control messages on the wire, the derivation of lane keys and the negotiation as a state machine.
//! Knows neither peers' addresses nor workers' threads; time comes in as an argument.
//!
//! A control message is the plaintext of a data message on lane 0. Its first nibble is neither 4 nor 6, so that a
//! stock peer drops it as no IP packet.

use std::time::{Duration, Instant};

use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use rand_core::{OsRng, RngCore};
use zeroize::Zeroize;

use crate::keys::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};

/// Lanes beside lane 0 that one offer can name: with them a message stays within the smallest IPv6 MTU.
pub const LANES_MAX: usize = 32;
/// Bytes of the longest control message.
pub const MESSAGE_LEN_MAX: usize = HEADER_LEN + BODY_LEN + LANES_MAX * KEY_LEN;
/// Offers without an answer before the peer counts as stock WireGuard, until its next handshake.
pub const OFFERS_MAX: u32 = 5;

const MAGIC: [u8; 4] = [0x00, b'P', b'a', b't'];
const VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
const BODY_LEN: usize = 4 + ID_LEN + KEY_LEN;
const ID_LEN: usize = 16;
const KIND_OFFER: u8 = 1;
const KIND_ACCEPT: u8 = 2;
/// First pause between two offers; it doubles with each.
const OFFER_INTERVAL: Duration = Duration::from_millis(500);
/// How long agreed lanes are given before others may be agreed.
const SETTLING: Duration = Duration::from_secs(3);

/// A message on lane 0 that is not an IP packet.
#[derive(Clone, PartialEq, Eq)]
pub enum Control {
    /// "Let us open lanes; these are mine."
    Offer(Terms),
    /// "Agreed; these are mine."
    Accept(Terms),
}

/// What one side brings to the agreement.
#[derive(Clone, PartialEq, Eq)]
pub struct Terms {
    /// Chosen by the side that offers, echoed by the side that accepts.
    pub id: [u8; ID_LEN],
    /// This side's half of the lanes' preshared keys.
    pub share: [u8; KEY_LEN],
    /// Public keys of this side's lanes, in the order in which they are paired.
    pub lanes: Vec<PublicKey>,
}

/// Why bytes are no control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Not ours: no magic.
    #[error("no Patronus control message")]
    Magic,
    /// From a version that this one does not know.
    #[error("control message of an unknown version or kind")]
    Unknown,
    /// Cut off, too long, or contradicting itself.
    #[error("malformed control message")]
    Malformed,
}

impl Control {
    /// Whether the plaintext claims to be a control message.
    #[inline]
    pub fn is_control(plaintext: &[u8]) -> bool {
        plaintext.starts_with(&MAGIC)
    }

    /// Reads a message; bytes behind its length are padding.
    ///
    /// # Errors
    /// Everything that is not exactly a message of this version.
    pub fn parse(plaintext: &[u8]) -> Result<Self, ControlError> {
        let Some((header, _)) = plaintext.split_at_checked(HEADER_LEN) else {
            return Err(ControlError::Magic);
        };
        if !Self::is_control(header) {
            return Err(ControlError::Magic);
        }
        let (version, kind) = (header[4], header[5]);
        if version != VERSION || !matches!(kind, KIND_OFFER | KIND_ACCEPT) {
            return Err(ControlError::Unknown);
        }
        let len = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let body = plaintext
            .get(HEADER_LEN..len)
            .ok_or(ControlError::Malformed)?;
        let terms = Terms::parse(body).ok_or(ControlError::Malformed)?;
        Ok(match kind {
            KIND_OFFER => Self::Offer(terms),
            _ => Self::Accept(terms),
        })
    }

    /// Writes the message to the start of `out` and returns its length.
    ///
    /// # Panics
    /// When `out` is shorter than [`MESSAGE_LEN_MAX`].
    pub fn write(&self, out: &mut [u8]) -> usize {
        let (kind, terms) = match self {
            Self::Offer(terms) => (KIND_OFFER, terms),
            Self::Accept(terms) => (KIND_ACCEPT, terms),
        };
        let len = HEADER_LEN + BODY_LEN + terms.lanes.len() * KEY_LEN;
        assert!(
            terms.lanes.len() <= LANES_MAX && out.len() >= MESSAGE_LEN_MAX,
            "no room for a control message"
        );
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&[VERSION, kind]);
        out[6..8].copy_from_slice(&(len as u16).to_le_bytes());
        out[8..12].copy_from_slice(&[terms.lanes.len() as u8, 0, 0, 0]);
        out[12..28].copy_from_slice(&terms.id);
        out[28..60].copy_from_slice(&terms.share);
        for (slot, lane) in out[60..len].chunks_exact_mut(KEY_LEN).zip(&terms.lanes) {
            slot.copy_from_slice(lane.as_bytes());
        }
        len
    }
}

impl Terms {
    fn parse(body: &[u8]) -> Option<Self> {
        let (fixed, keys) = body.split_at_checked(BODY_LEN)?;
        let lanes = usize::from(fixed[0]);
        let reserved_is_zero = fixed[1..4] == [0, 0, 0];
        if !reserved_is_zero || lanes > LANES_MAX || keys.len() != lanes * KEY_LEN {
            return None;
        }
        let lanes = keys
            .chunks_exact(KEY_LEN)
            .map(|key| key.try_into().map(PublicKey::from_bytes));
        Some(Self {
            id: fixed[4..20].try_into().ok()?,
            share: fixed[20..52].try_into().ok()?,
            lanes: lanes.collect::<Result<_, _>>().ok()?,
        })
    }

    fn new(id: [u8; ID_LEN], lanes: &[PublicKey]) -> Self {
        let mut share = [0; KEY_LEN];
        OsRng.fill_bytes(&mut share);
        Self {
            id,
            share,
            lanes: lanes[..lanes.len().min(LANES_MAX)].to_vec(),
        }
    }
}

impl Drop for Terms {
    fn drop(&mut self) {
        self.share.zeroize();
    }
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Terms({} lanes)", self.lanes.len())
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Offer(terms) => write!(f, "Offer({terms:?})"),
            Self::Accept(terms) => write!(f, "Accept({terms:?})"),
        }
    }
}

/// One lane beside lane 0, as agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The other side's key of this lane.
    pub remote: PublicKey,
    /// The key mixed into this lane's handshakes.
    pub preshared_key: PresharedKey,
}

/// The private key of worker number `worker`'s lanes: derived, so that nothing is stored.
pub fn lane_key(site: &PrivateKey, worker: u8) -> PrivateKey {
    let mut mac = keyed(site.as_bytes());
    Mac::update(&mut mac, b"patronus lane key v1");
    Mac::update(&mut mac, &[worker]);
    PrivateKey::from_bytes(mac.finalize().into_bytes().into())
}

/// The negotiation with one peer, run by the worker that owns lane 0.
///
/// The site with the smaller public key leads: its offer counts, and the other one accepts. An offer from the one
/// that follows only asks the leader to offer, because the follower has lost its lanes, after a restart say. An
/// answer that does not echo the offer under way changes nothing; WireGuard keeps replays out.
#[derive(Debug)]
pub struct Negotiation {
    ours: PublicKey,
    theirs: PublicKey,
    offer: Option<Terms>,
    sent: u32,
    next: Option<Instant>,
    /// Nobody ever answered: one offer per handshake is enough.
    is_silent: bool,
    agreed_at: Option<Instant>,
    /// The last offer answered, and our terms then: the same offer gets the same answer.
    answered: Option<([u8; ID_LEN], Terms)>,
}

/// What a message led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be sent on lane 0.
    pub reply: Option<Control>,
    /// The lanes that are agreed from here on, in the order of our own; none where one side has no worker to
    /// spare.
    pub agreed: Option<Vec<Lane>>,
}

impl Negotiation {
    /// Between us and them, not begun.
    pub fn new(ours: PublicKey, theirs: PublicKey) -> Self {
        Self {
            ours,
            theirs,
            offer: None,
            sent: 0,
            next: None,
            is_silent: false,
            agreed_at: None,
            answered: None,
        }
    }

    /// Whether our offers count.
    pub fn leads(&self) -> bool {
        self.ours < self.theirs
    }

    /// A handshake of lane 0 completed. Begins to offer where lanes are not agreed yet.
    pub fn begin(&mut self, lanes_agreed: bool, now: Instant) {
        if !lanes_agreed && self.next.is_none() && !self.is_settling(now) {
            self.sent = if self.is_silent { OFFERS_MAX - 1 } else { 0 };
            self.next = Some(now);
        }
    }

    /// Whether lanes were agreed so recently that they may not have begun: to agree on others would throw away what
    /// already travels on them.
    fn is_settling(&self, now: Instant) -> bool {
        self.agreed_at
            .is_some_and(|at| now.saturating_duration_since(at) < SETTLING)
    }

    /// When [`offer`](Self::offer) has something to send.
    pub fn next_offer(&self) -> Option<Instant> {
        self.next
    }

    /// The offer that is due, naming `lanes`, our own.
    pub fn offer(&mut self, lanes: &[PublicKey], now: Instant) -> Option<Control> {
        if self.next.is_none_or(|at| now < at) || lanes.is_empty() {
            return None;
        }
        if self.sent == OFFERS_MAX {
            // A stock peer, or one of another version: one lane it is.
            self.is_silent = true;
            self.offer = None;
            self.next = None;
            return None;
        }
        self.next = Some(now + OFFER_INTERVAL * (1 << self.sent));
        self.sent += 1;
        let terms = self
            .offer
            .get_or_insert_with(|| Terms::new(random_id(), lanes));
        Some(Control::Offer(terms.clone()))
    }

    /// A control message came in on lane 0; `lanes` are our own.
    pub fn handle(&mut self, message: &Control, lanes: &[PublicKey], now: Instant) -> Outcome {
        self.is_silent = false;
        match message {
            // It crossed our own offer.
            Control::Offer(_) if self.leads() && self.is_settling(now) => Outcome::default(),
            Control::Offer(_) if self.leads() => {
                let ours = self
                    .offer
                    .get_or_insert_with(|| Terms::new(random_id(), lanes));
                Outcome {
                    reply: Some(Control::Offer(ours.clone())),
                    agreed: None,
                }
            }
            Control::Offer(theirs) => {
                self.offer = None;
                self.next = None;
                let known = self.answered.as_ref().filter(|(id, _)| *id == theirs.id);
                let ours =
                    known.map_or_else(|| Terms::new(theirs.id, lanes), |(_, ours)| ours.clone());
                self.answered = Some((theirs.id, ours.clone()));
                self.agreed_at = Some(now);
                Outcome {
                    agreed: Some(self.lanes(theirs, &ours)),
                    reply: Some(Control::Accept(ours)),
                }
            }
            Control::Accept(theirs) => {
                let echoes = |ours: &mut Terms| self.ours < self.theirs && ours.id == theirs.id;
                let Some(ours) = self.offer.take_if(echoes) else {
                    return Outcome::default();
                };
                self.next = None;
                self.agreed_at = Some(now);
                Outcome {
                    reply: None,
                    agreed: Some(self.lanes(&ours, theirs)),
                }
            }
        }
    }

    /// Pairs the leader's lanes with the follower's, as many as both have.
    fn lanes(&self, leader: &Terms, follower: &Terms) -> Vec<Lane> {
        let (leading, following) = match self.leads() {
            true => (&self.ours, &self.theirs),
            false => (&self.theirs, &self.ours),
        };
        let theirs = if self.leads() {
            &follower.lanes
        } else {
            &leader.lanes
        };
        let count = leader.lanes.len().min(follower.lanes.len());
        let lanes = theirs
            .iter()
            .take(count)
            .enumerate()
            .map(|(number, remote)| {
                let mut mac = keyed(&leader.share);
                Mac::update(&mut mac, &Blake2s256::digest(follower.share));
                Mac::update(&mut mac, b"patronus lane psk v1");
                Mac::update(&mut mac, leading.as_bytes());
                Mac::update(&mut mac, following.as_bytes());
                Mac::update(&mut mac, &leader.id);
                Mac::update(&mut mac, &[number as u8]);
                Lane {
                    remote: *remote,
                    preshared_key: PresharedKey::from_bytes(mac.finalize().into_bytes().into()),
                }
            });
        lanes.collect()
    }
}

fn random_id() -> [u8; ID_LEN] {
    let mut id = [0; ID_LEN];
    OsRng.fill_bytes(&mut id);
    id
}

fn keyed(key: &[u8; KEY_LEN]) -> Blake2sMac<U32> {
    <Blake2sMac<U32> as KeyInit>::new_from_slice(key).expect("a key of 32 bytes is a BLAKE2s key")
}

// Tests may ask what time it is.
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    fn over_the_wire(message: &Control) -> Control {
        let mut bytes = [0xaa; MESSAGE_LEN_MAX];
        let len = message.write(&mut bytes);
        // Padding, as it is there after sealing.
        bytes[len..].fill(0);
        Control::parse(&bytes).unwrap()
    }

    fn agree(leader_lanes: &[PublicKey], follower_lanes: &[PublicKey]) -> (Vec<Lane>, Vec<Lane>) {
        let now = Instant::now();
        let mut leader = Negotiation::new(key(1), key(2));
        let mut follower = Negotiation::new(key(2), key(1));
        leader.begin(false, now);
        let offer = leader.offer(leader_lanes, now).unwrap();
        let answer = follower.handle(&over_the_wire(&offer), follower_lanes, now);
        let accept = over_the_wire(&answer.reply.unwrap());
        let settled = leader.handle(&accept, leader_lanes, now);
        assert!(
            leader.handle(&accept, leader_lanes, now).agreed.is_none(),
            "an accept counts once"
        );
        (settled.agreed.unwrap(), answer.agreed.unwrap())
    }

    #[test]
    fn both_sides_pair_the_same_lanes_under_the_same_keys() {
        let (leader, follower) = agree(&[key(11), key(12), key(13)], &[key(21), key(22)]);
        assert_eq!(leader.len(), 2);
        for (at, (here, there)) in leader.iter().zip(&follower).enumerate() {
            assert_eq!(here.preshared_key, there.preshared_key);
            assert_eq!(
                (here.remote, there.remote),
                (key(21 + at as u8), key(11 + at as u8))
            );
        }
        assert_ne!(leader[0].preshared_key, leader[1].preshared_key);
    }

    #[test]
    fn a_site_without_workers_to_spare_agrees_on_no_lanes() {
        let (leader, follower) = agree(&[key(11)], &[]);
        assert!(leader.is_empty() && follower.is_empty());
    }

    #[test]
    fn a_stock_peer_is_offered_a_few_times_and_then_left_alone() {
        let mut now = Instant::now();
        let mut leader = Negotiation::new(key(1), key(2));
        leader.begin(false, now);
        let mut offers = 0;
        for _ in 0..1000 {
            offers += u32::from(leader.offer(&[key(11)], now).is_some());
            now += Duration::from_millis(100);
        }
        assert_eq!(offers, OFFERS_MAX);
        assert_eq!(leader.next_offer(), None);
        leader.begin(false, now);
        assert!(
            leader.offer(&[key(11)], now).is_some(),
            "the next handshake asks once more"
        );
        now += Duration::from_secs(60);
        assert!(leader.offer(&[key(11)], now).is_none());
    }

    #[test]
    fn an_accept_of_another_offer_changes_nothing() {
        let now = Instant::now();
        let mut leader = Negotiation::new(key(1), key(2));
        leader.begin(false, now);
        leader.offer(&[key(11)], now).unwrap();
        let stranger = Control::Accept(Terms::new([9; 16], &[key(21)]));
        assert!(leader.handle(&stranger, &[key(11)], now).agreed.is_none());
        assert!(
            leader.next_offer().is_some(),
            "the offer is still under way"
        );
    }

    #[test]
    fn a_follower_that_lost_its_lanes_makes_the_leader_offer() {
        let (now, lanes) = (Instant::now(), [key(11)]);
        let mut leader = Negotiation::new(key(1), key(2));
        let mut follower = Negotiation::new(key(2), key(1));
        follower.begin(false, now);
        let plea = follower.offer(&[key(21)], now).unwrap();
        let offer = leader
            .handle(&over_the_wire(&plea), &lanes, now)
            .reply
            .unwrap();
        let answer = follower.handle(&over_the_wire(&offer), &[key(21)], now);
        let settled = leader.handle(&over_the_wire(&answer.reply.unwrap()), &lanes, now);
        assert_eq!(
            settled.agreed.unwrap()[0].preshared_key,
            answer.agreed.unwrap()[0].preshared_key
        );
        assert_eq!(follower.next_offer(), None);
    }

    #[test]
    fn a_plea_that_crosses_the_agreement_does_not_make_another() {
        let (now, lanes) = (Instant::now(), [key(11)]);
        let mut leader = Negotiation::new(key(1), key(2));
        let mut follower = Negotiation::new(key(2), key(1));
        leader.begin(false, now);
        follower.begin(false, now);
        let offer = leader.offer(&lanes, now).unwrap();
        let plea = follower.offer(&[key(21)], now).unwrap();
        let answer = follower.handle(&over_the_wire(&offer), &[key(21)], now);
        assert!(
            leader
                .handle(&over_the_wire(&answer.reply.unwrap()), &lanes, now)
                .agreed
                .is_some()
        );
        assert!(
            leader
                .handle(&over_the_wire(&plea), &lanes, now)
                .reply
                .is_none()
        );
        leader.begin(false, now);
        assert!(
            leader.next_offer().is_none(),
            "control has not said yet that there are lanes"
        );
        let later = now + SETTLING;
        assert!(
            leader
                .handle(&over_the_wire(&plea), &lanes, later)
                .reply
                .is_some(),
            "it restarted"
        );
    }

    #[test]
    fn an_accept_from_the_leader_changes_nothing() {
        let now = Instant::now();
        let mut follower = Negotiation::new(key(2), key(1));
        follower.begin(false, now);
        let Control::Offer(terms) = follower.offer(&[key(21)], now).unwrap() else {
            panic!("no offer")
        };
        let accept = Control::Accept(Terms::new(terms.id, &[key(11)]));
        assert!(follower.handle(&accept, &[key(21)], now).agreed.is_none());
    }

    #[test]
    fn a_repeated_offer_gets_the_same_answer() {
        let now = Instant::now();
        let mut follower = Negotiation::new(key(2), key(1));
        let offer = Control::Offer(Terms::new([9; 16], &[key(11)]));
        let first = follower.handle(&offer, &[key(21)], now);
        let second = follower.handle(&offer, &[key(21)], now);
        assert_eq!(first.reply, second.reply);
        assert_eq!(first.agreed, second.agreed);
    }

    #[test]
    fn every_truncation_and_every_contradiction_is_refused() {
        let message = Control::Offer(Terms::new([7; 16], &[key(11), key(12)]));
        let mut bytes = [0; MESSAGE_LEN_MAX];
        let len = message.write(&mut bytes);
        for cut in 0..len {
            assert!(Control::parse(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        for (at, value, error) in [
            (0, 0x45, ControlError::Magic),
            (4, 2, ControlError::Unknown),
            (5, 3, ControlError::Unknown),
            (6, 1, ControlError::Malformed),
            (7, 0xff, ControlError::Malformed),
            (8, 3, ControlError::Malformed),
            (8, 33, ControlError::Malformed),
            (9, 1, ControlError::Malformed),
        ] {
            let mut wrong = bytes;
            wrong[at] = value;
            assert_eq!(Control::parse(&wrong), Err(error), "byte {at} = {value}");
        }
    }

    #[test]
    fn lane_keys_differ_by_worker_and_from_the_sites() {
        let site = PrivateKey::from_bytes([5; 32]);
        let keys = [lane_key(&site, 0), lane_key(&site, 1), site.clone()];
        assert_eq!(keys[0], lane_key(&site, 0));
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1400), magic in any::<bool>()) {
            if magic && bytes.len() >= 6 {
                bytes[..6].copy_from_slice(&[0, b'P', b'a', b't', 1, 1]);
            }
            let _ = Control::parse(&bytes);
        }
    }
}
