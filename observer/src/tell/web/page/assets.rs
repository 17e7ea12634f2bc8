//! The style sheet, the script and the sign: ours, part of the program, cached by what is in them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::OnceLock;

pub const STYLE: &str = include_str!("../assets/page.css");
pub const SCRIPT: &str = include_str!("../assets/page.js");
pub(super) const ICON: &str = include_str!("../assets/icon.svg");
/// The sign beside the name.
pub const MARK: &str = include_str!("../assets/mark.svg");

/// Changes whenever one of them does.
pub(super) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        (STYLE, SCRIPT, ICON).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    })
}
