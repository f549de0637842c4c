//! Questions to the person at the terminal.

use std::io::Write as _;

/// Returns whether the answer is yes; anything else, and the end of the input, is no.
pub async fn yes(question: String) -> bool {
    tokio::task::spawn_blocking(move || {
        prompt(&question);
        line().is_some_and(|line| matches!(line.as_str(), "y" | "yes"))
    })
    .await
    .unwrap_or(false)
}

/// Shows a question, whose answer is to be read.
pub fn prompt(question: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question}");
    let _ = err.flush();
}

/// A line of the input in small letters; `None` at its end. Blocks.
pub fn line() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim().to_ascii_lowercase()),
    }
}
