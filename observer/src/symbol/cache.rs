//! A bounded cache of answers, also of "nothing known", in two generations: what is used stays, the rest goes.

use std::collections::HashMap;
use std::hash::Hash;

/// At most `capacity` answers; an answer not asked for during half of that many new ones is forgotten.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
    evicted: u64,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (capacity / 2).max(1), evicted: 0 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half {
            self.evicted += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Answers forgotten so far to stay within bounds.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_and_its_bound() {
        let mut cache = Cache::new(100);
        cache.insert(0, 0);
        for key in 1..10_000 {
            assert_eq!(cache.get(&0), Some(0), "at {key}");
            cache.insert(key, key);
            assert!(cache.len() <= 100);
        }
        assert_eq!(cache.get(&9_999), Some(9_999));
        assert_eq!(cache.get(&5), None);
        assert!(cache.evicted() > 9_000);
    }
}
