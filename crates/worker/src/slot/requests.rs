//! What a slot asks of Blender, each as a future that owns the process and can be called off.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use kiln_host::{BakeRequest, Baked, OpenRequest, RenderRequest, SlotRoot};
use kiln_types::{Failure, FailureCause, RelPath, SessionKey, SessionSpec};
use tokio_util::sync::CancellationToken;

use super::{Actor, Done, Kind, Work, WorkDone};
use crate::{
    bundles::Laid,
    outbox::LeftFiles,
    scratch::{ScratchFolder, on_disk},
    seat::Seat,
    tree::{self, BakedTree},
};

impl Actor {
    pub(super) fn start(&mut self, kind: Kind, files: Option<SessionKey>) {
        let (garage, off) = (self.shop.garage.clone(), self.off.clone());
        let brought = files.and_then(|key| self.laid.get(&key).cloned());
        self.running = Some(Box::pin(async move {
            tokio::select! {
                biased;
                () = off.cancelled() => Done::Gone,
                seat = garage.seat(kind, brought) => Done::Started(seat),
            }
        }));
    }

    pub(super) fn fetch(&mut self, session: Arc<SessionSpec>) {
        let (shop, key) = (self.shop.clone(), session.key());
        let fetch = async move { (key, shop.bundles.lay_out(session.bundle, &session.blend).await) };
        self.fetching.insert(key, self.fetches.spawn(fetch));
    }

    pub(super) fn open(&mut self, work: Work) {
        let (Some(mut seat), Some(laid)) = (self.seat.take(), self.laid.get(&work.key).cloned()) else {
            // Not possible by the table of states; the frame must not hang on it.
            return self.lost();
        };
        let persistent = self.shop.memory.claim(self.index, work.key, laid.size, self.shop.memory_now());
        seat.persistent = persistent;
        seat.serve(work.attempt);
        seat.host.use_part(work.part.threads, work.part.gpus.clone());
        let request = OpenRequest {
            blend: laid.folder.join(work.session.blend.to_path()),
            session: (*work.session).clone(),
            remap: laid.remapped(),
            unused: laid.unused.iter().cloned().collect(),
            addons: places(&laid.folder, &work.session.addons),
            persistent_data: persistent,
        };
        let off = self.off.clone();
        self.running = Some(Box::pin(async move {
            if let Err(error) = empty(seat.root.clone()).await {
                return Done::Opened(seat, Err(unprepared(&error)));
            }
            let opened = tokio::select! {
                biased;
                () = off.cancelled() => None,
                opened = seat.host.open(&request) => Some(opened),
            };
            drop(laid);
            match opened {
                Some(opened) => Done::Opened(seat, opened),
                None => end(seat).await,
            }
        }));
    }

    pub(super) fn render(&mut self, work: &Work, frame: i32) {
        let Some(mut seat) = self.seat.take() else { return self.lost() };
        seat.serve(work.attempt);
        let (off, attempt) = (self.off.clone(), work.attempt);
        let (time_limit, refuse_black) = (work.time_limit, work.refuse_black);
        let root = seat.root.clone();
        let taken = self.shop.left.join(format!("{attempt}.out"));
        self.running = Some(Box::pin(async move {
            let out = match on_disk(move || root.fresh_out(&attempt.to_string())).await {
                Ok(out) => out,
                Err(error) => {
                    return Done::Worked { seat: Some(seat), took: 0.0, result: Err(unprepared(&error)) };
                }
            };
            let began = Instant::now();
            let rendered = tokio::select! {
                biased;
                () = off.cancelled() => None,
                rendered = seat.host.render(RenderRequest { frame, out: out.clone(), time_limit }) => {
                    Some(rendered)
                }
            };
            let took = began.elapsed().as_secs_f64();
            let result = match rendered {
                Some(Ok(rendered)) => take_out(out, taken).await.map(|folder| WorkDone {
                    files: LeftFiles::Planned { out: folder, planned: rendered.planned, refuse_black },
                    log_tail: seat.host.log_tail(),
                    notices: rendered.notices,
                    seconds: rendered.seconds,
                    peak_memory: rendered.peak_memory,
                    span: Some((rendered.started_at, rendered.ended_at)),
                }),
                Some(Err(failure)) => Err(failure),
                None => return end(seat).await,
            };
            Done::Worked { seat: Some(seat), took, result }
        }));
    }

    pub(super) fn bake(&mut self, work: Work) {
        let (Some(mut seat), Some(laid)) = (self.seat.take(), self.laid.get(&work.key).cloned()) else {
            return self.lost();
        };
        self.shop.memory.claim(self.index, work.key, laid.size, self.shop.memory_now());
        seat.serve(work.attempt);
        let kept = self.shop.left.join(format!("{}.tree", work.attempt));
        let off = self.off.clone();
        self.running = Some(Box::pin(async move {
            let began = Instant::now();
            let baked = tokio::select! {
                biased;
                () = off.cancelled() => None,
                baked = bake(&mut seat, &work, &laid) => Some(baked),
            };
            let took = began.elapsed().as_secs_f64();
            let Some(result) = baked else { return end(seat).await };
            let (tree, log_tail) = (tree_of(&seat), seat.host.log_tail());
            // What it opened is not what it saved; and nobody may write any more when the tree is looked at.
            let folder = seat.close().await;
            let result = match result {
                Ok((entries, baked)) => {
                    tracing::debug!(job = %work.job(), simulated = ?baked.simulated, "simulations baked");
                    let kept = ScratchFolder::new(kept);
                    let to = kept.path().to_owned();
                    // Nothing to flush: a worker that starts finds no baked tree that it would use.
                    let moved = on_disk(move || std::fs::rename(tree, to)).await;
                    let blend = work.session.blend.clone();
                    let tree = BakedTree { folder: kept, entries, laid, blend };
                    moved.map_err(|error| unprepared(&error)).map(|()| WorkDone {
                        files: LeftFiles::Tree(tree),
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
            Done::Worked { seat: None, took, result }
        }));
    }

    /// Ends the process, in the middle of what it does if it does something.
    pub(super) fn recycle(&mut self) {
        if self.running.is_some() {
            self.off.cancel();
            self.off = CancellationToken::new();
        } else {
            let seat = self.seat.take();
            self.running = Some(Box::pin(async move {
                match seat {
                    Some(seat) => end(seat).await,
                    None => Done::Gone,
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

fn tree_of(seat: &Seat) -> PathBuf {
    seat.root.path().join("work")
}

/// How many entries the tree had before, and what the host says of the bake.
async fn bake(seat: &mut Seat, work: &Work, laid: &Arc<Laid>) -> Result<(usize, Baked), Failure> {
    let tree = tree_of(seat);
    empty(seat.root.clone()).await.map_err(|error| unprepared(&error))?;
    let (folder, from, blend) = (tree.clone(), laid.clone(), work.session.blend.clone());
    let made = on_disk(move || tree::make(&folder, &from.folder, &blend)).await;
    let entries = made.map_err(|error| unprepared(&error))?;
    let request = BakeRequest {
        blend: tree.join(work.session.blend.to_path()),
        remap: laid.remap.iter().map(|(from, to)| (from.clone(), tree.join(to.to_path()))).collect(),
        unused: laid.unused.iter().cloned().collect(),
        // Where the process may find them already.
        addons: places(&laid.folder, &work.session.addons),
        session: (*work.session).clone(),
        tree,
    };
    let baked = seat.host.bake(&request).await?;
    Ok((entries, baked))
}

async fn end(seat: Box<Seat>) -> Done {
    seat.close().await.remove().await;
    Done::Gone
}

fn unprepared(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::new(
            FailureCause::DiskFull,
            "this worker's disk is full; free some space in its data folder",
        ),
        _ => Failure::new(FailureCause::Other, format!("the slot's folder cannot be prepared: {error}")),
    }
}

/// Takes a frame's folder out of Blender's reach. Nothing is flushed: what lies there when a worker starts is removed.
async fn take_out(out: PathBuf, to: PathBuf) -> Result<ScratchFolder, Failure> {
    let folder = ScratchFolder::new(to.clone());
    on_disk(move || std::fs::rename(out, to)).await.map_err(|error| {
        let why = format!("the frame's folder is not where it was made: {error}");
        Failure::new(FailureCause::BadOutput, why)
    })?;
    Ok(folder)
}

/// Removes what an earlier session left, but not the temporary folder that Blender itself made for its life.
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
