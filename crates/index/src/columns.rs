//! An export as one Parquet file, for those who read it with something else, and an index from it.
//!
//! One table. A row of `row = content` has what files with equal bytes share, the rows of `row = chunk` behind it have its chunks,
//! and those of `row = file` name the files; `digest` is what joins them. What the first line of JSON says stands under the key
//! `omniburn.index` of the file's metadata, as JSON. Nothing is compressed and there are no dictionaries, so that a page of a file that
//! somebody else made holds no more than its bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::error::IndexError;
use crate::lines::{ChunkLine, ContentLine, FaultLine, FileLine, IndexLine, Line, PathText, Sink, Source};

/// Of the metadata.
const KEY: &str = "omniburn.index";
/// Rows of a row group at most, and values of vectors in it before another one begins.
const GROUP_ROWS: usize = 2048;
const GROUP_VALUES: usize = 1 << 22;
/// Values of a vector at most.
const MOST_DIM: usize = 65_536;

const SCHEMA: &str = "
message index {
    optional binary row (STRING);
    optional binary digest (STRING);
    optional binary kind (STRING);
    optional binary title (STRING);
    optional int64 taken_ns;
    optional double latitude;
    optional double longitude;
    optional int64 place;
    optional double low;
    optional double high;
    optional binary text (STRING);
    optional binary modality (STRING);
    optional group vector (LIST) { repeated group list { required float element; } }
    optional binary path (STRING);
    optional binary path_bytes (STRING);
    optional int64 size;
    optional int64 mtime_ns;
    optional int64 seen_ns;
    optional binary fault_kind (STRING);
    optional binary fault (STRING);
}";

/// A row, its fields named as the columns are.
#[derive(Default)]
struct Row {
    row: Option<String>,
    digest: Option<String>,
    kind: Option<String>,
    title: Option<String>,
    taken_ns: Option<i64>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    place: Option<i64>,
    low: Option<f64>,
    high: Option<f64>,
    text: Option<String>,
    modality: Option<String>,
    vector: Option<Vec<f32>>,
    path: Option<String>,
    path_bytes: Option<String>,
    size: Option<i64>,
    mtime_ns: Option<i64>,
    seen_ns: Option<i64>,
    fault_kind: Option<String>,
    fault: Option<String>,
}

/// A field of a row by the type of its column.
enum Field<'a> {
    Text(&'a mut Option<String>),
    Integer(&'a mut Option<i64>),
    Number(&'a mut Option<f64>),
    Vector(&'a mut Option<Vec<f32>>),
}

impl Row {
    /// The fields in the order of the columns.
    fn fields(&mut self) -> [Field<'_>; 20] {
        [
            Field::Text(&mut self.row),
            Field::Text(&mut self.digest),
            Field::Text(&mut self.kind),
            Field::Text(&mut self.title),
            Field::Integer(&mut self.taken_ns),
            Field::Number(&mut self.latitude),
            Field::Number(&mut self.longitude),
            Field::Integer(&mut self.place),
            Field::Number(&mut self.low),
            Field::Number(&mut self.high),
            Field::Text(&mut self.text),
            Field::Text(&mut self.modality),
            Field::Vector(&mut self.vector),
            Field::Text(&mut self.path),
            Field::Text(&mut self.path_bytes),
            Field::Integer(&mut self.size),
            Field::Integer(&mut self.mtime_ns),
            Field::Integer(&mut self.seen_ns),
            Field::Text(&mut self.fault_kind),
            Field::Text(&mut self.fault),
        ]
    }

    /// The type of each column.
    fn column(at: usize) -> Column {
        match Self::default().fields()[at] {
            Field::Text(_) => Column::Text,
            Field::Integer(_) => Column::Integer,
            Field::Number(_) => Column::Number,
            Field::Vector(_) => Column::Vector,
        }
    }
}

#[derive(Clone, Copy)]
enum Column {
    Text,
    Integer,
    Number,
    Vector,
}

/// A column of a row group: definition levels, repetition levels where it is a list, and the values that are there.
#[derive(Default)]
struct Values {
    definition: Vec<i16>,
    repetition: Vec<i16>,
    texts: Vec<ByteArray>,
    integers: Vec<i64>,
    numbers: Vec<f64>,
    floats: Vec<f32>,
}

impl Values {
    fn push(&mut self, field: Field<'_>) {
        let there = match field {
            Field::Text(text) => text.take().map(|text| self.texts.push(text.into_bytes().into())),
            Field::Integer(integer) => integer.map(|integer| self.integers.push(integer)),
            Field::Number(number) => number.map(|number| self.numbers.push(number)),
            Field::Vector(vector) => return self.push_vector(vector.take()),
        };
        self.definition.push(there.is_some().into());
    }

    /// 0 where there is no list, 1 for an empty one, 2 for each value of another.
    fn push_vector(&mut self, vector: Option<Vec<f32>>) {
        let Some(vector) = vector.filter(|vector| !vector.is_empty()) else {
            self.definition.push(0);
            self.repetition.push(0);
            return;
        };
        self.definition.extend(vector.iter().map(|_| 2));
        self.repetition.extend((0..vector.len()).map(|at| i16::from(at > 0)));
        self.floats.extend(vector);
    }
}

/// Writes lines as rows.
pub(crate) struct ParquetSink<'a> {
    writer: SerializedFileWriter<&'a mut (dyn Write + Send)>,
    rows: Vec<Row>,
    /// Values of vectors in them.
    values: usize,
}

fn unwritten(error: ParquetError) -> IndexError {
    IndexError::Io { path: "the export".into(), source: io::Error::other(error) }
}

impl<'a> ParquetSink<'a> {
    pub fn of(to: &'a mut (dyn Write + Send)) -> Result<Self, IndexError> {
        let schema = parse_message_type(SCHEMA).map_err(unwritten)?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("omniburn ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_encoding(Encoding::PLAIN)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .build();
        let writer = SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties)).map_err(unwritten)?;
        Ok(Self { writer, rows: Vec::new(), values: 0 })
    }

    fn push(&mut self, row: Row) -> Result<(), IndexError> {
        self.values += row.vector.as_ref().map_or(0, Vec::len);
        self.rows.push(row);
        if self.rows.len() >= GROUP_ROWS || self.values >= GROUP_VALUES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        let mut rows = std::mem::take(&mut self.rows);
        self.values = 0;
        if rows.is_empty() {
            return Ok(());
        }
        self.write(&mut rows).map_err(unwritten)
    }

    fn write(&mut self, rows: &mut [Row]) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        let mut at = 0;
        while let Some(mut column) = group.next_column()? {
            let mut values = Values::default();
            for row in &mut *rows {
                let field = row.fields().into_iter().nth(at).expect("as many fields as columns");
                values.push(field);
            }
            let Values { definition, repetition, texts, integers, numbers, floats } = &values;
            let (definition, repetition) = (Some(definition.as_slice()), Some(repetition.as_slice()));
            match Row::column(at) {
                Column::Text => column.typed::<ByteArrayType>().write_batch(texts, definition, None)?,
                Column::Integer => column.typed::<Int64Type>().write_batch(integers, definition, None)?,
                Column::Number => column.typed::<DoubleType>().write_batch(numbers, definition, None)?,
                Column::Vector => column.typed::<FloatType>().write_batch(floats, definition, repetition)?,
            };
            column.close()?;
            at += 1;
        }
        group.close().map(drop)
    }
}

impl Sink for ParquetSink<'_> {
    fn put(&mut self, line: Line) -> Result<(), IndexError> {
        match line {
            Line::Index(head) => {
                let head = serde_json::to_string(&head).expect("plain data with string keys always serialises");
                self.writer.append_key_value_metadata(KeyValue::new(KEY.into(), head));
            }
            Line::Content(content) => {
                let ContentLine { digest, kind, title, taken_ns, coordinates, chunks } = content;
                let (latitude, longitude) = coordinates.unzip();
                let digest = Some(digest);
                self.push(Row {
                    row: Some("content".into()),
                    digest: digest.clone(),
                    kind: Some(kind),
                    title,
                    taken_ns,
                    latitude,
                    longitude,
                    ..Row::default()
                })?;
                for ChunkLine { place: (place, low, high), text, modality, vector } in chunks {
                    self.push(Row {
                        row: Some("chunk".into()),
                        digest: digest.clone(),
                        place: Some(place),
                        low: Some(low),
                        high: Some(high),
                        text: Some(text),
                        modality,
                        vector,
                        ..Row::default()
                    })?;
                }
            }
            Line::File(FileLine { path, size, mtime_ns, seen_ns, digest, fault }) => {
                let (path, path_bytes) = match path {
                    PathText::Text(path) => (Some(path), None),
                    PathText::Bytes { bytes } => (None, Some(bytes)),
                };
                let (fault_kind, fault) = fault.map(|fault| (fault.kind, fault.message)).unzip();
                self.push(Row {
                    row: Some("file".into()),
                    digest,
                    path,
                    path_bytes,
                    size: Some(size),
                    mtime_ns: Some(mtime_ns),
                    seen_ns: Some(seen_ns),
                    fault_kind,
                    fault,
                    ..Row::default()
                })?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), IndexError> {
        self.flush()?;
        self.writer.finish().map(drop).map_err(unwritten)
    }
}

/// A file of which nothing is read, and no room is made for it, beyond its end.
struct Bounded {
    file: File,
    bytes: u64,
}

impl Bounded {
    fn check(&self, start: u64, length: u64) -> Result<(), ParquetError> {
        match start.checked_add(length) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(ParquetError::EOF(format!("{length} bytes at {start}, and the file has {}", self.bytes))),
        }
    }
}

impl Length for Bounded {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Bounded {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.check(start, 0)?;
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.check(start, length as u64)?;
        self.file.get_bytes(start, length)
    }
}

/// The pages of a column, as this release writes them and no others: a dictionary or a run could stand for more values than memory
/// holds.
struct Pages {
    pages: Box<dyn PageReader>,
    /// Values that may come.
    left: u64,
}

impl Iterator for Pages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let Some(page) = self.pages.get_next_page()? else { return Ok(None) };
        if !page.is_data_page() || page.encoding() != Encoding::PLAIN {
            let what =
                format!("a page of type {} in encoding {}, expected plain data", page.page_type(), page.encoding());
            return Err(ParquetError::General(what));
        }
        let left = self.left.checked_sub(page.num_values().into());
        self.left = left.ok_or_else(|| ParquetError::General("more values than rows".into()))?;
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}

/// Definition levels, repetition levels and values of a column.
type ReadColumn<T> = (Vec<i16>, Vec<i16>, Vec<<T as DataType>::T>);

/// A column of so many rows.
fn read<T: DataType>(column: ColumnReader, rows: usize) -> Result<ReadColumn<T>, ParquetError> {
    let (mut definition, mut repetition, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = get_typed_column_reader::<T>(column);
    let (records, ..) = reader.read_records(rows, Some(&mut definition), Some(&mut repetition), &mut values)?;
    if records != rows {
        return Err(ParquetError::General(format!("{records} values of a column of {rows}")));
    }
    Ok((definition, repetition, values))
}

/// Reads rows as lines.
pub(crate) struct ParquetSource {
    file: SerializedFileReader<Bounded>,
    head: Option<IndexLine>,
    /// The row group that is read next.
    group: usize,
    rows: VecDeque<Row>,
    /// Rows that were taken.
    row: u64,
}

impl ParquetSource {
    /// # Errors
    /// [`IndexError::ImportTable`] for a file that is no export.
    pub fn of(file: File) -> Result<Self, IndexError> {
        let refused = |what: String| IndexError::ImportTable { what };
        let about = file.metadata().map_err(|source| IndexError::Io { path: "the export".into(), source })?;
        let bounded = Bounded { file, bytes: about.len() };
        let file = guarded(|| SerializedFileReader::new(bounded)).map_err(refused)?;
        let head = check(&file).map_err(refused)?;
        Ok(Self { file, head: Some(head), group: 0, rows: VecDeque::new(), row: 0 })
    }

    /// The next row, without taking it.
    fn peek(&mut self) -> Result<Option<&Row>, IndexError> {
        while self.rows.is_empty() && self.group < self.file.num_row_groups() {
            let rows = guarded(|| read_group(&self.file, self.group));
            self.rows = rows.map_err(|what| self.wrong(what))?.into();
            self.group += 1;
        }
        Ok(self.rows.front())
    }

    fn take(&mut self) -> Result<Option<Row>, IndexError> {
        self.peek()?;
        let row = self.rows.pop_front();
        self.row += u64::from(row.is_some());
        Ok(row)
    }

    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, IndexError> {
        value.ok_or_else(|| self.wrong(format!("`{name}` is null")))
    }

    /// A content with the chunks behind its row.
    fn content(&mut self, row: Row) -> Result<Line, IndexError> {
        let digest = self.needed("digest", row.digest)?;
        let kind = self.needed("kind", row.kind)?;
        let (title, taken_ns, mut chunks) = (row.title, row.taken_ns, Vec::new());
        let coordinates = match (row.latitude, row.longitude) {
            (Some(latitude), Some(longitude)) => Some((latitude, longitude)),
            (None, None) => None,
            _ => return Err(self.wrong("one of `latitude` and `longitude` is null".into())),
        };
        while self.peek()?.is_some_and(|next| next.row.as_deref() == Some("chunk")) {
            let Some(row) = self.take()? else { break };
            if row.digest.as_ref() != Some(&digest) {
                return Err(self.wrong("a chunk of another content than the one before it".into()));
            }
            let place = self.needed("place", row.place)?;
            let (low, high) = (self.needed("low", row.low)?, self.needed("high", row.high)?);
            let text = self.needed("text", row.text)?;
            chunks.push(ChunkLine { place: (place, low, high), text, modality: row.modality, vector: row.vector });
        }
        Ok(Line::Content(ContentLine { digest, kind, title, taken_ns, coordinates, chunks }))
    }

    fn file(&self, row: Row) -> Result<Line, IndexError> {
        let path = match (row.path, row.path_bytes) {
            (Some(path), None) => PathText::Text(path),
            (None, Some(bytes)) => PathText::Bytes { bytes },
            _ => return Err(self.wrong("a file with no path, or with two".into())),
        };
        let fault = match (row.fault_kind, row.fault) {
            (Some(kind), message) => Some(FaultLine { kind, message: self.needed("fault", message)? }),
            (None, None) => None,
            (None, Some(_)) => return Err(self.wrong("`fault_kind` is null".into())),
        };
        Ok(Line::File(FileLine {
            path,
            size: self.needed("size", row.size)?,
            mtime_ns: self.needed("mtime_ns", row.mtime_ns)?,
            seen_ns: self.needed("seen_ns", row.seen_ns)?,
            digest: row.digest,
            fault,
        }))
    }
}

impl Source for ParquetSource {
    fn next(&mut self) -> Result<Option<Line>, IndexError> {
        if let Some(head) = self.head.take() {
            return Ok(Some(Line::Index(head)));
        }
        let Some(row) = self.take()? else { return Ok(None) };
        match row.row.as_deref() {
            Some("content") => self.content(row).map(Some),
            Some("file") => self.file(row).map(Some),
            Some("chunk") => Err(self.wrong("a chunk without its content before it".into())),
            other => Err(self.wrong(format!("`row` is {other:?}, expected content, chunk or file"))),
        }
    }

    fn wrong(&self, what: String) -> IndexError {
        IndexError::ImportTable { what: format!("row {}: {what}", self.row) }
    }
}

/// What a file gives, or why it gives nothing: its reader may panic at what is damaged.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("it is damaged".into()),
    }
}

/// What the file's metadata says of the index. Columns and sizes of row groups are those of an export.
fn check(file: &SerializedFileReader<Bounded>) -> Result<IndexLine, String> {
    let about = file.metadata().file_metadata();
    let expected =
        parse_message_type(SCHEMA).map(|schema| parquet::schema::types::SchemaDescriptor::new(Arc::new(schema)));
    let expected = expected.map_err(|error| error.to_string())?;
    let columns = |schema: &parquet::schema::types::SchemaDescriptor| -> Vec<String> {
        let column = |column: &parquet::schema::types::ColumnDescPtr| {
            let (definition, repetition) = (column.max_def_level(), column.max_rep_level());
            format!("{} {} {definition} {repetition}", column.path().string(), column.physical_type())
        };
        schema.columns().iter().map(column).collect()
    };
    let (found, expected) = (columns(about.schema_descr()), columns(&expected));
    if found != expected {
        let odd =
            found.iter().find(|column| !expected.contains(column)).or(expected.iter().find(|c| !found.contains(c)));
        let odd = odd.and_then(|column| column.split(' ').next()).unwrap_or("their order");
        return Err(format!("its columns are not those of an export ({odd})"));
    }
    for (at, group) in file.metadata().row_groups().iter().enumerate() {
        let rows = group.num_rows();
        if !(1..=GROUP_ROWS as i64).contains(&rows) {
            return Err(format!("row group {at} has {rows} rows, expected 1 to {GROUP_ROWS}"));
        }
        if group.columns().iter().any(|column| column.compression() != Compression::UNCOMPRESSED) {
            return Err(format!("row group {at} is compressed, and an export is not"));
        }
    }
    let pairs = about.key_value_metadata().map(Vec::as_slice).unwrap_or_default();
    let head = pairs.iter().find(|pair| pair.key == KEY).and_then(|pair| pair.value.as_deref());
    let head = head.ok_or_else(|| format!("its metadata has no `{KEY}`"))?;
    serde_json::from_str(head).map_err(|error| format!("`{KEY}` of its metadata: {error}"))
}

/// The rows of a row group.
fn read_group(file: &SerializedFileReader<Bounded>, group: usize) -> Result<Vec<Row>, ParquetError> {
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let group = file.get_row_group(group)?;
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
    let mut read_rows: Vec<Row> = (0..rows).map(|_| Row::default()).collect();
    for at in 0..schema.num_columns() {
        let left = match Row::column(at) {
            Column::Vector => GROUP_VALUES + MOST_DIM + GROUP_ROWS,
            _ => rows,
        };
        let pages = Pages { pages: group.get_column_page_reader(at)?, left: left as u64 };
        let column = get_column_reader(schema.column(at), Box::new(pages));
        match Row::column(at) {
            Column::Text => {
                let (definition, _, texts) = read::<ByteArrayType>(column, rows)?;
                let texts = texts.into_iter().map(|text| String::from_utf8(text.data().to_vec()));
                let texts = texts.collect::<Result<Vec<_>, _>>().map_err(|e| ParquetError::General(e.to_string()))?;
                fill(&mut read_rows, at, &definition, texts, |field, text| match field {
                    Field::Text(to) => *to = Some(text),
                    _ => unreachable!("the column is one of texts"),
                });
            }
            Column::Integer => {
                let (definition, _, integers) = read::<Int64Type>(column, rows)?;
                fill(&mut read_rows, at, &definition, integers, |field, integer| match field {
                    Field::Integer(to) => *to = Some(integer),
                    _ => unreachable!("the column is one of integers"),
                });
            }
            Column::Number => {
                let (definition, _, numbers) = read::<DoubleType>(column, rows)?;
                fill(&mut read_rows, at, &definition, numbers, |field, number| match field {
                    Field::Number(to) => *to = Some(number),
                    _ => unreachable!("the column is one of numbers"),
                });
            }
            Column::Vector => {
                let (definition, repetition, floats) = read::<FloatType>(column, rows)?;
                fill_vectors(&mut read_rows, &definition, &repetition, floats)?;
            }
        }
    }
    Ok(read_rows)
}

/// Gives the rows whose definition level says so a value each.
fn fill<T>(rows: &mut [Row], at: usize, definition: &[i16], values: Vec<T>, put: impl Fn(Field<'_>, T)) {
    let there = rows.iter_mut().zip(definition).filter(|(_, level)| **level == 1);
    for ((row, _), value) in there.zip(values) {
        put(row.fields().into_iter().nth(at).expect("as many fields as columns"), value);
    }
}

fn fill_vectors(
    rows: &mut [Row],
    definition: &[i16],
    repetition: &[i16],
    floats: Vec<f32>,
) -> Result<(), ParquetError> {
    let (mut floats, mut rows) = (floats.into_iter(), rows.iter_mut());
    let mut row = None;
    for (definition, repetition) in definition.iter().zip(repetition) {
        if *repetition == 0 {
            row = rows.next();
        }
        if *definition == 2 {
            let (Some(row), Some(value)) = (&mut row, floats.next()) else {
                return Err(ParquetError::General("more values than rows".into()));
            };
            row.vector.get_or_insert_default().push(value);
        }
    }
    Ok(())
}
