//! From inputs to vectors on records of real shape with random weights: text, images, audio and video, every compiled
//! backend.
//!
//! Which records: `OMNIBURN_BENCH_RECORDS`, such as `nano-f32,small-bf16,nano-int8`; `nano-f32` unless it is set. The first
//! run writes them beside the build, 1 to 6 GB each. Ids: `end_to_end/<record>-<device>-<dtype>/<case>`.

use criterion::{BenchmarkId, Criterion, Throughput};
use omniburn::{BackendKind, BackendSpec, Engine, Role};
use omniburn_benches::{inputs, wanted};

const CASES: [&str; 8] =
    ["text:1x16", "text:1x128", "text:1x512", "text:16x128", "image:512", "image:1024", "audio:10s", "video:8x256"];

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let compiled =
        BackendKind::ALL.iter().filter(|(.., yes)| *yes).map(|(kind, ..)| BackendSpec { kind: *kind, index: None });
    for (device, (size, stored)) in compiled.flat_map(|device| wanted().into_iter().map(move |record| (device, record)))
    {
        let engine = match Engine::builder(size.record(stored)).device(device).dtype(stored).open() {
            Ok(engine) => engine,
            Err(e) => {
                println!("not run: {e}");
                continue;
            }
        };
        engine.warm_up().expect("the towers open");
        let (name, dtype) = (size.name(), engine.profile().dtype);
        let mut group = criterion.benchmark_group(format!("end_to_end/{name}-{stored}-{device}-{dtype}"));
        for case in CASES {
            let inputs = inputs(&engine, case).expect("a case");
            let tokens = inputs.iter().map(|input| engine.work(input, &Default::default()).expect("an input").tokens);
            group.throughput(Throughput::Elements(tokens.sum::<usize>() as u64));
            group.bench_function(BenchmarkId::from_parameter(case), |b| {
                b.iter(|| engine.embed(&inputs, Role::None).expect("inputs embed"));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
