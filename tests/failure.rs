//! Bad input: a typed error that names the thing, and nothing else lost.

use std::fs;
use std::path::{Path, PathBuf};

use omniburn::{Cancel, Dtype, Engine, EngineError, Input, Priority, Request, Role, Truncation};
use omniburn_models::RecordError;
use omniburn_models::record::RecordFolder;

use crate::support::*;

fn kind(engine: &Engine, input: Input) -> (String, String) {
    let error = engine.embed_with(&[input], &Request::new(Role::Document)).unwrap().swap_remove(0).unwrap_err();
    (error.kind().name().to_string(), error.to_string())
}

#[test]
fn each_bad_input_has_its_kind_and_is_named() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let folder = scratch().join("bad-inputs");
    fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let png = fs::read(checkpoint.media.join("images/odd.png")).unwrap();
    let mut lying = png.clone();
    lying[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]); // 60000 x 60000
    let heic = [&[0, 0, 0, 24][..], b"ftypheic", &[0; 40]].concat();
    let cases = [
        (Input::image_file(folder.join("none.png")), "not_found", "none.png"),
        (Input::image_file(&folder), "not_a_file", "bad-inputs"),
        (Input::image_file(file("empty.png", b"")), "empty", "empty.png"),
        (Input::image_file(file("cut.png", &png[..png.len() / 2])), "corrupt", "cut.png"),
        (Input::image_file(file("text.png", b"not a picture at all")), "unknown_format", "text.png"),
        (Input::image_file(file("photo.heic", &heic)), "unsupported_codec", "photo.heic"),
        (Input::image_bytes(heic.clone()), "unsupported_codec", "heic"),
        (Input::text("word ".repeat(5000)), "too_long", "4096"),
        (Input::audio_file(folder.join("none.wav")), "not_found", "none.wav"),
        (Input::video_frames(Vec::new()), "empty", ""),
    ];
    for (input, want, named) in cases {
        let shown = format!("{input:?}");
        let (kind, message) = kind(&engine, input);
        assert_eq!(kind, want, "{shown}: {message}");
        assert!(message.contains(named), "{shown}: {message} does not name {named}");
    }
    // The lying header's own checksum is wrong, so build one that is right.
    let started = std::time::Instant::now();
    let (kind, message) = kind(&engine, Input::image_bytes(huge_png()));
    assert_eq!(kind, "too_large", "{message}");
    assert!(message.contains("60000"), "{message}");
    assert!(started.elapsed().as_secs() < 2);
}

/// A PNG header of 60000 x 60000 with nothing behind it.
fn huge_png() -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend([0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60, 8, 2, 0, 0, 0]);
    let mut crc = !0u32;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    [b"\x89PNG\r\n\x1a\n".as_slice(), &13u32.to_be_bytes(), &chunk, &(!crc).to_be_bytes()].concat()
}

/// A WAV of one channel with any numbers in its header.
fn wav(channels: u16, rate: u32, stated: u32, samples: &[f32]) -> Vec<u8> {
    let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x03\0".to_vec();
    out.extend(channels.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend((rate * 4 * u32::from(channels)).to_le_bytes());
    out.extend((4 * channels).to_le_bytes());
    out.extend(b"\x20\0data");
    out.extend(stated.to_le_bytes());
    out.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    out
}

/// `bytes` with others in place of those behind the last `mark`.
fn altered(mut bytes: Vec<u8>, mark: &[u8], behind: usize, by: &[u8]) -> Vec<u8> {
    let at = bytes.windows(mark.len()).rposition(|window| window == mark).unwrap() + mark.len() + behind;
    bytes[at..at + by.len()].copy_from_slice(by);
    bytes
}

/// `bytes` with the last `name` of a box or codec replaced.
fn renamed(mut bytes: Vec<u8>, name: &[u8; 4], by: &[u8; 4]) -> Vec<u8> {
    let at = bytes.windows(4).rposition(|window| window == name).unwrap();
    bytes[at..at + 4].copy_from_slice(by);
    bytes
}

/// A GIF of a few bytes whose header claims 65,535 x 65,535 pixels.
fn gif_bomb() -> Vec<u8> {
    let mut gif = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    for _ in 0..3 {
        gif.extend(b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0");
    }
    gif.push(b';');
    gif
}

#[test]
fn audio_and_video_that_cannot_be_read_are_named_in_little_time_and_cost_nothing_else() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    // With an FFmpeg program some codecs could be read.
    let engine = builder(checkpoint.record(Dtype::F32)).ffmpeg(None).open().unwrap();
    let media = workspace().join("tests/golden/media");
    let read = |name: &str| fs::read(media.join(name)).unwrap();
    let (mp4, mkv, m4a) = (read("videos/high.mp4"), read("videos/sound.mkv"), read("audio/files/stereo.m4a"));
    let silence = vec![0.0f32; 8000];
    let at = |value: f32| {
        let mut samples = silence.clone();
        samples[4000] = value;
        samples
    };
    let audio = |bytes: Vec<u8>| Input::audio_bytes(bytes);
    let video = |bytes: Vec<u8>| Input::video_bytes(bytes);
    let cases = [
        // Cut.
        (audio(m4a[..m4a.len() / 2].to_vec()), "corrupt", ""),
        (audio(wav(1, 16000, 32000, &silence[..4000])), "corrupt", "16000 bytes"),
        (video(mp4[..mp4.len() / 2].to_vec()), "corrupt", ""),
        (video(mkv[..mkv.len() / 2].to_vec()), "corrupt", ""),
        (video(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom".to_vec()), "corrupt", "moov"),
        // Lying.
        (audio(mp4.clone()), "empty", "audio track"),
        (video(m4a.clone()), "empty", "video track"),
        (audio(b"RIFF of a letter".to_vec()), "unknown_format", "text"),
        (video(read("audio/files/stereo.mp3")), "unknown_format", "mp3"),
        (video(altered(mp4.clone(), b"stsz", 8, &[0xff; 4])), "corrupt", "4294967295"),
        // Empty.
        (audio(Vec::new()), "empty", ""),
        (video(Vec::new()), "empty", ""),
        (audio(wav(1, 16000, 0, &[])), "empty", ""),
        (Input::audio_samples(Vec::new(), 16000), "empty", ""),
        // Encrypted.
        (audio(renamed(m4a.clone(), b"mp4a", b"enca")), "unsupported_codec", "encrypted"),
        (video(renamed(mp4.clone(), b"avc1", b"encv")), "unsupported_codec", "encrypted"),
        // Zero rate.
        (audio(wav(1, 0, 32000, &silence)), "corrupt", "zero"),
        (Input::audio_samples(silence.clone(), 0), "unsupported_codec", "0 Hz"),
        (video(altered(mp4.clone(), b"mdhd", 12, &[0; 4])), "corrupt", "zero"),
        // Samples that are no numbers.
        (audio(wav(1, 16000, 32000, &at(f32::NAN))), "not_finite", "0.250 s"),
        (audio(wav(1, 16000, 32000, &at(f32::INFINITY))), "not_finite", "0.250 s"),
        (Input::audio_samples(at(f32::NEG_INFINITY), 16000), "not_finite", "0.250 s"),
        // Hours claimed.
        // Not one of the sizes that pipes leave.
        (audio(wav(1, 16000, 0xF000_0000, &silence)), "corrupt", "4026531840"),
        // Images.
        (video(read("videos/two_sizes.mp4")), "unsupported_codec", "112 x 64"),
        (video(read("codecs/hevc.mp4")), "unsupported_codec", "HEVC"),
        (video(read("codecs/vp9.webm")), "unsupported_codec", "VP9"),
        (video(gif_bomb()), "too_large", "65535"),
        // Audio.
        (Input::audio_samples(vec![0.1; 160], 16000), "too_short", "mel frames"),
        (Input::audio_samples(vec![0.1; 320], 16000), "too_short", "mel frames"),
        (audio(wav(10_000, 16000, 32000, &silence)), "too_large", "10000"),
        (audio(read("audio/files/ac3.mp4")), "unsupported_codec", "AC-3"),
    ];
    let good =
        [Input::text("a red bicycle"), checkpoint.audio("mixed"), Input::video_file(media.join("videos/high.mp4"))];
    let request = Request::new(Role::Document).frames(4);
    let want: Vec<_> = engine.embed_with(&good, &request).unwrap().into_iter().map(|r| r.unwrap().embedding).collect();

    let mut together = Vec::new();
    for (place, (input, kind, named)) in cases.iter().enumerate() {
        let started = std::time::Instant::now();
        let error = engine.embed_with(std::slice::from_ref(input), &request).unwrap().swap_remove(0).unwrap_err();
        let message = error.to_string();
        println!("{message}");
        assert_eq!(error.kind().name(), *kind, "case {place}: {message}");
        assert!(message.contains(named), "case {place}: {message} does not name {named}");
        assert!(started.elapsed().as_secs() < 5, "case {place} took {:?}", started.elapsed());
        together.extend([input.clone(), good[place % good.len()].clone()]);
    }
    let results = engine.embed_with(&together, &request).unwrap();
    for (place, pair) in results.chunks(2).enumerate() {
        assert_eq!(pair[0].as_ref().unwrap_err().kind().name(), cases[place].1, "case {place} in a batch");
        assert_eq!(pair[1].as_ref().unwrap().embedding, want[place % good.len()], "beside case {place}");
    }
}

#[test]
fn a_good_item_beside_bad_ones_keeps_its_bits() {
    let checkpoint = golden().checkpoint("omni-nano-tiny");
    let engine = checkpoint.engine();
    let good = [Input::text("a red bicycle"), checkpoint.image_named("odd")];
    let want = engine.embed(&good, Role::Document).unwrap();
    let inputs = [
        Input::image_file("/none/at/all.png"),
        good[0].clone(),
        Input::text("word ".repeat(9000)),
        good[1].clone(),
        Input::image_bytes(vec![1, 2, 3]),
    ];
    let got = engine.embed_with(&inputs, &Request::new(Role::Document)).unwrap();
    assert_eq!(got.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true, false]);
    assert_eq!(got[1].as_ref().unwrap().embedding, want[0]);
    assert_eq!(got[3].as_ref().unwrap().embedding, want[1]);
    match engine.embed(&inputs, Role::Document) {
        Err(EngineError::Item { index: 0, source }) => assert_eq!(source.kind().name(), "not_found"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_too_long_is_refused_with_both_lengths_or_cut_and_said() {
    for name in ["omni-small-tiny", "omni-nano-tiny"] {
        let checkpoint = golden().checkpoint(name);
        let engine = checkpoint.engine();
        let limit = engine.profile().max_tokens;
        let long = format!("first {} last", "word ".repeat(limit));
        let embed = |truncation| {
            let request = Request::new(Role::Query).truncation(truncation);
            engine.embed_with(&[Input::text(&long)], &request).unwrap().swap_remove(0)
        };
        let refused = embed(Truncation::Error).unwrap_err().to_string();
        assert!(refused.contains(&limit.to_string()), "{refused}");
        let (right, left) = (embed(Truncation::Right).unwrap(), embed(Truncation::Left).unwrap());
        for cut in [&right, &left] {
            assert!(cut.truncated && cut.tokens <= limit && cut.tokens > limit / 2, "{name}: {}", cut.tokens);
        }
        assert_ne!(right.embedding, left.embedding);
    }
}

#[test]
fn unknown_tasks_dimensions_and_devices_are_refused_with_what_there_is() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let ask = |request: Request| engine.embed_with(&[Input::text("a")], &request).unwrap_err().to_string();
    let message = ask(Request::new(Role::Query).task("translation"));
    assert!(message.contains("translation") && message.contains("text-matching"), "{message}");
    let message = ask(Request::new(Role::Query).dim(12));
    assert!(message.contains("12") && message.contains("8, 16, 32, 64"), "{message}");
    let builder = || Engine::builder(checkpoint.record(Dtype::F32));
    assert!(matches!(builder().task("x").open(), Err(EngineError::UnknownTask { .. })));
    assert!(matches!("tpu".parse::<omniburn::BackendSpec>(), Err(EngineError::UnknownDevice { .. })));
    if !cfg!(feature = "cuda") {
        let error = builder().device("cuda".parse().unwrap()).open().unwrap_err();
        assert!(matches!(&error, EngineError::BackendMissing { .. }), "{error}");
    }
}

#[test]
fn a_budget_too_small_for_an_item_names_the_smallest_that_would_do() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let open = |bytes| Engine::builder(checkpoint.record(Dtype::F32)).budget(bytes).open().unwrap();
    for input in [Input::text("a red bicycle by the harbour"), checkpoint.image_named("big")] {
        let mut bytes = 1000;
        // The tower and the backbone each name what they need; two steps find the larger.
        for _ in 0..2 {
            let tight = open(bytes);
            let result = tight.embed_with(std::slice::from_ref(&input), &Request::default()).unwrap().swap_remove(0);
            let Err(error) = result else { break };
            assert_eq!(error.kind().name(), "over_budget");
            let omniburn::ItemError::OverBudget { needed, budget } = error else { panic!("{error}") };
            assert_eq!(budget, bytes);
            assert!(needed > budget);
            bytes = needed;
        }
        let enough = open(bytes).embed(std::slice::from_ref(&input), Role::Document).unwrap();
        assert_eq!(enough, checkpoint.engine().embed(std::slice::from_ref(&input), Role::Document).unwrap());
    }
}

#[test]
fn a_cancelled_call_says_so_and_the_engine_goes_on() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = checkpoint.engine();
    let cancel = Cancel::new();
    cancel.cancel();
    let request = Request::new(Role::Document).priority(Priority::Background).cancel(cancel);
    let result = engine.embed_with(&[Input::text("a"), checkpoint.image_named("odd")], &request).unwrap();
    for item in result {
        assert_eq!(item.unwrap_err().kind().name(), "cancelled");
    }
    engine.embed_one(Input::text("a"), Role::Query).unwrap();
}

#[test]
fn modalities_that_may_not_load_are_absent() {
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let engine = Engine::builder(checkpoint.record(Dtype::F32)).modalities([omniburn::Modality::Text]).open().unwrap();
    assert_eq!(kind(&engine, checkpoint.image_named("odd")).0, "modality_absent");
    engine.embed_one(Input::text("a"), Role::Query).unwrap();
}

fn copy(from: &Path, name: &str) -> PathBuf {
    let to = scratch().join(name);
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    to
}

#[test]
fn a_record_altered_by_one_byte_is_refused_by_name_wherever_the_byte_lies() {
    let record = golden().checkpoint("omni-small-tiny").record(Dtype::F32);
    let files: Vec<String> = open(&record).header().files.keys().cloned().collect();
    for file in files.iter().map(String::as_str).chain(["model.json"]) {
        let length = fs::metadata(record.join(file)).unwrap().len() as usize;
        // In the header, also in its name and in the program that wrote it.
        let text = fs::read(record.join(file)).unwrap();
        let find = |what: &[u8]| text.windows(what.len()).position(|w| w == what).map(|at| at + what.len());
        let named = [find(b"\"tool\": \""), find(b"\"name\": \"omni-")].into_iter().flatten();
        for at in [0, length / 3, length / 2, length - 3].into_iter().chain(named) {
            let copy = copy(&record, "altered");
            let mut bytes = fs::read(copy.join(file)).unwrap();
            bytes[at] ^= 4;
            fs::write(copy.join(file), bytes).unwrap();
            let verified = RecordFolder::open(&copy).and_then(|r| r.verify(|_| {}));
            let error = verified.expect_err(&format!("{file} altered at {at}")).to_string();
            assert!(error.contains(file), "{file} at {at}: {error}");
            // Small parts are checked whenever they are opened, so an engine refuses it too.
            let engine = Engine::open(&copy).and_then(|e| e.warm_up().map(|()| e));
            let concerned = !file.starts_with("text.") || file == "text.retrieval.bpk";
            assert_eq!(engine.is_err(), concerned, "{file} altered at {at}");
        }
    }
}

#[test]
fn a_record_cut_short_or_lacking_a_file_is_refused_by_name() {
    let record = golden().checkpoint("omni-small-tiny").record(Dtype::F32);
    for file in ["towers.bpk", "tokens.bpk", "text.retrieval.bpk", "tokenizer.json", "model.json"] {
        let cut = copy(&record, "cut");
        let bytes = fs::read(cut.join(file)).unwrap();
        fs::write(cut.join(file), &bytes[..bytes.len() - 1 - bytes.len() / 4]).unwrap();
        let error = Engine::open(&cut).expect_err(file).to_string();
        assert!(error.contains(file), "{error}");
        fs::remove_file(cut.join(file)).unwrap();
        let error = Engine::open(&cut).expect_err(file).to_string();
        assert!(error.contains(file), "{error}");
    }
    assert!(matches!(RecordFolder::open(Path::new("/none/here")), Err(RecordError::NotARecord { .. })));
    let newer = copy(&record, "newer");
    let text = fs::read_to_string(newer.join("model.json")).unwrap();
    fs::write(newer.join("model.json"), text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    assert!(matches!(RecordFolder::open(&newer), Err(RecordError::Format { found: 2, .. })));
}

/// An id the tokenizer gives and the table lacks cannot reach the model: the record is refused when it is opened.
#[test]
fn a_tokenizer_with_more_tokens_than_rows_is_refused() {
    let record = copy(&golden().checkpoint("omni-small-tiny").record(Dtype::F32), "tokens");
    let mut tokenizer: serde_json::Value =
        serde_json::from_slice(&fs::read(record.join("tokenizer.json")).unwrap()).unwrap();
    let mut added = tokenizer["added_tokens"][0].clone();
    (added["id"], added["content"]) = (9000.into(), "<|one too many|>".into());
    tokenizer["added_tokens"].as_array_mut().unwrap().push(added);
    let bytes = serde_json::to_vec(&tokenizer).unwrap();
    fs::write(record.join("tokenizer.json"), &bytes).unwrap();
    // Digests that fit, so that only the number of tokens is wrong.
    let mut header = open_header(&record);
    let entry = header.files.get_mut("tokenizer.json").unwrap();
    (entry.bytes, entry.sha256) = (bytes.len() as u64, omniburn_models::record::digest::sha256_hex(&bytes));
    header.digest = header.compute_digest();
    fs::write(record.join("model.json"), serde_json::to_vec(&header).unwrap()).unwrap();
    match Engine::open(&record) {
        Err(EngineError::TokenizerTable { highest, rows }) => assert!(highest >= rows, "{highest} {rows}"),
        other => panic!("{other:?}"),
    }
}

fn open_header(record: &Path) -> omniburn_models::record::RecordHeader {
    serde_json::from_slice(&fs::read(record.join("model.json")).unwrap()).unwrap()
}

/// On flex an f32 record is used where it lies in the file: an engine on a record of 70 MiB of matrices has, after a
/// forward pass, grown far less in anonymous memory. Held in a process of its own, because other tests share this one.
#[test]
#[cfg(target_os = "linux")]
fn mapped_weights_are_not_copied() {
    use omniburn_models::backbone::BackboneConfig;
    use omniburn_models::families::OmniConfig;
    const CHILD: &str = "OMNIBURN_TEST_MAPPED_RECORD";
    if let Ok(record) = std::env::var(CHILD) {
        let anonymous = || {
            let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let line = text.lines().find(|l| l.starts_with("Anonymous:")).unwrap().to_string();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        let before = anonymous();
        let engine = Engine::open(record).unwrap();
        engine.embed_one(Input::text("a red bicycle"), Role::Document).unwrap();
        println!("grown by {} MiB", anonymous().saturating_sub(before));
        return;
    }
    let text = BackboneConfig {
        hidden: 512,
        layers: 4,
        heads: 8,
        kv_heads: 8,
        head_dim: 64,
        inner: 2048,
        norm_eps: 1e-6,
        rope_theta: 1e4,
        causal: true,
        qk_norm: true,
        max_tokens: 512,
        vocab: 4096,
    };
    let checkpoint = golden().checkpoint("omni-small-tiny");
    let out = scratch().join("mapped");
    let config = OmniConfig { text, vision: None, audio: None };
    let tokenizer = checkpoint.folder.join("tokenizer.json");
    omniburn_models::record::write_random(&out, &config, Dtype::F32, (1, 1), &tokenizer, 1).unwrap();
    let matrices = fs::metadata(out.join("text.random.bpk")).unwrap().len() >> 20;
    assert!(matrices >= 64, "{matrices} MiB");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "failure::mapped_weights_are_not_copied", "--nocapture"])
        .env(CHILD, &out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let grown: u64 = said
        .split("grown by ")
        .nth(1)
        .and_then(|s| s.split(' ').next())
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    println!("{matrices} MiB of matrices, anonymous memory grown by {grown} MiB");
    assert!(grown < matrices / 4, "grown by {grown} MiB for {matrices} MiB of matrices");
}
