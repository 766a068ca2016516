//! Samples of a TIFF into eight bits of red, green and blue.

use super::fault::{Fault, damaged, unsupported};
use super::tags::{Directory, tag};
use crate::image::rgb::{ReadSeek, laid_over};

/// Words for photometric interpretations.
pub(super) fn photometric_name(number: u64) -> &'static str {
    match number {
        0 => "white is zero",
        1 => "black is zero",
        2 => "RGB",
        3 => "palette",
        4 => "transparency mask",
        5 => "separated inks",
        6 => "YCbCr",
        8 => "CIE L*a*b*",
        9 => "ICC L*a*b*",
        10 => "ITU L*a*b*",
        32803 => "colour filter array",
        32844 => "LogL",
        32845 => "LogLuv",
        34892 => "linear raw",
        51177 => "depth map",
        _ => "unknown",
    }
}

/// How transparent pixels are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpha {
    /// Beside their full colour.
    Straight,
    /// With their colour multiplied by it.
    Premultiplied,
}

/// Which of three formulas brings YCbCr to RGB; they differ by their rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chroma {
    /// libjpeg's, which libtiff asks for where JPEG lies in a TIFF.
    Jpeg,
    /// Pillow's own, for what is not packed.
    Pillow,
    /// libtiff's, for everything else; it alone knows other coefficients and levels.
    LibTiff,
}

/// The colours of samples.
pub(super) enum Colour {
    Grey { white_is_zero: bool },
    Rgb,
    Palette(Vec<[u8; 3]>),
    Cmyk,
    YCbCr(Box<ChromaTables>),
    Lab(LabCube),
}

impl Colour {
    /// Samples of a pixel, without alpha.
    pub(super) fn samples(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr(_) | Self::Lab(_) => 3,
            Self::Cmyk => 4,
        }
    }
}

/// What the tags say of the samples of a pixel.
pub(super) struct Samples {
    pub(super) photometric: u64,
    pub(super) samples: usize,
    pub(super) bits: u32,
    /// Kinds of those that are no colours.
    pub(super) extra: Vec<u64>,
}

impl Samples {
    fn colours(&self) -> usize {
        match self.photometric {
            6 if self.samples == 1 => 1,
            2 | 6 | 8 => 3,
            5 => 4,
            _ => 1,
        }
    }

    /// Finds the sample that is alpha.
    pub(super) fn alpha(&self) -> Result<Option<(Alpha, usize)>, Fault> {
        let (samples, colours, name) = (self.samples, self.colours(), photometric_name(self.photometric));
        if samples < colours {
            return Err(damaged(format!("{samples} samples a pixel are there, expected {colours} ({name})")));
        }
        if self.extra.is_empty() && samples > colours {
            // Pillow takes a fourth sample without a word on it for alpha.
            if self.photometric == 2 && samples == 4 {
                return Ok(Some((Alpha::Straight, 3)));
            }
            let what = format!("found {samples} samples a pixel ({name}) without ExtraSamples, expected {colours}");
            return Err(unsupported(what));
        }
        if self.extra.len() != samples - colours {
            let (kinds, extra) = (self.extra.len(), samples - colours);
            return Err(damaged(format!("{extra} extra samples a pixel have {kinds} kinds")));
        }
        let mut found = None;
        for (index, kind) in self.extra.iter().enumerate() {
            let alpha = match kind {
                0 => continue,
                1 => Alpha::Premultiplied,
                2 => Alpha::Straight,
                // Of Corel Draw 10, as Pillow knows.
                999 => Alpha::Straight,
                other => return Err(unsupported(format!("found an extra sample of kind {other}, expected 0, 1 or 2"))),
            };
            if found.replace((alpha, colours + index)).is_some() {
                return Err(unsupported("found two samples of alpha a pixel"));
            }
        }
        if colours == 1 && found.is_none() && samples > 2 {
            let what = format!("found {samples} samples a pixel ({name}), expected one, and one that may be alpha");
            return Err(unsupported(what));
        }
        Ok(found)
    }

    /// Finds the colours.
    pub(super) fn colour(
        &self,
        directory: &Directory,
        source: &mut dyn ReadSeek,
        alpha: Option<Alpha>,
        chroma: Chroma,
    ) -> Result<Colour, Fault> {
        let (bits, name) = (self.bits, photometric_name(self.photometric));
        let eight_bits = || match bits {
            8 => Ok(()),
            _ => Err(unsupported(format!("found samples of {bits} bits ({name}), expected 8"))),
        };
        let no_alpha = |refused: &[Alpha]| match alpha {
            Some(alpha) if refused.contains(&alpha) => {
                let kind = if alpha == Alpha::Straight { "alpha" } else { "associated alpha" };
                Err(unsupported(format!("found {kind} beside samples of {name}")))
            }
            _ => Ok(()),
        };
        let any = [Alpha::Straight, Alpha::Premultiplied];
        Ok(match self.photometric {
            0 => {
                no_alpha(&[Alpha::Premultiplied])?;
                Colour::Grey { white_is_zero: true }
            }
            1 => Colour::Grey { white_is_zero: false },
            2 => Colour::Rgb,
            3 => {
                no_alpha(&[Alpha::Premultiplied])?;
                if bits > 8 {
                    return Err(unsupported(format!("found a palette of {bits} bits, expected at most 8")));
                }
                Colour::Palette(palette(directory, source, 1 << bits)?)
            }
            5 => {
                no_alpha(&[Alpha::Premultiplied])?;
                match directory.one(source, tag::INK_SET)?.unwrap_or(1) {
                    1 => Colour::Cmyk,
                    other => return Err(unsupported(format!("found inks of set {other}, expected 1 (CMYK)"))),
                }
            }
            6 if self.samples == 1 => Colour::Grey { white_is_zero: false },
            6 => {
                eight_bits()?;
                no_alpha(&any)?;
                Colour::YCbCr(Box::new(ChromaTables::read(directory, source, chroma)?))
            }
            8 => {
                eight_bits()?;
                no_alpha(&any)?;
                Colour::Lab(LabCube::new())
            }
            other => return Err(unsupported(format!("found photometric interpretation {other} ({name})"))),
        })
    }
}

/// The colours of a palette: all red ones, all green ones, all blue ones, of 16 bits.
fn palette(directory: &Directory, source: &mut dyn ReadSeek, colours: usize) -> Result<Vec<[u8; 3]>, Fault> {
    let stored = directory.numbers(source, tag::COLOR_MAP, 3 * colours as u64)?.unwrap_or_default();
    if stored.len() != 3 * colours {
        return Err(damaged(format!("the palette has {} values, expected {}", stored.len(), 3 * colours)));
    }
    // Some writers stored eight bits; libtiff sees it by no value being larger.
    let shift = if stored.iter().all(|value| *value < 256) { 0 } else { 8 };
    let value = |at: usize| (stored[at] >> shift).min(255) as u8;
    Ok((0..colours).map(|at| [value(at), value(colours + at), value(2 * colours + at)]).collect())
}

/// What each value of Y, Cb and Cr adds to red, green and blue.
pub(super) struct ChromaTables {
    luma: [i32; 256],
    red: [i32; 256],
    blue: [i32; 256],
    /// Of Cb and of Cr, with more bits, so that their sum is rounded once.
    green: [[i32; 256]; 2],
    green_bits: u32,
}

impl ChromaTables {
    fn read(directory: &Directory, source: &mut dyn ReadSeek, chroma: Chroma) -> Result<Self, Fault> {
        Ok(match chroma {
            Chroma::Jpeg => Self::jpeg(),
            Chroma::Pillow => Self::pillow(),
            Chroma::LibTiff => {
                let luma = directory.reals(source, tag::YCBCR_COEFFICIENTS, 3)?;
                let levels = directory.reals(source, tag::REFERENCE_BLACK_WHITE, 6)?;
                let luma = luma.and_then(|luma| luma.try_into().ok()).unwrap_or([0.299, 0.587, 0.114]);
                let levels = levels.and_then(|levels| levels.try_into().ok());
                Self::libtiff(luma, levels.unwrap_or([0.0, 255.0, 128.0, 255.0, 128.0, 255.0]))?
            }
        })
    }

    /// # Source
    /// JFIF 1.02; libjpeg-turbo's numbers of 16 bits behind the point, rounded half up.
    fn jpeg() -> Self {
        let fixed = |factor: f64| (factor * 65536.0 + 0.5) as i32;
        let rounded = |factor: f64| std::array::from_fn(|i| (fixed(factor) * (i as i32 - 128) + 32768) >> 16);
        Self {
            luma: std::array::from_fn(|i| i as i32),
            red: rounded(1.402),
            blue: rounded(1.772),
            green: [
                std::array::from_fn(|i| -fixed(0.344_14) * (i as i32 - 128) + 32768),
                std::array::from_fn(|i| -fixed(0.714_14) * (i as i32 - 128)),
            ],
            green_bits: 16,
        }
    }

    /// # Source
    /// Pillow 13, `ConvertYCbCr.c`: six bits behind the point. Compared with it for all pairs of chroma.
    fn pillow() -> Self {
        let scaled =
            |factor: f64| std::array::from_fn::<i32, 256, _>(|i| (factor * (i as f64 - 128.0) * 64.0 + 0.5) as i32);
        Self {
            luma: std::array::from_fn(|i| i as i32),
            red: scaled(1.402).map(|value| value >> 6),
            blue: scaled(1.772).map(|value| value >> 6),
            green: [scaled(-0.344_14), scaled(-0.714_14)],
            green_bits: 6,
        }
    }

    /// # Source
    /// TIFF 6.0, section 21; libtiff 4.7, `tif_color.c`, for the widths of its numbers and for its bounds.
    fn libtiff(luma: [f32; 3], levels: [f32; 6]) -> Result<Self, Fault> {
        let [red, green, blue] = luma;
        if !luma.iter().chain(&levels).all(|value| value.is_finite()) || green == 0.0 {
            return Err(damaged("the coefficients or levels of YCbCr are no numbers"));
        }
        let fixed = |factor: f32| (f64::from(factor.clamp(0.0, 2.0)) * 65536.0 + 0.5) as i32;
        let (of_red, of_blue) = (2.0 - 2.0 * red, 2.0 - 2.0 * blue);
        let (d1, d2) = (fixed(of_red), -fixed(red * of_red / green));
        let (d3, d4) = (fixed(of_blue), -fixed(blue * of_blue / green));
        // A stored value on the scale between its black and its white.
        let level = |code: i32, black: f32, white: f32, full: f32| {
            let span = if white - black != 0.0 { white - black } else { 1.0 };
            (code.saturating_sub(black as i32) as f32 * full / span).clamp(-4096.0, 4096.0) as i32
        };
        let chroma = |i: usize, at: usize| level(i as i32 - 128, levels[at] - 128.0, levels[at + 1] - 128.0, 127.0);
        Ok(Self {
            luma: std::array::from_fn(|i| level(i as i32, levels[0], levels[1], 255.0)),
            red: std::array::from_fn(|i| (d1 * chroma(i, 4) + 32768) >> 16),
            blue: std::array::from_fn(|i| (d3 * chroma(i, 2) + 32768) >> 16),
            green: [std::array::from_fn(|i| d4 * chroma(i, 2) + 32768), std::array::from_fn(|i| d2 * chroma(i, 4))],
            green_bits: 16,
        })
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let (y, cb, cr) = (self.luma[usize::from(y)], usize::from(cb), usize::from(cr));
        let green = (self.green[0][cb] + self.green[1][cr]) >> self.green_bits;
        [y + self.red[cr], y + green, y + self.blue[cb]].map(|value| value.clamp(0, 255) as u8)
    }
}

/// CIE L*a*b* to sRGB by a cube of colours with straight lines between them, as Pillow's library of colours does it: the
/// formula itself differs from that by up to 40 levels in dark colours.
///
/// # Source
/// CIE 15:2004, section 8.2.1; IEC 61966-2-1, adapted to D50 as in ICC profiles; Little CMS 2 for the cube's 33 colours a
/// side. Compared with Pillow 13: at most one level apart.
pub(super) struct LabCube(Vec<[u16; 3]>);

const LAB_SIDE: usize = 33;

impl LabCube {
    /// Bytes that the cube takes.
    pub(super) const BYTES: u64 = (LAB_SIDE * LAB_SIDE * LAB_SIDE * 6) as u64;

    fn new() -> Self {
        let side = |at: usize| at as f64 / (LAB_SIDE - 1) as f64;
        let mut cube = Vec::with_capacity(LAB_SIDE * LAB_SIDE * LAB_SIDE);
        for l in 0..LAB_SIDE {
            for a in 0..LAB_SIDE {
                for b in 0..LAB_SIDE {
                    cube.push(lab(side(l) * 100.0, side(a) * 255.0 - 128.0, side(b) * 255.0 - 128.0));
                }
            }
        }
        Self(cube)
    }

    /// The colour of stored samples; a* and b* have a sign.
    fn rgb(&self, stored: [u8; 3]) -> [u8; 3] {
        let [l, a, b] = stored;
        const STEPS: [usize; 3] = [LAB_SIDE * LAB_SIDE, LAB_SIDE, 1];
        let mut at = 0;
        let mut rest = [(0u32, 0usize); 3];
        for (axis, value) in [l, a ^ 0x80, b ^ 0x80].into_iter().enumerate() {
            let scaled = u32::from(value) * (LAB_SIDE as u32 - 1);
            at += (scaled / 255) as usize * STEPS[axis];
            rest[axis] = (scaled % 255, STEPS[axis]);
        }
        // The tetrahedron: from the corner below along the axis with the largest rest first.
        rest.sort_by_key(|(rest, _)| std::cmp::Reverse(*rest));
        let mut here = self.0[at];
        let mut sum = here.map(|value| i64::from(value) * 255);
        for (rest, step) in rest {
            if rest == 0 {
                break;
            }
            at += step;
            let next = self.0[at];
            for i in 0..3 {
                sum[i] += (i64::from(next[i]) - i64::from(here[i])) * i64::from(rest);
            }
            here = next;
        }
        sum.map(|value| ((value + 255 * 257 / 2) / (255 * 257)) as u8)
    }
}

/// One colour by the formula, as 16 bits.
fn lab(l: f64, a: f64, b: f64) -> [u16; 3] {
    const FROM_D50: [[f64; 3]; 3] = [
        [3.134_095_66, -1.617_400_41, -0.490_637_76],
        [-0.978_792_69, 1.916_294_9, 0.033_453_63],
        [0.071_971_13, -0.228_987_11, 1.405_380_2],
    ];
    let y = (l + 16.0) / 116.0;
    let [x, y, z] = [y + a / 500.0, y, y - b / 200.0]
        .map(|t| if t > 24.0 / 116.0 { t * t * t } else { 108.0 / 841.0 * (t - 16.0 / 116.0) });
    let (x, z) = (0.9642 * x, 0.8249 * z);
    FROM_D50.map(|[of_x, of_y, of_z]| {
        let linear = (of_x * x + of_y * y + of_z * z).clamp(0.0, 1.0);
        let shown = if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        (shown * 65535.0).round().clamp(0.0, 65535.0) as u16
    })
}

/// Turns rows of samples into rows of pixels.
pub(super) struct Converter<'a> {
    colour: &'a Colour,
    alpha: Option<Alpha>,
    bits: u32,
    big_endian: bool,
    /// What a sample of at most eight bits becomes.
    scaled: [u8; 256],
    /// Rows of eight bits, one for each sample that is shown, alpha last.
    channels: Vec<Vec<u8>>,
}

impl<'a> Converter<'a> {
    pub(super) fn new(colour: &'a Colour, alpha: Option<Alpha>, bits: u32, big_endian: bool) -> Self {
        let most = (1u32 << bits.min(8)) - 1;
        let is_index = matches!(colour, Colour::Palette(_));
        let scaled = std::array::from_fn(|value| match value as u32 {
            value if is_index => value.min(most) as u8,
            value => ((value.min(most) * 255 + most / 2) / most) as u8,
        });
        let channels = vec![Vec::new(); colour.samples() + usize::from(alpha.is_some())];
        Self { colour, alpha, bits, big_endian, scaled, channels }
    }

    /// Whether stored pixels are pixels of the result as they are.
    pub(super) fn copies(&self, samples: usize) -> bool {
        matches!(self.colour, Colour::Rgb) && self.alpha.is_none() && self.bits == 8 && samples == 3
    }

    /// Takes one sample of each pixel of a row, the one at `offset` of each `samples`, as eight bits.
    pub(super) fn take(&mut self, channel: usize, row: &[u8], samples: usize, offset: usize, columns: usize) {
        let is_alpha = self.alpha.is_some() && channel + 1 == self.channels.len();
        let into = &mut self.channels[channel];
        into.clear();
        match self.bits {
            8 => into.extend(row.iter().skip(offset).step_by(samples).take(columns)),
            16 => {
                let high = usize::from(!self.big_endian);
                into.extend(row.iter().skip(2 * offset + high).step_by(2 * samples).take(columns));
            }
            bits => {
                let size = bits as usize;
                let bytes =
                    |at: usize| (0..3).fold(0u32, |sum, i| sum << 8 | u32::from(row.get(at + i).map_or(0, |b| *b)));
                into.extend((0..columns).map(|column| {
                    let at = (column * samples + offset) * size;
                    let value = bytes(at / 8) << (8 + at % 8) >> (32 - bits);
                    if bits > 8 { (value >> (bits - 8)) as u8 } else { self.scaled[value as usize] }
                }));
                // Indices are not scaled, alpha beside them is.
                if is_alpha && bits < 8 && matches!(self.colour, Colour::Palette(_)) {
                    let most = (1u32 << bits) - 1;
                    into.iter_mut().for_each(|value| *value = (u32::from(*value) * 255 / most) as u8);
                }
            }
        }
    }

    /// Mixes the rows that were taken.
    pub(super) fn mix(&self, out: &mut [u8]) {
        let pixels = out.chunks_exact_mut(3);
        match (self.colour, self.channels.as_slice()) {
            (Colour::Grey { white_is_zero }, [grey, ..]) => {
                let flip = if *white_is_zero { 255 } else { 0 };
                pixels.zip(grey).for_each(|(pixel, grey)| pixel.fill(grey ^ flip));
            }
            (Colour::Palette(colours), [index, ..]) => {
                pixels.zip(index).for_each(|(pixel, index)| pixel.copy_from_slice(&colours[usize::from(*index)]));
            }
            (Colour::Cmyk, [c, m, y, k, ..]) => {
                for (at, pixel) in pixels.enumerate() {
                    let white = 255 - k[at];
                    pixel.copy_from_slice(&[c[at], m[at], y[at]].map(|ink| white.saturating_sub(product(ink, white))));
                }
            }
            (colour, [first, second, third, ..]) => {
                for (at, pixel) in pixels.enumerate() {
                    let stored = [first[at], second[at], third[at]];
                    pixel.copy_from_slice(&match colour {
                        Colour::YCbCr(tables) => tables.rgb(stored[0], stored[1], stored[2]),
                        Colour::Lab(cube) => cube.rgb(stored),
                        _ => stored,
                    });
                }
            }
            _ => unreachable!("there are as many channels as samples"),
        }
        let Some(kind) = self.alpha else { return };
        for (pixel, alpha) in out.chunks_exact_mut(3).zip(&self.channels[self.channels.len() - 1]) {
            for value in pixel {
                if kind == Alpha::Premultiplied && *alpha != 0 {
                    // Pillow's integers, which round down.
                    *value = (u32::from(*value) * 255 / u32::from(*alpha)).min(255) as u8;
                }
                *value = laid_over(*value, *alpha, 255);
            }
        }
    }

    /// One row of YCbCr whose chroma has a sample for several pixels: units of luma, then Cb and Cr.
    pub(super) fn subsampled(
        &self,
        units: &[u8],
        chunk_width: usize,
        (across, down): (usize, usize),
        row: usize,
        out: &mut [u8],
    ) {
        let Colour::YCbCr(tables) = self.colour else { unreachable!("only YCbCr has fewer samples of chroma") };
        let unit = across * down + 2;
        let line = &units[row / down * chunk_width.div_ceil(across) * unit..];
        for (column, pixel) in out.chunks_exact_mut(3).enumerate() {
            let one = &line[column / across * unit..][..unit];
            let luma = one[row % down * across + column % across];
            pixel.copy_from_slice(&tables.rgb(luma, one[unit - 2], one[unit - 1]));
        }
    }
}

/// The product of two fractions of 255, rounded.
fn product(a: u8, b: u8) -> u8 {
    let sum = u32::from(a) * u32::from(b) + 128;
    (((sum >> 8) + sum) >> 8) as u8
}
