//! The commands as people and programs use them.

use kiln_testkit::scene;
use serde_json::Value;

use crate::support::Home;

#[test]
fn help_is_friendly() {
    let home = Home::new();
    let alone = home.run(&[]);
    assert_eq!(alone.code, 0);
    assert!(alone.out.contains("kiln render shot.blend") && alone.out.lines().count() < 15, "{}", alone.out);
    for topic in
        [&["render"][..], &["jobs", "fetch"], &["worker"], &["server"], &["submit"], &["blender", "install"]]
    {
        let said = home.run(&[&["help"], topic].concat());
        assert!(said.code == 0 && said.out.contains("Example"), "{topic:?}: {}", said.out);
    }
    let codes = home.run(&["help", "exit-codes"]);
    for code in ["0", "1", "2", "3", "4", "130"] {
        assert!(codes.out.contains(&format!(" {code}  ")), "{}", codes.out);
    }
    home.run(&["help", "nothing"]).refused(2, &["nothing"]);
    home.run(&["rendr", "x"]).refused(2, &["rendr"]);
    assert!(home.run(&["--version"]).out.starts_with("kiln "));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = home.run(&["completions", shell]);
        assert!(said.code == 0 && said.out.contains("rerender"), "{shell}");
    }
    assert_eq!(home.run(&["man", "man"]).code, 0);
    for page in ["kiln.1", "kiln-render.1", "kiln-jobs-fetch.1"] {
        let text = std::fs::read_to_string(home.work().join("man").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}

#[test]
fn config_tells_where_each_value_came_from() {
    let home = Home::new();
    let toml = home.work().join("kiln.toml");
    std::fs::write(&toml, "threads = 3\nname = \"file\"\n").unwrap();
    let mut command = home.kiln(&["config", "--json", "--server", "http://flag:1"]);
    let said = command.env("KILN_CONFIG", &toml).env("KILN_NAME", "env").output().unwrap();
    let value: Value = serde_json::from_slice(&said.stdout).unwrap();
    let of = |name: &str| {
        let all = value["settings"].as_array().unwrap();
        let row = all.iter().find(|row| row["name"] == name).unwrap();
        (row["value"].as_str().unwrap().to_owned(), row["from"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("server"), ("http://flag:1".into(), "flag".into()));
    assert_eq!(of("name"), ("env".into(), "environment".into()));
    assert_eq!(of("threads"), ("3".into(), "file".into()));
    assert_eq!(of("slots").1, "default");
}

#[test]
fn an_empty_farm_answers_every_list() {
    let home = Home::new();
    let server = home.server(&[]);
    assert_eq!(home.json(&["jobs", "--json"])["jobs"], Value::Array(vec![]));
    assert_eq!(home.json(&["jobs", "list", "--json"])["jobs"], Value::Array(vec![]));
    assert_eq!(home.json(&["workers", "--json"])["workers"], Value::Array(vec![]));
    assert!(home.run(&["jobs"]).out.contains("no jobs"));
    assert!(home.run(&["workers"]).out.contains("no workers"));
    assert_eq!(server.interrupt(), 0);
    home.run(&["jobs"]).refused(3, &["no farm is known here"]);
}

#[test]
fn jobs_are_listed_by_state_user_and_project() {
    let home = Home::new();
    home.copy(&scene("basic"), "shot.blend");
    let _server = home.server(&[]);
    let of = |user: &str, project: &str| {
        // Each into a folder of its own: the same frames into the same one would be the same job.
        let out = format!("{user}-{project}");
        home.submit(&["shot.blend", "--frames", "1", "--user", user, "--project", project, "--out", &out])
    };
    let (first, second, third) = (of("ana", "film"), of("ana", "spot"), of("ben", "film"));
    assert_eq!(home.run(&["jobs", "cancel", &second]).code, 0);
    assert_eq!(home.run(&["jobs", "pause", &third]).code, 0);
    let listed = |args: &[&str]| -> Vec<String> {
        let list = home.json(&[&["jobs"], args, &["--json"]].concat());
        list["jobs"].as_array().unwrap().iter().map(|job| job["id"].to_string()).collect()
    };
    assert_eq!(listed(&[]), [&third[..], &second, &first]);
    assert_eq!(listed(&["--state", "queued,running,paused"]), [&third[..], &first]);
    assert_eq!(listed(&["list", "--state", "cancelled"]), [&second[..]]);
    assert_eq!(listed(&["--user", "ana"]), [&second[..], &first]);
    assert_eq!(listed(&["--project", "film", "--limit", "1"]), [&third[..]]);
    assert_eq!(listed(&["--user", "ana", "--project", "film", "--state", "queued"]), [&first[..]]);
    let none = home.run(&["jobs", "--user", "nobody"]);
    assert_eq!(none.code, 0);
    assert!(none.out.contains("no such jobs"), "{}", none.out);
    home.run(&["jobs", "--state", "sleeping"]).refused(2, &["sleeping", "paused"]);
    let help = home.run(&["jobs", "list", "--help"]).out;
    assert!(help.contains("kiln jobs list --state queued,running,paused --user ana"), "{help}");
}

#[test]
fn errors_are_json_too() {
    let home = Home::new();
    let said = home.run(&["jobs", "--json"]);
    assert_eq!(said.code, 3);
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["error"]["exit_code"], 3);
    assert!(value["error"]["message"].as_str().unwrap().contains("no farm"));
}
