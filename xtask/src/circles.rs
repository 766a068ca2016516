//! The arrows between the files of a crate: no two of them import each other, not even by way of others.
//!
//! Read from the sources of each library and program: what a file names by `use`, or by a path that begins with `crate`,
//! `super` or a module declared in it. A `pub use` is no arrow but a table of contents: whoever names what it hands on means
//! the file that has it. Comments, strings and the tests that end a file do not count; neither do methods and traits, which are
//! called without being named. What is left of circles stands in [`CIRCLES`], each with a reason; the list may only shrink.

use std::collections::{BTreeMap, BTreeSet};

use crate::absences::Source;

/// Files of one crate that import each other.
struct Circle {
    /// Folder of the crate's sources.
    sources: &'static str,
    /// Paths below it.
    files: &'static [&'static str],
    reason: &'static str,
}

const CIRCLES: &[Circle] = &[
    Circle {
        sources: "crates/kernels/src/",
        files: &["cpu/amx.rs", "cpu/isa.rs", "cpu/simd.rs", "cpu/tile.rs"],
        reason: "which instructions there are is asked where they are used, and AMX is asked for where it is written",
    },
    Circle {
        sources: "crates/kernels/src/",
        files: &["bucket.rs", "flex.rs", "fused.rs", "lib.rs", "ops.rs", "rectangle.rs", "weight.rs"],
        reason: "an operation goes to the backend's own body, which falls back to the operation",
    },
];

/// A module as a path of names; the crate itself is empty.
type Module = Vec<String>;

/// What one file names.
#[derive(Default)]
struct File {
    path: String,
    /// Modules declared in it.
    children: BTreeSet<String>,
    /// Paths it names, as they are written.
    named: Vec<Vec<String>>,
    /// What it hands on: the name, or `*`, and the path it stands at.
    handed_on: Vec<(String, Vec<String>)>,
    /// Items it has.
    items: BTreeSet<String>,
}

/// The files of one crate by module.
struct Crate {
    files: BTreeMap<Module, File>,
}

impl Crate {
    fn of(sources: &[Source], folder: &str) -> Self {
        let mut files = BTreeMap::new();
        for source in sources.iter().filter(|source| source.is_rust()) {
            let Some(path) = source.path.strip_prefix(folder) else { continue };
            let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_string).collect();
            if module.last().is_some_and(|last| last == "mod") || module == ["lib"] || module == ["main"] {
                module.pop();
            }
            let code: Vec<&str> = source.shipped_code().map(|(_, line)| line).collect();
            let file = File { path: path.into(), ..read(&tokens(&code.join("\n"))) };
            // A library beside a program: both are the crate itself.
            let there = files.entry(module).or_insert_with(File::default);
            *there = joined(std::mem::take(there), file);
        }
        Self { files }
    }

    /// The path from the crate's root; nothing for another crate's.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        match path.first().map(String::as_str)? {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&module[..], &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let base = module.len().checked_sub(ups)?;
                Some([&module[..base], &path[ups..]].concat())
            }
            first => {
                let child = [&module[..], &[first.to_string()]].concat();
                self.files.contains_key(&child).then(|| [&module[..], path].concat())
            }
        }
    }

    /// The module whose file has what a path from the root names.
    fn target(&self, path: &[String], depth: usize) -> Option<Module> {
        let length = (0..=path.len()).rev().find(|&n| self.files.contains_key(&path[..n]))?;
        let (module, rest) = (path[..length].to_vec(), &path[length..]);
        // Deeper than any table of contents.
        let Some(name) = rest.first().filter(|_| depth < 8) else { return Some(module) };
        let file = &self.files[&module];
        if file.items.contains(name) {
            return Some(module);
        }
        for (handed, at) in &file.handed_on {
            let Some(at) = self.absolute(&module, at) else { continue };
            if handed == name {
                return self.target(&[&at[..], &rest[1..]].concat(), depth + 1);
            }
            if handed == "*"
                && let Some(found) = self.target(&at, depth + 1)
                && self.files[&found].items.contains(name)
            {
                return Some(found);
            }
        }
        Some(module)
    }

    /// Which files each file names.
    fn arrows(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let of = |(module, file): (&Module, &File)| {
            let targets = file.named.iter().filter_map(|path| self.target(&self.absolute(module, path)?, 0));
            (module.clone(), targets.filter(|target| target != module).collect())
        };
        self.files.iter().map(of).collect()
    }

    /// Paths of files that reach themselves, those that reach each other together.
    fn circles(&self) -> Vec<BTreeSet<String>> {
        let arrows = self.arrows();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> = arrows
            .keys()
            .map(|from| {
                let mut seen = BTreeSet::new();
                let mut next: Vec<&Module> = arrows[from].iter().collect();
                while let Some(module) = next.pop() {
                    if seen.insert(module) {
                        next.extend(&arrows[module]);
                    }
                }
                (from, seen)
            })
            .collect();
        let mut circles: Vec<BTreeSet<String>> = Vec::new();
        for (from, seen) in &reached {
            let path = &self.files[*from].path;
            if seen.contains(*from) && !circles.iter().any(|circle| circle.contains(path)) {
                let mutual = seen.iter().filter(|other| reached[**other].contains(*from));
                circles.push(mutual.map(|other| self.files[*other].path.clone()).collect());
            }
        }
        circles
    }
}

fn joined(mut one: File, other: File) -> File {
    if one.path.is_empty() {
        return other;
    }
    one.children.extend(other.children);
    one.named.extend(other.named);
    one.handed_on.extend(other.handed_on);
    one.items.extend(other.items);
    one
}

/// Words, `::`, and single signs; comments are gone already, strings are left out.
fn tokens(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let length = if c.is_alphanumeric() || c == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = &rest[end.map_or(rest.len(), |end| end + 2)..];
            continue;
        } else if c == '\'' {
            // A character; what has no second quote is a lifetime.
            let inner = rest[1..].chars().next().map_or(0, char::len_utf8);
            match &rest[1..] {
                escaped if escaped.starts_with('\\') => 4 + escaped[2..].find('\'').unwrap_or(0),
                plain if plain[inner..].starts_with('\'') => 2 + inner,
                _ => 1,
            }
        } else {
            c.len_utf8()
        };
        if !c.is_whitespace() {
            found.push(rest[..length].to_string());
        }
        rest = &rest[length..];
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn read(tokens: &[String]) -> File {
    const ITEMS: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "mod"];
    let mut file = File::default();
    let at = |i: usize| tokens.get(i).map_or("", String::as_str);
    // Declared first: a path may be written above the declaration.
    for i in 0..tokens.len() {
        if at(i) == "mod" && is_word(at(i + 1)) && at(i + 2) == ";" {
            file.children.insert(at(i + 1).into());
        } else if ITEMS.contains(&at(i)) && is_word(at(i + 1)) {
            file.items.insert(at(i + 1).into());
        }
    }
    let mut i = 0;
    while i < tokens.len() {
        if at(i) == "use" {
            // `pub`, or `pub(crate)` and the like.
            let public = i > 0 && (at(i - 1) == "pub" || at(i - 1) == ")");
            let end = (i..tokens.len()).find(|&j| at(j) == ";").unwrap_or(tokens.len());
            for path in tree(&tokens[i + 1..end]) {
                match path.last() {
                    Some(last) if public => file.handed_on.push((last.clone(), path.clone())),
                    _ => file.named.push(path),
                }
            }
            i = end;
        } else if is_word(at(i)) && at(i + 1) == "::" && (i == 0 || at(i - 1) != "::") {
            let mut path = vec![at(i).to_string()];
            while at(i + 1) == "::" && is_word(at(i + 2)) {
                path.push(at(i + 2).into());
                i += 2;
            }
            if ["crate", "super", "self"].contains(&path[0].as_str()) || file.children.contains(&path[0]) {
                file.named.push(path);
            }
            i += 1;
        } else {
            i += 1;
        }
    }
    file
}

/// Every path of a `use`; what it is called here does not count, and `self` is what stands in front.
fn tree(tokens: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut prefix: Vec<String> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "{" => {
                let (mut depth, mut start) = (0, i + 1);
                for (j, token) in tokens.iter().enumerate().skip(i) {
                    match token.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if (depth == 1 && token == ",") || depth == 0 {
                        for rest in tree(&tokens[start..j]) {
                            paths.push([&prefix[..], &rest].concat());
                        }
                        start = j + 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
                return paths;
            }
            "as" => break,
            "::" => {}
            "self" if !prefix.is_empty() || tokens.len() == 1 => {}
            name => prefix.push(name.into()),
        }
        i += 1;
    }
    if !prefix.is_empty() || tokens.len() == 1 {
        paths.push(prefix);
    }
    paths
}

/// Every circle that the list lacks, and every file of the list that is in none.
fn violations(sources: &[Source], known: &[Circle]) -> Vec<String> {
    let folders: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.is_rust())
        .filter_map(|source| Some(&source.path[..source.path.find("src/")? + 4]))
        .filter(|folder| folder.starts_with("crates/") || folder.starts_with("models/"))
        .collect();
    let mut found = Vec::new();
    for folder in &folders {
        let listed: Vec<&Circle> = known.iter().filter(|circle| circle.sources == *folder).collect();
        let circles = Crate::of(sources, folder).circles();
        for circle in &circles {
            let fits = |known: &&Circle| circle.iter().all(|file| known.files.contains(&file.as_str()));
            if !listed.iter().any(fits) {
                let files: Vec<&str> = circle.iter().map(String::as_str).collect();
                found.push(format!("{folder}: files that import each other: {}", files.join(", ")));
            }
        }
        for known in listed {
            for file in known.files.iter().filter(|file| !circles.iter().any(|circle| circle.contains(**file))) {
                let reason = known.reason;
                found.push(format!("{folder}{file} is in no circle any more; take it out of the list ({reason})"));
            }
        }
    }
    for circle in known.iter().filter(|circle| !folders.contains(circle.sources)) {
        found.push(format!("{}: there is no such crate", circle.sources));
    }
    found
}

mod tests {
    use super::*;
    use crate::absences::repository;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    fn circles(files: &[(&str, &str)]) -> Vec<BTreeSet<String>> {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| source(&format!("crates/one/src/{path}"), text)).collect();
        Crate::of(&sources, "crates/one/src/").circles()
    }

    #[test]
    fn no_two_files_of_a_crate_import_each_other_but_those_of_the_list() {
        let sources = repository();
        assert!(sources.iter().any(|source| source.path == "models/src/lib.rs"), "the list of files is empty");
        let found = violations(&sources, CIRCLES);
        assert!(found.is_empty(), "\n{}", found.join("\n"));
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        let back = "use crate::a::One;";
        for forth in [
            "use crate::b::Two;",
            "use super::b::Two;",
            "use crate::{other, b::{self, Two}};",
            "fn f() { crate::b::two() }",
            "fn f() { use crate::b::Two as Three; }",
        ] {
            let found = circles(&[("lib.rs", "mod a;\nmod b;"), ("a.rs", forth), ("b.rs", back)]);
            assert_eq!(found.len(), 1, "{forth}");
            assert_eq!(found[0], BTreeSet::from(["a.rs".to_string(), "b.rs".into()]), "{forth}");
        }
    }

    #[test]
    fn the_root_that_calls_what_names_it_is_a_circle() {
        let root = "mod a;\npub struct Options;\npub fn run() { a::run() }";
        assert_eq!(circles(&[("lib.rs", root), ("a.rs", "use crate::Options;\npub fn run() {}")]).len(), 1);
        let apart = "mod a;\nmod options;\npub use options::Options;\npub fn run() { a::run() }";
        let files = [("lib.rs", apart), ("options.rs", "pub struct Options;"), ("a.rs", "use crate::Options;")];
        assert!(circles(&files).is_empty(), "handed on by the root, it is the other file's");
    }

    #[test]
    fn what_a_table_of_contents_hands_on_is_the_file_that_has_it() {
        for contents in ["mod a;\nmod b;\npub use a::One;\npub use b::Two;", "mod a;\nmod b;\npub use {a::*, b::*};"] {
            let files = [
                ("x/mod.rs", contents),
                ("x/a.rs", "pub struct One;"),
                ("x/b.rs", "use super::One;\npub struct Two;"),
                ("lib.rs", "mod x;"),
            ];
            assert!(circles(&files).is_empty(), "{contents}");
        }
    }

    #[test]
    fn comments_strings_and_the_tests_of_a_file_are_no_arrows() {
        let quiet = "// use crate::b::Two;\nconst S: &str = \"crate::b::Two\";\n#[cfg(test)]\nmod tests {\nuse crate::b::Two;\n}";
        assert!(circles(&[("lib.rs", "mod a;\nmod b;"), ("a.rs", quiet), ("b.rs", "use crate::a::One;")]).is_empty());
    }

    #[test]
    fn the_list_shrinks_and_does_not_grow() {
        const FILES: &[&str] = &["a.rs", "b.rs"];
        let both =
            [source("crates/one/src/a.rs", "use crate::b::T;"), source("crates/one/src/b.rs", "use crate::a::T;")];
        let list = |files| [Circle { sources: "crates/one/src/", files, reason: "a reason" }];
        assert_eq!(violations(&both, &[]).len(), 1);
        assert!(violations(&both, &list(FILES)).is_empty());
        let one = [source("crates/one/src/a.rs", "use crate::b::T;"), source("crates/one/src/b.rs", "")];
        assert_eq!(violations(&one, &list(FILES)).len(), 2, "each file that is in no circle any more");
        assert_eq!(violations(&[], &list(FILES)).len(), 1, "a crate that is gone");
    }
}
