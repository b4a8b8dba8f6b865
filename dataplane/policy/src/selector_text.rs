//! Label selectors as one line of text, as after `kubectl get pods -l`.
//!
//! The grammar is that of `k8s.io/apimachinery/pkg/labels/selector.go`: requirements with commas between them, each one
//! of `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a, b)` and `key notin (a, b)`. All must hold.
//! Its `<` and `>` are for nodes and are refused.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::diagnostic::quote;
use crate::model::{Requirement, Selector, Text};
use crate::names;

/// Why a text is no selector, and what fixes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError(String);

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SelectorError {}

impl FromStr for Selector {
    type Err = SelectorError;

    /// Reads a selector. One without requirements would select everything and is refused: it is rarely meant.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut reader = Reader {
            text,
            rest: text.trim_start(),
        };
        let mut requirements = BTreeSet::new();
        loop {
            requirements.insert(reader.requirement()?);
            if reader.rest.is_empty() {
                return Ok(Self { requirements });
            }
            reader.expect(',', "a comma before the next requirement")?;
        }
    }
}

struct Reader<'t> {
    /// All of it, to be quoted.
    text: &'t str,
    /// What is left, without white space before it.
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take("!") {
            return Ok(Requirement::DoesNotExist(self.key()?));
        }
        let key = self.key()?;
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement::Exists(key));
        }
        if self.take("!=") {
            return Ok(Requirement::NotIn(key, BTreeSet::from([self.value()?])));
        }
        if self.take("==") || self.take("=") {
            return Ok(Requirement::In(key, BTreeSet::from([self.value()?])));
        }
        match self.word() {
            "in" => Ok(Requirement::In(key, self.values()?)),
            "notin" => Ok(Requirement::NotIn(key, self.values()?)),
            _ => Err(self.fault(&format!(
                "behind `{}` stands no operator: write =, !=, in (a, b) or notin (a, b), or a comma",
                quote(&key)
            ))),
        }
    }

    fn key(&mut self) -> Result<Text, SelectorError> {
        let key = self.word();
        if key.is_empty() {
            return Err(self.fault(
                "a label key is missing: write requirements like app=voip, with commas between them",
            ));
        }
        match names::qualified_name(key) {
            Some(fault) => Err(self.fault(&format!("`{}` {fault}", quote(key)))),
            None => Ok(key.into()),
        }
    }

    /// One value; as in Kubernetes it may be empty.
    fn value(&mut self) -> Result<Text, SelectorError> {
        let value = self.word();
        match names::label_value(value) {
            Some(fault) => Err(self.fault(&format!("`{}` {fault}", quote(value)))),
            None => Ok(value.into()),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<Text>, SelectorError> {
        self.expect('(', "values in parentheses, such as in (a, b)")?;
        if self.rest.starts_with(')') {
            return Err(self.fault("there is no value between the parentheses: write in (a, b)"));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            if self.take(")") {
                return Ok(values);
            }
            self.expect(',', "a comma or a closing parenthesis")?;
        }
    }

    /// What stands before the next sign or white space.
    fn word(&mut self) -> &'t str {
        let is_end = |it: char| it.is_whitespace() || SIGNS.contains(it);
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn take(&mut self, sign: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(sign) else {
            return false;
        };
        self.rest = rest.trim_start();
        true
    }

    fn expect(&mut self, sign: char, wanted: &str) -> Result<(), SelectorError> {
        match self.take(sign.encode_utf8(&mut [0; 4])) {
            true => Ok(()),
            false => Err(self.fault(&format!("expected {wanted}"))),
        }
    }

    fn fault(&self, what: &str) -> SelectorError {
        let text = quote(self.text);
        match self.rest.is_empty() {
            true => SelectorError(format!("`{text}` is no label selector: at its end, {what}")),
            false => SelectorError(format!(
                "`{text}` is no label selector: before `{}`, {what}",
                quote(self.rest)
            )),
        }
    }
}

/// What ends a word.
const SIGNS: &str = ",()!=<>";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let texts = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        texts.collect()
    }

    #[test]
    fn a_selector_selects_what_kubectl_selects() {
        let pods = [
            labels(&[("app", "voip"), ("tier", "gold")]),
            labels(&[("app", "voip")]),
            labels(&[("app", "web"), ("tier", "")]),
            labels(&[]),
            labels(&[("in", "in"), ("example.com/app", "a.b_c")]),
        ];
        for (text, selected) in [
            ("app=voip", &[0, 1][..]),
            (" app == voip ", &[0, 1]),
            ("app=voip,tier=gold", &[0]),
            ("app", &[0, 1, 2]),
            ("!app", &[3, 4]),
            ("! app", &[3, 4]),
            ("app!=voip", &[2, 3, 4]),
            ("app in (voip, web)", &[0, 1, 2]),
            ("app in(web)", &[2]),
            ("app notin (voip)", &[2, 3, 4]),
            ("app notin (voip,web) , in", &[4]),
            ("tier=", &[2]),
            ("tier=,app", &[2]),
            ("tier in (gold,)", &[0, 2]),
            ("in in (in)", &[4]),
            ("example.com/app=a.b_c", &[4]),
            ("app=voip,app=web", &[]),
        ] {
            let selector: Selector = text.parse().unwrap();
            let found: Vec<usize> = (0..pods.len())
                .filter(|at| selector.matches(&pods[*at]))
                .collect();
            assert_eq!(found, selected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_with_its_place_and_fix() {
        for (text, fault) in [
            (
                "",
                "`` is no label selector: at its end, a label key is missing",
            ),
            ("app=voip,", "at its end, a label key is missing"),
            (",app", "before `,app`, a label key is missing"),
            (
                "app voip",
                "behind `app` stands no operator: write =, !=, in (a, b)",
            ),
            ("app > 5", "before `> 5`, behind `app` stands no operator"),
            (
                "app=a b",
                "before `b`, expected a comma before the next requirement",
            ),
            (
                "app in voip",
                "before `voip`, expected values in parentheses",
            ),
            ("app in ()", "there is no value between the parentheses"),
            (
                "app in (a",
                "at its end, expected a comma or a closing parenthesis",
            ),
            (
                "app in (a b)",
                "before `b)`, expected a comma or a closing parenthesis",
            ),
            ("-app=a", "`-app` is no label key"),
            ("app=-a", "`-a` is no label value"),
            ("app:voip", "`app:voip` is no label key"),
            ("app=a=b", "before `=b`, expected a comma"),
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z/ ,()!=<>é\"\\n-]{0,24}") {
            let _ = text.parse::<Selector>();
        }
    }
}
