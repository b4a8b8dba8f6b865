//! Prefixes of sources: block lists from files, and the addresses that nobody on the Internet has.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An address block. Bits beyond its length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// No address.
    #[error(
        "`{0}` is no address and no prefix: write 203.0.113.0/24, 2001:db8::/32 or one address"
    )]
    Form(String),
    /// A length that the family does not have.
    #[error("`{text}` is longer than the {bits} bits of its address")]
    TooLong {
        /// What was written.
        text: String,
        /// Bits of the address.
        bits: u8,
    },
    /// Bits are set beyond the length.
    #[error(
        "`{text}` has bits set beyond its length: write {fix}, or the address alone for one host"
    )]
    HostBits {
        /// What was written.
        text: String,
        /// The prefix that was probably meant.
        fix: Prefix,
    },
}

/// Why a list was not read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file cannot be read.
    #[error("the block list {} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A line is no prefix.
    #[error("{}:{line}: {cause}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        cause: PrefixError,
    },
    /// More than the kernel's table takes.
    #[error("the block list {} has more than {max} prefixes: join neighbours, or block by other means", .path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
}

/// What becomes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SourceVerdict {
    /// It passes, whatever shorter prefix says.
    Allowed = 0,
    /// It is on a block list.
    Blocked = 1,
    /// Nobody on the Internet has it.
    Bogon = 2,
}

/// Sources by prefix; the longest that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    entries: Vec<(Prefix, SourceVerdict)>,
}

/// A block of addresses that no packet from the Internet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bogon {
    /// The block as text.
    pub prefix: &'static str,
    /// What it is for, and the RFC that says so.
    pub why: &'static str,
}

impl Prefix {
    /// A prefix by its two parts.
    ///
    /// # Errors
    /// A length that the family does not have, or bits set beyond it.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let text = || format!("{addr}/{len}");
        if len > bits {
            return Err(PrefixError::TooLong { text: text(), bits });
        }
        let fix = Self {
            addr: masked(addr, len),
            len,
        };
        if fix.addr != addr {
            return Err(PrefixError::HostBits { text: text(), fix });
        }
        Ok(fix)
    }

    /// The prefix of `len` bits that `addr` lies in; a longer one than the family has is the address itself.
    pub fn around(addr: IpAddr, len: u8) -> Self {
        let len = len.min(if addr.is_ipv4() { 32 } else { 128 });
        Self {
            addr: masked(addr, len),
            len,
        }
    }

    /// Its first address.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// How many bits it fixes.
    pub fn bits(self) -> u8 {
        self.len
    }

    /// Whether `addr` lies in it.
    pub fn contains(self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && masked(addr, self.len) == self.addr
    }
}

fn masked(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Ipv4Addr::from_bits(addr.to_bits() & mask).into()
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Ipv6Addr::from_bits(addr.to_bits() & mask).into()
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let form = || PrefixError::Form(text.to_owned());
        let Some((addr, len)) = text.split_once('/') else {
            let addr = text.parse().map_err(|_| form())?;
            return Ok(Self::around(addr, u8::MAX));
        };
        let addr = addr.parse().map_err(|_| form())?;
        // `parse` would take a sign.
        if len.is_empty() || len.len() > 3 || !len.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(form());
        }
        let len: u16 = len.parse().map_err(|_| form())?;
        Self::new(addr, u8::try_from(len).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl Sources {
    /// Most prefixes of one list; the kernel keeps about 100 bytes for each.
    pub const MAX: usize = 1_000_000;

    /// Nothing is blocked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds prefixes with one verdict; of the same prefix the last verdict counts.
    pub fn extend(&mut self, prefixes: impl IntoIterator<Item = Prefix>, verdict: SourceVerdict) {
        self.entries
            .extend(prefixes.into_iter().map(|prefix| (prefix, verdict)));
    }

    /// Adds the blocks of [`BOGONS`]. Gateways whose peers or uplinks have private addresses must allow those.
    pub fn add_bogons(&mut self) {
        // A test reads every entry of the list.
        let prefixes = BOGONS.iter().filter_map(|bogon| bogon.prefix.parse().ok());
        self.extend(prefixes, SourceVerdict::Bogon);
    }

    /// Reads a list from a file: one prefix or address a line, IPv4 or IPv6, `#` begins a comment. Prefixes that
    /// others cover, or that come twice, are fine.
    ///
    /// # Errors
    /// The file and the line, with what is wrong; nothing is added then.
    pub fn add_file(&mut self, path: &Path, verdict: SourceVerdict) -> Result<usize, ListError> {
        let text = fs::read_to_string(path).map_err(|source| ListError::Read {
            path: path.to_owned(),
            source,
        })?;
        let prefixes = parse_list(&text).map_err(|(line, cause)| ListError::Line {
            path: path.to_owned(),
            line,
            cause,
        })?;
        let count = prefixes.len();
        if self.entries.len() + count > Self::MAX {
            return Err(ListError::TooMany {
                path: path.to_owned(),
                max: Self::MAX,
            });
        }
        self.extend(prefixes, verdict);
        Ok(count)
    }

    /// All entries in the order they were added.
    pub fn entries(&self) -> &[(Prefix, SourceVerdict)] {
        &self.entries
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries there are, twins included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Reads the lines of a list; the number of the first bad line, from 1.
fn parse_list(text: &str) -> Result<Vec<Prefix>, (usize, PrefixError)> {
    let mut prefixes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            prefixes.push(entry.parse().map_err(|cause| (index + 1, cause))?);
        }
    }
    Ok(prefixes)
}

/// Sources that no packet from the Internet has: the special-purpose registries of RFC 6890 that are not globally
/// reachable, and multicast.
pub const BOGONS: &[Bogon] = &[
    bogon("0.0.0.0/8", "this network (RFC 791)"),
    bogon("10.0.0.0/8", "private use (RFC 1918)"),
    bogon("100.64.0.0/10", "shared by carriers (RFC 6598)"),
    bogon("127.0.0.0/8", "loopback (RFC 1122)"),
    bogon("169.254.0.0/16", "link local (RFC 3927)"),
    bogon("172.16.0.0/12", "private use (RFC 1918)"),
    bogon("192.0.0.0/24", "protocol assignments (RFC 6890)"),
    bogon("192.0.2.0/24", "documentation (RFC 5737)"),
    bogon("192.168.0.0/16", "private use (RFC 1918)"),
    bogon("198.18.0.0/15", "benchmarks (RFC 2544)"),
    bogon("198.51.100.0/24", "documentation (RFC 5737)"),
    bogon("203.0.113.0/24", "documentation (RFC 5737)"),
    bogon("224.0.0.0/4", "multicast (RFC 5771)"),
    bogon("240.0.0.0/4", "reserved and broadcast (RFC 1112, RFC 919)"),
    bogon("::/128", "unspecified (RFC 4291)"),
    bogon("::1/128", "loopback (RFC 4291)"),
    bogon("::ffff:0:0/96", "mapped IPv4 (RFC 4291)"),
    bogon("64:ff9b:1::/48", "local translation (RFC 8215)"),
    bogon("100::/64", "discard only (RFC 6666)"),
    bogon("2001:2::/48", "benchmarks (RFC 5180)"),
    bogon("2001:db8::/32", "documentation (RFC 3849)"),
    bogon("3fff::/20", "documentation (RFC 9637)"),
    bogon("5f00::/16", "segment routing (RFC 9602)"),
    bogon("fc00::/7", "unique local (RFC 4193)"),
    bogon("fe80::/10", "link local (RFC 4291)"),
    bogon("ff00::/8", "multicast (RFC 4291)"),
];

const fn bogon(prefix: &'static str, why: &'static str) -> Bogon {
    Bogon { prefix, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Prefix, PrefixError> {
        text.parse()
    }

    #[test]
    fn prefixes_and_addresses_are_read() {
        for (text, shown) in [
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.7", "203.0.113.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_the_fix() {
        for text in [
            "",
            "x",
            "1.2.3",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "1.2.3.4/8/8",
            "1.2.3.4/1000",
            "::/-1",
            "1.2.3.4 ",
        ] {
            assert!(matches!(parse(text), Err(PrefixError::Form(_))), "{text}");
        }
        assert!(matches!(
            parse("1.2.3.4/33"),
            Err(PrefixError::TooLong { bits: 32, .. })
        ));
        assert!(matches!(
            parse("::/300"),
            Err(PrefixError::TooLong { bits: 128, .. })
        ));
        let error = parse("203.0.113.7/24").unwrap_err().to_string();
        assert!(error.contains("write 203.0.113.0/24"), "{error}");
        let error = parse("2001:db8::1/32").unwrap_err().to_string();
        assert!(error.contains("write 2001:db8::/32"), "{error}");
    }

    #[test]
    fn a_list_has_comments_and_empty_lines() {
        let text =
            "# a list\n\n 203.0.113.0/24 # twice\n203.0.113.0/24\r\n2001:db8::/32\n203.0.113.9";
        let prefixes = parse_list(text).unwrap();
        assert_eq!(prefixes.len(), 4);
        assert_eq!(parse_list("# nothing").unwrap(), []);
        let (line, cause) = parse_list("10.0.0.0/8\n\n# x\n10.0.0.1/8\n").unwrap_err();
        assert_eq!(line, 4);
        assert!(matches!(cause, PrefixError::HostBits { .. }));
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let path = std::env::temp_dir().join(format!("patronus-list-{}", std::process::id()));
        fs::write(&path, "10.0.0.0/8\nfoo\n").unwrap();
        let mut sources = Sources::new();
        let error = sources.add_file(&path, SourceVerdict::Blocked).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(
            error
                .to_string()
                .contains(&format!("{}:2: `foo`", path.display())),
            "{error}"
        );
        assert!(sources.is_empty());
        let error = sources.add_file(&path, SourceVerdict::Blocked).unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }

    #[test]
    fn a_list_of_100_000_lines_is_read_whole() {
        let text: String = (0..100_000u32)
            .map(|n| format!("{}/32\n", Ipv4Addr::from_bits(n << 8)))
            .collect();
        assert_eq!(parse_list(&text).unwrap().len(), 100_000);
    }

    #[test]
    fn every_bogon_is_a_prefix_with_its_rfc() {
        for bogon in BOGONS {
            assert!(parse(bogon.prefix).is_ok(), "{}", bogon.prefix);
            assert!(bogon.why.contains("RFC "), "{}", bogon.why);
        }
        let mut sources = Sources::new();
        sources.add_bogons();
        assert_eq!(sources.len(), BOGONS.len());
    }

    #[test]
    fn a_prefix_contains_its_addresses_and_no_other_family() {
        let prefix = parse("203.0.113.0/25").unwrap();
        assert!(prefix.contains("203.0.113.127".parse().unwrap()));
        assert!(!prefix.contains("203.0.113.128".parse().unwrap()));
        assert!(!parse("0.0.0.0/0").unwrap().contains("::1".parse().unwrap()));
        assert!(parse("::/0").unwrap().contains("ff::1".parse().unwrap()));
    }
}
