//! One process, held on to: who it is, whether it still lives, and whether it became another program.
//!
//! An open `/proc/PID/stat` refers to the process and not to the number: after the process is gone it
//! reads as an error, also when the pid has been given to another one. So no pidfd is needed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use nix::unistd::{Uid, User};
use thiserror::Error;

use super::memory::RemoteMemory;
use super::stat::Stat;
use super::status;
use crate::sample::{Runtime, TargetInfo};

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("pid {pid} exited before it could be read")]
    Gone { pid: u32 },
    #[error("cannot read pid {pid}: {source}")]
    Io { pid: u32, source: io::Error },
    #[error(
        "pid {pid} ({comm}) belongs to {owner} and you are {me}: run observer as root (sudo) or give it CAP_SYS_PTRACE"
    )]
    OtherUser { pid: u32, comm: String, owner: String, me: String },
    #[error(
        "the kernel refuses to let {me} read the memory of pid {pid} ({comm}), though it is yours: kernel.yama.ptrace_scope is {scope}; run observer with CAP_SYS_PTRACE (sudo), or lower it with `sysctl kernel.yama.ptrace_scope=0`"
    )]
    Yama { pid: u32, comm: String, me: String, scope: u32 },
    #[error(
        "reading the memory of pid {pid} ({comm}) is refused: {source}; observer needs CAP_SYS_PTRACE in the user namespace of the process (in a container: add SYS_PTRACE)"
    )]
    Refused { pid: u32, comm: String, source: io::Error },
}

/// A process that is observed.
#[derive(Debug)]
pub struct Target {
    pid: u32,
    stat: File,
    image: Image,
    start_ticks: u64,
    memory: RemoteMemory,
}

/// What changes when a process executes another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Image {
    device: u64,
    inode: u64,
    stack_start: u64,
}

/// What has become of a target since it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Same,
    /// It executed another program (or the same one again): all that was known of its memory is void.
    NewImage,
    Gone,
}

impl Target {
    /// Holds on to `pid` (in observer's PID namespace) and makes sure that its memory may be read.
    pub fn open(pid: u32) -> Result<Self, IdentityError> {
        let file = File::open(format!("/proc/{pid}/stat")).map_err(|source| io_error(pid, source))?;
        let stat = read(&file).map_err(|source| io_error(pid, source))?.ok_or(IdentityError::Gone { pid })?;
        let target = Self {
            pid,
            stat: file,
            image: image(pid, &stat),
            start_ticks: stat.start_ticks,
            memory: RemoteMemory::new(pid),
        };
        target.check_access(&stat.to_string())?;
        Ok(target)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn memory(&self) -> RemoteMemory {
        self.memory
    }

    /// Whether it still lives and is still the program that it was when it was opened or last [adopted](Self::adopt).
    pub fn life(&self) -> Life {
        match read(&self.stat) {
            Ok(Some(stat)) if !stat.is_dead() => {
                if image(self.pid, &stat) == self.image {
                    Life::Same
                } else {
                    Life::NewImage
                }
            }
            _ => Life::Gone,
        }
    }

    /// What it executes now is known from here on. Until then it stays [`Life::NewImage`], whoever asks.
    pub fn adopt(&mut self) {
        if let Ok(Some(stat)) = read(&self.stat) {
            self.image = image(self.pid, &stat);
        }
    }

    /// Page faults of the process since it started; 0 when it is gone.
    pub fn page_faults(&self) -> u64 {
        read(&self.stat).ok().flatten().map_or(0, |stat| stat.page_faults)
    }

    /// Who it is, with the runtime still to be found out.
    pub fn info(&self) -> TargetInfo {
        let proc = Path::new("/proc");
        let comm = read(&self.stat).ok().flatten().map(|stat| stat.comm).unwrap_or_default();
        let exe = fs::read_link(format!("/proc/{}/exe", self.pid))
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default();
        TargetInfo {
            pid: self.pid,
            namespace_pid: status::innermost_pid(proc, self.pid).filter(|&inner| inner != self.pid),
            comm,
            exe,
            runtime: Runtime { name: "native".to_owned(), version: None, stripped: false },
            started_at: started_at(self.start_ticks),
            container: super::container::of(self.pid),
        }
    }

    fn check_access(&self, comm: &str) -> Result<(), IdentityError> {
        let pid = self.pid;
        let comm = comm.to_owned();
        let maps = super::maps::read(pid);
        let source = match maps.as_ref().map(|maps| maps.iter().find(|mapping| mapping.readable)) {
            Ok(Some(mapping)) => match self.memory.read(mapping.start, &mut [0; 8]) {
                Ok(_) => return Ok(()),
                Err(source) => source,
            },
            // The memory of an exiting process is gone before its pid.
            Ok(None) => return Err(IdentityError::Gone { pid }),
            Err(source) => io::Error::from_raw_os_error(source.raw_os_error().unwrap_or(libc::EIO)),
        };
        match source.raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT) => return Err(IdentityError::Gone { pid }),
            Some(libc::EPERM | libc::EACCES) => {}
            // Mapped and yet unreadable: no question of permission.
            _ => return Ok(()),
        }
        let me = Uid::effective();
        let owner = status::number(Path::new("/proc"), pid, "Uid:").map(Uid::from_raw);
        if let Some(owner) = owner.filter(|&owner| owner != me && !me.is_root()) {
            return Err(IdentityError::OtherUser { pid, comm, owner: user(owner), me: user(me) });
        }
        let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
        let scope = scope.and_then(|scope| scope.trim().parse().ok()).unwrap_or(0);
        if scope > 0 && owner == Some(me) && !me.is_root() {
            return Err(IdentityError::Yama { pid, comm, me: user(me), scope });
        }
        Err(IdentityError::Refused { pid, comm, source })
    }
}

fn io_error(pid: u32, source: io::Error) -> IdentityError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => IdentityError::Gone { pid },
        _ => IdentityError::Io { pid, source },
    }
}

fn user(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        _ => format!("uid {uid}"),
    }
}

fn read(stat: &File) -> io::Result<Option<Stat>> {
    let mut line = [0; 1024];
    let length = stat.read_at(&mut line, 0)?;
    Ok(Stat::parse(&line[..length]))
}

fn image(pid: u32, stat: &Stat) -> Image {
    let exe = fs::metadata(format!("/proc/{pid}/exe"));
    let (device, inode) = exe.map_or((0, 0), |exe| (exe.dev(), exe.ino()));
    Image { device, inode, stack_start: stat.stack_start }
}

fn started_at(start_ticks: u64) -> String {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let uptime = uptime.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0);
    let seconds_ago = uptime - start_ticks as f64 / procfs::ticks_per_second() as f64;
    let now = Timestamp::now();
    let started = now
        .checked_sub(jiff::SignedDuration::try_from_secs_f64(seconds_ago.max(0.0)).unwrap_or_default())
        .unwrap_or(now);
    // Downwards: nobody is told of a start that is still to come.
    let second = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Floor);
    started.round(second).unwrap_or(started).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn sees_an_exec_and_an_exit() {
        let mut child =
            Command::new("sh").args(["-c", "sleep 0.3; exec sleep 1000"]).spawn().expect("sh starts");
        let mut target = Target::open(child.id()).expect("a child may be read");
        let mut life = target.life();
        for _ in 0..100 {
            if life != Life::Same {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            life = target.life();
        }
        // The shell's own start may be seen as the first change.
        assert_eq!(life, Life::NewImage);
        assert_eq!(target.life(), Life::NewImage, "asking changes nothing");
        target.adopt();
        assert_eq!(target.life(), Life::Same);
        child.kill().expect("sleep runs");
        child.wait().expect("it is our child");
        assert_eq!(target.life(), Life::Gone);
    }

    #[test]
    fn says_who_it_is() {
        let target = Target::open(std::process::id()).expect("may read myself");
        let info = target.info();
        assert_eq!(info.pid, std::process::id());
        assert!(info.exe.contains("observer"), "{info:?}");
        let age =
            Timestamp::now().as_second() - info.started_at.parse::<Timestamp>().expect("a time").as_second();
        assert!((0..86_400).contains(&age), "{age}");
    }
}
