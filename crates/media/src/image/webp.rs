//! Two things about WebP: its decoder does not check whether its chunks end inside the file, and it refuses files whose
//! header speaks of metadata that are not there.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use super::rgb::ReadSeek;

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
        // What is not known may be anything behind the image, as the decoder sees it.
        if at + HEAD + bytes > file_bytes {
            return Ok(!is_known);
        }
        at += HEAD + bytes + (bytes & 1);
    }
    Ok(true)
}

/// Bytes before the flags of an extended header, and those flags that speak of metadata: profile, Exif, XMP.
const FLAGS_AT: usize = 20;
const METADATA_FLAGS: u8 = 0x20 | 0x08 | 0x04;

/// A file without the flags of its metadata, as its decoder is shown it: `image-webp` 0.2.4 refuses a file where the chunk
/// of a flag is missing, as programs leave it behind that take metadata out. What the metadata say is read elsewhere.
pub(crate) fn unflagged<'a>(source: &'a mut (dyn ReadSeek + 'a)) -> io::Result<Changed<'a>> {
    Changed::new(source, FLAGS_AT + 1, |head| {
        if let [.., b'V', b'P', b'8', b'X', _, _, _, _, flags] = head {
            *flags &= !METADATA_FLAGS;
        }
    })
}

/// A file whose first bytes are shown changed.
pub(crate) struct Changed<'a> {
    source: &'a mut (dyn ReadSeek + 'a),
    /// The first bytes, changed.
    head: Vec<u8>,
    at: u64,
    /// The source stands elsewhere.
    astray: bool,
}

impl<'a> Changed<'a> {
    /// Reads the source from its start. `change` is given so many first bytes, or what there is of them.
    pub(crate) fn new(
        source: &'a mut (dyn ReadSeek + 'a),
        bytes: usize,
        change: impl FnOnce(&mut [u8]),
    ) -> io::Result<Self> {
        let mut head = Vec::new();
        source.seek(SeekFrom::Start(0))?;
        source.take(bytes as u64).read_to_end(&mut head)?;
        change(&mut head);
        Ok(Self { source, head, at: 0, astray: true })
    }
}

impl Read for Changed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let found = self.fill_buf()?;
        let taken = found.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&found[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for Changed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(rest @ [_, ..]) = self.head.get(self.at as usize..) {
            return Ok(rest);
        }
        if self.astray {
            self.source.seek(SeekFrom::Start(self.at))?;
            self.astray = false;
        }
        self.source.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        if self.at >= self.head.len() as u64 {
            self.source.consume(bytes);
        }
        self.at += bytes as u64;
    }
}

impl Seek for Changed<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => to,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::End(_) => self.source.seek(to)?,
        };
        (self.at, self.astray) = (to, true);
        Ok(to)
    }
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

    #[test]
    fn flags_of_metadata_are_hidden_and_all_other_bytes_are_shown() {
        let mut file: Vec<u8> = (0..100).collect();
        file[12..16].copy_from_slice(b"VP8X");
        file[20] = 0xff;
        let mut shown = file.clone();
        shown[20] = !0x2c;
        let mut source = Cursor::new(&file);
        let mut hidden = unflagged(&mut source).unwrap();
        for from in [0, 5, 20, 21, 60, 99, 3] {
            let mut found = Vec::new();
            assert_eq!(hidden.seek(SeekFrom::Start(from)).unwrap(), from);
            hidden.read_to_end(&mut found).unwrap();
            assert_eq!(found, shown[from as usize..], "from {from}");
            assert_eq!(hidden.stream_position().unwrap(), 100);
        }
        assert_eq!(hidden.seek(SeekFrom::End(-80)).unwrap(), 20);
        let mut byte = [0];
        hidden.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0xd3]);
    }
}
