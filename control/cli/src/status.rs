//! `patronus status`: what the running gateway is, in a few lines.

use clap::{Args, ValueEnum};
use patronus_api::{GradeView, StatusResponse};

use crate::gateway::Gateway;
use crate::paths::words::age;
use crate::print;

/// The command line of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Exit with 3 unless it is so: the gateway answers (live), its workers run with the newest configuration (startup),
    /// and a tunnel is up as well (ready)
    #[arg(long, value_name = "WHAT")]
    check: Option<Check>,
    #[command(flatten)]
    gateway: Gateway,
}

/// What `--check` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// The gateway answers
    Live,
    /// Its workers run and have the newest configuration
    Startup,
    /// It is started, and a tunnel is up or there is none to bring up
    Ready,
}

/// The command line of `metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `status --help`.
pub const HELP: &str = "\
Exit codes: 0 as it should be, 3 what --check asks is not so, 5 no gateway
answers. Without --check what is wrong is told and the exit code is 0.";

/// Prints the metrics.
pub fn metrics(args: &MetricsArgs) -> anyhow::Result<u8> {
    print::text_out(&args.gateway.connect()?.metrics()?);
    Ok(0)
}

/// Tells what the gateway is.
pub fn status(args: &StatusArgs) -> anyhow::Result<u8> {
    let told = args.gateway.connect()?.status()?;
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told)),
    }
    let health = told.health.unwrap_or_default();
    let is_so = match args.check {
        None | Some(Check::Live) => true,
        Some(Check::Startup) => health.is_started,
        Some(Check::Ready) => health.is_ready,
    };
    Ok(if is_so { 0 } else { NOT_WELL })
}

fn for_people(told: &StatusResponse) -> String {
    let head = format!(
        "{}: patronus {}, running for {}, {}",
        told.site,
        told.version,
        age(told.uptime_s as f64),
        print::count(told.workers, "worker", "workers")
    );
    let peers = print::count(told.peers, "peer", "peers");
    let policy = match told.has_policy {
        true => {
            let kinds = told.policy_objects.iter();
            let kinds: Vec<String> = kinds
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            let generation = format!("policy generation {}", told.policy_generation);
            match kinds.is_empty() {
                true => format!("{generation}, no objects"),
                false => format!("{generation}: {}", kinds.join(", ")),
            }
        }
        false => "no policy: everything may pass".to_owned(),
    };
    let mut lines = vec![head, format!("{} of {peers} up", told.peers_up), policy];
    if told.unreachable > 0 {
        let count = print::count(
            told.unreachable,
            "prefix behind a peer does not answer",
            "prefixes behind peers do not answer",
        );
        lines.push(format!("{count}: `patronus paths`"));
    }
    if let Some(prefilter) = &told.prefilter {
        lines.push(match prefilter.dropped {
            0 => format!("pre-filter {}", prefilter.text),
            count => format!("pre-filter {}; {count} dropped", prefilter.text),
        });
    }
    for problem in told.health.iter().flat_map(|it| &it.problems) {
        let word = match problem.grade {
            GradeView::Bad => "problem",
            GradeView::Warning | GradeView::Info | GradeView::Good => "warning",
        };
        lines.push(format!("{word}: {}", problem.text));
    }
    lines.iter().map(|line| print::wrapped(line, 4)).collect()
}

/// It answers, and something is wrong.
const NOT_WELL: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::PrefilterSummary;

    #[test]
    fn a_gateway_is_told_in_four_lines() {
        let mut told = StatusResponse {
            site: "hq".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_s: 7300,
            workers: 2,
            peers: 12,
            peers_up: 11,
            has_policy: true,
            policy_generation: 42,
            policy_objects: [("Pod".to_owned(), 3), ("NetworkPolicy".to_owned(), 1)].into(),
            unreachable: 0,
            prefilter: Some(PrefilterSummary {
                is_complete: true,
                text: "tcx on eth0".to_owned(),
                dropped: 7,
            }),
            health: None,
        };
        assert_eq!(
            for_people(&told),
            "hq: patronus 0.1.0, running for 2 h, 2 workers\n11 of 12 peers up\n\
             policy generation 42: 1 NetworkPolicy, 3 Pod\npre-filter tcx on eth0; 7 dropped\n"
        );
        (told.has_policy, told.peers, told.peers_up) = (false, 1, 0);
        // An older daemon.
        told.prefilter = None;
        assert!(for_people(&told).ends_with("0 of 1 peer up\nno policy: everything may pass\n"));
        told.unreachable = 1;
        let last = "\n1 prefix behind a peer does not answer: `patronus paths`\n";
        assert!(for_people(&told).ends_with(last));
        let problem = patronus_api::ProblemView {
            grade: GradeView::Bad,
            text: "0 of 1 peers up: `patronus peers` lists them".to_owned(),
        };
        told.health = Some(patronus_api::HealthView {
            problems: vec![problem],
            ..patronus_api::HealthView::default()
        });
        assert!(
            for_people(&told)
                .ends_with("\nproblem: 0 of 1 peers up: `patronus peers` lists them\n")
        );
    }
}
