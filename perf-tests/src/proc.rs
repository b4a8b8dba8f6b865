//! What the kernel counts about a process and a namespace, read from `/proc` (proc(5)).

use std::fs;

use anyhow::{Context, Result, bail};
use nix::unistd::{SysconfVar, sysconf};

use crate::Namespace;

/// CPU seconds that all threads of a process have used so far, user and system, living and dead.
///
/// # Errors
/// When the process is gone or `/proc` reads otherwise than proc(5) says.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let ticks = ticks_of_stat(&text).with_context(|| format!("{path} is malformed: {text}"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)
        .context("asking for the clock tick")?
        .context("the system has no clock tick")?;
    Ok(ticks as f64 / per_second as f64)
}

/// CPU seconds that the threads of a process that live have used so far, to the nanosecond.
///
/// # Errors
/// When the process is gone, or the kernel keeps no such account.
pub fn thread_seconds(pid: u32) -> Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for thread in fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        let path = thread.with_context(|| format!("reading {folder}"))?.path();
        // One that has just ended is none of them.
        let Ok(text) = fs::read_to_string(path.join("schedstat")) else {
            continue;
        };
        let ns = text.split(' ').next().and_then(|it| it.parse::<u64>().ok());
        sum += ns.with_context(|| format!("{}/schedstat: {text}", path.display()))?;
    }
    Ok(sum as f64 * 1e-9)
}

/// The largest resident set of a process so far, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn rss_max_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no VmHWM line"))? * 1024)
}

/// Whether a process exists and is not merely waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| state_of_stat(&text).is_some_and(|state| state != 'Z' && state != 'X'))
}

/// TCP segments a namespace has sent and the number of them that were retransmissions (RFC 4022's
/// `tcpOutSegs` and `tcpRetransSegs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSegments {
    /// Segments sent, without retransmissions.
    pub sent: u64,
    /// Segments sent again.
    pub retransmitted: u64,
}

impl TcpSegments {
    /// What came since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(earlier.sent),
            retransmitted: self.retransmitted.saturating_sub(earlier.retransmitted),
        }
    }

    /// The sum of two namespaces.
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            retransmitted: self.retransmitted + other.retransmitted,
        }
    }

    /// Retransmissions per segment, 0 where nothing was sent.
    pub fn retransmitted_share(self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => self.retransmitted as f64 / sent as f64,
        }
    }
}

/// Reads a namespace's TCP segment counters.
///
/// # Errors
/// When `/proc/net/snmp` cannot be read or lacks them.
pub fn tcp_segments(namespace: &Namespace) -> Result<TcpSegments> {
    let text = read_snmp(namespace)?;
    Ok(TcpSegments {
        sent: of_snmp(&text, "Tcp", "OutSegs")?,
        retransmitted: of_snmp(&text, "Tcp", "RetransSegs")?,
    })
}

/// Datagrams that sockets of a namespace had no room for so far (`Udp RcvbufErrors`), IPv4.
///
/// # Errors
/// When `/proc/net/snmp` cannot be read or lacks it.
pub fn udp_receive_overflows(namespace: &Namespace) -> Result<u64> {
    of_snmp(&read_snmp(namespace)?, "Udp", "RcvbufErrors")
}

/// Frames that interfaces of a namespace have received so far.
///
/// # Errors
/// When `/proc/net/dev` cannot be read or lacks one of them.
pub fn frames_received(namespace: &Namespace, interfaces: &[String]) -> Result<u64> {
    let path = "/proc/thread-self/net/dev";
    let text = namespace
        .run(|| fs::read_to_string(path))?
        .with_context(|| format!("reading {path} in {}", namespace.label()))?;
    let counts = interfaces.iter().map(|name| {
        frames_of_dev(&text, name).with_context(|| format!("/proc/net/dev has no {name}"))
    });
    counts.sum()
}

/// The second number behind an interface's name.
fn frames_of_dev(text: &str, name: &str) -> Option<u64> {
    let mut rows = text
        .lines()
        .filter_map(|line| line.trim_start().split_once(':'));
    let (_, numbers) = rows.find(|(interface, _)| *interface == name)?;
    numbers.split_whitespace().nth(1)?.parse().ok()
}

fn read_snmp(namespace: &Namespace) -> Result<String> {
    // Not /proc/net: that is the namespace of the thread group's leader.
    let path = "/proc/thread-self/net/snmp";
    namespace
        .run(|| fs::read_to_string(path))?
        .with_context(|| format!("reading {path} in {}", namespace.label()))
}

fn of_snmp(text: &str, protocol: &str, counter: &str) -> Result<u64> {
    let mut rows = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (Some(names), Some(values)) = (rows.next(), rows.next()) else {
        bail!("/proc/net/snmp has no two {protocol} lines");
    };
    names
        .split(' ')
        .zip(values.split(' '))
        .find(|(key, _)| *key == counter)
        .and_then(|(_, value)| value.parse().ok())
        .with_context(|| format!("/proc/net/snmp has no {protocol} {counter}"))
}

/// Fields 14 and 15, utime and stime. The name in field 2 may hold blanks and parentheses.
fn ticks_of_stat(text: &str) -> Option<u64> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    utime.checked_add(stime)
}

fn state_of_stat(text: &str) -> Option<char> {
    let (_, fields) = text.rsplit_once(')')?;
    fields.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_frames_are_found_by_the_whole_name_of_the_interface() {
        let text = "Inter-|   Receive                            |  Transmit\n \
                    face |bytes    packets errs drop|bytes    packets\n\
                    \x20   lo:    1608      20    0    0     1608      20\n\
                    site1u0: 9000 7 0 0 12 3\nsite1u01: 9000 8 0 0 12 3\n";
        assert_eq!(frames_of_dev(text, "site1u0"), Some(7));
        assert_eq!(frames_of_dev(text, "lo"), Some(20));
        assert_eq!(frames_of_dev(text, "site1"), None);
    }

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 1 0 9 0 0\n";
        assert_eq!(ticks_of_stat(text), Some(300));
        assert_eq!(state_of_stat(text), Some('S'));
        assert_eq!(ticks_of_stat("7 (a) S 1"), None);
    }

    #[test]
    fn columns_are_found_by_protocol_and_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: A OutSegs B RetransSegs\nTcp: 1 200 3 4\n\
                    UdpLite: RcvbufErrors\nUdpLite: 9\nUdp: In RcvbufErrors\nUdp: 7 8\n";
        assert_eq!(of_snmp(text, "Tcp", "OutSegs").unwrap(), 200);
        assert_eq!(of_snmp(text, "Tcp", "RetransSegs").unwrap(), 4);
        assert_eq!(of_snmp(text, "Udp", "RcvbufErrors").unwrap(), 8);
        assert!(of_snmp("Tcp: A\n", "Tcp", "A").is_err());
        assert!(of_snmp("Tcp: A\nTcp: 1\n", "Tcp", "B").is_err());
    }

    #[test]
    fn retransmissions_are_a_share_of_what_was_sent() {
        let segments = TcpSegments {
            sent: 200,
            retransmitted: 4,
        };
        assert!((segments.retransmitted_share() - 0.02).abs() < 1e-9);
        assert_eq!(TcpSegments::default().retransmitted_share(), 0.0);
    }

    #[test]
    fn this_process_is_alive_and_has_memory() {
        let pid = std::process::id();
        assert!(is_alive(pid));
        assert!(rss_max_bytes(pid).unwrap() > 1 << 19);
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        assert!(!is_alive(u32::MAX));
    }
}
