//! Text to token ids: bytes, or byte-level byte-pair encoding trained on the training split.
//!
//! Both are written as a Hugging Face `tokenizer.json`. It does not decide what is trained on.

use domain::spec::TokenizerSpec;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer, TokenizerImpl,
};

use super::DataError;

/// What ends a document, or a stretch of one whose neighbour is in the other split.
pub const END_OF_DOCUMENT: &str = "<|end_of_document|>";

/// A pair must be there at least so often to become a token.
const SMALLEST_FREQUENCY: u64 = 2;

/// A tokenizer whose model is known to be one that `BpeTrainer` trains.
type TypedTokenizer = TokenizerImpl<
    BPE,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// A tokenizer that is ready to encode.
#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    end_of_document: u16,
    is_byte: bool,
}

impl TextTokenizer {
    /// The tokenizer of a specification. `training_text` is only read where there is something to
    /// train.
    ///
    /// The result depends on the text alone: words are counted in one thread, and merges of equal
    /// count are taken in the order of their token ids.
    pub fn train(
        spec: TokenizerSpec,
        training_text: impl Iterator<Item = String> + Send,
    ) -> Result<Self, DataError> {
        match spec {
            TokenizerSpec::Byte => Self::byte(),
            TokenizerSpec::Bpe { vocab_size } => Self::bpe(vocab_size, training_text),
        }
    }

    /// Token b is byte b; token 256 ends a document.
    fn byte() -> Result<Self, DataError> {
        let bpe = BPE::builder()
            .vocab_and_merges(letters_of_bytes(), vec![])
            .build()
            .map_err(|error| failed("build", &error))?;
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.with_pre_tokenizer(Some(byte_level()));
        tokenizer
            .add_special_tokens([end_of_document()])
            .map_err(|error| failed("build", &error))?;
        Self::new(tokenizer, true)
    }

    fn bpe(
        vocab_size: u32,
        training_text: impl Iterator<Item = String> + Send,
    ) -> Result<Self, DataError> {
        // Token ids must not depend on how many cores there are.
        set_parallelism(false);
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocab_size as usize)
            .min_frequency(SMALLEST_FREQUENCY)
            .special_tokens(vec![end_of_document()])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut typed = TypedTokenizer::new(BPE::default());
        typed.with_pre_tokenizer(Some(byte_level()));
        typed.train(&mut trainer, training_text).map_err(|error| failed("train", &error))?;
        Self::new(typed.into(), false)
    }

    fn new(mut tokenizer: Tokenizer, is_byte: bool) -> Result<Self, DataError> {
        tokenizer.with_decoder(Some(byte_level()));
        // Without this a text that spells the special token would become it.
        tokenizer.set_encode_special_tokens(true);
        let id = tokenizer.token_to_id(END_OF_DOCUMENT).and_then(|id| u16::try_from(id).ok());
        let end_of_document = id.ok_or_else(|| DataError::Tokenizer {
            operation: "build",
            reason: format!("`{END_OF_DOCUMENT}` has no 16-bit id"),
        })?;
        Ok(Self { tokenizer, end_of_document, is_byte })
    }

    /// The token that ends a document.
    pub fn end_of_document(&self) -> u16 {
        self.end_of_document
    }

    /// How many tokens there are; fewer than asked for when the text has no more pairs to merge.
    pub fn n_tokens(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Appends the ids of a text. A document's own `<|end_of_document|>` is plain text.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u16>) -> Result<(), DataError> {
        if self.is_byte {
            ids.extend(text.bytes().map(u16::from));
            return Ok(());
        }
        let encoding =
            self.tokenizer.encode_fast(text, false).map_err(|error| failed("use", &error))?;
        for &id in encoding.get_ids() {
            let id = u16::try_from(id).map_err(|_| DataError::Tokenizer {
                operation: "use",
                reason: format!("the token id {id} needs more than 16 bits"),
            })?;
            ids.push(id);
        }
        Ok(())
    }

    /// The Hugging Face `tokenizer.json`.
    pub fn to_json(&self) -> Result<Vec<u8>, DataError> {
        let text = self.tokenizer.to_string(true).map_err(|error| failed("write", &error))?;
        Ok(text.into_bytes())
    }
}

/// No space is added before a text, and words are cut by GPT-2's expression.
fn byte_level() -> ByteLevel {
    ByteLevel::new(false, false, true)
}

fn end_of_document() -> AddedToken {
    AddedToken::from(END_OF_DOCUMENT, true)
}

fn failed(operation: &'static str, error: &tokenizers::Error) -> DataError {
    DataError::Tokenizer { operation, reason: error.to_string() }
}

/// The printable letter that byte-level tokenizers write for each byte (GPT-2's table): printable
/// Latin-1 stands for itself, the others follow from U+0100 in their order.
fn letters_of_bytes() -> [(String, u32); 256] {
    let is_printable = |code: u32| matches!(code, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = u32::try_from(byte).expect("there are 256 bytes");
        let code = if is_printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        let letter = char::from_u32(code).expect("all codes up to U+0143 are letters");
        (letter.to_string(), byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "the cat sat on the mat, and the other cat sat on the other mat;\n";

    fn trained(vocab_size: u32, texts: &[&str]) -> TextTokenizer {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        TextTokenizer::train(TokenizerSpec::Bpe { vocab_size }, texts.into_iter()).unwrap()
    }

    fn encode(tokenizer: &TextTokenizer, text: &str) -> Vec<u16> {
        let mut ids = Vec::new();
        tokenizer.encode_into(text, &mut ids).unwrap();
        ids
    }

    fn decode(tokenizer: &TextTokenizer, ids: &[u16]) -> String {
        let ids: Vec<u32> = ids.iter().map(|id| u32::from(*id)).collect();
        let read = Tokenizer::from_bytes(tokenizer.to_json().unwrap()).unwrap();
        read.decode(&ids, false).unwrap()
    }

    #[test]
    fn bytes_are_their_own_ids_and_the_written_tokenizer_agrees() {
        let tokenizer = TextTokenizer::train(TokenizerSpec::Byte, std::iter::empty()).unwrap();
        assert_eq!(tokenizer.n_tokens(), 257);
        assert_eq!(tokenizer.end_of_document(), 256);
        let text = "Aé\n \u{7f}\u{ad}";
        let ids = encode(&tokenizer, text);
        assert_eq!(ids, text.bytes().map(u16::from).collect::<Vec<_>>());
        assert_eq!(decode(&tokenizer, &ids), text);
        let slow = tokenizer.tokenizer.encode_fast(text, false).unwrap();
        assert_eq!(slow.get_ids(), ids.iter().map(|id| u32::from(*id)).collect::<Vec<_>>());
    }

    #[test]
    fn pairs_make_the_text_shorter_and_come_back() {
        let tokenizer = trained(300, &[TEXT; 20]);
        assert!(tokenizer.n_tokens() <= 300 && tokenizer.n_tokens() > 257);
        let ids = encode(&tokenizer, TEXT);
        assert!(ids.len() * 2 < TEXT.len(), "{}", ids.len());
        assert_eq!(decode(&tokenizer, &ids), TEXT);
        let other = "Ω is unseen\t\u{1f600}";
        assert_eq!(decode(&tokenizer, &encode(&tokenizer, other)), other);
    }

    #[test]
    fn the_same_text_gives_the_same_bytes() {
        let bytes = |texts: &[&str]| trained(400, texts).to_json().unwrap();
        let texts = [TEXT, "some other text, some other words\n", TEXT];
        let first = bytes(&texts);
        // Each training hashes its words with another seed.
        for _ in 0..5 {
            assert_eq!(bytes(&texts), first);
        }
        assert_ne!(bytes(&["quite another text, quite another text"]), first);
    }

    #[test]
    fn a_text_that_spells_the_end_of_a_document_does_not_end_one() {
        let tokenizer = trained(300, &[TEXT]);
        assert_eq!(tokenizer.end_of_document(), 0);
        assert!(!encode(&tokenizer, END_OF_DOCUMENT).contains(&0));
        assert_eq!(tokenizer.tokenizer.token_to_id(END_OF_DOCUMENT), Some(0));
    }
}
