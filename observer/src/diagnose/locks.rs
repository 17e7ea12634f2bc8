//! Who holds a lock, and who waits in a circle, in sentences.
//!
//! Takes a sample that is whole, and fills in `owner` and `description`, which are kept with it: the last thing before it
//! is recorded, shown or judged. Nobody reads them again but people. Names are as the target gave them: whoever
//! prints a sentence escapes it.

use super::site;
use crate::format::{count, counted};
use crate::sample::{Deadlock, DeadlockedThread, Holder, HolderState, ObjectKind, Sample};

/// Threads of a circle that its sentence tells of.
const TOLD: usize = 3;

/// Says in words what a sample knows of locks.
pub fn tell(sample: &mut Sample) {
    for group in &mut sample.groups {
        if let Some(on) = &mut group.waits_on
            && !on.holders.is_empty()
        {
            on.owner = Some(holders(&on.holders));
        }
    }
    for deadlock in &mut sample.deadlocks {
        for thread in &mut deadlock.threads {
            thread.site = site::place_of_thread(&thread.frames);
        }
        deadlock.description = deadlock_sentence(deadlock);
    }
}

fn holders(all: &[Holder]) -> String {
    let Some(first) = all.first() else { return String::new() };
    let words = holder(first);
    let more: Vec<String> = all.iter().skip(1).map(thread_of_holder).collect();
    match more.len() {
        0 => words,
        _ => format!("{words}; others by {}", more.join(", ")),
    }
}

fn thread_of_holder(holder: &Holder) -> String {
    thread(holder.tid, &holder.name)
}

/// `thread 4243 (flusher), which waits in read() at flush_log log.c:88`.
fn holder(holder: &Holder) -> String {
    let who = thread_of_holder(holder);
    let at = site::place_of_thread(&holder.frames)
        .map(|place| format!(" at {}", site::words(&place)))
        .unwrap_or_default();
    match (&holder.state, &holder.waits_in) {
        (HolderState::Running, _) if at.is_empty() => format!("{who}, which is running"),
        (HolderState::Running, _) => format!("{who}, which is running, lately{at}"),
        (HolderState::Stopped, _) => format!("{who}, which is stopped{at}"),
        (HolderState::Ended, _) => format!("{who}, which has ended and not given it back"),
        (HolderState::Elsewhere, _) => match holder.process {
            Some(process) => format!("{who} of process {process}, which is not observed"),
            None => format!(
                "{who}, which is no thread of this process: it has ended, or had the lock when the process was forked"
            ),
        },
        (_, Some(reason)) => match holder.waits_for {
            Some(other) if other == holder.tid => {
                format!("{who}, which waits for itself in {}{at}", call(reason))
            }
            Some(other) => format!("{who}, which waits for thread {other} in {}{at}", call(reason)),
            None => format!("{who}, which waits in {}{at}", call(reason)),
        },
        (_, None) => format!("{who}, which sleeps{at}"),
    }
}

/// Reasons are words; a system call is one, and is shown as a call.
fn call(reason: &str) -> String {
    let is_call = !reason.is_empty()
        && reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_call { format!("{reason}()") } else { reason.to_owned() }
}

fn thread(tid: u32, name: &str) -> String {
    if name.is_empty() { format!("thread {tid}") } else { format!("thread {tid} ({name})") }
}

fn deadlock_sentence(deadlock: &Deadlock) -> String {
    let threads = &deadlock.threads;
    let mut words = match threads.as_slice() {
        [] => format!("{} wait for each other", counted(deadlock.length, "thread")),
        [one] if deadlock.length <= 1 => {
            format!("{}{} waits for {} that it has itself", thread(one.tid, &one.name), at(one), thing(one))
        }
        [first, ..] => {
            let mut words = String::new();
            for (place, one) in threads.iter().take(TOLD).enumerate() {
                let begin = if place == 0 { thread(one.tid, &one.name) } else { ", which".to_owned() };
                words.push_str(&format!("{begin}{} waits for ", at(one)));
                let back = one.held_by == first.tid;
                let name =
                    threads.iter().find(|other| other.tid == one.held_by && !back).map_or("", |o| &o.name);
                words.push_str(&match one.waits_for {
                    ObjectKind::Thread => format!("the end of {}", thread(one.held_by, name)),
                    _ => format!("{} of {}", thing(one), thread(one.held_by, name)),
                });
            }
            if deadlock.length > TOLD as u64 {
                words.push_str(&format!(", and so on in a circle of {}", counted(deadlock.length, "thread")));
            }
            words
        }
    };
    match deadlock.also_waiting {
        0 => {}
        1 => words.push_str("; 1 more thread waits for them"),
        more => words.push_str(&format!("; {} more threads wait for them", count(more))),
    }
    words
}

fn at(thread: &DeadlockedThread) -> String {
    thread.site.as_ref().map(|place| format!(" at {}", site::words(place))).unwrap_or_default()
}

fn thing(thread: &DeadlockedThread) -> String {
    format!(
        "the {} {:#x}",
        if thread.waits_for.is_empty() { "lock" } else { &thread.waits_for },
        thread.address
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Frame, Group, WaitsOn};

    fn frames(function: &str, line: u32) -> std::sync::Arc<[Frame]> {
        let library = Frame {
            function: "pthread_mutex_lock".to_owned(),
            module: Some("libc.so.6".to_owned()),
            ..Frame::default()
        };
        let own = Frame {
            function: function.to_owned(),
            file: Some("/src/shop.c".to_owned()),
            line: Some(line),
            module: Some("shop".to_owned()),
            ..Frame::default()
        };
        [library, own].into()
    }

    fn owner(holder: Holder) -> String {
        let on = WaitsOn { holders: vec![holder], ..WaitsOn::default() };
        let mut sample =
            Sample { groups: vec![Group { waits_on: Some(on), ..Group::default() }], ..Sample::default() };
        tell(&mut sample);
        sample.groups[0].waits_on.as_ref().unwrap().owner.clone().unwrap()
    }

    #[test]
    fn what_an_owner_does() {
        let holder = |state: &str, waits_in: Option<&str>, waits_for| Holder {
            tid: 4243,
            name: "flusher".to_owned(),
            state: state.into(),
            waits_in: waits_in.map(Into::into),
            waits_for,
            frames: frames("flush_log", 88),
            ..Holder::default()
        };
        for (holder, words) in [
            (holder("sleeping", Some("read"), None), "waits in read() at flush_log shop.c:88"),
            (
                holder("sleeping", Some("mutex lock"), Some(7)),
                "waits for thread 7 in mutex lock at flush_log shop.c:88",
            ),
            (holder("running", None, None), "is running, lately at flush_log shop.c:88"),
            (holder("ended", None, None), "has ended and not given it back"),
        ] {
            assert_eq!(owner(holder), format!("thread 4243 (flusher), which {words}"));
        }
        let elsewhere = Holder { tid: 9, state: HolderState::Elsewhere, ..Holder::default() };
        assert!(
            owner(elsewhere.clone())
                .starts_with("thread 9, which is no thread of this process: it has ended")
        );
        let known = Holder { process: Some(8), name: "x".to_owned(), ..elsewhere };
        assert_eq!(owner(known), "thread 9 (x) of process 8, which is not observed");
    }

    fn sentence(circle: &[(u32, &str)], also_waiting: u64) -> String {
        let next = circle.iter().cycle().skip(1);
        let threads = circle.iter().zip(next).map(|((tid, waits_for), (held_by, _))| DeadlockedThread {
            tid: *tid,
            name: format!("n{tid}"),
            waits_for: (*waits_for).into(),
            address: 0x1000 + u64::from(*tid),
            held_by: *held_by,
            frames: frames(&format!("take_{tid}"), *tid),
            ..DeadlockedThread::default()
        });
        let deadlock = Deadlock {
            threads: threads.collect(),
            length: circle.len() as u64,
            also_waiting,
            ..Deadlock::default()
        };
        let mut sample = Sample { deadlocks: vec![deadlock], ..Sample::default() };
        tell(&mut sample);
        sample.deadlocks.remove(0).description
    }

    #[test]
    fn circles_of_every_length() {
        assert_eq!(
            sentence(&[(1, "mutex"), (2, "mutex")], 14),
            "thread 1 (n1) at take_1 shop.c:1 waits for the mutex 0x1001 of thread 2 (n2), which at take_2 shop.c:2 \
             waits for the mutex 0x1002 of thread 1; 14 more threads wait for them"
        );
        assert_eq!(
            sentence(&[(5, "mutex")], 0),
            "thread 5 (n5) at take_5 shop.c:5 waits for the mutex 0x1005 that it has itself"
        );
        assert_eq!(
            sentence(&[(1, "thread"), (2, "mutex")], 1),
            "thread 1 (n1) at take_1 shop.c:1 waits for the end of thread 2 (n2), which at take_2 shop.c:2 waits for \
             the mutex 0x1002 of thread 1; 1 more thread waits for them"
        );
        let many: Vec<(u32, &str)> = (1..=9).map(|tid| (tid, "mutex")).collect();
        let long = sentence(&many, 0);
        assert!(long.ends_with("of thread 4 (n4), and so on in a circle of 9 threads"), "{long}");
        assert_eq!(sentence(&[], 3), "0 threads wait for each other; 3 more threads wait for them");
    }
}
