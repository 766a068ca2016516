//! The search quality of an index with the model that ships: `cargo xtask eval-find`.
//!
//! The files of `tests/eval/find/files` and the samples of the model are indexed; the questions of
//! `tests/eval/find/questions.json` are asked by words, by meaning and by both. Two sets on which nothing was chosen are asked by
//! both: `held.json`, other questions over the same files, and `second.json`, other files with their questions (`second.py` writes
//! it). A figure below its floor in `tests/eval/find/floors.json` makes the exit code 1.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use omniburn::{Cancel, Engine};
use omniburn_index::{
    Calibration, Control, Embedder, EngineEmbedder, Hit, Index, MinScore, Modality, Mode, Query, Root, Rules,
    SearchOptions, Sought, canonical, query_vector, time_of,
};
use serde_json::{Value, json};

/// Hits that are asked for, and those that count for the second figure.
const DEPTH: usize = 10;
const NEAR: usize = 5;
const MODES: [(&str, Mode); 3] = [("words", Mode::Words), ("semantic", Mode::Semantic), ("hybrid", Mode::Hybrid)];
const CLASSES: [&str; 4] = ["words", "paraphrase", "across", "filters"];
/// A cut beside the one of `--min-score auto`: one unrelated item in a thousand has such a score.
const STRICT_SCORE: f32 = 0.9;
/// When every file was changed that no date is given of: 2024-01-01.
const CHANGED_S: u64 = 1_704_067_200;
/// What lies beside the samples and is none.
const NO_SAMPLES: [&str; 5] = ["make.py", "LICENCES.md", "SHA256SUMS", "searches.json", ".gitattributes"];

/// Means over questions.
#[derive(Default, Clone, Copy)]
struct Figures {
    questions: usize,
    first: f64,
    near: f64,
    gain: f64,
}

impl Figures {
    /// Adds a question by the ranks of its files that were found, from 1.
    fn add(&mut self, ranks: &[usize], expected: usize) {
        let discount = |rank: usize| 1.0 / ((rank + 1) as f64).log2();
        let best: f64 = (1..=expected.min(DEPTH)).map(discount).sum();
        self.questions += 1;
        self.first += f64::from(u8::from(ranks.contains(&1)));
        self.near += f64::from(u8::from(ranks.iter().any(|rank| *rank <= NEAR)));
        self.gain += ranks.iter().map(|rank| discount(*rank)).sum::<f64>() / best;
    }

    /// R@1, R@5 and nDCG@10 in per cent.
    fn means(&self) -> [f64; 3] {
        [self.first, self.near, self.gain].map(|sum| 100.0 * sum / self.questions.max(1) as f64)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn read_json(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn run() -> Result<bool, String> {
    let explain = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--explain") => true,
        Some(other) => return Err(format!("{other}: expected --explain")),
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = std::env::temp_dir().join(format!("omniburn-eval-find-{}", std::process::id()));
    let measured = measure(here, &scratch, explain);
    let _ = fs::remove_dir_all(&scratch);
    let (table, figures) = measured?;
    print!("{table}");
    let floors = read_json(&here.join("find/floors.json"))?;
    let mut low = Vec::new();
    for (name, floor) in floors.as_object().into_iter().flatten() {
        let (floor, found) = (floor.as_f64().unwrap_or(f64::INFINITY), figures.get(name).copied());
        if found.is_none_or(|found| found < floor) {
            low.push(format!("{name}: {found:?}, expected at least {floor}"));
        }
    }
    low.iter().for_each(|line| println!("below its floor: {line}"));
    Ok(low.is_empty())
}

/// Copies the files and the samples, with their times of change.
fn copy(here: &Path, set: &Value, to: &Path) -> Result<usize, String> {
    let count = copy_below(&here.join("find/files"), to)? + copy_samples(here, to)?;
    for (name, day) in set["dated"].as_object().into_iter().flatten() {
        let at_ns = time_of(day.as_str().unwrap_or_default(), SystemTime::now()).map_err(shown)?;
        changed(&to.join(name), at_ns as u64 / 1_000_000_000)?;
    }
    Ok(count)
}

fn copy_samples(here: &Path, to: &Path) -> Result<usize, String> {
    copy_below(&here.join("../../models/mini/samples"), &to.join("samples"))
}

fn copy_below(from: &Path, to: &Path) -> Result<usize, String> {
    let mut count = 0;
    let mut folders = vec![(from.to_path_buf(), to.to_path_buf())];
    while let Some((from, to)) = folders.pop() {
        fs::create_dir_all(&to).map_err(shown)?;
        for entry in fs::read_dir(&from).map_err(|e| format!("{}: {e}", from.display()))? {
            let entry = entry.map_err(shown)?;
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                folders.push((path, to.join(name)));
            } else if !NO_SAMPLES.iter().any(|not| name == *not) {
                let copied = to.join(name);
                fs::copy(&path, &copied).map_err(shown)?;
                changed(&copied, CHANGED_S)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

fn changed(path: &Path, at_s: u64) -> Result<(), String> {
    let file = fs::File::options().write(true).open(path).map_err(shown)?;
    file.set_modified(UNIX_EPOCH + Duration::from_secs(at_s)).map_err(shown)
}

/// An index with its calibration, and the folder of its files.
struct Place {
    index: Index,
    files: PathBuf,
}

impl Place {
    fn of(model: &EngineEmbedder, here: &Path, files: &Path, index: &Path, count: usize) -> Result<Self, String> {
        let files = canonical(files).map_err(shown)?;
        let mut index = Index::open_or_begin(index, &model.profile()).map_err(shown)?;
        let control = Control { interrupted: &|| false, progress: &|_| {} };
        let root = Root { path: files.clone(), rules: Rules::default() };
        let report = index.update(model, &[root], Duration::ZERO, &control).map_err(shown)?;
        if report.new as usize != count || !report.failed.is_empty() {
            return Err(format!("{} of {count} files were indexed: {:?}", report.new, report.failed));
        }
        let calibration = read_json(&here.join("../../models/mini/calibration.json"))?;
        let calibration: Calibration = serde_json::from_value(calibration).map_err(shown)?;
        index.calibrate(calibration).map_err(shown)?;
        Ok(Self { index, files })
    }

    fn name(&self, hit: &Hit) -> PathBuf {
        hit.path.strip_prefix(&self.files).map(PathBuf::from).unwrap_or_default()
    }

    fn ask(&self, query: &Query, vector: &[f32], mode: Mode, min_score: MinScore) -> Result<Vec<Hit>, String> {
        let options = SearchOptions { mode, limit: DEPTH, min_score, ..SearchOptions::default() };
        self.index.search(query, Sought::Vector(vector, Modality::Text), &options).map_err(shown)
    }

    fn ranks(&self, hits: &[Hit], expected: &[String]) -> Vec<usize> {
        let of = |(at, hit): (usize, &Hit)| {
            let name = self.name(hit);
            expected.iter().any(|expected| Path::new(expected) == name).then_some(at + 1)
        };
        hits.iter().enumerate().filter_map(of).collect()
    }
}

/// What a cut leaves of the answers and of the hits of unrelated questions.
#[derive(Default)]
struct Cut {
    kept: usize,
    silent: usize,
}

/// What came of a set.
struct Asked {
    rows: BTreeMap<(&'static str, &'static str), Figures>,
    /// Questions whose answer is among the first.
    answered: usize,
    unrelated: usize,
    /// By [`CUTS`].
    cuts: [Cut; 2],
}

const CUTS: [MinScore; 2] = [MinScore::Auto, MinScore::At(STRICT_SCORE)];

fn ask_all(place: &Place, model: &EngineEmbedder, set: &Value, explain: bool) -> Result<Asked, String> {
    let question = |text: &str| -> Result<(Query, Vec<f32>), String> {
        let query = Query::parse(text, None, SystemTime::now()).map_err(shown)?;
        let vector = query_vector(model, &query.text).map_err(shown)?;
        Ok((query, vector))
    };
    let mut asked = Asked { rows: BTreeMap::new(), answered: 0, unrelated: 0, cuts: Default::default() };
    for about in set["questions"].as_array().into_iter().flatten() {
        let text = about["query"].as_str().unwrap_or_default();
        let (query, vector) = question(&text.replace("{files}", &place.files.to_string_lossy()))?;
        let class = CLASSES.into_iter().find(|class| about["class"] == *class).ok_or("a question without a class")?;
        let expected = texts(&about["expect"]);
        let mut line = format!("{class:<11}{text:<60}");
        for (mode_name, mode) in MODES {
            let hits = place.ask(&query, &vector, mode, MinScore::Any)?;
            let found = place.ranks(&hits, &expected);
            for class in [class, "all"] {
                asked.rows.entry((class, mode_name)).or_default().add(&found, expected.len());
            }
            line += &format!(" {:>3}", found.first().map_or("-".into(), ToString::to_string));
            if mode == Mode::Hybrid && found.iter().any(|rank| *rank <= NEAR) {
                asked.answered += 1;
                for (cut, min_score) in asked.cuts.iter_mut().zip(CUTS) {
                    let hits = place.ask(&query, &vector, mode, min_score)?;
                    let stays = place.ranks(&hits, &expected).iter().any(|rank| *rank <= NEAR);
                    cut.kept += usize::from(stays);
                    line += if stays { "" } else { " cut" };
                }
            }
            if mode == Mode::Hybrid && found.first() != Some(&1) {
                let first = hits.first().map(|hit| format!(" {} {:.2}", place.name(hit).display(), hit.score));
                line += &first.unwrap_or_default();
            }
        }
        if explain {
            println!("{line}");
        }
    }
    for text in texts(&set["unrelated"]) {
        let (query, vector) = question(&text)?;
        asked.unrelated += 1;
        for (cut, min_score) in asked.cuts.iter_mut().zip(CUTS) {
            let hits = place.ask(&query, &vector, Mode::Hybrid, min_score)?;
            cut.silent += usize::from(hits.is_empty());
            if explain && let Some(hit) = hits.first() {
                println!("unrelated  {text}: {} {:.2} {:?}", place.name(hit).display(), hit.score, hit.scores);
            }
        }
    }
    Ok(asked)
}

/// Writes the files of the second set, with the samples beside them.
fn write_second(here: &Path, set: &Value, to: &Path) -> Result<usize, String> {
    let mut count = 0;
    for (name, text) in set["files"].as_object().into_iter().flatten() {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap_or(to)).map_err(shown)?;
        fs::write(&path, text.as_str().unwrap_or_default()).map_err(shown)?;
        changed(&path, CHANGED_S)?;
        count += 1;
    }
    Ok(count + copy_samples(here, to)?)
}

fn measure(here: &Path, scratch: &Path, explain: bool) -> Result<(String, BTreeMap<String, f64>), String> {
    let set = |name: &str| read_json(&here.join("find").join(name));
    let (set, held, second) = (set("questions.json")?, set("held.json")?, set("second.json")?);
    let files = scratch.join("files");
    let count = copy(here, &set, &files)?;
    let engine = Engine::mini().map_err(shown)?;
    let model = EngineEmbedder::new(engine, Cancel::new());
    let place = Place::of(&model, here, &files, &scratch.join("index"), count)?;
    let more = scratch.join("second");
    let more_count = write_second(here, &second, &more)?;
    let other = Place::of(&model, here, &more, &scratch.join("second-index"), more_count)?;
    let asked = ask_all(&place, &model, &set, explain)?;
    let beside =
        [("held", ask_all(&place, &model, &held, explain)?), ("second", ask_all(&other, &model, &second, explain)?)];

    let mut figures = BTreeMap::new();
    let questions = asked.rows[&("all", "hybrid")].questions;
    let mut table = format!("{count} files, {questions} questions; R@1, R@5, nDCG@10 in per cent\n\n");
    table += "| questions | words | semantic | hybrid |\n|---|---|---|---|\n";
    for class in CLASSES.into_iter().chain(["all"]) {
        let mut line = format!("| {class} ({})", asked.rows[&(class, "hybrid")].questions);
        for (mode, _) in MODES {
            let means = asked.rows[&(class, mode)].means();
            line += &format!(" | {:.0}, {:.0}, {:.1}", means[0], means[1], means[2]);
            for (figure, value) in ["r1", "r5", "ndcg10"].into_iter().zip(means) {
                figures.insert(format!("{class} {mode} {figure}"), value);
            }
        }
        table += &format!("{line} |\n");
    }
    for (name, asked) in &beside {
        let figure = asked.rows[&("all", "hybrid")];
        let means = figure.means();
        table += &format!(
            "| {name}: all ({}) | | | {:.0}, {:.0}, {:.1} |\n",
            figure.questions, means[0], means[1], means[2]
        );
        figures.insert(format!("{name}: all hybrid ndcg10"), means[2]);
    }
    let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    for (name, asked) in std::iter::once(("", &asked)).chain(beside.iter().map(|(name, asked)| (*name, asked))) {
        let Asked { answered, unrelated, cuts, .. } = asked;
        let before = if name.is_empty() { String::new() } else { format!("{name}: ") };
        for (cut, cut_name) in cuts.iter().zip(["auto".to_owned(), STRICT_SCORE.to_string()]) {
            let Cut { kept, silent } = cut;
            figures.insert(format!("{before}{cut_name}: unrelated without hits"), share(*silent, *unrelated));
            figures.insert(format!("{before}{cut_name}: answers kept"), share(*kept, *answered));
            table += &format!(
                "\n{before}--min-score {cut_name}: {silent} of {unrelated} unrelated questions without a hit, {kept} of {answered} answers among the first {NEAR} kept\n"
            );
        }
    }
    table += &format!("{}\n", json!(figures));
    Ok((table, figures))
}
