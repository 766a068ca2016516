//! Where the Hugging Face libraries keep what they downloaded on this machine.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The folders to look in, first the one that huggingface_hub uses.
///
/// `HF_HUB_CACHE` counts, else `HUGGINGFACE_HUB_CACHE`, else `hub` below `HF_HOME`, else `huggingface/hub` below
/// `XDG_CACHE_HOME`, else below `~/.cache`; in each, `~` and `$NAME` stand for what they stand for in a shell. The library
/// takes an empty variable at its word, which makes the folder one below the working folder; whoever empties a variable
/// mostly means that it should not count, so that reading comes next. Last come the folders that older releases of
/// transformers and sentence-transformers were given.
///
/// # Source
/// huggingface_hub, `constants.py`.
pub(super) fn folders(var: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let set = |name: &str| var(name).filter(|value| !value.is_empty());
    let mut found: Vec<PathBuf> = Vec::new();
    let mut add = |folder: Option<PathBuf>| {
        if let Some(folder) = folder
            && !found.contains(&folder)
        {
            found.push(folder);
        }
    };
    add(hub(&var, &var, home.as_deref()));
    add(hub(&set, &var, home.as_deref()));
    for name in ["SENTENCE_TRANSFORMERS_HOME", "TRANSFORMERS_CACHE"] {
        add(set(name).map(|value| expanded(&value, &var, home.as_deref())));
    }
    found
}

/// The folder that the first of these variables names.
fn hub(
    first: &impl Fn(&str) -> Option<OsString>,
    var: &impl Fn(&str) -> Option<OsString>,
    home: Option<&Path>,
) -> Option<PathBuf> {
    if let Some(value) = first("HF_HUB_CACHE").or_else(|| first("HUGGINGFACE_HUB_CACHE")) {
        return Some(expanded(&value, var, home));
    }
    let base = match (first("HF_HOME"), first("XDG_CACHE_HOME")) {
        (Some(value), _) => expanded(&value, var, home),
        (None, Some(value)) => expanded(Path::new(&value).join("huggingface").as_os_str(), var, home),
        (None, None) => home?.join(".cache").join("huggingface"),
    };
    Some(base.join("hub"))
}

/// A path with `~` in front and `$NAME` or `${NAME}` anywhere put in; a name that is not set stays as it is.
fn expanded(value: &OsStr, var: &impl Fn(&str) -> Option<OsString>, home: Option<&Path>) -> PathBuf {
    let Some(text) = value.to_str() else { return PathBuf::from(value) };
    let mut path = OsString::new();
    let mut rest = match (text.strip_prefix('~'), home) {
        (Some(after), Some(home)) if after.is_empty() || after.starts_with(std::path::is_separator) => {
            path.push(home);
            after
        }
        _ => text,
    };
    while let Some((before, after)) = rest.split_once('$') {
        path.push(before);
        let word = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, next) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(word(after)),
        };
        match var(name).filter(|_| !name.is_empty()) {
            Some(value) => path.push(value),
            None => path.push(&rest[before.len()..rest.len() - next.len()]),
        }
        rest = next;
    }
    path.push(rest);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Vec<String> {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        let folders = folders(var, Some("/people/me".into()));
        folders.iter().map(|folder| folder.to_str().unwrap().replace('\\', "/")).collect()
    }

    #[test]
    fn variables_count_in_the_order_of_huggingface_hub() {
        let all =
            [("HF_HUB_CACHE", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HOME", "/c"), ("XDG_CACHE_HOME", "/d")];
        for (first, expected) in ["/a", "/b", "/c/hub", "/d/huggingface/hub"].into_iter().enumerate() {
            assert_eq!(of(&all[first..]), [expected]);
        }
        assert_eq!(of(&[]), ["/people/me/.cache/huggingface/hub"]);
        assert_eq!(of(&[("HF_HUB_CACHE", "some/where")]), ["some/where"]);
    }

    #[test]
    fn home_and_variables_inside_a_variable_are_put_in() {
        for (value, expected) in [
            ("~", "/people/me"),
            ("~/models", "/people/me/models"),
            ("~other/models", "~other/models"),
            ("$DATA/models", "/data/models"),
            ("/x/${DATA}x/$NOWHERE/$", "/x//datax/$NOWHERE/$"),
            ("/x/${DATA", "/x/${DATA"),
        ] {
            assert_eq!(of(&[("HF_HUB_CACHE", value), ("DATA", "/data")]), [expected], "{value}");
        }
        assert_eq!(of(&[("XDG_CACHE_HOME", "~/c")]), ["/people/me/c/huggingface/hub"]);
        assert_eq!(of(&[("HF_HOME", "$DATA/hf"), ("DATA", "/data")]), ["/data/hf/hub"]);
    }

    #[test]
    fn an_empty_variable_is_taken_at_its_word_and_then_not_at_all() {
        assert_eq!(of(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/c")]), ["", "/c/hub"]);
        assert_eq!(of(&[("HF_HOME", ""), ("XDG_CACHE_HOME", "/d")]), ["hub", "/d/huggingface/hub"]);
        let older = of(&[("HF_HUB_CACHE", "/a"), ("SENTENCE_TRANSFORMERS_HOME", "/s"), ("TRANSFORMERS_CACHE", "")]);
        assert_eq!(older, ["/a", "/s"]);
    }
}
