//! The built programs, as they are loaded. `build-objects` makes them from `bpf/`.

/// `bpf/steer.bpf.c`: datagrams to the worker that owns their session.
pub static STEER: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/objects/steer.o"));

/// `bpf/wan.bpf.c`: the WAN side.
pub static WAN: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/objects/wan.o"));

/// `bpf/generator.bpf.c`: floods for benchmarks.
pub static GENERATOR: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/objects/generator.o"));

/// `bpf/lan.bpf.c`: the LAN side.
pub static LAN: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/objects/lan.o"));
