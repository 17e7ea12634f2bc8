//! The same with fewer privileges and in PID namespaces; which features are on, and why others are not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use observer::kernel::{KernelOptions, Probes};

use super::{PROGRAMS, Target, build, load, ready};

/// Runs tests of the kernel half again under another command, with the programs built for them.
fn run_again(command: &mut Command, tests: &[&str]) {
    // The harness knows a test by its path without the crate.
    let (_, module) = module_path!().split_once("::").unwrap();
    let kernel = module.strip_suffix("::privileges").unwrap();
    let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    for name in ["sleepers", "waits", "grow"] {
        fs::copy(build(name), folder.path().join(name)).unwrap();
    }
    let binary = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let output = command
        .arg(&binary)
        .args(["--ignored", "--exact", "--test-threads", "1"])
        .args(tests.iter().map(|test| format!("{kernel}::{test}")))
        .env(PROGRAMS, folder.path())
        .current_dir("/")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains(&format!("{} passed", tests.len())), "{told}");
}

const DEFAULT_HOOKS: [&str; 5] = [
    "census::census_agrees_with_proc_and_sees_who_slept_before",
    "census::census_of_who_is_gone",
    "waits::waits_are_counted_by_time_and_once_though_a_signal_interrupts",
    "growth::growth_is_attributed_to_the_function_that_touched_it",
    "lifecycle::lifecycle_tells_of_exec_fork_and_exit",
];

#[test]
#[ignore = "needs root"]
fn all_of_it_inside_a_pid_namespace() {
    run_again(Command::new("unshare").args(["--pid", "--fork", "--mount-proc"]), &DEFAULT_HOOKS);
}

#[test]
#[ignore = "needs root"]
fn three_capabilities_are_enough() {
    let capabilities = "+bpf,+perfmon,+sys_ptrace";
    run_again(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
            .arg(format!("--inh-caps=-all,{capabilities}"))
            .arg(format!("--ambient-caps=-all,{capabilities}"))
            .arg(format!("--bounding-set=-all,{capabilities}")),
        &DEFAULT_HOOKS,
    );
}

#[test]
#[ignore = "needs root"]
fn without_capabilities_the_error_names_them() {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
    ]);
    run_again(command.arg("--inh-caps=-all"), &["privileges::is_refused"]);
}

/// The other half of the test above: does nothing unless run by it.
#[test]
#[ignore = "needs root"]
fn is_refused() {
    if std::env::var_os(PROGRAMS).is_some() {
        let error = Probes::load(&KernelOptions::default()).err().expect("refused").to_string();
        assert!(error.contains("CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
#[ignore = "needs root"]
fn a_target_inside_a_pid_namespace_of_its_own() {
    let mut kernel = load(&KernelOptions::default());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(build("waits"));
    let mut unshare = Target::spawn(&mut command);
    ready(&mut unshare);
    let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
    let pid: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let handle = kernel.add_target(pid).unwrap();
    assert_eq!((handle.pid(), handle.namespace_pid()), (pid, 1));
    unshare.say("timed 4 20");
    unshare.line();
    assert_eq!(kernel.waits(&handle).unwrap().ended, 4);
    let census = kernel.census(&handle).unwrap();
    assert_eq!(census.threads.len(), 1);
    assert_eq!((census.threads[0].tid, census.threads[0].namespace_tid), (pid, 1));
}

#[test]
#[ignore = "needs root"]
fn features_say_what_is_on_and_why_something_is_not() {
    let kernel = load(&KernelOptions::default());
    for name in ["census", "waits", "growth", "lifecycle"] {
        assert!(kernel.features().is_on(name), "{:?}", kernel.features().get(name));
    }
    assert_eq!(kernel.features().degraded(), []);
    let exact = load(&KernelOptions { exact: true, ..KernelOptions::default() });
    assert!(exact.features().is_on("mapped"));
    for refusal in exact.features().list.iter().flat_map(|feature| &feature.refused) {
        assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty(), "{refusal:?}");
        assert_eq!(refusal.reason.lines().count(), 1, "{refusal:?}");
    }
}
