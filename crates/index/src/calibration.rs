//! Cosines as scores from 0 to 1 that can be compared between modalities.
//!
//! A good cosine of a spoken sentence is 0.38 and one of an image 0.65, so cosines say nothing across modalities. What can be
//! compared is how seldom something unrelated has a cosine as high: for each pair of modalities, of the query and of the item,
//! a map from cosines to scores goes through the cosines that one in two, ten, a hundred and a thousand unrelated pairs exceed.

use serde::{Deserialize, Serialize};

use crate::kind::Modality;

/// The score at which one unrelated pair in a hundred would be taken for related: what `--min-score auto` cuts at.
pub const AUTO_SCORE: f32 = 0.75;

/// Shares of unrelated pairs above a cosine, and the score of that cosine.
const LEVELS: [(f64, f32); 4] = [(0.5, 0.1), (0.1, 0.5), (0.01, AUTO_SCORE), (0.001, 0.9)];

/// What is left of the distance from a score to 1 with each tenth of the rate: about as between the levels.
const LEFT_A_TENTH: f32 = 0.4;
/// The least distance of cosines of the last two levels.
const SMALLEST_STEP: f32 = 1e-3;

/// The cosines of unrelated pairs of two modalities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairCalibration {
    /// Modality of the query: `text`, `image`, `audio` or `video`.
    pub query: String,
    /// Modality of the item.
    pub item: String,
    /// Unrelated pairs that were measured.
    pub pairs: u64,
    /// The cosines that at most a half, a tenth, a hundredth and a thousandth of them exceed.
    pub above: [f32; 4],
}

/// The maps of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Embedding identity of the model that was measured.
    pub identity: String,
    /// A map for each pair of modalities.
    pub pairs: Vec<PairCalibration>,
}

impl PairCalibration {
    /// Of the cosines of unrelated pairs, in any order; `None` of fewer than a thousand.
    pub fn of(query: Modality, item: Modality, mut cosines: Vec<f32>) -> Option<Self> {
        if cosines.len() < 1000 {
            return None;
        }
        cosines.sort_by(|one, other| other.total_cmp(one));
        let level = |(share, _): (f64, f32)| {
            let pairs = cosines.len() as f64 * share;
            // How many pairs exceed a cosine is itself only known to about the root of their number: the safe side of it, so
            // that what was measured on few pairs does not stand above what was measured on many.
            cosines[((pairs - pairs.sqrt()).max(0.0) as usize).min(cosines.len() - 1)]
        };
        let above = LEVELS.map(level);
        Some(Self { query: query.name().into(), item: item.name().into(), pairs: cosines.len() as u64, above })
    }

    /// The score of a cosine: straight lines between 0 at -1 and the levels. Above the last one, where too few pairs were
    /// measured, the rate is taken to fall on as it does between the last two, and what is missing to 1 with it: to
    /// [`LEFT_A_TENTH`] of it with each tenth of the rate.
    fn score(&self, cosine: f32) -> f32 {
        let [.., before, last] = self.above;
        if cosine >= last {
            let tenths = (cosine - last) / (last - before).max(SMALLEST_STEP);
            return 1.0 - (1.0 - LEVELS[3].1) * LEFT_A_TENTH.powf(tenths);
        }
        let mut low = (-1.0f32, 0.0f32);
        for ((_, score), at) in LEVELS.iter().zip(self.above) {
            if cosine < at {
                return low.1 + (cosine - low.0).max(0.0) / (at - low.0) * (score - low.1);
            }
            low = (at, *score);
        }
        low.1
    }
}

impl Calibration {
    /// The score of a cosine; without a map the cosine itself, where it is above zero.
    pub fn score(&self, query: Modality, item: Modality, cosine: f32) -> f32 {
        let of = |pair: &&PairCalibration| pair.query == query.name() && pair.item == item.name();
        self.pairs.iter().find(of).map_or(cosine.clamp(0.0, 1.0), |pair| pair.score(cosine))
    }

    /// True where a query of this modality has maps.
    pub fn covers(&self, query: Modality) -> bool {
        self.pairs.iter().any(|pair| pair.query == query.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_go_through_the_levels_and_never_fall() {
        let cosines: Vec<f32> = (0..1_000_000).map(|i| i as f32 / 1_000_000.0 * 0.5).collect();
        let pair = PairCalibration::of(Modality::Text, Modality::Image, cosines).unwrap();
        assert!((pair.score(0.25) - 0.1).abs() < 1e-3);
        assert!((pair.score(0.45) - 0.5).abs() < 1e-3);
        // Where the line is steep: a hundredth of a percent of cosines is a hundredth of the score.
        assert!((pair.score(0.495) - AUTO_SCORE).abs() < 1e-2);
        assert_eq!(pair.score(-1.0), 0.0);
        // From 0.4995 on it falls to 0.4 of what is missing with each 0.0045.
        assert!((pair.score(0.4995) - 0.9).abs() < 1e-3 && (pair.score(0.504) - 0.96).abs() < 2e-3);
        assert!(pair.score(0.51) < pair.score(0.52) && pair.score(1.0) > 0.999);
        let scores: Vec<f32> = (-100..=100).map(|i| pair.score(i as f32 / 100.0)).collect();
        assert!(scores.windows(2).all(|two| two[0] <= two[1]));
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
    }

    #[test]
    fn few_pairs_are_no_calibration_and_equal_ones_no_division_by_zero() {
        assert_eq!(PairCalibration::of(Modality::Text, Modality::Text, vec![0.1; 999]), None);
        let pair = PairCalibration::of(Modality::Text, Modality::Text, vec![0.1; 1000]).unwrap();
        assert!(pair.score(0.1).is_finite() && pair.score(0.0) < pair.score(0.2));
    }
}
