//! The tokens that guard gRPC and HTTP when there are any: as a bearer of programs, and as the session
//! of a browser that was given one once. Whose token it is says who asks.
//!
//! It reads no file and knows no request type.

use domain::tokens::{Token, Tokens};

/// What the session's cookie is derived for; another purpose would give another value.
const SESSION_CONTEXT: &str = "gradus 2026-11-24 session of the dashboard";

/// So many characters of a session are part of its cookie's name: browsers do not tell the ports
/// of one host apart, and two coordinators there must not overwrite each other's session.
const NAME_LENGTH: usize = 8;

/// Who may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The owner of a token that has a name.
    Named(String),
    /// Somebody with the shared token, or anybody where there is none.
    Unnamed,
}

impl Caller {
    fn of(token: &Token) -> Self {
        token.name.clone().map_or(Self::Unnamed, Self::Named)
    }
}

/// Who shows this `Authorization` header; nobody when tokens are asked for and it shows none of them.
pub fn bearer(tokens: Option<&Tokens>, header: Option<&str>) -> Option<Caller> {
    let Some(tokens) = tokens else { return Some(Caller::Unnamed) };
    let given = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    token_shown(tokens, given).map(Caller::of)
}

/// The token that this text is. The time it takes says nothing about the secrets.
pub fn token_shown<'a>(tokens: &'a Tokens, given: &str) -> Option<&'a Token> {
    let is_shown =
        |token: &&Token| is_equal_in_constant_time(token.secret.as_bytes(), given.as_bytes());
    // All are compared, so that the time does not show which one it is.
    tokens
        .all()
        .iter()
        .fold(None, |found, token| if is_shown(&token) { Some(token) } else { found })
}

/// The cookie, `NAME=VALUE`, that stands for a token in a browser. The token cannot be found from
/// it, and it ends when the token is changed.
pub fn session_cookie(secret: &str) -> String {
    let session = blake3::Hash::from(blake3::derive_key(SESSION_CONTEXT, secret.as_bytes()));
    let value = session.to_hex();
    format!("gradus_{}={value}", &value[..NAME_LENGTH])
}

/// Whose session a `Cookie` header holds.
pub fn session(tokens: Option<&Tokens>, header: Option<&str>) -> Option<Caller> {
    let header = header?;
    let is_held = |token: &&Token| {
        let session = session_cookie(&token.secret);
        let is_it =
            |cookie: &str| is_equal_in_constant_time(cookie.trim().as_bytes(), session.as_bytes());
        header.split(';').any(is_it)
    };
    tokens?.all().iter().find(is_held).map(Caller::of)
}

/// Compares hashes, so that the time says nothing about the first wrong byte.
fn is_equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    // `blake3::Hash` compares in constant time.
    blake3::hash(a) == blake3::hash(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_configured_token_passes_and_says_who_asks() {
        assert_eq!(bearer(None, None), Some(Caller::Unnamed));
        let shared = Tokens::shared("abc");
        let shown = |header| bearer(Some(&shared), header);
        assert_eq!(shown(Some("Bearer abc")), Some(Caller::Unnamed));
        assert_eq!(shown(Some("Bearer abd")), None);
        assert_eq!(shown(Some("abc")), None);
        assert_eq!(shown(None), None);
        let named = Tokens::parse("ada one\nbob two").unwrap();
        let shown = |header| bearer(Some(&named), Some(header));
        assert_eq!(shown("Bearer one"), Some(Caller::Named("ada".into())));
        assert_eq!(shown("Bearer two"), Some(Caller::Named("bob".into())));
        assert_eq!(shown("Bearer ada"), None);
    }

    #[test]
    fn a_session_is_that_of_its_token_among_other_cookies() {
        let named = Tokens::parse("ada one\nbob two").unwrap();
        let cookies = format!("theme=dark; {}; last=1", session_cookie("two"));
        assert_eq!(session(Some(&named), Some(&cookies)), Some(Caller::Named("bob".into())));
        assert_eq!(session(Some(&Tokens::shared("abd")), Some(&cookies)), None);
        assert_eq!(session(Some(&named), Some("two")), None);
        assert_eq!(session(Some(&named), None), None);
        assert!(!session_cookie("abc").contains("abc="));
    }
}
