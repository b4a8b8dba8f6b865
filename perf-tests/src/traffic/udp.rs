//! UDP at full rate, one datagram per packet: no sender GSO, as most applications send.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use socket2::SockRef;

use super::Leash;
use crate::Namespace;

/// A sender at full rate and its receiver.
#[derive(Debug)]
pub struct UdpBlast {
    sending: Leash,
    receiving: Leash,
    arrived: Arc<AtomicU64>,
    payload_bytes: usize,
    sender: JoinHandle<std::io::Result<u64>>,
    receiver: JoinHandle<std::io::Result<Arrivals>>,
}

/// What became of a blast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpResult {
    /// Datagrams the sender's kernel took.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// Datagrams that arrived behind one with a higher sequence number.
    pub late: u64,
}

impl UdpResult {
    /// Lost datagrams per datagram sent.
    pub fn loss(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => sent.saturating_sub(self.received) as f64 / sent as f64,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    received: u64,
    late: u64,
}

impl UdpBlast {
    /// Starts to send datagrams of `payload_bytes` (at least 8: a sequence number) from `from` to `addr` in `to`.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        addr: IpAddr,
        payload_bytes: usize,
    ) -> Result<Self> {
        ensure!(
            payload_bytes >= 8,
            "{payload_bytes} bytes do not hold a sequence number"
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
        receiver
            .set_read_timeout(Some(WAKE))
            .context("setting a timeout")?;
        sender
            .set_write_timeout(Some(WAKE))
            .context("setting a timeout")?;
        // The receiver shares its cores with the rest of the lab and is not what is measured. The kernel caps
        // this at net.core.rmem_max, which is as good as it gets.
        let _ = SockRef::from(&receiver).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);

        let (sending, receiving) = (Leash::default(), Leash::default());
        let arrived = Arc::new(AtomicU64::new(0));
        let (flag, count) = (receiving.flag(), Arc::clone(&arrived));
        let receiver = std::thread::Builder::new()
            .name("udp receiver".to_owned())
            .spawn(move || receive(&receiver, payload_bytes, &flag, &count))
            .context("starting a UDP receiver")?;
        let flag = sending.flag();
        let sender = std::thread::Builder::new()
            .name("udp sender".to_owned())
            .spawn(move || send(&sender, payload_bytes, &flag))
            .context("starting a UDP sender")?;
        Ok(Self {
            sending,
            receiving,
            arrived,
            payload_bytes,
            sender,
            receiver,
        })
    }

    /// Datagrams that have arrived so far.
    pub fn received(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Bytes of payload in each datagram.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Stops sending, lets the queues run dry, and counts.
    ///
    /// # Errors
    /// A socket that failed.
    pub fn finish(self) -> Result<UdpResult> {
        self.sending.pull();
        let sent = joined(self.sender).context("sending UDP")?;
        std::thread::sleep(DRAIN);
        self.receiving.pull();
        let arrivals = joined(self.receiver).context("receiving UDP")?;
        Ok(UdpResult {
            sent,
            received: arrivals.received,
            late: arrivals.late,
        })
    }
}

/// A socket of the calling thread's namespace that speaks with `target` only.
pub(crate) fn connected(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket)
}

/// Sends until told to stop; the number of datagrams the kernel took.
fn send(socket: &UdpSocket, payload_bytes: usize, stop: &AtomicBool) -> std::io::Result<u64> {
    let mut payloads = vec![vec![0x5a_u8; payload_bytes]; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let to_connected = [None::<()>; BATCH];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for (number, payload) in (sent..).zip(&mut payloads) {
            payload[..8].copy_from_slice(&u64::to_be_bytes(number));
        }
        let slices: Vec<[IoSlice<'_>; 1]> = payloads
            .iter()
            .map(|payload| [IoSlice::new(payload)])
            .collect();
        let flags = MsgFlags::empty();
        let result = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices,
            to_connected,
            [],
            flags,
        )
        .map(|taken| taken.count() as u64);
        match result {
            Ok(taken) => sent += taken,
            Err(error) if is_transient(error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

fn receive(
    socket: &UdpSocket,
    payload_bytes: usize,
    stop: &AtomicBool,
    arrived: &AtomicU64,
) -> std::io::Result<Arrivals> {
    // One byte more shows a datagram that is too long.
    let mut buffers = vec![vec![0_u8; payload_bytes + 1]; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let mut arrivals = Arrivals::default();
    let mut highest = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let result = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            flags,
            None,
        );
        let lens: Vec<usize> = match result {
            Ok(messages) => messages.map(|message| message.bytes).collect(),
            Err(error) if is_transient(error) => continue,
            Err(error) => return Err(error.into()),
        };
        for (len, buffer) in lens.into_iter().zip(&buffers) {
            if len != payload_bytes {
                return Err(std::io::Error::new(
                    ErrorKind::InvalidData,
                    format!("a datagram of {len} bytes arrived, {payload_bytes} were sent"),
                ));
            }
            let number = buffer
                .first_chunk()
                .map(|bytes| u64::from_be_bytes(*bytes))
                .expect("payloads hold at least the sequence number");
            arrivals.received += 1;
            arrivals.late += u64::from(number < highest);
            highest = highest.max(number);
        }
        arrived.store(arrivals.received, Ordering::Relaxed);
    }
    Ok(arrivals)
}

/// What a path under test may cause: full queues, timeouts, ICMP errors.
pub(crate) fn is_transient(error: Errno) -> bool {
    matches!(
        error,
        Errno::EAGAIN
            | Errno::EINTR
            | Errno::ENOBUFS
            | Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
    )
}

fn joined<T>(thread: JoinHandle<std::io::Result<T>>) -> std::io::Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Datagrams per system call.
const BATCH: usize = 32;
/// How often a blocked thread looks whether it should end.
const WAKE: Duration = Duration::from_millis(100);
/// How long datagrams under way are waited for.
const DRAIN: Duration = Duration::from_millis(200);
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
