//! Every row of the table of bad messages: what each gets, that it is counted, and that it costs at most one datagram.

use std::time::Duration;

use patronus_discovery::announce::{Capabilities, ProtocolRange};
use patronus_discovery::machine::{
    Approval, Arrival, Clash, Door, Drop, Event, InterfaceId, Now, Severity, Transmit,
    UNVERIFIED_MAX,
};
use patronus_discovery::{
    Announcement, DiscoveryKey, Endpoint, EndpointKind, Endpoints, Fingerprint, Message,
    MessageKind, NetworkId, Signed, SiteKey, Stamp, WireGuardKeys,
};
use rand_core::RngCore;

use crate::network::{DAY, Network, Papers, START, TestRng, endpoint, subject, validity};
use crate::pair::{Bench, LAN, Other, arrival, is_to, kind, kinds};

const SECOND: Duration = Duration::from_secs(1);

/// What a site might announce, to be spoiled.
fn announcement(papers: &Papers, network: NetworkId, now: Now) -> Announcement {
    Announcement {
        network,
        site: papers.id(),
        stamp: Stamp {
            boot_epoch: 5,
            sequence: 1,
        },
        issued_at: now.wall,
        ttl_s: 900,
        certificate: papers.certificate.fingerprint(),
        wireguard: WireGuardKeys::alone(papers.wireguard.current),
        capabilities: Capabilities::default(),
        protocol: ProtocolRange::OURS,
        prefixes_digest: [0; 32],
        policy_version: 0,
        revocation_state: 0,
        endpoints: Endpoints::default(),
    }
}

fn sealed(bench: &mut Bench, announcement: Announcement, key: &SiteKey) -> Vec<u8> {
    let signed = Signed::sign(announcement, key);
    Message::Announce(signed).seal(&bench.network.key, &mut bench.network.rng)
}

#[test]
fn another_magic_length_version_or_kind_is_counted_and_nothing_else() {
    let mut bench = Bench::new(1);
    let mut other = Other::new(&mut bench, "other", 2);
    let good = other.announcement_at(bench.now);
    let spoil = |at: usize, to: u8| {
        let mut bad = good.clone();
        bad[at] = to;
        bad
    };
    let cases = [
        (Drop::Magic, spoil(0, b'X')),
        (Drop::Version, spoil(4, 9)),
        (Drop::Kind, spoil(5, 200)),
        (Drop::Length, good[..20].to_vec()),
        (Drop::Length, vec![0; 1201]),
        (Drop::Length, good[..60].to_vec()),
    ];
    for (reason, datagram) in cases {
        let before = bench.dropped(reason);
        assert!(bench.receive(2, &datagram).is_empty());
        assert_eq!(bench.dropped(reason), before + 1, "{reason:?}");
    }
    assert_eq!(bench.counters().accepted, 0);
    assert_eq!(bench.machine.table_len(), (0, 0, 0));
}

#[test]
fn what_does_not_open_is_dropped_before_any_signature() {
    let mut bench = Bench::new(2);
    let mut other = Other::new(&mut bench, "other", 2);
    let mut bad = other.announcement_at(bench.now);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    assert!(bench.receive(2, &bad).is_empty());
    assert_eq!(bench.dropped(Drop::NotAuthentic), 1);

    let strangers = DiscoveryKey::generate(&mut TestRng(99));
    let content = announcement(&other.papers, bench.network.id(), bench.now);
    let foreign = Message::Announce(Signed::sign(content, &other.papers.key))
        .seal(&strangers, &mut TestRng(98));
    assert!(bench.receive(3, &foreign).is_empty());
    assert_eq!(bench.dropped(Drop::UnknownKey), 1);
}

#[test]
fn a_source_that_sends_too_much_is_cut_to_five_datagrams_a_second() {
    let mut bench = Bench::new(3);
    let mut other = Other::new(&mut bench, "other", 2);
    let mut bad = other.announcement_at(bench.now);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    for _ in 0..1000 {
        bench.receive(2, &bad);
    }
    let burst = bench.dropped(Drop::NotAuthentic);
    for _ in 0..1000 {
        bench.pass(Duration::from_millis(10));
        bench.receive(2, &bad);
    }
    let in_ten_seconds = bench.dropped(Drop::NotAuthentic) - burst;
    assert!(burst <= 20, "{burst}");
    assert!((48..=52).contains(&in_ten_seconds), "{in_ten_seconds}");
    assert_eq!(
        bench.dropped(Drop::SourceRate),
        2000 - burst - in_ten_seconds
    );
}

#[test]
fn all_strangers_together_get_two_hundred_looks_a_second_and_peers_are_heard_meanwhile() {
    let mut bench = Bench::new(4);
    let mut peer = Other::new(&mut bench, "peer", 2);
    peer.introduce(&mut bench);
    let mut junk = peer.announcement_at(bench.now);
    let last = junk.len() - 1;
    junk[last] ^= 1;
    let flood = |bench: &mut Bench, count: u32, from: u32| {
        for at in 0..count {
            let mut arrival = arrival(9);
            let source = std::net::Ipv4Addr::from(0xc0a8_1000 + from + at);
            arrival.source.set_ip(source.into());
            bench.arrive(arrival, &junk);
        }
    };
    flood(&mut bench, 5000, 0);
    let burst = bench.dropped(Drop::NotAuthentic);
    assert!(burst <= 600, "{burst}");
    for round in 0..100 {
        bench.pass(Duration::from_millis(100));
        flood(&mut bench, 100, 10_000 + round * 100);
    }
    let in_ten_seconds = bench.dropped(Drop::NotAuthentic) - burst;
    assert!((1980..=2020).contains(&in_ten_seconds), "{in_ten_seconds}");
    assert!(bench.machine.table_len().2 <= 4096);

    let accepted = bench.counters().accepted;
    let announcement = peer.announcement_at(bench.now);
    bench.receive(2, &announcement);
    assert_eq!(bench.counters().accepted, accepted + 1, "the peer is heard");
}

#[test]
fn an_unknown_certificate_is_asked_for_once_in_thirty_seconds_at_its_source() {
    let mut bench = Bench::new(5);
    let mut other = Other::new(&mut bench, "other", 2);
    let first = other.announcement_at(bench.now);
    let sent = bench.receive(2, &first);
    assert_eq!(kinds(&sent), [MessageKind::CertificateQuery]);
    assert!(is_to(&sent[0], 2));
    for _ in 0..5 {
        bench.pass(5 * SECOND);
        let again = other.announcement_at(bench.now);
        assert!(bench.receive(2, &again).is_empty());
    }
    bench.pass(6 * SECOND);
    let again = other.announcement_at(bench.now);
    assert_eq!(
        kinds(&bench.receive(2, &again)),
        [MessageKind::CertificateQuery]
    );
    assert_eq!(bench.dropped(Drop::UnknownCertificate), 7);
}

#[test]
fn the_answer_to_a_question_is_never_larger_than_the_question() {
    let mut bench = Bench::new(6);
    let mut other = Other::new(&mut bench, "other", 2);
    let announcement = loop {
        let due = bench.machine.poll_timeout().unwrap();
        bench.pass(due.saturating_duration_since(bench.now.instant));
        bench.machine.handle_timeout(bench.now);
        let said = bench.drain();
        let is_one = |it: &Transmit| kind(&it.datagram) == MessageKind::Announce;
        if let Some(found) = said.into_iter().find(is_one) {
            break found;
        }
    };
    let query = other.answer(&announcement.datagram, bench.now);
    assert_eq!(query.len(), 1);
    let answer = bench.receive(2, &query[0]);
    assert_eq!(kinds(&answer), [MessageKind::CertificateAnswer]);
    assert!(answer[0].datagram.len() <= query[0].len());
}

#[test]
fn a_site_that_is_not_approved_waits_for_the_operator() {
    let mut bench = Bench::with(7, |config| {
        config.approval = Approval::Operator {
            auto_groups: ["branches".parse().unwrap()].into(),
        };
    });
    let mut other = Other::new(&mut bench, "other", 2);
    let first = other.announcement_at(bench.now);
    other.talk(&mut bench, &first);
    assert!(!bench.is_peer(other.id()));
    assert_eq!(bench.machine.pending().count(), 1);
    assert_eq!(bench.told(|it| matches!(it, Event::Pending { .. })), 1);
    assert!(bench.machine.approve(other.id(), bench.now));
    assert!(bench.is_peer(other.id()));
    assert_eq!(bench.machine.pending().count(), 0);

    let mut grouped = subject("grouped");
    grouped.ha_group = Some("branches".parse().unwrap());
    let papers = bench.network.site(grouped);
    let mut grouped = Other::with(&mut bench, papers, 3);
    grouped.introduce(&mut bench);
}

#[test]
fn expired_early_and_revoked_certificates_are_dropped_and_told_once_an_hour() {
    let mut bench = Bench::new(8);
    let revoked = bench.network.named("revoked");
    for part in bench.network.revoke(1, &[revoked.id()], START) {
        bench.machine.revoke(part, bench.now).unwrap();
    }
    let mut expired = bench.network.named("expired");
    let past = validity(START - DAY * 40, 14);
    expired.certificate = bench
        .network
        .certify(&expired.key, subject("expired"), past);
    let mut early = bench.network.named("early");
    let future = validity(START + DAY * 3, 14);
    early.certificate = bench.network.certify(&early.key, subject("early"), future);
    let cases = [
        (expired, Drop::Expired),
        (early, Drop::NotYetValid),
        (revoked, Drop::Revoked),
    ];
    for (host, (papers, reason)) in (2..).zip(cases) {
        let mut other = Other::with(&mut bench, papers, host);
        let before = bench.events.len();
        for _ in 0..3 {
            bench.pass(40 * SECOND);
            let said = other.announcement_at(bench.now);
            other.talk(&mut bench, &said);
        }
        assert!(bench.dropped(reason) >= 3, "{reason:?}");
        assert!(!bench.is_peer(other.id()));
        let of_it = |event: &&Event| {
            matches!(
                event,
                Event::CertificateEnded { .. }
                    | Event::CertificateNotYetValid { .. }
                    | Event::Revoked { .. }
            )
        };
        let told: Vec<_> = bench.events[before..]
            .iter()
            .filter(of_it)
            .cloned()
            .collect();
        assert_eq!(told.len(), 1, "{reason:?} {told:?}");
        assert_eq!(told[0].severity(), Severity::Warning);
        bench.pass(3601 * SECOND);
        let said = other.announcement_at(bench.now);
        other.talk(&mut bench, &said);
        let told = bench.events[before..].iter().filter(of_it).count();
        assert_eq!(told, 2, "an hour later it is told again: {reason:?}");
    }
}

#[test]
fn what_is_not_newer_is_a_replay() {
    let mut bench = Bench::new(9);
    let mut other = Other::new(&mut bench, "other", 2);
    let old = other.announcement_at(bench.now);
    bench.pass(2 * SECOND);
    other.introduce(&mut bench);
    let accepted = bench.counters().accepted;
    let replays = bench.dropped(Drop::Replay);
    assert!(bench.receive(2, &old).is_empty());
    bench.pass(3 * SECOND);
    assert!(bench.receive(77, &old).is_empty());
    assert_eq!(bench.dropped(Drop::Replay), replays + 2);
    assert_eq!(bench.counters().accepted, accepted);
}

#[test]
fn first_contact_after_a_restart_needs_an_answer_to_a_challenge_in_two_seconds() {
    let mut bench = Bench::new(10);
    let mut other = Other::new(&mut bench, "other", 2);
    let first = other.announcement_at(bench.now);
    let query = bench.receive(2, &first);
    let certificate = other.answer(&query[0].datagram, bench.now);
    let challenge = bench.receive(2, &certificate[0]);
    assert_eq!(kinds(&challenge), [MessageKind::Challenge]);
    assert!(
        !bench.is_peer(other.id()),
        "a valid signature alone may be a replay"
    );
    let response = other.answer(&challenge[0].datagram, bench.now);
    bench.pass(Duration::from_millis(2001));
    assert!(bench.receive(2, &response[0]).is_empty());
    assert_eq!(bench.dropped(Drop::Unasked), 1);
    assert!(!bench.is_peer(other.id()));

    // It is asked again; in time this time.
    bench.machine.handle_timeout(bench.now);
    let sent = bench.drain();
    let challenge = sent
        .iter()
        .find(|it| kinds(std::slice::from_ref(it)) == [MessageKind::Challenge]);
    let response = other.answer(&challenge.unwrap().datagram, bench.now);
    bench.pass(Duration::from_millis(1900));
    bench.receive(2, &response[0]);
    assert!(bench.is_peer(other.id()));
    // The same answer again answers nothing.
    bench.receive(2, &response[0]);
    assert_eq!(bench.dropped(Drop::Unasked), 2);
}

#[test]
fn a_captured_announcement_gets_nobody_in_after_a_restart() {
    let mut bench = Bench::new(11);
    let mut other = Other::new(&mut bench, "other", 2);
    let captured = other.announcement_at(bench.now);
    other.introduce(&mut bench);
    let config = bench.network.config(&bench.papers.clone());
    let mut config = config;
    config.lans = vec![crate::network::lan(LAN.0)];
    let papers = bench.papers.clone();
    bench.machine = bench.network.machine(&papers, config, None, bench.now);
    let sent = bench.receive(66, &captured);
    assert_eq!(kinds(&sent), [MessageKind::CertificateQuery]);
    let certificate = Message::CertificateAnswer(Box::new(other.papers.certificate.clone()))
        .seal(&bench.network.key, &mut bench.network.rng);
    let sent = bench.receive(66, &certificate);
    assert_eq!(kinds(&sent), [MessageKind::Challenge]);
    for _ in 0..10 {
        bench.run(SECOND);
    }
    assert!(!bench.is_peer(other.id()));
}

#[test]
fn a_clock_that_is_far_off_costs_a_challenge_and_is_told() {
    let mut bench = Bench::new(12);
    let mut other = Other::new(&mut bench, "other", 2);
    let hour = Duration::from_secs(3600);
    let ahead = |now: Now| Now {
        wall: now.wall + hour,
        ..now
    };
    let first = other.announcement_at(ahead(bench.now));
    let mut to_bench = vec![first];
    let mut challenges = 0;
    for _ in 0..10 {
        let Some(datagram) = to_bench.pop() else {
            break;
        };
        for transmit in bench.receive(2, &datagram) {
            challenges +=
                usize::from(kinds(std::slice::from_ref(&transmit)) == [MessageKind::Challenge]);
            to_bench.extend(other.answer(&transmit.datagram, ahead(bench.now)));
        }
    }
    assert!(challenges >= 1);
    assert!(bench.is_peer(other.id()), "{:?}", bench.events);
    assert_eq!(
        bench.told(|it| matches!(it, Event::ClockSkew { offset_s: 3600, .. })),
        1
    );

    // The clock is known: what it says later needs no challenge, until it jumps.
    bench.pass(20 * SECOND);
    let accepted = bench.counters().accepted;
    let second = other.announcement_at(ahead(bench.now));
    bench.receive(2, &second);
    assert_eq!(bench.counters().accepted, accepted + 1);
    bench.pass(20 * SECOND);
    let third = other.announcement_at(bench.now);
    assert_eq!(kinds(&bench.receive(2, &third)), [MessageKind::Challenge]);
}

#[test]
fn the_same_name_address_or_prefix_under_another_key_is_critical_and_the_first_keeps_it() {
    let with = |name: &str, prefix: &str, address: &str| {
        let mut with = subject(name);
        with.prefixes = patronus_discovery::Prefixes::new([prefix.parse().unwrap()]).unwrap();
        with.addresses = patronus_discovery::Addresses::new([address.parse().unwrap()]).unwrap();
        with
    };
    let mut bench = Bench::new(13);
    let papers = bench
        .network
        .site(with("first", "10.1.0.0/16", "100.64.0.1"));
    let mut first = Other::with(&mut bench, papers, 2);
    first.introduce(&mut bench);
    let rivals = [
        with("first", "10.2.0.0/16", "100.64.0.2"),
        with("second", "10.3.0.0/16", "100.64.0.1"),
        with("third", "10.1.2.0/24", "100.64.0.3"),
        with("under-test", "10.4.0.0/16", "100.64.0.4"),
    ];
    for (host, rival) in (3..).zip(rivals) {
        let papers = bench.network.site(rival);
        let mut rival = Other::with(&mut bench, papers, host);
        let said = rival.announcement_at(bench.now);
        rival.talk(&mut bench, &said);
        assert!(!bench.is_peer(rival.id()));
    }
    assert!(bench.is_peer(first.id()));
    let clashes: Vec<Clash> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Conflict { clash, .. } => Some(*clash),
            _ => None,
        })
        .collect();
    let expected = [
        Clash::Name,
        Clash::Address("100.64.0.1".parse().unwrap()),
        Clash::Prefix("10.1.2.0/24".parse().unwrap()),
        Clash::Name,
    ];
    assert_eq!(clashes, expected);
    let critical = |event: &Event| event.severity() == Severity::Critical;
    assert_eq!(bench.told(critical), 4);
}

#[test]
fn sites_of_one_group_may_have_the_same_prefix() {
    let mut bench = Bench::new(14);
    for (host, name) in (2..).zip(["left", "right"]) {
        let mut subject = subject(name);
        subject.ha_group = Some("pair".parse().unwrap());
        subject.prefixes =
            patronus_discovery::Prefixes::new(["10.1.0.0/16".parse().unwrap()]).unwrap();
        let papers = bench.network.site(subject);
        Other::with(&mut bench, papers, host).introduce(&mut bench);
    }
    assert_eq!(bench.machine.peers().count(), 2);
}

#[test]
fn a_source_that_is_not_on_the_link_is_dropped_and_so_is_a_router_with_ipv6() {
    let mut bench = Bench::new(15);
    let mut other = Other::new(&mut bench, "other", 2);
    let said = other.announcement_at(bench.now);
    let off = Arrival {
        is_on_link: false,
        ..arrival(2)
    };
    assert!(bench.arrive(off, &said).is_empty());
    assert_eq!(bench.dropped(Drop::OffLink), 1);
    for hop_limit in [None, Some(254), Some(64)] {
        let routed = Arrival {
            source: "[fe80::2]:51821".parse().unwrap(),
            hop_limit,
            ..arrival(2)
        };
        assert!(bench.arrive(routed, &said).is_empty());
    }
    assert_eq!(bench.dropped(Drop::HopLimit), 3);
    let elsewhere = Arrival {
        door: Door::Lan(InterfaceId(99)),
        ..arrival(2)
    };
    assert!(bench.arrive(elsewhere, &said).is_empty());
    assert_eq!(bench.dropped(Drop::Door), 1);
    let neighbour = Arrival {
        source: "[fe80::2]:51821".parse().unwrap(),
        hop_limit: Some(255),
        ..arrival(2)
    };
    assert_eq!(bench.arrive(neighbour, &said).len(), 1);
}

#[test]
fn a_full_table_makes_room_by_the_oldest_of_which_nothing_is_proven() {
    let mut bench = Bench::new(16);
    let mut peer = Other::new(&mut bench, "peer", 2);
    peer.introduce(&mut bench);
    let mut first = None;
    for at in 0..UNVERIFIED_MAX + 100 {
        let key = SiteKey::generate(&mut bench.network.rng);
        first = first.or(Some(key.id()));
        let papers = Papers {
            key,
            ..peer.papers.clone()
        };
        let mut content = announcement(&papers, bench.network.id(), bench.now);
        content.certificate = Fingerprint::from_bytes([7; 32]);
        let datagram = sealed(&mut bench, content, &papers.key);
        bench.pass(Duration::from_millis(6));
        let mut arrival = arrival(9);
        let source = std::net::Ipv4Addr::from(0xc0a8_1000 + at as u32);
        arrival.source.set_ip(source.into());
        bench.arrive(arrival, &datagram);
    }
    assert_eq!(bench.machine.table_len().0, UNVERIFIED_MAX);
    assert_eq!(bench.counters().evicted, 100);
    assert!(bench.is_peer(peer.id()));
}

#[test]
fn bad_endpoints_are_ignored_and_counted_and_the_rest_is_kept() {
    let mut bench = Bench::with(17, |config| {
        config.own_addresses.insert("192.0.2.1".parse().unwrap());
    });
    let mut papers = bench.network.named("other");
    papers.boot_epoch = 1;
    let mut other = Other::with(&mut bench, papers, 2);
    other.introduce(&mut bench);
    let good: Endpoint = endpoint(EndpointKind::Uplink, "192.0.2.9".parse().unwrap(), 51820);
    let own = endpoint(EndpointKind::Uplink, "192.0.2.1".parse().unwrap(), 51820);
    let mut content = announcement(&other.papers, bench.network.id(), bench.now);
    content.endpoints = Endpoints::sift([own, good]);
    let datagram = sealed(&mut bench, content, &other.papers.key);
    bench.receive(2, &datagram);
    assert_eq!(bench.counters().endpoints_ignored, 1);
    let peer = bench.machine.peers().next().unwrap();
    assert_eq!(peer.endpoints, [good]);
}

#[test]
fn a_signature_of_somebody_else_is_refused() {
    let mut bench = Bench::new(18);
    let mut other = Other::new(&mut bench, "other", 2);
    other.introduce(&mut bench);
    let mallory = SiteKey::generate(&mut bench.network.rng);
    let content = announcement(&other.papers, bench.network.id(), bench.now);
    let forged = sealed(&mut bench, content, &mallory);
    assert!(bench.receive(66, &forged).is_empty());
    assert_eq!(bench.dropped(Drop::BadSignature), 1);
}

#[test]
fn a_certificate_of_another_root_gets_nobody_in() {
    let mut bench = Bench::new(19);
    let mut foreign = Network::new(1900);
    foreign.key = bench.network.key.clone();
    let papers = foreign.named("foreign");
    let mut content = announcement(&papers, bench.network.id(), bench.now);
    let datagram = sealed(&mut bench, content.clone(), &papers.key);
    bench.receive(2, &datagram);
    let certificate = Message::CertificateAnswer(Box::new(papers.certificate.clone()))
        .seal(&bench.network.key, &mut bench.network.rng);
    assert!(bench.receive(2, &certificate).is_empty());
    assert_eq!(bench.dropped(Drop::OtherNetwork), 1);
    content.network = foreign.id();
    let datagram = sealed(&mut bench, content, &papers.key);
    assert!(bench.receive(2, &datagram).is_empty());
    assert_eq!(bench.dropped(Drop::OtherNetwork), 2);
    assert_eq!(bench.machine.peers().count(), 0);
}

#[test]
fn our_own_messages_come_back_without_harm_and_a_second_holder_of_our_key_is_told_of() {
    let mut bench = Bench::new(20);
    bench.run(SECOND);
    let twin = Other::with(&mut Bench::new(20), bench.papers.clone(), 2);
    let mut content = announcement(&twin.papers, bench.network.id(), bench.now);
    let datagram = sealed(&mut bench, content.clone(), &twin.papers.key);
    assert!(bench.receive(2, &datagram).is_empty());
    assert_eq!(bench.told(|it| *it == Event::OwnKeyElsewhere), 1);
    content.stamp = Stamp::default();
    let own = sealed(&mut bench, content, &twin.papers.key);
    assert!(bench.receive(2, &own).is_empty());
    assert_eq!(bench.dropped(Drop::Own), 2);
    assert_eq!(bench.machine.peers().count(), 0);
}

#[test]
fn drops_are_told_once_a_minute_per_reason() {
    let mut bench = Bench::new(21);
    for _ in 0..600 {
        bench.pass(Duration::from_millis(300));
        bench.receive(2, &[0; 100]);
    }
    let told = bench.told(|it| matches!(it, Event::Dropping { .. }));
    assert_eq!(told, 3);
}

#[test]
fn a_site_that_lost_its_count_of_starts_is_let_in_again_once_it_is_silent() {
    let mut bench = Bench::new(22);
    let mut papers = bench.network.named("forgetful");
    papers.boot_epoch = 9;
    let mut before = Other::with(&mut bench, papers.clone(), 2);
    before.introduce(&mut bench);
    papers.boot_epoch = 1;
    let mut after = Other::with(&mut bench, papers, 2);
    bench.pass(SECOND);
    let said = after.announcement_at(bench.now);
    assert!(
        bench.receive(2, &said).is_empty(),
        "a replay, for all we know"
    );
    bench.pass(90 * SECOND);
    let said = after.announcement_at(bench.now);
    after.talk(&mut bench, &said);
    bench.pass(10 * SECOND);
    let accepted = bench.counters().accepted;
    let said = after.announcement_at(bench.now);
    bench.receive(2, &said);
    assert_eq!(bench.counters().accepted, accepted + 1);
}

#[test]
fn no_bad_message_causes_more_than_one_datagram() {
    let mut bench = Bench::new(23);
    let mut others: Vec<Other> = (2..12)
        .map(|host| Other::new(&mut bench, &format!("site-{host}"), host))
        .collect();
    let mut rng = TestRng(230);
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for _ in 0..40 {
        bench.pass(SECOND);
        for other in &mut others {
            corpus.push(other.announcement_at(bench.now));
        }
    }
    for _ in 0..5000 {
        bench.pass(Duration::from_millis(rng.below(40)));
        let mut datagram = corpus[rng.below(corpus.len() as u64) as usize].clone();
        if rng.chance(0.3) {
            let at = rng.below(datagram.len() as u64) as usize;
            datagram[at] ^= rng.next_u32() as u8;
        }
        let from = rng.below(250) as u8;
        let sent = bench.receive(from, &datagram);
        assert!(sent.len() <= 1, "{:?}", kinds(&sent));
        assert!(
            sent.iter().all(|it| is_to(it, from)),
            "back to the source only"
        );
    }
    let counters = bench.counters();
    assert_eq!(
        counters.received,
        counters.accepted + counters.dropped_all()
    );
    assert_eq!(bench.machine.peers().count(), 0);
}
