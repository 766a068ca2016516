//! Our arm of `cargo xtask bench`: it opens a record and runs cases as it is asked, one JSON object a line
//! (`benches/peers/protocol.py` says which). A checkpoint is made a record beside it at first use.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use omniburn::probe::Work;
use omniburn::{Dtype, Embedded, Engine, EngineBuilder, EngineError, Input, Priority, RecordFolder, Request, Role};
use omniburn_benches::{inputs, texts};
use omniburn_convert::{ConvertOptions, convert};
use serde_json::{Value, json};

fn main() {
    omniburn::settle_allocator();
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1).map(String::as_str)
    };
    let opened = open(value("--family"), value("--checkpoint"), value("--dtype"), value("--threads"));
    let mut stdout = std::io::stdout().lock();
    let mut say = |line: Value| writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    let engine = match opened {
        Ok(engine) => engine,
        Err(why) => {
            // Whoever started us may have gone.
            let _ = say(json!({ "error": why }));
            return;
        }
    };
    let profile = engine.profile();
    let ready = format!(
        "omniburn {}, {} record, computed in {}",
        env!("CARGO_PKG_VERSION"),
        engine.header().dtype,
        profile.dtype
    );
    let mut said = say(json!({ "ready": ready }));
    let mut cases = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        if said.is_err() {
            return;
        }
        let answer = serde_json::from_str(&line)
            .map_err(|e| e.to_string())
            .and_then(|asked| answer(&engine, &mut cases, &asked));
        said = say(answer.unwrap_or_else(|why| json!({ "error": why })));
    }
}

fn open(
    family: Option<&str>,
    checkpoint: Option<&str>,
    dtype: Option<&str>,
    threads: Option<&str>,
) -> Result<Engine, String> {
    let dtype: Dtype = dtype.ok_or("no --dtype")?.parse()?;
    let mut builder = match (checkpoint, family) {
        // In f32 and int8 as asked, else as it is chosen for such a record.
        (Some(checkpoint), _) => {
            let builder = Engine::builder(converted(Path::new(checkpoint), dtype)?);
            if matches!(dtype, Dtype::F32 | Dtype::Int8) { builder.dtype(dtype) } else { builder }
        }
        // As asked, and not what would be chosen: low precision is measured only where it is computed in.
        (None, Some("mini")) => Engine::mini_builder().dtype(dtype),
        (None, family) => of_size(family.unwrap_or_default(), dtype)?.dtype(dtype),
    };
    if let Some(threads) = threads {
        builder = builder.threads(threads.parse().map_err(|_| "--threads is a number")?);
    }
    // The longest audio and the largest image are to fit.
    builder.budget(16 << 30).open().map_err(|e: EngineError| e.to_string())
}

#[cfg(feature = "random")]
fn of_size(family: &str, dtype: Dtype) -> Result<EngineBuilder, String> {
    let size = omniburn_benches::Size::ALL.into_iter().find(|size| size.name() == family);
    let size = size.ok_or("--family is small, nano or mini, or --checkpoint is given")?;
    Ok(Engine::builder(size.record(dtype)))
}

#[cfg(not(feature = "random"))]
fn of_size(family: &str, _dtype: Dtype) -> Result<EngineBuilder, String> {
    Err(format!("no record of `{family}` is made in a build without the feature `random`"))
}

/// The record of a checkpoint, `NAME.DTYPE.record` beside it.
fn converted(checkpoint: &Path, dtype: Dtype) -> Result<PathBuf, String> {
    let name = checkpoint.file_name().ok_or("--checkpoint is a folder or a file")?.to_string_lossy();
    let out = checkpoint.with_file_name(format!("{name}.{dtype}.record"));
    if RecordFolder::open(&out).is_err() {
        let options = ConvertOptions { dtype, force: true, ..ConvertOptions::new(checkpoint, &out) };
        convert(&options).map_err(|e| e.to_string())?;
    }
    Ok(out)
}

/// A case that was made ready.
struct Case {
    inputs: Vec<Input>,
    request: Request,
    work: Work,
}

fn answer(engine: &Engine, cases: &mut HashMap<String, Case>, asked: &Value) -> Result<Value, String> {
    let request = Request::new(Role::None);
    if asked["peak"] == true {
        let peak = omniburn_diagnostics::peak(engine, &request).map_err(|e| e.to_string())?;
        return Ok(json!({
            "matmul_f32_gflops": peak.matmul_f32_gflops,
            "matmul_bf16_gflops": peak.matmul_bf16_gflops,
            "memory_read_gb_per_s": peak.memory_read_gb_per_s,
        }));
    }
    let name = asked["case"].as_str().ok_or("no case")?;
    if !cases.contains_key(name) {
        let inputs = inputs(engine, name)?;
        let mut work = Work::default();
        for input in &inputs {
            let one = engine.work(input, &request).map_err(|e| e.to_string())?;
            work = Work { tokens: work.tokens + one.tokens, flops: work.flops + one.flops };
        }
        // One input is somebody who waits, several are a job.
        let priority = if inputs.len() == 1 { Priority::Interactive } else { Priority::Background };
        cases.insert(name.into(), Case { inputs, request: request.priority(priority), work });
    }
    let Case { inputs, request, work } = &cases[name];
    let warm_up = asked["warm_up"].as_u64().unwrap_or(0);
    let runs = asked["runs"].as_u64().ok_or("no number of runs")?;
    let (mut ms, mut vectors) = (Vec::new(), Vec::<Embedded>::new());
    for run in 0..warm_up + runs {
        let started = Instant::now();
        let results = engine.embed_with(inputs, request).map_err(|e| e.to_string())?;
        let took = started.elapsed();
        let results = results.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        if run >= warm_up {
            ms.push(took.as_secs_f64() * 1000.0);
        }
        vectors = results;
    }
    let mut answer = json!({ "ms": ms, "tokens": work.tokens, "flops": work.flops });
    if asked["vectors"] == true {
        answer["texts"] = json!(texts(engine, name)?);
        answer["vectors"] = vectors.iter().map(|result| json!(result.embedding.as_slice())).collect();
    }
    Ok(answer)
}
