//! The service under its own restrictions: what the process may do, that it observes all the same, and what a
//! configuration, a secret and a socket come to.

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
exe = "obs-piler"
name = "piler"
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

pub fn check(clock: Clock, machine: &Machine) -> Result<()> {
    machine.run(CONFIGURATION)?;
    machine.run("systemd-run --quiet --unit=obs-piler --uid=4321 --gid=4321 /usr/local/bin/obs-piler")?;
    machine.run("systemctl start observer.service")?;
    restricted(machine, &[BPF, PERFMON, SYS_PTRACE])?;
    let exposed = machine.run(&format!(
        "systemd-analyze security --threshold={MOST_EXPOSED} --no-pager observer.service | tail -n 1"
    ))?;
    clock.say("test", &format!("restricted, with three capabilities: passed; {}", exposed.trim()));

    observes(machine)?;
    let degraded = get(machine, "/metrics")?;
    let degraded: Vec<_> = degraded.lines().filter(|line| line.starts_with("observer_degraded{")).collect();
    clock.say("test", &format!("observes a process of another user: passed; {}", degraded.join(" ")));
    reloads(machine)?;

    machine.run(ADDITIONS)?;
    restricted(machine, &[BPF, PERFMON, SYS_PTRACE, CHECKPOINT_RESTORE, DAC_READ_SEARCH])?;
    let refused = get(machine, "/metrics")?;
    ensure!(refused.starts_with("HTTP/1.1 401"), "the web configuration is not in force: {refused}");
    machine.run("rm /etc/observer/web.yml /etc/systemd/system/observer.service.d/test.conf")?;
    machine.run(CONFIGURATION)?;
    clock.say("test", "reload, secrets, more capabilities: passed");

    activated(machine)?;
    clock.say("test", "started by its socket, with its history: passed");
    machine.run("systemctl stop obs-piler.service")?;
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
    for (name, value) in [("CapInh", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
        ensure!(field(name)? == value, "{name} is {}", field(name)?);
    }
    ensure!(!field("Uid")?.split_whitespace().any(|uid| uid == "0"), "it runs as root");
    Ok(())
}

/// Its threads are counted where they wait, by name, though they are another user's.
fn observes(machine: &Machine) -> Result<()> {
    machine.until("threads pile up", &format!("{}\n[[ $answer =~ observer_site_blocked[^$'\\n']*wait_for_the_gate[^$'\\n']*\\}}\\ [1-9][0-9] ]]", ask("/metrics")))?;
    let metrics = get(machine, "/metrics")?;
    ensure!(metrics.contains("observer_target_up{target=\"piler\"} 1"), "{metrics}");
    Ok(())
}

fn reloads(machine: &Machine) -> Result<()> {
    machine.run("sed -i 's/500ms/700ms/' /etc/observer/observer.toml; systemctl reload observer.service")?;
    machine.run("echo 'no such key = 1' >>/etc/observer/observer.toml; ! systemctl reload observer.service 2>/dev/null")?;
    machine.run("systemctl is-active observer.service")?;
    machine.run(CONFIGURATION)?;
    machine.run("systemctl reload observer.service")?;
    Ok(())
}

fn activated(machine: &Machine) -> Result<()> {
    machine
        .run("systemctl stop observer.service; systemctl daemon-reload; systemctl start observer.socket")?;
    machine.run("test -s /var/lib/observer/history.redb")?;
    machine.run("test \"$(systemctl is-active observer.service || :)\" = inactive")?;
    let answer = get(machine, "/readyz")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    restricted(machine, &[BPF, PERFMON, SYS_PTRACE])?;
    machine.run("systemctl stop observer.socket observer.service; systemctl start observer.service")?;
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
