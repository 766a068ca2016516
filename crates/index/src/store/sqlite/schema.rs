//! The layout of the database, and what is looked at before it is believed.

/// `OMNI`: SQLite keeps it in the file's header.
pub(super) const APPLICATION_ID: i64 = 0x4F4D_4E49;
/// Of the tables below.
pub(super) const LAYOUT: i64 = 3;
/// The oldest layout that is read. It lacks `coordinates`, which the first change makes.
pub(super) const OLDEST: i64 = 2;

/// Where photographs were taken, apart from what a search reads.
pub(super) const COORDINATES: &str = "
CREATE TABLE IF NOT EXISTS coordinates (
    content INTEGER PRIMARY KEY,
    latitude REAL NOT NULL,
    longitude REAL NOT NULL,
    sum INTEGER NOT NULL
);
";

/// Everything that lasts. A content is what files with equal bytes share: its chunks, their words and their vectors. `sum` is a
/// checksum of what a hit shows of the row.
///
/// `words` and `names` are split at Unicode's words, without accents; `parts` into runs of three characters, for scripts
/// without spaces and for parts of words. They hold no text of their own: `chunks` has it.
pub(super) const TABLES: &str = r#"
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (path BLOB PRIMARY KEY, rules TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    title TEXT,
    taken_ns INTEGER,
    sum INTEGER NOT NULL
);
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    short BLOB NOT NULL,
    ext TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    seen_ns INTEGER NOT NULL,
    content INTEGER,
    fault_kind TEXT,
    fault TEXT,
    sum INTEGER NOT NULL
);
CREATE INDEX files_content ON files (content);
CREATE INDEX files_short ON files (short);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    content INTEGER NOT NULL,
    place INTEGER NOT NULL,
    low REAL NOT NULL,
    high REAL NOT NULL,
    vector INTEGER UNIQUE,
    text TEXT NOT NULL,
    sum INTEGER NOT NULL
);
CREATE INDEX chunks_content ON chunks (content);
CREATE TABLE vector_pages (
    page INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    alive BLOB NOT NULL,
    digest BLOB NOT NULL,
    sum INTEGER NOT NULL
);
CREATE TABLE vector_bytes (page INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE parts USING fts5 (
    text, content = '', contentless_delete = 1, tokenize = 'trigram remove_diacritics 1'
);
CREATE VIRTUAL TABLE names USING fts5 (
    name, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
);
"#;
