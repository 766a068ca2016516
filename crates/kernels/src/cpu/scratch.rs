//! Memory that a task works in and leaves as it is: each thread keeps its own.
//!
//! Tasks are many and short. Asking the allocator in each of them makes threads wait for one another in it (measured: a
//! query of the model that ships took 1.47 ms with one heap for all threads where it takes 0.98 with a heap each).

use std::cell::Cell;

use bytemuck::{Pod, Zeroable};

use super::aligned::{Line, lines};

/// Lines kept, 1 MiB: a block of attention takes 200 KiB, a band of a convolution 384.
const MOST: usize = (1 << 20) / size_of::<Line>();

/// Room for some slices, with whatever is in it.
#[derive(Debug)]
pub struct Room<'a>(&'a mut [Line]);

impl<'a> Room<'a> {
    /// The next `count` values, beginning on a line of their own.
    ///
    /// # Panics
    /// If the room ends before.
    pub fn take<T: Pod>(&mut self, count: usize) -> &'a mut [T] {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut(lines::<T>(count));
        self.0 = rest;
        &mut bytemuck::cast_slice_mut(taken)[..count]
    }
}

/// Works in so many lines of this thread's memory. A call inside another's work has memory of its own, which is not kept.
pub fn with_room<R>(lines: usize, work: impl FnOnce(Room) -> R) -> R {
    thread_local! {
        static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    }
    let mut own = KEPT.take();
    if own.len() < lines {
        // Not grown, which would copy what nobody reads.
        own = vec![Line::zeroed(); lines];
    }
    let result = work(Room(&mut own[..lines]));
    if own.len() <= MOST {
        KEPT.set(own);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_apart_aligned_and_kept() {
        let sizes = [1_usize, 15, 16, 17, 1000];
        let total = sizes.iter().map(|&n| lines::<f32>(n) + lines::<u16>(n)).sum();
        let first = with_room(total, |mut room| {
            let mut slices = Vec::new();
            for (i, &count) in sizes.iter().enumerate() {
                let (floats, halves) = (room.take::<f32>(count), room.take::<u16>(count));
                floats.fill(i as f32);
                halves.fill(i as u16);
                slices.push((floats, halves));
            }
            for (i, (floats, halves)) in slices.iter().enumerate() {
                assert!(floats.iter().all(|v| *v == i as f32) && halves.iter().all(|v| *v == i as u16), "slice {i}");
                assert_eq!((floats.as_ptr() as usize | halves.as_ptr() as usize) % 64, 0);
            }
            slices[0].0.as_ptr() as usize
        });
        assert_eq!(with_room(1, |mut room| room.take::<u8>(64).as_ptr() as usize), first);
    }

    #[test]
    fn a_call_inside_another_has_its_own() {
        with_room(2, |mut outer| {
            let outer = outer.take::<f32>(32);
            outer.fill(1.0);
            with_room(2, |mut inner| inner.take::<f32>(32).fill(2.0));
            assert!(outer.iter().all(|v| *v == 1.0));
        });
    }

    #[test]
    fn much_is_not_kept() {
        with_room(MOST + 1, |mut room| room.take::<u64>(8 * MOST).fill(7));
        // What is kept had another size: a later call makes its own, and it is zeros.
        with_room(1, |mut room| assert!(room.take::<u64>(8).iter().all(|v| *v == 0)));
    }

    #[test]
    #[should_panic(expected = "mid > len")]
    fn beyond_the_room_panics() {
        with_room(1, |mut room| {
            room.take::<f32>(17);
        });
    }
}
