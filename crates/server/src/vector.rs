//! Vectors as JSON has them.

use omniburn::Embedding;
use serde::{Deserialize, Serialize};

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Numbers, with as many digits as give the same f32 again.
    #[default]
    Float,
    /// Base64 of little-endian f32.
    Base64,
    /// A byte each for the sign of eight values, from -128.
    Binary,
    /// The same, from 0.
    Ubinary,
}

/// One vector in one of the encodings.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Encoded {
    Float(Vec<f32>),
    Base64(String),
    Binary(Vec<i8>),
    Ubinary(Vec<u8>),
}

impl Encoding {
    pub(crate) fn of(self, vector: Embedding) -> Encoded {
        match self {
            Encoding::Float => Encoded::Float(vector.into_vec()),
            Encoding::Base64 => Encoded::Base64(vector.to_base64()),
            Encoding::Binary => Encoded::Binary(vector.to_binary()),
            Encoding::Ubinary => Encoded::Ubinary(vector.to_ubinary()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_bits() {
        let vector = Embedding::from_raw(vec![0.1, -1.0 / 3.0, 1e-9, 0.7]).unwrap();
        let text = serde_json::to_string(&Encoding::Float.of(vector.clone())).unwrap();
        let back: Vec<f32> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, vector.as_slice());
        let Encoded::Base64(text) = Encoding::Base64.of(vector.clone()) else { unreachable!("base64 was asked for") };
        assert_eq!(Embedding::from_base64(&text).unwrap(), vector);
    }
}
