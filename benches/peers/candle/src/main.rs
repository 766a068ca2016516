//! The candle arm of `cargo xtask bench`: the text backbone of both families and the audio tower at full size with random
//! weights, written with candle's own fused operations as its model crate writes such models; one JSON object a line
//! (`../protocol.py` says which).
//!
//! `omniburn-peer-candle --family small|nano --dtype f32|bf16 --modality text|audio --threads N`; threads are those of
//! `RAYON_NUM_THREADS`. Texts begin at their ids, audio at their mel frames: what comes before costs nothing here.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{D, DType, Device, Error, Result, Tensor};
use candle_nn::{Linear, Module, ops, rotary_emb};
use serde_json::{Value, json};

const VOCAB: usize = 1024;
const MELS: usize = 128;
/// Mel frames of a window of the audio tower.
const WINDOW: usize = 200;
const SOUND: usize = 1280;
const SOUND_HEADS: usize = 20;
const SOUND_LAYERS: usize = 32;
const MOST_TOKENS: usize = 8192;

#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    inner: usize,
    eps: f32,
    theta: f64,
    /// Causal, with norms over the heads of queries and keys.
    small: bool,
}

fn shape(family: &str) -> Option<Shape> {
    let small = Shape {
        hidden: 1024,
        layers: 28,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        inner: 3072,
        eps: 1e-6,
        theta: 3.5e6,
        small: true,
    };
    match family {
        "small" => Some(small),
        "nano" => Some(Shape {
            hidden: 768,
            layers: 12,
            heads: 12,
            kv_heads: 12,
            head_dim: 64,
            eps: 1e-5,
            theta: 1e6,
            small: false,
            ..small
        }),
        _ => None,
    }
}

fn random(shape: &[usize], inputs: usize, dtype: DType) -> Result<Tensor> {
    Tensor::randn(0f32, (inputs as f32).powf(-0.5), shape, &Device::Cpu)?.to_dtype(dtype)
}

fn linear(inputs: usize, outputs: usize, bias: bool, dtype: DType) -> Result<Linear> {
    let bias = if bias { Some(Tensor::zeros(outputs, dtype, &Device::Cpu)?) } else { None };
    Ok(Linear::new(random(&[outputs, inputs], inputs, dtype)?, bias))
}

fn ones(width: usize, dtype: DType) -> Result<Tensor> {
    Tensor::ones(width, dtype, &Device::Cpu)
}

/// `[batch, rows, heads * width]` to `[batch, heads, rows, width]`.
fn split(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, rows, wide) = x.dims3()?;
    x.reshape((batch, rows, heads, wide / heads))?.transpose(1, 2)?.contiguous()
}

/// Softmax of the products in f32 where the values are narrower, as candle's models do it.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (batch, heads, rows, width) = q.dims4()?;
    let scores = (q.matmul(&k.transpose(2, 3)?)? * (width as f64).powf(-0.5))?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let context = ops::softmax_last_dim(&scores)?.matmul(v)?;
    context.transpose(1, 2)?.reshape((batch, rows, heads * width))
}

/// Each head of keys and values for as many heads of queries as share it.
fn repeat(x: Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(x);
    }
    let (batch, heads, rows, width) = x.dims4()?;
    Tensor::cat(&vec![&x; times], 2)?.reshape((batch, heads * times, rows, width))
}

struct TextLayer {
    norm1: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: Option<Tensor>,
    k_norm: Option<Tensor>,
    norm2: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

struct Text {
    shape: Shape,
    dtype: DType,
    embed: Tensor,
    layers: Vec<TextLayer>,
    norm: Tensor,
    cos: Tensor,
    sin: Tensor,
}

impl Text {
    fn new(shape: Shape, dtype: DType) -> Result<Self> {
        let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let head_norm = || if shape.small { ones(shape.head_dim, dtype).map(Some) } else { Ok(None) };
        let layer = |_| {
            Ok(TextLayer {
                norm1: ones(shape.hidden, dtype)?,
                q: linear(shape.hidden, q, false, dtype)?,
                k: linear(shape.hidden, kv, false, dtype)?,
                v: linear(shape.hidden, kv, false, dtype)?,
                o: linear(q, shape.hidden, false, dtype)?,
                q_norm: head_norm()?,
                k_norm: head_norm()?,
                norm2: ones(shape.hidden, dtype)?,
                gate: linear(shape.hidden, shape.inner, false, dtype)?,
                up: linear(shape.hidden, shape.inner, false, dtype)?,
                down: linear(shape.inner, shape.hidden, false, dtype)?,
            })
        };
        let half = shape.head_dim / 2;
        let angles = |place: usize| {
            (0..half).map(move |i| (place as f64 / shape.theta.powf(2.0 * i as f64 / shape.head_dim as f64)) as f32)
        };
        let angles: Vec<f32> = (0..MOST_TOKENS).flat_map(angles).collect();
        let angles = Tensor::from_vec(angles, (MOST_TOKENS, half), &Device::Cpu)?;
        Ok(Self {
            shape,
            dtype,
            embed: random(&[VOCAB, shape.hidden], 1, dtype)?,
            layers: (0..shape.layers).map(layer).collect::<Result<_>>()?,
            norm: ones(shape.hidden, dtype)?,
            cos: angles.cos()?.to_dtype(dtype)?,
            sin: angles.sin()?.to_dtype(dtype)?,
        })
    }

    /// The unit vector of each sequence, from its last row.
    fn finish(&self, mut hidden: Tensor) -> Result<Vec<f32>> {
        let Shape { heads, kv_heads, eps, small, .. } = self.shape;
        let (_, rows, _) = hidden.dims3()?;
        let mask = match small && rows > 1 {
            true => {
                let after = |row| (0..rows).map(move |column| if column > row { f32::NEG_INFINITY } else { 0.0 });
                let mask: Vec<f32> = (0..rows).flat_map(after).collect();
                Some(Tensor::from_vec(mask, (1, 1, rows, rows), &Device::Cpu)?.to_dtype(self.dtype)?)
            }
            false => None,
        };
        let (cos, sin) = (self.cos.narrow(0, 0, rows)?, self.sin.narrow(0, 0, rows)?);
        let head = |x: Tensor, norm: &Option<Tensor>| {
            let x = match norm {
                Some(gain) => ops::rms_norm(&x, gain, eps)?,
                None => x,
            };
            rotary_emb::rope(&x, &cos, &sin)
        };
        for layer in &self.layers {
            let normed = ops::rms_norm(&hidden, &layer.norm1, eps)?;
            let q = head(split(&layer.q.forward(&normed)?, heads)?, &layer.q_norm)?;
            let k = head(split(&layer.k.forward(&normed)?, kv_heads)?, &layer.k_norm)?;
            let v = split(&layer.v.forward(&normed)?, kv_heads)?;
            let (k, v) = (repeat(k, heads / kv_heads)?, repeat(v, heads / kv_heads)?);
            hidden = (hidden + layer.o.forward(&attention(&q, &k, &v, mask.as_ref())?)?)?;
            let normed = ops::rms_norm(&hidden, &layer.norm2, eps)?;
            let inner = (ops::silu(&layer.gate.forward(&normed)?)? * layer.up.forward(&normed)?)?;
            hidden = (hidden + layer.down.forward(&inner)?)?;
        }
        let last = hidden.narrow(1, rows - 1, 1)?.squeeze(1)?.contiguous()?;
        let last = ops::rms_norm(&last, &self.norm, eps)?.to_dtype(DType::F32)?;
        let length = last.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        last.broadcast_div(&length)?.flatten_all()?.to_vec1()
    }
}

struct SoundLayer {
    norms: [Tensor; 4],
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    fc1: Linear,
    fc2: Linear,
}

struct Sound {
    conv1: (Tensor, Tensor),
    conv2: (Tensor, Tensor),
    positions: Tensor,
    layers: Vec<SoundLayer>,
    post: [Tensor; 2],
    projector: Linear,
}

impl Sound {
    fn new(hidden: usize, dtype: DType) -> Result<Self> {
        let norm = || Ok::<_, Error>([ones(SOUND, dtype)?, Tensor::zeros(SOUND, dtype, &Device::Cpu)?]);
        let square = || linear(SOUND, SOUND, true, dtype);
        let layer = |_| {
            let ([gain1, bias1], [gain2, bias2]) = (norm()?, norm()?);
            Ok(SoundLayer {
                norms: [gain1, bias1, gain2, bias2],
                q: square()?,
                k: square()?,
                v: square()?,
                o: square()?,
                fc1: linear(SOUND, 4 * SOUND, true, dtype)?,
                fc2: linear(4 * SOUND, SOUND, true, dtype)?,
            })
        };
        let conv = |inputs: usize| {
            let bias = Tensor::zeros((1, SOUND, 1), dtype, &Device::Cpu)?;
            Ok::<_, Error>((random(&[SOUND, inputs, 3], 3 * inputs, dtype)?, bias))
        };
        Ok(Self {
            conv1: conv(MELS)?,
            conv2: conv(SOUND)?,
            positions: random(&[1, WINDOW / 2, SOUND], 1, dtype)?,
            layers: (0..SOUND_LAYERS).map(layer).collect::<Result<_>>()?,
            post: norm()?,
            projector: linear(SOUND, hidden, true, dtype)?,
        })
    }

    /// Whole windows of frames, `[windows, mels, frames]`, to rows of the backbone.
    fn forward(&self, windows: &Tensor) -> Result<Tensor> {
        let hidden = windows.conv1d(&self.conv1.0, 1, 1, 1, 1)?.broadcast_add(&self.conv1.1)?.gelu_erf()?;
        let hidden = hidden.conv1d(&self.conv2.0, 1, 2, 1, 1)?.broadcast_add(&self.conv2.1)?.gelu_erf()?;
        let mut hidden = hidden.transpose(1, 2)?.contiguous()?.broadcast_add(&self.positions)?;
        for layer in &self.layers {
            let normed = ops::layer_norm(&hidden, &layer.norms[0], &layer.norms[1], 1e-5)?;
            let head = |linear: &Linear| split(&linear.forward(&normed)?, SOUND_HEADS);
            let context = attention(&head(&layer.q)?, &head(&layer.k)?, &head(&layer.v)?, None)?;
            hidden = (hidden + layer.o.forward(&context)?)?;
            let normed = ops::layer_norm(&hidden, &layer.norms[2], &layer.norms[3], 1e-5)?;
            hidden = (hidden + layer.fc2.forward(&layer.fc1.forward(&normed)?.gelu_erf()?)?)?;
        }
        let (count, rows, _) = hidden.dims3()?;
        let pairs = hidden.reshape((count * rows / 2, 2, SOUND))?.mean(1)?.contiguous()?;
        let pooled = ops::layer_norm(&pairs, &self.post[0], &self.post[1], 1e-5)?;
        self.projector.forward(&pooled)?.unsqueeze(0)
    }
}

/// What a case is run on.
enum Input {
    Ids(Tensor),
    Windows(Tensor),
}

struct Arm {
    text: Text,
    sound: Option<Sound>,
}

impl Arm {
    fn make(&self, case: &str) -> std::result::Result<Input, String> {
        let (kind, size) = case.split_once(':').ok_or("no case")?;
        let said = |e: Error| e.to_string();
        if let (Some(_), "audio", Some(seconds)) = (&self.sound, kind, size.strip_suffix('s')) {
            let seconds: f64 = seconds.parse().map_err(|_| "no number of seconds")?;
            let windows = (seconds * 100.0 / WINDOW as f64).round() as usize;
            if windows == 0 || windows as f64 * WINDOW as f64 != seconds * 100.0 {
                return Err(format!("only whole windows of {} s are written", WINDOW / 100));
            }
            return random(&[windows, MELS, WINDOW], 1, self.text.dtype).map(Input::Windows).map_err(said);
        }
        let numbers: Vec<usize> = size.split('x').filter_map(|n| n.parse().ok()).collect();
        match (kind, &numbers[..]) {
            ("text", &[count, tokens]) => {
                let ids: Vec<u32> = (0..count * tokens).map(|i| (i as u32).wrapping_mul(2_654_435_761) >> 22).collect();
                Tensor::from_vec(ids, (count, tokens), &Device::Cpu).map(Input::Ids).map_err(said)
            }
            _ => Err(format!("{kind} is not written for candle")),
        }
    }

    fn run(&self, input: &Input) -> Result<Vec<f32>> {
        match (input, &self.sound) {
            (Input::Ids(ids), _) => {
                let (count, tokens) = ids.dims2()?;
                let rows = self.text.embed.index_select(&ids.flatten_all()?, 0)?;
                self.text.finish(rows.reshape((count, tokens, self.text.shape.hidden))?)
            }
            (Input::Windows(windows), Some(sound)) => self.text.finish(sound.forward(windows)?),
            (Input::Windows(_), None) => Err(Error::Msg("the sound tower was not asked for".into())),
        }
    }
}

fn open(value: impl Fn(&str) -> Option<String>) -> std::result::Result<Arm, String> {
    let shape = value("--family").and_then(|name| shape(&name)).ok_or("--family is small or nano")?;
    let dtype = match value("--dtype").as_deref() {
        Some("f32") => DType::F32,
        Some("bf16") => DType::BF16,
        _ => return Err("--dtype is f32 or bf16".into()),
    };
    let sound = match value("--modality").as_deref() {
        Some("text") => None,
        Some("audio") => Some(Sound::new(shape.hidden, dtype).map_err(|e| e.to_string())?),
        _ => return Err("candle has the text backbone and the sound tower".into()),
    };
    Ok(Arm { text: Text::new(shape, dtype).map_err(|e| e.to_string())?, sound })
}

fn answer(arm: &Arm, cases: &mut HashMap<String, Input>, line: &str) -> std::result::Result<Value, String> {
    let asked: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let name = asked["case"].as_str().ok_or("this arm measures no peak")?;
    if !cases.contains_key(name) {
        cases.insert(name.into(), arm.make(name)?);
    }
    let (warm_up, runs) = (asked["warm_up"].as_u64().unwrap_or(0), asked["runs"].as_u64().unwrap_or(1));
    let mut ms = Vec::new();
    for run in 0..warm_up + runs {
        let started = Instant::now();
        let vector = arm.run(&cases[name]).map_err(|e| e.to_string().lines().next().unwrap_or_default().to_string())?;
        if run >= warm_up {
            ms.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        if vector.iter().any(|value| !value.is_finite()) {
            return Err("a vector is not finite".into());
        }
    }
    Ok(json!({ "ms": ms }))
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1).cloned());
    let mut stdout = std::io::stdout().lock();
    let mut say = |line: Value| writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    let arm = match open(value) {
        Ok(arm) => arm,
        Err(why) => {
            // Whoever started us may have gone.
            let _ = say(json!({ "error": why }));
            return;
        }
    };
    let mut said = say(json!({ "ready": "candle-core 0.11.1" }));
    let mut cases = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let (Ok(line), Ok(())) = (line, said) else { return };
        said = say(answer(&arm, &mut cases, &line).unwrap_or_else(|why| json!({ "error": why })));
    }
}
