//! The WAN program: loading, attaching, what it is told, what it counted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use crate::attach::{self, AttachError, Attachment};
use crate::classify::Frame;
use crate::fill::MapFill;
use crate::hook::Hook;
use crate::interface::{Interface, LinkLayer};
use crate::load::{LoadError, chain};
use crate::objects;
use crate::prefixes::{Prefix, SourceVerdict, Sources};
use crate::wan_abi::{
    USES_LIMIT, USES_RECEIVERS, USES_SOURCES4, USES_SOURCES6, WAN_PLACES, WanConfigValue,
    WanCounterValue, WanCountersValue, WanSource4, WanSource6,
};

/// What the program is told. The default judges nothing: there is no port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WanConfig {
    /// UDP ports of the gateway; everything else passes unjudged.
    pub ports: Vec<u16>,
    /// Sources that are dropped, by prefix.
    pub sources: Sources,
    /// Receiver indices that are somebody's, without their low byte (the session's); `None` checks nothing.
    pub known_receivers: Option<Vec<u32>>,
    /// Rate of handshake initiations by source; `None` limits nothing.
    pub limit: Option<InitiationLimit>,
}

/// How many handshake initiations may come from one prefix.
///
/// All customers behind one carrier's NAT share a prefix, and spoofed sources have any: WireGuard's own cookies are
/// what protects against those. So this is set well above what one site needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiationLimit {
    /// Initiations per second in the long run, at least 1.
    pub per_second: u32,
    /// How many may come at once, at least 1.
    pub burst: u32,
    /// Bits of an IPv4 source that name its prefix.
    pub v4_len: u8,
    /// Bits of an IPv6 source that name its prefix.
    pub v6_len: u8,
}

/// How a frame ended. The number is the index of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum WanReason {
    /// Not for a UDP port of ours.
    PassOther = 0,
    /// A fragment: the kernel joins them, and nobody knows for whom before.
    PassFragment,
    /// IPv6 extension headers, which are left to the kernel.
    PassExtension,
    /// A handshake initiation within the rate.
    PassInitiation,
    /// A handshake response.
    PassResponse,
    /// A cookie reply.
    PassCookie,
    /// A data message.
    PassData,
    /// A train that begins with junk and has something good in it.
    PassMixed,
    /// An initiation for which the table of rates had no room.
    PassUntracked,
    /// A UDP length that the packet does not have.
    DropMalformed,
    /// No WireGuard type, or reserved bytes that are not zero.
    DropType,
    /// A length that the type cannot have.
    DropLength,
    /// A receiver index that is nobody's.
    DropReceiver,
    /// The source is on a block list.
    DropBlocked,
    /// Nobody on the Internet has the source.
    DropBogon,
    /// More initiations than the source's prefix may send.
    DropLimited,
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Frames; a train of datagrams is one.
    pub packets: u64,
    /// Bytes of those frames, headers included.
    pub bytes: u64,
}

/// What the program did since it was loaded, over all CPUs and interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WanStats {
    /// Frames that it looked at.
    pub seen: Counter,
    reasons: [Counter; WanReason::ALL.len()],
}

/// The program's entry points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// XDP in the driver.
    XdpNative,
    /// XDP behind it, where trains come unmarked.
    XdpGeneric,
    /// Traffic control behind Ethernet headers.
    Tc,
    /// Traffic control where frames begin with IP.
    TcIp,
}

/// A run of the program over a frame that nobody sent (`BPF_PROG_TEST_RUN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Whether the frame would be dropped.
    pub dropped: bool,
    /// Time of one run, on average.
    pub duration: Duration,
}

/// Why the program did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    /// A setting that the program cannot have.
    #[error("{0}")]
    Config(String),
    /// The kernel refused to change or read a map, or to run the program.
    #[error("{operation} failed: {cause}")]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        cause: String,
    },
}

impl InitiationLimit {
    /// What a gateway takes without being told: 50 a second, 100 at once, by /24 and /64.
    pub const DEFAULT: Self = Self {
        per_second: 50,
        burst: 100,
        v4_len: 24,
        v6_len: 64,
    };

    /// Nanoseconds between two initiations at the permitted rate.
    pub fn interval_ns(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.max(1))
    }

    /// How far ahead of the rate a prefix may be, in ns.
    pub fn tolerance_ns(self) -> u64 {
        self.interval_ns() * u64::from(self.burst.max(1) - 1)
    }

    fn check(self) -> Result<(), String> {
        if self.per_second == 0 || self.burst == 0 {
            return Err("a limit of 0 initiations would let no peer in: set per_second and burst to at least 1"
                .to_owned());
        }
        if self.v4_len > 32 || self.v6_len > 128 {
            return Err(format!(
                "prefixes of {} and {} bits: IPv4 addresses have 32 bits, IPv6 addresses 128",
                self.v4_len, self.v6_len
            ));
        }
        Ok(())
    }
}

impl WanReason {
    /// All of them, by number.
    pub const ALL: [Self; 16] = [
        Self::PassOther,
        Self::PassFragment,
        Self::PassExtension,
        Self::PassInitiation,
        Self::PassResponse,
        Self::PassCookie,
        Self::PassData,
        Self::PassMixed,
        Self::PassUntracked,
        Self::DropMalformed,
        Self::DropType,
        Self::DropLength,
        Self::DropReceiver,
        Self::DropBlocked,
        Self::DropBogon,
        Self::DropLimited,
    ];

    /// Whether frames that end so are dropped.
    pub fn is_drop(self) -> bool {
        self >= Self::DropMalformed
    }

    /// Its name in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PassOther => "pass_other",
            Self::PassFragment => "pass_fragment",
            Self::PassExtension => "pass_extension",
            Self::PassInitiation => "pass_initiation",
            Self::PassResponse => "pass_response",
            Self::PassCookie => "pass_cookie",
            Self::PassData => "pass_data",
            Self::PassMixed => "pass_mixed",
            Self::PassUntracked => "pass_untracked",
            Self::DropMalformed => "drop_malformed",
            Self::DropType => "drop_type",
            Self::DropLength => "drop_length",
            Self::DropReceiver => "drop_receiver",
            Self::DropBlocked => "drop_blocked",
            Self::DropBogon => "drop_bogon",
            Self::DropLimited => "drop_limited",
        }
    }

    /// What it means, for an operator.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::PassOther => "not for a UDP port of the gateway",
            Self::PassFragment => "a fragment, left to the kernel",
            Self::PassExtension => "IPv6 extension headers, left to the kernel",
            Self::PassInitiation => "a handshake initiation within the rate",
            Self::PassResponse => "a handshake response",
            Self::PassCookie => "a cookie reply",
            Self::PassData => "a data message",
            Self::PassMixed => "a train that begins with junk and has something good in it",
            Self::PassUntracked => "an initiation for which the table of rates had no room",
            Self::DropMalformed => "a UDP length that the packet does not have",
            Self::DropType => "no WireGuard message type",
            Self::DropLength => "a length that the message type cannot have",
            Self::DropReceiver => "a receiver index that is nobody's",
            Self::DropBlocked => "the source is on a block list",
            Self::DropBogon => "nobody on the Internet has the source",
            Self::DropLimited => "more initiations than the source's prefix may send",
        }
    }
}

impl WanStats {
    /// Frames that ended so.
    pub fn of(&self, reason: WanReason) -> Counter {
        self.reasons[reason as usize]
    }

    /// Every reason with its counter.
    pub fn reasons(&self) -> impl Iterator<Item = (WanReason, Counter)> + '_ {
        WanReason::ALL
            .into_iter()
            .map(|reason| (reason, self.of(reason)))
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        let all = self.reasons.iter_mut().zip(&other.reasons);
        for (sum, one) in all.chain([(&mut self.seen, &other.seen)]) {
            sum.packets += one.packets;
            sum.bytes += one.bytes;
        }
    }

    /// All that passed.
    pub fn passed(&self) -> Counter {
        sum(self.reasons().filter(|(reason, _)| !reason.is_drop()))
    }

    /// All that was dropped.
    pub fn dropped(&self) -> Counter {
        sum(self.reasons().filter(|(reason, _)| reason.is_drop()))
    }

    /// Whether `seen` is what passed and what was dropped. While frames come, one on each CPU may be seen and not
    /// yet judged.
    pub fn adds_up(&self) -> bool {
        let (passed, dropped) = (self.passed(), self.dropped());
        self.seen.packets == passed.packets + dropped.packets
            && self.seen.bytes == passed.bytes + dropped.bytes
    }
}

fn sum(reasons: impl Iterator<Item = (WanReason, Counter)>) -> Counter {
    reasons.fold(Counter::default(), |total, (_, one)| Counter {
        packets: total.packets + one.packets,
        bytes: total.bytes + one.bytes,
    })
}

impl Entry {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::XdpNative, Self::XdpGeneric, Self::Tc, Self::TcIp];

    /// The program's name in the object.
    pub fn program(self) -> &'static str {
        match self {
            Self::XdpNative => "wan_xdp",
            Self::XdpGeneric => "wan_xdp_generic",
            Self::Tc => "wan_tc",
            Self::TcIp => "wan_tc_l3",
        }
    }

    /// The entry that serves an interface at a hook.
    fn at(hook: Hook, layer: LinkLayer) -> Option<Self> {
        match (hook, layer) {
            (Hook::XdpNative, LinkLayer::Ethernet) => Some(Self::XdpNative),
            (Hook::XdpGeneric, LinkLayer::Ethernet) => Some(Self::XdpGeneric),
            (Hook::XdpNative | Hook::XdpGeneric, LinkLayer::Ip) => None,
            (Hook::Tcx | Hook::Clsact, LinkLayer::Ethernet) => Some(Self::Tc),
            (Hook::Tcx | Hook::Clsact, LinkLayer::Ip) => Some(Self::TcIp),
        }
    }
}

type Trie4 = LpmTrie<MapData, [u8; 4], u32>;
type Trie6 = LpmTrie<MapData, [u8; 16], u32>;

/// The WAN program in the kernel. Dropped, it and all its attachments' maps are gone once the attachments are.
pub struct WanFilter {
    ebpf: Ebpf,
    config: WanConfigValue,
    config_map: Array<MapData, WanConfigValue>,
    ports: BTreeMap<u32, u64>,
    ports_map: Array<MapData, u64>,
    receivers: HashSet<u32>,
    receivers_map: HashMap<MapData, u32, u32>,
    sources4_map: ArrayOfMaps<MapData, Trie4>,
    sources6_map: ArrayOfMaps<MapData, Trie6>,
    source_count: usize,
    counters_map: PerCpuArray<MapData, WanCountersValue>,
    loaded: Vec<Entry>,
}

impl WanFilter {
    /// Makes the maps, has the program for traffic control verified, and tells it `config`. The others are verified
    /// when they are first attached.
    ///
    /// # Errors
    /// See [`LoadError`]; nothing stays in the kernel.
    pub fn load(config: &WanConfig) -> Result<Self, LoadError> {
        let mut ebpf = EbpfLoader::new()
            .load(objects::WAN)
            .map_err(LoadError::from_ebpf)?;
        let mut filter = Self {
            config: WanConfigValue::default(),
            config_map: map(&mut ebpf, "WAN_CONFIG")?,
            ports: BTreeMap::new(),
            ports_map: map(&mut ebpf, "WAN_PORTS")?,
            receivers: HashSet::new(),
            receivers_map: map(&mut ebpf, "WAN_RECEIVERS")?,
            sources4_map: map(&mut ebpf, "WAN_SOURCES4")?,
            sources6_map: map(&mut ebpf, "WAN_SOURCES6")?,
            source_count: 0,
            counters_map: map(&mut ebpf, "WAN_COUNTERS")?,
            loaded: Vec::new(),
            ebpf,
        };
        filter.ready(Entry::Tc)?;
        let told = filter.tell(config);
        told.map_err(|error| match error {
            WanError::Config(why) => LoadError::Config(why),
            WanError::Kernel { operation, cause } => LoadError::Kernel {
                operation: operation.to_owned(),
                cause,
            },
        })?;
        Ok(filter)
    }

    /// Tells the program all of `config`. What is attached works on meanwhile, with the old or the new value of each
    /// setting.
    ///
    /// # Errors
    /// See [`WanError`]; settings before the one that failed are in force.
    pub fn tell(&mut self, config: &WanConfig) -> Result<(), WanError> {
        if let Some(limit) = config.limit {
            limit.check().map_err(WanError::Config)?;
        }
        self.set_limit(config.limit)?;
        self.set_sources(&config.sources)?;
        self.set_known_receivers(config.known_receivers.as_deref())?;
        self.set_ports(&config.ports)
    }

    /// Sets the ports that are ours. One that was and stays ours is ours all the time.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_ports(&mut self, ports: &[u16]) -> Result<(), WanError> {
        let mut wanted: BTreeMap<u32, u64> = BTreeMap::new();
        for port in ports {
            *wanted.entry(u32::from(port >> 6)).or_default() |= 1 << (port & 63);
        }
        let words: BTreeSet<u32> = wanted.keys().chain(self.ports.keys()).copied().collect();
        for word in words {
            let bits = wanted.get(&word).copied().unwrap_or(0);
            self.ports_map
                .set(word, bits, 0)
                .map_err(refused("setting the ports"))?;
        }
        self.ports = wanted;
        Ok(())
    }

    /// Replaces the list of sources. A packet is judged by the old list or by the new one, whole, never by neither.
    ///
    /// # Errors
    /// The kernel's refusal, such as memory for the list; the old one stays in force then.
    pub fn set_sources(&mut self, sources: &Sources) -> Result<(), WanError> {
        let operation = "filling the list of sources";
        let count = |is_v4: bool| {
            let of_family =
                |(prefix, _): &&(Prefix, SourceVerdict)| prefix.addr().is_ipv4() == is_v4;
            sources.entries().iter().filter(of_family).count() as u32
        };
        let (count4, count6) = (count(true), count(false));
        let create = |count: u32| count.max(1);
        let mut trie4 = Trie4::create(create(count4), NO_PREALLOC).map_err(refused(operation))?;
        let mut trie6 = Trie6::create(create(count6), NO_PREALLOC).map_err(refused(operation))?;
        for (prefix, verdict) in sources.entries() {
            let (len, verdict) = (u32::from(prefix.bits()), *verdict as u32);
            let inserted = match prefix.addr() {
                IpAddr::V4(addr) => trie4.insert(&WanSource4::new(len, addr.octets()), verdict, 0),
                IpAddr::V6(addr) => trie6.insert(&WanSource6::new(len, addr.octets()), verdict, 0),
            };
            inserted.map_err(refused(operation))?;
        }
        // From here on only the old or the new list can be seen.
        let operation = "changing the list of sources";
        self.sources4_map
            .set(0, &trie4, 0)
            .map_err(refused(operation))?;
        self.sources6_map
            .set(0, &trie6, 0)
            .map_err(refused(operation))?;
        self.set_flag(USES_SOURCES4, count4 > 0)?;
        self.set_flag(USES_SOURCES6, count6 > 0)?;
        self.source_count = sources.len();
        Ok(())
    }

    /// Sets which receiver indices are somebody's, each without its low byte; `None` lets all pass. An index that was
    /// and stays known is known all the time.
    ///
    /// Whoever turns this on must make an index known before it is given to a peer.
    ///
    /// # Errors
    /// More than [`Self::RECEIVERS_MAX`], or the kernel's refusal.
    pub fn set_known_receivers(&mut self, known: Option<&[u32]>) -> Result<(), WanError> {
        let operation = "setting the known receivers";
        let Some(known) = known else {
            self.set_flag(USES_RECEIVERS, false)?;
            return self.forget_receivers(&HashSet::new());
        };
        let known: HashSet<u32> = known.iter().copied().collect();
        if known.len() > Self::RECEIVERS_MAX {
            return Err(WanError::Config(format!(
                "{} receivers: at most {} can be checked, so turn the check off",
                known.len(),
                Self::RECEIVERS_MAX
            )));
        }
        for index in &known {
            if !self.receivers.contains(index) {
                self.receivers_map
                    .insert(index, 1, 0)
                    .map_err(refused(operation))?;
                self.receivers.insert(*index);
            }
        }
        self.forget_receivers(&known)?;
        self.set_flag(USES_RECEIVERS, true)
    }

    /// Adds one receiver index, without its low byte, to the known ones.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn add_known_receiver(&mut self, index: u32) -> Result<(), WanError> {
        self.receivers_map
            .insert(index, 1, 0)
            .map_err(refused("adding a known receiver"))?;
        self.receivers.insert(index);
        Ok(())
    }

    /// Sets the limit of initiations; `None` lifts it. What prefixes have used up stays.
    ///
    /// # Errors
    /// A limit of 0, a prefix longer than an address, or the kernel's refusal.
    pub fn set_limit(&mut self, limit: Option<InitiationLimit>) -> Result<(), WanError> {
        let Some(limit) = limit else {
            return self.set_flag(USES_LIMIT, false);
        };
        limit.check().map_err(WanError::Config)?;
        let ones = |len: u8| u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        let v6_mask = ones(limit.v6_len).to_be_bytes();
        let v4_mask = ((ones(limit.v4_len) >> 96) as u32).to_be_bytes();
        self.config.interval_ns = limit.interval_ns();
        self.config.tolerance_ns = limit.tolerance_ns();
        (self.config.v4_mask, self.config.v6_mask) = (v4_mask, v6_mask);
        self.config.flags |= USES_LIMIT;
        self.write_config()
    }

    /// Puts the program to work on an interface, until the attachment is dropped or the process dies. One filter may
    /// serve any number of interfaces; at two hooks of the same one it would count each frame twice.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&mut self, interface: &str, hook: Hook) -> Result<Attachment, AttachError> {
        let interface = Interface::find(interface)?;
        attach::check(&interface, hook)?;
        let Some(entry) = Entry::at(hook, interface.layer) else {
            return Err(AttachError::NeedsEthernet {
                interface: interface.name,
                hook,
            });
        };
        self.ready(entry)?;
        match entry {
            Entry::XdpNative | Entry::XdpGeneric => {
                attach::xdp(self.xdp_program(entry)?, &interface, hook)
            }
            Entry::Tc | Entry::TcIp => attach::traffic_control(
                self.tc_program(entry)?,
                entry.program(),
                &interface,
                hook,
                TcAttachType::Ingress,
            ),
        }
    }

    /// What the program did since it was loaded.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn stats(&self) -> Result<WanStats, WanError> {
        let mut stats = WanStats::default();
        for place in 0..WAN_PLACES {
            self.add_place(place, &mut stats)?;
        }
        Ok(stats)
    }

    /// What the program did on the interfaces whose indices have these low bits ([`Self::place_of`]).
    ///
    /// # Errors
    /// The kernel's refusal, also of a place beyond the last.
    pub fn stats_at(&self, place: u32) -> Result<WanStats, WanError> {
        let mut stats = WanStats::default();
        self.add_place(place, &mut stats)?;
        Ok(stats)
    }

    /// Where an interface is counted, by its index. Two may share a place.
    pub fn place_of(index: u32) -> u32 {
        index & (WAN_PLACES - 1)
    }

    fn add_place(&self, place: u32, stats: &mut WanStats) -> Result<(), WanError> {
        let per_cpu = self
            .counters_map
            .get(&place, 0)
            .map_err(refused("reading the counters"))?;
        for cpu in per_cpu.iter() {
            add(&mut stats.seen, cpu.seen);
            for (total, one) in stats.reasons.iter_mut().zip(cpu.reason) {
                add(total, one);
            }
        }
        Ok(())
    }

    /// How full its tables are. Lists of sources are made to measure, and the one of rates forgets the oldest.
    pub fn fills(&self) -> Vec<MapFill> {
        vec![MapFill {
            map: "wan_receivers",
            entries: self.receivers.len() as u64,
            entries_max: Self::RECEIVERS_MAX as u64,
        }]
    }

    /// How many prefixes the list in force was made of.
    pub fn source_count(&self) -> usize {
        self.source_count
    }

    /// Runs the program `repeat` times over a frame that nobody sent; the counters count it like any other. Frames
    /// have at least 14 bytes, whatever they begin with.
    ///
    /// # Errors
    /// The kernel's refusal: a frame too short, or beyond a page.
    pub fn trial(
        &mut self,
        entry: Entry,
        frame: Frame<'_>,
        repeat: u32,
    ) -> Result<Trial, WanError> {
        let operation = "running the program over a frame";
        self.ready(entry).map_err(|error| WanError::Kernel {
            operation,
            cause: error.to_string(),
        })?;
        let failed = |error: ProgramError| WanError::Kernel {
            operation,
            cause: chain(&error),
        };
        let mut options = TestRunOptions {
            data_in: Some(frame.bytes),
            repeat,
            ..TestRunOptions::default()
        };
        let mut context = [0; SKB_CONTEXT_LEN];
        let missing = |error: LoadError| WanError::Kernel {
            operation,
            cause: error.to_string(),
        };
        let (result, drop_code) = match entry {
            Entry::XdpNative | Entry::XdpGeneric => {
                let program = self.xdp_program(entry).map_err(missing)?;
                (program.test_run(options), XDP_DROP)
            }
            Entry::Tc | Entry::TcIp => {
                context[GSO_SIZE_AT..GSO_SIZE_AT + 4]
                    .copy_from_slice(&frame.gso_size.to_ne_bytes());
                options.ctx_in = Some(&context);
                let program = self.tc_program(entry).map_err(missing)?;
                (program.test_run(options), TC_ACT_SHOT)
            }
        };
        let result = result.map_err(failed)?;
        Ok(Trial {
            dropped: result.return_value == drop_code,
            duration: result.duration,
        })
    }

    /// Most receivers that can be known.
    pub const RECEIVERS_MAX: usize = 262_144;

    fn forget_receivers(&mut self, known: &HashSet<u32>) -> Result<(), WanError> {
        let gone: Vec<u32> = self.receivers.difference(known).copied().collect();
        for index in gone {
            self.receivers_map
                .remove(&index)
                .map_err(refused("forgetting a receiver"))?;
            self.receivers.remove(&index);
        }
        Ok(())
    }

    fn set_flag(&mut self, flag: u32, on: bool) -> Result<(), WanError> {
        self.config.flags = self.config.flags & !flag | if on { flag } else { 0 };
        self.write_config()
    }

    /// The kernel copies word by word: a packet of this moment may see the old interval with the new tolerance.
    fn write_config(&mut self) -> Result<(), WanError> {
        self.config_map
            .set(0, self.config, 0)
            .map_err(refused("writing the configuration"))
    }

    /// Has a program verified, once.
    fn ready(&mut self, entry: Entry) -> Result<(), LoadError> {
        if self.loaded.contains(&entry) {
            return Ok(());
        }
        let loaded = match entry {
            Entry::XdpNative | Entry::XdpGeneric => self.xdp_program(entry)?.load(),
            Entry::Tc | Entry::TcIp => self.tc_program(entry)?.load(),
        };
        loaded.map_err(|error| {
            LoadError::from_program(&format!("loading {}", entry.program()), error)
        })?;
        self.loaded.push(entry);
        Ok(())
    }

    fn xdp_program(&mut self, entry: Entry) -> Result<&mut Xdp, LoadError> {
        let program = self.ebpf.program_mut(entry.program());
        program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| not_in_object(entry.program()))
    }

    fn tc_program(&mut self, entry: Entry) -> Result<&mut SchedClassifier, LoadError> {
        let program = self.ebpf.program_mut(entry.program());
        program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| not_in_object(entry.program()))
    }
}

impl std::fmt::Debug for WanFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WanFilter")
            .field("config", &self.config)
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

/// A map of the object, of the type that this file has it as.
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

fn refused(operation: &'static str) -> impl Fn(MapError) -> WanError {
    move |error| WanError::Kernel {
        operation,
        cause: chain(&error),
    }
}

fn add(total: &mut Counter, one: WanCounterValue) {
    total.packets += one.packets;
    total.bytes += one.bytes;
}

const NO_PREALLOC: u32 = 1;
const XDP_DROP: u32 = 1;
const TC_ACT_SHOT: u32 = 2;
/// `sizeof(struct __sk_buff)`, and where its `gso_size` lies.
const SKB_CONTEXT_LEN: usize = 192;
const GSO_SIZE_AT: usize = 176;
