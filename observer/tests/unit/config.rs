//! The configuration: the example that is shipped, layers, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use observer::config::{Config, ConfigError, Kubernetes, Raw, Target, read};
use observer::select::pods::Pods;
use observer::select::rules::Candidate;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observer.toml")
}

/// A file with this text, and what comes of reading it.
fn read_text(text: &str) -> Result<Raw, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("observer.toml");
    fs::write(&path, text).unwrap();
    read(&path)
}

/// The example with every key that is commented out.
fn uncommented() -> String {
    let is_key = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(char::is_alphabetic) || rest.starts_with('['))
    };
    let text = fs::read_to_string(example()).unwrap();
    text.lines().map(|line| if is_key(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_says_what_holds_without_it() {
    let shipped = Config::check(read(&example()).unwrap()).unwrap();
    let mut all = read_text(&uncommented()).unwrap();
    // The examples among the keys are not defaults.
    all.targets[0] = Target { exe: Some("checkout".into()), ..Target::default() };
    all.web.config_file = None;
    all.web.external_url = None;
    all.history.path = None;
    all.log.level = None;
    all.alerts.webhook.clear();
    all.alerts.alertmanager.clear();
    all.alerts.silence.clear();
    all.kubernetes = Kubernetes::default();
    let spelled_out = Config::check(all).unwrap();
    let without_asking = |config: &Config| {
        let mut text = format!("{config:?}");
        text = text.replace("listen_is_asked: true", "listen_is_asked: false");
        text
    };
    assert_eq!(without_asking(&shipped), without_asking(&spelled_out));
}

#[test]
fn the_example_has_every_key() {
    // What is not said is `None`, an empty list or a default: none of it is left in the whole of the example.
    let all = format!("{:?}", read_text(&uncommented()).unwrap());
    assert!(!all.contains("None"), "{all}");
    assert!(!all.contains("[]"), "{all}");
}

#[test]
fn an_address_that_is_secret_is_not_printed() {
    let raw =
        read_text("[[target]]\npid=1\n[[alerts.webhook]]\nurl='http://h/token-1'\nheaders={A='token-2'}\n")
            .unwrap();
    let printed = format!("{raw:?} {:?}", Config::check(raw.clone()).unwrap());
    assert!(printed.contains("http://h") && !printed.contains("token-"), "{printed}");
}

#[test]
fn flags_go_before_the_file_and_the_file_before_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("observer.toml");
    fs::write(&file, "[[target]]\ncomm='file'\n[web]\nlisten=[':1']\n[sampling]\ninterval='7s'\n").unwrap();
    let environment = |name: &str| {
        Some(match name {
            "OBSERVER_INTERVAL" => "9s".to_owned(),
            "OBSERVER_CPU" => "5%".to_owned(),
            "OBSERVER_EXE" => "one, two".to_owned(),
            _ => return None,
        })
    };
    let mut flags = Raw::default();
    flags.web.listen = Some(vec![":2".into()]);
    let config = Config::load(flags, Some(&file), Raw::from_environment(environment)).unwrap();
    assert_eq!(config.listen, [":2"]);
    assert_eq!(config.interval, Duration::from_secs(7));
    assert!((config.cpu - 0.05).abs() < 1e-9);
    assert_eq!(
        config.rules.iter().map(observer::select::rules::Rule::words).collect::<Vec<_>>(),
        ["comm file"]
    );
    let config = Config::load(Raw::default(), None, Raw::from_environment(environment)).unwrap();
    assert_eq!(config.rules.len(), 2);
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_its_place() {
    let message = |text: &str| {
        let error = read_text(text).and_then(Config::check).map(|config| format!("{config:?}"));
        let message = error.unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    let target = "[[target]]\ncomm='a'\n";
    let with = |text: &str| message(&format!("{target}{text}"));
    assert!(with("[web]\nlisten = 5\n").contains("observer.toml:4: "));
    assert!(with("[webb]\n").contains("observer.toml:3: unknown field `webb`"));
    assert!(with("[web]\nlisten = [\n").contains("observer.toml:"));
    assert!(with("[sampling]\ninterval = 'soon'\n").contains("sampling.interval: `soon`: no duration"));
    assert!(with("[sampling]\ninterval = '1ms'\n").contains("is not between"));
    assert!(with("[sampling]\ntargets = 0\n").contains("sampling.targets: 0 is not between 1 and 256"));
    assert!(with("[sampling]\ncpu = '2'\n").contains("sampling.cpu"));
    assert!(
        with("[sampling]\nhooks = 'never'\n")
            .contains("sampling.hooks: `never`; it may be `windows` or `always`")
    );
    assert!(with("[web]\nexternal_url = 'ftp://x'\n").contains("no http or https address"));
    assert!(with("[web]\nlisten = []\n").contains("web.listen"));
    assert!(with("[log]\nformat = 'xml'\n").contains("text or json"));
    assert!(with("[history]\nmax_bytes = '1'\n").contains("history.max_bytes"));
    assert!(with("[alerts]\nlog = 'printer'\n").contains("alerts.log: `printer`"));
    assert!(with("[alerts]\nleast_confidence = 2.0\n").contains("from 0 to 1"));
    assert!(with("[[alerts.webhook]]\nurl='http://a/'\nurl_file='/b'\n").contains("one of url and url_file"));
    assert!(with("[[alerts.webhook]]\nurl='http://a/'\ntemplate='irc'\n").contains("`irc`: may be json"));
    assert!(with("[[alerts.webhook]]\nurl='a'\n").contains("alerts: address of"));
    assert!(with("[[alerts.alertmanager]]\n").contains("url is missing"));
    assert!(with("[[alerts.silence]]\nfrom='25:00'\n").contains("no time of the day"));
    assert!(with("[[alerts.silence]]\nweekdays=['holiday']\n").contains("no day of the week"));
    assert!(message("").contains("nothing to observe"));
    assert!(
        message("[[target]]\npod_labels = 'a=b'\n").contains("`pod labels a=b` needs the list of pods: set")
    );
    assert!(message("[[target]]\n").contains("target: it has no condition"));
    assert!(
        read(Path::new("/nowhere/observer.toml")).unwrap_err().to_string().contains("/nowhere/observer.toml")
    );
}

#[cfg(feature = "kubernetes")]
#[test]
fn the_daemon_sets_that_go_by_labels_ask_as_they_say() {
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/overlays");
    let environment = |name: &str| {
        let known =
            [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("NODE_IP", "10.0.0.7"), ("NODE_NAME", "node-1")];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    for (overlay, asked) in
        [("labels", "https://10.0.0.1:443/api/v1/pods?"), ("labels-kubelet", "https://10.0.0.7:10250/pods")]
    {
        let file = overlays.join(overlay).join("observer.toml");
        let config = Config::load(Raw::default(), Some(&file), Raw::from_environment(environment)).unwrap();
        assert!(config.rules.iter().all(observer::select::rules::Rule::needs_pods));
        assert!(config.pods.unwrap().url.starts_with(asked), "{overlay}");
    }
}

#[test]
fn the_daemon_set_takes_the_pods_of_every_kind_of_node_and_nothing_else() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/base/observer.toml");
    let config = Config::check(read(&path).unwrap()).unwrap();
    let proc = tempfile::tempdir().unwrap();
    let taken = |cgroup: &str, exe: &str| {
        let folder = proc.path().join("10");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("stat"), "10 (web) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n").unwrap();
        fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        std::os::unix::fs::symlink(exe, folder.join("exe")).unwrap();
        let process = Candidate::all(proc.path()).pop().unwrap();
        config.rules.iter().any(|rule| rule.meets(proc.path(), &process, &Pods::none()).unwrap())
    };
    let container = "0123456789abcdef".repeat(4);
    let (dashes, lines) = ("3f2a1b4c-1111-2222-3333-444455556666", "3f2a1b4c_1111_2222_3333_444455556666");
    for cgroup in [
        format!("/kubepods/burstable/pod{dashes}/{container}"),
        format!("/kubepods.slice/kubepods-pod{lines}.slice/cri-containerd-{container}.scope"),
        format!(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{lines}.slice/crio-{container}"
        ),
        // From within a cgroup namespace.
        format!("/../../pod{dashes}/{container}"),
        format!("/../../../kubepods-besteffort-pod{lines}.slice/{container}"),
        // A static pod.
        format!("/kubepods/pod{}/{container}", "0123456789abcdef".repeat(2)),
    ] {
        assert!(taken(&cgroup, "/srv/web"), "{cgroup}");
        assert!(!taken(&cgroup, "/pause"), "{cgroup}");
    }
    for cgroup in ["/system.slice/kubelet.service", "/podruntime.slice", "/", "/user.slice/podman-1.scope"] {
        assert!(!taken(cgroup, "/srv/web"), "{cgroup}");
    }
}
