//! Profiles that `go tool pprof`, Parca and Pyroscope open, gzipped as they are everywhere.
//!
//! Takes a snapshot (members, stack bytes and retained bytes of the blocked, by stack) or growth sites (bytes that are
//! still there, by the stack that first touched them). Both are states, not differences: nothing is lost when one is
//! not fetched.

mod proto;

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use super::Snapshot;
use crate::diagnose::site;
use crate::sample::{Frame, Group, GrowthSite, TargetInfo};
use proto::{Function, Label, Line, Location, Mapping, Profile, SampleRow, ValueType};

/// Every text once; 0 is the empty one, as the format demands.
#[derive(Default)]
struct Strings {
    all: Vec<String>,
    place: HashMap<String, i64>,
}

impl Strings {
    fn new() -> Self {
        let mut strings = Self::default();
        strings.add("");
        strings
    }

    fn add(&mut self, text: &str) -> i64 {
        if let Some(place) = self.place.get(text) {
            return *place;
        }
        let place = self.all.len() as i64;
        self.all.push(text.to_owned());
        self.place.insert(text.to_owned(), place);
        place
    }
}

/// A profile in the making.
struct Writer {
    profile: Profile,
    program: String,
    strings: Strings,
    mappings: HashMap<String, u64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u64, u64, u64, u32), u64>,
}

impl Writer {
    /// `kinds` are the names and units of the values; the first is what tools show at once.
    fn new(target: &TargetInfo, kinds: &[(&str, &str)], taken_at_nanos: i64) -> Self {
        let mut strings = Strings::new();
        let mut profile = Profile { time_nanos: taken_at_nanos, period: 1, ..Profile::default() };
        for (kind, unit) in kinds {
            profile.sample_type.push(ValueType { kind: strings.add(kind), unit: strings.add(unit) });
        }
        profile.default_sample_type = profile.sample_type.first().map_or(0, |first| first.kind);
        profile.period_type = profile.sample_type.first().cloned();
        profile.comment = vec![strings.add(&format!("of {} (pid {}), by observer", target.comm, target.pid))];
        let mut writer = Self {
            profile,
            program: target.exe.clone(),
            strings,
            mappings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
        };
        // The first mapping is the program itself: tools take its name for the profile's.
        writer.mapping(&target.exe);
        writer
    }

    /// The program's own file by its name is the program.
    fn module(&mut self, module: &str) -> u64 {
        if self.program.rsplit('/').next() == Some(module) { 1 } else { self.mapping(module) }
    }

    fn mapping(&mut self, file: &str) -> u64 {
        if let Some(id) = self.mappings.get(file) {
            return *id;
        }
        let id = self.mappings.len() as u64 + 1;
        self.mappings.insert(file.to_owned(), id);
        self.profile.mapping.push(Mapping {
            id,
            filename: self.strings.add(file),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
        id
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        let mapping = frame.module.as_deref().map_or(1, |module| self.module(module));
        let name = self.strings.add(&site::name(frame));
        let file = self.strings.add(frame.file.as_deref().unwrap_or_default());
        let next = self.functions.len() as u64 + 1;
        let function = *self.functions.entry((name, file)).or_insert_with(|| {
            self.profile.function.push(Function { id: next, name, system_name: name, filename: file });
            next
        });
        let line = frame.line.unwrap_or(0);
        let next = self.locations.len() as u64 + 1;
        *self.locations.entry((mapping, function, frame.address, line)).or_insert_with(|| {
            self.profile.location.push(Location {
                id: next,
                mapping_id: mapping,
                address: frame.address,
                line: vec![Line { function_id: function, line: i64::from(line) }],
            });
            next
        })
    }

    fn row(&mut self, frames: &[Frame], values: Vec<i64>, labels: &[(&str, String)]) {
        let location_id = frames.iter().map(|frame| self.location(frame)).collect();
        let label = labels
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(key, text)| Label {
                key: self.strings.add(key),
                str: self.strings.add(text),
                ..Label::default()
            })
            .collect();
        self.profile.sample.push(SampleRow { location_id, value: values, label });
    }

    fn sites(&mut self, sites: &[GrowthSite]) {
        for site in sites.iter().filter(|site| site.bytes > 0) {
            self.row(&site.frames, vec![number(site.bytes)], &[("via", site.via.to_string())]);
        }
    }

    fn finish(self) -> Vec<u8> {
        let profile = Profile { string_table: self.strings.all, ..self.profile };
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        let written = packed.write_all(&profile.encode_to_vec()).and_then(|()| packed.finish());
        // Writing into memory does not fail.
        written.unwrap_or_default()
    }
}

/// The profile of a snapshot. `taken_at_nanos` is the time of the Unix clock.
pub fn blocked(snapshot: &Snapshot, taken_at_nanos: i64) -> Vec<u8> {
    let kinds = [("blocked", "count"), ("stack", "bytes"), ("retained", "bytes")];
    let mut writer = Writer::new(&snapshot.target, &kinds, taken_at_nanos);
    writer.profile.duration_nanos = number((snapshot.took_seconds.max(0.0) * 1e9) as u64);
    for group in snapshot.groups.iter().filter(|group| group.count > 0) {
        let values = [group.count, group.stack_bytes, group.retained_bytes.unwrap_or(0)];
        writer.row(&group.frames, values.map(number).to_vec(), &labels(group));
    }
    writer.finish()
}

/// The profile of what grew and is still there.
pub fn growth(sites: &[GrowthSite], target: &TargetInfo, taken_at_nanos: i64) -> Vec<u8> {
    let mut writer = Writer::new(target, &[("growth", "bytes")], taken_at_nanos);
    writer.sites(sites);
    writer.finish()
}

/// The same as heap profiles call it, for one that was watched for so long.
pub fn grown(sites: &[GrowthSite], target: &TargetInfo, watched: Duration, taken_at_nanos: i64) -> Vec<u8> {
    let mut writer = Writer::new(target, &[("inuse_space", "bytes")], taken_at_nanos);
    writer.profile.duration_nanos = i64::try_from(watched.as_nanos()).unwrap_or(i64::MAX);
    writer.sites(sites);
    writer.finish()
}

fn labels(group: &Group) -> Vec<(&'static str, String)> {
    let created = group.created_by.as_ref().map_or(String::new(), site::words);
    vec![
        ("state", group.state.to_string()),
        ("wait_reason", group.wait_reason.to_string()),
        ("group", format!("{:016x}", group.id.0)),
        ("created_by", created),
    ]
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use prost::Message as _;

    use super::*;
    use crate::sample::{Frame, Sample, TargetInfo};

    fn read(written: &[u8]) -> Profile {
        let mut plain = Vec::new();
        GzDecoder::new(written).read_to_end(&mut plain).unwrap();
        let profile = Profile::decode(plain.as_slice()).unwrap();
        for row in &profile.sample {
            assert_eq!(row.value.len(), profile.sample_type.len());
            for id in &row.location_id {
                let location = profile.location.iter().find(|l| l.id == *id).unwrap();
                assert!(profile.mapping.iter().any(|m| m.id == location.mapping_id));
                let function =
                    profile.function.iter().find(|f| f.id == location.line[0].function_id).unwrap();
                assert!(!profile.string_table[function.name as usize].is_empty());
            }
        }
        profile
    }

    #[test]
    fn growth_is_bytes_by_stack() {
        let frames = vec![
            Frame { function: "malloc".into(), module: Some("libc.so.6".into()), ..Frame::default() },
            Frame { function: "main".into(), module: Some("a".into()), ..Frame::default() },
        ];
        let site = |bytes, via: &str| GrowthSite {
            frames: frames.clone().into(),
            bytes,
            via: via.into(),
            ..GrowthSite::default()
        };
        let sites = [site(4096, "brk"), site(u64::MAX, "mmap"), site(0, "mmap")];
        let profile = read(&growth(&sites, &TargetInfo { exe: "/srv/a".into(), ..TargetInfo::default() }, 5));
        assert_eq!(profile.sample.iter().map(|row| row.value[0]).collect::<Vec<_>>(), [4096, i64::MAX]);
        let files: Vec<&str> =
            profile.mapping.iter().map(|m| profile.string_table[m.filename as usize].as_str()).collect();
        assert_eq!(files, ["/srv/a", "libc.so.6"], "the program's own file is the first, as tools expect");
        assert_eq!(profile.string_table[profile.sample_type[0].unit as usize], "bytes");
    }

    #[test]
    fn references_are_whole() {
        let frame =
            |function: &str, line| Frame { function: function.into(), line: Some(line), ..Frame::default() };
        let group = |frames: Vec<Frame>, count| Group {
            frames: frames.into(),
            count,
            wait_reason: "chan send".into(),
            stack_bytes: count.saturating_mul(2048),
            ..Group::default()
        };
        let sample = Sample {
            groups: vec![
                group(vec![frame("main.a", 1), frame("main.main", 9)], 7),
                group(vec![frame("main.b", 1), frame("main.main", 9)], u64::MAX),
                group(vec![Frame { address: 0x10, module: Some("libx.so".into()), ..Frame::default() }], 3),
                group(vec![], 1),
            ],
            ..Sample::default()
        };
        let snapshot = Snapshot::new(TargetInfo::default(), sample, String::new());
        let profile = read(&blocked(&snapshot, 5));
        assert_eq!(profile.string_table[0], "");
        assert_eq!(profile.sample.len(), 4);
        assert_eq!(profile.location.len(), 4, "main.main at line 9 is there once");
        assert!(profile.sample.iter().any(|row| row.value[0] == 7 && row.value[1] == 7 * 2048));
        assert!(profile.string_table.iter().any(|s| s == "libx.so+0x10"));
    }
}
