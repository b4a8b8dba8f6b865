//! The page: tables and plots in one file that opens from a disk, with no network and no script.

use std::fmt::Write;

use super::{Outcome, Report, table};

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let title = format!("patronus bench {}", report.bench);
    let mut body = format!("<h1>{}</h1>\n", escape(&title));
    // Writing to a string cannot fail.
    if !report.is_measurement {
        let _ = writeln!(
            body,
            "<p class=\"warning\">{}</p>",
            escape(super::QUICK_NOTE)
        );
    }
    body += &verdict(report);
    for plot in &report.plots {
        let _ = writeln!(
            body,
            "<figure><figcaption>{}</figcaption>\n{}</figure>",
            escape(&plot.title),
            plot.to_svg()
        );
    }
    for table in &report.tables {
        let _ = writeln!(
            body,
            "<h2>{}</h2>\n<div class=\"wide\"><table>",
            escape(&table.title)
        );
        let heads: String = table
            .columns
            .iter()
            .map(|column| format!("<th>{}</th>", escape(&column.title)))
            .collect();
        let _ = writeln!(body, "<thead><tr>{heads}</tr></thead><tbody>");
        for row in table.cells(report) {
            let cells: String = row
                .iter()
                .map(|cell| format!("<td>{}</td>", escape(cell)))
                .collect();
            let _ = writeln!(body, "<tr>{cells}</tr>");
        }
        body += "</tbody></table></div>\n";
    }
    body += "<h2>How this was measured</h2>\n<dl>\n";
    for (name, line) in table::head(report) {
        let _ = writeln!(body, "<dt>{name}</dt><dd>{}</dd>", escape(&line));
    }
    body += "</dl>\n";
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escape(&title)
    )
}

fn verdict(report: &Report) -> String {
    let with_target = report.verdict.checks.iter();
    let items: String = with_target
        .filter_map(|check| {
            let wanted = check.wanted()?;
            let (class, word) = match check.holds {
                true => ("pass", "met"),
                false => ("miss", "missed"),
            };
            Some(format!(
                "<li class=\"{class}\">{} = {} (wanted {wanted}: {word})</li>\n",
                escape(&check.name),
                table::significant(check.value)
            ))
        })
        .collect();
    match report.verdict.outcome {
        Outcome::None => String::new(),
        Outcome::Pass | Outcome::Miss => format!("<ul class=\"verdict\">\n{items}</ul>\n"),
    }
}

/// Text as HTML and SVG take it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fcfcfb;--ink:#1a1a19;--soft:#5f5e5a;--rule:#dddcd6}
@media(prefers-color-scheme:dark){:root{--page:#1a1a19;--ink:#f2f1ec;--soft:#a9a79f;--rule:#3a3a37}}
body{background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.warning{border:2px solid #c2410c;padding:.5rem .75rem;font-weight:600}
figure{margin:1.5rem 0}figcaption{font-weight:600}svg{max-width:100%;height:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.2rem .7rem;border-bottom:1px solid var(--rule)}th{color:var(--soft);font-weight:500}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.verdict{list-style:none;padding:0}.verdict .pass::before{content:'\\2713  '}.verdict .miss::before{content:'\\2717  '}
.verdict .miss{font-weight:600}
";

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn the_page_needs_nothing_from_outside_and_shows_everything() {
        let page = sample(true).to_html();
        for outside in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("<svg"));
        assert!(page.contains("<td>1420</td>"));
        assert!(page.contains("seal_of_aead = 0.800 (wanted 0.750 or more: met)"));
        assert!(page.contains("a &lt;note&gt; &amp; more"));
        assert!(!page.contains("not a measurement"));
    }

    #[test]
    fn elements_are_closed_in_order() {
        let page = sample(false).to_html();
        let mut open = Vec::new();
        for part in page.split('<').skip(1) {
            let tag = part.split('>').next().unwrap();
            let name = tag.split([' ', '/', '\n']).next().unwrap();
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed), "closing {closed}");
            } else if !tag.ends_with('/') && !tag.starts_with('!') && name != "meta" {
                open.push(name);
            }
        }
        assert_eq!(open, Vec::<&str>::new());
    }
}
