//! The contents of the screen and the effects of keys. Pure: keys and answers come in, requests go out.

use std::cmp::Reverse;

use kiln_api::{Change, Event, JobView, WorkerView};
use kiln_types::{DesiredState, JobId, JobState, Priority, TaskName};

use super::rate::Rate;

/// The time that a notice is shown, in milliseconds.
const NOTICE: i64 = 6_000;

/// The farm as it was last read.
#[derive(Default)]
pub struct FarmSnapshot {
    /// Running jobs first, then waiting ones, then those that have ended.
    pub jobs: Vec<JobView>,
    pub workers: Vec<WorkerView>,
}

impl FarmSnapshot {
    pub fn new(mut jobs: Vec<JobView>, workers: Vec<WorkerView>) -> Self {
        jobs.sort_by_key(|job| {
            let rank = match job.state {
                JobState::Running => 0,
                JobState::Queued => 1,
                JobState::Paused => 2,
                _ => 3,
            };
            // Open jobs are in the order in which they are served; ended ones have the latest first.
            let ended = job.ended_ms.filter(|_| job.state.is_end());
            let priority = ended.is_none().then_some(Reverse(job.spec.scheduling.priority));
            (rank, priority, ended.map_or(job.created_ms, |ended| -ended), job.id)
        });
        Self { jobs, workers }
    }

    pub fn job(&self, id: JobId) -> Option<&JobView> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// Returns whether progress changes without events.
    pub fn renders(&self) -> bool {
        self.workers.iter().any(|worker| !worker.running.is_empty())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Jobs,
    Workers,
}

/// An overlay of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    Nothing,
    Help,
    /// The question whether to cancel a job.
    Cancel(JobId),
    /// The reason why a job waits; no text until the server has answered. Scrolled by a number of lines.
    Explain {
        job: JobId,
        text: Option<String>,
        scroll: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    Enter,
    Escape,
    /// Ctrl-C, or a signal.
    Interrupt,
    Char(char),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobVerb {
    Pause,
    Resume,
    Cancel,
    Retry,
    Priority(Priority),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerVerb {
    Pause,
    Resume,
    Drain,
}

/// A request that a key makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAction {
    Quit,
    Job(JobId, JobVerb),
    Worker(String, WorkerVerb),
    Explain(JobId),
}

/// The selection, which follows its row for as long as that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Selected<T> {
    row: usize,
    id: Option<T>,
}

impl<T: PartialEq + Clone> Selected<T> {
    const NONE: Self = Self { row: 0, id: None };

    /// Finds the selection in rows that have changed.
    fn settle(&mut self, ids: &[T]) {
        let there = self.id.as_ref().and_then(|id| ids.iter().position(|other| other == id));
        self.move_to(there.unwrap_or(self.row), ids);
    }

    fn move_to(&mut self, row: usize, ids: &[T]) {
        self.row = row.min(ids.len().saturating_sub(1));
        self.id = ids.get(self.row).cloned();
    }
}

pub struct Model {
    /// The server's address.
    pub url: String,
    pub farm: FarmSnapshot,
    pub rate: Rate,
    pub focus: Table,
    pub over: Overlay,
    /// The reason why the server cannot be reached, and since when.
    pub away: Option<(String, i64)>,
    /// A notice, and the time at which it disappears.
    notice: Option<(String, i64)>,
    job: Selected<JobId>,
    worker: Selected<String>,
}

/// The change of a priority by one key.
const PRIORITY_STEP: i16 = 10;
/// The rows that PgUp and PgDn move.
const PAGE: usize = 10;
/// Bytes of a line where lines are short, which bounds how far a text can be scrolled.
const SHORT_LINE: usize = 30;

impl Model {
    pub fn new(url: String, now: i64) -> Self {
        Self {
            url,
            farm: FarmSnapshot::default(),
            rate: Rate::new(now),
            focus: Table::Jobs,
            over: Overlay::Nothing,
            away: None,
            notice: None,
            job: Selected::NONE,
            worker: Selected::NONE,
        }
    }

    /// Takes over the farm as it was read.
    pub fn read(&mut self, farm: FarmSnapshot, now: i64) {
        if self.away.take().is_some() {
            self.say("the server is back", now);
        }
        self.farm = farm;
        self.job.settle(&self.job_ids());
        self.worker.settle(&self.worker_ids());
    }

    /// Takes over an event of the farm.
    pub fn apply_event(&mut self, event: &Event, now: i64) {
        if let Change::TaskDone { name: TaskName { frame: Some(_), .. }, .. } = event.change {
            self.rate.add_frame(event.at_ms, now);
        }
    }

    /// Notes that the server does not answer.
    pub fn lose_server(&mut self, why: String, now: i64) {
        let since = self.away.take().map_or(now, |(_, since)| since);
        self.away = Some((why, since));
    }

    pub fn say(&mut self, text: impl Into<String>, now: i64) {
        self.notice = Some((text.into(), now + NOTICE));
    }

    pub fn notice(&self, now: i64) -> Option<&str> {
        self.notice.as_ref().filter(|(_, until)| now < *until).map(|(text, _)| text.as_str())
    }

    /// Shows why a job waits, if that is still asked for.
    pub fn show_explanation(&mut self, id: JobId, answer: String) {
        if let Overlay::Explain { job, text, .. } = &mut self.over
            && *job == id
        {
            *text = Some(answer);
        }
    }

    pub fn selected_row(&self, table: Table) -> usize {
        match table {
            Table::Jobs => self.job.row,
            Table::Workers => self.worker.row,
        }
    }

    pub fn selected_job(&self) -> Option<&JobView> {
        self.farm.jobs.get(self.job.row)
    }

    pub fn selected_worker(&self) -> Option<&WorkerView> {
        self.farm.workers.get(self.worker.row)
    }

    pub fn press(&mut self, key: Key, now: i64) -> Option<KeyAction> {
        if key == Key::Interrupt {
            return Some(KeyAction::Quit);
        }
        match &mut self.over {
            Overlay::Nothing => self.press_table(key, now),
            Overlay::Cancel(job) => {
                let job = *job;
                self.over = Overlay::Nothing;
                matches!(key, Key::Char('y' | 'Y')).then_some(KeyAction::Job(job, JobVerb::Cancel))
            }
            Overlay::Explain { scroll, .. } if matches!(key, Key::Up | Key::Char('k')) => {
                *scroll = scroll.saturating_sub(1);
                None
            }
            Overlay::Explain { scroll, text, .. } if matches!(key, Key::Down | Key::Char('j')) => {
                let most = text.as_ref().map_or(0, |text| text.len() / SHORT_LINE);
                *scroll = scroll.saturating_add(1).min(u16::try_from(most).unwrap_or(u16::MAX));
                None
            }
            Overlay::Help | Overlay::Explain { .. } => {
                self.over = Overlay::Nothing;
                None
            }
        }
    }

    fn press_table(&mut self, key: Key, now: i64) -> Option<KeyAction> {
        let row = self.selected_row(self.focus);
        match key {
            Key::Char('q' | 'Q') | Key::Escape | Key::Interrupt => return Some(KeyAction::Quit),
            Key::Char('?' | 'h') => self.over = Overlay::Help,
            Key::Tab => {
                self.focus = match self.focus {
                    Table::Jobs => Table::Workers,
                    Table::Workers => Table::Jobs,
                }
            }
            Key::Up | Key::Char('k') => self.select(row.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(row + 1),
            Key::PageUp => self.select(row.saturating_sub(PAGE)),
            Key::PageDown => self.select(row + PAGE),
            Key::Home | Key::Char('g') => self.select(0),
            Key::End | Key::Char('G') => self.select(usize::MAX),
            _ => {
                return match self.focus {
                    Table::Jobs => self.press_job(key, now),
                    Table::Workers => self.press_worker(key, now),
                };
            }
        }
        None
    }

    fn press_job(&mut self, key: Key, now: i64) -> Option<KeyAction> {
        let (id, state) = self.selected_job().map(|job| (job.id, job.state))?;
        match key {
            Key::Char('p') if state == JobState::Paused => {
                return Some(KeyAction::Job(id, JobVerb::Resume));
            }
            Key::Char('p' | 'c' | '+' | '-') if state.is_end() => {
                self.say(format!("job {id} has ended"), now)
            }
            Key::Char('p') => return Some(KeyAction::Job(id, JobVerb::Pause)),
            Key::Char('c') => self.over = Overlay::Cancel(id),
            Key::Char('r') => return Some(KeyAction::Job(id, JobVerb::Retry)),
            Key::Char('+' | '=') => return self.raise(PRIORITY_STEP),
            Key::Char('-') => return self.raise(-PRIORITY_STEP),
            Key::Char('e') | Key::Enter => {
                self.over = Overlay::Explain { job: id, text: None, scroll: 0 };
                return Some(KeyAction::Explain(id));
            }
            Key::Char('d' | 'w') => self.say("Tab goes to the workers", now),
            _ => {}
        }
        None
    }

    /// Changes the priority of the selected job, also on the screen, so that the next key continues from there.
    fn raise(&mut self, by: i16) -> Option<KeyAction> {
        let job = self.farm.jobs.get_mut(self.job.row)?;
        let now = &mut job.spec.scheduling.priority;
        let wanted = (i16::from(now.get()) + by).clamp(0, Priority::MAX.get().into());
        *now = u8::try_from(wanted).ok()?.try_into().ok()?;
        Some(KeyAction::Job(job.id, JobVerb::Priority(*now)))
    }

    fn press_worker(&mut self, key: Key, now: i64) -> Option<KeyAction> {
        let worker = self.selected_worker()?;
        let verb = match key {
            Key::Char('p') if worker.desired == DesiredState::Paused => WorkerVerb::Resume,
            Key::Char('p') => WorkerVerb::Pause,
            Key::Char('d') => WorkerVerb::Drain,
            Key::Char('w') => WorkerVerb::Resume,
            Key::Char('c' | 'r' | 'e') => {
                self.say("Tab goes to the jobs", now);
                return None;
            }
            _ => return None,
        };
        Some(KeyAction::Worker(worker.name.clone(), verb))
    }

    fn select(&mut self, row: usize) {
        match self.focus {
            Table::Jobs => self.job.move_to(row, &self.job_ids()),
            Table::Workers => self.worker.move_to(row, &self.worker_ids()),
        }
    }

    fn job_ids(&self) -> Vec<JobId> {
        self.farm.jobs.iter().map(|job| job.id).collect()
    }

    fn worker_ids(&self) -> Vec<String> {
        self.farm.workers.iter().map(|worker| worker.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::top::fixtures::{NOW, farm, job, model, worker};

    fn press(model: &mut Model, key: Key) -> Option<KeyAction> {
        model.press(key, NOW)
    }

    fn selected(model: &Model) -> u64 {
        model.selected_job().unwrap().id.0
    }

    #[test]
    fn what_runs_comes_first_and_what_has_ended_last() {
        let ids: Vec<u64> = farm().jobs.iter().map(|job| job.id.0).collect();
        assert_eq!(ids, [7, 8, 9, 5, 6]);
    }

    #[test]
    fn the_selection_stays_on_its_job_wherever_that_goes() {
        let mut model = model();
        press(&mut model, Key::Down);
        assert_eq!(selected(&model), 8);
        let mut jobs = farm().jobs;
        jobs.retain(|job| job.id != JobId(7));
        model.read(FarmSnapshot::new(jobs.clone(), Vec::new()), NOW);
        assert_eq!(selected(&model), 8);
        // If it disappears, its neighbour is selected.
        jobs.retain(|job| job.id != JobId(8));
        model.read(FarmSnapshot::new(jobs, Vec::new()), NOW);
        assert_eq!(selected(&model), 9);
        model.read(FarmSnapshot::default(), NOW);
        assert!(model.selected_job().is_none());
        for key in [Key::Down, Key::End, Key::PageUp, Key::Char('p'), Key::Char('e'), Key::Char('c')] {
            assert_eq!(press(&mut model, key), None, "{key:?} on nothing");
        }
        model.read(farm(), NOW);
        assert_eq!(selected(&model), 7);
    }

    #[test]
    fn keys_change_what_is_selected() {
        let mut model = model();
        assert_eq!(press(&mut model, Key::Char('p')), Some(KeyAction::Job(JobId(7), JobVerb::Pause)));
        assert_eq!(press(&mut model, Key::Char('r')), Some(KeyAction::Job(JobId(7), JobVerb::Retry)));
        assert_eq!(press(&mut model, Key::Char('d')), None);
        assert_eq!(model.notice(NOW), Some("Tab goes to the workers"));
        assert_eq!(model.notice(NOW + NOTICE), None, "a notice goes by itself");
        press(&mut model, Key::End);
        assert_eq!(press(&mut model, Key::Char('p')), None);
        assert_eq!(model.notice(NOW), Some("job 6 has ended"));

        let jobs = vec![job(7, "forest", "paused", (0, 0, 5), json!({}))];
        let workers = vec![
            worker("attic", "idle", json!({})),
            worker("desk", "paused", json!({ "desired": "paused" })),
        ];
        model.read(FarmSnapshot::new(jobs, workers), NOW);
        assert_eq!(press(&mut model, Key::Char('p')), Some(KeyAction::Job(JobId(7), JobVerb::Resume)));
        press(&mut model, Key::Tab);
        let attic = |verb| Some(KeyAction::Worker("attic".to_owned(), verb));
        assert_eq!(press(&mut model, Key::Char('d')), attic(WorkerVerb::Drain));
        assert_eq!(press(&mut model, Key::Char('w')), attic(WorkerVerb::Resume));
        assert_eq!(press(&mut model, Key::Char('p')), attic(WorkerVerb::Pause));
        press(&mut model, Key::Char('j'));
        assert_eq!(
            press(&mut model, Key::Char('p')),
            Some(KeyAction::Worker("desk".to_owned(), WorkerVerb::Resume))
        );
        assert_eq!(press(&mut model, Key::Char('q')), Some(KeyAction::Quit));
    }

    #[test]
    fn a_priority_goes_up_and_down_between_its_ends() {
        let mut model = model();
        let priority = |number: u8| {
            Some(KeyAction::Job(JobId(7), JobVerb::Priority(Priority::try_from(number).unwrap())))
        };
        for number in [60, 70, 80, 90, 100, 100] {
            assert_eq!(press(&mut model, Key::Char('+')), priority(number));
        }
        for number in [90, 80, 70, 60, 50, 40, 30, 20, 10, 0, 0] {
            assert_eq!(press(&mut model, Key::Char('-')), priority(number));
        }
        // Jobs are in the order in which they are served.
        let jobs = std::mem::take(&mut model.farm).jobs;
        model.read(FarmSnapshot::new(jobs, Vec::new()), NOW);
        assert_eq!(model.farm.jobs[0].id, JobId(8));
        assert_eq!(selected(&model), 7);
    }

    #[test]
    fn only_yes_cancels() {
        let mut model = model();
        for key in [Key::Char('n'), Key::Escape, Key::Enter, Key::Char('q')] {
            assert_eq!(press(&mut model, Key::Char('c')), None);
            assert_eq!(model.over, Overlay::Cancel(JobId(7)));
            assert_eq!(press(&mut model, key), None, "{key:?}");
            assert_eq!(model.over, Overlay::Nothing);
        }
        press(&mut model, Key::Char('c'));
        assert_eq!(press(&mut model, Key::Char('y')), Some(KeyAction::Job(JobId(7), JobVerb::Cancel)));
        press(&mut model, Key::Char('c'));
        assert_eq!(press(&mut model, Key::Interrupt), Some(KeyAction::Quit), "Ctrl-C always leaves");
    }

    #[test]
    fn an_explanation_that_nobody_asks_for_any_more_is_not_shown() {
        let mut model = model();
        assert_eq!(press(&mut model, Key::Char('e')), Some(KeyAction::Explain(JobId(7))));
        model.show_explanation(JobId(8), "of another job".to_owned());
        assert!(matches!(&model.over, Overlay::Explain { text: None, .. }));
        model.show_explanation(JobId(7), "because\n".repeat(50));
        press(&mut model, Key::Down);
        assert!(matches!(&model.over, Overlay::Explain { text: Some(_), scroll: 1, .. }));
        for _ in 0..1000 {
            press(&mut model, Key::Down);
        }
        assert!(matches!(&model.over, Overlay::Explain { scroll: ..=50, .. }), "it ends somewhere");
        press(&mut model, Key::Escape);
        model.show_explanation(JobId(7), "too late".to_owned());
        assert_eq!(model.over, Overlay::Nothing);
    }

    #[test]
    fn a_server_that_was_away_is_said_to_be_back() {
        let mut model = model();
        model.lose_server("connection refused".to_owned(), NOW);
        model.lose_server("no answer in time".to_owned(), NOW + 5_000);
        assert_eq!(model.away, Some(("no answer in time".to_owned(), NOW)), "since the first");
        model.read(farm(), NOW + 9_000);
        assert_eq!((model.away.as_ref(), model.notice(NOW + 9_000)), (None, Some("the server is back")));
    }
}
