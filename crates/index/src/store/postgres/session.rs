//! A connection to a server, with the statements that it has prepared, and errors by what they mean.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postgres::error::SqlState;
use postgres::types::{FromSql, ToSql};
use postgres::{Client, Row, Statement};

use super::address::chain;
use super::split::Splitter;
use crate::error::IndexError;
use crate::store::rows::Meta;

/// Statements that are kept.
const MOST_STATEMENTS: usize = 256;

/// A value of a statement.
pub(super) type Value<'a> = &'a (dyn ToSql + Sync);

pub(super) struct Session {
    /// None once it is closed.
    client: Option<Client>,
    statements: HashMap<String, Statement>,
    place: PathBuf,
}

impl Session {
    pub fn of(client: Client, place: &Path) -> Self {
        Self { client: Some(client), statements: HashMap::new(), place: place.into() }
    }

    fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("a session is closed when it is dropped")
    }

    /// Runs statements without values.
    pub fn run(&mut self, sql: &str) -> Result<(), IndexError> {
        let done = self.client().batch_execute(sql);
        done.map_err(|e| error_of(&self.place, e))
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, IndexError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let prepared = self.client().prepare(sql);
        let prepared = prepared.map_err(|e| error_of(&self.place, e))?;
        if self.statements.len() >= MOST_STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.into(), prepared.clone());
        Ok(prepared)
    }

    pub fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, IndexError> {
        let statement = self.prepared(sql)?;
        let rows = self.client().query(&statement, values);
        rows.map_err(|e| error_of(&self.place, e))
    }

    /// The only row of an answer.
    pub fn one(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Row, IndexError> {
        let row = self.query(sql, values)?.pop();
        row.ok_or_else(|| corrupt(&self.place, "a row that every index has is missing"))
    }

    pub fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, IndexError> {
        let statement = self.prepared(sql)?;
        let done = self.client().execute(&statement, values);
        done.map_err(|e| error_of(&self.place, e))
    }

    /// Everything that `work` does, or nothing of it.
    pub fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, IndexError>) -> Result<T, IndexError> {
        self.run("BEGIN")?;
        match work(self).and_then(|done| self.run("COMMIT").map(|()| done)) {
            Ok(done) => Ok(done),
            Err(error) => {
                if let Err(again) = self.run("ROLLBACK") {
                    tracing::debug!("{}: {again}", self.place.display());
                }
                Err(error)
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closing waits for the connection, which a thread that runs futures must not.
        let Some(client) = self.client.take() else { return };
        let closing = std::thread::Builder::new().name("omniburn-close".into()).spawn(move || drop(client));
        if let Ok(closing) = closing {
            let _ = closing.join();
        }
    }
}

/// A value of a row.
///
/// # Errors
/// [`IndexError::Corrupt`] for one of another type than this release writes.
pub(super) fn value<'a, T: FromSql<'a>>(place: &Path, row: &'a Row, at: usize) -> Result<T, IndexError> {
    row.try_get(at).map_err(|e| corrupt(place, chain(&e)))
}

pub(super) fn corrupt(place: &Path, what: impl Into<String>) -> IndexError {
    IndexError::Corrupt { path: place.into(), what: what.into() }
}

/// An error of the server by what it means.
fn error_of(place: &Path, error: postgres::Error) -> IndexError {
    let lost = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::DATATYPE_MISMATCH,
        SqlState::DATA_CORRUPTED,
        SqlState::INDEX_CORRUPTED,
    ];
    let why = chain(&error);
    if error.code().is_some_and(|code| lost.contains(code)) {
        return corrupt(place, why);
    }
    IndexError::Server { place: place.into(), why, source: Box::new(error) }
}

/// A schema of a server that has an index.
pub(super) struct Server {
    pub place: PathBuf,
    pub schema: String,
    /// What tells this index from another one that takes its place.
    pub born: String,
    pub meta: Meta,
    /// The layout that it was opened with, or that it was brought to since.
    pub layout: AtomicI64,
    pub session: Arc<Mutex<Session>>,
    pub splitter: Mutex<Splitter>,
}

impl Server {
    pub fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn splitter(&self) -> MutexGuard<'_, Splitter> {
        self.splitter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, IndexError> {
        self.session().query(sql, values)
    }

    pub fn corrupt(&self, what: impl Into<String>) -> IndexError {
        corrupt(&self.place, what)
    }

    pub fn value<'a, T: FromSql<'a>>(&self, row: &'a Row, at: usize) -> Result<T, IndexError> {
        value(&self.place, row, at)
    }

    /// The number that an answer of one row begins with.
    pub fn count(&self, sql: &str, values: &[Value<'_>]) -> Result<usize, IndexError> {
        let row = self.session().one(sql, values)?;
        Ok(self.value::<i64>(&row, 0)?.max(0) as usize)
    }
}
