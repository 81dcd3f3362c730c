//! The peak learning rate that a study gets when it names none.
//!
//! It does not know schedules, batches or the length of a run, and is no substitute for tuning: a law
//! fitted to one rate per width says what these models do at that rate.

use super::{Architecture, ModelConfig};

/// A width and the peak rate of AdamW that a source trained it with.
type Anchor = (u32, f64);

/// "Scaling Laws for Linear Complexity Language Models" (arXiv 2406.16690): 3e-4 for TNL,
/// HGRN2 and cosFormer2 from width 512 to 4096, the same for all sizes.
const LINEAR: [Anchor; 2] = [(512, 3e-4), (4096, 3e-4)];

/// The same study's baseline, and above it LLaMA (arXiv 2302.13971, table 2): 3e-4 at the widths 4096
/// and 5120, 1.5e-4 at 6656 and 8192.
const LLAMA: [Anchor; 4] = [(512, 3e-4), (5120, 3e-4), (6656, 1.5e-4), (8192, 1.5e-4)];

impl ModelConfig {
    /// The default peak learning rate, by architecture and width.
    ///
    /// Between the widths that a source trained, the rate is theirs, on a straight line in logarithms
    /// where it changes. Beyond them no source for these models was found; there the rate goes with
    /// 1/width from the nearest, as Adam's rate for hidden matrices does under μP (Yang et al. 2022,
    /// arXiv 2203.03466, table 3). These models are not parametrised by μP, so that part is our
    /// extrapolation.
    ///
    /// | width | `tnl`, `hgrn2`, `cosformer2` | `llama` |
    /// |---|---|---|
    /// | below 512 | 3e-4 · 512 / d | 3e-4 · 512 / d |
    /// | 512 to 4096 | 3e-4 | 3e-4 |
    /// | to 5120 | 3e-4 · 4096 / d | 3e-4 |
    /// | 6656 to 8192 | 3e-4 · 4096 / d | 1.5e-4 |
    /// | above 8192 | 3e-4 · 4096 / d | 1.5e-4 · 8192 / d |
    ///
    /// ```
    /// use domain::model::{Architecture, ModelConfig, Shape};
    ///
    /// let shape = Shape { vocab_size: 64, d_model: 128, n_layers: 2, n_heads: 2, ffn_hidden: 40 };
    /// let config = ModelConfig::new(Architecture::Tnl, shape)?;
    /// assert!((config.default_learning_rate() - 1.2e-3).abs() < 1e-15);
    /// # Ok::<(), domain::model::ModelError>(())
    /// ```
    pub fn default_learning_rate(&self) -> f64 {
        let anchors = match self.architecture() {
            Architecture::Llama => LLAMA.as_slice(),
            Architecture::Tnl | Architecture::Hgrn2 | Architecture::CosFormer2 => &LINEAR,
        };
        rate_at(self.shape.d_model, anchors)
    }
}

/// The rate at a width, given anchors by rising width.
fn rate_at(width: u32, anchors: &[Anchor]) -> f64 {
    let by_width = |(from, rate): Anchor| rate * f64::from(from) / f64::from(width);
    let (first, last) = (anchors[0], anchors[anchors.len() - 1]);
    if width < first.0 {
        return by_width(first);
    }
    let around = anchors.windows(2).find(|pair| width <= pair[1].0);
    let Some(&[(narrow, low), (wide, high)]) = around else { return by_width(last) };
    let share =
        (f64::from(width) / f64::from(narrow)).ln() / (f64::from(wide) / f64::from(narrow)).ln();
    low * (high / low).powf(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Shape;

    #[track_caller]
    fn check(architecture: Architecture, d_model: u32, expected: f64) {
        let shape = Shape { vocab_size: 64, d_model, n_layers: 2, n_heads: 2, ffn_hidden: 8 };
        let found = ModelConfig::new(architecture, shape).unwrap().default_learning_rate();
        assert!((found / expected - 1.0).abs() < 1e-12, "{found:e} at {d_model}");
    }

    const LINEAR_THREE: [Architecture; 3] =
        [Architecture::Tnl, Architecture::Hgrn2, Architecture::CosFormer2];

    #[test]
    fn the_widths_of_the_published_studies_have_their_rates() {
        for d_model in [512, 768, 1024, 1536, 2560, 4096] {
            check(Architecture::Llama, d_model, 3e-4);
            for linear in LINEAR_THREE {
                check(linear, d_model, 3e-4);
            }
        }
        check(Architecture::Llama, 5120, 3e-4);
        check(Architecture::Llama, 6656, 1.5e-4);
        check(Architecture::Llama, 8192, 1.5e-4);
    }

    #[test]
    fn beyond_them_the_rate_goes_with_one_over_the_width() {
        for architecture in [Architecture::Llama, Architecture::Hgrn2] {
            check(architecture, 256, 6e-4);
            check(architecture, 64, 2.4e-3);
        }
        check(Architecture::Llama, 16_384, 0.75e-4);
        for linear in LINEAR_THREE {
            check(linear, 8192, 1.5e-4);
        }
    }

    #[test]
    fn the_rate_never_rises_with_the_width() {
        for anchors in [LINEAR.as_slice(), &LLAMA] {
            let rates: Vec<f64> = (1..600).map(|step| rate_at(step * 32, anchors)).collect();
            let rise = rates.windows(2).find(|pair| pair[1] > pair[0] * (1.0 + 1e-12));
            assert_eq!(rise, None);
        }
    }
}
