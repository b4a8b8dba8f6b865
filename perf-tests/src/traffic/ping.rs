//! Echo requests on a fixed schedule (ICMP, RFC 792; ICMPv6, RFC 4443), without the `ping` program.
//!
//! The schedule does not wait for answers: a reply that is late shows as a long round trip, never as a request
//! that was not sent (coordinated omission).

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use super::Leash;
use crate::Namespace;

/// A thread that pings one target until it is told to finish.
#[derive(Debug)]
pub struct Pinger {
    stop: Leash,
    thread: JoinHandle<Result<PingResult>>,
}

/// What came of a series of echo requests.
#[derive(Clone, Debug)]
pub struct PingResult {
    /// Round trips in µs.
    pub rtt_us: Histogram<u64>,
    /// Requests sent.
    pub sent: u64,
    /// Replies received.
    pub received: u64,
}

impl PingResult {
    /// No request sent yet.
    pub fn new() -> Self {
        let rtt_us = Histogram::new_with_bounds(1, RTT_MAX_US, 3)
            .expect("1 and ten seconds with three digits are bounds hdrhistogram takes");
        Self {
            rtt_us,
            sent: 0,
            received: 0,
        }
    }

    /// Adds another series to this one.
    pub fn add(&mut self, other: &Self) {
        self.rtt_us
            .add(&other.rtt_us)
            .expect("all histograms of round trips have the same bounds");
        self.sent += other.sent;
        self.received += other.received;
    }

    /// Requests without a reply.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }

    fn record(&mut self, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        self.rtt_us.saturating_record(us.max(1));
        self.received += 1;
    }
}

impl Default for PingResult {
    fn default() -> Self {
        Self::new()
    }
}

impl Pinger {
    /// Starts to ping `target` from `from`, one request every `interval`.
    ///
    /// # Errors
    /// When no raw socket can be opened.
    pub fn start(from: &Namespace, target: IpAddr, interval: Duration) -> Result<Self> {
        let echo = Echo::open(from, target)?;
        let stop = Leash::default();
        let flag = stop.flag();
        let thread = std::thread::Builder::new()
            .name(format!("ping {target}"))
            .spawn(move || series(&echo, interval, &flag))
            .context("starting a pinger")?;
        Ok(Self { stop, thread })
    }

    /// Stops sending, waits up to a second for replies under way, and gives the result.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn finish(self) -> Result<PingResult> {
        self.stop.pull();
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Pings `target` every 20 ms until the first reply; the time that took.
///
/// # Errors
/// No reply within `max`.
pub fn reach(from: &Namespace, target: IpAddr, max: Duration) -> Result<Duration> {
    let echo = Echo::open(from, target)?;
    let begun = Instant::now();
    let mut sent_at = Vec::new();
    while begun.elapsed() < max {
        let sequence = u16::try_from(sent_at.len()).context("too many requests for one probe")?;
        echo.send(sequence)?;
        sent_at.push(Instant::now());
        if echo.wait(Instant::now() + REACH_INTERVAL)? && echo.receive()?.is_some() {
            return Ok(begun.elapsed());
        }
    }
    bail!(
        "{} does not reach {target}: no reply to {} echo requests in {max:?}",
        from.label(),
        sent_at.len()
    )
}

fn series(echo: &Echo, interval: Duration, stop: &AtomicBool) -> Result<PingResult> {
    let mut result = PingResult::new();
    // Send times by the low bits of the sequence number; a slot is emptied by its reply, so a duplicate of a
    // reply counts nothing.
    let mut under_way: Vec<Option<Instant>> = vec![None; 1 << 16];
    let mut due = Instant::now();
    let mut end = None;
    loop {
        let now = Instant::now();
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + GRACE);
        }
        match end {
            Some(end) if now >= end || result.received == result.sent => return Ok(result),
            Some(_) => {}
            None if now >= due => {
                let sequence = (result.sent & 0xffff) as u16;
                under_way[usize::from(sequence)] = Some(Instant::now());
                echo.send(sequence)?;
                result.sent += 1;
                due += interval;
            }
            None => {}
        }
        let until = end.unwrap_or(due).min(now + Duration::from_millis(50));
        while echo.wait(until)? {
            let Some(sequence) = echo.receive()? else {
                continue;
            };
            if let Some(sent_at) = under_way[usize::from(sequence)].take() {
                result.record(sent_at.elapsed());
            }
        }
    }
}

/// A raw socket that speaks echo with one target.
#[derive(Debug)]
struct Echo {
    socket: Socket,
    target: IpAddr,
    id: u16,
}

impl Echo {
    fn open(from: &Namespace, target: IpAddr) -> Result<Self> {
        let (domain, protocol) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let open = || -> std::io::Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.connect(&SocketAddr::new(target, 0).into())?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = from.run(open)?.with_context(|| {
            format!("opening a raw ICMP socket to {target} in {}", from.label())
        })?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Self { socket, target, id })
    }

    /// Sends one request. A route that is gone or a full queue is a lost request, not an error.
    fn send(&self, sequence: u16) -> Result<()> {
        let mut packet = [0; 16];
        packet[0] = if self.target.is_ipv4() { 8 } else { 128 };
        packet[4..6].copy_from_slice(&self.id.to_be_bytes());
        packet[6..8].copy_from_slice(&sequence.to_be_bytes());
        packet[8..].copy_from_slice(b"patronus");
        if self.target.is_ipv4() {
            // The kernel fills in the checksum of ICMPv6 only (RFC 3542, section 3.1).
            let checksum = internet_checksum(&packet);
            packet[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        match self.socket.send(&packet) {
            Ok(_) => Ok(()),
            Err(error) if is_loss(&error) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("sending an echo request to {}", self.target))
            }
        }
    }

    /// Waits until something can be read or the time has come.
    fn wait(&self, until: Instant) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::Error::EINTR) => Ok(false),
            Err(error) => Err(error).context("waiting for an echo reply"),
        }
    }

    /// The sequence number of the next datagram if it is a reply to us.
    fn receive(&self) -> Result<Option<u16>> {
        let mut datagram = [0; 256];
        let len = match (&self.socket).read(&mut datagram) {
            Ok(len) => len,
            Err(error) if is_loss(&error) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("receiving from {}", self.target));
            }
        };
        Ok(self.sequence_of_reply(&datagram[..len]))
    }

    fn sequence_of_reply(&self, datagram: &[u8]) -> Option<u16> {
        let (icmp, reply) = match self.target {
            // A raw IPv4 socket delivers the IP header, an IPv6 one does not.
            IpAddr::V4(_) => (
                datagram.get(usize::from(datagram.first()? & 0x0f) * 4..)?,
                0,
            ),
            IpAddr::V6(_) => (datagram, 129),
        };
        let header: &[u8; 8] = icmp.first_chunk()?;
        let ours = header[0] == reply && u16::from_be_bytes([header[4], header[5]]) == self.id;
        ours.then(|| u16::from_be_bytes([header[6], header[7]]))
    }
}

/// Errors that a path under test may cause: nothing to read, no route for the moment, queues full, ICMP errors.
fn is_loss(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::ConnectionRefused
    ) || matches!(
        error.raw_os_error().map(nix::errno::Errno::from_raw),
        Some(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EPERM | nix::errno::Errno::EPROTO)
    )
}

/// RFC 1071 over an even number of bytes.
fn internet_checksum(bytes: &[u8; 16]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Every socket has an identifier of its own: two pingers in one namespace see each other's replies.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);
/// How long replies under way are waited for.
const GRACE: Duration = Duration::from_secs(1);
/// Between two requests of [`reach`].
const REACH_INTERVAL: Duration = Duration::from_millis(20);
/// Longer round trips are recorded as this.
const RTT_MAX_US: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(target: &str, id: u16) -> Echo {
        // Any socket will do: these tests only read bytes.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        Echo {
            socket,
            target: target.parse().unwrap(),
            id,
        }
    }

    #[test]
    fn the_checksum_of_a_packet_that_carries_it_is_zero() {
        let mut packet = *b"\x08\x00\x00\x00\x12\x34\x00\x01patronus";
        let checksum = internet_checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
        assert_ne!(checksum, 0);
        assert_eq!(internet_checksum(&packet), 0);
    }

    #[test]
    fn only_replies_with_our_identifier_count_and_options_are_stepped_over() {
        let v4 = echo("10.0.0.1", 7);
        let mut datagram = vec![0x46];
        datagram.resize(24, 0);
        datagram.extend([0, 0, 0, 0, 0, 7, 1, 2]);
        assert_eq!(v4.sequence_of_reply(&datagram), Some(0x102));
        datagram[24] = 8;
        assert_eq!(
            v4.sequence_of_reply(&datagram),
            None,
            "a request is no reply"
        );
        assert_eq!(
            echo("fd00::1", 9).sequence_of_reply(&[129, 0, 0, 0, 0, 9, 0, 5]),
            Some(5)
        );
        assert_eq!(
            echo("fd00::1", 8).sequence_of_reply(&[129, 0, 0, 0, 0, 9, 0, 5]),
            None
        );
        for len in 0..24 {
            assert_eq!(v4.sequence_of_reply(&datagram[..len]), None);
        }
    }
}
