//! Names of tensors in published checkpoints.

/// How a rule recognises a name.
#[derive(Debug, Clone, Copy)]
pub enum Pattern {
    /// The whole name.
    Exact(&'static str),
    /// Its beginning.
    Prefix(&'static str),
    /// Its end.
    Suffix(&'static str),
    /// Any part of it.
    Contains(&'static str),
}

impl Pattern {
    fn matches(self, name: &str) -> bool {
        match self {
            Pattern::Exact(p) => name == p,
            Pattern::Prefix(p) => name.starts_with(p),
            Pattern::Suffix(p) => name.ends_with(p),
            Pattern::Contains(p) => name.contains(p),
        }
    }
}

/// The rules of a family.
#[derive(Debug)]
pub struct KeyMap {
    /// Prefixes and what replaces them, tried in order, each at most once a name.
    pub renames: &'static [(&'static str, &'static str)],
    /// Ends of names and what replaces them, the first that fits.
    pub endings: &'static [(&'static str, &'static str)],
    /// Tensors known to be unused, with the reason.
    pub drops: &'static [(Pattern, &'static str)],
}

impl KeyMap {
    /// The canonical form of a name.
    pub fn canonical(&self, name: &str) -> String {
        let name = self.renames.iter().fold(name.to_string(), |name, (from, to)| match name.strip_prefix(from) {
            Some(rest) => format!("{to}{rest}"),
            None => name,
        });
        match self.endings.iter().find_map(|(from, to)| Some((name.strip_suffix(from)?, to))) {
            Some((start, to)) => format!("{start}{to}"),
            None => name,
        }
    }

    /// Why a tensor of this canonical name is not needed, if a rule knows it.
    pub fn drop_reason(&self, canonical: &str) -> Option<&'static str> {
        self.drops.iter().find(|(pattern, _)| pattern.matches(canonical)).map(|(_, reason)| *reason)
    }
}

/// The name in a checkpoint, in its one spelling, of a tensor of a record.
pub fn source_name(names: &[(&str, &str)], record: &str) -> String {
    names.iter().fold(record.to_string(), |name, (ours, theirs)| name.replacen(ours, theirs, 1))
}
