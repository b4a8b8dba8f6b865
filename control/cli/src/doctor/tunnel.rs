//! What the gateway tells, judged: peers without a handshake and the probable reason, paths that work in one direction,
//! what is recorded, what is refused.

use patronus_api::{
    Client, ConfigFileState, ConfigResponse, CountersResponse, GradeView, PathStateView,
    PeerPathsView, PeerStateView, PeerView,
};
use patronus_config::Outline;

use super::Check;

/// Every check of the gateway.
pub fn checks(
    client: &Client,
    config: Option<&ConfigResponse>,
    outline: Option<&Outline>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend(config.into_iter().flat_map(configuration));
    let counters = client.counters().ok();
    let paths = client.paths(None).ok();
    let paths = paths.map_or_else(Vec::new, |it| it.peers);
    match client.peers() {
        Ok(told) => checks.extend(told.peers.iter().map(|peer| {
            let paths = paths.iter().find(|it| it.public_key == peer.public_key);
            of_peer(peer, paths, counters.as_ref())
        })),
        Err(error) => checks.push(Check::unknown("peer", error.to_string())),
    }
    checks.extend(paths.iter().flat_map(|it| of_paths(it, outline)));
    if let Ok(status) = client.status() {
        let problems = status.health.into_iter().flat_map(|it| it.problems);
        // Peers are told one by one.
        let problems = problems.filter(|it| !it.text.contains("peers up"));
        checks.extend(problems.map(|problem| {
            let (text, fix) = match problem.text.split_once(": ") {
                Some((text, fix)) => (text.to_owned(), fix.to_owned()),
                None => (problem.text, "see the daemon's log".to_owned()),
            };
            match problem.grade {
                GradeView::Bad => Check::fail("health", text, fix),
                GradeView::Warning | GradeView::Info | GradeView::Good => {
                    Check::warn("health", text, fix)
                }
            }
        }));
        if let Some(prefilter) = status.prefilter {
            checks.push(match prefilter.is_complete {
                true => Check::ok("prefilter", prefilter.text),
                false => Check::warn(
                    "prefilter",
                    prefilter.text,
                    "`patronus prefilter show` says why; the gateway works without it",
                ),
            });
        }
    }
    if let Ok(workers) = client.workers() {
        checks.push(match workers.offload.ends_with("(full)") {
            true => Check::ok("offload", format!("level {}", workers.offload)),
            false => Check::warn(
                "offload",
                format!("level {}: bulk traffic costs more", workers.offload),
                "the log says at the start why not more",
            ),
        });
    }
    checks
}

fn configuration(told: &ConfigResponse) -> Vec<Check> {
    let file = &told.file;
    let mut checks = vec![match told.file_state {
        ConfigFileState::Same => Check::ok("applied", format!("{file} is what runs")),
        ConfigFileState::Edited => Check::warn(
            "applied",
            format!("{file} was edited and is not what runs"),
            "`patronus config diff`, then `patronus config apply --confirm 5m`",
        ),
        ConfigFileState::Superseded => Check::warn(
            "applied",
            format!("{file} is not what runs, and the next start does not take it either"),
            "`patronus config diff`; `patronus config apply` takes it, an edit too",
        ),
        ConfigFileState::Unreadable => Check::warn(
            "applied",
            format!("the gateway cannot read {file}: it cannot be reloaded"),
            "give its user read access",
        ),
    }];
    if !told.at_next_start.is_empty() {
        let text = format!(
            "not in force before the next start: {}",
            told.at_next_start.join(", ")
        );
        checks.push(Check::warn(
            "applied",
            text,
            "start the gateway anew when that suits",
        ));
    }
    if let Some(pending) = &told.pending {
        let text = format!(
            "configuration {} goes back to {} in {} s",
            pending.number, pending.previous, pending.left_s
        );
        checks.push(Check::warn(
            "applied",
            text,
            "`patronus config confirm` keeps it",
        ));
    }
    if let Some(problem) = &told.problem {
        let text = format!("configurations are not recorded: {problem}");
        let fix = "make room in the state folder, or make it writable";
        checks.push(Check::warn("applied", text, fix));
    }
    checks
}

/// Whether a tunnel is up; where not, the most probable reason.
fn of_peer(
    peer: &PeerView,
    paths: Option<&PeerPathsView>,
    counters: Option<&CountersResponse>,
) -> Check {
    let name = &peer.peer;
    let (state, is_idle) = match peer.state {
        PeerStateView::Up => return Check::ok("peer", format!("{name} is up")),
        PeerStateView::Expired => ("no handshake in the last three minutes", true),
        PeerStateView::Never => ("no handshake since the start", false),
    };
    let Some(endpoint) = peer.endpoint else {
        return Check::warn(
            "peer",
            format!("{name}: {state}; its address is not known"),
            "it has to call: does it run, has it this site's address and public key? Or give it an endpoint here",
        );
    };
    let refused: Vec<&str> = counters.map_or_else(Vec::new, refusals);
    if peer.auth_failed > 0 {
        return Check::fail(
            "peer",
            format!("{name}: {state}, and messages in its name do not authenticate"),
            "compare the preshared keys of both sides",
        );
    }
    if peer.rx_packets == 0 && !refused.is_empty() {
        return Check::fail(
            "peer",
            format!(
                "{name}: {state}; handshakes that arrive here are refused ({})",
                refused.join(", ")
            ),
            remedy(refused[0]),
        );
    }
    let down = paths.map(|it| it.paths.iter().filter(|it| !it.state.is_usable()));
    let why = down.into_iter().flatten().next().map(|it| it.text.clone());
    let why = why.map_or(String::new(), |it| format!(" ({it})"));
    match is_idle && !peer.is_site {
        // A stock peer without keepalive sleeps when nothing is to be sent.
        true => Check::ok("peer", format!("{name} is idle: {state}")),
        false => Check::fail(
            "peer",
            format!("{name} at {endpoint}: {state}{why}"),
            format!(
                "`patronus trace {name}` says how far datagrams come; does it run there, is its UDP port open, is the key \
                 right?"
            ),
        ),
    }
}

/// Counters of handshakes that were refused.
fn refusals(counters: &CountersResponse) -> Vec<&str> {
    let drops = counters.totals.drops.iter();
    let drops = drops.filter(|(reason, count)| **count > 0 && REFUSALS.contains(&reason.as_str()));
    drops.map(|(reason, _)| reason.as_str()).collect()
}

/// What is behind the refusal of a handshake.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "handshake_bad_mac" => {
            "the caller has another public key of this site: compare `patronus pubkey` with its file"
        }
        "handshake_unknown_peer" => "this site has another public key of the caller: correct it",
        "handshake_replayed" => "the caller's clock went back: set it",
        "handshake_invalid" => "the preshared keys differ, or one side has none",
        _ => "compare the keys of both sides",
    }
}

fn of_paths(peer: &PeerPathsView, outline: Option<&Outline>) -> Vec<Check> {
    let mut checks = Vec::new();
    for path in &peer.paths {
        let (id, name) = (&path.id, &path.name);
        let is_one_way = path.state == PathStateView::Init
            || path.reason == "peer_does_not_hear"
            || (path.state == PathStateView::Down && path.rx_packets > 0 && path.tx_packets == 0);
        match path.state {
            _ if is_one_way => checks.push(Check::fail(
                "path",
                format!("{id} {name} works in one direction only: {}", path.text),
                format!(
                    "what goes out by {} does not arrive: a firewall, a wrong source address or a route back; \
                     `patronus trace {}`",
                    path.uplink.as_deref().unwrap_or("it"),
                    peer.peer
                ),
            )),
            PathStateView::Down => checks.push(Check::fail(
                "path",
                format!("{id} {name} is {}", path.text),
                format!("`patronus trace {}`; `patronus events --peer {}`", peer.peer, peer.peer),
            )),
            PathStateView::Suspect => checks.push(Check::warn(
                "path",
                format!("{id} {name} is {}", path.text),
                format!("`patronus events --peer {}`", peer.peer),
            )),
            PathStateView::AdminDown => checks.push(Check::warn(
                "path",
                format!("{id} {name} is held down: {}", path.text),
                format!("`patronus path undrain {id}`"),
            )),
            PathStateView::Up | PathStateView::Init => {
                checks.push(Check::ok("path", format!("{id} {name} is up")));
            }
        }
        let overhead = if path.remote.is_ipv6() { 80 } else { 60 };
        let inner = outline.map(|it| it.mtu.bytes());
        if let (Some(inner), Some(outer)) = (inner, path.mtu)
            && inner + overhead > outer
        {
            checks.push(Check::warn(
                "mtu",
                format!(
                    "{id} {name} passes {outer} bytes, and [site] mtu = {inner} needs {}",
                    inner + overhead
                ),
                format!(
                    "[site] mtu = {}, at both sites",
                    outer.saturating_sub(overhead)
                ),
            ));
        }
    }
    for via in &peer.vias {
        if via.state == patronus_api::ViaStateView::Unreachable {
            checks.push(Check::warn(
                "via",
                format!(
                    "{} behind {} does not answer: {}",
                    via.prefix, peer.peer, via.text
                ),
                "the tunnel is up: look at the LAN behind the peer",
            ));
        }
    }
    checks
}

/// Reasons that are a peer's, or a configuration's.
const REFUSALS: [&str; 5] = [
    "handshake_bad_mac",
    "handshake_unknown_peer",
    "handshake_replayed",
    "handshake_low_order",
    "handshake_invalid",
];

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn peer(state: PeerStateView) -> PeerView {
        PeerView {
            peer: "branch".to_owned(),
            public_key: "k".to_owned(),
            is_site: true,
            state,
            endpoint: Some("203.0.113.7:51820".parse().unwrap()),
            allowed_ips: Vec::new(),
            allowed_ips_left_out: 0,
            keepalive_s: None,
            last_handshake_age_s: None,
            rekey_in_s: None,
            expires_in_s: None,
            rx_bytes: 0,
            rx_packets: 0,
            tx_bytes: 0,
            tx_packets: 0,
            rx_bps: None,
            tx_bps: None,
            replayed: 0,
            auth_failed: 0,
            mtu: None,
            paths_up: 0,
            paths: 0,
            sessions: Vec::new(),
        }
    }

    #[test]
    fn a_peer_without_handshake_has_a_probable_reason() {
        assert_eq!(
            of_peer(&peer(PeerStateView::Up), None, None).state,
            State::Ok
        );
        let never = of_peer(&peer(PeerStateView::Never), None, None);
        assert_eq!(never.state, State::Fail);
        assert!(never.fix.unwrap().contains("patronus trace branch"));
        let mut unknown = peer(PeerStateView::Never);
        unknown.endpoint = None;
        assert!(
            of_peer(&unknown, None, None)
                .text
                .contains("address is not known")
        );
        let mut forged = peer(PeerStateView::Expired);
        forged.auth_failed = 3;
        assert!(
            of_peer(&forged, None, None)
                .fix
                .unwrap()
                .contains("preshared")
        );
        let mut idle = peer(PeerStateView::Expired);
        idle.is_site = false;
        assert_eq!(of_peer(&idle, None, None).state, State::Ok);
    }
}
