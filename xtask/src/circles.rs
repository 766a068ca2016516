//! No circle of files inside a crate: a file imports what lies beside or below it, and nothing that leads back.
//!
//! Read from paths in the text, up to the tests that end a file. A method that one file adds to another's type is no import
//! and is not seen, nor is a name that came through `*`.

use std::collections::{BTreeMap, BTreeSet};

use crate::absences::{Source, repository};

/// Crates whose files have no circle.
const CRATES: &[&str] = &[
    "crates/scheduler/src/",
    "crates/media/src/",
    "crates/output/src/",
    "crates/engine/src/",
    "crates/diagnostics/src/",
    "crates/cli/src/",
];

/// The path of a module from the root of its crate, which is the empty path.
type Module = Vec<String>;

/// The module of a file, by its path below `src`.
fn module_of(file: &str) -> Module {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if ["lib", "main"].contains(&path) { Module::new() } else { path.split('/').map(String::from).collect() }
}

/// A word of the text, or a mark between words.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Joint,
    Mark(char),
}

fn tokens(source: &Source) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (_, line) in source.shipped_code() {
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            if c.is_alphanumeric() || c == '_' {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            } else if c == ':' && rest.next_if_eq(&':').is_some() {
                tokens.push(Token::Joint);
            } else if !c.is_whitespace() {
                tokens.push(Token::Mark(c));
            }
        }
    }
    tokens
}

/// Every path of a text that begins at `tokens[at]`, those of a group in braces each by itself, and where they end.
fn paths(tokens: &[Token], mut at: usize, before: &[String], found: &mut Vec<Module>) -> usize {
    let mut path = before.to_vec();
    while let Some(Token::Word(word)) = tokens.get(at) {
        path.push(word.clone());
        at += 1;
        if tokens.get(at) != Some(&Token::Joint) {
            break;
        }
        at += 1;
    }
    if tokens.get(at) != Some(&Token::Mark('{')) || tokens.get(at.wrapping_sub(1)) != Some(&Token::Joint) {
        found.push(path);
        return at;
    }
    at += 1;
    while at < tokens.len() && tokens[at] != Token::Mark('}') {
        at = match tokens[at] {
            Token::Word(_) => paths(tokens, at, &path, found),
            _ => at + 1,
        };
    }
    at + 1
}

/// Files of the crate that a file imports.
fn imports(module: &Module, source: &Source, files: &BTreeMap<Module, &Source>) -> BTreeSet<Module> {
    let tokens = tokens(source);
    let is_child = |name: &String| files.contains_key(&[module.as_slice(), std::slice::from_ref(name)].concat());
    let (mut found, mut depth, mut inline, mut at) = (BTreeSet::new(), 0usize, Vec::new(), 0);
    while at < tokens.len() {
        let joined = at > 0 && tokens[at - 1] == Token::Joint;
        match &tokens[at] {
            Token::Mark('{') => {
                let is_module = at > 1 && tokens[at - 2] == Token::Word("mod".into());
                depth += 1;
                if is_module {
                    inline.push(depth);
                }
            }
            Token::Mark('}') => {
                inline.retain(|&module| module < depth);
                depth = depth.saturating_sub(1);
            }
            Token::Word(first)
                if !joined
                    && tokens.get(at + 1) == Some(&Token::Joint)
                    && (["crate", "super", "self"].contains(&first.as_str()) || is_child(first)) =>
            {
                let mut all = Vec::new();
                at = paths(&tokens, at, &[], &mut all);
                let resolved = all.iter().map(|path| resolve(module, inline.len(), path, files));
                found.extend(resolved.filter(|found| found != module));
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The file that a path leads into, seen from `module`, or from a module written out in it at a depth of `inline`.
fn resolve(module: &Module, inline: usize, path: &[String], files: &BTreeMap<Module, &Source>) -> Module {
    let ups = path.iter().take_while(|word| *word == "super").count();
    let (mut reached, rest) = match path.first().map(String::as_str) {
        Some("crate") => (Module::new(), &path[1..]),
        Some("self") => (module.clone(), &path[1..]),
        _ => (module[..module.len() - ups.saturating_sub(inline).min(module.len())].to_vec(), &path[ups..]),
    };
    for word in rest {
        reached.push(word.clone());
        if !files.contains_key(&reached) {
            reached.pop();
            break;
        }
    }
    reached
}

/// The files of a crate that stand in a circle, or between two.
fn circles(files: &BTreeMap<Module, &Source>) -> BTreeMap<Module, BTreeSet<Module>> {
    let arrow = |(module, source): (&Module, &&Source)| (module.clone(), imports(module, source, files));
    let mut left: BTreeMap<Module, BTreeSet<Module>> = files.iter().map(arrow).collect();
    loop {
        let before = left.len();
        let imported: BTreeSet<Module> = left.values().flatten().cloned().collect();
        left.retain(|module, imports| !imports.is_empty() && imported.contains(module));
        let names: BTreeSet<Module> = left.keys().cloned().collect();
        left.values_mut().for_each(|imports| imports.retain(|import| names.contains(import)));
        if left.len() == before {
            return left;
        }
    }
}

mod tests {
    use super::*;

    fn of_crate<'a>(sources: &'a [Source], folder: &str) -> BTreeMap<Module, &'a Source> {
        let files = sources.iter().filter(|source| source.path.ends_with(".rs"));
        files.filter_map(|source| Some((module_of(source.path.strip_prefix(folder)?), source))).collect()
    }

    fn toy(files: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source { path: format!("src/{path}"), text: text.to_string() };
        let sources: Vec<Source> = files.iter().map(source).collect();
        circles(&of_crate(&sources, "src/")).into_keys().map(|module| module.join("::")).collect()
    }

    #[test]
    fn no_file_imports_one_that_leads_back_to_it() {
        let sources = repository();
        for folder in CRATES {
            let files = of_crate(&sources, folder);
            assert!(files.len() > 3, "{folder} has {} files", files.len());
            let found = circles(&files);
            assert!(found.is_empty(), "{folder}: {found:#?}");
        }
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        let ways = ["use crate::b::B;", "use super::b;", "use crate::{c, b::{A, B}};", "fn f() { crate::b::f() }"];
        for way in ways {
            let found = toy(&[("lib.rs", "mod a;"), ("a.rs", way), ("b.rs", "use crate::a;"), ("c.rs", "")]);
            assert_eq!(found, ["a", "b"], "{way}");
        }
        let children = [("a/mod.rs", "mod b; fn f() { b::f() }"), ("a/b.rs", "use super::g;")];
        assert_eq!(toy(&children), ["a", "a::b"]);
        let three = [("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "use crate::a;")];
        assert_eq!(toy(&three), ["a", "b", "c"]);
    }

    #[test]
    fn what_leads_nowhere_back_is_no_circle() {
        let tree = [
            ("lib.rs", "pub use a::A;"),
            ("a/mod.rs", "pub use b::B; // crate::a::b"),
            ("a/b.rs", "use super::c::C; mod real { use super::D; }\n#[cfg(test)]\nmod tests {\n    use crate::A;\n}"),
            ("a/c.rs", ""),
        ];
        assert_eq!(toy(&tree), [""; 0]);
    }
}
