//! Policy test documents: clusters, changes, policies, and which connections they allow.
//!
//! Operators keep them beside their manifests and run them before an apply. A document is read with
//! [`Document::parse`] and run with [`Document::run`] against anything that is a [`Judge`], both on an engine that
//! took every change one by one and on one that is built afresh for each step.

mod ask;
mod ops;
mod parse;
mod report;
mod run;
mod tables;

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::diagnostic::Diagnostic;
use crate::manifest::Loaded;
use crate::model::{Change, Connection, ObjectName, Text};
pub use ask::connection;
use ops::Op;
pub use report::{Failure, Level, Scope, Tally, TestReport};

/// What judges connections: an engine under test.
pub trait Judge {
    /// An engine that knows that cluster.
    fn fresh(cluster: &Cluster) -> Self
    where
        Self: Sized;

    /// Takes one change.
    fn apply(&mut self, change: &Change);

    /// Whether the first packet of a connection passes.
    fn judge(&self, connection: &Connection) -> bool;

    /// Why: the deciding rule, or what isolates.
    fn reason(&self, connection: &Connection) -> String;
}

/// A document as it was read. A case that cannot be read stays in it, and fails when it is run.
#[derive(Clone, Debug)]
pub struct Document {
    cases: Vec<Case>,
    validation: Vec<Validation>,
}

impl Document {
    /// How many cases and validations it has.
    pub fn len(&self) -> usize {
        self.cases.len() + self.validation.len()
    }

    /// Whether it tests nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug)]
struct Case {
    id: String,
    group: String,
    title: String,
    is_optional: bool,
    /// The faults, where it cannot be run.
    body: Result<Body, Vec<Diagnostic>>,
}

#[derive(Clone, Debug)]
struct Body {
    cluster: Arc<Cluster>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    ops: Vec<Op>,
    policies: Loaded,
    tables: Vec<Table>,
    probes: Vec<Probe>,
}

#[derive(Clone, Debug)]
struct Validation {
    id: String,
    title: String,
    expects_valid: bool,
    loaded: Loaded,
}

#[derive(Clone, Debug)]
struct Table {
    transport: Transport,
    src: Vec<End>,
    dst: Vec<End>,
    /// A row per source, a cell per destination.
    cells: Vec<Vec<Cell>>,
}

/// What a cell of a table expects; `None` is not scored.
type Cell = Option<Expected>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    allow: bool,
    level: Level,
}

#[derive(Clone, Debug)]
struct Probe {
    src: End,
    dst: End,
    transport: Transport,
    kind: ProbeKind,
    expected: Expected,
    because: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeKind {
    /// The first packet of a connection.
    New,
    /// A packet of the other direction, which passes if the connection does.
    Reply,
    /// A packet from the destination's port to this port of the source, without a connection.
    Unsolicited { sport: u16 },
}

/// A protocol and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// As the document spells it; `None` is ICMP of the family at hand.
    number: Option<u8>,
    port: u16,
}

/// An end of a probe: a pod, a node, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    place: EndPlace,
    family: Option<Family>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EndPlace {
    Pod(ObjectName),
    Node(Text),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}
