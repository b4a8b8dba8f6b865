//! From a configuration to open doors: interface, sockets, workers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use patronus_config::{CipherCode, Config, InterfaceName, OffloadLimit, Pinning, UplinkIo};
use patronus_io::tun::open_with;
use patronus_io::{
    Backend, Core, OffloadReport, TunDevice, TunError, TunOffload, UdpError, UdpOffload,
    UdpOptions, UdpSocket, allowed_cores, pick_port, port_is_free, steer,
};

use patronus_packet::Door;

use crate::sockets::Sockets;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No interface.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// No socket.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// Neither IPv4 nor IPv6 sockets exist here.
    #[error("this kernel has neither IPv4 nor IPv6")]
    NoFamily,
    /// Datagrams cannot be steered to their workers.
    #[error("cannot steer datagrams to {workers} workers: {source}; set [dataplane] workers = 1")]
    Steering {
        /// How many workers were asked for.
        workers: usize,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Number of workers: as configured, or one per core that this process may use.
pub fn worker_count(config: &Config) -> usize {
    let configured = config.dataplane.workers.map(|workers| workers.count());
    configured.unwrap_or_else(|| match &config.dataplane.pinning {
        Pinning::Cores(cores) => cores.cores().len(),
        Pinning::AllowedCores | Pinning::Off => allowed_cores().len(),
    })
}

/// The code that seals and opens packets.
pub fn cipher(code: CipherCode) -> patronus_aead::Backend {
    match code {
        CipherCode::Auto => patronus_aead::Backend::best(),
        CipherCode::Ring => patronus_aead::Backend::Ring,
    }
}

/// The core of each worker.
pub fn cores(pinning: &Pinning, workers: usize) -> Vec<Option<Core>> {
    let allowed = allowed_cores();
    let core_of = |worker: usize| match pinning {
        Pinning::Cores(cores) => Some(Core(cores.for_worker(worker))),
        Pinning::AllowedCores => allowed.get(worker % allowed.len().max(1)).copied(),
        Pinning::Off => None,
    };
    (0..workers).map(core_of).collect()
}

/// Creates the interface with a queue per worker; with fewer where the backend has fewer.
///
/// # Errors
/// See [`TunError`].
pub fn open_tun(config: &Config, queues: usize) -> Result<TunDevice, TunError> {
    let (want, backend) = match config.dataplane.offload {
        OffloadLimit::Auto | OffloadLimit::NoUdpGso => (TunOffload::FULL, Backend::Auto),
        OffloadLimit::NoUso => (TunOffload::TCP, Backend::Auto),
        OffloadLimit::None => (TunOffload::NONE, Backend::Native),
        OffloadLimit::Portable => (TunOffload::NONE, Backend::Portable),
    };
    open_with(config.site.interface.as_str(), queues, want, backend)
}

/// The sockets of all workers on one port.
#[derive(Debug)]
pub struct Uplinks {
    /// By worker.
    pub sockets: Vec<Sockets>,
    /// The port, which is never 0.
    pub port: u16,
}

impl Uplinks {
    /// Every UDP port that the workers receive on.
    pub fn ports(&self) -> Vec<u16> {
        let sockets = self.sockets.iter().flat_map(Sockets::iter);
        let mut ports: Vec<u16> = sockets.map(|it| it.local_addr().port()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// Binds `workers` sockets per address family and steers datagrams between them. `held` is the port that this
/// gateway's sockets have already: on it, only a change of a lone uplink's interface makes a group of its own.
///
/// # Errors
/// When the port is taken, or the kernel refuses.
pub fn bind_uplinks(
    config: &Config,
    port: u16,
    mark: Option<u32>,
    workers: usize,
    held: Option<u16>,
) -> Result<Uplinks, StartError> {
    let port = match port {
        0 => pick_port()?,
        port => port,
    };
    let options = options(config, mark);
    let mut sockets: Vec<Sockets> = (0..workers).map(|_| Sockets::default()).collect();
    let mut families = 0;
    for ip in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ] {
        let addr = SocketAddr::new(ip, port);
        // SO_REUSEPORT would let us join a group that another program of ours has on the port.
        match port_is_free(addr) {
            Ok(()) => families += 1,
            Err(UdpError::InUse { .. }) if held == Some(port) => families += 1,
            Err(UdpError::FamilyMissing { .. } | UdpError::AddressMissing { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        for worker in &mut sockets {
            worker.push(UdpSocket::bind(addr, &options)?);
        }
        if workers > 1
            && let Some(socket) = sockets[0]
                .iter()
                .find(|socket| socket.local_addr().ip() == ip)
        {
            let attached = steer::attach(socket.as_fd(), workers);
            attached.map_err(|source| StartError::Steering { workers, source })?;
        }
    }
    if has_lanes(config, workers) {
        let own = UdpOptions {
            door: Door::Lane,
            reuse_port: false,
            ..options
        };
        for worker in &mut sockets {
            let families: Vec<IpAddr> = worker
                .iter()
                .map(|socket| socket.local_addr().ip())
                .collect();
            for ip in families {
                worker.push(UdpSocket::bind(SocketAddr::new(ip, 0), &own)?);
            }
        }
    }
    match families {
        0 => Err(StartError::NoFamily),
        _ => Ok(Uplinks { sockets, port }),
    }
}

/// Whether workers have lanes of their own.
pub fn has_lanes(config: &Config, workers: usize) -> bool {
    config.dataplane.lanes && workers > 1
}

/// The level of offload that runs, and why not a better one.
pub fn offload_report(tun: &TunDevice, uplinks: &Uplinks) -> OffloadReport {
    let sockets = || uplinks.sockets.iter().flat_map(Sockets::iter);
    let udp = sockets().map(UdpSocket::offload).reduce(UdpOffload::common);
    let mut why = tun.notes.clone();
    for note in sockets().flat_map(UdpSocket::notes) {
        if !why.contains(note) {
            why.push(note.clone());
        }
    }
    OffloadReport::new(tun.offload, udp.unwrap_or_default(), why)
}

/// The mark that the configuration wants.
pub fn configured_mark(uplinks: &patronus_config::Uplinks) -> Option<u32> {
    uplinks.mark.map(|mark| mark.number())
}

/// Which interfaces run by AF_XDP and which do not.
pub fn io_of(
    uplinks: &patronus_config::Uplinks,
) -> impl Iterator<Item = (Option<&InterfaceName>, UplinkIo)> {
    let uplinks = uplinks.iter();
    uplinks.map(|uplink| (uplink.interface.as_ref(), uplink.io))
}

/// The interface to bind all sockets to: that of a lone uplink, if it names one. Of several, each datagram names its own.
pub fn bound_interface(uplinks: &patronus_config::Uplinks) -> Option<&InterfaceName> {
    uplinks.lone().and_then(|lone| lone.interface.as_ref())
}

fn options(config: &Config, mark: Option<u32>) -> UdpOptions {
    let offload = config.dataplane.offload;
    let trains = matches!(offload, OffloadLimit::Auto | OffloadLimit::NoUso);
    let buffer = config.dataplane.socket_buffer.bytes();
    UdpOptions {
        door: Door::Listen,
        reuse_port: true,
        recv_buffer: buffer,
        send_buffer: buffer,
        mark,
        device: bound_interface(&config.uplinks).map(|name| name.as_str().to_owned()),
        want_gso: trains,
        want_gro: !matches!(offload, OffloadLimit::None | OffloadLimit::Portable),
    }
}

/// The families, as sysctl names them, that the site uses and that this machine does not forward. `is_off` says it of a
/// file of `/proc/sys`.
pub fn not_forwarded(config: &Config, is_off: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let inner = || {
        let peers = config.peers.iter();
        let allowed = peers.flat_map(|peer| &peer.allowed_ips);
        config.site.addresses.iter().chain(allowed)
    };
    let mut families = Vec::new();
    let has_v4 = inner().any(|prefix| prefix.addr().is_ipv4());
    if has_v4 && is_off("/proc/sys/net/ipv4/ip_forward") {
        families.push("ipv4.ip_forward");
    }
    let has_v6 = inner().any(|prefix| prefix.addr().is_ipv6());
    if has_v6 && is_off("/proc/sys/net/ipv6/conf/all/forwarding") {
        families.push("ipv6.conf.all.forwarding");
    }
    families
}

/// From the hasher that the standard library seeds from the system's random source.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(peer_prefixes: &str) -> Config {
        let text = format!(
            "[site]\nname = \"hq\"\nprivate_key_file = \"key\"\naddresses = [\"10.0.0.1/24\"]\n\
             [[peer]]\npublic_key = \"t3IigWBzr8Vw8vzjL3C90HFDb+Oqnx99YJS0x7ouCG8=\"\nallowed_ips = [{peer_prefixes}]\n"
        );
        let draft = Config::parse(&text, "test").unwrap();
        draft
            .resolve(|_| {
                Ok("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n"
                    .to_owned()
                    .into())
            })
            .unwrap()
    }

    #[test]
    fn only_a_family_that_the_site_uses_has_to_be_forwarded() {
        let all_off = |_: &str| true;
        let of = |prefixes| not_forwarded(&config(prefixes), all_off);
        assert_eq!(of("\"10.1.0.0/16\""), ["ipv4.ip_forward"]);
        let both = ["ipv4.ip_forward", "ipv6.conf.all.forwarding"];
        assert_eq!(of("\"10.1.0.0/16\", \"fd00::/64\""), both);
        let none: [&str; 0] = [];
        assert_eq!(not_forwarded(&config("\"fd00::/64\""), |_| false), none);
    }
}
