//! The bearer token that guards gRPC and HTTP when one is configured.
//!
//! It reads no file and knows no request type.

/// Whether an `Authorization` header's value is good for the configured token. Without a
/// configured token everything is.
pub fn is_authorized(expected: Option<&str>, header: Option<&str>) -> bool {
    let Some(expected) = expected else {
        return true;
    };
    let given = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    is_equal_in_constant_time(expected.as_bytes(), given.as_bytes())
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
}
