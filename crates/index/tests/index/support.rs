//! A model that needs no weights: a text is the sum of pseudo-random vectors of its words, a file that of the words of its name.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use omniburn_index::{
    Content, Control, Embedder, EmbedderProfile, Fault, Hit, Index, IndexError, Modality, Progress, Query, Report,
    Root, Rules, SearchOptions, Sought, Vector,
};

pub const DIM: usize = 64;

#[derive(Default)]
pub struct Words {
    /// Contents that were embedded.
    pub embedded: AtomicUsize,
    /// Texts that fail.
    pub failing: Mutex<HashMap<String, Fault>>,
    pub identity: String,
}

fn vector_of(text: &str) -> Vec<f32> {
    let mut sum = vec![1e-3f32; DIM];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let seed = word.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(1_099_511_628_211).wrapping_add(byte.into()));
        let mut random = fastrand::Rng::with_seed(seed);
        sum.iter_mut().for_each(|value| *value += random.f32() - 0.5);
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    sum.into_iter().map(|value| value / length).collect()
}

impl Embedder for Words {
    fn profile(&self) -> EmbedderProfile {
        EmbedderProfile {
            identity: if self.identity.is_empty() { "words/1".into() } else { self.identity.clone() },
            model: "words".into(),
            dim: DIM,
            max_tokens: 64,
            modalities: Modality::ALL.to_vec(),
        }
    }

    fn count_tokens(&self, text: &str) -> Result<usize, Fault> {
        Ok(text.split_whitespace().count() + 2)
    }

    fn embed(
        &self,
        contents: &mut dyn Iterator<Item = Content>,
        take: &mut dyn FnMut(Result<Vec<Vector>, Fault>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        // Two ahead, as an engine takes several before it gives the first.
        let mut ahead = std::collections::VecDeque::new();
        loop {
            while ahead.len() < 2 {
                match contents.next() {
                    Some(content) => ahead.push_back(content),
                    None => break,
                }
            }
            let Some(content) = ahead.pop_front() else { return Ok(()) };
            self.embedded.fetch_add(1, Ordering::SeqCst);
            let text = match &content {
                Content::Text(text) => text.clone(),
                Content::Pixels(image) => format!("drawing {}", image.width().0),
                Content::Image(path) | Content::Audio(path) | Content::Video(path) => {
                    path.file_stem().unwrap().to_string_lossy().into_owned()
                }
            };
            let failing = self.failing.lock().unwrap().get(text.trim()).cloned();
            let result = match (failing, content) {
                (Some(fault), _) => Err(fault),
                (None, Content::Audio(_)) => Ok(vec![
                    Vector { span: Some((0.0, 240.0)), values: vector_of(&text) },
                    Vector { span: Some((240.0, 300.0)), values: vector_of("silence") },
                ]),
                (None, _) => Ok(vec![Vector { span: None, values: vector_of(&text) }]),
            };
            if take(result).is_break() {
                return Ok(());
            }
        }
    }

    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Fault> {
        Ok(vector_of(text))
    }
}

/// A JPEG that is nothing but Exif data: taken at 53.5 degrees south, 9.01 degrees east; `note` makes it another content.
pub fn photograph(note: &str) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08".to_vec();
    tiff.extend([0, 1, 0x88, 0x25, 0, 4, 0, 0, 0, 1, 0, 0, 0, 26, 0, 0, 0, 0]);
    let values = 26 + 2 + 12 * 4 + 4u32;
    tiff.extend([0, 4]);
    for (tag, kind, count, value) in [
        (1u16, 2u16, 2u32, u32::from_be_bytes(*b"S\0\0\0")),
        (2, 5, 3, values),
        (3, 2, 2, u32::from_be_bytes(*b"E\0\0\0")),
        (4, 5, 3, values + 24),
    ] {
        tiff.extend(tag.to_be_bytes());
        tiff.extend(kind.to_be_bytes());
        tiff.extend(count.to_be_bytes());
        tiff.extend(value.to_be_bytes());
    }
    tiff.extend([0; 4]);
    for part in [53u32, 30, 0, 9, 0, 36] {
        tiff.extend(part.to_be_bytes());
        tiff.extend(1u32.to_be_bytes());
    }
    let mut file = b"\xff\xd8\xff\xe1".to_vec();
    file.extend(((tiff.len() + 8) as u16).to_be_bytes());
    file.extend(b"Exif\0\0");
    file.extend(tiff);
    file.extend(b"\xff\xfe");
    file.extend((note.len() as u16 + 2).to_be_bytes());
    file.extend(note.as_bytes());
    file.extend(b"\xff\xd9");
    file
}

#[cfg(feature = "postgres")]
pub fn client() -> postgres::Client {
    postgres::Client::connect(crate::server::address().unwrap(), postgres::NoTls).unwrap()
}

/// The schema in the address of an index.
#[cfg(feature = "postgres")]
pub fn schema_of(index: &Path) -> String {
    index.to_str().unwrap().rsplit_once("schema=").unwrap().1.into()
}

/// Where an index is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Store {
    /// A place of an index that is not there yet: a folder within one, or a schema.
    pub fn place(self, within: &Path) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::SeqCst);
        match self {
            Store::Sqlite => within.join(format!("index{next}")),
            #[cfg(feature = "postgres")]
            Store::Postgres => {
                let address = crate::server::address().expect("a test that needs a server asks for it first");
                format!("{address}&schema=test{next}").into()
            }
        }
    }

    /// Holds the lock of writers of an index that was updated, as another part of this process.
    pub fn hold(self, place: &Place) -> Box<dyn std::any::Any> {
        match self {
            Store::Sqlite => {
                let lock = fs::File::options().write(true).open(place.index.join("writer.lock")).unwrap();
                lock.lock().unwrap();
                Box::new(lock)
            }
            #[cfg(feature = "postgres")]
            Store::Postgres => {
                let mut client = client();
                let schema = schema_of(&place.index);
                client.batch_execute(&format!("SET application_name = 'omniburn {}'", std::process::id())).unwrap();
                client.execute("SELECT pg_advisory_lock($1, hashtext($2))", &[&0x4F4D_4E49, &schema]).unwrap();
                Box::new(client)
            }
        }
    }

    /// False, and said so, where there is no such store on this machine.
    #[cfg(feature = "postgres")]
    pub fn is_here(self) -> bool {
        match self {
            Store::Sqlite => true,
            Store::Postgres => crate::server::address().is_some(),
        }
    }
}

/// Tests with a store as their argument, once for each.
macro_rules! on_both_stores {
    ($($(#[$when:meta])? $name:ident;)*) => {
        mod sqlite {
            $($(#[$when])? #[test] fn $name() { super::$name(crate::support::Store::Sqlite); })*
        }

        #[cfg(feature = "postgres")]
        mod postgres {
            use crate::support::Store;

            $($(#[$when])? #[test] fn $name() {
                if Store::Postgres.is_here() {
                    super::$name(Store::Postgres);
                }
            })*
        }
    };
}
pub(crate) use on_both_stores;

/// A folder of files, and an index.
pub struct Place {
    /// Gone with this.
    #[cfg_attr(not(any(feature = "parquet", feature = "postgres")), expect(dead_code, reason = "held for its end"))]
    pub folder: tempfile::TempDir,
    pub files: PathBuf,
    pub index: PathBuf,
}

impl Place {
    pub fn new(store: Store) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let files = root.join("files");
        fs::create_dir(&files).unwrap();
        let index = store.place(&root);
        Self { folder, files, index }
    }

    /// Writes a file as if it had been there for a day.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.files.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        age(&path, 86_400);
        path
    }

    pub fn root(&self) -> Root {
        Root { path: self.files.clone(), rules: Rules::default() }
    }

    pub fn update(&self, words: &Words) -> Report {
        self.try_update(words).unwrap()
    }

    pub fn try_update(&self, words: &Words) -> Result<Report, IndexError> {
        let mut index = Index::open_or_begin(&self.index, &words.profile())?;
        index.update(words, &[self.root()], Duration::ZERO, &quiet())
    }

    pub fn open(&self) -> Index {
        Index::open(&self.index).unwrap()
    }

    /// Names of what is found, best first.
    pub fn found(&self, text: &str) -> Vec<String> {
        self.found_with(text, &SearchOptions::default())
    }

    pub fn found_with(&self, text: &str, options: &SearchOptions) -> Vec<String> {
        self.hits(text, options).iter().map(|hit| name(&hit.path)).collect()
    }

    pub fn hits(&self, text: &str, options: &SearchOptions) -> Vec<Hit> {
        hits(&self.open(), text, options).unwrap()
    }
}

pub fn hits(index: &Index, text: &str, options: &SearchOptions) -> Result<Vec<Hit>, IndexError> {
    let query = Query::parse(text, None, SystemTime::now())?;
    let vector = Words::default().embed_query(&query.text).unwrap();
    index.search(&query, Sought::Vector(&vector, Modality::Text), options)
}

pub fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Sets when a file was changed to so many seconds ago.
pub fn age(path: &Path, seconds: u64) {
    let at = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

pub fn quiet() -> Control<'static> {
    Control { interrupted: &|| false, progress: &|_: Progress| {} }
}
