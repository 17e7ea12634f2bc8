//! What the console must say. Takes its text; knows which kernel permits what.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::kernels::Kernel;

/// The sleeping threads of the C target, and goroutines of a shape of the Go target.
const SLEEPERS: u64 = 20;
/// `shapes` has more kinds of blocked goroutines than this.
const SHAPES: usize = 20;

/// One line about what was seen.
pub fn check(kernel: &Kernel, console: &str) -> Result<String> {
    ensure!(console.lines().any(|line| line == "@@done"), "init did not come to its end");
    let uname = section(console, "uname", 0)?;
    ensure!(uname.trim() == kernel.release, "it runs {}, not {}", uname.trim(), kernel.release);

    let doctor = section(console, "doctor", 0)?;
    hooked(&doctor, "census", "iter.s/task")?;
    hooked(&doctor, "waits", "tp_btf/sched_switch")?;
    hooked(&doctor, "growth", "perf event page-faults")?;
    hooked(&doctor, "lifecycle", "tp_btf/sched_process_*")?;
    // Both kernels have trampolines, so no system call of another process pays.
    hooked(&doctor, "mapped", "fexit on syscall entry functions")?;

    let frames = sleepers(&document(console, "threads")?, &["wait_here", "middle", "outer"])?;
    let without = sleepers(&document(console, "threads-proc")?, &[])?;
    ensure!(frames >= 3, "the census brought {frames} frames of a sleeper");

    let goroutines = groups(&document(console, "goroutines")?, "goroutine")?;
    ensure!(goroutines.len() > SHAPES, "only {} groups of goroutines", goroutines.len());

    let mut bytes = Vec::new();
    for name in ["attach", "exact", "exact-tracefs"] {
        let diagnosis = document(console, name)?;
        nothing_degraded(&diagnosis, name)?;
        bytes.push(growth(&diagnosis).with_context(|| format!("section {name}"))?);
    }

    let allocations = allocations(kernel, &document(console, "allocations")?)?;

    // The other side of every hook: a kernel that forbids them.
    let locked = section(console, "lockdown", 1)?;
    ensure!(locked.contains("lockdown=integrity"), "doctor has no remedy for lockdown:\n{locked}");
    sleepers(&document(console, "lockdown-snapshot")?, &[]).context("under lockdown")?;
    Ok(format!(
        "every hook attached, fexit among them; {frames} frames of a sleeper ({without} without eBPF), {} groups \
         of goroutines, {:.1} MB grown at leak_map, {allocations}",
        goroutines.len(),
        bytes[0] / 1e6
    ))
}

/// The output of a command of init.sh, which must have ended with that exit code.
fn section(console: &str, name: &str, code: i32) -> Result<String> {
    let (begin, end) = (format!("\n@@begin {name}\n"), format!("\n@@end {name} "));
    let text = console.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    let (text, rest) = text.with_context(|| format!("no section {name}"))?;
    let ended = rest.lines().next().unwrap_or_default().trim();
    ensure!(ended == code.to_string(), "section {name} ended with {ended}, not {code}:\n{text}");
    Ok(text.to_owned())
}

fn document(console: &str, name: &str) -> Result<Value> {
    let text = section(console, name, 0)?;
    // A line of log before the document is no failure.
    let start = text.find("\n{").map_or(0, |at| at + 1);
    serde_json::from_str(&text[start..]).with_context(|| format!("section {name} is no JSON:\n{text}"))
}

fn hooked(doctor: &str, source: &str, hook: &str) -> Result<()> {
    let what = format!("ebpf {source} ");
    let line = doctor.lines().find(|line| line.contains(&what));
    let line = line.with_context(|| format!("doctor says nothing of {source}:\n{doctor}"))?;
    let (state, found) = line.split_once(&what).unwrap_or_default();
    if !state.trim_start().starts_with("ok") || !found.trim_start().starts_with(hook) {
        bail!("doctor: {source} is not by {hook}: {line}");
    }
    Ok(())
}

fn groups(snapshot: &Value, kind: &str) -> Result<Vec<Value>> {
    let groups = snapshot["groups"].as_array().context("a snapshot without groups")?;
    Ok(groups.iter().filter(|group| group["kind"] == kind).cloned().collect())
}

/// The group of all sleepers; how many frames it has. Its innermost frames must have these names.
fn sleepers(snapshot: &Value, names: &[&str]) -> Result<usize> {
    let groups = groups(snapshot, "thread")?;
    let group = groups.iter().find(|group| group["count"] == SLEEPERS);
    let group = group.with_context(|| format!("no group of {SLEEPERS} threads in {snapshot}"))?;
    let frames = group["frames"].as_array().context("a group without frames")?;
    let functions: Vec<_> = frames.iter().filter_map(|frame| frame["function"].as_str()).collect();
    for name in names {
        ensure!(functions.contains(name), "{name} is not among the sleepers' frames {functions:?}");
    }
    Ok(frames.len())
}

fn nothing_degraded(diagnosis: &Value, name: &str) -> Result<()> {
    let degraded = diagnosis["degraded"].as_array().context("a diagnosis without degraded")?;
    ensure!(degraded.is_empty(), "section {name}: degraded {degraded:?}");
    Ok(())
}

/// Linux 6.1 has no probes of many functions and says so; 6.12 has them, but no sessions.
fn allocations(kernel: &Kernel, diagnosis: &Value) -> Result<String> {
    if kernel.release.starts_with("6.1.") {
        let degraded = diagnosis["degraded"].to_string();
        ensure!(degraded.contains("Linux 6.6"), "it does not say what allocations need: {degraded}");
        return Ok("no allocations, and it says why".to_owned());
    }
    nothing_degraded(diagnosis, "allocations")?;
    let hook = diagnosis["allocations"]["hook"].as_str().unwrap_or_default();
    ensure!(hook == "uprobes at entry and return", "allocations are seen by `{hook}`");
    let sites = diagnosis["allocation_sites"].as_array().context("a diagnosis without allocation_sites")?;
    let kept = sites.iter().find(|site| site["frames"].to_string().contains("\"keep_large\""));
    let kept = kept.with_context(|| format!("nothing is kept at keep_large in {sites:?}"))?;
    let bytes = kept["live_bytes"].as_f64().unwrap_or(0.0);
    ensure!(bytes > 1e6, "only {bytes} bytes are kept at keep_large");
    Ok(format!("{:.1} MB kept at keep_large by {hook}", bytes / 1e6))
}

/// Bytes that grew where the target says that it grows.
fn growth(diagnosis: &Value) -> Result<f64> {
    let sites = diagnosis["growth_sites"].as_array().context("a diagnosis without growth_sites")?;
    let leak = |site: &&Value| {
        let frames = site["frames"].as_array();
        frames.is_some_and(|frames| frames.iter().any(|frame| frame["function"] == "leak_map"))
    };
    let site = sites.iter().find(leak).with_context(|| format!("no growth at leak_map in {sites:?}"))?;
    let bytes = site["bytes"].as_f64().unwrap_or(0.0);
    ensure!(bytes > 1e6, "only {bytes} bytes grew at leak_map");
    Ok(bytes)
}
