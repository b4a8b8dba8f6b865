//! How busy the machine is while something is measured, read from `/proc` (proc(5), and the kernel's
//! `Documentation/accounting/psi.rst`).

use std::fs;
use std::time::Instant;

use serde::Serialize;

/// Counters of the machine at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    at: Instant,
    /// Ticks of all cores: at work, stolen by the host of a virtual machine, and in all.
    ticks: Option<[u64; 3]>,
    /// Microseconds in which some thread waited for a core.
    waited_us: Option<u64>,
}

/// What a span of time was like: shares from 0 to 1, `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Strain {
    /// Of all cores' time, what was used, by whatever.
    pub busy: Option<f64>,
    /// Of all cores' time, what the host of this virtual machine kept.
    pub stolen: Option<f64>,
    /// Of the time, that in which some thread was ready and had no core.
    pub waited: Option<f64>,
}

impl Machine {
    /// The counters as they are.
    pub fn now() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        Self {
            at: Instant::now(),
            ticks: read("/proc/stat").as_deref().and_then(ticks_of),
            waited_us: read("/proc/pressure/cpu").as_deref().and_then(waited_of),
        }
    }

    /// What it was like from this moment until now.
    pub fn strain(&self) -> Strain {
        self.strain_until(&Self::now())
    }

    fn strain_until(&self, later: &Self) -> Strain {
        let ticks = self.ticks.zip(later.ticks).map(|(before, after)| {
            let grown = |at: usize| after[at].saturating_sub(before[at]) as f64;
            [grown(0), grown(1), grown(2)]
        });
        let ticks = ticks.filter(|[_, _, all]| *all > 0.0);
        let span_us = later.at.saturating_duration_since(self.at).as_micros() as f64;
        let waited = self.waited_us.zip(later.waited_us);
        Strain {
            busy: ticks.map(|[busy, _, all]| busy / all),
            stolen: ticks.map(|[_, stolen, all]| stolen / all),
            waited: waited
                .filter(|_| span_us > 0.0)
                .map(|(before, after)| (after.saturating_sub(before) as f64 / span_us).min(1.0)),
        }
    }
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks_of(text: &str) -> Option<[u64; 3]> {
    let numbers = text.lines().next()?.strip_prefix("cpu ")?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .take(8)
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let [user, nice, system, idle, io_wait, irq, softirq, stolen] = numbers[..] else {
        return None;
    };
    let busy = user + nice + system + irq + softirq;
    Some([busy, stolen, busy + stolen + idle + io_wait])
}

/// `some avg10=… avg60=… avg300=… total=MICROSECONDS`
fn waited_of(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_span_is_described_by_what_counters_grew_by() {
        let at = Instant::now();
        let machine = |after_s, text, waited_us| Machine {
            at: at + Duration::from_secs(after_s),
            ticks: ticks_of(text),
            waited_us,
        };
        let before = machine(0, "cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 1", Some(5));
        let after = machine(10, "cpu  50 5 30 120 5 5 0 5 9 9\ncpu0 1", Some(2_500_005));
        let strain = before.strain_until(&after);
        assert_eq!(strain.busy, Some(0.7));
        assert_eq!(strain.stolen, Some(0.05));
        assert_eq!(strain.waited, Some(0.25));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_not_known() {
        assert_eq!(ticks_of("cpu  1 2 3"), None);
        assert_eq!(
            waited_of("some avg10=0.00 avg60=0.00 avg300=0.00 total=17\nfull avg10=0 total=0"),
            Some(17)
        );
        let nothing = Machine {
            at: Instant::now(),
            ticks: None,
            waited_us: None,
        };
        assert_eq!(nothing.strain_until(&nothing), Strain::default());
    }
}
