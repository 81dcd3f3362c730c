//! Which part of a document is held out for validation.
//!
//! The rule, version 1 (`domain::recipe::PREPARATION_VERSION`):
//!
//! 1. A document is cut into blocks. A block ends at the first line end at or after its byte 4096;
//!    without one before byte 16384 it ends there, at the character's boundary before.
//! 2. With h the first eight bytes (little endian) of BLAKE3 over the seed (u32, little endian), the
//!    BLAKE3 hash of the document and the number of the block in it (u64, little endian), the block
//!    is held out if h / 2⁶⁴ is below the validation fraction.
//!
//! So no block is in both splits, a document that is there twice is split the same way twice, and
//! neither the order of the documents nor the other documents matter.
//! It does not know tokens.

use domain::recipe::PreparationConfig;

/// A block ends at the first line end from here on.
const BLOCK_BYTES: usize = 4096;
/// A block without a line end ends here.
const LONGEST_BLOCK_BYTES: usize = 4 * BLOCK_BYTES;

/// The rule with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitRule {
    /// The share of the blocks that is held out.
    pub validation_fraction: f64,
    /// Which ones.
    pub seed: u32,
}

/// A block of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its text, line end included.
    pub text: &'a str,
    /// Whether it belongs to the validation split.
    pub is_held_out: bool,
}

impl SplitRule {
    /// The rule of a preparation.
    pub fn of(config: &PreparationConfig) -> Self {
        Self { validation_fraction: config.validation_fraction, seed: config.seed }
    }

    /// The blocks of a document in order; together they are the document.
    pub fn blocks(self, document: &str) -> impl Iterator<Item = Block<'_>> {
        let document_hash = blake3::hash(document.as_bytes());
        let mut rest = document;
        let mut index: u64 = 0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (text, after) = rest.split_at(block_length(rest));
            let is_held_out = self.is_held_out(&document_hash, index);
            (rest, index) = (after, index + 1);
            Some(Block { text, is_held_out })
        })
    }

    fn is_held_out(self, document_hash: &blake3::Hash, index: u64) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(document_hash.as_bytes());
        hasher.update(&index.to_le_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        (u64::from_le_bytes(first) as f64) < self.validation_fraction * 2_f64.powi(64)
    }
}

/// The length in bytes of the block that a text begins with.
fn block_length(text: &str) -> usize {
    if text.len() <= BLOCK_BYTES {
        return text.len();
    }
    let end = text.len().min(LONGEST_BLOCK_BYTES);
    let line_end = text.as_bytes()[BLOCK_BYTES - 1..end].iter().position(|byte| *byte == b'\n');
    line_end.map_or_else(|| text.floor_char_boundary(end), |position| BLOCK_BYTES + position)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: SplitRule = SplitRule { validation_fraction: 0.1, seed: 7 };

    fn text(n_lines: usize) -> String {
        let line = |line| format!("line {line} of a text that is long enough");
        (0..n_lines).map(line).collect::<Vec<_>>().join("\n") + "\n"
    }

    #[test]
    fn the_blocks_are_the_document_and_end_at_line_ends() {
        let text = text(5000);
        let blocks: Vec<_> = RULE.blocks(&text).collect();
        assert_eq!(blocks.iter().map(|block| block.text).collect::<String>(), text);
        assert!(blocks.iter().all(|block| block.text.ends_with('\n')));
        let (_, whole) = blocks.split_last().unwrap();
        assert!(whole.iter().all(|block| (4096..4200).contains(&block.text.len())));
    }

    #[test]
    fn a_line_without_end_is_cut_between_characters() {
        let text = "é".repeat(20_000);
        let lengths: Vec<_> = RULE.blocks(&text).map(|block| block.text.len()).collect();
        assert_eq!(lengths, [16_384, 16_384, 7232]);
        let text = format!("a{text}");
        assert_eq!(RULE.blocks(&text).next().unwrap().text.len(), 16_383);
    }

    #[test]
    fn about_the_asked_share_is_held_out_and_the_seed_decides_which() {
        let text = text(100_000);
        let held_out = |seed| -> Vec<bool> {
            let rule = SplitRule { seed, ..RULE };
            rule.blocks(&text).map(|block| block.is_held_out).collect()
        };
        let first = held_out(7);
        let share = first.iter().filter(|held| **held).count() as f64 / first.len() as f64;
        // Four standard errors of a share of 0.1 over a thousand blocks.
        assert!((share - 0.1).abs() < 0.038, "{share}");
        assert_eq!(first, held_out(7));
        assert_ne!(first, held_out(8));
    }

    #[test]
    fn a_document_that_is_there_twice_is_split_the_same_way() {
        let text = text(1000);
        let copy = text.clone();
        assert!(RULE.blocks(&text).eq(RULE.blocks(&copy)));
    }
}
