//! A worker's doors to the WAN: its UDP sockets, and before them the queues that it has by AF_XDP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use patronus_io::{
    DoorPorts, Neighbourhood, SendReport, TrainSet, UdpSocket, WanSocket, Way, XdpSocket,
};
use patronus_packet::batch::{TrainLimits, UdpBatch};
use patronus_packet::{Door, Endpoint, UdpFrame, UplinkId};

/// The UDP sockets are per address family one on the port that the site listens on, and one of the worker's own where
/// lanes are on. AF_XDP takes what it can of the same traffic. Doors are numbered, AF_XDP first.
#[derive(Debug, Default)]
pub struct Sockets {
    xdp: Vec<XdpSocket>,
    udp: Vec<UdpSocket>,
    /// The trains of the batch under way that have found their door.
    done: TrainSet,
}

impl Sockets {
    /// Adds a UDP socket.
    pub fn push(&mut self, socket: UdpSocket) {
        self.udp.push(socket);
    }

    /// Adds a queue of an uplink.
    pub fn push_xdp(&mut self, socket: XdpSocket) {
        self.xdp.push(socket);
    }

    /// The UDP sockets.
    pub fn iter(&self) -> impl Iterator<Item = &UdpSocket> {
        self.udp.iter()
    }

    /// The UDP sockets.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut UdpSocket> {
        self.udp.iter_mut()
    }

    /// The queues by AF_XDP.
    pub fn xdp(&self) -> &[XdpSocket] {
        &self.xdp
    }

    /// Number of doors.
    pub fn count(&self) -> usize {
        self.xdp.len() + self.udp.len()
    }

    /// What to wait for, by door.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let xdp = self.xdp.iter().map(AsFd::as_fd);
        xdp.chain(self.udp.iter().map(AsFd::as_fd))
    }

    /// See [`WanSocket::recv`].
    ///
    /// # Errors
    /// Those of the door.
    pub fn recv(&mut self, door: usize, frames: &mut [UdpFrame]) -> io::Result<usize> {
        match door.checked_sub(self.xdp.len()) {
            None => self.xdp[door].recv(frames),
            Some(at) => self.udp[at].recv(frames),
        }
    }

    /// Begins a batch, which every door is then offered in order.
    pub fn begin_batch(&mut self) {
        self.done.clear();
    }

    /// Sends by one door what is its own and no door before it has sent.
    pub fn send(&mut self, door: usize, batch: &UdpBatch) -> SendReport {
        match door.checked_sub(self.xdp.len()) {
            None => self.xdp[door].send_rest(batch, &mut self.done),
            Some(at) => self.udp[at].send_rest(batch, &mut self.done),
        }
    }

    /// Whether there is a UDP socket of the endpoint's family and door. Where there is not, AF_XDP has no port either.
    pub fn serve(&self, endpoint: &Endpoint) -> bool {
        self.udp.iter().any(|socket| {
            socket.door() == endpoint.door
                && socket.local_addr().is_ipv6() == endpoint.remote.is_ipv6()
        })
    }

    /// Tells every door which interface each uplink has.
    pub fn set_uplinks(&mut self, uplinks: &[(UplinkId, Way)]) {
        for socket in &mut self.xdp {
            socket.set_uplinks(uplinks);
        }
        for socket in &mut self.udp {
            socket.set_uplinks(uplinks);
        }
    }

    /// Tells the queues of one interface what is behind it.
    pub fn set_neighbourhood(&mut self, ifindex: u32, neighbourhood: &Arc<Neighbourhood>) {
        let queues = self.xdp.iter_mut();
        for socket in queues.filter(|socket| socket.ifindex() == ifindex) {
            socket.set_neighbourhood(neighbourhood.clone());
        }
    }

    /// Takes other UDP sockets in the place of these; the queues stay.
    pub fn replace_udp(&mut self, with: Self) {
        self.udp = with.udp;
        let ports = self.ports();
        for socket in &mut self.xdp {
            socket.set_ports(ports);
        }
    }

    /// Datagrams that did not reach the caller.
    pub fn truncated(&self) -> u64 {
        let xdp = self.xdp.iter().map(WanSocket::recv_counters);
        let udp = self.udp.iter().map(UdpSocket::recv_counters);
        xdp.chain(udp).map(|counters| counters.truncated).sum()
    }

    /// The ports that the UDP sockets hold, for AF_XDP to use.
    pub fn ports(&self) -> DoorPorts {
        let port = |door, is_v6| {
            let mut addrs = self.addrs(door);
            addrs.find_map(|addr| (addr.is_ipv6() == is_v6).then(|| addr.port()))
        };
        DoorPorts {
            listen: self
                .addrs(Door::Listen)
                .next()
                .map_or(0, |addr| addr.port()),
            lane_v4: port(Door::Lane, false),
            lane_v6: port(Door::Lane, true),
        }
    }

    /// How long a train all of the UDP sockets take; AF_XDP takes any.
    pub fn max_train(&self) -> Option<TrainLimits> {
        let limits = self.udp.iter().map(UdpSocket::max_train);
        limits.reduce(shorter)
    }

    fn addrs(&self, door: Door) -> impl Iterator<Item = SocketAddr> {
        let sockets = self.udp.iter().filter(move |socket| socket.door() == door);
        sockets.map(UdpSocket::local_addr)
    }
}

/// Trains that fit both.
pub fn shorter(a: TrainLimits, b: TrainLimits) -> TrainLimits {
    TrainLimits {
        segments: a.segments.min(b.segments),
        bytes: a.bytes.min(b.bytes),
    }
}
