//! `cargo xtask go-layouts`: the offsets of the Go runtime's structs, read from the DWARF of programs built with
//! each Go toolchain, for amd64 and arm64, written to the table that observer has built in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

const TABLE: &str = "observer/src/runtime/go/layout/table.json";

/// Uses what every table entry needs: the linker leaves out types that nothing uses.
const PROGRAM: &str = r#"package main

func main() {
	c := make(chan int)
	go func() { c <- 1 }()
	select {
	case <-c:
	}
	println(len(c))
}
"#;

#[derive(clap::Args)]
pub struct Options {
    /// A Go installation, instead of ~/.cache/observer/go/* and /usr/lib/go-*; may be repeated
    #[arg(long, value_name = "DIR")]
    go_root: Vec<PathBuf>,
    /// Only compare with the table that is checked in
    #[arg(long)]
    check: bool,
}

pub fn go_layouts(options: &Options) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let table = root.join(TABLE);
    let old = std::fs::read_to_string(&table).with_context(|| format!("cannot read {TABLE}"))?;
    let known: Vec<Value> = serde_json::from_str(&old).with_context(|| format!("{TABLE} is no JSON"))?;
    let mut layouts: BTreeMap<u64, Value> =
        known.into_iter().filter_map(|layout| Some((layout["minor"].as_u64()?, layout))).collect();

    let scratch = root.join("target/go-layouts");
    std::fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    std::fs::write(scratch.join("main.go"), PROGRAM)?;
    std::fs::write(scratch.join("go.mod"), "module layouts\n\ngo 1.19\n")?;

    for (minor, go) in toolchains(&options.go_root)? {
        let layout = read_layout(root, &scratch, &go)?;
        println!("go1.{minor:<3} {}", layout["source"].as_str().unwrap_or_default());
        layouts.insert(minor, layout);
    }
    derive_unobtainable(&mut layouts)?;

    let layouts: Vec<Value> = layouts.into_values().collect();
    let new = serde_json::to_string_pretty(&layouts)? + "\n";
    if options.check {
        ensure!(new == old, "{TABLE} is not what these toolchains say (remedy: cargo xtask go-layouts)");
        println!("{TABLE} is what these toolchains say");
    } else {
        std::fs::write(&table, new)?;
        println!("wrote {TABLE}, {} versions", layouts.len());
    }
    Ok(())
}

/// The newest toolchain of each minor version.
fn toolchains(given: &[PathBuf]) -> Result<BTreeMap<u64, PathBuf>> {
    let mut roots = given.to_vec();
    if roots.is_empty() {
        let home = std::env::var_os("HOME").context("HOME is not set")?;
        let places = [Path::new(&home).join(".cache/observer/go"), PathBuf::from("/usr/lib")];
        for (index, place) in places.iter().enumerate() {
            let Ok(entries) = place.read_dir() else { continue };
            roots.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
                index == 0 || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("go-1."))
            }));
        }
    }
    let mut newest: BTreeMap<u64, (u64, PathBuf)> = BTreeMap::new();
    for root in roots.into_iter().filter(|root| root.join("bin/go").exists()) {
        let version = run(Command::new(root.join("bin/go")).arg("version"))?;
        let numbers = version.split_whitespace().find_map(|word| word.strip_prefix("go1."));
        let mut numbers = numbers.unwrap_or_default().splitn(2, '.').map(str::parse::<u64>);
        let Some(Ok(minor)) = numbers.next() else {
            bail!("{}/bin/go says it is `{}`", root.display(), version.trim());
        };
        let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
        if newest.get(&minor).is_none_or(|(known, _)| patch >= *known) {
            newest.insert(minor, (patch, root));
        }
    }
    ensure!(!newest.is_empty(), "no Go toolchain found (remedy: cargo xtask setup, or --go-root DIR)");
    Ok(newest.into_iter().map(|(minor, (_, root))| (minor, root)).collect())
}

/// The layout of one toolchain, the same for both architectures or an error.
fn read_layout(root: &Path, scratch: &Path, go: &Path) -> Result<Value> {
    let mut layouts = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let program = scratch.join(format!("layout-{architecture}"));
        run(Command::new(go.join("bin/go"))
            .args(["build", "-trimpath", "-ldflags=-compressdwarf=false", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(scratch)
            .env("GOARCH", architecture)
            .env("GOOS", "linux")
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .env("GO111MODULE", "on")
            .env("GOFLAGS", "-mod=mod")
            .env("GOPROXY", "off")
            .env_remove("GOROOT")
            .env_remove("GOEXPERIMENT"))?;
        let text = run(Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "observer", "--example", "go_layout", "--"])
            .arg(&program)
            .current_dir(root))?;
        let mut layout: Value =
            serde_json::from_str(&text).context("the example go_layout printed no JSON")?;
        ensure!(
            layout["wait_reasons"].as_array().is_some_and(|reasons| reasons.len() > 20),
            "no wait reasons in a program built by {}",
            go.display()
        );
        let source = layout["source"].as_str().unwrap_or_default();
        let version = source.trim_start_matches("its own dwarf (").trim_end_matches(')').to_owned();
        layout["source"] = json!(format!("dwarf of {version}, amd64 and arm64 alike"));
        layouts.push(layout);
    }
    let (amd64, arm64) = (layouts.swap_remove(0), layouts.swap_remove(0));
    ensure!(amd64 == arm64, "{} lays structs out differently on amd64 and arm64", go.display());
    Ok(amd64)
}

/// The versions that PyPI and Debian do not have, from their neighbours and from reading the source.
fn derive_unobtainable(layouts: &mut BTreeMap<u64, Value>) -> Result<()> {
    let neighbour =
        |minor: u64| layouts.get(&minor).cloned().with_context(|| format!("no layout of go1.{minor}"));
    let (old, new) = (neighbour(19)?, neighbour(21)?);

    let mut go18 = old.clone();
    go18["minor"] = json!(18);
    go18["source"] = json!("source of go1.18 beside the dwarf of go1.19: what observer reads lies alike");

    // 1.20 has 1.19's g (parentGoid came with 1.21) and 1.21's line table; its moduledata lacks only `inittasks`.
    let mut go20 = old;
    go20["minor"] = json!(20);
    go20["source"] = json!("source of go1.20 beside the dwarf of go1.19 and go1.21");
    for part in ["inlined_call", "moduledata", "type_", "wait_reasons"] {
        go20[part] = new[part].clone();
    }
    go20["moduledata"]["next"] = json!(560);
    go20["moduledata"]["size"] = json!(568);
    go20["mspan"]["size"] = json!(160);

    layouts.insert(18, go18);
    layouts.insert(20, go20);
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed no UTF-8"))
}
