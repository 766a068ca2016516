//! Work done once for several: items that another call is computing at this moment, and results kept from before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use omniburn_scheduler::{Cancel, Priority};

use crate::call::{Answer, InputDigest, Timings};
use crate::error::ItemError;

/// Items being computed now, by what they are and how they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flying: Mutex<HashMap<InputDigest, (Priority, Arc<Flight>)>>,
}

/// One item that somebody computes and others wait for.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    landed: Mutex<Option<Option<Answer>>>,
    changed: Condvar,
}

/// Who computes an item.
pub(crate) enum Turn {
    /// The caller, who says so when it is done.
    Lead(Lead),
    /// Somebody else.
    Follow(Arc<Flight>),
}

/// The duty to say what became of an item; dropped without a word, it says that nothing did.
#[derive(Debug)]
pub(crate) struct Lead {
    flights: Arc<Flights>,
    key: InputDigest,
    flight: Arc<Flight>,
    /// Whether it stands in the list: not where a query did not wait for a background call's item.
    listed: bool,
}

/// How often a follower looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(10);

impl Flights {
    /// Whose turn an item is. A query never waits for an item of a background call, which may take many time slices.
    ///
    /// A caller asks only for what it is about to compute, with everything it needs in hand: so whoever leads does not
    /// wait for anybody's item before its own have landed.
    pub(crate) fn turn(self: &Arc<Self>, key: InputDigest, priority: Priority) -> Turn {
        let mut flying = self.lock();
        let flight = Arc::new(Flight::default());
        let listed = match flying.entry(key) {
            Entry::Occupied(entry) => {
                let (leader, flight) = entry.get();
                if priority == Priority::Background || *leader == Priority::Interactive {
                    return Turn::Follow(Arc::clone(flight));
                }
                false
            }
            Entry::Vacant(entry) => {
                entry.insert((priority, Arc::clone(&flight)));
                true
            }
        };
        Turn::Lead(Lead { flights: Arc::clone(self), key, flight, listed })
    }

    /// Callers that wait for somebody's item.
    #[cfg(test)]
    pub(crate) fn followers(&self) -> usize {
        // The list and the leader hold one each.
        self.lock().values().map(|(_, flight)| Arc::strong_count(flight) - 2).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InputDigest, (Priority, Arc<Flight>)>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// What the leader made; `None` where it failed, and the caller computes for itself.
    ///
    /// # Errors
    /// [`ItemError::Cancelled`], [`ItemError::DeadlinePassed`].
    pub(crate) fn wait(&self, cancel: Option<&Cancel>, deadline: Option<Instant>) -> Result<Option<Answer>, ItemError> {
        let mut landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = &*landed {
                return Ok(result.clone());
            }
            if cancel.is_some_and(Cancel::is_cancelled) {
                return Err(ItemError::Cancelled);
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(ItemError::DeadlinePassed);
            }
            landed = self.changed.wait_timeout(landed, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn land(&self, result: Option<Answer>) {
        *self.landed.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.changed.notify_all();
    }
}

impl Lead {
    /// Tells those who wait.
    pub(crate) fn land(self, result: &Result<Answer, ItemError>) {
        self.flight.land(result.as_ref().ok().cloned());
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.listed {
            self.flights.lock().remove(&self.key);
        }
        let mut landed = self.flight.landed.lock().unwrap_or_else(PoisonError::into_inner);
        if landed.is_none() {
            *landed = Some(None);
            self.flight.changed.notify_all();
        }
    }
}

/// Results kept for inputs that come again, up to a number of bytes; the longest unused goes first.
///
/// The key is the embedding identity (record, task), the device, the type computed in, a CPU's instructions, the request, and the
/// digest of the input's content; a file that changes is another input. One cache may serve several engines.
#[derive(Debug)]
pub struct ResultCache {
    most_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    results: LruCache<InputDigest, Answer>,
    bytes: u64,
    hits: u64,
    misses: u64,
}

/// What a [`ResultCache`] holds and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Results held.
    pub results: usize,
    /// Bytes they take.
    pub bytes: u64,
    /// Inputs answered from it.
    pub hits: u64,
    /// Inputs looked for in vain.
    pub misses: u64,
}

impl ResultCache {
    /// A cache of so many bytes. They are part of the memory budget of each engine that uses it.
    pub fn new(most_bytes: u64) -> Arc<Self> {
        let kept = Kept { results: LruCache::unbounded(), bytes: 0, hits: 0, misses: 0 };
        Arc::new(Self { most_bytes, kept: Mutex::new(kept) })
    }

    /// Bytes it may hold.
    pub fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// What it holds and has done.
    pub fn stats(&self) -> CacheStats {
        let kept = self.lock();
        CacheStats { results: kept.results.len(), bytes: kept.bytes, hits: kept.hits, misses: kept.misses }
    }

    pub(crate) fn find(&self, key: &InputDigest) -> Option<Answer> {
        let mut kept = self.lock();
        let found = kept.results.get(key).cloned();
        match found {
            Some(_) => kept.hits += 1,
            None => kept.misses += 1,
        }
        found
    }

    pub(crate) fn keep(&self, key: InputDigest, result: &Answer) {
        let bytes = bytes_of(result);
        if bytes > self.most_bytes {
            return;
        }
        let mut kept = self.lock();
        let mut kept_result = result.clone();
        *kept_result.timings_mut() = Timings::default();
        if let Some(old) = kept.results.put(key, kept_result) {
            kept.bytes -= bytes_of(&old);
        }
        kept.bytes += bytes;
        while kept.bytes > self.most_bytes {
            let Some((_, old)) = kept.results.pop_lru() else { break };
            kept.bytes -= bytes_of(&old);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a result with its place in the list.
fn bytes_of(result: &Answer) -> u64 {
    let result = match result {
        Answer::Vector(result) => result,
        Answer::Score(_) => return 256,
        Answer::List(listed) => return (256 + (1 + listed.documents.len()) * (64 + 4 * listed.query.len())) as u64,
    };
    let rows = result.multi.as_deref().unwrap_or_default();
    let of_row = rows.first().map_or(0, |row| 64 + 4 * row.as_slice().len());
    let sparse = result.sparse.as_ref().map_or(0, |sparse| 8 * sparse.indices.len());
    let features = result
        .features
        .as_ref()
        .map_or(0, |features| 4 * (features.rows.len() + features.deepstack.iter().map(Vec::len).sum::<usize>()));
    let vectors = 1 + result.segments.len() + result.chunks.len();
    (256 + vectors * (64 + 4 * result.embedding.as_slice().len()) + rows.len() * of_row + sparse + features) as u64
}

#[cfg(test)]
mod tests {
    use omniburn_models::record::Modality;

    use super::*;
    use crate::call::{Embedded, Input};
    use crate::embedding::Embedding;

    fn key(name: &str) -> InputDigest {
        Input::text(name).digest().unwrap()
    }

    fn result(x: f32) -> Answer {
        let embedding = Embedding::from_raw(vec![x, 1.0]).unwrap();
        let (segments, timings) = (Vec::new(), Default::default());
        let modality = Modality::Text;
        let (sparse, multi, features) = (None, None, None);
        let chunks = Vec::new();
        Answer::Vector(Embedded {
            embedding,
            sparse,
            multi,
            features,
            modality,
            tokens: 1,
            truncated: false,
            segments,
            chunks,
            timings,
        })
    }

    #[test]
    fn a_follower_has_the_leaders_result_and_a_failed_leader_leaves_the_work_to_it() {
        let flights = Arc::new(Flights::default());
        let Turn::Lead(lead) = flights.turn(key("a"), Priority::Background) else { panic!("nobody else computes it") };
        let Turn::Follow(flight) = flights.turn(key("a"), Priority::Background) else { panic!("somebody does") };
        assert!(matches!(flights.turn(key("b"), Priority::Background), Turn::Lead(_)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| flight.wait(None, None).unwrap());
            lead.land(&Ok(result(2.0)));
            assert_eq!(waiting.join().unwrap(), Some(result(2.0)));
        });
        let Turn::Lead(lead) = flights.turn(key("a"), Priority::Background) else { panic!("it has landed") };
        let Turn::Follow(flight) = flights.turn(key("a"), Priority::Background) else { panic!("it flies again") };
        drop(lead);
        assert_eq!(flight.wait(None, None).unwrap(), None);
        assert!(flights.lock().is_empty());
    }

    #[test]
    fn a_query_does_not_wait_for_a_background_call_and_both_may_wait_for_a_query() {
        let flights = Arc::new(Flights::default());
        let background = flights.turn(key("a"), Priority::Background);
        assert!(matches!(flights.turn(key("a"), Priority::Interactive), Turn::Lead(_)));
        assert!(matches!(flights.turn(key("a"), Priority::Background), Turn::Follow(_)), "the first still leads");
        drop(background);
        let query = flights.turn(key("a"), Priority::Interactive);
        assert!(matches!(flights.turn(key("a"), Priority::Interactive), Turn::Follow(_)));
        assert!(matches!(flights.turn(key("a"), Priority::Background), Turn::Follow(_)));
        drop(query);
    }

    #[test]
    fn a_follower_gives_up_when_told() {
        let flights = Arc::new(Flights::default());
        let _lead = flights.turn(key("a"), Priority::Background);
        let Turn::Follow(flight) = flights.turn(key("a"), Priority::Background) else { panic!("somebody leads") };
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(flight.wait(Some(&cancel), None), Err(ItemError::Cancelled)));
        assert!(matches!(flight.wait(None, Some(Instant::now())), Err(ItemError::DeadlinePassed)));
    }

    #[test]
    fn the_longest_unused_result_goes_first_and_the_bytes_are_kept_to() {
        let each = bytes_of(&result(1.0));
        let cache = ResultCache::new(2 * each);
        cache.keep(key("a"), &result(1.0));
        cache.keep(key("b"), &result(2.0));
        assert_eq!(cache.find(&key("a")), Some(result(1.0)));
        cache.keep(key("c"), &result(3.0));
        assert_eq!(cache.find(&key("b")), None);
        assert_eq!(cache.find(&key("c")), Some(result(3.0)));
        cache.keep(key("c"), &result(4.0));
        assert_eq!(cache.stats(), CacheStats { results: 2, bytes: 2 * each, hits: 2, misses: 1 });
        let none = ResultCache::new(0);
        none.keep(key("a"), &result(1.0));
        assert_eq!(none.find(&key("a")), None);
    }
}
