//! Pictures as text, at the sizes that terminals have and at those that they should not have.

use kiln_types::JobId;
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, style::Color};
use serde_json::json;

use super::*;
use crate::top::{
    fixtures::{NOW, farm, job, model, worker},
    model::{FarmSnapshot, Key, Overlay},
};

const LIVE: ScreenLook = ScreenLook { colour: true, live: true };
const SNAPSHOT: ScreenLook = ScreenLook { colour: false, live: false };

fn now() -> DrawTime {
    DrawTime { ms: NOW, clock: "17:55:08".to_owned() }
}

/// A farm at work for five minutes, ever faster.
fn at_work() -> Model {
    let mut model = model();
    for second in 0..300 {
        let at = NOW - 300_000 + second * 1000;
        for _ in 0..second / 60 {
            model.rate.add_frame(at, at);
        }
    }
    model
}

fn press(model: &mut Model, keys: &[Key]) {
    for key in keys {
        model.press(*key, NOW);
    }
}

/// Draws the screen of a terminal of this size.
fn picture(model: &Model, look: ScreenLook, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen(model, &now(), look, frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

#[track_caller]
fn shows(model: &Model, look: ScreenLook, (width, height): (u16, u16), wanted: &str) {
    let shown = text(&picture(model, look, width, height));
    let wanted = wanted.trim_matches('\n');
    assert!(shown == wanted, "\nwanted:\n{wanted}\n\nshown:\n{shown}\n");
}

#[test]
fn a_farm_fits_the_smallest_usual_terminal() {
    let wanted = "
 kiln  http://10.0.0.5:8765  ● live                                    17:55:08
 5 workers: 2 rendering, 1 unavailable, 1 quarantined, 1 offline 240 frames/min

 ID  JOB          STATE      WHO       PROGRESS           DONE  FAILED     LEFT
▌ 7  forest       running    ana/film  ━━━━━╸━──  63%  157/250       2  4–9 min
   Blender 3.4 on cpu · 2 workers · 12 s per frame · 2 frames failed: r tries…
  8  water_simu…  baking               ━━━╸─────  40%     0/48
  9  credits      waits                ─────────   0%    0/120
  5  fall         completed            ━━━━━━━━━ 100%    48/48
  6  broken       failed               ━────────   8%     1/48       3

 WORKER    STATE        RENDERS                  SLOTS  CORES     MEMORY   SEEN
 attic     rendering    forest 158 63% · 160 ~…    2/2     16     64 GiB    now
 desk      unavailable  asleep until 08:00         0/1     16     64 GiB    now
 laptop    offline                                   1     16     64 GiB  2.0 h
 rack-3    quarantined  3 frames failed here t…    0/1     16     64 GiB    now
 studio    rendering    water_simulation_v12 b…    1/1   8/16  32/64 GiB    now






 q quit  Tab workers  ↑↓ select  e explain  p pause  r retry  c cancel  ? help
";
    shows(&at_work(), LIVE, (80, 24), wanted);
}

#[test]
fn a_narrow_screen_drops_what_matters_less() {
    let mut model = at_work();
    press(&mut model, &[Key::Down, Key::Down]);
    let wanted = "
 kiln  http://10.0.0.5:8765  ● live                17:55:08
 5 workers: 2 rendering, 1 unavailable, 1 quarantined, 1 of…
                                                      ↑1 ↓1
 ID  JOB         STATE      PROGRESS          DONE     LEFT
  8  water_sim…  baking     ━━━─────  40%     0/48
▌ 9  credits     waits      ────────   0%    0/120
   waits: No worker of the farm has Blender 4.5.
  5  fall        completed  ━━━━━━━━ 100%    48/48
                                                         ↓2
 WORKER    STATE        RENDERS                CORES   SEEN
 attic     rendering    forest 158 63% · 160…     16    now
 desk      unavailable  asleep until 08:00        16    now
 laptop    offline                                16  2.0 h
 q quit  Tab workers  ↑↓ select  e explain  p pause  r retry
";
    shows(&model, LIVE, (60, 14), wanted);
}

#[test]
fn the_selected_worker_is_in_sight() {
    let mut model = at_work();
    press(&mut model, &[Key::Tab, Key::End, Key::Up]);
    let wanted = "
 kiln  http://10.0.0.5:8765  ● live                17:55:08
 5 workers: 2 rendering, 1 unavailable, 1 quarantined, 1 of…
                                                         ↓3
 ID  JOB         STATE      PROGRESS          DONE     LEFT
  7  forest      running    ━━━━━━──  63%  157/250  4–9 min
  8  water_sim…  baking     ━━━─────  40%     0/48
                                                      ↑3 ↓1
 WORKER    STATE        RENDERS                CORES   SEEN
▌rack-3    quarantined  3 frames failed here…     16    now
   3 frames failed here that others delivered; 2 probes fa…
 q quit  Tab jobs  ↑↓ select  p pause  d drain  w work again
";
    shows(&model, LIVE, (60, 11), wanted);
}

#[test]
fn a_question_is_in_the_middle() {
    let mut model = at_work();
    press(&mut model, &[Key::Char('c')]);
    let wanted = "
 kiln  http://10.0.0.5:8765  ● live                17:55:08
 5 workers: 2 rendering, 1 unavailable, 1 quarantined, 1 of…
                                                         ↓3
 ID  ╭ cancel ────────────────────────────────────────╮LEFT
▌ 7  │ Cancel job 7 (forest)? What is rendered stays. │ min
   Bl│                                                │fra…
  8  │ y cancels it, any other key leaves it as it is │
     ╰────────────────────────────────────────────────╯  ↓3
 WORKER    STATE        RENDERS                CORES   SEEN
 attic     rendering    forest 158 63% · 160…     16    now
 desk      unavailable  asleep until 08:00        16    now
 q quit  Tab workers  ↑↓ select  e explain  p pause  r retry
";
    shows(&model, LIVE, (60, 12), wanted);
}

#[test]
fn an_explanation_is_read_to_its_end() {
    let mut model = at_work();
    press(&mut model, &[Key::End, Key::Up, Key::Up, Key::Char('e')]);
    let said = "Job 9 (credits) is queued: 0 of 120 frames done, 0 running, 120 waiting.\n\
        120 frames wait: no worker of the farm has Blender 4.5.\n  attic lacks Blender 4.5";
    model.show_explanation(JobId(9), said.to_owned());
    let wanted = "
 kiln  http://10.0.0.5:8765  ● live      17:55:08
 5 workers: 2 rendering, 1 unavailable, 1 quarant…
                                            ↑1 ↓1
╭ job 9 ─────────────────────────────────────────╮
│ Job 9 (credits) is queued: 0 of 120 frames     │
│ done, 0 running, 120 waiting.                  │
│ 120 frames wait: no worker of the farm has     │
│ Blender 4.5.                                   │
│   attic lacks Blender 4.5                      │
╰────────────────────────────────────────────────╯
 attic     rendering    forest 158 63% · …    now
 desk      unavailable  asleep until 08:00    now
 laptop    offline                          2.0 h
 q quit  Tab workers  ↑↓ select  e explain
";
    shows(&model, LIVE, (50, 14), wanted);
}

#[test]
fn a_snapshot_has_neither_keys_nor_selection() {
    let wanted = "
 kiln  http://10.0.0.5:8765                                                                17:55:08
 5 workers: 2 rendering, 1 unavailable, 1 quarantined, 1 offline  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ 0.0 frames/min

 ID  JOB                 STATE      PRIO  WHO       PROGRESS                  DONE  FAILED     LEFT
  7  forest              running      50  ana/film  ━━━━━━━━━━━─────  63%  157/250       2  4–9 min
  8  water_simulation_…  baking       50            ━━━━━━──────────  40%     0/48
  9  credits             waits        50            ────────────────   0%    0/120
   waits: No worker of the farm has Blender 4.5.
  5  fall                completed                  ━━━━━━━━━━━━━━━━ 100%    48/48
  6  broken              failed                     ━───────────────   8%     1/48       3
   the scene has no camera

 WORKER    STATE        RENDERS                                      SLOTS  CORES     MEMORY   SEEN
 attic     rendering    forest 158 63% · 160 ~12%                      2/2     16     64 GiB    now
 desk      unavailable  asleep until 08:00                             0/1     16     64 GiB    now
 laptop    offline                                                       1     16     64 GiB  2.0 h
 rack-3    quarantined  3 frames failed here that others delivered     0/1     16     64 GiB    now
 studio    rendering    water_simulation_v12 bake 40%                  1/1   8/16  32/64 GiB    now
";
    let model = model();
    shows(&model, SNAPSHOT, (100, whole_height(&model, SNAPSHOT)), wanted);
}

#[test]
fn nobody_is_shown_an_empty_screen() {
    let mut model = Model::new("http://127.0.0.1:8765".to_owned(), NOW);
    let why = "the server http://127.0.0.1:8765 cannot be reached (connection refused)";
    model.lose_server(why.to_owned(), NOW - 65_000);
    let wanted = "
 kiln  http://127.0.0.1:8765  ○ away for 65 s                          17:55:08
 0 workers

 ID  JOB       STATE  PRIO  WHO  PROGRESS                    DONE  FAILED  LEFT
 no jobs: `kiln submit shot.blend` submits one

 WORKER    STATE  RENDERS                            SLOTS  CORES  MEMORY  SEEN
 no workers: `kiln worker --server URL` on a machine adds it
 trying again until it is back: the server http://127.0.0.1:8765 cannot be rea…
";
    shows(&model, LIVE, (80, 9), wanted);
}

#[test]
fn without_colours_nothing_has_one() {
    let mut model = at_work();
    let plain = ScreenLook { colour: false, live: true };
    for over in [Overlay::Nothing, Overlay::Help, Overlay::Cancel(JobId(7))] {
        model.over = over;
        let buffer = picture(&model, plain, 100, 30);
        assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    }
    let coloured = picture(&model, LIVE, 100, 30);
    assert!(coloured.content().iter().any(|cell| cell.fg == Color::Green), "and else they are there");
}

#[test]
fn a_name_can_hold_anything() {
    let name = "\u{1b}[2J木の家\u{7}\nname \u{202e}\u{301} 👩‍👩‍👧";
    let farm = FarmSnapshot::new(
        vec![job(
            1,
            name,
            "running",
            (1, 0, 2),
            json!({ "waits_for": { "code": "no-room", "reserved": name }, "owner": "木の家 \u{202e}\u{301} 👩‍👩‍👧" }),
        )],
        vec![worker(name, "unavailable", json!({ "unavailable": { "why": name, "until_ms": null } }))],
    );
    let mut model = Model::new(name.to_owned(), NOW);
    model.read(farm, NOW);
    for width in 1..100 {
        let shown = text(&picture(&model, LIVE, width, 20));
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
}

fn overs() -> impl Strategy<Value = Overlay> {
    let explain = ("[ a-zé木\n]{0,400}", 0..500_u16).prop_map(|(text, scroll)| Overlay::Explain {
        job: JobId(7),
        text: Some(text),
        scroll,
    });
    prop_oneof![Just(Overlay::Nothing), Just(Overlay::Help), Just(Overlay::Cancel(JobId(7))), explain]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever the size, and however much there is to show, something is drawn and nothing breaks; and a snapshot
    /// of enough room leaves nothing out.
    #[test]
    fn any_size_is_drawn(
        (width, height) in (0..200_u16, 0..60_u16),
        (jobs, workers) in (0..90_usize, 0..90_usize),
        (down, tab) in (0..120_usize, any::<bool>()),
        over in overs(),
    ) {
        let known = farm();
        let jobs = known.jobs.iter().cycle().take(jobs).enumerate().map(|(at, job)| {
            let mut job = job.clone();
            job.id = JobId(at as u64);
            job
        });
        let workers = known.workers.iter().cycle().take(workers).enumerate().map(|(at, worker)| {
            let mut worker = worker.clone();
            worker.name = format!("worker-{at}");
            worker
        });
        let mut model = at_work();
        model.read(FarmSnapshot::new(jobs.collect(), workers.collect()), NOW);
        if tab {
            press(&mut model, &[Key::Tab]);
        }
        press(&mut model, &vec![Key::Down; down]);
        model.over = over;
        let shown = text(&picture(&model, LIVE, width, height));
        prop_assert!(model.over != Overlay::Nothing || width < 10 || height < 2 || shown.contains("kiln"));
        let all = text(&picture(&model, SNAPSHOT, width.max(60), whole_height(&model, SNAPSHOT)));
        prop_assert_eq!(all.matches("\n worker-").count(), model.farm.workers.len());
    }
}
