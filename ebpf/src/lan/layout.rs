//! The structures of `bpf/lan.h`, byte by byte. A test compares them with the object's BTF.

#![expect(unsafe_code, reason = "plain data of maps as bytes")]

use super::tables::{LanAction, LanDirection, LanLayer, LanProtocol};

/// No class, pod, node, row, port set or entry.
pub const NONE: u32 = u32::MAX;
/// [`Slot::flags`]: flows may live that the rows deny.
pub const SLOT_KEEP: u32 = 1;
/// [`Slot::flags`]: denied packets are answered, and only user space can.
pub const SLOT_ANSWER: u32 = 2;
/// [`Slot::flags`]: not every IPv4 address found a place.
pub const SLOT_PARTIAL4: u32 = 4;
/// [`Slot::flags`]: not every IPv6 address found a place.
pub const SLOT_PARTIAL6: u32 = 8;
/// [`End::flags`]: user space alone can tell whose it is.
pub const END_ASK: u32 = 1;
/// [`End::flags`]: the cell is taken.
pub const END_USED: u32 = 2;
/// [`Class::flags`] and [`Row::flags`]: user space judges.
pub const ASK: u32 = 1;
/// Addresses are searched in so many cells from where their hash points to.
pub const PROBES: u32 = 32;

/// Plain data of maps: any bytes are a value, and a value has no bytes that are nobody's.
///
/// # Safety
/// The type is `repr(C)`, made of integers alone, and without padding.
pub unsafe trait Cell: Copy + Default + PartialEq + Send + 'static {}

macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        // No padding: the fields are as long as the whole.
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*);

        // SAFETY:
        // - `repr(C)`, and every field is an integer, an array of them, or such a structure
        // - no padding, by the assertion above
        unsafe impl Cell for $name {}

        // SAFETY: as above.
        unsafe impl aya::Pod for $name {}
    )*};
}

cells! {
    /// Who answers on an address.
    End {
        /// The class of the pod, or [`NONE`].
        class: u32,
        /// The pod, or [`NONE`].
        pod: u32,
        /// The node on which it lives, or [`NONE`].
        home: u32,
        /// The node whose own address this is, or [`NONE`].
        host_of: u32,
        /// [`END_ASK`], [`END_USED`].
        flags: u32,
    }
    /// A cell of the IPv4 addresses.
    Addr4 {
        /// Host order.
        addr: u32,
        /// Whose it is.
        end: End,
    }
    /// A cell of the IPv6 addresses.
    Addr6 {
        /// The upper half, host order.
        hi: u64,
        /// The lower half.
        lo: u64,
        /// Whose it is.
        end: End,
        /// Zero.
        pad: u32,
    }
    /// A class of pods.
    Class {
        /// Its rows, by [`row_place`].
        row: [u32; 6],
        /// [`ASK`].
        flags: u32,
        /// Zero.
        pad: u32,
    }
    /// A row.
    Row {
        /// [`ASK`].
        flags: u32,
        /// The counter of what no rule allows.
        isolation: u32,
        /// The port set of what is no pod, where no block is named.
        any: u32,
        /// The port set of pods that are not listed.
        any_pod: u32,
        /// Where its peers begin.
        peers: u32,
        /// How many there are.
        peers_len: u32,
        /// Where its IPv4 blocks begin.
        blocks4: u32,
        /// How many there are.
        blocks4_len: u32,
        /// Where its IPv6 blocks begin.
        blocks6: u32,
        /// How many there are.
        blocks6_len: u32,
    }
    /// A peer of a row; sorted by class.
    Peer {
        /// Its class.
        class: u32,
        /// Its port set.
        set: u32,
    }
    /// The addresses from here on; sorted, and the first one is the family's lowest.
    Block4 {
        /// Host order.
        first: u32,
        /// Their port set.
        set: u32,
    }
    /// The same for IPv6.
    Block6 {
        /// The upper half, host order.
        hi: u64,
        /// The lower half.
        lo: u64,
        /// Their port set.
        set: u32,
        /// Zero.
        pad: u32,
    }
    /// A port set: where the intervals of TCP, UDP and SCTP begin and end.
    Set {
        /// Four bounds of three stretches.
        at: [u32; 4],
        /// The entry of every other protocol, or [`NONE`].
        other: u32,
        /// Zero.
        pad: u32,
    }
    /// An interval of ports; sorted, without overlaps.
    Port {
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
        /// The lowest of several look-ups counts.
        order: u32,
        /// The counter of its rule.
        counter: u32,
        /// As [`action_number`] has it.
        action: u32,
    }
    /// What a slot holds.
    Slot {
        /// Which write this is; 0: nothing is in force here, or it is being written.
        sequence: u64,
        /// One denied packet of a counter and CPU goes to user space in this time; 0: none does.
        tell_ns: u64,
        /// `SLOT_…`.
        flags: u32,
        /// Of the addresses' hash.
        seed: u32,
        /// Where the IPv4 addresses begin.
        addr4: u32,
        /// How many cells they have, less one.
        addr4_mask: u32,
        /// Where the IPv6 addresses begin.
        addr6: u32,
        /// How many cells they have, less one.
        addr6_mask: u32,
        /// Where the classes begin.
        classes: u32,
        /// How many there are.
        classes_len: u32,
    }
    /// Which slot counts, and both.
    Head {
        /// 0 or 1.
        active: u32,
        /// Zero.
        pad: u32,
        /// Both.
        slot: [Slot; 2],
    }
    /// Packets and bytes.
    LanTraffic {
        /// Packets: the segments of a superpacket.
        packets: u64,
        /// Bytes of IP.
        bytes: u64,
    }
    /// What was dropped under a rule.
    Counter {
        /// Packets: the segments of a superpacket.
        packets: u64,
        /// Bytes of IP.
        bytes: u64,
        /// When user space was last told; the kernel's coarse monotonic clock.
        told_ns: u64,
        /// Nothing: additions to it are barriers.
        fence: u64,
    }
}

/// What became of a packet, and why. All but one pass to user space, which judges them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum LanReason {
    /// No policy is in force in the program.
    Off,
    /// The rows allow it.
    Allowed,
    /// The rows deny it as a connection of its own, but it may belong to one that they allow, or that is kept.
    Reply,
    /// The rows cannot tell.
    Ask,
    /// A later fragment, or one of IPv6: it follows the first one of its packet.
    Fragment,
    /// An ICMP error: it follows the flow that it quotes.
    Error,
    /// IPv6 extension headers.
    Extension,
    /// No packet that user space would take; it counts it.
    Malformed,
    /// Denied, and passed all the same, so that user space tells of it or answers it.
    Told,
    /// The policy changed while it was judged.
    Changed,
    /// Denied, and dropped.
    Denied,
}

impl LanReason {
    /// All of them, by their number.
    pub const ALL: [Self; 11] = [
        Self::Off,
        Self::Allowed,
        Self::Reply,
        Self::Ask,
        Self::Fragment,
        Self::Error,
        Self::Extension,
        Self::Malformed,
        Self::Told,
        Self::Changed,
        Self::Denied,
    ];

    /// Whether the packet goes on to user space.
    pub fn passes(self) -> bool {
        self != Self::Denied
    }

    /// As metrics and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Allowed => "allowed",
            Self::Reply => "may_be_reply",
            Self::Ask => "ask_user_space",
            Self::Fragment => "fragment",
            Self::Error => "icmp_error",
            Self::Extension => "extension_header",
            Self::Malformed => "malformed",
            Self::Told => "denied_told",
            Self::Changed => "policy_changed",
            Self::Denied => "denied",
        }
    }
}

/// Where a class has the row of a direction and layer.
pub fn row_place(direction: LanDirection, layer: LanLayer) -> usize {
    let layer = match layer {
        LanLayer::Admin => 0,
        LanLayer::Network => 1,
        LanLayer::Baseline => 2,
    };
    match direction {
        LanDirection::Ingress => layer,
        LanDirection::Egress => 3 + layer,
    }
}

/// Where a port set has its intervals of a protocol; `None` is [`Set::other`].
pub fn lane(protocol: LanProtocol) -> Option<usize> {
    match protocol {
        LanProtocol::Tcp => Some(0),
        LanProtocol::Udp => Some(1),
        LanProtocol::Sctp => Some(2),
        LanProtocol::Other => None,
    }
}

/// The number of an action.
pub fn action_number(action: LanAction) -> u32 {
    match action {
        LanAction::Accept => 0,
        LanAction::Deny => 1,
        LanAction::Pass => 2,
    }
}

/// Where an IPv4 address is searched first, before the mask.
pub fn hash4(addr: u32, seed: u32) -> u32 {
    (u64::from(addr ^ seed).wrapping_mul(MULTIPLIER) >> 32) as u32
}

/// The same for IPv6.
pub fn hash6(hi: u64, lo: u64, seed: u32) -> u32 {
    let hash = (hi ^ u64::from(seed)).wrapping_mul(MULTIPLIER);
    ((lo ^ hash ^ (hash >> 32)).wrapping_mul(MULTIPLIER) >> 32) as u32
}

/// Fibonacci hashing: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
