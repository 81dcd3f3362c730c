//! The parameters of a network under construction: names, first values, and whether they decay.
//!
//! It does not train them and does not know the architectures.
//!
//! First values are a pure function of (seed, name, index), made on the CPU in float64 and then
//! moved: the same on every device, and the same for a tensor however many stand before it.

use tch::{Device, Tensor};

use crate::ModelsError;
use crate::ops::Linear;

/// Standard deviation of every linear and embedding weight (contract, "Initialisation"; the
/// exported code of the linear-model study uses it for all of them, with no scaling of residual
/// projections).
pub const INITIAL_STD: f64 = 0.02;

/// One tensor that training changes.
#[derive(Debug)]
pub struct Parameter {
    /// The name in the checkpoint format.
    pub name: String,
    /// The values, float32, on the network's device, requiring a gradient.
    pub tensor: Tensor,
    /// Whether weight decay applies; the rule is at [`crate::LanguageModel::decay_groups`].
    pub decays: bool,
}

/// How a tensor begins.
#[derive(Debug, Clone, Copy)]
pub enum Init {
    /// Every number the same.
    Constant(f32),
    /// N(0, [`INITIAL_STD`]²).
    Normal,
    /// 1 in column 0, 0 elsewhere.
    FirstColumn,
}

/// Where parameters are gathered while a network is built.
#[derive(Debug)]
pub struct Store {
    seed: u64,
    device: Device,
    parameters: Vec<Parameter>,
}

impl Store {
    /// An empty store.
    pub fn new(seed: u64, device: Device) -> Self {
        Self { seed, device, parameters: Vec::new() }
    }

    /// The root of the names.
    pub fn root(&mut self) -> Path<'_> {
        Path { store: self, prefix: String::new() }
    }

    /// The parameters in the order in which they were made.
    pub fn into_parameters(self) -> Vec<Parameter> {
        self.parameters
    }
}

/// A place in the dotted names, such as `layers.0.mixer`.
#[derive(Debug)]
pub struct Path<'a> {
    store: &'a mut Store,
    prefix: String,
}

impl Path<'_> {
    /// The place `name` below this one.
    pub fn sub(&mut self, name: &str) -> Path<'_> {
        let prefix = self.name(name);
        Path { store: self.store, prefix }
    }

    /// A linear layer `name.weight` without bias; its weight decays.
    pub fn linear(&mut self, name: &str, out: i64, input: i64) -> Result<Linear, ModelsError> {
        let name = format!("{name}.weight");
        Ok(Linear::new(self.add(&name, &[out, input], Init::Normal, true)?))
    }

    /// A tensor that does not decay: embedding, norm, bias and what else is no linear layer.
    pub fn tensor(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor, ModelsError> {
        self.add(name, shape, init, false)
    }

    fn add(
        &mut self,
        name: &str,
        shape: &[i64],
        init: Init,
        decays: bool,
    ) -> Result<Tensor, ModelsError> {
        let name = self.name(name);
        let values = first_values(self.store.seed, &name, shape, init);
        let tensor = Tensor::f_from_slice(&values)
            .and_then(|tensor| tensor.f_view(shape))
            .and_then(|tensor| tensor.f_to_device(self.store.device))
            .and_then(|tensor| tensor.f_set_requires_grad(true))
            .map_err(|source| ModelsError::Place { name: name.clone(), source })?;
        let shared = tensor.shallow_clone();
        self.store.parameters.push(Parameter { name, tensor, decays });
        Ok(shared)
    }

    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// The first values of a tensor, row by row.
fn first_values(seed: u64, name: &str, shape: &[i64], init: Init) -> Vec<f32> {
    let count: i64 = shape.iter().product();
    let columns = shape.last().copied().unwrap_or(1);
    match init {
        Init::Constant(value) => (0..count).map(|_| value).collect(),
        Init::FirstColumn => {
            (0..count).map(|index| if index % columns == 0 { 1.0 } else { 0.0 }).collect()
        }
        Init::Normal => {
            let mut random = SplitMix64::new(seed, name);
            (0..count).map(|_| random.normal(INITIAL_STD)).collect()
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): a counter through a mixing function, so its numbers
/// depend on no library's version.
struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a of the name tells the tensors apart; mixing the seed tells neighbouring seeds apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut of_seed = Self { state: seed };
        Self { state: hash ^ of_seed.next() }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1], never 0, from the upper 53 bits.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / 9_007_199_254_740_992.0
    }

    /// Box and Muller's transform; the second of each pair is dropped, for plainness.
    #[expect(clippy::cast_possible_truncation, reason = "the parameters are float32")]
    fn normal(&mut self, std: f64) -> f32 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        (std * radius * angle.cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_the_mean_and_spread_of_the_contract() {
        let values = first_values(7, "layers.0.mixer.q.weight", &[300, 300], Init::Normal);
        let count = values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let square = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / count;
        let fourth = values.iter().map(|value| f64::from(*value).powi(4)).sum::<f64>() / count;
        // Three standard errors of each moment for 90,000 draws.
        assert!(mean.abs() < 3.0 * INITIAL_STD / 300.0, "{mean}");
        assert!((square.sqrt() / INITIAL_STD - 1.0).abs() < 0.0071, "{square}");
        assert!((fourth / INITIAL_STD.powi(4) - 3.0).abs() < 0.1, "{fourth}");
    }

    #[test]
    fn values_are_those_they_have_always_been() {
        // A seed names a model: other values are another `numerics_version`.
        let values = first_values(7, "layers.0.mixer.q.weight", &[2, 2], Init::Normal);
        assert_eq!(values, [-0.009_108_689, 0.002_244_323, 0.023_647_22, -0.020_851_957]);
    }

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let values = |seed, name| first_values(seed, name, &[4, 4], Init::Normal);
        assert_eq!(values(1, "a"), values(1, "a"));
        assert_ne!(values(1, "a"), values(2, "a"));
        assert_ne!(values(1, "a"), values(1, "b"));
    }
}
