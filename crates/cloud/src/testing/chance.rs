//! Chance that can be repeated: the same seed, the same story.

use chrono::TimeDelta;

/// A deterministic source of chance (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The source that `seed` stands for.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another source, independent of what is drawn from this one later.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// Whether something happens that happens so often in a thousand times. What never happens costs no draw.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// A span of whole milliseconds, at most `longest`.
    pub fn span(&mut self, longest: TimeDelta) -> TimeDelta {
        match u64::try_from(longest.num_milliseconds()) {
            Ok(millis @ 1..) => TimeDelta::milliseconds(i64::try_from(self.below(millis + 1)).unwrap_or(0)),
            _ => TimeDelta::zero(),
        }
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'o, T>(&mut self, of: &'o [T]) -> &'o T {
        let index = self.below(of.len() as u64);
        &of[usize::try_from(index).expect("an index")]
    }

    /// The next 128 bits: an id.
    pub fn draw_wide(&mut self) -> u128 {
        u128::from(self.draw()) << 64 | u128::from(self.draw())
    }
}
