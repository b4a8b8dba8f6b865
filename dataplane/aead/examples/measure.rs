//! Nanoseconds per packet of every backend, one beside the other: `cargo run --release -p patronus-aead --example measure`.

use std::hint::black_box;
use std::time::Instant;

use patronus_aead::{Backend, Key, Opening, Sealing, TAG_LEN};

const SIZES: [usize; 12] = [0, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 1424, 8192];
const PACKETS: usize = 64;
const BATCH: usize = 8;
const TRIALS: usize = 41;
const TRIAL_BYTES: usize = 1 << 19;

/// Every backend in every way, for packets of one size after the other.
fn main() {
    let backends: Vec<Backend> = Backend::available().collect();
    print!("{:>6}", "bytes");
    for backend in &backends {
        for (name, _) in WAYS {
            print!("{:>20}", format!("{backend} {name}"));
        }
    }
    println!("   median (least) ns per packet");
    for size in SIZES {
        let mut cases: Vec<Case> = backends
            .iter()
            .flat_map(|backend| WAYS.map(|(_, way)| Case::new(*backend, size, way)))
            .collect();
        for _ in 0..TRIALS {
            for case in &mut cases {
                case.trial();
            }
        }
        print!("{size:>6}");
        for case in &mut cases {
            let (least, median) = case.least_and_median();
            print!("{:>20}", format!("{median:.0} ({least:.0})"));
        }
        println!();
    }
}

/// What is measured: once over [`PACKETS`] packets.
type Way = fn(&mut Case);

const WAYS: [(&str, Way); 4] = [
    ("seal", Case::seal),
    ("open", Case::open),
    ("seal batch", Case::seal_batch),
    ("open batch", Case::open_batch),
];

/// A key, and packets that lie one behind the other as in a superpacket.
struct Case {
    key: Key,
    size: usize,
    rounds: usize,
    way: Way,
    times_ns: Vec<f64>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

impl Case {
    fn new(backend: Backend, size: usize, way: Way) -> Case {
        let bytes = size * PACKETS;
        let mut case = Case {
            key: Key::with_backend(&[7; 32], backend).expect("it is available"),
            size,
            rounds: (TRIAL_BYTES / (bytes + 128 * PACKETS)).max(1),
            way,
            times_ns: Vec::new(),
            plain: (0..bytes).map(|i| i as u8).collect(),
            sealed: vec![0; bytes + PACKETS * TAG_LEN],
            opened: vec![0; bytes.max(1)],
        };
        case.seal();
        case
    }

    fn trial(&mut self) {
        let start = Instant::now();
        for _ in 0..self.rounds {
            (self.way)(self);
        }
        let packets = (self.rounds * PACKETS) as f64;
        self.times_ns
            .push(start.elapsed().as_secs_f64() * 1e9 / packets);
    }

    /// The least is what a busy neighbour disturbs least.
    fn least_and_median(&mut self) -> (f64, f64) {
        self.times_ns.sort_by(f64::total_cmp);
        (self.times_ns[0], self.times_ns[self.times_ns.len() / 2])
    }

    fn seal(&mut self) {
        let slots = self.sealed.chunks_exact_mut(self.size + TAG_LEN);
        for (i, slot) in slots.enumerate() {
            let packet = &self.plain[i * self.size..][..self.size];
            self.key
                .seal_to(i as u64, black_box(packet), black_box(slot));
        }
    }

    fn open(&mut self) {
        for (i, packet) in self.sealed.chunks_exact(self.size + TAG_LEN).enumerate() {
            let room = &mut self.opened[i * self.size..][..self.size];
            let opened = self.key.open_to(i as u64, black_box(packet), room);
            black_box(opened).expect("it was sealed before");
        }
    }

    fn seal_batch(&mut self) {
        let mut slots = self
            .sealed
            .chunks_exact_mut(self.size + TAG_LEN)
            .enumerate();
        for _ in 0..PACKETS / BATCH {
            let mut batch: [_; BATCH] = core::array::from_fn(|_| {
                let (i, slot) = slots.next().expect("batches fill the packets");
                let packet = &self.plain[i * self.size..][..self.size];
                Sealing::new(i as u64, black_box(packet), self.size, black_box(slot))
            });
            self.key.seal_batch(&mut batch);
        }
    }

    fn open_batch(&mut self) {
        let mut packets = self.sealed.chunks_exact(self.size + TAG_LEN).enumerate();
        let mut room = &mut self.opened[..];
        for _ in 0..PACKETS / BATCH {
            let mut batch: [_; BATCH] = core::array::from_fn(|_| {
                let (i, packet) = packets.next().expect("batches fill the packets");
                let (dst, after) = std::mem::take(&mut room).split_at_mut(self.size);
                room = after;
                Opening::new(i as u64, black_box(packet), dst).expect("it has a tag")
            });
            self.key.open_batch(&mut batch);
            for packet in &batch {
                black_box(packet.opened()).expect("it was sealed before");
            }
        }
    }
}
