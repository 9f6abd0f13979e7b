//! The imports of a component: what it has of WASI, and of Spin's.

use std::sync::Arc;

use wasmtime::component::{Component, InstancePre};

use super::{absent, keyvalue, models, own, sqlite, tree, variables};
use crate::abi::Kind;
use crate::bridge::{self, Bridge};
use crate::engine::Flavour;
use crate::extras;
use crate::host::Host;

/// :param bridged: the interfaces that Python gives over the bridge, of those that are absent else
///
/// :raises: it imports what nobody gives
pub fn link(
    kind: Kind,
    component: &Component,
    bridged: &[String],
    over: &Arc<Bridge>,
) -> wasmtime::Result<InstancePre<Host>> {
    let flavour = Flavour::of(kind);
    let mut linker = flavour.worlds(component.engine())?;
    extras::add_stateless(&mut linker, flavour.newer)?;
    variables::link(&mut linker, flavour.newer)?;
    keyvalue::link(&mut linker, flavour.newer)?;
    sqlite::link(&mut linker, flavour.newer)?;
    linker.allow_shadowing(true);
    own::link(&mut linker, flavour.newer)?;
    tree::link(&mut linker, flavour.newer)?;
    linker.allow_shadowing(false);
    // What else it imports: here is where it is known, and whoever has more to give begins.
    models::link(&mut linker, component)?;
    bridge::link(&mut linker, component, bridged, over)?;
    absent::link(&mut linker, component, bridged)?;
    linker.instantiate_pre(component)
}
