//! What makes container images, and what plays pods of them. Both work on local files: nothing is pulled.

use super::{Need, Recipe, State};
use crate::run;

/// What images are made with.
pub fn builders() -> Vec<Need> {
    vec![
        need("buildah", "makes container images", &["buildah", "--version"], &["buildah"]),
        need("setcap", "gives a file capabilities", &["sh", "-c", "command -v setcap"], &["libcap2-bin"]),
        need("strip", "takes debug information off what is shipped", &["strip", "--version"], &["binutils"]),
    ]
}

/// And what the tests in pods take.
pub fn each() -> Vec<Need> {
    let mut needs = builders();
    needs.extend([
        need("podman", "plays pods", &["podman", "--version"], &["podman", "catatonit"]),
        // crun does not run where both versions of cgroups are mounted.
        need("runc", "runs containers", &["runc", "--version"], &["runc"]),
        need(
            "slirp4netns",
            "gives pods a network of their own",
            &["slirp4netns", "--version"],
            &["slirp4netns"],
        ),
        need("curl", "asks observer from a pod's network", &["curl", "--version"], &["curl"]),
    ]);
    needs
}

fn need(what: &str, why: &'static str, asks: &[&str], packages: &[&'static str]) -> Need {
    let found = asks.split_first().and_then(|(program, arguments)| run::output(program, arguments));
    let state = match found {
        Some(said) => State::Here(said.lines().next().unwrap_or(what).to_owned()),
        None => State::Missing(Recipe {
            packages: packages.to_vec(),
            elsewhere: vec![format!("(install {what} from your distribution)")],
            ..Recipe::default()
        }),
    };
    Need { what: what.to_owned(), why, state }
}
