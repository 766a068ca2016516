//! Frames of MPEG audio (MP3, MP2, MP1) and of AAC in ADTS: their heads, and whether frames follow each other.
//!
//! # Source
//! ISO/IEC 11172-3, 13818-3 and 13818-7.

/// How far into the file the first frame is looked for.
pub(crate) const LEAD_BYTES: u64 = 1 << 16;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Frame {
    /// What must stay the same: kind of frame and rate.
    pub(crate) kind: Kind,
    pub(crate) rate_hz: u32,
    pub(crate) channels: usize,
    /// Bytes, the head included.
    pub(crate) bytes: usize,
    /// Bytes of the head that the decoder does not take.
    pub(crate) head: usize,
    /// Samples of a channel.
    pub(crate) samples: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Layer1,
    Layer2,
    Layer3 { first_version: bool },
    Aac { profile: u8, channel_code: u8, rate_code: u8 },
}

impl Frame {
    /// Reads a head of seven bytes; `None` if it is none.
    pub(crate) fn read(head: &[u8]) -> Option<Self> {
        let head: &[u8; 7] = head.get(..7)?.try_into().ok()?;
        if head[0] != 0xff || head[1] & 0xe0 != 0xe0 {
            return None;
        }
        if head[1] & 0xf6 == 0xf0 { Self::adts(head) } else { Self::mpeg(head) }
    }

    /// ISO/IEC 11172-3 and 13818-3, and the half rates of MPEG 2.5.
    fn mpeg(head: &[u8; 7]) -> Option<Self> {
        const KBITS: [[u32; 14]; 5] = [
            [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
            [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
            [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
            [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ];
        let first_version = head[1] & 0x18 == 0x18;
        let divisor = match head[1] & 0x18 {
            0x18 => 1,
            0x10 => 2,
            0x00 => 4,
            _ => return None,
        };
        let layer = 4 - (head[1] >> 1 & 3);
        let rate_hz = *[44_100, 48_000, 32_000].get(usize::from(head[2] >> 2 & 3))? / divisor;
        let table = match (first_version, layer) {
            (true, layer @ 1..=3) => usize::from(layer) - 1,
            (false, 1) => 3,
            (false, 2 | 3) => 4,
            _ => return None,
        };
        // The first code stands for a free rate, which is not read; the last one for none.
        let rate = KBITS[table].get(usize::from(head[2] >> 4).checked_sub(1)?)? * 1000;
        let padding = usize::from(head[2] >> 1 & 1);
        let (kind, samples, bytes) = match layer {
            1 => (Kind::Layer1, 384, ((12 * rate / rate_hz) as usize + padding) * 4),
            2 => (Kind::Layer2, 1152, (144 * rate / rate_hz) as usize + padding),
            _ => {
                let samples = if first_version { 1152 } else { 576 };
                (Kind::Layer3 { first_version }, samples, (samples as u32 / 8 * rate / rate_hz) as usize + padding)
            }
        };
        let channels = if head[3] >> 6 == 3 { 1 } else { 2 };
        Some(Self { kind, rate_hz, channels, bytes, head: 0, samples })
    }

    /// ISO/IEC 13818-7, 6.2.
    fn adts(head: &[u8; 7]) -> Option<Self> {
        const RATES_HZ: [u32; 13] =
            [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
        let rate_code = head[2] >> 2 & 15;
        let rate_hz = *RATES_HZ.get(usize::from(rate_code))?;
        let channel_code = (head[2] & 1) << 2 | head[3] >> 6;
        let bytes = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
        // A checksum follows the head where the last bit of the second byte says so.
        let length = if head[1] & 1 == 1 { 7 } else { 9 };
        // The kind of AAC and several blocks in a frame are refused later, by name.
        let channels = if channel_code == 7 { 8 } else { usize::from(channel_code) };
        let kind = Kind::Aac { profile: head[2] >> 6, channel_code, rate_code };
        (bytes > length).then_some(Self { kind, rate_hz, channels, bytes, head: length, samples: 1024 })
    }

    /// True if both can belong to one stream: the decoder of one can go on with the other.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        (self.kind, self.rate_hz, self.channels) == (other.kind, other.rate_hz, other.channels)
    }
}

/// False if the first bytes of a file begin with the head of a frame and show that no other frame, and nothing else that
/// may stand behind one, follows it. Up to four frames are looked at.
pub(crate) fn frames_may_follow(bytes: &[u8]) -> bool {
    let Some(first) = Frame::read(bytes) else {
        // A free bit rate, which is refused by name later, or too few bytes to tell.
        return bytes.len() < 7 || bytes[2] >> 4 == 0;
    };
    let mut at = first.bytes;
    for _ in 0..3 {
        let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= 7) else { break };
        match Frame::read(rest) {
            Some(next) => at += next.bytes,
            None => return rest[0] == 0 || [&b"TAG"[..], b"ID3", b"APE"].iter().any(|tag| rest.starts_with(tag)),
        }
    }
    true
}

/// True if two frames follow each other somewhere in the first bytes, which begin like nothing that is known.
pub(crate) fn begins_late(head: &[u8]) -> bool {
    (0..head.len()).any(|at| {
        let Some(first) = Frame::read(&head[at..]) else { return false };
        let second = head.get(at + first.bytes..).and_then(Frame::read);
        second.is_some_and(|second| first.goes_with(&second))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_frames_are_read() {
        let frame = Frame::read(&[0xff, 0xfb, 0x90, 0x64, 0, 0, 0]).unwrap();
        assert_eq!((frame.rate_hz, frame.channels, frame.bytes, frame.samples), (44_100, 2, 417, 1152));
        let frame = Frame::read(&[0xff, 0xf3, 0x40, 0xc4, 0, 0, 0]).unwrap();
        assert_eq!((frame.rate_hz, frame.channels, frame.bytes, frame.samples), (22_050, 1, 104, 576));
        let frame = Frame::read(&[0xff, 0xf1, 0x50, 0x80, 0x2e, 0x7f, 0xfc]).unwrap();
        assert_eq!((frame.rate_hz, frame.channels, frame.bytes, frame.head), (44_100, 2, 371, 7));
        for head in
            [[0xff, 0xfb, 0x00, 0x64], [0xff, 0xfb, 0xf0, 0x64], [0xff, 0xeb, 0x90, 0x64], [0xff, 0xd8, 0xff, 0]]
        {
            assert_eq!(Frame::read(&[head.as_slice(), &[0; 3]].concat()), None, "{head:02x?}");
        }
    }
}
