//! `patronus capture`: packets inside and outside the tunnel into a file for Wireshark, read by this process from the
//! kernel's packet sockets. The gateway knows nothing of it, and it costs nothing where it does not run.

mod filter;
mod pcapng;

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use patronus_api::Client;
use patronus_config::{Config, Outline};
use serde::Serialize;

use crate::gateway::Gateway;
use crate::paths::parse_span;
use crate::print;
use filter::Filter;
use pcapng::{Direction, Interface, Packet};

/// The command line of `capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Only this peer: its name or its public key
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only this path, such as branch/1; outside the tunnel, since packets inside do not say theirs
    #[arg(long, value_name = "ID", conflicts_with = "peer")]
    path: Option<String>,
    /// Inside the tunnel, outside, or both
    #[arg(long, value_name = "SIDE", default_value = "both")]
    side: Side,
    /// The file, which must not exist yet; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after that many packets
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// End after that time
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    time: Option<Duration>,
    /// Bytes of each packet that are kept
    #[arg(long, value_name = "BYTES", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(64..=262_144))]
    snap: u32,
    /// Print one JSON document about it at the end, on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// Where packets are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// On the tunnel's interface
    Inner,
    /// On the uplinks
    Outer,
    /// Both
    Both,
}

/// The end of `capture --help`.
pub const HELP: &str = "\
Examples:
  patronus capture -w out.pcapng --peer branch --time 10s
  patronus capture -w - --side inner | wireshark -k -i -
  patronus capture -w out.pcapng --path branch/1 -c 1000

Needs CAP_NET_RAW. Inside the tunnel packets are in the clear. Packets that the
kernel carries as one superpacket are written as one. What goes by AF_XDP, or is
dropped by the pre-filter at XDP, is not seen. Each packet has a comment: the
peer, and outside the tunnel the path. Times are those of reading. End it with
Ctrl-C: the file is whole at any time.

Exit codes: 0 packets were captured, 1 cannot capture, 2 usage, 3 nothing came
in the time or until the count, 5 no gateway answers.";

/// What `--json` prints.
#[derive(Serialize)]
struct Captured {
    file: String,
    inner: u64,
    outer: u64,
    /// Packets that were looked at and not wanted.
    skipped: u64,
}

/// Captures.
pub fn capture(args: &CaptureArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    args.gateway.socket()?;
    let filter = wanted(&client, args)?;
    let interfaces = interfaces(&filter)?;
    let packets = packet_socket()?;
    let mut file = create(&args.write)?;
    let site = client.status()?.site;
    file.write_all(&pcapng::head(
        &format!("site {site}, {}", filter.words()),
        &interfaces,
    ))?;
    let mut captured = Captured {
        file: args.write.display().to_string(),
        inner: 0,
        outer: 0,
        skipped: 0,
    };
    let end = args.time.map(|time| Instant::now() + time);
    let mut buffer = vec![0; BUFFER_LEN];
    let is_full = |it: &Captured| args.count.is_some_and(|count| it.inner + it.outer >= count);
    while !is_full(&captured) {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|it| it.is_zero()) {
            break;
        }
        let Some((len, from)) = next(&packets, &mut buffer, left)? else {
            continue;
        };
        let bytes = &buffer[..len];
        let at = interfaces.iter().position(|it| it.index == from.ifindex());
        let interface = at.map(|at| &interfaces[at]);
        let comment = interface.and_then(|it| filter.comment(it, bytes));
        let (Some(at), Some(interface), Some(comment)) = (at, interface, comment) else {
            captured.skipped += 1;
            continue;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let packet = Packet {
            interface: at as u32,
            unix_ns: now.map_or(0, |it| it.as_nanos() as u64),
            bytes,
            snap: args.snap,
            direction: match from.pkttype() {
                libc::PACKET_OUTGOING => Direction::Out,
                _ => Direction::In,
            },
            comment: &comment,
        };
        // A write a packet: the file is whole whenever this is killed.
        if file.write_all(&pcapng::packet(&packet)).is_err() {
            break;
        }
        match interface.is_tunnel {
            true => captured.inner += 1,
            false => captured.outer += 1,
        }
    }
    if args.json && args.write != Path::new("-") {
        print::json(&captured)?;
    } else {
        eprintln!(
            "{}: {} inside and {} outside the tunnel",
            captured.file, captured.inner, captured.outer
        );
    }
    Ok(if captured.inner + captured.outer > 0 {
        0
    } else {
        3
    })
}

/// What of this gateway is wanted.
fn wanted(client: &Client, args: &CaptureArgs) -> anyhow::Result<Filter> {
    let text = client.config_text("running")?.text;
    let draft = Config::parse(&text, "running")?;
    let outline = Outline::new(&draft);
    let path = args.path.as_deref().map(|id| match id.rsplit_once('/') {
        Some((peer, number)) => Ok((peer.to_owned(), number.to_owned())),
        None => bail!("--path {id}: write PEER/NUMBER, as `patronus paths` does"),
    });
    let path = path.transpose()?;
    let peer = args.peer.clone().or(path.as_ref().map(|it| it.0.clone()));
    let mut told = client.paths(peer.as_deref())?.peers;
    if let Some((_, number)) = &path {
        for peer in &mut told {
            let is_it =
                |it: &patronus_api::PathView| it.path.to_string() == *number || it.name == *number;
            peer.paths.retain(is_it);
        }
        if told.iter().all(|it| it.paths.is_empty()) {
            bail!(
                "no path {}: `patronus paths` lists them",
                args.path.as_deref().unwrap_or("")
            );
        }
    }
    let has_path = path.is_some();
    let mut filter = Filter::new(
        &outline,
        has_path || args.side == Side::Outer,
        args.side == Side::Inner,
    );
    for peer in client.peers()?.peers {
        let paths = told.iter().find(|it| it.public_key == peer.public_key);
        if let Some(paths) = paths {
            filter.add(&peer, paths);
        }
    }
    Ok(filter)
}

/// The interfaces to look at, by what the system says of them.
fn interfaces(filter: &Filter) -> anyhow::Result<Vec<Interface>> {
    let mut found = Vec::new();
    // An interface without an address of the link is not listed with one: the tunnel's has none.
    let tunnel = if_nametoindex(filter.tunnel()).ok();
    if let (Some(true), Some(index)) = (filter.side_of(filter.tunnel()), tunnel) {
        found.push(Interface {
            name: filter.tunnel().to_owned(),
            index: index as usize,
            has_ethernet: false,
            is_tunnel: true,
        });
    }
    let links = getifaddrs().context("cannot list interfaces")?;
    for entry in links {
        let Some(false) = filter.side_of(&entry.interface_name) else {
            continue;
        };
        let address = entry.address.as_ref();
        let Some(link) = address.and_then(|it| it.as_link_addr()) else {
            continue;
        };
        let has_ethernet = match link.hatype() {
            ARPHRD_ETHER | ARPHRD_LOOPBACK => true,
            ARPHRD_NONE | ARPHRD_PPP | ARPHRD_RAWIP => false,
            _ => continue,
        };
        found.push(Interface {
            name: entry.interface_name,
            index: link.ifindex(),
            has_ethernet,
            is_tunnel: false,
        });
    }
    match found.is_empty() {
        true => bail!(
            "none of the gateway's interfaces is here: does it run in another network namespace?"
        ),
        false => Ok(found),
    }
}

fn packet_socket() -> anyhow::Result<OwnedFd> {
    let made = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    );
    let made = match made {
        Err(Errno::EPERM | Errno::EACCES) => {
            bail!("this user may not capture: run as root, or give it CAP_NET_RAW")
        }
        other => other.context("cannot open a packet socket")?,
    };
    // What the system grants is enough or not; more cannot be had without privilege.
    let _ = setsockopt(&made, sockopt::RcvBuf, &(8 << 20));
    Ok(made)
}

/// The next packet; `None` where none came for a moment.
fn next(
    packets: &OwnedFd,
    buffer: &mut [u8],
    left: Option<Duration>,
) -> anyhow::Result<Option<(usize, LinkAddr)>> {
    match recvfrom::<LinkAddr>(packets.as_raw_fd(), buffer) {
        Ok((len, Some(from))) => return Ok(Some((len, from))),
        Ok((_, None)) | Err(Errno::EAGAIN | Errno::EINTR) => {}
        // An interface went down.
        Err(Errno::ENETDOWN) => {}
        Err(error) => return Err(error).context("cannot read packets"),
    }
    let moment = left.map_or(MOMENT, |left| left.min(MOMENT));
    let timeout = PollTimeout::try_from(moment).unwrap_or(PollTimeout::ZERO);
    let mut ready = [PollFd::new(packets.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ready, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(None),
        Err(error) => Err(error).context("cannot wait for packets"),
    }
}

fn create(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdout()));
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(path);
    let file = file.with_context(|| format!("cannot make {}", path.display()))?;
    Ok(Box::new(file))
}

/// The longest superpacket, with its header.
const BUFFER_LEN: usize = 256 << 10;
const MOMENT: Duration = Duration::from_millis(200);
/// Kinds of interfaces (`linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_PPP: u16 = 512;
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_NONE: u16 = 0xfffe;
