//! The setup header of Vorbis, with the order of its couplings turned round.
//!
//! Channels are uncoupled from the last step to the first (4.3.5). symphonia 0.6.1 goes from the first to the last, which is
//! another audio where steps share a channel, as those of libvorbis for 5.1 do. So its decoder is given them in the other
//! order.
//!
//! # Source
//! Vorbis I specification, section 4.2.4 and the sections that it names.

/// Length of the identification header, which stands before the setup header where decoders are given both.
const IDENTIFICATION_BYTES: usize = 30;

/// The headers with the coupling steps of every mapping in the other order; as they were where they do not hold together,
/// which the decoder says.
pub(super) fn with_couplings_reversed(headers: &[u8]) -> Vec<u8> {
    let mut out = headers.to_vec();
    let (Some(channels), Some(setup)) = (headers.get(11), out.get_mut(IDENTIFICATION_BYTES..)) else { return out };
    if !setup.starts_with(b"\x05vorbis") {
        return out;
    }
    let Some(couplings) = couplings(setup, u32::from(*channels)) else { return out };
    for Couplings { at, steps, bits } in couplings {
        let step = |index: u64| at + index * 2 * u64::from(bits);
        let read: Option<Vec<u64>> =
            (0..steps).map(|index| Bits { bytes: setup, at: step(index) }.read(2 * bits)).collect();
        for (index, value) in (0..steps).zip(read.unwrap_or_default().into_iter().rev()) {
            for bit in 0..2 * bits {
                let place = step(index) + u64::from(bit);
                let (byte, mask) = (&mut setup[(place / 8) as usize], 1 << (place % 8));
                *byte = if value >> bit & 1 == 1 { *byte | mask } else { *byte & !mask };
            }
        }
    }
    out
}

/// Where the coupling steps of a mapping stand, in bits, and how many bits each of their two numbers has.
struct Couplings {
    at: u64,
    steps: u64,
    bits: u32,
}

/// Bits of a packet, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    /// At most 32 bits.
    fn read(&mut self, count: u32) -> Option<u64> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.bytes.get(usize::try_from(self.at / 8).ok()?)?;
            value |= u64::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.read(1)? == 1)
    }

    /// Passes bits, which may be more than there are.
    fn pass(&mut self, count: u64) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        Some(())
    }
}

/// The number of bits of a number.
fn bits_of(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

/// Goes over a setup header up to its mappings; `None` where it ends before.
fn couplings(setup: &[u8], channels: u32) -> Option<Vec<Couplings>> {
    let mut bits = Bits { bytes: setup, at: 7 * 8 };
    for _ in 0..=bits.read(8)? {
        codebook(&mut bits)?;
    }
    // Transforms of the time domain, which are none.
    let times = bits.read(6)? + 1;
    bits.pass(16 * times)?;
    for _ in 0..=bits.read(6)? {
        floor(&mut bits)?;
    }
    for _ in 0..=bits.read(6)? {
        residue(&mut bits)?;
    }
    let coupling_bits = bits_of(u64::from(channels.checked_sub(1)?));
    let mut found = Vec::new();
    for _ in 0..=bits.read(6)? {
        bits.pass(16)?;
        let submaps = if bits.flag()? { bits.read(4)? + 1 } else { 1 };
        if bits.flag()? {
            let steps = bits.read(8)? + 1;
            found.push(Couplings { at: bits.at, steps, bits: coupling_bits });
            bits.pass(2 * steps * u64::from(coupling_bits))?;
        }
        bits.pass(2 + if submaps > 1 { 4 * u64::from(channels) } else { 0 } + 24 * submaps)?;
    }
    Some(found)
}

/// 3.2.1.
fn codebook(bits: &mut Bits<'_>) -> Option<()> {
    bits.pass(24)?;
    let (dimensions, entries) = (bits.read(16)?, bits.read(24)?);
    if bits.flag()? {
        bits.pass(5)?;
        let mut known = 0;
        while known < entries {
            known += bits.read(bits_of(entries - known))?;
        }
    } else {
        let sparse = bits.flag()?;
        for _ in 0..entries {
            if !sparse || bits.flag()? {
                bits.read(5)?;
            }
        }
    }
    let values = match bits.read(4)? {
        0 => return Some(()),
        1 => {
            // The largest number whose power is no more than the entries: at most all of them.
            let fits = |number: u64| {
                let power = u32::try_from(dimensions).ok().and_then(|dimensions| number.checked_pow(dimensions));
                power.is_some_and(|power| power <= entries)
            };
            let (mut low, mut high) = (0, entries + 1);
            while high - low > 1 {
                let middle = (low + high) / 2;
                if fits(middle) { low = middle } else { high = middle }
            }
            low
        }
        _ => entries * dimensions,
    };
    bits.pass(64)?;
    let value_bits = bits.read(4)? + 1;
    bits.pass(1 + value_bits * values)
}

/// 6.2.1 and 7.2.2.
fn floor(bits: &mut Bits<'_>) -> Option<()> {
    if bits.read(16)? == 0 {
        bits.pass(8 + 16 + 16 + 6 + 8)?;
        let books = bits.read(4)? + 1;
        return bits.pass(8 * books);
    }
    let partitions = bits.read(5)?;
    let classes: Option<Vec<u64>> = (0..partitions).map(|_| bits.read(4)).collect();
    let classes = classes?;
    let mut dimensions = Vec::new();
    for _ in 0..classes.iter().max().map_or(0, |last| last + 1) {
        dimensions.push(bits.read(3)? + 1);
        let subclasses = bits.read(2)?;
        bits.pass(if subclasses > 0 { 8 } else { 0 } + (8 << subclasses))?;
    }
    bits.pass(2)?;
    let range = bits.read(4)?;
    classes.iter().try_for_each(|class| bits.pass(range * dimensions[*class as usize]))
}

/// 8.6.1.
fn residue(bits: &mut Bits<'_>) -> Option<()> {
    bits.pass(16 + 3 * 24)?;
    let classifications = bits.read(6)? + 1;
    bits.pass(8)?;
    let mut books = 0;
    for _ in 0..classifications {
        let low = bits.read(3)?;
        let high = if bits.flag()? { bits.read(5)? } else { 0 };
        books += u64::from(low.count_ones() + high.count_ones());
    }
    bits.pass(8 * books)
}
