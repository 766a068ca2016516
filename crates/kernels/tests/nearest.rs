//! The exact search: whatever rows lie there, it gives what multiplying every row gives, with every set of instructions.

use omniburn_kernels::Isa;
use omniburn_kernels::cpu::nearest::{
    BLOCK_ROWS, CodedRows, Scored, block_bytes, dot, encode, nearest, products, row_bytes,
};

/// Pseudo-random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// From 0 to 1.
    fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Near a bell with a deviation of 1, in eleven bits.
    fn value(&mut self) -> f32 {
        cut((0..6).map(|_| self.share()).sum::<f32>() * 1.414 - 4.242)
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }
}

/// With the precision of f16.
fn cut(value: f32) -> f32 {
    f32::from_bits(value.to_bits() & !0x1fff)
}

struct Held {
    dim: usize,
    values: Vec<f32>,
    blocks: Vec<Vec<u8>>,
    longest: f32,
    /// A block and a row that cannot be read.
    broken: (Option<usize>, Option<usize>),
}

impl Held {
    fn of(dim: usize, values: Vec<f32>) -> Self {
        let (mut blocks, mut longest) = (Vec::new(), 0f32);
        for rows in values.chunks(BLOCK_ROWS * dim) {
            let mut block = Vec::new();
            longest = longest.max(encode(rows, dim, &mut block));
            assert_eq!(block.len(), block_bytes(rows.len() / dim, dim));
            blocks.push(block);
        }
        Self { dim, values, blocks, longest, broken: (None, None) }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// The best by multiplying every row.
    fn plain(&self, query: &[f32], group: &[u64], k: usize) -> Vec<Scored> {
        let is_there = |row: &usize| group.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1);
        let score = |row: usize| Scored { row, score: dot_by_formula(query, self.row(row)) };
        let mut all: Vec<Scored> = (0..self.rows()).filter(is_there).map(score).collect();
        all.sort();
        all.truncate(k);
        all
    }
}

impl CodedRows for Held {
    type Error = String;
    fn rows(&self) -> usize {
        self.values.len() / self.dim
    }
    fn dim(&self) -> usize {
        self.dim
    }
    fn longest(&self) -> f32 {
        self.longest
    }
    fn block<'a>(&'a self, block: usize, _: &'a mut Vec<u8>) -> Result<&'a [u8], String> {
        if self.broken.0 == Some(block) { Err(format!("block {block}")) } else { Ok(&self.blocks[block]) }
    }
    fn row(&self, row: usize, values: &mut [f32], _: &mut Vec<u8>) -> Result<(), String> {
        if self.broken.1 == Some(row) {
            return Err(format!("row {row}"));
        }
        values.copy_from_slice(self.row(row));
        Ok(())
    }
}

/// What [`dot`] says it computes, a value at a time.
fn dot_by_formula(one: &[f32], other: &[f32]) -> f32 {
    let whole = one.len() / 32 * 32;
    let mut sums = [0f32; 32];
    for at in 0..whole {
        sums[at % 32] += one[at] * other[at];
    }
    for width in [16, 8, 4, 2, 1] {
        for at in 0..width {
            sums[at] += sums[at + width];
        }
    }
    sums[0] + (whole..one.len()).map(|at| one[at] * other[at]).sum::<f32>()
}

fn same(found: &[Scored], plain: &[Scored], what: &str) {
    let bits =
        |list: &[Scored]| -> Vec<(usize, u32)> { list.iter().map(|one| (one.row, one.score.to_bits())).collect() };
    assert_eq!(bits(found), bits(plain), "{what}");
}

const DIMS: [usize; 14] = [1, 2, 15, 16, 17, 31, 32, 33, 63, 65, 100, 384, 768, 1024];

#[test]
fn products_are_the_same_with_every_set_and_only_rows_with_a_bit_are_written() {
    let mut random = Random(1);
    for dim in DIMS.map(row_bytes) {
        let codes: Vec<u8> = (0..64 * dim).map(|_| (random.below(255) as i32 - 127) as i8 as u8).collect();
        let numbers: Vec<i16> = (0..dim).map(|_| (random.below(32_001) as i32 - 16_000) as i16).collect();
        for rows in [u64::MAX, 1, 1 << 63, 0, random.next(), random.next() & random.next() & random.next()] {
            let sum = |row: usize| -> i64 {
                let codes = &codes[row * dim..(row + 1) * dim];
                codes.iter().zip(&numbers).map(|(code, number)| i64::from(*code as i8) * i64::from(*number)).sum()
            };
            let expected: Vec<i64> = (0..64).map(|row| if rows >> row & 1 == 1 { sum(row) } else { 7 }).collect();
            for isa in Isa::available() {
                let mut sums = [7; 64];
                products(isa, &codes, &numbers, rows, &mut sums);
                assert_eq!(sums.map(i64::from).to_vec(), expected, "{isa}, {dim}, {rows:x}");
            }
        }
    }
}

#[test]
fn the_largest_sum_of_a_row_has_room_in_32_bits() {
    for dim in [64, 4096, 65_536] {
        let held = Held::of(dim, [vec![1.0; dim], vec![-1.0; dim], vec![0.5; dim]].concat());
        let groups: [&[u64]; 1] = [&[7]];
        let found = nearest(&held, &vec![1.0; dim], &groups, 1).unwrap();
        assert_eq!((found[0][0].row, found[0][0].score), (0, dim as f32), "{dim}");
    }
}

#[test]
fn a_dot_has_the_bits_of_its_formula_with_every_set() {
    let mut random = Random(2);
    for dim in DIMS.into_iter().chain([0]) {
        let (one, other) = (random.values(dim), random.values(dim));
        let exact: f64 = one.iter().zip(&other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let formula = dot_by_formula(&one, &other);
        assert!((f64::from(formula) - exact).abs() < 1e-3, "{dim}");
        for isa in Isa::available() {
            let found = std::thread::scope(|scope| {
                let compute = || {
                    Isa::choose_for_thread(Some(isa)).unwrap();
                    dot(&one, &other)
                };
                scope.spawn(compute).join().unwrap()
            });
            assert_eq!(found.to_bits(), formula.to_bits(), "{isa}, {dim}");
        }
    }
}

/// Rows of many kinds, a thousand of each.
fn libraries(dim: usize, random: &mut Random) -> Vec<(&'static str, Vec<f32>)> {
    let rows = 700 + random.below(700);
    let mut all = vec![("random", random.values(rows * dim))];
    let centre = random.values(dim);
    let near = |random: &mut Random, size: f32| -> Vec<f32> {
        (0..rows)
            .flat_map(|_| centre.iter().map(|value| cut(value + size * random.value())).collect::<Vec<_>>())
            .collect()
    };
    all.push(("one cluster", near(random, 0.05)));
    all.push(("nearly equal", near(random, 0.001)));
    let few: Vec<Vec<f32>> = (0..5).map(|_| random.values(dim)).collect();
    all.push(("duplicates", (0..rows).flat_map(|_| few[random.below(5)].clone()).collect()));
    all.push(("zeros", vec![0.0; rows * dim]));
    let mut outliers = random.values(rows * dim);
    outliers.chunks_mut(dim).for_each(|row| row[random.below(dim)] *= 1000.0);
    all.push(("outliers", outliers));
    let mut lengths = random.values(rows * dim);
    for row in lengths.chunks_mut(dim) {
        let length = cut(10f32.powf(8.0 * random.share() - 4.0));
        row.iter_mut().for_each(|value| *value = cut(*value * length));
    }
    all.push(("lengths from 1e-4 to 1e4", lengths));
    let mut odd = random.values(rows * dim);
    for row in odd.chunks_mut(dim) {
        match random.below(40) {
            0 => row[random.below(dim)] = f32::NAN,
            1 => row[random.below(dim)] = f32::INFINITY,
            2 => row[random.below(dim)] = f32::NEG_INFINITY,
            3 => row.fill(0.0),
            4 => row.fill(-0.0),
            _ => {}
        }
    }
    all.push(("not finite", odd));
    all
}

#[test]
fn what_is_found_is_what_every_product_says() {
    let mut random = Random(3);
    for dim in DIMS {
        for (name, values) in libraries(dim, &mut random) {
            let held = Held::of(dim, values);
            let rows = held.rows();
            for round in 0..6 {
                let query = match round {
                    // One of the rows, so that something is very near.
                    0 => held.row(random.below(rows)).iter().map(|v| if v.is_finite() { *v } else { 1.0 }).collect(),
                    1 => vec![0.0; dim],
                    _ => random.values(dim),
                };
                let share = [1.0, 0.3, 0.01][round % 3];
                let mut groups = vec![vec![0u64; rows.div_ceil(64)]; 2];
                for row in 0..rows {
                    if random.share() < share {
                        groups[usize::from(random.share() < 0.2)][row / 64] |= 1 << (row % 64);
                    }
                }
                let k = [1, 10, 200, 5000][random.below(4)];
                let words: Vec<&[u64]> = groups.iter().map(Vec::as_slice).collect();
                let found = nearest(&held, &query, &words, k).unwrap();
                for (group, found) in groups.iter().zip(found) {
                    same(&found, &held.plain(&query, group, k), &format!("{name}, {rows} x {dim}, {k} best"));
                }
            }
        }
    }
}

#[test]
fn queries_of_every_size_are_answered() {
    let mut random = Random(4);
    let held = Held::of(48, random.values(900 * 48));
    let group = vec![u64::MAX; 15];
    for size in [1e-44, 1e-30, 1e-19, 1e-3, 1e3, 1e19, 1e30, f32::INFINITY, f32::NAN] {
        let query: Vec<f32> = random.values(48).into_iter().map(|value| value * size).collect();
        for k in [3, 0] {
            let found = nearest(&held, &query, &[&group, &[]], k).unwrap();
            same(&found[0], &held.plain(&query, &group, k), &format!("{size}"));
            assert_eq!(found[1], []);
        }
    }
}

#[test]
fn bits_beyond_the_rows_and_groups_that_are_too_short_find_what_is_there() {
    let mut random = Random(5);
    for rows in [1, 63, 64, 65, 511, 512, 513, 1025] {
        let held = Held::of(32, random.values(rows * 32));
        let query = random.values(32);
        for words in [0, 1, 7, 8, 9, 40] {
            let group = vec![u64::MAX; words];
            for k in [1, 30] {
                let found = nearest(&held, &query, &[&group], k).unwrap();
                same(&found[0], &held.plain(&query, &group, k), &format!("{rows} rows, {words} words"));
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_said_where_it_is_needed_and_not_elsewhere() {
    let mut random = Random(6);
    let mut held = Held::of(32, random.values(2000 * 32));
    let query = random.values(32);
    let all = vec![u64::MAX; 32];
    let best = nearest(&held, &query, &[&all], 5).unwrap().remove(0);
    held.broken = (Some(2), None);
    assert_eq!(nearest(&held, &query, &[&all], 5).unwrap_err(), "block 2");
    let mut without = all.clone();
    without[16..24].fill(0);
    assert_eq!(nearest(&held, &query, &[&without], 5).unwrap()[0].len(), 5);
    held.broken = (None, Some(best[4].row));
    assert_eq!(nearest(&held, &query, &[&all], 5).unwrap_err(), format!("row {}", best[4].row));
    let worst = (0..2000).min_by(|a, b| dot(&query, held.row(*a)).total_cmp(&dot(&query, held.row(*b)))).unwrap();
    held.broken = (None, Some(worst));
    assert_eq!(nearest(&held, &query, &[&all], 5).unwrap()[0], best);
}

#[test]
fn lengths_that_codes_leave_out_are_no_less_than_they_are() {
    let mut random = Random(7);
    for dim in DIMS {
        let values = random.values(50 * dim);
        let mut block = Vec::new();
        let longest = encode(&values, dim, &mut block);
        let number = |at: usize| f32::from_le_bytes(block[4 * at..4 * at + 4].try_into().unwrap());
        for row in 0..50 {
            let (scale, length) = (f64::from(number(row)), f64::from(number(50 + row)));
            let codes = &block[400 + row * row_bytes(dim)..400 + (row + 1) * row_bytes(dim)];
            let values = &values[row * dim..(row + 1) * dim];
            assert!(codes[dim..].iter().all(|code| *code == 0));
            let off = |(value, code): (&f32, &u8)| (f64::from(*value) - scale * f64::from(*code as i8)).powi(2);
            let left_out = values.iter().zip(codes).map(off).sum::<f64>().sqrt();
            assert!(left_out <= length && length <= left_out * 1.000_001 + 1e-30, "{dim}: {left_out} {length}");
            let own = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            assert!(own <= f64::from(longest));
        }
    }
}
