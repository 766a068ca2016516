//! What is written to a server: files with their contents, chunks, words and vectors, a batch a transaction.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use half::f16;
use half::slice::HalfFloatSliceExt;
use pgvector::HalfVector;
use sha2::{Digest, Sha256};

use super::read::bytes_of;
use super::schema::{COORDINATES, LAYOUT};
use super::session::{Server, Session, value};
use super::split::{Split, Splitter, count_runs, of_text, runs, split, to_text};
use crate::error::IndexError;
use crate::store::path::{below, bytes_of_path, path_of_bytes, short_of};
use crate::store::rows::{Batch, NewContent, Put, State, ending_of, name_of};
use crate::store::sums;

/// Row and title of each content, by its digest.
type ContentsByDigest = HashMap<[u8; 32], (i64, Option<String>)>;

/// What a path is known by.
pub(super) fn key_of(path: &[u8]) -> Vec<u8> {
    Sha256::digest(path).to_vec()
}

/// The last number of each kind, and the sums that bm25 is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    file: i64,
    content: i64,
    chunk: i64,
    vector: i64,
    generation: i64,
    pub texts: i64,
    pub text_words: i64,
    pub text_runs: i64,
    pub clipped_texts: i64,
    pub names: i64,
    pub name_words: i64,
    pub clipped_names: i64,
}

const COUNTERS: [&str; 12] = [
    "file",
    "content",
    "chunk",
    "vector",
    "generation",
    "texts",
    "text_words",
    "text_runs",
    "clipped_texts",
    "names",
    "name_words",
    "clipped_names",
];

impl Counters {
    /// `held`: nobody else writes until the transaction ends.
    pub fn read(session: &mut Session, place: &Path, held: bool) -> Result<Self, IndexError> {
        let end = if held { " FOR UPDATE" } else { "" };
        let row = session.one(&format!("SELECT {} FROM counters{end}", COUNTERS.join(", ")), &[])?;
        let at = |at: usize| value::<i64>(place, &row, at);
        Ok(Self {
            file: at(0)?,
            content: at(1)?,
            chunk: at(2)?,
            vector: at(3)?,
            generation: at(4)?,
            texts: at(5)?,
            text_words: at(6)?,
            text_runs: at(7)?,
            clipped_texts: at(8)?,
            names: at(9)?,
            name_words: at(10)?,
            clipped_names: at(11)?,
        })
    }

    fn write(mut self, session: &mut Session) -> Result<(), IndexError> {
        self.generation += 1;
        let sets: Vec<String> = COUNTERS.iter().enumerate().map(|(at, name)| format!("{name} = ${}", at + 1)).collect();
        session
            .execute(
                &format!("UPDATE counters SET {}", sets.join(", ")),
                &[
                    &self.file,
                    &self.content,
                    &self.chunk,
                    &self.vector,
                    &self.generation,
                    &self.texts,
                    &self.text_words,
                    &self.text_runs,
                    &self.clipped_texts,
                    &self.names,
                    &self.name_words,
                    &self.clipped_names,
                ],
            )
            .map(drop)
    }

    fn count_name(&mut self, length: i32, clipped: bool, sign: i64) {
        self.names += sign;
        self.name_words += sign * i64::from(length);
        self.clipped_names += sign * i64::from(clipped);
    }

    fn count_text(&mut self, length: i32, runs: i32, clipped: bool, sign: i64) {
        self.texts += sign;
        self.text_words += sign * i64::from(length);
        self.text_runs += sign * i64::from(runs);
        self.clipped_texts += sign * i64::from(clipped);
    }
}

/// New rows, a column each.
#[derive(Default)]
struct Contents {
    ids: Vec<i64>,
    digests: Vec<Vec<u8>>,
    kinds: Vec<String>,
    titles: Vec<Option<String>>,
    taken_ns: Vec<Option<i64>>,
    sums: Vec<i64>,
}

/// Where photographs were taken.
#[derive(Default)]
struct Coordinates {
    contents: Vec<i64>,
    latitudes: Vec<f64>,
    longitudes: Vec<f64>,
    sums: Vec<i64>,
}

#[derive(Default)]
struct Chunks {
    ids: Vec<i64>,
    contents: Vec<i64>,
    places: Vec<i64>,
    lows: Vec<f64>,
    highs: Vec<f64>,
    vectors: Vec<Option<i64>>,
    texts: Vec<String>,
    sums: Vec<i64>,
}

#[derive(Default)]
struct Vectors {
    modalities: Vec<i16>,
    ids: Vec<i64>,
    chunks: Vec<i64>,
    contents: Vec<i64>,
    sums: Vec<i64>,
    values: Vec<HalfVector>,
}

impl Server {
    /// Everything that `work` writes under the counters, or nothing of it. Refuses where another index took this one's place.
    fn write<T>(
        &self,
        work: impl FnOnce(&mut Session, &mut Counters) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let done = self.session().transaction(|session| {
            self.check_born(session)?;
            let mut counters = Counters::read(session, &self.place, true)?;
            if self.layout.load(Ordering::Relaxed) < LAYOUT {
                // Releases of before refuse it from here on, as they would leave coordinates of what they remove.
                session.run(&format!("{COORDINATES} UPDATE meta SET value = '{LAYOUT}' WHERE key = 'layout'"))?;
            }
            let done = work(session, &mut counters)?;
            counters.write(session)?;
            Ok(done)
        })?;
        self.layout.store(LAYOUT, Ordering::Relaxed);
        Ok(done)
    }

    /// Applies a batch.
    pub fn write_batch(&self, batch: &Batch) -> Result<(), IndexError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut splitter = self.splitter();
        let splitter = &mut *splitter;
        self.write(|session, counters| {
            let known = self.put_contents(session, counters, splitter, &batch.puts)?;
            self.put_files(session, counters, splitter, &batch.puts, &known)?;
            self.drop_files(session, counters, &batch.removes)
        })
    }

    /// New contents with their chunks; gives each digest's content and title.
    fn put_contents(
        &self,
        session: &mut Session,
        counters: &mut Counters,
        splitter: &mut Splitter,
        puts: &[Put],
    ) -> Result<ContentsByDigest, IndexError> {
        let place = &self.place;
        let indexed = |put: &Put| match &put.state {
            State::Indexed { digest, .. } => Some(*digest),
            _ => None,
        };
        let digests: Vec<Vec<u8>> = puts.iter().filter_map(indexed).map(|digest| digest.to_vec()).collect();
        let mut known = ContentsByDigest::new();
        for row in &session.query("SELECT digest, id, title FROM contents WHERE digest = ANY($1)", &[&digests])? {
            let digest: &[u8] = value(place, row, 0)?;
            let digest = digest.try_into().map_err(|_| self.corrupt("a digest is not 32 bytes"))?;
            let title = value::<Option<String>>(place, row, 2)?.map(|title| of_text(title, place)).transpose()?;
            known.insert(digest, (value(place, row, 1)?, title));
        }
        let (mut contents, mut coordinates) = (Contents::default(), Coordinates::default());
        let (mut chunks, mut vectors) = (Chunks::default(), Vectors::default());
        for put in puts {
            let State::Indexed { digest, new } = &put.state else { continue };
            if known.contains_key(digest) {
                continue;
            }
            let new = new.as_ref().ok_or_else(|| self.corrupt("a content that files share is missing"))?;
            counters.content += 1;
            let id = counters.content;
            let (kind, title) = (new.kind.name(), new.title.as_deref());
            contents.ids.push(id);
            contents.digests.push(digest.to_vec());
            contents.kinds.push(kind.into());
            contents.titles.push(title.map(to_text));
            contents.taken_ns.push(new.taken_ns);
            contents.sums.push(sums::content(id, kind, title, new.taken_ns));
            if let Some(degrees) = new.coordinates {
                coordinates.contents.push(id);
                coordinates.latitudes.push(degrees.0);
                coordinates.longitudes.push(degrees.1);
                coordinates.sums.push(sums::coordinates(id, degrees));
            }
            known.insert(*digest, (id, new.title.clone()));
            add_chunks(id, new, counters, &mut chunks, &mut vectors);
        }
        if contents.ids.is_empty() {
            return Ok(known);
        }
        session.execute(
            "INSERT INTO contents (id, digest, kind, title, taken_ns, sum)
             SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])",
            &[&contents.ids, &contents.digests, &contents.kinds, &contents.titles, &contents.taken_ns, &contents.sums],
        )?;
        if !coordinates.contents.is_empty() {
            let Coordinates { contents, latitudes, longitudes, sums } = &coordinates;
            session.execute(
                "INSERT INTO coordinates (content, latitude, longitude, sum)
                 SELECT * FROM unnest($1::bigint[], $2::double precision[], $3::double precision[], $4::bigint[])",
                &[contents, latitudes, longitudes, sums],
            )?;
        }
        put_chunks(session, counters, splitter, &chunks)?;
        session.execute(
            "INSERT INTO vectors (modality, id, chunk, content, sum, vector)
             SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::halfvec[])",
            &[
                &vectors.modalities,
                &vectors.ids,
                &vectors.chunks,
                &vectors.contents,
                &vectors.sums,
                &vectors.values,
            ],
        )?;
        Ok(known)
    }

    fn put_files(
        &self,
        session: &mut Session,
        counters: &mut Counters,
        splitter: &mut Splitter,
        puts: &[Put],
        known: &ContentsByDigest,
    ) -> Result<(), IndexError> {
        // Where a path comes twice, the last one counts.
        let last: HashMap<&[u8], usize> =
            puts.iter().enumerate().map(|(at, put)| (put.file.path.as_slice(), at)).collect();
        let mut seen = HashSet::new();
        let new = puts.iter().filter(|put| seen.insert(put.file.path.as_slice()));
        let puts: Vec<&Put> = new.map(|put| &puts[last[put.file.path.as_slice()]]).collect();
        if puts.is_empty() {
            return Ok(());
        }
        let keys: Vec<Vec<u8>> = puts.iter().map(|put| key_of(&put.file.path)).collect();
        let before = "SELECT length, clipped FROM files WHERE key = ANY($1) AND content IS NOT NULL";
        for row in &session.query(before, &[&keys])? {
            counters.count_name(value(&self.place, row, 0)?, value(&self.place, row, 1)?, -1);
        }
        let mut contents: Vec<Option<i64>> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for put in &puts {
            let content = match &put.state {
                State::Indexed { digest, .. } => known.get(digest),
                _ => None,
            };
            contents.push(content.map(|(id, _)| *id));
            names.push(content.map_or_else(String::new, |(_, title)| {
                name_of(&path_of_bytes(put.file.path.clone()), title.as_deref())
            }));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let splits: Vec<Split> = splitter.words(&names)?.iter().map(|words| split(words)).collect();
        for (content, name) in contents.iter().zip(&splits) {
            if content.is_some() {
                counters.count_name(name.length, name.is_clipped(), 1);
            }
        }
        let ids: Vec<i64> = (1..).map(|next| counters.file + next).take(puts.len()).collect();
        counters.file += puts.len() as i64;
        let paths: Vec<&[u8]> = puts.iter().map(|put| put.file.path.as_slice()).collect();
        let shorts: Vec<Vec<u8>> = paths.iter().map(|path| short_of(path)).collect();
        let endings: Vec<String> =
            paths.iter().map(|path| to_text(&ending_of(&path_of_bytes(path.to_vec())))).collect();
        let number = |of: fn(&Put) -> i64| -> Vec<i64> { puts.iter().map(|put| of(put)).collect() };
        let (sizes, mtimes, seen) =
            (number(|put| put.file.size), number(|put| put.file.mtime_ns), number(|put| put.file.seen_ns));
        let fault = |put: &&Put| match &put.state {
            State::Failed(fault) => (Some(to_text(&fault.kind)), Some(to_text(&fault.message))),
            _ => (None, None),
        };
        let (kinds, faults): (Vec<Option<String>>, Vec<Option<String>>) = puts.iter().map(fault).unzip();
        let words: Vec<Option<&str>> =
            contents.iter().zip(&splits).map(|(content, name)| content.and_then(|_| name.words.as_deref())).collect();
        let lengths: Vec<i32> = splits.iter().map(|name| name.length).collect();
        let clipped: Vec<bool> =
            contents.iter().zip(&splits).map(|(content, name)| content.is_some() && name.is_clipped()).collect();
        let sum = |(put, content): (&&Put, &Option<i64>)| sums::file(&put.file.path, put.file.size, *content);
        let sums: Vec<i64> = puts.iter().zip(&contents).map(sum).collect();
        session.execute(
            "INSERT INTO files (id, key, path, short, ext, size, mtime_ns, seen_ns, content, fault_kind, fault, words,
                                length, clipped, sum)
             SELECT a, b, c, d, e, f, g, h, i, j, k, l::tsvector, m, n, o
             FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::text[], $6::bigint[], $7::bigint[],
                         $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::integer[],
                         $14::boolean[], $15::bigint[]) AS t (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o)
             ON CONFLICT (key) DO UPDATE SET ext = excluded.ext, size = excluded.size, mtime_ns = excluded.mtime_ns,
                 seen_ns = excluded.seen_ns, content = excluded.content, fault_kind = excluded.fault_kind,
                 fault = excluded.fault, words = excluded.words, length = excluded.length,
                 clipped = excluded.clipped, sum = excluded.sum",
            &[
                &ids, &keys, &paths, &shorts, &endings, &sizes, &mtimes, &seen, &contents, &kinds, &faults, &words,
                &lengths, &clipped, &sums,
            ],
        )?;
        Ok(())
    }

    fn drop_files(&self, session: &mut Session, counters: &mut Counters, paths: &[Vec<u8>]) -> Result<(), IndexError> {
        if paths.is_empty() {
            return Ok(());
        }
        let keys: Vec<Vec<u8>> = paths.iter().map(|path| key_of(path)).collect();
        let sql = "DELETE FROM files WHERE key = ANY($1) RETURNING content IS NOT NULL, length, clipped";
        for row in &session.query(sql, &[&keys])? {
            if value(&self.place, row, 0)? {
                counters.count_name(value(&self.place, row, 1)?, value(&self.place, row, 2)?, -1);
            }
        }
        Ok(())
    }

    /// Removes contents that no file has.
    pub fn drop_unused(&self) -> Result<(), IndexError> {
        let unused = "FROM contents c WHERE NOT EXISTS (SELECT FROM files f WHERE f.content = c.id)";
        let row = self.session().one(&format!("SELECT EXISTS (SELECT {unused})"), &[])?;
        if !self.value::<bool>(&row, 0)? {
            return Ok(());
        }
        self.write(|session, counters| {
            let gone = session.query(&format!("DELETE {unused} RETURNING c.id"), &[])?;
            let gone: Vec<i64> = gone.iter().map(|row| value(&self.place, row, 0)).collect::<Result<_, _>>()?;
            session.execute("DELETE FROM coordinates WHERE content = ANY($1)", &[&gone])?;
            session.execute("DELETE FROM vectors WHERE content = ANY($1)", &[&gone])?;
            let sql = "DELETE FROM chunks WHERE content = ANY($1) RETURNING text <> '', length, runs, clipped";
            for row in &session.query(sql, &[&gone])? {
                let at = |at: usize| value::<i32>(&self.place, row, at);
                if value(&self.place, row, 0)? {
                    counters.count_text(at(1)?, at(2)?, value(&self.place, row, 3)?, -1);
                }
            }
            Ok(())
        })
    }

    pub fn write_forgotten(&self, folder: &Path) -> Result<(), IndexError> {
        let (from, to) = below(folder);
        let sql = "UPDATE files SET mtime_ns = -1, seen_ns = -1 WHERE path >= $1 AND path < $2";
        self.session().execute(sql, &[&from, &to]).map(drop)
    }

    pub fn write_root(&self, path: &Path, rules: &str) -> Result<(), IndexError> {
        let sql = "INSERT INTO roots (path, rules) VALUES ($1, $2) ON CONFLICT (path) DO UPDATE SET rules = $2";
        self.session().execute(sql, &[&bytes_of_path(path), &to_text(rules)]).map(drop)
    }

    pub fn drop_root(&self, path: &Path) -> Result<bool, IndexError> {
        let gone = self.session().execute("DELETE FROM roots WHERE path = $1", &[&bytes_of_path(path)])?;
        Ok(gone > 0)
    }

    pub fn write_updated(&self, now_ns: i64) -> Result<(), IndexError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('updated_ns', $1) ON CONFLICT (key) DO UPDATE SET value = $1";
        self.session().execute(sql, &[&now_ns.to_string()]).map(drop)
    }

    /// Writes the tables anew without what was removed.
    pub fn write_compact(&self) -> Result<(), IndexError> {
        self.session().run("VACUUM (FULL, ANALYZE) files; ")?;
        ["contents", "chunks", "vectors"]
            .iter()
            .try_for_each(|table| self.session().run(&format!("VACUUM (FULL, ANALYZE) {table}")))
    }
}

/// The chunks of a content, with the numbers that they get.
fn add_chunks(content: i64, new: &NewContent, counters: &mut Counters, chunks: &mut Chunks, vectors: &mut Vectors) {
    for chunk in &new.chunks {
        counters.chunk += 1;
        let id = counters.chunk;
        let vector = chunk.vector.as_ref().map(|values| {
            counters.vector += 1;
            let mut row = vec![f16::ZERO; values.len()];
            row.convert_from_f32_slice(values);
            let modality = chunk.modality as i16;
            vectors.modalities.push(modality);
            vectors.ids.push(counters.vector);
            vectors.chunks.push(id);
            vectors.contents.push(content);
            vectors.sums.push(sums::vector(counters.vector, modality, &bytes_of(&row)));
            vectors.values.push(HalfVector::from(row));
            counters.vector
        });
        let place = chunk.locator.to_row();
        chunks.ids.push(id);
        chunks.contents.push(content);
        chunks.places.push(place.0);
        chunks.lows.push(place.1);
        chunks.highs.push(place.2);
        chunks.vectors.push(vector);
        chunks.sums.push(sums::chunk(content, place, vector, &chunk.text));
        chunks.texts.push(chunk.text.clone());
    }
}

fn put_chunks(
    session: &mut Session,
    counters: &mut Counters,
    splitter: &mut Splitter,
    chunks: &Chunks,
) -> Result<(), IndexError> {
    let texts: Vec<&str> = chunks.texts.iter().map(String::as_str).collect();
    let splits: Vec<Split> = splitter.words(&texts)?.iter().map(|words| split(words)).collect();
    let folded: Vec<String> = texts.iter().map(|text| splitter.folded(text)).collect::<Result<_, _>>()?;
    let parts: Vec<Option<String>> = folded.iter().map(|folded| runs(folded)).collect();
    let counts: Vec<i32> = folded.iter().map(|folded| count_runs(folded)).collect();
    let clipped: Vec<bool> =
        splits.iter().zip(&parts).map(|(split, parts)| split.is_clipped() || parts.is_none()).collect();
    for at in (0..texts.len()).filter(|at| !texts[*at].is_empty()) {
        counters.count_text(splits[at].length, counts[at], clipped[at], 1);
    }
    // A clipped text is looked through, and not found in either index.
    let words: Vec<Option<&str>> =
        splits.iter().zip(&clipped).map(|(split, clipped)| split.words.as_deref().filter(|_| !clipped)).collect();
    let lengths: Vec<i32> = splits.iter().map(|split| split.length).collect();
    let held: Vec<String> = texts.iter().map(|text| to_text(text)).collect();
    session
        .execute(
            "INSERT INTO chunks (id, content, place, low, high, vector, text, folded, words, parts, length, runs,
                                 clipped, sum)
             SELECT a, b, c, d, e, f, g, h, i::tsvector, j::tsvector, k, l, m, n
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::double precision[], $5::double precision[],
                         $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::integer[],
                         $12::integer[], $13::boolean[], $14::bigint[])
                  AS t (a, b, c, d, e, f, g, h, i, j, k, l, m, n)",
            &[
                &chunks.ids,
                &chunks.contents,
                &chunks.places,
                &chunks.lows,
                &chunks.highs,
                &chunks.vectors,
                &held,
                &folded,
                &words,
                &parts,
                &lengths,
                &counts,
                &clipped,
                &chunks.sums,
            ],
        )
        .map(drop)
}
