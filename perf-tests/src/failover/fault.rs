//! The faults, what each is measured by, and what is wanted of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The path in use drops everything, both ways.
    Blackhole,
    /// The same, for a class whose packets go twice while their path is suspect.
    Protect,
    /// The path in use drops everything from site 1 to site 2.
    OneWay,
    /// The uplink in use at site 1 loses its carrier.
    Carrier,
    /// The path in use loses 20 % of all packets.
    Brownout20,
    /// The path in use takes 300 ms longer.
    LatencyStep,
    /// The path in use dies and comes back, again and again: seconds up, seconds down.
    SquareWave(u8, u8),
    /// An operator drains the path in use.
    Drain,
    /// The gateway of site 2 is killed and started again.
    PeerRestart,
    /// The path in use drops what is larger than 1300 bytes.
    MtuHole,
}

impl Fault {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 13] = [
        Self::Blackhole,
        Self::Protect,
        Self::OneWay,
        Self::Carrier,
        Self::Brownout20,
        Self::LatencyStep,
        Self::SquareWave(5, 5),
        Self::SquareWave(15, 5),
        Self::SquareWave(30, 1),
        Self::SquareWave(60, 5),
        Self::Drain,
        Self::PeerRestart,
        Self::MtuHole,
    ];

    /// The name on the command line; one for all square waves.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Protect => "protect",
            Self::OneWay => "one_way",
            Self::Carrier => "carrier",
            Self::Brownout20 => "brownout_20",
            Self::LatencyStep => "latency_step",
            Self::SquareWave(..) => "square_wave",
            Self::Drain => "drain",
            Self::PeerRestart => "peer_restart",
            Self::MtuHole => "mtu_hole",
        }
    }

    /// Whether a bulk TCP flow fills the link beside the numbered packets. Where single losses are counted there is
    /// none: a full queue loses packets of its own.
    pub fn has_bulk(self) -> bool {
        match self {
            Self::Blackhole
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::PeerRestart
            | Self::MtuHole => true,
            Self::Brownout20 | Self::LatencyStep | Self::SquareWave(..) | Self::Drain => false,
        }
    }

    /// Whether the kernel alone cannot do it.
    pub fn needs_emulator(self) -> bool {
        match self {
            Self::Brownout20 | Self::LatencyStep | Self::MtuHole => true,
            Self::Blackhole
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::SquareWave(..)
            | Self::Drain
            | Self::PeerRestart => false,
        }
    }

    /// Whether gateways remember it longer than a trial may wait.
    pub fn needs_new_gateways(self) -> bool {
        self == Self::MtuHole
    }

    /// How long it lasts; a square wave lasts as long as the operator says.
    pub fn lasts(self) -> Duration {
        match self {
            Self::Blackhole | Self::Protect | Self::OneWay | Self::Carrier => {
                Duration::from_millis(1500)
            }
            Self::Brownout20 | Self::LatencyStep => Duration::from_secs(6),
            Self::SquareWave(up_s, down_s) => Duration::from_secs(u64::from(up_s + down_s)),
            Self::Drain => Duration::from_secs(6),
            Self::PeerRestart => Duration::from_secs(4),
            Self::MtuHole => Duration::from_secs(12),
        }
    }

    /// A packet that takes longer on its way has not escaped the fault.
    pub fn delay_max_ns(self) -> u64 {
        match self {
            // Half of what the fault adds.
            Self::LatencyStep => 150_000_000,
            Self::Blackhole
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::Brownout20
            | Self::SquareWave(..)
            | Self::Drain
            | Self::PeerRestart
            | Self::MtuHole => u64::MAX,
        }
    }

    /// Numbered packets per second in each direction.
    pub fn rate_pps(self) -> f64 {
        if self == Self::Drain {
            10_000.0
        } else {
            1000.0
        }
    }

    /// The most switches of a square wave that are allowed in ten minutes: 2·(⌊log₂(U/10)⌋ + 1) + 1 for an up-time U
    /// of ten seconds or more.
    pub fn switches_max(self) -> Option<u32> {
        let Self::SquareWave(up_s, _) = self else {
            return None;
        };
        Some(match up_s / 10 {
            0 => 1,
            tens => 2 * (tens.ilog2() + 1) + 1,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SquareWave(up_s, down_s) => write!(f, "{} {up_s}/{down_s}", self.name()),
            other => f.write_str(other.name()),
        }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One word of `--faults`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultName(pub String);

impl FaultName {
    /// The faults it stands for.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL
            .into_iter()
            .filter(|fault| fault.name() == self.0 || self.0 == "all")
    }
}

impl FromStr for FaultName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = Self(text.to_owned());
        if name.faults().next().is_some() {
            return Ok(name);
        }
        let mut names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        names.dedup();
        Err(format!(
            "no fault `{text}`: one of {}, or all",
            names.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn square_waves_are_allowed_the_switches_of_the_design() {
        let bounds = Fault::ALL.iter().filter_map(|fault| fault.switches_max());
        assert_eq!(bounds.collect::<Vec<_>>(), [1, 3, 5, 7]);
    }

    #[test]
    fn one_word_stands_for_all_square_waves_and_another_for_all_faults() {
        let count = |word: &str| word.parse::<FaultName>().unwrap().faults().count();
        assert_eq!((count("square_wave"), count("carrier")), (4, 1));
        assert_eq!(count("all"), Fault::ALL.len());
        let error = "black hole".parse::<FaultName>().unwrap_err();
        assert!(
            error.contains("one of blackhole, protect, one_way"),
            "{error}"
        );
        assert_eq!(Fault::SquareWave(30, 1).to_string(), "square_wave 30/1");
    }
}
