//! The list of families, and what is found by a family's name or by a folder's `model_type`.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::ConfigError;
use crate::families::{
    bert, bidirlm_omni, clap, clip, colqwen2, distilbert, gemma3, gte, lfm2, llama, mini, model2vec, modernbert, mpnet,
    nomic_bert, omni, qwen3, qwen3_omni_encoders, qwen3_vl, qwen25_omni, siglip, xlm_roberta,
};
use crate::family::{Architecture, CheckpointRules, Family, FamilyConfig};

/// Every family this build knows.
pub static FAMILIES: &[&Family] = &[
    &omni::FAMILY,
    &mini::FAMILY,
    &bert::FAMILY,
    &xlm_roberta::FAMILY,
    &modernbert::FAMILY,
    &qwen3::FAMILY,
    &nomic_bert::FAMILY,
    &distilbert::FAMILY,
    &mpnet::FAMILY,
    &gte::FAMILY,
    &llama::FAMILY,
    &gemma3::FAMILY,
    &model2vec::FAMILY,
    &qwen3_vl::FAMILY,
    &bidirlm_omni::FAMILY,
    &qwen25_omni::FAMILY,
    &qwen3_omni_encoders::FAMILY,
    &colqwen2::FAMILY,
    &siglip::FAMILY,
    &clip::FAMILY,
    &lfm2::FAMILY,
    &clap::FAMILY,
];

/// Published checkpoints of each family, a TOML file for people who choose one.
pub const PUBLISHED: &str = include_str!("../cards/published.toml");

thread_local! {
    /// Families from outside this crate that a record on this thread may be of.
    static OTHERS: RefCell<Vec<&'static Family>> = const { RefCell::new(Vec::new()) };
}

/// Every known family, those from outside last.
pub fn known() -> Vec<&'static Family> {
    OTHERS.with(|others| FAMILIES.iter().copied().chain(others.borrow().iter().copied()).collect())
}

/// Runs `work` with further families known on this thread: records of theirs can be opened in it.
///
/// # Errors
/// [`ConfigError::OutOfRange`] for a family without a name, or with one that another family has.
pub fn with_families<T>(families: &[&'static Family], work: impl FnOnce() -> T) -> Result<T, ConfigError> {
    let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    for family in families {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if family.name.is_empty() || !family.name.chars().all(plain) || names.contains(&family.name) {
            return Err(ConfigError::OutOfRange {
                field: "family.name".into(),
                found: format!("{:?}", family.name),
                expected: "a name of a-z, 0-9 and _ that no other family has".into(),
            });
        }
        names.push(family.name);
    }
    struct Restore(Vec<&'static Family>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OTHERS.with(|others| *others.borrow_mut() = std::mem::take(&mut self.0));
        }
    }
    let _restore = Restore(OTHERS.with(|others| others.replace(families.to_vec())));
    Ok(work())
}

/// The rules of every family that has some.
pub fn rules() -> Vec<&'static CheckpointRules> {
    known().into_iter().filter_map(|family| family.checkpoint).collect()
}

/// The rules for a folder whose `config.json` has this `model_type`.
pub fn rules_for(config: &Value) -> Option<&'static CheckpointRules> {
    let model_type = config.get("model_type")?.as_str()?;
    rules().into_iter().find(|rules| rules.model_types.contains(&model_type))
}

impl<'de> Deserialize<'de> for FamilyConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = FamilyConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a family: its name, then its configuration")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FamilyConfig, A::Error> {
                let (mut family, mut config) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match (key.as_str(), family) {
                        ("name", None) => family = Some(named(&map.next_value::<String>()?).map_err(A::Error::custom)?),
                        ("config", Some(family)) if config.is_none() => {
                            config = Some(map.next_value_seed(Config(family))?)
                        }
                        ("config", None) => return Err(A::Error::custom("the family's name comes before its config")),
                        ("name" | "config", _) => return Err(A::Error::custom(format!("duplicate field `{key}`"))),
                        _ => return Err(A::Error::unknown_field(&key, &["name", "config"])),
                    }
                }
                match (family, config) {
                    (None, _) => Err(A::Error::missing_field("name")),
                    (_, None) => Err(A::Error::missing_field("config")),
                    (Some(_), Some(config)) => Ok(FamilyConfig::from_box(config)),
                }
            }
        }
        from.deserialize_struct("FamilyConfig", &["name", "config"], Fields)
    }
}

/// The family of a name.
fn named(name: &str) -> Result<&'static Family, String> {
    let known = known();
    known.iter().copied().find(|family| family.name == name).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|family| format!("`{}`", family.name)).collect();
        format!("unknown family `{name}`, expected one of {}", names.join(", "))
    })
}

/// Reads the configuration of a family.
struct Config(&'static Family);

impl<'de> DeserializeSeed<'de> for Config {
    type Value = Box<dyn Architecture>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let mut from = <dyn erased_serde::Deserializer<'_>>::erase(from);
        (self.0.read)(&mut from).map_err(D::Error::custom)
    }
}
