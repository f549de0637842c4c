//! `--hold-after`: a job that waits for a person to look at its first frames.

use std::time::Duration;

use kiln_testkit::{scene, wait_until};

use crate::{support::Home, terminal::Terminal};

#[test]
fn a_render_without_a_farm_and_without_a_terminal_ends_after_the_first_frames() {
    let home = Home::new();
    let shot = home.copy(&scene("basic"), "shot.blend");
    let render = |more: &[&str]| {
        home.run(&[&["render", shot.to_str().unwrap(), "--local", "-f", "1-4", "--json"], more].concat())
    };
    let there = || {
        (1..=4)
            .filter(|frame| home.work().join(format!("frames/shot_{frame:04}.png")).is_file())
            .collect::<Vec<_>>()
    };
    let said = render(&["--order", "reverse", "--hold-after", "2"]);
    assert_eq!(said.code, 5, "{}", said.err);
    assert_eq!(there(), [3, 4]);
    let last = said.json();
    assert_eq!(
        (&last["outcome"], &last["end"], &last["landed"]),
        (&"held".into(), &"held".into(), &2.into())
    );
    assert!(!said.err.contains("kiln jobs"), "the job is this command's alone: {}", said.err);
    let waits = said.json_lines().into_iter().find(|line| line["waits_for"]["code"] == "held").unwrap();
    assert_eq!((&waits["waits_for"]["frames"], &waits["done"]), (&2.into(), &2.into()));
    assert!(said.err.contains("without --hold-after renders the others"), "{}", said.err);
    assert_eq!(render(&[]).code, 0);
    assert_eq!(there(), [1, 2, 3, 4]);
}

#[test]
fn on_a_terminal_enter_renders_the_others() {
    let home = Home::new();
    let shot = home.copy(&scene("basic"), "shot.blend");
    let args = ["render", shot.to_str().unwrap(), "--local", "-f", "1-3", "--hold-after", "1"];
    let mut terminal = Terminal::run(&home.kiln(&args), 160, 30);
    terminal.shows("Held after 1 of 3 frames");
    terminal.shows("Enter renders the others");
    assert!(!home.work().join("frames/shot_0002.png").exists());
    terminal.press("\n");
    assert_eq!(terminal.ended(), 0);
    assert!(home.work().join("frames/shot_0003.png").is_file());
}

#[test]
fn a_farm_holds_the_job_until_somebody_resumes_it() {
    let home = Home::new();
    let _server = home.server(&["--worker"]);
    let shot = home.copy(&scene("basic"), "shot.blend");
    let job = home.submit(&[shot.to_str().unwrap(), "--frames", "1-3", "--hold-after", "1"]);
    let held = || home.show(&job)["waits_for"]["code"] == "held";
    wait_until(Duration::from_secs(60), "the job is held", held);
    let shown = home.show(&job);
    assert_eq!((&shown["state"], &shown["tasks"]["done"]), (&"paused".into(), &1.into()));
    let said = home.run(&["jobs", "explain", &job]);
    assert!(said.out.contains("It is held after its first frame"), "{}", said.out);
    home.json(&["jobs", "resume", &job, "--json"]);
    home.completed(&job);
}
