//! The committed objects: built from the sources beside them, with the types that this crate has. No privilege needed.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

#[path = "objects/btf.rs"]
mod btf;

use std::path::Path;
use std::process::Command;

use aya_obj::generated::bpf_map_type::*;
use aya_obj::{Object, ProgramSection};
use btf::Btf;
use patronus_ebpf::wan_abi::{
    USES_LIMIT, USES_RECEIVERS, USES_SOURCES4, USES_SOURCES6, WAN_PLACES, WanConfigValue,
    WanCounterValue, WanCountersValue, WanRateKey, WanSource4, WanSource6,
};
use patronus_ebpf::{Entry, SourceVerdict, WanReason, objects};

/// A difference that only another release of the compiler makes is no mistake of ours.
const COMPILER: &str = "14.0.6";

#[test]
fn the_committed_objects_are_what_the_sources_build() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    match Command::new("clang-14").arg("--version").output() {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains(COMPILER) => {}
        Ok(output) => {
            let version = String::from_utf8_lossy(&output.stdout);
            let first = version.lines().next().unwrap_or_default();
            println!("skipped: clang-14 is not {COMPILER}: {first}");
            return;
        }
        Err(error) => {
            let required =
                std::env::var("PATRONUS_REQUIRE_ROOT_TESTS").is_ok_and(|value| value == "1");
            assert!(!required, "clang-14: {error}: apt-get install clang-14");
            println!("skipped: clang-14: {error}");
            return;
        }
    }
    let into = std::env::temp_dir().join(format!("patronus-objects-{}", std::process::id()));
    std::fs::create_dir(&into).unwrap();
    let status = Command::new(here.join("build-objects"))
        .arg(&into)
        .status()
        .unwrap();
    let built: Vec<_> = std::fs::read_dir(&into)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect();
    std::fs::remove_dir_all(&into).unwrap();
    assert!(status.success());
    assert!(!built.is_empty());
    for (name, bytes) in built {
        let committed = std::fs::read(here.join("objects").join(&name)).unwrap_or_default();
        assert!(
            committed == bytes,
            "objects/{} is not what bpf/ builds: run ebpf/build-objects and commit the result",
            name.display()
        );
    }
}

#[test]
fn the_wan_object_has_the_programs() {
    let object = Object::parse(objects::WAN).unwrap();
    assert_eq!(object.programs.len(), Entry::ALL.len());
    for entry in Entry::ALL {
        let section = &object.programs[entry.program()].section;
        match entry {
            Entry::XdpNative | Entry::XdpGeneric => {
                assert!(
                    matches!(section, ProgramSection::Xdp { frags: true, .. }),
                    "{section:?}"
                );
            }
            Entry::Tc | Entry::TcIp => {
                assert!(
                    matches!(section, ProgramSection::SchedClassifier),
                    "{section:?}"
                );
            }
        }
        // The kernel cuts longer names.
        assert!(entry.program().len() <= 15);
    }
    assert_eq!(object.license.to_str().unwrap(), "Apache-2.0");
}

#[test]
fn the_wan_object_has_the_maps() {
    let object = Object::parse(objects::WAN).unwrap();
    let maps = [
        (
            "WAN_CONFIG",
            BPF_MAP_TYPE_ARRAY,
            4,
            size_of::<WanConfigValue>(),
            1,
        ),
        ("WAN_PORTS", BPF_MAP_TYPE_ARRAY, 4, 8, 65536 / 64),
        (
            "WAN_COUNTERS",
            BPF_MAP_TYPE_PERCPU_ARRAY,
            4,
            size_of::<WanCountersValue>(),
            WAN_PLACES,
        ),
        ("WAN_SOURCES4", BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1),
        ("WAN_SOURCES6", BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1),
        (
            "WAN_RECEIVERS",
            BPF_MAP_TYPE_HASH,
            4,
            4,
            patronus_ebpf::WanFilter::RECEIVERS_MAX as u32,
        ),
        (
            "WAN_RATES",
            BPF_MAP_TYPE_LRU_HASH,
            size_of::<WanRateKey>(),
            8,
            65536,
        ),
    ];
    assert_eq!(object.maps.len(), maps.len());
    for (name, kind, key, value, entries) in maps {
        let map = &object.maps[name];
        let found = (map.map_type(), map.key_size(), map.max_entries());
        assert_eq!(found, (kind as u32, key as u32, entries), "{name}");
        // The value of a map of maps is a descriptor, which nobody declares.
        if kind != BPF_MAP_TYPE_ARRAY_OF_MAPS {
            assert_eq!(map.value_size(), value as u32, "{name}");
        }
    }
    for (name, key) in [
        ("WAN_SOURCES4", size_of::<WanSource4>()),
        ("WAN_SOURCES6", size_of::<WanSource6>()),
    ] {
        let inner = object.maps[name].inner().unwrap();
        let found = (
            inner.map_type(),
            inner.key_size(),
            inner.value_size(),
            inner.map_flags(),
        );
        let wanted = (
            BPF_MAP_TYPE_LPM_TRIE as u32,
            key as u32,
            size_of::<SourceVerdict>() as u32,
            1,
        );
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn the_types_of_the_wan_object_are_ours() {
    let object = Object::parse(objects::WAN).unwrap();
    let btf = Btf::parse(&object.btf.unwrap().to_bytes());
    assert_eq!(
        btf.members("wan_config"),
        [
            (
                "interval_ns",
                std::mem::offset_of!(WanConfigValue, interval_ns)
            ),
            (
                "tolerance_ns",
                std::mem::offset_of!(WanConfigValue, tolerance_ns)
            ),
            ("flags", std::mem::offset_of!(WanConfigValue, flags)),
            ("v4_mask", std::mem::offset_of!(WanConfigValue, v4_mask)),
            ("v6_mask", std::mem::offset_of!(WanConfigValue, v6_mask)),
        ]
    );
    assert_eq!(btf.size("wan_config"), size_of::<WanConfigValue>());
    assert_eq!(
        btf.members("wan_counter"),
        [
            ("packets", std::mem::offset_of!(WanCounterValue, packets)),
            ("bytes", std::mem::offset_of!(WanCounterValue, bytes)),
        ]
    );
    assert_eq!(btf.size("wan_counter"), size_of::<WanCounterValue>());
    assert_eq!(
        btf.members("wan_counters"),
        [
            ("seen", std::mem::offset_of!(WanCountersValue, seen)),
            ("reason", std::mem::offset_of!(WanCountersValue, reason)),
        ]
    );
    assert_eq!(btf.size("wan_counters"), size_of::<WanCountersValue>());
    assert_eq!(btf.members("wan_rate_key"), [("addr", 0)]);
    assert_eq!(btf.size("wan_rate_key"), size_of::<WanRateKey>());
}

/// Enumerators leave no trace in the object; the source is the one place where C has them.
#[test]
fn the_numbers_of_the_wan_source_are_ours() {
    let source = include_str!("../bpf/wan.bpf.c");
    let names = |head: &str| -> Vec<(String, Option<u32>)> {
        let body = source.split(head).nth(1).unwrap();
        let body = body.split("};").next().unwrap();
        body.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| match entry.split_once(" = ") {
                Some((name, value)) => (name.to_owned(), value.parse().ok()),
                None => (entry.to_owned(), None),
            })
            .collect()
    };
    let reasons = names("enum wan_reason {");
    for (reason, (name, _)) in WanReason::ALL.into_iter().zip(&reasons) {
        assert_eq!(*name, format!("WAN_{}", reason.as_str().to_uppercase()));
        assert_eq!(
            reason as usize,
            WanReason::ALL
                .iter()
                .position(|one| *one == reason)
                .unwrap()
        );
        assert_eq!(reason.is_drop(), name.starts_with("WAN_DROP_"));
    }
    assert_eq!(reasons[WanReason::ALL.len()].0, "WAN_REASONS");
    let owned = |pairs: &[(&str, u32)]| -> Vec<(String, Option<u32>)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some(*value)))
            .collect()
    };
    let flags = [
        ("WAN_USES_LIMIT", USES_LIMIT),
        ("WAN_USES_RECEIVERS", USES_RECEIVERS),
        ("WAN_USES_SOURCES4", USES_SOURCES4),
        ("WAN_USES_SOURCES6", USES_SOURCES6),
    ];
    assert_eq!(names("enum wan_flag {"), owned(&flags));
    let sources = [
        ("WAN_SOURCE_ALLOWED", SourceVerdict::Allowed as u32),
        ("WAN_SOURCE_BLOCKED", SourceVerdict::Blocked as u32),
        ("WAN_SOURCE_BOGON", SourceVerdict::Bogon as u32),
    ];
    assert_eq!(names("enum wan_source {"), owned(&sources));
}

#[test]
fn the_steering_object_has_its_program_and_its_sockets() {
    let object = Object::parse(objects::STEER).unwrap();
    let section = &object.programs["wan_steer"].section;
    assert!(
        matches!(section, ProgramSection::SkReuseport { .. }),
        "{section:?}"
    );
    let map = &object.maps["STEER_SOCKETS"];
    // aya takes sockets by descriptors of 4 bytes.
    let found = (map.map_type(), map.key_size(), map.value_size());
    assert_eq!(found, (BPF_MAP_TYPE_REUSEPORT_SOCKARRAY as u32, 4, 4));
    assert_eq!(map.max_entries(), patronus_ebpf::Steering::WORKERS_MAX);
}
