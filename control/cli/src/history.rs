//! `patronus history`: how things went in the last day.

use std::time::Duration;

use clap::Args;
use patronus_api::{HistoryQuery, HistoryResponse, HistorySeriesView, HistoryStateView};

use crate::gateway::Gateway;
use crate::paths::parse_span;
use crate::paths::words::{bytes, utc};
use crate::print;

/// The command line of `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// What: such as path_rtt_ms; without it, what there is
    metric: Option<String>,
    /// How far back: such as 10m, 2h or 1d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_span)]
    since: Duration,
    /// Only series with this label, such as peer=branch
    #[arg(long, value_name = "NAME=VALUE")]
    label: Option<String>,
    /// The most points of a series, by taking means
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=patronus_api::HISTORY_POINTS_MAX as i64))]
    points: u32,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `history --help`.
pub const HELP: &str = "\
Examples:
  patronus history
  patronus history path_rtt_ms --since 12h --label peer=branch
  patronus history site_tx_bps --since 1d --points 8640 --json

The gateway keeps a sample every ten seconds, for a day. Times are UTC, and of the
first sample behind a point.";

/// Tells how it went.
pub fn history(args: &HistoryArgs) -> anyhow::Result<u8> {
    let query = HistoryQuery {
        metric: args.metric.clone(),
        since: Some(args.since.as_secs().max(1)),
        label: args.label.clone(),
        points: Some(args.points as usize),
    };
    let told = args.gateway.connect()?.history(&query)?;
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told)),
    }
    Ok(0)
}

fn for_people(told: &HistoryResponse) -> String {
    let mut text = String::new();
    for metric in &told.metrics {
        text += &format!("{:<17} {:<9} {}\n", metric.name, metric.unit, metric.help);
    }
    if let Some(metric) = &told.metric {
        let head = format!("{} in {}: {}", metric.name, metric.unit, metric.help);
        text += &print::wrapped(&head, 4);
        for series in &told.series {
            text += &of_series(series);
        }
        if told.series.is_empty() {
            text += "nothing was sampled in that time\n";
        }
    }
    text + &print::wrapped(&status(told), 4)
}

fn of_series(series: &HistorySeriesView) -> String {
    let mut text = String::new();
    if !series.labels.is_empty() {
        text += &format!("{}\n", series.labels);
    }
    text += &format!("  {:<20} {:>14} {:>14}\n", "TIME", "MEAN", "MAX");
    for point in &series.points {
        text += &format!(
            "  {:<20} {:>14.3} {:>14.3}\n",
            utc(point.unix_ms),
            point.value,
            point.max
        );
    }
    text
}

fn status(told: &HistoryResponse) -> String {
    let of = &told.status;
    let reason = of.reason.as_deref().unwrap_or_default();
    match of.state {
        HistoryStateView::Off => format!("no history is kept: {reason}"),
        HistoryStateView::Failing => format!("no samples are taken at the moment: {reason}"),
        HistoryStateView::On => {
            let samples = print::count(of.samples as usize, "sample", "samples");
            let lost = match of.dropped {
                0 => String::new(),
                lost => format!(", {lost} lost since the start"),
            };
            format!("{samples} in {}{lost}", bytes(of.bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::{HistoryMetricView, HistoryPointView, HistoryStatusView};

    #[test]
    fn a_series_is_told_point_by_point_in_lines_that_fit() {
        let metric = HistoryMetricView {
            name: "path_rtt_ms".to_owned(),
            unit: "ms".to_owned(),
            help: "Round trip".to_owned(),
        };
        let mut told = HistoryResponse {
            metrics: Vec::new(),
            metric: Some(metric.clone()),
            step_s: 10,
            series: vec![HistorySeriesView {
                labels: "peer=branch,path=fiber>203.0.113.7".to_owned(),
                points: vec![HistoryPointView {
                    unix_ms: 1_796_007_845_000,
                    value: 12.3456,
                    max: 40.0,
                }],
            }],
            status: HistoryStatusView {
                state: HistoryStateView::On,
                samples: 1,
                bytes: 8192,
                dropped: 2,
                ..HistoryStatusView::default()
            },
        };
        assert_eq!(
            for_people(&told),
            "\
path_rtt_ms in ms: Round trip
peer=branch,path=fiber>203.0.113.7
  TIME                           MEAN            MAX
  2026-11-30T03:04:05Z         12.346         40.000
1 sample in 8.19 kB, 2 lost since the start
"
        );
        (told.metrics, told.metric) = (vec![metric], None);
        told.status.state = HistoryStateView::Off;
        told.status.reason = Some("it is off".to_owned());
        assert_eq!(
            for_people(&told),
            "path_rtt_ms       ms        Round trip\nno history is kept: it is off\n"
        );
    }
}
