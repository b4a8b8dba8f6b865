//! Decides which path each class uses.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::class::ClassConfig;
use crate::ids::{CLASSES_MAX, ClassId, PathIndex};
use crate::observation::Observation;
use crate::record::{Candidate, Decision};
use crate::time::Time;

/// What a selector is told when it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectorConfig {
    /// The classes, by number, at most [`CLASSES_MAX`].
    pub classes: Vec<ClassConfig>,
}

/// Where a class's packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The path of new flows; `None` while there is no usable one.
    pub path: Option<PathIndex>,
    /// The path that the class is leaving gracefully: flows that use it stay until they pause.
    pub leaving: Option<PathIndex>,
    /// A flow that was silent this long may change to `path` without reordering.
    pub gap: Duration,
    /// From here on every flow uses `path`.
    pub deadline: Time,
    /// Which share of existing flows may move at all yet, of 256, by their hash.
    pub share: u16,
    /// A second path that carries copies of every packet, while the first is suspect.
    pub protect: Option<PathIndex>,
}

/// The selector of one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selector {}

/// What the host calls.
///
/// One call in, then drain [`poll_decision`](Selector::poll_decision) and read [`routes`](Selector::routes).
#[allow(unused_variables, clippy::unimplemented)]
impl Selector {
    /// A selector that knows no path.
    pub fn new(config: SelectorConfig, now: Time) -> Self {
        unimplemented!()
    }

    /// Takes new classes; paths and their history stay.
    pub fn configure(&mut self, config: SelectorConfig, now: Time) {
        unimplemented!()
    }

    /// Something was seen.
    pub fn observe(&mut self, observation: &Observation, now: Time) {
        unimplemented!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        unimplemented!()
    }

    /// Time passed: holds, hold-downs and penalties run out.
    pub fn handle_timeout(&mut self, now: Time) {
        unimplemented!()
    }

    /// The next record.
    pub fn poll_decision(&mut self) -> Option<Decision> {
        unimplemented!()
    }

    /// Where each class's packets go.
    pub fn routes(&self) -> &[Route; CLASSES_MAX] {
        unimplemented!()
    }

    /// Paths that are probed as often as those in use because a class would take them next, by bit.
    pub fn standby(&self) -> u16 {
        unimplemented!()
    }

    /// Every path as a class sees it, best first.
    pub fn candidates(&self, class: ClassId, now: Time) -> Vec<Candidate> {
        unimplemented!()
    }

    /// Tier and score of a path for a class, without allocating.
    pub fn standing(&self, class: ClassId, path: PathIndex, now: Time) -> Option<(u8, f64)> {
        unimplemented!()
    }
}
