//! What sparklines and curves are drawn from: the last quarter of an hour, a sample a snapshot.

use std::collections::{HashMap, VecDeque};

use patronus_api::Snapshot;

/// The most samples of a track: 15 minutes at one a second.
pub const SAMPLES_MAX: usize = 900;
/// The most paths that are followed; of more, the first ones of the snapshot.
const PATHS_MAX: usize = 512;

/// Samples with their times, the oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track {
    samples: VecDeque<(u64, Option<f32>)>,
}

/// The tracks of a path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathTracks {
    /// Round trip in milliseconds.
    pub rtt_ms: Track,
    /// Loss of hellos over the last second, the worse direction, in percent.
    pub loss_pct: Track,
}

/// All tracks of a gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracks {
    /// Sent to the uplinks, bits per second.
    pub tx_bps: Track,
    /// Received from the uplinks, bits per second.
    pub rx_bps: Track,
    /// Dropped, packets per second.
    pub drops_pps: Track,
    paths: HashMap<String, PathTracks>,
}

impl Track {
    /// Adds a sample.
    pub fn push(&mut self, unix_ms: u64, value: Option<f64>) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((unix_ms, value.map(|it| it as f32)));
    }

    /// The samples of the time until `now_ms`, laid into `cells` equal parts; the greatest counts where several fall
    /// into one. A part without a sample has the one before it, if that is not older than a tenth of the time or three
    /// seconds.
    pub fn cells(&self, now_ms: u64, span_ms: u64, cells: usize) -> Vec<Option<f64>> {
        let mut out: Vec<Option<f64>> = vec![None; cells];
        if cells == 0 || span_ms == 0 {
            return out;
        }
        let from = now_ms.saturating_sub(span_ms);
        let mut is_sampled = vec![false; cells];
        for (at, value) in &self.samples {
            // The moment of the last snapshot belongs to the last part.
            if *at <= from || *at > now_ms {
                continue;
            }
            let cell = ((at - from - 1) as u128 * cells as u128 / u128::from(span_ms)) as usize;
            let cell = cell.min(cells - 1);
            is_sampled[cell] = true;
            out[cell] = match (out[cell], value.map(f64::from)) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
        }
        let part_ms = (span_ms as usize / cells).max(1);
        let reach = (3000usize.max(span_ms as usize / 10)).div_ceil(part_ms);
        let mut last: Option<(usize, Option<f64>)> = None;
        for cell in 0..cells {
            if is_sampled[cell] {
                last = Some((cell, out[cell]));
            } else if let Some((at, value)) = last
                && cell - at <= reach
            {
                out[cell] = value;
            }
        }
        out
    }
}

impl Tracks {
    /// Adds a snapshot's samples, and forgets paths that it does not have.
    pub fn add(&mut self, snapshot: &Snapshot) {
        let at = snapshot.unix_ms;
        let rates = snapshot.rates;
        self.tx_bps.push(at, rates.map(|it| it.tx_udp_bps));
        self.rx_bps.push(at, rates.map(|it| it.rx_udp_bps));
        self.drops_pps.push(at, rates.map(|it| it.drops_pps));
        let paths = || {
            snapshot
                .paths
                .peers
                .iter()
                .flat_map(|peer| &peer.paths)
                .take(PATHS_MAX)
        };
        let mut kept = HashMap::with_capacity(self.paths.len());
        for path in paths() {
            let mut tracks = self.paths.remove(&path.id).unwrap_or_default();
            let is_usable = path.state.is_usable();
            tracks.rtt_ms.push(at, path.rtt_ms.filter(|_| is_usable));
            tracks
                .loss_pct
                .push(at, worse(path.tx_loss.one_s_pct, path.rx_loss.one_s_pct));
            kept.insert(path.id.clone(), tracks);
        }
        self.paths = kept;
    }

    /// Those of a path.
    pub fn path(&self, id: &str) -> Option<&PathTracks> {
        self.paths.get(id)
    }
}

/// The greater of two figures that may be absent.
pub fn worse(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(samples: &[(u64, Option<f64>)]) -> Track {
        let mut track = Track::default();
        for (at, value) in samples {
            track.push(*at, *value);
        }
        track
    }

    #[test]
    fn samples_fall_into_their_part_and_the_greatest_counts() {
        let track = track(&[
            (1000, Some(1.0)),
            (2000, Some(5.0)),
            (2500, Some(3.0)),
            (4000, Some(2.0)),
        ]);
        assert_eq!(
            track.cells(4000, 4000, 4),
            [Some(1.0), Some(5.0), Some(3.0), Some(2.0)]
        );
        assert_eq!(track.cells(4000, 4000, 2), [Some(5.0), Some(3.0)]);
    }

    #[test]
    fn a_gap_is_bridged_for_a_while_and_an_absent_sample_stays_absent() {
        let track = track(&[(1000, Some(1.0)), (10_000, None)]);
        let cells = track.cells(10_000, 10_000, 10);
        assert_eq!(cells[0..4], [Some(1.0); 4]);
        assert_eq!(cells[4..], [None; 6]);
    }

    #[test]
    fn a_track_is_bounded() {
        let mut track = Track::default();
        for at in 0..2 * SAMPLES_MAX as u64 {
            track.push(at, Some(0.0));
        }
        assert_eq!(track.samples.len(), SAMPLES_MAX);
        assert_eq!(track.cells(0, 0, 3), [None; 3]);
        assert!(track.cells(5000, 5000, 0).is_empty());
    }
}
