//! Who imports whom, read off the source: the arrows between rooms that ARCHITECTURE.md allows, and no circle between
//! files.
//!
//! Reads `use` lines and paths, without a parser. Test modules are left out: they may look anywhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::invariants::{in_module, sources};

/// Each room with those that it may import, bottom up. A room that is not here may not be there.
const ARROWS: [(&str, &[&str]); 24] = [
    ("sample", &[]),
    ("format", &[]),
    ("trust", &[]),
    ("systemd", &[]),
    ("language", &["sample"]),
    ("process", &["sample"]),
    ("kernel", &["process", "sample"]),
    ("symbol", &["process", "sample"]),
    ("unwind", &["process", "sample", "symbol"]),
    ("memory", &["kernel", "process", "sample", "symbol", "unwind"]),
    ("runtime", &["language", "process", "sample", "symbol"]),
    ("threads", &["kernel", "language", "memory", "process", "sample", "symbol", "unwind"]),
    ("diagnose", &["format", "language", "sample"]),
    (
        "observe",
        &[
            "diagnose", "format", "kernel", "language", "memory", "process", "runtime", "sample", "symbol",
            "threads", "unwind",
        ],
    ),
    ("timeline", &["sample"]),
    ("escape", &[]),
    ("error_line", &["escape"]),
    ("board", &["diagnose", "sample", "timeline"]),
    (
        "tell",
        &["board", "diagnose", "error_line", "escape", "format", "language", "sample", "timeline", "trust"],
    ),
    ("select", &["error_line", "escape", "process", "sample", "trust"]),
    ("config", &["process", "select", "tell"]),
    (
        "daemon",
        &[
            "board",
            "config",
            "diagnose",
            "error_line",
            "kernel",
            "observe",
            "process",
            "sample",
            "select",
            "systemd",
            "tell",
            "timeline",
        ],
    ),
    (
        "command",
        &[
            "config",
            "daemon",
            "diagnose",
            "error_line",
            "escape",
            "format",
            "kernel",
            "language",
            "observe",
            "process",
            "sample",
            "tell",
            "timeline",
        ],
    ),
    ("lib", &[]),
];

/// A source file with what of it counts.
struct Source {
    /// `threads/locks/words.rs`.
    name: String,
    /// `["threads", "locks", "words"]`.
    module: Vec<String>,
    code: String,
}

/// All files of the library.
fn files() -> Vec<Source> {
    let read = |(name, path): (String, std::path::PathBuf)| {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let module = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        Source { module, code: without_tests(&lines.collect::<Vec<_>>().join("\n")).to_owned(), name }
    };
    let is_code = |name: &str| !matches!(name, "lib.rs" | "main.rs") && !name.ends_with("/tests.rs");
    sources("observer").into_iter().filter(|(name, _)| is_code(name)).map(read).collect()
}

/// Up to the test module, which is the last thing in a file.
fn without_tests(code: &str) -> &str {
    let begins =
        |line: &str| line == "mod tests {" || (line.starts_with("pub") && line.ends_with(" mod tests {"));
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        if begins(line.trim_end()) {
            return &code[..at];
        }
        at += line.len();
    }
    code
}

/// The paths that a `use` tree stands for: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths(part.trim())).map(|path| format!("{}{path}", before.trim())).collect()
}

/// Every path that a file names, in `use` lines and elsewhere, by where it begins: `crate`, `super`, `self` or one of
/// the file's own modules.
fn named(source: &Source) -> BTreeSet<Vec<String>> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let begins = !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if let Some((tree, _)) = code[at + 4..].split_once(';').filter(|_| begins) {
            found.extend(paths(&tree.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    let beside: String = code.split_inclusive(';').filter(|item| !is_import(item)).collect();
    let words = beside.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    found.extend(words.filter(|word| word.contains("::") && !word.ends_with("::")).map(str::to_owned));
    let children: BTreeSet<&str> = code
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "))
        .map(|(_, name)| name)
        .collect();
    let resolve = |path: String| {
        let mut parts = path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        let first = parts.next()?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => source.module.clone(),
            "super" => source.module[..source.module.len() - 1].to_vec(),
            child if children.contains(child) => [source.module.clone(), vec![first]].concat(),
            _ => return None,
        };
        for part in parts {
            if part == "super" {
                module.pop();
            } else {
                module.push(part);
            }
        }
        Some(module)
    };
    found.into_iter().filter_map(resolve).collect()
}

/// Whether a piece of code up to a `;` is a `use` item.
fn is_import(item: &str) -> bool {
    let last = item.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with("#["));
    last.is_some_and(|line| line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use ")))
}

/// For each file the files that it imports.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    let by_module: BTreeMap<&[String], &str> =
        files.iter().map(|file| (file.module.as_slice(), file.name.as_str())).collect();
    let mut imports = BTreeMap::new();
    for file in &files {
        // The file in which a name stands; a folder alone (`pub(in crate::threads)`) is none.
        let target = |path: Vec<String>| {
            let known = |length: &usize| by_module.get(&path[..*length]);
            let length = (1..=path.len()).rev().find(|length| known(length).is_some())?;
            (length < path.len()).then(|| by_module[&path[..length]].to_owned())
        };
        let targets: BTreeSet<String> =
            named(file).into_iter().filter_map(target).filter(|target| *target != file.name).collect();
        imports.insert(file.name.clone(), targets);
    }
    imports
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

#[test]
fn arrows_between_rooms_are_those_of_the_plan() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for (file, targets) in imports() {
        let Some(allowed) = allowed.get(room(&file)) else {
            wrong.push(format!("{file}: a room that the table does not have"));
            continue;
        };
        let others = targets.iter().filter(|target| room(target) != room(&file));
        wrong.extend(
            others.filter(|target| !allowed.contains(&room(target))).map(|to| format!("{file} -> {to}")),
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The table itself leads one way.
#[test]
fn rooms_form_no_circle() {
    let arrows: BTreeMap<String, BTreeSet<String>> = ARROWS
        .into_iter()
        .map(|(from, to)| (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect()))
        .collect();
    assert_eq!(circles(&arrows), Vec::<BTreeSet<String>>::new());
}

#[test]
fn files_form_no_circle() {
    let imports = imports();
    let shown: Vec<String> = circles(&imports)
        .iter()
        .map(|circle| {
            let arrows = circle.iter().map(|file| {
                let inside: Vec<&str> = imports[file].intersection(circle).map(String::as_str).collect();
                format!("  {file} -> {}", inside.join(", "))
            });
            arrows.collect::<Vec<_>>().join("\n")
        })
        .collect();
    assert!(shown.is_empty(), "\n{}", shown.join("\n\n"));
}

/// The largest sets in which each can be reached from each other.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = arrows
        .keys()
        .map(|from| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![from.as_str()]);
            while let Some(at) = left.pop() {
                let next = arrows.get(at).into_iter().flatten().map(String::as_str);
                left.extend(next.filter(|to| seen.insert(*to)));
            }
            (from.as_str(), seen)
        })
        .collect();
    let mut found: BTreeSet<BTreeSet<String>> = BTreeSet::new();
    for (from, to) in reached.iter().filter(|(from, to)| to.contains(*from)) {
        let back =
            to.iter().filter(|other| reached.get(*other).is_some_and(|reached| reached.contains(from)));
        found.insert(back.map(|name| (*name).to_owned()).collect());
    }
    found.into_iter().collect()
}

#[test]
fn the_look_sees_every_way_to_name_a_file() {
    let trees = paths("crate::{a::{self, B}, c as d}");
    assert_eq!(trees, ["crate::a::self", "crate::a::B", "crate::c"]);
    let source = Source {
        name: "threads/locks.rs".to_owned(),
        module: vec!["threads".to_owned(), "locks".to_owned()],
        code: "mod words;\nuse super::{naming::Name, super::kernel::Y};\nwords::read(crate::sample::lose)"
            .to_owned(),
    };
    let named: Vec<String> = named(&source).into_iter().map(|path| path.join("/")).collect();
    assert_eq!(named, ["kernel/Y", "sample/lose", "threads/locks/words/read", "threads/naming/Name"]);
    assert_eq!(without_tests("a\n#[cfg(test)]\npub(super) mod tests {\nb"), "a\n#[cfg(test)]\n");
    assert_eq!(without_tests("mod tests;\nb"), "mod tests;\nb");
    let arrows = [("a", "b"), ("b", "c"), ("c", "b")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])));
    assert_eq!(circles(&arrows.into()), [BTreeSet::from(["b".to_owned(), "c".to_owned()])]);
    assert!(imports()["threads.rs"].contains("sample.rs") && in_module("threads/locks.rs", "threads"));
}
