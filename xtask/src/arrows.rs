//! The arrows between rooms: which of our crates, and which of Burn's, each crate may import.
//!
//! The table is compared with `cargo metadata` both ways: an import the table lacks is refused, and so is a line for an
//! import that is gone. Development dependencies are free: a test may look at anything.

use serde_json::Value;

/// One room: what it imports, what it must never know, and why.
struct Room {
    package: &'static str,
    /// Our crates and Burn's, normal and build dependencies, optional ones included.
    imports: &'static [&'static str],
    /// Other crates whose presence would show that the room does another room's work.
    never: &'static [&'static str],
    reason: &'static str,
}

const ROOMS: &[Room] = &[
    Room {
        package: "omniburn-scheduler",
        imports: &[],
        never: &["tokio", "rayon", "tracing", "serde"],
        reason: "decides what is computed next and together and knows nothing of what it is, so that its states can be model-checked",
    },
    Room {
        package: "omniburn-kernels",
        imports: &["burn-core", "burn-cubecl", "burn-flex"],
        never: &["safetensors", "serde_json", "tokenizers", "image"],
        reason: "fused operations over tensors; it knows no configuration and no file but the one it is asked to map",
    },
    Room {
        package: "omniburn-models",
        imports: &["omniburn-kernels", "omniburn-output", "burn-core", "burn-pack"],
        never: &["safetensors", "tokenizers", "image", "rayon"],
        reason: "tensors in, tensors out; it never decodes media, starts threads or opens a checkpoint, whose names it only knows",
    },
    Room {
        package: "omniburn-media",
        imports: &[],
        never: &["safetensors", "clap"],
        reason: "bytes into host arrays, so it builds and tests without Burn in seconds",
    },
    Room {
        package: "omniburn-output",
        imports: &[],
        never: &["tracing", "serde", "tempfile"],
        reason: "how files and folders take their place; it knows nothing of what they hold and asks nobody where they go",
    },
    Room {
        package: "omniburn-convert",
        imports: &["omniburn-models", "omniburn-output"],
        never: &["tokenizers", "image"],
        reason: "the only room that opens a checkpoint: LoRA and safetensors; run ahead of time",
    },
    Room {
        package: "omniburn",
        imports: &["omniburn-scheduler", "omniburn-models", "omniburn-media", "burn-core"],
        never: &["safetensors", "clap", "axum", "tokio", "rusqlite"],
        reason: "decides what runs when; it never sees a checkpoint, an argument or a socket",
    },
    Room {
        package: "omniburn-diagnostics",
        imports: &["omniburn"],
        never: &["burn-core", "clap", "axum", "tokio"],
        reason: "examines an engine by its public surface alone, so that what it says holds for every user",
    },
    Room {
        package: "omniburn-index",
        imports: &["omniburn", "omniburn-kernels", "omniburn-media", "omniburn-output"],
        never: &["burn", "clap", "axum", "tokio", "safetensors"],
        reason: "files, words and vectors in one database; the engine is one of the models it can be fed by, behind a feature, so that it builds and tests without Burn; of the kernels it takes those over slices",
    },
    Room {
        package: "omniburn-server",
        imports: &["omniburn", "omniburn-index"],
        never: &["burn-core", "clap", "ureq", "tokenizers", "image"],
        reason: "HTTP in, calls of engines, HTTP out; it opens no connection and no file that a client names",
    },
    Room {
        package: "omniburn-cli",
        imports: &[
            "omniburn",
            "omniburn-convert",
            "omniburn-diagnostics",
            "omniburn-index",
            "omniburn-output",
            "omniburn-server",
        ],
        never: &["safetensors", "tokenizers", "image"],
        reason: "arguments, settings and wiring; nobody above the engine sees a tensor",
    },
    Room {
        package: "omniburn-tests",
        imports: &[],
        never: &[],
        reason: "proves everything through development dependencies, and is imported by nobody",
    },
    Room {
        package: "omniburn-benches",
        imports: &[
            "omniburn",
            "omniburn-cli",
            "omniburn-convert",
            "omniburn-diagnostics",
            "omniburn-models",
            "burn-core",
        ],
        never: &[],
        reason: "measures everything, the rest of it through development dependencies, and is imported by nobody",
    },
    Room {
        package: "omniburn-eval",
        imports: &["omniburn", "omniburn-cli", "omniburn-index"],
        never: &["burn-core"],
        reason: "measures the model that ships by the engine's public surface, with the command line's features, and is imported by nobody",
    },
    Room {
        package: "omniburn-hostile",
        imports: &["omniburn", "omniburn-cli", "omniburn-convert", "omniburn-media", "omniburn-models"],
        never: &["burn-core"],
        reason: "hands damaged bytes to whatever reads what others wrote, and is imported by nobody",
    },
    Room { package: "xtask", imports: &[], never: &[], reason: "builds in seconds, so it spawns what is heavy" },
];

/// Every way in which the workspace differs from the table.
fn violations(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name_of = |package: &Value| package["name"].as_str().unwrap_or_default().to_string();
    let ours: Vec<String> = packages.iter().map(name_of).collect();
    let mut found = Vec::new();
    for room in ROOMS.iter().filter(|room| ours.iter().all(|name| name != room.package)) {
        found.push(format!("{} has a row in the table and is not in the workspace", room.package));
    }
    for package in packages {
        let name = name_of(package);
        let Some(room) = ROOMS.iter().find(|room| room.package == name) else {
            found.push(format!("{name} has no row in the table of rooms"));
            continue;
        };
        let mut imports: Vec<&str> = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
            .collect();
        imports.sort_unstable();
        imports.dedup();
        let is_arrow = |import: &str| ours.iter().any(|name| name == import) || import.starts_with("burn");
        for import in imports.iter().filter(|import| is_arrow(import) && !room.imports.contains(import)) {
            found.push(format!("{name} imports {import}, which the table does not allow: {}", room.reason));
        }
        for import in imports.iter().filter(|import| room.never.contains(import)) {
            found.push(format!("{name} imports {import}, which it must never know: {}", room.reason));
        }
        for import in room.imports.iter().filter(|import| !imports.contains(import)) {
            found.push(format!("{name} no longer imports {import}; take the arrow out of the table"));
        }
    }
    found
}

mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace::{self, cargo};

    fn metadata() -> Value {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(workspace::root().unwrap());
        serde_json::from_str(&workspace::output(&mut command).unwrap()).unwrap()
    }

    /// Adds a dependency to a package of the real metadata.
    fn with_import(package: &str, import: &str, kind: Option<&str>) -> Value {
        let mut metadata = metadata();
        let packages = metadata["packages"].as_array_mut().unwrap();
        let package = packages.iter_mut().find(|p| p["name"] == package).unwrap();
        package["dependencies"].as_array_mut().unwrap().push(json!({ "name": import, "kind": kind }));
        metadata
    }

    #[test]
    fn each_crate_imports_what_the_table_of_rooms_says() {
        let found = violations(&metadata());
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    /// Packages that ask another one for a feature, or switch it on by default.
    fn asking(metadata: &Value, feature: &str) -> Vec<String> {
        let asks = |package: &&Value| {
            let named = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(|name| name == feature));
            let dependencies = package["dependencies"].as_array().unwrap();
            let by_default = package["features"]["default"].as_array().into_iter().flatten().filter_map(Value::as_str);
            dependencies.iter().any(|dependency| named(&dependency["features"]))
                || by_default.into_iter().any(|name| name.split('/').next_back() == Some(feature))
        };
        let packages = metadata["packages"].as_array().unwrap().iter();
        packages.filter(asks).map(|package| package["name"].as_str().unwrap().into()).collect()
    }

    /// Those of `cargo xtask bench` and the released program are built without: they are built by package.
    #[test]
    fn only_the_tests_capture_intermediates() {
        let metadata = metadata();
        assert_eq!(asking(&metadata, "capture"), ["omniburn-tests"]);
        let mini = asking(&metadata, "mini");
        assert!(mini.contains(&"omniburn-cli".into()) && mini.contains(&"omniburn-benches".into()), "{mini:?}");
    }

    #[test]
    fn the_table_has_no_cycle() {
        let mut left: Vec<&Room> = ROOMS.iter().collect();
        while !left.is_empty() {
            let names: Vec<&str> = left.iter().map(|room| room.package).collect();
            left.retain(|room| room.imports.iter().any(|import| names.contains(import)));
            assert!(left.len() < names.len(), "a cycle among {names:?}");
        }
    }

    #[test]
    fn a_new_arrow_between_our_crates_is_refused() {
        for kind in [None, Some("build")] {
            let found = violations(&with_import("omniburn-models", "omniburn-media", kind));
            assert!(found.iter().any(|line| line.contains("omniburn-models imports omniburn-media")), "{found:?}");
        }
    }

    #[test]
    fn a_burn_crate_that_the_table_lacks_is_refused() {
        let found = violations(&with_import("omniburn-media", "burn-core", None));
        assert!(found.iter().any(|line| line.contains("omniburn-media imports burn-core")), "{found:?}");
    }

    #[test]
    fn a_crate_that_a_room_must_never_know_is_refused() {
        let found = violations(&with_import("omniburn", "safetensors", None));
        assert!(found.iter().any(|line| line.contains("omniburn imports safetensors")), "{found:?}");
    }

    #[test]
    fn development_dependencies_are_free() {
        let clean = violations(&metadata());
        assert_eq!(violations(&with_import("omniburn-models", "omniburn-media", Some("dev"))), clean);
    }

    #[test]
    fn an_arrow_that_is_gone_is_taken_out_of_the_table() {
        let mut metadata = metadata();
        for package in metadata["packages"].as_array_mut().unwrap() {
            package["dependencies"] = json!([]);
        }
        let found = violations(&metadata);
        assert!(found.iter().any(|line| line.contains("omniburn no longer imports burn")), "{found:?}");
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_refused() {
        let found = violations(&json!({ "packages": [{ "name": "omniburn-extra", "dependencies": [] }] }));
        assert!(found.iter().any(|line| line.contains("omniburn-extra has no row")), "{found:?}");
        assert!(found.iter().any(|line| line.contains("omniburn-kernels has a row")), "{found:?}");
    }
}
