//! AF_XDP: an uplink's frames past the kernel's network stack, both ways.
//!
//! An [`XdpSocket`] has one queue of one interface. It receives what an XDP program redirects to it, which is the
//! program's business: UDP to this gateway's addresses and ports and nothing else. It sends to the addresses whose next
//! hop it was told; routes and neighbours stay the kernel's, and control reads them there. It comes on top of the UDP
//! sockets and never instead of them: they hold the ports, receive what is not redirected (fragments, options, other
//! interfaces) and send what has no known next hop, is too long for the link or names another source, so that nothing
//! is lost where AF_XDP cannot help. What it gains and when is in `docs/decisions/0009-af-xdp-optional.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use patronus_packet::batch::{Train, UdpBatch};
use patronus_packet::frame::FRAME_DATA_MAX;
use patronus_packet::{Door, Endpoint, UdpFrame, UplinkId};

use crate::udp::{RecvCounters, SendReport};
use crate::uplink::{UplinkTable, Way};
use crate::wan::{TrainSet, WanSocket};
use crate::xdp_frame::{self, Datagram, ETHERNET_LEN, Header, Unfit, ip_headers_len};
use crate::xdp_ring::{RingSpec, Rings};

pub use crate::xdp_frame::Mac;
pub use crate::xdp_ring::XdpDrops;

/// How frames get between the driver and our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Zero copy where the driver offers it, else by a copy; [`XdpSocket::note`] says why.
    Auto,
    /// The kernel copies each frame. Works with every driver.
    Copy,
    /// The driver reads and writes our memory, or there is no socket.
    ZeroCopy,
}

/// The UDP ports that this gateway's frames carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorPorts {
    /// The port that the site listens on.
    pub listen: u16,
    /// This worker's own port of IPv4, where it has one.
    pub lane_v4: Option<u16>,
    /// This worker's own port of IPv6, where it has one.
    pub lane_v6: Option<u16>,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// The interface's index.
    pub ifindex: u32,
    /// Which of its queues, from 0.
    pub queue: u32,
    /// Its MTU, in bytes of IP packet.
    pub mtu: usize,
    /// How frames are to get here.
    pub mode: XdpMode,
    /// Our ports.
    pub ports: DoorPorts,
    /// Frames that may wait to be received, and as many that may be under way out; a power of two.
    pub ring_len: u32,
}

impl XdpOptions {
    /// The usual socket for one queue.
    pub fn new(ifindex: u32, queue: u32, mtu: usize, ports: DoorPorts) -> Self {
        Self {
            ifindex,
            queue,
            mtu,
            mode: XdpMode::Auto,
            ports,
            ring_len: RING_LEN,
        }
    }
}

/// How to reach an address over the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Link-layer address of the neighbour to hand frames to.
    pub mac: Mac,
    /// The address that the kernel would send from.
    pub source: IpAddr,
    /// What fits on the way, in bytes of IP packet.
    pub mtu: usize,
    /// Whether the routes lead over this interface when nobody names one.
    pub by_routes: bool,
}

/// What the gateway knows of the world behind one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbourhood {
    /// The interface's own link-layer address.
    pub mac: Mac,
    /// Addresses that may stand as source: the machine's own.
    pub addresses: Vec<IpAddr>,
    /// By destination.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// No capability (`EPERM`).
    #[error("AF_XDP needs CAP_NET_RAW: run as root, or set [[uplink]] io = \"udp\"")]
    NotPermitted,
    /// The kernel was built without (`EAFNOSUPPORT`).
    #[error("this kernel has no AF_XDP (CONFIG_XDP_SOCKETS): set [[uplink]] io = \"udp\"")]
    KernelLacks,
    /// Another socket has the queue (`EBUSY`).
    #[error(
        "queue {queue} of interface {ifindex} has an AF_XDP socket of another program: stop that, or set [[uplink]] io = \"udp\""
    )]
    Busy {
        /// The interface's index.
        ifindex: u32,
        /// The queue asked for.
        queue: u32,
    },
    /// There is no such queue (`EINVAL`).
    #[error(
        "interface {ifindex} has no queue {queue} for both directions: `ethtool -l` shows how many there are"
    )]
    NoQueue {
        /// The interface's index.
        ifindex: u32,
        /// The queue asked for.
        queue: u32,
    },
    /// The interface does not exist, or is down (`ENODEV`, `ENETDOWN`).
    #[error("interface {ifindex} does not exist or is down: bring it up first")]
    NoInterface {
        /// The interface's index.
        ifindex: u32,
    },
    /// A frame would not fit into a chunk of memory.
    #[error(
        "interface {ifindex} has an MTU of {mtu} B and AF_XDP takes {max} B: lower it, or set [[uplink]] io = \"udp\""
    )]
    MtuTooLarge {
        /// The interface's index.
        ifindex: u32,
        /// What it has.
        mtu: usize,
        /// What fits.
        max: usize,
    },
    /// Too little memory may be locked (`ENOBUFS`, `ENOMEM`).
    #[error(
        "the kernel gives AF_XDP no {bytes} B of locked memory: raise LimitMEMLOCK, or grant CAP_IPC_LOCK"
    )]
    Memory {
        /// How much one socket takes.
        bytes: usize,
    },
    /// The driver has no zero copy (`EOPNOTSUPP`), which was asked for.
    #[error("the driver of interface {ifindex} has no zero copy: ask for a copy")]
    NoZeroCopy {
        /// The interface's index.
        ifindex: u32,
    },
    /// Anything else.
    #[error("{operation} failed for AF_XDP on queue {queue} of interface {ifindex}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The interface's index.
        ifindex: u32,
        /// The queue asked for.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What went by an AF_XDP socket, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Datagrams received.
    pub received: u64,
    /// Frames dropped that hold no datagram for us: the redirecting program and we disagree.
    pub foreign: u64,
    /// Frames dropped with a wrong checksum.
    pub corrupt: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Trains left to the UDP sockets: no next hop, too long, or another source.
    pub left: u64,
}

/// One queue of one interface.
pub struct XdpSocket {
    rings: Rings,
    options: XdpOptions,
    zero_copy: bool,
    note: Option<String>,
    uplinks: UplinkTable,
    neighbourhood: Arc<Neighbourhood>,
    /// The kernel said that the interface is down: nothing is sent until the neighbourhood is told anew.
    is_down: bool,
    next_id: u16,
    counters: XdpCounters,
}

/// What the kernel dropped before it reached a socket, for others than the socket's owner.
#[derive(Debug)]
pub struct XdpDropMeter {
    fd: OwnedFd,
    queue: u32,
}

impl XdpDropMeter {
    /// The socket's queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// What was dropped so far.
    ///
    /// # Errors
    /// The kernel's refusal to say.
    pub fn drops(&self) -> io::Result<XdpDrops> {
        crate::xdp_ring::drops(self.fd.as_fd())
    }
}

impl XdpSocket {
    /// Takes over a queue. The kernel may still be closing the socket that had it before: that is waited for, a
    /// fraction of a second.
    ///
    /// # Errors
    /// See [`XdpError`].
    pub fn open(options: &XdpOptions) -> Result<Self, XdpError> {
        let spec = spec_for(options)?;
        let mut note = None;
        let opened = match options.mode {
            XdpMode::Copy => bind(options, &spec, libc::XDP_COPY),
            XdpMode::ZeroCopy => bind(options, &spec, libc::XDP_ZEROCOPY),
            XdpMode::Auto => match bind(options, &spec, libc::XDP_ZEROCOPY) {
                Ok(rings) => Ok(rings),
                Err((operation @ "bind", error)) if is_zero_copy_refusal(&error) => {
                    note = Some(format!("no zero copy: {operation}: {error}"));
                    bind(options, &spec, libc::XDP_COPY)
                }
                Err(refused) => Err(refused),
            },
        };
        let rings = opened.map_err(|refused| sorted(options, &spec, refused))?;
        let zero_copy = rings.is_zero_copy().unwrap_or(false);
        if zero_copy {
            rings.wake_fill();
        } else {
            rings.set_send_buffer(SEND_BUFFER);
        }
        Ok(Self {
            rings,
            options: options.clone(),
            zero_copy,
            note,
            uplinks: UplinkTable::default(),
            neighbourhood: Arc::default(),
            is_down: false,
            next_id: 0,
            counters: XdpCounters::default(),
        })
    }

    /// Whether the driver reads and writes our memory itself.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Why frames are copied where that was not asked for.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.options.ifindex
    }

    /// The queue.
    pub fn queue(&self) -> u32 {
        self.options.queue
    }

    /// Takes what control has found out. Before the first time everything is left to the UDP sockets.
    pub fn set_neighbourhood(&mut self, neighbourhood: Arc<Neighbourhood>) {
        self.neighbourhood = neighbourhood;
        self.is_down = false;
    }

    /// Takes other ports.
    pub fn set_ports(&mut self, ports: DoorPorts) {
        self.options.ports = ports;
    }

    /// What went by.
    pub fn counters(&self) -> XdpCounters {
        self.counters
    }

    /// What the kernel dropped before it reached this socket.
    ///
    /// # Errors
    /// The kernel's refusal to say.
    pub fn drops(&self) -> io::Result<XdpDrops> {
        self.rings.drops()
    }

    /// Something that tells the same on another thread. The queue belongs to the socket for as long as it is kept.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn drop_meter(&self) -> io::Result<XdpDropMeter> {
        Ok(XdpDropMeter {
            fd: self.rings.duplicate()?,
            queue: self.options.queue,
        })
    }

    /// Fills frames from the front: neighbours of one flow, of one length and one traffic class make one train.
    fn receive(&mut self, frames: &mut [UdpFrame]) -> usize {
        let waiting = self.rings.received();
        let (mut read, mut filled) = (0, 0);
        while read < waiting {
            match xdp_frame::read(self.rings.frame(read)) {
                Err(Unfit::Foreign) => self.counters.foreign += 1,
                Err(Unfit::Corrupt) => self.counters.corrupt += 1,
                Ok(datagram) => {
                    let endpoint = self.endpoint_of(&datagram);
                    let same =
                        |frame: &UdpFrame| frame.endpoint == endpoint && frame.tos == datagram.tos;
                    let mut begun = frames[..filled].iter_mut();
                    let joined = begun
                        .rfind(|frame| same(frame))
                        .is_some_and(|frame| join(frame, datagram.payload));
                    if !joined {
                        let Some(frame) = frames.get_mut(filled) else {
                            break;
                        };
                        begin(frame, endpoint, &datagram);
                        filled += 1;
                    }
                    self.counters.received += 1;
                }
            }
            read += 1;
        }
        if read > 0 {
            self.rings.release(read);
            if self.rings.wants_fill_wakeup() {
                self.rings.wake_fill();
            }
        }
        filled
    }

    fn endpoint_of(&self, datagram: &Datagram<'_>) -> Endpoint {
        Endpoint {
            remote: datagram.remote,
            local: Some(datagram.local),
            // Whatever is redirected here came to one of our ports.
            door: match datagram.port == self.options.ports.listen {
                true => Door::Listen,
                false => Door::Lane,
            },
            uplink: self.uplinks.uplink_of(self.options.ifindex),
        }
    }

    /// The headers of a train; `None` where the UDP sockets have to send it.
    fn header_of(&self, train: &Train) -> Option<Header> {
        let endpoint = &train.endpoint;
        let remote = match endpoint.remote {
            // The kernel maps neither these, nor do they have a route without a link.
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => return None,
            remote => remote,
        };
        let hop = self.neighbourhood.next_hops.get(&remote.ip())?;
        let leaves_here = match self.uplinks.way(endpoint.uplink) {
            Way::Missing => false,
            Way::Routes => hop.by_routes,
            Way::Interface(index) => index == self.options.ifindex,
        };
        let port = match endpoint.door {
            Door::Listen => Some(self.options.ports.listen),
            Door::Lane if remote.is_ipv4() => self.options.ports.lane_v4,
            Door::Lane => self.options.ports.lane_v6,
        };
        let source = endpoint.local.unwrap_or(hop.source);
        let packet_len = train.segment_len + ip_headers_len(&remote);
        let fits = packet_len <= hop.mtu.min(self.options.mtu);
        if !leaves_here || !fits || !self.neighbourhood.addresses.contains(&source) {
            return None;
        }
        let macs = [self.neighbourhood.mac, hop.mac];
        Header::new(macs, SocketAddr::new(source, port?), remote, train.tos)
    }

    /// Puts a train into the transmit ring, all of it or nothing.
    fn put(&mut self, header: &Header, batch: &UdpBatch, train: &Train) {
        for payload in batch.bytes(train).chunks(train.segment_len.max(1)) {
            let id = self.next_id;
            self.next_id = id.wrapping_add(1);
            let put = self.rings.put(|chunk| header.write(chunk, payload, id));
            debug_assert!(put, "room was made for the whole train");
        }
    }

    /// Makes room for a train; `false` where the kernel does not get on with what it has.
    fn make_room(&mut self, packets: usize, patience: &mut Patience) -> bool {
        self.rings.reap();
        while self.rings.writable() < packets {
            self.rings.publish();
            self.kick();
            self.rings.reap();
            if self.rings.writable() < packets && !patience.wait() {
                return false;
            }
        }
        true
    }

    /// Has the kernel send what is in the ring; what it does not take now goes with the next call.
    fn flush(&mut self, patience: &mut Patience) {
        self.rings.publish();
        while self.rings.unsent() > 0 && !self.is_down {
            let before = self.rings.unsent();
            self.kick();
            // With zero copy, and a driver that is awake, it takes them by itself.
            let gets_on = self.rings.unsent() < before;
            if self.zero_copy || (!gets_on && !patience.wait()) {
                break;
            }
        }
    }

    fn kick(&mut self) {
        let Err(error) = self.rings.kick() else {
            return;
        };
        if matches!(
            error.raw_os_error(),
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV)
        ) {
            self.is_down = true;
            tracing::debug!(ifindex = self.options.ifindex, %error, "AF_XDP cannot send");
        }
    }
}

impl WanSocket for XdpSocket {
    fn recv(&mut self, frames: &mut [UdpFrame]) -> io::Result<usize> {
        if self.rings.unsent() > 0 {
            self.kick();
        }
        if frames.is_empty() {
            return Ok(0);
        }
        loop {
            let waited = self.rings.received();
            let filled = self.receive(frames);
            // Only foreign frames: there may be others behind them.
            if filled > 0 || waited == 0 {
                return Ok(filled);
            }
        }
    }

    fn send_rest(&mut self, batch: &UdpBatch, done: &mut TrainSet) -> SendReport {
        let mut report = SendReport::default();
        if self.is_down || self.neighbourhood.next_hops.is_empty() {
            return report;
        }
        let mut patience = Patience::default();
        for (at, train) in batch.trains().iter().enumerate() {
            if done.contains(at) {
                continue;
            }
            let Some(header) = self.header_of(train) else {
                self.counters.left += 1;
                continue;
            };
            let packets = train.packets as usize;
            if self.rings.writable() < packets && !self.make_room(packets, &mut patience) {
                if !self.is_down {
                    done.insert(at);
                    report.count_train_blocked(train);
                }
                continue;
            }
            self.put(&header, batch, train);
            done.insert(at);
            report.count_train_sent(train);
            self.counters.sent += u64::from(train.packets);
        }
        self.flush(&mut patience);
        self.rings.reap();
        report
    }

    fn set_uplinks(&mut self, uplinks: &[(UplinkId, Way)]) {
        self.uplinks = UplinkTable::new(uplinks);
    }

    fn recv_counters(&self) -> RecvCounters {
        RecvCounters {
            truncated: self.counters.foreign + self.counters.corrupt,
            errors_passed: 0,
        }
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }
}

impl fmt::Debug for XdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let XdpOptions { ifindex, queue, .. } = self.options;
        write!(f, "XdpSocket({ifindex} queue {queue})")
    }
}

/// Begins a frame with a datagram.
fn begin(frame: &mut UdpFrame, endpoint: Endpoint, datagram: &Datagram<'_>) {
    let len = datagram.payload.len();
    frame.buf.storage_mut()[..len].copy_from_slice(datagram.payload);
    frame.buf.set_len(len);
    frame.endpoint = endpoint;
    frame.tos = datagram.tos;
    frame.segment_len = 0;
}

/// Appends a datagram to the train of its flow; `false` where it has to begin another one. The rules are those of
/// `UDP_GRO`: all of one length, but the last, which may be shorter and ends it.
fn join(frame: &mut UdpFrame, payload: &[u8]) -> bool {
    let len = frame.buf.len();
    let segment_len = match frame.segment_len {
        0 => len,
        segment_len => segment_len,
    };
    let is_open = segment_len > 0 && len.is_multiple_of(segment_len);
    let fits = !payload.is_empty()
        && payload.len() <= segment_len
        && len + payload.len() <= FRAME_DATA_MAX
        && len < segment_len * TRAIN_MAX;
    if !is_open || !fits {
        return false;
    }
    frame.buf.storage_mut()[len..len + payload.len()].copy_from_slice(payload);
    frame.buf.set_len(len + payload.len());
    frame.segment_len = segment_len;
    true
}

/// Chunks that hold a frame of the interface, with the room that the kernel keeps in front of it.
fn spec_for(options: &XdpOptions) -> Result<RingSpec, XdpError> {
    let frame_len = options.mtu + ETHERNET_LEN + VLAN_TAGS_LEN;
    let fits = |chunk_len: u32| frame_len + KERNEL_HEADROOM <= chunk_len as usize;
    let chunk_len = CHUNK_LENS.into_iter().find(|len| fits(*len));
    let chunk_len = chunk_len.ok_or(XdpError::MtuTooLarge {
        ifindex: options.ifindex,
        mtu: options.mtu,
        max: CHUNK_LENS[1] as usize - KERNEL_HEADROOM - ETHERNET_LEN - VLAN_TAGS_LEN,
    })?;
    Ok(RingSpec {
        chunk_len,
        rx_chunks: options.ring_len,
        tx_chunks: options.ring_len,
    })
}

/// Opens a socket and binds it. A queue that was just closed is free a moment later.
fn bind(options: &XdpOptions, spec: &RingSpec, mode: u16) -> Result<Rings, Refusal> {
    let rings = Rings::new(spec)?;
    let flags = mode | libc::XDP_USE_NEED_WAKEUP;
    let until = Instant::now() + BUSY_WAIT_MAX;
    loop {
        match rings.bind(options.ifindex, options.queue, flags) {
            Ok(()) => return Ok(rings),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                thread::sleep(BUSY_STEP);
            }
            Err(error) => return Err(("bind", error)),
        }
    }
}

type Refusal = crate::xdp_ring::Refused;

/// The kernel's answers where the driver has no zero copy.
fn is_zero_copy_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EINVAL)
    )
}

fn sorted(options: &XdpOptions, spec: &RingSpec, (operation, source): Refusal) -> XdpError {
    let XdpOptions { ifindex, queue, .. } = *options;
    match (source.raw_os_error(), operation) {
        (Some(libc::EPERM | libc::EACCES), _) => XdpError::NotPermitted,
        (Some(libc::EAFNOSUPPORT), _) => XdpError::KernelLacks,
        (Some(libc::EBUSY), _) => XdpError::Busy { ifindex, queue },
        (Some(libc::EINVAL), "bind") => XdpError::NoQueue { ifindex, queue },
        (Some(libc::EOPNOTSUPP), "bind") => XdpError::NoZeroCopy { ifindex },
        (Some(libc::ENODEV | libc::ENETDOWN), _) => XdpError::NoInterface { ifindex },
        (Some(libc::ENOBUFS | libc::ENOMEM), _) => XdpError::Memory {
            bytes: (spec.rx_chunks + spec.tx_chunks) as usize * spec.chunk_len as usize,
        },
        _ => XdpError::Io {
            operation,
            ifindex,
            queue,
            source,
        },
    }
}

/// How long one call waits for the kernel to get on, in all.
#[derive(Default)]
struct Patience {
    until: Option<Instant>,
}

impl Patience {
    fn wait(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + WAIT_MAX);
        thread::yield_now();
        now < until
    }
}

/// With chunks of 2 KiB a socket takes 4 MiB, half of what an ordinary user may lock.
const RING_LEN: u32 = 1024;
/// Sizes that the kernel takes: powers of two up to a page.
const CHUNK_LENS: [u32; 2] = [2048, 4096];
/// `XDP_PACKET_HEADROOM`
const KERNEL_HEADROOM: usize = 256;
/// Two tags may come with a frame, for which nobody takes it apart here.
const VLAN_TAGS_LEN: usize = 8;
/// As many datagrams as a train of `UDP_GRO` has (`UDP_GRO_CNT_MAX`).
const TRAIN_MAX: usize = 64;
const SEND_BUFFER: i32 = 4 << 20;
const WAIT_MAX: Duration = Duration::from_millis(5);
const BUSY_WAIT_MAX: Duration = Duration::from_millis(500);
const BUSY_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(payload: &[u8]) -> Datagram<'_> {
        Datagram {
            remote: "192.0.2.1:1".parse().unwrap(),
            local: "192.0.2.2".parse().unwrap(),
            port: 1,
            tos: 0,
            payload,
        }
    }

    #[test]
    fn datagrams_join_by_the_rules_of_gro() {
        let endpoint = Endpoint::from("192.0.2.1:1".parse::<SocketAddr>().unwrap());
        let lens_after = |lens: &[usize]| {
            let mut frame = UdpFrame::default();
            let mut refused = Vec::new();
            for (at, len) in lens.iter().enumerate() {
                let payload = vec![at as u8; *len];
                if at == 0 {
                    begin(&mut frame, endpoint, &datagram(&payload));
                } else if !join(&mut frame, &payload) {
                    refused.push(at);
                }
            }
            let lens: Vec<usize> = frame.datagrams().map(<[u8]>::len).collect();
            (lens, refused)
        };
        assert_eq!(lens_after(&[100]), (vec![100], vec![]));
        assert_eq!(lens_after(&[100, 100, 40]), (vec![100, 100, 40], vec![]));
        assert_eq!(lens_after(&[100, 40, 40]), (vec![100, 40], vec![2]));
        assert_eq!(lens_after(&[100, 101, 100]), (vec![100, 100], vec![1]));
        assert_eq!(lens_after(&[0, 0]).1, [1]);
        assert_eq!(lens_after(&[100, 0, 100]), (vec![100, 100], vec![1]));
        assert_eq!(lens_after(&[32; 70]).0.len(), TRAIN_MAX);
        assert_eq!(lens_after(&[1400; 64]).0.len(), FRAME_DATA_MAX / 1400);
    }

    #[test]
    fn chunks_fit_the_mtu_or_the_error_says_what_does() {
        let spec = |mtu| {
            let options = XdpOptions::new(7, 0, mtu, DoorPorts::default());
            spec_for(&options).map(|spec| spec.chunk_len)
        };
        assert_eq!(spec(1500).unwrap(), 2048);
        assert_eq!(spec(1770).unwrap(), 2048);
        assert_eq!(spec(1771).unwrap(), 4096);
        assert_eq!(spec(3818).unwrap(), 4096);
        let error = spec(9000).unwrap_err().to_string();
        assert!(error.contains("takes 3818 B"), "{error}");
    }

    #[test]
    fn errors_name_the_fix() {
        let options = XdpOptions::new(7, 3, 1500, DoorPorts::default());
        let spec = spec_for(&options).unwrap();
        let text = |operation, errno| {
            let error = io::Error::from_raw_os_error(errno);
            sorted(&options, &spec, (operation, error)).to_string()
        };
        assert!(text("socket", libc::EPERM).contains("CAP_NET_RAW"));
        assert!(text("bind", libc::EBUSY).contains("queue 3 of interface 7"));
        assert!(text("bind", libc::EINVAL).contains("no queue 3"));
        assert!(text("bind", libc::ENETDOWN).contains("bring it up"));
        assert!(text("XDP_UMEM_REG", libc::ENOBUFS).contains("4194304 B"));
        assert!(text("XDP_UMEM_REG", libc::EINVAL).contains("XDP_UMEM_REG failed"));
    }
}
