//! Documents out of corpus files, one at a time, in the configuration's order.
//!
//! It does not split or tokenize them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use domain::spec::CorpusFormat;
use serde_json::Value;

use super::DataError;

/// One file of a corpus.
#[derive(Debug, Clone)]
pub struct CorpusFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What messages call it.
    pub name: String,
    /// How it holds its documents.
    pub format: CorpusFormat,
    /// The field with the text, for `jsonl`.
    pub text_field: String,
}

/// All files, in the configuration's order.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The files.
    pub files: Vec<CorpusFile>,
}

impl Corpus {
    /// The documents in order, empty ones left out; at most one file's text is in memory. After an
    /// error there is nothing more.
    pub fn documents(&self) -> Box<dyn Iterator<Item = Result<String, DataError>> + Send + '_> {
        let documents = self.files.iter().flat_map(CorpusFile::documents);
        Box::new(documents.filter(|document| !matches!(document, Ok(text) if text.is_empty())))
    }
}

impl CorpusFile {
    fn documents(&self) -> Box<dyn Iterator<Item = Result<String, DataError>> + Send + '_> {
        match self.format {
            CorpusFormat::Text => Box::new(std::iter::once(self.text())),
            CorpusFormat::Jsonl => match File::open(&self.path) {
                Ok(file) => Box::new(self.lines(BufReader::new(file))),
                Err(source) => Box::new(std::iter::once(Err(read_error(&self.path, source)))),
            },
        }
    }

    fn text(&self) -> Result<String, DataError> {
        let bytes = std::fs::read(&self.path).map_err(|source| read_error(&self.path, source))?;
        String::from_utf8(bytes).map_err(|error| DataError::NotUtf8 {
            file: self.name.clone(),
            position: error.utf8_error().valid_up_to(),
        })
    }

    fn lines<'a>(
        &'a self,
        reader: impl BufRead + Send + 'a,
    ) -> impl Iterator<Item = Result<String, DataError>> + Send + 'a {
        // Split at bytes: `lines` would not say where the text stops being UTF-8.
        let mut position = 0;
        let mut is_broken = false;
        reader.split(b'\n').enumerate().filter_map(move |(index, line)| {
            if is_broken {
                return None;
            }
            let document = line
                .map_err(|source| read_error(&self.path, source))
                .and_then(|line| self.line(index + 1, &mut position, &line))
                .transpose()?;
            is_broken = document.is_err();
            Some(document)
        })
    }

    /// The document in a line; nothing for an empty line.
    fn line(
        &self,
        number: usize,
        position: &mut usize,
        line: &[u8],
    ) -> Result<Option<String>, DataError> {
        let file = || self.name.clone();
        let text = std::str::from_utf8(line).map_err(|error| DataError::NotUtf8 {
            file: file(),
            position: *position + error.valid_up_to(),
        })?;
        *position += line.len() + 1;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let object: serde_json::Map<String, Value> = serde_json::from_str(text)
            .map_err(|source| DataError::BadLine { file: file(), line: number, source })?;
        match object.get(&self.text_field) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            _ => Err(DataError::NoText {
                file: file(),
                line: number,
                field: self.text_field.clone(),
            }),
        }
    }
}

fn read_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(format: CorpusFormat, content: &[u8]) -> Vec<Result<String, String>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, content).unwrap();
        let file = CorpusFile { path, name: "file 1".into(), format, text_field: "text".into() };
        let corpus = Corpus { files: vec![file] };
        corpus.documents().map(|document| document.map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn a_text_file_is_one_document_and_an_empty_one_is_none() {
        assert_eq!(documents(CorpusFormat::Text, "é\nb".as_bytes()), [Ok("é\nb".to_owned())]);
        assert!(documents(CorpusFormat::Text, b"").is_empty());
    }

    #[test]
    fn a_file_that_is_not_utf8_is_named_with_the_byte() {
        let expected = "file 1 is not UTF-8: the first bad byte is byte 2".to_owned();
        assert_eq!(documents(CorpusFormat::Text, b"ab\xffc"), [Err(expected)]);
        let content = b"{\"text\": \"a\"}\n{\xff\n";
        let expected = "file 1 is not UTF-8: the first bad byte is byte 15".to_owned();
        assert_eq!(documents(CorpusFormat::Jsonl, content)[1], Err(expected));
    }

    #[test]
    fn every_line_of_jsonl_is_a_document() {
        let content = b"{\"text\": \"one\\ntwo\"}\r\n\n{\"id\": 1, \"text\": \"three\"}";
        let expected = [Ok("one\ntwo".to_owned()), Ok("three".to_owned())];
        assert_eq!(documents(CorpusFormat::Jsonl, content), expected);
    }

    #[test]
    fn a_line_without_the_field_is_named_and_ends_the_corpus() {
        let content = b"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n{\"text\": \"c\"}\n";
        let found = documents(CorpusFormat::Jsonl, content);
        let expected = "file 1, line 2: there is no text in the field `text`".to_owned();
        assert_eq!(found, [Ok("a".to_owned()), Err(expected)]);
        let found = documents(CorpusFormat::Jsonl, b"[1]\n");
        assert_eq!(found, [Err("file 1, line 1: not a JSON object".to_owned())]);
    }
}
