//! CCITT's codings of black and white rows: Huffman runs (TIFF's compression 2), T.4 in one and two dimensions, T.6.
//!
//! The codes themselves are the tables of the crate `fax`; its decoders of whole images are not used, because they know
//! neither two-dimensional T.4 nor rows without ends, and go on where a row is damaged.
//!
//! # Source
//! ITU-T T.4 (2003) and T.6 (1988); TIFF 6.0, sections 10 and 11; libtiff's reading of what they leave open.

use std::convert::Infallible;

use fax::BitReader;
use fax::maps::{black, white};

use super::fault::{Fault, damaged, unsupported};

/// How rows follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Runs without ends of rows, each row beginning at a byte.
    Runs,
    /// The same, each row beginning at a word of 16 bits.
    WordRuns,
    /// Ends of rows before each of them.
    T4 {
        /// Rows that follow from the one above, as the bit behind an end of row says.
        two_dimensional: bool,
    },
    /// Rows that follow from the one above, and nothing between them.
    T6,
}

/// Bits from the high end of bytes. Zeros follow behind the last one; a code that needs them is an error later.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next 32 bits.
    fn word(&self) -> u32 {
        let from = self.at / 8;
        let byte = |i: usize| u64::from(self.bytes.get(from + i).copied().unwrap_or(0));
        let five = (0..5).fold(0, |sum, i| sum << 8 | byte(i));
        (five >> (8 - self.at % 8)) as u32
    }

    fn over(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    /// Whether fewer bits are left than the longest code has.
    fn ends(&self) -> bool {
        self.at + 12 > self.bytes.len() * 8
    }

    fn align(&mut self, bits: usize) {
        self.at = self.at.next_multiple_of(bits);
    }

    /// Steps over an end of row, with any number of zeros before its one; `false` where none is next.
    fn end_of_row(&mut self) -> bool {
        if self.word() >> 21 != 0 {
            return false;
        }
        let mut at = self.at + 11;
        while let Some(byte) = self.bytes.get(at / 8) {
            if byte << (at % 8) == 0 {
                at = (at / 8 + 1) * 8;
            } else {
                self.at = at + (byte << (at % 8)).leading_zeros() as usize + 1;
                return true;
            }
        }
        false
    }

    /// A run of one colour: any number of codes of whole 64s, and one of the rest.
    fn run(&mut self, is_black: bool) -> Result<u32, Fault> {
        let mut sum = 0u32;
        loop {
            if self.word() >> 20 == 0b1111 {
                return Err(unsupported("found CCITT rows with an extension (uncompressed mode)"));
            }
            let code = if is_black { black::decode(self) } else { white::decode(self) };
            // Zeros behind the last bit are no code either.
            let none = || if self.ends() { cut() } else { damaged("a code of a run is not one of T.4") };
            let run = u32::from(code.ok_or_else(none)?);
            sum = sum.saturating_add(run);
            if self.over() {
                return Err(cut());
            }
            if run < 64 {
                return Ok(sum);
            }
        }
    }
}

impl BitReader for Bits<'_> {
    type Error = Infallible;

    fn peek(&self, bits: u8) -> Option<u16> {
        (1..=16).contains(&bits).then(|| (self.word() >> (32 - u32::from(bits))) as u16)
    }

    fn consume(&mut self, bits: u8) -> Result<(), Infallible> {
        self.at += usize::from(bits);
        Ok(())
    }

    fn bits_to_byte_boundary(&self) -> u8 {
        ((8 - self.at % 8) % 8) as u8
    }
}

fn cut() -> Fault {
    damaged("coded rows end too early")
}

/// Decodes rows into bits, one for black, each row beginning at a byte.
///
/// # Shapes
/// - `out`: `[rows, ceil(width / 8)]`
pub(super) fn decode(raw: &[u8], coding: Coding, width: u32, rows: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let row_bytes = (width as usize).div_ceil(8);
    out.clear();
    out.resize(row_bytes * rows, 0);
    let mut bits = Bits { bytes: raw, at: 0 };
    // Where colours change, from white to black first: of the row above and of this one.
    let (mut above, mut row) = (Vec::new(), Vec::new());
    for line in out.chunks_exact_mut(row_bytes) {
        row.clear();
        let one_dimensional = match coding {
            Coding::Runs | Coding::WordRuns => {
                bits.align(if coding == Coding::Runs { 8 } else { 16 });
                true
            }
            Coding::T4 { two_dimensional } => {
                let ended = bits.end_of_row();
                if two_dimensional && !ended {
                    return Err(damaged("an end of row is missing"));
                }
                let tag = bits.word() >> 31 == 1;
                bits.at += usize::from(two_dimensional);
                !two_dimensional || tag
            }
            Coding::T6 => {
                // The end of the block before the last row: the rest is white.
                if bits.word() >> 20 == 1 {
                    break;
                }
                false
            }
        };
        if one_dimensional {
            runs(&mut bits, width, &mut row)?;
        } else {
            differences(&mut bits, width, &above, &mut row)?;
        }
        paint(&row, width, line);
        std::mem::swap(&mut above, &mut row);
    }
    Ok(())
}

/// A row as white and black runs by turns.
fn runs(bits: &mut Bits<'_>, width: u32, row: &mut Vec<u32>) -> Result<(), Fault> {
    let (mut at, mut is_black) = (0u32, false);
    while at < width {
        at = at.saturating_add(bits.run(is_black)?);
        if at > width {
            return Err(damaged("runs go beyond the end of their row"));
        }
        row.push(at);
        is_black = !is_black;
    }
    Ok(())
}

/// A row by its differences from the one above.
fn differences(bits: &mut Bits<'_>, width: u32, above: &[u32], row: &mut Vec<u32>) -> Result<(), Fault> {
    // Before the first pixel at first, so that a change there counts as one to the right.
    let mut at = -1i64;
    let mut is_black = false;
    let mut next = 0usize;
    while at < i64::from(width) {
        // The first change above to the right of here, to the other colour; and the one behind it.
        next = next & !1 | usize::from(is_black);
        while next >= 2 && above.get(next - 2).is_none_or(|change| i64::from(*change) > at) {
            next -= 2;
        }
        while above.get(next).is_some_and(|change| i64::from(*change) <= at) {
            next += 2;
        }
        let change = |index: usize| i64::from(above.get(index).copied().unwrap_or(width));
        let (first, second) = (change(next), change(next + 1));
        let word = bits.word();
        let (length, shift) = match word.leading_zeros() {
            0 => (1, Some(0)),
            1 => (3, Some(if word >> 29 == 0b011 { 1 } else { -1 })),
            // A run of each colour.
            2 => {
                bits.at += 3;
                let from = at.max(0);
                let middle = from + i64::from(bits.run(is_black)?);
                at = middle + i64::from(bits.run(!is_black)?);
                if at > i64::from(width) {
                    return Err(damaged("runs go beyond the end of their row"));
                }
                row.extend([middle as u32, at as u32]);
                continue;
            }
            // Past both changes above in the colour of now.
            3 => {
                bits.at += 4;
                if bits.over() {
                    return Err(cut());
                }
                at = second;
                continue;
            }
            4 => (6, Some(if word >> 26 == 0b00_0011 { 2 } else { -2 })),
            5 => (7, Some(if word >> 25 == 0b000_0011 { 3 } else { -3 })),
            6 => return Err(unsupported("found CCITT rows with an extension (uncompressed mode)")),
            _ => (0, None),
        };
        let Some(shift) = shift else {
            return Err(if bits.ends() { cut() } else { damaged("a code of a row is not one of T.6") });
        };
        bits.at += length;
        if bits.over() {
            return Err(cut());
        }
        let to = first + shift;
        if to < at.max(0) || to > i64::from(width) {
            return Err(damaged("a change of colour lies outside of its row"));
        }
        row.push(to as u32);
        at = to;
        is_black = !is_black;
    }
    Ok(())
}

/// Sets the bits of the black runs.
fn paint(row: &[u32], width: u32, line: &mut [u8]) {
    for pair in row.chunks(2) {
        let (from, to) = (pair[0] as usize, pair.get(1).copied().unwrap_or(width) as usize);
        let mut at = from;
        while at < to {
            if at % 8 == 0 && to - at >= 8 {
                line[at / 8..to / 8].fill(0xff);
                at = to / 8 * 8;
            } else {
                line[at / 8] |= 0x80 >> (at % 8);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits as they are written, into bytes.
    fn bytes(text: &str) -> Vec<u8> {
        let bits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').map(|byte| byte - b'0').collect();
        bits.chunks(8).map(|eight| eight.iter().enumerate().map(|(i, bit)| bit << (7 - i)).sum()).collect()
    }

    fn decoded(text: &str, coding: Coding, width: u32, rows: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        decode(&bytes(text), coding, width, rows, &mut out).map(|()| out).map_err(|fault| format!("{fault:?}"))
    }

    #[test]
    fn a_row_of_runs_becomes_bits() {
        // 4 white, 4 black, 8 white.
        assert_eq!(decoded("1011 011 10011", Coding::Runs, 16, 1).unwrap(), [0x0f, 0]);
        let twice = "1011 011 10011 0000 1011 011 10011";
        assert_eq!(decoded(twice, Coding::Runs, 16, 2).unwrap(), [0x0f, 0, 0x0f, 0]);
        assert!(decoded(twice, Coding::Runs, 16, 3).unwrap_err().contains("too early"));
        assert!(decoded("1011 011 10011", Coding::Runs, 15, 1).unwrap_err().contains("beyond"));
    }

    #[test]
    fn rows_of_t6_follow_from_the_one_above() {
        // 4 white and 4 black as runs and the rest unchanged; the same again; one to the right and one to the left.
        let rows = "001 1011 011 1  1 1 1  011 010 1  000000000001 000000000001";
        assert_eq!(decoded(rows, Coding::T6, 16, 4).unwrap(), [0x0f, 0, 0x0f, 0, 0x06, 0, 0, 0]);
        assert!(decoded("001 1011 011 1", Coding::T6, 16, 30).unwrap_err().contains("too early"));
        assert!(decoded("0000001 111", Coding::T6, 16, 1).unwrap_err().contains("uncompressed mode"));
    }
}
