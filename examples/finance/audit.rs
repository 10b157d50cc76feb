//! What became of the transfers, as the database has it.
//!
//! *Invariant.* Nothing here asks the runtime. It is told only which transfers wait for a person; these may
//! stand in between, but what was done to them twice, or said of them and is not so, still counts.

use std::collections::{HashMap, HashSet};

use crate::bank::{Bank, Leg, Notice, Refused};
use crate::plan::{Plan, Transfer};

/// What stands of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Done,
    Undone,
    /// Neither: money is on its way, or lost.
    Half,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) sum_before: i64,
    pub(crate) sum_after: i64,
    pub(crate) done: u32,
    pub(crate) undone: u32,
    /// Of those undone, the ones that asked for more than there was.
    pub(crate) beyond: u32,
    pub(crate) half: u32,
    /// Cents of the transfers that are neither.
    pub(crate) half_cents: i64,
    /// Transfers that do not stand as they should and wait for a person.
    pub(crate) waiting: u32,
    /// Cents by which the sum is lower for what waits: debits without their credit, and the other way
    /// round.
    waiting_cents: i64,
    /// Transfers that nobody waits for and that are neither done nor undone, or of which the user was
    /// told nothing; of which the user was told the opposite; and accounts that do not hold what the
    /// entries say.
    pub(crate) lost: u32,
    /// Debits and credits that took place more than once.
    pub(crate) duplicated: u32,
    /// Notices beyond the first of a transfer.
    pub(crate) notices_duplicated: u32,
    /// What of this is not as it should be, in words: the first few.
    pub(crate) offenders: Vec<String>,
}

/// So many offenders are named, the others are counted.
const NAMED: usize = 8;

impl Audit {
    /// `waiting` are the transfers of which a person has to find out what became of an act.
    pub(crate) fn of(bank: &Bank, plan: &Plan, waiting: &HashSet<u32>) -> Result<Self, String> {
        let failed = |refused: Refused| refused.to_string();
        let books = Books::read(bank).map_err(failed)?;
        let balances = bank.balances().map_err(failed)?;
        let sum = bank.number("sum")?;
        let mut audit = Self {
            sum_before: i64::try_from(sum).map_err(|_| format!("{sum} is no sum"))?,
            sum_after: balances.iter().sum(),
            done: 0,
            undone: 0,
            beyond: 0,
            half: 0,
            half_cents: 0,
            waiting: 0,
            waiting_cents: 0,
            lost: books.wrong_balances(&balances),
            duplicated: 0,
            notices_duplicated: 0,
            offenders: Vec::new(),
        };
        for id in 0..plan.transfers {
            audit.count(&books, plan, plan.transfer(id), waiting.contains(&id));
        }
        Ok(audit)
    }

    fn count(&mut self, books: &Books, plan: &Plan, transfer: Transfer, waits: bool) {
        let state = books.state(transfer);
        match state {
            State::Done => self.done += 1,
            State::Undone => {
                self.undone += 1;
                self.beyond += u32::from(plan.is_beyond_funds(transfer.id));
            }
            State::Half => {
                self.half += 1;
                self.half_cents += transfer.amount;
            }
        }
        let told = books.told(transfer.id);
        let fits = told.first().is_some_and(|done| {
            (*done && state == State::Done) || (!*done && state == State::Undone)
        });
        // Whoever was told of a transfer in between was told something that is not so.
        let excused = waits && told.is_empty();
        if !fits && excused {
            self.waiting += 1;
            self.waiting_cents += books.missing(transfer.id);
        }
        let lost = !fits && !excused;
        let repeated = books.repeated(transfer);
        self.lost += u32::from(lost);
        self.notices_duplicated += told.len().saturating_sub(1) as u32;
        self.duplicated += repeated;
        if (lost || repeated > 0 || told.len() > 1) && self.offenders.len() < NAMED {
            self.offenders.push(format!(
                "transfer {} is {}, its user was told {}",
                transfer.id,
                match state {
                    State::Done if repeated > 0 => "done more than once",
                    State::Done => "done",
                    State::Undone => "undone",
                    State::Half => "in between",
                },
                match told {
                    [] => "nothing".to_owned(),
                    [true] => "that it is done".to_owned(),
                    [false] => "that it is undone".to_owned(),
                    more => format!("{} times", more.len()),
                }
            ));
        }
    }

    /// What the database has that it should not have.
    pub(crate) fn verdict(&self) -> String {
        let wrong = (self.lost + self.duplicated + self.notices_duplicated) as usize;
        let mut text = "the database does not say what it should".to_owned();
        for (n, offender) in self.offenders.iter().enumerate() {
            text.push_str(if n == 0 { ": " } else { "; " });
            text.push_str(offender);
        }
        if wrong > self.offenders.len() {
            text.push_str(&format!(" ({wrong} faults in all)"));
        }
        text
    }

    /// Whether nothing is lost and nothing was done twice.
    pub(crate) fn is_sound(&self) -> bool {
        self.sum_before == self.sum_after + self.waiting_cents
            && self.lost + self.duplicated + self.notices_duplicated == 0
    }
}

/// Entries and notices by transfer.
pub(crate) struct Books {
    entries: HashMap<u32, Vec<Leg>>,
    notices: HashMap<u32, Vec<bool>>,
}

impl Books {
    pub(crate) fn read(bank: &Bank) -> Result<Self, Refused> {
        let mut books = Self { entries: HashMap::new(), notices: HashMap::new() };
        for entry in bank.entries()? {
            books.entries.entry(entry.transfer).or_default().push(entry);
        }
        for Notice { transfer, done } in bank.notices()? {
            books.notices.entry(transfer).or_default().push(done);
        }
        Ok(books)
    }

    fn of(&self, transfer: u32) -> &[Leg] {
        self.entries.get(&transfer).map_or(&[], Vec::as_slice)
    }

    /// What the user was told, in order: whether it is done.
    pub(crate) fn told(&self, transfer: u32) -> &[bool] {
        self.notices.get(&transfer).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn state(&self, transfer: Transfer) -> State {
        let mut net: HashMap<u32, i64> = HashMap::new();
        for entry in self.of(transfer.id) {
            *net.entry(entry.account).or_default() += entry.amount;
        }
        net.retain(|_, amount| *amount != 0);
        let done =
            HashMap::from([(transfer.from, -transfer.amount), (transfer.to, transfer.amount)]);
        match net {
            net if net.is_empty() => State::Undone,
            net if net == done => State::Done,
            _ => State::Half,
        }
    }

    /// Whether there is anything of this transfer.
    pub(crate) fn has(&self, transfer: u32) -> bool {
        !self.of(transfer).is_empty() || !self.told(transfer).is_empty()
    }

    /// Whether one side of a transfer was posted and not taken back.
    pub(crate) fn stands(&self, transfer: Transfer, is_credit: bool) -> bool {
        let account = if is_credit { transfer.to } else { transfer.from };
        let of_side = self.of(transfer.id).iter().filter(|leg| leg.account == account);
        of_side.map(|leg| leg.amount).sum::<i64>() != 0
    }

    /// By how much the entries of a transfer lower the sum.
    fn missing(&self, transfer: u32) -> i64 {
        -self.of(transfer).iter().map(|entry| entry.amount).sum::<i64>()
    }

    /// How often a side was posted beyond the first time. A transfer is never tried again as a whole.
    fn repeated(&self, transfer: Transfer) -> u32 {
        let posted = |account, amount| {
            let same = |entry: &&Leg| (entry.account, entry.amount) == (account, amount);
            self.of(transfer.id).iter().filter(same).count().saturating_sub(1) as u32
        };
        posted(transfer.from, -transfer.amount) + posted(transfer.to, transfer.amount)
    }

    fn wrong_balances(&self, balances: &[i64]) -> u32 {
        let mut expected = vec![crate::plan::OPENING; crate::plan::ACCOUNTS as usize];
        for entry in self.entries.values().flatten() {
            if let Some(held) = expected.get_mut(entry.account as usize) {
                *held += entry.amount;
            }
        }
        if expected.len() != balances.len() {
            return expected.len() as u32;
        }
        expected.iter().zip(balances).filter(|(expected, held)| expected != held).count() as u32
    }
}
