//! The `nucleus` binary.
fn main() {}
