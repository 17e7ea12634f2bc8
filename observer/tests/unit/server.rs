//! The web server as its clients meet it: what it answers, what it refuses, and that nobody can wear it out.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use observer::tell::web::{Options, ServeError, Server};

use crate::support::shown::{self, Answer, Site, request};

#[test]
fn probes_and_metrics() {
    let site = Site::start(|_| {});
    let answer = site.get("/healthz");
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    assert_eq!((site.get("/readyz").status), 200);
    site.shown.board.set_ready(false);
    let answer = site.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("not ready"), "{}", answer.text());
    assert_eq!(site.get("/healthz").status, 200, "it lives, ready or not");

    let answer = site.get("/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("content-security-policy").is_some());
    assert!(answer.header("access-control-allow-origin").is_none(), "nothing reads across origins");
}

#[test]
fn the_telemetry_path_is_chosen() {
    let site = Site::start(|options| options.telemetry_path = "/observer/metrics".to_owned());
    assert_eq!(site.get("/observer/metrics").status, 200);
    assert_eq!(site.get("/metrics").status, 404);
    let wrong = Options { telemetry_path: "/healthz".to_owned(), ..Options::default() };
    assert!(matches!(Server::start(wrong, shown::shown()), Err(ServeError::TelemetryPath(_))));
}

#[test]
fn what_is_not_there_or_not_allowed_is_one_clear_line() {
    let site = Site::start(|_| {});
    let answer = site.get("/nothing");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.text().lines().count(), 1);
    assert!(answer.text().contains("/nothing"), "{}", answer.text());
    let answer = site.get("/api/v1/nothing");
    assert_eq!(answer.status, 404);
    assert!(answer.json()["error"].as_str().unwrap().contains("/api/v1/nothing"));
    for path in ["/metrics", "/healthz", "/api/v1/targets"] {
        let answer = site.ask("DELETE", path, &[]);
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{path}");
        assert!(String::from_utf8_lossy(&answer.body).contains("only GET and HEAD"), "{path}");
    }
    let answer = site.ask("GET", "/healthz", &[("Content-Length", "5")]);
    assert_eq!(answer.status, 413);
    let answer = site.ask("HEAD", "/api/v1/targets", &[]);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(answer.header("content-length").is_some_and(|length| length != "0"));
}

#[test]
fn targets_in_short_gzipped_when_asked() {
    let site = Site::start(|_| {});
    let plain = site.get("/api/v1/targets");
    assert_eq!(plain.header("content-type"), Some("application/json"));
    let document = plain.json();
    assert_eq!(document["schema"], "observer.targets/1");
    let target = &document["targets"][0];
    assert_eq!(target["name"], "checkout");
    assert_eq!(target["up"], true);
    assert_eq!(target["verdict"], "leak");
    assert_eq!(target["first_seen"], "2026-05-28T20:26:40Z");
    assert!(target["sentence"].as_str().unwrap().contains("chan send"));

    let small = site.ask("GET", "/api/v1/targets", &[("Accept-Encoding", "gzip")]);
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    let mut text = Vec::new();
    GzDecoder::new(small.body.as_slice()).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
}

#[test]
fn on_loopback_a_name_that_is_not_ours_is_refused() {
    let site = Site::start(|_| {});
    let asked_as = |host: &str| site.ask("GET", "/api/v1/targets", &[("Host", host)]).status;
    assert_eq!(asked_as("rebound.example"), 421);
    assert_eq!(asked_as("127.0.0.1:9713"), 200);
    assert_eq!(asked_as("observer.example:9713"), 200, "that is the external URL");
}

#[test]
fn garbage_is_refused_and_harms_nobody() {
    let site = Site::start(|_| {});
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\r\n\r\n\r\n\0\0\0\0",
    ] {
        let mut stream = site.connect();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert!(!all.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&all));
    }
    let long = "x".repeat(100_000);
    let mut stream = site.connect();
    let _ = stream.write_all(request("GET", &format!("/{long}"), &[]).as_bytes());
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(!all.starts_with(b"HTTP/1.1 200"));
    assert_eq!(site.get("/healthz").status, 200);
}

/// Targets of which each answer is far larger than what the kernel buffers for a connection.
fn make_large(site: &Site) {
    let mut state = shown::state("checkout", &shown::leaking());
    for place in 0..400 {
        state.name = format!("checkout-{place}");
        let mut diagnosis = (*state.diagnosis).clone();
        diagnosis.sentence = "s".repeat(20_000);
        state.diagnosis = std::sync::Arc::new(diagnosis);
        site.shown.board.publish(state.clone());
    }
}

#[test]
fn those_who_do_not_read_cost_no_more_than_their_number() {
    let site = Site::start(|options| options.max_requests = 3);
    make_large(&site);
    let slow: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = site.connect();
            stream.write_all(request("GET", "/api/v1/targets", &[]).as_bytes()).unwrap();
            // Its answer has begun: the request counts.
            stream.read_exact(&mut [0; 1]).unwrap();
            stream
        })
        .collect();
    let answer = site.get("/api/v1/targets");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.json()["error"].as_str().unwrap().contains("--web.max-requests"));
    // Once they are gone there is room again.
    drop(slow);
    let free = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        site.get("/healthz").status == 200
    });
    assert!(free, "the permits of those who left are lost");
}

#[test]
fn idle_connections_wait_their_turn() {
    let site = Site::start(|options| options.max_connections = 2);
    let mut held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = site.connect();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let mut third = site.connect();
    third.write_all(request("GET", "/healthz", &[]).as_bytes()).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.read(&mut [0; 1]).is_err(), "answered though there is no room");
    held.pop();
    third.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut all = Vec::new();
    third.read_to_end(&mut all).unwrap();
    assert_eq!(Answer::read(&all).status, 200);
}

#[test]
fn it_stops_though_somebody_reads_for_ever() {
    let site = Site::start(|_| {});
    make_large(&site);
    let mut slow = site.connect();
    slow.write_all(request("GET", "/api/v1/targets", &[]).as_bytes()).unwrap();
    slow.read_exact(&mut [0; 1]).unwrap();
    let address = site.address;
    site.stop();
    // What another test forks has the socket too, until it executes its program a moment later.
    let end = Instant::now() + Duration::from_secs(1);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "the port is not free");
        std::thread::sleep(Duration::from_millis(5));
    }
}
