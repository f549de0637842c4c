//! From a .blend on the artist's disk to a job that is ready to be sent.

use std::{
    borrow::Cow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_api::{JobSource, SubmitJob};
use kiln_blend::{
    BundleLayout, Dependencies, Inspection, LinkedSimulation, RenderScope, SceneInfo, SharedPlace,
    check_linked, choose,
};
use kiln_types::{
    Bundle, BundleFile, Choices, DeviceClass, ExternalFiles, FileFormat, FrameSet, Order, RelPath, Save,
    ScriptPolicy, SessionSpec, SharedFile, paths,
};

use crate::{
    ClientError, FoundExtras, FrameIdentity, NamedFor, Naming, PrepareError, Request, Transfer,
    content::{KnownBytes, content},
    hash_cache::FileStamp,
    reading::{READS, SourceFile, hash_file, read, read_all},
    submission::EventSender,
};

/// A job that is ready to be sent; the server has not heard of it yet.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The .blend.
    path: PathBuf,
    /// The .blend's folder.
    pub folder: PathBuf,
    pub inspection: Inspection,
    /// What moves in libraries, is not baked there, and shows in the scene: there only where it may stand still.
    linked: Vec<LinkedSimulation>,
    pub scene: SceneInfo,
    pub frames: FrameSet,
    pub session: SessionSpec,
    /// Which save of the .blend this is.
    pub save: Save,
    /// Of the main files.
    format: FileFormat,
    /// What a person should know of files that were found all the same.
    pub notices: Vec<String>,
    pub(crate) bundle: Bundle,
    /// Of the bundle's files, in their order.
    pub(crate) sources: Arc<[SourceFile]>,
    /// Keeps what was unpacked until it is sent.
    _extras: FoundExtras,
}

impl Prepared {
    /// The simulations of the scene that nobody has baked, as a person names them.
    pub fn unbaked(&self) -> Vec<String> {
        let own = self.inspection.unbaked(&self.scene.name).map(ToString::to_string);
        own.chain(self.linked.iter().map(ToString::to_string)).collect()
    }

    /// [`Prepared::reporting`], where nobody waits for news.
    pub fn new(blend: &Path, request: &Request) -> Result<Self, PrepareError> {
        Self::reporting(blend, request, &EventSender::silent())
    }

    /// Reads the .blend and whatever it needs, and hashes all of it. Blocks: call it off the async threads.
    pub fn reporting(blend: &Path, request: &Request, events: &EventSender) -> Result<Self, PrepareError> {
        for _ in 0..READS {
            let (before, read_ms) = (FileStamp::at(blend).ok(), now_ms());
            let found = kiln_blend::find_dependencies(blend)?;
            let prepared = Self::of(found, request, read_ms, events)?;
            request.hashes.sweep();
            // Saved in between, it may name other files than those that were read with it.
            if before.is_some() && prepared.blend_stamp() == before {
                return Ok(prepared);
            }
        }
        Err(PrepareError::Changing(blend.to_owned()))
    }

    fn of(
        found: Dependencies,
        request: &Request,
        read_ms: i64,
        events: &EventSender,
    ) -> Result<Self, PrepareError> {
        let path = &found.blend;
        if path.as_os_str().len() > kiln_blend::LONGEST_PATH {
            return Err(PrepareError::TooDeep(path.clone()));
        }
        let refuse = |error| PrepareError::Choice { blend: path.clone(), error: Box::new(error) };
        let chosen = choose(&found.inspection, &request.asked()).map_err(refuse)?;
        let (scene, frames, format) = (chosen.scene.clone(), chosen.frames, chosen.format);
        let (blender, device) = (chosen.blender, chosen.device);
        check_linked(&scene.name, &found.linked, request.policy.simulations).map_err(refuse)?;
        let linked: Vec<_> =
            found.linked.iter().filter(|one| one.simulation.scenes.contains(&scene.name)).cloned().collect();
        let requested = RenderScope {
            scene: &scene.name,
            frames: &frames,
            view_layer: request.settings.view_layer.as_deref(),
            engine: request.settings.engine.as_deref(),
        };
        let mut layout = kiln_blend::plan_layout(&found, &request.shared, &[requested]);
        let all_needed = request.policy.external_files == ExternalFiles::Required;
        if !layout.missing.is_empty() && all_needed {
            return Err(PrepareError::Missing(layout.missing));
        }
        let extras = request.extras.find()?;
        if !extras.missing_tables.is_empty() && all_needed {
            return Err(PrepareError::Tables(extras.missing_tables));
        }
        if !extras.addons.is_empty() && request.policy.scripts != ScriptPolicy::Trust {
            return Err(PrepareError::Untrusted);
        }
        extras.join(&mut layout.files)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let paths: Vec<&Path> = layout.files.iter().map(|(_, path)| path.as_path()).collect();
        let sources = read_all(&paths, request.transfer, &request.hashes, events)?;
        let shared = shared_files(&layout, request)?;
        let bundle = bundle(&layout, &sources, shared);
        let mut bytes = KnownBytes::default();
        paths.iter().zip(&sources).for_each(|(path, source)| bytes.read(path, source.content.hash));
        layout.shared.iter().zip(&bundle.shared).for_each(|(at, file)| bytes.shared(&at.source, file));
        let shows_path = request.policy.scripts == ScriptPolicy::Trust
            || found.inspection.scenes.iter().any(|scene| scene.burns_in_path);
        let shown = shows_path.then_some(path.as_path());
        let content = content(&found, &bytes, &extras, shown);
        let save = Save { content, blend: real_place(path), read_ms };
        let session = SessionSpec {
            bundle: bundle.id(),
            blend: layout.blend.clone(),
            origin: Some(paths::spelled(folder.as_os_str().as_encoded_bytes())),
            file_name: renamed(path, &layout.blend),
            blender,
            // A GPU of any backend, until it is known which there is.
            device,
            settings: request.settings.clone(),
            policy: request.policy,
            ocio: extras.ocio.clone(),
            addons: extras.addons.clone(),
        };
        let path = path.clone();
        let (inspection, sources) = (found.inspection, Arc::from(sources));
        Ok(Self {
            path,
            folder,
            inspection,
            linked,
            scene,
            frames,
            session,
            save,
            format,
            notices: layout.notices,
            bundle,
            sources,
            _extras: extras,
        })
    }

    /// The .blend's name without its ending, as far as it is text.
    pub fn shown_name(&self) -> Cow<'_, str> {
        self.path.file_stem().unwrap_or_default().to_string_lossy()
    }

    /// How the main files will be called, by the Blender that the session is for.
    ///
    /// # Errors
    /// Where Blender would not write to the output path of the scene.
    pub fn naming(&self) -> Result<Naming, PrepareError> {
        let named = NamedFor {
            blend: &self.path,
            written_by: self.inspection.written_by.series(),
            blender: self.session.blender,
            settings: &self.session.settings,
            format: self.format,
        };
        let naming = Naming::of(&self.scene, &named);
        let first = self.frames.iter().next().unwrap_or(self.scene.frame_start);
        match naming.fault(first) {
            None => Ok(naming),
            Some(fault) => Err(PrepareError::OutputPath(fault)),
        }
    }

    /// As the .blend was when it was hashed.
    fn blend_stamp(&self) -> Option<FileStamp> {
        let at = self.bundle.files.iter().position(|file| file.path == self.session.blend)?;
        self.sources.get(at).map(|source| source.stamp)
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.bundle.size()
    }

    pub fn files(&self) -> usize {
        self.bundle.files.len()
    }

    /// What its frames on this device are known by in an output folder.
    pub fn identity(&self, device: DeviceClass, out: &Path) -> FrameIdentity {
        let session = self.session.on(device);
        let choices = Choices::of(&session, self.inspection.written_by.series());
        FrameIdentity::new(&session, &self.save, choices, Some(out))
    }

    /// The request to the server, for these of the frames.
    pub fn job(&self, frames: FrameSet, order: Order, frame_time_limit_s: Option<u32>) -> SubmitJob {
        let source = JobSource::Bundle {
            id: self.session.bundle,
            blend: self.session.blend.clone(),
            origin: self.session.origin.clone(),
            file_name: self.session.file_name.clone(),
        };
        SubmitJob {
            name: Some(job_name(self.shown_name())),
            frames: Some(frames),
            order,
            frame_time_limit_s,
            blender: Some(self.session.blender),
            device: Some(self.session.device.into()),
            settings: self.session.settings.clone(),
            policy: self.session.policy,
            ocio: self.session.ocio.clone(),
            addons: self.session.addons.clone(),
            save: Some(self.save.clone()),
            ..SubmitJob::new(source)
        }
    }
}

/// The same however its folder is named. What the .blend itself links to is not looked at: `shot.blend` may lead to
/// another version each day.
fn real_place(blend: &Path) -> PathBuf {
    let folder = blend.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(blend.file_name()).map_or_else(|| blend.to_owned(), |(folder, name)| folder.join(name))
}

/// Unix milliseconds.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The .blend's own name, where its place in the bundle has another.
fn renamed(path: &Path, place: &RelPath) -> Option<String> {
    let name = path.file_name()?.as_encoded_bytes();
    (name != place.file_name().as_bytes()).then(|| paths::spelled(name))
}

/// What people call the job: as much of the .blend's name as can stand in a line.
fn job_name(name: Cow<'_, str>) -> String {
    let plain = name.chars().map(|c| if c.is_control() { ' ' } else { c });
    let name: String = plain.take(SubmitJob::MAX_NAME).collect();
    if name.trim().is_empty() { "scene".to_owned() } else { name }
}

fn bundle(layout: &BundleLayout, sources: &[SourceFile], shared: Vec<SharedFile>) -> Bundle {
    let files = layout.files.iter().zip(sources).map(|((path, _), source)| BundleFile {
        path: path.clone(),
        hash: source.content.hash,
        size: source.content.size,
    });
    Bundle { files: files.collect(), remap: layout.remap.clone(), unused: layout.unused.clone(), shared }
}

/// What a worker must find in the place of the files that are not sent.
fn shared_files(layout: &BundleLayout, request: &Request) -> Result<Vec<SharedFile>, PrepareError> {
    let each = |shared: &SharedPlace| {
        let fail = |error| ClientError::file(&shared.source, "read", error);
        let meta = std::fs::metadata(&shared.source).map_err(fail)?;
        let hash = if request.hash_shared {
            let content = read(&shared.source, Transfer::Whole, &request.hashes)?.content;
            // Workers see the file as it lies there.
            Some(if content.packed { hash_file(&shared.source)?.0 } else { content.hash })
        } else {
            None
        };
        let modified_ms = meta.mtime().saturating_mul(1000) + meta.mtime_nsec() / 1_000_000;
        Ok(SharedFile {
            path: shared.place.clone(),
            root: shared.root.clone(),
            below: shared.below.clone(),
            size: meta.len(),
            modified_ms,
            hash,
        })
    };
    layout.shared.iter().map(each).collect()
}
