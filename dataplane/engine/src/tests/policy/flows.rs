//! Connections, their replies, and what a change of the configuration does to them.

use super::*;
use crate::sim::peer_id;

#[test]
fn isolation_holds_at_the_gateway_of_either_end() {
    for (at, reason) in [
        (A, DropReason::PolicyDeniedOut),
        (B, DropReason::PolicyDeniedIn),
    ] {
        for policies in [&[B_SHUT][..], &[A_KEPT_IN]] {
            let mut net = pair_with(0xf1, at, policies);
            let drops = drops_during(&mut net, at, |net| {
                assert!(!arrives(net, A, &syn(A, B, (1000, 443))));
                assert!(!arrives(net, A, &Packet::udp(A, B, b"x").over_v6()));
            });
            assert_eq!(drops, [(reason, 2)], "{policies:?}");
            assert!(arrives(&mut net, B, &syn(B, A, (1000, 443))));
        }
    }
}

#[test]
fn replies_pass_and_a_packet_that_only_looks_like_one_does_not() {
    for workers in 1..=2 {
        let options = SiteOptions {
            workers,
            ..SiteOptions::default()
        };
        let mut net = pair_of(0xf2, options);
        // `b` may be reached on 443, `a` not at all.
        net.set_policy(A, Some(policy(&[B_443, A_SHUT])));
        for packet in [
            udp(A, B),
            syn(A, B, (2000, 443)),
            syn(A, B, (2000, 443)).over_v6(),
        ] {
            assert!(!arrives(&mut net, B, &back(&packet)), "no flow yet");
            assert!(arrives(&mut net, A, &packet), "{packet:?}");
            let reply = if packet.protocol == TCP {
                syn_ack(&packet)
            } else {
                back(&packet)
            };
            assert!(arrives(&mut net, B, &reply), "{reply:?}");
            // The kernel may hand the reply's reply to any worker.
            let last = middle(&packet).build();
            assert!(arrives_as(&mut net, A, workers - 1, &last));
        }
        assert!(!arrives(&mut net, A, &syn(A, B, (2000, 80))));
    }
}

#[test]
fn a_syn_from_the_other_side_is_a_connection_of_its_own() {
    for workers in 1..=2 {
        let options = SiteOptions {
            workers,
            ..SiteOptions::default()
        };
        let mut net = pair_of(0xf3, options);
        net.set_policy(A, Some(policy(&[B_443, A_SHUT])));
        let opener = syn(A, B, (2000, 443));
        assert!(arrives_as(&mut net, A, workers - 1, &opener.build()));
        assert!(arrives(&mut net, B, &syn_ack(&opener)));
        // Port reuse does not walk in backwards, in no worker, and harms the connection in none.
        let walk_in = Packet {
            flags: SYN,
            ..back(&opener)
        };
        for _ in 0..3 {
            assert!(!arrives(&mut net, B, &walk_in));
        }
        assert!(arrives(&mut net, B, &middle(&back(&opener))));
        assert!(arrives_as(
            &mut net,
            A,
            workers - 1,
            &middle(&opener).build()
        ));
    }
}

#[test]
fn a_syn_that_may_come_in_takes_the_flow_over() {
    let mut net = pair_with(0xf4, A, &[B_443]);
    let opener = syn(A, B, (2000, 443));
    assert!(arrives(&mut net, A, &opener));
    assert!(arrives(
        &mut net,
        B,
        &Packet {
            flags: SYN,
            ..back(&opener)
        }
    ));
    let flow = net
        .site(A)
        .engine(0)
        .flow_table()
        .flows(0)
        .find(|it| it.key.src_port == 2000);
    assert_eq!(flow.map(|it| it.opened_by), Some(OpenedBy::Remote));
}

#[test]
fn a_connection_that_comes_in_passes_although_the_same_ports_were_refused_the_other_way() {
    for workers in 1..=2 {
        let options = SiteOptions {
            workers,
            ..SiteOptions::default()
        };
        let mut net = pair_of(0xf5, options);
        net.set_policy(A, Some(policy(&[B_SHUT])));
        for packet in [
            Packet {
                ports: (500, 500),
                ..Packet::udp(A, B, b"x")
            },
            syn(A, B, (2000, 443)),
        ] {
            let from_b = back(&packet);
            assert!(!arrives_as(&mut net, A, workers - 1, &packet.build()));
            assert!(arrives(&mut net, B, &from_b));
            let reply = if packet.protocol == TCP {
                syn_ack(&from_b)
            } else {
                packet
            };
            assert!(
                arrives_as(&mut net, A, workers - 1, &reply.build()),
                "{workers} {reply:?}"
            );
        }
    }
}

#[test]
fn a_sibling_s_answer_counts() {
    let options = SiteOptions {
        workers: 2,
        ..SiteOptions::default()
    };
    let mut net = pair_of(0xf6, options);
    net.set_policy(A, Some(policy(&[B_443, A_SHUT])));
    let denied = Packet {
        ports: (7, 80),
        ..Packet::udp(A, B, b"x")
    };
    for worker in [1, 0] {
        assert!(!arrives_as(&mut net, A, worker, &denied.build()));
    }
    let shut = rule_number(&net_table(&net, A), "b/https", None);
    let sum: u64 = counts(&net, A)
        .iter()
        .filter(|it| it.rule == shut)
        .map(|it| it.connections)
        .sum();
    assert_eq!(sum, 1, "one connection, whoever saw its packets");
}

fn net_table(net: &Net, site: SiteId) -> Arc<PolicyTable> {
    let snapshot = net.site(site).engine(0).snapshot().clone();
    snapshot.policy().expect("it was set").table.clone()
}

#[test]
fn a_change_cuts_what_it_denies_at_the_next_packet_of_either_side() {
    for first in [A, B] {
        for opener in [udp(A, B), syn(A, B, (2000, 443))] {
            let mut net = pair_with(0xf7, A, &[B_OPEN]);
            assert!(arrives(&mut net, A, &opener));
            let there = middle(&opener);
            let packet = |from| {
                if from == A {
                    there.clone()
                } else {
                    back(&there)
                }
            };
            assert!(arrives(&mut net, B, &packet(B)));
            net.set_policy(A, Some(policy(&[B_SHUT])));
            let other = if first == A { B } else { A };
            for from in [first, other, first, other] {
                assert!(
                    !arrives(&mut net, from, &packet(from)),
                    "{first:?} {from:?}"
                );
            }
            let flow = net
                .site(A)
                .engine(0)
                .flow_table()
                .flows(0)
                .find(|it| it.key.src_port == 2000);
            let shut = rule_number(&net_table(&net, A), "b/shut", None);
            assert_eq!(flow.map(|it| it.passage), Some(Passage::Cut(shut)));
            net.edit(A, |_| {});
            assert!(!arrives(&mut net, B, &packet(B)), "cut stays cut");
            // Allowed again, the connection goes on.
            net.set_policy(A, Some(policy(&[B_OPEN])));
            assert!(arrives(&mut net, first, &packet(first)));
            assert!(arrives(&mut net, other, &packet(other)));
        }
    }
}

#[test]
fn a_new_connection_may_come_in_over_a_cut_one() {
    let mut net = pair_with(0xf8, A, &[]);
    let opener = syn(A, B, (2000, 443));
    assert!(arrives(&mut net, A, &opener));
    net.set_policy(A, Some(policy(&[B_SHUT])));
    assert!(!arrives(&mut net, A, &middle(&opener)));
    let other = Packet {
        flags: SYN,
        ..back(&opener)
    };
    assert!(arrives(&mut net, B, &other));
    assert!(arrives(&mut net, A, &syn_ack(&other)));
}

#[test]
fn keep_established_keeps_connections_and_nothing_but_them() {
    let keep = |policies: &[&str]| Policy {
        keep_established: true,
        ..policy(policies)
    };
    let mut net = pair(0xf9);
    let opener = syn(A, B, (2000, 443));
    let refused = syn(A, B, (2001, 443));
    assert!(arrives(&mut net, A, &opener));
    for _ in 0..2 {
        net.set_policy(A, Some(keep(&[B_SHUT])));
        assert!(arrives(&mut net, B, &middle(&back(&opener))));
        assert!(arrives(&mut net, A, &middle(&opener)));
        // The same ports anew are a new connection, and so are others.
        assert!(!arrives(&mut net, A, &opener));
        assert!(!arrives(&mut net, A, &refused));
        assert!(
            arrives(&mut net, A, &middle(&opener)),
            "the old one goes on"
        );
    }
    net.set_policy(A, Some(policy(&[B_SHUT])));
    assert!(!arrives(&mut net, A, &middle(&opener)));
    net.set_policy(A, Some(keep(&[B_SHUT])));
    assert!(
        !arrives(&mut net, A, &middle(&opener)),
        "what was cut is not established"
    );
    net.set_policy(A, Some(keep(&[])));
    assert!(arrives(&mut net, A, &opener) && arrives(&mut net, A, &refused));
}

#[test]
fn keep_established_follows_the_routes() {
    let mut net = pair_with(0xfa, A, &[B_OPEN]);
    assert!(arrives(&mut net, A, &Packet::udp(A, B, b"x")));
    net.set_policy(
        A,
        Some(Policy {
            keep_established: true,
            ..policy(&[B_SHUT])
        }),
    );
    net.edit(A, |specs| {
        specs.get_mut(&peer_id(B)).unwrap().allowed_ips.clear()
    });
    let drops = drops_during(&mut net, A, |net| {
        assert!(!arrives(net, A, &Packet::udp(A, B, b"x")));
        assert!(!arrives(net, B, &Packet::udp(B, A, b"x")));
    });
    assert_eq!(
        drops,
        [(DropReason::NoRoute, 1), (DropReason::InnerSource, 1)]
    );
}

#[test]
fn without_policy_everything_passes_again() {
    let mut net = pair_with(0xfb, A, &[B_SHUT]);
    let packet = Packet::udp(A, B, b"x");
    assert!(!arrives(&mut net, A, &packet));
    net.set_policy(A, None);
    assert!(arrives(&mut net, A, &packet) && arrives(&mut net, B, &back(&packet)));
}

#[test]
fn a_superpacket_is_judged_once_and_dropped_whole() {
    let mut net = pair_with(0xfc, A, &[B_SHUT]);
    let big = Packet::tcp(A, B, &payload(1, 5000));
    let drops = drops_during(&mut net, A, |net| {
        net.send_frame(A, 0, big.superpacket(1000))
    });
    assert_eq!(drops, [(DropReason::PolicyDeniedOut, 6)]);
    let shut = rule_number(&net_table(&net, A), "b/shut", None);
    let expected = RuleCount {
        rule: shut,
        connections: 1,
        packets: 6,
        audited: 0,
        last_s: 0,
    };
    assert_eq!(counts(&net, A), [expected]);
}

#[test]
fn a_spoofed_packet_is_not_policy_s_business() {
    let mut net = pair_with(0xfd, A, &[A_SHUT]);
    let spoofed = Packet {
        src: [9, 9, 9, 9].into(),
        ..Packet::udp(B, A, b"x")
    };
    let drops = drops_during(&mut net, A, |net| {
        net.edit_peer(B, peer_id(A), |spec| {
            spec.allowed_ips.push("0.0.0.0/0".parse().unwrap())
        });
        assert!(!arrives(net, B, &spoofed));
    });
    assert_eq!(drops, [(DropReason::InnerSource, 1)]);
    assert!(counts(&net, A).is_empty());
}
