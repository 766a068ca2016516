//! Decoded planes of luma and chroma into RGB. No codec and no container is known here.
//!
//! The result is defined by one formula in real numbers and computed so that no value differs from it: chroma is brought
//! to every luma sample by bilinear interpolation at the phase that the video states, then the matrix is applied, then
//! the value is rounded to the nearest level (halves up) and cut to 0..=255. Frames that hold two fields are
//! interpolated as one frame. Transfer curves are not touched, so an HDR video keeps its own curve.

use crate::image::rgb::RgbImage;
use crate::image::size::{Height, Width};

/// How many luma samples share one chroma sample.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// No chroma.
    Mono,
    /// One for two by two.
    S420,
    /// One for two in a row.
    S422,
    /// One each.
    S444,
}

/// The weights of red, green and blue in luma.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
    Fcc,
    Smpte240,
    /// The planes are green, blue and red; only with [`Sampling::S444`].
    Identity,
}

impl Matrix {
    /// From `matrix_coefficients` of ITU-T H.273, which H.264, AV1 and the `colr` box share; `None` for one that is not
    /// converted (YCgCo, ICtCp, …). Unspecified counts as BT.601 at every size, as in FFmpeg's scaler, and BT.2020 with
    /// constant luminance as the other BT.2020, also as there.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Identity,
            1 => Self::Bt709,
            2 | 3 | 5 | 6 => Self::Bt601,
            4 => Self::Fcc,
            7 => Self::Smpte240,
            9 | 10 => Self::Bt2020,
            _ => return None,
        })
    }

    /// Weights of red and of blue in ten-thousandths.
    const fn weights(self) -> (i128, i128) {
        match self {
            Self::Bt601 | Self::Identity => (2990, 1140),
            Self::Bt709 => (2126, 722),
            Self::Bt2020 => (2627, 593),
            Self::Fcc => (3000, 1100),
            Self::Smpte240 => (2120, 870),
        }
    }
}

/// Where a chroma sample lies among the luma samples that share it, in one direction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// On the first of the two: left, top.
    First,
    /// Between them.
    Centre,
    /// On the second: bottom.
    Second,
}

/// How the numbers of an image mean colours.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Colour {
    pub matrix: Matrix,
    /// Levels from 0 to 255 rather than 16 to 235 and 240.
    pub full_range: bool,
    /// Of chroma along a row; only where rows are subsampled.
    pub across: Site,
    /// Of chroma along a column; only where columns are subsampled.
    pub down: Site,
}

impl Colour {
    /// Sites from `chroma_sample_loc_type` of H.264 and H.265 (0: left, the default of both).
    pub(crate) fn sites(location: u32) -> (Site, Site) {
        match location {
            1 => (Site::Centre, Site::Centre),
            2 => (Site::First, Site::First),
            3 => (Site::Centre, Site::First),
            4 => (Site::First, Site::Second),
            5 => (Site::Centre, Site::Second),
            _ => (Site::First, Site::Centre),
        }
    }
}

/// One sample of a plane: `u8`, or `u16` for more than eight bits (the level in the low bits).
pub(crate) trait Sample: Copy {
    fn level(self) -> usize;
}

impl Sample for u8 {
    fn level(self) -> usize {
        usize::from(self)
    }
}

impl Sample for u16 {
    fn level(self) -> usize {
        usize::from(self)
    }
}

/// The planes of one decoded image.
///
/// Chroma planes have `width` halved upwards where rows are subsampled and `height` halved upwards where columns are;
/// without chroma they are empty.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Planes<'a, T> {
    pub width: u32,
    pub height: u32,
    pub y: &'a [T],
    pub u: &'a [T],
    pub v: &'a [T],
    /// Samples from one row of luma to the next.
    pub y_stride: usize,
    /// Samples from one row of chroma to the next, in both planes.
    pub c_stride: usize,
    pub sampling: Sampling,
    /// Bits of a level: 8 to 12.
    pub depth: u32,
    pub colour: Colour,
}

/// Bits behind the binary point of the tables.
///
/// A value is a sum of at most three entries, each off by at most 2^-51, and [`TIE`] lifts it, so that a value which is a
/// half in the formula is never below it here. A value that is no half differs from one by at least one part in the
/// product of the divisors, 2 * 73 * 16 * 224 * 10^4 * 7152 / 255 = 1.5e11 at eight bits: far more than 2^-49.
const POINT: u32 = 50;

/// Added to every value: more than the rounding of the entries, less than the way to the next value below a half.
const TIE: i64 = 2;

/// Converts the images of one video; keeps its tables from image to image.
#[derive(Debug, Default)]
pub(crate) struct Converter {
    tables: Option<Tables>,
}

/// What each level of luma and each sum of chroma adds to red, green and blue, in fixed point.
#[derive(Debug)]
struct Tables {
    key: (Colour, u32),
    luma: Vec<i64>,
    red_of_v: Vec<i64>,
    green_of_u: Vec<i64>,
    green_of_v: Vec<i64>,
    blue_of_u: Vec<i64>,
}

impl Tables {
    fn new(colour: Colour, depth: u32) -> Self {
        let levels = 1i128 << depth;
        let up = 1i128 << (depth - 8);
        let (r, b) = colour.matrix.weights();
        let g = 10_000 - r - b;
        let (black, y_span, c_span) =
            if colour.full_range { (0, levels - 1, levels - 1) } else { (16 * up, 219 * up, 224 * up) };
        // numerator / denominator in fixed point, rounded to nearest.
        let fixed = |numerator: i128, denominator: i128| -> i64 {
            let shifted = (numerator << (POINT + 1)) + denominator;
            shifted.div_euclid(2 * denominator) as i64
        };
        // A half is added here once, so that a shift rounds.
        let luma = (0..levels).map(|y| fixed(255 * (y - black), y_span) + (1 << (POINT - 1)) + TIE).collect();
        // Chroma arrives as 16 times its level; a factor of the formula is `numerator / 10^4` or `numerator / (10^4 g)`.
        let of_chroma = |numerator: i128, denominator: i128| -> Vec<i64> {
            (0..=16 * (levels - 1))
                .map(|c| fixed(255 * numerator * (c - 8 * levels), 16 * c_span * denominator))
                .collect()
        };
        Self {
            key: (colour, depth),
            luma,
            red_of_v: of_chroma(2 * (10_000 - r), 10_000),
            green_of_u: of_chroma(-2 * b * (10_000 - b), 10_000 * g),
            green_of_v: of_chroma(-2 * r * (10_000 - r), 10_000 * g),
            blue_of_u: of_chroma(2 * (10_000 - b), 10_000),
        }
    }
}

impl Converter {
    /// One image.
    ///
    /// # Shapes
    /// - returns: the sides of `planes`
    /// # Numerics
    /// With `Y`, `U`, `V` the level of luma and the interpolated levels of chroma, `Kr`, `Kg`, `Kb` the weights of the
    /// matrix, and in limited range at eight bits `y = (Y - 16) / 219`, `u = (U - 128) / 224`, `v = (V - 128) / 224` (in
    /// full range both divisors are 255 and nothing is taken from `Y`):
    /// `R = 255 (y + 2 (1 - Kr) v)`, `B = 255 (y + 2 (1 - Kb) u)`,
    /// `G = 255 (y - 2 Kb (1 - Kb) / Kg u - 2 Kr (1 - Kr) / Kg v)`, each rounded to the nearest level, halves up, and cut
    /// to 0..=255. More bits scale every constant. At the borders the outermost chroma sample is repeated.
    /// # Panics
    /// If a plane is shorter than its sides say, a level has more bits than `depth`, or `depth` is not 8 to 12.
    pub(crate) fn rgb<T: Sample>(&mut self, planes: &Planes<'_, T>) -> RgbImage {
        assert!((8..=12).contains(&planes.depth), "levels have 8 to 12 bits");
        if planes.colour.matrix == Matrix::Identity && planes.sampling == Sampling::S444 {
            return identity(planes);
        }
        let key = (planes.colour, planes.depth);
        let tables = match self.tables.take() {
            Some(tables) if tables.key == key => tables,
            _ => Tables::new(key.0, key.1),
        };
        let image = with_tables(planes, &tables);
        self.tables = Some(tables);
        image
    }
}

/// Two source places and the weight of the second in quarters, for the output place `at` of a halved direction.
fn taps(at: usize, site: Site, len: usize) -> (usize, usize, u32) {
    let half = at / 2;
    let (first, second, weight) = match (site, at % 2) {
        (Site::First, 0) | (Site::Second, 1) => (half, half, 0),
        (Site::First, _) => (half, half + 1, 2),
        (Site::Second, _) => (half.saturating_sub(1), half, 2),
        (Site::Centre, 0) => (half.saturating_sub(1), half, 3),
        (Site::Centre, _) => (half, half + 1, 1),
    };
    (first.min(len - 1), second.min(len - 1), weight)
}

fn with_tables<T: Sample>(planes: &Planes<'_, T>, tables: &Tables) -> RgbImage {
    let (width, height) = (planes.width as usize, planes.height as usize);
    let (c_width, c_height) = match planes.sampling {
        Sampling::Mono => (0, 0),
        Sampling::S420 => (width.div_ceil(2), height.div_ceil(2)),
        Sampling::S422 => (width.div_ceil(2), height),
        Sampling::S444 => (width, height),
    };
    let mut pixels = vec![0u8; width * height * 3];
    // 16 times the level in every case; without chroma, the middle.
    let middle = 8u32 << planes.depth;
    let mut u_row = vec![middle; width];
    let mut v_row = vec![middle; width];
    let mut mixed = vec![0u32; c_width];
    for (row, out) in pixels.chunks_exact_mut(width * 3).enumerate() {
        let luma = &planes.y[row * planes.y_stride..][..width];
        if planes.sampling != Sampling::Mono {
            let (first, second, weight) = match planes.sampling {
                Sampling::S420 => taps(row, planes.colour.down, c_height),
                _ => (row, row, 0),
            };
            for (plane, to) in [(planes.u, &mut u_row), (planes.v, &mut v_row)] {
                let a = &plane[first * planes.c_stride..][..c_width];
                let b = &plane[second * planes.c_stride..][..c_width];
                for ((mixed, a), b) in mixed.iter_mut().zip(a).zip(b) {
                    *mixed = a.level() as u32 * (4 - weight) + b.level() as u32 * weight;
                }
                if planes.sampling == Sampling::S444 {
                    for (to, mixed) in to.iter_mut().zip(&mixed) {
                        *to = mixed * 4;
                    }
                } else {
                    spread(&mixed, planes.colour.across, to);
                }
            }
        }
        for (((out, y), u), v) in out.chunks_exact_mut(3).zip(luma).zip(&u_row).zip(&v_row) {
            let (u, v) = (*u as usize, *v as usize);
            let y = tables.luma[y.level()];
            let level = |sum: i64| (sum >> POINT).clamp(0, 255) as u8;
            out[0] = level(y + tables.red_of_v[v]);
            out[1] = level(y + tables.green_of_u[u] + tables.green_of_v[v]);
            out[2] = level(y + tables.blue_of_u[u]);
        }
    }
    RgbImage::from_parts(Width(planes.width), Height(planes.height), pixels)
}

/// A row of chroma to twice as many places, times four.
fn spread(from: &[u32], site: Site, to: &mut [u32]) {
    let at = |place: usize| {
        let (first, second, weight) = taps(place, site, from.len());
        from[first] * (4 - weight) + from[second] * weight
    };
    let width = to.len();
    // All places but the first and the last two have both neighbours.
    let inner = width.saturating_sub(2).max(2) / 2;
    for (place, to) in to.iter_mut().enumerate().take(2) {
        *to = at(place);
    }
    for (place, to) in to.iter_mut().enumerate().skip(2 * inner) {
        *to = at(place);
    }
    let pairs = to.get_mut(2..2 * inner).unwrap_or_default().chunks_exact_mut(2);
    for (pair, near) in pairs.zip(from.windows(3)) {
        let [before, here, after] = near else { unreachable!("windows of three") };
        match site {
            Site::First => {
                pair[0] = here * 4;
                pair[1] = (here + after) * 2;
            }
            Site::Centre => {
                pair[0] = before + here * 3;
                pair[1] = here * 3 + after;
            }
            Site::Second => {
                pair[0] = (before + here) * 2;
                pair[1] = here * 4;
            }
        }
    }
}

/// Planes that are green, blue and red already; limited range is stretched as luma is.
fn identity<T: Sample>(planes: &Planes<'_, T>) -> RgbImage {
    let tables = Tables::new(planes.colour, planes.depth);
    let level = |plane: &[T], stride: usize, x: usize, y: usize| {
        (tables.luma[plane[y * stride + x].level()] >> POINT).clamp(0, 255) as u8
    };
    let (width, height) = (planes.width as usize, planes.height as usize);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            pixels.push(level(planes.v, planes.c_stride, x, y));
            pixels.push(level(planes.y, planes.y_stride, x, y));
            pixels.push(level(planes.u, planes.c_stride, x, y));
        }
    }
    RgbImage::from_parts(Width(planes.width), Height(planes.height), pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATRICES: [Matrix; 5] = [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020, Matrix::Fcc, Matrix::Smpte240];

    /// The formula as it is written, in f64, at a place in a plane of chroma that is found by walking.
    fn formula<T: Sample>(planes: &Planes<'_, T>, x: usize, y: usize) -> [u8; 3] {
        let levels = f64::from(1u32 << planes.depth);
        let up = levels / 256.0;
        let site = |site| match site {
            Site::First => 0.0,
            Site::Centre => 0.5,
            Site::Second => 1.0,
        };
        let (w, h) = (planes.width as usize, planes.height as usize);
        let (cw, ch, px, py) = match planes.sampling {
            Sampling::Mono => (0, 0, 0.0, 0.0),
            Sampling::S444 => (w, h, x as f64, y as f64),
            Sampling::S422 => (w.div_ceil(2), h, (x as f64 - site(planes.colour.across)) / 2.0, y as f64),
            Sampling::S420 => (
                w.div_ceil(2),
                h.div_ceil(2),
                (x as f64 - site(planes.colour.across)) / 2.0,
                (y as f64 - site(planes.colour.down)) / 2.0,
            ),
        };
        let at = |plane: &[T], x: f64, y: f64| {
            let x = (x.max(0.0) as usize).min(cw - 1);
            let y = (y.max(0.0) as usize).min(ch - 1);
            plane[y * planes.c_stride + x].level() as f64
        };
        let chroma = |plane: &[T]| {
            if planes.sampling == Sampling::Mono {
                return levels / 2.0;
            }
            let (fx, fy) = (px - px.floor(), py - py.floor());
            let row = |y: f64| at(plane, px.floor(), y) * (1.0 - fx) + at(plane, px.floor() + 1.0, y) * fx;
            row(py.floor()) * (1.0 - fy) + row(py.floor() + 1.0) * fy
        };
        let (black, y_span, c_span) = if planes.colour.full_range {
            (0.0, levels - 1.0, levels - 1.0)
        } else {
            (16.0 * up, 219.0 * up, 224.0 * up)
        };
        let (kr, kb) = match planes.colour.matrix {
            Matrix::Bt601 | Matrix::Identity => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
            Matrix::Fcc => (0.3, 0.11),
            Matrix::Smpte240 => (0.212, 0.087),
        };
        let kg = 1.0 - kr - kb;
        let luma = (planes.y[y * planes.y_stride + x].level() as f64 - black) / y_span;
        let u = (chroma(planes.u) - levels / 2.0) / c_span;
        let v = (chroma(planes.v) - levels / 2.0) / c_span;
        [
            luma + 2.0 * (1.0 - kr) * v,
            luma - 2.0 * kb * (1.0 - kb) / kg * u - 2.0 * kr * (1.0 - kr) / kg * v,
            luma + 2.0 * (1.0 - kb) * u,
        ]
        // f64 cannot hold the halves, which are there (1.772 * 125 = 221.5); its own error is below 3e-13.
        .map(|value| (value * 255.0 + 0.5 + 1e-12).floor().clamp(0.0, 255.0) as u8)
    }

    /// Levels without a pattern, from a fixed seed.
    fn noise(len: usize, bits: u32, seed: u64) -> Vec<u16> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> (64 - bits)) as u16
            })
            .collect()
    }

    fn differing<T: Sample>(planes: &Planes<'_, T>) -> usize {
        let image = Converter::default().rgb(planes);
        let width = planes.width as usize;
        image
            .pixels()
            .chunks_exact(3)
            .enumerate()
            .filter(|(at, found)| formula(planes, at % width, at / width) != **found)
            .count()
    }

    #[test]
    fn every_sampling_site_matrix_and_range_gives_the_formula_exactly() {
        let mut pixels = 0;
        let sites = [Site::First, Site::Centre, Site::Second];
        for (w, h) in [(64u32, 48u32), (61, 47), (1, 1), (2, 2), (3, 5), (5, 1), (4, 3)] {
            for depth in [8, 10, 12] {
                let y = noise((w * h) as usize, depth, 1);
                let u = noise((w * h) as usize, depth, 2);
                let v = noise((w * h) as usize, depth, 3);
                for sampling in [Sampling::Mono, Sampling::S420, Sampling::S422, Sampling::S444] {
                    for (matrix, full_range) in MATRICES.iter().flat_map(|m| [(*m, false), (*m, true)]) {
                        for (across, down) in sites.iter().flat_map(|a| sites.map(|d| (*a, d))) {
                            let colour = Colour { matrix, full_range, across, down };
                            let c_stride = if sampling == Sampling::S444 { w } else { w.div_ceil(2) } as usize;
                            let (u, v): (&[u16], &[u16]) =
                                if sampling == Sampling::Mono { (&[], &[]) } else { (&u, &v) };
                            let y_stride = w as usize;
                            let planes = Planes {
                                width: w,
                                height: h,
                                y: &y,
                                u,
                                v,
                                y_stride,
                                c_stride,
                                sampling,
                                depth,
                                colour,
                            };
                            assert_eq!(differing(&planes), 0, "{w} x {h}, {sampling:?}, {depth} bits, {colour:?}");
                            pixels += w * h;
                        }
                    }
                }
            }
        }
        println!("{pixels} pixels, none differs from the formula");
    }

    #[test]
    fn every_level_of_luma_meets_every_level_of_chroma_as_the_formula_says() {
        // 4,096 x 4,081 sums would take long, so one of the two runs over its whole range and the other over 256 levels.
        let y: Vec<u8> = (0..=255u8).flat_map(|y| [y; 256]).collect();
        let u: Vec<u8> = (0..256 * 256).map(|at| (at % 256) as u8).collect();
        let v: Vec<u8> = (0..256 * 256).map(|at| (at % 256 * 7 + at / 256 * 3) as u8).collect();
        for (matrix, full_range) in MATRICES.iter().flat_map(|m| [(*m, false), (*m, true)]) {
            let colour = Colour { matrix, full_range, across: Site::First, down: Site::Centre };
            let planes = Planes {
                width: 256,
                height: 256,
                y: &y,
                u: &u,
                v: &v,
                y_stride: 256,
                c_stride: 256,
                sampling: Sampling::S444,
                depth: 8,
                colour,
            };
            assert_eq!(differing(&planes), 0, "{colour:?}");
        }
    }

    #[test]
    fn planes_of_green_blue_and_red_are_only_reordered() {
        let colour = Colour { matrix: Matrix::Identity, full_range: true, across: Site::First, down: Site::First };
        let (y, u, v) = ([1u8, 2], [3u8, 4], [5u8, 6]);
        let planes = Planes {
            width: 2,
            height: 1,
            y: &y,
            u: &u,
            v: &v,
            y_stride: 2,
            c_stride: 2,
            sampling: Sampling::S444,
            depth: 8,
            colour,
        };
        assert_eq!(Converter::default().rgb(&planes).pixels(), [5, 1, 3, 6, 2, 4]);
    }

    #[test]
    fn codes_that_are_not_converted_have_no_matrix() {
        assert_eq!(Matrix::from_code(2), Some(Matrix::Bt601));
        assert_eq!(Matrix::from_code(1), Some(Matrix::Bt709));
        assert_eq!([8, 11, 12, 13, 14, 255].map(Matrix::from_code), [None; 6]);
    }
}
