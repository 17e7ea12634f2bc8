//! Stacks of threads that slept before observer came, against those that gdb finds: frame by frame, thread by thread.
//!
//! Needs root, compilers and gdb. gdb stops what it looks at; these are programs of the test's own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use observer::kernel::{KernelOptions, Probes};
use observer::process::maps;
use observer::threads::procfs;
use observer::unwind::dwarf::CallFrames;
use observer::unwind::{End, MAX_FRAMES, Registers, Stack, Unwinder as _};

use crate::programs::go::{Build, Program, toolchains};
use crate::support::observer::{observer, run};

/// Prints the physical frames of every thread: `stack TID PC PC ...`.
const GDB: &str = "
import gdb
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame, found = gdb.newest_frame(), []
    while frame is not None and len(found) < 300:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            found.append('%x' % frame.pc())
        frame = frame.older()
    print('stack', thread.ptid[1], *found)
";

/// A program that said `ok`.
struct Target {
    child: Child,
    _output: BufReader<std::process::ChildStdout>,
}

impl Target {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ok\n");
        Self { child, _output: output }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Registers of its sleeping threads, by the kernel's census or by what `/proc` tells.
    fn registers(&self, by_kernel: bool) -> BTreeMap<u32, Registers> {
        if !by_kernel {
            let visits = procfs::census(self.pid()).unwrap().visits;
            return visits
                .iter()
                .map(|visit| {
                    (visit.tid, Registers { ip: visit.ip, sp: visit.sp, bp: visit.bp, lr: visit.lr })
                })
                .collect();
        }
        let mut kernel = Probes::load(&KernelOptions::default()).unwrap();
        let handle = kernel.add_target(self.pid()).unwrap();
        let census = kernel.census(&handle).unwrap();
        let sleeping =
            census.threads.iter().filter(|thread| thread.is_sleeping() && thread.syscall.is_some());
        sleeping
            .map(|thread| {
                (thread.tid, Registers { ip: thread.ip, sp: thread.sp, bp: Some(thread.bp), lr: None })
            })
            .collect()
    }

    fn stacks(&self, by_kernel: bool) -> BTreeMap<u32, Stack> {
        let mut unwinder = CallFrames::new(self.pid());
        unwinder.remap(&maps::read(self.pid()).unwrap());
        self.registers(by_kernel).into_iter().map(|(tid, at)| (tid, unwinder.unwind(&at))).collect()
    }

    /// As gdb has them.
    fn by_gdb(&self) -> BTreeMap<u32, Vec<u64>> {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("stacks.py");
        std::fs::write(&script, GDB).unwrap();
        let output = Command::new("gdb")
            .args(["-nx", "-batch", "-ex", "set backtrace past-main on", "-ex", "set debuginfod enabled off"])
            .args(["-p", &self.pid().to_string(), "-x"])
            .arg(&script)
            .output()
            .expect("gdb (install: cargo xtask setup)");
        let text = String::from_utf8_lossy(&output.stdout);
        let stack = |line: &str| {
            let mut words = line.strip_prefix("stack ")?.split(' ');
            let tid = words.next()?.parse().ok()?;
            Some((tid, words.map(|word| u64::from_str_radix(word, 16).unwrap()).collect()))
        };
        let stacks: BTreeMap<_, _> = text.lines().filter_map(stack).collect();
        assert!(!stacks.is_empty(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        stacks
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A source below xtask/targets, compiled.
fn build(directory: &Path, compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let program = directory.join(format!("{compiler}{}", flags.concat().replace(['/', ' ', '='], "")));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/targets").join(source);
    let mut command = Command::new(compiler);
    if compiler == "rustc" {
        command.args(["--edition", "2024", "-O"]);
    } else {
        command.args(["-O2", "-fomit-frame-pointer", "-pthread"]);
    }
    let compiled = command.args(flags).arg("-o").arg(&program).arg(source).status();
    assert!(compiled.expect("a compiler (install: cargo xtask setup)").success(), "{compiler} {flags:?}");
    program
}

/// Whether a stack has the frames that gdb has. What was interrupted is told as if behind a call.
fn same_frames(stack: &Stack, gdb: &[u64]) -> bool {
    let gdb = &gdb[..gdb.len().min(MAX_FRAMES)];
    stack.addresses.len() == gdb.len()
        && stack.addresses.iter().zip(gdb).all(|(one, other)| one == other || *one == other + 1)
}

fn hex(addresses: &[u64]) -> Vec<String> {
    addresses.iter().take(24).map(|address| format!("{address:x}")).collect()
}

/// Every thread has gdb's stack, and is known to be whole.
fn as_gdb_has_them(what: &str, program: &Path) {
    let target = Target::start(&mut Command::new(program));
    for by_kernel in [true, false] {
        let (stacks, gdb) = (target.stacks(by_kernel), target.by_gdb());
        assert!(stacks.len() >= 4, "{what}: {stacks:?}");
        for (tid, stack) in &stacks {
            let name = std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", target.pid())).unwrap();
            assert!(
                same_frames(stack, &gdb[tid]),
                "{what} by kernel {by_kernel}, {tid} {name}: {:?} {}\n{:?}\nnot {}\n{:?}",
                stack.end,
                stack.addresses.len(),
                hex(&stack.addresses),
                gdb[tid].len(),
                hex(&gdb[tid])
            );
            let whole = stack.end == if gdb[tid].len() > MAX_FRAMES { End::Truncated } else { End::Root };
            assert!(whole && !stack.guessed, "{what}: {tid} {name}: {:?} {}", stack.end, stack.guessed);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn root_c_stacks_are_those_of_gdb() {
    let directory = tempfile::tempdir().unwrap();
    for flags in [&[][..], &["-static"], &["-static-pie"], &["-s", "-rdynamic"], &["-no-pie", "-O1"]] {
        as_gdb_has_them(&format!("C {flags:?}"), &build(directory.path(), "cc", "c/stacks/stacks.c", flags));
    }
}

#[test]
#[ignore = "needs root"]
fn root_cpp_and_rust_stacks_are_those_of_gdb() {
    let directory = tempfile::tempdir().unwrap();
    as_gdb_has_them("C++", &build(directory.path(), "c++", "cpp/stacks/stacks.cpp", &[]));
    as_gdb_has_them("Rust", &build(directory.path(), "rustc", "rust/stacks/stacks.rs", &[]));
}

/// Functions of each group of threads, with the number of its threads and what its stack lacks.
fn thread_groups(pid: u32, options: &[&str]) -> Vec<(u64, Vec<String>, Option<String>)> {
    let pid = pid.to_string();
    let ran = run(observer(&["snapshot", &pid, "--format", "json"]).args(options));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let snapshot: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let groups = snapshot["groups"].as_array().unwrap().iter().filter(|group| group["kind"] == "thread");
    let function = |frame: &serde_json::Value| {
        (frame["tail_call"] != true).then(|| frame["function"].as_str().unwrap().to_owned())
    };
    groups
        .map(|group| {
            let functions = group["frames"].as_array().unwrap().iter().filter_map(function).collect();
            let lacks = group["stack_end"].as_str().map(str::to_owned);
            (group["count"].as_u64().unwrap(), functions, lacks)
        })
        .collect()
}

/// Of a static program too, where C and Go lie in one file; idle threads of Go's scheduler are in no group.
#[test]
#[ignore = "needs root"]
fn root_stacks_go_on_from_c_into_the_goroutine_that_called_it() {
    let directory = tempfile::tempdir().unwrap();
    let toolchains = toolchains();
    let both = [toolchains.first().unwrap(), toolchains.last().unwrap()];
    for (go, build) in both.iter().zip([Build::Cgo, Build::StaticCgo]) {
        let program = Program::build(go, "cgo_sleep", build, directory.path());
        let mut running = program.start(&[]);
        running.wait_for_line("ok");
        for options in [&[][..], &["--no-ebpf"]] {
            let groups = thread_groups(running.pid(), options);
            let shown = format!("{build:?} {options:?}: {groups:#?}");
            assert_eq!(groups.iter().map(|(count, ..)| count).sum::<u64>(), 4, "{shown}");
            for (count, functions, lacks) in &groups {
                let after: Vec<&str> = functions
                    .iter()
                    .skip_while(|name| *name != "wait_in_c")
                    .skip(1)
                    .map(String::as_str)
                    .collect();
                if *count == 3 {
                    let go = ["runtime.asmcgocall", "runtime.cgocall", "main._Cfunc_wait_in_c", "main.callC"];
                    assert_eq!(after[1..5], go, "{shown}");
                    assert_eq!(after.last(), Some(&"runtime.goexit"), "{shown}");
                } else {
                    assert_eq!(after[0], "own_thread", "{shown}");
                }
                assert_eq!(*lacks, None, "{shown}");
            }
        }
    }
}

/// musl is built without call frame information, and gdb is lost in it.
#[test]
#[ignore = "needs root"]
fn root_stacks_are_whole_with_musl() {
    let directory = tempfile::tempdir().unwrap();
    for flags in [&[][..], &["-static"]] {
        let program = build(directory.path(), "musl-gcc", "c/stacks/stacks.c", flags);
        let target = Target::start(&mut Command::new(program));
        for options in [&[][..], &["--no-ebpf"]] {
            let groups = thread_groups(target.pid(), options);
            let shown = format!("{flags:?} {options:?}: {groups:#?}");
            assert_eq!(groups.iter().map(|(count, ..)| count).sum::<u64>(), 20, "{shown}");
            // The first function of each thread, which only the thread's own start calls.
            for (first, next) in [
                ("a_recursion", "recurse"),
                ("a_large_frame", "in_a_large_frame"),
                ("a_variable_frame", "in_a_variable_frame"),
                ("an_aligned_frame", "in_an_aligned_frame"),
                ("an_aligned_variable_frame", "in_an_aligned_variable_frame"),
                ("a_callback", "in_qsort"),
                ("a_handler", "raise_here"),
                ("another_stack", "raise_on_another_stack"),
                ("a_busy_one", "busy"),
                ("a_vdso", "ask_the_time"),
                ("a_mutex", "on_mutex"),
                ("a_cond", "on_cond"),
                ("a_rwlock", "on_rwlock"),
                ("a_barrier", "on_barrier"),
                ("a_join", "on_join"),
                ("an_once", "in_once"),
            ] {
                let (.., functions, lacks) = groups
                    .iter()
                    .find(|(_, functions, _)| functions.iter().any(|name| name == first))
                    .unwrap_or_else(|| panic!("{first} {shown}"));
                let place = functions.iter().position(|name| name == first).unwrap();
                assert_eq!(functions[place - 1], next, "{shown}");
                assert_eq!((functions.len() - place, lacks), (3, &None), "{first} {shown}");
            }
        }
    }
}

/// Code that a virtual machine made is told by address, and by name once it has written which is which. That it was
/// crossed by frame pointers is said either way.
#[test]
#[ignore = "needs root"]
fn root_code_made_at_run_time_has_the_names_of_its_map() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("Sleeps.java");
    let text = "public class Sleeps { static final Object lock = new Object();
        static int descend(int n) throws Exception {
            if (n > 0) return descend(n - 1) + 1;
            synchronized (lock) { System.out.println(\"ok\"); lock.wait(); } return 1; }
        public static void main(String[] a) throws Exception { descend(5); } }";
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new("javac").arg(&source).status().expect("javac (install: cargo xtask setup)");
    assert!(compiled.success());
    let mut java = Command::new("java");
    let target =
        Target::start(java.args(["-Xint", "-XX:+UseSerialGC", "-cp"]).arg(directory.path()).arg("Sleeps"));
    let of_the_lock = || {
        let groups = thread_groups(target.pid(), &[]);
        let main =
            |(_, functions, _): &&(u64, Vec<String>, _)| functions.iter().any(|name| name == "JavaMain");
        groups.iter().find(main).unwrap_or_else(|| panic!("{groups:#?}")).clone()
    };
    // It says `ok` before it sleeps.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let made =
        |functions: &[String], name: &str| functions.iter().filter(|function| *function == name).count();
    let (_, before, lacks) = of_the_lock();
    assert!(made(&before, "") > 6 && made(&before, "Interpreter") == 0, "{before:#?}");
    assert_eq!(lacks.as_deref(), Some("gap"), "{before:#?}");
    let wrote = Command::new("jcmd").args([&target.pid().to_string(), "Compiler.perfmap"]).output().unwrap();
    assert!(wrote.status.success(), "{wrote:?}");
    let (_, after, lacks) = of_the_lock();
    let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", target.pid()));
    assert_eq!((made(&after, ""), after.len()), (0, before.len()), "{after:#?}");
    assert!(made(&after, "Interpreter") > 6, "{after:#?}");
    assert_eq!(lacks.as_deref(), Some("gap"), "{after:#?}");
}
