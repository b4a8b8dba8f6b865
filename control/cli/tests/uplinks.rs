//! A gateway with several uplinks: interfaces come and go under it, and traffic uses those that are there.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::{Conf, Pair, Place, can_run, has};

/// The lines of a second uplink.
const LTE: &str = "[[uplink]]\nname = \"lte\"\ninterface = \"wwan0\"\nmetered = true\ncost = 100\n";

fn two_uplinks(conf: &mut Conf, first: &str) {
    conf.uplink = format!("interface = \"{first}\"\n\n{LTE}");
}

#[test]
fn a_gateway_starts_without_its_interfaces_and_takes_them_when_they_appear() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    let mut conf = Conf::new("patronus0", "10.255.0.1/24");
    two_uplinks(&mut conf, "eth7");
    let mut daemon = place.start(&conf);
    for interface in ["eth7", "wwan0"] {
        daemon.wait_for(&format!(
            "uplink has no interface: it is used as soon as that appears uplink=\"{}\" interface=\"{interface}\"",
            if interface == "eth7" { "wan" } else { "lte" }
        ));
    }
    place.ip_do("link add wwan0 type veth peer name tower");
    place.ip_do("link set tower up");
    place.ip_do("link set wwan0 up");
    place.ip_do("addr add 10.7.0.1/24 dev wwan0");
    daemon.wait_for("uplink works uplink=\"lte\"");
    place.ip_do("link set tower down");
    daemon.wait_for("uplink has no carrier uplink=\"lte\"");
    place.ip_do("link del wwan0");
    daemon.wait_for_nth(
        "uplink has no interface: it is used as soon as that appears uplink=\"lte\"",
        2,
    );
    daemon.stop();
}

#[test]
fn traffic_goes_over_the_uplink_that_is_there_and_a_reload_changes_uplinks_without_an_error() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let mut pair = Pair::up(|conf| two_uplinks(conf, "wan0"));
    pair.reach();
    pair.one.wait_for("uplink works uplink=\"wan\"");

    // The other uplink appears, has a way to nowhere, and is taken out again.
    pair.place_one
        .ip_do("link add wwan0 type veth peer name tower");
    pair.place_one.ip_do("link set tower up");
    pair.place_one.ip_do("link set wwan0 up");
    pair.place_one.ip_do("addr add 10.7.0.1/24 dev wwan0");
    pair.one.wait_for("uplink works uplink=\"lte\"");
    pair.reach();
    for uplink in [
        "interface = \"wan0\"\n".to_owned(),
        String::new(),
        pair.conf_one.uplink.clone(),
    ] {
        let mut conf = pair.conf_one.clone();
        conf.uplink = uplink;
        pair.place_one.configure(&conf);
        pair.one.reload();
        assert!(!pair.one.log().contains("ERROR"), "{}", pair.one.log());
        pair.reach();
    }

    // Down and up again; the routes that the kernel forgets meanwhile are the operator's to restore.
    let shown = pair.place_one.ip(&["route", "show", "dev", "wan0"]);
    let routes: Vec<String> = shown
        .as_array()
        .unwrap()
        .iter()
        .filter_map(route_text)
        .collect();
    pair.place_one.ip_do("link set wan0 down");
    pair.one.wait_for("uplink is switched off uplink=\"wan\"");
    pair.place_one.ip_do("link set wan0 up");
    pair.one.wait_for_nth("uplink works uplink=\"wan\"", 2);
    for route in routes {
        pair.place_one
            .ip_do(&format!("route replace {route} dev wan0"));
    }
    pair.reach();
    assert!(!pair.one.log().contains("ERROR"), "{}", pair.one.log());
    pair.one.stop();
}

/// Destination and gateway of a route that the kernel did not make by itself.
fn route_text(route: &serde_json::Value) -> Option<String> {
    let to = route["dst"].as_str().unwrap();
    let via = route["gateway"].as_str();
    let is_kernels = route["protocol"] == "kernel";
    (!is_kernels).then(|| via.map_or(to.to_owned(), |via| format!("{to} via {via}")))
}
