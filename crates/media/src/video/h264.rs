//! H.264 images of a track by their place: where decoding begins, what is skipped, which image came out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rust_h264::decoder::{ChromaFormat, Decoder, Frame};
use rust_h264::error::DecodeError;
use rust_h264::nal::{NalUnit, NalUnitType, SpsInfo, parse_avcc, parse_avcc_config, parse_sps_info};

use crate::error::MediaError;
use crate::image::rgb::RgbImage;
use crate::video::packets::{Shown, ShownImages, VideoEstimate, VideoTrack};
use crate::video::yuv::{Colour, Converter, Matrix, Planes, Sampling};

/// Decoded images that wait for their turn; a video that reorders more is decoded again from its key frame.
const MAX_WAITING: usize = 8;

/// The largest image of level 6.2, the highest there is.
const MAX_PIXELS: u64 = 139_264 * 256;

/// How far back decoding has to begin for an image and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Here: an IDR image, or an intra image that announces itself as a point of recovery.
    Here,
    /// Here for this image alone: it is intra, but what follows may refer to what came before.
    Alone,
    /// Further back.
    Before,
}

/// Stands for a packet that is not shown.
const HIDDEN: usize = usize::MAX;

/// The images of an H.264 track.
///
/// Held between two calls: the decoder with its reference images, and at most [`MAX_WAITING`] decoded ones.
pub(crate) struct H264 {
    track: VideoTrack,
    shown: Shown,
    /// Place of each packet in the order of its time, before edit lists: [`HIDDEN`] where it is not shown.
    places: Vec<usize>,
    /// The packet from which on images come out whole in a track that does not begin with an IDR image.
    whole_from: usize,
    /// What the first packet refers to in a track that begins with no image of its own.
    before: Option<Grey>,
    /// Whether decoding can begin at a packet, as far as it was asked.
    whole: BTreeMap<usize, Start>,
    /// Bytes of a length before each unit.
    length_bytes: usize,
    /// Of the first parameter set: what all images must be like.
    info: SpsInfo,
    colour: Colour,
    converter: Converter,
    run: Option<Run>,
    /// Images decoded before they were asked for, by place.
    waiting: BTreeMap<usize, Frame>,
    /// Packets given to the decoder so far.
    decoded: usize,
}

/// Decoding under way.
struct Run {
    decoder: Decoder,
    /// The packet it began at.
    first: usize,
    /// Whether only the image it began at is sure to be whole.
    alone: bool,
    /// The next packet to decode.
    next: usize,
    /// Packets whose image has not come out yet: more than one where each field has its own.
    inside: Vec<usize>,
}

impl H264 {
    pub(crate) fn open(mut track: VideoTrack) -> Result<Self, MediaError> {
        let config = parse_avcc_config(&track.config).map_err(|words| track.corrupt(words))?;
        let length_bytes = config.length_size;
        let Some(set) = config.sps_nals.first() else {
            return Err(track.corrupt("it has no sequence parameter set"));
        };
        let info = sequence(&track, set)?;
        let (matrix, full_range) = match track.colour {
            // 2 stands for unspecified; the flag of the range has no such value.
            Some(container) if info.matrix == 2 => (container.matrix, info.full_range || container.full_range),
            _ => (info.matrix, info.full_range),
        };
        let Some(matrix) = Matrix::from_code(matrix).filter(|matrix| *matrix != Matrix::Identity) else {
            return Err(track.unsupported(format!("found H.264 with colour matrix {matrix}")));
        };
        let (across, down) = Colour::sites(info.chroma_location);
        let colour = Colour { matrix, full_range, across, down };
        let sets = Sets::of(&config.sps_nals, &config.pps_nals);
        let whole_from = hide_unrecovered(&mut track, length_bytes, &sets)?;
        let before = grey_before(&mut track, length_bytes, &sets, &info)?;
        let shown = track.shown()?;
        // A container that marks no sync sample is not believed: the packets say it themselves.
        if !track.packets.iter().any(|packet| packet.sync) {
            track.packets.iter_mut().for_each(|packet| packet.sync = true);
        }
        let mut places = vec![HIDDEN; track.packets.len()];
        let mut order = shown.packets.clone();
        order.sort_by_key(|at| (track.packets[*at].pts, *at));
        order.dedup();
        for (place, packet) in order.into_iter().enumerate() {
            places[packet] = place;
        }
        let (run, waiting, converter) = (None, BTreeMap::new(), Converter::default());
        let whole = BTreeMap::new();
        Ok(Self {
            track,
            shown,
            places,
            whole_from,
            before,
            whole,
            length_bytes,
            info,
            colour,
            converter,
            run,
            waiting,
            decoded: 0,
        })
    }

    /// The last packet at or before `wanted` where decoding can begin such that `wanted` comes out whole, else the first
    /// one of the track.
    fn beginning(&mut self, wanted: usize) -> Result<usize, MediaError> {
        let pts = self.track.packets[wanted].pts;
        for at in (0..=wanted).rev() {
            let packet = &self.track.packets[at];
            // An image shown before the key frame it follows was coded with what came before that.
            if packet.sync && packet.pts <= pts {
                match self.start_at(at)? {
                    Start::Here => return Ok(at),
                    // A run that is under way is not given up for one image.
                    Start::Alone if at == wanted && self.run.as_ref().is_none_or(|run| run.alone) => return Ok(at),
                    _ => {}
                }
            }
        }
        Ok(0)
    }

    /// Whether the images shown after a packet that the container calls a key frame need nothing before it.
    fn start_at(&mut self, at: usize) -> Result<Start, MediaError> {
        if let Some(found) = self.whole.get(&at) {
            return Ok(*found);
        }
        let bytes = self.track.data.read(at)?;
        let units = units(&self.track, &bytes, self.length_bytes, at)?;
        let kind = Kind::of(&units);
        let start = match kind {
            Kind { idr: true, .. } => Start::Here,
            Kind { intra: true, recovers: Some(0), .. } => Start::Here,
            Kind { intra: true, .. } => Start::Alone,
            _ => Start::Before,
        };
        self.whole.insert(at, start);
        Ok(start)
    }

    /// Decodes until the image of `wanted` is there.
    fn decode_to(&mut self, wanted: usize, place: usize) -> Result<Frame, MediaError> {
        let beginning = self.beginning(wanted)?;
        let goes_on = self.run.as_ref().is_some_and(|run| {
            beginning <= run.next && run.first <= beginning && (wanted >= run.next || run.inside.contains(&wanted))
        });
        if !goes_on {
            self.waiting.clear();
            self.run = None;
            let mut decoder = Decoder::new();
            let config = parse_avcc_config(&self.track.config).map_err(|words| self.track.corrupt(words))?;
            for set in config.sps_nals.iter().chain(&config.pps_nals) {
                decoder.decode_nal(set).map_err(|error| decode_failed(&self.track, error))?;
            }
            if let Some(grey) = self.before.as_ref().filter(|_| beginning == 0) {
                for unit in [&grey.set, &grey.slice] {
                    decoder.decode_nal(unit).map_err(|error| decode_failed(&self.track, error))?;
                }
                // It stays among the references and is not shown.
                decoder.flush();
            }
            let alone = self.whole.get(&beginning) == Some(&Start::Alone);
            self.run = Some(Run { decoder, first: beginning, alone, next: beginning, inside: Vec::new() });
        }
        loop {
            if let Some(frame) = self.waiting.remove(&place) {
                return Ok(frame);
            }
            let mut run = self.run.take().expect("a run was begun above");
            // Past the wanted image and one more, nothing of it is left to come.
            if run.next > wanted + 2 && !run.inside.contains(&wanted) {
                return Err(self
                    .track
                    .corrupt(format!("the image at {:.3} s cannot be decoded", self.track.start_s(wanted))));
            }
            self.step(&mut run, wanted, place)?;
            self.run = Some(run);
        }
    }

    /// One packet, or the end of the video.
    fn step(&mut self, run: &mut Run, wanted: usize, place: usize) -> Result<(), MediaError> {
        let at = run.next;
        run.next += 1;
        if at >= self.track.packets.len() {
            let frame = guarded(&self.track, || Ok(run.decoder.flush()))?;
            if let Some(frame) = frame {
                self.came_out(run, frame, place)?;
            }
            run.inside.clear();
            return Ok(());
        }
        let bytes = self.track.data.read(at)?;
        let units = units(&self.track, &bytes, self.length_bytes, at)?;
        let slice = |unit: &&NalUnit<'_>| matches!(unit.nal_unit_type, NalUnitType::Slice | NalUnitType::SliceIdr);
        // An image that no other one refers to leaves nothing behind in the decoder. Fields may come in packets of
        // their own, one referring to the other, so videos with fields are decoded whole.
        let unused = self.info.progressive
            && at != wanted
            && units.iter().filter(slice).all(|unit| unit.nal_ref_idc == 0)
            && !units.iter().any(|unit| matches!(unit.nal_unit_type, NalUnitType::Sps | NalUnitType::Pps));
        if unused {
            return Ok(());
        }
        // Images before the key frame in the order of showing refer to what was not decoded. They are decoded all the
        // same, because they take their part in the order of reference images, and never shown from here.
        // So are those of a track that was cut before it has recovered.
        let first = &self.track.packets[run.first];
        let broken = self.track.packets[at].pts < first.pts || (run.first < self.whole_from && at < self.whole_from);
        self.decoded += 1;
        for unit in &units {
            if unit.nal_unit_type == NalUnitType::Sps {
                let info = sequence(&self.track, unit)?;
                let (old, new) = ((self.info.width, self.info.height), (info.width, info.height));
                if old != new {
                    return Err(size_changed(&self.track, old, new));
                }
            }
            let frame = match guarded(&self.track, || Ok(run.decoder.decode_nal(unit)))? {
                Ok(frame) => frame,
                Err(_) if broken => None,
                Err(error) => return Err(decode_failed(&self.track, error)),
            };
            if let Some(frame) = frame {
                self.came_out(run, frame, place)?;
            }
        }
        run.inside.push(at);
        if self.info.progressive {
            let frame = guarded(&self.track, || Ok(run.decoder.flush()))?;
            if let Some(frame) = frame {
                self.came_out(run, frame, place)?;
            }
            run.inside.clear();
        }
        Ok(())
    }

    /// Keeps an image for the packets that it came from, if they are still to be shown.
    fn came_out(&mut self, run: &mut Run, frame: Frame, place: usize) -> Result<(), MediaError> {
        let (found, expected) = ((frame.width, frame.height), (self.info.width, self.info.height));
        if found != expected {
            return Err(size_changed(&self.track, expected, found));
        }
        let first_pts = self.track.packets[run.first].pts;
        let mut to: Vec<usize> = std::mem::take(&mut run.inside)
            .into_iter()
            .filter(|at| self.track.packets[*at].pts >= first_pts)
            .map(|at| self.places[at])
            .filter(|at| *at != HIDDEN && *at >= place)
            .collect();
        if let Some(last) = to.pop() {
            for at in to {
                self.waiting.insert(at, frame.clone());
            }
            self.waiting.insert(last, frame);
        }
        while self.waiting.len() > MAX_WAITING {
            self.waiting.pop_last();
        }
        Ok(())
    }

    fn convert(&mut self, frame: &Frame) -> RgbImage {
        let sampling = match frame.chroma_format {
            ChromaFormat::Yuv420 => Sampling::S420,
            ChromaFormat::Yuv422 => Sampling::S422,
        };
        let (width, height) = (frame.width, frame.height);
        let (y_stride, c_stride) = (width as usize, frame.chroma_width() as usize);
        let (colour, depth) = (self.colour, u32::from(frame.bit_depth));
        if frame.bit_depth == 8 {
            let (y, u, v) = (&frame.y[..], &frame.u[..], &frame.v[..]);
            self.converter.rgb(&Planes { width, height, y, u, v, y_stride, c_stride, sampling, depth, colour })
        } else {
            let wide = |plane: &[u8]| -> Vec<u16> {
                plane.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
            };
            let (y, u, v) = (&wide(&frame.y)[..], &wide(&frame.u)[..], &wide(&frame.v)[..]);
            self.converter.rgb(&Planes { width, height, y, u, v, y_stride, c_stride, sampling, depth, colour })
        }
    }

    /// The decoded planes at a place, before colours and turns.
    fn planes(&mut self, place: usize) -> Result<Frame, MediaError> {
        let wanted = self.shown.packets[place];
        let place = self.places[wanted];
        // What lies before this place is not asked for again, or is decoded again where an edit list repeats it.
        self.waiting = self.waiting.split_off(&place);
        if let Some(frame) = self.waiting.remove(&place) {
            return Ok(frame);
        }
        self.decode_to(wanted, place)
    }
}

impl ShownImages for H264 {
    /// # Source
    /// rust_h264 0.6.0, `decoder.rs` (`PictureState`) and `dpb.rs` (`DecodedPicture`).
    fn estimate(&self) -> Result<VideoEstimate, MediaError> {
        let info = &self.info;
        let coded = u64::from(info.coded_width) * u64::from(info.coded_height);
        let blocks = coded / 256;
        let depth = if info.bit_depth_luma == 8 { 1 } else { 2 };
        let planes = coded * depth * 2 - if info.chroma_format == 1 { coded * depth / 2 } else { 0 };
        // A reference keeps its motion: 18 bytes for each 4 x 4 samples. Fields are kept as views of both kinds.
        let kept = (planes + 288 * blocks) * if info.progressive { 1 } else { 2 };
        let references = u64::from(info.reference_frames.clamp(1, 16)) + 1;
        // Images that overtake others wait for them.
        let waiting = info.max_reorder_frames.map_or(4, u64::from).min(MAX_WAITING as u64) + 1;
        let held = self.track.table_bytes() + references * kept + waiting * planes + (1 << 20);
        // The image under way, once more where it has several slices, and its copies for reference and result.
        let under_way = 2 * (planes + 900 * blocks) + 2 * planes;
        // The bytes of a packet, and its units without the bytes that mark them.
        let packet = 3 * self.track.data.longest();
        let image = 3 * u64::from(info.width) * u64::from(info.height);
        let turned = if self.track.quarter_turns != 0 || self.track.mirrored { image } else { 0 };
        let wide = if depth == 2 { planes } else { 0 };
        let decoding = held + (under_way + packet).max(planes + wide + image + turned);
        let (width, height) = self.track.upright_sides(info.width, info.height);
        let opening = self.track.opening + 2 * self.track.table_bytes();
        Ok(VideoEstimate { width, height, opening, held, decoding })
    }

    fn starts_s(&self) -> &[f64] {
        &self.shown.starts_s
    }

    fn end_s(&self) -> f64 {
        self.shown.end_s
    }

    fn decoded(&self) -> Option<usize> {
        Some(self.decoded)
    }

    fn image(&mut self, place: usize) -> Result<RgbImage, MediaError> {
        let frame = self.planes(place)?;
        let image = self.convert(&frame);
        Ok(self.track.upright(image))
    }
}

/// The units of a packet, whose lengths must fill it.
fn units<'a>(
    track: &VideoTrack,
    bytes: &'a [u8],
    length_bytes: usize,
    at: usize,
) -> Result<Vec<NalUnit<'a>>, MediaError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = rest.get(..length_bytes);
        let length = length.map(|bytes| bytes.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)));
        match length.and_then(|length| rest.get(length_bytes + length..)) {
            Some(after) => rest = after,
            None => return Err(track.corrupt(format!("the units of image {} do not fill it", at + 1))),
        }
    }
    Ok(parse_avcc(bytes, length_bytes))
}

/// What the units of a packet say of where decoding can begin.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    idr: bool,
    /// Every slice is intra.
    intra: bool,
    /// `recovery_frame_cnt` of a recovery point message.
    recovers: Option<u32>,
    /// Another image may refer to it.
    reference: bool,
}

impl Kind {
    fn of(units: &[NalUnit<'_>]) -> Self {
        let mut kind = Self::default();
        let mut slices = 0;
        for unit in units {
            match unit.nal_unit_type {
                NalUnitType::SliceIdr => (kind.idr, kind.reference) = (true, true),
                NalUnitType::Sei => kind.recovers = kind.recovers.or(recovery_frames(&unit.rbsp)),
                NalUnitType::Slice => {
                    // Slices of type I are 2 and 7, and SI is not decoded; the first slice number comes before the type.
                    let mut bits = Bits::new(&unit.rbsp);
                    let intra = bits.ue().and_then(|_| bits.ue()).is_some_and(|kind| kind % 5 == 2);
                    kind.intra = intra && (slices == 0 || kind.intra);
                    kind.reference |= unit.nal_ref_idc != 0;
                    slices += 1;
                }
                _ => {}
            }
        }
        kind
    }
}

/// A grey image and the parameter set that it is coded with.
///
/// A track that was cut inside an intra refresh begins with images that refer to what is not there. FFmpeg lets them refer
/// to grey, until the refresh has gone over the whole image; what had recovered by then refers to nothing else. The decoder
/// here refuses images without references, so it is given one before them. It fills the numbers between the two with copies.
struct Grey {
    set: NalUnit<'static>,
    slice: NalUnit<'static>,
}

/// The grey image before a track that begins neither with an IDR image nor with an intra image.
///
/// # Errors
/// [`MediaError::UnsupportedCodec`] for fields and for the order of images of type 1, which are not written here.
fn grey_before(
    track: &mut VideoTrack,
    length_bytes: usize,
    sets: &Sets,
    info: &SpsInfo,
) -> Result<Option<Grey>, MediaError> {
    let bytes = track.data.read(0)?;
    let first = units(track, &bytes, length_bytes, 0)?;
    let kind = Kind::of(&first);
    let number = sets.frame_num(&first);
    let (false, false, Some((number, order))) = (kind.idr, kind.intra, number) else {
        return Ok(None);
    };
    if !info.progressive || sets.order_type == 1 {
        return Err(track.unsupported("found H.264 that was cut inside an intra refresh of interlaced images"));
    }
    // With these, images came out that were not FFmpeg's to the bit.
    if !track.packets.is_sorted_by_key(|packet| packet.pts) {
        return Err(track.unsupported("found H.264 with B images that was cut inside an intra refresh"));
    }
    let (count, wrap) = (sets.max_references, 1u32 << sets.frame_num_bits);
    const SET: u32 = 255;
    // ITU-T H.264, 7.3.2.2: CAVLC, one slice group, one reference, no weights, the filter may be switched off.
    let mut set = Writer::default();
    set.ue(SET);
    set.ue(sets.id);
    set.bits(0, 2);
    set.ue(0);
    set.ue(0);
    set.ue(0);
    set.bits(0, 3);
    set.ue(0);
    set.ue(0);
    set.ue(0);
    set.bits(0b100, 3);
    // 7.3.3: an intra slice of the whole frame, as many images before the first one as there can be references.
    let mut slice = Writer::default();
    slice.ue(0);
    slice.ue(7);
    slice.ue(SET);
    slice.bits(number.wrapping_sub(count) % wrap, sets.frame_num_bits);
    if sets.order_type == 0 {
        let wrap = 1u32 << sets.order_bits;
        let earlier = (2 * (count + 8)).min(wrap / 2 - 2);
        slice.bits(order.wrapping_sub(earlier) % wrap, sets.order_bits);
    }
    slice.bits(0, 1);
    slice.ue(0);
    slice.ue(1);
    let blocks = u64::from(info.coded_width / 16) * u64::from(info.coded_height / 16);
    for _ in 0..blocks {
        // Intra 16 x 16 from the mean of what is beside it, which is mid-grey where nothing is; no residual.
        slice.ue(3);
        slice.ue(0);
        slice.ue(0);
        slice.bits(1, 1);
    }
    let unit =
        |nal_unit_type, writer: Writer| NalUnit { nal_ref_idc: 1, nal_unit_type, rbsp: Cow::Owned(writer.finish()) };
    Ok(Some(Grey { set: unit(NalUnitType::Pps, set), slice: unit(NalUnitType::Slice, slice) }))
}

/// Bits into bytes.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    used: u32,
}

impl Writer {
    fn bits(&mut self, value: u32, count: u32) {
        for at in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> at & 1) as u8) << (7 - self.used % 8);
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// An Exp-Golomb number.
    fn ue(&mut self, value: u32) {
        let length = 32 - (value + 1).leading_zeros();
        self.bits(0, length - 1);
        self.bits(value + 1, length);
    }

    /// With the stop bit.
    fn finish(mut self) -> Vec<u8> {
        self.bits(1, 1);
        self.bytes
    }
}

/// What is needed of parameter sets beside [`SpsInfo`].
struct Sets {
    /// The number of the sequence parameter set.
    id: u32,
    /// How the order of showing is coded, and the bits that it takes where that is type 0.
    order_type: u32,
    order_bits: u32,
    /// Whether a slice may be a field.
    fields: bool,
    /// Bits of `frame_num`.
    frame_num_bits: u32,
    /// Whether each colour plane is an image of its own.
    separate: bool,
    max_references: u32,
    /// The most references that an image parameter set activates in each list.
    references: [u32; 2],
}

impl Sets {
    fn of(sequences: &[NalUnit<'_>], images: &[NalUnit<'_>]) -> Self {
        let mut sets = Self {
            id: 0,
            order_type: 0,
            order_bits: 4,
            fields: false,
            frame_num_bits: 4,
            separate: false,
            max_references: 1,
            references: [1, 1],
        };
        if let Some(set) = sequences.first() {
            sets.sequence(&set.rbsp);
        }
        for set in images {
            sets.image(&set.rbsp);
        }
        sets
    }

    /// # Source
    /// ITU-T H.264, 7.3.2.1.1.
    fn sequence(&mut self, body: &[u8]) -> Option<()> {
        let profile = *body.first()?;
        let mut bits = Bits::new(body.get(3..)?);
        self.id = bits.ue()?.min(31);
        if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            let chroma = bits.ue()?;
            if chroma == 3 {
                self.separate = bits.bit()? == 1;
            }
            bits.ue()?;
            bits.ue()?;
            bits.bit()?;
            if bits.bit()? == 1 {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.bit()? == 0 {
                        continue;
                    }
                    let (mut last, mut next) = (8i64, 8i64);
                    for _ in 0..if list < 6 { 16 } else { 64 } {
                        if next != 0 {
                            next = (last + bits.se()? + 256).rem_euclid(256);
                        }
                        last = if next == 0 { last } else { next };
                    }
                }
            }
        }
        self.frame_num_bits = bits.ue()?.min(12) + 4;
        self.order_type = bits.ue()?;
        match self.order_type {
            0 => self.order_bits = bits.ue()?.min(12) + 4,
            1 => {
                bits.bit()?;
                bits.se()?;
                bits.se()?;
                for _ in 0..bits.ue()?.min(255) {
                    bits.se()?;
                }
            }
            _ => {}
        }
        self.max_references = bits.ue()?.clamp(1, 16);
        bits.bit()?;
        bits.ue()?;
        bits.ue()?;
        self.fields = bits.bit()? == 0;
        Some(())
    }

    /// # Source
    /// ITU-T H.264, 7.3.2.2.
    fn image(&mut self, body: &[u8]) -> Option<()> {
        let mut bits = Bits::new(body);
        bits.ue()?;
        bits.ue()?;
        bits.bit()?;
        bits.bit()?;
        if bits.ue()? > 0 {
            // Slice groups, which are refused by the decoder.
            return None;
        }
        for most in &mut self.references {
            *most = (*most).max(bits.ue()?.saturating_add(1));
        }
        Some(())
    }

    /// `frame_num` of a packet's first slice, and `pic_order_cnt_lsb` (0 where there is none).
    fn frame_num(&self, units: &[NalUnit<'_>]) -> Option<(u32, u32)> {
        let slice = |unit: &&NalUnit<'_>| matches!(unit.nal_unit_type, NalUnitType::Slice | NalUnitType::SliceIdr);
        let unit = units.iter().find(slice)?;
        let mut bits = Bits::new(&unit.rbsp);
        bits.ue()?;
        bits.ue()?;
        bits.ue()?;
        if self.separate {
            bits.bit()?;
            bits.bit()?;
        }
        let number = bits.take(self.frame_num_bits)?;
        if self.fields && bits.bit()? == 1 {
            bits.bit()?;
        }
        if unit.nal_unit_type == NalUnitType::SliceIdr {
            bits.ue()?;
        }
        let order = if self.order_type == 0 { bits.take(self.order_bits)? } else { 0 };
        Some((number, order))
    }
}

/// Hides what cannot be decoded at the beginning of a track that was cut, and gives the first packet that can.
///
/// A track that begins with an IDR image, as nearly all do, is read no further. Else images are shown from the first one
/// that has recovered: an IDR image, the end of a recovery that a message announced (at once for an intra image in an open
/// group, later where intra refresh heals the image column by column), or an intra image that so few others may
/// overtake that it must be a point of access. Those shown before it were coded with what is not there.
///
/// # Source
/// FFmpeg's H.264 decoder, which leaves out the same images (`recovered` in h264_picture, h264_slice and h264_refs).
/// # Errors
/// [`MediaError::Corrupt`] if nothing recovers.
fn hide_unrecovered(track: &mut VideoTrack, length_bytes: usize, sets: &Sets) -> Result<usize, MediaError> {
    let wrap = 1u32 << sets.frame_num_bits;
    let mut target = None;
    let (mut announced, mut valid) = (false, false);
    let mut references = 0;
    let mut found = None;
    let mut idr = false;
    for at in 0..track.packets.len() {
        let bytes = track.data.read(at)?;
        let units = units(track, &bytes, length_bytes, at)?;
        let kind = Kind::of(&units);
        let number = sets.frame_num(&units);
        if kind.idr {
            (found, idr) = (Some(at), true);
            break;
        }
        let Some((number, _)) = number else { continue };
        if let Some(count) = kind.recovers {
            announced = true;
            // Some versions of x264 wrote the number of the image in place of the count.
            valid |= number != count || !kind.intra;
            let ahead = |target: u32| target.wrapping_sub(number) % wrap;
            if target.is_none_or(|target| ahead(target) > count) {
                target = Some(if valid { number.wrapping_add(count) % wrap } else { number });
            }
        }
        if target == Some(number) && kind.reference {
            found = Some(at);
            break;
        }
        references = (references + u32::from(kind.reference)).min(sets.max_references);
        let [forward, backward] = sets.references;
        let few = references <= 2 || (forward <= 2 && backward <= 1);
        if kind.intra && few && forward <= if announced { 2 } else { 4 } {
            found = Some(at);
            break;
        }
    }
    let Some(found) = found else {
        return Err(track.corrupt("it has no key frame, so no image can be decoded"));
    };
    let first = track.packets[found].pts;
    for packet in &mut track.packets[..found] {
        packet.shown &= packet.pts > first;
    }
    // Those that were stored behind it and are shown before it follow it at once; behind an IDR image there are none.
    let mut last = found;
    while !idr && track.packets.get(last + 1).is_some_and(|packet| packet.pts < first) {
        last += 1;
        track.packets[last].shown = false;
    }
    let packets = &track.packets;
    track.again.retain(|again| packets[again.packet].shown);
    Ok(found)
}

/// What a sequence parameter set says, if this can be decoded.
fn sequence(track: &VideoTrack, set: &NalUnit<'_>) -> Result<SpsInfo, MediaError> {
    let info = parse_sps_info(set).map_err(|error| decode_failed(track, error))?;
    if info.chroma_format == 3 || !matches!((info.bit_depth_luma, info.bit_depth_chroma), (8, 8) | (10, 10)) {
        let profile = match info.profile {
            44 => "CAVLC 4:4:4 Intra",
            66 => "Baseline",
            77 => "Main",
            88 => "Extended",
            100 => "High",
            110 => "High 10",
            122 => "High 4:2:2",
            244 => "High 4:4:4 Predictive",
            _ => "an unknown profile",
        };
        let chroma = ["4:0:0", "4:2:0", "4:2:2", "4:4:4"].get(info.chroma_format as usize).unwrap_or(&"unknown");
        return Err(track.unsupported(format!(
            "found H.264 in {profile}, chroma {chroma}, {} bits; 4:2:0 and 4:2:2 with 8 or 10 bits are read",
            info.bit_depth_luma
        )));
    }
    if info.width == 0 || info.height == 0 {
        return Err(track.corrupt("its images have no pixels"));
    }
    if u64::from(info.coded_width) * u64::from(info.coded_height) > MAX_PIXELS {
        let (name, limit) = (track.label.name.clone(), MAX_PIXELS);
        return Err(MediaError::TooManyPixels { name, width: info.coded_width, height: info.coded_height, limit });
    }
    Ok(info)
}

fn size_changed(track: &VideoTrack, old: (u32, u32), new: (u32, u32)) -> MediaError {
    track.unsupported(format!(
        "found images of {} x {} pixels and then of {} x {}, expected one size",
        old.0, old.1, new.0, new.1
    ))
}

fn decode_failed(track: &VideoTrack, error: DecodeError) -> MediaError {
    match error {
        DecodeError::Unsupported(what) => track.unsupported(format!("found H.264 with {what}")),
        error => track.corrupt(error),
    }
}

/// No input is known to make the decoder panic, but it is large and not ours. It is dropped after a panic.
fn guarded<T>(track: &VideoTrack, decode: impl FnOnce() -> Result<T, MediaError>) -> Result<T, MediaError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(track.corrupt("the H.264 decoder gave up on it")))
}

/// `recovery_frame_cnt` of a recovery point message, if there is one.
fn recovery_frames(message: &[u8]) -> Option<u32> {
    let mut rest = message;
    // The last byte holds the stop bit.
    while rest.len() > 2 {
        let mut number = || -> Option<usize> {
            let mut sum = 0;
            loop {
                let (byte, after) = rest.split_first()?;
                rest = after;
                sum += usize::from(*byte);
                if *byte != 255 {
                    return Some(sum);
                }
            }
        };
        let kind = number()?;
        let size = number()?;
        if kind == 6 {
            return Bits::new(rest.get(..size)?).ue();
        }
        rest = rest.get(size..)?;
    }
    None
}

/// Bits of a unit from its beginning.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(u32::from(bit))
    }

    /// So many bits as a number.
    fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |sum, _| Some(sum << 1 | self.bit()?))
    }

    /// An Exp-Golomb number.
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let mut value = 1u64;
        for _ in 0..zeros {
            value = value << 1 | u64::from(self.bit()?);
        }
        u32::try_from(value - 1).ok()
    }

    /// A signed Exp-Golomb number.
    fn se(&mut self) -> Option<i64> {
        let value = i64::from(self.ue()?);
        Some(if value % 2 == 1 { value / 2 + 1 } else { -(value / 2) })
    }
}
