//! A bench with an obedient runner, and the sentences it proves.

mod ends;
mod limits;
mod operators;
mod resets;
mod siblings;
mod table;
mod walks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::error::ChildError;

pub(super) const PERMANENT: ChildOptions = ChildOptions {
    restart: RestartType::Permanent,
    significant: false,
    is_supervisor: false,
    child_limit: None,
};
pub(super) const TRANSIENT: ChildOptions =
    ChildOptions { restart: RestartType::Transient, ..PERMANENT };
pub(super) const TEMPORARY: ChildOptions =
    ChildOptions { restart: RestartType::Temporary, ..PERMANENT };

pub(super) fn panic() -> ExitCause {
    ExitCause::Panic("boom".into())
}

pub(super) fn options(strategy: Strategy, count: u32) -> FamilyOptions {
    let intensity = Limit::new(count, Duration::from_secs(5));
    FamilyOptions { strategy, intensity, ..FamilyOptions::default() }
}

/// A family, a clock, and what the family last said, written short:
/// `run stop c+ b- start a2` (`+`: a restart follows; `2`: the life), `arm 50ms`, `reply 1 started`.
pub(super) struct Bench {
    pub(super) family: Family,
    pub(super) now: Moment,
    names: BTreeMap<Key, Arc<str>>,
    pub(super) run: Option<RunId>,
    pub(super) token: Option<Token>,
    pub(super) said: Vec<Output>,
}

impl Bench {
    /// Not booted.
    pub(super) fn fresh(options: FamilyOptions, children: &[(&str, ChildOptions)]) -> Self {
        let mut family = Family::new(ChildPath::new("top"), options);
        let mut names = BTreeMap::new();
        for (id, options) in children {
            let id: Arc<str> = Arc::from(*id);
            let key = family.add_static(Arc::clone(&id), *options, Incarnation::NONE).unwrap();
            names.insert(key, id);
        }
        Self { family, now: Moment::START, names, run: None, token: None, said: Vec::new() }
    }

    /// Booted.
    pub(super) fn new(options: FamilyOptions, children: &[(&str, ChildOptions)]) -> Self {
        let mut bench = Self::fresh(options, children);
        let text = bench.feed(Input::Boot);
        if !text.contains("booted") {
            assert!(bench.done().contains("booted"));
        }
        bench
    }

    /// `abc`: three permanent children.
    pub(super) fn of(options: FamilyOptions, ids: &str) -> Self {
        let ids: Vec<_> = ids.chars().map(|c| c.to_string()).collect();
        let children: Vec<_> = ids.iter().map(|id| (id.as_str(), PERMANENT)).collect();
        Self::new(options, &children)
    }

    pub(super) fn feed(&mut self, input: Input) -> String {
        self.said = self.family.on(input, self.now);
        for info in self.family.which_children() {
            self.names.insert(info.key, info.id);
        }
        let mut text = Vec::new();
        for output in self.said.clone() {
            match &output {
                Output::Run { run, .. } => self.run = Some(*run),
                Output::Arm { token, .. } => self.token = Some(*token),
                _ => {}
            }
            text.push(self.write(&output));
        }
        text.join(", ")
    }

    fn write(&self, output: &Output) -> String {
        let name = |key: &Key| self.names[key].to_string();
        match output {
            Output::Run { stop, parallel, until, start, .. } => {
                let mut text = String::from("run");
                if !stop.is_empty() {
                    text += if *parallel { " stop together" } else { " stop" };
                }
                for (key, follows) in stop {
                    text += &format!(" {}{}", name(key), if *follows { '+' } else { '-' });
                }
                if let Some(until) = until {
                    text += &format!(" within {:?}", until.since(self.now));
                }
                text += if start.is_empty() { "" } else { " start" };
                for (key, life) in start {
                    text += &format!(" {}{}", name(key), life.0);
                }
                text
            }
            Output::CancelRun(_) => "cancel".into(),
            Output::Arm { at, .. } => format!("arm {:?}", at.since(self.now)),
            Output::Quarantined { key, .. } => format!("quarantined {}", name(key)),
            Output::Rests { key, .. } => format!("rests {}", name(key)),
            Output::Removed { id, .. } => format!("removed {id}"),
            Output::Reply { ticket, reply } => {
                let text = match reply {
                    Reply::Started(key) => format!("started {}", name(key)),
                    Reply::Terminated => "terminated".into(),
                    Reply::Restarted => "restarted".into(),
                    Reply::Deleted => "deleted".into(),
                    Reply::Reset => "reset".into(),
                    Reply::StartRefused(error) => match error {
                        StartError::Child { .. } => "failed".into(),
                        StartError::AlreadyStarted(_) => "already started".into(),
                        StartError::AlreadyPresent(_) => "already present".into(),
                        StartError::MaxChildren { limit, .. } => format!("max {limit}"),
                        StartError::SupervisorGone(_) => "gone".into(),
                        other => other.to_string(),
                    },
                    Reply::ChildRefused(error) => match error {
                        ChildError::NotFound(_) => "not found".into(),
                        ChildError::Supervisor(_) => "a supervisor".into(),
                        ChildError::Running(_) => "running".into(),
                        ChildError::Restarting(_) => "restarting".into(),
                        ChildError::StartFailed { .. } => "failed".into(),
                        ChildError::SupervisorGone(_) => "gone".into(),
                        ChildError::Recorded(..) => "not recorded".into(),
                    },
                };
                format!("reply {} {text}", ticket.0)
            }
            Output::Restarting { key, scope, restarts, .. } => {
                format!("restarting {} of {scope} ({restarts})", name(key))
            }
            Output::Booted => "booted".into(),
            Output::Finished { cause, .. } => format!("finished {}", cause.kind()),
        }
    }

    pub(super) fn key(&self, id: &str) -> Key {
        self.family.key_of(id).unwrap()
    }

    pub(super) fn status(&self, id: &str) -> ChildStatus {
        self.family.status(self.key(id)).unwrap()
    }

    pub(super) fn exit(&mut self, id: &str, cause: ExitCause) -> String {
        self.exit_widen(id, cause, None)
    }

    pub(super) fn exit_widen(
        &mut self,
        id: &str,
        cause: ExitCause,
        widen: Option<Strategy>,
    ) -> String {
        let key = self.key(id);
        let incarnation = self.family.incarnation_of(key).unwrap();
        self.feed(Input::Exited { key, incarnation, cause, widen })
    }

    /// The child panics.
    pub(super) fn crash(&mut self, id: &str) -> String {
        self.exit(id, panic())
    }

    /// The last run is done.
    pub(super) fn done(&mut self) -> String {
        let run = self.run.unwrap();
        self.feed(Input::RunDone { run, result: Ok(()) })
    }

    /// The last run is done but for this child.
    pub(super) fn fails(&mut self, id: &str) -> String {
        let (run, key) = (self.run.unwrap(), self.key(id));
        let cause = ExitCause::StartFailed("no".into());
        self.feed(Input::RunDone { run, result: Err((key, cause)) })
    }

    /// The last timer is due.
    pub(super) fn due(&mut self) -> String {
        let token = self.token.unwrap();
        self.feed(Input::Due { token })
    }

    pub(super) fn stop(&mut self) -> String {
        self.feed(Input::Stop { cause: ExitCause::Stopped, until: None })
    }

    pub(super) fn start(&mut self, ticket: u64, id: &str, options: ChildOptions) -> String {
        let last = Incarnation::NONE;
        self.feed(Input::Start { ticket: Ticket(ticket), id: id.into(), options, last })
    }

    pub(super) fn terminate(&mut self, ticket: u64, id: &str) -> String {
        self.feed(Input::Terminate { ticket: Ticket(ticket), id: id.into() })
    }

    pub(super) fn restart(&mut self, ticket: u64, id: &str) -> String {
        self.feed(Input::Restart { ticket: Ticket(ticket), id: id.into() })
    }

    pub(super) fn delete(&mut self, ticket: u64, id: &str) -> String {
        self.feed(Input::Delete { ticket: Ticket(ticket), id: id.into() })
    }

    pub(super) fn reset(&mut self, ticket: u64, id: Option<&str>) -> String {
        self.feed(Input::Reset { ticket: Ticket(ticket), id: id.map(Arc::from), until: None })
    }

    pub(super) fn reset_within(
        &mut self,
        ticket: u64,
        id: Option<&str>,
        limit: Duration,
    ) -> String {
        let (ticket, id) = (Ticket(ticket), id.map(Arc::from));
        self.feed(Input::Reset { ticket, id, until: Some(self.now + limit) })
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }
}
