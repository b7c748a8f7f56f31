//! What the records of a log must say about each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use crate::record::{Answer, Body, CallInfo, Intent, QuestionAnswered, QuestionAsked, Record, VerdictWord};

/// What later records may refer to.
#[derive(Debug, Default)]
pub(super) struct Rules {
    origin: String,
    /// What each entry is, by index: one byte an entry.
    states: Vec<State>,
    /// The intents without an outcome: the number of the call, by index.
    open: BTreeMap<u64, String>,
    /// The questions that are neither used nor expired.
    questions: BTreeMap<String, Question>,
    time_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ClosedIntent,
    OpenIntent,
    Other,
    Outcome,
}

#[derive(Debug)]
struct Question {
    asked: QuestionAsked,
    approved_by: BTreeSet<String>,
    denied: bool,
}

impl Rules {
    pub(super) fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), ..Self::default() }
    }

    /// Checks the record at `index`; all before it were checked, or could not be read.
    pub(super) fn check(&mut self, index: u64, record: &Record, report: &mut Report) {
        let kind = record.body.kind();
        match report.kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(report.kinds.insert(kind.to_owned(), 1)),
        }
        if record.time_ms < self.time_ms {
            report.clock_went_back += 1;
        }
        self.time_ms = record.time_ms;
        let (state, wrong) = self.relate(index, record);
        if let Body::Unknown(_) = record.body {
            report.unknown += 1;
        }
        if let Some(what) = wrong {
            report.found(format!("entry {index}"), what);
        }
        self.states.resize(usize::try_from(index).unwrap_or(usize::MAX), State::Other);
        self.states.push(state);
    }

    /// Lists the intents that nothing closed.
    pub(super) fn finish(&self, report: &mut Report) {
        report.open_intents = self.open.keys().copied().collect();
    }

    /// What the entry is, and what is wrong with it.
    fn relate(&mut self, index: u64, record: &Record) -> (State, Option<String>) {
        let wrong = match &record.body {
            Body::Intent(intent) => {
                let wrong = self.intent(intent);
                self.open.insert(index, intent.call.id.clone());
                return (State::OpenIntent, wrong);
            }
            Body::Outcome(outcome) => {
                let order = (outcome.started_ms > outcome.ended_ms)
                    .then(|| "an outcome that ended before it was sent".to_owned());
                return (State::Outcome, self.close(index, outcome.intent, &outcome.call).or(order));
            }
            Body::OutcomeUnknown(outcome) => self.close(index, outcome.intent, &outcome.call),
            Body::Delivered(delivered) => self.deliver(delivered.outcome),
            Body::QuestionAnswered(answered) => self.answer(answered),
            Body::QuestionAsked(asked) => self.ask(asked),
            Body::QuestionExpired(expired) => self.questions.remove(&expired.question).is_none().then(|| {
                format!(
                    "question `{}` ends, but it was not asked, or was used or ended before",
                    expired.question
                )
            }),
            Body::Start(start) => (start.origin != self.origin)
                .then(|| format!("a start of the log `{}` in the log `{}`", start.origin, self.origin)),
            Body::Agent(_)
            | Body::Connection(_)
            | Body::Erasure(_)
            | Body::Export(_)
            | Body::Key(_)
            | Body::Lease(_)
            | Body::Person(_)
            | Body::Policy(_)
            | Body::Refusal(_)
            | Body::Secret(_)
            | Body::Stop(_)
            | Body::ToolPin(_)
            | Body::Unknown(_) => None,
        };
        (State::Other, wrong)
    }

    fn state(&mut self, index: u64) -> Option<&mut State> {
        self.states.get_mut(usize::try_from(index).ok()?)
    }

    /// An outcome closes exactly one earlier intent, of the same call, which nothing closed before.
    fn close(&mut self, index: u64, intent: u64, call: &str) -> Option<String> {
        match self.state(intent) {
            None => Some(format!("closes entry {intent}, which is not before entry {index}")),
            Some(state @ State::OpenIntent) => {
                *state = State::ClosedIntent;
                let opened = self.open.remove(&intent).unwrap_or_default();
                (opened != call)
                    .then(|| format!("closes the intent {intent} of call `{opened}` for call `{call}`"))
            }
            Some(State::ClosedIntent) => Some(format!("closes the intent {intent}, which was closed before")),
            Some(State::Other | State::Outcome) => Some(format!("closes entry {intent}, which is no intent")),
        }
    }

    fn deliver(&mut self, outcome: u64) -> Option<String> {
        match self.state(outcome) {
            // An answer can get lost, be released again, and get lost again.
            Some(State::Outcome) => None,
            _ => Some(format!("says that entry {outcome} was delivered, which is no outcome before it")),
        }
    }

    fn ask(&mut self, asked: &QuestionAsked) -> Option<String> {
        let question = Question { asked: asked.clone(), approved_by: BTreeSet::new(), denied: false };
        let before = self.questions.insert(asked.question.clone(), question);
        before.map(|_| format!("question `{}` is asked while it is open", asked.question))
    }

    fn answer(&mut self, answered: &QuestionAnswered) -> Option<String> {
        let name = &answered.question;
        let Some(question) = self.questions.get_mut(name) else {
            return Some(format!(
                "an answer to question `{name}`, which was not asked, or was used or ended before"
            ));
        };
        match answered.answer {
            Answer::Approve => drop(question.approved_by.insert(answered.person.clone())),
            Answer::Deny => question.denied = true,
        }
        None
    }

    /// What ran was permitted, or approved by enough people, who were asked about this very thing, once.
    fn intent(&mut self, intent: &Intent) -> Option<String> {
        let Intent { call, judged, persons, question } = intent;
        if call.arguments.is_none() {
            return Some("an intent without a commitment to its arguments".to_owned());
        }
        match (judged.verdict, question) {
            (VerdictWord::Allow, None) => None,
            (VerdictWord::Allow, Some(_)) => {
                Some("an intent that was allowed, and yet names a question".to_owned())
            }
            (VerdictWord::Ask, None) => Some("an intent that had to be asked about, and was not".to_owned()),
            (VerdictWord::Ask, Some(name)) => {
                let Some(question) = self.questions.remove(name) else {
                    return Some(format!(
                        "an intent by question `{name}`, which was not asked, or was used or ended before"
                    ));
                };
                question.permits(call, intent, persons)
            }
            (VerdictWord::Deny, _) => Some("an intent that the rules had denied".to_owned()),
        }
    }
}

impl Question {
    fn permits(&self, call: &CallInfo, intent: &Intent, persons: &[String]) -> Option<String> {
        let asked = &self.asked;
        let name = &asked.question;
        let of =
            |call: &CallInfo| (call.action.clone(), call.agent.name.clone(), call.pin, call.server.clone());
        if of(call) != of(&asked.call) || intent.judged.policy != asked.judged.policy {
            return Some(format!("an intent by question `{name}`, which was asked about something else"));
        }
        if self.denied {
            return Some(format!("an intent by question `{name}`, to which somebody said no"));
        }
        let approved = persons.iter().collect::<BTreeSet<_>>();
        let enough = u32::try_from(approved.len()).is_ok_and(|count| count >= asked.needed.max(1));
        if !enough || !approved.iter().all(|person| self.approved_by.contains(*person)) {
            return Some(format!("an intent by question `{name}`, which not enough people had approved"));
        }
        None
    }
}
