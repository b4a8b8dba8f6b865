//! Schedules and changes from files: what they mean, and what they say about faults.

use std::time::Duration;

use patronus_impair::{
    Heading, ImpairError, Impairment, JitterShape, Loss, Probability, RateBps, RawChange, Schedule,
};

const LINKS: &[&str] = &["fiber", "lte"];

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text, LINKS).expect("a schedule")
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn at(schedule: &Schedule, time: f64, link: &str, heading: Heading) -> Impairment {
    schedule.impairment_at(seconds(time), link, heading, Impairment::default())
}

#[test]
fn a_square_wave_goes_down_and_up_at_its_times_for_as_often_as_it_was_told() {
    let wave = schedule(
        "[[step]]\nat_s = 5\nfor_s = 5\nevery_s = 10\ntimes = 3\nlink = \"lte\"\nset = { blackhole = true }\n",
    );
    for tenth in 0..600 {
        let time = f64::from(tenth) / 10.0;
        let is_down = time % 10.0 >= 5.0 && time < 35.0;
        for heading in Heading::BOTH {
            assert_eq!(
                at(&wave, time, "lte", heading).blackhole,
                is_down,
                "at {time} s"
            );
            assert!(!at(&wave, time, "fiber", heading).blackhole);
        }
    }
    let mut times = vec![];
    let mut now = Duration::ZERO;
    while let Some(next) = wave.change_after(now) {
        times.push(next.as_secs());
        now = next;
    }
    assert_eq!(times, [5, 10, 15, 20, 25, 30]);
}

#[test]
fn a_wave_without_end_has_a_next_change_at_any_time() {
    let wave = schedule(
        "[[step]]\nat_s = 0.25\nfor_s = 0.5\nevery_s = 1\nlink = \"lte\"\nset = { blackhole = true }\n",
    );
    assert_eq!(wave.change_after(seconds(1e6)), Some(seconds(1e6 + 0.25)));
    assert_eq!(
        wave.change_after(seconds(1e6 + 0.25)),
        Some(seconds(1e6 + 0.75))
    );
    // Later than any real clock, and still no panic.
    wave.change_after(Duration::from_secs(u64::MAX / 4));
}

#[test]
fn a_step_for_good_stays_and_touches_its_direction_alone() {
    let steps = schedule(
        "[[step]]\nat_s = 20\nlink = \"fiber\"\ndirection = \"a->b\"\nset = { delay_ms = 80, loss_percent = 1 }\n",
    );
    let base = Impairment {
        delay: Duration::from_millis(10),
        mtu: Some(1400),
        ..Impairment::default()
    };
    let then = |time, heading| steps.impairment_at(seconds(time), "fiber", heading, base);
    assert_eq!(then(19.999, Heading::AToB), base);
    let changed = then(20.0, Heading::AToB);
    assert_eq!(changed.delay, Duration::from_millis(80));
    assert_eq!(changed.loss, Loss::Random(Probability::new(0.01).unwrap()));
    assert_eq!(changed.mtu, Some(1400), "what a step does not name stays");
    assert_eq!(then(20.0, Heading::BToA), base);
    assert_eq!(steps.change_after(Duration::ZERO), Some(seconds(20.0)));
    assert_eq!(steps.change_after(seconds(20.0)), None);
}

#[test]
fn the_step_that_came_into_force_last_has_the_last_word_and_gives_it_back() {
    let steps = schedule(
        "[[step]]\nat_s = 10\nfor_s = 10\nlink = \"lte\"\nset = { delay_ms = 300 }\n\
         [[step]]\nat_s = 5\nlink = \"lte\"\nset = { delay_ms = 50 }\n\
         [[step]]\nat_s = 12\nfor_s = 1\nlink = \"lte\"\nset = { delay_ms = 1 }\n",
    );
    let delays = [
        (0.0, 0),
        (5.0, 50),
        (10.0, 300),
        (12.5, 1),
        (13.0, 300),
        (20.0, 50),
    ];
    for (time, delay) in delays {
        let delay = Duration::from_millis(delay);
        assert_eq!(
            at(&steps, time, "lte", Heading::AToB).delay,
            delay,
            "at {time} s"
        );
    }
}

#[test]
fn every_field_of_a_change_arrives() {
    let raw = RawChange::parse(
        "delay_ms = 1.5\njitter_ms = 2\njitter_shape = \"normal\"\nkeep_order = false\n\
         reorder_percent = 1\nreorder_by_ms = 4\nduplicate_percent = 2\nrate_mbps = 0.5\nqueue_bytes = 9000\n\
         mtu = 1300\nblackhole = true\nmark_ce_percent = 3\n\
         burst_loss = { enter_percent = 1, leave_percent = 20, loss_percent = 50, loss_outside_percent = 0.1 }\n",
    )
    .unwrap();
    let made = raw.check().unwrap().applied_to(Impairment::default());
    assert_eq!(made.delay, Duration::from_micros(1500));
    assert_eq!(made.jitter.amount, Duration::from_millis(2));
    assert_eq!(made.jitter.shape, JitterShape::Normal);
    assert!(!made.keep_order && made.blackhole);
    assert_eq!(made.reorder.extra, Duration::from_millis(4));
    assert_eq!(made.reorder.chance, Probability::new(0.01).unwrap());
    assert_eq!(made.duplicate, Probability::new(0.02).unwrap());
    assert_eq!(made.rate, RateBps::new(500_000));
    assert_eq!((made.queue_bytes, made.mtu), (Some(9000), Some(1300)));
    assert_eq!(made.mark_ce, Probability::new(0.03).unwrap());
    let Loss::GilbertElliott(chain) = made.loss else {
        panic!("{:?}", made.loss);
    };
    assert_eq!(chain.mean_burst_packets(), 5.0);
    assert_eq!(chain.loss_good, Probability::new(0.001).unwrap());
    assert_eq!(chain.loss_bad, Probability::new(0.5).unwrap());
}

#[test]
fn zero_takes_an_impairment_away() {
    let raw = RawChange::parse("loss_percent = 0\nrate_mbps = 0\nmtu = 0\nreorder_percent = 0\n");
    let base = Impairment {
        loss: Loss::Random(Probability::ALWAYS),
        rate: RateBps::new(1),
        mtu: Some(100),
        ..Impairment::default()
    };
    let made = raw.unwrap().check().unwrap().applied_to(base);
    assert_eq!(made, Impairment::default());
}

#[test]
fn faults_name_the_field_and_the_fix() {
    let set = |set: &str| format!("[[step]]\nat_s = 1\nlink = \"lte\"\nset = {{ {set} }}\n");
    let step = |rest: &str| format!("[[step]]\nlink = \"lte\"\nset = {{}}\n{rest}\n");
    let cases = [
        (
            set("loss_percent = 120"),
            "step 1.set.loss_percent",
            "0 to 100",
        ),
        (
            set("loss_percent = nan"),
            "step 1.set.loss_percent",
            "0 to 100",
        ),
        (set("delay_ms = -1"), "step 1.set.delay_ms", "0 to 60000"),
        (set("delay_ms = inf"), "step 1.set.delay_ms", "0 to 60000"),
        (set("jitter_ms = 1e9"), "step 1.set.jitter_ms", "0 to 60000"),
        (
            set("jitter_shape = \"pareto\""),
            "step 1.set.jitter_shape",
            "exponential",
        ),
        (set("rate_mbps = -3"), "step 1.set.rate_mbps", "no limit"),
        (set("rate_mbps = 1e-9"), "step 1.set.rate_mbps", "no limit"),
        (set("mtu = 67"), "step 1.set.mtu", "68 to 65535"),
        (set("mtu = 65536"), "step 1.set.mtu", "68 to 65535"),
        (
            set("reorder_percent = 5"),
            "step 1.set.reorder_percent",
            "reorder_by_ms",
        ),
        (
            set("reorder_by_ms = 5"),
            "step 1.set.reorder_by_ms",
            "reorder_percent",
        ),
        (
            set("loss_percent = 1, burst_loss = { enter_percent = 1, leave_percent = 2 }"),
            "step 1.set.burst_loss",
            "leave one of them out",
        ),
        (
            set("burst_loss = { enter_percent = 1, leave_percent = 0 }"),
            "step 1.set.burst_loss.leave_percent",
            "more than 0",
        ),
        (step("at_s = -1"), "step 1.at_s", "from 0"),
        (step("at_s = 1\nfor_s = 0"), "step 1.for_s", "at least"),
        (
            step("at_s = 1\nfor_s = 5\nevery_s = 5"),
            "step 1.for_s",
            "less than every_s = 5",
        ),
        (step("at_s = 1\ntimes = 2"), "step 1.times", "every_s"),
        (
            step("at_s = 1\nevery_s = 2\ntimes = 0"),
            "step 1.times",
            "1 or more",
        ),
        (
            step("at_s = 1\ndirection = \"up\""),
            "step 1.direction",
            "a->b",
        ),
        (
            "[[step]]\nat_s = 1\nlink = \"dsl\"\nset = {}\n".to_owned(),
            "step 1.link",
            "fiber, lte",
        ),
    ];
    // TOML has one table per line here: keys after an inline table belong to the step.
    for (text, field, fix) in cases {
        let error = Schedule::parse(&text, LINKS).expect_err(&text).to_string();
        assert!(error.starts_with(field), "{text}: {error}");
        assert!(error.contains(fix), "{text}: {error}");
    }
}

#[test]
fn unknown_keys_and_broken_text_are_faults() {
    for text in [
        "[[step]]\nat_s = 1\nlink = \"lte\"\nset = { lose_percent = 1 }\n",
        "[[step]]\nat_s = 1\nlink = \"lte\"\nset = {}\nrepeat = 3\n",
        "steps = []\n",
        "[[step]\n",
    ] {
        let error = Schedule::parse(text, LINKS).expect_err(text);
        assert!(matches!(error, ImpairError::Syntax(_)), "{text}: {error}");
    }
    let error = RawChange::parse("lose_percent = 1").expect_err("unknown");
    assert!(error.to_string().contains("lose_percent"), "{error}");
}
