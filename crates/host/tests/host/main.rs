//! The host with real Blenders, and with programs that lie in a Blender's place.

#![allow(clippy::unwrap_used)]

mod artist;
mod bake;
mod bring;
mod devices;
mod disks;
mod find;
mod liars;
mod life;
mod names;
mod persistent;
mod pixels;
mod properties;
mod range;
mod refusals;
mod sequences;
mod writes;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    str::FromStr,
};

use kiln_host::{
    BlenderInstall, Host, HostOptions, OpenRequest, OpenedFile, RenderRequest, Rendered, SlotRoot, collect,
    inspect,
};
use kiln_testkit::{Blender, blender, scene, temp_dir};
use kiln_types::{
    BlobHash, BundleId, DeviceClass, Failure, Policy, RelPath, RenderSettings, ScriptPolicy, SessionSpec,
    paths,
};

fn debian() -> BlenderInstall {
    inspect(&blender()).unwrap()
}

fn install(blender: &Blender) -> BlenderInstall {
    inspect(blender.program()).unwrap()
}

/// A session of a test scene; change what the test is about.
fn session(install: &BlenderInstall, blend: &Path) -> SessionSpec {
    SessionSpec {
        bundle: BundleId(BlobHash::of(blend.as_os_str().as_encoded_bytes())),
        blend: RelPath::from_str(blend.file_name().unwrap().to_str().unwrap()).unwrap(),
        origin: blend.parent().map(|folder| paths::spelled(folder.as_os_str().as_encoded_bytes())),
        file_name: None,
        blender: install.version.series(),
        device: DeviceClass::Cpu,
        settings: RenderSettings::default(),
        policy: Policy::default(),
        ocio: None,
        addons: Vec::new(),
    }
}

/// A started host with its slot.
struct Slot {
    host: Host,
    root: SlotRoot,
    install: BlenderInstall,
    _folder: tempfile::TempDir,
}

impl Slot {
    async fn start(install: BlenderInstall, options: HostOptions) -> Self {
        Self::start_in("slot".as_ref(), install, options).await
    }

    /// With this name of the slot's folder.
    async fn start_in(name: &OsStr, install: BlenderInstall, options: HostOptions) -> Self {
        let folder = temp_dir();
        let root = SlotRoot::create(folder.path().join(name)).unwrap();
        let host = Host::start(&install, &root, options).await.unwrap();
        Self { host, root, install, _folder: folder }
    }

    async fn open_with(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut SessionSpec),
    ) -> Result<OpenedFile, Failure> {
        let blend = scene(name);
        let mut session = session(&self.install, &blend);
        change(&mut session);
        let request = OpenRequest::new(blend, session);
        self.host.open(&request).await
    }

    async fn open(&mut self, name: &str) -> OpenedFile {
        self.open_with(name, |_| {}).await.unwrap()
    }

    /// Renders, collects, and returns where the frame lies.
    async fn render(&mut self, frame: i32) -> Result<(PathBuf, Rendered), Failure> {
        let out = self.root.fresh_out(&format!("frame{frame}")).unwrap();
        let rendered = self.host.render(RenderRequest { frame, out: out.clone(), time_limit: None }).await?;
        let collected = collect(&out, &rendered.planned)?;
        assert_eq!(collected.len(), rendered.planned.len());
        Ok((out, rendered))
    }
}

fn trusting() -> HostOptions {
    HostOptions { trust: true, ..HostOptions::default() }
}

fn trusted(session: &mut SessionSpec) {
    session.policy.scripts = ScriptPolicy::Trust;
}
