//! A process that is killed in the middle of its work.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// Runs an ignored test of this very program, one that works for ever, with `variable` naming `folder`; kills it
/// without a warning once `enough` of its lines were taken. `take` hears every line, also what it said before it
/// died, and says which count.
///
/// # Panics
/// Where the child cannot be run, or ends by itself.
pub fn kill_midway(
    test: &str,
    (variable, folder): (&str, &Path),
    enough: usize,
    mut take: impl FnMut(&str) -> bool,
) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(variable, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut count = 0;
    while count < enough {
        count += usize::from(take(&lines.next().expect("the child ended by itself").unwrap()));
    }
    child.kill().unwrap();
    // What it said before it died counts too; its last line may be cut.
    let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
    rest.pop();
    for line in rest {
        take(&line);
    }
    child.wait().unwrap();
}
