//! The built programs, as they are loaded. `build-objects` makes them from `bpf/`.

/// `bpf/steer.bpf.c`: datagrams to the worker that owns their session.
pub static STEER: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/objects/steer.o"));

/// `bpf/wan.bpf.c`: the WAN side.
pub static WAN: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/objects/wan.o"));
