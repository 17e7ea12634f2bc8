//! Flame graphs, drawn by inferno: of the blocked (width is how many wait there) and of growth (width is bytes).
//!
//! Takes groups or growth sites, gives a whole SVG file that zooms and searches by itself, in light and dark.

use inferno::flamegraph::color::{BackgroundColor, BasicPalette, Color, Palette};
use inferno::flamegraph::{self, Options};

use super::folded;
use crate::sample::{Group, GrowthSite};

/// Height of one frame.
const FRAME: usize = 17;
/// What is above and below the frames.
const AROUND: usize = 70;

/// inferno paints for light only, and its way to search so faintly that nobody finds it: these few rules mend both.
const RULES: &str = "#search { opacity: .7 }\n@media (prefers-color-scheme: dark) { svg { background: #14181d } \
    svg > rect:first-of-type { fill: #14181d } \
    svg > text, #title, #subtitle, #details, #search, #matched, #unzoom { fill: #d5dbe2 } }\n";

/// What whoever serves such a file tells the browser (`Content-Security-Policy`): it runs its own script, without any
/// right on the site it came from, and only our pages frame it.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                          frame-ancestors 'self'; base-uri 'none'; form-action 'none'; \
                          sandbox allow-scripts allow-modals";

#[derive(Debug, thiserror::Error)]
pub enum SvgError {
    #[error("no stacks to draw: nothing is blocked")]
    Empty,
    #[error(
        "no stacks to draw: no memory grew that is still there, or growth is not observed (needs eBPF; see observer doctor)"
    )]
    NoGrowth,
    #[error("drawing the flame graph: {0}")]
    Draw(String),
}

/// Who is blocked where.
pub fn svg(groups: &[Group], title: &str) -> Result<Vec<u8>, SvgError> {
    let folded = folded::folded(groups);
    if folded.is_empty() {
        return Err(SvgError::Empty);
    }
    draw(&folded, title, "blocked", Palette::Basic(BasicPalette::Orange))
}

/// Which stacks first touched memory that is still there.
pub fn growth(sites: &[GrowthSite], title: &str) -> Result<Vec<u8>, SvgError> {
    let folded = folded::growth(sites);
    if folded.is_empty() {
        return Err(SvgError::NoGrowth);
    }
    draw(&folded, title, "bytes", Palette::Basic(BasicPalette::Aqua))
}

/// Pixels that the drawing of these takes.
pub fn height(groups: &[Group]) -> usize {
    // The root below, the reason above.
    let deepest = groups.iter().map(|group| group.frames.len()).max().unwrap_or(0);
    deepest.min(400).saturating_add(2) * FRAME + AROUND
}

/// As [`height`].
pub fn growth_height(sites: &[GrowthSite]) -> usize {
    let deepest = sites.iter().map(|site| site.frames.len()).max().unwrap_or(0);
    deepest.min(400).saturating_add(2) * FRAME + AROUND
}

fn draw(folded: &str, title: &str, counted: &str, colours: Palette) -> Result<Vec<u8>, SvgError> {
    let mut options = Options::default();
    options.title = title.chars().filter(|c| !c.is_control()).take(200).collect();
    options.count_name = counted.to_owned();
    options.colors = colours;
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 255, g: 255, b: 255 }));
    options.font_type = "sans-serif".to_owned();
    // As wide as there is room, and the same picture for the same stacks.
    options.image_width = None;
    options.hash = true;
    options.frame_height = FRAME;
    let mut drawn = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut drawn)
        .map_err(|e| SvgError::Draw(e.to_string()))?;
    let drawn = String::from_utf8(drawn).map_err(|e| SvgError::Draw(e.to_string()))?;
    // Only the style sheet's own end: in a name every `<` is escaped.
    Ok(drawn.replacen("</style>", &format!("{RULES}</style>"), 1).into_bytes())
}
