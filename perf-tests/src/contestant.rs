//! Who takes part in a comparison: names as the operator writes them, programs as the lab runs them, and how to
//! get a program that is not here.
//!
//! A program whose socket buffers can be set takes part twice, at its defaults and at equal buffers, because
//! buffers explain much of a result: `nebula-aes` and `nebula-aes@4M`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::nebula::{Cipher, find_cert_tool};
use crate::program::{GatewayConfig, Program, find_on_path};

/// A program with the socket buffers it runs at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// The program.
    pub program: Program,
    /// Its socket buffers in KiB; `None` for its defaults.
    pub socket_buffer_kib: Option<u32>,
    /// Uplinks of each site that it uses, every pair of them a path with probes; 1 leaves the choice to the routes.
    pub uplinks: u8,
}

/// Everybody who takes part, and who could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Patronus first; at equal buffers too where a peer runs at them.
    pub contestants: Vec<Contestant>,
    /// Peers that were asked for and not found, and how to get each.
    pub absent: BTreeMap<String, String>,
}

impl Contestant {
    /// A program at its defaults.
    pub fn at_defaults(program: Program) -> Self {
        Self {
            program,
            socket_buffer_kib: None,
            uplinks: 1,
        }
    }

    /// The name in tables: the program's, with `@4M` at equal buffers and `+2up` on two uplinks.
    pub fn name(&self) -> String {
        let mut name = self.program.name().to_owned();
        if let Some(kib) = self.socket_buffer_kib {
            name += &format!("@{}M", kib >> 10);
        }
        if self.uplinks > 1 {
            name += &format!("+{}up", self.uplinks);
        }
        name
    }

    /// Whether others are measured by it: Patronus on one uplink.
    pub fn is_yardstick(&self) -> bool {
        self.program.is_patronus() && self.uplinks == 1
    }

    /// Writes its socket buffers into a site's configuration.
    pub fn adjust(&self, config: &mut GatewayConfig) {
        config.socket_buffer_kib = self.socket_buffer_kib;
    }
}

impl Field {
    /// Finds the programs behind the peers' names, each with its path where the operator gave one, else on PATH.
    ///
    /// # Errors
    /// An unknown peer, a buffer setting that a program does not take, a path that leads nowhere.
    pub fn find(patronus: &Path, peers: &[(String, Option<PathBuf>)]) -> Result<Self> {
        let (mut others, mut absent) = (Vec::new(), BTreeMap::new());
        for (asked, path) in peers {
            let (name, buffers) = match asked.split_once('@') {
                None => (asked.as_str(), Buffers::Both),
                Some((name, "default")) => (name, Buffers::Default),
                Some((name, "4M")) => (name, Buffers::Equal),
                Some((name, other)) => {
                    bail!("no peer `{name}@{other}`: write {name}, {name}@default or {name}@4M")
                }
            };
            match find_programs(name, path.clone())? {
                Ok(programs) => {
                    for program in programs {
                        others.extend(buffers.contestants(program)?);
                    }
                }
                Err(how) => {
                    absent.insert(name.to_owned(), how);
                }
            }
        }
        let patronus = Program::Patronus {
            binary: patronus.to_owned(),
        };
        let mut contestants = vec![Contestant::at_defaults(patronus.clone())];
        if others.iter().any(|other| other.socket_buffer_kib.is_some()) {
            contestants.push(Contestant {
                socket_buffer_kib: Some(EQUAL_BUFFER_KIB),
                ..Contestant::at_defaults(patronus)
            });
        }
        for other in others {
            if !contestants.contains(&other) {
                contestants.push(other);
            }
        }
        Ok(Self {
            contestants,
            absent,
        })
    }
}

impl Field {
    /// Has Patronus take part on that many uplinks as well, right after itself on one.
    pub fn add_uplinks(&mut self, uplinks: u8) {
        let Some(own) = self.contestants.iter().find(|it| it.is_yardstick()) else {
            return;
        };
        let multihomed = Contestant {
            uplinks,
            ..own.clone()
        };
        self.contestants.insert(1, multihomed);
    }
}

/// At which socket buffers a peer takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffers {
    Default,
    Equal,
    /// At its defaults, and at equal ones if it takes any.
    Both,
}

impl Buffers {
    fn contestants(self, program: Program) -> Result<Vec<Contestant>> {
        let takes = program.takes_socket_buffer();
        ensure!(
            takes || self != Self::Equal,
            "{} takes no socket buffer size: leave @4M away",
            program.name()
        );
        let equal = Contestant {
            socket_buffer_kib: Some(EQUAL_BUFFER_KIB),
            ..Contestant::at_defaults(program.clone())
        };
        let default = Contestant::at_defaults(program);
        Ok(match self {
            Self::Default => vec![default],
            Self::Equal => vec![equal],
            Self::Both if takes => vec![default, equal],
            Self::Both => vec![default],
        })
    }
}

/// The programs behind a peer's name, or how to get them.
fn find_programs(name: &str, path: Option<PathBuf>) -> Result<Result<Vec<Program>, String>> {
    let ciphers: &[Cipher] = match name {
        "nebula" => &[Cipher::Aes, Cipher::ChaChaPoly],
        "nebula-aes" => &[Cipher::Aes],
        "nebula-chacha" => &[Cipher::ChaChaPoly],
        _ => &[],
    };
    let (file, how) = match name {
        "boringtun" => ("boringtun-cli", "`cargo install boringtun-cli`"),
        "gotatun" => ("gotatun", "`cargo install gotatun-cli`"),
        "wireguard-go" => (
            "wireguard-go",
            "`apt install wireguard-go` (old), or for one with offloads \
             `git clone https://git.zx2c4.com/wireguard-go && make -C wireguard-go`",
        ),
        _ if !ciphers.is_empty() => (
            "nebula",
            "`go install github.com/slackhq/nebula/cmd/nebula@latest \
             github.com/slackhq/nebula/cmd/nebula-cert@latest`, or `apt install nebula` (old); keep nebula-cert \
             beside it",
        ),
        _ => bail!("no peer `{name}`: this lab can drive {}", PEERS.join(", ")),
    };
    if let Some(path) = &path {
        ensure!(
            path.exists(),
            "--peer-path {name}={}: no such file",
            path.display()
        );
    }
    let absent = || format!("{how}; then put it on PATH or pass `--peer-path {name}=PATH`");
    let Some(binary) = path.or_else(|| find_on_path(file)) else {
        return Ok(Err(absent()));
    };
    if !ciphers.is_empty() && find_cert_tool(&binary).is_none() {
        return Ok(Err(format!(
            "{} is there, nebula-cert is not: put it beside",
            binary.display()
        )));
    }
    Ok(Ok(match name {
        "boringtun" => vec![Program::BoringtunCli { binary }],
        "gotatun" => vec![Program::Gotatun { binary }],
        "wireguard-go" => vec![Program::WireguardGo { binary }],
        _ => ciphers
            .iter()
            .map(|&cipher| Program::Nebula {
                binary: binary.clone(),
                cipher,
            })
            .collect(),
    }))
}

/// The peers that this lab can drive; `nebula` stands for both of its ciphers.
pub const PEERS: [&str; 6] = [
    "boringtun",
    "gotatun",
    "wireguard-go",
    "nebula",
    "nebula-aes",
    "nebula-chacha",
];
/// The socket buffers at which programs are compared as equals, in KiB.
pub const EQUAL_BUFFER_KIB: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(field: &Field) -> Vec<String> {
        field.contestants.iter().map(Contestant::name).collect()
    }

    fn field(peers: &[&str]) -> Result<Field> {
        let sh = || Some(PathBuf::from("/bin/sh"));
        let peers: Vec<_> = peers.iter().map(|peer| (peer.to_string(), sh())).collect();
        Field::find(Path::new("/bin/patronus"), &peers)
    }

    #[test]
    fn a_peer_without_buffers_to_set_meets_patronus_at_defaults_only() {
        let found = field(&["gotatun", "boringtun", "gotatun"]).unwrap();
        assert_eq!(names(&found), ["patronus", "gotatun", "boringtun"]);
        let error = field(&["boringtun@4M"]).unwrap_err().to_string();
        assert!(
            error.contains("boringtun takes no socket buffer size"),
            "{error}"
        );
    }

    #[test]
    fn nebula_is_two_programs_at_two_buffer_sizes_and_patronus_follows() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["nebula", "nebula-cert"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let find = |name: &str| {
            let peer = (name.to_owned(), Some(dir.path().join("nebula")));
            names(&Field::find(Path::new("/bin/patronus"), &[peer]).unwrap())
        };
        assert_eq!(
            find("nebula"),
            [
                "patronus",
                "patronus@4M",
                "nebula-aes",
                "nebula-aes@4M",
                "nebula-chacha",
                "nebula-chacha@4M"
            ]
        );
        assert_eq!(
            find("nebula-aes@4M"),
            ["patronus", "patronus@4M", "nebula-aes@4M"]
        );
        assert_eq!(find("nebula-chacha@default"), ["patronus", "nebula-chacha"]);
    }

    #[test]
    fn an_unknown_peer_is_refused_and_a_wrong_path_named() {
        let error = field(&["openvpn"]).unwrap_err().to_string();
        assert!(
            error.contains("boringtun, gotatun, wireguard-go"),
            "{error}"
        );
        let error = field(&["gotatun@9M"]).unwrap_err().to_string();
        assert!(error.contains("gotatun@default or gotatun@4M"), "{error}");
        let error = find_programs("boringtun", Some("/no/such".into()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--peer-path boringtun=/no/such"), "{error}");
    }

    #[test]
    fn a_nebula_without_its_certificate_tool_is_absent_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("nebula");
        std::fs::write(&binary, "").unwrap();
        if find_on_path("nebula-cert").is_some() {
            return;
        }
        let found = Field::find(
            Path::new("/bin/patronus"),
            &[("nebula".to_owned(), Some(binary))],
        )
        .unwrap();
        assert_eq!(names(&found), ["patronus"]);
        assert!(found.absent["nebula"].contains("nebula-cert is not"));
    }
}
