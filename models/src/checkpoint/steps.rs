//! What a conversion does beside reading a configuration and one set of weights, as data that a family states.

use super::gguf::GgufRules;
use crate::blocks::Pooling;

/// Steps of a conversion, as a family asks for them.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Files that say how texts are pooled, prefixed and cut.
    pub texts: TextFiles,
    /// Added tokens of `tokenizer.json` whose ids the configuration's reader needs; each must be there.
    pub tokens: &'static [&'static str],
    /// The token table, by canonical name, where its rows count and not what `config.json` says of them: it must be there, with
    /// two axes, before anything else is judged.
    pub table: Option<&'static str>,
    /// Cards, as TOML: what no file of these checkpoints states. A folder is recognised by the `model_type` of its `text_config`.
    pub cards: &'static [&'static str],
    /// Tasks with adapters, and with tensors of their own.
    pub tasks: Option<&'static TaskRules>,
    /// The task, where there is one alone.
    pub one: OneTask,
    /// Whether convolutions may lie with their channels last.
    pub channels_last: bool,
    /// The tensors that a table of token rows is made of, where the model is such a table and nothing else. Its texts are cut by
    /// `tokenizer.json` alone, without what other files say of it and without special tokens around a text.
    pub static_table: Option<StaticTable>,
    /// Products that some exports keep in two and the record in one.
    pub folds: &'static [Fold],
    /// Which rows make the vector where no file of sentence-transformers says so, of families whose texts have them.
    pub pooling: Pooling,
    /// Whether files of preprocessors are laid over what the configuration says of media.
    pub processors: bool,
    /// Whether files that say how an item is written are read for the configuration ([`ChatFiles`](super::ChatFiles)).
    pub chat: bool,
    /// Whether no checkpoint of the family scores pairs, so that none is asked whether it does.
    pub vectors_only: bool,
    /// How GGUF files are read, by architecture; none where none are.
    pub gguf: &'static [GgufRules],
}

impl Steps {
    /// One set of weights with the files of sentence-transformers: a text embedder.
    pub const TEXT: Self = Self {
        texts: TextFiles::SentenceTransformers,
        tokens: &[],
        table: None,
        cards: &[],
        tasks: None,
        one: OneTask { name: "base", licence: "as its own page says" },
        channels_last: false,
        static_table: None,
        folds: &[],
        pooling: Pooling::Mean,
        processors: false,
        chat: false,
        vectors_only: false,
        gguf: &[],
    };
}

/// Tensors of a checkpoint that make one table of token rows: `rows[mapping[id]] * weights[id]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticTable {
    /// The rows.
    pub rows: &'static str,
    /// Which row each id takes; one each, in their order, where there is no such tensor.
    pub mapping: &'static str,
    /// What each id's row is multiplied by; nothing, where there is no such tensor.
    pub weights: &'static str,
}

/// Files that say how texts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFiles {
    /// Those of sentence-transformers: modules, pooling, prompts, lengths.
    SentenceTransformers,
    /// The prompts among them alone, laid over the card's.
    Prompts,
    /// Those of the tokenizer alone: how long a text is. Files of sentence-transformers that would change a vector are refused.
    Tokenizer {
        /// Whether texts are padded, so that the id they are padded with counts.
        padded: bool,
    },
    /// None: `config.json` says it all.
    None,
}

/// The task of a checkpoint that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneTask {
    /// Name in the record.
    pub name: &'static str,
    /// Licence of the weights, for the report.
    pub licence: &'static str,
}

/// Tensors that come per task in some layouts of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRules {
    /// Modules by their name where they are shared, and where they come per task: `merger.` is `mergers.KEY.` then.
    pub connectors: &'static [(&'static str, &'static str)],
    /// The record's tensor of rows that a task lays over the token table, and what its own are called: `NAME.KEY`.
    pub rows: (&'static str, &'static str),
}

impl TaskRules {
    /// Beginnings of names that hold a task's key behind them, each without its dot.
    pub fn per_task(&self) -> impl Iterator<Item = &'static str> {
        self.connectors.iter().map(|(_, per_task)| *per_task).chain([self.rows.1])
    }

    /// The task's key in a canonical name, where it has one.
    pub fn key_of<'a>(&self, canonical: &'a str) -> Option<&'a str> {
        let rest = self.per_task().find_map(|name| canonical.strip_prefix(name)?.strip_prefix('.'))?;
        Some(rest.split('.').next().unwrap_or(rest))
    }

    /// The canonical name of a connector's tensor, with the task's key where connectors come per task.
    pub fn named(&self, canonical: String, key: Option<&str>) -> String {
        let Some(key) = key else { return canonical };
        let per_task = self.connectors.iter().find_map(|(shared, per_task)| {
            let rest = canonical.strip_prefix(shared)?.strip_prefix('.')?;
            Some(format!("{per_task}.{key}.{rest}"))
        });
        per_task.unwrap_or(canonical)
    }
}

/// A linear with another one in front of it and nothing between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fold {
    /// The linear of the record, which is also its name in a checkpoint.
    pub outer: &'static str,
    /// The one in front, where an export kept the two apart.
    pub inner: &'static str,
}
