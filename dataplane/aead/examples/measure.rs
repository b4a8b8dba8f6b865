//! Nanoseconds per packet of every backend, one beside the other: `cargo run --release -p patronus-aead --example measure`.

use std::hint::black_box;
use std::time::Instant;

use patronus_aead::{Backend, Key, TAG_LEN};

const SIZES: [usize; 12] = [0, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 1424, 8192];
const PACKETS: usize = 64;
const TRIALS: usize = 41;
const TRIAL_BYTES: usize = 1 << 19;

/// Every backend's median for sealing and opening packets of one size.
fn main() {
    let backends: Vec<Backend> = Backend::available().collect();
    for backend in &backends {
        print!(
            "{:>8}{:>16}{:>16}",
            "bytes",
            format!("{backend} seal ns"),
            format!("{backend} open ns")
        );
    }
    println!();
    for size in SIZES {
        let mut cases: Vec<Case> = backends
            .iter()
            .map(|backend| Case::new(*backend, size))
            .collect();
        let mut times = vec![(Vec::new(), Vec::new()); cases.len()];
        for _ in 0..TRIALS {
            for (case, (seal, open)) in cases.iter_mut().zip(&mut times) {
                seal.push(case.seal_ns());
                open.push(case.open_ns());
            }
        }
        for (seal, open) in &mut times {
            print!("{size:>8}{:>16.1}{:>16.1}", median(seal), median(open));
        }
        println!();
    }
}

/// A key, and packets that lie one behind the other as in a superpacket.
struct Case {
    key: Key,
    size: usize,
    rounds: usize,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

impl Case {
    fn new(backend: Backend, size: usize) -> Case {
        let bytes = size * PACKETS;
        Case {
            key: Key::with_backend(&[7; 32], backend).expect("it is available"),
            size,
            rounds: (TRIAL_BYTES / (bytes + 64 * PACKETS)).max(1),
            plain: (0..bytes).map(|i| i as u8).collect(),
            sealed: vec![0; bytes + PACKETS * TAG_LEN],
            opened: vec![0; size],
        }
    }

    fn seal_ns(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..self.rounds {
            let slots = self.sealed.chunks_exact_mut(self.size + TAG_LEN);
            for (i, slot) in slots.enumerate() {
                let packet = &self.plain[i * self.size..][..self.size];
                self.key
                    .seal_to(i as u64, black_box(packet), black_box(slot));
            }
        }
        per_packet(start, self.rounds)
    }

    fn open_ns(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..self.rounds {
            for (i, packet) in self.sealed.chunks_exact(self.size + TAG_LEN).enumerate() {
                let opened = self
                    .key
                    .open_to(i as u64, black_box(packet), &mut self.opened);
                black_box(opened).expect("it was sealed just before");
            }
        }
        per_packet(start, self.rounds)
    }
}

fn per_packet(start: Instant, rounds: usize) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / (rounds * PACKETS) as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
