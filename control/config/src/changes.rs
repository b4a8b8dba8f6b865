//! What differs between two configurations: key by key as the operator wrote them, and which of it waits for a restart.
//!
//! Called before something is applied, so that nobody learns afterwards what an order did not do.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::model::Config;

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands, such as `site.mtu` or `peer.branch.allowed_ips`.
    pub key: String,
    /// As TOML, where the old text has it.
    pub old: Option<String>,
    /// As TOML, where the new text has it.
    pub new: Option<String>,
}

/// The keys that differ between two texts, in their order by name. Comments and the order of a file are no difference. A
/// text that is no TOML has no keys.
pub fn changes(old: &str, new: &str) -> Vec<Change> {
    let (mut old, new) = (keys_of(old), keys_of(new));
    let mut found = Vec::new();
    for (key, value) in new {
        let before = old.remove(&key);
        if before.as_ref() != Some(&value) {
            found.push(Change {
                key,
                old: before,
                new: Some(value),
            });
        }
    }
    found.extend(old.into_iter().map(|(key, value)| Change {
        key,
        old: Some(value),
        new: None,
    }));
    found.sort_by(|one, other| one.key.cmp(&other.key));
    found
}

/// What of `new` takes effect at the next start of a gateway that runs with `running`, by key or section.
pub fn at_next_start(running: &Config, new: &Config) -> Vec<&'static str> {
    let io = |config: &Config| -> Vec<_> {
        let uplinks = config.uplinks.iter();
        uplinks
            .map(|uplink| (uplink.interface.clone(), uplink.io))
            .collect()
    };
    [
        (
            "[site] interface",
            running.site.interface != new.site.interface,
        ),
        (
            "[site] state_dir and history",
            running.site.state != new.site.state,
        ),
        ("[dataplane]", running.dataplane != new.dataplane),
        ("[[uplink]] io", io(running) != io(new)),
        ("[api]", running.api != new.api),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
    .collect()
}

/// Every key with its value as TOML.
fn keys_of(text: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    if let Ok(table) = text.parse::<Table>() {
        flatten(String::new(), &table, &mut keys);
    }
    keys
}

fn flatten(prefix: String, table: &Table, keys: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = match prefix.is_empty() {
            true => name.clone(),
            false => format!("{prefix}.{name}"),
        };
        match value {
            Value::Table(inner) => flatten(key, inner, keys),
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
                for (at, item) in items.iter().enumerate() {
                    let Value::Table(inner) = item else { continue };
                    let mut item_key = format!("{key}.{}", name_of(inner, at));
                    // Two of one name are an error elsewhere; here neither may hide the other.
                    if keys
                        .keys()
                        .any(|it| it.starts_with(&format!("{item_key}.")))
                    {
                        item_key = format!("{item_key}#{at}");
                    }
                    flatten(item_key, inner, keys);
                }
            }
            other => {
                keys.insert(key, other.to_string());
            }
        }
    }
}

/// What a table of a list is called: by its name, its key or its prefix; else by its place.
fn name_of(table: &Table, at: usize) -> String {
    let text = |key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    let named = text("name").or_else(|| text("public_key"));
    let named = named.or_else(|| text("prefix")).or_else(|| text("address"));
    named.unwrap_or_else(|| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    fn shown(old: &str, new: &str) -> Vec<String> {
        let changes = changes(old, new).into_iter();
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        changes
            .map(|it| format!("{} {} {}", it.key, text(it.old), text(it.new)))
            .collect()
    }

    #[test]
    fn keys_are_compared_and_comments_and_order_are_not() {
        let old = "[site]\nmtu = 1420 # as usual\nname = \"hq\"\n";
        let new = "[site]\nname = \"hq\"\nmtu = 1380\n[dataplane]\nlanes = false\n";
        assert_eq!(
            shown(old, new),
            ["dataplane.lanes - false", "site.mtu 1420 1380"]
        );
        assert!(shown(old, old).is_empty());
    }

    #[test]
    fn tables_of_a_list_are_told_apart_by_name_wherever_they_stand() {
        let one = "[[peer]]\nname = \"a\"\nkeepalive = 25\n";
        let two = "[[peer]]\npublic_key = \"k\"\nallowed_ips = [\"10.0.0.0/8\"]\n";
        assert!(shown(&format!("{one}{two}"), &format!("{two}{one}")).is_empty());
        assert_eq!(
            shown(&format!("{one}{two}"), one),
            [
                "peer.k.allowed_ips [\"10.0.0.0/8\"] -",
                "peer.k.public_key \"k\" -"
            ]
        );
        let twice = format!("{one}{one}");
        assert_eq!(shown(one, &twice).len(), 2);
    }

    #[test]
    fn what_waits_for_a_restart_is_what_is_effectively_different() {
        let key = keys::genkey();
        let config = |more: &str| {
            let text = format!("[site]\nname = \"hq\"\nprivate_key_file = \"k\"\n{more}");
            let draft = Config::parse(&text, "test").unwrap();
            draft.resolve(|_| Ok(key.clone())).unwrap()
        };
        let running = config("");
        assert!(at_next_start(&running, &config("mtu = 1380\n")).is_empty());
        // The default, written down.
        let same = config("[dataplane]\nlanes = true\n");
        assert!(at_next_start(&running, &same).is_empty());
        let other = config(
            "interface = \"wg7\"\nhistory = false\n[dataplane]\nworkers = 1\n[api]\n\
             metrics_listen = \"127.0.0.1:9586\"\n[[uplink]]\nname = \"a\"\ninterface = \"eth0\"\nio = \"af-xdp\"\n",
        );
        assert_eq!(
            at_next_start(&running, &other),
            [
                "[site] interface",
                "[site] state_dir and history",
                "[dataplane]",
                "[[uplink]] io",
                "[api]"
            ]
        );
    }
}
