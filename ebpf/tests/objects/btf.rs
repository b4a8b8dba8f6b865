//! As much of BTF (`Documentation/bpf/btf.rst`) as it takes to see the members of a struct; aya keeps its own reading
//! to itself.
#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::collections::BTreeMap;

/// The structs of an object.
pub struct Btf {
    structs: BTreeMap<String, Struct>,
}

struct Struct {
    size: usize,
    members: Vec<(String, usize)>,
}

impl Btf {
    pub fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) & 0xffff, 0xeb9f);
        let header_len = word(4) as usize;
        let (types_at, types_len) = (header_len + word(8) as usize, word(12) as usize);
        let strings_at = header_len + word(16) as usize;
        let name = |offset: u32| {
            let from = &bytes[strings_at + offset as usize..];
            let len = from.iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(from[..len].to_vec()).unwrap()
        };
        let mut structs = BTreeMap::new();
        let mut at = types_at;
        while at < types_at + types_len {
            let info = word(at + 4);
            let (kind, count) = (info >> 24 & 31, info as usize & 0xffff);
            let body = at + 12;
            if kind == STRUCT {
                let members = (0..count).map(|n| body + 12 * n);
                let members = members.map(|at| (name(word(at)), word(at + 8) as usize / 8));
                let members = members.collect();
                let size = word(at + 8) as usize;
                structs.insert(name(word(at)), Struct { size, members });
            }
            at = body
                + match kind {
                    INT | VAR | DECL_TAG => 4,
                    ARRAY => 12,
                    STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
                    ENUM | FUNC_PROTO => 8 * count,
                    _ => 0,
                };
        }
        Self { structs }
    }

    /// Members with their offsets in bytes.
    pub fn members(&self, name: &str) -> Vec<(&str, usize)> {
        let members = &self.structs[name].members;
        members
            .iter()
            .map(|(name, at)| (name.as_str(), *at))
            .collect()
    }

    pub fn size(&self, name: &str) -> usize {
        self.structs[name].size
    }
}

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;
