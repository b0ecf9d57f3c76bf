//! Asking many questions and judging the answers; what differs is asked again beside a fresh state of etcd before it is called a difference.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::future::join_all;
use indicatif::ProgressBar;
use skein_plugins::etcd::Error;

use super::ask::{Asker, How, Question, Reply, Silence};
use super::compare::{Outcome, Ttl, compare, show_expected, show_reply};
use super::model::{Model, Zone};
use super::state::{State, Store};

/// Questions in flight: enough to keep a server busy, too few to overflow a socket's buffer.
pub(crate) const AT_ONCE: usize = 64;
/// Questions without an answer in a row after which the server is taken for gone.
const SILENT_MAX: usize = AT_ONCE;
/// Times that what differs is asked again while etcd changes.
const ROUNDS: usize = 5;
/// What a change may take from etcd to the server's answers before it counts as a difference.
const SETTLE: Duration = Duration::from_millis(300);

/// A question, and where its answer is from.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) question: Question,
    /// Among the zones.
    pub(crate) zone: usize,
}

/// A question that has been asked.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// What was asked, and how if that matters.
    pub(crate) name: String,
    pub(crate) rtype: String,
    pub(crate) expected: String,
    pub(crate) got: String,
    pub(crate) took: Duration,
    pub(crate) verdict: Verdict,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Ok,
    /// It leads out of the zone and the server could not follow.
    Unresolved,
    /// etcd kept changing under it.
    Changing,
    /// It does not apply here, and why.
    Skipped(String),
    /// What is different.
    Failed(String),
}

/// Why checking ended early.
pub(crate) enum Broken {
    Server(Silence),
    Etcd(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        Broken::Etcd(error)
    }
}

/// Everything that checking needs.
pub(crate) struct Checker<'c> {
    pub(crate) store: &'c Store,
    pub(crate) prefix: &'c str,
    pub(crate) zones: Vec<Zone>,
    pub(crate) how: How,
    pub(crate) ttl: Ttl,
}

impl Checker<'_> {
    /// Asks everything. The checks come back in the order of the tasks.
    pub(crate) async fn run(
        &self,
        state: &State,
        tasks: &[Task],
        bar: &ProgressBar,
    ) -> Result<Vec<Check>, Broken> {
        let mut checks: Vec<Option<Check>> = vec![None; tasks.len()];
        let mut todo: Vec<usize> = (0..tasks.len()).collect();
        self.round(&state.model, tasks, &todo, &mut checks, Some(bar))
            .await?;
        let mut before = None;
        for round in 0..=ROUNDS {
            todo.retain(|at| {
                let check = checks.get(*at).and_then(Option::as_ref);
                check.is_some_and(|check| matches!(check.verdict, Verdict::Failed(_)))
            });
            if todo.is_empty() {
                break;
            }
            // A change that etcd has announced reaches the server in milliseconds; one that has not by then is a difference.
            tokio::time::sleep(SETTLE).await;
            let first = match before.take() {
                Some(state) => state,
                None => State::read(self.store, self.prefix).await?,
            };
            self.round(&first.model, tasks, &todo, &mut checks, None)
                .await?;
            let second = State::read(self.store, self.prefix).await?;
            if first.mark == second.mark {
                break;
            }
            // The answers may be of the one state or the other. What neither explains is looked at again.
            if round == ROUNDS {
                self.forgive_moving(&first.model, &second.model, tasks, &todo, &mut checks);
            }
            before = Some(second);
        }
        Ok(checks.into_iter().flatten().collect())
    }

    /// After the last round: what differs between two states has not been settled, and is no difference.
    fn forgive_moving(
        &self,
        first: &Model,
        second: &Model,
        tasks: &[Task],
        todo: &[usize],
        checks: &mut [Option<Check>],
    ) {
        for at in todo {
            let Some((task, Some(check))) = tasks.get(*at).zip(checks.get_mut(*at)) else {
                continue;
            };
            let Some(zone) = self.zones.get(task.zone) else {
                continue;
            };
            let answer = |model: &Model| model.answer(&self.zones, zone, &task.question);
            if answer(first) != answer(second) {
                check.verdict = Verdict::Changing;
            }
        }
    }

    async fn round(
        &self,
        model: &Model,
        tasks: &[Task],
        todo: &[usize],
        checks: &mut [Option<Check>],
        bar: Option<&ProgressBar>,
    ) -> Result<(), Broken> {
        let next = Cell::new(0);
        let silent = Cell::new(0);
        let answered = Cell::new(false);
        let broken: RefCell<Option<Silence>> = RefCell::new(None);
        let results: RefCell<Vec<(usize, Check)>> = RefCell::default();
        let worker = || async {
            let mut asker = Asker::default();
            while broken.borrow().is_none() {
                let at = next.replace(next.get() + 1);
                let Some((index, task)) = todo.get(at).and_then(|i| Some((*i, tasks.get(*i)?)))
                else {
                    return;
                };
                let reply = asker.ask(&self.how, &task.question).await;
                match &reply {
                    Ok(_) => {
                        silent.set(0);
                        answered.set(true);
                    }
                    Err(silence) => {
                        silent.set(silent.get() + 1);
                        if !answered.get() || silent.get() >= SILENT_MAX {
                            *broken.borrow_mut() = Some(silence.clone());
                        }
                    }
                }
                results
                    .borrow_mut()
                    .push((index, self.judge(model, task, reply)));
                if let Some(bar) = bar {
                    bar.inc(1);
                }
            }
        };
        join_all((0..AT_ONCE.min(todo.len())).map(|_| worker())).await;
        if let Some(silence) = broken.into_inner() {
            return Err(Broken::Server(silence));
        }
        for (index, check) in results.into_inner() {
            if let Some(place) = checks.get_mut(index) {
                *place = Some(check);
            }
        }
        Ok(())
    }

    fn judge(&self, model: &Model, task: &Task, reply: Result<Reply, Silence>) -> Check {
        let question = &task.question;
        let mut check = Check {
            name: skein_plugins::kit::wire::name::display(&question.name).to_string(),
            rtype: question.rtype.to_string(),
            expected: String::new(),
            got: String::new(),
            took: Duration::ZERO,
            verdict: Verdict::Ok,
        };
        let Some(zone) = self.zones.get(task.zone) else {
            return check;
        };
        let expected = model.answer(&self.zones, zone, question);
        match reply {
            Ok(reply) => {
                check.took = reply.took;
                check.verdict = match compare(&zone.name, question, &expected, &reply, self.ttl) {
                    Outcome::Same => Verdict::Ok,
                    Outcome::Unresolved => Verdict::Unresolved,
                    Outcome::Different(what) => Verdict::Failed(what),
                };
                check.got = show_reply(&reply);
            }
            Err(silence) => {
                check.got = silence.to_string();
                check.verdict = Verdict::Failed(check.got.clone());
            }
        }
        check.expected = show_expected(question, &expected);
        check
    }
}
