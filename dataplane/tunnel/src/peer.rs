//! One peer's tunnel: boringtun's `Tunn`, the packets that wait for its handshake, and the timers that
//! boringtun leaves to its caller.
//!
//! Differences from boringtun's own device, each on purpose: packets wait in our queue, so that every one of
//! them is accounted for; persistent keepalive is ours, counts from the last authenticated packet in either
//! direction as in the Linux kernel (`drivers/net/wireguard/timers.c`), keeps trying after a failed handshake
//! and may change without a new session; initiations closer than 20 ms apart are refused (whitepaper,
//! section 5.1, `INITIATIONS_PER_SECOND` in the kernel); counters near 2^64 are refused.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use crate::gate::Identity;
use crate::index::PeerIndex;
use crate::keys::{PresharedKey, PublicKey};
use crate::message::{COUNTER_LIMIT, DATA_OVERHEAD, INITIATION_LEN, Message};

/// Packets that wait for a handshake, per peer: `MAX_STAGED_PACKETS` of the Linux kernel.
pub const STAGED_MAX: usize = 128;
/// Room that every output buffer of a control message must have, in bytes.
pub const CONTROL_ROOM: usize = INITIATION_LEN;
/// The least distance between two initiations of one peer that are worth a Diffie-Hellman.
pub const INITIATION_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// How often [`Peer::on_timer`] wants to be called.
pub const TIMER_INTERVAL: Duration = Duration::from_millis(250);

/// How long a handshake is tried before what waits for it is dropped: `REKEY_ATTEMPT_TIME` of the whitepaper.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(90);

/// One peer and its session, owned by one worker.
pub struct Peer {
    tunn: Tunn,
    index: PeerIndex,
    has_session: bool,
    staged: VecDeque<Box<[u8]>>,
    /// When the first of the packets that wait began to.
    waiting_since: Option<Instant>,
    keepalive: Option<Duration>,
    last_authenticated: Instant,
    /// When the first packet was sent to which nothing was heard yet.
    unanswered_since: Option<Instant>,
    last_initiation: Option<Instant>,
    /// The receiver index of a session that we answered and that the peer has not used yet.
    unconfirmed: Option<u32>,
    /// The one before, which the peer may use although it has sent another initiation since.
    unconfirmed_before: Option<u32>,
    handshake_completed: bool,
}

/// What came out of an authenticated message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An inner packet of this many bytes lies at the start of the output.
    Packet(usize),
    /// An empty data message.
    Keepalive,
    /// A handshake message; the answer of this many bytes lies at the start of the output.
    Reply(usize),
    /// A handshake message that wants no answer.
    Handshake,
}

/// Why a message was refused. Nothing of the peer's state has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The data message names a session that is gone or never was.
    NoSession,
    /// The counter was seen before.
    Replayed,
    /// The counter is behind the replay window.
    TooOld,
    /// The counter is past the protocol's limit.
    CounterLimit,
    /// The tag does not fit the key.
    BadTag,
    /// Authenticated, but what is inside is no IP packet.
    InnerMalformed,
    /// An initiation no newer than the last one.
    HandshakeReplayed,
    /// An initiation less than 20 ms behind the last one.
    HandshakeFlood,
    /// A handshake message for no handshake of ours, or with the wrong keys.
    HandshakeInvalid,
    /// A cookie we did not ask for, or that does not decrypt.
    CookieInvalid,
}

/// What became of a packet that had to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// It waits for the handshake.
    Queued,
    /// It waits, and the oldest one had to make room.
    OldestDropped,
}

/// What a call of [`Peer::on_timer`] wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timed {
    /// A message of this many bytes lies at the start of the output and has to be sent.
    pub send: Option<usize>,
    /// The handshake was given up after 90 s: this many waiting packets are gone.
    pub staged_dropped: usize,
}

impl Peer {
    /// A tunnel without a session.
    pub fn new(
        identity: &Identity,
        public_key: &PublicKey,
        preshared_key: Option<&PresharedKey>,
        keepalive: Option<Duration>,
        index: PeerIndex,
        now: Instant,
    ) -> Self {
        let tunn = Tunn::new(
            identity.secret.clone(),
            x25519::PublicKey::from(*public_key.as_bytes()),
            preshared_key.map(|key| *key.as_bytes()),
            None,
            index.as_u32(),
            Some(identity.never_loaded.clone()),
        );
        Self {
            tunn,
            index,
            has_session: false,
            staged: VecDeque::new(),
            waiting_since: None,
            keepalive,
            last_authenticated: now,
            unanswered_since: None,
            last_initiation: None,
            unconfirmed: None,
            unconfirmed_before: None,
            handshake_completed: false,
        }
    }

    /// The 24 bits that name this tunnel in receiver indices.
    pub fn index(&self) -> PeerIndex {
        self.index
    }

    /// Whether [`seal`](Self::seal) may be called.
    #[inline]
    pub fn has_session(&self) -> bool {
        self.has_session
    }

    /// Whether a handshake completed since the last call: the peer answered ours, or used the session that we
    /// answered, which proves that it has the keys (whitepaper, section 5.1).
    #[inline]
    pub fn take_handshake_completed(&mut self) -> bool {
        std::mem::take(&mut self.handshake_completed)
    }

    /// How long the peer has sent nothing at all although something was sent to it.
    #[inline]
    pub fn silent_for(&self, now: Instant) -> Duration {
        let since = self.unanswered_since.unwrap_or(now);
        now.saturating_duration_since(since)
    }

    /// Packets that wait for a handshake.
    pub fn staged_len(&self) -> usize {
        self.staged.len()
    }

    /// Changes the persistent keepalive; the session stays.
    pub fn set_keepalive(&mut self, keepalive: Option<Duration>) {
        self.keepalive = keepalive;
    }

    /// Seals `plaintext`, padded by the caller, into `out`; returns the datagram's length, or `None` where
    /// there is no session. Empty plaintext is a keepalive.
    ///
    /// # Panics
    /// When `out` is shorter than `plaintext` plus [`DATA_OVERHEAD`]: the caller sizes its buffers.
    #[inline]
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8], now: Instant) -> Option<usize> {
        assert!(
            out.len() >= plaintext.len() + DATA_OVERHEAD,
            "no room to seal {} bytes",
            plaintext.len()
        );
        if !self.has_session {
            return None;
        }
        let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(plaintext, out) else {
            debug_assert!(false, "a session seals");
            return None;
        };
        debug_assert_eq!(datagram.len(), plaintext.len() + DATA_OVERHEAD);
        self.last_authenticated = now;
        self.unanswered_since.get_or_insert(now);
        Some(datagram.len())
    }

    /// Keeps a packet, already padded, until the handshake is done.
    pub fn stage(&mut self, padded: &[u8], now: Instant) -> Staged {
        if self.staged.is_empty() {
            self.waiting_since = Some(now);
        }
        let full = self.staged.len() >= STAGED_MAX;
        if full {
            self.staged.pop_front();
        }
        self.staged.push_back(padded.into());
        if full {
            Staged::OldestDropped
        } else {
            Staged::Queued
        }
    }

    /// Takes the oldest waiting packet.
    pub fn unstage(&mut self) -> Option<Box<[u8]>> {
        self.staged.pop_front()
    }

    /// Begins a handshake unless one is under way; returns the length of the initiation in `out`.
    ///
    /// `out` must hold [`CONTROL_ROOM`] bytes.
    pub fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        assert!(out.len() >= CONTROL_ROOM, "no room for an initiation");
        match self.tunn.format_handshake_initiation(out, false) {
            TunnResult::WriteToNetwork(initiation) => Some(initiation.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Opens a data message whose index named this peer.
    ///
    /// # Errors
    /// Why it was refused.
    ///
    /// # Panics
    /// When `out` is shorter than `datagram`: the caller sizes its buffers.
    #[inline]
    pub fn open(
        &mut self,
        datagram: &[u8],
        counter: u64,
        out: &mut [u8],
        now: Instant,
    ) -> Result<Opened, Refused> {
        assert!(
            out.len() >= datagram.len(),
            "no room to open {} bytes",
            datagram.len()
        );
        // boringtun computes `counter + 1024` and `counter + 1` on the counter of an authenticated message.
        if counter >= COUNTER_LIMIT {
            return Err(Refused::CounterLimit);
        }
        let opened = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Ok(Opened::Packet(packet.len()))
            }
            TunnResult::Done => Ok(Opened::Keepalive),
            TunnResult::Err(WireGuardError::InvalidPacket) => Err(Refused::InnerMalformed),
            TunnResult::Err(error) => return Err(data_refusal(&error)),
            TunnResult::WriteToNetwork(_) => {
                debug_assert!(false, "a data message has no answer");
                return Err(Refused::NoSession);
            }
        };
        self.last_authenticated = now;
        self.unanswered_since = None;
        let used = index_at(datagram, RECEIVER_AT);
        if self.unconfirmed.is_some()
            && (used == self.unconfirmed || used == self.unconfirmed_before)
        {
            self.unconfirmed = None;
            self.unconfirmed_before = None;
            self.handshake_completed = true;
        }
        if !self.has_session {
            self.refresh();
        }
        opened
    }

    /// Takes a handshake message or a cookie reply that passed the gate.
    ///
    /// # Errors
    /// Why it was refused.
    ///
    /// # Panics
    /// When `out` is shorter than [`CONTROL_ROOM`].
    pub fn open_handshake(
        &mut self,
        source: IpAddr,
        datagram: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Result<Opened, Refused> {
        assert!(out.len() >= CONTROL_ROOM, "no room for an answer");
        let message = Message::parse(datagram).map_err(|_| Refused::HandshakeInvalid)?;
        let is_initiation = message == Message::Initiation;
        let is_cookie = matches!(message, Message::Cookie { .. });
        if is_initiation
            && self
                .last_initiation
                .is_some_and(|last| now - last < INITIATION_INTERVAL_MIN)
        {
            return Err(Refused::HandshakeFlood);
        }
        match self.tunn.decapsulate(Some(source), datagram, out) {
            TunnResult::WriteToNetwork(reply) => {
                let len = reply.len();
                self.last_authenticated = now;
                self.unanswered_since = None;
                match is_initiation {
                    true => {
                        self.last_initiation = Some(now);
                        self.unconfirmed_before = self.unconfirmed;
                        self.unconfirmed = index_at(reply, SENDER_AT);
                    }
                    false => self.handshake_completed = true,
                }
                self.refresh();
                Ok(Opened::Reply(len))
            }
            TunnResult::Done => Ok(Opened::Handshake),
            TunnResult::Err(_) if is_cookie => Err(Refused::CookieInvalid),
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => {
                Err(Refused::HandshakeReplayed)
            }
            TunnResult::Err(_) => Err(Refused::HandshakeInvalid),
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
                debug_assert!(false, "handshake messages carry no packet");
                Err(Refused::HandshakeInvalid)
            }
        }
    }

    /// Retries, rekeys, expires and keeps alive; call every [`TIMER_INTERVAL`].
    ///
    /// # Panics
    /// When `out` is shorter than [`CONTROL_ROOM`].
    pub fn on_timer(&mut self, out: &mut [u8], now: Instant) -> Timed {
        assert!(out.len() >= CONTROL_ROOM, "no room for an initiation");
        let (send, gave_up) = match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(message) => (Some(message.len()), false),
            TunnResult::Err(WireGuardError::ConnectionExpired) => (None, true),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => (None, false),
        };
        let mut timed = Timed {
            send,
            ..Timed::default()
        };
        if gave_up && !self.staged.is_empty() {
            if self
                .waiting_since
                .is_some_and(|since| now.saturating_duration_since(since) < GIVE_UP_AFTER)
            {
                // boringtun wipes everything 540 s after the last handshake, a handshake under way included.
                timed.send = self.initiate(out);
            } else {
                timed.staged_dropped = self.staged.len();
                self.staged.clear();
            }
        }
        self.refresh();
        if timed.send.is_none() && self.keepalive_is_due(now) {
            self.last_authenticated = now;
            timed.send = if self.has_session {
                self.seal(&[], out, now)
            } else {
                self.initiate(out)
            };
        }
        timed
    }

    fn keepalive_is_due(&self, now: Instant) -> bool {
        self.keepalive.is_some_and(|interval| {
            now.saturating_duration_since(self.last_authenticated) >= interval
        })
    }

    /// Asks boringtun whether its current session exists. It reads the clock, hence not per packet.
    fn refresh(&mut self) {
        self.has_session = self.tunn.time_since_last_handshake().is_some();
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("index", &self.index)
            .field("has_session", &self.has_session)
            .field("staged", &self.staged.len())
            .finish_non_exhaustive()
    }
}

/// Where a handshake response has the index of its sender's session.
const SENDER_AT: usize = 4;
/// Where a data message has the index of its receiver's session.
const RECEIVER_AT: usize = 4;

fn index_at(message: &[u8], at: usize) -> Option<u32> {
    message
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

fn data_refusal(error: &WireGuardError) -> Refused {
    match error {
        WireGuardError::DuplicateCounter => Refused::Replayed,
        WireGuardError::InvalidCounter => Refused::TooOld,
        WireGuardError::InvalidAeadTag => Refused::BadTag,
        // Every other variant means that no session of ours fits the message.
        _ => Refused::NoSession,
    }
}
