//! The files of an index on a plane: the two principal components of their vectors.
//!
//! The components come from power iteration on both at once, over the rows themselves and not over their covariance, so that
//! time and memory grow with the values of the rows alone. Nothing is random: the same index gives the same map.

use std::path::PathBuf;

use crate::error::IndexError;
use crate::kind::{Kind, Modality};
use crate::store::{FileRow, Store, VectorRows, Which};

/// Steps of the power iteration at most.
const STEPS: usize = 300;
/// A step that turns both components by less than this, as one minus a cosine, is the last.
const TURN: f64 = 1e-10;

/// A file on the map.
#[derive(Debug, Clone, PartialEq)]
pub struct MapPoint {
    /// What [`crate::Index::get`] knows the file by.
    pub id: String,
    /// The file.
    pub path: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// Its own title, where it has one.
    pub title: Option<String>,
    /// When it was changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its places along the first and the second component, from the mean of all points.
    pub place: [f32; 2],
}

/// Files on a plane.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionMap {
    /// In the order in which the index came to know them.
    pub points: Vec<MapPoint>,
    /// Files with a content that the index has in all; more than points where only some are drawn or have vectors.
    pub files: usize,
    /// Share of the points' variance that lies along each component, 0 to 1.
    pub explained: [f32; 2],
}

/// The map of at most `most` files, evenly taken from all.
pub(crate) fn map(db: &dyn Store, most: usize) -> Result<CollectionMap, IndexError> {
    let ids = db.file_ids()?;
    let dim = db.meta()?.dim;
    let (mut rows, mut files, mut values) = (db.vector_rows()?, Vec::new(), Vec::new());
    let drawn = ids.len().min(most);
    for index in 0..drawn {
        let id = ids[index * ids.len() / drawn];
        let Some(file) = db.files(Which::Id(id))?.into_iter().next() else { continue };
        if let Some((vector, _)) = unit_mean(rows.as_mut(), file.content, dim)? {
            files.push(file);
            values.extend(vector);
        }
    }
    let (places, explained) = principal(&mut values, dim);
    let point = |(file, place): (FileRow, [f32; 2])| MapPoint {
        id: file.short.iter().map(|byte| format!("{byte:02x}")).collect(),
        path: file.path,
        kind: file.kind,
        title: file.title,
        mtime_ns: file.mtime_ns,
        place,
    };
    Ok(CollectionMap { points: files.into_iter().zip(places).map(point).collect(), files: ids.len(), explained })
}

/// The unit mean of the vectors of a content's chunks, `[dim]`, and what they are made from; `None` where it has none, or they
/// cancel each other out. Only those count that are made from the same as the first: images of pages stand beside their texts.
pub(crate) fn unit_mean(
    rows: &mut dyn VectorRows,
    content: i64,
    dim: usize,
) -> Result<Option<(Vec<f32>, Modality)>, IndexError> {
    let (mut sum, mut of) = (vec![0f64; dim], None);
    for (values, modality) in rows.of_content(content)? {
        if *of.get_or_insert(modality) == modality {
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    let of = of.filter(|_| length > 0.0);
    Ok(of.map(|of| (sum.into_iter().map(|value| (value / length) as f32).collect(), of)))
}

/// The places of rows along their two principal components, `[rows][2]`, and the share of the variance along each. The rows
/// `[rows, dim]` are centred in place.
fn principal(values: &mut [f32], dim: usize) -> (Vec<[f32; 2]>, [f32; 2]) {
    let count = values.len().checked_div(dim).unwrap_or(0);
    if count == 0 {
        return (Vec::new(), [0.0; 2]);
    }
    let mut mean = vec![0f64; dim];
    for row in values.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value));
    }
    mean.iter_mut().for_each(|mean| *mean /= count as f64);
    for row in values.chunks_exact_mut(dim) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value = (f64::from(*value) - mean) as f32);
    }
    let total: f64 = values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    if total <= f64::EPSILON * count as f64 {
        return (vec![[0.0; 2]; count], [0.0; 2]);
    }
    // Two directions that no data is likely to be at a right angle to, and that differ.
    let begin = |step: f64| -> Vec<f64> { (0..dim).map(|at| (at as f64 * step + step).sin()).collect() };
    let mut axes = [begin(0.7), begin(1.9)];
    orthonormal(&mut axes);
    let mut along = [0.0; 2];
    for _ in 0..STEPS {
        let mut next = [vec![0f64; dim], vec![0f64; dim]];
        for row in values.chunks_exact(dim) {
            for (axis, next) in axes.iter().zip(&mut next) {
                let place = dot(row, axis);
                next.iter_mut().zip(row).for_each(|(next, value)| *next += place * f64::from(*value));
            }
        }
        along = [0, 1].map(|at| next[at].iter().zip(&axes[at]).map(|(next, axis)| next * axis).sum::<f64>());
        orthonormal(&mut next);
        let cosine = |at: usize| next[at].iter().zip(&axes[at]).map(|(next, axis)| next * axis).sum::<f64>().abs();
        let turn = (1.0 - cosine(0)).max(if along[1] > 1e-12 * total { 1.0 - cosine(1) } else { 0.0 });
        axes = next;
        if turn < TURN {
            break;
        }
    }
    // Either sign is a component: its greatest value is a positive one.
    for axis in &mut axes {
        let greatest = axis.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        if greatest < 0.0 {
            axis.iter_mut().for_each(|value| *value = -*value);
        }
    }
    let places = values.chunks_exact(dim).map(|row| [0, 1].map(|at| dot(row, &axes[at]) as f32)).collect();
    (places, along.map(|along| (along / total).clamp(0.0, 1.0) as f32))
}

fn dot(row: &[f32], axis: &[f64]) -> f64 {
    row.iter().zip(axis).map(|(value, axis)| f64::from(*value) * axis).sum()
}

/// Makes the first of unit length, and the second too and at a right angle to it. One without a length, and a second that is
/// the first but for rounding, becomes zero.
fn orthonormal([first, second]: &mut [Vec<f64>; 2]) {
    let unit = |axis: &mut Vec<f64>| {
        let length = axis.iter().map(|value| value * value).sum::<f64>().sqrt();
        axis.iter_mut().for_each(|value| *value = if length > 1e-150 { *value / length } else { 0.0 });
    };
    unit(first);
    unit(second);
    // Twice: what rounding leaves after once is taken out as well.
    for _ in 0..2 {
        let shared: f64 = first.iter().zip(second.iter()).map(|(a, b)| a * b).sum();
        second.iter_mut().zip(first.iter()).for_each(|(b, a)| *b -= shared * a);
    }
    match second.iter().map(|value| value * value).sum::<f64>().sqrt() > 1e-9 {
        true => unit(second),
        false => second.fill(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows with a spread along two known directions, and a little along all.
    fn rows(count: usize, dim: usize) -> (Vec<f32>, [Vec<f32>; 2]) {
        let mut random = fastrand::Rng::with_seed(3);
        let mut axes = [0, 1].map(|_| (0..dim).map(|_| random.f64() - 0.5).collect::<Vec<f64>>());
        orthonormal(&mut axes);
        let mut values = Vec::new();
        for _ in 0..count {
            let (a, b) = (3.0 * (random.f64() - 0.5), random.f64() - 0.5);
            values.extend((0..dim).map(|at| {
                let noise = 0.01 * (random.f64() - 0.5);
                (0.3 + a * axes[0][at] + b * axes[1][at] + noise) as f32
            }));
        }
        (values, axes.map(|axis| axis.into_iter().map(|value| value as f32).collect()))
    }

    #[test]
    fn components_are_those_of_the_spread() {
        let (dim, count) = (40, 300);
        let (values, axes) = rows(count, dim);
        let mut centred = values.clone();
        let (places, explained) = principal(&mut centred, dim);
        assert!(explained[0] > 0.85 && explained[1] > 0.05 && explained[0] + explained[1] > 0.99, "{explained:?}");
        // Places along the known directions, up to their sign.
        for (at, axis) in axes.iter().enumerate() {
            let known: Vec<f32> =
                centred.chunks_exact(dim).map(|row| row.iter().zip(axis).map(|(a, b)| a * b).sum()).collect();
            let product: f32 = known.iter().zip(&places).map(|(known, place)| known * place[at]).sum();
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
            let lengths = square(&mut known.iter().copied()) * square(&mut places.iter().map(|place| place[at]));
            assert!(product.abs() / lengths.sqrt() > 0.995, "component {at}");
        }
        // Centred, uncorrelated, and the same each time.
        let mean = |at: usize| places.iter().map(|place| f64::from(place[at])).sum::<f64>() / count as f64;
        assert!(mean(0).abs() < 1e-5 && mean(1).abs() < 1e-5);
        let shared: f64 = places.iter().map(|[x, y]| f64::from(*x) * f64::from(*y)).sum();
        assert!(shared.abs() < 1e-2, "{shared}");
        assert_eq!(principal(&mut values.clone(), dim), (places, explained));
    }

    #[test]
    fn few_or_equal_points_have_a_place_too() {
        assert_eq!(principal(&mut [], 4), (Vec::new(), [0.0; 2]));
        assert_eq!(principal(&mut [1.0, 2.0], 2), (vec![[0.0; 2]], [0.0; 2]));
        let (places, explained) = principal(&mut [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 2);
        assert_eq!((places, explained), (vec![[0.0; 2]; 3], [0.0; 2]));
        let (places, explained) = principal(&mut [1.0, 0.0, 0.0, 1.0], 2);
        assert!((places[0][0] + places[1][0]).abs() < 1e-6 && places[0][0].abs() > 0.7, "{places:?}");
        assert!(explained[0] > 0.999 && places.iter().all(|[_, y]| y.abs() < 1e-6), "{places:?} {explained:?}");
        // One value a row has one component.
        let (places, _) = principal(&mut [1.0, 2.0, 4.0], 1);
        assert!(places.iter().all(|[x, y]| x.is_finite() && *y == 0.0), "{places:?}");
    }
}
