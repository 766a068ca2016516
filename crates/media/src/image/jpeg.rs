//! What a JPEG is, from its markers: its frame, its scans, its end, its metadata, and which decoder reads it.
//!
//! `image` decodes the baseline forms that nearly all files have, fast, and [`Border`] mends its edges. Whatever else is left
//! to [`decode`], which reads every form of eight bits with Huffman coding. Arithmetic coding, lossless, hierarchical and
//! deeper forms are refused by name.

mod border;
mod decode;
mod frame;
mod huffman;
mod pixels;

use std::io::{self, BufRead, Read};

use self::frame::{Component, Damage, ScanHead, ScanPart, marker_after};

pub(crate) use border::Border;
pub(crate) use decode::decode;
pub(crate) use frame::Frame;
pub(crate) use pixels::Colours;

/// Why the header alone says that an image is not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A form that is not read, in words after "found".
    Form(String),
    /// Rules that are broken.
    Damaged(Damage),
}

/// The markers of a file, up to the end of its first image or of the bytes.
#[derive(Default)]
pub(crate) struct Walk {
    frame: Option<Frame>,
    refusal: Option<Refusal>,
    colours: Option<Colours>,
    /// The end marker was there.
    pub(crate) ends: bool,
    /// Segments of Exif before the first scan, joined in their order, as Pillow does: the first tag of a kind counts.
    pub(crate) exif: Vec<u8>,
    /// The last XMP packet before the first scan.
    pub(crate) xmp: Vec<u8>,
    jfif: bool,
    /// The transform that an Adobe segment names.
    adobe: Option<u8>,
    scans: usize,
    /// Something was found that only our own decoder is held to read.
    unusual: bool,
    /// Places of the Huffman tables that were there before the first scan: means, then others.
    codes: [[bool; 4]; 2],
    /// Of progressive images: the lowest bit known of each coefficient of each component.
    known: Vec<[Option<u8>; 64]>,
}

/// More scans than any coder makes; each takes time for every block.
const MOST_SCANS: usize = 1000;

/// The coefficients that libjpeg smooths where scans leave bits of them out: the mean and the first nine.
const SMOOTHED: usize = 10;

impl Walk {
    /// Walks over the bytes of a file. They may end anywhere.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut walk = Self::default();
        let mut at = 2;
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return walk;
        }
        // Between segments and inside coded data alike, the next marker begins at the next 0xff.
        while let Some((marker, after)) = marker_after(bytes, at) {
            // Bytes between segments, and fill bytes.
            walk.unusual |= walk.scans == 0 && after - at != 2;
            at = after;
            match marker {
                0xd9 => {
                    walk.ends = true;
                    walk.check_end();
                    return walk;
                }
                0xd8 => walk.refuse(Refusal::Damaged("a second image begins inside the first")),
                0x01 => {}
                0xd0..=0xd7 => {}
                _ => {
                    // A segment: skipped whole, because images inside it (thumbnails) have markers of their own.
                    let Some(&[high, low]) = bytes.get(at..at + 2) else { return walk };
                    let length = usize::from(u16::from_be_bytes([high, low])).max(2);
                    let Some(body) = bytes.get(at + 2..at + length) else { return walk };
                    at += length;
                    walk.segment(marker, body);
                }
            }
        }
        walk
    }

    /// Why the image is not decoded, if it is not; then its frame, once it was there.
    pub(crate) fn frame(&self) -> Result<Option<&Frame>, Refusal> {
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(self.frame.as_ref()),
        }
    }

    /// What the components are; where there was a scan.
    pub(crate) fn colours(&self) -> Option<Colours> {
        self.colours
    }

    /// Whether the fast decoder reads this form rightly, as far as it was seen.
    pub(crate) fn usual(&self) -> bool {
        !self.unusual
    }

    /// Bytes that our own decoder holds beside the result.
    pub(crate) fn beside(&self) -> u64 {
        let Some(frame) = &self.frame else { return 0 };
        // Coefficients are 16-bit numbers, samples bytes; then one row of each.
        let held = if frame.progressive { 3 } else { 1 };
        frame.samples() * held + 8 * u64::from(frame.width)
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    fn segment(&mut self, marker: u8, body: &[u8]) {
        match marker {
            0xc4 | 0xcc | 0xdb if self.scans == 0 => {
                for_each_table(marker, body, |head| match marker {
                    0xc4 => {
                        if let (Some(kind), place @ 0..4) = (self.codes.get_mut(usize::from(head >> 4)), head & 15) {
                            kind[usize::from(place)] = true;
                        }
                    }
                    // Tables of 16 bits.
                    _ => self.unusual |= head >> 4 != 0,
                });
            }
            // Tables that change between scans are read by libjpeg as they stand when a component begins.
            0xdb | 0xdd if self.scans > 0 => self.unusual = true,
            0xde => self.refuse(Refusal::Form("a hierarchical JPEG".to_owned())),
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => self.start_of_frame(marker, body),
            0xe0 if body.starts_with(b"JFIF\0") && body.len() >= 14 => self.jfif = true,
            0xe1 if self.scans == 0 => {
                if let Some(exif) = body.strip_prefix(b"Exif\0\0") {
                    self.exif.extend_from_slice(exif);
                } else if let Some(xmp) = body.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                    self.xmp = xmp.to_vec();
                }
            }
            0xee if body.starts_with(b"Adobe") && body.len() >= 12 => self.adobe = Some(body[11]),
            0xda => self.start_of_scan(body),
            _ => {}
        }
    }

    fn start_of_frame(&mut self, marker: u8, body: &[u8]) {
        if self.frame.is_some() {
            return self.refuse(Refusal::Damaged("a second frame begins inside the first"));
        }
        let form = |what: &str| Some(Refusal::Form(what.to_owned()));
        let form = match marker {
            0xc0..=0xc2 => None,
            0xc9 | 0xca => form("a JPEG with arithmetic coding"),
            0xc3 => form("a lossless JPEG"),
            0xcb => form("a lossless JPEG with arithmetic coding"),
            _ => form("a hierarchical JPEG (differential frames)"),
        };
        if let Some(form) = form {
            return self.refuse(form);
        }
        let &[bits, h0, h1, w0, w1, count, ref rest @ ..] = body else {
            return self.refuse(Refusal::Damaged("the header of the frame is cut short"));
        };
        let count = usize::from(count);
        let Some(rest) = rest.get(..3 * count) else {
            return self.refuse(Refusal::Damaged("the header of the frame is cut short"));
        };
        let mut components: Vec<Component> = rest
            .as_chunks::<3>()
            .0
            .iter()
            .map(|[id, factors, quantiser]| Component {
                id: *id,
                across: factors >> 4,
                down: factors & 15,
                quantiser: *quantiser,
            })
            .collect();
        if bits != 8 {
            return self.refuse(Refusal::Form(format!("a JPEG with samples of {bits} bits")));
        }
        if !matches!(count, 1 | 3 | 4) {
            return self.refuse(Refusal::Form(format!("a JPEG with {count} components")));
        }
        if components.iter().any(|one| !(1..=4).contains(&one.across) || !(1..=4).contains(&one.down)) {
            return self.refuse(Refusal::Damaged("a component has a sampling factor that does not exist"));
        }
        if let [alone] = components.as_mut_slice() {
            // A component that is alone has nothing to be finer or coarser than: A.2.2.
            self.unusual |= (alone.across, alone.down) != (1, 1);
            (alone.across, alone.down) = (1, 1);
        }
        let frame = Frame {
            width: u32::from(u16::from_be_bytes([w0, w1])),
            height: u32::from(u16::from_be_bytes([h0, h1])),
            components,
            progressive: marker == 0xc2,
        };
        if frame.height == 0 {
            return self.refuse(Refusal::Form("a JPEG whose height is not in its header (DNL)".to_owned()));
        }
        let most = frame.most();
        if let Some(one) =
            frame.components.iter().find(|one| !most.0.is_multiple_of(one.across) || !most.1.is_multiple_of(one.down))
        {
            let (a, d) = (one.across, one.down);
            return self
                .refuse(Refusal::Form(format!("a JPEG with sampling factors {a} x {d} of {} x {}", most.0, most.1)));
        }
        let factors: Vec<_> = frame.components.iter().map(|one| (one.across, one.down)).collect();
        let usual = match factors.as_slice() {
            [_] => true,
            [luma, (1, 1), (1, 1)] => matches!(luma, (1 | 2, 1 | 2)),
            _ => false,
        };
        let ids: Vec<_> = frame.components.iter().map(|one| one.id).collect();
        let distinct = ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id));
        // The edges of coarse components weigh most where there is little else: up to 10 levels off, measured.
        let small = frame.width.min(frame.height) < 16 && most != (1, 1);
        // The fast decoder goes by these names where a JFIF segment says otherwise.
        let named = ids == b"RGB";
        self.unusual |= !usual || !distinct || small || named;
        self.known = vec![[None; 64]; frame.components.len()];
        self.frame = Some(frame);
    }

    fn start_of_scan(&mut self, body: &[u8]) {
        self.scans += 1;
        if self.scans > MOST_SCANS {
            return self.refuse(Refusal::Damaged("the image has more than 1000 scans"));
        }
        let Some(frame) = &self.frame else {
            return self.refuse(Refusal::Damaged("a scan begins before the frame"));
        };
        let scan = match ScanHead::read(body, frame) {
            Ok(scan) => scan,
            Err(damage) => return self.refuse(Refusal::Damaged(damage)),
        };
        if self.scans == 1 {
            self.colours = Some(colours(frame, self.jfif, self.adobe));
            let all_in_order = scan.parts.iter().map(|part| part.component).eq(0..frame.components.len());
            let has_codes = |part: &ScanPart| {
                let (mean, others) = (usize::from(part.mean_table), usize::from(part.others_table));
                self.codes[0][mean] && (frame.progressive || self.codes[1][others])
            };
            let usual_colours = match frame.components.len() {
                1 => true,
                // Where both segments or neither are there, decoders differ in what they go by.
                3 => self.colours == Some(Colours::Differences) && self.adobe.is_none_or(|transform| transform == 1),
                _ => false,
            };
            self.unusual |= !all_in_order || !scan.parts.iter().all(has_codes) || !usual_colours;
        } else if !frame.progressive {
            self.unusual = true;
        }
        if frame.progressive {
            for part in &scan.parts {
                for known in &mut self.known[part.component][usize::from(scan.first)..=usize::from(scan.last)] {
                    // A scan out of order is read by libjpeg with a warning.
                    self.unusual |= *known != if scan.seen_bits > 0 { Some(scan.seen_bits) } else { None };
                    *known = Some(scan.shift);
                }
            }
        }
    }

    /// What can be said when all scans were seen.
    fn check_end(&mut self) {
        let Some(frame) = &self.frame else { return };
        if !frame.progressive || self.refusal.is_some() {
            return;
        }
        if self.known.iter().any(|known| known[..SMOOTHED].iter().any(|lowest| *lowest != Some(0))) {
            let found = "a progressive JPEG whose scans leave out bits of its coefficients";
            self.refuse(Refusal::Form(found.to_owned()));
        }
    }
}

/// The first byte of every table of a segment of tables.
fn for_each_table(marker: u8, mut body: &[u8], mut seen: impl FnMut(u8)) {
    while let [head, rest @ ..] = body {
        seen(*head);
        let bytes = match marker {
            0xc4 => 16 + rest.iter().take(16).map(|count| usize::from(*count)).sum::<usize>(),
            0xdb => 64 << usize::from(head >> 4 != 0),
            _ => 1,
        };
        body = rest.get(bytes..).unwrap_or_default();
    }
}

/// What the components are, as libjpeg goes by the segments and, without them, by the names of the components.
fn colours(frame: &Frame, jfif: bool, adobe: Option<u8>) -> Colours {
    let ids: Vec<u8> = frame.components.iter().map(|one| one.id).collect();
    match (ids.as_slice(), adobe) {
        ([_], _) => Colours::Grey,
        ([_, _, _], Some(0)) if !jfif => Colours::Rgb,
        (b"RGB", None) if !jfif => Colours::Rgb,
        ([_, _, _], _) => Colours::Differences,
        (_, None | Some(0)) => Colours::Inks,
        _ => Colours::InksAsDifferences,
    }
}

/// No header is longer: profiles and metadata of usual files have at most some megabytes.
const MOST_HEAD: u64 = 32 << 20;

/// The beginning of a JPEG, up to the coded data of its first scan.
pub(crate) struct Shape {
    /// The bytes.
    pub(crate) head: Vec<u8>,
    /// Coefficients of the whole image in whole blocks, where its scans are not each a part of it.
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
    let mut head = Vec::new();
    source.take(2).read_to_end(&mut head)?;
    'markers: loop {
        let room = MOST_HEAD.saturating_sub(head.len() as u64);
        source.take(room).read_until(0xff, &mut head)?;
        // Fill bytes may stand before the one that names the marker.
        let mut marker = 0xff;
        while marker == 0xff {
            match source.take(u64::from(room > 0)).read_to_end(&mut head)? {
                1 if head.len() as u64 <= MOST_HEAD => marker = head[head.len() - 1],
                _ => break 'markers,
            }
        }
        if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8) {
            continue;
        }
        let start = head.len();
        source.take(2).read_to_end(&mut head)?;
        let [high, low] = head[start..] else { break };
        let length = u64::from(u16::from_be_bytes([high, low])).saturating_sub(2);
        source.take(length).read_to_end(&mut head)?;
        if marker == 0xda {
            break;
        }
    }
    let walk = Walk::new(&head);
    let (mut coefficients, mut width) = (0, 0);
    if let Some(frame) = &walk.frame {
        width = frame.units().0 as u64 * 8 * u64::from(frame.most().0);
        coefficients = if frame.progressive { frame.samples() } else { 0 };
    }
    Ok(Shape { head, coefficients, width })
}

#[cfg(test)]
mod tests {
    use super::Walk;

    #[test]
    fn the_end_marker_is_looked_for_outside_of_segments() {
        let whole = b"\xff\xd8\xff\xe0\x00\x04\xff\xd9\xff\xda\x00\x02\x12\xff\x00\xff\xd0\x34\xff\xff\xd9";
        assert!(Walk::new(whole).ends);
        for cut in 0..whole.len() {
            assert!(!Walk::new(&whole[..cut]).ends, "cut at {cut}");
        }
        assert!(!Walk::new(b"GIF89a").ends);
    }
}
