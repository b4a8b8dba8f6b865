//! The program that hands frames to AF_XDP sockets, one of it per interface: `bpf/xsk.bpf.c`.
//!
//! Which frames, is in the program: transport data of our tunnel that needs none of the kernel's help. To which socket,
//! the frame's receive queue decides, for a socket takes what came in on its own queue only. The sockets are somebody
//! else's; they come as descriptors.

#![expect(unsafe_code, reason = "plain data of maps as bytes")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};

use crate::attach::{self, AttachError, Attachment};
use crate::hook::Hook;
use crate::interface::{Interface, LinkLayer};
use crate::load::{LoadError, chain};
use crate::objects;

/// `struct xsk_end`, the key of `XSK_ENDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct XskEnd {
    addr: [u8; 16],
    port: [u8; 2],
    version: u16,
}

impl XskEnd {
    /// An address and port of ours.
    pub fn new(end: SocketAddr) -> Self {
        let (mut addr, version) = ([0; 16], if end.is_ipv4() { 4 } else { 6 });
        match end.ip() {
            IpAddr::V4(v4) => addr[12..].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => addr = v6.octets(),
        }
        Self {
            addr,
            port: end.port().to_be_bytes(),
            version,
        }
    }
}

// SAFETY:
// - bytes and an aligned integer, without padding, of which any pattern is a value.
unsafe impl Pod for XskEnd {}

/// What the program did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XskCounts {
    /// Frames left to the kernel, for it knows better what to do with them.
    pub passed: u64,
    /// Frames of ours left to the kernel, for their queue has no socket.
    pub no_socket: u64,
    /// Frames given to a socket. One that belongs to another queue loses them.
    pub redirected: u64,
}

/// Why the program could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {cause}")]
pub struct XskError {
    operation: &'static str,
    cause: String,
}

/// The loaded program with its maps.
pub struct XskRedirect {
    ebpf: Ebpf,
    sockets: XskMap<MapData>,
    ends_map: HashMap<MapData, XskEnd, u32>,
    ends: BTreeSet<XskEnd>,
    counters: PerCpuArray<MapData, u64>,
}

impl XskRedirect {
    /// Loads it; it redirects nothing yet.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        let mut ebpf = EbpfLoader::new()
            .load(objects::XSK)
            .map_err(LoadError::from_ebpf)?;
        let mut redirect = Self {
            sockets: map(&mut ebpf, "XSK_SOCKETS")?,
            ends_map: map(&mut ebpf, "XSK_ENDS")?,
            counters: map(&mut ebpf, "XSK_COUNTERS")?,
            ends: BTreeSet::new(),
            ebpf,
        };
        redirect
            .program()?
            .load()
            .map_err(|error| LoadError::from_program("loading the redirecting program", error))?;
        Ok(redirect)
    }

    /// Most addresses with ports.
    pub const ENDS_MAX: usize = 4096;

    /// Makes `wanted` the addresses and ports that are ours. New ones come before old ones go.
    ///
    /// # Errors
    /// The kernel's refusal, or more than [`ENDS_MAX`](Self::ENDS_MAX); what was changed before stays changed.
    pub fn set_ends(
        &mut self,
        wanted: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<(), XskError> {
        let wanted: BTreeSet<XskEnd> = wanted.into_iter().map(XskEnd::new).collect();
        let new: Vec<XskEnd> = wanted.difference(&self.ends).copied().collect();
        let gone: Vec<XskEnd> = self.ends.difference(&wanted).copied().collect();
        for end in new {
            let added = self.ends_map.insert(end, 1, 0);
            added.map_err(|error| refused("adding an address", &error))?;
            self.ends.insert(end);
        }
        for end in gone {
            let removed = self.ends_map.remove(&end);
            removed.map_err(|error| refused("removing an address", &error))?;
            self.ends.remove(&end);
        }
        Ok(())
    }

    /// Has what comes in on `queue` go to `socket`, which must be an AF_XDP socket bound to that queue. The entry is
    /// gone when the socket is closed.
    ///
    /// # Errors
    /// The kernel's refusal, or a queue beyond the map.
    pub fn insert(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XskError> {
        let set = self.sockets.set(queue, socket.as_raw_fd(), 0);
        set.map_err(|error| refused("adding a socket", &error))
    }

    /// Puts the program to work on an interface, until the attachment is dropped or the process dies.
    ///
    /// # Errors
    /// See [`AttachError`]; the hook must be one of XDP.
    pub fn attach(&mut self, interface: &str, hook: Hook) -> Result<Attachment, AttachError> {
        let interface = Interface::find(interface)?;
        match (hook, interface.layer) {
            (Hook::XdpNative | Hook::XdpGeneric, LinkLayer::Ethernet) => {
                attach::xdp(self.program()?, &interface, hook)
            }
            (_, LinkLayer::Ip) => Err(AttachError::NeedsEthernet {
                interface: interface.name,
                hook,
            }),
            (Hook::Tcx | Hook::Clsact, LinkLayer::Ethernet) => Err(AttachError::NoSuchHook {
                interface: interface.name,
                hook,
            }),
        }
    }

    /// What the program did since it was loaded.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn counts(&self) -> Result<XskCounts, XskError> {
        let sum = |way| {
            let per_cpu = self.counters.get(&way, 0);
            let per_cpu = per_cpu.map_err(|error| refused("reading the counters", &error))?;
            Ok(per_cpu.iter().sum())
        };
        Ok(XskCounts {
            passed: sum(0)?,
            no_socket: sum(1)?,
            redirected: sum(2)?,
        })
    }

    /// Whether the program finds this frame to be ours, of which nothing is sent; for tests, while it is attached
    /// nowhere.
    ///
    /// # Errors
    /// The kernel's refusal: a frame too short, or beyond a page.
    pub fn is_ours(&mut self, frame: &[u8]) -> Result<bool, XskError> {
        let operation = "running the program over a frame";
        let failed = |cause: String| XskError { operation, cause };
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        };
        let before = self.counts()?;
        let program = self.program().map_err(|error| failed(error.to_string()))?;
        let run = program.test_run(options);
        run.map_err(|error: ProgramError| failed(chain(&error)))?;
        Ok(self.counts()?.passed == before.passed)
    }

    fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        let program = self.ebpf.program_mut(PROGRAM);
        program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| not_in_object(PROGRAM))
    }
}

impl std::fmt::Debug for XskRedirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XskRedirect")
            .field("ends", &self.ends.len())
            .finish_non_exhaustive()
    }
}

fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, LoadError> {
    let map = ebpf.take_map(name).ok_or_else(|| not_in_object(name))?;
    T::try_from(map).map_err(LoadError::from_map)
}

fn not_in_object(name: &str) -> LoadError {
    LoadError::Kernel {
        operation: format!("looking for {name} in the built programs"),
        cause: "it is not there as this version has it".to_owned(),
    }
}

fn refused(operation: &'static str, error: &MapError) -> XskError {
    XskError {
        operation,
        cause: chain(error),
    }
}

const PROGRAM: &str = "xsk_redirect";
