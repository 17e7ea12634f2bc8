//! The profiles in the tool that everybody has: `go tool pprof`, over HTTP and from a file.
//!
//! Ring two: needs a Go toolchain of `cargo xtask setup`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use observer::sample::{Frame, Growth, GrowthSite};

use crate::programs::go::toolchains;
use crate::support::shown::{self, Site};

/// What it prints. Newer toolchains build it first, once.
fn pprof(arguments: &[&str]) -> String {
    let go = toolchains().pop().expect("no Go toolchain: run `cargo xtask setup`").join("bin/go");
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let ran = Command::new(go)
        .args(["tool", "pprof"])
        .args(arguments)
        .env("PPROF_TMPDIR", kept.join("pprof"))
        .env("GOTOOLCHAIN", "local")
        .env("GOCACHE", kept.join("go"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, complaints) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{complaints}");
    for word in ["malformed", "unrecognized", "parsing profile", "failed"] {
        assert!(!complaints.contains(word), "{complaints}");
    }
    out.into_owned()
}

/// A line of `-top` as its first number and the whole of it.
fn top<'a>(printed: &'a str, function: &str) -> (&'a str, &'a str) {
    let line = printed.lines().find(|line| line.ends_with(function));
    let line = line.unwrap_or_else(|| panic!("no {function} in\n{printed}"));
    (line.split_whitespace().next().unwrap(), line)
}

#[test]
#[ignore = "needs root"]
fn go_tool_pprof_reads_what_is_served() {
    let site = Site::start(|_| {});
    let mut state = shown::state("checkout", &shown::leaking());
    let blocked = state.sample.groups.iter().max_by_key(|group| group.count).unwrap().clone();
    let mut sample = (*state.sample).clone();
    let frames: Arc<[Frame]> = [("malloc", "libc.so.6"), ("main.fill", "checkout")]
        .map(|(function, module)| Frame {
            function: function.into(),
            module: Some(module.into()),
            address: 0x1234,
            line: Some(7),
            file: Some("fill.c".into()),
            inlined: false,
            tail_call: false,
            build_id: None,
        })
        .into();
    sample.growth = Some(Growth {
        sites: vec![GrowthSite { frames, bytes: 3 << 20, via: "brk".into(), ..GrowthSite::default() }],
        ..Growth::default()
    });
    state.sample = Arc::new(sample);
    site.shown.board.publish(state);

    let url = |kind: &str| format!("http://{}/targets/checkout/{kind}.pb.gz", site.address);
    let printed = pprof(&["-top", &url("blocked")]);
    assert!(printed.contains("Type: blocked") && printed.contains("File: checkout"), "{printed}");
    let innermost = &blocked.frames[0].function;
    assert_eq!(top(&printed, innermost).0, blocked.count.to_string(), "{printed}");
    let printed = pprof(&["-top", "-sample_index=stack", "-unit=B", &url("blocked")]);
    assert_eq!(top(&printed, innermost).0, format!("{}B", blocked.stack_bytes), "{printed}");
    let printed = pprof(&["-raw", &url("blocked")]);
    for words in [
        "blocked/count[dflt] stack/bytes retained/bytes".to_owned(),
        format!("wait_reason:[{}]", blocked.wait_reason),
        format!("group:[{:016x}]", blocked.id.0),
        format!(
            "{innermost} {}:{}",
            blocked.frames[0].file.as_ref().unwrap(),
            blocked.frames[0].line.unwrap()
        ),
    ] {
        assert!(printed.contains(&words), "no {words:?} in\n{printed}");
    }
    let printed = pprof(&["-traces", "-tagfocus=wait_reason=chan send", &url("blocked")]);
    assert!(printed.contains(innermost.as_str()), "labels can be asked for\n{printed}");

    let printed = pprof(&["-top", &url("growth")]);
    assert!(printed.contains("Type: growth"), "{printed}");
    assert_eq!(top(&printed, "malloc").0, "3MB", "{printed}");
    assert!(top(&printed, "main.fill").1.contains("100%"), "{printed}");
    let printed = pprof(&["-raw", &url("growth")]);
    for words in ["growth/bytes", "via:[brk]", "/srv/checkout", "libc.so.6", "main.fill fill.c:7"] {
        assert!(printed.contains(words), "no {words:?} in\n{printed}");
    }
}

#[test]
#[ignore = "needs root"]
fn go_tool_pprof_reads_the_file_of_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("blocked.pb.gz");
    let ran = Command::new(env!("CARGO_BIN_EXE_observer"))
        .args(["snapshot", &std::process::id().to_string(), "--format", "pprof"])
        .stdout(std::fs::File::create(&file).unwrap())
        .status()
        .unwrap();
    assert!(ran.success());
    assert!(std::fs::read(&file).unwrap().starts_with(&[0x1f, 0x8b]), "gzip, as the help says");
    let printed = pprof(&["-raw", file.to_str().unwrap()]);
    assert!(printed.contains("blocked/count") && printed.contains("state:"), "{printed}");
}

#[test]
#[ignore = "needs root"]
fn go_tool_pprof_reads_what_a_snapshot_says_grew() {
    let frame = |function: &str| Frame { function: function.into(), line: Some(7), ..Frame::default() };
    let frames: Arc<[Frame]> = [frame("malloc"), frame("leak_small"), frame("main")].into();
    let sites = [GrowthSite { frames, bytes: 3 << 20, via: "brk".into(), ..GrowthSite::default() }];
    let state = shown::state("checkout", &shown::leaking());
    let profile = observer::tell::report::pprof::grown(&sites, &state.info, Duration::from_secs(20), 5);
    let kept = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kept.path(), profile).unwrap();
    let printed = pprof(&["-top", "-unit=MB", kept.path().to_str().unwrap()]);
    assert!(printed.contains("Type: inuse_space") && printed.contains("Duration: 20s"), "{printed}");
    assert_eq!(top(&printed, "malloc").0, "3MB", "{printed}");
}
