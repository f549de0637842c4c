//! The terminal: a source of keys, and the place of pictures. It is restored at the end.

use std::{io, thread};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::sync::mpsc;

use super::model::Key;

/// The terminal while it shows the farm. To drop it, also in a panic, restores the terminal.
pub struct FullScreen {
    terminal: DefaultTerminal,
}

/// An action of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserInput {
    Key(Key),
    /// The terminal has another size.
    Resized,
}

impl FullScreen {
    /// Takes the terminal over. A panic restores it before it prints.
    pub fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal })
    }

    pub fn draw(&mut self, draw: impl FnOnce(&mut ratatui::buffer::Buffer)) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame.buffer_mut())).map(drop)
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Returns the keys that are pressed, until the terminal closes. They are read by a thread that ends with the program.
pub fn inputs() -> mpsc::UnboundedReceiver<UserInput> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let input = match event {
                Event::Key(event) if event.kind != KeyEventKind::Release => key(event).map(UserInput::Key),
                Event::Resize(..) => Some(UserInput::Resized),
                _ => None,
            };
            if input.is_some_and(|input| sender.send(input).is_err()) {
                return;
            }
        }
    });
    receiver
}

fn key(event: KeyEvent) -> Option<Key> {
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Tab | KeyCode::BackTab => Key::Tab,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        _ => return None,
    })
}
