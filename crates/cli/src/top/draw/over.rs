//! The overlays of the tables: help, a question, why a job waits.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, BorderType, Clear, Padding, Paragraph, Widget as _, Wrap},
};

use super::{
    super::model::{Model, Overlay},
    look::ScreenLook,
};
use crate::output::one_line;

const KEYS: &[(&str, &str)] = &[
    ("q Esc Ctrl-C", "quit"),
    ("Tab", "to the other table"),
    ("↑ ↓ j k", "select; PgUp PgDn Home End g G go further"),
    ("", ""),
    ("e Enter", "why the job waits, and how long it will take"),
    ("p", "pause the job or worker, or resume it"),
    ("r", "try the job's failed frames again"),
    ("c", "cancel the job; asks first"),
    ("+ -", "change the job's priority; higher is earlier"),
    ("", ""),
    ("d", "drain the worker: it finishes its frames, then leaves"),
    ("w", "let the worker work again"),
];

pub fn draw(model: &Model, look: ScreenLook, area: Rect, buffer: &mut Buffer) {
    match &model.over {
        Overlay::Nothing => {}
        Overlay::Help => {
            let key = |(key, what): &(&'static str, &'static str)| {
                Line::from(vec![Span::styled(format!("{key:<14}"), look.accent()), Span::raw(*what)])
            };
            window(" keys ", KEYS.iter().map(key).collect(), 0, look, area, buffer);
        }
        Overlay::Cancel(id) => {
            let name = model.farm.job(*id).map(|job| one_line(&job.name)).unwrap_or_default();
            let lines = vec![
                Line::from(format!("Cancel job {id} ({name})? What is rendered stays.")),
                Line::from(""),
                Line::from(vec![
                    Span::styled("y", look.accent()),
                    Span::raw(" cancels it, "),
                    Span::styled("any other key", look.accent()),
                    Span::raw(" leaves it as it is"),
                ]),
            ];
            window(" cancel ", lines, 0, look, area, buffer);
        }
        Overlay::Explain { job, text, scroll } => {
            let text = text.as_deref().unwrap_or("asking the server …");
            let lines = text.lines().map(|line| Line::from(one_line(line))).collect();
            window(&format!(" job {job} "), lines, *scroll, look, area, buffer);
        }
    }
}

/// Draws a framed text in the middle.
fn window(title: &str, lines: Vec<Line<'_>>, scroll: u16, look: ScreenLook, area: Rect, buffer: &mut Buffer) {
    const FRAME: u16 = 4;
    let wide = lines.iter().map(Line::width).max().unwrap_or(0).max(title.len());
    let width = u16::try_from(wide).unwrap_or(u16::MAX).saturating_add(FRAME).min(area.width);
    let room = usize::from(width.saturating_sub(FRAME).max(1));
    // An upper bound of what the wrapped lines take, so that the end is never cut off.
    let wrapped: usize =
        lines.iter().map(|line| line.width().div_ceil(room).max(1) + line.width() / (room * 4)).sum();
    let height = u16::try_from(wrapped).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(look.accent())
        .padding(Padding::horizontal(1))
        .title(Span::styled(title.to_owned(), look.bold()));
    Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll, 0)).block(block).render(place, buffer);
}
