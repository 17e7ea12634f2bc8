//! The invariants of ARCHITECTURE.md that can be read off the source: who imports whom, where unsafe is.
//!
//! A line-based look, without a parser: it errs to the strict side.

use std::fs;
use std::path::{Path, PathBuf};

/// Code lines of a file, without comments, with their numbers.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned());
    lines.enumerate().map(|(index, line)| (index + 1, line)).collect()
}

/// Every source file of a crate's `src`, by its path relative to that.
pub(crate) fn sources(crate_name: &str) -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_name).join("src");
    let mut found = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push((name, path));
            }
        }
    }
    assert!(!found.is_empty(), "no sources of {crate_name}");
    found.sort();
    found
}

/// `diagnose` is `diagnose.rs` and all under `diagnose/`.
pub(crate) fn in_module(file: &str, module: &str) -> bool {
    file.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// A word, not a part of one.
fn mentions(line: &str, wanted: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(wanted).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(inner)
            && !line[at + wanted.len()..].chars().next().is_some_and(inner)
    })
}

/// Names after `crate::` on a line, also those in `crate::{a, b::c}`.
fn imports(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let inner = rest.strip_prefix('{').map_or(rest, |braced| braced.split('}').next().unwrap_or(braced));
        let parts: Vec<&str> = if rest.starts_with('{') { inner.split(',').collect() } else { vec![inner] };
        names.extend(parts.iter().map(|part| {
            part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        }));
    }
    names
}

/// Lines of a module that import one of the others.
fn wrong_imports(module: &str, forbidden: &[&str]) -> Vec<String> {
    let files: Vec<_> = sources("observer").into_iter().filter(|(name, _)| in_module(name, module)).collect();
    assert!(!files.is_empty(), "there is no module {module}");
    let mut wrong = Vec::new();
    for (name, path) in files {
        for (number, line) in code(&path) {
            if imports(&line).iter().any(|import| forbidden.contains(&import.as_str())) {
                wrong.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    wrong
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn diagnose_knows_only_samples() {
    none(&wrong_imports(
        "diagnose",
        &[
            "kernel", "process", "runtime", "threads", "memory", "unwind", "symbol", "tell", "command",
            "observe",
        ],
    ));
}

/// Lines of a module that import something else of the crate than the modules named.
fn imports_beside(module: &str, allowed: &[&str]) -> Vec<String> {
    let files: Vec<_> = sources("observer").into_iter().filter(|(name, _)| in_module(name, module)).collect();
    assert!(!files.is_empty(), "there is no module {module}");
    let mut wrong = Vec::new();
    for (name, path) in files {
        for (number, line) in code(&path) {
            if imports(&line).iter().any(|import| !allowed.contains(&import.as_str())) {
                wrong.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    wrong
}

#[test]
fn samples_and_languages_are_at_the_bottom() {
    none(&imports_beside("sample", &["sample"]));
    none(&imports_beside("language", &["sample", "language"]));
    none(&imports_beside("diagnose", &["sample", "language", "format", "diagnose"]));
}

/// What belongs into `runtime/` and `language/`.
const RUNTIMES: [&str; 16] = [
    "go",
    "golang",
    "goroutine",
    "cgo",
    "tokio",
    "asyncio",
    "python",
    "cpython",
    "java",
    "jvm",
    "hotspot",
    "nodejs",
    "v8",
    "libuv",
    "ruby",
    "dotnet",
];

/// What this program itself is made with.
const LIBRARIES: [&str; 4] = ["tokio::", "tokio_rustls", "TokioIo", "TokioTimer"];

/// Rooms that treat all runtimes alike.
const FOR_ALL_RUNTIMES: [&str; 8] =
    ["observe", "threads", "diagnose", "timeline", "tell", "board", "format", "command"];

/// Files that may name one all the same, and why.
const NAME_A_RUNTIME: [(&str, &str); 3] = [
    ("threads/naming.rs", "functions of other people's libraries that threads wait in"),
    ("tell/metrics/families.rs", "names of metrics are fixed, and their help says what they count"),
    ("tell/alert/example.rs", "an example is about something"),
];

/// The words of a line, also those that identifiers are made of, in small letters.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in line.chars() {
        let begins = !before.is_alphanumeric() || before.is_lowercase() && c.is_uppercase();
        if c.is_alphanumeric() {
            if begins {
                words.push(String::new());
            }
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

#[test]
fn no_runtime_is_named_where_all_are_treated_alike() {
    let mut wrong = Vec::new();
    let rooms = |name: &str| FOR_ALL_RUNTIMES.iter().any(|module| in_module(name, module));
    let mut excused = std::collections::BTreeSet::new();
    for (name, path) in sources("observer").into_iter().filter(|(name, _)| rooms(name)) {
        let lines = code(&path).into_iter().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        for (number, line) in lines {
            let named = |word: &String| {
                RUNTIMES.iter().any(|runtime| word == runtime || word.strip_suffix('s') == Some(runtime))
            };
            let line = LIBRARIES.iter().fold(line, |line, library| line.replace(library, ""));
            if !words(&line).iter().any(named) {
                continue;
            }
            match NAME_A_RUNTIME.iter().find(|(file, _)| *file == name) {
                Some((file, _)) => drop(excused.insert(*file)),
                None => wrong.push(format!("{name}:{number}: {}", line.trim())),
            }
        }
    }
    none(&wrong);
    assert_eq!(excused.len(), NAME_A_RUNTIME.len(), "an exception that nothing needs any more: {excused:?}");
}

#[test]
fn diagnose_does_no_io_and_reads_no_clock() {
    let mut wrong = Vec::new();
    for (name, path) in sources("observer").into_iter().filter(|(name, _)| in_module(name, "diagnose")) {
        for (number, line) in code(&path) {
            let outside = [
                "std::fs",
                "std::net",
                "std::env",
                "std::process",
                "std::thread",
                "std::io",
                "libc::",
                "nix::",
            ];
            if outside.iter().any(|name| line.contains(name))
                || ["Instant", "SystemTime"].iter().any(|clock| mentions(&line, clock))
            {
                wrong.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    none(&wrong);
}

#[test]
fn tell_never_looks_behind_the_diagnosis() {
    none(&wrong_imports(
        "tell",
        &["kernel", "process", "runtime", "threads", "memory", "unwind", "symbol", "command", "observe"],
    ));
}

#[test]
fn collectors_do_not_know_their_readers() {
    none(&wrong_imports("observe", &["diagnose", "timeline", "board", "tell", "command", "daemon"]));
    for module in ["process", "kernel", "symbol", "unwind", "runtime", "threads", "memory"] {
        none(&wrong_imports(module, &["diagnose", "tell", "command", "observe"]));
    }
    none(&wrong_imports("process", &["kernel", "symbol", "unwind", "runtime", "threads", "memory"]));
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut wrong = Vec::new();
    for crate_name in ["observer", "observer-common", "xtask"] {
        for (name, path) in sources(crate_name) {
            let allowed = match crate_name {
                "observer" => in_module(&name, "kernel") || in_module(&name, "process/memory"),
                "observer-common" => name == "lib.rs", // `Pod` of the ABI types
                _ => false,
            };
            if allowed {
                continue;
            }
            for (number, line) in code(&path) {
                // The other one is a word of content security policies.
                if mentions(&line.replace("'unsafe-inline'", ""), "unsafe") {
                    wrong.push(format!("{crate_name}: {name}:{number}: {}", line.trim()));
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn modules_are_files_by_their_name() {
    for crate_name in ["observer", "observer-common", "observer-ebpf", "xtask"] {
        let wrong: Vec<String> = sources(crate_name)
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| {
                name.ends_with("mod.rs") || name.ends_with("utils.rs") || name.ends_with("util.rs")
            })
            .collect();
        none(&wrong);
    }
}

/// Every file of `tests/RING`, and whether it is one of a subject, which main.rs must name.
fn test_files(ring: &str) -> Vec<(PathBuf, bool)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(ring);
    let (mut found, mut left) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path, directory == root));
            }
        }
    }
    assert!(found.len() > 1, "no tests in {}", root.display());
    found
}

/// A file that no `mod` names is not compiled, and an ignored test of ring one would never run.
#[test]
fn every_test_runs_in_its_ring() {
    let mut wrong = Vec::new();
    for ring in ["unit", "root"] {
        let files = test_files(ring);
        let main = files.iter().find(|(path, _)| path.ends_with("main.rs")).expect("a main.rs");
        let main: Vec<_> = code(&main.0).into_iter().map(|(_, line)| line).collect();
        for (path, subject) in files {
            let name = path.file_stem().unwrap().to_str().unwrap();
            if subject && name != "main" && !main.contains(&format!("mod {name};")) {
                wrong.push(format!("{}: not in main.rs", path.display()));
            }
            let lines = code(&path);
            for (index, (number, line)) in lines.iter().enumerate() {
                let ignored = lines.get(index + 1).is_some_and(|(_, next)| next.starts_with("#[ignore = "));
                if line == "#[test]" && ignored != (ring == "root") {
                    wrong.push(format!("{}:{number}: ignored: {ignored}", path.display()));
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_look_itself_sees() {
    assert_eq!(imports("use crate::{kernel::Probes, sample::Sample};"), ["kernel", "sample"]);
    assert_eq!(imports("    crate::tell::report(x)"), ["tell"]);
    assert!(mentions("unsafe { x }", "unsafe"));
    assert!(!mentions("#![deny(unsafe_op_in_unsafe_fn)]", "unsafe"));
    assert!(in_module("kernel/sys.rs", "kernel") && in_module("kernel.rs", "kernel"));
    assert!(!in_module("kernels.rs", "kernel"));
    assert_eq!(
        words("GroupKind::Goroutine => heap_of_go(\"a Go_x\")"),
        ["group", "kind", "goroutine", "heap", "of", "go", "a", "go", "x"]
    );
}
