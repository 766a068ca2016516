//! Which items share a unit. Pure: lengths and a budget in, indices out.

use std::ops::Range;

use crate::options::{Budget, MAX_UNIT_TOKENS};

/// Units of work, and items that no unit within the budget can hold with the bytes they need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Indices of the items of each unit; every item that fits stands in exactly one.
    pub units: Vec<Vec<usize>>,
    /// Index and bytes needed of each item that does not fit.
    pub refused: Vec<(usize, u64)>,
}

/// Packs sequences, longest first, so that neighbours are alike and the largest need is met first.
pub(crate) fn plan_text(lengths: &[usize], budget: &Budget) -> Plan {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    pack(
        &order,
        |i| lengths[i],
        MAX_UNIT_TOKENS,
        |items| budget.text_unit(&items.iter().map(|&i| lengths[i]).collect::<Vec<_>>()),
        budget.bytes(),
    )
}

/// A run of an item's windows: groups of frames of a picture or clip, windows of a sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub item: usize,
    pub windows: Range<usize>,
}

/// Tower units, and items of which one window alone needs more than the budget.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TowerPlan {
    /// Pieces in the order of the items; an item's pieces follow each other.
    pub units: Vec<Vec<Piece>>,
    /// Index and bytes needed of each item that does not fit.
    pub refused: Vec<(usize, u64)>,
}

/// Packs windows for passes of a tower, in the order they came. Windows never see each other, so an item may be cut
/// between two of them: a long clip holds the device for one unit at a time and needs no more memory than a short one.
///
/// `items` gives the rows of each window of each item, `bytes` what windows of given rows need together.
pub(crate) fn plan_tower(
    items: &[Vec<usize>],
    most_rows: usize,
    bytes: impl Fn(&[usize]) -> u64,
    budget: u64,
) -> TowerPlan {
    let mut plan = TowerPlan::default();
    let (mut unit, mut held): (Vec<Piece>, Vec<usize>) = (Vec::new(), Vec::new());
    for (item, windows) in items.iter().enumerate() {
        let needed = windows.iter().map(|&w| bytes(&[w])).max().unwrap_or(0);
        if needed > budget {
            plan.refused.push((item, needed));
            continue;
        }
        for (index, &rows) in windows.iter().enumerate() {
            held.push(rows);
            if held.len() > 1 && (held.iter().sum::<usize>() > most_rows || bytes(&held) > budget) {
                plan.units.push(std::mem::take(&mut unit));
                held = vec![rows];
            }
            match unit.last_mut() {
                Some(piece) if piece.item == item => piece.windows.end = index + 1,
                _ => unit.push(Piece { item, windows: index..index + 1 }),
            }
        }
    }
    if !unit.is_empty() {
        plan.units.push(unit);
    }
    plan
}

fn pack(
    order: &[usize],
    rows: impl Fn(usize) -> usize,
    most_rows: usize,
    bytes: impl Fn(&[usize]) -> u64,
    budget: u64,
) -> Plan {
    let mut plan = Plan::default();
    let mut unit: Vec<usize> = Vec::new();
    let mut unit_rows = 0;
    for &item in order {
        let alone = bytes(&[item]);
        if alone > budget {
            plan.refused.push((item, alone));
            continue;
        }
        unit.push(item);
        unit_rows += rows(item);
        if unit.len() > 1 && (unit_rows > most_rows || bytes(&unit) > budget) {
            unit.pop();
            plan.units.push(std::mem::replace(&mut unit, vec![item]));
            unit_rows = rows(item);
        }
    }
    if !unit.is_empty() {
        plan.units.push(unit);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use omniburn_models::backbone::BackboneConfig;
    use omniburn_models::families::{Family, OmniConfig};
    use proptest::prelude::*;

    fn budget(bytes: u64) -> Budget {
        let text = BackboneConfig {
            hidden: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            inner: 128,
            norm_eps: 1e-6,
            rope_theta: 1e4,
            causal: true,
            qk_norm: true,
            max_tokens: 4096,
            vocab: 100,
        };
        Budget::new(bytes, &Family::Omni(OmniConfig { text, vision: None, audio: None }))
    }

    proptest! {
        #[test]
        fn every_item_stands_in_one_unit_or_is_refused_with_what_it_needs(
            lengths in prop::collection::vec(1usize..700, 0..60),
            bytes in 20_000u64..20_000_000,
        ) {
            let budget = budget(bytes);
            let plan = plan_text(&lengths, &budget);
            let mut seen: Vec<usize> = plan.units.iter().flatten().copied().collect();
            seen.extend(plan.refused.iter().map(|r| r.0));
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for unit in &plan.units {
                let held: Vec<usize> = unit.iter().map(|&i| lengths[i]).collect();
                prop_assert!(budget.text_unit(&held) <= bytes);
                prop_assert!(held.is_sorted_by(|a, b| a >= b));
                prop_assert!(held.iter().sum::<usize>() <= MAX_UNIT_TOKENS || held.len() == 1);
            }
            for &(item, needed) in &plan.refused {
                prop_assert!(needed > bytes);
                let enough = plan_text(&[lengths[item]], &self::budget(needed));
                prop_assert!(enough.refused.is_empty());
            }
        }

        #[test]
        fn every_window_stands_in_one_unit_in_order(
            items in prop::collection::vec(prop::collection::vec(1usize..90, 1..40), 0..12),
            most_rows in 50usize..500,
            bytes in 300u64..6000,
        ) {
            let cost = |windows: &[usize]| windows.iter().map(|&w| 3 * w as u64 + w as u64).sum::<u64>();
            let plan = plan_tower(&items, most_rows, cost, bytes);
            let mut seen = Vec::new();
            for unit in &plan.units {
                prop_assert!(!unit.is_empty());
                let held: Vec<usize> =
                    unit.iter().flat_map(|p| items[p.item][p.windows.clone()].to_vec()).collect();
                prop_assert!(held.len() == 1 || (held.iter().sum::<usize>() <= most_rows && cost(&held) <= bytes));
                seen.extend(unit.iter().flat_map(|p| p.windows.clone().map(|w| (p.item, w)).collect::<Vec<_>>()));
            }
            let refused: Vec<usize> = plan.refused.iter().map(|r| r.0).collect();
            let want: Vec<(usize, usize)> = items
                .iter()
                .enumerate()
                .filter(|(i, _)| !refused.contains(i))
                .flat_map(|(i, windows)| (0..windows.len()).map(move |w| (i, w)))
                .collect();
            prop_assert_eq!(seen, want);
            for &(item, needed) in &plan.refused {
                prop_assert!(needed > bytes);
                prop_assert!(plan_tower(&items[item..item + 1], most_rows, cost, needed).refused.is_empty());
            }
        }
    }
}
