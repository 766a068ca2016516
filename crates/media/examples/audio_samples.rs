//! Decodes audio files for comparison with a reference (`tests/golden/make/sweep_streams.py`).
//!
//! Reads lines of `FILE<tab>RATE<tab>OUT` from standard input, writes the samples of FILE at RATE to OUT as 32-bit floats,
//! and says `ok` or the error of each on one line.

use std::io::{BufRead, Write};

use omniburn_media::{AudioReader, AudioSource, MediaError};

fn samples(path: &str, rate_hz: u32) -> Result<Vec<u8>, MediaError> {
    let mut reader = AudioReader::open(&AudioSource::file(path), rate_hz)?;
    let mut bytes = Vec::new();
    while let Some(segment) = reader.next_segment()? {
        bytes.extend(segment.samples.iter().flat_map(|sample| sample.to_le_bytes()));
    }
    Ok(bytes)
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let parts: Vec<&str> = line.split('\t').collect();
        let [path, rate_hz, to] = parts.as_slice() else {
            writeln!(out, "bad line")?;
            continue;
        };
        match samples(path, rate_hz.parse().unwrap_or(0)) {
            Ok(bytes) => {
                std::fs::write(to, bytes)?;
                writeln!(out, "ok")?;
            }
            Err(error) => writeln!(out, "{}: {}", error.kind(), error.to_string().replace('\n', " "))?,
        }
    }
    Ok(())
}
