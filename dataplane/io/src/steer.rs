//! Steering of datagrams to the worker that owns their session: a classic BPF program on a group of
//! `SO_REUSEPORT` sockets (`SO_ATTACH_REUSEPORT_CBPF`, Linux 4.5; needs no privilege).
//!
//! The owning worker's number is the second byte of a WireGuard receiver index, counted as it lies on the
//! wire: the index is `peer << 8 | session` and it travels little endian. Handshake initiations
//! carry no receiver and spread by the same byte of their sender index. A GRO train is steered once, by its
//! first datagram: a worker must hand on what is not its own.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys;

/// Makes the sockets of `group`'s address take the datagrams of the worker with their number, modulo
/// `workers`. One call for the whole group, on any of its sockets.
///
/// The kernel numbers the sockets in the order they were bound: bind worker 0's first, and close none
/// without closing all, for the last one takes the place of a closed one. A group must have `workers`
/// sockets; with fewer, what would go to a missing one falls back to the hash of addresses and ports.
///
/// # Errors
/// `EINVAL` where the socket was bound without `SO_REUSEPORT`, or `workers` is none or above
/// [`WORKERS_MAX`].
pub fn attach(group: BorrowedFd<'_>, workers: usize) -> io::Result<()> {
    let workers = u32::try_from(workers)
        .ok()
        .filter(|workers| (1..=WORKERS_MAX).contains(workers))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    sys::attach_reuseport_program(group, &program(workers))
}

/// Most workers that one byte of the receiver index can tell apart.
pub const WORKERS_MAX: u32 = 256;

/// Loads are relative to the UDP payload; one outside of it ends the program with 0, so a datagram that is
/// too short goes to worker 0.
fn program(workers: u32) -> [libc::sock_filter; 8] {
    [
        instruction(LOAD_BYTE, 0, 0, TYPE_AT),
        instruction(JUMP_IF_EQUAL, 0, 3, TYPE_RESPONSE),
        instruction(LOAD_BYTE, 0, 0, WORKER_AT_IN_RESPONSE),
        instruction(MODULO, 0, 0, workers),
        instruction(RETURN_A, 0, 0, 0),
        instruction(LOAD_BYTE, 0, 0, WORKER_AT),
        instruction(MODULO, 0, 0, workers),
        instruction(RETURN_A, 0, 0, 0),
    ]
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;

const TYPE_AT: u32 = 0;
const TYPE_RESPONSE: u32 = 2;
/// Second byte of the receiver index at 4 (types 3 and 4), or of the sender index there (type 1).
const WORKER_AT: u32 = 5;
/// Second byte of the receiver index at 8: a response carries its sender's index first.
const WORKER_AT_IN_RESPONSE: u32 = 9;
