//! What is in the file: its tables, how a moment is written in them and read back, and whether a file is one of ours.
//!
//! A moment names its groups by a number; each group, with its stack, is there once for all targets and moments.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, Durability, Error, ReadableDatabase as _, ReadableTable as _,
    StorageError, TableDefinition, TableHandle as _, WriteTransaction,
};

use super::super::groups::weight;
use super::super::tier::{Member, Moment, read_moment, write_moment};
use super::super::{GroupAt, Point, Timeline};
use super::shared::{FORMAT, Handed, StoreError};
use crate::sample::{Group, GroupId};

const CACHE_BYTES: usize = 2 << 20;
/// How stale the record of when a group was last seen may be.
const SEEN_STEP: u64 = 60_000;
/// How often a group is written anew: it may wait on something else now.
const WRITTEN_STEP: u64 = 3_600_000;
/// Groups that a writer remembers the numbers of.
const REMEMBERED: usize = 20_000;

/// Rows that one transaction deletes.
const DELETED: usize = 500;

/// `format` is what makes a database ours.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("observer.history");
const TARGETS: TableDefinition<'_, &str, u32> = TableDefinition::new("targets");
/// By target and milliseconds.
pub(super) const POINTS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("points");
const NUMBERS: TableDefinition<'_, u64, u32> = TableDefinition::new("group_numbers");
/// As JSON.
const GROUPS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("groups");
/// When a group was last seen, in milliseconds, and its id.
const SEEN: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("groups_seen");

pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let io = |call| move |source| StoreError::Io { path: path.to_owned(), call, source };
    if !path.try_exists().map_err(io("stat"))? {
        begin_file(path)?;
    }
    let kind = fs::metadata(path).map_err(io("stat"))?.file_type();
    if !kind.is_file() {
        return Err(StoreError::Foreign { path: path.to_owned(), what: "not a regular file".to_owned() });
    }
    open_existing(path)
}

/// Begins a file beside it and puts it in place when it is whole: neither a full disk nor being killed leaves half a
/// file that would be refused for ever.
fn begin_file(path: &Path) -> Result<(), StoreError> {
    let io = |call| move |source| StoreError::Io { path: path.to_owned(), call, source };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    // Left behind by one that was killed; one that is being begun now is locked, and `open_existing` says so.
    if fs::metadata(new).is_ok_and(|metadata| metadata.is_file()) {
        match open_existing(new) {
            Err(StoreError::InUse { .. }) => return Err(StoreError::InUse { path: path.to_owned() }),
            _ => fs::remove_file(new).map_err(io("removing what was begun beside it"))?,
        }
    }
    // It names functions of what runs here: nobody else's to read.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(io("creating it"))?;
    let begun =
        open_existing(new).map(drop).and_then(|()| fs::hard_link(new, path).map_err(io("creating it")));
    let removed = fs::remove_file(new).map_err(io("removing what was begun beside it"));
    begun.and(removed)
}

fn open_existing(path: &Path) -> Result<Database, StoreError> {
    let io = |call| move |source| StoreError::Io { path: path.to_owned(), call, source };
    // The whole file is checked: what was altered is refused here, instead of being believed.
    let opened = catch_unwind(|| {
        Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path)
    });
    let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), what };
    let database = match opened {
        Err(_) => return Err(damaged("it contradicts itself".to_owned())),
        Ok(Err(error)) => return Err(refusal(path, error)),
        Ok(Ok(database)) => database,
    };
    match catch_unwind(AssertUnwindSafe(|| claim(&database))) {
        Ok(Ok(Claim::Ours)) => Ok(database),
        Ok(Ok(Claim::Newer(format))) => Err(StoreError::Newer { path: path.to_owned(), format }),
        Ok(Ok(Claim::Foreign)) => Err(StoreError::Foreign {
            path: path.to_owned(),
            what: "a database of another program".to_owned(),
        }),
        Ok(Err(Error::Io(source))) => Err(io("writing to it")(source)),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("it contradicts itself".to_owned())),
    }
}

fn refusal(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path }
        }
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData => StoreError::Foreign { path, what: "not a database".to_owned() },
            io::ErrorKind::UnexpectedEof => StoreError::Damaged { path, what: "cut short".to_owned() },
            _ => StoreError::Io { path, call: "opening it", source },
        },
        DatabaseError::UpgradeRequired(_) => {
            StoreError::Foreign { path, what: "a database in an old format".to_owned() }
        }
        error => StoreError::Damaged { path, what: error.to_string() },
    }
}

enum Claim {
    Ours,
    Newer(u64),
    Foreign,
}

/// Whose database it is; one without tables becomes ours.
fn claim(database: &Database) -> Result<Claim, Error> {
    let read = database.begin_read()?;
    let mut ours = false;
    let mut foreign = false;
    for table in read.list_tables()? {
        ours |= table.name() == META.name();
        foreign = true;
    }
    if ours {
        return Ok(match read.open_table(META)?.get("format")?.map(|format| format.value()) {
            Some(FORMAT) => Claim::Ours,
            Some(format) if format > FORMAT => Claim::Newer(format),
            _ => Claim::Foreign,
        });
    }
    if foreign {
        return Ok(Claim::Foreign);
    }
    drop(read);
    let write = begin(database)?;
    write.open_table(META)?.insert("format", FORMAT)?;
    write.open_table(TARGETS)?;
    write.open_table(POINTS)?;
    write.open_table(NUMBERS)?;
    write.open_table(GROUPS)?;
    write.open_table(SEEN)?;
    write.commit()?;
    Ok(Claim::Ours)
}

/// A transaction that is on disk when it is committed, after which opening is quick also when observer was killed.
fn begin(database: &Database) -> Result<WriteTransaction, Error> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Numbers of groups that are in the file, so that most moments are written without looking them up.
#[derive(Default)]
pub(super) struct Known {
    groups: HashMap<GroupId, Stored>,
}

#[derive(Clone, Copy)]
struct Stored {
    number: u32,
    seen: u64,
    written: u64,
}

impl Known {
    /// About how much a moment takes in the file.
    pub(super) fn weight(&self, handed: &Handed) -> u64 {
        let new = handed.groups.iter().filter(|group| !self.groups.contains_key(&group.id));
        new.fold(512, |sum, group| sum + 2 * weight(group) as u64)
    }

    pub(super) fn forget(&mut self) {
        self.groups.clear();
    }
}

/// Writes moments in one transaction; how many bytes they took.
pub(super) fn write(database: &Database, known: &mut Known, moments: &[Handed]) -> Result<u64, Error> {
    let write = begin(database)?;
    let mut bytes = 0;
    {
        let mut points = write.open_table(POINTS)?;
        let mut targets = write.open_table(TARGETS)?;
        let mut tables = GroupTables {
            numbers: write.open_table(NUMBERS)?,
            groups: write.open_table(GROUPS)?,
            seen: write.open_table(SEEN)?,
        };
        for handed in moments {
            let target = target_number(&mut targets, &handed.target)?;
            let at_millis = (handed.point.at.max(0.0) * 1000.0).round() as u64;
            let by_id: HashMap<GroupId, &Group> =
                handed.groups.iter().map(|group| (group.id, group)).collect();
            let mut members = Vec::with_capacity(handed.point.groups.len());
            for at in &handed.point.groups {
                let Some(group) = by_id.get(&at.id) else { continue };
                let (number, written) = group_number(&mut tables, known, group, at_millis)?;
                bytes += written;
                members.push(Member { number, count: at.count, bytes: at.bytes });
            }
            members.sort_unstable_by_key(|member| member.number);
            let value = write_moment(&moment(&handed.point, at_millis, members));
            points.insert((target, at_millis), value.as_slice())?;
            bytes += value.len() as u64;
        }
    }
    write.commit()?;
    Ok(bytes)
}

fn moment(point: &Point, at_millis: u64, groups: Vec<Member>) -> Moment {
    Moment {
        at_millis,
        generation: point.generation,
        resident: point.resident_bytes,
        anonymous: point.anonymous_bytes,
        heap: point.heap_in_use_bytes,
        limit: point.limit_bytes,
        groups,
    }
}

fn target_number(targets: &mut redb::Table<'_, &str, u32>, name: &str) -> Result<u32, Error> {
    if let Some(number) = targets.get(name)? {
        return Ok(number.value());
    }
    let mut used = Vec::new();
    for entry in targets.iter()? {
        used.push(entry?.1.value());
    }
    let number = used.iter().max().map_or(0, |most| most.saturating_add(1));
    targets.insert(name, number)?;
    Ok(number)
}

struct GroupTables<'txn> {
    numbers: redb::Table<'txn, u64, u32>,
    groups: redb::Table<'txn, u32, &'static [u8]>,
    seen: redb::Table<'txn, u32, (u64, u64)>,
}

/// The number of a group, and how many bytes were written for it.
fn group_number(
    tables: &mut GroupTables<'_>,
    known: &mut Known,
    group: &Group,
    at_millis: u64,
) -> Result<(u32, u64), Error> {
    let recent = |at: u64, step: u64| at_millis.abs_diff(at) < step;
    let there = known.groups.get(&group.id).copied();
    if let Some(stored) = there.filter(|stored| recent(stored.seen, SEEN_STEP)) {
        return Ok((stored.number, 0));
    }
    let number = match there {
        Some(stored) => Some(stored.number),
        None => tables.numbers.get(group.id.0)?.map(|number| number.value()),
    };
    let number = match number {
        Some(number) => number,
        None => {
            let next = tables.groups.last()?.map_or(0, |(last, _)| last.value().saturating_add(1));
            tables.numbers.insert(group.id.0, next)?;
            next
        }
    };
    tables.seen.insert(number, (at_millis, group.id.0))?;
    let mut stored = Stored { number, seen: at_millis, written: at_millis };
    let mut bytes = 24;
    if let Some(there) = there.filter(|there| recent(there.written, WRITTEN_STEP)) {
        stored.written = there.written;
    } else {
        let json = serde_json::to_vec(group).map_err(|error| Error::Io(io::Error::other(error)))?;
        tables.groups.insert(number, json.as_slice())?;
        bytes += json.len() as u64 + 32;
    }
    if known.groups.len() >= REMEMBERED {
        known.groups.clear();
    }
    known.groups.insert(group.id, stored);
    Ok((number, bytes))
}

pub(super) fn targets(database: &Database) -> Result<Vec<String>, Error> {
    let read = database.begin_read()?;
    let mut names = Vec::new();
    for entry in read.open_table(TARGETS)?.iter()? {
        names.push(entry?.0.value().to_owned());
    }
    Ok(names)
}

pub(super) fn load(database: &Database, target: &str, from: f64) -> Result<Timeline, Error> {
    let read = database.begin_read()?;
    let mut timeline = Timeline::default();
    let Some(number) = read.open_table(TARGETS)?.get(target)?.map(|number| number.value()) else {
        return Ok(timeline);
    };
    let groups = read.open_table(GROUPS)?;
    // What a number stands for; a group that cannot be read is one that is not there.
    let mut known: HashMap<u32, Option<Group>> = HashMap::new();
    let from_millis = (from.max(0.0) * 1000.0) as u64;
    for entry in read.open_table(POINTS)?.range((number, from_millis)..=(number, u64::MAX))? {
        let (key, value) = entry?;
        let moment = read_moment(value.value());
        if known.len() > REMEMBERED {
            known.clear();
        }
        for member in &moment.groups {
            if let Entry::Vacant(place) = known.entry(member.number) {
                let stored = groups.get(member.number)?;
                place.insert(stored.and_then(|stored| serde_json::from_slice(stored.value()).ok()));
            }
        }
        let of = |number: u32| known.get(&number).and_then(Option::as_ref);
        let by_id: HashMap<GroupId, &Group> = moment
            .groups
            .iter()
            .filter_map(|member| of(member.number).map(|group| (group.id, group)))
            .collect();
        let point = Point {
            at: key.value().1 as f64 / 1000.0,
            generation: moment.generation,
            resident_bytes: moment.resident,
            anonymous_bytes: moment.anonymous,
            heap_in_use_bytes: moment.heap,
            limit_bytes: moment.limit,
            groups: moment
                .groups
                .iter()
                .filter_map(|member| {
                    let id = of(member.number)?.id;
                    Some(GroupAt { id, count: member.count, bytes: member.bytes })
                })
                .collect(),
        };
        timeline.push_point(&point, |id| by_id.get(&id).map(|group| (*group).clone()));
    }
    Ok(timeline)
}

/// When the oldest and the latest moment are, in milliseconds.
pub(super) fn span(database: &Database) -> Result<Option<(u64, u64)>, Error> {
    let read = database.begin_read()?;
    let points = read.open_table(POINTS)?;
    let mut span: Option<(u64, u64)> = None;
    for entry in read.open_table(TARGETS)?.iter()? {
        let number = entry?.1.value();
        let mut range = points.range((number, 0)..=(number, u64::MAX))?;
        let first = range.next().transpose()?.map(|(key, _)| key.value().1);
        let last = range.next_back().transpose()?.map(|(key, _)| key.value().1).or(first);
        if let (Some(first), Some(last)) = (first, last) {
            let (oldest, latest) = span.unwrap_or((first, last));
            span = Some((oldest.min(first), latest.max(last)));
        }
    }
    Ok(span)
}

/// Deletes some of what is older, and of the groups and targets that nothing names any more; false when nothing is left
/// to delete. In small transactions: each needs as much room as it changes.
pub(super) fn delete_before(database: &Database, known: &mut Known, millis: u64) -> Result<bool, Error> {
    known.forget();
    let write = begin(database)?;
    let mut left = DELETED;
    {
        let mut points = write.open_table(POINTS)?;
        let mut targets = write.open_table(TARGETS)?;
        let mut numbers = Vec::new();
        for entry in targets.iter()? {
            let (name, number) = entry?;
            numbers.push((name.value().to_owned(), number.value()));
        }
        for (name, number) in numbers {
            let mut old = Vec::new();
            for entry in points.range((number, 0)..(number, millis))?.take(left) {
                old.push(entry?.0.value());
            }
            left -= old.len();
            for key in old {
                points.remove(key)?;
            }
            if points.range((number, 0)..=(number, u64::MAX))?.next().is_none() {
                targets.remove(name.as_str())?;
            }
        }
        // Each group that a moment names was seen at most a step before it.
        let unseen = millis.saturating_sub(SEEN_STEP);
        let mut seen = write.open_table(SEEN)?;
        let mut old = Vec::new();
        for entry in seen.iter()? {
            let (number, what) = entry?;
            let (number, (at, id)) = (number.value(), what.value());
            if at < unseen && old.len() < left {
                old.push((number, id));
            }
        }
        left -= old.len();
        let mut groups = write.open_table(GROUPS)?;
        let mut numbers = write.open_table(NUMBERS)?;
        for (number, id) in old {
            seen.remove(number)?;
            groups.remove(number)?;
            numbers.remove(id)?;
        }
    }
    write.commit()?;
    Ok(left < DELETED)
}

/// Bytes of the file that are in use.
pub(super) fn used(database: &Database) -> Result<u64, Error> {
    let write = database.begin_write()?;
    let stats = write.stats()?;
    let used = stats.allocated_pages().saturating_mul(stats.page_size() as u64);
    write.abort()?;
    Ok(used)
}
