//! The service under its own restrictions: what the process may do, that it observes all the same, and what reload,
//! watchdog, restart, a secret and a socket come to.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::machine::Machine;
use crate::run::Clock;

/// Of ten, times ten: what systemd thinks of all that is not shut off.
const MOST_EXPOSED: u32 = 20;

const BPF: u32 = 39;
const PERFMON: u32 = 38;
const SYS_PTRACE: u32 = 19;
const CHECKPOINT_RESTORE: u32 = 40;
const DAC_READ_SEARCH: u32 = 2;

const CONFIGURATION: &str = r#"cat >/etc/observer/observer.toml <<'END'
[[target]]
exe = "checkout"
[sampling]
interval = "500ms"
cpu = "50%"
[history]
path = "/var/lib/observer/history.redb"
END
"#;

/// Both additions that the unit tells of; the secret is root's own.
const ADDITIONS: &str = r#"
echo 'basic_auth_users: {somebody: $2y$10$ftqaXghJxNUEMWt2XN117.H3trtxPdDHhjV5BpvTKd3LFkKFpN9Je}' >/etc/observer/web.yml
chmod 600 /etc/observer/web.yml
cat >>/etc/observer/observer.toml <<'END'
[web]
config_file = "/run/credentials/observer.service/web.yml"
END
mkdir -p /etc/systemd/system/observer.service.d
cat >/etc/systemd/system/observer.service.d/test.conf <<'END'
[Service]
CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_CHECKPOINT_RESTORE
AmbientCapabilities=CAP_DAC_READ_SEARCH CAP_CHECKPOINT_RESTORE
LoadCredential=web.yml:/etc/observer/web.yml
END
systemctl daemon-reload
systemctl restart observer.service
"#;

/// As short as it goes, to see it bite.
const WATCHDOG: &str = r"
mkdir -p /etc/systemd/system/observer.service.d
cat >/etc/systemd/system/observer.service.d/test.conf <<'END'
[Service]
WatchdogSec=2
RestartSec=100ms
END
systemctl daemon-reload
systemctl restart observer.service
";

/// The demo's service, which leaks, as a user of its own and with mounts of its own.
const SERVICE: &str = "systemd-run --quiet --unit=checkout --property=DynamicUser=yes /usr/local/bin/checkout serve --listen 127.0.0.1:8080";
/// And its load, which ends by itself where it finds nobody.
const LOAD: &str = "systemd-run --quiet --unit=load --property=Restart=on-failure --property=StartLimitBurst=50 /usr/local/bin/checkout load --target 127.0.0.1:8080 --for 10m";

pub fn check(clock: Clock, machine: &Machine) -> Result<()> {
    machine
        .run("systemctl start observer.service; systemctl stop observer.service")
        .context("with the configuration that is installed")?;
    machine.run(CONFIGURATION)?;
    machine.run(SERVICE)?;
    machine.run(LOAD)?;
    machine.run("systemctl start observer.service")?;
    restricted(machine, &[BPF, PERFMON, SYS_PTRACE])?;
    let exposed = machine.run(&format!(
        "systemd-analyze security --threshold={MOST_EXPOSED} --no-pager observer.service | tail -n 1"
    ))?;
    clock.say("test", &format!("restricted, with three capabilities: passed; {}", exposed.trim()));

    // Meanwhile the leak grows.
    reloads(machine)?;
    observes(machine)?;
    let degraded = get(machine, "/metrics")?;
    let degraded: Vec<_> = degraded.lines().filter(|line| line.starts_with("observer_degraded{")).collect();
    clock.say("test", &format!("names the leak of another user's service: passed; {}", degraded.join(" ")));

    machine.run(ADDITIONS)?;
    restricted(machine, &[BPF, PERFMON, SYS_PTRACE, CHECKPOINT_RESTORE, DAC_READ_SEARCH])?;
    let refused = get(machine, "/metrics")?;
    ensure!(refused.starts_with("HTTP/1.1 401"), "the web configuration is not in force: {refused}");
    machine.run("rm /etc/observer/web.yml /etc/systemd/system/observer.service.d/test.conf")?;
    machine.run(CONFIGURATION)?;
    clock.say("test", "reload, secrets, more capabilities: passed");

    watched(machine)?;
    stops(machine)?;
    clock.say("test", "watchdog, stop, refusing what cannot be: passed");
    activated(machine)?;
    clock.say("test", "started by its socket, with its history: passed");
    machine.run("systemctl stop load.service checkout.service")?;
    Ok(())
}

/// What holds for the process itself, whatever the unit says.
fn restricted(machine: &Machine, capabilities: &[u32]) -> Result<()> {
    let status =
        machine.run("cat /proc/$(systemctl show --property MainPID --value observer.service)/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("no {name} in its status"))
    };
    let expected: u64 = capabilities.iter().map(|bit| 1_u64 << bit).sum();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(u64::from_str_radix(field(set)?, 16)? == expected, "{set} is {}", field(set)?);
    }
    let none = "0000000000000000";
    for (name, value) in [("CapInh", none), ("CapAmb", none), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
        ensure!(field(name)? == value, "{name} is {}", field(name)?);
    }
    ensure!(!field("Uid")?.split_whitespace().any(|uid| uid == "0"), "it runs as root");
    Ok(())
}

/// The line that leaks, though the process is another user's.
fn observes(machine: &Machine) -> Result<()> {
    let named =
        |sample: &str| format!("{}\ngrep -E '{sample}' <<<\"$answer\" | grep -v ' 0$'", ask("/metrics"));
    machine.until("the service is observed", &named(r#"^observer_target_up\{target="checkout"\} 1"#))?;
    machine.until("the leak is found", &named(r#"^observer_leak_suspected\{target="checkout"\}"#))?;
    let uid = |unit: &str| {
        machine.run(&format!(
            "stat --format=%u /proc/$(systemctl show --property MainPID --value {unit}.service)"
        ))
    };
    let (service, observer) = (uid("checkout")?, uid("observer")?);
    ensure!(service != observer && service.trim() != "0", "both run as {service}");
    let site = machine.run(&named("^observer_leak_growth_bytes_per_second\\{"))?;
    ensure!(site.contains("quote.go:57"), "another place leaks: {site}");
    Ok(())
}

fn reloads(machine: &Machine) -> Result<()> {
    machine.run("sed -i 's/500ms/700ms/' /etc/observer/observer.toml; systemctl reload observer.service")?;
    machine.run("echo 'no such key = 1' >>/etc/observer/observer.toml; ! systemctl reload observer.service 2>/dev/null")?;
    machine.run("systemctl is-active observer.service")?;
    machine.run(CONFIGURATION)?;
    machine.run("systemctl reload observer.service")?;
    property(machine, "NRestarts", "0")
}

/// Left alone while it says that it lives, started anew when it no longer does.
fn watched(machine: &Machine) -> Result<()> {
    machine.run(WATCHDOG)?;
    machine.run("sleep 5")?;
    property(machine, "NRestarts", "0")?;
    machine.run("systemctl kill --kill-whom=main --signal=STOP observer.service")?;
    machine.until(
        "the watchdog starts it anew",
        "test \"$(systemctl show --property NRestarts --value observer.service)\" = 1; systemctl is-active observer.service",
    )?;
    machine.run("rm /etc/systemd/system/observer.service.d/test.conf; systemctl daemon-reload")?;
    Ok(())
}

/// At once and without complaint; and not over and over with a configuration that cannot be.
fn stops(machine: &Machine) -> Result<()> {
    let began = Instant::now();
    machine.run("systemctl stop observer.service")?;
    ensure!(began.elapsed() < Duration::from_secs(8), "it took {:?} to stop", began.elapsed());
    property(machine, "Result", "success")?;
    property(machine, "ExecMainStatus", "0")?;
    machine.run("! { : <>/dev/tcp/127.0.0.1/9713; } 2>/dev/null")?;

    machine.run("echo 'no such key = 1' >>/etc/observer/observer.toml; systemctl reset-failed; ! systemctl start observer.service 2>/dev/null")?;
    property(machine, "ActiveState", "failed")?;
    property(machine, "ExecMainStatus", "2")?;
    machine.run(CONFIGURATION)?;
    machine.run("systemctl reset-failed")?;
    Ok(())
}

fn activated(machine: &Machine) -> Result<()> {
    machine.run("systemctl start observer.socket")?;
    machine.run("test -s /var/lib/observer/history.redb")?;
    property(machine, "ActiveState", "inactive")?;
    let answer = get(machine, "/readyz")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    restricted(machine, &[BPF, PERFMON, SYS_PTRACE])?;
    machine.run("systemctl stop observer.socket observer.service; systemctl start observer.service")?;
    Ok(())
}

fn property(machine: &Machine, name: &str, expected: &str) -> Result<()> {
    let value = machine.run(&format!("systemctl show --property {name} --value observer.service"))?;
    ensure!(value.trim() == expected, "{name} of the service is {}, not {expected}", value.trim());
    Ok(())
}

fn get(machine: &Machine, path: &str) -> Result<String> {
    machine.run(&format!("{}\nprintf '%s' \"$answer\"", ask(path)))
}

/// With what bash has, for there is no curl; leaves the answer in `$answer`.
fn ask(path: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/127.0.0.1/9713\nprintf 'GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3\nanswer=$(cat <&3)"
    )
}
