//! `mainstay check --chaos`: the tree of the file, with its groups, policies, limits and agents, is tried
//! at the playbook's failure rates.
//!
//! *Invariant.* Nothing outside is asked and nothing waits by a real clock. Every question asked is
//! counted once, by how it ended.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use mainstay::checkpoint::MemoryStore;
use mainstay::error::CallError;
use mainstay::fate::Answer;
use mainstay::fault::Class;
use mainstay::system::{RecoverOptions, System, SystemOptions};
use mainstay::watch::{MIN_SAMPLES, Measure, Signal, SloState};
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::chat::{ChatReply, ChatRequest, Message};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::build::Tree;
use super::build::stage::{Injection, Stage};
use super::check::align;
use super::profile::{CHAOS, RATES};
use super::{Failed, points, say};

/// From the end of a question to the next.
const PACE: Duration = Duration::from_secs(1);
/// After which a question without a fate is lost: longer than any wait that a file may ask for.
const LOST: Duration = Duration::from_secs(100 * 3600);
/// The longest window there is: all of a trial is measured.
const WINDOW: Duration = Duration::from_secs(86_400);

/// The share of attempts that S94 aims to stay below.
const MOST: f64 = 0.1;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) requests: u32,
    pub(crate) seed: u64,
    pub(crate) json: bool,
}

/// How the questions ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Ends {
    requests: u32,
    /// Answered as the file means it.
    succeeded: u32,
    /// Answered, by a stand-in or with the help of one.
    degraded: u32,
    /// Answered with a text that is always the same.
    defaulted: u32,
    failed: u32,
    /// Left to a person: whether something has happened is unknown, or the question ends lives.
    escalated: u32,
    /// Without any end.
    lost: u32,
}

impl Ends {
    fn count<R, Q>(&mut self, end: Option<&Result<Answer<R>, CallError<Q>>>) {
        let count = match end {
            None => &mut self.lost,
            Some(Ok(answer)) if answer.defaulted => &mut self.defaulted,
            Some(Ok(answer)) if answer.degraded => &mut self.degraded,
            Some(Ok(_)) => &mut self.succeeded,
            Some(Err(CallError::Unknown { .. } | CallError::Quarantined { .. })) => {
                &mut self.escalated
            }
            Some(Err(_)) => &mut self.failed,
        };
        *count += 1;
        self.requests += 1;
    }
}

/// What came of one rate.
#[derive(Debug)]
struct Tried {
    percent: u32,
    /// Without what the profile adds.
    alone: bool,
    /// Some of what is put in nobody can make good.
    refuses: bool,
    /// The objectives of the profile.
    own: Vec<Cow<'static, str>>,
    ends: Ends,
    injected: BTreeMap<&'static str, u64>,
    objectives: Vec<SloState>,
}

impl Tried {
    /// Whether what is put in is past what the playbook aims at in all (S94): it promises nothing of such
    /// a rate, so what comes of it is shown, and only that no question is lost is judged.
    fn is_past(&self) -> bool {
        let rates = self.objectives.iter().filter(|state| state.slo.measure == Measure::ErrorRate);
        let mut measured = rates.filter_map(|state| state.actual).map(|actual| actual.value);
        self.network_is_past() || measured.any(|rate| rate >= MOST)
    }

    /// Whether the network alone is.
    fn network_is_past(&self) -> bool {
        f64::from(self.percent) / 100.0 >= MOST
    }

    /// Whether the goal holds at this rate. What a profile aims at (S65, S71, S77), it aims at with the
    /// failures that it names, however many they are together. But each names some that nobody can make good
    /// (funds are insufficient, a question is too hard), and what counts those says nothing of the tree.
    fn holds(&self, state: &SloState) -> bool {
        let counts_refusals = matches!(
            state.slo.measure,
            Measure::Availability
                | Measure::AvailabilityOf(_)
                | Measure::RequestErrors
                | Measure::Recovery
                // A default in the place of such an answer is a fallback that has not helped.
                | Measure::FallbackSuccess
                | Measure::FallbackSuccessOf(_)
        );
        if counts_refusals && self.refuses {
            return false;
        }
        match self.own.contains(&state.slo.id) {
            true => !self.network_is_past(),
            false => !self.is_past(),
        }
    }

    fn missed(&self) -> impl Iterator<Item = &SloState> {
        let missed = |state: &&SloState| judged(state) && state.met == Some(false);
        self.objectives.iter().filter(|state| self.holds(state)).filter(missed)
    }

    fn named(&self) -> String {
        format!("{} %{}", self.percent, if self.alone { " alone" } else { "" })
    }
}

/// The share of attempts that fail is what is put in, and not what comes of it; and a few samples say
/// nothing.
fn judged(state: &SloState) -> bool {
    let samples = state.actual.map_or(0, |actual| actual.samples);
    state.slo.measure != Measure::ErrorRate && samples >= MIN_SAMPLES
}

/// Tries the tree. The clock must be a paused one.
///
/// # Errors
/// [`Failed`] where an objective is missed or a question is lost.
pub(crate) async fn run(tree: &mut Tree, trial: Trial) -> anyhow::Result<()> {
    // Nobody types. How long they would have taken says nothing of the tree.
    tree.wait_for_nobody("no person is asked in a trial");
    let mut all = Vec::new();
    if tree.file.profile.is_some() {
        // With what a profile adds the rates may be past the goal of S94, and most goals hold below it.
        all.push(at(tree, RATES[0], true, trial).await?);
    }
    for percent in RATES {
        all.push(at(tree, percent, false, trial).await?);
    }
    let lost: u32 = all.iter().map(|tried| tried.ends.lost).sum();
    let mut wrong: Vec<_> = all
        .iter()
        .filter_map(|tried| {
            let missed: Vec<_> = tried.missed().map(|state| &*state.slo.id).collect();
            let at = tried.named();
            (!missed.is_empty()).then(|| format!("at {at}, {} missed", missed.join(", ")))
        })
        .collect();
    if lost > 0 {
        wrong.push(format!("{lost} lost"));
    }
    if trial.json {
        say(as_json(tree, trial, &all, wrong.is_empty()));
    } else {
        say(page(tree, trial, &all).trim_end());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    // A program has read it already.
    Err(Failed(if trial.json { String::new() } else { wrong.join("; ") }).into())
}

/// What is injected at this rate: the playbook's for every tree, and, unless that is `alone`, the most of the
/// profile's.
fn injections(tree: &Tree, percent: u32, alone: bool) -> Vec<Injection> {
    let share = f64::from(percent) / 100.0;
    let mut all: Vec<Injection> =
        CHAOS.iter().map(|it| Injection { class: it.class, on: it.on, rate: share }).collect();
    let profile = tree.file.profile.as_ref().filter(|_| !alone);
    for it in profile.map_or(&[][..], |profile| profile.get_ref().chaos()) {
        // The profile's rate of what is injected already is below it.
        if !CHAOS.iter().any(|always| always.class == it.class && always.on == it.on) {
            all.push(Injection { class: it.class, on: it.on, rate: it.most });
        }
    }
    all
}

async fn at(tree: &mut Tree, percent: u32, alone: bool, trial: Trial) -> anyhow::Result<Tried> {
    let injected = injections(tree, percent, alone);
    let refuses = injected.iter().any(|it| it.class == Class::Business);
    let stage = Stage::new(trial.seed, &injected, &tree.file);
    tree.play(stage.clone());
    let spec = tree.spec()?;
    let options =
        SystemOptions::new().watch(tree.watch().window(WINDOW)).points(points::spec(&tree.file));
    let system = if tree.file.store.is_some() {
        // What is stored is neither needed nor touched.
        let mut recover = RecoverOptions::default();
        recover.system = options;
        System::recover_observed(spec, Arc::new(MemoryStore::new()), recover).await?.0
    } else {
        System::start_with(spec, options).await?
    };
    tree.attach(&system);
    let mut ends = Ends::default();
    if tree.asks_model() {
        let port = system.port::<ChatRequest, ChatReply>(tree.entry())?;
        let request = tree.question()?;
        ask(trial, &stage, &system, &mut ends, |question| {
            let (port, mut request) = (port.clone(), request.clone());
            request.messages.push(Message::user(question));
            async move { port.call(request).await }
        })
        .await;
    } else {
        let port = system.port::<AgentRequest, AgentReply>(tree.entry())?;
        ask(trial, &stage, &system, &mut ends, |question| {
            let port = port.clone();
            async move { port.call(AgentRequest::new(question)).await }
        })
        .await;
    }
    let objectives = system.metrics().slos;
    system.stop().await;
    let profile = tree.file.profile.as_ref().map(|profile| profile.get_ref().watched().slos());
    let own = profile.into_iter().flatten().map(|slo| slo.id).collect();
    Ok(Tried { percent, alone, refuses, own, ends, injected: stage.injected(), objectives })
}

/// Asks all questions, each after the end of the one before: nobody waits behind another.
async fn ask<R, Q, F>(
    trial: Trial,
    stage: &Stage,
    system: &System,
    ends: &mut Ends,
    call: impl Fn(String) -> F,
) where
    F: Future<Output = Result<Answer<R>, CallError<Q>>>,
{
    for number in 1..=trial.requests {
        sleep(PACE).await;
        let began = Instant::now();
        let question = format!("question {number}");
        let doomed = stage.dooms(&question);
        let end = timeout(LOST, call(question)).await.ok();
        if let Some(Ok(_)) = &end {
            for name in ["response", "generation"] {
                system.signal(name, Signal::Took(began.elapsed()));
            }
        }
        if !doomed {
            // A default is an answer, and no piece of work; somebody has to do what nothing came of.
            let usable = matches!(&end, Some(Ok(answer)) if !answer.defaulted);
            let repair = !matches!(&end, Some(Ok(_)));
            for (name, is_so) in [("usable", usable), ("repair", repair)] {
                system.signal(name, if is_so { Signal::Yes } else { Signal::No });
            }
        }
        ends.count(end.as_ref());
    }
}

fn page(tree: &Tree, trial: Trial, all: &[Tried]) -> String {
    let mut page = format!(
        "{}: tried with {} questions at each rate, one after another, by a clock that waits \
         for nobody; seed {}\n  models and tools are played: nothing outside is asked, and nothing is done\n",
        tree.name, trial.requests, trial.seed
    );
    let head = [
        "network",
        "questions",
        "succeeded",
        "degraded",
        "defaulted",
        "failed",
        "escalated",
        "lost",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(all.iter().map(|tried| {
        let Ends { requests, succeeded, degraded, defaulted, failed, escalated, lost } = tried.ends;
        let counts = [requests, succeeded, degraded, defaulted, failed, escalated, lost];
        let [a, b, c, d, e, f, g] = counts.map(|count| count.to_string());
        [tried.named(), a, b, c, d, e, f, g]
    }));
    align(&mut page, &lines);
    let _ = writeln!(page, "\nInjected");
    for tried in all {
        let counts: Vec<_> =
            tried.injected.iter().map(|(class, count)| format!("{class} {count}")).collect();
        let counts = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
        let _ = writeln!(page, "  {}  {counts}", tried.named());
    }
    let _ = writeln!(page, "\nObjectives");
    let mut lines = vec![vec!["".to_owned(), "what".to_owned(), "goal".to_owned()]];
    lines[0].extend(all.iter().map(Tried::named));
    let first = all.first().map(|tried| &tried.objectives[..]).unwrap_or_default();
    for (index, state) in first.iter().enumerate() {
        let states: Vec<_> =
            all.iter().filter_map(|it| Some((it.objectives.get(index)?, it))).collect();
        if states.iter().all(|(state, _)| state.actual.is_none()) {
            continue;
        }
        let slo = &state.slo;
        let mut line = vec![slo.id.to_string(), slo.name.to_string(), slo.target_text()];
        line.extend(states.into_iter().map(|(state, tried)| verdict(state, tried.holds(state))));
        lines.push(line);
    }
    let rows: Vec<[String; 7]> = lines
        .into_iter()
        .filter_map(|mut line| {
            line.resize(7, String::new());
            line.try_into().ok()
        })
        .collect();
    align(&mut page, &rows);
    let past: Vec<_> = all.iter().filter(|it| it.is_past()).map(Tried::named).collect();
    if !past.is_empty() {
        let own = match all.iter().any(|it| it.is_past() && !it.network_is_past()) {
            true => ", and where the network is below it, what the profile aims at",
            false => "",
        };
        let _ = writeln!(
            page,
            "  at {} what is put in is past the goal of S94: it is shown, and judged is only that nothing is lost{own}",
            past.join(", ")
        );
    }
    let _ = writeln!(
        page,
        "  judged from {MIN_SAMPLES} samples on; what nothing was measured of is left out"
    );
    page
}

fn verdict(state: &SloState, holds: bool) -> String {
    let Some(actual) = state.actual else { return "-".to_owned() };
    let value = state.slo.measure.unit().show(actual.value);
    match state.met {
        _ if state.slo.measure == Measure::ErrorRate => format!("{value} (injected)"),
        _ if !judged(state) => format!("{value} of {}", actual.samples),
        Some(true) => format!("{value} met"),
        Some(false) if !holds => format!("{value} (missed)"),
        Some(false) => format!("{value} MISSED"),
        None => value,
    }
}

fn as_json(tree: &Tree, trial: Trial, all: &[Tried], ok: bool) -> Value {
    let objective = |tried: &Tried, state: &SloState| {
        json!({
            "id": state.slo.id, "name": state.slo.name, "goal": state.slo.target_text(),
            "actual": state.actual.map(|actual| actual.value),
            "samples": state.actual.map(|actual| actual.samples),
            "met": state.met.filter(|_| judged(state)), "judged": judged(state) && tried.holds(state),
        })
    };
    let rates: Vec<_> = all
        .iter()
        .map(|tried| {
            let measured = tried.objectives.iter().filter(|state| state.actual.is_some());
            json!({
                "network_percent": tried.percent, "alone": tried.alone, "judged": !tried.is_past(),
                "ends": tried.ends, "injected": tried.injected,
                "objectives": measured.map(|state| objective(tried, state)).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"tree": tree.name, "seed": trial.seed, "rates": rates, "ok": ok})
}
