//! Colours, and the marks that replace them where there are none.

use kiln_types::{JobState, WorkerState};
use ratatui::style::{Color, Modifier, Style};

/// The look of the screen: with colours or, by NO_COLOR, without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub colour: bool,
    /// Somebody looks and presses keys; a snapshot has neither a selection nor keys.
    pub live: bool,
}

impl Look {
    pub fn good(self) -> Style {
        self.colour(Color::Green)
    }

    pub fn bad(self) -> Style {
        self.colour(Color::Red)
    }

    pub fn warning(self) -> Style {
        self.colour(Color::Yellow)
    }

    pub fn accent(self) -> Style {
        self.colour(Color::Cyan)
    }

    pub fn calm(self) -> Style {
        self.colour(Color::Blue)
    }

    pub fn dim(self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The name of the program.
    pub fn title(self) -> Style {
        if self.colour {
            Style::new().fg(Color::Black).bg(Color::Cyan).add_modifier(Modifier::BOLD)
        } else {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        }
    }

    /// The line above a table, and whether keys go to the table.
    pub fn heads(self, focus: bool) -> Style {
        match (self.colour, focus && self.live) {
            (true, true) => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            (true, false) => Style::new().fg(Color::DarkGray).add_modifier(Modifier::UNDERLINED),
            (false, true) => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            (false, false) => Style::new().add_modifier(Modifier::UNDERLINED),
        }
    }

    /// Returns the style of the selected row.
    pub fn selected(self) -> Style {
        if self.colour {
            Style::new().bg(Color::Indexed(236))
        } else {
            Style::new().add_modifier(Modifier::BOLD)
        }
    }

    pub fn job(self, state: JobState) -> Style {
        match state {
            JobState::Running => self.good(),
            JobState::Queued => self.warning(),
            JobState::Paused => self.calm(),
            JobState::Failed => self.bad(),
            JobState::Completed | JobState::Cancelled => self.dim(),
        }
    }

    pub fn worker(self, state: WorkerState) -> Style {
        match state {
            WorkerState::Rendering => self.good(),
            WorkerState::Idle => Style::new(),
            WorkerState::Paused | WorkerState::Draining => self.calm(),
            WorkerState::Unavailable => self.warning(),
            WorkerState::Quarantined => self.bad(),
            WorkerState::Offline => self.dim(),
        }
    }

    fn colour(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}
