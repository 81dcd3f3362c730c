//! Owns figures as SVG and PNG: panels with axes, bands, lines and marks, readable in light and dark and without colour.
//!
//! A pure function from a description to text; it knows no study and no law. Colours are those of Okabe and Ito
//! (2008, "Color universal design"), which people with any of the usual colour deficiencies tell apart; each series
//! also has a mark of its own.

mod axis;
mod panel;
mod png;
mod style;

pub use axis::Scale;
pub use png::PngError;

use std::fmt::Write as _;

/// Width of a figure, in pixels.
const WIDTH: f64 = 860.0;
/// Room for the title and one line of the legend above the panels, and for each further line.
const HEAD: f64 = 58.0;
const LEGEND_LINE: f64 = 19.0;
/// Where a line of the legend begins, and where it ends at the latest.
const LEGEND: (f64, f64) = (76.0, WIDTH - 12.0);
/// Room below a panel for its axis.
const FOOT: f64 = 52.0;
/// Room above a panel for its title.
const TITLE: f64 = 30.0;

/// A figure: panels below each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figure {
    /// What it is of, in one line.
    pub title: String,
    /// The names of the series, which the legend shows.
    pub series: Vec<String>,
    /// What else the legend says, such as what filled marks are.
    pub notes: Vec<String>,
    /// The panels, from the top.
    pub panels: Vec<Panel>,
}

/// One pair of axes with what is drawn between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Height of the drawing area, in pixels.
    pub height: f64,
    /// What is drawn, the first at the back.
    pub layers: Vec<Layer>,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// What it measures, with its unit.
    pub label: String,
    /// Whether equal steps are equal factors.
    pub scale: Scale,
}

/// Something drawn; `series` is a position among the figure's series.
#[derive(Debug, Clone, PartialEq)]
pub enum Layer {
    /// The area between two lines: (x, low, high).
    Band {
        /// The series.
        series: usize,
        /// Ascending in x.
        points: Vec<(f64, f64, f64)>,
    },
    /// A line.
    Line {
        /// The series; without one it is drawn in the colour of text.
        series: Option<usize>,
        /// Ascending in x.
        points: Vec<(f64, f64)>,
        /// Whether it is broken, for what lies beyond the data.
        is_dashed: bool,
        /// Text at its right end; empty for none.
        label: String,
    },
    /// Marks of the series' shape.
    Marks {
        /// The series.
        series: usize,
        /// Where.
        points: Vec<(f64, f64)>,
        /// Whether they are filled, as held-out rows are.
        is_filled: bool,
    },
    /// Marks at the upper or the lower edge, with arrows: their places lie beyond.
    Beyond {
        /// The series.
        series: usize,
        /// Where they are drawn; above zero the arrow points up, else down.
        points: Vec<(f64, f64)>,
        /// Whether they are filled, as held-out rows are.
        is_filled: bool,
    },
}

/// Room that the arrows of [`Layer::Beyond`] take, as a share of the axis on that side.
const ARROW_ROOM: f64 = 0.15;

impl Layer {
    /// Every place that must be inside the axes.
    fn places(&self) -> Vec<(f64, f64)> {
        match self {
            Self::Band { points, .. } => {
                points.iter().flat_map(|(x, low, high)| [(*x, *low), (*x, *high)]).collect()
            }
            Self::Line { points, .. } | Self::Marks { points, .. } => points.clone(),
            Self::Beyond { points, .. } => {
                points.iter().map(|(x, y)| (*x, *y * (1.0 + ARROW_ROOM))).collect()
            }
        }
    }
}

impl Figure {
    /// The figure as an SVG document; panels without anything that can be drawn are left out.
    pub fn svg(&self) -> String {
        self.styled(&style::for_readers())
    }

    /// The figure as a PNG image: what [`Figure::svg`] has, on a light ground.
    ///
    /// # Errors
    /// [`PngError`]: more pixels than memory holds.
    pub fn png(&self) -> Result<Vec<u8>, PngError> {
        png::draw(&self.styled(&style::for_drawing(png::FONT)))
    }

    fn styled(&self, css: &str) -> String {
        let mut body = String::new();
        let (legend, n_lines) = self.legend();
        let mut top = HEAD + LEGEND_LINE * (n_lines - 1) as f64;
        for (index, panel) in self.panels.iter().enumerate() {
            if let Some(drawn) = panel::draw(panel, index, top + TITLE) {
                body.push_str(&drawn);
                top += TITLE + panel.height + FOOT;
            }
        }
        let mut svg = String::new();
        let height = top + 4.0;
        // Writing to a string cannot fail.
        _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{css}</style>\n\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
            escaped(&self.title)
        );
        _ = writeln!(
            svg,
            "<text class=\"title\" x=\"70\" y=\"24\">{}</text>",
            escaped(&self.title)
        );
        svg.push_str(&legend);
        svg.push_str(&body);
        svg.push_str("</svg>\n");
        svg
    }

    /// The legend and its number of lines, at least one.
    fn legend(&self) -> (String, usize) {
        let mut text = String::new();
        let (mut x, mut line) = (LEGEND.0, 0);
        let names = self.series.iter().enumerate().map(|(index, name)| (Some(index), name));
        for (series, words) in names.chain(self.notes.iter().map(|note| (None, note))) {
            let (before, after) = if series.is_some() { (10.0, 24.0) } else { (0.0, 18.0) };
            let width = before + style::width(words);
            if x > LEGEND.0 && x + width > LEGEND.1 {
                (x, line) = (LEGEND.0, line + 1);
            }
            let y = 47.0 + LEGEND_LINE * line as f64;
            let class = if series.is_some() { "" } else { " class=\"note\"" };
            text.push_str(
                &series.map_or_else(String::new, |index| style::mark(index, (x, y - 4.0), false)),
            );
            let words = escaped(words);
            _ = writeln!(text, "<text{class} x=\"{:.1}\" y=\"{y}\">{words}</text>", x + before);
            x += width + after;
        }
        (text, line + 1)
    }
}

/// Text that is no markup.
fn escaped(text: &str) -> String {
    let clean = text.chars().filter(|letter| !letter.is_control());
    clean
        .map(|letter| match letter {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(layers: Vec<Layer>) -> Panel {
        let axis = |label: &str, scale| Axis { label: label.to_owned(), scale };
        Panel {
            title: "loss".to_owned(),
            x: axis("C, FLOPs", Scale::Log),
            y: axis("L, nats", Scale::Linear),
            height: 200.0,
            layers,
        }
    }

    fn figure(name: &str, layers: Vec<Layer>) -> String {
        let (series, panels) = (vec![name.to_owned()], vec![panel(layers)]);
        Figure { title: "t".to_owned(), series, panels, ..Figure::default() }.svg()
    }

    #[test]
    fn every_point_is_drawn_inside_its_panel_and_names_are_no_markup() {
        let points = vec![(1e18, 3.0), (1e19, 2.5), (1e20, 2.2)];
        let marks = Layer::Marks { series: 0, points, is_filled: false };
        let svg = figure("a<b & \"c\"", vec![marks]);
        assert!(svg.contains("a&lt;b &amp; &quot;c&quot;") && !svg.contains("a<b"), "{svg}");
        // One mark in the legend and three in the panel.
        assert_eq!(svg.matches("<circle class=\"mark s0\"").count(), 4, "{svg}");
        let centres = svg.split("cx=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let inside = centres.map(|x| x.parse::<f64>().unwrap()).all(|x| (0.0..WIDTH).contains(&x));
        assert!(inside, "{svg}");
        assert!(svg.contains(">10¹⁹<"), "{svg}");
    }

    #[test]
    fn a_long_legend_has_several_lines_and_every_series_a_mark_of_its_own() {
        let names: Vec<String> = (0..14).map(|i| format!("an architecture number {i}")).collect();
        let panels = vec![panel(vec![Layer::Marks {
            series: 0,
            points: vec![(1e18, 3.0), (1e19, 2.5)],
            is_filled: false,
        }])];
        let notes = vec!["shaded: 95 % interval".to_owned()];
        let svg = Figure { title: "t".to_owned(), series: names.clone(), notes, panels }.svg();
        for name in names.iter().map(String::as_str).chain(["shaded: 95 % interval"]) {
            let before = svg.split(&format!(">{name}<")).next().unwrap();
            let left = before.rsplit("x=\"").next().unwrap().split('"').next().unwrap();
            assert!(left.parse::<f64>().unwrap() + style::width(name) <= WIDTH, "{name}: {left}");
        }
        let marks: std::collections::BTreeSet<String> =
            (0..14).map(|series| style::mark(series, (0.0, 0.0), false)).collect();
        assert_eq!(marks.len(), 14);
    }

    /// Aim: a label at the end of a line is not cut by the border. Method: lines that end here and
    /// there.
    #[test]
    fn labels_stand_inside_the_panel_or_beside_it_and_never_across_its_border() {
        let border = WIDTH - 64.0;
        for end in [1.2e18, 5e18, 2e19, 6e19, 8e19, 9.5e19, 1e20] {
            let line = |label: &str, end: f64| Layer::Line {
                series: None,
                points: vec![(1e18, 3.0), (end, 2.5)],
                is_dashed: false,
                label: label.to_owned(),
            };
            let svg = figure("a", vec![line("", 1e20), line("1.0e19", end)]);
            let before = svg.split(">1.0e19<").next().unwrap();
            let left = before.rsplit("x=\"").next().unwrap().split('"').next().unwrap();
            let left: f64 = left.parse().unwrap();
            let right = left + style::width("1.0e19");
            assert!(right <= border || left >= border, "{end:e}: {left} to {right}");
            assert!(right <= WIDTH, "{right}");
        }
    }

    #[test]
    fn arrows_at_the_edge_point_outward_and_stay_inside_the_panel() {
        let points = vec![(1e18, 0.4), (1e19, -0.4)];
        let svg = figure("a", vec![Layer::Beyond { series: 0, points, is_filled: true }]);
        // One mark in the legend and two in the panel.
        assert_eq!(svg.matches("<circle class=\"mark s0").count(), 3, "{svg}");
        let arrows: Vec<&str> =
            svg.split("<polyline class=\"line s0\" points=\"").skip(1).collect();
        let heights = |arrow: &str| -> Vec<f64> {
            let points = arrow.split('"').next().unwrap().split(' ');
            points.map(|point| point.split(',').nth(1).unwrap().parse().unwrap()).collect()
        };
        let [up, down] = &arrows[..] else { panic!("{svg}") };
        let (up, down) = (heights(up), heights(down));
        assert!(up[1] < up[0] && down[1] > down[0], "{up:?} {down:?}");
        let (top, bottom) = (HEAD + TITLE, HEAD + TITLE + 200.0);
        assert!(up[1] > top && down[1] < bottom, "{up:?} {down:?}");
    }

    #[test]
    fn what_cannot_be_drawn_leaves_no_panel_and_no_number_that_is_none() {
        let points = vec![(0.0, 1.0), (f64::NAN, 2.0), (-1.0, 1.0), (1.0, f64::INFINITY)];
        let svg = figure("a", vec![Layer::Marks { series: 0, points, is_filled: true }]);
        assert!(!svg.contains("class=\"frame\""), "{svg}");
        let mixed = vec![(1.0, 1.0), (f64::NAN, 2.0)];
        let line =
            Layer::Line { series: None, points: mixed, is_dashed: true, label: String::new() };
        let svg = figure("a", vec![line]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
