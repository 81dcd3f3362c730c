//! Owns how one panel is drawn: frame, grid, layers.

use std::fmt::Write as _;

use super::axis::{Ruler, has_place};
use super::{Layer, Panel, WIDTH, escaped, style};

/// Left and right end of every drawing area.
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 64.0;

/// The panel with its drawing area below `top`; `None` when nothing can be drawn.
pub(super) fn draw(panel: &Panel, index: usize, top: f64) -> Option<String> {
    let is_drawn =
        |(x, y): &(f64, f64)| has_place(panel.x.scale, *x) && has_place(panel.y.scale, *y);
    let places = panel.layers.iter().flat_map(Layer::places);
    let places: Vec<(f64, f64)> = places.filter(is_drawn).collect();
    let bottom = top + panel.height;
    let x = Ruler::around(places.iter().map(|place| place.0), panel.x.scale, (LEFT, RIGHT))?;
    let y = Ruler::around(places.iter().map(|place| place.1), panel.y.scale, (bottom, top))?;
    let mut text = format!(
        "<text class=\"heading\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n",
        top - 9.0,
        escaped(&panel.title)
    );
    text.push_str(&frame(panel, (&x, &y), (top, bottom)));
    let clip = format!("clip{index}");
    let (width, height) = (RIGHT - LEFT, panel.height);
    _ = writeln!(
        text,
        "<clipPath id=\"{clip}\"><rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width}\" \
         height=\"{height}\"/></clipPath>\n<g clip-path=\"url(#{clip})\">"
    );
    for layer in &panel.layers {
        text.push_str(&drawn(layer, &x, &y));
    }
    text.push_str("</g>\n");
    text.push_str(&labels(&panel.layers, &x, &y));
    Some(text)
}

fn frame(panel: &Panel, (x, y): (&Ruler, &Ruler), (top, bottom): (f64, f64)) -> String {
    let mut text = String::new();
    for (value, label) in x.ticks(9) {
        let Some(at) = x.pixel(value) else { continue };
        _ = writeln!(
            text,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick middle\" x=\"{at:.1}\" y=\"{:.1}\">{label}</text>",
            bottom + 17.0
        );
    }
    for (value, label) in y.ticks(if panel.height < 200.0 { 5 } else { 7 }) {
        let Some(at) = y.pixel(value) else { continue };
        _ = writeln!(
            text,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            LEFT - 7.0,
            at + 4.0
        );
    }
    let (width, height) = (RIGHT - LEFT, panel.height);
    let middle = 0.5 * (top + bottom);
    _ = writeln!(
        text,
        "<rect class=\"frame\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n\
         <text class=\"middle\" x=\"16\" y=\"{middle:.1}\" transform=\"rotate(-90 16 {middle:.1})\">{}</text>",
        0.5 * (LEFT + RIGHT),
        bottom + 35.0,
        escaped(&panel.x.label),
        escaped(&panel.y.label)
    );
    text
}

fn drawn(layer: &Layer, x: &Ruler, y: &Ruler) -> String {
    let at = |(a, b): (f64, f64)| Some((x.pixel(a)?, y.pixel(b)?));
    let path = |points: &[(f64, f64)]| -> String {
        let points = points.iter().filter_map(|place| at(*place));
        points.map(|(a, b)| format!("{a:.2},{b:.2}")).collect::<Vec<_>>().join(" ")
    };
    match layer {
        Layer::Band { series, points } => {
            let upper = points.iter().map(|(a, _, high)| (*a, *high));
            let lower = points.iter().rev().map(|(a, low, _)| (*a, *low));
            let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
            let class = series % style::N_SERIES;
            format!("<polygon class=\"band b{class}\" points=\"{}\"/>\n", path(&outline))
        }
        Layer::Line { series, points, is_dashed, .. } => {
            let class = series.map_or_else(
                || "plain".to_owned(),
                |series| format!("s{}", series % style::N_SERIES),
            );
            let dashed = if *is_dashed { " dashed" } else { "" };
            format!("<polyline class=\"line {class}{dashed}\" points=\"{}\"/>\n", path(points))
        }
        Layer::Marks { series, points, is_filled } => {
            let marks = points.iter().filter_map(|place| at(*place));
            marks.map(|place| style::mark(*series, place, *is_filled)).collect()
        }
        Layer::Beyond { series, points, is_filled } => {
            let marks = points.iter().filter_map(|place| Some((at(*place)?, place.1 > 0.0)));
            let drawn = |(place, is_up)| {
                style::mark(*series, place, *is_filled) + &style::arrow(*series, place, is_up)
            };
            marks.map(drawn).collect()
        }
    }
}

/// Texts at the right ends of lines, moved apart where they would overlap.
fn labels(layers: &[Layer], x: &Ruler, y: &Ruler) -> String {
    const HEIGHT: f64 = 12.0;
    const GAP: f64 = 6.0;
    let mut found: Vec<(f64, f64, &str)> = layers
        .iter()
        .filter_map(|layer| match layer {
            Layer::Line { points, label, .. } if !label.is_empty() => {
                let (a, b) = points.last()?;
                Some((x.pixel(*a)?, y.pixel(*b)?, label.as_str()))
            }
            _ => None,
        })
        .collect();
    found.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut text = String::new();
    let mut placed: Vec<(f64, f64, f64)> = Vec::new();
    for (a, b, label) in found {
        let width = style::width(label);
        // A label that would cross the border stands outside it.
        let a = if a + GAP + width > RIGHT { RIGHT + GAP } else { a + GAP };
        let is_near = |(left, right, _): &&(f64, f64, f64)| a < *right && a + width > *left;
        let lowest =
            placed.iter().filter(is_near).map(|one| one.2).fold(f64::NEG_INFINITY, f64::max);
        let b = b.max(lowest + HEIGHT);
        placed.push((a, a + width, b));
        _ = writeln!(
            text,
            "<text class=\"tick\" x=\"{a:.1}\" y=\"{:.1}\">{}</text>",
            b + 4.0,
            escaped(label)
        );
    }
    text
}
