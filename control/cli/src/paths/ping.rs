//! `patronus ping`.

use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use patronus_api::{Client, PING_MAX_MS, PathsResponse, PingRequest, PingResponse};

use super::{DONE, FAILED, PathRef, PingArgs};
use crate::print;

/// Measures round trips and tells each as it comes.
pub fn ping(args: &PingArgs) -> anyhow::Result<u8> {
    let timeout_ms = u32::try_from(args.timeout.as_millis()).unwrap_or(u32::MAX);
    ensure!(
        u64::from(timeout_ms) <= PING_MAX_MS && timeout_ms > 0,
        "--timeout: between 1ms and {} s",
        PING_MAX_MS / 1000
    );
    ensure!(args.interval >= INTERVAL_MIN, "--interval: 10ms or more");
    let client = args.gateway.connect()?;
    let (peer, path) = target(&client, args)?;
    let request = PingRequest {
        count: Some(1),
        interval_ms: None,
        timeout_ms: Some(timeout_ms),
    };
    let mut sum: Option<PingResponse> = None;
    for at in 1..=args.count {
        let begun = Instant::now();
        let mut one = client.ping(&peer, &path, &with_interval(&request))?;
        if !args.json {
            print::text_out(&line(at, &one, timeout_ms));
        }
        match &mut sum {
            None => sum = Some(one),
            Some(sum) => sum.rtts_ms.append(&mut one.rtts_ms),
        }
        if at < args.count {
            std::thread::sleep(args.interval.saturating_sub(begun.elapsed()));
        }
    }
    let sum = summed_up(sum.ok_or_else(|| anyhow!("--count: 1 or more"))?);
    match args.json {
        true => print::json(&sum)?,
        false => print::text_out(&summary(&sum)),
    }
    Ok(if sum.received > 0 { DONE } else { FAILED })
}

/// The gateway refuses what may take too long; one ping needs no interval.
fn with_interval(request: &PingRequest) -> PingRequest {
    PingRequest {
        interval_ms: Some(INTERVAL_MIN.as_millis() as u32),
        ..request.clone()
    }
}

/// Peer and path: as named, or the path that ordinary traffic uses.
fn target(client: &Client, args: &PingArgs) -> anyhow::Result<(String, String)> {
    if let Some(path) = &args.path {
        return Ok((args.peer.clone(), path.clone()));
    }
    let named = args.peer.parse::<PathRef>().ok();
    let told = match (client.paths(Some(&args.peer)), named) {
        (Ok(told), _) => told,
        (Err(_), Some(it)) => return Ok((it.peer, it.path)),
        (Err(error), None) => return Err(error.into()),
    };
    let path = usual(&told).ok_or_else(|| {
        anyhow!(
            "no usable path to {0}: `patronus paths {0}` says why; --path pings one all the same",
            args.peer
        )
    })?;
    Ok((args.peer.clone(), path.to_string()))
}

/// The path of the default class, else the first usable one.
fn usual(told: &PathsResponse) -> Option<u8> {
    let peer = told.peers.first()?;
    let class = told.classes.iter().find(|it| it.is_default);
    let is_it = |route: &&patronus_api::ClassRouteView| {
        class.is_some_and(|class| class.name == route.class)
    };
    let route = peer.routes.iter().find(is_it).and_then(|it| it.path);
    let usable = peer.paths.iter().find(|it| it.state.is_usable());
    route.or(usable.map(|it| it.path))
}

fn line(at: u32, one: &PingResponse, timeout_ms: u32) -> String {
    let lead = match at {
        1 => print::wrapped(&format!("{} {}, inside the tunnel", one.id, one.name), 4),
        _ => String::new(),
    };
    match one.rtts_ms.first().copied().flatten() {
        Some(rtt_ms) => format!("{lead}{at}: {rtt_ms:.3} ms\n"),
        None => format!("{lead}{at}: no answer within {timeout_ms} ms\n"),
    }
}

fn summed_up(mut sum: PingResponse) -> PingResponse {
    let back: Vec<f64> = sum.rtts_ms.iter().flatten().copied().collect();
    sum.sent = sum.rtts_ms.len() as u32;
    sum.received = back.len() as u32;
    sum.loss_pct = 100.0 * f64::from(sum.sent - sum.received) / f64::from(sum.sent.max(1));
    sum.rtt_min_ms = back.iter().copied().reduce(f64::min);
    sum.rtt_max_ms = back.iter().copied().reduce(f64::max);
    let total: f64 = back.iter().sum();
    sum.rtt_avg_ms = (!back.is_empty()).then(|| total / back.len() as f64);
    sum
}

fn summary(sum: &PingResponse) -> String {
    let head = format!(
        "{} sent, {} back, {:.1} % lost",
        sum.sent, sum.received, sum.loss_pct
    );
    let text = match (sum.rtt_min_ms, sum.rtt_avg_ms, sum.rtt_max_ms) {
        (Some(least), Some(average), Some(longest)) => {
            format!("{head}; least {least:.3} ms, average {average:.3} ms, longest {longest:.3} ms")
        }
        _ => format!(
            "{head}: the path is down, or the peer is no Patronus site; `patronus path show {}` says more",
            sum.id
        ),
    };
    print::wrapped(&text, 4)
}

const INTERVAL_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn pinged(rtts_ms: Vec<Option<f64>>) -> PingResponse {
        summed_up(PingResponse {
            id: "branch/0".to_owned(),
            name: "fiber>198.51.100.2".to_owned(),
            rtts_ms,
            sent: 0,
            received: 0,
            loss_pct: 0.0,
            rtt_min_ms: None,
            rtt_avg_ms: None,
            rtt_max_ms: None,
        })
    }

    #[test]
    fn each_round_trip_has_a_line_and_all_have_a_summary() {
        let first = pinged(vec![Some(10.25)]);
        assert_eq!(
            line(1, &first, 1000),
            "branch/0 fiber>198.51.100.2, inside the tunnel\n1: 10.250 ms\n"
        );
        assert_eq!(
            line(2, &pinged(vec![None]), 500),
            "2: no answer within 500 ms\n"
        );
        let all = pinged(vec![Some(10.25), None, Some(12.0), Some(11.0)]);
        assert_eq!(
            summary(&all),
            "4 sent, 3 back, 25.0 % lost; least 10.250 ms, average 11.083 ms, longest 12.000\n    ms\n"
        );
    }

    #[test]
    fn where_nothing_comes_back_the_summary_says_where_to_look() {
        let text = summary(&pinged(vec![None, None]));
        assert!(
            text.starts_with("2 sent, 0 back, 100.0 % lost: the path is down"),
            "{text}"
        );
        assert!(text.contains("patronus path show branch/0"), "{text}");
    }
}
