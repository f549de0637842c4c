//! The output of Blender, one file for each attempt: `logs/<job>/<attempt>.log` below the data folder.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::mpsc,
};

use kiln_types::{AttemptId, JobId};

use crate::space::DiskSpace;

/// Bytes kept of one attempt.
const MAX_LOG: u64 = 10 << 20;
/// Pieces that wait to be written; further ones are dropped, because the scheduler does not wait for logs.
const QUEUE: usize = 4096;

/// Writes logs on a thread of its own; cheap to clone.
#[derive(Clone)]
pub(crate) struct Logs {
    folder: PathBuf,
    sender: mpsc::SyncSender<LogCommand>,
}

enum LogCommand {
    Append {
        job: JobId,
        attempt: AttemptId,
        text: String,
    },
    Delete {
        job: JobId,
    },
    /// Answered when everything before it is written.
    Flush(tokio::sync::oneshot::Sender<()>),
}

impl Logs {
    pub(crate) fn open(folder: PathBuf, space: DiskSpace) -> io::Result<Self> {
        let (sender, commands) = mpsc::sync_channel(QUEUE);
        let writer = Writer { folder: folder.clone(), space };
        std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
            while let Ok(command) = commands.recv() {
                writer.execute(command);
            }
        })?;
        Ok(Self { folder, sender })
    }

    pub(crate) fn append(&self, job: JobId, attempt: AttemptId, text: String) {
        if self.sender.try_send(LogCommand::Append { job, attempt, text }).is_err() {
            tracing::warn!(%job, %attempt, "log piece dropped: the disk is too slow");
        }
    }

    pub(crate) fn delete(&self, job: JobId) {
        if self.sender.try_send(LogCommand::Delete { job }).is_err() {
            tracing::warn!(%job, "log removal postponed to the next collection: the disk is too slow");
        }
    }

    /// Waits until all that was appended so far can be read.
    pub(crate) async fn flush(&self) {
        let (done, wait) = tokio::sync::oneshot::channel();
        if self.sender.try_send(LogCommand::Flush(done)).is_ok() {
            let _ = wait.await;
        }
    }

    pub(crate) fn path(&self, job: JobId, attempt: AttemptId) -> PathBuf {
        path(&self.folder, job, attempt)
    }

    /// Returns every job that has logs.
    pub(crate) async fn jobs(&self) -> io::Result<Vec<JobId>> {
        Ok(entries(&self.folder).await?.into_iter().filter_map(|(name, _)| name.parse().ok()).collect())
    }

    /// Returns the bytes of a job's logs.
    pub(crate) async fn size(&self, job: JobId) -> io::Result<u64> {
        Ok(entries(&self.folder.join(job.to_string())).await?.into_iter().map(|(_, bytes)| bytes).sum())
    }
}

/// Returns the names and sizes of a folder's files; none if there is no such folder.
async fn entries(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let folder = folder.to_owned();
    let read = move || match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(all) => {
            let entry = |entry: io::Result<fs::DirEntry>| {
                let entry = entry?;
                Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
            };
            all.map(entry).collect()
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn path(folder: &Path, job: JobId, attempt: AttemptId) -> PathBuf {
    folder.join(job.to_string()).join(format!("{attempt}.log"))
}

struct Writer {
    folder: PathBuf,
    space: DiskSpace,
}

impl Writer {
    fn execute(&self, command: LogCommand) {
        match command {
            LogCommand::Append { job, attempt, text } => {
                // The records need the room more than a log does.
                let Ok(_room) = self.space.reserve(text.len() as u64) else { return };
                if let Err(error) = append(&path(&self.folder, job, attempt), text.as_bytes()) {
                    tracing::warn!(%job, %attempt, %error, "log piece not written");
                }
            }
            LogCommand::Delete { job } => match fs::remove_dir_all(self.folder.join(job.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%job, %error, "logs not removed");
                }
                _ => {}
            },
            LogCommand::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    let open = || fs::OpenOptions::new().append(true).create(true).open(path);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            open()?
        }
        file => file?,
    };
    let length = file.metadata()?.len();
    if length > MAX_LOG {
        return Ok(());
    }
    let room = usize::try_from(MAX_LOG - length).unwrap_or(usize::MAX);
    if text.len() <= room {
        return file.write_all(text);
    }
    file.write_all(&text[..room])?;
    file.write_all(b"\n[the log is cut here: it is longer than 10 MB]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1/1-1.log");
        let piece = vec![b'x'; 4 << 20];
        for _ in 0..5 {
            append(&path, &piece).unwrap();
        }
        let text = fs::read(&path).unwrap();
        assert!(text.len() as u64 > MAX_LOG && (text.len() as u64) < MAX_LOG + 100);
        assert!(text.ends_with(b"longer than 10 MB]\n"));
    }
}
