//! The LAN program's object without a kernel: its program, its maps, and that `bpf/lan.h` and `lan::layout` have the same
//! structures, by the object's BTF. Needs no privilege.

use std::collections::HashMap;
use std::mem::offset_of;

use aya_obj::{Object, ProgramSection};
use patronus_ebpf::lan::LanReason;
use patronus_ebpf::lan::layout::{
    Addr4, Addr6, Block4, Block6, Class, Counter, End, Head, LanTraffic, Peer, Port, Row, Set, Slot,
};
use patronus_ebpf::objects;

/// A structure: its size and its members with their offsets, in bytes.
type Shape = (u32, Vec<(String, u32)>);

#[test]
fn structures_are_the_same_on_both_sides() {
    let object = Object::parse(objects::LAN).expect("an object");
    let btf = object.btf.expect("BTF").to_bytes();
    let shapes = structures(&btf);
    macro_rules! same {
        ($($rust:ident $c:literal { $($field:ident $member:literal),* })*) => {$(
            let ours: Shape = (
                size_of::<$rust>() as u32,
                vec![$(($member.to_owned(), offset_of!($rust, $field) as u32)),*],
            );
            assert_eq!(shapes.get($c), Some(&ours), "{}", $c);
        )*};
    }
    same! {
        End "lan_end" { class "klass", pod "pod", home "home", host_of "host_of", flags "flags" }
        Addr4 "lan_addr4" { addr "addr", end "end" }
        Addr6 "lan_addr6" { hi "hi", lo "lo", end "end", pad "pad" }
        Class "lan_class" { row "row", flags "flags", pad "pad" }
        Row "lan_row" {
            flags "flags", isolation "isolation", any "any", any_pod "any_pod", peers "peers",
            peers_len "peers_len", blocks4 "blocks4", blocks4_len "blocks4_len", blocks6 "blocks6",
            blocks6_len "blocks6_len"
        }
        Peer "lan_peer" { class "klass", set "set" }
        Block4 "lan_block4" { first "first", set "set" }
        Block6 "lan_block6" { hi "hi", lo "lo", set "set", pad "pad" }
        Set "lan_set" { at "at", other "other", pad "pad" }
        Port "lan_port" {
            first "first", last "last", order "order", counter "counter", action "action"
        }
        Slot "lan_slot" {
            sequence "sequence", tell_ns "tell_ns", flags "flags", seed "seed", addr4 "addr4",
            addr4_mask "addr4_mask", addr6 "addr6", addr6_mask "addr6_mask", classes "classes",
            classes_len "classes_len"
        }
        Head "lan_head" { active "active", pad "pad", slot "slot" }
        LanTraffic "lan_traffic" { packets "packets", bytes "bytes" }
        Counter "lan_counter" {
            packets "packets", bytes "bytes", told_ns "told_ns", fence "fence"
        }
    }
}

#[test]
fn the_object_has_its_program_and_its_maps() {
    let object = Object::parse(objects::LAN).expect("an object");
    let program = object.programs.get("lan_egress").expect("the program");
    assert!(matches!(program.section, ProgramSection::SchedClassifier));
    let sizes = |name: &str| {
        let map = object.maps.get(name).unwrap_or_else(|| panic!("no {name}"));
        (map.key_size(), map.value_size() as usize)
    };
    for (name, value) in [
        ("lan_heads", size_of::<Head>()),
        ("lan_addrs4", size_of::<Addr4>()),
        ("lan_addrs6", size_of::<Addr6>()),
        ("lan_classes", size_of::<Class>()),
        ("lan_rows", size_of::<Row>()),
        ("lan_peers", size_of::<Peer>()),
        ("lan_blocks4", size_of::<Block4>()),
        ("lan_blocks6", size_of::<Block6>()),
        ("lan_sets", size_of::<Set>()),
        ("lan_ports", size_of::<Port>()),
        ("lan_reasons", size_of::<LanTraffic>()),
        ("lan_counters", size_of::<Counter>()),
    ] {
        assert_eq!(sizes(name), (4, value), "{name}");
    }
    let reasons = object.maps["lan_reasons"].max_entries() as usize;
    assert_eq!(reasons, LanReason::ALL.len());
    for (at, reason) in LanReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at);
    }
}

/// The structures of raw BTF (`<linux/btf.h>`), by name.
fn structures(btf: &[u8]) -> HashMap<String, Shape> {
    let word = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().expect("four bytes"));
    let header_len = word(4) as usize;
    let (types, types_len) = (header_len + word(8) as usize, word(12) as usize);
    let strings = header_len + word(16) as usize;
    let name = |offset: u32| {
        let bytes = &btf[strings + offset as usize..];
        let len = bytes.iter().position(|it| *it == 0).expect("an end");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let mut found = HashMap::new();
    let mut at = types;
    while at < types + types_len {
        let (info, size) = (word(at + 4), word(at + 8));
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        if kind == 4 {
            let members = (0..count).map(|member| {
                let at = at + 12 + member * 12;
                (name(word(at)), (word(at + 8) & 0xff_ffff) / 8)
            });
            found.insert(name(word(at)), (size, members.collect()));
        }
        at += 12
            + match kind {
                1 | 14 | 17 => 4,              // int, var, decl_tag
                3 => 12,                       // array
                4 | 5 | 15 | 19 => count * 12, // struct, union, datasec, enum64
                6 | 13 => count * 8,           // enum, func_proto
                _ => 0,
            };
    }
    found
}
