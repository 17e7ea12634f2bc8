//! The blocked groups as a profile that `go tool pprof` and its kin open: members, stack bytes, retained bytes.
//!
//! The messages are those of `profile.proto` (perftools.profiles), the fields that are used. Tools accept the protocol
//! buffer as it is; compressing it is left to who transports it.

use std::collections::HashMap;

use prost::Message;

use super::Snapshot;
use crate::diagnose::site;
use crate::sample::Group;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<SampleRow>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct SampleRow {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
    #[prost(int64, tag = "3")]
    num: i64,
    #[prost(int64, tag = "4")]
    num_unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

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

/// The profile of a snapshot. `taken_at_nanos` is the time of the Unix clock.
pub fn pprof(snapshot: &Snapshot, taken_at_nanos: i64) -> Vec<u8> {
    let mut strings = Strings::new();
    let mut profile = Profile { time_nanos: taken_at_nanos, ..Profile::default() };
    for (kind, unit) in [("blocked", "count"), ("stack", "bytes"), ("retained", "bytes")] {
        profile.sample_type.push(ValueType { kind: strings.add(kind), unit: strings.add(unit) });
    }
    profile.default_sample_type = strings.add("blocked");
    profile.duration_nanos = number((snapshot.took_seconds.max(0.0) * 1e9) as u64);
    profile.mapping.push(Mapping {
        id: 1,
        filename: strings.add(&snapshot.target.exe),
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    });
    let mut functions: HashMap<(i64, i64), u64> = HashMap::new();
    let mut locations: HashMap<(u64, u64, u32), u64> = HashMap::new();
    for group in snapshot.groups.iter().filter(|group| group.count > 0) {
        let mut row = SampleRow {
            value: vec![
                number(group.count),
                number(group.stack_bytes),
                number(group.retained_bytes.unwrap_or(0)),
            ],
            label: labels(group, &mut strings),
            ..SampleRow::default()
        };
        for frame in group.frames.iter() {
            let name = strings.add(&site::name(frame));
            let file = strings.add(frame.file.as_deref().unwrap_or_default());
            let next = functions.len() as u64 + 1;
            let function = *functions.entry((name, file)).or_insert_with(|| {
                profile.function.push(Function { id: next, name, system_name: name, filename: file });
                next
            });
            let line = frame.line.unwrap_or(0);
            let next = locations.len() as u64 + 1;
            let location = *locations.entry((function, frame.address, line)).or_insert_with(|| {
                profile.location.push(Location {
                    id: next,
                    mapping_id: 1,
                    address: frame.address,
                    line: vec![Line { function_id: function, line: i64::from(line) }],
                });
                next
            });
            row.location_id.push(location);
        }
        profile.sample.push(row);
    }
    profile.string_table = strings.all;
    profile.encode_to_vec()
}

fn labels(group: &Group, strings: &mut Strings) -> Vec<Label> {
    let mut labels = Vec::with_capacity(4);
    let mut label = |key: &str, text: &str| {
        if !text.is_empty() {
            labels.push(Label { key: strings.add(key), str: strings.add(text), ..Label::default() });
        }
    };
    label("state", &group.state);
    label("wait_reason", &group.wait_reason);
    label("group", &format!("{:016x}", group.id.0));
    if let Some(created) = &group.created_by {
        label("created_by", &site::words(created));
    }
    labels
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Frame, Sample, TargetInfo};

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
        let profile = Profile::decode(pprof(&snapshot, 5).as_slice()).unwrap();
        assert_eq!(profile.string_table[0], "");
        assert_eq!(profile.sample.len(), 4);
        assert_eq!(profile.location.len(), 4, "main.main at line 9 is there once");
        for row in &profile.sample {
            assert_eq!(row.value.len(), profile.sample_type.len());
            for id in &row.location_id {
                let location = profile.location.iter().find(|l| l.id == *id).unwrap();
                let function =
                    profile.function.iter().find(|f| f.id == location.line[0].function_id).unwrap();
                assert!(!profile.string_table[function.name as usize].is_empty());
            }
        }
        assert!(profile.sample.iter().any(|row| row.value[0] == 7 && row.value[1] == 7 * 2048));
        assert!(profile.string_table.iter().any(|s| s == "libx.so+0x10"));
    }
}
