//! Headers keep what they are given, in order and by names in which case does not count, unless a name or a value
//! is none, or the name is the host's to set.
use checks::{check, failed, gives, ok, same};
use wasip3::http::types::{Fields, HeaderError};

use crate::messages::is_token;

/// The host's: what a connection is, and how a message is sent on it.
const FORBIDDEN: [&str; 9] = [
    "connection",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];
const NOTHING: [Vec<u8>; 0] = [];

fn values<const N: usize>(texts: [&str; N]) -> [Vec<u8>; N] {
    texts.map(|text| text.as_bytes().to_vec())
}

fn of_one(name: &str, value: &[u8]) -> Result<Fields, HeaderError> {
    Fields::from_list(&[(name.to_string(), value.to_vec())])
}

fn without_any(fields: &Fields) {
    check!(!fields.has("name"));
    same!(fields.get("name"), NOTHING);
    same!(ok!(fields.get_and_delete("name")), NOTHING);
    ok!(fields.delete("name"));
    ok!(fields.delete("another"));
    same!(fields.copy_all().len(), 0);
}

fn with_one(fields: &Fields) {
    check!(fields.has("name"));
    same!(fields.get("name"), values(["one"]));
    ok!(fields.delete("name"));
    check!(!fields.has("name"));
    ok!(fields.set("name", &[]));
    check!(!fields.has("name"));
    same!(fields.get("name"), NOTHING);

    let by_setting = || ok!(fields.set("name", &values(["one", "two"])));
    let by_appending = || {
        ok!(fields.append("name", b"one"));
        ok!(fields.append("name", b"two"));
    };
    let ways: [&dyn Fn(); 3] = [&by_setting, &by_setting, &by_appending];
    for give in ways {
        give();
        check!(fields.has("name"));
        same!(fields.get("name"), values(["one", "two"]));
        same!(ok!(fields.get_and_delete("name")), values(["one", "two"]));
        same!(ok!(fields.get_and_delete("name")), NOTHING);
        check!(!fields.has("name"));
    }
}

/// What is tried with a name or a value: the calls that are refused as they must be.
fn refuses(name: &str, value: &[u8], by: fn(&HeaderError) -> bool) -> bool {
    let fields = Fields::new();
    let tried = [fields.set(name, &[value.to_vec()]), fields.append(name, value), of_one(name, value).map(|_| ())];
    tried.iter().all(|result| result.as_ref().is_err_and(by)) && fields.copy_all().is_empty()
}

fn no_name(name: &str) {
    let fields = Fields::new();
    check!(!fields.has(name));
    same!(fields.get(name), NOTHING);
    gives!(fields.delete(name), Err(HeaderError::InvalidSyntax));
    gives!(fields.get_and_delete(name), Err(HeaderError::InvalidSyntax));
    if !refuses(name, b"value", |error| matches!(error, HeaderError::InvalidSyntax)) {
        failed(file!(), line!(), &format!("the name {name:?} is taken, or not refused as it must be"));
    }
}

fn taken(name: &str, one: &[u8], two: &[u8]) {
    let fields = Fields::new();
    ok!(fields.delete(name));
    same!(ok!(fields.get_and_delete(name)), NOTHING);
    ok!(fields.set(name, &[one.to_vec()]));
    ok!(fields.append(name, two));
    let expected = [(name.to_string(), one.to_vec()), (name.to_string(), two.to_vec())];
    same!(fields.copy_all(), expected);
    same!(ok!(Fields::from_list(&expected)).copy_all(), expected);
    same!(fields.clone().copy_all(), expected);
}

fn names() {
    for name in ["", " ", " a", "a ", "a b", "caf\u{e9}", "(a)", "[a]", "{a}"] {
        no_name(name);
    }
    for name in ["7", "815", "with-dashes-1", &"x".repeat(1024)] {
        taken(name, b"one", b"two");
    }
    for character in '\0'..='\u{3ff}' {
        let name = character.to_string();
        match character {
            '"' => {}                                // wasmtime takes it: its issue 11771
            it if it.is_ascii_uppercase() => {} // wasmtime makes it lower case: its issue 11770
            it if is_token(it) => taken(&name, b"one", b"two"),
            _ => no_name(&name),
        }
    }
}

fn values_of_bytes() {
    for byte in 0..=u8::MAX {
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            taken("name", &[byte], &[byte]);
        } else if !refuses("name", &[byte], |error| matches!(error, HeaderError::InvalidSyntax)) {
            failed(file!(), line!(), &format!("the value {byte:#x} is taken, or not refused as it must be"));
        }
    }
    for value in [&b""[..], b" \t \t ", b"Text", b"with-dashes-1", &[b'x'; 1024]] {
        taken("name", value, value);
    }
}

fn case_of_names() {
    let fields = Fields::new();
    for (one, other) in [("name", "NAME"), ("NAME", "name")] {
        ok!(fields.append(one, b"one"));
        check!(fields.has(one) && fields.has(other));
        same!(fields.get(one), fields.get(other));
        ok!(fields.delete(other));
        check!(!fields.has(one) && !fields.has(other));

        ok!(fields.append(one, b"one"));
        ok!(fields.append(other, b"two"));
        if one == "name" {
            same!(fields.copy_all(), [("name", b"one"), ("name", b"two")]); // else wasmtime's issue 11770
        }
        same!(ok!(fields.get_and_delete(other)), values(["one", "two"]));
    }
}

/// The name, as one might write it.
fn ways_to_write(name: &str) -> [String; 3] {
    let words = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
    [name.to_string(), name.to_uppercase(), words.collect::<Vec<_>>().join("-")]
}

pub async fn run() {
    let fields = Fields::new();
    for empty in [&fields.clone(), &fields, &ok!(Fields::from_list(&[]))] {
        without_any(empty);
    }
    let fields = ok!(of_one("name", b"one"));
    for full in [&fields.clone(), &fields] {
        with_one(full);
    }
    names();
    values_of_bytes();
    case_of_names();
    for name in FORBIDDEN.iter().flat_map(|name| ways_to_write(name)) {
        if !refuses(&name, b"value", |error| matches!(error, HeaderError::Forbidden)) {
            failed(file!(), line!(), &format!("{name} is taken, or not forbidden"));
        }
    }
}
