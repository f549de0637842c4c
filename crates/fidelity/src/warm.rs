//! Two warm Blenders in this process: frames one after the other, back again, on the other slot, after reopening.

use std::{collections::BTreeMap, fs, path::Path, str::FromStr};

use anyhow::{Result, anyhow};
use kiln_host::{
    BakeRequest, BlenderInstall, Host, HostOptions, OpenRequest, RenderRequest, SlotRoot, collect,
};
use kiln_types::{
    BlobHash, BundleId, DeviceClass, Failure, FailureCause, Policy, RelPath, RenderSettings, ScriptPolicy,
    SessionSpec,
};

use crate::{
    cold::{Frames, files},
    compare::difference,
    rows::Facts,
};

/// The result of a row on warm Blenders.
#[derive(Debug)]
pub enum Warm {
    Equal,
    Differs(String),
    Refused(String),
}

struct Slot {
    host: Host,
    root: SlotRoot,
    trust: bool,
    count: u32,
    _folder: tempfile::TempDir,
}

impl Slot {
    async fn start(install: &BlenderInstall, trust: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kiln-fidelity-").tempdir()?;
        let root = SlotRoot::create(folder.path().join("slot"))?;
        let options = HostOptions { trust, ..HostOptions::default() };
        let host = Host::start(install, &root, options).await?;
        Ok(Self { host, root, trust, count: 0, _folder: folder })
    }

    /// Opens the row; one that is not baked is baked first, in a copy, as a worker does.
    async fn open(&mut self, install: &BlenderInstall, facts: &Facts) -> Result<Result<(), Failure>> {
        let mut blend = facts.blend.clone();
        let session = session(install, facts)?;
        let request = OpenRequest {
            blend: blend.clone(),
            session: session.clone(),
            remap: Vec::new(),
            unused: Vec::new(),
            addons: Vec::new(),
            persistent_data: true,
        };
        match self.host.open(&request).await {
            Err(failure) if failure.cause == FailureCause::Unbaked && facts.refuses.is_empty() => {}
            other => return Ok(other.map(|_| ())),
        }
        self.count += 1;
        let tree = self.root.path().join("work").join(self.count.to_string());
        for file in files(facts.folder())? {
            let to = tree.join(file.strip_prefix(facts.folder())?);
            fs::create_dir_all(to.parent().unwrap_or(&tree))?;
            fs::copy(&file, to)?;
        }
        blend = tree.join(blend.strip_prefix(facts.folder())?);
        let bake = BakeRequest {
            tree,
            blend: blend.clone(),
            session,
            remap: Vec::new(),
            unused: Vec::new(),
            addons: Vec::new(),
        };
        if let Err(failure) = self.host.bake(&bake).await {
            return Ok(Err(failure));
        }
        Ok(self.host.open(&OpenRequest { blend, ..request }).await.map(|_| ()))
    }

    async fn render(&mut self, cold: &Frames, frame: i32, way: &str) -> Result<Result<(), Warm>> {
        let out = self.root.fresh_out("frame")?;
        let request = RenderRequest { frame, out: out.clone(), time_limit: None };
        let failed = |failure: Failure| Ok(Err(Warm::Refused(failure.message)));
        let rendered = match self.host.render(request).await {
            Ok(rendered) => rendered,
            Err(failure) => return failed(failure),
        };
        if let Err(failure) = collect(&out, &rendered.planned) {
            return failed(failure);
        }
        let named: BTreeMap<_, _> = rendered
            .planned
            .iter()
            .map(|file| (file.path.as_str().to_owned(), out.join(file.scratch.to_path())))
            .collect();
        // What is to be refused may have no cold frames.
        Ok(match cold.get(&frame).and_then(|cold| difference(cold, &named)) {
            Some(how) => Err(Warm::Differs(format!("{way}, frame {frame}: {how}"))),
            None => Ok(()),
        })
    }
}

fn session(install: &BlenderInstall, facts: &Facts) -> Result<SessionSpec> {
    let name = facts.blend.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut policy = Policy::default();
    if facts.trust {
        policy.scripts = ScriptPolicy::Trust;
    }
    Ok(SessionSpec {
        bundle: BundleId(BlobHash::of(facts.hash.as_bytes())),
        blend: RelPath::from_str(name).map_err(|error| anyhow!("{error}"))?,
        origin: facts.project().to_str().map(ToOwned::to_owned),
        file_name: None,
        blender: install.version.series(),
        device: DeviceClass::Cpu,
        settings: RenderSettings::default(),
        policy,
        ocio: None,
        addons: Vec::new(),
    })
}

/// Two warm Blenders of one version, started when they are needed.
pub struct Pair {
    install: BlenderInstall,
    slots: [Option<Slot>; 2],
}

impl Pair {
    pub fn new(program: &Path) -> Result<Self> {
        Ok(Self {
            install: kiln_host::inspect(program).map_err(|error| anyhow!("{error}"))?,
            slots: [None, None],
        })
    }

    pub fn install(&self) -> &BlenderInstall {
        &self.install
    }

    /// Renders the row on both, at the same time, and compares every frame.
    pub async fn render(&mut self, facts: &Facts, cold: &Frames) -> Result<Warm> {
        for slot in &mut self.slots {
            // A process that ran scripts serves no other file.
            let usable = slot.as_mut().is_some_and(|s| s.host.is_alive() && !s.trust && !facts.trust);
            if !usable {
                *slot = Some(Slot::start(&self.install, facts.trust).await?);
            }
        }
        let [Some(first), Some(second)] = &mut self.slots else { return Err(anyhow!("no Blender")) };
        let install = &self.install;
        let one = async {
            if let Err(failure) = first.open(install, facts).await? {
                return Ok(Err(Warm::Refused(failure.message)));
            }
            for frame in &facts.frames {
                if let Err(warm) = first.render(cold, *frame, "warm").await? {
                    return Ok(Err(warm));
                }
            }
            for frame in facts.frames.iter().rev().skip(1) {
                if let Err(warm) = first.render(cold, *frame, "out of order").await? {
                    return Ok(Err(warm));
                }
            }
            if let Err(failure) = first.open(install, facts).await? {
                return Ok(Err(Warm::Refused(failure.message)));
            }
            let last = facts.frames.last().copied().unwrap_or(1);
            first.render(cold, last, "after reopening").await
        };
        let other = async {
            if let Err(failure) = second.open(install, facts).await? {
                return Ok(Err(Warm::Refused(failure.message)));
            }
            for frame in facts.frames.iter().skip(1).step_by(2).chain(facts.frames.first()) {
                if let Err(warm) = second.render(cold, *frame, "second slot").await? {
                    return Ok(Err(warm));
                }
            }
            Ok::<_, anyhow::Error>(Ok(()))
        };
        let (one, other) = tokio::join!(one, other);
        Ok(match (one?, other?) {
            (Err(warm), _) | (_, Err(warm)) => warm,
            (Ok(()), Ok(())) => Warm::Equal,
        })
    }
}
