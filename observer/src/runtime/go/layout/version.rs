//! The version of Go a program was built with, as `runtime.buildVersion` and the build information write it.

use std::fmt;

/// `go1.27.3`, `go1.26rc1`, `devel go1.28-0f0a1b2 Mon ...`, `go1.25.1 X:nogreenteagc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoVersion {
    /// The 27 of `go1.27.3`. There is no other major version than 1.
    pub minor: u32,
    /// The 3 of `go1.27.3`; none in `go1.20`, `go1.26rc1` and development versions.
    pub patch: Option<u32>,
    /// Neither a beta nor a release candidate, a development version or a vendor's snapshot.
    pub released: bool,
    /// `GOEXPERIMENT` settings that differ from the defaults: some of them change the runtime's structs.
    pub experiments: Vec<String>,
    text: String,
}

impl GoVersion {
    /// The version in `text`; `None` where none can be read out of it, as in `devel +a1b2c3`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > 256 {
            return None;
        }
        let (version, experiments) = match text.split_once(" X:") {
            Some((version, experiments)) => (version, experiments),
            None => (text, ""),
        };
        let (development, version) = match version.strip_prefix("devel ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, version),
        };
        let rest = version.strip_prefix("go1.")?;
        let (minor, rest) = number(rest)?;
        let (patch, rest) = match rest.strip_prefix('.').and_then(number) {
            Some((patch, rest)) => (Some(patch), rest),
            None => (None, rest),
        };
        // `go1.22.2-cloud` and `go1.21.0+auto` are releases with somebody's patches; `go1.28-a1b2c3` is not.
        let plain =
            rest.is_empty() || rest.starts_with(' ') || (patch.is_some() && rest.starts_with(['-', '+']));
        Some(Self {
            minor,
            patch,
            released: plain && !development,
            experiments: experiments
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            text: text.to_owned(),
        })
    }

    /// As it was written, all of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Without the experiments: `go1.27.3`.
    pub fn short(&self) -> &str {
        self.text.split_once(" X:").map_or(&self.text, |(version, _)| version)
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.short())
    }
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (u32, Option<u32>, bool) {
        let version = GoVersion::parse(text).unwrap();
        (version.minor, version.patch, version.released)
    }

    #[test]
    fn reads_every_form_that_toolchains_write() {
        assert_eq!(parsed("go1.27.3"), (27, Some(3), true));
        assert_eq!(parsed("go1.20"), (20, None, true));
        assert_eq!(parsed("go1.26rc1"), (26, None, false));
        assert_eq!(parsed("go1.18beta2"), (18, None, false));
        assert_eq!(parsed("devel go1.28-abcdef0123 Mon Jan 2 15:04:05 2026 +0000"), (28, None, false));
        assert_eq!(parsed("go1.28-devel_abcdef"), (28, None, false));
        assert_eq!(parsed("go1.21-20230317-RC00 cl/517416100"), (21, None, false));
        assert_eq!(parsed("go1.22.2-cloud-fork"), (22, Some(2), true));
        let version = GoVersion::parse("go1.25.1 X:nodwarf5,greenteagc").unwrap();
        assert_eq!(version.experiments, ["nodwarf5", "greenteagc"]);
        assert_eq!(version.short(), "go1.25.1");
    }

    #[test]
    fn reads_nothing_out_of_the_rest() {
        for text in ["", "go", "go1", "go1.", "go2.1", "devel +a1b2c3", "go1.99999999999", "gollvm", "go1.x"]
        {
            assert_eq!(GoVersion::parse(text), None, "{text}");
        }
        assert_eq!(GoVersion::parse(&format!("go1.2{}", "0".repeat(1000))), None);
    }
}
