//! `serve` as its clients meet it: the program on a free port, spoken to in HTTP over a socket.

#[cfg(feature = "otel")]
mod collector;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{golden, omniburn, run, values};

/// A program that serves, and is killed when this goes.
pub(crate) struct Server {
    child: Child,
    address: String,
    /// What it says on standard error after it has begun.
    said: Mutex<mpsc::Receiver<String>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The error's code and the field it names.
    fn refused(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", self.body);
        let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        (self.status, word("code"), word("param"))
    }
}

impl Server {
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = omniburn();
        command.current_dir(folder).env("XDG_DATA_HOME", folder.join("data")).args(["serve", "--port", "0"]).args(args);
        Self::of(&mut command)
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut before = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else { panic!("it did not begin to serve: {before:?}") };
            match line.split_once("http://") {
                Some((_, rest)) => break rest.split(';').next().unwrap().to_owned(),
                None => before.push(line),
            }
        };
        let (tell, said) = mpsc::channel();
        std::thread::spawn(move || lines.for_each(|line| drop(tell.send(line))));
        Self { child, address, said: Mutex::new(said) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        // A server that refuses by the head may have closed before the body is sent.
        let _ = stream.write_all((head + "\r\n").as_bytes()).and_then(|()| stream.write_all(body));
        reply(stream)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// SIGTERM, or another signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for the end, and gives the exit code.
    pub(crate) fn ended(&mut self, within: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < within, "it did not end within {within:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // A connection that is closed in the middle of what was sent is reset behind the answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Reply { status, headers: lines.filter_map(header).collect(), body: body.to_owned() }
}

fn vectors(reply: &Reply) -> Vec<Vec<f32>> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["data"].as_array().unwrap().iter().map(values).collect()
}

fn sample(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini/samples").join(name)
}

fn base64_of(path: &Path) -> String {
    STANDARD.encode(fs::read(path).unwrap())
}

/// What `omniburn embed` gives.
fn embedded(folder: &TempDir, args: &[&str]) -> Vec<Vec<f32>> {
    let run = run(omniburn().current_dir(folder).arg("embed").args(args));
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.lines().iter().map(values).collect()
}

/// A folder with records of stored checkpoints under their names.
fn records(checkpoints: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in checkpoints {
        let source = golden().join("checkpoints").join(name);
        let mut command = omniburn();
        command.arg("convert").arg(source).arg(folder.path().join(name)).args(["--dtype", "f32"]);
        let converted = run(&mut command);
        assert_eq!(converted.code, 0, "{}", converted.stderr);
    }
    folder
}

#[test]
fn embeddings_of_every_kind_are_those_of_the_command_line_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let [image, audio, video] = ["cat.jpg", "speech-where-is-my-hammer.mp3", "boat-sailing.mp4"].map(sample);
    let paths: Vec<&str> = [&image, &audio, &video].iter().map(|path| path.to_str().unwrap()).collect();
    let want = embedded(&folder, &[&["a red bicycle"], &paths[..]].concat());
    let body = json!({"model": "omniburn-mini", "input": [
        "a red bicycle",
        {"image": base64_of(&image)},
        {"audio": format!("data:audio/mpeg;base64,{}", base64_of(&audio))},
        {"video": format!("data:video/mp4;base64,{}", base64_of(&video))},
    ]});
    let answer = server.post("/v1/embeddings", &body);
    assert_eq!(vectors(&answer), want);
    let about = answer.json();
    assert_eq!((&about["object"], &about["model"]), (&json!("list"), &json!("omniburn-mini")));
    assert!(about["usage"]["total_tokens"].as_u64().unwrap() > 4);
    assert!(answer.headers["server-timing"].starts_with("tokenise;dur="), "{:?}", answer.headers);
    // Base64 holds the same bits.
    let packed = server.post("/v1/embeddings", &json!({"input": "a red bicycle", "encoding_format": "base64"})).json();
    let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let back: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(back, want[0]);
    let signs = server.post("/v1/embeddings", &json!({"input": "a red bicycle", "embedding_type": "ubinary"})).json();
    assert_eq!(signs["data"][0]["embedding"].as_array().unwrap().len(), want[0].len() / 8);
    // A query is another vector where the model has prefixes, and the same request where it has none.
    let query = server.post("/v1/embeddings", &json!({"input": {"text": "a red bicycle", "role": "query"}}));
    assert_eq!(vectors(&query), embedded(&folder, &["--role", "query", "a red bicycle"]));
    let task = server.post("/v1/embeddings", &json!({"input": ["a red bicycle"], "task": "retrieval.query"}));
    assert_eq!(vectors(&task), vectors(&query));
}

#[test]
fn the_paths_of_text_embeddings_inference_have_its_shapes() {
    let folder = records(&["bge-m3-tiny"]);
    let server = Server::start(folder.path(), &["--model", "bge-m3-tiny"]);
    let want = embedded(&folder, &["--model", "bge-m3-tiny", "one", "two words"]);
    for path in ["/embed", "/"] {
        let answer = server.post(path, &json!({"inputs": ["one", "two words"], "truncate": true}));
        let found: Vec<Vec<f32>> = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(found, want, "{path}");
        assert!(answer.headers.contains_key("x-inference-time"));
    }
    let alone: Vec<Vec<f32>> = serde_json::from_str(&server.post("/embed", &json!({"inputs": "one"})).body).unwrap();
    assert_eq!(alone, want[..1]);
    let sparse = server.post("/embed_sparse", &json!({"inputs": "two words"})).json();
    let run = run(omniburn().current_dir(&folder).args([
        "embed",
        "--model",
        "bge-m3-tiny",
        "--output",
        "sparse",
        "two words",
    ]));
    let line = &run.lines()[0];
    let weights: Vec<(Value, Value)> =
        sparse[0].as_array().unwrap().iter().map(|one| (one["index"].clone(), one["value"].clone())).collect();
    assert!(!weights.is_empty());
    let listed = |key: &str| line["sparse"][key].as_array().unwrap_or_else(|| panic!("{line}")).clone();
    assert_eq!(weights, listed("indices").into_iter().zip(listed("values")).collect::<Vec<_>>());
    let cosines = json!({"inputs": {"source_sentence": "one", "sentences": ["one", "two words"]}});
    let cosines: Vec<f32> = serde_json::from_str(&server.post("/similarity", &cosines).body).unwrap();
    assert!((cosines[0] - 1.0).abs() < 1e-6 && cosines[1] < 1.0, "{cosines:?}");
    let info = server.get("/info").json();
    assert_eq!((&info["model_id"], &info["model_dtype"]), (&json!("bge-m3-tiny"), &json!("f32")));
    let many = server.post("/v1/embeddings", &json!({"input": "two words", "return_multivector": true})).json();
    assert!(many["data"][0]["embeddings"].as_array().unwrap().len() > 1);
}

/// Every path of the interface; what its answers hold is tested elsewhere.
#[test]
fn every_path_that_is_promised_is_answered() {
    let user = Searcher::new(&["cat.jpg"]);
    let server = user.serve(&[]);
    let body = json!({"input": "a", "inputs": "a", "query": "a"});
    for (method, path, status) in [
        ("POST", "/v1/embeddings", 422),
        ("POST", "/embed", 422),
        ("GET", "/info", 200),
        ("POST", "/v1/rerank", 422),
        ("POST", "/rerank", 422),
        ("POST", "/similarity", 422),
        ("POST", "/tokenize", 422),
        ("POST", "/embed_sparse", 422),
        ("POST", "/v1/search", 422),
        ("GET", "/v1/search?q=cat", 200),
        ("GET", "/v1/items/0000", 404),
        // No model here generates.
        ("POST", "/v1/chat/completions", 404),
        ("POST", "/v1/completions", 404),
        ("POST", "/v1/audio/transcriptions", 404),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/map", 200),
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/", 200),
    ] {
        let json = [("content-type", "application/json")];
        let found = server.send(method, path, &json, body.to_string().as_bytes());
        assert!(!found.body.contains("no such path"), "{path}: {}", found.body);
        assert_eq!(found.status, status, "{method} {path}: {}", found.body);
    }
    assert!(server.post("/v1/chat/completions", &json!({})).body.contains("generates"));
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let accept = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    assert_eq!(server.send("POST", "/mcp", &accept, hello.to_string().as_bytes()).status, 200);
    // Pages and what they ask for come from here, and nothing else may.
    for page in ["/", "/docs"] {
        let found = server.get(page);
        assert!(found.headers["content-security-policy"].contains("default-src 'self'"));
        assert!(!found.body.contains("http://") && !found.body.contains("https://") && !found.body.contains("<style"));
        let parts = found.body.split(['"', '\'']).filter(|part| part.starts_with('/') && part.contains('.'));
        let parts: Vec<&str> = parts.collect();
        assert!(parts.len() >= 3, "{parts:?}");
        for part in parts {
            assert_eq!(server.get(part).status, 200, "{part}");
        }
    }
}

#[test]
fn tokens_are_those_that_the_model_reads_with_their_places() {
    let folder = records(&["bge-m3-tiny"]);
    let server = Server::start(folder.path(), &["--model", "bge-m3-tiny"]);
    let texts = ["Berlin, caf\u{e9}!", "two words"];
    let found = server.post("/tokenize", &json!({"inputs": texts})).json();
    let counted = server.post("/v1/embeddings", &json!({"input": texts})).json()["usage"]["total_tokens"].clone();
    let lists = found.as_array().unwrap_or_else(|| panic!("{found}"));
    assert_eq!(lists.iter().map(|list| list.as_array().unwrap().len()).sum::<usize>(), counted);
    for (list, text) in lists.iter().zip(texts) {
        let characters: Vec<char> = text.chars().collect();
        let tokens = list.as_array().unwrap();
        for token in [&tokens[0], &tokens[tokens.len() - 1]] {
            assert!(token["special"] == true && token["start"].is_null() && token["stop"].is_null(), "{token}");
        }
        let mut seen = 0;
        for token in &tokens[1..tokens.len() - 1] {
            let [start, stop] = ["start", "stop"].map(|end| token[end].as_u64().unwrap() as usize);
            let part: String = characters[start..stop].iter().collect();
            assert!(token["special"] == false && token["text"] == part, "{token}");
            // Pieces of a word may share a letter; none is left out but spaces.
            let between = characters.get(seen..start).unwrap_or_default();
            assert!(between.iter().all(|letter| *letter == ' '), "{token}");
            seen = seen.max(stop);
        }
        assert_eq!(seen, characters.len(), "{text}");
    }
    let bare = server.post("/tokenize", &json!({"inputs": "two words", "add_special_tokens": false})).json();
    let inner = lists[1].as_array().unwrap();
    assert_eq!(bare[0].as_array().unwrap(), &inner[1..inner.len() - 1]);
    for (body, status, param) in [
        (json!({"inputs": []}), 400, "inputs"),
        (json!({"inputs": "a", "prompt_name": "poem"}), 400, "prompt_name"),
        (json!({"inputs": "a", "ids": [1]}), 422, "ids"),
    ] {
        let refused = server.post("/tokenize", &body).refused();
        assert_eq!((refused.0, refused.2.as_str()), (status, param), "{body}");
    }
}

#[test]
fn late_chunks_over_http_are_those_of_the_command_line_to_the_bit() {
    let folder = records(&["nomic-bert-tiny", "bge-m3-tiny"]);
    let server = Server::start(folder.path(), &["--model", "nomic-bert-tiny", "--model", "cls=bge-m3-tiny"]);
    let text = "Berlin is the capital of Germany. The city has more people than any other. It lies at the Spree.";
    let lines = run(omniburn().current_dir(&folder).args([
        "embed",
        "--model",
        "nomic-bert-tiny",
        "--role",
        "none",
        "--late-chunks=30",
        text,
    ]));
    assert_eq!(lines.code, 0, "{}", lines.stderr);
    let lines = lines.lines();
    assert!(lines.len() > 2, "{lines:?}");
    let place = |line: &Value, key: &str| line[key].as_u64().unwrap() as usize;
    let parts: Vec<&str> = lines.iter().map(|line| text[place(line, "start")..place(line, "end")].trim()).collect();
    let body = json!({"input": parts, "late_chunking": true, "input_type": "none"});
    let found = server.post("/v1/embeddings", &body);
    assert_eq!(vectors(&found), lines.iter().map(values).collect::<Vec<_>>());
    assert!(found.json()["usage"]["total_tokens"].as_u64().unwrap() > parts.len() as u64);
    // Apart they are others.
    let apart = server.post("/v1/embeddings", &json!({"input": parts, "input_type": "none"}));
    assert!(vectors(&apart).iter().zip(vectors(&found)).all(|(one, other)| *one != other));
    let refused = server.post("/v1/embeddings", &json!({"model": "cls", "input": parts, "late_chunking": true}));
    assert_eq!(refused.refused(), (400, "invalid_value".into(), "late_chunking".into()), "{}", refused.body);
    let empty = server.post("/v1/embeddings", &json!({"input": ["a", " ", "b"], "late_chunking": true}));
    assert!(empty.status == 400 && empty.body.contains("chunk 1"), "{}", empty.body);
    let long = server.post("/v1/embeddings", &json!({"input": vec!["word ".repeat(900); 12], "late_chunking": true}));
    assert_eq!(long.refused(), (400, "too_long".into(), "input".into()), "{}", long.body);
}

#[test]
fn documents_are_ranked_as_the_command_line_ranks_them_in_every_shape() {
    let folder = records(&["bge-reranker-tiny", "bert-tiny"]);
    let server = Server::start(folder.path(), &["--model", "embed=bert-tiny", "--model", "bge-reranker-tiny"]);
    let documents = ["a bear of China", "a city in France", "bamboo"];
    let mut command = omniburn();
    command.current_dir(&folder).args(["rerank", "--model", "bge-reranker-tiny", "what is a panda?"]).args(documents);
    let want: Vec<(Value, Value)> =
        run(&mut command).lines().iter().map(|line| (line["index"].clone(), line["score"].clone())).collect();
    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let body = json!({"model": "bge-reranker-tiny", "query": "what is a panda?", "documents": documents, "return_documents": true});
        let answer = server.post(path, &body).json();
        let found = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let scores: Vec<_> = found.iter().map(|one| (one["index"].clone(), one["relevance_score"].clone())).collect();
        assert_eq!(scores, want);
        let first = found[0]["index"].as_u64().unwrap() as usize;
        assert_eq!(found[0]["document"]["text"], documents[first]);
    }
    let top =
        json!({"model": "bge-reranker-tiny", "query": "q", "documents": [{"text": "a"}, {"text": "b"}], "top_n": 1});
    assert_eq!(server.post("/v1/rerank", &top).json()["results"].as_array().unwrap().len(), 1);
    let tei =
        json!({"model": "bge-reranker-tiny", "query": "what is a panda?", "texts": documents, "return_text": true});
    let found = server.post("/rerank", &tei).json();
    let scores: Vec<_> =
        found.as_array().unwrap().iter().map(|one| (one["index"].clone(), one["score"].clone())).collect();
    assert_eq!(scores, want);
    // Each model does what it can, and says so where it cannot.
    let refused = server.post("/rerank", &json!({"model": "embed", "query": "q", "texts": ["a"]}));
    assert_eq!(refused.refused(), (400, "invalid_value".into(), "model".into()));
    let refused = server.post("/v1/embeddings", &json!({"model": "bge-reranker-tiny", "input": "a"}));
    assert_eq!(refused.refused(), (400, "invalid_value".into(), "model".into()));
    for (extra, field) in [("max_tokens_per_doc", json!(3)), ("top_n", json!(0)), ("priority", json!(1))] {
        let mut body = json!({"model": "bge-reranker-tiny", "query": "q", "documents": ["a"]});
        body[extra] = field;
        assert_eq!(server.post("/v1/rerank", &body).refused(), (400, "invalid_value".into(), extra.into()));
    }
}

#[test]
fn models_answer_by_their_names_and_an_idle_one_is_unloaded_and_comes_back() {
    let folder = records(&["bert-tiny", "omni-small-tiny"]);
    let args = ["--model", "bert-tiny", "--model", "two=omni-small-tiny", "--idle-unload", "1"];
    let server = Server::start(folder.path(), &args);
    let listed = server.get("/v1/models").json();
    let names: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["bert-tiny", "two"]);
    // However many ask first, it is opened once; all get the same.
    let body = json!({"model": "two", "input": "a"});
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| server.post("/v1/embeddings", &body))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let want = embedded(&folder, &["--model", "omni-small-tiny", "a"]);
    assert!(replies.iter().all(|reply| vectors(reply) == want));
    assert_eq!(server.get("/v1/models/two").json()["loaded"], true);
    let begun = Instant::now();
    while server.get("/v1/models/two").json()["loaded"] == true {
        assert!(begun.elapsed() < Duration::from_secs(20), "it was not unloaded");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(vectors(&server.post("/v1/embeddings", &body)), want);
    let absent = server.post("/v1/embeddings", &json!({"model": "text-embedding-3-small", "input": "a"}));
    assert_eq!(absent.refused(), (404, "model_not_found".into(), "model".into()));
    assert!(absent.body.contains("bert-tiny, two"), "{}", absent.body);
    // A model that can no longer be opened says so on its own requests alone.
    let begun = Instant::now();
    while server.get("/v1/models/two").json()["loaded"] == true {
        assert!(begun.elapsed() < Duration::from_secs(20), "it was not unloaded");
        std::thread::sleep(Duration::from_millis(100));
    }
    fs::remove_file(folder.path().join("omni-small-tiny/tokenizer.json")).unwrap();
    let gone = server.post("/v1/embeddings", &body);
    assert_eq!(gone.refused(), (503, "model_unavailable".into(), "model".into()), "{}", gone.body);
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).status, 200);
    // Why stands in the log, with the id that the client was told.
    let id = format!("request{{id={}}}:", gone.headers["x-request-id"]);
    let line = server.said.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(line.contains(&id) && line.contains("tokenizer.json"), "{id} {line}");
}

#[test]
fn what_is_wrong_is_named_in_the_envelope_of_openai() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--max-inputs", "100", "--max-body", "1MiB"]);
    let long = "word ".repeat(400);
    for (body, status, code, param) in [
        (json!({}), 422, "invalid_value", ""),
        (json!({"input": []}), 400, "empty", "input"),
        (json!({"input": vec!["a"; 101]}), 413, "too_large", "input"),
        (json!({"input": "a", "dimensions": 7}), 400, "invalid_value", "dimensions"),
        (json!({"input": "a", "dimensions": -1}), 422, "invalid_value", "dimensions"),
        (json!({"input": "a", "dimensions": "x"}), 422, "invalid_value", "dimensions"),
        (json!({"input": "a", "encoding_format": "hex"}), 422, "invalid_value", "encoding_format"),
        (json!({"input": "a", "embedding_type": ["float", "base64"]}), 400, "invalid_value", "embedding_type"),
        (json!({"input": ["a", {"image": "iVBO"}], "late_chunking": true}), 400, "invalid_value", "input[1]"),
        (
            json!({"input": "a", "late_chunking": true, "return_multivector": true}),
            400,
            "invalid_value",
            "return_multivector",
        ),
        (json!({"input": "a", "normalized": false}), 400, "invalid_value", "normalized"),
        (json!({"input": "a", "task": "poetry"}), 400, "invalid_value", "task"),
        (json!({"input": "a", "instruction": "find it"}), 400, "invalid_value", "instruction"),
        (json!({"input": [{"text": "a", "dimensions": 9}]}), 400, "invalid_value", "input[0]"),
        (json!({"input": "a", "temperature": 1}), 422, "invalid_value", "temperature"),
        (json!({"input": 3}), 422, "invalid_value", "input"),
        (json!({"input": [[1, 2, 3]]}), 400, "invalid_value", "input[0]"),
        (json!({"input": [""]}), 400, "empty", "input[0]"),
        (json!({"input": ["a", long]}), 400, "too_long", "input[1]"),
        (json!({"input": {"image": "https://example.org/a.png"}}), 400, "invalid_value", "input[0].image"),
        (json!({"input": {"image": STANDARD.encode("no image")}}), 400, "unknown_format", "input[0]"),
        (json!({"input": {"parts": [{"text": "a"}, {"text": "b"}]}}), 415, "modality_absent", "input[0]"),
    ] {
        let (found, body) = (server.post("/v1/embeddings", &body), body.to_string());
        let body = &body[..body.len().min(90)];
        // A text without a token may have a vector of its ends alone; then there is nothing to refuse.
        if code == "empty" && param == "input[0]" && found.status == 200 {
            continue;
        }
        assert_eq!(found.refused(), (status, code.into(), param.into()), "{body}: {}", found.body);
        assert!(!found.body.contains("untagged"), "{body}: {}", found.body);
    }
    let json = [("content-type", "application/json")];
    let deep = "[".repeat(10_000);
    for (text, status) in [("", 400), ("{", 400), ("{\"input\": \"a\"} {}", 400), (deep.as_str(), 400), ("null", 422)] {
        assert_eq!(server.send("POST", "/v1/embeddings", &json, text.as_bytes()).status, status, "{text:.20}");
    }
    let plain = server.send("POST", "/v1/embeddings", &[("content-type", "text/plain")], b"{\"input\": \"a\"}");
    assert_eq!(plain.status, 415);
    assert_eq!(server.get("/v1/nothing").refused().0, 404);
    assert_eq!(server.get("/v1/embeddings").refused().0, 405);
    assert_eq!(server.get("/../../etc/passwd").status, 404);
    // Too long is refused by the head alone, and where no length is declared as soon as it is passed.
    let mut stream = server.connect();
    write!(
        stream,
        "POST /embed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 9000000000\r\n\r\n"
    )
    .unwrap();
    assert_eq!(reply(stream).status, 413);
    let mut stream = server.connect();
    write!(
        stream,
        "POST /embed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..64 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    assert_eq!(reply(stream).status, 413);
    // After all of it, it serves.
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).status, 200);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn only_hosts_origins_and_keys_that_are_allowed_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::start(folder.path(), &["--allow-origin", "https://pages.example", "--allow-host", "search.internal"]);
    let health = |headers: &[(&str, &str)]| server.send("GET", "/v1/models", headers, b"");
    for host in ["localhost", "127.0.0.1", "search.internal:80", "[::1]:1"] {
        assert_eq!(health(&[("host", host)]).status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", ""] {
        assert_eq!(health(&[("host", host)]).refused(), (403, "host_refused".into(), String::new()), "{host}");
    }
    let allowed = health(&[("origin", "https://pages.example")]);
    assert_eq!(
        (allowed.status, allowed.headers["access-control-allow-origin"].as_str()),
        (200, "https://pages.example")
    );
    assert_eq!(health(&[("origin", "https://evil.example")]).refused().1, "origin_refused");
    let own = format!("http://{}", server.address);
    assert_eq!(health(&[("origin", &own)]).status, 200);
    let preflight = server.send("OPTIONS", "/v1/embeddings", &[("origin", "https://pages.example")], b"");
    assert_eq!((preflight.status, preflight.headers["access-control-allow-methods"].as_str()), (204, "GET, POST"));

    fs::write(folder.path().join("keys"), "first-key\n\nsecond-key\n").unwrap();
    let server = Server::start(folder.path(), &["--api-key-file", "keys"]);
    let ask = |headers: &[(&str, &str)]| server.send("GET", "/v1/models", headers, b"");
    assert_eq!(ask(&[]).refused(), (401, "invalid_api_key".into(), String::new()));
    assert_eq!(ask(&[("authorization", "Bearer second-ke")]).status, 401);
    assert_eq!(ask(&[("authorization", "Bearer second-key"), ("host", "any.example")]).status, 200);
    assert_eq!(ask(&[("x-api-key", "first-key")]).status, 200);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn what_is_typed_wrong_is_said_before_anything_is_served() {
    let folder = records(&["bert-tiny"]);
    fs::write(folder.path().join("empty"), "\n").unwrap();
    for (args, code, said) in [
        (vec!["--model", "nowhere"], 2, "no such model"),
        (vec!["--model", "a=bert-tiny", "--model", "a=bert-tiny"], 2, "two models are called `a`"),
        (vec!["--model", "=bert-tiny"], 2, "a name is missing"),
        (vec!["--host", "example.org"], 2, "no IP address"),
        (vec!["--api-key-file", "nowhere"], 2, "--api-key-file nowhere"),
        (vec!["--api-key-file", "empty"], 2, "no key in it"),
        (vec!["--max-queue", "0"], 2, "--max-queue"),
        (vec!["--host", "203.0.113.1"], 2, "cannot be listened on"),
    ] {
        let found = run(omniburn().current_dir(&folder).args(["serve", "--port", "0"]).args(&args));
        assert!(found.code == code && found.stderr.contains(said), "{args:?}: {} {}", found.code, found.stderr);
    }
}

/// A text that takes the model a while: as long as it reads.
fn long_texts(count: usize) -> Value {
    json!((0..count).map(|i| format!("{i} {}", "many words of a long text ".repeat(30))).collect::<Vec<_>>())
}

#[test]
fn more_calls_than_are_taken_are_refused_at_once_and_told_when_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--max-queue", "2"]);
    let body = json!({"input": long_texts(64), "truncate": true});
    let replies: Vec<(Duration, Reply)> = std::thread::scope(|scope| {
        let ask = || {
            let begun = Instant::now();
            let reply = server.post("/v1/embeddings", &body);
            (begun.elapsed(), reply)
        };
        let asked: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let accepted: Vec<_> = replies.iter().filter(|(_, reply)| reply.status == 200).collect();
    let refused: Vec<_> = replies.iter().filter(|(_, reply)| reply.status == 429).collect();
    assert_eq!(accepted.len() + refused.len(), replies.len());
    assert!(accepted.len() >= 2 && !refused.is_empty(), "{} accepted", accepted.len());
    for (_, reply) in &refused {
        assert_eq!(reply.refused().1, "overloaded");
        assert!(reply.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    }
    let quickest = accepted.iter().map(|(took, _)| *took).min().unwrap();
    assert!(refused.iter().all(|(took, _)| *took < quickest), "a refusal waits for nobody");
    assert_eq!(server.metric("omniburn_calls_in_work"), 0.0);
}

/// For as long as this is short; `benches/peers/serve_soak.py overload` does it for a minute.
#[test]
fn ten_times_the_calls_that_are_taken_are_refused_at_once_and_two_seconds_later_it_is_as_idle_as_before() {
    const TAKEN: usize = 2;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--max-queue", &TAKEN.to_string()]);
    let small = json!({"input": "a red bicycle"});
    let p50 = || {
        let ask = || {
            let begun = Instant::now();
            let reply = server.post("/v1/embeddings", &small);
            (reply.status, begun.elapsed())
        };
        let mut times: Vec<(u16, Duration)> = (0..9).map(|_| ask()).collect();
        times.sort_by_key(|(_, took)| *took);
        let served = times.iter().all(|(status, _)| *status == 200);
        served.then(|| times[times.len() / 2].1)
    };
    p50();
    let before = p50().expect("nobody else asks");
    let until = Instant::now() + Duration::from_secs(3);
    let replies: Vec<(Duration, u16)> = std::thread::scope(|scope| {
        let server = &server;
        let press = move |client: usize| {
            let mut replies = Vec::new();
            while Instant::now() < until {
                // No two texts are the same: equal ones would be computed once.
                let text = |i| format!("{client} {} {i} {}", replies.len(), "many words of a text ".repeat(12));
                let texts: Vec<String> = (0..8).map(text).collect();
                let begun = Instant::now();
                let reply = server.post("/v1/embeddings", &json!({"input": texts, "truncate": true}));
                replies.push((begun.elapsed(), reply.status));
                if reply.status == 429 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            replies
        };
        let clients: Vec<_> = (0..10 * TAKEN).map(|client| scope.spawn(move || press(client))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let ended = Instant::now();
    let of = |status: u16| {
        let mut times: Vec<Duration> =
            replies.iter().filter(|(_, found)| *found == status).map(|(took, _)| *took).collect();
        times.sort();
        times
    };
    let (accepted, refused) = (of(200), of(429));
    assert_eq!(accepted.len() + refused.len(), replies.len());
    assert!(
        !accepted.is_empty() && refused.len() > accepted.len(),
        "{} taken, {} refused",
        accepted.len(),
        refused.len()
    );
    // At once: before what is accepted is answered.
    let (median_refused, median_accepted) = (refused[refused.len() / 2], accepted[accepted.len() / 2]);
    assert!(median_refused < median_accepted, "refused after {median_refused:?}, answered after {median_accepted:?}");
    // As before, but for what a busy machine does to nine requests.
    let enough = 2 * before + Duration::from_millis(10);
    while p50().is_none_or(|after| after > enough) {
        assert!(ended.elapsed() < Duration::from_secs(2), "2 s later p50 is {:?}, before it was {before:?}", p50());
    }
    assert_eq!(server.metric("omniburn_calls_in_work"), 0.0);
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--max-queue", "4"]);
    let body = json!({"input": long_texts(2000), "truncate": true}).to_string();
    for _ in 0..4 {
        let mut stream = server.connect();
        let head = format!("POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).unwrap();
        let begun = Instant::now();
        while server.metric("omniburn_calls_in_work") == 0.0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the call did not begin");
        }
        drop(stream);
        let begun = Instant::now();
        while server.metric("omniburn_calls_in_work") > 0.0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the call went on for nobody");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).status, 200);
}

#[test]
fn at_sigterm_what_was_accepted_is_answered_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let body = json!({"input": long_texts(64), "truncate": true});
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| server.post("/v1/embeddings", &body))).collect();
        let begun = Instant::now();
        while server.metric("omniburn_calls_in_work") < 4.0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the calls did not begin");
        }
        server.signal("-TERM");
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(replies.iter().all(|reply| vectors(reply).len() == 64));
    assert_eq!(server.ended(Duration::from_secs(35)), Some(0));
    assert!(TcpStream::connect(&server.address).is_err());
    assert!(server.said.lock().unwrap().try_iter().all(|line| !line.contains("not done")));
}

#[test]
fn the_description_names_the_paths_that_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let described = server.get("/openapi.json").json();
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() > 10);
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{name}", "omniburn-mini");
            let reply = server.send(&method.to_uppercase(), &path, &[("content-type", "application/json")], b"{}");
            let unknown = reply.body.contains("no such path");
            assert!(
                !unknown && !matches!(reply.status, 405 | 500..),
                "{method} {path}: {} {}",
                reply.status,
                reply.body
            );
        }
    }
    let page = server.get("/");
    assert!(
        page.body.contains("<title>omniburn</title>")
            && page.headers["content-security-policy"].contains("default-src 'self'")
    );
    // A name of the surface is in the description of the request that takes it.
    let fields = &described["components"]["schemas"]["Embeddings"]["properties"];
    assert!(fields["encoding_format"].is_object() && fields["task"].is_object());
}

/// A user with an index of some samples.
struct Searcher {
    folder: TempDir,
}

impl Searcher {
    fn new(files: &[&str]) -> Self {
        let user = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(user.files()).unwrap();
        for name in files {
            fs::copy(sample(name), user.files().join(name)).unwrap();
        }
        let indexed = run(user.command("index").arg(user.files()));
        assert_eq!(indexed.code, 0, "{}", indexed.stderr);
        user
    }

    /// Of every sample.
    fn with_samples() -> Self {
        let all = fs::read_dir(sample("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let all: Vec<String> = all
            .filter(|name| !["make.py", "LICENCES.md", "SHA256SUMS", "searches.json"].contains(&name.as_str()))
            .collect();
        Self::new(&all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn files(&self) -> std::path::PathBuf {
        self.folder.path().join("files")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = omniburn();
        command.current_dir(&self.folder).env("XDG_DATA_HOME", self.folder.path().join("data")).arg(verb);
        command
    }

    fn serve(&self, args: &[&str]) -> Server {
        Server::of(self.command("serve").args(["--port", "0"]).args(args))
    }
}

const SAMPLES: [&str; 7] = [
    "cat.jpg",
    "sailboat.png",
    "boat-sailing.mp4",
    "speech-where-is-the-guitar.wav",
    "guitar.png",
    "poem.txt",
    "bicycle-repair.txt",
];

#[test]
fn searches_find_what_the_command_line_finds() {
    let user = Searcher::new(&SAMPLES);
    let server = user.serve(&[]);
    for query in ["a ship under sail", "bicycle -blue", "type:image guitar", "\"back tyre\""] {
        let want = run(user.command("search").args(["--json", "-n", "5", query])).lines();
        let found = server.post("/v1/search", &json!({"query": query, "n": 5})).json();
        assert_eq!(found["data"].as_array().unwrap_or_else(|| panic!("{found}")), &want, "{query}");
        let by_url = server.get(&format!("/v1/search?n=5&q={}", query.replace(' ', "+").replace('"', "%22"))).json();
        assert_eq!(by_url["data"], found["data"], "{query}");
    }
    // Matched words are where they are said to be.
    let found = server.get("/v1/search?q=tyre&n=1").json();
    let snippet: Vec<u16> = found["data"][0]["snippet"].as_str().unwrap().encode_utf16().collect();
    let [from, to] = [0, 1].map(|i| found["lit"][0][0][i].as_u64().unwrap() as usize);
    assert_eq!(String::from_utf16(&snippet[from..to]).unwrap().to_lowercase(), "tyre");
    // With an image, with what is spoken, and with a file of the index.
    let like = |body: Value| {
        let found = server.post("/v1/search", &body).json();
        let path = found["data"][0]["path"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned();
        (path, found["data"][0]["id"].as_str().unwrap().to_owned())
    };
    let (path, cat) = like(json!({"query": {"image": base64_of(&sample("cat.jpg"))}, "kind": "image"}));
    assert!(path.ends_with("cat.jpg"));
    let spoken = json!({"query": {"audio": base64_of(&sample("speech-where-is-the-guitar.wav"))}, "kind": "image"});
    assert!(like(spoken).0.ends_with("guitar.png"));
    assert!(!like(json!({"like": cat, "kind": "image"})).0.ends_with("cat.jpg"));
    let status = server.get("/v1/index").json();
    assert_eq!((&status["files"]["image"], &status["files"]["text"]), (&json!(3), &json!(2)));
    for (query, status, param) in [
        ("q=", 400, "q"),
        ("q=type:image", 400, "q"),
        ("q=type:sculpture+x", 400, "q"),
        ("q=x&kind=sculpture", 400, "kind"),
        ("q=x&n=0", 400, "n"),
        ("q=x&min_score=2", 400, "min_score"),
        ("q=x&after=someday", 400, "after"),
        ("q=x&like=abcd", 400, "q"),
        ("like=abcd", 404, "id"),
        ("q=x&mode=magic", 400, "query"),
    ] {
        let refused = server.get(&format!("/v1/search?{query}"));
        assert_eq!(refused.refused(), (status, refused.refused().1, param.into()), "{query}: {}", refused.body);
    }
    // A new file is found soon after it is there.
    fs::copy(sample("coffee.jpg"), user.files().join("new.jpg")).unwrap();
    let begun = Instant::now();
    while server.get("/v1/index").json()["files"]["image"] != 4 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the new file was not seen");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What `search --rerank` gives, over HTTP and for an agent.
#[test]
fn a_served_reranker_reads_the_best_hits_again_as_on_the_command_line() {
    let user = Searcher::new(&["poem.txt", "bicycle-repair.txt", "cat.jpg", "guitar.png"]);
    let records = records(&["bge-reranker-tiny", "bert-tiny"]);
    let path = |name: &str| records.path().join(name).to_str().unwrap().to_owned();
    let (reranker, vectors) = (path("bge-reranker-tiny"), path("bert-tiny"));
    let query = "how to mend a tyre";
    let search = |args: &[&str]| run(user.command("search").args(["--json", query]).args(args)).lines();
    let (want, plain) = (search(&["--rerank", &reranker]), search(&[]));
    assert!(want.len() == 4 && want[1]["scores"]["rerank"].is_number() && want[2]["scores"]["rerank"].is_null());
    assert_ne!(want, plain);

    let (named, other) = (format!("rank={reranker}"), format!("embed={vectors}"));
    let server = user.serve(&["--model", "omniburn-mini", "--model", &named, "--model", &other]);
    for (asked, hits) in [(json!(true), &want), (json!("rank"), &want), (json!(false), &plain), (Value::Null, &plain)] {
        let found = server.post("/v1/search", &json!({"query": query, "rerank": asked})).json();
        assert_eq!(found["data"].as_array().unwrap_or_else(|| panic!("{found}")), hits, "{asked}");
    }
    let by_url = |server: &Server, rest: &str| server.get(&format!("/v1/search?q={}{rest}", query.replace(' ', "+")));
    for (rest, hits) in
        [("&rerank=true", &want), ("&rerank=rank", &want), ("&rerank=false", &plain), ("&rerank=", &plain)]
    {
        assert_eq!(by_url(&server, rest).json()["data"].as_array().unwrap(), hits, "{rest}");
    }
    assert_eq!(by_url(&server, "&rerank=true&n=1").json()["data"].as_array().unwrap(), &want[..1]);
    for (body, status, code, param) in [
        (json!({"query": query, "rerank": "embed"}), 400, "invalid_value", "rerank"),
        (json!({"query": query, "rerank": "nowhere"}), 404, "model_not_found", "rerank"),
        (json!({"query": query, "rerank": 3}), 422, "invalid_value", "rerank"),
        (json!({"like": want[0]["id"], "rerank": true}), 400, "invalid_value", "rerank"),
        (json!({"query": "type:image", "rerank": true}), 400, "invalid_value", "q"),
    ] {
        let refused = server.post("/v1/search", &body);
        assert_eq!(refused.refused(), (status, code.into(), param.into()), "{body}: {}", refused.body);
    }
    let several =
        user.serve(&["--model", "omniburn-mini", "--model", &named, "--model", &format!("second={reranker}")]);
    let refused = by_url(&several, "&rerank=true");
    assert_eq!(refused.refused(), (400, "invalid_value".into(), "rerank".into()), "{}", refused.body);
    assert!(refused.body.contains("name one: rank, second"), "{}", refused.body);
    assert_eq!(by_url(&several, "&rerank=second").json()["data"].as_array().unwrap(), &want);
    let none = user.serve(&[]);
    assert_eq!(by_url(&none, "&rerank=true").refused(), (404, "no_reranker".into(), "rerank".into()));

    let mut agent = user.command("mcp");
    agent.args(["--model", "omniburn-mini", "--model", &named]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    let (mut input, mut answers) = (agent.stdin.take().unwrap(), BufReader::new(agent.stdout.take().unwrap()).lines());
    let mut ask = |message: Value| writeln!(input, "{message}").unwrap();
    let mut answer = || serde_json::from_str::<Value>(&answers.next().unwrap().unwrap()).unwrap();
    let about =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    ask(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}));
    answer();
    ask(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    for (asked, hits) in [(json!(true), &want), (json!("rank"), &want), (Value::Null, &plain)] {
        let given = json!({"query": query, "related_only": false, "rerank": asked});
        let call = json!({"name": "search", "arguments": given});
        ask(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}));
        let found = answer();
        let found = found["result"]["structuredContent"]["hits"].as_array().unwrap_or_else(|| panic!("{found}"));
        assert_eq!(found, hits, "{asked}");
    }
    let call = json!({"name": "search", "arguments": {"query": query, "rerank": "nowhere"}});
    ask(json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call}));
    let refused = answer();
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert!(refused["result"]["content"][0]["text"].as_str().unwrap().starts_with("rerank: "), "{refused}");
    drop(input);
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

/// A page asks for the status and the map as long as it is open.
#[test]
fn an_open_page_does_not_keep_a_model_loaded_and_a_search_brings_it_back() {
    let user = Searcher::new(&["cat.jpg", "poem.txt"]);
    let server = user.serve(&["--idle-unload", "1"]);
    let loaded = || server.get("/v1/models/omniburn-mini").json()["loaded"] == true;
    assert!(loaded());
    fs::write(user.files().join("broken.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let begun = Instant::now();
    while loaded() {
        let status = server.get("/v1/index").json();
        assert_eq!(status["files"]["image"], 1, "{status}");
        assert_eq!(server.get("/v1/map").json()["points"].as_array().unwrap().len(), 2);
        assert!(begun.elapsed() < Duration::from_secs(30), "it is not unloaded while a page is open");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Without the model the database still answers, and nothing opens it again.
    for _ in 0..3 {
        let status = server.get("/v1/index").json();
        assert!(status["updated"].as_f64().is_some() && status["indexing"].is_null(), "{status}");
        assert_eq!(server.get("/v1/map").status, 200);
    }
    assert!(!loaded(), "a look at the index opened the model");
    assert_eq!(server.get("/v1/search?q=cat&n=1").json()["data"].as_array().unwrap().len(), 1);
    assert!(loaded());
    // The model is there, so that the next look sees the new file.
    let begun = Instant::now();
    while server.get("/v1/index").json()["failed"].as_array().unwrap().is_empty() {
        server.get("/v1/search?q=cat&n=1");
        assert!(begun.elapsed() < Duration::from_secs(60), "the file that failed was not seen");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_map_puts_alike_files_together_and_is_made_once_an_index() {
    let user = Searcher::with_samples();
    let server = user.serve(&["--no-refresh"]);
    let first = server.get("/v1/map");
    let map = first.json();
    let points = map["points"].as_array().unwrap();
    assert_eq!(map["files"], points.len());
    let kinds =
        server.get("/v1/index").json()["files"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!(points.len() as u64, kinds);
    let place = |point: &Value| ["x", "y"].map(|axis| point[axis].as_f64().unwrap());
    assert!(points.iter().all(|point| place(point).iter().all(|value| value.is_finite() && value.abs() <= 2.0)));
    let mean = |axis: usize| points.iter().map(|point| place(point)[axis]).sum::<f64>() / points.len() as f64;
    assert!(mean(0).abs() < 1e-4 && mean(1).abs() < 1e-4);
    let [first_share, second_share] = [0, 1].map(|at| map["explained"][at].as_f64().unwrap());
    assert!(
        first_share >= second_share && second_share > 0.0 && first_share + second_share < 1.0,
        "{}",
        map["explained"]
    );
    // A point's id opens its file.
    let cat = points.iter().find(|point| point["path"].as_str().unwrap().ends_with("cat.jpg")).unwrap();
    let opened = server.get(&format!("/v1/items/{}", cat["id"].as_str().unwrap()));
    assert_eq!((opened.status, opened.headers["content-type"].as_str()), (200, "image/jpeg"));
    assert_eq!(server.get("/v1/map").body, first.body);
    // Another index is another map, without a new start.
    fs::remove_file(user.files().join("cat.jpg")).unwrap();
    assert_eq!(run(user.command("index").arg(user.files())).code, 0);
    let without = server.get("/v1/map").json();
    assert_eq!(without["points"].as_array().unwrap().len() + 1, points.len());
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Server::start(folder.path(), &[]).get("/v1/map").refused().1, "no_index");
}

#[test]
fn only_files_of_the_index_are_given_and_none_is_run() {
    let user = Searcher::new(&["cat.jpg", "boat-sailing.mp4", "poem.txt"]);
    fs::write(
        user.files().join("page.html"),
        "<html><body>A poem of the harbour<script>alert(1)</script></body></html>",
    )
    .unwrap();
    fs::write(user.folder.path().join("secret.txt"), "a secret").unwrap();
    std::os::unix::fs::symlink(user.folder.path().join("secret.txt"), user.files().join("link.txt")).unwrap();
    assert_eq!(run(user.command("index").arg(user.files())).code, 0);
    let server = user.serve(&[]);
    let id = |query: &str| {
        server.get(&format!("/v1/search?n=1&q={query}")).json()["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let image = server.get(&format!("/v1/items/{}", id("cat+type:image")));
    assert_eq!((image.status, image.headers["content-type"].as_str()), (200, "image/jpeg"));
    let part = server.send("GET", &format!("/v1/items/{}", id("boat+type:video")), &[("range", "bytes=4-7")], b"");
    assert_eq!((part.status, part.body.as_str(), part.headers["content-type"].as_str()), (206, "ftyp", "video/mp4"));
    let small = server.get(&format!("/v1/items/{}/thumbnail", id("boat+type:video")));
    assert_eq!((small.status, small.headers["content-type"].as_str()), (200, "image/png"));
    assert_eq!(server.get(&format!("/v1/items/{}/thumbnail", id("type:text+poem"))).status, 404);
    let wrong = ["/v1/items/%ff", "/v1/items/%ff/thumbnail", "/v1/items/0/thumbnail?other=1", "/v1/models/%ff"];
    for wrong in wrong.map(|path| server.get(path)) {
        assert_eq!(
            (wrong.status, wrong.json()["error"]["code"].as_str()),
            (400, Some("invalid_value")),
            "{}",
            wrong.body
        );
    }
    let html = server.get(&format!("/v1/items/{}", id("type:html+harbour")));
    assert_eq!((html.status, html.headers["content-type"].as_str()), (200, "text/plain; charset=utf-8"));
    assert!(
        html.headers["content-security-policy"].contains("sandbox")
            && html.headers["x-content-type-options"] == "nosniff"
    );
    let lines = server.get(&format!("/v1/items/{}?at=line=1-2", id("type:text+poem")));
    let poem = fs::read_to_string(sample("poem.txt")).unwrap();
    assert_eq!(lines.body, poem.lines().take(2).collect::<Vec<_>>().join("\n"));
    for (path, status) in [
        ("/v1/items/..%2f..%2fsecret.txt", 404),
        ("/v1/items/0000", 404),
        ("/v1/items/%2fetc%2fpasswd", 404),
        ("/v1/items/", 404),
        ("/files/cat.jpg", 404),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    let at = |place: &str| server.get(&format!("/v1/items/{}?at={place}", id("type:text+poem"))).status;
    assert_eq!([at("page=0"), at("t=1"), at("line=9999"), at("chapter=1")], [400, 400, 404, 400]);
    // A link out of the folder is no file of the index.
    let found = server.get("/v1/search?q=secret&mode=words").json();
    assert_eq!(found["data"], json!([]), "{found}");
}

#[test]
fn a_server_without_an_index_says_how_to_begin_one_and_one_of_another_model_is_refused_or_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.get("/v1/search?q=x").refused().1, "no_index");
    assert!(server.get("/v1/index").body.contains("omniburn index"));
    let user = Searcher::new(&["poem.txt"]);
    let records = records(&["bert-tiny"]);
    let other = records.path().join("bert-tiny");
    let named = run(user.command("serve").args(["--port", "0", "--index", "default", "--model"]).arg(&other));
    assert!(named.code == 3 && named.stderr.contains("omniburn"), "{}: {}", named.code, named.stderr);
    let server = user.serve(&["--model", other.to_str().unwrap()]);
    assert_eq!(server.get("/v1/search?q=x").refused().1, "no_index");
    let missing = run(user.command("serve").args(["--port", "0", "--index", "nowhere"]));
    assert_eq!(missing.code, 2, "{}", missing.stderr);
}

/// The official client of the Model Context Protocol, on standard input and output and over HTTP.
#[test]
fn an_agent_searches_and_opens_what_it_found() {
    let Some(python) = clients() else {
        let _ = writeln!(std::io::stderr(), "NOT RUN: an agent's client; `sh tests/clients/install.sh` gets it");
        return;
    };
    let user = Searcher::with_samples();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/agent.py");
    let data = user.folder.path().join("data");
    let done = Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_omniburn")).arg(data).output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success() && said.contains("stdio: revision") && said.contains("http: revision"), "{said}");
}

#[test]
fn an_agent_is_answered_line_by_line_and_settings_of_clients_are_printed() {
    let user = Searcher::new(&["poem.txt"]);
    let mut child = user.command("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    let about =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    writeln!(input, "{}", json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about})).unwrap();
    let hello: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
    assert_eq!(hello["result"]["protocolVersion"], "2025-06-18");
    writeln!(input, "{}", json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).unwrap();
    writeln!(input, "{}", json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).unwrap();
    let listed: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
    let names: Vec<&Value> = listed["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["search", "get", "status"]);
    // The end of the input is the end.
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(run(&mut user.command("mcp")).code, 0);
    for client in ["claude", "cursor", "vscode", "zed"] {
        let settings = run(user.command("mcp").args(["config", client]));
        let settings: Value = serde_json::from_str(&settings.stdout).unwrap();
        assert!(settings.to_string().contains("[\"mcp\"]"), "{client}: {settings}");
    }
    assert_eq!(run(user.command("mcp").args(["config", "emacs"])).code, 2);
}

/// A browser, and the folder where `tests/clients/install.sh` puts what drives it.
fn browser() -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    let program =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(std::path::PathBuf::from);
    let program = program.into_iter().find(|program| program.is_file())?;
    let packages = clients()?.ancestors().nth(2)?.join("page");
    packages.join("node_modules/playwright-core").is_dir().then_some((program, packages))
}

/// Typing, keys, kinds, players, a dropped image, a phone's width, dark, and axe's rules.
#[test]
fn the_page_works_in_a_browser() {
    let Some((program, packages)) = browser() else {
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: the page in Chromium; `sh tests/clients/install.sh` gets what drives it"
        );
        return;
    };
    let user = Searcher::with_samples();
    let server = user.serve(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/page.mjs").canonicalize().unwrap();
    let mut node = Command::new("node");
    node.current_dir(packages).env("CHROMIUM", program).arg(script).arg(format!("http://{}", server.address));
    let done = node.arg(sample("cat.jpg").canonicalize().unwrap()).arg(user.folder.path()).output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success(), "{said}");
}

/// Where `tests/clients/install.sh` puts the published clients.
fn clients() -> Option<std::path::PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    let python = cache.join("omniburn/clients/bin/python");
    (python.is_file() && cache.join("omniburn/clients/installed").is_file()).then_some(python)
}

/// OpenAI's and the Model Context Protocol's packages for JavaScript.
#[test]
fn published_clients_in_javascript_work_unchanged() {
    let packages = clients().map(|python| python.ancestors().nth(2).unwrap().join("page"));
    let Some(packages) = packages.filter(|folder| folder.join("node_modules/openai").is_dir()) else {
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: published clients in JavaScript; `sh tests/clients/install.sh` gets them"
        );
        return;
    };
    let user = Searcher::with_samples();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/clients.mjs").canonicalize().unwrap();
    let mut node = Command::new("node");
    node.current_dir(packages).arg(script).arg(env!("CARGO_BIN_EXE_omniburn")).arg(user.folder.path().join("data"));
    let done = node.output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success(), "{said}");
    for what in ["openai, float", "openai, base64", "mcp, stdio: status", "mcp, http: status"] {
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// OpenAI's, LangChain's, LlamaIndex's, Hugging Face's and Cohere's packages, and schemathesis over the description.
#[test]
fn published_clients_work_unchanged() {
    let Some(python) = clients() else {
        let _ = writeln!(std::io::stderr(), "NOT RUN: published clients; `sh tests/clients/install.sh` gets them");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/clients.py");
    let done =
        Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_omniburn")).arg(folder.path()).output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success(), "{said}");
    for name in ["openai", "langchain-openai", "huggingface_hub", "llama-index", "cohere v2", "passed"] {
        assert!(said.contains(name), "{name}: {said}");
    }
}

/// Requests whose clients go away at any moment leave nothing behind; as many as `OMNIBURN_DROPS` says.
#[test]
fn clients_that_go_away_leave_no_thread_descriptor_or_memory_behind() {
    let drops: usize = std::env::var("OMNIBURN_DROPS").map_or(600, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let body = json!({"input": long_texts(4), "truncate": true}).to_string();
    let head = format!("POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), body.as_bytes()].concat();
    let drop_some = |count: usize| {
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    loop {
                        let turn = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        if turn >= count {
                            return;
                        }
                        let mut stream = server.connect();
                        // In the head, in the body, before the answer, in it, and some after all of it.
                        let sent = [20, head.len() + 50, request.len()][turn % 3];
                        let _ = stream.write_all(&request[..sent]);
                        match turn % 30 {
                            2 => drop(stream.read(&mut [0; 1])),
                            5 => std::thread::sleep(Duration::from_millis(turn as u64 % 7)),
                            _ => {}
                        }
                    }
                });
            }
        });
        let begun = Instant::now();
        while server.metric("omniburn_calls_in_work") > 0.0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "calls went on for nobody");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let figures = || {
        let process = format!("/proc/{}", server.child.id());
        let Ok(status) = fs::read_to_string(format!("{process}/status")) else { return None };
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
        };
        let open = fs::read_dir(format!("{process}/fd")).unwrap().count();
        Some([number("Threads:"), open, number("RssAnon:")])
    };
    // Pools and caches are filled by the first ones.
    drop_some(drops.min(300));
    let Some(before) = figures() else {
        let _ = writeln!(std::io::stderr(), "NOT RUN: the figures of a process are read from /proc");
        return;
    };
    drop_some(drops);
    let begun = Instant::now();
    loop {
        let [threads, open, kib] = figures().unwrap();
        let flat = threads <= before[0] + 16 && open <= before[1] + 8 && kib <= before[2] + before[2] / 4 + (32 << 10);
        if flat {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{before:?} became {:?}", [threads, open, kib]);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).status, 200);
}

/// `packaging/omniburn.service`, with this program in the place of an installed one.
#[test]
fn the_unit_for_systemd_is_one_and_a_service_needs_neither_a_home_nor_a_place_to_write_to() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let unit = fs::read_to_string(packaging.join("omniburn.service")).unwrap();
    let installed = "%h/.cargo/bin/omniburn";
    assert!(unit.contains(&format!("ExecStart={installed} serve")), "{unit}");
    let folder = tempfile::tempdir().unwrap();
    let placed = folder.path().join("omniburn.service");
    fs::write(&placed, unit.replace(installed, env!("CARGO_BIN_EXE_omniburn"))).unwrap();
    match Command::new("systemd-analyze")
        .env("XDG_RUNTIME_DIR", folder.path())
        .args(["verify", "--user", "--man=no"])
        .arg(&placed)
        .output()
    {
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("omniburn.service")).collect();
            assert!(done.status.success() && ours.is_empty(), "{said}");
        }
        Err(_) => {
            let _ = writeln!(std::io::stderr(), "NOT RUN: systemd-analyze is not installed");
        }
    }
    let mut command = omniburn();
    command.current_dir("/").env_clear().env("HOME", "/nonexistent").args(["serve", "--port", "0"]);
    let mut server = Server::of(&mut command);
    assert_eq!(server.get("/health").json()["status"], "ok");
    assert_eq!(server.get("/ready").json()["status"], "ready");
    assert_eq!(vectors(&server.post("/v1/embeddings", &json!({"input": "a"}))).len(), 1);
    server.signal("-TERM");
    assert_eq!(server.ended(Duration::from_secs(35)), Some(0));
}

/// `packaging/Containerfile`: its entry point as its user, in a root that cannot be written to and holds the program, the shared
/// libraries it names and the keys.
#[test]
fn the_container_needs_nothing_but_the_program_in_a_root_that_is_read_only() {
    use std::os::unix::fs::PermissionsExt;

    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/Containerfile")).unwrap();
    let (build, image) = text.rsplit_once("\nFROM ").unwrap();
    assert!(build.contains("--package omniburn-cli"), "{build}");
    let of =
        |name: &str| image.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}")).trim();
    let (copied, placed) = of("COPY --from=build ").split_once(' ').unwrap();
    assert!(copied.ends_with("/target/release/omniburn") && placed == "/omniburn", "{copied} {placed}");
    let user: Vec<u32> = of("USER ").split(':').map(|id| id.parse().unwrap()).collect();
    assert!(user.len() == 2 && !user.contains(&0), "{user:?}");
    let entry: Vec<String> = serde_json::from_str(of("ENTRYPOINT ")).unwrap();
    assert_eq!(entry[..2], [placed, "serve"]);

    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let program = env!("CARGO_BIN_EXE_omniburn");
    let libraries = Command::new("ldd").arg(program).output();
    let unshared = Command::new("unshare").args(["--mount", "true"]).output();
    let (Ok(libraries), true) = (libraries, unshared.is_ok_and(|done| done.status.success())) else {
        let _ = writeln!(std::io::stderr(), "NOT RUN: the container's root needs ldd, and unshare as root");
        return;
    };
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let libraries: Vec<&str> = libraries.split_whitespace().filter(|word| word.starts_with('/')).collect();
    assert!(!libraries.is_empty());
    for (from, to) in libraries.iter().map(|path| (*path, *path)).chain([(program, placed)]) {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    fs::write(root.join("keys.txt"), "a key\n").unwrap();
    for path in [folder.path(), &root] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && root="$1" user="$2" && shift 2 && \
        exec chroot --userspec="$user" "$root" "$@""#;
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(&root).arg(of("USER ")).args(&entry).args(["--port", "0", "--api-key-file", "/keys.txt"]);
    let mut server = Server::of(&mut command);
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(ids.split_whitespace().all(|id| id == user[0].to_string()), "{ids}");
    assert_eq!(server.get("/health").json()["status"], "ok");
    assert_eq!(server.get("/ready").json()["status"], "ready");
    let headers = [("content-type", "application/json"), ("authorization", "Bearer a key")];
    let body = json!({"input": "a red bicycle"}).to_string();
    assert_eq!(vectors(&server.send("POST", "/v1/embeddings", &headers, body.as_bytes())).len(), 1);
    server.signal("-TERM");
    assert_eq!(server.ended(Duration::from_secs(35)), Some(0));
}

#[test]
fn a_thousand_slow_connections_do_not_keep_others_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let slow: Vec<TcpStream> = (0..1000)
        .map_while(|_| {
            let mut stream = TcpStream::connect(&server.address).ok()?;
            stream.write_all(b"POST /embed HTTP/1.1\r\nhost: localhost\r\nx-a: ").ok()?;
            Some(stream)
        })
        .collect();
    if slow.len() < 1000 {
        let _ = writeln!(std::io::stderr(), "{} slow connections of 1,000: no more descriptors here", slow.len());
    }
    assert!(slow.len() > 100);
    let begun = Instant::now();
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_collector_is_refused_by_name_where_the_program_was_built_without() {
    let refused = run(omniburn().args(["serve", "--port", "0", "--otlp-endpoint", "http://localhost:4318"]));
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--otlp-endpoint") && refused.stderr.contains("`otel`"), "{}", refused.stderr);
}

#[cfg(feature = "otel")]
#[test]
fn spans_of_requests_reach_a_collector_without_what_their_texts_say() {
    use std::collections::BTreeSet;

    let wrong = run(omniburn().args(["serve", "--port", "0", "--otlp-endpoint", "localhost:4318"]));
    assert!(wrong.code == 2 && wrong.stderr.contains("--otlp-endpoint localhost:4318"), "{}", wrong.stderr);

    let (folder, collector) = (tempfile::tempdir().unwrap(), collector::Collector::start());
    let mut server =
        Server::start(folder.path(), &["--otlp-endpoint", &format!("http://127.0.0.1:{}/", collector.port)]);
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let traceparent = format!("00-{trace}-{parent}-01");
    let headers = [("content-type", "application/json"), ("traceparent", traceparent.as_str())];
    let body = json!({"input": ["a sentence about velocipedes", "another of quinces"]}).to_string();
    let first = server.send("POST", "/v1/embeddings", &headers, body.as_bytes());
    let second = server.post("/v1/embeddings", &json!({"input": "a sentence about marmalade", "input_type": "query"}));
    assert_eq!((first.status, second.status), (200, 200), "{}{}", first.body, second.body);
    server.signal("-TERM");
    assert_eq!(server.ended(Duration::from_secs(60)), Some(0));

    let exports = collector.exports();
    assert!(!exports.is_empty());
    for export in &exports {
        assert_eq!(export.path, "/v1/traces");
        assert_eq!(export.content_type, "application/x-protobuf");
        assert_eq!(export.service, "omniburn");
        let said = String::from_utf8_lossy(&export.bytes);
        for word in ["velocipedes", "quinces", "marmalade"] {
            assert!(!said.contains(word), "{word} was sent");
        }
    }
    let spans: Vec<&collector::Span> = exports.iter().flat_map(|export| &export.spans).collect();
    for (reply, remote) in [(&first, true), (&second, false)] {
        let id = &reply.headers["x-request-id"];
        let of_request = |span: &&&collector::Span| span.attributes.get("id") == Some(id);
        let request = spans.iter().find(of_request).unwrap_or_else(|| panic!("no span of request {id}: {spans:?}"));
        assert_eq!(request.name, "POST /v1/embeddings");
        assert_eq!(request.attributes["http.route"], "/v1/embeddings");
        assert_eq!(request.attributes["http.response.status_code"], "200");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match remote {
            true => assert_eq!((hex(&request.trace), hex(&request.parent)), (trace.to_owned(), parent.to_owned())),
            false => assert!(request.parent.is_empty() && hex(&request.trace) != trace),
        }
        let below: Vec<_> = spans.iter().filter(|span| span.trace == request.trace && span.id != request.id).collect();
        let names: BTreeSet<&str> = below.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["compute", "queue", "tokenise", "unit"]));
        assert_eq!(below.iter().filter(|span| span.name == "tokenise").count(), if remote { 2 } else { 1 });
        for span in below {
            assert!(request.start <= span.start && span.start <= span.end && span.end <= request.end, "{span:?}");
            // Each is below the request, or below a unit that is.
            let unit = spans.iter().find(|unit| unit.id == span.parent && unit.name == "unit");
            let above = unit.map_or(&span.parent, |unit| &unit.parent);
            assert_eq!(above, &request.id, "{span:?}");
            assert_eq!(unit.is_some(), matches!(span.name.as_str(), "queue" | "compute"), "{span:?}");
        }
    }
}
