//! Owns how values lie along an axis, and where its ticks are.

/// How values lie along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps are equal differences.
    Linear,
    /// Equal steps are equal factors; only positive values can be drawn.
    Log,
}

/// Share of the range left free at each end.
const MARGIN: f64 = 0.04;

/// An axis with its range, from pixel to pixel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ruler {
    scale: Scale,
    /// Ends of the range, as logs on a log scale.
    ends: (f64, f64),
    /// Where they are drawn.
    pixels: (f64, f64),
}

impl Ruler {
    /// Around all values that can be drawn; `None` without any.
    pub(super) fn around(
        values: impl Iterator<Item = f64>,
        scale: Scale,
        pixels: (f64, f64),
    ) -> Option<Self> {
        let placed = values.filter_map(|value| place(scale, value));
        let ends = placed.fold(None, |ends: Option<(f64, f64)>, at| {
            let (low, high) = ends.unwrap_or((at, at));
            Some((low.min(at), high.max(at)))
        });
        let (low, high) = ends?;
        let margin = if high > low { MARGIN * (high - low) } else { 0.05 * low.abs().max(1e-9) };
        Some(Self { scale, ends: (low - margin, high + margin), pixels })
    }

    /// The pixel of a value; `None` for what cannot be drawn.
    pub(super) fn pixel(&self, value: f64) -> Option<f64> {
        let share = (place(self.scale, value)? - self.ends.0) / (self.ends.1 - self.ends.0);
        Some(self.pixels.0 + share * (self.pixels.1 - self.pixels.0))
    }

    /// Values with their text, few enough for the axis.
    pub(super) fn ticks(&self, at_most: usize) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => linear(self.ends, at_most),
            Scale::Log => {
                // The margin may reach beyond the numbers that there are.
                let low = self.ends.0.exp().max(f64::MIN_POSITIVE);
                let high = self.ends.1.exp().min(f64::MAX);
                let values = decades(low, high, at_most);
                // Within a decade or so the values themselves say more than their powers.
                if high / low < 12.0 && values.len() < 4 {
                    return linear((low, high), at_most);
                }
                values.into_iter().map(|value| (value, power(value))).collect()
            }
        }
    }
}

/// Whether a value lies anywhere on an axis.
pub(super) fn has_place(scale: Scale, value: f64) -> bool {
    place(scale, value).is_some()
}

fn place(scale: Scale, value: f64) -> Option<f64> {
    let placed = match scale {
        Scale::Linear => value,
        Scale::Log if value > 0.0 => value.ln(),
        Scale::Log => return None,
    };
    placed.is_finite().then_some(placed)
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear((low, high): (f64, f64), at_most: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / at_most.max(1) as f64;
    if !(rough > 0.0 && rough.is_finite()) {
        return Vec::new();
    }
    let ten = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * ten);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * ten);
    let first = (low / step).ceil();
    let values = (0..=at_most).map(|index| (first + index as f64) * step);
    values.take_while(|value| *value <= high).map(|value| (value, plain(value, step))).collect()
}

/// A multiple of `step` with as many digits as the step has.
fn plain(value: f64, step: f64) -> String {
    let largest = value.abs().max(step);
    if !(1e-3..1e5).contains(&largest) {
        return power(value);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of digits from 0 to 9"
    )]
    let n_digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let value = if value == 0.0 { 0.0 } else { value };
    format!("{value:.n_digits$}").replace('-', "−")
}

/// Powers of ten, every n-th of them; with few also twice and five times each.
fn decades(low: f64, high: f64, at_most: usize) -> Vec<f64> {
    let (first, last) = (low.log10().floor(), high.log10().ceil());
    let powers = || std::iter::successors(Some(first), |power| Some(power + 1.0));
    let powers: Vec<f64> = powers().take_while(|power| *power <= last).collect();
    let inside = |value: &f64| low <= *value && *value <= high;
    let step = powers.len().div_ceil(at_most.max(1)).max(1);
    let coarse: Vec<f64> =
        powers.iter().step_by(step).map(|power| 10_f64.powf(*power)).filter(inside).collect();
    if coarse.len() >= 3 {
        return coarse;
    }
    let fine = powers.iter().flat_map(|power| [1.0, 2.0, 5.0].map(|f| f * 10_f64.powf(*power)));
    fine.filter(inside).collect()
}

/// A value as a number times a power of ten.
pub(super) fn power(value: f64) -> String {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = format!("{value:.2e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let raised: String = exponent
        .chars()
        .map(|letter| letter.to_digit(10).map_or('⁻', |digit| RAISED[digit as usize]))
        .collect();
    match digits {
        "0" => "0".to_owned(),
        "1" => format!("10{raised}"),
        "-1" => format!("−10{raised}"),
        digits => format!("{}·10{raised}", digits.replace('-', "−")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(scale: Scale, low: f64, high: f64, at_most: usize) -> Vec<String> {
        let ruler = Ruler::around([low, high].into_iter(), scale, (0.0, 100.0)).unwrap();
        ruler.ticks(at_most).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(Scale::Log, 1e18, 1e21, 8), ["10¹⁸", "10¹⁹", "10²⁰", "10²¹"]);
        assert_eq!(ticks(Scale::Linear, -1.0, 1.0, 5), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(ticks(Scale::Log, 2.0, 4.1, 6), ["2.0", "2.5", "3.0", "3.5", "4.0"]);
        assert_eq!(ticks(Scale::Log, 2e6, 3e7, 8), ["2·10⁶", "5·10⁶", "10⁷", "2·10⁷"]);
        assert!(ticks(Scale::Log, 1.0, 1e30, 6).len() <= 7);
        assert!(ticks(Scale::Linear, 5.0, 5.0, 6).len() <= 7);
    }

    /// Aim: the ends of the range of numbers have ticks like any others, and not without end.
    #[test]
    fn the_smallest_and_the_largest_numbers_have_few_ticks() {
        for (low, high) in [(5e-324, 1.0), (1.0, f64::MAX), (5e-324, f64::MAX), (1e-310, 1e-309)] {
            for scale in [Scale::Log, Scale::Linear] {
                assert!(ticks(scale, low, high, 7).len() <= 8, "{low} to {high}");
            }
        }
    }

    #[test]
    fn values_lie_between_the_pixels_and_what_has_no_logarithm_lies_nowhere() {
        let ruler = Ruler::around([1.0, 100.0].into_iter(), Scale::Log, (0.0, 100.0)).unwrap();
        assert!((ruler.pixel(10.0).unwrap() - 50.0).abs() < 1e-9);
        assert_eq!(ruler.pixel(0.0), None);
        assert_eq!(ruler.pixel(f64::NAN), None);
        assert!(Ruler::around([f64::NAN].into_iter(), Scale::Linear, (0.0, 1.0)).is_none());
    }
}
