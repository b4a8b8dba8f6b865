//! Threads that stay on one core while they measure.

use std::thread;

use anyhow::{Context, Result, bail};

/// The cores that this process may use, ascending.
///
/// # Errors
/// The kernel does not say.
pub fn cores() -> Result<Vec<usize>> {
    let mut cores: Vec<usize> = core_affinity::get_core_ids()
        .context("asking the kernel for the cores this process may use (sched_getaffinity)")?
        .into_iter()
        .map(|core| core.id)
        .collect();
    cores.sort_unstable();
    Ok(cores)
}

/// The core to measure on: the one asked for, or the last one, where the kernel's own work is rarest.
///
/// # Errors
/// This process may not use that core, or has none.
pub fn choose(wanted: Option<usize>) -> Result<usize> {
    let cores = cores()?;
    match wanted {
        Some(core) if !cores.contains(&core) => {
            bail!("--core {core}: this process may use {cores:?} only (taskset, cpuset)")
        }
        Some(core) => Ok(core),
        None => cores.last().copied().context("no core to measure on"),
    }
}

/// Runs `work` in a thread that is pinned to `core`; the calling thread stays as free as it was.
///
/// # Errors
/// The kernel refused to pin, or `work` failed.
pub fn on_core<T: Send>(core: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = move || {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            bail!("the kernel refused to pin a thread to core {core}: choose another with --core");
        }
        work()
    };
    thread::scope(|scope| {
        match thread::Builder::new()
            .name(format!("bench-{core}"))
            .spawn_scoped(scope, pinned)
        {
            Ok(thread) => match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            },
            Err(error) => Err(error).with_context(|| format!("starting a thread for core {core}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_on_the_core_that_was_chosen() {
        let core = choose(None).unwrap();
        let seen = on_core(core, || {
            Ok(core_affinity::get_core_ids()
                .unwrap_or_default()
                .into_iter()
                .map(|core| core.id)
                .collect::<Vec<_>>())
        });
        assert_eq!(seen.unwrap(), [core]);
    }

    #[test]
    fn a_core_that_is_not_ours_is_refused_with_those_that_are() {
        let error = choose(Some(100_000)).unwrap_err().to_string();
        assert!(error.contains("--core 100000"), "{error}");
    }
}
