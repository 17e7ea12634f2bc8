//! What names and wait reasons mean, a file a language: whose code a frame is, what a wait says of who waits.
//!
//! Pure, and knows nothing of how a target is read: whoever groups, diagnoses or tells may ask. A language is added by
//! its file and a line in [`of`] and [`KINDS`].

mod go;
mod interface;
pub(crate) mod native;

pub(crate) use interface::{Language, Origin, Scope, Wait};

use crate::sample::{Frame, GroupKind};

/// Every kind of member, in the order in which a sentence about all of them names them.
pub(crate) const KINDS: [GroupKind; 2] = [GroupKind::Goroutine, GroupKind::Thread];

/// The language that members of a kind are written in.
pub(crate) fn of(kind: GroupKind) -> &'static dyn Language {
    match kind {
        GroupKind::Goroutine => &go::Go,
        GroupKind::Thread => &native::Native,
    }
}

/// The language of one frame: a stack may cross from one into another.
pub(crate) fn of_frame(frame: &Frame) -> &'static dyn Language {
    KINDS.map(of).into_iter().find(|language| language.wrote(frame)).unwrap_or(&native::Native)
}

/// Whatever can be blocked, in a sentence about all of it: `goroutines or threads`.
pub(crate) fn members(joined: &str) -> String {
    KINDS.map(|kind| format!("{}s", of(kind).noun())).join(&format!(" {joined} "))
}
