//! System calls that no safe crate wraps, each as one small safe function.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// `uname -r`; `None` where the kernel answers nothing readable.
pub(crate) fn kernel_release() -> Option<String> {
    // SAFETY:
    // - `utsname` is arrays of characters only, so all zero is a value of it.
    let mut names: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY:
    // - `names` is a valid, writable `utsname` for the length of the call.
    if unsafe { libc::uname(&mut names) } != 0 {
        return None;
    }
    // SAFETY:
    // - `release` is NUL-terminated: the kernel ends it so, and it was all zero before.
    // - `names` outlives the borrow.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    Some(release.to_str().ok()?.to_owned())
}

/// `read(2)`, past the wrapper of libc: that makes each call a cancellation point, which showed up in profiles of
/// small packets and serves `pthread_cancel` only.
pub(crate) fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `into` is `len` writable bytes, and the kernel writes no more.
    let result = unsafe {
        libc::syscall(
            libc::SYS_read,
            fd.as_raw_fd(),
            into.as_mut_ptr(),
            into.len(),
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `writev(2)`, past the wrapper of libc as [`read`] is.
pub(crate) fn writev(fd: BorrowedFd<'_>, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `IoSlice` has the layout of `iovec` on Unix, and each one names bytes that outlive the call.
    // - the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_writev,
            fd.as_raw_fd(),
            parts.as_ptr(),
            parts.len(),
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `TUNSETIFF`: makes `fd`, an open `/dev/net/tun`, a queue of interface `name`. Returns the name.
pub(crate) fn tun_set_iff(fd: BorrowedFd<'_>, name: &str, flags: i32) -> io::Result<()> {
    // SAFETY:
    // - `ifreq` is integers and a union of plain data, so all zero is a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // `IFF_TUN_EXCL` is the sign bit of the kernel's short.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `TUNSETIFF` reads and writes one `ifreq`, and `request` is one.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    check(result)
}

/// `TUNSETOFFLOAD`: which unfinished packets the kernel may hand over, as `TUN_F_*` bits.
pub(crate) fn tun_set_offload(fd: BorrowedFd<'_>, mask: libc::c_uint) -> io::Result<()> {
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `TUNSETOFFLOAD` takes its argument by value and touches no memory of ours.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(mask),
        )
    };
    check(result)
}

/// `TUNSETQUEUE`: attaches or detaches one queue of its interface.
pub(crate) fn tun_set_queue(fd: BorrowedFd<'_>, flag: libc::c_int) -> io::Result<()> {
    // SAFETY:
    // - `ifreq` is integers and a union of plain data, so all zero is a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_ifru.ifru_flags = flag as libc::c_short;
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `TUNSETQUEUE` reads one `ifreq`, and `request` is one.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &mut request) };
    check(result)
}

/// `setsockopt(2)` of an option that is an `int`.
pub(crate) fn set_int(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set_option(fd, level, name, &value)
}

/// `getsockopt(2)` of an option that is an `int`.
pub(crate) fn read_int(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `value` is `len` writable bytes, and `len` is writable.
    // - every bit pattern the kernel may leave in `value` is a `c_int`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &mut len,
        )
    };
    check(result)?;
    Ok(value)
}

/// `SO_ATTACH_REUSEPORT_CBPF`: the classic BPF program that picks the socket of a group.
pub(crate) fn attach_reuseport_program(
    fd: BorrowedFd<'_>,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let Ok(len) = libc::c_ushort::try_from(program.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let fprog = libc::sock_fprog {
        len,
        // The kernel copies the program and never writes to it.
        filter: program.as_ptr().cast_mut(),
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &fprog)
}

/// Borrows a descriptor from an owner that offers it as a number only.
pub(crate) fn borrow_fd<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    let fd: RawFd = owner.as_raw_fd();
    // SAFETY:
    // - both callers' owners (`tun_tap::Iface`, which wraps a `File`) keep the descriptor open as long as
    //   they live, and the result borrows the owner.
    // - it is not -1: the owner opened it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// `setsockopt(2)`; the kernel reads `value` and, for a `sock_fprog`, the program it points to, which the
/// one caller that passes one keeps alive.
fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `value` is readable for its size during the call, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    check(result)
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
