//! The image of a page of a PDF: paths, letters and images, drawn on white.
//!
//! What the interpreter of PDF gives is drawn by the rasterizer that draws SVG. A model looks at the result, and a person who
//! wants to know which page it is: patterns are a grey, blend modes and soft masks count as none. What a page may take is bounded
//! while it is drawn.

use hayro_interpret::font::{Glyph, GlyphRun};
use hayro_interpret::hayro_syntax::Pdf;
use hayro_interpret::hayro_syntax::page::Page;
use hayro_interpret::kurbo::{Affine, BezPath, Cap, Join, PathEl, Rect, Shape};
use hayro_interpret::util::TransformExt;
use hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, FillRule, Image, ImageData, ImageDrawProps,
    InterpreterCache, InterpreterSettings, LumaData, Paint as PagePaint, SoftMask, StrokeProps, interpret_page,
};
use omniburn_media::{Height, ResizeFilter, RgbImage, Width, resize};
use tiny_skia::{
    Color, FilterQuality, LineCap, LineJoin, Mask, Paint, Path, PathBuilder, Pixmap, PixmapPaint, Stroke, StrokeDash,
    Transform,
};

use crate::error::Fault;

/// Pixels of the longer side.
const LONG_SIDE_PX: f32 = 1024.0;
/// Sides of a page in points, of which 72 are an inch: beyond, it is a mistake or an attack.
const SIDES_PT: std::ops::RangeInclusive<f32> = 1.0..=20_000.0;
/// Pixels of an image in a page, which is decoded whole.
const MAX_IMAGE_PIXELS: u64 = 100_000_000;
/// What a page may take, in pixels that are drawn over, clipped or decoded: some seconds.
const MAX_COST: u64 = 3_000_000_000;
/// What drawing takes however small it is.
const LEAST_COST: u64 = 2_000;
/// Clips within each other.
const MAX_CLIPS: usize = 64;
/// What stands for a pattern.
const PATTERN: [u8; 4] = [150, 150, 150, 255];

/// The image of a page on white; its longer side has [`LONG_SIDE_PX`].
///
/// # Errors
/// [`Fault`] for a page of impossible size, or one that takes too much.
pub(super) fn page_image<'a>(page: &'a Page<'a>, pdf: &'a Pdf) -> Result<RgbImage, Fault> {
    let (width, height) = page.render_dimensions();
    if ![width, height].iter().all(|side| SIDES_PT.contains(side)) {
        return Err(Fault::new("too_large", format!("found a page of {width} x {height} points")));
    }
    let scale = LONG_SIDE_PX / width.max(height);
    let pixels = |side: f32| ((side * scale).round() as u32).max(1);
    let mut pixmap = Pixmap::new(pixels(width), pixels(height)).ok_or_else(too_much)?;
    pixmap.fill(Color::WHITE);
    let bounds = Rect::new(0.0, 0.0, f64::from(pixmap.width()), f64::from(pixmap.height()));
    let transform = Affine::scale(f64::from(scale)) * page.initial_transform(true).to_kurbo();
    let cache = InterpreterCache::new();
    let mut context = Context::new(transform, bounds, &cache, pdf.xref(), InterpreterSettings::default());
    let mut canvas = Canvas { pixmap, clips: Vec::new(), opacities: Vec::new(), cost: 0 };
    interpret_page(page, &mut context, &mut canvas);
    if canvas.is_over() {
        return Err(too_much());
    }
    let (width, height) = (Width(canvas.pixmap.width()), Height(canvas.pixmap.height()));
    // Nothing is left transparent on white.
    let rgb = canvas.pixmap.data().as_chunks::<4>().0.iter().flat_map(|[red, green, blue, _]| [*red, *green, *blue]);
    RgbImage::new(width, height, rgb.collect()).map_err(|e| Fault::new(e.kind(), e.to_string()))
}

fn too_much() -> Fault {
    Fault::new("too_large", "found a page that takes more than a page may to be drawn")
}

struct Canvas {
    pixmap: Pixmap,
    /// What is clipped to, each within the one before.
    clips: Vec<Mask>,
    opacities: Vec<f32>,
    cost: u64,
}

impl Canvas {
    fn is_over(&self) -> bool {
        self.cost > MAX_COST
    }

    /// Counts what drawing over an area takes; false where the page has taken too much.
    fn pays(&mut self, area: Rect) -> bool {
        let page = Rect::new(0.0, 0.0, f64::from(self.pixmap.width()), f64::from(self.pixmap.height()));
        let within = if area.is_finite() { area.intersect(page).area().max(0.0) } else { page.area() };
        self.cost = self.cost.saturating_add(LEAST_COST + within as u64);
        !self.is_over()
    }

    fn opacity(&self) -> f32 {
        self.opacities.iter().product()
    }

    fn paint(&self, paint: &PagePaint<'_>) -> Paint<'static> {
        let [red, green, blue, alpha] = match paint {
            PagePaint::Color(color) => color.to_rgba().to_rgba8(),
            PagePaint::Pattern(_) => PATTERN,
        };
        let mut paint = Paint { anti_alias: true, ..Paint::default() };
        paint.set_color_rgba8(red, green, blue, (f32::from(alpha) * self.opacity()) as u8);
        paint
    }

    fn fill(&mut self, path: &BezPath, transform: Affine, paint: &PagePaint<'_>, rule: FillRule) {
        if !self.pays(transform.transform_rect_bbox(path.bounding_box())) {
            return;
        }
        let Some(path) = path_of(path) else { return };
        let (paint, clip) = (self.paint(paint), self.clips.last());
        self.pixmap.fill_path(&path, &paint, rule_of(rule), transform_of(transform), clip);
    }

    fn stroke(&mut self, path: &BezPath, transform: Affine, paint: &PagePaint<'_>, props: &StrokeProps) {
        let wide = f64::from(props.line_width.abs()) * f64::from(props.miter_limit.clamp(1.0, 10.0));
        if !self.pays(transform.transform_rect_bbox(path.bounding_box().inflate(wide, wide))) {
            return;
        }
        let Some(path) = path_of(path) else { return };
        // Dashes of a long path are many.
        let dashes: f32 = props.dash_array.iter().sum();
        let long = path.bounds().width().max(path.bounds().height());
        let dashed = props.dash_array.len() >= 2 && dashes > 0.0 && long / dashes < 10_000.0;
        let dash = dashed.then(|| StrokeDash::new(props.dash_array.to_vec(), props.dash_offset)).flatten();
        let stroke = Stroke {
            width: props.line_width.max(0.0),
            miter_limit: props.miter_limit,
            line_cap: match props.line_cap {
                Cap::Butt => LineCap::Butt,
                Cap::Round => LineCap::Round,
                Cap::Square => LineCap::Square,
            },
            line_join: match props.line_join {
                Join::Miter => LineJoin::Miter,
                Join::Round => LineJoin::Round,
                Join::Bevel => LineJoin::Bevel,
            },
            dash,
        };
        let (paint, clip) = (self.paint(paint), self.clips.last());
        self.pixmap.stroke_path(&path, &paint, &stroke, transform_of(transform), clip);
    }

    fn draw(&mut self, path: &BezPath, transform: Affine, paint: &PagePaint<'_>, mode: &DrawMode) {
        match mode {
            DrawMode::Fill(rule) => self.fill(path, transform, paint, *rule),
            DrawMode::Stroke(stroke) => self.stroke(path, transform, paint, stroke),
            DrawMode::FillAndStroke(rule, stroke) => {
                self.fill(path, transform, paint, *rule);
                self.stroke(path, transform, paint, stroke);
            }
            DrawMode::Invisible => {}
        }
    }

    /// Draws an image whose pixels are `[height, width]`, its scale factors counted in.
    fn put(&mut self, image: &RgbImage, alpha: Option<&[u8]>, transform: Affine) {
        let (width, height) = (image.width().0, image.height().0);
        let Some(mut pixels) = Pixmap::new(width, height) else { return };
        let rgb = image.pixels().as_chunks::<3>().0;
        for (at, (to, [red, green, blue])) in pixels.pixels_mut().iter_mut().zip(rgb).enumerate() {
            let alpha = alpha.map_or(255, |alpha| alpha.get(at).copied().unwrap_or(255));
            *to = tiny_skia::ColorU8::from_rgba(*red, *green, *blue, alpha).premultiply();
        }
        let paint = PixmapPaint { opacity: self.opacity(), quality: FilterQuality::Bilinear, ..PixmapPaint::default() };
        let clip = self.clips.last();
        self.pixmap.draw_pixmap(0, 0, pixels.as_ref(), &paint, transform_of(transform), clip);
    }

    /// How large an image lies on the page, at least a pixel and at most four pages.
    fn target(&self, transform: Affine, width: u32, height: u32) -> (u32, u32) {
        let [a, b, c, d, ..] = transform.as_coeffs();
        let most = 2 * self.pixmap.width().max(self.pixmap.height());
        let side =
            |along: f64, pixels: u32| ((along * f64::from(pixels)).ceil() as u32).clamp(1, most).min(pixels.max(1));
        (side(a.hypot(b), width), side(c.hypot(d), height))
    }
}

impl<'a> Device<'a> for Canvas {
    fn draw_path(&mut self, path: &BezPath, props: DrawProps<'a>, mode: &DrawMode) {
        self.draw(path, props.transform, &props.paint, mode);
    }

    fn push_clip_path(&mut self, clip: &ClipPath) {
        // A clip that cannot be paid for is the one before: nothing is drawn any more.
        let whole = Rect::new(0.0, 0.0, f64::from(self.pixmap.width()), f64::from(self.pixmap.height()));
        let paid = self.pays(whole);
        let mask = match self.clips.last() {
            Some(last) if !paid => last.clone(),
            Some(last) => {
                let mut mask = last.clone();
                match path_of(&clip.path) {
                    Some(path) => mask.intersect_path(&path, rule_of(clip.fill), true, Transform::identity()),
                    // Nothing lies within an empty path.
                    None => mask.clear(),
                }
                mask
            }
            None => {
                let mask = Mask::new(self.pixmap.width(), self.pixmap.height());
                let mut mask = mask.expect("a mask as large as the page, whose sides are not zero");
                if let Some(path) = path_of(&clip.path).filter(|_| paid) {
                    mask.fill_path(&path, rule_of(clip.fill), true, Transform::identity());
                }
                mask
            }
        };
        // Masks are as large as the page: the deepest are enough.
        if self.clips.len() < MAX_CLIPS {
            self.clips.push(mask);
        } else {
            self.cost = u64::MAX;
        }
    }

    fn push_transparency_group(&mut self, opacity: f32, _: Option<SoftMask<'a>>, _: BlendMode) {
        self.opacities.push(opacity.clamp(0.0, 1.0));
    }

    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, mode: &DrawMode) {
        for glyph in run.glyphs() {
            if self.is_over() {
                return;
            }
            match &**glyph {
                Glyph::Outline(outline) => {
                    self.draw(&(glyph.transform() * outline.outline()), props.transform, &props.paint, mode);
                }
                Glyph::Type3(drawn) => drawn.interpret(self, props.transform, glyph.transform(), &props.paint),
            }
        }
    }

    fn draw_image(&mut self, image: Image<'a, '_>, props: ImageDrawProps<'a>) {
        let (width, height) = (image.width(), image.height());
        let pixels = u64::from(width) * u64::from(height);
        let local = Rect::new(0.0, 0.0, f64::from(width), f64::from(height));
        if pixels > MAX_IMAGE_PIXELS {
            self.cost = u64::MAX;
        }
        self.cost = self.cost.saturating_add(pixels);
        if !self.pays(props.transform.transform_rect_bbox(local)) {
            return;
        }
        let target = self.target(props.transform, width, height);
        match image {
            Image::Raster(raster) => raster.with_rgba(
                |data, alpha| {
                    let Some((rgb, factors)) = rgb_of(data) else { return };
                    self.put_scaled(rgb, alpha, factors, props.transform, target);
                },
                Some(target),
            ),
            Image::Stencil(stencil) => stencil.with_stencil(
                |mask, paint| {
                    let [red, green, blue, _] = match paint {
                        PagePaint::Color(color) => color.to_rgba().to_rgba8(),
                        PagePaint::Pattern(_) => PATTERN,
                    };
                    let (width, height, factors) = (mask.width, mask.height, mask.scale_factors);
                    let pixels = [red, green, blue].repeat(width as usize * height as usize);
                    let Ok(rgb) = RgbImage::new(Width(width), Height(height), pixels) else { return };
                    self.put_scaled(rgb, Some(mask), factors, props.transform, target);
                },
                Some(target),
            ),
        }
    }

    fn pop_clip(&mut self) {
        self.clips.pop();
    }

    fn pop_transparency_group(&mut self) {
        self.opacities.pop();
    }
}

impl Canvas {
    /// Draws an image, first made as small as it lies on the page: scans have many times the pixels.
    fn put_scaled(
        &mut self,
        rgb: RgbImage,
        alpha: Option<LumaData>,
        factors: (f32, f32),
        transform: Affine,
        target: (u32, u32),
    ) {
        let (width, height) = (rgb.width().0, rgb.height().0);
        let (wide, high) = (target.0.min(width), target.1.min(height));
        let smaller = |image: RgbImage| {
            if (wide, high) == (image.width().0, image.height().0) {
                image
            } else {
                resize(&image, Height(high), Width(wide), ResizeFilter::Bilinear)
            }
        };
        // What is transparent, at the size of the image: as an image itself.
        let alpha = alpha.and_then(|alpha| {
            let grey: Vec<u8> = alpha.data.iter().flat_map(|value| [*value; 3]).collect();
            let grey = RgbImage::new(Width(alpha.width), Height(alpha.height), grey).ok()?;
            let grey = resize(&grey, Height(high), Width(wide), ResizeFilter::Bilinear);
            Some(grey.pixels().as_chunks::<3>().0.iter().map(|[value, ..]| *value).collect::<Vec<u8>>())
        });
        let along = |factor: f32, pixels: u32, now: u32| f64::from(factor) * f64::from(pixels) / f64::from(now);
        let scale = Affine::scale_non_uniform(along(factors.0, width, wide), along(factors.1, height, high));
        self.put(&smaller(rgb), alpha.as_deref(), transform * scale);
    }
}

/// The pixels of an image with its scale factors; `None` for one without pixels.
fn rgb_of(data: ImageData) -> Option<(RgbImage, (f32, f32))> {
    let factors = data.scale_factors();
    let (width, height) = (Width(data.width()), Height(data.height()));
    let pixels = match data {
        ImageData::Rgb(rgb) => rgb.data,
        ImageData::Luma(grey) => grey.data.into_iter().flat_map(|value| [value; 3]).collect(),
    };
    RgbImage::new(width, height, pixels).ok().map(|image| (image, factors))
}

fn rule_of(rule: FillRule) -> tiny_skia::FillRule {
    match rule {
        FillRule::NonZero => tiny_skia::FillRule::Winding,
        FillRule::EvenOdd => tiny_skia::FillRule::EvenOdd,
    }
}

fn transform_of(transform: Affine) -> Transform {
    let [a, b, c, d, e, f] = transform.as_coeffs().map(|value| value as f32);
    Transform::from_row(a, b, c, d, e, f)
}

fn path_of(path: &BezPath) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for element in path.elements() {
        let at = |point: &hayro_interpret::kurbo::Point| (point.x as f32, point.y as f32);
        match element {
            PathEl::MoveTo(to) => builder.move_to(at(to).0, at(to).1),
            PathEl::LineTo(to) => builder.line_to(at(to).0, at(to).1),
            PathEl::QuadTo(by, to) => builder.quad_to(at(by).0, at(by).1, at(to).0, at(to).1),
            PathEl::CurveTo(one, two, to) => {
                builder.cubic_to(at(one).0, at(one).1, at(two).0, at(two).1, at(to).0, at(to).1);
            }
            PathEl::ClosePath => builder.close(),
        }
    }
    builder.finish()
}
