//! The live flows, and which of them a candidate policy would treat otherwise.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use patronus_api::{
    DiffRequest, DiffResponse, FLOWS_DEFAULT, FLOWS_MAX, FlowDiff, FlowView, FlowsQuery,
    FlowsResponse, ObjectChanges, VerdictView,
};
use patronus_config::manifests::ManifestFile;
use patronus_engine::{Flow, FlowTable, OpenedBy};
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
    let mut total = 0;
    let all = live_flows(live, tables, now).inspect(|_| total += 1);
    let mut flows: Vec<FlowView> = all.filter(|flow| filter.matches(flow)).collect();
    let matched = flows.len();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.bytes));
    flows.truncate(limit);
    Ok(FlowsResponse {
        flows,
        matched,
        total,
    })
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
    let mut seen = HashSet::new();
    for flow in live_flows(live, tables, now) {
        // What two workers know is one connection.
        let ends = (flow.src, flow.src_port, flow.dst, flow.dst_port);
        if !seen.insert((ends, flow.protocol)) {
            continue;
        }
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

/// Every flow of every worker. One that two workers know, as after a handover, is told by each with its own part
/// of the traffic.
fn live_flows<'a>(
    live: &'a Live,
    tables: &'a [Arc<FlowTable>],
    now: Instant,
) -> impl Iterator<Item = FlowView> + 'a {
    let since_epoch = now.saturating_duration_since(live.snapshot.epoch());
    let now_s = since_epoch.as_secs() as u32;
    let numbered = tables.iter().enumerate();
    numbered.flat_map(move |(worker, table)| {
        let flows = table.flows(now_s);
        flows.map(move |flow| flow_view(live, worker, &flow, now_s))
    })
}

fn flow_view(live: &Live, worker: usize, flow: &Flow, now_s: u32) -> FlowView {
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
        rule: None,
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
