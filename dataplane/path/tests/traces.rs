//! Traces: what was recorded replays to the same decisions, byte for byte, and other bounds say what they would change.

mod common;

use common::{Chance, DEFAULT, Link, REALTIME, Sim, seconds};
use patronus_path::trace::{Line, Override, ReplayError, VERSION, compare, replay};
use patronus_path::{
    ClassConfig, Command, Direction, Observation, PathIndex, PathMetrics, PathState, Selector,
    SelectorConfig, StateReason,
};

/// Some eventful minutes, recorded from their middle on.
fn eventful(seed: u64) -> (Sim, Vec<Line>) {
    let links = vec![Link::new(20.0), Link::new(40.0), Link::new(35.0)];
    let mut sim = Sim::new(ClassConfig::defaults(), links, seed);
    let mut chance = Chance::new(!seed);
    for step in 0..60 {
        if step == 20 {
            sim.record();
            sim.decisions.clear();
        }
        let index = (chance.next() % 3) as usize;
        match chance.next() % 7 {
            0 => sim.set_up(index, false),
            1 | 2 => sim.set_up(index, true),
            3 => sim.links[index].loss = [0.2 * chance.share(); 2],
            4 => sim.links[index].rtt_ms = 20.0 + 500.0 * chance.share(),
            5 => sim.links[index].loss = [0.0; 2],
            _ => sim.see(Observation::Command(match chance.next() % 4 {
                0 => Command::Drain(PathIndex(index as u8)),
                1 => Command::Undrain(PathIndex(index as u8)),
                2 => Command::Pin(PathIndex(index as u8), Some(DEFAULT)),
                _ => Command::Unpin(None),
            })),
        }
        sim.run(8.0 * chance.share());
    }
    let trace = sim.trace.take().expect("it was recorded");
    (sim, trace)
}

/// Through text and back.
fn reread(lines: &[Line]) -> Vec<Line> {
    let lines = lines.iter().map(|line| {
        let text = serde_json::to_string(line).expect("a line can be written");
        serde_json::from_str(&text).expect("a written line can be read")
    });
    lines.collect()
}

#[test]
fn a_recording_from_the_middle_replays_to_the_decisions_that_were_made() {
    let mut count = 0;
    for seed in 0..20 {
        let (sim, trace) = eventful(seed);
        count += sim.decisions.len();
        let replayed = replay(&reread(&trace), &[]).expect("it can be replayed");
        assert_eq!(replayed.decisions, sim.decisions, "seed {seed}");
    }
    assert!(count > 200, "little happened: {count} decisions");
}

#[test]
fn two_replays_of_a_trace_log_the_same_bytes_in_eighty_columns() {
    let (_, trace) = eventful(3);
    let first = replay(&trace, &[]).expect("it can be replayed");
    let second = replay(&reread(&trace), &[]).expect("it can be replayed");
    assert!(!first.log.is_empty());
    assert_eq!(first.log, second.log);
    assert_eq!(first, second);
    for line in first.log.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_selector_survives_being_written_and_read() {
    for seed in 0..20 {
        let (sim, _) = eventful(seed);
        let text = serde_json::to_string(&sim.selector).expect("it can be written");
        let read: Selector = serde_json::from_str(&text).expect("it can be read");
        assert_eq!(read, sim.selector, "seed {seed}");
    }
}

/// Realtime is on a path that begins to lose 20 %.
fn brownout() -> Vec<Line> {
    let links = vec![Link::new(20.0), Link::new(30.0)];
    let mut sim = Sim::new(ClassConfig::defaults(), links, 5);
    sim.record();
    sim.run(20.0);
    sim.links[0].loss = [0.2, 0.2];
    sim.run(20.0);
    sim.links[0].loss = [0.0, 0.0];
    sim.run(20.0);
    sim.trace.take().expect("it was recorded")
}

fn overrides(texts: &[&str]) -> Vec<Override> {
    let parsed = texts.iter().map(|text| text.parse());
    parsed.collect::<Result<_, _>>().expect("they are right")
}

#[test]
fn a_class_that_tolerates_more_would_have_stayed_and_lost_more() {
    let trace = brownout();
    let base = replay(&trace, &[]).expect("it can be replayed");
    let tolerant = overrides(&["class.realtime.loss_pct=30,60"]);
    let other = replay(&trace, &tolerant).expect("it can be replayed");
    let comparison = compare(&base, &other);
    let realtime = &comparison.classes[REALTIME.as_usize()];
    assert_eq!((realtime.switches.base, realtime.switches.other), (1, 0));
    assert!(realtime.sla_lost_s.base < 5.0, "{realtime:?}");
    assert!(realtime.sla_lost_s.other > 15.0, "{realtime:?}");
    assert_eq!(comparison.changes.len(), 1, "{:?}", comparison.changes);
    assert!(!comparison.changes[0].is_added);
    let same = compare(&base, &base);
    assert_eq!(same.changes, []);
}

#[test]
fn cuts_are_measured_from_the_last_sign_of_life() {
    let links = vec![Link::new(20.0), Link::new(30.0)];
    let mut sim = Sim::new(ClassConfig::defaults(), links, 5);
    sim.record();
    sim.run(20.0);
    sim.links[0].is_up = false;
    sim.run(0.24);
    sim.set_up(0, false);
    sim.run(1.0);
    let trace = sim.trace.take().expect("it was recorded");
    let base = replay(&trace, &[]).expect("it can be replayed");
    let counts = base.usage[DEFAULT.as_usize()].gaps.counts;
    assert_eq!(counts.iter().sum::<u32>(), 1);
    // The last answer came up to 50 ms before, or 20 ms after.
    assert_eq!(counts[2] + counts[3], 1, "{counts:?}");
}

#[test]
fn a_bad_override_names_its_key_and_the_fix() {
    for (text, told) in [
        ("realtime", "KEY=VALUE"),
        ("class.realtime=1", "no such key"),
        ("class.realtime.loss=1,2", "loss_pct"),
        ("path.a.cost=1", "class.NAME.KEY"),
        ("class.realtime.loss_pct=2", "SOFT,HARD in percent"),
        ("class.realtime.latency_ms=a,b", "class.realtime.latency_ms"),
        ("class.realtime.protect=yes", "true or false"),
        ("class.realtime.prefer=300", "numbers of uplinks"),
        ("class.bulk.target_bps=much", "100e6"),
    ] {
        let error = text.parse::<Override>().expect_err(text).to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
    let trace = brownout();
    for (text, told) in [
        (
            "class.voice.protect=true",
            "it has: realtime, interactive, default, bulk",
        ),
        ("class.realtime.loss_pct=6,2", "0 <= soft < hard"),
        ("class.realtime.loss_pct=1,NaN", "0 <= soft < hard"),
        ("class.realtime.loss_pct=1,101", "<= 100"),
        ("class.realtime.target_bps=1e6", "not scored by throughput"),
        ("class.bulk.target_bps=0", "above 0"),
    ] {
        let error = replay(&trace, &overrides(&[text]))
            .expect_err(text)
            .to_string();
        assert!(error.contains(told), "{text}: {error}");
        let key = text.split_once('=').expect("an assignment").0;
        assert!(error.starts_with(key), "{text}: {error}");
    }
}

#[test]
fn a_trace_without_a_beginning_is_refused() {
    let trace = brownout();
    assert_eq!(replay(&[], &[]), Err(ReplayError::Empty));
    assert_eq!(replay(&trace[1..], &[]), Err(ReplayError::NoBegin));
    let mut newer = trace.clone();
    let Line::Begin { version, .. } = &mut newer[0] else {
        panic!("a trace begins with its beginning");
    };
    *version = VERSION + 1;
    let error = replay(&newer, &[]).expect_err("it is newer").to_string();
    assert!(error.starts_with("line 1: begin.version is 2"), "{error}");
}

#[test]
fn a_trace_goes_on_after_new_classes_and_a_new_beginning() {
    let mut trace = brownout();
    let mut classes = ClassConfig::defaults();
    classes[0].protect = true;
    let end = common::at(70.0);
    trace.push(Line::Configured(end, SelectorConfig::new(classes.clone())));
    trace.push(Line::Begin {
        version: VERSION,
        peer: "peer".to_owned(),
        at: end + seconds(100.0),
        selector: Box::new(Selector::new(SelectorConfig::new(classes), end)),
    });
    trace.push(Line::Timeout(end + seconds(101.0)));
    let replayed = replay(&trace, &[]).expect("it can be replayed");
    assert_eq!(replayed.span.1, end + seconds(101.0));
    let lost_s = replayed.usage[REALTIME.as_usize()].sla_lost_s;
    assert!(
        (1.0..6.0).contains(&lost_s),
        "the pause does not count: {lost_s}"
    );
}

#[test]
fn a_state_with_senseless_numbers_is_refused_or_replayed_but_never_panics() {
    let (_, trace) = eventful(7);
    let begin = serde_json::to_string(&trace[0]).expect("it can be written");
    let digits: Vec<usize> = begin
        .bytes()
        .enumerate()
        .filter(|(_, byte)| byte.is_ascii_digit())
        .map(|(place, _)| place)
        .collect();
    let mut readable = 0;
    for seed in 0..400 {
        let mut chance = Chance::new(seed);
        let mut bytes = begin.clone().into_bytes();
        for _ in 0..=chance.next() % 30 {
            let place = digits[(chance.next() % digits.len() as u64) as usize];
            bytes[place] = b'0' + (chance.next() % 10) as u8;
        }
        if let Ok(line) = serde_json::from_slice::<Line>(&bytes) {
            readable += 1;
            let mut senseless = trace.iter().take(300).cloned().collect::<Vec<_>>();
            senseless[0] = line;
            senseless.push(Line::Timeout(common::at(1e6)));
            println!("seed {seed}");
            let _ = replay(&senseless, &[]);
        }
    }
    assert!(readable > 100, "{readable}");
    let mut crowd = trace;
    let mut config = SelectorConfig::new(ClassConfig::defaults());
    config.classes.extend(ClassConfig::defaults());
    config.classes.extend(ClassConfig::defaults());
    assert!(config.check().is_err());
    let text = begin.replacen(
        "\"classes\":[",
        &format!(
            "\"classes\":[{},",
            config
                .classes
                .iter()
                .map(|class| serde_json::to_string(class).expect("it can be written"))
                .collect::<Vec<_>>()
                .join(",")
        ),
        1,
    );
    crowd[0] = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(replay(&crowd, &[]), Err(ReplayError::State { line: 1 }));
}

/// Writes the trace that the tests of `patronus replay` read, to the file that `PATRONUS_TRACE_OUT` names: after a change
/// of the format.
#[test]
#[ignore = "writes a file for the tests of another crate"]
fn write_a_small_trace() {
    let out = std::env::var("PATRONUS_TRACE_OUT").expect("PATRONUS_TRACE_OUT names a file");
    let start = common::at(3.0);
    let selector = Selector::new(SelectorConfig::new(ClassConfig::defaults()), start);
    let mut lines = vec![Line::Begin {
        version: VERSION,
        peer: "branch".to_owned(),
        at: start,
        selector: Box::new(selector),
    }];
    let mut now = start;
    let mut see = |now, observation| lines.push(Line::Seen(now, observation));
    for path in 0..2 {
        see(
            now,
            Observation::Path(PathIndex(path), common::profile(path, path.into())),
        );
        see(now, up(path));
    }
    let mut chance = Chance::new(11);
    for step in 0..240 {
        now = now + seconds(0.1);
        // The first path loses a quarter from 5 s to 12 s, the second one dies at 20 s for 2 s.
        for path in 0..2u8 {
            let is_dead = path == 1 && (200..220).contains(&step);
            if is_dead {
                continue;
            }
            let is_lossy = path == 0 && (50..120).contains(&step);
            let is_lost = is_lossy && chance.share() < 0.25;
            see(
                now,
                Observation::Probe(PathIndex(path), Direction::Tx, is_lost),
            );
            if !is_lost {
                see(
                    now,
                    Observation::Rtt(PathIndex(path), (20e6 + 1e6 * chance.share()).round()),
                );
            }
        }
        if step % 20 == 19 {
            // Of the last 10 s, by number of probes, the first path lost a quarter while it was lossy.
            let lossy = (0..100)
                .filter(|back| (50..120).contains(&(step - back)))
                .count();
            let mut metrics = PathMetrics {
                rtt_fast_ns: Some(20.5e6),
                tx_jitter_ns: Some(0.3e6),
                ..PathMetrics::default()
            };
            metrics.tx_loss.ten_s = Some(lossy as f64 * 0.25 / 100.0);
            see(now, Observation::Metrics(PathIndex(0), Box::new(metrics)));
            metrics.tx_loss.ten_s = Some(0.0);
            see(now, Observation::Metrics(PathIndex(1), Box::new(metrics)));
        }
        if step == 203 {
            let reason = StateReason::DetectionExpired;
            see(
                now,
                Observation::State(PathIndex(1), PathState::Down, reason),
            );
        }
        if step == 220 {
            see(now, up(1));
        }
    }
    let text: String = lines
        .iter()
        .map(|line| serde_json::to_string(line).expect("it can be written") + "\n")
        .collect();
    std::fs::write(out, text).expect("the file can be written");
}

fn up(path: u8) -> Observation {
    Observation::State(PathIndex(path), PathState::Up, StateReason::Heard)
}
