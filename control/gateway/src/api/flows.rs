//! The live flows, and which of them a candidate policy would treat otherwise.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use patronus_api::{
    DiffRequest, DiffResponse, FLOWS_DEFAULT, FLOWS_MAX, FlowDiff, FlowSort, FlowView, FlowsQuery,
    FlowsResponse, ObjectChanges, RuleRefView, VerdictView,
};
use patronus_config::manifests::ManifestFile;
use patronus_engine::{Flow, FlowTable, OpenedBy, Passage};
use patronus_packet::FlowKey;
use patronus_policy::cluster::Cluster;
use patronus_policy::diff::{ObjectChange, changed_objects};
use patronus_policy::model::Connection;

use super::Live;
use super::answers::Refused;
use super::filter::Filter;
use super::path_views::class_configs;
use super::views;
use crate::policy::{self, Objects};

/// The flows that a query asks for, the busiest first.
pub fn list(
    live: &Live,
    tables: &[Arc<FlowTable>],
    query: &FlowsQuery,
    now: Instant,
) -> Result<FlowsResponse, Refused> {
    let limit = query.limit.unwrap_or(FLOWS_DEFAULT);
    if limit > FLOWS_MAX {
        let (error, fix) = (
            format!("{limit} is too many"),
            format!("ask for at most {FLOWS_MAX}"),
        );
        return Err(Refused::field("limit", error, fix));
    }
    let filter = Filter::parse(query.filter.as_deref().unwrap_or_default())?;
    let all = live_flows(live, tables, now);
    let total = all.len();
    let mut flows: Vec<FlowView> = all.into_iter().filter(|it| filter.matches(it)).collect();
    let matched = flows.len();
    sort(&mut flows, query.sort.unwrap_or_default());
    let flows = flows.into_iter().skip(query.skip.unwrap_or(0));
    Ok(FlowsResponse {
        flows: flows.take(limit).collect(),
        matched,
        total,
    })
}

/// Puts flows in order; those that are equal in it keep one, so that pages do not overlap while nothing moves.
fn sort(flows: &mut [FlowView], by: FlowSort) {
    let ends = |it: &FlowView| (it.src, it.dst, it.protocol, it.src_port, it.dst_port);
    match by {
        FlowSort::Bytes => flows.sort_by_cached_key(|it| (Reverse(it.bytes), ends(it))),
        FlowSort::Packets => flows.sort_by_cached_key(|it| (Reverse(it.packets), ends(it))),
        FlowSort::Recent => flows.sort_by_cached_key(|it| (it.idle_s, ends(it))),
        FlowSort::Src => flows.sort_by_cached_key(ends),
        FlowSort::Dst => flows.sort_by_cached_key(|it| (it.dst, ends(it))),
        FlowSort::Peer => flows.sort_by_cached_key(|it| (it.peer.clone(), ends(it))),
    }
}

/// The live flows whose verdict other manifests would change.
pub fn diff(
    live: &Live,
    tables: &[Arc<FlowTable>],
    request: &DiffRequest,
    seed: u64,
    now: Instant,
) -> Result<DiffResponse, Refused> {
    if request.files.len() > CANDIDATES_MAX {
        let fix = format!("send at most {CANDIDATES_MAX}");
        return Err(Refused::field("files", "too many files", fix));
    }
    let files = request.files.iter().map(|file| ManifestFile {
        name: file.name.clone(),
        contents: Ok(file.text.clone().into_bytes()),
    });
    let loaded = policy::load(files.collect());
    let (candidate, _) = policy::candidate(&live.policy, loaded, seed);
    let (old, new) = (&live.policy.table, &candidate.table);
    let objects = changed(&live.policy.objects, &candidate.objects);
    let mut response = DiffResponse {
        flows: Vec::new(),
        denied: 0,
        allowed: 0,
        judged: 0,
        changes: objects.added.len() + objects.removed.len() + objects.changed.len(),
        objects,
        diagnostics: views::diagnostics(&candidate.report),
        diagnostics_left_out: candidate.report.left_out,
    };
    let mut let_through = Vec::new();
    for flow in live_flows(live, tables, now) {
        response.judged += 1;
        let conn = connection_of(&flow);
        let (before, after) = (old.judge(&conn).allow, new.judge(&conn).allow);
        let (list, count) = match (before, after) {
            (true, true) | (false, false) => continue,
            (true, false) => (&mut response.flows, &mut response.denied),
            (false, true) => (&mut let_through, &mut response.allowed),
        };
        *count += 1;
        if list.len() < DIFFS_MAX {
            list.push(FlowDiff {
                flow,
                before: VerdictView::from_allow(before),
                after: VerdictView::from_allow(after),
                before_text: old.explain(&conn).to_string(),
                after_text: new.explain(&conn).to_string(),
            });
        }
    }
    response.flows.append(&mut let_through);
    response.flows.truncate(DIFFS_MAX);
    Ok(response)
}

/// What differs, told by the code that compares files offline.
fn changed(old: &Objects, new: &Objects) -> ObjectChanges {
    let cluster = |objects: &Objects| {
        let mut cluster = Cluster::default();
        for object in objects.values() {
            cluster.apply(&object.clone().into_change());
        }
        cluster
    };
    let mut told = ObjectChanges::default();
    for change in changed_objects(&cluster(old), &cluster(new)) {
        let (list, object) = match change {
            ObjectChange::Added(it) => (&mut told.added, it),
            ObjectChange::Removed(it) => (&mut told.removed, it),
            ObjectChange::Changed(it) => (&mut told.changed, it),
        };
        list.push(object.to_string());
    }
    told
}

/// Every flow. One that two workers know, as after a handover, is told once: with the traffic of both, and as the one
/// says that had its last packet.
fn live_flows(live: &Live, tables: &[Arc<FlowTable>], now: Instant) -> Vec<FlowView> {
    let since_epoch = now.saturating_duration_since(live.snapshot.epoch());
    let now_s = since_epoch.as_secs() as u32;
    let rules = Rules::of(live);
    let mut views: Vec<FlowView> = Vec::new();
    let mut places: HashMap<FlowKey, usize> = HashMap::new();
    for (worker, table) in tables.iter().enumerate() {
        for flow in table.flows(now_s) {
            let view = flow_view(live, &rules, worker, &flow, now_s);
            match places.entry(flow.key) {
                Entry::Vacant(place) => {
                    place.insert(views.len());
                    views.push(view);
                }
                Entry::Occupied(place) => merge(&mut views[*place.get()], view),
            }
        }
    }
    views
}

fn merge(into: &mut FlowView, other: FlowView) {
    let (packets, bytes) = (into.packets + other.packets, into.bytes + other.bytes);
    let is_newer = (other.idle_s, Reverse(other.packets)) < (into.idle_s, Reverse(into.packets));
    if is_newer {
        *into = other;
    }
    (into.packets, into.bytes) = (packets, bytes);
}

/// The rules in force by the number that entries of flows have.
struct Rules(HashMap<u32, RuleRefView>);

impl Rules {
    fn of(live: &Live) -> Self {
        let rules = live.policy.table.rules();
        let named = rules.map(|(id, entry)| (id.number(), views::rule_ref(&entry.to_ref())));
        Self(named.collect())
    }

    fn of_flow(&self, flow: &Flow) -> Option<RuleRefView> {
        match flow.passage {
            Passage::Denied(rule) | Passage::Cut(rule) => self.0.get(&rule.0).cloned(),
            Passage::Allowed | Passage::Kept => None,
        }
    }
}

fn flow_view(live: &Live, rules: &Rules, worker: usize, flow: &Flow, now_s: u32) -> FlowView {
    let key = flow.key;
    let (opened_by, (src, src_port), (dst, dst_port)) = match flow.opened_by {
        OpenedBy::Local => ("local", (key.src, key.src_port), (key.dst, key.dst_port)),
        OpenedBy::Remote => ("remote", (key.dst, key.dst_port), (key.src, key.src_port)),
    };
    let age_s = now_s.wrapping_sub(flow.last_seen_s) & SECONDS_MASK;
    let (class, path) = way_of(live, flow);
    FlowView {
        src,
        dst,
        protocol: key.protocol,
        src_port,
        dst_port,
        opened_by: opened_by.to_owned(),
        peer: live.peer_names.get(&flow.peer).cloned(),
        class,
        path,
        worker,
        packets: flow.packets.into(),
        bytes: flow.bytes,
        // A worker's clock may be a batch ahead of ours.
        idle_s: if age_s > SECONDS_MASK / 2 {
            0
        } else {
            age_s.into()
        },
        verdict: Some(VerdictView::from_allow(flow.passage.is_allowed())),
        rule: rules.of_flow(flow),
    }
}

/// Class and path of a flow whose packets pass; the path where its peer has several.
fn way_of(live: &Live, flow: &Flow) -> (Option<String>, Option<u8>) {
    if !flow.passage.is_allowed() {
        return (None, None);
    }
    let mut classes = class_configs(&live.snapshot);
    let class = classes.nth(flow.steer.class().as_usize());
    let spec = live.snapshot.peer(flow.peer);
    let has_several = spec.is_some_and(|spec| spec.board.paths().len() > 1);
    let path = has_several.then(|| flow.steer.path().0);
    (class.map(|it| it.name.clone()), path)
}

fn connection_of(flow: &FlowView) -> Connection {
    Connection {
        src: flow.src,
        dst: flow.dst,
        protocol: flow.protocol,
        dst_port: flow.dst_port,
    }
}

/// The flow table keeps seconds modulo 2^24.
const SECONDS_MASK: u32 = 0xff_ffff;
/// Changed flows that an answer lists; the others are counted.
const DIFFS_MAX: usize = 1000;
/// Files of a candidate.
const CANDIDATES_MAX: usize = 10_000;
