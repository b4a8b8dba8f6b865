//! A table of frames and what becomes of each: the kernel's programs and their twin must both say so.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::frames::*;
use patronus_ebpf::{Entry, Frame, SourceVerdict, WanConfig, WanFilter, WanReason, WanTwin};

use WanReason::*;

/// One row.
struct Case {
    name: &'static str,
    /// With Ethernet header.
    frame: Vec<u8>,
    gso_size: u32,
    want: WanReason,
    /// Also what generic XDP says, which cannot see that a frame is no train.
    generic: WanReason,
}

fn case(name: &'static str, packet: Packet, want: WanReason) -> Case {
    raw(name, packet.build(), want)
}

fn raw(name: &'static str, frame: Vec<u8>, want: WanReason) -> Case {
    Case {
        name,
        frame,
        gso_size: 0,
        want,
        generic: want,
    }
}

fn v4(payload: Vec<u8>) -> Packet {
    packet(V4, payload)
}

fn v6(payload: Vec<u8>) -> Packet {
    packet(V6, payload)
}

fn train(name: &'static str, gso_size: u32, datagrams: &[Vec<u8>], want: WanReason) -> Case {
    Case {
        gso_size,
        ..case(name, v4(datagrams.concat()), want)
    }
}

fn forms() -> Vec<Case> {
    let mut big_endian = data(64);
    big_endian[..4].copy_from_slice(&[0, 0, 0, 4]);
    vec![
        case("initiation", v4(initiation()), PassInitiation),
        case("response", v4(message(2, 92)), PassResponse),
        case("cookie", v4(message(3, 64)), PassCookie),
        case("shortest data: keepalive", v4(data(32)), PassData),
        case("data", v4(data(1452)), PassData),
        case("data that is no multiple of 16", v4(data(33)), PassData),
        case("data of 148 bytes", v4(data(148)), PassData),
        case("initiation over IPv6", v6(initiation()), PassInitiation),
        case("response over IPv6", v6(message(2, 92)), PassResponse),
        case("cookie over IPv6", v6(message(3, 64)), PassCookie),
        case("data over IPv6", v6(data(1432)), PassData),
        case("second port", v4(data(32)).with(|p| p.port = 443), PassData),
        case("type 0", v4(message(0, 148)), DropType),
        case("type 5", v4(message(5, 148)), DropType),
        case("type 255", v4(message(255, 92)), DropType),
        case("type 9 over IPv6", v6(junk(64)), DropType),
        case("first reserved byte", v4(message(0x104, 64)), DropType),
        case("second reserved byte", v4(message(0x1_0001, 148)), DropType),
        case(
            "third reserved byte",
            v4(message(0x8000_0002, 92)),
            DropType,
        ),
        case("type in big endian", v4(big_endian), DropType),
        case("empty datagram", v4(vec![]), DropType),
        case("one byte", v4(vec![1]), DropType),
        case("three bytes", v4(vec![4, 0, 0]), DropType),
        case("empty datagram over IPv6", v6(vec![]), DropType),
        case("only a type", v4(message(1, 4)), DropLength),
        case("initiation one short", v4(message(1, 147)), DropLength),
        case("initiation one long", v4(message(1, 149)), DropLength),
        case("initiation of 1400 bytes", v4(message(1, 1400)), DropLength),
        case("response one short", v4(message(2, 91)), DropLength),
        case("response one long", v4(message(2, 93)), DropLength),
        case("cookie one short", v4(message(3, 63)), DropLength),
        case("cookie one long", v4(message(3, 65)), DropLength),
        case("data one short", v4(data(31)), DropLength),
        case("data header only", v6(data(16)), DropLength),
        Case {
            generic: PassInitiation,
            ..case(
                "two initiations in one datagram",
                v4(message(1, 296)),
                DropLength,
            )
        },
        Case {
            generic: PassResponse,
            ..case(
                "two responses in one datagram",
                v4(message(2, 184)),
                DropLength,
            )
        },
        Case {
            generic: PassCookie,
            ..case(
                "three cookies in one datagram",
                v6(message(3, 192)),
                DropLength,
            )
        },
    ]
}

fn headers() -> Vec<Case> {
    let tagged = |tags: &[u16], payload| v4(payload).with(|p| p.tags = tags.to_vec());
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6]);
    arp.extend([0; 46]);
    let mut cut_tag = vec![2; 12];
    cut_tag.extend([0x81, 0, 0]);
    let mut snap = v4(junk(64)).build();
    snap[12..14].copy_from_slice(&[0, 60]);
    let mut cut_header = v4(junk(64)).build();
    cut_header.truncate(14 + 19);
    let mut cut_v6_header = v6(junk(64)).build();
    cut_v6_header.truncate(14 + 23);
    vec![
        case(
            "other port",
            v4(junk(64)).with(|p| p.port = 51822),
            PassOther,
        ),
        case(
            "neighbour in the bitmap",
            v4(junk(64)).with(|p| p.port = PORT + 64),
            PassOther,
        ),
        case("port 0", v4(junk(64)).with(|p| p.port = 0), PassOther),
        case(
            "port 65535",
            v4(junk(64)).with(|p| p.port = 65535),
            PassOther,
        ),
        case(
            "our port as source",
            v4(junk(64)).with(|p| (p.port, p.source_port) = (53, PORT)),
            PassOther,
        ),
        case(
            "TCP to our port",
            v4(junk(64)).with(|p| p.protocol = 6),
            PassOther,
        ),
        case("ICMP", v4(junk(64)).with(|p| p.protocol = 1), PassOther),
        case(
            "UDP-Lite",
            v4(junk(64)).with(|p| p.protocol = 136),
            PassOther,
        ),
        raw("ARP", arp, PassOther),
        raw("802.3 length instead of a type", snap, PassOther),
        case("VLAN, good", tagged(&[0x8100], data(64)), PassData),
        case("VLAN, junk", tagged(&[0x8100], junk(64)), DropType),
        case("provider VLAN, junk", tagged(&[0x88a8], junk(64)), DropType),
        case(
            "two tags, good",
            tagged(&[0x88a8, 0x8100], initiation()),
            PassInitiation,
        ),
        case(
            "two tags, junk",
            tagged(&[0x88a8, 0x8100], junk(64)),
            DropType,
        ),
        case(
            "two tags, IPv6 junk",
            v6(junk(64)).with(|p| p.tags = vec![0x8100, 0x8100]),
            DropType,
        ),
        case(
            "three tags",
            tagged(&[0x88a8, 0x8100, 0x8100], junk(64)),
            PassOther,
        ),
        raw("cut in a tag", cut_tag, PassOther),
        case(
            "IPv4 options, good",
            v4(data(64)).with(|p| p.options = vec![1; 4]),
            PassData,
        ),
        case(
            "IPv4 options, junk",
            v4(junk(64)).with(|p| p.options = vec![1; 4]),
            DropType,
        ),
        case(
            "most IPv4 options, good",
            v4(message(2, 92)).with(|p| p.options = vec![1; 40]),
            PassResponse,
        ),
        case(
            "most IPv4 options, junk",
            v4(junk(20)).with(|p| p.options = vec![1; 40]),
            DropType,
        ),
        case(
            "header length 4",
            v4(junk(64)).with(|p| p.version_ihl = Some(0x44)),
            PassOther,
        ),
        case(
            "header length 0",
            v4(junk(64)).with(|p| p.version_ihl = Some(0x40)),
            PassOther,
        ),
        case(
            "header beyond the packet",
            v4(vec![]).with(|p| p.version_ihl = Some(0x4f)),
            PassOther,
        ),
        case(
            "version 5",
            v4(junk(64)).with(|p| p.version_ihl = Some(0x55)),
            PassOther,
        ),
        case(
            "version 6 in an IPv4 frame",
            v4(junk(64)).with(|p| p.version_ihl = Some(0x65)),
            PassOther,
        ),
        case(
            "IPv4 length below its header",
            v4(junk(64)).with(|p| p.ip_len = Some(19)),
            PassOther,
        ),
        case(
            "IPv4 length 0",
            v4(junk(64)).with(|p| p.ip_len = Some(0)),
            PassOther,
        ),
        case(
            "IPv4 length beyond the frame",
            v4(junk(64)).with(|p| p.ip_len = Some(93)),
            PassOther,
        ),
        case(
            "IPv4 length 65535",
            v4(junk(64)).with(|p| p.ip_len = Some(65535)),
            PassOther,
        ),
        raw("cut in the IPv4 header", cut_header, PassOther),
        raw("cut in the IPv6 header", cut_v6_header, PassOther),
        case(
            "no room for UDP",
            v4(junk(64)).with(|p| p.ip_len = Some(27)),
            PassOther,
        ),
        case(
            "padding is no payload",
            v4(message(1, 147)).with(|p| p.padding = 1),
            DropLength,
        ),
        case(
            "padding of a short frame",
            v4(junk(4)).with(|p| p.padding = 14),
            DropType,
        ),
        case(
            "good before padding",
            v4(data(32)).with(|p| p.padding = 60),
            PassData,
        ),
        case(
            "bytes behind the datagram",
            v4(initiation()).with(|p| p.behind = vec![0; 5]),
            PassInitiation,
        ),
        case(
            "UDP length 7",
            v4(data(64)).with(|p| p.udp_len = Some(7)),
            DropMalformed,
        ),
        case(
            "UDP length 0 over IPv4",
            v4(data(64)).with(|p| p.udp_len = Some(0)),
            DropMalformed,
        ),
        case(
            "UDP length beyond the packet",
            v4(data(64)).with(|p| p.udp_len = Some(73)),
            DropMalformed,
        ),
        case(
            "UDP length into the padding",
            v4(message(1, 147)).with(|p| (p.udp_len, p.padding) = (Some(156), 9)),
            DropMalformed,
        ),
        case(
            "UDP length beyond the IPv6 packet",
            v6(data(64)).with(|p| p.udp_len = Some(65535)),
            DropMalformed,
        ),
        case(
            "UDP length 0 over IPv6, good",
            v6(data(64)).with(|p| p.udp_len = Some(0)),
            PassData,
        ),
        case(
            "UDP length 0 over IPv6, junk",
            v6(junk(64)).with(|p| p.udp_len = Some(0)),
            DropType,
        ),
        case(
            "UDP length cuts a good message",
            v4(initiation()).with(|p| p.udp_len = Some(155)),
            DropLength,
        ),
        case(
            "first fragment",
            v4(junk(64)).with(|p| p.fragment = 0x2000),
            PassFragment,
        ),
        case(
            "middle fragment",
            v4(junk(64)).with(|p| p.fragment = 0x2010),
            PassFragment,
        ),
        case(
            "last fragment",
            v4(junk(64)).with(|p| p.fragment = 0x0001),
            PassFragment,
        ),
        case(
            "don't fragment, junk",
            v4(junk(64)).with(|p| p.fragment = 0x4000),
            DropType,
        ),
        case(
            "reserved flag, junk",
            v4(junk(64)).with(|p| p.fragment = 0x8000),
            DropType,
        ),
        case(
            "TCP fragment",
            v4(junk(64)).with(|p| (p.fragment, p.protocol) = (0x2000, 6)),
            PassOther,
        ),
        case(
            "IPv6 fragment",
            v6(junk(64)).with(|p| p.protocol = 44),
            PassFragment,
        ),
        case(
            "hop-by-hop options",
            v6(junk(64)).with(|p| p.protocol = 0),
            PassExtension,
        ),
        case(
            "routing header",
            v6(junk(64)).with(|p| p.protocol = 43),
            PassExtension,
        ),
        case(
            "destination options",
            v6(junk(64)).with(|p| p.protocol = 60),
            PassExtension,
        ),
        case(
            "authentication header",
            v6(junk(64)).with(|p| p.protocol = 51),
            PassExtension,
        ),
        case(
            "mobility header",
            v6(junk(64)).with(|p| p.protocol = 135),
            PassExtension,
        ),
        case(
            "ESP over IPv6",
            v6(junk(64)).with(|p| p.protocol = 50),
            PassOther,
        ),
        case(
            "no next header",
            v6(junk(64)).with(|p| p.protocol = 59),
            PassOther,
        ),
        case(
            "version 4 in an IPv6 frame",
            v6(junk(64)).with(|p| p.version_ihl = Some(0x45)),
            PassOther,
        ),
        case(
            "IPv6 length beyond the frame",
            v6(junk(64)).with(|p| p.ip_len = Some(73)),
            PassOther,
        ),
        case(
            "IPv6 length 0",
            v6(junk(64)).with(|p| p.ip_len = Some(0)),
            PassOther,
        ),
    ]
}

/// With [`full`], the lists and the check of receivers.
fn sources_and_receivers() -> Vec<Case> {
    let from = |source, payload| packet(source, payload);
    let known = |kind, len| message_for(kind, len, 0x00_0107);
    let unknown = |kind, len| message_for(kind, len, 0x00_0108);
    let mut sender_known = unknown(2, 92);
    sender_known[4..8].copy_from_slice(&(0x0107u32 << 8).to_le_bytes());
    vec![
        case("good source", from("9.9.9.9", known(4, 64)), PassData),
        case("blocked", from("185.1.2.3", known(4, 64)), DropBlocked),
        case(
            "blocked initiation",
            from("185.1.255.255", initiation()),
            DropBlocked,
        ),
        case("just outside", from("185.2.0.0", known(4, 64)), PassData),
        case(
            "allowed inside a blocked prefix",
            from("185.1.9.9", known(4, 64)),
            PassData,
        ),
        case(
            "blocked inside an allowed prefix",
            from("185.1.9.200", known(4, 64)),
            DropBlocked,
        ),
        case("bogon", from("10.1.2.3", known(4, 64)), DropBogon),
        case(
            "loopback as source",
            from("127.0.0.1", initiation()),
            DropBogon,
        ),
        case(
            "multicast as source",
            from("224.0.0.1", known(4, 64)),
            DropBogon,
        ),
        case("allowed bogon", from("192.168.7.9", known(4, 64)), PassData),
        case(
            "blocked IPv6",
            from("2a02:dead::1", known(4, 64)),
            DropBlocked,
        ),
        case(
            "allowed IPv6 inside",
            from("2a02:dead:beef::1", known(4, 64)),
            PassData,
        ),
        case("bogon IPv6", from("fd00::7", known(4, 64)), DropBogon),
        case("link-local IPv6", from("fe80::7", initiation()), DropBogon),
        case("good IPv6", from(V6, known(4, 64)), PassData),
        case(
            "blocked, but not for us",
            from("185.1.2.3", junk(64)).with(|p| p.port = 53),
            PassOther,
        ),
        case(
            "blocked fragment",
            from("185.1.2.3", junk(64)).with(|p| p.fragment = 1),
            PassFragment,
        ),
        case("form before source", from("185.1.2.3", junk(64)), DropType),
        case("known response", v4(known(2, 92)), PassResponse),
        case("known cookie", v4(known(3, 64)), PassCookie),
        case("unknown data", v4(unknown(4, 64)), DropReceiver),
        case("unknown response", v4(unknown(2, 92)), DropReceiver),
        case(
            "response that names us as sender only",
            v4(sender_known),
            DropReceiver,
        ),
        case("unknown cookie", v6(unknown(3, 64)), DropReceiver),
        case("receiver 0", v4(message_for(4, 32, 0)), DropReceiver),
        case(
            "other session of a known receiver",
            v4(message_for(4, 32, 0x0107)),
            PassData,
        ),
        case(
            "an initiation has no receiver",
            v4(initiation()),
            PassInitiation,
        ),
        train(
            "train for nobody",
            64,
            &[unknown(4, 64), unknown(4, 64)],
            DropReceiver,
        ),
        train(
            "train with one known",
            64,
            &[unknown(4, 64), unknown(4, 64), known(4, 64)],
            PassMixed,
        ),
        train(
            "train with one unknown",
            64,
            &[known(4, 64), unknown(4, 64)],
            PassData,
        ),
    ]
}

fn trains() -> Vec<Case> {
    let many = |datagram: Vec<u8>, n: usize| vec![datagram; n];
    vec![
        train("data", 200, &many(data(200), 5), PassData),
        train(
            "data with a short last",
            200,
            &[data(200), data(200), data(40)],
            PassData,
        ),
        train(
            "data with a last that is junk",
            200,
            &[data(200), data(200), junk(9)],
            PassData,
        ),
        train("junk", 200, &many(junk(200), 5), DropType),
        train(
            "junk with a short last",
            200,
            &[junk(200), junk(9)],
            DropType,
        ),
        train("junk before data", 200, &[junk(200), data(200)], PassMixed),
        train(
            "junk before a short good last",
            200,
            &[junk(200), junk(200), message(3, 64)],
            PassMixed,
        ),
        train("data before junk", 200, &[data(200), junk(200)], PassData),
        train("initiations", 148, &many(initiation(), 6), PassInitiation),
        train(
            "initiation as last",
            200,
            &[data(200), initiation()],
            PassData,
        ),
        train(
            "junk before an initiation",
            148,
            &[junk(148), initiation()],
            PassMixed,
        ),
        train("responses", 92, &many(message(2, 92), 3), PassResponse),
        train("cookies", 64, &many(message(3, 64), 3), PassCookie),
        train(
            "initiations too long",
            150,
            &many(message(1, 150), 3),
            DropLength,
        ),
        train("data too short", 16, &many(data(16), 20), DropLength),
        train("one byte each", 1, &[junk(100)], DropType),
        train(
            "more datagrams than any train has",
            1,
            &[junk(200)],
            PassMixed,
        ),
        train(
            "as many as a train may have",
            8,
            &many(junk(8), 128),
            DropType,
        ),
        train("train of one", 148, &[initiation()], PassInitiation),
        train(
            "datagram size above the payload",
            1400,
            &[initiation()],
            PassInitiation,
        ),
        train("datagram size above junk", 1400, &[junk(148)], DropType),
        Case {
            gso_size: 92,
            ..case(
                "train over IPv6",
                v6(many(message(2, 92), 3).concat()),
                PassResponse,
            )
        },
        Case {
            gso_size: 92,
            ..case(
                "junk train over IPv6",
                v6(many(junk(92), 3).concat()),
                DropType,
            )
        },
    ]
}

/// Ports alone.
fn plain() -> WanConfig {
    WanConfig {
        ports: vec![PORT, 443],
        ..WanConfig::default()
    }
}

/// Ports, lists and known receivers.
fn full() -> WanConfig {
    let mut config = WanConfig {
        known_receivers: Some(vec![1, 0x0107, 0xff_ffff]),
        ..plain()
    };
    let prefixes =
        |texts: &[&str]| -> Vec<_> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    config.sources.add_bogons();
    let blocked = ["185.1.0.0/16", "185.1.9.128/25", "2a02:dead::/32"];
    config
        .sources
        .extend(prefixes(&blocked), SourceVerdict::Blocked);
    let allowed = ["185.1.9.0/24", "192.168.7.0/24", "2a02:dead:beef::/48"];
    config
        .sources
        .extend(prefixes(&allowed), SourceVerdict::Allowed);
    config
}

/// The entries that can see a row, each with the frame it sees.
fn views(case: &Case) -> Vec<(Entry, Vec<u8>, WanReason)> {
    let mut views = Vec::new();
    let version = match case.frame[12..14] {
        [8, 0] => Some(4),
        [0x86, 0xdd] => Some(6),
        _ => None,
    };
    // Newer kernels refuse to try traffic control with less than an IP header behind an EtherType of IP.
    let header_len = match version {
        Some(4) => 20,
        Some(_) => 40,
        None => 0,
    };
    if case.frame.len() >= 14 + header_len {
        views.push((Entry::Tc, case.frame.clone(), case.want));
    }
    if case.gso_size == 0 {
        views.push((Entry::XdpNative, case.frame.clone(), case.want));
        views.push((Entry::XdpGeneric, case.frame.clone(), case.generic));
    }
    // Without link header: where the protocol is IP's, and its version says the same.
    let ip = &case.frame[14..];
    if ip.len() >= 14 && Some(ip[0] >> 4) == version {
        views.push((Entry::TcIp, ip.to_vec(), case.want));
    }
    views
}

fn tables() -> Vec<(WanConfig, Vec<Case>)> {
    vec![
        (plain(), forms()),
        (plain(), headers()),
        (plain(), trains()),
        (full(), sources_and_receivers()),
    ]
}

#[test]
fn the_twin_judges_every_frame_of_the_table() {
    let (mut rows, mut failures) = (0, Vec::new());
    for (config, cases) in tables() {
        let mut twin = WanTwin::new(&config);
        for case in cases {
            for (entry, bytes, want) in views(&case) {
                let frame = Frame {
                    bytes: &bytes,
                    gso_size: case.gso_size,
                };
                let verdict = twin.judge(entry, frame, 0);
                if verdict.reason != want {
                    failures.push(format!(
                        "{} at {entry:?}: {:?} instead of {want:?}",
                        case.name, verdict.reason
                    ));
                }
            }
            rows += 1;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(rows >= 150, "{rows} rows");
}

#[test]
fn the_programs_judge_every_frame_of_the_table() {
    if !common::can_load() {
        return;
    }
    let (mut runs, mut failures) = (0, Vec::new());
    for (config, cases) in tables() {
        let mut filter = WanFilter::load(&config).unwrap();
        for case in cases {
            for (entry, bytes, want) in views(&case) {
                let frame = Frame {
                    bytes: &bytes,
                    gso_size: case.gso_size,
                };
                let before = filter.stats().unwrap();
                let trial = match filter.trial(entry, frame, 1) {
                    Ok(trial) => trial,
                    Err(error) => {
                        failures.push(format!("{} at {entry:?}: {error}", case.name));
                        continue;
                    }
                };
                let after = filter.stats().unwrap();
                runs += 1;
                let counted: Vec<_> = after
                    .reasons()
                    .filter(|(reason, counter)| counter.packets != before.of(*reason).packets)
                    .map(|(reason, counter)| {
                        let was = before.of(reason);
                        (
                            reason,
                            counter.packets - was.packets,
                            counter.bytes - was.bytes,
                        )
                    })
                    .collect();
                let wanted = [(want, 1, bytes.len() as u64)];
                if counted != wanted || trial.dropped != want.is_drop() || !after.adds_up() {
                    failures.push(format!(
                        "{} at {entry:?}: {counted:?} (dropped: {}) instead of {wanted:?}",
                        case.name, trial.dropped
                    ));
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
