//! Pictures without a device: resize and patch rows.

use criterion::{Criterion, Throughput};
use omniburn::{Height, RgbImage, Width};
use omniburn_media::resize_bicubic;

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let pixels = (0..4000u32 * 3000 * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let picture = RgbImage::new(Width(4000), Height(3000), pixels).expect("as many pixels as its sides say");
    let mut group = criterion.benchmark_group("media/resize");
    group.throughput(Throughput::Elements(12_000_000));
    group.bench_function("4000x3000 to 1152x896", |b| {
        b.iter(|| resize_bicubic(&picture, Height(896), Width(1152)));
    });
    group.finish();
    criterion.final_summary();
}
