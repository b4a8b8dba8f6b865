//! `patronus paths`.

use patronus_api::{GradeView, PathView, PathsResponse, PeerPathsView, ViaStateView, ViaView};

use super::words::{age, bandwidth, mbit, number, sign, state, worse};
use super::{DONE, PathsArgs};
use crate::print;

/// Lists the paths.
pub fn list(args: &PathsArgs) -> anyhow::Result<u8> {
    let told = args.gateway.connect()?.paths(args.peer.as_deref())?;
    match args.look.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told, args.look.ascii)),
    }
    Ok(DONE)
}

fn for_people(told: &PathsResponse, ascii: bool) -> String {
    if told.peers.is_empty() {
        return "this site has no peers\n".to_owned();
    }
    let mut text = String::new();
    for (at, peer) in told.peers.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        text += &of_peer(peer, ascii);
    }
    text
}

fn of_peer(peer: &PeerPathsView, ascii: bool) -> String {
    if peer.paths.is_empty() {
        let line = format!(
            "{}: no paths, its endpoint is not known, or it never answered",
            peer.peer
        );
        return print::wrapped(&line, 4) + &vias(peer, ascii);
    }
    let up = peer.paths.iter().filter(|it| it.state.is_usable()).count();
    let mut head = format!("{}: {up} of {} up", peer.peer, paths(peer.paths.len()));
    if !peer.is_site {
        head += "; it answers no hellos: no Patronus site, or not reached yet";
    }
    for route in peer.routes.iter().filter(|it| it.path.is_none()) {
        head += &format!("; class {} has no path", route.class);
    }
    let mut text = print::wrapped(&head, 4);
    text += HEADER;
    for path in &peer.paths {
        text += &of_path(peer, path, ascii);
    }
    text + &vias(peer, ascii)
}

/// The prefixes behind a peer that are asked whether they answer, a line each.
fn vias(peer: &PeerPathsView, ascii: bool) -> String {
    let lines = peer.vias.iter();
    lines.map(|it| print::wrapped(&via(it, ascii), 5)).collect()
}

fn via(of: &ViaView, ascii: bool) -> String {
    let grade = match of.state {
        ViaStateView::Reachable => GradeView::Good,
        ViaStateView::Unknown => GradeView::Warning,
        ViaStateView::Unreachable => GradeView::Bad,
    };
    let mut line = format!("   {} {} {}", sign(Some(grade), ascii), of.prefix, of.text);
    match (&of.detour, of.state) {
        (Some(peer), _) => line += &format!("; its packets go to {peer}"),
        (None, ViaStateView::Unreachable) => line += "; its packets are sent all the same",
        (None, ViaStateView::Reachable | ViaStateView::Unknown) => {}
    }
    line
}

fn of_path(peer: &PeerPathsView, path: &PathView, ascii: bool) -> String {
    let lead = format!("  {:>2} ", path.path);
    let name = match path.name.chars().count() <= NAME_WIDTH {
        true => format!("{lead}{:<NAME_WIDTH$}", path.name),
        // Numbers keep their columns, and the name stays whole.
        false => format!("{lead}{}\n{:30}", path.name, ""),
    };
    let jitter = worse(path.tx_jitter_ms, path.rx_jitter_ms);
    let loss = worse(path.tx_loss.ten_s_pct, path.rx_loss.ten_s_pct);
    let row = format!(
        "{name} {:<12} {:>6} {:>6} {:>6} {:>7.1} {:>7.1}\n",
        state(path, ascii),
        number(path.rtt_ms, ascii),
        number(jitter, ascii),
        number(loss, ascii),
        mbit(path.tx_bps),
        mbit(path.rx_bps),
    );
    row + &print::wrapped(&format!("     {}", details(peer, path)), 5)
}

/// What has no column: bandwidth, MTU, who uses it.
fn details(peer: &PeerPathsView, path: &PathView) -> String {
    let mut parts = Vec::new();
    if !path.state.is_usable() {
        parts.push(format!("for {}: {}", age(path.state_age_s), path.text));
    }
    match (&path.tx_bandwidth, &path.rx_bandwidth) {
        (None, None) => parts.push("bandwidth not known".to_owned()),
        (tx, rx) => parts.push(format!(
            "out {}, in {}",
            bandwidth(tx.as_ref()),
            bandwidth(rx.as_ref())
        )),
    }
    parts.push(match path.mtu {
        Some(mtu) => format!("outer MTU {mtu}"),
        None => "outer MTU not known".to_owned(),
    });
    let classes = |is_it: &dyn Fn(&patronus_api::ClassRouteView) -> bool| {
        let names = peer.routes.iter().filter(|it| is_it(it));
        let names: Vec<&str> = names.map(|it| it.class.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let own = Some(path.path);
    parts.push(match classes(&|it| it.path == own) {
        Some(names) => format!("carries {names}"),
        None => "carries nothing".to_owned(),
    });
    parts.extend(classes(&|it| it.leaving == own).map(|names| format!("{names} leaving")));
    parts.extend(classes(&|it| it.protect == own).map(|names| format!("copies of {names}")));
    parts.extend(classes(&|it| it.pinned == own).map(|names| format!("pinned: {names}")));
    parts.join("; ")
}

fn paths(count: usize) -> String {
    print::count(count, "path", "paths")
}

const NAME_WIDTH: usize = 25;
const HEADER: &str =
    "   # PATH                      STATE        RTT ms JIT ms LOSS % TX Mb/s RX Mb/s\n";

#[cfg(test)]
pub mod tests {
    use super::*;
    use patronus_api::{
        BandwidthView, ClassRouteView, LossView, PathStateView, StandingView, UtilitiesView,
    };

    pub fn standing(class: &str, tier: u8, score: f64, why_not: Option<&str>) -> StandingView {
        StandingView {
            class: class.to_owned(),
            tier,
            tier_text: ["in bounds", "out of bounds", "suspect", "", "down"][usize::from(tier)]
                .to_owned(),
            score,
            is_used: why_not.is_none(),
            is_pinned: false,
            utilities: UtilitiesView {
                latency: Some(1.0),
                jitter: None,
                loss: Some(0.25),
            },
            why_not: why_not.map(str::to_owned),
        }
    }

    pub fn path(number: u8, name: &str) -> PathView {
        let nothing = LossView::default();
        PathView {
            id: format!("branch/{number}"),
            peer: "branch".to_owned(),
            path: number,
            name: name.to_owned(),
            uplink: Some("fiber".to_owned()),
            remote: "198.51.100.2:51820".parse().unwrap(),
            local: None,
            state: PathStateView::Up,
            reason: "heard".to_owned(),
            text: "up: both ends hear each other".to_owned(),
            state_age_s: 252.4,
            is_draining: false,
            is_metered: false,
            cost: Some(10),
            rtt_ms: Some(10.25),
            rtt_slow_ms: Some(10.4),
            rtt_min_ms: Some(9.875),
            rtt_p95_ms: None,
            tx_jitter_ms: Some(0.3),
            rx_jitter_ms: Some(1.26),
            tx_loss: LossView {
                ten_s_pct: Some(0.5),
                sixty_s_pct: Some(0.1),
                ..nothing
            },
            rx_loss: nothing,
            queueing_ms: Some(0.375),
            rx_queueing_ms: None,
            tx_bandwidth: Some(BandwidthView {
                bps: 500e6,
                source: "configured".to_owned(),
                age_s: 0.0,
            }),
            rx_bandwidth: Some(BandwidthView {
                bps: 480.2e6,
                source: "train".to_owned(),
                age_s: 12.6,
            }),
            tx_bps: 12.34e6,
            rx_bps: 1.06e6,
            mtu: Some(1420),
            tx_packets: 12_345,
            tx_bytes: 12_345_678,
            rx_packets: 7,
            rx_bytes: 700,
            classes: vec![
                standing("realtime", 0, 92.5, None),
                standing("bulk", 0, 80.0, Some("scores 80.0, path 1 85.0")),
            ],
        }
    }

    fn dead(number: u8, name: &str) -> PathView {
        let nothing = LossView::default();
        PathView {
            state: PathStateView::Down,
            text: "down: nothing came for the detection time".to_owned(),
            rtt_ms: None,
            tx_jitter_ms: None,
            rx_jitter_ms: None,
            tx_loss: nothing,
            tx_bandwidth: None,
            rx_bandwidth: None,
            mtu: None,
            tx_bps: 0.0,
            rx_bps: 0.0,
            ..path(number, name)
        }
    }

    fn route(class: &str, path: Option<u8>) -> ClassRouteView {
        ClassRouteView {
            class: class.to_owned(),
            path,
            leaving: None,
            protect: None,
            pinned: None,
        }
    }

    fn peer(paths: Vec<PathView>, routes: Vec<ClassRouteView>) -> PeerPathsView {
        PeerPathsView {
            peer: "branch".to_owned(),
            public_key: String::new(),
            is_site: true,
            prober_starved: Some(0),
            paths,
            routes,
            vias: Vec::new(),
        }
    }

    fn told(peers: Vec<PeerPathsView>, ascii: bool) -> String {
        let classes = Vec::new();
        let text = for_people(&PathsResponse { classes, peers }, ascii);
        let widest = text.lines().map(|it| it.chars().count()).max();
        assert!(widest <= Some(80), "{text}");
        text
    }

    #[test]
    fn a_table_has_a_row_of_numbers_and_a_line_of_details_for_each_path() {
        let mut bulk = route("bulk", Some(1));
        (bulk.leaving, bulk.pinned) = (Some(0), Some(1));
        let mut lte = path(1, "lte>203.0.113.9");
        lte.is_draining = true;
        let routes = vec![route("realtime", Some(0)), bulk];
        let site = peer(
            vec![
                path(0, "fiber>198.51.100.2"),
                lte,
                dead(2, "dsl>198.51.100.2"),
            ],
            routes,
        );
        assert_eq!(
            told(vec![site], false),
            "\
branch: 2 of 3 paths up
   # PATH                      STATE        RTT ms JIT ms LOSS % TX Mb/s RX Mb/s
   0 fiber>198.51.100.2        ● up           10.2    1.3    0.5    12.3     1.1
     out 500 Mbit/s configured, in 480 Mbit/s by train 12 s ago; outer MTU 1420;
     carries realtime; bulk leaving
   1 lte>203.0.113.9           ▲ draining     10.2    1.3    0.5    12.3     1.1
     out 500 Mbit/s configured, in 480 Mbit/s by train 12 s ago; outer MTU 1420;
     carries bulk; pinned: bulk
   2 dsl>198.51.100.2          ✖ down            –      –      –     0.0     0.0
     for 4 min: down: nothing came for the detection time; bandwidth not known;
     outer MTU not known; carries nothing
"
        );
    }

    #[test]
    fn a_long_name_stays_whole_and_numbers_keep_their_columns() {
        let site = peer(
            vec![path(12, "fiber-to-the-office>2001:db8:1234:5678::9abc")],
            vec![route("realtime", Some(12))],
        );
        assert_eq!(
            told(vec![site], true),
            "\
branch: 1 of 1 path up
   # PATH                      STATE        RTT ms JIT ms LOSS % TX Mb/s RX Mb/s
  12 fiber-to-the-office>2001:db8:1234:5678::9abc
                               * up           10.2    1.3    0.5    12.3     1.1
     out 500 Mbit/s configured, in 480 Mbit/s by train 12 s ago; outer MTU 1420;
     carries realtime
"
        );
    }

    #[test]
    fn what_an_operator_has_to_know_of_a_peer_stands_in_its_first_line() {
        let mut silent = peer(vec![dead(0, "any>1.2.3.4")], vec![route("default", None)]);
        silent.is_site = false;
        let none = peer(Vec::new(), Vec::new());
        let text = told(vec![silent, none], true);
        assert!(
            text.starts_with(
                "branch: 0 of 1 path up; it answers no hellos: no Patronus site, or not reached\n    \
                 yet; class default has no path\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("x down            -      -      -     0.0"),
            "{text}"
        );
        assert!(
            text.ends_with("\nbranch: no paths, its endpoint is not known, or it never answered\n"),
            "{text}"
        );
        assert_eq!(told(Vec::new(), false), "this site has no peers\n");
    }

    #[test]
    fn prefixes_that_are_asked_stand_below_the_paths() {
        let of = |prefix: &str, state, text: &str, detour: Option<&str>| ViaView {
            prefix: prefix.to_owned(),
            state,
            text: text.to_owned(),
            state_age_s: 12.0,
            answer_age_s: Some(12.0),
            probes: vec!["10.2.0.10".parse().unwrap()],
            interval_ms: 1000,
            misses: 5,
            detour: detour.map(str::to_owned),
        };
        let mut site = peer(Vec::new(), Vec::new());
        let out = "does not answer for 12 s: asks 10.2.0.10";
        site.vias = vec![
            of("10.1.0.0/16", ViaStateView::Reachable, "answers", None),
            of("10.2.0.0/16", ViaStateView::Unreachable, out, None),
            of("10.3.0.0/16", ViaStateView::Unreachable, out, Some("hub")),
            of(
                "10.4.0.0/16",
                ViaStateView::Unknown,
                "never answered: asks 10.4.0.1",
                None,
            ),
        ];
        assert_eq!(
            told(vec![site], true),
            "\
branch: no paths, its endpoint is not known, or it never answered
   * 10.1.0.0/16 answers
   x 10.2.0.0/16 does not answer for 12 s: asks 10.2.0.10; its packets are sent
     all the same
   x 10.3.0.0/16 does not answer for 12 s: asks 10.2.0.10; its packets go to hub
   ! 10.4.0.0/16 never answered: asks 10.4.0.1
"
        );
    }

    #[test]
    fn a_path_that_violates_a_class_that_uses_it_is_marked() {
        let mut bad = path(0, "fiber>198.51.100.2");
        bad.classes[0].tier = 1;
        assert_eq!(state(&bad, true), "! up, unfit");
        bad.classes[0].is_used = false;
        assert_eq!(state(&bad, false), "● up");
        bad.state = PathStateView::AdminDown;
        assert_eq!(state(&bad, false), "– admin down");
    }
}
