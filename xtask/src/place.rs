//! Where things are: the checkout, what cargo built, the user's cache.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

/// The root of the checkout.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        manifest.parent().unwrap_or(manifest).to_path_buf()
    })
}

/// Cargo's target directory: `CARGO_TARGET_DIR` or the default.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |given| root().join(given))
}

/// What xtask itself makes: logs and the demo's programs.
pub fn work() -> PathBuf {
    target().join("xtask")
}

/// Go toolchains that set-up unpacked, a directory a version.
pub fn go_toolchains() -> Result<PathBuf> {
    Ok(cache()?.join("go"))
}

/// What checks manifests and the dashboard.
pub fn validators() -> Result<PathBuf> {
    Ok(cache()?.join("validate"))
}

/// What was downloaded and is worth keeping.
pub fn cache() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(cache).join("observer"));
    }
    env::home_dir().map(|home| home.join(".cache/observer")).context("no home directory (set HOME)")
}

/// The path as a person would write it: relative to where they stand, when that is shorter.
pub fn shown(path: &Path) -> String {
    let relative =
        env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    relative.as_deref().unwrap_or(path).display().to_string()
}
