//! What is wrong with `[watch]`.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay::watch::SHORTEST_WINDOW;

use super::super::snag::{list, meant};
use super::super::turns_around;
use super::*;

/// The longest window, and the longest rest.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Says everything that is wrong with the section.
pub(crate) fn verify(file: &TreeFile, snags: &mut Vec<Snag>) {
    let Some(section) = file.watch.as_ref().map(Spanned::get_ref) else { return };
    let mut verify = Verify { file, usual: usual(file), snags };
    verify.times(section);
    verify.without(section);
    let known: Vec<_> = verify.usual.slos.iter().map(|slo| slo.id.clone()).collect();
    for (id, objective) in &section.objectives {
        let before = verify.usual.slos.iter().find(|slo| slo.id == **id.get_ref());
        let before = before.map(|slo| slo.measure.clone());
        verify.row(id, objective.keys(), before.as_ref(), &known, "objectives");
        let keys = objective.keys();
        if keys.above.or(keys.below).is_none() {
            let message = format!("the objective `{}` has no goal", id.get_ref());
            verify.say(
                id.span(),
                message,
                "where should it be?",
                "add `above = ...` or `below = ...`",
            );
        }
    }
    let known: Vec<_> = verify.usual.alerts.iter().map(|rule| rule.id.clone()).collect();
    for (id, alert) in &section.alerts {
        let before = verify.usual.alerts.iter().find(|rule| rule.id == **id.get_ref());
        let before = before.map(|rule| rule.measure.clone());
        verify.row(id, alert.keys(), before.as_ref(), &known, "alerts");
        let keys = alert.keys();
        let bound = keys.above.or(keys.below);
        if bound.is_none() && (before.is_none() || keys.measure.is_some()) {
            let message = format!("the alert `{}` has no limit", id.get_ref());
            verify.say(
                id.span(),
                message,
                "when does it hold?",
                "add `above = ...` or `below = ...`",
            );
        }
        if let Some(samples) = alert.min_samples.as_ref().filter(|samples| *samples.get_ref() == 0)
        {
            let hint = "leave it out for 20: a rule looks at nothing smaller than one sample";
            verify.say(samples.span(), "an alert of no sample", "at least 1", hint);
        }
    }
    verify.paths(section);
}

struct Verify<'a> {
    file: &'a TreeFile,
    usual: WatchSpec,
    snags: &'a mut Vec<Snag>,
}

impl Verify<'_> {
    fn say(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.snags.push(Snag::new(span, message, label, hint));
    }

    fn times(&mut self, section: &Watch) {
        if let Some(window) = &section.window
            && !(SHORTEST_WINDOW..=LONGEST).contains(&window.get_ref().0)
        {
            let hint = "write \"5m\", the usual one";
            self.say(window.span(), "a window of no use", "from 60 ms to 24 h", hint);
        }
        if let Some(hold) = section.hold.as_ref().filter(|hold| hold.get_ref().0 > LONGEST) {
            let hint = "write \"30s\", the usual time";
            self.say(hold.span(), "an alert that hardly ever ends", "at most 24 h", hint);
        }
    }

    fn without(&mut self, section: &Watch) {
        let slos = self.usual.slos.iter().map(|slo| slo.id.to_string());
        let known: BTreeSet<_> =
            slos.chain(self.usual.alerts.iter().map(|rule| rule.id.to_string())).collect();
        let own = |id: &String| {
            let mut own = section.objectives.keys().chain(section.alerts.keys());
            own.any(|other| other.get_ref() == id)
        };
        for id in &section.without {
            let text = id.get_ref();
            if own(text) {
                let hint = "keep one of the two";
                let message = format!("`{text}` is taken out and put in");
                self.say(id.span(), message, "declared below", hint);
            } else if !known.contains(text) {
                let names = || known.iter().map(String::as_str);
                let hint = match meant(text, names()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("there are: {}", list(names())),
                };
                let message = format!("there is no objective and no alert `{text}`");
                self.say(id.span(), message, "nothing to take out", hint);
            }
        }
    }

    /// Every path from one member to another is watched by something (S81).
    fn paths(&mut self, section: &Watch) {
        let spec = spec(self.file);
        let groups = self.file.groups.iter().filter(|(_, group)| {
            let kind = group.kind.get_ref().watched();
            group.members.get_ref().len() > 1 && !spec.covers_fallback(kind)
        });
        let groups: Vec<_> = groups.collect();
        let Some((_, first)) = groups.first() else { return };
        let paths: Vec<_> = groups
            .iter()
            .map(|(name, group)| {
                let members = group.members.get_ref().iter().map(|it| it.get_ref().as_str());
                format!("`{}` ({})", name.get_ref(), members.collect::<Vec<_>>().join(" -> "))
            })
            .collect();
        // Of what there would be, the one that holds for all kinds, and that of the kind.
        let one = |id: &&Spanned<String>| {
            let only = |id: &str| {
                let mut all = usual(self.file);
                all.slos.retain(|slo| slo.id == id);
                all.alerts.retain(|rule| rule.id == id);
                all
            };
            only(id.get_ref()).covers_fallback(first.kind.get_ref().watched())
        };
        let taken = section.without.iter().filter(one).collect::<Vec<_>>();
        let at = taken.last().map_or(0..0, |id| id.span());
        let ids = list(taken.iter().map(|id| id.get_ref().as_str()));
        let message = format!("nothing tells how these paths fare: {}", paths.join(", "));
        let hint = format!("keep one of {ids}: a path that nobody watches is not taken (S81)");
        self.say(at, message, "the last that would have", hint);
    }

    /// An objective or an alert.
    fn row(
        &mut self,
        id: &Spanned<String>,
        keys: Keys<'_>,
        before: Option<&Measure>,
        known: &[Cow<'static, str>],
        section: &str,
    ) {
        let text = id.get_ref();
        if text.trim().is_empty() || text.chars().any(|c| c.is_control() || turns_around(c)) {
            let hint = "use letters, digits, `.`, `_` and `-`";
            self.say(id.span(), format!("{text:?} cannot be a name"), "shown in lines", hint);
        }
        if let (Some(_), Some(below)) = (keys.above, keys.below) {
            let hint = "keep one of the two, or make two of them";
            self.say(below.span(), format!("`{text}` has two limits"), "besides `above`", hint);
        }
        let Some(measure) = keys.measure else {
            if let Some(span) =
                keys.kind.map(Spanned::span).or_else(|| keys.signal.map(Spanned::span))
            {
                let hint = "add a line `measure = \"...\"`, or remove it";
                self.say(span, "said of nothing that is measured", "of what?", hint);
            }
            match before {
                Some(before) => self.limits(keys, before),
                None => self.unknown(id, known, section),
            }
            return;
        };
        if self.fits(text, measure, keys)
            && let Some(measure) = keys.measure(before)
        {
            self.limits(keys, &measure);
        }
    }

    fn unknown(&mut self, id: &Spanned<String>, known: &[Cow<'static, str>], section: &str) {
        let text = id.get_ref();
        let elsewhere = match section {
            "alerts" => self.usual.slos.iter().any(|slo| slo.id == **text),
            _ => self.usual.alerts.iter().any(|rule| rule.id == **text),
        };
        let hint = match meant(text, known.iter().map(|id| &**id)) {
            _ if elsewhere => {
                let other = if section == "alerts" { "objectives" } else { "alerts" };
                format!("write [watch.{other}.{text}]")
            }
            Some(name) => {
                format!("did you mean `{name}`? One of your own needs `measure = \"...\"`")
            }
            None => "add a line such as `measure = \"error_rate\"`".to_owned(),
        };
        let message = format!("`{text}` measures nothing");
        self.say(id.span(), message, "it is none of the playbook's", hint);
    }

    /// Whether the measure has what it needs.
    fn fits(&mut self, id: &str, measure: &Spanned<Measured>, keys: Keys<'_>) -> bool {
        use Measured::{Availability, Degraded, FallbackSuccess, Mean, P95, Share};
        let what = *measure.get_ref();
        let before = self.snags.len();
        match keys.kind {
            None if what == Degraded => {
                let hint = "add a line such as `kind = \"model\"`";
                self.say(measure.span(), "degraded answers of which groups?", "needs a kind", hint);
            }
            Some(kind) if !matches!(what, Degraded | Availability | FallbackSuccess) => {
                let hint = "remove it: `degraded`, `availability` and `fallback_success` have one";
                self.say(kind.span(), "a kind of groups, and no groups", "of no use", hint);
            }
            Some(kind) => {
                let of = *kind.get_ref();
                let mut groups = self.file.groups.values();
                if !groups.any(|group| *group.kind.get_ref() == of) {
                    let message = format!("there is no {} group", of.name());
                    let hint = "name a kind that a group of this file has";
                    self.say(kind.span(), message, "nothing to measure", hint);
                }
            }
            None => {}
        }
        let signals = |long: Option<bool>| {
            let fitting = SIGNALS.iter().filter(move |(_, is)| long.is_none_or(|long| long == *is));
            fitting.map(|(name, _)| *name)
        };
        match (keys.signal, what) {
            (None, Share | Mean | P95) => {
                let long = what != Share;
                let hint = format!("add `signal = \"...\"`, one of {}", list(signals(Some(long))));
                let message = format!("`{id}` measures a signal and names none");
                self.say(measure.span(), message, "which one?", hint);
            }
            (Some(signal), Share | Mean | P95) => {
                let long = what != Share;
                if !signals(Some(long)).any(|name| name == signal.get_ref()) {
                    let of = if long { "times" } else { "yes or no" };
                    let message = format!("nobody reports `{}` as {of}", signal.get_ref());
                    let hint = format!("there are: {}", list(signals(Some(long))));
                    self.say(signal.span(), message, "no such signal", hint);
                }
            }
            (Some(signal), _) => {
                let hint = "remove it: `share`, `mean` and `p95` have one";
                self.say(signal.span(), "a signal that is not measured", "of no use", hint);
            }
            (None, _) => {}
        }
        before == self.snags.len()
    }

    /// Whether its limits are in the unit of what is measured.
    fn limits(&mut self, keys: Keys<'_>, measure: &Measure) {
        for limit in [keys.above, keys.below].into_iter().flatten() {
            if let Err((message, hint)) = limit.get_ref().read(measure.unit()) {
                self.say(limit.span(), message, "does not fit", hint);
            }
        }
    }
}
