//! docs/fidelity.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::rows::{Known, Verdict};

fn cell(verdict: &Verdict, notes: &mut Vec<String>) -> String {
    let (word, why) = match verdict {
        Verdict::Equal => return "equal".to_owned(),
        Verdict::NotRun => return "not run".to_owned(),
        Verdict::Absent { why } if why == "not in this version" => return "–".to_owned(),
        Verdict::Absent { why } => ("–", why),
        Verdict::Refused { why } => ("refused", why),
        Verdict::BlenderDiffers { how } => ("Blender differs", how),
        Verdict::Differs { how } => ("**DIFFERS**", how),
        Verdict::Unexpected { why } => ("**UNEXPECTED**", why),
        Verdict::ProvesNothing { why } => ("**PROVES NOTHING**", why),
        Verdict::Broken { why } => ("**BROKEN**", why),
    };
    let why: Vec<_> = why.lines().next().unwrap_or_default().split(' ').map(short).collect();
    // Addresses of memory differ in each run.
    let why = why.into_iter().filter(|word| !word.starts_with("0x")).collect::<Vec<_>>();
    let why: String = why.join(" ").chars().take(400).collect();
    let place = notes.iter().position(|note| *note == why).unwrap_or_else(|| {
        notes.push(why);
        notes.len() - 1
    });
    format!("{word} [{0}](#n{0})", place + 1)
}

/// A word without the folders of the machine that made the page.
fn short(word: &str) -> String {
    match word.rsplit_once('/') {
        Some((folders, name))
            if word.trim_start_matches(['"', '\'', '(']).starts_with('/') && folders.len() > 1 =>
        {
            format!("…/{name}")
        }
        _ => word.to_owned(),
    }
}

/// The results of a row, by the version.
type Cells<'a> = BTreeMap<&'a str, &'a Known>;

/// The page: counts, a table for each chapter, reasons.
pub fn table(results: &[Known], date: &str) -> String {
    let versions: BTreeSet<&str> = results.iter().map(|known| known.version.as_str()).collect();
    let mut rows: BTreeMap<&str, (usize, Cells<'_>)> = BTreeMap::new();
    for known in results {
        let row = rows.entry(&known.title).or_insert((known.order, BTreeMap::new()));
        row.0 = row.0.min(known.order);
        row.1.insert(&known.version, known);
    }
    let mut page = String::from(INTRODUCTION);
    let _ = writeln!(page, "Made by `scripts/fidelity` on {date}: {} features.\n", rows.len());
    let mut builds: BTreeMap<&str, usize> = BTreeMap::new();
    for known in
        results.iter().filter(|known| !matches!(known.verdict, Verdict::NotRun | Verdict::Absent { .. }))
    {
        *builds.entry(&known.kiln).or_default() += 1;
    }
    if builds.len() > 1 {
        let each: Vec<_> = builds.iter().map(|(build, count)| format!("`{build}` ({count} cells)")).collect();
        let _ = writeln!(
            page,
            "The cells were rendered by {} builds of Kiln: {}.\n",
            builds.len(),
            each.join(", ")
        );
    }
    let mut head = String::from(
        "| version | equal | Blender differs | refused | not there | not run | to be fixed |\n|---|---|---|---|---|---|---|\n",
    );
    for version in &versions {
        let count = |is: &dyn Fn(&Verdict) -> bool| {
            results.iter().filter(|known| known.version == *version && is(&known.verdict)).count()
        };
        let _ = writeln!(
            head,
            "| {version} | {} | {} | {} | {} | {} | {} |",
            count(&|v| matches!(v, Verdict::Equal)),
            count(&|v| matches!(v, Verdict::BlenderDiffers { .. })),
            count(&|v| matches!(v, Verdict::Refused { .. })),
            count(&|v| matches!(v, Verdict::Absent { .. })),
            count(&|v| matches!(v, Verdict::NotRun)),
            count(&|v| !v.is_good() && !matches!(v, Verdict::NotRun)),
        );
    }
    page.push_str(&head);
    let mut chapters: BTreeMap<&str, Vec<(usize, &str, &Cells<'_>)>> = BTreeMap::new();
    for (title, (order, cells)) in &rows {
        let chapter = title.split([':', '/']).next().unwrap_or(title).trim();
        chapters.entry(chapter).or_default().push((*order, title, cells));
    }
    let mut notes = Vec::new();
    for (chapter, mut rows) in chapters {
        rows.sort_unstable_by_key(|(order, title, _)| (*order, *title));
        let _ = write!(page, "\n## {chapter}\n\n| feature |");
        for version in &versions {
            let _ = write!(page, " {version} |");
        }
        let _ = writeln!(page, "\n|---|{}", "---|".repeat(versions.len()));
        for (_, title, cells) in rows {
            let short = title.strip_prefix(chapter).unwrap_or(title).trim_start_matches([' ', ':', '/']);
            let _ = write!(page, "| {short} |");
            for version in &versions {
                let text = cells.get(version).map_or("not run".to_owned(), |k| cell(&k.verdict, &mut notes));
                let _ = write!(page, " {text} |");
            }
            page.push('\n');
        }
    }
    if !notes.is_empty() {
        page.push_str("\n## Notes\n\n");
        for (index, note) in notes.iter().enumerate() {
            let _ = writeln!(page, "{0}. <a id=\"n{0}\"></a>{note}", index + 1);
        }
    }
    page
}

const INTRODUCTION: &str = "# Fidelity

Kiln's frames are Blender's frames. This table proves it, feature by feature along the chapters of Blender's manual.

Each feature is a small scene in which something is animated. Three of its frames (2, 5 and 9) are rendered

- cold: by Blender, in a process of its own for each frame, forked from a Blender that has just started and has opened
  nothing. Where Kiln's pixels differ from these, completely new processes render them again, and those count. (A simulation
  that is not baked: one process that steps through the frames);
- warm: by one Kiln process, in order, then back again, then after reopening the file; and by a second one beside it, in
  another order, which had other files open before;
- on a farm: by a worker with two slots that sees none of the artist's folders.

The pixels of all files that a frame writes are compared. \"equal\" means that every value of every pixel is the same in
every one of these renders, and the texts inside the PNGs too (without date, render time, memory and host name). A row
counts only if its frames differ from one another and from the scene without the feature.

\"Blender differs\" means that two cold renders by Blender differ from each other. \"refused\" means that Kiln does not
render the scene and says why. A dash means that this version does not have the feature, or was built without it. \"not
run\" means that nobody has rendered it yet. Anything in bold is a bug, of Kiln or of the row.

";
