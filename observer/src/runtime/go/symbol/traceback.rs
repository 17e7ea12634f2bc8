//! Which frames a Go program's own goroutine dump shows, and by which names.
//!
//! The rules of `runtime/traceback.go` at its default level: wrappers and the runtime's own functions
//! are hidden, type arguments are shortened. Pure text, so it costs nothing to test.

/// A name as a dump prints it: `main.f[...]` for `main.f[go.shape.int]`, `panic` for `runtime.gopanic`.
pub(crate) fn printed_name(name: &str) -> String {
    if name == "runtime.gopanic" {
        return "panic".to_owned();
    }
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            let (before, after) = (name.get(..open), name.get(close + 1..));
            format!("{}[...]{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => name.to_owned(),
    }
}

/// Whether the dump shows a frame. `callee` is the function that it called, also one that is hidden.
pub(crate) fn shown(name: &str, is_wrapper: bool, is_innermost: bool, callee: &str) -> bool {
    if is_wrapper && !matches!(callee, "runtime.gopanic" | "runtime.sigpanic" | "runtime.panicwrap") {
        return false;
    }
    // Since 1.25 always shown, so that a finalizer's goroutine tells itself; before, only with what it calls.
    if matches!(name, "runtime.runFinalizers" | "runtime.runCleanups") {
        return true;
    }
    if name == "runtime.gopanic" && !is_innermost {
        return true;
    }
    name.contains('.') && (!name.starts_with("runtime.") || is_exported_by_runtime(name))
}

/// Functions that the kernel's signal, not a call, put onto the stack: the pc in their caller is exact.
pub(crate) fn is_injected(name: &str) -> bool {
    matches!(name, "runtime.sigpanic" | "runtime.asyncPreempt" | "runtime.debugCallV2")
}

fn is_exported_by_runtime(name: &str) -> bool {
    let Some(name) = name.strip_prefix("runtime.") else { return false };
    let upper = |text: &str| text.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
    match name.rsplit_once('.') {
        Some((receiver, method)) => {
            let receiver =
                receiver.strip_prefix("(*").and_then(|inner| inner.strip_suffix(')')).unwrap_or(receiver);
            upper(method) && (receiver.is_empty() || upper(receiver))
        }
        None => upper(name),
    }
}

/// Whether a goroutine that started in this function belongs to the runtime (`runtime.NumGoroutine` leaves it out).
pub(crate) fn is_system(start: &str) -> bool {
    start.starts_with("runtime.")
        && !matches!(start, "runtime.main" | "runtime.corostart" | "runtime.handleAsyncEvent")
}

/// Whether a goroutine that started in this function calls the program's finalizers or cleanups.
pub(crate) fn runs_finalizers(start: &str) -> bool {
    matches!(start, "runtime.runfinq" | "runtime.runFinalizers" | "runtime.runCleanups")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printed_as_the_runtime_prints_them() {
        assert_eq!(printed_name("main.f[go.shape.map[string]int]"), "main.f[...]");
        assert_eq!(printed_name("main.(*T[go.shape.int]).Do.func1"), "main.(*T[...]).Do.func1");
        assert_eq!(printed_name("main.odd]x["), "main.odd]x[");
        assert_eq!(printed_name("runtime.gopanic"), "panic");
    }

    #[test]
    fn frames_of_the_runtime_and_wrappers_are_hidden() {
        assert!(shown("main.main", false, true, ""));
        assert!(!shown("runtime.gopark", false, true, ""));
        assert!(shown("runtime.Gosched", false, true, ""));
        assert!(shown("runtime.(*Frames).Next", false, true, ""));
        assert!(!shown("runtime.(*timer).Next", false, true, ""));
        assert!(!shown("main.T.Do", true, false, "main.(*T).Do"));
        assert!(shown("main.T.Do", true, false, "runtime.panicwrap"));
        assert!(shown("runtime.gopanic", false, false, ""));
        assert!(!shown("runtime.gopanic", false, true, ""));
        assert!(!shown("cgocall", false, true, ""));
        assert!(is_system("runtime.bgsweep") && !is_system("runtime.main") && !is_system("main.runtime.x"));
    }
}
