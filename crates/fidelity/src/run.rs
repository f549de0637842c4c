//! A run over the rows: what is known is passed over, what is found is written down at once.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use kiln_testkit::Blender;

use crate::{
    cold::{Frames, cold, new_processes, replace},
    compare::difference,
    farm::{Farm, Farmed},
    rows::{Facts, Known, Verdict, build, known},
    warm::{Pair, Warm},
};

/// Rows that are rendered before their results are written down.
const BATCH: usize = 24;

pub struct Options {
    /// The program.
    pub kiln: PathBuf,
    /// The folder of `build.py`.
    pub scripts: PathBuf,
    /// Scenes, cold renders and results are kept here.
    pub cache: PathBuf,
    pub blenders: Vec<Blender>,
    /// Rows by their ids; all where empty.
    pub only: Vec<String>,
    /// Takes results of another Kiln, where they are good.
    pub keep: bool,
    /// Renders nothing and takes what is known.
    pub known: bool,
    /// Renders the second frame of each row in a completely new process too.
    pub check: bool,
    /// Compares the texts inside PNGs too.
    pub texts: bool,
    pub threads: usize,
}

/// Renders what is not known yet and returns the results of these Blenders, in the order of the features.
pub fn run(options: &Options) -> Result<Vec<Known>> {
    fs::create_dir_all(&options.cache)?;
    let file = options.cache.join("results.jsonl");
    let kiln =
        blake3::hash(&fs::read(&options.kiln).context("the program is not there")?).to_hex()[..12].to_owned();
    let mut before = known(&file)?;
    let mut log = File::options().create(true).append(true).open(&file)?;
    let mut all = Vec::new();
    let mut farm = None;
    for blender in &options.blenders {
        let mut pair = Pair::new(blender.program())?;
        let version = pair.install().version.to_string();
        let target = options.cache.join(format!("{version}-{}", build_of(blender)?));
        let mut only = options.only.clone();
        if !only.is_empty() {
            only.push(BASE.to_owned());
        }
        println!("{version}: building the scenes");
        let rows = build(blender, &options.scripts, &target, &only)?;
        let base = rows.iter().find(|row| row.id == BASE).context("there is no base")?;
        let base =
            cold(blender, &options.scripts, &[base], 1)?.remove(BASE).context("there is no base")??;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut fresh = Vec::new();
        let mut results = BTreeMap::new();
        for (order, row) in rows.iter().enumerate().filter(|(_, row)| row.id != BASE) {
            let result = |verdict| Known {
                version: version.clone(),
                id: row.id.clone(),
                title: row.title.clone(),
                hash: row.hash.clone(),
                kiln: kiln.clone(),
                verdict,
                order,
            };
            let verdict = match row.status.as_str() {
                "absent" => Verdict::Absent { why: row.reason.clone() },
                "failed" => Verdict::Broken { why: row.reason.clone() },
                _ => {
                    let known = before.remove(&(version.clone(), row.id.clone()));
                    match known.filter(|k| {
                        k.hash == row.hash
                            && (options.known || k.kiln == kiln || (options.keep && k.verdict.is_good()))
                    }) {
                        Some(known) => {
                            results.insert(order, Known { order, title: row.title.clone(), ..known });
                        }
                        None if options.known => {
                            results.insert(order, result(Verdict::NotRun));
                        }
                        None => fresh.push((order, row)),
                    }
                    continue;
                }
            };
            results.insert(order, result(verdict));
        }
        // A run that is stopped has then looked at rows of every chapter.
        fresh.sort_unstable_by_key(|(_, row)| blake3::hash(row.id.as_bytes()).as_bytes()[..4].to_vec());
        for batch in fresh.chunks(BATCH) {
            let facts: Vec<&Facts> = batch.iter().map(|(_, row)| *row).collect();
            let colds = cold(blender, &options.scripts, &facts, options.threads)?;
            if farm.is_none() {
                farm = Some(Farm::start(&options.kiln, &options.blenders, &options.cache, options.texts)?);
            }
            let Some(farm) = &mut farm else { continue };
            let judged = judge(
                &Batch { options, blender, facts: &facts, base: &base, runtime: &runtime },
                colds,
                &mut pair,
                farm,
            )?;
            for ((order, row), verdict) in batch.iter().zip(judged) {
                if !verdict.is_good() {
                    println!("{version}: {}: {verdict:?}", row.id);
                }
                let known = Known {
                    version: version.clone(),
                    id: row.id.clone(),
                    title: row.title.clone(),
                    hash: row.hash.clone(),
                    kiln: kiln.clone(),
                    verdict,
                    order: *order,
                };
                log.write_all((serde_json::to_string(&known)? + "\n").as_bytes())?;
                results.insert(*order, known);
            }
            println!("{version}: {} of {} rows", results.len(), rows.len() - 1);
        }
        all.extend(results.into_values());
    }
    Ok(all)
}

/// The row of the scene without any feature.
const BASE: &str = "base-nothing-is-animated";

struct Batch<'a> {
    options: &'a Options,
    blender: &'a Blender,
    facts: &'a [&'a Facts],
    base: &'a Frames,
    runtime: &'a tokio::runtime::Runtime,
}

fn judge(
    batch: &Batch<'_>,
    mut colds: BTreeMap<String, Result<Frames>>,
    pair: &mut Pair,
    farm: &mut Farm,
) -> Result<Vec<Verdict>> {
    let mut verdicts: BTreeMap<&str, Verdict> = BTreeMap::new();
    let mut frames: Vec<(&Facts, Frames)> = Vec::new();
    for facts in batch.facts {
        match colds.remove(&facts.id) {
            Some(Ok(mut cold)) => {
                if let Some(ending) = &facts.leaves_out {
                    cold.values_mut().for_each(|files| files.retain(|name, _| !name.ends_with(ending)));
                }
                match proves_nothing(facts, &cold, batch.base) {
                    Some(why) => drop(verdicts.insert(&facts.id, Verdict::ProvesNothing { why })),
                    None => frames.push((facts, cold)),
                }
            }
            // What Kiln refuses, Blender may be unable to render.
            Some(Err(_)) if !facts.refuses.is_empty() => frames.push((facts, Frames::new())),
            Some(Err(error)) => {
                drop(verdicts.insert(&facts.id, Verdict::Broken { why: format!("{error:#}") }))
            }
            None => {
                drop(verdicts.insert(&facts.id, Verdict::Broken { why: "it was not rendered".to_owned() }))
            }
        }
    }
    let rows: Vec<_> = frames.iter().map(|(facts, cold)| (*facts, cold)).collect();
    let submitted = farm.submit(&rows)?;
    let mut warmed = Vec::new();
    for (facts, cold) in &frames {
        warmed.push(batch.runtime.block_on(pair.render(facts, cold))?);
    }
    let mut farmed = farm.fetch(submitted)?;
    for ((facts, cold), warm) in frames.iter().zip(warmed) {
        let farmed = farmed.remove(&facts.id).unwrap_or(Farmed::Refused("it was not submitted".to_owned()));
        let mut verdict = verdict(facts, warm, farmed);
        let doubtful = matches!(verdict, Verdict::Differs { .. });
        if doubtful || (batch.options.check && verdict == Verdict::Equal) {
            let all = &batch.options.scripts;
            let mut short = (*facts).clone();
            if !doubtful && !facts.sim {
                short.frames = facts.frames.iter().skip(1).take(1).copied().collect();
            }
            let fresh = new_processes(batch.blender, all, &short, "cold-new")?;
            let other = differ(&short, &fresh, cold);
            if doubtful || other.is_some() {
                let fresh = new_processes(batch.blender, all, facts, "cold-new")?;
                if let Some(how) = differs_from_itself(batch, facts, &fresh)? {
                    verdict = Verdict::BlenderDiffers { how: format!("rendered cold again, {how}") };
                } else if other.is_some() {
                    // A fork is not what a new process is: that alone counts.
                    let cold = replace(facts, "cold-new")?;
                    let submitted = farm.submit(&[(facts, &cold)])?;
                    let farmed = farm.fetch(submitted)?.remove(&facts.id);
                    let warm = batch.runtime.block_on(pair.render(facts, &cold))?;
                    verdict = self::verdict(facts, warm, farmed.unwrap_or(Farmed::Equal));
                }
            }
            for name in ["cold-new", "cold-again"] {
                // Most are not there.
                let _ = fs::remove_dir_all(facts.folder().join(name));
            }
        }
        verdicts.insert(&facts.id, verdict);
    }
    Ok(batch.facts.iter().filter_map(|facts| verdicts.remove(facts.id.as_str())).collect())
}

/// The difference of Blender from its own cold frames, if there is one in some of a few runs.
fn differs_from_itself(batch: &Batch<'_>, facts: &Facts, fresh: &Frames) -> Result<Option<String>> {
    // What a simulation does by chance, it may do twice.
    for _ in 0..if facts.sim { 24 } else { 1 } {
        let again = new_processes(batch.blender, &batch.options.scripts, facts, "cold-again")?;
        if let Some(how) = differ(facts, fresh, &again) {
            return Ok(Some(how));
        }
        fs::remove_dir_all(facts.folder().join("cold-again"))?;
    }
    Ok(None)
}

/// Compares two renders of a row.
fn differ(facts: &Facts, one: &Frames, other: &Frames) -> Option<String> {
    facts
        .frames
        .iter()
        .find_map(|frame| difference(&one[frame], &other[frame]).map(|how| format!("frame {frame}: {how}")))
}

fn verdict(facts: &Facts, warm: Warm, farmed: Farmed) -> Verdict {
    match (warm, farmed) {
        (Warm::Equal, Farmed::Equal) if facts.refuses.is_empty() => Verdict::Equal,
        (Warm::Equal, Farmed::Equal) => {
            Verdict::Unexpected { why: "it renders, and should be refused".to_owned() }
        }
        (Warm::Refused(warm), Farmed::Refused(farm)) => {
            let named = |said: &str| !facts.refuses.is_empty() && said.contains(&facts.refuses);
            if named(&warm) && named(&farm) {
                return Verdict::Refused { why: farm };
            }
            Verdict::Unexpected { why: format!("on the farm: {farm}; warm: {warm}") }
        }
        (Warm::Refused(why), _) => Verdict::Unexpected { why: format!("warm: {why}") },
        (_, Farmed::Refused(why)) => Verdict::Unexpected { why: format!("on the farm: {why}") },
        (Warm::Differs(how), Farmed::Equal) | (Warm::Equal, Farmed::Differs(how)) => Verdict::Differs { how },
        (Warm::Differs(one), Farmed::Differs(other)) => Verdict::Differs { how: format!("{one}; {other}") },
    }
}

/// Stands for a build of Blender.
fn build_of(blender: &Blender) -> Result<String> {
    let meta = fs::metadata(blender.program())?;
    let name = format!("{:?} {} {:?}", blender.program(), meta.len(), meta.modified()?);
    Ok(blake3::hash(name.as_bytes()).to_hex()[..8].to_owned())
}

/// The reason why a row proves nothing; `None` if it proves something.
fn proves_nothing(facts: &Facts, cold: &Frames, base: &Frames) -> Option<String> {
    // Without the refused part, the picture may not move.
    if facts.expect == "still" || !facts.refuses.is_empty() {
        return None;
    }
    for pair in facts.frames.windows(2) {
        let (one, other) = (cold[&pair[0]].values(), cold[&pair[1]].values());
        if one.len() == other.len()
            && one.zip(other).all(|(one, other)| crate::compare::pixels(one, other).is_none())
        {
            return Some(format!("frames {} and {} are the same picture", pair[0], pair[1]));
        }
    }
    let plain = base.values().next()?.values().next()?;
    let all_plain = facts
        .frames
        .iter()
        .all(|frame| cold[frame].values().all(|file| crate::compare::pixels(plain, file).is_none()));
    all_plain.then(|| "it looks like the scene without the feature".to_owned())
}
