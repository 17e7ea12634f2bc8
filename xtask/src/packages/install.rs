//! The package itself: what dpkg does with it, and that it takes away again what it brought.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use super::machine::Machine;

/// All files but those that everything writes to: dpkg's books, logs and what lives only while the machine runs.
const FILES: &str = "find / -xdev \\( -path /var/lib/dpkg -o -path /var/log -o -path /root -o -path /var/cache/ldconfig \\) -prune -o -print";

/// The same as a later version, with another configuration.
const LATER: &str = "
dpkg-deb --raw-extract /opt/observer.deb /opt/later
sed -i 's/^Version: .*/Version: 999.0-1/' /opt/later/DEBIAN/control
echo '# later' >>/opt/later/etc/observer/observer.toml
dpkg-deb --build -Znone /opt/later /opt/later.deb
rm -r /opt/later
";

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
    // Without the manual, for which there is no `man` here; of other units it has its own to say.
    machine.run(
        "systemd-analyze verify --man=no observer.service observer.socket 2>&1 | { ! grep observer; }",
    )?;
    Ok(())
}

/// To a later version while it runs: the same service again, and what was configured, though the package has another
/// configuration now.
pub fn upgrade(machine: &Machine) -> Result<()> {
    let pid = "systemctl show --property MainPID --value observer.service";
    let before = machine.run(pid)?;
    machine.run(LATER)?;
    machine.run("systemctl enable observer.service; dpkg --install --force-confold /opt/later.deb")?;
    machine.run(
        "grep 500ms /etc/observer/observer.toml; grep '# later' /etc/observer/observer.toml.dpkg-dist",
    )?;
    machine.run("systemctl is-active observer.service; systemctl is-enabled observer.service")?;
    let after = machine.run(pid)?;
    ensure!(before != after, "the old program still runs after the upgrade (pid {})", after.trim());
    Ok(())
}

/// Removed it leaves configuration and history, to be there when it comes again; purged, nothing.
pub fn remove(machine: &Machine, before: &BTreeSet<String>) -> Result<()> {
    machine.run("dpkg --remove observer")?;
    machine.run("test \"$(systemctl is-active observer.service || :)\" = inactive")?;
    machine.run("test -e /etc/observer/observer.toml && test ! -e /usr/bin/observer")?;
    machine.run("dpkg --install --force-confold /opt/later.deb; rm /opt/later.deb")?;
    machine.run("grep 500ms /etc/observer/observer.toml; systemctl start observer.service")?;
    machine.run("systemctl is-enabled observer.service; test -s /var/lib/observer/history.redb")?;
    machine.run("rm -rf /etc/systemd/system/observer.service.d")?;
    machine.run("dpkg --purge observer; ! pidof observer")?;
    let left: Vec<_> = files(machine)?.difference(before).cloned().collect();
    if !left.is_empty() {
        bail!("left after the purge:\n{}", left.join("\n"));
    }
    Ok(())
}
