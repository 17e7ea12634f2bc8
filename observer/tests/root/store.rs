//! The history on a disk that is full: counted, told, and written again when there is room.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use observer::sample::{Frame, Group, GroupId, Sample};
use observer::timeline::Timeline;
use observer::timeline::store::{Limits, Store};

const LONG: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { max_bytes: 64 << 20, keep: Duration::from_secs(14 * 86_400) };

/// A small disk, gone at the end of the test.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "observer-test"])
            .arg(directory.path())
            .status()
            .expect("mount");
        assert!(status.success(), "mount -t tmpfs: {status}; this test needs root");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A moment whose groups are all new.
fn offer(store: &Store, timeline: &mut Timeline, number: u64) {
    let group = |place: u64| Group {
        id: GroupId(number * 24 + place),
        frames: vec![Frame { function: "f".repeat(300), ..Frame::default() }; 6].into(),
        ..Group::default()
    };
    let sample = Sample { groups: (0..24).map(group).collect(), ..Sample::default() };
    timeline.push(1_700_000_000.0 + number as f64 * 10.0, &sample);
    store.offer("shop", timeline);
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_is_told_and_outlived() {
    let disk = Disk::mount();
    let path = disk.path().join("history");
    let store = Store::open(&path, LIMITS).unwrap_or_else(|error| panic!("{error}"));
    let mut timeline = Timeline::default();
    let mut number = 0;
    // Somebody else takes most of it.
    let other = disk.path().join("other");
    fs::write(&other, vec![1; 500 << 10]).unwrap();
    let until = Instant::now() + LONG;
    while store.degraded().is_none() {
        assert!(Instant::now() < until, "the disk never became full");
        let before = Instant::now();
        offer(&store, &mut timeline, number);
        assert!(before.elapsed() < Duration::from_secs(5), "sampling waited for the disk");
        number += 1;
        if number.is_multiple_of(4) {
            store.flush(LONG);
        }
    }
    let degraded = store.degraded().expect("degraded");
    assert!(degraded.reason.contains("No space left"), "{}", degraded.reason);
    assert!(store.take_losses().get("history_not_written").is_some_and(|lost| *lost > 0));

    // Room again: it goes on by itself, with what was committed before.
    fs::remove_file(&other).unwrap();
    let until = Instant::now() + LONG;
    while store.degraded().is_some() {
        assert!(Instant::now() < until, "{:?}", store.degraded());
        std::thread::sleep(Duration::from_millis(50));
        store.flush(LONG);
    }
    offer(&store, &mut timeline, number);
    assert!(store.flush(LONG));
    let points = store.load("shop", 0.0).unwrap().points(0.0, usize::MAX);
    assert!(
        points.len() >= 2 && points.last().map(|point| point.at) == timeline.last().map(|point| point.at)
    );
    assert!(store.close(LONG));
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_is_full_from_the_start_is_no_reason_not_to_observe() {
    let disk = Disk::mount();
    let other = disk.path().join("other");
    // Filled up to the last byte, which is what fails.
    let _ = fs::write(&other, vec![1; 2 << 20]);
    let path = disk.path().join("history");
    let store = Store::open(&path, LIMITS).unwrap_or_else(|error| panic!("{error}"));
    let mut timeline = Timeline::default();
    offer(&store, &mut timeline, 0);
    assert!(!store.flush(LONG) && store.degraded().is_some());
    assert!(store.take_losses().values().sum::<u64>() > 0);
    fs::remove_file(&other).unwrap();
    let until = Instant::now() + LONG;
    while store.degraded().is_some() {
        assert!(Instant::now() < until, "{:?}", store.degraded());
        std::thread::sleep(Duration::from_millis(50));
        store.flush(LONG);
    }
    offer(&store, &mut timeline, 1);
    assert!(store.flush(LONG) && !store.load("shop", 0.0).unwrap().is_empty());
    // A disk that hangs or fails at the end holds nothing up.
    assert!(store.close(LONG));
}
