//! An index on a Postgres server, as users of the program have it: `index`, `search`, `get` and `serve` give what one SQLite file
//! gives.

#[path = "../../../index/tests/index/server.rs"]
mod database;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::serve::Server;
use crate::support::{Run, omniburn, run};

const FILES: [&str; 5] = ["coffee.jpg", "guitar.png", "pancakes.txt", "cat.jpg", "speech-where-is-the-guitar.wav"];

fn folder_of_samples() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("files")).unwrap();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini/samples");
    for name in FILES {
        fs::copy(samples.join(name), folder.path().join("files").join(name)).unwrap();
    }
    folder
}

fn verb(folder: &TempDir, args: &[&str]) -> Run {
    let done = run(omniburn().current_dir(folder).env("XDG_DATA_HOME", folder.path().join("data")).args(args));
    assert_eq!(done.code, 0, "{args:?}: {}{}", done.stdout, done.stderr);
    done
}

#[test]
fn a_server_holds_an_index_that_is_searched_opened_and_served_as_a_file_is() {
    let Some(address) = database::address() else { return };
    let folder = folder_of_samples();
    let places = ["kept".to_owned(), format!("{address}&schema=of_the_program")];
    for place in &places {
        let report = verb(&folder, &["index", "files", "--index", place, "--json"]).lines().remove(0);
        assert_eq!(report["new"], FILES.len(), "{report}");
    }
    let hits = |place: &str, args: &[&str]| {
        verb(&folder, &[&["search", "--json", "--no-refresh", "--index", place], args].concat()).lines()
    };
    for args in [
        &["a drink for breakfast"][..],
        &["two eggs and flour", "--mode", "words"],
        &["--like", "files/cat.jpg"],
        &["type:audio a guitar"],
    ] {
        let found = hits(&places[0], args);
        assert!(!found.is_empty(), "{args:?}");
        assert_eq!(hits(&places[1], args), found, "{args:?}");
    }
    let id = hits(&places[1], &["two eggs and flour in a bowl type:text"])[0]["id"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(folder.path().join("files/pancakes.txt")).unwrap();
    assert_eq!(verb(&folder, &["get", "--index", &places[1], &id]).stdout.trim_end(), text.trim_end());

    let mut found: Vec<Value> = Vec::new();
    for place in &places {
        let mut server = Server::start(folder.path(), &["--index", place]);
        let reply = server.get("/v1/search?q=a+drink+for+breakfast&n=3");
        assert_eq!(reply.status, 200, "{}", reply.body);
        found.push(reply.json()["data"].clone());
        assert_eq!(server.get("/v1/index").status, 200);
        server.signal("-TERM");
        assert_eq!(server.ended(Duration::from_secs(30)), Some(0));
    }
    assert!(found[0].as_array().is_some_and(|hits| !hits.is_empty()), "{found:?}");
    assert_eq!(found[0], found[1]);

    let wrong =
        run(omniburn().current_dir(&folder).args(["search", "x", "--index", "postgres://nobody@127.0.0.1:1/x"]));
    assert!(wrong.code != 0 && wrong.stderr.contains("127.0.0.1:1"), "{}", wrong.stderr);
}
