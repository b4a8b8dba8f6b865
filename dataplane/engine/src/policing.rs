//! Policy at the pipeline: when a connection is judged, for whom, and what its flow entry remembers.
//!
//! ```text
//! a hit of this generation passes, or is dropped          (the pipeline alone: no look at any table)
//! anything else: what is known -> what is asked -> the verdict -> the entry
//! ```
//!
//! - A connection is judged once per generation, as its opener sent its first packet; both directions then pass.
//! - A packet that opens a connection ([`Role::Opening`]) from the side that did not open the flow is judged as a
//!   connection of its own. Denied, it is dropped and the flow goes on; allowed, the flow is its sender's from then on.
//! - A packet against a flow that was never allowed is judged as a connection of its own, too.
//! - A flow that was allowed once and is denied by a later configuration is cut in both directions, so that the far
//!   end's next packet is not taken for a connection that it opens.
//! - ICMP errors and later fragments have no flow of their own: they pass with the flow that they belong to, or are
//!   judged one by one, and open nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patronus_packet::inspect::{fragment_id, role};
use patronus_packet::parse::{SCTP, TCP, UDP};
use patronus_packet::{FlowKey, Fragment, PacketInfo, Role};
use patronus_policy::model::Connection;
use patronus_policy::{RuleId, Verdict};

use crate::engine::{Denial, Engine, Event};
use crate::flow_table::{Flow, FlowSlot, OpenedBy, Passage, RuleNumber};
use crate::rule_counts::{Added, RULES_MAX, RuleCounts};
use crate::snapshot::{Generation, PeerId, Policy};

/// Events of one rule: one in this time.
const EVENT_INTERVAL_S: u32 = 1;
/// Events of all rules.
const EVENTS: Rate = Rate {
    per_s: 20,
    burst: 40,
};
/// Answers to denied packets.
const REFUSALS: Rate = Rate {
    per_s: 100,
    burst: 50,
};
/// Packets in fragments that are on their way at once.
const FRAGMENTED_MAX: usize = 256;
/// How long the rest of a packet may be behind its first fragment: as long as Linux waits for it.
const FRAGMENT_WAIT_S: u32 = 30;

/// What a worker remembers for policy beside its flows.
pub(crate) struct Policing {
    pub(crate) counts: Arc<RuleCounts>,
    /// When each rule's last event was, by cell; seconds plus one.
    told_s: Box<[u32]>,
    events: Bucket,
    refusals: Bucket,
    fragmented: Box<[Option<Fragmented>]>,
}

/// A packet whose first fragment passed.
#[derive(Clone, Copy)]
struct Fragmented {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
    generation: Generation,
    until_s: u32,
}

/// What policy has to know of a packet besides its flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) role: Role,
    fragment: Fragment,
    id: u32,
}

impl Look {
    /// Where no policy is in force, nothing has to be known.
    const NONE: Self = Self {
        role: Role::Ordinary,
        fragment: Fragment::None,
        id: 0,
    };

    /// Looks at a packet, where the configuration has a policy.
    #[inline]
    pub(crate) fn at(packet: &[u8], info: &PacketInfo, policy: Option<&Policy>) -> Self {
        if policy.is_none() {
            return Self::NONE;
        }
        let id = match info.fragment {
            Fragment::None => 0,
            Fragment::First | Fragment::Later => fragment_id(packet, info).unwrap_or(0),
        };
        Self {
            role: role(packet, info),
            fragment: info.fragment,
            id,
        }
    }

    #[inline]
    pub(crate) fn is_opening(&self) -> bool {
        self.role == Role::Opening
    }

    /// Whether the packet belongs to a flow by its own headers.
    #[inline]
    pub(crate) fn has_flow(&self) -> bool {
        !matches!(self.role, Role::Error(_)) && self.fragment != Fragment::Later
    }

    /// Whether the rest of its packet is to follow it.
    #[inline]
    pub(crate) fn is_first_fragment(&self) -> bool {
        self.fragment == Fragment::First
    }

    /// Whether it is like any other packet of its flow.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.role == Role::Ordinary && self.fragment == Fragment::None
    }
}

/// A packet under judgement.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    /// From local to remote.
    pub(crate) key: &'a FlowKey,
    /// The owner of the remote end.
    pub(crate) peer: PeerId,
    /// Who sent the packet.
    pub(crate) side: OpenedBy,
    pub(crate) look: Look,
    /// Packets: the segments of a superpacket.
    pub(crate) packets: u64,
    pub(crate) now: Instant,
    pub(crate) now_s: u32,
}

impl Case<'_> {
    /// The key as that side sends it.
    fn key_from(&self, opener: OpenedBy) -> FlowKey {
        match opener {
            OpenedBy::Local => *self.key,
            OpenedBy::Remote => self.key.reversed(),
        }
    }
}

/// What is to be done with a packet, by what is known of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The flow's answer stands.
    Stands(Passage),
    /// The connection that this side opens has to be judged.
    Judge(OpenedBy),
}

/// Reads off a flow what its next packet means. `fresh`: it was judged under this configuration.
fn step(flow: &Flow, side: OpenedBy, is_opening: bool, fresh: bool, keep: bool) -> Step {
    let is_opener = flow.opened_by == side;
    match flow.passage {
        Passage::Allowed if fresh && (is_opener || !is_opening) => Step::Stands(Passage::Allowed),
        Passage::Allowed | Passage::Kept if is_opening => Step::Judge(side),
        Passage::Kept if fresh => Step::Stands(Passage::Kept),
        Passage::Allowed | Passage::Kept if keep => Step::Stands(Passage::Kept),
        Passage::Allowed | Passage::Kept => Step::Judge(flow.opened_by),
        Passage::Denied(_) if fresh && is_opener => Step::Stands(flow.passage),
        Passage::Denied(_) => Step::Judge(side),
        Passage::Cut(_) if fresh && (is_opener || !is_opening) => Step::Stands(flow.passage),
        Passage::Cut(_) if is_opening => Step::Judge(side),
        Passage::Cut(_) => Step::Judge(flow.opened_by),
    }
}

/// What the entry becomes once the connection that `opener` opens is denied by `rule`; `None`: it stays as it is.
fn denied(flow: Option<&Flow>, opener: OpenedBy, rule: RuleNumber, keep: bool) -> Option<Passage> {
    let Some(flow) = flow else {
        return Some(Passage::Denied(rule));
    };
    let is_opener = flow.opened_by == opener;
    match flow.passage {
        // Only the attempt is refused, be it the other side's or a second one of the same ports.
        Passage::Allowed | Passage::Kept if !is_opener || keep => None,
        Passage::Allowed | Passage::Kept => Some(Passage::Cut(rule)),
        Passage::Cut(_) if !is_opener => None,
        Passage::Cut(_) => Some(Passage::Cut(rule)),
        Passage::Denied(_) => Some(Passage::Denied(rule)),
    }
}

/// Decides about a packet whose entry is missing, of another generation, or does not simply let it pass; writes the
/// answer into the entry. `None`: policy denies it, and it is counted under its rule.
pub(crate) fn enter(
    engine: &mut Engine,
    known: Option<FlowSlot>,
    case: &Case<'_>,
) -> Option<FlowSlot> {
    let snapshot = engine.snapshot.clone();
    let Some(policy) = snapshot.policy() else {
        debug_assert!(false, "nobody asks for a policy that there is not");
        return known;
    };
    let flow = known_flow(engine, known, case);
    let (opener, passage) = match flow {
        None => (case.side, None),
        Some(flow) => {
            let fresh = flow.generation == snapshot.generation().0 as u16;
            match step(
                &flow,
                case.side,
                case.look.is_opening(),
                fresh,
                policy.keep_established,
            ) {
                Step::Stands(passage) => (flow.opened_by, Some(passage)),
                Step::Judge(opener) => (opener, None),
            }
        }
    };
    let passage = match passage {
        Some(passage) => passage,
        None => {
            let key = case.key_from(opener);
            let verdict = judge(policy, &key);
            let was_denied =
                flow.is_some_and(|it| it.opened_by == opener && !it.passage.is_allowed());
            report(engine, case, opener, &verdict, was_denied);
            match verdict.allow {
                true => Passage::Allowed,
                false => {
                    let rule = number(verdict.rule);
                    count_packets(engine, rule, case);
                    if let Some(passage) =
                        denied(flow.as_ref(), opener, rule, policy.keep_established)
                    {
                        write(engine, known, case, opener, passage);
                    }
                    return None;
                }
            }
        }
    };
    match passage {
        Passage::Allowed | Passage::Kept => {
            if flow.is_none_or(|it| !it.passage.is_allowed()) {
                engine.counters.flows_opened += 1;
            }
            Some(write(engine, known, case, opener, passage))
        }
        Passage::Denied(rule) | Passage::Cut(rule) => {
            count_packets(engine, rule, case);
            let slot = match known {
                Some(slot) => slot,
                None => write(engine, None, case, opener, passage),
            };
            if case.side == opener {
                // What the other side still sends into a cut flow does not keep the cut alive.
                engine.flows.touch(slot, case.packets as u32, 0, case.now_s);
            }
            None
        }
    }
}

/// The flow as this worker knows it, or a sibling: a sibling's allowed flow counts for more than a denial of ours,
/// because replies may be delivered to a worker that saw only an attempt fail.
fn known_flow(engine: &Engine, known: Option<FlowSlot>, case: &Case<'_>) -> Option<Flow> {
    let own = known.map(|slot| engine.flows.flow(slot));
    let settled = match own {
        Some(flow) => flow.passage.is_allowed() || case.look.is_opening(),
        None => false,
    };
    if settled {
        return own;
    }
    let generation = engine.snapshot.generation().0 as u16;
    let elsewhere = engine
        .siblings
        .iter()
        .filter_map(|table| table.find(case.key, case.now_s));
    let rank = |flow: &Flow| (flow.passage.is_allowed(), flow.generation == generation);
    match (own, elsewhere.max_by_key(rank)) {
        (Some(_), Some(other)) if rank(&other) == (true, true) => Some(other),
        (None, other) => other,
        (own, _) => own,
    }
}

fn write(
    engine: &mut Engine,
    known: Option<FlowSlot>,
    case: &Case<'_>,
    opener: OpenedBy,
    passage: Passage,
) -> FlowSlot {
    let generation = engine.snapshot.generation();
    match known {
        Some(slot) => {
            engine
                .flows
                .judge(slot, case.peer, opener, passage, generation);
            slot
        }
        None => engine
            .flows
            .insert_judged(case.key, case.peer, opener, passage, generation, case.now_s),
    }
}

/// Decides about an ICMP error or a later fragment. It changes no flow.
pub(crate) fn passes_alone(engine: &mut Engine, case: &Case<'_>) -> bool {
    let snapshot = engine.snapshot.clone();
    let Some(policy) = snapshot.policy() else {
        return true;
    };
    let sent = case.key_from(case.side);
    let is_related = match case.look.role {
        // The quoted packet went the other way, and the error goes to its sender.
        Role::Error(Some(quoted)) => {
            let key = match case.side {
                OpenedBy::Local => quoted.reversed(),
                OpenedBy::Remote => quoted,
            };
            quoted.src == sent.dst && is_allowed_flow(engine, policy, &key, case.now_s)
        }
        Role::Error(None) => false,
        Role::Ordinary | Role::Opening => is_rest_of_packet(engine, &sent, case),
    };
    if is_related {
        return true;
    }
    let verdict = judge(policy, &sent);
    report(engine, case, case.side, &verdict, false);
    if !verdict.allow {
        count_packets(engine, number(verdict.rule), case);
    }
    verdict.allow
}

fn is_allowed_flow(engine: &Engine, policy: &Policy, key: &FlowKey, now_s: u32) -> bool {
    let generation = engine.snapshot.generation().0 as u16;
    let passes = |flow: Flow| {
        let opened = match flow.opened_by {
            OpenedBy::Local => *key,
            OpenedBy::Remote => key.reversed(),
        };
        let holds = flow.generation == generation || policy.keep_established;
        flow.passage.is_allowed() && (holds || judge(policy, &opened).allow)
    };
    let own = engine
        .flows
        .lookup(key, now_s)
        .map(|slot| engine.flows.flow(slot));
    own.is_some_and(passes)
        || engine
            .siblings
            .iter()
            .any(|table| table.find(key, now_s).is_some_and(passes))
}

/// Notes a first fragment that passed, so that the rest of its packet may follow.
pub(crate) fn passed(engine: &mut Engine, case: &Case<'_>) {
    debug_assert!(case.look.is_first_fragment());
    let sent = case.key_from(case.side);
    let at = place(&sent, case.look.id, engine.config.seed);
    engine.policing.fragmented[at] = Some(Fragmented {
        src: sent.src,
        dst: sent.dst,
        protocol: sent.protocol,
        id: case.look.id,
        generation: engine.snapshot.generation(),
        until_s: case.now_s.saturating_add(FRAGMENT_WAIT_S),
    });
}

fn is_rest_of_packet(engine: &Engine, sent: &FlowKey, case: &Case<'_>) -> bool {
    let at = place(sent, case.look.id, engine.config.seed);
    engine.policing.fragmented[at].is_some_and(|it| {
        (it.src, it.dst, it.protocol, it.id) == (sent.src, sent.dst, sent.protocol, case.look.id)
            && it.generation == engine.snapshot.generation()
            && case.now_s <= it.until_s
    })
}

fn place(sent: &FlowKey, id: u32, seed: u64) -> usize {
    let key = FlowKey {
        src_port: id as u16,
        dst_port: (id >> 16) as u16,
        ..*sent
    };
    key.symmetric_hash(seed) as usize % FRAGMENTED_MAX
}

/// Asks the tables about the connection that `key` opens.
fn judge(policy: &Policy, key: &FlowKey) -> Verdict {
    policy.table.judge(&Connection {
        src: key.src,
        dst: key.dst,
        protocol: key.protocol,
        dst_port: match key.protocol {
            TCP | UDP | SCTP => key.dst_port,
            // Of an echo the key has the identifier.
            _ => 0,
        },
    })
}

fn number(rule: Option<RuleId>) -> RuleNumber {
    rule.map_or(RuleNumber::NONE, |rule| RuleNumber(rule.number()))
}

fn count_packets(engine: &Engine, rule: RuleNumber, case: &Case<'_>) {
    let counts = &engine.policing.counts;
    let added = Added {
        packets: case.packets,
        ..Added::default()
    };
    counts.add(counts.cell_of(rule), added, case.now_s);
}

/// Counts and tells a verdict that denies, or that policies in audit mode would turn.
fn report(
    engine: &mut Engine,
    case: &Case<'_>,
    opener: OpenedBy,
    verdict: &Verdict,
    was_denied: bool,
) {
    let counts = engine.policing.counts.clone();
    let denial = |rule, direction, is_audit| Denial {
        key: case.key_from(opener),
        peer: case.peer,
        opened_by: opener,
        direction,
        rule,
        is_audit,
    };
    if let Some(audit) = verdict.audit {
        let cell = counts.cell_of(number(audit.rule));
        let added = Added {
            audited: 1,
            ..Added::default()
        };
        counts.add(cell, added, case.now_s);
        if verdict.allow {
            tell(
                engine,
                case,
                cell,
                denial(audit.rule, audit.direction, true),
            );
        }
    }
    if !verdict.allow && !was_denied {
        let cell = counts.cell_of(number(verdict.rule));
        let added = Added {
            connections: 1,
            ..Added::default()
        };
        counts.add(cell, added, case.now_s);
        tell(
            engine,
            case,
            cell,
            denial(verdict.rule, verdict.direction, false),
        );
    }
}

fn tell(engine: &mut Engine, case: &Case<'_>, cell: usize, denial: Denial) {
    match engine.policing.may_tell(cell, case) {
        true => engine.event(Event::Denied(denial)),
        false => engine.counters.denials_untold += 1,
    }
}

impl Policing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            counts: Arc::default(),
            told_s: vec![0; RULES_MAX + 1].into_boxed_slice(),
            events: Bucket::full(now),
            refusals: Bucket::full(now),
            fragmented: vec![None; FRAGMENTED_MAX].into_boxed_slice(),
        }
    }

    fn may_tell(&mut self, cell: usize, case: &Case<'_>) -> bool {
        let told_s = &mut self.told_s[cell];
        let due = *told_s == 0 || case.now_s >= *told_s - 1 + EVENT_INTERVAL_S;
        let may = due && self.events.take(EVENTS, case.now);
        if may {
            *told_s = case.now_s + 1;
        }
        may
    }

    /// Whether one more sender may be told.
    pub(crate) fn may_refuse(&mut self, now: Instant) -> bool {
        self.refusals.take(REFUSALS, now)
    }
}

/// So many a second, and that many at once.
#[derive(Clone, Copy)]
struct Rate {
    per_s: u32,
    burst: u32,
}

/// A token bucket, as the one number that it needs: when the next one is due at the steady rate.
struct Bucket {
    due: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { due: now }
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let each = Duration::from_secs(1) / rate.per_s;
        let due = self.due.max(now);
        let may = due - now <= each * (rate.burst - 1);
        if may {
            self.due = due + each;
        }
        may
    }
}
