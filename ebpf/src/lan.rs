//! The LAN side: policy's rows as a twin in the kernel, which drops at the door of the TUN what the dataplane would
//! drop behind it, and leaves the rest to the dataplane.
//!
//! ```text
//! LanTables --pack--> one slot of the maps --flip--> lan_egress on the TUN --> dropped, or on to user space
//!     \--Twin: the same in a few lines of Rust, for tests
//! ```
//!
//! # Where
//!
//! Traffic control's egress hook of the TUN (tcx, or clsact before Linux 6.6). It sees exactly the packets that the
//! dataplane reads, after routing and NAT, and as it reads them: without Ethernet header, superpackets whole. Ingress of
//! the interfaces towards the site would see packets earlier, and other ones: what the kernel routes elsewhere, and
//! addresses that NAT rewrites on the way. A verdict there would not be the dataplane's, so it is not offered.
//!
//! # What may be dropped
//!
//! The dataplane knows flows and the rows do not. A packet is dropped only where the rows decide alone, whatever the
//! flow table holds (`policing.rs` of the engine; K is the connection that the packet would open):
//!
//! - **It opens a connection** (TCP SYN without ACK, SCTP INIT, echo request). Where the flow was allowed under this
//!   very policy and this side opened it, K is allowed, so the rows do not deny it. In all other cases (no flow; one that
//!   the other side opened; one of an earlier policy; one that is kept, denied or cut) the engine judges K, or remembers
//!   what it judged under this policy. So it drops if and only if the rows deny K.
//! - **It is any other packet, and `keep_established` is off.** It passes the engine only with a flow that is allowed
//!   under this policy, or as the first packet of K. Such a flow was opened by one of the two sides, and judged for it:
//!   as K, or as K's answer, source for destination. A flow of an earlier policy is judged anew for the side that opened
//!   it. So where the rows deny K and deny K's reverse, the engine drops, and this program does. Where the reverse is
//!   allowed, or flows are kept, the packet passes: it may be a reply.
//! - **Not by itself:** ICMP errors follow the flow that they quote, later fragments the first one of their packet;
//!   IPv6 packets with extension headers are not read. All pass. So does what the engine calls malformed, which it drops
//!   under that name. First fragments of IPv4 have all headers and are judged like whole packets.
//! - **The rows cannot tell:** an address that several pods claim; a row with named ports inside blocks, asked about a
//!   pod; whatever found no place in the maps. It passes.
//! - **Somebody wants to hear of it:** with `answers_denials` nothing is dropped, for only user space can answer. Else one
//!   denied packet per rule, CPU and `tell_interval` passes, so that events and denied connections are told as ever,
//!   at the rate at which the dataplane tells of one rule.
//!
//! Policies in audit mode are not in the rows: what only they would deny passes and is told by user space.
//!
//! Dropping a packet that the engine would drop also keeps it from the flow table. Nothing depends on that entry but
//! this: a denied flow without entry is judged again, with the same end. An allowed one of an earlier policy is not cut
//! by a packet that never came, and is judged with the next one that does, with the same end again; only ICMP errors about
//! it, which judge nothing, pass a little earlier where yet another policy allows it again. A cut flow (2 h idle for TCP)
//! is not kept cut by attempts that never reach the dataplane. And where several workers share a site, one that remembers
//! a flow of an earlier policy judges that before it asks its siblings: a reply whose ports served a connection the
//! other way under that policy may be lost once, as it is where that worker was silent in between.
//!
//! # When
//!
//! [`LanFilter::publish`] writes a policy into the slot that is not in use and flips one word; a program reads that word
//! once per packet, and before it drops looks whether the slot is still the same. So no packet is judged by half a policy
//! or by two. Kernel and workers change over at different moments; both judge what passes, so what either of them
//! denies is not delivered. Publish here first, and workers after: once they allow something, so does the kernel. If that
//! fails, [`suspend`](LanFilter::suspend) before the workers change.
//!
//! # How much
//!
//! Maps are as large as the policy needs, twice, and grow by a new copy of the program ([`LanLimits`]). What finds no
//! place even in the largest is left to user space and named in [`LanOverflow`]: that is closed, because everything that
//! passes here is judged there, while dropping it would break what the policy allows.

mod arrays;
mod filter;
mod image;
pub mod layout;
mod limits;
pub mod packet;
mod tables;
mod trial;
mod twin;

pub use filter::{LanError, LanFilter, LanOptions, LanStats};
pub use image::LanOverflow;
pub use layout::{LanReason, LanTraffic};
pub use limits::LanLimits;
pub use tables::{
    LanAction, LanAddress, LanBlock, LanDirection, LanLayer, LanPeer, LanPeerOf, LanPort,
    LanProtocol, LanRow, LanSubject, LanTables,
};
pub use trial::LanTrials;
pub use twin::{Said, Twin};
