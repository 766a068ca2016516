//! A valid file into a damaged one: bits, numbers, lengths, pieces, chunks and values of JSON. The same generator state
//! gives the same bytes.

use fastrand::Rng;

/// Longest input that is made, in bytes.
pub const MOST_BYTES: usize = 64 << 10;

/// Numbers at which arithmetic goes wrong, cut to the width they are written in.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    16,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x00ff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Values in place of a value of JSON.
const VALUES: [&str; 22] = [
    "0",
    "-1",
    "1",
    "0.5",
    "1e308",
    "1e999",
    "-0.0",
    "1048576",
    "1048577",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "null",
    "true",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[]",
    "{}",
    "[[]]",
    "\"../../x\"",
    "[0,-1,18446744073709551615]",
];

/// One to six changes of a seed, rarely more, perhaps with pieces of another seed.
#[must_use]
pub fn mutated(seed: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = seed.to_vec();
    let changes = if rng.u8(..16) == 0 { rng.usize(8..40) } else { rng.usize(1..=6) };
    // The first byte may choose a folder, and JSON then begins behind it.
    let json = seed.iter().take(2).any(|byte| matches!(byte, b'{' | b'['));
    for _ in 0..changes {
        if out.is_empty() {
            out.push(rng.u8(..));
        }
        match rng.u8(..if json { 20 } else { 14 }) {
            0 | 1 => {
                let at = rng.usize(..out.len());
                out[at] ^= 1 << rng.u8(..8);
            }
            2 | 3 => {
                let at = rng.usize(..out.len());
                out[at] = rng.u8(..);
            }
            4..=6 => number(&mut out, rng),
            7 => out.truncate(rng.usize(..=out.len())),
            8 => {
                let piece = piece(out.len(), rng);
                out.drain(piece);
            }
            9 => {
                let piece = piece(out.len(), rng);
                let (copy, at) = (out[piece].to_vec(), rng.usize(..=out.len()));
                out.splice(at..at, copy);
            }
            10 => splice(&mut out, other, rng),
            11 => length(&mut out, rng),
            12 | 13 => chunk(&mut out, rng),
            14..=17 => value(&mut out, rng),
            18 => deepen(&mut out, rng),
            _ => {
                let piece = piece(out.len(), rng);
                let fill = [b' ', b'0', b'9', b'"', b'\\', b',', 0, 0xff][rng.usize(..8)];
                out[piece].fill(fill);
            }
        }
        out.truncate(MOST_BYTES);
    }
    out
}

/// A range inside, short more often than long.
fn piece(length: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let start = rng.usize(..length);
    let most = if rng.bool() { 16 } else { length };
    start..(start + rng.usize(1..=most.max(1))).min(length)
}

/// Writes a number of 1 to 8 bytes in either order, or moves one that is there by a little.
fn number(out: &mut [u8], rng: &mut Rng) {
    let width = [1, 2, 3, 4, 4, 8][rng.usize(..6)].min(out.len());
    let at = rng.usize(..=out.len() - width);
    let little = rng.bool();
    let field = &mut out[at..at + width];
    let value = if rng.bool() {
        NUMBERS[rng.usize(..NUMBERS.len())]
    } else {
        get(field, little).wrapping_add(rng.u64(..64)).wrapping_sub(32)
    };
    set(field, little, value);
}

fn get(field: &[u8], little: bool) -> u64 {
    let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    if little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) }
}

fn set(field: &mut [u8], little: bool, value: u64) {
    let bytes = value.to_le_bytes();
    field.copy_from_slice(&bytes[..field.len()]);
    if !little {
        field.reverse();
    }
}

/// Looks for a number that could be a length or a count (it is no larger than what follows it) and changes it.
fn length(out: &mut [u8], rng: &mut Rng) {
    for _ in 0..16 {
        let width = [2, 4, 4, 8][rng.usize(..4)];
        if out.len() < width {
            return;
        }
        let (at, little) = (rng.usize(..=out.len() - width), rng.bool());
        let rest = (out.len() - at) as u64;
        let field = &mut out[at..at + width];
        let found = get(field, little);
        if (1..=rest).contains(&found) {
            let values = [0, found - 1, found + 1, found * 2, rest, rest + 1, 1 << 31, u64::MAX, u64::MAX - 7];
            return set(field, little, values[rng.usize(..values.len())]);
        }
    }
}

/// Puts a piece of another file over or between.
fn splice(out: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    if other.is_empty() {
        return;
    }
    let copy = &other[piece(other.len(), rng)];
    let at = rng.usize(..=out.len());
    let end = if rng.bool() { at } else { (at + copy.len()).min(out.len()) };
    out.splice(at..end, copy.iter().copied());
}

/// Doubles, drops or moves a piece that begins at a name of four letters: a box of MP4, a chunk of PNG, RIFF or AIFF, a
/// page of Ogg. Where the number before or after the name is its length, the piece is the whole chunk.
fn chunk(out: &mut Vec<u8>, rng: &mut Rng) {
    let is_name = |four: &[u8]| four.iter().all(|b| b.is_ascii_alphanumeric() || *b == b' ');
    let names: Vec<usize> = out.windows(4).enumerate().filter(|(_, four)| is_name(four)).map(|(at, _)| at).collect();
    if names.is_empty() {
        return;
    }
    let at = names[rng.usize(..names.len())];
    let size_at = |at: usize, little| out.get(at..at + 4).map(|field| get(field, little) as usize);
    let ranges = [
        // MP4: a size that counts itself and the name. PNG: a size of the data, a sum behind. RIFF and AIFF: behind the name.
        at.checked_sub(4).and_then(|start| Some(start..start.checked_add(size_at(start, false)?)?)),
        at.checked_sub(4).and_then(|start| Some(start..start.checked_add(size_at(start, false)?.checked_add(12)?)?)),
        size_at(at + 4, true).and_then(|size| Some(at..at.checked_add(size.checked_add(8)?)?)),
        size_at(at + 4, false).and_then(|size| Some(at..at.checked_add(size.checked_add(8)?)?)),
        Some(at..out.len()),
    ];
    let fitting: Vec<_> = ranges.into_iter().flatten().filter(|r| r.start < r.end && r.end <= out.len()).collect();
    let Some(range) = rng.choice(&fitting).cloned() else { return };
    match rng.u8(..4) {
        0 => {
            out.drain(range);
        }
        1 => {
            let copy = out[range.clone()].to_vec();
            out.splice(range.end..range.end, copy);
        }
        2 => {
            let moved: Vec<u8> = out.drain(range).collect();
            let at = rng.usize(..=out.len());
            out.splice(at..at, moved);
        }
        _ => {
            let name = names[rng.usize(..names.len())];
            let copy = [out[name], out[name + 1], out[name + 2], out[name + 3]];
            out[at..at + 4].copy_from_slice(&copy);
        }
    }
}

/// Puts another value in the place of what stands between a colon or comma and what ends it.
fn value(out: &mut Vec<u8>, rng: &mut Rng) {
    let starts: Vec<usize> = (0..out.len()).filter(|at| matches!(out[*at], b':' | b',' | b'[')).collect();
    let Some(start) = rng.choice(&starts).map(|at| at + 1) else { return };
    let end =
        out[start..].iter().position(|b| matches!(b, b',' | b'}' | b']' | b'\n')).map_or(out.len(), |n| start + n);
    let new = VALUES[rng.usize(..VALUES.len())];
    out.splice(start..end, new.bytes());
}

/// Opens many structures at once.
fn deepen(out: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..=out.len());
    let opened: &[u8] = if rng.bool() { b"[" } else { b"{\"a\":" };
    let depth = [8, 127, 128, 129, 4000][rng.usize(..5)];
    out.splice(at..at, opened.repeat(depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_state_gives_the_same_bytes_and_another_state_others() {
        let seed: Vec<u8> = (0..200).collect();
        let make = |state| mutated(&seed, b"{\"other\": 1}", &mut Rng::with_seed(state));
        let different = (0..500).filter(|state| make(*state) != make(state + 1)).count();
        assert!((0..500).all(|state| make(state) == make(state)));
        assert!(different > 490, "{different} of 500 differ from their neighbour");
    }

    #[test]
    fn numbers_are_written_and_read_in_both_orders() {
        let mut field = [0; 3];
        set(&mut field, true, 0x0001_0203);
        assert_eq!((field, get(&field, true), get(&field, false)), ([3, 2, 1], 0x0001_0203, 0x0003_0201));
        set(&mut field, false, u64::MAX - 1);
        assert_eq!(field, [0xff, 0xff, 0xfe]);
    }

    #[test]
    fn no_state_makes_more_than_the_longest_input_or_a_panic() {
        let seeds: [&[u8]; 4] = [b"", b"x", b"{\"a\":[1,{\"b\":\"c\"}]}", b"RIFF\x10\0\0\0WAVEfmt \x04\0\0\0abcd"];
        for state in 0..20_000 {
            let rng = &mut Rng::with_seed(state);
            let long = mutated(seeds[rng.usize(..4)], seeds[rng.usize(..4)], rng);
            assert!(long.len() <= MOST_BYTES);
        }
    }
}
