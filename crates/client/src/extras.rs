//! The files that a user adds to a .blend: a colour configuration (OCIO) and add-ons.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use kiln_blend::{AddonError, OcioError, find_addon_files, find_ocio_files};
use kiln_types::RelPath;
use tempfile::TempDir;

const OCIO: &str = "_ocio";
const ADDONS: &str = "_addons";

/// The files that a user names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// A `config.ocio`; without it, Blender's own colour configuration is used.
    pub ocio: Option<PathBuf>,
    /// Python files, folders, or .zip files of one.
    pub addons: Vec<PathBuf>,
}

/// The files of a colour configuration and of add-ons, with their places in the bundle.
#[derive(Debug, Clone, Default)]
pub struct FoundExtras {
    pub ocio: Option<RelPath>,
    /// Tables that the configuration names and that are missing.
    pub missing_tables: Vec<String>,
    /// The file or folder that is each add-on.
    pub addons: Vec<RelPath>,
    pub files: Vec<(RelPath, PathBuf)>,
    /// The unpacked add-ons, for as long as the files are needed.
    _unpacked: Option<Arc<TempDir>>,
}

/// The reasons why a file cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum ExtrasError {
    #[error(transparent)]
    Ocio(#[from] OcioError),
    #[error(transparent)]
    Addon(#[from] AddonError),
    #[error("two add-ons are called {0}; name one of them")]
    Twice(RelPath),
    #[error("the .blend itself needs a file at {0}, where Kiln puts added files; move it to another folder")]
    Taken(RelPath),
    #[error("there is no room to unpack add-ons in ({0}); make some in the system's temporary folder")]
    Scratch(#[source] io::Error),
    #[error("{0} cannot be in a bundle; give it a shorter name")]
    Place(String),
}

impl Extras {
    /// Finds their files. Blocking.
    pub fn find(&self) -> Result<FoundExtras, ExtrasError> {
        let mut found = FoundExtras::default();
        if let Some(config) = &self.ocio {
            let ocio = find_ocio_files(config)?;
            found.ocio = Some(below(OCIO, &ocio.config)?);
            found.missing_tables = ocio.missing;
            found.take(OCIO, ocio.files)?;
        }
        if self.addons.is_empty() {
            return Ok(found);
        }
        let unpacked =
            tempfile::Builder::new().prefix("kiln-addons-").tempdir().map_err(ExtrasError::Scratch)?;
        let mut roots = BTreeSet::new();
        for (number, path) in self.addons.iter().enumerate() {
            let scratch = unpacked.path().join(number.to_string());
            std::fs::create_dir(&scratch).map_err(ExtrasError::Scratch)?;
            let addon = find_addon_files(path, &scratch)?;
            if !roots.insert(addon.module) {
                return Err(ExtrasError::Twice(addon.root));
            }
            found.addons.push(below(ADDONS, &addon.root)?);
            found.take(ADDONS, addon.files)?;
        }
        found._unpacked = Some(Arc::new(unpacked));
        Ok(found)
    }
}

impl FoundExtras {
    fn take(&mut self, folder: &str, files: Vec<(RelPath, PathBuf)>) -> Result<(), ExtrasError> {
        for (path, source) in files {
            self.files.push((below(folder, &path)?, source));
        }
        Ok(())
    }

    /// Adds the files to those of a .blend, in the order of their places.
    pub fn join(&self, files: &mut Vec<(RelPath, PathBuf)>) -> Result<(), ExtrasError> {
        let ours = |path: &RelPath| {
            let first = path.as_str().split('/').next().unwrap_or_default();
            self.files
                .iter()
                .any(|(own, _)| own.as_str().split('/').next().is_some_and(|f| f.eq_ignore_ascii_case(first)))
        };
        if let Some((path, _)) = files.iter().find(|(path, _)| ours(path)) {
            return Err(ExtrasError::Taken(path.clone()));
        }
        files.extend(self.files.iter().cloned());
        files.sort();
        Ok(())
    }
}

fn below(folder: &str, path: &RelPath) -> Result<RelPath, ExtrasError> {
    RelPath::new(&format!("{folder}/{path}")).map_err(|_| ExtrasError::Place(path.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn paths(files: &[(RelPath, PathBuf)]) -> Vec<&str> {
        files.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn a_configuration_and_add_ons_get_folders_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let config = "ocio_profile_version: 2\nsearch_path: luts\nlook: !<FileTransform> {src: warm.cube}\n\
                      other: !<FileTransform> {src: gone.cube}\n";
        let ocio = write("ocio/config.ocio", config);
        write("ocio/luts/warm.cube", "x");
        let tool = write("tool.py", "");
        write("kit/__init__.py", "");
        let extras = Extras { ocio: Some(ocio), addons: vec![tool.clone(), temp.path().join("kit")] };
        let found = extras.find().unwrap();
        assert_eq!(found.ocio.as_ref().unwrap().as_str(), "_ocio/config.ocio");
        assert_eq!(found.missing_tables, ["gone.cube"]);
        let addons: Vec<&str> = found.addons.iter().map(RelPath::as_str).collect();
        assert_eq!(addons, ["_addons/tool.py", "_addons/kit"]);
        let mut files = vec![(RelPath::new("shot.blend").unwrap(), temp.path().join("shot.blend"))];
        found.join(&mut files).unwrap();
        assert_eq!(
            paths(&files),
            [
                "_addons/kit/__init__.py",
                "_addons/tool.py",
                "_ocio/config.ocio",
                "_ocio/luts/warm.cube",
                "shot.blend"
            ]
        );
        let mut taken = vec![(RelPath::new("_OCIO/own.png").unwrap(), temp.path().join("own.png"))];
        assert!(matches!(found.join(&mut taken), Err(ExtrasError::Taken(_))));
        let twice = Extras { ocio: None, addons: vec![tool.clone(), tool] };
        assert!(matches!(twice.find(), Err(ExtrasError::Twice(_))));
    }
}
