//! The layout of an index on a server.

/// What `meta` says of whose schema it is.
pub(super) const APPLICATION: &str = "omniburn index";
/// Of the tables below.
pub(super) const LAYOUT: i64 = 2;
/// The oldest layout that is read. It lacks `coordinates`, which the first change makes.
pub(super) const OLDEST: i64 = 1;

/// Where photographs were taken, apart from what a search reads.
pub(super) const COORDINATES: &str = "
CREATE TABLE IF NOT EXISTS coordinates (
    content bigint PRIMARY KEY,
    latitude double precision NOT NULL,
    longitude double precision NOT NULL,
    sum bigint NOT NULL
);";
/// Values of a row that `halfvec` holds.
pub(super) const MOST_DIM: usize = 16_000;
/// Values of a row that lies within its page: a longer one lies beside the table, and is fetched for each product.
const MOST_WITHIN: usize = 3_900;

/// Everything that lasts. `sum` is a checksum of what a hit shows of the row.
///
/// `words` holds the words of FTS5's `unicode61` with their places, `parts` the runs of three characters of its `trigram`, and
/// `folded` the text that these are taken from. A row that a `tsvector` cannot hold is `clipped` and looked through. Files
/// are known by the digest of their path, which no length of a path breaks. `counters` has the last number of each kind, and the
/// sums that bm25 is made of.
pub(super) fn tables(dim: usize) -> String {
    let within = if dim <= MOST_WITHIN { "PLAIN" } else { "EXTERNAL" };
    let partitions: String = (0..4)
        .map(|modality| {
            format!(
                "CREATE TABLE vectors_{modality} PARTITION OF vectors FOR VALUES IN ({modality});
                 ALTER TABLE vectors_{modality} ALTER COLUMN vector SET STORAGE {within};\n"
            )
        })
        .collect();
    format!(
        "
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);
CREATE TABLE counters (
    id smallint PRIMARY KEY CHECK (id = 0),
    file bigint NOT NULL, content bigint NOT NULL, chunk bigint NOT NULL, vector bigint NOT NULL,
    generation bigint NOT NULL,
    texts bigint NOT NULL, text_words bigint NOT NULL, text_runs bigint NOT NULL, clipped_texts bigint NOT NULL,
    names bigint NOT NULL, name_words bigint NOT NULL, clipped_names bigint NOT NULL
);
INSERT INTO counters VALUES (0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0);
CREATE TABLE roots (path bytea PRIMARY KEY, rules text NOT NULL);
CREATE TABLE contents (
    id bigint PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    kind text NOT NULL,
    title text,
    taken_ns bigint,
    sum bigint NOT NULL
);
CREATE TABLE files (
    id bigint PRIMARY KEY,
    key bytea NOT NULL UNIQUE,
    path bytea NOT NULL,
    short bytea NOT NULL,
    ext text NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    seen_ns bigint NOT NULL,
    content bigint,
    fault_kind text,
    fault text,
    words tsvector,
    length integer NOT NULL,
    clipped boolean NOT NULL,
    sum bigint NOT NULL
);
CREATE INDEX files_content ON files (content);
CREATE INDEX files_short ON files (short);
CREATE INDEX files_words ON files USING gin (words);
CREATE TABLE chunks (
    id bigint PRIMARY KEY,
    content bigint NOT NULL,
    place bigint NOT NULL,
    low double precision NOT NULL,
    high double precision NOT NULL,
    vector bigint UNIQUE,
    text text NOT NULL,
    folded text NOT NULL,
    words tsvector,
    parts tsvector,
    length integer NOT NULL,
    runs integer NOT NULL,
    clipped boolean NOT NULL,
    sum bigint NOT NULL
);
CREATE INDEX chunks_content ON chunks (content);
CREATE INDEX chunks_words ON chunks USING gin (words);
CREATE INDEX chunks_parts ON chunks USING gin (parts);
CREATE INDEX chunks_clipped ON chunks (id) WHERE clipped;
CREATE TABLE vectors (
    modality smallint NOT NULL,
    id bigint NOT NULL,
    chunk bigint NOT NULL,
    content bigint NOT NULL,
    sum bigint NOT NULL,
    vector halfvec({dim}) NOT NULL,
    PRIMARY KEY (modality, id)
) PARTITION BY LIST (modality);
CREATE INDEX vectors_content ON vectors (content);
{partitions}{COORDINATES}"
    )
}
