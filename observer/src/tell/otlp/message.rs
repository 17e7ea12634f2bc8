//! One export request: every target as a resource, every kind of value as a profile of it.
//!
//! All share one dictionary, whose tables begin with a zero value as the format demands.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles,
    Sample, ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::board::TargetState;
use crate::diagnose::site;
use crate::sample::{Frame, Group};

/// What to send of these targets.
pub fn request(targets: &[Arc<TargetState>]) -> ExportProfilesServiceRequest {
    let mut dictionary = Dictionary::new();
    let resource_profiles = targets.iter().map(|state| resource(&mut dictionary, state)).collect();
    ExportProfilesServiceRequest { resource_profiles, dictionary: Some(dictionary.finish()) }
}

fn resource(dictionary: &mut Dictionary, state: &TargetState) -> ResourceProfiles {
    let info = &state.info;
    let mut attributes = vec![
        text("service.name", &state.name),
        text("process.executable.path", &info.exe),
        text("process.command", &info.comm),
        text("process.runtime.name", &info.runtime.name),
    ];
    if let Some(version) = &info.runtime.version {
        attributes.push(text("process.runtime.version", version));
    }
    attributes.push(KeyValue {
        key: "process.pid".to_owned(),
        value: Some(AnyValue { value: Some(Value::IntValue(i64::from(info.pid))) }),
        ..KeyValue::default()
    });
    ResourceProfiles {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_profiles: vec![ScopeProfiles {
            scope: Some(InstrumentationScope {
                name: "observer".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            profiles: profiles(dictionary, state),
            ..ScopeProfiles::default()
        }],
        ..ResourceProfiles::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}

/// A kind without any value is left out.
fn profiles(dictionary: &mut Dictionary, state: &TargetState) -> Vec<Profile> {
    type Read = fn(&Group) -> u64;
    let values: [(&str, &str, Read); 3] = [
        ("blocked", "count", |group| group.count),
        ("stack", "bytes", |group| group.stack_bytes),
        ("retained", "bytes", |group| group.retained_bytes.unwrap_or(0)),
    ];
    let mut profiles = Vec::new();
    for (kind, unit, value) in values {
        let groups = state.sample.groups.iter().filter(|group| value(group) > 0);
        let samples = groups.map(|group| {
            let labels = [
                ("observer.state", group.state.to_string()),
                ("observer.wait_reason", group.wait_reason.to_string()),
                ("observer.group", format!("{:016x}", group.id.0)),
            ];
            dictionary.sample(&group.frames, &labels, value(group), &state.info.exe)
        });
        let samples: Vec<Sample> = samples.collect();
        profiles.push(profile(dictionary, state, (kind, unit), samples));
    }
    if let Some(growth) = &state.sample.growth {
        let sites = growth.sites.iter().filter(|site| site.bytes > 0);
        let samples = sites
            .map(|site| {
                let labels = [("observer.via", site.via.to_string())];
                dictionary.sample(&site.frames, &labels, site.bytes, &state.info.exe)
            })
            .collect();
        profiles.push(profile(dictionary, state, ("growth", "bytes"), samples));
    }
    profiles.retain(|profile| !profile.samples.is_empty());
    profiles
}

fn profile(
    dictionary: &mut Dictionary,
    state: &TargetState,
    (kind, unit): (&str, &str),
    samples: Vec<Sample>,
) -> Profile {
    let of = ValueType { type_strindex: dictionary.string(kind), unit_strindex: dictionary.string(unit) };
    Profile {
        sample_type: Some(of),
        samples,
        // Saturating: a float out of range casts to the nearest number, and NaN to 0.
        time_unix_nano: (state.last_sampled * 1e9) as u64,
        period_type: Some(of),
        period: 1,
        ..Profile::default()
    }
}

/// What is referred to by its place; each once.
struct Table<K> {
    places: HashMap<K, i32>,
}

impl<K: Eq + Hash> Table<K> {
    fn new(zero: K) -> Self {
        Self { places: HashMap::from([(zero, 0)]) }
    }

    /// Its place, and whether it is new there.
    fn place(&mut self, key: K) -> (i32, bool) {
        let next = i32::try_from(self.places.len()).unwrap_or(i32::MAX);
        let place = *self.places.entry(key).or_insert(next);
        (place, place == next)
    }
}

struct Dictionary {
    written: ProfilesDictionary,
    strings: Table<String>,
    mappings: Table<i32>,
    functions: Table<(i32, i32)>,
    locations: Table<(i32, i32, u64, u32)>,
    stacks: Table<Vec<i32>>,
    attributes: Table<(i32, String)>,
}

impl Dictionary {
    fn new() -> Self {
        Self {
            written: ProfilesDictionary {
                mapping_table: vec![Mapping::default()],
                location_table: vec![Location::default()],
                function_table: vec![Function::default()],
                link_table: vec![Link::default()],
                string_table: vec![String::new()],
                attribute_table: vec![KeyValueAndUnit::default()],
                stack_table: vec![Stack::default()],
            },
            strings: Table::new(String::new()),
            mappings: Table::new(0),
            functions: Table::new((0, 0)),
            locations: Table::new((0, 0, 0, 0)),
            stacks: Table::new(Vec::new()),
            attributes: Table::new((0, String::new())),
        }
    }

    fn finish(self) -> ProfilesDictionary {
        self.written
    }

    fn string(&mut self, text: &str) -> i32 {
        let (place, new) = self.strings.place(text.to_owned());
        if new {
            self.written.string_table.push(text.to_owned());
        }
        place
    }

    fn sample(&mut self, frames: &[Frame], labels: &[(&str, String)], value: u64, program: &str) -> Sample {
        let locations: Vec<i32> = frames.iter().map(|frame| self.location(frame, program)).collect();
        let (stack_index, new) = self.stacks.place(locations.clone());
        if new {
            self.written.stack_table.push(Stack { location_indices: locations });
        }
        let labels = labels.iter().filter(|(_, text)| !text.is_empty());
        Sample {
            stack_index,
            attribute_indices: labels.map(|(key, text)| self.attribute(key, text)).collect(),
            values: vec![i64::try_from(value).unwrap_or(i64::MAX)],
            ..Sample::default()
        }
    }

    fn attribute(&mut self, key: &str, text: &str) -> i32 {
        let key_strindex = self.string(key);
        let (place, new) = self.attributes.place((key_strindex, text.to_owned()));
        if new {
            self.written.attribute_table.push(KeyValueAndUnit {
                key_strindex,
                value: Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) }),
                ..KeyValueAndUnit::default()
            });
        }
        place
    }

    fn location(&mut self, frame: &Frame, program: &str) -> i32 {
        let filename_strindex = self.string(frame.module.as_deref().unwrap_or(program));
        let (mapping_index, new) = self.mappings.place(filename_strindex);
        if new {
            self.written.mapping_table.push(Mapping { filename_strindex, ..Mapping::default() });
        }
        let name = self.string(&site::name(frame));
        let file = self.string(frame.file.as_deref().unwrap_or_default());
        let (function_index, new) = self.functions.place((name, file));
        if new {
            self.written.function_table.push(Function {
                name_strindex: name,
                system_name_strindex: name,
                filename_strindex: file,
                start_line: 0,
            });
        }
        let line = frame.line.unwrap_or(0);
        let (place, new) = self.locations.place((mapping_index, function_index, frame.address, line));
        if new {
            self.written.location_table.push(Location {
                mapping_index,
                address: frame.address,
                lines: vec![Line { function_index, line: i64::from(line), column: 0 }],
                ..Location::default()
            });
        }
        place
    }
}
