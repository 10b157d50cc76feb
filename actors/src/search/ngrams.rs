//! Vectors without a model: the trigrams of the words, hashed.
//!
//! *Invariant.* A function of the text: the same in every process and on every machine.

use super::words;

/// How long the vectors of [`hashed_ngrams`] are.
pub const DIMENSIONS: usize = 512;

/// A vector of [`DIMENSIONS`] numbers for a text: each word, and each run of three letters in it, adds
/// to or takes from one of them, as its hash says. Texts that share many pieces of words point the same
/// way. It knows spelling, not meaning.
pub fn hashed_ngrams(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSIONS];
    let mut add = |piece: &str, weight: f32| {
        let hash = fnv(piece);
        let sign = if hash >> 63 == 0 { weight } else { -weight };
        vector[(hash % DIMENSIONS as u64) as usize] += sign;
    };
    for word in words::of(text) {
        add(&word, 1.0);
        // The edges of a word say more than its middle.
        let letters: Vec<char> = format!("^{word}$").chars().collect();
        for run in letters.windows(3) {
            add(&run.iter().collect::<String>(), 0.5);
        }
    }
    vector
}

/// FNV-1a: unlike std's hasher the same everywhere.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
