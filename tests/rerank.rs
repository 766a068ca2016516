//! Rerankers: every checkpoint of every set that scores pairs, with what the reference computed from it; how such folders are
//! distinguished from embedders; and the laws, which hold for pairs as they do for texts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use omniburn::record::PairForm;
use omniburn::{
    Dtype, Engine, EngineError, Input, ItemError, PairCut, Priority, Ranked, RecordFolder, Request, Role, Truncation,
};
use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, TaskChoice, convert};
use omniburn_kernels::Segments;
use omniburn_media::{PromptPair, TextTokenizer};
use omniburn_models::batch::TokenRows;
use omniburn_models::capture;
use omniburn_models::family::{Output, PassInput, TextModel};
use omniburn_models::flops::Shape;
use omniburn_models::record::TensorRole;
use omniburn_models::registry::rules_for;
use serde_json::{Value, json};

use crate::support::*;

/// Scores and logits against the reference in f32: 1e-5 on flex (NUMERICS.md).
const SCORE_BOUND: f32 = 1e-5;
/// Where the reference cuts pairs, of checkpoints that read more.
const REFERENCE_LIMIT: u64 = 512;
/// Texts whose ids in a manifest are those of `tokenizer.json` alone; see `families`.
const OTHER_IDS: [(&str, [&str; 2]); 1] = [("bge-reranker-tiny", ["code", "emoji"])];

/// A checkpoint with pairs, their ids, and the scores that the reference gave them.
struct Model {
    checkpoint: Checkpoint,
    /// The checkpoint, with texts cut where the reference cuts them.
    folder: PathBuf,
    record: PathBuf,
}

/// A pair of the reference.
struct Pair {
    name: String,
    query: String,
    document: String,
    instruction: Option<String>,
    ids: Vec<u32>,
    types: Vec<u8>,
    logit: f32,
    score: f32,
    /// What the reference cut, where the manifest says so.
    cut: Option<PairCut>,
    /// Whether our tokenizer gives its ids.
    own_ids: bool,
}

impl Model {
    fn all() -> Vec<Self> {
        let mut found = Vec::new();
        for set in sets() {
            let entries = std::fs::read_dir(&set.checkpoints).into_iter().flatten().flatten();
            let mut names: Vec<String> = entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.contains("rerank") && set.refs.join(format!("{name}.json")).is_file())
                .filter(|name| {
                    let config = read(&set.checkpoints.join(name).join("config.json"));
                    config.is_some_and(|config| rules_for(&config).is_some())
                })
                // Pairs with media are compared in `items.rs`.
                .filter(|name| {
                    let refs = read(&set.refs.join(format!("{name}.json"))).expect("a manifest is JSON");
                    refs["cases"].as_array().is_some_and(|cases| cases.iter().any(|case| case["kind"] == "pair"))
                })
                .collect();
            names.sort();
            found.extend(names.iter().map(|name| Self::of(set.checkpoint(name))));
        }
        let names: Vec<&str> = found.iter().map(|model| model.checkpoint.name.as_str()).collect();
        for name in ["bert-reranker-tiny", "bge-reranker-tiny", "modernbert-reranker-tiny", "qwen3-reranker-tiny"] {
            assert!(names.contains(&name), "{name} has no golden");
        }
        found
    }

    fn named(name: &str) -> Self {
        Self::of(golden().checkpoint(name))
    }

    fn of(checkpoint: Checkpoint) -> Self {
        let folder = changed(&checkpoint, "cut", |folder| {
            edit(&folder.join("tokenizer_config.json"), |json| {
                if json["model_max_length"].as_u64().is_none_or(|limit| limit > REFERENCE_LIMIT) {
                    json["model_max_length"] = REFERENCE_LIMIT.into();
                }
            });
        });
        let record = record(&folder, Dtype::F32, TaskChoice::Default);
        Self { checkpoint, folder, record }
    }

    fn engine(&self) -> Engine {
        builder(self.record.clone()).open().expect("a fresh record opens")
    }

    fn pairs(&self) -> Vec<Pair> {
        let other =
            OTHER_IDS.iter().find(|(name, _)| *name == self.checkpoint.name).map_or(&[][..], |(_, texts)| texts);
        let pair = |(index, case): (usize, &Value)| {
            let one = |key: &Value| self.checkpoint.tensor(str_of(key))[0];
            let logit = match case["logit"].as_str() {
                Some(key) => self.checkpoint.tensor(key)[0],
                // Of no and of yes.
                None => {
                    let both = self.checkpoint.tensor(str_of(&case["logits_no_yes"]));
                    both[1] - both[0]
                }
            };
            let sides = [&case["query"], &case["document"]].map(|side| side.as_str().unwrap_or_default());
            let kinds = case["token_types"].as_array().into_iter().flatten();
            Pair {
                name: format!("{} pair {index} {sides:?}", self.checkpoint.name),
                query: str_of(&case["query_text"]).into(),
                document: str_of(&case["document_text"]).into(),
                instruction: case["instruction"].as_str().map(String::from),
                ids: ids_of(&case["input_ids"]),
                types: kinds.map(|kind| kind.as_u64().unwrap() as u8).collect(),
                logit,
                score: one(&case["score"]),
                cut: case["cut"]
                    .as_array()
                    .map(|cut| PairCut { query: cut[0].as_bool().unwrap(), document: cut[1].as_bool().unwrap() }),
                own_ids: !sides.iter().any(|side| other.contains(side)),
            }
        };
        let pairs: Vec<Pair> = self.checkpoint.cases("pair").enumerate().map(pair).collect();
        assert!(pairs.len() > 5, "{}", self.checkpoint.name);
        pairs
    }

    fn batch(&self) -> &Value {
        self.checkpoint.cases("pair_batch").next().expect("a batch of all pairs")
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read(path).unwrap_or_else(|| panic!("{}", path.display()));
    change(&mut value);
    std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

/// A changed copy of a checkpoint.
fn changed(checkpoint: &Checkpoint, what: &str, change: impl FnOnce(&Path)) -> PathBuf {
    let copy = scratch().join(format!("rerank-{}-{what}-{}", checkpoint.name, next()));
    copy_folder(&checkpoint.folder, &copy);
    change(&copy);
    copy
}

fn converted(folder: &Path, tasks: TaskChoice) -> Result<(PathBuf, ConvertReport), ConvertError> {
    let out = scratch().join(format!("rerank-record-{}", next()));
    let report = convert(&ConvertOptions { dtype: Dtype::F32, tasks, ..ConvertOptions::new(folder, &out) })?;
    Ok((out, report))
}

/// A copy of a record whose header says something else of its family.
fn lied(record: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let copy = scratch().join(format!("rerank-lie-{}", next()));
    copy_folder(record, &copy);
    let path = copy.join("model.json");
    let mut header = read(&path).unwrap();
    let mut family = header["family"].take();
    change(&mut family["config"]);
    // The name comes first, which a map of values does not keep.
    let family = format!("{{\"name\":{},\"config\":{}}}", family["name"], family["config"]);
    let text = |header: &Value| header.to_string().replacen("\"family\":null", &format!("\"family\":{family}"), 1);
    header["digest"] = "".into();
    if let Ok(typed) = serde_json::from_str::<omniburn::record::RecordHeader>(&text(&header)) {
        header["digest"] = typed.compute_digest().into();
    }
    std::fs::write(path, text(&header)).unwrap();
    copy
}

/// As the reference scores: what is too long is cut at its end.
fn request(pair: &Pair) -> Request {
    let request = Request::new(Role::Query).truncation(Truncation::Right);
    pair.instruction.iter().cloned().fold(request, Request::instruction)
}

fn score(engine: &Engine, pair: &Pair) -> Ranked {
    let mut scores = engine.rerank_with(pair.query.as_str(), &[pair.document.as_str()], &request(pair)).unwrap();
    scores.swap_remove(0).unwrap_or_else(|e| panic!("{}: {e}", pair.name))
}

fn bits(ranked: &Ranked) -> [u32; 2] {
    [ranked.score.to_bits(), ranked.logit.to_bits()]
}

#[test]
fn every_reranker_equals_its_reference() {
    for model in Model::all() {
        let (engine, mut worst) = (model.engine(), Worst::default());
        assert_eq!((engine.profile().outputs, engine.profile().task.as_str()), (&["score"][..], "rerank"));
        for pair in model.pairs().iter().filter(|pair| pair.own_ids) {
            let got = score(&engine, pair);
            assert_eq!(got.tokens, pair.ids.len(), "{}", pair.name);
            assert!(pair.cut.is_none_or(|cut| cut == got.cut), "{}: {:?}", pair.name, got.cut);
            worst.see(compare(&pair.name, &[got.logit, got.score], &[pair.logit, pair.score], SCORE_BOUND));
        }
        worst.report(&format!("{} scores and logits", model.checkpoint.name));
    }
}

/// Ids of a pair as a record's tokenizer and prompt give them.
fn ids(record: &RecordFolder, tokenizer: &TextTokenizer, pair: &Pair) -> (Vec<u32>, Vec<u8>) {
    let family = &record.header().family;
    let found = match family.spec().outputs.pairs().expect("a reranker") {
        PairForm::Template { types } => {
            let limit = family.max_tokens();
            let found = tokenizer.pair_ids(&pair.query, &pair.document, limit, Truncation::Right).unwrap();
            let types = if *types > 1 { found.types } else { Vec::new() };
            return (found.ids, types.into_iter().map(|kind| kind as u8).collect());
        }
        PairForm::Prompt(prompt) => {
            let [instruction, query, document] = &prompt.labels;
            let asked = pair.instruction.as_ref().unwrap_or(&prompt.instruction);
            let query = [instruction, asked, query, &pair.query, document].map(String::as_str).concat();
            let (before, behind) = (prompt.before.as_str(), prompt.behind.as_str());
            let pair = PromptPair { before, query: &query, document: &pair.document, behind };
            tokenizer.prompt_pair_ids(&pair, family.max_tokens(), true).unwrap()
        }
        PairForm::List(_) => panic!("its cases are lists and no pairs"),
    };
    (found.ids, Vec::new())
}

#[test]
fn every_pair_has_the_ids_and_token_types_of_the_reference() {
    for model in Model::all() {
        let record = open(&model.record);
        let ours = TextTokenizer::from_file(&record.tokenizer_path()).unwrap();
        // What the manifest's ids are of, where our tokenizer is built anew from its class.
        let file = TextTokenizer::from_file(&model.folder.join("tokenizer.json")).unwrap();
        for pair in model.pairs() {
            let tokenizer = if pair.own_ids { &ours } else { &file };
            let (found, types) = ids(&record, tokenizer, &pair);
            assert_eq!(found, pair.ids, "{}", pair.name);
            if !pair.types.is_empty() {
                assert_eq!(types, pair.types, "{}", pair.name);
            }
        }
    }
}

/// A task's model without the engine, on the calling thread.
struct Direct {
    text: Arc<dyn TextModel>,
}

impl Direct {
    fn open(path: &Path) -> Self {
        let (record, device) = (open(path), burn_device(device()));
        let family = &record.header().family;
        let tokens = family.open_tokens(&record).unwrap();
        let task = &record.header().default_task;
        Self { text: family.open_text(&record, task, &tokens, Dtype::F32, &device).unwrap() }
    }

    fn logits(&self, pairs: &[&Pair]) -> Vec<f32> {
        let (ids, mut types) = (pairs.iter().map(|pair| pair.ids.clone()).collect::<Vec<_>>(), Vec::new());
        if pairs.iter().any(|pair| !pair.types.is_empty()) {
            types = pairs.iter().flat_map(|pair| pair.types.clone()).collect();
        }
        let mut values = Vec::new();
        self.text.tokens().gather(&ids.concat(), &mut values).unwrap();
        let shape = [values.len() / self.text.tokens().hidden(), self.text.tokens().hidden()];
        let device = burn_device(device());
        let rows = burn::tensor::Tensor::<2>::from_data(burn::tensor::TensorData::new(values, shape), &device);
        let rows = TokenRows { rows, segments: Segments::from_lengths(ids.iter().map(Vec::len)) };
        let positions = self.text.positions(&ids);
        let mut pass = Arc::clone(&self.text).begin(PassInput { positions, types, ..rows.into() });
        loop {
            match pass.step() {
                Some(Output::Scores(logits)) => return crate::direct::values(logits),
                Some(other) => panic!("a reranker gives scores, and this is {other:?}"),
                None => {}
            }
        }
    }
}

#[test]
fn the_models_logits_equal_the_references_alone_and_in_its_padded_batch() {
    for model in Model::all() {
        let (direct, pairs, mut worst) = (Direct::open(&model.record), model.pairs(), Worst::default());
        let alone: Vec<f32> = pairs.iter().map(|pair| direct.logits(&[pair])[0]).collect();
        for (pair, logit) in pairs.iter().zip(&alone) {
            worst.see(compare(&pair.name, &[*logit], &[pair.logit], SCORE_BOUND));
        }
        worst.report(&format!("{} logits of the reference's ids", model.checkpoint.name));
        let batch = model.batch();
        let want = self::batch(&model);
        let got: Vec<f32> = match batch["logits"].is_string() {
            true => alone.clone(),
            false => alone.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
        };
        compare(&format!("{} batch", model.checkpoint.name), &got, &want, SCORE_BOUND);
        let mut order: Vec<usize> = (0..alone.len()).collect();
        order.sort_by(|a, b| alone[*b].total_cmp(&alone[*a]));
        let want: Vec<usize> = ids_of(&batch["order"]).into_iter().map(|at| at as usize).collect();
        assert_eq!(order, want, "{}", model.checkpoint.name);
        let all: Vec<&Pair> = pairs.iter().collect();
        same(&model.checkpoint.name, &[direct.logits(&all)], &[alone]);
    }
}

fn batch(model: &Model) -> Vec<f32> {
    let batch = model.batch();
    model.checkpoint.tensor(batch["logits"].as_str().or(batch["scores"].as_str()).expect("logits or scores"))
}

#[test]
fn a_pair_has_the_same_bits_alone_in_any_batch_in_any_steps_and_beside_other_callers() {
    for model in Model::all() {
        let engine = model.engine();
        let short = builder(model.record.clone()).time_slice(Duration::from_micros(1)).open().unwrap();
        let pairs = model.pairs();
        let documents: Vec<&str> = pairs.iter().map(|pair| pair.document.as_str()).collect();
        let request = |priority| Request::new(Role::Query).truncation(Truncation::Right).priority(priority);
        let alone = |query: &str| -> Vec<[u32; 2]> {
            let one = |document: &&str| {
                let found = engine.rerank_with(query, &[*document], &request(Priority::Background)).unwrap();
                bits(found[0].as_ref().unwrap())
            };
            documents.iter().map(one).collect()
        };
        let queries: Vec<&str> = pairs.iter().take(3).map(|pair| pair.query.as_str()).collect();
        let want: Vec<Vec<[u32; 2]>> = queries.iter().map(|query| alone(query)).collect();
        let check = |engine: &Engine, at: usize, priority| {
            let mut order: Vec<usize> = (0..documents.len()).chain(0..2).collect();
            order.rotate_left(2 * at + 1);
            let given: Vec<&str> = order.iter().map(|&document| documents[document]).collect();
            let found = engine.rerank_with(queries[at], &given, &request(priority)).unwrap();
            for (place, (&document, result)) in order.iter().zip(found).enumerate() {
                let got = result.unwrap();
                assert_eq!(got.index, place);
                assert_eq!(
                    bits(&got),
                    want[at][document],
                    "{}: query {at}, document {document}",
                    model.checkpoint.name
                );
            }
        };
        for engine in [&engine, &short] {
            for at in 0..queries.len() {
                check(engine, at, Priority::Background);
            }
            std::thread::scope(|scope| {
                for at in 0..queries.len() {
                    for priority in [Priority::Interactive, Priority::Background] {
                        let check = &check;
                        scope.spawn(move || check(engine, at, priority));
                    }
                }
            });
            assert_eq!(engine.memory_in_use().1, 0);
        }
    }
}

#[test]
fn documents_come_back_best_first_and_a_failed_one_leaves_the_others() {
    let model = Model::named("bert-reranker-tiny");
    let engine = model.engine();
    let documents = ["red car", "the sun", "a", "the sun", "two dogs"];
    let ranked = engine.rerank("which dog", &documents).unwrap();
    assert!(ranked.windows(2).all(|two| two[0].logit >= two[1].logit));
    assert!(ranked.iter().all(|one| (0.0..=1.0).contains(&one.score)));
    let mut places: Vec<usize> = ranked.iter().map(|one| one.index).collect();
    let of = |index: usize| places.iter().position(|place| *place == index).unwrap();
    assert_eq!(of(3), of(1) + 1, "equal documents keep their order");
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3, 4]);
    assert!(engine.rerank("which dog", &[] as &[&str]).unwrap().is_empty());

    let long = "word ".repeat(200);
    let request = Request::new(Role::Query);
    let found = engine.rerank_with("which dog", &["red car", long.as_str(), "a"], &request).unwrap();
    let refused = found[1].as_ref().unwrap_err();
    assert_eq!(refused.kind().name(), "too_long");
    let (said, limit) = (refused.to_string(), engine.profile().max_tokens.to_string());
    assert!(said.contains("6 of the query") && said.contains(&limit), "{said}");
    let bits_of = |at: usize| bits(found[at].as_ref().unwrap());
    assert_eq!(bits_of(0), bits(ranked.iter().find(|one| one.index == 0).unwrap()));
    assert_eq!(bits_of(2), bits(ranked.iter().find(|one| one.index == 2).unwrap()));
    match engine.rerank("which dog", &["red car", long.as_str()]).unwrap_err() {
        EngineError::Item { index, source } => assert_eq!((index, source.kind().name()), (1, "too_long")),
        other => panic!("{other}"),
    }
    for truncation in [Truncation::Right, Truncation::Left] {
        let request = request.clone().truncation(truncation);
        let found = engine.rerank_with("which dog", &[long.as_str()], &request).unwrap().swap_remove(0).unwrap();
        assert_eq!(found.cut, PairCut { query: false, document: true });
        let found = engine.rerank_with(long.as_str(), &["a"], &request).unwrap().swap_remove(0).unwrap();
        assert_eq!(found.cut, PairCut { query: true, document: false });
        assert_eq!(found.tokens, engine.profile().max_tokens);
    }
}

#[test]
fn a_model_asked_for_what_it_does_not_give_says_what_it_gives() {
    let reranker = Model::named("bge-reranker-tiny").engine();
    let said = |error: EngineError| {
        assert!(matches!(error, EngineError::OutputAbsent { .. } | EngineError::NoInstruction { .. }), "{error}");
        error.to_string()
    };
    let refused = said(reranker.embed_one(Input::text("a"), Role::Query).unwrap_err());
    assert!(refused.contains("gives no vectors") && refused.contains("`rerank`"), "{refused}");
    let each = reranker.embed_each(&[(Input::text("a"), Request::default())]).swap_remove(0).unwrap_err();
    assert_eq!(each.kind().name(), "bad_item");
    assert!(each.to_string().contains("gives no vectors"), "{each}");
    let asked = Request::default().instruction("find it");
    let refused = said(reranker.rerank_with("a", &["b"], &asked).unwrap_err());
    assert!(refused.contains("`xlm_roberta`") && refused.contains("no instruction"), "{refused}");
    let image = reranker.rerank_with("a", &[Input::image_file("x.png")], &Request::default()).unwrap();
    assert_eq!(image[0].as_ref().unwrap_err().kind().name(), "modality_absent");

    let embedder = builder(record(&golden().checkpoint("xlm-roberta-tiny").folder, Dtype::F32, TaskChoice::Default));
    let embedder = embedder.open().unwrap();
    assert_eq!(embedder.profile().outputs, ["dense"]);
    let refused = said(embedder.rerank("a", &["b"]).unwrap_err());
    assert!(refused.contains("gives no scores") && refused.contains("`embed`"), "{refused}");
    said(embedder.embed_with(&[Input::text("a")], &asked).unwrap_err());
    let own = embedder.embed_each(&[(Input::text("a"), asked)]).swap_remove(0).unwrap_err();
    assert!(own.to_string().contains("no instruction"), "{own}");
}

#[test]
fn an_item_of_several_parts_is_refused_with_the_familys_name() {
    for (name, family) in [("xlm-roberta-tiny", "xlm_roberta"), ("omni-small-tiny", "omni")] {
        let checkpoint = golden().checkpoint(name);
        let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
        let alone = engine.embed_one(Input::text("a caption"), Role::Document).unwrap();
        let parts = Input::parts([Input::image_file("p.jpg"), Input::text("a caption")]);
        let inputs = [Input::text("a caption"), parts.clone(), Input::parts([])];
        let found = engine.embed_with(&inputs, &Request::default()).unwrap();
        assert_eq!(found[0].as_ref().unwrap().embedding, alone);
        for (result, modality) in found[1..].iter().zip(["image", "text"]) {
            let error = result.as_ref().unwrap_err();
            assert!(matches!(error, ItemError::ModalityAbsent { .. }), "{error}");
            let said = format!("{modality} is not taken: the family `{family}` takes no item made of several parts");
            assert_eq!(error.to_string(), said);
        }
        let other = Input::parts([Input::text("a caption"), Input::image_file("p.jpg")]);
        assert_eq!(parts.digest(), None, "there is no such file");
        assert_eq!(other.modality(), omniburn::Modality::Image);
        let texts = |a: &str, b: &str| Input::parts([Input::text(a), Input::text(b)]).digest().unwrap();
        assert_ne!(texts("a", "bc"), texts("ab", "c"));
        assert_eq!(texts("a", "b"), texts("a", "b"));
    }
}

/// Mistakes move a logit by more than ten tolerances: the comparisons above can fail.
#[test]
fn mistakes_in_a_reranker_show_in_its_scores() {
    let moved = |model: &Model, what: &str, record: PathBuf| {
        let engine = builder(record).open().unwrap_or_else(|e| panic!("{what}: {e}"));
        let pairs = model.pairs();
        let far = pairs.iter().filter(|pair| pair.own_ids).map(|pair| (score(&engine, pair).logit - pair.logit).abs());
        let far = far.fold(0.0, f32::max) / SCORE_BOUND;
        println!("{}: {what} moves a logit by {far:.0} tolerances", model.checkpoint.name);
        assert!(far > 10.0, "{}: {what} moves a logit by {far:.1} tolerances", model.checkpoint.name);
    };
    let bert = Model::named("bert-reranker-tiny");
    moved(&bert, "rows of one token type", lied(&bert.record, |config| config["head"]["token_types"] = 1.into()));
    moved(&bert, "GELU in place of tanh", lied(&bert.record, |config| config["head"]["activation"] = "gelu".into()));
    moved(&bert, "the mean in place of the first row", lied(&bert.record, |config| config["pooling"] = "mean".into()));

    let bge = Model::named("bge-reranker-tiny");
    moved(&bge, "GELU in place of tanh", lied(&bge.record, |config| config["head"]["activation"] = "gelu".into()));
    let one = changed(&bge.checkpoint, "one separator", |folder| {
        edit(&folder.join("tokenizer.json"), |json| {
            let pair = json["post_processor"]["pair"].as_array_mut().unwrap();
            assert_eq!(pair[2], pair[3]);
            pair.remove(3);
        });
    });
    moved(&bge, "one separator between the texts", converted(&one, TaskChoice::Default).unwrap().0);

    let modernbert = Model::named("modernbert-reranker-tiny");
    let head = &modernbert.record;
    moved(&modernbert, "tanh in place of GELU", lied(head, |config| config["head"]["activation"] = "tanh".into()));
    let cls = changed(&modernbert.checkpoint, "the first row", |folder| {
        edit(&folder.join("config.json"), |json| json["classifier_pooling"] = "cls".into());
    });
    let cls = converted(&cls, TaskChoice::Default).unwrap().0;
    moved(&modernbert, "the first row in place of the mean", cls.clone());
    // What the reference gives with that setting.
    let variant = modernbert.checkpoint.cases("variant").next().unwrap();
    let (first, engine) = (&modernbert.pairs()[0], builder(cls).open().unwrap());
    let want = modernbert.checkpoint.tensor(str_of(&variant["logit"]));
    compare("the first row", &[score(&engine, first).logit], &want, SCORE_BOUND);
    // Without the norm of the head, which no configuration leaves out: what is in front of it, times the last layer.
    let direct = Direct::open(&modernbert.record);
    let (logit, taps) = capture::collect(|| direct.logits(&[first])[0]);
    let inner = &taps.iter().find(|tap| tap.name == "head.inner").expect("what the norm reads").values;
    let bytes = std::fs::read(modernbert.folder.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let stored = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap();
        tensor.data().chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
    };
    let (weight, bias) = (stored("classifier.weight"), stored("classifier.bias")[0]);
    let without = inner.iter().zip(&weight).map(|(a, b)| a * b).sum::<f32>() + bias;
    assert!((without - logit).abs() > 10.0 * SCORE_BOUND, "{without} and {logit}");

    let qwen3 = Model::named("qwen3-reranker-tiny");
    let with = |what: &str, change: &dyn Fn(&mut Value)| {
        moved(&qwen3, what, lied(&qwen3.record, |config| change(&mut config["head"])));
    };
    with("no system turn", &|head| head["prompt"]["before"] = "<|im_start|>user\n".into());
    with("no empty thought", &|head| head["prompt"]["behind"] = "<|im_end|>\n<|im_start|>assistant\n".into());
    with("two line breaks", &|head| head["prompt"]["labels"][1] = "\n\n<Query>: ".into());
    moved(&qwen3, "rows that see later ones", lied(&qwen3.record, |config| config["text"]["causal"] = false.into()));
}

#[test]
fn a_header_that_lies_of_a_head_is_refused() {
    let refused = |model: &Model, what: &str, change: &dyn Fn(&mut Value)| {
        let copy = lied(&model.record, change);
        assert!(
            RecordFolder::open(&copy).is_err() || Engine::open(&copy).is_err(),
            "{}: {what}",
            model.checkpoint.name
        );
    };
    for name in ["bert-reranker-tiny", "bge-reranker-tiny", "modernbert-reranker-tiny"] {
        let model = Model::named(name);
        refused(&model, "no token type", &|config| config["head"]["token_types"] = 0.into());
        refused(&model, "nine token types", &|config| config["head"]["token_types"] = 9.into());
        refused(&model, "an unknown activation", &|config| config["head"]["activation"] = "softplus".into());
        refused(&model, "an unknown field", &|config| config["head"]["more"] = 1.into());
        refused(&model, "no head", &|config| _ = config.as_object_mut().unwrap().remove("head"));
        refused(&model, "another norm", &|config| {
            config["head"]["norm"] = (!config["head"]["norm"].as_bool().unwrap()).into();
        });
        refused(&model, "several poolings", &|config| config["more_poolings"] = json!(["mean"]));
    }
    let model = Model::named("qwen3-reranker-tiny");
    refused(&model, "an answer outside the table", &|config| config["head"]["answers"] = json!([1, 1 << 20]));
    refused(&model, "equal answers", &|config| config["head"]["answers"] = json!([3, 3]));
    refused(&model, "another table", &|config| config["head"]["tied"] = false.into());
}

#[test]
fn a_folder_is_a_reranker_where_its_files_say_so_and_nothing_is_guessed() {
    let bge = golden().checkpoint("bge-reranker-tiny");
    let check =
        |folder: &Path, tasks| convert(&ConvertOptions { check: true, tasks, ..ConvertOptions::new(folder, "") });
    let named = |task: &str| TaskChoice::Named(task.into());
    let config = |what: &str, change: &dyn Fn(&mut Value)| {
        changed(&bge, what, |folder| edit(&folder.join("config.json"), |json| change(json)))
    };
    let report = check(&bge.folder, TaskChoice::Default).unwrap();
    assert_eq!(report.tasks, ["rerank"]);
    assert!(report.notes.iter().any(|note| note.contains("XLMRobertaForSequenceClassification with one label")));
    assert!(report.dropped.is_empty(), "{:?}", report.dropped);
    // As before, where it is asked for.
    let report = check(&bge.folder, named("embed")).unwrap();
    assert_eq!(report.tasks, ["base"]);
    assert_eq!(report.dropped.len(), 4, "the head is left aside");
    // Several labels are no reranker.
    let three = config("three labels", &|json| json["id2label"] = json!({"0": "a", "1": "b", "2": "c"}));
    assert_eq!(check(&three, TaskChoice::Default).unwrap().tasks, ["base"]);
    let error = check(&three, named("rerank")).unwrap_err().to_string();
    assert!(error.contains("id2label") && error.contains("1 label"), "{error}");
    let unsaid = config("no labels", &|json| _ = json.as_object_mut().unwrap().remove("id2label"));
    let error = check(&unsaid, named("rerank")).unwrap_err().to_string();
    assert!(error.contains("num_labels") && error.contains('2'), "{error}");
    // The activation that a file names.
    for (field, value) in [
        ("sbert_ce_default_activation_function", json!("torch.nn.modules.linear.Identity")),
        ("sentence_transformers", json!({"activation_fn": "torch.nn.modules.linear.Identity"})),
    ] {
        let report = check(&config("identity", &|json| json[field] = value.clone()), TaskChoice::Default).unwrap();
        assert!(report.notes.iter().any(|note| note.contains(field) && note.contains("sigmoid")), "{:?}", report.notes);
        let other = config("tanh", &|json| {
            let text = value.to_string().replace("linear.Identity", "activation.Tanh");
            json[field] = serde_json::from_str(&text).unwrap();
        });
        let error = check(&other, TaskChoice::Default).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains("Tanh"), "{error}");
    }
    // A list of modules says what a folder is, whatever the class.
    let modules = |listed: &[(&str, &str)]| -> Value {
        let one = |(i, (kind, path)): (usize, &(&str, &str))| json!({"idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.{kind}")});
        listed.iter().enumerate().map(one).collect()
    };
    let write = |folder: &Path, file: &str, value: Value| {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    };
    let embedder = changed(&bge, "modules of an embedder", |folder| {
        write(folder, "modules.json", modules(&[("models.Transformer", ""), ("models.Pooling", "1_Pooling")]));
        write(folder, "1_Pooling/config.json", json!({"pooling_mode_cls_token": true}));
    });
    assert_eq!(check(&embedder, TaskChoice::Default).unwrap().tasks, ["base"]);
    let encoder = |what: &str, st: Value| {
        changed(&bge, what, |folder| {
            write(folder, "modules.json", modules(&[("base.modules.transformer.Transformer", "")]));
            write(folder, "config_sentence_transformers.json", st);
            write(
                folder,
                "sentence_bert_config.json",
                json!({"transformer_task": "sequence-classification", "max_seq_length": 100, "module_output_name": "scores"}),
            );
        })
    };
    let folder = encoder(
        "modules of a cross encoder",
        json!({"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid",
               "prompts": {"query": "find: "}, "default_prompt_name": "query"}),
    );
    let (record, report) = converted(&folder, TaskChoice::Default).unwrap();
    let header = open(&record).header().clone();
    assert_eq!((header.tasks.as_slice(), header.prompts.query.as_str()), (&["rerank".to_string()][..], "find: "));
    assert_eq!(header.family.max_tokens(), 100);
    assert!(report.notes.iter().any(|note| note.contains("find: ")), "{:?}", report.notes);
    // The prompt stands in front of the query, as the library puts it.
    let (prompted, plain) = (builder(record).open().unwrap(), Model::named("bge-reranker-tiny").engine());
    let got = prompted.rerank("a bear", &["a bear of China"]).unwrap();
    assert_eq!(bits(&got[0]), bits(&plain.rerank("find: a bear", &["a bear of China"]).unwrap()[0]));
    let error = check(&encoder("another file", json!({"model_type": "SentenceTransformer"})), TaskChoice::Default);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("modules.json") && error.contains("Pooling"), "{error}");
}

#[test]
fn a_language_model_is_a_reranker_by_its_modules_its_name_or_on_request() {
    let qwen3 = golden().checkpoint("qwen3-reranker-tiny");
    let check =
        |folder: &Path, tasks| convert(&ConvertOptions { check: true, tasks, ..ConvertOptions::new(folder, "") });
    let named = |task: &str| TaskChoice::Named(task.into());
    let report = check(&qwen3.folder, TaskChoice::Default).unwrap();
    assert_eq!(report.tasks, ["rerank"]);
    let guessed = |notes: &[String]| notes.iter().any(|note| note.contains("taken for a reranker"));
    assert!(guessed(&report.notes), "{:?}", report.notes);
    // Under a name that tells nothing, what it is has to be said.
    let plain = scratch().join(format!("a-language-model-{}", next()));
    copy_folder(&qwen3.folder, &plain);
    let error = check(&plain, TaskChoice::Default).unwrap_err();
    assert!(matches!(error, ConvertError::TwoReadings { .. }) && error.exit_code() == 2, "{error}");
    assert!(error.to_string().contains("--task embed") && error.to_string().contains("--task rerank"), "{error}");
    let report = check(&plain, named("rerank")).unwrap();
    assert!(report.tasks == ["rerank"] && !guessed(&report.notes), "{:?}", report.notes);
    assert_eq!(check(&plain, named("embed")).unwrap().tasks, ["base"]);
    // An embedder puts a token behind every text, and is one whatever is not said.
    let embedder = golden().checkpoint("qwen3-embedding-tiny");
    assert_eq!(check(&embedder.folder, TaskChoice::Default).unwrap().tasks, ["base"]);
    // A vocabulary without the answers gives none.
    let mute = changed(&qwen3, "no answers", |folder| {
        edit(&folder.join("tokenizer.json"), |json| {
            let vocab = json["model"]["vocab"].as_object_mut().unwrap();
            let id = vocab.remove("yes").unwrap();
            vocab.insert("Ġneverseen".into(), id);
            json["model"]["merges"] = json!([]);
        });
    });
    let error = check(&mute, named("rerank")).unwrap_err().to_string();
    assert!(error.contains("`yes`"), "{error}");
    // As sentence-transformers saves one.
    let vocab = read(&qwen3.folder.join("tokenizer.json")).unwrap()["model"]["vocab"].clone();
    let modules = |what: &str, template: &str, answers: [&Value; 2]| {
        changed(&qwen3, what, |folder| {
            let listed = json!([
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
                {"idx": 1, "name": "1", "path": "1_LogitScore",
                 "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"},
            ]);
            std::fs::write(folder.join("modules.json"), listed.to_string()).unwrap();
            let st =
                json!({"model_type": "CrossEncoder", "prompts": {"web": "Find a page"}, "default_prompt_name": "web"});
            std::fs::write(folder.join("config_sentence_transformers.json"), st.to_string()).unwrap();
            std::fs::create_dir(folder.join("1_LogitScore")).unwrap();
            let module = json!({"true_token_id": answers[0], "false_token_id": answers[1]});
            std::fs::write(folder.join("1_LogitScore/config.json"), module.to_string()).unwrap();
            edit(&folder.join("tokenizer_config.json"), |json| json["chat_template"] = template.into());
        })
    };
    let template = "Judge whether the Document meets the requirements … <Instruct>: {{ i }}\n<Query>: {{ q }}\n<Document>: \
                    {{ d }} … <think>\n\n</think>";
    let (record, _) =
        converted(&modules("modules", template, [&vocab["yes"], &vocab["no"]]), TaskChoice::Default).unwrap();
    let engine = builder(record).open().unwrap();
    let plain = Model::named("qwen3-reranker-tiny").engine();
    let asked = Request::new(Role::Query).instruction("Find a page");
    let want = plain.rerank_with("a bear", &["a bear of China"], &asked).unwrap().swap_remove(0).unwrap();
    assert_eq!(bits(&engine.rerank("a bear", &["a bear of China"]).unwrap()[0]), bits(&want));
    // The other way round, the difference has the other sign.
    let turned = modules("turned", template, [&vocab["no"], &vocab["yes"]]);
    let turned = builder(converted(&turned, TaskChoice::Default).unwrap().0).open().unwrap();
    let turned = turned.rerank("a bear", &["a bear of China"]).unwrap()[0].logit;
    compare("answers the other way round", &[-turned], &[want.logit], SCORE_BOUND);
    let error = check(&modules("another prompt", "{{ messages }}", [&vocab["yes"], &vocab["no"]]), TaskChoice::Default);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("chat_template") && error.contains("<Instruct>"), "{error}");
}

#[test]
fn an_untied_output_table_gives_the_scores_of_its_own_rows() {
    let model = Model::named("qwen3-reranker-tiny");
    let untied = changed(&model.checkpoint, "untied", |folder| {
        edit(&folder.join("config.json"), |json| json["tie_word_embeddings"] = false.into());
    });
    let error = converted(&untied, TaskChoice::Default).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight"), "{error}");
    let path = untied.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    let table = views.iter().find(|(name, ..)| name == "model.embed_tokens.weight").unwrap().clone();
    // Twice the table: twice the logit.
    let doubled = table
        .3
        .chunks_exact(2)
        .flat_map(|b| half::bf16::from_f32(2.0 * half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).to_le_bytes());
    let head = ("lm_head.weight".to_string(), table.1, table.2.clone(), doubled.collect::<Vec<u8>>());
    let all: Vec<_> = views.into_iter().chain([head]).collect();
    let all = all.iter().map(|(name, dtype, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(all, None).unwrap()).unwrap();
    let engine = builder(converted(&untied, TaskChoice::Default).unwrap().0).open().unwrap();
    let tied = model.engine();
    for pair in model.pairs().iter().take(3) {
        let (got, want) = (score(&engine, pair).logit, score(&tied, pair).logit);
        compare(&pair.name, &[got / 2.0], &[want], SCORE_BOUND);
    }
}

#[test]
fn rerankers_in_other_types_are_near_their_reference_and_count_their_operations() {
    for model in Model::all() {
        for (dtype, most) in [(Dtype::Bf16, 0.02), (Dtype::Int8, 0.1)] {
            let engine = builder(record(&model.folder, dtype, TaskChoice::Default)).open().unwrap();
            for pair in model.pairs().iter().filter(|pair| pair.own_ids) {
                let far = (score(&engine, pair).score - pair.score).abs();
                assert!(far < most, "{} in {dtype}: {far}", pair.name);
            }
        }
        let opened = open(&model.record);
        let family = &opened.header().family;
        let specs = family.text_tensors(0);
        let elements = |chosen: &dyn Fn(&omniburn_models::record::TensorSpec) -> bool| -> u64 {
            specs.iter().filter(|spec| chosen(spec)).map(|spec| spec.elements() as u64).sum()
        };
        let of_head = |name: &str| name.starts_with("head.");
        let layers = elements(&|spec| spec.role == TensorRole::Linear && !of_head(&spec.name));
        // Its matrices, and the one row of its last layer.
        let last = ["classifier.weight", "out_proj.weight", "embed_tokens.weight"];
        let head = elements(&|spec| {
            of_head(&spec.name)
                && (spec.role == TensorRole::Linear || last.iter().any(|last| spec.name.ends_with(last)))
        });
        let flops = |tokens| family.flops(&Shape::Text { tokens }).unwrap();
        // The head meets one row whatever the length; matrices of layers each row; attention grows with the square.
        let one = flops(1) - 2 * head - 2 * layers;
        assert!(one > 0, "{}", model.checkpoint.name);
        assert_eq!((flops(2) - 2 * head - 4 * layers) % one, 0, "{}", model.checkpoint.name);
    }
}

/// What is asked for again is found, with another instruction it is not, and equal documents are scored once.
#[test]
fn scores_are_kept_and_shared_as_vectors_are() {
    let model = Model::named("qwen3-reranker-tiny");
    let cache = omniburn::ResultCache::new(1 << 20);
    let engine = builder(model.record.clone()).cache(Arc::clone(&cache)).open().unwrap();
    let first = engine.rerank("a bear", &["China", "France", "China"]).unwrap();
    assert_eq!(cache.stats().results, 2);
    let again = engine.rerank("a bear", &["China", "France", "China"]).unwrap();
    assert_eq!(first, again);
    assert_eq!(cache.stats().hits, 3);
    let asked = Request::new(Role::Query).instruction("other");
    let other = engine.rerank_with("a bear", &["China"], &asked).unwrap().swap_remove(0).unwrap();
    assert_ne!(other.logit, first.iter().find(|one| one.index == 0).unwrap().logit);
    // A pair is no text: neither the joined one nor the turned.
    let turned = engine.rerank("China", &["a bear"]).unwrap();
    assert_ne!(turned[0].logit, first.iter().find(|one| one.index == 0).unwrap().logit);
}

#[test]
fn the_smallest_budget_that_would_do_does_and_changes_no_bit() {
    for model in Model::all() {
        let documents: Vec<String> = model.pairs().into_iter().map(|pair| pair.document).collect();
        let request = Request::new(Role::Query).truncation(Truncation::Right);
        let scores = |engine: &Engine| engine.rerank_with("a", &documents, &request).unwrap();
        let want: Vec<[u32; 2]> = scores(&model.engine()).iter().map(|one| bits(one.as_ref().unwrap())).collect();
        let refused = scores(&builder(model.record.clone()).budget(1).open().unwrap());
        let needed = refused.into_iter().map(|result| match result.unwrap_err() {
            ItemError::OverBudget { needed, .. } => needed,
            other => panic!("{other}"),
        });
        let engine = builder(model.record.clone()).budget(needed.max().unwrap()).open().unwrap();
        let got: Vec<[u32; 2]> = scores(&engine).iter().map(|one| bits(one.as_ref().unwrap())).collect();
        assert_eq!(got, want, "{}", model.checkpoint.name);
    }
}

/// A list of the reference.
struct List<'a> {
    name: &'a str,
    query: &'a str,
    documents: Vec<&'a str>,
    request: Request,
    prompts: Vec<usize>,
    scores: Vec<f32>,
}

fn lists(checkpoint: &Checkpoint) -> Vec<List<'_>> {
    let of = |case| -> List<'_> {
        let case: &Value = case;
        let request = Request::new(Role::Query).truncation(Truncation::Right);
        List {
            name: str_of(&case["name"]),
            query: str_of(&case["query"]),
            documents: case["documents"].as_array().unwrap().iter().map(str_of).collect(),
            request: case["instruction"].as_str().map_or(request.clone(), |asked| request.instruction(asked)),
            prompts: case["prompts"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect(),
            scores: checkpoint.tensor(str_of(&case["scores"])),
        }
    };
    let found: Vec<List<'_>> = checkpoint.cases("list").map(of).collect();
    assert!(found.len() > 6);
    found
}

fn list_twin() -> (Checkpoint, Engine) {
    let checkpoint = golden().checkpoint("jina-reranker-tiny");
    let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
    (checkpoint, engine)
}

fn rank(engine: &Engine, list: &List<'_>) -> Vec<Ranked> {
    let found = engine.rerank_with(list.query, &list.documents, &list.request).unwrap();
    found.into_iter().map(|one| one.unwrap_or_else(|e| panic!("{}: {e}", list.name))).collect()
}

/// Cosines of documents that are read beside each other, in one prompt or in several.
#[test]
fn a_reranker_of_lists_equals_its_reference() {
    let (checkpoint, engine) = list_twin();
    assert_eq!((engine.profile().outputs, engine.profile().task.as_str()), (&["score"][..], "rerank"));
    let mut worst = Worst::default();
    for list in lists(&checkpoint) {
        let got = rank(&engine, &list);
        let logits: Vec<f32> = got.iter().map(|one| one.logit).collect();
        worst.see(compare(list.name, &logits, &list.scores, SCORE_BOUND));
        let mut tokens: Vec<usize> = got.iter().map(|one| one.tokens).collect();
        tokens.dedup();
        assert_eq!(tokens, list.prompts, "{}", list.name);
        for one in &got {
            assert_eq!(one.score, (1.0 + one.logit) / 2.0, "{}", list.name);
        }
        let cut: Vec<PairCut> = got.iter().map(|one| one.cut).collect();
        assert_eq!(cut[0], PairCut { query: list.name == "cut", document: list.name == "cut" }, "{}", list.name);
    }
    worst.report("jina-reranker-tiny cosines");
}

#[test]
fn a_reranker_of_lists_has_the_same_bits_beside_other_callers_and_in_any_steps() {
    let (checkpoint, engine) = list_twin();
    let short =
        builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).time_slice(Duration::from_micros(1));
    let short = short.open().unwrap();
    let all = lists(&checkpoint);
    let few: Vec<&List<'_>> = all.iter().filter(|list| list.prompts.iter().sum::<usize>() < 1000).collect();
    let alone: Vec<Vec<[u32; 2]>> = few.iter().map(|list| rank(&engine, list).iter().map(bits).collect()).collect();
    for engine in [&engine, &short] {
        std::thread::scope(|scope| {
            for (list, want) in few.iter().zip(&alone) {
                scope.spawn(move || {
                    let got: Vec<[u32; 2]> = rank(engine, list).iter().map(bits).collect();
                    assert_eq!(&got, want, "{}", list.name);
                });
            }
        });
        assert_eq!(engine.memory_in_use().1, 0);
    }
    // Another order is another list.
    let of = |name: &str| few.iter().position(|list| list.name == name).unwrap();
    let turned: Vec<[u32; 2]> = alone[of("turned")].iter().rev().copied().collect();
    assert_ne!(turned, alone[of("few")]);
}

#[test]
fn a_document_that_no_list_takes_fails_alone() {
    let (_, engine) = list_twin();
    let request = Request::new(Role::Query);
    let long = "word ".repeat(2300);
    let inputs = [Input::text("a dog"), Input::image_file("x.png"), Input::text(&long), Input::text("the sea")];
    let found = engine.rerank_with("water", &inputs, &request).unwrap();
    let kinds: Vec<Option<&str>> = found.iter().map(|one| one.as_ref().err().map(|e| e.kind().name())).collect();
    assert_eq!(kinds, [None, Some("modality_absent"), Some("too_long"), None]);
    let rest = engine.rerank("water", &["a dog", "the sea"]).unwrap();
    for (index, at) in [(0, 0), (1, 3)] {
        let one = rest.iter().find(|one| one.index == index).unwrap();
        assert_eq!(bits(one), bits(found[at].as_ref().unwrap()));
    }
    assert!(engine.rerank("water", &[] as &[&str]).unwrap().is_empty());
    // The token that ends a query, put together where the other was taken out.
    let error = engine.rerank("water", &["a <|rerank_<|embed_token|>token|> b"]).unwrap_err().to_string();
    assert!(error.contains("<|rerank_token|>"), "{error}");
    let error = engine.rerank(long.as_str(), &["a"]).unwrap_err().to_string();
    assert!(error.contains("512"), "{error}");
    let error = engine.embed_one(Input::text("a"), Role::Query).unwrap_err().to_string();
    assert!(error.contains("`rerank`"), "{error}");
}

#[test]
fn mistakes_in_a_list_show_in_its_scores_and_a_folder_without_its_tokens_is_refused() {
    let (checkpoint, _) = list_twin();
    let own = record(&checkpoint.folder, Dtype::F32, TaskChoice::Default);
    let all = lists(&checkpoint);
    let list = all.iter().find(|list| list.name == "few").unwrap();
    let moved = |what: &str, folder: PathBuf| {
        let engine = builder(folder).open().unwrap_or_else(|e| panic!("{what}: {e}"));
        let got = rank(&engine, list);
        let far = got.iter().zip(&list.scores).map(|(got, want)| (got.logit - want).abs()).fold(0.0, f32::max);
        println!("{what} moves a cosine by {:.0} tolerances", far / SCORE_BOUND);
        assert!(far > 10.0 * SCORE_BOUND, "{what}: {far}");
    };
    moved("no system turn", lied(&own, |config| config["list"]["before"] = "<|im_start|>user\n".into()));
    moved("rows that see later ones", lied(&own, |config| config["text"]["causal"] = false.into()));
    moved("no ReLU", lied(&own, |config| config["dense"][0]["activation"] = "identity".into()));
    moved("one document a prompt", lied(&own, |config| config["list"]["most_documents"] = 1.into()));
    for (what, field, value) in [
        ("no documents", "most_documents", json!(0)),
        ("equal ids", "ids", json!([3, 3])),
        ("an id outside the table", "ids", json!([3, 1 << 20])),
        ("no tokens", "most_tokens", json!([0, 5])),
        ("equal tokens", "tokens", json!(["a", "a"])),
    ] {
        let copy = lied(&own, |config| config["list"][field] = value.clone());
        assert!(RecordFolder::open(&copy).is_err() || Engine::open(&copy).is_err(), "{what}");
    }
    let without = changed(&checkpoint, "no token", |folder| {
        edit(&folder.join("tokenizer.json"), |json| {
            json["added_tokens"].as_array_mut().unwrap().retain(|token| token["content"] != "<|embed_token|>");
        });
    });
    let error = converted(&without, TaskChoice::Default).unwrap_err().to_string();
    assert!(error.contains("<|embed_token|>"), "{error}");
    let error = converted(&checkpoint.folder, TaskChoice::Named("embed".into())).unwrap_err().to_string();
    assert!(error.contains("projector"), "{error}");
}
