//! Interfaces whose host is a Python object in another process, linked by their types alone: docs/bridge.md.

mod connection;
mod lower;
mod streams;
mod values;

use std::collections::HashSet;
use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use wasmtime::component::types::{ComponentFunc, ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType, Val};
use wasmtime::{AsContextMut, Engine, Error, Result, StoreContextMut, bail, format_err};

use connection::{Failure, Guest};
use values::{MOST_RESOURCES, Reader};

use crate::host::Host;
use crate::spin::telemetry::{Call, Called};

pub use connection::Bridge;

/// What of a component goes over a bridge.
pub struct Bridged {
    /// Names of interfaces, with their versions.
    pub interfaces: Vec<String>,
    /// The descriptor that connections are asked for over, if there are interfaces.
    pub ask: c_int,
}

impl Bridged {
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
    }

    /// Called once: the descriptor is the linker's then.
    pub fn link(&self, linker: &mut Linker<Host>, component: &Component) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        link(linker, component, &self.interfaces, &Arc::new(Bridge::new("", Some(asking(self.ask)))))
    }
}

/// Called once of a descriptor, which is ours then.
pub fn asking(descriptor: c_int) -> Arc<OwnedFd> {
    Arc::new(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A guest's end of its component's bridge: nothing, until it calls.
#[derive(Default)]
pub struct Caller(Option<Arc<Guest>>);

/// Link these interfaces, of those that a component imports, so that their functions are called over the bridge.
///
/// :raises: one has a resource of an interface that is not among them
pub fn link(linker: &mut Linker<Host>, component: &Component, names: &[String], bridge: &Arc<Bridge>) -> Result<()> {
    let (engine, of) = (component.engine(), component.component_type());
    let names = names.iter().map(String::as_str).collect::<HashSet<_>>();
    let interfaces = of.imports(engine).filter_map(|(name, it)| match it.ty {
        ComponentItem::ComponentInstance(interface) => Some((name, interface)),
        _ => None,
    });
    let (ours, others) = interfaces.partition::<Vec<_>, _>(|(name, _)| names.contains(name));
    let kinds = kinds(&ours, &others, engine)?;
    for (name, interface) in &ours {
        let mut instance = linker.instance(name)?;
        for (item, export) in interface.exports(engine) {
            match export.ty {
                ComponentItem::Resource(kind) => {
                    let number = kinds.iter().position(|it| *it == kind).unwrap_or_default() as u32;
                    add_resource(&mut instance, name, item, number, bridge)?;
                }
                ComponentItem::ComponentFunc(function) => {
                    add_function(&mut instance, &format!("{name}#{item}"), item, &function, bridge)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

type Interfaces<'a> = [(&'a str, ComponentInstance)];

/// The types of resources that interfaces have, which use each other's by names of their own: each has a number, its place.
///
/// :raises: one is another interface's
fn kinds(ours: &Interfaces<'_>, others: &Interfaces<'_>, engine: &Engine) -> Result<Vec<ResourceType>> {
    let mut kinds = Vec::new();
    for (name, kind) in resources(ours, engine) {
        if let Some((other, _)) = resources(others, engine).find(|(_, it)| *it == kind) {
            bail!("{name} has a resource of {other}, which is not bridged");
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.len() > MOST_RESOURCES as usize {
        bail!("it has more than {MOST_RESOURCES} kinds of resources");
    }
    Ok(kinds)
}

fn resources<'a>(of: &'a Interfaces<'_>, engine: &'a Engine) -> impl Iterator<Item = (&'a str, ResourceType)> {
    of.iter().flat_map(move |(name, interface)| {
        interface.exports(engine).filter_map(move |(_, it)| match it.ty {
            ComponentItem::Resource(kind) => Some((*name, kind)),
            _ => None,
        })
    })
}

fn add_resource(
    instance: &mut LinkerInstance<'_, Host>,
    interface: &str,
    name: &str,
    number: u32,
    bridge: &Arc<Bridge>,
) -> Result<()> {
    let (interface, bridge) = (Arc::<str>::from(interface), bridge.clone());
    instance.resource_async(name, ResourceType::host_dynamic(number), move |mut store, resource| {
        let (interface, bridge) = (interface.clone(), bridge.clone());
        Box::new(async move {
            let guest = end(&mut store, &bridge, &interface)?;
            guest.connection.drop(guest.number, resource).await.map_err(|failure| told(failure, &interface))
        })
    })
}

fn add_function(
    instance: &mut LinkerInstance<'_, Host>,
    name: &str,
    item: &str,
    function: &ComponentFunc,
    bridge: &Arc<Bridge>,
) -> Result<()> {
    let told = name.rsplit_once('#').and_then(|(interface, item)| Called::of(interface, item)).map(Arc::new);
    let (name, bridge) = (Arc::<str>::from(name), bridge.clone());
    if function.async_() {
        return instance.func_new_concurrent(item, move |accessor, of, parameters, results| {
            let (name, bridge, told) = (name.clone(), bridge.clone(), told.clone());
            Box::pin(async move {
                let span = accessor.with(|mut access| begun(access.get(), told.as_deref(), parameters));
                let doing = async {
                    let asked = accessor
                        .with(|mut access| ask(&mut access.as_context_mut(), &bridge, &name, &of, parameters))?;
                    let answer = asked.answer(&name).await?;
                    accessor
                        .with(|mut access| asked.answered(&mut access.as_context_mut(), &name, &of, &answer, results))
                };
                let done = doing.await;
                span.inspect(|span| span.returned(&done, results));
                done
            })
        });
    }
    instance.func_new_async(item, move |mut store, of, parameters, results| {
        let (name, bridge, told) = (name.clone(), bridge.clone(), told.clone());
        Box::new(async move {
            let span = begun(store.data(), told.as_deref(), parameters);
            let doing = async {
                let asked = ask(&mut store, &bridge, &name, &of, parameters)?;
                let answer = asked.answer(&name).await?;
                asked.answered(&mut store, &name, &of, &answer, results)
            };
            let done = doing.await;
            span.inspect(|span| span.returned(&done, results));
            done
        })
    })
}

/// The span of a call, if its guest is watched.
fn begun(host: &Host, called: Option<&Called>, parameters: &[Val]) -> Option<Call> {
    Some(host.watch.as_ref()?.call(called?, parameters))
}

/// A call that is to be made.
struct Asked {
    guest: Arc<Guest>,
    arguments: Vec<u8>,
}

impl Asked {
    async fn answer(&self, name: &str) -> Result<Vec<u8>> {
        let answer = self.guest.connection.call(self.guest.number, name, &self.arguments).await;
        answer.map_err(|failure| told(failure, name))
    }

    fn answered(
        &self,
        store: &mut StoreContextMut<'_, Host>,
        name: &str,
        of: &ComponentFunc,
        answer: &[u8],
        results: &mut [Val],
    ) -> Result<()> {
        let mut reader = Reader { data: answer, from: &self.guest };
        for (result, kind) in results.iter_mut().zip(of.results()) {
            *result = reader.read(&kind, store).map_err(|error| format_err!("{name} has answered wrongly: {error}"))?;
        }
        Ok(())
    }
}

fn ask(
    store: &mut StoreContextMut<'_, Host>,
    bridge: &Bridge,
    name: &str,
    of: &ComponentFunc,
    parameters: &[Val],
) -> Result<Asked> {
    let guest = end(store, bridge, name)?;
    let mut arguments = Vec::new();
    rmp::encode::write_array_len(&mut arguments, parameters.len() as u32)?;
    for (value, (parameter, kind)) in parameters.iter().zip(of.params()) {
        values::write(value, &kind, &mut arguments, store)
            .map_err(|error| format_err!("{name}: its argument {parameter} cannot be passed: {error}"))?;
    }
    Ok(Asked { guest, arguments })
}

/// A guest's end, which it keeps.
fn end(store: &mut StoreContextMut<'_, Host>, bridge: &Bridge, name: &str) -> Result<Arc<Guest>> {
    let Caller(guest) = store.data_mut().caller();
    let guest = match guest {
        Some(guest) => guest,
        None => {
            let made = bridge.connection();
            let unreachable = |error| format_err!("{name} cannot be called: its process cannot be reached: {error}");
            guest.insert(Arc::new(Guest::new(made.map_err(unreachable)?)))
        }
    };
    Ok(guest.clone())
}

fn told(failure: Failure, name: &str) -> Error {
    match failure {
        Failure::Told(reason) => format_err!("{name}: {reason}"),
        Failure::Lost => format_err!("{name}: the process that provides it has ended"),
        Failure::TooLarge(size) => format_err!("{name}: its arguments have {size} bytes, which is too much for a call"),
    }
}
