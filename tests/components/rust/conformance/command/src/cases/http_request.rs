//! A request is a GET, and nothing else is set. Its method, scheme, authority and path are what may stand there,
//! and are refused, and stay as they were, if they cannot be. Its headers do not change.
use std::ops::RangeInclusive;

use checks::{check, failed, gives, ok, same};
use wasip3::http::types::{Fields, Method, Request, Scheme};

use crate::messages::{check_frozen, is_token, no_trailers};

/// Of text in a request, all that are short, and some that are not of one byte.
fn characters() -> RangeInclusive<char> {
    '\0'..='\u{3ff}'
}

fn methods(request: &Request) {
    let known = [
        (Method::Get, "GET"),
        (Method::Head, "HEAD"),
        (Method::Post, "POST"),
        (Method::Put, "PUT"),
        (Method::Delete, "DELETE"),
        (Method::Connect, "CONNECT"),
        (Method::Options, "OPTIONS"),
        (Method::Trace, "TRACE"),
        (Method::Patch, "PATCH"),
    ];
    for (method, name) in known {
        ok!(request.set_method(&method));
        same!(request.get_method(), method);
        ok!(request.set_method(&Method::Other(name.into())));
        same!(request.get_method(), method); // by its name, too
    }
    let other = Method::Other("brew".into());
    ok!(request.set_method(&other));
    gives!(request.set_method(&Method::Other(String::new())), Err(()));
    same!(request.get_method(), other);

    // wasmtime takes these otherwise: its issue 11772.
    for character in characters().filter(|it| !"#$%&'".contains(*it)) {
        let method = Method::Other(character.into());
        if is_token(character) {
            ok!(request.set_method(&method));
            same!(request.get_method(), method);
        } else if request.set_method(&method).is_ok() {
            failed(file!(), line!(), &format!("the method {character:?} is taken"));
        }
    }
}

fn schemes(request: &Request) {
    for (scheme, name) in [(Scheme::Http, "http"), (Scheme::Https, "https")] {
        ok!(request.set_scheme(Some(&scheme)));
        same!(request.get_scheme(), Some(&scheme));
        ok!(request.set_scheme(None));
        same!(request.get_scheme(), None::<Scheme>);
        ok!(request.set_scheme(Some(&Scheme::Other(name.into()))));
        same!(request.get_scheme(), Some(&scheme));
    }
    // wasmtime takes these otherwise: its issue 11778.
    for character in characters().filter(|it| !"+-.0123456789~".contains(*it)) {
        let scheme = Scheme::Other(character.into());
        if character.is_ascii_alphabetic() {
            ok!(request.set_scheme(Some(&scheme)));
            same!(request.get_scheme(), Some(scheme));
        } else if request.set_scheme(Some(&scheme)).is_ok() {
            failed(file!(), line!(), &format!("the scheme {character:?} is taken"));
        }
    }
}

fn paths(request: &Request) {
    ok!(request.set_scheme(Some(&Scheme::Http)));
    ok!(request.set_method(&Method::Get));
    let keeps = |path: &str| {
        ok!(request.set_path_with_query(Some(path)));
        same!(request.get_path_with_query(), Some(path));
    };
    for path in ["/", "/one/two/three", "/one/../../two", "/?query", "?query"] {
        keeps(path);
    }
    ok!(request.set_path_with_query(Some("")));
    same!(request.get_path_with_query(), Some("/"));

    // wasmtime takes these, its issue 11779, and its library the last.
    for character in characters().filter(|it| !"/?\"{|}^[]\\#\u{7f}".contains(*it)) {
        let path = format!("/{character}");
        // RFC 3986, 3.3, and what is not ASCII as it is
        if character.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:@".contains(character) || !character.is_ascii() {
            keeps(&path);
        } else if request.set_path_with_query(Some(&path)).is_ok() {
            failed(file!(), line!(), &format!("{character:?} in a path is taken"));
        }
    }
    ok!(request.set_method(&Method::Options));
    ok!(request.set_path_with_query(Some("")));
    for relative in ["one/two", "../.."] {
        keeps(relative);
    }
}

fn authorities(request: &Request) {
    for host in ["10.1.2.3", "example.org", "localhost"] {
        for (user, port) in [("", ""), ("", ":80"), ("name@", ":80"), ("name:secret@", ":80")] {
            let authority = format!("{user}{host}{port}");
            ok!(request.set_authority(Some(&authority)));
            same!(request.get_authority(), Some(authority));
        }
    }
    ok!(request.set_authority(Some("name:secret%20@localhost:80")));
    for none in ["", " ", "#", "::", ":@", "@:", "@@", "[", "localhost:port"] {
        if request.set_authority(Some(none)).is_ok() {
            failed(file!(), line!(), &format!("the authority {none:?} is taken"));
        }
    }
}

pub async fn run() {
    let headers = Fields::new();
    ok!(headers.append("age", b"7"));
    let before = headers.clone();
    let (request, _sent) = Request::new(headers, None, no_trailers(), None);
    same!(request.get_method(), Method::Get);
    same!((request.get_path_with_query(), request.get_authority()), (None::<String>, None::<String>));
    gives!(request.get_scheme(), None);
    check!(request.get_options().is_none());

    schemes(&request);
    methods(&request);
    authorities(&request);
    check_frozen(&request.get_headers(), &before);
    paths(&request);
}
