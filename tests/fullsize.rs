//! Published checkpoints at full size, of holes in place of weights: names and shapes by transformers' own classes
//! (`golden/make/fullsize.py`), read by `convert --check`, which looks at headers alone. Nothing is left over, and what is taken
//! with what is left aside is the number of parameters that was published.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use omniburn_convert::{ConvertOptions, convert};
use omniburn_models::FAMILIES;
use serde_json::{Map, Value, json};

use crate::support::*;

/// A checkpoint of `golden/fullsize`.
struct Published {
    name: String,
    value: Value,
}

fn published() -> Vec<Published> {
    let folder = workspace().join("tests/golden/fullsize");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let one = |path: PathBuf| {
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        Published { name: str_of(&value["name"]).to_owned(), value }
    };
    paths.into_iter().map(one).collect()
}

/// Tensors by name, with their shapes.
type Named = Vec<(String, Vec<u64>)>;

/// Names with shapes, of lines in which runs of numbers are folded: `layers.{0-11,13}.weight 3 4`.
fn unfolded(lines: &Value) -> Named {
    let mut all = Vec::new();
    for line in lines.as_array().unwrap() {
        let mut words = str_of(line).split(' ');
        let pattern = words.next().unwrap();
        let shape: Vec<u64> = words.filter(|word| *word != "-").map(|word| word.parse().unwrap()).collect();
        let mut names = vec![String::new()];
        for piece in pattern.split_inclusive('}') {
            let (front, choices) = match piece.split_once('{') {
                Some((front, rest)) => (front, runs(rest.trim_end_matches('}'))),
                None => (piece, vec![String::new()]),
            };
            let with =
                |name: &String| choices.iter().map(move |choice| format!("{name}{front}{choice}")).collect::<Vec<_>>();
            names = names.iter().flat_map(with).collect();
        }
        all.extend(names.into_iter().map(|name| (name, shape.clone())));
    }
    all
}

fn runs(text: &str) -> Vec<String> {
    let one = |part: &str| match part.split_once('-') {
        Some((from, to)) => (from.parse::<u64>().unwrap()..=to.parse().unwrap()).map(|n| n.to_string()).collect(),
        None => vec![part.to_owned()],
    };
    text.split(',').flat_map(one).collect()
}

fn elements(tensors: &[(String, Vec<u64>)]) -> u64 {
    tensors.iter().map(|(_, shape)| shape.iter().product::<u64>()).sum()
}

/// A safetensors file whose data are a hole.
fn write_hole(path: &Path, tensors: &[(String, Vec<u64>)]) {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}));
    }
    let text = serde_json::to_vec(&header).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&text).unwrap();
    file.set_len(8 + text.len() as u64 + end).unwrap();
}

impl Published {
    /// The folder: side files of a tiny checkpoint of the same layout, and the configuration and shapes of this one.
    fn folder(&self) -> (PathBuf, u64) {
        let folder = scratch().join(format!("fullsize-{}", self.name));
        let like = golden().checkpoints.join(str_of(&self.value["like"]));
        copy_side_files(&like, &folder, false);
        let write = |file: &str, value: &Value| {
            fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
            fs::write(folder.join(file), value.to_string()).unwrap();
        };
        write("config.json", &self.value["config"]);
        for (file, value) in self.value["files"].as_object().unwrap() {
            write(file, value);
        }
        if let Some(ids) = self.value["ids"].as_object().filter(|ids| !ids.is_empty()) {
            let mut tokenizer: Value =
                serde_json::from_slice(&fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
            renumber(&mut tokenizer, ids);
            write("tokenizer.json", &tokenizer);
        }
        let tensors = unfolded(&self.value["tensors"]);
        write_hole(&folder.join("model.safetensors"), &tensors);
        let mut count = elements(&tensors);
        for (file, lines) in self.value["more"].as_object().unwrap() {
            let tensors = unfolded(lines);
            write_hole(&folder.join(file), &tensors);
            count += elements(&tensors);
        }
        (folder, count)
    }

    /// Parameters of the row that a language model scores pairs by, which is made of two rows of its output table, and those of
    /// a table that nothing else is made of.
    fn answer_row(&self, shapes: &BTreeMap<String, u64>) -> (u64, u64) {
        if !["qwen3-reranker-tiny", "qwen3-vl-rerank-tiny"].contains(&str_of(&self.value["like"])) {
            return (0, 0);
        }
        let config = &self.value["config"];
        let hidden = config["hidden_size"].as_u64().or_else(|| config["text_config"]["hidden_size"].as_u64());
        (hidden.unwrap(), shapes.get("lm_head.weight").copied().unwrap_or(0))
    }

    /// Tensors of all files, by their names for people.
    fn shapes(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        let more = self.value["more"].as_object().unwrap();
        let files = std::iter::once(("model.safetensors", &self.value["tensors"]));
        for (file, lines) in files.chain(more.iter().map(|(file, lines)| (file.as_str(), lines))) {
            for (name, shape) in unfolded(lines) {
                let shown = match (file.split_once('/'), file.strip_suffix(".safetensors")) {
                    (Some((folder, _)), _) => format!("{folder}/{name}"),
                    (None, Some(head)) if head != "model" => format!("{head}.{name}"),
                    _ => name,
                };
                all.insert(shown, shape.iter().product());
            }
        }
        all
    }
}

/// Tokens of a tiny checkpoint's tokenizer by the ids that they have in the published one, wherever they stand.
fn renumber(value: &mut Value, ids: &Map<String, Value>) {
    match value {
        Value::Number(number) => {
            if let Some(id) = ids.get(&number.to_string()) {
                *value = id.clone();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| renumber(inner, ids)),
        Value::Object(map) => map.values_mut().for_each(|inner| renumber(inner, ids)),
        _ => {}
    }
}

/// All but weights, adapters and the configuration; configurations of modules are among them.
fn copy_side_files(from: &Path, to: &Path, inside: bool) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && name != "adapters" {
            copy_side_files(&path, &to.join(&name), true);
        } else if path.is_file() && !name.contains("safetensors") && (inside || name != "config.json") {
            fs::copy(&path, to.join(&name)).unwrap();
        }
    }
}

/// Whether a count is what was published, to the digits that were published: `2,127,532,032`, `595.8M`, `2.21B`.
fn is_as_published(count: u64, text: &str) -> bool {
    let (digits, unit) = match (text.strip_suffix('M'), text.strip_suffix('B')) {
        (Some(digits), _) => (digits, 1e6),
        (_, Some(digits)) => (digits, 1e9),
        (None, None) => return count.to_string() == text.replace(',', ""),
    };
    let decimals = digits.split_once('.').map_or(0, |(_, behind)| behind.len());
    format!("{:.decimals$}", count as f64 / unit) == digits
}

/// What `convert --check` makes of a checkpoint: its family, and a line for people.
///
/// # Errors
/// What is not as it was published, in words.
fn check(published: &Published) -> Result<(String, String), String> {
    let (folder, count) = published.folder();
    let stated = str_of(&published.value["published"]);
    let options = ConvertOptions { check: true, ..ConvertOptions::new(&folder, "") };
    let report = convert(&options).map_err(|error| error.to_string())?;
    fs::remove_dir_all(folder).unwrap();
    let shapes = published.shapes();
    let taken = report.parameters.total();
    let aside: u64 = report.dropped.iter().map(|dropped| shapes[&dropped.name]).sum();
    let reasons: BTreeSet<&str> = report.dropped.iter().map(|dropped| dropped.reason.as_str()).collect();
    let line = format!("{taken} taken, {aside} left aside {reasons:?}, published {stated}");
    if Some(count) != published.value["parameters"].as_u64() || !is_as_published(count, stated) {
        return Err(format!("{count} parameters: {line}"));
    }
    let used = report.mapped + report.dropped.len();
    if used != shapes.len() {
        return Err(format!("{used} of {} tensors: {line}", shapes.len()));
    }
    let (made, unmade) = published.answer_row(&shapes);
    if taken + aside + unmade != count + made {
        return Err(format!("{made} made of {unmade}: {line}"));
    }
    Ok((report.family.clone(), line))
}

#[test]
fn published_checkpoints_leave_nothing_over_and_have_the_published_parameters() {
    let (mut families, mut faults) = (BTreeSet::new(), Vec::new());
    let all = published();
    assert!(all.len() >= 45, "{}", all.len());
    for published in &all {
        match check(published) {
            Ok((family, line)) => {
                println!("{}: {line}", published.name);
                families.insert(family);
            }
            Err(fault) => faults.push(format!("{}: {fault}", published.name)),
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // Every family that people convert has at least one, but the one that ships and is converted from no published folder.
    let absent: Vec<&str> =
        FAMILIES.iter().map(|family| family.name).filter(|name| *name != "mini" && !families.contains(*name)).collect();
    assert!(absent.is_empty(), "{absent:?} have no checkpoint of full size");
}

/// The proof that the proof is one: a name that the class does not have, and a shape that it has not, are refused by name.
#[test]
fn a_name_or_a_shape_that_is_not_published_is_refused_by_name() {
    let published = published().into_iter().find(|one| one.name == "Qwen3-Embedding-0.6B").unwrap();
    let refused = |change: &dyn Fn(&mut Named)| {
        let (folder, _) = published.folder();
        let mut tensors = unfolded(&published.value["tensors"]);
        change(&mut tensors);
        write_hole(&folder.join("model.safetensors"), &tensors);
        let options = ConvertOptions { check: true, ..ConvertOptions::new(&folder, "") };
        convert(&options).unwrap_err().to_string()
    };
    let at = |tensors: &[(String, Vec<u64>)]| {
        tensors.iter().position(|(name, _)| name.contains("layers.7.self_attn.q_norm"))
    };
    let renamed = refused(&|tensors| {
        let at = at(tensors).unwrap();
        tensors[at].0 = "layers.7.self_attn.query_norm.weight".into();
    });
    assert!(renamed.contains("layers.7.self_attn.query_norm.weight"), "{renamed}");
    let shaped = refused(&|tensors| {
        let at = at(tensors).unwrap();
        tensors[at].1 = vec![64];
    });
    assert!(shaped.contains("layers.7.self_attn.q_norm.weight") && shaped.contains("64"), "{shaped}");
}

#[test]
fn counts_are_compared_to_the_digits_that_were_published() {
    assert!(is_as_published(2_127_532_032, "2,127,532,032") && is_as_published(2_127_532_032, "2.13B"));
    assert!(!is_as_published(2_127_532_031, "2,127,532,032") && !is_as_published(2_127_532_032, "2.12B"));
    assert!(is_as_published(66_362_880, "66.4M") && is_as_published(109_482_240, "109M"));
    assert_eq!(unfolded(&json!(["a.{0-2,4}.b.{0-1} 3 4", "c -"])).len(), 9);
}
