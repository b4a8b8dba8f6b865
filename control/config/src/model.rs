//! The checked configuration. Every type here refuses to be built wrong, so that the gateway never
//! checks again; the rules that span several values of a file live in `check`.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use patronus_packet::Prefix;
use patronus_tunnel::PrivateKey;

use crate::classes::Classes;
use crate::diagnostic::quote;
use crate::peers::PeerSet;
use crate::prefilter::PrefilterSettings;
use crate::uplinks::Uplinks;

/// A site, its workers, its uplinks, its peers and its classes, secrets included.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The site itself and its tunnel interface.
    pub site: Site,
    /// How the packet workers run.
    pub dataplane: Dataplane,
    /// The ways out.
    pub uplinks: Uplinks,
    /// The other ends of the tunnels.
    pub peers: PeerSet,
    /// Kinds of traffic.
    pub classes: Classes,
    /// Who may talk to whom.
    pub policy: PolicySettings,
    /// What is thrown away in the kernel.
    pub prefilter: PrefilterSettings,
    /// Who may look.
    pub api: ApiSettings,
}

/// `[site]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The site's name.
    pub name: Name,
    /// The site's identity.
    pub private_key: PrivateKey,
    /// Addresses of the tunnel interface, host bits kept.
    pub addresses: Vec<Prefix>,
    /// Name of the tunnel interface.
    pub interface: InterfaceName,
    /// MTU of the tunnel interface.
    pub mtu: Mtu,
    /// The table that gets a route per allowed IP; `None` installs no routes.
    pub routes: Option<RouteTable>,
    /// Where the gateway keeps what outlives it.
    pub state: StateSettings,
}

/// `state_dir` and `history` of `[site]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSettings {
    /// The folder, as the operator wrote it: relative to the folder of the configuration file. `None` is the system's
    /// usual one.
    pub dir: Option<PathBuf>,
    /// Whether samples of the last day are kept.
    pub history: bool,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            dir: None,
            history: true,
        }
    }
}

/// `[api]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiSettings {
    /// Where metrics are served to whoever asks, beside the API's socket.
    pub metrics_listen: Option<LoopbackAddr>,
    /// Where the whole API is served by TCP, with TLS and for those with a token.
    pub listen: Option<ApiListen>,
}

/// The API by TCP. Paths are as the operator wrote them: relative to the folder of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiListen {
    /// Address and port.
    pub addr: SocketAddr,
    /// The certificate and those that signed it, in PEM.
    pub tls_cert: PathBuf,
    /// Its private key, in PEM.
    pub tls_key: PathBuf,
    /// The token of those who may do everything.
    pub token_file: Option<PathBuf>,
    /// The token of those who may only look.
    pub read_token_file: Option<PathBuf>,
}

/// An address and port that only this machine reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddr(SocketAddr);

impl LoopbackAddr {
    /// The address.
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

/// Why a text is no [`LoopbackAddr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoopbackError {
    /// No address with a port.
    #[error("`{0}` is no address with a port: write \"127.0.0.1:9586\" or \"[::1]:9586\"")]
    Address(String),
    /// Others would reach it.
    #[error(
        "others reach `{0}`, and what is served there has neither TLS nor a token: write \"127.0.0.1:9586\", and let an \
         agent or a proxy on this machine carry it"
    )]
    Reachable(String),
    /// Port 0 is a different one each time.
    #[error("`{0}` has port 0, which is another one at each start: name one, such as 9586")]
    AnyPort(String),
}

impl FromStr for LoopbackAddr {
    type Err = LoopbackError;

    fn from_str(text: &str) -> Result<Self, LoopbackError> {
        let addr: SocketAddr = text
            .parse()
            .map_err(|_| LoopbackError::Address(quote(text)))?;
        if !addr.ip().is_loopback() {
            return Err(LoopbackError::Reachable(quote(text)));
        }
        if addr.port() == 0 {
            return Err(LoopbackError::AnyPort(quote(text)));
        }
        Ok(Self(addr))
    }
}

/// `[dataplane]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// Packet workers; `None` is one per allowed core.
    pub workers: Option<WorkerCount>,
    /// Which cores they run on.
    pub pinning: Pinning,
    /// Slots of each worker's flow table.
    pub flow_slots: FlowSlots,
    /// The best offload level that is tried.
    pub offload: OffloadLimit,
    /// Whether workers open lanes with other Patronus sites.
    pub lanes: bool,
    /// Whose code seals and opens packets.
    pub cipher: CipherCode,
    /// How long an idle worker spins before it sleeps.
    pub spin: SpinTime,
    /// Send and receive buffer of each uplink socket.
    pub socket_buffer: SocketBuffer,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self {
            workers: None,
            pinning: Pinning::default(),
            flow_slots: FlowSlots::default(),
            offload: OffloadLimit::default(),
            lanes: true,
            cipher: CipherCode::default(),
            spin: SpinTime::default(),
            socket_buffer: SocketBuffer::default(),
        }
    }
}

/// `[policy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySettings {
    /// Where the manifests are.
    pub directory: PolicyDir,
    /// Whether flows that were allowed when they began stay so when policy changes.
    pub keep_established: bool,
    /// What the sender of a denied packet is told.
    pub refusal: RefusalMode,
}

/// A folder of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDir {
    /// The folder, as the operator wrote it: relative to the folder of the configuration file.
    pub path: PathBuf,
    /// Whether the file names it; one that it does not name may be absent.
    pub is_required: bool,
}

impl Default for PolicyDir {
    /// `policies.d`, where there is one.
    fn default() -> Self {
        Self {
            path: PathBuf::from("policies.d"),
            is_required: false,
        }
    }
}

/// What becomes of a denied packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalMode {
    /// `drop`: it vanishes.
    #[default]
    Drop,
    /// `reject`: its sender gets a TCP reset or an ICMP error.
    Reject,
}

impl RefusalMode {
    /// Every way with the word for it.
    pub const WORDS: [(&'static str, Self); 2] = [("drop", Self::Drop), ("reject", Self::Reject)];
}

/// Which cores the workers are pinned to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// Worker n to the n-th core that the process may use.
    #[default]
    AllowedCores,
    /// Worker n to core n of the list, round and round.
    Cores(CoreList),
    /// None: the kernel moves workers as it likes.
    Off,
}

/// Whose ChaCha20-Poly1305 seals and opens packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherCode {
    /// `auto`: the gateway's own where the processor has AVX-512, ring's elsewhere.
    #[default]
    Auto,
    /// `ring`: ring's everywhere.
    Ring,
}

impl CipherCode {
    /// Every choice with the word for it.
    pub const WORDS: [(&'static str, Self); 2] = [("auto", Self::Auto), ("ring", Self::Ring)];
}

/// The best offload level that the ladder starts from; a lower one runs where the kernel lacks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffloadLimit {
    /// `auto`: TSO, USO, `UDP_SEGMENT` and `UDP_GRO`.
    #[default]
    Auto,
    /// `no-uso`: no UDP superpackets on the TUN.
    NoUso,
    /// `no-udp-gso`: no datagram trains on the uplink sockets.
    NoUdpGso,
    /// `none`: one packet at a time everywhere.
    None,
    /// `portable`: the single-queue `tun-tap` device.
    Portable,
}

impl OffloadLimit {
    /// Every level with the word for it.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("no-uso", Self::NoUso),
        ("no-udp-gso", Self::NoUdpGso),
        ("none", Self::None),
        ("portable", Self::Portable),
    ];
}

impl fmt::Display for OffloadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::NoUso => "no-uso",
            Self::NoUdpGso => "no-udp-gso",
            Self::None => "none",
            Self::Portable => "portable",
        })
    }
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a [`Name`].
    #[error("`{0}` is not a name: use 1 to 63 of a-z, 0-9 and -")]
    Name(String),
    /// Not an [`InterfaceName`].
    #[error("`{0}` is not an interface name: use 1 to 15 visible ASCII characters without / : %")]
    Interface(String),
}

/// The name of a site, uplink, peer or class: 1 to 63 of `[a-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The uplink of a file that names none.
    pub(crate) fn wan() -> Self {
        Self::built_in("wan")
    }

    /// A name of our own choosing.
    pub(crate) fn built_in(name: &'static str) -> Self {
        debug_assert!(name.parse::<Self>().is_ok(), "{name}");
        Self(name.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_valid = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_valid {
            return Err(NameError::Name(quote(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that Linux takes for an interface (`dev_valid_name` in `net/core/dev.c`), narrowed to visible
/// ASCII, and without `%`, which the kernel reads as a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for InterfaceName {
    /// `patronus0`
    fn default() -> Self {
        Self("patronus0".to_owned())
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_valid = (1..=INTERFACE_NAME_LEN_MAX).contains(&text.len())
            && text != "."
            && text != ".."
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte));
        if !is_valid {
            return Err(NameError::Interface(quote(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// MTU of the tunnel interface in bytes, 576 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

impl Mtu {
    /// The smallest that is taken: what every IPv4 host must reassemble (RFC 791, section 3.1).
    pub const MIN: u16 = 576;
    /// The smallest that carries IPv6 (RFC 8200, section 5).
    pub const MIN_V6: u16 = 1280;

    /// `None` below [`MIN`](Self::MIN).
    pub fn new(bytes: u16) -> Option<Self> {
        (bytes >= Self::MIN).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u16 {
        self.0
    }

    /// Whether IPv6 may run over it.
    pub fn carries_v6(self) -> bool {
        self.0 >= Self::MIN_V6
    }
}

impl Default for Mtu {
    /// 1420, as `wg-quick` takes: 1500 less 80 bytes for outer IPv6, UDP and WireGuard.
    fn default() -> Self {
        Self(1420)
    }
}

/// A routing table (`ip route show table N`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteTable(NonZeroU32);

impl RouteTable {
    /// `main`, 254
    pub const MAIN: Self = Self(NonZeroU32::new(254).expect("254 is not zero"));

    /// The table with this number; 0 is the kernel's word for none.
    pub fn new(number: NonZeroU32) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl Default for RouteTable {
    fn default() -> Self {
        Self::MAIN
    }
}

/// A mark on outer packets, for `ip rule ... fwmark`. The number 0 is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FirewallMark(NonZeroU32);

impl FirewallMark {
    /// The mark with this number.
    pub fn new(number: NonZeroU32) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

/// Seconds between keepalives, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keepalive(NonZeroU16);

impl Keepalive {
    /// Every so many seconds.
    pub fn new(seconds: NonZeroU16) -> Self {
        Self(seconds)
    }

    /// In seconds.
    pub fn seconds(self) -> u16 {
        self.0.get()
    }
}

/// How many packet workers run, 1 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerCount(NonZeroU8);

impl WorkerCount {
    /// So many.
    pub fn new(count: NonZeroU8) -> Self {
        Self(count)
    }

    /// How many.
    pub fn count(self) -> usize {
        usize::from(self.0.get())
    }
}

/// Cores to pin to, at least one, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(Vec<u16>);

impl CoreList {
    /// `None` where the list is empty or names a core twice.
    pub fn new(cores: Vec<u16>) -> Option<Self> {
        let mut sorted = cores.clone();
        sorted.sort_unstable();
        sorted.dedup();
        (!cores.is_empty() && sorted.len() == cores.len()).then_some(Self(cores))
    }

    /// The core of worker `worker`, counted from 0.
    pub fn for_worker(&self, worker: usize) -> usize {
        usize::from(self.0[worker % self.0.len()])
    }

    /// The cores in the operator's order.
    pub fn cores(&self) -> &[u16] {
        &self.0
    }
}

/// Slots of one worker's flow table: a power of two from 1024 to 16777216.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowSlots(u32);

impl FlowSlots {
    /// The fewest.
    pub const MIN: u32 = 1024;
    /// The most.
    pub const MAX: u32 = 1 << 24;

    /// `None` for a number that is no power of two or out of range.
    pub fn new(slots: u32) -> Option<Self> {
        ((Self::MIN..=Self::MAX).contains(&slots) && slots.is_power_of_two()).then_some(Self(slots))
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0 as usize
    }
}

impl Default for FlowSlots {
    /// 65536
    fn default() -> Self {
        Self(1 << 16)
    }
}

/// How long an idle worker spins before it sleeps: 0 to 1000 µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpinTime(u16);

impl SpinTime {
    /// The longest, in µs.
    pub const MAX_US: u16 = 1000;

    /// `None` above [`MAX_US`](Self::MAX_US).
    pub fn from_micros(us: u16) -> Option<Self> {
        (us <= Self::MAX_US).then_some(Self(us))
    }

    /// As a duration.
    pub fn to_duration(self) -> Duration {
        Duration::from_micros(self.0.into())
    }
}

impl Default for SpinTime {
    /// 20 µs
    fn default() -> Self {
        Self(20)
    }
}

/// A socket buffer, 64 KiB to 1 GiB: what `SO_RCVBUF` can hold in an `int` when the kernel doubles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketBuffer {
    kib: u32,
}

impl SocketBuffer {
    /// The smallest: one full GRO buffer.
    pub const MIN_KIB: u32 = 64;
    /// The largest.
    pub const MAX_KIB: u32 = (1 << 20) - 1;

    /// `None` out of range.
    pub fn from_kib(kib: u32) -> Option<Self> {
        (Self::MIN_KIB..=Self::MAX_KIB)
            .contains(&kib)
            .then_some(Self { kib })
    }

    /// In bytes.
    pub fn bytes(self) -> usize {
        self.kib as usize * 1024
    }
}

impl Default for SocketBuffer {
    /// 4 MiB
    fn default() -> Self {
        Self { kib: 4096 }
    }
}

/// The port of a file that names none.
pub const DEFAULT_LISTEN_PORT: u16 = 51820;
/// `IFNAMSIZ` less its NUL.
pub const INTERFACE_NAME_LEN_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_letters_digits_and_hyphens() {
        let long = "a".repeat(64);
        for text in ["", "HQ", "h q", "a_b", "é", &long] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        for text in ["hq", "site-7", "-", &long[1..]] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
    }

    #[test]
    fn interface_names_are_what_the_kernel_takes() {
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "wg%d",
            "a b",
            "wgé",
            "abcdefghijklmnop",
        ] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
        for text in ["wg0", "abcdefghijklmno", "eth0.100", "br-lan@x"] {
            assert!(text.parse::<InterfaceName>().is_ok(), "{text}");
        }
    }

    #[test]
    fn numbers_stop_at_their_bounds() {
        assert_eq!(Mtu::new(575), None);
        assert!(Mtu::new(576).is_some_and(|mtu| !mtu.carries_v6()));
        assert!(Mtu::new(1280).is_some_and(Mtu::carries_v6));
        assert_eq!(FlowSlots::new(512), None);
        assert_eq!(FlowSlots::new(1025), None);
        assert_eq!(FlowSlots::new(1 << 25), None);
        assert_eq!(FlowSlots::new(1 << 24).map(FlowSlots::count), Some(1 << 24));
        assert_eq!(SpinTime::from_micros(1001), None);
        assert_eq!(SocketBuffer::from_kib(63), None);
        assert!(
            SocketBuffer::from_kib(SocketBuffer::MAX_KIB)
                .is_some_and(|size| size.bytes() <= i32::MAX as usize / 2)
        );
    }

    #[test]
    fn workers_go_round_the_cores() {
        let cores = CoreList::new(vec![2, 5]).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|worker| cores.for_worker(worker)),
            [2, 5, 2, 5]
        );
        assert_eq!(CoreList::new(vec![]), None);
        assert_eq!(CoreList::new(vec![1, 1]), None);
    }

    #[test]
    fn every_offload_level_is_spelled_one_way() {
        for (word, level) in OffloadLimit::WORDS {
            assert_eq!(level.to_string(), word);
        }
    }
}
