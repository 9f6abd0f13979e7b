//! A component put together with its dependencies, and with what is called around it, as Spin does it (its crates
//! ``compose`` and ``trigger-http``).

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use wac_graph::types::{Package, WorldId};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};
use wasmparser::{Validator, WasmFeatures};

use crate::deny;

/// What a component is put together of, by ``shimd/engines/composition.py``.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    dependencies: Vec<Dependency>,
    middleware: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    /// Where it is declared, for messages.
    field: String,
    /// What is imported: ``name``, ``a:b``, ``a:b/c``; the last two with or without a version.
    name: String,
    /// The one of its exports that is taken for it; none: those of the imports' names.
    export: Option<String>,
    denied: Vec<String>,
}

/// What handles a request before the component does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    field: String,
    /// Interfaces, without their versions, that it is not given.
    denied: Vec<String>,
}

/// The interfaces that middleware is of: it exports one, and imports the same.
const HANDLERS: [&str; 2] = ["wasi:http/handler@0.3.", "wasi:http/incoming-handler@0.2."];

/// :param parts: the component, its dependencies, and its middleware, the outermost first
pub fn compose(plan: &Plan, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let (component, others) = parts.split_first().context("there is nothing to compose")?;
    if others.len() != plan.dependencies.len() + plan.middleware.len() {
        bail!("it has another number of parts than it says");
    }
    let dependencies = plan.dependencies.iter().map(|one| one.field.as_str());
    let fields =
        ["the component"].into_iter().chain(dependencies).chain(plan.middleware.iter().map(|one| one.field.as_str()));
    for (field, part) in fields.zip(parts) {
        // What reads them next takes that for granted.
        let is_valid = Validator::new_with_features(WasmFeatures::all()).validate_all(part);
        is_valid.map_err(|error| anyhow!("{field} is not valid WebAssembly: {error}"))?;
    }
    let (dependencies, middleware) = others.split_at(plan.dependencies.len());
    let mut made = component.to_vec();
    if !dependencies.is_empty() {
        made = with_dependencies(made, &plan.dependencies, dependencies)?;
    }
    if !middleware.is_empty() {
        made = behind(made, &plan.middleware, middleware)?;
    }
    Ok(made)
}

/// A composition, of components that are known by the order in which they came.
struct Graph(CompositionGraph);

impl Graph {
    /// Add an instance of a component; what nobody gives it is imported by the whole.
    fn add(&mut self, component: Vec<u8>) -> Result<Instance> {
        let name = format!("part{}", self.0.packages().count());
        let package = Package::from_bytes(&name, None, component, self.0.types_mut())?;
        let world = package.ty();
        let package = self.0.register_package(package)?;
        Ok(Instance { node: self.0.instantiate(package), world })
    }

    fn imports(&self, instance: &Instance) -> Vec<String> {
        self.0.types()[instance.world].imports.keys().cloned().collect()
    }

    fn exports(&self, instance: &Instance) -> Vec<String> {
        self.0.types()[instance.world].exports.keys().cloned().collect()
    }

    /// Satisfy an import with another's export.
    fn give(&mut self, to: &Instance, import: &str, from: &Instance, export: &str) -> Result<()> {
        let given = self.0.alias_instance_export(from.node, export)?;
        Ok(self.0.set_instantiation_argument(to.node, import, given)?)
    }

    fn export(&mut self, instance: &Instance, name: &str) -> Result<()> {
        let exported = self.0.alias_instance_export(instance.node, name)?;
        self.0.export(exported, name)?;
        Ok(())
    }

    fn encoded(&self) -> Result<Vec<u8>> {
        Ok(self.0.encode(EncodeOptions::default())?)
    }
}

struct Instance {
    node: NodeId,
    world: WorldId,
}

/// What a component imports, by name.
pub fn imports(component: &[u8]) -> Result<Vec<String>> {
    let mut graph = Graph(CompositionGraph::new());
    let instance = graph.add(component.to_vec())?;
    Ok(graph.imports(&instance))
}

/// Replace imports of a component by exports of others, of which each has an instance of its own.
pub fn plugged(component: Vec<u8>, plug: Vec<u8>, names: &[String]) -> Result<Vec<u8>> {
    let mut graph = Graph(CompositionGraph::new());
    let (component, plug) = (graph.add(component)?, graph.add(plug)?);
    for name in names {
        graph.give(&component, name, &plug, name)?;
    }
    for name in graph.exports(&component) {
        graph.export(&component, &name)?;
    }
    graph.encoded()
}

fn with_dependencies(component: Vec<u8>, declared: &[Dependency], parts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut graph = Graph(CompositionGraph::new());
    let component = graph.add(component)?;
    let imports = graph.imports(&component);
    let mut givers: BTreeMap<&String, &Dependency> = BTreeMap::new();
    for (dependency, part) in declared.iter().zip(parts) {
        let matched: Vec<&String> = imports.iter().filter(|import| matches(&dependency.name, import)).collect();
        if matched.is_empty() {
            let all = listed(&imports);
            bail!("{} matches none of the component's imports, which are {all}", dependency.field);
        }
        for import in &matched {
            if let Some(other) = givers.insert(import, dependency) {
                bail!("{} and {} both match the import {import}", other.field, dependency.field);
            }
        }
        let given = added(&mut graph, part, &dependency.denied, &dependency.field)?;
        for import in matched {
            let export = dependency.export.as_ref().unwrap_or(import);
            let exports = graph.exports(&given);
            if !exports.contains(export) {
                let all = listed(&exports);
                bail!("{} does not export {export}, for the import {import}, but {all}", dependency.field);
            }
            let fits = graph.give(&component, import, &given, export);
            fits.with_context(|| format!("{}: its {export} does not fit the import {import}", dependency.field))?;
        }
    }
    for name in graph.exports(&component) {
        graph.export(&component, &name)?;
    }
    graph.encoded()
}

/// The component behind others that handle what it handles: each calls the next.
fn behind(component: Vec<u8>, declared: &[Layer], parts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut graph = Graph(CompositionGraph::new());
    let mut inner = graph.add(component)?;
    let handlers = |names: Vec<String>| -> Vec<(&'static str, String)> {
        names.into_iter().filter_map(|name| handler(&name).map(|kind| (kind, name))).collect()
    };
    let exported = handlers(graph.exports(&inner));
    let next = handlers(imports(parts.last().context("there is no middleware")?)?);
    // One that exports both is called by the one that its middleware calls; the other is exported no more.
    let called = exported.iter().find(|(kind, _)| next.iter().any(|(other, _)| other == kind)).or(exported.first());
    let (kind, mut called) = called.cloned().context("the component exports no HTTP handler to be called")?;
    for (layer, part) in declared.iter().zip(parts).rev() {
        let outer = added(&mut graph, part, &layer.denied, &layer.field)?;
        let of_kind = |names: Vec<String>| names.into_iter().find(|name| handler(name) == Some(kind));
        let (import, export) = (of_kind(graph.imports(&outer)), of_kind(graph.exports(&outer)));
        let (Some(import), Some(export)) = (import, export) else {
            bail!("{} is no middleware for the component: it does not both import and export {called}", layer.field);
        };
        let fits = graph.give(&outer, &import, &inner, &called);
        fits.with_context(|| format!("{}: its {import} does not fit the {called} that it would call", layer.field))?;
        (inner, called) = (outer, export);
    }
    graph.export(&inner, &called)?;
    graph.encoded()
}

fn added(graph: &mut Graph, part: &[u8], denied: &[String], field: &str) -> Result<Instance> {
    let confined = deny::without(part.to_vec(), denied).with_context(|| format!("{field} cannot be confined"))?;
    graph.add(confined).with_context(|| format!("{field} is no component that can be composed"))
}

/// The one of the handlers that an interface is a version of.
fn handler(name: &str) -> Option<&'static str> {
    HANDLERS.into_iter().find(|kind| name.starts_with(kind))
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Whether a dependency of that name is for an import: what the name does not say may be anything.
fn matches(name: &str, import: &str) -> bool {
    let (wanted, given) = (Name::of(name), Name::of(import));
    let absent_or_same = |wanted: Option<&str>, given: Option<&str>| wanted.is_none() || wanted == given;
    wanted.package == given.package
        && if wanted.is_plain() || given.is_plain() {
            wanted.is_plain() && given.is_plain()
        } else {
            absent_or_same(wanted.interface, given.interface) && absent_or_same(wanted.version, given.version)
        }
}

#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// ``a:b``, or a plain name.
    package: &'a str,
    interface: Option<&'a str>,
    version: Option<&'a str>,
}

impl<'a> Name<'a> {
    fn of(text: &'a str) -> Self {
        let (path, version) = text.split_once('@').map_or((text, None), |(path, version)| (path, Some(version)));
        let (package, interface) = path.split_once('/').map_or((path, None), |(of, name)| (of, Some(name)));
        Name { package, interface, version }
    }

    fn is_plain(&self) -> bool {
        !self.package.contains(':')
    }
}

/// An import's name without its version.
pub fn unversioned(name: &str) -> &str {
    name.split_once('@').map_or(name, |(path, _version)| path)
}
