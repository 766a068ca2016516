//! An index on a server is opened, begun, or imported.

use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use super::address::Address;
use super::schema::{APPLICATION, LAYOUT, MOST_DIM, OLDEST, tables};
use super::session::{Server, Session, value};
use super::split::{Splitter, of_text, to_text};
use crate::embedder::EmbedderProfile;
use crate::error::IndexError;
use crate::store::api::{Fill, Store};
use crate::store::rows::Meta;

/// The oldest release of Postgres that counts matches of an expression: 15.
const OLDEST_SERVER: u32 = 150_000;
/// The oldest release of pgvector that has `halfvec`.
const OLDEST_PGVECTOR: (u32, u32) = (0, 7);
/// The first of the two numbers of an advisory lock: `OMNI`.
pub(super) const LOCK: i32 = 0x4F4D_4E49;

/// Opens the index at an address.
///
/// # Errors
/// [`IndexError::Missing`], [`IndexError::Foreign`], [`IndexError::Version`], [`IndexError::Corrupt`],
/// [`IndexError::Unsuitable`], [`IndexError::Server`].
pub(in crate::store) fn open(address: &str) -> Result<Box<dyn Store>, IndexError> {
    let address = Address::parse(address)?;
    let session = connected(&address)?;
    Ok(Box::new(opened(&address, session)?))
}

/// Opens the index at an address, or begins one for what embeds.
///
/// # Errors
/// As [`open`]; [`IndexError::IdentityMismatch`].
pub(in crate::store) fn open_or_begin(address: &str, profile: &EmbedderProfile) -> Result<Box<dyn Store>, IndexError> {
    let address = Address::parse(address)?;
    let mut session = connected(&address)?;
    begin(&address, &mut session, profile)?;
    let server = opened(&address, session)?;
    server.meta.clone().agree(profile)?;
    Ok(Box::new(server))
}

/// Lets an index be made in a schema of its own, which takes the name that is meant when it is complete.
///
/// # Errors
/// [`IndexError::Exists`]; whatever `fill` gives, and nothing is left then.
pub(in crate::store) fn import_apart(address: &str, fill: Fill<'_>) -> Result<u64, IndexError> {
    let address = Address::parse(address)?;
    let mut session = connected(&address)?;
    let exists = || IndexError::Exists { path: address.place.clone() };
    if has_schema(&mut session, &address)? {
        return Err(exists());
    }
    let part = Address { schema: format!("{}_import", address.schema), ..address.clone() };
    // Held until the end of the session: two imports do not mix.
    let row = session.one("SELECT pg_try_advisory_lock($1, hashtext($2))", &[&LOCK, &part.schema])?;
    if !value::<bool>(&address.place, &row, 0)? {
        return Err(IndexError::Locked { path: address.place.clone(), holder: "another import".into() });
    }
    let drop_part = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", part.schema);
    session.run(&drop_part)?;
    let filled = fill(&mut |profile| {
        let mut session = connected(&part)?;
        begin(&part, &mut session, profile)?;
        Ok(Box::new(opened(&part, session)?))
    });
    let done = filled.and_then(|files| {
        session.transaction(|session| {
            lock_beginning(session, &address)?;
            if has_schema(session, &address)? {
                return Err(exists());
            }
            session.run(&format!("ALTER SCHEMA \"{}\" RENAME TO \"{}\"", part.schema, address.schema))
        })?;
        Ok(files)
    });
    if done.is_err()
        && let Err(error) = session.run(&drop_part)
    {
        tracing::warn!("{}: what was imported so far is left: {error}", part.place.display());
    }
    done
}

/// A session in the schema of an address, with pgvector.
fn connected(address: &Address) -> Result<Session, IndexError> {
    let place = &address.place;
    let mut session = Session::of(address.connect()?, place);
    let unsuitable = |what: String| IndexError::Unsuitable { place: place.clone(), what };
    let encoding: String = value(place, &session.one("SHOW server_encoding", &[])?, 0)?;
    if encoding != "UTF8" {
        return Err(unsuitable(format!("the database is encoded in {encoding}, and an index needs UTF8")));
    }
    let release: String = value(place, &session.one("SHOW server_version_num", &[])?, 0)?;
    if release.parse::<u32>().unwrap_or(0) < OLDEST_SERVER {
        return Err(unsuitable(format!("Postgres {}, and an index needs 15 or later", release.trim_end_matches('0'))));
    }
    let pgvector = "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                    WHERE e.extname = 'vector'";
    let mut found = session.query(pgvector, &[])?;
    if found.is_empty() {
        let there = session.one("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')", &[])?;
        if !value::<bool>(place, &there, 0)? {
            return Err(unsuitable(
                "the server has no pgvector: install it there (package postgresql-NN-pgvector)".into(),
            ));
        }
        // Where another program makes it at the same moment, this one is refused, and it is there.
        let made = session.run("CREATE EXTENSION IF NOT EXISTS vector");
        found = session.query(pgvector, &[])?;
        if let (true, Err(error)) = (found.is_empty(), made) {
            let what = "pgvector is not in this database, and CREATE EXTENSION vector was refused";
            return Err(unsuitable(format!("{what}: {error}")));
        }
    }
    let row = found.first().ok_or_else(|| unsuitable("pgvector is not in this database".into()))?;
    let (version, within): (String, String) = (value(place, row, 0)?, value(place, row, 1)?);
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST_PGVECTOR {
        return Err(unsuitable(format!("pgvector {version}, and an index needs 0.7 or later")));
    }
    session.run(&format!("SET search_path TO \"{}\", \"{}\"", address.schema, within.replace('"', "\"\"")))?;
    Ok(session)
}

fn has_schema(session: &mut Session, address: &Address) -> Result<bool, IndexError> {
    let there = session.one("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", &[&address.schema])?;
    value(&address.place, &there, 0)
}

/// One program at a time begins an index, until the transaction ends.
fn lock_beginning(session: &mut Session, address: &Address) -> Result<(), IndexError> {
    session.execute("SELECT pg_advisory_xact_lock($1, hashtext($2 || ' begins'))", &[&LOCK, &address.schema]).map(drop)
}

/// Makes the schema with its tables where there is none.
fn begin(address: &Address, session: &mut Session, profile: &EmbedderProfile) -> Result<(), IndexError> {
    if has_schema(session, address)? {
        return Ok(());
    }
    if profile.dim > MOST_DIM {
        let what = format!("vectors of {} values, and pgvector's halfvec has at most {MOST_DIM}", profile.dim);
        return Err(IndexError::Unsuitable { place: address.place.clone(), what });
    }
    session.transaction(|session| {
        lock_beginning(session, address)?;
        if has_schema(session, address)? {
            return Ok(());
        }
        session.run(&format!("CREATE SCHEMA \"{}\"", address.schema))?;
        session.run(&tables(profile.dim))?;
        let meta = [
            ("application", APPLICATION.to_string()),
            ("layout", LAYOUT.to_string()),
            ("identity", to_text(&profile.identity)),
            ("model", to_text(&profile.model)),
            ("dim", profile.dim.to_string()),
        ];
        for (key, value) in meta {
            session.execute("INSERT INTO meta (key, value) VALUES ($1, $2)", &[&key, &value])?;
        }
        session.run("INSERT INTO meta (key, value) VALUES ('born', gen_random_uuid()::text)")
    })
}

/// The index in a schema that is there.
fn opened(address: &Address, mut session: Session) -> Result<Server, IndexError> {
    let place = &address.place;
    if !has_schema(&mut session, address)? {
        return Err(IndexError::Missing { path: place.clone() });
    }
    let foreign = |what: &str| IndexError::Unsuitable {
        place: place.clone(),
        what: format!("the schema {} is another program's, not an index: {what}", address.schema),
    };
    let table = session.one("SELECT to_regclass($1) IS NOT NULL", &[&format!("\"{}\".meta", address.schema)])?;
    if !value::<bool>(place, &table, 0)? {
        return Err(foreign("it has no table `meta`"));
    }
    let mut read = |key: &str| -> Result<Option<String>, IndexError> {
        let rows = session.query("SELECT value FROM meta WHERE key = $1", &[&key])?;
        rows.first().map(|row| of_text(value(place, row, 0)?, place)).transpose()
    };
    if read("application")?.as_deref() != Some(APPLICATION) {
        return Err(foreign("its table `meta` does not say so"));
    }
    let corrupt = |what: String| IndexError::Corrupt { path: place.clone(), what };
    let mut needed = |key: &str| read(key)?.ok_or_else(|| corrupt(format!("`{key}` is missing")));
    let layout = needed("layout")?;
    let found: i64 = layout.parse().map_err(|_| corrupt("the layout is no number".into()))?;
    if !(OLDEST..=LAYOUT).contains(&found) {
        return Err(IndexError::Version { path: place.clone(), found, expected: LAYOUT });
    }
    let dim: Option<usize> = needed("dim")?.parse().ok().filter(|dim| (1..=MOST_DIM).contains(dim));
    let dim = dim.ok_or_else(|| corrupt("the dimension is out of range".into()))?;
    let meta = Meta { identity: needed("identity")?, model: needed("model")?, dim };
    let born = needed("born")?;
    Ok(Server {
        place: place.clone(),
        schema: address.schema.clone(),
        born,
        meta,
        layout: AtomicI64::new(found),
        session: Arc::new(Mutex::new(session)),
        splitter: Mutex::new(Splitter::new()?),
    })
}

impl Server {
    /// Refuses to go on where the index was deleted or replaced.
    pub fn check_born(&self, session: &mut Session) -> Result<(), IndexError> {
        let gone = || IndexError::Gone { path: self.place.clone() };
        let table = session.one("SELECT to_regclass($1) IS NOT NULL", &[&format!("\"{}\".meta", self.schema)])?;
        if !value::<bool>(&self.place, &table, 0)? {
            return Err(gone());
        }
        let rows = session.query("SELECT value FROM meta WHERE key = 'born'", &[])?;
        let born = rows.first().map(|row| value::<String>(&self.place, row, 0)).transpose()?;
        if born.as_deref() == Some(self.born.as_str()) { Ok(()) } else { Err(gone()) }
    }

    pub fn path(&self) -> &Path {
        &self.place
    }
}
