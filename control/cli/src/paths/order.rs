//! `patronus path pin`, `unpin`, `drain`, `undrain`, `clear` and `bandwidth`.

use std::time::{Duration, Instant};

use anyhow::bail;
use patronus_api::{Client, OrderedResponse, PathCommand, PathCommandRequest, PathView};

use super::words::{bandwidth as in_words, rate};
use super::{DONE, OrderArgs, PathRef, PinArgs, ShowArgs, UnpinArgs};
use crate::print;

/// `patronus path pin`
pub fn pin(args: &PinArgs) -> anyhow::Result<u8> {
    give(PathCommand::Pin, &args.order, args.class.clone())
}

/// `patronus path drain`
pub fn drain(args: &OrderArgs) -> anyhow::Result<u8> {
    give(PathCommand::Drain, args, None)
}

/// `patronus path undrain`
pub fn undrain(args: &OrderArgs) -> anyhow::Result<u8> {
    give(PathCommand::Undrain, args, None)
}

/// `patronus path clear`
pub fn clear(args: &OrderArgs) -> anyhow::Result<u8> {
    give(PathCommand::Clear, args, None)
}

/// `patronus path unpin`
pub fn unpin(args: &UnpinArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    let (peer, path) = match args.target.parse::<PathRef>() {
        // A key may have a slash in it; then the whole is the peer.
        Ok(it) if client.paths(Some(&args.target)).is_err() => (it.peer, Some(it.path)),
        Ok(_) | Err(_) => (args.target.clone(), None),
    };
    let request = PathCommandRequest {
        command: PathCommand::Unpin,
        path,
        class: args.class.clone(),
        dry_run: args.dry_run,
    };
    tell(&client.path_command(&peer, &request)?, args.json)
}

fn give(command: PathCommand, args: &OrderArgs, class: Option<String>) -> anyhow::Result<u8> {
    let request = PathCommandRequest {
        command,
        path: Some(args.path.path.clone()),
        class,
        dry_run: args.dry_run,
    };
    let client = args.gateway.connect()?;
    tell(&client.path_command(&args.path.peer, &request)?, args.json)
}

fn tell(answer: &OrderedResponse, json: bool) -> anyhow::Result<u8> {
    match json {
        true => print::json(answer)?,
        false => print::text_out(&for_people(answer)),
    }
    Ok(DONE)
}

fn for_people(answer: &OrderedResponse) -> String {
    let lead = if answer.done {
        "ordered"
    } else {
        "would order"
    };
    let mut text = print::wrapped(&format!("{lead}: {}", answer.text), 4);
    for warning in &answer.warnings {
        text += &print::wrapped(&format!("warning: {warning}"), 4);
    }
    text
}

/// `patronus path bandwidth`: orders the measurement and waits for its figure.
pub fn bandwidth(args: &ShowArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    let begun = Instant::now();
    client.measure_bandwidth(&args.path.peer, &args.path.path)?;
    let path = measured(&client, &args.path, begun)?;
    match args.look.json {
        true => print::json(&path)?,
        false => {
            let (out, back) = (path.tx_bandwidth.as_ref(), path.rx_bandwidth.as_ref());
            let line = format!(
                "{} {}: out {}, in {}",
                path.id,
                path.name,
                out.map_or("not known".to_owned(), |it| format!(
                    "{} measured",
                    rate(it.bps)
                )),
                in_words(back)
            );
            print::text_out(&print::wrapped(&line, 4));
        }
    }
    Ok(DONE)
}

/// The path once it has a figure that is younger than the order.
fn measured(client: &Client, path: &PathRef, begun: Instant) -> anyhow::Result<PathView> {
    while begun.elapsed() < MEASURED_WITHIN {
        std::thread::sleep(LOOK_EVERY);
        let told = client.path(&path.peer, &path.path)?;
        let is_new = |it: &patronus_api::BandwidthView| {
            it.source == "train" && it.age_s < begun.elapsed().as_secs_f64()
        };
        if told.tx_bandwidth.as_ref().is_some_and(is_new) {
            return Ok(told);
        }
    }
    bail!(
        "no figure after {} s: the path lost the train, or the peer is no Patronus site; `patronus path show` says how \
         it does",
        MEASURED_WITHIN.as_secs()
    )
}

/// The gateway tells new numbers four times a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const MEASURED_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_told_with_its_warnings() {
        let mut answer = OrderedResponse {
            done: true,
            text: "drain path branch/0 fiber>198.51.100.2".to_owned(),
            warnings: vec!["it is the last usable path to branch".to_owned()],
        };
        assert_eq!(
            for_people(&answer),
            "ordered: drain path branch/0 fiber>198.51.100.2\nwarning: it is the last usable path to branch\n"
        );
        answer.done = false;
        assert!(for_people(&answer).starts_with("would order: drain"));
    }
}
