//! Runs a document against an engine.

use std::fmt;
use std::net::IpAddr;

use crate::cluster::Cluster;
use crate::diagnostic::{Severity, quote};
use crate::document::{
    Body, Case, Document, End, EndPlace, Expected, Failure, Family, Judge, Level, Probe, ProbeKind,
    Scope, Step, TestReport, Transport, Validation,
};
use crate::manifest::Object;
use crate::model::Connection;

impl Document {
    /// Runs every case and validation; `file` is the document's name for the failures.
    pub fn run<J: Judge>(&self, file: &str) -> TestReport {
        let mut report = TestReport::default();
        for case in &self.cases {
            let mut run = CaseRun {
                file,
                case,
                step: None,
                report: &mut report,
            };
            match &case.body {
                Ok(body) => run.steps::<J>(body),
                Err(faults) => faults
                    .iter()
                    .for_each(|fault| run.fault("", "a case that can be read", fault.to_string())),
            }
        }
        for validation in &self.validation {
            validation.run(file, &mut report);
        }
        report
    }
}

impl Validation {
    fn run(&self, file: &str, report: &mut TestReport) {
        let is_valid = !self.loaded.objects.is_empty() && !self.loaded.has_errors();
        if is_valid == self.expects_valid {
            return report.pass(Level::Must);
        }
        let word = |valid| if valid { "valid" } else { "invalid" };
        let errors: Vec<String> = self
            .loaded
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        report.fail(Failure {
            file: file.to_owned(),
            case: self.id.clone(),
            group: String::new(),
            title: self.title.clone(),
            step: None,
            probe: "validation".to_owned(),
            level: Level::Must,
            scope: Scope::Both,
            expected: word(self.expects_valid).to_owned(),
            got: word(is_valid).to_owned(),
            reason: errors.join("; "),
        });
    }
}

/// A case that is being run.
struct CaseRun<'r> {
    file: &'r str,
    case: &'r Case,
    step: Option<usize>,
    report: &'r mut TestReport,
}

/// The two engines whose verdicts must both hold.
struct Engines<J> {
    incremental: J,
    fresh: J,
}

impl CaseRun<'_> {
    fn steps<J: Judge>(&mut self, body: &Body) {
        let mut state = (*body.cluster).clone();
        let mut incremental = J::fresh(&state);
        for (at, step) in body.steps.iter().enumerate() {
            self.step = Some(at);
            self.change(step, &mut state, &mut incremental);
            let engines = Engines {
                incremental,
                fresh: J::fresh(&state),
            };
            self.tables(step, &state, &engines);
            self.probes(step, &state, &engines);
            incremental = engines.incremental;
        }
    }

    fn change<J: Judge>(&mut self, step: &Step, state: &mut Cluster, engine: &mut J) {
        for (at, op) in step.ops.iter().enumerate() {
            match op.to_change(state) {
                Ok(change) => {
                    state.apply(&change);
                    engine.apply(&change);
                }
                Err(fault) => self.fault(&format!("ops[{at}]"), "a change", fault),
            }
        }
        for change in step
            .policies
            .objects
            .iter()
            .cloned()
            .map(Object::into_change)
        {
            state.apply(&change);
            engine.apply(&change);
        }
        // A refused policy leaves its previous version in force; the case fails.
        let refusals = step
            .policies
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error);
        for refusal in refusals {
            self.fault("policies", "a valid policy", refusal.to_string());
        }
    }

    fn tables<J: Judge>(&mut self, step: &Step, state: &Cluster, engines: &Engines<J>) {
        for (at, table) in step.tables.iter().enumerate() {
            for (src, row) in table.src.iter().zip(&table.cells) {
                for (dst, cell) in table.dst.iter().zip(row) {
                    let Some(expected) = cell else { continue };
                    let probe = Asked {
                        list: "tables",
                        at,
                        src,
                        dst,
                        transport: table.transport,
                        kind: ProbeKind::New,
                        because: "",
                    };
                    self.judge(&probe, *expected, state, engines);
                }
            }
        }
    }

    fn probes<J: Judge>(&mut self, step: &Step, state: &Cluster, engines: &Engines<J>) {
        for (at, probe) in step.probes.iter().enumerate() {
            let Probe {
                src,
                dst,
                transport,
                kind,
                expected,
                because,
            } = probe;
            let asked = Asked {
                list: "probes",
                at,
                src,
                dst,
                transport: *transport,
                kind: *kind,
                because,
            };
            self.judge(&asked, *expected, state, engines);
        }
    }

    fn judge<J: Judge>(
        &mut self,
        asked: &Asked<'_>,
        expected: Expected,
        state: &Cluster,
        engines: &Engines<J>,
    ) {
        let level = self.level(expected.level);
        let connection = match asked.connection(state) {
            Ok(connection) => connection,
            Err(fault) => {
                return self.fail(asked.to_string(), level, expected.allow, "an error", fault);
            }
        };
        let found = (
            engines.incremental.judge(&connection),
            engines.fresh.judge(&connection),
        );
        let (scope, engine) = match (found.0 == expected.allow, found.1 == expected.allow) {
            (true, true) => return self.report.pass(level),
            (false, true) => (Scope::Incremental, &engines.incremental),
            (true, false) => (Scope::Fresh, &engines.fresh),
            (false, false) => (Scope::Both, &engines.fresh),
        };
        if self.report.fail_unlisted(level) {
            return;
        }
        let mut reason = engine.reason(&connection);
        if !asked.because.is_empty() {
            reason = format!("{reason} (expected because {})", asked.because);
        }
        let mut failure = self.failure(asked.to_string(), level, word(expected.allow));
        failure.got = word(!expected.allow).to_owned();
        failure.scope = scope;
        failure.reason = reason;
        self.report.fail(failure);
    }

    /// What the case asks for cannot be done.
    fn fault(&mut self, probe: &str, expected: &str, reason: String) {
        let mut failure = self.failure(probe.to_owned(), self.level(Level::Must), expected);
        failure.got = "an error".to_owned();
        failure.reason = reason;
        self.report.fail(failure);
    }

    fn fail(&mut self, probe: String, level: Level, allow: bool, got: &str, reason: String) {
        let mut failure = self.failure(probe, level, word(allow));
        failure.got = got.to_owned();
        failure.reason = reason;
        self.report.fail(failure);
    }

    fn failure(&self, probe: String, level: Level, expected: &str) -> Failure {
        Failure {
            file: self.file.to_owned(),
            case: self.case.id.clone(),
            group: self.case.group.clone(),
            title: self.case.title.clone(),
            step: self.step,
            probe,
            level,
            scope: Scope::Both,
            expected: expected.to_owned(),
            got: String::new(),
            reason: String::new(),
        }
    }

    fn level(&self, level: Level) -> Level {
        match self.case.is_optional {
            true => Level::Optional,
            false => level,
        }
    }
}

fn word(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}

/// A cell of a table or a probe, on its way to a connection.
pub(super) struct Asked<'p> {
    pub(super) list: &'static str,
    pub(super) at: usize,
    pub(super) src: &'p End,
    pub(super) dst: &'p End,
    pub(super) transport: Transport,
    pub(super) kind: ProbeKind,
    pub(super) because: &'p str,
}

impl Asked<'_> {
    pub(super) fn connection(&self, state: &Cluster) -> Result<Connection, String> {
        let (sources, targets) = (self.src.addresses(state)?, self.dst.addresses(state)?);
        let (mut src, mut dst) = (sources[0], targets[0]);
        // First addresses of different families are no connection: the other end's first one of the same family is
        // meant where there is one.
        if Family::of(src) != Family::of(dst) {
            let same = |ips: &[IpAddr], as_ip| {
                let mut ips = ips.iter().copied();
                ips.find(|ip| Family::of(*ip) == Family::of(as_ip))
            };
            match (same(&targets, src), same(&sources, dst)) {
                (Some(found), _) => dst = found,
                (None, Some(found)) => src = found,
                (None, None) => {
                    return Err(format!("{src} and {dst} are not of the same family"));
                }
            }
        }
        let protocol = self.transport.number.unwrap_or(match Family::of(src) {
            Family::V4 => ICMP,
            Family::V6 => ICMPV6,
        });
        let dst_port = self.transport.port;
        Ok(match self.kind {
            ProbeKind::New | ProbeKind::Reply => Connection {
                src,
                dst,
                protocol,
                dst_port,
            },
            ProbeKind::Unsolicited { sport } => Connection {
                src: dst,
                dst: src,
                protocol,
                dst_port: sport,
            },
        })
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            list, at, src, dst, ..
        } = self;
        write!(f, "{list}[{at}] {src} -> {dst} {}", self.transport)?;
        match self.kind {
            ProbeKind::New => Ok(()),
            ProbeKind::Reply => f.write_str(" reply"),
            ProbeKind::Unsolicited { sport } => write!(f, " unsolicited reply to {sport}"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(6) => write!(f, "TCP/{}", self.port),
            Some(17) => write!(f, "UDP/{}", self.port),
            Some(132) => write!(f, "SCTP/{}", self.port),
            Some(number) => write!(f, "protocol {number}"),
            None => f.write_str("ICMP"),
        }
    }
}

impl End {
    /// Its addresses that may be meant, in order; never none.
    fn addresses(&self, state: &Cluster) -> Result<Vec<IpAddr>, String> {
        let mut ips = match &self.place {
            EndPlace::Address(ip) => vec![*ip],
            EndPlace::Node(name) => {
                let node = state.nodes.get(name);
                node.ok_or_else(|| format!("there is no node {}", quote(name)))?
                    .ips
                    .clone()
            }
            EndPlace::Pod(id) => {
                let pod = state.pods.get(id);
                let pod =
                    pod.ok_or_else(|| format!("there is no pod {}", quote(&id.to_string())))?;
                let node = pod.node.as_ref().and_then(|name| state.nodes.get(name));
                match node {
                    // Its addresses are its node's.
                    Some(node) if pod.host_network && pod.ips.is_empty() => node.ips.clone(),
                    Some(_) | None => pod.ips.clone(),
                }
            }
        };
        ips.retain(|ip| self.family.is_none_or(|family| Family::of(*ip) == family));
        match ips.is_empty() {
            true => Err(format!("{self} has no address")),
            false => Ok(ips),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            EndPlace::Pod(id) => f.write_str(&quote(&id.to_string()))?,
            EndPlace::Node(name) => write!(f, "node:{}", quote(name))?,
            EndPlace::Address(ip) => write!(f, "ip:{ip}")?,
        }
        match self.family {
            Some(Family::V4) => f.write_str("@4"),
            Some(Family::V6) => f.write_str("@6"),
            None => Ok(()),
        }
    }
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
