//! The faults of the playbook's first case, from a seed: tools that time out (5 to 10 % of attempts) or
//! fail (2 to 3 %), complaints that are too complex (1 to 2 %). At the default rate of 8 % these are 6, 2
//! and 1.2 %. Simulated models fail as often as tools.

use mainstay::fault::{Class, Fault};
use mainstay_actors::scripted::{Draw, Rates};

/// Of the attempts that fail, so many time out; the rest fails at once.
const TIMEOUTS: f64 = 0.75;
/// Of a tool's failures at once, so many come again at every attempt of the same request.
const LASTING: f64 = 0.3;
/// Of a tool's other failures at once, so many are panics.
const PANICS: f64 = 0.3;
/// Complaints that are too complex, for an attempt that fails.
const COMPLEX: f64 = 0.15;

/// What happens to an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Luck {
    /// It works.
    Well,
    /// It never answers.
    Hangs,
    /// It fails at once.
    Fails(Fault),
    /// It panics.
    Panics,
}

/// How the failures at once are made up.
struct Mix<'a> {
    kinds: &'a [(Class, f64)],
    lasting: f64,
    panics: f64,
}

/// What an injected panic says.
pub(crate) const PANIC: &str = "injected panic";

/// Draws what fails. The same seed fails the same attempts of the same requests, in whatever order they
/// come.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    seed: u64,
    rate: f64,
}

impl Faults {
    pub(crate) fn new(seed: u64, rate: f64) -> Self {
        Self { seed, rate }
    }

    /// An attempt, from 1, of a tool at the request with this key.
    pub(crate) fn tool(&self, tool: &str, key: &str, attempt: u32) -> Luck {
        let kinds = &[(Class::ToolExecution, 1.0)];
        self.attempt(tool, key, attempt, &Mix { kinds, lasting: LASTING, panics: PANICS })
    }

    /// An attempt, from 1, of a model service at the request with this key.
    pub(crate) fn model(&self, service: &str, key: &str, attempt: u32) -> Luck {
        let kinds = &[
            (Class::Network, 0.40),
            (Class::ServerTransient, 0.25),
            (Class::ModelUnavailable, 0.32),
            (Class::RateLimit, 0.03),
        ];
        self.attempt(service, key, attempt, &Mix { kinds, lasting: 0.0, panics: 0.0 })
    }

    /// Whether this complaint is too complex for the full flow.
    pub(crate) fn is_complex(&self, complaint: &str) -> bool {
        let rates = Rates { hang: self.rate * COMPLEX, ..Rates::seeded(self.seed_of("complex")) };
        rates.draw(number(complaint), 1) != Draw::Well
    }

    /// Whether a tool that hangs in this attempt has done its work before.
    pub(crate) fn hangs_late(&self, tool: &str, key: &str, attempt: u32) -> bool {
        let rates = Rates { hang: 0.5, ..Rates::seeded(self.seed_of(tool) ^ 1) };
        rates.draw(number(key), attempt) != Draw::Well
    }

    /// A delay in milliseconds, the same for the same key.
    pub(crate) fn millis(&self, key: &str, from: u64, to: u64) -> u64 {
        from + number(key) % (to - from)
    }

    fn attempt(&self, who: &str, key: &str, attempt: u32, mix: &Mix<'_>) -> Luck {
        let lasting = self.rate * (1.0 - TIMEOUTS) * mix.lasting;
        // Given that it does not last, so that both together come to the rate.
        let passing = if lasting < 1.0 { (self.rate - lasting) / (1.0 - lasting) } else { 0.0 };
        let timeouts = passing * TIMEOUTS / (1.0 - (1.0 - TIMEOUTS) * mix.lasting);
        let panics = (passing - timeouts) * mix.panics;
        let of =
            |share: f64| mix.kinds.iter().map(|(class, part)| (*class, part * share)).collect();
        let always = Rates { others: of(lasting), ..Rates::seeded(self.seed_of(who) ^ 2) };
        let each = Rates {
            hang: timeouts,
            panic: panics,
            others: of(passing - timeouts - panics),
            ..Rates::seeded(self.seed_of(who))
        };
        let key = number(key);
        match (always.draw(key, 0), each.draw(key, attempt)) {
            (Draw::Fail(class), _) | (_, Draw::Fail(class)) => {
                let fault = Fault::new(class, "injected");
                Luck::Fails(fault.with_code("injected").not_applied())
            }
            (_, Draw::Hang) => Luck::Hangs,
            (_, Draw::Panic) => Luck::Panics,
            _ => Luck::Well,
        }
    }

    fn seed_of(&self, who: &str) -> u64 {
        self.seed.rotate_left(32) ^ number(who)
    }
}

/// FNV-1a: the same in every process, unlike the standard library's hasher.
fn number(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
