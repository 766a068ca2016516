//! Writes what this crate decodes of image files, for scripts that compare it with other readers (`tests/golden/make`).
//!
//! Reads one path a line; for each, one line goes out: `ok WIDTH HEIGHT` or `KIND MESSAGE`. The pixels go to the file that
//! the first argument names, `[height, width, 3]` of each image one after the other.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;

use omniburn_media::decode_image_file;

fn main() -> io::Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| io::Error::other("expected a path for the pixels"))?;
    let (mut pixels, mut out) = (BufWriter::new(File::create(path)?), io::stdout().lock());
    for line in io::stdin().lock().lines() {
        match decode_image_file(Path::new(&line?)) {
            Ok(image) => {
                pixels.write_all(image.pixels())?;
                writeln!(out, "ok {} {}", image.width().0, image.height().0)?;
            }
            Err(error) => writeln!(out, "{} {}", error.kind(), error.to_string().replace('\n', " "))?,
        }
    }
    pixels.flush()
}
