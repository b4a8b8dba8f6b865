//! One peer's tunnel: its sessions, the handshake under way, the packets that wait for it, and the timers of the
//! protocol.
//!
//! ```text
//!   initiate()             finish() of the answer                data on the session that we answered
//!  ----------> attempt ---------------------------> current <------------------------------------ unconfirmed
//!      ^          | 90 s                               | a newer one                                    ^
//!      |          v                                    v                                                | respond()
//!      |        given up                            previous                                            |
//!      +--- sending on a worn session, 15 s without any answer, or a packet without a session -------------+
//! ```
//!
//! The rules are those of the whitepaper, section 6, read as the Linux kernel reads them
//! (`drivers/net/wireguard/{timers,receive,send,noise}.c`), on a clock that the caller brings. On purpose
//! different: a session that we answered replaces another one only when it is used, and two of them are kept until
//! then, so that a peer whose first answer was late may use either; persistent keepalive counts from the last
//! authenticated packet in either direction.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::Label;
use crate::gate::Identity;
use crate::index::PeerIndex;
use crate::keys::{PresharedKey, PublicKey};
use crate::message::{COUNTER_LIMIT, DATA_OVERHEAD, INITIATION_LEN, Message};
use crate::noise::{Handshake, Invalid, TransportKeys};
use crate::session::{REJECT_AFTER, Session};

/// Packets that wait for a handshake, per peer: `MAX_STAGED_PACKETS` of the Linux kernel.
pub const STAGED_MAX: usize = 128;
/// Room that every output buffer of a control message must have, in bytes.
pub const CONTROL_ROOM: usize = INITIATION_LEN;
/// The least distance between two initiations of one peer that are worth a Diffie-Hellman
/// (`INITIATIONS_PER_SECOND` in the kernel).
pub const INITIATION_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// How often [`Peer::on_timer`] wants to be called.
pub const TIMER_INTERVAL: Duration = Duration::from_millis(250);
/// How long a handshake is tried before what waits for it is dropped: `REKEY_ATTEMPT_TIME` of the whitepaper.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// An initiation without an answer is sent again after this time: `REKEY_TIMEOUT`.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
/// And up to this much later, so that two sites that began together part: `REKEY_TIMEOUT_JITTER_MAX_JIFFIES`.
const RETRY_JITTER_MAX_MS: u64 = 334;
/// Data is answered by an empty packet after this time, where nothing else was sent: `KEEPALIVE_TIMEOUT`.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// Data without any answer for this long makes a new handshake: `KEEPALIVE_TIMEOUT + REKEY_TIMEOUT`.
const UNANSWERED_MAX: Duration = Duration::from_secs(15);
/// Receiving on a session as old as this makes its initiator replace it at the last minute:
/// `REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT`.
const LAST_MINUTE: Duration = Duration::from_secs(165);

/// One peer and its sessions, owned by one worker.
pub struct Peer {
    handshake: Handshake,
    index: PeerIndex,
    /// The low byte of the next session's receiver index.
    next_session: u8,
    /// What data is sealed with.
    current: Option<Box<Session>>,
    /// The one before, for what is still under way.
    previous: Option<Box<Session>>,
    /// Sessions that we answered and that the peer has not used yet, the newest first.
    unconfirmed: [Option<Box<Session>>; 2],
    /// The handshake that we began and that is not done.
    attempt: Option<Attempt>,
    /// A handshake is wanted at the next timer: sending showed that the session is worn.
    wants_handshake: bool,
    /// Whether receiving has asked for the current session's successor already.
    is_last_minute_said: bool,
    staged: VecDeque<Box<[u8]>>,
    keepalive: Option<Duration>,
    retry_after: Duration,
    last_authenticated: Instant,
    /// When data was received to which nothing was sent yet.
    unacknowledged_since: Option<Instant>,
    /// When the first packet was sent to which nothing was heard yet.
    unanswered_since: Option<Instant>,
    /// The same, empty packets not counted.
    data_unanswered_since: Option<Instant>,
    last_initiation: Option<Instant>,
    handshake_completed: bool,
    random: u64,
}

/// A handshake that we try to complete.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    retry_at: Instant,
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
        Self {
            handshake: Handshake::new(identity, public_key, preshared_key),
            index,
            next_session: 0,
            current: None,
            previous: None,
            unconfirmed: [None, None],
            attempt: None,
            wants_handshake: false,
            is_last_minute_said: false,
            staged: VecDeque::new(),
            keepalive,
            retry_after: RETRY_AFTER,
            last_authenticated: now,
            unacknowledged_since: None,
            unanswered_since: None,
            data_unanswered_since: None,
            last_initiation: None,
            handshake_completed: false,
            random: u64::from(index.as_u32()) << 8 | 1,
        }
    }

    /// The 24 bits that name this tunnel in receiver indices.
    pub fn index(&self) -> PeerIndex {
        self.index
    }

    /// Whether [`seal`](Self::seal) finds a session; one that came of age since the last timer still counts.
    #[inline]
    pub fn has_session(&self) -> bool {
        self.current.is_some()
    }

    /// Whether it was us who began the session that [`seal`](Self::seal) uses: then it is ours to replace it.
    pub fn is_initiator(&self) -> bool {
        self.current.as_ref().is_some_and(|it| it.is_initiator())
    }

    /// Whether [`seal`](Self::seal) will seal at `now`.
    #[inline]
    pub fn can_seal(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|it| it.is_usable(now))
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

    /// Changes when initiations from here on are repeated, from [`RETRY_AFTER`]: for callers that send them to one address
    /// of the peer after another.
    pub fn set_retry_after(&mut self, retry_after: Duration) {
        self.retry_after = retry_after;
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
    /// there is no session, or only one too old to be used. Empty plaintext is a keepalive.
    ///
    /// # Panics
    /// When `out` is shorter than `plaintext` plus [`DATA_OVERHEAD`]: the caller sizes its buffers.
    #[inline]
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8], now: Instant) -> Option<usize> {
        let len = self.seal_unanswered(plaintext, out, now)?;
        if !plaintext.is_empty() {
            self.data_unanswered_since.get_or_insert(now);
        }
        Some(len)
    }

    /// [`seal`](Self::seal) for what a peer may well leave without an answer, because it may not understand it: that
    /// makes no new handshake.
    ///
    /// # Panics
    /// When `out` is shorter than `plaintext` plus [`DATA_OVERHEAD`].
    #[inline]
    pub fn seal_unanswered(
        &mut self,
        plaintext: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Option<usize> {
        assert!(
            out.len() >= plaintext.len() + DATA_OVERHEAD,
            "no room to seal {} bytes",
            plaintext.len()
        );
        let session = self.current.as_mut()?;
        if !session.is_usable(now) {
            return None;
        }
        let len = session.seal(plaintext, out);
        self.wants_handshake |= session.is_worn(now);
        self.sent(now);
        Some(len)
    }

    /// Keeps a packet, already padded, until the handshake is done.
    pub fn stage(&mut self, padded: &[u8]) -> Staged {
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
    /// `label` is the next of [`Identity::label`]; `out` must hold [`CONTROL_ROOM`] bytes.
    pub fn initiate(&mut self, label: Label, out: &mut [u8], now: Instant) -> Option<usize> {
        assert!(out.len() >= CONTROL_ROOM, "no room for an initiation");
        if self.attempt.is_some() {
            return None;
        }
        Some(self.send_initiation(label, now, out, now))
    }

    /// Writes one initiation that nobody repeats, to see whether a silent peer is there again. What is to be sent does not
    /// wait for it: it begins an attempt at once. `None` while there is an attempt.
    ///
    /// # Panics
    /// When `out` is shorter than [`CONTROL_ROOM`].
    pub fn call(&mut self, label: Label, out: &mut [u8], now: Instant) -> Option<usize> {
        let len = self.initiate(label, out, now)?;
        self.attempt = None;
        Some(len)
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
        if counter >= COUNTER_LIMIT {
            return Err(Refused::CounterLimit);
        }
        let used = index_at(datagram, RECEIVER_AT).ok_or(Refused::NoSession)?;
        let session = self.session_mut(used).ok_or(Refused::NoSession)?;
        if session.age(now) >= REJECT_AFTER {
            return Err(Refused::NoSession);
        }
        let len = session.open(datagram, counter, out)?;
        self.confirm(used);
        self.heard(now);
        if let Some(session) = &self.current
            && session.local_index() == used
            && session.is_initiator()
            && !self.is_last_minute_said
            && session.age(now) >= LAST_MINUTE
        {
            self.is_last_minute_said = true;
            self.wants_handshake = true;
        }
        if len == 0 {
            return Ok(Opened::Keepalive);
        }
        self.unacknowledged_since.get_or_insert(now);
        inner_len(&out[..len])
            .map(Opened::Packet)
            .ok_or(Refused::InnerMalformed)
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
        datagram: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Result<Opened, Refused> {
        assert!(out.len() >= CONTROL_ROOM, "no room for an answer");
        match Message::parse(datagram) {
            Ok(Message::Initiation) => self.answer(datagram, out, now),
            Ok(Message::Response { .. }) => self.finish(datagram, out, now),
            Ok(Message::Cookie { .. }) => match self.handshake.take_cookie(datagram, now) {
                Ok(()) => Ok(Opened::Handshake),
                Err(_) => Err(Refused::CookieInvalid),
            },
            Ok(Message::Data { .. }) | Err(_) => Err(Refused::HandshakeInvalid),
        }
    }

    /// Retries, rekeys, expires and keeps alive; call every [`TIMER_INTERVAL`] with the next of
    /// [`Identity::label`].
    ///
    /// # Panics
    /// When `out` is shorter than [`CONTROL_ROOM`].
    pub fn on_timer(&mut self, label: Label, out: &mut [u8], now: Instant) -> Timed {
        assert!(out.len() >= CONTROL_ROOM, "no room for an initiation");
        self.expire(now);
        let mut timed = Timed::default();
        match self.attempt {
            Some(attempt) if now.saturating_duration_since(attempt.began) >= GIVE_UP_AFTER => {
                self.attempt = None;
                self.handshake.forget();
                // Silence from here on, until there is something to send again.
                self.data_unanswered_since = None;
                self.wants_handshake = false;
                timed.staged_dropped = self.staged.len();
                self.staged.clear();
            }
            Some(attempt) if now >= attempt.retry_at => {
                timed.send = Some(self.send_initiation(label, attempt.began, out, now));
                return timed;
            }
            Some(_) => {}
            None if self.handshake_is_due(now) => {
                timed.send = Some(self.send_initiation(label, now, out, now));
                return timed;
            }
            None => {}
        }
        let answer_is_due = self
            .unacknowledged_since
            .is_some_and(|since| now.saturating_duration_since(since) >= KEEPALIVE_AFTER);
        if answer_is_due || self.keepalive_is_due(now) {
            self.unacknowledged_since = None;
            timed.send = match self.can_seal(now) {
                true => self.seal(&[], out, now),
                false if self.keepalive_is_due(now) => {
                    self.last_authenticated = now;
                    self.initiate(label, out, now)
                }
                false => None,
            };
        }
        timed
    }

    fn answer(
        &mut self,
        initiation: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Result<Opened, Refused> {
        let last = self.last_initiation;
        if last.is_some_and(|last| now.saturating_duration_since(last) < INITIATION_INTERVAL_MIN) {
            return Err(Refused::HandshakeFlood);
        }
        let index = self.next_index();
        let keys = self
            .handshake
            .respond(initiation, index, now, out)
            .map_err(handshake_refusal)?;
        self.last_initiation = Some(now);
        self.unconfirmed[1] = self.unconfirmed[0].take();
        self.unconfirmed[0] = Some(self.session(&keys, false, now));
        self.heard(now);
        self.sent(now);
        Ok(Opened::Reply(crate::message::RESPONSE_LEN))
    }

    /// The session is ours to use at once; an empty packet proves to the peer that we have its keys.
    fn finish(&mut self, response: &[u8], out: &mut [u8], now: Instant) -> Result<Opened, Refused> {
        let keys: TransportKeys = self.handshake.finish(response).map_err(handshake_refusal)?;
        self.heard(now);
        self.replace_current(self.session(&keys, true, now));
        let len = self.seal(&[], out, now);
        debug_assert_eq!(len, Some(DATA_OVERHEAD));
        Ok(Opened::Reply(DATA_OVERHEAD))
    }

    fn session(&self, keys: &TransportKeys, is_initiator: bool, now: Instant) -> Box<Session> {
        let backend = self.handshake.backend();
        Box::new(Session::new(keys, is_initiator, backend, now))
    }

    /// A message came on session `used`: where that is one we answered, the peer has its keys.
    #[inline]
    fn confirm(&mut self, used: u32) {
        if self
            .current
            .as_ref()
            .is_some_and(|it| it.local_index() == used)
        {
            return;
        }
        let is_used = |it: &Option<Box<Session>>| {
            it.as_ref()
                .is_some_and(|session| session.local_index() == used)
        };
        let Some(at) = self.unconfirmed.iter().position(is_used) else {
            return;
        };
        if let Some(session) = self.unconfirmed[at].take() {
            // One answered before this one was not used: the peer gave it up.
            self.unconfirmed[at..].fill_with(|| None);
            self.replace_current(session);
        }
    }

    fn replace_current(&mut self, session: Box<Session>) {
        self.previous = self.current.replace(session);
        self.attempt = None;
        self.wants_handshake = false;
        self.is_last_minute_said = false;
        self.handshake_completed = true;
    }

    fn send_initiation(
        &mut self,
        label: Label,
        began: Instant,
        out: &mut [u8],
        now: Instant,
    ) -> usize {
        let index = self.next_index();
        self.handshake.initiate(index, label, now, out);
        let jitter = Duration::from_millis(self.next_random() % RETRY_JITTER_MAX_MS);
        self.attempt = Some(Attempt {
            began,
            retry_at: now + self.retry_after + jitter,
        });
        self.wants_handshake = false;
        self.unacknowledged_since = None;
        self.last_authenticated = now;
        INITIATION_LEN
    }

    fn handshake_is_due(&self, now: Instant) -> bool {
        let is_unanswered = self
            .data_unanswered_since
            .is_some_and(|since| now.saturating_duration_since(since) >= UNANSWERED_MAX);
        self.wants_handshake || is_unanswered || (!self.staged.is_empty() && !self.can_seal(now))
    }

    fn keepalive_is_due(&self, now: Instant) -> bool {
        self.keepalive.is_some_and(|interval| {
            now.saturating_duration_since(self.last_authenticated) >= interval
        })
    }

    /// Something authenticated was sent.
    #[inline]
    fn sent(&mut self, now: Instant) {
        self.last_authenticated = now;
        self.unacknowledged_since = None;
        self.unanswered_since.get_or_insert(now);
    }

    /// Something authenticated came in.
    #[inline]
    fn heard(&mut self, now: Instant) {
        self.last_authenticated = now;
        self.unanswered_since = None;
        self.data_unanswered_since = None;
    }

    /// Wipes the sessions that may not be used any more.
    fn expire(&mut self, now: Instant) {
        let [newer, older] = &mut self.unconfirmed;
        for slot in [&mut self.current, &mut self.previous, newer, older] {
            if slot.as_ref().is_some_and(|it| it.age(now) >= REJECT_AFTER) {
                *slot = None;
            }
        }
        if self.current.as_ref().is_some_and(|it| !it.is_usable(now)) {
            self.current = None;
        }
    }

    #[inline]
    fn session_mut(&mut self, local_index: u32) -> Option<&mut Session> {
        let [newer, older] = &mut self.unconfirmed;
        [&mut self.current, &mut self.previous, newer, older]
            .into_iter()
            .filter_map(|slot| slot.as_deref_mut())
            .find(|session| session.local_index() == local_index)
    }

    /// A receiver index that no session of this tunnel has.
    fn next_index(&mut self) -> u32 {
        loop {
            let index = self.index.as_u32() << 8 | u32::from(self.next_session);
            self.next_session = self.next_session.wrapping_add(1);
            // At most four of 256 are taken.
            if self.session_mut(index).is_none() {
                return index;
            }
        }
    }

    /// xorshift64 (Marsaglia, 2003): jitter needs no secrecy.
    fn next_random(&mut self) -> u64 {
        let mut z = self.random ^ u64::from(self.next_session) << 40;
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        self.random = z;
        z
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("index", &self.index)
            .field("has_session", &self.has_session())
            .field("staged", &self.staged.len())
            .finish_non_exhaustive()
    }
}

/// Where a data message has the index of its receiver's session.
const RECEIVER_AT: usize = 4;

fn index_at(message: &[u8], at: usize) -> Option<u32> {
    message
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

/// The length of the IP packet at the start of `plain`, which may have padding behind it.
#[inline]
fn inner_len(plain: &[u8]) -> Option<usize> {
    let (header, len) = match plain.first()? >> 4 {
        4 => (
            20,
            usize::from(u16::from_be_bytes([*plain.get(2)?, *plain.get(3)?])),
        ),
        6 => (
            40,
            40 + usize::from(u16::from_be_bytes([*plain.get(4)?, *plain.get(5)?])),
        ),
        _ => return None,
    };
    (plain.len() >= header && (header..=plain.len()).contains(&len)).then_some(len)
}

fn handshake_refusal(invalid: Invalid) -> Refused {
    match invalid {
        Invalid::Message => Refused::HandshakeInvalid,
        Invalid::Replayed => Refused::HandshakeReplayed,
    }
}
