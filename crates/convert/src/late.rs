//! Models of late interaction, which give a vector for each row: what the files of pylate and of sentence-transformers say of
//! markers, skipped words and the expansion of queries.

use omniburn_models::blocks::DenseConfig;

use crate::fields::Fields;

/// Words that pylate skips in documents unless a file says otherwise: `string.punctuation` of Python.
pub(crate) const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
/// Tokens of a query with its expansion where no file says how many.
const QUERY_LENGTH: usize = 32;
/// Tokens of a document where a file of pylate does not say how many.
const DOCUMENT_LENGTH: usize = 180;
/// How a file calls the sum of the largest products.
const MAX_SIM: [&str; 2] = ["MaxSim", "maxsim"];
/// Classes of whole models.
const CLASSES: [&str; 2] = ["ColBERT", "MultiVectorEncoder"];

/// What the files of a folder say of a model that gives a vector for each row.
#[derive(Debug, Clone)]
pub(crate) struct Late {
    pub dense: Vec<DenseConfig>,
    /// What stands in front of a query and of a document: one token each, or else text.
    pub markers: [String; 2],
    /// Tokens whose rows in a document have no vector.
    pub skiplist: Vec<String>,
    /// Tokens of a document at most, where that is not all that the model reads.
    pub document_tokens: Option<usize>,
    pub expansion: Option<Expansion>,
    /// Whether markers and words are looked up by their ids alone, as colbert-ai does it: a marker is a token, a word that is none
    /// is the unknown token, and padding has no vector.
    pub ids_alone: bool,
}

/// Tokens of a query and of a document at most.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lengths {
    pub query: Option<usize>,
    pub document: Option<usize>,
}

impl Lengths {
    /// What one of them says, the first before the second.
    pub fn or(self, other: Self) -> Self {
        Self { query: self.query.or(other.query), document: self.document.or(other.document) }
    }
}

/// What stands behind a query until it is so long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expansion {
    /// The token; the mask where absent.
    pub token: Option<String>,
    pub length: usize,
    pub attended: bool,
    /// Whether no query is longer.
    pub fixed: bool,
}

impl Expansion {
    /// As sentence-transformers writes it; `None` after a fault.
    ///
    /// # Source
    /// sentence-transformers 6.2.0, `QueryExpansionConfig`.
    pub fn read(fields: &Fields<'_>) -> Option<Self> {
        for (name, _) in fields.present() {
            if !["strategy", "attend", "token", "length"].contains(&name.as_str()) {
                fields.fault(name, "no field of this name, as nothing is computed from it");
            }
        }
        let fixed = match fields.text("strategy") {
            Some("fixed") => true,
            Some("min") => false,
            _ => {
                fields.fault("strategy", "\"fixed\" or \"min\"");
                return None;
            }
        };
        Some(Self {
            token: fields.text("token").map(String::from),
            length: fields.needed_size("length"),
            attended: fields.flag("attend").unwrap_or(false),
            fixed,
        })
    }
}

/// What the file of the whole model says.
pub(crate) struct OfModel {
    pub markers: [String; 2],
    pub skiplist: Vec<String>,
    pub lengths: Lengths,
    pub expansion: Option<Expansion>,
    pub notes: Vec<String>,
}

/// Reads the file of the whole model; `pylate` where its modules are as pylate saves them, which says the rest there.
pub(crate) fn of_model(fields: &Fields<'_>, pylate: bool) -> OfModel {
    let mut notes = Vec::new();
    const KNOWN: [&str; 14] = [
        "prompts",
        "default_prompt_name",
        "similarity_fn_name",
        "model_type",
        "requirements",
        "__version__",
        "query_prefix",
        "document_prefix",
        "query_length",
        "document_length",
        "attend_to_expansion_tokens",
        "skiplist_words",
        "do_query_expansion",
        "truncate_dim",
    ];
    for (name, _) in fields.present() {
        if !KNOWN.contains(&name.as_str()) {
            notes.push(format!("{name} is not used"));
        }
    }
    if fields.text("model_type").is_some_and(|class| !CLASSES.contains(&class)) {
        fields.fault("model_type", CLASSES.join(" or "));
    }
    if fields.text("similarity_fn_name").is_some_and(|name| !MAX_SIM.contains(&name)) {
        fields.fault("similarity_fn_name", "MaxSim: a vector for each token");
    }
    if fields.get("truncate_dim").is_some() {
        fields.fault("truncate_dim", "nothing: vectors of tokens are given whole");
    }
    if !pylate {
        return OfModel {
            markers: Default::default(),
            skiplist: Vec::new(),
            lengths: Lengths::default(),
            expansion: None,
            notes,
        };
    }
    let marker = |name: &str, usual: &str| match fields.get(name) {
        Some(_) => fields.text(name).unwrap_or_default().to_string(),
        None => usual.into(),
    };
    let query = fields.size("query_length").unwrap_or(QUERY_LENGTH);
    let expands = fields.flag("do_query_expansion").unwrap_or(true);
    let attended = fields.flag("attend_to_expansion_tokens").unwrap_or(false);
    OfModel {
        markers: [marker("query_prefix", "[Q] "), marker("document_prefix", "[D] ")],
        skiplist: match fields.get("skiplist_words") {
            Some(_) => fields.texts("skiplist_words"),
            None => PUNCTUATION.chars().map(String::from).collect(),
        },
        lengths: Lengths {
            query: Some(query),
            document: Some(fields.size("document_length").unwrap_or(DOCUMENT_LENGTH)),
        },
        expansion: expands.then_some(Expansion { token: None, length: query, attended, fixed: true }),
        notes,
    }
}

/// Reads the module that says which rows have a vector.
///
/// # Source
/// sentence-transformers 6.2.0, `MultiVectorMask`.
pub(crate) fn of_mask(fields: &Fields<'_>) -> Vec<String> {
    for (name, value) in fields.present() {
        match name.as_str() {
            "skiplist_words" => {}
            "skiplist_tasks" => {
                let alone = value.as_array().is_some_and(|tasks| tasks.len() == 1 && tasks[0] == "document");
                if !alone && value != "document" {
                    fields.fault(name, "[\"document\"]: words of queries are not skipped");
                }
            }
            _ => fields.fault(name, "nothing, as it is not computed"),
        }
    }
    fields.texts("skiplist_words")
}
