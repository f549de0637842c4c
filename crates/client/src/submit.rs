//! From a .blend on the artist's disk to a job: what it needs is found, hashed, and sent as far as the server lacks
//! it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_api::{JobSource, JobView, SubmitJob};
use kiln_blend::{BlendError, Inspection, Layout, Missing, SceneInfo};
use kiln_types::{
    BlenderSeries, BlobHash, Bundle, BundleFile, DeviceClass, ExternalFiles, FileFormat, FrameSet,
    FrameSetError, Order, Policy, RenderSettings, SessionSpec,
};

use crate::{Client, ClientError, Naming, hash_file};

/// Files that are sent at the same time.
const AT_ONCE: usize = 3;
/// How often a broken upload is begun again.
const TRIES: u32 = 4;

/// What a person asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The scene's own range where `None`.
    pub frames: Option<FrameSet>,
    /// Every which of the frames; the scene's own step where neither this nor `frames` is there.
    pub step: Option<u32>,
    /// The series that wrote the file where `None`.
    pub blender: Option<BlenderSeries>,
    pub device: Option<DeviceClass>,
    pub settings: RenderSettings,
    pub policy: Policy,
}

/// Why a request is no job.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Blend(#[from] BlendError),
    #[error("{} holds no scene to render; name a .blend that has one", .0.display())]
    NoScene(PathBuf),
    #[error("there is no {what} “{name}” in the file; it has {}", listed(.there))]
    NoSuch { what: &'static str, name: String, there: Vec<String> },
    #[error("{0}")]
    Setting(String),
    #[error(
        "the scene writes {format}, which Kiln cannot check; choose another with --format, such as --format png"
    )]
    Format { format: String },
    #[error(
        "the file was saved by Blender {written_by}, which Blender {asked} cannot read as it is meant; leave \
         --blender-version out, or name a newer one"
    )]
    TooOld { asked: BlenderSeries, written_by: BlenderSeries },
    #[error(transparent)]
    Frames(#[from] FrameSetError),
    #[error(
        "{} missing: {}; bring them back, or render without them with --allow-missing",
        if .0.len() == 1 { "a file that the scene needs is".to_owned() }
            else { format!("{} files that the scene needs are", .0.len()) },
        first(.0)
    )]
    Missing(Vec<Missing>),
    #[error("{0} came apart while it was read ({1}); run the command again")]
    Broken(String, String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => {
            let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
            format!("{}{}", shown.join(", "), if names.len() > 8 { ", …" } else { "" })
        }
    }
}

fn first(missing: &[Missing]) -> String {
    let shown: Vec<String> = missing.iter().take(3).map(ToString::to_string).collect();
    format!("{}{}", shown.join(", "), if missing.len() > 3 { ", …" } else { "" })
}

/// A job that is ready to be sent; the server has not heard of it yet.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The .blend's name without its ending.
    pub name: String,
    /// The .blend's folder.
    pub folder: PathBuf,
    pub inspection: Inspection,
    pub scene: SceneInfo,
    pub frames: FrameSet,
    pub session: SessionSpec,
    /// How the main files will be called.
    pub naming: Naming,
    bundle: Bundle,
    sources: Vec<(BlobHash, u64, PathBuf)>,
}

impl Prepared {
    /// Reads the .blend and whatever it needs, and hashes all of it. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// Where the file or the request cannot be rendered.
    pub fn new(blend: &Path, request: &Request) -> Result<Self, PrepareError> {
        request.settings.check().map_err(PrepareError::Setting)?;
        let found = kiln_blend::dependencies(blend)?;
        let inspection = found.inspection.clone();
        let scene = choose_scene(blend, &inspection, &request.settings)?;
        let format = choose_format(&scene, &request.settings)?;
        let frames = choose_frames(&scene, request)?;
        let layout = kiln_blend::layout(&found, &[]);
        if !layout.missing.is_empty() && request.policy.external_files == ExternalFiles::Required {
            return Err(PrepareError::Missing(layout.missing));
        }
        let written_by = inspection.written_by.series();
        if let Some(asked) = request.blender
            && asked < written_by
        {
            return Err(PrepareError::TooOld { asked, written_by });
        }
        let path = &found.blend;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let name =
            path.file_stem().map_or_else(|| "scene".to_owned(), |name| name.to_string_lossy().into_owned());
        let (bundle, sources) = hash_all(&layout)?;
        let session = SessionSpec {
            bundle: bundle.id(),
            blend: layout.blend.clone(),
            origin: folder.to_str().map(str::to_owned),
            blender: request.blender.unwrap_or(written_by),
            device: request.device.unwrap_or(DeviceClass::Cpu),
            settings: request.settings.clone(),
            policy: request.policy,
            ocio: None,
            addons: Vec::new(),
        };
        let naming = Naming::of(&scene, &folder.to_string_lossy(), format);
        Ok(Self { name, folder, inspection, scene, frames, session, naming, bundle, sources })
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.bundle.size()
    }

    pub fn files(&self) -> usize {
        self.bundle.files.len()
    }

    /// The request to the server, for these of the frames.
    pub fn job(&self, frames: FrameSet, order: Order, frame_time_limit_s: Option<u32>) -> SubmitJob {
        SubmitJob {
            source: JobSource::Bundle {
                id: self.session.bundle,
                blend: self.session.blend.clone(),
                origin: self.session.origin.clone(),
            },
            name: Some(self.name.clone()),
            project: None,
            frames: Some(frames),
            order,
            frame_time_limit_s,
            blender: Some(self.session.blender),
            device: Some(self.session.device),
            settings: self.session.settings.clone(),
            policy: self.session.policy,
            ocio: self.session.ocio.clone(),
            addons: self.session.addons.clone(),
        }
    }
}

fn choose_scene(
    blend: &Path,
    inspection: &Inspection,
    settings: &RenderSettings,
) -> Result<SceneInfo, PrepareError> {
    let scene = match &settings.scene {
        Some(name) => inspection.scenes.iter().find(|scene| scene.name == *name).ok_or_else(|| {
            let there = inspection.scenes.iter().map(|scene| scene.name.clone()).collect();
            PrepareError::NoSuch { what: "scene", name: name.clone(), there }
        })?,
        None => inspection.active().ok_or_else(|| PrepareError::NoScene(blend.to_owned()))?,
    };
    if let Some(name) = &settings.view_layer
        && !scene.view_layers.iter().any(|layer| layer.name == *name)
    {
        let there = scene.view_layers.iter().map(|layer| layer.name.clone()).collect();
        return Err(PrepareError::NoSuch { what: "view layer", name: name.clone(), there });
    }
    // A camera may also come from a library, whose names are not read here.
    let linked = inspection.external.iter().any(|file| file.kind == kiln_blend::ExternalKind::Library);
    if let Some(name) = &settings.camera
        && !linked
        && !inspection.cameras.contains(name)
    {
        let there = inspection.cameras.clone();
        return Err(PrepareError::NoSuch { what: "camera", name: name.clone(), there });
    }
    Ok(scene.clone())
}

/// A film is rendered as frames, PNG unless told otherwise.
fn choose_format(scene: &SceneInfo, settings: &RenderSettings) -> Result<FileFormat, PrepareError> {
    match (settings.format, scene.format) {
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) if scene.is_movie => Ok(FileFormat::Png),
        (None, None) => Err(PrepareError::Format { format: scene.format_name.clone() }),
    }
}

fn choose_frames(scene: &SceneInfo, request: &Request) -> Result<FrameSet, PrepareError> {
    match (&request.frames, request.step) {
        (Some(frames), None | Some(0 | 1)) => Ok(frames.clone()),
        (Some(frames), Some(step)) => Ok(FrameSet::from_frames(frames.iter().step_by(step as usize))?),
        (None, step) => {
            let step = step.unwrap_or_else(|| scene.frame_step.max(1).unsigned_abs());
            Ok(FrameSet::range(scene.frame_start, scene.frame_end.max(scene.frame_start), step)?)
        }
    }
}

type Hashed = (Bundle, Vec<(BlobHash, u64, PathBuf)>);

/// Hashes every file, several at a time.
fn hash_all(layout: &Layout) -> Result<Hashed, PrepareError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let files = &layout.files;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some((_, source)) = files.get(at) else { return Ok(done) };
            done.push((at, hash_file(source)?));
        }
    };
    let mut hashed: Vec<(usize, (BlobHash, u64))> = Vec::with_capacity(files.len());
    if threads == 1 || files.len() == 1 {
        hashed.extend(work().map_err(PrepareError::Client)?);
    } else {
        let parts: Vec<Result<_, ClientError>> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads.min(files.len())).map(|_| scope.spawn(work)).collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        for part in parts {
            hashed.extend(part?);
        }
    }
    hashed.sort_unstable_by_key(|(at, _)| *at);
    if hashed.len() != files.len() {
        return Err(PrepareError::Broken("the bundle".to_owned(), "a hash is missing".to_owned()));
    }
    let mut bundle =
        Bundle { files: Vec::with_capacity(files.len()), remap: layout.remap.clone(), shared: Vec::new() };
    let mut sources = Vec::with_capacity(files.len());
    for ((path, source), (_, (hash, size))) in files.iter().zip(hashed) {
        bundle.files.push(BundleFile { path: path.clone(), hash, size });
        sources.push((hash, size, source.clone()));
    }
    Ok((bundle, sources))
}

impl Client {
    /// Sends what the server lacks, and makes the bundle. `sent` hears of the bytes of each file that is through,
    /// with the bytes that are to go in all.
    ///
    /// # Errors
    /// Where a file has changed meanwhile, or the server does not take it.
    pub async fn send_bundle(
        &self,
        prepared: &Prepared,
        mut sent: impl FnMut(u64, u64),
    ) -> Result<(), ClientError> {
        let mut hashes: Vec<BlobHash> = prepared.sources.iter().map(|(hash, ..)| *hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let missing: HashSet<BlobHash> = self.missing(&hashes).await?.into_iter().collect();
        let mut to_send: Vec<&(BlobHash, u64, PathBuf)> =
            prepared.sources.iter().filter(|(hash, ..)| missing.contains(hash)).collect();
        to_send.sort_unstable_by_key(|(hash, ..)| *hash);
        to_send.dedup_by_key(|(hash, ..)| *hash);
        let total: u64 = to_send.iter().map(|(_, size, _)| size).sum();
        let uploads = to_send.into_iter().map(|(hash, size, path)| async move {
            self.put_patiently(*hash, *size, path).await?;
            Ok::<u64, ClientError>(*size)
        });
        let mut uploads = stream::iter(uploads.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some(size) = uploads.try_next().await? {
            sent(size, total);
        }
        let id = self.create_bundle(&prepared.bundle).await?;
        if id == prepared.session.bundle { Ok(()) } else { Err(ClientError::Damaged { hash: id.0 }) }
    }

    async fn put_patiently(&self, hash: BlobHash, size: u64, path: &Path) -> Result<(), ClientError> {
        let mut tries = 0;
        loop {
            match self.put_blob_file(hash, size, path).await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(tries)).await;
                }
                other => return other,
            }
        }
    }

    /// [`Client::send_bundle`] and the job.
    ///
    /// # Errors
    /// As those.
    pub async fn submit_prepared(
        &self,
        prepared: &Prepared,
        job: &SubmitJob,
        sent: impl FnMut(u64, u64),
    ) -> Result<JobView, ClientError> {
        self.send_bundle(prepared, sent).await?;
        self.submit(job).await
    }
}
