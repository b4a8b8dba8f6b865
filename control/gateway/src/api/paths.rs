//! Requests about paths: which one is meant, what is ordered, and what the operator may not expect of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use patronus_api::{
    OrderedResponse, PING_MAX_MS, PathCommand, PathCommandRequest, PathView, PathsQuery,
    PathsResponse, PingRequest, PingResponse, TRACE_MAX_S,
};
use patronus_config::KeyText;
use patronus_engine::{PathStatus, PeerSpec};
use patronus_path::{ClassId, Command};
use tokio::sync::OwnedSemaphorePermit;

use super::answers::Refused;
use super::path_views::{self, Standings, class_configs, has_other, ms};
use super::{Asker, Live};
use crate::path_desk::{PathDesk, Recording, path_name, uplink_name};
use crate::path_events::{About, What, rounded, state_view};

/// The paths that a query asks for.
pub fn list(live: &Live, desk: &PathDesk, query: &PathsQuery) -> Result<PathsResponse, Refused> {
    let specs: Vec<&PeerSpec> = match &query.peer {
        Some(peer) => vec![find_peer(live, peer)?],
        None => live.snapshot.peers().map(AsRef::as_ref).collect(),
    };
    Ok(path_views::paths(live, desk, &specs))
}

/// One path.
pub fn one(live: &Live, desk: &PathDesk, peer: &str, path: &str) -> Result<PathView, Refused> {
    let spec = find_peer(live, peer)?;
    let all = Standings::of(live, desk, spec);
    let status = find_path(live, spec, &all.paths, path)?;
    Ok(path_views::path(live, &all, status))
}

/// An operator's order about a peer's paths.
pub fn command(
    live: &Live,
    desk: &PathDesk,
    peer: &str,
    request: &PathCommandRequest,
    asker: &Asker,
) -> Result<OrderedResponse, Refused> {
    let spec = find_peer(live, peer)?;
    let paths = Standings::of(live, desk, spec).paths;
    let path = request.path.as_deref();
    let path = path.map(|path| find_path(live, spec, &paths, path));
    let path = path.transpose()?;
    let class = find_class(live, request)?;
    let order = Ordered::new(live, desk, spec, (path, class), request.command)?;
    let mut text = order.verb.to_owned();
    if matches!(request.command, PathCommand::Pin | PathCommand::Unpin) {
        text += match &request.class {
            Some(class) => format!(" class {class}"),
            None => " every class".to_owned(),
        }
        .as_str();
    }
    if let Some(status) = path {
        let word = match request.command {
            PathCommand::Pin => "to",
            PathCommand::Unpin => "from",
            PathCommand::Drain | PathCommand::Undrain | PathCommand::Clear => "path",
        };
        let name = path_name(&live.snapshot, spec, &status.endpoint);
        text += &format!(" {word} {}/{} {name}", live.name_of(spec), status.path.0);
    } else {
        text += &format!(" of {}", live.name_of(spec));
    }
    let warnings = warnings(live, spec, &paths, path, request.command);
    if !request.dry_run {
        for command in order.commands {
            desk.command(spec, command);
        }
        let about = About {
            peer: Some(live.name_of(spec)),
            path: path.map(|it| (it.path, path_name(&live.snapshot, spec, &it.endpoint))),
        };
        let what = What::Command(text.clone(), asker.uid());
        let record = desk.put(&live.snapshot, about, what, Instant::now());
        tracing::info!(
            peer = record.about.peer.as_deref(),
            path = path.map(|it| it.path.0),
            class = request.class.as_deref(),
            uid = asker.uid(),
            "path command: {}",
            order.verb
        );
    }
    Ok(OrderedResponse {
        done: !request.dry_run,
        text,
        warnings,
    })
}

/// What a request comes down to.
struct Ordered {
    verb: &'static str,
    commands: Vec<Command>,
}

impl Ordered {
    fn new(
        live: &Live,
        desk: &PathDesk,
        spec: &PeerSpec,
        (path, class): (Option<&PathStatus>, Option<ClassId>),
        command: PathCommand,
    ) -> Result<Self, Refused> {
        let verb = verb(command);
        let named = || {
            let fix = "name it: its number, or its name; `patronus paths` lists them";
            path.map(|it| it.path)
                .ok_or_else(|| Refused::field("path", format!("{verb} needs a path"), fix))
        };
        let commands = match command {
            PathCommand::Pin => vec![Command::Pin(named()?, class)],
            PathCommand::Drain => vec![Command::Drain(named()?)],
            PathCommand::Undrain => vec![Command::Undrain(named()?)],
            PathCommand::Clear => vec![Command::Clear(named()?)],
            PathCommand::Unpin => match path {
                None => vec![Command::Unpin(class)],
                Some(path) => unpins(live, desk, spec, path, class)?,
            },
        };
        Ok(Self { verb, commands })
    }
}

/// The classes that are pinned to this path; one of them, where only that is meant.
fn unpins(
    live: &Live,
    desk: &PathDesk,
    spec: &PeerSpec,
    path: &PathStatus,
    only: Option<ClassId>,
) -> Result<Vec<Command>, Refused> {
    let pins = desk.pins(spec);
    let classes = (0..pins.len() as u8).map(ClassId);
    let pinned = classes.filter(|class| {
        pins[class.as_usize()] == Some(path.path) && only.is_none_or(|only| only == *class)
    });
    let pinned: Vec<ClassId> = pinned.collect();
    if pinned.is_empty() {
        let name = live.name_of(spec);
        let error = format!(
            "nothing that was asked for is pinned to {name}/{}",
            path.path.0
        );
        let fix = format!("see `patronus paths {name}`, or leave the path out to undo every pin");
        return Err(Refused::conflict("path", error, fix));
    }
    if pinned.len() == pins.len() {
        return Ok(vec![Command::Unpin(None)]);
    }
    let commands = pinned.into_iter();
    Ok(commands.map(|it| Command::Unpin(Some(it))).collect())
}

fn verb(command: PathCommand) -> &'static str {
    match command {
        PathCommand::Pin => "pin",
        PathCommand::Unpin => "unpin",
        PathCommand::Drain => "drain",
        PathCommand::Undrain => "undrain",
        PathCommand::Clear => "clear",
    }
}

fn warnings(
    live: &Live,
    spec: &PeerSpec,
    paths: &[PathStatus],
    path: Option<&PathStatus>,
    command: PathCommand,
) -> Vec<String> {
    let Some(status) = path else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    match command {
        PathCommand::Drain if !has_other(paths, status) => warnings.push(format!(
            "it is the last usable path to {}: its traffic stays on it until another one is up",
            live.name_of(spec)
        )),
        PathCommand::Pin if !state_view(status.state).is_usable() => warnings.push(format!(
            "the path is {}: the pin counts once it is up",
            state_view(status.state).words()
        )),
        PathCommand::Pin if status.is_draining => {
            warnings.push("the path is drained: `patronus path undrain` it too".to_owned());
        }
        PathCommand::Undrain if !status.is_draining => {
            warnings.push("the path was not being drained".to_owned());
        }
        PathCommand::Pin
        | PathCommand::Unpin
        | PathCommand::Drain
        | PathCommand::Undrain
        | PathCommand::Clear => {}
    }
    warnings
}

/// Round trips on one path, one after the other.
pub async fn ping(
    live: &Live,
    desk: &PathDesk,
    peer: &str,
    path: &str,
    request: &PingRequest,
) -> Result<PingResponse, Refused> {
    let spec = find_peer(live, peer)?;
    let paths = desk.workers().paths(spec);
    let status = find_path(live, spec, &paths, path)?;
    let count = request.count.unwrap_or(1);
    let interval_ms = request.interval_ms.unwrap_or(PING_DEFAULT_MS);
    let timeout_ms = request.timeout_ms.unwrap_or(PING_DEFAULT_MS);
    let whole_ms = u64::from(count) * u64::from(interval_ms.max(timeout_ms));
    if count == 0 || whole_ms > PING_MAX_MS {
        let error = format!("{count} pings may take {whole_ms} ms");
        let fix = format!(
            "ask for at least one, and for {PING_MAX_MS} ms at most: count times interval_ms or timeout_ms, whichever \
             is longer"
        );
        return Err(Refused::field("count", error, fix));
    }
    if timeout_ms == 0 || interval_ms < PING_INTERVAL_MIN_MS {
        let error = "too short";
        let fix = format!("interval_ms is {PING_INTERVAL_MIN_MS} or more, timeout_ms 1 or more");
        return Err(Refused::field("interval_ms", error, fix));
    }
    let (interval, timeout) = (millis(interval_ms), millis(timeout_ms));
    let mut rtts_ms = Vec::new();
    for at in 1..=count {
        let next = tokio::time::Instant::now() + interval;
        let pong = tokio::time::timeout(timeout, desk.ping(spec, status.path)).await;
        let rtt_ns = pong.ok().and_then(Result::ok);
        rtts_ms.push(ms(rtt_ns.map(|it| it as f64)));
        if at < count {
            tokio::time::sleep_until(next).await;
        }
    }
    let name = path_name(&live.snapshot, spec, &status.endpoint);
    let id = format!("{}/{}", live.name_of(spec), status.path.0);
    Ok(summed_up(id, name, rtts_ms))
}

fn summed_up(id: String, name: String, rtts_ms: Vec<Option<f64>>) -> PingResponse {
    let back = || rtts_ms.iter().flatten().copied();
    let (sent, received) = (rtts_ms.len() as u32, back().count() as u32);
    let share = |part: u32| f64::from(part) / f64::from(sent.max(1));
    let average = back().sum::<f64>() / f64::from(received.max(1));
    PingResponse {
        id,
        name,
        sent,
        received,
        loss_pct: rounded(Some(100.0 * share(sent - received))).unwrap_or_default(),
        rtt_min_ms: back().reduce(f64::min),
        rtt_avg_ms: (received > 0).then(|| rounded(Some(average))).flatten(),
        rtt_max_ms: back().reduce(f64::max),
        rtts_ms,
    }
}

/// Has a path's bandwidth measured.
pub fn bandwidth(
    live: &Live,
    desk: &PathDesk,
    peer: &str,
    path: &str,
) -> Result<OrderedResponse, Refused> {
    let view = one(live, desk, peer, path)?;
    if view.is_metered {
        let error = format!(
            "{} goes over a metered uplink: a probe train costs money",
            view.id
        );
        let fix = "configure the uplink's capacity, or take `metered` from it";
        return Err(Refused::conflict("path", error, fix));
    }
    if !view.state.is_usable() {
        let error = format!("{} is {}", view.id, view.state.words());
        return Err(Refused::conflict("path", error, "wait until it is up"));
    }
    let spec = find_peer(live, peer)?;
    desk.measure_bandwidth(spec, patronus_path::PathIndex(view.path));
    Ok(OrderedResponse {
        done: true,
        text: format!("measure the bandwidth of {} {}", view.id, view.name),
        warnings: Vec::new(),
    })
}

/// Begins to record the paths of a peer.
pub fn record(
    live: &Live,
    desk: &Arc<PathDesk>,
    peer: &str,
    seconds: u32,
) -> Result<Recording, Refused> {
    if !(1..=TRACE_MAX_S).contains(&seconds) {
        let fix = format!("record for 1 to {TRACE_MAX_S} seconds");
        return Err(Refused::field(
            "seconds",
            format!("{seconds} s is out of range"),
            fix,
        ));
    }
    let spec = find_peer(live, peer)?;
    desk.record(spec).ok_or_else(|| {
        let error = format!(
            "the paths of {} are being recorded already",
            live.name_of(spec)
        );
        Refused::conflict("peer", error, "wait until the other recording has ended")
    })
}

/// The lines of a recording as they come, until its time is over. What breaks off ends without an end, so that nobody
/// takes it for a whole one.
pub fn stream_of(recording: Recording, span: Duration, place: OwnedSemaphorePermit) -> Response {
    let until = tokio::time::Instant::now() + span;
    let chunks = stream::unfold(Some((recording, place)), move |state| async move {
        let (mut recording, place) = state?;
        let lines = tokio::select! {
            lines = recording.next() => lines,
            () = tokio::time::sleep_until(until) => {
                let hole = std::io::Error::other("workers could not tell every line");
                return recording.has_hole().then_some((Err(hole), None));
            }
        };
        if lines.is_empty() {
            let error = std::io::Error::other("the reader was too slow, or the peer is gone");
            return Some((Err(error), None));
        }
        let mut text = Vec::new();
        for line in lines {
            match serde_json::to_vec(&*line) {
                Ok(json) => text.extend(json),
                Err(error) => return Some((Err(error.into()), None)),
            }
            text.push(b'\n');
        }
        Some((Ok(Bytes::from(text)), Some((recording, place))))
    });
    let kind = [(header::CONTENT_TYPE, "application/jsonl")];
    (StatusCode::OK, kind, Body::from_stream(chunks)).into_response()
}

/// The peer of that name, key, or whatever else answers call it.
pub fn find_peer<'a>(live: &'a Live, peer: &str) -> Result<&'a PeerSpec, Refused> {
    let by_name = || {
        let mut specs = live.snapshot.peers();
        specs.find(|spec| live.peer_names.get(&spec.id).is_some_and(|it| it == peer))
    };
    let by_key = || {
        let key = patronus_tunnel::PublicKey::from_base64(peer).ok()?;
        live.snapshot.peer_by_key(&key)
    };
    let found = by_key().or_else(by_name);
    found.map(AsRef::as_ref).ok_or_else(|| {
        let names = live.snapshot.peers().map(|spec| live.name_of(spec));
        let fix = list_of("its peers", names.collect(), "it has no peers");
        Refused::missing("peer", format!("no peer `{}`", shown(peer)), fix)
    })
}

/// The path of that number or name; the name of an uplink does where it has one path.
fn find_path<'a>(
    live: &Live,
    spec: &PeerSpec,
    paths: &'a [PathStatus],
    path: &str,
) -> Result<&'a PathStatus, Refused> {
    let name = |status: &PathStatus| path_name(&live.snapshot, spec, &status.endpoint);
    let number = path.parse::<u8>().ok();
    if let Some(status) = paths.iter().find(|it| Some(it.path.0) == number) {
        return Ok(status);
    }
    let is_named = |status: &&PathStatus| name(status) == path;
    if let Some(status) = paths.iter().find(is_named) {
        return Ok(status);
    }
    let is_named =
        |status: &&PathStatus| uplink_name(&live.snapshot, status.endpoint.uplink) == path;
    let mut named = paths.iter().filter(is_named);
    let shown_names = || {
        let names = paths.iter().map(|it| format!("{} {}", it.path.0, name(it)));
        let none = "it has none yet: its endpoint is not known, or it never answered";
        list_of("its paths", names.collect(), none)
    };
    match (named.next(), named.next()) {
        (Some(status), None) => Ok(status),
        (None, _) => {
            let error = format!("{} has no path `{}`", live.name_of(spec), shown(path));
            Err(Refused::missing("path", error, shown_names()))
        }
        (Some(_), Some(_)) => {
            let error = format!(
                "`{}` names several paths of {}",
                shown(path),
                live.name_of(spec)
            );
            Err(Refused::missing("path", error, shown_names()))
        }
    }
}

fn find_class(live: &Live, request: &PathCommandRequest) -> Result<Option<ClassId>, Refused> {
    let Some(name) = &request.class else {
        return Ok(None);
    };
    if !matches!(request.command, PathCommand::Pin | PathCommand::Unpin) {
        let error = format!("{} takes no class", verb(request.command));
        let fix = "leave it out: it concerns the path as a whole";
        return Err(Refused::field("class", error, fix));
    }
    let at = class_configs(&live.snapshot).position(|it| it.name == *name);
    match at {
        Some(at) => Ok(Some(ClassId(at as u8))),
        None => {
            let names = class_configs(&live.snapshot).map(|it| it.name.clone());
            let fix = list_of("its classes", names.collect(), "it has no classes");
            let error = format!("no class `{}`", shown(name));
            Err(Refused::missing("class", error, fix))
        }
    }
}

/// What exists, for one who asked for something else.
fn list_of(what: &str, mut names: Vec<String>, none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    names.sort();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let rest = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{what} are {}{rest}", names.join(", "))
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

const NAMES_MAX: usize = 20;
const PING_DEFAULT_MS: u32 = 1000;
const PING_INTERVAL_MIN_MS: u32 = 10;
