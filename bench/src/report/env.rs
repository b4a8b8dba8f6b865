//! Where a benchmark ran, as far as a program can see it without privilege.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

/// The machine, the program and its compiler.
#[derive(Clone, Debug, Serialize)]
pub struct Env {
    /// The command line that repeats the run.
    pub command: String,
    /// As the processor calls itself.
    pub cpu_model: String,
    /// MHz as `/proc/cpuinfo` has it: in a virtual machine the nominal clock, whatever the real one.
    pub cpu_mhz: Option<f64>,
    /// The flags that ciphers choose by, and `hypervisor`.
    pub cpu_flags: Vec<String>,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Release of the running kernel.
    pub kernel: String,
    /// Runnable tasks over the last minute when the run began: what competed for the processors.
    pub load_1m: Option<f64>,
    /// Version of this program.
    pub version: &'static str,
    /// The compiler that built it.
    pub rustc: &'static str,
    /// `release`, or `debug` for a build without optimisation, whose figures mean nothing.
    pub profile: &'static str,
    /// The working tree around the program's file, as it was when the run began.
    pub git: Option<Git>,
}

/// The state of a working tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Git {
    /// Its commit.
    pub commit: String,
    /// Whether tracked files differ from it.
    pub dirty: bool,
}

impl Env {
    /// Looks around.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn read(command: &str) -> Result<Self> {
        let cpuinfo = read_text("/proc/cpuinfo")?;
        let field = |name: &str| field(&cpuinfo, name);
        let flags = field("flags").or_else(|| field("Features"));
        let flags = flags.unwrap_or_default();
        Ok(Self {
            command: command.to_owned(),
            cpu_model: field("model name").unwrap_or("not said").to_owned(),
            cpu_mhz: field("cpu MHz").and_then(|text| text.parse().ok()),
            cpu_flags: flags
                .split_whitespace()
                .filter(|flag| FLAGS.contains(flag))
                .map(str::to_owned)
                .collect(),
            cpus: std::thread::available_parallelism()
                .context("counting the processors this process may use")?
                .get(),
            kernel: read_text("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_1m: read_text("/proc/loadavg")
                .ok()
                .and_then(|text| text.split_whitespace().next()?.parse().ok()),
            version: env!("CARGO_PKG_VERSION"),
            rustc: env!("PATRONUS_RUSTC"),
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            git: git(),
        })
    }

    /// The lines of the human form, name and text.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mhz = self.cpu_mhz.map_or(String::new(), |mhz| {
            format!(", {mhz:.0} MHz by /proc/cpuinfo")
        });
        let load = self
            .load_1m
            .map_or(String::new(), |load| format!(", load {load:.2}"));
        let git = match &self.git {
            Some(git) if git.dirty => format!(", git {} (dirty)", git.commit),
            Some(git) => format!(", git {}", git.commit),
            None => String::new(),
        };
        vec![
            ("command", self.command.clone()),
            (
                "host",
                format!("{} CPUs, {}{mhz}{load}", self.cpus, self.cpu_model),
            ),
            ("flags", self.cpu_flags.join(" ")),
            (
                "build",
                format!(
                    "patronus {}{git}, {}, {}, Linux {}",
                    self.version, self.profile, self.rustc, self.kernel
                ),
            ),
        ]
    }
}

/// The first value of a field of `/proc/cpuinfo`.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// The tree that holds the program; a program that was installed elsewhere has none.
fn git() -> Option<Git> {
    let exe = std::env::current_exe().ok()?;
    let dir: &Path = exe.parent()?;
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(args)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    Some(Git {
        commit: git(&["rev-parse", "--short", "HEAD"])?,
        dirty: !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty(),
    })
}

fn read_text(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

/// What `ring` and the kernel choose code by.
const FLAGS: &[&str] = &[
    "adx",
    "aes",
    "asimd",
    "avx",
    "avx2",
    "avx512f",
    "avx512_ifma",
    "bmi2",
    "hypervisor",
    "sha_ni",
    "sse4_1",
    "ssse3",
    "vaes",
    "vpclmulqdq",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Xeon: 9\ncpu MHz\t\t: 2600.000\n";
        assert_eq!(field(text, "model name"), Some("Xeon: 9"));
        assert_eq!(field(text, "model"), Some("143"));
        assert_eq!(field(text, "mode"), None);
    }

    #[test]
    fn this_machine_says_where_it_is() {
        let env = Env::read("patronus bench x").unwrap();
        assert!(env.cpus > 0 && !env.kernel.is_empty());
        assert!(env.rustc.starts_with("rustc "), "{}", env.rustc);
    }
}
