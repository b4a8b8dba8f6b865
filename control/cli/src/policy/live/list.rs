//! `patronus policy list` without files: what is in force in the running gateway, and what it refused.

use std::collections::BTreeMap;

use patronus_api::{Counter, ModeView, ObjectView, PolicyResponse, RuleView};
use serde::Serialize;

use super::super::{DONE, ListArgs, print};
use super::place;

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    /// Whether the site has a policy at all.
    has_policy: bool,
    /// The generation in force.
    generation: u64,
    /// In the order in which tiers are asked.
    policies: Vec<View<'a>>,
    /// What was refused under no rule that is in force.
    other: Option<Counter>,
    /// What was refused since the start, all rules together.
    total: Counter,
    /// Whose previous version is in force.
    refused: &'a [String],
}

/// A policy.
#[derive(Serialize)]
struct View<'a> {
    tier: &'a str,
    priority: Option<u16>,
    name: String,
    mode: ModeView,
    file: String,
    line: u32,
    rules: Vec<Hits<'a>>,
}

/// A rule, or with number 0 the isolation by its policy, and what it refused.
#[derive(Serialize)]
struct Hits<'a> {
    direction: &'a str,
    number: u32,
    name: Option<&'a str>,
    file: String,
    line: u32,
    hits: Option<Counter>,
}

/// Lists the policies in force.
pub fn list(args: &ListArgs) -> anyhow::Result<u8> {
    let told = args.gateway.connect()?.policy()?;
    let answer = answer(&told);
    match args.json {
        true => print::json(&answer)?,
        false => print::text_out(&for_people(&answer)),
    }
    Ok(DONE)
}

fn answer(told: &PolicyResponse) -> Answer<'_> {
    let mut by_policy: BTreeMap<(String, String), Vec<&RuleView>> = BTreeMap::new();
    for rule in &told.rules {
        let policy = &rule.rule.policy;
        let rules = by_policy
            .entry((policy.layer.clone(), policy.name.clone()))
            .or_default();
        rules.push(rule);
    }
    let mut policies: Vec<View> = told
        .objects
        .iter()
        .filter_map(|object| view(object, &mut by_policy))
        .collect();
    let rank = |tier: &str| TIERS.iter().position(|it| *it == tier);
    policies.sort_by_key(|it| (rank(it.tier), it.priority, it.name.clone()));
    let counted = told.rules.iter().filter_map(|it| it.hits);
    Answer {
        has_policy: told.has_policy,
        generation: told.generation,
        policies,
        other: told.other_hits,
        total: counted
            .chain(told.other_hits)
            .fold(Counter::default(), |sum, it| Counter {
                connections: sum.connections + it.connections,
                packets: sum.packets + it.packets,
                audited: sum.audited + it.audited,
            }),
        refused: &told.refused,
    }
}

/// `None` for what is no policy.
fn view<'a>(
    object: &'a ObjectView,
    rules: &mut BTreeMap<(String, String), Vec<&'a RuleView>>,
) -> Option<View<'a>> {
    let tier = object.tier.as_deref()?;
    let name = match &object.namespace {
        Some(namespace) => format!("{namespace}/{}", object.name),
        None => object.name.clone(),
    };
    let (file, line) = place(&object.source);
    let rules = rules
        .remove(&(tier.to_owned(), name.clone()))
        .unwrap_or_default();
    let mut rules: Vec<Hits> = rules.into_iter().map(hits).collect();
    rules.sort_by_key(|it| (it.direction != "ingress", it.number));
    Some(View {
        tier,
        priority: object.priority,
        mode: object.mode?,
        name,
        file,
        line,
        rules,
    })
}

fn hits(of: &RuleView) -> Hits<'_> {
    let (file, line) = place(&of.rule.source);
    Hits {
        direction: &of.rule.direction,
        number: of.rule.number,
        name: of.rule.name.as_deref(),
        file,
        line,
        hits: of.hits,
    }
}

fn for_people(answer: &Answer) -> String {
    if !answer.has_policy {
        return "this site has no policy: everything may pass\n".to_owned();
    }
    let mut text = String::new();
    for policy in &answer.policies {
        let mut head = format!("{} {}", policy.tier, policy.name);
        if let Some(priority) = policy.priority {
            head += &format!(" priority {priority}");
        }
        head += match policy.mode {
            ModeView::Enforce => "",
            ModeView::Audit => " [audit]",
            ModeView::Off => " [off]",
        };
        head += &format!("  {}:{}", policy.file, policy.line);
        text += &print::wrapped(&head, 4);
        for rule in &policy.rules {
            let Some(told) = rule.hits.as_ref().and_then(in_words) else {
                continue;
            };
            let which = match (rule.number, rule.name) {
                (0, _) => "isolation".to_owned(),
                (number, None) => number.to_string(),
                (number, Some(name)) => format!("{number} ({name})"),
            };
            let line = format!("  {} {which}: {told}", rule.direction);
            text += &print::wrapped(&line, 6);
        }
    }
    if let Some(told) = answer.other.as_ref().and_then(in_words) {
        text += &print::wrapped(&format!("under rules that have gone, or none: {told}"), 4);
    }
    for kept in answer.refused {
        let line = format!("the previous version of {kept} is in force: the new one was refused");
        text += &print::wrapped(&line, 4);
    }
    let all = print::count(answer.policies.len(), "policy", "policies");
    let total = in_words(&answer.total).unwrap_or_else(|| "nothing refused so far".to_owned());
    let line = format!("{all} in force, generation {}; {total}", answer.generation);
    text + &print::wrapped(&line, 4)
}

/// `None` where nothing was refused.
fn in_words(counter: &Counter) -> Option<String> {
    let mut parts = Vec::new();
    let count = |number: u64, one: &str, many: &str| {
        let noun = if number == 1 { one } else { many };
        format!("{number} {noun}")
    };
    if counter.connections > 0 {
        let count = count(counter.connections, "connection", "connections");
        parts.push(format!("{count} denied"));
    }
    if counter.packets > 0 {
        let count = count(counter.packets, "packet", "packets");
        parts.push(format!("{count} dropped"));
    }
    if counter.audited > 0 {
        let count = count(counter.audited, "connection", "connections");
        parts.push(format!("{count} would have got another verdict"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// In the order in which they are asked.
const TIERS: [&str; 3] = ["admin", "network", "baseline"];
