//! Attention off flex: packed rows laid into rectangles, because a GPU takes few, large ones best and compiles and tunes by
//! their shape.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::bucket::bucket;
use crate::{Segments, TowerOps};

/// Which rows of its sequence a row sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All of them.
    All,
    /// Itself and those before it.
    Earlier,
    /// Those at most this far away.
    Window(usize),
}

/// Sequences side by side, each brought to one length with rows on its right that no row of it sees.
struct Rectangle {
    /// Sequences.
    count: usize,
    /// Rows of each.
    len: usize,
    /// Packed row of each place, where they do not lie in order from the first.
    rows: Option<Vec<i32>>,
    /// Rows of each sequence that may be seen, where some may not.
    visible: Option<Vec<usize>>,
}

impl Rectangle {
    /// The rectangles of segments, and for each packed row its place in them side by side, where that is not its own.
    fn of(segments: &Segments) -> (Vec<Self>, Option<Vec<i32>>) {
        let (first, rows) = (segments.iter().next().map_or(0, |(_, len)| len), segments.rows());
        if segments.padding() == 0 && segments.iter().all(|(_, len)| len == first) {
            return (vec![Self { count: segments.count(), len: first, rows: None, visible: None }], None);
        }
        if segments.count() == 1 {
            // A single text, by far the most frequent: padding lies where the rectangle wants it.
            return (vec![Self { count: 1, len: rows, rows: None, visible: Some(vec![first]) }], None);
        }
        let mut order: Vec<(usize, usize)> = segments.iter().collect();
        order.sort_by_key(|&(start, len)| (bucket(len), start));
        let (mut rectangles, mut places, mut next) = (Vec::new(), vec![0i32; rows], 0usize);
        for group in order.chunk_by(|a, b| bucket(a.1) == bucket(b.1)) {
            let side = bucket(group[0].1);
            let mut taken = Vec::with_capacity(group.len() * side);
            for &(start, len) in group {
                // Its own last row stands behind it, so that nothing of another sequence comes near.
                taken.extend((0..side).map(|at| (start + at.min(len - 1)) as i32));
                (0..len).for_each(|at| places[start + at] = (next + at) as i32);
                next += side;
            }
            let lengths: Vec<usize> = group.iter().map(|&(_, len)| len).collect();
            let visible = lengths.iter().any(|&len| len < side).then_some(lengths);
            rectangles.push(Self { count: group.len(), len: side, rows: Some(taken), visible });
        }
        (rectangles, Some(places))
    }

    /// `[rows, heads, head_dim]` as `[count, heads, len, head_dim]`.
    fn lay(&self, x: &Tensor<3>) -> Tensor<4> {
        let [_, heads, head_dim] = x.dims();
        let rows = match &self.rows {
            Some(rows) => x.clone().select(0, index(rows, &x.device())),
            None => x.clone(),
        };
        rows.reshape([self.count, self.len, heads, head_dim]).swap_dims(1, 2)
    }

    /// The attention mask of every row, `[count, 1, 1, len]`, or of each, `[count, 1, len, len]`, where rows see a window.
    fn hidden(&self, sight: Sight, device: &Device) -> Option<Tensor<4>> {
        if let Sight::Window(window) = sight {
            let ends = self.visible.clone().unwrap_or_else(|| vec![self.len; self.count]);
            let mask = |shown: bool| if shown { 0.0 } else { f32::NEG_INFINITY };
            let row = |end: usize, row: usize| {
                // A row of padding sees itself, so that no row sees nothing.
                (0..self.len).map(move |at| mask((at < end && at.abs_diff(row) <= window) || at == row))
            };
            let added = ends.iter().flat_map(|&end| (0..self.len).flat_map(move |at| row(end, at)));
            let data = TensorData::new(added.collect::<Vec<f32>>(), [self.count, 1, self.len, self.len]);
            return Some(Tensor::from_data(data, (device, DType::F32)));
        }
        let visible = self.visible.as_ref()?;
        let added = visible
            .iter()
            .flat_map(|&seen| (0..self.len).map(move |at| if at < seen { 0.0 } else { f32::NEG_INFINITY }));
        let data = TensorData::new(added.collect::<Vec<f32>>(), [self.count, 1, 1, self.len]);
        Some(Tensor::from_data(data, (device, DType::F32)))
    }

    /// What is added to the scores by distance, with the attention mask where there is one: `[count, heads, len, len]`.
    fn relative(&self, relative: &Tensor<2>, hidden: Option<Tensor<4>>) -> Tensor<4> {
        let ([heads, columns], len) = (relative.dims(), self.len);
        let reach = columns / 2;
        // Rows of padding may lie further apart than the table reaches; no row of the sequence sees them.
        let column = |row: usize, key: usize| (reach + key).saturating_sub(row).min(columns - 1) as i32;
        let taken: Vec<i32> = (0..len).flat_map(|row| (0..len).map(move |key| column(row, key))).collect();
        let bias = relative.clone().select(1, index(&taken, &relative.device())).reshape([1, heads, len, len]);
        match hidden {
            Some(hidden) => bias + hidden,
            None => bias.repeat_dim(0, self.count),
        }
    }
}

/// See [`crate::attention`]; `relative` as in [`crate::Before`].
pub(crate) fn attention(
    query: &Tensor<3>,
    key: &Tensor<3>,
    value: &Tensor<3>,
    segments: &Segments,
    scale: f64,
    sight: Sight,
    relative: Option<&Tensor<2>>,
) -> Tensor<3> {
    let ([_, heads, head_dim], device) = (query.dims(), query.device());
    let (rectangles, places) = Rectangle::of(segments);
    let contexts = rectangles.iter().map(|rectangle| {
        let [query, key, value] = [query, key, value].map(|x| rectangle.lay(x).into_dispatch());
        // Later rows are hidden from a causal row anyway.
        let causal = sight == Sight::Earlier;
        let hidden = if causal { None } else { rectangle.hidden(sight, &device) };
        let hidden = match relative {
            Some(relative) => Some(rectangle.relative(relative, hidden)),
            None => hidden,
        };
        let context: Tensor<4> = Tensor::from_dispatch(match hidden {
            Some(hidden) => Dispatch::tower_attention_hiding(query, key, value, hidden.into_dispatch(), scale),
            None => Dispatch::tower_attention(query, key, value, scale, causal),
        });
        context.swap_dims(1, 2).reshape([rectangle.count * rectangle.len, heads, head_dim])
    });
    let mut contexts: Vec<Tensor<3>> = contexts.collect();
    let context = if contexts.len() == 1 { contexts.swap_remove(0) } else { Tensor::cat(contexts, 0) };
    match places {
        Some(places) => context.select(0, index(&places, &device)),
        None => context,
    }
}

fn index(rows: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len()]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_of_one_bucket_lie_side_by_side_with_their_own_rows_behind_them() {
        let (rectangles, places) = Rectangle::of(&Segments::from_lengths([3, 20, 2]).with_padding(1));
        let sides: Vec<(usize, usize)> = rectangles.iter().map(|r| (r.count, r.len)).collect();
        assert_eq!(sides, [(2, 16), (1, 24)]);
        assert_eq!(rectangles[0].visible, Some(vec![3, 2]));
        let taken = rectangles[0].rows.as_ref().unwrap();
        assert_eq!((&taken[..5], &taken[16..19]), (&[0, 1, 2, 2, 2][..], &[23, 24, 24][..]));
        let places = places.unwrap();
        assert_eq!((places.len(), places[2], places[3], places[23], places[24]), (26, 2, 32, 16, 17));
    }

    #[cfg(feature = "flex")]
    #[test]
    fn distances_are_counted_in_rectangles_as_in_segments() {
        use crate::{Before, HeadSizes, attend};

        let (device, heads, head_dim) = (Device::flex(), 2, 8);
        for lengths in [&[5, 5][..], &[3, 20, 2], &[13]] {
            let (segments, longest) = (Segments::from_lengths(lengths.iter().copied()), lengths.iter().max().unwrap());
            let rows = segments.rows();
            let values = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
            let tensor = |values, shape| Tensor::<2>::from_data(TensorData::new::<f32, _>(values, shape), &device);
            let qkv = tensor(values(rows * 3 * heads * head_dim, 0.7), [rows, 3 * heads * head_dim]);
            let columns = 2 * longest + 1;
            let relative = tensor(values(heads * columns, 1.3), [heads, columns]);
            let before = Before { relative: Some(relative.clone()), ..Before::default() };
            let want = attend(qkv.clone(), HeadSizes { heads, kv_heads: heads, head_dim }, &segments, before);
            let part = |part: usize| {
                let columns = part * heads * head_dim..(part + 1) * heads * head_dim;
                // Padding, as other devices have it.
                let cut = qkv.clone().slice([0..rows, columns]).reshape([rows, heads, head_dim]);
                Tensor::cat(vec![cut, Tensor::zeros([3, heads, head_dim], &device)], 0)
            };
            let padded = segments.with_padding(3);
            let scale = 1.0 / (head_dim as f64).sqrt();
            let got = attention(&part(0), &part(1), &part(2), &padded, scale, Sight::All, Some(&relative));
            let got = got.slice_dim(0, 0..rows).reshape([rows, heads * head_dim]);
            let far: Vec<f32> = (got - want).abs().max().into_data().try_to_vec().unwrap();
            assert!(far[0] < 2e-6, "{lengths:?}: {far:?}");
        }
    }

    #[test]
    fn equal_sequences_and_a_single_one_are_taken_as_they_lie() {
        let (equal, places) = Rectangle::of(&Segments::from_lengths([5, 5]));
        assert!(equal.len() == 1 && equal[0].rows.is_none() && equal[0].visible.is_none() && places.is_none());
        let (single, places) = Rectangle::of(&Segments::single(13).with_padding(3));
        assert!(single[0].rows.is_none() && places.is_none());
        assert_eq!((single[0].count, single[0].len, single[0].visible.clone()), (1, 16, Some(vec![13])));
    }
}
