//! The DNA of a file with the structs that Kiln reads.

use foldhash::HashMap;

use crate::{
    dna::Dna,
    external::{RULES, Rule},
    uses::{Uses, table},
};

/// Struct indices that the collector knows by name.
pub(crate) struct Kinds {
    pub id: Option<usize>,
    pub object: Option<usize>,
    pub particles: Option<usize>,
    pub mesh: Option<usize>,
    pub global: Option<usize>,
}

/// The DNA, and what of it is of interest.
pub(crate) struct Schema {
    pub dna: Dna,
    /// The rules for each struct.
    pub rules: HashMap<usize, Vec<&'static Rule>>,
    pub uses: Vec<Uses>,
    pub kinds: Kinds,
}

impl Schema {
    pub fn new(dna: Dna) -> Self {
        let by_name = dna.by_name();
        let mut rules: HashMap<usize, Vec<&'static Rule>> = HashMap::default();
        for rule in RULES {
            if let Some(index) = by_name.get(rule.strukt.as_bytes()) {
                rules.entry(*index).or_default().push(rule);
            }
        }
        let index_of = |name: &str| by_name.get(name.as_bytes()).copied();
        let kinds = Kinds {
            id: index_of("ID"),
            object: index_of("Object"),
            particles: index_of("ParticleSettings"),
            mesh: index_of("Mesh"),
            global: index_of("FileGlobal"),
        };
        let uses = table(&dna, &by_name, &rules);
        Self { dna, rules, uses, kinds }
    }
}
