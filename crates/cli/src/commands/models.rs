//! `omniburn models`: what is supported, and which records lie about.

use std::path::{Path, PathBuf};

use omniburn::record::FAMILIES;
use omniburn::{Modality, RecordFolder};
use omniburn_convert::card::{self, Card, Published, PublishedFamily, Status};
use serde::Serialize;

use super::{mebibytes, table, user_folders};
use crate::args::ModelsArgs;
use crate::failure::{DONE, Failure, Outcome};
use crate::output::{json_line, write_stdout};

/// Where records are looked for unless `--records` says otherwise.
const RECORDS: &str = "records";
/// How many folders below that one are looked into.
const DEPTH: usize = 4;

#[derive(Serialize)]
struct Listing {
    families: Vec<FamilyRow>,
    checkpoints: Vec<CheckpointRow>,
    records: Vec<RecordRow>,
}

#[derive(Serialize)]
struct FamilyRow {
    name: &'static str,
    about: &'static str,
    status: Status,
    kinds: Vec<Modality>,
    outputs: Vec<String>,
    published: Vec<PublishedRow>,
}

#[derive(Serialize)]
struct PublishedRow {
    id: String,
    licence: String,
    dims: Vec<usize>,
    prompts: Vec<String>,
    outputs: Vec<String>,
}

#[derive(Serialize)]
struct CheckpointRow {
    id: String,
    family: String,
    licence: String,
    tasks: Vec<String>,
    default_task: String,
    dims: Vec<usize>,
    text_model_types: Vec<String>,
}

#[derive(Serialize)]
struct RecordRow {
    path: PathBuf,
    #[serde(flatten)]
    found: Found,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Whole {
        name: String,
        family: &'static str,
        tasks: Vec<String>,
        dtype: String,
        outputs: &'static [&'static str],
        dim: usize,
        bytes: u64,
    },
    Refused {
        error: String,
    },
}

/// Lists families, checkpoints and records. A broken record is listed with its reason.
///
/// # Errors
/// A usage failure where a folder was named that is not there.
pub fn run(args: &ModelsArgs) -> Outcome {
    let folder = args.records.clone().unwrap_or_else(|| RECORDS.into());
    if args.records.is_some() && !folder.is_dir() {
        return Err(Failure::usage(format!("--records {}: no such folder", folder.display())));
    }
    let listing = Listing {
        families: families(),
        checkpoints: card::all().into_iter().map(checkpoint).collect(),
        records: records(args.records.as_deref()).into_iter().map(record).collect(),
    };
    if args.json {
        json_line(&listing)?;
    } else {
        write_stdout(for_people(&listing, &folder).as_bytes())?;
    }
    Ok(DONE)
}

/// Records below a folder, or, where none is named, below `records` and where `pull` puts them.
fn records(folder: Option<&Path>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    find_records(folder.unwrap_or(Path::new(RECORDS)), DEPTH, &mut paths);
    if folder.is_none()
        && let Some(pulled) = user_folders::records()
    {
        find_records(&pulled, DEPTH, &mut paths);
    }
    paths.sort();
    paths
}

/// The records of rerankers that the user has. A broken record is none.
pub(super) fn rerankers() -> Vec<PathBuf> {
    records(None).into_iter().filter(|path| reranks(path)).collect()
}

/// Whether a folder is the record of a reranker.
pub(super) fn reranks(path: &Path) -> bool {
    RecordFolder::open(path).is_ok_and(|record| record.header().family.spec().outputs.pairs().is_some())
}

/// Folders that hold a record's header. Hidden ones are left out: an unfinished record is one of them.
fn find_records(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if folder.join("model.json").is_file() {
        found.push(folder.to_path_buf());
        return;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|_| depth > 0) {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_dir() {
            find_records(&entry.path(), depth - 1, found);
        }
    }
}

/// Every family of this build with what is published of it, in the order of the build's list.
fn families() -> Vec<FamilyRow> {
    let list = card::published();
    let row = |family: &&'static omniburn::record::Family| {
        let known = list.iter().find(|known| known.name == family.name);
        let PublishedFamily { status, kinds, outputs, checkpoints, .. } =
            known.cloned().expect("a test holds that every family of the build is in the list");
        let of = |Published { id, licence, dims, prompts, outputs: own }| PublishedRow {
            id,
            licence,
            dims,
            prompts: prompts.split(", ").filter(|role| !role.is_empty()).map(String::from).collect(),
            outputs: if own.is_empty() { vec!["dense".into()] } else { own },
        };
        let published = checkpoints.into_iter().map(of).collect();
        FamilyRow { name: family.name, about: family.about, status, kinds, outputs, published }
    };
    FAMILIES.iter().map(row).collect()
}

fn checkpoint(card: Card) -> CheckpointRow {
    CheckpointRow {
        id: card.id,
        family: card.family,
        licence: card.licence,
        tasks: card.tasks,
        default_task: card.default_task,
        dims: card.dims,
        text_model_types: card.text.model_types,
    }
}

fn record(path: PathBuf) -> RecordRow {
    let found = match RecordFolder::open(&path) {
        Ok(record) => {
            let header = record.header();
            Found::Whole {
                name: header.name.clone(),
                family: header.family.name(),
                tasks: header.tasks.clone(),
                dtype: header.dtype.to_string(),
                outputs: header.family.spec().outputs.names(),
                dim: header.dims.last().copied().unwrap_or_default(),
                bytes: header.files.values().map(|file| file.bytes).sum(),
            }
        }
        Err(e) => Found::Refused { error: e.to_string() },
    };
    RecordRow { path, found }
}

fn for_people(listing: &Listing, folder: &Path) -> String {
    let mut text = String::from("Families\n");
    let row = |f: &FamilyRow| vec![f.name.into(), format!("{} ({})", f.about, f.status.words())];
    text += &table(&listing.families.iter().map(row).collect::<Vec<_>>());
    text += "\nPublished checkpoints that omniburn pull and omniburn convert read, with licence, outputs and sizes of a vector\n";
    let mut rows = Vec::new();
    for one in listing.families.iter().flat_map(|family| &family.published) {
        let mut facts = vec![one.licence.clone(), one.outputs.join(", ")];
        if !one.dims.is_empty() {
            facts.push(one.dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", "));
        }
        if !one.prompts.is_empty() {
            facts.push(format!("prompts of {}", one.prompts.join(" and ")));
        }
        rows.push(vec![one.id.clone(), facts.join("; ")]);
    }
    text += &table(&rows);
    for c in &listing.checkpoints {
        text += &format!("  {} holds the tasks {}\n", c.id, c.tasks.join(", "));
    }
    if listing.records.is_empty() {
        return text
            + &format!("\nNo records below {}: omniburn convert and omniburn pull make them\n", folder.display());
    }
    text += "\nRecords\n";
    let (mut rows, mut broken) = (Vec::new(), String::new());
    for RecordRow { path, found } in &listing.records {
        let path = path.display().to_string();
        match found {
            Found::Whole { name, tasks, dtype, outputs, dim, bytes, .. } => {
                let gives = if outputs.contains(&"dense") { format!("dim {dim}") } else { outputs.join(",") };
                let cells = [path, name.clone(), tasks.join(","), dtype.clone(), gives, mebibytes(*bytes)];
                rows.push(cells.to_vec());
            }
            Found::Refused { error } => broken += &format!("  {path}: refused: {error}\n"),
        }
    }
    text + &table(&rows) + &broken
}
