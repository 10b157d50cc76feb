//! The bank: accounts, a journal of entries and the users' outbox, in an embedded database that knows
//! nothing of the runtime. It is the world that the agent acts on.
//!
//! *Invariant.* An act is one transaction, durable before it is answered. An entry is posted at most once
//! for each idempotency key, and one that was undone stays undone, also if it comes later than its
//! undo. The outbox takes no keys: whoever writes to it twice has written twice. A database that fails ends the
//! run, and no tool answers that it did: that would be taken for a fault of what it was asked to do.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::plan::{ACCOUNTS, OPENING, Plan};
use crate::points::{Failure, Points};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const BALANCES: TableDefinition<'_, u32, i64> = TableDefinition::new("balances");
/// Number to transfer, account, amount.
const ENTRIES: TableDefinition<'_, u64, (u32, u32, i64)> = TableDefinition::new("entries");
/// What stands of a transfer and its side (whether it is the credit).
const STANDING: TableDefinition<'_, (u32, bool), i64> = TableDefinition::new("standing");
/// Idempotency key to whether the act stands, and its entry.
const KEYS: TableDefinition<'_, &str, (bool, u64)> = TableDefinition::new("keys");
/// Number to transfer and whether it says that the transfer is done.
const OUTBOX: TableDefinition<'_, u64, (u32, bool)> = TableDefinition::new("outbox");
/// A notice to its last number, to be found by.
const TOLD: TableDefinition<'_, (u32, bool), u64> = TableDefinition::new("told");

/// One side of a transfer: the amount of a debit is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) transfer: u32,
    pub(crate) account: u32,
    pub(crate) amount: i64,
}

/// What the user is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) transfer: u32,
    /// Done, or undone.
    pub(crate) done: bool,
}

/// A notice on its way to the user: the transfer's own is message 0, those sent after it count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) notice: Notice,
    pub(crate) number: u32,
}

/// Why an act did not take place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The bank says no.
    #[error("{0}")]
    Rule(String),
    /// The transaction was aborted.
    #[error("the transaction was aborted")]
    Aborted,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(String),
}

macro_rules! database_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for Refused {
            fn from(error: $error) -> Self {
                Self::Database(error.to_string())
            }
        }
    )*};
}

database_errors!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// See the [module](self).
pub(crate) struct Bank {
    database: Database,
    path: PathBuf,
    /// Nobody else's.
    id: u64,
    points: Arc<Points>,
    /// Whoever writes, until it was told how that ended: what comes later finds a database that has failed before,
    /// and does not know why.
    writing: Mutex<()>,
    /// Whether its tools may use it.
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Bank {
    /// Opens the bank of this run, or makes it when `fresh` says that there is none to be missed. With `room`
    /// its disk is full once this process has written so many bytes.
    pub(crate) fn open(
        path: &Path,
        plan: &Plan,
        fresh: bool,
        points: Arc<Points>,
        room: Option<u64>,
    ) -> Result<Self, String> {
        let fail =
            |error: &dyn std::fmt::Display| format!("database \"{}\": {error}", path.display());
        if !path.exists() {
            if !fresh {
                return Err(fail(
                    &"it is missing, and the store beside it belongs to a run: restore it from a copy of \
                           the same moment as the store, or use another --store",
                ));
            }
            found(path, plan).map_err(|error| fail(&error))?;
        }
        // Of a file that ends too early it panics, which says nothing to whoever reads it here.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let opened = std::panic::catch_unwind(|| match room {
            Some(bytes) => Disk::open(path, bytes),
            None => Database::open(path),
        });
        std::panic::set_hook(hook);
        let damaged =
            |_| fail(&"it is damaged: restore it from a copy of the same moment as the store");
        let database = opened.map_err(damaged)?.map_err(|error| fail(&error))?;
        let (is_open, opened) = (Mutex::new(false), Condvar::new());
        let (path, writing) = (path.to_owned(), Mutex::new(()));
        let mut bank = Self { database, path, id: 0, points, writing, is_open, opened };
        let number = |name| bank.number(name).map_err(|error| fail(&error));
        let (transfers, seed) = (number("transfers")?, number("seed")?);
        if (transfers, seed) != (u64::from(plan.transfers), plan.seed) {
            return Err(fail(&format!(
                "it belongs to the run with --transfers {transfers} --seed {seed}, not to this one with \
                 --transfers {} --seed {}; go on with that one, or use another --store",
                plan.transfers, plan.seed
            )));
        }
        let earlier =
            || fail(&"an earlier version of this program has made it; use another --store");
        bank.id = bank.number("id").map_err(|_| earlier())?;
        Ok(bank)
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// From now on its tools are served. Before that they wait, and nobody has acted or looked.
    pub(crate) fn serve(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }

    /// What a tool does, once it is served. It does not come back from a database that fails: the run ends, and
    /// before that nobody tries again or undoes what the next start finds as it is.
    fn work<T>(&self, work: impl FnOnce() -> Result<T, Refused>) -> Result<T, Refused> {
        let mut is_open = self.is_open.lock();
        while !*is_open {
            self.opened.wait(&mut is_open);
        }
        drop(is_open);
        let result = work();
        while let Err(Refused::Database(_)) = result {
            std::thread::park();
        }
        result
    }

    /// Tells of a database that has failed.
    fn tell<T>(&self, result: Result<T, Refused>) -> Result<T, Refused> {
        if let Err(failed @ Refused::Database(_)) = &result {
            let text = format!(
                "database \"{}\": {failed}; the same arguments go on once it can be used",
                self.path.display()
            );
            self.points.fail(Failure::Beside(text));
        }
        result
    }

    /// Reads.
    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let result = self.database.begin_read().map_err(Refused::from).and_then(|at| read(&at));
        if result.is_err() {
            // Behind whoever has found it first.
            drop(self.writing.lock());
        }
        self.tell(result)
    }

    /// Refuses a store that ends before what the bank was written after: it has lost what it had made
    /// durable, and what is known about acts with it.
    pub(crate) fn check(&self, store: &str, commits: u64) -> Result<(), String> {
        let known = self.number("commits")?;
        if commits >= known {
            self.points.reach(known);
            return Ok(());
        }
        Err(format!(
            "store \"{store}\" ends at commit {commits}, and the database was written after commit {known}: \
             {} commits are missing; restore it from a copy that has them",
            known - commits
        ))
    }

    /// A number that was written down.
    pub(crate) fn number(&self, name: &str) -> Result<u64, String> {
        let read = || -> Result<Option<u64>, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            Ok(meta.get(name)?.map(|value| value.value()))
        };
        read().map_err(|error| error.to_string())?.ok_or_else(|| format!("\"{name}\" is missing"))
    }

    /// Posts one side of a transfer, once for each key; the number of its entry. With `abort` the
    /// transaction is given up when everything but the commit is done.
    pub(crate) fn post(&self, key: &str, leg: Leg, abort: bool) -> Result<u64, Refused> {
        self.act(|act| {
            let mut keys = act.open_table(KEYS)?;
            match keys.get(key)?.map(|known| known.value()) {
                Some((true, entry)) => return Ok(entry),
                Some((false, _)) => return Err(Refused::Rule("it was undone".to_owned())),
                None => {}
            }
            let held = act.open_table(BALANCES)?.get(leg.account)?.map_or(0, |held| held.value());
            if leg.amount < 0 && held + leg.amount < 0 {
                return Err(Refused::Rule(format!("account {} lacks the funds", leg.account)));
            }
            let taken =
                act.open_table(STANDING)?.get((leg.transfer, false))?.map(|taken| taken.value());
            if leg.amount > 0 && taken != Some(-leg.amount) {
                return Err(Refused::Rule("nothing was taken that could be given".to_owned()));
            }
            let entry = enter(act, leg, false)?;
            keys.insert(key, (true, entry))?;
            if abort { Err(Refused::Aborted) } else { Ok(entry) }
        })
    }

    /// Undoes what was posted under this key; and if nothing was, sees to it that nothing will be.
    pub(crate) fn undo(&self, key: &str, leg: Leg) -> Result<(), Refused> {
        self.act(|act| {
            let mut keys = act.open_table(KEYS)?;
            let known = keys.get(key)?.map(|known| known.value());
            let entry = match known {
                Some((true, _)) => enter(act, leg, true)?,
                Some((false, entry)) => entry,
                None => 0,
            };
            keys.insert(key, (false, entry))?;
            Ok(())
        })
    }

    /// Writes a notice to the outbox, however often; its number.
    pub(crate) fn notify(&self, notice: Notice) -> Result<u64, Refused> {
        self.act(|act| {
            let mut outbox = act.open_table(OUTBOX)?;
            let number = outbox.len()? + 1;
            let about = (notice.transfer, notice.done);
            outbox.insert(number, about)?;
            act.open_table(TOLD)?.insert(about, number)?;
            Ok(number)
        })
    }

    /// The number of this notice, if it was written.
    pub(crate) fn noticed(&self, notice: Notice) -> Result<Option<u64>, Refused> {
        self.work(|| {
            self.read(|at| {
                let told = at.open_table(TOLD)?.get((notice.transfer, notice.done))?;
                Ok(told.map(|number| number.value()))
            })
        })
    }

    /// Every entry, in order.
    pub(crate) fn entries(&self) -> Result<Vec<Leg>, Refused> {
        self.read(|at| {
            let mut entries = Vec::new();
            for row in at.open_table(ENTRIES)?.iter()? {
                let (transfer, account, amount) = row?.1.value();
                entries.push(Leg { transfer, account, amount });
            }
            Ok(entries)
        })
    }

    /// Every notice, in order.
    pub(crate) fn notices(&self) -> Result<Vec<Notice>, Refused> {
        self.read(|at| {
            let mut notices = Vec::new();
            for row in at.open_table(OUTBOX)?.iter()? {
                let (transfer, done) = row?.1.value();
                notices.push(Notice { transfer, done });
            }
            Ok(notices)
        })
    }

    /// What each account holds.
    pub(crate) fn balances(&self) -> Result<Vec<i64>, Refused> {
        self.read(|at| {
            let mut balances = Vec::new();
            for row in at.open_table(BALANCES)?.iter()? {
                balances.push(row?.1.value());
            }
            Ok(balances)
        })
    }

    /// One transaction: committed when `act` succeeds, durable when this returns.
    fn act<T>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.work(|| {
            self.points.pass(|| {
                let _writing = self.writing.lock();
                self.tell(self.write(act))
            })
        })
    }

    fn write<T>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        match act(&transaction) {
            Ok(done) => {
                transaction.open_table(META)?.insert("commits", self.points.durable())?;
                transaction.commit()?;
                Ok(done)
            }
            Err(refused) => {
                transaction.abort()?;
                Err(refused)
            }
        }
    }
}

/// Puts an entry into the books, or the one that reverses it.
fn enter(act: &WriteTransaction, leg: Leg, reverse: bool) -> Result<u64, Refused> {
    let amount = if reverse { -leg.amount } else { leg.amount };
    let mut balances = act.open_table(BALANCES)?;
    let Some(held) = balances.get(leg.account)?.map(|held| held.value()) else {
        return Err(Refused::Rule(format!("there is no account {}", leg.account)));
    };
    balances.insert(leg.account, held + amount)?;
    let side = (leg.transfer, leg.amount > 0);
    let mut standing = act.open_table(STANDING)?;
    let stood = standing.get(side)?.map_or(0, |stood| stood.value());
    standing.insert(side, stood + amount)?;
    let mut entries = act.open_table(ENTRIES)?;
    let number = entries.len()? + 1;
    entries.insert(number, (leg.transfer, leg.account, amount))?;
    Ok(number)
}

/// Makes the bank of a run: whole or not at all.
fn found(path: &Path, plan: &Plan) -> Result<(), Refused> {
    let draft = path.with_extension("new");
    let failed = |error: std::io::Error| Refused::Database(error.to_string());
    if draft.exists() {
        std::fs::remove_file(&draft).map_err(failed)?;
    }
    let database =
        Database::create(&draft).map_err(|error| Refused::Database(error.to_string()))?;
    let act = database.begin_write()?;
    {
        let mut balances = act.open_table(BALANCES)?;
        for account in 0..ACCOUNTS {
            balances.insert(account, OPENING)?;
        }
        let mut meta = act.open_table(META)?;
        meta.insert("transfers", u64::from(plan.transfers))?;
        meta.insert("seed", plan.seed)?;
        // A bank and a store that were begun together know each other by it.
        meta.insert("id", RandomState::new().build_hasher().finish())?;
        meta.insert("commits", 0)?;
        meta.insert("sum", u64::from(ACCOUNTS) * OPENING.unsigned_abs())?;
        // A table that was never opened cannot be read.
        act.open_table(ENTRIES)?;
        act.open_table(STANDING)?;
        act.open_table(KEYS)?;
        act.open_table(OUTBOX)?;
        act.open_table(TOLD)?;
    }
    act.commit()?;
    drop(database);
    std::fs::rename(&draft, path).map_err(failed)?;
    // Its name is durable, too, before anything that the store knows of is done in it.
    if cfg!(unix) {
        let folder =
            path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}
