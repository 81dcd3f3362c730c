//! From `domain` to the wire. Encoding cannot fail.

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;

use crate::v1;

/// The end of an attempt, with words for people.
pub fn finish(token: LeaseToken, end: AttemptEnd, message: &str) -> v1::FinishRequest {
    v1::FinishRequest {
        lease_token: token.0,
        end: end.label().to_owned(),
        message: message.to_owned(),
    }
}

/// One thing that an attempt has to say.
pub fn event(kind: v1::event::Kind) -> v1::Event {
    v1::Event { kind: Some(kind) }
}
