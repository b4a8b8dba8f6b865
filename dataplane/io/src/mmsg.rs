//! `recvmmsg(2)` and `sendmmsg(2)` over storage that is made once.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use patronus_packet::UdpFrame;
use patronus_packet::frame::FRAME_DATA_MAX;

use crate::cmsg::{Ask, Control, Name};
use crate::uplink::UplinkTable;

/// Most datagrams or trains of one system call.
pub(crate) const SLOTS: usize = 64;

/// One datagram, or one train of equal ones, to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) ask: Ask,
}

/// What came of one receive call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Frames filled, at the front of the slice.
    pub(crate) frames: usize,
    /// Datagrams dropped because they did not fit, or because what the kernel said about them did not.
    pub(crate) truncated: u64,
}

/// The arrays that the kernel reads and fills, one entry per slot.
pub(crate) struct Slots {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
}

// SAFETY:
// - the raw pointers in `headers` and `iovecs` are what makes this type not `Send` by itself.
// - every call writes those it hands to the kernel first, and none is followed by us at any time, so stale
//   ones moved to another thread are plain numbers.
unsafe impl Send for Slots {}

impl Slots {
    pub(crate) fn new() -> Self {
        // SAFETY:
        // - `mmsghdr` is integers and raw pointers only, so all zero is a value of it.
        let header: libc::mmsghdr = unsafe { mem::zeroed() };
        let iovec = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            headers: vec![header; SLOTS].into_boxed_slice(),
            iovecs: vec![iovec; SLOTS].into_boxed_slice(),
            names: vec![Name::default(); SLOTS].into_boxed_slice(),
            controls: vec![Control::default(); SLOTS].into_boxed_slice(),
        }
    }

    /// Fills `frames` from the front with what waits on `fd`, without blocking.
    pub(crate) fn recv(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: &mut [UdpFrame],
        uplinks: &UplinkTable,
    ) -> io::Result<Received> {
        let count = frames.len().min(SLOTS);
        let frames = &mut frames[..count];
        for (iovec, frame) in self.iovecs.iter_mut().zip(frames.iter_mut()) {
            let storage = frame.buf.storage_mut();
            *iovec = libc::iovec {
                iov_len: storage.len(),
                iov_base: storage.as_mut_ptr().cast(),
            };
        }
        self.link(count, |_| {
            (mem::size_of::<Name>(), mem::size_of::<Control>())
        });
        // SAFETY:
        // - the descriptor is open for the length of the call.
        // - `headers` holds at least `count` entries, all linked above.
        // - each points to one iovec, one name and one control buffer of `self` with their true sizes; `self`
        //   and `frames` are borrowed for the length of the call and no reference into them is used in it.
        // - each iovec spans the storage of its own frame; every byte written there is a `u8`.
        // - no timeout is given.
        let result = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let Ok(filled) = usize::try_from(result) else {
            return Err(io::Error::last_os_error());
        };
        Ok(self.describe(&mut frames[..filled.min(count)], uplinks))
    }

    /// Sends the first [`SLOTS`] of `datagrams` without blocking and says how many were taken. An error is
    /// that of the first one; errors of later ones end the call early and come back when it is tried again.
    pub(crate) fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        datagrams: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let mut lens = [(0, 0); SLOTS];
        let mut count = 0;
        for (at, datagram) in datagrams.take(SLOTS).enumerate() {
            self.iovecs[at] = libc::iovec {
                iov_len: datagram.payload.len(),
                // The kernel only reads it.
                iov_base: datagram.payload.as_ptr().cast_mut().cast(),
            };
            let name_len = self.names[at].encode(datagram.ask.to);
            let control_len = self.controls[at].encode(&datagram.ask);
            lens[at] = (name_len, control_len);
            count = at + 1;
        }
        if count == 0 {
            return Ok(0);
        }
        self.link(count, |at| lens[at]);
        // SAFETY:
        // - the descriptor is open for the length of the call.
        // - `headers` holds at least `count` entries, all linked above.
        // - each points to one iovec, one name and one control buffer of `self`, with lengths that their
        //   encoders returned.
        // - each iovec spans a payload borrowed for `'a`, which outlives this call; the kernel reads it only.
        let result = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Points the first `count` headers at their iovec, name and control buffer; `lens` gives the lengths of
    /// the latter two.
    fn link(&mut self, count: usize, lens: impl Fn(usize) -> (usize, usize)) {
        debug_assert!(count <= SLOTS);
        let iovecs = self.iovecs.as_mut_ptr();
        let names = self.names.as_mut_ptr();
        let controls = self.controls.as_mut_ptr();
        for (at, entry) in self.headers[..count].iter_mut().enumerate() {
            let (name_len, control_len) = lens(at);
            let header = &mut entry.msg_hdr;
            header.msg_iov = iovecs.wrapping_add(at);
            header.msg_iovlen = 1;
            header.msg_name = names.wrapping_add(at).cast();
            header.msg_namelen = name_len as libc::socklen_t;
            header.msg_control = match control_len {
                0 => ptr::null_mut(),
                _ => controls.wrapping_add(at).cast(),
            };
            header.msg_controllen = control_len as _;
            header.msg_flags = 0;
            entry.msg_len = 0;
        }
    }

    /// Fills in what the kernel said about each frame, and moves those that cannot be used to the end.
    fn describe(&self, frames: &mut [UdpFrame], uplinks: &UplinkTable) -> Received {
        let mut kept = 0;
        for at in 0..frames.len() {
            let entry = &self.headers[at];
            let header = &entry.msg_hdr;
            let len = entry.msg_len as usize;
            let cut = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
            let remote = self.names[at].decode(header.msg_namelen as usize);
            let Some(remote) = remote.filter(|_| !cut && len <= FRAME_DATA_MAX) else {
                continue;
            };
            #[allow(clippy::unnecessary_cast)] // a u32 with musl
            let control_len = header.msg_controllen as usize;
            let arrival = self.controls[at].decode(control_len);
            let frame = &mut frames[at];
            frame.buf.set_len(len);
            frame.endpoint.remote = remote;
            frame.endpoint.local = arrival.local;
            frame.endpoint.uplink = uplinks.uplink_of(arrival.ifindex);
            frame.tos = arrival.tos;
            // The kernel may give the size with a train of one.
            frame.segment_len = match arrival.segment_len < len {
                true => arrival.segment_len,
                false => 0,
            };
            frames.swap(kept, at);
            kept += 1;
        }
        Received {
            frames: kept,
            truncated: (frames.len() - kept) as u64,
        }
    }
}
