//! An index as a Parquet file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use omniburn_index::{Index, IndexError};
use parquet::data_type::ByteArrayType;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::support::{Place, Store, Words};

fn lines(index: &Path) -> Vec<u8> {
    let mut lines = Vec::new();
    Index::open(index).unwrap().export(&mut lines).unwrap();
    lines
}

/// An index of every kind of row and so many long texts, and its Parquet file.
fn exported(texts: usize) -> (Place, PathBuf) {
    let place = Place::new(Store::Sqlite);
    for file in 0..texts {
        let text: String = (0..30_000).map(|word| format!("word{} ", word * (file + 3) % 4001)).collect();
        place.write(&format!("{file}.txt"), text);
    }
    place.write("a.txt", "One content in two places");
    place.write("copy.txt", "One content in two places");
    place.write("ship.wav", "RIFF\0\0\0\0WAVEfmt ");
    place.write("zero.html", "<title>T\u{fc}r</title><p>one \u{1f600} two</p>");
    place.write("broken.pdf", "%PDF-1.7\nthis is no PDF");
    place.write("program.bin", [0u8, 159, 146, 150, 0, 0, 1, 2]);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let odd = place.files.join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt"));
        fs::write(odd, "An odd name of a file").unwrap();
    }
    place.update(&Words::default());
    let path = place.folder.path().join("export.parquet");
    place.open().export_parquet(&mut File::create(&path).unwrap()).unwrap();
    (place, path)
}

#[test]
fn an_index_from_a_parquet_file_is_equal() {
    let (place, path) = exported(6);
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    assert!(reader.num_row_groups() > 1, "{}", reader.num_row_groups());
    let copy = place.folder.path().join("copy");
    let files = Index::import_parquet(&copy, File::open(&path).unwrap()).unwrap();
    assert_eq!(files as usize, fs::read_dir(&place.files).unwrap().count());
    assert!(lines(&copy) == lines(&place.index));
    let mut again = Vec::new();
    Index::open(&copy).unwrap().export_parquet(&mut again).unwrap();
    assert!(again == fs::read(&path).unwrap());
    let there = Index::import_parquet(&copy, File::open(&path).unwrap());
    assert!(matches!(there, Err(IndexError::Exists { .. })), "{there:?}");
}

/// Imports bytes; what is refused is refused by name and leaves nothing.
fn import(place: &Place, bytes: &[u8]) -> Result<u64, String> {
    let (path, index) = (place.folder.path().join("bad.parquet"), place.folder.path().join("bad"));
    fs::write(&path, bytes).unwrap();
    match Index::import_parquet(&index, File::open(&path).unwrap()) {
        Ok(files) => {
            Index::open(&index).unwrap().verify().unwrap();
            fs::remove_dir_all(&index).unwrap();
            Ok(files)
        }
        Err(error @ IndexError::ImportTable { .. }) => {
            assert!(!index.exists(), "{error}");
            Err(error.to_string())
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_damaged_parquet_file_is_refused_by_name_and_leaves_nothing() {
    let (place, path) = exported(0);
    let whole = fs::read(path).unwrap();
    for cut in [0, 3, 4, 8, 100, whole.len() / 3, whole.len() - 9, whole.len() - 1] {
        import(&place, &whole[..cut]).unwrap_err();
    }
    // Any byte, and those of the end, where the metadata is.
    let mut random = fastrand::Rng::with_seed(16);
    let mut refused = 0;
    for round in 0..100 {
        let mut bytes = whole.clone();
        let at = if round % 2 == 0 {
            whole.len() - 1 - random.usize(..whole.len() / 2)
        } else {
            random.usize(..whole.len())
        };
        bytes[at] ^= 1 << random.u32(..8);
        refused += usize::from(import(&place, &bytes).is_err());
    }
    assert!(refused > 25, "{refused}");
}

#[test]
fn a_parquet_file_of_something_else_is_refused_by_what_is_odd() {
    let (place, path) = exported(0);
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let about = reader.metadata().file_metadata();
    let (schema, pairs) = (about.schema_descr().root_schema_ptr(), about.key_value_metadata().cloned());
    // Columns of an export with nothing in them but `row`.
    let made = |dictionary: bool, rows: usize, pairs: bool| {
        let pairs = about.key_value_metadata().cloned().filter(|_| pairs);
        let properties =
            WriterProperties::builder().set_dictionary_enabled(dictionary).set_key_value_metadata(pairs).build();
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema.clone(), Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut first = true;
        while let Some(mut column) = group.next_column().unwrap() {
            let definition = vec![i16::from(first); rows];
            let repetition = vec![0; rows];
            if first {
                let values = vec![b"content".to_vec().into(); rows];
                column.typed::<ByteArrayType>().write_batch(&values, Some(&definition), None).unwrap();
            } else {
                use parquet::column::writer::ColumnWriter;
                let (definition, repetition) = (Some(definition.as_slice()), Some(repetition.as_slice()));
                match column.untyped() {
                    ColumnWriter::Int64ColumnWriter(to) => to.write_batch(&[], definition, None),
                    ColumnWriter::DoubleColumnWriter(to) => to.write_batch(&[], definition, None),
                    ColumnWriter::FloatColumnWriter(to) => to.write_batch(&[], definition, repetition),
                    ColumnWriter::ByteArrayColumnWriter(to) => to.write_batch(&[], definition, None),
                    _ => panic!("no column of an export"),
                }
                .unwrap();
            }
            column.close().unwrap();
            first = false;
        }
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    };
    assert!(pairs.is_some());
    let says = |bytes: &[u8], what: &str| {
        let why = import(&place, bytes).unwrap_err();
        assert!(why.contains(what), "{why}");
    };
    says(&made(false, 3, false), "omniburn.index");
    says(&made(false, 3, true), "`digest` is null");
    says(&made(true, 3, true), "expected plain data");
    says(&made(false, 1_000_000, true), "has 1000000 rows");
    let other = parse_message_type("message other { required int64 answer; }").unwrap();
    let mut bytes = Vec::new();
    SerializedFileWriter::new(&mut bytes, Arc::new(other), Arc::default()).unwrap().close().unwrap();
    says(&bytes, "answer");
    says(b"PAR1 and something else", "the Parquet export");
}
