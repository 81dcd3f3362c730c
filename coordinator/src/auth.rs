//! The token that guards gRPC and HTTP when one is configured: as a bearer of programs, and as the
//! session of a browser that was given it once.
//!
//! It reads no file and knows no request type.

/// What the session's cookie is derived for; another purpose would give another value.
const SESSION_CONTEXT: &str = "gradus 2026-11-24 session of the dashboard";

/// So many characters of a session are part of its cookie's name: browsers do not tell the ports
/// of one host apart, and two coordinators there must not overwrite each other's session.
const NAME_LENGTH: usize = 8;

/// Whether a call may pass: no token is configured, or its `Authorization` header shows the token.
pub fn is_authorized(expected: Option<&str>, header: Option<&str>) -> bool {
    let Some(expected) = expected else {
        return true;
    };
    let given = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    is_token(expected, given)
}

/// Whether a given token is the configured one.
pub fn is_token(expected: &str, given: &str) -> bool {
    is_equal_in_constant_time(expected.as_bytes(), given.as_bytes())
}

/// The cookie, `NAME=VALUE`, that stands for the token in a browser. The token cannot be found from
/// it, and it ends when the token is changed.
pub fn session_cookie(token: &str) -> String {
    let session = blake3::Hash::from(blake3::derive_key(SESSION_CONTEXT, token.as_bytes()));
    let value = session.to_hex();
    format!("gradus_{}={value}", &value[..NAME_LENGTH])
}

/// Whether a `Cookie` header holds the session of the configured token.
pub fn has_session(expected: Option<&str>, header: Option<&str>) -> bool {
    let (Some(expected), Some(header)) = (expected, header) else {
        return false;
    };
    let session = session_cookie(expected);
    header
        .split(';')
        .any(|cookie| is_equal_in_constant_time(cookie.trim().as_bytes(), session.as_bytes()))
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
    fn only_the_configured_token_passes() {
        assert!(is_authorized(None, None));
        assert!(is_authorized(Some("abc"), Some("Bearer abc")));
        assert!(!is_authorized(Some("abc"), Some("Bearer abd")));
        assert!(!is_authorized(Some("abc"), Some("abc")));
        assert!(!is_authorized(Some("abc"), None));
    }

    #[test]
    fn a_session_is_that_of_its_token_among_other_cookies() {
        let cookies = format!("theme=dark; {}; last=1", session_cookie("abc"));
        assert!(has_session(Some("abc"), Some(&cookies)));
        assert!(!has_session(Some("abd"), Some(&cookies)));
        assert!(!has_session(Some("abc"), Some("abc")));
        assert!(!has_session(Some("abc"), None));
        assert!(!session_cookie("abc").contains("abc="));
    }
}
