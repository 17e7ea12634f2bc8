//! The history on disk: what was committed survives being killed, the file keeps to its limits, and what is not a whole
//! history of observer's own is refused in one line and left as it is.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use observer::sample::{Frame, Group, GroupId, Memory, Sample};
use observer::timeline::Timeline;
use observer::timeline::store::{Limits, Store, StoreError};

const BEGIN: f64 = 1_700_000_000.0;
const DAY: Duration = Duration::from_secs(86_400);
const LIMITS: Limits = Limits { max_bytes: 64 << 20, keep: Duration::from_secs(14 * 86_400) };
const LONG: Duration = Duration::from_secs(60);
/// Tells the child which file to write.
const CHILD: &str = "OBSERVER_TEST_STORE";

fn group(id: u64, count: u64) -> Group {
    let frame = |depth: u32| Frame {
        function: format!("shop/checkout.(*Handler{id}).step{depth}"),
        file: Some(format!("/srv/shop/handler{id}.go")),
        line: Some(depth),
        ..Frame::default()
    };
    Group {
        id: GroupId(id),
        count,
        wait_reason: "chan send".into(),
        stack_bytes: count * 2_048,
        frames: (0..8).map(frame).collect(),
        ..Group::default()
    }
}

fn sample(resident: u64, groups: Vec<Group>) -> Sample {
    Sample { memory: Memory { resident_bytes: resident, ..Memory::default() }, groups, ..Sample::default() }
}

fn at(number: u64) -> f64 {
    BEGIN + number as f64 * 10.0
}

/// What the child writes, moment by moment; each can be told from its number.
fn offer(store: &Store, timeline: &mut Timeline, target: &str, number: u64) {
    timeline.push(at(number), &sample(number << 20, vec![group(1, number), group(2 + number / 50, 7)]));
    store.offer(target, timeline);
}

fn open(path: &Path) -> Store {
    Store::open(path, LIMITS).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(path: &Path) -> String {
    let error = Store::open(path, LIMITS).err().expect("refused");
    let line = error.to_string();
    assert!(line.contains(&path.display().to_string()) && !line.contains('\n'), "{line}");
    line
}

#[test]
fn a_restart_goes_on_with_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let store = open(&path);
    let mut timeline = Timeline::default();
    for number in 0..100 {
        offer(&store, &mut timeline, "shop", number);
    }
    offer(&store, &mut Timeline::default(), "other", 3);
    assert!(store.flush(LONG) && store.take_losses().is_empty() && store.degraded().is_none());
    assert!(store.close(LONG));

    let store = open(&path);
    assert_eq!(store.targets().unwrap(), ["other", "shop"]);
    let loaded = store.load("shop", 0.0).unwrap();
    assert_eq!(loaded.points(0.0, usize::MAX), timeline.points(0.0, usize::MAX));
    let frames = &loaded.group(GroupId(1)).expect("the group").frames;
    assert_eq!(frames[0].function, "shop/checkout.(*Handler1).step0");
    let since = store.load("shop", at(90)).unwrap();
    assert_eq!(since.points(0.0, usize::MAX), timeline.points(at(90), usize::MAX));
    assert!(store.load("nobody", 0.0).unwrap().is_empty());
}

#[test]
fn a_moment_each_ten_seconds_and_the_peak_between() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("history"));
    let mut timeline = Timeline::default();
    for second in 0..101_u32 {
        let resident = if second == 57 { 900 << 20 } else { 100 << 20 };
        timeline.push(BEGIN + f64::from(second), &sample(resident, vec![group(1, 1)]));
        store.offer("shop", &timeline);
    }
    assert!(store.flush(LONG));
    let points = store.load("shop", 0.0).unwrap().points(0.0, usize::MAX);
    assert!((11..=22).contains(&points.len()), "{}", points.len());
    assert!(points.iter().any(|point| point.at == BEGIN + 57.0 && point.resident_bytes == 900 << 20));
}

/// Not a test of its own: what is killed.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&path));
    let mut timeline = store.load("shop", 0.0).unwrap();
    let first = timeline.last().map_or(0, |last| ((last.at - BEGIN) / 10.0).round() as u64 + 1);
    for number in first..first + 100_000 {
        offer(&store, &mut timeline, "shop", number);
        assert!(store.flush(LONG));
        println!("committed {number}");
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_was_committed_survives_being_killed_in_mid_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    // The harness knows it by its path without the crate.
    let (_, module) = module_path!().split_once("::").unwrap();
    let child_test = format!("{module}::child_that_writes_until_it_is_killed");
    let mut committed = 0;
    for round in 0..25_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &child_test, "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let killed = Killed(child);
        let mut numbers = lines.map_while(Result::ok).filter_map(|line| {
            line.split_once("committed ").and_then(|(_, number)| number.parse::<u64>().ok())
        });
        for number in numbers.by_ref().take(3 + (round % 7) as usize) {
            committed = number;
        }
        // Somewhere in the next write, each time elsewhere.
        std::thread::sleep(Duration::from_micros(round * 311 % 4_000));
        drop(killed);
        drop(numbers);

        let store = open(&path);
        let points = store.load("shop", 0.0).unwrap().points(at(committed.saturating_sub(80)), usize::MAX);
        let numbers: Vec<u64> = points.iter().map(|point| point.resident_bytes >> 20).collect();
        let last = *numbers.last().expect("points");
        assert!((committed..committed + 200).contains(&last), "round {round}: {last} after {committed}");
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "round {round}: {numbers:?}");
        for point in &points {
            assert_eq!(point.at, at(point.resident_bytes >> 20));
            assert_eq!(point.groups.len(), 2, "round {round}: {point:?}");
        }
        assert!(store.close(LONG));
    }
    assert!(committed > 25 * 3, "{committed}");
}

#[test]
fn the_file_keeps_to_its_size_and_the_latest_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let limits = Limits { max_bytes: 16 << 20, keep: 1_000 * DAY };
    let store = Store::open(&path, limits).unwrap();
    assert!(write_much(&store, 600) <= 16 << 20, "{} bytes", store.bytes());
    let points = store.load("shop", 0.0).unwrap().points(0.0, usize::MAX);
    assert_eq!(points.last().map(|point| (point.at, point.groups.len())), Some((at(599), 24)));
    assert!(points[0].at > at(20) && points.len() > 40, "{} from {}", points.len(), points[0].at - BEGIN);
    assert!(store.take_losses().is_empty() && store.degraded().is_none());
    assert!(store.close(LONG));

    // And a limit that was lowered is kept from the start.
    let path = directory.path().join("large");
    let store = open(&path);
    assert!(write_much(&store, 400) > 16 << 20, "{} bytes", store.bytes());
    assert!(store.close(LONG));
    let store = Store::open(&path, limits).unwrap();
    assert!(store.flush(LONG));
    assert!(store.bytes() <= 16 << 20, "{} bytes", store.bytes());
    assert_eq!(store.load("shop", 0.0).unwrap().last().map(|point| point.at), Some(at(399)));
}

/// Each time other groups with deep stacks, as a hostile target has them, 60 KB a moment; how large the file became.
fn write_much(store: &Store, moments: u64) -> u64 {
    let mut timeline = Timeline::default();
    let frame = Frame { function: "f".repeat(200), file: Some("/srv/f.go".repeat(9)), ..Frame::default() };
    let mut largest = 0;
    for number in 0..moments {
        let deep = |id: u64| Group { frames: vec![frame.clone(); 6].into(), ..group(id, 5) };
        let groups = (0..24).map(|place| deep(number * 24 + place)).collect();
        timeline.push(at(number), &sample(number << 20, groups));
        store.offer("shop", &timeline);
        if number % 20 == 19 {
            assert!(store.flush(LONG));
            largest = largest.max(store.bytes());
        }
    }
    largest
}

#[test]
fn old_moments_and_what_only_they_name_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let store = open(&path);
    let mut timeline = Timeline::default();
    for hour in 0..100_u32 {
        timeline.push(BEGIN + f64::from(hour) * 3_600.0, &sample(1, vec![group(u64::from(hour), 1)]));
        store.offer("shop", &timeline);
    }
    offer(&store, &mut Timeline::default(), "gone", 0);
    assert!(store.flush(LONG) && store.close(LONG));
    let store = Store::open(&path, Limits { keep: DAY, ..LIMITS }).unwrap();
    assert!(store.flush(LONG));
    let loaded = store.load("shop", 0.0).unwrap();
    let points = loaded.points(0.0, usize::MAX);
    assert!(points[0].at >= BEGIN + 75.0 * 3_600.0 && points.len() == 25, "{}", points.len());
    assert!(points.iter().all(|point| loaded.group(point.groups[0].id).is_some()));
    assert_eq!(store.targets().unwrap(), ["shop"]);
}

#[test]
fn a_second_observer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let store = open(&path);
    assert!(refused(&path).contains("another observer has it open"));
    assert!(store.close(LONG));
    open(&path);
}

#[test]
fn what_is_no_history_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for content in [b"hello".to_vec(), vec![0; 5_000], b"redb".repeat(4_000), vec![0xff; 100_000]] {
        fs::write(&path, &content).unwrap();
        let line = refused(&path);
        assert!(line.contains("move"), "{line}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    assert!(refused(directory.path()).contains("name"));
    assert!(refused(&directory.path().join("no/such/file")).contains("No such file"));

    let foreign = directory.path().join("foreign");
    let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("somebody else's");
    let database = redb::Database::create(&foreign).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(table).unwrap().insert("a", 1).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(refused(&foreign).contains("another program"));

    let newer = directory.path().join("newer");
    assert!(open(&newer).close(LONG));
    let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("observer.history");
    let database = redb::Database::create(&newer).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(table).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(Store::open(&newer, LIMITS), Err(StoreError::Newer { format: 2, .. })));
    assert!(refused(&newer).contains("newer observer"));
}

#[test]
fn a_damaged_history_is_refused_or_read_never_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let store = open(&path);
    let mut timeline = Timeline::default();
    for number in 0..200 {
        offer(&store, &mut timeline, "shop", number);
    }
    assert!(store.flush(LONG) && store.close(LONG));
    let whole = fs::read(&path).unwrap();
    let mut refusals = 0;
    for round in 0..60_usize {
        let mut content = whole.clone();
        let place = round * 7_919 * 13 % content.len();
        if round % 3 == 0 {
            content.truncate(place);
        } else {
            let end = (place + 1 + round * 5).min(content.len());
            content[place..end].iter_mut().for_each(|byte| *byte = !*byte);
        }
        fs::write(&path, &content).unwrap();
        match Store::open(&path, LIMITS) {
            Err(error) => {
                refusals += 1;
                let line = error.to_string();
                assert!(line.contains(&path.display().to_string()) && line.contains("move"), "{line}");
            }
            // What lay there was free.
            Ok(store) => {
                let points = store.load("shop", 0.0).unwrap().points(0.0, usize::MAX);
                assert!(points.iter().all(|point| point.at == at(point.resident_bytes >> 20)));
                assert!(store.close(LONG));
            }
        }
    }
    assert!(refusals > 20, "{refusals}");
}
