//! Which items share a unit. Pure: lengths and a budget in, indices out.

use omniburn_models::batch::Grid;

use crate::options::{Budget, MAX_UNIT_PATCHES, MAX_UNIT_TOKENS};

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

/// Packs pictures and clips for a pass of the tower, in the order they came.
pub(crate) fn plan_patches(grids: &[Grid], budget: &Budget) -> Plan {
    let order: Vec<usize> = (0..grids.len()).collect();
    pack(&order, |i| grids[i].patches(), MAX_UNIT_PATCHES, |items| tower_bytes(items, grids, budget), budget.bytes())
}

/// Bytes a tower unit of these items needs.
pub(crate) fn tower_bytes(items: &[usize], grids: &[Grid], budget: &Budget) -> u64 {
    let windows: Vec<usize> =
        items.iter().flat_map(|&i| std::iter::repeat_n(grids[i].h * grids[i].w, grids[i].t)).collect();
    budget.vision_unit(&windows)
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
    use omniburn_models::families::OmniConfig;
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
        Budget::new(bytes, &OmniConfig { text, vision: None, audio: None })
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
    }
}
