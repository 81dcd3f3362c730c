//! The file of bearer tokens: who may ask a coordinator, and under which name.
//!
//! One token alone is shared by everybody. Lines of `NAME TOKEN` give each user a token of his own, so
//! that what he does is known to be his.

/// What a token file says. It holds one token at least.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// A token, and whose it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The user; none when it is shared.
    pub name: Option<String>,
    /// The secret: visible ASCII without spaces.
    pub secret: String,
}

/// Why a text is no token file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// An empty token would let everybody in.
    #[error("holds no token")]
    Empty,
    /// More words than a name and a token.
    #[error("has {n_words} words in line {line}; expected `TOKEN`, or `NAME TOKEN` in each line")]
    Words {
        /// The line, from 1.
        line: usize,
        /// What was found there.
        n_words: usize,
    },
    /// A shared token among others would hide who asks.
    #[error("has a token without a name in line {line}, among several: expected `NAME TOKEN`")]
    Nameless {
        /// The line, from 1.
        line: usize,
    },
    /// It becomes the value of a header.
    #[error("has a token with other than visible ASCII characters in line {line}")]
    Characters {
        /// The line, from 1.
        line: usize,
    },
    /// A user's name is shown, and part of addresses.
    #[error(
        "has the name `{name}` in line {line}; letters, digits, `.`, `_`, `-` and `@`, 64 at most"
    )]
    Name {
        /// The line, from 1.
        line: usize,
        /// As found.
        name: String,
    },
    /// Two tokens that cannot be told apart.
    #[error("has the token or the name of line {line} twice")]
    Twice {
        /// The later line, from 1.
        line: usize,
    },
    /// A program shows one token.
    #[error("holds {n} tokens, and this program needs its own alone: a file with one `TOKEN` line")]
    Several {
        /// So many.
        n: usize,
    },
}

/// Whether a text can be a user's name.
pub fn is_user_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed)
}

impl Tokens {
    /// Reads a token file. Empty lines and those that begin with `#` say nothing.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let said = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let lines: Vec<(usize, &str)> =
            (1..).zip(text.lines()).filter(|(_, line)| said(line)).collect();
        let mut tokens: Vec<Token> = Vec::new();
        for (line, content) in &lines {
            let token = parse_line(*line, content)?;
            if token.name.is_none() && lines.len() > 1 {
                return Err(TokensError::Nameless { line: *line });
            }
            if tokens.iter().any(|t| t.secret == token.secret || t.name == token.name) {
                return Err(TokensError::Twice { line: *line });
            }
            tokens.push(token);
        }
        if tokens.is_empty() { Err(TokensError::Empty) } else { Ok(Self(tokens)) }
    }

    /// One token for everybody.
    pub fn shared(secret: &str) -> Self {
        Self(vec![Token { name: None, secret: secret.to_owned() }])
    }

    /// All of them.
    pub fn all(&self) -> &[Token] {
        &self.0
    }

    /// The one that a program shows, whoever's it is.
    pub fn only(self) -> Result<String, TokensError> {
        match <[Token; 1]>::try_from(self.0) {
            Ok([token]) => Ok(token.secret),
            Err(tokens) => Err(TokensError::Several { n: tokens.len() }),
        }
    }
}

fn parse_line(line: usize, content: &str) -> Result<Token, TokensError> {
    let words: Vec<&str> = content.split_whitespace().collect();
    let (name, secret) = match words[..] {
        [secret] => (None, secret),
        [name, secret] => (Some(name), secret),
        _ => return Err(TokensError::Words { line, n_words: words.len() }),
    };
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokensError::Characters { line });
    }
    match name {
        Some(name) if !is_user_name(name) => Err(TokensError::Name { line, name: name.to_owned() }),
        _ => Ok(Token { name: name.map(str::to_owned), secret: secret.to_owned() }),
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

/// Secrets are not printed.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_is_shared_and_several_have_names() {
        assert_eq!(Tokens::parse("secret\n"), Ok(Tokens::shared("secret")));
        let tokens = Tokens::parse("# who\nada s3cret\n\n  bob  other  \n").unwrap();
        let named: Vec<_> =
            tokens.all().iter().map(|t| (t.name.as_deref(), t.secret.as_str())).collect();
        assert_eq!(named, [(Some("ada"), "s3cret"), (Some("bob"), "other")]);
        assert_eq!(tokens.only(), Err(TokensError::Several { n: 2 }));
        assert_eq!(Tokens::parse("ada s3cret").unwrap().only(), Ok("s3cret".to_owned()));
    }

    #[test]
    fn what_is_no_token_file_says_where() {
        for (text, error) in [
            ("", TokensError::Empty),
            ("# nothing\n", TokensError::Empty),
            ("a b c", TokensError::Words { line: 1, n_words: 3 }),
            ("ada one\ntwo", TokensError::Nameless { line: 2 }),
            ("ada one\nada two", TokensError::Twice { line: 2 }),
            ("ada one\nbob one", TokensError::Twice { line: 2 }),
            ("s\u{e9}cret", TokensError::Characters { line: 1 }),
            ("a/b one", TokensError::Name { line: 1, name: "a/b".into() }),
        ] {
            assert_eq!(Tokens::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", Tokens::parse("ada hunter2").unwrap());
        assert!(printed.contains("ada") && !printed.contains("hunter2"));
    }
}
