//! Random and mutated frames: the programs and their twin never disagree, and neither drops what user space would
//! take.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::frames::*;
use common::{Dice, can_load};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use patronus_ebpf::{
    Entry, Frame, InitiationLimit, SourceVerdict, WanConfig, WanFilter, WanReason, WanStats,
    WanTwin,
};
use patronus_tunnel::message::Message;

const FRAMES: usize = 100_000;
/// What the tunnel would know.
const RECEIVERS: [u32; 3] = [1, 0x0107, 0xab_cdef];

#[test]
fn programs_and_twin_never_disagree_and_never_drop_what_user_space_takes() {
    if !can_load() {
        return;
    }
    let mut dice = Dice::new("programs and twin");
    for checks_receivers in [false, true] {
        let config = config(checks_receivers);
        let mut filter = WanFilter::load(&config).unwrap();
        let mut twin = WanTwin::new(&config);
        let mut before = filter.stats().unwrap();
        let mut refused = 0;
        for _ in 0..FRAMES / 2 {
            let entry = dice.pick(&Entry::ALL);
            let (bytes, gso_size) = frame(&mut dice, entry);
            let frame = Frame {
                bytes: &bytes,
                gso_size,
            };
            let said = twin.judge(entry, frame, 0).reason;
            assert_user_space_agrees(&twin_free(checks_receivers), entry, frame, said);
            let Ok(trial) = filter.trial(entry, frame, 1) else {
                // The kernel tries no frame that is cut within its IP header.
                assert!(bytes.len() < 14 + 40, "{}", bytes.len());
                refused += 1;
                continue;
            };
            let after = filter.stats().unwrap();
            let counted = one_more(&before, &after);
            assert_eq!(counted, said, "{entry:?} {gso_size} {bytes:02x?}");
            assert_eq!(trial.dropped, said.is_drop());
            before = after;
        }
        assert!(before.adds_up());
        assert_eq!(before.seen.packets, (FRAMES / 2 - refused) as u64);
        let all: Vec<_> = before.reasons().collect();
        println!("{refused} refused, {all:?}");
        // The generator reaches every reason but the two that need time or a full table.
        for (reason, counter) in all {
            let is_reached = match reason {
                WanReason::PassUntracked | WanReason::DropLimited => continue,
                WanReason::DropReceiver => checks_receivers,
                _ => true,
            };
            assert_eq!(counter.packets > 0, is_reached, "{reason:?}");
        }
    }
}

/// What user space knows: whose receivers there are.
fn twin_free(checks_receivers: bool) -> Option<&'static [u32]> {
    checks_receivers.then_some(&RECEIVERS[..])
}

/// A frame that was dropped for its form or its receiver has no datagram that the tunnel would take. Read by another
/// parser of headers and by the tunnel's own parser of messages.
fn assert_user_space_agrees(
    known: &Option<&[u32]>,
    entry: Entry,
    frame: Frame<'_>,
    said: WanReason,
) {
    let by_form = matches!(
        said,
        WanReason::DropMalformed
            | WanReason::DropType
            | WanReason::DropLength
            | WanReason::DropReceiver
    );
    if !by_form {
        return;
    }
    let parsed = match entry {
        Entry::TcIp => SlicedPacket::from_ip(frame.bytes),
        Entry::XdpNative | Entry::XdpGeneric | Entry::Tc => {
            SlicedPacket::from_ethernet(frame.bytes)
        }
    };
    // What has no sound headers ends in the kernel.
    let Ok(parsed) = parsed else { return };
    assert!(
        !matches!(&parsed.net, Some(NetSlice::Ipv4(ip)) if ip.payload().fragmented),
        "a fragment was dropped"
    );
    let Some(TransportSlice::Udp(udp)) = parsed.transport else {
        panic!("{said:?} for what is no UDP");
    };
    if said == WanReason::DropMalformed {
        // This parser takes 0 for "to the end", the kernel only in IPv6 (`__udp4_lib_rcv`).
        let is_ipv4 = matches!(parsed.net, Some(NetSlice::Ipv4(_)));
        assert_eq!((udp.length(), is_ipv4), (0, true));
        return;
    }
    let payload = udp.payload();
    let segment = match frame.gso_size as usize {
        0 => payload.len(),
        size => size,
    };
    for datagram in payload.chunks(segment.max(1)) {
        let Ok(message) = Message::parse(datagram) else {
            continue;
        };
        let receiver = match message {
            Message::Initiation => panic!("{said:?} for an initiation"),
            Message::Response { receiver }
            | Message::Cookie { receiver }
            | Message::Data { receiver, .. } => receiver,
        };
        let is_unknown = known.is_some_and(|known| !known.contains(&(receiver >> 8)));
        assert!(is_unknown, "{said:?} for {message:?}");
    }
}

/// The reason that was counted once more.
fn one_more(before: &WanStats, after: &WanStats) -> WanReason {
    let mut more = after
        .reasons()
        .filter(|(reason, counter)| counter.packets != before.of(*reason).packets);
    let (reason, counter) = more.next().expect("it was counted");
    assert_eq!(counter.packets, before.of(reason).packets + 1);
    assert_eq!(more.next(), None, "it was counted once");
    reason
}

fn config(checks_receivers: bool) -> WanConfig {
    let mut config = WanConfig {
        ports: vec![PORT, 443, 0, 65535],
        known_receivers: checks_receivers.then(|| RECEIVERS.to_vec()),
        // Never reached, but walked through.
        limit: Some(InitiationLimit {
            per_second: 1_000_000_000,
            burst: 1_000_000_000,
            v4_len: 24,
            v6_len: 64,
        }),
        ..WanConfig::default()
    };
    config.sources.add_bogons();
    let blocked = ["185.0.0.0/8", "2a02::/16"].map(|text| text.parse().unwrap());
    config.sources.extend(blocked, SourceVerdict::Blocked);
    let allowed =
        ["185.1.0.0/16", "10.9.0.0/16", "2a02:dead::/32"].map(|text| text.parse().unwrap());
    config.sources.extend(allowed, SourceVerdict::Allowed);
    config
}

/// A frame that is good, nearly good or noise, and the size of its datagrams if it is a train.
fn frame(dice: &mut Dice, entry: Entry) -> (Vec<u8>, u32) {
    let (payload, gso_size) = payload(dice);
    let sources = [
        V4,
        V6,
        V4,
        V6,
        "185.2.0.1",
        "185.1.0.1",
        "10.9.0.2",
        "10.8.0.2",
        "2a02::1",
        "2a02:dead::1",
        "fe80::1",
    ];
    let mut packet = packet(dice.pick(&sources), payload);
    if dice.one_in(4) {
        let tag = dice.pick(&[0x8100, 0x88a8]);
        packet.tags = vec![tag; 1 + dice.below(3)];
    }
    if dice.one_in(6) {
        packet.options = vec![1; 4 * dice.below(11)];
    }
    if dice.one_in(8) {
        packet.port = dice.pick(&[443, 0, 65535, 53, PORT + 1, PORT ^ 0x100]);
    }
    if dice.one_in(10) {
        packet.fragment = dice.pick(&[0x2000, 1, 0x4000, 0x8000, 0x1fff]);
    }
    if dice.one_in(10) {
        packet.protocol = dice.pick(&[0, 6, 43, 44, 50, 51, 58, 59, 60, 135, 136]);
    }
    if dice.one_in(6) {
        packet.padding = dice.below(64);
    }
    if dice.one_in(8) {
        packet.behind = vec![0; dice.below(20)];
    }
    let len = packet.payload.len() as u16;
    let near = |dice: &mut Dice| len.wrapping_add(dice.below(60) as u16).wrapping_sub(20);
    if dice.one_in(10) {
        packet.udp_len = Some(if dice.one_in(4) { 0 } else { near(dice) });
    }
    if dice.one_in(12) {
        packet.ip_len = Some(near(dice));
    }
    if dice.one_in(12) {
        packet.version_ihl = Some(dice.next() as u8);
    }
    let mut bytes = match entry {
        Entry::TcIp => packet.build_ip(),
        Entry::XdpNative | Entry::XdpGeneric | Entry::Tc => packet.build(),
    };
    mutate(dice, &mut bytes);
    // The kernel tries no frame without room for an Ethernet header.
    bytes.resize(bytes.len().max(14), 0);
    let gso_size = match entry {
        Entry::XdpNative | Entry::XdpGeneric => 0,
        Entry::Tc | Entry::TcIp => gso_size,
    };
    (bytes, gso_size)
}

/// One datagram or a train, with the size of its datagrams.
fn payload(dice: &mut Dice) -> (Vec<u8>, u32) {
    if !dice.one_in(3) {
        return (datagram(dice), 0);
    }
    let len = dice.pick(&[148, 148, 92, 64, 32, 200, 31, 4, 1]);
    let count = 1 + dice.below(12);
    let mut train = Vec::new();
    let kind = dice.pick(&[1, 2, 3, 4, 9, 4]);
    for _ in 0..count {
        let mut one = datagram_of(dice, kind, len);
        if dice.one_in(4) {
            one = datagram(dice);
        }
        one.resize(len, 0x11);
        train.extend(one);
    }
    if dice.one_in(2) {
        train.extend(datagram(dice).iter().take(len));
    }
    let claimed = if dice.one_in(10) {
        dice.below(300)
    } else {
        len
    };
    (train, claimed as u32)
}

fn datagram(dice: &mut Dice) -> Vec<u8> {
    let (kind, len) = dice.pick(&[
        (1, 148),
        (2, 92),
        (3, 64),
        (4, 32),
        (4, 148),
        (4, 1400),
        (9, 148),
    ]);
    let len = match dice.below(8) {
        0 => len + 1,
        1 => len - 1,
        2 => dice.below(200),
        _ => len,
    };
    datagram_of(dice, kind, len)
}

fn datagram_of(dice: &mut Dice, kind: u32, len: usize) -> Vec<u8> {
    if len < 12 {
        return message(kind, len);
    }
    let receiver = match dice.below(3) {
        0 => dice.next() as u32 & 0xff_ffff,
        _ => dice.pick(&RECEIVERS),
    };
    message_for(kind, len, receiver)
}

/// Flips, cuts and grows, most often not at all.
fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    if dice.one_in(5) {
        for _ in 0..=dice.below(4) {
            let reach = if dice.one_in(2) {
                bytes.len().min(64)
            } else {
                bytes.len()
            };
            let at = dice.below(reach.max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
    }
    if dice.one_in(12) {
        bytes.truncate(dice.below(bytes.len() + 1));
    }
    if dice.one_in(12) {
        bytes.extend(vec![0xa5; dice.below(40)]);
    }
    if dice.one_in(40) {
        *bytes = (0..14 + dice.below(120))
            .map(|_| dice.next() as u8)
            .collect();
    }
}
