//! Which tasks a record holds, under which names, with which templates, prompts, dimensions and preprocessing.

use omniburn_convert::{ConvertError, ConvertOptions, GivenAdapter, TaskChoice};
use omniburn_models::record::{Dtype, Modality, TemplateKind};
use serde_json::json;

use crate::support::*;

fn named(task: &str) -> TaskChoice {
    TaskChoice::Named(task.into())
}

#[test]
fn the_default_task_is_retrieval_where_there_is_one_else_the_first() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let (report, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    assert_eq!((report.tasks, report.default_task.as_str()), (vec!["retrieval".to_string()], "retrieval"));
    assert!(record.folder.header().files.contains_key("text.retrieval.bpk"));

    let mut checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    checkpoint.adapters.remove("retrieval");
    let (report, _) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    assert_eq!(report.tasks, ["text-matching"]);
    assert!(report.notes.iter().any(|n| n.contains("`retrieval`, for which there is no adapter")), "{report}");
}

#[test]
fn all_tasks_share_towers_and_tokens_and_stand_in_the_order_of_the_configuration() {
    let mut checkpoint = Checkpoint::tiny(false, Layout::Tasks, Dtype::F32);
    checkpoint.config["task_names"] = json!(["clustering", "retrieval"]);
    let (report, record) = checkpoint.convert(TaskChoice::All, Dtype::F32);
    assert_eq!(report.tasks, ["clustering", "retrieval", "classification", "text-matching"]);
    assert_eq!(report.default_task, "retrieval");
    assert_eq!(record.folder.header().files.len(), 2 + 4 + 1);
    assert_eq!(report.lora.len(), 4);
}

#[test]
fn one_task_of_many_leaves_the_others_aside_by_name() {
    let checkpoint = Checkpoint::tiny(false, Layout::Tasks, Dtype::F32);
    let (report, _) = checkpoint.convert(named("text-matching"), Dtype::F32);
    let of = |task: &str| report.dropped.iter().filter(|d| d.reason.contains(&format!("`{task}`"))).count();
    assert_eq!([of("retrieval"), of("clustering"), of("classification"), of("text-matching")], [9, 9, 9, 0]);
    assert!(report.dropped.iter().all(|d| !d.name.contains("text_matching")));
}

#[test]
fn an_unknown_task_is_a_usage_error_that_lists_the_known_ones() {
    for layout in [Layout::Mlx, Layout::Tasks] {
        let error = Checkpoint::tiny(true, layout, Dtype::F32).refused_with(|o| o.tasks = named("poetry"));
        assert_eq!(error.exit_code(), 2);
        let ConvertError::UnknownTask { asked, known } = error else { panic!("{error}") };
        assert_eq!((asked.as_str(), known), ("poetry", TASKS.map(String::from).to_vec()));
    }
    let error = Checkpoint::tiny(true, Layout::Merged, Dtype::F32).refused_with(|o| o.tasks = named("retrieval"));
    assert!(matches!(error, ConvertError::UnknownTask { known, .. } if known == ["clustering"]));
}

#[test]
fn no_task_gives_the_base_weights_and_says_whose_connectors_they_come_with() {
    for layout in [Layout::Mlx, Layout::Tasks] {
        let checkpoint = Checkpoint::tiny(true, layout, Dtype::F32);
        let (report, record) = checkpoint.convert(TaskChoice::None, Dtype::F32);
        assert_eq!((report.tasks, report.merged, report.lora.len()), (vec!["base".to_string()], 0, 0));
        let key = (layout == Layout::Tasks).then_some("retrieval");
        assert_part(&record, "text.base.bpk", &expected_text(&checkpoint, key, None, false));
        assert!(record.folder.header().special_token_ids.is_empty());
        assert!(report.notes.iter().any(|n| n.contains("base weights")), "{:?}", report.notes);
        if layout == Layout::Tasks {
            assert!(report.notes.iter().any(|n| n.contains("those of task `retrieval`")), "{:?}", report.notes);
            let rows = report.dropped.iter().find(|d| d.name == "task_token_embeddings.retrieval").unwrap();
            assert!(rows.reason.contains("base rows are kept"));
        }
    }
}

#[test]
fn without_an_adapters_folder_the_default_is_the_base_weights_and_a_named_task_is_refused() {
    for layout in [Layout::Mlx, Layout::Tasks] {
        let mut checkpoint = Checkpoint::tiny(true, layout, Dtype::F32);
        checkpoint.adapters.clear();
        let error = checkpoint.refused_with(|o| o.tasks = named("retrieval"));
        match layout {
            Layout::Tasks => assert!(matches!(error, ConvertError::AdapterMissing { task, .. } if task == "retrieval")),
            _ => assert!(matches!(error, ConvertError::UnknownTask { known, .. } if known == ["base"])),
        }
        let (report, _) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
        assert_eq!(report.tasks, ["base"]);
        assert!(report.notes.iter().any(|n| n.contains("no adapters folder")), "{:?}", report.notes);
    }
}

#[test]
fn a_task_with_connectors_and_no_adapter_is_refused_among_others_that_have_one() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    checkpoint.adapters.remove("clustering");
    for tasks in [TaskChoice::All, named("clustering")] {
        let error = checkpoint.refused_with(|o| o.tasks = tasks.clone());
        assert_eq!(error.exit_code(), 3);
        let ConvertError::AdapterMissing { task, path } = error else { panic!("{error}") };
        assert!(task == "clustering" && path.ends_with("adapters/clustering"));
    }
}

#[test]
fn an_adapter_given_by_hand_is_merged_into_the_one_task_chosen() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Tasks, Dtype::F32);
    let lora = checkpoint.adapters["clustering"].clone();
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("mine");
    lora.write(&folder);
    checkpoint.adapters.clear();
    let set = |choice: TaskChoice| {
        let folder = folder.clone();
        move |o: &mut ConvertOptions| {
            (o.tasks, o.adapters, o.force) = (choice.clone(), vec![GivenAdapter::new(&folder)], true);
        }
    };
    let report = checkpoint.convert_with(set(named("classification"))).unwrap();
    assert_eq!(report.tasks, ["classification"]);
    let record = Record::open(&checkpoint.out());
    let expected = expected_text(&checkpoint, Some("classification"), Some((&lora, 0.5)), true);
    assert_part(&record, "text.classification.bpk", &expected);
    let files: Vec<&str> = record.folder.header().sources.iter().map(|s| s.file.as_str()).collect();
    assert!(files.contains(&"mine/adapter_model.safetensors"), "{files:?}");
    // Its folder's name is no task of the checkpoint, so the default task is meant.
    assert_eq!(checkpoint.convert_with(set(TaskChoice::Default)).unwrap().tasks, ["retrieval"]);
    std::fs::remove_dir_all(checkpoint.out()).unwrap();
    for choice in [TaskChoice::All, TaskChoice::None] {
        let error = checkpoint.refused_with(set(choice));
        assert!(matches!(error, ConvertError::AdapterChoice { .. }) && error.exit_code() == 2);
    }
}

#[test]
fn the_task_of_a_merged_checkpoint_comes_from_its_configuration_then_its_name_then_the_caller() {
    let mut checkpoint = Checkpoint::tiny(false, Layout::Merged, Dtype::F32);
    assert_eq!(checkpoint.convert(TaskChoice::Default, Dtype::F32).0.tasks, ["clustering"]);

    checkpoint.config["task_names"] = json!(TASKS);
    let force = |choice: TaskChoice| move |o: &mut ConvertOptions| (o.tasks, o.force) = (choice.clone(), true);
    let report = checkpoint.convert_with(force(TaskChoice::Default)).unwrap();
    assert_eq!(report.tasks, ["base"]);
    let report = checkpoint.convert_with(force(named("retrieval"))).unwrap();
    assert_eq!(report.tasks, ["retrieval"]);
    assert!(report.notes.iter().any(|n| n.contains("as asked")), "{:?}", report.notes);

    let renamed = checkpoint.root.path().join("jina-embeddings-v5-omni-nano-text-matching");
    std::fs::rename(checkpoint.folder(), &renamed).unwrap();
    let mut options = checkpoint.options();
    (options.source, options.force) = (renamed, true);
    assert_eq!(omniburn_convert::convert(&options).unwrap().tasks, ["text-matching"]);
}

#[test]
fn adapters_beside_merged_weights_are_refused_until_the_caller_decides() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Merged, Dtype::F32);
    checkpoint.adapters = adapters(&checkpoint.dims);
    let error = checkpoint.refused();
    let ConvertError::AdaptersBesideMerged { tasks, .. } = error else { panic!("{error}") };
    assert_eq!(tasks, ["classification", "clustering", "retrieval", "text-matching"]);
    let (report, _) = checkpoint.convert(TaskChoice::None, Dtype::F32);
    assert_eq!((report.tasks, report.merged), (vec!["base".to_string()], 0));
}

#[test]
fn templates_follow_the_ids_the_direction_and_the_caller() {
    let kinds = |report: omniburn_convert::ConvertReport| -> Vec<&str> {
        report.templates.values().map(|t| t.name()).collect()
    };
    let small = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let (report, record) = small.convert(TaskChoice::Default, Dtype::F32);
    assert_eq!(kinds(report), ["wrapped", "wrapped", "wrapped"]);
    let header = record.folder.header();
    let ids = |modality| (header.templates[&modality].start, header.templates[&modality].end);
    assert_eq!(ids(Modality::Image), (Some(20), Some(21)));
    assert_eq!(ids(Modality::Video), ids(Modality::Image));
    assert_eq!(ids(Modality::Audio), (Some(21), Some(23)));
    let nano = Checkpoint::tiny(false, Layout::Mlx, Dtype::F32);
    let (report, record) = nano.convert(TaskChoice::Default, Dtype::F32);
    assert_eq!(kinds(report), ["bare", "noeos", "bare"]);
    assert_eq!(record.folder.header().templates[&Modality::Image].start, None);
    let report = nano.convert_with(|o| {
        o.force = true;
        o.templates.insert(Modality::Audio, TemplateKind::Wrapped);
    });
    assert_eq!(kinds(report.unwrap()), ["bare", "wrapped", "bare"]);
}

#[test]
fn a_template_without_its_ids_or_its_tower_is_a_usage_error() {
    let nano = Checkpoint::tiny(false, Layout::Mlx, Dtype::F32);
    let error = nano.refused_with(|o| {
        o.templates.insert(Modality::Video, TemplateKind::Wrapped);
    });
    assert_eq!(error.exit_code(), 2);
    let ConvertError::TemplateIds { modality, missing, .. } = error else { panic!("{error}") };
    assert_eq!((modality, missing.join(" ")), (Modality::Video, "vision_start_token_id vision_end_token_id".into()));
    let error = nano.refused_with(|o| {
        o.templates.insert(Modality::Text, TemplateKind::Bare);
    });
    assert!(matches!(error, ConvertError::TemplateModality { modality: Modality::Text, .. }) && error.exit_code() == 2);

    // As a default it is the checkpoint that lacks something, and `bare` helps.
    let mut nano = Checkpoint::tiny(false, Layout::Mlx, Dtype::F32);
    nano.config.as_object_mut().unwrap().remove("audio_end_token_id");
    let error = nano.refused();
    assert_eq!(error.exit_code(), 3);
    assert!(matches!(error, ConvertError::TemplateIds { missing, .. } if missing == ["audio_end_token_id"]));
    let report = nano
        .convert_with(|o| {
            o.templates.insert(Modality::Audio, TemplateKind::Bare);
        })
        .unwrap();
    assert_eq!(report.templates[&Modality::Audio], TemplateKind::Bare);
}

#[test]
fn prompts_of_the_checkpoint_win_over_the_card() {
    let checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    let prompts = json!({"prompts": {"query": "ask: ", "passage": ""}});
    write_json(&checkpoint.folder().join("config_sentence_transformers.json"), &prompts);
    let (_, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    let header = record.folder.header();
    assert_eq!((header.prompts.query.as_str(), header.prompts.document.as_str()), ("ask: ", ""));
    assert!(header.sources.iter().any(|s| s.file == "config_sentence_transformers.json"));
}

#[test]
fn preprocessing_comes_from_the_files_else_from_the_card() {
    for small in [true, false] {
        let checkpoint = Checkpoint::tiny(small, Layout::Mlx, Dtype::F32);
        let (_, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
        let p = record.folder.header().preprocess.clone();
        let (image, video, audio) = (p.image.unwrap(), p.video.unwrap(), p.audio.unwrap());
        assert_eq!((image.min_pixels, image.max_pixels, image.patch_px, image.merge), (262_144, 1_310_720, 16, 2));
        assert_eq!(video.max_pixels, if small { 12_845_056 } else { 1_310_720 });
        assert_eq!((image.mean, image.std, image.rescale), ([0.5; 3], [0.5; 3], 1.0 / 255.0));
        assert_eq!((audio.sample_rate_hz, audio.fft_samples, audio.hop_samples, audio.mels), (16000, 400, 160, 5));
        assert_eq!(p.video_frames, Some(32));
    }
    let checkpoint = Checkpoint::tiny(false, Layout::Mlx, Dtype::F32);
    let image = json!({
        "patch_size": 16, "merge_size": 2, "temporal_patch_size": 2, "resample": 3, "min_pixels": 1000,
        "max_pixels": 2000, "size": {"shortest_edge": 1000, "longest_edge": 3000}, "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6], "rescale_factor": 0.5, "sampling_rate": 8000, "feature_size": 5, "n_fft": 200,
        "hop_length": 80, "do_resize": true,
    });
    write_json(&checkpoint.folder().join("preprocessor_config.json"), &image);
    let video = json!({"size": {"shortest_edge": 10, "longest_edge": 20}});
    write_json(&checkpoint.folder().join("video_preprocessor_config.json"), &video);
    let (report, record) = checkpoint.convert(TaskChoice::Default, Dtype::F32);
    let p = record.folder.header().preprocess.clone();
    let (image, video, audio) = (p.image.unwrap(), p.video.unwrap(), p.audio.unwrap());
    assert_eq!((image.min_pixels, image.max_pixels, image.rescale), (1000, 2000, 0.5));
    assert_eq!((image.mean, image.std), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]));
    assert_eq!((video.min_pixels, video.max_pixels, video.mean), (10, 20, [0.1, 0.2, 0.3]));
    assert_eq!((audio.sample_rate_hz, audio.fft_samples, audio.hop_samples), (8000, 200, 80));
    assert!(report.notes.iter().any(|n| n.contains("max_pixels 2000 is taken")), "{:?}", report.notes);
}

#[test]
fn dimensions_are_the_checkpoint_s_own_sorted_with_the_full_width() {
    let mut checkpoint = Checkpoint::tiny(true, Layout::Mlx, Dtype::F32);
    checkpoint.config["matryoshka_dimensions"] = json!([8, 2, 8]);
    assert_eq!(checkpoint.convert(TaskChoice::Default, Dtype::F32).0.dims, [2, 8, 16]);
    checkpoint.config.as_object_mut().unwrap().remove("matryoshka_dimensions");
    // None of the card's dimensions is as small as this model.
    let report = checkpoint.convert_with(|o| o.force = true).unwrap();
    assert_eq!(report.dims, [16]);
}
