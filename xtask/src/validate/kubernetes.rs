//! Renders every kustomization and validates what comes out, the examples, and the pod that `kubectl debug` makes with
//! our profile. And that every container of observer has the least privileges.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Manifest;
use crate::run::{self, Clock};
use crate::{place, setup};

/// From the first with native sidecars on by default to the newest whose schemas we have.
const VERSIONS: [&str; 5] = ["1.29", "1.31", "1.33", "1.35", "1.37"];

const DEBUGGED: &str = include_str!("debugged.mjs");
const LEAST: &str = include_str!("least.mjs");

pub fn manifests() -> Result<Vec<Manifest>> {
    let kubectl = setup::kubectl().context("no kubectl (run: cargo xtask setup)")?;
    let root = place::root().join("deploy/kubernetes");
    let mut manifests = vec![readme()?];
    for path in files(&root)? {
        let name = path.strip_prefix(place::root().join("deploy")).unwrap_or(&path).display().to_string();
        let file = path.file_name().unwrap_or_default();
        let parent = path.parent().unwrap_or(&root);
        if file == "kustomization.yaml" && read(&path)?.contains("\nkind: Kustomization\n") {
            let text = run::output(
                kubectl.to_str().context("kubectl has an odd name")?,
                &["kustomize", parent.to_str().context("the checkout has an odd name")?],
            );
            // Once more, for what it says.
            let Some(text) = text else {
                run::check(Command::new(&kubectl).arg("kustomize").arg(parent))?;
                bail!("{name} cannot be rendered");
            };
            manifests.push(Manifest { name, text });
        } else if path.extension().is_some_and(|extension| extension == "yaml")
            && !parent.join("kustomization.yaml").exists()
        {
            manifests.push(Manifest { name, text: read(&path)? });
        } else if name.ends_with("debug/profile.json") {
            manifests.push(Manifest { name, text: debugged(&kubectl, &path)? });
        }
    }
    Ok(manifests)
}

/// The lines that the README has for a pod.
fn readme() -> Result<Manifest> {
    let text = read(&place::root().join("README.md"))?;
    let spec = text.split("```yaml\nspec:\n").nth(1).and_then(|rest| rest.split("```").next());
    let spec = spec.context("README.md has no lines for a pod")?;
    // What the service brings along.
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: readme}}\nspec:\n  automountServiceAccountToken: false\n{spec}"
    );
    Ok(Manifest { name: "README.md".to_owned(), text })
}

/// The pod that `kubectl debug` makes with our profile.
fn debugged(kubectl: &Path, profile: &Path) -> Result<String> {
    let script = place::work().join("validate/debugged.mjs");
    fs::write(&script, DEBUGGED).with_context(|| format!("cannot write {}", script.display()))?;
    let made = Command::new("node").arg(&script).arg(kubectl).arg(profile).stdin(Stdio::null()).output()?;
    if !made.status.success() {
        bail!("{}", String::from_utf8_lossy(&made.stderr).trim());
    }
    Ok(String::from_utf8(made.stdout)?)
}

pub fn check(manifests: &[Manifest], clock: Clock) -> Result<()> {
    let directory = place::work().join("validate");
    let whole = Manifest {
        name: "manifests".to_owned(),
        text: manifests.iter().flat_map(|one| one.documents(false)).collect::<Vec<_>>().join("\n---\n"),
    };
    let names: Vec<&str> = manifests.iter().map(|one| one.name.as_str()).collect();
    clock.say("validate", &format!("{} against Kubernetes {}", names.join(", "), VERSIONS.join(", ")));
    for version in VERSIONS {
        if !valid(&directory, &whole, version, Stdio::inherit())? {
            bail!("not valid in Kubernetes {version}, see above");
        }
        for (from, to) in [
            ("readOnlyRootFilesystem", "readOnlyRootFileSystem"),
            ("containerPort: 9713", "containerPort: http"),
        ] {
            if valid(&directory, &whole.with_fault(from, to)?, version, Stdio::null())? {
                bail!("kubernetes-validate takes `{to}` for valid in Kubernetes {version}");
            }
        }
    }
    clock.say("validate", "what observer may do in them");
    if !least(&directory, &whole, true)? {
        bail!("some manifest gives more, or less, than observer needs, see above");
    }
    for (from, to) in [
        ("- SYS_PTRACE", "- SYS_ADMIN"),
        ("readOnlyRootFilesystem: true", "privileged: true"),
        ("hostPID: true", "hostNetwork: true"),
        ("runAsUser: 65532", "runAsUser: 0"),
    ] {
        if least(&directory, &whole.with_fault(from, to)?, false)? {
            bail!("`{to}` is taken for the least privileges");
        }
    }
    Ok(())
}

fn least(directory: &Path, manifest: &Manifest, tell: bool) -> Result<bool> {
    let said = || if tell { Stdio::inherit() } else { Stdio::null() };
    fs::write(directory.join("least.mjs"), LEAST)?;
    fs::write(directory.join("manifests.yaml"), &manifest.text)?;
    let mut command = Command::new("node");
    command.current_dir(directory).args(["least.mjs", "manifests.yaml"]).stdout(said()).stderr(said());
    Ok(run::wait(&mut command, |_| ())?.success())
}

fn valid(directory: &Path, manifest: &Manifest, version: &str, said: Stdio) -> Result<bool> {
    let path = directory.join("manifests.yaml");
    fs::write(&path, &manifest.text).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new("python3");
    command
        .args(["-m", "kubernetes_validate", "--strict", "--quiet", "--kubernetes-version", version])
        .arg(&path)
        .env("PYTHONPATH", place::validators()?.join("python"))
        .stdout(Stdio::null())
        .stderr(said);
    Ok(run::wait(&mut command, |_| ())?.success())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every file below, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the container is, line by line, however far in.
    fn container(name: &str) -> Vec<String> {
        let path = place::root().join("deploy/kubernetes").join(name);
        let text = read(&path).unwrap();
        let from = text.find("name: observer\n").unwrap();
        let lines = text[from..].lines().map(str::trim).filter(|line| !line.starts_with("volumes:"));
        lines.filter(|line| *line != "restartPolicy: Always").map(str::to_owned).collect()
    }

    #[test]
    fn both_kinds_of_sidecar_are_the_same_container() {
        let plain = container("components/sidecar/container.yaml");
        assert!(plain.len() > 20, "{plain:?}");
        assert_eq!(plain, container("components/sidecar-native/sidecar.yaml"));
    }
}
