//! `patronus explain`.

use anyhow::anyhow;
use patronus_policy::document::connection;
use patronus_policy::view::ExplanationView;

use super::{DENIED, DONE, ExplainArgs, input, live, print};

/// Tells the verdict on one connection and why.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<u8> {
    if args.config.is_empty() {
        return show(&live::explain(args)?, args.json);
    }
    let side = input::side(&args.config)?;
    let connection = connection(&side.cluster, &args.src, &args.dst, args.transport)
        .map_err(|fault| anyhow!("{fault}"))?;
    let answer = ExplanationView::from(&side.table.explain(&connection));
    show(&answer, args.json)
}

/// Prints an explanation, from wherever it came, and says with which code to exit.
fn show(answer: &ExplanationView, json: bool) -> anyhow::Result<u8> {
    match json {
        true => print::json(answer)?,
        false => {
            let lines = answer.text.lines();
            let lines: String = lines.map(|line| print::wrapped(line, 6)).collect();
            print::text_out(&lines);
        }
    }
    Ok(if answer.allow { DONE } else { DENIED })
}
