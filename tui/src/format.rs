//! Numbers and times for people, in fixed widths: right-aligned figures do not dance.

/// Bits per second with three significant figures: `412 Mbit/s`.
pub fn bit_rate(bps: f64) -> String {
    scaled(
        bps,
        &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"],
        1000.0,
    )
}

/// Packets per second: `342 kpps`.
pub fn packet_rate(pps: f64) -> String {
    scaled(pps, &["pps", "kpps", "Mpps", "Gpps"], 1000.0)
}

/// Bytes: `2.10 GB`.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, &["B", "kB", "MB", "GB", "TB", "PB"], 1000.0)
}

/// A count, its digits in groups of three: `61 204`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A count in at most five characters: `61.2k`.
pub fn short_count(value: u64) -> String {
    if value < 100_000 {
        return value.to_string();
    }
    let text = scaled(value as f64, &["", "k", "M", "G", "T"], 1000.0);
    text.replace(' ', "")
}

/// Milliseconds: `0.41`, `14.2`, `382`.
pub fn millis(ms: Option<f64>, absent: &str) -> String {
    ms.filter(|ms| ms.is_finite())
        .map_or_else(|| absent.to_owned(), figures)
}

/// Percent, to a tenth: `0.4%`.
pub fn percent(pct: Option<f64>, absent: &str) -> String {
    match pct.filter(|pct| pct.is_finite()) {
        Some(pct) if pct >= 99.95 => "100%".to_owned(),
        Some(pct) => format!("{pct:.1}%"),
        None => absent.to_owned(),
    }
}

/// How long something is or was: `4.2 s`, `3 min`, `5 h 12 min`, `3 d 4 h`.
pub fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "0 s".to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7199 => format!("{minutes} min"),
        7200..=172_799 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The time of the day, in UTC: `12:03:58`.
pub fn clock(unix_ms: u64) -> String {
    let second = unix_ms / 1000 % 86_400;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02}", second % 60)
}

/// A port after its name, where it is worth one.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("ip{other}"),
    }
}

fn scaled(value: f64, units: &[&str], step: f64) -> String {
    let mut value = if value.is_finite() {
        value.max(0.0)
    } else {
        0.0
    };
    let mut unit = 0;
    // 999.5 would be written with four figures.
    while value >= step * 0.9995 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let text = if unit == 0 {
        format!("{value:.0}")
    } else {
        figures(value)
    };
    format!("{text} {}", units[unit])
}

/// Three significant figures.
fn figures(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_figures_and_the_unit_that_fits() {
        for (bps, text) in [
            (0.0, "0 bit/s"),
            (999.0, "999 bit/s"),
            (999.9, "1.00 kbit/s"),
            (12_340.0, "12.3 kbit/s"),
            (999_600.0, "1.00 Mbit/s"),
            (3.74e9, "3.74 Gbit/s"),
            (f64::NAN, "0 bit/s"),
        ] {
            assert_eq!(bit_rate(bps), text);
        }
        assert_eq!(packet_rate(342_000.0), "342 kpps");
        assert_eq!(bytes(2_104_000_000), "2.10 GB");
    }

    #[test]
    fn counts_have_groups() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1_478_873, "1 478 873"),
        ] {
            assert_eq!(count(value), text);
        }
        assert_eq!(short_count(99_999), "99999");
        assert_eq!(short_count(612_040), "612k");
    }

    #[test]
    fn spans_grow_coarser() {
        for (seconds, text) in [
            (0.41, "0.4 s"),
            (41.0, "41 s"),
            (119.0, "119 s"),
            (130.0, "2 min"),
            (18_720.0, "5 h 12 min"),
            (273_600.0, "3 d 4 h"),
            (-1.0, "0 s"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn the_clock_is_utc() {
        assert_eq!(clock(0), "00:00:00");
        assert_eq!(clock(1_764_504_238_999), "12:03:58");
    }
}
