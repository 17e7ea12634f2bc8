//! What groups of goroutines are called: states and wait reasons by the runtime's names, stacks as its own dump shows
//! them.
//!
//! Reads the target's function tables through [`GoSymbols`], a stack once. Some microseconds a stack.

use super::status;
use super::symbol::{GoSymbols, traceback};
use crate::runtime::tasks::report::Names;
use crate::sample::{Frame, GroupKind, Place};

pub(super) struct GoNames<'a> {
    pub symbols: &'a mut GoSymbols,
    /// `runtime.waitReasonStrings`, by number.
    pub reasons: &'a [String],
    /// The runtime's number for generated wrapper functions.
    pub wrapper_id: u8,
}

impl Names for GoNames<'_> {
    fn kind(&self) -> GroupKind {
        GroupKind::Goroutine
    }

    fn noun(&self) -> &'static str {
        "goroutine"
    }

    fn state(&self, status: u8) -> &'static str {
        status::name(u32::from(status))
    }

    fn reason(&self, reason: u8) -> String {
        if reason == 0 {
            return String::new();
        }
        match self.reasons.get(usize::from(reason)) {
            Some(name) => name.clone(),
            None => format!("wait reason {reason}"),
        }
    }

    /// A stack as the program's own dump shows it.
    fn frames(&mut self, stack: &[u64]) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut callee = String::new();
        let mut is_exact = false;
        for &pc in stack {
            let calls = self.symbols.locate(pc, is_exact);
            for call in calls.iter() {
                let is_wrapper = call.id == self.wrapper_id;
                let is_shown = traceback::shown(&call.function, is_wrapper, frames.is_empty(), &callee);
                callee.clone_from(&call.function);
                if is_shown {
                    frames.push(call.frame(pc));
                }
            }
            match calls.last() {
                // The last of them is the physical function.
                Some(function) => is_exact = traceback::is_injected(&function.function),
                None => {
                    frames.push(Frame { address: pc, ..Frame::default() });
                    is_exact = false;
                }
            }
        }
        frames
    }

    /// The function that holds the `go` statement.
    fn creator(&mut self, address: u64) -> Option<Place> {
        let creator = self.symbols.creator(address)?;
        let is_wrapper = creator.id == self.wrapper_id;
        traceback::shown(&creator.function, is_wrapper, false, "").then(|| Place {
            function: traceback::printed_name(&creator.function),
            file: creator.file,
            line: creator.line,
        })
    }
}
