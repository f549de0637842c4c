//! The requests of a slot, each a future that can be cancelled. Those to Blender own the process.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use kiln_host::{BakeRequest, Baked, OpenRequest, RenderRequest, SlotRoot};
use kiln_types::{Failure, FailureCause, RelPath, SessionKey, SessionSpec};
use tokio_util::sync::CancellationToken;

use super::{
    actor::{Actor, Direct, Done},
    task::BlenderTask,
};
use crate::{
    bake_tree::{self, BakedTree},
    bundles::MaterializedBundle,
    direct::{self, DirectTask},
    monitor::AttemptMonitor,
    output::{OutputFiles, TaskResult},
    process::{BlenderProcess, ProcessKind},
    scratch::{ScratchFolder, on_disk, write_failure},
};

impl Actor {
    pub(super) fn start(&mut self, kind: ProcessKind, session: Option<SessionKey>) {
        let (processes, cancel) = (self.context.processes.clone(), self.cancel.clone());
        let startup = session.and_then(|key| self.bundles.get(&key).cloned());
        self.running = Some(Box::pin(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Done::Ended,
                process = processes.acquire(kind, startup) => Done::Started(process),
            }
        }));
    }

    pub(super) fn fetch(&mut self, session: Arc<SessionSpec>) {
        let (context, key) = (self.context.clone(), session.key());
        let fetch = async move { (key, context.bundles.materialize(session.bundle, &session.blend).await) };
        self.fetching.insert(key, self.fetches.spawn(fetch));
    }

    pub(super) fn open(&mut self, task: BlenderTask) {
        let (Some(mut process), Some(bundle)) = (self.process.take(), self.bundles.get(&task.key).cloned())
        else {
            // Not possible by the table of states; the frame must not hang on it.
            return self.lost();
        };
        let persistent =
            self.context.memory.claim(self.index, task.key, bundle.size, self.context.memory_now());
        process.persistent = persistent;
        process.monitor.serve(task.head.attempt);
        process.host.use_part(task.share.threads, task.share.gpus.clone());
        let request = OpenRequest {
            blend: bundle.folder.join(task.session.blend.to_path()),
            session: (*task.session).clone(),
            remap: bundle.remapped(),
            unused: bundle.unused.iter().cloned().collect(),
            addons: places(&bundle.folder, &task.session.addons),
            persistent_data: persistent,
        };
        let cancel = self.cancel.clone();
        self.running = Some(Box::pin(async move {
            if let Err(error) = empty(process.root.clone()).await {
                return Done::Opened(process, Err(unprepared(&error)));
            }
            let opened = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                opened = process.host.open(&request) => Some(opened),
            };
            drop(bundle);
            match opened {
                Some(opened) => Done::Opened(process, opened),
                None => end(process).await,
            }
        }));
    }

    pub(super) fn render(&mut self, task: &BlenderTask, frame: i32) {
        let Some(mut process) = self.process.take() else { return self.lost() };
        process.monitor.serve(task.head.attempt);
        let (cancel, attempt) = (self.cancel.clone(), task.head.attempt);
        let (time_limit, refuse_black) = (task.head.time_limit, task.refuse_black);
        let root = process.root.clone();
        let taken = self.context.uploads.folder().join(format!("{attempt}.out"));
        self.running = Some(Box::pin(async move {
            let out = match on_disk(move || root.fresh_out(&attempt.to_string())).await {
                Ok(out) => out,
                Err(error) => {
                    return Done::Worked {
                        process: Some(process),
                        took: 0.0,
                        result: Err(unprepared(&error)),
                    };
                }
            };
            let began = Instant::now();
            let rendered = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                rendered = process.host.render(RenderRequest { frame, out: out.clone(), time_limit }) => {
                    Some(rendered)
                }
            };
            let took = began.elapsed().as_secs_f64();
            let result = match rendered {
                Some(Ok(rendered)) => take_out(out, taken).await.map(|folder| TaskResult {
                    files: OutputFiles::Planned { out: folder, planned: rendered.planned, refuse_black },
                    log_tail: process.host.log_tail(),
                    notices: rendered.notices,
                    seconds: rendered.seconds,
                    peak_memory: rendered.peak_memory,
                    span: Some((rendered.started_at, rendered.ended_at)),
                }),
                Some(Err(failure)) => Err(failure),
                None => return end(process).await,
            };
            Done::Worked { process: Some(process), took, result }
        }));
    }

    pub(super) fn bake(&mut self, task: BlenderTask) {
        let (Some(mut process), Some(bundle)) = (self.process.take(), self.bundles.get(&task.key).cloned())
        else {
            return self.lost();
        };
        self.context.memory.claim(self.index, task.key, bundle.size, self.context.memory_now());
        process.monitor.serve(task.head.attempt);
        let kept = self.context.uploads.folder().join(format!("{}.tree", task.head.attempt));
        let cancel = self.cancel.clone();
        self.running = Some(Box::pin(async move {
            let began = Instant::now();
            let baked = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                baked = bake(&mut process, &task, &bundle) => Some(baked),
            };
            let took = began.elapsed().as_secs_f64();
            let Some(result) = baked else { return end(process).await };
            let (tree, log_tail) = (tree_of(&process), process.host.log_tail());
            // What it opened is not what it saved; and nobody may write any more when the tree is looked at.
            let folder = process.close().await;
            let result = match result {
                Ok((entries, baked)) => {
                    tracing::debug!(job = %task.head.job(), simulated = ?baked.simulated, "simulations baked");
                    let kept = ScratchFolder::new(kept);
                    let to = kept.path().to_owned();
                    // Nothing to flush: a worker that starts finds no baked tree that it would use.
                    let moved = on_disk(move || std::fs::rename(tree, to)).await;
                    let blend = task.session.blend.clone();
                    let tree = BakedTree { folder: kept, entries, source: bundle, blend };
                    moved.map_err(|error| unprepared(&error)).map(|()| TaskResult {
                        files: OutputFiles::Baked(tree),
                        log_tail,
                        notices: baked.notices,
                        seconds: baked.seconds,
                        peak_memory: baked.peak_memory,
                        span: None,
                    })
                }
                Err(failure) => Err(failure),
            };
            drop(folder);
            Done::Worked { process: None, took, result }
        }));
    }

    pub(super) fn run_direct(&mut self, task: DirectTask) {
        let (head, cancel) = (task.head, CancellationToken::new());
        self.context.memory.claim_for_task(head.attempt, task.memory);
        let folder = self.context.uploads.folder().join(format!("{}.out", head.attempt));
        let monitor = AttemptMonitor::new(self.context.reports.clone());
        let run = Box::pin(direct::run(task, folder, monitor, cancel.clone()));
        self.direct = Some(Direct { task: head, run, cancel, started: Instant::now() });
    }

    /// Ends the process, also in the middle of its work.
    pub(super) fn recycle(&mut self) {
        if self.running.is_some() {
            self.cancel.cancel();
            self.cancel = CancellationToken::new();
        } else {
            let process = self.process.take();
            self.running = Some(Box::pin(async move {
                match process {
                    Some(process) => end(process).await,
                    None => Done::Ended,
                }
            }));
        }
    }

    fn lost(&mut self) {
        let failure = Failure::new(FailureCause::Other, "the slot lost its Blender; this is a fault of Kiln");
        self.running = Some(Box::pin(async { Done::Lost(failure) }));
    }
}

fn places(folder: &Path, paths: &[RelPath]) -> Vec<PathBuf> {
    paths.iter().map(|path| folder.join(path.to_path())).collect()
}

fn tree_of(process: &BlenderProcess) -> PathBuf {
    process.root.path().join("work")
}

/// Bakes in a tree of its own. Returns the number of entries of the tree before, and the report of the host.
async fn bake(
    process: &mut BlenderProcess,
    task: &BlenderTask,
    bundle: &Arc<MaterializedBundle>,
) -> Result<(usize, Baked), Failure> {
    let tree = tree_of(process);
    empty(process.root.clone()).await.map_err(|error| unprepared(&error))?;
    let (folder, from, blend) = (tree.clone(), bundle.clone(), task.session.blend.clone());
    let made = on_disk(move || bake_tree::make(&folder, &from.folder, &blend)).await;
    let entries = made.map_err(|error| unprepared(&error))?;
    let request = BakeRequest {
        blend: tree.join(task.session.blend.to_path()),
        remap: bundle.remap.iter().map(|(from, to)| (from.clone(), tree.join(to.to_path()))).collect(),
        unused: bundle.unused.iter().cloned().collect(),
        // Where the process may find them already.
        addons: places(&bundle.folder, &task.session.addons),
        session: (*task.session).clone(),
        tree,
    };
    let baked = process.host.bake(&request).await?;
    Ok((entries, baked))
}

async fn end(process: Box<BlenderProcess>) -> Done {
    process.close().await.remove().await;
    Done::Ended
}

fn unprepared(error: &io::Error) -> Failure {
    let other =
        || Failure::new(FailureCause::Other, format!("the slot's folder cannot be prepared: {error}"));
    write_failure(error, other)
}

/// Takes a frame's folder out of Blender's reach. Nothing is flushed: a worker empties the target when it starts.
async fn take_out(out: PathBuf, to: PathBuf) -> Result<ScratchFolder, Failure> {
    let folder = ScratchFolder::new(to.clone());
    on_disk(move || std::fs::rename(out, to)).await.map_err(|error| {
        let why = format!("the frame's folder is not where it was made: {error}");
        Failure::new(FailureCause::BadOutput, why)
    })?;
    Ok(folder)
}

/// Removes the files of an earlier session, but not the temporary folder that Blender itself made for its life.
async fn empty(root: SlotRoot) -> io::Result<()> {
    on_disk(move || {
        for part in [root.out(), root.tmp()] {
            for entry in std::fs::read_dir(part)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with("blender_") {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    kiln_files::remove_folder(&entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::tests::while_the_disk_is_busy;

    #[test]
    fn no_async_thread_waits_while_a_slots_folder_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let root = SlotRoot::create(dir.path().join("slot")).unwrap();
        let (left, own) = (root.out().join("left/deep"), root.tmp().join("blender_a1b2"));
        std::fs::create_dir_all(&left).unwrap();
        std::fs::create_dir(&own).unwrap();
        std::fs::write(root.tmp().join("left.exr"), b"x").unwrap();
        while_the_disk_is_busy(empty(root.clone()), || assert!(left.exists())).unwrap();
        assert!(!root.out().join("left").exists() && !root.tmp().join("left.exr").exists());
        assert!(own.exists());
    }

    #[test]
    fn no_async_thread_waits_while_a_frame_is_taken_out_of_blenders_reach() {
        let dir = tempfile::tempdir().unwrap();
        let (out, to) = (dir.path().join("1-1"), dir.path().join("1-1.out"));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("frame.exr"), b"x").unwrap();
        let folder = while_the_disk_is_busy(take_out(out.clone(), to.clone()), || assert!(out.exists()));
        assert!(!out.exists() && to.join("frame.exr").exists());
        drop(folder.unwrap());
        assert!(!to.exists(), "whatever becomes of the frame, its folder goes");
        let lost = while_the_disk_is_busy(take_out(out, to), || ()).unwrap_err();
        assert_eq!(lost.cause, FailureCause::BadOutput);
    }
}
