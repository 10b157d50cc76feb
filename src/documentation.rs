//! The long pages: the deal, the words, the map, the figures, the changes.

#[doc = include_str!("docs/semantics.md")]
pub mod semantics {}

#[doc = include_str!("docs/vocabulary.md")]
pub mod vocabulary {}

#[doc = include_str!("docs/architecture.md")]
pub mod architecture {}

#[doc = include_str!("docs/performance.md")]
pub mod performance {}

#[doc = include_str!("docs/changelog.md")]
pub mod changelog {}

#[doc = include_str!("docs/checkpoint-format.md")]
pub mod checkpoint_format {}

#[doc = include_str!("docs/tree-file.md")]
pub mod tree_file {}
