//! The sending half of a UDP socket: batches into `sendmmsg` entries, and what to do when the kernel refuses
//! one. The straight path is [`Sender::send`]; everything else happens in `rescue`, one piece at a time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use patronus_packet::batch::{Train, TrainLimits, UdpBatch};
use patronus_packet::{Door, Endpoint, UplinkId};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cmsg::Ask;
use crate::mmsg::{Outgoing, Slots};
use crate::sys;
use crate::udp::UdpOptions;
use crate::uplink::{UplinkSet, UplinkTable};
use crate::wan::TrainSet;

/// Why datagrams were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendFailure {
    /// The send buffer stayed full, or the kernel had no memory (`EAGAIN`, `ENOBUFS`, `ENOMEM`).
    NoBuffers,
    /// There is no route, or the interface is down (`ENETUNREACH`, `EHOSTUNREACH`, `ENETDOWN`, `ENODEV`).
    Unreachable,
    /// Larger than UDP or the path takes (`EMSGSIZE`).
    TooBig,
    /// A firewall or a security module forbids it (`EPERM`, `EACCES`).
    Denied,
    /// Anything else; [`SendReport::last_errno`] has the number.
    Other,
}

impl SendFailure {
    /// Every failure, in the order of its counter.
    pub const ALL: [Self; 5] = [
        Self::NoBuffers,
        Self::Unreachable,
        Self::TooBig,
        Self::Denied,
        Self::Other,
    ];

    /// Its name in counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoBuffers => "no-buffers",
            Self::Unreachable => "unreachable",
            Self::TooBig => "too-big",
            Self::Denied => "denied",
            Self::Other => "other",
        }
    }

    fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Self::NoBuffers,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::ENODEV => {
                Self::Unreachable
            }
            libc::EMSGSIZE => Self::TooBig,
            libc::EPERM | libc::EACCES => Self::Denied,
            _ => Self::Other,
        }
    }
}

/// What became of a batch, in datagrams. Sent and failed add up to what the batch held for this family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Datagrams that the kernel took.
    pub sent_packets: u64,
    /// Their UDP payload, in bytes.
    pub sent_bytes: u64,
    /// Datagrams dropped, by [`SendFailure`] in the order of [`SendFailure::ALL`]; see [`Self::failed`].
    pub failed: [u64; SendFailure::ALL.len()],
    /// Of those under [`SendFailure::NoBuffers`], the ones dropped because the send buffer stayed full.
    pub would_block_packets: u64,
    /// Of those sent, the gateway's own messages ([`Train::own`]).
    pub own_sent_packets: u64,
    /// Of those in `failed`, the gateway's own messages.
    pub own_failed: [u64; SendFailure::ALL.len()],
    /// Datagrams sent without the source address asked for, because the machine does not have it.
    pub resourced_packets: u64,
    /// Whether this call turned GSO off for the socket.
    pub gso_demoted: bool,
    /// The kernel's last refusal, for a log line.
    pub last_errno: Option<i32>,
    /// Uplinks that cannot send at all: their interface is missing, gone or down. What named one of them is under
    /// [`SendFailure::Unreachable`], and went no other way. An interface that is down refuses IPv6 in the same words as
    /// one that only lacks a route, so that only IPv4 tells of it.
    pub unreachable: UplinkSet,
    /// Endpoints that the kernel refused as unreachable or as too big for the way: the first few, none twice for one
    /// reason. All are counted.
    pub refused: [Option<Refusal>; REFUSALS_MAX],
}

/// Datagrams to one endpoint that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where they were to go.
    pub endpoint: Endpoint,
    /// [`SendFailure::Unreachable`] or [`SendFailure::TooBig`].
    pub failure: SendFailure,
    /// UDP payload of the smallest, in bytes.
    pub payload_len: usize,
}

impl SendReport {
    /// Datagrams dropped for one reason.
    pub fn failed(&self, failure: SendFailure) -> u64 {
        self.failed[failure as usize]
    }

    /// Datagrams dropped for any reason.
    pub fn failed_total(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Adds what became of another batch.
    pub fn add(&mut self, other: &Self) {
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        for (mine, theirs) in self.failed.iter_mut().zip(other.failed) {
            *mine += theirs;
        }
        self.would_block_packets += other.would_block_packets;
        self.own_sent_packets += other.own_sent_packets;
        for (mine, theirs) in self.own_failed.iter_mut().zip(other.own_failed) {
            *mine += theirs;
        }
        self.resourced_packets += other.resourced_packets;
        self.gso_demoted |= other.gso_demoted;
        self.last_errno = other.last_errno.or(self.last_errno);
        self.unreachable = self.unreachable.union(other.unreachable);
        for refusal in other.refused.iter().flatten() {
            self.note(*refusal);
        }
    }

    fn note(&mut self, new: Refusal) {
        for slot in &mut self.refused {
            match slot {
                Some(known) if known.failure == new.failure && known.endpoint == new.endpoint => {
                    known.payload_len = known.payload_len.min(new.payload_len);
                    return;
                }
                Some(_) => {}
                None => {
                    *slot = Some(new);
                    return;
                }
            }
        }
    }

    /// Counts a train that left whole, by another way than a UDP socket.
    pub(crate) fn count_train_sent(&mut self, train: &Train) {
        let packets = u64::from(train.packets);
        self.sent_packets += packets;
        self.sent_bytes += train.len as u64;
        if train.own {
            self.own_sent_packets += packets;
        }
    }

    /// Counts a train for which there was no room.
    pub(crate) fn count_train_blocked(&mut self, train: &Train) {
        let packets = u64::from(train.packets);
        self.failed[SendFailure::NoBuffers as usize] += packets;
        self.would_block_packets += packets;
        if train.own {
            self.own_failed[SendFailure::NoBuffers as usize] += packets;
        }
    }

    /// Counts a train that may not be given to the kernel, since its uplink has no interface.
    fn count_stranded(&mut self, train: &Train) {
        let packets = u64::from(train.packets);
        self.failed[SendFailure::Unreachable as usize] += packets;
        if train.own {
            self.own_failed[SendFailure::Unreachable as usize] += packets;
        }
        self.unreachable.insert(train.endpoint.uplink);
        self.note(Refusal {
            endpoint: train.endpoint,
            failure: SendFailure::Unreachable,
            payload_len: train.segment_len,
        });
    }

    fn count_sent(&mut self, piece: &Piece<'_>) {
        self.sent_packets += piece.packets;
        self.sent_bytes += piece.outgoing.payload.len() as u64;
        if piece.own {
            self.own_sent_packets += piece.packets;
        }
    }

    fn count_failed(&mut self, piece: &Piece<'_>, errno: i32) {
        let failure = SendFailure::from_errno(errno);
        self.failed[failure as usize] += piece.packets;
        if piece.own {
            self.own_failed[failure as usize] += piece.packets;
        }
        if is_uplink_refusal(errno, &piece.outgoing.ask) {
            self.unreachable.insert(piece.endpoint.uplink);
        }
        if matches!(failure, SendFailure::Unreachable | SendFailure::TooBig) {
            self.note(Refusal {
                endpoint: *piece.endpoint,
                failure,
                payload_len: match piece.outgoing.ask.segment_len {
                    Some(len) => usize::from(len),
                    None => piece.outgoing.payload.len(),
                },
            });
        }
        if errno == libc::EAGAIN {
            self.would_block_packets += piece.packets;
        }
        self.last_errno = Some(errno);
    }
}

/// Sends batches over one socket and remembers what it refuses.
pub(crate) struct Sender {
    slots: Slots,
    shape: Shape,
}

impl Sender {
    /// For a socket of one family on a kernel with these limits.
    pub(crate) fn new(v6: bool, door: Door, gso: bool, limits: TrainLimits) -> Self {
        Self {
            slots: Slots::new(),
            shape: Shape {
                v6,
                door,
                gso,
                limits,
                uplinks: UplinkTable::default(),
                narrow: NarrowRemotes::new(),
            },
        }
    }

    pub(crate) fn gso(&self) -> bool {
        self.shape.gso
    }

    pub(crate) fn uplinks(&self) -> &UplinkTable {
        &self.shape.uplinks
    }

    pub(crate) fn set_uplinks(&mut self, uplinks: UplinkTable) {
        self.shape.uplinks = uplinks;
    }

    pub(crate) fn max_train(&self) -> TrainLimits {
        match self.shape.gso {
            true => self.shape.limits,
            false => TrainLimits::SINGLE,
        }
    }

    /// See [`crate::UdpSocket::send`]. `LEFT_OUT` says whether `done` is looked at: without it, it costs nothing.
    pub(crate) fn send<const LEFT_OUT: bool>(
        &mut self,
        socket: &Socket,
        batch: &UdpBatch,
        done: &TrainSet,
        options: &UdpOptions,
    ) -> SendReport {
        let mut report = SendReport::default();
        let mut patience = Patience::default();
        let mut at = Position::default();
        self.shape.narrow.tick();
        for (number, train) in batch.trains().iter().enumerate() {
            if self.shape.serves(&train.endpoint)
                && self.shape.ifindex(&train.endpoint).is_none()
                && !(LEFT_OUT && done.contains(number))
            {
                report.count_stranded(train);
            }
        }
        loop {
            let mut pieces = Pieces::<LEFT_OUT> {
                shape: &self.shape,
                batch,
                done,
                at,
            };
            let attempt = self
                .slots
                .send(socket.as_fd(), pieces.clone().map(|piece| piece.outgoing));
            match attempt {
                Ok(0) => break,
                Ok(sent) => {
                    for piece in pieces.by_ref().take(sent) {
                        report.count_sent(&piece);
                    }
                    at = pieces.at;
                }
                Err(error) => {
                    let Some(piece) = pieces.next() else {
                        break;
                    };
                    at = pieces.at;
                    let errno = errno_of(&error);
                    let mut rescue = Rescue {
                        slots: &mut self.slots,
                        socket,
                        patience: &mut patience,
                        report: &mut report,
                    };
                    let refusal = rescue.run(piece, errno);
                    self.learn(refusal, &piece, options, &mut report);
                }
            }
        }
        report
    }

    /// Draws the lesson from a train that only passed datagram by datagram.
    fn learn(
        &mut self,
        refusal: Option<i32>,
        piece: &Piece<'_>,
        options: &UdpOptions,
        report: &mut SendReport,
    ) {
        let Some(errno) = refusal else { return };
        let segment_len = piece.outgoing.ask.segment_len.map_or(0, usize::from);
        // Trains cannot be fragmented, so a path with a small MTU refuses them: EMSGSIZE, but EINVAL
        // before 6.13, which also stands for what no train on this socket will get over.
        let narrow = errno == libc::EMSGSIZE
            || route_mtu(&piece.outgoing.ask, options)
                .is_some_and(|mtu| segment_len + outer_headers_len(self.shape.v6) > mtu);
        if narrow {
            self.shape.narrow.insert(piece.endpoint, segment_len);
            tracing::debug!(segment_len, "the path is too narrow for trains");
        } else if self.shape.gso {
            self.shape.gso = false;
            report.gso_demoted = true;
            tracing::warn!(errno, "udp-gso off: the kernel refuses trains");
        }
    }
}

/// How trains become `sendmmsg` entries.
struct Shape {
    v6: bool,
    door: Door,
    gso: bool,
    limits: TrainLimits,
    uplinks: UplinkTable,
    narrow: NarrowRemotes,
}

impl Shape {
    /// Whether this socket is the one for an endpoint.
    fn serves(&self, endpoint: &Endpoint) -> bool {
        endpoint.remote.is_ipv6() == self.v6 && endpoint.door == self.door
    }

    /// The interface to leave by: 0 by the routes, `None` where nothing may leave.
    fn ifindex(&self, endpoint: &Endpoint) -> Option<u32> {
        self.uplinks.way(endpoint.uplink).ifindex()
    }

    /// Most datagrams of one entry of this train.
    fn segments_max(&self, train: &Train) -> usize {
        if !self.gso || self.narrow.contains(&train.endpoint, train.segment_len) {
            return 1;
        }
        let by_bytes = self.limits.bytes / train.segment_len.max(1);
        self.limits.segments.min(by_bytes).max(1)
    }
}

/// Where in a batch the next entry begins.
#[derive(Clone, Copy, Default)]
struct Position {
    train: usize,
    offset: usize,
}

/// One `sendmmsg` entry: a whole train, or a part of one that is too long or must not be a train.
#[derive(Clone, Copy)]
struct Piece<'a> {
    outgoing: Outgoing<'a>,
    endpoint: &'a Endpoint,
    packets: u64,
    /// [`Train::own`]
    own: bool,
}

impl<'a> Piece<'a> {
    /// The datagrams of a train, each a piece of its own.
    fn datagrams(self) -> impl Iterator<Item = Piece<'a>> {
        let step = match self.outgoing.ask.segment_len {
            Some(len) => usize::from(len),
            None => self.outgoing.payload.len(),
        };
        let ask = Ask {
            segment_len: None,
            ..self.outgoing.ask
        };
        self.outgoing
            .payload
            .chunks(step.max(1))
            .map(move |payload| Piece {
                outgoing: Outgoing { payload, ask },
                endpoint: self.endpoint,
                packets: 1,
                own: self.own,
            })
    }
}

/// The entries of a batch from a position on, without the trains in `done` where `LEFT_OUT` says so.
#[derive(Clone)]
struct Pieces<'s, 'a, const LEFT_OUT: bool> {
    shape: &'s Shape,
    batch: &'a UdpBatch,
    done: &'s TrainSet,
    at: Position,
}

impl<'a, const LEFT_OUT: bool> Iterator for Pieces<'_, 'a, LEFT_OUT> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let train = self.batch.trains().get(self.at.train)?;
            let offset = self.at.offset;
            let is_done = LEFT_OUT && self.done.contains(self.at.train);
            let is_ours = self.shape.serves(&train.endpoint) && !is_done;
            let ifindex = match is_ours && offset < train.len {
                true => self.shape.ifindex(&train.endpoint),
                false => None,
            };
            let Some(ifindex) = ifindex else {
                self.at = Position {
                    train: self.at.train + 1,
                    offset: 0,
                };
                continue;
            };
            let step = match train.packets {
                0 | 1 => train.len,
                _ => train.segment_len.max(1),
            };
            let len_max = step.saturating_mul(self.shape.segments_max(train));
            let payload = &self.batch.bytes(train)[offset..];
            let payload = &payload[..payload.len().min(len_max)];
            self.at.offset += payload.len();
            return Some(Piece {
                outgoing: Outgoing {
                    payload,
                    ask: Ask {
                        to: train.endpoint.remote,
                        from: train.endpoint.local,
                        ifindex,
                        tos: train.tos,
                        segment_len: (payload.len() > step)
                            .then(|| u16::try_from(step).ok())
                            .flatten(),
                    },
                },
                endpoint: &train.endpoint,
                packets: payload.len().div_ceil(step) as u64,
                own: train.own,
            });
        }
    }
}

/// Gets one refused piece out by other means, or counts it.
struct Rescue<'a> {
    slots: &'a mut Slots,
    socket: &'a Socket,
    patience: &'a mut Patience,
    report: &'a mut SendReport,
}

impl Rescue<'_> {
    /// Returns the refusal if the piece was a train that passed datagram by datagram only.
    fn run(&mut self, piece: Piece<'_>, errno: i32) -> Option<i32> {
        let refusal = self.persist(piece, errno)?;
        if piece.outgoing.ask.segment_len.is_none() || !is_train_refusal(refusal) {
            self.report.count_failed(&piece, refusal);
            return None;
        }
        let sent_before = self.report.sent_packets;
        for datagram in piece.datagrams() {
            if let Some(errno) = self.try_once(&datagram)
                && let Some(errno) = self.persist(datagram, errno)
            {
                self.report.count_failed(&datagram, errno);
            }
        }
        // Where no datagram passes either, the train was not the trouble.
        (self.report.sent_packets > sent_before).then_some(refusal)
    }

    /// Tries a piece that was refused with `errno` again: after a signal, when the buffer has room, without
    /// its source address. Returns the errno that it ends with; `None` when it was sent and counted.
    fn persist(&mut self, mut piece: Piece<'_>, mut errno: i32) -> Option<i32> {
        // A signal and a pending socket error may come in between, each a few times.
        for _ in 0..RETRIES_MAX {
            let sourced = piece.outgoing.ask.from.is_some();
            match errno {
                libc::EINTR | libc::ECONNREFUSED => {}
                libc::EAGAIN if self.patience.wait(self.socket) => {}
                // The interface stays: what names an uplink leaves by it or not at all.
                _ if sourced && is_source_refusal(errno) => piece.outgoing.ask.from = None,
                _ => return Some(errno),
            }
            match self.try_once(&piece) {
                None => {
                    if sourced && piece.outgoing.ask.from.is_none() {
                        self.report.resourced_packets += piece.packets;
                    }
                    return None;
                }
                Some(again) => errno = again,
            }
        }
        Some(errno)
    }

    /// Sends one piece and counts it, or returns why not.
    fn try_once(&mut self, piece: &Piece<'_>) -> Option<i32> {
        let result = self
            .slots
            .send(self.socket.as_fd(), std::iter::once(piece.outgoing));
        match result {
            Ok(_) => {
                self.report.count_sent(piece);
                None
            }
            Err(error) => Some(errno_of(&error)),
        }
    }
}

/// The kernel's answers to a train that it may take datagram by datagram: an interface without checksum
/// offload, an IPsec policy (`EIO`), more segments or larger ones than it allows (`EINVAL`, `EMSGSIZE`).
fn is_train_refusal(errno: i32) -> bool {
    matches!(errno, libc::EIO | libc::EINVAL | libc::EMSGSIZE)
}

/// The kernel's answers to a source address that it does not have, or has no route from.
fn is_source_refusal(errno: i32) -> bool {
    matches!(
        errno,
        libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL
    )
}

/// Whether a refusal says that the interface which was named can send nothing. For IPv4 a named interface reaches
/// every address, by a route or by asking for it on the link (`ip_route_output_key_hash_rcu`), unless it is down.
fn is_uplink_refusal(errno: i32, ask: &Ask) -> bool {
    ask.ifindex != 0
        && match errno {
            libc::ENODEV | libc::ENETDOWN => true,
            libc::ENETUNREACH => ask.to.is_ipv4(),
            _ => false,
        }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// How long one call waits for room in the send buffer, in all.
#[derive(Default)]
struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// Waits until the socket takes more; false when the time is up.
    fn wait(&mut self, socket: &Socket) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + WAIT_MAX);
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return false;
        }
        // poll(2) counts in milliseconds; rounding up keeps the last one from being a spin.
        let timeout = PollTimeout::from(left.as_millis() as u8 + 1);
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        // An interrupted wait is followed by another attempt, which is what a wait is for.
        !matches!(nix::poll::poll(&mut fds, timeout), Ok(0))
    }
}

/// Remote addresses behind a path that is too narrow for trains of some length, each with the uplink of that path,
/// forgotten after a while because paths change. Fixed in size: the oldest gives way.
struct NarrowRemotes {
    entries: [Option<NarrowRemote>; NARROW_MAX],
    next: usize,
    filled: bool,
}

#[derive(Clone, Copy)]
struct NarrowRemote {
    remote: SocketAddr,
    uplink: UplinkId,
    segment_len: usize,
    calls_left: u32,
}

impl NarrowRemote {
    fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.remote == endpoint.remote && self.uplink == endpoint.uplink
    }
}

impl NarrowRemotes {
    fn new() -> Self {
        Self {
            entries: [None; NARROW_MAX],
            next: 0,
            filled: false,
        }
    }

    fn contains(&self, endpoint: &Endpoint, segment_len: usize) -> bool {
        self.filled
            && self
                .entries
                .iter()
                .flatten()
                .any(|entry| entry.is_of(endpoint) && segment_len >= entry.segment_len)
    }

    fn insert(&mut self, endpoint: &Endpoint, segment_len: usize) {
        let known = self
            .entries
            .iter()
            .position(|entry| entry.is_some_and(|entry| entry.is_of(endpoint)));
        let at = known.unwrap_or(self.next);
        self.entries[at] = Some(NarrowRemote {
            remote: endpoint.remote,
            uplink: endpoint.uplink,
            segment_len,
            calls_left: NARROW_CALLS,
        });
        if known.is_none() {
            self.next = (self.next + 1) % NARROW_MAX;
        }
        self.filled = true;
    }

    /// Counts one send call.
    fn tick(&mut self) {
        if !self.filled {
            return;
        }
        for slot in &mut self.entries {
            if let Some(entry) = slot {
                entry.calls_left -= 1;
                if entry.calls_left == 0 {
                    *slot = None;
                }
            }
        }
        self.filled = self.entries.iter().any(Option::is_some);
    }
}

/// The MTU the kernel has for the way that was asked for, in bytes of IP packet; `None` where it does not say. Opens
/// a socket for the question, so it is for the rare case.
fn route_mtu(ask: &Ask, options: &UdpOptions) -> Option<usize> {
    let to = ask.to;
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)).ok()?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark).ok()?;
    }
    if let Some(device) = &options.device {
        socket.bind_device(Some(device.as_bytes())).ok()?;
    }
    if let Ok(index @ 1..) = i32::try_from(ask.ifindex) {
        sys::set_int(
            socket.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            index,
        )
        .ok()?;
    }
    if let Some(from) = ask.from.filter(|from| from.is_ipv4() == to.is_ipv4()) {
        // Without it the answer may be that of another uplink, but it is an answer.
        let _ = socket.bind(&SocketAddr::new(from, 0).into());
    }
    socket.connect(&to.into()).ok()?;
    let (level, name) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mtu = sys::read_int(socket.as_fd(), level, name).ok()?;
    usize::try_from(mtu).ok()
}

/// IP and UDP headers in front of each datagram, in bytes.
fn outer_headers_len(v6: bool) -> usize {
    if v6 { 48 } else { 28 }
}

const WAIT_MAX: Duration = Duration::from_millis(5);
const RETRIES_MAX: usize = 32;
const NARROW_MAX: usize = 16;
const REFUSALS_MAX: usize = 4;
/// Send calls before a narrow path is tried with trains again.
const NARROW_CALLS: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(port: u16) -> Endpoint {
        SocketAddr::from(([192, 0, 2, 1], port)).into()
    }

    #[test]
    fn a_narrow_remote_is_known_for_its_length_and_longer_until_it_expires() {
        let mut narrow = NarrowRemotes::new();
        assert!(!narrow.contains(&remote(1), 1400));
        narrow.insert(&remote(1), 1400);
        for _ in 1..NARROW_CALLS {
            narrow.tick();
            assert!(narrow.contains(&remote(1), 1400));
        }
        assert!(narrow.contains(&remote(1), 1401));
        assert!(!narrow.contains(&remote(1), 1399));
        assert!(!narrow.contains(&remote(2), 1400));
        let over_another = Endpoint {
            uplink: UplinkId(3),
            ..remote(1)
        };
        assert!(!narrow.contains(&over_another, 1400));
        narrow.tick();
        assert!(!narrow.contains(&remote(1), 1400));
    }

    #[test]
    fn the_oldest_narrow_remote_gives_way_and_a_known_one_takes_no_second_place() {
        let mut narrow = NarrowRemotes::new();
        for port in 0..NARROW_MAX as u16 {
            narrow.insert(&remote(port), 1400);
        }
        narrow.insert(&remote(3), 1300);
        assert!(narrow.contains(&remote(0), 1400) && narrow.contains(&remote(3), 1300));
        narrow.insert(&remote(99), 1400);
        assert!(!narrow.contains(&remote(0), 1400));
        assert!(narrow.contains(&remote(1), 1400) && narrow.contains(&remote(99), 1400));
    }

    #[test]
    fn a_train_to_a_narrow_remote_becomes_datagrams_of_its_own_lengths() {
        let limits = TrainLimits {
            segments: 3,
            bytes: 65_000,
        };
        let mut batch = UdpBatch::new(1 << 14, limits);
        for len in [1000, 1000, 400] {
            batch.commit(len, &remote(1));
        }
        let mut sender = Sender::new(false, Door::Listen, true, limits);
        let pieces = |sender: &Sender| -> Vec<(usize, Option<u16>, u64)> {
            let pieces = Pieces::<false> {
                shape: &sender.shape,
                batch: &batch,
                done: &TrainSet::default(),
                at: Position::default(),
            };
            pieces
                .map(|piece| {
                    let outgoing = piece.outgoing;
                    (
                        outgoing.payload.len(),
                        outgoing.ask.segment_len,
                        piece.packets,
                    )
                })
                .collect()
        };
        assert_eq!(pieces(&sender), [(2400, Some(1000), 3)]);
        sender.shape.limits.segments = 2;
        assert_eq!(pieces(&sender), [(2000, Some(1000), 2), (400, None, 1)]);
        sender.shape.narrow.insert(&remote(1), 1000);
        assert_eq!(
            pieces(&sender),
            [(1000, None, 1), (1000, None, 1), (400, None, 1)]
        );
    }
}
