//! What a reader needs to know about the machine to doubt a result.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Contestant;

/// The machine a benchmark ran on, and the programs.
#[derive(Clone, Debug, Serialize)]
pub struct Env {
    /// Kernel release.
    pub kernel: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// What `/proc/cpuinfo` calls them.
    pub cpu_model: String,
    /// TCP congestion control of the hosts.
    pub congestion_control: String,
    /// Socket receive buffer of a program that asks for none, in bytes (`net.core.rmem_default`); kernels hide it
    /// from an unprivileged lab.
    pub socket_buffer_default_bytes: Option<u64>,
    /// The most that a program gets without privilege, in bytes (`net.core.rmem_max`).
    pub socket_buffer_max_bytes: Option<u64>,
    /// Each program's path and what it says its version is.
    pub versions: BTreeMap<String, String>,
}

impl Env {
    /// Reads it; `congestion_control` is what the hosts were given, or `None` for the system's.
    ///
    /// # Errors
    /// A file of `/proc` that cannot be read.
    pub fn read(contestants: &[Contestant], congestion_control: Option<&str>) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let versions = contestants.iter().map(|contestant| {
            let program = &contestant.program;
            let version = program
                .version()
                .unwrap_or_else(|| "does not say".to_owned());
            let text = format!("{version} ({})", program.binary().display());
            (program.name().to_owned(), text)
        });
        Ok(Self {
            kernel: read_line("/proc/sys/kernel/osrelease")?,
            cpus: std::thread::available_parallelism()
                .context("counting CPUs")?
                .get(),
            cpu_model: model
                .map_or("not said", |rest| rest.trim_start_matches([' ', '\t', ':']))
                .to_owned(),
            congestion_control: match congestion_control {
                Some(name) => name.to_owned(),
                None => read_line("/proc/sys/net/ipv4/tcp_congestion_control")?,
            },
            socket_buffer_default_bytes: read_number("/proc/sys/net/core/rmem_default"),
            socket_buffer_max_bytes: read_number("/proc/sys/net/core/rmem_max"),
            versions: versions.collect(),
        })
    }
}

fn read_number(path: &str) -> Option<u64> {
    read_line(path).ok()?.parse().ok()
}

fn read_line(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}
