//! Builds, demonstrates and tests enforcer.
fn main() {}
