//! `patronus policy diff NEW`: which live flows other manifests would cut or let in.

use std::path::PathBuf;

use anyhow::bail;
use patronus_api::{
    DiffRequest, DiffResponse, FlowDiff, FlowView, ObjectChanges, SeverityView, VerdictView,
};
use serde::Serialize;

use super::super::diff::{LINES_MAX, more, reasons, verdicts_in_words};
use super::super::{DONE, DiffArgs, input, print};

/// What `--json` prints: the fields that a comparison of files has, as far as live flows have them.
#[derive(Serialize)]
struct Answer {
    objects: ObjectChanges,
    cut: usize,
    opened: usize,
    changes: Vec<ChangeView>,
    left_out: usize,
    judged: usize,
}

#[derive(Serialize)]
struct ChangeView {
    src: String,
    dst: String,
    /// The new verdict.
    allow: bool,
    old: Reason,
    new: Reason,
    flow: FlowView,
}

#[derive(Serialize)]
struct Reason {
    text: String,
}

/// Compares what is in force with other manifests, by the flows there are now.
pub fn diff(args: &DiffArgs, new: &PathBuf) -> anyhow::Result<u8> {
    let files = input::candidate(std::slice::from_ref(new))?;
    let found = args.gateway.connect()?.diff(&DiffRequest { files })?;
    refuse_faults(&found)?;
    match args.json {
        true => print::json(&answer(found))?,
        false => print::text_out(&for_people(&found)),
    }
    Ok(DONE)
}

/// As with files: an answer without the refused objects would be another.
fn refuse_faults(found: &DiffResponse) -> anyhow::Result<()> {
    let errors = found.diagnostics.iter();
    let errors: Vec<_> = errors
        .filter(|it| it.severity == SeverityView::Error)
        .collect();
    for error in errors.iter().take(ERRORS_SHOWN_MAX) {
        let object = error.object.as_ref();
        let object = object.map_or(String::new(), |it| format!("{it}: "));
        let field = match error.field.as_str() {
            "" => String::new(),
            field => format!("{field}: "),
        };
        eprintln!(
            "{}:{}: {object}{field}{}",
            error.file, error.line, error.message
        );
    }
    if !errors.is_empty() {
        bail!(
            "{} refused object(s) would be missing from the answer: put them right first, `patronus policy check` \
             lists all",
            errors.len()
        );
    }
    Ok(())
}

fn answer(found: DiffResponse) -> Answer {
    Answer {
        left_out: (found.denied + found.allowed).saturating_sub(found.flows.len()),
        objects: found.objects,
        cut: found.denied,
        opened: found.allowed,
        changes: found.flows.into_iter().map(change).collect(),
        judged: found.judged,
    }
}

fn change(of: FlowDiff) -> ChangeView {
    ChangeView {
        src: of.flow.src.to_string(),
        dst: of.flow.dst.to_string(),
        allow: of.after == VerdictView::Allow,
        old: Reason {
            text: of.before_text,
        },
        new: Reason {
            text: of.after_text,
        },
        flow: of.flow,
    }
}

fn for_people(found: &DiffResponse) -> String {
    let mut text = String::new();
    let objects = &found.objects;
    let lists = [
        ('+', &objects.added),
        ('-', &objects.removed),
        ('~', &objects.changed),
    ];
    let lines = lists
        .iter()
        .flat_map(|(sign, list)| list.iter().map(move |it| format!("{sign} {it}")));
    for line in lines.take(LINES_MAX) {
        text += &print::wrapped(&line, 4);
    }
    more(&mut text, found.changes.saturating_sub(LINES_MAX));
    if found.changes == 0 {
        text += "no object changes\n";
    }
    for change in found.flows.iter().take(LINES_MAX) {
        text += &reasons(&change.before_text, &change.after_text);
    }
    let changed = found.denied + found.allowed;
    more(
        &mut text,
        changed.saturating_sub(LINES_MAX.min(found.flows.len())),
    );
    text += &verdicts_in_words("live flows", found.judged, found.denied, found.allowed);
    text
}

const ERRORS_SHOWN_MAX: usize = 20;
