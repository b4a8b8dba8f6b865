//! ICMP, SCTP and fragments.

use super::*;

/// An error about `packet`, from its destination to its sender.
fn error_about(packet: &[u8], kind: u8, code: u8) -> Vec<u8> {
    let info = patronus_packet::parse(packet).unwrap();
    let quote = &packet[..packet.len().min(64)];
    let body = [&[kind, code, 0, 0, 0, 0, 5, 0][..], quote].concat();
    icmp(info.key.dst, info.key.src, &body)
}

#[test]
fn errors_about_an_allowed_flow_pass_and_others_are_judged_as_icmp() {
    for workers in 1..=2 {
        let options = SiteOptions {
            workers,
            ..SiteOptions::default()
        };
        let mut net = pair_of(0xe1, options);
        net.set_policy(A, Some(policy(&[B_443, A_SHUT])));
        let known = Packet::udp(A, B, b"x");
        let unknown = Packet {
            ports: (40_001, 443),
            ..known.clone()
        };
        let denied = Packet {
            ports: (40_000, 80),
            ..known.clone()
        };
        assert!(arrives_as(&mut net, A, workers - 1, &known.build()));
        assert!(!arrives_as(&mut net, A, workers - 1, &denied.build()));
        assert!(arrives_as(&mut net, A, 0, &known.clone().over_v6().build()));
        for (kind, code) in [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)] {
            let about = |packet: &Packet| error_about(&packet.build(), kind, code);
            assert!(arrives_as(&mut net, B, 0, &about(&known)), "{kind}");
            assert!(!arrives_as(&mut net, B, 0, &about(&unknown)), "{kind}");
            assert!(!arrives_as(&mut net, B, 0, &about(&denied)), "{kind}");
            // About a packet that this one's addressee did not send.
            let mut other = about(&known);
            other[19] = 2;
            assert!(!arrives_as(&mut net, B, 0, &other), "{kind}");
        }
        for kind in 1..=4 {
            let packet = known.clone().over_v6().build();
            assert!(
                arrives_as(&mut net, B, 0, &error_about(&packet, kind, 0)),
                "v6 {kind}"
            );
        }
        for kind in [4, 5] {
            assert!(
                !arrives_as(&mut net, B, 0, &error_about(&known.build(), kind, 0)),
                "{kind}"
            );
        }
        // From here, about a packet from there.
        let reply = back(&known).build();
        assert!(arrives_as(&mut net, B, 0, &reply));
        assert!(arrives_as(
            &mut net,
            A,
            workers - 1,
            &error_about(&reply, 3, 3)
        ));
        // An error opens nothing.
        let flows = (0..workers).map(|worker| {
            let table = net.site(A).engine(worker).flow_table();
            table.flows(0).filter(|it| it.key.protocol == ICMP).count()
        });
        assert_eq!(flows.sum::<usize>(), 0);
    }
}

#[test]
fn an_error_about_a_flow_that_was_cut_does_not_pass() {
    let mut net = pair_with(0xe2, A, &[B_OPEN, A_SHUT]);
    let known = Packet::udp(A, B, b"x");
    assert!(arrives(&mut net, A, &known));
    let error = error_about(&known.build(), 3, 4);
    net.set_policy(A, Some(policy(&[B_OPEN, A_SHUT])));
    assert!(
        arrives_as(&mut net, B, 0, &error),
        "judged anew by the error itself"
    );
    net.set_policy(A, Some(policy(&[B_SHUT, A_SHUT])));
    assert!(!arrives_as(&mut net, B, 0, &error), "not judged yet");
    assert!(!arrives(&mut net, A, &known));
    assert!(!arrives_as(&mut net, B, 0, &error), "cut");
}

#[test]
fn errors_to_hosts_that_nothing_isolates_pass() {
    let mut net = pair_with(0xe3, A, &[B_443]);
    let unknown = Packet::udp(A, B, b"x").build();
    assert!(arrives_as(&mut net, B, 0, &error_about(&unknown, 3, 3)));
}

#[test]
fn an_echo_follows_rules_without_ports_and_its_reply_follows_it() {
    let mut net = pair_with(0xe4, A, &[B_443, A_SHUT]);
    assert!(!arrives_as(&mut net, A, 0, &echo(A, B, 8, 1)));
    net.set_policy(A, Some(policy(&[B_OPEN, A_SHUT])));
    assert!(
        !arrives_as(&mut net, B, 0, &echo(B, A, 0, 2)),
        "nobody asked"
    );
    assert!(arrives_as(&mut net, A, 0, &echo(A, B, 8, 2)));
    assert!(arrives_as(&mut net, B, 0, &echo(B, A, 0, 2)));
    assert!(
        !arrives_as(&mut net, B, 0, &echo(B, A, 8, 2)),
        "a question is no answer"
    );
    assert!(arrives_as(&mut net, B, 0, &echo(B, A, 0, 2)));
}

fn sctp(from: SiteId, to: SiteId, ports: (u16, u16), chunk: u8) -> Vec<u8> {
    let mut body = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    body.extend([0, 0, 0, 1, 0, 0, 0, 0, chunk, 0, 0, 4]);
    let header = ip_header(host(from, 1), host(to, 1), SCTP, 3, body.len());
    [header, body].concat()
}

#[test]
fn an_init_opens_an_association_as_a_syn_does_a_connection() {
    let mut net = pair_with(0xe5, A, &[B_443, A_SHUT]);
    assert!(!arrives_as(&mut net, A, 0, &sctp(A, B, (9, 80), 1)));
    assert!(arrives_as(&mut net, A, 0, &sctp(A, B, (9, 443), 1)));
    assert!(arrives_as(&mut net, B, 0, &sctp(B, A, (443, 9), 2)));
    assert!(!arrives_as(&mut net, B, 0, &sctp(B, A, (443, 9), 1)));
    assert!(arrives_as(&mut net, B, 0, &sctp(B, A, (443, 9), 0)));
}

#[test]
fn a_protocol_without_ports_follows_rules_without_ports() {
    let gre = |from, to| {
        let header = ip_header(host(from, 1), host(to, 1), 47, 3, 4);
        [header, vec![0; 4]].concat()
    };
    let mut net = pair_with(0xe6, A, &[B_443]);
    assert!(!arrives_as(&mut net, A, 0, &gre(A, B)));
    net.set_policy(A, Some(policy(&[B_OPEN, A_SHUT])));
    assert!(arrives_as(&mut net, A, 0, &gre(A, B)));
    assert!(arrives_as(&mut net, B, 0, &gre(B, A)));
}

/// The first and the second fragment of a UDP datagram.
fn fragments(packet: &Packet, id: u16) -> [Vec<u8>; 2] {
    let whole = Packet {
        id,
        payload: payload(1, 28),
        ..packet.clone()
    }
    .build();
    let cut = 20 + 24;
    let piece = |bytes: &[u8], flags_and_offset: u16| {
        let mut header = whole[..20].to_vec();
        header[2..4].copy_from_slice(&((20 + bytes.len()) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum::sum(&header).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&header[..], bytes].concat()
    };
    [piece(&whole[20..cut], 0x2000), piece(&whole[cut..], 3)]
}

#[test]
fn later_fragments_follow_the_first_one() {
    let mut net = pair_with(0xe7, A, &[B_443, A_SHUT]);
    let allowed = Packet::udp(A, B, b"");
    let [first, later] = fragments(&allowed, 1);
    assert!(!arrives_as(&mut net, A, 0, &later), "ahead of the first");
    assert!(arrives_as(&mut net, A, 0, &first));
    assert!(arrives_as(&mut net, A, 0, &later));
    assert!(
        !arrives_as(&mut net, A, 0, &fragments(&allowed, 2)[1]),
        "of another packet"
    );
    let [first, later] = fragments(&back(&allowed), 3);
    assert!(!arrives_as(&mut net, B, 0, &later));
    assert!(arrives_as(&mut net, B, 0, &first), "a reply");
    assert!(arrives_as(&mut net, B, 0, &later));
    let denied = Packet {
        ports: (1, 80),
        ..allowed.clone()
    };
    for fragment in fragments(&denied, 4) {
        assert!(!arrives_as(&mut net, A, 0, &fragment));
    }
    // A change counts for the rest of a packet as well, and so does time.
    let [first, later] = fragments(&allowed, 5);
    assert!(arrives_as(&mut net, A, 0, &first));
    net.set_policy(A, Some(policy(&[B_SHUT, A_SHUT])));
    assert!(!arrives_as(&mut net, A, 0, &later));
    net.set_policy(A, Some(policy(&[B_443, A_SHUT])));
    assert!(arrives_as(&mut net, A, 0, &first));
    net.run_for(Duration::from_secs(32));
    assert!(!arrives_as(&mut net, A, 0, &later));
}

#[test]
fn later_fragments_pass_where_their_whole_protocol_may() {
    let mut net = pair_with(0xe8, A, &[B_OPEN]);
    assert!(arrives_as(
        &mut net,
        A,
        0,
        &fragments(&Packet::udp(A, B, b""), 1)[1]
    ));
    assert_eq!(
        net.site(A)
            .engine(0)
            .flow_table()
            .flows(0)
            .filter(|it| it.key.src_port == 0)
            .count(),
        0
    );
}
