//! TOML of the right shape: known sections, known keys, values of the right type, each with its line.
//!
//! Says nothing about whether the values make sense: `check` does.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Line, LineIndex, Report};
use crate::schema::{
    API, CLASS, DATAPLANE, ENDPOINT, PEER, POLICY, PREFILTER, SITE, Schema, UPLINK, VIA,
    unknown_at_top,
};

/// A value and the line that it stands on.
#[derive(Clone, Debug)]
pub(crate) struct Raw<T> {
    pub(crate) value: T,
    pub(crate) line: Line,
}

type Maybe<T> = Option<Raw<T>>;
type MaybeList<T> = Option<Raw<Vec<Raw<T>>>>;

/// The whole file. `None` and empty stand for absent, or for present and already reported.
#[derive(Debug, Default)]
pub(crate) struct RawConfig {
    pub(crate) site: Option<RawSite>,
    pub(crate) dataplane: Option<RawDataplane>,
    pub(crate) uplinks: Vec<RawUplink>,
    pub(crate) peers: Vec<RawPeer>,
    pub(crate) classes: Vec<RawClass>,
    pub(crate) policy: Option<RawPolicy>,
    pub(crate) prefilter: Option<RawPrefilter>,
    pub(crate) api: Option<RawApi>,
}

/// `[site]`
#[derive(Debug)]
pub(crate) struct RawSite {
    pub(crate) line: Line,
    pub(crate) name: Maybe<String>,
    pub(crate) private_key_file: Maybe<String>,
    pub(crate) addresses: MaybeList<String>,
    pub(crate) interface: Maybe<String>,
    pub(crate) mtu: Maybe<i64>,
    pub(crate) routes: Maybe<bool>,
    pub(crate) table: Option<RawTable>,
    pub(crate) state_dir: Maybe<String>,
    pub(crate) history: Maybe<bool>,
    /// Keys that stand there misspelled or with a wrong type: reported, and not to be reported as
    /// missing.
    pub(crate) broken: Vec<&'static str>,
}

/// `table` is the word `main` or a number.
#[derive(Debug)]
pub(crate) enum RawTable {
    Word(Raw<String>),
    Number(Raw<i64>),
}

/// `[dataplane]`
#[derive(Debug)]
pub(crate) struct RawDataplane {
    pub(crate) workers: Maybe<i64>,
    pub(crate) cpus: MaybeList<i64>,
    pub(crate) pin: Maybe<bool>,
    pub(crate) flow_slots: Maybe<i64>,
    pub(crate) offload: Maybe<String>,
    pub(crate) lanes: Maybe<bool>,
    pub(crate) cipher: Maybe<String>,
    pub(crate) spin_us: Maybe<i64>,
    pub(crate) socket_buffer_kib: Maybe<i64>,
}

/// `[[uplink]]`
#[derive(Debug)]
pub(crate) struct RawUplink {
    pub(crate) line: Line,
    pub(crate) name: Maybe<String>,
    pub(crate) listen_port: Maybe<i64>,
    pub(crate) interface: Maybe<String>,
    pub(crate) io: Maybe<String>,
    pub(crate) mark: Maybe<i64>,
    pub(crate) cost: Maybe<i64>,
    pub(crate) up_mbit: Maybe<f64>,
    pub(crate) down_mbit: Maybe<f64>,
    pub(crate) metered: Maybe<bool>,
    pub(crate) probe_ms: Maybe<i64>,
    pub(crate) probe_idle_ms: Maybe<i64>,
    pub(crate) probe_multiplier: Maybe<i64>,
    pub(crate) broken: Vec<&'static str>,
}

/// `[[peer]]`
#[derive(Debug)]
pub(crate) struct RawPeer {
    pub(crate) line: Line,
    pub(crate) name: Maybe<String>,
    pub(crate) public_key: Maybe<String>,
    pub(crate) endpoint: Maybe<String>,
    pub(crate) endpoints: MaybeList<RawEndpoint>,
    pub(crate) allowed_ips: MaybeList<String>,
    pub(crate) keepalive: Maybe<i64>,
    pub(crate) preshared_key_file: Maybe<String>,
    pub(crate) via: MaybeList<RawVia>,
    pub(crate) broken: Vec<&'static str>,
}

/// One of a peer's `via`.
#[derive(Debug)]
pub(crate) struct RawVia {
    pub(crate) prefix: Maybe<String>,
    pub(crate) probes: MaybeList<String>,
    pub(crate) interval_ms: Maybe<i64>,
    pub(crate) misses: Maybe<i64>,
    pub(crate) unreachable: Maybe<String>,
    pub(crate) broken: Vec<&'static str>,
}

/// One of a peer's `endpoints`: an address, or a table of address and cost.
#[derive(Debug)]
pub(crate) struct RawEndpoint {
    pub(crate) address: Maybe<String>,
    pub(crate) cost: Maybe<i64>,
}

/// `[class.NAME]`
#[derive(Debug)]
pub(crate) struct RawClass {
    pub(crate) line: Line,
    pub(crate) name: String,
    pub(crate) dscp: MaybeList<RawWord>,
    pub(crate) ports: MaybeList<String>,
    pub(crate) labels: MaybeList<String>,
    pub(crate) namespaces: Maybe<String>,
    pub(crate) local: MaybeList<String>,
    pub(crate) remote: MaybeList<String>,
    pub(crate) latency_ms: MaybeList<f64>,
    pub(crate) jitter_ms: MaybeList<f64>,
    pub(crate) loss_pct: MaybeList<f64>,
    pub(crate) scoring: Maybe<String>,
    pub(crate) weights: MaybeList<f64>,
    pub(crate) target_mbit: Maybe<f64>,
    pub(crate) protect: Maybe<bool>,
    pub(crate) prefer: MaybeList<String>,
    pub(crate) default: Maybe<bool>,
}

/// A word or a number.
#[derive(Debug)]
pub(crate) enum RawWord {
    Word(String),
    Number(i64),
}

/// `[policy]`
#[derive(Debug)]
pub(crate) struct RawPolicy {
    pub(crate) directory: Maybe<String>,
    pub(crate) keep_established: Maybe<bool>,
    pub(crate) refusal: Maybe<String>,
}

/// `[prefilter]`
#[derive(Debug)]
pub(crate) struct RawPrefilter {
    pub(crate) wan: Maybe<String>,
    pub(crate) interfaces: MaybeList<String>,
    pub(crate) block_lists: MaybeList<String>,
    pub(crate) bogons: Maybe<bool>,
    pub(crate) initiations_per_second: Maybe<i64>,
    pub(crate) initiations_burst: Maybe<i64>,
    pub(crate) known_receivers: Maybe<bool>,
    pub(crate) lan: Maybe<String>,
}

/// `[api]`
#[derive(Debug)]
pub(crate) struct RawApi {
    pub(crate) line: Line,
    pub(crate) metrics_listen: Maybe<String>,
    pub(crate) listen: Maybe<String>,
    pub(crate) tls_cert: Maybe<String>,
    pub(crate) tls_key: Maybe<String>,
    pub(crate) token_file: Maybe<String>,
    pub(crate) read_token_file: Maybe<String>,
    pub(crate) broken: Vec<&'static str>,
}

/// Reads the shape of `text`. A file that is no TOML yields an empty [`RawConfig`] and reports.
pub(crate) fn read(text: &str, report: &mut Report) -> RawConfig {
    let lines = LineIndex::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut line_before = None;
    for error in &errors {
        let line = lines.line(error.span().map_or(0, |span| span.start));
        // What follows the first mistake of a line is mostly its echo. The parser's own rendering would
        // quote the line, which may hold a secret.
        if line_before.replace(line) != Some(line) {
            report.at(line, format!("not TOML: {}", error.message()));
        }
    }
    let mut raw = RawConfig::default();
    if !errors.is_empty() {
        return raw;
    }
    let mut reader = Reader { lines, report };
    for (name, value) in table.into_inner() {
        let line = reader.lines.line(name.span().start);
        match name.get_ref().as_ref() {
            "site" => raw.site = reader.one(&SITE, line, value).map(read_site),
            "dataplane" => raw.dataplane = reader.one(&DATAPLANE, line, value).map(read_dataplane),
            "uplink" => raw.uplinks = reader.many(&UPLINK, line, value, read_uplink),
            "peer" => raw.peers = reader.many(&PEER, line, value, read_peer),
            "class" => raw.classes = reader.named(&CLASS, line, value, read_class),
            "policy" => raw.policy = reader.one(&POLICY, line, value).map(read_policy),
            "prefilter" => raw.prefilter = reader.one(&PREFILTER, line, value).map(read_prefilter),
            "api" => raw.api = reader.one(&API, line, value).map(read_api),
            unknown => reader
                .report
                .at(line, unknown_at_top(unknown, value.get_ref())),
        }
    }
    raw
}

fn read_site(mut section: Section<'_, '_, '_>) -> RawSite {
    RawSite {
        line: section.line,
        name: section.string("name"),
        private_key_file: section.string("private_key_file"),
        addresses: section.strings("addresses"),
        interface: section.string("interface"),
        mtu: section.integer("mtu"),
        routes: section.boolean("routes"),
        table: section.table("table"),
        state_dir: section.string("state_dir"),
        history: section.boolean("history"),
        broken: section.broken,
    }
}

fn read_dataplane(mut section: Section<'_, '_, '_>) -> RawDataplane {
    RawDataplane {
        workers: section.integer("workers"),
        cpus: section.integers("cpus"),
        pin: section.boolean("pin"),
        flow_slots: section.integer("flow_slots"),
        offload: section.string("offload"),
        lanes: section.boolean("lanes"),
        cipher: section.string("cipher"),
        spin_us: section.integer("spin_us"),
        socket_buffer_kib: section.integer("socket_buffer_kib"),
    }
}

fn read_uplink(mut section: Section<'_, '_, '_>) -> RawUplink {
    RawUplink {
        line: section.line,
        name: section.string("name"),
        listen_port: section.integer("listen_port"),
        interface: section.string("interface"),
        io: section.string("io"),
        mark: section.integer("mark"),
        cost: section.integer("cost"),
        up_mbit: section.number("up_mbit"),
        down_mbit: section.number("down_mbit"),
        metered: section.boolean("metered"),
        probe_ms: section.integer("probe_ms"),
        probe_idle_ms: section.integer("probe_idle_ms"),
        probe_multiplier: section.integer("probe_multiplier"),
        broken: section.broken,
    }
}

fn read_peer(mut section: Section<'_, '_, '_>) -> RawPeer {
    RawPeer {
        line: section.line,
        name: section.string("name"),
        public_key: section.string("public_key"),
        endpoint: section.string("endpoint"),
        endpoints: section.endpoints("endpoints"),
        allowed_ips: section.strings("allowed_ips"),
        keepalive: section.integer("keepalive"),
        preshared_key_file: section.string("preshared_key_file"),
        via: section.vias("via"),
        broken: section.broken,
    }
}

fn read_class(name: String, mut section: Section<'_, '_, '_>) -> RawClass {
    RawClass {
        line: section.line,
        name,
        dscp: section.words("dscp"),
        ports: section.strings("ports"),
        labels: section.strings("labels"),
        namespaces: section.string("namespaces"),
        local: section.strings("local"),
        remote: section.strings("remote"),
        latency_ms: section.numbers("latency_ms"),
        jitter_ms: section.numbers("jitter_ms"),
        loss_pct: section.numbers("loss_pct"),
        scoring: section.string("scoring"),
        weights: section.numbers("weights"),
        target_mbit: section.number("target_mbit"),
        protect: section.boolean("protect"),
        prefer: section.strings("prefer"),
        default: section.boolean("default"),
    }
}

fn read_policy(mut section: Section<'_, '_, '_>) -> RawPolicy {
    RawPolicy {
        directory: section.string("directory"),
        keep_established: section.boolean("keep_established"),
        refusal: section.string("refusal"),
    }
}

fn read_prefilter(mut section: Section<'_, '_, '_>) -> RawPrefilter {
    RawPrefilter {
        wan: section.string("wan"),
        interfaces: section.strings("interfaces"),
        block_lists: section.strings("block_lists"),
        bogons: section.boolean("bogons"),
        initiations_per_second: section.integer("initiations_per_second"),
        initiations_burst: section.integer("initiations_burst"),
        known_receivers: section.boolean("known_receivers"),
        lan: section.string("lan"),
    }
}

fn read_api(mut section: Section<'_, '_, '_>) -> RawApi {
    RawApi {
        line: section.line,
        metrics_listen: section.string("metrics_listen"),
        listen: section.string("listen"),
        tls_cert: section.string("tls_cert"),
        tls_key: section.string("tls_key"),
        token_file: section.string("token_file"),
        read_token_file: section.string("read_token_file"),
        broken: section.broken,
    }
}

struct Reader<'r> {
    lines: LineIndex,
    report: &'r mut Report,
}

impl<'r> Reader<'r> {
    /// A section that a file has once.
    fn one<'s, 'i>(
        &'s mut self,
        schema: &'static Schema,
        line: Line,
        value: Spanned<DeValue<'i>>,
    ) -> Option<Section<'s, 'r, 'i>> {
        let DeValue::Table(table) = value.into_inner() else {
            self.report.at(
                line,
                format!(
                    "{0} stands once, in single brackets: write {0}",
                    schema.title
                ),
            );
            return None;
        };
        Some(self.section(schema, line, table))
    }

    /// A section that a file has any number of times.
    fn many<T>(
        &mut self,
        schema: &'static Schema,
        line: Line,
        value: Spanned<DeValue<'_>>,
        read: fn(Section<'_, '_, '_>) -> T,
    ) -> Vec<T> {
        let misshapen = format!(
            "{0} may repeat, so it takes double brackets: write {0}",
            schema.title
        );
        let DeValue::Array(array) = value.into_inner() else {
            self.report.at(line, misshapen);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in array {
            let line = self.lines.line(element.span().start);
            let DeValue::Table(table) = element.into_inner() else {
                self.report.at(line, misshapen.clone());
                continue;
            };
            sections.push(read(self.section(schema, line, table)));
        }
        sections
    }

    /// Sections that a file has any number of times, each with a name behind a dot; in the order of the file.
    fn named<T>(
        &mut self,
        schema: &'static Schema,
        line: Line,
        value: Spanned<DeValue<'_>>,
        read: fn(String, Section<'_, '_, '_>) -> T,
    ) -> Vec<T> {
        let misshapen = format!("{0} has a name behind the dot: write {0}", schema.title);
        let DeValue::Table(table) = value.into_inner() else {
            self.report.at(line, misshapen);
            return Vec::new();
        };
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut sections = Vec::new();
        for (name, value) in entries {
            let line = self.lines.line(name.span().start);
            let DeValue::Table(table) = value.into_inner() else {
                self.report.at(line, misshapen.clone());
                continue;
            };
            let name = name.into_inner().into_owned();
            sections.push(read(name, self.section(schema, line, table)));
        }
        sections
    }

    fn section<'s, 'i>(
        &'s mut self,
        schema: &'static Schema,
        line: Line,
        table: DeTable<'i>,
    ) -> Section<'s, 'r, 'i> {
        let mut broken = Vec::new();
        for key in table.keys() {
            if !schema.has(key.get_ref()) {
                let line = self.lines.line(key.span().start);
                let (message, meant) = schema.refuse(key.get_ref());
                self.report.at(line, message);
                broken.extend(meant);
            }
        }
        Section {
            schema,
            line,
            table,
            broken,
            reader: self,
        }
    }
}

/// One table of the file while its keys are taken out.
struct Section<'s, 'r, 'i> {
    schema: &'static Schema,
    line: Line,
    table: DeTable<'i>,
    broken: Vec<&'static str>,
    reader: &'s mut Reader<'r>,
}

impl<'i> Section<'_, '_, 'i> {
    fn string(&mut self, key: &'static str) -> Maybe<String> {
        let raw = self.take(key)?;
        match raw.value {
            DeValue::String(text) => Some(Raw {
                value: text.into_owned(),
                line: raw.line,
            }),
            other => self.wrong(key, raw.line, "a string", &other),
        }
    }

    fn integer(&mut self, key: &'static str) -> Maybe<i64> {
        let raw = self.take(key)?;
        match to_i64(&raw.value) {
            Some(value) => Some(Raw {
                value,
                line: raw.line,
            }),
            None => self.wrong(key, raw.line, "an integer", &raw.value),
        }
    }

    fn number(&mut self, key: &'static str) -> Maybe<f64> {
        let raw = self.take(key)?;
        match to_f64(&raw.value) {
            Some(value) => Some(Raw {
                value,
                line: raw.line,
            }),
            None => self.wrong(key, raw.line, "a number", &raw.value),
        }
    }

    fn boolean(&mut self, key: &'static str) -> Maybe<bool> {
        let raw = self.take(key)?;
        match raw.value {
            DeValue::Boolean(value) => Some(Raw {
                value,
                line: raw.line,
            }),
            other => self.wrong(key, raw.line, "true or false", &other),
        }
    }

    fn table(&mut self, key: &'static str) -> Option<RawTable> {
        let raw = self.take(key)?;
        if let DeValue::String(word) = raw.value {
            return Some(RawTable::Word(Raw {
                value: word.into_owned(),
                line: raw.line,
            }));
        }
        match to_i64(&raw.value) {
            Some(value) => Some(RawTable::Number(Raw {
                value,
                line: raw.line,
            })),
            None => self.wrong(key, raw.line, "\"main\" or an integer", &raw.value),
        }
    }

    fn strings(&mut self, key: &'static str) -> MaybeList<String> {
        self.list(key, "a list of strings", |value| match value {
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        })
    }

    fn numbers(&mut self, key: &'static str) -> MaybeList<f64> {
        self.list(key, "a list of numbers", to_f64)
    }

    fn words(&mut self, key: &'static str) -> MaybeList<RawWord> {
        self.list(key, "a list of words and integers", |value| match value {
            DeValue::String(text) => Some(RawWord::Word(text.to_string())),
            _ => to_i64(value).map(RawWord::Number),
        })
    }

    /// Strings and tables of the keys of [`ENDPOINT`].
    fn endpoints(&mut self, key: &'static str) -> MaybeList<RawEndpoint> {
        let expected = "a list of addresses";
        let raw = self.take(key)?;
        let DeValue::Array(array) = raw.value else {
            return self.wrong(key, raw.line, expected, &raw.value);
        };
        let mut elements = Vec::new();
        for element in array {
            let line = self.reader.lines.line(element.span().start);
            let value = match element.into_inner() {
                DeValue::String(text) => RawEndpoint {
                    address: Some(Raw {
                        value: text.into_owned(),
                        line,
                    }),
                    cost: None,
                },
                DeValue::Table(table) => {
                    let mut section = self.reader.section(&ENDPOINT, line, table);
                    let endpoint = RawEndpoint {
                        address: section.string("address"),
                        cost: section.integer("cost"),
                    };
                    if endpoint.address.is_none() && !section.broken.contains(&"address") {
                        let message = "[[peer]] endpoints: a table needs an address: write \
                             { address = \"203.0.113.7:51820\", cost = 10 }";
                        section.reader.report.at(line, message);
                    }
                    endpoint
                }
                other => return self.wrong(key, line, expected, &other),
            };
            elements.push(Raw { value, line });
        }
        Some(Raw {
            value: elements,
            line: raw.line,
        })
    }

    /// Tables of the keys of [`VIA`].
    fn vias(&mut self, key: &'static str) -> MaybeList<RawVia> {
        let expected = "a list of tables";
        let raw = self.take(key)?;
        let DeValue::Array(array) = raw.value else {
            return self.wrong(key, raw.line, expected, &raw.value);
        };
        let mut elements = Vec::new();
        for element in array {
            let line = self.reader.lines.line(element.span().start);
            let table = match element.into_inner() {
                DeValue::Table(table) => table,
                other => return self.wrong(key, line, expected, &other),
            };
            let mut section = self.reader.section(&VIA, line, table);
            let value = RawVia {
                prefix: section.string("prefix"),
                probes: section.strings("probes"),
                interval_ms: section.integer("interval_ms"),
                misses: section.integer("misses"),
                unreachable: section.string("unreachable"),
                broken: section.broken,
            };
            elements.push(Raw { value, line });
        }
        Some(Raw {
            value: elements,
            line: raw.line,
        })
    }

    fn integers(&mut self, key: &'static str) -> MaybeList<i64> {
        self.list(key, "a list of integers", to_i64)
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        to_element: fn(&DeValue<'_>) -> Option<T>,
    ) -> MaybeList<T> {
        let raw = self.take(key)?;
        let DeValue::Array(array) = raw.value else {
            return self.wrong(key, raw.line, expected, &raw.value);
        };
        let mut elements = Vec::new();
        for element in array {
            let line = self.reader.lines.line(element.span().start);
            match to_element(element.get_ref()) {
                Some(value) => elements.push(Raw { value, line }),
                None => return self.wrong(key, line, expected, element.get_ref()),
            }
        }
        Some(Raw {
            value: elements,
            line: raw.line,
        })
    }

    fn take(&mut self, key: &'static str) -> Option<Raw<DeValue<'i>>> {
        debug_assert!(self.schema.has(key), "{key} is missing from its schema");
        let (name, value) = self.table.remove_entry(key)?;
        let line = self.reader.lines.line(name.span().start);
        Some(Raw {
            value: value.into_inner(),
            line,
        })
    }

    fn wrong<T>(
        &mut self,
        key: &'static str,
        line: Line,
        expected: &str,
        found: &DeValue<'_>,
    ) -> Option<T> {
        let found = match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) if to_i64(found).is_none() => "one beyond 64 bits",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let (title, example) = (self.schema.title, self.schema.example(key));
        let message =
            format!("{title} {key}: expected {expected}, found {found}: write {key} = {example}");
        self.reader.report.at(line, message);
        self.broken.push(key);
        None
    }
}

fn to_i64(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Fractions and integers; infinities and NaN are no numbers here.
fn to_f64(value: &DeValue<'_>) -> Option<f64> {
    if let DeValue::Float(float) = value {
        let number: f64 = float.as_str().parse().ok()?;
        return number.is_finite().then_some(number);
    }
    // Exact up to 2^53, and every range ends far below.
    to_i64(value).map(|integer| integer as f64)
}
