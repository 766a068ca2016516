//! What a query allows, as each store writes it in its own SQL.

use crate::query::{Filter, Query};

/// Which files and contents may be found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    pub filter: Filter,
    /// What stands in a content's text or in a file's name.
    pub phrases: Vec<String>,
    /// What stands in neither.
    pub without: Vec<String>,
}

impl Condition {
    /// What a query allows: its qualifiers, its phrases, and what it must not have.
    pub fn of(query: &Query) -> Self {
        Self { filter: query.filter.clone(), phrases: query.phrases.clone(), without: query.without.clone() }
    }

    /// True where everything is allowed.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}
