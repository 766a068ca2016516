//! A table of token rows that a checkpoint keeps in several tensors: rows that ids share, and a factor for each id.

use std::path::Path;

use omniburn_models::checkpoint::StaticTable;

use crate::error::ConvertError;
use crate::safefile::{Element, SafeFile, StoredTensor};
use crate::weights::WeightFile;

/// Where the tensors of such a table lie.
#[derive(Debug)]
pub(crate) struct Folded {
    /// The table's canonical name.
    pub name: &'static str,
    /// The table as it is made, `[ids, width]` in f32.
    pub tensor: StoredTensor,
    /// The file, by number.
    pub file: usize,
    /// Names in the file.
    rows: String,
    mapping: Option<String>,
    weights: Option<String>,
}

/// A tensor of such a table by its place: number and name.
pub(crate) type Place<'a> = Option<(usize, &'a str)>;

impl Folded {
    /// The table of tensors that lie in `files`, where it is not one tensor of floats; a tensor that is there has to have a
    /// shape that goes with the others, or the table is left for what it is, and nothing takes the others.
    pub fn of(names: StaticTable, files: &[WeightFile], [rows, mapping, weights]: [Place<'_>; 3]) -> Option<Self> {
        let (file, rows) = rows?;
        let tensor = &files[file].tensors()[rows];
        let &[count, width] = tensor.shape.as_slice() else { return None };
        if [mapping, weights].into_iter().flatten().any(|(at, _)| at != file) {
            return None;
        }
        let bytes = tensor.element == Element::Other("I8");
        let [mapping, weights] = [mapping, weights].map(|place| place.map(|(_, name)| name.to_string()));
        let length = |name: &String| match files[file].tensors()[name].shape.as_slice() {
            &[length] => Some(length),
            _ => None,
        };
        let ids = match &mapping {
            Some(name) => length(name)?,
            None => count,
        };
        if let Some(name) = &weights
            && length(name)? != ids
        {
            return None;
        }
        (bytes || mapping.is_some() || weights.is_some()).then(|| Self {
            name: names.rows,
            tensor: StoredTensor::made(vec![ids, width]),
            file,
            rows: rows.into(),
            mapping,
            weights,
        })
    }

    /// Values of the table.
    ///
    /// # Numerics
    /// A row times its factor, rounded to f32 once.
    /// # Source
    /// model2vec 0.10.0, `StaticModel._encode_helper`.
    /// # Errors
    /// [`ConvertError::Corrupt`] for a row that is not there and for a type that a tensor cannot have.
    pub fn values(&self, file: &SafeFile) -> Result<Vec<f32>, ConvertError> {
        let width = self.tensor.shape[1];
        let rows = floats(file, &self.rows)?;
        let count = rows.len() / width;
        let mapping = match &self.mapping {
            Some(name) => whole_numbers(file, name)?,
            None => (0..count as i64).collect(),
        };
        let weights = match &self.weights {
            Some(name) => floats(file, name)?,
            None => vec![1.0; mapping.len()],
        };
        let mut values = Vec::with_capacity(mapping.len() * width);
        for (id, (&row, &weight)) in mapping.iter().zip(&weights).enumerate() {
            let Some(row) = usize::try_from(row).ok().filter(|&row| row < count) else {
                let name = self.mapping.as_deref().unwrap_or(&self.rows);
                return Err(corrupt(file.path(), name, format!("id {id} takes row {row} of {count}")));
            };
            values.extend(rows[row * width..(row + 1) * width].iter().map(|value| value * weight));
        }
        finite(file.path(), &self.rows, &values)?;
        Ok(values)
    }
}

fn finite(path: &Path, tensor: &str, values: &[f32]) -> Result<(), ConvertError> {
    match values.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(()),
        count => Err(corrupt(path, tensor, format!("{count} values of the table are no numbers in f32"))),
    }
}

fn corrupt(path: &Path, tensor: &str, reason: String) -> ConvertError {
    ConvertError::Corrupt { path: path.to_path_buf(), tensor: Some(tensor.into()), reason }
}

/// Values of a tensor of floats, or of whole numbers of eight bits.
fn floats(file: &SafeFile, name: &str) -> Result<Vec<f32>, ConvertError> {
    match file.read_any(name)? {
        (Element::Float(_), _) => file.read_f32(name),
        (Element::Other("F64"), bytes) => {
            let values = bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")) as f32);
            Ok(values.collect())
        }
        (Element::Other("I8"), bytes) => Ok(bytes.iter().map(|&byte| f32::from(byte as i8)).collect()),
        (Element::Other(kind) | Element::Packed(kind), _) => {
            Err(corrupt(file.path(), name, format!("{kind}, where numbers are expected")))
        }
    }
}

/// Values of a tensor of whole numbers.
fn whole_numbers(file: &SafeFile, name: &str) -> Result<Vec<i64>, ConvertError> {
    let (element, bytes) = file.read_any(name)?;
    let four = |b: &[u8]| -> [u8; 4] { b.try_into().expect("four bytes") };
    let eight = |b: &[u8]| -> [u8; 8] { b.try_into().expect("eight bytes") };
    Ok(match element {
        Element::Other("I32") => bytes.chunks_exact(4).map(|b| i32::from_le_bytes(four(b)).into()).collect(),
        Element::Other("U32") => bytes.chunks_exact(4).map(|b| u32::from_le_bytes(four(b)).into()).collect(),
        Element::Other("I64" | "U64") => bytes.chunks_exact(8).map(|b| i64::from_le_bytes(eight(b))).collect(),
        other => {
            return Err(corrupt(
                file.path(),
                name,
                format!("{other:?}, where whole numbers of 32 or 64 bits are expected"),
            ));
        }
    })
}
