//! A numbered UDP flow at a steady rate, of which every packet's times are kept: when it was sent, and when the
//! receiver's kernel took it from the wire (`SO_TIMESTAMPNS`, socket(7)), however late the receiving thread got its
//! core.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::SockRef;

use super::pace::Pace;
use super::record::{Arrival, Record};
use super::udp::{connected, is_transient};
use super::{Leash, joined};
use crate::Namespace;

/// What a numbered flow looks like on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Packets per second.
    pub rate_pps: f64,
    /// Bytes of UDP payload, at least [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
    /// Its DSCP (RFC 2474), 0 to 63.
    pub dscp: u8,
}

/// A flow under way.
#[derive(Debug)]
pub struct NumberedFlow {
    sending: Leash,
    receiving: Leash,
    shared: Arc<Shared>,
    sender: JoinHandle<Result<Sent>>,
    receiver: JoinHandle<Result<Vec<Arrival>>>,
}

#[derive(Debug, Default)]
struct Shared {
    received: AtomicU64,
    arrived_last_ns: AtomicU64,
}

#[derive(Debug)]
struct Sent {
    at_ns: Vec<u64>,
    refused: u64,
}

impl NumberedFlow {
    /// Starts to send from `from` to `addr` in `to`.
    ///
    /// # Errors
    /// A shape that no packet has, or a socket that cannot be opened.
    pub fn start(from: &Namespace, to: &Namespace, addr: IpAddr, shape: Shape) -> Result<Self> {
        ensure!(
            shape.payload_bytes >= PAYLOAD_BYTES_MIN && shape.dscp < 64 && shape.rate_pps >= 1.0,
            "no numbered flow has {shape:?}"
        );
        let receiver = to
            .run(|| UdpSocket::bind(SocketAddr::new(addr, 0)))?
            .with_context(|| format!("binding a UDP socket to {addr} in {}", to.label()))?;
        let target = receiver
            .local_addr()
            .context("asking for the receiver's port")?;
        let sender = from
            .run(|| connected(target))?
            .with_context(|| format!("opening a UDP socket to {target} in {}", from.label()))?;
        if target.is_ipv4() {
            SockRef::from(&sender).set_tos_v4(u32::from(shape.dscp) << 2)
        } else {
            SockRef::from(&sender).set_tclass_v6(u32::from(shape.dscp) << 2)
        }
        .with_context(|| format!("marking packets with DSCP {}", shape.dscp))?;
        setsockopt(&receiver, sockopt::ReceiveTimestampns, &true)
            .context("asking the kernel for times of arrival")?;
        receiver
            .set_read_timeout(Some(WAKE))
            .and_then(|()| sender.set_write_timeout(Some(WAKE)))
            .context("setting a timeout")?;
        // The kernel caps it at net.core.rmem_max; a second of packets fits the default.
        let _ = SockRef::from(&receiver).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);

        let (sending, receiving) = (Leash::default(), Leash::default());
        let shared = Arc::new(Shared::default());
        let (flag, counts) = (receiving.flag(), Arc::clone(&shared));
        let receiver = std::thread::Builder::new()
            .name("numbered receiver".to_owned())
            .spawn(move || receive(&receiver, shape.payload_bytes, &flag, &counts))
            .context("starting a receiver")?;
        let flag = sending.flag();
        let sender = std::thread::Builder::new()
            .name("numbered sender".to_owned())
            .spawn(move || send(&sender, shape, &flag))
            .context("starting a sender")?;
        Ok(Self {
            sending,
            receiving,
            shared,
            sender,
            receiver,
        })
    }

    /// Packets that have arrived so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// When the last packet arrived, on the clock of [`now_ns`]; 0 while none has.
    pub fn arrived_last_ns(&self) -> u64 {
        self.shared.arrived_last_ns.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is under way, and hands over the record.
    ///
    /// # Errors
    /// A socket that failed.
    pub fn finish(self) -> Result<Record> {
        self.sending.pull();
        let sent = joined(self.sender)?;
        sleep(DRAIN);
        self.receiving.pull();
        let arrivals = joined(self.receiver)?;
        Ok(Record {
            sent_ns: sent.at_ns,
            arrivals,
            refused: sent.refused,
        })
    }
}

/// The time on the clock that the kernel stamps arrivals with, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn send(socket: &UdpSocket, shape: Shape, stop: &AtomicBool) -> Result<Sent> {
    // A sleep of a tick is to last a tick; without it the kernel may add 50 µs.
    let _ = set_timerslack(1);
    let interval = Duration::from_secs_f64(1.0 / shape.rate_pps);
    let tick = interval.max(TICK_MIN);
    let mut pace = Pace::new(shape.rate_pps, tick);
    let mut payload = vec![0x5a_u8; shape.payload_bytes];
    let mut sent = Sent {
        at_ns: Vec::new(),
        refused: 0,
    };
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..pace.due(begun.elapsed()) {
            let at_ns = now_ns();
            payload[..8].copy_from_slice(&pace.sent().to_be_bytes());
            match socket.send(&payload) {
                Ok(_) => {
                    sent.at_ns.push(at_ns);
                    pace.count(1);
                }
                Err(error) if is_refusal(&error) => {
                    sent.refused += 1;
                    break;
                }
                Err(error) => return Err(error).context("sending a numbered packet"),
            }
        }
        let next = interval.mul_f64(pace.sent() as f64);
        sleep(next.saturating_sub(begun.elapsed()).clamp(SLEEP_MIN, tick));
    }
    Ok(sent)
}

fn receive(
    socket: &UdpSocket,
    payload_bytes: usize,
    stop: &AtomicBool,
    counts: &Shared,
) -> Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    // One byte more shows a datagram that is too long.
    let mut payload = vec![0_u8; payload_bytes + 1];
    let mut control = nix::cmsg_space!(TimeSpec);
    while !stop.load(Ordering::Relaxed) {
        let mut slices = [IoSliceMut::new(&mut payload)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let (len, at_ns) = match message {
            Ok(message) => {
                let stamp = message.cmsgs().context("reading a time of arrival")?;
                (message.bytes, stamp.filter_map(stamp_ns).next())
            }
            Err(error) if is_transient(error) => continue,
            Err(error) => return Err(error).context("receiving a numbered packet"),
        };
        ensure!(
            len == payload_bytes,
            "a datagram of {len} bytes arrived, {payload_bytes} were sent"
        );
        let at_ns = at_ns.context("the kernel gave no time of arrival")?;
        let number = payload.first_chunk().copied().map(u64::from_be_bytes);
        let number = number.expect("payloads hold at least the number");
        arrivals.push(Arrival { number, at_ns });
        counts.arrived_last_ns.store(at_ns, Ordering::Relaxed);
        counts.received.fetch_add(1, Ordering::Relaxed);
    }
    Ok(arrivals)
}

fn stamp_ns(message: ControlMessageOwned) -> Option<u64> {
    let ControlMessageOwned::ScmTimestampns(at) = message else {
        return None;
    };
    let seconds = u64::try_from(at.tv_sec()).ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(at.tv_nsec()).ok()?)
}

/// A full queue or an ICMP error of the way under test: the packet was not sent.
fn is_refusal(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(nix::errno::Errno::from_raw);
    errno.is_some_and(is_transient)
}

/// Bytes of payload that hold a number.
pub const PAYLOAD_BYTES_MIN: usize = 8;
/// How often a sender of more than that many packets per second looks what is due.
const TICK_MIN: Duration = Duration::from_micros(100);
const SLEEP_MIN: Duration = Duration::from_micros(20);
/// How often a blocked thread looks whether it should end.
const WAKE: Duration = Duration::from_millis(20);
/// How long packets under way are waited for.
const DRAIN: Duration = Duration::from_millis(300);
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
