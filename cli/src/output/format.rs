//! Numbers as people read them: three or four digits and a unit.
//!
//! Programs get JSON, where nothing is rounded.

/// A count with three digits and a metric prefix: `26.9k`, `1.20M`.
///
/// ```
/// assert_eq!(cli::output::format::count(26_944.0), "26.9k");
/// assert_eq!(cli::output::format::count(512.0), "512");
/// ```
pub fn count(value: f64) -> String {
    const UNITS: [(f64, &str); 5] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // A value that rounds to 1000 of a unit belongs to the next one.
    for (unit, prefix) in UNITS {
        let scaled = value / unit;
        if scaled >= 0.9995 {
            return format!("{scaled:.0$}{prefix}", digits_after(scaled));
        }
    }
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn digits_after(scaled: f64) -> usize {
    match scaled {
        x if x >= 99.95 => 0,
        x if x >= 9.995 => 1,
        _ => 2,
    }
}

/// FLOPs as a power of ten: `3.57e11`.
pub fn flops(value: f64) -> String {
    format!("{value:.2e}")
}

/// Bytes with a binary prefix: `12.3 MiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = value as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A duration: `45s`, `3m 12s`, `1h 05m`, `2d 03h`.
///
/// ```
/// assert_eq!(cli::output::format::duration(192.4), "3m 12s");
/// ```
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    let seconds = seconds.round();
    let (minutes, hours, days) =
        ((seconds / 60.0).floor(), (seconds / 3600.0).floor(), (seconds / 86_400.0).floor());
    if days >= 1.0 {
        format!("{days}d {:02}h", hours - 24.0 * days)
    } else if hours >= 1.0 {
        format!("{hours}h {:02}m", minutes - 60.0 * hours)
    } else if minutes >= 1.0 {
        format!("{minutes}m {:02}s", seconds - 60.0 * minutes)
    } else {
        format!("{seconds}s")
    }
}

/// A loss in nats: four digits after the point; a dash when there is none.
pub fn loss(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

/// A number that may be absent.
pub fn optional(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), show)
}

/// A part of a whole in percent: `37 %`.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share.clamp(0.0, 1.0))
}

/// A point in time as UTC: `2026-03-01 12:30:05`.
pub fn time(at_ms: i64) -> String {
    let seconds = at_ms.div_euclid(1000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The Gregorian date of a day since 1970-01-01 (Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`): years begin in March, so that the leap day is the last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_three_digits_across_the_prefixes() {
        let shown: Vec<String> =
            [0.0, 999.0, 999.9, 1234.0, 99_960.0, 999_600.0, 8.1e12].map(count).into();
        assert_eq!(shown, ["0", "999", "1.00k", "1.23k", "100k", "1.00M", "8.10T"]);
    }

    #[test]
    fn durations_show_two_units() {
        let shown: Vec<String> = [0.4, 59.6, 3725.0, 100_000.0, f64::NAN].map(duration).into();
        assert_eq!(shown, ["0s", "1m 00s", "1h 02m", "1d 03h", "?"]);
    }

    #[test]
    fn times_are_utc_dates_also_around_leap_days() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(1_709_164_799_000), "2024-02-28 23:59:59");
        assert_eq!(time(1_709_164_800_000), "2024-02-29 00:00:00");
        assert_eq!(time(1_709_251_200_000), "2024-03-01 00:00:00");
    }
}
