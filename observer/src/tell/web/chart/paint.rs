//! From the library's SVG to the page's: colours become classes, areas become links, tick labels become moments.
//!
//! plotters paints with plain colours and writes one element a line. Each thing drawn gets a colour of its own that
//! no eye will see; here it is looked up again and replaced by what it stands for.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// What a colour stands for.
#[derive(Clone, Debug, Default)]
pub(super) struct Paint {
    pub class: String,
    /// Where a click leads, and what it is called.
    pub link: Option<(String, String)>,
    /// Its text is unix seconds, to be shown as a time with ticks this far apart.
    pub time_step: Option<f64>,
}

/// All colours of one picture.
#[derive(Default)]
pub(super) struct Paints {
    paints: Vec<Paint>,
}

impl Paints {
    pub(super) fn add(&mut self, paint: Paint) -> RGBColor {
        let place = self.paints.len().min(usize::from(u16::MAX)) as u16;
        self.paints.push(paint);
        let [high, low] = place.to_be_bytes();
        RGBColor(1, high, low)
    }

    pub(super) fn class(&mut self, class: &str) -> RGBColor {
        self.add(Paint { class: class.to_owned(), ..Paint::default() })
    }

    fn find(&self, colour: &str) -> Option<&Paint> {
        let place =
            colour.strip_prefix("#01").and_then(|rest| u16::from_str_radix(rest.get(..4)?, 16).ok())?;
        self.paints.get(usize::from(place))
    }

    /// The drawing with everything replaced; `attributes` are those of the `svg` element.
    pub(super) fn apply(&self, drawn: &str, attributes: &str) -> String {
        let mut svg = String::with_capacity(drawn.len());
        let mut time_step = None;
        for line in drawn.lines() {
            if line.starts_with("<svg ") {
                let view = attribute(line, "viewBox").unwrap_or("0 0 1 1");
                let _ = writeln!(svg, "<svg viewBox=\"{view}\" {attributes}>");
            } else if let Some(element) = line.strip_prefix('<').filter(|rest| !rest.starts_with('/')) {
                let paint = ["fill", "stroke"]
                    .iter()
                    .filter_map(|name| attribute(line, name))
                    .find_map(|colour| self.find(colour));
                time_step = paint.and_then(|paint| paint.time_step);
                write_element(&mut svg, element, paint);
            } else if let (Some(step), Ok(at)) = (time_step, line.trim().parse::<f64>()) {
                // The moment itself stays readable for the script that shows it in the reader's own time zone.
                let shown = super::axis::clock(at, step);
                if svg.ends_with(">\n") {
                    svg.truncate(svg.len() - 2);
                }
                let _ = write!(svg, " data-at=\"{at:.0}\" data-step=\"{step:.0}\">{shown}");
            } else {
                svg.push_str(line);
                if !line.starts_with("</text") {
                    continue;
                }
                svg.push('\n');
            }
        }
        svg
    }
}

/// The value of an attribute in an element that the library wrote: always quoted, never with a quote inside.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let rest = element.split_once(&format!(" {name}=\""))?.1;
    rest.split_once('"').map(|(value, _)| value)
}

fn write_element(svg: &mut String, element: &str, paint: Option<&Paint>) {
    let Some((tag, rest)) = element.split_once(' ') else {
        let _ = writeln!(svg, "<{element}");
        return;
    };
    let link = paint.and_then(|paint| paint.link.as_ref());
    if let Some((href, title)) = link {
        let (href, title) = (escape(href), escape(title));
        let _ = write!(
            svg,
            "<a href=\"{href}\" data-key=\"{tag}{href}\" aria-label=\"{title}\"><title>{title}</title>"
        );
    }
    let _ = write!(svg, "<{tag}");
    if let Some(paint) = paint {
        let _ = write!(svg, " class=\"{}\"", escape(&paint.class));
    }
    let wanted: &[&str] = match tag {
        "polygon" | "polyline" => &["points"],
        "line" => &["x1", "y1", "x2", "y2"],
        "rect" => &["x", "y", "width", "height"],
        "circle" => &["cx", "cy", "r"],
        _ => &["x", "y", "dy", "text-anchor"],
    };
    let element = format!(" {rest}");
    for name in wanted {
        if let Some(value) = attribute(&element, name) {
            let _ = write!(svg, " {name}=\"{}\"", value.trim_end());
        }
    }
    svg.push_str(if rest.ends_with("/>") { "/>" } else { ">" });
    if link.is_some() {
        svg.push_str("</a>");
    }
    svg.push('\n');
}

/// For text and attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
