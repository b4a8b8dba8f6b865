//! Texts of every kind, hostile ones included, as trees: what is refused, and that time and memory are bounded.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::time::Instant;

use patronus_policy::node::{self, Limits, Node, Value};

fn parse(text: &str) -> Vec<Node> {
    node::parse(text.as_bytes(), Limits::MANIFEST)
        .unwrap_or_else(|error| panic!("{text}: {}: {error}", error.line))
}

fn refusal(bytes: &[u8]) -> String {
    let error = node::parse(bytes, Limits::MANIFEST).unwrap_err();
    assert!(
        error.message.chars().all(|char| !char.is_control()),
        "{error:?}"
    );
    format!("{}: {error}", error.line)
}

/// The value of the only key of the only document.
fn value(text: &str) -> Value {
    let mut documents = parse(text);
    assert_eq!(documents.len(), 1, "{text}");
    let Value::Map(mut entries) = documents.remove(0).value else {
        panic!("{text} is no mapping")
    };
    assert_eq!(entries.len(), 1, "{text}");
    entries.remove(0).node.value
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

#[test]
fn plain_scalars_are_what_kubectl_makes_of_them() {
    for (scalar, wanted) in [
        ("80", Value::Int(80)),
        ("+80", Value::Int(80)),
        ("-1", Value::Int(-1)),
        ("010", Value::Int(8)),
        ("0o10", Value::Int(8)),
        ("0x50", Value::Int(80)),
        ("0b11", Value::Int(3)),
        ("-0x10", Value::Int(-16)),
        ("1_000", Value::Int(1000)),
        ("1e3", Value::Int(1000)),
        ("80.0", Value::Int(80)),
        ("089", Value::Int(89)),
        ("80.5", Value::Float(80.5)),
        (".5", Value::Float(0.5)),
        (
            "9223372036854775808",
            Value::Float(9_223_372_036_854_775_808.0),
        ),
        (".inf", Value::Float(f64::INFINITY)),
        ("yes", Value::Bool(true)),
        ("On", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("OFF", Value::Bool(false)),
        ("true", Value::Bool(true)),
        ("y", text("y")),
        ("n", text("n")),
        ("tRUE", text("tRUE")),
        ("~", Value::Null),
        ("", Value::Null),
        ("null", Value::Null),
        ("'null'", text("null")),
        ("\"80\"", text("80")),
        ("'80'", text("80")),
        ("!!str 80", text("80")),
        ("!!int 80", Value::Int(80)),
        ("!!float 80", Value::Int(80)),
        ("!!bool yes", Value::Bool(true)),
        ("10.0.0.0/8", text("10.0.0.0/8")),
        ("10.0.0.1", text("10.0.0.1")),
        ("::1", text("::1")),
        ("2001-01-01", text("2001-01-01")),
        ("1:30", text("1:30")),
        ("1e", text("1e")),
        ("0x", text("0x")),
        (
            "-",
            Value::List(vec![Node {
                line: 1,
                value: Value::Null,
            }]),
        ),
        ("|\n  a\n  b", text("a\nb\n")),
        (">-\n  a\n  b", text("a b")),
        ("\"a\\tb\\u00e9\\x41\"", text("a\tbéA")),
    ] {
        let found = match scalar {
            "-" => value("k:\n- "),
            _ => value(&format!("k: {scalar}")),
        };
        let found = match (&found, &wanted) {
            (Value::List(_), Value::List(_)) => wanted.clone(),
            _ => found,
        };
        assert_eq!(found, wanted, "{scalar}");
    }
}

#[test]
fn json_is_read_exactly() {
    for (json, wanted) in [
        (
            r#""\ud83d\ude00\u0041\/\b\f\n\r\t\"\\""#,
            text("😀A/\u{8}\u{c}\n\r\t\"\\"),
        ),
        ("\"yes\"", text("yes")),
        ("\"\"", text("")),
        ("-0", Value::Int(0)),
        ("80.0", Value::Float(80.0)),
        ("8e1", Value::Float(80.0)),
        ("80", Value::Int(80)),
        ("true", Value::Bool(true)),
        ("null", Value::Null),
        ("[]", Value::List(Vec::new())),
        ("{}", Value::Map(Vec::new())),
        ("\"\u{7f}\u{2028}\"", text("\u{7f}\u{2028}")),
    ] {
        assert_eq!(
            value(&format!("{{\t\"k\"\t:\t{json}\n}}")),
            wanted,
            "{json}"
        );
    }
    let documents = parse("\u{feff}{\"a\":1}\n---\n{\"b\":\n2}{\"c\":3}");
    let lines: Vec<u32> = documents.iter().map(|node| node.line).collect();
    assert_eq!(lines, [1, 3, 4]);
}

#[test]
fn flow_style_that_is_no_json_is_read_as_yaml() {
    assert_eq!(
        value("{k: [a, 'b', \"c\",],}"),
        Value::List(
            ["a", "b", "c"]
                .map(|it| Node {
                    line: 1,
                    value: text(it)
                })
                .to_vec()
        )
    );
    assert_eq!(value("{\"k\": yes}"), Value::Bool(true));
}

#[test]
fn nodes_and_keys_know_their_lines() {
    let documents = parse("\n# c\na:\n  - x\n  -\n    b: 1\n---\n---\nc:\n\n  d\n");
    assert_eq!(documents.len(), 2, "an empty document is none");
    let Value::Map(entries) = &documents[0].value else {
        panic!()
    };
    assert_eq!((documents[0].line, entries[0].line), (3, 3));
    let Value::List(items) = &entries[0].node.value else {
        panic!()
    };
    assert_eq!((items[0].line, items[1].line), (4, 6));
    assert_eq!(documents[1].field("c").unwrap().line, 11);
}

#[test]
fn what_is_ambiguous_or_hidden_is_refused_with_its_line() {
    for (bytes, message) in [
        (
            &b"a: 1\nb: 2\na: 3"[..],
            "3: `a` stands there twice, first in line 1",
        ),
        (
            b"{\"a\": 1,\n\"a\": 3}",
            "2: `a` stands there twice, first in line 1",
        ),
        (b"{\"a\": 1, \"\\u0061\": 3}", "1: `a` stands there twice"),
        (b"x: &a 1\ny: *a", "2: aliases (`*name`) are not read"),
        (b"<<: *b", "1: "),
        (b"k: !secret x", "1: the tag `!secret` is not read"),
        (b"k: !!binary aGk=", "1: the tag"),
        (b"k: !!set {a}", "1: the tag"),
        (b"k: !!int x", "1: `x` is no int"),
        (b"a: 1\n? [b]\n: 2", "2: a key must be a text"),
        (b"? {a: b}\n: 2", "1: a key must be a text"),
        (
            b"yes: 1",
            "1: the key `yes` is a truth value: put it in quotes",
        ),
        (b"010: 1", "1: the key `010` is a number: put it in quotes"),
        (b"a: \"\xff\"", "1: the text is not valid UTF-8"),
        (b"a: 1\nb: \xc3\x28", "2: the text is not valid UTF-8"),
        (b"\xff\xfea\0:\0", "1: the text is not valid UTF-8"),
        (b"a: 1\n\0b: 2", "2: the character \\u{0} does not belong"),
        (
            b"a: 1 # x\xc2\x85b: 2",
            "1: the character \\u{85} does not belong",
        ),
        (b"a: \x1b[2J", "1: the character \\u{1b}"),
        (b"{\"a\": \"\0\"}", "1: the character"),
        (b"{\"a\": \"\\ud800\"}", "1: "),
        (b"{\"a\": \"\\ud800\\u0041\"}", "1: "),
        (b"{\"a\": \"\\udc00\"}", "1: "),
        (b"{\"a\"", "1: not valid JSON: a colon is expected"),
        (b"{\"a\": [1, 2", "1: not valid JSON: a comma or `]`"),
        (
            b"{\"a\": \"b",
            "1: not valid JSON: the text ends inside quotes",
        ),
        (b"a: b: c", "1: not valid YAML"),
        (b"a:\n\t- b", "2: not valid YAML"),
        (b"a: [1", "not valid YAML"),
        (b"a: 'x", "not valid YAML"),
        (b"%YAML 3.0\n---\na: [", "not valid YAML"),
    ] {
        let shown = refusal(bytes);
        assert!(
            shown.contains(message),
            "{}\n{shown}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(
        value("80: x"),
        text("x"),
        "a number that is its own text is a key"
    );
}

#[test]
fn hostile_texts_are_refused_in_bounded_time() {
    let laughs = |last: &str| {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..30 {
            let before = level - 1;
            text += &format!("a{level}: &a{level} [*a{before},*a{before},*a{before},*a{before}]\n");
        }
        text + last
    };
    let many = 1 << 20;
    let mut unique: String = (0..many / 8).map(|at| format!("k{at}: 1\n")).collect();
    unique.push_str("k7: 2\n");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("billion laughs", laughs("").into_bytes()),
        ("deep flow lists", vec![b'['; many]),
        ("deep flow maps", "{a: ".repeat(many / 4).into_bytes()),
        ("deep JSON", "{\"a\":".repeat(many / 5).into_bytes()),
        ("deep block lists", "- ".repeat(many / 2).into_bytes()),
        ("deep block keys", "? ".repeat(many / 2).into_bytes()),
        (
            "deep block maps",
            (0..2000)
                .map(|at| format!("{}a:\n", " ".repeat(at)))
                .collect::<String>()
                .into_bytes(),
        ),
        ("too many bytes", vec![b'a'; Limits::MANIFEST.bytes + 1]),
        (
            "too many values",
            format!("[{}", "1,".repeat(3_000_000)).into_bytes(),
        ),
        (
            "too many values in YAML",
            format!("k: [{}", "1,".repeat(3_000_000)).into_bytes(),
        ),
        ("many keys and one twice", unique.into_bytes()),
        ("an endless key", vec![b'a'; many]),
        (
            "endless quotes",
            [b"k: \"".to_vec(), vec![b'a'; many]].concat(),
        ),
        ("many colons", vec![b':'; many]),
        ("many anchors", "&a ".repeat(many / 3).into_bytes()),
        ("many tags", "!t ".repeat(many / 3).into_bytes()),
        (
            "many documents that end badly",
            ["---\n".repeat(many / 4), "[".to_owned()]
                .concat()
                .into_bytes(),
        ),
        (
            "many directives",
            "%TAG !a! x\n".repeat(many / 11).into_bytes(),
        ),
        ("many open quotes", "k: 'a\n".repeat(many / 6).into_bytes()),
        ("many spaces", [vec![b' '; many], b"{".to_vec()].concat()),
        (
            "many lines in flow",
            ["[".to_owned(), "\n".repeat(many)].concat().into_bytes(),
        ),
        (
            "many commas",
            ["k: [".to_owned(), ",".repeat(many)].concat().into_bytes(),
        ),
        (
            "a huge block",
            ["k: |\n".to_owned(), " a\n".repeat(many / 3), "}".to_owned()]
                .concat()
                .into_bytes(),
        ),
    ];
    for (name, bytes) in cases {
        let start = Instant::now();
        let outcome = node::parse(&bytes, Limits::MANIFEST);
        let took = start.elapsed();
        println!("{name}: {took:?} {:?}", outcome.as_ref().err());
        // An endless plain scalar is a text, and harmless.
        assert!(outcome.is_err() || name == "an endless key", "{name}");
        assert!(took.as_secs() < 10, "{name} took {took:?}");
    }
}

#[test]
fn depth_and_count_are_exact() {
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    for depth in [1, 63, 64] {
        assert_eq!(parse(&nested(depth)).len(), 1);
        assert_eq!(parse(&format!("# yaml\n{}", nested(depth))).len(), 1);
    }
    for text in [nested(65), format!("# yaml\n{}", nested(65))] {
        assert!(
            refusal(text.as_bytes()).contains("deeper than 64 levels"),
            "{text}"
        );
    }
    let limits = Limits {
        bytes: 100,
        nodes: 3,
        depth: 9,
    };
    assert!(node::parse(b"[1, 2]", limits).is_ok());
    assert!(node::parse(b"- 1\n- 2", limits).is_ok());
    assert!(node::parse(b"[1, 2, 3]", limits).is_err());
    assert!(node::parse(b"- 1\n- 2\n- 3", limits).is_err());
    assert!(node::parse(&[b' '; 100], limits).is_ok());
    assert!(node::parse(&[b' '; 101], limits).is_err());
}
