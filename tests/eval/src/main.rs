//! The retrieval table of the shipped model, measured by the engine on sets that nobody trained on.
//!
//! `cargo xtask eval-mini` fetches the sets and runs this in release; see `models/mini/CARD.md` for what the rows mean.
//! A row below its floor in `models/mini/floors.json` makes the exit code 1.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use image::imageops::FilterType;
use image::{ImageFormat, Rgb, RgbImage as Page, RgbaImage};
use omniburn::{Dtype, Embedding, Engine, Height, Input, Request, RgbImage, Role, Width};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg;
use serde_json::{Value, json};

const VOICES: [&str; 4] = ["kal16", "awb", "rms", "slt"];
/// Side of a drawing as it is given to the engine.
const DRAWING_PX: u32 = 192;
/// Frames of a video of the table, and their side.
const FRAMES: u32 = 8;
const FRAME_PX: u32 = 224;

struct Options {
    quick: bool,
    times: bool,
    sets: PathBuf,
    lists: PathBuf,
    floors: PathBuf,
    model: Option<PathBuf>,
    dtype: Option<Dtype>,
    exact: Option<PathBuf>,
    json: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?).join("../..");
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let sets = std::env::var_os("OMNIBURN_MINI_SETS").map(PathBuf::from);
    let mut options = Options {
        quick: false,
        times: false,
        sets: sets.unwrap_or_else(|| home.join(".cache/omniburn/mini-sets")),
        lists: root.join("models/mini/train/lists"),
        floors: root.join("models/mini/floors.json"),
        model: None,
        dtype: None,
        exact: None,
        json: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut path = || arguments.next().map(PathBuf::from).ok_or(format!("{argument}: expected a path"));
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--times" => options.times = true,
            "--model" => options.model = Some(path()?),
            "--dtype" => {
                let name = arguments.next().ok_or("--dtype: expected f32, bf16 or int8")?;
                options.dtype = Some(name.parse()?);
            }
            "--exact" => options.exact = Some(path()?),
            "--json" => options.json = Some(path()?),
            "--sets" => options.sets = path()?,
            other => {
                return Err(format!("{other}: expected --quick, --times, --model, --dtype, --exact, --json or --sets"));
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let run = options().and_then(|options| {
        let mut table = Table::open(options)?;
        table.run();
        table.finish()
    });
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

fn read_json(path: &Path) -> Result<Value, String> {
    let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// A list of the trainer; the long ones are kept packed.
fn read_list(folder: &Path, name: &str) -> Result<Value, String> {
    let packed = folder.join(format!("{name}.json.gz"));
    let Ok(file) = std::fs::File::open(&packed) else { return read_json(&folder.join(format!("{name}.json"))) };
    serde_json::from_reader(flate2::read::GzDecoder::new(file)).map_err(|e| format!("{}: {e}", packed.display()))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn numbers(list: &Value) -> Vec<usize> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|n| n as usize).collect()
}

struct Table {
    engine: Engine,
    options: Options,
    concepts: Vec<Value>,
    floors: Value,
    rows: BTreeMap<String, Value>,
    low: Vec<String>,
}

type Vectors = Vec<Option<Embedding>>;

impl Table {
    fn open(options: Options) -> Result<Self, String> {
        if !options.sets.join("complete").exists() {
            return Err(format!("{}: the sets are not there; fetch_mini_sets.sh gets them", options.sets.display()));
        }
        let mut builder = match &options.model {
            Some(path) => Engine::builder(path),
            None => Engine::mini_builder(),
        };
        if let Some(dtype) = options.dtype {
            builder = builder.dtype(dtype);
        }
        let engine = builder.open().map_err(|e| e.to_string())?;
        let concepts = read_list(&options.lists, "concepts")?.as_array().cloned().unwrap_or_default();
        let floors = read_json(&options.floors)?;
        Ok(Self { engine, options, concepts, floors, rows: BTreeMap::new(), low: Vec::new() })
    }

    fn list(&self, name: &str) -> Value {
        read_list(&self.options.lists, name).expect("a list of the trainer")
    }

    fn run(&mut self) {
        if self.options.times {
            return self.times();
        }
        self.text();
        let drawings = self.drawings();
        self.speech(&drawings);
        if !self.options.quick {
            self.photos();
            self.videos();
            self.mixed(&drawings);
        }
    }

    /// Whether every row with a floor is at or above it; writes the table if it was asked for.
    fn finish(&self) -> Result<bool, String> {
        if let Some(path) = &self.options.json {
            let text = serde_json::to_string_pretty(&self.rows).map_err(|e| e.to_string())?;
            std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
        }
        for low in &self.low {
            println!("BELOW ITS FLOOR: {low}");
        }
        println!("{} rows, {} below their floors", self.rows.len(), self.low.len());
        Ok(self.low.is_empty())
    }

    fn embed(&self, what: &str, inputs: impl IntoIterator<Item = Input>) -> Vectors {
        let started = Instant::now();
        let results = self.engine.embed_iter(inputs, Request::new(Role::Document)).expect("a good request");
        let vectors: Vectors = results
            .map(|result| result.map(|embedded| embedded.embedding).map_err(|e| println!("{what}: {e}")).ok())
            .collect();
        let seconds = started.elapsed().as_secs_f64();
        println!("{what}: {} items in {seconds:.1} s", vectors.len());
        vectors
    }

    fn embed_texts(&self, texts: &[String]) -> Vectors {
        self.embed("texts", texts.iter().map(Input::text))
    }

    /// Adds a value, and holds it against its floor.
    fn value(&mut self, row: &str, key: &str, value: f64) {
        let floor = self.floors[row][key].as_f64();
        if floor.is_some_and(|floor| value < floor) {
            self.low.push(format!("{row} {key}: {value:.4}, floor {}", floor.unwrap_or_default()));
        }
        let entry = self.rows.entry(row.to_owned()).or_insert_with(|| json!({}));
        entry[key] = json!((value * 1e4).round() / 1e4);
    }

    /// Shares of queries with a right item among the first 1, 5 and 10.
    fn retrieval(
        &mut self,
        row: &str,
        queries: &[&Option<Embedding>],
        gallery: &[&Option<Embedding>],
        right: &[Vec<usize>],
    ) {
        let mut hits = [0usize; 3];
        for (query, right) in queries.iter().zip(right) {
            let Some(query) = query else { continue };
            let score = |item: &Option<Embedding>| item.as_ref().map_or(f32::MIN, |item| query.cosine(item));
            let best = right.iter().map(|&i| score(gallery[i])).fold(f32::MIN, f32::max);
            let before = gallery.iter().filter(|item| score(item) > best).count();
            for (hits, k) in hits.iter_mut().zip([1, 5, 10]) {
                *hits += usize::from(before < k);
            }
        }
        let share = |hits: usize| 100.0 * hits as f64 / queries.len() as f64;
        for (k, hits) in [1, 5, 10].into_iter().zip(hits) {
            self.value(row, &format!("R@{k}"), share(hits));
        }
        let entry = self.rows.get_mut(row).expect("just made");
        entry["n"] = json!(queries.len());
        entry["gallery"] = json!(gallery.len());
        let [one, five, ten] = hits.map(share);
        println!(
            "{row:<44} n {:>5} of {:>5}   R@1 {one:5.1}  R@5 {five:5.1}  R@10 {ten:5.1}",
            queries.len(),
            gallery.len()
        );
    }

    fn label(&self, concept: usize) -> &str {
        self.concepts[concept]["label"].as_str().expect("a label")
    }

    /// One item at a time, as a caller of the engine sees it.
    fn times(&mut self) {
        let pixels = (0..224 * 224 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let image = RgbImage::new(Width(224), Height(224), pixels).expect("three bytes a pixel");
        let tone: Vec<f32> = (0..32_000).map(|i| 0.3 * (i as f32 * 0.05).sin()).collect();
        for (what, input) in [
            ("one short text", Input::text("a red car")),
            ("one image", Input::image_pixels(image)),
            ("one clip of 2 s", Input::audio_samples(tone, 16_000)),
        ] {
            let once = || {
                let started = Instant::now();
                self.engine.embed_one(input.clone(), Role::Document).expect("it embeds");
                1e3 * started.elapsed().as_secs_f64()
            };
            (0..5).for_each(|_| _ = once());
            let mut ms: Vec<f64> = (0..30).map(|_| once()).collect();
            ms.sort_by(f64::total_cmp);
            println!("{what}: {:.1} ms in the middle of 30 runs, {:.1} ms at least", ms[15], ms[0]);
        }
    }

    /// Text of the record as it is against the same model unrounded.
    fn text(&mut self) {
        let Some(exact) = self.options.exact.clone() else { return };
        let list = texts(&self.list("lists")["texts"]);
        let exact = Engine::open(exact).expect("the unrounded record");
        let vectors = self.embed_texts(&list);
        let cosines: Vec<f64> = vectors
            .iter()
            .zip(exact.embed_iter(list.iter().map(Input::text), Request::new(Role::Document)).expect("a good request"))
            .filter_map(|(a, b)| Some(f64::from(a.as_ref()?.cosine(&b.ok()?.embedding))))
            .collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let least = cosines.iter().copied().fold(1.0, f64::min);
        println!("text, cosine to the unrounded model: mean {mean:.5}, least {least:.5}, n {}", cosines.len());
        self.value("text_against_unrounded", "mean", mean);
        self.value("text_against_unrounded", "least", least);
        self.value("text_against_unrounded", "n", cosines.len() as f64);
    }

    /// Drawings of a set by concept, in the order of the concepts; flags are left out.
    fn set(&self, name: &str) -> Vec<(usize, String)> {
        let folder = self.options.sets.join(name);
        let icons = read_json(&folder.join("icons.json")).expect("a set of drawings");
        let chars = read_json(&folder.join("chars.json")).unwrap_or_default();
        let squashed = |name: &str| name.replace('-', "");
        let mut by_name = HashMap::new();
        for key in ["aliases", "icons"] {
            for name in icons[key].as_object().into_iter().flat_map(|icons| icons.keys()) {
                by_name.insert(squashed(name), name.clone());
            }
        }
        let drawing = |concept: &Value| -> Option<String> {
            let slug = concept["slug"].as_str()?;
            let name = chars[concept["hex"].as_str()?].as_str().map(str::to_owned);
            let name = name.or_else(|| by_name.get(&squashed(slug)).cloned())?;
            let alias = icons["aliases"].get(&name);
            // A turned or mirrored one is another drawing.
            if alias.is_some_and(|alias| alias.as_object().is_some_and(|alias| alias.len() > 1)) {
                return None;
            }
            let name = alias.map_or(name.as_str(), |alias| alias["parent"].as_str().unwrap_or_default());
            let icon = icons["icons"].get(name)?;
            let number = |key: &str, other: u64| icon[key].as_u64().or(icons[key].as_u64()).unwrap_or(other);
            let (x, y, w, h) = (number("left", 0), number("top", 0), number("width", 16), number("height", 16));
            let body = icon["body"].as_str()?;
            Some(format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
                 viewBox=\"{x} {y} {w} {h}\" width=\"{w}\" height=\"{h}\">{body}</svg>"
            ))
        };
        let drawings = self.concepts.iter().enumerate().filter_map(|(i, concept)| Some((i, drawing(concept)?)));
        drawings.filter(|(i, _)| !self.label(*i).starts_with("flag of")).collect()
    }

    fn drawings(&mut self) -> Drawings {
        let svgs = self.set("openmoji");
        let vectors = self.embed("OpenMoji", svgs.iter().map(|(_, svg)| Input::image_bytes(png(&rendered(svg)))));
        let concepts: Vec<usize> = svgs.iter().map(|(i, _)| *i).collect();
        let labels: Vec<String> = (0..self.concepts.len()).map(|i| self.label(i).to_owned()).collect();
        let names = self.embed_texts(&labels);
        let queries: Vec<&Option<Embedding>> = concepts.iter().map(|&i| &names[i]).collect();
        let gallery: Vec<&Option<Embedding>> = vectors.iter().collect();
        let own: Vec<Vec<usize>> = (0..concepts.len()).map(|i| vec![i]).collect();
        self.retrieval("name -> drawing, unseen style (OpenMoji)", &queries, &gallery, &own);
        let unseen = numbers(&self.list("lists")["unseen_concepts"]);
        let places: Vec<usize> = (0..concepts.len()).filter(|&at| unseen.contains(&concepts[at])).collect();
        let asked: Vec<&Option<Embedding>> = places.iter().map(|&at| queries[at]).collect();
        let right: Vec<Vec<usize>> = places.iter().map(|&at| vec![at]).collect();
        self.retrieval("name -> drawing, concepts kept out of training", &asked, &gallery, &right);
        if !self.options.quick {
            self.retrieval("drawing, unseen style -> name", &gallery, &queries, &own);
            let noto = self.set("noto");
            let known = self.embed("Noto", noto.iter().map(|(_, svg)| Input::image_bytes(png(&rendered(svg)))));
            let asked: Vec<&Option<Embedding>> = noto.iter().map(|(i, _)| &names[*i]).collect();
            let gallery: Vec<&Option<Embedding>> = known.iter().collect();
            let right: Vec<Vec<usize>> = (0..noto.len()).map(|at| vec![at]).collect();
            self.retrieval("name -> drawing, training style (Noto)", &asked, &gallery, &right);
            let place: HashMap<usize, usize> = noto.iter().enumerate().map(|(at, (i, _))| (*i, at)).collect();
            let both: Vec<usize> = (0..concepts.len()).filter(|&at| place.contains_key(&concepts[at])).collect();
            let queries: Vec<&Option<Embedding>> = both.iter().map(|&at| &vectors[at]).collect();
            let right: Vec<Vec<usize>> = both.iter().map(|&at| vec![place[&concepts[at]]]).collect();
            self.retrieval("drawing, unseen style -> training style", &queries, &gallery, &right);
        }
        Drawings { concepts, svgs: svgs.into_iter().map(|(_, svg)| svg).collect(), vectors, names }
    }

    /// A text spoken by flite, as the bytes of a WAV file.
    fn spoken(&self, text: &str, voice: &str) -> Vec<u8> {
        let folder = self.options.sets.join("flite");
        let out = std::env::temp_dir().join(format!("omniburn-{}-spoken.wav", std::process::id()));
        let run = Command::new(folder.join("flite"))
            .env("LD_LIBRARY_PATH", &folder)
            .args(["-voice", voice, "-t", text, "-o"])
            .arg(&out)
            .status();
        assert!(run.is_ok_and(|status| status.success()), "flite speaks");
        let bytes = std::fs::read(&out).expect("flite wrote a file");
        let _ = std::fs::remove_file(out);
        bytes
    }

    fn speech(&mut self, drawings: &Drawings) {
        let clips = self.list("flite_clips");
        let clips: Vec<[String; 3]> = clips
            .as_array()
            .into_iter()
            .flatten()
            .map(|clip| [0, 1, 2].map(|i| clip[i].as_str().unwrap_or_default().to_owned()))
            .collect();
        let kinds: &[(&str, &str)] = if self.options.quick {
            &[("heard", "speech -> text, heard in training")]
        } else {
            &[
                ("heard", "speech -> text, heard in training"),
                ("phrase", "speech -> text, new phrases"),
                ("never", "speech -> text, words never heard"),
            ]
        };
        for (kind, row) in kinds {
            let of: Vec<&[String; 3]> = clips.iter().filter(|clip| clip[0] == *kind).collect();
            let spoken = of.iter().map(|[_, text, voice]| Input::audio_bytes(self.spoken(text, voice)));
            let vectors = self.embed(kind, spoken.collect::<Vec<_>>());
            let mut distinct: Vec<String> = Vec::new();
            let mut place = HashMap::new();
            for [_, text, _] in &of {
                place.entry(text.clone()).or_insert_with(|| {
                    distinct.push(text.clone());
                    distinct.len() - 1
                });
            }
            let gallery = self.embed_texts(&distinct);
            let right: Vec<Vec<usize>> = of.iter().map(|[_, text, _]| vec![place[text]]).collect();
            self.retrieval(row, &vectors.iter().collect::<Vec<_>>(), &gallery.iter().collect::<Vec<_>>(), &right);
            if *kind == "heard" {
                let by_label: HashMap<&str, usize> =
                    drawings.concepts.iter().enumerate().map(|(at, &i)| (self.label(i), at)).collect();
                let named: Vec<(usize, usize)> = of
                    .iter()
                    .enumerate()
                    .filter_map(|(at, clip)| Some((at, *by_label.get(clip[1].as_str())?)))
                    .collect();
                let queries: Vec<&Option<Embedding>> = named.iter().map(|(at, _)| &vectors[*at]).collect();
                let right: Vec<Vec<usize>> = named.iter().map(|(_, drawing)| vec![*drawing]).collect();
                let gallery: Vec<&Option<Embedding>> = drawings.vectors.iter().collect();
                self.retrieval("speech -> drawing, unseen style (OpenMoji)", &queries, &gallery, &right);
            }
        }
    }

    fn caption(&self, stamp: &str) -> String {
        let path = self.options.sets.join("stamps").join(stamp).with_extension("txt");
        let bytes = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().trim().to_owned()
    }

    fn stamp(&self, stamp: &str) -> Input {
        let path = self.options.sets.join("stamps").join(stamp);
        if path.extension().is_some_and(|ending| ending == "svg") {
            let svg = std::fs::read_to_string(&path).unwrap_or_default();
            return Input::image_bytes(png(&rendered(&svg)));
        }
        Input::image_file(path)
    }

    fn photos(&mut self) {
        let stamps = self.list("stamps");
        let photographs = texts(&stamps["photographs"]);
        let captions: Vec<String> = photographs.iter().map(|stamp| self.caption(stamp)).collect();
        let vectors = self.embed("photographs", photographs.iter().map(|stamp| self.stamp(stamp)));
        let (queries, right) = distinct(&captions);
        let asked = self.embed_texts(&queries);
        let gallery: Vec<&Option<Embedding>> = vectors.iter().collect();
        self.retrieval("text -> photo", &asked.iter().collect::<Vec<_>>(), &gallery, &right);

        let human = texts(&self.list("lists")["human_speech"]);
        let voices = self.embed(
            "human voices",
            human.iter().map(|file| Input::audio_file(self.options.sets.join("stamps").join(file))),
        );
        let captions: Vec<String> = human.iter().map(|file| self.caption(&file.replace("_desc.ogg", ".png"))).collect();
        let gallery = self.embed_texts(&captions);
        let right: Vec<Vec<usize>> = captions
            .iter()
            .map(|caption| (0..captions.len()).filter(|&at| captions[at] == *caption).collect())
            .collect();
        self.retrieval(
            "human speech -> caption",
            &voices.iter().collect::<Vec<_>>(),
            &gallery.iter().collect::<Vec<_>>(),
            &right,
        );
    }

    fn videos(&mut self) {
        let wanted = numbers(&self.list("lists")["video"]);
        let svgs: HashMap<usize, String> = self.set("openmoji").into_iter().collect();
        let videos = wanted.iter().map(|i| Input::video_frames(video(*i as u64, &rendered(&svgs[i]))));
        let vectors = self.embed("videos", videos.collect::<Vec<_>>());
        let labels: Vec<String> = wanted.iter().map(|&i| self.label(i).to_owned()).collect();
        let names = self.embed_texts(&labels);
        let right: Vec<Vec<usize>> = (0..wanted.len()).map(|at| vec![at]).collect();
        let gallery: Vec<&Option<Embedding>> = vectors.iter().collect();
        self.retrieval("name -> video of 8 frames", &names.iter().collect::<Vec<_>>(), &gallery, &right);
    }

    /// Texts, drawings and clips of the same concepts in one index.
    fn mixed(&mut self, drawings: &Drawings) {
        let wanted = numbers(&self.list("lists")["mixed"]);
        let keywords: Vec<String> = wanted
            .iter()
            .map(|&i| texts(&self.concepts[i]["tags"])[..].iter().take(4).cloned().collect::<Vec<_>>().join(", "))
            .collect();
        let place: HashMap<usize, usize> = drawings.concepts.iter().enumerate().map(|(at, &i)| (i, at)).collect();
        let text = self.embed_texts(&keywords);
        let spoken = wanted.iter().map(|&i| {
            let plain: String =
                self.label(i).chars().map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' }).collect();
            Input::audio_bytes(self.spoken(plain.trim(), VOICES[i % 4]))
        });
        let clips = self.embed("clips", spoken.collect::<Vec<_>>());
        let images: Vec<&Option<Embedding>> = wanted.iter().map(|i| &drawings.vectors[place[i]]).collect();
        let items: Vec<&Option<Embedding>> = text.iter().chain(images).chain(&clips).collect();
        let n = wanted.len();
        let (mut right, mut share) = ([0usize; 3], [0usize; 3]);
        for (at, &concept) in wanted.iter().enumerate() {
            let Some(query) = &drawings.names[concept] else { continue };
            let mut order: Vec<(f32, usize)> = items
                .iter()
                .enumerate()
                .map(|(i, item)| (item.as_ref().map_or(f32::MIN, |item| query.cosine(item)), i))
                .collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (_, item) in order.into_iter().take(10) {
                share[item / n] += 1;
                right[item / n] += usize::from(item % n == at);
            }
        }
        for (kind, name) in ["text", "picture", "speech"].into_iter().enumerate() {
            let (right, share) = (100.0 * right[kind] as f64 / n as f64, 10.0 * share[kind] as f64 / n as f64);
            println!(
                "one index of {}: right {name} in the first ten {right:.1} %, {share:.1} % of the first ten",
                3 * n
            );
            self.value("one index of three kinds", name, right);
        }
    }
}

struct Drawings {
    concepts: Vec<usize>,
    #[allow(dead_code)] // kept for rows that draw them again
    svgs: Vec<String>,
    vectors: Vectors,
    names: Vectors,
}

/// Each text once, with the places where it stands.
fn distinct(texts: &[String]) -> (Vec<String>, Vec<Vec<usize>>) {
    let mut found: Vec<(String, Vec<usize>)> = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        match found.iter_mut().find(|(known, _)| known == text) {
            Some((_, places)) => places.push(at),
            None => found.push((text.clone(), vec![at])),
        }
    }
    found.into_iter().unzip()
}

/// A drawing with its transparency, its longer side as large as all of them.
fn rendered(svg: &str) -> RgbaImage {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default());
    let empty = || RgbaImage::new(DRAWING_PX, DRAWING_PX);
    let Ok(tree) = tree else { return empty() };
    let scale = DRAWING_PX as f32 / tree.size().width().max(tree.size().height());
    let sides = [tree.size().width(), tree.size().height()].map(|side| ((side * scale).round() as u32).max(1));
    let Some(mut map) = Pixmap::new(sides[0], sides[1]) else { return empty() };
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut map.as_mut());
    let pixels = map.pixels().iter().flat_map(|p| {
        let p = p.demultiply();
        [p.red(), p.green(), p.blue(), p.alpha()]
    });
    RgbaImage::from_raw(sides[0], sides[1], pixels.collect()).unwrap_or_else(empty)
}

fn png(image: &RgbaImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("memory takes an image");
    bytes.into_inner()
}

/// A drawing that crosses a white page and grows or shrinks on its way.
fn video(seed: u64, drawing: &RgbaImage) -> Vec<RgbImage> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut uniform = |low: f32, high: f32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + (high - low) * (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let start = [uniform(-0.05, 1.05), uniform(-0.05, 1.05)];
    let end = [uniform(-0.05, 1.05), uniform(-0.05, 1.05)];
    let (first, last) = (uniform(0.4, 0.7), uniform(0.5, 0.8));
    let frame = |at: u32| {
        let share = at as f32 / (FRAMES - 1) as f32;
        let side = (FRAME_PX as f32 * (first + (last - first) * share)) as u32;
        let small = image::imageops::resize(drawing, side, side, FilterType::CatmullRom);
        let mut page = Page::from_pixel(FRAME_PX, FRAME_PX, Rgb([255; 3]));
        let place = [0, 1].map(|i| ((start[i] + (end[i] - start[i]) * share) * (FRAME_PX - side) as f32) as i64);
        for (x, y, pixel) in small.enumerate_pixels() {
            let (x, y) = (i64::from(x) + place[0], i64::from(y) + place[1]);
            let inside = |v: i64| (0..i64::from(FRAME_PX)).contains(&v);
            if inside(x) && inside(y) {
                let alpha = f32::from(pixel[3]) / 255.0;
                let mixed = [0, 1, 2].map(|i| (f32::from(pixel[i]) * alpha + 255.0 * (1.0 - alpha)).round() as u8);
                page.put_pixel(x as u32, y as u32, Rgb(mixed));
            }
        }
        RgbImage::new(Width(FRAME_PX), Height(FRAME_PX), page.into_raw()).expect("three bytes a pixel")
    };
    (0..FRAMES).map(frame).collect()
}
