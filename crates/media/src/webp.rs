//! The one thing about WebP that its decoder does not check: whether its chunks end inside the file.

use std::io::{self, BufRead, Seek, SeekFrom};

/// False where a chunk says that it goes on behind the end of the file.
///
/// The decoder makes room for a chunk of metadata before it reads it: 4 GiB for a file of 40 bytes. Leaves the source
/// anywhere.
pub(crate) fn chunks_end(source: &mut (impl BufRead + Seek + ?Sized), file_bytes: u64) -> io::Result<bool> {
    const HEAD: u64 = 8;
    let mut at = 12;
    while at + HEAD <= file_bytes {
        let mut head = [0; HEAD as usize];
        source.seek(SeekFrom::Start(at))?;
        source.read_exact(&mut head)?;
        let bytes = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        let is_known = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "]
            .iter()
            .any(|name| head.starts_with(*name));
        // What is not known may be anything behind the picture, as the decoder sees it.
        if at + HEAD + bytes > file_bytes {
            return Ok(!is_known);
        }
        at += HEAD + bytes + (bytes & 1);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn ends(chunks: &[u8]) -> bool {
        let file = [b"RIFF\xff\xff\xff\xffWEBP".as_slice(), chunks].concat();
        chunks_end(&mut Cursor::new(&file), file.len() as u64).unwrap()
    }

    #[test]
    fn a_chunk_beyond_the_end_is_seen_and_padding_is_not_missed() {
        assert!(ends(b"VP8 \x02\0\0\0abEXIF\x01\0\0\0a"));
        assert!(ends(b"VP8 \x01\0\0\0a\0EXIF\x01\0\0\0a\0"));
        assert!(!ends(b"VP8 \x02\0\0\0abEXIF\x02\0\0\0a"));
        assert!(!ends(b"VP8 \x02\0\0\0abEXIF\xff\xff\xff\xffa"));
        assert!(ends(b"VP8 \x02\0\0\0abjunk\xff\xff\xff\xffa"));
        assert!(ends(b""));
    }
}
