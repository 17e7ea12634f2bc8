//! The initramfs: busybox, observer with the libraries it is linked to, targets in C and Go, and init.sh.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::image::Arch;
use crate::run::{self, Clock};
use crate::{place, setup};

const INIT: &str = include_str!("init.sh");

/// Returns the packed file.
pub fn initramfs(clock: Clock, observer: &Path, arch: Arch) -> Result<PathBuf> {
    let root = place::work().join("vm-root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for directory in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let bin = root.join("bin");
    let busybox = match arch {
        Arch::Amd64 => PathBuf::from("/bin/busybox"),
        Arch::Arm64 => setup::arm64_busybox()?,
    };
    fs::copy(&busybox, bin.join("busybox")).with_context(|| format!("cannot copy {}", busybox.display()))?;
    // Without its debug information it unpacks ten times faster.
    run::check(Command::new(arch.strip()).arg("-o").arg(bin.join("observer")).arg(observer))?;
    for program in [&busybox, observer] {
        libraries(program, &root)?;
    }
    c_target("sleepers/main.c", &bin.join("sleepers"), arch)?;
    c_target("grower/grower.c", &bin.join("grower"), arch)?;
    c_target("allocator/allocator.c", &bin.join("allocator"), arch)?;
    go_target(clock, &bin.join("shapes"), arch)?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

    let packed = place::work().join("vm-initramfs.gz");
    let mut pack = Command::new("sh");
    pack.current_dir(&root)
        .args(["-ec", "find . | cpio --create --format=newc --quiet | gzip -1 >\"$1\"", "sh"])
        .arg(&packed);
    run::check(&mut pack)?;
    Ok(packed)
}

/// Copies what the loader would load, to the same places.
fn libraries(program: &Path, root: &Path) -> Result<()> {
    // ldd fails for a static program, which needs nothing, and for one of another processor, which is static.
    let listed = run::output("ldd", &[program.to_str().context("a path that is no UTF-8")?]);
    for path in listed.unwrap_or_default().split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(path.trim_start_matches('/'));
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}

fn c_target(source: &str, to: &Path, arch: Arch) -> Result<()> {
    let mut gcc = Command::new(match arch {
        Arch::Amd64 => "gcc",
        Arch::Arm64 => setup::LINKER,
    });
    gcc.args(["-g", "-O1", "-fno-omit-frame-pointer", "-static", "-pthread", "-o"])
        .arg(to)
        .arg(place::root().join("xtask/targets/c").join(source));
    run::check(&mut gcc)
}

fn go_target(clock: Clock, to: &Path, arch: Arch) -> Result<()> {
    let (go, version) = setup::newest_go().context("no Go toolchain (install: cargo xtask setup)")?;
    let mut command = Command::new(go);
    command
        .current_dir(place::root().join("xtask/targets/go/shapes"))
        .args(["build", "-trimpath", "-o"])
        .arg(to)
        .arg(".")
        .env("GOARCH", arch.name())
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    clock.run_logged("build", &format!("shapes, with Go {version}"), &mut command)
}
