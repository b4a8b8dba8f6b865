//! The lab without root: this test has no harness, because only a process with a single thread may enter a
//! user namespace.

#![allow(clippy::unwrap_used, reason = "a test without a harness")]

mod common;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::unistd::Uid;
use patronus_lab::traffic::reach;
use patronus_lab::{Family, Lab, LabError, enter_lab, exit_code};

const NOBODY: u32 = 65534;

fn main() {
    if Uid::effective().is_root() {
        as_nobody();
    } else {
        a_user_without_privilege_gets_a_lab();
    }
}

fn as_nobody() {
    let copy = tempfile::tempdir().unwrap();
    // The build directory may be closed to others.
    let exe = copy.path().join("unprivileged");
    std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    for path in [copy.path(), &exe] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }
    let status = Command::new(&exe)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .status()
        .unwrap();
    assert!(status.success(), "as user {NOBODY}: {status}");
}

fn a_user_without_privilege_gets_a_lab() {
    match enter_lab() {
        Ok(()) => {}
        // Some systems keep TUN from users; the namespaces are entered all the same.
        Err(error @ LabError::NoTun { .. }) => {
            assert!(error.to_string().contains("/dev/net/tun"), "{error}");
            assert_eq!(exit_code(&error.into()), 2);
        }
        Err(error @ LabError::NoNamespaces { .. }) => {
            let text = error.to_string();
            assert_eq!(exit_code(&error.into()), 2);
            common::skip(&text);
            return;
        }
        Err(error @ (LabError::Interrupted | LabError::NoPrefilter(_))) => panic!("{error}"),
    }
    let lab = Lab::build(2).unwrap();
    let [one, two] = &lab.sites[..] else {
        panic!("a lab of two has two sites")
    };
    for family in [Family::V4, Family::V6] {
        reach(&one.gateway, two.wan_addr(family), Duration::from_secs(60)).unwrap();
        let leaked = reach(&one.host, two.host_addr(family), Duration::from_millis(200));
        assert!(leaked.is_err(), "hosts meet only through a tunnel");
    }
    println!("a user without privilege gets a lab ... ok");
}
