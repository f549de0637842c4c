//! The core under simulated workers, clocks and faults, from a seed
