//! `kiln blender`.

use kiln_host::BlenderInstall;
use kiln_types::BlenderFlavor;
use serde_json::json;

use super::Context;
use crate::{
    args::{BlenderCommand, FarmArgs},
    exit::{CommandError, Exit, Outcome},
    output::table::table,
    settings::Settings,
};

pub async fn run(context: &Context, command: BlenderCommand) -> Outcome<Exit> {
    match command {
        BlenderCommand::List { blender } => {
            let settings = Settings::resolve(context.flags(&FarmArgs::default()).and(&blender))?;
            for path in &settings.blender.value {
                if let Err(why) = kiln_host::inspect(path) {
                    context.output.warning(&why);
                }
            }
            let found = discover(&settings).await?;
            context.output.result(&json!({ "blenders": found }), || listed(&found));
            Ok(Exit::Done)
        }
        BlenderCommand::Install { series } => {
            let settings = context.settings(&FarmArgs::default())?;
            let output = context.output;
            let install =
                kiln_host::install_blender(series, &settings.data.value, |line| output.note(line.trim_end()))
                    .await
                    .map_err(|error| CommandError::failed(error.to_string()))?;
            let sentence = format!("Blender {} is ready: {}", install.version, install.program.display());
            output.done(&json!({ "installed": install }), &sentence);
            Ok(Exit::Done)
        }
    }
}

/// Every Blender of this machine.
pub async fn discover(settings: &Settings) -> Outcome<Vec<BlenderInstall>> {
    let (extra, data, cache) =
        (settings.blender.value.clone(), settings.data.value.clone(), settings.cache.clone());
    tokio::task::spawn_blocking(move || kiln_host::discover(&extra, &data, &cache)).await.map_err(|error| {
        CommandError::failed(format!("the search for Blenders ended early ({error}); try again"))
    })
}

fn listed(found: &[BlenderInstall]) -> String {
    if found.is_empty() {
        return "No Blender is found. `apt install blender` (Debian, Ubuntu) or `kiln blender install 5.0` installs one; \
                --blender names one that is elsewhere."
            .to_owned();
    }
    table(
        &["VERSION", "KIND", "PATH"],
        found.iter().map(|install| {
            let kind = match install.flavor {
                BlenderFlavor::Executable => "program",
                BlenderFlavor::Module => "Python module",
            };
            vec![install.version.to_string(), kind.to_owned(), install.program.display().to_string()]
        }),
    )
}
