//! Documents to the token ids of both splits.
//!
//! It does not choose the split (`split`) or the ids (`tokenizer`).

use super::{DataError, SplitRule, TextTokenizer};

/// The tokens of both splits so far.
#[derive(Debug, Default)]
pub struct SplitTokens {
    /// The training split.
    pub training: Vec<u16>,
    /// The validation split.
    pub validation: Vec<u16>,
    /// How many documents were added.
    pub n_documents: u64,
    /// How many blocks they had.
    pub n_blocks: u64,
    /// How many bytes.
    pub n_bytes: u64,
}

impl SplitTokens {
    /// Appends a document.
    ///
    /// Each block is encoded by itself, so no token reaches over a block's end. A stretch of blocks
    /// whose neighbour is in the other split ends like a document, so that no model learns to
    /// continue a text with one that stood elsewhere.
    pub fn add(
        &mut self,
        document: &str,
        rule: SplitRule,
        tokenizer: &TextTokenizer,
    ) -> Result<(), DataError> {
        let mut last_split = None;
        for block in rule.blocks(document) {
            if last_split.is_some_and(|split| split != block.is_held_out) {
                self.split(!block.is_held_out).push(tokenizer.end_of_document());
            }
            tokenizer.encode_into(block.text, self.split(block.is_held_out))?;
            last_split = Some(block.is_held_out);
            self.n_blocks += 1;
        }
        if let Some(split) = last_split {
            self.split(split).push(tokenizer.end_of_document());
        }
        self.n_documents += 1;
        self.n_bytes += document.len() as u64;
        Ok(())
    }

    /// Refuses an empty corpus and an empty split.
    pub fn check(&self, n_files: usize, rule: SplitRule) -> Result<(), DataError> {
        if self.n_bytes == 0 {
            return Err(DataError::Empty { n_files });
        }
        for (split, tokens) in [("training", &self.training), ("validation", &self.validation)] {
            if tokens.is_empty() {
                return Err(DataError::EmptySplit {
                    split,
                    n_blocks: self.n_blocks,
                    validation_fraction: rule.validation_fraction,
                });
            }
        }
        Ok(())
    }

    fn split(&mut self, is_held_out: bool) -> &mut Vec<u16> {
        if is_held_out { &mut self.validation } else { &mut self.training }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::spec::TokenizerSpec;

    #[test]
    fn every_byte_is_in_one_split_and_every_stretch_ends() {
        let rule = SplitRule { validation_fraction: 0.4, seed: 5 };
        let tokenizer = TextTokenizer::train(TokenizerSpec::Byte, std::iter::empty()).unwrap();
        let lines: Vec<_> = (0..4000).map(|line| format!("this is line {line}")).collect();
        let document = lines.join("\n");
        let mut tokens = SplitTokens::default();
        tokens.add(&document, rule, &tokenizer).unwrap();
        let is_end = |id: &u16| *id == tokenizer.end_of_document();
        let stretches: Vec<Vec<u16>> = [&tokens.training, &tokens.validation]
            .into_iter()
            .flat_map(|split| {
                assert!(split.last().is_some_and(is_end));
                split.split(is_end).filter(|s| !s.is_empty()).map(<[u16]>::to_vec)
            })
            .collect();
        let blocks: Vec<_> = rule.blocks(&document).collect();
        let n_stretches =
            1 + blocks.windows(2).filter(|pair| pair[0].is_held_out != pair[1].is_held_out).count();
        assert_eq!(stretches.len(), n_stretches);
        assert_eq!(stretches.iter().map(Vec::len).sum::<usize>(), document.len());
        for stretch in stretches {
            let text =
                String::from_utf8(stretch.iter().map(|id| u8::try_from(*id).unwrap()).collect())
                    .unwrap();
            assert!(document.contains(&text));
        }
    }

    #[test]
    fn a_text_of_one_block_cannot_be_split() {
        let rule = SplitRule { validation_fraction: 0.05, seed: 0 };
        let tokenizer = TextTokenizer::train(TokenizerSpec::Byte, std::iter::empty()).unwrap();
        let mut tokens = SplitTokens::default();
        assert!(matches!(tokens.check(2, rule), Err(DataError::Empty { n_files: 2 })));
        tokens.add("short", rule, &tokenizer).unwrap();
        let error = tokens.check(2, rule).unwrap_err();
        assert!(matches!(error, DataError::EmptySplit { split: "validation", n_blocks: 1, .. }));
    }
}
