//! What this kernel and this process's privilege allow, and why not.

use std::fmt;
use std::fs;

use aya::maps::{Array, MapData, MapError};
use aya::util::KernelVersion;

use crate::hook::Hook;

/// A capability that the pre-filter needs (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// To attach to interfaces.
    NetAdmin,
    /// To load programs that read packets at computed offsets.
    Perfmon,
    /// To make maps and load programs.
    Bpf,
}

/// What can be had here. Probing changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// The running kernel as `(major, minor)`; `None` where it does not say.
    pub kernel: Option<(u16, u16)>,
    /// Capabilities that are needed and missing.
    pub missing: Vec<Capability>,
    /// The kernel's refusal to make a map with one entry, where it refuses.
    pub map_refused: Option<String>,
    /// Whether the kernel describes its own types (BTF). Our programs need no such description: it is for
    /// `bpftool`.
    pub has_kernel_btf: bool,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NetAdmin, Self::Perfmon, Self::Bpf];

    /// Its name as systemd and setcap(8) take it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }

    /// Its bit in `CapEff`.
    fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// CAP_SYS_ADMIN stands for the two that were split from it in Linux 5.8.
    fn is_in(self, effective: u64) -> bool {
        let has = |bit: u32| effective >> bit & 1 == 1;
        has(self.bit()) || self != Self::NetAdmin && has(SYS_ADMIN_BIT)
    }
}

impl Support {
    /// Looks. Never fails: what cannot be found out counts as missing, with the reason.
    pub fn probe() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let effective = effective_capabilities(&status).unwrap_or(0);
        let missing = Capability::ALL
            .into_iter()
            .filter(|capability| !capability.is_in(effective))
            .collect();
        let map_refused = Array::<MapData, u32>::create(1, 0)
            .err()
            .map(|error| refusal_of(&error));
        Self {
            kernel: KernelVersion::current().ok().map(|version| {
                let code = version.code();
                ((code >> 16) as u16, (code >> 8 & 0xff) as u16)
            }),
            missing,
            map_refused,
            has_kernel_btf: fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false),
        }
    }

    /// Why no program can be loaded at all, if so, with the fix.
    pub fn refusal(&self) -> Option<String> {
        if self.kernel.is_some_and(|kernel| kernel < OLDEST) {
            return Some(format!(
                "it needs Linux {}.{}, this is {}",
                OLDEST.0,
                OLDEST.1,
                self.kernel_name()
            ));
        }
        if !self.missing.is_empty() {
            let names: Vec<&str> = self.missing.iter().map(|one| one.as_str()).collect();
            return Some(format!(
                "{} missing: run as root, or grant them (systemd: AmbientCapabilities={})",
                names.join(" and "),
                names.join(" ")
            ));
        }
        self.map_refused.as_ref().map(|cause| {
            format!(
                "{cause}, although the capabilities are there: a seccomp filter, an LSM or kernel lockdown forbids \
                 bpf(2)"
            )
        })
    }

    /// Whether programs can be attached at `hook` here, as far as the kernel goes; the interface may have other views.
    ///
    /// # Errors
    /// Why not, in words for the operator.
    pub fn has(&self, hook: Hook) -> Result<(), String> {
        match self.refusal() {
            Some(why) => Err(why),
            None => self.kernel_has(hook),
        }
    }

    /// Whether the kernel has `hook`, whoever asks.
    ///
    /// # Errors
    /// Since when there is that hook.
    pub fn kernel_has(&self, hook: Hook) -> Result<(), String> {
        let since = since(hook);
        if self.kernel.is_some_and(|kernel| kernel < since) {
            return Err(format!(
                "{hook} needs Linux {}.{}, this is {}",
                since.0,
                since.1,
                self.kernel_name()
            ));
        }
        Ok(())
    }

    fn kernel_name(&self) -> String {
        match self.kernel {
            Some((major, minor)) => format!("{major}.{minor}"),
            None => "unknown".to_owned(),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The `CapEff` line of a `/proc/PID/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn refusal_of(error: &MapError) -> String {
    match error {
        MapError::CreateError { io_error, .. } => format!("making a map: {io_error}"),
        other => other.to_string(),
    }
}

/// Since when our programs load and attach at a hook.
fn since(hook: Hook) -> (u16, u16) {
    match hook {
        // bpf_xdp_load_bytes, bpf_xdp_get_buff_len and frames in several pieces.
        Hook::XdpNative | Hook::XdpGeneric => (5, 18),
        Hook::Tcx => (6, 6),
        Hook::Clsact => OLDEST,
    }
}

/// BPF_CMPXCHG, which the limit of initiations needs.
const OLDEST: (u16, u16) = (5, 12);
const SYS_ADMIN_BIT: u32 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    fn support(kernel: (u16, u16), effective: u64) -> Support {
        Support {
            kernel: Some(kernel),
            missing: Capability::ALL
                .into_iter()
                .filter(|capability| !capability.is_in(effective))
                .collect(),
            map_refused: None,
            has_kernel_btf: true,
        }
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000000c000001000\n";
        assert_eq!(
            effective_capabilities(status),
            Some(1 << 12 | 1 << 38 | 1 << 39)
        );
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_the_fix() {
        let all = 1 << 12 | 1 << 38 | 1 << 39;
        assert_eq!(support((6, 18), all).refusal(), None);
        assert_eq!(
            support((6, 18), 1 << 12 | 1 << SYS_ADMIN_BIT).refusal(),
            None
        );
        let why = support((6, 18), 1 << 12).refusal().unwrap();
        assert_eq!(
            why,
            "CAP_PERFMON and CAP_BPF missing: run as root, or grant them (systemd: AmbientCapabilities=CAP_PERFMON \
             CAP_BPF)"
        );
        let why = support((5, 10), all).refusal().unwrap();
        assert_eq!(why, "it needs Linux 5.12, this is 5.10");
    }

    #[test]
    fn hooks_are_younger_than_the_programs() {
        let all = 1 << 12 | 1 << 38 | 1 << 39;
        let has = |kernel, hook| support(kernel, all).has(hook).is_ok();
        assert!(has((5, 15), Hook::Clsact) && !has((5, 15), Hook::XdpNative));
        assert!(has((6, 1), Hook::XdpNative) && !has((6, 1), Hook::Tcx));
        assert!(has((6, 6), Hook::Tcx) && has((6, 6), Hook::XdpGeneric));
        let unprivileged = support((6, 18), 0);
        assert!(unprivileged.has(Hook::Tcx).is_err());
        assert_eq!(unprivileged.kernel_has(Hook::Tcx), Ok(()));
    }

    #[test]
    fn probing_answers_whoever_asks() {
        let support = Support::probe();
        assert!(support.kernel.is_some());
        if support.missing.is_empty() && support.map_refused.is_none() {
            assert_eq!(support.refusal(), None);
        } else {
            assert!(support.refusal().is_some());
        }
    }
}
