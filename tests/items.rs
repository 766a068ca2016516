//! Items of texts and media in a family's prompt: every checkpoint of every set whose family takes them, with what the reference
//! computed; positions of three axes; the laws, which hold for such items as for any other; what is refused; and mistakes that
//! show.

use std::path::{Path, PathBuf};
use std::time::Duration;

use omniburn::{Dtype, Embedded, Engine, Input, ItemError, Modality, Priority, Request, Role, Truncation};
use omniburn_convert::{ConvertError, ConvertOptions, TaskChoice, convert};
use omniburn_media::{AudioReader, AudioSource};
use omniburn_models::Segments;
use omniburn_models::batch::{Grid, MediaRows};
use omniburn_models::blocks::axis_positions;
use omniburn_models::flops::Shape;
use serde_json::{Value, json};

use crate::support::*;

/// Checkpoints whose items are compared.
const CHECKPOINTS: [&str; 3] = ["qwen3-vl-embed-tiny", "bidirlm-omni-tiny", THINKER];
/// The one of Qwen2.5-Omni: windows of attention, seconds as positions. What its other prompts give is in `thinker.rs`.
const THINKER: &str = "qwen25-omni-tiny";

/// Texts of the manifest's mixed items, by name of the case, where it does not say them.
const TEXTS: [(&str, &str); 2] = [("image+text+image", "german"), ("image+audio+text", "code")];

fn checkpoints() -> Vec<Checkpoint> {
    checkpoints_of(&CHECKPOINTS)
}

/// Checkpoints of these names in every set.
fn checkpoints_of(names: &[&str]) -> Vec<Checkpoint> {
    let there = |set: &Set, name: &str| set.refs.join(format!("{name}.json")).is_file();
    let found: Vec<Checkpoint> = sets()
        .iter()
        .flat_map(|set| {
            names.iter().filter(|name| there(set, name)).map(|name| set.checkpoint(name)).collect::<Vec<_>>()
        })
        .collect();
    assert!(
        names.iter().all(|name| found.iter().any(|checkpoint| checkpoint.name == *name)),
        "a checkpoint has no golden"
    );
    found
}

fn engine_of(checkpoint: &Checkpoint) -> Engine {
    builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().expect("a fresh record opens")
}

/// A case of a manifest as an item.
struct Case<'a> {
    name: String,
    case: &'a Value,
    input: Input,
    request: Request,
}

/// Samples of files joined end to end.
fn joined(checkpoint: &Checkpoint, files: &[&str]) -> Input {
    let samples = |file: &&str| {
        let source = AudioSource::file(checkpoint.media.join(file));
        let mut reader = AudioReader::open(&source, 16_000).unwrap();
        reader.next_segment().unwrap().unwrap().samples.to_vec()
    };
    Input::audio_samples(files.iter().flat_map(samples).collect::<Vec<f32>>(), 16_000)
}

/// A part by its kind and its name in the set.
fn part(checkpoint: &Checkpoint, kind: &str, name: &str) -> Input {
    match kind {
        "text" => Input::text(checkpoint.text_named(name)),
        "image" => checkpoint.image_named(name),
        "audio" => checkpoint.audio(name),
        "video" => {
            let frames = |n: usize| {
                let file = checkpoint.media.join(format!("video/{name}_{n}.png"));
                file.is_file().then_some(file)
            };
            Input::video_frame_files((0..).map_while(frames).collect())
        }
        other => panic!("{other}"),
    }
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(str_of).collect()
}

/// Every case of a checkpoint that its family's prompt writes.
fn cases(checkpoint: &Checkpoint) -> Vec<Case<'_>> {
    let one = |case: &'_ Value| -> Option<Input> {
        let kind = case["kind"].as_str()?;
        let other = case["convention"] == "bare" || case["style"] == "e5" || !case["chunks"].is_null();
        if !case["embedding"].is_string() || kind == "text_batch" || other {
            return None;
        }
        if let Some(items) = case["items"].as_array() {
            let parts: Vec<Input> =
                items.iter().map(|item| part(checkpoint, str_of(&item[0]), str_of(&item[1]))).collect();
            return Some(if parts.len() == 1 { parts[0].clone() } else { Input::parts(parts) });
        }
        let name = str_of(&case["name"]);
        Some(match kind {
            "text" => Input::text(str_of(&case["text"])),
            "image" => checkpoint.image(case),
            "video" => case["fps"].as_f64().into_iter().fold(checkpoint.clip(case), Input::frame_rate),
            "audio" => match names(&case["files"])[..] {
                [file] => Input::audio_file(checkpoint.media.join(file)),
                ref files => joined(checkpoint, files),
            },
            "mixed" => {
                let mut media = names(&case["media"]).into_iter();
                let text = TEXTS.iter().find(|(case, _)| *case == name).map_or("plain", |(_, text)| text);
                // A manifest that lists no parts has them in the name.
                let parts = match names(&case["parts"]) {
                    parts if parts.is_empty() => name.split('+').collect(),
                    parts => parts,
                };
                let parts = parts.into_iter().map(|kind| match kind {
                    "text" => part(checkpoint, kind, text),
                    kind => part(checkpoint, kind, media.next().expect("a medium a part")),
                });
                Input::parts(parts.collect::<Vec<_>>())
            }
            other => panic!("{other}"),
        })
    };
    let case = |case| {
        let input = one(case)?;
        let request = case["instruction"].as_str().into_iter().fold(Request::new(Role::None), Request::instruction);
        Some(Case { name: format!("{} {} {}", checkpoint.name, case["kind"], case["name"]), case, input, request })
    };
    checkpoint.cases.iter().filter_map(case).collect()
}

fn embed(engine: &Engine, input: &Input, request: &Request) -> Embedded {
    try_embed(engine, input, request).unwrap()
}

fn try_embed(engine: &Engine, input: &Input, request: &Request) -> Result<Embedded, ItemError> {
    engine.embed_with(std::slice::from_ref(input), request).unwrap().swap_remove(0)
}

#[test]
fn every_item_equals_its_reference() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let mut worst = std::collections::BTreeMap::<String, Worst>::new();
        for Case { name, case, input, request } in cases(&checkpoint) {
            let got = embed(&engine, &input, &request);
            assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}");
            let want = checkpoint.tensor(str_of(&case["embedding"]));
            let worst = worst.entry(str_of(&case["kind"]).into()).or_default();
            worst.see(compare(&name, got.embedding.as_slice(), &want, embedding_bound()));
        }
        assert!(worst.len() > 3, "{}: {worst:?}", checkpoint.name);
        for (kind, worst) in worst {
            worst.report(&format!("{}, {kind}", checkpoint.name));
        }
    }
}

/// Positions of the reference, which scatters rows over placeholders: each run of them is an image or a group of frames.
#[test]
fn positions_are_those_of_the_reference() {
    for checkpoint in checkpoints() {
        let config: Value =
            serde_json::from_slice(&std::fs::read(checkpoint.folder.join("config.json")).unwrap()).unwrap();
        let merge = config["vision_config"]["spatial_merge_size"].as_u64().unwrap() as usize;
        let mut seen = 0;
        for case in checkpoint.cases.iter().filter(|case| case["position_ids"].is_string()) {
            if !case["chunks"].is_null() {
                // Audio between the frames of a video is not heard.
                continue;
            }
            let ids = ids_of(&case["input_ids"]);
            let pads = pads(&config);
            // Rows of a video stand together where seconds are counted.
            let clock = config["position_id_per_seconds"].as_f64();
            let sizes: Vec<Vec<usize>> = match case["items"].as_array() {
                Some(items) => items.iter().filter_map(|item| size_of(&checkpoint, &item[0], &item[1])).collect(),
                None => mixed_sizes(&checkpoint, case),
            };
            let (mut media, mut start) = (Vec::new(), 0);
            while start < ids.len() {
                let rows = ids[start..].iter().take_while(|id| pads.contains(id) && **id == ids[start]).count();
                if rows > 0 {
                    // Of the sizes that the item has, the one with as many rows.
                    let groups = |size: &[usize]| if clock.is_some() { size[0] } else { 1 };
                    let fits = |size: &&Vec<usize>| groups(size) * size[1] * size[2] == rows * merge * merge;
                    let size = sizes.iter().find(fits).unwrap_or_else(|| panic!("{}: {rows} rows", case["name"]));
                    let grid = Grid { t: groups(size), h: size[1] / merge, w: size[2] / merge };
                    let group_s = 2.0 / case["fps"].as_f64().unwrap_or(2.0);
                    let times = match clock {
                        Some(clock) if ids[start] == pads[1] => {
                            (0..grid.t).map(|group| (group as f64 * group_s * clock) as usize).collect()
                        }
                        _ => Vec::new(),
                    };
                    media.push(MediaRows { start, rows, grid: Some(grid), times, added: Vec::new() });
                }
                start += rows.max(1);
            }
            assert!(!media.is_empty() || case["kind"] == "audio");
            let got = axis_positions(&Segments::single(ids.len()), &media);
            let want = checkpoint.numbers(str_of(&case["position_ids"]));
            let axes: Vec<i32> = (0..3).flat_map(|axis| got.iter().map(move |at| at[axis] as i32)).collect();
            assert_eq!(axes, want, "{} {}", checkpoint.name, case["name"]);
            seen += 1;
        }
        assert!(seen > 10, "{}: {seen}", checkpoint.name);
    }
}

/// Ids that stand for rows of images and of videos.
fn pads(config: &Value) -> [u32; 2] {
    let id = |kind: &str| {
        let id = ["id", "index"].iter().find_map(|end| config[format!("{kind}_token_{end}")].as_u64());
        id.expect("an id that stands for rows") as u32
    };
    [id("image"), id("video")]
}

/// Patches along time, height and width of a medium of the set, as the manifest gives them for it alone.
fn size_of(checkpoint: &Checkpoint, kind: &Value, name: &Value) -> Option<Vec<usize>> {
    let alone = checkpoint.cases.iter().find(|case| case["kind"] == *kind && case["name"] == *name)?;
    let size = |size: &Value| size.as_array()?.iter().map(|n| n.as_u64().map(|n| n as usize)).collect();
    let grid = &alone["grid_thw"];
    size(if grid[0].is_array() { &grid[0] } else { grid })
}

fn mixed_sizes(checkpoint: &Checkpoint, case: &Value) -> Vec<Vec<usize>> {
    match case["grid_thw"].as_array() {
        Some(_) => size_of(checkpoint, &case["kind"], &case["name"]).into_iter().collect(),
        None => {
            let media = case["media"].as_array().into_iter().flatten();
            media
                .filter_map(|name| ["image", "video"].iter().find_map(|kind| size_of(checkpoint, &json!(kind), name)))
                .collect()
        }
    }
}

#[test]
fn items_have_the_same_bits_in_any_company_and_any_steps() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let short = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default));
        let short = short.time_slice(Duration::from_micros(1)).open().unwrap();
        let cases = cases(&checkpoint);
        let inputs: Vec<Input> =
            cases.iter().filter(|case| case.case["instruction"].is_null()).map(|case| case.input.clone()).collect();
        let request = Request::new(Role::None).priority(Priority::Background);
        let alone: Vec<Vec<f32>> =
            inputs.iter().map(|input| embed(&engine, input, &request).embedding.into_vec()).collect();
        let mut order: Vec<usize> = (0..inputs.len()).chain(0..5).collect();
        for engine in [&engine, &short] {
            for turn in 0..2 {
                order.rotate_left(turn * 7 + 3);
                let some: Vec<Input> = order.iter().map(|&at| inputs[at].clone()).collect();
                let together = engine.embed_with(&some, &request).unwrap();
                let got: Vec<Vec<f32>> =
                    together.into_iter().map(|found| found.unwrap().embedding.into_vec()).collect();
                let want: Vec<Vec<f32>> = order.iter().map(|&at| alone[at].clone()).collect();
                same(&checkpoint.name, &got, &want);
            }
        }
    }
}

#[test]
fn what_a_prompt_does_not_take_is_refused_by_name() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let refused = |input: Input, request: &Request| {
            let error = try_embed(&engine, &input, request).expect_err("refused");
            (error.kind().name(), error.to_string())
        };
        let plain = Request::new(Role::None);
        let image = || checkpoint.image_named("odd");
        let [image_pad, video_pad] = match checkpoint.name.as_str() {
            THINKER => ["<|IMAGE|>", "<|VIDEO|>"],
            _ => ["<|image_pad|>", "<|video_pad|>"],
        };
        // Rows of media have places of their own.
        for (pad, input) in [
            (image_pad, Input::text(format!("see {image_pad} there"))),
            (video_pad, Input::parts([image(), Input::text(video_pad)])),
            (image_pad, Input::parts([Input::text("a"), Input::text(image_pad)])),
        ] {
            let (kind, said) = refused(input, &plain);
            assert!(kind == "bad_item" && said.contains(pad) && said.contains("stands for rows"), "{kind}: {said}");
        }
        let missing = Input::parts([Input::image_file(checkpoint.media.join("images/none.png")), Input::text("a")]);
        assert_eq!(refused(missing, &plain).0, "not_found");
        let broken = Input::parts([Input::image_bytes(*b"\x89PNG\r\n\x1a\nnothing"), Input::text("a")]);
        assert_eq!(refused(broken, &plain).0, "corrupt");
        // Texts are cut, rows of media never are.
        let limit = engine.profile().max_tokens;
        let long = "word ".repeat(limit + 5);
        let cut = plain.clone().truncation(Truncation::Right);
        assert!(embed(&engine, &Input::parts([Input::text("a"), Input::text(&long)]), &cut).truncated);
        let (kind, said) = refused(Input::parts([image(), Input::text(&long)]), &cut);
        assert!(kind == "too_long" && said.contains("rows enter"), "{kind}: {said}");
        // One that fails leaves the others alone.
        let good = Input::parts([image(), Input::text("a caption")]);
        let alone = embed(&engine, &good, &plain).embedding;
        let bad = Input::parts([Input::text(image_pad), image()]);
        let mut together = engine.embed_with(&[bad, good], &plain).unwrap();
        assert_eq!(together.swap_remove(1).unwrap().embedding, alone);
        assert!(together.swap_remove(0).is_err());
    }
}

#[test]
fn parts_of_parts_count_as_parts_and_an_only_part_as_itself() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let plain = Request::new(Role::None);
        let of = |input: &Input| embed(&engine, input, &plain).embedding;
        let (image, text) = (checkpoint.image_named("odd"), Input::text("a caption"));
        let flat = of(&Input::parts([image.clone(), text.clone()]));
        assert_eq!(flat, of(&Input::parts([Input::parts([image.clone()]), Input::parts([text.clone()])])));
        assert_eq!(of(&image), of(&Input::parts([image.clone()])));
        assert_eq!(of(&text), of(&Input::parts([text])));
        let both = embed(&engine, &Input::parts([image.clone(), image]), &plain);
        assert_eq!(both.modality, Modality::Image);
    }
}

#[test]
fn an_item_of_parts_costs_what_its_parts_cost() {
    for checkpoint in checkpoints() {
        let engine = engine_of(&checkpoint);
        let plain = Request::new(Role::None);
        let (image, other) = (checkpoint.image_named("odd"), checkpoint.image_named("gray"));
        let work = |input: &Input| engine.work(input, &plain).unwrap();
        let family = &engine.header().family;
        let text = |tokens: usize| family.flops(&Shape::Text { tokens }).unwrap();
        let (one, two) = (work(&image), work(&other));
        let both = work(&Input::parts([image, other]));
        // Towers and connectors each for itself, the backbone once.
        let towers = one.flops - text(one.tokens) + (two.flops - text(two.tokens));
        assert_eq!(both.flops, towers + text(both.tokens));
        assert!(both.tokens < one.tokens + two.tokens && one.flops > text(one.tokens), "the frame is there once");
    }
}

/// Rerankers that read media.
const RERANKERS: [&str; 1] = ["qwen3-vl-rerank-tiny"];
/// Scores and logits against the reference in f32 (NUMERICS.md).
const SCORE_BOUND: f32 = 1e-5;

/// One side of a pair of a manifest.
fn side(checkpoint: &Checkpoint, value: &Value) -> Input {
    let parts = value.as_array().into_iter().flatten().map(|one| part(checkpoint, str_of(&one[0]), str_of(&one[1])));
    let parts: Vec<Input> = parts.collect();
    if let [one] = &parts[..] { one.clone() } else { Input::parts(parts) }
}

#[test]
fn every_pair_with_media_equals_its_reference_alone_and_in_company() {
    for checkpoint in checkpoints_of(&RERANKERS) {
        let engine = engine_of(&checkpoint);
        assert_eq!((engine.profile().outputs, engine.profile().task.as_str()), (&["score"][..], "rerank"));
        let mut worst = Worst::default();
        /// A query, its instruction, and documents with the bits of their logits.
        type Asked = (Value, Option<String>, Vec<(Input, u32)>);
        let mut by_query: Vec<Asked> = Vec::new();
        for case in checkpoint.cases("rerank") {
            let name = format!("{} {}", checkpoint.name, case["name"]);
            let instruction = case["instruction"].as_str().map(String::from);
            let request = instruction.iter().cloned().fold(Request::new(Role::Query), Request::instruction);
            let document = side(&checkpoint, &case["document"]);
            let query = side(&checkpoint, &case["query"]);
            let got = engine.rerank_with(query, std::slice::from_ref(&document), &request).unwrap().swap_remove(0);
            let got = got.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}");
            worst.see(compare(&name, &[got.logit], &checkpoint.tensor(str_of(&case["margin"])), SCORE_BOUND));
            worst.see(compare(&name, &[got.score], &checkpoint.tensor(str_of(&case["score"])), SCORE_BOUND));
            let pair = (document, got.logit.to_bits());
            match by_query.iter_mut().find(|(query, asked, _)| *query == case["query"] && *asked == instruction) {
                Some((.., pairs)) => pairs.push(pair),
                None => by_query.push((case["query"].clone(), instruction, vec![pair])),
            }
        }
        worst.report(&checkpoint.name);
        for (query, instruction, pairs) in by_query {
            let request = instruction.into_iter().fold(Request::new(Role::Query), Request::instruction);
            let (documents, want): (Vec<Input>, Vec<u32>) = pairs.into_iter().unzip();
            let together = engine.rerank_with(side(&checkpoint, &query), &documents, &request).unwrap();
            let got: Vec<u32> = together.into_iter().map(|found| found.unwrap().logit.to_bits()).collect();
            if device().kind == omniburn::BackendKind::Flex {
                assert_eq!(got, want, "{}", checkpoint.name);
            }
        }
    }
}

#[test]
fn a_pair_that_a_reranker_does_not_take_is_refused_by_name() {
    for checkpoint in checkpoints_of(&RERANKERS) {
        let engine = engine_of(&checkpoint);
        let refused = |document: Input, request: Request| {
            let error =
                engine.rerank_with("a query", &[document], &request).unwrap().swap_remove(0).expect_err("refused");
            (error.kind().name(), error.to_string())
        };
        let plain = || Request::new(Role::Query);
        let (kind, said) = refused(Input::text("see <|image_pad|>"), plain());
        assert!(kind == "bad_item" && said.contains("<|image_pad|>"), "{kind}: {said}");
        let (kind, said) = refused(checkpoint.audio("short"), plain());
        assert!(kind == "modality_absent" && said.contains("no audio tower"), "{kind}: {said}");
        let (kind, said) = refused(checkpoint.image_named("odd"), plain().truncation(Truncation::Left));
        assert!(kind == "bad_item" && said.contains("never at a beginning"), "{kind}: {said}");
        let long = "word ".repeat(engine.profile().max_tokens + 5);
        let cut = |request: Request| engine.rerank_with("a query", &[long.as_str()], &request).unwrap().swap_remove(0);
        assert_eq!(cut(plain()).unwrap_err().kind().name(), "too_long");
        assert!(cut(plain().truncation(Truncation::Right)).unwrap().cut.document);
        let with_image = Input::parts([checkpoint.image_named("odd"), Input::text(&long)]);
        assert_eq!(refused(with_image, plain().truncation(Truncation::Right)).0, "too_long");
        let error =
            engine.embed_with(&[checkpoint.image_named("odd")], &Request::new(Role::None)).unwrap_err().to_string();
        assert!(error.contains("rerank"), "{error}");
    }
    // A family that takes no parts scores none.
    let checkpoint = golden().checkpoint("qwen3-reranker-tiny");
    let engine = engine_of(&checkpoint);
    let pair = Input::parts([Input::text("a"), Input::text("b")]);
    let error = engine.rerank_with("a query", &[pair], &Request::new(Role::Query)).unwrap().swap_remove(0).unwrap_err();
    assert_eq!(error.kind().name(), "modality_absent", "{error}");
}

/// A changed copy of a checkpoint.
fn changed(checkpoint: &Checkpoint, change: impl FnOnce(&Path)) -> PathBuf {
    let copy = scratch().join(format!("items-{}-{}", checkpoint.name, next()));
    copy_folder(&checkpoint.folder, &copy);
    join_shards(&copy);
    change(&copy);
    copy
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

fn converted(folder: &Path) -> Result<PathBuf, ConvertError> {
    let out = scratch().join(format!("items-record-{}", next()));
    convert(&ConvertOptions { dtype: Dtype::F32, ..ConvertOptions::new(folder, &out) })?;
    Ok(out)
}

/// Sets tensors to zero whose names have this in them.
fn silenced(folder: &Path, part: &str) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = false;
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let silent = name.contains(part);
            seen |= silent;
            let data = if silent { vec![0; view.data().len()] } else { view.data().to_vec() };
            (name, view.dtype(), view.shape().to_vec(), data)
        })
        .collect();
    assert!(seen, "{part}");
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Every mistake moves a vector by more than ten tolerances: the comparison above can fail.
#[test]
fn mistakes_show_in_the_vectors_of_items() {
    type Change = fn(&Path);
    let of_thinker: [(&str, &str, Change); 6] = [
        ("every block over all patches", "image", |folder| {
            edit(folder, |config| config["vision_config"]["fullatt_block_indexes"] = json!([0, 1, 2, 3]));
        }),
        ("every block over windows", "image", |folder| {
            edit(folder, |config| config["vision_config"]["fullatt_block_indexes"] = json!([]));
        }),
        ("other windows", "image", |folder| edit(folder, |config| config["vision_config"]["window_size"] = 28.into())),
        ("seconds half as long", "video", |folder| {
            edit(folder, |config| config["position_id_per_seconds"] = 13.into())
        }),
        ("biases of values left out", "text", |folder| silenced(folder, "self_attn.v_proj.bias")),
        ("the projector's bias left out", "audio", |folder| silenced(folder, "audio_tower.proj.bias")),
    ];
    let of_others: [(&str, &str, Change); 1] =
        [("no DeepStack", "image", |folder| silenced(folder, "deepstack_merger_list"))];
    let mistakes: [(&str, &str, Change); 6] = [
        ("another chunk", "audio", |folder| edit(folder, |config| config["audio_config"]["n_window"] = 50.into())),
        ("the connector's bias left out", "image", |folder| {
            let thinker = folder.to_string_lossy().contains(THINKER);
            silenced(folder, if thinker { "visual.merger.mlp.2.bias" } else { "visual.merger.linear_fc2.bias" });
        }),
        ("the other direction", "text", |folder| {
            edit(folder, |config| {
                let bidirectional = config["model_type"] == "bidirlm_omni";
                config["text_config"]["is_causal"] = bidirectional.into();
            });
        }),
        ("one axis for all pairs", "image", |folder| {
            edit(folder, |config| {
                let sections: Vec<u64> = serde_json::from_value(find(config, "mrope_section").clone()).unwrap();
                let all = json!([sections.iter().sum::<u64>(), 0, 0]);
                replace(config, "mrope_section", &all);
            });
        }),
        ("another rotary base", "text", |folder| {
            edit(folder, |config| replace(config, "rope_theta", &json!(20_000.0)));
        }),
        ("another epsilon", "text", |folder| {
            edit(folder, |config| config["text_config"]["rms_norm_eps"] = 0.05.into())
        }),
    ];
    for checkpoint in checkpoints() {
        let cases = cases(&checkpoint);
        let own = if checkpoint.name == THINKER { &of_thinker[..] } else { &of_others };
        for (what, kind, change) in mistakes.iter().chain(own).copied() {
            if !cases.iter().any(|case| case.case["kind"] == kind) {
                continue;
            }
            let copy = changed(&checkpoint, change);
            let engine = builder(converted(&copy).unwrap_or_else(|e| panic!("{what}: {e}"))).open().unwrap();
            let far = cases.iter().filter(|case| case.case["kind"] == kind).map(|case| {
                let got = embed(&engine, &case.input, &case.request).embedding;
                distance(what, got.as_slice(), &checkpoint.tensor(str_of(&case.case["embedding"]))).max_abs
            });
            let far = far.fold(0.0, f32::max) / embedding_bound();
            println!("{}: {what} moves a vector by {far:.0} tolerances", checkpoint.name);
            assert!(far > 10.0, "{}: {what} moves a vector by {far:.1} tolerances", checkpoint.name);
        }
    }
}

/// The first field of this name, however deep.
fn find<'a>(value: &'a Value, name: &str) -> &'a Value {
    fn deep<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
        let object = value.as_object()?;
        object.get(name).or_else(|| object.values().find_map(|inner| deep(inner, name)))
    }
    deep(value, name).unwrap_or_else(|| panic!("no {name}"))
}

/// Every field of this name with another value.
fn replace(value: &mut Value, name: &str, other: &Value) {
    let Some(object) = value.as_object_mut() else { return };
    for (field, inner) in object {
        if field == name {
            *inner = other.clone();
        } else {
            replace(inner, name, other);
        }
    }
}

#[test]
fn fields_that_are_not_computed_are_refused_by_name() {
    type Change = fn(&mut Value);
    let of_thinker: [(&str, Change); 9] = [
        ("hidden_act", |config| config["vision_config"]["hidden_act"] = "gelu".into()),
        ("window_size", |config| config["vision_config"]["window_size"] = 27.into()),
        ("fullatt_block_indexes", |config| config["vision_config"]["fullatt_block_indexes"] = json!(["1"])),
        ("activation_function", |config| config["audio_config"]["activation_function"] = "relu".into()),
        ("output_dim", |config| config["audio_config"]["output_dim"] = 32.into()),
        ("use_sliding_window", |config| config["text_config"]["use_sliding_window"] = true.into()),
        ("image_token_id", |config| config["image_token_index"] = Value::Null),
        ("image_token_index", |config| config["image_token_id"] = 3.into()),
        ("audio_start_token_id", |config| config["audio_start_token_id"] = Value::Null),
    ];
    let of_others: [(&str, Change); 4] = [
        ("hidden_act", |config| config["vision_config"]["hidden_act"] = "silu".into()),
        ("attention_bias", |config| config["text_config"]["attention_bias"] = true.into()),
        ("deepstack_visual_indexes", |config| config["vision_config"]["deepstack_visual_indexes"] = json!([2, 1])),
        ("image_token_id", |config| config["image_token_id"] = Value::Null),
    ];
    let refusals: [(&str, Change); 5] = [
        ("hidden_act", |config| config["text_config"]["hidden_act"] = "gelu".into()),
        ("mrope_section", |config| replace(config, "mrope_section", &json!([8, 8]))),
        ("axes.sections", |config| replace(config, "mrope_section", &json!([6, 5, 4]))),
        ("rope_type", |config| replace(&mut config["text_config"], "rope_type", &json!("yarn"))),
        ("out_hidden_size", |config| config["vision_config"]["out_hidden_size"] = 32.into()),
    ];
    for checkpoint in checkpoints() {
        let own = if checkpoint.name == THINKER { &of_thinker[..] } else { &of_others };
        for (field, change) in refusals.iter().chain(own).copied() {
            let copy = changed(&checkpoint, |folder| edit(folder, change));
            let error = converted(&copy).expect_err(field).to_string();
            assert!(error.contains(field), "{}: {field}: {error}", checkpoint.name);
        }
    }
}
