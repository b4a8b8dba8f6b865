//! YAML as a tree with lines, its plain scalars read as `kubectl` reads them.
//!
//! `kubectl` follows YAML 1.1 in what a plain scalar is: `yes` and `on` are truth values, `010` and `0o10` are eight,
//! `1e3` is a number. `y` and `n` alone are texts, as every other reader has them: namespaces are called that. Where a text belongs, the manifest reader then asks for quotes, as the API server would.

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use crate::diagnostic::quote;
use crate::node::{Budget, Entry, Limits, MapBuilder, Node, TextError, Value};

pub(crate) fn parse(text: &str, limits: Limits) -> Result<Vec<Node>, TextError> {
    refuse_invisible(text)?;
    let mut builder = Builder {
        stack: Vec::new(),
        documents: Vec::new(),
        budget: Budget::new(limits),
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let message = format!("not valid YAML: {}", quote(error.info()));
            TextError::syntax(line(error.marker().line()), message)
        })?;
        builder.handle(event, line(span.start.line()))?;
    }
    Ok(builder.documents)
}

fn line(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).max(1)
}

/// What YAML does not allow, and the line breaks that only some readers see: text behind them could hide from a
/// reviewer. A NUL would end the text for some parsers.
fn refuse_invisible(text: &str) -> Result<(), TextError> {
    let mut line = 1u32;
    for char in text.chars() {
        match char {
            '\n' => line = line.saturating_add(1),
            '\t' | '\r' => {}
            '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let shown = char.escape_default();
                let message = format!("the character {shown} does not belong in YAML: remove it");
                return Err(TextError::refused(line, message));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A list or mapping that is still open.
enum Open {
    List(u32, Vec<Node>),
    Map(u32, MapBuilder, Option<(Box<str>, u32)>),
}

struct Builder {
    stack: Vec<Open>,
    documents: Vec<Node>,
    budget: Budget,
}

impl Builder {
    fn handle(&mut self, event: Event<'_>, line: u32) -> Result<(), TextError> {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(_) => Err(TextError::refused(
                line,
                "aliases (`*name`) are not read: write the value out",
            )),
            Event::Scalar(text, style, _, tag) => {
                self.budget.take(self.stack.len() + 1, line)?;
                self.scalar(&text, style, tag.as_deref(), line)
            }
            Event::SequenceStart(_, tag) => {
                check_collection_tag(tag.as_deref(), "seq", line)?;
                self.open(Open::List(line, Vec::new()), line)
            }
            Event::MappingStart(_, tag) => {
                check_collection_tag(tag.as_deref(), "map", line)?;
                self.open(Open::Map(line, MapBuilder::default(), None), line)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List(line, items)) => self.place(Node {
                    line,
                    value: Value::List(items),
                }),
                Some(Open::Map(line, map, _)) => self.place(Node {
                    line,
                    value: map.finish(),
                }),
                None => Ok(()),
            },
        }
    }

    fn open(&mut self, open: Open, line: u32) -> Result<(), TextError> {
        self.budget.take(self.stack.len() + 1, line)?;
        if let Some(Open::Map(_, _, None)) = self.stack.last() {
            return Err(TextError::refused(
                line,
                "a key must be a text, not a list or mapping",
            ));
        }
        self.stack.push(open);
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        line: u32,
    ) -> Result<(), TextError> {
        let value = scalar_value(text, style, tag, line)?;
        if let Some(Open::Map(_, map, key @ None)) = self.stack.last_mut() {
            let name = key_text(text, &value, line)?;
            map.check(&name, line)?;
            *key = Some((name, line));
            return Ok(());
        }
        self.place(Node { line, value })
    }

    fn place(&mut self, node: Node) -> Result<(), TextError> {
        match self.stack.last_mut() {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, map, key)) => match key.take() {
                Some((key, line)) => map.push(Entry { key, line, node }),
                None => return Err(TextError::refused(node.line, "a value without a key")),
            },
        }
        Ok(())
    }
}

/// A key that `kubectl` reads as a truth value or another number would become a different text there.
fn key_text(text: &str, value: &Value, line: u32) -> Result<Box<str>, TextError> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Int(number) if number.to_string() == text => Ok(text.into()),
        other => {
            let (text, kind) = (quote(text), other.describe());
            let message = format!("the key `{text}` is {kind}: put it in quotes");
            Err(TextError::refused(line, message))
        }
    }
}

fn scalar_value(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    line: u32,
) -> Result<Value, TextError> {
    let is_plain = style == ScalarStyle::Plain;
    let Some(tag) = tag else {
        return Ok(match is_plain {
            true => plain(text),
            false => Value::Text(text.into()),
        });
    };
    let value = plain(text);
    let fits = match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => return Ok(Value::Text(text.into())),
        (true, "int") => matches!(value, Value::Int(_)),
        (true, "bool") => matches!(value, Value::Bool(_)),
        (true, "null") => matches!(value, Value::Null),
        (true, "float") => matches!(value, Value::Int(_) | Value::Float(_)),
        (true | false, _) => return Err(unknown_tag(tag, line)),
    };
    match fits {
        true => Ok(value),
        false => {
            let (text, tag) = (quote(text), &tag.suffix);
            let message = format!("`{text}` is no {tag} as its tag `!!{tag}` says");
            Err(TextError::refused(line, message))
        }
    }
}

fn check_collection_tag(tag: Option<&Tag>, kind: &str, line: u32) -> Result<(), TextError> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == kind) => {
            Err(unknown_tag(tag, line))
        }
        Some(_) | None => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, line: u32) -> TextError {
    let message = format!(
        "the tag `{}` is not read: remove it",
        quote(&tag.to_string())
    );
    TextError::refused(line, message)
}

/// What an unquoted scalar is.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return Value::Text(text.into());
    }
    let digits = text.replace('_', "");
    if let Some(number) = integer(&digits) {
        return Value::Int(number);
    }
    match is_decimal(&digits).then(|| digits.parse::<f64>()) {
        // JSON, which `kubectl` makes of it, does not tell 80.0 from 80.
        Some(Ok(number)) if number.fract() == 0.0 && number.abs() < EXACT_MAX => {
            Value::Int(number as i64)
        }
        Some(Ok(number)) => Value::Float(number),
        Some(Err(_)) | None => Value::Text(text.into()),
    }
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("-", digits)) => ("-", digits),
        Some(("+", digits)) => ("", digits),
        _ => ("", text),
    };
    let based = |prefixes: [&str; 2], base| {
        let digits = prefixes
            .iter()
            .find_map(|prefix| digits.strip_prefix(prefix))?;
        Some((digits, base))
    };
    let (digits, base) = based(["0x", "0X"], 16)
        .or_else(|| based(["0o", "0O"], 8))
        .or_else(|| based(["0b", "0B"], 2))
        .or_else(|| {
            digits
                .strip_prefix('0')
                .filter(|rest| !rest.is_empty())
                .map(|rest| (rest, 8))
        })
        .unwrap_or((digits, 10));
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

/// `[-+]? ( .digits | digits ( . digits* )? ) ( [eE] [-+]? digits )?`
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && all_digits(fraction),
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    mantissa_fits && exponent_fits
}

/// Up to here every whole number has its own `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
