//! Deadlocks on the page: the sentence, then each thread with its stack.

use super::Page;
use crate::diagnose::Deadlock;
use crate::format;
use crate::sample::DeadlockedThread;

/// Deadlocks whose stacks are shown.
const SHOWN: usize = 3;
/// Threads of a circle whose stacks are shown.
const THREADS: usize = 4;

impl Page {
    /// Before everything but the verdict: nothing goes on where these threads are.
    pub(super) fn deadlocks(&mut self, deadlocks: &[Deadlock]) {
        for (rank, deadlock) in deadlocks.iter().enumerate() {
            self.raw("");
            let word = "DEADLOCK";
            let painted = self.style.alarm(word);
            self.hanging(&painted, word.len() + 2, &format!("{}.", deadlock.description));
            if rank >= SHOWN {
                continue;
            }
            for thread in deadlock.threads.iter().take(THREADS) {
                self.deadlocked(thread);
            }
            let more = deadlock.length.saturating_sub(THREADS as u64);
            if more > 0 {
                self.field("", &format!("… {} more", format::counted(more, "thread")));
            }
        }
    }

    fn deadlocked(&mut self, thread: &DeadlockedThread) {
        let name = if thread.name.is_empty() { String::new() } else { format!("{}, ", thread.name) };
        let waited = match format::duration(thread.wait_seconds).as_str() {
            "0 s" => String::new(),
            waited => format!(" for {waited}"),
        };
        let words = format!("{name}in {}{waited}, waits for thread {}", thread.wait_reason, thread.held_by);
        self.field(&format!("thread {}", thread.tid), &words);
        self.frames(&thread.frames, "", "");
    }
}
