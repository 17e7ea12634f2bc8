//! A file a verb of the command line.

pub mod attach;
pub mod doctor;
pub mod snapshot;
mod style;

use std::time::Duration;

/// What `--version` prints behind the name.
#[cfg(observer_ebpf)]
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (with eBPF)");
#[cfg(not(observer_ebpf))]
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (built without eBPF: ", env!("OBSERVER_EBPF_MISSING"), ")");

/// A duration as people write it: `60s`, `1m30s`, `500ms`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let remedy = "write it with a unit: 500ms, 60s, 1m30s, 2h";
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| format!("no duration; {remedy}"))?;
    let duration = Duration::try_from(parsed).map_err(|_| format!("negative; {remedy}"))?;
    // Longer ones are a slip of the pen.
    (duration <= Duration::from_secs(30 * 86_400)).then_some(duration).ok_or("more than 30 days".to_owned())
}

/// Ends the program as clap ends it for wrong arguments: what is wrong, and exit code 2.
fn usage(message: &str) -> ! {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{message}\n")).exit()
}

#[cfg(test)]
mod tests {
    use super::parse_duration;
    use std::time::Duration;

    #[test]
    fn durations_as_people_write_them() {
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "60", "abc", "-5s", "1y", "9999h", "s", "1e3s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
