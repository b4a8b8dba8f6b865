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
    /// The same, while as many threads burn as there are cores.
    BlackholeBusy,
    /// The same, for a class whose packets go twice while their path is suspect.
    Protect,
    /// The path in use drops everything from site 1 to site 2.
    OneWay,
    /// The uplink in use at site 1 loses its carrier.
    Carrier,
    /// The uplink in use at site 1 loses its address.
    Address,
    /// The path in use loses 20 % of all packets.
    Brownout20,
    /// The same for a bulk class, where every other path is slower even so.
    Brownout20Bulk,
    /// The path in use takes 300 ms longer.
    LatencyStep,
    /// The path in use gets 60 ms of jitter.
    Jitter60,
    /// Two equal paths, each with a queue that half a second of its rate fills, and a TCP flow that fills it. Nothing
    /// breaks.
    Bufferbloat,
    /// The path in use dies and comes back, again and again: seconds up, seconds down.
    SquareWave(u8, u8),
    /// Nothing breaks, while as many threads burn as there are cores.
    Busy,
    /// An operator drains the path in use.
    Drain,
    /// The gateway of site 2 is killed and started again.
    PeerRestart,
    /// The path in use drops what is larger than 1300 bytes.
    MtuHole,
    /// The path in use drops the data, by its size, and lets smaller and larger probes pass.
    SizeDrop,
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasts {
    /// So long in any case.
    pub least: Duration,
    /// And until traffic is well again, but no longer than this.
    pub most: Duration,
}

impl Lasts {
    const fn ms(least: u64, most: u64) -> Self {
        Self {
            least: Duration::from_millis(least),
            most: Duration::from_millis(most),
        }
    }
}

impl Fault {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 20] = [
        Self::Blackhole,
        Self::BlackholeBusy,
        Self::Protect,
        Self::OneWay,
        Self::Carrier,
        Self::Address,
        Self::Brownout20,
        Self::Brownout20Bulk,
        Self::LatencyStep,
        Self::Jitter60,
        Self::Bufferbloat,
        Self::SquareWave(5, 5),
        Self::SquareWave(15, 5),
        Self::SquareWave(30, 1),
        Self::SquareWave(60, 5),
        Self::Busy,
        Self::Drain,
        Self::PeerRestart,
        Self::MtuHole,
        Self::SizeDrop,
    ];

    /// The name on the command line; one for all square waves.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::BlackholeBusy => "blackhole_busy",
            Self::Protect => "protect",
            Self::OneWay => "one_way",
            Self::Carrier => "carrier",
            Self::Address => "address",
            Self::Brownout20 => "brownout_20",
            Self::Brownout20Bulk => "brownout_20_bulk",
            Self::LatencyStep => "latency_step",
            Self::Jitter60 => "jitter_60",
            Self::Bufferbloat => "bufferbloat",
            Self::SquareWave(..) => "square_wave",
            Self::Busy => "busy",
            Self::Drain => "drain",
            Self::PeerRestart => "peer_restart",
            Self::MtuHole => "mtu_hole",
            Self::SizeDrop => "size_drop",
        }
    }

    /// Whether a bulk TCP flow fills the link beside the numbered packets. Where single losses are counted there is
    /// none: a full queue loses packets of its own.
    pub fn has_bulk(self) -> bool {
        match self {
            Self::Blackhole
            | Self::BlackholeBusy
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::Address
            | Self::Bufferbloat
            | Self::Busy
            | Self::PeerRestart
            | Self::MtuHole => true,
            Self::Brownout20
            | Self::Brownout20Bulk
            | Self::LatencyStep
            | Self::Jitter60
            | Self::SquareWave(..)
            | Self::Drain
            | Self::SizeDrop => false,
        }
    }

    /// Whether the kernel alone cannot do it.
    pub fn needs_emulator(self) -> bool {
        match self {
            Self::Brownout20
            | Self::Brownout20Bulk
            | Self::LatencyStep
            | Self::Jitter60
            | Self::MtuHole
            | Self::SizeDrop => true,
            Self::Blackhole
            | Self::BlackholeBusy
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::Address
            | Self::Bufferbloat
            | Self::SquareWave(..)
            | Self::Busy
            | Self::Drain
            | Self::PeerRestart => false,
        }
    }

    /// Whether gateways remember it longer than a trial may wait.
    pub fn needs_new_gateways(self) -> bool {
        matches!(self, Self::MtuHole | Self::Brownout20Bulk)
    }

    /// Whether all cores are kept busy.
    pub fn burns(self) -> bool {
        matches!(self, Self::BlackholeBusy | Self::Busy)
    }

    /// Whether it is measured once, for as long as the operator says.
    pub fn is_long(self) -> bool {
        matches!(self, Self::SquareWave(..) | Self::Busy)
    }

    /// Whether the packets are to be on another path at its end.
    pub fn must_be_left(self) -> bool {
        match self {
            Self::Blackhole
            | Self::BlackholeBusy
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::Address
            | Self::Brownout20
            | Self::LatencyStep
            | Self::Jitter60
            | Self::Drain
            | Self::SizeDrop => true,
            Self::Brownout20Bulk
            | Self::Bufferbloat
            | Self::SquareWave(..)
            | Self::Busy
            | Self::PeerRestart
            | Self::MtuHole => false,
        }
    }

    /// How long it lasts, where it does not take its own time.
    pub fn lasts(self) -> Lasts {
        match self {
            Self::Blackhole
            | Self::BlackholeBusy
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::Address => Lasts::ms(1000, 4000),
            Self::Brownout20 | Self::LatencyStep | Self::Jitter60 | Self::SizeDrop => {
                Lasts::ms(1500, 8000)
            }
            Self::Brownout20Bulk => Lasts::ms(10_000, 10_000),
            Self::Bufferbloat | Self::SquareWave(..) | Self::Busy => Lasts::ms(0, 0),
            Self::Drain => Lasts::ms(6000, 6000),
            Self::PeerRestart => Lasts::ms(1000, 8000),
            Self::MtuHole => Lasts::ms(4000, 12_000),
        }
    }

    /// A packet that takes longer on its way has not escaped the fault.
    pub fn delay_max_ns(self) -> u64 {
        match self {
            // Half of what the fault adds.
            Self::LatencyStep => 150_000_000,
            // A path takes 5 ms and its queue 20 ms at most; jitter adds 90 ms on average.
            Self::Jitter60 => 60_000_000,
            Self::Blackhole
            | Self::BlackholeBusy
            | Self::Protect
            | Self::OneWay
            | Self::Carrier
            | Self::Address
            | Self::Brownout20
            | Self::Brownout20Bulk
            | Self::Bufferbloat
            | Self::SquareWave(..)
            | Self::Busy
            | Self::Drain
            | Self::PeerRestart
            | Self::MtuHole
            | Self::SizeDrop => u64::MAX,
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

    /// Bytes of UDP payload in each of them.
    pub fn payload_bytes(self) -> usize {
        match self {
            // 988 bytes of IPv4 on the wire.
            Self::SizeDrop => 900,
            _ => VOICE_BYTES,
        }
    }

    /// The class of the numbered packets, and the mark that puts them there: expedited forwarding (RFC 3246), class
    /// selector 1 (RFC 2474), none.
    pub fn class(self) -> (&'static str, u8) {
        match self {
            Self::Brownout20Bulk => ("bulk", 8),
            Self::Bufferbloat => ("default", 0),
            _ => ("realtime", 46),
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

/// A voice packet's worth; 100 bytes of IPv4.
const VOICE_BYTES: usize = 72;

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
            error.contains("one of blackhole, blackhole_busy, protect, one_way"),
            "{error}"
        );
        assert_eq!(Fault::SquareWave(30, 1).to_string(), "square_wave 30/1");
    }

    #[test]
    fn a_fault_lasts_until_traffic_is_well_and_not_for_ever() {
        for fault in Fault::ALL {
            let Lasts { least, most } = fault.lasts();
            assert!(least <= most && most <= Duration::from_secs(15), "{fault}");
            // What is measured once takes its own time.
            assert!(!fault.is_long() || most.is_zero(), "{fault}");
        }
    }
}
