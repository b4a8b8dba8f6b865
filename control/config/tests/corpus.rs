//! Every file of `testdata` through its parser: the bad ones must be refused in the words that they
//! expect, the good ones must pass, and none of them, nor any mutation, may panic.

#![allow(clippy::unwrap_used)] // Helpers outside `#[test]` functions count as code elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use patronus_config::load::SecretError;
use patronus_config::wg_quick::{self, Imported};
use patronus_config::{
    Classes, Config, ConfigErrors, KeyText, LanHook, Name, Pinning, Ports, Rate, RouteTable,
    Summary, WanHook, WhenUnreachable,
};
use patronus_path::{Bounds, Scoring};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use zeroize::Zeroizing;

/// RFC 7748, section 6.1: Alice's private key. It stands in many of the files.
const ALICE_PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
/// The same key clamped, as `wg` and we write it.
const ALICE_CLAMPED: &str = "cAdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LGo=";
/// What the two have in common: no message may show it.
const ALICE_PART: &str = "CnMYpX08FsFy";

#[test]
fn every_bad_file_is_refused_in_the_words_that_it_expects() {
    let files = files("bad");
    assert!(files.len() >= 30, "only {} bad files", files.len());
    for (name, text) in files {
        let errors = config(&text, &name).expect_err(&name);
        assert_refused(&name, &text, &errors);
    }
}

#[test]
fn every_good_file_passes() {
    for (name, text) in files("good") {
        if let Err(errors) = config(&text, &name) {
            panic!("{errors}");
        }
    }
}

#[test]
fn every_bad_wg_quick_file_is_refused_in_the_words_that_it_expects() {
    for (name, text) in files("wg-quick/bad") {
        let errors = import(&text, &name).expect_err(&name);
        assert_refused(&name, &text, &errors);
    }
}

#[test]
fn every_good_wg_quick_file_becomes_a_configuration_without_secrets() {
    for (name, text) in files("wg-quick/good") {
        let imported = import(&text, &name).unwrap_or_else(|errors| panic!("{errors}"));
        assert_expected(&name, &text, "# note: ", &imported.notes.join("\n"));
        assert!(
            !imported.toml.contains(ALICE_PART),
            "{name} gives a secret away"
        );
        assert!(
            !format!("{imported:?}").contains(ALICE_PART),
            "{name} gives a secret away"
        );
        loaded(&imported);
    }
}

#[test]
fn a_full_file_sets_every_value() {
    let text = fs::read_to_string(testdata().join("good/full.toml")).unwrap();
    let config = config(&text, "full.toml").unwrap();
    let (site, dataplane, uplinks) = (&config.site, &config.dataplane, &config.uplinks);
    let uplink = uplinks.lone().unwrap();
    assert_eq!(site.private_key.to_base64().as_str(), ALICE_CLAMPED);
    assert_eq!(site.interface.as_str(), "patronus7");
    assert_eq!(site.mtu.bytes(), 8920);
    assert_eq!(site.routes.map(RouteTable::number), Some(77));
    assert_eq!(site.addresses[0].to_string(), "10.255.0.1/24");
    assert_eq!(dataplane.workers.map(|workers| workers.count()), Some(2));
    assert!(matches!(&dataplane.pinning, Pinning::Cores(cores) if cores.cores() == [0, 1]));
    assert_eq!(dataplane.flow_slots.count(), 131_072);
    assert_eq!(dataplane.offload.to_string(), "no-uso");
    assert!(dataplane.spin.to_duration().is_zero());
    assert_eq!(dataplane.socket_buffer.bytes(), 8 << 20);
    assert_eq!((uplink.name.as_str(), uplinks.listen_port), ("fiber", 0));
    assert_eq!(
        uplink
            .interface
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
        Some("eth0")
    );
    assert_eq!(uplinks.mark.map(|mark| mark.number()), Some(0xca6c));
    let [branch, hub] = &config.peers[..] else {
        panic!("{:?}", config.peers)
    };
    assert_eq!(branch.name.as_ref().map(Name::as_str), Some("branch"));
    assert_eq!(
        branch.keepalive.map(|keepalive| keepalive.seconds()),
        Some(25)
    );
    assert!(branch.preshared_key.is_some());
    let allowed_ips: Vec<String> = branch.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(allowed_ips, ["0.0.0.0/0", "10.2.0.0/16", "fd00:2::/48"]);
    assert_eq!(
        hub.endpoint.as_ref().unwrap().to_string(),
        "hub1.example.net:51820"
    );
    assert_eq!(
        (hub.name.as_ref(), hub.keepalive, hub.allowed_ips.len()),
        (None, None, 0)
    );
}

#[test]
fn a_minimal_file_takes_the_documented_defaults() {
    let text = fs::read_to_string(testdata().join("good/minimal.toml")).unwrap();
    let config = config(&text, "minimal.toml").unwrap();
    let (site, dataplane, uplinks) = (&config.site, &config.dataplane, &config.uplinks);
    let uplink = uplinks.lone().unwrap();
    assert_eq!(
        (site.interface.as_str(), site.mtu.bytes()),
        ("patronus0", 1420)
    );
    assert_eq!(site.routes, Some(RouteTable::MAIN));
    assert_eq!(
        (dataplane.workers, &dataplane.pinning),
        (None, &Pinning::AllowedCores)
    );
    assert_eq!(
        (dataplane.flow_slots.count(), dataplane.offload.to_string()),
        (65536, "auto".to_owned())
    );
    assert_eq!(
        (
            dataplane.spin.to_duration().as_micros(),
            dataplane.socket_buffer.bytes()
        ),
        (20, 4 << 20)
    );
    assert_eq!((uplink.name.as_str(), uplinks.listen_port), ("wan", 51820));
    assert_eq!(
        (&uplink.interface, uplinks.mark, config.peers.len()),
        (&None, None, 0)
    );
    let prefilter = &config.prefilter;
    assert_eq!(
        (prefilter.wan, prefilter.bogons, prefilter.known_receivers),
        (WanHook::Auto, false, false)
    );
    let limit = prefilter.initiations;
    assert_eq!((limit.per_second(), limit.burst()), (50, 200));
}

#[test]
fn the_section_of_the_pre_filter_sets_every_value() {
    let text = fs::read_to_string(testdata().join("good/prefilter.toml")).unwrap();
    let prefilter = config(&text, "prefilter.toml").unwrap().prefilter;
    let interfaces: Vec<&str> = prefilter.interfaces.iter().map(|it| it.as_str()).collect();
    assert_eq!(interfaces, ["eth0", "wwan0"]);
    let lists = [
        Path::new("blocked.txt"),
        Path::new("/var/lib/lists/drop.txt"),
    ];
    assert_eq!(prefilter.block_lists, lists);
    let limit = prefilter.initiations;
    assert_eq!((limit.per_second(), limit.burst()), (20, 40));
    assert!(prefilter.bogons && prefilter.known_receivers);
    let hooks = (prefilter.wan, prefilter.lan);
    assert_eq!(hooks, (WanHook::XdpGeneric, LanHook::Auto));
}

#[test]
fn several_uplinks_addresses_and_classes_set_every_value() {
    let text = fs::read_to_string(testdata().join("good/paths.toml")).unwrap();
    let config = config(&text, "paths.toml").unwrap();
    let uplinks = &config.uplinks;
    assert_eq!((uplinks.listen_port, uplinks.count()), (51830, 3));
    assert_eq!(uplinks.mark.map(|mark| mark.number()), Some(7));
    assert!(uplinks.lone().is_none());
    let said: Vec<String> = uplinks
        .iter()
        .map(|uplink| {
            let mbit = |rate: Option<Rate>| rate.map(|rate| rate.bps() / 1e6);
            format!(
                "{} {:?} {} {:?} {:?} {} {:?}",
                uplink.name,
                uplink.interface.as_ref().map(ToString::to_string),
                uplink.cost,
                mbit(uplink.up),
                mbit(uplink.down),
                uplink.is_metered,
                (
                    uplink.probing.active.as_millis(),
                    uplink.probing.idle.as_millis(),
                    uplink.probing.multiplier
                ),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "fiber Some(\"eth0\") 10 Some(500.0) Some(500.5) false (50, 1000, 5)",
            "dsl Some(\"ppp0\") 20 None None false (100, 2000, 3)",
            "lte Some(\"wwan0\") 100 None None true (200, 1000, 5)",
        ]
    );
    let endpoints = |at: usize| -> Vec<(String, u16)> {
        let endpoints = config.peers[at].endpoints();
        endpoints
            .map(|(endpoint, cost)| (endpoint.to_string(), cost))
            .collect()
    };
    let owned = |list: &[(&str, u16)]| -> Vec<(String, u16)> {
        let list = list.iter();
        list.map(|(text, cost)| ((*text).to_owned(), *cost))
            .collect()
    };
    assert_eq!(
        endpoints(0),
        owned(&[
            ("203.0.113.7:51820", 0),
            ("[2001:db8::7]:51820", 0),
            ("lte.example.net:51820", 30)
        ])
    );
    assert_eq!(endpoints(1), owned(&[("198.51.100.7:51820", 5)]));

    let classes = &config.classes;
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "realtime",
            "interactive",
            "default",
            "bulk",
            "backup",
            "erp"
        ]
    );
    let order: Vec<usize> = classes.by_order().map(|(at, _)| at).collect();
    assert_eq!(order, [4, 5, 0, 1, 2, 3]);
    assert_eq!(classes.default_class(), 5);
    let class = |name: &str| {
        let found = classes.iter().find(|class| class.name.as_str() == name);
        found.unwrap().clone()
    };
    let realtime = class("realtime");
    assert_eq!(realtime.scoring, Scoring::Voice);
    assert_eq!(realtime.dscp, 1 << 46 | 1 << 34);
    assert_eq!(
        realtime.ports,
        [
            Ports {
                protocol: 17,
                first: 5060,
                last: 5060
            },
            Ports {
                protocol: 17,
                first: 16384,
                last: 32767
            }
        ]
    );
    assert!(realtime.protect);
    assert_eq!(
        realtime.latency_ms,
        Some(Bounds {
            soft: 100.0,
            hard: 300.5
        })
    );
    let prefer: Vec<&str> = realtime.prefer.iter().map(Name::as_str).collect();
    assert_eq!(prefer, ["dsl", "fiber"]);
    let backup = class("backup");
    assert_eq!(backup.scoring, Scoring::Throughput { target_bps: 20e6 });
    assert_eq!((backup.latency_ms, backup.jitter_ms), (None, None));
    assert_eq!(backup.remote[0].to_string(), "10.9.0.0/16");
    let erp = class("erp");
    assert_eq!(
        erp.scoring,
        Scoring::Weighted {
            latency: 0.5,
            jitter: 0.25,
            loss: 0.25
        }
    );
    // What the file does not say stays as it is by default.
    assert_eq!(class("bulk"), *Classes::default().iter().last().unwrap());
    let shown = Summary::new("paths.toml", &config).to_string();
    assert!(
        shown.contains("port 51830, 3 uplinks, 3 classes\n"),
        "{shown}"
    );
    assert!(shown.contains("\n  2 peers, "), "{shown}");
}

#[test]
fn a_wg_quick_file_carries_over_what_it_says() {
    let text = fs::read_to_string(testdata().join("wg-quick/good/wg0.conf")).unwrap();
    let config = loaded(&import(&text, "wg0.conf").unwrap());
    assert_eq!(
        (config.site.name.as_str(), config.site.interface.as_str()),
        ("wg0", "wg0")
    );
    assert_eq!(config.site.private_key.to_base64().as_str(), ALICE_CLAMPED);
    let addresses: Vec<String> = config
        .site
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        addresses,
        ["10.255.0.1/24", "fd00:255::1/64", "192.0.2.1/32"]
    );
    assert_eq!(
        (config.site.mtu.bytes(), config.uplinks.listen_port),
        (1380, 51820)
    );
    assert_eq!(config.site.routes, Some(RouteTable::MAIN));
    let [branch] = &config.peers[..] else {
        panic!("{:?}", config.peers)
    };
    assert_eq!(
        branch.endpoint.as_ref().unwrap().to_string(),
        "branch.example.net:51820"
    );
    assert_eq!(branch.allowed_ips.len(), 3);
    assert_eq!(
        branch.keepalive.map(|keepalive| keepalive.seconds()),
        Some(25)
    );
    assert_eq!(branch.preshared_key.as_ref().unwrap().as_bytes(), &[3; 32]);
}

#[test]
fn a_default_route_is_imported_without_routes_and_with_a_mark_to_route_by() {
    let text = fs::read_to_string(testdata().join("wg-quick/good/default-route.conf")).unwrap();
    let config = loaded(&import(&text, "default-route.conf").unwrap());
    assert_eq!(config.site.routes, None);
    assert_eq!(config.uplinks.mark.map(|mark| mark.number()), Some(51820));
    assert_eq!(
        config.uplinks.listen_port, 0,
        "wg-quick without ListenPort takes any free port"
    );
}

#[test]
fn a_default_route_in_a_table_of_its_own_keeps_its_routes() {
    let text =
        fs::read_to_string(testdata().join("wg-quick/good/default-route-own-table.conf")).unwrap();
    let config = loaded(&import(&text, "default-route-own-table.conf").unwrap());
    assert_eq!(config.site.routes.map(RouteTable::number), Some(1234));
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/corpus.regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_text_panics_either_parser(text in "(?s).{0,300}") {
        survive(&text);
    }

    #[test]
    fn no_text_made_of_the_right_words_panics_either_parser(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..40),
    ) {
        survive(&words.concat());
    }

    #[test]
    fn no_mutation_of_a_known_file_panics_either_parser(
        file in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec(
            (any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), any::<u8>(), any::<char>()), 1..6,
        ),
    ) {
        let corpus: Vec<(String, String)> =
            ["good", "bad", "wg-quick/good", "wg-quick/bad"].iter().flat_map(|folder| files(folder)).collect();
        let mut letters: Vec<char> = file.get(&corpus).1.chars().collect();
        for (at, other, kind, letter) in edits {
            let size = letters.len();
            if size == 0 {
                break;
            }
            let (at, other) = (at.index(size), other.index(size));
            match kind % 5 {
                0 => letters[at] = letter,
                1 => letters.insert(at, letter),
                2 => drop(letters.remove(at)),
                3 => letters.swap(at, other),
                _ => {
                    let copied: Vec<char> = letters[at.min(other)..at.max(other)].to_vec();
                    letters.splice(at..at, copied);
                }
            }
        }
        survive(&letters.into_iter().collect::<String>());
    }
}

const WORDS: &[&str] = &[
    "[site]\n",
    "[dataplane]\n",
    "[[uplink]]\n",
    "[class.realtime]\n",
    "endpoints = [{ address = \"198.51.100.7:51820\", cost = 5 }]\n",
    "dscp = [\"ef\", 34]\n",
    "[[peer]]\n",
    "[prefilter]\n",
    "wan = ",
    "block_lists = ",
    "[Interface]\n",
    "[Peer]\n",
    "name = ",
    "private_key_file = ",
    "addresses = ",
    "mtu = ",
    "routes = ",
    "table = ",
    "cpus = ",
    "public_key = ",
    "allowed_ips = ",
    "endpoint = ",
    "PrivateKey = ",
    "PublicKey = ",
    "AllowedIPs = ",
    "Endpoint = ",
    "Table = ",
    "\"hq\"\n",
    "\"hq.key\"\n",
    "[\"0.0.0.0/0\", \"fd00::/7\"]\n",
    "7\n",
    "-1\n",
    "9999999999999999999\n",
    "true\n",
    "[]\n",
    "[1, [2]]\n",
    "\"[::1]:1\"\n",
    "10.0.0.0/8, ::/0\n",
    "off\n",
    "x:1\n",
    "{",
    "}",
    "\n",
    "\r\n",
    "=",
    "#",
    "\"\"\"",
    "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n",
    "\"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n",
];

/// Runs both parsers. What they refuse must name a line of the text; what they take must hold together.
fn survive(text: &str) {
    let lines = text.split('\n').count();
    for result in [
        config(text, "f").map(drop),
        import(text, "f").map(|imported| drop(loaded(&imported))),
    ] {
        let Err(errors) = result else { continue };
        assert!(!errors.diagnostics().is_empty());
        for diagnostic in errors.diagnostics() {
            assert!(!diagnostic.message.is_empty());
            assert!(
                diagnostic
                    .message
                    .chars()
                    .all(|letter| !letter.is_control()),
                "{diagnostic:?}"
            );
            assert!(
                diagnostic.line.is_none_or(|line| line.get() <= lines),
                "{diagnostic:?} of {lines}"
            );
        }
    }
}

fn config(text: &str, origin: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, origin)?.resolve(|file| {
        let contents = match file.to_str() {
            Some("hq.key") => format!("{ALICE_PRIVATE}\n"),
            Some("branch.psk") => format!("{ALICE_PRIVATE}\n"),
            Some("short.key") => "dwdtCnMYpX\n".to_owned(),
            Some("zero.key") => format!("{}=\n", "A".repeat(43)),
            Some("two-lines.key") => format!("{ALICE_PRIVATE}\n{ALICE_PRIVATE}\n"),
            Some(_) | None => return Err(SecretError::Missing(file.to_owned())),
        };
        Ok(Zeroizing::new(contents))
    })
}

fn import(text: &str, file_name: &str) -> Result<Imported, ConfigErrors> {
    let stem = file_name.strip_suffix(".conf").unwrap_or(file_name);
    wg_quick::import(text, file_name, stem)
}

/// The configuration that an import makes, read back by our own parser.
fn loaded(imported: &Imported) -> Config {
    let draft = Config::parse(&imported.toml, "imported")
        .unwrap_or_else(|errors| panic!("{errors}\n{}", imported.toml));
    let named: Vec<PathBuf> = draft.secret_files().map(Path::to_owned).collect();
    let written: Vec<PathBuf> = imported
        .secrets
        .iter()
        .map(|secret| secret.file.clone())
        .collect();
    assert_eq!(named, written);
    let read = |file: &Path| {
        let secret = imported
            .secrets
            .iter()
            .find(|secret| secret.file == file)
            .unwrap();
        Ok(secret.contents.clone())
    };
    draft
        .resolve(read)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// As many faults as the file expects, in its words: a fault must not drag others behind it.
fn assert_refused(name: &str, text: &str, errors: &ConfigErrors) {
    let shown = errors.to_string();
    assert!(!shown.contains(ALICE_PART), "{name} gives a secret away");
    assert_expected(name, text, "# expect: ", &shown);
    let expected = text
        .lines()
        .filter(|line| line.starts_with("# expect: "))
        .count();
    assert_eq!(errors.diagnostics().len(), expected, "{name} gets\n{shown}");
}

fn assert_expected(name: &str, text: &str, marker: &str, found: &str) {
    for fragment in text.lines().filter_map(|line| line.strip_prefix(marker)) {
        assert!(
            found.contains(fragment),
            "{name} expects\n  {fragment}\nand gets\n  {found}"
        );
    }
    assert!(
        marker == "# note: " || text.starts_with(marker),
        "{name} expects nothing"
    );
}

fn files(folder: &str) -> Vec<(String, String)> {
    let folder = testdata().join(folder);
    let mut files: Vec<(String, String)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files.sort();
    files
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

#[test]
fn classes_by_labels_and_checks_of_prefixes_set_every_value() {
    let text = fs::read_to_string(testdata().join("good/matches.toml")).unwrap();
    let config = config(&text, "matches.toml").unwrap();
    let class = |name: &str| {
        let mut classes = config.classes.iter();
        classes.find(|class| class.name.as_str() == name).unwrap()
    };
    let labels = |pairs: &[(&str, &str)]| -> patronus_policy::model::Labels {
        let texts = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        texts.collect()
    };
    let (staff, guests) = (labels(&[("team", "sales")]), labels(&[("team", "guests")]));
    for (name, pod, namespace, is_in) in [
        (
            "voip",
            labels(&[("app", "voip"), ("tier", "gold")]),
            &staff,
            true,
        ),
        (
            "voip",
            labels(&[("app", "voip"), ("tier", "tin")]),
            &staff,
            false,
        ),
        ("voip", labels(&[("phone", "")]), &staff, true),
        (
            "voip",
            labels(&[("phone", ""), ("legacy", "")]),
            &staff,
            false,
        ),
        ("voip", labels(&[("phone", "")]), &guests, false),
        ("guests", labels(&[]), &guests, true),
        ("guests", labels(&[]), &staff, false),
        ("bulk", labels(&[("app", "backup")]), &guests, true),
        ("realtime", labels(&[("app", "voip")]), &staff, false),
    ] {
        assert_eq!(
            class(name).pods.matches(&pod, namespace),
            is_in,
            "{name} {pod:?}"
        );
    }
    // What is added by labels takes nothing away.
    assert_ne!(class("bulk").dscp, 0);

    let [v4, v6] = config.peers[0].via.as_slice() else {
        panic!("{:?}", config.peers[0].via)
    };
    assert_eq!(
        (v4.prefix.to_string(), v4.probes.len()),
        ("10.2.0.0/16".to_owned(), 2)
    );
    assert_eq!((v4.interval.as_millis(), v4.misses), (500, 3));
    assert_eq!(v4.unreachable, WhenUnreachable::Detour);
    assert_eq!(v6.prefix.to_string(), "fd00:2::/64");
    assert_eq!((v6.interval.as_millis(), v6.misses), (1000, 5));
    assert_eq!(v6.unreachable, WhenUnreachable::Send);
}
