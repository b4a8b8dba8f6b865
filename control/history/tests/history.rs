//! The store on real files: what is kept, what bounds it, and what it does with a file that is damaged or has no room.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use patronus_history::{History, Question, Sample, Settings, State, Status};

/// How long anything may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
const T0: u64 = 1_796_000_000_000;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("history.sqlite3")
    }

    fn settings(&self) -> Settings {
        Settings::day(self.path())
    }
}

fn sample(at: u64, values: &[(&'static str, &str, f64)]) -> Sample {
    let values = values.iter();
    Sample {
        unix_ms: T0 + at * 10_000,
        values: values
            .map(|(metric, labels, value)| (*metric, (*labels).to_owned(), *value))
            .collect(),
    }
}

fn until(history: &History, what: &str, is_it: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let status = history.status();
        if is_it(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "not {what}: {status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Puts samples one after the other, none of which may be lost.
fn put_all(history: &History, samples: impl Iterator<Item = Sample>) {
    let before = until(history, "open", |it| it.state != State::Off);
    for sample in samples {
        let at_ms = sample.unix_ms;
        history.put(sample);
        // An answer means that what came before is done.
        let asked = ask(history, "none", None, at_ms);
        assert_eq!(asked, Ok(Vec::new()));
    }
    assert_eq!(history.status().dropped, before.dropped);
}

type Told = Result<Vec<(String, Vec<f64>)>, String>;

fn ask(history: &History, metric: &str, label: Option<&str>, since_ms: u64) -> Told {
    let question = Question {
        metric: metric.to_owned(),
        label: label.map(str::to_owned),
        since_ms,
        step_ms: 10_000,
    };
    let series = history.ask(question)?;
    let values = |it: &patronus_history::Series| it.points.iter().map(|it| it.value).collect();
    Ok(series
        .iter()
        .map(|it| (it.labels.clone(), values(it)))
        .collect())
}

/// Ends the thread, and with it its hold on the file.
fn close(history: History, place: &Place) {
    drop(history);
    let begun = Instant::now();
    // Whoever opens it next would be told that it is in use.
    while let Err(error) = open_once(&place.path()) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open_once(path: &Path) -> Result<i64, rusqlite::Error> {
    let connection = rusqlite::Connection::open(path)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |it| it.get(0))
}

#[test]
fn samples_come_back_by_metric_label_and_time_also_after_a_restart() {
    let place = Place::new();
    let history = History::start(place.settings());
    let samples = (0..5).map(|at| {
        let (rtt, rate) = (at as f64, 100.0 * at as f64);
        sample(
            at,
            &[
                ("path_rtt_ms", "peer=a,path=0", rtt),
                ("path_rtt_ms", "peer=b,path=0", rtt + 10.0),
                ("rate", "", rate),
            ],
        )
    });
    put_all(&history, samples);
    let all = ask(&history, "path_rtt_ms", None, 0).unwrap();
    assert_eq!(
        all,
        [
            ("peer=a,path=0".to_owned(), vec![0.0, 1.0, 2.0, 3.0, 4.0]),
            (
                "peer=b,path=0".to_owned(),
                vec![10.0, 11.0, 12.0, 13.0, 14.0]
            )
        ]
    );
    close(history, &place);
    let history = History::start(place.settings());
    until(&history, "on", |it| {
        it.state == State::On && it.samples == 5
    });
    let late = ask(&history, "path_rtt_ms", Some("peer=b"), T0 + 30_000).unwrap();
    assert_eq!(late, [("peer=b,path=0".to_owned(), vec![13.0, 14.0])]);
    assert_eq!(ask(&history, "absent", None, 0), Ok(Vec::new()));
    assert!(history.take_notices().is_empty());
}

#[test]
fn points_are_means_over_equal_spans_and_keep_the_greatest() {
    let place = Place::new();
    let history = History::start(place.settings());
    put_all(
        &history,
        (0..6).map(|at| sample(at, &[("x", "", at as f64)])),
    );
    let question = Question {
        metric: "x".to_owned(),
        label: None,
        since_ms: T0,
        step_ms: 30_000,
    };
    let series = history.ask(question).unwrap();
    let points: Vec<(u64, f64, f64)> = series[0]
        .points
        .iter()
        .map(|it| (it.unix_ms - T0, it.value, it.max))
        .collect();
    assert_eq!(points, [(0, 1.0, 2.0), (30_000, 4.0, 5.0)]);
}

#[test]
fn what_is_older_than_a_day_goes_and_a_clock_that_was_wrong_leaves_nothing_behind() {
    let place = Place::new();
    let settings = Settings {
        samples_max: 10,
        ..place.settings()
    };
    let history = History::start(settings);
    // Taken by a clock a year ahead.
    put_all(
        &history,
        std::iter::once(sample(3_000_000, &[("x", "", -1.0)])),
    );
    put_all(
        &history,
        (0..25).map(|at| sample(at, &[("x", "", at as f64)])),
    );
    let told = ask(&history, "x", None, 0).unwrap();
    let expected: Vec<f64> = (15..25).map(f64::from).collect();
    assert_eq!(told[0].1, expected);
    // Set back again and again: the rows do not pile up.
    put_all(
        &history,
        (0..30).map(|at| sample(24 - at % 2, &[("x", "", 7.0)])),
    );
    let status = until(&history, "told", |_| true);
    assert!(status.samples <= 10, "{status:?}");
}

#[test]
fn the_file_stays_within_its_bound_and_the_oldest_samples_make_room() {
    let place = Place::new();
    let bound = 512 << 10;
    let settings = Settings {
        bytes_max: bound,
        ..place.settings()
    };
    let history = History::start(settings);
    let labels: Vec<String> = (0..500).map(|at| format!("path={at}")).collect();
    let samples = (0..400).map(|at| Sample {
        unix_ms: T0 + at * 10_000,
        values: labels
            .iter()
            .map(|it| ("x", it.clone(), at as f64))
            .collect(),
    });
    put_all(&history, samples);
    let status = until(&history, "on", |it| it.state == State::On);
    assert!(status.bytes <= bound, "{status:?}");
    let on_disk = std::fs::metadata(place.path()).unwrap().len();
    assert!(on_disk <= bound, "{on_disk}");
    let told = ask(&history, "x", Some("path=7"), 0).unwrap();
    let kept = &told[0].1;
    assert_eq!(kept.last(), Some(&399.0));
    assert!(kept.len() > 20 && kept.len() < 400, "{}", kept.len());
    assert!(history.take_notices().is_empty());
}

#[test]
fn a_sample_with_too_many_series_keeps_the_first_and_counts_the_rest() {
    let place = Place::new();
    let history = History::start(place.settings());
    let values = 0..patronus_history::SERIES_MAX + 5;
    let sample = Sample {
        unix_ms: T0,
        values: values.map(|at| ("x", format!("n={at}"), 1.0)).collect(),
    };
    put_all(&history, std::iter::once(sample));
    assert_eq!(history.status().left_out, 5);
    let told = ask(&history, "x", None, 0).unwrap();
    assert_eq!(told.len(), patronus_history::SERIES_MAX);
}

#[test]
fn series_that_no_sample_has_any_more_are_forgotten() {
    let place = Place::new();
    let settings = Settings {
        samples_max: 2,
        ..place.settings()
    };
    let history = History::start(settings);
    let samples = (0..6u64).map(|at| Sample {
        unix_ms: T0 + at * 10_000,
        values: (0..1000)
            .map(|n| ("x", format!("n={at}-{n}"), 1.0))
            .collect(),
    });
    put_all(&history, samples);
    close(history, &place);
    let connection = rusqlite::Connection::open(place.path()).unwrap();
    let count = |sql: &str| {
        connection
            .query_row(sql, [], |it| it.get::<_, i64>(0))
            .unwrap()
    };
    let known = count("SELECT count(*) FROM series");
    assert!(known <= 3000, "{known}");
    assert_eq!(count("SELECT count(*) FROM sample"), 2);
}

#[test]
fn a_damaged_file_is_moved_aside_and_said_and_a_new_one_begun() {
    let place = Place::new();
    let history = History::start(place.settings());
    put_all(
        &history,
        (0..200).map(|at| sample(at, &[("x", "", at as f64)])),
    );
    close(history, &place);
    for damage in [true, false] {
        let mut bytes = std::fs::read(place.path()).unwrap();
        match damage {
            // A page that is no page any more.
            true => bytes[4096..4096 * 2].fill(0xa5),
            // No database at all.
            false => bytes = b"notes of a stranger".repeat(100),
        }
        std::fs::write(place.path(), bytes).unwrap();
        let history = History::start(place.settings());
        put_all(&history, std::iter::once(sample(1000, &[("x", "", 1.0)])));
        let status = until(&history, "on", |it| it.state == State::On);
        assert_eq!(status.samples, 1);
        let notices = history.take_notices();
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].is_bad && notices[0].text.contains("was moved to"));
        assert!(place.dir.path().join("history.sqlite3.damaged").exists());
        close(history, &place);
    }
}

#[test]
fn a_file_of_a_newer_version_or_of_another_program_is_left_alone() {
    for (pragmas, word) in [
        (
            "PRAGMA application_id = 0x50617472; PRAGMA user_version = 2; CREATE TABLE sample (x);",
            "newer version",
        ),
        ("CREATE TABLE theirs (x);", "another program"),
    ] {
        let place = Place::new();
        let connection = rusqlite::Connection::open(place.path()).unwrap();
        connection.execute_batch(pragmas).unwrap();
        drop(connection);
        let before = std::fs::read(place.path()).unwrap();
        let history = History::start(place.settings());
        let status = until(&history, "failing", |it| it.state == State::Failing);
        assert!(status.reason.unwrap().contains(word));
        history.put(sample(0, &[("x", "", 1.0)]));
        until(&history, "dropped", |it| it.dropped == 1);
        assert!(ask(&history, "x", None, 0).is_err());
        assert_eq!(std::fs::read(place.path()).unwrap(), before);
        // Said once, however many samples are lost.
        assert_eq!(history.take_notices().len(), 1);
    }
}

#[test]
fn a_second_gateway_is_told_that_the_file_is_in_use() {
    let place = Place::new();
    let first = History::start(place.settings());
    put_all(&first, std::iter::once(sample(0, &[("x", "", 1.0)])));
    let second = History::start(place.settings());
    let status = until(&second, "failing", |it| it.state == State::Failing);
    assert!(status.reason.unwrap().contains("another gateway uses it"));
    put_all(&first, std::iter::once(sample(1, &[("x", "", 2.0)])));
}

#[test]
fn a_file_that_cannot_be_written_costs_samples_and_is_used_again_when_it_can() {
    let place = Place::new();
    let path = place.dir.path().join("late").join("history.sqlite3");
    let history = History::start(Settings::day(path.clone()));
    let status = until(&history, "failing", |it| it.state == State::Failing);
    assert!(status.reason.is_some());
    history.put(sample(0, &[("x", "", 1.0)]));
    until(&history, "dropped", |it| it.dropped == 1);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    history.put(sample(1, &[("x", "", 2.0)]));
    let status = until(&history, "on", |it| it.state == State::On);
    assert_eq!((status.samples, status.dropped), (1, 1));
    let notices: Vec<bool> = history.take_notices().iter().map(|it| it.is_bad).collect();
    assert_eq!(notices, [true, false]);
}

#[test]
fn who_puts_samples_never_waits_and_what_does_not_fit_is_counted() {
    let place = Place::new();
    // Nothing can be opened where the path is a folder; every sample then fails, as slowly as it likes.
    std::fs::create_dir(place.path()).unwrap();
    let history = History::start(place.settings());
    for at in 0..10_000 {
        history.put(sample(at, &[("x", "", 1.0)]));
    }
    until(&history, "all counted", |it| it.dropped == 10_000);
}

#[test]
fn without_a_store_samples_are_nobodys_and_questions_say_why() {
    let history = History::off("[site] history = false");
    history.put(sample(0, &[("x", "", 1.0)]));
    let status = history.status();
    assert_eq!((status.state, status.dropped), (State::Off, 0));
    let error = ask(&history, "x", None, 0).unwrap_err();
    assert_eq!(error, "no history is kept: [site] history = false");
}
