//! What runs of the offload ladder, and why not more.

use std::fmt;

/// Offloads of a TUN device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunOffload {
    /// Packets carry a virtio-net header (`IFF_VNET_HDR`), so superpackets and unfinished checksums can
    /// pass. Without it joining must be off.
    pub vnet: bool,
    /// The kernel hands over TCP superpackets (TSO4 and TSO6).
    pub tso: bool,
    /// The kernel hands over and accepts UDP superpackets (USO4 and USO6, kernel 6.2 and later).
    pub uso: bool,
}

impl TunOffload {
    /// Everything.
    pub const FULL: Self = Self {
        vnet: true,
        tso: true,
        uso: true,
    };
    /// TCP superpackets only.
    pub const TCP: Self = Self {
        vnet: true,
        tso: true,
        uso: false,
    };
    /// A virtio-net header and checksum offload, no superpackets from the kernel.
    pub const CHECKSUM: Self = Self {
        vnet: true,
        tso: false,
        uso: false,
    };
    /// Plain packets.
    pub const NONE: Self = Self {
        vnet: false,
        tso: false,
        uso: false,
    };

    /// What both have.
    pub fn common(self, other: Self) -> Self {
        Self {
            vnet: self.vnet && other.vnet,
            tso: self.tso && other.tso,
            uso: self.uso && other.uso,
        }
    }
}

impl fmt::Display for TunOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.vnet, self.tso, self.uso) {
            (false, _, _) => f.write_str("none"),
            (true, true, true) => f.write_str("tso+uso"),
            (true, true, false) => f.write_str("tso"),
            (true, false, true) => f.write_str("uso"),
            (true, false, false) => f.write_str("csum"),
        }
    }
}

/// Offloads of a UDP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpOffload {
    /// Trains go out in one system call entry (`UDP_SEGMENT`, kernel 4.18 and later).
    pub gso: bool,
    /// Trains come in as one buffer (`UDP_GRO`, kernel 5.0 and later).
    pub gro: bool,
}

impl UdpOffload {
    /// What both have.
    pub fn common(self, other: Self) -> Self {
        Self {
            gso: self.gso && other.gso,
            gro: self.gro && other.gro,
        }
    }
}

impl fmt::Display for UdpOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.gso, self.gro) {
            (true, true) => "udp-gso+udp-gro",
            (true, false) => "udp-gso",
            (false, true) => "udp-gro",
            (false, false) => "none",
        })
    }
}

/// The ladder as it stands: for logs, the status line and `patronus demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffloadReport {
    /// The TUN's part.
    pub tun: TunOffload,
    /// The sockets' part: what all of them have.
    pub udp: UdpOffload,
    /// The rung: `full`, `no-uso`, `no-udp-gso`, `no-udp-gro`, `no-tun-offload` or `none`.
    pub level: &'static str,
    /// Why each missing offload is missing, one line each.
    pub why: Vec<String>,
}

impl OffloadReport {
    /// Names the rung of what runs.
    pub fn new(tun: TunOffload, udp: UdpOffload, why: Vec<String>) -> Self {
        Self {
            tun,
            udp,
            level: level(tun, udp),
            why,
        }
    }
}

impl fmt::Display for OffloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tun = self.tun.to_string();
        let udp = self.udp.to_string();
        let mut parts = vec![tun.as_str(), udp.as_str()];
        parts.retain(|part| *part != "none");
        match parts.is_empty() {
            true => f.write_str("none"),
            false => write!(f, "{} ({})", parts.join("+"), self.level),
        }
    }
}

/// The lowest rung that something missing leads to.
fn level(tun: TunOffload, udp: UdpOffload) -> &'static str {
    let tun_works = tun.vnet && tun.tso;
    match (tun_works, udp.gso, udp.gro, tun.uso) {
        (false, false, false, _) => "none",
        (false, _, _, _) => "no-tun-offload",
        (true, false, _, _) => "no-udp-gso",
        (true, true, false, _) => "no-udp-gro",
        (true, true, true, false) => "no-uso",
        (true, true, true, true) => "full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP_FULL: UdpOffload = UdpOffload {
        gso: true,
        gro: true,
    };

    #[test]
    fn each_rung_says_what_runs() {
        let udp = |gso, gro| UdpOffload { gso, gro };
        let cases = [
            (TunOffload::FULL, UDP_FULL, "tso+uso+udp-gso+udp-gro (full)"),
            (TunOffload::TCP, UDP_FULL, "tso+udp-gso+udp-gro (no-uso)"),
            (
                TunOffload::FULL,
                udp(false, true),
                "tso+uso+udp-gro (no-udp-gso)",
            ),
            (
                TunOffload::FULL,
                udp(true, false),
                "tso+uso+udp-gso (no-udp-gro)",
            ),
            (
                TunOffload::NONE,
                UDP_FULL,
                "udp-gso+udp-gro (no-tun-offload)",
            ),
            (TunOffload::CHECKSUM, udp(false, false), "csum (none)"),
            (TunOffload::NONE, udp(false, false), "none"),
        ];
        for (tun, udp, want) in cases {
            assert_eq!(OffloadReport::new(tun, udp, Vec::new()).to_string(), want);
        }
    }
}
