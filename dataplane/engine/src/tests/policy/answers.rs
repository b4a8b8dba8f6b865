//! What the operator and the sender are told of a denied packet: counts, events, refusals.

use patronus_packet::parse;

use super::*;
use crate::sim::peer_id;

#[test]
fn packets_and_connections_are_counted_under_their_rule() {
    let mut net = pair_with(0xa1, A, &[B_443]);
    for port in [80, 81] {
        for _ in 0..3 {
            assert!(!arrives(&mut net, A, &syn(A, B, (1000, port))));
        }
    }
    let isolation = rule_number(&policy(&[B_443]).table, "b/https", None);
    let expected = RuleCount {
        rule: isolation,
        connections: 2,
        packets: 6,
        audited: 0,
        last_s: 0,
    };
    assert_eq!(counts(&net, A), [expected]);
    // A reload that changes nothing makes no new connections.
    net.edit(A, |_| {});
    assert!(!arrives(&mut net, A, &syn(A, B, (1000, 80))));
    assert_eq!(
        counts(&net, A),
        [RuleCount {
            packets: 7,
            ..expected
        }]
    );
}

#[test]
fn an_event_tells_who_was_refused_once_a_second_for_a_rule() {
    let mut net = pair_with(0xa2, B, &[B_443]);
    net.site_mut(B).events.clear();
    let drops = drops_during(&mut net, B, |net| {
        for port in 1..=20 {
            net.send(A, 0, &syn(A, B, (port, 80)).build());
        }
        net.settle();
    });
    assert_eq!(drops, [(DropReason::PolicyDeniedIn, 20)]);
    let told = denials(&mut net, B);
    let [denial] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((denial.key.src, denial.key.dst_port), (host(A, 1), 80));
    assert_eq!(
        (denial.peer, denial.opened_by),
        (peer_id(A), OpenedBy::Remote)
    );
    assert_eq!(denial.direction, patronus_policy::Direction::Ingress);
    assert!(!denial.is_audit && denial.rule.is_some());
    assert_eq!(net.site(B).counters().denials_untold, 19);
    net.run_for(Duration::from_secs(2));
    assert!(!arrives(&mut net, A, &syn(A, B, (21, 80))));
    assert_eq!(denials(&mut net, B).len(), 1);
}

#[test]
fn events_of_many_rules_are_limited_together() {
    let policies: Vec<String> = (0..200)
        .map(|number| {
            format!(
                "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, \
                 metadata: {{name: p{number}}}, spec: {{tier: Admin, priority: {number}, \
                 subject: {{namespaces: {{}}}}, ingress: [{{action: Deny, \
                 from: [{{namespaces: {{}}}}], \
                 protocols: [{{tcp: {{destinationPort: {{number: {}}}}}}}]}}]}}}}",
                1000 + number
            )
        })
        .collect();
    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
    let mut net = pair_with(0xa3, A, &policies);
    for port in 0..200 {
        net.send(A, 0, &syn(A, B, (1, 1000 + port)).build());
    }
    let (told, counts) = (denials(&mut net, A).len() as u64, counts(&net, A));
    assert_eq!(counts.len(), 200);
    assert!((20..=60).contains(&told), "{told} events at once");
    assert_eq!(net.site(A).counters().denials_untold, 200 - told);
}

#[test]
fn audit_lets_pass_and_tells() {
    let audit = in_audit(B_SHUT);
    let mut net = pair_with(0xa4, A, &[&audit]);
    let packet = Packet::udp(A, B, b"x");
    for _ in 0..3 {
        assert!(arrives(&mut net, A, &packet) && arrives(&mut net, B, &back(&packet)));
    }
    let told = denials(&mut net, A);
    assert!(matches!(&told[..], [denial] if denial.is_audit), "{told:?}");
    let rule = rule_number(&table(&[&audit]), "b/shut", None);
    let expected = RuleCount {
        rule,
        connections: 0,
        packets: 0,
        audited: 1,
        last_s: 0,
    };
    assert_eq!(counts(&net, A), [expected]);
}

fn rejecting(seed: u64, at: SiteId, policies: &[&str]) -> Net {
    let mut net = pair(seed);
    let refusal = Refusal::Reject;
    net.set_policy(
        at,
        Some(Policy {
            refusal,
            ..policy(policies)
        }),
    );
    net
}

/// Sends a packet that is denied at `at`, and takes what its sender is told.
fn answer_to(net: &mut Net, from: SiteId, packet: &[u8]) -> Vec<Vec<u8>> {
    net.take_delivered(from);
    assert!(!arrives_as(net, from, 0, packet));
    net.take_delivered(from)
}

/// Checks an answer's checksums and ends, and returns what is behind its IP header.
#[track_caller]
fn body_of(answer: &[u8], to: &Packet) -> Vec<u8> {
    let info = parse(answer).unwrap();
    assert_eq!((info.key.src, info.key.dst), (to.dst, to.src));
    let at = usize::from(info.transport_offset);
    let transport = &answer[at..];
    let pseudo = match info.protocol() {
        ICMP => checksum::Sum::ZERO,
        protocol => checksum::pseudo_header(to.dst, to.src, protocol, transport.len() as u16),
    };
    assert_eq!(pseudo.plus(checksum::sum(transport)).fold(), 0xffff);
    if to.src.is_ipv4() {
        assert_eq!(checksum::sum(&answer[..at]).fold(), 0xffff);
    }
    transport.to_vec()
}

#[test]
fn a_refused_connection_attempt_is_reset_at_either_end() {
    for at in [A, B] {
        let mut net = rejecting(0xa5, at, &[B_SHUT]);
        for opener in [syn(A, B, (1000, 443)), syn(A, B, (1000, 443)).over_v6()] {
            let answers = answer_to(&mut net, A, &opener.build());
            assert_eq!(answers.len(), 1, "at {at:?}");
            let reset = body_of(&answers[0], &opener);
            assert_eq!(reset[..4], [1, 187, 3, 232], "ports change places");
            assert_eq!(reset[4..8], 0u32.to_be_bytes());
            assert_eq!(reset[8..12], (opener.seq + 1).to_be_bytes());
            assert_eq!(reset[13], RST | ACK);
            let data = Packet {
                flags: ACK,
                payload: vec![7; 9],
                ..opener.clone()
            };
            let answers = answer_to(&mut net, A, &data.build());
            let reset = body_of(&answers[0], &opener);
            assert_eq!((&reset[4..8], reset[13]), (&2000u32.to_be_bytes()[..], RST));
            let rst = Packet {
                flags: RST,
                ..opener
            };
            assert!(
                answer_to(&mut net, A, &rst.build()).is_empty(),
                "no reset for a reset"
            );
        }
        assert_eq!(net.site(at).counters().refusals, 4);
    }
}

#[test]
fn other_refused_packets_get_an_icmp_error_that_quotes_them() {
    for at in [A, B] {
        let mut net = rejecting(0xa6, at, &[B_SHUT]);
        let small = Packet::udp(A, B, &payload(1, 40));
        let big = Packet::udp(A, B, &payload(1, 1300));
        for (packet, kind, code, len_max) in [
            (small.clone(), 3, 13, 576),
            (big.clone(), 3, 13, 576),
            (small.over_v6(), 1, 1, 1280),
            (big.over_v6(), 1, 1, 1280),
        ] {
            let sent = packet.build();
            let answers = answer_to(&mut net, A, &sent);
            assert_eq!(answers.len(), 1, "at {at:?}: {packet:?}");
            let error = body_of(&answers[0], &packet);
            assert_eq!(error[..2], [kind, code]);
            let header = packet.transport_offset();
            assert_eq!(answers[0].len(), len_max.min(sent.len() + header + 8));
            assert_eq!(error[8..], sent[..error.len() - 8]);
        }
    }
}

#[test]
fn nobody_is_told_of_errors_fragments_and_groups() {
    let mut net = rejecting(0xa7, A, &[B_SHUT, A_KEPT_IN]);
    net.edit_peer(A, peer_id(B), |spec| {
        spec.allowed_ips.push("224.0.0.0/4".parse().unwrap());
        spec.allowed_ips.push("255.255.255.255/32".parse().unwrap());
    });
    let udp = Packet::udp(A, B, b"x");
    let mut fragment = udp.build();
    fragment[6] = 0x20;
    let mut later = udp.build();
    later[6..8].copy_from_slice(&[0, 9]);
    let error = icmp(host(A, 1), host(B, 1), &[3, 3, 0, 0, 0, 0, 0, 0]);
    let group = Packet {
        dst: [224, 0, 0, 5].into(),
        ..udp.clone()
    }
    .build();
    let broadcast = Packet {
        dst: [255; 4].into(),
        ..udp.clone()
    }
    .build();
    let drops = drops_during(&mut net, A, |net| {
        for packet in [fragment, later, error, group, broadcast] {
            assert!(answer_to(net, A, &packet).is_empty());
        }
    });
    assert_eq!(drops, [(DropReason::PolicyDeniedOut, 5)]);
    assert_eq!(net.site(A).counters().refusals, 0);
}

#[test]
fn refusals_come_at_a_limited_rate_and_the_books_balance() {
    for at in [A, B] {
        let mut net = rejecting(0xa8, at, &[B_SHUT]);
        net.take_delivered(A);
        for port in 0..300 {
            net.send(A, 0, &syn(A, B, (port, 443)).build());
        }
        net.run_for(ROUND);
        let answers = net.take_delivered(A).len() as u64;
        let counters = net.site(at).counters();
        assert!((40..=60).contains(&answers), "{answers} at once");
        assert_eq!(
            (counters.refusals, counters.refusals_held_back),
            (answers, 300 - answers)
        );
        net.run_for(Duration::from_secs(1));
        assert_eq!(
            answer_to(&mut net, A, &syn(A, B, (999, 443)).build()).len(),
            1
        );
    }
}
