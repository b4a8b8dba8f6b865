//! The LAN program in the kernel's test run (`BPF_PROG_TEST_RUN`): the very code, and packets that go nowhere.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};

use super::layout::LanReason;
use crate::load::LoadError;

/// A handle to a program that was loaded for trials, to use beside its filter: the policies that the filter publishes
/// are in force here, too, until one makes the maps grow.
#[derive(Debug)]
pub struct LanTrials {
    pub(super) program: SchedClassifier,
}

impl LanTrials {
    /// As [`LanFilter::trial`](super::LanFilter::trial).
    ///
    /// # Errors
    /// Where the kernel refuses the run.
    pub fn trial(&self, packet: &[u8]) -> Result<LanReason, LoadError> {
        run(&self.program, packet, 1).map(|it| it.0)
    }
}

/// What becomes of an IP packet, and the mean time of `times` runs.
pub(super) fn run(
    program: &SchedClassifier,
    packet: &[u8],
    times: u32,
) -> Result<(LanReason, Duration), LoadError> {
    // The program goes by the packet's first nibble. Of IP, the test run would refuse packets that are cut off, so the
    // frame has the EtherType of local experiments.
    let mut frame = vec![0; 12];
    frame.extend([0x88, 0xb5]);
    frame.extend(packet);
    let options = TestRunOptions {
        data_in: Some(&frame),
        repeat: times,
        ..TestRunOptions::new()
    };
    let result = program
        .test_run(options)
        .map_err(|error| LoadError::from_program("the test run", error))?;
    let reason = LanReason::ALL.get(result.return_value as usize).copied();
    let reason = reason.ok_or_else(|| LoadError::Kernel {
        operation: "the test run".to_owned(),
        cause: format!("it returned {}, which is no reason", result.return_value),
    })?;
    Ok((reason, result.duration))
}
