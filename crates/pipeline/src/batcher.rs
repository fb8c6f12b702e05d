//! Many concurrent loads of one key each become a few queries for many keys: the "data loader" pattern.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::oneshot;

/// How many queries may be under way at once: while one waits for PostgreSQL, the next one's answer is made.
const PARALLEL: usize = 2;

type Loader<K, V, E> = dyn Fn(Vec<K>) -> BoxFuture<'static, Result<HashMap<K, V>, E>> + Send + Sync;

/// Gathers keys that are asked for at the same time and loads them together. Clones share it.
///
/// It caches nothing and adds no delay: an idle batcher asks at once, and what comes in while a query is under way goes
/// with the next one. A key that is asked for twice at the same time is loaded twice, since each asker owns its answer.
pub struct Batcher<K, V, E> {
    shared: Arc<Shared<K, V, E>>,
}

struct Shared<K, V, E> {
    max: usize,
    loader: Box<Loader<K, V, E>>,
    state: Mutex<State<K, V, E>>,
}

struct State<K, V, E> {
    waiting: VecDeque<(K, Asker<V, E>)>,
    under_way: usize,
}

type Asker<V, E> = oneshot::Sender<Result<Option<V>, Arc<E>>>;

impl<K, V, E> Batcher<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + 'static,
    E: Send + Sync + 'static,
{
    /// A batcher that hands at most `max` different keys at once to `loader`, which answers with what it has found.
    pub fn new<F, R>(max: usize, loader: F) -> Self
    where
        F: Fn(Vec<K>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<HashMap<K, V>, E>> + Send + 'static,
    {
        let loader = Box::new(move |keys| loader(keys).boxed());
        let state = Mutex::new(State { waiting: VecDeque::new(), under_way: 0 });
        Self { shared: Arc::new(Shared { max: max.max(1), loader, state }) }
    }

    /// Loads one key: `None` if the loader didn't find it, its error if it failed. Panics if the loader does.
    pub async fn load(&self, key: K) -> Result<Option<V>, Arc<E>> {
        let (asker, answer) = oneshot::channel();
        {
            let mut state = self.shared.state();
            state.waiting.push_back((key, asker));
            if state.under_way < PARALLEL {
                state.under_way += 1;
                tokio::spawn(Turn { shared: Arc::clone(&self.shared), counted: true }.run());
            }
        }
        answer.await.expect("the loader panicked")
    }
}

impl<K, V, E> Clone for Batcher<K, V, E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V, E> fmt::Debug for Batcher<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("max", &self.shared.max).finish_non_exhaustive()
    }
}

impl<K, V, E> Shared<K, V, E> {
    fn state(&self) -> MutexGuard<'_, State<K, V, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the places for queries; given back however it ends.
struct Turn<K, V, E> {
    shared: Arc<Shared<K, V, E>>,
    /// Whether the place is still taken.
    counted: bool,
}

impl<K: Eq + Hash + Clone, V, E> Turn<K, V, E> {
    async fn run(mut self) {
        // Lets the tasks that are ready to ask go first: company that costs no time.
        tokio::task::yield_now().await;
        loop {
            let askers = self.take();
            if askers.is_empty() {
                return;
            }
            let found = (self.shared.loader)(askers.keys().cloned().collect()).await;
            match found {
                Ok(mut found) => {
                    for (key, asker) in askers {
                        // Nobody may be waiting any more.
                        let _ = asker.send(Ok(found.remove(&key)));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for asker in askers.into_values() {
                        let _ = asker.send(Err(Arc::clone(&error)));
                    }
                }
            }
        }
    }

    /// The next keys, each once; a second asker of the same key waits for the next query. Without any, the place is
    /// given back under the same lock, so that nobody can ask in between and be overlooked.
    fn take(&mut self) -> HashMap<K, Asker<V, E>> {
        let mut state = self.shared.state();
        let mut taken = HashMap::new();
        let mut again: VecDeque<(K, Asker<V, E>)> = VecDeque::new();
        while taken.len() < self.shared.max {
            let Some((key, asker)) = state.waiting.pop_front() else { break };
            match taken.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(asker);
                }
                Entry::Occupied(taken) => again.push_back((taken.key().clone(), asker)),
            }
        }
        while let Some(waiting) = again.pop_back() {
            state.waiting.push_front(waiting);
        }
        if taken.is_empty() {
            state.under_way -= 1;
            self.counted = false;
        }
        taken
    }
}

impl<K, V, E> Drop for Turn<K, V, E> {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        // The loader panicked, or the runtime is going down.
        let mut state = self.shared.state();
        state.under_way -= 1;
        if state.under_way == 0 {
            // Nobody else would answer those who wait.
            state.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn keys_asked_for_together_are_loaded_together() {
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queries);
        let batcher: Batcher<u32, u32, Infallible> = Batcher::new(500, move |keys: Vec<u32>| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move { Ok(keys.into_iter().filter(|key| key % 2 == 0).map(|key| (key, key * 10)).collect()) }
        });
        let answers = join_all((0..1000).map(|key| batcher.load(key))).await;
        for (key, answer) in (0..).zip(answers) {
            assert_eq!(answer.unwrap(), (key % 2 == 0).then_some(key * 10));
        }
        assert!(queries.load(Ordering::Relaxed) <= 4, "{queries:?}");
    }

    #[tokio::test]
    async fn no_query_has_more_keys_than_allowed_and_none_twice() {
        let batcher: Batcher<u32, u32, usize> = Batcher::new(3, |keys: Vec<u32>| async move {
            let different: std::collections::HashSet<_> = keys.iter().collect();
            if different.len() == keys.len() && keys.len() <= 3 { Ok(HashMap::new()) } else { Err(keys.len()) }
        });
        let answers = join_all([1, 1, 1, 2, 3, 4, 5, 1].map(|key| batcher.load(key))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(None))), "{answers:?}");
    }

    #[tokio::test]
    async fn a_failed_query_is_told_to_all_who_asked() {
        let batcher: Batcher<u32, u32, &str> = Batcher::new(10, |_| async { Err("away") });
        for answer in join_all((0..5).map(|key| batcher.load(key))).await {
            assert_eq!(*answer.unwrap_err(), "away");
        }
    }

    #[tokio::test]
    async fn after_a_panic_of_the_loader_the_next_load_works() {
        let batcher: Batcher<u32, u32, Infallible> = Batcher::new(10, |keys: Vec<u32>| async move {
            assert_ne!(keys[0], 13);
            Ok(keys.into_iter().map(|key| (key, key)).collect())
        });
        let unlucky = batcher.clone();
        assert!(tokio::spawn(async move { unlucky.load(13).await }).await.unwrap_err().is_panic());
        assert_eq!(batcher.load(7).await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn those_who_gave_up_dont_hold_up_the_others() {
        let gate = Arc::new(Semaphore::new(0));
        let closed = Arc::clone(&gate);
        let batcher: Batcher<u32, u32, Infallible> = Batcher::new(10, move |keys: Vec<u32>| {
            let gate = Arc::clone(&closed);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(keys.into_iter().map(|key| (key, key)).collect())
            }
        });
        let impatient = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.load(1).await }
        });
        tokio::task::yield_now().await;
        impatient.abort();
        gate.add_permits(10);
        assert_eq!(batcher.load(2).await.unwrap(), Some(2));
    }
}
