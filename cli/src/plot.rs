//! A plot of loss against compute in characters, both axes logarithmic.
//!
//! A pure function from points to text; it knows no study. Marks tell groups apart without colour,
//! curves are drawn in braille dots behind them.

/// One measured point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    /// The horizontal value, positive.
    pub x: f64,
    /// The vertical value, positive.
    pub y: f64,
    /// Whether it was kept out of the fit.
    pub is_held_out: bool,
}

/// A group of points with its fitted curve.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// The group's name.
    pub name: String,
    /// The measured points.
    pub marks: Vec<Mark>,
    /// The fitted curve, ascending in x.
    pub curve: Vec<(f64, f64)>,
}

/// What the axes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels<'a> {
    /// The horizontal axis.
    pub x: &'a str,
    /// The vertical axis.
    pub y: &'a str,
}

/// Hollow for fitted points, filled for held-out ones.
const MARKS: [(char, char); 6] =
    [('○', '●'), ('△', '▲'), ('□', '■'), ('◇', '◆'), ('☆', '★'), ('▽', '▼')];

/// Characters of the drawing area, so that with the labels it is 80 columns wide.
const WIDTH: usize = 70;
const HEIGHT: usize = 20;

/// Braille cells are two dots wide and four high.
const DOTS: (usize, usize) = (2, 4);

/// Draws all series; empty when there is no point.
pub fn render(series: &[Series], labels: Labels<'_>) -> String {
    let points = series.iter().flat_map(|one| one.marks.iter()).filter(|mark| is_drawable(mark));
    let points: Vec<(f64, f64)> = points.map(|mark| (mark.x.ln(), mark.y.ln())).collect();
    let Some(frame) = Frame::around(&points) else { return String::new() };
    let mut canvas = Canvas::new();
    for one in series {
        canvas.draw_curve(&frame, &one.curve);
    }
    for (index, one) in series.iter().enumerate() {
        let (hollow, filled) = MARKS[index % MARKS.len()];
        for mark in one.marks.iter().filter(|mark| is_drawable(mark)) {
            canvas.put(&frame, mark, if mark.is_held_out { filled } else { hollow });
        }
    }
    let mut lines = vec![format!("{} over {}", labels.y, labels.x)];
    lines.extend(
        canvas
            .lines()
            .into_iter()
            .enumerate()
            .map(|(row, line)| format!("{} ┤{line}", frame.y_label(row)).trim_end().to_owned()),
    );
    lines.extend(frame.x_axis());
    lines.push(legend(series));
    lines.join("\n")
}

fn is_drawable(mark: &Mark) -> bool {
    mark.x > 0.0 && mark.y > 0.0 && mark.x.is_finite() && mark.y.is_finite()
}

fn legend(series: &[Series]) -> String {
    let names: Vec<String> = series
        .iter()
        .enumerate()
        .map(|(index, one)| format!("{} {}", MARKS[index % MARKS.len()].0, one.name))
        .collect();
    let has = |test: fn(&Series) -> bool| series.iter().any(test);
    let mut text = names.join("   ");
    if has(|one| one.marks.iter().any(|mark| mark.is_held_out)) {
        text.push_str("   filled: held out");
    }
    if has(|one| !one.curve.is_empty()) {
        text.push_str("   dotted: fit");
    }
    text
}

/// The ranges of both axes, as natural logarithms.
#[derive(Debug, Clone, Copy)]
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn around(points: &[(f64, f64)]) -> Option<Self> {
        let range = |of: fn(&(f64, f64)) -> f64| {
            let values = points.iter().map(of);
            let low = values.clone().fold(f64::INFINITY, f64::min);
            let high = values.fold(f64::NEG_INFINITY, f64::max);
            // A margin, and some width when all points are equal.
            let margin = if high > low { 0.03 * (high - low) } else { 0.05 };
            (low - margin, high + margin)
        };
        let is_empty = points.is_empty();
        (!is_empty).then(|| Self { x: range(|point| point.0), y: range(|point| point.1) })
    }

    /// The dot's column and row counted from the top left, for logarithms inside the frame.
    fn dot(&self, x: f64, y: f64) -> Option<(usize, usize)> {
        let column = (x - self.x.0) / (self.x.1 - self.x.0);
        let row = (self.y.1 - y) / (self.y.1 - self.y.0);
        let inside = (0.0..1.0).contains(&column) && (0.0..1.0).contains(&row);
        inside.then(|| (below(column, WIDTH * DOTS.0), below(row, HEIGHT * DOTS.1)))
    }

    /// Every fourth row has its value.
    fn y_label(&self, row: usize) -> String {
        if !row.is_multiple_of(4) {
            return " ".repeat(6);
        }
        let share = (row as f64 + 0.5) / HEIGHT as f64;
        let value = (self.y.1 - share * (self.y.1 - self.y.0)).exp();
        let is_plain = (5e-3..1e4).contains(&value.abs());
        let text = if is_plain { format!("{value:.3}") } else { format!("{value:.1e}") };
        format!("{:>6}", text.chars().take(6).collect::<String>().trim_end_matches('.'))
    }

    fn x_axis(&self) -> [String; 2] {
        let mut line: Vec<char> = "─".repeat(WIDTH).chars().collect();
        let mut names: Vec<char> = vec![' '; WIDTH + 2];
        for value in ticks((self.x.0.exp(), self.x.1.exp())) {
            let share = (value.ln() - self.x.0) / (self.x.1 - self.x.0);
            let column = below(share, WIDTH);
            line[column] = '┬';
            // Numbers that a reader says as they are, such as a loss, need no power of ten.
            let is_plain = (1e-2..1e3).contains(&value);
            let text = if is_plain { format!("{value}") } else { format!("{value:e}") };
            let start = column.saturating_sub(text.len() / 2);
            let is_free = names[start..(start + text.len() + 1).min(names.len())]
                .iter()
                .all(|letter| *letter == ' ');
            if is_free && start + text.len() <= names.len() {
                text.chars().enumerate().for_each(|(i, letter)| names[start + i] = letter);
            }
        }
        let line: String = line.into_iter().collect();
        let names: String = names.into_iter().collect();
        let names = names.trim_end();
        [format!("       └{line}"), format!("        {names}")]
    }
}

/// The cell of a share of `n` cells.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share from 0 to 1 of a small number; casts saturate"
)]
fn below(share: f64, n: usize) -> usize {
    ((share * n as f64) as usize).min(n - 1)
}

/// Powers of ten inside a range; with fewer than three of them also twice and five times each, and
/// where there are hardly any of these either, equal steps.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    // A margin may reach beyond the numbers that there are.
    let (low, high) = (low.max(f64::MIN_POSITIVE), high.min(f64::MAX));
    let decades = || {
        let first = low.log10().floor();
        let last = high.log10().ceil();
        std::iter::successors(Some(first), |power| Some(power + 1.0))
            .take_while(move |power| *power <= last)
            .map(|power| 10_f64.powf(power))
    };
    let inside = |values: Vec<f64>| -> Vec<f64> {
        values.into_iter().filter(|value| (low..high).contains(value)).collect()
    };
    let coarse = inside(decades().collect());
    if coarse.len() >= 3 {
        return coarse;
    }
    let fine = inside(decades().flat_map(|power| [power, 2.0 * power, 5.0 * power]).collect());
    if fine.len() > 1 { fine } else { inside(steps((low, high))) }
}

/// At most ten multiples of 1, 2 or 5 times a power of ten, from the lower end of a range.
fn steps((low, high): (f64, f64)) -> Vec<f64> {
    /// Steps that a range should have.
    const WANTED: f64 = 7.0;
    let rough = (high - low) / WANTED;
    if !(rough > 0.0 && rough.is_finite()) {
        return Vec::new();
    }
    let power = rough.log10().floor();
    // Divided by a whole power, three tenths are 0.3 and not 0.30000000000000004.
    let scaled = |value: f64| {
        if power < 0.0 { value / 10_f64.powf(-power) } else { value * 10_f64.powf(power) }
    };
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| scaled(*factor) >= rough);
    let factor = factor.unwrap_or(10.0);
    let first = (low / scaled(factor)).ceil();
    (0..10_u8).map(|index| scaled((first + f64::from(index)) * factor)).collect()
}

/// Braille dots below, marks above.
struct Canvas {
    dots: Vec<u8>,
    marks: Vec<Option<char>>,
}

impl Canvas {
    fn new() -> Self {
        Self { dots: vec![0; WIDTH * HEIGHT], marks: vec![None; WIDTH * HEIGHT] }
    }

    fn put(&mut self, frame: &Frame, mark: &Mark, letter: char) {
        if let Some((column, row)) = frame.dot(mark.x.ln(), mark.y.ln()) {
            let slot = &mut self.marks[row / DOTS.1 * WIDTH + column / DOTS.0];
            // A held-out point is never hidden behind another.
            let is_filled = |letter: &char| MARKS.iter().any(|(_, filled)| filled == letter);
            if !slot.as_ref().is_some_and(is_filled) || mark.is_held_out {
                *slot = Some(letter);
            }
        }
    }

    /// One dot in every column, between the curve's points in a straight line of logarithms.
    fn draw_curve(&mut self, frame: &Frame, curve: &[(f64, f64)]) {
        let n = WIDTH * DOTS.0;
        for column in 0..n {
            let share = (column as f64 + 0.5) / n as f64;
            let x = frame.x.0 + share * (frame.x.1 - frame.x.0);
            if let Some((column, row)) = height(curve, x).and_then(|y| frame.dot(x, y)) {
                self.dots[row / DOTS.1 * WIDTH + column / DOTS.0] |=
                    braille_bit(column % DOTS.0, row % DOTS.1);
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let letter = |i: usize| match (self.marks[i], self.dots[i]) {
            (Some(mark), _) => mark,
            (None, 0) => ' ',
            (None, bits) => char::from_u32(0x2800 + u32::from(bits)).unwrap_or(' '),
        };
        let row = |row: usize| (row * WIDTH..(row + 1) * WIDTH).map(letter).collect();
        (0..HEIGHT).map(row).collect()
    }
}

/// ln y of a curve at ln x, inside its range.
fn height(curve: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = curve.iter().position(|point| point.0.ln() >= x)?;
    let (right, left) = (curve[after], curve[after.checked_sub(1)?]);
    let (x0, x1) = (left.0.ln(), right.0.ln());
    let share = if x1 > x0 { (x - x0) / (x1 - x0) } else { 0.0 };
    let y = left.1.ln() + share * (right.1.ln() - left.1.ln());
    y.is_finite().then_some(y)
}

/// The bit of a dot in a braille cell (Unicode 15, section 21.1: dots 1 to 8).
fn braille_bit(column: usize, row: usize) -> u8 {
    const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
    BITS[column][row]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_draw_is_an_empty_text() {
        assert_eq!(render(&[Series::default()], Labels { x: "C", y: "L" }), "");
        let mark = Mark { x: 0.0, y: f64::NAN, is_held_out: false };
        let series = Series { marks: vec![mark], ..Series::default() };
        assert_eq!(render(&[series], Labels { x: "C", y: "L" }), "");
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_and_every_group_is_drawn() {
        let series: Vec<Series> = (0..4_u32)
            .map(|group| {
                let y = |x: f64| (8.0 + f64::from(group)) * x.powf(-0.02);
                let xs = [1e10, 3e10, 1e11, 1e12];
                let mark = |x: f64| Mark { x, y: y(x), is_held_out: x > 5e11 };
                Series {
                    name: format!("group{group}"),
                    marks: xs.map(mark).into(),
                    curve: xs.map(|x| (x, y(x))).into(),
                }
            })
            .collect();
        let text = render(&series, Labels { x: "C, FLOPs", y: "L, nats per token" });
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for (hollow, filled) in &MARKS[..4] {
            assert!(text.contains(*hollow) && text.contains(*filled), "{text}");
        }
        for tick in ["1e10", "1e11", "1e12"] {
            assert!(text.contains(tick), "{text}");
        }
    }

    #[test]
    fn ticks_within_a_decade_are_not_only_powers_of_ten() {
        assert_eq!(ticks((1.5e10, 6e10)), [2e10, 5e10]);
        assert_eq!(ticks((1e3, 2e6)), [1e3, 1e4, 1e5, 1e6]);
        // Losses and accuracies lie within a decade.
        assert_eq!(ticks((2.3, 4.4)), [2.5, 3.0, 3.5, 4.0]);
        assert_eq!(ticks((0.23, 0.41)), [0.25, 0.3, 0.35, 0.4]);
        assert_eq!(ticks((3.1e8, 3.9e8)), [3.2e8, 3.4e8, 3.6e8, 3.8e8]);
    }

    #[test]
    fn a_range_to_the_ends_of_numbers_has_ticks_without_running_on() {
        assert!(ticks((0.0, 1.0)).len() < 400);
        assert!(ticks((1.0, f64::INFINITY)).len() < 400);
    }
}
