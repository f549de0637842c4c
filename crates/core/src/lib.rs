//! Job, step, task, attempt and worker state machines and the scheduling policy; pure
