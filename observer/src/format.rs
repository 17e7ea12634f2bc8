//! Numbers as an engineer reads them in an incident: few digits, a unit, thousands grouped.
//!
//! Total over every `f64`: what is not a number is shown as `?`.

/// `9,214`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `36.1 KiB`, `412 MiB`; negative sizes keep their sign.
pub(crate) fn bytes(value: f64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if !value.is_finite() {
        return "?".to_owned();
    }
    let mut scaled = value.abs();
    let mut unit = 0;
    // 1023.6 KiB would round to "1024 KiB".
    while scaled >= 1023.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let digits = if unit == 0 || scaled >= 99.95 { 0 } else { 1 };
    format!("{sign}{scaled:.digits$} {}", UNITS[unit])
}

/// `+593 KiB/s`, always signed.
pub(crate) fn bytes_per_second(value: f64) -> String {
    let sign = if value >= 0.0 { "+" } else { "" };
    format!("{sign}{}/s", bytes(value))
}

/// `16.1/s`; slow rates per minute or hour, so that they are not shown as 0.
pub(crate) fn rate(per_second: f64) -> String {
    if !per_second.is_finite() {
        return "?/s".to_owned();
    }
    let size = per_second.abs();
    let (scaled, unit) = if size >= 0.1 || size == 0.0 {
        (per_second, "s")
    } else if size * 60.0 >= 0.1 {
        (per_second * 60.0, "min")
    } else {
        (per_second * 3600.0, "h")
    };
    if scaled.abs() >= 99.95 {
        let grouped = count(scaled.abs().round() as u64);
        format!("{}{grouped}/{unit}", if scaled < 0.0 { "-" } else { "" })
    } else if scaled.abs() < 1.0 && scaled != 0.0 {
        format!("{scaled:.2}/{unit}")
    } else {
        format!("{scaled:.1}/{unit}")
    }
}

/// `45 s`, `9 m 40 s`, `3 h 5 m`, `12 days`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "?".to_owned();
    }
    let seconds = seconds.max(0.0);
    if seconds < 9.95 && seconds.fract() > 0.05 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7_199 => format!("{} m {} s", whole / 60, whole % 60),
        7_200..=172_799 => format!("{} h {} m", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", count(whole / 86_400)),
    }
}

/// `96 %`; shares that are neither nothing nor everything are not rounded to it.
pub(crate) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "? %".to_owned();
    }
    let scaled = share * 100.0;
    if scaled > 0.0 && scaled < 1.0 {
        return format!("{scaled:.1} %");
    }
    if scaled > 99.0 && scaled < 100.0 {
        return "99 %".to_owned();
    }
    format!("{scaled:.0} %")
}

/// `1 goroutine`, `2 goroutines`.
pub(crate) fn counted(value: u64, noun: &str) -> String {
    if value == 1 { format!("1 {noun}") } else { format!("{} {noun}s", count(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_three_digits() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1023.0), "1023 B");
        assert_eq!(bytes(1024.0), "1.0 KiB");
        assert_eq!(bytes(1023.9 * 1024.0), "1.0 MiB");
        assert_eq!(bytes(36.1 * 1024.0), "36.1 KiB");
        assert_eq!(bytes(412.0 * 1024.0 * 1024.0), "412 MiB");
        assert_eq!(bytes(-2048.0), "-2.0 KiB");
        assert_eq!(bytes(f64::NAN), "?");
        assert!(bytes(f64::MAX).ends_with("EiB"));
    }

    #[test]
    fn slow_rates_are_not_zero() {
        assert_eq!(rate(16.13), "16.1/s");
        assert_eq!(rate(1234.4), "1,234/s");
        assert_eq!(rate(0.5), "0.50/s");
        assert_eq!(rate(0.05), "3.0/min");
        assert_eq!(rate(0.001), "3.6/h");
        assert_eq!(rate(0.0), "0.0/s");
        assert_eq!(rate(f64::INFINITY), "?/s");
    }

    #[test]
    fn durations_use_two_units_at_most() {
        assert_eq!(duration(0.0), "0 s");
        assert_eq!(duration(1.5), "1.5 s");
        assert_eq!(duration(60.2), "60 s");
        assert_eq!(duration(580.0), "9 m 40 s");
        assert_eq!(duration(11_100.0), "3 h 5 m");
        assert_eq!(duration(1e6), "11 days");
        assert_eq!(duration(f64::NAN), "?");
        assert_eq!(duration(-5.0), "0 s");
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(percent(0.9999), "99 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.004), "0.4 %");
        assert_eq!(percent(0.0), "0 %");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(9214), "9,214");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(counted(1, "channel"), "1 channel");
        assert_eq!(counted(2, "channel"), "2 channels");
    }
}
