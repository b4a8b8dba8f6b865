//! What this machine is, read from /proc, /sys and the socket; judged elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{getsockopt, sockopt};
use patronus_api::Client;
use patronus_config::Outline;

/// The machine at one moment; `None` is what could not be read.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Effective capabilities, and whether they are the gateway's (else this user's).
    pub capabilities: Option<(u64, bool)>,
    /// Whether /dev/net/tun is a device.
    pub has_tun: bool,
    /// `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`.
    pub forwards: [Option<bool>; 2],
    /// `rp_filter` of interfaces, the greater of its own and `all`.
    pub rp_filter: BTreeMap<String, u8>,
    /// Seconds since 1970.
    pub unix_s: u64,
    /// Whether systemd-timesyncd runs and has not found a clock to follow.
    pub is_unsynchronised: bool,
    /// MTU of interfaces.
    pub mtu: BTreeMap<String, u32>,
    /// All interfaces there are, and whether each has a carrier.
    pub carrier: BTreeMap<String, bool>,
    /// Bound UDP ports.
    pub udp_ports: Option<Vec<u16>>,
    /// The API's socket: mode, and its group's name.
    pub socket: Option<(u32, String)>,
    /// Whether the system has the group `patronus`.
    pub has_group: bool,
    /// Major and minor number of the kernel.
    pub kernel: Option<(u32, u32)>,
    /// Whether the kernel tells its types (BTF).
    pub has_btf: bool,
    /// Routes of the main table: destination, its length, interface.
    pub routes: Vec<(IpAddr, u8, String)>,
    /// What `ethtool -k` says of uplinks, by interface: features that are off.
    pub features_off: BTreeMap<String, Vec<String>>,
    /// The state folder.
    pub state_dir: PathBuf,
    /// Its free bytes.
    pub state_free: Option<u64>,
    /// Whether there is a gateway.
    pub has_gateway: bool,
}

impl Facts {
    /// Looks at the machine.
    pub fn read(outline: Option<&Outline>, client: Option<&Client>, config: &Path) -> Self {
        let pid = client.and_then(Client::socket).and_then(gateway_pid);
        let of_gateway = pid.and_then(|pid| capabilities(&format!("/proc/{pid}/status")));
        let own = || capabilities("/proc/self/status").map(|it| (it, false));
        let interfaces = interfaces_of(outline);
        let state_dir = state_dir(outline, config);
        let mut facts = Self {
            capabilities: of_gateway.map(|it| (it, true)).or_else(own),
            has_tun: fs::metadata("/dev/net/tun").is_ok_and(|it| it.file_type().is_char_device()),
            forwards: [
                flag("/proc/sys/net/ipv4/ip_forward"),
                flag("/proc/sys/net/ipv6/conf/all/forwarding"),
            ],
            unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |it| it.as_secs()),
            is_unsynchronised: Path::new("/run/systemd/timesync").is_dir()
                && !Path::new("/run/systemd/timesync/synchronized").exists(),
            udp_ports: udp_ports(),
            socket: client.and_then(Client::socket).and_then(socket),
            has_group: nix::unistd::Group::from_name("patronus").is_ok_and(|it| it.is_some()),
            kernel: kernel(),
            has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            routes: routes(),
            state_free: free(&state_dir),
            state_dir,
            has_gateway: client.is_some(),
            ..Self::default()
        };
        for link in getifaddrs().into_iter().flatten() {
            let works = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
            let has_carrier = link.flags.contains(works);
            facts.carrier.insert(link.interface_name, has_carrier);
        }
        let all = number("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or(0);
        for name in interfaces {
            let own = number(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
            if let Some(own) = own {
                facts.rp_filter.insert(name.clone(), own.max(all) as u8);
            }
            if let Some(mtu) = number(&format!("/sys/class/net/{name}/mtu")) {
                facts.mtu.insert(name.clone(), mtu as u32);
            }
            if let Some(off) = features_off(&name) {
                facts.features_off.insert(name, off);
            }
        }
        facts
    }
}

/// Uplinks' interfaces: those that are named, else those with a default route.
fn interfaces_of(outline: Option<&Outline>) -> Vec<String> {
    let named = outline.into_iter().flat_map(|it| &it.uplinks);
    let named = named.filter_map(|it| it.interface.as_ref());
    let mut names: Vec<String> = named.map(|it| it.as_str().to_owned()).collect();
    if names.is_empty() {
        let routes = routes().into_iter();
        let defaults = routes.filter(|(_, length, name)| *length == 0 && name != "lo");
        names = defaults.map(|(_, _, name)| name).collect();
    }
    names.sort();
    names.dedup();
    names
}

fn state_dir(outline: Option<&Outline>, config: &Path) -> PathBuf {
    let base = config.parent().unwrap_or(Path::new(""));
    let named = outline.and_then(|it| it.state_dir.as_ref());
    named.map_or_else(|| PathBuf::from("/var/lib/patronus"), |dir| base.join(dir))
}

/// Who listens on the socket.
fn gateway_pid(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).ok()?;
    let credentials = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
    Some(credentials.pid())
}

fn capabilities(status: &str) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn flag(path: &str) -> Option<bool> {
    number(path).map(|it| it != 0)
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bound ports of both families.
fn udp_ports() -> Option<Vec<u16>> {
    let mut ports = Vec::new();
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
        // A kernel without IPv6 has no second one.
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        ports.extend(text.lines().skip(1).filter_map(|line| {
            let local = line.split_whitespace().nth(1)?;
            u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
        }));
    }
    (!ports.is_empty() || Path::new("/proc/net/udp").exists()).then_some(ports)
}

fn socket(path: &Path) -> Option<(u32, String)> {
    let metadata = fs::metadata(path).ok()?;
    let gid = nix::unistd::Gid::from_raw(metadata.gid());
    let group = nix::unistd::Group::from_gid(gid).ok().flatten();
    let name = group.map_or_else(|| metadata.gid().to_string(), |it| it.name);
    Some((metadata.mode() & 0o777, name))
}

fn kernel() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(['.', '-']);
    Some((
        numbers.next()?.parse().ok()?,
        numbers.next()?.trim().parse().ok()?,
    ))
}

/// The main table of IPv4, and all unicast routes of IPv6.
fn routes() -> Vec<(IpAddr, u8, String)> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let v4 = v4.lines().skip(1).filter_map(route_v4);
    v4.chain(v6.lines().filter_map(route_v6)).collect()
}

fn route_v4(line: &str) -> Option<(IpAddr, u8, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    // Written as the bytes lie in memory.
    let word = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
    let addr = Ipv4Addr::from(word(1)?.to_ne_bytes());
    let mask = u32::from_be_bytes(word(7)?.to_ne_bytes());
    Some((addr.into(), mask.leading_ones() as u8, words[0].to_owned()))
}

fn route_v6(line: &str) -> Option<(IpAddr, u8, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let addr = Ipv6Addr::from(u128::from_str_radix(words.first()?, 16).ok()?);
    let length = u8::from_str_radix(words.get(1)?, 16).ok()?;
    let name = (*words.get(9)?).to_owned();
    (name != "lo" && !addr.is_multicast()).then_some((addr.into(), length, name))
}

/// Features that bulk traffic lives from and that are off; `None` where nobody tells.
fn features_off(interface: &str) -> Option<Vec<String>> {
    let output = Command::new("ethtool").args(["-k", interface]).output();
    let output = output.ok().filter(|it| it.status.success())?;
    Some(features_in(&String::from_utf8_lossy(&output.stdout)))
}

fn features_in(text: &str) -> Vec<String> {
    let wanted = [
        "generic-receive-offload",
        "tx-checksumming",
        "scatter-gather",
    ];
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let off = lines.filter(|(name, value)| {
        wanted.contains(&name.trim()) && value.starts_with("off") && !value.contains("[fixed]")
    });
    off.map(|(name, _)| name.trim().to_owned()).collect()
}

/// Free bytes where the folder is, or where it would be made.
fn free(dir: &Path) -> Option<u64> {
    let existing = dir.ancestors().find(|it| it.is_dir())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let line = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        let route = route_v4(line).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(route, ("192.0.2.0".parse().unwrap(), 24, "eth0".to_owned()));
        }
        let line = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0";
        let route = route_v6(line).unwrap();
        assert_eq!(route, ("fd00::".parse().unwrap(), 64, "eth0".to_owned()));
        assert_eq!(route_v4("Iface Destination"), None);
        assert_eq!(route_v6(""), None);
    }

    #[test]
    fn features_that_can_be_switched_on_and_are_off_are_found() {
        let text = "Features for eth0:\nrx-checksumming: on\ntx-checksumming: off\n\
                    scatter-gather: off [fixed]\ngeneric-receive-offload: off\n";
        assert_eq!(
            features_in(text),
            ["tx-checksumming", "generic-receive-offload"]
        );
    }
}
