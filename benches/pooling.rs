//! What lies between towers and backbone and after it: the merger of patches, the splice of feature rows between token
//! rows, and the rows that make vectors.
//!
//! Sizes of the small family on flex, without a record. Ids: `pooling/<what>/<rows>`.

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput};
use omniburn_benches::{Size, pool, read};
use omniburn_models::Segments;
use omniburn_models::blocks::{Pooling, unit_rows};

fn main() {
    pool().install(bench);
}

fn bench() {
    let device = Device::flex();
    let hidden = Size::Small.config().text.hidden;
    let random = |rows: usize| Tensor::<2>::random([rows, hidden], Distribution::Normal(0.0, 1.0), &device);
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let mut group = criterion.benchmark_group("pooling");
    for (count, length) in [(1, 128), (16, 128), (1, 4096)] {
        let (rows, segments) = (random(count * length), Segments::from_lengths(vec![length; count]));
        group.throughput(Throughput::Elements((count * length) as u64));
        let poolings = [(Pooling::LastToken, "last"), (Pooling::Mean, "mean"), (Pooling::Cls, "first")];
        for (pooling, name) in poolings {
            group.bench_function(BenchmarkId::new(name, format!("{count}x{length}")), |b| {
                b.iter(|| read(unit_rows(pooling.apply(rows.clone(), &segments))));
            });
        }
    }
    for features in [256, 1024, 4096] {
        // Prefix and opening id before an image's rows, closing id and suffix after them.
        let (before, middle, after) = (random(4), random(features), random(2));
        group.throughput(Throughput::Elements(features as u64));
        group.bench_function(BenchmarkId::new("splice", features), |b| {
            b.iter(|| read(Tensor::cat(vec![before.clone(), middle.clone(), after.clone()], 0)));
        });
    }
    group.finish();
    criterion.final_summary();
}
