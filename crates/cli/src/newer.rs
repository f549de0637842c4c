//! A .blend whose series of Blender is missing: a newer one may render it, if a person allows that.

use std::{collections::BTreeSet, path::Path};

use kiln_client::{Client, submission::ReadSubmission};
use kiln_types::{BlenderSeries, WorkerState};

use crate::{
    ask,
    exit::{CommandError, Outcome},
    output::Output,
    settings::Settings,
};

/// The place where the file is to render.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenderSite {
    Here,
    Farm,
}

impl RenderSite {
    fn noun(self) -> &'static str {
        match self {
            Self::Here => "this machine",
            Self::Farm => "the farm",
        }
    }
}

/// Returns the series that renders a file, of those that are there: the file's own, or a newer one if the person allows it.
/// If there is neither, it is the file's own: the job waits for it, or is refused.
pub async fn choose(
    output: Output,
    settings: &Settings,
    (file, series): (&Path, BlenderSeries),
    there: &BTreeSet<BlenderSeries>,
    place: RenderSite,
) -> Outcome<BlenderSeries> {
    let newer = there.iter().find(|other| **other > series);
    let Some(newer) = newer.copied().filter(|_| !there.contains(&series)) else { return Ok(series) };
    let found = format!(
        "{} was saved by Blender {series}, and {} has {}",
        file.display(),
        place.noun(),
        listed(there)
    );
    if settings.blender_newer.value {
        output.note(&format!("{found}: it renders with {newer}"));
        return Ok(newer);
    }
    if output.can_ask() {
        let question = format!("{found}. Render with {newer}? It may look different. [y/N] ");
        if ask::yes(question).await {
            return Ok(newer);
        }
    }
    let install = match place {
        RenderSite::Here if kiln_host::can_install(series) => {
            format!(", or install {series} with `kiln blender install {series}`")
        }
        RenderSite::Here => String::new(),
        RenderSite::Farm => {
            format!(", or let the job wait for a worker that has it with --blender-version {series}")
        }
    };
    Err(CommandError::bad_input(format!(
        "{found}; render with that by --blender-version {newer}, or for every file by `blender_newer = true` in kiln.toml\
         {install}"
    )))
}

/// Lets each .blend of a submission to a farm render with the series that [`choose`] returns.
pub async fn choose_on_farm(
    output: Output,
    settings: &Settings,
    read: &mut ReadSubmission,
    there: &BTreeSet<BlenderSeries>,
) -> Outcome {
    for (file, own) in read.blenders() {
        let series = choose(output, settings, (&file, own), there, RenderSite::Farm).await?;
        read.render_with(&file, series);
    }
    Ok(())
}

/// Returns the series of Blender that the connected workers of a farm have.
pub async fn of_farm(client: &Client) -> Outcome<BTreeSet<BlenderSeries>> {
    let workers = client.workers().await?;
    let there = workers.iter().filter(|worker| worker.state != WorkerState::Offline);
    Ok(there.flat_map(|worker| &worker.blenders).map(|offer| offer.version.series()).collect())
}

pub fn listed(series: &BTreeSet<BlenderSeries>) -> String {
    series.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
