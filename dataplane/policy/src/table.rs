//! The immutable tables that workers judge by.

use std::net::IpAddr;
use std::sync::Arc;

use crate::addresses::{Addresses, Endpoint};
use crate::ids::{Chunked, ClassId, Map, NodeId, RuleId};
use crate::model::{Action, Connection, Labels, Pod, Text};
use crate::ports::{Lane, NamedPort};
use crate::row::{AnyPolicy, Layer, Row};
use crate::verdict::{Audit, Cause, DIRECTIONS, Direction, Verdict};

/// A version of the tables. Cheap to clone: versions share what did not change between them.
///
/// # Generations
///
/// [`generation`](Self::generation) grows by one whenever a change of the cluster changed any table, and stays
/// where a change cannot be observed, as that of a label that no policy mentions. A flow entry keeps the lower
/// 16 bits of the generation under which it was judged; where they differ from the table's, its next packet is
/// judged again. There is no finer generation per pair of classes on purpose: to find the pair is most of the
/// cost of a verdict. A flow that sleeps through exactly a multiple of 65,536 generations looks fresh, so the
/// dataplane also judges a flow again that was last seen before the table 32,768 generations ago was published.
#[derive(Clone, Debug)]
pub struct PolicyTable {
    pub(crate) generation: u64,
    pub(crate) addresses: Addresses,
    /// The addresses with several claims.
    pub(crate) contested: Arc<Map<IpAddr, Contested>>,
    /// Shared one by one: a row of many classes changes them all, and copying entries would count every row.
    pub(crate) classes: Chunked<Option<Arc<ClassEntry>>>,
    pub(crate) pods: Chunked<Option<Arc<Pod>>>,
    pub(crate) nodes: Chunked<Option<Text>>,
    pub(crate) rules: Chunked<Option<RuleEntry>>,
    pub(crate) audits: bool,
}

/// Everyone who claims an address: judged as each of them, and one denial denies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contested {
    /// What the address may be; never empty.
    pub(crate) endpoints: Vec<Endpoint>,
    /// The nodes whose own address it is.
    pub(crate) hosts: Vec<NodeId>,
    /// Claimed by more than the limit: such an address is denied altogether.
    pub(crate) overflow: bool,
}

/// The rows of a class in one mode: by direction, then by layer.
pub(crate) type Rows = [[Option<Arc<Row>>; 3]; 2];

/// A class as tables know it.
#[derive(Clone, Debug)]
pub(crate) struct ClassEntry {
    pub(crate) rows: Rows,
    /// The rows with audited policies enforced, where that makes a difference.
    pub(crate) audit: Option<Box<Rows>>,
    pub(crate) facts: Arc<ClassFacts>,
    /// For explanations.
    pub(crate) namespace_labels: Arc<Labels>,
}

/// What policies can see of a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClassFacts {
    pub(crate) namespace: Text,
    /// The labels that policies mention; a value that none mentions is [`UNNAMED_VALUE`].
    pub(crate) labels: Labels,
    /// The named ports that policies mention, sorted.
    pub(crate) ports: Vec<NamedPort>,
}

/// Stands for every value of a label that no selector names: no valid value looks like it.
pub(crate) const UNNAMED_VALUE: &str = "\0";

/// What a [`RuleId`] stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    /// The policy.
    pub policy: AnyPolicy,
    /// The direction.
    pub direction: Direction,
    /// The rule's index in that direction; `None` is the policy's isolation.
    pub rule: Option<u32>,
}

/// Sizes of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Addresses known, of pods and nodes.
    pub addresses: usize,
    /// Classes of pods.
    pub classes: usize,
    /// Distinct rows.
    pub rows: usize,
    /// Port sets in them.
    pub port_sets: usize,
    /// Port intervals in them.
    pub intervals: usize,
    /// Peer entries in them.
    pub peers: usize,
    /// Bytes of what a verdict reads: addresses, classes, rows.
    pub bytes: usize,
}

/// A decision of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allow: bool,
    pub(crate) cause: Cause,
    pub(crate) rule: Option<RuleId>,
    pub(crate) layer: Option<Layer>,
}

impl Decision {
    fn allow(cause: Cause) -> Self {
        Self {
            allow: true,
            cause,
            rule: None,
            layer: None,
        }
    }
}

/// One end of a connection.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) addr: IpAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) class: Option<&'a ClassEntry>,
}

/// Whether policies in audit mode count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audits {
    Ignored,
    Enforced,
}

impl PolicyTable {
    pub(crate) fn empty(seed: u64) -> Self {
        Self {
            generation: 0,
            addresses: Addresses::new(seed),
            contested: Arc::default(),
            classes: Chunked::default(),
            pods: Chunked::default(),
            nodes: Chunked::default(),
            rules: Chunked::default(),
            audits: false,
        }
    }

    /// Grows by one with every change that can be observed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What a flow entry keeps of the generation.
    pub fn flow_generation(&self) -> u16 {
        self.generation as u16
    }

    /// Judges a new connection, by its first packet's ends.
    #[inline]
    pub fn judge(&self, conn: &Connection) -> Verdict {
        let src = self.addresses.find(conn.src);
        let dst = self.addresses.find(conn.dst);
        if !src.is_pod() && !dst.is_pod() {
            return verdict(Direction::Ingress, Decision::allow(Cause::NoPod));
        }
        if src.class == Endpoint::CONTESTED || dst.class == Endpoint::CONTESTED {
            return self.judge_contested(conn, src, dst);
        }
        self.judge_ends(conn, self.end(conn.src, src), self.end(conn.dst, dst))
    }

    pub(crate) fn end(&self, addr: IpAddr, endpoint: Endpoint) -> End<'_> {
        let class = self
            .classes
            .get(endpoint.class.at())
            .and_then(Option::as_deref);
        End {
            addr,
            endpoint,
            class,
        }
    }

    #[inline]
    fn judge_ends(&self, conn: &Connection, src: End<'_>, dst: End<'_>) -> Verdict {
        let mut enforced = self.judge_mode(conn, src, dst, Audits::Ignored);
        if self.audits && has_audit(src) | has_audit(dst) {
            let shadow = self.judge_mode(conn, src, dst, Audits::Enforced);
            enforced.audit = (shadow.allow != enforced.allow).then_some(Audit {
                direction: shadow.direction,
                cause: shadow.cause,
                rule: shadow.rule,
            });
        }
        enforced
    }

    #[inline]
    fn judge_mode(&self, conn: &Connection, src: End<'_>, dst: End<'_>, audits: Audits) -> Verdict {
        let egress = self.decide(Direction::Egress, src, dst, conn, audits);
        if let Some(egress) = egress.filter(|it| !it.allow) {
            return verdict(Direction::Egress, egress);
        }
        match (
            self.decide(Direction::Ingress, dst, src, conn, audits),
            egress,
        ) {
            (Some(ingress), Some(egress))
                if ingress.allow && ingress.cause == Cause::NotIsolated =>
            {
                verdict(Direction::Egress, egress)
            }
            (Some(ingress), _) => verdict(Direction::Ingress, ingress),
            (None, Some(egress)) => verdict(Direction::Egress, egress),
            (None, None) => verdict(Direction::Ingress, Decision::allow(Cause::NoPod)),
        }
    }

    /// What one direction of `subject` says about `peer`; `None` where the subject is no pod.
    #[inline]
    pub(crate) fn decide(
        &self,
        direction: Direction,
        subject: End<'_>,
        peer: End<'_>,
        conn: &Connection,
        audits: Audits,
    ) -> Option<Decision> {
        let class = subject.class?;
        if subject.endpoint.pod == peer.endpoint.pod || subject.addr == peer.addr {
            return Some(Decision::allow(Cause::OwnAddress));
        }
        let home = subject.endpoint.home;
        if home != NodeId::NONE && home == peer.endpoint.host_of {
            return Some(Decision::allow(Cause::OwnNode));
        }
        let rows = match (audits, &class.audit) {
            (Audits::Enforced, Some(rows)) => rows,
            (Audits::Enforced, None) | (Audits::Ignored, _) => &class.rows,
        };
        let (peer_class, peer_facts) = match peer.class {
            Some(class) => (peer.endpoint.class, Some(&*class.facts)),
            None => (ClassId::NONE, None),
        };
        let lane = Lane::of(conn.protocol);
        for row in rows[direction as usize].iter().flatten() {
            let found = row.find(peer_class, peer_facts, peer.addr, lane, conn.dst_port);
            let decision = |allow, cause, rule| Decision {
                allow,
                cause,
                rule,
                layer: Some(row.layer),
            };
            match (found, row.layer) {
                (Some(rule), _) if rule.action != Action::Pass => {
                    let allow = rule.action == Action::Accept;
                    return Some(decision(allow, Cause::Rule, Some(rule.id)));
                }
                (_, Layer::Network) => {
                    return Some(decision(false, Cause::Isolated, row.isolation));
                }
                (_, Layer::Admin | Layer::Baseline) => {}
            }
        }
        Some(Decision::allow(Cause::NotIsolated))
    }

    /// An address with several claims is judged as each of them, and one denial denies.
    fn judge_contested(&self, conn: &Connection, src: Endpoint, dst: Endpoint) -> Verdict {
        let mut allowed = verdict(Direction::Ingress, Decision::allow(Cause::OwnAddress));
        if conn.src == conn.dst {
            return allowed;
        }
        let overflows = |addr| self.contested.get(addr).is_some_and(|it| it.overflow);
        if overflows(&conn.src) || overflows(&conn.dst) {
            return Verdict {
                allow: false,
                cause: Cause::Contested,
                ..allowed
            };
        }
        for (src, dst) in self.pairs(conn, src, dst) {
            let one = self.judge_ends(conn, self.end(conn.src, src), self.end(conn.dst, dst));
            if !one.allow {
                return Verdict { audit: None, ..one };
            }
            let audit = allowed.audit.or(one.audit);
            allowed = Verdict { audit, ..one };
        }
        allowed
    }

    /// Every pair of what the two ends may be.
    pub(crate) fn pairs(
        &self,
        conn: &Connection,
        src: Endpoint,
        dst: Endpoint,
    ) -> impl Iterator<Item = (Endpoint, Endpoint)> {
        let (of_src, of_dst) = (self.contested.get(&conn.src), self.contested.get(&conn.dst));
        let srcs = 0..of_src.map_or(1, |it| it.endpoints.len());
        let dsts = 0..of_dst.map_or(1, |it| it.endpoints.len());
        let pick = |list: Option<&Contested>, at: usize, single| {
            list.map_or(single, |it| it.endpoints[at])
        };
        srcs.flat_map(move |s| {
            dsts.clone().map(move |d| {
                let (mut src, mut dst) = (pick(of_src, s, src), pick(of_dst, d, dst));
                // A node's address that several nodes share is the own node of each.
                let shared = |list: Option<&Contested>, home| {
                    list.is_some_and(|it| it.hosts.contains(&home))
                };
                if shared(of_src, dst.home) {
                    src.host_of = dst.home;
                }
                if shared(of_dst, src.home) {
                    dst.host_of = src.home;
                }
                (src, dst)
            })
        })
    }

    /// What a rule's number stands for, while its policy exists.
    pub fn rule(&self, id: RuleId) -> Option<&RuleEntry> {
        self.rules.get(id.number() as usize)?.as_ref()
    }

    /// All rules with their numbers.
    pub fn rules(&self) -> impl Iterator<Item = (RuleId, &RuleEntry)> {
        let numbered = (0u32..).zip(self.rules.iter());
        numbered.filter_map(|(number, rule)| {
            Some((RuleId(std::num::NonZeroU32::new(number)?), rule.as_ref()?))
        })
    }

    /// The distinct rows, each once.
    pub(crate) fn distinct_rows(&self) -> Vec<&Arc<Row>> {
        let classes = self.classes.iter().flatten();
        let all = classes.flat_map(|it| it.audit.iter().map(|rows| &**rows).chain([&it.rows]));
        let mut seen = crate::ids::Set::default();
        let rows = all.flat_map(|rows| rows.iter().flatten().flatten());
        rows.filter(|row| seen.insert(Arc::as_ptr(row))).collect()
    }

    /// Counts what the table holds; walks all of it.
    pub fn stats(&self) -> Stats {
        let rows = self.distinct_rows();
        let of_rows: usize = rows.iter().map(|it| it.bytes()).sum();
        Stats {
            addresses: self.addresses.len(),
            classes: self.classes.iter().flatten().count(),
            rows: rows.len(),
            port_sets: rows.iter().map(|it| it.sets.len()).sum(),
            intervals: rows.iter().map(|it| it.intervals.len()).sum(),
            peers: rows.iter().map(|it| it.peers.len()).sum(),
            bytes: self.addresses.bytes()
                + self.classes.bytes()
                + self.classes.iter().flatten().count() * size_of::<ClassEntry>()
                + of_rows,
        }
    }
}

fn has_audit(end: End<'_>) -> bool {
    end.class.is_some_and(|it| it.audit.is_some())
}

fn verdict(direction: Direction, decision: Decision) -> Verdict {
    Verdict {
        allow: decision.allow,
        direction,
        cause: decision.cause,
        rule: decision.rule,
        audit: None,
    }
}

// The directions index rows.
const _: () = assert!(DIRECTIONS[0] as usize == 0 && DIRECTIONS[1] as usize == 1);
