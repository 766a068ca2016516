//! What a container says of its video track, whatever the container and the codec.

use std::fmt;

use image::metadata::Orientation;

use crate::error::{Cause, MediaError};
use crate::image::exif;
use crate::image::rgb::RgbImage;
use crate::label::Label;
use crate::source::Source;

/// Codec of a video track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    H264,
    Av1,
    Hevc,
    Vp9,
    Vp8,
    /// Any other, by the name that messages call it.
    Other(String),
}

/// One coded image, in decode order in its track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Packet {
    /// When it begins to be shown, on the track's own clock and before any edit list: the order of showing.
    pub pts: i64,
    /// When it begins to be shown, in ticks of the track on the video's clock (edit list applied).
    pub start: i64,
    /// How long it is shown, in ticks.
    pub duration: i64,
    /// Whether decoding can begin here.
    pub sync: bool,
    /// Whether it is shown at all; what an edit list cuts off is decoded and not shown.
    pub shown: bool,
}

/// One more time that a packet is shown, where an edit list repeats a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Again {
    /// Its place in decode order.
    pub packet: usize,
    /// When it begins to be shown, as [`Packet::start`].
    pub start: i64,
}

/// Gives the bytes of packets.
pub(crate) trait PacketData: Send {
    /// Bytes of the longest packet.
    fn longest(&self) -> u64;

    /// The bytes of a packet by its place in decode order.
    fn read(&mut self, index: usize) -> Result<Vec<u8>, MediaError>;
}

/// Packets that lie in the video as one run of bytes each, all behind the same few bytes (none in most videos).
#[derive(Debug)]
pub(crate) struct Placed {
    pub source: Source,
    /// Offset and length.
    pub places: Vec<(u64, u32)>,
    /// What the container took off the beginning of every packet.
    pub stripped: Vec<u8>,
}

impl PacketData for Placed {
    fn longest(&self) -> u64 {
        let longest = self.places.iter().map(|(_, len)| u64::from(*len)).max().unwrap_or(0);
        longest + self.stripped.len() as u64
    }

    fn read(&mut self, index: usize) -> Result<Vec<u8>, MediaError> {
        let (at, len) = self.places[index];
        let bytes = self.source.read_at(at, u64::from(len))?;
        Ok(if self.stripped.is_empty() { bytes } else { [self.stripped.as_slice(), &bytes].concat() })
    }
}

/// A demuxed video track.
pub(crate) struct VideoTrack {
    /// What messages call the video and its container.
    pub label: Label,
    pub codec: Codec,
    /// The track as FFmpeg's `-map` names it.
    pub stream: String,
    /// Configuration of the codec as the container keeps it: the body of `avcC`, `av1C`, `hvcC`, or CodecPrivate.
    pub config: Vec<u8>,
    /// Coded sides as the container says.
    pub width: u32,
    pub height: u32,
    /// Quarter turns clockwise that bring a decoded image upright, 0 to 3.
    pub quarter_turns: u8,
    /// Whether it is mirrored left to right before the turn.
    pub mirrored: bool,
    /// What the container says of the colours; the bitstream's own word goes before it.
    pub colour: Option<TrackColour>,
    /// Ticks a second of the packets' times.
    pub ticks: u64,
    /// Packets in decode order.
    pub packets: Vec<Packet>,
    /// Packets that are shown more than once.
    pub again: Vec<Again>,
    pub data: Box<dyn PacketData>,
    /// Bytes of tables that were in memory while the track was opened, beside what is kept.
    pub opening: u64,
}

/// Colours by the codes of ITU-T H.273.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrackColour {
    /// `matrix_coefficients`.
    pub matrix: u8,
    pub full_range: bool,
}

/// The shown packets of a track in the order they are shown.
///
/// Their clock begins at zero where the first one begins, whatever the container's own clock says by then: the same video
/// is the same numbers wherever it was cut from.
#[derive(Debug)]
pub(crate) struct Shown {
    /// When each begins, ascending from zero.
    pub starts_s: Vec<f64>,
    /// Its place in decode order.
    pub packets: Vec<usize>,
    /// When the last one ends.
    pub end_s: f64,
    /// When the first one begins on the container's clock.
    pub zero_s: f64,
}

impl VideoTrack {
    /// The shown packets in the order they are shown.
    ///
    /// # Numerics
    /// Differences are taken in whole ticks and divided once, so that a video is not moved by a bit where its container
    /// begins late.
    /// # Errors
    /// [`MediaError::Empty`] if none is.
    pub(crate) fn shown(&self) -> Result<Shown, MediaError> {
        let own = self.packets.iter().enumerate().filter(|(_, packet)| packet.shown);
        let mut shown: Vec<(i64, usize)> = own.map(|(at, packet)| (packet.start, at)).collect();
        shown.extend(self.again.iter().map(|again| (again.start, again.packet)));
        shown.sort_by_key(|(start, _)| *start);
        let (Some((first, _)), Some((last, at))) = (shown.first().copied(), shown.last().copied()) else {
            return Err(MediaError::Empty { name: self.label.name.clone(), expected: "frame" });
        };
        let seconds = |ticks: i128| ticks as f64 / self.ticks as f64;
        let since = |start: i64| i128::from(start) - i128::from(first);
        Ok(Shown {
            starts_s: shown.iter().map(|(start, _)| seconds(since(*start))).collect(),
            end_s: seconds(since(last) + i128::from(self.packets[at].duration)),
            zero_s: seconds(i128::from(first)),
            packets: shown.into_iter().map(|(_, at)| at).collect(),
        })
    }

    /// When a packet begins in seconds on the container's clock, for messages.
    pub(crate) fn start_s(&self, packet: usize) -> f64 {
        self.packets[packet].start as f64 / self.ticks as f64
    }

    /// Hides what nothing can be decoded from at the beginning of a track that was cut: packets before the first sync
    /// sample in the order of decoding. A track without a sync sample stays as it is.
    pub(crate) fn hide_before_sync(&mut self) {
        let first = self.packets.iter().position(|packet| packet.sync).unwrap_or(0);
        for packet in &mut self.packets[..first] {
            packet.shown = false;
        }
        self.again.retain(|again| again.packet >= first);
    }

    /// A decoded image turned as the track says.
    pub(crate) fn upright(&self, image: RgbImage) -> RgbImage {
        let orientation = match (self.quarter_turns % 4, self.mirrored) {
            (0, false) => Orientation::NoTransforms,
            (1, false) => Orientation::Rotate90,
            (2, false) => Orientation::Rotate180,
            (3, false) => Orientation::Rotate270,
            (0, true) => Orientation::FlipHorizontal,
            // Mirrored first, then turned; `Rotate90FlipH` is turned first, which is the mirrored turn of the other way.
            (1, true) => Orientation::Rotate270FlipH,
            (2, true) => Orientation::FlipVertical,
            _ => Orientation::Rotate90FlipH,
        };
        exif::upright(image, orientation)
    }

    /// Sides of a decoded image after [`Self::upright`].
    pub(crate) fn upright_sides(&self, width: u32, height: u32) -> (u32, u32) {
        if self.quarter_turns % 2 == 1 { (height, width) } else { (width, height) }
    }

    /// Bytes of its tables: packets, their places in the file and in the order of showing.
    pub(crate) fn table_bytes(&self) -> u64 {
        (size_of::<Packet>() as u64 + 16 + 24) * self.packets.len() as u64
            + (size_of::<Again>() as u64 + 16) * self.again.len() as u64
    }

    /// [`MediaError::Corrupt`] of this video.
    pub(crate) fn corrupt(&self, source: impl Into<Cause>) -> MediaError {
        self.label.corrupt(source)
    }

    /// [`MediaError::UnsupportedCodec`] of this video.
    pub(crate) fn unsupported(&self, detail: impl Into<String>) -> MediaError {
        self.label.unsupported(detail)
    }
}

impl fmt::Debug for VideoTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PictureTrack({}, {:?}, {} packets)", self.label.name, self.codec, self.packets.len())
    }
}

/// Bytes that the images of a video take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VideoEstimate {
    /// Sides of an image as it is given.
    pub width: u32,
    pub height: u32,
    /// At most while the video is opened.
    pub opening: u64,
    /// Held from one image to the next: tables, reference images, a canvas.
    pub held: u64,
    /// At most while an image is decoded, with what is held and the image.
    pub decoding: u64,
}

/// A video's images in the order they are shown, whatever they come from.
pub(crate) trait ShownImages: Send {
    /// Bytes that they take.
    ///
    /// # Errors
    /// As [`ShownImages::picture`], for what the header of a still image shows.
    fn estimate(&self) -> Result<VideoEstimate, MediaError>;

    /// When each image begins to be shown, in seconds, ascending; at least one.
    fn starts_s(&self) -> &[f64];

    /// When the last one ends.
    fn end_s(&self) -> f64;

    /// Coded images decoded so far; `None` where nobody counts.
    fn decoded(&self) -> Option<usize> {
        None
    }

    /// The image at a place of `starts_s`, upright. Asked for in ascending order of places.
    fn image(&mut self, place: usize) -> Result<RgbImage, MediaError>;
}
