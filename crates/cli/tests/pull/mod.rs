//! `omniburn pull` and the library behind it, against a hub on this machine.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use omniburn_convert::hub::{HubError, HubOptions, Pulled, pull};
use serde_json::{Value, json};
use server::{COMMIT, Hub, REPO, files_of, sha256, small_tag};
use tempfile::TempDir;

use crate::support::{golden, omniburn, run, values};

const CHECKPOINT: &str = "xlm-roberta-tiny";

fn checkpoint() -> PathBuf {
    golden().join("checkpoints").join(CHECKPOINT)
}

fn hub() -> Arc<Hub> {
    let mut files = files_of(&checkpoint());
    for (name, bytes) in [("README.md", 10), ("pytorch_model.bin", 9000), ("onnx/model.onnx", 9000), ("train.py", 10)] {
        files.insert(name.into(), vec![7; bytes]);
    }
    Hub::start(files)
}

fn options(hub: &Hub, cache: &TempDir) -> HubOptions {
    let mut options = HubOptions::new(REPO, cache.path());
    options.endpoint = hub.endpoint();
    options.first_pause = Duration::from_millis(1);
    options
}

fn fetch(hub: &Hub, cache: &TempDir) -> Result<Pulled, HubError> {
    pull(&options(hub, cache))
}

fn cache() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn weights() -> Vec<u8> {
    fs::read(checkpoint().join("model.safetensors")).unwrap()
}

fn blob(cache: &TempDir, name: &str) -> PathBuf {
    cache.path().join("models--org--name").join("blobs").join(name)
}

#[test]
fn what_a_record_needs_is_fetched_once_into_the_layout_that_other_programs_share() {
    let (hub, cache) = (hub(), cache());
    let pulled = fetch(&hub, &cache).unwrap();
    assert_eq!((pulled.commit.as_str(), pulled.licence.as_deref()), (COMMIT, Some("apache-2.0")));
    let model = cache.path().join("models--org--name");
    assert_eq!(pulled.folder, model.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    let found = files_of(&pulled.folder);
    assert_eq!(found.len(), pulled.files);
    for (name, bytes) in &found {
        assert_eq!(*bytes, fs::read(checkpoint().join(name)).unwrap(), "{name}");
    }
    assert!(found.contains_key("model.safetensors") && found.contains_key("tokenizer.json"));
    for other in ["README.md", "pytorch_model.bin", "onnx/model.onnx", "train.py"] {
        assert!(!found.contains_key(other) && hub.requests().iter().all(|r| !r.path.contains(other)), "{other}");
    }
    let link = fs::read_link(pulled.folder.join("model.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(&weights())));
    let config = fs::read(checkpoint().join("config.json")).unwrap();
    assert_eq!(
        fs::read_link(pulled.folder.join("config.json")).unwrap(),
        Path::new("../../blobs").join(small_tag(&config))
    );
    assert_eq!(pulled.fetched, pulled.bytes);
    let left: Vec<_> = fs::read_dir(model.join("blobs")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains('.')), "{left:?}");

    hub.forget();
    let again = fetch(&hub, &cache).unwrap();
    assert_eq!((again.fetched, &again.folder, again.bytes), (0, &pulled.folder, pulled.bytes));
    assert_eq!(hub.requests().len(), 1, "{:?}", hub.requests());
    // Nothing is asked of anybody.
    hub.forget();
    let mut offline = options(&hub, &cache);
    offline.offline = true;
    let there = pull(&offline).unwrap();
    assert_eq!((there.folder, there.bytes, there.files), (pulled.folder, pulled.bytes, pulled.files));
    assert!(hub.requests().is_empty());
}

#[test]
fn a_token_is_for_the_hub_and_never_for_the_host_of_large_files() {
    let (hub, cache) = (hub(), cache());
    let mut options = options(&hub, &cache);
    options.token = Some("hf_secret".into());
    pull(&options).unwrap();
    let requests = hub.requests();
    assert!(requests.iter().any(|request| request.cdn));
    for request in requests {
        let expected = (!request.cdn).then_some("Bearer hf_secret");
        assert_eq!(request.token.as_deref(), expected, "{request:?}");
    }
    options.endpoint = "http://hub.example".into();
    assert!(matches!(pull(&options), Err(HubError::TokenInTheOpen { .. })));
    options.token = Some("with space".into());
    options.endpoint = hub.endpoint();
    assert!(matches!(pull(&options), Err(HubError::Setting { .. })));
}

#[test]
fn a_connection_that_breaks_goes_on_where_it_stopped() {
    let (hub, cache) = (hub(), cache());
    let all = weights().len();
    hub.mishaps.lock().unwrap().cuts = vec![("model.safetensors", 3, all / 5)];
    fetch(&hub, &cache).unwrap();
    let ranges: Vec<_> = hub.requests().into_iter().filter(|r| r.cdn && r.path.contains("model.safe")).collect();
    let from: Vec<Option<String>> = ranges.into_iter().map(|request| request.range).collect();
    let expected = [None, Some(1), Some(2), Some(3)].map(|n| n.map(|n| format!("bytes={}-", n * (all / 5))));
    assert_eq!(from, expected);

    // Cut four times without a byte, it is given up, with what came kept.
    let cache = self::cache();
    hub.mishaps.lock().unwrap().cuts = vec![("model.safetensors", 1, 3000), ("model.safetensors", 4, 0)];
    let error = fetch(&hub, &cache).unwrap_err();
    assert!(matches!(&error, HubError::Connection { tries: 4, .. }), "{error}");
    assert_eq!(error.exit_code(), 1);
    let unfinished = blob(&cache, &format!("{}.incomplete", sha256(&weights())));
    assert_eq!(fs::metadata(&unfinished).unwrap().len(), 3000);
    assert!(!cache.path().join("models--org--name/refs/main").exists());
    hub.mishaps.lock().unwrap().cuts.clear();
    hub.forget();
    let pulled = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
    let asked = hub.requests();
    let asked = asked.iter().find(|request| request.cdn && request.path.contains("model.safe")).unwrap();
    assert_eq!(asked.range.as_deref(), Some("bytes=3000-"));
    assert!(!unfinished.exists());
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let (hub, cache) = (hub(), cache());
    {
        let mut mishaps = hub.mishaps.lock().unwrap();
        mishaps.no_ranges = true;
        mishaps.cuts = vec![("model.safetensors", 2, 4000)];
    }
    let pulled = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn content_that_is_not_what_the_hub_lists_is_thrown_away() {
    let (hub, cache) = (hub(), cache());
    let mut wrong = weights();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    hub.mishaps.lock().unwrap().altered.insert("model.safetensors".into(), wrong);
    let error = fetch(&hub, &cache).unwrap_err();
    assert!(matches!(&error, HubError::Digest { file, .. } if file == "model.safetensors"), "{error}");
    assert_eq!(error.exit_code(), 3);
    let digest = sha256(&weights());
    assert!(!blob(&cache, &digest).exists() && !blob(&cache, &format!("{digest}.incomplete")).exists());
    assert!(!cache.path().join("models--org--name/refs/main").exists());
    hub.mishaps.lock().unwrap().altered.clear();

    // A rest of an earlier run that is wrong costs a second round and no error.
    fs::write(blob(&cache, &format!("{digest}.incomplete")), vec![1; 5000]).unwrap();
    let pulled = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());

    // More bytes than are listed, and fewer.
    let cache = self::cache();
    for (bytes, kind) in [(weights().len() + 5, "more than"), (weights().len() - 5, "times in a row")] {
        hub.mishaps.lock().unwrap().altered.insert("model.safetensors".into(), vec![0; bytes]);
        let error = fetch(&hub, &cache).unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn refusals_of_the_hub_say_what_to_do() {
    let (hub, cache) = (hub(), cache());
    let refusal = |status: u16, headers: &str, token: Option<&str>| {
        hub.mishaps.lock().unwrap().refusals = vec![("/api/", 1, status, headers.into())];
        let mut options = options(&hub, &cache);
        options.token = token.map(String::from);
        let error = pull(&options).unwrap_err();
        hub.mishaps.lock().unwrap().refusals.clear();
        (error.to_string(), error.exit_code())
    };
    let gated = "X-Error-Code: GatedRepo\r\n";
    let (text, code) = refusal(401, gated, None);
    assert!(
        code == 2 && text.contains("accept its terms at") && text.contains("org/name") && text.contains("--token-file"),
        "{text}"
    );
    let (text, code) = refusal(403, gated, Some("t"));
    assert!(code == 2 && text.contains("the account that this token belongs to"), "{text}");
    let (text, code) = refusal(401, "X-Error-Code: RepoNotFound\r\n", None);
    assert!(code == 2 && text.contains("no such model") && text.contains("--token-file"), "{text}");
    let (text, code) = refusal(401, "", Some("t"));
    assert!(code == 2 && text.contains("does not accept this token"), "{text}");
    let (text, code) = refusal(418, "X-Error-Message: short and stout\r\n", None);
    assert!(code == 1 && text.contains("418") && text.contains("short and stout"), "{text}");
    let mut options = options(&hub, &cache);
    options.revision = "v9".into();
    let error = pull(&options).unwrap_err();
    assert!(matches!(&error, HubError::Revision { revision, .. } if revision == "v9"), "{error}");
    options.repo = "org/other".into();
    assert!(matches!(pull(&options), Err(HubError::NotFound { .. })));
    for name in ["", "a/b/c", "../x", "org/..", "org/na me", "org/-x", "a--b/c", "org/"] {
        options.repo = name.into();
        assert!(matches!(pull(&options), Err(HubError::Name { what: "model", .. })), "{name:?}");
    }
    options.repo = REPO.into();
    for revision in ["", "../main", "a b", "/main"] {
        options.revision = revision.into();
        assert!(matches!(pull(&options), Err(HubError::Name { what: "revision", .. })), "{revision:?}");
    }
    options.revision = "main".into();
    for endpoint in ["", "ftp://x", "hub.example", "https://"] {
        options.endpoint = endpoint.into();
        assert!(matches!(pull(&options), Err(HubError::Name { what: "endpoint", .. })), "{endpoint:?}");
    }
}

#[test]
fn a_busy_server_is_waited_for_and_not_for_ever() {
    let (hub, cache) = (hub(), cache());
    hub.mishaps.lock().unwrap().refusals =
        vec![("/api/", 2, 429, "Retry-After: 0\r\n".into()), ("tokenizer.json", 3, 503, String::new())];
    fetch(&hub, &cache).unwrap();
    let cache = self::cache();
    hub.mishaps.lock().unwrap().refusals = vec![("/api/", 99, 429, "Retry-After: 0\r\n".into())];
    let error = fetch(&hub, &cache).unwrap_err();
    assert!(matches!(&error, HubError::RateLimited { seconds: Some(0), .. }), "{error}");
    // Nobody waits an hour without a word.
    hub.mishaps.lock().unwrap().refusals = vec![("/api/", 99, 429, "RateLimit: \"api\";r=0;t=3600\r\n".into())];
    assert!(matches!(fetch(&hub, &cache), Err(HubError::RateLimited { seconds: Some(3600), .. })));
    hub.mishaps.lock().unwrap().refusals = vec![("/api/", 99, 500, String::new())];
    assert!(matches!(fetch(&hub, &cache), Err(HubError::Connection { .. })));
    // Nobody listens there.
    let mut options = options(&hub, &cache);
    options.endpoint = "http://127.0.0.1:1".into();
    assert!(matches!(pull(&options), Err(HubError::Connection { .. })));
}

#[test]
fn what_is_not_converted_is_refused_before_its_weights_come() {
    let pickled = BTreeMap::from(
        ["config.json", "tokenizer.json", "pytorch_model.bin"].map(|n| (n.to_string(), vec![b' '; 3000])),
    );
    let (hub, cache) = (Hub::start(pickled), cache());
    let error = fetch(&hub, &cache).unwrap_err();
    assert!(matches!(&error, HubError::Weights { found, .. } if found == &["pytorch_model.bin"]), "{error}");
    assert_eq!(hub.requests().len(), 1);

    let hub = self::hub();
    let mut options = options(&hub, &cache);
    options.check = Some(Arc::new(|folder| {
        assert!(folder.join("config.json").is_file() && !folder.join("model.safetensors").exists());
        Err("of a kind that nobody knows".into())
    }));
    let error = pull(&options).unwrap_err();
    assert!(matches!(&error, HubError::Refused { .. }) && error.exit_code() == 3, "{error}");
    assert_eq!(hub.sent.load(Ordering::SeqCst), fs::metadata(checkpoint().join("tokenizer.json")).unwrap().len());

    let bare = BTreeMap::from([("config.json".to_string(), b"{}".to_vec())]);
    let hub = Hub::start(bare);
    let error = fetch(&hub, &cache).unwrap_err();
    assert!(matches!(&error, HubError::Incomplete { files, .. } if files == &["tokenizer.json"]), "{error}");
}

#[test]
fn a_listing_that_lies_is_refused() {
    let (hub, cache) = (hub(), cache());
    hub.mishaps.lock().unwrap().listed = vec![json!({ "rfilename": "../../evil.json" })];
    assert!(matches!(fetch(&hub, &cache), Err(HubError::Answer { .. })));
    hub.mishaps.lock().unwrap().listed = vec![json!({ "rfilename": "added_tokens.json" })];
    let error = fetch(&hub, &cache).unwrap_err();
    assert!(error.to_string().contains("does not have it"), "{error}");
    hub.mishaps.lock().unwrap().listed.clear();
    for to in ["ftp://x/y", "nowhere", "/org/name/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors"] {
        hub.mishaps.lock().unwrap().redirect = Some(to.into());
        let error = fetch(&hub, &cache).unwrap_err();
        assert!(matches!(&error, HubError::Answer { .. }) && error.to_string().contains("redirect"), "{error}");
    }
}

#[test]
fn a_hub_that_lists_no_sizes_is_asked_for_each_file() {
    let (hub, cache) = (hub(), cache());
    hub.mishaps.lock().unwrap().bare_listing = true;
    let pulled = fetch(&hub, &cache).unwrap();
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
    assert!(blob(&cache, &sha256(&weights())).is_file());
    assert!(hub.requests().iter().any(|request| request.method == "HEAD"));
    // The digest that the redirect gives counts too.
    let cache = self::cache();
    let mut wrong = weights();
    wrong[100] ^= 1;
    hub.mishaps.lock().unwrap().altered.insert("model.safetensors".into(), wrong);
    assert!(matches!(fetch(&hub, &cache), Err(HubError::Digest { .. })));
}

#[test]
fn shards_and_modules_come_with_what_names_them() {
    let mut files = files_of(&checkpoint());
    let whole = files.remove("model.safetensors").unwrap();
    files.insert("model-00001-of-00002.safetensors".into(), whole.clone());
    files.insert("model-00002-of-00002.safetensors".into(), vec![3; 2500]);
    files.insert("model-00003-of-00002.safetensors".into(), vec![4; 2500]);
    let map = json!({ "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors" });
    files.insert("model.safetensors.index.json".into(), json!({ "weight_map": map }).to_string().into_bytes());
    files.insert("modules.json".into(), json!([{ "path": "" }, { "path": "2_Dense" }]).to_string().into_bytes());
    files.insert("2_Dense/config.json".into(), b"{}".to_vec());
    files.insert("2_Dense/model.safetensors".into(), vec![5; 2100]);
    files.insert("3_Other/config.json".into(), b"{}".to_vec());
    let (hub, cache) = (Hub::start(files.clone()), cache());
    let found = files_of(&fetch(&hub, &cache).unwrap().folder);
    files.retain(|name, _| !name.starts_with("1_") && !name.starts_with("3_") && !name.contains("00003"));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&files));

    // Offline, a shard that is gone is missed by name.
    fs::remove_file(blob(&cache, &sha256(&whole))).unwrap();
    let mut offline = options(&hub, &cache);
    offline.offline = true;
    let error = pull(&offline).unwrap_err();
    assert!(error.to_string().contains("model-00001-of-00002.safetensors"), "{error}");
    offline.cache = cache.path().join("other");
    let error = pull(&offline).unwrap_err();
    assert!(matches!(&error, HubError::Offline { .. }) && error.exit_code() == 2, "{error}");
}

#[test]
fn two_at_once_fetch_a_file_once() {
    let (hub, cache) = (hub(), cache());
    hub.mishaps.lock().unwrap().stall = true;
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| fetch(&hub, &cache)));
        while hub.sent.load(Ordering::SeqCst) < 1000 {
            std::thread::yield_now();
        }
        hub.release();
        for one in both {
            one.join().unwrap().unwrap();
        }
    });
    let asked = hub.requests();
    let asked = asked.iter().filter(|request| request.cdn && request.path.contains("model.safe")).count();
    assert_eq!(asked, 1);
}

/// The program with folders of its own.
fn program(folder: &TempDir, hub: &Hub) -> std::process::Command {
    let mut command = omniburn();
    for name in ["HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", folder.path().join("hf")).env("XDG_DATA_HOME", folder.path().join("data"));
    command.env("HOME", folder.path()).env("HF_ENDPOINT", hub.endpoint()).current_dir(folder);
    command
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_is_fetched_by_name_and_used_by_name() {
    let (hub, folder) = (hub(), cache());
    let first = run(program(&folder, &hub).args(["pull", REPO, "--dtype", "f32"]));
    assert_eq!((first.code, first.stderr.as_str()), (0, ""), "{}", first.stdout);
    for said in ["licence: apache-2.0", COMMIT, "omniburn embed --model org/name"] {
        assert!(first.stdout.contains(said), "{said}: {}", first.stdout);
    }
    let converted = folder.path().join("converted");
    let convert = run(program(&folder, &hub).arg("convert").arg(checkpoint()).arg(&converted).args(["--dtype", "f32"]));
    assert_eq!(convert.code, 0, "{}", convert.stderr);
    let embed = |model: &str| {
        let run = run(program(&folder, &hub).args(["embed", "--model", model, "a red bicycle"]));
        assert_eq!(run.code, 0, "{}", run.stderr);
        values(&run.lines()[0])
    };
    assert_eq!(embed(REPO), embed("converted"));
    let models = run(program(&folder, &hub).args(["models", "--json"]));
    assert!(models.stdout.contains("org/name"), "{}", models.stdout);

    // The second time nothing is fetched and nothing converted; another type is another record.
    hub.forget();
    let line = |args: &[&str]| -> Value {
        let run = run(program(&folder, &hub).args(["pull", REPO, "--json"]).args(args));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        serde_json::from_str(&run.stdout).unwrap()
    };
    let again = line(&["--dtype", "f32"]);
    assert_eq!((&again["fetched"], &again["converted"]), (&json!(0), &json!(false)));
    assert_eq!(line(&["--dtype", "bf16"])["converted"], json!(true));
    assert_eq!(line(&["--dtype", "bf16", "--offline"])["converted"], json!(false));
    assert_eq!(hub.requests().len(), 2);
    // What `convert` finds in the cache is the same checkpoint.
    let found = run(program(&folder, &hub).args(["convert", REPO, "second"]));
    assert_eq!(found.code, 0, "{}", found.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_pull_leaves_what_came_and_no_record() {
    let (hub, folder) = (hub(), cache());
    hub.mishaps.lock().unwrap().stall = true;
    let mut child = program(&folder, &hub)
        .args(["pull", REPO])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while hub.sent.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    hub.release();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!folder.path().join("data").join("omniburn").join("records").join("org").join("name").exists());
    hub.mishaps.lock().unwrap().stall = false;
    let whole = run(program(&folder, &hub).args(["pull", REPO, "--json"]));
    assert_eq!(whole.code, 0, "{}", whole.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_typed_wrong_and_what_is_not_there_end_with_their_codes() {
    let (hub, folder) = (hub(), cache());
    for (args, code, said) in [
        (vec!["pull", "org/other"], 2, "no such model"),
        (vec!["pull", REPO, "--revision", "v9"], 2, "no revision `v9`"),
        (vec!["pull", "a b"], 2, "expected ORG/NAME"),
        (vec!["pull", REPO, "--token-file", "nowhere"], 2, "nowhere"),
        (vec!["pull", REPO, "--offline"], 2, "nothing is fetched with --offline"),
        (vec!["embed", "--model", REPO, "a"], 2, "omniburn pull"),
        (vec!["pull"], 2, "ORG/NAME"),
    ] {
        let run = run(program(&folder, &hub).args(&args));
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(said) && run.stdout.is_empty(), "{args:?}: {}", run.stderr);
    }
    // A kind that nobody converts is reported before its weights are fetched.
    let mut files = files_of(&checkpoint());
    files
        .insert("config.json".into(), br#"{"model_type": "unheard_of", "architectures": ["UnheardOfModel"]}"#.to_vec());
    let other = Hub::start(files);
    let run = run(program(&folder, &other).args(["pull", REPO]));
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("unheard_of") && run.stderr.contains("weights were not fetched"), "{}", run.stderr);
}

const PACKED: &str = "qwen3-q8.gguf";

fn packed() -> Vec<u8> {
    fs::read(golden().join("gguf").join(PACKED)).unwrap()
}

/// A GGUF file with one key, and nothing behind it.
fn bare_gguf(architecture: &str) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend([0u64, 1].map(u64::to_le_bytes).concat());
    for text in ["general.architecture", architecture] {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        if text != architecture {
            bytes.extend(8u32.to_le_bytes());
        }
    }
    bytes.resize(300_000, 0);
    bytes
}

/// A model that is kept as GGUF alone.
fn packed_hub() -> Arc<Hub> {
    let mut files = BTreeMap::from([(PACKED.to_string(), packed()), ("sub/other.gguf".into(), bare_gguf("t5"))]);
    files.insert("big-00001-of-00002.gguf".into(), packed());
    files.insert("README.md".into(), vec![7; 10]);
    Hub::start(files)
}

#[test]
fn a_gguf_file_is_fetched_by_its_name_and_nothing_beside_it() {
    let (hub, cache) = (packed_hub(), cache());
    let mut options = options(&hub, &cache);
    options.file = Some(PACKED.into());
    let pulled = pull(&options).unwrap();
    let snapshot = cache.path().join("models--org--name").join("snapshots").join(COMMIT);
    assert_eq!((&pulled.folder, pulled.files), (&snapshot.join(PACKED), 1));
    assert_eq!((fs::read(&pulled.folder).unwrap(), pulled.bytes), (packed(), packed().len() as u64));
    assert_eq!(files_of(&snapshot).len(), 1);
    assert_eq!(fs::read_link(&pulled.folder).unwrap(), Path::new("../../blobs").join(sha256(&packed())));
    // Again, and offline: nothing is fetched.
    hub.forget();
    assert_eq!(pull(&options).unwrap().fetched, 0);
    assert_eq!(hub.requests().len(), 1);
    options.offline = true;
    assert_eq!(pull(&options).unwrap().folder, pulled.folder);
    options.file = Some("sub/other.gguf".into());
    let error = pull(&options).unwrap_err();
    assert!(matches!(&error, HubError::Offline { missing, .. } if missing.contains("sub/other.gguf")), "{error}");
}

#[test]
fn gguf_files_that_are_not_there_or_not_converted_are_refused_before_they_come() {
    let (hub, cache) = (packed_hub(), cache());
    let mut options = options(&hub, &cache);
    let mut refusal = |file: Option<&str>| {
        options.file = file.map(String::from);
        let error = pull(&options).unwrap_err();
        (error.to_string(), error.exit_code(), error)
    };
    let (text, code, error) = refusal(Some("none.gguf"));
    assert!(matches!(error, HubError::NoFile { .. }) && code == 2 && text.contains(PACKED), "{text}");
    let (text, code, error) = refusal(Some("sub/other.gguf"));
    assert!(matches!(error, HubError::Refused { .. }) && code == 3, "{text}");
    assert!(text.contains("general.architecture is \"t5\", expected one of \"bert\""), "{text}");
    let (text, code, _) = refusal(Some("big-00001-of-00002.gguf"));
    assert!(code == 3 && text.contains("llama-gguf-split --merge"), "{text}");
    for name in ["model.safetensors", "../x.gguf", "/x.gguf", ".gguf", ""] {
        let (text, code, error) = refusal(Some(name));
        assert!(matches!(error, HubError::Name { what: "file", .. }) && code == 2, "{text}");
    }
    // Without --file such a model has nothing to convert, and the message says what would do.
    let (text, code, error) = refusal(None);
    assert!(
        matches!(error, HubError::Weights { .. }) && code == 3 && text.contains("--file names a GGUF file"),
        "{text}"
    );
    let blobs = cache.path().join("models--org--name").join("blobs");
    assert_eq!(fs::read_dir(blobs).map_or(0, Iterator::count), 0);
}

#[test]
fn a_gguf_file_that_was_altered_on_its_way_is_thrown_away() {
    let (hub, cache) = (packed_hub(), cache());
    let mut wrong = packed();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    hub.mishaps.lock().unwrap().altered.insert(PACKED.into(), wrong);
    let mut options = options(&hub, &cache);
    options.file = Some(PACKED.into());
    let error = pull(&options).unwrap_err();
    assert!(matches!(&error, HubError::Digest { file, .. } if file == PACKED), "{error}");
    // What is no GGUF file at all is refused by its first bytes.
    hub.mishaps.lock().unwrap().altered.insert(PACKED.into(), vec![b'<'; packed().len()]);
    let error = pull(&options).unwrap_err();
    assert!(error.to_string().contains("does not begin with `GGUF`"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_gguf_file_becomes_a_record_that_is_used_by_the_model_s_name() {
    let (hub, folder) = (packed_hub(), cache());
    let first = run(program(&folder, &hub).args(["pull", REPO, "--file", PACKED, "--dtype", "f32"]));
    assert_eq!((first.code, first.stderr.as_str()), (0, ""), "{}", first.stdout);
    for said in ["org/name/qwen3-q8.gguf is known as", COMMIT, "qwen3-q8.gguf, ", "omniburn embed --model org/name"] {
        assert!(first.stdout.contains(said), "{said}: {}", first.stdout);
    }
    let source = golden().join("gguf").join(PACKED);
    let converted = folder.path().join("converted");
    let convert = run(program(&folder, &hub).arg("convert").arg(source).arg(&converted).args(["--dtype", "f32"]));
    assert_eq!(convert.code, 0, "{}", convert.stderr);
    let embed = |model: &str| {
        let run = run(program(&folder, &hub).args(["embed", "--model", model, "a red bicycle"]));
        assert_eq!(run.code, 0, "{}", run.stderr);
        values(&run.lines()[0])
    };
    assert_eq!(embed(REPO), embed("converted"));
    let line = |args: &[&str]| -> Value {
        let run = run(program(&folder, &hub).args(["pull", REPO, "--json"]).args(args));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        serde_json::from_str(&run.stdout).unwrap()
    };
    assert_eq!(line(&["--file", PACKED, "--dtype", "f32"])["converted"], json!(false));
    assert_eq!(line(&["--file", PACKED, "--dtype", "affine8", "--offline"])["converted"], json!(true));
    let refused = run(program(&folder, &hub).args(["pull", REPO, "--file", "sub/other.gguf"]));
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("\"t5\""), "{}", refused.stderr);
}

#[test]
fn a_gguf_file_is_inspected_by_its_header_and_what_a_conversion_would_make_of_it() {
    let folder = cache();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let inspect = |path: &Path, args: &[&str]| run(omniburn().arg("inspect").arg(path).args(args));
    let whole = inspect(&golden().join("gguf").join(PACKED), &[]);
    assert_eq!((whole.code, whole.stderr.as_str()), (0, ""));
    for said in ["GGUF, version 3", "architecture qwen3", "Q8_0", "F32", "tensors", "checked: names and shapes fit"] {
        assert!(whole.stdout.contains(said), "{said}: {}", whole.stdout);
    }
    let json = inspect(&golden().join("gguf").join(PACKED), &["--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["kind"], &json["architecture"], &json["refused"]),
        (&json!("gguf"), &json!("qwen3"), &Value::Null)
    );
    let of_types = |key: &str| json["types"].as_array().unwrap().iter().map(|t| t[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        (json["tensors"].as_u64(), json["parameters"].as_u64()),
        (Some(of_types("tensors")), Some(of_types("parameters")))
    );
    assert_eq!(json["convert"]["family"], json!("qwen3"));
    assert_eq!(json["bytes"].as_u64(), Some(packed().len() as u64));

    // What is cut is refused at every length, and nothing is said of it.
    for length in [0, 3, 20, 200, packed().len() / 2, packed().len() - 1] {
        let cut = inspect(&at("cut.gguf", &packed()[..length]), &[]);
        assert_eq!((cut.code, cut.stdout.as_str()), (3, ""), "{length}");
        assert!(cut.stderr.contains("cut.gguf"), "{length}: {}", cut.stderr);
    }
    // Another architecture is shown, and refused by its name.
    let other = at("other.gguf", &bare_gguf("t5")[..66]);
    let shown = inspect(&other, &[]);
    assert_eq!(shown.code, 3, "{}", shown.stderr);
    assert!(
        shown.stdout.contains("architecture t5") && shown.stderr.contains("general.architecture"),
        "{}",
        shown.stderr
    );
    let json: Value = serde_json::from_str(&inspect(&other, &["--json"]).stdout).unwrap();
    assert!(json["convert"].is_null() && json["refused"].as_str().unwrap().contains("\"t5\""), "{json}");
    assert_eq!(inspect(&golden().join("gguf").join(PACKED), &["--verify"]).code, 2);
}
