//! Texts and media made by whole-number arithmetic, so that every machine sees the same ones.

use omniburn::{Height, Input, Modality, RgbImage, Width};

/// A triangle between -32,768 and 32,767 of a phase that turns once in 65,536.
fn triangle(phase: u32) -> i32 {
    let at = (phase & 0xFFFF) as i32;
    if at < 0x8000 { 2 * at - 0x8000 } else { 0x17FFF - 2 * at }
}

/// Stripes, a gradient and a square: edges and colours from whole numbers alone.
pub(crate) fn image(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut pixels = Vec::with_capacity((3 * width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let inside = x > width / 3 && x < 2 * width / 3 && y > height / 4 && y < height / 2;
            let stripe = if ((x + y + seed) / 7).is_multiple_of(2) { 200 } else { 40 };
            let [red, green] = [x * 255 / width, y * 255 / height];
            let value = if inside { [250, 30 + seed % 50, 20] } else { [red, green, stripe] };
            pixels.extend(value.map(|v| v as u8));
        }
    }
    RgbImage::new(Width(width), Height(height), pixels).expect("as many pixels as its sides say")
}

/// A tone that rises, with a second one above it, at 16 kHz.
pub(crate) fn audio(samples: u32) -> Vec<f32> {
    let mut phases = (0u32, 0u32);
    let value = |i: u32| {
        phases = (phases.0.wrapping_add(700 + i / 40), phases.1.wrapping_add(2900));
        (triangle(phases.0) + triangle(phases.1) / 3) as f32 / 131_072.0
    };
    (0..samples).map(value).collect()
}

/// A paragraph.
pub(crate) const LONG: &str = "The keeper of the lighthouse wrote down the weather every evening: a falling glass, a swell from the \
west, gulls inland. In forty years he had missed three entries, each for a reason he could still name. When the \
light was made to run by itself, he kept on writing, because somebody had to know what the sea was like before the \
machines came to measure it.";

/// The items of the modalities that a model takes.
pub(crate) fn items(takes: &[Modality]) -> Vec<(&'static str, Input)> {
    let all = [
        ("one word", Input::text("bicycle")),
        ("a phrase", Input::text("a red bicycle under the bridge")),
        ("other scripts", Input::text("Straße, naïve, 猫: 7 × 6 = 42")),
        ("a paragraph", Input::text(LONG)),
        ("an image", Input::image_pixels(image(96, 64, 0))),
        ("a video", Input::video_frames((0..3).map(|i| image(64, 48, 5 * i)).collect())),
        ("audio", Input::audio_samples(audio(19_200), 16_000)),
    ];
    all.into_iter().filter(|(_, input)| takes.contains(&input.modality())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_items_are_the_same_on_every_machine() {
        let sum = |bytes: &[u8]| bytes.iter().fold(0u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        assert_eq!(triangle(0), -0x8000);
        assert_eq!((triangle(0x7FFF), triangle(0x8000), triangle(0xFFFF)), (0x7FFE, 0x7FFF, -0x7FFF));
        let bytes: Vec<u8> = audio(19_200).iter().flat_map(|v| v.to_le_bytes()).collect();
        // Digests of the first machine: a change here needs new stored vectors.
        assert_eq!(sum(image(96, 64, 0).pixels()), 0x2b45_7e43_902a_3b32);
        assert_eq!(sum(&bytes), 0x0dd7_a1b6_cc3a_f922);
        assert!(audio(19_200).iter().all(|v| v.abs() <= 0.34 && v.is_finite()));
        assert_eq!(items(&Modality::ALL).len(), 7);
        assert_eq!(items(&[Modality::Text]).len(), 4);
    }
}
