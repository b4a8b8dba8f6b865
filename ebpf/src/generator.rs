//! A flood from inside the kernel, for benchmarks and labs: frames that nobody had to copy or to send by system call
//! (`BPF_PROG_TEST_RUN` with live frames, Linux 5.18). One core makes some millions of them a second.

use aya::maps::xdp::DevMap;
use aya::maps::{MapData, MapError};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use crate::interface::{Interface, InterfaceError};
use crate::load::LoadError;
use crate::objects;

/// Sends one frame over and over out of an interface.
pub struct Generator {
    ebpf: Ebpf,
    /// Names the interface; the program's redirection needs it alive.
    _out: DevMap<MapData>,
    frame: Vec<u8>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator")
            .field("frame", &self.frame.len())
            .finish_non_exhaustive()
    }
}

/// Why there is no flood.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// The interface is missing.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The program is not in the kernel.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused to run it.
    #[error("sending frames from inside the kernel failed: {0}; it needs Linux 5.18")]
    Run(String),
}

impl Generator {
    /// Frames that one call sends at most.
    pub const BATCH_MAX: u32 = 1 << 16;

    /// A sender out of `interface`, of the calling thread's network namespace. `frame` is Ethernet, IPv4 without
    /// options and UDP without a checksum; each copy has another address of its source's /16, and another port.
    ///
    /// On a veth the other end must take frames that were never socket buffers: it has XDP on it, or
    /// [`take_frames`](Self::take_frames) was called on it.
    ///
    /// # Errors
    /// See [`GeneratorError`].
    pub fn open(interface: &str, frame: &[u8]) -> Result<Self, GeneratorError> {
        let index = Interface::find(interface)?.index;
        let mut ebpf = EbpfLoader::new()
            .load(objects::GENERATOR)
            .map_err(LoadError::from_ebpf)?;
        let missing =
            || GeneratorError::Run("the built program is not as this version has it".to_owned());
        let map = ebpf.take_map("GENERATOR_OUT").ok_or_else(missing)?;
        let of_map = |error: MapError| GeneratorError::Load(LoadError::from_map(error));
        let mut out = DevMap::try_from(map).map_err(of_map)?;
        out.set(0, index, None, 0)
            .map_err(|error| GeneratorError::Run(error.to_string()))?;
        let program: &mut Xdp = ebpf
            .program_mut("generate")
            .and_then(|program| program.try_into().ok())
            .ok_or_else(missing)?;
        program
            .load()
            .map_err(|error| LoadError::from_program("loading generate", error))?;
        Ok(Self {
            ebpf,
            _out: out,
            frame: frame.to_vec(),
        })
    }

    /// Sends `count` frames, [`BATCH_MAX`](Self::BATCH_MAX) at most, and returns when they are sent or dropped.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn send(&mut self, count: u32) -> Result<(), GeneratorError> {
        let failed = |error: ProgramError| GeneratorError::Run(crate::load::chain(&error));
        let program: &mut Xdp = self
            .ebpf
            .program_mut("generate")
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| GeneratorError::Run("the program is gone".to_owned()))?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: count.clamp(1, Self::BATCH_MAX),
            attrs: TestRunAttrs::new().xdp_live_frames(LIVE_FRAMES),
            ..TestRunOptions::default()
        };
        program.test_run(options).map(drop).map_err(failed)
    }

    /// Has an interface of the calling thread's network namespace take frames that were never socket buffers (a veth
    /// does with GRO on).
    ///
    /// # Errors
    /// The interface is missing, or the kernel refused.
    pub fn take_frames(interface: &str) -> Result<(), GeneratorError> {
        Ok(Interface::set_gro(interface, true)?)
    }
}

/// Frames that the kernel has in hand at a time.
const LIVE_FRAMES: u32 = 64;
