//! `patronus monitor`: everything that happens, as JSON lines for a program that reads for ever.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use patronus_api::{Client, ClientError, EVENTS_WAIT_MAX_S, EventsQuery};
use serde::Serialize;

use crate::gateway::Gateway;

/// The command line of `monitor`.
#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// Begin with the events of that number on; those to come if absent
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
    /// End when the gateway goes away, with 5; it is waited for otherwise
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `monitor --help`.
pub const HELP: &str = "\
Example:
  patronus monitor | jq -c 'select(.kind == \"decision\") | .text'

A line is an event as `patronus events --json` prints it, or one of this stream's
own, which has `monitor` in the place of `kind`: connected, disconnected,
restarted, lost (with `count`). It ends when nobody reads it any more.

Exit codes: 0 nobody reads, 2 usage, 5 no gateway answers, with --once.";

/// A line of the stream's own.
#[derive(Serialize)]
struct Own<'a> {
    monitor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Prints for ever.
pub fn monitor(args: &MonitorArgs) -> anyhow::Result<u8> {
    let mut next = args.since.map(|it| it.saturating_sub(1));
    let mut is_connected = false;
    loop {
        let error = match args.gateway.connect() {
            Ok(client) => {
                if !own("connected", None, None) {
                    return Ok(0);
                }
                is_connected = true;
                match follow(&client, &mut next) {
                    Ok(()) => return Ok(0),
                    Err(error) => error.into(),
                }
            }
            Err(error) => error,
        };
        // What time does not heal.
        let is_temporary = matches!(
            error.downcast_ref(),
            Some(ClientError::Unreachable { .. } | ClientError::Broken { .. })
        );
        if args.once || !is_temporary {
            return Err(error);
        }
        let was_connected = std::mem::take(&mut is_connected);
        if was_connected && !own("disconnected", None, Some(error.to_string())) {
            return Ok(0);
        }
        std::thread::sleep(RETRY);
    }
}

/// Until nobody reads; `next` is the last event that was printed.
fn follow(client: &Client, next: &mut Option<u64>) -> Result<(), ClientError> {
    if next.is_none() {
        let query = EventsQuery {
            max_age_s: Some(0),
            ..EventsQuery::default()
        };
        *next = Some(client.events(&query)?.next);
    }
    loop {
        let since = next.unwrap_or_default();
        let query = EventsQuery {
            since: Some(since),
            wait_s: Some(EVENTS_WAIT_MAX_S),
            ..EventsQuery::default()
        };
        let told = client.events(&query)?;
        let mut is_read = true;
        if told.next < since {
            is_read &= own("restarted", None, None);
        }
        if told.lost > 0 {
            is_read &= own("lost", Some(told.lost), None);
        }
        for event in &told.events {
            is_read &= line(event);
        }
        if !is_read {
            return Ok(());
        }
        *next = Some(told.next);
    }
}

fn own(what: &str, count: Option<u64>, text: Option<String>) -> bool {
    line(&Own {
        monitor: what,
        count,
        text,
    })
}

/// Whether somebody still reads.
fn line(value: &impl Serialize) -> bool {
    let Ok(text) = serde_json::to_string(value) else {
        return true;
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

const RETRY: Duration = Duration::from_secs(1);
