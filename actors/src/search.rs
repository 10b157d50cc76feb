//! Search in a set of documents, in two ways that can stand in for each other: [`VectorSearch`] finds
//! what is similar, [`ExactSearch`] what contains the words.
//!
//! They share one port, `Port<SearchRequest, SearchReply>`, for a group of kind `data`: when the
//! vectors cannot be had, the words still can.
//!
//! ```
//! use mainstay::spec::{GroupSpec, SupervisorSpec};
//! use mainstay_actors::search::{Document, ExactSearch, VectorSearch};
//!
//! let documents = vec![
//!     Document::new("returns", "Goods can be returned within 30 days."),
//!     Document::new("shipping", "Orders leave our warehouse the next day."),
//! ];
//! let find = GroupSpec::data("find")
//!     .member_spec(VectorSearch::new(&documents)?.spec("vectors"))
//!     .member_spec(ExactSearch::new(&documents).spec("words"));
//! # drop(SupervisorSpec::one_for_one("desk").group(find));
//! # Ok::<(), mainstay::fault::Fault>(())
//! ```
//!
//! Both indexes are built once, in memory, and shared by all lives. They are exact: each query looks at
//! every document (vectors) or at every document with one of its words (words), which is the right
//! thing up to some hundred thousand of them.
//!
//! *Invariant.* The same documents and the same query give the same hits in the same order.

use std::fmt;
use std::sync::Arc;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use mainstay::spec::ChildSpec;
use mainstay::spec::Kind;
use serde::{Deserialize, Serialize};

use words::Words;

mod ngrams;
mod words;

pub use ngrams::{DIMENSIONS, hashed_ngrams};

/// Queries at a time.
const CONCURRENCY: u32 = 8;

/// A document that can be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its name.
    pub id: String,
    /// Its text.
    pub text: String,
}

impl Document {
    /// A document.
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), text: text.into() }
    }
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SearchRequest {
    /// Words, or a question in words.
    pub query: String,
    /// The most hits wanted.
    ///
    /// # Default
    /// 5.
    pub limit: usize,
}

impl SearchRequest {
    /// A search for this.
    pub fn new(query: impl Into<String>) -> Self {
        Self { query: query.into(), limit: 5 }
    }

    /// Sets [`SearchRequest::limit`].
    #[must_use]
    pub fn limit(mut self, hits: usize) -> Self {
        self.limit = hits;
        self
    }
}

impl From<&str> for SearchRequest {
    fn from(query: &str) -> Self {
        Self::new(query)
    }
}

/// What was found, the best first. Nothing found is an answer, and no fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SearchReply {
    /// The hits.
    pub hits: Vec<Hit>,
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hit {
    /// The document.
    pub document: Document,
    /// How well it fits; comparable within one reply only.
    pub score: f64,
}

/// The best of those that fit at all; of two that fit as well, the earlier document.
fn best(
    documents: &[Document],
    scores: impl IntoIterator<Item = (usize, f64)>,
    limit: usize,
) -> SearchReply {
    let mut scores: Vec<_> = scores.into_iter().filter(|(_, score)| *score > 0.0).collect();
    scores.sort_by(|(one, a), (other, b)| b.total_cmp(a).then(one.cmp(other)));
    scores.truncate(limit);
    let hit = |(at, score): (usize, f64)| Hit { document: documents[at].clone(), score };
    SearchReply { hits: scores.into_iter().map(hit).collect() }
}

fn nothing_asked() -> Fault {
    Fault::input_validation("the query holds no word").with_code("empty_query").not_applied()
}

type Embed = dyn Fn(&str) -> Result<Vec<f32>, Fault> + Send + Sync;

/// Finds documents whose vectors point the way the query's does: by cosine, compared with every one.
///
/// By default vectors are made by [`hashed_ngrams`], which needs no model: it finds other forms and
/// spellings of the same words, not other words of the same meaning. Give it a model's with
/// [`VectorSearch::with`].
#[derive(Clone)]
pub struct VectorSearch {
    documents: Arc<[Document]>,
    /// Of length one each, so that a product is a cosine.
    vectors: Arc<[Vec<f32>]>,
    embed: Arc<Embed>,
    least: f64,
}

impl VectorSearch {
    /// The index of these documents, with [`hashed_ngrams`].
    ///
    /// # Errors
    /// None with these vectors; as [`VectorSearch::with`].
    pub fn new(documents: &[Document]) -> Result<Self, Fault> {
        Self::with(documents, |text| Ok(hashed_ngrams(text)))
    }

    /// The index of these documents, with vectors from this function, which is asked for those of the
    /// documents now and for those of the queries later. It may block its thread for a moment; one that
    /// asks a server belongs into a child with [`ChildSpec::blocking`].
    ///
    /// # Errors
    /// What the function says of a document; `Internal` with code `dimensions` when it gives vectors of
    /// different lengths. Later the same of a query, as faults of the attempt.
    pub fn with(
        documents: &[Document],
        embed: impl Fn(&str) -> Result<Vec<f32>, Fault> + Send + Sync + 'static,
    ) -> Result<Self, Fault> {
        let vector = |document: &Document| embed(&document.text).map(unit);
        let vectors: Vec<_> = documents.iter().map(vector).collect::<Result<_, _>>()?;
        if let [first, rest @ ..] = &vectors[..]
            && let Some(other) = rest.iter().find(|other| other.len() != first.len())
        {
            return Err(dimensions(first.len(), other.len()));
        }
        Ok(Self {
            documents: documents.into(),
            vectors: vectors.into(),
            embed: Arc::new(embed),
            least: 0.1,
        })
    }

    /// The least cosine of a hit, from 0 to 1.
    ///
    /// # Default
    /// 0.1.
    #[must_use]
    pub fn least(mut self, cosine: f64) -> Self {
        self.least = cosine;
        self
    }

    /// The child spec: stateless, kind `data`, a read.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        ChildSpec::stateless(id, move || self.clone()).kind(Kind::Data).concurrency(CONCURRENCY)
    }

    /// Searches, supervised by nobody.
    ///
    /// # Errors
    /// `InputValidation` with code `empty_query`; what the vectors' function says.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchReply, Fault> {
        if words::of(&request.query).next().is_none() {
            return Err(nothing_asked());
        }
        let wanted = unit((self.embed)(&request.query)?);
        if let Some(first) = self.vectors.first()
            && first.len() != wanted.len()
        {
            return Err(dimensions(first.len(), wanted.len()));
        }
        let cosine = |vector: &Vec<f32>| -> f64 {
            vector.iter().zip(&wanted).map(|(a, b)| f64::from(a * b)).sum()
        };
        let scores = self.vectors.iter().map(cosine).enumerate();
        let fit = scores.filter(|(_, score)| *score >= self.least);
        Ok(best(&self.documents, fit, request.limit))
    }
}

/// Of length one; of no direction, of no length either, and like nothing.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length.is_finite() && length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    } else {
        vector.fill(0.0);
    }
    vector
}

fn dimensions(wanted: usize, found: usize) -> Fault {
    Fault::internal(format!("a vector has {found} dimensions, another {wanted}"))
        .with_code("dimensions")
}

impl fmt::Debug for VectorSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorSearch")
            .field("documents", &self.documents.len())
            .field("least", &self.least)
            .finish_non_exhaustive()
    }
}

impl Behavior for VectorSearch {
    type Request = SearchRequest;
    type Reply = SearchReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for VectorSearch {
    async fn serve(&self, request: &SearchRequest, _: &Context) -> Result<SearchReply, Fault> {
        self.search(request)
    }
}

/// Finds documents that contain the words of the query, in an inverted index, ranked by BM25. Documents
/// with all of the words come before those with some.
#[derive(Clone)]
pub struct ExactSearch {
    documents: Arc<[Document]>,
    words: Arc<Words>,
}

impl ExactSearch {
    /// The index of these documents.
    pub fn new(documents: &[Document]) -> Self {
        let words = Words::new(documents.iter().map(|document| &*document.text));
        Self { documents: documents.into(), words: Arc::new(words) }
    }

    /// The child spec: stateless, kind `data`, a read.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        ChildSpec::stateless(id, move || self.clone()).kind(Kind::Data).concurrency(CONCURRENCY)
    }

    /// Searches, supervised by nobody.
    ///
    /// # Errors
    /// `InputValidation` with code `empty_query`.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchReply, Fault> {
        let scores = self.words.scores(&request.query).ok_or_else(nothing_asked)?;
        Ok(best(&self.documents, scores, request.limit))
    }
}

impl fmt::Debug for ExactSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactSearch")
            .field("documents", &self.documents.len())
            .finish_non_exhaustive()
    }
}

impl Behavior for ExactSearch {
    type Request = SearchRequest;
    type Reply = SearchReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for ExactSearch {
    async fn serve(&self, request: &SearchRequest, _: &Context) -> Result<SearchReply, Fault> {
        self.search(request)
    }
}

#[cfg(test)]
mod tests;
