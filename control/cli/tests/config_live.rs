//! Configurations applied to a gateway that runs: kept, taken back by an operator, by the clock, and across a kill.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use common::{Conf, Daemon, Place, can_run, output_of, patronus, until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// `patronus config …` in the gateway's namespace.
fn config(place: &Place, args: &[&str]) -> Output {
    let mut command: Command = patronus();
    command.arg("config").args(args);
    output_of(&place.namespace, &mut command)
}

/// The same with `--json`; the exit code and the document.
fn told(place: &Place, args: &[&str]) -> (i32, Value) {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let output = config(place, &args);
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), document)
}

fn mtu(place: &Place) -> u64 {
    let links = place.ip(&["link", "show", "cfg0"]);
    links[0]["mtu"].as_u64().unwrap()
}

fn conf(mtu: u16) -> Conf {
    let mut conf = Conf::new("cfg0", "10.99.0.1/24");
    conf.mtu = mtu;
    conf
}

/// A file beside the gateway's own.
fn candidate(place: &Place, mtu: u16) -> String {
    let path = place.path("candidate.toml");
    fs::write(&path, conf(mtu).text()).unwrap();
    path.display().to_string()
}

fn events(place: &Place) -> String {
    let query = patronus_api::EventsQuery::default();
    let told = place.ask(|client| client.events(&query)).unwrap();
    let texts = told.events.into_iter().map(|it| it.text);
    texts.collect::<Vec<_>>().join("\n")
}

fn restart(place: &Place) -> Daemon {
    place.start_with("cfg0", &mut place.run_command())
}

#[test]
fn a_file_is_compared_applied_recorded_and_taken_back() {
    if !can_run() {
        return;
    }
    let place = Place::new("config-apply");
    let daemon = place.start(&conf(1420));
    let file = candidate(&place, 1380);

    let (code, plan) = told(&place, &["diff", &file]);
    assert_eq!((code, mtu(&place)), (0, 1420));
    assert_eq!(plan["changes"][0]["key"], "site.mtu");
    let (code, plan) = told(&place, &["apply", &file, "--dry-run"]);
    assert_eq!((code, plan["done"].as_bool()), (0, Some(false)));
    assert_eq!(mtu(&place), 1420);

    let (code, done) = told(&place, &["apply", &file]);
    assert_eq!((code, mtu(&place)), (0, 1380), "{done}");
    assert_eq!(done["number"], 2);
    // The file on disk is what runs; what it was is in the history.
    let own = fs::read_to_string(place.path("patronus.toml")).unwrap();
    assert_eq!(own, conf(1380).text());
    let first = config(&place, &["show", "1"]);
    assert_eq!(String::from_utf8(first.stdout).unwrap(), conf(1420).text());

    let (code, done) = told(&place, &["rollback"]);
    assert_eq!((code, mtu(&place)), (0, 1420), "{done}");
    assert_eq!(done["number"], 3);
    let (code, history) = told(&place, &["history"]);
    assert_eq!((code, history["running"].as_u64()), (0, Some(3)));
    assert_eq!(history["file_state"], "same");
    let entry = place.path("state/config-cfg0/000001.toml");
    assert_eq!(
        fs::metadata(entry).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let people = config(&place, &["history"]).stdout;
    let people = String::from_utf8(people).unwrap();
    assert!(
        people.lines().all(|it| it.chars().count() <= 80),
        "{people}"
    );
    assert!(events(&place).contains("configuration 3 from entry 1 is in force by user 0"));
    daemon.stop();
}

#[test]
fn a_faulty_file_changes_nothing_and_is_explained() {
    if !can_run() {
        return;
    }
    let place = Place::new("config-faulty");
    let daemon = place.start(&conf(1420));
    let path = place.path("bad.toml");
    fs::write(&path, conf(1420).text().replace("mtu = 1420", "mtu = 14")).unwrap();
    let output = config(
        &place,
        &["apply", &path.display().to_string(), "--confirm", "1m"],
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("mtu") && said.contains("nothing was changed"),
        "{said}"
    );
    let (code, history) = told(&place, &["history"]);
    assert_eq!((code, history["entries"].as_array().unwrap().len()), (0, 1));

    // A port that another socket has: it is found out when it is applied.
    let taken = place
        .namespace
        .run(|| std::net::UdpSocket::bind("0.0.0.0:51999").unwrap());
    let mut other = conf(1380);
    other.port = 51999;
    fs::write(&path, other.text()).unwrap();
    let output = config(
        &place,
        &["apply", &path.display().to_string(), "--confirm", "1m"],
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), mtu(&place)),
        (Some(1), 1420),
        "{said}"
    );
    let (code, history) = told(&place, &["history"]);
    assert_eq!(
        (code, history["running"].as_u64()),
        (0, Some(1)),
        "{history}"
    );
    assert_eq!(history["entries"][0]["fate"], "failed");
    drop(taken);
    daemon.stop();
}

#[test]
fn what_nobody_confirms_is_taken_back_by_the_clock_and_the_file_is_left_alone() {
    if !can_run() {
        return;
    }
    let place = Place::new("config-clock");
    let mut daemon = place.start(&conf(1420));
    // Edited in place, as operators do.
    place.configure(&conf(1300));
    let (code, done) = told(&place, &["apply", "--confirm", "5s"]);
    assert_eq!((code, mtu(&place)), (0, 1300), "{done}");
    assert_eq!(done["pending"]["previous"], 1);
    // Nothing else is taken meanwhile.
    let other = config(&place, &["apply", &candidate(&place, 1380)]);
    assert_eq!(other.status.code(), Some(1));
    daemon.reload();
    assert_eq!(mtu(&place), 1300);
    until("it went back", || mtu(&place) == 1420);
    until("it said so", || {
        events(&place).contains("configuration 1 is back, 2 is not in force")
    });
    let own = fs::read_to_string(place.path("patronus.toml")).unwrap();
    assert_eq!(own, conf(1300).text(), "the operator's file was touched");
    let (code, history) = told(&place, &["history"]);
    assert_eq!(
        (code, history["file_state"].as_str()),
        (3, Some("superseded"))
    );

    // Neither SIGHUP nor a start takes what was reverted; an operator may.
    daemon.reload();
    assert_eq!(mtu(&place), 1420);
    daemon.stop();
    let daemon = restart(&place);
    assert_eq!(mtu(&place), 1420);
    assert!(events(&place).contains("started with configuration 1"));
    let (code, _) = told(&place, &["apply"]);
    assert_eq!((code, mtu(&place)), (0, 1300));
    daemon.stop();
    // An edit counts at the next start, as ever.
    place.configure(&conf(1340));
    let daemon = restart(&place);
    assert_eq!(mtu(&place), 1340);
    daemon.stop();
}

#[test]
fn the_deadline_outlives_a_kill_and_so_does_the_confirmation() {
    if !can_run() {
        return;
    }
    let place = Place::new("config-kill");
    let mut daemon = place.start(&conf(1420));
    let file = candidate(&place, 1310);
    let (code, _) = told(&place, &["apply", &file, "--confirm", "1h"]);
    assert_eq!((code, mtu(&place)), (0, 1310));
    daemon.signal(Signal::SIGKILL);
    daemon.wait_end(Duration::from_secs(10));
    let mut daemon = restart(&place);
    assert_eq!(
        mtu(&place),
        1310,
        "the candidate goes on until its deadline"
    );
    let (_, history) = told(&place, &["history"]);
    assert_eq!(history["pending"]["number"], 2);
    let (code, _) = told(&place, &["confirm"]);
    assert_eq!(code, 0);
    let own = fs::read_to_string(place.path("patronus.toml")).unwrap();
    assert_eq!(own, conf(1310).text());

    // The time is over while nobody runs.
    let file = candidate(&place, 1290);
    let (code, _) = told(&place, &["apply", &file, "--confirm", "5s"]);
    assert_eq!((code, mtu(&place)), (0, 1290));
    daemon.signal(Signal::SIGKILL);
    daemon.wait_end(Duration::from_secs(10));
    std::thread::sleep(Duration::from_millis(5500));
    daemon = restart(&place);
    assert_eq!(mtu(&place), 1310);
    assert!(events(&place).contains("configuration 3 was not confirmed in time"));
    daemon.stop();
}

#[test]
fn a_candidate_that_cannot_be_started_gives_way_to_what_was_before() {
    if !can_run() {
        return;
    }
    let place = Place::new("config-start");
    let mut daemon = place.start(&conf(1420));
    // It takes effect at the next start, where it is found out that no tunnel can have this name.
    let path = place.path("candidate.toml");
    let text = conf(1330)
        .text()
        .replace("interface = \"cfg0\"", "interface = \"lo\"");
    fs::write(&path, text).unwrap();
    let file = path.display().to_string();
    let (code, done) = told(&place, &["apply", &file, "--confirm", "1h"]);
    assert_eq!((code, mtu(&place)), (0, 1330), "{done}");
    assert_eq!(done["at_next_start"][0], "[site] interface");
    daemon.signal(Signal::SIGKILL);
    daemon.wait_end(Duration::from_secs(10));
    let daemon = restart(&place);
    assert_eq!(mtu(&place), 1420);
    assert!(events(&place).contains("configuration 2 could not be started and was taken back"));
    let (code, history) = told(&place, &["history"]);
    assert_eq!(
        (code, history["running"].as_u64()),
        (0, Some(1)),
        "{history}"
    );
    assert_eq!(history["entries"][0]["fate"], "failed");
    daemon.stop();
}

#[test]
fn a_state_folder_that_refuses_is_said_and_only_promises_are_refused() {
    if !can_run() {
        return;
    }
    let place = Place::new("config-disk");
    let daemon = place.start(&conf(1420));
    // In the way of what is written, also for root.
    let state = place.path("state/config-cfg0");
    fs::create_dir(state.join(".index.json.new")).unwrap();
    let file = candidate(&place, 1380);
    let output = config(&place, &["apply", &file, "--confirm", "1m"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), mtu(&place)),
        (Some(1), 1420),
        "{said}"
    );
    assert!(said.contains("cannot be recorded"), "{said}");
    let (code, done) = told(&place, &["apply", &file]);
    assert_eq!((code, mtu(&place)), (3, 1380), "{done}");
    assert!(
        done["warnings"][0]
            .as_str()
            .unwrap()
            .contains("not recorded")
    );
    let (code, history) = told(&place, &["history"]);
    assert_eq!(code, 3);
    assert!(history["problem"].is_string());
    daemon.stop();
}

#[test]
fn defaults_are_a_configuration_and_verbs_without_a_gateway_exit_with_five() {
    let output = patronus().args(["config", "defaults"]).output().unwrap();
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("mtu = 1420")
    );
    let json = patronus()
        .args(["config", "defaults", "--json"])
        .output()
        .unwrap();
    let keys: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(
        keys.as_array()
            .unwrap()
            .iter()
            .any(|it| it["key"] == "mtu" && it["default"] == "1420")
    );
    for verb in ["history", "confirm", "rollback", "apply", "diff", "show"] {
        let output = patronus()
            .args(["config", verb, "--socket", "/nowhere/patronus.sock"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(5), "{verb}");
    }
}
