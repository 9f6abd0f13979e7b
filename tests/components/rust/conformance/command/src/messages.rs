//! What requests and responses are made of.
use checks::{check, gives, same};
use wasip3::http::types::{ErrorCode, Fields, HeaderError};
use wasip3::wit_bindgen::FutureReader;
use wasip3::wit_future;

pub fn no_trailers() -> FutureReader<Result<Option<Fields>, ErrorCode>> {
    wit_future::new(|| Ok(None)).1
}

/// The headers of a message look as they did before, and cannot be changed any more.
pub fn check_frozen(headers: &Fields, before: &Fields) {
    same!(headers.copy_all(), before.copy_all());
    check!(!headers.copy_all().is_empty());
    gives!(headers.set("age", &[b"1".to_vec()]), Err(HeaderError::Immutable));
    gives!(headers.append("age", b"1"), Err(HeaderError::Immutable));
    for (name, _) in before.copy_all() {
        gives!(headers.delete(&name), Err(HeaderError::Immutable));
        gives!(headers.get_and_delete(&name), Err(HeaderError::Immutable));
    }
    same!(headers.copy_all(), before.copy_all());
}

/// The characters of a token (RFC 9110, 5.6.2).
pub fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}
