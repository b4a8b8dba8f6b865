//! Frames for floods, and threads that send them at a stated rate.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::prctl::set_timerslack;
use patronus_ebpf::Generator;

use crate::traffic::pace::Pace;
use crate::traffic::{Leash, flood, joined};
use crate::{Namespace, link};

/// A datagram without its payload.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// The receiver's hardware address.
    pub to_mac: [u8; 6],
    /// Whom it claims to be from.
    pub from: Ipv4Addr,
    /// To whom.
    pub to: Ipv4Addr,
}

impl From<Ipv4Addr> for Datagram {
    /// From somebody, to an address that no network takes part in.
    fn from(from: Ipv4Addr) -> Self {
        Self {
            to_mac: [2; 6],
            from,
            to: Ipv4Addr::new(198, 18, 0, 1),
        }
    }
}

impl Datagram {
    /// The Ethernet frame with a payload, to [`PORT`]; its UDP checksum of 0 says that there is none (RFC 768).
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(42 + payload.len());
        frame.extend(self.to_mac);
        frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
        let udp_len = 8 + payload.len() as u16;
        let mut ip = [0; 20];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
        (ip[8], ip[9]) = (64, 17);
        ip[12..16].copy_from_slice(&self.from.octets());
        ip[16..20].copy_from_slice(&self.to.octets());
        let words = ip.chunks_exact(2);
        let sum: u32 = words
            .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        frame.extend(ip);
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(PORT.to_be_bytes());
        frame.extend(udp_len.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }
}

/// A payload of that many bytes that is no message of WireGuard's.
pub fn junk(bytes: usize) -> Vec<u8> {
    vec![9; bytes]
}

/// An initiation that is right in type and length.
pub fn initiation() -> Vec<u8> {
    flood::bad_macs(1).remove(0)
}

/// A flood under way, from inside the kernel.
#[derive(Debug)]
pub struct Flooder {
    stop: Leash,
    thread: JoinHandle<Result<Flooded>>,
}

/// What a flood came to.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Frames sent.
    pub sent: u64,
    /// Seconds that it lasted.
    pub seconds: f64,
}

impl Flooder {
    /// Sends `frame` out of `interface` of `namespace` at a rate, as far as one core makes it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        frame: &[u8],
        rate_pps: f64,
    ) -> Result<Self> {
        let open = || Generator::open(interface, frame);
        let mut generator = namespace.run(open)?.context("opening a flood")?;
        let stop = Leash::default();
        let flag = stop.flag();
        let run = move || {
            let _ = set_timerslack(1);
            let mut pace = Pace::new(rate_pps, TICK);
            let begun = Instant::now();
            while !flag.load(Ordering::Relaxed) {
                let due = pace.due(begun.elapsed());
                if due > 0 {
                    let count = u32::try_from(due).unwrap_or(u32::MAX).min(STEP_MAX);
                    generator.send(count)?;
                    pace.count(count.into());
                }
                // Its core is not its own.
                sleep(PAUSE);
            }
            Ok(Flooded {
                sent: pace.sent(),
                seconds: begun.elapsed().as_secs_f64(),
            })
        };
        let thread = std::thread::Builder::new().name("flood".to_owned());
        Ok(Self {
            stop,
            thread: thread.spawn(run).context("starting a flood")?,
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn finish(self) -> Result<Flooded> {
        self.stop.pull();
        joined(self.thread)
    }
}

/// Has an interface take frames from inside the kernel, and says what its hardware address is.
///
/// # Errors
/// What the kernel refused.
pub fn open_to_floods(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    namespace
        .run(|| Generator::take_frames(interface))?
        .with_context(|| format!("having {interface} in {} take frames", namespace.label()))?;
    link::mac_of(namespace, interface)
}

/// The gateways' port.
pub const PORT: u16 = crate::topology::LISTEN_PORT;
const TICK: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_micros(50);
/// Frames of one call: some 10 ms.
const STEP_MAX: u32 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_whole_datagram_with_a_right_header() {
        let datagram = Datagram {
            to_mac: [2, 3, 4, 5, 6, 7],
            from: "198.19.1.2".parse().unwrap(),
            to: "198.18.2.2".parse().unwrap(),
        };
        let frame = datagram.frame(&initiation());
        assert_eq!(
            (frame.len(), &frame[..6]),
            (42 + 148, &[2, 3, 4, 5, 6, 7][..])
        );
        let words = frame[14..34].chunks_exact(2);
        let sum: u32 = words
            .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "RFC 1071");
        assert_eq!(frame[38..40], (8 + 148_u16).to_be_bytes());
        assert_eq!(frame[42..46], [1, 0, 0, 0]);
    }
}
