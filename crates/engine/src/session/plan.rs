//! Which items share a unit. Pure: lengths in, indices out; what a unit may hold is asked of the caller.

use std::ops::Range;

/// Units of texts: packed longest first, so that neighbours are alike; every text stands in exactly one. `fits` says
/// whether texts of these lengths may share a unit; one alone always has its own.
pub(crate) fn plan_text(lengths: &[usize], fits: impl Fn(&[usize]) -> bool) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut held: Vec<usize> = Vec::new();
    for item in order {
        held.push(lengths[item]);
        match units.last_mut() {
            Some(unit) if fits(&held) => unit.push(item),
            _ => {
                held = vec![lengths[item]];
                units.push(vec![item]);
            }
        }
    }
    units
}

/// A run of an item's windows: groups of frames of an image or clip, windows of an audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub item: usize,
    pub windows: Range<usize>,
}

/// Units of windows for a tower, in the order they came. Windows never see each other, so an item may be cut between two
/// of them: a long clip holds the device for one unit at a time and needs no more memory than a short one.
///
/// `items` gives the rows of each window of each item, `fits` says whether windows of given rows may share a unit; one
/// alone always has its own. An item's pieces follow each other.
pub(crate) fn plan_tower(items: &[Vec<usize>], fits: impl Fn(&[usize]) -> bool) -> Vec<Vec<Piece>> {
    let mut units: Vec<Vec<Piece>> = Vec::new();
    let mut held: Vec<usize> = Vec::new();
    for (item, windows) in items.iter().enumerate() {
        for (index, &rows) in windows.iter().enumerate() {
            held.push(rows);
            match units.last_mut() {
                Some(unit) if fits(&held) => match unit.last_mut() {
                    Some(piece) if piece.item == item => piece.windows.end = index + 1,
                    _ => unit.push(Piece { item, windows: index..index + 1 }),
                },
                _ => {
                    held = vec![rows];
                    units.push(vec![Piece { item, windows: index..index + 1 }]);
                }
            }
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_stands_in_one_unit_and_a_unit_is_what_fits(
            lengths in prop::collection::vec(1usize..700, 0..60),
            most in 20usize..2000,
        ) {
            let fits = |lengths: &[usize]| lengths.iter().sum::<usize>() <= most;
            let units = plan_text(&lengths, fits);
            let mut seen: Vec<usize> = units.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for unit in &units {
                let held: Vec<usize> = unit.iter().map(|&i| lengths[i]).collect();
                prop_assert!(held.is_sorted_by(|a, b| a >= b));
                prop_assert!(fits(&held) || held.len() == 1);
            }
            // No two neighbours would have fitted into one.
            for two in units.windows(2) {
                let first: usize = two[0].iter().map(|&i| lengths[i]).sum();
                prop_assert!(first + lengths[two[1][0]] > most);
            }
        }

        #[test]
        fn every_window_stands_in_one_unit_in_order(
            items in prop::collection::vec(prop::collection::vec(1usize..90, 1..40), 0..12),
            most in 50usize..500,
        ) {
            let fits = |windows: &[usize]| windows.iter().sum::<usize>() <= most;
            let units = plan_tower(&items, fits);
            let mut seen = Vec::new();
            for unit in &units {
                prop_assert!(!unit.is_empty());
                let held: Vec<usize> =
                    unit.iter().flat_map(|p| items[p.item][p.windows.clone()].to_vec()).collect();
                prop_assert!(held.len() == 1 || fits(&held));
                seen.extend(unit.iter().flat_map(|p| p.windows.clone().map(|w| (p.item, w)).collect::<Vec<_>>()));
            }
            let want: Vec<(usize, usize)> =
                items.iter().enumerate().flat_map(|(i, windows)| (0..windows.len()).map(move |w| (i, w))).collect();
            prop_assert_eq!(seen, want);
        }
    }
}
