//! What a language says of the names in its programs: the trait, and the words it answers in.
//!
//! Pure. A language never fails: what it does not know it judges as the most harmless that it may be.

use crate::sample::{Frame, GroupState, WaitReason};

/// What members of a group wait for, as far as it matters how long to watch them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// Only another member can end it, and it was expected to: sends, locks, nil channels, wait groups.
    Hard,
    /// May be the normal rest of something long-lived: receives, selects, conditions, futexes.
    Soft,
    /// A peer or the clock can end it: network, sleep, system calls, or workers that take turns.
    Peer,
    /// Not waiting.
    Runs,
}

/// Whose code a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The program's own.
    Own,
    /// Of a library whose source came with the program's.
    Dependency,
    /// Of what every program in the language has.
    Standard,
    /// Of that, what every wait goes through: it says how it waits, not for what.
    Plumbing,
}

/// The parts of a function's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope<'f> {
    /// `net/http` of `net/http.(*conn).serve`; absent where names do not tell.
    pub package: Option<&'f str>,
    /// `pkg.(*Type)` of `pkg.(*Type).Method`; absent for plain functions.
    pub receiver: Option<&'f str>,
    /// The function a closure was written in: `main.handle` of `main.handle.func1.2`. Else the function itself.
    pub enclosing: &'f str,
}

/// What names and wait reasons mean in programs of one kind.
pub(crate) trait Language: Sync {
    /// As people write it, where its runtime has a heap of its own: `Go`.
    fn name(&self) -> &'static str;

    /// One member, in words and in metrics: `goroutine`.
    fn noun(&self) -> &'static str;

    /// The frame is code in this language, by where its source lies.
    fn wrote(&self, frame: &Frame) -> bool;

    /// How members in `state`, which wait for `reason`, are to be watched.
    fn wait(&self, state: &GroupState, reason: &WaitReason) -> Wait;

    /// How directly what a group waits for says that somebody is missing: less is more. `wait` is that of its state
    /// and reason.
    fn severity(&self, wait: Wait, reason: &WaitReason) -> u8;

    /// The wait ends by itself.
    fn sleeps(&self, reason: &WaitReason) -> bool;

    /// Members that run and wait again, all on one object, may be workers that take turns.
    fn takes_turns(&self, wait: Wait) -> bool;

    /// A lock whose type's methods are one piece of code.
    fn is_lock(&self, reason: &WaitReason) -> bool;

    /// Whoever is connected may still speak.
    fn is_connection(&self, reason: &WaitReason) -> bool;

    /// A wait that the end of what the member itself started can end.
    fn waits_for_started(&self, reason: &WaitReason) -> bool;

    /// Why a group that only grows may still be healthy.
    fn why_patience(&self, reason: &WaitReason) -> &'static str;

    fn origin(&self, frame: &Frame) -> Origin;

    /// Part of an allocator, or of what fills memory that it gave: never who asked for the memory.
    fn allocates(&self, _: &Frame) -> bool {
        false
    }

    /// How many of the innermost frames of a blocked stack are the language's library, where only their names tell, and
    /// only there.
    fn linked_in(&self, _: &[Frame]) -> usize {
        0
    }

    fn scope<'f>(&self, function: &'f str) -> Scope<'f>;

    /// It starts members for whoever calls it: having it in common says nothing.
    fn starts_for_others(&self, _function: &str) -> bool {
        false
    }

    /// Every request passes through it.
    fn dispatches(&self, _function: &str) -> bool {
        false
    }
}
