//! What the machine can do at most, measured where the engine computes: the limits that times are held against.

use std::time::{Duration, Instant};

use omniburn::probe::Product;
use omniburn::{BackendKind, Dtype, Engine, ItemError, Priority, Request};
use rayon::prelude::*;

use crate::device::backend;

/// Rows, inputs and outputs of the product: 17 billion operations, operands of 32 MiB each in f32 and a result of 4, whose memory
/// is had again from pass to pass (of 32, page faults took a quarter of the time).
const PRODUCT: [usize; 3] = [1024, 8192, 1024];
/// Bytes read in one pass: well beyond any cache a core reaches alone.
const READ_BYTES: usize = 512 << 20;
/// Passes are made for so long, and the best of them counts.
const LENGTH: Duration = Duration::from_secs(1);
/// So many at least.
const LEAST_PASSES: usize = 3;

/// What the device of an engine can do at most, with its threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Billions of operations a second of a large product in f32, two a multiply-add.
    pub matmul_f32_gflops: f64,
    /// The same with bf16 weights; `None` where nothing here multiplies them faster than f32.
    pub matmul_bf16_gflops: Option<f64>,
    /// Billions of bytes a second read in order by all threads; `None` on a device with memory of its own.
    pub memory_read_gb_per_s: Option<f64>,
}

/// Measures the device for about two seconds; a cancelled `request` ends it between two passes.
///
/// # Errors
/// [`ItemError::Cancelled`], or whatever the device says.
pub fn peak(engine: &Engine, request: &Request) -> Result<Peak, ItemError> {
    let request = request.clone().priority(Priority::Interactive);
    let matmul = product_seconds(engine, &request, Dtype::F32)?.expect("f32 is multiplied everywhere");
    let operations = 2.0 * PRODUCT.iter().map(|&n| n as f64).product::<f64>();
    let bf16 = product_seconds(engine, &request, Dtype::Bf16)?;
    let asked = request.clone();
    let read = match backend(engine) {
        BackendKind::Flex => Some(engine.on_device(&request, move |_| read_seconds(&asked))??),
        _ => None,
    };
    Ok(Peak {
        matmul_f32_gflops: operations / matmul / 1e9,
        matmul_bf16_gflops: bf16.map(|seconds| operations / seconds / 1e9),
        memory_read_gb_per_s: read.map(|seconds| READ_BYTES as f64 / seconds / 1e9),
    })
}

/// Seconds of a large product; `None` where no kernel multiplies the type.
fn product_seconds(engine: &Engine, request: &Request, dtype: Dtype) -> Result<Option<f64>, ItemError> {
    let asked = request.clone();
    engine.on_device(request, move |device| {
        let timed = |product: Product| best(&asked, || product.run());
        device.product(PRODUCT, dtype).map(timed).transpose()
    })?
}

/// Seconds of the best of many passes.
fn best(request: &Request, mut pass: impl FnMut() -> Result<(), ItemError>) -> Result<f64, ItemError> {
    let begun = Instant::now();
    let (mut best, mut passes) = (f64::INFINITY, 0);
    while passes < LEAST_PASSES || begun.elapsed() < LENGTH {
        if let Some(over) = request.over() {
            return Err(over);
        }
        let started = Instant::now();
        pass()?;
        best = best.min(started.elapsed().as_secs_f64());
        passes += 1;
    }
    Ok(best)
}

fn read_seconds(request: &Request) -> Result<f64, ItemError> {
    // Not zeros: pages that were never written are all one page of zeros.
    let values: Vec<u64> = (0..(READ_BYTES / 8) as u64).collect();
    let wanted = (READ_BYTES as u64 / 8 - 1) * (READ_BYTES as u64 / 16);
    best(request, || {
        let each = values.len() / rayon::current_num_threads().max(1) / 16;
        let sum = values.par_chunks(each.max(1)).map(sum).reduce(|| 0, u64::wrapping_add);
        assert_eq!(sum, wanted, "what was read is what was written");
        Ok(())
    })
}

/// The sum in eight lanes, which the compiler keeps in registers.
fn sum(values: &[u64]) -> u64 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0u64; 8];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*value);
        }
    }
    lanes.iter().chain(rest).fold(0, |sum, value| sum.wrapping_add(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_read_once() {
        let values: Vec<u64> = (0..1003).collect();
        assert_eq!(sum(&values), 1002 * 1003 / 2);
    }

    #[test]
    fn a_peak_is_found_and_a_cancelled_request_finds_none() {
        let engine = Engine::mini().unwrap();
        let cancel = omniburn::Cancel::new();
        let request = Request::default().cancel(cancel.clone());
        let found = peak(&engine, &request).unwrap();
        println!("{found:?}");
        assert!(found.matmul_f32_gflops > 0.5 && found.memory_read_gb_per_s.unwrap() > 0.5);
        cancel.cancel();
        assert!(matches!(peak(&engine, &request), Err(ItemError::Cancelled)));
    }
}
