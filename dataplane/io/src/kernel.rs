//! Which kernel runs, and what of UDP offload it can be trusted with.

use std::fmt;

use patronus_packet::batch::TrainLimits;

use crate::sys;

/// A kernel release, as far as offloads depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The first number of `uname -r`.
    pub major: u16,
    /// The second number.
    pub minor: u16,
    /// The third number; 0 where the release has none.
    pub patch: u16,
}

impl KernelVersion {
    /// A version by its three numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The kernel this process runs on; `None` where `uname` answers nothing that reads as a version.
    pub fn running() -> Option<Self> {
        Self::parse(&sys::kernel_release()?)
    }

    /// Reads `6.18.44-fc-v669`, `7.0-rc3`, `5.10`: what stands behind the numbers is ignored.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()?
            .split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        let patch = match numbers.next() {
            None | Some("") => 0,
            Some(patch) => patch.parse().ok()?,
        };
        Some(Self::new(major, minor, patch))
    }

    /// How large one `UDP_SEGMENT` train may be. The kernel allows 64 segments before 6.9 and 128 from
    /// there (`UDP_MAX_SEGMENTS`); one less is used because it counts the UDP header in its byte limit.
    pub fn train_limits(self) -> TrainLimits {
        TrainLimits {
            segments: if self >= Self::new(6, 9, 0) { 127 } else { 63 },
            bytes: TRAIN_BYTES_MAX,
        }
    }

    /// Why `UDP_SEGMENT` must stay off on this kernel, if it must.
    pub fn gso_denied(self) -> Option<String> {
        // Introduced by b10b446, fixed by 78effd8 and 5f17ae0: trains arrive with wrong bytes.
        (Self::new(7, 0, 0)..=Self::new(7, 1, 4))
            .contains(&self)
            .then(|| {
                format!(
                    "udp-gso off: kernels 7.0 to 7.1.4 corrupt trains, this is {self}; update it"
                )
            })
    }

    /// Why `UDP_GRO` must stay off on this kernel, if it must.
    pub fn gro_denied(self) -> Option<String> {
        // wireguard-go c92064f found it unreliable before 5.12.
        (self < Self::new(5, 12, 0))
            .then(|| format!("udp-gro off: it needs kernel 5.12 or later, this is {self}"))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Payload bytes of one train: 65 535 less the IPv6 and UDP headers, rounded down.
const TRAIN_BYTES_MAX: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        let cases = [
            ("6.18.44-fc-v669", Some(KernelVersion::new(6, 18, 44))),
            ("6.1.0-28-amd64", Some(KernelVersion::new(6, 1, 0))),
            ("7.0-rc3", Some(KernelVersion::new(7, 0, 0))),
            ("5.10", Some(KernelVersion::new(5, 10, 0))),
            (
                "4.18.0-553.el8_10.x86_64",
                Some(KernelVersion::new(4, 18, 0)),
            ),
            ("5.15.153.1-microsoft", Some(KernelVersion::new(5, 15, 153))),
            ("", None),
            ("linux", None),
            ("6", None),
            ("99999999.1", None),
        ];
        for (release, want) in cases {
            assert_eq!(KernelVersion::parse(release), want, "{release}");
        }
    }

    #[test]
    fn trains_stay_below_what_each_kernel_accepts() {
        assert_eq!(KernelVersion::new(6, 8, 12).train_limits().segments, 63);
        assert_eq!(KernelVersion::new(6, 9, 0).train_limits().segments, 127);
    }

    #[test]
    fn the_deny_list_has_its_two_ends() {
        let gso_denied = |major, minor, patch| {
            KernelVersion::new(major, minor, patch)
                .gso_denied()
                .is_some()
        };
        assert!(!gso_denied(6, 19, 99));
        assert!(gso_denied(7, 0, 0));
        assert!(gso_denied(7, 1, 4));
        assert!(!gso_denied(7, 1, 5));
        assert!(KernelVersion::new(5, 11, 22).gro_denied().is_some());
        assert!(KernelVersion::new(5, 12, 0).gro_denied().is_none());
    }

    #[test]
    fn the_running_kernel_says_its_version() {
        assert!(KernelVersion::running().is_some());
    }
}
