//! The document and the table of `patronus bench handshakes`.

use std::fmt;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::env::Env;
use crate::traffic::initiators::Round;
use crate::{GatewayReport, Packets};

/// What was measured; its JSON form is the document of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct HandshakesReport {
    /// "not a measurement" under `--quick`, otherwise how to read the figures.
    pub note: String,
    /// The machine and the program.
    pub env: Env,
    /// Length of each measured window in seconds.
    pub seconds: f64,
    /// Handshakes per second.
    pub rate: Rate,
    /// One row per kind of flood.
    pub floods: Vec<FloodRow>,
}

/// How fast a gateway completes handshakes as a responder.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Initiators, each a peer with its own key.
    pub initiators: usize,
    /// Initiators of which the gateway itself says that a handshake took place.
    pub confirmed_by_gateway: usize,
    /// Rounds measured; in each, every initiator initiates once.
    pub rounds: usize,
    /// Seconds of all rounds, without the making and checking of messages between them.
    pub seconds: f64,
    /// Initiations sent.
    pub sent: u64,
    /// Handshakes completed, each checked by its initiator.
    pub completed: u64,
    /// Initiations answered with a cookie, warm-up included.
    pub cookies: u64,
    /// Handshakes per second, all rounds together.
    pub handshakes_per_s: f64,
    /// The slowest and the fastest round.
    pub spread_per_s: (f64, f64),
    /// Handshakes per second of every round.
    pub rounds_per_s: Vec<f64>,
    /// CPU of the gateway per handshake in µs; a million divided by it is what one core completes.
    pub cpu_us_per_handshake: f64,
    /// Packet counters of the gateway.
    pub packets: Packets,
    /// Whether they add up.
    pub balanced: bool,
}

/// What strangers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FloodKind {
    /// Initiations to a port where nobody listens: what the flood costs the machine without a gateway.
    ClosedPort,
    /// Initiations that do not know the gateway's public key.
    BadMac,
    /// Initiations that do, from keys that are no peers, each from another address.
    ValidMac,
}

impl FloodKind {
    /// All, the control first.
    pub const ALL: [Self; 3] = [Self::ClosedPort, Self::BadMac, Self::ValidMac];

    /// The name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::ClosedPort => "closed port (control)",
            Self::BadMac => "bad mac1",
            Self::ValidMac => "valid mac1, strangers",
        }
    }
}

/// An established peer before and during a flood.
#[derive(Clone, Debug, Serialize)]
pub struct FloodRow {
    /// What was sent.
    pub kind: FloodKind,
    /// Initiations per second that were really sent.
    pub flood_pps: f64,
    /// Initiations sent.
    pub flood_sent: u64,
    /// How long, warm-up of the second window included.
    pub flood_seconds: f64,
    /// TCP goodput of one flow before the flood.
    pub goodput_before_gbps: f64,
    /// The same during the flood.
    pub goodput_during_gbps: f64,
    /// Echo requests without a reply before.
    pub pings_lost_before: u64,
    /// The same during the flood.
    pub pings_lost_during: u64,
    /// Echo requests during the flood.
    pub pings_during: u64,
    /// Share of TCP segments sent again before.
    pub retransmitted_before: f64,
    /// The same during the flood.
    pub retransmitted_during: f64,
    /// CPU seconds of the attacked gateway while the flood lasted.
    pub attacked_cpu_seconds: f64,
    /// Packet counters of the attacked gateway, from start to end; drops by reason.
    pub packets: Packets,
    /// Whether both gateways account for every packet.
    pub balanced: bool,
}

impl Rate {
    /// Of the measured rounds, the gateway's CPU seconds in them, and its report at the end.
    ///
    /// # Errors
    /// No handshake completed.
    pub(super) fn of(
        initiators: usize,
        confirmed_by_gateway: usize,
        cookies_before: u64,
        rounds: &[Round],
        cpu_seconds: f64,
        report: GatewayReport,
    ) -> Result<Self> {
        let completed: u64 = rounds.iter().map(|round| round.completed).sum();
        let seconds: f64 = rounds.iter().map(|round| round.seconds).sum();
        ensure!(
            completed > 0,
            "no handshake was completed in {} rounds: {rounds:?}",
            rounds.len()
        );
        let per_s = |round: &Round| round.completed as f64 / round.seconds;
        let rounds_per_s: Vec<f64> = rounds.iter().map(per_s).collect();
        let widen = |(min, max): (f64, f64), rate: &f64| (min.min(*rate), max.max(*rate));
        let spread_per_s = rounds_per_s.iter().fold((f64::INFINITY, 0.0), widen);
        Ok(Self {
            initiators,
            confirmed_by_gateway,
            rounds: rounds.len(),
            seconds,
            sent: rounds.iter().map(|round| round.sent).sum(),
            completed,
            cookies: cookies_before + rounds.iter().map(|round| round.cookies).sum::<u64>(),
            handshakes_per_s: completed as f64 / seconds,
            spread_per_s,
            rounds_per_s,
            cpu_us_per_handshake: cpu_seconds * 1e6 / completed as f64,
            balanced: report.balanced && report.packets.is_balanced(),
            packets: report.packets,
        })
    }
}

impl FloodRow {
    /// Share of the goodput that is left during the flood.
    pub fn kept(&self) -> f64 {
        self.goodput_during_gbps / self.goodput_before_gbps
    }
}

impl HandshakesReport {
    /// Whether every gateway accounts for every packet.
    pub fn is_balanced(&self) -> bool {
        self.rate.balanced && self.floods.iter().all(|row| row.balanced)
    }

    fn result_line(&self) -> String {
        let mut line = format!(
            "RESULT    handshakes_per_s={:.0} cpu_us_per_handshake={:.0}",
            self.rate.handshakes_per_s, self.rate.cpu_us_per_handshake
        );
        for row in &self.floods {
            let name = match row.kind {
                FloodKind::ClosedPort => "closed_port",
                FloodKind::BadMac => "bad_mac",
                FloodKind::ValidMac => "valid_mac",
            };
            line += &format!(" kept_{name}={:.3}", row.kept());
        }
        line + " verdict=" + if self.is_balanced() { "pass" } else { "fail" }
    }
}

pub(super) fn note(quick: bool) -> String {
    let text = match quick {
        true => "not a measurement: --quick only shows that the tool works",
        false => {
            "one host: initiators, flood, traffic and gateways share its cores. Initiations are made and answers checked \
             outside the timed rounds. A flood to a closed port costs the machine without touching the gateway: \
             compare the others with it"
        }
    };
    text.to_owned()
}

/// The header, two tables of at most 80 columns, and the line for scripts.
impl fmt::Display for HandshakesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (env, rate) = (&self.env, &self.rate);
        writeln!(
            f,
            "patronus bench handshakes\nhost      {} CPUs, {}, Linux {}",
            env.cpus, env.cpu_model, env.kernel
        )?;
        for (name, version) in &env.versions {
            writeln!(f, "program   {name}: {version}")?;
        }
        writeln!(
            f,
            "method    {} s a window; TCP, 1 flow, {} between the hosts\nnote      {}",
            self.seconds, env.congestion_control, self.note
        )?;
        let (min, max) = rate.spread_per_s;
        writeln!(
            f,
            "\n handshakes a second  {:>9.0}   round by round {min:.0} to {max:.0}",
            rate.handshakes_per_s
        )?;
        writeln!(
            f,
            " gateway CPU each     {:>9.0} µs",
            rate.cpu_us_per_handshake
        )?;
        writeln!(
            f,
            " completed            {:>9}   of {} in {} rounds, {} initiators",
            rate.completed, rate.sent, rate.rounds, rate.initiators
        )?;
        writeln!(
            f,
            " peers with handshake {:>9}   as the gateway says; {} cookies",
            rate.confirmed_by_gateway, rate.cookies
        )?;
        writeln!(
            f,
            "\n                        │   TCP, Gbit/s           │ pings │ CPU s  │\n \
             flood                  │ before  during     kept │  lost │ gateway│ a second"
        )?;
        for row in &self.floods {
            writeln!(
                f,
                " {:<22} │ {:>6.2}  {:>6.2}  {:>5.1} % │ {:>5} │ {:>6.2} │ {:>8.0}",
                row.kind.title(),
                row.goodput_before_gbps,
                row.goodput_during_gbps,
                row.kept() * 100.0,
                row.pings_lost_during,
                row.attacked_cpu_seconds,
                row.flood_pps
            )?;
        }
        let verdict = |balanced| if balanced { "✓" } else { "NOT BALANCED" };
        let parts = std::iter::once(("handshakes", &rate.packets, rate.balanced)).chain(
            self.floods
                .iter()
                .map(|row| (row.kind.title(), &row.packets, row.balanced)),
        );
        for (title, packets, balanced) in parts {
            writeln!(
                f,
                "\n {title}\n balance   rx {} = tx {} + consumed {}\n           + waiting {} + drops {}  {}",
                packets.origins(),
                packets.tx,
                packets.consumed,
                packets.staged,
                packets.drops.values().sum::<u64>(),
                verdict(balanced)
            )?;
            for (reason, count) in &packets.drops {
                writeln!(f, " dropped   {count:>12}  {reason}")?;
            }
        }
        writeln!(f, "\n{}", self.result_line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(balanced: bool) -> GatewayReport {
        GatewayReport {
            packets: Packets {
                rx: 12,
                divided: 0,
                tx: 2,
                consumed: 3,
                drops: [("handshake_bad_mac".to_owned(), 7)].into(),
                ..Packets::default()
            },
            balanced,
            offloads: "full".to_owned(),
            workers: 2,
            worker_panics: 0,
        }
    }

    fn report(balanced: bool) -> HandshakesReport {
        let rounds = [(0.1, 200), (0.3, 300)].map(|(seconds, completed)| Round {
            seconds,
            sent: 300,
            completed,
            cookies: 1,
        });
        let floods = FloodKind::ALL.map(|kind| FloodRow {
            kind,
            flood_pps: 123_456.7,
            flood_sent: 99_999_999,
            flood_seconds: 9.0,
            goodput_before_gbps: 4.0,
            goodput_during_gbps: 3.0,
            pings_lost_before: 0,
            pings_lost_during: 1234,
            pings_during: 2000,
            retransmitted_before: 0.0,
            retransmitted_during: 0.1,
            attacked_cpu_seconds: 123.45,
            packets: gateway(balanced).packets,
            balanced,
        });
        HandshakesReport {
            note: note(true),
            env: Env {
                kernel: "6.18".into(),
                cpus: 2,
                cpu_model: "x".into(),
                congestion_control: "cubic".into(),
                socket_buffer_default_bytes: None,
                socket_buffer_max_bytes: None,
                versions: Default::default(),
            },
            seconds: 0.5,
            rate: Rate::of(300, 300, 5, &rounds, 0.1, gateway(true)).unwrap(),
            floods: floods.to_vec(),
        }
    }

    #[test]
    fn the_rate_is_of_all_rounds_together_with_the_slowest_and_fastest_beside() {
        let rate = report(true).rate;
        assert!((rate.handshakes_per_s - 1250.0).abs() < 1e-9);
        assert_eq!(rate.spread_per_s, (1000.0, 2000.0));
        assert!((rate.cpu_us_per_handshake - 200.0).abs() < 1e-9);
        assert_eq!((rate.sent, rate.completed, rate.cookies), (600, 500, 7));
    }

    #[test]
    fn rounds_without_a_handshake_are_an_error_and_no_zero() {
        let round = Round {
            seconds: 1.0,
            sent: 5,
            ..Round::default()
        };
        let error = Rate::of(5, 0, 0, &[round], 0.0, gateway(true)).unwrap_err();
        assert!(error.to_string().contains("no handshake was completed"));
    }

    #[test]
    fn the_tables_fit_eighty_columns_and_name_every_drop() {
        let text = report(true).to_string();
        for line in text.lines().filter(|line| line.starts_with(' ')) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert_eq!(text.matches("7  handshake_bad_mac").count(), 4);
        assert!(text.contains("not a measurement"));
    }

    #[test]
    fn the_last_line_says_what_is_kept_and_whether_the_packets_add_up() {
        let text = report(false).to_string();
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "RESULT    handshakes_per_s=1250 cpu_us_per_handshake=200 kept_closed_port=0.750 \
             kept_bad_mac=0.750 kept_valid_mac=0.750 verdict=fail"
        );
        let document = serde_json::to_value(report(true)).unwrap();
        assert_eq!(document["floods"][2]["kind"], "valid_mac");
        assert_eq!(
            document["floods"][1]["packets"]["drops"]["handshake_bad_mac"],
            7
        );
    }
}
