//! Whether a gateway is well: started, ready, and what is wrong with it.

use patronus_api::{GradeView, HealthView, HistoryStateView, ProblemView};

use super::counting::Readings;
use super::{ApiState, Live};

/// How the gateway does.
pub fn of(state: &ApiState, live: &Live, readings: &Readings, peers_up: usize) -> HealthView {
    let mut problems = Vec::new();
    let mut tell = |grade, text: String| problems.push(ProblemView { grade, text });
    for (at, _) in ended(readings) {
        let text = format!("worker {at} has stopped, its peers are cut off: restart the gateway");
        tell(GradeView::Bad, text);
    }
    let generation = readings.generation(live);
    let behind = generation.workers - generation.applied;
    if behind > 0 {
        tell(
            GradeView::Warning,
            format!(
                "{behind} of {} workers do not have the newest configuration yet",
                generation.workers
            ),
        );
    }
    let peers = live.snapshot.peers().count();
    let can_call = live.snapshot.peers().any(|spec| spec.endpoint.is_some());
    if peers_up < peers && can_call {
        let grade = match peers_up {
            0 => GradeView::Bad,
            _ => GradeView::Warning,
        };
        let text = format!("{peers_up} of {peers} peers up: `patronus peers` lists them");
        tell(grade, text);
    }
    let panics: u64 = readings.workers.iter().map(|it| it.panics).sum();
    if panics > 0 {
        let text = format!("workers survived {panics} panics: report them with the daemon's log");
        tell(GradeView::Warning, text);
    }
    let kept = live.policy.report.refused.len();
    if kept > 0 {
        tell(
            GradeView::Warning,
            format!(
                "the last load of policy refused {kept} objects, their previous versions are in force: \
                 `patronus policy list`"
            ),
        );
    }
    let history = state.history_status();
    if history.state == HistoryStateView::Failing {
        let reason = history.reason.unwrap_or_default();
        tell(
            GradeView::Warning,
            format!("no history is kept at the moment: {reason}"),
        );
    }
    problems.sort_by_key(|it| it.grade != GradeView::Bad);
    let is_started = ended(readings).next().is_none() && behind == 0 && generation.workers > 0;
    HealthView {
        is_started,
        is_ready: is_started && (peers_up > 0 || !can_call),
        problems,
    }
}

fn ended(readings: &Readings) -> impl Iterator<Item = (usize, &crate::facts::WorkerReading)> {
    let numbered = readings.workers.iter().enumerate();
    numbered.filter(|(_, it)| it.has_ended)
}
