//! A queue of `/dev/net/tun` with several queues and, if wanted, a virtio-net header (`drivers/net/tun.c`).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use patronus_packet::batch::TunWrite;
use patronus_packet::frame::FRAME_DATA_MAX;
use patronus_packet::vnet::VNET_HEADER_LEN;
use patronus_packet::{GsoKind, TunFrame, VnetHeader};

use crate::offload::TunOffload;
use crate::sys;
use crate::tun::{OpenError, OpenStep, TunQueue};

/// One queue.
pub(crate) struct NativeQueue {
    file: File,
    offload: TunOffload,
    attached: bool,
}

impl NativeQueue {
    /// Creates the interface with its first queue; `EBUSY` where there is one of this name.
    pub(crate) fn create(name: &str, vnet: bool) -> Result<Self, OpenError> {
        Self::open(name, vnet, libc::IFF_TUN_EXCL)
    }

    /// Adds a queue to an interface that [`create`](Self::create) made with the same `vnet`.
    pub(crate) fn join(name: &str, vnet: bool) -> Result<Self, OpenError> {
        Self::open(name, vnet, 0)
    }

    fn open(name: &str, vnet: bool, extra_flags: i32) -> Result<Self, OpenError> {
        let at = |step| move |source| OpenError { step, source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(at(OpenStep::Driver))?;
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE | extra_flags;
        if vnet {
            flags |= libc::IFF_VNET_HDR;
        }
        sys::tun_set_iff(file.as_fd(), name, flags).map_err(at(OpenStep::Interface))?;
        Ok(Self {
            file,
            offload: TunOffload {
                vnet,
                ..TunOffload::NONE
            },
            attached: true,
        })
    }
}

impl TunQueue for NativeQueue {
    fn recv(&mut self, frame: &mut TunFrame) -> io::Result<bool> {
        let header_len = if self.offload.vnet {
            VNET_HEADER_LEN
        } else {
            0
        };
        // In one piece: the kernel has no list of pieces to copy in and walk.
        let storage = frame.buf.headed_storage_mut(header_len);
        let len = loop {
            match sys::read(self.file.as_fd(), storage) {
                Ok(len) => break len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        };
        let header = storage.first_chunk().filter(|_| header_len > 0);
        frame.vnet = header.map_or_else(VnetHeader::default, VnetHeader::from_bytes);
        frame.buf.set_len(0);
        // The driver cuts what does not fit without a word; the room behind a frame's data tells.
        let Some(len) = len
            .checked_sub(header_len)
            .filter(|len| *len <= FRAME_DATA_MAX)
        else {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        };
        frame.buf.set_len(len);
        Ok(true)
    }

    fn send(&mut self, write: &TunWrite<'_>) -> io::Result<()> {
        if !self.offload.vnet && !is_plain(&write.vnet) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let header = write.vnet.to_bytes();
        let header = self.offload.vnet.then_some(&header[..]);
        // Preparing a list costs time by its length, and most writes need a short one.
        match gather::<PARTS_FEW>(&self.file, header, write) {
            Some(result) => result,
            None => match gather::<PARTS_SOME>(&self.file, header, write) {
                Some(result) => result,
                None => gather::<PARTS_MAX>(&self.file, header, write)
                    .unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::EMSGSIZE))),
            },
        }
    }

    fn offload(&self) -> TunOffload {
        self.offload
    }

    fn set_offload(&mut self, want: TunOffload) -> io::Result<TunOffload> {
        if !self.offload.vnet {
            return Ok(self.offload);
        }
        // Superpackets come with unfinished checksums, so without TUN_F_CSUM the others mean nothing.
        let mut mask = libc::TUN_F_CSUM;
        if want.tso {
            mask |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        }
        if want.uso {
            mask |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
        }
        if !want.vnet {
            mask = 0;
        }
        sys::tun_set_offload(self.file.as_fd(), mask)?;
        self.offload = TunOffload {
            vnet: true,
            tso: want.vnet && want.tso,
            uso: want.vnet && want.uso,
        };
        Ok(self.offload)
    }

    fn set_attached(&mut self, attached: bool) -> io::Result<()> {
        if attached == self.attached {
            return Ok(());
        }
        let flag = if attached {
            libc::IFF_ATTACH_QUEUE
        } else {
            libc::IFF_DETACH_QUEUE
        };
        sys::tun_set_queue(self.file.as_fd(), flag)?;
        self.attached = attached;
        Ok(())
    }
}

impl AsFd for NativeQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Writes header and fragments with one call; `None` where they are more than `PARTS`.
fn gather<const PARTS: usize>(
    file: &File,
    header: Option<&[u8]>,
    write: &TunWrite<'_>,
) -> Option<io::Result<()>> {
    let mut parts = [IoSlice::new(&[]); PARTS];
    let mut count = 0;
    let mut total = 0;
    for part in header.into_iter().chain(write.fragments()) {
        *parts.get_mut(count)? = IoSlice::new(part);
        count += 1;
        total += part.len();
    }
    loop {
        match sys::writev(file.as_fd(), &parts[..count]) {
            Ok(written) => {
                // The driver takes a packet whole or not at all.
                debug_assert_eq!(written, total);
                return Some(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Whether a packet means the same without its virtio-net header.
pub(crate) fn is_plain(vnet: &VnetHeader) -> bool {
    vnet.gso_kind() == Some(GsoKind::None) && !vnet.needs_csum()
}

/// A header and a packet or a few.
const PARTS_FEW: usize = 6;
/// A superpacket of 64 KiB in segments of 1 KiB or more.
const PARTS_SOME: usize = 66;
/// `UIO_MAXIOV`
const PARTS_MAX: usize = 1024;
