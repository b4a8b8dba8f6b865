//! The hops below a path: UDP datagrams whose TTL ends on the way, and the ICMP errors that come back, which Linux hands to
//! the socket that caused them (`IP_RECVERR`). No privilege is needed.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use serde::Serialize;

/// One hop.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hop {
    /// Its distance.
    pub ttl: u8,
    /// Who answered.
    pub addr: Option<IpAddr>,
    /// How long that took.
    pub rtt_ms: Option<f64>,
    /// What it said, where that is not merely that the TTL ended.
    pub what: Option<String>,
    /// Whether this is the end of the way.
    pub is_end: bool,
}

/// Finds the hops towards `remote`, sending by `interface` where one is named. Ends at the remote, at an error that says that
/// there is no way, after `max` hops, or where [`SILENT_MAX`] of them said nothing.
///
/// # Errors
/// The kernel does not send.
pub fn hops(
    remote: IpAddr,
    interface: Option<&str>,
    max: u8,
    patience: Duration,
) -> io::Result<Vec<Hop>> {
    let mut hops: Vec<Hop> = Vec::new();
    for ttl in 1..=max {
        let hop = probe(remote, interface, ttl, patience)?;
        let is_end = hop.is_end;
        hops.push(hop);
        let silent = hops.iter().rev().take_while(|it| it.addr.is_none());
        if is_end || silent.count() >= SILENT_MAX {
            break;
        }
    }
    // What is silent to the end tells nothing.
    while hops.len() > 1
        && hops
            .last()
            .is_some_and(|it| it.addr.is_none() && !it.is_end)
    {
        hops.pop();
    }
    Ok(hops)
}

/// One datagram from a socket of its own, so that a late answer to another one is not taken for its.
fn probe(remote: IpAddr, interface: Option<&str>, ttl: u8, patience: Duration) -> io::Result<Hop> {
    let socket = open(remote, interface, ttl)?;
    let begun = Instant::now();
    let to = SocketAddr::new(remote, FIRST_PORT + u16::from(ttl));
    let mut hop = Hop {
        ttl,
        addr: None,
        rtt_ms: None,
        what: None,
        is_end: false,
    };
    if let Err(error) = socket.send_to(&[0; PAYLOAD_LEN], to) {
        // No route, no neighbour: the way ends in this machine.
        (hop.what, hop.is_end) = (Some(error.to_string()), true);
        return Ok(hop);
    }
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, timeout)? == 0 {
            return Ok(hop);
        }
        if let Some(told) = read_error(&socket)? {
            hop.rtt_ms = Some((begun.elapsed().as_secs_f64() * 1e6).round() / 1e3);
            hop.addr = told.from;
            (hop.what, hop.is_end) = told.meaning(remote);
            return Ok(hop);
        }
        // An answer, of all things: then the remote is there.
        let mut sink = [0; 64];
        if socket
            .recv_from(&mut sink)
            .is_ok_and(|(_, from)| from.ip() == remote)
        {
            hop.rtt_ms = Some((begun.elapsed().as_secs_f64() * 1e6).round() / 1e3);
            (hop.addr, hop.what, hop.is_end) = (Some(remote), Some(REACHED.to_owned()), true);
            return Ok(hop);
        }
    }
}

fn open(remote: IpAddr, interface: Option<&str>, ttl: u8) -> io::Result<UdpSocket> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    match remote {
        IpAddr::V4(_) => {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv4Ttl, &i32::from(ttl))?;
        }
        IpAddr::V6(_) => {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv6Ttl, &i32::from(ttl))?;
        }
    }
    if let Some(interface) = interface {
        setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
    }
    Ok(socket)
}

/// An error of the socket's queue.
struct Told {
    origin: u8,
    kind: u8,
    code: u8,
    errno: i32,
    from: Option<IpAddr>,
}

impl Told {
    /// What it means, and whether the way ends there.
    fn meaning(&self, remote: IpAddr) -> (Option<String>, bool) {
        let is_remote = self.from == Some(remote);
        match (self.origin, self.kind, self.code) {
            (ICMP, ICMP_TIME_EXCEEDED, _) | (ICMP6, ICMP6_TIME_EXCEEDED, _) => (None, false),
            (ICMP, ICMP_UNREACHABLE, ICMP_PORT) | (ICMP6, ICMP6_UNREACHABLE, ICMP6_PORT)
                if is_remote =>
            {
                (Some(REACHED.to_owned()), true)
            }
            _ => {
                let error = io::Error::from_raw_os_error(self.errno).to_string();
                let text = error.split(" (os error").next().unwrap_or(&error);
                (Some(text.to_lowercase()), true)
            }
        }
    }
}

fn read_error(socket: &UdpSocket) -> io::Result<Option<Told>> {
    let mut payload = [0; 64];
    let mut parts = [IoSliceMut::new(&mut payload)];
    // Room for an error and its sender's address.
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
        {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
    for part in message.cmsgs()? {
        let (error, from) = match part {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from = from.map(|it| Ipv4Addr::from(u32::from_be(it.sin_addr.s_addr)));
                (error, from.map(IpAddr::V4))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                let from = from.map(|it| Ipv6Addr::from(it.sin6_addr.s6_addr));
                (error, from.map(IpAddr::V6))
            }
            _ => continue,
        };
        return Ok(Some(Told {
            origin: error.ee_origin,
            kind: error.ee_type,
            code: error.ee_code,
            errno: error.ee_errno as i32,
            from,
        }));
    }
    Ok(None)
}

const REACHED: &str = "reached";
/// Where traceroute begins.
const FIRST_PORT: u16 = 33434;
const PAYLOAD_LEN: usize = 32;
const SILENT_MAX: usize = 5;
/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6` (`linux/errqueue.h`).
const ICMP: u8 = 2;
const ICMP6: u8 = 3;
/// RFC 792; RFC 4443, section 3.
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_PORT: u8 = 3;
const ICMP_TIME_EXCEEDED: u8 = 11;
const ICMP6_UNREACHABLE: u8 = 1;
const ICMP6_PORT: u8 = 4;
const ICMP6_TIME_EXCEEDED: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_at_the_first_hop_without_privilege() {
        let remote = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let hops = hops(remote, None, 30, Duration::from_secs(10)).unwrap();
        assert_eq!(hops.len(), 1, "{hops:?}");
        assert_eq!((hops[0].addr, hops[0].is_end), (Some(remote), true));
        assert_eq!(hops[0].what.as_deref(), Some("reached"));
    }

    #[test]
    fn an_interface_that_does_not_exist_is_an_error() {
        let remote = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(hops(remote, Some("nowhere0"), 1, Duration::from_millis(10)).is_err());
    }
}
