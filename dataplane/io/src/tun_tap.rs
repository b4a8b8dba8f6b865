//! The portable backend: one queue of plain packets through the `tun-tap` crate.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use patronus_packet::batch::TunWrite;
use patronus_packet::frame::FRAME_DATA_MAX;
use patronus_packet::{TunFrame, VnetHeader};
use tun_tap::{Iface, Mode};

use crate::offload::TunOffload;
use crate::sys;
use crate::tun::{OpenError, OpenStep, TunQueue};
use crate::tun_native::is_plain;

/// The one queue.
pub(crate) struct PortableQueue {
    iface: Iface,
    /// Where the fragments of a write become one piece.
    scratch: Box<[u8]>,
}

impl PortableQueue {
    pub(crate) fn create(name: &str) -> Result<Self, OpenError> {
        let iface = Iface::without_packet_info(name, Mode::Tun).map_err(|source| OpenError {
            // The crate does not say which step failed: a file that is not there is the driver.
            step: match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::EACCES) => OpenStep::Driver,
                _ => OpenStep::Interface,
            },
            source,
        })?;
        fcntl(sys::borrow_fd(&iface), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| {
            OpenError {
                step: OpenStep::NonBlocking,
                source: errno.into(),
            }
        })?;
        Ok(Self {
            iface,
            scratch: vec![0; FRAME_DATA_MAX].into_boxed_slice(),
        })
    }
}

impl TunQueue for PortableQueue {
    fn recv(&mut self, frame: &mut TunFrame) -> io::Result<bool> {
        let len = loop {
            match self.iface.recv(frame.buf.storage_mut()) {
                Ok(len) => break len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        };
        frame.buf.set_len(0);
        frame.vnet = VnetHeader::default();
        if len > FRAME_DATA_MAX {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        frame.buf.set_len(len);
        Ok(true)
    }

    fn send(&mut self, write: &TunWrite<'_>) -> io::Result<()> {
        if !is_plain(&write.vnet) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut len = 0;
        for part in write.fragments() {
            let Some(room) = self.scratch.get_mut(len..len + part.len()) else {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            };
            room.copy_from_slice(part);
            len += part.len();
        }
        loop {
            match self.iface.send(&self.scratch[..len]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn offload(&self) -> TunOffload {
        TunOffload::NONE
    }

    fn set_offload(&mut self, _want: TunOffload) -> io::Result<TunOffload> {
        Ok(TunOffload::NONE)
    }

    fn set_attached(&mut self, _attached: bool) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for PortableQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::borrow_fd(&self.iface)
    }
}
