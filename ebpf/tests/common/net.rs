//! A veth pair in a network namespace of a thread's own, and raw frames on it. The namespace goes with the thread.
#![allow(unsafe_code, reason = "packet sockets")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use patronus_ebpf::Interface;

/// Runs `body` in a new namespace in which `wa` and `wb` are the up ends of a veth pair, `wb` with 10.9.0.1/24.
/// Whether it ran.
pub fn in_pair(body: impl FnOnce() + Send + 'static) -> bool {
    if !super::can_load() {
        return false;
    }
    let inside = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return Err(format!("unshare(CLONE_NEWNET): {error}"));
        }
        ip("link set lo up");
        ip("link add wa type veth peer name wb");
        ip("address add 10.9.0.1/24 dev wb");
        ip("link set wa up");
        ip("link set wb up");
        body();
        Ok(())
    });
    match inside.join() {
        Ok(Ok(())) => true,
        Ok(Err(why)) => super::skip(&why),
        Err(panic) => resume_unwind(panic),
    }
}

/// `ip` of iproute2 in the calling thread's namespace.
pub fn ip(args: &str) -> String {
    run("ip", args)
}

pub fn run(program: &str, args: &str) -> String {
    let output = Command::new(program)
        .args(args.split(' '))
        .output()
        .unwrap_or_else(|error| panic!("{program} {args}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args}: {errors}");
    text
}

/// Sends raw frames out of an interface (`AF_PACKET`).
pub struct Wire {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl Wire {
    pub fn new(interface: &str) -> Self {
        let index = Interface::find(interface).unwrap().index;
        // SAFETY: no pointer is passed; zero bytes are a `sockaddr_ll`.
        let (fd, mut to) = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            let to: libc::sockaddr_ll = std::mem::zeroed();
            (libc::socket(libc::AF_PACKET, kind, 0), to)
        };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        // SAFETY: just opened, owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Self { socket, to }
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: both pointers are to memory of the lengths given, which outlives the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.to).cast(),
                size_of_val(&self.to) as u32,
            )
        };
        assert_eq!(
            sent,
            frame.len() as isize,
            "{}",
            std::io::Error::last_os_error()
        );
    }
}

/// Runs `body` on a thread whose effective and permitted capabilities are `keep` alone (bits).
pub fn with_capabilities<T: Send>(keep: u64, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let header = [0x2008_0522u32, 0];
            let half = |shift: u32| (keep >> shift) as u32;
            let data = [half(0), half(0), 0, half(32), half(32), 0];
            // SAFETY: capset(2) reads a header and, for its version 3, two times three words.
            let answer = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
            assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
            body()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The hardware address of an interface.
pub fn mac(interface: &str) -> [u8; 6] {
    let text = ip(&format!("-br link show {interface}"));
    let word = text
        .split_whitespace()
        .find(|word| word.len() == 17 && word.matches(':').count() == 5)
        .unwrap();
    let mut mac = [0; 6];
    for (byte, hex) in mac.iter_mut().zip(word.split(':')) {
        *byte = u8::from_str_radix(hex, 16).unwrap();
    }
    mac
}
