//! Which language runtime a process runs, where that can be told without asking it: Java, Python, Node, Ruby, .NET by
//! what is mapped, Rust and C++ by what the compiler left in the executable. (Go is told by its own reader.)
//!
//! Reads the memory map, and of one file what says its version; runs nothing. A version that is not written where the
//! runtime itself keeps it is not told. 0.1 ms, for Node up to 15 ms: its version stands among its constants.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use memchr::memmem;
use object::read::ReadCache;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::process::maps::{self, Mapping};
use crate::sample::Runtime;

/// Sections larger than this are not read.
const MAX_SECTION: u64 = 128 << 20;
const MAX_COMMENT: u64 = 64 << 10;
const MAX_RELEASE_FILE: u64 = 16 << 10;
const MAX_DYNAMIC_SYMBOLS: u64 = 32 << 20;
const MAX_VERSION: usize = 32;
/// Read at a time, when constants are searched.
const CHUNK: usize = 1 << 20;

/// The runtime of a process that is no Go program; `native` where none is known.
pub(crate) fn of(pid: u32) -> Runtime {
    let maps = maps::read(pid).unwrap_or_default();
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let exe = exe.to_string_lossy();
    let (name, version) =
        by_library(pid, &maps, file_name(&exe)).unwrap_or_else(|| match rust_version(pid) {
            Some(version) => ("rust", Some(version)),
            None if maps.iter().any(|mapping| is_cpp(file_name(&mapping.path))) => ("c++", None),
            None => ("native", None),
        });
    Runtime { name: name.to_owned(), version, stripped: false }
}

fn by_library(pid: u32, maps: &[Mapping], exe: &str) -> Option<(&'static str, Option<String>)> {
    let mapped = |is: fn(&str) -> bool| {
        maps.iter().filter(|mapping| mapping.is_file()).find(|mapping| is(file_name(&mapping.path)))
    };
    if let Some(jvm) = mapped(|name| name == "libjvm.so") {
        return Some(("java", java_version(pid, &jvm.path)));
    }
    if let Some(core) = mapped(|name| name == "libcoreclr.so") {
        // /usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.1/libcoreclr.so
        let version = Path::new(&core.path).parent().and_then(Path::file_name);
        return Some(("dotnet", version.and_then(|version| number(&version.to_string_lossy()))));
    }
    if let Some(python) = mapped(|name| name.starts_with("libpython")) {
        let file = open(pid, &python.path);
        let named = file_name(&python.path).strip_prefix("libpython").and_then(number);
        return Some(("python", file.and_then(|file| python_version(&file)).or(named)));
    }
    if let Some(rest) = exe.strip_prefix("python").filter(|rest| rest.is_empty() || number(rest).is_some()) {
        let file = File::open(format!("/proc/{pid}/exe")).ok();
        return Some(("python", file.and_then(|file| python_version(&file)).or_else(|| number(rest))));
    }
    if matches!(exe, "node" | "nodejs") || mapped(|name| name.starts_with("libnode.so")).is_some() {
        let library = mapped(|name| name.starts_with("libnode.so"));
        let file = match library {
            Some(library) => open(pid, &library.path),
            None => File::open(format!("/proc/{pid}/exe")).ok(),
        };
        return Some(("node", file.and_then(|file| node_version(&file))));
    }
    if let Some(ruby) = mapped(|name| name.starts_with("libruby")) {
        // libruby-3.1.so.3.1.2
        let version = file_name(&ruby.path).rsplit_once(".so.").and_then(|(_, version)| number(version));
        return Some(("ruby", version));
    }
    None
}

fn file_name(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path).rsplit('/').next().unwrap_or_default()
}

fn is_cpp(name: &str) -> bool {
    name.starts_with("libstdc++.so") || name.starts_with("libc++.so")
}

/// A file of the target: what stands at a path there may be anything, so it is opened without waiting.
fn open(pid: u32, path: &str) -> Option<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(format!("/proc/{pid}/root{path}")).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// The number that a text begins with: `3.11` of `3.11.so.1.0`.
fn number(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].trim_end_matches('.');
    (number.starts_with(|c: char| c.is_ascii_digit()) && number.len() <= MAX_VERSION)
        .then(|| number.to_owned())
}

/// The `release` file at the root of every Java runtime says which it is: `JAVA_VERSION="17.0.15"`.
fn java_version(pid: u32, jvm: &str) -> Option<String> {
    let mut text = String::new();
    let home = Path::new(jvm).ancestors().skip(3).take(3);
    let file = home.filter_map(|home| open(pid, home.join("release").to_str()?)).next()?;
    file.take(MAX_RELEASE_FILE).read_to_string(&mut text).ok()?;
    let version = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    number(version.trim_matches('"'))
}

/// `Py_Version` of Python 3.11 and later: 0x030b07f0 is 3.11.7.
fn python_version(file: &File) -> Option<String> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    if elf.section_by_name(".dynsym")?.size() > MAX_DYNAMIC_SYMBOLS {
        return None;
    }
    let symbol = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok("Py_Version"))?;
    let section = elf.section_by_index(symbol.section_index()?).ok()?;
    let bytes = section.data_range(symbol.address(), 4).ok()??;
    let version = u32::from_le_bytes(bytes.try_into().ok()?);
    let [major, minor, micro, _] = version.to_be_bytes();
    (major == 3).then(|| format!("{major}.{minor}.{micro}"))
}

/// Node keeps the address of its own source: `https://nodejs.org/download/release/v20.20.2/node-v20.20.2.tar.gz`.
fn node_version(file: &File) -> Option<String> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    let section = elf.section_by_name(".rodata")?;
    let (start, size) = section.file_range()?;
    let end = start.checked_add(size.min(MAX_SECTION))?;
    let (finder, mut bytes, mut at) = (memmem::Finder::new(b"/node-v"), vec![0; CHUNK + 64], start);
    while at < end {
        let read = file.read_at(&mut bytes, at).ok().filter(|&read| read > 0)?;
        if let Some(place) = finder.find(&bytes[..read]) {
            let version = bytes.get(place + 7..)?.get(..MAX_VERSION.min(read.saturating_sub(place + 7)))?;
            return number(&String::from_utf8_lossy(version));
        }
        // What lies across two reads is whole in one of them.
        at += CHUNK as u64;
    }
    None
}

/// What rustc writes into `.comment`: `rustc version 1.95.0 (59807616e 2026-04-14)`.
fn rust_version(pid: u32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/exe")).ok()?;
    let cache = ReadCache::new(&file);
    let elf = object::File::parse(&cache).ok()?;
    let comment = elf.section_by_name(".comment").filter(|section| section.size() <= MAX_COMMENT)?;
    let text = String::from_utf8_lossy(comment.data().ok()?).into_owned();
    number(text.split("rustc version ").nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_itself() {
        let runtime = of(std::process::id());
        assert_eq!(runtime.name, "rust");
        assert!(runtime.version.unwrap().starts_with("1."));
    }

    #[test]
    fn versions_in_names() {
        assert_eq!(number("3.11.so.1.0").as_deref(), Some("3.11"));
        assert_eq!(number("3").as_deref(), Some("3"));
        for none in ["", ".", "x3", "-1", &"1".repeat(99)] {
            assert_eq!(number(none), None, "{none}");
        }
        assert_eq!(file_name("/usr/lib/libjvm.so (deleted)"), "libjvm.so");
        assert_eq!(file_name(""), "");
    }

    #[test]
    fn files_that_are_none_say_nothing() {
        let mut torn = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut torn, &std::fs::read("/proc/self/exe").unwrap()[..3000]).unwrap();
        assert_eq!((python_version(&torn), node_version(&torn)), (None, None));
        assert!(open(std::process::id(), "/dev/zero").is_none(), "no plain file");
    }
}
