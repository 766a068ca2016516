//! Tokens that settings add to a vocabulary, and the settings that say so.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::fields::{Faults, shown};

/// An added token with all its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub normalized: bool,
    pub special: bool,
}

impl Added {
    /// A special token of which nothing but the text is known.
    pub fn special(content: &str) -> Self {
        Self {
            content: content.into(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }
    }

    /// Properties by name; what is absent is as a new `AddedToken` has it. Gives the fault, if any.
    pub fn read(fields: &Map<String, Value>) -> Result<Self, &'static str> {
        let flag = |name: &str, otherwise: bool| match fields.get(name) {
            None => Ok(otherwise),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err("true or false for each property of a token"),
        };
        let content = fields.get("content").and_then(Value::as_str).ok_or("a token with its content, a string")?;
        let special = flag("special", false)?;
        Ok(Self {
            content: content.into(),
            single_word: flag("single_word", false)?,
            lstrip: flag("lstrip", false)?,
            rstrip: flag("rstrip", false)?,
            normalized: flag("normalized", !special)?,
            special,
        })
    }

    pub fn json(&self, id: u64) -> Value {
        json!({
            "id": id, "content": self.content, "single_word": self.single_word, "lstrip": self.lstrip,
            "rstrip": self.rstrip, "normalized": self.normalized, "special": self.special,
        })
    }
}

/// A special token of the settings: its text alone, or with its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    Text(String),
    Token(Added),
}

impl Named {
    pub fn text(&self) -> &str {
        match self {
            Named::Text(text) => text,
            Named::Token(token) => &token.content,
        }
    }
}

/// Everything of the settings files that can count.
pub(crate) struct Settings<'a> {
    pub fields: Map<String, Value>,
    /// Faults of `tokenizer_config.json`.
    pub faults: &'a Faults,
    /// Special tokens by their name, in the order they are added in; a name that is `null` is in `nulls`.
    pub named: Vec<(String, Named)>,
    pub nulls: Vec<String>,
    /// Special tokens without a name.
    pub extra: Vec<Named>,
    /// Added tokens by id.
    pub decoder: Vec<(u64, Added)>,
}

impl Settings<'_> {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// All settings by name, without those of tokens that were taken out.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.fields.iter()
    }

    /// A setting that the library takes as a flag: `null` is no flag to it.
    pub fn flag(&self, name: &str, otherwise: bool) -> bool {
        match self.fields.get(name) {
            None => otherwise,
            Some(Value::Bool(flag)) => *flag,
            found => {
                self.faults.add(name, shown(found), "true or false");
                otherwise
            }
        }
    }

    /// A flag that may be `null`.
    pub fn maybe_flag(&self, name: &str) -> Option<bool> {
        if self.fields.get(name).is_none_or(Value::is_null) { None } else { Some(self.flag(name, false)) }
    }

    /// Text of a named token, with what the class has for it.
    pub fn token<'s>(&'s self, name: &str, otherwise: &'s str) -> &'s str {
        if self.nulls.iter().any(|null| null == name) {
            self.faults.add(name, "null", "a token, as this class needs one");
        }
        self.named.iter().find(|(key, _)| key == name).map_or(otherwise, |(_, named)| named.text())
    }
}

/// The added tokens over a model's own vocabulary, as the library keeps them.
pub(crate) struct Vocabulary<'a> {
    own: HashMap<&'a str, u64>,
    own_size: u64,
    /// By id.
    pub added: Vec<(u64, Added)>,
}

impl<'a> Vocabulary<'a> {
    pub fn of(vocab: Option<&'a Value>) -> Self {
        let own: HashMap<&str, u64> = match vocab {
            Some(Value::Object(map)) => map.iter().filter_map(|(k, v)| Some((k.as_str(), v.as_u64()?))).collect(),
            Some(Value::Array(list)) => {
                let token = |v: &'a Value| v.as_str().or_else(|| v.get(0)?.as_str());
                list.iter().enumerate().filter_map(|(id, v)| Some((token(v)?, id as u64))).collect()
            }
            _ => HashMap::new(),
        };
        let own_size = match vocab {
            Some(Value::Array(list)) => list.len() as u64,
            _ => own.len() as u64,
        };
        Self { own, own_size, added: Vec::new() }
    }

    /// Whether the model's own vocabulary has a token.
    pub fn has(&self, content: &str) -> bool {
        self.own.contains_key(content)
    }

    /// The id of a token, added or of the model.
    pub fn id(&self, content: &str) -> Option<u64> {
        let added = self.added.iter().find(|(_, token)| token.content == content).map(|(id, _)| *id);
        added.or_else(|| self.own.get(content).copied())
    }

    pub fn add(&mut self, tokens: impl IntoIterator<Item = Added>) {
        let highest = self.added.iter().map(|(id, _)| *id).max();
        let mut next = match highest {
            Some(highest) if highest >= self.own_size || self.own_size == 0 => highest + 1,
            _ => self.own_size,
        };
        for token in tokens {
            if token.content.is_empty() || self.added.iter().any(|(_, there)| *there == token) {
                continue;
            }
            let id = self.id(&token.content).unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            match self.added.iter_mut().find(|(at, _)| *at == id) {
                Some(there) => there.1 = token,
                None => self.added.push((id, token)),
            }
        }
    }

    /// Added tokens in the order of their ids, as a file lists them.
    pub fn sorted(&self) -> Vec<(u64, Added)> {
        let mut sorted = self.added.clone();
        sorted.sort_by_key(|(id, _)| *id);
        sorted
    }
}
