//! What comes out of a peer's machines: routes for this worker, the board for all others, roles for the prober, and the
//! counters that go back in.

use super::*;

/// Compares what the machines say with what is published, and publishes the difference.
/// Answers whether the prober was told something, and may have something to say.
pub(super) fn settle(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, time: Time) -> bool {
    let ends = paths.ends();
    let is_answered = paths.prober.is_answered();
    let count = ends.iter().flatten().count();
    let has_several = is_answered && count > 1;
    let mut usable = 0;
    for path in paths.prober.paths() {
        let state = paths.prober.state(path).map(|(state, ..)| state);
        let carries = matches!(state, Some(PathState::Up | PathState::Suspect));
        usable |= u16::from(carries) << path.0;
    }
    let tunnel_mtu = engine.snapshot.mtu();
    let narrow_mtu = |at: usize| {
        let outer = paths.prober.mtu(PathIndex(at as u8))?;
        let inner = inner_mtu(outer, ends[at].as_ref()?);
        (usize::from(inner) < tunnel_mtu).then_some(inner)
    };
    let ways = Ways {
        routes: *paths.selector.routes(),
        usable,
        narrow_mtus: std::array::from_fn(|at| narrow_mtu(at).unwrap_or(0)),
    };
    set_roles(paths, &ways, time);
    let told = tell_moves(engine, slot, paths, &ends, time);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return false;
    };
    let Some(outlets) = &mut peer.outlets else {
        return false;
    };
    let had_several = outlets.has_several;
    let moved = outlets.ends != ends;
    if !moved && outlets.ways == ways && had_several == has_several {
        return false;
    }
    let moves = ends.iter().zip(&outlets.ends);
    let moves = moves.filter(|(new, old)| new.is_some() && new != old);
    engine.counters.moves_untold += (moves.count() as u64).saturating_sub(told);
    let narrowest = ways.narrowest_mtu().unwrap_or(usize::MAX);
    engine.narrowest_mtu = engine.narrowest_mtu.min(narrowest);
    outlets.ways = ways;
    outlets.has_several = has_several;
    if moved {
        outlets.set_ends(ends);
    }
    let first = ends.iter().position(Option::is_some);
    outlets.sole = first.map(|at| PathIndex(at as u8));
    let default = engine.snapshot.paths().classes.default;
    if has_several
        && let Some((_, end)) = outlets.route_end(default)
        && peer.endpoint != Some(*end)
    {
        peer.endpoint = Some(*end);
        peer.publish_endpoint();
    }
    let board = peer.spec.board.clone();
    let gone = ends.iter().enumerate().filter(|(_, end)| end.is_none());
    for (at, _) in gone {
        board.clear_path(PathIndex(at as u8));
    }
    if moved {
        refresh(engine, slot, paths, time);
    }
    board.set_flags(is_answered, paths.is_awake, has_several);
    board.set_ways(&ways);
    board.changed();
    if has_several != had_several {
        configure(engine, slot, paths, time);
        return true;
    }
    false
}

/// Says where paths go that went elsewhere; where one goes to and fro, at an interval. How many it told of.
fn tell_moves(
    engine: &mut Engine,
    slot: Slot,
    paths: &mut PeerPaths,
    ends: &[Option<Endpoint>; PATHS_MAX],
    time: Time,
) -> u64 {
    let moves = &mut paths.moves;
    if moves.told == *ends {
        return 0;
    }
    let Some(id) = engine.peers.get(slot).map(|peer| peer.spec.id) else {
        return 0;
    };
    let mut count = 0;
    for (at, end) in ends.iter().enumerate() {
        let Some(new) = end else {
            (moves.told[at], moves.at[at]) = (None, None);
            continue;
        };
        let is_due = moves.at[at].is_none_or(|told| time.since(told) >= MOVE_INTERVAL);
        if moves.told[at] != *end && is_due {
            (moves.told[at], moves.at[at]) = (*end, Some(time));
            engine.event(Event::Path(id, PathEvent::Moved(PathIndex(at as u8), *new)));
            count += 1;
        }
    }
    count
}

/// Tells the prober which paths carry which class, and which ones stand by.
fn set_roles(paths: &mut PeerPaths, ways: &Ways, time: Time) {
    if !std::mem::take(&mut paths.are_roles_old) {
        return;
    }
    let mut classes = [0u8; PATHS_MAX];
    let configured = paths.selector_config.classes.len();
    for (class, route) in ways.routes.iter().enumerate().take(configured) {
        for path in [route.path, route.leaving].into_iter().flatten() {
            if let Some(classes) = classes.get_mut(path.as_usize()) {
                *classes |= 1 << class;
            }
        }
    }
    paths.prober.set_orders(&paths.selector.orders());
    let roles = (classes, paths.selector.standby());
    if roles != paths.roles {
        paths.roles = roles;
        paths.prober.set_roles(&roles.0, roles.1, time);
    }
}

/// Publishes what stands about each path.
pub(super) fn refresh(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, time: Time) {
    paths.refreshed_at = time;
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    let board = &peer.spec.board;
    let has_several = peer.outlets.as_ref().is_some_and(|it| it.has_several);
    for (path, end) in known(&peer.outlets) {
        let Some((state, reason, since)) = paths.prober.state(path) else {
            continue;
        };
        let classes = paths.selector_config.classes.len();
        let of = |class: usize| match class < classes {
            true => paths.selector.standing(ClassId(class as u8), path, time),
            false => None,
        };
        let status = Standing {
            endpoint: *end,
            state,
            reason,
            state_age_s: time.since(since).as_secs_f64(),
            metrics: paths.prober.metrics(path, time).unwrap_or_default(),
            standing: std::array::from_fn(|class| {
                of(class).map_or((0, 0.0), |(tier, score)| (tier, score as f32))
            }),
            is_draining: paths.selector.is_draining(path),
            peer_number: paths.peer_numbers[path.as_usize()],
        };
        board.set_standing(path, &status, engine.config.workers);
    }
    board.set_flags(paths.prober.is_answered(), paths.is_awake, has_several);
    board.set_starved(paths.prober.starved());
}

/// Publishes everything, for a configuration may come with another board.
pub(super) fn republish(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, time: Time) {
    refresh(engine, slot, paths, time);
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    if let Some(outlets) = &peer.outlets {
        peer.spec.board.set_ways(&outlets.ways);
    }
    peer.spec.board.changed();
}

/// Lanes have to look.
pub(super) fn publish_change(engine: &Engine, slot: Slot) {
    if let Some(peer) = engine.peers.get(slot) {
        peer.spec.board.changed();
    }
}

/// Tells the selector once a second how much each class sends.
pub(super) fn observe_loads(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, time: Time) {
    let span = time.since(paths.loads_at);
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    if span < Duration::from_secs(1) || !peer.outlets.as_ref().is_some_and(|it| it.has_several) {
        return;
    }
    let (id, board) = (peer.spec.id, peer.spec.board.clone());
    paths.loads_at = time;
    for at in 0..paths.selector_config.classes.len().min(CLASSES_MAX) {
        let class = ClassId(at as u8);
        let bytes = board.load(class);
        let sent = bytes.saturating_sub(std::mem::replace(&mut paths.loads[at], bytes));
        let was_loaded = paths.loaded >> at & 1 != 0;
        if sent > 0 || was_loaded {
            let bps = sent as f64 * 8.0 / span.as_secs_f64();
            see(engine, id, paths, Observation::Load(class, bps), time);
        }
        paths.loaded = paths.loaded & !(1 << at) | u8::from(sent > 0) << at;
    }
}

/// Data packets of this worker's tunnel and of all lanes: when the number changes, there was traffic.
pub(super) fn packets_on_all_lanes(engine: &Engine, slot: Slot) -> u64 {
    let Some(peer) = engine.peers.get(slot) else {
        return 0;
    };
    let own = peer.outlets.as_ref().map_or(0, |outlets| outlets.packets());
    if peer.spec.lanes.is_empty() {
        return own;
    }
    let of = |board: &PathBoard, path| {
        let sum = board.counters(path);
        sum.tx_packets.wrapping_add(sum.rx_packets)
    };
    let all = known(&peer.outlets).map(|(path, _)| of(&peer.spec.board, path));
    all.fold(own, u64::wrapping_add)
}

fn known(outlets: &Option<Box<Outlets>>) -> impl Iterator<Item = (PathIndex, &Endpoint)> {
    let ends = outlets.as_ref().map_or(&[][..], |outlets| &outlets.ends);
    let ends = ends.iter().enumerate();
    ends.filter_map(|(at, end)| Some((PathIndex(at as u8), end.as_ref()?)))
}

/// Tells the prober what was sent and received on a path.
pub(super) fn count(
    engine: &Engine,
    slot: Slot,
    paths: &mut PeerPaths,
    path: PathIndex,
    time: Time,
) {
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    let Some((outlets, end)) = peer
        .outlets
        .as_ref()
        .and_then(|it| Some((it, it.end(path)?)))
    else {
        return;
    };
    let board = &peer.spec.board;
    let mut sum = board.counters(path);
    // Of this worker's tunnel the batch at hand is not on the board yet.
    let stored = board.stored_counters(path, engine.config.worker);
    let own = outlets.counters[path.as_usize()];
    sum.tx_packets = sum.tx_packets - stored.tx_packets + own.tx_packets;
    sum.tx_bytes = sum.tx_bytes - stored.tx_bytes + own.tx_bytes;
    sum.rx_packets = sum.rx_packets - stored.rx_packets + own.rx_packets;
    sum.rx_bytes = sum.rx_bytes - stored.rx_bytes + own.rx_bytes;
    paths.prober.set_counters(path, outer_bytes(sum, end), time);
}
