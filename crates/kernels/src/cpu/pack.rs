//! Matrices as the tiles read them: panels of sixteen columns, one row of a panel after the other.
//!
//! | format | a panel | why |
//! |---|---|---|
//! | f32 | `[inputs][16]` | one vector a row |
//! | bf16 | `[inputs / 2][16][2]`, rows padded to a multiple of 32 | the pairs that AVX512-BF16 and AMX multiply; two shifts make f32 of them |
//! | int8 | `[inputs / 4][16][4]`, rows padded to a multiple of 64, 128 added to each | the fours that AVX512-VNNI multiplies; it wants one side unsigned |
//! | affine | for each group of rows 16 scales and 16 offsets in f16, then its codes in lines of 64 bytes: 32 pieces of 16 bits `[16][2]`, each with the codes of rows two apart, the first lowest | the pairs of whole numbers of 16 bits that AVX2 and AVX512-VNNI multiply come out by a shift and a mask; a group is read in one stretch |
//!
//! Columns are padded to a multiple of sixteen. Padding is zero. One layout serves every set of instructions, so a packed
//! record opens anywhere without being packed again.

use std::fmt;
use std::sync::Arc;

use super::affine::{AffineFormat, AffineRows, from_f16};
use super::aligned::Aligned;
use super::simd::{LANES, from_bf16, to_bf16};

/// What a packed matrix holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PanelFormat {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// Signed bytes with a scale a column of the matrix.
    Int8,
    /// Whole numbers of 8 or 4 bits with a scale and an offset for each group of rows of a column.
    Affine(AffineFormat),
}

impl PanelFormat {
    /// Bytes of what a panel is counted in: a value, or with affine groups a byte.
    pub fn bytes(self) -> usize {
        match self {
            PanelFormat::F32 => 4,
            PanelFormat::Bf16 => 2,
            PanelFormat::Int8 | PanelFormat::Affine(_) => 1,
        }
    }

    /// Rows that lie together in a panel.
    fn group(self) -> usize {
        match self {
            PanelFormat::F32 => 1,
            PanelFormat::Bf16 | PanelFormat::Affine(_) => 2,
            PanelFormat::Int8 => 4,
        }
    }

    /// What the number of rows is padded to.
    fn depth_step(self) -> usize {
        match self {
            PanelFormat::F32 => 1,
            PanelFormat::Bf16 => 32,
            PanelFormat::Int8 => 64,
            PanelFormat::Affine(format) => format.group(),
        }
    }
}

/// Bytes of the scales and offsets of a group of sixteen columns.
pub(super) const HEAD: usize = 4 * LANES;
/// Bytes of a line of codes.
pub(super) const LINE: usize = 64;

impl AffineFormat {
    /// Rows whose codes share a line.
    pub(super) const fn line_rows(self) -> usize {
        LINE * 8 / (LANES * self.bits())
    }

    /// Bytes of a group of sixteen columns.
    pub(super) const fn block_bytes(self) -> usize {
        HEAD + self.group() / self.line_rows() * LINE
    }

    /// Where the code of a row and column of a group lies: its byte from the group's beginning, and its lowest bit there.
    fn code_at(self, row: usize, column: usize) -> (usize, usize) {
        let (line, inside) = (row / self.line_rows(), row % self.line_rows());
        let bit = inside / 2 * self.bits();
        (HEAD + line * LINE + (2 * column + inside % 2) * 2 + bit / 8, bit % 8)
    }
}

/// Which columns of the matrix lie in which panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColumnOrder {
    /// As they come.
    #[default]
    Plain,
    /// The matrix is two of equal width side by side, gate and up; their panels alternate, so that one tile holds both.
    /// Only where the half is a multiple of sixteen.
    GateUp,
}

/// Sizes and order of a packed matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PanelLayout {
    /// What it holds.
    pub format: PanelFormat,
    /// Rows of the matrix.
    pub inputs: usize,
    /// Columns of the matrix.
    pub outputs: usize,
    /// Which columns lie where.
    pub order: ColumnOrder,
}

impl PanelLayout {
    /// The layout of a matrix; gate and up alternate only where they can.
    pub fn new(format: PanelFormat, inputs: usize, outputs: usize, order: ColumnOrder) -> Self {
        let order = if outputs.is_multiple_of(2 * LANES) { order } else { ColumnOrder::Plain };
        Self { format, inputs, outputs, order }
    }

    /// Ids of the layouts, as records name them: a panel's columns and the rows that lie together, whether panels of gate and
    /// up alternate, and the version. A change of any byte that a layout gives is another id.
    pub const IDS: [&str; 14] = [
        "panel-16x1/1",
        "panel-16x2/1",
        "panel-16x4/1",
        "panel-16x1-gate-up/1",
        "panel-16x2-gate-up/1",
        "panel-16x4-gate-up/1",
        "panel-16x2-affine8-g64/1",
        "panel-16x2-affine4-g64/1",
        "panel-16x2-affine8-g32/1",
        "panel-16x2-affine4-g32/1",
        "panel-16x2-affine8-g64-gate-up/1",
        "panel-16x2-affine4-g64-gate-up/1",
        "panel-16x2-affine8-g32-gate-up/1",
        "panel-16x2-affine4-g32-gate-up/1",
    ];

    const KINDS: [(PanelFormat, ColumnOrder); 14] = [
        (PanelFormat::F32, ColumnOrder::Plain),
        (PanelFormat::Bf16, ColumnOrder::Plain),
        (PanelFormat::Int8, ColumnOrder::Plain),
        (PanelFormat::F32, ColumnOrder::GateUp),
        (PanelFormat::Bf16, ColumnOrder::GateUp),
        (PanelFormat::Int8, ColumnOrder::GateUp),
        (PanelFormat::Affine(AffineFormat::Eight64), ColumnOrder::Plain),
        (PanelFormat::Affine(AffineFormat::Four64), ColumnOrder::Plain),
        (PanelFormat::Affine(AffineFormat::Eight32), ColumnOrder::Plain),
        (PanelFormat::Affine(AffineFormat::Four32), ColumnOrder::Plain),
        (PanelFormat::Affine(AffineFormat::Eight64), ColumnOrder::GateUp),
        (PanelFormat::Affine(AffineFormat::Four64), ColumnOrder::GateUp),
        (PanelFormat::Affine(AffineFormat::Eight32), ColumnOrder::GateUp),
        (PanelFormat::Affine(AffineFormat::Four32), ColumnOrder::GateUp),
    ];

    /// The layout's id, one of [`PanelLayout::IDS`].
    pub fn id(&self) -> &'static str {
        let at = Self::KINDS.iter().position(|kind| *kind == (self.format, self.order));
        Self::IDS[at.expect("every format comes in both orders")]
    }

    /// The layout of this id for a matrix; `None` for an id that is none of [`PanelLayout::IDS`], or where gate and up cannot
    /// alternate.
    pub fn of_id(id: &str, inputs: usize, outputs: usize) -> Option<Self> {
        let at = Self::IDS.iter().position(|known| *known == id)?;
        let (format, order) = Self::KINDS[at];
        let layout = Self::new(format, inputs, outputs, order);
        (layout.order == order).then_some(layout)
    }

    /// Panels.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Rows of a panel with their padding.
    pub fn depth(&self) -> usize {
        self.inputs.next_multiple_of(self.format.depth_step())
    }

    /// Values of a panel, or its bytes with affine groups.
    pub fn panel_values(&self) -> usize {
        match self.format {
            PanelFormat::Affine(format) => self.depth() / format.group() * format.block_bytes(),
            _ => self.depth() * LANES,
        }
    }

    /// Bytes of the whole.
    pub fn bytes(&self) -> usize {
        self.panels() * self.panel_values() * self.format.bytes()
    }

    /// First column of a panel.
    fn column(&self, panel: usize) -> usize {
        match self.order {
            ColumnOrder::Plain => panel * LANES,
            ColumnOrder::GateUp => panel / 2 * LANES + panel % 2 * (self.outputs / 2),
        }
    }

    /// Packs values that lie as `[inputs, outputs]`: `value(i)` gives the i-th, `put(j, v)` takes the packed j-th. Every
    /// place is written but padding, which the caller zeroes beforehand.
    ///
    /// Not for affine groups, whose codes may be smaller than a byte: [`PanelLayout::codes`].
    fn places(&self, mut place: impl FnMut(usize, usize)) {
        debug_assert!(!matches!(self.format, PanelFormat::Affine(_)), "affine groups have places of their own");
        let group = self.format.group();
        for panel in 0..self.panels() {
            let first = self.column(panel);
            let width = LANES.min(self.outputs - first);
            let base = panel * self.panel_values();
            for row in 0..self.inputs {
                let (line, inside) = (row / group * group, row % group);
                for column in 0..width {
                    place(row * self.outputs + first + column, base + line * LANES + column * group + inside);
                }
            }
        }
    }
}

impl PanelLayout {
    /// Puts codes times the scales of their columns at their places: `columns` gives the scales of the panel that begins with a
    /// column, `row` the codes of a row from there on.
    fn scaled<'a, R: Iterator<Item = i8>>(
        &self,
        columns: impl Fn(usize) -> &'a [f32],
        row: impl Fn(usize, usize) -> R,
        mut put: impl FnMut(usize, f32),
    ) {
        let group = self.format.group();
        for panel in 0..self.panels() {
            let first = self.column(panel);
            let (scales, base) = (columns(first), panel * self.panel_values());
            for at in 0..self.inputs {
                let place = base + at / group * group * LANES + at % group;
                for (column, (scale, code)) in scales.iter().zip(row(first, at)).enumerate() {
                    put(place + column * group, f32::from(code) * scale);
                }
            }
        }
    }
}

/// One group of one column of a matrix in affine groups, and where it lies.
struct AffinePlace {
    /// Column of the matrix.
    output: usize,
    /// Group of the column.
    group: usize,
    /// Where the group's sixteen columns begin among the bytes.
    block: usize,
    /// Column of the panel.
    column: usize,
}

impl PanelLayout {
    /// Every group of every column.
    fn affine_places(&self, format: AffineFormat) -> impl Iterator<Item = AffinePlace> {
        let (layout, groups) = (*self, self.depth() / format.group());
        (0..self.panels()).flat_map(move |panel| {
            let first = layout.column(panel);
            (0..groups).flat_map(move |group| {
                let block = panel * layout.panel_values() + group * format.block_bytes();
                let width = LANES.min(layout.outputs - first);
                (0..width).map(move |column| AffinePlace { output: first + column, group, block, column })
            })
        })
    }
}

/// Bytes of a packed matrix, wherever they lie: a mapped file, a part of the program, or memory of their own.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A matrix in panels.
#[derive(Clone)]
pub struct Packed {
    layout: PanelLayout,
    bytes: SharedBytes,
    /// One a column, only with int8.
    scales: Arc<[f32]>,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Packed {
    /// Takes bytes that are packed already.
    ///
    /// # Panics
    /// If there are not as many bytes as the layout has, or not one scale a column with int8 and none without.
    pub fn new(layout: PanelLayout, bytes: SharedBytes, scales: Vec<f32>) -> Self {
        assert_eq!((*bytes).as_ref().len(), layout.bytes(), "bytes of a packed matrix");
        let expected = if layout.format == PanelFormat::Int8 { layout.outputs } else { 0 };
        assert_eq!(scales.len(), expected, "scales of a packed matrix");
        Self { layout, bytes, scales: scales.into() }
    }

    /// Packs f32 values that lie as `[inputs, outputs]`; bf16 rounds them, ties to even.
    ///
    /// # Panics
    /// With int8 (see [`Packed::from_codes`]) and affine groups (see [`Packed::from_affine`]), or if there are not as many values as the layout has.
    pub fn from_f32(layout: PanelLayout, values: &[f32]) -> Self {
        assert_eq!(values.len(), layout.inputs * layout.outputs, "values of a matrix");
        match layout.format {
            PanelFormat::F32 => {
                let mut out = Aligned::<f32>::zeroed(layout.bytes() / 4);
                layout.places(|from, to| out[to] = values[from]);
                Self::new(layout, Arc::new(out), Vec::new())
            }
            PanelFormat::Bf16 => {
                let mut out = Aligned::<u16>::zeroed(layout.bytes() / 2);
                layout.places(|from, to| out[to] = to_bf16(values[from]));
                Self::new(layout, Arc::new(out), Vec::new())
            }
            PanelFormat::Int8 => panic!("int8 is packed from codes and scales"),
            PanelFormat::Affine(_) => panic!("affine groups are packed from codes, scales and offsets"),
        }
    }

    /// Packs little-endian bf16 that lie as `[inputs, outputs]`.
    ///
    /// # Panics
    /// If the layout is not bf16 or there are not as many values as it has.
    pub fn from_bf16_bytes(layout: PanelLayout, values: &[u8]) -> Self {
        assert_eq!(layout.format, PanelFormat::Bf16);
        assert_eq!(values.len(), 2 * layout.inputs * layout.outputs, "values of a matrix");
        let mut out = Aligned::<u16>::zeroed(layout.bytes() / 2);
        layout.places(|from, to| out[to] = u16::from_le_bytes([values[2 * from], values[2 * from + 1]]));
        Self::new(layout, Arc::new(out), Vec::new())
    }

    /// Packs int8 codes that lie as `[inputs, outputs]`, with a scale a column.
    ///
    /// # Panics
    /// If the layout is not int8 or there are not as many values as it has.
    pub fn from_codes(layout: PanelLayout, codes: &[i8], scales: Vec<f32>) -> Self {
        assert_eq!(layout.format, PanelFormat::Int8);
        assert_eq!(codes.len(), layout.inputs * layout.outputs, "values of a matrix");
        // The code 0 is 128 here.
        let mut out = Aligned::<u8>::zeroed(layout.bytes());
        out.fill(0x80);
        layout.places(|from, to| out[to] = codes[from] as u8 ^ 0x80);
        Self::new(layout, Arc::new(out), scales)
    }

    /// Packs int8 codes that lie as `[inputs, outputs]` in f32 or bf16: each value is its code times the scale of its column, in
    /// f32, rounded once. Nothing as large as the matrix is made on the way.
    ///
    /// # Panics
    /// With another type, or if there are not as many codes and scales as the layout has.
    pub fn from_scaled(layout: PanelLayout, codes: &[i8], scales: &[f32]) -> Self {
        assert_eq!((codes.len(), scales.len()), (layout.inputs * layout.outputs, layout.outputs), "a matrix in int8");
        let columns = |first: usize| &scales[first..layout.outputs.min(first + LANES)];
        let row = |first: usize, row: usize| codes[row * layout.outputs + first..].iter().copied();
        match layout.format {
            PanelFormat::F32 => {
                let mut out = Aligned::<f32>::zeroed(layout.bytes() / 4);
                layout.scaled(columns, row, |at, value| out[at] = value);
                Self::new(layout, Arc::new(out), Vec::new())
            }
            PanelFormat::Bf16 => {
                let mut out = Aligned::<u16>::zeroed(layout.bytes() / 2);
                layout.scaled(columns, row, |at, value| out[at] = to_bf16(value));
                Self::new(layout, Arc::new(out), Vec::new())
            }
            other => panic!("{other:?} holds no scaled values"),
        }
    }

    /// Packs affine groups.
    ///
    /// # Panics
    /// If the layout has no affine groups, or there are not as many codes, scales and offsets as it has.
    pub fn from_affine(layout: PanelLayout, rows: &AffineRows) -> Self {
        let PanelFormat::Affine(format) = layout.format else { panic!("a layout of affine groups") };
        let groups = layout.depth() / format.group();
        assert_eq!(rows.codes.len(), layout.inputs * layout.outputs, "codes of a matrix");
        assert_eq!((rows.scales.len(), rows.offsets.len()), (groups * layout.outputs, groups * layout.outputs));
        let mut out = Aligned::<u8>::zeroed(layout.bytes());
        for AffinePlace { output, group, block, column } in layout.affine_places(format) {
            let head = output * groups + group;
            let at = block + 2 * column;
            out[at..at + 2].copy_from_slice(&rows.scales[head].to_le_bytes());
            out[at + 2 * LANES..at + 2 * LANES + 2].copy_from_slice(&rows.offsets[head].to_le_bytes());
            let first = group * format.group();
            let end = layout.inputs.min(first + format.group());
            let codes = &rows.codes[output * layout.inputs..][first..end];
            for (row, code) in codes.iter().enumerate() {
                let (byte, bit) = format.code_at(row, column);
                out[block + byte] |= code << bit;
            }
        }
        Self::new(layout, Arc::new(out), Vec::new())
    }

    /// The affine groups again; `None` where there are none.
    pub fn to_affine(&self) -> Option<AffineRows> {
        let layout = self.layout;
        let PanelFormat::Affine(format) = layout.format else { return None };
        let (groups, bytes) = (layout.depth() / format.group(), self.bytes());
        let mut codes = vec![0; layout.inputs * layout.outputs];
        let (mut scales, mut offsets) = (vec![0; groups * layout.outputs], vec![0; groups * layout.outputs]);
        for AffinePlace { output, group, block, column } in layout.affine_places(format) {
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let at = block + 2 * column;
            scales[output * groups + group] = half(at);
            offsets[output * groups + group] = half(at + 2 * LANES);
            let first = group * format.group();
            let end = layout.inputs.min(first + format.group());
            for (row, code) in codes[output * layout.inputs..][first..end].iter_mut().enumerate() {
                let (byte, bit) = format.code_at(row, column);
                *code = bytes[block + byte] >> bit & format.largest();
            }
        }
        Some(AffineRows { codes, scales, offsets })
    }

    /// Packs little-endian bytes that lie as `[inputs, outputs]`, in the layout's own type; scales count with int8 only.
    ///
    /// # Panics
    /// With affine groups (see [`Packed::from_affine`]), or if there are not as many values as the layout has.
    pub fn from_rows(layout: PanelLayout, values: &[u8], scales: Vec<f32>) -> Self {
        match layout.format {
            PanelFormat::F32 => {
                let values: Vec<f32> = values
                    .chunks_exact(4)
                    .map(|value| f32::from_le_bytes(value.try_into().expect("four bytes")))
                    .collect();
                Self::from_f32(layout, &values)
            }
            PanelFormat::Bf16 => Self::from_bf16_bytes(layout, values),
            PanelFormat::Int8 => Self::from_codes(layout, bytemuck::cast_slice(values), scales),
            PanelFormat::Affine(_) => panic!("affine groups are packed from codes, scales and offsets"),
        }
    }

    /// The stored values as little-endian bytes that lie as `[inputs, outputs]` again; of affine groups the values in f32.
    pub fn to_rows(&self) -> Vec<u8> {
        if let PanelFormat::Affine(_) = self.layout.format {
            return self.to_f32().into_iter().flat_map(f32::to_le_bytes).collect();
        }
        let size = self.layout.format.bytes();
        let mut out = vec![0; self.layout.inputs * self.layout.outputs * size];
        let bytes = self.bytes();
        let flip = if self.layout.format == PanelFormat::Int8 { 0x80 } else { 0 };
        self.layout.places(|to, from| {
            for i in 0..size {
                out[to * size + i] = bytes[from * size + i] ^ flip;
            }
        });
        out
    }

    /// The values as `[inputs, outputs]` again; int8 times its scales, affine codes times theirs with their offsets.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.layout.inputs * self.layout.outputs];
        let bytes = self.bytes();
        let outputs = self.layout.outputs;
        match self.layout.format {
            PanelFormat::F32 => self.layout.places(|to, from| {
                out[to] = f32::from_le_bytes(bytes[4 * from..4 * from + 4].try_into().expect("four bytes"));
            }),
            PanelFormat::Bf16 => self.layout.places(|to, from| {
                out[to] = from_bf16(u16::from_le_bytes([bytes[2 * from], bytes[2 * from + 1]]));
            }),
            PanelFormat::Int8 => self.layout.places(|to, from| {
                out[to] = f32::from((bytes[from] ^ 0x80) as i8) * self.scales[to % outputs];
            }),
            PanelFormat::Affine(format) => {
                for AffinePlace { output, group, block, column } in self.layout.affine_places(format) {
                    let half = |at: usize| from_f16(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
                    let (scale, offset) = (half(block + 2 * column), half(block + 2 * column + 2 * LANES));
                    for row in 0..format.group().min(self.layout.inputs - group * format.group()) {
                        let (byte, bit) = format.code_at(row, column);
                        let code = bytes[block + byte] >> bit & format.largest();
                        // The product is exact: eleven bits by eight.
                        out[(group * format.group() + row) * outputs + output] = f32::from(code) * scale + offset;
                    }
                }
            }
        }
        out
    }

    /// Sizes and order.
    pub fn layout(&self) -> &PanelLayout {
        &self.layout
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// One scale a column with int8, else none.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }
}
