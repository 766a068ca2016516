//! What is written: files with their contents, chunks, words and vectors, a batch a transaction.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::Database;
use super::pages::{PAGE_ROWS, Pages, bytes_of, heads, put_page};
use super::schema::{COORDINATES, LAYOUT};
use crate::error::IndexError;
use crate::store::path::{below, bytes_of_path, path_of_bytes, short_of};
use crate::store::rows::{Batch, NewContent, Put, State, ending_of, name_of};
use crate::store::sums;

impl Database {
    /// Applies a batch in one transaction. Contents that no file has any more stay until [`crate::store::Store::remove_unused`]: a file
    /// that is yet to come may have them.
    ///
    /// # Errors
    /// Whatever the database gives; nothing of the batch is there then.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), IndexError> {
        if batch.is_empty() {
            return Ok(());
        }
        let dim = self.meta()?.dim;
        self.in_transaction(|db, tx| {
            let mut pages = Pages::begin(db, dim)?;
            for put in &batch.puts {
                put_file(db, tx, put, &mut pages)?;
            }
            for path in &batch.removes {
                remove_file(db, tx, path)?;
            }
            finish(db, tx, pages)
        })
    }

    /// Removes contents that no file has, with their chunks, words and vectors.
    ///
    /// # Errors
    /// Whatever the database gives; nothing is removed then.
    pub fn remove_unused(&mut self) -> Result<(), IndexError> {
        let dim = self.meta()?.dim;
        let sql = "SELECT id FROM contents WHERE id NOT IN (SELECT content FROM files WHERE content IS NOT NULL)";
        let unused: Vec<i64> = {
            let mut statement = self.prepare(sql)?;
            let rows = statement.query_map([], |row| row.get(0));
            rows.and_then(Iterator::collect).map_err(|e| self.error(e))?
        };
        if unused.is_empty() {
            return Ok(());
        }
        self.in_transaction(|db, tx| {
            let mut pages = Pages::begin(db, dim)?;
            for content in unused {
                remove_content(db, tx, content, &mut pages)?;
            }
            finish(db, tx, pages)
        })
    }

    /// Lets every file below a folder be read again: its rules changed.
    pub fn forget_times(&mut self, folder: &Path) -> Result<(), IndexError> {
        let (from, to) = below(folder);
        let sql = "UPDATE files SET mtime_ns = -1, seen_ns = -1 WHERE path >= ?1 AND path < ?2";
        self.connection.execute(sql, params![from, to]).map_err(|e| self.error(e))?;
        Ok(())
    }

    /// Notes a folder with its rules.
    pub fn put_root(&mut self, path: &Path, rules: &str) -> Result<(), IndexError> {
        let sql = "INSERT INTO roots (path, rules) VALUES (?1, ?2) ON CONFLICT (path) DO UPDATE SET rules = ?2";
        self.connection.execute(sql, params![bytes_of_path(path), rules]).map_err(|e| self.error(e))?;
        Ok(())
    }

    /// Forgets a folder; its files are removed by the caller. True where it was known.
    pub fn remove_root(&mut self, path: &Path) -> Result<bool, IndexError> {
        let gone = self.connection.execute("DELETE FROM roots WHERE path = ?1", [bytes_of_path(path)]);
        gone.map(|count| count > 0).map_err(|e| self.error(e))
    }

    /// Notes when an update was complete.
    pub fn put_updated(&mut self, now_ns: i64) -> Result<(), IndexError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('updated_ns', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1";
        self.connection.execute(sql, [now_ns]).map_err(|e| self.error(e))?;
        Ok(())
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&Database, &Transaction<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let begun = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let tx = begun.map_err(|e| self.error(e))?;
        if self.layout < LAYOUT {
            // Releases of before refuse it from here on, as they would leave coordinates of what they remove.
            let renewed = tx.execute_batch(&format!("{COORDINATES} PRAGMA user_version = {LAYOUT};"));
            renewed.map_err(|e| self.error(e))?;
        }
        let done = work(self, &tx)?;
        tx.commit().map_err(|e| self.error(e))?;
        self.layout = LAYOUT;
        self.still_there()?;
        Ok(done)
    }
}

/// Writes pages, and counts the change.
fn finish(db: &Database, tx: &Transaction<'_>, pages: Pages) -> Result<(), IndexError> {
    if pages.finish(db, tx)? {
        let step = "UPDATE meta SET value = value + 1 WHERE key = 'generation'";
        tx.execute(step, []).map_err(|e| db.error(e))?;
    }
    Ok(())
}

fn put_file(db: &Database, tx: &Transaction<'_>, put: &Put, pages: &mut Pages) -> Result<(), IndexError> {
    let wrong = |e| db.error(e);
    let content = match &put.state {
        State::Indexed { digest, new } => Some(content_of(db, tx, digest, new.as_ref(), pages)?),
        State::Failed(_) | State::PassedOver => None,
    };
    let path = path_of_bytes(put.file.path.clone());
    let ext = ending_of(&path);
    let fault = match &put.state {
        State::Failed(fault) => Some(fault),
        _ => None,
    };
    let sql = "INSERT INTO files (path, short, ext, size, mtime_ns, seen_ns, content, fault_kind, fault, sum)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
               ON CONFLICT (path) DO UPDATE SET ext = ?3, size = ?4, mtime_ns = ?5, seen_ns = ?6, content = ?7,
                   fault_kind = ?8, fault = ?9, sum = ?10
               RETURNING id";
    let values = params![
        put.file.path,
        short_of(&put.file.path),
        ext,
        put.file.size,
        put.file.mtime_ns,
        put.file.seen_ns,
        content,
        fault.map(|fault| &fault.kind),
        fault.map(|fault| &fault.message),
        sums::file(&put.file.path, put.file.size, content)
    ];
    let id: i64 =
        tx.prepare_cached(sql).and_then(|mut insert| insert.query_row(values, |row| row.get(0))).map_err(wrong)?;
    // The name may be that of a new title.
    tx.prepare_cached("DELETE FROM names WHERE rowid = ?1").and_then(|mut gone| gone.execute([id])).map_err(wrong)?;
    if let Some(content) = content {
        let title: Option<String> = tx
            .prepare_cached("SELECT title FROM contents WHERE id = ?1")
            .and_then(|mut select| select.query_row([content], |row| row.get(0)))
            .map_err(wrong)?;
        let name = name_of(&path, title.as_deref());
        tx.prepare_cached("INSERT INTO names (rowid, name) VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute(params![id, name]))
            .map_err(wrong)?;
    }
    Ok(())
}

/// The content with a digest, made where it is not there yet.
fn content_of(
    db: &Database,
    tx: &Transaction<'_>,
    digest: &[u8; 32],
    new: Option<&NewContent>,
    pages: &mut Pages,
) -> Result<i64, IndexError> {
    let wrong = |e| db.error(e);
    let there = tx
        .prepare_cached("SELECT id FROM contents WHERE digest = ?1")
        .and_then(|mut select| select.query_row([digest.as_slice()], |row| row.get(0)).optional())
        .map_err(wrong)?;
    let new = match (there, new) {
        (Some(id), _) => return Ok(id),
        (None, Some(new)) => new,
        (None, None) => return Err(db.corrupt("a content that files share is missing")),
    };
    let id: i64 = tx
        .prepare_cached(
            "INSERT INTO contents (digest, kind, title, taken_ns, sum) VALUES (?1, ?2, ?3, ?4, 0) RETURNING id",
        )
        .and_then(|mut insert| {
            insert.query_row(params![digest.as_slice(), new.kind.name(), new.title, new.taken_ns], |row| row.get(0))
        })
        .map_err(wrong)?;
    tx.prepare_cached("UPDATE contents SET sum = ?2 WHERE id = ?1")
        .and_then(|mut put| put.execute([id, sums::content(id, new.kind.name(), new.title.as_deref(), new.taken_ns)]))
        .map_err(wrong)?;
    if let Some(coordinates) = new.coordinates {
        tx.prepare_cached("INSERT INTO coordinates (content, latitude, longitude, sum) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut put| {
                put.execute(params![id, coordinates.0, coordinates.1, sums::coordinates(id, coordinates)])
            })
            .map_err(wrong)?;
    }
    for chunk in &new.chunks {
        let vector = chunk.vector.as_ref().map(|values| pages.add(db, tx, values, chunk.modality)).transpose()?;
        let (place, low, high) = chunk.locator.to_row();
        let sum = sums::chunk(id, (place, low, high), vector, &chunk.text);
        let sql = "INSERT INTO chunks (content, place, low, high, vector, text, sum)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id";
        let row: i64 = tx
            .prepare_cached(sql)
            .and_then(|mut insert| {
                insert.query_row(params![id, place, low, high, vector, chunk.text, sum], |row| row.get(0))
            })
            .map_err(wrong)?;
        if !chunk.text.is_empty() {
            for table in ["words", "parts"] {
                tx.prepare_cached(&format!("INSERT INTO {table} (rowid, text) VALUES (?1, ?2)"))
                    .and_then(|mut insert| insert.execute(params![row, chunk.text]))
                    .map_err(wrong)?;
            }
        }
    }
    Ok(id)
}

fn remove_file(db: &Database, tx: &Transaction<'_>, path: &[u8]) -> Result<(), IndexError> {
    let wrong = |e| db.error(e);
    let gone: Option<i64> = tx
        .prepare_cached("DELETE FROM files WHERE path = ?1 RETURNING id")
        .and_then(|mut delete| delete.query_row([path], |row| row.get(0)).optional())
        .map_err(wrong)?;
    if let Some(id) = gone {
        tx.prepare_cached("DELETE FROM names WHERE rowid = ?1")
            .and_then(|mut gone| gone.execute([id]))
            .map_err(wrong)?;
    }
    Ok(())
}

fn remove_content(db: &Database, tx: &Transaction<'_>, content: i64, pages: &mut Pages) -> Result<(), IndexError> {
    let wrong = |e| db.error(e);
    let chunks: Vec<(i64, Option<i64>)> = tx
        .prepare_cached("DELETE FROM chunks WHERE content = ?1 RETURNING id, vector")
        .and_then(|mut delete| delete.query_map([content], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(wrong)?;
    for (chunk, vector) in chunks {
        if let Some(vector) = vector {
            pages.remove(vector);
        }
        for table in ["words", "parts"] {
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))
                .and_then(|mut gone| gone.execute([chunk]))
                .map_err(wrong)?;
        }
    }
    for sql in ["DELETE FROM coordinates WHERE content = ?1", "DELETE FROM contents WHERE id = ?1"] {
        tx.prepare_cached(sql).and_then(|mut gone| gone.execute([content])).map_err(wrong)?;
    }
    Ok(())
}

/// Writes the vectors anew without those that stand for nothing, and gives the room back to the system.
///
/// # Errors
/// Whatever the database gives; nothing is changed then.
pub(super) fn compact(db: &mut Database) -> Result<(), IndexError> {
    let dim = db.meta()?.dim;
    db.in_transaction(|db, tx| {
        let wrong = |e| db.error(e);
        let old = heads(db)?;
        let mut next: i64 = 0;
        let mut moved: Vec<(Vec<u8>, [crate::bits::Bits; 4])> = Vec::new();
        let mut numbers: HashMap<i64, i64> = HashMap::new();
        for head in &old {
            let bytes = bytes_of(db, head, dim)?;
            for slot in 0..head.count {
                let Some(modality) = head.modality(slot) else { continue };
                let (page, to) = ((next / PAGE_ROWS as i64) as usize, (next % PAGE_ROWS as i64) as usize);
                if page == moved.len() {
                    moved.push((Vec::new(), [0, 1, 2, 3].map(|_| crate::bits::Bits::none(PAGE_ROWS))));
                }
                moved[page].0.extend_from_slice(&bytes[slot * dim * 2..(slot + 1) * dim * 2]);
                moved[page].1[modality].set(to);
                numbers.insert(head.page * PAGE_ROWS as i64 + slot as i64, next);
                next += 1;
            }
        }
        tx.execute_batch("DELETE FROM vector_pages; DELETE FROM vector_bytes;").map_err(wrong)?;
        for (page, (bytes, alive)) in moved.iter().enumerate() {
            let count = (bytes.len() / (2 * dim)) as i64;
            put_page(db, tx, page as i64, count, alive, bytes, dim)?;
        }
        renumber(db, tx, &numbers)?;
        tx.execute_batch(
            "UPDATE meta SET value = value + 1 WHERE key = 'generation';
             INSERT INTO words (words) VALUES ('optimize');
             INSERT INTO parts (parts) VALUES ('optimize');
             INSERT INTO names (names) VALUES ('optimize');",
        )
        .map_err(wrong)
    })?;
    db.connection.execute_batch("VACUUM;").map_err(|e| db.error(e))?;
    db.settle_log()
}

/// Gives chunks the new numbers of their vectors.
fn renumber(db: &Database, tx: &Transaction<'_>, numbers: &HashMap<i64, i64>) -> Result<(), IndexError> {
    let wrong = |e| db.error(e);
    // A new number may be another's old one, so all are out of the way first.
    tx.execute("UPDATE chunks SET vector = -1 - vector WHERE vector IS NOT NULL", []).map_err(wrong)?;
    let mut select = tx
        .prepare("SELECT id, content, place, low, high, vector, text FROM chunks WHERE vector IS NOT NULL ORDER BY id")
        .map_err(wrong)?;
    let mut rows = select.query([]).map_err(wrong)?;
    while let Some(row) = rows.next().map_err(wrong)? {
        let read = || -> rusqlite::Result<_> {
            let place = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, place, row.get::<_, i64>(5)?, row.get::<_, String>(6)?))
        };
        let (id, content, place, vector, text) = read().map_err(wrong)?;
        let new = numbers.get(&(-1 - vector));
        let new = *new.ok_or_else(|| db.corrupt(format!("the vector of chunk {id} stands for nothing")))?;
        let sum = sums::chunk(content, place, Some(new), &text);
        tx.prepare_cached("UPDATE chunks SET vector = ?2, sum = ?3 WHERE id = ?1")
            .and_then(|mut put| put.execute([id, new, sum]))
            .map_err(wrong)?;
    }
    Ok(())
}
