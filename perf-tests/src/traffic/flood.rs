//! An initiation flood: handshake initiations from spoofed addresses at a stated rate, by raw IPv4 sockets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::Leash;
use super::generator::TICK;
use super::pace::Pace;
use super::udp::is_transient;
use crate::Namespace;

/// A flood under way.
#[derive(Debug)]
pub struct Flood {
    stop: Leash,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Result<Flooded>>,
}

/// What a flood came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flooded {
    /// Datagrams that the sender's kernel took.
    pub sent: u64,
    /// How long it lasted, in seconds.
    pub seconds: f64,
}

impl Flood {
    /// Starts to send the payloads in turn from `namespace` to `target`, each time from another address of
    /// `sources` (a /16 by its first address) and another port.
    ///
    /// # Errors
    /// When no raw socket can be opened, or there is nothing to send.
    pub fn start(
        namespace: &Namespace,
        sources: Ipv4Addr,
        target: SocketAddrV4,
        payloads: Vec<Vec<u8>>,
        rate_pps: f64,
    ) -> Result<Self> {
        ensure!(!payloads.is_empty(), "a flood of nothing");
        let open = || -> std::io::Result<Socket> {
            let protocol = Protocol::from(IPPROTO_RAW);
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
            let to = SocketAddrV4::new(*target.ip(), 0);
            socket.connect(&std::net::SocketAddr::from(to).into())?;
            socket.set_write_timeout(Some(WAKE))?;
            Ok(socket)
        };
        let socket = namespace.run(open)?.with_context(|| {
            format!("opening a raw socket to {target} in {}", namespace.label())
        })?;
        let stop = Leash::default();
        let sent = Arc::new(AtomicU64::new(0));
        let (flag, count) = (stop.flag(), Arc::clone(&sent));
        let mut batch = Batch {
            packets: payloads
                .iter()
                .map(|payload| datagram(target, payload))
                .collect(),
            sources: sources.octets(),
            random: 0x9e37_79b9_7f4a_7c15,
            next: 0,
        };
        let thread = std::thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || {
                let _ = set_timerslack(1);
                let mut pace = Pace::new(rate_pps, TICK);
                let begun = Instant::now();
                while !flag.load(Ordering::Relaxed) {
                    let mut due = pace.due(begun.elapsed());
                    while due > 0 {
                        let length = due.min(BATCH as u64);
                        pace.count(batch.send(&socket, length as usize)?);
                        due -= length;
                    }
                    count.store(pace.sent(), Ordering::Relaxed);
                    sleep(TICK);
                }
                Ok(Flooded {
                    sent: pace.sent(),
                    seconds: begun.elapsed().as_secs_f64(),
                })
            })
            .context("starting a flood")?;
        Ok(Self { stop, sent, thread })
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// A socket that failed.
    pub fn finish(self) -> Result<Flooded> {
        self.stop.pull();
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

struct Batch {
    packets: Vec<Vec<u8>>,
    sources: [u8; 4],
    random: u64,
    next: usize,
}

impl Batch {
    /// Sends the next `length` packets; how many the kernel took.
    fn send(&mut self, socket: &Socket, length: usize) -> Result<u64> {
        let length = length.min(self.packets.len());
        let mut chosen = Vec::with_capacity(length);
        for _ in 0..length {
            let at = self.next % self.packets.len();
            self.next += 1;
            self.random = next_random(self.random);
            respoof(&mut self.packets[at], self.sources, self.random);
            chosen.push(at);
        }
        let slices: Vec<_> = chosen
            .iter()
            .map(|at| [std::io::IoSlice::new(&self.packets[*at])])
            .collect();
        let mut headers = MultiHeaders::<()>::preallocate(length, None);
        let to_connected = vec![None::<()>; length];
        let result = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices,
            &to_connected,
            [],
            MsgFlags::empty(),
        );
        match result.map(|taken| taken.count() as u64) {
            Ok(taken) => Ok(taken),
            Err(error) if is_transient(error) => Ok(0),
            Err(error) => Err(error).context("sending a flood"),
        }
    }
}

/// An IPv4 datagram around `payload`; the kernel fills in identification and header checksum (raw(7)), and a UDP
/// checksum of 0 says that there is none (RFC 768).
fn datagram(target: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).expect("payloads are handshake messages");
    let mut packet = vec![0; 28];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[16..20].copy_from_slice(&target.ip().octets());
    packet[22..24].copy_from_slice(&target.port().to_be_bytes());
    packet[24..26].copy_from_slice(&udp_len.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// Gives a packet another source: an address of the /16 and a port that is not 0.
fn respoof(packet: &mut [u8], sources: [u8; 4], random: u64) {
    let [a, b, port_high, port_low, ..] = random.to_be_bytes();
    packet[12..16].copy_from_slice(&[sources[0], sources[1], a, b]);
    packet[20..22].copy_from_slice(&[port_high | 1, port_low]);
}

/// xorshift64 (Marsaglia 2003): spoofed addresses need no more.
fn next_random(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

/// Initiations that are right in type and length and wrong in everything else.
pub fn bad_macs(count: usize) -> Vec<Vec<u8>> {
    let mut random = 0x2545_f491_4f6c_dd1d;
    let message = |_| {
        let mut message = vec![1, 0, 0, 0];
        while message.len() < INITIATION_BYTES {
            random = next_random(random);
            message.push((random >> 32) as u8);
        }
        message
    };
    (0..count).map(message).collect()
}

const IPPROTO_RAW: i32 = 255;
/// Length of a handshake initiation (whitepaper, section 5.4.2).
const INITIATION_BYTES: usize = 148;
/// Datagrams per system call.
const BATCH: usize = 64;
/// How often a blocked sender looks whether it should end.
const WAKE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_a_well_formed_udp_packet_from_the_spoofed_net() {
        let target: SocketAddrV4 = "198.18.2.2:51820".parse().unwrap();
        let mut packet = datagram(target, &[7; 148]);
        respoof(&mut packet, [198, 19, 0, 0], 0x0102_0004_0000_0000);
        assert_eq!(packet.len(), 176);
        assert_eq!(packet[2..4], 176_u16.to_be_bytes());
        assert_eq!(packet[9], 17);
        assert_eq!(packet[12..16], [198, 19, 1, 2]);
        assert_eq!(packet[16..20], [198, 18, 2, 2]);
        assert_eq!(packet[20..22], [1, 4]);
        assert_eq!(packet[22..24], 51820_u16.to_be_bytes());
        assert_eq!(packet[24..26], 156_u16.to_be_bytes());
        assert_eq!(packet[28..], [7; 148]);
    }

    #[test]
    fn bad_macs_have_the_type_and_length_of_an_initiation_and_differ() {
        let messages = bad_macs(2);
        for message in &messages {
            assert_eq!((message.len(), &message[..4]), (148, &[1, 0, 0, 0][..]));
        }
        assert_ne!(messages[0], messages[1]);
    }
}
