//! What a .blend says of itself, in the words that a submission needs.

use std::path::PathBuf;

use kiln_blend::Inspection;

/// Reads a .blend from its beginning to its end mark, away from the tasks that must not wait.
///
/// # Errors
/// Half a sentence on why it is none.
pub(crate) async fn blend_file(path: PathBuf) -> Result<Inspection, String> {
    let reading = tokio::task::spawn_blocking(move || kiln_blend::inspect(&path));
    match reading.await {
        Ok(Ok(inspection)) => Ok(inspection),
        Ok(Err(error)) => Err(format!("{}.", error.fault)),
        Err(_) => Err("reading it failed inside the server.".to_owned()),
    }
}
