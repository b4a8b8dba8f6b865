//! The LAN program in the kernel: loading it, giving it policies, attaching it, reading what it counted.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};

use super::arrays::{Mapped, wait_for_programs};
use super::image::{Counters, Image, LanOverflow, pack};
use super::layout::{
    Addr4, Addr6, Block4, Block6, Cell, Class, Counter, Head, LanReason, LanTraffic, Peer, Port,
    Row, Set, Slot,
};
use super::limits::LanLimits;
use super::tables::LanTables;
use super::trial::{self, LanTrials};
use crate::attach::{self, AttachError, Attachment};
use crate::fill::MapFill;
use crate::hook::Hook;
use crate::interface::{Interface, LinkLayer};
use crate::load::LoadError;
use crate::objects;
use crate::support::Support;

/// How the program behaves beside its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanOptions {
    /// One denied packet of a rule and CPU goes to user space in this time, so that it can tell of the rule as ever;
    /// zero: none does.
    pub tell_interval: Duration,
    /// No policy is given more than this.
    pub limits_max: LanLimits,
}

impl Default for LanOptions {
    fn default() -> Self {
        Self {
            // As often as the dataplane tells of one rule.
            tell_interval: Duration::from_secs(1),
            limits_max: LanLimits::MAX,
        }
    }
}

/// Why the LAN program does not do what it was asked to. The gateway works without it.
#[derive(Debug, thiserror::Error)]
pub enum LanError {
    /// It did not get into the kernel, or its maps could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It is not at work on an interface.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Its maps cannot be written.
    #[error("mapping the memory of `{map}` failed: {source}")]
    Memory {
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The hook sees no packets on their way out.
    #[error("the LAN program cannot be attached at {0}: set the hook to tcx or clsact")]
    Hook(Hook),
    /// The interface is no TUN.
    #[error(
        "`{interface}` has Ethernet headers: the LAN program belongs on the tunnel's interface, which has none"
    )]
    Ethernet {
        /// The interface.
        interface: String,
    },
}

/// What the program counted since it was loaded, however often its policy changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanStats {
    /// By reason, all of them; together they are every packet that it saw.
    pub reasons: BTreeMap<LanReason, LanTraffic>,
    /// What was dropped, by rule number; 0 is what has no rule or no counter. Together they are what
    /// [`LanReason::Denied`] has.
    pub rules: BTreeMap<u32, LanTraffic>,
}

/// The LAN program, loaded. Dropped, it is gone from the kernel.
#[derive(Debug)]
pub struct LanFilter {
    options: LanOptions,
    mode: Mode,
    program: Program,
    carried: LanStats,
    /// What the policy that was published last needs.
    needed: Option<LanLimits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Work,
    Trial,
}

/// One copy of the program with its maps.
#[derive(Debug)]
struct Program {
    // Before the rest, so that it is off the interface first.
    attachment: Option<Attachment>,
    ebpf: Ebpf,
    arrays: Arrays,
    limits: LanLimits,
    counters: Counters,
    active: usize,
    /// Of the last write into a slot: never the same twice, so that a slot that changed can be told.
    sequence: u64,
    generation: Option<u64>,
}

#[derive(Debug)]
struct Arrays {
    head: Mapped<Head>,
    addr4: Mapped<Addr4>,
    addr6: Mapped<Addr6>,
    classes: Mapped<Class>,
    rows: Mapped<Row>,
    peers: Mapped<Peer>,
    blocks4: Mapped<Block4>,
    blocks6: Mapped<Block6>,
    sets: Mapped<Set>,
    ports: Mapped<Port>,
}

impl LanFilter {
    /// Loads the program without a policy: it passes everything.
    ///
    /// # Errors
    /// See [`LanError`].
    pub fn load(options: LanOptions) -> Result<Self, LanError> {
        Self::load_as(Mode::Work, options)
    }

    /// The same program for [`trial`](Self::trial) alone.
    ///
    /// # Errors
    /// See [`LanError`].
    pub fn load_for_trials(options: LanOptions) -> Result<Self, LanError> {
        Self::load_as(Mode::Trial, options)
    }

    fn load_as(mode: Mode, options: LanOptions) -> Result<Self, LanError> {
        let limits = LanLimits::MIN.map2(&options.limits_max, u32::min);
        Ok(Self {
            options,
            mode,
            program: Program::load(mode, limits)?,
            carried: LanStats::default(),
            needed: None,
        })
    }

    /// Puts a policy in force, in place of the one before: each packet is judged by one of them. A policy that is larger
    /// than the maps gets a new copy of the program with larger ones; for a moment both are at work, and a packet passes
    /// that passes both.
    ///
    /// Says what found no place, which user space goes on to judge.
    ///
    /// # Errors
    /// See [`LanError`]. The policy before is in force then, so call [`suspend`](Self::suspend).
    pub fn publish(&mut self, tables: &LanTables) -> Result<LanOverflow, LanError> {
        let tell_ns = u64::try_from(self.options.tell_interval.as_nanos()).unwrap_or(u64::MAX);
        let max = self.options.limits_max;
        self.needed = Some(LanLimits::needed(tables));
        let need = LanLimits::needed(tables).map2(&max, u32::min);
        let is_crowded =
            self.program
                .counters
                .lacks(tables, self.program.limits.counters, max.counters);
        if self.program.limits.holds(&need) && !is_crowded {
            return Ok(self.program.publish(tables, tell_ns));
        }
        let limits = LanLimits::for_tables(tables)
            .map2(&self.program.limits, u32::max)
            .map2(&max, u32::min);
        let mut program = Program::load(self.mode, limits)?;
        let overflow = program.publish(tables, tell_ns);
        if let Some(attachment) = &self.program.attachment {
            let (interface, hook) = (attachment.interface().to_owned(), attachment.hook());
            if !hook.dies_with_the_process() {
                // Filters have no names of their own: the old one goes first, and user space judges alone meanwhile.
                self.program.attachment = None;
            }
            program.attach(&interface, hook)?;
        }
        self.program.attachment = None;
        wait_for_programs();
        self.program.add_stats(&mut self.carried)?;
        self.program = program;
        Ok(overflow)
    }

    /// Passes everything from here on, until the next policy.
    pub fn suspend(&mut self) {
        let program = &mut self.program;
        let idle = 1 - program.active;
        wait_for_programs();
        program.arrays.head.close(idle);
        program.arrays.head.open(idle, Slot::default());
        program.active = idle;
        program.generation = None;
    }

    /// The edition of the policy in force, if any is.
    pub fn generation(&self) -> Option<u64> {
        self.program.generation
    }

    /// How full each table is of the most that it may grow to; nothing before the first policy. A hash table counts the
    /// cells that it needs to stay quick.
    pub fn fills(&self) -> Vec<MapFill> {
        let most = &self.options.limits_max;
        let needed = self.needed.iter();
        needed.flat_map(|it| it.fills(most)).collect()
    }

    /// What the maps hold.
    pub fn limits(&self) -> LanLimits {
        self.program.limits
    }

    /// The hook that suits the tunnel's interface on this kernel.
    pub fn choose_hook() -> Hook {
        match Support::probe().has(Hook::Tcx) {
            Ok(()) => Hook::Tcx,
            Err(_) => Hook::Clsact,
        }
    }

    /// Sets the program to work on what the kernel sends into a TUN, in place of where it was.
    ///
    /// # Errors
    /// See [`LanError`]; it is nowhere at work then.
    pub fn attach(&mut self, interface: &str, hook: Hook) -> Result<(), LanError> {
        self.detach();
        self.program.attach(interface, hook)
    }

    /// Where it is at work.
    pub fn attachment(&self) -> Option<&Attachment> {
        self.program.attachment.as_ref()
    }

    /// Takes it off its interface.
    pub fn detach(&mut self) {
        self.program.attachment = None;
    }

    /// What was counted since it was loaded.
    ///
    /// # Errors
    /// Where the kernel does not let us read the maps.
    pub fn stats(&self) -> Result<LanStats, LanError> {
        let mut stats = self.carried.clone();
        self.program.add_stats(&mut stats)?;
        Ok(stats)
    }

    /// What would become of an IP packet, by the program itself in the kernel's test run (`BPF_PROG_TEST_RUN`), which
    /// counts like any other. Only for one that was [loaded for trials](Self::load_for_trials); packets are between 1
    /// and about 3,500 bytes long.
    ///
    /// # Errors
    /// Where the kernel refuses the run.
    pub fn trial(&self, packet: &[u8]) -> Result<LanReason, LanError> {
        self.trial_times(packet, 1).map(|it| it.0)
    }

    /// The same `times` over, with the mean time of one run.
    ///
    /// # Errors
    /// Where the kernel refuses the run.
    pub fn trial_times(
        &self,
        packet: &[u8],
        times: u32,
    ) -> Result<(LanReason, Duration), LanError> {
        assert_eq!(
            self.mode,
            Mode::Trial,
            "a program at work is not for trials"
        );
        Ok(trial::run(self.program.classifier()?, packet, times)?)
    }

    /// A handle for trials beside this one.
    ///
    /// # Errors
    /// Where the kernel does not give a second descriptor (it asks for CAP_SYS_ADMIN).
    pub fn trials(&self) -> Result<LanTrials, LanError> {
        let failed = |error| LoadError::from_program("finding the LAN program", error);
        let info = self.program.classifier()?.info().map_err(failed)?;
        let program = SchedClassifier::from_program_info(info, PROGRAM.into()).map_err(failed)?;
        Ok(LanTrials { program })
    }
}

impl Program {
    fn load(mode: Mode, limits: LanLimits) -> Result<Self, LanError> {
        let trial = u32::from(mode == Mode::Trial);
        let mut loader = EbpfLoader::new();
        loader.override_global("TRIAL", &trial, true);
        for (name, entries) in sizes(&limits) {
            loader.map_max_entries(name, 2 * entries);
        }
        loader.map_max_entries(COUNTERS, limits.counters);
        let mut ebpf = loader.load(objects::LAN).map_err(LoadError::from_ebpf)?;
        let failed = |error| LoadError::from_program("loading the LAN program", error);
        let program: &mut SchedClassifier = match ebpf.program_mut(PROGRAM) {
            Some(program) => program.try_into().map_err(failed)?,
            None => return Err(missing(PROGRAM).into()),
        };
        program.load().map_err(failed)?;
        let arrays = Arrays::of(&ebpf, &limits)?;
        Ok(Self {
            attachment: None,
            ebpf,
            arrays,
            limits,
            counters: Counters::default(),
            active: 0,
            sequence: 0,
            generation: None,
        })
    }

    fn classifier(&self) -> Result<&SchedClassifier, LoadError> {
        let program = self.ebpf.program(PROGRAM).ok_or_else(|| missing(PROGRAM))?;
        program
            .try_into()
            .map_err(|error| LoadError::from_program("finding the LAN program", error))
    }

    fn publish(&mut self, tables: &LanTables, tell_ns: u64) -> LanOverflow {
        let idle = 1 - self.active;
        let limits = self.limits;
        let (mut image, overflow) = pack(tables, &limits, idle as u32, &mut self.counters);
        self.sequence += 1;
        image.slot.sequence = self.sequence;
        image.slot.tell_ns = tell_ns;
        // Whoever chose that slot before the last change of policy has to be done with it.
        wait_for_programs();
        self.arrays.head.close(idle);
        self.arrays.write(&image, &limits, idle as u32);
        self.arrays.head.open(idle, image.slot);
        self.active = idle;
        self.generation = Some(tables.generation);
        overflow
    }

    fn attach(&mut self, interface: &str, hook: Hook) -> Result<(), LanError> {
        match hook {
            Hook::Tcx | Hook::Clsact => {}
            Hook::XdpNative | Hook::XdpGeneric => return Err(LanError::Hook(hook)),
        }
        let interface = Interface::find(interface).map_err(AttachError::from)?;
        if interface.layer == LinkLayer::Ethernet {
            return Err(LanError::Ethernet {
                interface: interface.name,
            });
        }
        let failed = |error| LoadError::from_program("finding the LAN program", error);
        let program: &mut SchedClassifier = match self.ebpf.program_mut(PROGRAM) {
            Some(program) => program.try_into().map_err(failed)?,
            None => return Err(missing(PROGRAM).into()),
        };
        let attachment =
            attach::traffic_control(program, PROGRAM, &interface, hook, TcAttachType::Egress)?;
        self.attachment = Some(attachment);
        Ok(())
    }

    /// Adds what this copy counted.
    fn add_stats(&self, stats: &mut LanStats) -> Result<(), LanError> {
        let reasons: PerCpuArray<_, LanTraffic> = per_cpu(&self.ebpf, REASONS)?;
        for reason in LanReason::ALL {
            let values = reasons
                .get(&(reason as u32), 0)
                .map_err(LoadError::from_map)?;
            let sum = stats.reasons.entry(reason).or_default();
            for it in values.iter() {
                sum.packets += it.packets;
                sum.bytes += it.bytes;
            }
        }
        let counters: PerCpuArray<_, Counter> = per_cpu(&self.ebpf, COUNTERS)?;
        for (rule, place) in self.counters.iter().chain([(0, 0)]) {
            let values = counters.get(&place, 0).map_err(LoadError::from_map)?;
            let (mut packets, mut bytes) = (0, 0);
            for it in values.iter() {
                packets += it.packets;
                bytes += it.bytes;
            }
            if packets > 0 {
                let sum = stats.rules.entry(rule).or_default();
                sum.packets += packets;
                sum.bytes += bytes;
            }
        }
        Ok(())
    }
}

impl Arrays {
    fn of(ebpf: &Ebpf, limits: &LanLimits) -> Result<Self, LanError> {
        let sizes: HashMap<&str, u32> = sizes(limits).into_iter().collect();
        let of = |name: &str| 2 * sizes.get(name).copied().unwrap_or(0);
        Ok(Self {
            head: mapped(ebpf, "lan_heads", 1)?,
            addr4: mapped(ebpf, "lan_addrs4", of("lan_addrs4"))?,
            addr6: mapped(ebpf, "lan_addrs6", of("lan_addrs6"))?,
            classes: mapped(ebpf, "lan_classes", of("lan_classes"))?,
            rows: mapped(ebpf, "lan_rows", of("lan_rows"))?,
            peers: mapped(ebpf, "lan_peers", of("lan_peers"))?,
            blocks4: mapped(ebpf, "lan_blocks4", of("lan_blocks4"))?,
            blocks6: mapped(ebpf, "lan_blocks6", of("lan_blocks6"))?,
            sets: mapped(ebpf, "lan_sets", of("lan_sets"))?,
            ports: mapped(ebpf, "lan_ports", of("lan_ports"))?,
        })
    }

    fn write(&mut self, image: &Image, limits: &LanLimits, slot: u32) {
        self.addr4.write(slot * limits.addr4, &image.addr4);
        self.addr6.write(slot * limits.addr6, &image.addr6);
        self.classes.write(slot * limits.classes, &image.classes);
        self.rows.write(slot * limits.rows, &image.rows);
        self.peers.write(slot * limits.peers, &image.peers);
        self.blocks4.write(slot * limits.blocks4, &image.blocks4);
        self.blocks6.write(slot * limits.blocks6, &image.blocks6);
        self.sets.write(slot * limits.sets, &image.sets);
        self.ports.write(slot * limits.ports, &image.ports);
    }
}

/// Entries of each array for one policy.
fn sizes(limits: &LanLimits) -> [(&'static str, u32); 9] {
    [
        ("lan_addrs4", limits.addr4),
        ("lan_addrs6", limits.addr6),
        ("lan_classes", limits.classes),
        ("lan_rows", limits.rows),
        ("lan_peers", limits.peers),
        ("lan_blocks4", limits.blocks4),
        ("lan_blocks6", limits.blocks6),
        ("lan_sets", limits.sets),
        ("lan_ports", limits.ports),
    ]
}

fn mapped<T: Cell>(ebpf: &Ebpf, name: &'static str, entries: u32) -> Result<Mapped<T>, LanError> {
    let Some(Map::Array(map)) = ebpf.map(name) else {
        return Err(missing(name).into());
    };
    Mapped::new(map, entries).map_err(|source| LanError::Memory { map: name, source })
}

fn per_cpu<'a, T: aya::Pod>(
    ebpf: &'a Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<&'a MapData, T>, LoadError> {
    let map = ebpf.map(name).ok_or_else(|| missing(name))?;
    PerCpuArray::try_from(map).map_err(LoadError::from_map)
}

fn missing(name: &str) -> LoadError {
    LoadError::Kernel {
        operation: "reading the built programs".to_owned(),
        cause: format!("there is no `{name}` in the LAN program's object"),
    }
}

const PROGRAM: &str = "lan_egress";
const REASONS: &str = "lan_reasons";
const COUNTERS: &str = "lan_counters";
