//! Embedders made of the Thinker of Qwen2.5-Omni: the prompts that files of such checkpoints say, the poolings and the direction of
//! attention, and the layouts that they are published in. Their default prompt is compared in `items.rs`.

use std::path::{Path, PathBuf};

use omniburn::{Dtype, Engine, Input, Modality, Request, Role, Truncation};
use omniburn_convert::{ConvertError, ConvertOptions, ConvertReport, TaskChoice, convert};
use serde_json::{Value, json};

use crate::support::*;

const NAME: &str = "qwen25-omni-tiny";
/// The text behind every item of the manifest but those of the style `e5`.
const ASKED: &str = "\nSummarize the above {} in one word:";

/// This checkpoint of every set.
fn checkpoints() -> Vec<Checkpoint> {
    let there = |set: &&Set| set.refs.join(format!("{NAME}.json")).is_file();
    let found: Vec<Checkpoint> = sets().iter().filter(there).map(|set| set.checkpoint(NAME)).collect();
    assert!(!found.is_empty());
    found
}

/// A changed copy of the checkpoint.
fn changed(checkpoint: &Checkpoint, change: impl FnOnce(&Path)) -> PathBuf {
    let copy = scratch().join(format!("thinker-{}", next()));
    copy_folder(&checkpoint.folder, &copy);
    join_shards(&copy);
    change(&copy);
    copy
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

fn converted(folder: &Path) -> Result<(PathBuf, ConvertReport), ConvertError> {
    let out = scratch().join(format!("thinker-record-{}", next()));
    let report = convert(&ConvertOptions { dtype: Dtype::F32, ..ConvertOptions::new(folder, &out) })?;
    Ok((out, report))
}

fn engine_of(folder: &Path) -> Engine {
    builder(converted(folder).unwrap_or_else(|e| panic!("{e}")).0).open().unwrap()
}

fn said(folder: &Path) -> String {
    converted(folder).unwrap().1.notes.join("\n")
}

/// Prompts by role, as sentence-transformers writes them.
fn prompts(folder: &Path, query: &str, document: &str) {
    edit(&folder.join("config_sentence_transformers.json"), |file| {
        file["prompts"] = json!({"query": query, "document": document});
    });
}

/// Lets the tokenizer put the end behind every text.
fn end_texts(folder: &Path) {
    edit(&folder.join("tokenizer.json"), |file| {
        let end = file["added_tokens"].as_array().unwrap().iter().find(|added| added["content"] == "<|endoftext|>");
        let id = end.unwrap()["id"].clone();
        let ends = json!({
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [id], "tokens": ["<|endoftext|>"]}},
        });
        let own = file["post_processor"].take();
        file["post_processor"] = json!({"type": "Sequence", "processors": [own, ends]});
    });
}

fn pooling(folder: &Path, field: &str) {
    std::fs::write(folder.join("1_Pooling/config.json"), json!({field: true}).to_string()).unwrap();
}

/// An item of the manifest that is a text or one medium.
fn item(checkpoint: &Checkpoint, case: &Value) -> Option<Input> {
    Some(match str_of(&case["kind"]) {
        "text" => Input::text(str_of(&case["text"])),
        "image" => checkpoint.image(case),
        "video" => case["fps"].as_f64().into_iter().fold(checkpoint.clip(case), Input::frame_rate),
        "audio" => match case["files"].as_array().unwrap().as_slice() {
            [file] => Input::audio_file(checkpoint.media.join(str_of(file))),
            _ => return None,
        },
        "mixed" if case["name"] == "audio+image+text" => Input::parts([
            checkpoint.audio("second"),
            checkpoint.image_named("odd"),
            Input::text(checkpoint.text_named("plain")),
        ]),
        _ => return None,
    })
}

fn compared(engine: &Engine, checkpoint: &Checkpoint, what: &str, cases: &[(Input, Role, &Value, &str)]) {
    let mut worst = Worst::default();
    for (input, role, case, tensor) in cases {
        let name = format!("{what} {} {}", case["kind"], case["name"]);
        let got = engine.embed_with(std::slice::from_ref(input), &Request::new(*role)).unwrap().swap_remove(0);
        let got = got.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(got.tokens, ids_of(&case["input_ids"]).len(), "{name}");
        worst.see(compare(
            &name,
            got.embedding.as_slice(),
            &checkpoint.tensor(str_of(&case[*tensor])),
            embedding_bound(),
        ));
    }
    worst.report(what);
}

/// e5-omni and OmniEmbed: a prompt in front of queries, no question, `<|endoftext|>` behind everything; whether the files say it by
/// prompts, by a tokenizer that ends every text, or by a chat template.
#[test]
fn prompts_without_a_question_end_in_the_token_that_is_pooled() {
    for checkpoint in checkpoints() {
        let by_prompts = changed(&checkpoint, |folder| prompts(folder, "Query: ", ""));
        let by_tokenizer = changed(&checkpoint, |folder| {
            prompts(folder, "Query: ", "");
            end_texts(folder);
        });
        let by_template = changed(&checkpoint, |folder| {
            prompts(folder, "Query: ", "");
            std::fs::write(folder.join("chat_template.jinja"), "{{ messages }}assistant\n<|endoftext|>").unwrap();
        });
        let cases: Vec<(Input, Role, &Value, &str)> = checkpoint
            .cases
            .iter()
            .filter(|case| case["style"] == "e5")
            .map(|case| {
                let role = if str_of(&case["name"]).ends_with("query") { Role::Query } else { Role::Document };
                let input = match str_of(&case["kind"]) {
                    "text" => Input::text(str_of(&case["text"])),
                    _ => checkpoint.image_named("odd"),
                };
                (input, role, case, "embedding")
            })
            .collect();
        assert!(cases.len() > 6, "{}", cases.len());
        for (what, folder) in [("prompts", by_prompts), ("tokenizer", by_tokenizer), ("template", by_template)] {
            compared(&engine_of(&folder), &checkpoint, what, &cases);
            let said = said(&folder);
            assert!(said.contains("asks for nothing"), "{said}");
        }
        let said = said(&checkpoint.folder);
        assert!(said.contains("asks for a summary in one word behind the parts"), "{said}");
        // A template that asks wins over prompts.
        let asks = changed(&checkpoint, |folder| {
            prompts(folder, "", "");
            let text = "{{ messages }}\nSummarize the above text in one word:";
            edit(&folder.join("tokenizer_config.json"), |file| {
                file["chat_template"] = json!([{"name": "sentence_transformers", "template": text}]);
            });
        });
        let plain = checkpoint.cases("text").find(|case| case["name"] == "plain").unwrap();
        let input = item(&checkpoint, plain).unwrap();
        compared(&engine_of(&asks), &checkpoint, "a template that asks", &[(input, Role::None, plain, "embedding")]);
    }
}

/// The mean of all rows, and the same with rows that see later ones, as Omni-Embed-Nemotron means it.
#[test]
fn means_of_rows_in_one_direction_and_in_both_equal_the_reference() {
    for checkpoint in checkpoints() {
        let mean = changed(&checkpoint, |folder| pooling(folder, "pooling_mode_mean_tokens"));
        let asked = |case: &&Value| case["style"] == "lco";
        let of = |case| Some((item(&checkpoint, case)?, Role::None, case, "embedding_mean"));
        let cases: Vec<_> = checkpoint.cases.iter().filter(asked).filter_map(of).collect();
        assert!(cases.len() > 30, "{}", cases.len());
        compared(&engine_of(&mean), &checkpoint, "means", &cases);

        let nemotron = changed(&checkpoint, |folder| {
            pooling(folder, "pooling_mode_mean_tokens");
            edit(&folder.join("config.json"), |config| config["model_type"] = "nvomniembed".into());
        });
        // It asks no question by itself: the manifest's stands behind as one more text.
        let with_question = |case: &'_ Value| {
            let own = item(&checkpoint, case)?;
            let kind = match str_of(&case["kind"]) {
                "mixed" => "audio",
                kind => kind,
            };
            Some(Input::parts([own, Input::text(ASKED.replace("{}", kind))]))
        };
        let both = |case: &&Value| case["embedding_bidirectional_mean"].is_string();
        let of = |case| Some((with_question(case)?, Role::None, case, "embedding_bidirectional_mean"));
        let cases: Vec<_> = checkpoint.cases.iter().filter(both).filter_map(of).collect();
        assert!(cases.len() > 15, "{}", cases.len());
        compared(&engine_of(&nemotron), &checkpoint, "means in both directions", &cases);
        // The direction is a switch of the configuration.
        let causal = changed(&checkpoint, |folder| {
            pooling(folder, "pooling_mode_mean_tokens");
            edit(&folder.join("config.json"), |config| {
                config["model_type"] = "nvomniembed".into();
                config["text_config"]["is_causal"] = true.into();
            });
        });
        let of = |case: &&Value| case["kind"] == "text" && case["style"] == "lco";
        let case = checkpoint.cases.iter().find(of).unwrap();
        let case = [(with_question(case).unwrap(), Role::None, case, "embedding_mean")];
        compared(&engine_of(&causal), &checkpoint, "means in one direction", &case);
        let last = changed(&checkpoint, |folder| {
            edit(&folder.join("config.json"), |config| config["model_type"] = "nvomniembed".into());
        });
        let error = converted(&last).unwrap_err().to_string();
        assert!(error.contains("model_type") && error.contains("another pooling"), "{error}");
    }
}

#[test]
fn a_whole_qwen_omni_is_read_as_its_thinker_and_the_rest_is_left_aside_with_the_reason() {
    let checkpoint = golden().checkpoint(NAME);
    let whole = changed(&checkpoint, |folder| {
        edit(&folder.join("config.json"), |config| {
            let thinker = config.take();
            *config =
                json!({"model_type": "qwen2_5_omni", "architectures": ["Qwen2_5OmniModel"], "thinker_config": thinker});
        });
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (_, some) = file.tensors().into_iter().next().unwrap();
        let talks = ["talker.model.norm.weight", "token2wav.code2wav_dit_model.proj_out.weight"];
        let named = file.tensors().into_iter().map(|(name, view)| (format!("thinker.{name}"), view));
        let talks = talks.iter().map(|name| (name.to_string(), some.clone()));
        let out = safetensors::serialize(named.chain(talks), None).unwrap();
        std::fs::write(&path, out).unwrap();
        // Without a list of modules it is pooled as the family is, and nobody is asked whether it scores pairs.
        for file in ["modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"] {
            std::fs::remove_file(folder.join(file)).unwrap();
        }
    });
    let own = record(&checkpoint.folder, Dtype::F32, TaskChoice::Default);
    let (out, report) = converted(&whole).unwrap();
    for entry in std::fs::read_dir(&own).unwrap().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "bpk") {
            let same = std::fs::read(entry.path()).unwrap() == std::fs::read(out.join(entry.file_name())).unwrap();
            assert!(same, "{}", entry.path().display());
        }
    }
    let reason = |part: &str| {
        let dropped = report.dropped.iter().find(|dropped| dropped.name.contains(part));
        dropped.unwrap_or_else(|| panic!("{part} is not among those left aside")).reason.clone()
    };
    assert!(reason("talker.").contains("Talker"));
    assert!(reason("token2wav.").contains("sound"));
    assert!(reason("lm_head").contains("head"));
    assert!(reason("audio_bos_eos_token").contains("ends of audio"));
    assert_eq!(report.dropped.len(), 4);
    let [one, other] = [&own, &out].map(|record| builder(record.clone()).open().unwrap());
    let ask = |engine: &Engine| engine.embed_one(checkpoint.image_named("odd"), Role::None).unwrap();
    assert_eq!(ask(&one), ask(&other));
}

/// A text that is cut keeps the question and the row that is pooled.
#[test]
fn a_text_that_is_cut_keeps_what_stands_behind_it() {
    let checkpoint = golden().checkpoint(NAME);
    let short = changed(&checkpoint, |folder| {
        edit(&folder.join("tokenizer_config.json"), |file| file["model_max_length"] = 120.into());
    });
    let engine = engine_of(&short);
    let request = Request::new(Role::None).truncation(Truncation::Right);
    let cut = |text: &str| engine.embed_with(&[Input::text(text)], &request).unwrap().swap_remove(0).unwrap();
    let (one, other) = (cut(&"word ".repeat(200)), cut(&format!("{}an end", "word ".repeat(190))));
    assert!(one.truncated && one.tokens == 120, "{}", one.tokens);
    assert_eq!(one.embedding, other.embedding, "both are cut to the same words and the same question");
    let whole = cut("word");
    assert!(!whole.truncated && whole.tokens < 120);
}

#[test]
fn an_instruction_takes_the_place_of_the_question() {
    let checkpoint = golden().checkpoint(NAME);
    let engine = builder(record(&checkpoint.folder, Dtype::F32, TaskChoice::Default)).open().unwrap();
    let ask = |request: &Request| {
        let found = engine.embed_with(&[checkpoint.audio("second")], request).unwrap().swap_remove(0).unwrap();
        assert_eq!(found.modality, Modality::Audio);
        found
    };
    let plain = ask(&Request::new(Role::None));
    let same = ask(&Request::new(Role::None).instruction("Summarize the above audio in one word:"));
    assert_eq!((plain.embedding.clone(), plain.tokens), (same.embedding, same.tokens));
    let none = ask(&Request::new(Role::None).instruction(""));
    assert!(none.tokens < plain.tokens && none.embedding != plain.embedding);
}

/// The published processor puts the audio of a video between its frames only where it is told to, and so no checkpoint may tell us.
#[test]
fn audio_between_the_frames_of_a_video_is_refused_by_the_field_that_asks_for_it() {
    let checkpoint = golden().checkpoint(NAME);
    let refusal = |change: &dyn Fn(&Path)| {
        let error = converted(&changed(&checkpoint, change)).unwrap_err().to_string();
        assert!(error.contains("use_audio_in_video") && error.contains("false"), "{error}");
        error
    };
    let write = |folder: &Path, file: &str, value: Value| std::fs::write(folder.join(file), value.to_string()).unwrap();
    let config = refusal(&|folder: &Path| {
        edit(&folder.join("config.json"), |config| config["use_audio_in_video"] = true.into());
    });
    assert!(config.contains("config.json"), "{config}");
    let flat = refusal(&|folder: &Path| {
        edit(&folder.join("preprocessor_config.json"), |file| file["use_audio_in_video"] = true.into());
    });
    assert!(flat.contains("preprocessor_config.json") && flat.contains("another part"), "{flat}");
    let nested = refusal(&|folder: &Path| {
        write(folder, "processor_config.json", json!({"videos_kwargs": {"use_audio_in_video": true}}));
    });
    assert!(nested.contains("videos_kwargs.use_audio_in_video"), "{nested}");
    refusal(&|folder: &Path| {
        write(folder, "video_preprocessor_config.json", json!({"videos": {"use_audio_in_video": "yes"}}));
    });
    let unknown = changed(&checkpoint, |folder| {
        write(folder, "sentence_bert_config.json", json!({"processing_kwargs": {"use_audio_in_video": true}}));
    });
    let error = converted(&unknown).unwrap_err().to_string();
    assert!(error.contains("processing_kwargs.use_audio_in_video"), "{error}");
    let off = changed(&checkpoint, |folder| {
        write(folder, "processor_config.json", json!({"videos_kwargs": {"use_audio_in_video": false}}));
    });
    converted(&off).unwrap();
}
