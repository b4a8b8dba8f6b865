//! The virtio-net header that the kernel puts in front of every packet of a TUN opened with
//! `IFF_VNET_HDR` (`include/uapi/linux/virtio_net.h`, `drivers/net/tun.c`).

/// Bytes of the header on a TUN queue: `TUNSETVNETHDRSZ`'s default, without `num_buffers`.
pub const VNET_HEADER_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the transport checksum field holds the pseudo-header sum only.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the transport checksum was verified.
pub const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_ECN`: a flag in `gso_type`, set when the TCP stream carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// What kind of superpacket follows, from `gso_type` without its ECN flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// An ordinary packet.
    None,
    /// `VIRTIO_NET_HDR_GSO_TCPV4`
    TcpV4,
    /// `VIRTIO_NET_HDR_GSO_TCPV6`
    TcpV6,
    /// `VIRTIO_NET_HDR_GSO_UDP_L4`: USO, kernel 6.2 and later.
    UdpL4,
}

impl GsoKind {
    /// The kind's number in the header.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::TcpV4 => 1,
            Self::TcpV6 => 4,
            Self::UdpL4 => 5,
        }
    }
}

/// `struct virtio_net_hdr`, fields as the kernel names them, in native byte order on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`] and [`DATA_VALID`].
    pub flags: u8,
    /// Kind of superpacket and [`GSO_ECN`]; see [`VnetHeader::gso_kind`].
    pub gso_type: u8,
    /// Length of the skb's linear head. A hint: never trust it as the length of the headers.
    pub hdr_len: u16,
    /// Payload bytes of one segment.
    pub gso_size: u16,
    /// Offset of the transport header, where the checksum starts.
    pub csum_start: u16,
    /// Offset of the checksum field behind `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Reads the header as the kernel wrote it.
    pub fn from_bytes(bytes: &[u8; VNET_HEADER_LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// Writes the header as the kernel reads it.
    pub fn to_bytes(self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        bytes
    }

    /// The kind of superpacket; `None` for a number this gateway does not know.
    pub fn gso_kind(self) -> Option<GsoKind> {
        match self.gso_type & !GSO_ECN {
            0 => Some(GsoKind::None),
            1 => Some(GsoKind::TcpV4),
            4 => Some(GsoKind::TcpV6),
            5 => Some(GsoKind::UdpL4),
            _ => None,
        }
    }

    /// Whether the transport checksum still has to be finished.
    pub fn needs_csum(self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_survives_a_round_trip() {
        for seed in 0u8..=255 {
            let bytes = std::array::from_fn(|at| seed.wrapping_mul(31).wrapping_add(at as u8 * 7));
            assert_eq!(VnetHeader::from_bytes(&bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn the_ecn_flag_does_not_hide_the_kind() {
        let header = VnetHeader {
            gso_type: GsoKind::TcpV6.to_wire() | GSO_ECN,
            ..VnetHeader::default()
        };
        assert_eq!(header.gso_kind(), Some(GsoKind::TcpV6));
    }
}
