//! Names and flags of datablocks and their parts.

use crate::dna::View;

pub(crate) fn name(view: View<'_>) -> String {
    let name = view.text("id.name").unwrap_or_default();
    name.get(2..).unwrap_or_default().to_owned()
}

/// The same, byte for byte.
pub(crate) fn name_bytes(view: View<'_>) -> &[u8] {
    view.bytes("id.name").and_then(|name| name.get(2..)).unwrap_or_default()
}

pub(crate) fn flag(view: View<'_>, field: &'static str, bit: u32) -> bool {
    view.int(field).is_some_and(|flags| flags & (1 << bit) != 0)
}
