//! Chance from a seed.

/// The dice of impaired wires, with what tests want to throw beside that.
#[derive(Clone, Debug)]
pub struct Dice(patronus_impair::Dice);

impl Dice {
    /// The same seed throws the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(patronus_impair::Dice::new(seed))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "there is no number below 0");
        (self.next_u64() % end as u64) as usize
    }

    /// A number from 0 to less than 1.
    pub fn fraction(&mut self) -> f64 {
        self.0.fraction()
    }

    /// True with that chance.
    pub fn chance(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.fraction() < chance
    }

    /// Random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }
}
