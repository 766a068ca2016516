//! Reference sets, converted records, and the one comparison.

mod assembled;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn::tensor::Device;
use omniburn::{BackendKind, BackendSpec, Dtype, Engine, EngineBuilder, Input, RecordFolder};
use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use safetensors::SafeTensors;
use serde_json::Value;

/// The device the suite runs on: flex, or the one `OMNIBURN_TEST_DEVICE` names (one command for the whole suite on
/// another backend: `OMNIBURN_TEST_DEVICE=wgpu cargo test -p omniburn-tests --features wgpu`).
pub fn device() -> BackendSpec {
    std::env::var("OMNIBURN_TEST_DEVICE").map_or_else(|_| BackendSpec::default(), |d| d.parse().expect("a device"))
}

/// The same as Burn's device.
#[allow(unreachable_patterns)] // with every backend compiled in
pub fn burn_device(spec: BackendSpec) -> Device {
    // As an engine without a folder: CubeCL would write below the workspace.
    omniburn_kernels::keep_tuning(None);
    match spec.kind {
        BackendKind::Flex => Device::flex(),
        #[cfg(feature = "wgpu")]
        BackendKind::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "vulkan")]
        BackendKind::Vulkan => Device::vulkan(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "metal")]
        BackendKind::Metal => Device::metal(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => Device::cuda(0),
        other => panic!("{other:?} is not compiled in"),
    }
}

fn on_flex() -> bool {
    device().kind == BackendKind::Flex
}

/// Embeddings against the reference in f32: 5e-6 on flex, 1e-5 elsewhere (NUMERICS.md).
pub fn embedding_bound() -> f32 {
    if on_flex() { 5e-6 } else { 1e-5 }
}

/// Features and captured intermediates against the reference in f32: 5e-5 on flex, 1e-4 elsewhere (NUMERICS.md).
pub fn feature_bound() -> f32 {
    if on_flex() { 5e-5 } else { 1e-4 }
}

/// The same item alone and in any batch: the same bits on flex; on other devices, where kernels are chosen by shape, within
/// 1e-6 for vectors of unit length.
pub fn same(name: &str, got: &[Vec<f32>], want: &[Vec<f32>]) {
    if on_flex() {
        assert!(got == want, "{name}: some bit differs");
    } else {
        compare(name, &got.concat(), &want.concat(), COMPANY);
    }
}

/// The same item alone and in any batch on backends that choose kernels by shape.
pub const COMPANY: f32 = 1e-6;

/// The models every set may hold.
pub const MODELS: [&str; 6] = [
    "omni-small-tiny",
    "omni-small-tiny-f32",
    "omni-small-tiny-unified",
    "omni-nano-tiny",
    "omni-nano-tiny-f32",
    "omni-nano-tiny-unified",
];

/// The folder of the workspace, asked at run time so that a moved build looks where it runs.
pub fn workspace() -> PathBuf {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    Path::new(&manifest).parent().expect("the tests are a folder of the workspace").to_path_buf()
}

/// Folders with `checkpoints/` (or `checkpoints/`) and `refs/`: ours, one beside the workspace where there is one, and those
/// named by `OMNIBURN_TEST_SETS` (other seeds of the generator), separated by colons.
pub fn sets() -> Vec<Set> {
    let mut sets = vec![golden()];
    let beside = workspace().join("../shared/fixtures");
    if beside.is_dir() {
        sets.push(Set { checkpoints: beside.join("checkpoints"), refs: beside.join("refs") });
    }
    for folder in std::env::var("OMNIBURN_TEST_SETS").unwrap_or_default().split(':').filter(|f| !f.is_empty()) {
        sets.push(Set { checkpoints: Path::new(folder).join("checkpoints"), refs: Path::new(folder).join("refs") });
    }
    sets
}

/// The set that is part of the project.
pub fn golden() -> Set {
    let golden = workspace().join("tests/golden");
    Set { checkpoints: golden.join("checkpoints"), refs: golden.join("refs") }
}

/// Checkpoints with what the reference computed from them.
#[derive(Debug, Clone)]
pub struct Set {
    pub checkpoints: PathBuf,
    pub refs: PathBuf,
}

/// One model of a set.
pub struct Checkpoint {
    pub name: String,
    pub folder: PathBuf,
    pub media: PathBuf,
    pub cases: Vec<Value>,
    pub manifest: Value,
    tensors: Vec<u8>,
}

impl Set {
    /// The models this set holds.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        MODELS.iter().filter(|m| self.refs.join(format!("{m}.json")).is_file()).map(|m| self.checkpoint(m)).collect()
    }

    pub fn checkpoint(&self, name: &str) -> Checkpoint {
        let text = std::fs::read(self.refs.join(format!("{name}.json"))).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&text).expect("a manifest is JSON");
        Checkpoint {
            name: name.into(),
            folder: assembled::whole(&self.checkpoints, name),
            media: self.refs.join("media"),
            cases: manifest["cases"].as_array().cloned().unwrap_or_default(),
            tensors: std::fs::read(self.refs.join(format!("{name}.safetensors"))).expect("reference tensors"),
            manifest,
        }
    }
}

impl Checkpoint {
    pub fn cases(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let kind = kind.to_string();
        self.cases.iter().filter(move |c| c["kind"] == kind.as_str())
    }

    /// A reference tensor.
    pub fn tensor(&self, key: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.tensors).expect("a safetensors file");
        let tensor = file.tensor(key).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{key}");
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// A reference tensor of whole numbers.
    pub fn numbers(&self, key: &str) -> Vec<i32> {
        let file = SafeTensors::deserialize(&self.tensors).expect("a safetensors file");
        let tensor = file.tensor(key).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name));
        assert_eq!(tensor.dtype(), safetensors::Dtype::I32, "{key}");
        tensor.data().chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// A text of the set by name.
    pub fn text_named(&self, name: &str) -> String {
        let media: Value = serde_json::from_slice(&std::fs::read(self.media.join("media.json")).unwrap()).unwrap();
        let texts = media["texts"].as_array().into_iter().flatten();
        let found = texts.into_iter().find(|text| text["name"] == name);
        str_of(&found.unwrap_or_else(|| panic!("no text {name}"))["text"]).into()
    }

    /// The record of this model with every task, converted once a process.
    pub fn record(&self, dtype: Dtype) -> PathBuf {
        record(&self.folder, dtype, TaskChoice::All)
    }

    /// An engine on [`Checkpoint::record`] that computes in f32.
    pub fn engine(&self) -> Engine {
        builder(self.record(Dtype::F32)).open().expect("a fresh record opens")
    }

    pub fn image(&self, case: &Value) -> Input {
        Input::image_file(self.media.join(str_of(&case["file"])))
    }

    pub fn image_named(&self, name: &str) -> Input {
        Input::image_file(self.media.join(format!("images/{name}.png")))
    }

    /// An audio of the set by name.
    pub fn audio(&self, name: &str) -> Input {
        Input::audio_file(self.audio_path(name))
    }

    pub fn audio_path(&self, name: &str) -> PathBuf {
        self.media.join(format!("audio/{name}.wav"))
    }

    pub fn clip(&self, case: &Value) -> Input {
        let frames = case["frames"].as_array().expect("frames");
        Input::video_frame_files(frames.iter().map(|f| self.media.join(str_of(f))).collect())
    }
}

/// A converted record, made once a process for each checkpoint, type and choice of tasks.
pub fn record(folder: &Path, dtype: Dtype, tasks: TaskChoice) -> PathBuf {
    type Cell = Arc<OnceLock<PathBuf>>;
    static RECORDS: OnceLock<Mutex<HashMap<String, Cell>>> = OnceLock::new();
    let key = format!("{}|{dtype}|{tasks:?}", folder.display());
    let cell = {
        let mut records = RECORDS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(records.entry(key).or_default())
    };
    let made = cell.get_or_init(|| {
        let out = scratch().join(format!("{}-{dtype}-{}", folder.file_name().unwrap().to_string_lossy(), next()));
        let options = ConvertOptions { dtype, tasks, ..ConvertOptions::new(folder, &out) };
        convert(&options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        out
    });
    made.clone()
}

pub fn next() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A folder for this process, removed by the next run: a static is never dropped.
pub fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let base = std::env::temp_dir().join("omniburn-tests");
        for old in std::fs::read_dir(&base).into_iter().flatten().flatten() {
            let alive = old.file_name().to_str().is_some_and(|pid| Path::new("/proc").join(pid).exists());
            if !alive {
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        let folder = base.join(std::process::id().to_string());
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        folder
    })
}

/// An engine on the suite's device that computes in f32.
pub fn builder(record: PathBuf) -> EngineBuilder {
    Engine::builder(record).device(device()).dtype(Dtype::F32)
}

/// An opened record folder.
pub fn open(path: &Path) -> RecordFolder {
    RecordFolder::open(path).expect("a fresh record opens")
}

pub fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

pub fn ids_of(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| u32::try_from(id.as_u64().expect("an id")).unwrap()).collect()
}

/// How far two results are from each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    pub max_abs: f32,
    pub at: usize,
    pub cosine: f64,
}

/// # Panics
/// If the lengths differ or a value is not finite.
pub fn distance(name: &str, got: &[f32], want: &[f32]) -> Distance {
    assert_eq!(got.len(), want.len(), "{name}: lengths");
    let (mut max_abs, mut at) = (0.0f32, 0);
    let (mut dot, mut a, mut b) = (0.0f64, 0.0f64, 0.0f64);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!(g.is_finite() && w.is_finite(), "{name}: value {i} is {g}, wanted {w}");
        if (g - w).abs() > max_abs {
            (max_abs, at) = ((g - w).abs(), i);
        }
        let (g, w) = (f64::from(g), f64::from(w));
        (dot, a, b) = (dot + g * w, a + g * g, b + w * w);
    }
    Distance { max_abs, at, cosine: dot / (a.sqrt() * b.sqrt()) }
}

/// Fails with everything one wants to know if the largest difference is above the bound.
pub fn compare(name: &str, got: &[f32], want: &[f32], bound: f32) -> f32 {
    let d = distance(name, got, want);
    assert!(
        d.max_abs <= bound,
        "{name}: max abs {:.3e} at {} (got {}, want {}), cosine {:.8}, bound {bound:.1e}, {} values",
        d.max_abs,
        d.at,
        got[d.at],
        want[d.at],
        d.cosine,
        got.len()
    );
    d.max_abs
}

/// The largest difference seen, printed at the end of a test so that a log shows the room left.
#[derive(Debug, Default)]
pub struct Worst(pub f32, pub usize);

impl Worst {
    pub fn see(&mut self, max_abs: f32) {
        *self = Worst(self.0.max(max_abs), self.1 + 1);
    }

    pub fn report(&self, what: &str) {
        println!("{what}: {} comparisons, largest difference {:.2e}", self.1, self.0);
        assert!(self.1 > 0, "{what}: nothing was compared");
    }
}

/// A header as a file has it, with a digest that fits, so that what it says is looked at. Maps here are in the order of their
/// keys, and a family's name must stand before its configuration.
pub fn header_text(mut header: Value) -> String {
    header["digest"] = "".into();
    let text = |header: &Value| {
        let mut rest = header.clone();
        let family = rest["family"].take();
        let named = format!("{{\"name\":{},\"config\":{}}}", family["name"], family["config"]);
        rest.to_string().replacen("\"family\":null", &format!("\"family\":{named}"), 1)
    };
    if let Ok(typed) = serde_json::from_str::<omniburn::record::RecordHeader>(&text(&header)) {
        header["digest"] = typed.compute_digest().into();
    }
    text(&header)
}

/// Puts the shards of a checkpoint together in one file.
pub fn join_shards(folder: &Path) {
    let index = folder.join("model.safetensors.index.json");
    let Ok(text) = std::fs::read(&index) else { return };
    let index_of: Value = serde_json::from_slice(&text).unwrap();
    let mut files: Vec<&str> = index_of["weight_map"].as_object().unwrap().values().map(str_of).collect();
    files.sort_unstable();
    files.dedup();
    let bytes: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(folder.join(file)).unwrap()).collect();
    let shards: Vec<SafeTensors<'_>> = bytes.iter().map(|bytes| SafeTensors::deserialize(bytes).unwrap()).collect();
    let views = shards.iter().flat_map(SafeTensors::tensors);
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    for file in files {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    std::fs::remove_file(index).unwrap();
}

/// A folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
