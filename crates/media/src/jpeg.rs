//! What the decoder of JPEG does not say: whether the file reaches its end, and how much of the picture it holds at once.

use std::io::{self, BufRead, Read};

use memchr::memchr;

/// True if the end marker of the first picture is there.
///
/// The decoder fills what is missing of a cut file with grey and reports success; the reference refuses such a file.
pub(crate) fn has_end(bytes: &[u8]) -> bool {
    let mut rest = match bytes {
        [0xff, 0xd8, rest @ ..] => rest,
        _ => return false,
    };
    loop {
        // Between segments and inside coded data alike, the next marker begins at the next 0xff.
        let Some(at) = memchr(0xff, rest) else {
            return false;
        };
        rest = &rest[at + 1..];
        match *rest {
            [0xd9, ..] => return true,
            // A byte of data, a restart marker, and other markers that stand alone.
            [0x00 | 0x01 | 0xd0..=0xd8, ..] => rest = &rest[1..],
            // Fill bytes before a marker.
            [0xff, ..] => {}
            // A segment: skipped whole, because pictures inside it (thumbnails) have end markers of their own.
            [_, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low])).max(2);
                match rest.get(1 + length..) {
                    Some(after) => rest = after,
                    None => return false,
                }
            }
            _ => return false,
        }
    }
}

/// No header is longer: profiles and metadata of usual files have at most some megabytes.
const MOST_HEAD: u64 = 32 << 20;

/// The beginning of a JPEG, up to the coded data of its first scan.
pub(crate) struct Shape {
    /// The bytes.
    pub(crate) head: Vec<u8>,
    /// Coefficients of the whole picture in whole blocks, where its scans are not each a part of it.
    coefficients: u64,
    /// Width in whole blocks.
    width: u64,
}

impl Shape {
    /// Bytes that the decoder (`zune-jpeg` 0.5.15) holds beside the file and the result.
    pub(crate) fn beside(&self) -> u64 {
        // Coefficients are 16-bit numbers. Rows of blocks: up to four components, each as coefficients, upsampled and
        // with the rows around. Metadata is copied out twice.
        2 * self.coefficients + 640 * self.width + 2 * self.head.len() as u64
    }
}

/// Reads the header of a JPEG. What is no JPEG gives what there is of it.
pub(crate) fn shape(source: &mut (impl BufRead + ?Sized)) -> io::Result<Shape> {
    let mut shape = Shape { head: Vec::new(), coefficients: 0, width: 0 };
    let (mut progressive, mut components, mut all) = (false, 0, 0);
    source.take(2).read_to_end(&mut shape.head)?;
    loop {
        let room = MOST_HEAD.saturating_sub(shape.head.len() as u64);
        source.take(room).read_until(0xff, &mut shape.head)?;
        let start = shape.head.len();
        let [marker] = match source.take(1).read_to_end(&mut shape.head)? {
            1 if room > 0 => [shape.head[start]],
            _ => return Ok(shape),
        };
        if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8 | 0xff) {
            continue;
        }
        source.take(2).read_to_end(&mut shape.head)?;
        let [high, low] = shape.head[start + 1..] else { return Ok(shape) };
        let length = u64::from(u16::from_be_bytes([high, low])).saturating_sub(2);
        let body = shape.head.len();
        source.take(length).read_to_end(&mut shape.head)?;
        let body = &shape.head[body..];
        match marker {
            // Start of a frame: bits, height, width, and the components with their sampling.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let [_, h0, h1, w0, w1, count, rest @ ..] = body else { continue };
                let sides = [[*w0, *w1], [*h0, *h1]].map(|side| u64::from(u16::from_be_bytes(side)));
                let factors = rest.chunks_exact(3).map(|one| [u64::from(one[1] >> 4), u64::from(one[1] & 15)]);
                let most = factors.clone().fold([1, 1], |most, one| [most[0].max(one[0]), most[1].max(one[1])]);
                let blocks = [0, 1].map(|i| sides[i].div_ceil(8 * most[i]));
                shape.width = blocks[0] * 8 * most[0];
                all = factors.map(|one| one[0] * one[1]).sum::<u64>() * blocks[0] * blocks[1] * 64;
                (progressive, components) = (marker == 0xc2, *count);
            }
            // Start of a scan.
            0xda => {
                if progressive || body.first().is_some_and(|count| *count < components) {
                    shape.coefficients = all;
                }
                return Ok(shape);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::has_end;

    #[test]
    fn the_end_marker_is_looked_for_outside_of_segments() {
        let whole = b"\xff\xd8\xff\xe0\x00\x04\xff\xd9\xff\xda\x00\x02\x12\xff\x00\xff\xd0\x34\xff\xff\xd9";
        assert!(has_end(whole));
        for cut in 0..whole.len() {
            assert!(!has_end(&whole[..cut]), "cut at {cut}");
        }
        assert!(!has_end(b"GIF89a"));
    }
}
