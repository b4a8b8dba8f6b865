//! Policies as changes bring them: their selectors interned and counted, their rules numbered.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{Compiler, PeerKey, PeerState, PolicyName, PolicyRuleIds};
use crate::ids::{Edition, PeerId, RuleId, Set};
use crate::model::{
    Action, ClusterPeer, ClusterPolicy, ClusterRule, Mode, NetworkPolicy, Peer, PortMatch, Rule,
    Selector, Text,
};
use crate::row::AnyPolicy;
use crate::row_build::{CompiledPolicy, CompiledRule, CompiledSide, Target, rule_ports};
use crate::table::RuleEntry;
use crate::verdict::{DIRECTIONS, Direction};

impl Compiler {
    pub(super) fn set_policy(&mut self, policy: Arc<NetworkPolicy>) {
        let name = PolicyName::Network(policy.id.clone());
        self.uninstall(&name);
        if policy.mode == Mode::Off {
            self.forget_rules(&name);
            return;
        }
        let namespace = policy.id.namespace.clone();
        let sides = [&policy.ingress, &policy.egress].map(|rules| {
            let rules = rules.as_ref()?.iter();
            let targets = rules.map(|rule| network_targets(rule, &namespace));
            Some(targets.collect::<Vec<_>>())
        });
        let audit = policy.mode == Mode::Audit;
        let policy = AnyPolicy::Network(policy);
        let edition = self.install(name, policy.clone(), sides, audit);
        if let AnyPolicy::Network(policy) = &policy {
            let state = self.namespace(&namespace);
            state.policies.insert(edition);
            state.by_selector.insert(&policy.pods, edition);
            self.mention(Some(&namespace), &policy.pods, true);
        }
        self.dirty.policies.insert(namespace);
    }

    pub(super) fn set_cluster_policy(&mut self, policy: Arc<ClusterPolicy>) {
        let name = PolicyName::Cluster(policy.name.clone());
        self.uninstall(&name);
        if policy.mode == Mode::Off {
            self.forget_rules(&name);
            return;
        }
        // There is no implicit isolation: a direction without rules says nothing.
        let sides = [&policy.ingress, &policy.egress].map(|rules| {
            let targets = rules.iter().map(cluster_targets);
            (!rules.is_empty()).then(|| targets.collect::<Vec<_>>())
        });
        let audit = policy.mode == Mode::Audit;
        let pods = policy.subject.pods.clone();
        let edition = self.install(name, AnyPolicy::Cluster(policy), sides, audit);
        self.cluster_policies.insert(edition);
        self.mention(None, &pods, true);
        self.dirty.cluster_policies = true;
    }

    pub(super) fn delete_policy(&mut self, name: PolicyName) {
        self.uninstall(&name);
        self.forget_rules(&name);
    }

    fn install(
        &mut self,
        name: PolicyName,
        policy: AnyPolicy,
        sides: [Option<Vec<Draft>>; 2],
        audit: bool,
    ) -> Edition {
        let edition = Edition(self.next_edition);
        self.next_edition += 1;
        let mut ids = self.rule_ids.remove(&name).unwrap_or_default();
        let mut compiled = [None, None];
        for (direction, side) in DIRECTIONS.into_iter().zip(sides) {
            let at = direction as usize;
            let rules = side.as_ref().map_or(0, Vec::len);
            self.number(&mut ids, direction, rules, &policy);
            compiled[at] = side.map(|drafts| {
                let rules = drafts.into_iter().enumerate().map(|(number, draft)| {
                    let id = ids.rules[at][number];
                    self.compile_rule(draft, id, rule_ports(&policy, direction, number), direction)
                });
                let rules = rules.collect();
                let isolation = ids.isolation[at].unwrap_or(LAST_RULE);
                CompiledSide { isolation, rules }
            });
        }
        self.rule_ids.insert(name.clone(), ids);
        self.editions.insert(name, edition);
        self.audits += usize::from(audit);
        let sides = compiled;
        self.policies
            .insert(edition, Arc::new(CompiledPolicy { policy, sides }));
        edition
    }

    fn uninstall(&mut self, name: &PolicyName) {
        let Some(edition) = self.editions.remove(name) else {
            return;
        };
        let Some(compiled) = self.policies.remove(&edition) else {
            return;
        };
        for (direction, side) in DIRECTIONS.into_iter().zip(&compiled.sides) {
            for (number, rule) in side.iter().flat_map(|it| it.rules.iter().enumerate()) {
                self.release_rule(rule, rule_ports(&compiled.policy, direction, number));
            }
        }
        match &compiled.policy {
            AnyPolicy::Network(policy) => {
                let namespace = policy.id.namespace.clone();
                self.audits -= usize::from(policy.mode == Mode::Audit);
                let state = self.namespace(&namespace);
                state.policies.remove(&edition);
                state.by_selector.remove(&policy.pods, edition);
                self.mention(Some(&namespace), &policy.pods, false);
                self.dirty.emptied.insert(namespace.clone());
                self.dirty.policies.insert(namespace);
            }
            AnyPolicy::Cluster(policy) => {
                self.audits -= usize::from(policy.mode == Mode::Audit);
                self.cluster_policies.remove(&edition);
                self.mention(None, &policy.subject.pods, false);
                self.dirty.cluster_policies = true;
            }
        }
    }

    /// Gives every rule its number, the old one where there was a rule before, and enters it into the table.
    fn number(
        &mut self,
        ids: &mut PolicyRuleIds,
        direction: Direction,
        rules: usize,
        policy: &AnyPolicy,
    ) {
        let at = direction as usize;
        let isolation = ids.isolation[at].unwrap_or_else(|| self.new_rule());
        ids.isolation[at] = Some(isolation);
        while ids.rules[at].len() < rules {
            ids.rules[at].push(self.new_rule());
        }
        let numbered = ids.rules[at].iter().enumerate();
        let numbered = numbered.map(|(rule, id)| (*id, Some(rule as u32)));
        for (id, rule) in numbered.chain([(isolation, None)]) {
            let exists = rule.is_none_or(|rule| (rule as usize) < rules);
            let entry = exists.then(|| RuleEntry {
                policy: policy.clone(),
                direction,
                rule,
            });
            self.enter_rule(id, entry);
        }
    }

    fn forget_rules(&mut self, name: &PolicyName) {
        let Some(ids) = self.rule_ids.remove(name) else {
            return;
        };
        let rules = ids.rules.into_iter().flatten();
        for id in rules.chain(ids.isolation.into_iter().flatten()) {
            self.enter_rule(id, None);
        }
    }

    fn enter_rule(&mut self, id: RuleId, entry: Option<RuleEntry>) {
        if id != LAST_RULE {
            self.state.rules.set(id.number() as usize, entry);
        }
    }

    /// Numbers are never used again; a gateway that used them all up, after years, counts under the last one.
    fn new_rule(&mut self) -> RuleId {
        let id = NonZeroU32::new(self.next_rule).map_or(LAST_RULE, RuleId);
        self.next_rule = self.next_rule.saturating_add(1);
        id
    }

    fn compile_rule(
        &mut self,
        draft: Draft,
        id: RuleId,
        ports: Option<&[PortMatch]>,
        direction: Direction,
    ) -> CompiledRule {
        let mut targets = Vec::new();
        for target in draft.targets {
            targets.push(match target {
                DraftTarget::Any => Target::Any,
                DraftTarget::AnyPod => Target::AnyPod,
                DraftTarget::Block(cidr, except) => Target::Block(cidr, except),
                DraftTarget::Peer(key) => Target::Peer(self.acquire_peer(key)),
            });
        }
        let wide = targets.contains(&Target::Any) || targets.contains(&Target::AnyPod);
        let names = names(ports).collect::<Set<Text>>();
        for name in &names {
            let count = self.port_names.entry(name.clone()).or_default();
            *count += 1;
            if *count == 1 {
                self.dirty.port_names.insert(name.clone());
            }
            if wide && direction == Direction::Egress && !draft.every_port {
                let key = PeerKey::PortName(name.clone());
                targets.push(Target::Named(self.acquire_peer(key)));
            }
        }
        CompiledRule {
            id,
            action: draft.action,
            targets,
            every_port: draft.every_port,
        }
    }

    fn release_rule(&mut self, rule: &CompiledRule, ports: Option<&[PortMatch]>) {
        for target in &rule.targets {
            if let Target::Peer(peer) | Target::Named(peer) = target
                && let Some(state) = self.peers.get_mut(peer.0)
            {
                state.uses -= 1;
                if state.uses == 0 {
                    self.dirty.unused_peers.push(*peer);
                }
            }
        }
        for name in names(ports).collect::<Set<Text>>() {
            if let Some(count) = self.port_names.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.port_names.remove(&name);
                    self.dirty.port_names.insert(name);
                }
            }
        }
    }

    fn acquire_peer(&mut self, key: PeerKey) -> PeerId {
        if let Some(id) = self.peer_ids.get(&key) {
            if let Some(state) = self.peers.get_mut(id.0) {
                state.uses += 1;
            }
            return *id;
        }
        let key = Arc::new(key);
        let id = PeerId(self.peers.insert(PeerState {
            key: Arc::clone(&key),
            uses: 1,
            members: Vec::new(),
            rows: Set::default(),
            changed: Vec::new(),
        }));
        self.dirty.peers.push(id);
        match &*key {
            PeerKey::Within(namespace, pods) => {
                self.namespace(namespace).peers.insert(pods, id);
                self.mention(Some(namespace), pods, true);
            }
            PeerKey::Across(namespaces, pods) => {
                if !self.scopes.contains_key(namespaces) {
                    self.scopes
                        .insert(namespaces.clone(), super::Scope::default());
                    self.dirty.scopes.push(namespaces.clone());
                }
                if let Some(scope) = self.scopes.get_mut(namespaces) {
                    scope.peers.insert(pods, id);
                }
                self.mention(None, pods, true);
            }
            PeerKey::PortName(_) => {}
        }
        self.peer_ids.insert(key, id);
        id
    }

    /// Forgets selectors that no rule uses. Rows that do are of policies that are gone, and go with this burst.
    pub(super) fn drop_unused_peers(&mut self) {
        for id in std::mem::take(&mut self.dirty.unused_peers) {
            if self.peers.get(id.0).is_none_or(|it| it.uses > 0) {
                continue;
            }
            let Some(state) = self.peers.remove(id.0) else {
                continue;
            };
            self.peer_ids.remove(&state.key);
            for class in &state.members {
                if let Some(class) = self.classes.get_mut(class.0) {
                    class.peers.retain(|it| *it != id);
                }
            }
            match &*state.key {
                PeerKey::Within(namespace, pods) => {
                    self.namespace(namespace).peers.remove(pods, id);
                    self.mention(Some(namespace), pods, false);
                    self.dirty.emptied.insert(namespace.clone());
                }
                PeerKey::Across(namespaces, pods) => {
                    self.mention(None, pods, false);
                    self.drop_from_scope(namespaces, pods, id);
                }
                PeerKey::PortName(_) => {}
            }
        }
    }

    fn drop_from_scope(&mut self, namespaces: &Selector, pods: &Selector, id: PeerId) {
        let Some(scope) = self.scopes.get_mut(namespaces) else {
            return;
        };
        scope.peers.remove(pods, id);
        if !scope.peers.is_empty() {
            return;
        }
        for name in std::mem::take(&mut scope.namespaces) {
            if let Some(namespace) = self.namespaces.get_mut(&name) {
                namespace.scopes.retain(|it| it != namespaces);
            }
        }
        self.scopes.remove(namespaces);
    }

    fn mention(&mut self, namespace: Option<&Text>, selector: &Selector, up: bool) {
        if selector.requirements.is_empty() {
            return;
        }
        let mut changed = Set::default();
        match namespace {
            Some(name) => {
                let state = self.namespace(name);
                state.dictionary.count(selector, up, &mut changed);
            }
            None => self.dictionary.count(selector, up, &mut changed),
        }
        if !changed.is_empty() {
            let mentions = self.dirty.mentions.entry(namespace.cloned()).or_default();
            mentions.extend(changed);
        }
    }
}

/// Counts what came after all numbers were used up.
const LAST_RULE: RuleId = RuleId(NonZeroU32::MAX);

/// A rule before its selectors are interned.
struct Draft {
    action: Action,
    targets: Vec<DraftTarget>,
    every_port: bool,
}

enum DraftTarget {
    Any,
    AnyPod,
    Peer(PeerKey),
    Block(patronus_packet::Prefix, Vec<patronus_packet::Prefix>),
}

fn network_targets(rule: &Rule, namespace: &Text) -> Draft {
    let targets = match &rule.peers {
        None => vec![DraftTarget::Any],
        Some(peers) => peers
            .iter()
            .map(|it| network_target(it, namespace))
            .collect(),
    };
    Draft {
        action: Action::Accept,
        targets,
        every_port: false,
    }
}

fn network_target(peer: &Peer, namespace: &Text) -> DraftTarget {
    match peer {
        Peer::Block { cidr, except } => DraftTarget::Block(*cidr, except.clone()),
        Peer::Pods { namespaces, pods } => {
            let pods = pods.clone().unwrap_or_default();
            match namespaces {
                None => DraftTarget::Peer(PeerKey::Within(namespace.clone(), pods)),
                Some(namespaces) => across(namespaces, pods),
            }
        }
    }
}

fn across(namespaces: &Selector, pods: Selector) -> DraftTarget {
    if namespaces.requirements.is_empty() && pods.requirements.is_empty() {
        return DraftTarget::AnyPod;
    }
    DraftTarget::Peer(PeerKey::Across(namespaces.clone(), pods))
}

/// A kind of peer that is not evaluated fails closed: an Accept with it matches nothing, all else denies everything.
fn cluster_targets(rule: &ClusterRule) -> Draft {
    if rule.peers.contains(&ClusterPeer::Unknown) {
        return match rule.action {
            Action::Accept => Draft {
                action: Action::Accept,
                targets: Vec::new(),
                every_port: false,
            },
            Action::Deny | Action::Pass => Draft {
                action: Action::Deny,
                targets: vec![DraftTarget::Any],
                every_port: true,
            },
        };
    }
    let mut targets = Vec::new();
    for peer in &rule.peers {
        match peer {
            ClusterPeer::Pods { namespaces, pods } => {
                targets.push(across(namespaces, pods.clone()))
            }
            ClusterPeer::Networks(blocks) => {
                let blocks = blocks.iter();
                targets.extend(blocks.map(|it| DraftTarget::Block(*it, Vec::new())));
            }
            ClusterPeer::Unknown => {}
        }
    }
    Draft {
        action: rule.action,
        targets,
        every_port: false,
    }
}

fn names(ports: Option<&[PortMatch]>) -> impl Iterator<Item = Text> {
    ports.unwrap_or(&[]).iter().filter_map(|it| match it {
        PortMatch::Named { name, .. } => Some(name.clone()),
        PortMatch::Any(_) | PortMatch::Range { .. } => None,
    })
}
