//! Quantities as people write them: `60s`, `512MiB`, `2%`.

use std::time::Duration;

/// A duration with its unit: `60s`, `1m30s`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let remedy = "write it with a unit: 500ms, 60s, 1m30s, 2h";
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| format!("no duration; {remedy}"))?;
    let duration = Duration::try_from(parsed).map_err(|_| format!("negative; {remedy}"))?;
    // Longer ones are a slip of the pen.
    (duration <= Duration::from_secs(30 * 86_400)).then_some(duration).ok_or("more than 30 days".to_owned())
}

/// Mean bytes from one sampled allocation to the next, within what makes sense; a bare number is bytes.
pub(crate) fn sample_bytes(text: &str) -> Result<u64, String> {
    let found = text.trim().parse().or_else(|_| bytes(text))?;
    if (1 << 10..=1 << 30).contains(&found) { Ok(found) } else { Err("from 1KiB to 1GiB".to_owned()) }
}

/// Bytes: `512MiB`, `2 GiB`, `64M`, `1048576`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "no size; write it with a unit: 512MiB, 2GiB".to_owned();
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

/// A share as a fraction: `2%`, `0.5 %`.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let wrong = || "no share; write it in per cent: 2%".to_owned();
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if number.is_finite() && number > 0.0 { Ok(number / 100.0) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "60", "abc", "-5s", "1y", "9999h", "s", "1e3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_shares_as_people_write_them() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("2 g"), Ok(2 << 30));
        assert_eq!(bytes("1000"), Ok(1000));
        for bad in ["", "MiB", "-1", "1.5GiB", "1x", "99999999999999999999", "999999999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(percent("2%"), Ok(0.02));
        for bad in ["2", "%", "-1%", "0%", "NaN%", "inf%"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
