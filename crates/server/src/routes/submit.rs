//! Submission of jobs: the .blend is read, and a job that cannot render is refused before anything starts.

use std::{collections::BTreeSet, sync::Arc};

use axum::{extract::State, http::StatusCode};
use kiln_api::{JobSource, JobView, ProblemCode, SubmitJob};
use kiln_blend::{ChoiceError, ChoiceRequest, ExternalKind, Inspection, check_linked, choose};
use kiln_types::{
    BlobHash, Bundle, BundleFile, BundleId, DeviceChoice, DeviceClass, FrameSet, GpuUse, JobRequirements,
    JobSpec, Name, Order, RelPath, Save, ScriptPolicy, SessionSpec, Simulations, TaskIndex, paths,
};

use super::{
    blobs::MAX_BLOB,
    body::roomy,
    document::{Conflict, NoSpace, NotFound, Unprocessable},
    jobs::{MAX_LISTED, check_after, view},
};
use crate::{
    app::{App, AppState},
    bundles,
    inspect::{Contents, unpacked},
    problem::{Answer, Json, ProblemResponse, sentence},
    scheduler::Input,
};

/// Bytes of the path of the artist's folder, or of a .blend, in escaped form.
const MAX_ORIGIN: usize = 4096 * 3;
/// Threads to which Blender can be set.
const MAX_CORES: u32 = 1024;
/// Seconds: a worker reports every 30 that its Blender works (`worker/src/monitor.rs`), and one of two reports may be late.
const LEAST_HANG_S: u32 = 60;
/// Names that an error lists.
const LISTED: usize = 20;
/// Bytes by which the records grow for a job, about.
const JOB_RECORD: u64 = 64 << 10;

/// The notice of a job for which no device was named and whose scene is set to GPU.
const AUTO_GPU: &str = "The scene is set to GPU: all of the job renders on the backend of the first worker with a GPU that \
                        takes it. The device cpu renders it on processors instead.";

/// Creates a job.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", request_body = SubmitJob,
    responses((status = 201, body = JobView), NotFound, Conflict, Unprocessable, NoSpace))]
pub(super) async fn create(
    State(app): AppState,
    Json(request): Json<SubmitJob>,
) -> Answer<(StatusCode, axum::Json<JobView>)> {
    let _hold = app.holds.begin();
    // The records grow with each job: none is created when their reserve would be touched.
    let _room = app.space.reserve(JOB_RECORD)?;
    let source = match &request.source {
        JobSource::Bundle { id, blend, origin, file_name } => {
            check_origin(origin.as_deref(), file_name.as_deref())?;
            from_bundle(&app, *id, blend, (origin.clone(), file_name.clone())).await?
        }
        JobSource::Upload { id } => from_upload(&app, *id).await?,
    };
    let (source, bundle) = source;
    let contents = Arc::new(Contents::of(&app.blobs, bundle));
    let inspection = contents.inspect(&source.blend).await.map_err(|why| {
        ProblemResponse::new(
            ProblemCode::NotABlend,
            format!("“{}” is not a whole .blend: {why}", source.blend),
        )
    })?;
    check_extras(&request, contents.bundle())?;
    let (held, choice) = (request.held, request.device.unwrap_or_default());
    let is_alone = matches!(request.source, JobSource::Upload { .. });
    let (mut spec, scene) = spec(request, source, &inspection)?;
    if is_alone {
        spec.session.bundle = store_alone(&app, &contents, &spec, &scene, &inspection).await?;
    }
    check_libraries(&contents, &spec.session, &scene, &inspection).await?;
    let chosen = choice == DeviceChoice::Auto && spec.any_gpu;
    let notices = chosen.then(|| AUTO_GPU.to_owned()).into_iter().collect();
    let spec = Box::new(spec);
    let id = app.scheduler.ask(|reply| Input::Submit { spec, notices, held, reply }).await?;
    view(&app, id).await.map(|view| (StatusCode::CREATED, axum::Json(view)))
}

struct Source {
    bundle: BundleId,
    blend: RelPath,
    origin: Option<String>,
    file_name: Option<String>,
    /// The shared folders that hold files of the job.
    shared: Vec<String>,
}

/// Checks the path of the .blend on the artist's machine, which may be anything that a disk allows.
fn check_origin(origin: Option<&str>, file_name: Option<&str>) -> Answer<()> {
    let is_path = |text: &str| text.len() <= MAX_ORIGIN && paths::unspelled(text).is_some();
    if origin.is_some_and(|origin| !is_path(origin)) {
        return Err(ProblemResponse::unprocessable("The origin is not the path of a folder."));
    }
    if file_name.is_some_and(|name| name.is_empty() || !is_path(name) || name.contains('/')) {
        return Err(ProblemResponse::unprocessable("The file_name is not the name of a file."));
    }
    Ok(())
}

async fn from_bundle(
    app: &App,
    id: BundleId,
    blend: &RelPath,
    (origin, file_name): (Option<String>, Option<String>),
) -> Answer<(Source, Bundle)> {
    let bundle = bundles::read(app, id).await?;
    if bundle.files.iter().all(|file| file.path != *blend) {
        return Err(ProblemResponse::unprocessable(format!("The bundle holds no {blend}.")));
    }
    let shared: BTreeSet<String> = bundle.shared.iter().map(|file| file.root.to_string()).collect();
    let shared = shared.into_iter().collect();
    Ok((Source { bundle: id, blend: blend.clone(), origin, file_name, shared }, bundle))
}

/// Stores the bundle of a single .blend. Files that the render does not use may be missing.
async fn store_alone(
    app: &App,
    contents: &Arc<Contents>,
    spec: &JobSpec,
    scene: &str,
    file: &Inspection,
) -> Answer<BundleId> {
    let mut bundle = contents.bundle().clone();
    if file.external.iter().any(|external| !external.packed && external.kind.is_required()) {
        let unused = contents.find_unused(spec, scene).await;
        bundle.unused =
            unused.map_err(|error| ProblemResponse::internal("The .blend could not be read", error))?;
    }
    Ok(bundles::store(app, &bundle).await?.id)
}

/// Returns the bundle of an uploaded .blend, which is not stored yet.
async fn from_upload(app: &App, id: kiln_types::UploadId) -> Answer<(Source, Bundle)> {
    let info = app.uploads.info(id).await?;
    let hash = info.finished.ok_or_else(|| {
        ProblemResponse::conflict(format!(
            "The upload {id} is not finished; send the rest, then POST /api/v1/uploads/{id}/finish."
        ))
    })?;
    let size = app.blobs.promise(&hash).await?;
    let size = size.ok_or_else(|| {
        ProblemResponse::not_found(format!("The bytes of the upload {id} are gone; send them again."))
    })?;
    let (hash, size) = unpack(app, hash, size).await?;
    let name = info.name.rsplit(['/', '\\']).next().unwrap_or_default();
    let blend = RelPath::new(name)
        .or_else(|_| RelPath::new("scene.blend"))
        .map_err(|error| ProblemResponse::unprocessable(sentence(&error)))?;
    let file = BundleFile { path: blend.clone(), hash, size };
    let bundle = Bundle { files: vec![file], ..Bundle::default() };
    let file_name = (name != blend.as_str()).then(|| name.to_owned());
    check_origin(None, file_name.as_deref())?;
    Ok((Source { bundle: bundle.id(), blend, origin: None, file_name, shared: Vec::new() }, bundle))
}

/// Stores the unpacked bytes of an uploaded .blend if it is packed. Returns the hash and the size of the bundle's file.
async fn unpack(app: &App, hash: BlobHash, size: u64) -> Answer<(BlobHash, u64)> {
    let reader = app.blobs.reader(&hash).await?;
    let read = |error| ProblemResponse::internal("The uploaded .blend could not be unpacked", error);
    let Some(bytes) = unpacked(reader).await.map_err(read)? else { return Ok((hash, size)) };
    // At least this much.
    let mut room = app.space.reserve(size)?;
    Ok(app.blobs.put_stream(None, MAX_BLOB, roomy(bytes, &mut room)).await?)
}

/// Returns the first frames of an order; `None` if these are all.
fn first_frames(frames: &FrameSet, order: Order, count: u32) -> Option<FrameSet> {
    if count >= frames.len() {
        return None;
    }
    let first = kiln_core::first_in_order(order, frames.len(), count);
    let of_order = frames.iter().zip(0..).filter(|(_, at)| first.contains(TaskIndex(*at)));
    FrameSet::from_frames(of_order.map(|(frame, _)| frame)).ok()
}

/// Returns the job and the name of its scene.
fn spec(request: SubmitJob, source: Source, file: &Inspection) -> Answer<(JobSpec, String)> {
    let choice = ChoiceRequest {
        settings: &request.settings,
        frames: request.frames.as_ref(),
        step: None,
        blender: request.blender,
        device: request.device.unwrap_or_default(),
        simulations: request.policy.simulations,
    };
    let chosen = choose(file, &choice).map_err(|error| choice_problem(&error, &source.blend))?;
    let (scene, frames, blender, device) =
        (chosen.scene.name.clone(), chosen.frames, chosen.blender, chosen.device);
    let denoiser = chosen.denoiser;
    let bake = named(chosen.bake.into_iter());
    if request.frame_time_limit_s == Some(0) {
        return Err(ProblemResponse::bad("A frame needs at least one second; leave the limit out for none."));
    }
    if request.hang_s.is_some_and(|seconds| seconds < LEAST_HANG_S) {
        return Err(ProblemResponse::bad(format!(
            "Workers say twice a minute that a Blender works, so a frame is taken to hang after {LEAST_HANG_S} seconds at \
             least; leave the limit out for that of the farm."
        )));
    }
    if request.hold_after == Some(0) {
        return Err(ProblemResponse::bad(
            "A job is held after one frame at least; leave hold_after out for none.",
        ));
    }
    let hold = request.hold_after.and_then(|count| first_frames(&frames, request.order, count));
    check_after(&request.scheduling.after)?;
    check_requirements(&request.requirements, device)?;
    let stem = source.blend.file_name();
    let stem = stem.strip_suffix(".blend").filter(|stem| !stem.is_empty()).unwrap_or(stem);
    let name = request.name.or_else(|| Name::nearest(stem));
    let spec = JobSpec {
        name: name.map_or_else(|| "scene".to_owned(), String::from),
        owner: request.user.unwrap_or_default(),
        project: request.project.unwrap_or_default(),
        frames,
        order: request.order,
        frame_time_limit_s: request.frame_time_limit_s,
        hang_s: request.hang_s,
        refuse_black: request.refuse_black,
        scheduling: request.scheduling,
        requirements: request.requirements,
        written_by: file.written_by,
        any_gpu: device == DeviceClass::Gpu,
        denoiser,
        bake,
        shared: source.shared,
        hold,
        save: check_save(request.save)?,
        session: SessionSpec {
            bundle: source.bundle,
            blend: source.blend,
            origin: source.origin,
            file_name: source.file_name,
            blender,
            device,
            settings: request.settings,
            policy: request.policy,
            ocio: request.ocio,
            addons: request.addons,
        },
    };
    Ok((spec, scene))
}

/// Returns the problem of a choice that the .blend does not allow, in the words of the API.
fn choice_problem(error: &ChoiceError, blend: &RelPath) -> ProblemResponse {
    ProblemResponse::unprocessable(match error {
        ChoiceError::NoScene => "The file has no scene to render.".to_owned(),
        ChoiceError::NoSuchScene { name, there } => {
            format!("The file has no scene “{name}”; {}.", listed("scenes", there))
        }
        ChoiceError::NoSuchViewLayer { scene, name, there } => {
            format!("The scene “{scene}” has no view layer “{name}”; {}.", listed("view layers", there))
        }
        ChoiceError::NoSuchCamera { scene, name, there } => {
            format!("The scene “{scene}” has no camera “{name}”; {}.", listed("cameras", there))
        }
        ChoiceError::Format { .. } => {
            format!("{} Choose another format in the settings, such as png.", sentence(error))
        }
        ChoiceError::TooOld { asked, written_by } => format!(
            "{blend} was written by Blender {written_by}, and Blender {asked} is older and cannot open it safely; choose \
             {written_by} or newer."
        ),
        ChoiceError::Unbaked { scene, simulations } => format!(
            "The scene “{scene}” has simulations that are not baked ({}); bake them in Blender, or let Kiln do it.",
            named(simulations.iter()).join(", ")
        ),
        ChoiceError::UnbakedLinked { scene, simulations } => format!(
            "The scene “{scene}” has simulations that are not baked ({}); what a library holds can only be baked there: \
             bake in the library, or send the policy that simulations render as they are.",
            named(simulations.iter()).join(", ")
        ),
        ChoiceError::Incomplete { scene, lacking } => format!(
            "The scene “{scene}” has simulations whose bake is not whole ({}); put the missing files back, or bake again \
             in Blender and save, or send the policy that simulations render as they are.",
            named(lacking.iter()).join("; ")
        ),
        ChoiceError::Setting(_) | ChoiceError::NoFrames(_) | ChoiceError::Frames(_) => sentence(error),
    })
}

fn check_save(save: Option<Save>) -> Answer<Option<Save>> {
    match save {
        Some(save) if save.blend.as_os_str().len() > MAX_ORIGIN => Err(ProblemResponse::unprocessable(
            format!("The path of a .blend has at most {MAX_ORIGIN} bytes."),
        )),
        save => Ok(save),
    }
}

/// Checks that the simulations of libraries are baked: only the libraries themselves can bake them.
async fn check_libraries(
    contents: &Arc<Contents>,
    session: &SessionSpec,
    scene: &str,
    file: &Inspection,
) -> Answer<()> {
    let has_any = file.external.iter().any(|external| external.kind == ExternalKind::Library);
    if session.policy.simulations == Simulations::AsTheyAre || !has_any {
        return Ok(());
    }
    let linked = contents.find_linked(&session.blend).await;
    let linked =
        linked.map_err(|error| ProblemResponse::internal("The libraries could not be read", error))?;
    check_linked(scene, &linked, session.policy.simulations)
        .map_err(|error| choice_problem(&error, &session.blend))
}

/// Returns the first names, and the number of the others.
fn named(all: impl Iterator<Item: ToString>) -> Vec<String> {
    let mut all = all.map(|one| one.to_string());
    let mut names: Vec<String> = all.by_ref().take(LISTED).collect();
    match all.count() {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    names
}

fn check_requirements(requirements: &JobRequirements, device: DeviceClass) -> Answer<()> {
    if requirements.tags.len() > MAX_LISTED || requirements.limits.len() > MAX_LISTED {
        return Err(ProblemResponse::bad(format!(
            "A job names at most {MAX_LISTED} tags and {MAX_LISTED} limits."
        )));
    }
    if device == DeviceClass::Cpu
        && (requirements.gpus != GpuUse::default() || requirements.gpu_memory.is_some())
    {
        return Err(ProblemResponse::unprocessable(
            "A job that renders on the processor needs no GPU; choose a device, such as gpu or cuda.",
        ));
    }
    if requirements.cores.is_some_and(|cores| cores.get() > MAX_CORES) {
        return Err(ProblemResponse::bad(format!("A Blender uses at most {MAX_CORES} threads.")));
    }
    if requirements.cores.is_some() && requirements.whole {
        return Err(ProblemResponse::unprocessable(
            "The whole machine is all of its cores; leave one of the two out.",
        ));
    }
    Ok(())
}

fn listed(what: &str, all: &[String]) -> String {
    if all.is_empty() {
        return format!("it has no {what} at all");
    }
    let more = all.len().saturating_sub(LISTED);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("its {what} are {}{tail}", all[..all.len().min(LISTED)].join(", "))
}

/// Checks that the bundle holds the colour configuration and the add-ons, and that add-ons are trusted.
fn check_extras(request: &SubmitJob, bundle: &Bundle) -> Answer<()> {
    if !request.addons.is_empty() && request.policy.scripts != ScriptPolicy::Trust {
        return Err(ProblemResponse::unprocessable(
            "Add-ons run Python of their own; send the policy that scripts are trusted with them.",
        ));
    }
    let held =
        || bundle.files.iter().map(|file| &file.path).chain(bundle.shared.iter().map(|file| &file.path));
    let holds = |place: &RelPath, folders: bool| {
        held().any(|path| match path.as_str().strip_prefix(place.as_str()) {
            Some(rest) => rest.is_empty() || (folders && rest.starts_with('/')),
            None => false,
        })
    };
    let places = request.ocio.iter().map(|place| (place, false));
    let mut places = places.chain(request.addons.iter().map(|place| (place, true)));
    match places.find(|(place, folders)| !holds(place, *folders)) {
        Some((place, _)) => Err(ProblemResponse::unprocessable(format!("The bundle holds no {place}."))),
        None => Ok(()),
    }
}
