//! Interfaces of servers that a component may not connect to: each address is refused. SDKs import them, whether a program
//! uses them or not, as they do what nobody provides.

use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Linker, LinkerInstance, Resource, ResourceType, Val};
use wasmtime::{AsContextMut, StoreContextMut};

use crate::host::Host;

const NAMES: [&str; 8] = [
    "fermyon:spin/redis@",
    "fermyon:spin/mysql@",
    "fermyon:spin/postgres@",
    "fermyon:spin/mqtt@",
    "spin:redis/",
    "spin:mysql/",
    "spin:postgres/",
    "spin:mqtt/",
];
/// A draft of WASI 0.3, which SDKs of Spin 4 import beside it.
const DRAFT: &str = "@0.3.0-rc-";

/// What is none.
struct Nothing;

/// Those that a component imports.
pub fn names(component: &Component) -> Vec<String> {
    let of = component.component_type();
    of.imports(component.engine()).map(|(name, _)| name.to_string()).filter(|name| is_absent(name)).collect()
}

fn is_absent(name: &str) -> bool {
    NAMES.iter().any(|it| name.starts_with(it)) || name.contains(DRAFT)
}

/// :param bridged: those that are there, for this one
pub fn link(linker: &mut Linker<Host>, component: &Component, bridged: &[String]) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (name, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(of) = item.ty else { continue };
        if !is_absent(name) || bridged.iter().any(|it| it == name) {
            continue;
        }
        let mut interface = linker.instance(name)?;
        for (item, of) in of.exports(engine) {
            match of.ty {
                ComponentItem::ComponentFunc(of) => link_function(&mut interface, name, item, &of)?,
                ComponentItem::Resource(_) => {
                    interface.resource(item, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn link_function(
    interface: &mut LinkerInstance<'_, Host>,
    of: &str,
    name: &str,
    it: &ComponentFunc,
) -> wasmtime::Result<()> {
    let (missing, refusal) = (format!("{of}#{name}, which is not provided"), refusal(it));
    if name.starts_with("[constructor]") {
        // What it makes is asked to connect later, and refuses then.
        return interface.func_new(name, |mut store, _, _, results| {
            results[0] = Val::Resource(Resource::<Nothing>::new_own(0).try_into_resource_any(&mut store)?);
            Ok(())
        });
    }
    let call = move |results: &mut [Val]| match (&refusal, results) {
        (Some(refusal), [result]) => {
            *result = Val::Result(Err(Some(Box::new(refusal.clone()))));
            Ok(())
        }
        _ => Err(wasmtime::Error::msg(missing.clone())),
    };
    if it.async_() {
        return interface.func_new_concurrent(name, move |accessor, _, parameters, results| {
            let called =
                accessor.with(|mut it| give_back(it.as_context_mut(), parameters)).and_then(|()| call(results));
            Box::pin(async { called })
        });
    }
    interface.func_new(name, move |store, _, parameters, results| {
        give_back(store, parameters)?;
        call(results)
    })
}

/// What was lent is the guest's again.
fn give_back(mut store: StoreContextMut<'_, Host>, parameters: &[Val]) -> wasmtime::Result<()> {
    for parameter in parameters {
        if let Val::Resource(it) = parameter {
            Resource::<Nothing>::try_from_resource_any(*it, &mut store)?;
        }
    }
    Ok(())
}

/// What a guest is told that opens a connection; ``None``: it is no such function, or knows no such case.
fn refusal(of: &ComponentFunc) -> Option<Val> {
    let Type::Result(result) = of.results().next()? else { return None };
    let Type::Variant(error) = result.err()? else { return None };
    let has = |name: &str| error.cases().find(|case| case.name == name);
    if let Some(Type::String) = has("connection-failed").and_then(|case| case.ty) {
        let reason = Val::String("the address is not permitted".into());
        return Some(Val::Variant("connection-failed".into(), Some(Box::new(reason))));
    }
    has("invalid-address").map(|_| Val::Variant("invalid-address".into(), None))
}
