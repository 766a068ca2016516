//! What queries wait for under a short load, measured by asking.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use omniburn::probe::Metrics;
use omniburn::{
    Cancel, DurationStats, Engine, EngineError, Input, ItemError, MetricsSnapshot, Modality, Priority, Request, Role,
};

use crate::items::{LONG, audio, image};

/// What queries and background work did beside each other for a short while.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadReport {
    /// How long it lasted.
    pub length: Duration,
    /// From question to answer with nothing beside.
    pub idle: DurationStats,
    /// From question to answer with the background saturated.
    pub loaded: DurationStats,
    /// Waits and time slices of the loaded time.
    pub metrics: MetricsSnapshot,
    /// Items that background work finished.
    pub background_items: u64,
}

/// Asks at random times for `length`, with two background threads that always have work, and says what the waits and
/// time slices were. The counters of [`Engine::metrics`] begin at zero with it.
///
/// # Errors
/// [`EngineError::Item`] for the first query or background item that failed.
pub fn load_test(engine: &Engine, length: Duration) -> Result<LoadReport, EngineError> {
    // Off flex the smallest pass of each kind as well, so that nothing is compiled in the midst of it.
    engine.warm_up_to(0, |_| {})?;
    let takes = engine.profile().modalities;
    let asks = match takes.contains(&Modality::Text) {
        true => Input::text("a red bicycle under the bridge"),
        false => Input::image_pixels(image(96, 64, 0)),
    };
    let query = || engine.embed_one(asks.clone(), Role::Query);
    engine.embed(&background(&takes, 0), Role::Document)?;
    query()?;

    let watch = Metrics::new();
    let mut pauses = Pauses(1);
    // The metrics's histogram serves for answers too: idle ones as one class, loaded ones as the other.
    let mut timed = |class: Priority, longest: Duration| {
        std::thread::sleep(pauses.next(longest));
        let asked = Instant::now();
        query().map(|_| watch.record_wait(class, asked.elapsed()))
    };
    for _ in 0..IDLE_QUERIES {
        timed(Priority::Background, Duration::from_millis(20))?;
    }
    engine.reset_metrics();
    let (stop, items) = (Cancel::new(), AtomicU64::new(0));
    let (failed, rounds, began) = (AtomicBool::new(false), AtomicU32::new(1), Instant::now());
    let outcome = std::thread::scope(|scope| {
        let work = || -> Result<(), EngineError> {
            let request = Request::new(Role::Document).cancel(stop.clone());
            while !stop.is_cancelled() {
                let batch = background(&takes, rounds.fetch_add(1, Ordering::Relaxed));
                for (index, result) in engine.embed_with(&batch, &request)?.into_iter().enumerate() {
                    match result {
                        Ok(_) => _ = items.fetch_add(1, Ordering::Relaxed),
                        Err(ItemError::Cancelled) => {}
                        Err(source) => {
                            failed.store(true, Ordering::Relaxed);
                            return Err(EngineError::Item { index, source });
                        }
                    }
                }
            }
            Ok(())
        };
        let threads: Vec<_> = (0..BACKGROUND_THREADS).map(|_| scope.spawn(work)).collect();
        let mut asked = 0;
        let mut queries = Ok(());
        while queries.is_ok() && !failed.load(Ordering::Relaxed) && (began.elapsed() < length || asked < LEAST_QUERIES)
        {
            queries = timed(Priority::Interactive, Duration::from_millis(80));
            asked += 1;
        }
        // Before the threads are asked to stop, so that no wait of the end is among the figures.
        let (took, metrics) = (began.elapsed(), engine.metrics());
        stop.cancel();
        let work = threads.into_iter().map(|t| t.join().expect("the threads of a load test do not panic"));
        let work: Result<(), EngineError> = work.collect();
        queries.and(work).map(|()| (took, metrics))
    });
    let (took, metrics) = outcome?;
    let answers = watch.snapshot();
    Ok(LoadReport {
        length: took,
        idle: answers.background.waits,
        loaded: answers.interactive.waits,
        metrics,
        background_items: items.into_inner(),
    })
}

/// A batch of background work: other inputs every round, because equal ones might be computed once.
fn background(takes: &[Modality], round: u32) -> Vec<Input> {
    let texts = (0..8).map(|i| Input::text(format!("{round}. {}", &LONG[..LONG.floor_char_boundary(120 + 20 * i)])));
    let media = [
        Input::image_pixels(image(96, 64, round)),
        Input::video_frames((0..3).map(|i| image(64, 48, 3 * round + i)).collect()),
        Input::audio_samples(audio(19_200 - 160 * (round % 60)), 16_000),
    ];
    texts.chain(media).filter(|input| takes.contains(&input.modality())).collect()
}

/// Queries with nothing beside them.
const IDLE_QUERIES: usize = 15;
/// Queries under load at least, however slow the model.
const LEAST_QUERIES: usize = 5;
/// One that computes and one that waits.
const BACKGROUND_THREADS: usize = 2;

/// Pauses that look random and are the same every time.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self, longest: Duration) -> Duration {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        longest.mul_f64(((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_load_is_measured() {
        let engine = Engine::mini().unwrap();
        let load = load_test(&engine, Duration::from_millis(400)).unwrap();
        println!("{load:#?}");
        assert_eq!(load.idle.count, IDLE_QUERIES as u64);
        assert!(load.loaded.count >= LEAST_QUERIES as u64);
        assert_eq!(load.metrics.interactive.slices.count, load.loaded.count, "one unit a query");
        assert!(load.metrics.background.slices.count > 0 && load.background_items > 0);
    }
}
