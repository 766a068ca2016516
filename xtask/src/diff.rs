//! `diff`: two files of captured intermediates, compared in forward order, so that the first wrong step is the one to look at.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, tensor::Metadata};

/// What became of one intermediate.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name: a module path.
    pub name: String,
    /// What the comparison found.
    pub finding: Finding,
}

/// The comparison of one intermediate.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// Both files have it with one shape.
    Compared {
        /// The shape in both.
        shape: Vec<usize>,
        /// Largest absolute difference; not a number when a value of either side is not.
        max_abs: f64,
        /// Cosine of the two, seen as flat vectors.
        cosine: f64,
        /// Where the largest difference is, one number an axis.
        at: Vec<usize>,
    },
    /// The shapes differ.
    Shapes(Vec<usize>, Vec<usize>),
    /// Only one file has it, or none although the order names it.
    Missing(&'static str),
}

impl Row {
    /// True when the intermediate is not the same in both files, within `tolerance`.
    pub fn diverges(&self, tolerance: f64) -> bool {
        match &self.finding {
            // Written so that a NaN diverges.
            Finding::Compared { max_abs, .. } => !max_abs.le(&tolerance),
            Finding::Shapes(..) | Finding::Missing(_) => true,
        }
    }
}

/// Compares two files and prints the table; gives the exit code, 0 when every intermediate agrees and 1 otherwise.
///
/// # Errors
/// When a file cannot be read as safetensors, holds a dtype that cannot be compared, or neither holds an intermediate.
pub fn run(a: &Path, b: &Path, tolerance: f64) -> Result<u8> {
    let (bytes_a, bytes_b) = (read(a)?, read(b)?);
    let rows = compare(&Captured::parse(&bytes_a, a)?, &Captured::parse(&bytes_b, b)?)?;
    if rows.is_empty() {
        bail!("neither {} nor {} holds an intermediate", a.display(), b.display());
    }
    print!("{}", table(&rows, tolerance));
    Ok(u8::from(rows.iter().any(|row| row.diverges(tolerance))))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// An opened file of intermediates.
#[derive(Debug)]
struct Captured<'a> {
    tensors: SafeTensors<'a>,
    order: Vec<String>,
}

impl<'a> Captured<'a> {
    fn parse(bytes: &'a [u8], path: &Path) -> Result<Self> {
        let refused = || format!("{} is not a safetensors file", path.display());
        let (_, metadata): (usize, Metadata) = SafeTensors::read_metadata(bytes).with_context(refused)?;
        let order = metadata.metadata().as_ref().and_then(|entries| entries.get("order"));
        let order = order.map(|names| names.split(',').map(str::trim).filter(|n| !n.is_empty()).map(String::from));
        let order = order.map(Iterator::collect).unwrap_or_default();
        Ok(Self { tensors: SafeTensors::deserialize(bytes).with_context(refused)?, order })
    }
}

/// Every intermediate of either file, in forward order.
fn compare(a: &Captured, b: &Captured) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in forward_order(a, b) {
        let finding = match (a.tensors.tensor(&name), b.tensors.tensor(&name)) {
            (Ok(a), Ok(b)) => compare_one(&name, &a, &b)?,
            (Ok(_), Err(_)) => Finding::Missing("only in A"),
            (Err(_), Ok(_)) => Finding::Missing("only in B"),
            (Err(_), Err(_)) => Finding::Missing("named by `order`, in neither"),
        };
        rows.push(Row { name, finding });
    }
    Ok(rows)
}

/// A's `order`, then what B's adds, then every intermediate no order names, by name with numbers read as numbers.
fn forward_order(a: &Captured, b: &Captured) -> Vec<String> {
    let mut unnamed: Vec<&str> = [a, b].into_iter().flat_map(|file| file.tensors.names()).collect();
    unnamed.sort_by(|x, y| natural(x, y));
    let named = a.order.iter().chain(&b.order).map(String::as_str);
    let mut seen = HashSet::new();
    named.chain(unnamed).filter(|name| seen.insert(*name)).map(String::from).collect()
}

/// Compares names piece by piece, runs of digits as numbers: `block.2` before `block.10`.
fn natural(x: &str, y: &str) -> Ordering {
    let (mut x_rest, mut y_rest) = (x, y);
    loop {
        let ((x_head, x_tail), (y_head, y_tail)) = (piece(x_rest), piece(y_rest));
        let both_numbers = x_head.starts_with(digit) && y_head.starts_with(digit);
        let order = if both_numbers {
            let (x_number, y_number) = (x_head.trim_start_matches('0'), y_head.trim_start_matches('0'));
            x_number.len().cmp(&y_number.len()).then(x_number.cmp(y_number))
        } else {
            x_head.cmp(y_head)
        };
        if order.is_ne() {
            return order;
        }
        if x_tail.is_empty() && y_tail.is_empty() {
            // `a.01` and `a.1` are two names.
            return x.cmp(y);
        }
        (x_rest, y_rest) = (x_tail, y_tail);
    }
}

fn digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Splits after the leading run of digits or of anything else.
fn piece(text: &str) -> (&str, &str) {
    let first_is_digit = text.starts_with(digit);
    text.split_at(text.find(|c| digit(c) != first_is_digit).unwrap_or(text.len()))
}

fn compare_one(name: &str, a: &TensorView, b: &TensorView) -> Result<Finding> {
    if a.shape() != b.shape() {
        return Ok(Finding::Shapes(a.shape().to_vec(), b.shape().to_vec()));
    }
    let (a_values, b_values) = (values(name, a)?, values(name, b)?);
    let (mut max_abs, mut worst) = (0.0_f64, 0);
    let (mut dot, mut a_square, mut b_square) = (0.0, 0.0, 0.0);
    for (at, (&x, &y)) in a_values.iter().zip(&b_values).enumerate() {
        // Equal infinities, a mask for one, do not differ; a NaN always does.
        let difference = if x == y { 0.0 } else { (x - y).abs() };
        if !max_abs.is_nan() && (difference.is_nan() || difference > max_abs) {
            (max_abs, worst) = (difference, at);
        }
        dot += x * y;
        a_square += x * x;
        b_square += y * y;
    }
    let cosine = match (a_square == 0.0, b_square == 0.0) {
        (true, true) => 1.0,
        (false, false) => dot / (a_square.sqrt() * b_square.sqrt()),
        _ => 0.0,
    };
    Ok(Finding::Compared { shape: a.shape().to_vec(), max_abs, cosine, at: index(worst, a.shape()) })
}

/// The index along each axis of a flat, row-major position.
fn index(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (axis, &size) in shape.iter().enumerate().rev() {
        index[axis] = flat % size.max(1);
        flat /= size.max(1);
    }
    index
}

/// A tensor's values, each exactly as f64 (64-bit integers to 53 bits).
fn values(name: &str, tensor: &TensorView) -> Result<Vec<f64>> {
    fn each<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
    }
    let data = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::BOOL | Dtype::U8 => each(data, |[byte]| f64::from(byte)),
        Dtype::I8 => each(data, |b| f64::from(i8::from_le_bytes(b))),
        Dtype::I16 => each(data, |b| f64::from(i16::from_le_bytes(b))),
        Dtype::U16 => each(data, |b| f64::from(u16::from_le_bytes(b))),
        Dtype::I32 => each(data, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U32 => each(data, |b| f64::from(u32::from_le_bytes(b))),
        Dtype::I64 => each(data, |b| i64::from_le_bytes(b) as f64),
        Dtype::U64 => each(data, |b| u64::from_le_bytes(b) as f64),
        Dtype::F16 => each(data, |b| from_f16(u16::from_le_bytes(b))),
        Dtype::BF16 => each(data, |b| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))),
        Dtype::F32 => each(data, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => each(data, f64::from_le_bytes),
        other => bail!("{name} is {other:?}, which cannot be compared"),
    })
}

/// An IEEE half: 1 sign bit, 5 of exponent with a bias of 15, 10 of fraction.
fn from_f16(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2.0_f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2.0_f64.powi(exponent - 15),
    }
}

/// The rows as text, the first divergence marked, and a closing line that names it.
fn table(rows: &[Row], tolerance: f64) -> String {
    let first = rows.iter().position(|row| row.diverges(tolerance));
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let mark = match first {
            Some(f) if f == i => "  <== first divergence",
            Some(_) if row.diverges(tolerance) => "  *",
            _ => "",
        };
        let line = match &row.finding {
            Finding::Compared { shape, max_abs, cosine, .. } => {
                format!("{:<20} max abs {max_abs:9.2e}  cosine {cosine:.8}", format!("{shape:?}"))
            }
            Finding::Shapes(a, b) => format!("A is {a:?}, B is {b:?}"),
            Finding::Missing(where_) => (*where_).to_string(),
        };
        let _ = writeln!(text, "{:<width$}  {line}{mark}", row.name);
    }
    let _ = match first.map(|i| &rows[i]) {
        None => writeln!(text, "\nno divergence above {tolerance:e} in {} intermediates", rows.len()),
        Some(Row { name, finding: Finding::Compared { max_abs, at, .. } }) => {
            writeln!(text, "\nfirst divergence above {tolerance:e}: {name}, by {max_abs:e} at {at:?}")
        }
        Some(Row { name, .. }) => writeln!(text, "\nfirst divergence: {name}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::workspace::Scratch;

    /// A file of f32 intermediates, each of one axis, with an `order` when one is given.
    fn file(captured: &[(&str, &[f32])], order: Option<&str>) -> Vec<u8> {
        let bytes: Vec<(&str, Vec<u8>, usize)> = captured
            .iter()
            .map(|(name, values)| (*name, values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.len()))
            .collect();
        let views = bytes.iter().map(|(name, data, n)| (*name, TensorView::new(Dtype::F32, vec![*n], data).unwrap()));
        let metadata = order.map(|order| HashMap::from([("order".to_string(), order.to_string())]));
        safetensors::serialize(views, metadata).unwrap()
    }

    fn rows(a: &[u8], b: &[u8]) -> Vec<Row> {
        let path = Path::new("captured");
        compare(&Captured::parse(a, path).unwrap(), &Captured::parse(b, path).unwrap()).unwrap()
    }

    fn first(a: &[u8], b: &[u8], tolerance: f64) -> Option<String> {
        rows(a, b).into_iter().find(|row| row.diverges(tolerance)).map(|row| row.name)
    }

    #[test]
    fn the_first_divergence_is_found_in_the_order_the_file_states() {
        let order = Some("embed, head.10, head.2");
        let a = file(&[("embed", &[1.0]), ("head.2", &[1.0]), ("head.10", &[1.0])], order);
        let b = file(&[("embed", &[1.0]), ("head.2", &[2.0]), ("head.10", &[3.0])], None);
        assert_eq!(first(&a, &b, 5e-5).as_deref(), Some("head.10"));
        assert_eq!(first(&b, &a, 5e-5).as_deref(), Some("head.10"), "the other file's order serves as well");
    }

    #[test]
    fn without_a_stated_order_numbers_sort_as_numbers() {
        let a = file(&[("block.10.out", &[1.0]), ("block.2.out", &[1.0]), ("block.2.context", &[1.0])], None);
        let names: Vec<String> = rows(&a, &a).into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["block.2.context", "block.2.out", "block.10.out"]);
        assert_eq!(natural("a.01", "a.1"), Ordering::Less, "two names are never equal");
        assert_eq!(natural("a", "a.1"), Ordering::Less);
    }

    #[test]
    fn a_difference_at_the_tolerance_passes_and_one_above_does_not() {
        let (a, b) = (file(&[("x", &[0.0, 1.0])], None), file(&[("x", &[0.0, 1.5])], None));
        assert_eq!(first(&a, &b, 0.5), None);
        assert_eq!(first(&a, &b, 0.49).as_deref(), Some("x"));
        let found = rows(&a, &b).remove(0).finding;
        assert_eq!(found, Finding::Compared { shape: vec![2], max_abs: 0.5, cosine: 1.0, at: vec![1] });
    }

    #[test]
    fn missing_and_misshaped_taps_are_divergences() {
        let a = file(&[("a", &[1.0]), ("b", &[1.0]), ("d", &[1.0])], Some("a,b,c,d"));
        let b = file(&[("a", &[1.0, 1.0]), ("d", &[1.0]), ("e", &[1.0])], None);
        let found: Vec<Finding> = rows(&a, &b).into_iter().map(|row| row.finding).collect();
        assert_eq!(found[0], Finding::Shapes(vec![1], vec![2]));
        assert_eq!(found[1], Finding::Missing("only in A"));
        assert_eq!(found[2], Finding::Missing("named by `order`, in neither"));
        assert!(matches!(found[3], Finding::Compared { .. }));
        assert_eq!(found[4], Finding::Missing("only in B"));
    }

    #[test]
    fn a_value_that_is_not_a_number_diverges_even_from_itself() {
        let a = file(&[("x", &[1.0, f32::NAN, 9.0])], None);
        assert_eq!(first(&a, &a, f64::INFINITY).as_deref(), Some("x"));
        let masked = file(&[("x", &[f32::NEG_INFINITY])], None);
        assert_eq!(first(&masked, &masked, 0.0), None, "equal infinities do not differ");
    }

    #[test]
    fn the_exit_code_is_1_for_a_divergence_and_0_without() {
        let scratch = Scratch::new("diff").unwrap();
        let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
        std::fs::write(&a, file(&[("x", &[1.0])], None)).unwrap();
        std::fs::write(&b, file(&[("x", &[1.1])], None)).unwrap();
        assert_eq!(run(&a, &b, 5e-5).unwrap(), 1);
        assert_eq!(run(&a, &a, 5e-5).unwrap(), 0);
    }

    #[test]
    fn a_file_that_is_not_safetensors_is_named() {
        let scratch = Scratch::new("diff").unwrap();
        let path = scratch.path().join("notes.txt");
        std::fs::write(&path, "no tensors here").unwrap();
        assert!(run(&path, &path, 5e-5).unwrap_err().to_string().contains("notes.txt"));
        assert!(run(&scratch.path().join("absent"), &path, 5e-5).unwrap_err().to_string().contains("absent"));
    }

    #[test]
    fn two_files_without_a_tap_are_refused_because_they_prove_nothing() {
        let scratch = Scratch::new("diff").unwrap();
        let path = scratch.path().join("empty");
        std::fs::write(&path, file(&[], None)).unwrap();
        assert!(run(&path, &path, 5e-5).is_err());
    }

    #[test]
    fn the_table_marks_one_row_as_the_first() {
        let a = file(&[("a", &[1.0]), ("b", &[1.0]), ("c", &[1.0])], None);
        let b = file(&[("a", &[1.0]), ("b", &[1.2]), ("c", &[1.4])], None);
        let text = table(&rows(&a, &b), 5e-5);
        let marked: Vec<&str> = text.lines().filter(|line| line.contains("<==")).collect();
        assert_eq!(marked.len(), 1);
        assert!(marked[0].starts_with("b "), "{text}");
        assert!(text.lines().any(|line| line.starts_with("c ") && line.ends_with('*')), "{text}");
    }

    #[test]
    fn half_floats_are_read_to_the_bit() {
        let cases = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2.0_f64.powi(-24)), (0x7bff, 65504.0), (0x8000, -0.0)];
        for (bits, value) in cases {
            assert_eq!(from_f16(bits).to_bits(), f64::to_bits(value), "{bits:#06x}");
        }
        assert_eq!(from_f16(0xfc00), f64::NEG_INFINITY);
        assert!(from_f16(0x7e00).is_nan());
    }

    #[test]
    fn the_worst_position_has_one_number_an_axis() {
        assert_eq!(index(17, &[2, 3, 4]), [1, 1, 1]);
        assert_eq!(index(0, &[]), Vec::<usize>::new());
    }
}
