//! A process that is killed in the middle of its work.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

/// Runs an ignored test of this very program, one without an end, with `variable` naming `folder`; kills it
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
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut count = 0;
    while count < enough {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "the child ended by itself");
        count += usize::from(take(line.trim_end()));
    }
    child.kill().unwrap();
    // What it said before it died counts too, but for a line that was cut.
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    for line in rest.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        take(line);
    }
    child.wait().unwrap();
}
