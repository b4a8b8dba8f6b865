//! `patronus path show`.

use patronus_api::{LossView, PathView, StandingView};

use super::words::{age, bandwidth, bytes, number, rate, state};
use super::{DONE, ShowArgs};
use crate::print;

/// Tells everything about a path.
pub fn show(args: &ShowArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    let path = client.path(&args.path.peer, &args.path.path)?;
    match args.look.json {
        true => print::json(&path)?,
        false => print::text_out(&for_people(&path, args.look.ascii)),
    }
    Ok(DONE)
}

fn for_people(path: &PathView, ascii: bool) -> String {
    let mut text = print::wrapped(&format!("{}  {}", path.id, path.name), 4);
    let mut line = |name: &str, value: String| {
        // Held together with its name by what is no blank, so that the column stays where it is.
        let padding = HOLD.repeat(11usize.saturating_sub(name.len()));
        let line = print::wrapped(&format!("  {name}{padding}{value}"), 13);
        text += &line.replace(HOLD, " ");
    };
    let since = age(path.state_age_s);
    let why = path.text.split_once(": ").map_or("", |(_, why)| why);
    line(
        "state",
        format!("{} for {since}: {why}", state(path, ascii)),
    );
    line("ends", ends(path));
    let ms = |value: Option<f64>| milliseconds(value, ascii);
    line(
        "round trip",
        format!(
            "{}; over 10 s {}, least {}, 95 % below {}",
            ms(path.rtt_ms),
            ms(path.rtt_slow_ms),
            ms(path.rtt_min_ms),
            ms(path.rtt_p95_ms)
        ),
    );
    line(
        "queues",
        format!(
            "{} both ways, {} in",
            ms(path.queueing_ms),
            ms(path.rx_queueing_ms)
        ),
    );
    let jitter = (ms(path.tx_jitter_ms), ms(path.rx_jitter_ms));
    line("jitter", format!("out {}, in {}", jitter.0, jitter.1));
    line("loss out", loss(&path.tx_loss, ascii));
    line("loss in", loss(&path.rx_loss, ascii));
    let capacity = (&path.tx_bandwidth, &path.rx_bandwidth);
    line(
        "bandwidth",
        format!(
            "out {}, in {}",
            bandwidth(capacity.0.as_ref()),
            bandwidth(capacity.1.as_ref())
        ),
    );
    line("sent", traffic(path.tx_packets, path.tx_bytes, path.tx_bps));
    line(
        "received",
        traffic(path.rx_packets, path.rx_bytes, path.rx_bps),
    );
    line(
        "outer MTU",
        path.mtu
            .map_or("not known".to_owned(), |mtu| format!("{mtu} bytes")),
    );
    line("cost", cost(path));
    if !path.classes.is_empty() {
        text += HEADER;
    }
    for class in &path.classes {
        text += &of_class(class, ascii);
    }
    text
}

fn ends(path: &PathView) -> String {
    let uplink = path.uplink.as_deref().unwrap_or("the kernel's routes");
    match path.local {
        Some(local) => format!("{uplink}, from {local} to {}", path.remote),
        None => format!("{uplink}, to {}", path.remote),
    }
}

fn milliseconds(value: Option<f64>, ascii: bool) -> String {
    match value {
        Some(value) => format!("{value:.2} ms"),
        None => number(None, ascii),
    }
}

fn loss(of: &LossView, ascii: bool) -> String {
    let pct = |value: Option<f64>| match value {
        Some(value) => format!("{value:.1} %"),
        None => number(None, ascii),
    };
    format!(
        "{} of hellos in 10 s; in 1 s {}, in 60 s {}; of data {}",
        pct(of.ten_s_pct),
        pct(of.one_s_pct),
        pct(of.sixty_s_pct),
        pct(of.data_pct)
    )
}

fn traffic(packets: u64, count: u64, bps: f64) -> String {
    let noun = if packets == 1 { "packet" } else { "packets" };
    format!("{packets} {noun}, {}, {}", bytes(count), rate(bps))
}

fn cost(path: &PathView) -> String {
    let cost = path.cost.map_or("none".to_owned(), |it| it.to_string());
    match path.is_metered {
        true => format!("{cost}, metered"),
        false => cost,
    }
}

fn of_class(class: &StandingView, ascii: bool) -> String {
    let worth = |value: Option<f64>| match value {
        Some(value) => format!("{value:.2}"),
        None => number(None, ascii),
    };
    let lead = match class.class.chars().count() <= CLASS_WIDTH {
        true => format!("  {:<CLASS_WIDTH$}", class.class),
        false => format!("  {}\n{:18}", class.class, ""),
    };
    let use_of_it = match (class.is_used, class.is_pinned) {
        (true, true) => "uses it, pinned",
        (true, false) => "uses it",
        (false, true) => "pinned, not used",
        (false, false) => "",
    };
    let row = format!(
        "{lead} {:<13} {:>5.1} {:>7} {:>6} {:>6}  {use_of_it}",
        class.tier_text.chars().take(13).collect::<String>(),
        class.score,
        worth(class.utilities.latency),
        worth(class.utilities.jitter),
        worth(class.utilities.loss),
    );
    let mut text = row.trim_end().to_owned() + "\n";
    if let Some(why) = &class.why_not {
        text += &print::wrapped(&format!("    not used: {why}"), 6);
    }
    text
}

/// Stands for a blank at which no line may break.
const HOLD: &str = "\u{0}";
const CLASS_WIDTH: usize = 16;
const HEADER: &str = "  CLASS            STANDING      SCORE LATENCY JITTER   LOSS\n";

#[cfg(test)]
mod tests {
    use super::super::list::tests::path;
    use super::*;

    #[test]
    fn everything_is_told_in_lines_that_fit() {
        let mut lte = path(0, "fiber>198.51.100.2");
        lte.local = Some("203.0.113.4".parse().unwrap());
        lte.classes[1].tier_text = "suppressed".to_owned();
        lte.classes[1].is_pinned = true;
        assert_eq!(
            for_people(&lte, false),
            "\
branch/0 fiber>198.51.100.2
  state      ● up for 4 min: both ends hear each other
  ends       fiber, from 203.0.113.4 to 198.51.100.2:51820
  round trip 10.25 ms; over 10 s 10.40 ms, least 9.88 ms, 95 % below –
  queues     0.38 ms both ways, – in
  jitter     out 0.30 ms, in 1.26 ms
  loss out   0.5 % of hellos in 10 s; in 1 s –, in 60 s 0.1 %; of data –
  loss in    – of hellos in 10 s; in 1 s –, in 60 s –; of data –
  bandwidth  out 500 Mbit/s configured, in 480 Mbit/s by train 12 s ago
  sent       12345 packets, 12.3 MB, 12.3 Mbit/s
  received   7 packets, 700 B, 1.06 Mbit/s
  outer MTU  1420 bytes
  cost       10
  CLASS            STANDING      SCORE LATENCY JITTER   LOSS
  realtime         in bounds      92.5    1.00      –   0.25  uses it
  bulk             suppressed     80.0    1.00      –   0.25  pinned, not used
    not used: scores 80.0, path 1 85.0
"
        );
    }

    #[test]
    fn long_names_and_plain_letters_fit_too() {
        let mut long = path(0, "fiber>198.51.100.2");
        long.classes[0].class = "everything-that-cannot-wait".to_owned();
        long.remote = "[2001:db8:1234:5678:9abc:def0:1234:5678]:51820"
            .parse()
            .unwrap();
        long.local = Some("2001:db8:1234:5678:9abc:def0:1234:5679".parse().unwrap());
        let text = for_people(&long, true);
        assert!(text.is_ascii(), "{text}");
        for line in text.lines() {
            assert!(line.len() <= 80, "{line}");
        }
    }
}
