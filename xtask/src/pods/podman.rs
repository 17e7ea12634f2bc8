//! podman with images, containers and settings of its own.
//!
//! Containers get what a kubelet gives them: no ambient capabilities, and a seccomp profile that lets bpf(2) through to
//! whoever has CAP_BPF, as the profiles of containerd and of Docker do and Debian's for podman does not yet.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};

/// As distributions have it.
const PROFILE: &str = "/usr/share/containers/seccomp.json";
/// No call of podman takes longer.
const PATIENCE: &str = "90";

/// What is between podman and runc.
const RUNTIME: &str = r#"#!/bin/sh
# The kubelet gives no ambient and no inheritable capabilities; podman does.
previous=
for argument; do
    case $previous in
    --bundle | -b) file=$argument/config.json ;;
    --process | -p) file=$argument ;;
    esac
    previous=$argument
done
[ -z "${file-}" ] || sed -i -E 's/"(ambient|inheritable)": ?\[[^]]*\]/"\1":[]/g' "$file"
exec runc "$@"
"#;

pub struct Podman {
    directory: PathBuf,
}

impl Podman {
    pub fn new() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("observer-pods-{}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let podman = Self { directory };
        let path = |name: &str| podman.path(name).display().to_string();
        fs::write(podman.path("seccomp.json"), profile()?)?;
        fs::write(podman.path("runtime"), RUNTIME)?;
        fs::set_permissions(podman.path("runtime"), fs::Permissions::from_mode(0o755))?;
        for folder in ["empty", "networks", "tmp", "volumes"] {
            fs::create_dir(podman.path(folder))?;
        }
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            path("images"),
            path("run")
        );
        fs::write(podman.path("storage.conf"), storage)?;
        // More than the own limits nobody may have who lacks CAP_SYS_RESOURCE.
        let files = getrlimit(Resource::RLIMIT_NOFILE)?.1.min(20_000);
        let processes = getrlimit(Resource::RLIMIT_NPROC)?.1.min(32_768);
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n\
             seccomp_profile = {:?}\nlog_driver = \"k8s-file\"\n\
             [network]\nnetwork_config_dir = {:?}\n\
             [engine]\nruntime = \"as-a-kubelet\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             lock_type = \"file\"\ntmp_dir = {:?}\nvolume_path = {:?}\n\
             [engine.runtimes]\nas-a-kubelet = [{:?}]\n",
            path("seccomp.json"),
            path("networks"),
            path("tmp"),
            path("volumes"),
            path("runtime"),
        );
        fs::write(podman.path("containers.conf"), containers)?;
        Ok(podman)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// For podman and buildah.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            ("CONTAINERS_CONF", self.path("containers.conf").into()),
            ("CONTAINERS_STORAGE_CONF", self.path("storage.conf").into()),
        ]
    }

    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", PATIENCE, program]).args(arguments).envs(self.environment());
        // podman takes a directory that is called like an image for the image's sources.
        command.current_dir(self.path("empty"));
        command
    }

    /// What it prints; an error when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let said = self.said(arguments)?;
        if !said.ended_well {
            bail!("podman {} failed:\n{}{}", arguments.join(" "), said.out, said.err);
        }
        Ok(said.out.trim().to_owned())
    }

    /// What it prints, however it ends.
    pub fn said(&self, arguments: &[&str]) -> Result<Said> {
        let output = self.command("podman", arguments).output().context("cannot run podman")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { ended_well: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// An image of one static program.
    pub fn image_of(&self, program: &Path, name: &str) -> Result<()> {
        let shell = "c=$(buildah from scratch) && m=$(buildah mount $c) && install -m 0755 \"$1\" \"$m/service\" && \
                     buildah umount $c >/dev/null && buildah config --entrypoint '[\"/service\"]' $c && \
                     buildah commit --quiet --rm $c \"$2\"";
        // The name of the executable is what observer goes by.
        let file = program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
        let shell = shell.replace("/service", &format!("/{file}"));
        let mut command = self.command("sh", &["-ec", &shell, "sh"]);
        command.arg(program).arg(name);
        let output = command.output().context("cannot run buildah")?;
        if !output.status.success() {
            bail!("making {name} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Plays a manifest; the pod is removed when what is returned is dropped.
    pub fn play(&self, manifest: &str) -> Result<Pod<'_>> {
        let path = self.path("pod.yaml");
        fs::write(&path, manifest)?;
        let pod = Pod { podman: self, remove: ["pod", "rm", "--force", "--time", "0", "checkout"] };
        self.run(&["kube", "play", "--build=false", "--network", "slirp4netns", &path.to_string_lossy()])?;
        Ok(pod)
    }

    /// Runs one container in the background, removed likewise.
    pub fn start(&self, name: &'static str, arguments: &[&str]) -> Result<Pod<'_>> {
        let pod = Pod { podman: self, remove: ["rm", "--force", "--volumes", "--time", "0", name] };
        let mut all = vec!["run", "--detach", "--name", name];
        all.extend(arguments);
        self.run(&all)?;
        Ok(pod)
    }

    /// The pid of a container's first process, as the host has it.
    pub fn pid(&self, container: &str) -> Result<u32> {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", container])?;
        pid.parse().ok().filter(|pid| *pid > 0).with_context(|| format!("{container} does not run"))
    }

    pub fn log(&self, container: &str) -> Result<String> {
        let said = self.said(&["logs", container])?;
        Ok(said.out + &said.err)
    }
}

pub struct Said {
    pub ended_well: bool,
    pub out: String,
    pub err: String,
}

/// A pod or a container that runs.
pub struct Pod<'a> {
    podman: &'a Podman,
    remove: [&'static str; 6],
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is tried once more at the end.
        let _ = self.podman.said(&self.remove);
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for arguments in [["pod", "rm", "--all", "--force"], ["rm", "--all", "--force", "--time=0"]] {
            let _ = self.said(&arguments);
        }
        let _ = self.said(&["pod", "rm", "--all", "--force", "--time", "0"]);
        // The storage mounts its own directory on itself.
        let _ = Command::new("umount").arg("--lazy").arg(self.path("images/overlay")).output();
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("xtask: {} is left: {error}", self.directory.display());
        }
    }
}

/// The distribution's profile, with bpf(2) and perf_event_open(2) for their capabilities.
fn profile() -> Result<String> {
    let text = fs::read_to_string(PROFILE).with_context(|| format!("cannot read {PROFILE}"))?;
    let mut profile: Value = serde_json::from_str(&text).with_context(|| format!("{PROFILE} is no JSON"))?;
    let rules = profile["syscalls"].as_array_mut().context("the profile has no rules")?;
    for rule in rules.iter_mut().filter(|rule| rule["action"] == "SCMP_ACT_ERRNO") {
        if let Some(names) = rule["names"].as_array_mut() {
            names.retain(|name| name != "bpf" && name != "perf_event_open");
        }
    }
    for (call, capability) in [("bpf", "CAP_BPF"), ("perf_event_open", "CAP_PERFMON")] {
        rules.push(json!({
            "names": [call], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "",
            "includes": { "caps": [capability] }, "excludes": {},
        }));
    }
    Ok(profile.to_string())
}
