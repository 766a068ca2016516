//! The result: a vector that is finite and of unit length by construction, and the forms in which it is handed out.
//!
//! The raw values of an [`Embedding`] cannot be reached before they have passed the check, so a NaN or a vector of
//! zeros is an error here and never a row in somebody's index. Which model and task a vector comes from is the business
//! of whoever stores it; pooling is the model's; searching is the index's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// How far from 1 the length of a stored vector may be: wide enough for one that went through f16 or bf16, far too
/// narrow for one that was never normalised.
const UNIT_TOLERANCE: f64 = 1e-3;

/// A vector of f32 that is finite and of unit length.
///
/// It serialises as a plain list of numbers and reads back to the same bits; a list that is not such a vector is
/// refused on reading.
#[derive(Clone, PartialEq)]
pub struct Embedding {
    values: Vec<f32>,
}

/// Why values are no [`Embedding`], or not the one asked for.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// A value is NaN or infinite.
    #[error("the value at index {index} is not finite")]
    NotFinite {
        /// The first such place.
        index: usize,
    },
    /// Every value is zero, or there is none: the vector has no direction.
    #[error("a vector of length zero has no direction")]
    ZeroLength,
    /// A dimension that cannot be had, or two vectors whose dimensions differ.
    #[error("dimension {asked} was asked for, but the vector has {have}")]
    Dimension {
        /// The dimension asked for, or that of the other vector.
        asked: usize,
        /// The dimension of this vector.
        have: usize,
    },
    /// Stored values that are not of unit length.
    #[error("the vector is of length {norm}, not 1")]
    NotUnit {
        /// The length found.
        norm: f64,
    },
    /// The mean of no vectors was asked for.
    #[error("there is no mean of no vectors")]
    NoParts,
    /// The text is not base64.
    #[error("the text is not base64")]
    Base64(#[from] base64::DecodeError),
    /// The text is base64, but of bytes that are not whole f32 values.
    #[error("{bytes} bytes are not a list of f32 values of four bytes each")]
    Base64Length {
        /// The number of bytes found.
        bytes: usize,
    },
}

impl Embedding {
    /// The direction of pooled values: `values / sqrt(sum(values^2))`.
    ///
    /// # Shapes
    /// - `values`: `[hidden]`
    /// # Numerics
    /// Sum, root and quotient are f64, in order of index, and the quotient is rounded to f32 once. No epsilon: a vector
    /// however short keeps its direction, and one without a direction is an error. f64 neither overflows nor underflows
    /// on the square of any f32.
    /// # Errors
    /// `NotFinite` with the first such index; `ZeroLength` where every value is zero or there is none.
    /// # Source
    /// `torch.nn.functional.normalize`, with which it agrees to 1e-6 wherever that one's epsilon does not act.
    pub fn from_raw(mut values: Vec<f32>) -> Result<Self, EmbeddingError> {
        let norm = norm(&values)?;
        if norm == 0.0 {
            return Err(EmbeddingError::ZeroLength);
        }
        for value in &mut values {
            *value = (f64::from(*value) / norm) as f32;
        }
        Ok(Self { values })
    }

    /// A vector that was stored as one of unit length, kept bit for bit.
    ///
    /// # Shapes
    /// - `values`: `[hidden]`
    /// # Errors
    /// `NotFinite` with the first such index; `ZeroLength` where every value is zero or there is none; `NotUnit` where
    /// the length differs from 1 by more than 1e-3.
    pub fn from_unit(values: Vec<f32>) -> Result<Self, EmbeddingError> {
        let norm = norm(&values)?;
        if norm == 0.0 {
            return Err(EmbeddingError::ZeroLength);
        }
        if (norm - 1.0).abs() > UNIT_TOLERANCE {
            return Err(EmbeddingError::NotUnit { norm });
        }
        Ok(Self { values })
    }

    /// The number of values, at least 1.
    pub fn dim(&self) -> usize {
        self.values.len()
    }

    /// The values, `[hidden]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// The values, `[hidden]`, given away.
    pub fn into_vec(self) -> Vec<f32> {
        self.values
    }

    /// The cosine of the angle between two vectors of one dimension, in `[-1, 1]` and never NaN.
    ///
    /// # Numerics
    /// The dot product, since both are of unit length, summed in f64 in order of index and cut to the range.
    /// # Panics
    /// When the dimensions differ, since vectors of two models or two truncations cannot be compared;
    /// [`try_cosine`](Self::try_cosine) is for vectors of unknown origin.
    pub fn cosine(&self, other: &Embedding) -> f32 {
        match self.try_cosine(other) {
            Ok(cosine) => cosine,
            Err(_) => {
                panic!("only vectors of one dimension are compared, and these have {} and {}", self.dim(), other.dim())
            }
        }
    }

    /// As [`cosine`](Self::cosine), for vectors whose dimensions may differ.
    ///
    /// # Errors
    /// `Dimension` where they do.
    pub fn try_cosine(&self, other: &Embedding) -> Result<f32, EmbeddingError> {
        self.same_dim(other)?;
        let dot: f64 = self.values.iter().zip(&other.values).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        Ok(dot.clamp(-1.0, 1.0) as f32)
    }

    /// The first `dim` values, normalised again; all of them give the same vector, bit for bit.
    ///
    /// Meaningful at the dimensions for which the model was trained; which those are is the record's to say.
    ///
    /// # Errors
    /// `Dimension` for 0 and for more values than there are; `ZeroLength` where those kept are all zero.
    /// # Source
    /// Matryoshka representation learning, <https://arxiv.org/abs/2205.13147>: cut first, then normalise.
    pub fn truncated(&self, dim: usize) -> Result<Embedding, EmbeddingError> {
        if dim == 0 || dim > self.dim() {
            return Err(EmbeddingError::Dimension { asked: dim, have: self.dim() });
        }
        if dim == self.dim() {
            return Ok(self.clone());
        }
        Self::from_raw(self.values[..dim].to_vec())
    }

    /// The values in half precision, to the nearest, ties to even.
    ///
    /// Read back as f32 they pass [`from_unit`](Self::from_unit).
    pub fn to_f16(&self) -> Vec<f16> {
        self.values.iter().map(|&value| f16::from_f32(value)).collect()
    }

    /// The values in steps of 1/127: `round(127 * value)`, ties to even, in `[-127, 127]`.
    ///
    /// The scale is the same for every vector, so the dot product of two such lists is that of the vectors times 127²,
    /// and no calibration data is needed.
    pub fn to_int8(&self) -> Vec<i8> {
        let step = |value: f32| (value * 127.0).round_ties_even().clamp(-127.0, 127.0) as i8;
        self.values.iter().map(|&value| step(value)).collect()
    }

    /// One bit a value, 1 where it is greater than zero, eight a byte, the first value in the most significant bit; the
    /// last byte is filled up with zeros.
    ///
    /// # Source
    /// `numpy.packbits(values > 0)`, which is `ubinary` of sentence-transformers' `quantize_embeddings`.
    pub fn to_ubinary(&self) -> Vec<u8> {
        let byte = |eight: &[f32]| {
            let bits = eight.iter().enumerate().filter(|(_, value)| **value > 0.0);
            bits.fold(0, |byte, (place, _)| byte | 0x80 >> place)
        };
        self.values.chunks(8).map(byte).collect()
    }

    /// The bytes of [`to_ubinary`](Self::to_ubinary), each less 128.
    ///
    /// # Source
    /// `binary` of sentence-transformers' `quantize_embeddings`.
    pub fn to_binary(&self) -> Vec<i8> {
        // Less 128 is the top bit turned over and the byte read as signed.
        self.to_ubinary().into_iter().map(|byte| (byte ^ 0x80).cast_signed()).collect()
    }

    /// The values as little-endian f32, in standard base64 with padding.
    ///
    /// # Source
    /// `encoding_format: "base64"` of OpenAI's embeddings endpoint.
    pub fn to_base64(&self) -> String {
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        STANDARD.encode(bytes)
    }

    /// The vector that [`to_base64`](Self::to_base64) wrote, bit for bit.
    ///
    /// # Errors
    /// `Base64` and `Base64Length` where the text does not hold f32 values; else as [`from_unit`](Self::from_unit).
    pub fn from_base64(text: &str) -> Result<Self, EmbeddingError> {
        let bytes = STANDARD.decode(text)?;
        let (values, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(EmbeddingError::Base64Length { bytes: bytes.len() });
        }
        Self::from_unit(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
    }

    /// The direction of the mean of several vectors, each of the same weight: what an audio or a video in segments is
    /// given as one vector.
    ///
    /// One part gives itself, bit for bit.
    ///
    /// # Shapes
    /// - `parts`: each `[hidden]`
    /// # Numerics
    /// Summed in f64 in the order given and rounded to f32 once, after the division by the length.
    /// # Errors
    /// `NoParts` for an empty list; `Dimension` where they differ; `ZeroLength` where they cancel out.
    pub fn mean_unit(parts: &[Embedding]) -> Result<Embedding, EmbeddingError> {
        let (first, rest) = parts.split_first().ok_or(EmbeddingError::NoParts)?;
        if rest.is_empty() {
            return Ok(first.clone());
        }
        let mut sum = vec![0.0f64; first.dim()];
        for part in parts {
            first.same_dim(part)?;
            for (sum, &value) in sum.iter_mut().zip(&part.values) {
                *sum += f64::from(value);
            }
        }
        let norm = sum.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
        if norm == 0.0 {
            return Err(EmbeddingError::ZeroLength);
        }
        Ok(Self { values: sum.into_iter().map(|sum| (sum / norm) as f32).collect() })
    }

    fn same_dim(&self, other: &Embedding) -> Result<(), EmbeddingError> {
        if self.dim() == other.dim() {
            return Ok(());
        }
        Err(EmbeddingError::Dimension { asked: other.dim(), have: self.dim() })
    }
}

/// The length of a vector whose values are all finite.
fn norm(values: &[f32]) -> Result<f64, EmbeddingError> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(EmbeddingError::NotFinite { index });
    }
    Ok(values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt())
}

/// The dimension and the first four values; a thousand numbers help nobody in a log.
impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.dim().min(4);
        write!(f, "Embedding(dim {}, {:?}", self.dim(), &self.values[..shown])?;
        f.write_str(if shown < self.dim() { " and on)" } else { ")" })
    }
}

impl Serialize for Embedding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Embedding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_unit(Vec::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::error::Error as _;

    fn unit(values: &[f32]) -> Embedding {
        Embedding::from_raw(values.to_vec()).expect("a direction")
    }

    fn length(values: &[f32]) -> f64 {
        norm(values).expect("finite")
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Finite values over the whole range of f32, of one sign and size or mixed.
    fn raw() -> impl Strategy<Value = Vec<f32>> {
        let finite = proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO;
        prop_oneof![proptest::collection::vec(-4.0f32..4.0, 1..80), proptest::collection::vec(finite, 1..80),]
            .prop_filter("no direction", |values| values.iter().any(|&value| value != 0.0))
    }

    fn embeddings() -> impl Strategy<Value = Embedding> {
        raw().prop_map(|values| unit(&values))
    }

    /// Several of one dimension.
    fn parts() -> impl Strategy<Value = Vec<Embedding>> {
        (1usize..40).prop_flat_map(|dim| {
            let one = proptest::collection::vec(0.01f32..4.0, dim).prop_map(|values| unit(&values));
            proptest::collection::vec(one, 1..6)
        })
    }

    #[test]
    fn three_four_becomes_three_fifths_four_fifths() {
        assert_eq!(unit(&[3.0, 4.0]).as_slice(), [0.6, 0.8]);
        assert_eq!(unit(&[-2.0]).into_vec(), [-1.0]);
    }

    #[test]
    fn a_vector_however_short_or_long_keeps_its_direction() {
        let tiny = f32::from_bits(1);
        assert_eq!(unit(&[tiny, 0.0]).as_slice(), [1.0, 0.0]);
        assert_eq!(unit(&[3e-30, 4e-30]).as_slice(), [0.6, 0.8]);
        let half = unit(&[f32::MAX; 4]);
        assert_eq!(half.as_slice(), [0.5; 4]);
    }

    #[test]
    fn nan_and_infinity_are_named_by_index() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let expected = Err(EmbeddingError::NotFinite { index: 2 });
            assert_eq!(Embedding::from_raw(vec![1.0, 0.0, bad, bad]), expected);
            assert_eq!(Embedding::from_unit(vec![1.0, 0.0, bad, bad]), expected);
        }
    }

    #[test]
    fn a_vector_without_a_direction_is_refused() {
        for values in [vec![], vec![0.0; 5], vec![-0.0, 0.0]] {
            assert_eq!(Embedding::from_raw(values.clone()), Err(EmbeddingError::ZeroLength));
            assert_eq!(Embedding::from_unit(values), Err(EmbeddingError::ZeroLength));
        }
    }

    #[test]
    fn stored_values_of_another_length_are_refused_with_that_length() {
        assert_eq!(Embedding::from_unit(vec![3.0, 4.0]), Err(EmbeddingError::NotUnit { norm: 5.0 }));
        assert!(Embedding::from_unit(vec![1.0009]).is_ok());
        assert!(Embedding::from_unit(vec![0.9991]).is_ok());
        assert!(matches!(Embedding::from_unit(vec![1.0011]), Err(EmbeddingError::NotUnit { .. })));
        assert!(matches!(Embedding::from_unit(vec![0.9989]), Err(EmbeddingError::NotUnit { .. })));
    }

    #[test]
    fn the_cosine_of_known_angles_is_known() {
        let east = unit(&[1.0, 0.0]);
        assert_eq!(east.cosine(&unit(&[0.0, 7.0])), 0.0);
        assert_eq!(east.cosine(&unit(&[-3.0, 0.0])), -1.0);
        assert!((east.cosine(&unit(&[1.0, 1.0])) - 0.5f32.sqrt()).abs() < 1e-7);
    }

    #[test]
    fn a_cosine_stays_in_range_where_stored_vectors_are_a_little_long() {
        let long = Embedding::from_unit(vec![1.0005, 0.0]).expect("within the tolerance");
        let opposite = Embedding::from_unit(vec![-1.0005, 0.0]).expect("within the tolerance");
        assert_eq!(long.cosine(&long), 1.0);
        assert_eq!(long.cosine(&opposite), -1.0);
    }

    #[test]
    fn vectors_of_two_dimensions_have_no_cosine() {
        let error = unit(&[1.0]).try_cosine(&unit(&[1.0, 2.0]));
        assert_eq!(error, Err(EmbeddingError::Dimension { asked: 2, have: 1 }));
    }

    #[test]
    #[should_panic(expected = "only vectors of one dimension are compared, and these have 1 and 2")]
    fn cosine_names_both_dimensions_when_they_differ() {
        unit(&[1.0]).cosine(&unit(&[1.0, 2.0]));
    }

    #[test]
    fn truncation_cuts_first_and_normalises_then() {
        let short = unit(&[3.0, 4.0, 12.0]).truncated(2).expect("two of three");
        assert!((short.as_slice()[0] - 0.6).abs() < 1e-7);
        assert!((short.as_slice()[1] - 0.8).abs() < 1e-7);
    }

    #[test]
    fn truncation_to_nothing_to_more_or_to_zeros_is_refused() {
        let three = unit(&[0.0, 0.0, 1.0]);
        for asked in [0, 4] {
            assert_eq!(three.truncated(asked), Err(EmbeddingError::Dimension { asked, have: 3 }));
        }
        assert_eq!(three.truncated(2), Err(EmbeddingError::ZeroLength));
    }

    #[test]
    fn int8_rounds_to_the_nearest_step_and_stays_symmetric() {
        let stored = |values: &[f32]| Embedding::from_unit(values.to_vec()).expect("unit").to_int8();
        assert_eq!(stored(&[0.6, -0.8, 0.0]), [76, -102, 0]);
        assert_eq!(stored(&[1.0009]), [127]);
        assert_eq!(stored(&[-1.0009]), [-127]);
        // Halves of a step go to the even one: 63.5 to 64 and 2.5 to 2.
        assert_eq!(stored(&[0.5, -0.5, 0.5, -0.5]), [64, -64, 64, -64]);
        let low = 2.5 / 127.0;
        assert_eq!(low * 127.0, 2.5);
        assert_eq!(stored(&[low, -low, 0.9996]), [2, -2, 127]);
    }

    #[test]
    fn bits_are_packed_as_numpy_packs_them() {
        // numpy.packbits([1,0,1,1,0,0,0,0, 0,1]) == [176, 64]; zero and minus zero are not greater than zero.
        let signs = unit(&[1.0, -1.0, 0.5, 2.0, 0.0, -0.0, -3.0, -1.0, -1.0, 1.0]);
        assert_eq!(signs.to_ubinary(), [176, 64]);
        assert_eq!(signs.to_binary(), [48, -64]);
        assert_eq!(unit(&[1.0; 8]).to_binary(), [127]);
        assert_eq!(unit(&[-1.0; 8]).to_binary(), [-128]);
    }

    #[test]
    fn base64_is_that_of_little_endian_f32() {
        // base64.b64encode(struct.pack("<2f", 1.0, 0.0)) in Python.
        let east = unit(&[1.0, 0.0]);
        assert_eq!(east.to_base64(), "AACAPwAAAAA=");
        assert_eq!(Embedding::from_base64("AACAPwAAAAA="), Ok(east));
    }

    #[test]
    fn base64_that_holds_no_unit_vector_is_refused_with_the_reason() {
        let error = Embedding::from_base64("AACAPw!!").expect_err("not base64");
        assert!(matches!(error, EmbeddingError::Base64(_)));
        assert!(error.source().is_some());
        assert_eq!(Embedding::from_base64("AACA"), Err(EmbeddingError::Base64Length { bytes: 3 }));
        assert_eq!(Embedding::from_base64(""), Err(EmbeddingError::ZeroLength));
        let nan = STANDARD.encode(f32::NAN.to_le_bytes());
        assert_eq!(Embedding::from_base64(&nan), Err(EmbeddingError::NotFinite { index: 0 }));
        let two = STANDARD.encode(2.0f32.to_le_bytes());
        assert_eq!(Embedding::from_base64(&two), Err(EmbeddingError::NotUnit { norm: 2.0 }));
    }

    #[test]
    fn the_mean_of_two_directions_halves_the_angle() {
        let mean = Embedding::mean_unit(&[unit(&[1.0, 0.0]), unit(&[0.0, 1.0])]).expect("a mean");
        assert_eq!(mean.as_slice(), [0.5f32.sqrt(); 2]);
    }

    #[test]
    fn a_mean_of_nothing_of_opposites_or_of_two_dimensions_is_refused() {
        assert_eq!(Embedding::mean_unit(&[]), Err(EmbeddingError::NoParts));
        let (east, west) = (unit(&[1.0, 0.0]), unit(&[-1.0, 0.0]));
        assert_eq!(Embedding::mean_unit(&[east.clone(), west]), Err(EmbeddingError::ZeroLength));
        let error = Embedding::mean_unit(&[east, unit(&[1.0])]);
        assert_eq!(error, Err(EmbeddingError::Dimension { asked: 1, have: 2 }));
    }

    #[test]
    fn debug_shows_the_dimension_and_four_values() {
        assert_eq!(format!("{:?}", unit(&[3.0, 4.0])), "Embedding(dim 2, [0.6, 0.8])");
        let five = unit(&[2.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(format!("{five:?}"), "Embedding(dim 5, [1.0, 0.0, 0.0, 0.0] and on)");
    }

    #[test]
    fn json_is_a_plain_list_and_a_list_that_is_no_embedding_is_refused() {
        assert_eq!(serde_json::to_string(&unit(&[3.0, 4.0])).expect("json"), "[0.6,0.8]");
        let error = serde_json::from_str::<Embedding>("[3.0, 4.0]").expect_err("not of unit length");
        assert!(error.to_string().contains("length 5"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_has_a_direction_becomes_finite_and_of_unit_length(values in raw()) {
            let got = unit(&values);
            prop_assert_eq!(got.dim(), values.len());
            prop_assert!(got.as_slice().iter().all(|value| value.is_finite()));
            prop_assert!((length(got.as_slice()) - 1.0).abs() < 1e-6);
            prop_assert!(Embedding::from_unit(got.into_vec()).is_ok());
        }

        #[test]
        fn normalising_agrees_with_the_f32_reference(
            values in proptest::collection::vec(-4.0f32..4.0, 1..1100),
        ) {
            let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            prop_assume!(norm > 1e-6);
            for (got, &value) in unit(&values).as_slice().iter().zip(&values) {
                prop_assert!((got - value / norm).abs() <= 1e-6);
            }
        }

        #[test]
        fn a_power_of_two_in_front_changes_no_bit(
            values in proptest::collection::vec(-4.0f32..4.0, 1..80),
            shift in -60i32..60,
        ) {
            prop_assume!(values.iter().any(|value| value.abs() > 1e-3));
            prop_assume!(values.iter().all(|&value| value == 0.0 || value.abs() > 1e-12));
            let scaled: Vec<f32> = values.iter().map(|value| value * 2.0f32.powi(shift)).collect();
            prop_assert_eq!(bits(unit(&scaled).as_slice()), bits(unit(&values).as_slice()));
        }

        #[test]
        fn stored_values_are_kept_bit_for_bit(one in embeddings()) {
            let again = Embedding::from_unit(one.as_slice().to_vec()).expect("of unit length");
            prop_assert_eq!(bits(again.as_slice()), bits(one.as_slice()));
        }

        #[test]
        fn a_cosine_is_symmetric_in_range_and_one_with_itself(parts in parts()) {
            for one in &parts {
                prop_assert!((one.cosine(one) - 1.0).abs() < 1e-6);
                for other in &parts {
                    let cosine = one.cosine(other);
                    prop_assert!((-1.0..=1.0).contains(&cosine));
                    prop_assert_eq!(cosine, other.cosine(one));
                }
            }
        }

        #[test]
        fn truncation_is_the_direction_of_the_first_values(
            values in proptest::collection::vec(0.01f32..4.0, 1..80),
            cut in any::<usize>(),
        ) {
            let dim = 1 + cut % values.len();
            let short = unit(&values).truncated(dim).expect("within the dimension");
            let direct = unit(&values[..dim]);
            prop_assert_eq!(short.dim(), dim);
            for (got, want) in short.as_slice().iter().zip(direct.as_slice()) {
                prop_assert!((got - want).abs() < 1e-6);
            }
        }

        #[test]
        fn truncation_to_the_whole_changes_no_bit(one in embeddings()) {
            let whole = one.truncated(one.dim()).expect("all of it");
            prop_assert_eq!(bits(whole.as_slice()), bits(one.as_slice()));
        }

        #[test]
        fn half_precision_reads_back_as_a_unit_vector_near_by(one in embeddings()) {
            let back: Vec<f32> = one.to_f16().iter().map(|value| value.to_f32()).collect();
            let back = Embedding::from_unit(back).expect("still of unit length");
            for (got, want) in back.as_slice().iter().zip(one.as_slice()) {
                prop_assert!((got - want).abs() <= 0.5f32.powi(11));
            }
        }

        #[test]
        fn int8_is_within_half_a_step(one in embeddings()) {
            for (&step, &value) in one.to_int8().iter().zip(one.as_slice()) {
                prop_assert!((f32::from(step) - value * 127.0).abs() <= 0.5);
            }
        }

        #[test]
        fn every_bit_is_the_sign_of_its_value_and_the_rest_is_zero(one in embeddings()) {
            let packed = one.to_ubinary();
            prop_assert_eq!(packed.len(), one.dim().div_ceil(8));
            for place in 0..packed.len() * 8 {
                let bit = packed[place / 8] >> (7 - place % 8) & 1;
                let positive = one.as_slice().get(place).is_some_and(|&value| value > 0.0);
                prop_assert_eq!(bit == 1, positive);
            }
            for (&signed, &unsigned) in one.to_binary().iter().zip(&packed) {
                prop_assert_eq!(i16::from(signed), i16::from(unsigned) - 128);
            }
        }

        #[test]
        fn base64_and_json_read_back_to_the_same_bits(one in embeddings()) {
            let base64 = Embedding::from_base64(&one.to_base64()).expect("as written");
            prop_assert_eq!(bits(base64.as_slice()), bits(one.as_slice()));
            let json = serde_json::to_string(&one).expect("json");
            let json: Embedding = serde_json::from_str(&json).expect("as written");
            prop_assert_eq!(bits(json.as_slice()), bits(one.as_slice()));
        }

        #[test]
        fn no_text_makes_from_base64_panic(text in "[A-Za-z0-9+/=]{0,40}") {
            if let Ok(one) = Embedding::from_base64(&text) {
                prop_assert!((length(one.as_slice()) - 1.0).abs() <= UNIT_TOLERANCE);
            }
        }

        #[test]
        fn a_mean_is_a_unit_vector_no_farther_than_the_farthest_pair(parts in parts()) {
            let mean = Embedding::mean_unit(&parts).expect("all in one quadrant");
            prop_assert!((length(mean.as_slice()) - 1.0).abs() < 1e-6);
            for part in &parts {
                let farthest = parts.iter().map(|other| part.cosine(other)).fold(1.0f32, f32::min);
                prop_assert!(mean.cosine(part) >= farthest - 1e-6);
            }
        }

        #[test]
        fn the_mean_of_copies_is_the_vector(one in embeddings(), copies in 1usize..5) {
            let mean = Embedding::mean_unit(&vec![one.clone(); copies]).expect("a mean");
            for (got, want) in mean.as_slice().iter().zip(one.as_slice()) {
                prop_assert!((got - want).abs() < 1e-6);
            }
        }
    }
}
