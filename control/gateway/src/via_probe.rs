//! Asks prefixes behind peers whether they answer: pings from the tunnel's own address through the tunnel interface, the
//! way that the site's packets take.
//!
//! A task of its own on the control thread. It reads what control has published, tells the daemon what is news and the
//! [`PathDesk`] how checks stand. No worker waits for it.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};
use patronus_config::WhenUnreachable;
use patronus_packet::checksum;
use patronus_packet::parse::{ICMP, ICMPV6};
use patronus_path::PathState;
use patronus_policy::model::Connection;
use tokio::sync::{Notify, mpsc};

use crate::api::{ApiState, Live};
use crate::path_desk::PathDesk;
use crate::registry::MarkedPrefix;
use crate::via::{Check, Checks, Hold, SESSION_LIFE, ViaNews, ViaState};

/// What the daemon is told.
#[derive(Debug)]
pub struct ViaTold {
    /// What changed.
    pub news: Vec<ViaNews>,
    /// The prefixes that do not answer and whose packets are to take a detour: all there are.
    pub marked: Vec<MarkedPrefix>,
}

/// What the task works with.
pub struct ViaTask {
    /// What control publishes.
    pub state: Arc<ApiState>,
    /// Where paths stand, and where checks are shown.
    pub desk: Arc<PathDesk>,
    /// The tunnel interface.
    pub interface: String,
    /// Wakes when something was published.
    pub published: Arc<Notify>,
    /// To the daemon.
    pub told: mpsc::Sender<ViaTold>,
    /// Tells our pings from others.
    pub cookie: u64,
}

impl ViaTask {
    /// Asks and listens until the daemon ends.
    pub async fn run(self) {
        let mut checks = Checks::default();
        let mut sockets = Sockets::new(self.interface.clone(), self.cookie);
        let mut marked = Vec::new();
        loop {
            let live = self.state.live();
            checks.configure(&live.via, Instant::now());
            let heard = tokio::select! {
                () = self.published.notified() => None,
                () = sleep_until(checks.next_due()) => None,
                from = sockets.heard() => Some(from),
            };
            let now = Instant::now();
            let mut news = Vec::new();
            match heard {
                Some(from) => checks.heard(from, now),
                None => {
                    let live = self.state.live();
                    checks.configure(&live.via, now);
                    for from in sockets.unheard() {
                        checks.heard(from, now);
                    }
                    sockets.follow(&live.via.own_addrs, &checks);
                    for at in checks.due(now) {
                        if let Some(check) = checks.get_mut(at) {
                            let hold = hold(&live, &self.desk, check);
                            news.extend(check.settle(hold, now));
                            if check.hold != Some(Hold::Policy) {
                                let outcome = sockets.ask(check);
                                check.asked(outcome);
                            }
                        }
                    }
                    self.desk.set_vias(checks.iter());
                }
            }
            let are_marked = marked_of(&checks);
            if (!news.is_empty() || are_marked != marked)
                && self.told.send(told(news, &are_marked)).await.is_err()
            {
                return;
            }
            marked = are_marked;
        }
    }
}

fn told(news: Vec<ViaNews>, marked: &[MarkedPrefix]) -> ViaTold {
    ViaTold {
        news,
        marked: marked.to_vec(),
    }
}

fn marked_of(checks: &Checks) -> Vec<MarkedPrefix> {
    let marked = checks.iter().filter(|check| {
        check.state == ViaState::Unreachable && check.via.unreachable == WhenUnreachable::Detour
    });
    let marked = marked.map(|check| MarkedPrefix {
        peer: check.peer,
        prefix: check.via.prefix,
        probes: check.via.probes.clone(),
    });
    marked.collect()
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Why a question would say nothing about the prefix.
fn hold(live: &Live, desk: &PathDesk, check: &Check) -> Option<Hold> {
    let Some(spec) = live.snapshot.peer_by_key(&check.peer) else {
        return Some(Hold::NoPath);
    };
    let is_up = match desk.workers().is_answered(spec) {
        true => {
            let paths = desk.workers().paths(spec);
            paths.iter().any(|path| path.state == PathState::Up)
        }
        // Nobody measures paths to other makes of WireGuard.
        false => {
            let at = spec.stats.last_handshake();
            at.is_some_and(|at| (live.snapshot.epoch() + at).elapsed() < SESSION_LIFE)
        }
    };
    if !is_up {
        return Some(Hold::NoPath);
    }
    let is_v6 = check.via.prefix.addr().is_ipv6();
    let own = live.via.own_addrs.iter().find(|it| it.is_ipv6() == is_v6);
    let is_denied = |to: &IpAddr| {
        own.is_some_and(|own| {
            let question = Connection {
                src: *own,
                dst: *to,
                protocol: if is_v6 { ICMPV6 } else { ICMP },
                dst_port: 0,
            };
            !live.policy.table.judge(&question).allow
        })
    };
    let are_denied = live.policy.has_policy && check.via.probes.iter().all(is_denied);
    are_denied.then_some(Hold::Policy)
}

/// The sockets to ask by, one per family that is asked.
struct Sockets {
    interface: String,
    cookie: u64,
    sequence: u16,
    v4: Option<EchoSocket>,
    v6: Option<EchoSocket>,
    /// Why a family has none.
    faults: [Option<String>; 2],
}

impl Sockets {
    fn new(interface: String, cookie: u64) -> Self {
        Self {
            interface,
            cookie,
            sequence: 0,
            v4: None,
            v6: None,
            faults: [None, None],
        }
    }

    /// Opens what checks need, from our addresses as they are; closes what nobody needs.
    fn follow(&mut self, own: &[IpAddr], checks: &Checks) {
        for is_v6 in [false, true] {
            let mut asked = checks.iter();
            let is_asked = asked.any(|check| check.via.prefix.addr().is_ipv6() == is_v6);
            let source = own.iter().copied().find(|it| it.is_ipv6() == is_v6);
            let place = if is_v6 { &mut self.v6 } else { &mut self.v4 };
            let Some(source) = source.filter(|_| is_asked) else {
                *place = None;
                continue;
            };
            if place.as_ref().is_some_and(|it| it.source == source) {
                continue;
            }
            *place = None;
            self.faults[usize::from(is_v6)] = match EchoSocket::open(&self.interface, source) {
                Ok(socket) => {
                    *place = Some(socket);
                    None
                }
                Err(error) => Some(format!("no socket for pings from {source}: {error}")),
            };
        }
    }

    /// Asks every machine of a check; one question that went out is enough.
    fn ask(&mut self, check: &Check) -> Result<(), String> {
        let is_v6 = check.via.prefix.addr().is_ipv6();
        let socket = if is_v6 { &self.v6 } else { &self.v4 };
        let Some(socket) = socket else {
            let fault = self.faults[usize::from(is_v6)].clone();
            return Err(
                fault.unwrap_or_else(|| "the tunnel has no address of its family".to_owned())
            );
        };
        let mut outcome = Err("nobody to ask".to_owned());
        for to in &check.via.probes {
            self.sequence = self.sequence.wrapping_add(1);
            match socket.send(*to, self.sequence, self.cookie) {
                Ok(()) => outcome = Ok(()),
                Err(error) if outcome.is_err() => outcome = Err(format!("ping to {to}: {error}")),
                Err(_) => {}
            }
        }
        outcome
    }

    /// Who answered meanwhile.
    fn unheard(&self) -> Vec<IpAddr> {
        let sockets = self.v4.iter().chain(&self.v6);
        sockets.flat_map(|it| it.unheard(self.cookie)).collect()
    }

    /// Waits for an answer to one of our pings.
    async fn heard(&self) -> IpAddr {
        tokio::select! {
            from = heard_by(self.v4.as_ref(), self.cookie) => from,
            from = heard_by(self.v6.as_ref(), self.cookie) => from,
        }
    }
}

async fn heard_by(socket: Option<&EchoSocket>, cookie: u64) -> IpAddr {
    match socket {
        Some(socket) => socket.heard(cookie).await,
        None => std::future::pending().await,
    }
}

/// A raw socket for ICMP echoes, bound to the tunnel interface and to our address there: it sees nothing else. Its
/// descriptor is handled as that of a UDP socket, which is read and written by the same calls.
struct EchoSocket {
    sender: std::net::UdpSocket,
    receiver: tokio::net::UdpSocket,
    source: IpAddr,
}

impl EchoSocket {
    fn open(interface: &str, source: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match source {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Raw, flags, protocol)?;
        setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface))?;
        let at = SockaddrStorage::from(SocketAddr::new(source, 0));
        bind(fd.as_raw_fd(), &at)?;
        let sender = std::net::UdpSocket::from(fd);
        Ok(Self {
            receiver: tokio::net::UdpSocket::from_std(sender.try_clone()?)?,
            sender,
            source,
        })
    }

    fn send(&self, to: IpAddr, sequence: u16, cookie: u64) -> io::Result<()> {
        let message = request(to.is_ipv6(), sequence, cookie);
        self.sender.send_to(&message, SocketAddr::new(to, 0))?;
        Ok(())
    }

    async fn heard(&self, cookie: u64) -> IpAddr {
        loop {
            let mut bytes = [0; MESSAGE_LEN_MAX];
            // An error is of one of our pings, "host unreachable" perhaps: no answer either way.
            let Ok((len, from)) = self.receiver.recv_from(&mut bytes).await else {
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            };
            if is_answer(&bytes[..len], from.is_ipv6(), cookie) {
                return from.ip();
            }
        }
    }

    /// Who answered and was not heard yet, because this thread had other things to do.
    fn unheard(&self, cookie: u64) -> Vec<IpAddr> {
        let mut from = Vec::new();
        let mut bytes = [0; MESSAGE_LEN_MAX];
        for _ in 0..UNHEARD_MAX {
            let Ok((len, sender)) = self.sender.recv_from(&mut bytes) else {
                break;
            };
            if is_answer(&bytes[..len], sender.is_ipv6(), cookie) {
                from.push(sender.ip());
            }
        }
        from
    }
}

/// An echo request (RFC 792, RFC 4443 section 4.1). The kernel writes the checksum of one for IPv6.
fn request(is_v6: bool, sequence: u16, cookie: u64) -> [u8; ECHO_LEN] {
    let mut message = [0; ECHO_LEN];
    message[0] = if is_v6 { REQUEST_V6 } else { REQUEST_V4 };
    message[4..6].copy_from_slice(&identifier(cookie).to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..16].copy_from_slice(&cookie.to_be_bytes());
    if !is_v6 {
        let sum = checksum::sum(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Whether a packet answers one of our pings. A raw socket for IPv4 hands out the IP header too.
fn is_answer(bytes: &[u8], is_v6: bool, cookie: u64) -> bool {
    let (bytes, kind) = match is_v6 {
        true => (Some(bytes), ANSWER_V6),
        false => {
            let header = bytes
                .first()
                .map_or(0, |first| usize::from(first & 0xf) * 4);
            (bytes.get(header..), ANSWER_V4)
        }
    };
    let Some(message) = bytes.and_then(|bytes| bytes.get(..ECHO_LEN)) else {
        return false;
    };
    message[0] == kind
        && message[4..6] == identifier(cookie).to_be_bytes()
        && message[8..16] == cookie.to_be_bytes()
}

fn identifier(cookie: u64) -> u16 {
    (cookie >> 48) as u16
}

/// So that an error that stays keeps nobody busy.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// Packets that are looked at before questions are judged.
const UNHEARD_MAX: usize = 1024;
const ECHO_LEN: usize = 16;
/// Room for an answer with the longest IPv4 header.
const MESSAGE_LEN_MAX: usize = 128;
const REQUEST_V4: u8 = 8;
const ANSWER_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const ANSWER_V6: u8 = 129;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_our_own_question_counts() {
        let cookie = 0x1234_5678_9abc_def0;
        let answered = |is_v6: bool| {
            let mut message = request(is_v6, 7, cookie).to_vec();
            message[0] = if is_v6 { ANSWER_V6 } else { ANSWER_V4 };
            match is_v6 {
                true => message,
                false => [&[0x46; 24][..], &message].concat(),
            }
        };
        for is_v6 in [false, true] {
            let answer = answered(is_v6);
            assert!(is_answer(&answer, is_v6, cookie));
            assert!(!is_answer(&answer, is_v6, cookie ^ 1));
            assert!(!is_answer(&answer, is_v6, cookie ^ 1 << 60));
            for len in 0..answer.len() {
                assert!(!is_answer(&answer[..len], is_v6, cookie), "{len}");
            }
            let request = request(is_v6, 7, cookie);
            assert!(!is_answer(&request, is_v6, cookie));
        }
        assert_eq!(checksum::sum(&request(false, 7, cookie)).fold(), 0xffff);
    }
}
