//! `patronus policy diff`: what a change of policy changes, before it does.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::bail;
use patronus_policy::diff::{
    FlowChange, Matrix, ObjectChange, PROBES_MAX, PairChange, Side, changed_flow, changed_objects,
};
use patronus_policy::model::Connection;
use patronus_policy::view::ExplanationView;
use serde::Serialize;

use super::{DONE, DiffArgs, flows, input, live, print};

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    /// Objects by what happened to them.
    objects: Objects,
    /// Connections that would be cut.
    cut: usize,
    /// Connections that would be let in.
    opened: usize,
    /// The changed flows of a file, or one of each group of everybody with everybody.
    changes: Vec<ChangeView>,
    /// How many more changes there are.
    left_out: usize,
    /// How many connections were judged.
    judged: u64,
    /// Groups of ends that were not compared, to stay within bounds.
    ends_left_out: usize,
}

#[derive(Default, Serialize)]
struct Objects {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

#[derive(Serialize)]
struct ChangeView {
    src: String,
    dst: String,
    /// As `TCP/8000-8999`; empty for a recorded flow.
    ports: Vec<String>,
    /// The new verdict.
    allow: bool,
    old: ExplanationView,
    new: ExplanationView,
}

/// What a comparison found, before it is written.
struct Found {
    objects: Vec<ObjectChange>,
    verdicts: Verdicts,
}

enum Verdicts {
    /// Of these flows.
    Flows {
        judged: u64,
        changes: Vec<FlowChange>,
        left_out: usize,
    },
    /// Of everybody with everybody.
    Matrix(Box<Matrix>),
}

/// Compares two sets of manifests.
pub fn diff(args: &DiffArgs) -> anyhow::Result<u8> {
    let (old, new) = match args.paths.as_slice() {
        [old, new] => (old, new),
        [new] if args.flows.is_none() => return live::diff(args, new),
        _ => bail!("--flows compares two sets of files: write OLD before NEW"),
    };
    let old = input::side(std::slice::from_ref(old))?;
    let new = input::side(std::slice::from_ref(new))?;
    // A flow belongs to whoever has the address today, so names are the old side's.
    let flows = match &args.flows {
        Some(file) => Some(flows::read(file, &old.cluster)?),
        None => None,
    };
    let found = compare(&old, &new, flows.as_deref());
    match args.json {
        true => print::json(&answer(&found))?,
        false => print::text_out(&for_people(&found)),
    }
    Ok(DONE)
}

/// Compares two sides by flows, or everybody with everybody, wherever sides and flows came from.
fn compare(old: &Side, new: &Side, flows: Option<&[Connection]>) -> Found {
    let objects = changed_objects(&old.cluster, &new.cluster);
    let verdicts = match flows {
        None => Verdicts::Matrix(Box::new(Matrix::compare(old, new))),
        Some(flows) => {
            let mut changes = Vec::new();
            let mut left_out = 0;
            for flow in flows {
                match changed_flow(old, new, flow) {
                    Some(_) if changes.len() >= CHANGES_MAX => left_out += 1,
                    Some(change) => changes.push(change),
                    None => {}
                }
            }
            changes.sort_by_key(|it| it.new.verdict.allow);
            Verdicts::Flows {
                judged: flows.len() as u64,
                changes,
                left_out,
            }
        }
    };
    Found { objects, verdicts }
}

fn answer(found: &Found) -> Answer {
    let mut objects = Objects::default();
    for change in &found.objects {
        let (list, object) = match change {
            ObjectChange::Added(it) => (&mut objects.added, it),
            ObjectChange::Removed(it) => (&mut objects.removed, it),
            ObjectChange::Changed(it) => (&mut objects.changed, it),
        };
        list.push(object.to_string());
    }
    let (changes, left_out, judged, ends_left_out) = match &found.verdicts {
        Verdicts::Flows {
            judged,
            changes,
            left_out,
        } => {
            let changes = changes.iter().map(flow_view);
            (changes.collect::<Vec<_>>(), *left_out, *judged, 0)
        }
        Verdicts::Matrix(matrix) => (
            matrix.changes.iter().map(pair_view).collect(),
            matrix.left_out,
            matrix.probes,
            matrix.ends_left_out,
        ),
    };
    let opened = changes.iter().filter(|it| it.allow).count();
    Answer {
        objects,
        cut: changes.len() - opened,
        opened,
        changes,
        left_out,
        judged,
        ends_left_out,
    }
}

fn flow_view(change: &FlowChange) -> ChangeView {
    ChangeView {
        src: change.new.src.to_string(),
        dst: change.new.dst.to_string(),
        ports: Vec::new(),
        allow: change.new.verdict.allow,
        old: (&change.old).into(),
        new: (&change.new).into(),
    }
}

fn pair_view(change: &PairChange) -> ChangeView {
    ChangeView {
        src: change.src.to_string(),
        dst: change.dst.to_string(),
        ports: change.ports.iter().map(ToString::to_string).collect(),
        allow: change.allow,
        old: (&change.old).into(),
        new: (&change.new).into(),
    }
}

fn for_people(found: &Found) -> String {
    let mut text = String::new();
    for change in found.objects.iter().take(LINES_MAX) {
        text += &print::wrapped(&change.to_string(), 4);
    }
    more(&mut text, found.objects.len().saturating_sub(LINES_MAX));
    if found.objects.is_empty() {
        text += "no object changes\n";
    }
    match &found.verdicts {
        Verdicts::Flows {
            judged,
            changes,
            left_out,
        } => {
            for change in changes.iter().take(LINES_MAX) {
                text += &reasons(&change.old.to_string(), &change.new.to_string());
            }
            more(
                &mut text,
                changes.len().saturating_sub(LINES_MAX) + left_out,
            );
            let cut = changes.iter().filter(|it| !it.new.verdict.allow).count();
            text += &verdicts_in_words("flows", *judged, cut, changes.len() - cut);
        }
        Verdicts::Matrix(matrix) => text += &matrix_for_people(matrix),
    }
    text
}

/// Changes of the same ports and verdict on one line: first all sources of a destination, then all destinations of
/// the same sources.
fn matrix_for_people(matrix: &Matrix) -> String {
    let mut by_dst: BTreeMap<(bool, String, String), Vec<&PairChange>> = BTreeMap::new();
    for change in &matrix.changes {
        let key = (change.allow, ports(change), change.dst.to_string());
        by_dst.entry(key).or_default().push(change);
    }
    let mut lines: BTreeMap<(bool, String, String), (&PairChange, Vec<String>)> = BTreeMap::new();
    for ((allow, ports, dst), changes) in by_dst {
        let srcs = listed(changes.iter().map(|it| it.src.to_string()).collect());
        let line = lines.entry((allow, ports, srcs));
        line.or_insert((changes[0], Vec::new())).1.push(dst);
    }
    let mut text = String::new();
    let all = lines.len();
    for ((allow, ports, srcs), (example, dsts)) in lines.into_iter().take(LINES_MAX) {
        let verb = if allow { "opens" } else { "cuts" };
        let line = format!("{verb} {srcs} -> {}: {ports}", listed(dsts));
        text += &print::wrapped(&line, 4);
        let why = decider(&example.old, &example.new, !allow);
        text += &print::wrapped(&format!("    {why}"), 6);
    }
    more(&mut text, all.saturating_sub(LINES_MAX) + matrix.left_out);
    text + &matrix_summary(matrix)
}

fn ports(change: &PairChange) -> String {
    let ports: Vec<String> = change.ports.iter().map(ToString::to_string).collect();
    let dual = [&change.src, &change.dst].map(|it| it.v4.is_some() && it.v6.is_some());
    let family = match change.families {
        [true, false] if dual == [true; 2] => " over IPv4",
        [false, true] if dual == [true; 2] => " over IPv6",
        _ => "",
    };
    format!("{}{family}", ports.join(", "))
}

fn listed(mut names: Vec<String>) -> String {
    let left_out = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    if left_out > 0 {
        names.push(format!("{left_out} more"));
    }
    names.join(", ")
}

fn matrix_summary(matrix: &Matrix) -> String {
    let cut = matrix.changes.iter().filter(|it| !it.allow).count();
    let opened = matrix.changes.len() - cut;
    let mut text = print::wrapped(
        &format!(
            "{} connections judged between {} groups of ends: {cut} pairs cut, {opened} pairs opened",
            matrix.probes, matrix.ends
        ),
        4,
    );
    if matrix.ends_left_out > 0 {
        text += &print::wrapped(
            &format!(
                "cut short: {} groups of ends were left out to judge at most {PROBES_MAX} connections; give --flows \
                 for exact answers",
                matrix.ends_left_out
            ),
            4,
        );
    }
    if !matrix.by_node {
        text += "pods were compared without regard to the node they live on\n";
    }
    text
}

/// The direction that denies: after the change for what is cut, before it for what is opened.
fn decider(
    old: &patronus_policy::Explanation,
    new: &patronus_policy::Explanation,
    is_cut: bool,
) -> String {
    let (told, when) = match is_cut {
        true => (new, "then"),
        false => (old, "so far"),
    };
    let (direction, report) = match told.egress.denies() {
        true => ("egress", &told.egress),
        false => ("ingress", &told.ingress),
    };
    format!("{when} {direction}: {report}")
}

/// The last line about judged flows.
pub fn verdicts_in_words(what: &str, judged: impl Display, cut: usize, opened: usize) -> String {
    let line = format!(
        "{judged} {what} judged: {cut} would be cut, {opened} let in, the others keep their verdict"
    );
    print::wrapped(&line, 4)
}

/// Both stories of a changed flow.
pub fn reasons(old: &str, new: &str) -> String {
    let mut text = String::new();
    for (when, story) in [("before", old), ("after", new)] {
        for (at, line) in story.lines().enumerate() {
            text += &match at {
                0 => print::wrapped(&format!("{when} {line}"), 4),
                _ => print::wrapped(line, 6),
            };
        }
    }
    text
}

/// Says that there is more than people get.
pub fn more(text: &mut String, left_out: usize) {
    if left_out > 0 {
        *text += &format!("and {left_out} more; --json has them\n");
    }
}

/// How many lines of a kind people get.
pub const LINES_MAX: usize = 100;
/// How many sources, or destinations, stand on one line.
const NAMES_MAX: usize = 8;
/// How many changed flows are kept.
const CHANGES_MAX: usize = 10_000;
