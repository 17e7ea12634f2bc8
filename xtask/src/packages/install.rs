//! The package itself: what dpkg does with it, and that it takes away again what it brought.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use super::machine::Machine;

/// All files but those that everything writes to: dpkg's books, logs and what lives only while the machine runs.
const FILES: &str = "find / -xdev \\( -path /var/lib/dpkg -o -path /var/log -o -path /root -o -path /var/cache/ldconfig \\) -prune -o -print";

pub fn files(machine: &Machine) -> Result<BTreeSet<String>> {
    Ok(machine.run(FILES)?.lines().map(str::to_owned).collect())
}

pub fn install(machine: &Machine) -> Result<()> {
    machine.run("dpkg --install /opt/observer.deb")?;
    machine.run("observer --version | grep 'with eBPF'")?;
    machine.run("dpkg-query -W -f '${Conffiles}' observer | grep /etc/observer/observer.toml")?;
    machine.run("observer run --config /etc/observer/observer.toml --check")?;
    for page in ["observer", "observer-attach", "observer-run", "observer-doctor"] {
        machine.run(&format!("dpkg -L observer | grep -q /usr/share/man/man1/{page}.1.gz"))?;
    }
    for unit in ["observer.service", "observer.socket"] {
        machine.run(&format!("test \"$(systemctl is-enabled {unit} || :)\" = disabled"))?;
        machine.run(&format!("test \"$(systemctl is-active {unit} || :)\" = inactive"))?;
    }
    machine.run("systemd-analyze verify observer.service observer.socket 2>&1 | { ! grep observer; }")?;
    Ok(())
}

/// To a later version while it runs: the same service again, and what was configured.
pub fn upgrade(machine: &Machine) -> Result<()> {
    let pid = "systemctl show --property MainPID --value observer.service";
    let before = machine.run(pid)?;
    machine.run("dpkg --install /opt/later.deb")?;
    machine.run("grep obs-piler /etc/observer/observer.toml")?;
    machine.run("systemctl is-active observer.service")?;
    let after = machine.run(pid)?;
    ensure!(before != after, "the old program still runs after the upgrade (pid {})", after.trim());
    Ok(())
}

pub fn remove(machine: &Machine, before: &BTreeSet<String>) -> Result<()> {
    machine.run("dpkg --remove observer")?;
    machine.run("test \"$(systemctl is-active observer.service || :)\" = inactive")?;
    machine.run("test -e /etc/observer/observer.toml && test ! -e /usr/bin/observer")?;
    machine.run(
        "rm -f /etc/systemd/system/observer.service.d/*; rmdir /etc/systemd/system/observer.service.d",
    )?;
    machine.run("dpkg --purge observer")?;
    let left: Vec<_> = files(machine)?.difference(before).cloned().collect();
    if !left.is_empty() {
        bail!("left after the purge:\n{}", left.join("\n"));
    }
    Ok(())
}
