//! The program `kolo`.
fn main() {}
