//! Starting, ending, and leaving nothing behind.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kiln_host::{Host, HostOptions, RenderRequest, SlotRoot, probe};
use kiln_testkit::{blenders, temp_dir, wait_until};
use kiln_types::FailureCause;

use crate::{Slot, debian, install, session, trusted, trusting};

fn runs(pid: u32) -> bool {
    // A process that is dead and not yet waited for is gone for all that matters.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn tells_what_it_can_do() {
    for blender in blenders() {
        let found = probe(&install(&blender)).await.unwrap();
        assert!(found.engines.iter().any(|engine| engine == "CYCLES"), "{found:?}");
        assert!(found.engines.iter().any(|engine| engine.starts_with("BLENDER_EEVEE")), "{found:?}");
        assert!(found.has(kiln_types::DeviceClass::Cpu));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_and_drop_end_the_group() {
    for blender in blenders() {
        let slot = Slot::start(install(&blender), HostOptions::default()).await;
        let pid = slot.host.pid();
        assert!(runs(pid));
        slot.host.kill().await;
        assert!(!runs(pid));
    }
    let slot = Slot::start(debian(), HostOptions::default()).await;
    let pid = slot.host.pid();
    drop(slot);
    wait_until(SOON, "a dropped host ends", || !runs(pid));
}

/// A text that starts two programs, one of which leaves the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_script_started_ends_too() {
    let mut slot = Slot::start(debian(), trusting()).await;
    let folder = temp_dir();
    let blend = folder.path().join("daemon.blend");
    let pids = folder.path().join("pids");
    let code = format!(
        "import bpy, subprocess\n\
         text = bpy.data.texts.new('daemon.py')\n\
         text.use_module = True\n\
         text.write('''import subprocess\n\
         for own in (False, True):\n\
         \x20   p = subprocess.Popen([\"sleep\", \"1000\"], start_new_session=own)\n\
         \x20   open({pids:?}, \"a\").write(\"%d\\\\n\" % p.pid)\n\
         ''')\n\
         bpy.ops.object.camera_add()\n\
         bpy.context.scene.camera = bpy.context.object\n\
         bpy.context.scene.render.engine = 'CYCLES'\n\
         bpy.context.scene.cycles.use_denoising = False\n\
         bpy.ops.wm.save_as_mainfile(filepath={blend:?})\n"
    );
    let made = std::process::Command::new(&slot.install.program)
        .args(["--background", "--factory-startup", "--python-exit-code", "1", "--python-expr", &code])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut session = session(&slot.install, &blend);
    trusted(&mut session);
    let request = kiln_host::OpenRequest::new(blend, session);
    slot.host.open(&request).await.unwrap();
    let started: Vec<u32> =
        std::fs::read_to_string(&pids).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(started.len(), 2);
    assert!(started.iter().all(|pid| runs(*pid)));
    slot.host.kill().await;
    wait_until(SOON, "what the script started ends", || !started.iter().any(|pid| runs(*pid)));
}

#[tokio::test]
async fn a_crash_is_named_and_the_time_limit_kept() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    slot.open_with("basic", |spec| spec.settings.samples = Some(100_000)).await.unwrap();
    let out = slot.root.fresh_out("long").unwrap();
    let limit = Some(Duration::from_millis(300));
    let failure = slot.host.render(RenderRequest { frame: 1, out, time_limit: limit }).await.unwrap_err();
    assert_eq!(failure.cause, FailureCause::TimedOut, "{failure}");
    assert!(!slot.host.is_alive());
    assert!(!runs(slot.host.pid()));

    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    slot.open_with("basic", |spec| spec.settings.samples = Some(100_000)).await.unwrap();
    let out = slot.root.fresh_out("long").unwrap();
    let pid = slot.host.pid();
    let render = slot.host.render(RenderRequest { frame: 1, out, time_limit: None });
    let kill = async {
        std::process::Command::new("kill").args(["-SEGV", &pid.to_string()]).status().unwrap();
    };
    let (result, ()) = tokio::join!(render, kill);
    let failure = result.unwrap_err();
    assert_eq!(failure.cause, FailureCause::Crashed, "{failure}");
    assert!(failure.message.contains("signal") || failure.message.contains("exit code"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_render_that_is_dropped_ends_the_process() {
    let mut slot = Slot::start(debian(), HostOptions::default()).await;
    slot.open_with("basic", |spec| spec.settings.samples = Some(100_000)).await.unwrap();
    let out = slot.root.fresh_out("long").unwrap();
    let pid = slot.host.pid();
    let render = slot.host.render(RenderRequest { frame: 1, out: out.clone(), time_limit: None });
    assert!(tokio::time::timeout(Duration::from_millis(200), render).await.is_err());
    assert!(!slot.host.is_alive());
    wait_until(SOON, "the dropped render's process ends", || !runs(pid));
}

/// The worker is killed with -9: its Blenders must end by themselves.
#[tokio::test]
async fn the_end_of_the_worker_is_the_end_of_the_host() {
    const CHILD: &str = "KILN_TEST_HOST_CHILD";
    if let Some(told) = std::env::var_os(CHILD) {
        let slot = Slot::start(debian(), HostOptions::default()).await;
        std::fs::write(&told, slot.host.pid().to_string()).unwrap();
        std::future::pending::<()>().await;
    }
    let folder = temp_dir();
    let told = folder.path().join("pid");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::the_end_of_the_worker_is_the_end_of_the_host", "--nocapture"])
        .env(CHILD, &told)
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut pid = None;
    wait_until(Duration::from_secs(60), "the child starts its Blender", || {
        pid = std::fs::read_to_string(&told).ok().and_then(|text| text.parse::<u32>().ok());
        pid.is_some()
    });
    let pid = pid.unwrap();
    assert!(runs(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(SOON, "the Blender of a killed worker ends", || !runs(pid));
}

#[tokio::test]
async fn the_profile_is_empty_and_secrets_stay_out() {
    let slot = Slot::start(debian(), HostOptions::default()).await;
    let environ = std::fs::read(format!("/proc/{}/environ", slot.host.pid())).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let names: Vec<&str> = environ.split('\0').filter_map(|entry| entry.split('=').next()).collect();
    assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    let home = environ.split('\0').find_map(|entry| entry.strip_prefix("HOME=")).unwrap();
    assert!(std::path::Path::new(home).starts_with(slot.root.path()));
}

#[tokio::test]
async fn log_progress_and_gaps() {
    let lines = Arc::new(Mutex::new(String::new()));
    let seen = lines.clone();
    let options = HostOptions {
        log: Some(Arc::new(move |chunk| seen.lock().unwrap().push_str(&chunk))),
        ..HostOptions::default()
    };
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), options.clone()).await;
        slot.open("basic").await;
        let mut gaps = Vec::new();
        let mut ended = None;
        for frame in 1..=12 {
            let (_, rendered) = slot.render(frame).await.unwrap();
            gaps.extend(ended.map(|ended| rendered.started_at - ended));
            ended = Some(rendered.ended_at);
            assert!(rendered.peak_memory > 10 << 20);
        }
        assert_eq!(slot.host.frames_rendered(), 12);
        gaps.sort_by(f64::total_cmp);
        let median = gaps[gaps.len() / 2];
        println!(
            "median gap between frames inside the host: {:.2} ms ({})",
            median * 1e3,
            slot.install.version
        );
        assert!(median < 0.25, "the gap between frames is {median} s");
    }
    assert!(lines.lock().unwrap().contains("Blender"), "what Blender prints is passed on");
}

/// Nothing of a frame's log comes later than the frame: it would be taken for the next one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_frame_is_whole_when_the_frame_is() {
    let lines = Arc::new(Mutex::new(String::new()));
    let seen = lines.clone();
    let options =
        HostOptions { log: Some(Arc::new(move |chunk| seen.lock().unwrap().push_str(&chunk))), ..trusting() };
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), options.clone()).await;
        slot.open_with("talks", trusted).await.unwrap();
        for frame in 1..=20 {
            lines.lock().unwrap().clear();
            slot.render(frame).await.unwrap();
            let log = std::mem::take(&mut *lines.lock().unwrap());
            for words in [format!("python {frame};"), format!("and c {frame};"), "Saved".to_owned()] {
                assert!(log.contains(&words), "“{words}” is not in the log of frame {frame}: {log}");
            }
            assert_eq!(log.matches("python").count(), 1, "frame {frame}: {log}");
        }
    }
}

#[tokio::test]
async fn a_program_that_is_not_there() {
    let folder = temp_dir();
    let root = SlotRoot::create(folder.path()).unwrap();
    let mut install = debian();
    install.program = folder.path().join("nothing");
    let error = Host::start(&install, &root, HostOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("cannot be started"), "{error}");
    install.program = "/bin/true".into();
    let error = Host::start(&install, &root, HostOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("did not come up"), "{error}");
}
