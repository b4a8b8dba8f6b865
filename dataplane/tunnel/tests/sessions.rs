//! Two tunnels, face to face: handshake, replay window, waiting packets, and what the limits refuse.

// This is a test, so it may ask what time it is.
#![allow(clippy::disallowed_methods)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use patronus_tunnel::message::COUNTER_LIMIT;
use patronus_tunnel::peer::{CONTROL_ROOM, STAGED_MAX};
use patronus_tunnel::{
    Identity, Message, Opened, Peer, PeerIndex, PresharedKey, PrivateKey, Refused, Staged,
    WallClock, WorkerId,
};
use proptest::prelude::*;

/// Datagrams that may arrive behind the newest one.
const WINDOW: u64 = patronus_tunnel::session::WINDOW_LEN;

fn identities() -> [Identity; 2] {
    let clock = WallClock {
        at: Instant::now(),
        unix: Duration::from_secs(1_700_000_000),
    };
    [(); 2].map(|()| Identity::new(PrivateKey::generate(), 1000, clock))
}

fn peers(
    identities: &[Identity; 2],
    preshared_keys: [Option<&PresharedKey>; 2],
    now: Instant,
) -> [Peer; 2] {
    [0, 1].map(|at| {
        let other = identities[1 - at].public_key();
        let index = PeerIndex::new(WorkerId(0), 10 + at as u16);
        Peer::new(
            &identities[at],
            &other,
            preshared_keys[at],
            None,
            index,
            now,
        )
    })
}

/// The second initiates; both have a session then.
fn session(now: Instant) -> [Peer; 2] {
    let mut peers = peers(&identities(), [None, None], now);
    shake(&mut peers, now).expect("both have the same keys");
    peers
}

fn shake([responder, initiator]: &mut [Peer; 2], now: Instant) -> Result<(), Refused> {
    let (mut a, mut b) = ([0; 256], [0; 256]);
    let len = initiator
        .initiate(label(), &mut a, now)
        .expect("an initiation");
    let opened = responder.open_handshake(&a[..len], &mut b, now)?;
    let Opened::Reply(len) = opened else {
        panic!("{opened:?}")
    };
    let opened = initiator.open_handshake(&b[..len], &mut a, now)?;
    let Opened::Reply(len) = opened else {
        panic!("{opened:?}")
    };
    assert!(
        initiator.has_session() && !responder.has_session(),
        "the responder waits for a proof"
    );
    let opened = open(responder, &a[..len], now)?;
    assert_eq!((opened, responder.has_session()), (Opened::Keepalive, true));
    Ok(())
}

/// The date of an initiation that nobody has seen the like of.
fn label() -> [u8; 12] {
    static LAST: AtomicU64 = AtomicU64::new(1);
    let mut label = [0; 12];
    label[..8].copy_from_slice(&LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    label
}

fn open(peer: &mut Peer, datagram: &[u8], now: Instant) -> Result<Opened, Refused> {
    let Ok(Message::Data { counter, .. }) = Message::parse(datagram) else {
        panic!("no data message")
    };
    let mut out = vec![0; datagram.len()];
    peer.open(datagram, counter, &mut out, now)
}

/// An IPv4 packet without payload.
fn packet() -> Vec<u8> {
    let mut packet = vec![0; 32];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 20]);
    packet
}

fn seal(peer: &mut Peer, now: Instant) -> Vec<u8> {
    let mut out = vec![0; 128];
    let len = peer.seal(&packet(), &mut out, now).expect("a session");
    out.truncate(len);
    out
}

#[test]
fn a_preshared_key_must_be_the_same_on_both_sides() {
    let now = Instant::now();
    let identities = identities();
    let (right, wrong) = (PresharedKey::generate(), PresharedKey::generate());
    let mut same = peers(&identities, [Some(&right), Some(&right)], now);
    assert_eq!(shake(&mut same, now), Ok(()));
    for keys in [
        [Some(&right), Some(&wrong)],
        [None, Some(&right)],
        [Some(&right), None],
    ] {
        let mut different = peers(&identities, keys, now);
        assert_eq!(shake(&mut different, now), Err(Refused::HandshakeInvalid));
    }
}

#[test]
fn a_counter_at_the_limit_is_refused_before_the_aead_and_one_below_by_it() {
    let now = Instant::now();
    let [mut receiver, mut sender] = session(now);
    let genuine = seal(&mut sender, now);
    for (counter, refused) in [
        (COUNTER_LIMIT - 1, Refused::BadTag),
        (COUNTER_LIMIT, Refused::CounterLimit),
        (u64::MAX, Refused::CounterLimit),
    ] {
        let mut forged = genuine.clone();
        forged[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(
            open(&mut receiver, &forged, now),
            Err(refused),
            "counter {counter:#x}"
        );
    }
    assert_eq!(open(&mut receiver, &genuine, now), Ok(Opened::Packet(20)));
}

#[test]
fn a_second_initiation_within_20_ms_is_a_flood_and_nothing_of_the_first_is_lost() {
    let now = Instant::now();
    let identities = identities();
    let mut peers = peers(&identities, [None, None], now);
    shake(&mut peers, now).unwrap();
    let [mut responder, _] = peers;
    let index = PeerIndex::new(WorkerId(0), 99);
    let mut again = Peer::new(
        &identities[1],
        &identities[0].public_key(),
        None,
        None,
        index,
        now,
    );
    let (mut initiation, mut out) = ([0; CONTROL_ROOM], [0; CONTROL_ROOM]);
    let len = again.initiate(label(), &mut initiation, now).unwrap();
    for (after_ms, expected) in [
        (0, Err(Refused::HandshakeFlood)),
        (19, Err(Refused::HandshakeFlood)),
        (20, Ok(())),
    ] {
        let at = now + Duration::from_millis(after_ms);
        let opened = responder.open_handshake(&initiation[..len], &mut out, at);
        assert_eq!(opened.map(drop), expected, "{after_ms} ms later");
    }
    assert!(responder.has_session());
}

#[test]
fn waiting_packets_keep_their_order_and_the_oldest_makes_room() {
    let now = Instant::now();
    let [mut peer, _] = peers(&identities(), [None, None], now);
    for number in 0..STAGED_MAX + 2 {
        let staged = peer.stage(&number.to_le_bytes());
        let expected = if number < STAGED_MAX {
            Staged::Queued
        } else {
            Staged::OldestDropped
        };
        assert_eq!(staged, expected, "packet {number}");
    }
    assert_eq!(peer.staged_len(), STAGED_MAX);
    for number in 2..STAGED_MAX + 2 {
        assert_eq!(peer.unstage().as_deref(), Some(&number.to_le_bytes()[..]));
    }
    assert_eq!(peer.unstage(), None);
}

#[test]
fn nothing_is_sealed_without_a_session() {
    let now = Instant::now();
    let [mut peer, _] = peers(&identities(), [None, None], now);
    assert_eq!(peer.seal(&packet(), &mut [0; 128], now), None);
}

#[test]
#[should_panic(expected = "no room to seal 32 bytes")]
fn a_short_buffer_is_the_caller_s_mistake() {
    let now = Instant::now();
    let [_, mut peer] = session(now);
    peer.seal(&packet(), &mut [0; 63], now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the order and however often: each datagram opens once, unless too many newer ones came first.
    #[test]
    fn the_replay_window_equals_a_set(
        steps in proptest::collection::vec((0u64..40, prop_oneof![8 => 0u64..60, 1 => 0u64..9000]), 1..120),
    ) {
        let now = Instant::now();
        let [mut receiver, mut sender] = session(now);
        // The handshake's own keepalive had counter 0.
        let mut sealed = vec![Vec::new()];
        let mut seen = HashSet::from([0u64]);
        let mut newest = 0;
        for (ahead, behind) in steps {
            let counter = (newest + ahead).saturating_sub(behind).max(1);
            while sealed.len() as u64 <= counter {
                sealed.push(seal(&mut sender, now));
            }
            let opened = open(&mut receiver, &sealed[counter as usize], now);
            let expected = if counter + WINDOW <= newest {
                Err(Refused::TooOld)
            } else if seen.contains(&counter) {
                Err(Refused::Replayed)
            } else {
                Ok(Opened::Packet(20))
            };
            prop_assert_eq!(opened, expected, "counter {} of {}", counter, newest);
            seen.insert(counter);
            newest = newest.max(counter);
        }
    }
}
