//! What can keep a lab from running, as the operator has to hear it, and the exit code it stands for.

use std::io;

/// A lab that cannot start or was stopped; everything else is an `anyhow` error of the phase that failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel refused to make a namespace.
    #[error(
        "no namespaces: {what} refused: {cause}. Run it as root (`sudo patronus demo`), or allow \
         unprivileged user namespaces: `sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000` \
         and, on Ubuntu 24.04 and later, `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
    )]
    NoNamespaces {
        /// The call that was refused.
        what: &'static str,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// There is no usable TUN device.
    #[error(
        "no TUN device: opening /dev/net/tun: {cause}. Load it with `modprobe tun`; in a container pass \
         `--device /dev/net/tun --cap-add NET_ADMIN`; if it exists and may not be opened, `chmod 0666 /dev/net/tun`"
    )]
    NoTun {
        /// What the kernel answered.
        cause: io::Error,
    },
    /// No program can be put into the kernel.
    #[error("no pre-filter here: {0}")]
    NoPrefilter(String),
    /// Ctrl-C or SIGTERM.
    #[error("stopped by a signal: everything has been taken down")]
    Interrupted,
}

/// The exit code of a failed `demo` or `bench`: 2 where the machine lacks what a lab needs, 130 after a
/// signal (as shells report SIGINT), 1 for all else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<LabError>() {
        Some(LabError::NoNamespaces { .. } | LabError::NoTun { .. } | LabError::NoPrefilter(_)) => {
            2
        }
        Some(LabError::Interrupted) => 130,
        None => 1,
    }
}
