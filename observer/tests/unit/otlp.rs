//! What a collector gets: decoded with the types of the specification, followed from the resource to the function.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flate2::read::GzDecoder;
use observer::tell::otlp::{Exporter, Options};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;

use crate::support::shown;

/// Reads one request and answers it: its head, and its body unpacked.
fn take(stream: TcpStream, answer: &str) -> (String, Vec<u8>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(reader.get_mut(), "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut plain = Vec::new();
    GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
    (head, plain)
}

#[test]
fn a_collector_gets_every_target_after_it_was_away() {
    let shown = shown::shown();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let environment = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(address.clone()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("x-tenant=shop".to_owned()),
        _ => None,
    };
    let mut options = Options::from_environment(environment).unwrap().unwrap();
    options.interval = Duration::from_millis(50);
    let exporter = Exporter::start(options, Arc::clone(&shown.board)).unwrap();
    let counters = exporter.counters();
    take(listener.accept().unwrap().0, "503 Service Unavailable");
    let (head, body) = take(listener.accept().unwrap().0, "200 OK");
    assert!(counters.failed.load(Ordering::Relaxed) >= 1);
    exporter.stop(Duration::from_secs(60));
    assert!(head.starts_with("POST /v1development/profiles HTTP/1.1"), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(
        lower.contains("content-type: application/x-protobuf") && lower.contains("x-tenant: shop"),
        "{head}"
    );

    let request = ExportProfilesServiceRequest::decode(body.as_slice()).unwrap();
    let dictionary = request.dictionary.unwrap();
    assert_eq!(dictionary.string_table[0], "");
    let string = |place: i32| dictionary.string_table[usize::try_from(place).unwrap()].as_str();
    let resource = &request.resource_profiles[0];
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert_eq!(name.value.as_ref().unwrap().value, Some(Value::StringValue("checkout".to_owned())));

    let profiles = &resource.scope_profiles[0].profiles;
    let kind = |place: usize| string(profiles[place].sample_type.unwrap().type_strindex);
    assert_eq!((kind(0), kind(1), kind(2)), ("blocked", "stack", "retained"));
    let state = shown.board.target("checkout").unwrap();
    let largest = state.sample.groups.iter().max_by_key(|group| group.count).unwrap();
    let sample = profiles[0].samples.iter().max_by_key(|sample| sample.values[0]).unwrap();
    assert_eq!(sample.values, [i64::try_from(largest.count).unwrap()]);
    let stack = &dictionary.stack_table[usize::try_from(sample.stack_index).unwrap()];
    let functions: Vec<(&str, i64)> = stack
        .location_indices
        .iter()
        .map(|place| &dictionary.location_table[usize::try_from(*place).unwrap()].lines[0])
        .map(|line| (&dictionary.function_table[usize::try_from(line.function_index).unwrap()], line.line))
        .map(|(function, line)| (string(function.name_strindex), line))
        .collect();
    let wanted: Vec<(&str, i64)> = largest
        .frames
        .iter()
        .map(|frame| (frame.function.as_str(), i64::from(frame.line.unwrap())))
        .collect();
    assert_eq!(functions, wanted);
    let attributes: Vec<&str> = sample
        .attribute_indices
        .iter()
        .map(|place| string(dictionary.attribute_table[usize::try_from(*place).unwrap()].key_strindex))
        .collect();
    assert_eq!(attributes, ["observer.state", "observer.wait_reason", "observer.group"]);
}

#[test]
fn the_environment_is_checked() {
    let with = |name: &'static str, value: &'static str| {
        Options::from_environment(move |asked| (asked == name).then(|| value.to_owned()))
    };
    assert!(with("HOME", "/").unwrap().is_none());
    let own = with("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "https://c.example/p").unwrap().unwrap();
    assert_eq!(own.url, "https://c.example/p", "taken as it is");
    for wrong in ["collector", "ftp://c.example", "http://", "http:// x"] {
        assert!(with("OTEL_EXPORTER_OTLP_ENDPOINT", wrong).is_err(), "{wrong}");
    }
}
