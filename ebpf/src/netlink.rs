//! Whether a driver runs XDP programs itself: the kernel's `netdev` family of generic netlink (Linux 6.3).

/// `None` where the kernel does not say.
pub(crate) fn driver_runs_xdp(_index: u32) -> Option<bool> {
    None
}
