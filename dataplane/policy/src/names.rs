//! What the API server takes for names, labels and ports' names. Each check says what is wrong, or nothing.

use std::ops::RangeInclusive;

/// A name of most objects: lower-case words of letters, digits and `-`, joined by dots.
pub(crate) fn dns_subdomain(name: &str) -> Option<&'static str> {
    let fits = name.len() <= SUBDOMAIN_LEN_MAX && name.split('.').all(is_dns_word);
    (!fits).then_some(
        "must be at most 253 characters of a-z, 0-9, `-` and `.`, each part beginning and ending with a letter or digit",
    )
}

/// A name of a namespace.
pub(crate) fn dns_label(name: &str) -> Option<&'static str> {
    let fits = name.len() <= LABEL_LEN_MAX && is_dns_word(name);
    (!fits).then_some(
        "must be at most 63 characters of a-z, 0-9 and `-`, beginning and ending with a letter or digit",
    )
}

/// The key of a label or annotation: `name` or `prefix/name`.
pub(crate) fn qualified_name(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = prefix.is_none_or(|prefix| dns_subdomain(prefix).is_none());
    let fits = prefix_fits && !name.is_empty() && is_label_word(name);
    (!fits).then_some(
        "is no label key: a name of at most 63 characters of A-Z, a-z, 0-9, `-`, `_` and `.` that begins and ends with \
         a letter or digit, with an optional DNS prefix and `/` before it",
    )
}

/// The value of a label.
pub(crate) fn label_value(value: &str) -> Option<&'static str> {
    let fits = value.is_empty() || is_label_word(value);
    (!fits).then_some(
        "is no label value: at most 63 characters of A-Z, a-z, 0-9, `-`, `_` and `.`, beginning and ending with a \
         letter or digit, or nothing",
    )
}

/// The name of a port.
pub(crate) fn port_name(name: &str) -> Option<&'static str> {
    let fits = PORT_NAME_LEN.contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-');
    (!fits).then_some(
        "is no port name: 1 to 15 characters of a-z, 0-9 and `-` with at least one letter, no `--` and no `-` at an end; \
         a number stands without quotes",
    )
}

fn is_dns_word(word: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = word.as_bytes();
    bytes.first().is_some_and(is_edge)
        && bytes.last().is_some_and(is_edge)
        && bytes.iter().all(|byte| is_edge(byte) || *byte == b'-')
}

fn is_label_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() <= LABEL_LEN_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

const SUBDOMAIN_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;
const PORT_NAME_LEN: RangeInclusive<usize> = 1..=15;
