//! Which documents contain a word, and how often.
//!
//! *Invariant.* Words are compared without case, and nothing else is done to them.

use std::collections::BTreeMap;

/// How fast more of the same word stops to count, and how much the length of a document does: the
/// usual constants of BM25.
const SATURATION: f64 = 1.2;
const LENGTH: f64 = 0.75;

/// The words of a text: runs of letters and digits, in lower case.
pub(super) fn of(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

pub(super) struct Words {
    /// For each word the documents that contain it, and how often.
    places: BTreeMap<String, Vec<(usize, f64)>>,
    lengths: Vec<f64>,
    average: f64,
}

impl Words {
    pub(super) fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut places: BTreeMap<String, Vec<(usize, f64)>> = BTreeMap::new();
        let mut lengths = Vec::new();
        for (at, text) in texts.into_iter().enumerate() {
            let mut length = 0.0;
            for word in of(text) {
                length += 1.0;
                let found = places.entry(word).or_default();
                match found.last_mut() {
                    Some((document, times)) if *document == at => *times += 1.0,
                    _ => found.push((at, 1.0)),
                }
            }
            lengths.push(length);
        }
        let average = lengths.iter().sum::<f64>() / (lengths.len().max(1) as f64);
        Self { places, lengths, average: average.max(1.0) }
    }

    /// How well each document with a word of the query fits; `None` for a query without a word.
    pub(super) fn scores(&self, query: &str) -> Option<BTreeMap<usize, f64>> {
        let mut wanted: Vec<_> = of(query).collect();
        wanted.sort();
        wanted.dedup();
        if wanted.is_empty() {
            return None;
        }
        let documents = self.lengths.len() as f64;
        let mut found: BTreeMap<usize, (usize, f64)> = BTreeMap::new();
        for places in wanted.iter().filter_map(|word| self.places.get(word)) {
            let with = places.len() as f64;
            let rare = (1.0 + (documents - with + 0.5) / (with + 0.5)).ln();
            for (document, times) in places {
                let long = 1.0 - LENGTH + LENGTH * self.lengths[*document] / self.average;
                let often = times * (SATURATION + 1.0) / (times + SATURATION * long);
                let (words, score) = found.entry(*document).or_default();
                *words += 1;
                *score += rare * often;
            }
        }
        // More than any sum of the above, which is below (SATURATION + 1) ln(documents + 1) a word.
        let all = (SATURATION + 1.0) * (documents + 2.0).ln() * wanted.len() as f64;
        let scores = found.into_iter().map(|(document, (words, score))| {
            let whole = if words == wanted.len() { all } else { 0.0 };
            (document, whole + score)
        });
        Some(scores.collect())
    }
}
