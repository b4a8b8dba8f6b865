//! The packet path allocates nothing once it is warm. This binary has an allocator that counts.

use patronus_bench::traffic::{Shape, Traffic};
use patronus_bench::world::World;

/// Batches that each direction may take to warm up: lists that grow to the size they keep.
const WARM_BATCHES: usize = 4;
const BATCHES: usize = 50;

#[test]
fn no_batch_allocates_after_warm_up_in_either_direction() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!(
        counted.count_total, 1,
        "the allocator of this binary counts"
    );
    for (shape, flows, sites) in [
        (Shape::Packet(64), 1, 1),
        (Shape::Packet(1420), 100, 1),
        (Shape::Packet(1420), 100, 10),
        (Shape::BULK, 1, 1),
        (Shape::BULK, 10, 10),
    ] {
        let mut world = World::new(Traffic::new(shape, flows, sites as u64), sites, 8).unwrap();
        for _ in 0..WARM_BATCHES {
            world.seal().unwrap();
            world.open().unwrap();
        }
        let sealing = allocation_counter::measure(|| {
            for _ in 0..BATCHES {
                world.seal().unwrap();
            }
        });
        assert_eq!(
            sealing.count_total, 0,
            "sealing {shape}, {flows} flows, {sites} sites"
        );
        let opening = allocation_counter::measure(|| {
            for _ in 0..BATCHES {
                world.open().unwrap();
            }
        });
        assert_eq!(
            opening.count_total, 0,
            "opening {shape}, {flows} flows, {sites} sites"
        );
    }
}
