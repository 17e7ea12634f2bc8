//! The profiles as scrapers and tools fetch them.

use std::io::Read as _;
use std::sync::Arc;

use flate2::read::GzDecoder;
use observer::sample::{Frame, Growth, GrowthSite};

use crate::support::shown::{self, Answer, Site};

/// Beside what is blocked, memory that grew.
fn site() -> Site {
    let site = Site::start(|_| {});
    let mut state = shown::state("checkout", &shown::leaking());
    let mut sample = (*state.sample).clone();
    let frames: Arc<[Frame]> = ["malloc", "checkout.(*Quoter).fetch"]
        .map(|function| Frame { function: function.into(), ..Frame::default() })
        .into();
    sample.growth = Some(Growth {
        sites: vec![GrowthSite { frames, bytes: 123_456, via: "brk".into(), ..GrowthSite::default() }],
        ..Growth::default()
    });
    state.sample = Arc::new(sample);
    site.shown.board.publish(state);
    site
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(answer.body.as_slice()).read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn pprof_is_gzipped_once() {
    let site = site();
    for (kind, function) in [("blocked", "chan send"), ("growth", "checkout.(*Quoter).fetch")] {
        let path = format!("/targets/checkout/{kind}.pb.gz");
        let answer = site.ask("GET", &path, &[("Accept-Encoding", "gzip")]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-encoding"), None, "it is gzip already");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let file = format!("attachment; filename=\"checkout-{kind}.pb.gz\"");
        assert_eq!(answer.header("content-disposition"), Some(file.as_str()));
        let plain = unpacked(&answer);
        assert!(plain.windows(function.len()).any(|w| w == function.as_bytes()), "{function}");
    }
}

#[test]
fn folded_stacks_and_pictures() {
    let site = site();
    let blocked = site.get("/targets/checkout/blocked.folded");
    assert!(blocked.header("content-type").unwrap().starts_with("text/plain"));
    assert!(blocked.text().lines().any(|line| line.contains(";[chan send] ")), "{}", blocked.text());
    let growth = site.get("/targets/checkout/growth.folded");
    assert_eq!(growth.text(), "checkout.(*Quoter).fetch;malloc;[brk] 123456\n");
    for path in ["/targets/checkout/flamegraph.svg", "/targets/checkout/growth.svg"] {
        let answer = site.get(path);
        assert_eq!(answer.header("content-type"), Some("image/svg+xml"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'self'"),
            "{policy}"
        );
        assert!(answer.text().contains("<svg"), "{path}");
        let small = site.ask("GET", path, &[("Accept-Encoding", "gzip")]);
        assert_eq!(small.header("content-encoding"), Some("gzip"));
    }
}

#[test]
fn what_there_is_none_of_is_said() {
    let site = Site::start(|_| {});
    let mut state = shown::state("idle", &shown::leaking());
    let mut sample = (*state.sample).clone();
    sample.groups.clear();
    sample.growth = None;
    state.sample = Arc::new(sample);
    site.shown.board.publish(state);
    for kind in ["growth.pb.gz", "growth.folded", "growth.svg"] {
        let answer = site.get(&format!("/targets/idle/{kind}"));
        assert_eq!(answer.status, 404, "{kind}");
        assert!(answer.text().contains("observer doctor"), "{}", answer.text());
    }
    let answer = site.get("/targets/idle/flamegraph.svg");
    assert_eq!((answer.status, answer.text().lines().count()), (404, 1));
    assert_eq!(site.get("/targets/idle/blocked.pb.gz").status, 200, "nothing blocked is a state too");
    let answer = site.get("/targets/nobody/blocked.pb.gz");
    assert_eq!((answer.status, answer.text().lines().count()), (404, 1));
}
