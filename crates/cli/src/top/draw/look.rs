//! The styles of the screen, with and without colours.

use kiln_types::{JobState, WorkerState};
use ratatui::style::{Color, Modifier, Style};

/// The look of the screen: with colours or, because of NO_COLOR, without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScreenLook {
    pub colour: bool,
    /// A person presses keys; a snapshot has neither keys nor a selection.
    pub live: bool,
}

impl ScreenLook {
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

    /// Returns the style of the program's name.
    pub fn title(self) -> Style {
        if self.colour {
            Style::new().fg(Color::Black).bg(Color::Cyan).add_modifier(Modifier::BOLD)
        } else {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        }
    }

    /// Returns the style of the heads of a table, which show whether it has the focus.
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
