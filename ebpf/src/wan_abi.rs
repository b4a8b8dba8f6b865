//! The values of the WAN program's maps, byte by byte as `bpf/wan.bpf.c` has them. A test compares names, offsets and
//! sizes with what the compiler wrote into the object (BTF).

#![expect(unsafe_code, reason = "plain data of maps as bytes")]

use aya::Pod;
use aya::maps::lpm_trie::Key;

use crate::wan::WanReason;

/// `enum wan_flag`: initiations are limited.
pub const USES_LIMIT: u32 = 1;
/// `enum wan_flag`: unknown receivers are dropped.
pub const USES_RECEIVERS: u32 = 2;
/// `enum wan_flag`: there is a list of IPv4 sources.
pub const USES_SOURCES4: u32 = 4;
/// `enum wan_flag`: there is a list of IPv6 sources.
pub const USES_SOURCES6: u32 = 8;

/// `struct wan_config`, the one entry of `WAN_CONFIG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WanConfigValue {
    /// Nanoseconds between two initiations of one prefix at the permitted rate.
    pub interval_ns: u64,
    /// How far ahead of that rate a prefix may be, in ns.
    pub tolerance_ns: u64,
    /// Sum of the `USES_` flags.
    pub flags: u32,
    /// What of an IPv4 source names its prefix, in network order.
    pub v4_mask: [u8; 4],
    /// What of an IPv6 source names its prefix, in network order.
    pub v6_mask: [u8; 16],
}

/// `struct wan_counter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WanCounterValue {
    /// Frames; a train of datagrams is one.
    pub packets: u64,
    /// Bytes of those frames, with their headers.
    pub bytes: u64,
}

/// Entries of `WAN_COUNTERS`: a power of two.
pub const WAN_PLACES: u32 = 64;

/// `struct wan_counters`, an entry of `WAN_COUNTERS` on each CPU: that of the interfaces with these low bits of their index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WanCountersValue {
    /// All frames, counted before they are judged.
    pub seen: WanCounterValue,
    /// Frames by how they ended, by the number of [`WanReason`].
    pub reason: [WanCounterValue; WanReason::ALL.len()],
}

/// `struct wan_rate_key`: an IPv6 prefix, or an IPv4 one as `::ffff:a.b.c.d`; the key of `WAN_RATES`.
pub type WanRateKey = [u8; 16];

/// `struct wan_source4`, the key of the lists in `WAN_SOURCES4`.
pub type WanSource4 = Key<[u8; 4]>;

/// `struct wan_source6`, the key of the lists in `WAN_SOURCES6`.
pub type WanSource6 = Key<[u8; 16]>;

// SAFETY:
// - plain integers and arrays of them without padding: any bytes are a value, and all bytes are initialised;
// - `repr(C)`: the compiler keeps the order.
unsafe impl Pod for WanConfigValue {}
// SAFETY: as above.
unsafe impl Pod for WanCounterValue {}
// SAFETY: as above.
unsafe impl Pod for WanCountersValue {}

const _: () = assert!(size_of::<WanConfigValue>() == 8 + 8 + 4 + 4 + 16);
const _: () = assert!(size_of::<WanCountersValue>() == 16 * (1 + WanReason::ALL.len()));
