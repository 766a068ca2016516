//! Memory that begins on a line: a vector read from it, and every further one, touches one line and not two.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// As much as a cache line and a vector of AVX-512.
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

/// Lines that `count` values take.
pub const fn lines<T>(count: usize) -> usize {
    (count * size_of::<T>()).div_ceil(size_of::<Line>())
}

/// Values of our own.
#[derive(Debug, Clone)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    count: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Aligned<T> {
    /// So many zeros.
    pub fn zeroed(count: usize) -> Self {
        Self { lines: vec![Line::zeroed(); lines::<T>(count)], count, values: PhantomData }
    }

    /// Values that `write` writes.
    ///
    /// # Safety
    /// `write` writes every one of them.
    pub unsafe fn written(count: usize, write: impl FnOnce(*mut T)) -> Self {
        let lines = lines::<T>(count);
        let mut own = Vec::<Line>::with_capacity(lines);
        if let Some(last) = lines.checked_sub(1) {
            // What values do not fill of it.
            own.spare_capacity_mut()[last].write(Line::zeroed());
        }
        write(own.as_mut_ptr().cast());
        unsafe { own.set_len(lines) };
        Self { lines: own, count, values: PhantomData }
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.count]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.count]
    }
}

impl<T: Pod> AsRef<[u8]> for Aligned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

/// Values on the stack.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct OnLine<T>(pub T);
