//! `patronus events`.

use std::io::IsTerminal;

use anyhow::Context;
use patronus_api::{Client, EVENTS_WAIT_MAX_S, EventView, EventsQuery, EventsResponse};

use super::words::{sign, utc};
use super::{DONE, EventsArgs, Look};
use crate::print;

/// Tells what happened; goes on where that is wanted.
pub fn events(args: &EventsArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    let kinds = args.kind.join(",");
    let mut query = EventsQuery {
        since: None,
        peer: args.peer.clone(),
        kind: (!kinds.is_empty()).then_some(kinds),
        // Who follows and does not say since when wants what is to come.
        max_age_s: match args.since {
            Some(since) => Some(since.as_secs_f64().ceil() as u64),
            None => args.follow.then_some(0),
        },
        wait_s: None,
    };
    let told = client.events(&query)?;
    if args.since.is_none() && !args.follow {
        notes(&told, 0);
    }
    tell(&told, &args.look)?;
    if args.follow {
        (query.since, query.max_age_s) = (Some(told.next), None);
        query.wait_s = Some(EVENTS_WAIT_MAX_S);
        follow(&client, query, &args.look)?;
    } else if told.events.is_empty() && !args.look.json {
        eprintln!("nothing happened in that time");
    }
    Ok(DONE)
}

/// Until the gateway goes away.
fn follow(client: &Client, mut query: EventsQuery, look: &Look) -> anyhow::Result<()> {
    loop {
        let told = client.events(&query)?;
        let since = query.since.unwrap_or_default();
        if told.next < since {
            eprintln!("note: the gateway was restarted");
        }
        notes(&told, since);
        tell(&told, look)?;
        query.since = Some(told.next);
    }
}

/// What a reader cannot see in the events.
fn notes(told: &EventsResponse, since: u64) {
    if told.lost > 0 {
        let after = if since > 0 {
            " while this was reading"
        } else {
            ""
        };
        eprintln!("note: {} older events are forgotten{after}", told.lost);
    }
    if told.dropped > 0 && since == 0 {
        eprintln!(
            "note: {} events since the start never came: control was too far behind",
            told.dropped
        );
    }
}

fn tell(told: &EventsResponse, look: &Look) -> anyhow::Result<()> {
    let is_wrapped = std::io::stdout().is_terminal();
    for event in &told.events {
        let text = match look.json {
            true => serde_json::to_string(event).context("cannot write the event as JSON")? + "\n",
            false => line(event, look.ascii, is_wrapped),
        };
        print::text_out(&text);
    }
    Ok(())
}

/// Time, sign, peer, what and why; broken for a terminal, whole for `grep`.
fn line(event: &EventView, ascii: bool, is_wrapped: bool) -> String {
    let peer = event
        .peer
        .as_deref()
        .map_or(String::new(), |it| format!("{it} "));
    let line = format!(
        "{} {} {peer}{}",
        utc(event.unix_ms),
        sign(Some(event.grade), ascii),
        event.text
    );
    match is_wrapped {
        true => print::wrapped(&line, 4),
        false => line + "\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::{EventKind, GradeView};

    #[test]
    fn an_event_is_a_line_that_breaks_for_people_only() {
        let mut event = EventView {
            number: 1,
            at_ns: 5,
            unix_ms: 1_796_007_845_123,
            kind: EventKind::State,
            grade: GradeView::Bad,
            peer: Some("branch".to_owned()),
            path: Some(1),
            path_name: None,
            class: None,
            text: "path 1 lte>198.51.100.2 is down: nothing came for the detection time".to_owned(),
            state: None,
            reason: None,
            decision: None,
        };
        assert_eq!(
            line(&event, false, false),
            "2026-11-30T03:04:05Z ✖ branch path 1 lte>198.51.100.2 is down: nothing came for the detection time\n"
        );
        assert_eq!(
            line(&event, true, true),
            "2026-11-30T03:04:05Z x branch path 1 lte>198.51.100.2 is down: nothing came for\n    \
             the detection time\n"
        );
        event.peer = None;
        assert!(line(&event, true, false).starts_with("2026-11-30T03:04:05Z x path 1"));
    }
}
