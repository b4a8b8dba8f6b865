//! Pinning worker threads to cores.

use std::fmt;

/// A logical CPU by the number the kernel gives it (`cpuN` in `/sys/devices/system/cpu`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Core(pub usize);

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}", self.0)
    }
}

/// What became of a wish to pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// The thread runs on this core and nowhere else.
    Pinned(Core),
    /// The core does not exist, or a cpuset forbids it. The thread runs where it ran before.
    NotAllowed {
        /// The core asked for.
        core: Core,
        /// The cores this thread may use.
        allowed: Vec<Core>,
    },
    /// The kernel refused although the core is allowed. The thread runs where it ran before.
    Refused(Core),
}

impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned(core) => write!(f, "pinned to {core}"),
            Self::NotAllowed { core, allowed } => {
                let allowed: Vec<String> = allowed.iter().map(|core| core.0.to_string()).collect();
                write!(
                    f,
                    "not pinned: {core} is not among the allowed cores {}",
                    allowed.join(",")
                )
            }
            Self::Refused(core) => write!(f, "not pinned: the kernel refused {core}"),
        }
    }
}

/// The cores the calling thread may run on, ascending; empty where the kernel does not say. Ask before
/// pinning: a pinned thread, and every thread it starts, is allowed its one core only.
pub fn allowed_cores() -> Vec<Core> {
    let mut cores: Vec<Core> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| Core(core.id))
        .collect();
    cores.sort_unstable();
    cores
}

/// Pins the calling thread to `core` and says what came of it.
pub fn pin_current_thread(core: Core) -> Pinning {
    let allowed = allowed_cores();
    if !allowed.contains(&core) {
        return Pinning::NotAllowed { core, allowed };
    }
    match core_affinity::set_for_current(core_affinity::CoreId { id: core.0 }) {
        true => Pinning::Pinned(core),
        false => Pinning::Refused(core),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_each_allowed_core() {
        let cores = allowed_cores();
        assert!(!cores.is_empty());
        for core in cores {
            let seen = std::thread::spawn(move || {
                assert_eq!(pin_current_thread(core), Pinning::Pinned(core));
                allowed_cores()
            });
            assert_eq!(seen.join().unwrap(), [core]);
        }
    }

    #[test]
    fn a_core_that_does_not_exist_leaves_the_thread_alone() {
        let before = allowed_cores();
        let outcome = pin_current_thread(Core(100_000));
        assert!(matches!(outcome, Pinning::NotAllowed { .. }), "{outcome}");
        assert_eq!(allowed_cores(), before);
    }
}
