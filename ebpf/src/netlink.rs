//! Whether a driver runs XDP programs itself: the kernel's `netdev` family of generic netlink (Linux 6.3,
//! `Documentation/netlink/specs/netdev.yaml`).

#![expect(unsafe_code, reason = "netlink sockets are the kernel's alone")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What a driver can do with XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// It runs programs before the kernel allocates anything.
    pub native: bool,
    /// It takes frames in several pieces, so also large ones.
    pub pieces: bool,
}

/// `None` where the kernel does not say.
pub(crate) fn xdp_features(index: u32) -> Option<XdpFeatures> {
    let socket = Generic::open().ok()?;
    let family = socket.family(c"netdev".to_bytes_with_nul())?;
    let answer = socket
        .ask(
            family,
            NETDEV_CMD_DEV_GET,
            DEV_IFINDEX,
            &index.to_ne_bytes(),
        )
        .ok()?;
    let bits = attribute(&answer, DEV_XDP_FEATURES)?;
    let bits = u64::from_ne_bytes(bits.get(..8)?.try_into().ok()?);
    Some(XdpFeatures {
        native: bits & XDP_ACT_BASIC != 0,
        pieces: bits & XDP_ACT_RX_SG != 0,
    })
}

/// A socket of generic netlink.
struct Generic(OwnedFd);

impl Generic {
    fn open() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the descriptor is checked before it is owned, by us alone.
        let socket = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            let fd = libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(socket))
    }

    /// The number of a family, by its name with the final zero.
    fn family(&self, name: &[u8]) -> Option<u16> {
        let answer = self
            .ask(
                GENL_ID_CTRL,
                CTRL_CMD_GETFAMILY,
                CTRL_ATTR_FAMILY_NAME,
                name,
            )
            .ok()?;
        let id = attribute(&answer, CTRL_ATTR_FAMILY_ID)?;
        Some(u16::from_ne_bytes(id.get(..2)?.try_into().ok()?))
    }

    /// One request with one attribute; the attributes of the answer.
    fn ask(&self, family: u16, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
        let request = request(family, command, kind, value);
        let mut answer = vec![0u8; ANSWER_MAX];
        // SAFETY:
        // - the descriptor is open while it is borrowed;
        // - the kernel reads `request.len()` bytes of the one buffer and writes at most `answer.len()` into the
        //   other, and both outlive the calls. An unconnected netlink socket sends to the kernel.
        let len = unsafe {
            let fd = self.0.as_raw_fd();
            if libc::send(fd, request.as_ptr().cast(), request.len(), 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        answer.truncate(len);
        let kind = answer
            .get(4..6)
            .map_or(0, |kind| u16::from_ne_bytes([kind[0], kind[1]]));
        if kind == libc::NLMSG_ERROR as u16 || answer.len() < HEADERS_LEN {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer.drain(..HEADERS_LEN);
        Ok(answer)
    }
}

/// `struct nlmsghdr`, `struct genlmsghdr`, one attribute.
fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute_len = 4 + value.len();
    let len = HEADERS_LEN + attribute_len.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(len);
    bytes.extend((len as u32).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend((attribute_len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len, 0);
    bytes
}

/// The value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [len0, len1, kind0, kind1, ..] = *attributes {
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([kind0, kind1]) & ATTRIBUTE_KIND == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

const HEADERS_LEN: usize = 16 + 4;
const ANSWER_MAX: usize = 16 << 10;
/// Without the flags for nesting and byte order.
const ATTRIBUTE_KIND: u16 = 0x3fff;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
const XDP_ACT_BASIC: u64 = 1;
const XDP_ACT_RX_SG: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let bytes = [5, 0, 1, 0, 9, 0, 0, 0, 6, 0, 2, 0, 7, 8, 0, 0];
        assert_eq!(attribute(&bytes, 1), Some(&[9u8][..]));
        assert_eq!(attribute(&bytes, 2), Some(&[7u8, 8][..]));
        assert_eq!(attribute(&bytes, 3), None);
    }

    #[test]
    fn broken_attributes_are_nothing() {
        for bytes in [
            &[][..],
            &[4],
            &[0, 0, 1, 0],
            &[3, 0, 1, 0],
            &[200, 0, 1, 0, 5],
        ] {
            assert_eq!(attribute(bytes, 7), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_loopback_has_no_native_xdp() {
        match xdp_features(1) {
            Some(features) => assert!(!features.native),
            None => println!("this kernel does not say"),
        }
        assert_eq!(xdp_features(u32::MAX), None);
    }
}
