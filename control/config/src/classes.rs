//! `[class.NAME]`: kinds of traffic, what each asks of a path, and what belongs to it.

use patronus_packet::Prefix;
use patronus_path::{Bounds, CLASSES_MAX, Scoring};
use patronus_policy::model::{Labels, Selector};

use crate::check::{parsed, prefix, word};
use crate::diagnostic::{Line, Report, quote};
use crate::model::Name;
use crate::raw::{Raw, RawClass, RawWord};
use crate::suggest::nearest;
use crate::uplinks::{Uplinks, rate};

/// The classes: those that every gateway has, and the operator's.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    list: Vec<Class>,
    /// Numbers of classes, in the order in which their matches are asked.
    order: Vec<usize>,
    default: usize,
}

/// One class.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its name.
    pub name: Name,
    /// Bounds of the round trip in milliseconds.
    pub latency_ms: Option<Bounds>,
    /// Bounds of jitter in milliseconds.
    pub jitter_ms: Option<Bounds>,
    /// Bounds of loss in percent.
    pub loss_pct: Option<Bounds>,
    /// How paths are scored.
    pub scoring: Scoring,
    /// Whether its packets go over a second path too while the first is suspect.
    pub protect: bool,
    /// Uplinks that come before all others, best first.
    pub prefer: Vec<Name>,
    /// DSCP values that belong to it, by bit.
    pub dscp: u64,
    /// Ports that belong to it.
    pub ports: Vec<Ports>,
    /// Pods that belong to it, to whatever end of a connection they are.
    pub pods: PodMatch,
    /// Where the machine behind this gateway must be; anywhere if empty.
    pub local: Vec<Prefix>,
    /// Where the machine behind the peer must be; anywhere if empty.
    pub remote: Vec<Prefix>,
}

/// Pods by their labels, as manifests give them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodMatch {
    /// One of these selects the pod; where there is none, every pod of the namespaces.
    pub labels: Vec<Selector>,
    /// Selects the pod's namespace; `None` takes all of them.
    pub namespaces: Option<Selector>,
}

impl PodMatch {
    /// Whether no pod is named at all.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.namespaces.is_none()
    }

    /// Whether it names a pod with these labels, in a namespace with those.
    pub fn matches(&self, pod: &Labels, namespace: &Labels) -> bool {
        let is_selected = self.labels.is_empty() || self.labels.iter().any(|it| it.matches(pod));
        let is_within = self.namespaces.as_ref();
        !self.is_empty() && is_selected && is_within.is_none_or(|it| it.matches(namespace))
    }
}

/// Ports of one protocol, as connections are opened to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// IP protocol number.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, no less than the first.
    pub last: u16,
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            list: built_in(),
            order: (0..BUILT_IN).collect(),
            default: DEFAULT,
        }
    }
}

impl Classes {
    /// The classes, by number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Class> {
        self.list.iter()
    }

    /// The classes with their numbers, in the order in which their matches are asked: the operator's own as they stand
    /// in the file, then those that every gateway has.
    pub fn by_order(&self) -> impl Iterator<Item = (usize, &Class)> {
        self.order.iter().map(|at| (*at, &self.list[*at]))
    }

    /// How many are not just as every gateway has them.
    pub(crate) fn own_count(&self) -> usize {
        let usual = built_in();
        self.list
            .iter()
            .filter(|class| !usual.contains(class))
            .count()
    }

    /// Number of the class of what belongs to no other.
    pub fn default_class(&self) -> usize {
        self.default
    }
}

pub(crate) fn check_classes(raw: Vec<RawClass>, uplinks: &Uplinks, report: &mut Report) -> Classes {
    let mut classes = Classes::default();
    let mut own = Vec::new();
    let mut default_line: Option<Line> = None;
    for class in raw {
        let (line, is_default) = (class.line, class.default.as_ref().map(|is| is.value));
        let name = Raw {
            value: class.name.clone(),
            line,
        };
        let Some(name) = parsed::<Name>(Some(name), "[class.NAME]", report) else {
            continue;
        };
        let known = classes.list.iter().position(|known| known.name == name);
        let at = match known {
            Some(at) => at,
            None if classes.list.len() == CLASSES_MAX => {
                report.at(
                    line,
                    format!(
                        "[class.{name}]: {CLASSES_MAX} classes are the most, and {BUILT_IN} of them are always \
                         there: change one of {} instead",
                        BUILT_IN_NAMES.join(", ")
                    ),
                );
                continue;
            }
            None => {
                classes.list.push(Class::plain(name));
                own.push(classes.list.len() - 1);
                classes.list.len() - 1
            }
        };
        classes.list[at].change(class, uplinks, report);
        if is_default != Some(true) {
            continue;
        }
        if let Some(other) = default_line.replace(line) {
            report.at(
                line,
                format!(
                    "[class.NAME] default: the class of line {other} is the default too: keep one"
                ),
            );
        }
        classes.default = at;
    }
    own.extend(0..BUILT_IN);
    classes.order = own;
    classes
}

impl Class {
    /// A class with the bounds and weights of `default` that nothing belongs to.
    fn plain(name: Name) -> Self {
        Self {
            name,
            latency_ms: bounds(300.0, 1000.0),
            jitter_ms: bounds(80.0, 200.0),
            loss_pct: bounds(2.0, 15.0),
            scoring: DEFAULT_WEIGHTS,
            protect: false,
            prefer: Vec::new(),
            dscp: 0,
            ports: Vec::new(),
            pods: PodMatch::default(),
            local: Vec::new(),
            remote: Vec::new(),
        }
    }

    /// Takes what the file says; what it does not say stays.
    fn change(&mut self, raw: RawClass, uplinks: &Uplinks, report: &mut Report) {
        let name = self.name.clone();
        let place = |key: &str| format!("[class.{name}] {key}");
        for (key, values, mine) in [
            ("latency_ms", raw.latency_ms, &mut self.latency_ms),
            ("jitter_ms", raw.jitter_ms, &mut self.jitter_ms),
            ("loss_pct", raw.loss_pct, &mut self.loss_pct),
        ] {
            if let Some(values) = values {
                let most = if key == "loss_pct" {
                    100.0
                } else {
                    BOUND_MS_MAX
                };
                *mine = check_bounds(values, &place(key), most, report);
            }
        }
        self.scoring = check_scoring(
            self.scoring,
            (raw.scoring, raw.weights, raw.target_mbit),
            &name,
            report,
        );
        if let Some(protect) = raw.protect {
            self.protect = protect.value;
        }
        if let Some(prefer) = raw.prefer {
            self.prefer = check_prefer(prefer, &place("prefer"), uplinks, report);
        }
        if let Some(values) = raw.dscp {
            self.dscp = values.value.into_iter().fold(0, |bits, raw| {
                bits | check_dscp(raw, &place("dscp"), report).map_or(0, |value| 1 << value)
            });
        }
        if let Some(values) = raw.ports {
            let checked = values.value.into_iter();
            self.ports = checked
                .filter_map(|raw| check_ports(raw, &place("ports"), report))
                .collect();
        }
        if let Some(texts) = raw.labels {
            let checked = texts.value.into_iter();
            self.pods.labels = checked
                .filter_map(|raw| parsed(Some(raw), &place("labels"), report))
                .collect();
        }
        if let Some(text) = raw.namespaces {
            self.pods.namespaces = parsed(Some(text), &place("namespaces"), report);
        }
        for (key, values, mine) in [
            ("local", raw.local, &mut self.local),
            ("remote", raw.remote, &mut self.remote),
        ] {
            if let Some(values) = values {
                let checked = values.value.into_iter();
                *mine = checked
                    .filter_map(|raw| prefix(raw, &place(key), report))
                    .map(|prefix| prefix.network())
                    .collect();
            }
        }
    }
}

/// Two ascending numbers from 0; an empty list switches the metric off.
fn check_bounds(
    raw: Raw<Vec<Raw<f64>>>,
    place: &str,
    most: f64,
    report: &mut Report,
) -> Option<Bounds> {
    let numbers: Vec<f64> = raw.value.iter().map(|number| number.value).collect();
    match numbers.as_slice() {
        [] => None,
        [soft, hard] if 0.0 <= *soft && soft < hard && *hard <= most => bounds(*soft, *hard),
        _ => {
            report.at(
                raw.line,
                format!(
                    "{place}: takes the value up to which a path is good and the larger one from which it is \
                     unbearable, from 0 to {most}: write [150, 400], or [] for no bounds"
                ),
            );
            None
        }
    }
}

type RawScoring = (
    Option<Raw<String>>,
    Option<Raw<Vec<Raw<f64>>>>,
    Option<Raw<f64>>,
);

fn check_scoring(
    known: Scoring,
    (scoring, weights, target): RawScoring,
    name: &Name,
    report: &mut Report,
) -> Scoring {
    let fault = format!("[class.{name}] scoring: unknown way");
    let chosen = word(scoring, &fault, &SCORING_WORDS, report).unwrap_or(known);
    let lines = (
        weights.as_ref().map(|raw| raw.line),
        target.as_ref().map(|raw| raw.line),
    );
    let weights = weights.and_then(|raw| check_weights(raw, name, report));
    let target = rate(target, &format!("[class.{name}] target_mbit"), report);
    match (chosen, lines) {
        (Scoring::Voice | Scoring::Throughput { .. }, (Some(line), _)) => report.at(
            line,
            format!("[class.{name}] weights: belong to scoring = \"weighted\": remove one of the two"),
        ),
        (Scoring::Voice | Scoring::Weighted { .. }, (_, Some(line))) => report.at(
            line,
            format!(
                "[class.{name}] target_mbit: belongs to scoring = \"throughput\": remove one of the two"
            ),
        ),
        (Scoring::Voice | Scoring::Weighted { .. } | Scoring::Throughput { .. }, _) => {}
    }
    match (chosen, known) {
        // The word alone does not undo what the class had.
        (Scoring::Weighted { .. }, Scoring::Weighted { .. }) => weights.unwrap_or(known),
        (Scoring::Weighted { .. }, _) => weights.unwrap_or(DEFAULT_WEIGHTS),
        (Scoring::Throughput { target_bps: usual }, known) => {
            let had = match known {
                Scoring::Throughput { target_bps } => target_bps,
                Scoring::Weighted { .. } | Scoring::Voice => usual,
            };
            Scoring::Throughput {
                target_bps: target.map_or(had, |rate| rate.bps()),
            }
        }
        (Scoring::Voice, _) => Scoring::Voice,
    }
}

/// Three shares of latency, jitter and loss; only their proportions count.
fn check_weights(raw: Raw<Vec<Raw<f64>>>, name: &Name, report: &mut Report) -> Option<Scoring> {
    let numbers: Vec<f64> = raw.value.iter().map(|number| number.value).collect();
    if let [latency, jitter, loss] = *numbers.as_slice()
        && numbers
            .iter()
            .all(|share| (0.0..=WEIGHT_MAX).contains(share))
        && latency + jitter + loss > 0.0
    {
        let sum = latency + jitter + loss;
        return Some(Scoring::Weighted {
            latency: latency / sum,
            jitter: jitter / sum,
            loss: loss / sum,
        });
    }
    report.at(
        raw.line,
        format!(
            "[class.{name}] weights: takes three shares, of latency, jitter and loss, not all 0: write \
             [0.3, 0.2, 0.5]"
        ),
    );
    None
}

fn check_prefer(
    raw: Raw<Vec<Raw<String>>>,
    place: &str,
    uplinks: &Uplinks,
    report: &mut Report,
) -> Vec<Name> {
    let mut preferred = Vec::new();
    for name in raw.value {
        let known = uplinks
            .iter()
            .find(|uplink| uplink.name.as_str() == name.value);
        if let Some(uplink) = known {
            if !preferred.contains(&uplink.name) {
                preferred.push(uplink.name.clone());
            }
            continue;
        }
        let names: Vec<&str> = uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
        let fix = match nearest(&name.value, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {}", names.join(", ")),
        };
        report.at(
            name.line,
            format!("{place}: `{}` is no [[uplink]]: {fix}", quote(&name.value)),
        );
    }
    preferred
}

fn check_dscp(raw: Raw<RawWord>, place: &str, report: &mut Report) -> Option<u8> {
    let (shown, fix) = match &raw.value {
        RawWord::Number(number) => match u8::try_from(*number) {
            Ok(value) if value < 64 => return Some(value),
            Ok(_) | Err(_) => (number.to_string(), None),
        },
        RawWord::Word(text) => {
            let lower = text.to_ascii_lowercase();
            let found = DSCP_WORDS.iter().find(|(name, _)| *name == lower);
            if let Some((_, value)) = found {
                return Some(*value);
            }
            let names: Vec<&str> = DSCP_WORDS.iter().map(|(name, _)| *name).collect();
            (quote(text), nearest(text, &names))
        }
    };
    let fix = match fix {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "write a number from 0 to 63, or ef, af11 to af43, cs0 to cs7, le, va".to_owned(),
    };
    report.at(raw.line, format!("{place}: `{shown}` is no DSCP: {fix}"));
    None
}

fn check_ports(raw: Raw<String>, place: &str, report: &mut Report) -> Option<Ports> {
    let ports = read_ports(&raw.value);
    if ports.is_none() {
        report.at(
            raw.line,
            format!(
                "{place}: `{}` is no port: write PROTOCOL/PORT or PROTOCOL/FIRST-LAST with tcp, udp or sctp, such as \
                 \"udp/16384-32767\"",
                quote(&raw.value)
            ),
        );
    }
    ports
}

fn read_ports(text: &str) -> Option<Ports> {
    let (protocol, range) = text.split_once('/')?;
    let (_, protocol) = PROTOCOLS.iter().find(|(name, _)| *name == protocol)?;
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    // `u16::from_str` takes a leading plus, which nobody means.
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|port: &u16| digits && *port != 0)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(Ports {
        protocol: *protocol,
        first,
        last,
    })
}

fn bounds(soft: f64, hard: f64) -> Option<Bounds> {
    Some(Bounds { soft, hard })
}

/// The classes that every gateway has, in the order in which they are asked.
fn built_in() -> Vec<Class> {
    let bits = |values: &[u8]| values.iter().fold(0, |bits, value| bits | 1u64 << value);
    let port = |protocol, port| Ports {
        protocol,
        first: port,
        last: port,
    };
    let [realtime, interactive, default, bulk] =
        BUILT_IN_NAMES.map(|name| Class::plain(Name::built_in(name)));
    vec![
        Class {
            latency_ms: bounds(150.0, 400.0),
            jitter_ms: bounds(20.0, 60.0),
            loss_pct: bounds(1.0, 5.0),
            scoring: Scoring::Voice,
            // EF (RFC 3246), AF4x (RFC 2597)
            dscp: bits(&[46, 34, 36, 38]),
            ..realtime
        },
        Class {
            latency_ms: bounds(200.0, 600.0),
            jitter_ms: bounds(40.0, 120.0),
            loss_pct: bounds(1.0, 8.0),
            scoring: Scoring::Weighted {
                latency: 0.5,
                jitter: 0.2,
                loss: 0.3,
            },
            // AF2x, AF3x
            dscp: bits(&[18, 20, 22, 26, 28, 30]),
            // SSH, RDP, then the databases: SQL Server, Oracle, MySQL, PostgreSQL
            ports: vec![
                port(6, 22),
                port(6, 3389),
                port(17, 3389),
                port(6, 1433),
                port(6, 1521),
                port(6, 3306),
                port(6, 5432),
            ],
            ..interactive
        },
        default,
        Class {
            latency_ms: None,
            jitter_ms: None,
            loss_pct: bounds(3.0, 20.0),
            scoring: Scoring::Throughput {
                target_bps: TARGET_BPS,
            },
            // CS1 (RFC 3662), AF1x
            dscp: bits(&[8, 10, 12, 14]),
            ..bulk
        },
    ]
}

const BUILT_IN: usize = BUILT_IN_NAMES.len();
const BUILT_IN_NAMES: [&str; 4] = ["realtime", "interactive", "default", "bulk"];
/// Place of `default` among them.
const DEFAULT: usize = 2;
const DEFAULT_WEIGHTS: Scoring = Scoring::Weighted {
    latency: 0.3,
    jitter: 0.2,
    loss: 0.5,
};
/// What is enough for a bulk class that names no target.
const TARGET_BPS: f64 = 100e6;
const SCORING_WORDS: [(&str, Scoring); 3] = [
    ("weighted", DEFAULT_WEIGHTS),
    ("voice", Scoring::Voice),
    (
        "throughput",
        Scoring::Throughput {
            target_bps: TARGET_BPS,
        },
    ),
];
const BOUND_MS_MAX: f64 = 60_000.0;
const WEIGHT_MAX: f64 = 1e6;
const PROTOCOLS: [(&str, u8); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];
/// Names of DSCP values (RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622).
const DSCP_WORDS: [(&str, u8); 23] = [
    ("ef", 46),
    ("va", 44),
    ("le", 1),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
];
