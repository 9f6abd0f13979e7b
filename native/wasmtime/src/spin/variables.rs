//! ``fermyon:spin/variables``, ``spin:variables`` and ``wasi:config``: the variables that a component may read.

use wasmtime::component::{ComponentType, Linker, Lower};

use super::given;
use super::telemetry::{Calls, Case};
use crate::extras::{CONFIG, add_config};
use crate::host::Host;

/// The one that is asynchronous.
const NEWER: &str = "spin:variables/variables@3.0.0";
const OLDER: &str = "fermyon:spin/variables@2.0.0";

#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "it is the interface's")]
enum Error {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

impl Case for Error {
    fn case(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::InvalidName(name) => ("invalid-name", Some(name)),
            Self::Undefined(reason) => ("undefined", Some(reason)),
            Self::Provider(reason) => ("provider", Some(reason)),
            Self::Other(reason) => ("other", Some(reason)),
        }
    }
}

pub fn link(linker: &mut Linker<Host>, newer: bool) -> wasmtime::Result<()> {
    linker.watched(OLDER)?.func_wrap("get", |store, (name,): (String,)| Ok((get(store.data(), name)?,)))?;
    if newer {
        linker.watched(NEWER)?.func_wrap_concurrent("get", |accessor, (name,): (String,)| {
            Box::pin(async move { Ok((accessor.with(|mut it| get(it.get(), name))?,)) })
        })?;
    }
    CONFIG
        .iter()
        .try_for_each(|name| add_config(linker, name, |host| Ok(given(host)?.variables.clone().into_iter().collect())))
}

fn get(host: &Host, name: String) -> wasmtime::Result<Result<String, Error>> {
    if !is_name(&name) {
        return Ok(Err(Error::InvalidName(name)));
    }
    let found = given(host)?.variables.get(&name).cloned();
    Ok(found.ok_or_else(|| Error::Undefined(format!("no variable for '{name}' is given to this component"))))
}

/// Words of small letters and digits, with one line below between two; the first begins with a letter.
fn is_name(name: &str) -> bool {
    let word = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.split('_').all(word)
}
