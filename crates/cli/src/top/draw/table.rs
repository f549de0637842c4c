//! Rows in columns, of which the less important ones disappear on a narrow screen.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{look::ScreenLook, words::percent};
use crate::output::one_line;

pub struct Column {
    pub head: String,
    /// Cells are aligned to the right.
    pub right: bool,
    /// The least width; the column is left out if there is less room.
    pub least: u16,
    /// The greatest width.
    pub most: u16,
    /// The order in which columns disappear on a narrow screen: the greatest first.
    pub rank: u8,
}

impl Column {
    /// Returns a column as wide as its widest text.
    pub fn fixed(head: &str, rank: u8, texts: impl Iterator<Item = usize>) -> Self {
        let width = texts.chain([width(head)]).max().unwrap_or(0);
        let width = u16::try_from(width).unwrap_or(u16::MAX).min(30);
        Self { head: head.to_owned(), right: false, least: width, most: width, rank }
    }

    pub fn between(head: &str, rank: u8, least: u16, most: u16) -> Self {
        Self { head: head.to_owned(), right: false, least, most: most.max(least), rank }
    }

    pub fn right(self) -> Self {
        Self { right: true, ..self }
    }
}

pub enum Cell {
    Text(Vec<Span<'static>>),
    Bar(Bar),
}

impl Cell {
    pub fn text(text: impl Into<String>, style: Style) -> Self {
        Self::Text(vec![Span::styled(one_line(&text.into()), style)])
    }
}

/// A progress bar. Parts of the whole are from 0 to 1.
pub struct Bar {
    pub done: f64,
    pub failed: f64,
    /// The style of the part that is done.
    pub style: Style,
}

/// The blanks between two columns.
const GAP: u16 = 2;

/// Returns the width of each column; 0 if there is no room for it.
pub fn widths(columns: &[Column], room: u16) -> Vec<u16> {
    let mut shown: Vec<bool> = vec![true; columns.len()];
    let least = |shown: &[bool]| -> u32 {
        let widths = columns.iter().zip(shown).filter(|(_, shown)| **shown);
        let (count, sum) =
            widths.fold((0, 0), |(n, sum), (column, _)| (n + 1, sum + u32::from(column.least)));
        sum + u32::from(GAP) * u32::saturating_sub(count, 1)
    };
    while least(&shown) > u32::from(room) && shown.iter().filter(|shown| **shown).count() > 1 {
        let last = (0..columns.len()).filter(|at| shown[*at]).max_by_key(|at| columns[*at].rank);
        if let Some(last) = last {
            shown[last] = false;
        }
    }
    let mut spare = u32::from(room).saturating_sub(least(&shown));
    let mut widths: Vec<u16> =
        columns.iter().zip(&shown).map(|(column, shown)| if *shown { column.least } else { 0 }).collect();
    // They grow in turn, so that none takes all the room.
    loop {
        let mut grown = false;
        for (at, column) in columns.iter().enumerate() {
            if shown[at] && widths[at] < column.most && spare > 0 {
                widths[at] += 1;
                spare -= 1;
                grown = true;
            }
        }
        if !grown {
            return widths;
        }
    }
}

/// Draws the line above the rows.
pub fn heads(
    columns: &[Column],
    widths: &[u16],
    area: Rect,
    look: ScreenLook,
    focus: bool,
    buffer: &mut Buffer,
) {
    let style = look.heads(focus);
    buffer.set_style(line_of(area, area.y), style);
    let cells = columns.iter().map(|column| Cell::text(column.head.clone(), style));
    row(columns, widths, cells, line_of(area, area.y), look, buffer);
}

pub fn row(
    columns: &[Column],
    widths: &[u16],
    cells: impl Iterator<Item = Cell>,
    area: Rect,
    look: ScreenLook,
    buffer: &mut Buffer,
) {
    let mut x = area.x;
    for ((column, wanted), cell) in columns.iter().zip(widths).zip(cells) {
        let room = (*wanted).min(area.right().saturating_sub(x));
        if room == 0 {
            continue;
        }
        match cell {
            Cell::Text(spans) => {
                let line = clip(spans, room);
                let empty = room.saturating_sub(u16::try_from(line.width()).unwrap_or(room));
                put(buffer, x + if column.right { empty } else { 0 }, area.y, line, room);
            }
            Cell::Bar(bar) => put(buffer, x, area.y, bar.line(room, look), room),
        }
        x = x.saturating_add(room + GAP);
    }
}

impl Bar {
    /// Draws the bar: `━━━━━╸────  63%`.
    fn line(&self, room: u16, look: ScreenLook) -> Line<'static> {
        const PERCENT: u16 = 5;
        let percent = Span::raw(format!("{:>5}", percent(self.done + self.failed)));
        let Some(length) = room.checked_sub(PERCENT).filter(|length| *length >= 3) else {
            return Line::from(Span::raw(percent.content.trim().to_owned()));
        };
        let halves = |part: f64| {
            let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
            (part * f64::from(length) * 2.0) as usize
        };
        let length = usize::from(length);
        // The smallest part that failed is visible.
        let failed = halves(self.failed).div_ceil(2).max(usize::from(self.failed > 0.0)).min(length);
        let done = halves(self.done).min((length - failed) * 2);
        let half = done % 2;
        Line::from(vec![
            Span::styled("━".repeat(done / 2), self.style),
            Span::styled("╸".repeat(half), self.style),
            Span::styled("━".repeat(failed), look.bad()),
            Span::styled("─".repeat((length - done / 2 - half).saturating_sub(failed)), look.dim()),
            percent,
        ])
    }
}

/// Draws the part of a line that is inside the screen.
pub fn put(buffer: &mut Buffer, x: u16, y: u16, line: Line<'_>, room: u16) {
    let area = *buffer.area();
    if x < area.right() && y < area.bottom() {
        buffer.set_line(x, y, &line, room.min(area.right() - x));
    }
}

/// Returns one line of an area.
pub fn line_of(area: Rect, y: u16) -> Rect {
    Rect { y, height: 1, ..area }.intersection(area)
}

pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Cuts the text to the room, with an ellipsis.
pub fn clip(spans: Vec<Span<'static>>, room: u16) -> Line<'static> {
    let room = usize::from(room);
    if spans.iter().map(Span::width).sum::<usize>() <= room {
        return Line::from(spans);
    }
    let mut left = room.saturating_sub(1);
    let mut clipped = Vec::new();
    for span in spans {
        let mut text = String::new();
        let mut whole = true;
        for letter in span.content.chars() {
            let wide = width(letter.encode_utf8(&mut [0; 4]));
            if wide > left {
                whole = false;
                break;
            }
            left -= wide;
            text.push(letter);
        }
        if whole {
            clipped.push(Span::styled(text, span.style));
            continue;
        }
        text.truncate(text.trim_end().len());
        text.push('…');
        clipped.push(Span::styled(text, span.style));
        break;
    }
    Line::from(clipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &'static str, room: u16) -> String {
        clip(vec![Span::raw(text)], room).to_string()
    }

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis() {
        assert_eq!(plain("forest", 6), "forest");
        assert_eq!(plain("forest", 5), "fore…");
        assert_eq!(plain("a forest", 3), "a…");
        assert_eq!(plain("木木木", 4), "木…");
        assert_eq!(plain("forest", 0), "…");
    }

    #[test]
    fn columns_of_little_weight_give_way() {
        let columns = [
            Column::between("NAME", 0, 8, 20),
            Column::between("WHO", 9, 6, 10),
            Column::between("DONE", 1, 7, 7),
        ];
        assert_eq!(widths(&columns, 60), [20, 10, 7]);
        assert_eq!(widths(&columns, 27), [9, 7, 7]);
        assert_eq!(widths(&columns, 24), [15, 0, 7]);
        assert_eq!(widths(&columns, 3), [8, 0, 0], "the last one is clipped, never left out");
    }

    #[test]
    fn a_bar_shows_what_failed() {
        let look = ScreenLook { colour: false, live: true };
        let bar = |done, failed, room| Bar { done, failed, style: Style::new() }.line(room, look).to_string();
        assert_eq!(bar(0.5, 0.0, 15), "━━━━━─────  50%");
        assert_eq!(bar(0.55, 0.0, 15), "━━━━━╸────  55%");
        assert_eq!(bar(0.99, 0.001, 15), "━━━━━━━━━━  99%");
        assert_eq!(bar(0.4, 0.0, 6), "40%");
        assert_eq!(bar(f64::NAN, 2.0, 10), "━━━━━   0%");
    }
}
