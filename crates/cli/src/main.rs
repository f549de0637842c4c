//! kiln, the one program
fn main() {}
