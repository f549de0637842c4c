//! Renders, edits, moves and renders again: which frames are kept and which are replaced (decision 019).

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use kiln_testkit::{assert_same_picture, copy_folder, wait_until};
use serde_json::Value;

use crate::{
    support::{Home, Running, Said, said},
    terminal::Terminal,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A project: a scene of the tests with its files, which shows another picture of a sequence in each frame.
fn project(home: &Home) -> PathBuf {
    let folder = home.work().join("project");
    copy_folder(kiln_testkit::scene("image_sequence").parent().unwrap(), &folder);
    std::fs::rename(folder.join("image_sequence.blend"), folder.join("shot.blend")).unwrap();
    folder
}

/// An artist's next save: every picture of the sequence is that of another frame.
fn edit(project: &Path) {
    let mut pictures: Vec<PathBuf> = std::fs::read_dir(project.join("seq"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .collect();
    pictures.sort();
    let bytes: Vec<_> = pictures.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(bytes.len() > 1 && bytes[0] != bytes[1], "{pictures:?}");
    for (at, path) in pictures.iter().enumerate() {
        std::fs::write(path, &bytes[(at + 1) % bytes.len()]).unwrap();
    }
}

/// Runs in a folder.
fn run(home: &Home, folder: &Path, args: &[&str]) -> Said {
    said(home.kiln(args).current_dir(folder).output().unwrap())
}

#[track_caller]
fn done(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{}", said.err);
    said.json()
}

fn frame(folder: &Path, frame: u32) -> PathBuf {
    folder.join(format!("frames/shot_{frame:04}.png"))
}

fn render<'a>(frames: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["render", "shot.blend", "--local", "--json", "--frames", frames], more].concat()
}

#[test]
fn after_an_edit_frames_are_replaced_and_after_a_move_they_are_kept() {
    let home = Home::new();
    let project = project(&home);
    let first = done(&run(&home, &project, &render("1-4", &[])));
    assert_eq!((&first["landed"], &first["replaced"]), (&4.into(), &0.into()));
    let before = std::fs::read(frame(&project, 4)).unwrap();

    edit(&project);
    let said = run(&home, &project, &render("1-3", &[]));
    let second = done(&said);
    assert_eq!((&second["landed"], &second["replaced"], &second["older"]), (&3.into(), &3.into(), &1.into()));
    for words in ["3 frames of an earlier save will be replaced", "1 frame of an earlier save, outside"] {
        assert!(said.err.contains(words), "“{words}” is not in: {}", said.err);
    }
    done(&run(&home, &project, &render("1-3", &["--out", "../apart"])));
    for at in 1..=3 {
        assert_same_picture(&frame(&project, at), &frame(&home.work().join("apart"), at));
    }
    assert_eq!(std::fs::read(frame(&project, 4)).unwrap(), before);

    let moved = home.work().join("renamed");
    std::fs::rename(&project, &moved).unwrap();
    let kept = done(&run(&home, &moved, &render("1-3", &[])));
    assert_eq!((&kept["landed"], &kept["kept"]), (&0.into(), &3.into()));
    edit(&moved);
    // Edited there, where nothing but the way from one to the other is as it was. However the folders are named.
    let named = ["--out", "../renamed/../renamed"];
    let edited = done(&run(&home, &moved, &render("1", &named)));
    assert_eq!((&edited["landed"], &edited["replaced"]), (&1.into(), &1.into()));
    let link = home.work().join("link");
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    let kept = done(&run(&home, &link, &render("1", &[])));
    assert_eq!((&kept["landed"], &kept["kept"]), (&0.into(), &1.into()));

    // What somebody painted over stays, edited or not.
    std::fs::copy(frame(&moved, 1), frame(&moved, 2)).unwrap();
    let refused = run(&home, &moved, &render("1-3", &[]));
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("1 of the files") && refused.err.contains("shot_0002.png"),
        "{}",
        refused.err
    );

    // Another .blend of the same name is another .blend.
    let other = home.work().join("other");
    copy_folder(&moved, &other);
    edit(&other);
    let refused = run(&home, &other, &render("3", &["--out", "../renamed"]));
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("shot_0003.png"), "{}", refused.err);
}

#[test]
fn a_quick_test_never_replaces_a_nights_work_unasked() {
    let home = Home::new();
    let project = project(&home);
    done(&run(&home, &project, &render("1-2", &[])));
    let night = std::fs::read(frame(&project, 1)).unwrap();
    for edited in [false, true] {
        if edited {
            edit(&project);
        }
        let test = run(&home, &project, &render("1", &["--samples", "1"]));
        assert_eq!(test.code, 2);
        for words in ["samples: the file's own, now 1", "--existing replace", "--out"] {
            assert!(test.err.contains(words), "“{words}” is not in: {}", test.err);
        }
        assert_eq!(std::fs::read(frame(&project, 1)).unwrap(), night);
    }
    let mut command = home.kiln(&["render", "shot.blend", "--local", "--frames", "1", "--samples", "1"]);
    command.current_dir(&project);
    for (answer, code) in [("n\n", 2), ("y\n", 0)] {
        let mut terminal = Terminal::run(&command, 250, 30);
        terminal.shows("Replace them?");
        terminal.press(answer);
        assert_eq!(terminal.ended(), code, "{}", terminal.text());
        assert_eq!(std::fs::read(frame(&project, 1)).unwrap() == night, code == 2);
    }
    let back = done(&run(&home, &project, &render("1-2", &["--existing", "replace"])));
    assert_eq!((&back["landed"], &back["replaced"]), (&2.into(), &2.into()));
}

#[test]
fn a_job_of_an_earlier_save_takes_nothing_away() {
    let home = Home::new();
    let project = project(&home);
    let server = home.server(&[]);
    let submit = || {
        let said = run(&home, &project, &["submit", "shot.blend", "--frames", "1-2", "--json"]);
        (done(&said)["job"]["id"].to_string(), said.err)
    };
    let (first, _) = submit();
    edit(&project);
    let (second, told) = submit();
    assert!(told.contains(&format!("`kiln jobs cancel {first}` ends it")), "{told}");
    let _worker = home.worker(&server.url, "one");
    assert_eq!(home.json(&["jobs", "wait", &second, "--json"])["landed"], 2);
    let newest = std::fs::read(frame(&project, 1)).unwrap();
    wait_until(LIMIT, "the first job is done", || {
        home.json(&["jobs", "show", &first, "--json"])["job"]["state"] == "completed"
    });
    let late = home.run(&["jobs", "fetch", &first, "--json"]);
    assert_eq!(late.code, 1, "{}", late.err);
    assert_eq!(std::fs::read(frame(&project, 1)).unwrap(), newest);
    // And the other way round: a later save's frames replace those of the earlier one.
    home.json(&["jobs", "fetch", &first, "--out", "elsewhere", "--json"]);
    let fetched = home.json(&["jobs", "fetch", &second, "--out", "elsewhere", "--json"]);
    assert_eq!((&fetched["fetched"], &fetched["replaced"]), (&2.into(), &2.into()), "{fetched}");
    assert_eq!(std::fs::read(frame(&home.work().join("elsewhere"), 1)).unwrap(), newest);
}

/// A command in the background, whose standard error can be read when it has ended.
fn background(home: &Home, folder: &Path, args: &[&str]) -> Running {
    let mut command = home.kiln(args);
    let child = command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    Running { child, url: String::new() }
}

fn jobs(home: &Home) -> Vec<Value> {
    home.json(&["jobs", "--all", "--json"])["jobs"].as_array().unwrap().clone()
}

#[test]
fn the_same_command_again_goes_on_with_the_job_that_runs() {
    let home = Home::new();
    let project = project(&home);
    let server = home.server(&[]);
    let render = |frames: &'static str| ["render", "shot.blend", "--no-local", "--frames", frames];
    let mut closed = background(&home, &project, &render("1-2"));
    wait_until(LIMIT, "the job is there", || jobs(&home).len() == 1);
    let id = jobs(&home)[0]["id"].to_string();
    let marked = || home.data().join("jobs").read_dir().is_ok_and(|mut entries| entries.next().is_some());
    wait_until(LIMIT, "where its frames go is noted", marked);
    // The terminal is closed.
    let pid = closed.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    wait_until(LIMIT, "the command ends with its terminal", || closed.child.try_wait().unwrap().is_some());

    let first = background(&home, &project, &render("1-3"));
    wait_until(LIMIT, "the new frame is added to the job", || jobs(&home)[0]["tasks"]["total"] == 3);
    let second = background(&home, &project, &render("1-3"));
    let worker = home.worker(&server.url, "one");
    for (mut again, words) in [(first, "1 more frame"), (second, "renders this already")] {
        let mut code = None;
        wait_until(LIMIT, "the command ends with the job", || {
            code = again.child.try_wait().unwrap();
            code.is_some()
        });
        let mut told = String::new();
        std::io::Read::read_to_string(&mut again.child.stderr.take().unwrap(), &mut told).unwrap();
        assert!(code.unwrap().success(), "{told}");
        assert!(told.contains(&format!("job {id}, made ")) && told.contains(words), "{told}");
    }
    for at in 1..=3 {
        assert!(frame(&project, at).is_file());
    }
    assert_eq!(jobs(&home).len(), 1, "no second job");

    // What an ended job still holds is fetched before anything renders.
    let submit = |frames: &'static str| {
        let said = run(&home, &project, &["submit", "shot.blend", "--frames", frames, "--json"]);
        done(&said)
    };
    let submitted = submit("4-5");
    let held = submitted["job"]["id"].to_string();
    wait_until(LIMIT, "it is rendered", || {
        home.json(&["jobs", "show", &held, "--json"])["job"]["state"] == "completed"
    });
    drop(worker);
    let said = run(&home, &project, &[&render("4-5")[..], &["--json"]].concat());
    let nothing = done(&said);
    assert_eq!((&nothing["landed"], &nothing["kept"]), (&0.into(), &2.into()), "{}", said.err);
    assert!(said.err.contains("2 frames of job"), "{}", said.err);
    assert_eq!(jobs(&home).len(), 2);

    // Two submissions of the same are one job.
    let (one, two, more) = (submit("6"), submit("6"), submit("6-7"));
    assert_eq!((&one["new"], &two["new"], &more["new"]), (&true.into(), &false.into(), &true.into()));
    assert_eq!(one["job"]["id"], two["job"]["id"]);
    assert_eq!(more["job"]["spec"]["frames"], "7", "frame 6 is with the other");
    let mut command = home.kiln(&["submit", "shot.blend", "--frames", "6"]);
    command.current_dir(&project);
    edit(&project);
    let mut terminal = Terminal::run(&command, 250, 30);
    for job in [&one, &more] {
        terminal.shows(&format!("job {} still renders an earlier save", job["job"]["id"]));
        terminal.press("y\n");
    }
    assert_eq!(terminal.ended(), 0, "{}", terminal.text());
    let cancelled = home.json(&["jobs", "show", &one["job"]["id"].to_string(), "--json"]);
    assert_eq!(cancelled["job"]["state"], "cancelled");
}
