//! Every key of the file with what it is where the file does not say.

/// The keys as a configuration file: what has no default stands behind `#`.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultKey {
    /// Its section, as the operator writes it: `[site]`, `[[peer]]`.
    pub section: &'static str,
    /// Its name.
    pub key: &'static str,
    /// A value as TOML.
    pub value: &'static str,
    /// Whether that is its default; else it has none, and the value is an example.
    pub is_default: bool,
}

/// The keys of [`DEFAULTS`], in their order.
pub fn default_keys() -> Vec<DefaultKey> {
    let mut keys = Vec::new();
    let mut section = "";
    for line in DEFAULTS.lines() {
        let (text, is_default) = match line.strip_prefix("# ") {
            Some(text) => (text, false),
            None => (line, true),
        };
        if text.starts_with('[') {
            section = text.split(' ').next().unwrap_or(text);
        } else if let Some((key, rest)) = text.split_once(" = ")
            && key.bytes().all(|it| it.is_ascii_lowercase() || it == b'_')
        {
            let value = rest.split("   ").next().unwrap_or(rest).trim_end();
            keys.push(DefaultKey {
                section,
                key,
                value,
                is_default,
            });
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Config;
    use crate::{keys, schema};

    const SITE: &str = "name = \"hq\"\nprivate_key_file = \"hq.key\"\n";

    #[test]
    fn a_file_with_every_default_written_down_means_the_same_as_one_without() {
        let key = keys::genkey();
        let config = |text: &str| {
            let draft = Config::parse(text, "test").unwrap();
            draft.resolve(|_| Ok(key.clone())).unwrap()
        };
        let plain = config(&format!("[site]\n{SITE}"));
        let written = config(&DEFAULTS.replacen("[site]\n", &format!("[site]\n{SITE}"), 1));
        assert_eq!(written, plain);
    }

    #[test]
    fn every_key_there_is_stands_there_in_its_section() {
        let listed = default_keys();
        for schema in schema::SCHEMAS {
            let title = schema.title.replace("NAME", "realtime");
            for (key, _) in schema.keys {
                let is_listed = |it: &DefaultKey| it.section == title && it.key == *key;
                let in_any_class = |it: &DefaultKey| {
                    title.starts_with("[class")
                        && it.section.starts_with("[class")
                        && it.key == *key
                };
                assert!(
                    listed.iter().any(|it| is_listed(it) || in_any_class(it)),
                    "{title} {key}"
                );
            }
        }
        let values: Vec<_> = listed.iter().filter(|it| it.key == "mtu").collect();
        assert_eq!((values[0].value, values[0].is_default), ("1420", true));
        let workers = listed.iter().find(|it| it.key == "workers").unwrap();
        assert_eq!((workers.value, workers.is_default), ("2", false));
    }
}
