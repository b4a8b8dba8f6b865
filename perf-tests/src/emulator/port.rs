//! A packet socket (AF_PACKET) on one interface: whole Ethernet frames in and out.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

/// An open port.
#[derive(Debug)]
pub(super) struct Port {
    name: String,
    socket: OwnedFd,
}

/// What reading gave.
pub(super) enum Read {
    /// A frame of that length.
    Frame(usize),
    /// A frame that this end sent: not for us.
    Own,
    /// Nothing there.
    Empty,
}

impl Port {
    /// Opens an interface of the calling thread's network namespace.
    pub(super) fn open(name: &str) -> Result<Self> {
        let addr = link_addr(name)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )
        .context("opening a packet socket: it takes CAP_NET_RAW")?;
        // Past the system's limit where the kernel lets us; a full buffer loses frames that no wire counts.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)
                .with_context(|| format!("giving the socket on {name} its buffer"))?;
        }
        bind(socket.as_raw_fd(), &addr)
            .with_context(|| format!("binding a packet socket to {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            socket,
        })
    }

    /// Reads one frame into `buffer`.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
            Ok((_, Some(from))) if from.pkttype() == PACKET_OUTGOING => Ok(Read::Own),
            Ok((len, _)) => Ok(Read::Frame(len)),
            // An interface that went down says so once, then is silent until it is up again.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => Ok(Read::Empty),
            Err(error) => Err(io::Error::other(format!(
                "reading a frame from {}: {error}",
                self.name
            ))),
        }
    }

    /// Sends one frame; `false` when the kernel does not take it.
    pub(super) fn send(&self, frame: &[u8]) -> bool {
        send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).is_ok()
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The kernel's address of an interface, which carries its index.
fn link_addr(name: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs().context("listing the interfaces")?;
    all.find_map(|entry| {
        let addr = *entry.address?.as_link_addr()?;
        (entry.interface_name == name).then_some(addr)
    })
    .with_context(|| format!("no interface {name} in the emulator's namespace"))
}

/// The packet type of what the host itself sent (packet(7)).
const PACKET_OUTGOING: u8 = 4;
const BUFFER_BYTES: usize = 16 << 20;
