//! Which cases are measured.

use std::fmt;

use anyhow::{Result, ensure};

use super::{EngineOptions, SHAPES};
use crate::traffic::Shape;

/// Flows that fit into memory beside everything else: four entries of 64 bytes each.
const FLOWS_MAX: u64 = 1 << 22;
/// Peers whose engines fit into memory.
const PEERS_MAX: usize = 10_000;
/// Flows and peers beyond one of each.
const LOADS: [(u64, usize); 4] = [(1000, 1), (1_000_000, 1), (1000, 1000), (1_000_000, 1000)];

/// One kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub shape: Shape,
    pub flows: u64,
    pub peers: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} B, {} flows, {} peers",
            self.shape, self.flows, self.peers
        )
    }
}

/// All combinations that were asked for and make sense. By default every shape with one flow and one peer, and the
/// smallest, the largest and the superpacket under load.
pub(super) fn cases(options: &EngineOptions) -> Result<Vec<Case>> {
    for shape in &options.shapes {
        ensure!(
            shape.inner_len() <= crate::world::MTU,
            "--frames {shape}: a packet of {} bytes is larger than the inner MTU of {}",
            shape.inner_len(),
            crate::world::MTU
        );
    }
    for flows in &options.flows {
        ensure!(
            (1..=FLOWS_MAX).contains(flows),
            "--flows {flows}: 1 to {FLOWS_MAX}"
        );
    }
    for peers in &options.peers {
        ensure!(
            (1..=PEERS_MAX).contains(peers),
            "--peers {peers}: 1 to {PEERS_MAX}"
        );
    }
    let is_default = options.flows.is_empty() && options.peers.is_empty();
    let shapes = match options.shapes.as_slice() {
        [] if options.quick => QUICK_SHAPES.to_vec(),
        [] => SHAPES.to_vec(),
        shapes => shapes.to_vec(),
    };
    let case = |shape, (flows, peers)| Case {
        shape,
        flows,
        peers,
    };
    let mut cases = Vec::new();
    if is_default {
        cases.extend(shapes.iter().map(|shape| case(*shape, (1, 1))));
        let loads: &[(u64, usize)] = match options.quick {
            true => &[(100, 1), (100, 10)],
            false => &LOADS,
        };
        let loaded = shapes.iter().filter(|shape| QUICK_SHAPES.contains(shape));
        for shape in loaded {
            cases.extend(loads.iter().map(|load| case(*shape, *load)));
        }
        return Ok(cases);
    }
    let flows = or_one(&options.flows);
    let peers = or_one(&options.peers);
    for shape in shapes {
        for peers in &peers {
            let enough = flows.iter().filter(|flows| **flows >= *peers as u64);
            cases.extend(enough.map(|flows| case(shape, (*flows, *peers))));
        }
    }
    ensure!(
        !cases.is_empty(),
        "--flows {flows:?} --peers {peers:?}: every peer needs a flow"
    );
    Ok(cases)
}

fn or_one<T: From<u8> + Copy>(values: &[T]) -> Vec<T> {
    match values {
        [] => vec![T::from(1)],
        values => values.to_vec(),
    }
}

/// The ends of the range.
const QUICK_SHAPES: [Shape; 3] = [Shape::Packet(64), Shape::Packet(1420), Shape::BULK];

#[cfg(test)]
mod tests {
    use super::*;

    fn options(flows: &[u64], peers: &[usize]) -> EngineOptions {
        EngineOptions {
            shapes: Vec::new(),
            flows: flows.to_vec(),
            peers: peers.to_vec(),
            workers: 1,
            batch: 8,
            core: None,
            trials: 1,
            seconds: 0.1,
            quick: false,
            command: String::new(),
        }
    }

    #[test]
    fn by_default_every_shape_is_measured_and_three_of_them_under_load() {
        let cases = cases(&options(&[], &[])).unwrap();
        assert_eq!(cases.len(), 8 + 3 * 4);
        assert!(cases.iter().all(|case| case.flows >= case.peers as u64));
    }

    #[test]
    fn combinations_with_fewer_flows_than_peers_are_left_out() {
        let cases = cases(&options(&[1, 1000], &[1, 1000])).unwrap();
        assert_eq!(cases.len(), SHAPES.len() * 3);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_option() {
        for (flows, peers, option) in [
            (vec![0], vec![], "--flows 0"),
            (vec![1 << 40], vec![], "--flows 1099511627776"),
            (vec![], vec![0], "--peers 0"),
            (vec![5], vec![6], "every peer needs a flow"),
        ] {
            let error = cases(&options(&flows, &peers)).unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
        let mut large = options(&[], &[]);
        large.shapes = vec![Shape::Packet(1421)];
        let error = cases(&large).unwrap_err().to_string();
        assert!(error.contains("--frames 1421"), "{error}");
    }
}
