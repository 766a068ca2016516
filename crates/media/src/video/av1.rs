//! AV1 images of a demuxed track, decoded by `re_rav1d`: dav1d in Rust, here without assembler.
//!
//! In AV1 packets are stored in the order in which they are shown, one shown image each. What does not live here:
//! containers and the conversion to RGB.

use std::panic::{AssertUnwindSafe, catch_unwind};

use re_rav1d::dav1d::pixel::{MatrixCoefficients, YUVRange};
use re_rav1d::dav1d::{Decoder, Error, Picture, PixelLayout, PlanarImageComponent, Settings};

use super::packets::{Codec, Shown, ShownImages, VideoEstimate, VideoTrack};
use super::yuv::{Colour, Converter, Matrix, Planes, Sampling, Site};
use crate::error::MediaError;
use crate::image::rgb::{MAX_IMAGE_PIXELS, RgbImage, check_pixels};

/// Bytes of `av1C` before the OBUs that it carries.
const CONFIG_HEADER: usize = 4;

/// Opens the images of an AV1 track.
///
/// # Numerics
/// The planes are FFmpeg's to the bit, video grain included; see [`Converter::rgb`] for the rest.
/// # Errors
/// [`MediaError::Empty`] without an image, [`MediaError::TooManyPixels`] by the sides that the container says. Reading
/// gives [`MediaError::Corrupt`] for what cannot be decoded and [`MediaError::UnsupportedCodec`] for colours that are
/// not converted.
pub(crate) fn open(track: VideoTrack) -> Result<Box<dyn ShownImages>, MediaError> {
    Ok(Box::new(Av1::open(track)?))
}

/// The images of one video.
struct Av1 {
    track: VideoTrack,
    shown: Shown,
    site: (Site, Site),
    converter: Converter,
    /// The decoder, the packet it is to be given next, and the image of the packet before.
    running: Option<(Decoder, usize, Option<Picture>)>,
}

impl Av1 {
    fn open(track: VideoTrack) -> Result<Self, MediaError> {
        debug_assert_eq!(track.codec, Codec::Av1);
        check_pixels(&track.label.name, track.width, track.height)?;
        let shown = track.shown()?;
        // `chroma_sample_position`: 1 is beside the first row's middle, 2 on the first sample; FFmpeg's scaler takes
        // unknown for the former, too.
        let site = match track.config.get(2).map(|byte| byte & 3) {
            Some(2) => (Site::First, Site::First),
            _ => (Site::First, Site::Centre),
        };
        Ok(Self { track, shown, site, converter: Converter::default(), running: None })
    }

    /// Decodes up to a packet, from where the decoder stands or from the last sync sample before it.
    fn decode(&mut self, packet: usize) -> Result<Picture, MediaError> {
        let sync = (0..=packet).rev().find(|at| self.track.packets[*at].sync).unwrap_or(0);
        let (mut decoder, mut next, mut last) = match self.running.take() {
            Some(running) if running.1 == packet + 1 && running.2.is_some() => running,
            Some(running) if (sync..=packet).contains(&running.1) => running,
            _ => (self.decoder()?, sync, None),
        };
        while next <= packet {
            let data = self.track.data.read(next)?;
            last = self.give(&mut decoder, data)?;
            next += 1;
        }
        let start_s = self.track.start_s(packet);
        let picture = last.ok_or_else(|| self.track.corrupt(format!("the data at {start_s:.3} s shows no image")))?;
        self.running = Some((decoder, next, Some(picture.clone())));
        Ok(picture)
    }

    /// A decoder that has been given what the container keeps apart from the packets.
    fn decoder(&self) -> Result<Decoder, MediaError> {
        let mut settings = Settings::new();
        // One thread: images come out as their packets go in, and nothing is left to run after an error.
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_frame_size_limit(MAX_IMAGE_PIXELS as u32);
        let mut decoder = Decoder::with_settings(&settings).map_err(|error| self.track.corrupt(error))?;
        if let Some(headers @ [_, ..]) = self.track.config.get(CONFIG_HEADER..) {
            self.give(&mut decoder, headers.to_vec())?;
        }
        Ok(decoder)
    }

    /// Gives the decoder a packet and takes its image; the last one where layers give several.
    fn give(&self, decoder: &mut Decoder, data: Vec<u8>) -> Result<Option<Picture>, MediaError> {
        if data.is_empty() {
            return Err(self.track.corrupt("found an empty packet"));
        }
        let mut picture = None;
        let mut sent = decoder.send_data(data, None, None, None);
        loop {
            match decoder.get_picture() {
                Ok(found) => picture = Some(found),
                Err(Error::Again) => match sent {
                    Ok(()) => return Ok(picture),
                    Err(Error::Again) => {}
                    Err(error) => return Err(self.track.corrupt(error)),
                },
                Err(error) => return Err(self.track.corrupt(error)),
            }
            if sent == Err(Error::Again) {
                sent = decoder.send_pending_data();
            }
        }
    }

    fn rgb(&mut self, picture: &Picture) -> Result<RgbImage, MediaError> {
        check_pixels(&self.track.label.name, picture.width(), picture.height())?;
        let mut code = picture.matrix_coefficients() as u8;
        if code == MatrixCoefficients::Unspecified as u8 {
            code = self.track.colour.map_or(code, |colour| colour.matrix);
        }
        let sampling = sampling(picture);
        let Some(matrix) = Matrix::from_code(code).filter(|m| *m != Matrix::Identity || sampling == Sampling::S444)
        else {
            return Err(self.track.unsupported(format!("found AV1 images with the colour matrix of code {code}")));
        };
        let colour = Colour {
            matrix,
            full_range: picture.color_range() == YUVRange::Full,
            across: self.site.0,
            down: self.site.1,
        };
        let [y, u, v] = planes(picture);
        let samples = if picture.bit_depth() == 8 { 1 } else { 2 };
        let strides =
            [PlanarImageComponent::Y, PlanarImageComponent::U].map(|part| picture.stride(part) as usize / samples);
        let wide = |bytes: &[u8]| -> Vec<u16> {
            bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect()
        };
        let depth = picture.bits_per_component().map_or(8, |bits| bits.0 as u32);
        let (width, height) = (picture.width(), picture.height());
        let [y_stride, c_stride] = strides;
        let image = if samples == 1 {
            let (y, u, v) = (&*y, &*u, &*v);
            self.converter.rgb(&Planes { width, height, y, u, v, y_stride, c_stride, sampling, depth, colour })
        } else {
            let (y, u, v) = (&*wide(&y), &*wide(&u), &*wide(&v));
            self.converter.rgb(&Planes { width, height, y, u, v, y_stride, c_stride, sampling, depth, colour })
        };
        Ok(self.track.upright(image))
    }
}

fn sampling(picture: &Picture) -> Sampling {
    match picture.pixel_layout() {
        PixelLayout::I400 => Sampling::Mono,
        PixelLayout::I420 => Sampling::S420,
        PixelLayout::I422 => Sampling::S422,
        PixelLayout::I444 => Sampling::S444,
    }
}

/// The bytes of the planes; none of chroma where there is none.
fn planes(picture: &Picture) -> [Vec<u8>; 3] {
    [PlanarImageComponent::Y, PlanarImageComponent::U, PlanarImageComponent::V].map(|part| {
        if part != PlanarImageComponent::Y && picture.pixel_layout() == PixelLayout::I400 {
            return Vec::new();
        }
        picture.plane(part).to_vec()
    })
}

impl ShownImages for Av1 {
    fn estimate(&self) -> Result<VideoEstimate, MediaError> {
        let (width, height) = self.track.upright_sides(self.track.width, self.track.height);
        let pixels = u64::from(width) * u64::from(height);
        // Eight reference images, the one that is decoded and the one with grain, in 4:4:4 of 16 bits; the motion of
        // each; and the planes of the result twice.
        let held = self.track.table_bytes() + 10 * 6 * pixels + 4 * pixels + (4 << 20);
        let opening = self.track.opening + 2 * self.track.table_bytes();
        let turned = if self.track.quarter_turns != 0 || self.track.mirrored { 3 * pixels } else { 0 };
        let decoding = held + 2 * self.track.data.longest() + (12 * pixels).max(turned) + 3 * pixels;
        Ok(VideoEstimate { width, height, opening, held, decoding })
    }

    fn starts_s(&self) -> &[f64] {
        &self.shown.starts_s
    }

    fn end_s(&self) -> f64 {
        self.shown.end_s
    }

    fn image(&mut self, place: usize) -> Result<RgbImage, MediaError> {
        let packet = self.shown.packets[place];
        // The decoder is taken out before it is used and is gone after a panic.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let picture = self.decode(packet)?;
            self.rgb(&picture)
        }));
        decoded.unwrap_or_else(|_| Err(self.track.corrupt("the decoder gave up on it")))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::file::MediaFile;
    use crate::source::Source;
    use crate::tracks::TrackChoice;
    use crate::video::packets::PacketData;
    use crate::video::{mkv, mp4};

    struct Stored(Vec<Vec<u8>>);

    impl PacketData for Stored {
        fn longest(&self) -> u64 {
            self.0.iter().map(|packet| packet.len() as u64).max().unwrap_or(0)
        }

        fn read(&mut self, index: usize) -> Result<Vec<u8>, MediaError> {
            Ok(self.0[index].clone())
        }
    }

    fn golden() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/media")
    }

    /// A clip as a track.
    fn track(name: &str) -> VideoTrack {
        let format = if name.ends_with("mp4") { "mp4" } else { "mkv" };
        let source = Source::from_file(&MediaFile::new(golden().join("codecs").join(name)), format).unwrap();
        let opened = if name.ends_with("mp4") {
            mp4::open(source, &TrackChoice::Default)
        } else {
            mkv::open(source, &TrackChoice::Default)
        };
        opened.unwrap()
    }

    /// Planes without the bytes between their rows.
    fn packed(picture: &Picture) -> Vec<u8> {
        let samples = if picture.bit_depth() == 8 { 1 } else { 2 };
        let (w, h) = (picture.width() as usize, picture.height() as usize);
        let (c_w, c_h) = match sampling(picture) {
            Sampling::Mono => (0, 0),
            Sampling::S420 => (w.div_ceil(2), h.div_ceil(2)),
            Sampling::S422 => (w.div_ceil(2), h),
            Sampling::S444 => (w, h),
        };
        let parts = [PlanarImageComponent::Y, PlanarImageComponent::U, PlanarImageComponent::V];
        let mut out = Vec::new();
        for ((plane, part), (w, h)) in planes(picture).iter().zip(parts).zip([(w, h), (c_w, c_h), (c_w, c_h)]) {
            for row in plane.chunks((picture.stride(part) as usize).max(1)).take(h) {
                out.extend_from_slice(&row[..w * samples]);
            }
        }
        out
    }

    #[test]
    fn planes_are_those_of_ffmpeg_from_wherever_decoding_begins() {
        let listing = std::fs::read(golden().join("codecs.json")).unwrap();
        let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap();
        let mut compared = 0;
        for name in ["av1.mp4", "av1-444.mp4", "av1-grey.mp4", "av1-grain.mp4", "av1.webm", "av1-10-bits.mkv"] {
            let digests: Vec<&str> =
                listing[name]["sha256"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
            let mut film = Av1::open(track(name)).unwrap();
            assert_eq!(film.starts_s().len(), digests.len());
            let syncs = film.track.packets.iter().filter(|packet| packet.sync).count();
            assert!(syncs >= 2, "{name}: {syncs} sync samples");
            // In order, then leaping forwards and backwards, and twice the same.
            let places = (0..digests.len()).chain([3, 17, 17, 9, 8, 15, 0]);
            for place in places {
                let picture = film.decode(film.shown.packets[place]).unwrap();
                let digest: String =
                    Sha256::digest(packed(&picture)).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(digest, digests[place], "{name}: image {place}");
                let image = film.rgb(&picture).unwrap();
                assert_eq!((image.width().0, image.height().0), (72, 50));
                compared += 1;
            }
        }
        println!("{compared} images equal");
    }

    #[test]
    fn damaged_packets_are_corrupt_and_end_nothing() {
        // A small fixed generator: the same damage in every run.
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut shown, mut refused) = (0, 0);
        for round in 0..300 {
            let mut track = track(["av1.mp4", "av1-grain.mp4", "av1-444.mp4"][round % 3]);
            let packets = track.packets.len();
            let mut data: Vec<Vec<u8>> = (0..packets).map(|at| track.data.read(at).unwrap()).collect();
            for _ in 0..1 + random(4) {
                let packet = &mut data[random(6)];
                let at = random(packet.len());
                packet[at] = random(256) as u8;
            }
            if round % 10 == 0 {
                let cut = random(data[1].len());
                data[1].truncate(cut);
            }
            track.data = Box::new(Stored(data));
            let mut film = Av1::open(track).unwrap();
            for place in [0, 1, 5, 7, 12] {
                match film.image(place) {
                    Ok(_) => shown += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), "corrupt", "{error}");
                        refused += 1;
                    }
                }
            }
        }
        println!("{shown} images shown, {refused} refused");
        assert!(refused > 0);
    }
}
