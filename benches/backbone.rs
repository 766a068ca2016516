//! The text backbone at full size, model level: packed rows in, hidden rows out, and read back.
//!
//! Records as `OMNIBURN_BENCH_RECORDS` says (`nano-f32` unless set), on flex, in the type the engine computes them in.
//! Ids: `backbone/<record>-<dtype>/<sequences>x<tokens>`. Inside a pool of threads, as in the engine.

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput};
use omniburn_benches::{compute, pool, read, wanted};
use omniburn_models::Segments;
use omniburn_models::batch::TokenRows;
use omniburn_models::record::RecordFolder;

const CASES: [(usize, usize); 6] = [(1, 8), (1, 16), (1, 128), (1, 512), (1, 2048), (16, 128)];

fn main() {
    pool().install(bench);
}

fn bench() {
    let device = Device::flex();
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for (size, stored) in wanted() {
        let record = RecordFolder::open(&size.record(stored)).expect("a fresh record opens");
        let (config, dtype) = (size.config(), compute(size, stored));
        let tokens = config.open_tokens(&record).expect("tokens");
        let text = config.open_text(&record, "random", tokens, dtype, &device).expect("a text part");
        let mut group = criterion.benchmark_group(format!("backbone/{}-{stored}-{dtype}", size.name()));
        for (count, length) in CASES {
            let rows =
                Tensor::<2>::random([count * length, config.text.hidden], Distribution::Normal(0.0, 1.0), &device);
            let rows = TokenRows { rows, segments: Segments::from_lengths(vec![length; count]) };
            group.throughput(Throughput::Elements((count * length) as u64));
            group.bench_function(BenchmarkId::from_parameter(format!("{count}x{length}")), |b| {
                b.iter(|| read(text.embed(rows.clone())));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
