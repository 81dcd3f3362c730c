//! The exponential moving average of the weights, which is published in their place.
//!
//! It trains nothing and writes no file.

use domain::spec::WeightAverageSpec;
use tch::{TchError, Tensor};

use crate::checkpoint::{CheckpointError, NamedTensors};

/// An average of weights over the updates of a run.
#[derive(Debug)]
pub(super) struct WeightAverage {
    decay: f64,
    n_updates: u64,
    /// Of the weights' names and shapes; before the first update the weights themselves.
    tensors: NamedTensors,
}

impl WeightAverage {
    /// The average of no update yet.
    pub(super) fn new(spec: WeightAverageSpec, weights: &NamedTensors) -> Result<Self, TchError> {
        let WeightAverageSpec::Ema { decay } = spec;
        let copy = |(name, weight): &(String, Tensor)| {
            let mut copy = weight.f_empty_like()?;
            copy.f_copy_(weight)?;
            Ok::<_, TchError>((name.clone(), copy))
        };
        let tensors = tch::no_grad(|| weights.iter().map(copy).collect::<Result<_, _>>())?;
        Ok(Self { decay, n_updates: 0, tensors })
    }

    /// Takes the weights after an update in.
    ///
    /// The newest weights of t count (1 − β) / (1 − βᵗ) of the average, which is the plain moving
    /// average divided by the sum of its coefficients, 1 − βᵗ (Kingma and Ba 2015, section 7.2).
    pub(super) fn update(&mut self, weights: &NamedTensors) -> Result<(), TchError> {
        self.n_updates += 1;
        let share = newest_share(self.decay, self.n_updates);
        tch::no_grad(|| {
            for ((_, average), (_, weight)) in self.tensors.iter_mut().zip(weights) {
                let _itself = average.f_lerp_(weight, share)?;
            }
            Ok(())
        })
    }

    /// The averaged weights, sharing memory with this.
    pub(super) fn tensors(&self) -> NamedTensors {
        let share = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.shallow_clone());
        self.tensors.iter().map(share).collect()
    }

    /// How many updates were taken in.
    pub(super) fn n_updates(&self) -> u64 {
        self.n_updates
    }

    /// Goes on from what a checkpoint kept, whose tensors have this average's names and shapes.
    pub(super) fn restore(
        &mut self,
        tensors: &NamedTensors,
        n_updates: u64,
    ) -> Result<(), CheckpointError> {
        self.n_updates = n_updates;
        tch::no_grad(|| {
            for ((name, average), (_, kept)) in self.tensors.iter_mut().zip(tensors) {
                average
                    .f_copy_(kept)
                    .map_err(|source| CheckpointError::Copy { name: name.clone(), source })?;
            }
            Ok(())
        })
    }
}

/// (1 − β) / (1 − βᵗ).
fn newest_share(decay: f64, n_updates: u64) -> f64 {
    (1.0 - decay) / (1.0 - decay.powf(n_updates as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(value: f32) -> NamedTensors {
        vec![("w".to_owned(), Tensor::from_slice(&[value, -value]))]
    }

    fn first(tensors: &NamedTensors) -> f64 {
        tensors[0].1.double_value(&[0])
    }

    #[test]
    fn the_average_is_the_weighted_mean_of_the_weights_after_each_update() {
        let decay = 0.9;
        let mut average =
            WeightAverage::new(WeightAverageSpec::Ema { decay }, &named(100.0)).unwrap();
        assert_eq!(first(&average.tensors()), 100.0);
        let (mut sum, mut weight) = (0.0, 0.0);
        for t in 1_u8..=30 {
            let value = f32::from(t).sqrt();
            average.update(&named(value)).unwrap();
            (sum, weight) = (decay * sum + f64::from(value), decay * weight + 1.0);
            assert!((first(&average.tensors()) - sum / weight).abs() < 1e-5, "update {t}");
        }
        // The first weights, those before any update, are not in it.
        assert!(first(&average.tensors()) < 6.0);
    }

    #[test]
    fn it_goes_on_from_what_was_kept() {
        let spec = WeightAverageSpec::Ema { decay: 0.7 };
        let mut straight = WeightAverage::new(spec, &named(0.0)).unwrap();
        straight.update(&named(1.0)).unwrap();
        let mut resumed = WeightAverage::new(spec, &named(9.0)).unwrap();
        resumed.restore(&straight.tensors(), straight.n_updates()).unwrap();
        straight.update(&named(3.0)).unwrap();
        resumed.update(&named(3.0)).unwrap();
        assert_eq!(first(&straight.tensors()), first(&resumed.tensors()));
    }
}
