//! The rules of `promtool check metrics`, and the format's own, as far as they concern what we tell.

use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with a scrape's answer; nothing is the right answer.
pub fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helps: BTreeSet<&str> = BTreeSet::new();
    let mut series: BTreeSet<&str> = BTreeSet::new();
    let mut finished: BTreeSet<&str> = BTreeSet::new();
    let mut open = "";
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            if lines.peek().is_some() {
                faults.push("something follows # EOF".to_owned());
            }
            break;
        }
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let rest = words.next().unwrap_or("");
            match keyword {
                "HELP" if rest.is_empty() => faults.push(format!("{name} has no help")),
                "HELP" if !helps.insert(name) => faults.push(format!("{name} has two helps")),
                "HELP" => {}
                "TYPE" if types.insert(name, rest).is_some() => {
                    faults.push(format!("{name} has two types"));
                }
                "TYPE" => faults.extend(of_name(name, rest)),
                _ => faults.push(format!("what is `{line}`?")),
            }
            continue;
        }
        let Some((key, value)) = line.rsplit_once(' ') else {
            faults.push(format!("no value in `{line}`"));
            continue;
        };
        if value.parse::<f64>().is_err() {
            faults.push(format!("no number in `{line}`"));
        }
        if !series.insert(key) {
            faults.push(format!("{key} comes twice"));
        }
        let name = key.split('{').next().unwrap_or(key);
        let base = name.strip_suffix("_total").unwrap_or(name);
        match types.get(base) {
            None => faults.push(format!("{name} has no type")),
            Some(&"counter") if base == name => faults.push(format!("{name} lacks _total")),
            Some(&"gauge") if base != name => faults.push(format!("{name}: _total is a counter's")),
            Some(_) if !helps.contains(base) => faults.push(format!("{name} has no help")),
            Some(_) => {}
        }
        if base != open && !finished.insert(base) {
            faults.push(format!("the series of {base} do not stand together"));
        }
        open = base;
        faults.extend(of_labels(key));
    }
    if !text.ends_with("# EOF\n") {
        faults.push("# EOF is missing".to_owned());
    }
    faults
}

/// Of a family's name.
fn of_name(name: &str, kind: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("{name}: {text}"));
    let is_snake = |it: &str| {
        it.bytes()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_')
    };
    if !is_snake(name) || name.contains("__") || !name.starts_with("patronus_") {
        fault("no name in snake case that begins with patronus_".to_owned());
    }
    for suffix in ["_total", "_count", "_sum", "_bucket", "_created", "_info"] {
        // An info has its suffix by convention, and is a gauge to Prometheus.
        if name.ends_with(suffix) && !(suffix == "_info" && kind == "gauge") {
            fault(format!("{suffix} belongs to another type"));
        }
    }
    for word in ["gauge", "counter", "summary", "histogram"] {
        if name.split('_').any(|it| it == word) {
            fault(format!("the type does not belong into the name ({word})"));
        }
    }
    const WRONG_UNITS: &[(&str, &str)] = &[
        ("ms", "seconds"),
        ("us", "seconds"),
        ("ns", "seconds"),
        ("msec", "seconds"),
        ("sec", "seconds"),
        ("secs", "seconds"),
        ("milliseconds", "seconds"),
        ("microseconds", "seconds"),
        ("nanoseconds", "seconds"),
        ("minutes", "seconds"),
        ("hours", "seconds"),
        ("days", "seconds"),
        ("bits", "bytes"),
        ("bps", "bytes_per_second"),
        ("kb", "bytes"),
        ("mb", "bytes"),
        ("kilobytes", "bytes"),
        ("megabytes", "bytes"),
        ("pct", "ratio"),
        ("percent", "ratio"),
    ];
    for (wrong, right) in WRONG_UNITS {
        if name.split('_').any(|it| it == *wrong) {
            fault(format!("{wrong} is no base unit: use {right}"));
        }
    }
    if !matches!(kind, "counter" | "gauge") {
        fault(format!("an unknown type {kind}"));
    }
    faults
}

fn of_labels(key: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let Some((name, rest)) = key.split_once('{') else {
        return faults;
    };
    let mut seen = BTreeSet::new();
    // Values of ours have no `",` inside: names, addresses and words.
    for pair in rest.trim_end_matches('}').split("\",") {
        let label = pair.split('=').next().unwrap_or("");
        let is_good = label
            .bytes()
            .all(|it| it.is_ascii_lowercase() || it == b'_');
        if !is_good || label.is_empty() || label.starts_with("__") || label == "le" {
            faults.push(format!("{name}: `{label}` is no label"));
        }
        if !seen.insert(label) {
            faults.push(format!("{name}: {label} stands twice"));
        }
    }
    faults
}

#[test]
fn the_linter_finds_what_promtool_finds() {
    let good =
        "# HELP patronus_x X.\n# TYPE patronus_x counter\npatronus_x_total{a=\"b\"} 1\n# EOF\n";
    assert_eq!(faults(good), Vec::<String>::new());
    for (bad, word) in [
        (good.replace("counter", "gauge"), "_total is a counter's"),
        (good.replace("x_total{", "x{"), "lacks _total"),
        (good.replace("patronus_x", "patronus_x_ms"), "base unit"),
        (good.replace("patronus_x", "patronus_X"), "snake case"),
        (good.replace("patronus_x", "patronus_x_counter"), "the type"),
        (good.replace("# HELP patronus_x X.\n", ""), "no help"),
        (good.replace("a=\"b\"", "a=\"b\",a=\"c\""), "stands twice"),
        (
            good.replace(" 1\n", " 1\npatronus_x_total{a=\"b\"} 2\n"),
            "comes twice",
        ),
        (good.replace("# EOF\n", ""), "EOF"),
        (good.replace(" 1\n", " one\n"), "no number"),
        (good.replace("a=", "A="), "no label"),
    ] {
        let found = faults(&bad);
        let is_found = found.iter().any(|it| it.contains(word));
        assert!(is_found, "{word}: {found:?}");
    }
}
