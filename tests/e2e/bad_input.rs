//! Bad input is refused with one clear line and an exit code, and leaves nothing behind.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::support::Home;

fn sample() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sample.blend")).to_owned()
}

/// The first half of the sample, whatever its compression.
fn half_a_sample(home: &Home) -> PathBuf {
    let bytes = std::fs::read(sample()).unwrap();
    let path = home.work().join("half.blend");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    path
}

#[track_caller]
fn untouched(home: &Home, expected: &[&str]) {
    let mut names: Vec<String> = std::fs::read_dir(home.work())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, expected);
    assert_eq!(home.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn files_that_are_no_scene() {
    let home = Home::new();
    let write = |name: &str, bytes: &[u8]| std::fs::write(home.work().join(name), bytes).unwrap();
    write("text.blend", b"this is a shopping list, not a scene");
    write("empty.blend", b"");
    std::fs::create_dir(home.work().join("folder.blend")).unwrap();
    half_a_sample(&home);
    let cases = [
        ("text.blend", "not a .blend"),
        ("empty.blend", "empty"),
        ("folder.blend", "folder"),
        ("half.blend", "cut off"),
        ("absent.blend", "does not exist"),
    ];
    for (name, words) in cases {
        home.run(&["render", name]).refused(2, &[name, words]);
        home.run(&["inspect", name]).refused(2, &[name, words]);
    }
    untouched(&home, &["empty.blend", "folder.blend", "half.blend", "text.blend"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    let home = Home::new();
    let blend = home.copy(&sample(), "shot.blend");
    std::fs::set_permissions(&blend, std::fs::Permissions::from_mode(0o000)).unwrap();
    for command in ["render", "inspect"] {
        let said = if std::fs::read(&blend).is_ok() {
            // The superuser may read everything; another user may not.
            home.run_as_nobody(&[command, "shot.blend"])
        } else {
            home.run(&[command, "shot.blend"])
        };
        said.refused(2, &["shot.blend", "cannot be read"]);
    }
}

#[test]
fn a_blender_that_is_not_here() {
    let home = Home::new();
    // 9.9 in a header of the newer kind.
    let mut bytes = b"BLENDER17-01v0909".to_vec();
    bytes.resize(4096, 0);
    std::fs::write(home.work().join("future.blend"), bytes).unwrap();
    home.run(&["render", "future.blend"]).refused(2, &["future.blend"]);
    home.copy(&sample(), "shot.blend");
    let said = home.run(&["render", "shot.blend", "--blender-version", "9.9"]);
    said.refused(2, &["needs Blender 9.9", "this machine has", "name one with --blender"]);
    untouched(&home, &["future.blend", "shot.blend"]);
}

#[test]
fn frames_that_are_none() {
    let home = Home::new();
    home.copy(&sample(), "shot.blend");
    let repeats = ["1-1048574"; 65].join(",");
    let cases = [
        ("", "empty"),
        ("1-", "not a frame"),
        ("a", "not a frame"),
        ("1-2000000000", "outside what Blender can render"),
        (repeats.as_str(), "split it into several jobs"),
    ];
    for (frames, words) in cases {
        for command in ["render", "submit"] {
            home.run(&[command, "shot.blend", "--frames", frames]).refused(2, &[words]);
        }
    }
    untouched(&home, &["shot.blend"]);
}

#[test]
fn settings_that_the_file_does_not_have() {
    let home = Home::new();
    home.copy(&sample(), "shot.blend");
    let render = |more: &[&str]| {
        let mut args = vec!["render", "shot.blend", "--out", "out"];
        args.extend(more);
        home.run(&args)
    };
    render(&["--scene", "Nowhere"]).refused(2, &["no scene “Nowhere”", "it has"]);
    render(&["--camera", "Nobody"]).refused(2, &["no camera “Nobody”"]);
    render(&["--view-layer", "None"]).refused(2, &["no view layer “None”"]);
    render(&["--format", "jpeg", "--depth", "16"]).refused(2, &["jpeg has no 16-bit form"]);
    render(&["--resolution", "0%"]).refused(2, &["0% is outside"]);
    render(&["--samples", "0"]).refused(2, &["samples must lie"]);
    render(&["--frame-time-limit", "soon"]).refused(2, &["write 90s, 30m, 1h30m or 7d"]);
    untouched(&home, &["shot.blend"]);
}

#[test]
fn a_folder_that_cannot_be_written() {
    let home = Home::new();
    home.copy(&sample(), "shot.blend");
    std::fs::write(home.work().join("taken"), b"a file").unwrap();
    for out in ["taken", "taken/below", "/proc/kiln"] {
        home.run(&["render", "shot.blend", "--out", out]).refused(2, &[out, "--out"]);
    }
    untouched(&home, &["shot.blend", "taken"]);
}

#[test]
fn files_that_are_in_the_way() {
    let home = Home::new();
    home.copy(&sample(), "shot.blend");
    let info = home.json(&["inspect", "shot.blend", "--json"]);
    let output = info["blend"]["scenes"][0]["output_path"].as_str().unwrap().to_owned();
    // The sample writes below its own folder, or Blender's default, which is mapped there.
    let stem = output.strip_prefix("//").unwrap_or_else(|| output.rsplit('/').next().unwrap());
    let hashes = stem.chars().filter(|c| *c == '#').count();
    let number = |frame: u32| match hashes {
        0 => format!("{stem}{frame:04}"),
        n => stem.replace(&"#".repeat(n), &format!("{frame:0n$}")),
    };
    let mine = home.work().join("out").join(format!("{}.png", number(2)));
    std::fs::create_dir_all(mine.parent().unwrap()).unwrap();
    std::fs::write(&mine, b"mine").unwrap();
    let render = ["render", "shot.blend", "--out", "out", "--frames", "1-3", "--format", "png"];
    let said = home.run(&render);
    said.refused(2, &["1 of the files", "--existing skip", "--existing overwrite", "--out"]);
    assert!(said.err.contains(mine.file_name().unwrap().to_str().unwrap()), "{}", said.err);
    let refuse = [&render[..], &["--existing", "error"]].concat();
    home.run(&refuse).refused(2, &["1 of the files"]);
    assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
    assert_eq!(home.leftovers(), Vec::<PathBuf>::new());
}

/// The names of a scene's views, and those without an extension, are known before it renders as well.
#[test]
fn pictures_of_views_that_are_in_the_way() {
    let home = Home::new();
    home.copy(&kiln_testkit::scene("stereo"), "stereo.blend");
    let mine = home.work().join("frames/shot_0002_R.png");
    std::fs::create_dir_all(mine.parent().unwrap()).unwrap();
    std::fs::write(&mine, b"mine").unwrap();
    let said = home.run(&["render", "stereo.blend", "--frames", "1-3"]);
    said.refused(2, &["1 of the files", "shot_0002_R.png", "--existing skip"]);
    assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
    untouched(&home, &["frames", "stereo.blend"]);
}

#[test]
fn a_port_in_use_and_data_in_use() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let said = home.run(&["server", "--listen", &format!("127.0.0.1:{port}")]);
    said.refused(3, &[&port, "in use", "--listen"]);
    home.run(&["server", "--listen", "0.0.0.0:0"]).refused(3, &["--insecure"]);
    let _server = home.server(&[]);
    home.run(&["server", "--listen", "127.0.0.1:0"]).refused(3, &["data folder", "--data"]);
}

#[test]
fn a_server_that_is_not_there_and_a_wrong_key() {
    let home = Home::new();
    home.copy(&sample(), "shot.blend");
    home.run(&["jobs"]).refused(3, &["no farm is known here", "kiln server"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("http://127.0.0.1:{port}");
    home.run(&["jobs", "--server", &gone]).refused(3, &["no key", "--key-file"]);
    let unreachable = home.run(&["submit", "shot.blend", "--server", &gone, "--key", "k"]);
    unreachable.refused(3, &[&gone, "cannot be reached"]);
    home.run(&["jobs", "--server", "ftp://x", "--key", "k"]).refused(2, &["ftp://x"]);
    let server = home.server(&[]);
    for args in [&["jobs"][..], &["submit", "shot.blend"], &["worker"]] {
        let mut args = args.to_vec();
        args.extend(["--server", &server.url, "--key", "wrong"]);
        home.run(&args).refused(3, &["key", "--key-file"]);
    }
    home.run(&["render", "shot.blend", "--no-local", "--key", "wrong", "--server", &server.url])
        .refused(3, &["key"]);
    untouched(&home, &["shot.blend"]);
}

#[test]
fn a_job_or_worker_that_does_not_exist() {
    let home = Home::new();
    let _server = home.server(&[]);
    for verb in ["show", "wait", "cancel", "pause", "resume", "retry", "rerender", "logs", "fetch", "delete"]
    {
        home.run(&["jobs", verb, "999"]).refused(2, &["999"]);
    }
    home.run(&["jobs", "extend", "999", "--frames", "1"]).refused(2, &["999"]);
    home.run(&["jobs", "show", "seven"]).refused(2, &["job id"]);
    for verb in ["pause", "resume", "drain", "stop", "remove"] {
        home.run(&["workers", verb, "nobody"]).refused(2, &["nobody"]);
    }
    untouched(&home, &[]);
}

/// A server of another time: it answers one question, and knows no protocol of ours.
fn stranger(info: &'static str) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the request ends early");
            request.extend_from_slice(&buffer[..read]);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            info.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(info.as_bytes()).unwrap();
    });
    (url, answering)
}

#[test]
fn a_server_of_another_version() {
    let home = Home::new();
    home.copy(&sample(), "shot.blend");
    let cases = [
        (r#"{"program":"kiln","build":"9.0.0","protocol":90,"oldest_protocol":89}"#, "update this kiln"),
        (r#"{"program":"kiln","build":"0.0.1","protocol":0,"oldest_protocol":0}"#, "update the server"),
        (r#"{"program":"furnace"}"#, "not a Kiln server"),
        ("<html>It works!</html>", "not a Kiln server"),
    ];
    for (info, words) in cases {
        for command in [&["submit", "shot.blend"][..], &["worker"]] {
            let (url, answering) = stranger(info);
            let mut args = command.to_vec();
            args.extend(["--server", &url, "--key", "k"]);
            home.run(&args).refused(3, &[words]);
            answering.join().unwrap();
        }
    }
    untouched(&home, &["shot.blend"]);
}

#[test]
fn settings_that_cannot_be() {
    let home = Home::new();
    let said = crate::support::said(home.kiln(&["config"]).env("KILN_SLOTS", "many").output().unwrap());
    said.refused(2, &["KILN_SLOTS", "many"]);
    let toml = home.work().join("kiln.toml");
    std::fs::write(&toml, "slotz = 3\n").unwrap();
    let said = crate::support::said(home.kiln(&["config"]).env("KILN_CONFIG", &toml).output().unwrap());
    said.refused(2, &["kiln.toml", "slotz"]);
}
