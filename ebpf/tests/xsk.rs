//! The redirecting program: frames through the kernel (`BPF_PROG_TEST_RUN`) against what it is to take.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use etherparse::PacketBuilder;
use patronus_ebpf::{LoadError, XskRedirect, objects};

const OURS_V4: &str = "192.0.2.1:51820";
const OURS_V6: &str = "[2001:db8::1]:51820";
/// Transport data with 32 B behind its header.
const DATA: [u8; 4] = [4, 0, 0, 0];

fn load(test: &str) -> Option<XskRedirect> {
    match XskRedirect::load() {
        Ok(redirect) => Some(redirect),
        Err(LoadError::NotPermitted { why }) => {
            let required = std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS");
            assert!(
                required.is_none_or(|value| value != "1"),
                "{test} may not be skipped: {why}"
            );
            println!("skipped {test}: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn message(start: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0x5a; 48];
    message[..4].copy_from_slice(&start);
    message
}

fn frame(to: &str, payload: &[u8]) -> Vec<u8> {
    let to: SocketAddr = to.parse().unwrap();
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut bytes = Vec::new();
    match to {
        SocketAddr::V4(to) => ethernet
            .ipv4([198, 51, 100, 7], to.ip().octets(), 60)
            .udp(4000, to.port())
            .write(&mut bytes, payload)
            .unwrap(),
        SocketAddr::V6(to) => ethernet
            .ipv6([0x20; 16], to.ip().octets(), 60)
            .udp(4000, to.port())
            .write(&mut bytes, payload)
            .unwrap(),
    }
    bytes
}

/// A frame with bytes changed.
fn with(mut frame: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        frame[*at] = *byte;
    }
    frame
}

/// A VLAN tag in front of what the frame holds.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}

#[test]
fn only_transport_data_to_our_ends_is_taken() {
    let Some(mut redirect) = load("only_transport_data_to_our_ends_is_taken") else {
        return;
    };
    let ends = [OURS_V4, OURS_V6, "192.0.2.1:40001"];
    redirect
        .set_ends(ends.map(|end| end.parse().unwrap()))
        .unwrap();
    let data = message(DATA);
    let (v4, v6) = (frame(OURS_V4, &data), frame(OURS_V6, &data));
    let mut taken = 0;
    for (what, frame, ours) in [
        ("IPv4 data", v4.clone(), true),
        ("IPv6 data", v6.clone(), true),
        (
            "another port of ours",
            frame("192.0.2.1:40001", &data),
            true,
        ),
        ("keepalive", frame(OURS_V4, &message(DATA)[..32]), true),
        (
            "a datagram too long for IPv4",
            with(v4.clone(), &[(16, 0xff)]),
            true,
        ),
        (
            "an initiation",
            frame(OURS_V4, &message([1, 0, 0, 0])),
            false,
        ),
        ("a response", frame(OURS_V6, &message([2, 0, 0, 0])), false),
        ("a cookie", frame(OURS_V4, &message([3, 0, 0, 0])), false),
        (
            "reserved bytes",
            frame(OURS_V4, &message([4, 0, 1, 0])),
            false,
        ),
        ("four bytes are enough to see", frame(OURS_V4, &DATA), true),
        ("three bytes are not", frame(OURS_V4, &DATA[..3]), false),
        ("no payload", frame(OURS_V6, &[]), false),
        (
            "a port that is nobody's",
            frame("192.0.2.1:51821", &data),
            false,
        ),
        (
            "the port of another family",
            frame("[2001:db8::1]:40001", &data),
            false,
        ),
        (
            "an address behind us",
            frame("192.0.2.2:51820", &data),
            false,
        ),
        (
            "an IPv6 address behind us",
            frame("[2001:db8::2]:51820", &data),
            false,
        ),
        (
            "the mapped address",
            frame("[::ffff:192.0.2.1]:51820", &data),
            false,
        ),
        ("more fragments", with(v4.clone(), &[(20, 0x20)]), false),
        ("a fragment's offset", with(v4.clone(), &[(21, 1)]), false),
        ("do not fragment", with(v4.clone(), &[(20, 0x40)]), true),
        ("options", with(v4.clone(), &[(14, 0x46)]), false),
        ("TCP", with(v4.clone(), &[(23, 6)]), false),
        ("an extension header", with(v6.clone(), &[(20, 0)]), false),
        ("a VLAN tag", tagged(&v4), false),
        ("ARP", with(v4.clone(), &[(13, 6)]), false),
        (
            "IPv6 behind IPv4's type",
            with(v6.clone(), &[(12, 8), (13, 0)]),
            false,
        ),
    ] {
        assert_eq!(redirect.is_ours(&frame).unwrap(), ours, "{what}");
        taken += u64::from(ours);
    }
    let counts = redirect.counts().unwrap();
    assert_eq!((counts.no_socket, counts.redirected), (taken, 0));
    for len in 14..v4.len() {
        assert_eq!(
            redirect.is_ours(&v4[..len]).unwrap(),
            len >= 46,
            "{len} bytes"
        );
    }

    redirect.set_ends([OURS_V6.parse().unwrap()]).unwrap();
    assert!(!redirect.is_ours(&v4).unwrap() && redirect.is_ours(&v6).unwrap());
}

#[test]
fn the_object_has_the_maps_that_the_loader_fills() {
    let object = aya_obj::Object::parse(objects::XSK).unwrap();
    assert!(object.programs.contains_key("xsk_redirect"));
    for (name, key_size, value_size) in [
        ("XSK_SOCKETS", 4, 4),
        ("XSK_ENDS", 20, 4),
        ("XSK_COUNTERS", 4, 8),
    ] {
        let map = &object.maps[name];
        assert_eq!(
            (map.key_size(), map.value_size()),
            (key_size, value_size),
            "{name}"
        );
    }
    assert_eq!(size_of::<patronus_ebpf::XskEnd>(), 20);
}
