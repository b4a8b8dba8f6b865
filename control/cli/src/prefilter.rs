//! `patronus prefilter`: what the running gateway throws away in the kernel, where, and orders about it.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use patronus_api::{
    BlockListView, Client, PrefilterCommand, PrefilterCommandRequest, PrefilterCountView,
    PrefilterHookView, PrefilterResponse,
};

use crate::gateway::Gateway;
use crate::paths::words::{age, bytes};
use crate::print;

/// The verbs about the pre-filter.
#[derive(Debug, Subcommand)]
pub enum PrefilterVerb {
    /// Tell on which interfaces it is, at which hook, and what it filters by
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Count what became of packets, by reason
    Stats(StatsArgs),
    /// Attach it, or move it to another hook
    #[command(after_help = ATTACH_HELP)]
    Attach(AttachArgs),
    /// Take it off until the next reload or restart
    Detach(DetachArgs),
}

/// The command line of `prefilter show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Print JSON and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `prefilter stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Go on, with what came in each second, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Print JSON and nothing else on standard output; with --watch a document a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `prefilter attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The interface; all that the configuration guards if absent
    interface: Option<String>,
    /// Where on an uplink; as configured if absent
    #[arg(long, value_name = "HOOK", value_parser = ["auto", "xdp", "xdp-generic", "tcx", "clsact"])]
    hook: Option<String>,
    #[command(flatten)]
    order: OrderArgs,
}

/// The command line of `prefilter detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// The interface; all on which it is if absent
    interface: Option<String>,
    #[command(flatten)]
    order: OrderArgs,
}

/// What orders have in common.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// Runs a verb about the pre-filter and says with which code to exit.
pub fn run(verb: &PrefilterVerb) -> anyhow::Result<u8> {
    match verb {
        PrefilterVerb::Show(args) => show(args),
        PrefilterVerb::Stats(args) => stats(args),
        PrefilterVerb::Attach(args) => {
            let request = PrefilterCommandRequest {
                command: PrefilterCommand::Attach,
                interface: args.interface.clone(),
                hook: args.hook.clone(),
                dry_run: args.order.dry_run,
            };
            order(&args.order, &request)
        }
        PrefilterVerb::Detach(args) => {
            let request = PrefilterCommandRequest {
                command: PrefilterCommand::Detach,
                interface: args.interface.clone(),
                hook: None,
                dry_run: args.order.dry_run,
            };
            order(&args.order, &request)
        }
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<u8> {
    let told = args.gateway.connect()?.prefilter()?;
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told)),
    }
    Ok(if is_faulty(&told) { DEGRADED } else { DONE })
}

/// Whether something that the configuration wants is not the case.
fn is_faulty(told: &PrefilterResponse) -> bool {
    told.unavailable.is_some()
        || told.hooks.iter().any(|hook| hook.state.is_fault())
        || told.block_lists.iter().any(|list| list.refused.is_some())
}

fn order(args: &OrderArgs, request: &PrefilterCommandRequest) -> anyhow::Result<u8> {
    let answer = args.gateway.connect()?.prefilter_command(request)?;
    if args.json {
        print::json(&answer)?;
        return Ok(DONE);
    }
    let lead = if answer.done { "done" } else { "would do" };
    let mut text = print::wrapped(&format!("{lead}: {}", answer.text), 4);
    for warning in &answer.warnings {
        text += &print::wrapped(&format!("warning: {warning}"), 4);
    }
    print::text_out(&text);
    Ok(DONE)
}

fn stats(args: &StatsArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    let mut told = client.prefilter()?;
    if !args.watch {
        match args.json {
            true => print::json(&told.counts)?,
            false => print::text_out(&table(&told.counts, None)),
        }
        return Ok(DONE);
    }
    watch(&client, &mut told, args.json)
}

/// A table a second, each in the place of the last one where there is a screen.
fn watch(client: &Client, told: &mut PrefilterResponse, json: bool) -> anyhow::Result<u8> {
    let has_screen = std::io::stdout().is_terminal();
    let mut looked = Instant::now();
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        let before = std::mem::replace(&mut told.counts, client.prefilter()?.counts);
        let seconds = looked.elapsed().as_secs_f64();
        looked = Instant::now();
        if json {
            print::text_out(&(serde_json::to_string(&told.counts)? + "\n"));
            continue;
        }
        let text = table(&told.counts, Some((&before, seconds)));
        print::text_out(&match has_screen {
            // Home, and nothing below.
            true => format!("\u{1b}[H\u{1b}[J{text}"),
            false => text + "\n",
        });
    }
}

fn for_people(told: &PrefilterResponse) -> String {
    let mut text = format!(
        "uplinks: {}, policy in the kernel: {}\n",
        told.wan, told.lan
    );
    if let Some(why) = &told.unavailable {
        text += &print::wrapped(&format!("not available: {why}"), 4);
    }
    for hook in &told.hooks {
        text += &hook_line(hook);
    }
    let limit = format!(
        "initiations: {} a second from one /24 or /64, {} at once",
        told.initiations_per_second, told.initiations_burst
    );
    text += &print::wrapped(&limit, 4);
    let on = |is_on| if is_on { "on" } else { "off" };
    let checks = format!(
        "bogons: {}, known receivers only: {}",
        on(told.bogons),
        on(told.known_receivers)
    );
    text += &print::wrapped(&checks, 4);
    if told.block_lists.is_empty() {
        text += "block lists: none\n";
    }
    for list in &told.block_lists {
        text += &print::wrapped(&list_line(list), 4);
    }
    if let Some(policy) = &told.policy {
        let line = match policy.left_to_workers {
            0 => format!("policy generation {}, all of it", policy.generation),
            count => format!(
                "policy generation {}, {} left to the workers",
                policy.generation,
                print::count(count, "subject", "subjects")
            ),
        };
        text += &print::wrapped(&line, 4);
        for note in &policy.notes {
            text += &print::wrapped(&format!("note: {note}"), 4);
        }
    }
    text
}

fn hook_line(hook: &PrefilterHookView) -> String {
    let mut line = format!(
        "{:<15}  {:<3}  {:<11}  {}",
        hook.interface,
        hook.side.name(),
        hook.hook.as_deref().unwrap_or("-"),
        hook.state.words()
    );
    if let Some(seconds) = hook.attached_s {
        // Writing to a string cannot fail.
        let _ = write!(line, " {} ago", age(seconds as f64));
    }
    line.push('\n');
    if let Some(why) = &hook.why {
        line += &print::wrapped(&format!("    {why}"), 4);
    }
    line
}

fn list_line(list: &BlockListView) -> String {
    let mut line = format!(
        "block list {}: {} IPv4, {} IPv6",
        list.file, list.prefixes_v4, list.prefixes_v6
    );
    if let Some(why) = &list.refused {
        let _ = write!(line, "; the last load was refused: {why}");
    }
    line
}

/// Counts by reason: those that were never counted are left out. With counts of `seconds` before, also what came
/// since then.
fn table(counts: &[PrefilterCountView], before: Option<(&[PrefilterCountView], f64)>) -> String {
    let last = before.map_or("bytes", |_| "packets/s");
    let mut text = format!(
        "{:<4} {:<24} {:<5} {:>18} {:>16}\n",
        "side", "reason", "what", "packets", last
    );
    let is_same = |one: &PrefilterCountView, other: &PrefilterCountView| {
        (one.side, &one.reason) == (other.side, &other.reason)
    };
    let mut rows = 0;
    for count in counts.iter().filter(|count| count.packets > 0) {
        let last = match before {
            None => bytes(count.bytes),
            Some((counts, seconds)) => {
                let old = counts.iter().find(|old| is_same(old, count));
                let new = count.packets - old.map_or(0, |old| old.packets).min(count.packets);
                format!("{:.0}", new as f64 / seconds.max(1e-3))
            }
        };
        let what = if count.is_drop { "drop" } else { "pass" };
        let _ = writeln!(
            text,
            "{:<4} {:<24} {what:<5} {:>18} {last:>16}",
            count.side.name(),
            count.reason,
            count.packets
        );
        rows += 1;
    }
    match rows {
        0 => "no packet yet\n".to_owned(),
        _ => text,
    }
}

/// Done.
const DONE: u8 = 0;
/// Done, but not all is as it should be.
const DEGRADED: u8 = 3;
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

const SHOW_HELP: &str = "\
Exits with 3 where the filter is wanted and not there, or a block list was refused.";

const ATTACH_HELP: &str = "\
Examples:
  patronus prefilter attach
  patronus prefilter attach eth0 --hook xdp

A hook other than the configured one lasts until the next reload or restart.";

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::{PrefilterPolicyView, PrefilterSideView, PrefilterStateView};

    fn told() -> PrefilterResponse {
        let hook =
            |interface: &str, state, hook: Option<&str>, why: Option<&str>| PrefilterHookView {
                interface: interface.to_owned(),
                side: PrefilterSideView::Wan,
                state,
                hook: hook.map(str::to_owned),
                why: why.map(str::to_owned),
                attached_s: hook.map(|_| 200),
            };
        let count = |reason: &str, is_drop, packets| PrefilterCountView {
            side: PrefilterSideView::Wan,
            reason: reason.to_owned(),
            is_drop,
            packets,
            bytes: packets * 100,
        };
        PrefilterResponse {
            wan: "auto".to_owned(),
            lan: "off".to_owned(),
            unavailable: None,
            hooks: vec![
                hook(
                    "eth0",
                    PrefilterStateView::Attached,
                    Some("tcx"),
                    Some(
                        "not xdp: native XDP on a veth device switches segmentation offload off at its peer",
                    ),
                ),
                hook("abcdefghijklmno", PrefilterStateView::Absent, None, None),
            ],
            bogons: false,
            known_receivers: true,
            initiations_per_second: 50,
            initiations_burst: 200,
            block_lists: vec![BlockListView {
                file: "blocked.txt".to_owned(),
                prefixes_v4: 51_000,
                prefixes_v6: 234,
                refused: Some("blocked.txt:7: `10.0.0.0/33` is not a prefix".to_owned()),
            }],
            counts: vec![
                count("pass_data", false, u64::MAX / 200),
                count("drop_bad_type", true, 7),
                count("drop_blocked", true, 0),
            ],
            policy: Some(PrefilterPolicyView {
                generation: 4,
                left_to_workers: 1,
                notes: Vec::new(),
            }),
        }
    }

    #[test]
    fn the_filter_is_told_within_80_columns() {
        let text = for_people(&told());
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        for fragment in [
            "eth0             wan  tcx          attached 3 min ago\n",
            "abcdefghijklmno  wan  -            no such interface\n",
            "initiations: 50 a second from one /24 or /64, 200 at once\n",
            "bogons: off, known receivers only: on\n",
            "block list blocked.txt: 51000 IPv4, 234 IPv6; the last load was refused:\n",
            "policy generation 4, 1 subject left to the workers\n",
        ] {
            assert!(text.contains(fragment), "{fragment}: {text}");
        }
    }

    #[test]
    fn what_is_missing_or_refused_counts_as_degraded() {
        let mut told = told();
        assert!(is_faulty(&told));
        told.hooks.pop();
        assert!(is_faulty(&told), "the list was refused");
        told.block_lists.clear();
        assert!(!is_faulty(&told));
        told.unavailable = Some("no CAP_BPF".to_owned());
        assert!(is_faulty(&told));
    }

    #[test]
    fn counts_are_told_within_80_columns_without_those_of_nothing() {
        let mut told = told();
        let text = table(&told.counts, None);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert_eq!(text.lines().count(), 3, "{text}");
        let before = told.counts.clone();
        told.counts[1].packets += 3000;
        let text = table(&told.counts, Some((&before, 2.0)));
        let line = text.lines().find(|line| line.contains("drop_bad_type"));
        assert!(line.unwrap().ends_with(" 1500"), "{text}");
        assert_eq!(table(&[], None), "no packet yet\n");
    }
}
