//! The corpus: packets of every kind, truncated, hostile, each with the outcome it must have, replayed through
//! parser, cutter and joiner; then the same with seeded random damage, where nothing may panic and all promises
//! must hold.
//!
//! A corpus file has comments (`#`), one line `expect: OUTCOME`, and lines of hex: one packet a line, in
//! `corpus/frame` the vnet header (little endian) before it. `PATRONUS_FUZZ_ROUNDS` and `PATRONUS_FUZZ_SEED`
//! (numbers) make longer and other runs.

mod common;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use common::{Dice, TCP, UDP, check_join, finish_checksums, has_right_checksums};
use patronus_packet::cut::SEAL_OVERHEAD;
use patronus_packet::vnet::VNET_HEADER_LEN;
use patronus_packet::{
    Cutter, Fragment, FrameBuf, GsoKind, Joining, Padding, TunFrame, VnetHeader, parse,
};

struct Case {
    name: String,
    expect: String,
    lines: Vec<Vec<u8>>,
}

fn corpus(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let mut cases: Vec<Case> = fs::read_dir(&folder)
        .expect("the corpus is in the tree")
        .map(|entry| read_case(&entry.expect("a readable entry").path()))
        .collect();
    cases.sort_by(|left, right| left.name.cmp(&right.name));
    assert!(cases.len() >= 8, "the corpus in {folder:?} is gone");
    cases
}

fn read_case(path: &Path) -> Case {
    let text = fs::read_to_string(path).expect("a readable file");
    let mut expect = String::new();
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("expect: ") {
            Some(outcome) => expect = outcome.to_owned(),
            None => lines.push(from_hex(line)),
        }
    }
    Case {
        name: path.display().to_string(),
        expect,
        lines,
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hex: {text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
        .collect()
}

/// The outcome of parsing, in words.
fn parse_outcome(lines: &[Vec<u8>]) -> String {
    let bytes = lines.first().map_or(&[][..], Vec::as_slice);
    match parse(bytes) {
        Err(error) => format!("{error:?}"),
        Ok(info) => {
            assert!(info.transport_offset <= info.payload_offset);
            assert!(info.payload_offset <= info.total_len);
            assert!(usize::from(info.total_len) <= bytes.len());
            format!(
                "{:?} {:?} {:?} {}/{}/{}",
                info.version,
                info.fragment,
                (info.protocol(), info.key.src_port, info.key.dst_port),
                info.transport_offset,
                info.payload_offset,
                info.total_len
            )
        }
    }
}

/// The outcome of cutting, in words; checks all that the cutter promises.
fn cut_outcome(lines: &[Vec<u8>]) -> String {
    let [header, packet, ..] = lines else {
        return "no frame".to_owned();
    };
    let mut wire = [0; VNET_HEADER_LEN];
    wire[..2].copy_from_slice(&header[..2]);
    for at in (2..VNET_HEADER_LEN).step_by(2) {
        let word = u16::from_le_bytes([header[at], header[at + 1]]);
        wire[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    }
    let mut frame = TunFrame {
        vnet: VnetHeader::from_bytes(&wire),
        buf: FrameBuf::from_data(packet),
    };
    let vnet = frame.vnet;
    let info = match parse(frame.buf.data()) {
        Ok(info) => info,
        Err(error) => return format!("{error:?}"),
    };
    let padding = Padding { mtu: 1420 };
    let is_superpacket = vnet.gso_kind() != Some(GsoKind::None);
    let mut cutter = match Cutter::new(&mut frame, &info) {
        Ok(cutter) => cutter,
        Err(error) => return format!("{error:?}"),
    };
    let (count, sealed_max) = (cutter.segments(), cutter.sealed_len_max());
    let (mut seen, mut sealed, mut payload) = (0, 0, Vec::new());
    while let Some(segment) = cutter.next_segment(padding) {
        let (bytes, zeros) = segment.padded.split_at(segment.packet_len);
        assert!(zeros.iter().all(|byte| *byte == 0));
        seen += 1;
        sealed += segment.padded.len() + SEAL_OVERHEAD;
        payload.extend_from_slice(&bytes[usize::from(info.payload_offset)..]);
        if [TCP, UDP].contains(&info.protocol()) {
            let cut = parse(segment.padded).expect("a segment is a packet");
            assert_eq!((cut.key, cut.tos), (info.key, info.tos));
            assert_eq!(usize::from(cut.total_len), segment.packet_len);
        }
        if is_superpacket {
            assert!(bytes.len() - usize::from(info.payload_offset) <= vnet.gso_size.into());
            assert!(!info.is_plain() || has_right_checksums(bytes));
        }
    }
    assert_eq!(seen, count);
    assert!(sealed <= sealed_max);
    let original = &packet[usize::from(info.payload_offset)..usize::from(info.total_len)];
    if is_superpacket || !vnet.needs_csum() {
        assert_eq!(payload, original);
    }
    format!("{count} segments")
}

/// The outcome of joining, in words: packets per write.
fn join_outcome(lines: &[Vec<u8>]) -> String {
    let joining = Joining {
        tcp: true,
        udp: true,
    };
    format!("writes of {:?}", check_join(lines, joining))
}

/// Damages a case: bits, bytes, words, lengths, and the order of lines.
fn mutate(lines: &mut Vec<Vec<u8>>, dice: &mut Dice, has_vnet: bool) {
    let at_line = dice.below(lines.len());
    let is_vnet = has_vnet && at_line == 0;
    let line = &mut lines[at_line];
    let at = dice.below(line.len());
    match dice.below(if is_vnet { 3 } else { 8 }) {
        _ if line.is_empty() => line.push(dice.roll() as u8),
        0 => line[at] ^= 1 << dice.below(8),
        1 => line[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
        2 => {
            let word = [0u16, 1, 20, 40, 0x7fff, 0xffff][dice.below(6)];
            let end = (at + 2).min(line.len());
            line[at..end].copy_from_slice(&word.to_be_bytes()[..end - at]);
        }
        3 => line.truncate(at),
        4 => {
            let more = dice.below(40);
            line.extend(dice.bytes(more));
        }
        5 if !has_vnet => {
            let copy = line.clone();
            lines.push(copy);
        }
        6 if !has_vnet => {
            let other = dice.below(lines.len());
            lines.swap(at_line, other);
        }
        // Headers are where it hurts.
        _ => {
            let at = dice.below(at.min(64));
            line[at] = dice.roll() as u8;
        }
    }
}

/// Makes checksums right again, so that damage elsewhere gets past them.
fn repair(bytes: &mut Vec<u8>) {
    let Ok(info) = parse(bytes) else { return };
    let is_checked = [TCP, UDP].contains(&info.protocol());
    if is_checked && info.is_plain() && info.fragment == Fragment::None {
        bytes.truncate(usize::from(info.total_len));
        finish_checksums(bytes);
    }
}

fn number_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

/// Replays a folder, then damages each of its cases many times.
fn replay_and_fuzz(folder: &str, outcome: fn(&[Vec<u8>]) -> String) {
    let cases = corpus(folder);
    for case in &cases {
        assert_eq!(outcome(&case.lines), case.expect, "{}", case.name);
    }
    let rounds = number_from_env("PATRONUS_FUZZ_ROUNDS", 1500);
    let seed = number_from_env("PATRONUS_FUZZ_SEED", 20_240_917);
    for case in &cases {
        for round in 0..rounds {
            let round_seed = seed.wrapping_add(round.wrapping_mul(0x1234_5678_9abc_def1));
            let mut dice = Dice(round_seed);
            let mut lines = case.lines.clone();
            for _ in 0..=dice.below(4) {
                mutate(&mut lines, &mut dice, folder == "frame");
            }
            if folder == "join" && dice.below(2) == 0 {
                lines.iter_mut().for_each(repair);
            }
            let result = panic::catch_unwind(AssertUnwindSafe(|| outcome(&lines)));
            assert!(
                result.is_ok(),
                "{}: PATRONUS_FUZZ_SEED={round_seed} PATRONUS_FUZZ_ROUNDS=1 repeats it",
                case.name
            );
        }
    }
}

#[test]
fn the_parser_holds_its_promises() {
    replay_and_fuzz("parse", parse_outcome);
}

#[test]
fn the_cutter_holds_its_promises() {
    replay_and_fuzz("frame", cut_outcome);
}

#[test]
fn the_joiner_holds_its_promises() {
    replay_and_fuzz("join", join_outcome);
}
