//! The memory limit of a real process in a real cgroup: needs root and a cgroup tree with the memory controller.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use observer::memory::usage::ProcessReader;

/// A cgroup below another, removed when dropped.
struct Cgroup {
    directory: PathBuf,
    limit_file: &'static str,
}

impl Cgroup {
    /// In the tree that has the memory controller here: version 1 or 2.
    fn create(name: &str) -> Self {
        let (tree, limit_file) = if PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
            ("/sys/fs/cgroup", "memory.max")
        };
        let directory = PathBuf::from(tree).join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        Self { directory, limit_file }
    }

    fn below(&self, name: &str) -> Self {
        if self.limit_file == "memory.max" {
            fs::write(self.directory.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let directory = self.directory.join(name);
        fs::create_dir(&directory).unwrap();
        Self { directory, limit_file: self.limit_file }
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.directory.join(self.limit_file), bytes.to_string()).unwrap();
    }

    fn take_in(&self, pid: u32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Busy until its last process is reaped.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root"]
fn root_finds_the_lowest_limit_on_the_way_up() {
    let pod = Cgroup::create("observer-test");
    let container = pod.below("container");
    let sleeper = Sleeper(Command::new("sleep").arg("60").spawn().unwrap());
    let pid = sleeper.0.id();
    let mut reader = ProcessReader::open(pid).unwrap();
    let without = reader.memory().unwrap().limit_bytes;

    pod.limit(96 << 20);
    container.limit(160 << 20);
    container.take_in(pid);
    let memory = reader.memory().unwrap();
    assert_eq!(
        memory.limit_bytes,
        Some(96 << 20),
        "of the parent, after the process was moved (before: {without:?})"
    );
    assert!(memory.limit_usage_bytes.is_some_and(|bytes| bytes < 96 << 20));

    container.limit(64 << 20);
    assert_eq!(reader.memory().unwrap().limit_bytes, Some(64 << 20), "a limit can change at any time");
}
