//! `kiln top`: the farm, live in a terminal. The model and the drawing are pure; input and output are here.

mod draw;
#[cfg(test)]
mod fixtures;
mod known;
mod model;
mod rate;
mod screen;
mod source;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use kiln_api::Change;
use kiln_client::{ClientError, EventStream};
use ratatui::{buffer::Buffer, layout::Rect};
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use self::{
    draw::{DrawTime, ScreenLook},
    model::{FarmSnapshot, KeyAction, Model},
    rate::SPAN,
    screen::{FullScreen, UserInput},
    source::FarmSource,
};
use crate::{
    args::TopArgs,
    commands::Context,
    exit::{CommandError, Exit, Outcome},
    farm,
    output::OutputMode,
    signals::Signals,
};

/// The shortest time between two readings of the farm.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two readings if nothing renders and no event arrives.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after a slow reading, as a multiple of its duration: it spares the server of a large farm.
const PAUSE_FACTOR: u32 = 4;
/// The time between two drawings of the clock.
const TICK: Duration = Duration::from_secs(1);
/// The shortest time between two drawings: thousands of events may arrive.
const FRAME: Duration = Duration::from_millis(50);
/// The time that the last requests get at the end.
const LAST_ACTIONS: Duration = Duration::from_secs(3);
/// The width of a snapshot that is not printed on a terminal.
const WIDTH: u16 = 120;

pub async fn run(context: &Context, args: TopArgs) -> Outcome<Exit> {
    let client = farm::need(&context.settings(&args.farm)?)?;
    let human = context.output.reader() == OutputMode::Human;
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let live = human && !args.once && io::stdout().is_terminal() && !dumb;
    // Opened before the first reading, so that no event is missed between them.
    let events = client.events(None, None).await?;
    let source = FarmSource::new(client.clone());
    let first = source.read().await?;
    let mut model = Model::new(client.url().to_owned(), now().ms);
    if let Some(done) = source.read_history(&first, now().ms).await? {
        let at = now().ms;
        model.rate.read_history(at - SPAN, done.into_iter().map(|done| done.min(at)));
    }
    model.read(first, now().ms);
    if live {
        return Live::new(model, source, events)?.run().await;
    }
    print_snapshot(context, &model);
    Ok(Exit::Done)
}

/// Prints the farm as it is now: as text for people, as JSON for programs.
fn print_snapshot(context: &Context, model: &Model) {
    let now = now();
    let value = json!({
        "server": model.url, "at_ms": now.ms, "frames_per_minute": model.rate.per_minute(now.ms),
        "workers": model.farm.workers, "jobs": model.farm.jobs,
    });
    context.output.result(&value, || {
        let look = ScreenLook { colour: false, live: false };
        let width = ratatui::crossterm::terminal::size().ok().filter(|_| io::stdout().is_terminal());
        let width = width.map_or(WIDTH, |(width, _)| width);
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, draw::whole_height(model, look)));
        draw::screen(model, &now, look, &mut buffer);
        draw::text(&buffer)
    });
}

/// An answer of the server.
enum News {
    Read(Result<FarmSnapshot, ClientError>),
    Done(KeyAction, Result<String, ClientError>),
}

struct Live {
    model: Model,
    source: FarmSource,
    events: EventStream,
    screen: FullScreen,
    inputs: mpsc::UnboundedReceiver<UserInput>,
    signals: Signals,
    look: ScreenLook,
    news: (mpsc::UnboundedSender<News>, mpsc::UnboundedReceiver<News>),
    actions: Actions,
    /// The reading that is in progress, and its start.
    reading: Option<(JoinHandle<()>, Instant)>,
    /// The bounds of the time of the next reading.
    earliest: Instant,
    latest: Instant,
    /// Something changed since the last reading.
    stale: bool,
}

impl Live {
    fn new(model: Model, source: FarmSource, events: EventStream) -> Outcome<Self> {
        let terminal = |error: io::Error| {
            CommandError::failed(format!(
                "this terminal cannot be drawn on ({error}); `kiln top --once` prints the same as text"
            ))
        };
        let signals = Signals::new().map_err(|error| CommandError::failed(error.to_string()))?;
        let screen = FullScreen::open().map_err(terminal)?;
        let soon = Instant::now() + BUSY_INTERVAL;
        let news = mpsc::unbounded_channel();
        let actions = Actions::new(source.clone(), news.0.clone());
        Ok(Self {
            model,
            source,
            events,
            screen,
            inputs: screen::inputs(),
            signals,
            look: ScreenLook { colour: console::colors_enabled(), live: true },
            news,
            actions,
            reading: None,
            earliest: soon,
            latest: soon,
            stale: true,
        })
    }

    async fn run(mut self) -> Outcome<Exit> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut next, mut changed) = (Instant::now(), true);
        loop {
            if changed && Instant::now() >= next {
                self.draw()?;
                (next, changed) = (Instant::now() + FRAME, false);
            }
            let due = if self.stale { self.earliest } else { self.latest };
            tokio::select! {
                () = tokio::time::sleep_until(next), if changed => continue,
                () = self.signals.next() => return Ok(Exit::Interrupted),
                input = self.inputs.recv() => match input {
                    Some(UserInput::Key(key)) => {
                        let action = self.model.press(key, now().ms);
                        match action {
                            Some(KeyAction::Quit) => {
                                self.actions.end().await;
                                return Ok(Exit::Done);
                            }
                            Some(action) => self.actions.add(action),
                            None => {}
                        }
                    }
                    Some(UserInput::Resized) => {}
                    // The terminal is gone.
                    None => return Ok(Exit::Interrupted),
                },
                event = self.events.next() => self.on_event(event)?,
                Some(news) = self.news.1.recv() => self.on_news(news)?,
                () = tokio::time::sleep_until(due), if self.reading.is_none() => self.read(),
                _ = tick.tick() => {}
            }
            changed = true;
        }
    }

    fn draw(&mut self) -> Outcome {
        let (model, look) = (&self.model, self.look);
        let drawn = self.screen.draw(|buffer| draw::screen(model, &now(), look, buffer));
        drawn.map_err(|error| {
            CommandError::failed(format!("the terminal can no longer be drawn on ({error})"))
        })
    }

    fn on_event(&mut self, event: Result<kiln_api::Event, ClientError>) -> Outcome {
        match event {
            Ok(event) => {
                if matches!(event.change, Change::WorkerState { .. } | Change::WorkerRemoved) {
                    self.source.workers_changed();
                }
                self.model.apply_event(&event, now().ms);
            }
            Err(error) if error.is_transient() => {
                // Events may be missing.
                self.source.workers_changed();
                self.model.lose_server(error.to_string(), now().ms);
            }
            Err(error) => return Err(error.into()),
        }
        self.stale = true;
        Ok(())
    }

    fn read(&mut self) {
        self.stale = false;
        let (source, news) = (self.source.clone(), self.news.0.clone());
        let reading = tokio::spawn(async move {
            // The screen may be gone.
            let _ = news.send(News::Read(source.read().await));
        });
        self.reading = Some((reading, Instant::now()));
    }

    fn on_news(&mut self, news: News) -> Outcome {
        match news {
            News::Read(read) => {
                let took = self.reading.take().map_or(Duration::ZERO, |(_, since)| since.elapsed());
                self.earliest = Instant::now() + BUSY_INTERVAL.max(took * PAUSE_FACTOR);
                match read {
                    Ok(farm) => {
                        self.model.read(farm, now().ms);
                    }
                    Err(error) if error.is_transient() => self.model.lose_server(error.to_string(), now().ms),
                    Err(error) => return Err(error.into()),
                }
                let moves = self.model.away.is_some() || self.model.farm.renders();
                self.latest = self.earliest + if moves { Duration::ZERO } else { IDLE_INTERVAL };
            }
            News::Done(KeyAction::Explain(job), said) => {
                self.model.show_explanation(job, said.unwrap_or_else(|error| error.to_string()));
            }
            News::Done(_, said) => {
                self.source.workers_changed();
                self.model.say(said.unwrap_or_else(|error| error.to_string()), now().ms);
                self.stale = true;
            }
        }
        Ok(())
    }
}

/// Carries out actions one after the other, so that the later of two priorities holds.
struct Actions {
    queue: Option<mpsc::UnboundedSender<KeyAction>>,
    work: JoinHandle<()>,
}

impl Actions {
    fn new(source: FarmSource, news: mpsc::UnboundedSender<News>) -> Self {
        let (queue, mut actions) = mpsc::unbounded_channel();
        let work = tokio::spawn(async move {
            while let Some(action) = actions.recv().await {
                let said = source.carry_out(&action).await;
                // The screen may be gone.
                let _ = news.send(News::Done(action, said));
            }
        });
        Self { queue: Some(queue), work }
    }

    fn add(&self, action: KeyAction) {
        if let Some(queue) = &self.queue {
            // The receiver lives until the sender is dropped.
            let _ = queue.send(action);
        }
    }

    /// Waits a while for the last requests.
    async fn end(&mut self) {
        self.queue = None;
        let _ = tokio::time::timeout(LAST_ACTIONS, &mut self.work).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some((reading, _)) = &self.reading {
            reading.abort();
        }
    }
}

fn now() -> DrawTime {
    let at = Timestamp::now();
    DrawTime {
        ms: at.as_millisecond(),
        clock: at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string(),
    }
}
