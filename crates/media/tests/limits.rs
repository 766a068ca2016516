//! Images that are too large are refused from their header, quickly and without taking their memory. In a program of
//! its own, because the memory of the whole process is looked at.

use std::path::Path;
use std::time::Instant;

use omniburn_media::decode_image;

fn sample(name: &str) -> Vec<u8> {
    let folder =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../tests/golden/media/images");
    std::fs::read(folder.join(name)).unwrap()
}

/// The check value of a PNG chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = sample("rgba.png");
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc32(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&sum);
    bytes
}

fn jpeg() -> Vec<u8> {
    let mut bytes = sample("420-q90.jpg");
    let at = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bytes[at + 5..at + 9].fill(0xff);
    bytes
}

fn progressive_jpeg() -> Vec<u8> {
    let mut bytes = sample("420-progressive-q75.jpg");
    let at = bytes.windows(2).position(|pair| pair == [0xff, 0xc2]).unwrap();
    bytes[at + 5..at + 9].fill(0xff);
    bytes
}

fn gif() -> Vec<u8> {
    let mut bytes = sample("transparent.gif");
    bytes[6..10].fill(0xff);
    bytes
}

fn bmp() -> Vec<u8> {
    let mut bytes = sample("rgb.bmp");
    bytes[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
    bytes[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
    bytes
}

fn webp() -> Vec<u8> {
    let mut bytes = sample("lossless.webp");
    let at = bytes.windows(4).position(|four| four == b"VP8L").unwrap();
    // Behind the length and the signature byte: two times 14 bits, one less than the sides. 16,383 each: the decoder
    // takes the largest side that the format knows, 16,384, for zero.
    let sides = 0x3ffe | (0x3ffe << 14) | (u32::from(bytes[at + 12] & 0xf0) << 24);
    bytes[at + 9..at + 13].copy_from_slice(&sides.to_le_bytes());
    bytes
}

fn tiff() -> Vec<u8> {
    let mut bytes = sample("rgb-raw.tif");
    let at = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    let entries = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    for entry in 0..entries {
        let at = at + 2 + entry * 12;
        let tag = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        // Width, height, and rows in a strip: one strip must go on holding the whole image.
        if matches!(tag, 256 | 257 | 278) {
            bytes[at + 8..at + 10].copy_from_slice(&60_000_u16.to_le_bytes());
        }
    }
    bytes
}

/// The most address space and the most memory this process ever had, in KiB.
#[cfg(target_os = "linux")]
fn peaks() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    ["VmPeak:", "VmHWM:"].map(|key| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

#[cfg(not(target_os = "linux"))]
fn peaks() -> [u64; 2] {
    println!("memory not looked at: only Linux tells it");
    [0, 0]
}

#[test]
fn too_many_pixels_are_refused_from_the_header_without_their_memory() {
    let files = [
        ("60000 x 60000.png", png(60_000, 60_000)),
        ("one long row.png", png(0x7fff_ffff, 1)),
        ("sides.jpg", jpeg()),
        ("progressive.jpg", progressive_jpeg()),
        ("screen.gif", gif()),
        ("sides.bmp", bmp()),
        ("sides.webp", webp()),
        ("sides.tif", tiff()),
    ];
    let before = peaks();
    let started = Instant::now();
    for (name, bytes) in &files {
        let error = decode_image(bytes, name).unwrap_err();
        assert_eq!(error.kind(), "too_large", "{name}: {error}");
        let message = error.to_string();
        assert!(message.contains(name) && message.contains("178956970"), "{message}");
    }
    // Eight headers take microseconds; one image of 60,000 x 60,000 pixels would take 10 GiB and many seconds.
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
    // The least of these images would take 500 MiB. A thread that another test begins meanwhile has up to 128 MiB of addresses set
    // aside for its heap, with next to no memory behind them.
    for ((after, before), most) in peaks().into_iter().zip(before).zip([32 + 128, 32]) {
        let grown = (after - before) / 1024;
        assert!(grown < most, "{grown} MiB taken for images that are refused");
    }
}

#[test]
fn a_legal_image_with_a_small_body_is_corrupt_and_not_too_large() {
    // 1,000 x 1,000 pixels announced, 24 x 16 there.
    let error = decode_image(&png(1_000, 1_000), "short.png").unwrap_err();
    assert_eq!(error.kind(), "corrupt", "{error}");
}
