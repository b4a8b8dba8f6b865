//! The verdicts of everybody with everybody on every port, before and after.

use crate::diff::ends::{self, EndGroup};
use crate::diff::spans::{self, PortSpan};
use crate::diff::{Side, changed_flow};
use crate::explain::Explanation;
use crate::model::{Connection, Protocol};

/// What changes between everybody and everybody.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// The pairs with a changed verdict, those that are cut first.
    pub changes: Vec<PairChange>,
    /// How many more there are.
    pub left_out: usize,
    /// How many connections were judged, each twice.
    pub probes: u64,
    /// How many groups of ends were compared.
    pub ends: usize,
    /// How many groups of ends were not, to stay below [`PROBES_MAX`].
    pub ends_left_out: usize,
    /// Whether pods of different nodes were told apart.
    pub by_node: bool,
}

/// A pair of ends and the ports on which their verdict changes in one way.
#[derive(Clone, Debug)]
pub struct PairChange {
    /// Who opens connections.
    pub src: EndGroup,
    /// To whom.
    pub dst: EndGroup,
    /// Whether it concerns IPv4, IPv6, or both alike.
    pub families: [bool; 2],
    /// The new verdict.
    pub allow: bool,
    /// On which ports.
    pub ports: Vec<PortSpan>,
    /// One of these connections, before.
    pub old: Explanation,
    /// And after.
    pub new: Explanation,
}

impl Matrix {
    /// Judges everything twice, up to [`PROBES_MAX`] connections.
    pub fn compare(old: &Side, new: &Side) -> Self {
        let clusters = [&old.cluster, &new.cluster];
        let spans = spans::cut(clusters);
        let mut matrix = Self {
            by_node: true,
            ..Self::default()
        };
        let mut groups = ends::groups(clusters, true);
        if cost(&groups, &spans) > PROBES_MAX {
            groups = ends::groups(clusters, false);
            matrix.by_node = false;
        }
        let all = groups.len();
        // Every nth is kept, so that all namespaces keep some.
        let over = cost(&groups, &spans) as f64 / PROBES_MAX as f64;
        if over > 1.0 {
            let step = over.sqrt().ceil() as usize;
            groups = groups.into_iter().step_by(step).collect();
        }
        matrix.ends = groups.len();
        matrix.ends_left_out = all - groups.len();
        for src in &groups {
            for dst in &groups {
                matrix.pair(src, dst, &spans, old, new);
            }
        }
        matrix.changes.sort_by_key(|it| it.allow);
        matrix
    }

    fn pair(&mut self, src: &EndGroup, dst: &EndGroup, spans: &[PortSpan], old: &Side, new: &Side) {
        // Between two that no policy protects nothing can change, unless one of them was a pod before: then the
        // tables say so.
        let pairs = [src.v4.zip(dst.v4), src.v6.zip(dst.v6)];
        let found = pairs.map(|pair| {
            let Some((from, to)) = pair.filter(|(from, to)| from != to) else {
                return Found::default();
            };
            let mut found = Found::default();
            for span in spans {
                let connection = connection(from, to, span);
                self.probes += 1;
                let before = old.table.judge(&connection).allow;
                let after = new.table.judge(&connection).allow;
                if before != after {
                    found.add(after, *span, connection);
                }
            }
            found
        });
        let [v4, v6] = found;
        for allow in [false, true] {
            let [four, six] = [&v4, &v6].map(|it| &it.ports[usize::from(allow)]);
            let alike = four == six;
            for (families, found, ports) in [([true, alike], &v4, four), ([false, true], &v6, six)]
            {
                let again = alike && !families[0];
                let example = found.examples[usize::from(allow)].filter(|_| !again);
                if let Some(example) = example {
                    self.add(old, new, &example, |old, new| PairChange {
                        src: src.clone(),
                        dst: dst.clone(),
                        families,
                        allow,
                        ports: ports.clone(),
                        old,
                        new,
                    });
                }
            }
        }
    }

    fn add(
        &mut self,
        old: &Side,
        new: &Side,
        example: &Connection,
        change: impl FnOnce(Explanation, Explanation) -> PairChange,
    ) {
        if self.changes.len() >= CHANGES_MAX {
            self.left_out += 1;
            return;
        }
        if let Some(it) = changed_flow(old, new, example) {
            self.changes.push(change(it.old, it.new));
        }
    }
}

/// What changes for one pair of addresses, by the new verdict.
#[derive(Default)]
struct Found {
    ports: [Vec<PortSpan>; 2],
    examples: [Option<Connection>; 2],
}

impl Found {
    fn add(&mut self, allow: bool, span: PortSpan, connection: Connection) {
        let at = usize::from(allow);
        self.examples[at].get_or_insert(connection);
        match self.ports[at].last_mut() {
            Some(last) if last.meets(&span) => last.last = span.last,
            Some(_) | None => self.ports[at].push(span),
        }
    }
}

fn connection(src: std::net::IpAddr, dst: std::net::IpAddr, span: &PortSpan) -> Connection {
    let protocol = match span.protocol {
        Some(Protocol::Tcp) => 6,
        Some(Protocol::Udp) => 17,
        Some(Protocol::Sctp) => 132,
        None if src.is_ipv4() => 1,
        None => 58,
    };
    Connection {
        src,
        dst,
        protocol,
        dst_port: span.first,
    }
}

fn cost(groups: &[EndGroup], spans: &[PortSpan]) -> u64 {
    let v4 = groups.iter().filter(|it| it.v4.is_some()).count() as u64;
    let v6 = groups.iter().filter(|it| it.v6.is_some()).count() as u64;
    (v4 * v4 + v6 * v6) * spans.len() as u64
}

/// How many connections are judged at most: seconds of work.
pub const PROBES_MAX: u64 = 10_000_000;
/// How many changed pairs are listed.
const CHANGES_MAX: usize = 10_000;
