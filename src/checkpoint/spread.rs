//! A hash for keys that nobody can choose: digests and identifiers.
//!
//! The maps of a store are asked several times for each durable step, and the hash of the standard library
//! cost an eighth of it. Keys that users choose, names of journals and of requests, are few, and the seed of each map
//! is random, so that slots cannot be aimed at through contents, whose digests anybody can try out.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

pub(crate) type SpreadMap<K, V> = HashMap<K, V, Spread>;
pub(crate) type SpreadSet<K> = HashSet<K, Spread>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread(u64);

impl Default for Spread {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0_u64))
    }
}

impl BuildHasher for Spread {
    type Hasher = Spreading;

    fn build_hasher(&self) -> Spreading {
        Spreading(self.0)
    }
}

/// Both halves of a product of 128 bits depend on all of its factors.
#[derive(Debug)]
pub(crate) struct Spreading(u64);

impl Spreading {
    fn take(&mut self, word: u64) {
        /// Of the golden ratio: odd, with ones and zeros well mixed.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Spreading {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.take(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.take(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.take(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.take(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.take(number as u64);
    }

    fn write_u128(&mut self, number: u128) {
        self.take(number as u64);
        self.take((number >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::manifest::Digest;
    use crate::id::CheckpointId;

    /// How many of 256 slots so many hashes fall into, by their lowest bits and by their highest.
    fn slots(hashes: impl Iterator<Item = u64>) -> (usize, usize) {
        let hashes: Vec<u64> = hashes.collect();
        let count = |slot: fn(u64) -> u64| {
            hashes.iter().map(|hash| slot(*hash)).collect::<HashSet<_>>().len()
        };
        (count(|hash| hash & 0xff), count(|hash| hash >> 56))
    }

    #[test]
    fn neighbours_are_spread_over_all_slots() {
        let spread = Spread::default();
        // Ids differ in their lowest bits, and in those of the time; of contents any bytes may be alike.
        let low = slots((0..4096).map(|n| spread.hash_one(CheckpointId(n))));
        let high = slots((0..4096).map(|n| spread.hash_one(CheckpointId(n << 80))));
        let digests = slots((0..4096_u32).map(|n| {
            let mut bytes = [7; 32];
            bytes[28..].copy_from_slice(&n.to_le_bytes());
            spread.hash_one(Digest(bytes))
        }));
        let names = slots((0..4096).map(|n| spread.hash_one(format!("journal {n}"))));
        for (name, (lowest, highest)) in
            [("low", low), ("high", high), ("digests", digests), ("names", names)]
        {
            assert!(lowest > 240 && highest > 240, "{name}: {lowest} and {highest} of 256");
        }
    }

    #[test]
    fn no_two_maps_hash_alike() {
        let key = Digest::of(b"content");
        let hashes: HashSet<u64> = (0..64).map(|_| Spread::default().hash_one(key)).collect();
        assert_eq!(hashes.len(), 64);
    }
}
