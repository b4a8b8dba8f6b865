//! Gets the process into a position to build a lab: as root it only checks, as anybody else it becomes root
//! of a user namespace of its own.

use std::fs::{self, OpenOptions};
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::LabError;

/// Prepares the calling process for a lab. Call it first in `main`, before any thread is started: the kernel
/// lets only a single-threaded process enter a user namespace.
///
/// # Errors
/// [`LabError::NoNamespaces`] or [`LabError::NoTun`], each with the command that helps.
pub fn enter_lab() -> Result<(), LabError> {
    if !geteuid().is_root() {
        enter_user_namespace()?;
    }
    // Opening shows that the module is there and the file may be used; no interface is made by it.
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|cause| LabError::NoTun { cause })?;
    // A root without CAP_SYS_ADMIN (a plain container) is found out here, not half-way up.
    crate::Namespace::with_private_run("probe").map(drop)
}

/// Becomes root of a new user namespace with network and mounts of its own (user_namespaces(7)).
fn enter_user_namespace() -> Result<(), LabError> {
    let (uid, gid) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    unshare(flags).map_err(|error| LabError::NoNamespaces {
        what: "unshare(CLONE_NEWUSER)",
        cause: error.into(),
    })?;
    // gid_map may be written without privilege only after setgroups has been given up.
    write_map("/proc/self/setgroups", "deny")?;
    write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1"))
}

fn write_map(path: &str, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(|error| LabError::NoNamespaces {
        what: "mapping the user into the new user namespace",
        cause: io::Error::new(error.kind(), format!("writing `{text}` to {path}: {error}")),
    })
}
