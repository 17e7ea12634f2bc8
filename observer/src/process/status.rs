//! `/proc/PID/status`, a field of it (proc_pid_status(5)).

use std::path::Path;

use super::files::read_some;

/// The rest of the line that begins with `name`. The name of a process cannot begin one: the kernel escapes line ends
/// in it.
pub(crate) fn field<'t>(status: &'t [u8], name: &str) -> Option<&'t str> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
    str::from_utf8(line).ok().map(str::trim)
}

/// The first number of a field of a process.
pub(crate) fn number(proc: &Path, pid: u32, name: &str) -> Option<u32> {
    field(&read(proc, pid)?, name)?.split_ascii_whitespace().next()?.parse().ok()
}

/// The pid in the innermost namespace of the process, under which it knows itself.
pub(crate) fn innermost_pid(proc: &Path, pid: u32) -> Option<u32> {
    field(&read(proc, pid)?, "NSpid:")?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// The user that a process acts as, in observer's numbers.
pub(crate) fn effective_user(proc: &Path, pid: u32) -> Option<u32> {
    field(&read(proc, pid)?, "Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn read(proc: &Path, pid: u32) -> Option<Vec<u8>> {
    read_some(&proc.join(pid.to_string()).join("status")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_the_beginning_of_their_line() {
        assert_eq!(field(b"Tgid:\t5\nNSpid:\t9\t5\n", "NSpid:"), Some("9\t5"));
        assert_eq!(field(b"", "NSpid:"), None);
        assert_eq!(field(b"Name:\tNSpid:\\n7\n\xff\n", "NSpid:"), None);
    }
}
