//! The one thing about JPEG that its decoder does not say: whether the file reaches its end.

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
        let Some(at) = rest.iter().position(|byte| *byte == 0xff) else {
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
