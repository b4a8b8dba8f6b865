//! An uplink's UDP socket: trains in (`UDP_GRO`) and out (`UDP_SEGMENT`), with the local address of each.
//!
//! Owns the socket and the storage its system calls need; nothing is allocated after [`UdpSocket::bind`].
//! A gateway has one socket per family, port and worker, however many uplinks it has: each datagram names the
//! interface that it leaves by, and says which one it came in on (`IP_PKTINFO`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use patronus_packet::batch::{TrainLimits, UdpBatch};
use patronus_packet::{Door, UdpFrame, UplinkId};
use socket2::{Domain, Protocol, Socket, Type};

use crate::kernel::KernelVersion;
use crate::mmsg::Slots;
use crate::offload::UdpOffload;
use crate::sys;
use crate::udp_send::Sender;
use crate::uplink::{UplinkTable, Way};
use crate::wan::TrainSet;

pub use crate::udp_send::{Refusal, SendFailure, SendReport};

/// How to open a socket. The default is a plain socket with all offloads wanted.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Which of the worker's ports this is: frames that come in say so, trains that name another are left out.
    pub door: Door,
    /// Lets the sockets of several workers share the port. It also lets another process of the same user
    /// join without an error: ask [`port_is_free`] first.
    pub reuse_port: bool,
    /// `SO_RCVBUF` in bytes; 0 leaves the kernel's default.
    pub recv_buffer: usize,
    /// `SO_SNDBUF` in bytes; 0 leaves the kernel's default.
    pub send_buffer: usize,
    /// `SO_MARK` (the `FwMark` of `wg`); needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Binds to one interface by name (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// Use `UDP_SEGMENT` if the kernel has it.
    pub want_gso: bool,
    /// Use `UDP_GRO` if the kernel has it.
    pub want_gro: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            door: Door::Listen,
            reuse_port: false,
            recv_buffer: 0,
            send_buffer: 0,
            mark: None,
            device: None,
            want_gso: true,
            want_gro: true,
        }
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Another socket has the port (`EADDRINUSE`).
    #[error(
        "UDP port {port} is in use on {ip}: `ss -ulpn 'sport = {port}'` shows by whom; stop that program or set another listen_port",
        port = .addr.port(), ip = .addr.ip()
    )]
    InUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// A port below 1024 without the capability (`EACCES`).
    #[error(
        "UDP port {port} needs CAP_NET_BIND_SERVICE: run as root, or set a listen_port of 1024 or above",
        port = .addr.port()
    )]
    PortNotPermitted {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// This machine does not have the address (`EADDRNOTAVAIL`).
    #[error("no interface has the address {ip}: `ip address` shows which there are", ip = .addr.ip())]
    AddressMissing {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The kernel was started without IPv6, or with it disabled (`EAFNOSUPPORT`).
    #[error("this kernel has no {family}: {addr} cannot be opened")]
    FamilyMissing {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The address asked for.
        addr: SocketAddr,
    },
    /// There is no such interface (`ENODEV`).
    #[error("there is no interface `{device}` to send from: `ip link` shows which there are")]
    DeviceMissing {
        /// Its name.
        device: String,
    },
    /// A mark or an interface binding without the capability (`EPERM`).
    #[error(
        "{operation} on the UDP socket of {addr} needs CAP_NET_ADMIN: run as root, or `setcap cap_net_admin+ep` the binary"
    )]
    NotPermitted {
        /// The socket option refused.
        operation: &'static str,
        /// The socket's address.
        addr: SocketAddr,
    },
    /// No port is free in both families.
    #[error("no UDP port is free in both IPv4 and IPv6 after {tried} tries: set listen_port")]
    NoFreePort {
        /// Ports tried.
        tried: usize,
    },
    /// Anything else.
    #[error("{operation} failed for the UDP socket of {addr}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The socket's address.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Datagrams that did not reach the caller, since the socket was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecvCounters {
    /// Dropped because they did not fit into a frame, or came with a broken description.
    pub truncated: u64,
    /// Errors of the socket that were passed over: echoes of ICMP messages and the like.
    pub errors_passed: u64,
}

/// One bound, non-blocking UDP socket of one family.
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    options: UdpOptions,
    recv_slots: Slots,
    recv_counters: RecvCounters,
    gro: bool,
    sender: Sender,
    notes: Vec<String>,
}

impl UdpSocket {
    /// Opens and binds a socket. An IPv6 socket takes IPv6 alone (`IPV6_V6ONLY`), so a gateway opens two.
    ///
    /// Outer packets go without "don't fragment" (`IP_PMTUDISC_DONT`), as those of kernel WireGuard do: a
    /// tunnel on a path with a small MTU is slow then, but not dead. Linux has no way to set that bit per datagram of
    /// IPv4, and a peer that answers no probes would never learn what fits.
    ///
    /// Buffers are set with `SO_RCVBUFFORCE` and `SO_SNDBUFFORCE`, or without privilege as far as
    /// `net.core.rmem_max` and `wmem_max` allow; [`notes`](Self::notes) says when that is less.
    ///
    /// # Errors
    /// See [`UdpError`].
    pub fn bind(addr: SocketAddr, options: &UdpOptions) -> Result<Self, UdpError> {
        let socket = open(addr)?;
        if options.reuse_port {
            // Before bind: a socket joins its group there.
            socket
                .set_reuse_port(true)
                .map_err(failed("SO_REUSEPORT", addr))?;
        }
        if let Some(mark) = options.mark {
            socket.set_mark(mark).map_err(failed("SO_MARK", addr))?;
        }
        if let Some(device) = &options.device {
            bind_device(&socket, addr, device)?;
        }
        let mut notes = set_buffers(&socket, options);
        report_arrival(&socket, addr).map_err(failed("packet information", addr))?;
        allow_fragments(&socket, addr).map_err(failed("path MTU discovery", addr))?;
        let kernel = KernelVersion::running();
        let gso = options.want_gso && probe_gso(&socket, kernel, &mut notes);
        let gro = options.want_gro && probe_gro(&socket, kernel, &mut notes);
        let local = bind_to(&socket, addr)?;
        Ok(Self {
            socket,
            local,
            options: options.clone(),
            recv_slots: Slots::new(),
            recv_counters: RecvCounters::default(),
            gro,
            sender: Sender::new(addr.is_ipv6(), options.door, gso, train_limits(kernel)),
            notes,
        })
    }

    /// Fills frames from the front with what waits: one datagram or one train of equal datagrams each, with
    /// the sender's address, the local one it was sent to, the uplink it came on and its traffic class. Returns how many were filled; 0 when nothing
    /// waits. One call fills at most 64, so only 0 means that the socket is empty.
    ///
    /// # Errors
    /// Only such as will come again: echoes of ICMP messages are passed over and counted.
    pub fn recv(&mut self, frames: &mut [UdpFrame]) -> io::Result<usize> {
        if frames.is_empty() {
            return Ok(0);
        }
        let mut passed = 0;
        loop {
            match self
                .recv_slots
                .recv(self.socket.as_fd(), frames, self.sender.uplinks())
            {
                Ok(received) => {
                    self.recv_counters.truncated += received.truncated;
                    for frame in &mut frames[..received.frames] {
                        frame.endpoint.door = self.options.door;
                    }
                    if received.frames > 0 {
                        return Ok(received.frames);
                    }
                    // All were dropped: there may be more behind them. No datagram, no error, is the end.
                    if received.truncated == 0 {
                        return Ok(0);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if passed < RECV_ERRORS_PASSED_MAX && is_icmp_echo(&error) => {
                    passed += 1;
                    self.recv_counters.errors_passed += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says which interface each uplink has at the moment. Where there are none, as at first, everything goes by the
    /// routes, whichever uplink it names: there is nothing to tell apart.
    ///
    /// Otherwise a datagram for an uplink leaves by that uplink's interface or not at all: whatever the table does not
    /// have, or has as [`Way::Missing`], fails as [`SendFailure::Unreachable`]. What comes in on an interface that is
    /// not in the table came on [`UplinkId::ANY`].
    pub fn set_uplinks(&mut self, uplinks: &[(UplinkId, Way)]) {
        self.sender.set_uplinks(UplinkTable::new(uplinks));
    }

    /// Sends the trains of `batch` whose remote address is of this socket's family, and skips the others: a
    /// caller with a socket of each family calls both with the same batch.
    ///
    /// A full send buffer is waited for, a few milliseconds per call at most; what does not fit then is
    /// dropped and counted. A kernel or an interface that refuses `UDP_SEGMENT` gets the same datagrams one
    /// by one, none twice; whether that is remembered is in [`SendReport::gso_demoted`] and
    /// [`offload`](Self::offload). A source address that the machine has lost is left out once, and counted.
    pub fn send(&mut self, batch: &UdpBatch) -> SendReport {
        let none = TrainSet::default();
        let report = self
            .sender
            .send::<false>(&self.socket, batch, &none, &self.options);
        self.note_demotion(report)
    }

    /// [`send`](Self::send) without the trains of `done`, which went another way.
    pub fn send_but(&mut self, batch: &UdpBatch, done: &TrainSet) -> SendReport {
        let report = self
            .sender
            .send::<true>(&self.socket, batch, done, &self.options);
        self.note_demotion(report)
    }

    fn note_demotion(&mut self, report: SendReport) -> SendReport {
        if report.gso_demoted {
            self.notes.push(GSO_DEMOTED.to_owned());
        }
        report
    }

    /// What runs on this socket.
    pub fn offload(&self) -> UdpOffload {
        UdpOffload {
            gso: self.sender.gso(),
            gro: self.gro,
        }
    }

    /// Why something that was wanted does not run, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How large the caller should make trains: one datagram each while GSO is off.
    pub fn max_train(&self) -> TrainLimits {
        self.sender.max_train()
    }

    /// Which of the worker's ports this is.
    pub fn door(&self) -> Door {
        self.options.door
    }

    /// The address it is bound to, with the port that the kernel chose where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What did not reach the caller.
    pub fn recv_counters(&self) -> RecvCounters {
        self.recv_counters
    }

    /// Sets `SO_MARK` of what is sent from here on; `None` is mark 0.
    ///
    /// # Errors
    /// [`UdpError::NotPermitted`] without CAP_NET_ADMIN.
    pub fn set_mark(&mut self, mark: Option<u32>) -> Result<(), UdpError> {
        self.socket
            .set_mark(mark.unwrap_or(0))
            .map_err(failed("SO_MARK", self.local))?;
        self.options.mark = mark;
        Ok(())
    }
}

impl std::fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UdpSocket({})", self.local)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether nobody holds the port of `addr`. It binds without `SO_REUSEPORT` and closes again, so it sees
/// sockets that [`UdpSocket::bind`] with [`UdpOptions::reuse_port`] would join in silence.
///
/// # Errors
/// [`UdpError::InUse`], or why the address cannot be bound at all.
pub fn port_is_free(addr: SocketAddr) -> Result<(), UdpError> {
    let socket = open(addr)?;
    bind_to(&socket, addr)?;
    Ok(())
}

/// A port that is free on every address of both families, for a gateway that was given none. Another program
/// may take it before it is bound.
///
/// # Errors
/// [`UdpError::NoFreePort`], or why nothing can be bound at all.
pub fn pick_port() -> Result<u16, UdpError> {
    let any = |ip: IpAddr, port| SocketAddr::new(ip, port);
    for _ in 0..PICK_TRIES_MAX {
        let v4_any = any(Ipv4Addr::UNSPECIFIED.into(), 0);
        let v4 = open(v4_any)?;
        let port = bind_to(&v4, v4_any)?.port();
        match port_is_free(any(Ipv6Addr::UNSPECIFIED.into(), port)) {
            // Without IPv6 nobody can hold the port there.
            Ok(()) | Err(UdpError::FamilyMissing { .. } | UdpError::AddressMissing { .. }) => {
                return Ok(port);
            }
            Err(UdpError::InUse { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(UdpError::NoFreePort {
        tried: PICK_TRIES_MAX,
    })
}

/// A non-blocking, close-on-exec socket of `addr`'s family.
fn open(addr: SocketAddr) -> Result<Socket, UdpError> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))
        .map_err(failed("socket", addr))?;
    socket
        .set_nonblocking(true)
        .map_err(failed("O_NONBLOCK", addr))?;
    if addr.is_ipv6() {
        socket
            .set_only_v6(true)
            .map_err(failed("IPV6_V6ONLY", addr))?;
    }
    Ok(socket)
}

fn bind_to(socket: &Socket, addr: SocketAddr) -> Result<SocketAddr, UdpError> {
    socket.bind(&addr.into()).map_err(failed("bind", addr))?;
    let local = socket
        .local_addr()
        .map_err(failed("getsockname", addr))?
        .as_socket();
    // A bound UDP socket has an IP address.
    Ok(local.unwrap_or(addr))
}

fn bind_device(socket: &Socket, addr: SocketAddr, device: &str) -> Result<(), UdpError> {
    socket
        .bind_device(Some(device.as_bytes()))
        .map_err(|source| match source.raw_os_error() {
            // A name beyond 15 bytes is EINVAL, and no interface either.
            Some(libc::ENODEV | libc::EINVAL) => UdpError::DeviceMissing {
                device: device.to_owned(),
            },
            _ => failed("SO_BINDTODEVICE", addr)(source),
        })
}

/// Sets both buffers and says which is smaller than asked for.
fn set_buffers(socket: &Socket, options: &UdpOptions) -> Vec<String> {
    let buffers = [
        (
            options.recv_buffer,
            libc::SO_RCVBUFFORCE,
            libc::SO_RCVBUF,
            "receive",
            "net.core.rmem_max",
        ),
        (
            options.send_buffer,
            libc::SO_SNDBUFFORCE,
            libc::SO_SNDBUF,
            "send",
            "net.core.wmem_max",
        ),
    ];
    let mut notes = Vec::new();
    for (want, force, plain, which, sysctl) in buffers {
        if want == 0 {
            continue;
        }
        let size = libc::c_int::try_from(want).unwrap_or(libc::c_int::MAX);
        let fd = socket.as_fd();
        if sys::set_int(fd, libc::SOL_SOCKET, force, size).is_err() {
            // What it set is read back below.
            let _ = sys::set_int(fd, libc::SOL_SOCKET, plain, size);
        }
        // The kernel doubles what it is given, for its own bookkeeping.
        let half = sys::read_int(fd, libc::SOL_SOCKET, plain).unwrap_or(0) / 2;
        let got = usize::try_from(half).unwrap_or(0);
        // Half of the largest int is all a kernel can set.
        if got < want.min(libc::c_int::MAX as usize / 2) {
            notes.push(format!(
                "{which} buffer is {got} B where {want} B were asked for: run as root, or raise {sysctl}"
            ));
        }
    }
    notes
}

/// Asks for the local address, the interface and the traffic class of every datagram.
fn report_arrival(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    let (level, names) = match addr {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, [libc::IP_PKTINFO, libc::IP_RECVTOS]),
        SocketAddr::V6(_) => (
            libc::IPPROTO_IPV6,
            [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVTCLASS],
        ),
    };
    for name in names {
        sys::set_int(socket.as_fd(), level, name, 1)?;
    }
    Ok(())
}

/// Clears "don't fragment" on outer packets.
fn allow_fragments(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    let (level, name, value) = match addr {
        SocketAddr::V4(_) => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DONT,
        ),
        SocketAddr::V6(_) => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DONT,
        ),
    };
    sys::set_int(socket.as_fd(), level, name, value)
}

fn probe_gso(socket: &Socket, kernel: Option<KernelVersion>, notes: &mut Vec<String>) -> bool {
    if let Some(why) = kernel.and_then(KernelVersion::gso_denied) {
        notes.push(why);
        return false;
    }
    // 0 asks for nothing, but only a kernel that knows the option takes it.
    match sys::set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0) {
        Ok(()) => true,
        Err(error) => {
            notes.push(format!("udp-gso off: UDP_SEGMENT: {error}"));
            false
        }
    }
}

fn probe_gro(socket: &Socket, kernel: Option<KernelVersion>, notes: &mut Vec<String>) -> bool {
    if let Some(why) = kernel.and_then(KernelVersion::gro_denied) {
        notes.push(why);
        return false;
    }
    match sys::set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1) {
        Ok(()) => true,
        Err(error) => {
            notes.push(format!("udp-gro off: UDP_GRO: {error}"));
            false
        }
    }
}

/// The limits of the running kernel, or those of the oldest where it does not say which it is.
fn train_limits(kernel: Option<KernelVersion>) -> TrainLimits {
    kernel
        .unwrap_or(KernelVersion::new(4, 18, 0))
        .train_limits()
}

/// Errors that an earlier datagram of ours brought back; the next read is a new one.
fn is_icmp_echo(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::EMSGSIZE
                | libc::ENOPROTOOPT
                | libc::EACCES
        )
    )
}

/// Sorts the kernel's answer to an operation on the socket of `addr`.
fn failed(operation: &'static str, addr: SocketAddr) -> impl Fn(io::Error) -> UdpError {
    move |source| match (source.raw_os_error(), operation) {
        (Some(libc::EADDRINUSE), _) => UdpError::InUse { addr },
        (Some(libc::EACCES | libc::EPERM), "bind") => UdpError::PortNotPermitted { addr },
        (Some(libc::EACCES | libc::EPERM), _) => UdpError::NotPermitted { operation, addr },
        (Some(libc::EADDRNOTAVAIL), _) => UdpError::AddressMissing { addr },
        (Some(libc::EAFNOSUPPORT), _) => UdpError::FamilyMissing {
            family: if addr.is_ipv6() { "IPv6" } else { "IPv4" },
            addr,
        },
        _ => UdpError::Io {
            operation,
            addr,
            source,
        },
    }
}

const GSO_DEMOTED: &str = "udp-gso off: the kernel refused a train that it took datagram by datagram; an interface without \
     checksum offload or an IPsec policy does that";
/// Errors passed over in one receive call before the caller is told.
const RECV_ERRORS_PASSED_MAX: usize = 16;
const PICK_TRIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_packet::Endpoint;

    /// A socket that sends without checksums, which the kernel allows for datagrams and not for trains.
    fn socket_that_cannot_send_trains() -> UdpSocket {
        let addr = "127.0.0.1:0".parse().unwrap();
        let socket = UdpSocket::bind(addr, &UdpOptions::default()).unwrap();
        sys::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        socket
    }

    #[test]
    fn a_refused_train_is_sent_once_as_datagrams_and_gso_stays_off() {
        let mut sender = socket_that_cannot_send_trains();
        if !sender.offload().gso {
            println!("skipped: {:?}", sender.notes());
            return;
        }
        let addr = "127.0.0.1:0".parse().unwrap();
        let mut receiver = UdpSocket::bind(addr, &UdpOptions::default()).unwrap();
        let to = Endpoint::from(receiver.local_addr());
        let mut batch = UdpBatch::new(1 << 16, sender.max_train());
        for (number, len) in [500, 500, 500, 20, 600, 600].into_iter().enumerate() {
            batch.room()[..len].fill(number as u8);
            batch.commit(len, &to);
        }
        assert_eq!(batch.trains().len(), 2);

        let report = sender.send(&batch);

        assert!(report.gso_demoted);
        assert_eq!((report.sent_packets, report.failed_total()), (6, 0));
        assert!(!sender.offload().gso);
        assert_eq!(sender.max_train(), TrainLimits::SINGLE);
        assert_eq!(sender.notes(), [GSO_DEMOTED]);
        let mut frames: Vec<UdpFrame> = (0..10).map(|_| UdpFrame::default()).collect();
        let mut received = Vec::new();
        let mut poller = crate::Poller::new().unwrap();
        poller.register(receiver.as_fd(), crate::Token(0)).unwrap();
        while received.len() < 6 {
            let patience = Some(std::time::Duration::from_secs(20));
            assert_ne!(poller.wait(patience).unwrap().count(), 0, "{received:?}");
            let filled = receiver.recv(&mut frames).unwrap();
            received.extend(
                frames[..filled]
                    .iter()
                    .flat_map(UdpFrame::datagrams)
                    .map(|datagram| (datagram[0], datagram.len())),
            );
        }
        assert_eq!(
            received,
            [(0, 500), (1, 500), (2, 500), (3, 20), (4, 600), (5, 600)]
        );
        assert_eq!(receiver.recv(&mut frames).unwrap(), 0);

        assert!(!sender.send(&batch).gso_demoted, "once is enough");
    }

    #[test]
    fn errors_are_sorted_by_the_fix() {
        let addr = "[::]:80".parse().unwrap();
        let sort = |operation, errno| {
            failed(operation, addr)(io::Error::from_raw_os_error(errno)).to_string()
        };
        assert!(sort("bind", libc::EACCES).contains("CAP_NET_BIND_SERVICE"));
        assert!(sort("SO_MARK", libc::EPERM).contains("SO_MARK on the UDP socket of [::]:80"));
        assert!(sort("socket", libc::EAFNOSUPPORT).contains("no IPv6"));
    }

    #[test]
    fn a_buffer_beyond_what_the_kernel_gives_is_noted() {
        let options = UdpOptions {
            recv_buffer: 1 << 16,
            send_buffer: 1 << 16,
            ..UdpOptions::default()
        };
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let size = sys::read_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap();
        assert_eq!(size, 2 << 16);
        assert_eq!(socket.notes(), [""; 0]);
    }
}
