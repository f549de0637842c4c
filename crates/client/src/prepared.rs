//! Prepares a job from a .blend on the artist's disk.

use std::{
    borrow::Cow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_api::{JobSource, SubmitJob};
use kiln_blend::{
    BundleLayout, Dependencies, Inspection, LinkedSimulation, RenderChoice, RenderScope, SceneInfo,
    SharedPlace, check_linked, choose,
};
use kiln_types::{
    Bundle, BundleFile, Choices, DeviceClass, ExternalFiles, FileFormat, FrameSet, Name, Order, RelPath,
    RenderSettings, Save, ScriptPolicy, SessionSpec, SharedFile, paths,
};

use crate::{
    ClientError, FoundExtras, FrameIdentity, NamedFor, Naming, PrepareError, Request, Transfer,
    content::{KnownBytes, content},
    hash_cache::FileStamp,
    reading::{READS, SourceFile, hash_file, read, read_all},
    submission::EventSender,
};

/// A job that is ready to be submitted.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The .blend.
    path: PathBuf,
    /// The .blend's folder.
    pub folder: PathBuf,
    pub inspection: Arc<Inspection>,
    /// Simulations of libraries that show in the scene and are not baked, if the policy allows them.
    linked: Vec<LinkedSimulation>,
    pub scene: SceneInfo,
    pub frames: FrameSet,
    pub session: SessionSpec,
    /// The save of the .blend.
    pub save: Save,
    /// The format of the main files.
    format: FileFormat,
    /// Sentences about its files that a person should know.
    pub notices: Vec<String>,
    /// The part of its name that differs from other jobs of the same .blend.
    pub label: Option<String>,
    pub(crate) bundle: Arc<Bundle>,
    /// The sources of the bundle's files, in their order.
    pub(crate) sources: Arc<[SourceFile]>,
    /// Keeps the unpacked add-ons until they are sent.
    _extras: FoundExtras,
}

impl Prepared {
    /// Returns the names of the simulations of the scene that are not baked.
    pub fn unbaked(&self) -> Vec<String> {
        let own = self.inspection.unbaked(&self.scene.name).map(ToString::to_string);
        own.chain(self.linked.iter().map(ToString::to_string)).collect()
    }

    /// Prepares one job with the settings of the request, without events. See [`Prepared::variants`].
    pub fn new(blend: &Path, request: &Request) -> Result<Self, PrepareError> {
        let settings = std::slice::from_ref(&request.settings);
        Ok(Self::variants(blend, request, settings, &EventSender::silent())?.swap_remove(0))
    }

    /// Reads and hashes the .blend and the files that any of these renders of it needs. Returns one job for each of the
    /// settings, which replace those of the request; all have the same bundle. Blocks: call it off the async threads.
    pub fn variants(
        blend: &Path,
        request: &Request,
        settings: &[RenderSettings],
        events: &EventSender,
    ) -> Result<Vec<Self>, PrepareError> {
        for _ in 0..READS {
            let (before, read_ms) = (FileStamp::at(blend).ok(), now_ms());
            let found = kiln_blend::find_dependencies(blend)?;
            let prepared = Self::of(found, request, settings, read_ms, events)?;
            request.hashes.sweep();
            // A save meanwhile may name other files than those that were read.
            if before.is_some() && prepared.iter().all(|one| one.blend_stamp() == before) {
                return Ok(prepared);
            }
        }
        Err(PrepareError::Changing(blend.to_owned()))
    }

    fn of(
        found: Dependencies,
        request: &Request,
        settings: &[RenderSettings],
        read_ms: i64,
        events: &EventSender,
    ) -> Result<Vec<Self>, PrepareError> {
        let path = &found.blend;
        if path.as_os_str().len() > kiln_blend::LONGEST_PATH {
            return Err(PrepareError::TooDeep(path.clone()));
        }
        let refuse = |error| PrepareError::Choice { blend: path.clone(), error: Box::new(error) };
        let inspection = Arc::new(found.inspection.clone());
        let choose = |settings| choose(&inspection, &request.asked(settings));
        let chosen = settings.iter().map(choose).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
        for chosen in &chosen {
            check_linked(&chosen.scene.name, &found.linked, request.policy.simulations).map_err(refuse)?;
        }
        let requested = chosen.iter().zip(settings).map(|(chosen, settings)| RenderScope {
            scene: &chosen.scene.name,
            frames: &chosen.frames,
            view_layer: settings.view_layer.as_deref(),
            engine: settings.engine.as_deref(),
        });
        let mut layout = kiln_blend::plan_layout(&found, &request.shared, &requested.collect::<Vec<_>>());
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
        let stamps = |path| request.settings.properties.switch(path) == Some(true);
        let shows_path = request.policy.scripts == ScriptPolicy::Trust
            || ["render.use_stamp", "render.use_stamp_filename"].into_iter().any(stamps)
            || found.inspection.scenes.iter().any(|scene| scene.burns_in_path);
        let shown = shows_path.then_some(path.as_path());
        let content = content(&found, &bytes, &extras, shown);
        let save = Save { content, blend: real_place(path), read_ms };
        let id = bundle.id();
        let (bundle, sources) = (Arc::new(bundle), Arc::from(sources));
        let of = |(chosen, settings): (RenderChoice<'_>, &RenderSettings)| {
            let session = SessionSpec {
                bundle: id,
                blend: layout.blend.clone(),
                origin: Some(paths::spelled(folder.as_os_str().as_encoded_bytes())),
                file_name: renamed(path, &layout.blend),
                blender: chosen.blender,
                // `Gpu` until the backend is known.
                device: chosen.device,
                settings: settings.clone(),
                policy: request.policy,
                ocio: extras.ocio.clone(),
                addons: extras.addons.clone(),
            };
            let shows = |one: &&LinkedSimulation| one.simulation.scenes.contains(&chosen.scene.name);
            Self {
                path: path.clone(),
                folder: folder.clone(),
                inspection: Arc::clone(&inspection),
                linked: found.linked.iter().filter(shows).cloned().collect(),
                scene: chosen.scene.clone(),
                frames: chosen.frames,
                session,
                save: save.clone(),
                format: chosen.format,
                notices: layout.notices.clone(),
                label: None,
                bundle: Arc::clone(&bundle),
                sources: Arc::clone(&sources),
                _extras: extras.clone(),
            }
        };
        Ok(chosen.into_iter().zip(settings).map(of).collect())
    }

    /// Returns the .blend's name without its ending, as text.
    pub fn shown_name(&self) -> Cow<'_, str> {
        self.path.file_stem().unwrap_or_default().to_string_lossy()
    }

    /// Returns the naming of the main files by the Blender of the session. Fails if that would not write to the output path.
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

    /// Returns the stamp of the .blend when it was hashed.
    fn blend_stamp(&self) -> Option<FileStamp> {
        let at = self.bundle.files.iter().position(|file| file.path == self.session.blend)?;
        self.sources.get(at).map(|source| source.stamp)
    }

    /// Returns the bytes of all files together.
    pub fn size(&self) -> u64 {
        self.bundle.size()
    }

    pub fn files(&self) -> usize {
        self.bundle.files.len()
    }

    /// Returns the identity of its frames on a device in an output folder.
    pub fn identity(&self, device: DeviceClass, out: &Path) -> FrameIdentity {
        let session = self.session.on(device);
        let choices = Choices::of(&session, self.inspection.written_by.series());
        FrameIdentity::new(&session, &self.save, choices, Some(out))
    }

    /// Returns the request to the server for some of the frames.
    pub fn job(&self, frames: FrameSet, order: Order, frame_time_limit_s: Option<u32>) -> SubmitJob {
        let source = JobSource::Bundle {
            id: self.session.bundle,
            blend: self.session.blend.clone(),
            origin: self.session.origin.clone(),
            file_name: self.session.file_name.clone(),
        };
        SubmitJob {
            name: job_name(&self.shown_name(), self.label.as_deref()),
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

/// Returns the path with the links of its folder resolved. If the .blend itself is a link, it stays: `shot.blend` may lead to
/// another version each day.
fn real_place(blend: &Path) -> PathBuf {
    let folder = blend.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(blend.file_name()).map_or_else(|| blend.to_owned(), |(folder, name)| folder.join(name))
}

/// Returns the time in Unix milliseconds.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the .blend's name if it has another one in the bundle.
fn renamed(path: &Path, place: &RelPath) -> Option<String> {
    let name = path.file_name()?.as_encoded_bytes();
    (name != place.file_name().as_bytes()).then(|| paths::spelled(name))
}

/// Returns the name of a job: `shot`, or `shot (Night, Far)`, without characters that cannot be in a name.
fn job_name(name: &str, label: Option<&str>) -> Option<Name> {
    Name::nearest(&label.map_or_else(|| name.to_owned(), |label| format!("{name} ({label})")))
}

fn bundle(layout: &BundleLayout, sources: &[SourceFile], shared: Vec<SharedFile>) -> Bundle {
    let files = layout.files.iter().zip(sources).map(|((path, _), source)| BundleFile {
        path: path.clone(),
        hash: source.content.hash,
        size: source.content.size,
    });
    Bundle { files: files.collect(), remap: layout.remap.clone(), unused: layout.unused.clone(), shared }
}

/// Returns the shared files, which are not sent, as a worker must find them.
fn shared_files(layout: &BundleLayout, request: &Request) -> Result<Vec<SharedFile>, PrepareError> {
    let each = |shared: &SharedPlace| {
        let fail = |error| ClientError::file(&shared.source, "read", error);
        let meta = std::fs::metadata(&shared.source).map_err(fail)?;
        let hash = if request.hash_shared {
            let content = read(&shared.source, Transfer::Whole, &request.hashes)?.content;
            // Workers see the compressed file.
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
