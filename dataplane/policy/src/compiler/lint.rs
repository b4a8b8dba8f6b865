//! placeholder
/// A
#[derive(Debug)]
pub struct Finding;
/// B
#[derive(Debug)]
pub struct FindingKind;
