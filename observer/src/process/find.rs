//! From what a user types, a pid or a name, to one process.
//!
//! Reads `/proc`; a process that vanishes or may not be read on the way is passed over.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use thiserror::Error;

use super::files::read_some;
use super::stat::Stat;
use super::status;

/// As many matches as a message lists.
const LISTED: usize = 12;

#[derive(Debug, Error)]
pub(crate) enum FindError {
    #[error("no process with pid {pid} in this PID namespace; `observer attach NAME` finds it by its name")]
    NoSuchPid { pid: u32 },
    #[error("{tid} is a thread of process {pid} ({name}): attach to {pid}")]
    Thread { tid: u32, pid: u32, name: String },
    #[error(
        "pid {pid} ({name}) is a kernel thread: it has no memory of its own to observe; choose a user process"
    )]
    KernelThread { pid: u32, name: String },
    #[error(
        "pid {pid} ({name}) has exited and waits for its parent {parent} to reap it: attach to its successor"
    )]
    Zombie { pid: u32, name: String, parent: u32 },
    #[error("pid {pid} is observer itself: choose another process")]
    Myself { pid: u32 },
    #[error("`{text}` is neither a pid (1 to 4194304) nor a name; `ps -e` lists both")]
    NotAPid { text: String },
    #[error(
        "no process is named `{name}` (looked at comm, at the executable and at argv[0]); `ps -e` lists all"
    )]
    NoMatch { name: String },
    #[error("{count} processes are named `{name}`; attach to one by its pid:{list}")]
    Several { name: String, count: usize, list: String },
    #[error("cannot read {path}: {source}; mount procfs there")]
    Proc { path: String, source: io::Error },
}

/// The pid that `selector`, a pid or a name, stands for.
pub(crate) fn find(selector: &str) -> Result<u32, FindError> {
    find_in(Path::new("/proc"), selector, std::process::id())
}

fn find_in(proc: &Path, selector: &str, myself: u32) -> Result<u32, FindError> {
    let digits = selector.strip_prefix(['-', '+']).unwrap_or(selector);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let pid = selector.parse::<u32>().ok().filter(|pid| (1..=1 << 22).contains(pid));
        let pid = pid.ok_or_else(|| FindError::NotAPid { text: selector.to_owned() })?;
        check(proc, pid, myself)?;
        return Ok(pid);
    }
    by_name(proc, selector, myself)
}

/// Refuses what cannot be observed, by name and with the way out.
fn check(proc: &Path, pid: u32, myself: u32) -> Result<(), FindError> {
    let stat = read_stat(proc, pid).ok_or(FindError::NoSuchPid { pid })?;
    let name = stat.to_string();
    // /proc/TID exists for threads too, though no listing shows it.
    if let Some(leader) = status::number(proc, pid, "Tgid:").filter(|&leader| leader != pid) {
        return Err(FindError::Thread { tid: pid, pid: leader, name });
    }
    if stat.is_kernel_thread() {
        return Err(FindError::KernelThread { pid, name });
    }
    if stat.is_dead() {
        return Err(FindError::Zombie { pid, name, parent: stat.parent });
    }
    if pid == myself {
        return Err(FindError::Myself { pid });
    }
    Ok(())
}

fn by_name(proc: &Path, name: &str, myself: u32) -> Result<u32, FindError> {
    let entries =
        fs::read_dir(proc).map_err(|source| FindError::Proc { path: proc.display().to_string(), source })?;
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| is_named(proc, pid, name) && check(proc, pid, myself).is_ok())
        .collect();
    pids.sort_unstable();
    match pids[..] {
        [] => Err(FindError::NoMatch { name: name.to_owned() }),
        [pid] => Ok(pid),
        _ => {
            let mut list = String::new();
            for &pid in pids.iter().take(LISTED) {
                let _ = write!(list, "\n  {pid:>7}  {}", command_line(proc, pid));
            }
            if pids.len() > LISTED {
                let _ = write!(list, "\n  and {} more", pids.len() - LISTED);
            }
            Err(FindError::Several { name: name.to_owned(), count: pids.len(), list })
        }
    }
}

fn is_named(proc: &Path, pid: u32, name: &str) -> bool {
    let file_name = |path: &str| path.rsplit('/').next().is_some_and(|file| file == name);
    if read_stat(proc, pid).is_some_and(|stat| stat.comm == name) {
        return true;
    }
    let exe = fs::read_link(proc.join(pid.to_string()).join("exe"));
    let same = |exe: &str| if name.contains('/') { exe == name } else { file_name(exe) };
    if exe.is_ok_and(|exe| same(exe.to_string_lossy().trim_end_matches(" (deleted)"))) {
        return true;
    }
    let arguments = read_some(&proc.join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let first = arguments.split(|&byte| byte == 0).next().unwrap_or_default();
    !first.is_empty() && file_name(&String::from_utf8_lossy(first))
}

/// The command line as one line to show, bounded.
pub(crate) fn command_line(proc: &Path, pid: u32) -> String {
    let bytes = read_some(&proc.join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let text = bytes.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    text.trim_end().chars().take(100).collect::<String>().escape_debug().to_string()
}

pub(crate) fn read_stat(proc: &Path, pid: u32) -> Option<Stat> {
    Stat::parse(&read_some(&proc.join(pid.to_string()).join("stat")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(root: &Path, pid: u32, comm: &str, state: char, flags: u64, arguments: &str) {
        let folder = root.join(pid.to_string());
        fs::create_dir(&folder).unwrap();
        let stat = format!("{pid} ({comm}) {state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n");
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("status"), format!("Name:\t{comm}\nTgid:\t{}\n", pid / 10 * 10)).unwrap();
        fs::write(folder.join("cmdline"), arguments.replace(' ', "\0")).unwrap();
    }

    #[test]
    fn refuses_each_with_its_remedy() {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path();
        process(proc, 10, "kthreadd", 'S', 0x0020_8040, "");
        process(proc, 20, "gone", 'Z', 0, "");
        process(proc, 30, "me", 'S', 0, "me");
        process(proc, 40, "web", 'S', 0, "/srv/web --port 80");
        process(proc, 41, "worker", 'S', 0, "/srv/web --port 80");
        let message = |selector: &str| find_in(proc, selector, 30).unwrap_err().to_string();
        assert!(message("10").contains("kernel thread"));
        assert!(message("20").contains("has exited"));
        assert!(message("30").contains("observer itself"));
        assert!(message("41").contains("a thread of process 40"));
        assert!(message("77").contains("no process with pid 77"));
        assert!(message("0").contains("neither a pid"));
        assert!(message("-5").contains("neither a pid") && message("").contains("neither a pid"));
        assert!(message("99999999999999").contains("neither a pid"));
        assert!(message("nobody").contains("no process is named `nobody`"));
        assert_eq!(find_in(proc, "40", 30).unwrap(), 40);
        assert_eq!(find_in(proc, "web", 30).unwrap(), 40);
    }

    #[test]
    fn several_are_listed() {
        let root = tempfile::tempdir().unwrap();
        for pid in 1..=20 {
            process(root.path(), pid * 10, "web", 'S', 0, "/srv/web -x\x1b[31m");
        }
        let message = find_in(root.path(), "web", 1).unwrap_err().to_string();
        assert!(message.contains("20 processes") && message.contains("and 8 more"), "{message}");
        assert!(!message.contains('\x1b'), "a command line is not to be trusted on a terminal");
    }
}
