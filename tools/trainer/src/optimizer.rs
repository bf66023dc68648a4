//! AdamW (Loshchilov, Hutter 2019) over flat arenas, the clip by global norm, and the learning rate.

use crate::math::{Real, lanes};
use crate::model::arena::Arena;
use crate::model::parameters::Table;
use crate::settings::{Rate, Settings};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.95;
/// Added outside the root, after the correction of the bias, as in PyTorch.
const EPSILON: f64 = 1e-8;

/// The moments of the gradients, one for each parameter.
pub(crate) struct AdamW<R> {
    first: Arena<R>,
    second: Arena<R>,
    steps: i32,
    decay: f64,
}

impl<R: Real> AdamW<R> {
    /// For an arena of `len` parameters; `decay` is the decoupled weight decay, on all of them.
    pub(crate) fn new(len: usize, decay: f64) -> Self {
        Self { first: Arena::zeros(len), second: Arena::zeros(len), steps: 0, decay }
    }

    /// One update by `scale * gradients`, which then are zeroed for the next step.
    pub(crate) fn step(&mut self, values: &mut [R], gradients: &mut [R], scale: f64, learning_rate: f64) {
        self.steps += 1;
        let (beta_1, beta_2) = (R::of(BETA_1), R::of(BETA_2));
        let (rest_1, rest_2) = (R::of(1.0 - BETA_1), R::of(1.0 - BETA_2));
        let rate = R::of(learning_rate / (1.0 - BETA_1.powi(self.steps)));
        let correction = R::of(1.0 / (1.0 - BETA_2.powi(self.steps)).sqrt());
        let (keep, epsilon, scale) = (R::of(1.0 - learning_rate * self.decay), R::of(EPSILON), R::of(scale));
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        lanes::vectorised(
            #[inline(always)]
            || {
                for ((value, gradient), (first, second)) in values.iter_mut().zip(gradients).zip(moments) {
                    let g = *gradient * scale;
                    *first = beta_1 * *first + rest_1 * g;
                    *second = beta_2 * *second + rest_2 * g * g;
                    *value = *value * keep - rate * *first / (second.sqrt() * correction + epsilon);
                    *gradient = R::ZERO;
                }
            },
        );
    }
}

/// The sum of squares of the gradients that count on this rank ([`Tensor::counts`]): summed over the ranks
/// that hold one replica, the square of the global norm.
///
/// [`Tensor::counts`]: crate::model::parameters::Tensor::counts
pub(crate) fn squares<R: Real>(table: &Table, gradients: &[R]) -> f64 {
    let counted = table.tensors.iter().filter(|tensor| tensor.counts());
    counted.map(|tensor| lanes::squares(&gradients[tensor.place.clone()])).sum()
}

/// What gradients of this norm are multiplied by, so that it is at most `limit`.
pub(crate) fn clip(norm: f64, limit: Option<f64>) -> f64 {
    limit.filter(|&limit| norm > limit).map_or(1.0, |limit| limit / norm)
}

/// The rate of a step, counted from 0: rising linearly over the warm-up, then constant, or half a cosine
/// that falls to a tenth by the last step.
pub(crate) fn learning_rate(settings: &Settings, step: usize) -> f64 {
    const FLOOR: f64 = 0.1;
    let warm_up = settings.warm_up;
    if step < warm_up {
        return settings.learning_rate * (step + 1) as f64 / warm_up as f64;
    }
    match settings.rate {
        Rate::Constant => settings.learning_rate,
        Rate::Cosine => {
            let left = (settings.steps - warm_up).max(2) - 1;
            let progress = ((step - warm_up) as f64 / left as f64).min(1.0);
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            settings.learning_rate * (FLOOR + (1.0 - FLOOR) * cosine)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Shape, Share};

    #[test]
    fn adam_follows_its_definition() {
        let (mut values, mut gradients) = ([1.0, -2.0], [0.5, -4.0]);
        let mut adam = AdamW::new(2, 0.1);
        adam.step(&mut values, &mut gradients, 0.5, 0.01);
        // After one step the corrected moments are g and g², so the update is the rate times g's sign.
        for (value, (before, g)) in values.iter().zip([(1.0, 0.25), (-2.0, -2.0)]) {
            let want = before * (1.0 - 0.001) - 0.01 * g / (f64::abs(g) + 1e-8);
            assert!((value - want).abs() < 1e-15, "{value}, {want}");
        }
        assert_eq!(gradients, [0.0; 2]);

        let (m1, v1) = (0.1 * 0.25, 0.05 * 0.25 * 0.25);
        let before = values[0];
        adam.step(&mut values, &mut [1.0, 0.0], 1.0, 0.02);
        let (m, v): (f64, f64) = (0.9 * m1 + 0.1, 0.95 * v1 + 0.05);
        let want = before * (1.0 - 0.002)
            - 0.02 * (m / (1.0 - 0.81)) / ((v / (1.0 - 0.95f64.powi(2))).sqrt() + 1e-8);
        assert!((values[0] - want).abs() < 1e-14);
    }

    #[test]
    fn clip_limits_the_norm() {
        assert_eq!(clip(0.5, Some(1.0)), 1.0);
        assert_eq!(clip(4.0, Some(1.0)), 0.25);
        assert_eq!(clip(4.0, None), 1.0);
    }

    #[test]
    fn rate_rises_and_falls() {
        let mut settings = Settings { learning_rate: 1.0, warm_up: 4, steps: 14, ..Settings::default() };
        settings.rate = Rate::Cosine;
        let rates: Vec<f64> = (0..14).map(|step| learning_rate(&settings, step)).collect();
        assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!(rates[4..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!((rates[13] - 0.1).abs() < 1e-12);
        settings.rate = Rate::Constant;
        assert_eq!(learning_rate(&settings, 13), 1.0);
    }

    /// The classic bug: a replicated parameter counted once per rank, a sharded one on one rank only.
    #[test]
    fn every_parameter_counts_once_in_the_norm() {
        let shape = Shape { layers: 4, width: 8, heads: 4, context: 6 };
        let total = |tensor: usize, stages: usize| -> f64 {
            let shares = (0..tensor * stages)
                .map(|i| Share { tensor: (i % tensor, tensor), stage: (i / tensor, stages) });
            shares
                .map(|share| {
                    let table = Table::new(&shape, &share);
                    squares::<f64>(&table, &table.initial(3))
                })
                .sum()
        };
        let whole = total(1, 1);
        for (tensor, stages) in [(2, 1), (4, 1), (1, 2), (1, 4), (2, 2), (4, 4)] {
            assert!((total(tensor, stages) / whole - 1.0).abs() < 1e-12, "tp {tensor}, pp {stages}");
        }
    }
}
