//! Cosines as scores from 0 to 1 that can be compared between modalities.
//!
//! A good cosine of a spoken sentence is 0.38 and one of an image 0.65, so cosines say nothing across modalities. What can be
//! compared is how seldom something unrelated has a cosine as high: for each pair of modalities, of the query and of the item,
//! a map from cosines to scores goes through the cosines that one in two, ten, a hundred and a thousand unrelated pairs exceed.
//!
//! Whether anything of an index is related to a query is another question than which item is more so. Some items are near to every
//! query, and some queries to every item, so there the products are those of what is left of both without the mean of unrelated
//! queries, the centre; and of many items the best unrelated one is better than that of few, so there the rate counts times the
//! number of items.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::kind::Modality;

/// Shares of unrelated pairs above a cosine, and the score of that cosine.
const LEVELS: [(f64, f32); 4] = [(0.5, 0.1), (0.1, 0.5), (0.01, 0.75), (0.001, 0.9)];

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
    /// The same of products of query and item, both without the centre; `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_apart: Option<[f32; 4]>,
    /// What files of before have of items alone without the centre: read and not used.
    #[serde(default, rename = "above_centred", skip_serializing)]
    _before: IgnoredAny,
}

/// The maps of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Embedding identity of the model that was measured.
    pub identity: String,
    /// The mean of the vectors of unrelated queries of text, `[dim]`; empty where it was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub centre: Vec<f32>,
    /// A map for each pair of modalities.
    pub pairs: Vec<PairCalibration>,
}

impl PairCalibration {
    /// Of the cosines of unrelated pairs, in any order, and of their products without the centre ([`Apart`]) where there is one;
    /// `None` of fewer than a thousand.
    pub fn of(query: Modality, item: Modality, cosines: Vec<f32>, apart: Option<Vec<f32>>) -> Option<Self> {
        let (query, item, pairs) = (query.name().into(), item.name().into(), cosines.len() as u64);
        let (above, above_apart) = (levels_of(cosines)?, apart.and_then(levels_of));
        Some(Self { query, item, pairs, above, above_apart, _before: IgnoredAny })
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

    /// How seldom an unrelated pair has such a cosine, or such a product without the centre, as a power of ten: 2 is one in a
    /// hundred. Straight lines as in [`PairCalibration::score`].
    fn rarity(&self, cosine: f32, apart: bool) -> f32 {
        let above = self.above_apart.filter(|_| apart).unwrap_or(self.above);
        let [.., before, last] = above;
        let power = |(share, _): &(f64, f32)| -share.log10() as f32;
        if cosine >= last {
            return power(&LEVELS[3]) + (cosine - last) / (last - before).max(SMALLEST_STEP);
        }
        let mut low = (-1.0f32, 0.0f32);
        for (level, at) in LEVELS.iter().zip(above) {
            if cosine < at {
                return low.1 + (cosine - low.0).max(0.0) / (at - low.0) * (power(level) - low.1);
            }
            low = (at, power(level));
        }
        low.1
    }
}

/// The cosines that the shares of [`LEVELS`] exceed; `None` of fewer than a thousand.
fn levels_of(mut cosines: Vec<f32>) -> Option<[f32; 4]> {
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
    Some(LEVELS.map(level))
}

/// The power of ten that a score is worth beyond the last level: what evidence that is not a cosine counts as.
pub(crate) fn rarity_of_evidence(score: f32) -> f32 {
    (1.0 - score.clamp(0.0, 0.9999)).ln() / LEFT_A_TENTH.ln()
}

/// Which rarity something has at least that is related, where it is the best of so many items.
///
/// Items are near each other, so that their best is like that of fewer independent ones: the rarity that a tenth of unrelated
/// questions reach grows by 1.5 and not by 2.4 from 10 to 2,275 chunks of texts (170 questions, of which none was calibrated on).
/// The rate of the whole is settled on the questions of `cargo xtask eval-find`, beside which it measures others.
pub(crate) fn related_from(items: usize) -> f32 {
    const INDEPENDENT: f32 = 0.6;
    const RATE: f32 = 0.01;
    (items.max(1) as f32).log10() * INDEPENDENT - RATE.log10()
}

/// A query without the centre.
#[derive(Debug, Clone)]
pub struct Apart {
    /// The query's vector less the centre: `[dim]`. Not of unit length.
    pub vector: Vec<f32>,
    /// Its product with the centre.
    with_centre: f32,
}

impl Apart {
    /// Of a query and the centre: `[dim]` each.
    pub fn of(query: &[f32], centre: &[f32]) -> Self {
        let vector: Vec<f32> = query.iter().zip(centre).map(|(value, centre)| value - centre).collect();
        let with_centre =
            vector.iter().zip(centre).map(|(value, centre)| f64::from(*value) * f64::from(*centre)).sum::<f64>();
        Self { vector, with_centre: with_centre as f32 }
    }

    /// The product of what is left of query and item, of the product of [`Apart::vector`] and the item.
    pub fn product(&self, with_item: f32) -> f32 {
        with_item - self.with_centre
    }
}

impl Calibration {
    /// The score of a cosine; without a map the cosine itself, where it is above zero.
    pub fn score(&self, query: Modality, item: Modality, cosine: f32) -> f32 {
        let of = |pair: &&PairCalibration| pair.query == query.name() && pair.item == item.name();
        self.pairs.iter().find(of).map_or(cosine.clamp(0.0, 1.0), |pair| pair.score(cosine))
    }

    /// How seldom an unrelated pair has such a cosine, as a power of ten, and 0 without a map. With `apart` it is the product of
    /// [`Apart`].
    pub(crate) fn rarity(&self, query: Modality, item: Modality, cosine: f32, apart: bool) -> f32 {
        let of = |pair: &&PairCalibration| pair.query == query.name() && pair.item == item.name();
        self.pairs.iter().find(of).map_or(0.0, |pair| pair.rarity(cosine, apart))
    }

    /// A query without the centre, where every map of such queries was measured so.
    pub(crate) fn apart(&self, query: Modality, vector: &[f32]) -> Option<Apart> {
        let mut pairs = self.pairs.iter().filter(|pair| pair.query == query.name());
        let measured = !self.centre.is_empty() && pairs.all(|pair| pair.above_apart.is_some());
        measured.then(|| Apart::of(vector, &self.centre))
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
        let pair = PairCalibration::of(Modality::Text, Modality::Image, cosines, None).unwrap();
        assert!((pair.score(0.25) - 0.1).abs() < 1e-3);
        assert!((pair.score(0.45) - 0.5).abs() < 1e-3);
        // Where the line is steep: a hundredth of a percent of cosines is a hundredth of the score.
        assert!((pair.score(0.495) - 0.75).abs() < 1e-2);
        assert_eq!(pair.score(-1.0), 0.0);
        // From 0.4995 on it falls to 0.4 of what is missing with each 0.0045.
        assert!((pair.score(0.4995) - 0.9).abs() < 1e-3 && (pair.score(0.504) - 0.96).abs() < 2e-3);
        assert!(pair.score(0.51) < pair.score(0.52) && pair.score(1.0) > 0.999);
        let scores: Vec<f32> = (-100..=100).map(|i| pair.score(i as f32 / 100.0)).collect();
        assert!(scores.windows(2).all(|two| two[0] <= two[1]));
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
    }

    #[test]
    fn a_rarity_is_the_power_of_ten_of_the_rate_and_goes_on_above_the_last_level() {
        let cosines: Vec<f32> = (0..1_000_000).map(|i| i as f32 / 1_000_000.0 * 0.5).collect();
        let apart = cosines.iter().map(|cosine| cosine - 0.1).collect();
        let pair = PairCalibration::of(Modality::Text, Modality::Image, cosines, Some(apart)).unwrap();
        for (cosine, expected) in [(0.25, 0.301), (0.45, 1.0), (0.495, 2.0), (0.4995, 3.0), (0.504, 4.0)] {
            assert!((pair.rarity(cosine, false) - expected).abs() < 3e-2, "{cosine}");
            assert!((pair.rarity(cosine - 0.1, true) - expected).abs() < 3e-2, "{cosine}");
        }
        assert_eq!(pair.rarity(-1.5, true), 0.0);
        assert!((related_from(200) - 3.38).abs() < 2e-2 && related_from(0) == related_from(1));
        assert!((related_from(100_000) - related_from(10_000) - 0.6).abs() < 1e-5);
        assert!(rarity_of_evidence(0.0) == 0.0 && rarity_of_evidence(1.0).is_finite());
        // As much as a score above the last level: what is missing to 1 falls to [`LEFT_A_TENTH`] with each.
        assert!((rarity_of_evidence(0.6) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn products_apart_are_those_of_query_and_item_less_the_centre() {
        let (query, centre, item) = ([0.6f32, 0.8, 0.0], [0.3f32, 0.1, -0.2], [0.0f32, 0.6, 0.8]);
        let expected: f32 = (0..3).map(|i| (query[i] - centre[i]) * (item[i] - centre[i])).sum();
        let apart = Apart::of(&query, &centre);
        let with_item = apart.vector.iter().zip(item).map(|(a, b)| a * b).sum();
        assert!((apart.product(with_item) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_file_of_before_counts_without_what_it_has_of_items_alone() {
        let pair = r#"{"query":"text","item":"image","pairs":1000,"above":[0.1,0.2,0.3,0.4],"above_centred":[0.0,0.1,0.2,0.3]}"#;
        let read = format!(r#"{{"identity":"i","centre":[0.5],"pairs":[{pair}]}}"#);
        let read: Calibration = serde_json::from_str(&read).unwrap();
        assert!(read.covers(Modality::Text) && read.apart(Modality::Text, &[1.0]).is_none());
        assert!(!serde_json::to_string(&read).unwrap().contains("above_centred"));
    }

    #[test]
    fn few_pairs_are_no_calibration_and_equal_ones_no_division_by_zero() {
        assert_eq!(PairCalibration::of(Modality::Text, Modality::Text, vec![0.1; 999], None), None);
        let pair = PairCalibration::of(Modality::Text, Modality::Text, vec![0.1; 1000], None).unwrap();
        assert!(pair.score(0.1).is_finite() && pair.score(0.0) < pair.score(0.2));
    }
}
