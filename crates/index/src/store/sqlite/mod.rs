//! The one file that lasts: a SQLite database with files, contents, chunks, words (FTS5) and vectors (pages of f16).
//!
//! One process writes at a time and holds `writer.lock` meanwhile; any number reads. Beside the file lies a cache of the vectors.

mod lock;
mod matrix;
mod nearest;
mod pages;
mod read;
mod schema;
mod store;
mod words;
mod write;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use omniburn_output::FileId;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags};

use self::lock::FolderLock;
use self::matrix::Matrix;
use super::rows::Meta;
use crate::embedder::EmbedderProfile;
use crate::error::IndexError;

/// How long one process waits for another that begins the index.
const BEGINNING: Duration = Duration::from_secs(20);
/// The database's name in the folder of an index.
pub(crate) const DATABASE: &str = "index.db";

/// An open database with its place, for errors.
pub(crate) struct Database {
    path: PathBuf,
    connection: Connection,
    /// Which file was opened under the path.
    identity: Option<FileId>,
    /// The vectors as the last search saw them.
    matrix: RefCell<Option<Arc<Matrix>>>,
    /// The layout that it was opened with, or that it was brought to since.
    layout: i64,
}

impl Database {
    /// Opens the index in a folder.
    ///
    /// # Errors
    /// [`IndexError::Missing`], [`IndexError::Foreign`], [`IndexError::Version`], [`IndexError::Corrupt`].
    pub fn open(folder: &Path) -> Result<Self, IndexError> {
        let path = folder.join(DATABASE);
        if !path.exists() {
            return Err(IndexError::Missing { path: folder.into() });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags);
        let connection = opened.map_err(|source| IndexError::Database { path: path.clone(), source })?;
        let identity = FileId::of(&path);
        let mut database = Self { path, connection, identity, matrix: RefCell::default(), layout: 0 };
        database.set_up()?;
        database.check()?;
        Ok(database)
    }

    /// Opens the index in a folder, or begins one for what embeds.
    ///
    /// # Errors
    /// As [`Database::open`]; [`IndexError::IdentityMismatch`] for an index of another model; [`IndexError::Io`] where the
    /// folder cannot be made.
    pub fn open_or_begin(folder: &Path, profile: &EmbedderProfile) -> Result<Self, IndexError> {
        let path = folder.join(DATABASE);
        if path.exists() {
            let database = Self::open(folder)?;
            database.meta()?.agree(profile)?;
            return Ok(database);
        }
        std::fs::create_dir_all(folder).map_err(|source| IndexError::Io { path: folder.into(), source })?;
        // One process begins it: a database that takes the place of another one would lose what that has.
        let lock = FolderLock::take(folder, BEGINNING)?;
        if path.exists() {
            drop(lock);
            return Self::open_or_begin(folder, profile);
        }
        // Complete before it has its name, so that nobody opens half a schema.
        let beginning = folder.join(format!(".{DATABASE}.{}.part", std::process::id()));
        let made = Self::begin(&beginning, profile);
        let placed = made.and_then(|()| {
            std::fs::rename(&beginning, &path).map_err(|source| IndexError::Io { path: path.clone(), source })
        });
        if placed.is_err() {
            let _ = std::fs::remove_file(&beginning);
        }
        placed?;
        Self::open(folder)
    }

    fn begin(path: &Path, profile: &EmbedderProfile) -> Result<(), IndexError> {
        let _ = std::fs::remove_file(path);
        let wrong = |source| IndexError::Database { path: path.into(), source };
        let connection = Connection::open(path).map_err(wrong)?;
        let (id, layout) = (schema::APPLICATION_ID, schema::LAYOUT);
        let head = format!("PRAGMA page_size = 8192; PRAGMA application_id = {id}; PRAGMA user_version = {layout};");
        let meta: [(&str, rusqlite::types::Value); 4] = [
            ("identity", profile.identity.clone().into()),
            ("model", profile.model.clone().into()),
            ("dim", (profile.dim as i64).into()),
            ("generation", 0i64.into()),
        ];
        connection
            .execute_batch(&format!("{head} BEGIN; {} {} COMMIT;", schema::TABLES, schema::COORDINATES))
            .map_err(wrong)?;
        for (key, value) in meta {
            connection.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (key, value)).map_err(wrong)?;
        }
        connection.close().map_err(|(_, source)| wrong(source))
    }

    fn set_up(&self) -> Result<(), IndexError> {
        let set_up = || -> rusqlite::Result<()> {
            self.connection.busy_timeout(Duration::from_secs(20))?;
            self.connection.set_prepared_statement_cache_capacity(64);
            // Damage is looked for in every page that is read, and a schema that somebody else wrote calls nothing.
            self.connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;")
        };
        set_up().map_err(|e| self.error(e))
    }

    fn check(&mut self) -> Result<(), IndexError> {
        let number = |pragma: &str| {
            let found = self.connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
            found.map_err(|e| self.error(e))
        };
        let found = number("application_id")?;
        if found != schema::APPLICATION_ID {
            return Err(IndexError::Foreign { path: self.path.clone(), found });
        }
        let found = number("user_version")?;
        if !(schema::OLDEST..=schema::LAYOUT).contains(&found) {
            let expected = schema::LAYOUT;
            return Err(IndexError::Version { path: self.path.clone(), found, expected });
        }
        self.layout = found;
        self.meta()?;
        let settled = self.connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
        match settled {
            // Whoever may only read can search.
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::ReadOnly) => Ok(()),
            settled => settled.map_err(|e| self.error(e)),
        }
    }

    /// Refuses to go on where the file was deleted or replaced since it was opened: what is written would be lost.
    ///
    /// # Errors
    /// [`IndexError::Gone`].
    pub fn still_there(&self) -> Result<(), IndexError> {
        let now = FileId::of(&self.path);
        if now.is_some() && now == self.identity {
            return Ok(());
        }
        Err(IndexError::Gone { path: self.folder().into() })
    }

    /// Writes what stands in the log into the file itself.
    pub fn settle_log(&self) -> Result<(), IndexError> {
        let done = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);");
        done.map_err(|e| self.error(e))
    }

    /// The matrix that was kept last; it is the caller's then.
    fn take_matrix(&self) -> Option<Arc<Matrix>> {
        self.matrix.take()
    }

    /// Keeps a matrix open for the next search.
    fn keep_matrix(&self, matrix: Arc<Matrix>) {
        self.matrix.replace(Some(matrix));
    }

    /// What the index was made by.
    pub fn meta(&self) -> Result<Meta, IndexError> {
        let text = |key: &str| self.meta_value::<String>(key);
        let dim: i64 = self.meta_value("dim")?;
        let dim = usize::try_from(dim).ok().filter(|dim| (1..=65_536).contains(dim));
        let dim = dim.ok_or_else(|| self.corrupt("the dimension is out of range"))?;
        Ok(Meta { identity: text("identity")?, model: text("model")?, dim })
    }

    pub fn meta_value<T: rusqlite::types::FromSql>(&self, key: &str) -> Result<T, IndexError> {
        let found = self.connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0));
        found.map_err(|e| match e {
            rusqlite::Error::QueryReturnedNoRows => self.corrupt(format!("`{key}` is missing")),
            e => self.error(e),
        })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the index.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    pub fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, IndexError> {
        self.connection.prepare_cached(sql).map_err(|e| self.error(e))
    }

    /// An error of the database by what it means.
    pub fn error(&self, source: rusqlite::Error) -> IndexError {
        use rusqlite::Error;
        let damaged = match &source {
            Error::SqliteFailure(failure, message) => {
                let gone = || message.as_ref().is_some_and(|message| message.starts_with("no such "));
                matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) || gone()
            }
            // A value of another type than this release writes, or a table that is gone.
            Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..) => {
                true
            }
            Error::SqlInputError { .. } => true,
            _ => false,
        };
        if damaged {
            self.corrupt(source.to_string())
        } else {
            IndexError::Database { path: self.path.clone(), source }
        }
    }

    pub fn corrupt(&self, what: impl Into<String>) -> IndexError {
        IndexError::Corrupt { path: self.path.clone(), what: what.into() }
    }
}
