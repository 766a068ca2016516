//! Our arm of `cargo xtask bench`: it opens a record and runs cases as it is asked, one JSON object a line
//! (`benches/peers/protocol.py` says which). Without `--serve`, as under `cargo bench`, it does nothing.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use omniburn::probe::Work;
use omniburn::{Dtype, Engine, EngineError, Input, Priority, Request, Role};
use omniburn_benches::{Size, inputs};
use serde_json::{Value, json};

fn main() {
    omniburn::settle_allocator();
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|arg| arg == "--serve") {
        return;
    }
    let value = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1).map(String::as_str)
    };
    let opened = open(value("--family"), value("--dtype"), value("--threads"));
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

fn open(family: Option<&str>, dtype: Option<&str>, threads: Option<&str>) -> Result<Engine, String> {
    let dtype: Dtype = dtype.ok_or("no --dtype")?.parse()?;
    let size = Size::ALL.into_iter().find(|size| Some(size.name()) == family);
    let mut builder = match (size, family) {
        (Some(size), _) => Engine::builder(size.record(dtype)),
        (None, Some("mini")) => Engine::mini_builder(),
        (None, _) => return Err("--family is small, nano or mini".into()),
    };
    if let Some(threads) = threads {
        builder = builder.threads(threads.parse().map_err(|_| "--threads is a number")?);
    }
    // As asked, and not what would be chosen: low precision is measured only where it is computed in.
    builder = builder.dtype(dtype);
    // The longest audio and the largest image are to fit.
    builder.budget(16 << 30).open().map_err(|e: EngineError| e.to_string())
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
    let mut ms = Vec::new();
    for run in 0..warm_up + runs {
        let started = Instant::now();
        let results = engine.embed_with(inputs, request).map_err(|e| e.to_string())?;
        let took = started.elapsed();
        if let Some(Err(e)) = results.iter().find(|result| result.is_err()) {
            return Err(e.to_string());
        }
        if run >= warm_up {
            ms.push(took.as_secs_f64() * 1000.0);
        }
    }
    Ok(json!({ "ms": ms, "tokens": work.tokens, "flops": work.flops }))
}
