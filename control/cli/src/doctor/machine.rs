//! The machine judged: what a gateway needs of it, and what slows it down.

use std::net::IpAddr;

use patronus_config::Outline;

use super::Check;
use super::facts::Facts;

/// Every check of the machine.
pub fn checks(facts: &Facts, outline: Option<&Outline>) -> Vec<Check> {
    let mut checks = vec![
        capabilities(facts, outline),
        tun(facts),
        clock(facts),
        kernel(facts),
        state_dir(facts),
    ];
    checks.extend(forwarding(facts, outline));
    checks.extend(socket(facts));
    checks.extend(features(facts));
    if let Some(outline) = outline {
        checks.extend(rp_filter(facts, outline));
        checks.extend(mtu(facts, outline));
        checks.extend(carrier(facts, outline));
        checks.push(port(facts, outline));
        checks.extend(routes(facts, outline));
    }
    checks
}

fn capabilities(facts: &Facts, outline: Option<&Outline>) -> Check {
    let Some((held, of_gateway)) = facts.capabilities else {
        return Check::unknown("capabilities", "/proc does not tell this user's");
    };
    let whose = if of_gateway {
        "the gateway"
    } else {
        "this user"
    };
    let has = |bit: u32| held >> bit & 1 == 1;
    if !has(NET_ADMIN) {
        let text = format!("{whose} lacks CAP_NET_ADMIN, without which there is no interface");
        return Check::fail("capabilities", text, UNIT);
    }
    let is_af_xdp = outline.is_some_and(|it| it.uplinks.iter().any(|uplink| uplink.is_af_xdp));
    let wants_bpf = is_af_xdp || outline.is_some_and(|it| it.wants_prefilter);
    let mut missing = Vec::new();
    for (bit, name, is_wanted) in [
        (NET_RAW, "CAP_NET_RAW", is_af_xdp),
        (BPF, "CAP_BPF", wants_bpf),
        (PERFMON, "CAP_PERFMON", wants_bpf),
    ] {
        // Older than CAP_BPF, and more than it.
        if is_wanted && !has(bit) && !has(SYS_ADMIN) {
            missing.push(name);
        }
    }
    match missing.is_empty() {
        true => Check::ok("capabilities", format!("{whose} has what it needs")),
        false => {
            let text = format!(
                "{whose} lacks {}: no pre-filter or AF_XDP, all else works",
                missing.join(", ")
            );
            Check::warn("capabilities", text, UNIT)
        }
    }
}

fn tun(facts: &Facts) -> Check {
    match facts.has_tun {
        true => Check::ok("tun", "/dev/net/tun is there"),
        false => Check::fail(
            "tun",
            "there is no /dev/net/tun",
            "modprobe tun; in a container, give it the device",
        ),
    }
}

fn clock(facts: &Facts) -> Check {
    if facts.unix_s < BUILT_AFTER_S {
        return Check::fail(
            "clock",
            "the clock is set before this program was made: peers that saw later handshakes refuse these",
            "set it: `timedatectl set-time`, or enable NTP",
        );
    }
    match facts.is_unsynchronised {
        true => Check::warn(
            "clock",
            "systemd-timesyncd has not found the time yet",
            "see `timedatectl timesync-status`; after a step back, peers refuse handshakes until the clock has caught up",
        ),
        false => Check::ok("clock", "set"),
    }
}

fn kernel(facts: &Facts) -> Check {
    let Some((major, minor)) = facts.kernel else {
        return Check::unknown("kernel", "/proc does not tell its version");
    };
    let mut lacks = Vec::new();
    if (major, minor) < (6, 2) {
        lacks.push("no UDP superpackets on the TUN (6.2)");
    }
    if (major, minor) < (6, 6) {
        lacks.push("the pre-filter at tcx falls back to clsact (6.6)");
    }
    if !facts.has_btf {
        lacks.push("no BTF in /sys/kernel/btf, so hooks cannot be told apart in every case");
    }
    match lacks.is_empty() {
        true => Check::ok("kernel", format!("Linux {major}.{minor} with BTF")),
        false => Check::warn(
            "kernel",
            format!("Linux {major}.{minor}: {}", lacks.join("; ")),
            "a newer kernel; the gateway works as it is",
        ),
    }
}

fn state_dir(facts: &Facts) -> Check {
    let dir = facts.state_dir.display();
    match facts.state_free {
        None => Check::unknown("disk", format!("cannot tell the free space of {dir}")),
        Some(free) if free < FREE_FAIL => Check::fail(
            "disk",
            format!("{} kB free for {dir}: nothing can be recorded", free / 1000),
            "free some space, or set [site] state_dir",
        ),
        Some(free) if free < FREE_WARN => Check::warn(
            "disk",
            format!("{} MB free for {dir}", free / 1_000_000),
            "free some space, or set [site] state_dir",
        ),
        Some(free) => Check::ok("disk", format!("{} MB free for {dir}", free / 1_000_000)),
    }
}

fn forwarding(facts: &Facts, outline: Option<&Outline>) -> Vec<Check> {
    let carries = |is_v6: bool| {
        outline.is_none_or(|it| {
            it.allowed_ips
                .iter()
                .any(|prefix| prefix.addr().is_ipv6() == is_v6)
        })
    };
    let sysctls = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    let mut checks = Vec::new();
    for ((value, name), is_v6) in facts.forwards.iter().zip(sysctls).zip([false, true]) {
        if !carries(is_v6) {
            continue;
        }
        checks.push(match value {
            Some(true) => Check::ok("forwarding", format!("{name} is 1")),
            Some(false) => Check::warn(
                "forwarding",
                format!(
                    "{name} is 0: this machine forwards nothing between its LAN and the tunnel"
                ),
                format!("sysctl -w {name}=1, and write it to /etc/sysctl.d/patronus.conf"),
            ),
            None => Check::unknown("forwarding", format!("{name} cannot be read")),
        });
    }
    checks
}

fn rp_filter(facts: &Facts, outline: &Outline) -> Vec<Check> {
    if outline.uplinks.len() < 2 {
        return Vec::new();
    }
    let strict = facts.rp_filter.iter().filter(|(_, value)| **value == 1);
    let strict: Vec<&str> = strict.map(|(name, _)| name.as_str()).collect();
    vec![match strict.is_empty() {
        true => Check::ok("rp_filter", "not strict on any uplink"),
        false => Check::warn(
            "rp_filter",
            format!(
                "strict on {}: the kernel drops what comes in by an uplink whose route is not the best",
                strict.join(", ")
            ),
            format!(
                "sysctl -w net.ipv4.conf.{}.rp_filter=2, for each",
                strict[0]
            ),
        ),
    }]
}

fn mtu(facts: &Facts, outline: &Outline) -> Vec<Check> {
    let inner = u32::from(outline.mtu.bytes());
    let is_v6 = outline.endpoints.iter().any(|it| it.is_ipv6());
    let overhead = if is_v6 { OVERHEAD_V6 } else { OVERHEAD_V4 };
    let checks = facts.mtu.iter().map(|(name, mtu)| {
        let room = mtu.saturating_sub(overhead);
        match inner <= room {
            true => Check::ok("mtu", format!("{inner} inside fits {mtu} on {name}")),
            false => Check::warn(
                "mtu",
                format!(
                    "packets of [site] mtu = {inner} need {} on {name}, which has {mtu}: large ones are lost or cut",
                    inner + overhead
                ),
                format!("[site] mtu = {room}"),
            ),
        }
    });
    checks.collect()
}

fn carrier(facts: &Facts, outline: &Outline) -> Vec<Check> {
    let mut checks = Vec::new();
    for uplink in &outline.uplinks {
        let Some(interface) = &uplink.interface else {
            continue;
        };
        let (name, interface) = (&uplink.name, interface.as_str());
        checks.push(match facts.carrier.get(interface) {
            None => Check::fail(
                "uplink",
                format!("uplink {name}: there is no interface {interface}"),
                "see `ip link`; correct [[uplink]] interface",
            ),
            Some(true) => Check::ok("uplink", format!("{interface} has a carrier")),
            Some(false) => Check::fail(
                "uplink",
                format!("uplink {name}: {interface} is down or has no carrier"),
                format!("ip link set {interface} up; look at the cable or the modem"),
            ),
        });
    }
    checks
}

fn port(facts: &Facts, outline: &Outline) -> Check {
    let port = outline.listen_port;
    let Some(bound) = &facts.udp_ports else {
        return Check::unknown("port", "/proc does not tell which UDP ports are bound");
    };
    let is_bound = bound.contains(&port);
    match (port, facts.has_gateway, is_bound) {
        (0, ..) => Check::ok("port", "any free one"),
        (_, true, true) => Check::ok("port", format!("UDP {port} is bound")),
        (_, false, false) => Check::ok("port", format!("UDP {port} is free")),
        (_, true, false) => Check::fail(
            "port",
            format!("nobody has UDP {port} here, though a gateway runs"),
            "did `wg set` move it? SIGHUP makes the file count again",
        ),
        (_, false, true) => Check::fail(
            "port",
            format!("another program has UDP {port}"),
            format!("`ss -ulpn sport = {port}` names it; or choose another [[uplink]] listen_port"),
        ),
    }
}

fn socket(facts: &Facts) -> Vec<Check> {
    let Some((mode, group)) = &facts.socket else {
        return Vec::new();
    };
    if mode & 0o007 != 0 {
        let text = format!("every user of this machine may command the gateway (mode {mode:04o})");
        let fix = "chmod o= the socket; the gateway makes it with 0660";
        return vec![Check::fail("socket", text, fix)];
    }
    let text = format!("mode {mode:04o}, group {group}");
    vec![match facts.has_group && group != "patronus" {
        true => Check::warn(
            "socket",
            format!("{text}: members of the group `patronus` may not ask"),
            "run the gateway as root, or as a member of that group",
        ),
        false => Check::ok("socket", text),
    }]
}

fn features(facts: &Facts) -> Vec<Check> {
    let checks = facts
        .features_off
        .iter()
        .map(|(name, off)| match off.as_slice() {
            [] => Check::ok("offload", format!("{name} has its offloads on")),
            off => Check::warn(
                "offload",
                format!("{name} has {} off: bulk traffic costs more", off.join(", ")),
                format!("ethtool -K {name} {} on", off[0]),
            ),
        });
    checks.collect()
}

/// Routes of others that take packets which belong to the tunnel, and the other way round.
fn routes(facts: &Facts, outline: &Outline) -> Vec<Check> {
    let own = outline.interface.as_str();
    let mut faults = Vec::new();
    for prefix in &outline.allowed_ips {
        for (addr, length, interface) in &facts.routes {
            let is_inside = *length >= prefix.prefix_len() && prefix.contains(*addr) && *length > 0;
            let is_host = *length == host_len(*addr);
            if interface != own && is_inside && !(is_host && is_link_local(*addr)) {
                faults.push(Check::warn(
                    "routes",
                    format!("{addr}/{length} goes to {interface}, and {prefix} belongs to a peer"),
                    format!("remove the route, or take the prefix from the peer's allowed_ips: ip route get {addr}"),
                ));
            }
        }
    }
    for endpoint in &outline.endpoints {
        let best = facts
            .routes
            .iter()
            .filter(|(addr, length, _)| is_within(*addr, *length, endpoint.ip()));
        let best = best.max_by_key(|(_, length, _)| *length);
        if best.is_some_and(|(_, _, interface)| interface == own) {
            faults.push(Check::fail(
                "routes",
                format!("the way to {endpoint} leads into the tunnel itself"),
                format!(
                    "a route to {} by an uplink, or another table: [site] table",
                    endpoint.ip()
                ),
            ));
        }
    }
    let left_out = faults.len().saturating_sub(ROUTES_MAX);
    faults.truncate(ROUTES_MAX);
    if left_out > 0 {
        let text = format!("{left_out} more routes like these");
        faults.push(Check::warn("routes", text, "see `ip route`"));
    }
    if faults.is_empty() {
        faults.push(Check::ok("routes", "none is in the tunnel's way"));
    }
    faults
}

/// Whether `addr` lies in the network of the first `length` bits of `network`.
fn is_within(network: IpAddr, length: u8, addr: IpAddr) -> bool {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let differ = bits(network) ^ bits(addr);
    network.is_ipv4() == addr.is_ipv4() && differ.leading_zeros() >= u32::from(length)
}

fn host_len(addr: IpAddr) -> u8 {
    if addr.is_ipv6() { 128 } else { 32 }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.segments()[0] & 0xffc0 == 0xfe80,
    }
}

const UNIT: &str =
    "run as root, or with the capabilities of the unit in docs/guide/examples/patronus.service";
/// Numbers of capabilities (`linux/capability.h`).
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// 2026-01-01
const BUILT_AFTER_S: u64 = 1_767_225_600;
const FREE_FAIL: u64 = 4_000_000;
const FREE_WARN: u64 = 100_000_000;
/// IP, UDP, WireGuard's header and tag.
const OVERHEAD_V4: u32 = 20 + 8 + 32;
const OVERHEAD_V6: u32 = 40 + 8 + 32;
const ROUTES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use patronus_config::Config;

    fn outline(more: &str) -> Outline {
        let text = format!("[site]\nname = \"hq\"\nprivate_key_file = \"k\"\n{more}");
        Outline::new(&Config::parse(&text, "test").unwrap())
    }

    const PEER: &str = "[[peer]]\npublic_key = \"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n\
        endpoint = \"203.0.113.7:51820\"\nallowed_ips = [\"10.2.0.0/16\"]\n";

    /// A machine without fault.
    fn well() -> Facts {
        Facts {
            capabilities: Some((u64::MAX, true)),
            has_tun: true,
            forwards: [Some(true), Some(true)],
            unix_s: BUILT_AFTER_S + 1,
            udp_ports: Some(vec![51820]),
            socket: Some((0o660, "patronus".to_owned())),
            has_group: true,
            kernel: Some((6, 8)),
            has_btf: true,
            mtu: [("eth0".to_owned(), 1500)].into(),
            carrier: [("eth0".to_owned(), true)].into(),
            routes: vec![
                ("0.0.0.0".parse().unwrap(), 0, "eth0".to_owned()),
                ("10.2.0.0".parse().unwrap(), 16, "patronus0".to_owned()),
            ],
            features_off: [("eth0".to_owned(), Vec::new())].into(),
            state_free: Some(1 << 40),
            has_gateway: true,
            ..Facts::default()
        }
    }

    /// The worst of one kind.
    fn worst(facts: &Facts, outline: &Outline, check: &str) -> (State, String) {
        let checks = checks(facts, Some(outline)).into_iter();
        let of_kind = checks.filter(|it| it.check == check);
        let worst = of_kind.max_by_key(|it| it.state).unwrap();
        (worst.state, worst.fix.unwrap_or_default())
    }

    #[test]
    fn a_machine_without_fault_has_none() {
        for check in checks(&well(), Some(&outline(PEER))) {
            assert_eq!(check.state, State::Ok, "{check:?}");
        }
    }

    #[test]
    fn every_fault_is_found_and_has_a_fix() {
        type Break = fn(&mut Facts);
        let breaks: [(&str, State, Break); 14] = [
            ("capabilities", State::Fail, |it| {
                it.capabilities = Some((0, false))
            }),
            ("capabilities", State::Warn, |it| {
                it.capabilities = Some((1 << NET_ADMIN, true))
            }),
            ("tun", State::Fail, |it| it.has_tun = false),
            ("clock", State::Fail, |it| it.unix_s = 0),
            ("clock", State::Warn, |it| it.is_unsynchronised = true),
            ("kernel", State::Warn, |it| it.kernel = Some((5, 15))),
            ("kernel", State::Warn, |it| it.has_btf = false),
            ("disk", State::Fail, |it| it.state_free = Some(0)),
            ("forwarding", State::Warn, |it| it.forwards[0] = Some(false)),
            ("socket", State::Fail, |it| {
                it.socket = Some((0o666, "patronus".to_owned()))
            }),
            ("port", State::Fail, |it| it.udp_ports = Some(vec![])),
            ("port", State::Fail, |it| it.has_gateway = false),
            ("mtu", State::Warn, |it| {
                it.mtu.insert("eth0".to_owned(), 1452);
            }),
            ("offload", State::Warn, |it| {
                it.features_off
                    .insert("eth0".to_owned(), vec!["scatter-gather".to_owned()]);
            }),
        ];
        for (check, state, break_it) in breaks {
            let mut facts = well();
            break_it(&mut facts);
            let (found, fix) = worst(&facts, &outline(PEER), check);
            assert_eq!(found, state, "{check}");
            assert!(!fix.is_empty(), "{check}");
        }
    }

    #[test]
    fn routes_in_the_tunnels_way_are_found() {
        let mut facts = well();
        facts
            .routes
            .push(("10.2.3.0".parse().unwrap(), 24, "eth1".to_owned()));
        assert_eq!(worst(&facts, &outline(PEER), "routes").0, State::Warn);
        let mut facts = well();
        facts
            .routes
            .push(("203.0.113.0".parse().unwrap(), 24, "patronus0".to_owned()));
        assert_eq!(worst(&facts, &outline(PEER), "routes").0, State::Fail);
    }

    #[test]
    fn strict_reverse_path_filters_matter_where_there_are_several_uplinks() {
        let mut facts = well();
        facts.rp_filter = [("eth0".to_owned(), 1)].into();
        let lone = outline(PEER);
        assert!(
            checks(&facts, Some(&lone))
                .iter()
                .all(|it| it.check != "rp_filter")
        );
        let two = "[[uplink]]\nname = \"a\"\ninterface = \"eth0\"\n[[uplink]]\nname = \"b\"\ninterface = \"eth1\"\n";
        let two = outline(two);
        assert_eq!(worst(&facts, &two, "rp_filter").0, State::Warn);
        let (state, fix) = worst(&facts, &two, "uplink");
        assert_eq!(state, State::Fail);
        assert!(fix.contains("ip link"));
    }
}
