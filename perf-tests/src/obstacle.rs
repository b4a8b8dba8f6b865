//! What a lab puts in packets' way, all by rtnetlink and each by one message, so that it is there or not there: a link
//! that drops one direction, a bottleneck with its queue.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use crate::Namespace;
use crate::link::{index_of, netlink};

/// Packets of one direction that a router drops without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where they come from.
    pub from: Ipv4Addr,
    /// Where they go.
    pub to: Ipv4Addr,
}

impl Way {
    /// The other direction.
    #[must_use]
    pub fn back(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
        }
    }
}

/// Has a router drop what goes these ways, by policy routing (`ip rule … blackhole`): the kernel sends no ICMP error
/// for it.
///
/// # Errors
/// The kernel's refusal, such as for a way that is dropped already.
pub fn drop_ways(router: &Namespace, ways: &[Way]) -> Result<()> {
    netlink(router, async |handle| {
        for way in ways {
            rule(&handle, *way).execute().await?;
        }
        Ok(())
    })
    .with_context(|| format!("dropping {ways:?} in {}", router.label()))
}

/// Undoes [`drop_ways`].
///
/// # Errors
/// The kernel's refusal, such as for a way that is not dropped.
pub fn pass_ways(router: &Namespace, ways: &[Way]) -> Result<()> {
    netlink(router, async |handle| {
        for way in ways {
            let message = rule(&handle, *way).message_mut().clone();
            handle.rule().del(message).execute().await?;
        }
        Ok(())
    })
    .with_context(|| format!("letting {ways:?} pass in {}", router.label()))
}

/// Lets an interface send no faster than `bits_per_s`, with a tail-drop queue as long as that rate sends in `queue`
/// (a token bucket filter).
///
/// # Errors
/// A rate that no link has, or the kernel's refusal.
pub fn limit_rate(
    namespace: &Namespace,
    name: &str,
    bits_per_s: u64,
    queue: Duration,
) -> Result<()> {
    let bytes_per_s = bits_per_s / 8;
    let queue_bytes = (bytes_per_s as f64 * queue.as_secs_f64()) as u64;
    let (Ok(rate), Ok(limit)) = (u32::try_from(bytes_per_s), u32::try_from(queue_bytes)) else {
        bail!("{bits_per_s} bit/s with a queue of {queue:?}: at most 34 Gbit/s and 4 GB");
    };
    if rate == 0 || limit < BURST_BYTES {
        bail!(
            "{bits_per_s} bit/s with a queue of {queue:?} hold {limit} bytes: at least {BURST_BYTES}"
        );
    }
    let index = i32::try_from(index_of(namespace, name)?).context("an interface's index")?;
    netlink(namespace, async |handle| {
        replace_root_qdisc(handle, index, "tbf", tbf_options(rate, limit)).await
    })
    .with_context(|| {
        format!(
            "limiting {name} in {} to {bits_per_s} bit/s: does this kernel have sch_tbf?",
            namespace.label()
        )
    })
}

fn rule(handle: &Handle, way: Way) -> rtnetlink::RuleAddRequest<Ipv4Addr> {
    handle
        .rule()
        .add()
        .v4()
        .source_prefix(way.from, 32)
        .destination_prefix(way.to, 32)
        .action(RuleAction::Blackhole)
        .priority(RULE_PRIORITY)
}

async fn replace_root_qdisc(
    mut handle: Handle,
    index: i32,
    kind: &str,
    options: Vec<u8>,
) -> Result<(), rtnetlink::Error> {
    let mut message = TcMessage::with_index(index);
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![
        TcAttribute::Kind(kind.to_owned()),
        TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)),
    ];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut replies = handle.request(request)?;
    while let Some(reply) = replies.next().await {
        if let NetlinkPayload::Error(error) = reply.payload {
            return match error.code {
                None => Ok(()),
                Some(_) => Err(rtnetlink::Error::NetlinkError(error)),
            };
        }
    }
    Ok(())
}

/// `TCA_TBF_PARMS`, a `struct tc_tbf_qopt`, and `TCA_TBF_BURST` (linux/pkt_sched.h).
fn tbf_options(bytes_per_s: u32, limit_bytes: u32) -> Vec<u8> {
    // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate. With a link layer given, the kernel
    // needs no table of sizes.
    let mut parameters = vec![0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    parameters.extend(bytes_per_s.to_ne_bytes());
    // No peak rate; then limit, buffer (in ticks, overridden below) and MTU.
    parameters.extend([0; 12]);
    for word in [limit_bytes, 0, 0] {
        parameters.extend(word.to_ne_bytes());
    }
    let mut options = attribute(TCA_TBF_PARMS, &parameters);
    options.extend(attribute(TCA_TBF_BURST, &BURST_BYTES.to_ne_bytes()));
    options
}

/// A netlink attribute; all of ours have lengths that need no padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    debug_assert!(
        value.len().is_multiple_of(4),
        "netlink attributes are padded to 4 bytes"
    );
    let len = u16::try_from(value.len() + 4).expect("our attributes have some dozen bytes");
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes
}

/// Before the main table (32766), after the local one (0).
const RULE_PRIORITY: u32 = 100;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;
/// What may leave at once; also the largest packet, and a GSO train is cut to it.
const BURST_BYTES: u32 = 16 << 10;
