//! The drawing itself, through plotters.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _};
use plotters::element::{PathElement, Polygon, Text};
use plotters::prelude::{Cartesian2d, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, RGBColor, TRANSPARENT, TextStyle};

use super::axis::{self, Marked};
use super::layers::{Kind, Layer, Picture};
use super::paint::{Paint, Paints, escape};
use crate::escape::escape as harmless;
use crate::format;

/// The library places everything on whole units: so many to a pixel of the page.
const FINE: u32 = 4;
/// Pixels that a character of a label takes, roughly.
const CHARACTER: f64 = 6.6;

/// Which reader it is for. Text keeps its size, so a narrow picture is another picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Wide,
    Narrow,
}

impl Size {
    fn pixels(self) -> (u32, u32) {
        match self {
            Self::Wide => (1040, 340),
            Self::Narrow => (400, 280),
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Wide => "chart wide",
            Self::Narrow => "chart narrow",
        }
    }
}

type Failed = DrawingAreaErrorKind<std::io::Error>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Marked, Marked>>;

/// The whole picture with its axes; `label` says in words what it shows. Empty when there is nothing to draw yet.
pub fn picture(picture: &Picture, size: Size, label: &str) -> String {
    if picture.is_empty() {
        return String::new();
    }
    let mut paints = Paints::default();
    let mut drawn = String::new();
    let (width, height) = size.pixels();
    let done = draw_picture(picture, size, &mut paints, &mut drawn, (width * FINE, height * FINE));
    if done.is_err() {
        // Nothing fails when drawing to memory.
        return String::new();
    }
    let attributes = format!("class=\"{}\" role=\"group\" aria-label=\"{}\"", size.class(), escape(label));
    paints.apply(&drawn, &attributes)
}

/// The same in the size of a word, without axes and links.
pub fn sparkline(picture: &Picture, label: &str) -> String {
    let mut paints = Paints::default();
    let mut drawn = String::new();
    let done = (|| -> Result<(), Failed> {
        let root = SVGBackend::with_string(&mut drawn, (180 * FINE, 36 * FINE)).into_drawing_area();
        if !picture.is_empty() {
            let top = (picture.highest() * 1.08).max(1024.0);
            let mut chart = ChartBuilder::on(&root).margin(2 * FINE).build_cartesian_2d(
                Marked::new(picture.first_at()..picture.last_at(), Vec::new()),
                Marked::new(0.0..top, Vec::new()),
            )?;
            draw_areas(&mut chart, picture, &mut paints, false)?;
            draw_line(&mut chart, picture, paints.class("memory"))?;
        }
        root.present()
    })();
    if done.is_err() {
        return String::new();
    }
    paints.apply(
        &drawn,
        &format!(
            "class=\"spark\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\"",
            escape(label)
        ),
    )
}

fn draw_picture(
    picture: &Picture,
    size: Size,
    paints: &mut Paints,
    drawn: &mut String,
    extent: (u32, u32),
) -> Result<(), Failed> {
    let root = SVGBackend::with_string(drawn, extent).into_drawing_area();
    let highest = picture.highest().max(picture.limit.unwrap_or(0.0));
    let sizes = axis::sizes(highest * 1.09, 6);
    let top = (highest * 1.1).max(1024.0);
    let times = axis::times(picture.first_at(), picture.last_at(), if size == Size::Wide { 9 } else { 4 });
    let time_step = times.step;

    let mut chart = ChartBuilder::on(&root)
        .margin_top(6 * FINE)
        .margin_right(22 * FINE)
        .margin_left(2 * FINE)
        .x_label_area_size(24 * FINE)
        .y_label_area_size(62 * FINE)
        .build_cartesian_2d(
            Marked::new(picture.first_at()..picture.last_at(), times.at),
            Marked::new(0.0..top, sizes.at),
        )?;
    let clock = paints.add(Paint { class: "tick".into(), link: None, time_step: Some(time_step) });
    let tick = paints.class("tick");
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(paints.class("grid"))
        .axis_style(paints.class("axis"))
        .x_labels(64)
        .y_labels(64)
        .x_label_formatter(&|at: &f64| format!("{at:.0}"))
        .y_label_formatter(&|size: &f64| format::bytes(*size))
        .x_label_style(font(clock))
        .y_label_style(font(tick))
        .draw()?;

    draw_areas(&mut chart, picture, paints, true)?;
    let right = picture.last_at();
    if let Some(limit) = picture.limit {
        let line = paints.class("limit");
        chart.draw_series([PathElement::new(vec![(picture.first_at(), limit), (right, limit)], line)])?;
    }
    for at in &picture.restarts {
        let line = paints.class("restart");
        chart.draw_series([PathElement::new(vec![(*at, 0.0), (*at, top)], line)])?;
    }
    draw_line(&mut chart, picture, paints.class("memory"))?;

    let plot = chart.plotting_area().strip_coord_spec();
    let (across, _) = plot.dim_in_pixel();
    let place = |at: f64, bytes: f64| {
        let (x, y) = chart.backend_coord(&(at, bytes));
        let (left, above) = plot.get_base_pixel();
        (x - left, y - above)
    };
    let mut labels = Labels { plot: &plot, paints, across: across as i32 };
    for (number, at) in picture.restarts.iter().enumerate() {
        // A target that restarts all the time is marked often and named once.
        if number == 0 || picture.restarts.len() < 4 {
            let (x, _) = place(*at, top);
            labels.write("restart", "note", (x, 4 * FINE as i32), VPos::Top)?;
        }
    }
    if let Some(limit) = picture.limit {
        let (_, y) = place(right, limit);
        labels.write(
            &format!("limit {}", format::bytes(limit)),
            "note limit-label",
            (8 * FINE as i32, y - 3 * FINE as i32),
            VPos::Bottom,
        )?;
    }
    if let Some((x, y, text)) = culprit_label(picture, &place, across) {
        labels.write_end(&text, "on-culprit", (x, y), VPos::Center)?;
    }
    root.present()
}

fn font(colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", 12 * FINE).into_font().color(&colour)
}

struct Labels<'a, 'b> {
    plot: &'a DrawingArea<SVGBackend<'b>, Shift>,
    paints: &'a mut Paints,
    across: i32,
}

impl Labels<'_, '_> {
    /// To the right of a point, or to its left where there is no room.
    fn write(&mut self, text: &str, class: &str, (x, y): (i32, i32), v: VPos) -> Result<(), Failed> {
        let width = (text.chars().count() as f64 * CHARACTER) as i32 * FINE as i32;
        let gap = 4 * FINE as i32;
        if x + gap + width > self.across {
            return self.write_end(text, class, (x - gap, y), v);
        }
        self.put(text, class, (x + gap, y), Pos::new(HPos::Left, v))
    }

    fn write_end(&mut self, text: &str, class: &str, at: (i32, i32), v: VPos) -> Result<(), Failed> {
        self.put(text, class, at, Pos::new(HPos::Right, v))
    }

    fn put(&mut self, text: &str, class: &str, at: (i32, i32), anchor: Pos) -> Result<(), Failed> {
        let style = font(self.paints.class(class)).pos(anchor);
        self.plot.draw(&Text::new(harmless(text).into_owned(), at, style))
    }
}

/// Where the first culprit's name fits into its area: near the right end, just above what lies below it.
fn culprit_label(
    picture: &Picture,
    place: &impl Fn(f64, f64) -> (i32, i32),
    across: u32,
) -> Option<(i32, i32, String)> {
    let layer = picture.layers.iter().find(|layer| layer.kind == Kind::Culprit(0))?;
    let text = layer.words();
    let fine = f64::from(FINE);
    let wide = text.chars().count() as f64 * CHARACTER * fine;
    let last = picture.at.len().checked_sub(1)?;
    let (right, _) = place(picture.last_at(), 0.0);
    let from = f64::from(right) - 12.0 * fine - wide;
    if text.chars().count() > 70 || from < 0.0 || f64::from(across) < wide {
        return None;
    }
    let below = |moment: usize| -> f64 {
        let under = picture.layers.iter().take_while(|other| other.id != layer.id);
        under.map(|other| other.bytes.get(moment).copied().unwrap_or(0.0)).sum()
    };
    // The text's box must lie between both edges over all its width.
    let (mut floor, mut ceiling) = (i32::MAX, i32::MIN);
    for moment in 0..=last {
        let at = picture.at.get(moment).copied()?;
        let (x, low) = place(at, below(moment));
        if f64::from(x) < from {
            continue;
        }
        let (_, high) = place(at, below(moment) + layer.bytes.get(moment).copied().unwrap_or(0.0));
        floor = floor.min(low);
        ceiling = ceiling.max(high);
    }
    let room = i64::from(floor) - i64::from(ceiling);
    let middle = floor.checked_sub(11 * FINE as i32)?;
    (room >= i64::from(18 * FINE)).then_some((right - 10 * FINE as i32, middle, text))
}

fn draw_line(chart: &mut Chart<'_>, picture: &Picture, colour: RGBColor) -> Result<(), Failed> {
    for stretch in &picture.stretches {
        let line: Vec<(f64, f64)> = stretch
            .clone()
            .filter_map(|moment| Some((*picture.at.get(moment)?, *picture.resident.get(moment)?)))
            .collect();
        if line.len() > 1 {
            chart.draw_series([PathElement::new(line, colour.stroke_width(FINE * 2))])?;
        }
    }
    Ok(())
}

fn draw_areas(
    chart: &mut Chart<'_>,
    picture: &Picture,
    paints: &mut Paints,
    linked: bool,
) -> Result<(), Failed> {
    let mut floor = vec![0.0; picture.at.len()];
    for layer in &picture.layers {
        let ceiling: Vec<f64> = floor.iter().zip(&layer.bytes).map(|(low, bytes)| low + bytes).collect();
        let colour = paints.add(Paint {
            class: class(layer.kind),
            link: linked.then(|| link(layer)),
            time_step: None,
        });
        for stretch in &picture.stretches {
            let stretch = trimmed(stretch, &layer.bytes);
            if stretch.len() < 2 {
                continue;
            }
            let point = |edge: &[f64], moment: usize| Some((*picture.at.get(moment)?, *edge.get(moment)?));
            let mut outline: Vec<(f64, f64)> =
                stretch.clone().filter_map(|moment| point(&floor, moment)).collect();
            outline.extend(stretch.rev().filter_map(|moment| point(&ceiling, moment)));
            chart.draw_series([Polygon::new(outline, colour)])?;
        }
        floor = ceiling;
    }
    Ok(())
}

/// Without the moments before and after in which there is nothing.
fn trimmed(stretch: &std::ops::Range<usize>, bytes: &[f64]) -> std::ops::Range<usize> {
    let there = |moment: &usize| bytes.get(*moment).is_some_and(|bytes| *bytes > 0.0);
    match (stretch.clone().find(there), stretch.clone().rev().find(there)) {
        (Some(first), Some(last)) => {
            first.saturating_sub(1).max(stretch.start)..last.saturating_add(2).min(stretch.end)
        }
        _ => 0..0,
    }
}

/// The style class of an area and its legend.
pub fn class(kind: Kind) -> String {
    match kind {
        Kind::Culprit(rank) => format!("area culprit-{}", rank.min(4)),
        Kind::Steady(rank) => format!("area steady-{}", rank.min(4)),
        Kind::Rest => "area rest".to_owned(),
    }
}

fn link(layer: &Layer) -> (String, String) {
    let title = format!("{}: {}", harmless(&layer.words()), format::bytes(layer.last_bytes()));
    match layer.id {
        Some(id) => (format!("#group-{:016x}", id.0), title),
        None => ("#groups".to_owned(), title),
    }
}
