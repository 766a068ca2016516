//! The image tower and the audio tower at full size, model level: patch rows or mel frames in, feature rows out, and read
//! back. What comes before and after is in `media`, `pooling` and `end_to_end`.
//!
//! Records as `OMNIBURN_BENCH_RECORDS` says (`nano-f32` unless set), on flex, in the type the engine computes them in.
//! Ids: `towers/<record>-<dtype>/<image side or audio length>`. Inside a pool of threads, as in the engine.

use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, Throughput};
use omniburn_benches::{compute, pool, read, wanted};
use omniburn_models::batch::{Grid, MelRows, PatchRows};
use omniburn_models::record::RecordFolder;

fn main() {
    pool().install(bench);
}

fn bench() {
    let device = Device::flex();
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for (size, stored) in wanted() {
        let record = RecordFolder::open(&size.record(stored)).expect("a fresh record opens");
        let (config, dtype) = (size.config(), compute(size, stored));
        let mut group = criterion.benchmark_group(format!("towers/{}-{stored}-{dtype}", size.name()));
        let vision = config.open_vision(&record, dtype, &device).expect("towers").expect("an image tower");
        let width = config.vision.as_ref().expect("an image tower").patch_values();
        for side in [256, 512, 1024] {
            let grid = Grid { t: 1, h: side / 16, w: side / 16 };
            let values = (0..grid.patches() * width).map(|i| (i as f32 * 0.37).sin()).collect();
            let rows = PatchRows::new(values, width, vec![grid], &device);
            group.throughput(Throughput::Elements(grid.patches() as u64));
            group.bench_function(BenchmarkId::new("image", side), |b| {
                b.iter(|| read(vision.forward(rows.clone()).last));
            });
        }
        drop(vision);
        let audio = config.open_audio(&record, dtype, &device).expect("towers").expect("an audio tower");
        let preprocess = config.audio.as_ref().expect("an audio tower");
        for seconds in [2, 10] {
            let frames = 100 * seconds;
            let values = (0..frames * preprocess.mels).map(|i| (i as f32 * 0.37).sin()).collect();
            let rows = MelRows::new(values, preprocess.mels, preprocess.windows(frames), &device);
            group.throughput(Throughput::Elements(frames as u64));
            group.bench_function(BenchmarkId::new("audio", format!("{seconds}s")), |b| {
                b.iter(|| read(audio.pool(audio.forward(rows.clone()))));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
