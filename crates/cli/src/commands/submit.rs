//! `kiln submit`, and what `kiln render` shares with it: from arguments to a job.

use std::{path::PathBuf, sync::Arc};

use kiln_api::{JobView, SubmitJob};
use kiln_blend::SharedRoot;
use kiln_client::{
    Client, Existing, ExistingError, Extras, Fetcher, HashCache, Identity, Manifest, Naming, OutFolder,
    PrepareError, Prepared, Request, Sent, ToRender, Transfer, recorded, to_render,
};
use kiln_types::{
    DeviceClass, ExternalFiles, FrameSet, JobStanding, Needs, Owner, Policy, Project, RenderSettings,
    ScriptPolicy, Simulations,
};
use serde_json::json;
use tokio::task::JoinError;

use super::{
    Context,
    attach::{Ending, manifest, open_folder},
    device::{Place, candidates, earlier_devices, settle},
    earlier::{Earlier, Lacking, Left, Running},
};
use crate::{
    args::{At, Counted, ExtrasArgs, JobArgs, Jobs, OrderArgs, SubmitArgs, WhereArgs},
    ask,
    exit::{Exit, Fault, Outcome},
    farm,
    follow::{Whose, follow},
    marker::Marker,
    newer::{Where, choose, of_farm},
    output::{
        Output, Reader,
        blend::{summary, tell_missing},
        one_line, suspicious,
        text::{self, count, shown},
    },
    settings::Settings,
    signals::Signals,
    size::ByteSize,
};

/// Bytes from which on an upload tells how far it is.
const TOLD_FROM: u64 = 64 << 20;

impl From<PrepareError> for Fault {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Client(error) => error.into(),
            other => Self::bad_input(other.to_string()),
        }
    }
}

/// What goes along because it is named, on the command line or by the variable that every program with OCIO reads.
pub fn extras(output: Output, args: &ExtrasArgs) -> Extras {
    let of_system = || {
        let path = std::env::var_os("OCIO").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())?;
        let shown = text::path(&path);
        if path.is_file() {
            output.note(&format!("colours by {shown}, which the variable OCIO names; it goes along"));
            return Some(path);
        }
        output.note(&format!("the variable OCIO names {shown}, which is no file: colours are Blender's own"));
        None
    };
    Extras { ocio: args.ocio.clone().or_else(of_system), addons: args.addon.clone() }
}

/// What the arguments ask for.
fn request(output: Output, args: &JobArgs, settings: &Settings, transfer: Transfer) -> Request {
    Request {
        frames: args.frames.clone(),
        step: args.step,
        blender: args.blender_version,
        device: settings.device.value,
        settings: RenderSettings {
            scene: args.scene.clone(),
            camera: args.camera.clone(),
            view_layer: args.view_layer.clone(),
            engine: args.engine.clone(),
            samples: args.samples,
            resolution: args.resolution,
            format: args.format,
            depth: args.depth,
            threads: args.threads,
        },
        policy: Policy {
            scripts: match (args.trust, args.no_scripts) {
                (true, _) => ScriptPolicy::Trust,
                (_, true) => ScriptPolicy::Block,
                _ => ScriptPolicy::Stop,
            },
            external_files: if args.allow_missing {
                ExternalFiles::MayBeMissing
            } else {
                ExternalFiles::Required
            },
            simulations: match (args.no_bake, args.only_baked) {
                (true, _) => Simulations::AsTheyAre,
                (_, true) => Simulations::MustBeBaked,
                _ => Simulations::Bake,
            },
        },
        shared: settings
            .shared
            .value
            .iter()
            .map(|(name, root)| SharedRoot { name: name.clone(), root: root.clone() })
            .collect(),
        hash_shared: args.shared_hash,
        extras: extras(output, &args.extras),
        transfer,
        hashes: if settings.hash_cache.value {
            HashCache::new(settings.cache.join("hashes"))
        } else {
            HashCache::off()
        },
    }
}

/// Reads and hashes the .blend and all it needs, off the async threads.
///
/// # Errors
/// Where it cannot be rendered as asked.
pub async fn prepare(
    output: Output,
    args: &JobArgs,
    settings: &Settings,
    transfer: Transfer,
) -> Outcome<Prepared> {
    let (file, request) = (args.file.clone(), request(output, args, settings, transfer));
    let prepared = tokio::task::spawn_blocking(move || Prepared::new(&file, &request));
    let prepared =
        prepared.await.map_err(|error| Fault::failed(format!("reading the .blend broke off ({error})")))?;
    if let Err(PrepareError::Missing(files)) = &prepared
        && files.len() > PrepareError::NAMED
    {
        tell_missing(output, files);
    }
    let prepared = prepared?;
    for notice in &prepared.notices {
        output.note(&one_line(notice));
    }
    let unbaked = prepared.unbaked();
    if args.only_baked && !unbaked.is_empty() {
        return Err(Fault::bad_input(format!(
            "{} not baked; bake in Blender, leave --only-baked out and Kiln bakes first, or choose --no-bake: then \
             nothing moves",
            named(&unbaked)
        )));
    }
    Ok(prepared)
}

/// `rigid body Cube and 3 more simulations are`.
fn named(simulations: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = simulations[..simulations.len().min(SHOWN)].join(", ");
    match simulations.len().saturating_sub(SHOWN) {
        0 if simulations.len() == 1 => format!("{shown} is"),
        0 => format!("{shown} are"),
        more => format!("{shown} and {} are", count(more as u64, "more simulation")),
    }
}

/// What becomes of simulations that nobody has baked.
fn tell_bake(output: Output, prepared: &Prepared) {
    let unbaked = prepared.unbaked();
    if unbaked.is_empty() {
        return;
    }
    let named = named(&unbaked);
    match prepared.session.policy.simulations {
        Simulations::Bake => output.note(&format!("{named} not baked: that is done first")),
        Simulations::AsTheyAre => output.warning(&format!("{named} not baked, and will stand still")),
        // Refused before.
        Simulations::MustBeBaked => {}
    }
}

/// The folder, what is in it, and the frames that are left to render.
pub struct Ground {
    pub folder: Arc<OutFolder>,
    pub manifest: Manifest,
    pub existing: Existing,
    pub to_render: ToRender,
    /// A job that renders this already.
    running: Option<Running>,
    /// What was told of the scene's files.
    pub notices: Vec<String>,
}

/// Looks at the output folder, and settles on which device the job renders.
///
/// # Errors
/// Where it cannot be written, files are in the way, or this machine lacks the device.
pub async fn ground(
    output: Output,
    settings: &Settings,
    args: &JobArgs,
    prepared: &mut Prepared,
    landing: &WhereArgs,
    place: &Place<'_>,
) -> Outcome<Ground> {
    let (choice, order) = (settings.device.value, &args.order);
    let out: PathBuf = landing.out.clone().unwrap_or_else(|| prepared.folder.clone());
    let folder = Arc::new(open_folder(out).await?);
    let existing = landing.existing.unwrap_or_default();
    let manifest = manifest(&folder, prepared.session.own_stem())?;
    let candidates = if existing == Existing::Overwrite { Vec::new() } else { candidates(choice, prepared) };
    let (running, manifest) = match place {
        Place::Farm(client) => {
            let refuse_black = args.refuse_black;
            let earlier =
                Earlier { output, settings, client, prepared, folder: &folder, existing, refuse_black };
            earlier.look(choice, &candidates, manifest).await?
        }
        Place::Here(_) => (None, manifest),
    };
    let known = |device: &DeviceClass| (*device, prepared.identity(*device, folder.real_path()));
    let identities: Vec<(DeviceClass, Identity)> = candidates.iter().map(known).collect();
    let earlier = earlier_devices(prepared.session.device);
    let (frames, there) = (prepared.frames.clone(), Arc::clone(&folder));
    let look = tokio::task::spawn_blocking(move || {
        (recorded(&there, &manifest, &identities, earlier, &frames), manifest)
    });
    let (recorded, manifest) = look.await.map_err(unread)?;
    let chosen = settle(choice, recorded, prepared, place).await?;
    let cpu = prepared.session.device == DeviceClass::Cpu;
    if cpu && (order.gpus.is_some() || order.gpu_memory.is_some()) {
        return Err(Fault::bad_input(
            "--gpus and --gpu-memory are for GPUs, and this renders on the CPU; choose GPUs with --device gpu",
        ));
    }
    if let Some(line) = chosen {
        output.note(&line);
    }
    let look = Look {
        folder: &folder,
        identity: prepared.identity(prepared.session.device, folder.real_path()),
        refuse_black: args.refuse_black,
        frames: prepared.frames.clone(),
        naming: prepared.naming()?,
    };
    let (manifest, found) = look.at(manifest, existing).await?;
    let (mut manifest, existing, to_render) = match found {
        Ok(found) => (manifest, existing, found),
        Err(ExistingError::OtherChoices { found, changes }) if output.can_ask() => {
            let files = count(found.count as u64, "file");
            let question = format!(
                "{files} in {} were made from {} with other settings ({}). Replace them? [y/N] ",
                text::path(folder.path()),
                prepared.shown_name(),
                changes.join("; ")
            );
            if !ask::yes(question).await {
                return Err(ExistingError::OtherChoices { found, changes }.into());
            }
            let (manifest, found) = look.at(manifest, Existing::Replace).await?;
            (manifest, Existing::Replace, found?)
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(frames) = &to_render.frames {
        place.check(prepared.session.device).await?;
        if running.as_ref().is_some_and(|running| running.makes_any_of(frames)) {
            // Its frames are wanted by this save, too.
            manifest = look.see(manifest).await?;
        }
    }
    Ok(Ground { folder, manifest, existing, to_render, running, notices: prepared.notices.clone() })
}

/// What a command asks of the output folder.
struct Look<'a> {
    folder: &'a Arc<OutFolder>,
    identity: Identity,
    refuse_black: bool,
    frames: FrameSet,
    naming: Naming,
}

impl Look<'_> {
    /// Looks off the async threads.
    async fn at(
        &self,
        mut manifest: Manifest,
        mode: Existing,
    ) -> Outcome<(Manifest, Result<ToRender, ExistingError>)> {
        let (folder, frames, naming) = (Arc::clone(self.folder), self.frames.clone(), self.naming.clone());
        let (identity, refuse_black) = (self.identity.clone(), self.refuse_black);
        let look = tokio::task::spawn_blocking(move || {
            let names = |frame| naming.frame(frame);
            let found = to_render(&folder, &manifest, mode, &identity, refuse_black, &frames, names);
            if found.as_ref().is_ok_and(|found| found.kept > 0)
                && let Err(error) = manifest.renew(&folder, &identity, &frames)
            {
                // At worst they are rendered again one day.
                tracing::debug!(%error, "what is there was not noted again");
            }
            (manifest, found)
        });
        look.await.map_err(unread)
    }

    /// Notes that what a job makes is asked for here.
    async fn see(&self, mut manifest: Manifest) -> Outcome<Manifest> {
        let (folder, identity) = (Arc::clone(self.folder), self.identity.clone());
        let see = tokio::task::spawn_blocking(move || {
            if let Err(error) = manifest.see(&folder, &identity, None) {
                // At worst a job of an earlier save replaces them one day.
                tracing::debug!(%error, "what is rendered was not noted again");
            }
            manifest
        });
        see.await.map_err(unread)
    }
}

fn unread(error: JoinError) -> Fault {
    Fault::failed(format!("the output folder could not be read ({error})"))
}

impl Ground {
    /// Tells what is about to render, and what of it stays as it is.
    pub fn tell(&self, output: Output, prepared: &Prepared) {
        for line in summary(prepared) {
            output.note(&line);
        }
        let ToRender { kept, skipped, replaced, older, broken, .. } = &self.to_render;
        if *replaced > 0 {
            let what = if self.existing == Existing::Replace {
                "an earlier save or of other settings"
            } else {
                "an earlier save"
            };
            output.note(&format!("{} of {what} will be replaced", count(*replaced, "frame")));
        }
        if *older > 0 {
            let frames = count(*older, "frame");
            output.note(&format!("{frames} of an earlier save, outside the frames asked for, will stay"));
        }
        if *kept > 0 {
            output.note(&format!(
                "{} of this scene and these settings are there already",
                count(*kept, "frame")
            ));
        }
        if *skipped > 0 {
            output.note(&format!("{} skipped: files of their names are there", count(*skipped, "frame")));
        }
        if broken.count > 0 {
            output.warning(&format!(
                "{} among them empty or cut off ({broken}) and not Kiln's: left as it is, --existing overwrite replaces it",
                count(broken.count as u64, "file")
            ));
        }
    }

    /// The result of a command that found nothing to render.
    pub fn nothing_left(&self, context: &Context) -> Exit {
        let ToRender { kept, skipped, replaced, older, suspicious, .. } = &self.to_render;
        let out = self.folder.path();
        let value = json!({
            "end": "ended", "job": null, "out": shown(Some(out)), "landed": 0, "kept": kept, "skipped": skipped,
            "replaced": replaced, "older": older, "left": [], "failed": [], "report": null, "suspicious": suspicious,
            "notices": self.notices, "exit_code": 0,
        });
        context.output.result(&value, || {
            let there = count(kept + skipped, "frame");
            let mut lines = vec![format!("Nothing is left to render: {there} in {}", text::path(out))];
            lines.extend(suspicious::summary(suspicious, kept + skipped));
            lines.join("\n")
        });
        Exit::Done
    }

    /// What brings the job's frames here.
    pub fn fetcher(self, client: &Client, job: &JobView) -> Fetcher {
        Fetcher::new(client.clone(), job, true, self.existing, self.folder, self.manifest)
    }
}

/// The job where it should stand, and with what it needs.
fn ordered(job: SubmitJob, args: &OrderArgs, settings: &Settings) -> SubmitJob {
    let limits = args.limit.iter().map(|Counted { name, count }| (name.clone(), *count));
    SubmitJob {
        user: settings.user.value.clone().map(Owner),
        project: settings.project.value.clone().map(Project),
        held: args.hold,
        hang_s: args.hang.map(|hang| u32::try_from(hang.as_secs()).unwrap_or(u32::MAX)),
        standing: JobStanding {
            priority: args.priority.unwrap_or_default(),
            after: args.after.as_ref().map(|Jobs(jobs)| jobs.clone()).unwrap_or_default(),
            not_before_ms: args.at.and_then(|At(at_ms)| at_ms),
            max_workers: args.max_workers,
        },
        needs: Needs {
            cores: args.cores,
            memory: args.memory.map(|ByteSize(bytes)| bytes),
            gpus: args.gpus.unwrap_or_default(),
            gpu_memory: args.gpu_memory.map(|ByteSize(bytes)| bytes),
            whole: args.whole,
            tags: args.tag.iter().cloned().collect(),
            pool: args.pool.clone(),
            limits: limits.collect(),
        },
        ..job
    }
}

/// Sends the files and makes the job, or goes on with one that renders the same already.
///
/// # Errors
/// As the server says.
pub async fn submit(
    output: Output,
    settings: &Settings,
    client: &Client,
    prepared: &Prepared,
    ground: &Ground,
    args: &JobArgs,
    lacking: Lacking,
) -> Outcome<JobView> {
    let mut frames = ground.to_render.frames.clone().unwrap_or_else(|| prepared.frames.clone());
    if let Some(running) = &ground.running {
        frames = match running.take(output, client, frames, lacking).await? {
            Left::Nothing(job) => return Ok(*job),
            Left::Frames(frames) => frames,
        };
    }
    tell_bake(output, prepared);
    let limit = args.frame_time_limit.map(|limit| u32::try_from(limit.as_secs()).unwrap_or(u32::MAX));
    let job = prepared.job(frames, args.frame_order, limit);
    let job = SubmitJob { refuse_black: args.refuse_black, ..ordered(job, &args.order, settings) };
    let mut told = 0;
    let sent = |Sent { done, total, there }: Sent| {
        // A line a tenth, where there is much to send.
        if total > TOLD_FROM && (done == total || done >= told + total / 10) {
            told = done;
            let there =
                if there > 0 { format!("; {} were there already", ByteSize(there)) } else { String::new() };
            output.note(&format!("sent {} of {}{there}", ByteSize(done), ByteSize(total)));
        }
    };
    Ok(client.submit_prepared(prepared, &job, sent).await?)
}

/// Remembers where the frames of a farm's job go, for `kiln jobs wait` and `fetch`.
pub fn remember(
    output: Output,
    settings: &Settings,
    client: &Client,
    job: &JobView,
    prepared: &Prepared,
    ground: &Ground,
) -> Marker {
    let marker = Marker {
        server: client.url().to_owned(),
        job: job.id,
        created_ms: job.created_ms,
        out: ground.folder.path().to_owned(),
        blend: prepared.session.own_stem().to_owned(),
        existing: ground.existing,
    };
    if let Err(error) = marker.save(&settings.data.value) {
        let data = settings.data.value.display();
        output.warning(&format!(
            "where the frames go could not be noted in {data} ({error}); `kiln jobs fetch` will need --out"
        ));
    }
    marker
}

pub async fn run(context: &Context, args: SubmitArgs) -> Outcome<Exit> {
    let mut flags = context.flags(&args.farm);
    flags.of_job(&args.job);
    let settings = Settings::resolve(flags)?;
    let output = context.output;
    let mut signals = Signals::new().map_err(|error| Fault::failed(error.to_string()))?;
    let sending = async {
        let client = farm::need(&settings)?;
        let (checked, prepared) =
            tokio::join!(client.check(), prepare(output, &args.job, &settings, Transfer::Chunks));
        let mut prepared = prepared?;
        checked?;
        if args.job.blender_version.is_none() {
            let (there, asked) = (of_farm(&client).await?, (&*args.job.file, prepared.session.blender));
            prepared.session.blender = choose(output, &settings, asked, &there, Where::Farm).await?;
        }
        let farm = Place::Farm(&client);
        let ground = ground(output, &settings, &args.job, &mut prepared, &args.landing, &farm).await?;
        ground.tell(output, &prepared);
        if ground.to_render.frames.is_none() {
            return Ok((client, prepared, ground, None));
        }
        let job = submit(output, &settings, &client, &prepared, &ground, &args.job, Lacking::Apart).await?;
        Ok::<_, Fault>((client, prepared, ground, Some(job)))
    };
    let (client, prepared, mut ground, job) = tokio::select! {
        sent = sending => sent?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    let Some(job) = job else { return Ok(ground.nothing_left(context)) };
    let marker = remember(output, &settings, &client, &job, &prepared, &ground);
    if !args.wait {
        // The folder is made now: the frames are to land there later.
        if let Some(folder) = Arc::get_mut(&mut ground.folder) {
            folder.keep();
        }
        told(output, &job, &ground);
        return Ok(Exit::Done);
    }
    output.note(&format!("job {} at {}", job.id, client.url()));
    let out = ground.folder.path().to_owned();
    let (before, notices) = (ground.to_render.clone(), ground.notices.clone());
    let fetcher = ground.fetcher(&client, &job);
    let stay = follow(output, &client, job, Some(fetcher), Whose::Farm, &mut signals)
        .await?
        .only(before.frames.as_ref());
    if stay.exit() == Exit::Done && !stay.behind {
        marker.forget(&settings.data.value);
    }
    Ending { stay, out: Some(&out), before: Some(&before), notices: &notices }.tell(context, &client).await
}

fn told(output: Output, job: &JobView, ground: &Ground) {
    let id = job.id;
    let ToRender { kept, replaced, older, .. } = &ground.to_render;
    if let (Some(waits), Reader::Human) = (&job.waits_for, output.reader()) {
        output.note(waits);
    }
    let is_new = ground.running.as_ref().is_none_or(|running| running.id() != id);
    let value = json!({
        "job": job, "new": is_new, "kept": kept, "replaced": replaced, "older": older, "notices": ground.notices,
    });
    output.result(&value, || {
        if output.reader() == Reader::Quiet {
            return id.to_string();
        }
        format!(
            "Job {id}: {} of {}. `kiln jobs wait {id}` stays with it, `kiln jobs fetch {id}` brings its frames.",
            count(job.tasks.total, "frame"),
            job.name
        )
    });
}
