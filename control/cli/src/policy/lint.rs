//! `patronus policy lint`.

use patronus_policy::{Compiler, Fault, Finding};
use serde::Serialize;

use super::input::Manifests;
use super::{DONE, FAILED, LintArgs, print};

/// A finding as `--json` prints it.
#[derive(Serialize)]
struct View {
    /// A word that stays the same: `selects-nothing`, `shadowed`, …
    kind: &'static str,
    object: String,
    file: Option<String>,
    line: Option<u32>,
    message: String,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    findings: Vec<View>,
}

/// Points out what is probably not meant.
pub fn lint(args: &LintArgs) -> anyhow::Result<u8> {
    let cluster = Manifests::read(&args.manifests.paths)?.into_cluster()?;
    let findings = Compiler::fresh(0, cluster.changes()).lint();
    if args.manifests.json {
        let findings = findings.iter().map(view).collect();
        print::json(&Answer { findings })?;
    } else {
        let mut text = String::new();
        for finding in &findings {
            text += &print::wrapped(&finding.to_string(), 4);
        }
        text += &format!("{}\n", print::count(findings.len(), "finding", "findings"));
        print::text_out(&text);
    }
    let is_bad = args.strict && !findings.is_empty();
    Ok(if is_bad { FAILED } else { DONE })
}

fn view(finding: &Finding) -> View {
    View {
        kind: kind(&finding.fault),
        object: finding.object.clone(),
        file: finding.source.as_ref().map(|it| it.file.to_string()),
        line: finding.source.as_ref().map(|it| it.line),
        message: finding.fault.to_string(),
    }
}

fn kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::SelectsNothing => "selects-nothing",
        Fault::Shadowed => "shadowed",
        Fault::AllowsEverything(..) => "allows-everything",
        Fault::Unreachable(..) => "unreachable-rule",
        Fault::NoSuchPort(..) => "no-such-port",
        Fault::EqualPriority(_) => "equal-priority",
        Fault::NamespaceWithoutManifest => "namespace-without-manifest",
        Fault::ClaimedTwice(_) => "address-claimed-twice",
    }
}
