//! What a step of a unit takes on this machine, learnt from the steps that ran.
//!
//! No constant of any machine stands here: until a kind of step has run once, nothing is known of it, and the smallest
//! piece is what one can do. Afterwards its time is a fit over what it was made of.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Token rows gathered and uploaded, positions computed.
    TextBegin,
    /// One layer of the backbone.
    TextLayer,
    /// Last norm, pooling, read-back.
    TextEnd,
    /// One layer of a small text encoder, of whose layers several make a step; what is before the first and behind the last counts
    /// with them.
    Encoder,
    /// Features through their connector and between their ids.
    Connect,
    /// Patches uploaded and embedded.
    PatchBegin,
    /// One block of the image tower.
    PatchBlock,
    /// The stem of the audio tower.
    MelBegin,
    /// One layer of the audio tower.
    MelLayer,
    /// Features cut to pieces.
    Cut,
    /// One image through the convolution tower.
    FittedImage,
    /// The image connector.
    FittedImageEnd,
    /// One window of speech.
    AudioWindow,
}

impl Stage {
    /// What a unit that begins with such a step computes, as events call it.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Stage::TextBegin | Stage::TextLayer | Stage::TextEnd | Stage::Encoder => "text",
            Stage::PatchBegin | Stage::PatchBlock => "patches",
            Stage::MelBegin | Stage::MelLayer => "mel",
            Stage::Connect | Stage::Cut => "backbone",
            Stage::FittedImage | Stage::FittedImageEnd => "images",
            Stage::AudioWindow => "speech",
        }
    }
}

/// How much a step has to do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Load {
    /// Rows it reads.
    pub rows: f64,
    /// Pairs of rows that see each other: the squares of the segments' lengths.
    pub pairs: f64,
}

impl Load {
    /// The load of packed segments.
    pub(crate) fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        lengths.into_iter().fold(Self::default(), |load, length| {
            let length = length as f64;
            Self { rows: load.rows + length, pairs: load.pairs + length * length }
        })
    }

    /// What the fit multiplies: a constant, rows and pairs, scaled to be of one size in a usual unit.
    fn features(self) -> [f64; 3] {
        [1.0, self.rows / 256.0, self.pairs / 65536.0]
    }
}

/// What each kind of step takes.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    fits: Mutex<HashMap<Stage, Fit>>,
}

/// Weighted least squares of seconds over [`Load::features`], older samples counting for less.
#[derive(Debug, Clone, Default)]
struct Fit {
    samples: u64,
    /// Sum of `weight * feature * feature`.
    matrix: [[f64; 3]; 3],
    /// Sum of `weight * feature * seconds`.
    vector: [f64; 3],
    solved: [f64; 3],
}

/// What a sample still counts after each later one: half after about 70.
const FADE: f64 = 0.99;
/// Trust in "time is proportional to rows" before samples say otherwise: as much as so many samples.
const PRIOR: [f64; 3] = [0.05, 1e-6, 0.05];
/// A sample beyond so many times what was expected was another program's doing, and counts as that much.
const OUTLIER: f64 = 4.0;

impl Costs {
    /// What a step should take; `None` while none of its kind has run.
    pub(crate) fn expect(&self, stage: Stage, load: Load) -> Option<Duration> {
        let fits = self.fits.lock().unwrap_or_else(PoisonError::into_inner);
        fits.get(&stage).map(|fit| fit.expect(load))
    }

    /// What a step of several layers should take, or `layers` steps; `None` while none of its kind has run.
    pub(crate) fn expect_of(&self, stage: Stage, load: Load, layers: usize) -> Option<Duration> {
        self.expect(stage, load).map(|each| each.saturating_mul(u32::try_from(layers).unwrap_or(u32::MAX)))
    }

    /// Learns from `count` steps of one kind and load that took `time` together.
    pub(crate) fn learn(&self, stage: Stage, load: Load, time: Duration, count: usize) {
        let seconds = time.as_secs_f64() / count.max(1) as f64;
        let mut fits = self.fits.lock().unwrap_or_else(PoisonError::into_inner);
        fits.entry(stage).or_default().learn(load, seconds);
    }
}

impl Fit {
    fn expect(&self, load: Load) -> Duration {
        let seconds: f64 = self.solved.iter().zip(load.features()).map(|(c, f)| c * f).sum();
        Duration::from_secs_f64(seconds.clamp(0.0, 1e6))
    }

    fn learn(&mut self, load: Load, seconds: f64) {
        let mut seconds = seconds.max(1e-7);
        if self.samples >= 5 {
            seconds = seconds.min(OUTLIER * self.expect(load).as_secs_f64().max(1e-6));
        }
        self.samples += 1;
        let features = load.features();
        // By the square of the time, so that short steps are fitted as well in proportion as long ones.
        let weight = 1.0 / (seconds * seconds);
        for (i, row) in self.matrix.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = *sum * FADE + weight * features[i] * features[j];
            }
            self.vector[i] = self.vector[i] * FADE + weight * features[i] * seconds;
        }
        self.solved = self.solve();
    }

    /// The coefficients, none of them negative: a step does not get faster by having more to do.
    fn solve(&self) -> [f64; 3] {
        let mut used = [true; 3];
        loop {
            let solved = self.solve_with(used);
            match (0..3).filter(|&i| used[i] && solved[i] < 0.0).min_by(|&a, &b| solved[a].total_cmp(&solved[b])) {
                Some(worst) => used[worst] = false,
                None => return solved,
            }
        }
    }

    /// Gauss elimination over the features in use.
    fn solve_with(&self, used: [bool; 3]) -> [f64; 3] {
        let index: Vec<usize> = (0..3).filter(|&i| used[i]).collect();
        let n = index.len();
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
        for &i in &index {
            let mut row: Vec<f64> = index.iter().map(|&j| self.matrix[i][j]).collect();
            row.push(self.vector[i]);
            rows.push(row);
        }
        for (k, &i) in index.iter().enumerate() {
            rows[k][k] += PRIOR[i] * self.matrix[i][i].max(f64::MIN_POSITIVE) + f64::MIN_POSITIVE;
        }
        for pivot in 0..n {
            let (upper, lower) = rows.split_at_mut(pivot + 1);
            let top = &upper[pivot];
            for row in lower {
                let factor = row[pivot] / top[pivot];
                for (value, above) in row.iter_mut().zip(top).skip(pivot) {
                    *value -= factor * above;
                }
            }
        }
        let mut solved = [0.0; 3];
        for k in (0..n).rev() {
            let known: f64 = (k + 1..n).map(|j| rows[k][j] * solved[index[j]]).sum();
            let value = (rows[k][n] - known) / rows[k][k];
            solved[index[k]] = if value.is_finite() { value } else { 0.0 };
        }
        solved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(segments: usize, length: usize) -> Load {
        Load::of(vec![length; segments])
    }

    #[test]
    fn nothing_is_known_of_a_step_that_never_ran() {
        let costs = Costs::default();
        assert_eq!(costs.expect(Stage::TextLayer, load(1, 64)), None);
    }

    #[test]
    fn one_sample_is_taken_as_so_much_a_row() {
        let costs = Costs::default();
        costs.learn(Stage::TextLayer, load(1, 128), Duration::from_millis(10), 1);
        let twice = costs.expect(Stage::TextLayer, load(2, 128)).unwrap().as_secs_f64();
        assert!((0.015..0.021).contains(&twice), "{twice}");
    }

    #[test]
    fn the_fit_finds_what_made_the_times() {
        let costs = Costs::default();
        let truth = |l: Load| 3e-4 + 4e-5 * l.rows + 2e-8 * l.pairs;
        for round in 0..200usize {
            let l = load(1 + round % 7, 8 + (round * 37) % 500);
            costs.learn(Stage::TextLayer, l, Duration::from_secs_f64(truth(l)), 1);
        }
        for l in [load(1, 16), load(16, 128), load(2, 500)] {
            let got = costs.expect(Stage::TextLayer, l).unwrap().as_secs_f64();
            assert!((got / truth(l) - 1.0).abs() < 0.15, "{l:?}: {got} for {}", truth(l));
        }
    }

    #[test]
    fn a_machine_that_becomes_slower_is_followed_and_one_stray_sample_is_not() {
        let costs = Costs::default();
        let expect = |costs: &Costs| costs.expect(Stage::AudioWindow, load(1, 100)).unwrap().as_secs_f64();
        (0..50).for_each(|_| costs.learn(Stage::AudioWindow, load(1, 100), Duration::from_millis(10), 1));
        costs.learn(Stage::AudioWindow, load(1, 100), Duration::from_secs(10), 1);
        assert!(expect(&costs) < 0.012, "{}", expect(&costs));
        (0..400).for_each(|_| costs.learn(Stage::AudioWindow, load(1, 100), Duration::from_millis(30), 1));
        assert!((expect(&costs) - 0.03).abs() < 0.003, "{}", expect(&costs));
    }

    #[test]
    fn steps_of_several_loads_never_cost_less_than_nothing() {
        let costs = Costs::default();
        costs.learn(Stage::Cut, load(1, 400), Duration::from_micros(10), 1);
        costs.learn(Stage::Cut, load(1, 10), Duration::from_millis(1), 1);
        for l in [load(1, 1), load(50, 10), load(1, 4000)] {
            assert!(costs.expect(Stage::Cut, l).is_some());
        }
    }
}
