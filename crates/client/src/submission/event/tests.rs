use kiln_types::{StepKind, TaskName};
use serde_json::{Value, json};

use super::*;
use crate::submission::samples;

const DOCS: &str = include_str!("../../../../../docs/events.md");

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn frames(text: &str) -> FrameSet {
    text.parse().unwrap()
}

/// The number of the event's kind. A new kind does not compile before it is here, and then in [`samples`].
fn kind(event: &SubmissionEvent) -> usize {
    use SubmissionEvent as E;
    match event {
        E::Reading { .. } => 0,
        E::Missing { .. } => 1,
        E::Hashing { .. } => 2,
        E::Notice { .. } => 3,
        E::Device { .. } => 4,
        E::EarlierFetched { .. } => 5,
        E::OtherJob(_) => 6,
        E::OtherJobCancelled { .. } => 7,
        E::Inputs(_) => 8,
        E::Planned(_) => 9,
        E::AlreadyRendering { .. } => 10,
        E::Unbaked { .. } => 11,
        E::Uploading { .. } => 12,
        E::Submitted(_) => 13,
        E::NotRemembered { .. } => 14,
        E::Progress(_) => 15,
        E::Baked { .. } => 16,
        E::DevicePinned { .. } => 17,
        E::AttemptFailed { .. } => 18,
        E::FrameFinished { .. } => 19,
        E::FrameFetched { .. } => 20,
        E::ServerLost { .. } => 21,
        E::ServerBack => 22,
        E::NoReport { .. } => 23,
        E::Finished(_) => 24,
        E::Fetched(_) => 25,
        E::VariantsSubmitted { .. } => 26,
        E::VariantsFinished(_) => 27,
    }
}

const KINDS: usize = 28;

/// At least one event of each kind.
fn samples() -> Vec<SubmissionEvent> {
    use SubmissionEvent as E;
    let job = JobId(7);
    let black = || vec![Suspicion::Black];
    vec![
        E::Reading { file: "/home/ana/shot.blend".into() },
        E::Missing {
            files: vec![MissingFile {
                named_by: "/home/ana/shot.blend".into(),
                file: "image //wood.png (looked for at /home/ana/wood.png)".to_owned(),
            }],
        },
        E::Hashing { files_done: 3, files: 12, bytes_done: 1_048_576, bytes: 9_437_184 },
        E::Notice { text: "image //wood.png (looked for at /home/ana/wood.png) is missing; nothing that the scene “Shot” renders uses it".to_owned() },
        E::Device {
            device: DeviceClass::Optix,
            reason: DeviceReason::MadeEarlierFrames { asked: DeviceClass::Gpu },
        },
        E::Device { device: DeviceClass::Gpu, reason: DeviceReason::FirstWorkerDecides },
        E::Device {
            device: DeviceClass::Optix,
            reason: DeviceReason::BestHere {
                cards: vec!["NVIDIA RTX A6000".to_owned()],
                is_set_by_scene: true,
            },
        },
        E::Device {
            device: DeviceClass::Cpu,
            reason: DeviceReason::NoGpuHere { blender: "4.5.3".to_owned() },
        },
        E::EarlierFetched { job, frames: 3 },
        E::OtherJob(OtherJob {
            job,
            created_ms: 1_800_000_000_000,
            differs_in: JobDifference::Save,
            blend: "shot".to_owned(),
            out: "/home/ana/frames".into(),
        }),
        E::OtherJobCancelled { job },
        E::Inputs(Box::new(RenderInputs {
            blend: "shot".to_owned(),
            scene: "Scene".to_owned(),
            frames: frames("1-250"),
            width: 1920,
            height: 1080,
            percent: 50,
            camera: Some("Camera".to_owned()),
            has_camera_markers: false,
            engine: "CYCLES".to_owned(),
            samples: Some(128),
            blender: "4.5".parse().unwrap(),
            files: 12,
            bytes: 9_437_184,
        })),
        E::Planned(Box::new(RenderPlan {
            out: "/home/ana/frames".into(),
            existing: Existing::Continue,
            frames: Some(frames("101-250")),
            kept: 100,
            skipped: 0,
            replaced: 0,
            older: 2,
            broken: 1,
            first_broken: vec![path("shot_0007.png")],
        })),
        E::AlreadyRendering {
            job,
            created_ms: 1_800_000_000_000,
            state: JobState::Running,
            frames: 100,
            others: OtherFrames::Added,
            other_frames: 50,
        },
        E::Unbaked { simulations: vec!["cloth of Flag".to_owned()], bakes: true },
        E::Uploading { bytes_done: 4_194_304, bytes: 8_388_608, bytes_there: 1_048_576 },
        E::Submitted(Box::new(SubmissionReceipt {
            job: samples::job(7, "queued"),
            new: true,
            kept: 100,
            replaced: 0,
            older: 2,
            notices: Vec::new(),
        })),
        E::NotRemembered {
            data: "/home/ana/.local/share/kiln".into(),
            reason: "No space left on device (os error 28)".to_owned(),
        },
        E::Progress(Box::new(JobProgress {
            state: Some(JobState::Running),
            done: 12,
            failed: 0,
            total: 150,
            workers_busy: 3,
            seconds_left: Some(840.0),
            mean_frame_s: Some(12.5),
            waits_for: None,
            baking: None,
            running: None,
        })),
        E::Progress(Box::new(JobProgress {
            state: Some(JobState::Running),
            total: 150,
            workers_busy: 1,
            baking: Some(Baking { simulations: vec!["cloth of Flag".to_owned()], fraction: 0.5 }),
            running: Some(RunningFrames {
                fractions: 0.25,
                first: Some(RunningFrame { frame: 101, fraction: 0.25, is_estimated: true }),
            }),
            ..JobProgress::default()
        })),
        E::Baked { seconds: 12.5 },
        E::DevicePinned { device: DeviceClass::Optix },
        E::AttemptFailed {
            task: TaskName { kind: StepKind::Render, frame: Some(104) },
            worker: Some("rack-3".to_owned()),
            cause: FailureCause::NoCamera,
            message: "the scene has no camera".to_owned(),
        },
        E::FrameFinished {
            frame: 101,
            seconds: 12.5,
            worker: Some("rack-3".to_owned()),
            suspicious: black(),
        },
        E::FrameFetched {
            frame: 101,
            files: vec![path("shot_0101.png")],
            bytes: 2_097_152,
            result: FetchResult::Written,
            left: Vec::new(),
            suspicious: black(),
        },
        E::ServerLost { reason: "the server http://10.0.0.5:8765 cannot be reached".to_owned() },
        E::ServerBack,
        E::NoReport { reason: "the server http://10.0.0.5:8765 cannot be reached".to_owned() },
        E::Finished(Box::new(SubmissionResult {
            outcome: JobOutcome::Done,
            end: FollowEnd::Ended,
            job: Some(samples::job(7, "completed")),
            out: Some("/home/ana/frames".into()),
            landed: 150,
            kept: 100,
            skipped: 0,
            replaced: 0,
            older: 2,
            left: Vec::new(),
            fetch_error: None,
            failed: Vec::new(),
            log_tail: Vec::new(),
            report: Some(JobReport {
                workers: Vec::new(),
                wall_s: 900.0,
                render_s: 1875.0,
                gain: 2.0,
                suspicious: SuspiciousFrames::default(),
            }),
            suspicious: SuspiciousFrames::collect([(101, black())]),
            notices: Vec::new(),
        })),
        E::Fetched(Box::new(FetchTotals {
            job,
            state: JobState::Running,
            out: "/home/ana/frames".into(),
            fetched: 12,
            there: 3,
            replaced: 0,
            left: Vec::new(),
            gone: Vec::new(),
            suspicious: SuspiciousFrames::default(),
        })),
        E::VariantsSubmitted {
            variants: vec![
                VariantJob { variant: "Day".into(), job: Some(job) },
                VariantJob { variant: "Night".into(), job: None },
            ],
        },
        E::VariantsFinished(VariantsResult {
            outcome: JobOutcome::Failed,
            variants: vec![
                VariantSummary {
                    variant: "Day".into(),
                    outcome: JobOutcome::Done,
                    job: Some(job),
                    out: Some("/home/ana/frames/Day".into()),
                    frames: 250,
                    failed: 0,
                    error: None,
                },
                VariantSummary {
                    variant: "Night".into(),
                    outcome: JobOutcome::Failed,
                    job: Some(JobId(8)),
                    out: Some("/home/ana/frames/Night".into()),
                    frames: 249,
                    failed: 1,
                    error: None,
                },
            ],
        }),
    ]
}

/// As docs/events.md shows it: of a job its number alone, of a report one figure.
fn shown(event: &SubmissionEvent) -> Value {
    let mut value = serde_json::to_value(event).unwrap();
    for (field, kept) in [("job", "id"), ("report", "wall_s")] {
        if let Some(Value::Object(whole)) = value.get_mut(field) {
            whole.retain(|name, _| name == kept);
        }
    }
    value
}

#[test]
fn each_kind_has_a_sample() {
    let mut kinds: Vec<usize> = samples().iter().map(kind).collect();
    kinds.dedup();
    assert_eq!(kinds, (0..KINDS).collect::<Vec<_>>());
}

#[test]
fn the_documented_examples_are_what_is_written() {
    let lines = DOCS.lines().filter(|line| line.starts_with("{\"event\""));
    let documented: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let written: Vec<Value> = samples().iter().map(shown).collect();
    for (documented, written) in documented.iter().zip(&written) {
        assert_eq!(documented, written, "docs/events.md against the type");
    }
    assert_eq!(documented.len(), written.len(), "an example of each sample, in their order");
}

#[test]
fn the_table_of_events_names_each_event_and_its_fields() {
    for event in samples() {
        let value = shown(&event);
        let name = value["event"].as_str().unwrap();
        let row = DOCS.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/events.md has no row for {name}"));
        for field in value.as_object().unwrap().keys().filter(|field| *field != "event") {
            assert!(row.contains(&format!("`{field}`")), "the row of {name} does not name {field}");
        }
    }
}

#[test]
fn an_event_of_a_variant_names_it_and_others_have_no_such_field() {
    let line = |variant: Option<&str>| {
        let event = VariantEvent { event: SubmissionEvent::ServerBack, variant: variant.map(Into::into) };
        serde_json::to_string(&event).unwrap()
    };
    assert_eq!(line(None), r#"{"event":"server-back"}"#);
    let of_variant = line(Some("Night"));
    assert_eq!(of_variant, r#"{"event":"server-back","variant":"Night"}"#);
    assert!(DOCS.contains(&of_variant), "docs/events.md shows one");
}

#[test]
fn what_is_not_there_is_null_and_not_absent() {
    let value = serde_json::to_value(SubmissionEvent::Progress(Box::default())).unwrap();
    let nothing = json!({
        "event": "progress", "state": null, "done": 0, "failed": 0, "total": 0, "workers_busy": 0,
        "seconds_left": null, "mean_frame_s": null, "waits_for": null, "baking": null, "running": null,
    });
    assert_eq!(value, nothing);
}
