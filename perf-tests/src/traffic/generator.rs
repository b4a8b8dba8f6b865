//! An open-loop UDP generator: packets of stated sizes at a stated rate, counted, timed and watched for order
//! where they arrive.
//!
//! Sender and receiver share one clock, so the delay of a packet is the difference of two readings of it: taken
//! before the system call that sends its batch and after the one that receives its batch.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use socket2::SockRef;

use super::pace::Pace;
use super::udp::{connected, is_transient};
use crate::proc::udp_receive_overflows;
use crate::{Namespace, Stop};

/// Sizes of inner IPv4 packets, one after the other and from the beginning again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// The name in tables.
    pub name: String,
    sizes: Vec<u16>,
}

impl Mix {
    /// Packets of one size, IP header included.
    ///
    /// # Errors
    /// A size that does not hold our marks, or does not pass a tunnel's MTU of 1420 whole.
    pub fn fixed(inner_bytes: u16) -> Result<Self> {
        ensure!(
            (INNER_BYTES_MIN..=INNER_BYTES_MAX).contains(&inner_bytes),
            "packets of {inner_bytes} bytes: from {INNER_BYTES_MIN} to {INNER_BYTES_MAX} can be sent"
        );
        Ok(Self {
            name: inner_bytes.to_string(),
            sizes: vec![inner_bytes],
        })
    }

    /// The simple Internet mix, seven small, four middle and one large in twelve, with the small at RFC 2544's
    /// 64 bytes and the large at the tunnel's MTU.
    pub fn imix() -> Self {
        Self {
            name: "IMIX".to_owned(),
            // Spread out, so that no size comes in a row longer than it must.
            sizes: vec![64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 64, 576],
        }
    }

    /// The name in messages: `64 B`, `IMIX`.
    pub fn title(&self) -> String {
        match self.sizes.len() {
            1 => format!("{} B", self.name),
            _ => self.name.clone(),
        }
    }

    /// Mean size of an inner packet in bytes.
    pub fn mean_bytes(&self) -> f64 {
        let sum: u32 = self.sizes.iter().map(|size| u32::from(*size)).sum();
        f64::from(sum) / self.sizes.len() as f64
    }

    fn payload_len(&self, number: u64) -> usize {
        let at = (number % self.sizes.len() as u64) as usize;
        usize::from(self.sizes[at]) - HEADERS_BYTES
    }
}

/// What came of sending at a rate for a while.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The rate asked for, packets per second.
    pub target_pps: f64,
    /// How long was sent, in seconds.
    pub seconds: f64,
    /// Packets that the sender's kernel took.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// Packets that arrived behind a later one.
    pub reordered: u64,
    /// The most that the sender was behind its schedule.
    pub behind_max: Duration,
    /// Datagrams that the receiving socket had no room for: lost by the measurement, not by what is measured.
    pub overflowed: u64,
    /// One-way delays in ns.
    pub delay_ns: Histogram<u64>,
}

impl Trial {
    /// The rate that was really offered.
    pub fn offered_pps(&self) -> f64 {
        self.sent as f64 / self.seconds
    }

    /// The rate that arrived.
    pub fn received_pps(&self) -> f64 {
        self.received as f64 / self.seconds
    }

    /// Share of the packets that did not arrive.
    pub fn loss(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => sent.saturating_sub(self.received) as f64 / sent as f64,
        }
    }

    /// Whether the sender did not make the rate asked for.
    pub fn fell_short(&self) -> bool {
        self.offered_pps() < self.target_pps * SHORT
    }
}

/// A sender in one namespace and a receiver in another.
#[derive(Debug)]
pub struct Generator {
    sender: UdpSocket,
    receiver: UdpSocket,
    receiving: Namespace,
    mix: Mix,
    base: Instant,
    trials: u32,
}

impl Generator {
    /// Opens the sockets: from `from` to `addr` in `to`, always with the same ports.
    ///
    /// # Errors
    /// A socket that cannot be opened.
    pub fn open(from: &Namespace, to: &Namespace, addr: IpAddr, mix: Mix) -> Result<Self> {
        let receiver = to
            .run(|| UdpSocket::bind(SocketAddr::new(addr, 0)))?
            .with_context(|| format!("binding a UDP socket to {addr} in {}", to.label()))?;
        let target = receiver
            .local_addr()
            .context("asking for the receiver's port")?;
        let sender = from
            .run(|| connected(target))?
            .with_context(|| format!("opening a UDP socket to {target} in {}", from.label()))?;
        for socket in [&sender, &receiver] {
            socket
                .set_read_timeout(Some(WAKE))
                .and_then(|()| socket.set_write_timeout(Some(WAKE)))
                .context("setting a timeout")?;
        }
        // The kernel caps it at net.core.rmem_max; what overflows all the same is counted.
        let _ = SockRef::from(&receiver).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        Ok(Self {
            sender,
            receiver,
            receiving: to.clone(),
            mix,
            base: Instant::now(),
            trials: 0,
        })
    }

    /// Sends at `rate_pps` for `length` and waits for what is under way.
    ///
    /// # Errors
    /// A socket that failed, or Ctrl-C.
    pub fn run(&mut self, rate_pps: f64, length: Duration, stop: &Stop) -> Result<Trial> {
        stop.check()?;
        self.trials += 1;
        let overflows = udp_receive_overflows(&self.receiving)?;
        let (done, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
        let this = &*self;
        let (sent, arrivals) = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| this.receive(&done, &arrived));
            let sender = scope.spawn(|| this.send(rate_pps, length, stop));
            let sent = joined(sender);
            if let Ok(sent) = &sent {
                wait_for(sent.packets, &arrived);
            }
            done.store(true, Ordering::Relaxed);
            (sent, joined(receiver))
        });
        let (sent, arrivals) = (
            sent.context("sending UDP")?,
            arrivals.context("receiving UDP")?,
        );
        stop.check()?;
        Ok(Trial {
            target_pps: rate_pps,
            seconds: sent.seconds,
            sent: sent.packets,
            received: arrivals.received,
            reordered: arrivals.reordered,
            behind_max: sent.behind_max,
            overflowed: udp_receive_overflows(&self.receiving)?.saturating_sub(overflows),
            delay_ns: arrivals.delay_ns,
        })
    }

    fn now_ns(&self) -> u64 {
        // Half a millennium fits.
        self.base.elapsed().as_nanos() as u64
    }

    fn send(&self, rate_pps: f64, length: Duration, stop: &Stop) -> std::io::Result<Sent> {
        // A sleep of one tick is to last one tick; without it the kernel may add half a tick.
        let _ = set_timerslack(1);
        let mut pace = Pace::new(rate_pps, TICK);
        let mut payloads = vec![[0x5a_u8; INNER_BYTES_MAX as usize]; BATCH];
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let mut behind_max = Duration::ZERO;
        let begun = Instant::now();
        loop {
            let elapsed = begun.elapsed();
            if elapsed >= length || stop.is_set() {
                return Ok(Sent {
                    packets: pace.sent(),
                    seconds: elapsed.as_secs_f64(),
                    behind_max,
                });
            }
            behind_max = behind_max.max(pace.behind(elapsed));
            let mut due = pace.due(elapsed);
            while due > 0 && begun.elapsed() < length {
                let batch = due.min(BATCH as u64);
                let taken = self.send_batch(pace.sent(), batch, &mut payloads, &mut headers)?;
                pace.count(taken);
                due -= batch;
            }
            sleep(TICK);
        }
    }

    /// Sends packets `first..first + count`; how many of them the kernel took.
    fn send_batch(
        &self,
        first: u64,
        count: u64,
        payloads: &mut [[u8; INNER_BYTES_MAX as usize]],
        headers: &mut MultiHeaders<()>,
    ) -> std::io::Result<u64> {
        let mark = Mark {
            trial: self.trials,
            number: first,
            sent_ns: self.now_ns(),
        };
        for (number, payload) in (first..first + count).zip(payloads.iter_mut()) {
            Mark { number, ..mark }.write(payload);
        }
        let slices: Vec<[IoSlice<'_>; 1]> = (first..first + count)
            .zip(payloads.iter())
            .map(|(number, payload)| [IoSlice::new(&payload[..self.mix.payload_len(number)])])
            .collect();
        let to_connected = [None::<()>; BATCH];
        let result = sendmmsg(
            self.sender.as_raw_fd(),
            headers,
            &slices,
            &to_connected[..slices.len()],
            [],
            MsgFlags::empty(),
        );
        match result.map(|taken| taken.count() as u64) {
            Ok(taken) => Ok(taken),
            Err(error) if is_transient(error) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&self, done: &AtomicBool, arrived: &AtomicU64) -> std::io::Result<Arrivals> {
        let mut buffers = vec![[0_u8; INNER_BYTES_MAX as usize]; BATCH];
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let mut arrivals = Arrivals::new();
        while !done.load(Ordering::Relaxed) {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let result = recvmmsg(
                self.receiver.as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                MsgFlags::MSG_WAITFORONE,
                None,
            );
            let lens: Vec<usize> = match result {
                Ok(messages) => messages.map(|message| message.bytes).collect(),
                Err(error) if is_transient(error) => continue,
                Err(error) => return Err(error.into()),
            };
            let now_ns = self.now_ns();
            for (len, buffer) in lens.into_iter().zip(&buffers) {
                let mark = Mark::read(buffer);
                if mark.trial != self.trials {
                    // A straggler of the trial before was counted as lost there.
                    continue;
                }
                if len != self.mix.payload_len(mark.number) {
                    return Err(std::io::Error::new(
                        ErrorKind::InvalidData,
                        format!("packet {} arrived with {len} bytes of payload", mark.number),
                    ));
                }
                arrivals.count(mark, now_ns);
            }
            arrived.store(arrivals.received, Ordering::Relaxed);
        }
        Ok(arrivals)
    }
}

/// What a packet carries: which trial, which packet, when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    trial: u32,
    number: u64,
    sent_ns: u64,
}

impl Mark {
    fn write(self, payload: &mut [u8; INNER_BYTES_MAX as usize]) {
        payload[..4].copy_from_slice(&self.trial.to_be_bytes());
        payload[4..12].copy_from_slice(&self.number.to_be_bytes());
        payload[12..MARK_BYTES].copy_from_slice(&self.sent_ns.to_be_bytes());
    }

    fn read(payload: &[u8; INNER_BYTES_MAX as usize]) -> Self {
        let eight = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&payload[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Self {
            trial: (eight(0) >> 32) as u32,
            number: eight(4),
            sent_ns: eight(12),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    packets: u64,
    seconds: f64,
    behind_max: Duration,
}

#[derive(Debug)]
struct Arrivals {
    received: u64,
    reordered: u64,
    next: u64,
    delay_ns: Histogram<u64>,
}

impl Arrivals {
    fn new() -> Self {
        Self {
            received: 0,
            reordered: 0,
            next: 0,
            delay_ns: new_histogram(),
        }
    }

    fn count(&mut self, mark: Mark, now_ns: u64) {
        self.received += 1;
        self.reordered += u64::from(mark.number < self.next);
        self.next = self.next.max(mark.number + 1);
        let delay_ns = now_ns.saturating_sub(mark.sent_ns).max(1);
        self.delay_ns.saturating_record(delay_ns);
    }
}

/// A histogram of delays in ns, up to ten seconds, to three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DELAY_MAX_NS, 3)
        .expect("1 ns and ten seconds with three digits are bounds hdrhistogram takes")
}

/// Waits until all have arrived, at most for [`DRAIN`].
fn wait_for(sent: u64, arrived: &AtomicU64) {
    let begun = Instant::now();
    while arrived.load(Ordering::Relaxed) < sent && begun.elapsed() < DRAIN {
        sleep(Duration::from_millis(5));
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, std::io::Result<T>>) -> std::io::Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// IPv4 and UDP headers in front of the payload.
const HEADERS_BYTES: usize = 28;
const MARK_BYTES: usize = 20;
/// The smallest packet that is sent, IP header included: RFC 2544's smallest frame.
pub const INNER_BYTES_MIN: u16 = 64;
/// The largest: a tunnel's MTU.
pub const INNER_BYTES_MAX: u16 = 1420;
/// How often the sender looks what is due.
pub const TICK: Duration = Duration::from_micros(100);
/// How long packets under way are waited for.
pub const DRAIN: Duration = Duration::from_millis(200);
/// A sender below this share of its rate did not make it.
const SHORT: f64 = 0.97;
/// Datagrams per system call.
const BATCH: usize = 64;
/// How often a blocked thread looks whether it should end.
const WAKE: Duration = Duration::from_millis(20);
const DELAY_MAX_NS: u64 = 10_000_000_000;
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internet_mix_is_seven_four_one_and_no_packet_exceeds_the_tunnel() {
        let mix = Mix::imix();
        let count = |size| mix.sizes.iter().filter(|have| **have == size).count();
        assert_eq!((count(64), count(576), count(1420)), (7, 4, 1));
        assert!((mix.mean_bytes() - 4172.0 / 12.0).abs() < 1e-9);
        assert_eq!(mix.payload_len(6), 1392);
        assert_eq!(mix.payload_len(12), 36);
    }

    #[test]
    fn sizes_that_hold_no_mark_or_would_be_fragmented_are_refused() {
        assert!(Mix::fixed(63).is_err());
        assert!(Mix::fixed(1421).is_err());
        assert_eq!(Mix::fixed(64).unwrap().payload_len(7), 36);
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark {
            trial: 0xdead_beef,
            number: u64::MAX - 3,
            sent_ns: 1 << 40,
        };
        let mut payload = [0x5a; INNER_BYTES_MAX as usize];
        mark.write(&mut payload);
        assert_eq!(Mark::read(&payload), mark);
    }

    #[test]
    fn arrivals_count_what_came_behind_a_later_packet() {
        let mut arrivals = Arrivals::new();
        for number in [0, 1, 4, 2, 3, 5] {
            let mark = Mark {
                trial: 1,
                number,
                sent_ns: 1000,
            };
            arrivals.count(mark, 3000);
        }
        assert_eq!((arrivals.received, arrivals.reordered), (6, 2));
        assert_eq!(arrivals.delay_ns.max(), 2000);
    }
}
