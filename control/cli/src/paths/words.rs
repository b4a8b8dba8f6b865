//! Numbers and states as people read them, in columns that stay where they are.

use patronus_api::{BandwidthView, GradeView, PathStateView, PathView};

/// The sign for a grade, one column wide; `None` for nothing known.
pub fn sign(grade: Option<GradeView>, ascii: bool) -> &'static str {
    GradeView::sign(grade, ascii)
}

/// How a path does: sign and word.
pub fn state(path: &PathView, ascii: bool) -> String {
    let word = match path.state {
        PathStateView::Up if path.is_draining => "draining",
        PathStateView::Up if path.is_unfit() => "up, unfit",
        state => state.words(),
    };
    format!("{} {word}", sign(path.grade(), ascii))
}

/// A number with one digit behind the point, or the sign for none.
pub fn number(value: Option<f64>, ascii: bool) -> String {
    match value {
        Some(value) => format!("{value:.1}"),
        None => sign(None, ascii).to_string(),
    }
}

/// The larger of two, as far as they are known.
pub fn worse(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

/// Megabits per second.
pub fn mbit(bps: f64) -> f64 {
    bps * 1e-6
}

/// `500 Mbit/s`, `1.25 Gbit/s`, `64 kbit/s`.
pub fn rate(bps: f64) -> String {
    let (value, unit) = scaled(
        bps,
        1000.0,
        &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"],
    );
    format!("{value} {unit}")
}

/// `12.3 MB`.
pub fn bytes(count: u64) -> String {
    let (value, unit) = scaled(
        count as f64,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB"],
    );
    format!("{value} {unit}")
}

/// Three digits that count.
fn scaled<'a>(mut value: f64, step: f64, units: &[&'a str]) -> (String, &'a str) {
    let mut at = 0;
    while value >= 999.5 && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    let decimals = match value {
        _ if at == 0 => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    (text, units[at])
}

/// `12 s`, `3 min`, `2 h`, `5 d`.
pub fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let (value, unit) = match seconds {
        it if it < 120.0 => (it, "s"),
        it if it < 7200.0 => (it / 60.0, "min"),
        it if it < 172_800.0 => (it / 3600.0, "h"),
        it => (it / 86_400.0, "d"),
    };
    format!("{} {unit}", value.floor())
}

/// `500 Mbit/s configured`, `480 Mbit/s by train 12 s ago`.
pub fn bandwidth(of: Option<&BandwidthView>) -> String {
    let Some(of) = of else {
        return "not known".to_owned();
    };
    let rate = rate(of.bps);
    match of.source.as_str() {
        "configured" => format!("{rate} configured"),
        "passive" => format!("{rate} seen {} ago", age(of.age_s)),
        source => format!("{rate} by {source} {} ago", age(of.age_s)),
    }
}

/// `2026-11-30T03:04:05Z`
pub fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days count from 1 March of year 0, so that the leap day is a year's last: 719468 is 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits_that_count() {
        for (bps, text) in [
            (0.0, "0 bit/s"),
            (999.0, "999 bit/s"),
            (999.6, "1 kbit/s"),
            (64_000.0, "64 kbit/s"),
            (1_250_000_000.0, "1.25 Gbit/s"),
            (480_234_000.0, "480 Mbit/s"),
            (12.34e6, "12.3 Mbit/s"),
        ] {
            assert_eq!(rate(bps), text);
        }
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn ages_change_their_unit_where_the_smaller_one_says_no_more() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (119.9, "119 s"),
            (120.0, "2 min"),
            (7200.0, "2 h"),
            (172_800.0, "2 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_796_007_845, "2026-11-30T03:04:05Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1000), text);
        }
    }
}
