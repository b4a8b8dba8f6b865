//! Steering of datagrams to the worker that owns their session, by `SK_REUSEPORT` (Linux 4.19): what the classic
//! program of `patronus-io` does without privilege, with one difference. Here a worker's socket has its number by name,
//! so one that is closed and opened again takes its place, whatever the kernel's order of sockets became.
//!
//! It costs the same or a little more (`tests/steer.rs` measures: 2.3 to 2.6 µs per datagram over the loopback with
//! either, and without), so the classic program, which needs no privilege, stays the default.

use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::MapData;
use aya::maps::ReusePortSockArray;
use aya::programs::SkReuseport;
use aya::{Ebpf, EbpfLoader};

use crate::load::{LoadError, chain};
use crate::objects;

/// The program, for one group of sockets.
pub struct Steering {
    ebpf: Ebpf,
    sockets: ReusePortSockArray<MapData>,
    workers: u32,
}

impl Steering {
    /// Most workers that one byte of the receiver index can tell apart.
    pub const WORKERS_MAX: u32 = 256;

    /// Has the program verified for a number of workers.
    ///
    /// # Errors
    /// No worker or more than [`Self::WORKERS_MAX`], or see [`LoadError`].
    pub fn load(workers: u32) -> Result<Self, LoadError> {
        if !(1..=Self::WORKERS_MAX).contains(&workers) {
            return Err(LoadError::Config(format!(
                "{workers} workers cannot be steered to: there may be 1 to {}",
                Self::WORKERS_MAX
            )));
        }
        let mut ebpf = EbpfLoader::new()
            .override_global("STEER_WORKERS", &workers, true)
            .load(objects::STEER)
            .map_err(LoadError::from_ebpf)?;
        let map = ebpf.take_map("STEER_SOCKETS").ok_or_else(missing)?;
        let sockets = ReusePortSockArray::try_from(map).map_err(LoadError::from_map)?;
        let program = program(&mut ebpf)?;
        program
            .load()
            .map_err(|error| LoadError::from_program("loading wan_steer", error))?;
        Ok(Self {
            ebpf,
            sockets,
            workers,
        })
    }

    /// Gives a worker its socket, or another one than before. It must be bound with `SO_REUSEPORT` set before.
    ///
    /// # Errors
    /// A worker that does not exist, or the kernel's refusal.
    pub fn set_socket(&mut self, worker: u32, socket: BorrowedFd<'_>) -> Result<(), LoadError> {
        if worker >= self.workers {
            return Err(LoadError::Config(format!(
                "there is no worker {worker}: the program was loaded for {}",
                self.workers
            )));
        }
        self.sockets
            .set(worker, &socket.as_raw_fd(), 0)
            .map_err(LoadError::from_map)
    }

    /// Puts the program to work on the group of `socket`, in the place of any other. It stays until the last socket of
    /// the group is closed.
    ///
    /// # Errors
    /// The kernel's refusal, such as a socket of no group.
    pub fn attach(&mut self, socket: BorrowedFd<'_>) -> Result<(), LoadError> {
        program(&mut self.ebpf)?
            .attach(socket)
            .map_err(|error| LoadError::Kernel {
                operation: "attaching wan_steer to a group of sockets".to_owned(),
                cause: chain(&error),
            })
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SkReuseport, LoadError> {
    let program = ebpf.program_mut("wan_steer");
    program
        .and_then(|program| program.try_into().ok())
        .ok_or_else(missing)
}

fn missing() -> LoadError {
    LoadError::Kernel {
        operation: "reading the built steering program".to_owned(),
        cause: "it is not as this version has it".to_owned(),
    }
}
