//! What a container says of its picture track, whatever the container and the codec.

use std::fmt;

use crate::error::MediaError;
use crate::image::RgbImage;

/// Codec of a picture track.
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

/// One coded picture, in decode order in its track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Packet {
    /// When it begins to be shown, in seconds on the film's own clock (edit list applied).
    pub start_s: f64,
    /// How long it is shown.
    pub duration_s: f64,
    /// Whether decoding can begin here.
    pub sync: bool,
    /// Whether it is shown at all; what an edit list cuts off is decoded and not shown.
    pub shown: bool,
}

/// Gives the bytes of packets.
pub(crate) trait PacketData: Send {
    /// The bytes of a packet by its place in decode order.
    fn read(&mut self, index: usize) -> Result<Vec<u8>, MediaError>;
}

/// A demuxed picture track.
pub(crate) struct PictureTrack {
    pub name: String,
    pub codec: Codec,
    /// Configuration of the codec as the container keeps it: the body of `avcC`, `av1C`, `hvcC`, or CodecPrivate.
    pub config: Vec<u8>,
    /// Coded sides as the container says.
    pub width: u32,
    pub height: u32,
    /// Quarter turns clockwise that bring a decoded picture upright, 0 to 3.
    pub quarter_turns: u8,
    /// Whether it is mirrored left to right before the turn.
    pub mirrored: bool,
    /// Packets in decode order.
    pub packets: Vec<Packet>,
    pub data: Box<dyn PacketData>,
}

impl fmt::Debug for PictureTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PictureTrack({}, {:?}, {} packets)", self.name, self.codec, self.packets.len())
    }
}

/// A film's pictures in the order they are shown, whatever they come from.
pub(crate) trait Pictures: Send {
    /// When each picture begins to be shown, in seconds, ascending; at least one.
    fn starts_s(&self) -> &[f64];

    /// When the last one ends.
    fn end_s(&self) -> f64;

    /// The picture at a place of `starts_s`, upright. Asked for in ascending order of places.
    fn picture(&mut self, place: usize) -> Result<RgbImage, MediaError>;
}
