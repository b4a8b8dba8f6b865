//! A crowd of WireGuard initiators in this process, each with a key and a handshake of its own (boringtun's `Tunn`),
//! behind one UDP socket.
//!
//! An initiation costs its maker as much as its receiver. So the crowd makes all of a round's initiations before the
//! round and checks all answers after it: within a round it only sends and receives, and the gateway has the cores.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use patronus_tunnel::{PrivateKey, PublicKey};

use super::udp::connected;
use crate::{Namespace, Stop};

/// Initiators that a gateway knows as peers.
pub struct Crowd {
    socket: UdpSocket,
    initiators: Vec<Tunn>,
}

/// What came of one round: every initiator initiated once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Round {
    /// Seconds from the first initiation to the last answer.
    pub seconds: f64,
    /// Initiations sent.
    pub sent: u64,
    /// Handshakes completed: the answer was right.
    pub completed: u64,
    /// Answers that were cookies: the gateway was under load and the initiator had none yet.
    pub cookies: u64,
}

impl Crowd {
    /// Opens the socket in `namespace` and makes an initiator of every key, all towards `gateway`.
    ///
    /// # Errors
    /// When the socket cannot be opened, or the keys are more than receiver indices.
    pub fn gather(
        namespace: &Namespace,
        gateway: SocketAddr,
        gateway_key: &PublicKey,
        keys: &[PrivateKey],
    ) -> Result<Self> {
        let socket = namespace
            .run(|| connected(gateway))?
            .with_context(|| format!("opening a UDP socket in {}", namespace.label()))?;
        Self::behind(socket, gateway_key, keys)
    }

    fn behind(socket: UdpSocket, gateway_key: &PublicKey, keys: &[PrivateKey]) -> Result<Self> {
        socket
            .set_read_timeout(Some(ANSWER_MAX))
            .context("setting a timeout")?;
        ensure!(
            keys.len() <= INITIATORS_MAX,
            "{} initiators: at most {INITIATORS_MAX}",
            keys.len()
        );
        let theirs = x25519::PublicKey::from(*gateway_key.as_bytes());
        let initiators = keys.iter().zip(0..).map(|(key, index)| {
            let secret = x25519::StaticSecret::from(*key.as_bytes());
            let public = x25519::PublicKey::from(&secret);
            // An initiator's own limiter would refuse the eleventh answer of a second.
            let never_loaded = Arc::new(RateLimiter::new(&public, u64::MAX));
            Tunn::new(secret, theirs, None, None, index, Some(never_loaded))
        });
        Ok(Self {
            socket,
            initiators: initiators.collect(),
        })
    }

    /// Every initiator initiates once, at most `window` of them waiting for an answer at a time. `around` is called
    /// with `true` right before the first message and with `false` right after the last answer.
    ///
    /// # Errors
    /// A socket that failed, or Ctrl-C.
    pub fn round(
        &mut self,
        window: usize,
        stop: &Stop,
        mut around: impl FnMut(bool) -> Result<()>,
    ) -> Result<Round> {
        stop.check()?;
        let initiations = self.initiate()?;
        around(true)?;
        let begun = Instant::now();
        let answers = exchange(&self.socket, &initiations, window)?;
        let seconds = begun.elapsed().as_secs_f64();
        around(false)?;
        let mut round = Round {
            seconds,
            sent: initiations.len() as u64,
            ..Round::default()
        };
        for answer in answers {
            self.take(&answer, &mut round)?;
        }
        Ok(round)
    }

    fn initiate(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let initiations = self.initiators.iter_mut().map(|initiator| {
            match initiator.format_handshake_initiation(&mut buffer, true) {
                TunnResult::WriteToNetwork(message) => Ok(message.to_vec()),
                other => anyhow::bail!("boringtun made no initiation: {other:?}"),
            }
        });
        initiations.collect()
    }

    /// Lets the initiator that an answer is for judge it, and confirms a handshake with a keepalive, as WireGuard
    /// does (whitepaper, section 5.1).
    fn take(&mut self, answer: &[u8], round: &mut Round) -> Result<()> {
        let Some((kind, number)) = addressee(answer) else {
            return Ok(());
        };
        let Some(initiator) = self.initiators.get_mut(number) else {
            return Ok(());
        };
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        match (kind, initiator.decapsulate(None, answer, &mut buffer)) {
            (RESPONSE, TunnResult::WriteToNetwork(keepalive)) => {
                round.completed += 1;
                send(&self.socket, keepalive).context("confirming a handshake")?;
            }
            (COOKIE, TunnResult::Done) => round.cookies += 1,
            // A wrong answer is none.
            _ => {}
        }
        Ok(())
    }
}

impl std::fmt::Debug for Crowd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crowd({} initiators)", self.initiators.len())
    }
}

/// Sends all initiations and gathers the answers. An answer that does not come within [`ANSWER_MAX`] after the last
/// one is lost with all that were waiting.
fn exchange(socket: &UdpSocket, initiations: &[Vec<u8>], window: usize) -> Result<Vec<Vec<u8>>> {
    let mut answers = Vec::with_capacity(initiations.len());
    let mut waiting = 0;
    let mut left = initiations.iter();
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    loop {
        while waiting < window.max(1) {
            let Some(initiation) = left.next() else { break };
            send(socket, initiation).context("sending an initiation")?;
            waiting += 1;
        }
        if waiting == 0 {
            return Ok(answers);
        }
        match socket.recv(&mut buffer) {
            Ok(len) if addressee(&buffer[..len]).is_some() => {
                answers.push(buffer[..len].to_vec());
                waiting -= 1;
            }
            Ok(_) => {}
            Err(error) if super::tcp::is_timeout(&error) => waiting = 0,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => waiting = 0,
            Err(error) => return Err(error).context("receiving an answer"),
        }
    }
}

/// Sends a message; a gateway that is not there is one that does not answer.
fn send(socket: &UdpSocket, message: &[u8]) -> std::io::Result<()> {
    match socket.send(message) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        result => result.map(drop),
    }
}

/// The kind of an answer and the number of the initiator it is for, which boringtun keeps above the low byte of the
/// receiver index.
fn addressee(answer: &[u8]) -> Option<(u32, usize)> {
    let word = |at: usize| {
        let bytes = answer.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let kind = word(0)?;
    let receiver = match kind {
        RESPONSE => word(8)?,
        COOKIE => word(4)?,
        _ => return None,
    };
    Some((kind, (receiver >> 8) as usize))
}

/// Initiations towards a gateway from keys that nobody knows, their first MAC right: the most that a stranger can
/// make a gateway do.
///
/// # Errors
/// When boringtun makes none.
pub fn strangers(gateway_key: &PublicKey, count: usize) -> Result<Vec<Vec<u8>>> {
    let theirs = x25519::PublicKey::from(*gateway_key.as_bytes());
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    let initiations = (0..count).map(|_| {
        let secret = x25519::StaticSecret::from(*PrivateKey::generate().as_bytes());
        let mut stranger = Tunn::new(secret, theirs, None, None, 0, None);
        match stranger.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(message) => Ok(message.to_vec()),
            other => anyhow::bail!("boringtun made no initiation: {other:?}"),
        }
    });
    initiations.collect()
}

/// Message types (whitepaper, section 5.4).
const RESPONSE: u32 = 2;
const COOKIE: u32 = 3;
/// Longer than any handshake message.
const MESSAGE_BYTES_MAX: usize = 256;
/// The indices that boringtun leaves to its caller have 24 bits.
const INITIATORS_MAX: usize = 1 << 24;
/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_completes_handshakes_with_a_responder_and_counts_only_right_answers() {
        let gateway_key = PrivateKey::generate();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let keys: Vec<PrivateKey> = (0..3).map(|_| PrivateKey::generate()).collect();
        let publics: Vec<PublicKey> = keys.iter().map(PrivateKey::public_key).collect();
        let secret = x25519::StaticSecret::from(*gateway_key.as_bytes());
        // Answers the first two initiators, and the third with the second's handshake.
        let responder = std::thread::spawn(move || {
            let mut buffer = [0; MESSAGE_BYTES_MAX];
            let mut last = Vec::new();
            for (number, public) in publics.iter().enumerate() {
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                let theirs = x25519::PublicKey::from(*public.as_bytes());
                let mut tunn = Tunn::new(secret.clone(), theirs, None, None, 9, None);
                let mut out = [0; MESSAGE_BYTES_MAX];
                if let TunnResult::WriteToNetwork(answer) =
                    tunn.decapsulate(None, &buffer[..len], &mut out)
                    && number < 2
                {
                    last = answer.to_vec();
                }
                socket.send_to(&last, from).unwrap();
            }
        });
        let socket = connected(address).unwrap();
        let mut crowd = Crowd::behind(socket, &gateway_key.public_key(), &keys).unwrap();

        let round = crowd.round(1, &Stop::new(), |_| Ok(())).unwrap();

        responder.join().unwrap();
        assert_eq!((round.sent, round.completed, round.cookies), (3, 2, 0));
        assert!(round.seconds > 0.0);
    }

    #[test]
    fn what_is_no_answer_has_no_addressee() {
        assert_eq!(addressee(&[]), None);
        assert_eq!(addressee(&[2, 0, 0, 0, 1, 1, 1, 1, 0]), None);
        assert_eq!(addressee(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        let answer = [2, 0, 0, 0, 7, 7, 7, 7, 0xff, 5, 1, 0];
        assert_eq!(addressee(&answer), Some((RESPONSE, 0x105)));
        assert_eq!(addressee(&[3, 0, 0, 0, 9, 4, 0, 0]), Some((COOKIE, 4)));
    }

    #[test]
    fn strangers_differ_and_are_of_the_length_of_an_initiation() {
        let initiations = strangers(&PrivateKey::generate().public_key(), 2).unwrap();
        assert_eq!(initiations[0].len(), 148);
        assert_ne!(initiations[0][8..40], initiations[1][8..40]);
    }
}
