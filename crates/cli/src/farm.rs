//! The farm that a command talks to, and its key.

use std::{fs, io, path::Path};

use kiln_client::Client;
use kiln_server::ServerFile;
use rustix::process::{Pid, test_kill_process};

use crate::{
    exit::{CommandError, Outcome},
    settings::{Origin, Settings},
};

/// The farm key, readable by its owner only.
pub const KEY_FILE: &str = "farm.key";

/// Returns the farm that the settings name, or else the server of this machine, if there is one.
pub fn find(settings: &Settings) -> Outcome<Option<Client>> {
    let data = &settings.data.value;
    let url = match &settings.server.value {
        Some(url) => url.clone(),
        None => match running_here(data) {
            Some(url) => url,
            None => return Ok(None),
        },
    };
    let key = key(settings, &url)?;
    Ok(Some(Client::new(url, key)?))
}

/// Like [`find`], for commands that need a farm.
pub fn need(settings: &Settings) -> Outcome<Client> {
    find(settings)?.ok_or_else(|| {
        CommandError::no_server(
            "no farm is known here; start one with `kiln server`, or name one with --server or KILN_SERVER",
        )
    })
}

/// Returns the address of the server that runs on this machine with this data. A killed server leaves its file behind,
/// so that its process is looked for.
fn running_here(data: &Path) -> Option<String> {
    let file = ServerFile::read(data)?;
    let pid = Pid::from_raw(i32::try_from(file.pid).ok()?)?;
    test_kill_process(pid).is_ok().then_some(file.url)
}

fn key(settings: &Settings, url: &str) -> Outcome<String> {
    let named = settings.key.value.as_ref();
    // A key file on the command line overrides a key of the environment.
    let file_flag = settings.key_file.origin == Origin::Flag;
    if let Some(key) = named
        && !file_flag
    {
        return Ok(key.clone());
    }
    if let Some(path) = &settings.key_file.value {
        let read = |error: io::Error| {
            CommandError::bad_input(format!(
                "the key file {} cannot be read ({error}); check its path",
                path.display()
            ))
        };
        return fs::read_to_string(path).map(|key| key.trim().to_owned()).map_err(read);
    }
    let path = settings.data.value.join(KEY_FILE);
    match fs::read_to_string(&path) {
        Ok(key) => Ok(key.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CommandError::no_server(format!(
            "no key for {url} is known; copy farm.key from the server's data folder and name it with --key-file"
        ))),
        Err(error) => Err(CommandError::no_server(format!(
            "the key in {} cannot be read ({error}); check its permissions",
            path.display()
        ))),
    }
}
