//! Which keys each section of the configuration file may hold, and what to say of any other.

use toml::de::DeValue;

use crate::diagnostic::quote;
use crate::suggest::nearest;

/// What a section may hold.
pub(crate) struct Schema {
    /// As the operator writes it, brackets included.
    pub(crate) title: &'static str,
    /// Every key with an example of its value.
    pub(crate) keys: &'static [(&'static str, &'static str)],
}

impl Schema {
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|(name, _)| *name == key)
    }

    pub(crate) fn example(&self, key: &str) -> &'static str {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        found.map_or("", |(_, example)| example)
    }

    /// Why `key` may not stand in this section, and which key was meant, if one is clear.
    pub(crate) fn refuse(&self, key: &str) -> (String, Option<&'static str>) {
        let title = self.title;
        let letters: String = key.chars().filter(char::is_ascii_alphabetic).collect();
        let letters = letters.to_ascii_lowercase();
        let secret = match letters.as_str() {
            "privatekey" => Some(("private_key_file", "/etc/patronus/site.key")),
            "presharedkey" | "psk" => Some(("preshared_key_file", "/etc/patronus/peer.psk")),
            _ => None,
        };
        if let Some((file_key, path)) = secret {
            let message = format!(
                "{title} {}: secrets do not belong in this file: put the key in a file \
                 of its own, `chmod 600` it, and write {file_key} = \"{path}\"",
                quote(key)
            );
            return (message, Some(file_key));
        }
        let synonym = SYNONYMS
            .iter()
            .find(|(word, meant)| *word == letters && self.has(meant))
            .map(|(_, meant)| *meant);
        let meant = nearest(key, &self.names()).or(synonym);
        let home = SCHEMAS.iter().find(|other| other.has(key));
        let fix = match (meant, home) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, Some(home)) => format!("it belongs in {}", home.title),
            (None, None) => format!("valid keys are {}", self.names().join(", ")),
        };
        let message = format!("unknown key `{}` in {title}: {fix}", quote(key));
        (message, meant)
    }
}

pub(crate) fn unknown_at_top(name: &str, value: &DeValue<'_>) -> String {
    if !value.is_table() && !value.is_array() {
        let home = SCHEMAS.iter().find(|schema| schema.has(name));
        let fix = home.map_or("remove it", |schema| schema.title);
        return match home {
            Some(_) => format!(
                "`{}` stands outside every section: move it under {fix}",
                quote(name)
            ),
            None => format!("unknown key `{}` outside every section: {fix}", quote(name)),
        };
    }
    let names: Vec<&str> = SCHEMAS.iter().map(|schema| bare(schema.title)).collect();
    let near = nearest(name, &names)
        .and_then(|near| SCHEMAS.iter().find(|schema| bare(schema.title) == near));
    match near {
        Some(schema) => format!(
            "unknown section [{}]: did you mean {}?",
            quote(name),
            schema.title
        ),
        None => {
            let titles: Vec<&str> = SCHEMAS.iter().map(|schema| schema.title).collect();
            format!(
                "unknown section [{}]: valid sections are {}",
                quote(name),
                titles.join(", ")
            )
        }
    }
}

fn bare(title: &'static str) -> &'static str {
    let inner = title.trim_matches(['[', ']']);
    inner.split('.').next().unwrap_or(inner)
}

pub(crate) const SITE: Schema = Schema {
    title: "[site]",
    keys: &[
        ("name", "\"hq\""),
        ("private_key_file", "\"/etc/patronus/hq.key\""),
        ("addresses", "[\"10.255.0.1/24\"]"),
        ("interface", "\"patronus0\""),
        ("mtu", "1420"),
        ("routes", "true"),
        ("table", "\"main\""),
        ("state_dir", "\"/var/lib/patronus\""),
        ("history", "true"),
    ],
};
pub(crate) const DATAPLANE: Schema = Schema {
    title: "[dataplane]",
    keys: &[
        ("workers", "2"),
        ("cpus", "[0, 1]"),
        ("pin", "true"),
        ("flow_slots", "65536"),
        ("offload", "\"auto\""),
        ("lanes", "true"),
        ("cipher", "\"auto\""),
        ("spin_us", "20"),
        ("socket_buffer_kib", "4096"),
    ],
};
pub(crate) const UPLINK: Schema = Schema {
    title: "[[uplink]]",
    keys: &[
        ("name", "\"fiber\""),
        ("listen_port", "51820"),
        ("interface", "\"eth0\""),
        ("io", "\"udp\""),
        ("mark", "51820"),
        ("cost", "10"),
        ("up_mbit", "500"),
        ("down_mbit", "500"),
        ("metered", "true"),
        ("probe_ms", "50"),
        ("probe_idle_ms", "1000"),
        ("probe_multiplier", "5"),
    ],
};
pub(crate) const PEER: Schema = Schema {
    title: "[[peer]]",
    keys: &[
        ("name", "\"branch\""),
        ("public_key", "\"...\""),
        ("endpoint", "\"203.0.113.7:51820\""),
        (
            "endpoints",
            "[\"203.0.113.7:51820\", \"198.51.100.7:51820\"]",
        ),
        ("allowed_ips", "[\"10.2.0.0/16\"]"),
        ("keepalive", "25"),
        ("preshared_key_file", "\"/etc/patronus/branch.psk\""),
        (
            "via",
            "[{ prefix = \"10.2.0.0/16\", probes = [\"10.2.0.10\"] }]",
        ),
    ],
};
pub(crate) const VIA: Schema = Schema {
    title: "[[peer]] via",
    keys: &[
        ("prefix", "\"10.2.0.0/16\""),
        ("probes", "[\"10.2.0.10\"]"),
        ("interval_ms", "1000"),
        ("misses", "5"),
        ("unreachable", "\"send\""),
    ],
};
pub(crate) const ENDPOINT: Schema = Schema {
    title: "[[peer]] endpoints",
    keys: &[("address", "\"203.0.113.7:51820\""), ("cost", "10")],
};
pub(crate) const CLASS: Schema = Schema {
    title: "[class.NAME]",
    keys: &[
        ("dscp", "[\"ef\", 34]"),
        ("ports", "[\"udp/16384-32767\", \"tcp/22\"]"),
        ("labels", "[\"app=voip\"]"),
        ("namespaces", "\"team in (sales, support)\""),
        ("local", "[\"10.1.0.0/16\"]"),
        ("remote", "[\"10.2.0.0/16\"]"),
        ("latency_ms", "[150, 400]"),
        ("jitter_ms", "[20, 60]"),
        ("loss_pct", "[1, 5]"),
        ("scoring", "\"weighted\""),
        ("weights", "[0.3, 0.2, 0.5]"),
        ("target_mbit", "100"),
        ("protect", "true"),
        ("prefer", "[\"fiber\"]"),
        ("default", "true"),
    ],
};
pub(crate) const POLICY: Schema = Schema {
    title: "[policy]",
    keys: &[
        ("directory", "\"policies.d\""),
        ("keep_established", "false"),
        ("refusal", "\"drop\""),
    ],
};
pub(crate) const PREFILTER: Schema = Schema {
    title: "[prefilter]",
    keys: &[
        ("wan", "\"auto\""),
        ("interfaces", "[\"eth0\"]"),
        ("block_lists", "[\"blocked.txt\"]"),
        ("bogons", "true"),
        ("initiations_per_second", "50"),
        ("initiations_burst", "200"),
        ("known_receivers", "true"),
        ("lan", "\"auto\""),
    ],
};
pub(crate) const API: Schema = Schema {
    title: "[api]",
    keys: &[
        ("metrics_listen", "\"127.0.0.1:9586\""),
        ("listen", "\"192.0.2.1:9587\""),
        ("tls_cert", "\"/etc/patronus/api.crt\""),
        ("tls_key", "\"/etc/patronus/api.key\""),
        ("token_file", "\"/etc/patronus/api.token\""),
        ("read_token_file", "\"/etc/patronus/api-read.token\""),
    ],
};
pub(crate) const SCHEMAS: [&Schema; 8] = [
    &SITE, &DATAPLANE, &UPLINK, &PEER, &POLICY, &CLASS, &PREFILTER, &API,
];

/// What WireGuard's tools and habit call our keys, letters only.
const SYNONYMS: &[(&str, &str)] = &[
    ("persistentkeepalive", "keepalive"),
    ("fwmark", "mark"),
    ("port", "listen_port"),
    ("device", "interface"),
    ("threads", "workers"),
    ("prefixes", "allowed_ips"),
];
