//! The faults of the playbook's third case, from a seed: syntax errors (10 to 15 % of generations), tools
//! that fail (3 to 5 % of their attempts), logic that goes wrong (5 to 10 %). At the default rate of 12 %
//! these are 12, 4 and 7.2 %.

use mainstay::fault::Class;
use mainstay_actors::scripted::{Draw, Rates};

/// Attempts at the tool that fail, for a generation with a syntax error.
const TOOLS: f64 = 1.0 / 3.0;
/// Generations with wrong logic, for one with a syntax error.
const LOGIC: f64 = 0.6;
/// Of the functions with wrong logic, so many are too complex: every generation gets them wrong.
const LASTING: f64 = 0.3;

/// What is wrong with a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is no Python.
    Syntax,
    /// It does something else.
    Logic,
}

/// Draws what fails. The same seed fails the same attempts, in whatever order they come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    seed: u64,
    rate: f64,
}

impl Faults {
    pub(crate) fn new(seed: u64, rate: f64) -> Self {
        Self { seed, rate }
    }

    /// What is wrong with a generation, from 1, of the function with this name.
    pub(crate) fn flaw(&self, name: &str, generation: u32) -> Option<Flaw> {
        let logic = self.rate * LOGIC;
        if self.draws("complex", name, 1, logic * LASTING) {
            return Some(Flaw::Logic);
        }
        if self.draws("syntax", name, generation, self.rate) {
            return Some(Flaw::Syntax);
        }
        self.draws("logic", name, generation, logic * (1.0 - LASTING)).then_some(Flaw::Logic)
    }

    /// Whether the tool fails in this attempt, from 1, at this work.
    pub(crate) fn tool(&self, work: &str, attempt: u32) -> bool {
        self.draws("tool", work, attempt, self.rate * TOOLS)
    }

    /// One of so many, the same for the same generation.
    pub(crate) fn choice(&self, name: &str, generation: u32, of: usize) -> usize {
        let number = number(name) ^ self.seed.rotate_left(24) ^ u64::from(generation);
        (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % of.max(1)
    }

    fn draws(&self, kind: &str, name: &str, attempt: u32, rate: f64) -> bool {
        let seed = self.seed.rotate_left(32) ^ number(kind);
        let rates = Rates { others: vec![(Class::OutputInvalid, rate)], ..Rates::seeded(seed) };
        rates.draw(number(name), attempt) != Draw::Well
    }
}

/// FNV-1a: the same in every process, unlike the standard library's hasher.
fn number(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
