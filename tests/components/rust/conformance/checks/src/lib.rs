//! Checks of the guests. The first that fails says so on stderr and ends the guest with code 1.
use std::process::exit;

/// A condition that must hold.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            $crate::failed(file!(), line!(), &format!("not so: {}", stringify!($condition)));
        }
    };
}

/// What a call gives that must succeed.
#[macro_export]
macro_rules! ok {
    ($call:expr) => {
        match $call {
            Ok(value) => value,
            Err(error) => $crate::failed(file!(), line!(), &format!("{}: {error:?}", stringify!($call))),
        }
    };
}

/// What a call gives that must give something.
#[macro_export]
macro_rules! some {
    ($call:expr) => {
        match $call {
            Some(value) => value,
            None => $crate::failed(file!(), line!(), &format!("{} gave nothing", stringify!($call))),
        }
    };
}

/// A call whose result must match a pattern. The bindings' types are not comparable.
#[macro_export]
macro_rules! gives {
    ($call:expr, $pattern:pat) => {
        match $call {
            $pattern => {}
            #[allow(unreachable_patterns)]
            other => {
                let text = format!("{} gave {other:?}, not {}", stringify!($call), stringify!($pattern));
                $crate::failed(file!(), line!(), &text)
            }
        }
    };
}

/// Two values that must be the same, or at least look so.
#[macro_export]
macro_rules! same {
    ($found:expr, $expected:expr) => {
        match (format!("{:?}", $found), format!("{:?}", $expected)) {
            (found, expected) if found == expected => {}
            (found, expected) => {
                let text = format!("{} is {found}, not {expected}", stringify!($found));
                $crate::failed(file!(), line!(), &text)
            }
        }
    };
}

pub fn failed(file: &str, line: u32, text: &str) -> ! {
    let name = file.rsplit('/').next().unwrap_or(file);
    let words: Vec<_> = text.split_whitespace().collect();
    eprintln!("{name}:{line}: {}", words.join(" "));
    exit(1)
}

/// The module of a test, which a guest is called after: ``a-test.wasm``.
pub fn case(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    name.trim_end_matches(".wasm").replace('-', "_")
}
