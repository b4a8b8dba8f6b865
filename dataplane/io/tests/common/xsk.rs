//! What a test of AF_XDP needs of the kernel: the smallest redirecting program, as instructions, and a veth pair with
//! another namespace at its end. The gateway's own program is in the crate `ebpf`, which `io` may not know.
#![allow(dead_code, unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use patronus_io::{Mac, Neighbourhood, NextHop};

use super::{add_v6, ip};

/// The near end of the pair: interface, addresses.
pub const NEAR: &str = "xsk0";
pub const NEAR_MAC: Mac = Mac([2, 0, 0, 0, 0x77, 1]);
pub const FAR_MAC: Mac = Mac([2, 0, 0, 0, 0x77, 2]);
pub const NEAR_V4: &str = "10.77.0.1";
pub const FAR_V4: &str = "10.77.0.2";
pub const NEAR_V6: &str = "2001:db8:77::1";
pub const FAR_V6: &str = "2001:db8:77::2";
/// An address of the far side that is not on the link.
pub const BEHIND_V4: &str = "203.0.113.7";

/// Runs `far` in a namespace of its own, at the other end of a veth pair with `queues` queues whose near end is in the
/// calling thread's. Both ends have their addresses when it begins.
pub fn with_far<T: Send + 'static>(
    queues: u32,
    far: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let (inside, outside) = (mpsc::channel(), mpsc::channel());
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        inside.0.send(nix::unistd::gettid()).expect("sent");
        outside.1.recv().expect("received");
        ip("link set lo up");
        ip("link set far0 up");
        ip(&format!("addr add {FAR_V4}/24 dev far0"));
        ip(&format!("addr add {BEHIND_V4}/32 dev lo"));
        add_v6(FAR_V6, 64, "far0");
        // Frames that go past the kernel ask nobody where the near end is.
        ip(&format!(
            "neigh replace {NEAR_V4} lladdr 02:00:00:00:77:01 dev far0"
        ));
        ip(&format!(
            "neigh replace {NEAR_V6} lladdr 02:00:00:00:77:01 dev far0"
        ));
        far()
    });
    let tid = inside.1.recv().expect("received");
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!(
        "link add {NEAR} address 02:00:00:00:77:01 {queues} type veth peer name far0 address 02:00:00:00:77:02 {queues} netns {tid}"
    ));
    ip(&format!("link set {NEAR} up"));
    ip(&format!("addr add {NEAR_V4}/24 dev {NEAR}"));
    ip(&format!("route add {BEHIND_V4}/32 via {FAR_V4} dev {NEAR}"));
    outside.0.send(()).expect("sent");
    add_v6(NEAR_V6, 64, NEAR);
    thread
}

/// The index of an interface of the calling thread's namespace.
pub fn index_of(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect("the interface exists")
}

/// What control would find out about the far end.
pub fn neighbourhood() -> Neighbourhood {
    let hop = |source: &str| NextHop {
        mac: FAR_MAC,
        source: source.parse().expect("an address"),
        mtu: 1500,
        by_routes: true,
    };
    let parse = |text: &str| text.parse().expect("an address");
    Neighbourhood {
        mac: NEAR_MAC,
        addresses: vec![parse(NEAR_V4), parse(NEAR_V6)],
        next_hops: [(FAR_V4, NEAR_V4), (FAR_V6, NEAR_V6)]
            .map(|(to, from)| (parse(to), hop(from)))
            .into(),
    }
}

/// An attached program that redirects UDP of one port to the sockets in its map, and passes the rest.
pub struct Redirect {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

/// How to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver.
    Native = 1 << 2,
    /// In the stack, for drivers that have none.
    Generic = 1 << 1,
}

impl Redirect {
    /// Attaches it.
    pub fn attach(interface: &str, port: u16, hook: Hook) -> io::Result<Self> {
        // map_type, key_size; value_size, max_entries
        let map = bpf(MAP_CREATE, &[pair(XSKMAP, 4), pair(4, 64)])?;
        let program = program(map.as_raw_fd(), port);
        let license = c"Apache-2.0";
        let load = [
            pair(XDP, program.len() as u32),
            program.as_ptr() as u64,
            license.as_ptr() as u64,
        ];
        let loaded = bpf(PROG_LOAD, &load)?;
        let link = [
            pair(loaded.as_raw_fd() as u32, index_of(interface)),
            pair(ATTACH_XDP, hook as u32),
        ];
        let link = bpf(LINK_CREATE, &link)?;
        Ok(Self {
            map,
            _program: loaded,
            _link: link,
        })
    }

    /// Has what comes in on `queue` go to `socket`.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) {
        let value = socket.as_raw_fd() as u32;
        let update = [
            u64::from(self.map.as_raw_fd() as u32),
            std::ptr::from_ref(&queue) as u64,
            std::ptr::from_ref(&value) as u64,
            0,
        ];
        let result = bpf_raw(MAP_UPDATE, &update);
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

fn program(map: i32, port: u16) -> [u64; 28] {
    let port = i32::from(u16::from_ne_bytes(port.to_be_bytes()));
    let i = |code: u8, dst: u8, src: u8, off: i16, imm: i32| {
        u64::from(code)
            | u64::from(dst) << 8
            | u64::from(src) << 12
            | u64::from(off as u16) << 16
            | u64::from(imm as u32) << 32
    };
    [
        i(0xbf, 6, 1, 0, 0),       //  0 r6 = context
        i(0x61, 2, 1, 0, 0),       //  1 r2 = data
        i(0x61, 3, 1, 4, 0),       //  2 r3 = data_end
        i(0xbf, 4, 2, 0, 0),       //  3
        i(0x07, 4, 0, 0, 42),      //  4 Ethernet, IPv4, UDP
        i(0x2d, 4, 3, 20, 0),      //  5 too short: pass
        i(0x69, 5, 2, 12, 0),      //  6 EtherType
        i(0x55, 5, 0, 4, 0x0008),  //  7 not IPv4: 12
        i(0x71, 5, 2, 23, 0),      //  8 protocol
        i(0x55, 5, 0, 16, 17),     //  9 not UDP: pass
        i(0x69, 5, 2, 36, 0),      // 10 port
        i(0x05, 0, 0, 7, 0),       // 11 goto 19
        i(0x55, 5, 0, 13, 0xdd86), // 12 not IPv6: pass
        i(0xbf, 4, 2, 0, 0),       // 13
        i(0x07, 4, 0, 0, 62),      // 14 Ethernet, IPv6, UDP
        i(0x2d, 4, 3, 10, 0),      // 15 too short: pass
        i(0x71, 5, 2, 20, 0),      // 16 next header
        i(0x55, 5, 0, 8, 17),      // 17 not UDP: pass
        i(0x69, 5, 2, 56, 0),      // 18 port
        i(0x55, 5, 0, 6, port),    // 19 another: pass
        i(0x61, 2, 6, 16, 0),      // 20 r2 = receive queue
        i(0x18, 1, 1, 0, map),     // 21 r1 = map
        0,                         // 22
        i(0xb7, 3, 0, 0, PASS),    // 23 where the map has no socket
        i(0x85, 0, 0, 0, 51),      // 24 bpf_redirect_map
        i(0x95, 0, 0, 0, 0),       // 25
        i(0xb7, 0, 0, 0, PASS),    // 26
        i(0x95, 0, 0, 0, 0),       // 27
    ]
}

/// Two neighbouring 32-bit fields.
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

fn bpf(command: i32, attributes: &[u64]) -> io::Result<OwnedFd> {
    let fd = bpf_raw(command, attributes);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY:
    // - the commands that come here answer a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_raw(command: i32, attributes: &[u64]) -> i32 {
    let mut all = [0u64; 18];
    all[..attributes.len()].copy_from_slice(attributes);
    // SAFETY:
    // - `all` is readable for the size given, and what it points to outlives the call.
    // - zero in the fields that are not set means "not wanted".
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, all.as_ptr(), size_of_val(&all)) };
    result as i32
}

const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
/// `BPF_MAP_TYPE_XSKMAP`
const XSKMAP: u32 = 17;
/// `BPF_PROG_TYPE_XDP`
const XDP: u32 = 6;
/// `BPF_XDP`
const ATTACH_XDP: u32 = 37;
/// `XDP_PASS`
const PASS: i32 = 2;
