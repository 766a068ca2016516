//! Kernels of ours with every set of instructions this machine has, the portable body among them.
//!
//! Ids: `kernels/<kernel>-<shape>/<instructions>`; throughput is in operations, so that criterion's elements a second are
//! operations a second. Threads: one a core; `RAYON_NUM_THREADS=1` takes one.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use omniburn_kernels::Isa;
use omniburn_kernels::cpu::affine::{AffineFormat, AffineRows};
use omniburn_kernels::cpu::attention::{Attention, Columns, Heads, Placing, attention};
use omniburn_kernels::cpu::linear::{Activation, Epilogue, Out, Rows, linear};
use omniburn_kernels::cpu::pack::{ColumnOrder, Packed, PanelFormat, PanelLayout};
use omniburn_kernels::cpu::rows::{activate, layer_norm, rms_norm, written};

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn packed(format: PanelFormat, inputs: usize, outputs: usize) -> Packed {
    let values = noise(inputs * outputs);
    let layout = PanelLayout::new(format, inputs, outputs, ColumnOrder::Plain);
    if format == PanelFormat::Int8 {
        let codes: Vec<i8> = values.iter().map(|v| (v * 127.0) as i8).collect();
        return Packed::from_codes(layout, &codes, vec![1.0 / 127.0; outputs]);
    }
    if let PanelFormat::Affine(format) = format {
        return Packed::from_affine(layout, &AffineRows::quantize(&values, inputs, format));
    }
    Packed::from_f32(layout, &values)
}

fn products(criterion: &mut Criterion) {
    let formats = [
        ("f32", PanelFormat::F32, false),
        ("bf16-in-f32", PanelFormat::Bf16, false),
        ("bf16", PanelFormat::Bf16, true),
        ("int8", PanelFormat::Int8, true),
        ("affine8", PanelFormat::Affine(AffineFormat::Eight64), true),
        ("affine4", PanelFormat::Affine(AffineFormat::Four64), true),
        ("affine4-in-f32", PanelFormat::Affine(AffineFormat::Four64), false),
    ];
    // A query, a short batch, many rows; the widest and the deepest product of the small family.
    for (rows, inputs, outputs) in [(16, 1024, 6144), (128, 3072, 1024), (1024, 1024, 1024)] {
        for (name, format, low) in formats {
            let weight = packed(format, inputs, outputs);
            let x = noise(rows * inputs);
            let mut group = criterion.benchmark_group(format!("kernels/linear-{name}-{rows}x{inputs}x{outputs}"));
            group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
            for isa in Isa::available() {
                group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                    b.iter(|| {
                        black_box(written::<f32>(rows * outputs, |out| {
                            linear(isa, Rows::F32(&x), rows, &weight, low, Epilogue::default(), Out::F32(out));
                        }))
                    });
                });
            }
            group.finish();
        }
    }
}

fn attentions(criterion: &mut Criterion) {
    for (name, count, len, query, key, width, causal) in [
        ("text-16x128", 16, 128, 16, 8, 128, true),
        ("picture-1x1024", 1, 1024, 16, 16, 64, false),
        ("sound-5x100", 5, 100, 20, 20, 64, false),
    ] {
        let (rows, stride) = (count * len, (query + 2 * key) * width);
        let (qkv, table) = (noise(rows * stride), noise(rows * width));
        let segments: Vec<(usize, usize)> = (0..count).map(|i| (i * len, len)).collect();
        let at = |head: usize| Columns { values: &qkv[head * width..], stride };
        for low in [false, true] {
            let job = Attention {
                query: at(0),
                key: at(query),
                value: at(query + key),
                heads: Heads { query, key, width },
                placing: Placing { rotary: Some((&table, &table)), ..Placing::default() },
                segments: &segments,
                scale: 0.1,
                causal,
                window: None,
                relative: None,
                low,
            };
            let kind = if low { "low" } else { "f32" };
            let mut group = criterion.benchmark_group(format!("kernels/attention-{kind}-{name}"));
            // Of the whole square, though a causal row sees half of it.
            group.throughput(Throughput::Elements((4 * count * len * len * query * width) as u64));
            for isa in Isa::available() {
                group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                    b.iter(|| {
                        black_box(written::<f32>(rows * query * width, |out| attention(isa, &job, Out::F32(out))))
                    });
                });
            }
            group.finish();
        }
    }
}

fn rows(criterion: &mut Criterion) {
    let (count, width) = (512, 1024);
    let (x, gain) = (noise(count * width), noise(width));
    type Kernel<'a> = Box<dyn Fn(Isa) -> Vec<f32> + 'a>;
    let activation = |activation| -> Kernel {
        let x = &x;
        Box::new(move |isa| {
            let width_out = if activation == Activation::SwiGlu { width / 2 } else { width };
            written(count * width_out, |out| activate(isa, x, width, None, activation, None, Out::F32(out)))
        })
    };
    let kernels: [(&str, Kernel); 5] = [
        ("rms-norm", Box::new(|isa| written(x.len(), |out| rms_norm(isa, &x, &gain, 1e-6, Out::F32(out))))),
        ("layer-norm", Box::new(|isa| written(x.len(), |out| layer_norm(isa, &x, &gain, &gain, 1e-6, Out::F32(out))))),
        ("gelu-tanh", activation(Activation::GeluTanh)),
        ("gelu-erf", activation(Activation::GeluErf)),
        ("swiglu", activation(Activation::SwiGlu)),
    ];
    for (name, kernel) in kernels {
        let mut group = criterion.benchmark_group(format!("kernels/{name}-{count}x{width}"));
        group.throughput(Throughput::Elements((count * width) as u64));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::from_parameter(isa), |b| b.iter(|| black_box(kernel(isa))));
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    println!(
        "instructions: {}; used unless forced: {}",
        Isa::available().map(Isa::name).collect::<Vec<_>>().join(", "),
        Isa::current()
    );
    products(&mut criterion);
    attentions(&mut criterion);
    rows(&mut criterion);
    criterion.final_summary();
}
