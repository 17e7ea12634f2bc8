//! Recordings replayed: the same verdict and culprit as when they were made, torn ends forgiven, wrong files refused
//! in one line with the remedy.

use std::fs;
use std::path::{Path, PathBuf};

use observer::diagnose::recording::{self, Line};
use observer::diagnose::{Diagnosis, History, diagnose};
use observer::sample::Sample;

use crate::simulate::service;
use crate::support::observer::{Ran, observer, run};

fn series(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/series").join(name)
}

fn replay(path: &Path, more: &[&str]) -> Ran {
    let mut arguments = vec!["replay", path.to_str().unwrap()];
    arguments.extend(more);
    run(&mut observer(&arguments))
}

fn judged(samples: &[Sample]) -> Diagnosis {
    let mut history = History::new();
    samples.iter().for_each(|sample| history.push(sample.clone()));
    diagnose(&history, &service::target())
}

/// A file of a test's own.
fn file(directory: &tempfile::TempDir, content: &[u8]) -> PathBuf {
    let path = directory.path().join("recording");
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_replay_says_what_was_said_when_it_was_recorded() {
    for entry in fs::read_dir(series("")).unwrap() {
        let path = entry.unwrap().path();
        let (_, samples) = recording::read(&fs::read_to_string(&path).unwrap()).unwrap();
        let ran = replay(&path, &["--format", "json"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", path.display());
        let replayed: Diagnosis = serde_json::from_str(&ran.out).unwrap();
        let before = judged(&samples);
        assert_eq!(replayed.verdict, before.verdict, "{}", path.display());
        assert_eq!(replayed.sentence, before.sentence);
        let sites = |d: &Diagnosis| d.culprits.iter().map(|c| c.site.clone()).collect::<Vec<_>>();
        assert_eq!(sites(&replayed), sites(&before));
        assert!(path.to_string_lossy().contains("leak-") == (sites(&before).is_empty().eq(&false)));
    }
}

#[test]
fn a_verdict_decides_the_exit_code_and_a_page_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let leak = series("leak-story.jsonl");
    assert_eq!(replay(&leak, &["--fail-on", "leak"]).code, Some(3));
    assert_eq!(replay(&series("stable-sawtooth.jsonl"), &["--fail-on", "leak"]).code, Some(0));
    let text = replay(&leak, &[]).out;
    assert!(text.contains("LEAK") && text.contains("checkout.go:41"), "{text}");

    let page = directory.path().join("page.html");
    let arguments = ["--report", page.to_str().unwrap()];
    assert_eq!(replay(&leak, &arguments).code, Some(0));
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("checkout.go:41") && html.contains("<svg"),
        "the page names the line over a picture"
    );
    // What is there stays, unless asked otherwise.
    fs::write(&page, "mine").unwrap();
    replay(&leak, &arguments).refused(2, &["--report", "exists", "--force"]);
    assert_eq!(fs::read_to_string(&page).unwrap(), "mine");
    assert_eq!(replay(&leak, &[&arguments[..], &["--force"]].concat()).code, Some(0));
    assert_ne!(fs::read_to_string(&page).unwrap(), "mine");
}

#[test]
fn only_what_was_seen_until_then_is_judged() {
    let path = series("leak-story.jsonl");
    let ran = replay(&path, &["--until", "5s", "--format", "json"]);
    let early: Diagnosis = serde_json::from_str(&ran.out).unwrap();
    assert!(early.window_seconds <= 5.0 && early.samples > 0, "{} s", early.window_seconds);
    let (_, samples) = recording::read(&fs::read_to_string(&path).unwrap()).unwrap();
    let until: Vec<Sample> = samples.into_iter().filter(|sample| sample.at_seconds <= 5.0).collect();
    assert_eq!(early.verdict, judged(&until).verdict);
}

#[test]
fn a_last_line_that_is_cut_short_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(series("leak-story.jsonl")).unwrap();
    let (_, samples) = recording::read(&String::from_utf8(whole.clone()).unwrap()).unwrap();
    for less in [1, 2, 500] {
        let ran = replay(&file(&directory, &whole[..whole.len() - less]), &["--format", "json"]);
        let replayed: Diagnosis = serde_json::from_str(&ran.out).unwrap();
        // Without its line feed alone, the last sample is whole.
        let left = samples.len() - usize::from(less > 1);
        assert_eq!(replayed.samples, left as u64, "{less}");
        assert_eq!(ran.err.contains("cut short"), less > 1, "{}", ran.err);
        assert!(ran.err.lines().count() <= 1 && ran.code == Some(0));
    }
    // In the middle it is damage, and it is said where.
    let mut torn = String::from_utf8(whole).unwrap();
    let third = torn.match_indices('\n').nth(2).unwrap().0;
    torn.replace_range(third - 200..third, "");
    replay(&file(&directory, torn.as_bytes()), &[]).refused(1, &["line 3", "damaged", "head -n 2"]);
}

#[test]
fn what_is_no_recording_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |content: &[u8], words: &[&str]| {
        let path = file(&directory, content);
        let mut words = words.to_vec();
        words.push(path.to_str().unwrap());
        replay(&path, &[]).refused(1, &words);
    };
    refused(b"", &["empty", "--record"]);
    refused(b"hello\n", &["no recording", "--record"]);
    refused(&[0x1f, 0x8b, 8, 0, 0, 0], &["gunzip"]);
    refused(&[0xff; 5_000], &["no recording"]);
    refused(br#"{"schema":"observer.diagnosis/1","target":{}}"#, &["observer.diagnosis/1", "--record"]);
    refused(br#"{"schema":"observer.recording/2","target":{}}"#, &["observer.recording/2"]);
    refused(format!("{}{}", "[".repeat(100_000), "\n").as_bytes(), &["no recording"]);
    let header = recording::header(&service::target()).unwrap();
    refused(format!("{header}\n").as_bytes(), &["no sample"]);
    refused(format!("{header}\n{}\n{{}}\n", "[".repeat(10_000)).as_bytes(), &["line 2"]);
    replay(&directory.path().join("none"), &[]).refused(1, &["No such file", "none"]);
    replay(directory.path(), &[]).refused(1, &["directory"]);
    run(&mut observer(&["replay"])).refused(2, &["<FILE>"]);
}

#[test]
fn numbers_beyond_reason_are_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let header = recording::header(&service::target()).unwrap();
    let (_, samples) = recording::read(&fs::read_to_string(series("leak-story.jsonl")).unwrap()).unwrap();
    let mut text = header + "\n";
    for (place, sample) in samples.iter().enumerate() {
        let mut sample = sample.clone();
        sample.memory.resident_bytes = if place % 2 == 0 { u64::MAX } else { 0 };
        sample.generation = u32::MAX - (place as u32 % 3);
        for group in &mut sample.groups {
            group.count = u64::MAX - place as u64;
            group.joined = u64::MAX;
            group.stack_bytes = u64::MAX;
            group.retained_bytes = Some(u64::MAX);
            group.oldest_wait_seconds = Some(-1e300);
        }
        text += &(recording::line(&sample).unwrap() + "\n");
        text += &recording::line(&Sample { at_seconds: -1e308, ..sample }).unwrap();
        text.push('\n');
    }
    let page = directory.path().join("page.html");
    let ran = replay(&file(&directory, text.as_bytes()), &["--report", page.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

#[test]
fn lines_of_each_kind_are_read() {
    let target = service::target();
    let header = recording::header_at(&target, Some(1_700_000_000.5)).unwrap();
    let read = recording::read_header(&header).unwrap();
    assert_eq!((&read.target, read.began_at), (&target, Some(1_700_000_000.5)));
    assert_eq!(recording::read_line(&header, 2).unwrap(), Line::Target(Box::new(target)));
    assert_eq!(recording::read_line(&recording::exited().unwrap(), 2).unwrap(), Line::Exited);
    let sample = Sample { at_seconds: 1.5, ..Sample::default() };
    let line = recording::line(&sample).unwrap();
    assert_eq!(recording::read_line(&line, 2).unwrap(), Line::Sample(Box::new(sample)));
    assert!(recording::read_line("{\"exited\":1}", 9).unwrap_err().to_string().contains("line 9"));
}
