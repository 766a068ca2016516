//! When a photograph was taken, and where.

use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use exif::{DateTime, Exif, In, Reader, Tag, Value};

use crate::query::days_since_1970;

/// Bytes of a file whose metadata is looked for: TIFF files are read whole for it.
const MOST_BYTES: u64 = 64 << 20;

/// What an image's Exif data says; `None` where nothing is said, or nothing that can be read: the image counts all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Photograph {
    /// When it was taken, in nanoseconds since 1970 (`DateTimeOriginal`, else `DateTimeDigitized`). A time without its offset is
    /// taken for UTC.
    pub taken_ns: Option<i64>,
    /// Where it was taken: latitude and longitude in degrees, north and east positive.
    pub coordinates: Option<(f64, f64)>,
}

/// Reads an image's Exif data.
pub(crate) fn photograph(path: &Path) -> Photograph {
    let Some(exif) = exif_of(path) else { return Photograph::default() };
    Photograph { taken_ns: taken_ns(&exif), coordinates: coordinates(&exif) }
}

fn taken_ns(exif: &Exif) -> Option<i64> {
    let taken = |time, offset, fraction| time_of(exif, time, offset, fraction);
    taken(Tag::DateTimeOriginal, Tag::OffsetTimeOriginal, Tag::SubSecTimeOriginal)
        .or_else(|| taken(Tag::DateTimeDigitized, Tag::OffsetTimeDigitized, Tag::SubSecTimeDigitized))
}

fn coordinates(exif: &Exif) -> Option<(f64, f64)> {
    let degrees = |value: Tag, side: Tag, negative: u8, most: f64| {
        let parts = match &exif.get_field(value, In::PRIMARY)?.value {
            Value::Rational(parts) => parts.iter().map(|part| part.to_f64()).collect::<Vec<f64>>(),
            _ => return None,
        };
        let sides = match &exif.get_field(side, In::PRIMARY)?.value {
            Value::Ascii(lines) => lines.first()?.first()?.to_ascii_uppercase(),
            _ => return None,
        };
        let size: f64 = parts.iter().take(3).zip([1.0, 60.0, 3600.0]).map(|(part, unit)| part / unit).sum();
        let degrees = if sides == negative { -size } else { size };
        (parts.len() == 3 && degrees.abs() <= most).then_some(degrees)
    };
    let latitude = degrees(Tag::GPSLatitude, Tag::GPSLatitudeRef, b'S', 90.0)?;
    Some((latitude, degrees(Tag::GPSLongitude, Tag::GPSLongitudeRef, b'W', 180.0)?))
}

fn exif_of(path: &Path) -> Option<Exif> {
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() > MOST_BYTES {
        return None;
    }
    let read = || Reader::new().read_from_container(&mut BufReader::new(file)).ok();
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

fn time_of(exif: &Exif, time: Tag, offset: Tag, fraction: Tag) -> Option<i64> {
    let text = |tag| match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Ascii(lines) => lines.first(),
        _ => None,
    };
    let mut time = DateTime::from_ascii(text(time)?).ok()?;
    if let Some(offset) = text(offset) {
        // What cannot be read is taken for UTC, as what is not there.
        let _ = time.parse_offset(offset);
    }
    if let Some(fraction) = text(fraction) {
        let _ = time.parse_subsec(fraction);
    }
    let in_range = (1..=12).contains(&time.month) && (1..=31).contains(&time.day);
    if !in_range || time.hour > 23 || time.minute > 59 || time.second > 60 {
        return None;
    }
    let days = days_since_1970(time.year.into(), time.month.into(), time.day.into());
    let minutes = i64::from(time.hour) * 60 + i64::from(time.minute) - i64::from(time.offset.unwrap_or(0));
    let seconds = days * 86_400 + minutes * 60 + i64::from(time.second);
    seconds.checked_mul(1_000_000_000)?.checked_add(time.nanosecond.unwrap_or(0).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A JPEG that is nothing but Exif data with text tags in its Exif directory.
    fn with_tags(tags: &[(u16, &str)]) -> Vec<u8> {
        let mut tiff = b"MM\0*\0\0\0\x08".to_vec();
        tiff.extend([0, 1, 0x87, 0x69, 0, 4, 0, 0, 0, 1, 0, 0, 0, 26, 0, 0, 0, 0]);
        let mut texts = Vec::new();
        let from = 26 + 2 + 12 * tags.len() + 4;
        tiff.extend((tags.len() as u16).to_be_bytes());
        for (tag, text) in tags {
            let bytes = [text.as_bytes(), b"\0"].concat();
            tiff.extend(tag.to_be_bytes());
            tiff.extend([0, 2]);
            tiff.extend((bytes.len() as u32).to_be_bytes());
            if bytes.len() <= 4 {
                tiff.extend(bytes.iter().chain(&[0; 4]).take(4));
            } else {
                tiff.extend(((from + texts.len()) as u32).to_be_bytes());
                texts.extend(bytes);
            }
        }
        tiff.extend([0; 4]);
        tiff.extend(texts);
        let mut file = b"\xff\xd8\xff\xe1".to_vec();
        file.extend(((tiff.len() + 8) as u16).to_be_bytes());
        file.extend(b"Exif\0\0");
        file.extend(tiff);
        file.extend(b"\xff\xd9");
        file
    }

    fn taken(bytes: &[u8]) -> Option<i64> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photograph.jpg");
        std::fs::write(&path, bytes).unwrap();
        photograph(&path).taken_ns
    }

    #[test]
    fn the_time_of_a_photograph_is_that_of_its_exif_data() {
        const ORIGINAL: u16 = 0x9003;
        const DIGITIZED: u16 = 0x9004;
        const OFFSET: u16 = 0x9011;
        const FRACTION: u16 = 0x9291;
        let second = 1_000_000_000;
        assert_eq!(taken(&with_tags(&[(ORIGINAL, "1970:01:02 00:00:01")])), Some(86_401 * second));
        let tags = [(ORIGINAL, "1970:01:02 02:00:01"), (OFFSET, "+02:00"), (FRACTION, "25")];
        assert_eq!(taken(&with_tags(&tags)), Some(86_401 * second + second / 4));
        assert_eq!(taken(&with_tags(&[(DIGITIZED, "1970:01:01 00:00:01")])), Some(second));
        for none in ["    :  :     :  :  ", "0000:00:00 00:00:00", "yesterday", "1970:13:01 00:00:00"] {
            assert_eq!(taken(&with_tags(&[(ORIGINAL, none)])), None, "{none}");
        }
    }

    #[test]
    fn the_place_of_a_photograph_is_that_of_its_exif_data() {
        // A directory of GPS data: 53 degrees 30 minutes south, 9 degrees 36 seconds east.
        let mut tiff = b"MM\0*\0\0\0\x08".to_vec();
        tiff.extend([0, 1, 0x88, 0x25, 0, 4, 0, 0, 0, 1, 0, 0, 0, 26, 0, 0, 0, 0]);
        let values = 26 + 2 + 12 * 4 + 4u32;
        tiff.extend([0, 4]);
        for (tag, kind, count, value) in [
            (1u16, 2u16, 2u32, u32::from_be_bytes(*b"S\0\0\0")),
            (2, 5, 3, values),
            (3, 2, 2, u32::from_be_bytes(*b"E\0\0\0")),
            (4, 5, 3, values + 24),
        ] {
            tiff.extend(tag.to_be_bytes());
            tiff.extend(kind.to_be_bytes());
            tiff.extend(count.to_be_bytes());
            tiff.extend(value.to_be_bytes());
        }
        tiff.extend([0; 4]);
        for part in [53u32, 30, 0, 9, 0, 36] {
            tiff.extend(part.to_be_bytes());
            tiff.extend(1u32.to_be_bytes());
        }
        let mut file = b"\xff\xd8\xff\xe1".to_vec();
        file.extend(((tiff.len() + 8) as u16).to_be_bytes());
        file.extend(b"Exif\0\0");
        file.extend(tiff);
        file.extend(b"\xff\xd9");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photograph.jpg");
        std::fs::write(&path, &file).unwrap();
        let (latitude, longitude) = photograph(&path).coordinates.unwrap();
        assert!((latitude + 53.5).abs() < 1e-9 && (longitude - 9.01).abs() < 1e-9, "{latitude} {longitude}");
        std::fs::write(&path, with_tags(&[(0x9003, "1970:01:02 00:00:01")])).unwrap();
        assert_eq!(photograph(&path).coordinates, None);
    }

    #[test]
    fn what_has_no_such_data_or_is_damaged_has_no_time() {
        assert_eq!(taken(b"\x89PNG\r\n\x1a\n"), None);
        let whole = with_tags(&[(0x9003, "1970:01:02 00:00:01")]);
        for cut in 0..whole.len() - 2 {
            let _ = taken(&whole[..cut]);
        }
    }
}
