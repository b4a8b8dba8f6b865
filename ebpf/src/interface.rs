//! What an interface is, as far as the choice of a hook depends on it. Asked by ioctl, in the calling thread's
//! network namespace: `/sys/class/net` shows the namespace that it was mounted in.

#![expect(unsafe_code, reason = "ioctl takes a union of C")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::netlink;

/// An interface, as it is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Largest packet in bytes, without the link header.
    pub mtu: u32,
    /// What a frame begins with.
    pub layer: LinkLayer,
    /// The driver's name; `None` where it has none to tell.
    pub driver: Option<String>,
    /// Whether the driver runs XDP programs itself; `None` where the kernel does not say (before 6.3).
    pub xdp: Option<bool>,
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: PPP, tunnels.
    Ip,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of that name.
    #[error("there is no interface `{name}`: `ip link` shows which there are")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// Its frames begin with something we cannot read.
    #[error(
        "the interface `{name}` has frames of link type {kind}, of which the pre-filter can read none"
    )]
    Foreign {
        /// The interface.
        name: String,
        /// `ARPHRD_` number.
        kind: u16,
    },
    /// Anything else.
    #[error("{operation} failed for the interface `{name}`: {source}")]
    Io {
        /// The interface.
        name: String,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Interface {
    /// Looks the interface up.
    ///
    /// # Errors
    /// See [`InterfaceError`].
    pub fn find(name: &str) -> Result<Self, InterfaceError> {
        let failed = |operation| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::ENODEV | libc::ENXIO) => InterfaceError::Missing {
                    name: name.to_owned(),
                },
                _ => InterfaceError::Io {
                    name: name.to_owned(),
                    operation,
                    source,
                },
            }
        };
        let mut request = Request::new(name).ok_or_else(|| InterfaceError::Missing {
            name: name.to_owned(),
        })?;
        let socket = socket().map_err(failed("opening a socket"))?;
        request
            .ask(&socket, libc::SIOCGIFINDEX as _)
            .map_err(failed("SIOCGIFINDEX"))?;
        let index = request.int();
        request
            .ask(&socket, libc::SIOCGIFMTU as _)
            .map_err(failed("SIOCGIFMTU"))?;
        let mtu = request.int();
        request
            .ask(&socket, libc::SIOCGIFHWADDR as _)
            .map_err(failed("SIOCGIFHWADDR"))?;
        let layer = layer_of(request.family()).ok_or_else(|| InterfaceError::Foreign {
            name: name.to_owned(),
            kind: request.family(),
        })?;
        let index = u32::try_from(index).unwrap_or(0);
        Ok(Self {
            name: name.to_owned(),
            index,
            mtu: u32::try_from(mtu).unwrap_or(0),
            layer,
            driver: driver(&socket, name),
            xdp: netlink::driver_runs_xdp(index),
        })
    }
}

/// `ARPHRD_` numbers of `<linux/if_arp.h>` that we can read.
fn layer_of(kind: u16) -> Option<LinkLayer> {
    match kind {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(LinkLayer::Ethernet),
        libc::ARPHRD_NONE
        | libc::ARPHRD_PPP
        | libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | ARPHRD_RAWIP => Some(LinkLayer::Ip),
        _ => None,
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed; the descriptor is checked before it is owned, by us alone.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// `ETHTOOL_GDRVINFO`; virtual interfaces may have none.
fn driver(socket: &OwnedFd, name: &str) -> Option<String> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        rest: [0; 160],
    };
    let mut request = Request::new(name)?;
    request.0.ifr_ifru.ifru_data = (&raw mut info).cast();
    request.ask(socket, SIOCETHTOOL).ok()?;
    let text = CStr::from_bytes_until_nul(&info.driver).ok()?;
    let text = text.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// `struct ethtool_drvinfo` of `<linux/ethtool.h>`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ifreq` with a name.
struct Request(libc::ifreq);

impl Request {
    /// `None` where no interface can have that name.
    fn new(name: &str) -> Option<Self> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(|byte| byte == 0) {
            return None;
        }
        // SAFETY: integers, arrays of them and a pointer: zero bytes are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Some(Self(request))
    }

    fn ask(&mut self, socket: &OwnedFd, request: libc::Ioctl) -> io::Result<()> {
        // SAFETY:
        // - the descriptor is open while it is borrowed;
        // - all requests used here read and write one `ifreq`, whose `ifru_data`, where it is used, points to a
        //   `DriverInfo` that outlives the call.
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut self.0) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The integer of the answer.
    fn int(&self) -> i32 {
        // SAFETY: the union was zeroed and then written by the kernel; any bytes are an integer.
        unsafe { self.0.ifr_ifru.ifru_mtu }
    }

    /// The family of the hardware address in the answer.
    fn family(&self) -> u16 {
        // SAFETY: as `int`.
        unsafe { self.0.ifr_ifru.ifru_hwaddr.sa_family }
    }
}

/// Mobile broadband.
const ARPHRD_RAWIP: u16 = 519;
const ETHTOOL_GDRVINFO: u32 = 3;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_ethernet_headers() {
        let lo = Interface::find("lo").unwrap();
        assert_eq!((lo.index, lo.layer), (1, LinkLayer::Ethernet));
        assert!(lo.mtu >= 1280);
    }

    #[test]
    fn what_is_no_interface_is_missing() {
        for name in ["", "no-such-if", "a-name-that-is-too-long", "nul\0"] {
            let error = Interface::find(name).unwrap_err();
            assert!(matches!(error, InterfaceError::Missing { .. }), "{error}");
        }
    }
}
