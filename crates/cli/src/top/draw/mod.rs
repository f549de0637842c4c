//! The drawing of a [`Model`], as a pure function of the model, the time and the size.

mod jobs;
mod look;
mod over;
mod table;
#[cfg(test)]
mod tests;
mod words;
mod workers;

use std::collections::BTreeMap;

use kiln_types::{WorkerState, duration::rough};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use self::table::{clip, line_of, put, row};
use super::model::{Model, Table};
use crate::output::{one_line, text::count};

pub use look::ScreenLook;

/// The time of a drawing.
pub struct DrawTime {
    /// Unix milliseconds.
    pub ms: i64,
    /// The local time in words.
    pub clock: String,
}

/// The lines above the tables.
const HEAD: u16 = 2;
/// The lines of a table besides its rows: an empty one, and the heads.
const FRAME: u16 = 2;

/// Draws the whole screen.
pub fn screen(model: &Model, now: &DrawTime, look: ScreenLook, buffer: &mut Buffer) {
    let area = *buffer.area();
    head(model, now, look, area, buffer);
    let foot = u16::from(look.live);
    let room = area.height.saturating_sub(HEAD + foot + 2 * FRAME);
    let (jobs, workers) = share(room, needs(model, Table::Jobs, look), needs(model, Table::Workers, look));
    let mut y = HEAD;
    for (which, rows) in [(Table::Jobs, jobs), (Table::Workers, workers)] {
        let part = Rect { y, height: rows + FRAME, ..area }.intersection(area);
        table(model, which, now, look, part, buffer);
        y = y.saturating_add(rows + FRAME);
    }
    if look.live {
        if let Some(last) = area.height.checked_sub(1) {
            foot_line(model, now, look, line_of(area, last), buffer);
        }
        over::draw(model, look, area, buffer);
    }
}

/// Returns the height that shows everything.
pub fn whole_height(model: &Model, look: ScreenLook) -> u16 {
    let rows = needs(model, Table::Jobs, look).saturating_add(needs(model, Table::Workers, look));
    rows.saturating_add(HEAD + u16::from(look.live) + 2 * FRAME)
}

/// Returns a picture as text, without the blanks at the ends of lines.
pub fn text(buffer: &Buffer) -> String {
    let area = *buffer.area();
    let line = |y| {
        let mut line = String::new();
        let mut x = 0;
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A wide letter covers the cell behind it.
            x += u16::try_from(table::width(symbol)).unwrap_or(1).max(1);
        }
        line.trim_end().to_owned()
    };
    (0..area.height).map(line).collect::<Vec<_>>().join("\n")
}

/// Returns the lines that a table needs below its heads.
fn needs(model: &Model, which: Table, look: ScreenLook) -> u16 {
    let rows = match which {
        Table::Jobs => model.farm.jobs.len(),
        Table::Workers => model.farm.workers.len(),
    };
    u16::try_from(rows.max(1) + details(model, which, look)).unwrap_or(u16::MAX)
}

/// Returns the number of rows with a line of details below: the selected one or, in a snapshot, jobs with a problem.
fn details(model: &Model, which: Table, look: ScreenLook) -> usize {
    match which {
        Table::Jobs if !look.live => model.farm.jobs.iter().filter(|job| jobs::has_trouble(job)).count(),
        Table::Jobs => usize::from(model.focus == which && !model.farm.jobs.is_empty()),
        Table::Workers => usize::from(look.live && model.focus == which && !model.farm.workers.is_empty()),
    }
}

/// Shares lines between the tables: each gets what it needs or, if there are too few, half of them or what the other leaves.
fn share(room: u16, jobs: u16, workers: u16) -> (u16, u16) {
    if u32::from(jobs) + u32::from(workers) <= u32::from(room) {
        return (jobs, workers);
    }
    let jobs = jobs.min(room - workers.min(room / 2));
    (jobs, workers.min(room - jobs))
}

fn head(model: &Model, now: &DrawTime, look: ScreenLook, area: Rect, buffer: &mut Buffer) {
    let link = match &model.away {
        Some((_, since)) => {
            Span::styled(format!("○ away for {}", rough((now.ms - since).max(0) as f64 / 1000.0)), look.bad())
        }
        None if look.live => Span::styled("● live", look.good()),
        None => Span::raw(""),
    };
    let left = vec![
        Span::styled(" kiln ", look.title()),
        Span::raw(" "),
        Span::raw(one_line(&model.url)),
        Span::raw("  "),
        link,
    ];
    ends(left, vec![Span::styled(now.clock.clone(), look.dim()), Span::raw(" ")], line_of(area, 0), buffer);
    let states = states(model, look);
    let room = usize::from(area.width).saturating_sub(states.iter().map(Span::width).sum());
    ends(states, rate_spans(model, now, look, room), line_of(area, 1), buffer);
}

/// Counts the workers by state: `5 workers: 3 rendering, 1 unavailable, 1 offline`.
fn states(model: &Model, look: ScreenLook) -> Vec<Span<'static>> {
    let workers = &model.farm.workers;
    let mut by_state: BTreeMap<WorkerState, usize> = BTreeMap::new();
    for worker in workers {
        *by_state.entry(worker.state).or_default() += 1;
    }
    let mut spans = vec![Span::raw(format!(" {}", count(workers.len() as u64, "worker")))];
    for (at, (state, number)) in by_state.into_iter().enumerate() {
        spans.push(Span::styled(if at == 0 { ": " } else { ", " }, look.dim()));
        spans.push(Span::styled(format!("{number} {state}"), look.worker(state)));
    }
    spans
}

/// Returns the frames per minute, with a chart of the last minutes if there is room.
fn rate_spans(model: &Model, now: &DrawTime, look: ScreenLook, room: usize) -> Vec<Span<'static>> {
    const BARS: u16 = 20;
    /// Fewer bars make no chart.
    const LEAST_BARS: usize = 6;
    const HEIGHTS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let history = model.rate.history(now.ms, BARS);
    let most = history.iter().flatten().max().copied().unwrap_or(0).max(1);
    let bar = |frames: &Option<u32>| match frames {
        None => " ",
        Some(0) => "▁",
        Some(frames) => HEIGHTS[((*frames as usize * 7).div_ceil(most as usize)).min(7)],
    };
    let Some(rate) = model.rate.per_minute(now.ms) else { return Vec::new() };
    let rate = if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
    let figure = vec![Span::styled(rate, look.bold()), Span::raw(" frames/min ")];
    let left = room.saturating_sub(figure.iter().map(Span::width).sum());
    // Three columns stay empty.
    let bars = left.saturating_sub(3).min(history.len());
    if bars < LEAST_BARS {
        return figure;
    }
    let shown: String = history.iter().skip(history.len() - bars).map(bar).collect();
    let mut spans = vec![Span::styled(shown, look.accent()), Span::raw(" ")];
    spans.extend(figure);
    spans
}

fn table(model: &Model, which: Table, now: &DrawTime, look: ScreenLook, area: Rect, buffer: &mut Buffer) {
    let farm = &model.farm;
    let columns = match which {
        Table::Jobs => jobs::columns(&farm.jobs),
        Table::Workers => workers::columns(farm, now.ms),
    };
    let (rows, nothing) = match which {
        Table::Jobs => (farm.jobs.len(), "no jobs: `kiln submit shot.blend` submits one"),
        Table::Workers => (farm.workers.len(), "no workers: `kiln worker --server URL` on a machine adds it"),
    };
    let focus = model.focus == which;
    // The first line stays empty, and the column at the left is for the mark.
    let Some(body) = area.height.checked_sub(FRAME) else { return };
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let widths = table::widths(&columns, inner.width);
    table::heads(&columns, &widths, line_of(inner, area.y + 1), look, focus, buffer);
    let top = area.y + FRAME;
    if rows == 0 && body > 0 {
        put(buffer, inner.x, top, Line::from(Span::styled(nothing, look.dim())), inner.width);
    }
    let selected = model.selected_row(which);
    let marked = look.live && focus;
    let lines = usize::from(body);
    let detail = details(model, which, look).min(lines.saturating_sub(1));
    let shown = (lines - detail).min(rows);
    // The selected row is in the middle if there are enough rows around it.
    let first = selected.saturating_sub(shown / 2).min(rows - shown);
    let mut y = top;
    for at in first..first + shown {
        let here = marked && at == selected;
        let cells = match which {
            Table::Jobs => jobs::cells(&farm.jobs[at], look),
            Table::Workers => workers::cells(&farm.workers[at], farm, now.ms, look),
        };
        row(&columns, &widths, cells.into_iter(), line_of(inner, y), look, buffer);
        if here {
            buffer.set_style(line_of(area, y), look.selected());
            put(buffer, area.x, y, Line::from(Span::styled("▌", look.accent())), 1);
        }
        y += 1;
        let tells = here || (!look.live && which == Table::Jobs && jobs::has_trouble(&farm.jobs[at]));
        if tells && detail > 0 {
            let said = match which {
                Table::Jobs => jobs::detail(&farm.jobs[at], look),
                Table::Workers => workers::detail(&farm.workers[at], look),
            };
            let indent = 2.min(inner.width);
            put(buffer, inner.x + indent, y, clip(said, inner.width - indent), inner.width - indent);
            y += 1;
        }
    }
    more(first, rows - first - shown, look, line_of(inner, area.y), buffer);
}

/// Draws, at the right above a table, the numbers of rows above and below those that fit.
fn more(above: usize, below: usize, look: ScreenLook, line: Rect, buffer: &mut Buffer) {
    let arrows = [("↑", above), ("↓", below)].into_iter().filter(|(_, rows)| *rows > 0);
    let text = arrows.map(|(arrow, rows)| format!("{arrow}{rows}")).collect::<Vec<_>>().join(" ");
    ends(Vec::new(), vec![Span::styled(text, look.accent())], line, buffer);
}

/// Draws the line of keys, or of the last event.
fn foot_line(model: &Model, now: &DrawTime, look: ScreenLook, line: Rect, buffer: &mut Buffer) {
    let said = model
        .away
        .as_ref()
        .map(|(why, _)| (format!("trying again until it is back: {why}"), look.bad()))
        .or_else(|| model.notice(now.ms).map(|notice| (notice.to_owned(), look.warning())));
    if let Some((text, style)) = said {
        put(
            buffer,
            line.x + 1,
            line.y,
            clip(vec![Span::styled(one_line(&text), style)], line.width.saturating_sub(2)),
            line.width,
        );
        return;
    }
    let keys: &[(&str, &str)] = match model.focus {
        Table::Jobs => &[
            ("q", "quit"),
            ("Tab", "workers"),
            ("↑↓", "select"),
            ("e", "explain"),
            ("p", "pause"),
            ("r", "retry"),
            ("c", "cancel"),
            ("?", "help"),
            ("+-", "priority"),
        ],
        Table::Workers => &[
            ("q", "quit"),
            ("Tab", "jobs"),
            ("↑↓", "select"),
            ("p", "pause"),
            ("d", "drain"),
            ("w", "work again"),
            ("?", "help"),
        ],
    };
    let mut x = line.x + 1;
    for (key, what) in keys {
        let wide = u16::try_from(table::width(key) + table::width(what) + 1).unwrap_or(0);
        if x + wide > line.right() {
            break;
        }
        let hint = vec![Span::styled(*key, look.accent()), Span::styled(format!(" {what}"), look.dim())];
        put(buffer, x, line.y, Line::from(hint), wide);
        x += wide + 2;
    }
}

/// Draws one text at the left end of a line, and one at the right end if there is room for both.
fn ends(left: Vec<Span<'static>>, right: Vec<Span<'static>>, line: Rect, buffer: &mut Buffer) {
    if line.height == 0 {
        return;
    }
    let left = clip(left, line.width);
    let right = Line::from(right);
    let (a, b) =
        (u16::try_from(left.width()).unwrap_or(u16::MAX), u16::try_from(right.width()).unwrap_or(u16::MAX));
    put(buffer, line.x, line.y, left, line.width);
    if let Some(room) = line.width.checked_sub(b).filter(|room| a < *room) {
        put(buffer, line.x + room, line.y, right, b);
    }
}
